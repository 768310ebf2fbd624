"""One iteration: forward, backward, update. The loop, the learning-rate finder and the benchmark use it."""

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
"""Number of iterations whose losses stay on the device and are fetched together: fetching after each one would stall it."""

Part = tuple[Any, ...]
"""Arrays on one of several devices."""


class TrainStep:
    """Trains a network on one batch per call, without waiting for the device.

    Args:
        network: An initialized Block that maps images to logits (N, 10). A HybridBlock is hybridized with planned memory and
            stays hybridized.
        trainer: The trainer, from `create_trainer`.

    Attributes:
        scored: The network with its scores, from `with_scores`.
        trainer: The trainer.
        devices: The devices of the parameters.
    """

    def __init__(self, network: Any, trainer: ScheduledTrainer) -> None:
        self.scored = with_scores(network)
        self.trainer = trainer
        self.devices = network.collect_params().list_ctx()
        self._tally = Tally(trainer.process_group)
        self._unfetched: list[tuple[int, float]] = []

    def __call__(self, images: Any, labels: Any, batch_size: int | None = None) -> None:
        """Train on one batch, which is split among the devices.

        Args:
            images: Images of shape (N, 1, 28, 28), or of another shape that the network accepts.
            labels: Labels of shape (N,).
            batch_size: Number of images of the batch on all processes together; None if there is one process.
        """
        scores = self.forward(split_batch(images, labels, self.devices))
        self.backward(scores)
        self.update(batch_size or len(images))
        self._tally.add(len(images), scores, [(flag,) for flag in self.trainer.finite_gradients()])
        self._unfetched.append((self.trainer.iteration, self.trainer.learning_rate))

    def forward(self, parts: Sequence[Part]) -> list[Part]:
        """Compute the scores of a batch and record the graph for `backward`.

        Args:
            parts: Images and labels on each device, from `split_batch`.

        Returns:
            The sum of the losses and the number of correct answers, for each device.
        """
        with mx.autograd.record():
            return [self.scored(*part) for part in parts]

    def backward(self, scores: Sequence[Part]) -> None:
        """Compute the gradients of the summed losses.

        Args:
            scores: The result of `forward`.
        """
        mx.autograd.backward([loss_sum for loss_sum, _ in scores])

    def update(self, batch_size: int) -> None:
        """Update the parameters with the mean gradient.

        Args:
            batch_size: Number of images by which the summed gradient is divided.
        """
        self.trainer.step(batch_size)

    @staticmethod
    def should_fetch(batch: int, batches: int) -> bool:
        """Return whether to fetch after a batch: after the first, every 50th and the last of an epoch.

        Args:
            batch: Number of the batch in the epoch, counted from 1.
            batches: Number of batches in the epoch.
        """
        return batch == 1 or batch % FETCH_EVERY == 0 or batch == batches

    def fetch(self) -> list[IterationRecord]:
        """Fetch the iterations since the last fetch, up to the first that diverged. Waits for the device.

        Returns:
            A record for each iteration.
        """
        finite = len(self.devices) * self.trainer.process_group.world_size
        records = [
            IterationRecord(*update, scores_of(*sums), flags == finite)
            for update, (*sums, flags) in zip(self._unfetched, self._tally.fetch(), strict=True)
        ]
        self._unfetched.clear()
        are_finite = [record.is_finite for record in records]
        # Iterations after the first that diverged are meaningless.
        return records[: are_finite.index(False) + 1] if False in are_finite else records


class Tally:
    """Sums over the images of each batch. They stay on the device until they are fetched together.

    Args:
        process_group: The processes to sum over.
    """

    def __init__(self, process_group: ProcessGroup) -> None:
        self._process_group = process_group
        self._images: list[int] = []
        self._on_device: list[Part] = []

    def add(self, images: int, *parts: Sequence[Part]) -> None:
        """Add a batch without waiting for the devices.

        Args:
            images: Number of images in the batch.
            parts: Groups of arrays of shape (1,), one group for each device; the groups have the same length.
        """
        self._images.append(images)
        self._on_device.append(tuple(total for part in parts for total in _sum_over_devices(part)))

    def fetch(self) -> list[Sequence[float]]:
        """Fetch the sums of each batch since the last fetch. Waits for the device and for the other processes.

        Returns:
            A row for each batch: its number of images, then its sums, each over all processes.
        """
        if not self._images:
            return []
        columns = [mx.nd.concat(*column, dim=0).asnumpy().tolist() for column in zip(*self._on_device, strict=True)]
        rows = list(zip(self._images, *columns, strict=True))
        self._images.clear()
        self._on_device.clear()
        return self._process_group.all_reduce_sum(rows)


def total_of(scores: Sequence[Scores], process_group: ProcessGroup = SINGLE_PROCESS) -> Scores:
    """Combine the scores of several batches.

    Args:
        scores: The scores of each batch.
        process_group: The processes to sum over.

    Returns:
        The scores of all batches on all processes.

    Raises:
        ValueError: There are no images.
    """
    loss_sum = math.fsum(batch.loss * batch.total for batch in scores)
    own = (sum(batch.total for batch in scores), loss_sum, sum(batch.correct for batch in scores))
    [sums] = process_group.all_reduce_sum([own])
    return scores_of(*sums)


def scores_of(images: float, loss_sum: float, correct: float) -> Scores:
    """Compute scores from sums over images.

    Args:
        images: Number of images.
        loss_sum: Sum of their losses.
        correct: Number of correct answers.

    Returns:
        The scores, with the mean loss.

    Raises:
        ValueError: `images` is 0.
    """
    if not images:
        raise ValueError("there are no images to score")
    return Scores(loss_sum / images, int(correct), int(images))


def split_batch(images: Any, labels: Any, devices: Sequence[Any]) -> list[Part]:
    """Split a batch among the devices.

    Args:
        images: Images, with the batch as the first axis.
        labels: Labels of shape (N,).
        devices: The MXNet contexts.

    Returns:
        Images and labels on each device. If there are fewer images than devices, the last devices receive none.
    """
    used = devices[: len(images)]
    image_parts, label_parts = (mx.gluon.utils.split_and_load(whole, used, even_split=False) for whole in (images, labels))
    return list(zip(image_parts, label_parts, strict=True))


def _sum_over_devices(parts: Sequence[Part]) -> Part:
    """Return the sums over the devices, on the first device. Each part holds the same number of arrays of shape (1,)."""
    if len(parts) < 2:
        return parts[0] if parts else ()
    return tuple(
        sum((array.as_in_context(first.context) for array in rest), first) for first, *rest in zip(*parts, strict=True)
    )
