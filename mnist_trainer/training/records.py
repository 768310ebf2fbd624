"""The values that pass between the loop, its callbacks and the files of a run."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

DIVERGENCE_ADVICE = "try lower rates, a warm-up, or optimizer.clip_gradient"
"""The end of each message about numbers that are no longer finite."""


class Scores(NamedTuple):
    """Scores of a network on a set of images."""

    loss: float  # mean over the images
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


class IterationRecord(NamedTuple):
    """One optimizer update."""

    iteration: int  # counted from 1 over the whole run
    learning_rate: float  # read back from the trainer after the update
    scores: Scores  # of the batch, before the update
    gradients_are_finite: bool = True

    @property
    def loss(self) -> float:
        return self.scores.loss

    @property
    def is_finite(self) -> bool:
        """True if the loss and the gradients are finite. Otherwise the training has diverged."""
        return math.isfinite(self.loss) and self.gradients_are_finite


class EpochMetrics(NamedTuple):
    """One epoch: the scores of its batches as they were trained on, and the scores after it.

    Attributes:
        iteration: The last iteration of the epoch.
        learning_rate: The learning rate of that iteration.
        epoch_seconds: Seconds of training alone, with the callbacks that ran meanwhile.
        validation: Scores of the images held out of the training; None if there are none.
        hyperparameters: Momentum and weight decay of the last iteration, those of them that have a schedule.
    """

    epoch: int
    iteration: int
    learning_rate: float
    train: Scores
    test: Scores
    epoch_seconds: float
    test_seconds: float
    validation: Scores | None
    hyperparameters: Mapping[str, float]

    @property
    def images_per_second(self) -> float:
        return self.train.total / self.epoch_seconds

    def to_row(self) -> dict[str, float]:
        """Return the metrics under the names that they have in `metrics.jsonl`."""
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
        return row | {
            "test_loss": self.test.loss,
            "test_accuracy": self.test.accuracy,
            "epoch_seconds": self.epoch_seconds,
            "test_seconds": self.test_seconds,
            "images_per_second": self.images_per_second,
        }


@dataclass
class LoopState:
    """State of the loop between two iterations, from which it can resume.

    Attributes:
        epoch: The epoch in progress, counted from 1.
        batch: The batches of it that are done.
        scores: The scores of these batches.
        epoch_seconds: The time spent on them.
        batches_per_epoch: The batches of an epoch; 0 before the loop has begun one.
    """

    epoch: int = 1
    batch: int = 0
    scores: list[Scores] = field(default_factory=list)
    epoch_seconds: float = 0.0
    batches_per_epoch: int = 0
    _clock_began: float = field(default=0.0, init=False, repr=False, compare=False)

    def begin_epoch(self, epoch: int, batches_per_epoch: int) -> None:
        """Begin an epoch, or resume the one in progress."""
        if epoch != self.epoch:
            self.epoch, self.batch, self.scores, self.epoch_seconds = epoch, 0, [], 0.0
        self.batches_per_epoch = batches_per_epoch

    def start_clock(self) -> None:
        """Count the time from now on, beside what an earlier process has spent on this epoch."""
        self._clock_began = time.perf_counter() - self.epoch_seconds

    def add(self, records: Sequence[IterationRecord]) -> None:
        """Add iterations that are done."""
        self.batch += len(records)
        self.scores += [record.scores for record in records]
        self.read_clock()

    def read_clock(self) -> None:
        """Bring `epoch_seconds` up to now."""
        self.epoch_seconds = time.perf_counter() - self._clock_began
