"""The curves as any MXNet user may use them: with other optimizers, with Module.fit and with a plain Trainer.

Each test derives the applied rate from a weight whose gradient is 1 in every iteration. Plain SGD lowers the weight by exactly
the rate. So does Adam, whose normalised step is 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from command_line import assert_names

from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import (
    AnySchedule,
    Cooldown,
    Cosine,
    Cyclical,
    InverseSqrt,
    Linear,
    MultiFactor,
    Noise,
    OneCycleLR,
    Plateau,
    Product,
    Sequential,
    Triangular,
    UserSchedule,
    WarmRestarts,
    Warmup,
)

mx = import_mxnet()

ITERATIONS = 20

SCHEDULES = [
    MultiFactor(step=[5, 10], factor=0.5, base_lr=0.4),
    Triangular(0.1, max_lr=0.5, cycle_length=20),
    Cyclical(Triangular(0.1, max_lr=0.5, cycle_length=6), cycle_length_decay=1.5),
    WarmRestarts(0.1, max_lr=0.5, cycle_length=7),
    OneCycleLR(max_lr=0.5, max_update=20),
    InverseSqrt(timescale=3, base_lr=0.3),
    Warmup(Cosine(max_update=15, base_lr=0.3), warmup_steps=5),
    Cooldown(
        Sequential([Linear(max_update=5, base_lr=0.1, final_lr=0.4), MultiFactor(step=[3], base_lr=0.4)], [5]),
        start=12,
        cooldown_steps=6,
    ),
    Noise(Product([Linear(max_update=25, base_lr=0.3), WarmRestarts(0.5, max_lr=1, cycle_length=8)]), seed=1),
    Plateau(Cosine(max_update=20, base_lr=0.3)),
]

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)


def applied_rates(weights: Sequence[float]) -> list[float]:
    return [float(rate) for rate in -np.diff(np.asarray(weights, np.float64))]


def expected_rates(schedule: AnySchedule) -> list[float]:
    return schedule.rates(1, ITERATIONS)


def weights_of_a_plain_trainer(optimizer: str, **arguments: Any) -> list[float]:
    """Train a weight with a plain Gluon Trainer; return its value before the first iteration and after each."""
    weight = mx.gluon.Parameter("weight", shape=(1,))
    weight.initialize(mx.init.Zero())
    trainer = mx.gluon.Trainer([weight], optimizer, arguments)
    weights = [0.0]
    for _ in range(ITERATIONS):
        with mx.autograd.record():
            loss = weight.data().sum()
        loss.backward()
        trainer.step(1)
        weights.append(weight.data().asscalar())
    return weights


@each_schedule
def test_a_plain_trainer_with_sgd(schedule: AnySchedule) -> None:
    weights = weights_of_a_plain_trainer("sgd", lr_scheduler=schedule)
    assert applied_rates(weights) == pytest.approx(expected_rates(schedule), abs=2e-6)


@each_schedule
def test_a_plain_trainer_with_adam_that_assigns_base_lr(schedule: AnySchedule) -> None:
    weights = weights_of_a_plain_trainer("adam", lr_scheduler=schedule)
    assert applied_rates(weights) == pytest.approx(expected_rates(schedule), rel=1e-4, abs=2e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(max_update=15, base_lr=0.3),
        Warmup(Cosine(max_update=15, base_lr=0.3), warmup_steps=5),
        Cooldown(Warmup(Linear(max_update=15, base_lr=0.3), 5), start=9, cooldown_steps=6),
        Sequential([Linear(max_update=5, base_lr=0.1, final_lr=0.3), Cosine(max_update=15, base_lr=0.3)], [5]),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_plain_trainer_with_the_rate_of_the_schedule(schedule: AnySchedule) -> None:
    weights = weights_of_a_plain_trainer("sgd", lr_scheduler=schedule, learning_rate=0.3)
    assert applied_rates(weights) == pytest.approx(expected_rates(schedule), abs=2e-6)


def test_a_rate_that_contradicts_the_schedule_is_refused_with_advice() -> None:
    for schedule in (Warmup(Cosine(max_update=15, base_lr=0.3), 5), Triangular(0.1, max_lr=0.5, cycle_length=20)):
        with pytest.raises(AttributeError) as caught:
            mx.optimizer.SGD(learning_rate=0.2, lr_scheduler=schedule)
        assert_names(str(caught.value), repr(schedule), "0.2", "learning_rate=None")
        assert "create the schedule" not in str(caught.value)  # it has no argument base_lr


def test_a_users_function_with_adam() -> None:
    schedule = UserSchedule(lambda iteration: 0.1 / iteration, "my:inverse")
    weights = weights_of_a_plain_trainer("adam", lr_scheduler=schedule)
    assert applied_rates(weights) == pytest.approx(expected_rates(schedule), rel=1e-4, abs=2e-6)


def test_a_rate_that_was_rounded_to_float32_is_that_of_the_schedule() -> None:
    schedule = Cosine(max_update=15, base_lr=0.1)
    mx.optimizer.SGD(learning_rate=np.float32(0.1), lr_scheduler=schedule)
    assert schedule == Cosine(max_update=15, base_lr=0.1)
    mx.optimizer.SGD(learning_rate=0.5, lr_scheduler=Triangular(0.1, max_lr=0.5, cycle_length=20))


@pytest.mark.parametrize("optimizer", ["nag", "signum"])
def test_other_optimizers(optimizer: str) -> None:
    schedule = Warmup(Cosine(max_update=15, base_lr=0.3), warmup_steps=5)
    weights = weights_of_a_plain_trainer(optimizer, lr_scheduler=schedule, momentum=0.0)
    assert applied_rates(weights) == pytest.approx(expected_rates(schedule), abs=2e-6)


@each_schedule
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_module_fit(schedule: AnySchedule, optimizer: str) -> None:
    # The mean over the batch of weight · 1 − label: its gradient is 1.
    product = mx.sym.broadcast_mul(mx.sym.var("data"), mx.sym.var("weight", shape=(1,)))
    network = mx.sym.MakeLoss(mx.sym.broadcast_sub(product, mx.sym.var("label")))
    iterator = mx.io.NDArrayIter(mx.nd.ones((4 * ITERATIONS, 1)), mx.nd.zeros((4 * ITERATIONS, 1)), 4, label_name="label")
    module = mx.mod.Module(network, data_names=["data"], label_names=["label"])
    weights = [0.0]
    module.fit(
        iterator,
        num_epoch=1,
        optimizer=optimizer,
        optimizer_params={"lr_scheduler": schedule, "learning_rate": None}
        if optimizer == "sgd"
        else {"lr_scheduler": schedule},
        arg_params={"weight": mx.nd.zeros((1,))},
        eval_metric=mx.metric.Loss(),
        batch_end_callback=lambda _: weights.append(module.get_params()[0]["weight"].asscalar()),
    )
    assert len(weights) == ITERATIONS + 1
    assert applied_rates(weights) == pytest.approx(expected_rates(schedule), rel=1e-4, abs=2e-6)


def test_one_schedule_serves_two_trainers() -> None:
    schedule = MultiFactor(step=[5, 10], factor=0.5, base_lr=0.4)
    first = weights_of_a_plain_trainer("sgd", lr_scheduler=schedule)
    assert weights_of_a_plain_trainer("sgd", lr_scheduler=schedule) == first
    # MXNet's own scheduler does not: it has consumed its drops.
    theirs = mx.lr_scheduler.MultiFactorScheduler(step=[5, 10], factor=0.5, base_lr=0.4)
    assert weights_of_a_plain_trainer("sgd", lr_scheduler=theirs) == first
    assert weights_of_a_plain_trainer("sgd", lr_scheduler=theirs) != first
