"""The training loop: seed, fit, evaluate. Compare it with the tutorial's loop.

Leaves one iteration to `step`, the learning rate to `trainer`, the files and the progress bar to `callbacks`, and checkpoints
to `checkpointer`.
"""

import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from mnist_trainer.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from mnist_trainer.errors import RunError
from mnist_trainer.model.network import with_scores
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.training.callbacks import Callback, notify
from mnist_trainer.training.records import DIVERGENCE_ADVICE, EpochMetrics, IterationRecord, LoopState, Scores
from mnist_trainer.training.step import FETCH_EVERY, Tally, TrainStep, scores_of, split_batch, total_of
from mnist_trainer.training.trainer import ScheduledTrainer

mx = import_mxnet()


class Loader(Protocol):
    """Batches of images and labels, iterated once an epoch: any sized iterable, such as Gluon's DataLoader."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...


class SeekableLoader(Loader, Protocol):
    """A loader that can begin at any batch. Other loaders cannot be resumed within an epoch."""

    def seek(self, epoch: int, batches: int) -> None:
        """Begin the next pass in this epoch, counted from 1, after these batches."""


class ShardedLoader(Loader, Protocol):
    """A loader that yields one process's shard of each batch."""

    def batch_size_of(self, batch: int) -> int:
        """Return the images of a batch, counted from 1, on all processes together."""


def seed_everything(seed: int) -> None:
    """Seed the three generators that MXNet and Gluon draw from: MXNet's, numpy's and Python's."""
    mx.random.seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def fit(
    network: Any,
    train_loader: Loader,
    test_loader: Loader,
    trainer: ScheduledTrainer,
    epochs: int,
    *,
    callbacks: Sequence[Callback] = (),
    validation_loader: Loader | None = None,
    state: LoopState | None = None,
) -> list[EpochMetrics]:
    """Train for `epochs` epochs and evaluate on the test images after each.

    Args:
        network: An initialized Block, from images to logits (N, 10). On several devices each batch is split. A HybridBlock is
            hybridized, with its memory planned, and stays so.
        train_loader: Yields (images, labels): shapes (N, 1, 28, 28), or whatever the network takes, and (N,). It may also have
            the methods of `SeekableLoader`, which begins each epoch in its own order, and of `ShardedLoader`.
        test_loader: As `train_loader`; it plays no part in the training.
        trainer: From `create_trainer`. Its iteration count continues.
        callbacks: Notified in order. A callback ends the loop by raising.
        validation_loader: The images whose scores a schedule may react to.
        state: Where to resume, with the network and the trainer as they were there; None for the beginning. It follows the
            loop.

    Returns:
        The metrics of each completed epoch.

    Raises:
        RunError: A loss or a gradient is not finite.
        ValueError: The schedule reacts to validation results and there is no validation loader; the loader cannot seek to
            `state`, yields another number of batches than its length, or yields whole batches to one of several processes.
        TypeError: The trainer is not from `create_trainer`, or a callback is not a `Callback`.
    """
    _refuse_unfit(train_loader, trainer, callbacks, validation_loader)
    state = state or LoopState()
    step = TrainStep(network, trainer)
    history = []
    for epoch in range(state.epoch, epochs + 1):
        state.begin_epoch(epoch, len(train_loader))
        notify(callbacks, "on_epoch_begin", state)
        state.start_clock()
        for batch, (images, labels) in remaining_batches(train_loader, state):
            step(images, labels, whole_batch_size(train_loader, batch))
            if step.should_fetch(batch, state.batches_per_epoch) or any(callback.wants_sync(trainer) for callback in callbacks):
                records = step.fetch()  # waits for the device
                state.add(records)
                notify(callbacks, "on_iterations", records, state)
                _refuse_divergence(records[-1], epoch)
        mx.nd.waitall()  # for the last update
        state.read_clock()
        history.append(_evaluate_epoch(step, state, test_loader, validation_loader))
        trainer.observe(history[-1])
        notify(callbacks, "on_epoch_end", history[-1], state)
    return history


def remaining_batches(loader: Loader, state: LoopState) -> Iterator[tuple[int, tuple[Any, Any]]]:
    """Yield the batches of the epoch that are not done, with their numbers, counted from 1.

    Raises:
        ValueError: The loader cannot begin there, or does not yield as many batches as its length.
    """
    if seek := getattr(loader, "seek", None):
        seek(state.epoch, state.batch)
    elif state.batch:
        raise ValueError(f"{type(loader).__name__} has no method seek, and the run is resumed within epoch {state.epoch}")
    batch = state.batch
    for batch, parts in enumerate(loader, start=state.batch + 1):
        yield batch, parts
    if batch != state.batches_per_epoch:
        raise ValueError(f"{type(loader).__name__} has a length of {state.batches_per_epoch}, and its last batch was {batch}")


def whole_batch_size(loader: Loader, batch: int) -> int | None:
    """Return the images of a batch on all processes together; None if the loader yields whole batches."""
    batch_size_of = getattr(loader, "batch_size_of", None)
    return batch_size_of(batch) if batch_size_of else None


def evaluate(network: Any, loader: Loader, *, process_group: ProcessGroup = SINGLE_PROCESS) -> Scores:
    """Score a network on every image of a loader, the partial last batch included. Waits for the device.

    Args:
        network: An initialized Block, from images to logits (N, 10).
        loader: Yields (images, labels), at least one batch on any process.
        process_group: The processes that score together, each the batches of its own loader.
    """
    scored = with_scores(network)
    devices = network.collect_params().list_ctx()
    tally = Tally(SINGLE_PROCESS)
    rows = []
    for batch, (images, labels) in enumerate(loader, start=1):
        tally.add(len(images), [scored(*part) for part in split_batch(images, labels, devices)])
        if batch % FETCH_EVERY == 0:
            rows += tally.fetch()  # waits for the device
    return total_of([scores_of(*row) for row in rows + tally.fetch()], process_group)


def _evaluate_epoch(step: TrainStep, state: LoopState, test_loader: Loader, validation_loader: Loader | None) -> EpochMetrics:
    """Score the network after an epoch."""
    trainer = step.trainer
    began = time.perf_counter()
    test = evaluate(step.scored, test_loader, process_group=trainer.process_group)
    test_seconds = time.perf_counter() - began
    validation = None
    if validation_loader is not None:
        validation = evaluate(step.scored, validation_loader, process_group=trainer.process_group)
    for name, scores in (("test loss", test), ("validation loss", validation)):
        if scores and not math.isfinite(scores.loss):
            raise _diverged(f"the {name} became {scores.loss}", trainer.iteration, state.epoch, trainer.learning_rate)
    return EpochMetrics(
        epoch=state.epoch,
        iteration=trainer.iteration,
        learning_rate=trainer.learning_rate,
        train=total_of(state.scores),
        test=test,
        epoch_seconds=state.epoch_seconds,
        test_seconds=test_seconds,
        validation=validation,
        hyperparameters=trainer.hyperparameters,
    )


def _refuse_unfit(
    train_loader: Loader, trainer: ScheduledTrainer, callbacks: Sequence[Callback], validation_loader: Loader | None
) -> None:
    if not isinstance(trainer, ScheduledTrainer):
        raise TypeError(f"trainer is a {type(trainer).__name__}; make it with mnist_trainer.create_trainer")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks has {callback!r}; give instances of classes derived from mnist_trainer.Callback")
    if validation_loader is None and getattr(trainer.schedule, "reacts", False):
        raise ValueError(f"{trainer.schedule!r} reacts to validation results; give fit a validation_loader")
    if trainer.process_group.world_size > 1 and not hasattr(train_loader, "batch_size_of"):
        raise ValueError(f"{type(train_loader).__name__} has no method batch_size_of, which several processes need")


def _refuse_divergence(record: IterationRecord, epoch: int) -> None:
    if not math.isfinite(record.loss):
        raise _diverged(f"the loss became {record.loss}", record.iteration, epoch, record.learning_rate)
    if not record.gradients_are_finite:
        raise _diverged("a gradient became infinite or nan", record.iteration, epoch, record.learning_rate)


def _diverged(problem: str, iteration: int, epoch: int, learning_rate: float) -> RunError:
    return RunError(f"{problem} at iteration {iteration} (epoch {epoch}, learning rate {learning_rate}); {DIVERGENCE_ADVICE}")
