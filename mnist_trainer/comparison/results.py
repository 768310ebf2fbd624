"""What the runs of a comparison came to: whether the scheduler modes agree, and what the schedules are worth over seeds.

Reads finished run folders and says nothing itself: sentences and tables are left to `report`. Standard library only.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mnist_trainer.comparison.intervals import Estimate, PairedDifference
from mnist_trainer.comparison.plan import MUST_BE_EQUAL, Candidate, Plan, PlannedRun
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.errors import RequestError
from mnist_trainer.run_folder import CONFIG, ENVIRONMENT, ITERATIONS, METRICS, SUMMARY, RunFolder

MILESTONES = (0.98, 0.985)
"""Test accuracies of which is told in which epoch a run first had them."""

# Of what must be equal, this comes after the beginning: runs that are equal in the rest have the same first loss.
_NOT_OF_THE_BEGINNING = {"training.epochs", "data.test_images"}

NOT_TRAINED = "it was not trained to its end"
"""The problem of a run whose turn has not come, or that was stopped."""


@dataclass(frozen=True)
class Result:
    """A run and its folder. problem: why it is not finished; None if it is."""

    run: PlannedRun
    folder: RunFolder
    problem: str | None = None

    @cached_property
    def summary(self) -> dict[str, Any]:
        return self.folder.read_summary()

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        return self.folder.read_metrics()

    @cached_property
    def iterations(self) -> list[tuple[int, float, float]]:
        """Rows (iteration, learning rate, loss)."""
        return self.folder.read_iterations()

    @cached_property
    def environment(self) -> dict[str, Any]:
        return self.folder.read_json(ENVIRONMENT)

    def check(self, config: RunConfig) -> None:
        """Raises RequestError with a sentence for each file of a finished run that contradicts the run's configuration.

        config: the run's own, which says how many epochs and iterations the files must hold.
        """
        length = config.run_length
        ends = [(epoch, epoch * length.iterations_per_epoch) for epoch in range(1, length.epochs + 1)]
        numbers = ("test_accuracy", "test_loss")
        files: dict[str, tuple[str, Callable[[], bool]]] = {
            METRICS: (
                f"the epochs 1 to {length.epochs} ({CONFIG}), each with iteration, test_accuracy and test_loss",
                lambda: (
                    [(each["epoch"], each["iteration"]) for each in self.metrics] == ends
                    and all(isinstance(each[name], float) for each in self.metrics for name in numbers)
                ),
            ),
            ITERATIONS: (
                f"the iterations 1 to {length.total_iterations} ({CONFIG})",
                lambda: [row[0] for row in self.iterations] == list(range(1, length.total_iterations + 1)),
            ),
            SUMMARY: (
                "test_accuracy, test_loss, seconds and parameters_sha256",
                lambda: (
                    all(isinstance(self.summary[name], float) for name in (*numbers, "seconds"))
                    and isinstance(self.summary["parameters_sha256"], str)
                ),
            ),
            ENVIRONMENT: ("the environment of the run", lambda: bool(self.environment)),
        }
        problems: list[str] = []
        for name, (content, is_whole) in files.items():
            why = ""
            try:
                if is_whole():
                    continue
            except RequestError as error:  # it names the file
                problems += error.problems
                continue
            except (OSError, ValueError, LookupError, TypeError, RecursionError, csv.Error) as error:
                why = f" ({' '.join(str(error).split())})"
            problems.append(f"{self.folder / name}: is damaged{why}; a whole one holds {content}")
        if problems:
            raise RequestError(*problems)

    def first_epoch(self, accuracy: float) -> int | None:
        """The first epoch after which so much of the test images was right; None if none was."""
        return next((each["epoch"] for each in self.metrics if each["test_accuracy"] >= accuracy), None)

    def first_batches(self) -> list[tuple[int, float, float]]:
        """(epoch, loss, learning rate) of the first batch of each epoch, as the tutorial prints them."""
        ends = [0, *(each["iteration"] for each in self.metrics)]
        rows = [self.iterations[end] for end in ends[:-1]]
        return [(epoch, loss, learning_rate) for epoch, (_, learning_rate, loss) in enumerate(rows, start=1)]


class Difference(NamedTuple):
    """The first iteration at which two runs are not the same, and what each has there."""

    iteration: int
    one: float
    other: float


@dataclass(frozen=True)
class ModeCheck:
    """Two runs of one configuration and seed, in two scheduler modes.

    learning_rate, loss: where they first differ; None where they never do. A loss is that before the update of its iteration,
        so that it differs one iteration after the parameters.
    """

    one: Result
    other: Result
    learning_rate: Difference | None
    loss: Difference | None
    same_parameters: bool

    @classmethod
    def of(cls, one: Result, other: Result) -> "ModeCheck":
        same = one.summary["parameters_sha256"] == other.summary["parameters_sha256"]
        return cls(one, other, _first_difference(one, other, 1), _first_difference(one, other, 2), same)

    @property
    def is_identical(self) -> bool:
        """Whether all learning rates are the same, and the parameters to the last bit."""
        return self.learning_rate is None and self.same_parameters


def _first_difference(one: Result, other: Result, column: int) -> Difference | None:
    for row, other_row in zip(one.iterations, other.iterations, strict=True):
        if row[column] != other_row[column]:
            return Difference(row[0], row[column], other_row[column])
    return None


@dataclass(frozen=True)
class Standing:
    """What a configuration is worth, over its finished seeds, each in the first mode that is: the others are to be the same.

    against_first: by how much its test accuracy is above that of the first configuration, over the seeds that both have; None
        for the first itself and where there are no such seeds.
    first_epochs: for each of `MILESTONES` the epoch of each seed, None for one that never came so far.
    """

    candidate: Candidate
    results: Sequence[Result]
    test_accuracy: Estimate
    test_loss: Estimate
    seconds: Estimate
    first_epochs: dict[float, list[int | None]]
    against_first: PairedDifference | None


@dataclass(frozen=True)
class Results:
    """All that a comparison found."""

    plan: Plan
    results: Sequence[Result]

    @property
    def finished(self) -> list[Result]:
        return [each for each in self.results if each.problem is None]

    @property
    def failed(self) -> list[Result]:
        return [each for each in self.results if each.problem is not None]

    def of(self, candidate: Candidate, mode: str) -> dict[int, Result]:
        """Seed → finished run."""
        runs = (each for each in self.finished if (each.run.candidate, each.run.mode) == (candidate, mode))
        return {each.run.seed: each for each in runs}

    def _of_any_mode(self, candidate: Candidate) -> dict[int, Result]:
        """Seed → the finished run in the first mode that has one."""
        modes = [self.of(candidate, mode) for mode in self.plan.modes_of(candidate)]
        return {
            seed: next(each[seed] for each in modes if seed in each)
            for seed in self.plan.seeds
            if any(seed in each for each in modes)
        }

    @cached_property
    def mode_checks(self) -> list[ModeCheck]:
        """The first mode of each configuration and seed against each other mode of it."""
        return list(self._check_modes())

    def _check_modes(self) -> Iterator[ModeCheck]:
        for candidate in self.plan.candidates:
            first, *others = (self.of(candidate, mode) for mode in self.plan.modes_of(candidate))
            for other in others:
                yield from (ModeCheck.of(first[seed], other[seed]) for seed in first if seed in other)

    @property
    def mode_pairs(self) -> int:
        """How many pairs of runs there are to check when all runs are finished."""
        return sum(len(self.plan.modes_of(each)) - 1 for each in self.plan.candidates) * len(self.plan.seeds)

    @property
    def modes_identical(self) -> bool | None:
        """Whether they agree for every configuration and seed; None where there is one mode, or a run is missing."""
        if not all(each.is_identical for each in self.mode_checks):
            return False
        return True if len(self.mode_checks) == self.mode_pairs > 0 else None

    @property
    def begins_alike(self) -> bool | None:
        """Whether all runs of a seed had the same loss at iteration 1, before any update: the same parameters and batch.

        None where nothing can be said: of a single run, and of configurations that begin with other images or batches.
        """
        first, *others = (each.config for each in self.plan.candidates)
        changed = {key for other in others for key, _, _ in first.differences(other)}
        losses = [[each.iterations[0][2] for each in self.finished if each.run.seed == seed] for seed in self.plan.seeds]
        if changed & (set(MUST_BE_EQUAL) - _NOT_OF_THE_BEGINNING) or all(len(each) < 2 for each in losses):
            return None
        return all(len(set(each)) < 2 for each in losses)

    def to_draw(self) -> dict[str, list[RunFolder]]:
        """Title → the finished runs of all seeds: of a configuration's first mode, and of the others where they differ."""
        drawn = {}
        for candidate in self.plan.candidates:
            first, *others = self.plan.modes_of(candidate)
            for mode in [first] if self.modes_identical is not False else [first, *others]:
                title = candidate.name if self.modes_identical is not False else f"{candidate.name}, {mode}"
                if runs := self.of(candidate, mode):
                    drawn[title] = [each.folder for each in runs.values()]
        return drawn

    @cached_property
    def standings(self) -> list[Standing]:
        """In the order of the plan, without those of which no run is finished."""
        found = []
        first = self.plan.candidates[0]
        of_first = self._of_any_mode(first)
        for candidate in self.plan.candidates:
            of = self._of_any_mode(candidate)
            results = list(of.values())
            if not results:
                continue
            # Runs that do not begin alike are no pairs.
            pairs = [seed for seed in of if seed in of_first and candidate is not first and self.begins_alike is not False]
            found.append(
                Standing(
                    candidate=candidate,
                    results=results,
                    test_accuracy=Estimate.of([each.summary["test_accuracy"] for each in results]),
                    test_loss=Estimate.of([each.summary["test_loss"] for each in results]),
                    seconds=Estimate.of([each.summary["seconds"] for each in results]),
                    first_epochs={each: [result.first_epoch(each) for result in results] for each in MILESTONES},
                    against_first=PairedDifference.of(_accuracies(of, pairs), _accuracies(of_first, pairs)) if pairs else None,
                )
            )
        return found


def _accuracies(of: dict[int, Result], seeds: Sequence[int]) -> list[float]:
    return [of[seed].summary["test_accuracy"] for seed in seeds]
