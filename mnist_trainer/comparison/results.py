"""The results of a comparison: agreement of the scheduler modes, and scores of the configurations over seeds.

Reads finished run folders; `report` turns the results into sentences and tables. Standard library only.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from mnist_trainer.comparison.intervals import Estimate, PairedDifference
from mnist_trainer.comparison.plan import MUST_BE_EQUAL, Candidate, Plan, PlannedRun
from mnist_trainer.config.schema import SCHEDULER_MODES, RunConfig
from mnist_trainer.errors import RequestError
from mnist_trainer.run_folder import CONFIG, ENVIRONMENT, ITERATIONS, METRICS, SUMMARY, RunFolder

MILESTONES = (0.98, 0.985)
"""Test accuracies. The tables show the first epoch that reaches each of them."""

# Settings that must be equal, but do not change the first loss.
_WITHOUT_EFFECT_ON_FIRST_LOSS = {"training.epochs", "data.test_images"}

NOT_TRAINED = "its training has not been completed"
"""The problem of a run that has not started, or was stopped."""


@dataclass(frozen=True)
class Result:
    """A run and its folder.

    Attributes:
        run: The run.
        folder: Its folder.
        problem: The reason why it is not finished; None if it is finished.
    """

    run: PlannedRun
    folder: RunFolder
    problem: str | None = None

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return self.folder.read_summary()

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`."""
        return self.folder.read_metrics()

    @cached_property
    def iterations(self) -> list[tuple[int, float, float]]:
        """The rows of `iterations.csv`: (iteration, learning rate, loss)."""
        return self.folder.read_iterations()

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The content of `environment.json`."""
        return self.folder.read_environment()

    def check(self, config: RunConfig) -> None:
        """Check the files of a finished run.

        Args:
            config: The run's own configuration, which determines the number of epochs and iterations in the files.

        Raises:
            RequestError: With a message for each file that is damaged or contradicts the configuration.
        """
        epochs = self._epochs(config)
        iterations_per_epoch = config.run_length.iterations_per_epoch
        total_iterations = epochs * iterations_per_epoch
        ends = [(epoch, epoch * iterations_per_epoch) for epoch in range(1, epochs + 1)]
        files: dict[str, tuple[str, Callable[[], bool]]] = {
            METRICS: (
                f"the metrics of the epochs 1 to {epochs} ({CONFIG})",
                lambda: [(row["epoch"], row["iteration"]) for row in self.folder.read_metrics(epochs)] == ends,
            ),
            ITERATIONS: (
                f"the iterations 1 to {total_iterations} ({CONFIG})",
                lambda: len(self.folder.read_iterations(total_iterations)) == total_iterations,
            ),
            SUMMARY: ("the results of the run", lambda: bool(self.summary)),
            ENVIRONMENT: ("the environment of the run", lambda: bool(self.environment)),
        }
        problems: list[str] = []
        for name, (content, is_complete) in files.items():
            try:
                if not is_complete():
                    problems.append(f"{self.folder / name}: is damaged; a complete file has {content}")
            except RequestError as error:  # its message names the file
                problems += error.problems
            except OSError as error:
                problems.append(f"{self.folder / name}: cannot be read ({error.strerror})")
            except ValueError as error:  # its message names the file
                problems.append(f"{error}; a complete file has {content}")
        if problems:
            raise RequestError(*problems)

    def _epochs(self, config: RunConfig) -> int:
        """Return the number of epochs that the files must have: those of the configuration, or fewer after early stopping."""
        with suppress(RequestError):  # `check` reports it
            if config.early_stopping.patience is not None:
                return max(1, min(int(self.summary["epochs"]), config.training.epochs))
        return config.training.epochs

    def first_epoch(self, accuracy: float) -> int | None:
        """Return the first epoch with at least this test accuracy; None if no epoch reaches it."""
        return next((row["epoch"] for row in self.metrics if row["test_accuracy"] >= accuracy), None)

    def first_batches(self) -> list[tuple[int, float, float]]:
        """Return (epoch, loss, learning rate) of the first batch of each epoch, as the tutorial prints them."""
        ends = [0, *(row["iteration"] for row in self.metrics)]
        rows = [self.iterations[end] for end in ends[:-1]]
        return [(epoch, loss, learning_rate) for epoch, (_, learning_rate, loss) in enumerate(rows, start=1)]


class Difference(NamedTuple):
    """The first iteration at which two runs differ, and the value of each."""

    iteration: int
    one: float
    other: float


@dataclass(frozen=True)
class RunCheck:
    """The comparison of two runs iteration by iteration.

    Attributes:
        one: One run.
        other: The other run.
        learning_rate: The first difference of their learning rates; None if they are the same.
        loss: The first difference of their losses; None if they are the same. A loss is measured before the update of its
            iteration, so the losses differ one iteration after the parameters.
        same_parameters: True if the trained parameters are the same to the last bit.
    """

    one: Result
    other: Result
    learning_rate: Difference | None
    loss: Difference | None
    same_parameters: bool

    @classmethod
    def of(cls, one: Result, other: Result) -> "RunCheck":
        """Compare two finished runs."""
        same = one.summary["parameters_sha256"] == other.summary["parameters_sha256"]
        return cls(one, other, _first_difference(one, other, 1), _first_difference(one, other, 2), same)

    @property
    def is_identical(self) -> bool:
        """True if all learning rates and the trained parameters are the same to the last bit."""
        return self.learning_rate is None and self.same_parameters


def _first_difference(one: Result, other: Result, column: int) -> Difference | None:
    for row, other_row in zip(one.iterations, other.iterations, strict=False):  # a run that differs may stop earlier
        if row[column] != other_row[column]:
            return Difference(row[0], row[column], other_row[column])
    return None


@dataclass(frozen=True)
class Score:
    """The score of a configuration over its finished seeds. The first finished mode of each seed counts.

    Attributes:
        candidate: The configuration.
        results: Its runs, one for each seed.
        test_accuracy: The estimate of its test accuracy.
        test_loss: The estimate of its test loss.
        seconds: The estimate of the seconds of a run.
        first_epochs: Accuracy of `MILESTONES` → the first epoch that reaches it for each seed; None if no epoch does.
        against_first: The difference in test accuracy from the first configuration, over the seeds that both have finished.
            None for the first configuration itself, and if there are no such seeds.
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
    """The results of a comparison: each planned run, finished or not."""

    plan: Plan
    results: Sequence[Result]

    @property
    def finished(self) -> list[Result]:
        """The finished runs."""
        return [result for result in self.results if result.problem is None]

    @property
    def failed(self) -> list[Result]:
        """The runs that are not finished."""
        return [result for result in self.results if result.problem is not None]

    def of(self, candidate: Candidate, mode: str) -> dict[int, Result]:
        """Return the finished runs of a candidate in a mode, by seed."""
        results = (result for result in self.finished if (result.run.candidate, result.run.mode) == (candidate, mode))
        return {result.run.seed: result for result in results}

    def _of_any_mode(self, candidate: Candidate) -> dict[int, Result]:
        """Return the finished runs of a candidate by seed, from the first mode that has a finished run of that seed."""
        found: dict[int, Result] = {}
        for mode in self.plan.modes_of(candidate):
            found = self.of(candidate, mode) | found
        return {seed: found[seed] for seed in self.plan.seeds if seed in found}

    @cached_property
    def mode_checks(self) -> list[RunCheck]:
        """Comparisons of the first mode with each other mode, for each configuration and seed."""
        return list(self._check_modes())

    def _check_modes(self) -> Iterator[RunCheck]:
        for candidate in self.plan.candidates:
            first, *others = (self.of(candidate, mode) for mode in self.plan.modes_of(candidate))
            for other in others:
                yield from (RunCheck.of(first[seed], other[seed]) for seed in first if seed in other)

    @property
    def mode_pairs(self) -> int:
        """The number of mode checks once all runs are finished."""
        return sum(len(self.plan.modes_of(candidate)) - 1 for candidate in self.plan.candidates) * len(self.plan.seeds)

    @property
    def modes_identical(self) -> bool | None:
        """True if the modes agree for every configuration and seed; None with a single mode, or if a run is missing."""
        if not all(check.is_identical for check in self.mode_checks):
            return False
        return True if len(self.mode_checks) == self.mode_pairs > 0 else None

    @property
    def begins_alike(self) -> bool | None:
        """True if all runs of a seed have the same loss at iteration 1, before any update: the same parameters and batch.

        None for a single run, and for configurations that start with different images or batches.
        """
        first, *others = (candidate.config for candidate in self.plan.candidates)
        changed = {key for other in others for key, _, _ in first.differences(other)}
        first_losses: dict[int, list[float]] = {seed: [] for seed in self.plan.seeds}
        for result in self.finished:
            first_losses[result.run.seed].append(result.iterations[0][2])
        if changed & (set(MUST_BE_EQUAL) - _WITHOUT_EFFECT_ON_FIRST_LOSS) or all(
            len(losses) < 2 for losses in first_losses.values()
        ):
            return None
        return all(len(set(losses)) < 2 for losses in first_losses.values())

    def to_draw(self) -> dict[str, list[RunFolder]]:
        """Return the finished runs to draw, by title.

        If several configurations have the same results in all modes, only the first mode is drawn.
        """
        drawn = {}
        in_all_modes = len(self.plan.candidates) == 1 or self.modes_identical is False
        for candidate in self.plan.candidates:
            modes = self.plan.modes_of(candidate)
            for mode in modes if in_all_modes else modes[:1]:
                if runs := self.of(candidate, mode):
                    title = f"{candidate.name}, {mode}" if in_all_modes and len(modes) > 1 else candidate.name
                    drawn[title] = [result.folder for result in runs.values()]
        return drawn

    def pairs_to_draw(self) -> list[tuple[RunFolder, RunFolder]]:
        """Return the pairs of finished runs that should be equal: their settings differ in the scheduler mode at most."""
        alike: dict[str, list[RunFolder]] = {}
        for result in self.finished:
            one_mode = PlannedRun(result.run.candidate, SCHEDULER_MODES[0], result.run.seed)
            alike.setdefault(one_mode.config.to_toml(), []).append(result.folder)
        return [(first, other) for first, *others in alike.values() for other in others]

    @cached_property
    def scores(self) -> list[Score]:
        """A score for each configuration that has a finished run, in the order of the plan."""
        found = []
        first = self.plan.candidates[0]
        of_first = self._of_any_mode(first)
        for candidate in self.plan.candidates:
            of = self._of_any_mode(candidate)
            results = list(of.values())
            if not results:
                continue
            # Runs that start from different parameters or batches are not pairs.
            pairs = [seed for seed in of if seed in of_first and candidate is not first and self.begins_alike is not False]
            found.append(
                Score(
                    candidate=candidate,
                    results=results,
                    test_accuracy=Estimate.of([result.summary["test_accuracy"] for result in results]),
                    test_loss=Estimate.of([result.summary["test_loss"] for result in results]),
                    seconds=Estimate.of([result.summary["seconds"] for result in results]),
                    first_epochs={accuracy: [result.first_epoch(accuracy) for result in results] for accuracy in MILESTONES},
                    against_first=PairedDifference.of(_accuracies(of, pairs), _accuracies(of_first, pairs)) if pairs else None,
                )
            )
        return found


def _accuracies(of: dict[int, Result], seeds: Sequence[int]) -> list[float]:
    return [of[seed].summary["test_accuracy"] for seed in seeds]
