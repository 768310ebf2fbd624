"""Curves that fall smoothly: Poly, Cosine and CosineAnnealing."""

import math
from typing import Any, ClassVar

from mnist_trainer.schedules.builtin_warmup import BuiltinSchedule
from mnist_trainer.schedules.schedule import Schedule, curve, duration, number_between, positive_int, rate


@curve
class Poly(BuiltinSchedule):
    """Falls as a power of the way that is left: lr(k) = final_lr + (base_lr − final_lr) · (1 − (k−w)/(T−w))^pwr.

    T is `max_update` and w is `warmup_steps`. Equal to `mx.lr_scheduler.PolyScheduler` to the last bit while
    that one is asked in order; from `max_update` on it stays at `final_lr`.

    >>> schedule = Poly(max_update=1000, base_lr=1, pwr=2)
    >>> round(schedule(1), 6), schedule(500), schedule(1000), schedule(1_000_000)
    (0.998001, 0.25, 0.0, 0.0)
    """

    max_update: int = duration()
    pwr: float = 2
    final_lr: float = 0.0

    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1, "pwr": 2}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            max_update=positive_int("max_update", self.max_update),
            pwr=number_between("pwr", self.pwr, 0.0, math.inf),
            final_lr=rate("final_lr", self.final_lr),
        )
        self._refuse_warmup_beyond(self.max_update)

    def rate_after_warmup(self, iteration: int) -> float:
        done = float(min(iteration, self.max_update) - self.warmup_steps) / float(self.max_update - self.warmup_steps)
        return self.final_lr + (self.base_lr - self.final_lr) * float(pow(1 - done, self.pwr))


@curve
class Cosine(BuiltinSchedule):
    """Falls along half a cosine: lr(k) = final_lr + (base_lr − final_lr) · (1 + cos(π·(k−w)/(T−w))) / 2.

    T is `max_update` and w is `warmup_steps`. Equal to `mx.lr_scheduler.CosineScheduler` to the last bit while
    that one is asked in order; from `max_update` on it stays at `final_lr`.

    >>> schedule = Cosine(max_update=1000, base_lr=1)
    >>> round(schedule(1), 6), round(schedule(500), 6), schedule(1000), schedule(1_000_000)
    (0.999998, 0.5, 0.0, 0.0)
    """

    max_update: int = duration()
    final_lr: float = 0.0

    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            max_update=positive_int("max_update", self.max_update),
            final_lr=rate("final_lr", self.final_lr),
        )
        self._refuse_warmup_beyond(self.max_update)

    def rate_after_warmup(self, iteration: int) -> float:
        done = min(iteration, self.max_update) - self.warmup_steps
        shape = 1 + math.cos(math.pi * done / (self.max_update - self.warmup_steps))
        return self.final_lr + (self.base_lr - self.final_lr) * shape / 2


@curve
class CosineAnnealing(Schedule):
    """The custom schedule of MXNet's tutorial: lr(k) = min_lr + (max_lr − min_lr) · (1 + cos(k·π/cycle_length)) / 2.

    One half-cycle (Loshchilov & Hutter, "SGDR", 2016, without the restarts); after `cycle_length` it stays at `min_lr`.
    Equal to the tutorial's class `CosineAnnealingSchedule` to the last bit.

    >>> schedule = CosineAnnealing(min_lr=0, max_lr=1, cycle_length=1000)
    >>> round(schedule(1), 6), round(schedule(500), 6), schedule(1000), schedule(1_000_000)
    (0.999998, 0.5, 0.0, 0.0)
    """

    min_lr: float
    max_lr: float
    cycle_length: int = duration()

    example: ClassVar[dict[str, Any]] = {"min_lr": 0, "max_lr": 1, "cycle_length": 1000}

    def __post_init__(self) -> None:
        self._set(
            min_lr=rate("min_lr", self.min_lr),
            max_lr=rate("max_lr", self.max_lr),
            cycle_length=positive_int("cycle_length", self.cycle_length),
        )
        if self.min_lr > self.max_lr:
            raise ValueError(f"min_lr = {self.min_lr} is above max_lr = {self.max_lr}")

    @property
    def base_lr(self) -> float:
        """The rate before any update, which MXNet's optimizers look at."""
        return self.max_lr

    def rate_at(self, iteration: int) -> float:
        if iteration > self.cycle_length:
            return self.min_lr
        unit_cycle = (1 + math.cos(iteration * math.pi / self.cycle_length)) / 2
        return unit_cycle * (self.max_lr - self.min_lr) + self.min_lr
