"""Curves for a fixed number of iterations: WarmupStableDecay, FlatCosine and REX; and the forms of a decay at the end."""

import math
from typing import Any, ClassVar, Literal, get_args

from mnist_trainer.fields import RATE, Choice, Number, Whole, setting
from mnist_trainer.schedules.schedule import WHOLE_RUN, Filling, FromBaseLr, Schedule, curve, duration

Decay = Literal["linear", "cosine", "1-sqrt", "power", "exponential"]

_DEFAULT = 0.5
"""The default of `decay_power`, for the decay "1-sqrt", and of `decay_ratio`, for the decay of Megatron."""


@curve
class DecayAtEnd(Schedule):
    """Base of curves that end with a decay of one of several forms.

    Args:
        decay: The form of the decay.
        decay_power: The exponent of the elapsed fraction for "power".
        decay_ratio: The strength of "exponential", between 0 and 1.
    """

    decay: Decay = setting(Choice(get_args(Decay)), default="linear")
    decay_power: float = setting(Number(above=0), default=_DEFAULT)
    decay_ratio: float = setting(Number(1e-300, below=1), default=_DEFAULT)

    def check_together(self) -> None:
        for name, decay in (("decay_power", "power"), ("decay_ratio", "exponential")):
            if self.decay != decay and getattr(self, name) != _DEFAULT:
                raise self.refused(name, f'must be left out, since it belongs to decay = "{decay}"')

    def remaining(self, done: float) -> float:
        """Return the remaining fraction of the drop, from 1 to 0.

        Args:
            done: The elapsed fraction of the decay, from 0 to 1.
        """
        match self.decay:
            case "linear":
                return 1 - done
            case "cosine":
                return (1 + math.cos(math.pi * done)) / 2
            case "1-sqrt":
                return 1 - math.sqrt(done)
            case "power":
                return float(1 - done**self.decay_power)
            case "exponential":
                # (r^done − r) / (1 − r), without the cancellation of a ratio near 1
                log = math.log(self.decay_ratio)
                return min(self.decay_ratio * math.expm1((done - 1) * log) / -math.expm1(log), 1.0)


@curve
class WarmupStableDecay(DecayAtEnd, FromBaseLr):
    """Rises to `base_lr`, stays there for most of the run, and falls at the end.

    lr(k) = warmup_begin_lr + (base_lr − warmup_begin_lr) · k / warmup_steps in the warm-up
    lr(k) = base_lr between the warm-up and the decay
    lr(k) = final_lr + (base_lr − final_lr) · remaining(d) in the decay

    d is the elapsed fraction of the decay, and remaining(d) is 1 − d for "linear", (1 + cos(π · d)) / 2 for "cosine", 1 − √d
    for "1-sqrt", 1 − d^decay_power for "power", and (r^d − r) / (1 − r) with r = decay_ratio for "exponential". From iteration
    `max_update` on the rate is `final_lr`.

    Source: Hu et al., "MiniCPM", 2024; Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations", 2024, who found 1 − √d best; Hugging Face's `get_wsd_schedule`; timm's `WSDLRScheduler`; Megatron's "WSD", whose
    exponential decay 2 · 0.5^d − 1 is the one with the default ratio.

    Args:
        max_update: Iterations of all three parts together.
        warmup_steps: Iterations of the warm-up; 0 for none.
        decay_steps: Iterations of the decay; 0 for none.
        decay: The form of the decay: "linear", "cosine", "1-sqrt", "power" or "exponential".
        decay_power: The exponent of the elapsed fraction for "power"; 0.5 is "1-sqrt".
        decay_ratio: The strength of "exponential", between 0 and 1; the nearer to 0, the faster is the beginning.
        warmup_begin_lr: The learning rate at which the warm-up begins.
        final_lr: The learning rate from iteration `max_update` on.
        base_lr: The learning rate between the warm-up and the decay.

    Raises:
        FieldError: An argument is invalid or belongs to another decay, or the warm-up and the decay are together longer than
            `max_update`.

    Example:
        >>> schedule = WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=200, decay="1-sqrt", base_lr=1)
        >>> schedule(1), schedule(100), schedule(800), schedule(850), schedule(1000), schedule(1_000_000)
        (0.01, 1.0, 1.0, 0.5, 0.0, 0.0)
    """

    max_update: int = duration(kw_only=False, filling=WHOLE_RUN)
    warmup_steps: int = duration(Whole(0), filling=Filling(0.05, "fraction"))
    decay_steps: int = duration(Whole(0), filling=Filling(0.2, "fraction"))
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
        super().check_together()
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
        decayed = iteration - (self.max_update - self.decay_steps)
        if decayed <= 0:
            return self.base_lr
        done = decayed / self.decay_steps
        return self.final_lr + (self.base_lr - self.final_lr) * self.remaining(done)


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

    max_update: int = duration(kw_only=False, filling=WHOLE_RUN)
    flat_steps: int = duration(Whole(0), filling=Filling(0.75, "fraction"))
    final_lr: float = setting(RATE, default=0.0)

    relations = ("flat_steps < max_update",)
    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "flat_steps": 750, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        done = min(max(iteration - self.flat_steps, 0) / (self.max_update - self.flat_steps), 1.0)
        return self.final_lr + (self.base_lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2


@curve
class REX(FromBaseLr):
    """Falls to `final_lr`, slowly at first and ever faster, along a reflected exponential.

    lr(k) = final_lr + (base_lr − final_lr) · (1 − p) / (1 − p / 2)

    p is the elapsed fraction k / max_update. From iteration `max_update` on the rate is `final_lr`.

    Source: Chen et al., "REX: Revisiting Budgeted Training with an Improved Schedule", 2022.

    Args:
        max_update: Iterations until `final_lr` is reached.
        final_lr: The learning rate from iteration `max_update` on.
        base_lr: The learning rate before any update.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = REX(max_update=1000, base_lr=1)
        >>> round(schedule(1), 6), round(schedule(500), 6), schedule(1000), schedule(1_000_000)
        (0.9995, 0.666667, 0.0, 0.0)
    """

    max_update: int = duration(kw_only=False, filling=WHOLE_RUN)
    final_lr: float = setting(RATE, default=0.0)

    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        done = min(iteration, self.max_update) / self.max_update
        return self.final_lr + (self.base_lr - self.final_lr) * (1 - done) / (1 - done / 2)
