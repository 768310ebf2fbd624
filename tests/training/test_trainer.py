"""Both scheduler modes apply exactly the schedule's rates, in every optimizer of the table."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot

from mnist_trainer.config.optimizers import COMMON_ARGUMENTS, OPTIMIZERS, optimizer_problems
from mnist_trainer.model.network import build_cnn, build_loss, initialize, parameters_in_order, parameters_sha256
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Constant, Cosine, CosineAnnealing, Factor, MultiFactor, Poly
from mnist_trainer.training.loop import seed_everything
from mnist_trainer.training.trainer import create_trainer

mx = import_mxnet()

ITERATIONS = 12
STEEP = Factor(step=2, factor=0.5, base_lr=0.01)
MODES = ("optimizer", "manual")


def small_training(make_trainer: Callable[[Any], Any], iterations: int = ITERATIONS) -> tuple[list[float], str]:
    """Train on noise; return the rates read back after each update, and the hash of the parameters."""
    seed_everything(1)
    net = build_cnn()
    initialize(net, [mx.cpu()])
    trainer = make_trainer(net.collect_params())
    loss_function = build_loss()
    random = np.random.RandomState(1)
    rates = []
    for _ in range(iterations):
        images = mx.nd.array(random.rand(8, 1, 28, 28))
        labels = mx.nd.array(random.randint(0, 10, 8))
        with mx.autograd.record():
            losses = loss_function(net(images), labels)
        losses.backward()
        trainer.step(8)
        rates.append(trainer.learning_rate)
    assert all(np.isfinite(parameter.data().asnumpy()).all() for parameter in parameters_in_order(net))
    return rates, parameters_sha256(net)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rates_are_the_schedules_and_both_modes_give_the_same_parameters(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = {
        "optimizer": small_training(lambda params: create_trainer(params, STEEP, "optimizer", name)),
        "manual": small_training(lambda params: create_trainer(params, STEEP, "manual", name)),
    }
    expected = [STEEP(iteration) for iteration in range(1, ITERATIONS + 1)]
    assert results["optimizer"][0] == expected
    assert results["manual"] == results["optimizer"]
    # The rate is not only reported but used: another one gives other parameters.
    other = small_training(lambda params: create_trainer(params, Constant(0.01), "optimizer", name))
    assert other[1] != results["optimizer"][1]
    assert capsys.readouterr().out == ""  # MXNet prints when it overrides a rate


@pytest.mark.parametrize("mode", MODES)
def test_an_instance_and_a_name_with_parameters_are_the_same(mode: str) -> None:
    by_name = small_training(lambda params: create_trainer(params, STEEP, mode, "sgd", {"momentum": 0.9, "wd": 0.01}))
    instance = small_training(lambda params: create_trainer(params, STEEP, mode, mx.optimizer.SGD(momentum=0.9, wd=0.01)))
    assert by_name == instance
    plain = small_training(lambda params: create_trainer(params, STEEP, mode))
    assert plain[1] != by_name[1]  # momentum and weight decay are read


@pytest.mark.parametrize("learning_rate", [None, 0.01])
def test_a_schedule_works_in_a_plain_gluon_trainer_like_mxnets_own(learning_rate: float | None) -> None:
    def make(schedule: Any) -> Callable[[Any], Any]:
        optimizer = mx.optimizer.SGD(learning_rate=learning_rate, lr_scheduler=schedule)
        return lambda params: mx.gluon.Trainer(params, optimizer)

    ours = small_training(make(STEEP))
    theirs = small_training(make(mx.lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=0.01)))
    assert ours == theirs


@pytest.mark.parametrize("name", [*OPTIMIZERS, "adamax"])
@pytest.mark.parametrize(
    "schedule",
    [
        MultiFactor(step=[2, 4], factor=0.1, base_lr=0.3),
        Poly(max_update=9, base_lr=0.3),
        Cosine(max_update=9, base_lr=0.3, warmup_steps=3),
        CosineAnnealing(min_lr=0.01, max_lr=0.3, cycle_length=9),
        Constant(0.3),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_no_optimizer_overrides_a_schedule_that_it_is_given_directly(name: str, schedule: Any) -> None:
    optimizer = mx.optimizer.create(name, lr_scheduler=schedule)
    weight, gradient = mx.nd.ones((2, 2)), mx.nd.ones((2, 2))
    state = optimizer.create_state(0, weight)
    for iteration in range(1, 12):
        if name == "lars":  # accepts only lists
            optimizer.update([0], [weight], [gradient], [state])
        else:
            optimizer.update(0, weight, gradient, state)
        assert optimizer.learning_rate == schedule(iteration)


def test_a_contradicting_learning_rate_is_refused() -> None:
    with pytest.raises(AttributeError) as caught:
        mx.optimizer.SGD(learning_rate=0.5, lr_scheduler=STEEP)
    assert_names(str(caught.value), repr(STEEP), "base_lr=0.5", "learning_rate=None")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"scheduler_mode": "both"}, ("scheduler_mode", "'both'", "optimizer", "manual"), id="mode"),
        pytest.param(
            {"optimizer_params": {"learning_rate": 1}}, ("optimizer_params", "learning_rate", "schedule"), id="learning rate"
        ),
        pytest.param(
            {"optimizer_params": {"lr_scheduler": STEEP}}, ("optimizer_params", "lr_scheduler", "schedule"), id="scheduler"
        ),
        pytest.param(
            {"optimizer": mx.optimizer.SGD(), "optimizer_params": {"wd": 1}}, ("optimizer_params", "instance"), id="instance"
        ),
        pytest.param(
            {"optimizer": mx.optimizer.SGD(learning_rate=0.5)},
            ("the optimizer", "learning_rate", "0.5", "schedule"),
            id="rate of an instance",
        ),
        pytest.param(
            {"optimizer": mx.optimizer.SGD(lr_scheduler=Constant(0.1))},
            ("the optimizer", "lr_scheduler", "without"),
            id="other schedule",
        ),
        pytest.param(
            {"optimizer": mx.optimizer.SGD(lr_scheduler=STEEP), "scheduler_mode": "manual"},
            ("the optimizer", "lr_scheduler", "without"),
            id="manual over a schedule",
        ),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], words: tuple[str, ...], snapshot: Snapshot) -> None:
    net = build_cnn()
    initialize(net, [mx.cpu()])
    with pytest.raises(ValueError, match="optimizer") as caught:
        create_trainer(net.collect_params(), STEEP, **arguments)
    assert_names(str(caught.value), *words)
    snapshot(str(caught.value))


def test_a_number_is_not_a_schedule() -> None:
    with pytest.raises(TypeError, match=r"schedule is 0\.1\b.*Constant\(0\.1\)"):
        create_trainer(build_cnn().collect_params(), 0.1)  # type: ignore[arg-type]


def test_one_optimizer_serves_one_trainer() -> None:
    optimizer = mx.optimizer.SGD()
    small_training(lambda params: create_trainer(params, STEEP, "manual", optimizer))
    with pytest.raises(ValueError, match=r"optimizer .*another Trainer"):
        small_training(lambda params: create_trainer(params, STEEP, "manual", optimizer))


def test_the_trainer_is_gluons() -> None:
    net = build_cnn()
    initialize(net, [mx.cpu()])
    assert isinstance(create_trainer(net.collect_params(), STEEP), mx.gluon.Trainer)


ARGUMENT_VALUES = {"bias_correction": False, "centered": True, "lazy_update": False, "momentum_correction": False}


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, argument) for name, own in OPTIMIZERS.items() for argument in (*own, *COMMON_ARGUMENTS)],
)
def test_every_argument_of_the_table_can_be_trained_with(name: str, argument: str) -> None:
    value = ARGUMENT_VALUES.get(argument, 0.5)
    assert optimizer_problems({"name": name, argument: value}) == []
    rates, _ = small_training(lambda params: create_trainer(params, STEEP, "optimizer", name, {argument: value}), 3)
    assert rates == [STEEP(iteration) for iteration in (1, 2, 3)]
