"""The training loop: seed, fit, evaluate. Compare it with the tutorial's loop.

`step` computes one iteration, `trainer` sets the learning rate, `callbacks` writes files and shows progress, and `checkpointer`
saves checkpoints.
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
from mnist_trainer.training.records import DIVERGENCE_ADVICE, EpochMetrics, History, IterationRecord, LoopState, Scores
from mnist_trainer.training.step import FETCH_EVERY, Tally, TrainStep, scores_of, split_batch, total_of
from mnist_trainer.training.trainer import ScheduledTrainer

mx = import_mxnet()


class Loader(Protocol):
    """An iterable of batches with a length, such as Gluon's DataLoader. It is iterated once per epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...


class SeekableLoader(Loader, Protocol):
    """A loader that can start at any batch. With other loaders, `fit` cannot resume within an epoch."""

    def seek(self, epoch: int, batches: int) -> None:
        """Make the next pass begin in an epoch after some of its batches.

        Args:
            epoch: Number of the epoch, counted from 1.
            batches: Number of batches to skip at its beginning.
        """


class ShardedLoader(Loader, Protocol):
    """A loader that yields only one process's shard of each batch."""

    def batch_size_of(self, batch: int) -> int:
        """Return the number of images of a batch on all processes together.

        Args:
            batch: Number of the batch in the epoch, counted from 1.
        """


def seed_everything(seed: int) -> None:
    """Seed the three random generators that MXNet and Gluon use: MXNet's, numpy's and Python's.

    Args:
        seed: A whole number from 0 to 2³¹ − 1.
    """
    mx.random.seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def fit(
    network: Any,
    train_loader: Loader,
    test_loader: Loader | None,
    trainer: ScheduledTrainer,
    epochs: int,
    *,
    callbacks: Sequence[Callback] = (),
    validation_loader: Loader | None = None,
    state: LoopState | None = None,
) -> History:
    """Train a network, and evaluate it on the test images after each epoch.

    Args:
        network: An initialized Gluon Block that maps images to logits of shape (N, 10). If its parameters are on several
            devices, each batch is split among them. A HybridBlock is hybridized with static memory allocation and remains
            hybridized.
        train_loader: The batches to train on, as from `create_loaders`: an iterable with a length that yields tuples (images,
            labels). Images have the shape (N, 1, 28, 28), or another shape that the network accepts; labels have the shape
            (N,). A Gluon DataLoader works too. To resume within an epoch, the loader needs the method `seek` of
            `SeekableLoader`; to train in several processes, it needs the method `batch_size_of` of `ShardedLoader`.
        test_loader: The batches to evaluate on after each epoch, in the same form; None to evaluate on none. They do not
            influence the training.
        trainer: The trainer of the network's parameters, from `create_trainer`. `fit` continues its count of iterations.
        epochs: The number of the last epoch. Without `state`, this is the number of epochs to train.
        callbacks: The callbacks to notify, in this order. An exception that a callback raises ends the training and reaches the
            caller of `fit`; see `Callback`. To end the training after an epoch, a callback sets `state.stopped_because`.
        validation_loader: Batches held out of the training, to evaluate on after each epoch. A schedule that reacts to results,
            such as `Plateau`, needs them.
        state: The state from which to resume; the network and the trainer must be as they were in that state. It is updated in
            place. None starts at the first epoch.

    Returns:
        The metrics of each epoch that was completed, in order: a list of `EpochMetrics`, which is printed as a table.

    Raises:
        RunError: A loss or a gradient became infinite or NaN.
        ValueError: The schedule or a callback needs a validation loader, the loader lacks a method that is needed, or the
            number of batches differs from the loader's length.
        TypeError: The trainer is not from `create_trainer`, or a callback is not a `Callback`.

    Example:
        Train on the first 3,200 images, 50 batches of 64:

        >>> from mnist_trainer import build_cnn, create_loaders, create_trainer, fit, initialize, load_config
        >>> from mnist_trainer.schedules import Cosine
        >>> config = load_config("quick", {"data.train_images": 3200, "data.test_images": 500})
        >>> train_loader, test_loader = create_loaders(config)
        >>> network = build_cnn()
        >>> initialize(network)
        >>> schedule = Cosine(base_lr=0.05, max_update=len(train_loader))
        >>> trainer = create_trainer(network.collect_params(), schedule, optimizer_params={"momentum": 0.9})
        >>> history = fit(network, train_loader, test_loader, trainer, epochs=1)
        >>> history[0].epoch, history[0].iteration, history[0].test.total
        (1, 50, 500)
    """
    _refuse_unfit(train_loader, trainer, callbacks, validation_loader)
    state = state or LoopState()
    step = TrainStep(network, trainer)
    history = History()
    for epoch in state.remaining_epochs(epochs):
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
    """Yield the remaining batches of an epoch.

    Args:
        loader: The loader of the batches.
        state: The state of the loop, with the epoch and the number of its completed batches.

    Yields:
        The number of each batch in the epoch, counted from 1, and the batch.

    Raises:
        ValueError: The loader cannot start at this batch, or the number of its batches differs from its length.
    """
    if seek := getattr(loader, "seek", None):
        seek(state.epoch, state.batch)
    elif state.batch:
        raise ValueError(f"{type(loader).__name__} has no method seek, which is needed to resume within epoch {state.epoch}")
    batch = state.batch
    for batch, parts in enumerate(loader, start=state.batch + 1):
        yield batch, parts
    if batch != state.batches_per_epoch:
        expected = f"the length of {type(loader).__name__} is {state.batches_per_epoch}"
        raise ValueError(f"{expected}, but its last batch was number {batch}; __len__ must return the number of batches")


def whole_batch_size(loader: Loader, batch: int) -> int | None:
    """Return the number of images of a batch on all processes together.

    Args:
        loader: The loader of the batch.
        batch: Number of the batch in the epoch, counted from 1.

    Returns:
        The number of images; None if the loader yields whole batches.
    """
    batch_size_of = getattr(loader, "batch_size_of", None)
    return batch_size_of(batch) if batch_size_of else None


def evaluate(network: Any, loader: Loader, *, process_group: ProcessGroup = SINGLE_PROCESS) -> Scores:
    """Evaluate a network on all images of a loader, including a partial last batch. Waits for the device.

    Args:
        network: An initialized Gluon Block that maps images to logits of shape (N, 10). If its parameters are on several
            devices, each batch is split among them.
        loader: An iterable of tuples (images, labels). Images have the shape (N, 1, 28, 28), or another shape that the network
            accepts; labels have the shape (N,).
        process_group: The processes that evaluate together, each with its own loader. By default this process alone.

    Returns:
        The `Scores` of all images on all processes: mean loss, number of correct images, number of images, and accuracy.

    Raises:
        ValueError: There are no images.
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


def _evaluate_epoch(
    step: TrainStep, state: LoopState, test_loader: Loader | None, validation_loader: Loader | None
) -> EpochMetrics:
    """Evaluate the network after an epoch."""
    trainer = step.trainer
    began = time.perf_counter()
    test = _scores_on(test_loader, step)
    test_seconds = time.perf_counter() - began
    validation = _scores_on(validation_loader, step)
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


def _scores_on(loader: Loader | None, step: TrainStep) -> Scores | None:
    return None if loader is None else evaluate(step.scored, loader, process_group=step.trainer.process_group)


def _refuse_unfit(
    train_loader: Loader, trainer: ScheduledTrainer, callbacks: Sequence[Callback], validation_loader: Loader | None
) -> None:
    if not isinstance(trainer, ScheduledTrainer):
        raise TypeError(f"trainer is a {type(trainer).__name__}; create it with mnist_trainer.create_trainer")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks contains {callback!r}; pass instances of subclasses of mnist_trainer.Callback")
        if callback.needs_validation and validation_loader is None:
            raise ValueError(f"{type(callback).__name__} needs validation results; pass a validation_loader to fit")
    if validation_loader is None and getattr(trainer.schedule, "reacts", False):
        raise ValueError(f"{trainer.schedule!r} reacts to validation results; pass a validation_loader to fit")
    if trainer.process_group.world_size > 1 and not hasattr(train_loader, "batch_size_of"):
        name = type(train_loader).__name__
        raise ValueError(f"{name} has no method batch_size_of, which is needed to train in several processes")


def _refuse_divergence(record: IterationRecord, epoch: int) -> None:
    if not math.isfinite(record.loss):
        raise _diverged(f"the loss became {record.loss}", record.iteration, epoch, record.learning_rate)
    if not record.gradients_are_finite:
        raise _diverged("a gradient became infinite or nan", record.iteration, epoch, record.learning_rate)


def _diverged(problem: str, iteration: int, epoch: int, learning_rate: float) -> RunError:
    return RunError(f"{problem} at iteration {iteration} (epoch {epoch}, learning rate {learning_rate}); {DIVERGENCE_ADVICE}")
