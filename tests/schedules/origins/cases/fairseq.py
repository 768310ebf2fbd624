"""Random cases of fairseq."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Clip,
    Constant,
    Cooldown,
    Cyclical,
    Exponential,
    InverseSqrt,
    Poly,
    Product,
    Shift,
    Sum,
    Triangular,
    WarmRestarts,
    Warmup,
)
from origins.comparisons import Comparison, Counted, Draw
from origins.curves import draw_warmed, levels, restarts, whole
from origins.libraries import FAIRSEQ, FairseqOptimizer


def fairseq_call(file: str, name: str, lr: float, **given: Any) -> Any:
    FAIRSEQ.load()  # the base class of the others
    module = FAIRSEQ.load(f"fairseq/optim/lr_scheduler/{file}.py")
    return getattr(module, name)(SimpleNamespace(lr=[lr], **given), FairseqOptimizer()).step_update


@FAIRSEQ.case
def fairseq_cosine(draw: Draw) -> Comparison:
    lr, warmup, length = draw.rate(), draw.up_to(60), draw.length(60, 2)
    low, multiple, factor = lr * draw.uniform(0, 0.99), draw.multiple(), draw.fraction()
    begin, last = draw.choice((-1.0, 0.0, draw.rate())), 6 * length
    given = {"warmup_updates": warmup, "warmup_init_lr": begin, "min_lr": low, "t_mult": multiple, "lr_shrink": factor}
    starts = restarts(length, multiple, last)
    # Each cycle shrinks as a whole, with its lowest rate.
    shrink = levels(1, [math.ceil(start - 1e-9) - 1 for start in starts], [factor] * len(starts))
    ours = Product([WarmRestarts(low, max_lr=lr, cycle_length=length, t_mult=multiple), shrink])
    call = partial(fairseq_call, "cosine_lr_scheduler", "CosineLRSchedule", lr, lr_period_updates=length, max_update=0, **given)
    warmed = Warmup(ours, warmup, warmup_begin_lr=low if begin < 0 else begin)
    # fairseq finds the cycle with a logarithm, whose rounding may make it wrong by one where a cycle begins.
    begins = whole(starts, warmup) if multiple > 1 else ()
    return Comparison(
        Counted(call), warmed, warmup + last, [warmup, *(warmup + int(start) for start in starts)], restarts=begins
    )


@FAIRSEQ.case
def fairseq_inverse_sqrt(draw: Draw) -> Comparison:
    lr, warmup, begin = draw.rate(), draw.length(200), draw.choice((-1.0, 0.0, draw.rate()))
    given = {"warmup_updates": warmup, "warmup_init_lr": begin}
    origin = Counted(partial(fairseq_call, "inverse_square_root_schedule", "InverseSquareRootSchedule", lr, **given))
    ours = Warmup(InverseSqrt(timescale=warmup, base_lr=lr), warmup, warmup_begin_lr=max(begin, 0.0))
    return Comparison(origin, ours, 3 * warmup + 20, [warmup])


@FAIRSEQ.case
def fairseq_polynomial(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    end, power = draw.choice((0.0, draw.rate())), draw.power()
    ours = Warmup(Poly(max_update=length - warmup, base_lr=lr, final_lr=end, pwr=power), warmup)
    if draw.random() < 0.2:
        warmup = length
        ours = Warmup(Cooldown(Constant(lr), start=0, cooldown_steps=0, final_lr=end), warmup)
    given = {
        "warmup_updates": warmup,
        "end_learning_rate": end,
        "power": power,
        "total_num_update": length,
        "force_anneal": None,
    }
    origin = Counted(partial(fairseq_call, "polynomial_decay_schedule", "PolynomialDecayLRSchedule", lr, **given))
    return Comparison(origin, ours, length + 20, (warmup, length))


@FAIRSEQ.case
def fairseq_tri_stage(draw: Draw) -> Comparison:
    lr, warmup, hold, decay_steps = draw.rate(), draw.up_to(60), draw.up_to(60), draw.length()
    begin, final = draw.fraction(), draw.choice((0.01, draw.share()))
    given: dict[str, Any] = {"warmup_steps": warmup, "hold_steps": hold, "decay_steps": decay_steps, "phase_ratio": None}
    if draw.random() < 0.3:
        length = draw.length(300, 4)
        given |= {"phase_ratio": (0.25, 0.25, 0.5), "max_update": length}
        warmup, hold, decay_steps = length // 4, length // 4, length // 2
    given |= {"init_lr_scale": begin, "final_lr_scale": final}
    origin = Counted(partial(fairseq_call, "tri_stage_lr_scheduler", "TriStageLRSchedule", lr, **given))
    decay = Shift(Exponential(step=decay_steps, factor=final, base_lr=lr), by=-hold)
    ours = Warmup(Clip(decay, min_lr=final * lr), warmup, warmup_begin_lr=begin * lr)
    end = warmup + hold + decay_steps
    return Comparison(origin, ours, end + 20, (warmup, warmup + hold, end))


@FAIRSEQ.case
def fairseq_triangular(draw: Draw) -> Comparison:
    low, length, factor, shrink_min = draw.rate(), draw.length(100, 2), draw.fraction(), draw.random() < 0.5
    high, whole_length = low + draw.rate(), length // 2 * 2
    given = {"max_lr": high, "lr_period_updates": length, "lr_shrink": factor, "shrink_min": shrink_min}
    origin = Counted(partial(fairseq_call, "triangular_lr_scheduler", "TriangularLRSchedule", low, **given))

    def shrinking(start: float, tip: float) -> AnySchedule:
        return Cyclical(Triangular(start, max_lr=tip, cycle_length=whole_length), cycle_magnitude_decay=factor)

    ours = shrinking(low, high)
    if not shrink_min:
        steady = Cyclical(Triangular(0, max_lr=low, cycle_length=whole_length))
        ours = Sum([Constant(low), shrinking(0, high), steady], weights=[1, 1, -1])
    return Comparison(origin, ours, 5 * length, (whole_length // 2, whole_length, 2 * whole_length))
