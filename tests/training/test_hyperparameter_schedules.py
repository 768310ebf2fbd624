"""Schedules of momentum and weight decay in both scheduler modes, compared with the update in numpy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot

from mnist_trainer.config.optimizers import OPTIMIZERS
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import AnySchedule, Constant, Linear, OneCycleLR, OneCycleMomentum, PiecewiseLinear
from mnist_trainer.training.trainer import create_trainer

mx = import_mxnet()

ITERATIONS = 30
RATE = OneCycleLR(max_lr=0.1, max_update=ITERATIONS)
MOMENTUM = OneCycleMomentum(max_update=ITERATIONS)
THROUGH_ZERO = PiecewiseLinear(knots=[1, 10, 14, 30], values=[0.9, 0, 0, 0.9])
DECAY = Linear(max_update=ITERATIONS, base_lr=0.1)
MODES = ("optimizer", "manual")


def gradient_of(iteration: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.RandomState(iteration).randn(3).astype(np.float32)


def train(
    mode: str, schedules: Mapping[str, AnySchedule], name: str = "sgd", devices: int = 1
) -> tuple[list[list[float]], list[dict[str, float]]]:
    """Return the weights after each iteration, and the hyperparameters that the trainer reports."""
    where = [mx.cpu(number) for number in range(devices)]
    weight = mx.gluon.Parameter("weight", shape=(3,))
    weight.initialize(mx.init.One(), ctx=where)
    trainer = create_trainer([weight], RATE, mode, name, hyperparameter_schedules=schedules)
    weights, used = [], []
    for iteration in range(1, ITERATIONS + 1):
        for device in where:
            with mx.autograd.record():
                loss = (weight.data(device) * mx.nd.array(gradient_of(iteration) / devices, ctx=device)).sum()
            loss.backward()
        trainer.step(1)
        assert trainer.iteration == iteration
        weights.append(weight.data(where[0]).asnumpy().tolist())
        used.append(trainer.hyperparameters)
    return weights, used


def by_the_formula(momentum: AnySchedule, decay: AnySchedule) -> list[list[float]]:
    """Return the weights of stochastic gradient descent as in MXNet's documentation, in double precision."""
    weight, state = np.ones(3), np.zeros(3)
    weights = []
    for iteration in range(1, ITERATIONS + 1):
        gradient = gradient_of(iteration) + decay(iteration) * weight
        state = momentum(iteration) * state - RATE(iteration) * gradient
        weight = weight + state
        weights.append(weight.tolist())
    return weights


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("momentum", [MOMENTUM, THROUGH_ZERO, Constant(0.9)], ids=["one cycle", "through zero", "constant"])
def test_the_update_is_that_of_the_formula(mode: str, momentum: AnySchedule) -> None:
    weights, used = train(mode, {"momentum": momentum, "wd": DECAY})
    assert np.allclose(weights, by_the_formula(momentum, DECAY), rtol=0, atol=2e-6)
    assert [hyperparameters["wd"] for hyperparameters in used] == DECAY.rates(1, ITERATIONS)
    assert [hyperparameters["momentum"] for hyperparameters in used] == pytest.approx(momentum.rates(1, ITERATIONS), abs=1e-37)


@pytest.mark.parametrize("name", [name for name, arguments in OPTIMIZERS.items() if "momentum" in arguments])
def test_both_modes_give_the_same_bits(name: str) -> None:
    schedules = {"momentum": MOMENTUM, "wd": DECAY}
    assert train("optimizer", schedules, name) == train("manual", schedules, name)
    assert train("manual", schedules, name) != train("manual", {"momentum": Constant(0.5), "wd": DECAY}, name)
    assert train("manual", schedules, name)[0] != train("manual", {"momentum": MOMENTUM}, name)[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_accepts_a_schedule_of_weight_decay(name: str) -> None:
    assert train("optimizer", {"wd": DECAY}, name) == train("manual", {"wd": DECAY}, name)
    assert train("manual", {"wd": DECAY}, name)[0] != train("manual", {"wd": Constant(0.1)}, name)[0]


@pytest.mark.parametrize("mode", MODES)
def test_two_devices_see_the_same_momentum(mode: str) -> None:
    schedules = {"momentum": MOMENTUM, "wd": DECAY}
    two, one = train(mode, schedules, devices=2), train(mode, schedules)
    assert np.allclose(two[0], one[0], rtol=0, atol=2e-6)
    assert two[1] == one[1]


@pytest.mark.parametrize(
    ("name", "arguments", "schedules", "words"),
    [
        pytest.param(
            "sgd",
            {"momentum": 0.5},
            {"momentum": MOMENTUM},
            ("optimizer_params", "hyperparameter_schedules", "momentum"),
            id="twice",
        ),
        pytest.param("adam", {}, {"momentum": MOMENTUM}, ("adam", "momentum"), id="no momentum"),
        pytest.param("sgd", {}, {"beta1": MOMENTUM}, ("hyperparameter_schedules", "beta1", "momentum", "wd"), id="another one"),
        pytest.param(mx.optimizer.SGD(), {}, {"wd": DECAY}, ("hyperparameter_schedules", "instance"), id="instance"),
    ],
)
def test_contradictions_are_refused(
    name: Any, arguments: Any, schedules: Any, words: tuple[str, ...], snapshot: Snapshot
) -> None:
    weight = mx.gluon.Parameter("weight", shape=(3,))
    weight.initialize(mx.init.One())
    with pytest.raises(ValueError, match="schedule") as caught:
        create_trainer([weight], RATE, "optimizer", name, arguments, hyperparameter_schedules=schedules)
    assert_names(str(caught.value), *words)
    snapshot(str(caught.value))


@pytest.mark.parametrize("mode", MODES)
def test_a_momentum_of_zero_is_reported_as_zero(mode: str) -> None:
    _, used = train(mode, {"momentum": THROUGH_ZERO})
    assert [hyperparameters["momentum"] for hyperparameters in used] == THROUGH_ZERO.rates(1, ITERATIONS)
    assert used[11]["momentum"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_the_trainers_own_states_can_be_saved(mode: str, tmp_path: Path) -> None:
    # MXNet pickles the optimizer with its schedules. This program never does, but users of a Gluon Trainer may.
    weight = mx.gluon.Parameter("weight", shape=(3,))
    weight.initialize(mx.init.One())
    trainer = create_trainer([weight], RATE, mode, "sgd", hyperparameter_schedules={"momentum": MOMENTUM, "wd": DECAY})
    with mx.autograd.record():
        loss = weight.data().sum()
    loss.backward()
    trainer.step(1)
    trainer.save_states(str(tmp_path / "states"))
    assert (tmp_path / "states").stat().st_size > 0


def test_an_unknown_optimizer_is_a_value_error() -> None:
    weight = mx.gluon.Parameter("weight", shape=(3,))
    weight.initialize(mx.init.One())
    with pytest.raises(ValueError, match="Cannot find optimizer sdg"):
        create_trainer([weight], RATE, "optimizer", "sdg", hyperparameter_schedules={"wd": DECAY})
