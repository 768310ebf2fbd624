"""Loaders: MNIST as batches of MXNet arrays, in two kinds that yield the same batches.

`array` keeps the whole set in memory, and its batches are views of blocks selected from it. If the training runs on a GPU, the
set is in GPU memory, and a batch is a `take`. `gluon` is MXNet's DataLoader with ToTensor, as in the tutorial. Each of several
processes that train together receives its part of the same batches. The files are read by `mnist_files`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mnist_trainer.config.schema import RunConfig
from mnist_trainer.data.mnist_files import Split, files_problems, find_data_dir, read_split
from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()


class Shard(NamedTuple):
    """One process's part of each batch.

    Attributes:
        rank: The number of the process, counted from 0.
        world_size: The number of processes that train together.
    """

    rank: int = 0
    world_size: int = 1

    def slice_of(self, images: int) -> slice:
        """Return the positions of its images in a batch. The first processes receive the remainder, as in Gluon's split.

        Args:
            images: Number of images in the batch.
        """
        smallest, left_over = divmod(images, self.world_size)
        first = self.rank * smallest + min(self.rank, left_over)
        return slice(first, first + smallest + (self.rank < left_over))

    def size_of(self, images: int) -> int:
        """Return the number of its images in a batch.

        Args:
            images: Number of images in the batch.
        """
        part = self.slice_of(images)
        return int(part.stop - part.start)


WHOLE = Shard()


def create_loaders(
    config: RunConfig, data_dir: str | Path | None = None, device: Any = None, shard: Shard = WHOLE
) -> tuple[Any, Any]:
    """Create the train and the test loader.

    A loader yields (images, labels): NDArrays of shape (N, 1, 28, 28), float32 in [0, 1], and (N,), int32, on the CPU or the
    device. N is the batch size; the last batch holds the remaining images. `len(loader)` is the number of batches, and
    `loader.batch_size_of(batch)` is the number of images of a batch, counted from 1, on all processes together. The train
    loader shuffles; its `epoch`, counted from 1, determines the order of the next pass, and each pass increments it. The test
    loader keeps the files' order.

    Args:
        config: The configuration, of which the table `data`, `training.batch_size` and `training.seed` are used.
        data_dir: The folder of the four files; None for that of MNIST_TRAINER_DATA or the bundled one.
        device: The context where the array loader keeps the images and yields the batches; None for the CPU's memory.
        shard: The shard of this process: its part of each batch in training, its whole batches in tests.

    Returns:
        The train loader and the test loader.

    Raises:
        RequestError: A file is missing or not the genuine one.
    """
    folder = find_data_dir(data_dir)
    if problems := files_problems(folder):
        raise RequestError(*problems)
    train = read_split(folder, train=True).part(0, config.data.trained_images)
    sampler: Any = ShuffledSampler(len(train.labels), config.training.seed)
    batch_size = config.training.batch_size
    if shard != WHOLE:
        sampler = ShardedSampler(sampler, batch_size, shard)
        batch_size = shard.size_of(batch_size)
    return _create_loader(config, train, batch_size, sampler, device), create_test_loader(config, folder, device, shard)


def create_validation_loader(
    config: RunConfig, data_dir: str | Path | None = None, device: Any = None, shard: Shard = WHOLE
) -> Any:
    """Create the loader of the images that `data.validation_images` holds out of the training, in order.

    Args:
        config: As for `create_loaders`.
        data_dir: As for `create_loaders`.
        device: As for `create_loaders`.
        shard: The shard of this process, which receives whole batches.

    Returns:
        The loader; None if there are no such images.

    Raises:
        RequestError: A file is missing or not the genuine one.
    """
    if not config.data.validation_images:
        return None
    held_out = read_split(find_data_dir(data_dir), train=True).part(config.data.trained_images, config.data.train_images)
    return _create_loader_in_order(config, held_out, device, shard)


def create_test_loader(config: RunConfig, data_dir: str | Path | None = None, device: Any = None, shard: Shard = WHOLE) -> Any:
    """Create only the test loader of `create_loaders`; the training files may be missing.

    Args:
        config: As for `create_loaders`.
        data_dir: As for `create_loaders`.
        device: As for `create_loaders`.
        shard: The shard of this process, which receives whole batches.

    Returns:
        The test loader.

    Raises:
        RequestError: A test file is missing or not the genuine one.
    """
    test = read_split(find_data_dir(data_dir), train=False).part(0, config.data.test_images)
    return _create_loader_in_order(config, test, device, shard)


def _create_loader_in_order(config: RunConfig, split: Split, device: Any, shard: Shard) -> Any:
    batch_size, images = config.training.batch_size, len(split.labels)
    # Processes take whole batches in turn: parts of batches would be too small to be fast, and a part of the last one could be
    # empty.
    firsts = range(shard.rank * batch_size, images, shard.world_size * batch_size)
    numbers = [number for first in firsts for number in range(first, min(first + batch_size, images))]
    return _create_loader(config, split, batch_size, OrderedSampler(numbers), device)


def _create_loader(config: RunConfig, split: Split, batch_size: int, sampler: Any, device: Any) -> Any:
    if config.data.loader == "gluon":
        return GluonLoader(split, batch_size, sampler)
    if device is not None:
        return DeviceLoader(split, batch_size, sampler, device)
    return ArrayLoader(split, batch_size, sampler)


def epoch_order(seed: int, epoch: int, images: int) -> npt.NDArray[np.int64]:
    """Return the order of the images in an epoch.

    numpy guarantees that the streams of RandomState never change, but not those of its newer generators.

    Args:
        seed: The seed of the run.
        epoch: The epoch, counted from 1.
        images: The number of images.

    Returns:
        A permutation of 0 … images − 1, which depends on the arguments alone.
    """
    sequence = np.random.SeedSequence([seed, epoch])
    return np.random.RandomState(np.random.MT19937(sequence)).permutation(images)


class ShuffledSampler(mx.gluon.data.Sampler):  # type: ignore[misc,name-defined]  # MXNet has no types
    """Image numbers in `epoch_order`; a sampler for any Gluon DataLoader.

    Args:
        images: The number of images.
        seed: The seed of the run.

    Attributes:
        epoch: The epoch of the next pass, counted from 1; incremented when a pass begins.
        done: The number of images at the beginning of the epoch that the next pass skips; reset to 0 when a pass begins.
    """

    def __init__(self, images: int, seed: int) -> None:
        self.images = images
        self.seed = seed
        self.epoch = 1
        self.done = 0

    def __iter__(self) -> Iterator[int]:
        numbers = self._numbers()[self.done :]
        self.epoch += 1
        self.done = 0
        return iter(numbers)

    def _numbers(self) -> list[int]:
        numbers: list[int] = epoch_order(self.seed, self.epoch, self.images).tolist()
        return numbers

    def __len__(self) -> int:
        return self.images

    def batch_size_of(self, batch: int, batch_size: int) -> int:
        """Return the number of images of a batch, which is smaller for a partial last batch.

        Args:
            batch: The batch, counted from 1.
            batch_size: The number of images of a full batch.
        """
        return min(batch_size, self.images - (batch - 1) * batch_size)


class OrderedSampler(ShuffledSampler):
    """The same image numbers in the same order in every epoch.

    Args:
        numbers: The image numbers.
    """

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(len(numbers), seed=0)
        self.numbers = numbers

    def _numbers(self) -> list[int]:
        return self.numbers


class ShardedSampler(mx.gluon.data.Sampler):  # type: ignore[misc,name-defined]
    """One process's shard of each batch of another sampler.

    Args:
        sampler: The sampler of whole batches.
        batch_size: The number of images of a whole batch; the process receives batches of `shard.size_of(batch_size)`.
        shard: The shard of the process.
    """

    def __init__(self, sampler: ShuffledSampler, batch_size: int, shard: Shard) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.shard = shard

    def __iter__(self) -> Iterator[int]:
        numbers = np.fromiter(self.sampler, np.int64)
        batches = np.split(numbers, range(self.batch_size, len(numbers), self.batch_size))
        return iter(np.concatenate([batch[self.shard.slice_of(len(batch))] for batch in batches]).tolist())

    def __len__(self) -> int:
        whole, left = divmod(len(self.sampler), self.batch_size)
        return whole * self.shard.size_of(self.batch_size) + self.shard.size_of(left)

    def batch_size_of(self, batch: int, _size_of_part: int) -> int:
        """Return the number of images of the whole batch."""
        return self.sampler.batch_size_of(batch, self.batch_size)

    @property
    def epoch(self) -> int:
        return self.sampler.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.sampler.epoch = epoch

    @property
    def done(self) -> int:
        return self.sampler.done // self.batch_size * self.shard.size_of(self.batch_size)

    @done.setter
    def done(self, done: int) -> None:
        self.sampler.done = done // self.shard.size_of(self.batch_size) * self.batch_size


class _SamplerLoader:
    """Forwards epoch and position to the sampler."""

    sampler: Any
    batch_size: int

    def batch_size_of(self, batch: int) -> int:
        """Return the number of images of a training batch, counted from 1, on all processes that share it."""
        return int(self.sampler.batch_size_of(batch, self.batch_size))

    def seek(self, epoch: int, batches: int) -> None:
        """Start the next pass at this epoch, after these batches."""
        self.sampler.epoch = epoch
        self.sampler.done = batches * self.batch_size

    @property
    def epoch(self) -> int:
        return int(self.sampler.epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.sampler.epoch = epoch


class ArrayLoader(_SamplerLoader):
    """Batches from one float32 array of all images, equal bit for bit to the result of Gluon's ToTensor.

    The images are converted once, which takes 188 MB for the 60,000 training images. The images of `BLOCK` batches are
    selected together, and each batch is a view of them.
    """

    BLOCK = 16

    def __init__(self, split: Split, batch_size: int, sampler: Any) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self._images = np.divide(split.images[:, np.newaxis], np.float32(255), dtype=np.float32)
        self._labels = split.labels.astype(np.int32)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        numbers = np.fromiter(self.sampler, np.int64)
        if not len(numbers):
            return  # MXNet does not support empty arrays
        for block in np.split(numbers, range(self.BLOCK * self.batch_size, len(numbers), self.BLOCK * self.batch_size)):
            images, labels = mx.nd.from_numpy(self._images[block]), mx.nd.from_numpy(self._labels[block])  # no copies
            for first in range(0, len(block), self.batch_size):
                yield images[first : first + self.batch_size], labels[first : first + self.batch_size]


class DeviceLoader(_SamplerLoader):
    """Batches from one array of all images in a device's memory, the same as those of `ArrayLoader`.

    The numbers of an epoch's images are copied to the device once, before its first batch. Each batch is then a `take` on the
    device, which never waits for Python.
    """

    def __init__(self, split: Split, batch_size: int, sampler: Any, device: Any) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.device = device
        images = np.divide(split.images[:, np.newaxis], np.float32(255), dtype=np.float32)
        self._images = mx.nd.array(images, ctx=device)
        self._labels = mx.nd.array(split.labels, ctx=device, dtype=np.int32)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        numbers = list(self.sampler)
        on_device = mx.nd.array(numbers or [0], ctx=self.device, dtype=np.int32)  # MXNet has no empty arrays
        for first in range(0, len(numbers), self.batch_size):
            which = on_device[first : first + self.batch_size]
            yield mx.nd.take(self._images, which), mx.nd.take(self._labels, which)


class GluonLoader(_SamplerLoader, mx.gluon.data.DataLoader):  # type: ignore[misc,name-defined]
    """MXNet's DataLoader over the same images, each converted by ToTensor when it is needed, in this process."""

    def __init__(self, split: Split, batch_size: int, sampler: Any) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        images = mx.nd.array(split.images[..., np.newaxis], dtype=np.uint8)
        dataset = mx.gluon.data.ArrayDataset(images, split.labels.astype(np.int32))
        to_tensor = mx.gluon.data.vision.transforms.ToTensor()
        super().__init__(dataset.transform_first(to_tensor), batch_size, sampler=sampler, last_batch="keep")

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return map(tuple, super().__iter__())
