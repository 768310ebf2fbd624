"""Records that the training loop passes to its callbacks and that a run writes to its files."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mnist_trainer.console import Table, counted, in_columns

DIVERGENCE_ADVICE = "try lower rates, a warm-up, or optimizer.clip_gradient"
"""The end of each message about numbers that are no longer finite."""

_MIN_GAIN = 1 / 9  # of the way from guessing to perfect: an accuracy of 20 % for ten classes. Below, next to nothing is learned


class Scores(NamedTuple):
    """Scores of a network on a set of images.

    Attributes:
        loss: Softmax cross-entropy, averaged over the images.
        correct: Number of images whose largest logit belongs to their label.
        total: Number of images.
    """

    loss: float
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Fraction of correctly classified images, from 0 to 1."""
        return self.correct / self.total


class IterationRecord(NamedTuple):
    """One optimizer update; `Callback.on_iterations` receives a list of them.

    Attributes:
        iteration: Number of the update, counted from 1 over the whole run.
        learning_rate: Learning rate of the update, read back from the trainer afterwards.
        scores: Scores of the batch before the update, over all devices and processes.
        gradients_are_finite: False if a gradient contained an infinity or a NaN.
    """

    iteration: int
    learning_rate: float
    scores: Scores
    gradients_are_finite: bool = True

    @property
    def loss(self) -> float:
        """Mean loss of the batch before the update."""
        return self.scores.loss

    @property
    def is_finite(self) -> bool:
        """True if the loss and all gradients are finite; False if the training has diverged."""
        return math.isfinite(self.loss) and self.gradients_are_finite


class EpochMetrics(NamedTuple):
    """Metrics of one epoch. `fit` returns them, and `Callback.on_epoch_end` receives them.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        iteration: Last iteration of the epoch, counted from 1 over the whole run.
        learning_rate: Learning rate of that iteration.
        train: Scores of the training images. Each batch was scored before its update.
        test: Scores of the test images after the epoch; None without a test loader.
        epoch_seconds: Training time in seconds, including callbacks between iterations but not the evaluation.
        test_seconds: Time in seconds for the evaluation of the test images.
        validation: Scores of the validation images after the epoch; None without a validation loader.
        hyperparameters: Values of `momentum` and `wd` in the last iteration, by name. Contains only those with a schedule.
    """

    epoch: int
    iteration: int
    learning_rate: float
    train: Scores
    test: Scores | None
    epoch_seconds: float
    test_seconds: float
    validation: Scores | None
    hyperparameters: Mapping[str, float]

    @property
    def images_per_second(self) -> float:
        """Training images per second, without the evaluation."""
        return self.train.total / self.epoch_seconds

    def to_row(self) -> dict[str, float]:
        """Return the metrics by their names in `metrics.jsonl`."""
        row: dict[str, float] = {
            "epoch": self.epoch,
            "iteration": self.iteration,
            "learning_rate": self.learning_rate,
            **self.hyperparameters,
            "train_loss": self.train.loss,
            "train_accuracy": self.train.accuracy,
        }
        if self.validation:
            row |= {"validation_loss": self.validation.loss, "validation_accuracy": self.validation.accuracy}
        if self.test:
            row |= {"test_loss": self.test.loss, "test_accuracy": self.test.accuracy}
        return row | {
            "epoch_seconds": self.epoch_seconds,
            "test_seconds": self.test_seconds,
            "images_per_second": self.images_per_second,
        }


class History(list[EpochMetrics]):
    """The metrics of the completed epochs, in order. It is a list, and is printed as a table."""

    def __str__(self) -> str:
        return "\n".join(in_columns(self._table()))

    def _repr_pretty_(self, printer: Any, is_cyclic: bool) -> None:
        printer.text(str(self))  # IPython would print the list

    def _repr_html_(self) -> str:
        headings, *rows = ("".join(f"<td>{cell}</td>" for cell in row) for row in self._table())
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{headings.replace('td>', 'th>')}</tr></thead><tbody>{body}</tbody></table>"

    def _table(self) -> Table:
        rows = [metrics.to_row() for metrics in self]
        scores = [f"{part}_{score}" for part in ("train", "validation", "test") for score in ("loss", "accuracy")]
        names = ["epoch", "learning_rate", *(name for name in scores if any(name in row for row in rows))]
        formats = {"epoch": "d", "learning_rate": "g"} | dict.fromkeys(scores, ".4f")
        cells = [tuple(format(row[name], formats[name]) if name in row else "" for name in names) for row in rows]
        return [tuple(names), *cells]


@dataclass
class LoopState:
    """State of the training loop between two iterations. `fit` updates it in place and can resume from it.

    Attributes:
        epoch: Number of the current epoch, counted from 1.
        batch: Number of completed batches in this epoch; 0 at its beginning.
        scores: Scores of these batches, in order.
        epoch_seconds: Training time in seconds spent on these batches.
        batches_per_epoch: Number of batches in an epoch; 0 before the first epoch begins.
        stopped_because: The reason why no further epoch begins, as a sentence without a full stop. A callback sets it to end
            the training after the current epoch; None to train all epochs.
    """

    epoch: int = 1
    batch: int = 0
    scores: list[Scores] = field(default_factory=list)
    epoch_seconds: float = 0.0
    batches_per_epoch: int = 0
    stopped_because: str | None = None
    _clock_began: float = field(default=0.0, init=False, repr=False, compare=False)

    def remaining_epochs(self, last: int) -> Iterator[int]:
        """Yield the epochs from the current one to `last`, until `stopped_because` is set."""
        for epoch in range(self.epoch, last + 1):
            if self.stopped_because:
                return
            yield epoch

    def begin_epoch(self, epoch: int, batches_per_epoch: int) -> None:
        """Begin an epoch, or resume the current one.

        Args:
            epoch: Number of the epoch, counted from 1.
            batches_per_epoch: Number of batches in an epoch.
        """
        if epoch != self.epoch:
            self.epoch, self.batch, self.scores, self.epoch_seconds = epoch, 0, [], 0.0
        self.batches_per_epoch = batches_per_epoch

    def start_clock(self) -> None:
        """Start measuring time, in addition to the time that an earlier process spent on this epoch."""
        self._clock_began = time.perf_counter() - self.epoch_seconds

    def add(self, records: Sequence[IterationRecord]) -> None:
        """Add completed iterations and update `epoch_seconds`."""
        self.batch += len(records)
        self.scores += [record.scores for record in records]
        self.read_clock()

    def read_clock(self) -> None:
        """Update `epoch_seconds` to the current time."""
        self.epoch_seconds = time.perf_counter() - self._clock_began


def remark_on_learning(summary: Mapping[str, Any], classes: int = 10) -> str | None:
    """Return a remark if a run has ended with a network that is hardly better than guessing; otherwise None.

    Args:
        summary: The content of the run's `summary.json`.
        classes: The number of classes.
    """
    accuracy, loss = summary["test_accuracy"], summary["test_loss"]
    chance, loss_of_guessing = 1 / classes, math.log(classes)
    after = f"after {counted(summary['iterations'], 'iteration')}"
    if accuracy < chance + (1 - chance) * _MIN_GAIN:
        better = f"{'hardly' if accuracy > chance else 'no'} better than guessing ({chance:.0%})"
        return f"the test accuracy {accuracy:.2%} is {better} {after}"
    if loss > loss_of_guessing:
        return f"the test loss {loss:.6g} is worse than that of guessing ({loss_of_guessing:.3f}) {after}"
    return None
