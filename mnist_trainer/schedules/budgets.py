"""Curves for a budget of iterations, flat for most of it: WarmupStableDecay and FlatCosine."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from mnist_trainer.fields import RATE, Choice, Whole, setting
from mnist_trainer.schedules.schedule import FromBaseLr, curve, duration

DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "1-sqrt": lambda done: 1 - math.sqrt(done),
}
"""What is left of the way when a fraction of the decay is done, as Hugging Face names them."""


@curve
class WarmupStableDecay(FromBaseLr):
    """Up, flat, down: lr(k) = base_lr · k/warmup_steps, then base_lr, then final_lr + (base_lr − final_lr) · what is left.

    Hu et al., "MiniCPM", 2024; Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
    2024, found 1 − √ best; Hugging Face's `get_wsd_schedule`. From `max_update` on it stays at `final_lr`.

    max_update: iterations of the whole; the first `warmup_steps` rise, the last `decay_steps` fall.
    decay: "linear", "cosine" or "1-sqrt": what is left of the way down when a part d of it is done is 1 − d, half a cosine of
        it, or 1 − √d.
    warmup_begin_lr: where the warm-up starts, in place of 0.

    >>> schedule = WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=200, decay="1-sqrt", base_lr=1)
    >>> schedule(1), schedule(100), schedule(800), schedule(850), schedule(1000), schedule(1_000_000)
    (0.01, 1.0, 1.0, 0.5, 0.0, 0.0)
    """

    max_update: int = duration()
    warmup_steps: int = duration(Whole(0))
    decay_steps: int = duration()
    decay: str = setting(Choice(tuple(DECAYS)), default="linear")
    warmup_begin_lr: float = setting(RATE, default=0.0)
    final_lr: float = setting(RATE, default=0.0)

    example: ClassVar[dict[str, Any]] = {
        "max_update": 1000,
        "warmup_steps": 100,
        "decay_steps": 300,
        "decay": "1-sqrt",
        "base_lr": 1,
    }

    def check_together(self) -> None:
        left = self.max_update - self.warmup_steps
        if self.decay_steps > left:
            raise self.refused(
                "decay_steps",
                f"must be at most {left}, which warmup_steps = {self.warmup_steps} leaves of max_update = {self.max_update}",
            )

    def rate_at(self, iteration: int) -> float:
        if iteration < self.warmup_steps:
            return self.warmup_begin_lr + (self.base_lr - self.warmup_begin_lr) * (iteration / self.warmup_steps)
        if iteration >= self.max_update:
            return self.final_lr
        done = max(iteration - (self.max_update - self.decay_steps), 0) / self.decay_steps
        return self.final_lr + (self.base_lr - self.final_lr) * DECAYS[self.decay](done)


@curve
class FlatCosine(FromBaseLr):
    """Flat, then half a cosine: lr(k) = base_lr up to flat_steps, then final_lr + (base_lr − final_lr) · (1 + cos(π·done)) / 2.

    done = (k − flat_steps) / (max_update − flat_steps). fastai's `fit_flat_cos`, where the flat part is 0.75 of the whole
    (`flat_fraction = 0.75`); from `max_update` on it stays at `final_lr`.

    >>> schedule = FlatCosine(max_update=1000, flat_steps=750, base_lr=1)
    >>> schedule(1), schedule(750), round(schedule(875), 6), schedule(1000), schedule(1_000_000)
    (1.0, 1.0, 0.5, 0.0, 0.0)
    """

    max_update: int = duration()
    flat_steps: int = duration(Whole(0))
    final_lr: float = setting(RATE, default=0.0)

    relations = ("flat_steps < max_update",)
    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "flat_steps": 750, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        done = min(max(iteration - self.flat_steps, 0) / (self.max_update - self.flat_steps), 1.0)
        return self.final_lr + (self.base_lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2
