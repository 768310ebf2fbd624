"""Curves and random parameters that several libraries have in common."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Constant,
    Cyclical,
    Exponential,
    ExpRange,
    Piecewise,
    Poly,
    Product,
    Repeat,
    Sequential,
    Shift,
    Sum,
    Triangular,
    Triangular2,
)
from origins.comparisons import Draw


def joined(curves: Sequence[AnySchedule], boundaries: Sequence[int]) -> AnySchedule:
    """Return the curves one after another, as frameworks that count from 0 join them."""
    if boundaries and boundaries[0] == 0:
        return joined(curves[1:], boundaries[1:])
    return Sequential(curves, boundaries=boundaries) if boundaries else curves[0]


def from_zero(curve: AnySchedule) -> AnySchedule:
    """Return a smooth curve that begins with its initial rate."""
    return Shift(curve, by=-1)


def staircase(lr: float, step: int, factor: float) -> AnySchedule:
    """Return levels that drop or rise after each step."""
    return Exponential(step=step, factor=factor, base_lr=lr, staircase=True)


def levels(lr: float, ends: Sequence[int], factors: Sequence[float]) -> AnySchedule:
    """Return levels that change by a factor after each of some iterations."""
    return Piecewise(boundaries=ends, values=list(accumulate(factors, lambda rate, factor: rate * factor, initial=lr)))


def restarts(length: float, multiple: float, last: int) -> list[float]:
    """Return the starts of the cycles after the first one, up to iteration `last`."""
    starts = [length]
    while starts[-1] <= last:
        length *= multiple
        starts.append(starts[-1] + length)
    return starts


def whole(starts: Iterable[float], offset: int = 0) -> set[int]:
    """Return the starts that are whole numbers."""
    return {offset + round(start) for start in starts if abs(start - round(start)) < 1e-6}


def triangle(draw: Draw, low: float, high: float, up: int, down: int) -> AnySchedule:
    """Return triangles of equal height."""
    one = Triangular(low, max_lr=high, cycle_length=up + down, inc_fraction=up / (up + down))
    # Repeat ends a cycle with the last rate of the curve, which is the first rate of the next cycle unless down is 0.
    return Repeat(one, length=up + down) if down and draw.random() < 0.5 else Cyclical(one)


def cyclic(draw: Draw, mode: str, low: float, high: float, up: int, down: int, gamma: float) -> AnySchedule:
    """Return the curve for a mode of CyclicLR."""
    sides: dict[str, Any] = {"cycle_length": up + down, "inc_fraction": up / (up + down)}
    if mode == "triangular":
        return triangle(draw, low, high, up, down)
    if mode == "triangular2":
        return Triangular2(low, max_lr=high, **sides)
    if gamma <= 1:
        return ExpRange(low, max_lr=high, factor=gamma, **sides)
    height = Cyclical(Triangular(0, max_lr=high - low, **sides))
    return Sum([Constant(low), Product([height, Exponential(step=1, factor=gamma, base_lr=1)])])


def draw_cyclic(draw: Draw) -> tuple[str, float, float, int, int, float]:
    """Draw a mode of CyclicLR, its rates, the lengths of its sides, and `gamma`."""
    low = draw.choice((0.0, draw.rate()))
    high = low + draw.choice((0.0, draw.rate(), draw.rate(), draw.rate()))
    return draw.choice(("triangular", "triangular2", "exp_range")), low, high, draw.length(), draw.length(), draw.ratio(400)


def draw_one_cycle(draw: Draw, pct_below: float = 1.0) -> dict[str, Any]:
    """Draw the arguments of our `OneCycleLR`, without its rates."""
    three_phase = draw.random() < 0.4
    while True:
        total = draw.length(300)
        pct = draw.choice((0.0, 0.3, 1.0, 0.5, draw.random())) / (2 if three_phase else 1)
        # The frameworks divide by zero if a phase has no length.
        phases = [0, pct * total - 1] + [2 * pct * total - 2] * three_phase + [total - 1]
        if pct <= pct_below and all(abs(stop - start) > 1e-6 for start, stop in pairwise(phases)):
            strategy = draw.choice(("cos", "linear"))
            return {"max_update": total, "pct_start": pct, "anneal_strategy": strategy, "three_phase": three_phase}


def one_cycle_corners(cycle: dict[str, Any]) -> set[int]:
    """Return the corners of a cycle that `draw_one_cycle` has drawn."""
    peak = round(cycle["pct_start"] * cycle["max_update"])
    return {peak, 2 * peak - 1}


def draw_plateau(draw: Draw) -> tuple[dict[str, Any], bool]:
    """Draw the arguments of our `Plateau`, and True if the result should rise."""
    rises = draw.random() < 0.4
    return {
        "factor": draw.choice((0.0, 0.1, 0.5, draw.uniform(0, 0.999))),
        "patience": draw.randrange(4),
        "threshold": draw.choice((0.0, 1e-4, 0.05, draw.uniform(0, 0.2))),
        "threshold_mode": draw.choice(("rel", "abs")),
        "cooldown": draw.randrange(4),
        "min_lr": draw.choice((0.0, 0.002, draw.rate())),
        "eps": draw.choice((0.0, 1e-8, 0.01, draw.uniform(0, 0.1))),
    }, rises


def metric(rises: bool) -> Any:
    """Return our name of a result that rises or falls."""
    return "accuracy" if rises else "loss"


def draw_warmed(draw: Draw) -> tuple[float, int, int]:
    """Draw a rate, a number of iterations, and how many of them are the warm-up."""
    length = draw.length(300)
    return draw.rate(), length, draw.up_to(length - 1)


def polynomial(draw: Draw) -> tuple[dict[str, Any], AnySchedule, int]:
    """Draw the arguments that Keras and Paddle have in common."""
    length, end, power, cycle = draw.length(), draw.choice((0.0, draw.rate())), draw.power(), draw.random() < 0.5
    lr = draw.choice((draw.rate(), end or 1.0))
    ours = Poly(max_update=length, base_lr=lr, final_lr=end, pwr=power, cycle=cycle)
    return {"learning_rate": lr, "decay_steps": length, "end": end, "power": power, "cycle": cycle}, ours, length
