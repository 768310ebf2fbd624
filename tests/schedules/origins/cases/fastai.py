"""Random cases of fastai."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Constant,
    Cosine,
    Exponential,
    FlatCosine,
    Linear,
    OneCycleLR,
    Poly,
    Sequential,
    WarmRestarts,
)
from origins.comparisons import Comparison, Draw
from origins.libraries import FASTAI


@dataclass(frozen=True)
class Progressed:
    """A schedule of fastai, a function of the elapsed fraction of the training."""

    call: Callable[..., Any]
    length: int

    def __call__(self, counts: list[int]) -> list[float]:
        schedule = self.call()
        return [float(schedule(count / self.length)) for count in counts]


@FASTAI.case
def fastai_annealing(draw: Draw) -> Comparison:
    start, end, length, power = draw.rate(), draw.rate(), draw.length(300), draw.power()
    common: dict[str, Any] = {"max_update": length, "base_lr": start, "final_lr": end}
    curves: dict[str, AnySchedule] = {
        "SchedLin": Linear(**common),
        "SchedCos": Cosine(**common),
        "SchedNo": Constant(start),
        "SchedExp": Exponential(step=length, factor=end / start, base_lr=start),
        "SchedPoly": Poly(pwr=1, k_decay=power, **common),
    }
    name = draw.choice(list(curves))
    given = (start, end, power) if name == "SchedPoly" else (start, end)
    return Comparison(Progressed(partial(getattr(FASTAI.load(), name), *given), length), curves[name], length, [length // 2])


@FASTAI.case
def fastai_one_cycle(draw: Draw) -> Comparison:
    lr, length, pct = draw.rate(), draw.length(300), draw.choice((0.25, 0.5, draw.uniform(0.001, 0.999)))
    div, div_final = draw.choice((25.0, draw.uniform(1, 50))), draw.choice((1e5, draw.uniform(1, 1e5)))
    ours = OneCycleLR(
        max_lr=lr,
        max_update=length + 1,
        pct_start=(pct * length + 1) / (length + 1),
        div_factor=div,
        final_div_factor=div_final / div,
    )
    # The call of fit_one_cycle
    origin = Progressed(partial(FASTAI.load().combined_cos, pct, lr / div, lr, lr / div_final), length)
    return Comparison(origin, ours, length + 1, [round(pct * length), round(pct * length) + 1], shift=1)


@FASTAI.case
def fastai_flat_cosine(draw: Draw) -> Comparison:
    lr, length, div_final = draw.rate(), draw.length(300, 2), draw.choice((1e5, draw.uniform(1, 1e5)))
    flat = draw.randint(1, length - 1)
    # The call of fit_flat_cos
    origin = Progressed(partial(FASTAI.load().combined_cos, flat / length, lr, lr, lr / div_final), length)
    ours = FlatCosine(max_update=length, flat_steps=flat, base_lr=lr, final_lr=lr / div_final)
    return Comparison(origin, ours, length, [flat])


@FASTAI.case
def fastai_sgdr(draw: Draw) -> Comparison:
    while True:
        lr, length, multiple, cycles = draw.rate(), draw.length(40), draw.randint(2, 3), draw.randint(1, 5)
        lengths = [length * multiple**cycle for cycle in range(cycles)]
        pcts = [steps / sum(lengths) for steps in lengths]
        if sum(pcts) == 1:  # fastai refuses others
            break
    schedules = FASTAI.load()
    # The call of fit_sgdr. The rounding of the fractions decides whether a cycle ends or the next one begins at a restart.
    origin = partial(schedules.combine_scheds, pcts, [schedules.SchedCos(lr, 0)] * cycles)
    ours = WarmRestarts(0, max_lr=lr, cycle_length=length, t_mult=multiple, cycle_limit=cycles)
    starts = list(accumulate(lengths))
    return Comparison(Progressed(origin, starts[-1]), ours, starts[-1], starts, restarts=starts[:-1])


@FASTAI.case
def fastai_combined_cos(draw: Draw) -> Comparison:
    start, middle, end, length = draw.rate(), draw.rate(), draw.rate(), draw.length(300, 2)
    turn = draw.randint(1, length - 1)
    origin = Progressed(partial(FASTAI.load().combined_cos, turn / length, start, middle, end), length)
    rise = Cosine(max_update=turn, base_lr=start, final_lr=middle)
    fall = Cosine(max_update=length - turn, base_lr=middle, final_lr=end)
    return Comparison(origin, Sequential([rise, fall], boundaries=[turn]), length, [turn])
