"""Random cases of timm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Clip,
    Constant,
    Cosine,
    InverseTime,
    Linear,
    MultiFactor,
    Poly,
    Product,
    Scale,
    Shift,
    Sum,
    Tanh,
    WarmRestarts,
    Warmup,
    WarmupStableDecay,
)
from origins.comparisons import Comparison, Draw
from origins.curves import from_zero, joined, levels, restarts, staircase, whole
from origins.libraries import TIMM, Lazy, pytorch_optimizer

timm = Lazy("timm.scheduler")


@dataclass(frozen=True)
class Timm:
    """A scheduler of timm, whose rate depends only on the number of steps."""

    call: Callable[..., Any]
    lr: float

    def __call__(self, counts: list[int]) -> list[float]:
        optimizer, seen = pytorch_optimizer(self.lr), []
        scheduler = self.call(optimizer)
        for count in counts:
            scheduler.step(count)
            seen.append(optimizer.param_groups[0]["lr"])
        return seen


def timm_warmup(draw: Draw) -> tuple[dict[str, Any], int, float, bool]:
    """Draw the arguments of the warm-up."""
    warmup, begin, prefix = draw.up_to(60), draw.choice((0.0, draw.rate())), draw.random() < 0.5
    return {"warmup_t": warmup, "warmup_lr_init": begin, "warmup_prefix": prefix}, warmup, begin, prefix


def timm_levels(draw: Draw, call: Any, lr: float, curve: AnySchedule, ends: Sequence[int]) -> Comparison:
    given, warmup, begin, prefix = timm_warmup(draw)
    rise = from_zero(Linear(max_update=max(warmup, 1), base_lr=begin, final_lr=lr))
    ours = joined([rise, curve if prefix else Shift(curve, by=warmup)], [warmup])
    offset = warmup if prefix else 0
    corners = [warmup, *(offset + end for end in ends)]
    return Comparison(Timm(partial(call, **given), lr), ours, offset + warmup + ends[-1] + 20, corners, shift=1)


@TIMM.case
def timm_step(draw: Draw) -> Comparison:
    lr, step = draw.rate(), draw.length(60)
    factor = draw.ratio(8 + 200 // step)
    call = partial(timm.StepLRScheduler, decay_t=step, decay_rate=factor)
    return timm_levels(draw, call, lr, staircase(lr, step, factor), [step, 2 * step, 6 * step])


@TIMM.case
def timm_multi_step(draw: Draw) -> Comparison:
    lr, milestones, factor = draw.rate(), draw.increasing(first=2), draw.ratio(4)
    ends = [milestone - 1 for milestone in milestones]  # timm drops one step early
    curve: AnySchedule = levels(lr, ends, [factor] * len(ends))
    if factor <= 1:
        curve = MultiFactor(step=ends, factor=factor, base_lr=lr)
    return timm_levels(draw, partial(timm.MultiStepLRScheduler, decay_t=milestones, decay_rate=factor), lr, curve, ends)


def timm_single(draw: Draw, call: Any, lr: float, curve: AnySchedule, length: int) -> Comparison:
    given, warmup, begin, prefix = timm_warmup(draw)
    # Without the prefix, the warm-up of TanhLRScheduler ends at the rate of the tangent there; that of the others ends at lr.
    end = curve.rate_at(warmup) if isinstance(curve, Tanh) and not prefix else lr
    ours = Warmup(curve, warmup, warmup_begin_lr=begin, warmup_end_lr=end, overlay=not prefix)
    # The tangent does not begin with lr, and timm begins it at the last iteration of the warm-up; ours begins after it.
    apart = [warmup] if isinstance(curve, Tanh) and prefix else []
    offset = warmup if prefix else 0
    return Comparison(Timm(partial(call, **given), lr), ours, offset + length + 20, (warmup, offset + length), apart=apart)


@TIMM.case
def timm_cosine(draw: Draw) -> Comparison:
    lr, length, k_decay = draw.rate(), draw.length(200), draw.power()
    low = draw.choice((0.0, lr * draw.fraction(), draw.rate()))
    ours = Cosine(max_update=length, base_lr=lr, final_lr=low, k_decay=k_decay)
    call = partial(timm.CosineLRScheduler, t_initial=length, lr_min=low, k_decay=k_decay)
    return timm_single(draw, call, lr, ours, length)


@TIMM.case
def timm_poly(draw: Draw) -> Comparison:
    lr, length, power, k_decay = draw.rate(), draw.length(200), draw.power(), draw.power()
    low = draw.choice((0.0, lr * draw.fraction(), draw.rate()))
    ours = Poly(max_update=length, base_lr=lr, final_lr=low, pwr=power, k_decay=k_decay)
    call = partial(timm.PolyLRScheduler, t_initial=length, power=power, lr_min=low, k_decay=k_decay)
    return timm_single(draw, call, lr, ours, length)


def draw_tanh(draw: Draw) -> dict[str, Any]:
    lower = draw.choice((-7.0, -1.0, draw.uniform(-8, 2)))
    return {"lower": lower, "upper": lower + draw.choice((10.0, 0.5, draw.uniform(0.1, 10)))}


@TIMM.case
def timm_tanh(draw: Draw) -> Comparison:
    lr, length, bounds = draw.rate(), draw.length(200), draw_tanh(draw)
    low = draw.choice((0.0, lr * draw.fraction()))
    call = partial(timm.TanhLRScheduler, t_initial=length, lb=bounds["lower"], ub=bounds["upper"], lr_min=low)
    return timm_single(draw, call, lr, Tanh(max_update=length, base_lr=lr, final_lr=low, **bounds), length)


def draw_timm_cycles(draw: Draw, multiple: float) -> tuple[dict[str, Any], int, float, int]:
    length, factor, limit = draw.length(50), draw.fraction(), draw.randint(1, 5)
    given = {"t_initial": length, "cycle_mul": multiple, "cycle_decay": factor, "cycle_limit": limit}
    return given, length, factor, limit


@TIMM.case
def timm_cosine_cycles(draw: Draw) -> Comparison:
    lr, multiple = draw.rate(), draw.multiple()
    low, (cycles, length, factor, limit) = lr * draw.fraction(), draw_timm_cycles(draw, multiple)
    given, warmup, begin, prefix = timm_warmup(draw)
    starts = restarts(length, multiple, 400)
    ours = WarmRestarts(low, max_lr=lr, cycle_length=length, t_mult=multiple, cycle_decay=factor, cycle_limit=limit)
    warmed = Warmup(ours, warmup, warmup_begin_lr=begin, overlay=not prefix)
    origin = Timm(partial(timm.CosineLRScheduler, lr_min=low, **cycles, **given), lr)
    offset = warmup if prefix else 0
    # timm finds the cycle with a logarithm, whose rounding may make it wrong by one where a cycle begins.
    begins = whole(starts, offset) if multiple > 1 else ()
    return Comparison(origin, warmed, 400, [warmup, *(offset + int(start) for start in starts)], restarts=begins)


@TIMM.case
def timm_other_cycles(draw: Draw) -> Comparison:
    lr, multiple, power, bounds = draw.rate(), draw.randint(1, 3), draw.power(), draw_tanh(draw)
    low, (given, length, factor, limit) = lr * draw.fraction(), draw_timm_cycles(draw, multiple)
    kind = draw.choice(("Cosine", "Poly", "Tanh"))
    curves: list[AnySchedule] = []
    lengths = [length * multiple**cycle for cycle in range(limit)]
    for cycle, steps in enumerate(lengths):
        common = {"max_update": steps, "base_lr": lr * factor**cycle, "final_lr": low}
        match kind:
            case "Cosine":
                curves.append(Cosine(k_decay=power, **common))
            case "Poly":
                curves.append(Poly(k_decay=power, pwr=bounds["upper"] % 3, **common))
            case _:
                curves.append(Tanh(**bounds, **common))
    match kind:
        case "Cosine":
            given |= {"k_decay": power}
        case "Poly":
            given |= {"k_decay": power, "power": bounds["upper"] % 3}
        case _:
            given |= {"lb": bounds["lower"], "ub": bounds["upper"]}
    ends = list(accumulate(lengths))
    ours = joined([*map(from_zero, curves), Constant(low)], ends)
    origin = Timm(partial(getattr(timm, f"{kind}LRScheduler"), lr_min=low, **given), lr)
    begins = {end + 1 for end in ends} if multiple > 1 else ()
    return Comparison(origin, ours, min(ends[-1] + 20, 3000), ends, shift=1, restarts=begins)


def draw_timm_decay(draw: Draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw the form of the decay of WSDLRScheduler, and the arguments of our curve for it."""
    power, ratio = draw.power(), draw.inner()
    match draw.choice(("linear", "1-sqrt", "cosine", "power", "exp")):
        case "power":
            return {"decay_fn": "power", "decay_power": power}, {"decay": "power", "decay_power": power}
        case "exp":
            return {"decay_fn": "exp", "decay_ratio": ratio}, {"decay": "exponential", "decay_ratio": ratio}
        case form:
            return {"decay_fn": form}, {"decay": form}


@TIMM.case
def timm_wsd(draw: Draw) -> Comparison:
    lr, length, warmup, begin = draw.rate(), draw.length(200), draw.up_to(60), draw.choice((0.0, draw.rate()))
    low, decay_steps, (theirs, form) = lr * draw.fraction(), draw.up_to(length) or 1, draw_timm_decay(draw)
    end = warmup + length
    given: dict[str, Any] = {
        "t_initial": length,
        "decay_t": decay_steps,
        "lr_min": low,
        "warmup_t": warmup,
        "warmup_lr_init": begin,
    }
    stable, timescale, power = draw.choice(("constant", "rsqrt", "power")), draw.uniform(0.5, 100), draw.power()
    given |= {"stable_fn": stable, "stable_timescale": timescale, "stable_power": power} | theirs
    if stable == "constant":
        steps: dict[str, Any] = {"max_update": end, "warmup_steps": warmup, "decay_steps": decay_steps}
        ours: AnySchedule = WarmupStableDecay(**steps, **form, base_lr=lr, warmup_begin_lr=begin, final_lr=low)
    else:
        # lr_min + (stable − lr_min) · decay
        power = 0.5 if stable == "rsqrt" else power
        decline = Clip(InverseTime(step=1, decay_rate=1 / timescale, power=power, base_lr=lr), min_lr=low)
        warmed = Warmup(decline, warmup, warmup_begin_lr=begin)
        decay = WarmupStableDecay(max_update=end, warmup_steps=0, decay_steps=decay_steps, base_lr=1, **form)
        ours = Product([warmed, decay])
        if low:
            ours = Sum([ours, Constant(low), Scale(decay, low)], weights=[1, 1, -1])
    corners = (warmup, end - decay_steps, end)
    return Comparison(Timm(partial(timm.WSDLRScheduler, **given), lr), ours, end + 20, corners)
