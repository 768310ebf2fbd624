"""The plan of a comparison: configurations, scheduler modes and seeds, and the resulting runs.

Checks the settings that must be equal in all configurations, and names the runs. `session` trains the runs, and `results`
reads them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from mnist_trainer.config.loading import config_name
from mnist_trainer.config.schema import DATA_IDENTITY, SCHEDULER_MODES, RunConfig
from mnist_trainer.errors import RequestError

RUNS = "runs"
"""The folder of a comparison that holds the run folders."""

MUST_BE_EQUAL = (
    "training.epochs",
    "training.batch_size",
    "model.backend",
    "model.network",
    "model.initial_parameters",
    "data.train_images",
    "data.validation_images",
    "data.test_images",
    "data.augment",
    "runtime.device",
    "runtime.threads",
)
"""Settings that must be equal in all configurations of a comparison, unless the user allows a difference."""

_DATA = tuple(f"data.{key}" for key in DATA_IDENTITY)
"""Settings that must be equal in any case: accuracies on different data cannot be compared."""


@dataclass(frozen=True)
class Candidate:
    """A configuration to compare, to be combined with scheduler modes and seeds.

    Attributes:
        name: The name of its file without the extension; for a `config.toml`, the name of the run folder that contains it.
        file: Its path as the user wrote it.
        config: The configuration.
        schedule: Its schedule as text.
        missed_drop: The iteration of the schedule's first drop if the runs end before it; otherwise None.
    """

    name: str
    file: str
    config: RunConfig
    schedule: str
    missed_drop: int | None

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
        modes: The scheduler modes of every candidate; None for the mode in each configuration.
        seeds: The seeds of every candidate and mode.
        allowed: Keys of `MUST_BE_EQUAL` that may differ nevertheless.
    """

    candidates: Sequence[Candidate]
    modes: Sequence[str] | None
    seeds: Sequence[int]
    allowed: Sequence[str] = ()

    def modes_of(self, candidate: Candidate) -> Sequence[str]:
        """Return the scheduler modes of a candidate."""
        return self.modes or candidate.modes

    def runs(self) -> Iterator[PlannedRun]:
        """Yield the runs seed by seed, so that a comparison that is stopped early has complete seeds."""
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
        modes: The scheduler modes. None for both modes of a single configuration, or for the mode in each of several.
        seeds: The seeds; None for the seed in the configurations.
        allowed: Keys of `MUST_BE_EQUAL` that may differ nevertheless.

    Raises:
        RequestError: With a message for each problem.
    """
    problems = [*_duplicates("--modes", modes or ()), *_duplicates("--seeds", seeds or ())]
    candidates = [_candidate(file, config) for file, config in zip(files, configs, strict=True)]
    problems += [
        f"{candidate.file}: its name becomes part of folder names; rename it so that it begins with a letter or digit and has "
        "only letters, digits, spaces and . _ + -"
        for candidate in candidates
        if not re.fullmatch(r"[^\W_][\w.+ -]*", candidate.name)
    ]
    for one, other in combinations(candidates, 2):
        if one.file == other.file:
            problems.append(f"{one.file}: is given twice; give each configuration once")
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
    """Return a message for each setting that must be equal but differs, unless it is allowed to differ."""
    first, *others = plan.candidates
    # A user's network always has the stock backend.
    allowed = {*plan.allowed, "model.backend"} if "model.network" in plan.allowed else set(plan.allowed)
    return [
        f"{other.file}: {key} is {_shown(theirs)}, but {_shown(ours)} in {first.file}; make it equal in all configurations"
        + (f", or add --allow {key}" if key in MUST_BE_EQUAL else "")
        for other in others
        for key, ours, theirs in first.config.differences(other.config)
        if key in (*MUST_BE_EQUAL, *_DATA) and key not in allowed
    ]


def _candidate(file: str, config: RunConfig) -> Candidate:
    schedule = config.build_schedule()
    return Candidate(config_name(file), file, config, str(schedule), schedule.missed_drop(config.run_length.total_iterations))


def _shown(value: object) -> str:
    return "left out" if value is None else repr(value)


def _duplicates(flag: str, values: Sequence[object]) -> list[str]:
    return [f"{flag}: {value} is given twice; give each value once" for value, count in Counter(values).items() if count > 1]
