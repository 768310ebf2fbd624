"""Random cases of optax."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Clip,
    Constant,
    Cosine,
    Exponential,
    Linear,
    OneCycleLR,
    PiecewiseLinear,
    Poly,
    Sequential,
    Shift,
    Warmup,
)
from origins.comparisons import Comparison, Counted, Draw
from origins.curves import from_zero, joined, levels
from origins.libraries import OPTAX, Lazy

optax = Lazy("optax")


def optax_polynomial(draw: Draw, power: float | None) -> Comparison:
    begin, length, start, end = draw.up_to(50), draw.length(), draw.rate(), draw.choice((0.0, draw.rate()))
    end = draw.choice((end, end, start))
    given = {"init_value": start, "end_value": end, "transition_steps": length, "transition_begin": begin}
    if power is None:
        ours: AnySchedule = Linear(max_update=length, base_lr=start, final_lr=end)
        origin = Counted(partial(optax.linear_schedule, **given))
    else:
        ours = Poly(max_update=length, base_lr=start, final_lr=end, pwr=power)
        origin = Counted(partial(optax.polynomial_schedule, power=power, **given))
    return Comparison(origin, Shift(ours, by=-begin), begin + length + 20, (begin, begin + length))


def optax_decay(draw: Draw, lr: float, length: int) -> tuple[dict[str, Any], AnySchedule]:
    """Draw the arguments of `exponential_decay`, and the curve with the rates of the same updates."""
    steps, stairs, begin = draw.length(length), draw.random() < 0.5, draw.up_to(length // 2)
    factor = draw.ratio(length // steps)
    given = {"transition_steps": steps, "decay_rate": factor, "staircase": stairs, "transition_begin": begin}
    curve: AnySchedule = Exponential(step=steps, factor=factor, base_lr=lr, staircase=stairs)
    curve = Shift(curve, by=-begin if stairs else -begin - 1)
    if draw.random() < 0.6:
        bound = given["end_value"] = draw.choice((lr, lr * draw.uniform(0.1, 10)))
        curve = Clip(curve, min_lr=bound) if factor < 1 else Clip(curve, max_lr=bound)
    return given, curve


def optax_part(draw: Draw, length: int) -> tuple[Any, AnySchedule]:
    """Draw a schedule, and our curve that has the rates of the same updates."""
    lr, end = draw.rate(), draw.rate()
    match draw.randrange(4):
        case 0:
            return partial(optax.constant_schedule, lr), Constant(lr)
        case 1:
            given, curve = optax_decay(draw, lr, length)
            return partial(optax.exponential_decay, lr, **given), curve
        case 2:
            line = Linear(max_update=length, base_lr=lr, final_lr=end)
            return partial(optax.linear_schedule, lr, end, length), from_zero(line)
        case _:
            steps, alpha, exponent = draw.length(2 * length), draw.fraction(), draw.power()
            cosine = Cosine(max_update=steps, base_lr=lr, final_lr=alpha * lr, exponent=exponent)
            return partial(optax.cosine_decay_schedule, lr, steps, alpha, exponent), from_zero(cosine)


@OPTAX.case
def optax_constant(draw: Draw) -> Comparison:
    lr = draw.rate()
    return Comparison(Counted(partial(optax.constant_schedule, lr)), Constant(lr), 50)


@OPTAX.case
def optax_linear(draw: Draw) -> Comparison:
    return optax_polynomial(draw, None)


@OPTAX.case
def optax_poly(draw: Draw) -> Comparison:
    return optax_polynomial(draw, draw.power())


@OPTAX.case
def optax_cosine(draw: Draw) -> Comparison:
    lr, length, alpha, exponent = draw.rate(), draw.length(300), draw.choice((draw.fraction(), 1.5)), draw.power()
    origin = Counted(partial(optax.cosine_decay_schedule, lr, length, alpha, exponent))
    ours = Cosine(max_update=length, base_lr=lr, final_lr=alpha * lr, exponent=exponent)
    return Comparison(origin, ours, length + 20, [length // 2, length])


@OPTAX.case
def optax_exponential(draw: Draw) -> Comparison:
    lr, length = draw.rate(), draw.length(200)
    given, ours = optax_decay(draw, lr, length)
    begin, steps = given["transition_begin"], given["transition_steps"]
    origin = Counted(partial(optax.exponential_decay, lr, **given))
    return Comparison(origin, ours, length + 1, (begin, begin + steps, begin + 2 * steps), shift=1)


def draw_scales(draw: Draw) -> dict[int, float]:
    return {boundary: draw.choice((draw.uniform(0, 3), draw.fraction())) for boundary in draw.increasing()}


@OPTAX.case
def optax_piecewise_constant(draw: Draw) -> Comparison:
    lr, scales = draw.rate(), draw_scales(draw)
    origin = Counted(partial(optax.piecewise_constant_schedule, lr, scales))
    return Comparison(origin, levels(lr, list(scales), list(scales.values())), max(scales) + 20, scales, shift=1)


def optax_interpolated(kind: str, lr: float, scales: dict[int, float], origin: Any) -> Comparison:
    if 0 in scales:
        lr, scales = lr * scales[0], {boundary: scale for boundary, scale in scales.items() if boundary}
    knots, values = [0, *scales], list(accumulate(scales.values(), lambda rate, scale: rate * scale, initial=lr))
    ours: AnySchedule = PiecewiseLinear(knots=knots, values=values)
    if kind == "cosine":
        parts = zip(pairwise(knots), pairwise(values), strict=True)
        curves = [Cosine(max_update=stop - start, base_lr=high, final_lr=low) for (start, stop), (high, low) in parts]
        ours = Sequential(curves, boundaries=knots[1:-1]) if len(curves) > 1 else curves[0]
    return Comparison(Counted(origin), ours, knots[-1] + 20, knots)


@OPTAX.case
def optax_piecewise_interpolate(draw: Draw) -> Comparison:
    lr, scales, kind = draw.rate(), draw_scales(draw), draw.choice(("linear", "cosine"))
    return optax_interpolated(kind, lr, scales, partial(optax.piecewise_interpolate_schedule, kind, lr, scales))


@OPTAX.case
def optax_linear_onecycle(draw: Draw) -> Comparison:
    # With two equal boundaries, optax loses one of its phases.
    lr, length, (start, final) = draw.rate(), draw.length(300, 3), sorted((draw.random(), draw.random()))
    rise, fall = int(start * length), int(final * length)
    if rise == fall:
        rise, fall, start, final = 1, 2, 1.1 / length, 2.1 / length
    given = {
        "pct_start": start,
        "pct_final": final,
        "div_factor": draw.uniform(0.5, 30),
        "final_div_factor": draw.uniform(0.5, 90),
    }
    scales = {rise: given["div_factor"], fall: 1 / given["div_factor"], length: 1 / given["final_div_factor"]}
    origin = partial(optax.linear_onecycle_schedule, length, lr, **given)
    return optax_interpolated("linear", lr / given["div_factor"], scales, origin)


@OPTAX.case
def optax_cosine_onecycle(draw: Draw) -> Comparison:
    lr, length, start = draw.rate(), draw.length(300), draw.uniform(0, 0.999)
    given: dict[str, Any] = {"div_factor": draw.uniform(0.5, 30), "final_div_factor": draw.uniform(0.5, 1000)}
    rise = int(start * length) + 1
    ours = OneCycleLR(max_lr=lr, max_update=length + 1, pct_start=rise / (length + 1), **given)
    origin = Counted(partial(optax.cosine_onecycle_schedule, length, lr, pct_start=start, **given))
    return Comparison(origin, ours, length + 20, (rise, length + 1), shift=1)


@OPTAX.case
def optax_warmup_constant(draw: Draw) -> Comparison:
    lr, begin, warmup = draw.rate(), draw.choice((0.0, draw.rate())), draw.length()  # 0 steps would stay at the first rate
    origin = Counted(partial(optax.warmup_constant_schedule, begin, lr, warmup))
    return Comparison(origin, Warmup(Constant(lr), warmup, warmup_begin_lr=begin), warmup + 20, [warmup])


@OPTAX.case
def optax_warmup_cosine(draw: Draw) -> Comparison:
    lr, begin, end, power = draw.rate(), draw.choice((0.0, draw.rate())), draw.choice((0.0, draw.rate())), draw.power()
    length = draw.length(300)
    warmup = draw.up_to(length - 1)
    origin = Counted(partial(optax.warmup_cosine_decay_schedule, begin, lr, warmup, length, end, power))
    cosine = Cosine(max_update=length - warmup, base_lr=lr, final_lr=end, exponent=power)
    return Comparison(origin, Warmup(cosine, warmup, warmup_begin_lr=begin), length + 20, (warmup, length))


@OPTAX.case
def optax_warmup_exponential(draw: Draw) -> Comparison:
    lr, begin, warmup, length = draw.rate(), draw.choice((0.0, draw.rate())), draw.up_to(80), draw.length()
    given, decay = optax_decay(draw, lr, length)
    origin = Counted(partial(optax.warmup_exponential_decay_schedule, begin, lr, warmup, **given))
    rise = Linear(max_update=max(warmup, 1), base_lr=begin, final_lr=lr)
    return Comparison(origin, joined([from_zero(rise), decay], [warmup]), warmup + length, [warmup], shift=1)


@OPTAX.case
def optax_sgdr(draw: Draw) -> Comparison:
    cycles, curves = [], []
    for _ in range(draw.randint(1, 4)):
        lr, begin, end, length, power = draw.rate(), draw.rate(), draw.rate(), draw.length(100), draw.power()
        warmup = draw.up_to(length - 1)
        given = {"init_value": begin, "peak_value": lr, "decay_steps": length, "warmup_steps": warmup, "end_value": end}
        cycles.append(given | {"exponent": power})
        cosine = Cosine(max_update=length - warmup, base_lr=lr, final_lr=end, exponent=power)
        curves.append(from_zero(Warmup(cosine, warmup, warmup_begin_lr=begin)))
    ends = list(accumulate(int(cycle["decay_steps"]) for cycle in cycles))
    ours = joined(curves, ends[:-1])
    return Comparison(Counted(partial(optax.sgdr_schedule, cycles)), ours, ends[-1] + 20, ends, shift=1)


def optax_joined(parts: Sequence[Any], boundaries: list[int]) -> Any:
    return optax.join_schedules([part() for part in parts], boundaries)


@OPTAX.case
def optax_join(draw: Draw) -> Comparison:
    boundaries = draw.increasing(200, 3)
    lengths = [stop - start for start, stop in pairwise((0, *boundaries, boundaries[-1] + draw.length()))]
    parts, curves = zip(*(optax_part(draw, length) for length in lengths), strict=True)
    origin = Counted(partial(optax_joined, parts, boundaries))
    return Comparison(origin, joined(curves, boundaries), sum(lengths), boundaries, shift=1)
