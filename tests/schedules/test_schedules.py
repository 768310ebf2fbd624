"""Properties of every curve and of nested curves: the contract, the first and last rates, and the docstring."""

import inspect
import itertools
import math
import pickle  # users may pickle curves, although the package does not
import pkgutil
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schedule_strategies as draw
from command_line import assert_names
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_trainer import schedules
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.schema import DataConfig, RunConfig, TrainingConfig
from mnist_trainer.schedules import (
    CURVES,
    REX,
    AnySchedule,
    Clip,
    Constant,
    Cooldown,
    Cosine,
    CosineAnnealing,
    Cyclical,
    Exponential,
    ExpRange,
    Factor,
    FlatCosine,
    Greedy,
    Hold,
    InverseSqrt,
    InverseTime,
    Linear,
    MultiFactor,
    NaturalExponential,
    NewBob,
    Noam,
    Noise,
    OneCycle,
    OneCycleLR,
    OneCycleMomentum,
    Piecewise,
    PiecewiseLinear,
    Plateau,
    Poly,
    Product,
    Repeat,
    RunLength,
    Scale,
    Schedule,
    ScheduleError,
    Sequential,
    SettingsError,
    Shift,
    Sum,
    Tanh,
    Triangular,
    Triangular2,
    UserSchedule,
    WarmRestarts,
    Warmup,
    WarmupStableDecay,
    build_schedule,
    from_toml,
    schedule_settings,
)
from mnist_trainer.schedules.catalogue import summarize

Check = Callable[[Schedule, list[int]], None]

every_curve = pytest.mark.parametrize("cls", CURVES, ids=lambda cls: cls.__name__)

SUBJECTS = {cls.__name__: (draw.schedules_of(cls), 30) for cls in CURVES} | {"three deep": (draw.deep(3), 60)}
"""Name → a strategy for schedules, and the number of examples."""

of_every_curve_and_three_deep = pytest.mark.parametrize("subject", SUBJECTS)


def run_check(subject: str, check: Check) -> None:
    drawn, examples = SUBJECTS[subject]

    @settings(max_examples=examples, deadline=None, derandomize=True)
    @given(schedule=drawn, asked=st.lists(draw.iterations, min_size=1, max_size=10))
    def run(schedule: Any, asked: list[int]) -> None:
        check(schedule, asked)

    run()


def test_every_curve_is_exported_and_has_a_strategy() -> None:
    assert set(draw.LEAVES | draw.HOLDERS) == set(CURVES)
    for cls in CURVES:
        assert getattr(schedules, cls.__name__) is cls
        assert cls.__name__ in schedules.__all__


# --- the contract


@of_every_curve_and_three_deep
def test_a_rate_is_a_finite_float_that_is_not_negative(subject: str) -> None:
    def check(schedule: Schedule, asked: list[int]) -> None:
        lengths = {length for length in lengths_in(schedule) if length >= 0}
        ends = [0, 1, 2, *(end + 1 for end in lengths), *lengths]
        for iteration in (*ends, *asked):
            rate = schedule(iteration)
            assert type(rate) is float
            assert math.isfinite(rate)
            assert rate >= 0, (iteration, rate)

    run_check(subject, check)


def lengths_in(schedule: AnySchedule) -> set[int]:
    """Return the whole numbers in the fields of a schedule and its inner ones: iterations where something begins or ends."""
    held = set[int]().union(*(lengths_in(curve) for _, curve in schedule.inner()))
    for value in vars(schedule).values():
        held |= {number for number in (value if isinstance(value, tuple) else (value,)) if type(number) is int}
    return held


@of_every_curve_and_three_deep
def test_rates_are_the_same_in_any_order_after_pickling_and_from_the_repr(subject: str) -> None:
    def check(schedule: Schedule, asked: list[int]) -> None:
        in_order = {iteration: schedule(iteration) for iteration in sorted(asked)}
        for twin in (pickle.loads(pickle.dumps(schedule)), eval(repr(schedule), vars(schedules))):
            assert twin == schedule
            assert hash(twin) == hash(schedule)
            assert repr(twin) == repr(schedule)
            assert {iteration: twin(iteration) for iteration in asked} == in_order
        assert {iteration: schedule(iteration) for iteration in asked} == in_order

    run_check(subject, check)


@of_every_curve_and_three_deep
def test_a_list_of_rates_equals_single_calls(subject: str) -> None:
    def check(schedule: Schedule, asked: list[int]) -> None:
        first = min(asked)
        assert schedule.rates(first, first + 7) == [schedule(iteration) for iteration in range(first, first + 8)]
        assert schedule.rates(first, first - 1) == []

    run_check(subject, check)


@of_every_curve_and_three_deep
def test_settings_and_their_toml_describe_an_equal_schedule(subject: str) -> None:
    run_length = RunLength(iterations_per_epoch=938, epochs=10)

    def check(schedule: Schedule, asked: list[int]) -> None:
        table, learning_rate = schedule_settings(schedule)
        assert build_schedule(table, run_length, learning_rate) == schedule
        text = RunConfig(schedule=table, training=TrainingConfig(learning_rate=learning_rate)).to_toml()
        read = tomllib.loads(text)
        assert read["schedule"] == table
        assert build_schedule(read["schedule"], run_length, read["training"].get("learning_rate")) == schedule

    run_check(subject, check)


@every_curve
def test_a_configuration_file_describes_an_equal_schedule(cls: type[Schedule], tmp_path: Path) -> None:
    schedule = Warmup(Sequential([Constant(0.5), cls(**cls.example)], boundaries=[100]), warmup_steps=50)
    for original in (cls(**cls.example), schedule):
        table, learning_rate = schedule_settings(original)
        held_out = DataConfig(validation_images=5000)  # for Plateau
        config = RunConfig(schedule=table, training=TrainingConfig(learning_rate=learning_rate), data=held_out)
        (tmp_path / "run.toml").write_text(config.to_toml(), encoding="utf-8")
        read = load_config(tmp_path / "run.toml")
        assert read == config
        assert read.build_schedule() == original


@every_curve
def test_schedules_that_differ_in_a_field_are_not_equal(cls: type[Schedule]) -> None:
    schedule = cls(**cls.example)
    other = {spec.name: getattr(schedule, spec.name) for spec in fields(cls)}
    changed = {
        "min_lr": 0.01234,
        "base_lr": 0.01234,
        "start_lr": 0.01234,
        "final_lr": 0.01234,
        "factor": 0.01234,
        "base_momentum": 0.01234,
        "max_lr": 1.01234,
        "values": tuple(range(1, 5))[: len(other.get("values", ()))],
        "seed": 77,
        "length": 77,
        "warmup_steps": 77,
        "boundaries": (301, 777),
        "cycle_magnitude_decay": 0.01234,
        "curves": (Constant(0.01234),),
        "by": 77,
    }
    name = next(field for field in changed if field in other)
    twin = cls(**(other | {name: changed[name]}))
    assert twin != schedule
    assert repr(twin) != repr(schedule)


def test_curves_of_two_classes_with_the_same_fields_are_not_equal() -> None:
    curves: list[Schedule] = [
        Triangular(0, max_lr=1, cycle_length=10),
        Triangular2(0, max_lr=1, cycle_length=10),
        CosineAnnealing(0, max_lr=1, cycle_length=10),
        NaturalExponential(step=1, decay_rate=1),
        InverseTime(step=1, decay_rate=1),
    ]
    assert all(one != other for one, other in itertools.combinations(curves, 2))
    assert len(set(curves)) == len(curves)


@every_curve
def test_mxnet_finds_a_base_lr(cls: type[Schedule]) -> None:
    schedule: Any = cls(**cls.example)
    named = {spec.name for spec in fields(cls)}
    held = [curve for _, curve in schedule.inner()]
    assert schedule.base_lr == (cls.example["base_lr"] if "base_lr" in named else held[0].base_lr if held else schedule(0))
    assert not hasattr(schedule, "no_such_thing")


def test_numbers_of_numpy_are_numbers() -> None:
    numpy_numbers: dict[str, Any] = {"step": np.array([2, 4]), "factor": np.float32(0.5), "base_lr": np.float64(1)}
    schedule = MultiFactor(**numpy_numbers)
    assert schedule == MultiFactor(step=[2, 4], factor=0.5, base_lr=1)
    assert schedule(np.int64(3)) == 0.5


def test_only_the_first_argument_may_be_without_its_name() -> None:
    # In mx.lr_scheduler, the second argument of Poly and Cosine is base_lr.
    may_have_two = {Warmup, Sequential, Repeat, Shift, Hold, Scale}
    for cls in CURVES:
        positional = [spec.name for spec in fields(cls) if not spec.kw_only]
        assert len(positional) <= 1 + (cls in may_have_two), cls
    for make in (Poly, Cosine, Linear):
        with pytest.raises(TypeError, match="positional"):
            make(1000, 0.1)  # type: ignore[call-arg]


def test_no_class_hides_misspelled_attributes_from_type_checkers() -> None:
    for cls in (AnySchedule, UserSchedule, *CURVES):
        assert not hasattr(cls, "__getattr__")
        assert "__getattribute__" not in vars(cls)


def test_the_list_of_rates_checks_its_arguments() -> None:
    schedule = Cosine(max_update=10, base_lr=1)
    assert schedule.rates(np.int64(1), np.int64(3)) == schedule.rates(1, 3)
    assert schedule.rates(5, 4) == []
    wrong: list[tuple[Any, Any, str]] = [
        (-1, 3, "first"),
        (1.5, 3, "first"),
        (1, "3", "last"),
        (5, 3, "last"),
        (0, -2, "last"),
    ]
    for first, last, named in wrong:
        with pytest.raises((TypeError, ValueError), match=named):
            schedule.rates(first, last)
    with pytest.raises(ScheduleError, match="iteration 128"):
        Exponential(step=1, factor=2, base_lr=1).rates(1, 200)


def test_a_pickled_curve_names_the_package_alone() -> None:
    for cls in CURVES:
        assert cls.__module__ == "mnist_trainer.schedules"
        assert f"mnist_trainer.schedules\n{cls.__name__}".encode() in pickle.dumps(cls(**cls.example), protocol=0)


@every_curve
def test_a_curve_goes_to_toml_and_back(cls: type[Schedule]) -> None:
    schedule = cls(**cls.example)
    assert from_toml(schedule.to_toml()) == schedule
    assert list(tomllib.loads(schedule.to_toml()))[-1] == ("momentum" if cls.is_momentum else "schedule")
    if schedule.reacts:
        with pytest.raises(ValueError, match="reacts"):
            schedule.to_toml("momentum")
    else:
        assert from_toml(schedule.to_toml("momentum")) == schedule
    around = Warmup(Sequential([schedule, Constant(0.1)], [50]), 10)
    assert from_toml(around.to_toml()) == around


def test_toml_in_epochs_needs_the_length_of_the_run() -> None:
    text = 'schedule = {name = "Cosine", max_update_epochs = 9}\ntraining = {learning_rate = 0.1}'
    assert from_toml(text, RunLength(iterations_per_epoch=100, epochs=10)) == Cosine(max_update=900, base_lr=0.1)
    with pytest.raises(SettingsError, match="max_update_epochs = 9: needs run_length"):
        from_toml(text)
    with pytest.raises(ValueError, match=r"no table \[schedule\]"):
        from_toml("[training]")
    with pytest.raises(ValueError, match="Expected"):
        from_toml("[schedule")
    with pytest.raises(ValueError, match="name of a file"):
        from_toml("schedule.toml")
    for wrong in ("schedule = 3", "momentum = 0.9"):
        with pytest.raises(ValueError, match="must be a table"):
            from_toml(wrong)
    with pytest.raises(ValueError, match="schedule, momentum, wd"):
        Constant(1).to_toml("training")


def test_the_quantity_of_a_schedule_is_that_of_the_first_curve_within() -> None:
    momentum = OneCycleMomentum(max_update=100)
    assert Sum([momentum, Constant(0.01)]).quantity == Scale(momentum, 0.9).quantity == "Momentum"
    assert Scale(momentum, 0.9).to_toml().startswith("[momentum]")
    assert Constant(1).quantity == "Learning Rate"


def test_a_decimal_length_survives_toml() -> None:
    schedule = WarmRestarts(0, max_lr=1, cycle_length=1000 / 3, t_mult=1.11)
    assert from_toml(schedule.to_toml()) == schedule


def test_a_users_schedule_takes_the_default_rate_of_an_optimizer() -> None:
    schedule = UserSchedule(lambda iteration: 0.1 * iteration, "my:rising")
    schedule.base_lr = 0.001  # what Adam assigns
    schedule.base_lr = 0.1
    for wrong in (0.5, None, "x"):
        with pytest.raises(AttributeError, match="learning_rate=None"):
            schedule.base_lr = wrong  # type: ignore[assignment]
    assert schedule(3) == pytest.approx(0.3)


def test_the_stable_phase_has_exactly_the_base_rate_and_a_decay_stays_within_its_ends() -> None:
    for ratio in (1e-300, 0.1, 0.2, 0.3, 0.01, 1 - 1e-15):
        arguments: dict[str, Any] = {"warmup_steps": 0, "decay_steps": 30, "decay": "exponential", "decay_ratio": ratio}
        assert set(WarmupStableDecay(100, base_lr=0.3, final_lr=0.1, **arguments).rates(0, 70)) == {0.3}
        assert min(WarmupStableDecay(100, base_lr=0, final_lr=0.1, **arguments).rates(0, 101)) == 0


def test_a_users_function_has_no_toml() -> None:
    with pytest.raises(TypeError, match="my:half"):
        Warmup(UserSchedule(lambda iteration: 0.5, "my:half"), 10).to_toml()


def test_a_schedule_cannot_be_changed() -> None:
    schedule = Cosine(max_update=10, base_lr=0.1)
    with pytest.raises(AttributeError) as caught:
        schedule.base_lr = 0.5  # type: ignore[misc]
    assert_names(str(caught.value), repr(schedule), "base_lr=0.5", "learning_rate=None")
    with pytest.raises(AttributeError) as caught:
        schedule.max_update = 20  # type: ignore[misc]
    assert_names(str(caught.value), repr(schedule), "max_update=20")
    schedule.base_lr = 0.001  # type: ignore[misc]  # mx.optimizer.Adam does this; it has no effect
    assert schedule == Cosine(max_update=10, base_lr=0.1)


@every_curve
def test_the_default_rates_of_optimizers_do_not_change_a_curve(cls: type[Schedule]) -> None:
    schedule: Any = cls(**cls.example)
    for unasked in (0.001, 0.002, 0.01):
        schedule.base_lr = unasked  # what Adam, Adamax and Signum assign
    assert schedule == cls(**cls.example)
    assert "base_lr" not in vars(schedule) or vars(schedule)["base_lr"] == cls.example.get("base_lr")


# --- rates at the beginning and at the end

LINE = Linear(max_update=10, base_lr=1)
"""1, 0.9, 0.8, … 0."""

VALUES: list[tuple[str, Schedule, dict[int, float]]] = [
    ("", Constant(0.03), {0: 0.03, 1: 0.03, 1000: 0.03}),
    (
        "",
        Factor(step=10, factor=0.5, base_lr=1, stop_factor_lr=0.3),
        {0: 1, 1: 1, 10: 1, 11: 0.5, 20: 0.5, 21: 0.3, 10**6: 0.3},
    ),
    ("", MultiFactor(step=[10, 30], factor=0.5, base_lr=1), {0: 1, 1: 1, 10: 1, 11: 0.5, 30: 0.5, 31: 0.25, 10**6: 0.25}),
    ("warm-up", MultiFactor(step=[10], factor=0.5, base_lr=1, warmup_steps=4), {0: 0, 1: 0.25, 3: 0.75, 4: 1, 10: 1, 11: 0.5}),
    ("", Piecewise([10, 20], values=[1, 2, 0.5]), {0: 1, 1: 1, 10: 1, 11: 2, 20: 2, 21: 0.5, 10**6: 0.5}),
    ("", Poly(max_update=10, base_lr=1, final_lr=0.1), {0: 1, 1: 0.1 + 0.9 * 0.81, 9: 0.1 + 0.9 * 0.01, 10: 0.1, 11: 0.1}),
    ("cycle", Poly(max_update=10, base_lr=1, pwr=1, cycle=True), {0: 1, 5: 0.5, 10: 0, 11: 0.45, 20: 0, 21: 0.3, 30: 0}),
    (
        "k_decay after a warm-up",
        Poly(max_update=14, base_lr=1, pwr=1, k_decay=2, warmup_steps=4),
        {0: 0, 2: 0.5, 4: 1, 5: 0.99, 9: 0.75, 14: 0, 15: 0},
    ),
    ("k_decay in cycles", Poly(10, base_lr=1, pwr=1, k_decay=2, cycle=True), {5: 0.75, 10: 0, 15: 1 - 0.75**2, 20: 0}),
    ("k_decay", Poly(max_update=10, base_lr=1, pwr=1, k_decay=2), {0: 1, 1: 0.99, 5: 0.75, 10: 0, 11: 0}),
    ("burn-in", Poly(max_update=10, base_lr=0, final_lr=1, pwr=1, k_decay=4), {0: 0, 1: 1e-4, 5: 1 / 16, 10: 1, 11: 1}),
    ("", Cosine(max_update=10, base_lr=1, final_lr=0.2), {0: 1, 5: 0.6, 10: 0.2, 11: 0.2, 10**6: 0.2}),
    ("60°", Cosine(max_update=6, base_lr=1), {1: 0.5 + math.sqrt(3) / 4, 2: 0.75, 4: 0.25}),
    ("k_decay", Cosine(max_update=10, base_lr=1, k_decay=2), {0: 1, 5: (2 + math.sqrt(2)) / 4, 10: 0, 11: 0}),
    ("exponent", Cosine(max_update=10, base_lr=1, final_lr=0.2, exponent=2), {0: 1, 5: 0.4, 10: 0.2, 11: 0.2}),
    ("exponent after a warm-up", Cosine(15, base_lr=1, warmup_steps=5, exponent=2), {0: 0, 1: 0.2, 5: 1, 10: 0.25, 15: 0}),
    ("warm-up", Cosine(max_update=15, base_lr=1, warmup_steps=5), {0: 0, 1: 0.2, 5: 1, 10: 0.5, 15: 0, 16: 0}),
    ("", CosineAnnealing(0.1, max_lr=1.1, cycle_length=10), {0: 1.1, 5: 0.6, 10: 0.1, 11: 0.1, 10**6: 0.1}),
    ("", Linear(max_update=10, base_lr=0.2, final_lr=1), {0: 0.2, 1: 0.28, 5: 0.6, 10: 1, 11: 1, 10**6: 1}),
    ("", PiecewiseLinear([5, 10, 20], values=[0.5, 1, 0]), {0: 0.5, 1: 0.5, 5: 0.5, 6: 0.6, 10: 1, 15: 0.5, 20: 0, 21: 0}),
    ("", Tanh(max_update=10, base_lr=1, lower=-1, upper=1), {0: 1 / (1 + math.exp(-2)), 5: 0.5, 10: 0, 11: 0, 10**6: 0}),
    ("just before the end", Tanh(max_update=10, base_lr=1, lower=-1, upper=1), {9: 1 / (1 + math.exp(1.6))}),
    ("", Exponential(step=10, factor=0.5, base_lr=1), {0: 1, 1: 2**-0.1, 10: 0.5, 20: 0.25, 10**6: 0}),
    ("staircase", Exponential(step=10, factor=0.5, base_lr=1, staircase=True), {0: 1, 1: 1, 10: 1, 11: 0.5, 20: 0.5, 21: 0.25}),
    ("growth", Exponential(step=10, factor=2, base_lr=1), {0: 1, 5: 2**0.5, 10: 2, 50: 32}),
    ("", NaturalExponential(step=10, decay_rate=2, base_lr=1), {0: 1, 1: math.exp(-0.2), 10: math.exp(-2), 10**6: 0}),
    ("staircase", NaturalExponential(step=10, decay_rate=2, base_lr=1, staircase=True), {1: 1, 10: 1, 11: math.exp(-2)}),
    ("", InverseTime(step=10, decay_rate=1, base_lr=1), {0: 1, 1: 10 / 11, 10: 0.5, 30: 0.25, 990: 0.01}),
    ("staircase", InverseTime(step=10, decay_rate=1, base_lr=1, staircase=True), {0: 1, 1: 1, 10: 1, 11: 0.5, 21: 1 / 3}),
    ("power", InverseTime(step=10, decay_rate=1, base_lr=1, power=2), {0: 1, 10: 0.25, 30: 1 / 16, 990: 1e-4}),
    ("", InverseSqrt(timescale=10, base_lr=1), {0: 1, 1: math.sqrt(10 / 11), 30: 0.5, 990: 0.1}),
    ("", Noam(model_size=4, warmup_steps=16, base_lr=2), {0: 0, 1: 1 / 64, 8: 1 / 8, 16: 1 / 4, 64: 1 / 8, 10**6: 0.001}),
    ("", Triangular(1, max_lr=2, cycle_length=10, inc_fraction=0.2), {0: 1, 1: 1.5, 2: 2, 6: 1.5, 10: 1, 11: 1, 10**6: 1}),
    ("no rise", Triangular(1, max_lr=2, cycle_length=10, inc_fraction=0), {0: 2, 1: 1.9, 10: 1, 11: 1}),
    ("no fall", Triangular(1, max_lr=2, cycle_length=10, inc_fraction=1), {0: 1, 1: 1.1, 10: 2, 11: 1}),
    (
        "",
        Triangular2(0.5, max_lr=1.5, cycle_length=10),
        {0: 0.5, 1: 0.7, 5: 1.5, 10: 0.5, 15: 1, 20: 0.5, 25: 0.75, 10**6: 0.5},
    ),
    (
        "",
        ExpRange(0, max_lr=1, cycle_length=10, factor=0.5),
        {0: 0, 1: 0.1, 5: 2**-5, 9: 0.2 * 2**-9, 10: 0, 15: 2**-15, 10**6: 0},
    ),
    (
        "",
        WarmRestarts(0.1, max_lr=1.1, cycle_length=10, t_mult=2, cycle_decay=0.5, cycle_limit=2),
        {0: 1.1, 5: 0.6, 10: 0.55, 20: 0.1 + 0.45 / 2, 30: 0.1, 31: 0.1, 10**6: 0.1},
    ),
    (
        "a third",
        WarmRestarts(0, max_lr=1, cycle_length=10 / 3, cycle_limit=3),
        {0: 1, 5: 0.5, 9: (1 - math.cos(0.3 * math.pi)) / 2, 10: 0},
    ),
    ("no end", WarmRestarts(0, max_lr=1, cycle_length=10), {0: 1, 5: 0.5, 10: 1, 15: 0.5, 10**6: 1, 10**6 + 5: 0.5}),
    (
        "half as long again",
        WarmRestarts(0, max_lr=1, cycle_length=10, t_mult=1.5),
        {10: 1, 25: 1, 24: (1 + math.cos(math.pi * 14 / 15)) / 2},
    ),
    (
        "",
        Cyclical(CosineAnnealing(0, max_lr=1, cycle_length=10), cycle_length_decay=2, cycle_magnitude_decay=0.5),
        {0: 1, 5: 0.5, 10: 0.5, 20: 0.25, 30: 0.25, 50: 0.125},
    ),
    (
        "",
        OneCycle(0.1, max_lr=0.5, cycle_length=10, cooldown_length=20, finish_lr=0.02),
        {0: 0.1, 1: 0.18, 5: 0.5, 10: 0.1, 20: 0.06, 30: 0.02, 31: 0.02, 10**6: 0.02},
    ),
    ("no cool-down", OneCycle(0.1, max_lr=0.5, cycle_length=10), {0: 0.1, 5: 0.5, 9: 0.18, 10: 0.1, 11: 0.1, 10**6: 0.1}),
    (
        "",
        OneCycleLR(max_lr=1, max_update=10, pct_start=0.5, div_factor=10, final_div_factor=100),
        {0: 0.1, 1: 0.1, 3: 0.55, 5: 1, 10: 0.001, 11: 0.001, 10**6: 0.001},
    ),
    (
        "linear",
        OneCycleLR(max_lr=1, max_update=10, pct_start=0.5, div_factor=10, final_div_factor=100, anneal_strategy="linear"),
        {0: 0.1, 1: 0.1, 2: 0.325, 5: 1, 6: 1 - 0.999 / 5, 10: 0.001, 11: 0.001},
    ),
    (
        "three phases",
        OneCycleLR(max_lr=1, max_update=10, pct_start=0.3, div_factor=10, final_div_factor=100, three_phase=True),
        {1: 0.1, 2: 0.55, 3: 1, 4: 0.55, 5: 0.1, 10: 0.001, 11: 0.001},
    ),
    ("to 0", OneCycleLR(max_lr=1, max_update=10, pct_start=0.5, div_factor=10, final_lr=0), {1: 0.1, 5: 1, 10: 0, 11: 0}),
    ("one iteration", OneCycleLR(max_lr=1, max_update=1, div_factor=10, final_div_factor=100), {0: 0.001, 1: 0.001, 2: 0.001}),
    ("", OneCycleMomentum(max_update=10, pct_start=0.5), {0: 0.95, 1: 0.95, 3: 0.9, 5: 0.85, 10: 0.95, 11: 0.95}),
    (
        "",
        WarmupStableDecay(max_update=20, warmup_steps=5, decay_steps=10, base_lr=1, warmup_begin_lr=0.5, final_lr=0.2),
        {0: 0.5, 1: 0.6, 5: 1, 10: 1, 11: 0.92, 15: 0.6, 20: 0.2, 21: 0.2},
    ),
    (
        "1-sqrt",
        WarmupStableDecay(max_update=20, warmup_steps=0, decay_steps=16, decay="1-sqrt", base_lr=1),
        {0: 1, 4: 1, 5: 0.75, 8: 0.5, 13: 0.25, 20: 0, 21: 0},
    ),
    (
        "cosine",
        WarmupStableDecay(max_update=20, warmup_steps=0, decay_steps=12, decay="cosine", base_lr=1),
        {0: 1, 8: 1, 12: 0.75, 14: 0.5, 20: 0, 21: 0},
    ),
    (
        "power",
        WarmupStableDecay(max_update=20, warmup_steps=0, decay_steps=10, decay="power", decay_power=2, base_lr=1),
        {0: 1, 10: 1, 11: 0.99, 15: 0.75, 20: 0, 21: 0},
    ),
    (
        "exponential",
        WarmupStableDecay(max_update=20, warmup_steps=0, decay_steps=10, decay="exponential", base_lr=1),
        {0: 1, 10: 1, 15: 2 * 0.5**0.5 - 1, 20: 0, 21: 0},
    ),
    (
        "no decay",
        WarmupStableDecay(max_update=20, warmup_steps=0, decay_steps=0, base_lr=1, final_lr=0.2),
        {0: 1, 19: 1, 20: 0.2, 21: 0.2},
    ),
    ("", REX(max_update=10, base_lr=1, final_lr=0.1), {0: 1, 5: 0.7, 8: 0.4, 10: 0.1, 11: 0.1, 10**6: 0.1}),
    ("", FlatCosine(max_update=20, flat_steps=10, base_lr=1, final_lr=0.2), {0: 1, 1: 1, 10: 1, 15: 0.6, 20: 0.2, 21: 0.2}),
    ("", Warmup(LINE, warmup_steps=4), {0: 0, 1: 0.25, 3: 0.75, 4: 1, 5: 0.9, 14: 0, 15: 0}),
    ("overlay", Warmup(LINE, warmup_steps=4, overlay=True), {0: 0, 1: 0.25, 3: 0.75, 4: 0.6, 5: 0.5, 10: 0, 11: 0}),
    ("from above", Warmup(LINE, warmup_steps=4, warmup_begin_lr=2), {0: 2, 1: 1.75, 4: 1, 5: 0.9}),
    ("constant", Warmup(LINE, warmup_steps=4, warmup_begin_lr=0.3, warmup_mode="constant"), {0: 0.3, 1: 0.3, 4: 0.3, 5: 0.9}),
    (
        "exponential",
        Warmup(LINE, warmup_steps=4, warmup_begin_lr=0.01, warmup_mode="exponential"),
        {0: 0.01, 1: 10**-1.5, 2: 0.1, 4: 1, 5: 0.9},
    ),
    (
        "cosine",
        Warmup(LINE, warmup_steps=6, warmup_begin_lr=0.2, warmup_mode="cosine"),
        {0: 0.2, 2: 0.4, 3: 0.6, 4: 0.8, 6: 1, 7: 0.9},
    ),
    ("1-sqrt", Warmup(LINE, 4, warmup_begin_lr=0.2, warmup_mode="1-sqrt"), {0: 0.2, 3: 0.6, 4: 1, 5: 0.9}),
    ("log", Warmup(LINE, 4, warmup_begin_lr=0.2, warmup_mode="log"), {0: 0.2, 1: 0.2, 2: 0.6, 4: 1, 5: 0.9}),
    ("log, one iteration", Warmup(LINE, 1, warmup_begin_lr=0.2, warmup_mode="log"), {0: 0.2, 1: 1, 2: 0.9}),
    ("1-exp", Warmup(LINE, 4, warmup_mode="1-exp"), {0: 0, 4: 1 - 1 / math.e, 8: 0.6 * (1 - math.exp(-2)), 14: 0}),
    ("1-exp, overlay", Warmup(LINE, 4, warmup_mode="1-exp", overlay=True), {0: 0, 4: 0.6 * (1 - 1 / math.e), 10: 0}),
    ("end", Warmup(LINE, 4, warmup_end_lr=0.4), {0: 0, 1: 0.1, 3: 0.3, 4: 1, 5: 0.9}),
    ("none", Warmup(LINE, 0, warmup_begin_lr=0.4, warmup_mode="log"), {0: 1, 1: 0.9, 5: 0.5}),
    ("none, overlay", Warmup(LINE, 0, warmup_begin_lr=0.4, overlay=True), {0: 1, 1: 0.9, 5: 0.5}),
    ("none, 1-exp", Warmup(LINE, 0, warmup_mode="1-exp"), {0: 1, 1: 0.9, 5: 0.5}),
    ("end, overlay", Warmup(LINE, 4, warmup_end_lr=0.6, overlay=True), {0: 0, 2: 0.3, 3: 0.45, 4: 0.6, 5: 0.5}),
    (
        "cosine",
        Cooldown(Constant(1), start=10, cooldown_steps=6, final_lr=0.2, decay="cosine"),
        {10: 1, 12: 0.8, 13: 0.6, 16: 0.2},
    ),
    (
        "power",
        Cooldown(Constant(1), start=10, cooldown_steps=4, final_lr=0.2, decay="power", decay_power=2),
        {10: 1, 12: 0.8, 14: 0.2, 15: 0.2},
    ),
    ("none", Cooldown(Constant(1), start=10, cooldown_steps=0, final_lr=0.2), {1: 1, 10: 1, 11: 0.2, 12: 0.2}),
    (
        "exponential",
        Cooldown(Constant(1), start=10, cooldown_steps=4, final_lr=0.2, decay="exponential", decay_ratio=0.25),
        {10: 1, 12: 0.2 + 0.8 / 3, 14: 0.2, 15: 0.2},
    ),
    (
        "",
        Cooldown(Constant(1), start=10, cooldown_steps=4, final_lr=0.2),
        {0: 1, 1: 1, 10: 1, 11: 0.8, 13: 0.4, 14: 0.2, 15: 0.2},
    ),
    ("", Sequential([LINE, Constant(0.3), LINE], [10, 15]), {0: 1, 1: 0.9, 10: 0, 11: 0.3, 15: 0.3, 16: 0.9, 25: 0, 26: 0}),
    ("", Product([LINE, LINE, Constant(0.5)]), {0: 0.5, 1: 0.405, 5: 0.125, 10: 0, 11: 0}),
    ("", Sum([LINE, LINE, Constant(0.5)]), {0: 2.5, 1: 2.3, 5: 1.5, 10: 0.5, 11: 0.5}),
    ("weights", Sum([Constant(0.95), LINE], weights=[1, -0.1]), {0: 0.85, 1: 0.86, 5: 0.9, 10: 0.95, 11: 0.95}),
    ("ahead", Shift(LINE, 3), {0: 0.7, 1: 0.6, 6: 0.1, 7: 0, 8: 0}),
    ("behind", Shift(LINE, -3), {0: 1, 1: 1, 3: 1, 4: 0.9, 13: 0, 14: 0}),
    ("", Hold(LINE, 3), {0: 1, 1: 1, 3: 1, 4: 0.7, 6: 0.7, 7: 0.4, 10: 0.1, 12: 0.1, 13: 0}),
    ("", Repeat(LINE, length=4), {0: 1, 1: 0.9, 4: 0.6, 5: 0.9, 8: 0.6, 9: 0.9, 10**6: 0.6}),
    ("", Clip(LINE, min_lr=0.15, max_lr=0.85), {0: 0.85, 1: 0.85, 2: 0.8, 8: 0.2, 9: 0.15, 11: 0.15}),
    ("no upper bound", Clip(LINE, min_lr=0.15), {0: 1, 1: 0.9, 10: 0.15}),
    ("", Scale(LINE, factor=4), {0: 4, 1: 3.6, 10: 0, 11: 0}),
    ("outside its iterations", Noise(LINE, seed=0, start=5, end=6), {0: 1, 1: 0.9, 4: 0.6, 7: 0.3, 10: 0, 11: 0}),
    ("", Plateau(LINE), {0: 1, 1: 0.9, 10: 0, 11: 0}),
    ("reduced twice", NewBob(LINE, factor=0.5, reductions=2), {0: 0.25, 1: 0.225, 10: 0, 11: 0}),
    ("", Greedy(base_lr=0.1), {0: 0.1, 1: 0.1, 10**6: 0.1}),
    ("reduced twice", Plateau(LINE, factor=0.5, min_lr=0.2, reductions=2), {0: 0.25, 1: 0.225, 5: 0.2, 9: 0.1, 10: 0, 11: 0}),
]
"""A note on the arguments, a schedule, and its rates by iteration, computed by hand."""


@pytest.mark.parametrize(
    ("schedule", "known"),
    [pytest.param(schedule, known, id=f"{type(schedule).__name__}{note and ', '}{note}") for note, schedule, known in VALUES],
)
def test_rates_at_the_first_and_the_last_iteration_and_after(schedule: Schedule, known: dict[int, float]) -> None:
    assert {iteration: schedule(iteration) for iteration in known} == pytest.approx(known, rel=1e-13, abs=1e-15)


def test_every_curve_has_a_row_of_rates_at_its_ends() -> None:
    assert {type(schedule) for _, schedule, _ in VALUES} == set(CURVES)


# --- docstrings

SOURCE = re.compile(
    r"\b(MXNet|mx\.|PyTorch|Keras|optax|timm|Hugging Face|Paddle|fastai|fairseq|SpeechBrain)|\bet al\., \"|& \w+, \"",
    re.MULTILINE,
)
"""The source of a formula: a framework, or a paper with its authors and title."""


@every_curve
def test_the_docstring_has_equation_source_and_example_of_first_and_later(cls: type[Schedule]) -> None:
    text = cls.__doc__ or ""
    sentence, *equations = summarize(cls)
    assert sentence.endswith(".")
    assert len(sentence) <= 110
    assert "lr(k) = " in sentence or equations
    examples = "\n".join(re.findall(r"^ *>>> .*$", text, re.MULTILINE))
    assert "schedule(1)" in examples
    assert "schedule(1_000_000)" in examples
    assert SOURCE.search(text)


def test_the_table_of_contents_names_every_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(schedules.__path__)}
    assert set(re.findall(r"^    (\w+)\.py  ", schedules.__doc__ or "", re.MULTILINE)) == modules


@every_curve
def test_the_docstring_describes_every_setting(cls: type[Schedule]) -> None:
    prose = (inspect.getdoc(cls) or "").split(">>>")[0]
    _, has_arguments, arguments = prose.partition("\nArgs:\n")
    for spec in fields(cls):
        if has_arguments:
            assert re.search(rf"^    {spec.name}: \S", arguments, re.MULTILINE), spec.name
        else:
            assert spec.name == "base_lr" or re.search(rf"\b{spec.name}\b", prose), spec.name
