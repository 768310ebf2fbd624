"""The plan of a comparison: configurations, scheduler modes and seeds, and the runs that they make.

Checks the settings that must be equal among the configurations, and names the runs. `session` trains the runs, and
`results` reads them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from mnist_trainer.config.loading import config_name
from mnist_trainer.config.schema import SCHEDULER_MODES, RunConfig
from mnist_trainer.errors import RequestError

RUNS = "runs"
"""The folder of a comparison that holds the run folders."""

MUST_BE_EQUAL = (
    "training.epochs",
    "training.batch_size",
    "model.backend",
    "model.network",
    "data.train_images",
    "data.validation_images",
    "data.test_images",
    "runtime.device",
    "runtime.threads",
)
"""Settings that must be equal in all configurations of a comparison."""


@dataclass(frozen=True)
class Candidate:
    """A configuration that takes part, with any seed and scheduler mode.

    Attributes:
        name: The name of its file without the ending, or that of the run folder of a `config.toml`.
        file: Its path as the user wrote it.
        config: The configuration.
        schedule: Its schedule as it prints.
    """

    name: str
    file: str
    config: RunConfig
    schedule: str

    @property
    def modes(self) -> tuple[str, ...]:
        """The scheduler mode that the configuration names."""
        return (self.config.training.scheduler_mode,)


@dataclass(frozen=True)
class PlannedRun:
    """A run of the comparison."""

    candidate: Candidate
    mode: str
    seed: int

    @property
    def config(self) -> RunConfig:
        """The candidate's configuration with this mode and seed."""
        training = replace(self.candidate.config.training, scheduler_mode=self.mode, seed=self.seed)
        return replace(self.candidate.config, training=training)

    @property
    def folder_name(self) -> str:
        """The name of its run folder."""
        return f"{self.candidate.name}-{self.mode}-seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.candidate.name}, {self.mode}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """The runs of a comparison: each candidate in its modes, with each seed.

    Attributes:
        candidates: The configurations; all are compared with the first.
        modes: The scheduler modes of every candidate; None for the one that each configuration names.
        seeds: The seeds of every candidate and mode.
        allowed: Keys of `MUST_BE_EQUAL` that may differ all the same.
    """

    candidates: Sequence[Candidate]
    modes: Sequence[str] | None
    seeds: Sequence[int]
    allowed: Sequence[str] = ()

    def modes_of(self, candidate: Candidate) -> Sequence[str]:
        """Return the scheduler modes of a candidate."""
        return self.modes or candidate.modes

    def runs(self) -> Iterator[PlannedRun]:
        """Yield the runs seed by seed: so a comparison that is stopped has whole seeds."""
        for seed in self.seeds:
            for candidate in self.candidates:
                for mode in self.modes_of(candidate):
                    yield PlannedRun(candidate, mode, seed)


def make_plan(
    files: Sequence[str],
    configs: Sequence[RunConfig],
    modes: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    allowed: Sequence[str] = (),
) -> Plan:
    """Return the plan of a comparison.

    Args:
        files: The configurations' paths, for messages and names.
        configs: The configurations.
        modes: The scheduler modes; None for both if there is one configuration, and else for the one that each names.
        seeds: The seeds; None for those of the configurations.
        allowed: Keys of `MUST_BE_EQUAL` that may differ all the same.

    Raises:
        RequestError: The message names all problems.
    """
    problems = [*_duplicates("--modes", modes or ()), *_duplicates("--seeds", seeds or ())]
    candidates = [
        Candidate(config_name(file), file, config, str(config.build_schedule()))
        for file, config in zip(files, configs, strict=True)
    ]
    problems += [
        f"{candidate.file}: its name is used for run folders; rename it to begin with a letter or digit and contain only "
        "letters, digits, blanks and . _ + -"
        for candidate in candidates
        if not re.fullmatch(r"[^\W_][\w.+ -]*", candidate.name)
    ]
    for one, other in combinations(candidates, 2):
        if one.file == other.file:
            problems.append(f"{one.file}: is given twice; each configuration takes part once")
        elif one.name == other.name:
            problems.append(f"{one.file} and {other.file}: both are called {one.name}; rename one of them")
    if seeds is None:
        seed_of = {candidate.file: candidate.config.training.seed for candidate in candidates}
        seeds = sorted(set(seed_of.values()))
        if len(seeds) > 1:
            shown = ", ".join(f"{file} has {seed}" for file, seed in seed_of.items())
            problems.append(f"training.seed: {shown}; give --seeds, because all configurations need the same seeds")
    if problems:
        raise RequestError(*problems)
    if modes is None and len(configs) == 1:
        modes = SCHEDULER_MODES
    return Plan(candidates, modes, seeds, allowed)


def unequal_settings(plan: Plan) -> list[str]:
    """Return a sentence for each setting that must be equal, differs, and was not allowed to differ."""
    first, *others = plan.candidates
    # Only the stock backend computes a network of the user's.
    allowed = {*plan.allowed, "model.backend"} if "model.network" in plan.allowed else set(plan.allowed)
    return [
        f"{other.file}: {key} is {_shown(theirs)}, and {_shown(ours)} in {first.file}; it must be equal in all configurations "
        f"of a comparison, unless you add --allow {key}"
        for other in others
        for key, ours, theirs in first.config.differences(other.config)
        if key in MUST_BE_EQUAL and key not in allowed
    ]


def _shown(value: object) -> str:
    return "left out" if value is None else repr(value)


def _duplicates(flag: str, values: Sequence[object]) -> list[str]:
    return [f"{flag}: {value} is given twice" for value, count in Counter(values).items() if count > 1]
