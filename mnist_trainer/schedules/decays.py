"""Curves that fall smoothly and arrive: Linear, Poly, Cosine, CosineAnnealing, Tanh and PiecewiseLinear.

Each has an end, and stays where it is after it.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, ClassVar

from mnist_trainer.fields import RATE, Listed, Number, Switch, Whole, setting
from mnist_trainer.schedules.builtin_warmup import BuiltinSchedule
from mnist_trainer.schedules.schedule import FromBaseLr, Schedule, curve, duration


@curve
class Linear(FromBaseLr):
    """Falls, or rises, in a straight line: lr(k) = base_lr + (final_lr − base_lr) · k/max_update.

    PyTorch's `LinearLR`, optax's `linear_schedule`, and the decay of Hugging Face's `get_linear_schedule_with_warmup`; from
    `max_update` on it stays at `final_lr`.

    >>> schedule = Linear(max_update=1000, base_lr=1)
    >>> schedule(1), schedule(500), schedule(1000), schedule(1_000_000)
    (0.999, 0.5, 0.0, 0.0)
    """

    max_update: int = duration()
    final_lr: float = setting(RATE, default=0.0)

    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        done = min(iteration, self.max_update) / self.max_update
        return self.base_lr * (1 - done) + self.final_lr * done


@curve
class Poly(BuiltinSchedule):
    """Falls as a power of the way that is left: lr(k) = final_lr + (base_lr − final_lr) · (1 − (k−w)/(T−w))^pwr.

    T is `max_update` and w is `warmup_steps`. Equal to `mx.lr_scheduler.PolyScheduler` to the last bit while
    that one is asked in order; from `max_update` on it stays at `final_lr`. With `cycle`, as in Keras' `PolynomialDecay`,
    the way is doubled, tripled, … whenever it has been gone, so that the rate jumps up and falls again ever more slowly.

    pwr: the power; 1 for a straight line.
    warmup_steps, warmup_begin_lr, warmup_mode: MXNet's built-in warm-up, as in Factor: it rises from `warmup_begin_lr` to
        `base_lr`, or stays there with "constant", on top of the curve.

    >>> schedule = Poly(max_update=1000, base_lr=1, pwr=2)
    >>> round(schedule(1), 6), schedule(500), schedule(1000), schedule(1_000_000)
    (0.998001, 0.25, 0.0, 0.0)
    >>> Poly(max_update=1000, base_lr=1, pwr=2, cycle=True)(1500)
    0.0625
    """

    max_update: int = duration()
    pwr: float = setting(Number(0), default=2)
    final_lr: float = setting(RATE, default=0.0)
    cycle: bool = setting(Switch(), default=False)

    # MXNet divides by zero where the two are equal, and beyond skips the decay without a word.
    relations = ("warmup_steps < max_update",)
    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1, "pwr": 2}

    def rate_after_warmup(self, iteration: int) -> float:
        length = self.max_update - self.warmup_steps
        gone = iteration - self.warmup_steps
        if self.cycle:
            length *= max(1, -(-gone // length))
        done = float(min(gone, length)) / float(length)
        return self.final_lr + (self.base_lr - self.final_lr) * float(pow(1 - done, self.pwr))


@curve
class Cosine(BuiltinSchedule):
    """Falls along half a cosine: lr(k) = final_lr + (base_lr − final_lr) · (1 + cos(π·((k−w)/(T−w))^k_decay)) / 2.

    T is `max_update` and w is `warmup_steps`. Equal to `mx.lr_scheduler.CosineScheduler` to the last bit while
    that one is asked in order; from `max_update` on it stays at `final_lr`. `k_decay` (Zhang & Li, "k-decay", 2020; timm's
    `CosineLRScheduler`) above 1 keeps the rate high for longer.

    warmup_steps, warmup_begin_lr, warmup_mode: MXNet's built-in warm-up, as in Factor: it rises from `warmup_begin_lr` to
        `base_lr`, or stays there with "constant", on top of the curve.

    >>> schedule = Cosine(max_update=1000, base_lr=1)
    >>> round(schedule(1), 6), round(schedule(500), 6), schedule(1000), schedule(1_000_000)
    (0.999998, 0.5, 0.0, 0.0)
    >>> round(Cosine(max_update=1000, base_lr=1, k_decay=2)(500), 6)
    0.853553
    """

    max_update: int = duration()
    final_lr: float = setting(RATE, default=0.0)
    k_decay: float = setting(Number(above=0), default=1.0)

    relations = ("warmup_steps < max_update",)
    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1}

    def rate_after_warmup(self, iteration: int) -> float:
        length = self.max_update - self.warmup_steps
        done = min(iteration, self.max_update) - self.warmup_steps
        angle = math.pi * done / length if self.k_decay == 1 else math.pi * (done / length) ** self.k_decay
        return self.final_lr + (self.base_lr - self.final_lr) * (1 + math.cos(angle)) / 2


@curve
class CosineAnnealing(Schedule):
    """The custom schedule of MXNet's tutorial: lr(k) = min_lr + (max_lr − min_lr) · (1 + cos(k·π/cycle_length)) / 2.

    One half-cycle (Loshchilov & Hutter, "SGDR", 2016, without the restarts); after `cycle_length` it stays at `min_lr`.
    Equal to the tutorial's class `CosineAnnealingSchedule` to the last bit.

    >>> schedule = CosineAnnealing(min_lr=0, max_lr=1, cycle_length=1000)
    >>> round(schedule(1), 6), round(schedule(500), 6), schedule(1000), schedule(1_000_000)
    (0.999998, 0.5, 0.0, 0.0)
    """

    min_lr: float = setting(RATE)
    max_lr: float = setting(RATE)
    cycle_length: int = duration()

    relations = ("min_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {"min_lr": 0, "max_lr": 1, "cycle_length": 1000}

    def rate_at(self, iteration: int) -> float:
        if iteration > self.cycle_length:
            return self.min_lr
        unit_cycle = (1 + math.cos(iteration * math.pi / self.cycle_length)) / 2
        return unit_cycle * (self.max_lr - self.min_lr) + self.min_lr


@curve
class Tanh(FromBaseLr):
    """Falls along a hyperbolic tangent: lr(k) = final_lr + (base_lr − final_lr) · (1 − tanh(lower·(1−k/T) + upper·k/T)) / 2.

    T is `max_update`. timm's `TanhLRScheduler` (Hsueh et al., "Stochastic Gradient Descent with Hyperbolic-Tangent Decay",
    2018): flat at first, steep, flat again; from `max_update` on it stays at `final_lr`, with a last small drop.

    lower, upper: which part of the tangent is gone through; timm's `lb` and `ub`.

    >>> schedule = Tanh(max_update=1000, base_lr=1)
    >>> round(schedule(1), 6), round(schedule(700), 6), round(schedule(999), 6), schedule(1000), schedule(1_000_000)
    (0.999999, 0.5, 0.002522, 0.0, 0.0)
    """

    max_update: int = duration()
    lower: float = setting(Number(-100, 100), default=-7.0)
    upper: float = setting(Number(-100, 100), default=3.0)
    final_lr: float = setting(RATE, default=0.0)

    relations = ("lower < upper",)
    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        if iteration >= self.max_update:
            return self.final_lr
        done = iteration / self.max_update
        shape = (1 - math.tanh(self.lower * (1 - done) + self.upper * done)) / 2
        return self.final_lr + (self.base_lr - self.final_lr) * shape


@curve
class PiecewiseLinear(Schedule):
    """Straight lines from knot to knot: lr(k) = the interpolation of (knots, values) at k.

    As in cifar10-fast, and optax's `piecewise_interpolate_schedule("linear", …)` with the values written out. Before the
    first knot and after the last it stays on their values.

    knots: iterations; 0 is before any update.
    values: a learning rate at each knot.

    >>> schedule = PiecewiseLinear(knots=[0, 400, 1000], values=[0, 1, 0])
    >>> schedule(1), schedule(400), schedule(700), schedule(1000), schedule(1_000_000)
    (0.0025, 1.0, 0.5, 0.0, 0.0)
    """

    knots: Sequence[int] = duration(Listed(Whole(0), increases=True))
    values: Sequence[float] = setting(Listed(RATE))

    example: ClassVar[dict[str, Any]] = {"knots": (0, 400, 1000), "values": (0, 1, 0.05)}

    def check_together(self) -> None:
        if len(self.values) != len(self.knots):
            raise self.refused("values", f"must have length {len(self.knots)}, one for each knot")

    def rate_at(self, iteration: int) -> float:
        right = bisect_left(self.knots, iteration)
        if right == 0:
            return self.values[0]
        if right == len(self.knots):
            return self.values[-1]
        before, after = self.knots[right - 1], self.knots[right]
        done = (iteration - before) / (after - before)
        return self.values[right - 1] * (1 - done) + self.values[right] * done
