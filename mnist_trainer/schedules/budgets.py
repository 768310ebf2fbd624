"""Curves for a budget of iterations, flat for most of it: WarmupStableDecay and FlatCosine."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from mnist_trainer.schedules.fields import (
    FieldValueError,
    below,
    duration,
    non_negative_int,
    one_of,
    positive_int,
    rate,
)
from mnist_trainer.schedules.schedule import FromBaseLr, curve

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
    warmup_steps: int = duration()
    decay_steps: int = duration()
    decay: str = "linear"
    warmup_begin_lr: float = 0.0
    final_lr: float = 0.0

    example: ClassVar[dict[str, Any]] = {
        "max_update": 1000,
        "warmup_steps": 100,
        "decay_steps": 300,
        "decay": "1-sqrt",
        "base_lr": 1,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            max_update=positive_int("max_update", self.max_update),
            warmup_steps=non_negative_int("warmup_steps", self.warmup_steps),
            decay_steps=positive_int("decay_steps", self.decay_steps),
            decay=one_of("decay", self.decay, tuple(DECAYS)),
            warmup_begin_lr=rate("warmup_begin_lr", self.warmup_begin_lr),
            final_lr=rate("final_lr", self.final_lr),
        )
        if self.warmup_steps + self.decay_steps > self.max_update:
            sum_of = f"warmup_steps = {self.warmup_steps} are more than max_update = {self.max_update}"
            raise FieldValueError("decay_steps", f"= {self.decay_steps} and {sum_of}")

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
    flat_steps: int = duration()
    final_lr: float = 0.0

    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "flat_steps": 750, "base_lr": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            max_update=positive_int("max_update", self.max_update),
            flat_steps=non_negative_int("flat_steps", self.flat_steps),
            final_lr=rate("final_lr", self.final_lr),
        )
        below("flat_steps", self.flat_steps, "max_update", self.max_update)

    def rate_at(self, iteration: int) -> float:
        done = min(max(iteration - self.flat_steps, 0) / (self.max_update - self.flat_steps), 1.0)
        return self.final_lr + (self.base_lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2
