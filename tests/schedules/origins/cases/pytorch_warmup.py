"""Random cases of pytorch_warmup."""

from functools import partial
from typing import Any

from mnist_trainer.schedules import (
    Linear,
    Product,
    Warmup,
)
from origins.cases.pytorch import pytorch_part
from origins.comparisons import Comparison, Draw, Stepped
from origins.libraries import PYTORCH_WARMUP


class Dampened:
    """A scheduler within the warm-up of pytorch_warmup."""

    def __init__(self, optimizer: Any, part: Any, warmup: Any) -> None:
        self.scheduler, self.warmup = part(optimizer), warmup(optimizer)

    def step(self) -> None:
        with self.warmup.dampening():
            self.scheduler.step()


@PYTORCH_WARMUP.case
def pytorch_warmup_exponential(draw: Draw) -> Comparison:
    lr, period, length = draw.rate(), draw.length(), draw.length(200)
    part, curve = pytorch_part(draw, lr, length)
    warmup = partial(PYTORCH_WARMUP.load().ExponentialWarmup, warmup_period=period)
    ours = Warmup(curve, period, warmup_mode="1-exp", overlay=True)
    return Comparison(Stepped(partial(Dampened, part=part, warmup=warmup), lr), ours, length, [period], shift=1)


@PYTORCH_WARMUP.case
def pytorch_warmup_linear(draw: Draw) -> Comparison:
    lr, period, length = draw.rate(), draw.length(), draw.length(200)
    part, curve = pytorch_part(draw, lr, length)
    warmup = partial(PYTORCH_WARMUP.load().LinearWarmup, warmup_period=period)
    ours = Product([curve, Linear(max_update=period, base_lr=0, final_lr=1)])
    return Comparison(Stepped(partial(Dampened, part=part, warmup=warmup), lr), ours, length, [period], shift=1)
