"""The loop compared with the tutorial's, both scheduler modes compared with each other, and the reports to callbacks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from programs import run_python

from mnist_trainer.config.loading import load_config
from mnist_trainer.config.schema import DataConfig, RunConfig
from mnist_trainer.data.loaders import create_loaders, epoch_order
from mnist_trainer.data.mnist_files import read_split
from mnist_trainer.distributed.process_group import SINGLE_PROCESS
from mnist_trainer.errors import RunError
from mnist_trainer.model.network import build_cnn, initialize, parameters_in_order, parameters_sha256
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Constant, MultiFactor, Poly
from mnist_trainer.training.callbacks import Callback
from mnist_trainer.training.loop import evaluate, fit, seed_everything
from mnist_trainer.training.records import EpochMetrics, IterationRecord, LoopState
from mnist_trainer.training.trainer import ScheduledTrainer, create_trainer

mx = import_mxnet()

STEPS = [20, 45, 50]
TRAIN_IMAGES = 1900  # 29 whole batches of 64 and one of 44: two epochs are 60 iterations


class Recorder(Callback):
    """Keeps the arguments of its calls."""

    def __init__(self) -> None:
        self.blocks: list[list[IterationRecord]] = []
        self.batches: list[tuple[int, int]] = []
        self.started: list[tuple[int, int]] = []
        self.epochs: list[EpochMetrics] = []

    def on_epoch_begin(self, state: LoopState) -> None:
        self.started.append((state.epoch, state.batches_per_epoch))

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        self.blocks.append(list(records))
        self.batches.append((state.epoch, state.batch))

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        assert metrics.epoch == state.epoch
        self.epochs.append(metrics)

    @property
    def records(self) -> list[IterationRecord]:
        return [record for block in self.blocks for record in block]


def small_config(loader: str = "array", train_images: int = TRAIN_IMAGES, test_images: int = 300) -> RunConfig:
    return replace(load_config(), data=DataConfig(loader=loader, train_images=train_images, test_images=test_images))


def seeded_net(devices: list[Any] | None = None) -> Any:
    seed_everything(1)
    net = build_cnn()
    initialize(net, devices or [mx.cpu()])
    return net


def run_fit(
    data_dir: Path,
    mode: str = "optimizer",
    loader: str = "array",
    make_trainer: Callable[..., Any] = create_trainer,
    devices: list[Any] | None = None,
    optimizer_params: dict[str, float] | None = None,
) -> tuple[Recorder, Any]:
    net = seeded_net(devices)
    loaders = create_loaders(small_config(loader), data_dir)
    schedule = MultiFactor(step=STEPS, factor=0.1, base_lr=0.03)
    trainer = make_trainer(net.collect_params(), schedule, mode, "sgd", optimizer_params)
    recorder = Recorder()
    history = fit(net, *loaders, trainer, 2, callbacks=[recorder])
    assert history == recorder.epochs
    return recorder, net


def tutorial_loop(net: Any, train_dataloader: Any, num_epochs: int) -> tuple[list[float], list[float]]:
    """Run the tutorial's training loop in its first form, without the printing; return rates and losses."""
    ctx = mx.cpu()
    softmax_cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    schedule = mx.lr_scheduler.MultiFactorScheduler(step=list(STEPS), factor=0.1)
    schedule.base_lr = 0.03
    sgd_optimizer = mx.optimizer.SGD(learning_rate=0.03, lr_scheduler=schedule)
    trainer = mx.gluon.Trainer(params=net.collect_params(), optimizer=sgd_optimizer)
    rates, losses = [], []
    for _epoch in range(1, num_epochs + 1):
        for _batch_num, (data, label) in enumerate(train_dataloader, start=1):
            data = data.as_in_context(ctx)
            label = label.as_in_context(ctx)
            with mx.autograd.record():
                output = net(data)
                loss = softmax_cross_entropy(output, label)
            loss.backward()
            trainer.step(data.shape[0])
            losses.append(mx.nd.mean(loss).asscalar())
            rates.append(trainer.learning_rate)
    return rates, losses


def tutorial_loop_by_hand(net: Any, train_dataloader: Any, num_epochs: int) -> tuple[list[float], list[float]]:
    """Run the tutorial's training loop in its second form, with set_learning_rate; return rates and losses."""
    ctx = mx.cpu()
    softmax_cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    schedule = mx.lr_scheduler.MultiFactorScheduler(step=list(STEPS), factor=0.1)
    schedule.base_lr = 0.03
    sgd_optimizer = mx.optimizer.SGD()
    trainer = mx.gluon.Trainer(params=net.collect_params(), optimizer=sgd_optimizer)
    rates, losses = [], []
    iteration_idx = 1
    for _epoch in range(1, num_epochs + 1):
        for _batch_num, (data, label) in enumerate(train_dataloader, start=1):
            data = data.as_in_context(ctx)
            label = label.as_in_context(ctx)
            with mx.autograd.record():
                output = net(data)
                loss = softmax_cross_entropy(output, label)
            loss.backward()
            lr = schedule(iteration_idx)
            trainer.set_learning_rate(lr)
            trainer.step(data.shape[0])
            losses.append(mx.nd.mean(loss).asscalar())
            rates.append(trainer.learning_rate)
            iteration_idx += 1
    return rates, losses


class EpochOrders(mx.gluon.data.Sampler):  # type: ignore[misc,name-defined]
    """Sampler with the program's order of images, epoch by epoch, for MXNet's own dataset and loader."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self) -> Any:
        self.epoch += 1
        return iter(epoch_order(1, self.epoch, TRAIN_IMAGES).tolist())

    def __len__(self) -> int:
        return TRAIN_IMAGES


@pytest.fixture(scope="module")
def mxnets_dataset(data_dir: Path) -> Any:
    """Return the training images as MXNet reads them."""
    to_tensor = mx.gluon.data.vision.transforms.ToTensor()
    return mx.gluon.data.vision.MNIST(root=str(data_dir), train=True).transform_first(to_tensor)


@pytest.mark.parametrize("loader", ["array", "gluon"])
@pytest.mark.parametrize(
    ("mode", "loop"), [("optimizer", tutorial_loop), ("manual", tutorial_loop_by_hand)], ids=["optimizer", "manual"]
)
def test_fit_is_the_tutorials_loop_bit_for_bit(
    mode: str, loop: Callable[..., Any], loader: str, data_dir: Path, mxnets_dataset: Any
) -> None:
    net = seeded_net()
    net.hybridize(active=False)
    rates, losses = loop(net, mx.gluon.data.DataLoader(mxnets_dataset, 64, sampler=EpochOrders()), 2)

    recorder, ours = run_fit(data_dir, mode, loader)
    assert len(recorder.records) == 60
    assert [record.learning_rate for record in recorder.records] == rates
    np.testing.assert_allclose([record.loss for record in recorder.records], losses, rtol=1e-6)
    assert parameters_sha256(ours) == parameters_sha256(net)


def identical(one: tuple[Recorder, Any], other: tuple[Recorder, Any]) -> bool:
    """Return True if two runs have the same rates, losses and parameters, bit for bit."""
    return one[0].records == other[0].records and parameters_sha256(one[1]) == parameters_sha256(other[1])


@pytest.mark.parametrize("optimizer_params", [{}, {"momentum": 0.9, "wd": 0.001}], ids=["plain", "momentum and decay"])
def test_both_modes_are_identical_and_a_broken_trainer_is_detected(optimizer_params: dict[str, float], data_dir: Path) -> None:
    by_optimizer = run_fit(data_dir, "optimizer", optimizer_params=optimizer_params)
    by_trainer = run_fit(data_dir, "manual", optimizer_params=optimizer_params)
    assert identical(by_optimizer, by_trainer)

    class CountsFromZero(ScheduledTrainer):
        def _begin_iteration(self) -> None:
            self.set_learning_rate(self.schedule(self.iteration))
            self.iteration += 1

    def make_broken(params: Any, schedule: Any, mode: str, optimizer: Any, optimizer_params: Any) -> Any:
        return CountsFromZero(
            params, optimizer, optimizer_params, schedule, mode, hyperparameter_schedules={}, process_group=SINGLE_PROCESS
        )

    broken = run_fit(data_dir, "manual", make_trainer=make_broken, optimizer_params=optimizer_params)
    assert not identical(by_optimizer, broken)
    wrong = [
        a.iteration
        for a, b in zip(by_optimizer[0].records, broken[0].records, strict=True)
        if a.learning_rate != b.learning_rate
    ]
    assert wrong == [step + 1 for step in STEPS]


def test_the_same_run_twice_is_the_same(data_dir: Path) -> None:
    assert identical(run_fit(data_dir), run_fit(data_dir))


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_a_second_fit_continues_where_the_first_ended(mode: str, data_dir: Path) -> None:
    net = seeded_net()
    loaders = create_loaders(small_config(), data_dir)
    trainer = create_trainer(net.collect_params(), MultiFactor(step=[10, 40], factor=0.1, base_lr=0.03), mode)
    first, second = Recorder(), Recorder()
    fit(net, *loaders, trainer, 1, callbacks=[first])
    fit(net, *loaders, trainer, 1, callbacks=[second])
    rates = [record.learning_rate for record in first.records + second.records]
    assert rates == pytest.approx([0.03] * 10 + [0.003] * 30 + [0.0003] * 20)
    assert [record.iteration for record in first.records + second.records] == list(range(1, 61))


def test_callbacks_receive_all_records(data_dir: Path) -> None:
    recorder, net = run_fit(data_dir)
    assert recorder.started == [(1, 30), (2, 30)]
    assert [[record.iteration for record in block] for block in recorder.blocks] == [
        [1],
        list(range(2, 31)),
        [31],
        list(range(32, 61)),
    ]
    assert recorder.batches == [(1, 1), (1, 30), (2, 1), (2, 30)]
    assert [record.scores.total for record in recorder.records] == ([64] * 29 + [44]) * 2
    assert [record.learning_rate for record in recorder.records] == pytest.approx(
        [0.03] * 20 + [0.003] * 25 + [0.0003] * 5 + [0.00003] * 10
    )
    for epoch, metrics in enumerate(recorder.epochs, start=1):
        records = recorder.records[30 * (epoch - 1) : 30 * epoch]
        assert metrics.iteration == 30 * epoch
        assert metrics.learning_rate == records[-1].learning_rate
        assert metrics.train.total == TRAIN_IMAGES
        assert metrics.train.loss == pytest.approx(sum(record.loss * record.scores.total for record in records) / TRAIN_IMAGES)
        assert metrics.train.correct == sum(record.scores.correct for record in records)
        assert metrics.test
        assert metrics.test.total == 300
        assert metrics.images_per_second == TRAIN_IMAGES / metrics.epoch_seconds
    _, test_loader = create_loaders(small_config(), data_dir)
    assert evaluate(net, test_loader) == recorder.epochs[-1].test


def test_long_epochs_are_fetched_in_blocks_of_fifty(data_dir: Path) -> None:
    net = seeded_net()
    loaders = create_loaders(replace(small_config(train_images=130), training=replace(load_config().training, batch_size=1)))
    recorder = Recorder()
    fit(net, *loaders, create_trainer(net.collect_params(), Constant(0.001)), 1, callbacks=[recorder])
    assert [len(block) for block in recorder.blocks] == [1, 49, 50, 30]


def test_evaluation_scores_every_image_as_numpy_does(data_dir: Path) -> None:
    net = seeded_net()
    _, test_loader = create_loaders(small_config(test_images=1001), data_dir)
    scores = evaluate(net, test_loader)
    split = read_split(data_dir, train=False).part(0, 1001)
    logits = net(mx.nd.array(split.images[:, None].astype(np.float32) / np.float32(255))).asnumpy().astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(1001), split.labels]
    assert scores.total == 1001
    assert scores.correct == int((logits.argmax(axis=1) == split.labels).sum())
    assert scores.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert scores.accuracy == scores.correct / 1001


# Each device sums the gradients of its part, and these sums are then added. A sum of n numbers in another order may differ by
# about n times 6e-8 of its largest number, in each iteration. A part that is missing, added twice or scaled wrongly changes the
# sum by 1e-2.
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["optimizer", "manual"])
@pytest.mark.parametrize("devices", [2, 3])
def test_several_devices_give_the_single_devices_result_within_rounding(devices: int, mode: str, data_dir: Path) -> None:
    momentum = {"momentum": 0.9}
    one, one_net = run_fit(data_dir, mode, optimizer_params=momentum)
    several, net = run_fit(data_dir, mode, devices=[mx.cpu(number) for number in range(devices)], optimizer_params=momentum)
    assert [record.learning_rate for record in one.records] == [record.learning_rate for record in several.records]
    assert [record.scores.total for record in one.records] == [record.scores.total for record in several.records]
    assert several.records[-1].scores.total == 44, "the partial last batch is one of them"
    np.testing.assert_allclose([record.loss for record in several.records], [record.loss for record in one.records], rtol=1e-4)
    assert several.epochs[-1].test
    assert one.epochs[-1].test
    assert several.epochs[-1].test.loss == pytest.approx(one.epochs[-1].test.loss, rel=1e-4)
    for ours, theirs in zip(parameters_in_order(net), parameters_in_order(one_net), strict=True):
        on_devices = [values.asnumpy() for values in ours.list_data()]
        assert len(on_devices) == devices
        for values in on_devices:
            np.testing.assert_array_equal(values, on_devices[0])
        np.testing.assert_allclose(on_devices[0], theirs.data().asnumpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_a_loss_that_is_not_finite_stops_the_run(mode: str, data_dir: Path) -> None:
    net = seeded_net()
    loaders = create_loaders(small_config(), data_dir)
    recorder = Recorder()
    trainer = create_trainer(net.collect_params(), Poly(max_update=60, base_lr=1e6), mode)
    with pytest.raises(RunError) as caught:
        fit(net, *loaders, trainer, 2, callbacks=[recorder])
    first = next(record for record in recorder.records if not math.isfinite(record.loss))
    where = (f"iteration {first.iteration} ", "epoch 1,", f"learning rate {first.learning_rate})")
    assert_names(str(caught.value), "the loss ", "nan", *where, "lower rates", "warm-up")


def test_the_three_generators_are_seeded() -> None:
    import random

    def draws() -> tuple[float, float, float]:
        seed_everything(7)
        return random.random(), float(np.random.rand()), float(mx.nd.random.uniform(shape=(1,)).asscalar())

    first = draws()
    assert draws() == first
    seed_everything(8)
    assert random.random() != first[0]
    assert float(np.random.rand()) != first[1]
    assert float(mx.nd.random.uniform(shape=(1,)).asscalar()) != first[2]


SECOND_POOL = """
import os, sys
from dataclasses import replace
from mnist_trainer import runtime
runtime.prepare(threads=2)
from mnist_trainer import build_cnn, create_loaders, create_trainer, evaluate, fit, initialize, load_config
from mnist_trainer.config.schema import DataConfig
from mnist_trainer.schedules import Constant
mx = runtime.import_mxnet()

def threads():
    return len(os.listdir("/proc/self/task"))

config = replace(load_config(), data=DataConfig(train_images=640, test_images=1000))
train_loader, test_loader = create_loaders(config, sys.argv[1])
net = build_cnn()
initialize(net, [mx.cpu()])
fit(net, train_loader, test_loader, create_trainer(net.collect_params(), Constant(0.01)), 1)
before = threads()
evaluate(net, test_loader)
after_evaluation = threads()
mx.nd.array([[0.0] * 784] * 1000).wait_to_read()  # as in an evaluation of a thousand images in one batch
print(before, after_evaluation, threads())
"""


@pytest.mark.slow
@pytest.mark.process
def test_an_evaluation_starts_no_second_pool_of_threads(data_dir: Path) -> None:
    # In a separate process, because such a pool stays. With more OpenMP threads than processors every barrier sleeps in the
    # kernel, and an iteration takes twice as long (see `runtime`). The test counts the threads and measures no time.
    done = run_python("-c", SECOND_POOL, data_dir)
    assert done.returncode == 0, done.stderr
    before, after_evaluation, at_the_end = done.stdout.split()
    assert before == after_evaluation == at_the_end
