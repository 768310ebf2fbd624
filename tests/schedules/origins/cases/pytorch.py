"""Random cases of PyTorch."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Constant,
    Cosine,
    CosineAnnealing,
    Exponential,
    Factor,
    Hold,
    Linear,
    MultiFactor,
    OneCycleLR,
    OneCycleMomentum,
    Piecewise,
    Plateau,
    Poly,
    Product,
    Sum,
    WarmRestarts,
)
from origins.comparisons import Comparison, Draw, Reaction, Stepped
from origins.curves import (
    cyclic,
    draw_cyclic,
    draw_one_cycle,
    draw_plateau,
    from_zero,
    joined,
    levels,
    metric,
    one_cycle_corners,
    restarts,
    staircase,
)
from origins.libraries import PYTORCH, lr_scheduler, pytorch_optimizer


def pytorch_part(draw: Draw, lr: float, length: int, *, every: int = 1, product: bool = False) -> tuple[Any, AnySchedule]:
    """Draw one of PyTorch's schedulers, and our curve that has the rates of the same updates.

    Args:
        draw: The source of random parameters.
        lr: The initial rate of the curve.
        length: The number of steps, which a cosine must not exceed: PyTorch's rises again after its end.
        every: The number of updates per step.
        product: True for a scheduler that only multiplies the rate.
    """

    def smooth(curve: AnySchedule) -> AnySchedule:
        return from_zero(curve) if every == 1 else Hold(curve, length=every)

    steps, ratio = draw.length(length), draw.ratio(length)
    match draw.randrange(7):
        case 0:
            return partial(lr_scheduler.StepLR, step_size=steps, gamma=ratio), staircase(lr, steps * every, ratio)
        case 1:
            ends, factor = draw.increasing(length + 1), draw.fraction()
            curve: AnySchedule = MultiFactor(step=[end * every for end in ends], factor=factor, base_lr=lr)
            return partial(lr_scheduler.MultiStepLR, milestones=ends, gamma=factor), curve
        case 2:
            factor = draw.share()
            curve = Piecewise(boundaries=[steps * every], values=[lr * factor, lr])
            return partial(lr_scheduler.ConstantLR, factor=factor, total_iters=steps), curve
        case 3:
            start, end = draw.share(), draw.fraction()
            line = Linear(max_update=steps * every, base_lr=lr * start, final_lr=lr * end)
            return partial(lr_scheduler.LinearLR, start_factor=start, end_factor=end, total_iters=steps), smooth(line)
        case 4:
            return partial(lr_scheduler.ExponentialLR, gamma=ratio), smooth(Exponential(step=every, factor=ratio, base_lr=lr))
        case 5:
            power = draw.power()
            poly = Poly(max_update=steps * every, base_lr=lr, pwr=power)
            return partial(lr_scheduler.PolynomialLR, total_iters=steps, power=power), smooth(poly)
        case _:
            end, low = draw.randint(length, 2 * length), 0 if product else lr * draw.fraction()
            cosine = Cosine(max_update=end * every, base_lr=lr, final_lr=low)
            return partial(lr_scheduler.CosineAnnealingLR, T_max=end, eta_min=low), smooth(cosine)


@PYTORCH.case
def pytorch_step(draw: Draw) -> Comparison:
    lr, step, gamma = draw.rate(), draw.length(60), draw.ratio(8)
    ours = staircase(lr, step, gamma)
    if gamma <= 1 and draw.random() < 0.5:
        ours = Factor(step=step, factor=gamma, base_lr=lr, stop_factor_lr=0)
    origin = Stepped(partial(lr_scheduler.StepLR, step_size=step, gamma=gamma), lr)
    return Comparison(origin, ours, 8 * step, (step, 2 * step, 5 * step), shift=1)


@PYTORCH.case
def pytorch_multi_step(draw: Draw) -> Comparison:
    lr, ends, gamma = draw.rate(), draw.increasing(), draw.choice((0.0, draw.ratio(4)))
    repeated = [end for end in ends for _ in range(draw.choice((1, 1, 1, 2)))]
    ours: AnySchedule = levels(lr, ends, [gamma ** repeated.count(end) for end in ends])
    if gamma <= 1 and repeated == ends:
        ours = MultiFactor(step=ends, factor=gamma, base_lr=lr)
    origin = Stepped(partial(lr_scheduler.MultiStepLR, milestones=repeated, gamma=gamma), lr)
    return Comparison(origin, ours, ends[-1] + 20, ends, shift=1)


@PYTORCH.case
def pytorch_constant(draw: Draw) -> Comparison:
    lr, factor, end = draw.rate(), draw.share(), draw.length()
    origin = Stepped(partial(lr_scheduler.ConstantLR, factor=factor, total_iters=end), lr)
    return Comparison(origin, Piecewise(boundaries=[end], values=[lr * factor, lr]), end + 20, [end], shift=1)


@PYTORCH.case
def pytorch_linear(draw: Draw) -> Comparison:
    lr, start, end, length = draw.rate(), draw.share(), draw.fraction(), draw.length()
    ours = Linear(max_update=length, base_lr=lr * start, final_lr=lr * end)
    origin = Stepped(partial(lr_scheduler.LinearLR, start_factor=start, end_factor=end, total_iters=length), lr)
    return Comparison(origin, ours, length + 20, [length])


@PYTORCH.case
def pytorch_exponential(draw: Draw) -> Comparison:
    lr, gamma = draw.rate(), draw.ratio(200)
    origin = Stepped(partial(lr_scheduler.ExponentialLR, gamma=gamma), lr)
    return Comparison(origin, Exponential(step=1, factor=gamma, base_lr=lr), 200)


@PYTORCH.case
def pytorch_polynomial(draw: Draw) -> Comparison:
    lr, length, power = draw.rate(), draw.length(), draw.choice((0.0, draw.power(), draw.power(), draw.power()))
    origin = Stepped(partial(lr_scheduler.PolynomialLR, total_iters=length, power=power), lr)
    return Comparison(origin, Poly(max_update=length, base_lr=lr, pwr=power), length + 20, [length])


@PYTORCH.case
def pytorch_cosine(draw: Draw) -> Comparison:
    lr, length = draw.rate(), draw.length(300)
    low = draw.choice((0.0, lr * draw.fraction(), draw.rate()))
    ours: AnySchedule = Cosine(max_update=length, base_lr=lr, final_lr=low)
    if low <= lr and draw.random() < 0.5:
        ours = CosineAnnealing(low, max_lr=lr, cycle_length=length)
    # After T_max steps the cosine of PyTorch rises again; ours stays at its end.
    return Comparison(
        Stepped(partial(lr_scheduler.CosineAnnealingLR, T_max=length, eta_min=low), lr), ours, length, [length // 2]
    )


@PYTORCH.case
def pytorch_warm_restarts(draw: Draw) -> Comparison:
    lr, length, multiple = draw.rate(), draw.length(60), draw.randint(1, 4)
    low = draw.choice((0.0, lr * draw.fraction(), lr + draw.rate()))
    cycles = {"cycle_length": length, "t_mult": multiple}
    if low <= lr:
        ours: AnySchedule = WarmRestarts(low, max_lr=lr, **cycles)
    else:  # the cosine rises
        ours = Sum([Constant(low), WarmRestarts(0, max_lr=low - lr, **cycles)], weights=[1, -1])
    last = draw.choice((4 * length, 300))
    origin = Stepped(partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=length, T_mult=multiple, eta_min=low), lr)
    return Comparison(origin, ours, last, map(round, restarts(length, multiple, last)))


def pytorch_cyclic_call(mode: str, low: float, high: float, up: int, down: int, gamma: float) -> Any:
    rates = {"base_lr": low, "max_lr": high, "step_size_up": up, "step_size_down": down}
    return partial(lr_scheduler.CyclicLR, mode=mode, gamma=gamma, **rates)


@PYTORCH.case
def pytorch_cyclic(draw: Draw) -> Comparison:
    mode, low, high, up, down, gamma = draw_cyclic(draw)
    down = draw.choice((0, down, down, down))
    ours = cyclic(draw, mode, low, high, up, down, gamma)
    corners = (up, up + down, 2 * up + down, 2 * up + 2 * down)
    return Comparison(Stepped(pytorch_cyclic_call(mode, low, high, up, down, gamma)), ours, 3 * (up + down) + 10, corners)


@PYTORCH.case
def pytorch_cyclic_momentum(draw: Draw) -> Comparison:
    mode, _, _, up, down, gamma = draw_cyclic(draw)
    gamma = min(gamma, 1)  # a larger one makes the momentum negative
    low, high = sorted((draw.fraction(), draw.fraction()))
    ours = Sum([Constant(high), cyclic(draw, mode, 0, high - low, up, down, gamma)], weights=[1, -1])
    call = partial(pytorch_cyclic_call(mode, 0.1, 1, up, down, gamma), base_momentum=low, max_momentum=high)
    return Comparison(Stepped(call, read="momentum"), ours, 3 * (up + down), (up, up + down, 2 * up + down))


def pytorch_one_cycle_call(cycle: dict[str, Any], **others: float) -> Any:
    given = {name: value for name, value in cycle.items() if name != "max_update"}
    return partial(lr_scheduler.OneCycleLR, total_steps=cycle["max_update"], **given, **others)


@PYTORCH.case
def pytorch_one_cycle(draw: Draw) -> Comparison:
    cycle = draw_one_cycle(draw)
    rates: dict[str, Any] = {
        "max_lr": draw.rate(),
        "div_factor": draw.choice((25.0, 1.0, draw.uniform(0.5, 50))),
        "final_div_factor": draw.choice((1e4, 1.0, draw.uniform(0.5, 1000))),
    }
    origin = Stepped(pytorch_one_cycle_call(cycle, **rates))
    return Comparison(origin, OneCycleLR(**cycle, **rates), cycle["max_update"], one_cycle_corners(cycle), shift=1)


@PYTORCH.case
def pytorch_one_cycle_momentum(draw: Draw) -> Comparison:
    cycle, (low, high) = draw_one_cycle(draw), sorted((draw.fraction(), draw.fraction()))
    momenta: dict[str, Any] = {"base_momentum": low, "max_momentum": high}
    origin = Stepped(pytorch_one_cycle_call(cycle, max_lr=1, **momenta), read="momentum")
    return Comparison(origin, OneCycleMomentum(**cycle, **momenta), cycle["max_update"], one_cycle_corners(cycle), shift=1)


def pytorch_sequential_call(optimizer: Any, parts: Sequence[Any], milestones: list[int]) -> Any:
    return lr_scheduler.SequentialLR(optimizer, [part(optimizer) for part in parts], milestones)


@PYTORCH.case
def pytorch_sequential(draw: Draw) -> Comparison:
    lr, milestones = draw.rate(), draw.increasing(200, 3)
    lengths = [stop - start for start, stop in pairwise((0, *milestones, milestones[-1] + draw.length()))]
    parts, curves = zip(*(pytorch_part(draw, lr, length) for length in lengths), strict=True)
    origin = Stepped(partial(pytorch_sequential_call, parts=parts, milestones=milestones), lr)
    return Comparison(origin, joined(curves, milestones), sum(lengths), milestones, shift=1)


def pytorch_chained_call(optimizer: Any, parts: Sequence[Any]) -> Any:
    return lr_scheduler.ChainedScheduler([part(optimizer) for part in parts], optimizer)


@PYTORCH.case
def pytorch_chained(draw: Draw) -> Comparison:
    lr, length = draw.rate(), draw.length(200)
    drawn = [pytorch_part(draw, rate, length, product=True) for rate in (lr, 1, 1)[: draw.randint(1, 3)]]
    parts, curves = zip(*drawn, strict=True)
    return Comparison(Stepped(partial(pytorch_chained_call, parts=parts), lr), Product(curves), length, shift=1)


class PerEpoch:
    """A scheduler that is stepped once per epoch."""

    def __init__(self, optimizer: Any, part: Any, iterations: int) -> None:
        self.scheduler, self.iterations, self.count = part(optimizer), iterations, 0

    def step(self) -> None:
        self.count += 1
        if self.count % self.iterations == 0:
            self.scheduler.step()


@PYTORCH.case
def pytorch_per_epoch(draw: Draw) -> Comparison:
    lr, epochs, iterations = draw.rate(), draw.length(20), draw.length(20)
    part, ours = pytorch_part(draw, lr, epochs, every=iterations)
    origin = Stepped(partial(PerEpoch, part=part, iterations=iterations), lr)
    return Comparison(origin, ours, epochs * iterations, (iterations, 2 * iterations), shift=1)


def pytorch_reduced(call: Any, lr: float, results: Iterable[float]) -> list[float]:
    """Return the rate after each result."""
    optimizer, rates = pytorch_optimizer(lr), []
    scheduler = call(optimizer)
    for result in results:
        scheduler.step(result)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def pytorch_plateau_with(draw: Draw, call: Any) -> Reaction:
    lr, results, (settings, rises) = draw.rate(), draw.results(), draw_plateau(draw)
    call = partial(call, mode="max" if rises else "min", **settings)
    ours = Plateau(Constant(lr), metric=metric(rises), **settings)
    return Reaction((call, lr), pytorch_reduced(call, lr, results), ours, results)


@PYTORCH.case
def pytorch_plateau(draw: Draw) -> Reaction:
    return pytorch_plateau_with(draw, lr_scheduler.ReduceLROnPlateau)
