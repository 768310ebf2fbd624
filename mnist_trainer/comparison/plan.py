"""What a comparison consists of: configurations, scheduler modes and seeds, and the runs that come of them.

Knows what must be equal among the configurations, and how a run is called. How runs are trained is left to `jobs`, what came
of them to `results`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from mnist_trainer.config.schema import HIGHEST_SEED, SCHEDULER_MODES, RunConfig
from mnist_trainer.errors import RequestError
from mnist_trainer.run_folder import CONFIG

RUNS = "runs"
"""The folder in that of the comparison that holds the folders of the runs."""

MUST_BE_EQUAL = (
    "training.epochs",
    "training.batch_size",
    "model.stages",
    "data.train_images",
    "data.validation_images",
    "data.test_images",
    "runtime.device",
    "runtime.threads",
)
"""What is no part of what is compared: network, data and batches, and how long and on what is trained."""


@dataclass(frozen=True)
class Candidate:
    """A configuration that takes part, whatever its seed and scheduler mode.

    name: of its file, without the ending; of a run's `config.toml`, that of its folder.
    file: as the user gave it.
    schedule: as it prints.
    """

    name: str
    file: str
    config: RunConfig
    schedule: str

    @property
    def modes(self) -> tuple[str, ...]:
        """The one that the configuration itself names."""
        return (self.config.training.scheduler_mode,)


@dataclass(frozen=True)
class PlannedRun:
    """One training of the comparison."""

    candidate: Candidate
    mode: str
    seed: int

    @property
    def config(self) -> RunConfig:
        training = replace(self.candidate.config.training, scheduler_mode=self.mode, seed=self.seed)
        return replace(self.candidate.config, training=training)

    @property
    def folder_name(self) -> str:
        return f"{self.candidate.name}-{self.mode}-seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.candidate.name}, {self.mode}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A comparison: each candidate in its modes, with each seed.

    modes: those of every candidate; None for the one that each configuration names.
    allowed: keys of `MUST_BE_EQUAL` that may differ all the same.
    """

    candidates: Sequence[Candidate]
    modes: Sequence[str] | None
    seeds: Sequence[int]
    allowed: Sequence[str] = ()

    def modes_of(self, candidate: Candidate) -> Sequence[str]:
        return self.modes or candidate.modes

    def runs(self) -> Iterator[PlannedRun]:
        """Seed by seed, so that a comparison that is stopped has whole seeds."""
        for seed in self.seeds:
            for candidate in self.candidates:
                for mode in self.modes_of(candidate):
                    yield PlannedRun(candidate, mode, seed)


def make_plan(
    files: Sequence[str], configs: Sequence[RunConfig], modes: str | None, seeds: str | None, allowed: str | None
) -> Plan:
    """A plan from what the user wrote, names and numbers with commas between them.

    modes: None for both, if there is one configuration, else for that of each.
    seeds: None for that of the configurations.

    Raises RequestError with all that is wrong.
    """
    problems: list[str] = []
    chosen_modes = _names(modes) if modes is not None else list(SCHEDULER_MODES) if len(configs) == 1 else None
    problems += [
        f"--modes {modes}: {each!r} is neither optimizer nor manual"
        for each in chosen_modes or ()
        if each not in SCHEDULER_MODES
    ]
    problems += _doubles("--modes", modes, chosen_modes or ())
    chosen_allowed = _names(allowed) if allowed is not None else []
    problems += [
        f"--allow {allowed}: {each!r} is not one of {', '.join(MUST_BE_EQUAL)}"
        for each in chosen_allowed
        if each not in MUST_BE_EQUAL
    ]
    candidates = [
        Candidate(_name_of(file), file, config, str(config.build_schedule()))
        for file, config in zip(files, configs, strict=True)
    ]
    problems += [
        f"{each.file}: runs are called after it; rename it, so that its name begins with a letter or digit and is of these, "
        "blanks and . _ + -"
        for each in candidates
        if not re.fullmatch(r"[^\W_][\w.+ -]*", each.name)
    ]
    for one, other in combinations(candidates, 2):
        if one.file == other.file:
            problems.append(f"{one.file}: is there twice; each configuration takes part once")
        elif one.name == other.name:
            problems.append(f"{one.file} and {other.file}: both are called {one.name}; rename one of them")
    chosen_seeds: list[int] = []
    if seeds is not None:
        chosen_seeds = _parse_seeds(seeds, problems)
    else:
        of = {candidate.file: candidate.config.training.seed for candidate in candidates}
        chosen_seeds = sorted(set(of.values()))
        if len(chosen_seeds) > 1:
            told = ", ".join(f"{file} has {seed}" for file, seed in of.items())
            problems.append(f"training.seed: {told}; give --seeds, for all must have the same")
    if problems:
        raise RequestError(*problems)
    return Plan(candidates, chosen_modes, chosen_seeds, chosen_allowed)


def inequalities(plan: Plan) -> list[str]:
    """In what the configurations must be equal, are not, and were not allowed to differ, a sentence each."""
    first, *others = plan.candidates
    return [
        f"{other.file}: {key} is {theirs!r}, and {ours!r} in {first.file}; what is compared must be equal in it, "
        f"unless you say --allow {key}"
        for other in others
        for key, ours, theirs in first.config.differences(other.config)
        if key in MUST_BE_EQUAL and key not in plan.allowed
    ]


def _name_of(file: str) -> str:
    path = Path(file)
    return path.resolve().parent.name if path.name == CONFIG else path.stem


def _names(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")]


def _doubles(flag: str, text: str | None, values: Sequence[object]) -> list[str]:
    doubles = [each for number, each in enumerate(values) if each in values[:number]]
    return [f"{flag} {text}: {each} is there twice" for each in dict.fromkeys(doubles)]


def _parse_seeds(text: str, problems: list[str]) -> list[int]:
    parts = _names(text)
    wrong = [each for each in parts if not (re.fullmatch(r"[0-9]{1,10}", each) and int(each) <= HIGHEST_SEED)]
    problems += [f"--seeds {text}: {each!r} is not a whole number from 0 to {HIGHEST_SEED}" for each in wrong]
    seeds = [int(each) for each in parts if each not in wrong]
    problems += _doubles("--seeds", text, seeds)
    return seeds
