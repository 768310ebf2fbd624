"""The training loop: seed, fit, evaluate. Readable alone, top to bottom, beside the tutorial's.

Leaves to others what a batch is (`data`), how a rate is applied (`optimizer`), and what becomes of the numbers: observers
write them, plot them or show them.
"""

import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mnist_trainer.errors import RunError
from mnist_trainer.model import build_loss
from mnist_trainer.optimizer import ScheduledTrainer
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

FETCH_EVERY = 50
"""Iterations whose losses stay on the device until they are fetched together: asking after each would stall it."""


class IterationRecord(NamedTuple):
    """One optimizer update."""

    epoch: int
    batch: int  # counted from 1 within the epoch
    iteration: int  # counted from 1 over the whole run
    learning_rate: float  # read back from the trainer after the update
    loss: float  # mean over the batch, before the update
    correct: int
    images: int


class Scores(NamedTuple):
    """How a network does on a set of images."""

    loss: float  # mean over the images
    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


class EpochMetrics(NamedTuple):
    """One epoch: what its batches scored as they were trained on, and what the test images scored after it.

    validation: what the images held out of the training scored after it; None if there are none.
    hyperparameters: the momentum and weight decay of the epoch's last iteration, those of them that have a schedule.
    """

    epoch: int
    iteration: int  # the last one of the epoch
    learning_rate: float  # of that iteration
    train: Scores
    test: Scores
    epoch_seconds: float  # training alone, with what the observers do meanwhile
    test_seconds: float
    validation: Scores | None
    hyperparameters: Mapping[str, float]

    @property
    def images_per_second(self) -> float:
        return self.train.total / self.epoch_seconds


class Observer:
    """What `fit` reports to; override what is of interest."""

    def epoch_started(self, epoch: int, batches: int) -> None:
        """An epoch of so many batches begins."""

    def iterations_done(self, records: Sequence[IterationRecord]) -> None:
        """These iterations are done: the first of an epoch at once, the others in blocks."""

    def epoch_done(self, metrics: EpochMetrics) -> None:
        """An epoch is trained and tested."""


def seed_everything(seed: int) -> None:
    """Seeds the three generators that MXNet and Gluon draw from: MXNet's, numpy's and Python's."""
    mx.random.seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def fit(
    net: Any,
    train_loader: Any,
    test_loader: Any,
    trainer: ScheduledTrainer,
    epochs: int,
    observers: Sequence[Observer] = (),
    validation_loader: Any = None,
) -> list[EpochMetrics]:
    """Trains `net` for so many epochs and scores the test images after each.

    net: an initialised HybridBlock, images (N, 1, 28, 28) to logits (N, 10); on several devices each batch is split.
    train_loader, test_loader: from `create_loaders`; epoch 1 has the loader's first order.
    trainer: from `create_trainer`; its iterations go on where it stands.
    validation_loader: from `create_validation_loader`; what its images score after each epoch is what the schedule may react
    to.

    Returns the metrics of each epoch. Raises RunError when a loss is not finite, and ValueError for a schedule that reacts to
    results when there is no validation loader.
    """
    if validation_loader is None and getattr(trainer.schedule, "reacts", False):
        raise ValueError(f"{trainer.schedule!r} is driven by validation results; give fit a validation_loader")
    contexts = net.collect_params().list_ctx()
    loss_function = build_loss()
    history = []
    for epoch in range(1, epochs + 1):
        for observer in observers:
            observer.epoch_started(epoch, len(train_loader))
        train_loader.epoch = epoch
        tally = _Tally()
        unreported: list[tuple[int, int, float]] = []
        started = time.perf_counter()
        for batch, (images, labels) in enumerate(train_loader, start=1):
            image_parts, label_parts = split_batch(images, labels, contexts)
            with mx.autograd.record():
                logits = [net(part) for part in image_parts]
                losses = [loss_function(*pair) for pair in zip(logits, label_parts, strict=True)]
            mx.autograd.backward(losses)
            iteration = trainer.begin_iteration()
            trainer.step(len(images))
            tally.add(losses, logits, label_parts)
            unreported.append((batch, iteration, trainer.learning_rate))
            if batch == 1 or batch % FETCH_EVERY == 0 or batch == len(train_loader):
                records = [
                    IterationRecord(epoch, *which, scores.loss, scores.correct, scores.total)
                    for which, scores in zip(unreported, tally.fetch(), strict=True)
                ]
                unreported.clear()
                # What came after a loss that is not finite, up to the end of the block, is of no use to anybody.
                good = next((k for k, record in enumerate(records) if not math.isfinite(record.loss)), len(records))
                records = records[: good + 1]
                for observer in observers:
                    observer.iterations_done(records)
                last = records[-1]
                _refuse_non_finite("loss", last.loss, epoch, last.iteration, last.learning_rate)
        mx.nd.waitall()  # the last update may still be under way
        trained = time.perf_counter()
        test = evaluate(net, test_loader)
        tested = time.perf_counter()
        _refuse_non_finite("test loss", test.loss, epoch, trainer.iteration, trainer.learning_rate)
        validation = None if validation_loader is None else evaluate(net, validation_loader)
        metrics = EpochMetrics(
            epoch=epoch,
            iteration=trainer.iteration,
            learning_rate=trainer.learning_rate,
            train=tally.total(),
            test=test,
            epoch_seconds=trained - started,
            test_seconds=tested - trained,
            validation=validation,
            hyperparameters=trainer.hyperparameters,
        )
        if validation is not None:
            _refuse_non_finite("validation loss", validation.loss, epoch, trainer.iteration, trainer.learning_rate)
            trainer.observe(validation.loss, validation.accuracy)
        history.append(metrics)
        for observer in observers:
            observer.epoch_done(metrics)
    return history


def evaluate(net: Any, loader: Any) -> Scores:
    """Scores `net` on every image of `loader`, the partial last batch included. Waits for the device."""
    contexts = net.collect_params().list_ctx()
    loss_function = build_loss()
    tally = _Tally()
    for batch, (images, labels) in enumerate(loader, start=1):
        image_parts, label_parts = split_batch(images, labels, contexts)
        logits = [net(part) for part in image_parts]
        losses = [loss_function(*pair) for pair in zip(logits, label_parts, strict=True)]
        tally.add(losses, logits, label_parts)
        if batch % FETCH_EVERY == 0:
            tally.fetch()
    tally.fetch()
    return tally.total()


def split_batch(images: Any, labels: Any, contexts: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """A batch in as many parts as there are devices, or as there are images, each part on its device."""
    used = contexts[: len(images)]
    return (
        mx.gluon.utils.split_and_load(images, used, even_split=False),
        mx.gluon.utils.split_and_load(labels, used, even_split=False),
    )


class _Tally:
    """Losses and correct answers, batch by batch: first on the device, fetched in blocks, then summed up."""

    def __init__(self) -> None:
        self._on_device: list[tuple[Any, Any, int]] = []
        self._fetched: list[Scores] = []

    def add(self, losses: list[Any], logits: list[Any], labels: list[Any]) -> None:
        """One batch, in parts on their devices. Does not wait for them."""
        correct = [mx.nd.argmax(part, axis=1) == of.astype(part.dtype) for part, of in zip(logits, labels, strict=True)]
        self._on_device.append((sum_of_parts(losses), sum_of_parts(correct), sum(map(len, losses))))

    def fetch(self) -> list[Scores]:
        """The scores of each batch since the last fetch. Waits for the device."""
        if not self._on_device:
            return []
        losses, correct, images = zip(*self._on_device, strict=True)
        self._on_device.clear()
        loss_sums = mx.nd.concat(*losses, dim=0).asnumpy().tolist()
        correct_sums = mx.nd.concat(*correct, dim=0).asnumpy().tolist()
        block = [
            Scores(loss_sum / total, int(right), total)
            for loss_sum, right, total in zip(loss_sums, correct_sums, images, strict=True)
        ]
        self._fetched += block
        return block

    def total(self) -> Scores:
        """The scores of all batches that were fetched."""
        images = sum(batch.total for batch in self._fetched)
        loss_sum = math.fsum(batch.loss * batch.total for batch in self._fetched)
        return Scores(loss_sum / images, sum(batch.correct for batch in self._fetched), images)


def sum_of_parts(parts: list[Any]) -> Any:
    """The sum over all elements of arrays that may lie on several devices: an array of shape (1,) on the first."""
    total = parts[0].sum()
    for part in parts[1:]:
        total = total + part.sum().as_in_context(total.context)
    return total


def _refuse_non_finite(name: str, loss: float, epoch: int, iteration: int, learning_rate: float) -> None:
    if not math.isfinite(loss):
        raise RunError(
            f"the {name} became {loss} at iteration {iteration} (epoch {epoch}, learning rate {learning_rate}); "
            "try lower rates, a warm-up, or optimizer.clip_gradient"
        )
