"""Curves with constant levels: Constant, Factor, MultiFactor and Piecewise."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from threading import Lock
from typing import Any, ClassVar

from mnist_trainer.fields import FRACTION, RATE, Listed, Whole, setting
from mnist_trainer.schedules.builtin_warmup import BuiltinSchedule
from mnist_trainer.schedules.schedule import Filling, Schedule, curve, duration


@curve
class Constant(Schedule):
    """Keeps the same learning rate at every iteration.

    lr(k) = base_lr

    Source: an MXNet optimizer without a schedule, such as `mx.optimizer.SGD(learning_rate=base_lr)`.

    Args:
        base_lr: The learning rate.

    Raises:
        FieldError: `base_lr` is invalid.

    Example:
        >>> schedule = Constant(0.03)
        >>> schedule(1), schedule(1_000), schedule(1_000_000)
        (0.03, 0.03, 0.03)
    """

    base_lr: float = setting(RATE, default=0.01, kw_only=False)

    example: ClassVar[dict[str, Any]] = {"base_lr": 1}

    @property
    def last_change(self) -> int | None:
        return 1

    def rate_at(self, iteration: int) -> float:
        return self.base_lr


@curve
class Factor(BuiltinSchedule):
    """Multiplies the rate by `factor` after every `step` iterations, until it reaches `stop_factor_lr`.

    lr(k) = max(base_lr · factor^⌊(k − 1) / step⌋, stop_factor_lr)

    The bound `stop_factor_lr` applies from the first drop on. A warm-up replaces the rates of the iterations below
    `warmup_steps`; it does not shift the drops.

    Source: `mx.lr_scheduler.FactorScheduler`. The rates are equal to the last bit up to five million drops, because each drop
    multiplies the rate of the one before.

    Args:
        step: Iterations between two drops.
        factor: The factor of each drop, from 0 to 1.
        stop_factor_lr: The lowest learning rate to which a drop can lead.
        base_lr: The learning rate before the first drop, to which the warm-up rises.
        warmup_steps: The iteration at which the warm-up is over; 0 for no warm-up.
        warmup_begin_lr: The learning rate at which the warm-up begins, at most `base_lr`.
        warmup_mode: "linear" rises evenly to `base_lr`; "constant" keeps `warmup_begin_lr`.

    Raises:
        FieldError: An argument is invalid, or `warmup_begin_lr` is above `base_lr`.

    Example:
        >>> schedule = Factor(step=250, factor=0.5, base_lr=1)
        >>> schedule(1), schedule(250), schedule(251), schedule(1_000_000)
        (1.0, 1.0, 0.5, 1e-08)
    """

    step: int = duration(kw_only=False)
    factor: float = setting(FRACTION, default=1.0, filling=Filling(0.1))
    stop_factor_lr: float = setting(RATE, default=1e-8)

    example: ClassVar[dict[str, Any]] = {"step": 250, "factor": 0.5, "base_lr": 1}

    def rate_after_warmup(self, iteration: int) -> float:
        drops = max(iteration - 1, 0) // self.step
        if drops > _MAX_PRODUCTS:
            return max(self.base_lr * self.factor**drops, self.stop_factor_lr)
        known = _known_rates(self.base_lr, self.factor, self.stop_factor_lr)
        with _memo_lock:
            while drops >= len(known.rates) * known.spacing:
                dropped = self._drop(known.rates[-1], known.spacing)
                if dropped == known.rates[-1]:  # the rate has settled, and no later drop changes it
                    return dropped
                known.append(dropped)
            nearest, others = divmod(drops, known.spacing)
            learning_rate = known.rates[nearest]
        return self._drop(learning_rate, others)

    def _drop(self, learning_rate: float, drops: int) -> float:
        for _ in range(drops):
            learning_rate *= self.factor
            if learning_rate < self.stop_factor_lr:
                learning_rate = self.stop_factor_lr
        return learning_rate

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return range(self.step, max(total_iterations, self.step + 1), self.step)  # the first one, also beyond the run


_MAX_KNOWN = 1024
"""The maximum number of rates in the cache of a curve: a compromise between its size and the time to compute the others."""

_MAX_PRODUCTS = 5_000_000
"""The number of drops up to which each multiplies the rate of the one before, as in MXNet. More would take seconds."""


@dataclass
class _KnownRates:
    """Rates that have been computed so far: the cache of a pure function, not state of the curve.

    To start from `base_lr` each time would take quadratic time in a run with a drop at every iteration.

    Attributes:
        rates: The rates after 0, `spacing`, 2 · `spacing`, … drops.
        spacing: The number of drops from one rate to the next. It doubles each time that the cache is full.
    """

    rates: list[float]
    spacing: int = 64

    def append(self, learning_rate: float) -> None:
        """Add the rate that follows the last one."""
        self.rates.append(learning_rate)
        if len(self.rates) > _MAX_KNOWN:
            self.rates, self.spacing = self.rates[::2], 2 * self.spacing


@lru_cache(maxsize=128)
def _known_rates(base_lr: float, factor: float, stop_factor_lr: float) -> _KnownRates:
    return _KnownRates([base_lr])


_memo_lock = Lock()


@curve
class MultiFactor(BuiltinSchedule):
    """Multiplies the rate by `factor` after each of the iterations in `step`.

    lr(k) = base_lr · factor^(number of steps < k)

    A warm-up replaces the rates of the iterations below `warmup_steps`; it does not shift the drops.

    Source: `mx.lr_scheduler.MultiFactorScheduler`. The rates are equal to the last bit, because each drop multiplies the rate
    of the one before. PyTorch's `MultiStepLR` drops at the same updates; timm's `MultiStepLRScheduler` one earlier, so its
    milestones are those of `step` + 1.

    Args:
        step: The iterations after which the rate drops, in increasing order.
        factor: The factor of each drop, from 0 to 1.
        base_lr: The learning rate before the first drop, to which the warm-up rises.
        warmup_steps: The iteration at which the warm-up is over; 0 for no warm-up.
        warmup_begin_lr: The learning rate at which the warm-up begins, at most `base_lr`.
        warmup_mode: "linear" rises evenly to `base_lr`; "constant" keeps `warmup_begin_lr`.

    Raises:
        FieldError: An argument is invalid, or `warmup_begin_lr` is above `base_lr`.

    Example:
        >>> schedule = MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)
        >>> schedule(1), schedule(250), schedule(251), schedule(900), schedule(901), schedule(1_000_000)
        (1.0, 1.0, 0.5, 0.25, 0.125, 0.125)
    """

    step: Sequence[int] = duration(Listed(Whole(1), increases=True), kw_only=False)
    factor: float = setting(FRACTION, default=1.0, filling=Filling(0.1))

    example: ClassVar[dict[str, Any]] = {"step": (250, 750, 900), "factor": 0.5, "base_lr": 1}

    @property
    def last_change(self) -> int | None:
        return max(self.step[-1] + 1, self.warmup_steps)

    def rate_after_warmup(self, iteration: int) -> float:
        return self._levels[bisect_left(self.step, iteration)]

    @cached_property
    def _levels(self) -> tuple[float, ...]:
        return tuple(accumulate(self.step, lambda learning_rate, _: learning_rate * self.factor, initial=self.base_lr))

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return self.step


@curve
class Piecewise(Schedule):
    """Keeps each value up to a boundary, then changes to the next value.

    lr(k) = values[number of boundaries < k]

    Source: optax's `piecewise_constant_schedule`, which has factors in place of values; Paddle's `PiecewiseDecay`;
    `PiecewiseConstantDecay` of TensorFlow and Keras, whose values last one update longer: its boundaries + 1 are those here.

    Args:
        boundaries: The last iterations of all values but the last one, in increasing order.
        values: Learning rates, one more than `boundaries`.

    Raises:
        FieldError: An argument is invalid, or `values` does not have one more member than `boundaries`.

    Example:
        >>> schedule = Piecewise(boundaries=[250, 750], values=[1, 2, 0.5])
        >>> schedule(1), schedule(250), schedule(251), schedule(750), schedule(1_000_000)
        (1.0, 1.0, 2.0, 2.0, 0.5)
    """

    boundaries: Sequence[int] = duration(Listed(Whole(1), increases=True), kw_only=False)
    values: Sequence[float] = setting(Listed(RATE))

    example: ClassVar[dict[str, Any]] = {"boundaries": (250, 750, 1000), "values": (0.4, 1, 0.2, 0.05)}

    def check_together(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise self.refused("values", f"must have length {len(self.boundaries) + 1}, one more than boundaries")

    @property
    def last_change(self) -> int | None:
        return self.boundaries[-1] + 1

    def rate_at(self, iteration: int) -> float:
        return self.values[bisect_left(self.boundaries, iteration)]

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return self.boundaries
