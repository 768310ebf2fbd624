"""The curves against those who defined them: MXNet's own schedulers and the tutorial's class, live and in order."""

import math
import pickle
import pkgutil
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_trainer import schedules
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import (
    CURVES,
    Constant,
    Cosine,
    CosineAnnealing,
    Factor,
    MultiFactor,
    Poly,
    Schedule,
)

mx = import_mxnet()

rates = st.floats(0, 10, allow_subnormal=False) | st.sampled_from([0, 1, 0.03, 0.1, 1e-9])
factors = st.floats(0, 1) | st.sampled_from([0.1, 0.5, 1, 0])
lengths = st.integers(1, 300)


@st.composite
def warmups(draw: st.DrawFn, base_lr: float, below: int = 1000) -> dict[str, Any]:
    return {
        "base_lr": base_lr,
        "warmup_steps": draw(st.integers(0, min(below - 1, 200))),
        "warmup_begin_lr": draw(st.floats(0, base_lr)),
        "warmup_mode": draw(st.sampled_from(["linear", "constant"])),
    }


@st.composite
def factor_arguments(draw: st.DrawFn) -> dict[str, Any]:
    own = {"step": draw(lengths), "factor": draw(factors), "stop_factor_lr": draw(rates)}
    return own | draw(warmups(draw(rates)))


@st.composite
def multi_factor_arguments(draw: st.DrawFn) -> dict[str, Any]:
    step = sorted(draw(st.sets(lengths, min_size=1, max_size=8)))
    return {"step": step, "factor": draw(factors)} | draw(warmups(draw(rates)))


@st.composite
def poly_arguments(draw: st.DrawFn) -> dict[str, Any]:
    max_update = draw(lengths)
    own = {"max_update": max_update, "pwr": draw(st.integers(0, 5) | st.floats(0, 5)), "final_lr": draw(rates)}
    return own | draw(warmups(draw(rates), max_update))


@st.composite
def cosine_arguments(draw: st.DrawFn) -> dict[str, Any]:
    max_update = draw(lengths)
    return {"max_update": max_update, "final_lr": draw(rates)} | draw(warmups(draw(rates), max_update))


@st.composite
def cosine_annealing_arguments(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted([draw(rates), draw(rates)])
    return {"min_lr": low, "max_lr": high, "cycle_length": draw(lengths)}


class CosineAnnealingSchedule:
    """The tutorial's class, as it stands there."""

    def __init__(self, min_lr: float, max_lr: float, cycle_length: int) -> None:
        self.min_lr = min_lr
        self.max_lr = max_lr
        self.cycle_length = cycle_length

    def __call__(self, iteration: int) -> float:
        if iteration <= self.cycle_length:
            unit_cycle = (1 + math.cos(iteration * math.pi / self.cycle_length)) / 2
            adjusted_cycle = (unit_cycle * (self.max_lr - self.min_lr)) + self.min_lr
            return adjusted_cycle  # noqa: RET504
        else:  # noqa: RET505
            return self.min_lr


CURVE_ROWS: dict[type[Schedule], tuple[Callable[..., Callable[[int], float]], st.SearchStrategy[dict[str, Any]]]] = {
    Constant: (lambda base_lr: lambda iteration: base_lr, st.fixed_dictionaries({"base_lr": rates})),
    Factor: (mx.lr_scheduler.FactorScheduler, factor_arguments()),
    MultiFactor: (mx.lr_scheduler.MultiFactorScheduler, multi_factor_arguments()),
    Poly: (mx.lr_scheduler.PolyScheduler, poly_arguments()),
    Cosine: (mx.lr_scheduler.CosineScheduler, cosine_arguments()),
    CosineAnnealing: (CosineAnnealingSchedule, cosine_annealing_arguments()),
}
"""Curve → its origin, and arguments for both."""

every_curve = pytest.mark.parametrize("cls", CURVES, ids=lambda cls: cls.__name__)

LAST = 400  # beyond every length that is drawn


def test_every_curve_has_a_row_here_and_stands_in_the_table_of_contents() -> None:
    assert list(CURVE_ROWS) == list(CURVES)
    for cls in CURVES:
        assert getattr(schedules, cls.__name__) is cls
        assert cls.__name__ in schedules.__all__


@every_curve
def test_equals_its_origin_to_the_last_bit(cls: type[Schedule]) -> None:
    origin, arguments_strategy = CURVE_ROWS[cls]

    @settings(max_examples=1500, deadline=None, derandomize=True)
    @given(arguments=arguments_strategy, start=st.sampled_from([0, 1]), stride=st.integers(1, 7))
    def check(arguments: dict[str, Any], start: int, stride: int) -> None:
        theirs = origin(**arguments)
        ours = cls(**arguments)
        # MXNet's Poly and Cosine stay, past the end, at the rate that they were asked for last: leave none out.
        strides = 1 if cls in (Poly, Cosine) else stride
        for iteration in range(start, LAST, strides):
            assert ours(iteration).hex() == float(theirs(iteration)).hex(), (arguments, iteration)

    check()


@every_curve
def test_answers_are_the_same_in_any_order_after_pickling_and_from_its_print(cls: type[Schedule]) -> None:
    _, arguments_strategy = CURVE_ROWS[cls]

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(arguments=arguments_strategy, asked=st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
    def check(arguments: dict[str, Any], asked: list[int]) -> None:
        schedule = cls(**arguments)
        in_order = {iteration: schedule(iteration) for iteration in sorted(asked)}
        for twin in (cls(**arguments), pickle.loads(pickle.dumps(schedule)), eval(repr(schedule), vars(schedules))):
            assert twin == schedule
            assert hash(twin) == hash(schedule)
            assert repr(twin) == repr(schedule)
            assert {iteration: twin(iteration) for iteration in asked} == in_order
        assert all(type(rate) is float and math.isfinite(rate) and rate >= 0 for rate in in_order.values())

    check()


@pytest.mark.parametrize(
    ("schedule", "iteration", "learning_rate"),
    [
        pytest.param(Factor(step=250, factor=0.5, base_lr=1), 250, 1, id="factor, last before the drop"),
        pytest.param(Factor(step=250, factor=0.5, base_lr=1), 251, 0.5, id="factor, first after the drop"),
        pytest.param(MultiFactor(base_lr=1, step=[250], factor=0.5), 251, 0.5, id="multifactor, first after the drop"),
        pytest.param(MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1), 900, 0.25, id="multifactor, 900"),
        pytest.param(MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1), 901, 0.125, id="multifactor, 901"),
        pytest.param(Poly(max_update=1000, base_lr=1, pwr=2), 1, 0.998001, id="poly, first"),
        pytest.param(Poly(max_update=1000, base_lr=1, pwr=2), 1000, 0, id="poly, last"),
        pytest.param(Poly(max_update=1000, base_lr=1, pwr=2), 1500, 0, id="poly, after"),
        pytest.param(CosineAnnealing(min_lr=0, max_lr=1, cycle_length=1000), 500, 0.5, id="cosine annealing, middle"),
        pytest.param(CosineAnnealing(min_lr=0.1, max_lr=1, cycle_length=1000), 1001, 0.1, id="cosine annealing, after"),
    ],
)
def test_the_tutorials_own_values(schedule: Schedule, iteration: int, learning_rate: float) -> None:
    assert schedule(iteration) == pytest.approx(learning_rate, rel=1e-12, abs=1e-12)


def test_asking_past_the_end_first_does_not_return_the_initial_rate() -> None:
    theirs = mx.lr_scheduler.CosineScheduler(max_update=100, base_lr=1)
    assert theirs(101) == 1  # MXNet's, asked out of order
    assert Cosine(max_update=100, base_lr=1)(101) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Constant(-0.1), "base_lr = -0.1 is not a finite number ≥ 0", id="negative rate"),
        pytest.param(lambda: Constant(math.nan), "base_lr = nan is not a finite number ≥ 0", id="nan"),
        pytest.param(lambda: Constant(math.inf), "base_lr = inf is not a finite number ≥ 0", id="infinity"),
        pytest.param(lambda: Constant(1e39), "base_lr = 1e+39 is infinite in the float32", id="beyond float32"),
        pytest.param(lambda: Constant(10**400), "is not a finite number ≥ 0", id="beyond float64"),
        pytest.param(lambda: Factor(step=0), "step = 0 is not a whole number ≥ 1", id="length zero"),
        pytest.param(lambda: Factor(step=-3), "step = -3 is not a whole number ≥ 1", id="length negative"),
        pytest.param(lambda: Factor(step=1, factor=1.1), "factor = 1.1 is not a number from 0 to 1", id="factor above 1"),
        pytest.param(lambda: Factor(step=1, factor=-0.1), "factor = -0.1 is not a number from 0 to 1", id="factor below 0"),
        pytest.param(lambda: MultiFactor(step=[]), "step = [] names no iteration", id="no steps"),
        pytest.param(lambda: MultiFactor(step=[5, 5]), "step = [5, 5] does not increase", id="equal steps"),
        pytest.param(lambda: MultiFactor(step=[7, 4]), "step = [7, 4] does not increase", id="unsorted steps"),
        pytest.param(lambda: MultiFactor(step=[0, 4]), "step = 0 is not a whole number ≥ 1", id="step at zero"),
        pytest.param(lambda: Poly(max_update=0), "max_update = 0 is not a whole number ≥ 1", id="poly of no length"),
        pytest.param(lambda: Poly(max_update=5, pwr=-1), "pwr = -1 is not a finite number ≥ 0", id="negative power"),
        pytest.param(
            lambda: Cosine(max_update=5, warmup_steps=5),
            "warmup_steps = 5 is not below max_update = 5",
            id="nothing but warm-up",
        ),
        pytest.param(
            lambda: Cosine(max_update=5, base_lr=0.1, warmup_begin_lr=0.2),
            "warmup_begin_lr = 0.2 is above base_lr = 0.1",
            id="warm-up from above",
        ),
        pytest.param(
            lambda: Cosine(max_update=5, warmup_mode="cubic"),
            "warmup_mode = 'cubic' is not one of linear, constant",
            id="unknown warm-up",
        ),
        pytest.param(
            lambda: CosineAnnealing(min_lr=2, max_lr=1, cycle_length=3), "min_lr = 2.0 is above max_lr = 1.0", id="min > max"
        ),
        pytest.param(lambda: Constant(0.1)(-1), "iteration = -1 is not a whole number ≥ 0", id="iteration below 0"),
    ],
)
def test_bad_values_are_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below, without regular expressions
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Constant("0.1"), "base_lr = '0.1' is not a number", id="text for a rate"),  # type: ignore[arg-type]
        pytest.param(lambda: Constant(True), "base_lr = True is not a number", id="bool for a rate"),
        pytest.param(lambda: Factor(step=2.5), "step = 2.5 is not a whole number", id="fraction for a length"),  # type: ignore[arg-type]
        pytest.param(lambda: MultiFactor(step=5), "step = 5 is not a list of whole numbers", id="number for a list"),  # type: ignore[arg-type]
        pytest.param(lambda: Constant(0.1)(1.5), "iteration = 1.5 is not a whole number", id="fraction of an iteration"),  # type: ignore[arg-type]
    ],
)
def test_wrong_types_are_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    assert message in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    numpy_numbers: dict[str, Any] = {"step": np.array([2, 4]), "factor": np.float32(0.5), "base_lr": np.float64(1)}
    schedule = MultiFactor(**numpy_numbers)
    assert schedule == MultiFactor(step=[2, 4], factor=0.5, base_lr=1)
    assert schedule(np.int64(3)) == 0.5  # type: ignore[arg-type]


def test_a_schedule_is_a_value_that_nobody_changes() -> None:
    schedule = Cosine(max_update=10, base_lr=0.1)
    with pytest.raises(AttributeError, match=r"base_lr cannot become 0\.5: make the schedule with base_lr=0\.5"):
        schedule.base_lr = 0.5  # type: ignore[misc]
    with pytest.raises(AttributeError, match="max_update cannot become 20"):
        schedule.max_update = 20  # type: ignore[misc]
    schedule.base_lr = 0.001  # type: ignore[misc]  # what mx.optimizer.Adam does unasked: passed over
    assert schedule == Cosine(max_update=10, base_lr=0.1)


@pytest.mark.parametrize("cls", [Factor, MultiFactor], ids=lambda cls: cls.__name__)
def test_drops_are_the_iterations_before_a_lower_rate(cls: type[Schedule]) -> None:
    _, arguments_strategy = CURVE_ROWS[cls]

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(arguments=arguments_strategy)
    def check(arguments: dict[str, Any]) -> None:
        schedule = cls(**arguments)
        falls = [k for k in range(1, LAST) if schedule(k + 1) < schedule(k)]
        end_of_warmup = [arguments["warmup_steps"] - 1]  # may fall onto a level that dropped beneath it
        assert set(schedule.drops(LAST)) - set(end_of_warmup) == set(falls) - set(end_of_warmup)
        assert set(schedule.drops(LAST)) <= set(falls)

    check()
    assert Cosine(max_update=10).drops(100) == []


def test_a_long_decay_with_a_drop_at_every_iteration_is_asked_quickly_in_any_order() -> None:
    # Counted, not timed: every rate is computed once, however often and in whatever order it is asked for.
    multiplications = 0

    class Counting(float):
        def __rmul__(self, other: float) -> float:
            nonlocal multiplications
            multiplications += 1
            return float(other) * float(self)

    schedule = Factor(step=1, factor=0.9999, base_lr=1)
    object.__setattr__(schedule, "factor", Counting(0.9999))
    for iteration in (20_000, 5, 19_999, *range(1, 20_001)):
        schedule(iteration)
    assert multiplications == 19_999


@every_curve
def test_the_docstring_has_equation_and_example_of_first_last_and_later(cls: type[Schedule]) -> None:
    text = cls.__doc__ or ""
    assert "lr(k) =" in text.splitlines()[0]
    assert "schedule(1)," in text
    assert "schedule(1_000_000)" in text
    assert "MXNet" in text or "mx." in text  # where it comes from


def test_the_table_of_contents_names_every_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(schedules.__path__)}
    assert set(re.findall(r"^    (\w+)\.py  ", schedules.__doc__ or "", re.MULTILINE)) == modules
