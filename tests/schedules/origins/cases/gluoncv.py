"""Random cases of gluon-cv."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Constant,
    Cosine,
    Linear,
    Poly,
    Shift,
)
from origins.comparisons import Comparison, Counted, Draw
from origins.curves import from_zero, joined, levels
from origins.libraries import GLUON


def gluon_part(draw: Draw, *, exactly: bool) -> tuple[Any, AnySchedule, int]:
    """Draw a scheduler of gluon-cv, our curve for it, and its length.

    Args:
        draw: The source of random parameters.
        exactly: True for the curve with the rates of the same updates, False for the one that has at iteration k the
            scheduler's rate at its `num_update` k.
    """
    mode = draw.choice(("constant", "step", "linear", "poly", "cosine"))
    # The rate of the last iteration is the final one; with a single iteration gluon-cv divides by zero.
    lr, end, length = draw.rate(), draw.choice((0.0, draw.rate())), draw.length(120, 1 if mode == "constant" else 2)
    power, factor, begin = draw.power(), draw.ratio(4), 0 if exactly else draw.up_to(20)
    steps = draw.increasing(length, first=1 if exactly else 2)
    common: dict[str, Any] = {"max_update": max(length - 1, 1), "base_lr": lr, "final_lr": end}
    within = [step for step in steps if step < length]
    match mode:
        case "constant":
            curve: AnySchedule = Constant(lr)
        case "step":
            ends = within if exactly else [step - 1 for step in within]
            curve = levels(lr, ends, [factor] * len(ends)) if ends else Constant(lr)
        case "linear":
            curve = Linear(**common)
        case "poly":
            curve = Poly(pwr=power, **common)
        case _:
            curve = Cosine(**common)
    given = {"base_lr": lr, "target_lr": end, "niters": length, "power": power, "step_iter": steps, "step_factor": factor}
    if exactly and mode != "step":
        curve = from_zero(curve)
    call = partial(GLUON.load().LRScheduler, mode, offset=begin, **given)
    return call, curve if exactly else Shift(curve, by=-begin), begin + length


@GLUON.case
def gluon_scheduler(draw: Draw) -> Comparison:
    call, ours, length = gluon_part(draw, exactly=False)
    return Comparison(Counted(call), ours, length + 20, (length - 1, length))


def gluon_joined(parts: Sequence[Any]) -> Any:
    return GLUON.load().LRSequential([part() for part in parts])


@GLUON.case
def gluon_sequential(draw: Draw) -> Comparison:
    parts, curves, lengths = zip(*(gluon_part(draw, exactly=True) for _ in range(draw.randint(1, 4))), strict=True)
    ends = list(accumulate(lengths))
    # After its end gluon-cv keeps the rate of the last iteration, which a curve with levels may not.
    return Comparison(Counted(partial(gluon_joined, parts)), joined(curves, ends[:-1]), ends[-1], ends, shift=1)
