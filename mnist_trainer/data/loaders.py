"""Loaders: MNIST as batches of MXNet arrays. Two kinds of loader yield the same batches.

`array` keeps all images in memory; its batches are views of blocks selected from them. For training on a GPU, the images are in
GPU memory, and a batch is a `take`. `gluon` is MXNet's DataLoader with ToTensor, as in the tutorial. If several processes train
together, each receives its part of the same batches. `mnist_files` reads the files, and `augmentation` changes the images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mnist_trainer.config.schema import RunConfig
from mnist_trainer.data.augmentation import augment
from mnist_trainer.data.files import files_problems, find_data_dir, read_split
from mnist_trainer.data.mnist_files import Split
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
        """Return the positions of the process's images in a batch.

        The first processes receive the remainder, as in Gluon's `split_data`.

        Args:
            images: Number of images in the batch.
        """
        smallest, left_over = divmod(images, self.world_size)
        first = self.rank * smallest + min(self.rank, left_over)
        return slice(first, first + smallest + (self.rank < left_over))

    def size_of(self, images: int) -> int:
        """Return the number of the process's images in a batch.

        Args:
            images: Number of images in the batch.
        """
        part = self.slice_of(images)
        return int(part.stop - part.start)


WHOLE = Shard()


def create_loaders(
    config: RunConfig, data_dir: str | Path | None = None, device: Any = None, shard: Shard = WHOLE
) -> tuple[Any, Any]:
    """Create the loaders of the training and the test images.

    A loader yields tuples (images, labels) of NDArrays: images of shape (N, 1, 28, 28), float32 in [0, 1], and labels of shape
    (N,), int32. N is the batch size; the last batch contains the remaining images.

    Each loader has the following members:

    - `len(loader)` is the number of batches.
    - `loader.epoch` is the number of the next pass, counted from 1. Each pass increments it. The train loader shuffles, and
      with `data.augment` it augments the images; their order and changes depend only on the epoch and `training.seed`. The
      test loader keeps the order and the images of the files.
    - `loader.seek(epoch, batches)` makes the next pass begin in an epoch after some of its batches.
    - `loader.batch_size_of(batch)` is the number of images of a batch, counted from 1, on all processes together.

    Args:
        config: The configuration from `load_config`. The table `data`, `training.batch_size` and `training.seed` are used.
        data_dir: The folder of the four MNIST files. By default the folder in the environment variable MNIST_TRAINER_DATA, or
            the bundled files.
        device: The MXNet context in whose memory the array loader keeps the images and yields the batches; None for the CPU.
        shard: The shard of this process, if several processes train together: its part of each training batch, and its share
            of the test batches, which are not divided.

    Returns:
        The train loader and the test loader.

    Raises:
        RequestError: A file is missing or is not the genuine one.
    """
    folder = find_data_dir(config.data.name, data_dir)
    if problems := files_problems(folder, config.data):
        raise RequestError(*problems)
    train = read_split(folder, config.data, train=True).part(0, config.data.trained_images)
    sampler: Any = ShuffledSampler(len(train.labels), config.training.seed)
    batch_size = config.training.batch_size
    if shard != WHOLE:
        sampler = ShardedSampler(sampler, batch_size, shard)
        batch_size = shard.size_of(batch_size)
    test_loader = create_test_loader(config, folder, device, shard)
    if not config.data.augment:
        return _create_loader(config, train, batch_size, sampler, device), test_loader
    if config.data.loader == "gluon":
        return AugmentedGluonLoader(train, batch_size, sampler, config.training.seed), test_loader
    return AugmentedLoader(train, batch_size, sampler, config.training.seed, device), test_loader


def create_validation_loader(
    config: RunConfig, data_dir: str | Path | None = None, device: Any = None, shard: Shard = WHOLE
) -> Any:
    """Create the loader of the validation images, in the order of the files.

    The validation images are the last `data.validation_images` of the training images. They are held out of the training.

    Args:
        config: The configuration, as for `create_loaders`.
        data_dir: The folder of the four MNIST files, as for `create_loaders`.
        device: The MXNet context, as for `create_loaders`.
        shard: The shard of this process, which receives whole batches.

    Returns:
        The loader; None if `data.validation_images` is 0.

    Raises:
        RequestError: A file is missing or is not the genuine one.
    """
    if not config.data.validation_images:
        return None
    train = read_split(find_data_dir(config.data.name, data_dir), config.data, train=True)
    held_out = train.part(config.data.trained_images, config.data.train_images)
    return _create_loader_in_order(config, held_out, device, shard)


def create_test_loader(config: RunConfig, data_dir: str | Path | None = None, device: Any = None, shard: Shard = WHOLE) -> Any:
    """Create only the test loader of `create_loaders`. The training files may be missing.

    Args:
        config: The configuration, as for `create_loaders`.
        data_dir: The folder of the MNIST files, as for `create_loaders`.
        device: The MXNet context, as for `create_loaders`.
        shard: The shard of this process, which receives whole batches.

    Returns:
        The test loader.

    Raises:
        RequestError: A test file is missing or is not the genuine one.
    """
    test = read_split(find_data_dir(config.data.name, data_dir), config.data, train=False).part(0, config.data.test_images)
    return _create_loader_in_order(config, test, device, shard)


def _create_loader_in_order(config: RunConfig, split: Split, device: Any, shard: Shard) -> Any:
    batch_size, images = config.training.batch_size, len(split.labels)
    # Processes take whole batches in turn. Parts of batches would be too small to be fast, and a part of the last batch could
    # be empty.
    firsts = range(shard.rank * batch_size, images, shard.world_size * batch_size)
    numbers = [number for first in firsts for number in range(first, min(first + batch_size, images))]
    return _create_loader(config, split, batch_size, OrderedSampler(numbers), device)


def _create_loader(config: RunConfig, split: Split, batch_size: int, sampler: Any, device: Any) -> Any:
    if config.data.loader == "gluon":
        images = mx.nd.array(split.images[..., np.newaxis], dtype=np.uint8)
        return GluonLoader(images, split.labels, batch_size, sampler)
    if device is not None:
        return DeviceLoader(split, batch_size, sampler, device)
    return ArrayLoader(split, batch_size, sampler)


def network_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Convert images, shape (N, height, width), unsigned bytes, to the network's input of shape (N, 1, height, width).

    The values equal those of Gluon's ToTensor bit for bit.
    """
    return np.divide(images[:, np.newaxis], np.float32(255), dtype=np.float32)


def epoch_order(seed: int, epoch: int, images: int) -> npt.NDArray[np.int64]:
    """Return the order of the images in an epoch.

    numpy guarantees that the streams of RandomState never change. It does not guarantee this for its newer generators.

    Args:
        seed: The seed of the run.
        epoch: The epoch, counted from 1.
        images: The number of images.

    Returns:
        A permutation of 0, …, images − 1 that depends only on the arguments.
    """
    sequence = np.random.SeedSequence([seed, epoch])
    return np.random.RandomState(np.random.MT19937(sequence)).permutation(images)


class ShuffledSampler(mx.gluon.data.Sampler):  # type: ignore[misc,name-defined]  # MXNet has no types
    """Sampler for a Gluon DataLoader: image numbers in the order of `epoch_order`.

    Args:
        images: The number of images.
        seed: The seed of the run.

    Attributes:
        epoch: The epoch of the next pass, counted from 1. It is incremented when a pass begins.
        done: The number of images that the next pass skips at the beginning of the epoch. It is reset to 0 when a pass begins.
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
        """Return the number of images of a batch. The last batch may be smaller.

        Args:
            batch: The batch, counted from 1.
            batch_size: The number of images of a full batch.
        """
        return min(batch_size, self.images - (batch - 1) * batch_size)


class OrderedSampler(ShuffledSampler):
    """Sampler of the same image numbers in the same order in every epoch.

    Args:
        numbers: The image numbers.
    """

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(len(numbers), seed=0)
        self.numbers = numbers

    def _numbers(self) -> list[int]:
        return self.numbers


class ShardedSampler(mx.gluon.data.Sampler):  # type: ignore[misc,name-defined]
    """Sampler of one process's shard of each batch of another sampler.

    Args:
        sampler: The sampler of whole batches.
        batch_size: The number of images of a whole batch. The process receives batches of `shard.size_of(batch_size)` images.
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
        """Return the number of images of a whole batch, counted from 1."""
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
    """Base class of the loaders, which passes epoch and position to the sampler."""

    sampler: Any
    batch_size: int

    def batch_size_of(self, batch: int) -> int:
        """Return the number of images of a training batch on all processes together.

        Args:
            batch: Number of the batch in the epoch, counted from 1.
        """
        return int(self.sampler.batch_size_of(batch, self.batch_size))

    def seek(self, epoch: int, batches: int) -> None:
        """Make the next pass begin in an epoch after some of its batches.

        Args:
            epoch: Number of the epoch, counted from 1.
            batches: Number of batches to skip at its beginning.
        """
        self.sampler.epoch = epoch
        self.sampler.done = batches * self.batch_size

    @property
    def epoch(self) -> int:
        return int(self.sampler.epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.sampler.epoch = epoch


class ArrayLoader(_SamplerLoader):
    """Loader of batches from one float32 array of all images. The values equal the results of Gluon's ToTensor bit for bit.

    All images are converted once. The 60,000 training images then take 188 MB. The images of `BLOCK` batches are selected
    together, and each batch is a view of them.
    """

    BLOCK = 16

    def __init__(self, split: Split, batch_size: int, sampler: Any) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self._images = network_input(split.images)
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
    """Loader of the same batches as `ArrayLoader`, from one array of all images in a device's memory.

    The image numbers of an epoch are copied to the device once, before its first batch. Each batch is then a `take` on the
    device, which never waits for Python.
    """

    def __init__(self, split: Split, batch_size: int, sampler: Any, device: Any) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.device = device
        self._images = mx.nd.array(network_input(split.images), ctx=device)
        self._labels = mx.nd.array(split.labels, ctx=device, dtype=np.int32)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        numbers = list(self.sampler)
        on_device = mx.nd.array(numbers or [0], ctx=self.device, dtype=np.int32)  # MXNet has no empty arrays
        for first in range(0, len(numbers), self.batch_size):
            which = on_device[first : first + self.batch_size]
            yield mx.nd.take(self._images, which), mx.nd.take(self._labels, which)


class AugmentedLoader(_SamplerLoader):
    """Loader of the training images, augmented. Python makes each batch while the device computes the one before."""

    def __init__(self, split: Split, batch_size: int, sampler: Any, seed: int, device: Any) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.device = device or mx.cpu()
        self._images = split.images
        self._labels = split.labels.astype(np.int32)
        self._seed = seed

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        epoch, numbers = self.epoch, np.fromiter(self.sampler, np.int64)
        for first in range(0, len(numbers), self.batch_size):
            batch = numbers[first : first + self.batch_size]
            arrays = network_input(augment(self._images[batch], batch, self._seed, epoch)), self._labels[batch]
            images, labels = (mx.nd.from_numpy(array).as_in_context(self.device) for array in arrays)  # no copies on the CPU
            yield images, labels


class GluonLoader(_SamplerLoader, mx.gluon.data.DataLoader):  # type: ignore[misc,name-defined]
    """MXNet's DataLoader of the same images. ToTensor converts each image when it is needed, in this process.

    Args:
        images: A dataset of images of shape (28, 28, 1), bytes.
        labels: Their labels.
        batch_size: The number of images of a full batch.
        sampler: The sampler of image numbers.
    """

    def __init__(self, images: Any, labels: npt.NDArray[np.uint8], batch_size: int, sampler: Any) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        dataset = mx.gluon.data.ArrayDataset(images, labels.astype(np.int32))
        to_tensor = mx.gluon.data.vision.transforms.ToTensor()
        super().__init__(dataset.transform_first(to_tensor), batch_size, sampler=sampler, last_batch="keep")

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return map(tuple, super().__iter__())


class AugmentedGluonLoader(GluonLoader):
    """MXNet's DataLoader of the same batches as `AugmentedLoader`."""

    def __init__(self, split: Split, batch_size: int, sampler: Any, seed: int) -> None:
        self._augmented = AugmentedDataset(split.images, seed)
        super().__init__(self._augmented, split.labels, batch_size, sampler)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self._augmented.epoch = self.epoch
        yield from super().__iter__()


class AugmentedDataset(mx.gluon.data.Dataset):  # type: ignore[misc,name-defined]
    """Images of an epoch, each augmented when it is needed.

    Args:
        images: Bytes of shape (N, 28, 28).
        seed: The seed of the run.

    Attributes:
        epoch: The epoch, counted from 1.
    """

    def __init__(self, images: npt.NDArray[np.uint8], seed: int) -> None:
        self.images = images
        self.seed = seed
        self.epoch = 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Any:
        augmented = augment(self.images[number : number + 1], [number], self.seed, self.epoch)
        return mx.nd.from_numpy(augmented[0, ..., np.newaxis])
