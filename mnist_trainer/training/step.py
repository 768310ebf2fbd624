"""One iteration: forward, backward, update. The loop, the learning-rate finder and the benchmark all use it."""

import math
from collections.abc import Sequence
from typing import Any

from mnist_trainer.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from mnist_trainer.model.network import with_scores
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.training.records import IterationRecord, Scores
from mnist_trainer.training.trainer import ScheduledTrainer

mx = import_mxnet()

FETCH_EVERY = 50
"""Iterations whose losses stay on the device until they are fetched together: a fetch after each would stall it."""

Part = tuple[Any, ...]
"""Arrays that are on one of several devices."""


class TrainStep:
    """Trains a network by a batch a call, without waiting for the device.

    Args:
        network: An initialized Block, from images to logits (N, 10). A HybridBlock is hybridized, with its memory planned,
            and stays so.
        trainer: From `create_trainer`.
    """

    def __init__(self, network: Any, trainer: ScheduledTrainer) -> None:
        self.scored = with_scores(network)
        self.trainer = trainer
        self.devices = network.collect_params().list_ctx()
        self._tally = Tally(trainer.process_group)
        self._unfetched: list[tuple[int, float]] = []

    def __call__(self, images: Any, labels: Any, batch_size: int | None = None) -> None:
        """Train by one batch, which is split among the devices.

        Args:
            images: Shape (N, 1, 28, 28), or whatever the network takes.
            labels: Shape (N,).
            batch_size: The images of the batch on all processes together; None if there is one process.
        """
        scores = self.forward(split_batch(images, labels, self.devices))
        self.backward(scores)
        self.update(batch_size or len(images))
        self._tally.add(len(images), scores, [(flag,) for flag in self.trainer.finite_gradients()])
        self._unfetched.append((self.trainer.iteration, self.trainer.learning_rate))

    def forward(self, parts: Sequence[Part]) -> list[Part]:
        """Return the sum of losses and the number of correct answers for the images and labels on each device."""
        with mx.autograd.record():
            return [self.scored(*part) for part in parts]

    def backward(self, scores: Sequence[Part]) -> None:
        """Compute the gradients of the sums of losses."""
        mx.autograd.backward([loss_sum for loss_sum, _ in scores])

    def update(self, batch_size: int) -> None:
        """Update the parameters by the mean gradient of so many images."""
        self.trainer.step(batch_size)

    @staticmethod
    def should_fetch(batch: int, batches: int) -> bool:
        """Return whether to fetch after this batch of an epoch: the first, every 50th and the last."""
        return batch == 1 or batch % FETCH_EVERY == 0 or batch == batches

    def fetch(self) -> list[IterationRecord]:
        """Return a record for each iteration since the last fetch, up to the first that diverged. Waits for the device."""
        finite = len(self.devices) * self.trainer.process_group.world_size
        records = [
            IterationRecord(*update, scores_of(*sums), flags == finite)
            for update, (*sums, flags) in zip(self._unfetched, self._tally.fetch(), strict=True)
        ]
        self._unfetched.clear()
        healthy = [math.isfinite(record.loss) and record.gradients_are_finite for record in records]
        # Nothing after the first that diverged, up to the end of the block, is of use.
        return records[: healthy.index(False) + 1] if False in healthy else records


class Tally:
    """Sums over the images of batches. They stay on the device until they are fetched together.

    Args:
        process_group: The processes over which to sum.
    """

    def __init__(self, process_group: ProcessGroup) -> None:
        self._process_group = process_group
        self._images: list[int] = []
        self._on_device: list[Part] = []

    def add(self, images: int, *parts: Sequence[Part]) -> None:
        """Add a batch without waiting for the devices.

        Args:
            images: The images of the batch.
            parts: The same numbers, arrays of shape (1,), for each device.
        """
        self._images.append(images)
        self._on_device.append(tuple(total for part in parts for total in _sum_over_devices(part)))

    def fetch(self) -> list[Sequence[float]]:
        """Return a row for each batch since the last fetch: its images, then its numbers, summed over all processes.

        Waits for the device, and for the other processes.
        """
        if not self._images:
            return []
        columns = [mx.nd.concat(*column, dim=0).asnumpy().tolist() for column in zip(*self._on_device, strict=True)]
        rows = list(zip(self._images, *columns, strict=True))
        self._images.clear()
        self._on_device.clear()
        return self._process_group.all_reduce_sum(rows)


def total_of(scores: Sequence[Scores], process_group: ProcessGroup = SINGLE_PROCESS) -> Scores:
    """Return the scores of all these batches, summed over the processes."""
    loss_sum = math.fsum(batch.loss * batch.total for batch in scores)
    own = (sum(batch.total for batch in scores), loss_sum, sum(batch.correct for batch in scores))
    [sums] = process_group.all_reduce_sum([own])
    return scores_of(*sums)


def scores_of(images: float, loss_sum: float, correct: float) -> Scores:
    """Return the scores of so many images from sums over them. Raise ValueError for none."""
    if not images:
        raise ValueError("there are no images to score")
    return Scores(loss_sum / images, int(correct), int(images))


def split_batch(images: Any, labels: Any, devices: Sequence[Any]) -> list[Part]:
    """Split a batch among the devices: images and labels of each. There are no more parts than images."""
    used = devices[: len(images)]
    image_parts, label_parts = (mx.gluon.utils.split_and_load(whole, used, even_split=False) for whole in (images, labels))
    return list(zip(image_parts, label_parts, strict=True))


def _sum_over_devices(parts: Sequence[Part]) -> Part:
    """Return the sums over the devices, on the first. Each part has the same numbers, arrays of shape (1,)."""
    if len(parts) < 2:
        return parts[0] if parts else ()
    return tuple(
        sum((array.as_in_context(first.context) for array in rest), first) for first, *rest in zip(*parts, strict=True)
    )
