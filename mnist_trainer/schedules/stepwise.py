"""Curves that stay on a level and change at once: Constant, Factor, MultiFactor and Piecewise."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, ClassVar

from mnist_trainer.fields import FRACTION, RATE, Listed, Whole, setting
from mnist_trainer.schedules.builtin_warmup import BuiltinSchedule
from mnist_trainer.schedules.schedule import Schedule, curve, duration


@curve
class Constant(Schedule):
    """The same learning rate at every iteration: lr(k) = base_lr.

    What `mx.optimizer.SGD(learning_rate=base_lr)` does without a schedule.

    >>> schedule = Constant(0.03)
    >>> schedule(1), schedule(1_000), schedule(1_000_000)
    (0.03, 0.03, 0.03)
    """

    base_lr: float = setting(RATE, default=0.01)

    example: ClassVar[dict[str, Any]] = {"base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        return self.base_lr


@curve
class Factor(BuiltinSchedule):
    """Drops by `factor` after every `step` iterations: lr(k) = base_lr · factor^⌊(k−1)/step⌋, not below `stop_factor_lr`.

    Equal to `mx.lr_scheduler.FactorScheduler` to the last bit: the factor is multiplied in once a drop, and a drop that
    would end below `stop_factor_lr` is clamped to it. `warmup_steps`, `warmup_begin_lr` and `warmup_mode` overlay the start.

    >>> schedule = Factor(step=250, factor=0.5, base_lr=1)
    >>> schedule(1), schedule(250), schedule(251), schedule(1_000_000)
    (1.0, 1.0, 0.5, 1e-08)
    """

    step: int = duration()
    factor: float = setting(FRACTION, default=1.0)
    stop_factor_lr: float = setting(RATE, default=1e-8)

    example: ClassVar[dict[str, Any]] = {"step": 250, "factor": 0.5, "base_lr": 1}

    def rate_after_warmup(self, iteration: int) -> float:
        drops = max(iteration - 1, 0) // self.step
        rates = _rates_after_drops(self.base_lr, self.factor, self.stop_factor_lr)
        if drops >= len(rates):
            with _memo_lock:
                while len(rates) <= drops:
                    dropped = max(rates[-1] * self.factor, self.stop_factor_lr)
                    if dropped == rates[-1]:  # it has settled: every later drop leaves it there too
                        return dropped
                    rates.append(dropped)
        return rates[drops]

    def drops(self, total_iterations: int) -> list[int]:
        return [end for end in range(self.step, total_iterations, self.step) if self(end + 1) < self(end)]


# Rates after 0, 1, 2, … drops, as far as anyone has asked. A memo of a pure function, no state of the curve: with a
# drop at every iteration, starting from `base_lr` each time would cost a run the square of its length.
@lru_cache(maxsize=16)
def _rates_after_drops(base_lr: float, factor: float, stop_factor_lr: float) -> list[float]:
    return [base_lr]


_memo_lock = Lock()


@curve
class MultiFactor(BuiltinSchedule):
    """Drops by `factor` after each iteration in `step`: lr(k) = base_lr · factor^(number of steps < k).

    Equal to `mx.lr_scheduler.MultiFactorScheduler` to the last bit: the factor is multiplied in once a drop.
    `warmup_steps`, `warmup_begin_lr` and `warmup_mode` overlay the start.

    >>> schedule = MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)
    >>> schedule(1), schedule(250), schedule(251), schedule(900), schedule(901), schedule(1_000_000)
    (1.0, 1.0, 0.5, 0.25, 0.125, 0.125)
    """

    step: Sequence[int] = duration(Listed(Whole(1), increases=True))
    factor: float = setting(FRACTION, default=1.0)

    example: ClassVar[dict[str, Any]] = {"step": (250, 750, 900), "factor": 0.5, "base_lr": 1}

    def rate_after_warmup(self, iteration: int) -> float:
        learning_rate = self.base_lr
        for _ in range(bisect_left(self.step, iteration)):
            learning_rate *= self.factor
        return learning_rate

    def drops(self, total_iterations: int) -> list[int]:
        return [end for end in self.step if self(end + 1) < self(end)]


@curve
class Piecewise(Schedule):
    """Stays on a value up to and including each boundary: lr(k) = values[number of boundaries < k].

    TensorFlow's and Keras' `PiecewiseConstantDecay`, and optax's `piecewise_constant_schedule` with the values written out.

    boundaries: iterations after which the next value begins.
    values: one more than boundaries.

    >>> schedule = Piecewise(boundaries=[250, 750], values=[1, 2, 0.5])
    >>> schedule(1), schedule(250), schedule(251), schedule(750), schedule(1_000_000)
    (1.0, 1.0, 2.0, 2.0, 0.5)
    """

    boundaries: Sequence[int] = duration(Listed(Whole(1), increases=True))
    values: Sequence[float] = setting(Listed(RATE))

    example: ClassVar[dict[str, Any]] = {"boundaries": (250, 750, 1000), "values": (0.4, 1, 0.2, 0.05)}

    def check_together(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise self.refused("values", f"must have length {len(self.boundaries) + 1}, one more than boundaries")

    def rate_at(self, iteration: int) -> float:
        return self.values[bisect_left(self.boundaries, iteration)]

    def drops(self, total_iterations: int) -> list[int]:
        return [end for end in self.boundaries if self(end + 1) < self(end)]
