"""The loader factory: MNIST as batches of MXNet arrays, in two kinds that yield the same batches.

`array` keeps the whole set in memory, and its batches are views of blocks picked out of it; where the training runs on a GPU
the set lives there, and a batch is a `take`. `gluon` is MXNet's DataLoader with ToTensor, as in the tutorial. One of several
processes that train together gets its parts of the same batches. The files themselves are known to `mnist_files`.
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
    """One process's part of each batch, of as many processes as train together."""

    rank: int = 0
    world_size: int = 1

    def slice_of(self, images: int) -> slice:
        """Return where its images are in a batch of so many. The first processes get what is left over, as Gluon splits it."""
        smallest, left_over = divmod(images, self.world_size)
        first = self.rank * smallest + min(self.rank, left_over)
        return slice(first, first + smallest + (self.rank < left_over))

    def size_of(self, images: int) -> int:
        """Return how many images of a batch of so many are its."""
        part = self.slice_of(images)
        return int(part.stop - part.start)


WHOLE = Shard()


def create_loaders(
    config: RunConfig, data_dir: str | Path | None = None, device: Any = None, shard: Shard = WHOLE
) -> tuple[Any, Any]:
    """The train and the test loader of a run.

    config: the table `data`, `training.batch_size` and `training.seed`.
    data_dir: folder of the four files; None for that of MNIST_TRAINER_DATA or the bundled one.
    device: the context where the array loader keeps the images and yields the batches; None for the CPU's memory.
    shard: which of it is for this process: in training its part of each batch, in tests its batches.

    A loader yields (images, labels): NDArrays of shape (N, 1, 28, 28), float32 in [0, 1], and (N,), int32, on the CPU or the
    device. N is the batch size, in the last batch what is left. `len(loader)` is the number of batches, and
    `loader.batch_size_of(batch)` how many images one of them has, counted from 1, on all processes together. The train loader
    shuffles; its `epoch`, counted from 1, says which order the next pass has, and every pass moves it on by one. The test
    loader keeps the files' order.

    Raises RequestError when a file is missing or not the genuine one.
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
    """The loader of the images that `data.validation_images` holds out of the training, in order; None if there are none.

    Raises RequestError when a file is missing or not the genuine one.
    """
    if not config.data.validation_images:
        return None
    held_out = read_split(find_data_dir(data_dir), train=True).part(config.data.trained_images, config.data.train_images)
    return _create_loader_in_order(config, held_out, device, shard)


def create_test_loader(config: RunConfig, data_dir: str | Path | None = None, device: Any = None, shard: Shard = WHOLE) -> Any:
    """The test loader alone, as `create_loaders` makes it; the training files may be missing."""
    test = read_split(find_data_dir(data_dir), train=False).part(0, config.data.test_images)
    return _create_loader_in_order(config, test, device, shard)


def _create_loader_in_order(config: RunConfig, split: Split, device: Any, shard: Shard) -> Any:
    batch_size, images = config.training.batch_size, len(split.labels)
    # Whole batches, in turn: a part of each would be too few images to be fast, and of the last perhaps none.
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
    """The order in which an epoch visits the images: a permutation of 0 … images − 1, a pure function of its arguments.

    numpy keeps the streams of RandomState as they are for good, which it does not promise of its newer generators.
    """
    sequence = np.random.SeedSequence([seed, epoch])
    return np.random.RandomState(np.random.MT19937(sequence)).permutation(images)


class ShuffledSampler(mx.gluon.data.Sampler):  # type: ignore[misc,name-defined]  # MXNet has no types
    """Image numbers in `epoch_order`; a sampler for any Gluon DataLoader.

    epoch: the epoch, counted from 1, whose order the next pass has; a pass that begins moves it on by one.
    done: how many images of it the next pass leaves out, because they have had their turn; then 0 again.
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
        """How many images a batch has, counted from 1: as many as the others, or what is left for the last."""
        return min(batch_size, self.images - (batch - 1) * batch_size)


class OrderedSampler(ShuffledSampler):
    """The same image numbers in the same order in every epoch."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(len(numbers), seed=0)
        self.numbers = numbers

    def _numbers(self) -> list[int]:
        return self.numbers


class ShardedSampler(mx.gluon.data.Sampler):  # type: ignore[misc,name-defined]
    """Of each batch of another sampler's numbers the part that is for one process, which sees batches of `shard.size_of`."""

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
        """How many images the whole batch has."""
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


class _EpochOfSampler:
    """A loader's `epoch` is that of its sampler."""

    sampler: Any
    batch_size: int

    def batch_size_of(self, batch: int) -> int:
        """How many images a batch of the training has, counted from 1, on all processes that share it."""
        return int(self.sampler.batch_size_of(batch, self.batch_size))

    def seek(self, epoch: int, batches: int) -> None:
        """Has the next pass be this epoch, without the batches that are done."""
        self.sampler.epoch = epoch
        self.sampler.done = batches * self.batch_size

    @property
    def epoch(self) -> int:
        return int(self.sampler.epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.sampler.epoch = epoch


class ArrayLoader(_EpochOfSampler):
    """Batches from one array of all images, float32, equal bit for bit to what Gluon's ToTensor makes.

    The images are converted once, which takes 188 MB for the 60,000 of the training. Those of `BLOCK` batches are picked out
    together, and each batch is a view of them.
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
            return  # MXNet knows no empty arrays
        for block in np.split(numbers, range(self.BLOCK * self.batch_size, len(numbers), self.BLOCK * self.batch_size)):
            images, labels = mx.nd.from_numpy(self._images[block]), mx.nd.from_numpy(self._labels[block])  # no copies
            for first in range(0, len(block), self.batch_size):
                yield images[first : first + self.batch_size], labels[first : first + self.batch_size]


class DeviceLoader(_EpochOfSampler):
    """Batches from one array of all images in a device's memory, the same as `ArrayLoader`'s.

    The numbers of an epoch's images go there once, before its first batch; each batch is then a `take` on the device, which
    never waits for Python.
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
        on_device = mx.nd.array(numbers or [0], ctx=self.device, dtype=np.int32)  # MXNet knows no empty arrays
        for first in range(0, len(numbers), self.batch_size):
            which = on_device[first : first + self.batch_size]
            yield mx.nd.take(self._images, which), mx.nd.take(self._labels, which)


class GluonLoader(_EpochOfSampler, mx.gluon.data.DataLoader):  # type: ignore[misc,name-defined]
    """MXNet's DataLoader over the same images, each made by ToTensor when its turn comes, in this process."""

    def __init__(self, split: Split, batch_size: int, sampler: Any) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        images = mx.nd.array(split.images[..., np.newaxis], dtype=np.uint8)
        dataset = mx.gluon.data.ArrayDataset(images, split.labels.astype(np.int32))
        to_tensor = mx.gluon.data.vision.transforms.ToTensor()
        super().__init__(dataset.transform_first(to_tensor), batch_size, sampler=sampler, last_batch="keep")

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return map(tuple, super().__iter__())
