"""Random cases of transformers."""

from functools import partial
from itertools import pairwise
from typing import Any, Literal

from mnist_trainer.schedules import (
    AnySchedule,
    Constant,
    Cosine,
    Greedy,
    InverseSqrt,
    Linear,
    Poly,
    Sequential,
    WarmRestarts,
    Warmup,
    WarmupStableDecay,
)
from origins.cases.pytorch import pytorch_plateau_with, pytorch_reduced
from origins.comparisons import Comparison, Draw, Reaction, Stepped
from origins.curves import draw_plateau, draw_warmed, from_zero, joined, metric, whole
from origins.libraries import TRANSFORMERS, Lazy

transformers = Lazy("transformers.optimization")


@TRANSFORMERS.case
def transformers_constant(draw: Draw) -> Comparison:
    lr, warmup = draw.rate(), draw.up_to(100)
    if draw.random() < 0.2:
        return Comparison(Stepped(transformers.get_constant_schedule, lr), Constant(lr), 50)
    origin = Stepped(partial(transformers.get_constant_schedule_with_warmup, num_warmup_steps=warmup), lr)
    return Comparison(origin, Warmup(Constant(lr), warmup), warmup + 20, [warmup])


@TRANSFORMERS.case
def transformers_linear(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    ours: AnySchedule = from_zero(Warmup(Linear(max_update=length - warmup, base_lr=lr), warmup))
    if draw.random() < 0.2:
        warmup = length  # the origin falls to 0 at once
        ours = Sequential([from_zero(Linear(max_update=length, base_lr=0, final_lr=lr)), Constant(0)], boundaries=[length])
    origin = Stepped(
        partial(transformers.get_linear_schedule_with_warmup, num_warmup_steps=warmup, num_training_steps=length), lr
    )
    return Comparison(origin, ours, length + 20, (warmup, length), shift=1)


@TRANSFORMERS.case
def transformers_cosine(draw: Draw) -> Comparison:
    lr, half_waves, half = draw.rate(), draw.randint(1, 5), draw.length(80)
    length, warmup = half * half_waves, draw.up_to(60)
    highs = [lr * (wave % 2 == 0) for wave in range(half_waves + 1)]
    waves = [Cosine(max_update=half, base_lr=high, final_lr=low) for high, low in pairwise(highs)]
    ours = joined(waves, [half * wave for wave in range(1, half_waves)])
    given = {"num_warmup_steps": warmup, "num_training_steps": warmup + length, "num_cycles": half_waves / 2}
    origin = Stepped(partial(transformers.get_cosine_schedule_with_warmup, **given), lr)
    # After its end the cosine goes on; ours stays.
    return Comparison(origin, Warmup(ours, warmup), warmup + length, (warmup, warmup + half, warmup + 2 * half))


@TRANSFORMERS.case
def transformers_cosine_part(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    longer = draw.randint(1, 4)
    given = {"num_warmup_steps": warmup, "num_training_steps": length, "num_cycles": 0.5 / longer}
    origin = Stepped(partial(transformers.get_cosine_schedule_with_warmup, **given), lr)
    ours = Warmup(Cosine(max_update=longer * (length - warmup), base_lr=lr), warmup)
    return Comparison(origin, ours, warmup + longer * (length - warmup), (warmup, length))


@TRANSFORMERS.case
def transformers_hard_restarts(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    cycles = draw.randint(1, min(9, length - warmup))
    ours = WarmRestarts(0, max_lr=lr, cycle_length=(length - warmup) / cycles, cycle_limit=cycles)
    given = {"num_warmup_steps": warmup, "num_training_steps": length, "num_cycles": cycles}
    starts = [(length - warmup) / cycles * cycle for cycle in range(1, cycles)]
    origin = Stepped(partial(transformers.get_cosine_with_hard_restarts_schedule_with_warmup, **given), lr)
    # The rounding of the origin's `% 1.0` decides whether a cycle ends or the next one begins at a restart.
    corners = [warmup, length, *(warmup + int(start) for start in starts)]
    return Comparison(origin, Warmup(ours, warmup), length + 20, corners, restarts=whole(starts, warmup))


@TRANSFORMERS.case
def transformers_polynomial(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    end, power = draw.choice((0.0, lr * draw.uniform(0, 0.99))), draw.power()
    ours: AnySchedule = Poly(max_update=length, base_lr=lr, final_lr=end, pwr=power, warmup_steps=warmup)
    if draw.random() < 0.5:
        ours = Warmup(Poly(max_update=length - warmup, base_lr=lr, final_lr=end, pwr=power), warmup)
    given = {"num_warmup_steps": warmup, "num_training_steps": length, "lr_end": end, "power": power}
    origin = Stepped(partial(transformers.get_polynomial_decay_schedule_with_warmup, **given), lr)
    return Comparison(origin, ours, length + 20, (warmup, length))


@TRANSFORMERS.case
def transformers_inverse_sqrt(draw: Draw) -> Comparison:
    lr, warmup, timescale = draw.rate(), draw.up_to(100), draw.choice((None, draw.length(1000)))
    given = {"num_warmup_steps": warmup, "timescale": timescale}
    ours = Warmup(InverseSqrt(timescale=timescale or warmup or 10_000, base_lr=lr), warmup)
    return Comparison(Stepped(partial(transformers.get_inverse_sqrt_schedule, **given), lr), ours, warmup + 200, [warmup])


def draw_min_lr(draw: Draw, lr: float) -> tuple[dict[str, float], float]:
    ratio = draw.fraction()
    return draw.choice(({"min_lr": ratio * lr}, {"min_lr_rate": ratio})), ratio * lr


@TRANSFORMERS.case
def transformers_cosine_min(draw: Draw) -> Comparison:
    (lr, length, warmup), call = draw_warmed(draw), transformers.get_cosine_with_min_lr_schedule_with_warmup
    given, low = draw_min_lr(draw, lr)
    origin = Stepped(partial(call, num_warmup_steps=warmup, num_training_steps=length, **given), lr)
    ours = Cosine(max_update=length - warmup, base_lr=lr, final_lr=low)
    # After its end the cosine rises again; ours stays there.
    return Comparison(origin, Warmup(ours, warmup), length, [warmup])


@TRANSFORMERS.case
def transformers_cosine_warmup_min(draw: Draw) -> Comparison:
    (lr, length, warmup), call = draw_warmed(draw), transformers.get_cosine_with_min_lr_schedule_with_warmup_lr_rate
    given, low = draw_min_lr(draw, lr)
    cosine = Cosine(max_update=length - warmup, base_lr=lr, final_lr=low)
    ours: AnySchedule = Warmup(cosine, warmup)
    if draw.random() < 0.5:
        begin = draw.fraction()
        given |= {"warmup_lr_rate": begin}
        rise: AnySchedule = from_zero(Linear(max_update=max(warmup - 1, 1), base_lr=begin * lr, final_lr=lr))
        ours = joined([rise, cosine], [warmup])
    origin = Stepped(partial(call, num_warmup_steps=warmup, num_training_steps=length, **given), lr)
    return Comparison(origin, ours, length, [warmup], shift=1)


@TRANSFORMERS.case
def transformers_wsd(draw: Draw) -> Comparison:
    lr, warmup, stable, decay_steps, ratio = draw.rate(), draw.up_to(60), draw.up_to(80), draw.up_to(80), draw.fraction()
    stable += stable + decay_steps == 0
    forms: tuple[Literal["linear"], Literal["cosine"], Literal["1-sqrt"]] = ("linear", "cosine", "1-sqrt")
    rise, fall = draw.choice(forms), draw.choice(forms)
    given: dict[str, Any] = {"num_warmup_steps": warmup, "num_decay_steps": decay_steps, "min_lr_ratio": ratio}
    given |= {"warmup_type": rise, "decay_type": fall}
    end = warmup + stable + decay_steps
    given |= draw.choice(({"num_stable_steps": stable}, {"num_training_steps": end}))
    steps = {"max_update": stable + decay_steps, "warmup_steps": 0, "decay_steps": decay_steps}
    flat = WarmupStableDecay(**steps, decay=fall, base_lr=lr, final_lr=lr * ratio)
    ours = Warmup(flat, warmup, warmup_begin_lr=lr * ratio, warmup_mode=rise)
    origin = Stepped(partial(transformers.get_wsd_schedule, **given), lr)
    return Comparison(origin, ours, end + 20, (warmup, warmup + stable, end))


@TRANSFORMERS.case
def transformers_plateau(draw: Draw) -> Reaction:
    return pytorch_plateau_with(draw, transformers.get_reduce_on_plateau_schedule)


@TRANSFORMERS.case
def transformers_greedy(draw: Draw) -> Reaction:
    lr, results, (settings, rises) = draw.rate(), draw.results(), draw_plateau(draw)
    low = settings["min_lr"]
    settings |= {"factor": draw.inner(), "warmup": draw.randrange(4), "max_lr": max(low, draw.choice((lr, lr * 3, 100.0)))}
    settings |= {"reset_start": draw.randint(1, 4), "eps": draw.choice((0.0, 1e-8, lr / 10))}
    call = partial(transformers.get_greedy_schedule, mode="max" if rises else "min", **settings)
    ours = Greedy(base_lr=lr, metric=metric(rises), **settings)
    return Reaction((call, lr), pytorch_reduced(call, lr, results), ours, results)
