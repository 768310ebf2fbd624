"""The slopes of smooth curves, and the drops of others."""

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import schedule_strategies as draw
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Scale,
    Schedule,
    Sequential,
    Shift,
    Sum,
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
        case Greedy():
            return 0
        case REX(base_lr=top, final_lr=end, max_update=length):
            return abs(top - end) * 2 / length
        case Poly(base_lr=top, final_lr=end, max_update=length, pwr=power, k_decay=1, warmup_steps=warmup) if power >= 1:
            return max(abs(top - end) * power / (length - warmup), builtin_warmup(schedule))
        case Cosine(base_lr=top, final_lr=end, max_update=length, k_decay=1, exponent=1, warmup_steps=warmup):
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
            return float(schedule.base_lr * schedule.decay_rate / schedule.step * getattr(schedule, "power", 1))
        case InverseSqrt(base_lr=top, timescale=timescale):
            return top / 2 / timescale
        case Noam(base_lr=top, model_size=size, warmup_steps=warmup):
            return float(top * size**-0.5 * warmup**-1.5)
        case Triangular(min_lr=low, max_lr=high, cycle_length=length, inc_fraction=share) if 0 < share < 1:
            fall_by_factor = (high - low) * (1 - getattr(schedule, "factor", 1))
            return (high - low) / length / min(share, 1 - share) + fall_by_factor
        case OneCycle(start_lr=low, max_lr=high, cycle_length=length, cooldown_length=cooldown, finish_lr=end):
            return max((high - low) / length * 2, abs(low - end) / cooldown if end is not None else 0)
        case OneCycleLR() if (phase := shortest_phase(schedule)) > 0:
            return schedule.max_rate * math.pi / 2 / phase
        case OneCycleMomentum(base_momentum=low, max_momentum=high) if (phase := shortest_phase(schedule)) > 0:
            return (high - low) * math.pi / 2 / phase
        case WarmupStableDecay(base_lr=top, final_lr=end, decay_steps=length, warmup_steps=warmup, warmup_begin_lr=begin):
            rise: float = abs(top - begin) / warmup if warmup else 0
            return max(abs(top - end) * decay_slope(schedule), rise) if length else math.inf
        case FlatCosine(base_lr=top, final_lr=end, max_update=length, flat_steps=flat):
            return abs(top - end) * math.pi / 2 / (length - flat)
        case Warmup(curve=inner, warmup_steps=0):
            return steepest(inner)
        case Warmup(curve=inner, warmup_begin_lr=begin, warmup_end_lr=None, warmup_mode="linear" | "cosine", overlay=False):
            return max(steepest(inner), abs(inner(0) - begin) * math.pi / 2 / schedule.warmup_steps)
        case Warmup(curve=inner, warmup_begin_lr=begin, warmup_mode="1-exp"):
            return steepest(inner) + max(highest(inner), begin) / schedule.warmup_steps
        case Cooldown(curve=inner, start=start, cooldown_steps=length, final_lr=end):
            return max(steepest(inner), abs(inner(start) - end) * decay_slope(schedule)) if length else math.inf
        case Clip(curve=inner) | Plateau(curve=inner) | NewBob(curve=inner) | Shift(curve=inner):
            return steepest(inner)
        case Sum(curves=curves, weights=weights):
            factors = weights or (1,) * len(curves)
            return sum(float(factor) * steepest(inner) for factor, inner in zip(factors, curves, strict=True) if factor)
        case Scale(curve=inner, factor=factor):
            return steepest(inner) * float(factor) if factor else 0.0
        case Product(curves=(one, other)):
            return steepest(one) * highest(other) + steepest(other) * highest(one)
    return math.inf


def decay_slope(schedule: WarmupStableDecay | Cooldown) -> float:
    """Return the steepest slope of a decay from 1 to 0."""
    length = schedule.decay_steps if isinstance(schedule, WarmupStableDecay) else schedule.cooldown_steps
    power, ratio = schedule.decay_power, schedule.decay_ratio
    slopes = {
        "linear": 1 / length,
        "cosine": math.pi / 2 / length,
        "1-sqrt": length**-0.5,
        "power": power / length if power >= 1 else length**-power,
        "exponential": -math.log(ratio) / (1 - ratio) / length,
    }
    return float(slopes[schedule.decay])


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
    Hold: "changes from period to period",
    Noise: "jumps at every iteration",
}
"""Curve without a bound on its slope → the reason."""


@pytest.mark.parametrize("cls", [cls for cls in CURVES if cls not in JUMPS], ids=lambda cls: cls.__name__)
def test_a_smooth_curve_is_nowhere_steeper_than_its_formula(cls: type[Schedule]) -> None:
    smooth = [Linear, CosineAnnealing, InverseSqrt, PiecewiseLinear]
    inner = st.one_of([draw.schedules_of(kind) for kind in smooth])
    pair = st.tuples(inner, inner).map(lambda curves: {"curves": curves})
    weighted = draw.merged(pair, draw.perhaps(weights=st.tuples(st.floats(0, 5), st.floats(0, 5))))
    several = {Product: pair, Sum: weighted}
    arguments = draw.LEAVES[cls] if cls in draw.LEAVES else several[cls] if cls in several else draw.HOLDERS[cls](inner)
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

    spacing = stepwise._KnownRates([]).spacing
    drops = 100 * spacing
    schedule = Factor(step=1, factor=0.9999, base_lr=1)
    object.__setattr__(schedule, "factor", Counting(0.9999))
    schedule(drops)
    assert multiplications < drops
    for iteration in (5, drops - 1, *range(1, drops + 1, 101)):
        multiplications = 0
        schedule(iteration)
        assert multiplications < spacing
    assert len(stepwise._known_rates(1, 0.9999, schedule.stop_factor_lr).rates) == 100


def test_the_rates_of_a_long_decay_are_products_at_any_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepwise, "_MAX_KNOWN", 8)  # a full cache keeps every second rate
    stepwise._known_rates.cache_clear()
    learning_rate, schedule = 1.0, Factor(step=1, factor=0.9999, base_lr=1, stop_factor_lr=0.5)
    expected = []
    for iteration in range(1, 6000):
        expected.append(learning_rate)
        assert schedule(iteration) == learning_rate
        learning_rate = max(learning_rate * 0.9999, 0.5)
    known = stepwise._known_rates(1.0, 0.9999, 0.5)
    assert len(known.rates) <= 8
    assert known.spacing >= 512
    assert schedule.rates(1, 5999) == expected


def test_drops_are_found_behind_many_others() -> None:
    dense = Factor(step=1, factor=0.9999, base_lr=1, stop_factor_lr=0)
    assert next(Shift(dense, 20_000).drops(30_000)) == 1
    assert next(Warmup(dense, 20_000, overlay=True).drops(30_000)) == 19_999


@pytest.mark.parametrize(
    ("around", "missed"),
    [
        (lambda steps: steps, 500),
        (lambda steps: Shift(steps, -10), 510),
        (lambda steps: Sum([steps, Constant(0.1)]), 500),
        (lambda steps: Product([steps, Cosine(900, base_lr=1)]), 500),
        (lambda steps: Hold(steps, 100), 500),
        (lambda steps: Repeat(steps, 1000), 500),
        (lambda steps: Sequential([Constant(1), steps], [100]), 600),
    ],
)
def test_a_drop_that_a_run_misses_is_found_in_a_composition(around: Any, missed: int) -> None:
    for steps in (MultiFactor(step=[500], factor=0.5, base_lr=1), Factor(step=500, factor=0.5, base_lr=1)):
        assert around(steps).missed_drop(400) == missed + (100 if isinstance(around(steps), Hold) else 0)


@pytest.mark.parametrize(
    "schedule",
    [
        Factor(1, factor=1 - 1e-12),
        Shift(Factor(1, factor=0.9999999999999999), 10**18),
        Sequential([Factor(1, factor=0.5), Constant(1)], [10**12]),
        Cooldown(Factor(1, factor=0.5), start=10**8, cooldown_steps=5),
        Shift(Shift(Factor(1, factor=0.5), -(10**18)), -(10**18)),
        WarmRestarts(0, max_lr=1, cycle_length=1.0000001, cycle_limit=10**18),
    ],
    ids=repr,
)
def test_far_iterations_take_a_bounded_number_of_steps(schedule: Schedule) -> None:
    # Each of these looped for minutes once. The limit of the test run ends them.
    assert schedule(10**18) >= 0
    assert (schedule.plotted_iterations or 0) <= 10**18
    assert next(schedule.drops(1000), 0) >= 0
    assert "svg" in schedule._repr_html_()


def test_the_exponential_decay_is_exact_for_every_ratio() -> None:
    for ratio in (1e-12, 0.1, 0.5, 0.999, 1 - 1e-12):
        schedule = Cooldown(Constant(1), start=0, cooldown_steps=2, decay="exponential", decay_ratio=ratio)
        exact = (Fraction(math.sqrt(ratio)) - Fraction(ratio)) / (1 - Fraction(ratio)) if ratio < 0.9 else Fraction(1, 2)
        assert schedule.rates(0, 2) == pytest.approx([1, float(exact), 0], rel=1e-3 if ratio > 0.9 else 1e-12)


# --- restarts


@pytest.mark.parametrize("cycle_length", [1, 3, 7, 10, 50, 96, 100, 200, 469, 938, 1000, 1340])
def test_a_cycle_begins_at_its_maximum_for_every_factor_of_two_decimals(cycle_length: int) -> None:
    whole_starts = 0
    for hundredths in range(100, 401):
        schedule = WarmRestarts(min_lr=0, max_lr=1, cycle_length=cycle_length, t_mult=hundredths / 100)
        factor = Fraction(hundredths, 100)
        starts = [cycle_length * sum((factor**cycle for cycle in range(count)), Fraction(0)) for count in range(12)]
        whole = [int(start) for start in starts if start.denominator == 1]
        assert [iteration for iteration in whole if schedule(iteration) != 1] == [], hundredths
        whole_starts += len(whole)
        for start, following in itertools.pairwise(starts):
            last = math.ceil(following) - 1
            if last > start:
                done = float((last - start) / (following - start))
                assert schedule(last) == pytest.approx((1 + math.cos(math.pi * done)) / 2)
    assert whole_starts >= 600


@settings(max_examples=300, deadline=None, derandomize=True)
@given(cycles=st.integers(1, 60), total=st.integers(120, 10_000))
def test_cycles_of_a_length_that_is_not_whole_begin_at_their_maximum(cycles: int, total: int) -> None:
    schedule = WarmRestarts(min_lr=0, max_lr=1, cycle_length=total / cycles)
    for count in range(1, 2 * cycles):
        start = Fraction(total * count, cycles)
        if start.denominator == 1:
            assert schedule(int(start)) == 1
            assert schedule(int(start) - 1) < 0.9


def test_the_start_of_a_far_cycle_is_found() -> None:
    schedule = WarmRestarts(min_lr=0, max_lr=1, cycle_length=1, t_mult=1.000001)
    assert 0 <= schedule(10**9) <= 1
    assert 0 <= schedule(10**18) <= 1
    assert WarmRestarts(min_lr=0, max_lr=1, cycle_length=100, t_mult=1.11)(100) == 1


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
    assert changed or cls in (Constant, Greedy, *ENDLESS)


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
