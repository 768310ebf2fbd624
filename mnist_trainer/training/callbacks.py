"""What a person sees while a run goes on: the tutorial's lines on stdout, bars on stderr."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from mnist_trainer.schedules import AnySchedule
from mnist_trainer.training.loop import EpochMetrics, IterationRecord, Observer, Scores
from mnist_trainer.training.lr_finder import SweepRow

_MOST_DROPS_SHOWN = 20


def drops_line(schedule: AnySchedule, total_iterations: int) -> str | None:
    """The tutorial's line about drops, or None for a schedule that does not drop."""
    drops = schedule.drops(total_iterations)
    if not drops:
        return None
    shown = ", ".join(map(str, drops[:_MOST_DROPS_SHOWN]))
    more = f", … {len(drops) - _MOST_DROPS_SHOWN:,} more" if len(drops) > _MOST_DROPS_SHOWN else ""
    return f"Learning rate drops after iterations: [{shown}{more}]"


class TutorialLines(Observer):
    """Prints the tutorial's line after the first batch of each epoch, and a line of the same kind after the epoch."""

    def iterations_done(self, records: Sequence[IterationRecord]) -> None:
        first = records[0]
        if first.batch == 1:
            _print_above_bar(f"Epoch: {first.epoch}; Batch 1; Loss {first.loss:f}; LR {first.learning_rate:f}")

    def epoch_done(self, metrics: EpochMetrics) -> None:
        if metrics.validation:
            self._scores(metrics.epoch, "Validation", metrics.validation)
        self._scores(metrics.epoch, "Test", metrics.test)

    def _scores(self, epoch: int, part: str, scores: Scores) -> None:
        _print_above_bar(f"Epoch: {epoch}; {part} loss {scores.loss:f}; {part} accuracy {scores.accuracy:.4f}")


class ProgressBar(Observer):
    """A bar an epoch on stderr, with loss, rate and images per second; none where stderr is not a terminal."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._bar: Any = None
        self._images = 0
        self._started = 0.0

    def __enter__(self) -> "ProgressBar":
        return self

    def epoch_started(self, epoch: int, batches: int, done: int) -> None:
        self._images = 0
        self._started = time.perf_counter()
        self._bar = progress_bar(f"Epoch {epoch}/{self.epochs}", batches, done)

    def iterations_done(self, records: Sequence[IterationRecord]) -> None:
        last = records[-1]
        self._images += sum(record.images for record in records)
        speed = self._images / (time.perf_counter() - self._started)
        self._bar.set_postfix_str(f"loss {last.loss:.4f}, rate {last.learning_rate:.3g}, {speed:,.0f} images/s", refresh=False)
        self._bar.update(len(records))

    def epoch_done(self, metrics: EpochMetrics) -> None:
        self._bar.close()

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()  # of an epoch that did not end


class SweepBar:
    """A bar on stderr while a learning rate is searched for, called with each row; none where stderr is not a terminal."""

    def __init__(self, iterations: int) -> None:
        self._bar = progress_bar("Learning rates", iterations)

    def __enter__(self) -> "SweepBar":
        return self

    def __call__(self, row: SweepRow) -> None:
        self._bar.set_postfix_str(f"rate {row.learning_rate:.3g}, smoothed loss {row.smoothed_loss:.4f}", refresh=False)
        self._bar.update()

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def progress_bar(what: str, total: int, done: int = 0) -> Any:
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        leave=False,
        disable=None,  # where stderr is not a terminal
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    )


def _print_above_bar(line: str) -> None:
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
