"""The slopes of smooth curves, and the drops of others."""

import itertools
import math
from typing import Any

import pytest
import schedule_strategies as draw
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_trainer.schedules import (
    CURVES,
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
    InverseSqrt,
    InverseTime,
    Linear,
    MultiFactor,
    NaturalExponential,
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
    Scale,
    Schedule,
    Sequential,
    Tanh,
    Triangular,
    Triangular2,
    UserSchedule,
    WarmRestarts,
    Warmup,
    WarmupStableDecay,
    stepwise,
)


def steepest(schedule: Any) -> float:
    """Return a bound of the difference between neighbouring rates, from the derivative of the formula; inf for jumps."""
    match schedule:
        case Constant():
            return 0
        case Linear(base_lr=top, final_lr=end, max_update=length):
            return abs(top - end) / length
        case Poly(base_lr=top, final_lr=end, max_update=length, pwr=power, warmup_steps=warmup) if power >= 1:
            return max(abs(top - end) * power / (length - warmup), builtin_warmup(schedule))
        case Cosine(base_lr=top, final_lr=end, max_update=length, k_decay=1, warmup_steps=warmup):
            return max(abs(top - end) * math.pi / 2 / (length - warmup), builtin_warmup(schedule))
        case CosineAnnealing(min_lr=low, max_lr=high, cycle_length=length):
            return (high - low) * math.pi / 2 / length
        case PiecewiseLinear(knots=knots, values=values):
            pairs = itertools.pairwise(zip(knots, values, strict=True))
            return max((abs(b - a) / (right - left) for (left, a), (right, b) in pairs), default=0)
        case Tanh(base_lr=top, final_lr=end, max_update=length, lower=lower, upper=upper):
            return abs(top - end) * ((upper - lower) / 2 / length + (1 - math.tanh(upper)) / 2)
        case Exponential(base_lr=top, step=step, factor=factor, staircase=False) if factor > 0:
            return -top * math.log(factor) / step
        case NaturalExponential(staircase=False) | InverseTime(staircase=False):
            return float(schedule.base_lr * schedule.decay_rate / schedule.step)
        case InverseSqrt(base_lr=top, timescale=timescale):
            return top / 2 / timescale
        case Noam(base_lr=top, model_size=size, warmup_steps=warmup):
            return float(top * size**-0.5 * warmup**-1.5)
        case Triangular(min_lr=low, max_lr=high, cycle_length=length, inc_fraction=share) if 0 < share < 1:
            fall_by_factor = (high - low) * (1 - getattr(schedule, "factor", 1))
            return (high - low) / length / min(share, 1 - share) + fall_by_factor
        case OneCycle(start_lr=low, max_lr=high, cycle_length=length, cooldown_length=cooldown, finish_lr=end):
            return max((high - low) / length * 2, abs(low - end) / cooldown if end is not None else 0)
        case OneCycleLR(max_lr=high) if (phase := shortest_phase(schedule)) > 0:
            return high * math.pi / 2 / phase
        case OneCycleMomentum(base_momentum=low, max_momentum=high) if (phase := shortest_phase(schedule)) > 0:
            return (high - low) * math.pi / 2 / phase
        case WarmupStableDecay(base_lr=top, final_lr=end, decay_steps=length, warmup_steps=warmup, warmup_begin_lr=begin):
            slopes = {"linear": 1 / length, "cosine": math.pi / 2 / length, "1-sqrt": length**-0.5}
            rise: float = abs(top - begin) / warmup if warmup else 0
            return float(max(abs(top - end) * slopes[schedule.decay], rise))
        case FlatCosine(base_lr=top, final_lr=end, max_update=length, flat_steps=flat):
            return abs(top - end) * math.pi / 2 / (length - flat)
        case Warmup(curve=inner, warmup_steps=warmup, warmup_begin_lr=begin, warmup_mode="linear" | "cosine", overlay=False):
            return max(steepest(inner), abs(inner(0) - begin) * math.pi / 2 / warmup)
        case Cooldown(curve=inner, start=start, cooldown_steps=length, final_lr=end):
            return max(steepest(inner), abs(inner(start) - end) / length)
        case Clip(curve=inner) | Plateau(curve=inner):
            return steepest(inner)
        case Scale(curve=inner, factor=factor):
            return steepest(inner) * float(factor) if factor else 0.0
        case Product(curves=(one, other)):
            return steepest(one) * highest(other) + steepest(other) * highest(one)
    return math.inf


def builtin_warmup(schedule: Poly | Cosine) -> float:
    if schedule.warmup_mode == "constant" and schedule.warmup_steps:
        return math.inf
    return (schedule.base_lr - schedule.warmup_begin_lr) / schedule.warmup_steps if schedule.warmup_steps else 0


def shortest_phase(schedule: OneCycleLR | OneCycleMomentum) -> float:
    rise = schedule.pct_start * schedule.max_update - 1
    return min(rise, schedule.max_update - 1 - (2 if schedule.three_phase else 1) * rise)


def highest(schedule: AnySchedule) -> float:
    return max(schedule.rates(0, draw.LAST + 50))


JUMPS = {
    Factor: "drops",
    MultiFactor: "drops",
    Piecewise: "changes in one iteration",
    WarmRestarts: "starts again",
    Cyclical: "starts again",
    Sequential: "continues with another curve",
    Repeat: "starts again",
    Noise: "jumps at every iteration",
}
"""Curve without a bound on its slope → the reason."""


@pytest.mark.parametrize("cls", [cls for cls in CURVES if cls not in JUMPS], ids=lambda cls: cls.__name__)
def test_a_smooth_curve_is_nowhere_steeper_than_its_formula(cls: type[Schedule]) -> None:
    smooth = [Linear, CosineAnnealing, InverseSqrt, PiecewiseLinear]
    inner = st.one_of([draw.schedules_of(kind) for kind in smooth])
    pair = st.tuples(inner, inner).map(lambda curves: {"curves": curves})
    arguments = draw.LEAVES[cls] if cls in draw.LEAVES else pair if cls is Product else draw.HOLDERS[cls](inner)
    bounded = 0

    @settings(max_examples=80, deadline=None, derandomize=True)
    @given(drawn=arguments)
    def check(drawn: dict[str, Any]) -> None:
        nonlocal bounded
        schedule = cls(**drawn)
        bound = steepest(schedule)
        if bound < math.inf and not getattr(schedule, "cycle", False):
            rates = schedule.rates(0, draw.LAST + 50)
            steps = [abs(after - before) for before, after in itertools.pairwise(rates)]
            assert max(steps) <= bound * (1 + 1e-9) + 1e-13 * max(rates), steps.index(max(steps))
            bounded += 1

    check()
    assert bounded >= 10


# --- drops


def falls(schedule: AnySchedule) -> list[int]:
    """Return the iterations before a lower rate."""
    rates = schedule.rates(1, draw.LAST)
    return [iteration for iteration, (rate, later) in enumerate(itertools.pairwise(rates), start=1) if later < rate]


@pytest.mark.parametrize("cls", [Factor, MultiFactor], ids=lambda cls: cls.__name__)
def test_drops_are_the_iterations_before_a_lower_rate(cls: type[Schedule]) -> None:
    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(arguments=draw.LEAVES[cls])
    def check(arguments: dict[str, Any]) -> None:
        schedule = cls(**arguments)
        fallen = set(falls(schedule))
        end_of_warmup = {arguments["warmup_steps"] - 1}  # a drop during the warm-up may make its end a fall
        assert set(schedule.drops(draw.LAST)) - end_of_warmup == fallen - end_of_warmup
        assert set(schedule.drops(draw.LAST)) <= fallen

    check()


@pytest.mark.parametrize("cls", [Piecewise, Exponential, NaturalExponential, InverseTime], ids=lambda cls: cls.__name__)
def test_levels_and_staircases_list_every_fall_in_order(cls: type[Schedule]) -> None:
    dropped = 0

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(arguments=draw.LEAVES[cls])
    def check(arguments: dict[str, Any]) -> None:
        nonlocal dropped
        schedule = cls(**(arguments if cls is Piecewise else arguments | {"staircase": True}))
        fallen = falls(schedule)
        assert list(schedule.drops(draw.LAST)) == fallen
        dropped += bool(fallen)

    check()
    assert dropped >= 10


def test_smooth_curves_have_no_drops() -> None:
    for cls in (Poly, Cosine, Linear, Exponential, NaturalExponential, InverseTime, Noam, OneCycle, Tanh):
        assert list(cls(**cls.example).drops(1000)) == []


def test_a_long_decay_takes_little_memory_and_few_multiplications_in_any_order() -> None:
    # This counts multiplications instead of seconds: after the first call, no call computes more than one block of rates.
    multiplications = 0

    class Counting(float):
        def __rmul__(self, other: float) -> float:
            nonlocal multiplications
            multiplications += 1
            return float(other) * float(self)

    drops = 100 * stepwise._BLOCK
    schedule = Factor(step=1, factor=0.9999, base_lr=1)
    object.__setattr__(schedule, "factor", Counting(0.9999))
    schedule(drops)
    assert multiplications < drops
    for iteration in (5, drops - 1, *range(1, drops + 1, 101)):
        multiplications = 0
        schedule(iteration)
        assert multiplications < stepwise._BLOCK
    assert len(stepwise._rates_after_blocks(1, 0.9999, schedule.stop_factor_lr)) == 100


def test_the_rates_of_a_long_decay_are_products_across_its_blocks() -> None:
    learning_rate, schedule = 1.0, Factor(step=1, factor=0.999, base_lr=1, stop_factor_lr=0.5)
    for iteration in range(1, 4 * stepwise._BLOCK):
        assert schedule(iteration) == learning_rate
        learning_rate = max(learning_rate * 0.999, 0.5)


# --- bounds


@settings(max_examples=400, deadline=None, derandomize=True)
@given(schedule=draw.nested(2), asked=st.lists(draw.iterations, min_size=1))
def test_no_rate_is_above_the_bound(schedule: Schedule, asked: list[int]) -> None:
    assert max(schedule(iteration) for iteration in (0, 1, *asked)) <= schedule.max_rate * (1 + 1e-12)


@pytest.mark.parametrize("cls", [cls for cls in CURVES if cls is not Noam], ids=lambda cls: cls.__name__)
def test_the_bound_of_an_example_is_close(cls: type[Schedule]) -> None:
    schedule = cls(**cls.example)
    assert max(schedule.rates(0, 2000)) <= schedule.max_rate * (1 + 1e-12)
    assert schedule.max_rate <= 2 * max(schedule.rates(0, 2000))


def test_the_bound_of_small_divisors() -> None:
    rising = OneCycleLR(max_lr=1, max_update=10, div_factor=0.5, final_div_factor=0.1)
    assert rising.max_rate == pytest.approx(max(rising.rates(0, 10))) == pytest.approx(20)


def test_a_user_function_has_no_bound() -> None:
    assert Clip(UserSchedule(lambda iteration: 0.1, "own"), max_lr=1).max_rate == math.inf


@pytest.mark.parametrize("cls", CURVES)
def test_the_rate_stays_the_same_from_the_last_change_on(cls: type[Schedule]) -> None:
    changed = 0

    @settings(max_examples=60)
    @given(schedule=draw.schedules_of(cls))
    def check(schedule: Schedule) -> None:
        nonlocal changed
        if end := schedule.last_change:
            later = [end + 1, end + 2, end + 37, 2 * end, 10**7]
            assert {schedule(iteration) for iteration in later} == {schedule(end)}
            changed += end > 1 and schedule(end - 1) != schedule(end)

    check()
    assert changed or cls in (Constant, *ENDLESS)


ENDLESS: list[type[Schedule]] = [Factor, Exponential, NaturalExponential, InverseTime, InverseSqrt, Noam]
ENDLESS += [Triangular2, ExpRange, Cyclical, Repeat]


def test_the_last_change_of_a_warmup_over_its_curve() -> None:
    assert Warmup(Linear(max_update=100), warmup_steps=10, overlay=True).last_change == 100
    assert Warmup(Linear(max_update=10), warmup_steps=100, overlay=True).last_change == 100
    assert Warmup(Linear(max_update=100), warmup_steps=10).last_change == 110


@pytest.mark.parametrize("cls", ENDLESS)
def test_a_curve_without_an_end_has_no_last_change(cls: type[Schedule]) -> None:
    schedule = cls(**cls.example)
    assert schedule.last_change is None
    assert Warmup(schedule, warmup_steps=10).last_change is None
    assert Sequential([Constant(1), schedule], boundaries=[10]).last_change is None
    assert Sequential([schedule, Constant(1)], boundaries=[10]).last_change == 11
    assert Product([Constant(1), schedule]).last_change is None


@pytest.mark.parametrize(
    ("schedule", "iterations"),
    [
        (Cosine(max_update=9380, base_lr=1), 9380),
        (Warmup(Cosine(max_update=900, base_lr=1), warmup_steps=100), 1000),
        (MultiFactor(step=[250, 750, 899], factor=0.5, base_lr=1), 990),  # a tenth more shows the last level
        (WarmRestarts(min_lr=0, max_lr=1, cycle_length=100, t_mult=2, cycle_limit=3), 700),
        (Constant(0.1), None),
        (Factor(step=250, factor=0.5, base_lr=1), None),
        (UserSchedule(lambda _: 0.1, "own"), None),
    ],
    ids=str,
)
def test_a_plot_is_as_long_as_the_curve(schedule: AnySchedule, iterations: int | None) -> None:
    assert schedule.plotted_iterations == iterations
