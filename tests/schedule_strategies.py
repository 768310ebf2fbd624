"""Hypothesis strategies for the arguments of every curve, and for schedules nested up to three deep."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, get_args

from hypothesis import strategies as st

from mnist_trainer.schedules import (
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
    WarmRestarts,
    Warmup,
    WarmupStableDecay,
)
from mnist_trainer.schedules.budgets import Decay
from mnist_trainer.schedules.composition import WarmupMode
from mnist_trainer.schedules.one_cycle import AnnealStrategy

Arguments = st.SearchStrategy[dict[str, Any]]
Drawn = st.SearchStrategy[AnySchedule]

LAST = 400
"""An iteration beyond every length that is drawn."""

rates = st.floats(0, 10, allow_subnormal=False) | st.sampled_from([0, 1, 0.03, 0.1, 1e-9])
fractions = st.floats(0, 1) | st.sampled_from([0, 0.25, 0.5, 1])
# With a factor just below 1, the rate of Factor settles only after hundreds of millions of drops.
factors = st.floats(0, 0.99) | st.sampled_from([0.1, 0.5, 1, 0])
lengths = st.integers(1, 300)
iterations = st.integers(0, LAST) | st.integers(0, 10**9)


def merged(*parts: Arguments) -> Arguments:
    return st.tuples(*parts).map(lambda drawn: {key: value for part in drawn for key, value in part.items()})


def given(**needed: st.SearchStrategy[Any]) -> Arguments:
    return st.fixed_dictionaries(dict(needed))


def perhaps(**others: st.SearchStrategy[Any]) -> Arguments:
    """Return a strategy for arguments, any of which may be left out."""
    return st.fixed_dictionaries({}, optional=dict(others))


def ordered(low: str, high: str) -> Arguments:
    return st.tuples(rates, rates).map(lambda pair: {low: min(pair), high: max(pair)})


def increasing(least: int, count: int) -> st.SearchStrategy[list[int]]:
    return st.sets(st.integers(least, 300), min_size=count, max_size=count).map(sorted)


@st.composite
def builtin_warmups(draw: st.DrawFn, below: int = 1000) -> dict[str, Any]:
    base_lr = draw(rates)
    return {
        "base_lr": base_lr,
        "warmup_steps": draw(st.integers(0, min(below - 1, 200))),
        "warmup_begin_lr": draw(st.floats(0, base_lr)),
        "warmup_mode": draw(st.sampled_from(["linear", "constant"])),
    }


def factor_arguments() -> Arguments:
    return merged(given(step=lengths, factor=factors, stop_factor_lr=rates), builtin_warmups())


def multi_factor_arguments() -> Arguments:
    steps = st.sets(lengths, min_size=1, max_size=8).map(sorted)
    return merged(given(step=steps, factor=factors), builtin_warmups())


def poly_arguments() -> Arguments:
    return lengths.flatmap(
        lambda max_update: merged(
            given(max_update=st.just(max_update), pwr=st.integers(0, 5) | st.floats(0, 5), final_lr=rates),
            builtin_warmups(max_update),
        )
    )


def cosine_arguments() -> Arguments:
    return lengths.flatmap(
        lambda max_update: merged(given(max_update=st.just(max_update), final_lr=rates), builtin_warmups(max_update))
    )


def cosine_annealing_arguments() -> Arguments:
    return merged(ordered("min_lr", "max_lr"), given(cycle_length=lengths))


def triangular_arguments() -> Arguments:
    # The tutorial's class divides by zero if the rise has no length, so those fractions are left out.
    shares = st.floats(0.01, 0.99) | st.sampled_from([0.2, 0.5, 1])
    return merged(cosine_annealing_arguments(), perhaps(inc_fraction=shares))


def one_cycle_arguments() -> Arguments:
    cooldowns: Arguments = st.just({}) | given(cooldown_length=lengths, finish_lr=rates)
    return merged(ordered("start_lr", "max_lr"), given(cycle_length=lengths), cooldowns)


def by_steps_arguments(**own: st.SearchStrategy[Any]) -> Arguments:
    return merged(given(step=lengths, **own), perhaps(base_lr=rates, staircase=st.booleans()))


def phases_arguments() -> Arguments:
    two = perhaps(pct_start=fractions)
    three = given(pct_start=st.floats(0, 0.5), three_phase=st.just(True))
    return merged(given(max_update=lengths), two | three, perhaps(anneal_strategy=st.sampled_from(get_args(AnnealStrategy))))


def warmup_stable_decay_arguments() -> Arguments:
    parts = st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(1, 100))
    budget = parts.map(lambda drawn: {"warmup_steps": drawn[0], "decay_steps": drawn[1], "max_update": sum(drawn)})
    return merged(budget, perhaps(base_lr=rates, warmup_begin_lr=rates, final_lr=rates), decay_arguments())


def decay_arguments() -> Arguments:
    plain = perhaps(decay=st.sampled_from([decay for decay in get_args(Decay) if decay not in ("power", "exponential")]))
    power = given(decay=st.just("power"), decay_power=st.floats(0.01, 10))
    exponential = given(decay=st.just("exponential"), decay_ratio=st.floats(0.01, 0.99))
    return plain | power | exponential


def piecewise_arguments() -> Arguments:
    return st.integers(1, 4).flatmap(
        lambda count: given(boundaries=increasing(1, count), values=st.lists(rates, min_size=count + 1, max_size=count + 1))
    )


def piecewise_linear_arguments() -> Arguments:
    return st.integers(1, 4).flatmap(
        lambda count: given(knots=increasing(0, count), values=st.lists(rates, min_size=count, max_size=count))
    )


def cyclical_arguments() -> Arguments:
    single = st.builds(lambda drawn: Triangular(**drawn), triangular_arguments())
    cosine = st.builds(lambda drawn: CosineAnnealing(**drawn), cosine_annealing_arguments())
    one_cycle = st.builds(lambda drawn: OneCycle(**drawn), one_cycle_arguments())
    length_decays = st.floats(0.25, 0.9) | st.floats(1.1, 4) | st.sampled_from([1, 2, 0.5])
    return merged(
        given(curve=single | cosine | one_cycle),
        perhaps(cycle_length_decay=length_decays, cycle_magnitude_decay=fractions),
    )


def warmup_arguments(inner: Drawn) -> Arguments:
    without_end = ("constant", "1-exp")
    others = [mode for mode in get_args(WarmupMode) if mode not in (*without_end, "exponential")]
    any_start = perhaps(warmup_begin_lr=rates, warmup_end_lr=rates, warmup_mode=st.sampled_from(others))
    endless = merged(given(warmup_mode=st.sampled_from(without_end)), perhaps(warmup_begin_lr=rates))
    multiplied = given(warmup_begin_lr=st.floats(1e-9, 10), warmup_mode=st.just("exponential"))
    kinds = any_start | endless | multiplied
    return merged(given(curve=inner, warmup_steps=st.just(0) | lengths), kinds, perhaps(overlay=st.booleans()))


def sequential_arguments(inner: Drawn) -> Arguments:
    return st.integers(2, 3).flatmap(
        lambda count: given(
            curves=st.lists(inner, min_size=count, max_size=count).map(tuple), boundaries=increasing(1, count - 1)
        )
    )


def sum_arguments(inner: Drawn) -> Arguments:
    return st.integers(1, 3).flatmap(
        lambda count: merged(
            given(curves=st.lists(inner, min_size=count, max_size=count).map(tuple)),
            perhaps(weights=st.lists(st.floats(0, 5), min_size=count, max_size=count)),
        )
    )


def noise_arguments(inner: Drawn) -> Arguments:
    when = st.tuples(st.integers(0, 300), lengths).map(lambda drawn: {"start": drawn[0], "end": sum(drawn)})
    own = perhaps(noise_pct=st.floats(0.01, 1), noise_std=st.floats(0.01, 10))
    return merged(given(curve=inner, seed=st.integers(0, 2**40)), own, st.just({}) | when)


def plateau_arguments(inner: Drawn) -> Arguments:
    return merged(
        given(curve=inner),
        perhaps(
            factor=factors,
            patience=st.integers(0, 3),
            cooldown=st.integers(0, 3),
            min_lr=rates,
            eps=st.floats(0, 1e-3),
        ),
        result_arguments(),
    )


def metric_arguments() -> Arguments:
    return perhaps(metric=st.sampled_from(["loss", "accuracy"]))


def result_arguments() -> Arguments:
    return merged(perhaps(threshold=st.floats(0, 1), threshold_mode=st.sampled_from(["rel", "abs"])), metric_arguments())


LEAVES: dict[type[Schedule], Arguments] = {
    Constant: perhaps(base_lr=rates),
    Factor: factor_arguments(),
    MultiFactor: multi_factor_arguments(),
    Piecewise: piecewise_arguments(),
    Poly: merged(poly_arguments(), perhaps(cycle=st.booleans(), k_decay=st.floats(0.1, 5))),
    Cosine: merged(cosine_arguments(), perhaps(k_decay=st.floats(0.1, 5), exponent=st.floats(0.1, 5))),
    CosineAnnealing: cosine_annealing_arguments(),
    Linear: merged(given(max_update=lengths), perhaps(base_lr=rates, final_lr=rates)),
    PiecewiseLinear: piecewise_linear_arguments(),
    Tanh: merged(
        given(max_update=lengths),
        perhaps(base_lr=rates, final_lr=rates, lower=st.floats(-100, 0), upper=st.floats(1, 100)),
    ),
    Exponential: by_steps_arguments(factor=fractions),  # factors above 1 leave the range of float32
    NaturalExponential: by_steps_arguments(decay_rate=st.floats(0, 100)),
    InverseTime: merged(by_steps_arguments(decay_rate=st.floats(0, 100)), perhaps(power=st.floats(0, 5))),
    InverseSqrt: merged(given(timescale=lengths), perhaps(base_lr=rates)),
    Noam: merged(given(model_size=st.integers(1, 1024), warmup_steps=lengths), perhaps(base_lr=rates)),
    Triangular: merged(cosine_annealing_arguments(), perhaps(inc_fraction=fractions)),
    Triangular2: merged(cosine_annealing_arguments(), perhaps(inc_fraction=fractions)),
    ExpRange: merged(cosine_annealing_arguments(), perhaps(inc_fraction=fractions, factor=fractions)),
    WarmRestarts: merged(
        cosine_annealing_arguments(),
        perhaps(
            cycle_length=lengths | st.floats(1, 300),
            t_mult=st.floats(1, 4) | st.sampled_from([1, 2, 3]),
            cycle_decay=fractions,
            cycle_limit=st.integers(1, 5),
        ),
    ),
    Cyclical: cyclical_arguments(),
    OneCycle: one_cycle_arguments(),
    OneCycleLR: merged(
        phases_arguments(),
        given(max_lr=rates),
        perhaps(div_factor=st.floats(1, 100)),
        perhaps(final_div_factor=st.floats(1, 1e5)) | given(final_lr=rates),
    ),
    OneCycleMomentum: merged(
        phases_arguments(),
        st.just({}) | st.tuples(fractions, fractions).map(lambda pair: {"base_momentum": min(pair), "max_momentum": max(pair)}),
    ),
    WarmupStableDecay: warmup_stable_decay_arguments(),
    REX: merged(given(max_update=lengths), perhaps(base_lr=rates, final_lr=rates)),
    Greedy: merged(
        ordered("min_lr", "max_lr"),
        perhaps(base_lr=rates, factor=st.floats(0.1, 0.99), patience=st.integers(0, 3), reset_start=st.integers(1, 5)),
        perhaps(cooldown=st.integers(0, 3), warmup=st.integers(0, 3), eps=st.floats(0, 1e-3)),
        result_arguments(),
    ),
    FlatCosine: st.tuples(st.integers(0, 200), st.integers(1, 100)).flatmap(
        lambda parts: merged(
            given(flat_steps=st.just(parts[0]), max_update=st.just(sum(parts))), perhaps(base_lr=rates, final_lr=rates)
        )
    ),
}
"""Curve without inner curves → a strategy for its arguments."""

HOLDERS: dict[type[Schedule], Callable[[Drawn], Arguments]] = {
    Warmup: warmup_arguments,
    Cooldown: lambda inner: merged(
        given(curve=inner, start=st.integers(0, 300), cooldown_steps=st.just(0) | lengths),
        perhaps(final_lr=rates),
        decay_arguments(),
    ),
    Sequential: sequential_arguments,
    Product: lambda inner: given(curves=st.lists(inner, min_size=1, max_size=3).map(tuple)),
    Sum: sum_arguments,
    Repeat: lambda inner: given(curve=inner, length=lengths),
    Shift: lambda inner: given(curve=inner, by=st.integers(-300, 300)),
    Hold: lambda inner: given(curve=inner, length=lengths),
    Clip: lambda inner: merged(given(curve=inner), ordered("min_lr", "max_lr") | perhaps(min_lr=rates)),
    Scale: lambda inner: given(curve=inner, factor=rates),
    Noise: noise_arguments,
    Plateau: plateau_arguments,
    NewBob: lambda inner: merged(
        given(curve=inner), perhaps(factor=factors, threshold=st.floats(-1, 1), patience=st.integers(0, 3)), metric_arguments()
    ),
}
"""Curve with inner curves → a function from a strategy for those to a strategy for its arguments."""


def schedules_of(cls: type[Schedule], depth: int = 1) -> st.SearchStrategy[Schedule]:
    """Return a strategy for schedules of this class, whose inner schedules are nested `depth` − 1 deep."""
    arguments = LEAVES[cls] if cls in LEAVES else HOLDERS[cls](nested(depth - 1))
    return _made(cls, arguments)


@lru_cache(maxsize=8)
def nested(depth: int) -> Drawn:
    """Return a strategy for schedules of any class, nested up to `depth` deep; 0 for curves without inner curves."""
    return st.one_of([schedules_of(cls, depth) for cls in (LEAVES | HOLDERS if depth else LEAVES)])


@lru_cache(maxsize=8)
def deep(depth: int) -> Drawn:
    """Return a strategy for schedules nested exactly `depth` deep."""
    if depth == 0:
        return nested(0)
    inner = deep(depth - 1)
    return st.one_of([_made(cls, arguments(inner)) for cls, arguments in HOLDERS.items()])


def _made(cls: type[Schedule], arguments: Arguments) -> st.SearchStrategy[Schedule]:
    return arguments.map(lambda drawn: cls(**drawn))
