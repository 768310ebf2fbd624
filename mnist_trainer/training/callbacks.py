"""Callbacks of `fit`: run files, the tutorial's lines, progress bars.

Users can add their own. The callback that saves checkpoints and stops the run is in `checkpointer`.
"""

import errno
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from mnist_trainer.console import Console
from mnist_trainer.progress import progress_bar
from mnist_trainer.run_folder import ITERATIONS, METRICS, RunFolder
from mnist_trainer.schedules import AnySchedule
from mnist_trainer.training.records import EpochMetrics, IterationRecord, LoopState, Scores
from mnist_trainer.training.trainer import ScheduledTrainer

_MAX_DROPS_SHOWN = 20


class Callback:
    """Base class of the callbacks of `fit`. Override the methods of interest; raise an exception to end the loop.

    >>> class Losses(Callback):
    ...     def on_epoch_end(self, metrics, state):
    ...         print(metrics.epoch, metrics.test.loss)
    """

    def on_epoch_begin(self, state: LoopState) -> None:
        """Called when an epoch begins, or resumes after `state.batch` of its `state.batches_per_epoch` batches."""

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        """Called after iterations: immediately after the first of an epoch, then in blocks.

        A diverged iteration is delivered as the last record before `fit` raises its error.

        Args:
            records: The iterations since the last call, in order.
            state: The state of the loop; `state.batch` is the batch of the last record.
        """

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        """Called after an epoch was trained and evaluated."""

    def wants_sync(self, trainer: ScheduledTrainer) -> bool:
        """Return whether to call `on_iterations` after this iteration.

        Each such call waits for the device. Not called at iterations that are fetched anyway.
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
    """Writes `iterations.csv` and `metrics.jsonl`.

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
        # A file that was removed during the run would be created again without its first rows.
        if self.folder.is_written and not (self.folder / name).exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder / name))


def drops_line(schedule: AnySchedule, total_iterations: int) -> str | None:
    """Return the tutorial's line about drops, or None for a schedule that does not drop.

    Args:
        schedule: The schedule of the run.
        total_iterations: The number of iterations of the run.
    """
    drops = schedule.drops(total_iterations)
    if not drops:
        return None
    shown = ", ".join(map(str, drops[:_MAX_DROPS_SHOWN]))
    more = f", … {len(drops) - _MAX_DROPS_SHOWN:,} more" if len(drops) > _MAX_DROPS_SHOWN else ""
    return f"Learning rate drops after iterations: [{shown}{more}]"


def summary_lines(summary: Mapping[str, Any]) -> str:
    """Return the lines that are printed at the end of a run.

    Args:
        summary: The content of the run's `summary.json`.
    """
    return (
        f"Test accuracy {summary['test_accuracy']:.2%} ({summary['test_correct']} of {summary['test_total']}), "
        f"test loss {summary['test_loss']:.6f}; {summary['iterations']} iterations, {summary['seconds']:.1f} s with tests\n"
        f"Parameters SHA-256 {summary['parameters_sha256']}"
    )


class TutorialLines(Callback):
    """Prints the tutorial's lines: the drops of the rate, and the first batch and the scores of each epoch.

    Args:
        console: The console to print to.
        schedule: The schedule of the run.
        total_iterations: The number of iterations of the run.
    """

    def __init__(self, console: Console, schedule: AnySchedule, total_iterations: int) -> None:
        self.console = console
        self._drops_line = drops_line(schedule, total_iterations)

    def on_epoch_begin(self, state: LoopState) -> None:
        if self._drops_line:
            self.console.print(self._drops_line)
            self._drops_line = None

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        if state.batch == 1:
            [first] = records
            self.console.print(f"Epoch: {state.epoch}; Batch 1; Loss {first.loss:f}; LR {first.learning_rate:f}")

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        if metrics.validation:
            self._print(metrics.epoch, "Validation", metrics.validation)
        self._print(metrics.epoch, "Test", metrics.test)

    def _print(self, epoch: int, part: str, scores: Scores) -> None:
        self.console.print(f"Epoch: {epoch}; {part} loss {scores.loss:f}; {part} accuracy {scores.accuracy:.4f}")


class ProgressBar(Callback):
    """Shows a bar for each epoch on stderr, with loss, rate and images per second.

    Nothing is shown if stderr is not a terminal.

    Args:
        epochs: The number of epochs of the run.
        console: The console of the command; if it is quiet, no bar is shown.
    """

    def __init__(self, epochs: int, console: Console) -> None:
        self.epochs = epochs
        self.console = console
        self._bar: Any = None
        self._images = 0
        self._began = 0.0

    def on_epoch_begin(self, state: LoopState) -> None:
        self._images = 0
        self._began = time.perf_counter()
        title = f"Epoch {state.epoch}/{self.epochs}"
        self._bar = progress_bar(title, state.batches_per_epoch, done=state.batch, is_quiet=self.console.is_quiet)

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        last = records[-1]
        self._images += sum(record.scores.total for record in records)
        speed = self._images / (time.perf_counter() - self._began)
        self._bar.set_postfix_str(f"loss {last.loss:.4f}, rate {last.learning_rate:.3g}, {speed:,.0f} images/s", refresh=False)
        self._bar.update(len(records))

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()  # the epoch may not have ended
