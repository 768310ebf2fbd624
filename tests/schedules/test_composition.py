"""Schedules made of schedules: their calls of the inner curves, their rates, and their drops."""

from itertools import islice, pairwise
from typing import Any

import pytest
import schedule_strategies as draw
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_trainer.schedules import (
    AnySchedule,
    Clip,
    Constant,
    Cooldown,
    Cosine,
    CosineAnnealing,
    Cyclical,
    Exponential,
    Factor,
    Hold,
    Linear,
    MultiFactor,
    Noise,
    Piecewise,
    Plateau,
    Poly,
    Product,
    Repeat,
    Scale,
    Schedule,
    Sequential,
    Shift,
    Sum,
    Triangular,
    Triangular2,
    UserSchedule,
    WarmRestarts,
    Warmup,
)
from mnist_trainer.schedules.composition import WarmupMode

LINE = Linear(max_update=10, base_lr=1)
STEPS = MultiFactor(step=[4, 8], factor=0.5, base_lr=1)


class Recorder:
    """A user's function that records the iterations of its calls."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.schedule = UserSchedule(self, "tests:recorder")

    def __call__(self, iteration: int) -> float:
        self.asked.append(iteration)
        return 1.0


@pytest.mark.parametrize(
    ("around", "asked"),
    [
        pytest.param(lambda curve: Warmup(curve, warmup_steps=3), [1, 1, 1, 1, 2, 3], id="Warmup"),
        pytest.param(lambda curve: Warmup(curve, warmup_steps=3, overlay=True), [1, 1, 3, 4, 5, 6], id="Warmup, overlay"),
        pytest.param(lambda curve: Cooldown(curve, start=2, cooldown_steps=2), [1, 2, 2], id="Cooldown"),
        pytest.param(lambda curve: Sequential([Constant(1), curve], [2]), [1, 2, 3, 4], id="Sequential, second"),
        pytest.param(lambda curve: Sequential([curve, Constant(1)], [2]), [1, 2], id="Sequential, first"),
        pytest.param(lambda curve: Repeat(curve, length=2), [1, 2, 1, 2, 1, 2], id="Repeat"),
        pytest.param(lambda curve: Shift(curve, 2), [3, 4, 5, 6, 7, 8], id="Shift, ahead"),
        pytest.param(lambda curve: Shift(curve, -2), [1, 1, 1, 2, 3, 4], id="Shift, behind"),
        pytest.param(lambda curve: Hold(curve, 2), [1, 1, 2, 2, 4, 4], id="Hold"),
        pytest.param(lambda curve: Sum([LINE, curve]), [1, 2, 3, 4, 5, 6], id="Sum"),
        pytest.param(lambda curve: Product([curve, LINE]), [1, 2, 3, 4, 5, 6], id="Product"),
        pytest.param(lambda curve: Clip(curve, min_lr=0.5), [1, 2, 3, 4, 5, 6], id="Clip"),
        pytest.param(lambda curve: Scale(curve, factor=0.5), [1, 2, 3, 4, 5, 6], id="Scale"),
        pytest.param(lambda curve: Noise(curve, seed=1), [1, 2, 3, 4, 5, 6], id="Noise"),
        pytest.param(lambda curve: Plateau(curve), [1, 2, 3, 4, 5, 6], id="Plateau"),
    ],
)
def test_a_composition_calls_its_curve_at_the_right_iterations(around: Any, asked: list[int]) -> None:
    class Fresh(UserSchedule):
        def rate_at(self, iteration: int) -> float:  # without the cache of the last rate
            return self._ask(max(iteration, 1))

    recorder = Recorder()
    around(Fresh(recorder, "tests:recorder")).rates(1, 6)
    assert recorder.asked == asked


def test_an_overlaid_warmup_does_not_shift_the_curve() -> None:
    shifting, overlaying = Warmup(STEPS, warmup_steps=5), Warmup(STEPS, warmup_steps=5, overlay=True)
    assert shifting.rates(6, 20) == STEPS.rates(1, 15)
    assert overlaying.rates(5, 20) == STEPS.rates(5, 20)
    assert shifting.rates(1, 4) == overlaying.rates(1, 4) == [0.2, 0.4, 0.6, 0.8]


@pytest.mark.parametrize("mode", ["linear", "exponential", "cosine", "1-sqrt"])
@settings(max_examples=50, deadline=None, derandomize=True)
@given(begin=st.floats(1e-6, 1), finish=st.floats(1, 10), length=draw.lengths)
def test_a_warmup_rises_to_the_initial_rate_of_the_curve(mode: WarmupMode, begin: float, finish: float, length: int) -> None:
    schedule = Warmup(Constant(finish), warmup_steps=length, warmup_begin_lr=begin, warmup_mode=mode)
    rates = schedule.rates(0, length)
    assert rates[0] == pytest.approx(begin, rel=1e-12)
    assert rates[-1] == pytest.approx(finish, rel=1e-12)
    assert all(later >= earlier * (1 - 1e-12) for earlier, later in pairwise(rates))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(begin=draw.rates, length=draw.lengths)
def test_a_warmup_that_falls_to_zero_is_never_negative(begin: float, length: int) -> None:
    schedule = Warmup(Constant(0), warmup_steps=length, warmup_begin_lr=begin)
    assert min(schedule.rates(0, length + 1)) == 0


def test_the_linear_scaling_rule_with_the_warmup_of_goyal_and_others() -> None:
    # "Accurate, Large Minibatch SGD": a batch of 8192 = 32 · 256 has 32 times the rate, reached over five epochs.
    epoch = 156
    steps = MultiFactor(step=[25 * epoch, 55 * epoch], factor=0.1, base_lr=0.1)
    schedule = Warmup(Scale(steps, factor=32), warmup_steps=5 * epoch, warmup_begin_lr=0.1)
    assert schedule.rates(0, 1) == pytest.approx([0.1, 0.1 + 3.1 / 780])
    assert schedule(5 * epoch) == pytest.approx(3.2)
    assert schedule(30 * epoch) == pytest.approx(3.2)
    assert schedule(30 * epoch + 1) == pytest.approx(0.32)
    assert list(schedule.drops(90 * epoch)) == [30 * epoch, 60 * epoch]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(curve=draw.nested(1), first=st.integers(1, 300))
def test_neutral_compositions_keep_the_rates(curve: AnySchedule, first: int) -> None:
    plain = curve.rates(1, 60)
    for around in (
        Scale(curve, factor=1),
        Clip(curve),
        Product([curve]),
        Product([curve, Constant(1)]),
        Repeat(curve, length=60),
        Cooldown(curve, start=60, cooldown_steps=1),
        Sequential([curve, Constant(1)], [60]),
        Plateau(curve),
        Noise(curve, seed=1, start=61),
    ):
        assert around.rates(1, 60) == plain, around
    assert Sequential([Constant(1), curve], [first]).rates(first + 1, first + 60) == plain
    assert Warmup(curve, warmup_steps=first).rates(first + 1, first + 60) == plain
    assert Repeat(curve, length=60).rates(61, 120) == plain


@settings(max_examples=100, deadline=None, derandomize=True)
@given(curve=draw.nested(1), bounds=st.tuples(draw.rates, draw.rates), asked=draw.iterations)
def test_a_clipped_curve_is_within_its_bounds_and_otherwise_unchanged(
    curve: AnySchedule, bounds: tuple[float, float], asked: int
) -> None:
    low, high = sorted(bounds)
    rate, clipped = curve(asked), Clip(curve, min_lr=low, max_lr=high)(asked)
    assert low <= clipped <= high
    assert clipped == sorted([low, rate, high])[1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(curve=draw.nested(0), factor=draw.rates, other=draw.nested(0), asked=draw.iterations)
def test_scaling_and_multiplying_are_arithmetic(curve: AnySchedule, factor: float, other: AnySchedule, asked: int) -> None:
    assert Scale(curve, factor=factor)(asked) == factor * curve(asked)
    assert Product([curve, other])(asked) == curve(asked) * other(asked)
    assert Product([curve, Constant(factor)])(asked) == Scale(curve, factor=factor)(asked)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cycle_length=draw.lengths, asked=draw.iterations)
def test_three_schedules_with_equal_restarts_agree(cycle_length: int, asked: int) -> None:
    annealing = CosineAnnealing(0.1, max_lr=1, cycle_length=cycle_length)
    restarts, cyclical = WarmRestarts(0.1, max_lr=1, cycle_length=cycle_length), Cyclical(annealing)
    assert restarts(asked) == pytest.approx(cyclical(asked), rel=1e-12)
    # Repeat counts from 1, so it has the end of each cycle where the others have the start of the next.
    if asked % cycle_length:
        assert Repeat(annealing, length=cycle_length)(asked) == cyclical(asked)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cycle_length=draw.lengths, asked=draw.iterations)
def test_triangular2_equals_cyclical_triangles_of_half_the_magnitude(cycle_length: int, asked: int) -> None:
    halved = Cyclical(Triangular(0, max_lr=1, cycle_length=cycle_length), cycle_magnitude_decay=0.5)
    assert Triangular2(0, max_lr=1, cycle_length=cycle_length)(asked) == halved(asked)


@pytest.mark.parametrize(
    ("curve", "key"),
    [
        pytest.param(Triangular(0, max_lr=1, cycle_length=7), "cycle_length", id="Triangular"),
        pytest.param(WarmRestarts(0, max_lr=1, cycle_length=7), "cycle_length", id="WarmRestarts"),
    ],
)
def test_cyclical_takes_its_length_from_the_curve(curve: Schedule, key: str) -> None:
    assert Cyclical(curve) == Cyclical(curve, cycle_length=7)
    assert getattr(Cyclical(curve), key) == 7


def test_inner_yields_the_schedules_by_name() -> None:
    schedule = Sequential([Warmup(LINE, warmup_steps=2), Product([STEPS, LINE])], [20])
    assert dict(schedule.inner()) == {"curves[0]": schedule.curves[0], "curves[1]": schedule.curves[1]}
    assert dict(Warmup(LINE, warmup_steps=2).inner()) == {"curve": LINE}
    assert dict(LINE.inner()) == {}


def test_lists_become_tuples_which_keeps_schedules_immutable() -> None:
    curves: list[AnySchedule] = [LINE, STEPS]
    schedule = Sequential(curves, boundaries=[20])
    curves.append(LINE)
    assert schedule == Sequential((LINE, STEPS), boundaries=(20,))
    assert hash(schedule) == hash(Sequential((LINE, STEPS), boundaries=(20,)))


# --- drops


@st.composite
def stepped(draws: st.DrawFn) -> Schedule:
    """Draw a schedule with constant levels, whose falls are all drops."""
    factors = st.sampled_from([0.1, 0.5])
    return draws(
        st.builds(lambda step, factor: Factor(step=step, factor=factor, base_lr=1), draw.lengths, factors)
        | st.builds(lambda step, factor: MultiFactor(step=step, factor=factor, base_lr=1), draw.increasing(1, 4), factors)
        | st.builds(lambda arguments: Piecewise(**arguments), draw.piecewise_arguments())
    )


def falls(schedule: AnySchedule, first: int) -> list[int]:
    rates = schedule.rates(first, draw.LAST)
    return [iteration for iteration, (rate, later) in enumerate(pairwise(rates), start=first) if later < rate]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(curve=stepped(), warmup_steps=st.integers(1, 50), overlay=st.booleans(), factor=st.floats(0.1, 10))
def test_drops_of_a_warmed_up_and_scaled_curve_are_its_falls(
    curve: Schedule, warmup_steps: int, overlay: bool, factor: float
) -> None:
    around = Scale(Warmup(curve, warmup_steps=warmup_steps, overlay=overlay), factor=factor)
    named = list(around.drops(draw.LAST))
    assert named == sorted(set(named))
    assert min(named, default=warmup_steps) >= warmup_steps - overlay
    # By rounding, a warm-up that shifts the curve may end one bit above it.
    first = warmup_steps if overlay else warmup_steps + 1
    assert [end for end in named if first <= end < draw.LAST] == falls(around, first)


@pytest.mark.parametrize(
    ("schedule", "drops"),
    [
        pytest.param(Clip(STEPS, max_lr=0.5), [8], id="no drop above the clip"),
        pytest.param(Clip(STEPS, min_lr=0.5), [4], id="no drop below the clip"),
        pytest.param(Cooldown(STEPS, start=6, cooldown_steps=9), [4], id="no drop in the cool-down"),
        pytest.param(
            Warmup(STEPS, warmup_steps=5, warmup_begin_lr=1, warmup_mode="constant", overlay=True), [4, 8], id="overlaid"
        ),
        pytest.param(Warmup(STEPS, warmup_steps=5, overlay=True), [4, 8], id="the warm-up ends on a lower level"),
        pytest.param(Sequential([STEPS, STEPS], boundaries=[6]), [4, 10, 14], id="drops of each part that is reached"),
        pytest.param(Product([STEPS, MultiFactor(step=[6], factor=0.5, base_lr=1)]), [4, 6, 8], id="drops of all factors"),
        pytest.param(Repeat(STEPS, length=6), list(range(4, 100, 6)), id="drops of each repetition"),
        pytest.param(Plateau(STEPS, factor=0.5, reductions=1, min_lr=0.5), [8], id="min_lr hides a drop"),
    ],
)
def test_drops_that_a_composition_hides_are_left_out(schedule: Schedule, drops: list[int]) -> None:
    assert list(schedule.drops(100)) == drops
    falls = [end for end in range(1, 100) if schedule(end + 1) < schedule(end)]
    assert set(drops) <= set(falls)


def test_a_schedule_scaled_to_zero_has_no_drops() -> None:
    assert list(Scale(STEPS, factor=2).drops(100)) == [4, 8]
    assert list(Scale(STEPS, factor=0).drops(100)) == []


def test_compositions_of_smooth_curves_have_no_drops() -> None:
    for curve in (LINE, Cosine(max_update=10), Poly(max_update=10)):
        assert list(Warmup(curve, warmup_steps=5).drops(100)) == []
        assert list(Scale(curve, factor=2).drops(100)) == []


@st.composite
def composed(draws: st.DrawFn) -> Schedule:
    """Draw a composition of schedules with constant levels, whose falls are all drops."""
    return draws(
        st.recursive(
            stepped(),
            lambda inner: st.one_of(
                st.builds(lambda curves: Product(curves), st.lists(inner, min_size=1, max_size=3)),
                st.builds(lambda curve, bounds: Clip(curve, **bounds), inner, draw.ordered("min_lr", "max_lr")),
                st.builds(lambda curve, low: Plateau(curve, factor=0.5, reductions=2, min_lr=low), inner, draw.rates),
                st.builds(lambda curve, factor: Scale(curve, factor=factor), inner, draw.rates),
            ),
            max_leaves=4,
        )
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(curve=composed(), length=st.integers(1, 60), others=draw.increasing(1, 2))
def test_drops_of_a_composition_are_its_falls_within_the_curves(curve: Schedule, length: int, others: list[int]) -> None:
    run = range(1, draw.LAST)
    fallen = falls(curve, 1)
    assert [end for end in curve.drops(draw.LAST) if end in run] == fallen
    cooling = Cooldown(curve, start=others[0], cooldown_steps=length)
    assert list(cooling.drops(draw.LAST)) == [end for end in fallen if end < others[0]]
    repeated = Repeat(curve, length=length)
    assert list(repeated.drops(draw.LAST)) == [end for end in falls(repeated, 1) if end % length]
    parts = Sequential([curve, repeated, curve], boundaries=others)
    assert [end for end in parts.drops(draw.LAST) if end in run] == [
        end
        for end in falls(parts, 1)
        if end not in others and not (others[0] < end < others[1] and (end - others[0]) % length == 0)
    ]


EVERY_ITERATION = Factor(step=1, factor=0.999999, base_lr=1)


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        pytest.param(EVERY_ITERATION, [1, 2, 3], id="Factor"),
        pytest.param(Exponential(step=5, factor=0.9, staircase=True), [5, 10, 15], id="staircase"),
        pytest.param(Repeat(STEPS, length=10), [4, 8, 14], id="Repeat"),
        pytest.param(Product([EVERY_ITERATION, Repeat(STEPS, length=10)]), [1, 2, 3], id="Product"),
        pytest.param(Warmup(EVERY_ITERATION, warmup_steps=7), [8, 9, 10], id="Warmup"),
        pytest.param(Sequential([LINE, EVERY_ITERATION], boundaries=[9]), [10, 11, 12], id="Sequential"),
        pytest.param(Cooldown(EVERY_ITERATION, start=10**15, cooldown_steps=9), [1, 2, 3], id="Cooldown"),
        pytest.param(Repeat(LINE, length=1), [], id="a billion cycles without levels"),
        pytest.param(Clip(EVERY_ITERATION, min_lr=2), [], id="no level falls"),
        pytest.param(
            Warmup(EVERY_ITERATION, warmup_steps=10**14, overlay=True), [], id="no level within the bound is after the warm-up"
        ),
    ],
)
def test_drops_of_a_very_long_run_are_found_one_at_a_time(schedule: Schedule, first: list[int]) -> None:
    assert list(islice(schedule.drops(10**15), 3)) == first


def test_a_user_function_is_not_called_to_find_drops() -> None:
    recorder = Recorder()
    product = Product([recorder.schedule, STEPS])
    assert list(product.drops(100)) == []
    assert recorder.asked == []
