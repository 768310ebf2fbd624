"""Both loaders yield the same batches as Gluon's own classes, in an order that depends only on the seed and the epoch."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import spare_time

from mnist_trainer.config.loading import load_config
from mnist_trainer.config.schema import DataConfig, RunConfig, TrainingConfig
from mnist_trainer.data.augmentation import augment
from mnist_trainer.data.loaders import (
    DeviceLoader,
    Shard,
    ShuffledSampler,
    create_loaders,
    create_validation_loader,
    epoch_order,
)
from mnist_trainer.data.mnist_files import read_split
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()


def config(
    loader: str, train_images: int = 1000, batch_size: int = 64, seed: int = 1, *, is_augmented: bool = False
) -> RunConfig:
    data = DataConfig(loader=loader, train_images=train_images, test_images=300, augment=is_augmented)
    return RunConfig(training=TrainingConfig(batch_size=batch_size, seed=seed), data=data)


augmented_or_not = pytest.mark.parametrize("is_augmented", [False, True], ids=["as they are", "augmented"])


@augmented_or_not
def test_both_loaders_yield_identical_batches(is_augmented: bool, data_dir: Path) -> None:
    array_train, array_test = create_loaders(config("array", is_augmented=is_augmented), data_dir)
    gluon_train, gluon_test = create_loaders(config("gluon", is_augmented=is_augmented), data_dir)
    for array, gluon in ((array_train, gluon_train), (array_train, gluon_train), (array_test, gluon_test)):
        assert len(array) == len(gluon)
        batches = 0
        for (images, labels), (gluon_images, gluon_labels) in zip(array, gluon, strict=True):
            assert images.shape == gluon_images.shape
            assert images.dtype == gluon_images.dtype == np.float32
            assert labels.dtype == gluon_labels.dtype == np.int32
            assert images.asnumpy().tobytes() == gluon_images.asnumpy().tobytes()
            assert labels.asnumpy().tolist() == gluon_labels.asnumpy().tolist()
            batches += 1
        assert batches == len(array)


def test_batches_are_those_of_the_tutorials_dataset(data_dir: Path) -> None:
    # The tutorial's pipeline: MXNet reads the same folder and ToTensor makes the floats.
    dataset = mx.gluon.data.vision.MNIST(root=str(data_dir), train=False)
    dataset = dataset.transform_first(mx.gluon.data.vision.transforms.ToTensor())
    _, test_loader = create_loaders(config("array"), data_dir)
    theirs = islice(mx.gluon.data.DataLoader(dataset, 64), 4)
    for (images, labels), (their_images, their_labels) in zip(islice(test_loader, 4), theirs, strict=True):
        assert images.asnumpy().tobytes() == their_images.asnumpy().tobytes()
        assert labels.asnumpy().tolist() == their_labels.asnumpy().tolist()
        assert labels.dtype == their_labels.dtype


@pytest.mark.parametrize("loader", ["array", "gluon"])
def test_shapes_range_and_the_partial_last_batch(loader: str, data_dir: Path) -> None:
    train_loader, test_loader = create_loaders(config(loader, train_images=200), data_dir)
    shapes = [(images.shape, labels.shape) for images, labels in train_loader]
    assert shapes == [((64, 1, 28, 28), (64,))] * 3 + [((8, 1, 28, 28), (8,))]
    assert sum(len(labels) for _, labels in test_loader) == 300
    images = next(iter(test_loader))[0].asnumpy()
    assert (images.min(), images.max()) == (0, 1)


@pytest.mark.parametrize("loader", ["array", "gluon"])
def test_an_epoch_visits_every_image_once_and_epochs_differ(loader: str, data_dir: Path) -> None:
    train_loader, _ = create_loaders(config(loader, train_images=300), data_dir)
    labels = read_split(data_dir, train=True).labels[:300]

    def visited() -> list[int]:
        return [int(label) for _, part in train_loader for label in part.asnumpy()]

    first, second = visited(), visited()
    assert first == labels[epoch_order(1, 1, 300)].tolist()
    assert second == labels[epoch_order(1, 2, 300)].tolist()
    assert first != second
    train_loader.epoch = 1
    assert visited() == first
    assert train_loader.epoch == 2


def test_the_order_is_a_pure_function_of_seed_and_epoch() -> None:
    order = epoch_order(seed=1, epoch=1, images=60_000)
    np.random.seed(99)
    np.random.rand(5)
    assert (epoch_order(1, 1, 60_000) == order).all()
    assert sorted(order) == list(range(60_000))
    assert order[:5].tolist() == [14022, 3335, 20557, 49718, 37946]  # must never change, so that runs can be repeated in years
    assert (epoch_order(1, 2, 60_000) != order).any()
    assert (epoch_order(2, 1, 60_000) != order).any()
    sampler = ShuffledSampler(60_000, seed=1)
    assert list(sampler) == order.tolist()
    assert sampler.epoch == 2


def test_the_default_is_the_whole_set(data_dir: Path) -> None:
    train_loader, test_loader = create_loaders(load_config(), data_dir)
    assert len(train_loader) == 938
    assert len(test_loader) == 157
    assert sum(len(labels) for _, labels in test_loader) == 10_000


def test_the_seed_is_read(data_dir: Path) -> None:
    one, _ = create_loaders(config("array"), data_dir)
    other, _ = create_loaders(replace(config("array", seed=2)), data_dir)
    assert next(iter(one))[1].asnumpy().tolist() != next(iter(other))[1].asnumpy().tolist()


# --- augmented


@pytest.mark.parametrize("loader", ["array", "gluon"])
@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_an_augmented_image_depends_on_seed_epoch_and_number(loader: str, batch_size: int, data_dir: Path) -> None:
    train_loader, _ = create_loaders(config(loader, 40, batch_size, seed=5, is_augmented=True), data_dir)
    images = read_split(data_dir, train=True).images[:40]
    for epoch, done in ((1, 0), (2, 0), (7, 1), (8, 0)):
        if train_loader.epoch != epoch:
            train_loader.seek(epoch, done)
        order = epoch_order(5, epoch, 40)[done * batch_size :]
        batches = [batch.asnumpy() for batch, _ in train_loader]
        expected = augment(images[order], order, seed=5, epoch=epoch)
        np.testing.assert_array_equal(np.concatenate([np.zeros((0, 1, 28, 28)), *batches])[:, 0], expected / np.float32(255))


@pytest.mark.parametrize("loader", ["array", "gluon"])
def test_test_and_validation_images_are_never_augmented(loader: str, data_dir: Path) -> None:
    small = config(loader, 200, is_augmented=True)
    small = replace(small, data=replace(small.data, validation_images=100))
    held_out, test = read_split(data_dir, train=True).images[100:200], read_split(data_dir, train=False).images[:300]
    for loader_in_order, images in (
        (create_validation_loader(small, data_dir), held_out),
        (create_loaders(small, data_dir)[1], test),
    ):
        yielded = np.concatenate([batch.asnumpy() for batch, _ in loader_in_order])
        np.testing.assert_array_equal(yielded[:, 0], images / np.float32(255))


# --- on a device, and for several processes


@augmented_or_not
@pytest.mark.parametrize("device", [mx.cpu(), mx.cpu(1)], ids=str)
def test_batches_on_a_device_are_those_of_the_array_loader(device: Any, is_augmented: bool, data_dir: Path) -> None:
    there = create_loaders(config("array", train_images=300, is_augmented=is_augmented), data_dir, device)
    here = create_loaders(config("array", train_images=300, is_augmented=is_augmented), data_dir)
    assert isinstance(there[1], DeviceLoader)
    for ours, theirs in zip(there, here, strict=True):
        assert len(ours) == len(theirs)
        for _ in range(2):  # epochs
            for (images, labels), (other_images, other_labels) in zip(ours, theirs, strict=True):
                assert images.context == labels.context == device
                assert (images.dtype, labels.dtype) == (other_images.dtype, other_labels.dtype)
                np.testing.assert_array_equal(images.asnumpy(), other_images.asnumpy())
                np.testing.assert_array_equal(labels.asnumpy(), other_labels.asnumpy())


def test_on_a_device_an_epoch_resumes_in_its_middle(data_dir: Path) -> None:
    there, _ = create_loaders(config("array", train_images=300), data_dir, mx.cpu(1))
    there.seek(3, 0)
    whole = [labels.asnumpy().tolist() for _, labels in there]
    there.seek(3, 2)
    assert [labels.asnumpy().tolist() for _, labels in there] == whole[2:]


def shards(of: int) -> list[Shard]:
    return [Shard(rank, of) for rank in range(of)]


# Batches of 16. The last batch is smaller. The first of the two epochs starts at its beginning.
@pytest.mark.slow
@augmented_or_not
@pytest.mark.parametrize("loader", ["array", "gluon"])
@pytest.mark.parametrize(("of", "train_images"), [(2, 43), (3, 40), (4, 37), (7, 55)])
def test_the_parts_of_several_processes_make_the_batches_of_one(
    loader: str, of: int, train_images: int, is_augmented: bool, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare_time(monkeypatch)
    small = config(loader, train_images, batch_size=16, is_augmented=is_augmented)
    whole, _ = create_loaders(small, data_dir)
    parts = [create_loaders(small, data_dir, shard=shard)[0] for shard in shards(of)]
    for epoch, done in ((1, 0), (4, 2)):
        for train_loader in (whole, *parts):
            train_loader.seek(epoch, done)
        batches = zip(whole, *parts, strict=True)
        for number, ((images, labels), *shared) in enumerate(batches, start=done + 1):
            sizes = [len(part[1]) for part in shared]
            assert min(sizes) >= 1
            assert max(sizes) - min(sizes) <= 1
            np.testing.assert_array_equal(np.concatenate([part[0].asnumpy() for part in shared]), images.asnumpy())
            np.testing.assert_array_equal(np.concatenate([part[1].asnumpy() for part in shared]), labels.asnumpy())
            assert [train_loader.batch_size_of(number) for train_loader in (whole, *parts)] == [len(images)] * (of + 1)
        assert number == len(whole)
    assert {len(part) for part in parts} == {len(whole)}


@pytest.mark.parametrize("loader", ["array", "gluon"])
@pytest.mark.parametrize("of", [2, 3])
def test_every_test_image_is_scored_by_one_process(
    loader: str, of: int, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare_time(monkeypatch)
    data = DataConfig(loader=loader, train_images=16, test_images=25)  # two batches of 16: a third process has none
    small = RunConfig(training=TrainingConfig(batch_size=16), data=data)
    whole = [labels.asnumpy().tolist() for _, labels in create_loaders(small, data_dir)[1]]
    parts = [
        [labels.asnumpy().tolist() for _, labels in create_loaders(small, data_dir, shard=shard)[1]] for shard in shards(of)
    ]
    assert [len(batch) for batch in whole] == [16, 9]
    assert parts[:2] == [[whole[0]], [whole[1]]]
    assert parts[2:] == [[]] * (of - 2)
