"""The training loop: seed, fit, evaluate. Readable alone, top to bottom, beside the tutorial's.

Leaves to others what a batch is (`data.loaders`), how a rate is applied (`trainer`), and what becomes of the numbers: observers
write them, plot them or show them.
"""

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mnist_trainer.distributed.process_group import ALONE, Team
from mnist_trainer.errors import RunError
from mnist_trainer.model.network import ScoredNetwork
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.training.trainer import ScheduledTrainer

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

    def epoch_started(self, epoch: int, batches: int, done: int) -> None:
        """An epoch of so many batches begins, or goes on after those that are done."""

    def iterations_done(self, records: Sequence[IterationRecord]) -> None:
        """These iterations are done: the first of an epoch at once, the others in blocks."""

    def epoch_done(self, metrics: EpochMetrics) -> None:
        """An epoch is trained and tested."""


@dataclass
class Position:
    """Where the loop stands between two iterations, and what it has accumulated of the epoch in progress.

    epoch: the epoch in progress, counted from 1.
    batch: the batches of it that are done.
    batches: what they scored.
    epoch_seconds: the time spent on them.
    """

    epoch: int = 1
    batch: int = 0
    batches: list[Scores] = field(default_factory=list)
    epoch_seconds: float = 0.0

    def begin_epoch(self, epoch: int) -> None:
        self.epoch, self.batch, self.batches, self.epoch_seconds = epoch, 0, [], 0.0


class Keeper:
    """Who saves what is needed to go on, and may end the loop by raising. This one keeps nothing."""

    def is_due(self, iteration: int) -> bool:
        """Whether to save after this iteration."""
        return False

    def save(self, position: Position, metrics: EpochMetrics | None = None) -> None:
        """Saves; `metrics` of the epoch that has just ended, or None in the middle of one."""


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
    position: Position | None = None,
    keeper: Keeper | None = None,
    team: Team = ALONE,
) -> list[EpochMetrics]:
    """Trains `net` for so many epochs and scores the test images after each.

    net: an initialised HybridBlock, images (N, 1, 28, 28) to logits (N, 10); on several devices each batch is split. It is
        hybridized, with its memory planned, and stays so.
    train_loader, test_loader: from `create_loaders`; epoch 1 has the loader's first order.
    trainer: from `create_trainer`; its iterations go on where it stands.
    validation_loader: from `create_validation_loader`; what its images score after each epoch is what the schedule may
        react to.
    position: where to go on; None for the beginning. Network and trainer are as they were there.
    keeper: who saves checkpoints, at the end of each epoch and when it says so.
    team: who trains together; the loaders yield this member's parts, the trainer sums the gradients of all.

    Returns the metrics of each epoch that it ended. Raises RunError when a loss or a gradient is not finite, ValueError for a
    schedule that reacts to results when there is no validation loader, and what the keeper raises.
    """
    if validation_loader is None and getattr(trainer.schedule, "reacts", False):
        raise ValueError(f"{trainer.schedule!r} is driven by validation results; give fit a validation_loader")
    position = position or Position()
    keeper = keeper or Keeper()
    scored = ScoredNetwork(net)
    history = []
    while position.epoch <= epochs:
        for observer in observers:
            observer.epoch_started(position.epoch, len(train_loader), position.batch)
        _train_epoch(scored, train_loader, trainer, observers, position, keeper, team)
        tested_from = time.perf_counter()
        test = _evaluate(scored, test_loader, team)
        tested = time.perf_counter()
        validation = None if validation_loader is None else _evaluate(scored, validation_loader, team)
        metrics = EpochMetrics(
            epoch=position.epoch,
            iteration=trainer.iteration,
            learning_rate=trainer.learning_rate,
            train=_total(position.batches),
            test=test,
            epoch_seconds=position.epoch_seconds,
            test_seconds=tested - tested_from,
            validation=validation,
            hyperparameters=trainer.hyperparameters,
        )
        for name, scores in (("test loss", test), ("validation loss", validation)):
            if scores is not None:
                _refuse_non_finite(name, scores.loss, metrics.epoch, metrics.iteration, metrics.learning_rate)
        if validation is not None:
            trainer.observe(validation.loss, validation.accuracy)
        history.append(metrics)
        for observer in observers:
            observer.epoch_done(metrics)
        position.begin_epoch(position.epoch + 1)
        keeper.save(position, metrics)
    return history


def _train_epoch(
    scored: ScoredNetwork,
    loader: Any,
    trainer: ScheduledTrainer,
    observers: Sequence[Observer],
    position: Position,
    keeper: Keeper,
    team: Team,
) -> None:
    """Trains on what is left of the epoch, and moves `position` to its end. Waits for the device there."""
    contexts = scored.collect_params().list_ctx()
    tally = _Tally()
    unreported: list[tuple[int, int, float]] = []
    loader.start_at(position.epoch, position.batch)
    seconds_before = position.epoch_seconds
    started = time.perf_counter()
    for batch, (images, labels) in enumerate(loader, start=position.batch + 1):
        parts = split_batch(images, labels, contexts)
        with mx.autograd.record():
            scores = [scored(*part) for part in parts]
        mx.autograd.backward([loss_sum for loss_sum, _ in scores])
        iteration = trainer.begin_iteration()
        trainer.step(loader.images_in(batch))
        tally.add(scores, len(images), trainer.finite_gradients())
        unreported.append((batch, iteration, trainer.learning_rate))
        is_due = keeper.is_due(iteration)
        if is_due or batch == 1 or batch % FETCH_EVERY == 0 or batch == len(loader):
            block, gradients_are_finite = tally.fetch(len(contexts), team)
            records = [
                IterationRecord(position.epoch, *which, scores.loss, scores.correct, scores.total)
                for which, scores in zip(unreported, block, strict=True)
            ]
            unreported.clear()
            _report(records, gradients_are_finite, observers)
            position.batch = batch
            position.batches += block
            position.epoch_seconds = seconds_before + time.perf_counter() - started
            if is_due and batch < len(loader):
                keeper.save(position)
    mx.nd.waitall()  # the last update may still be under way
    position.epoch_seconds = seconds_before + time.perf_counter() - started


def _report(records: list[IterationRecord], gradients_are_finite: list[bool], observers: Sequence[Observer]) -> None:
    """Tells the observers of the iterations up to the first whose loss or gradient is not finite; raises RunError for it."""
    # What came after it, up to the end of the block, is of no use to anybody.
    good = [math.isfinite(record.loss) and fine for record, fine in zip(records, gradients_are_finite, strict=True)]
    last = good.index(False) if False in good else len(records) - 1
    for observer in observers:
        observer.iterations_done(records[: last + 1])
    record = records[last]
    where = (record.epoch, record.iteration, record.learning_rate)
    _refuse_non_finite("loss", record.loss, *where)
    if not gradients_are_finite[last]:
        _refuse("a gradient became infinite or nan", *where)


def evaluate(net: Any, loader: Any) -> Scores:
    """Scores `net` on every image of `loader`, the partial last batch included. Waits for the device."""
    return _evaluate(ScoredNetwork(net), loader, ALONE)


def _evaluate(scored: ScoredNetwork, loader: Any, team: Team) -> Scores:
    contexts = scored.collect_params().list_ctx()
    tally = _Tally()
    batches = []
    for batch, (images, labels) in enumerate(loader, start=1):
        tally.add([scored(*part) for part in split_batch(images, labels, contexts)], len(images))
        if batch % FETCH_EVERY == 0:
            batches += tally.fetch()[0]
    return _total(batches + tally.fetch()[0], team)


def split_batch(images: Any, labels: Any, contexts: Sequence[Any]) -> list[tuple[Any, Any]]:
    """A batch in as many parts as there are devices, or as there are images: images and labels of each, on its device."""
    used = contexts[: len(images)]
    image_parts, label_parts = (mx.gluon.utils.split_and_load(whole, used, even_split=False) for whole in (images, labels))
    return list(zip(image_parts, label_parts, strict=True))


class _Tally:
    """Losses, correct answers and the health of gradients, batch by batch: first on the device, fetched in blocks."""

    def __init__(self) -> None:
        self._images: list[int] = []
        self._on_device: list[tuple[Any, ...]] = []

    def add(self, scores: Sequence[tuple[Any, Any]], images: int, finite: Sequence[Any] = ()) -> None:
        """One batch of so many images: what `ScoredNetwork` gave for its parts, and the trainer's `finite_gradients`, if any.

        Does not wait for the devices.
        """
        self._images.append(images)
        self._on_device.append((*_sum_over_devices(scores), *_sum_over_devices([(each,) for each in finite])))

    def fetch(self, devices: int = 1, team: Team = ALONE) -> tuple[list[Scores], list[bool]]:
        """The scores of each batch since the last fetch, and whether its gradients were finite. Waits for the device."""
        if not self._images:
            return [], []
        fetched = [mx.nd.concat(*each, dim=0).asnumpy().tolist() for each in zip(*self._on_device, strict=True)]
        loss_sums, correct, *finite = fetched
        are_finite = [each == devices for each in finite[0]] if finite else []
        columns = [loss_sums, correct, self._images, *([are_finite] if finite else [])]
        rows = team.sums(list(zip(*columns, strict=True)))
        block = [Scores(loss_sum / images, int(right), int(images)) for loss_sum, right, images, *_ in rows]
        self._images.clear()
        self._on_device.clear()
        return block, [all_of_team == team.size for *_, all_of_team in rows] if finite else []


def _total(batches: Sequence[Scores], team: Team = ALONE) -> Scores:
    """The scores of all these batches together, and of those that the others have."""
    loss_sum = math.fsum(batch.loss * batch.total for batch in batches)
    own = (loss_sum, sum(batch.correct for batch in batches), sum(batch.total for batch in batches))
    [(loss_sum, correct, images)] = team.sums([own])
    return Scores(loss_sum / images, int(correct), int(images))


def _sum_over_devices(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """For each device the same numbers, arrays of shape (1,): their sums, on the first."""
    if len(parts) < 2:
        return parts[0] if parts else ()
    return tuple(sum((each.as_in_context(first.context) for each in rest), first) for first, *rest in zip(*parts, strict=True))


def _refuse_non_finite(name: str, loss: float, epoch: int, iteration: int, learning_rate: float) -> None:
    if not math.isfinite(loss):
        _refuse(f"the {name} became {loss}", epoch, iteration, learning_rate)


def _refuse(what: str, epoch: int, iteration: int, learning_rate: float) -> None:
    raise RunError(
        f"{what} at iteration {iteration} (epoch {epoch}, learning rate {learning_rate}); "
        "try lower rates, a warm-up, or optimizer.clip_gradient"
    )
