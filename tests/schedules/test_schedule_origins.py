"""Comparison of the curves with their origins: MXNet's schedulers, its two tutorials, and papers."""

import math
from bisect import bisect
from collections.abc import Callable
from itertools import pairwise
from statistics import NormalDist, correlation, fmean, pstdev
from typing import Any

import pytest
import schedule_strategies as draw
from command_line import assert_names
from hypothesis import given, settings
from hypothesis import strategies as st
from origins.tutorials import (
    CosineAnnealingSchedule,
    CyclicalSchedule,
    LinearCoolDown,
    LinearWarmUp,
    OneCycleSchedule,
    Origin,
    TriangularSchedule,
)

from mnist_trainer.fields import FieldError
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import (
    REX,
    Constant,
    Cooldown,
    Cosine,
    CosineAnnealing,
    Cyclical,
    Factor,
    FlatCosine,
    InverseSqrt,
    InverseTime,
    Linear,
    MultiFactor,
    Noise,
    OneCycle,
    Poly,
    Schedule,
    Shift,
    Triangular,
    Warmup,
    cycles,
)

mx = import_mxnet()

# --- curves that stand alone

ORIGINS: dict[type[Schedule], tuple[Callable[..., Origin], draw.Arguments]] = {
    Constant: (lambda base_lr: lambda iteration: base_lr, st.fixed_dictionaries({"base_lr": draw.rates})),
    Factor: (mx.lr_scheduler.FactorScheduler, draw.factor_arguments()),
    MultiFactor: (mx.lr_scheduler.MultiFactorScheduler, draw.multi_factor_arguments()),
    Poly: (mx.lr_scheduler.PolyScheduler, draw.poly_arguments()),
    Cosine: (mx.lr_scheduler.CosineScheduler, draw.cosine_arguments()),
    CosineAnnealing: (CosineAnnealingSchedule, draw.cosine_annealing_arguments()),
    Triangular: (TriangularSchedule, draw.triangular_arguments()),
    OneCycle: (OneCycleSchedule, draw.one_cycle_arguments()),
}
"""Curve → its origin, and arguments for both."""


def last_of_cooldown(schedule: Any) -> int | None:
    """Return the iteration at which the tutorial's class has a rounding error, the last of a cool-down."""
    match schedule:
        case OneCycle(cycle_length=start, cooldown_length=length) | Cooldown(start=start, cooldown_steps=length) if length:
            return start + length
    return None


def assert_equal_to_the_last_bit(ours: Schedule, theirs: Origin, iterations: range) -> None:
    rounded = last_of_cooldown(ours)
    for iteration in iterations:
        rate, expected = ours.rate_at(iteration), theirs(iteration)
        if iteration == rounded:
            assert rate == ours(iteration + 1) == pytest.approx(expected, rel=1e-12, abs=1e-14)
        else:
            assert rate.hex() == float(expected).hex(), (ours, iteration)


@pytest.mark.parametrize("cls", ORIGINS, ids=lambda cls: cls.__name__)
def test_equals_its_origin_to_the_last_bit(cls: type[Schedule]) -> None:
    origin, arguments_strategy = ORIGINS[cls]

    @settings(max_examples=250, deadline=None, derandomize=True)
    @given(arguments=arguments_strategy, start=st.sampled_from([0, 1]), stride=st.integers(1, 7))
    def check(arguments: dict[str, Any], start: int, stride: int) -> None:
        # After the end, MXNet's Poly and Cosine repeat the rate of their last call, so no iteration may be left out.
        every = range(start, 2 * draw.LAST, 1 if cls in (Poly, Cosine) else stride)
        assert_equal_to_the_last_bit(cls(**arguments), origin(**arguments), every)

    check()


def test_a_first_call_past_the_end_does_not_return_the_initial_rate() -> None:
    theirs = mx.lr_scheduler.CosineScheduler(max_update=100, base_lr=1)
    assert theirs(101) == 1  # MXNet's, called out of order
    assert Cosine(max_update=100, base_lr=1)(101) == 0


# --- curves around others

INNER = {cls: ORIGINS[cls] for cls in (Factor, MultiFactor, Poly, CosineAnnealing, Triangular)}


@st.composite
def pairs(draws: st.DrawFn) -> tuple[Schedule, Callable[[], Origin]]:
    """Draw a curve, and a function that makes a new instance of its origin."""
    cls = draws(st.sampled_from(list(INNER)))
    origin, arguments_strategy = INNER[cls]
    arguments = draws(arguments_strategy)
    return cls(**arguments), lambda: origin(**arguments)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(pair=pairs(), start_lr=draw.rates, length=draw.lengths)
def test_warmup_equals_the_tutorials_class_to_the_last_bit(
    pair: tuple[Schedule, Callable[[], Origin]], start_lr: float, length: int
) -> None:
    curve, make_origin = pair
    theirs = LinearWarmUp(make_origin(), start_lr, length)

    def not_below_zero(iteration: int) -> float:  # rounding may make theirs -1e-17 at the end of a fall to 0
        return max(theirs(iteration), 0.0)

    ours = Warmup(curve, warmup_steps=length, warmup_begin_lr=start_lr)
    assert_equal_to_the_last_bit(ours, not_below_zero, range(2 * draw.LAST))


def is_not_poly(pair: tuple[Schedule, Callable[[], Origin]]) -> bool:
    # The class first calls its schedule at `start`. After the end, MXNet's Poly returns its initial rate in a first call.
    return not isinstance(pair[0], Poly)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(pair=pairs().filter(is_not_poly), finish_lr=draw.rates, start=st.integers(0, 300), length=draw.lengths)
def test_cooldown_equals_the_tutorials_class_to_the_last_bit(
    pair: tuple[Schedule, Callable[[], Origin]], finish_lr: float, start: int, length: int
) -> None:
    curve, make_origin = pair
    theirs = LinearCoolDown(make_origin(), finish_lr, start, length)
    ours = Cooldown(curve, start=start, cooldown_steps=length, final_lr=finish_lr)
    assert_equal_to_the_last_bit(ours, theirs, range(2 * draw.LAST))


@pytest.mark.parametrize("cls", [Triangular, CosineAnnealing], ids=lambda cls: cls.__name__)
def test_cyclical_equals_the_tutorials_class_to_the_last_bit(cls: type[Schedule]) -> None:
    origin, arguments_strategy = ORIGINS[cls]
    length_decays = st.floats(0.25, 4) | st.sampled_from([1, 2, 0.5])

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(arguments=arguments_strategy, length_decay=length_decays, magnitude_decay=draw.fractions)
    def check(arguments: dict[str, Any], length_decay: float, magnitude_decay: float) -> None:
        decays: dict[str, Any] = {"cycle_length_decay": length_decay, "cycle_magnitude_decay": magnitude_decay}
        assert_equal_to_the_last_bit(
            Cyclical(cls(**arguments), **decays), CyclicalSchedule(origin, **decays, **arguments), range(0, draw.LAST, 3)
        )

    check()


@pytest.mark.parametrize("cls", [Factor, MultiFactor], ids=lambda cls: cls.__name__)
def test_an_overlaid_warmup_around_a_curve_equals_mxnets_built_in_one_to_the_last_bit(cls: type[Schedule]) -> None:
    origin, arguments_strategy = ORIGINS[cls]

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(arguments=arguments_strategy.filter(lambda arguments: arguments["warmup_steps"] > 0))
    def check(arguments: dict[str, Any]) -> None:
        outside = {name: arguments[name] for name in ("warmup_steps", "warmup_begin_lr", "warmup_mode")}
        inside = {name: value for name, value in arguments.items() if name not in outside}
        assert_equal_to_the_last_bit(Warmup(cls(**inside), overlay=True, **outside), origin(**arguments), range(draw.LAST))

    check()


@pytest.mark.parametrize("cls", [Poly, Cosine], ids=lambda cls: cls.__name__)
def test_a_shifting_warmup_around_a_shorter_curve_equals_mxnets_built_in_one(cls: type[Schedule]) -> None:
    origin, arguments_strategy = ORIGINS[cls]

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(
        arguments=arguments_strategy.filter(
            lambda arguments: arguments["warmup_steps"] > 0 and arguments["warmup_mode"] == "linear"
        )
    )
    def check(arguments: dict[str, Any]) -> None:
        warmup_steps, begin = arguments["warmup_steps"], arguments["warmup_begin_lr"]
        inside = {name: value for name, value in arguments.items() if not name.startswith("warmup")}
        shorter = cls(**(inside | {"max_update": arguments["max_update"] - warmup_steps}))
        ours = Warmup(shorter, warmup_steps=warmup_steps, warmup_begin_lr=begin)
        theirs = origin(**arguments)
        expected = [theirs(iteration) for iteration in range(draw.LAST)]
        assert ours.rates(0, draw.LAST - 1) == pytest.approx(expected, rel=1e-12, abs=1e-14)

    check()


# --- the values in the tutorials

STEPS = MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)
TRIANGLE = Triangular(1, max_lr=2, cycle_length=1000, inc_fraction=0.2)
RESTARTS = Cyclical(CosineAnnealing(0.01, max_lr=2, cycle_length=250), cycle_length_decay=2, cycle_magnitude_decay=0.5)
ONE_CYCLE = OneCycle(0.1, max_lr=0.5, cycle_length=500, cooldown_length=750, finish_lr=0.001)
COOLED = Cooldown(STEPS, start=1000, cooldown_steps=500, final_lr=0.001)
WARMED = Warmup(STEPS, warmup_steps=250)


@pytest.mark.parametrize(
    ("schedule", "iteration", "learning_rate"),
    [
        pytest.param(Factor(step=250, factor=0.5, base_lr=1), 250, 1, id="factor, last before the drop"),
        pytest.param(Factor(step=250, factor=0.5, base_lr=1), 251, 0.5, id="factor, first after the drop"),
        pytest.param(MultiFactor(base_lr=1, step=[250], factor=0.5), 251, 0.5, id="multifactor, first after the drop"),
        pytest.param(STEPS, 900, 0.25, id="multifactor, 900"),
        pytest.param(STEPS, 901, 0.125, id="multifactor, 901"),
        pytest.param(Poly(max_update=1000, base_lr=1, pwr=2), 1, 0.998001, id="poly, first"),
        pytest.param(Poly(max_update=1000, base_lr=1, pwr=2), 1000, 0, id="poly, last"),
        pytest.param(Poly(max_update=1000, base_lr=1, pwr=2), 1500, 0, id="poly, after"),
        pytest.param(CosineAnnealing(min_lr=0, max_lr=1, cycle_length=1000), 500, 0.5, id="cosine annealing, middle"),
        pytest.param(CosineAnnealing(min_lr=0.1, max_lr=1, cycle_length=1000), 1001, 0.1, id="cosine annealing, after"),
        pytest.param(TRIANGLE, 1, 1.005, id="triangular, first"),
        pytest.param(TRIANGLE, 200, 2, id="triangular, tip"),
        pytest.param(TRIANGLE, 600, 1.5, id="triangular, half-way down"),
        pytest.param(RESTARTS, 250, 1, id="restarts, second cycle"),
        pytest.param(RESTARTS, 750, 0.5, id="restarts, third cycle"),
        pytest.param(RESTARTS, 1750, 0.25, id="restarts, fourth cycle"),
        pytest.param(ONE_CYCLE, 250, 0.5, id="one cycle, tip"),
        pytest.param(ONE_CYCLE, 875, 0.0505, id="one cycle, half-way through the cool-down"),
        pytest.param(ONE_CYCLE, 1250, 0.001, id="one cycle, last"),
        pytest.param(COOLED, 1000, 0.125, id="cool-down, last before"),
        pytest.param(COOLED, 1250, 0.063, id="cool-down, middle"),
        pytest.param(COOLED, 1500, 0.001, id="cool-down, last"),
        pytest.param(WARMED, 125, 0.5, id="warm-up, middle"),
        pytest.param(WARMED, 250, 1, id="warm-up, last"),
        pytest.param(WARMED, 500, 1, id="warm-up, last before the shifted drop"),
        pytest.param(WARMED, 501, 0.5, id="warm-up, first after the shifted drop"),
    ],
)
def test_the_values_in_the_tutorials(schedule: Schedule, iteration: int, learning_rate: float) -> None:
    assert schedule(iteration) == pytest.approx(learning_rate, rel=1e-12, abs=1e-12)


def test_the_tutorials_restarts_end_their_first_cycle_at_its_value() -> None:
    assert f"{RESTARTS(249):.6f}" == "0.010079"


def test_a_warmup_shifts_the_drops() -> None:
    assert list(STEPS.drops(2000)) == [250, 750, 900]
    assert list(WARMED.drops(2000)) == [500, 1000, 1150]


# --- Cyclical where the tutorial's class takes too long or never ends


@pytest.mark.parametrize(("decay", "lengths"), [(0.5, [250, 125, 63, 32, 16, 8, 4, 2, 1]), (1, [250]), (2, None)])
def test_cyclical_reaches_a_far_iteration_in_few_cycles(decay: float, lengths: list[int] | None) -> None:
    # This counts cycles instead of seconds. The tutorial's class loops once per cycle, hundreds of millions of times here.
    cycles._known_cycles.cache_clear()
    schedule = Cyclical(CosineAnnealing(0, max_lr=1, cycle_length=250), cycle_length_decay=decay)
    assert 0 <= schedule(10**9) <= 1
    starts, known = cycles._known_cycles(250, decay)
    assert len(starts) == len(known) <= 25
    assert lengths is None or known == lengths


def test_cyclical_counts_the_cycles_that_it_skips() -> None:
    schedule = Cyclical(CosineAnnealing(0, max_lr=1, cycle_length=8), cycle_length_decay=0.5, cycle_magnitude_decay=0.999)
    theirs = CyclicalSchedule(CosineAnnealingSchedule, 8, 0.5, 0.999, min_lr=0, max_lr=1)
    for iteration in (7, 8, 13, 14, 15, 16, 2000, 2001):
        assert schedule(iteration) == theirs(iteration)


def test_cyclical_refuses_cycles_of_no_length() -> None:
    with pytest.raises(FieldError) as caught:
        Cyclical(CosineAnnealing(0, max_lr=1, cycle_length=8), cycle_length_decay=0)  # the tutorial's class loops forever
    assert caught.value.field == "cycle_length_decay"
    assert_names(str(caught.value), "cycle_length_decay", "0", "from 1e-06 to")


# --- formulas of papers and libraries


@settings(max_examples=100, deadline=None, derandomize=True)
@given(warmup=draw.lengths, peak=st.floats(0.001, 10), start=st.floats(0, 1))
def test_inverse_sqrt_after_a_warmup_is_fairseqs(warmup: int, peak: float, start: float) -> None:
    def fairseq(updates: int) -> float:
        if updates < warmup:
            return start + updates * (peak - start) / warmup
        return float(peak * warmup**0.5 * updates**-0.5)

    ours = Warmup(InverseSqrt(timescale=warmup, base_lr=peak), warmup_steps=warmup, warmup_begin_lr=start)
    for iteration in (1, warmup - 1, warmup, warmup + 1, 4 * warmup, 10**6):
        assert ours(iteration) == pytest.approx(fairseq(iteration), rel=1e-12, abs=1e-14)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(flat=st.integers(1, 300), falling=st.integers(1, 300), base_lr=st.floats(0.001, 10))
def test_flat_cosine_is_fastais(flat: int, falling: int, base_lr: float) -> None:
    def cosine(start: float, end: float, part: float) -> float:  # SchedCos
        return start + (1 + math.cos(math.pi * (1 - part))) * (end - start) / 2

    def fastai(part: float) -> float:  # combined_cos(pct, lr, lr, lr/div_final)
        bounds = [0, flat / total, 1]
        phase = min(bisect(bounds, part) - 1, 1)
        inner = (part - bounds[phase]) / (bounds[phase + 1] - bounds[phase])
        return (cosine(base_lr, base_lr, inner), cosine(base_lr, base_lr / 1e5, inner))[phase]

    total = flat + falling
    ours = FlatCosine(max_update=total, flat_steps=flat, base_lr=base_lr, final_lr=base_lr / 1e5)
    expected = [fastai(iteration / total) for iteration in range(total + 1)]
    assert ours.rates(0, total) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(base_lr=st.floats(0.001, 10), gamma=st.floats(1e-6, 1), power=st.floats(0.1, 3))
def test_inverse_time_with_a_power_is_caffes_inv_and_a_pure_power(base_lr: float, gamma: float, power: float) -> None:
    inverse = InverseTime(step=1, decay_rate=gamma, power=power, base_lr=base_lr)
    pure = Shift(InverseTime(step=1, decay_rate=1, power=power, base_lr=base_lr), -1)
    for iteration in (1, 2, 10, 1000, 10**6):
        assert inverse(iteration) == pytest.approx(base_lr * (1 + gamma * iteration) ** -power, rel=1e-12)
        assert pure(iteration) == pytest.approx(base_lr * iteration**-power, rel=1e-12)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_a_rising_poly_with_k_decay_is_the_burn_in_of_darknet(power: int) -> None:
    burn_in = Poly(max_update=1000, base_lr=0, final_lr=0.3, pwr=1, k_decay=power)
    rates = [0.3 * (iteration / 1000) ** power for iteration in range(1001)]
    assert burn_in.rates(0, 1000) == pytest.approx(rates, rel=1e-12, abs=1e-15)


def test_an_overlaid_warmup_to_the_rate_of_the_curve_is_detectron2s() -> None:
    curve = Cosine(max_update=900, base_lr=0.1)

    def detectron2(iteration: int) -> float:  # WarmupParamScheduler, from warmup_factor · curve(0) to curve(warmup_length)
        begin, end = 0.001 * curve(0), curve(100)
        return begin + (end - begin) * iteration / 100 if iteration < 100 else curve(iteration)

    ours = Warmup(curve, 100, warmup_begin_lr=0.001 * curve(0), warmup_end_lr=curve(100), overlay=True)
    assert ours.rates(0, 1000) == pytest.approx([detectron2(iteration) for iteration in range(1001)], rel=1e-12, abs=1e-18)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(total=st.integers(1, 1000), base_lr=st.floats(0.001, 10))
def test_rex_has_the_formula_of_its_paper(total: int, base_lr: float) -> None:
    def paper(iteration: int) -> float:
        remaining = 1 - iteration / total
        return base_lr * remaining / (0.5 + 0.5 * remaining)

    expected = [paper(iteration) for iteration in range(total + 1)]
    assert REX(total, base_lr=base_lr).rates(0, total) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_the_last_drop_of_flat_cosine_has_the_shape_of_cosine() -> None:
    flat, cosine = FlatCosine(max_update=100, flat_steps=60, base_lr=1, final_lr=0.1), Cosine(40, base_lr=1, final_lr=0.1)
    assert flat.rates(60, 120) == pytest.approx(cosine.rates(0, 60), rel=1e-14)


# --- Noise


@pytest.mark.parametrize(("noise_pct", "noise_std"), [(0.67, 1.0), (0.1, 0.05), (0.5, 0.1), (1.0, 10.0)])
def test_noise_has_the_truncated_normal_distribution(noise_pct: float, noise_std: float) -> None:
    count = 10_000
    noise = [rate - 1 for rate in Noise(Constant(1), seed=3, noise_pct=noise_pct, noise_std=noise_std).rates(1, count)]
    assert max(map(abs, noise)) <= noise_pct

    normal = NormalDist()
    cut = noise_pct / noise_std
    inside = normal.cdf(cut) - normal.cdf(-cut)
    std = noise_std * math.sqrt(1 - 2 * cut * normal.pdf(cut) / inside)
    assert abs(fmean(noise)) < 4 * std / math.sqrt(count)
    assert pstdev(noise) == pytest.approx(std, rel=0.03)

    def expected(value: float) -> float:
        return (normal.cdf(value / noise_std) - normal.cdf(-cut)) / inside

    furthest = max(abs(rank / count - expected(value)) for rank, value in enumerate(sorted(noise)))
    assert furthest < 1.63 / math.sqrt(count)  # Kolmogorov and Smirnov, at 1 %


def test_noise_is_drawn_once_for_a_seed_and_an_iteration() -> None:
    one, other = Noise(Constant(1), seed=1), Noise(Constant(1), seed=2)
    assert Noise(Constant(1), seed=1).rates(1, 2000) == one.rates(1, 2000)
    assert len({*one.rates(1, 2000), *other.rates(1, 2000)}) == 4000
    assert abs(correlation(one.rates(1, 2000), other.rates(1, 2000))) < 4 / math.sqrt(2000)
    assert abs(correlation(one.rates(1, 2000), one.rates(2, 2001))) < 4 / math.sqrt(2000)


def test_noise_is_proportional_to_the_rate() -> None:
    line = Linear(max_update=100, base_lr=2)
    around_one, around_line = Noise(Constant(1), seed=1), Noise(line, seed=1)
    expected = [line(iteration) * around_one(iteration) for iteration in range(101)]
    assert around_line.rates(0, 100) == pytest.approx(expected, rel=1e-12)


def test_noise_acts_from_start_to_end_only() -> None:
    noisy = [rate != 1 for rate in Noise(Constant(1), seed=1, start=5, end=9).rates(0, 20)]
    assert [iteration for iteration, is_noisy in enumerate(noisy) if is_noisy] == [5, 6, 7, 8, 9]
    assert Noise(Constant(1), seed=1)(0) == 1
    assert Noise(Constant(1), seed=1)(10**9) != 1


def test_noise_with_an_extreme_deviation_is_within_its_bounds() -> None:
    steady = Noise(Constant(1), seed=1, noise_pct=1.0, noise_std=1e-6)
    assert max(abs(rate - 1) for rate in steady.rates(1, 500)) < 6e-6
    assert all(0 <= rate <= 2 for rate in Noise(Constant(1), seed=1, noise_pct=1.0, noise_std=1e6).rates(1, 500))


def test_noise_rises_as_often_as_it_falls() -> None:
    rates = Noise(Constant(1), seed=0).rates(1, 1001)
    rises = sum(after > before for before, after in pairwise(rates))
    assert 440 <= rises <= 560  # 500 ± more than five standard deviations of a random sequence, √(1000/12)
