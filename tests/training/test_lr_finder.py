"""The sweep compared with MXNet's own loop, its suggestions for known losses, and the state that it restores."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot

from mnist_trainer.config.loading import load_config
from mnist_trainer.config.schema import DataConfig, RunConfig, SweepConfig
from mnist_trainer.data.loaders import create_loaders
from mnist_trainer.model.network import build_cnn, initialize
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Constant
from mnist_trainer.training.loop import seed_everything
from mnist_trainer.training.lr_finder import LrSweep, SweepRow, find_learning_rate, sweep_curve
from mnist_trainer.training.trainer import create_trainer

mx = import_mxnet()

ONE, TWO = [mx.cpu(0)], [mx.cpu(0), mx.cpu(1)]


def loader_of(data_dir: Path, images: int = 1900, kind: str = "array", batch_size: int = 64) -> Any:
    """Return a train loader before its first epoch."""
    loader = _create_loader(data_dir, images, kind, batch_size)
    loader.epoch = 1
    return loader


@cache
def _create_loader(data_dir: Path, images: int, kind: str, batch_size: int) -> Any:
    config: RunConfig = load_config()
    config = replace(
        config,
        training=replace(config.training, batch_size=batch_size),
        data=DataConfig(loader=kind, train_images=images, test_images=1),
    )
    return create_loaders(config, data_dir)[0]


def seeded_net(devices: Sequence[Any] = ONE) -> Any:
    seed_everything(1)
    net = build_cnn()
    initialize(net, devices)
    return net


@pytest.fixture
def loader(data_dir: Path) -> Any:
    return loader_of(data_dir)


# --- the sweep


def batches_of_epochs(loader: Any) -> Iterator[tuple[Any, Any]]:
    for loader.epoch in (1, 2, 3):
        yield from loader


def losses_by_hand(
    net: Any, loader: Any, optimizer: str, optimizer_params: dict[str, float], rates: list[float]
) -> list[float]:
    """Return the losses of the loop in MXNet's tutorial, with a Trainer, set_learning_rate and step."""
    loss_function = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = mx.gluon.Trainer(net.collect_params(), optimizer, {**optimizer_params, "learning_rate": 1.0})
    losses = []
    for (images, labels), learning_rate in zip(batches_of_epochs(loader), rates, strict=False):
        with mx.autograd.record():
            loss = loss_function(net(images), labels)
        loss.backward()
        trainer.set_learning_rate(learning_rate)
        trainer.step(images.shape[0])
        losses.append(loss.mean().asscalar())
    return losses


def test_the_figure_of_a_sweep_has_its_losses_and_its_suggestions(loader: Any) -> None:
    sweep = find_learning_rate(seeded_net(), loader, iterations=60)
    assert sweep.steepest
    (axes,) = sweep.plot().axes
    losses, smoothed, *marks = (np.asarray(line.get_data()).tolist() for line in axes.get_lines())
    rates = [row.learning_rate for row in sweep.rows]
    assert losses == [rates, [row.loss for row in sweep.rows]]
    assert smoothed == [rates, [row.smoothed_loss for row in sweep.rows]]
    assert [mark[0][0] for mark in marks] == [rate for rate in (sweep.steepest, sweep.tenth_of_minimum) if rate]


@pytest.mark.parametrize("kind", ["array", "gluon"])
@pytest.mark.parametrize(
    ("optimizer", "optimizer_params", "end_lr"),
    [
        pytest.param("sgd", {}, 0.3, id="SGD"),
        pytest.param("sgd", {"momentum": 0.9, "wd": 0.001}, 0.03, id="momentum"),
        pytest.param("adam", {}, 0.003, id="Adam"),
    ],
)
def test_a_sweep_is_mxnets_own_loop_with_rising_rates(
    optimizer: str, optimizer_params: dict[str, float], end_lr: float, kind: str, data_dir: Path
) -> None:
    # 600 images are 9 batches of 64 and one of 24: 25 iterations reach the third epoch.
    sweep = find_learning_rate(
        seeded_net(), loader_of(data_dir, 600, kind), optimizer, optimizer_params, start_lr=1e-4, end_lr=end_lr, iterations=25
    )
    assert [row.iteration for row in sweep.rows] == list(range(1, 26))
    rates = [row.learning_rate for row in sweep.rows]
    by_hand = losses_by_hand(seeded_net(), loader_of(data_dir, 600), optimizer, optimizer_params, rates)
    assert [row.loss for row in sweep.rows] == pytest.approx(by_hand, rel=1e-6)
    assert sweep.rows[-1].loss < 0.99 * sweep.rows[0].loss
    assert "end_lr" in sweep.stopped_because


@pytest.mark.parametrize(("start_lr", "end_lr"), [(1e-6, 10.0), (1e-7, 0.3), (0.1, 0.2)])
@pytest.mark.parametrize("iterations", [20, 33, 400])
def test_the_rates_rise_by_the_same_factor_from_the_first_to_the_last(start_lr: float, end_lr: float, iterations: int) -> None:
    curve = sweep_curve(SweepConfig(start_lr, end_lr, iterations))
    assert (curve(1), curve(iterations)) == (start_lr, end_lr)
    by_formula = [
        start_lr * (end_lr / start_lr) ** ((iteration - 1) / (iterations - 1)) for iteration in range(1, iterations + 1)
    ]
    assert [curve(iteration) for iteration in range(1, iterations + 1)] == pytest.approx(by_formula, rel=1e-12)


def test_a_sweep_has_these_rates(loader: Any) -> None:
    sweep = find_learning_rate(seeded_net(), loader, start_lr=1e-5, end_lr=1e-2, iterations=21)
    assert [row.learning_rate for row in sweep.rows] == [
        sweep_curve(SweepConfig(1e-5, 1e-2, 21))(iteration) for iteration in range(1, 22)
    ]


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9, 0.98])
def test_the_smoothed_loss_is_a_weighted_mean_of_the_losses(smoothing: float, loader: Any) -> None:
    sweep = find_learning_rate(seeded_net(), loader, start_lr=1e-3, end_lr=0.3, iterations=20, smoothing=smoothing)
    losses = [row.loss for row in sweep.rows]
    for row in sweep.rows:
        weights = [smoothing**age for age in reversed(range(row.iteration))]
        mean = math.fsum(weight * loss for weight, loss in zip(weights, losses, strict=False)) / math.fsum(weights)
        assert row.smoothed_loss == pytest.approx(mean, rel=1e-12)


def test_two_devices_share_each_batch(data_dir: Path) -> None:
    sweeps = [
        find_learning_rate(seeded_net(devices), loader_of(data_dir, 200, batch_size=33), end_lr=0.01, iterations=20)
        for devices in (ONE, TWO)
    ]
    one, two = ([row.loss for row in sweep.rows] for sweep in sweeps)
    assert two == pytest.approx(one, rel=1e-5)
    assert [row.learning_rate for row in sweeps[0].rows] == [row.learning_rate for row in sweeps[1].rows]


def test_a_loader_of_one_batch_is_iterated_again(data_dir: Path) -> None:
    sweep = find_learning_rate(seeded_net(), loader_of(data_dir, 16), start_lr=1e-3, end_lr=0.05, iterations=40)
    assert len(sweep.rows) == 40


def test_any_iterable_of_batches_works(loader: Any) -> None:
    batches = [next(iter(loader)), next(iter(loader))]
    assert len(find_learning_rate(seeded_net(), batches, iterations=20, end_lr=1e-3).rows) == 20


def test_each_row_is_reported(loader: Any) -> None:
    reported: list[SweepRow] = []
    sweep = find_learning_rate(seeded_net(), loader, end_lr=0.01, iterations=20, on_iteration=reported.append)
    assert tuple(reported) == sweep.rows


# --- the end of the sweep


def test_it_stops_when_the_loss_is_not_finite(loader: Any) -> None:
    sweep = find_learning_rate(
        seeded_net(), loader, "sgd", {"wd": 0.1}, start_lr=1.0, end_lr=1e6, iterations=40, diverged_at=1e300
    )
    *before, last = sweep.rows
    assert not math.isfinite(last.loss)
    assert not math.isfinite(last.smoothed_loss)
    assert all(math.isfinite(row.smoothed_loss) for row in before)
    assert 3 < len(sweep.rows) < 40
    assert sweep.stopped_because.endswith(f" {last.loss}")


@pytest.mark.parametrize("diverged_at", [1.0001, 1.5, 4.0])
def test_it_stops_when_the_smoothed_loss_is_too_far_above_its_best(diverged_at: float, loader: Any) -> None:
    sweep = find_learning_rate(
        seeded_net(), loader, "sgd", {"momentum": 0.9}, start_lr=0.01, end_lr=10.0, iterations=120, diverged_at=diverged_at
    )
    smoothed = [row.smoothed_loss for row in sweep.rows]
    too_high = [end for end in range(10, len(smoothed) + 1) if smoothed[end - 1] > diverged_at * min(smoothed[9:end])]
    assert too_high == [len(smoothed)]
    assert len(smoothed) < 120
    assert f" {diverged_at:g} times" in sweep.stopped_because


def test_it_ignores_the_first_losses(loader: Any) -> None:
    images, labels = next(iter(loader))
    net = seeded_net()
    trainer = create_trainer(net.collect_params(), Constant(0.1))
    loss_function = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    for _ in range(150):  # until the network has memorized this batch
        with mx.autograd.record():
            loss = loss_function(net(images), labels)
        loss.backward()
        trainer.step(len(images))
    known, unknown = (images, labels), list(loader)[1]
    sweep = find_learning_rate(net, [known, *[unknown] * 30], end_lr=1e-5, iterations=30)
    assert sweep.rows[1].loss > 10 * sweep.rows[0].loss
    assert "end_lr" in sweep.stopped_because


# --- suggestions


def rows_with(
    smoothed: Callable[[int], float], count: int = 200, loss: Callable[[int], float] | None = None
) -> tuple[SweepRow, ...]:
    rates = sweep_curve(SweepConfig(1e-6, 10.0, count))
    return tuple(
        SweepRow(iteration, rates(iteration), (loss or smoothed)(iteration), smoothed(iteration))
        for iteration in range(1, count + 1)
    )


def falling_around(middle: int, width: float = 6.0) -> Callable[[int], float]:
    """Return a curve from 2.3 down to 0.3 and slightly below, which falls fastest at `middle`."""
    return lambda iteration: 2.3 - 2 * NormalDist(middle, width).cdf(iteration) - 0.0005 * iteration


def valley(middle: int, lowest: int, rise: float = 0.02) -> Callable[[int], float]:
    fall = falling_around(middle)
    return lambda iteration: fall(min(iteration, lowest)) + rise * max(0, iteration - lowest)


@pytest.mark.parametrize(("middle", "lowest"), [(120, 150), (60, 90), (40, 190), (150, 152)])
def test_the_suggestion_is_where_the_loss_falls_fastest(middle: int, lowest: int) -> None:
    rows = rows_with(valley(middle, lowest))
    sweep = LrSweep(rows, "the rates reached end_lr")
    assert sweep.tenth_of_minimum == rows[lowest - 1].learning_rate / 10
    # Near the minimum the line through the neighbours must not reach beyond it.
    assert sweep.steepest == rows[min(middle, lowest - 5) - 1].learning_rate
    assert sweep.suggestion == sweep.steepest
    assert "_lr" not in sweep.why, "there is nothing to try instead"


def test_a_fall_is_as_fast_as_the_line_through_its_neighbours() -> None:
    slow, sudden = valley(80, 150), 0.15  # at iteration 140 a jump down, faster than the fall for one iteration alone
    sweep = LrSweep(
        rows_with(lambda iteration: slow(iteration) - (sudden if iteration == 140 else 0)), "the rates reached end_lr"
    )
    assert sweep.steepest == sweep.rows[79].learning_rate


def test_a_second_fall_after_the_minimum_does_not_count() -> None:
    smoothed = valley(80, 110)
    sweep = LrSweep(
        rows_with(lambda iteration: smoothed(iteration) if iteration < 150 else 9.0 - 0.16 * (iteration - 149)),
        "the loss became nan",
    )
    assert sweep.steepest == sweep.rows[79].learning_rate


def test_losses_that_are_not_finite_are_skipped() -> None:
    smoothed = valley(80, 110)
    sweep = LrSweep(
        rows_with(lambda iteration: math.nan if iteration == 140 else smoothed(iteration), 140), "the loss became nan"
    )
    assert (sweep.steepest, sweep.tenth_of_minimum) == (sweep.rows[79].learning_rate, sweep.rows[109].learning_rate / 10)


def test_a_minimum_at_the_end_does_not_count(snapshot: Snapshot) -> None:
    sweep = LrSweep(rows_with(falling_around(80)), "the rates reached end_lr")
    assert sweep.suggestion == sweep.steepest == sweep.rows[79].learning_rate
    assert sweep.tenth_of_minimum is None
    assert_names(sweep.why, "", "no tenth", "the last rate, 10;", "raise end_lr")
    snapshot(sweep.why)


def test_a_fall_that_grows_until_the_end_suggests_nothing(snapshot: Snapshot) -> None:
    sweep = LrSweep(rows_with(falling_around(250, 40.0)), "the rates reached end_lr")
    assert (sweep.steepest, sweep.tenth_of_minimum, sweep.suggestion) == (None, None, None)
    assert sweep.why.count("raise end_lr") == 2
    snapshot(sweep.why)


def test_a_fall_in_the_first_iterations_leaves_the_minimum(snapshot: Snapshot) -> None:
    fall = [2.3, 2.2, 2.1, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.9, 1.8, 1.5, 0.9]
    smoothed = [*fall, *(0.9 + 0.01 * step for step in range(1, 30))]
    sweep = LrSweep(rows_with(lambda iteration: smoothed[iteration - 1], len(smoothed)), "the rates reached end_lr")
    assert sweep.steepest is None
    assert sweep.suggestion == sweep.tenth_of_minimum == sweep.rows[12].learning_rate / 10
    assert_names(sweep.why, "a tenth", "steepest", "iteration 13;", "lower start_lr")
    snapshot(sweep.why)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("level", "noise"), [(2.3, 0.04), (0.1, 0.07)])
def test_noise_is_not_a_fall(level: float, noise: float, seed: int) -> None:
    draw = random.Random(seed)
    losses = [max(level + draw.gauss(0, noise), 0.001) for _ in range(400)]
    weights = [0.9**age for age in range(400)]

    def smoothed(iteration: int) -> float:
        past = list(reversed(losses[:iteration]))
        return sum(map(float.__mul__, weights, past)) / sum(weights[:iteration])

    sweep = LrSweep(rows_with(smoothed, 400, lambda iteration: losses[iteration - 1]), "the rates reached end_lr")
    assert sweep.suggestion is None
    assert "first 10 losses" in sweep.why


@pytest.mark.parametrize("smoothed", [lambda iteration: 2.3, lambda iteration: 2.3 + iteration], ids=["flat", "rising"])
def test_without_a_fall_there_is_no_suggestion(smoothed: Callable[[int], float], snapshot: Snapshot) -> None:
    sweep = LrSweep(rows_with(smoothed), "the rates reached end_lr")
    assert (sweep.steepest, sweep.tenth_of_minimum, sweep.suggestion) == (None, None, None)
    assert "first 10 losses" in sweep.why
    snapshot(sweep.why)


def test_after_a_few_iterations_there_is_no_suggestion(snapshot: Snapshot) -> None:
    sweep = LrSweep(rows_with(lambda iteration: 2.3 if iteration < 10 else math.nan, 20)[:10], "the loss became nan")
    assert sweep.suggestion is None
    assert_names(sweep.why, "", "10 iterations", "lower start_lr")
    snapshot(sweep.why)


def test_on_mnist_it_suggests_rates_that_sgd_trains_with(data_dir: Path) -> None:
    loader = loader_of(data_dir, 6400, batch_size=32)
    sweep = find_learning_rate(seeded_net(), loader, start_lr=1e-3, end_lr=3.0, iterations=240)
    assert sweep.steepest is not None
    assert sweep.tenth_of_minimum is not None
    assert 0.03 < sweep.steepest < 0.3
    assert 0.005 < sweep.tenth_of_minimum < 0.1


# --- restored state


class UnluckyError(Exception):
    """An error in the middle of a sweep."""


def stop_at(iteration: int, error: BaseException) -> Callable[[SweepRow], None]:
    def stop(row: SweepRow) -> None:
        if row.iteration == iteration:
            raise error

    return stop


def breaking(loader: Any) -> Iterator[Any]:
    for number, batch in enumerate(loader):
        random.random(), np.random.random()  # as transforms do
        if number == 3:
            raise UnluckyError
        yield batch


class BreakingLoader:
    """Yields the batches of another loader and draws random numbers for each. The fourth batch fails."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return breaking(self.loader)

    @property
    def epoch(self) -> int:
        return int(self.loader.epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.loader.epoch = epoch


def no_search(net: Any, loader: Any) -> None:
    pass


def search(net: Any, loader: Any) -> None:
    assert len(find_learning_rate(net, loader, "sgd", {"momentum": 0.9}, start_lr=1e-3, end_lr=0.3, iterations=30).rows) == 30


def search_that_diverges(net: Any, loader: Any) -> None:
    sweep = find_learning_rate(net, loader, "sgd", {"wd": 0.1}, start_lr=1, end_lr=1e6, iterations=40, diverged_at=1e300)
    assert sweep.stopped_because.endswith(" nan")


def search_that_is_interrupted(net: Any, loader: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        find_learning_rate(net, loader, end_lr=0.1, iterations=40, on_iteration=stop_at(12, KeyboardInterrupt()))


def search_whose_loader_breaks(net: Any, loader: Any) -> None:
    with pytest.raises(UnluckyError):
        find_learning_rate(net, BreakingLoader(loader), end_lr=0.1, iterations=40)


def search_whose_network_breaks(net: Any, loader: Any) -> None:
    batch = next(iter(loader))
    loader.epoch -= 1
    with pytest.raises(mx.MXNetError):
        find_learning_rate(net, [batch, batch, (batch[0][:, :, :3, :3], batch[1])], end_lr=0.1, iterations=40)


def all_bytes(net: Any) -> list[bytes]:
    return [
        array.asnumpy().tobytes()
        for parameter in net.collect_params().values()
        for array in (*parameter.list_data(), *(parameter.list_grad() if parameter.grad_req != "null" else ()))
    ]


def training_around(look_for_rate: Callable[[Any, Any], None], data_dir: Path, devices: Sequence[Any]) -> dict[str, Any]:
    """Train with a search between a backward pass and its update; return the state at the end."""
    loader = loader_of(data_dir, 640, batch_size=32)
    net = seeded_net(devices)
    trainer = create_trainer(net.collect_params(), Constant(0.05), "optimizer", "sgd", {"momentum": 0.9})
    loss_function = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    batches = list(loader)[:8]

    def backward(batch: tuple[Any, Any]) -> None:
        parts = [mx.gluon.utils.split_and_load(array, list(devices)) for array in batch]
        with mx.autograd.record():
            losses = [loss_function(net(images), labels) for images, labels in zip(*parts, strict=True)]
        mx.autograd.backward(losses)

    for batch in batches[:4]:
        backward(batch)
        trainer.step(32)
    backward(batches[4])

    before = all_bytes(net)
    look_for_rate(net, loader)
    assert all_bytes(net) == before
    assert all(parameter._trainer is trainer for parameter in net.collect_params().values())
    assert (trainer.iteration, trainer.optimizer.num_update, trainer.learning_rate) == (4, 4, 0.05)

    trainer.step(32)  # with the gradients from before the search; they would be stale if the search had used them
    for batch in batches[5:]:
        backward(batch)
        trainer.step(32)
    return {
        "epoch": loader.epoch,
        "next batch": next(iter(loader))[0].asnumpy().tobytes(),
        "numpy": np.random.random(5).tolist(),
        "python": [random.random() for _ in range(5)],
        "mxnet": mx.nd.random.uniform(shape=5).asnumpy().tolist(),
        "parameters": all_bytes(net),
    }


@pytest.fixture(scope="module")
def undisturbed(data_dir: Path) -> dict[int, dict[str, Any]]:
    return {len(devices): training_around(no_search, data_dir, devices) for devices in (ONE, TWO)}


@pytest.mark.parametrize("devices", [ONE, TWO], ids=["one device", "two devices"])
@pytest.mark.parametrize(
    "look_for_rate",
    [
        search,
        search_that_diverges,
        search_that_is_interrupted,
        search_whose_loader_breaks,
        search_whose_network_breaks,
    ],
)
def test_a_training_continues_as_without_a_search(
    look_for_rate: Callable[[Any, Any], None],
    devices: list[Any],
    undisturbed: dict[int, dict[str, Any]],
    data_dir: Path,
) -> None:
    assert training_around(look_for_rate, data_dir, devices) == undisturbed[len(devices)]


def test_changed_generators_and_loaders_are_detected(undisturbed: dict[int, dict[str, Any]], data_dir: Path) -> None:
    def draw(net: Any, loader: Any) -> None:
        np.random.random()
        random.random()
        mx.nd.random.uniform()
        next(iter(loader))

    after = training_around(draw, data_dir, ONE)
    assert [key for key in after if after[key] != undisturbed[1][key]] == ["epoch", "next batch", "numpy", "python", "mxnet"]


def test_a_shuffling_loader_of_gluon_draws_as_before(loader: Any) -> None:
    images, labels = next(iter(loader))
    shuffling = mx.gluon.data.DataLoader(mx.gluon.data.ArrayDataset(images, labels), 16, shuffle=True)
    np.random.seed(5)
    untouched = next(iter(shuffling))[1].asnumpy().tolist()
    net = seeded_net()
    np.random.seed(5)
    find_learning_rate(net, shuffling, end_lr=0.01, iterations=20)
    assert next(iter(shuffling))[1].asnumpy().tolist() == untouched
    assert not hasattr(shuffling, "epoch")


def test_running_means_are_restored_too(loader: Any) -> None:
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Flatten(), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(10))
    initialize(net)
    before = all_bytes(net)
    rows = find_learning_rate(net, loader, start_lr=0.01, end_lr=0.2, iterations=20).rows
    assert rows[-1].loss < rows[0].loss
    assert all_bytes(net) == before


def test_two_searches_see_the_same(loader: Any) -> None:
    net = seeded_net()
    first, second = (find_learning_rate(net, loader, start_lr=1e-3, end_lr=0.1, iterations=25) for _ in range(2))
    assert first == second


# --- invalid arguments


@pytest.fixture(scope="module")
def net() -> Any:
    return seeded_net()


WRONG_ARGUMENTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"start_lr": 0.0}, ("start_lr = 0.0: ", "> 0")),
    ({"start_lr": -1.0}, ("start_lr = -1.0: ", "> 0")),
    ({"start_lr": math.nan}, ("start_lr = nan: ", "> 0")),
    ({"start_lr": 10.0}, ("end_lr = 10.0: ", "above start_lr", " 10.0")),
    ({"end_lr": 1e-7}, ("end_lr = 1e-07: ", "above start_lr", " 1e-06")),
    ({"end_lr": math.inf}, ("end_lr = inf: ", "> 0")),
    ({"end_lr": math.nan}, ("end_lr = nan: ", "> 0")),
    ({"end_lr": 1e39}, ("end_lr = 1e+39: ", "float32")),
    ({"iterations": 19}, ("iterations = 19: ", "from 20 ")),
    ({"iterations": 0}, ("iterations = 0: ", "from 20 ")),
    ({"diverged_at": 1.0}, ("diverged_at = 1.0: ", "> 1")),
    ({"diverged_at": 0.5}, ("diverged_at = 0.5: ", "> 1")),
    ({"diverged_at": math.nan}, ("diverged_at = nan: ", "> 1")),
    ({"smoothing": 1.0}, ("smoothing = 1.0: ", "< 1")),
    ({"smoothing": -0.1}, ("smoothing = -0.1: ", "≥ 0")),
    ({"smoothing": math.nan}, ("smoothing = nan: ", "≥ 0")),
    ({"optimizer_params": {"learning_rate": 1}}, ("optimizer_params ", "learning_rate")),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG_ARGUMENTS, ids=[str(arguments) for arguments, _ in WRONG_ARGUMENTS])
def test_a_wrong_argument_is_named_with_its_value(
    arguments: dict[str, Any], words: tuple[str, ...], net: Any, loader: Any, snapshot: Snapshot
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its message is asserted below
        find_learning_rate(net, loader, **arguments)
    assert_names(str(caught.value), *words)
    assert loader.epoch == 1
    snapshot(str(caught.value))


@pytest.mark.parametrize(("name", "value"), [("iterations", 100.5), ("start_lr", "0.1"), ("smoothing", None)])
def test_a_value_that_is_not_a_number_is_refused(name: str, value: Any, net: Any, loader: Any, snapshot: Snapshot) -> None:
    with pytest.raises(TypeError) as caught:
        find_learning_rate(net, loader, **{name: value})
    assert_names(str(caught.value), name, repr(value), "number")
    snapshot(str(caught.value))


def test_an_instance_of_an_optimizer_is_refused(loader: Any) -> None:
    with pytest.raises(ValueError, match=r"^optimizer = <.*SGD.*>: .*\bname\b"):
        find_learning_rate(seeded_net(), loader, mx.optimizer.SGD())
