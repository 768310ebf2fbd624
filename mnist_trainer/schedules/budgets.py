"""Curves for a fixed number of iterations, flat for most of them: WarmupStableDecay and FlatCosine."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from mnist_trainer.fields import RATE, Choice, Whole, setting
from mnist_trainer.schedules.schedule import WHOLE_RUN, Filling, FromBaseLr, curve, duration

DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "1-sqrt": lambda done: 1 - math.sqrt(done),
}
"""Name of a decay, as in Hugging Face → function from the elapsed fraction of the decay to the remaining drop, from 1 to 0."""


@curve
class WarmupStableDecay(FromBaseLr):
    """Rises to `base_lr`, stays there for most of the run, and falls at the end.

    lr(k) = warmup_begin_lr + (base_lr − warmup_begin_lr) · k / warmup_steps in the warm-up
    lr(k) = base_lr between the warm-up and the decay
    lr(k) = final_lr + (base_lr − final_lr) · remaining(d) in the decay

    d is the elapsed fraction of the decay, and remaining(d) is 1 − d, (1 + cos(π · d)) / 2 or 1 − √d. From iteration
    `max_update` on the rate is `final_lr`.

    Source: Hu et al., "MiniCPM", 2024; Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations", 2024, who found 1 − √d best; Hugging Face's `get_wsd_schedule`.

    Args:
        max_update: Iterations of all three parts together.
        warmup_steps: Iterations of the warm-up; 0 for none.
        decay_steps: Iterations of the decay.
        decay: The form of the decay: "linear", "cosine" or "1-sqrt".
        warmup_begin_lr: The learning rate at which the warm-up begins.
        final_lr: The learning rate from iteration `max_update` on.
        base_lr: The learning rate between the warm-up and the decay.

    Raises:
        FieldError: An argument is invalid, or the warm-up and the decay are together longer than `max_update`.

    Example:
        >>> schedule = WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=200, decay="1-sqrt", base_lr=1)
        >>> schedule(1), schedule(100), schedule(800), schedule(850), schedule(1000), schedule(1_000_000)
        (0.01, 1.0, 1.0, 0.5, 0.0, 0.0)
    """

    max_update: int = duration(filling=WHOLE_RUN)
    warmup_steps: int = duration(Whole(0), filling=Filling(0.05, "fraction"))
    decay_steps: int = duration(filling=Filling(0.2, "fraction"))
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
                f"must be at most {left}, max_update = {self.max_update} minus warmup_steps = {self.warmup_steps}",
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
    """Stays at `base_lr`, then falls to `final_lr` along half a cosine.

    lr(k) = final_lr + (base_lr − final_lr) · (1 + cos(π · d)) / 2

    d is the elapsed fraction of the decay, (k − flat_steps) / (max_update − flat_steps): 0 before it and 1 after it.

    Source: fastai's `fit_flat_cos`, which is flat for 0.75 of the run (`flat_fraction = 0.75` in a configuration).

    Args:
        max_update: Iterations until `final_lr` is reached.
        flat_steps: Iterations at `base_lr`, fewer than `max_update`.
        final_lr: The learning rate from iteration `max_update` on.
        base_lr: The learning rate of the flat part.

    Raises:
        FieldError: An argument is invalid, or `flat_steps` is not below `max_update`.

    Example:
        >>> schedule = FlatCosine(max_update=1000, flat_steps=750, base_lr=1)
        >>> schedule(1), schedule(750), round(schedule(875), 6), schedule(1000), schedule(1_000_000)
        (1.0, 1.0, 0.5, 0.0, 0.0)
    """

    max_update: int = duration(filling=WHOLE_RUN)
    flat_steps: int = duration(Whole(0), filling=Filling(0.75, "fraction"))
    final_lr: float = setting(RATE, default=0.0)

    relations = ("flat_steps < max_update",)
    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "flat_steps": 750, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        done = min(max(iteration - self.flat_steps, 0) / (self.max_update - self.flat_steps), 1.0)
        return self.final_lr + (self.base_lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2
