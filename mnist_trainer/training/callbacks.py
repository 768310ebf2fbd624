"""Callbacks of `fit`: the base class, run files, the tutorial's lines and progress bars.

The callback that saves checkpoints and stops the run is in `checkpointer`.
"""

import errno
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Any, Self

from mnist_trainer.console import Console
from mnist_trainer.progress import progress_bar
from mnist_trainer.run_folder import CONFIG, ITERATIONS, METRICS, RunFolder
from mnist_trainer.schedules import AnySchedule, RunLength
from mnist_trainer.training.records import EpochMetrics, IterationRecord, LoopState, Scores, remark_on_learning
from mnist_trainer.training.step import total_of
from mnist_trainer.training.trainer import ScheduledTrainer

_MAX_DROPS_SHOWN = 20
_SECONDS_BETWEEN_LINES = 30.0


class Callback:
    """Base class of callbacks, which `fit` notifies of its progress.

    Override any of the methods; by default they do nothing. A callback may read the `LoopState`. It may set only the state's
    `stopped_because`, a reason to end the training after the current epoch.

    To end it immediately, raise an exception from any method, for example an exception class of your own. `fit` catches no
    exceptions, so its caller handles it. The network keeps the parameters of the last update. `fit` then returns no metrics, so
    store those that you need in the callback. If several processes train together, stop all of them in the same call.

    Attributes:
        needs_validation: True if `fit` must have a validation loader.

    Example:
        Stop when the validation accuracy reaches a target:

        >>> class TargetReached(Exception):
        ...     pass
        >>> class StopAtAccuracy(Callback):
        ...     def __init__(self, target):
        ...         self.target = target
        ...         self.history = []
        ...
        ...     def on_epoch_end(self, metrics, state):
        ...         self.history.append(metrics)
        ...         if metrics.validation.accuracy >= self.target:
        ...             raise TargetReached

        Catch the exception around `fit`:

        >>> stopper = StopAtAccuracy(0.98)
        >>> try:  # doctest: +SKIP
        ...     fit(network, train_loader, test_loader, trainer, 20, validation_loader=validation_loader, callbacks=[stopper])
        ... except TargetReached:
        ...     print("stopped after epoch", stopper.history[-1].epoch)
    """

    needs_validation: bool = False

    def on_epoch_begin(self, state: LoopState) -> None:
        """Handle the beginning of an epoch, before its first batch.

        Args:
            state: The state of the loop. `state.batch` is above 0 if the epoch resumes after that batch.
        """

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        """Handle completed iterations.

        Called after the first batch of an epoch, then after every 50th and after the last. If the training diverges, the last
        record is the diverged iteration, and `fit` raises RunError after this call.

        Args:
            records: The iterations since the previous call, in order; at least one.
            state: The state of the loop. `state.batch` is the batch of the last record.
        """

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        """Handle the end of an epoch, after its evaluation.

        Args:
            metrics: The metrics of the epoch.
            state: The state of the loop.
        """

    def wants_sync(self, trainer: ScheduledTrainer) -> bool:
        """Return whether `fit` should call `on_iterations` after this iteration too.

        Returning True makes `fit` wait for the device, which costs time. This method is not called after iterations for which
        `on_iterations` is called in any case.

        Args:
            trainer: The trainer. `trainer.iteration` is the iteration that has just been queued on the device.

        Returns:
            False by default.
        """
        return False


def notify(callbacks: Iterable[Callback], event: str, *arguments: object) -> None:
    """Call a method of each callback, in order.

    Args:
        callbacks: The callbacks to notify.
        event: The name of the method.
        arguments: The arguments of the method.
    """
    for callback in callbacks:
        getattr(callback, event)(*arguments)


class RunFolderWriter(Callback):
    """Writes `iterations.csv`, `metrics.jsonl` and `metrics.csv`.

    Args:
        folder: The run folder to write to.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        if records[0].iteration > 1:
            self._require(ITERATIONS)
        self.folder.append_iterations((record.iteration, record.learning_rate, record.loss) for record in records)

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        if metrics.epoch > 1:
            self._require(METRICS)
        self.folder.append_metrics(metrics.to_row())

    def _require(self, name: str) -> None:
        # If the file was removed during the run, appending would create it again without its first rows.
        if self.folder.is_written and not self.folder.has_file(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder / name))


def drops_line(schedule: AnySchedule, total_iterations: int) -> str | None:
    """Return the tutorial's line about drops of the learning rate.

    Args:
        schedule: The schedule of the run.
        total_iterations: The number of iterations of the run.

    Returns:
        The line; None if the schedule does not drop.
    """
    first = list(islice(schedule.drops(total_iterations), _MAX_DROPS_SHOWN + 1))
    if not first:
        return None
    shown = ", ".join(map(str, first[:_MAX_DROPS_SHOWN]))
    more = ", … and more" if len(first) > _MAX_DROPS_SHOWN else ""
    return f"Learning rate drops after iterations: [{shown}{more}]"


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines that are printed at the end of a run.

    Args:
        summary: The content of the run's `summary.json`.
    """
    scores = f"Test accuracy {summary['test_accuracy']:.2%} ({summary['test_correct']} of {summary['test_total']})"
    length = f"{summary['iterations']} iterations, {summary['seconds']:.1f} s with tests"
    early, best = [], []
    if reason := summary["stopped_because"]:
        early = [f"Stopped after epoch {summary['epochs']}: {reason}"]
    if "best_epoch" in summary:
        scores_of_best = f"loss {summary['best_validation_loss']:.6f}, accuracy {summary['best_validation_accuracy']:.2%}"
        best = [f"Best epoch {summary['best_epoch']} on the validation images: {scores_of_best}"]
    return [
        *early,
        f"{scores}, test loss {summary['test_loss']:.6f}; {length}",
        *best,
        f"Parameters SHA-256 {summary['parameters_sha256']}",
    ]


def print_summary(console: Console, summary: Mapping[str, Any], folder: RunFolder, classes: int) -> None:
    """Print the result of a run, and a remark if its network has not learned.

    Args:
        console: The console to print to.
        summary: The content of the run's `summary.json`.
        folder: The run's folder.
        classes: The number of classes.
    """
    console.print(*summary_lines(summary), f"Run folder {folder.path}")
    if remark := remark_on_learning(summary, classes):
        search = shlex.join(["mnist-trainer", "find-lr", "--config", str(folder / CONFIG)])
        advice = f"train longer, or search for a learning rate with: {search}"
        console.note(f"{remark[0].upper()}{remark[1:]}; {advice}")


class TutorialLines(Callback):
    """Prints the tutorial's lines: the drops of the rate, and the first batch and the scores of each epoch.

    The scores of the training images are those before each update. The seconds of an epoch are printed on stderr.

    Args:
        console: The console to print to.
        schedule: The schedule of the run.
        total_iterations: The number of iterations of the run.
    """

    def __init__(self, console: Console, schedule: AnySchedule, total_iterations: int) -> None:
        self.console = console
        self.total_iterations = total_iterations
        self._drops_line = drops_line(schedule, total_iterations)

    def on_epoch_begin(self, state: LoopState) -> None:
        if self._drops_line:
            self.console.print(self._drops_line)
            self._drops_line = None

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        if state.batch == 1:
            [first] = records
            self.console.print(f"Epoch: {state.epoch}; Batch 1; Loss {first.loss:f}; LR {_rate_text(first.learning_rate)}")

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        self._print(metrics.epoch, "Train", metrics.train)
        if metrics.validation:
            self._print(metrics.epoch, "Validation", metrics.validation)
        if metrics.test:
            self._print(metrics.epoch, "Test", metrics.test)
        # On stderr: what is on stdout depends only on the configuration, so that two logs can be compared.
        speed = f"{metrics.epoch_seconds:.1f} s, {metrics.images_per_second:,.0f} images per second"
        self.console.note(f"Epoch {metrics.epoch}: {speed}")
        if metrics.iteration == self.total_iterations or state.stopped_because:
            self.console.note("Saving the model and drawing the curves")

    def _print(self, epoch: int, part: str, scores: Scores) -> None:
        self.console.print(f"Epoch: {epoch}; {part} loss {scores.loss:f}; {part} accuracy {scores.accuracy:.4f}")


def _rate_text(learning_rate: float) -> str:
    """Return a rate as the tutorial prints it, or with an exponent if six decimals would be meaningless."""
    return f"{learning_rate:f}" if learning_rate == 0 or 1e-5 <= learning_rate < 1e6 else f"{learning_rate:.6g}"


class ProgressBar(Callback):
    """Shows a bar for the whole run in a terminal or a notebook, with the loss and accuracy of the last batches.

    If stderr is neither, a line appears every half a minute instead.

    Args:
        epochs: The number of epochs of the run.
        console: The console of the command; if it is quiet, nothing is shown.
    """

    def __init__(self, epochs: int, console: Console | None = None) -> None:
        self.epochs = epochs
        self.console = console or Console()
        self._bar: Any = None
        self._began = self._line_at = time.monotonic()
        self._first = 0

    def on_epoch_begin(self, state: LoopState) -> None:
        title = f"Epoch {state.epoch}/{self.epochs}"
        if self._bar is None:
            self._first, total = _iteration_of(state), self.epochs * state.batches_per_epoch
            self._bar = progress_bar(title, total, done=self._first, is_quiet=self.console.is_quiet, is_narrow=True)
            self._began = time.monotonic()
        self._bar.set_description_str(title)

    def wants_sync(self, trainer: ScheduledTrainer) -> bool:
        # Several processes fetch together, so one of them alone cannot decide it.
        return self._is_line_due() and trainer.process_group.world_size == 1

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        scores = total_of([record.scores for record in records])
        self._bar.set_postfix_str(f"loss {scores.loss:.4f}, acc {scores.accuracy:.1%}", refresh=False)
        self._bar.update(len(records))
        if self._is_line_due():
            self._line_at = time.monotonic()
            iteration, total = _iteration_of(state), self.epochs * state.batches_per_epoch
            seconds = (time.monotonic() - self._began) / (iteration - self._first) * (total - iteration)
            self.console.note(
                f"Epoch {state.epoch}/{self.epochs}, iteration {iteration:,} of {total:,}, loss {scores.loss:.4f}, "
                f"accuracy {scores.accuracy:.1%}, {self._bar.format_interval(seconds)} left"
            )

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        if metrics.epoch == self.epochs or state.stopped_because:
            self._close()

    def _is_line_due(self) -> bool:
        has_bar = self._bar is None or not self._bar.disable
        return not (has_bar or self.console.is_quiet) and time.monotonic() - self._line_at >= _SECONDS_BETWEEN_LINES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()  # the run may not have ended

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _iteration_of(state: LoopState) -> int:
    return (state.epoch - 1) * state.batches_per_epoch + state.batch


@contextmanager
def shown_on(console: Console, schedule: AnySchedule, run_length: RunLength) -> Iterator[list[Callback]]:
    """Show the progress of a run on a console, as `mnist-trainer train` does.

    Args:
        console: The console to print to.
        schedule: The schedule of the run.
        run_length: The length of the run.

    Yields:
        The callbacks for `fit`.
    """
    with ProgressBar(run_length.epochs, console) as bar:
        yield [TutorialLines(console, schedule, run_length.total_iterations), bar]
