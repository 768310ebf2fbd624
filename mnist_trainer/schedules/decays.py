"""Curves with an end: Linear, Poly, Cosine, CosineAnnealing, Tanh and PiecewiseLinear.

They change smoothly up to the end and keep their last rate after it.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, ClassVar

from mnist_trainer.fields import RATE, Listed, Number, Switch, Whole, setting
from mnist_trainer.schedules.builtin_warmup import BuiltinSchedule
from mnist_trainer.schedules.schedule import ITS_RATE, WHOLE_RUN, Filling, FromBaseLr, Schedule, curve, duration


@curve
class Linear(FromBaseLr):
    """Falls or rises in a straight line from `base_lr` to `final_lr`.

    lr(k) = base_lr + (final_lr − base_lr) · k / max_update

    From iteration `max_update` on the rate is `final_lr`.

    Source: PyTorch's `LinearLR`, optax's `linear_schedule`, and the decay in Hugging Face's `get_linear_schedule_with_warmup`.

    Args:
        max_update: Iterations until `final_lr` is reached.
        final_lr: The learning rate from iteration `max_update` on.
        base_lr: The learning rate before any update.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = Linear(max_update=1000, base_lr=1)
        >>> schedule(1), schedule(500), schedule(1000), schedule(1_000_000)
        (0.999, 0.5, 0.0, 0.0)
    """

    max_update: int = duration(kw_only=False, filling=WHOLE_RUN)
    final_lr: float = setting(RATE, default=0.0)

    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        done = min(iteration, self.max_update) / self.max_update
        return self.base_lr * (1 - done) + self.final_lr * done


@curve
class Poly(BuiltinSchedule):
    """Falls to `final_lr` with a power of the remaining fraction of the run.

    lr(k) = final_lr + (base_lr − final_lr) · (1 − ((k − w) / (T − w))^k_decay)^pwr

    T is `max_update` and w is `warmup_steps`. From iteration T on the rate is `final_lr`. A warm-up replaces the rates of the
    iterations below w. With `cycle`, T − w is doubled, tripled and so on each time that the rate has reached `final_lr`: the
    rate jumps up and falls again, more slowly each time.

    Source: `mx.lr_scheduler.PolyScheduler`. The rates are equal to the last bit, provided that MXNet's is called for iterations
    in order. `cycle` is from Keras' `PolynomialDecay`, `k_decay` from timm's `PolyLRScheduler`. With `pwr=1`, `k_decay` is the
    power of fastai's `SchedPoly`.

    Args:
        max_update: Iterations until `final_lr` is reached, including those of the warm-up.
        pwr: The power; 1 for a straight line.
        final_lr: The learning rate at the end of the decay.
        k_decay: The exponent of the elapsed fraction; above 1 it keeps the rate high for longer.
        cycle: True to begin again with a longer decay after each end, False to stay at `final_lr`.
        base_lr: The learning rate at the start of the decay, to which the warm-up rises.
        warmup_steps: The iteration at which the warm-up is over, below `max_update`; 0 for no warm-up.
        warmup_begin_lr: The learning rate at which the warm-up begins, at most `base_lr`.
        warmup_mode: "linear" rises evenly to `base_lr`; "constant" keeps `warmup_begin_lr`.

    Raises:
        FieldError: An argument is invalid, `warmup_steps` is not below `max_update`, or `warmup_begin_lr` is above
            `base_lr`.

    Example:
        >>> schedule = Poly(max_update=1000, base_lr=1, pwr=2)
        >>> round(schedule(1), 6), schedule(500), schedule(1000), schedule(1_000_000)
        (0.998001, 0.25, 0.0, 0.0)
        >>> Poly(max_update=1000, base_lr=1, pwr=2, cycle=True)(1500)
        0.0625
        >>> Poly(max_update=1000, base_lr=1, pwr=1, k_decay=2)(500)
        0.75
    """

    max_update: int = duration(kw_only=False, filling=WHOLE_RUN)
    pwr: float = setting(Number(0), default=2)
    final_lr: float = setting(RATE, default=0.0)
    k_decay: float = setting(Number(above=0), default=1.0)
    cycle: bool = setting(Switch(), default=False)

    # MXNet divides by zero if the two are equal, and silently skips the decay if the warm-up is longer.
    relations = ("warmup_steps < max_update",)
    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1, "pwr": 2}

    @property
    def last_change(self) -> int | None:
        return None if self.cycle else self.max_update

    def rate_after_warmup(self, iteration: int) -> float:
        length = self.max_update - self.warmup_steps
        gone = iteration - self.warmup_steps
        if self.cycle:
            length *= max(1, -(-gone // length))
        done = float(min(gone, length)) / float(length)
        if self.k_decay != 1:
            done = done**self.k_decay
        return self.final_lr + (self.base_lr - self.final_lr) * float(pow(1 - done, self.pwr))


@curve
class Cosine(BuiltinSchedule):
    """Falls to `final_lr` along half a cosine.

    lr(k) = final_lr + (base_lr − final_lr) · ((1 + cos(π · ((k − w) / (T − w))^k_decay)) / 2)^exponent

    T is `max_update` and w is `warmup_steps`. From iteration T on the rate is `final_lr`. A warm-up replaces the rates of the
    iterations below w.

    Source: `mx.lr_scheduler.CosineScheduler`. The rates are equal to the last bit, provided that MXNet's is called for
    iterations in order. `k_decay` is from Zhang & Li, "k-decay", 2020, and timm's `CosineLRScheduler`; `exponent` is from
    optax's `cosine_decay_schedule`.

    Args:
        max_update: Iterations until `final_lr` is reached, including those of the warm-up.
        final_lr: The learning rate from iteration `max_update` on.
        k_decay: The exponent of the elapsed fraction; above 1 it keeps the rate high for longer.
        exponent: The exponent of the remaining drop; above 1 it brings the rate down earlier.
        base_lr: The learning rate at the start of the decay, to which the warm-up rises.
        warmup_steps: The iteration at which the warm-up is over, below `max_update`; 0 for no warm-up.
        warmup_begin_lr: The learning rate at which the warm-up begins, at most `base_lr`.
        warmup_mode: "linear" rises evenly to `base_lr`; "constant" keeps `warmup_begin_lr`.

    Raises:
        FieldError: An argument is invalid, `warmup_steps` is not below `max_update`, or `warmup_begin_lr` is above
            `base_lr`.

    Example:
        >>> schedule = Cosine(max_update=1000, base_lr=1)
        >>> round(schedule(1), 6), round(schedule(500), 6), schedule(1000), schedule(1_000_000)
        (0.999998, 0.5, 0.0, 0.0)
        >>> round(Cosine(max_update=1000, base_lr=1, k_decay=2)(500), 6)
        0.853553
        >>> round(Cosine(max_update=1000, base_lr=1, exponent=2)(500), 6)
        0.25
    """

    max_update: int = duration(kw_only=False, filling=WHOLE_RUN)
    final_lr: float = setting(RATE, default=0.0)
    k_decay: float = setting(Number(above=0), default=1.0)
    exponent: float = setting(Number(above=0), default=1.0)

    relations = ("warmup_steps < max_update",)
    example: ClassVar[dict[str, Any]] = {"max_update": 1000, "base_lr": 1}

    def rate_after_warmup(self, iteration: int) -> float:
        length = self.max_update - self.warmup_steps
        done = min(iteration, self.max_update) - self.warmup_steps
        angle = math.pi * done / length if self.k_decay == 1 else math.pi * (done / length) ** self.k_decay
        if self.exponent == 1:
            return self.final_lr + (self.base_lr - self.final_lr) * (1 + math.cos(angle)) / 2
        return self.final_lr + (self.base_lr - self.final_lr) * float(((1 + math.cos(angle)) / 2) ** self.exponent)


@curve
class CosineAnnealing(Schedule):
    """Falls from `max_lr` to `min_lr` along half a cosine, as in MXNet's tutorial.

    lr(k) = min_lr + (max_lr − min_lr) · (1 + cos(π · k / cycle_length)) / 2

    From iteration `cycle_length` on the rate is `min_lr`.

    Source: the class `CosineAnnealingSchedule` of MXNet's tutorial, whose rates are equal to the last bit; Loshchilov & Hutter,
    "SGDR", 2016, without the restarts.

    Args:
        min_lr: The learning rate from iteration `cycle_length` on.
        max_lr: The learning rate before any update.
        cycle_length: Iterations until `min_lr` is reached.

    Raises:
        FieldError: An argument is invalid, or `min_lr` is above `max_lr`.

    Example:
        >>> schedule = CosineAnnealing(min_lr=0, max_lr=1, cycle_length=1000)
        >>> round(schedule(1), 6), round(schedule(500), 6), schedule(1000), schedule(1_000_000)
        (0.999998, 0.5, 0.0, 0.0)
    """

    min_lr: float = setting(RATE, kw_only=False, filling=Filling(0.0))
    max_lr: float = setting(RATE, filling=ITS_RATE)
    cycle_length: int = duration(filling=WHOLE_RUN)

    relations = ("min_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {"min_lr": 0, "max_lr": 1, "cycle_length": 1000}

    @property
    def last_change(self) -> int | None:
        return self.cycle_length

    def rate_at(self, iteration: int) -> float:
        if iteration > self.cycle_length:
            return self.min_lr
        unit_cycle = (1 + math.cos(iteration * math.pi / self.cycle_length)) / 2
        return unit_cycle * (self.max_lr - self.min_lr) + self.min_lr


@curve
class Tanh(FromBaseLr):
    """Falls along a hyperbolic tangent: flat at first, then steep, then flat again.

    lr(k) = final_lr + (base_lr − final_lr) · (1 − tanh(lower · (1 − k / T) + upper · k / T)) / 2

    T is `max_update`. From iteration T on the rate is `final_lr`, which is a last small drop.

    Source: Hsueh et al., "Stochastic Gradient Descent with Hyperbolic-Tangent Decay", 2018; timm's `TanhLRScheduler`, whose
    warm-up rises to `base_lr`: set `warmup_end_lr` of `Warmup` to it.

    Args:
        max_update: Iterations until `final_lr` is reached.
        lower: The argument of the tangent at the start of the decay, below `upper`; timm's `lb`.
        upper: The argument of the tangent at the end of the decay; timm's `ub`.
        final_lr: The learning rate from iteration `max_update` on.
        base_lr: The learning rate at the start of the decay, provided that `lower` is far below 0, as its default is.

    Raises:
        FieldError: An argument is invalid, or `lower` is not below `upper`.

    Example:
        >>> schedule = Tanh(max_update=1000, base_lr=1)
        >>> round(schedule(1), 6), round(schedule(700), 6), round(schedule(999), 6), schedule(1000), schedule(1_000_000)
        (0.999999, 0.5, 0.002522, 0.0, 0.0)
    """

    max_update: int = duration(kw_only=False, filling=WHOLE_RUN)
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
    """Follows straight lines between given points.

    lr(k) = the linear interpolation of the points (knots[i], values[i]) at k

    Before the first knot and after the last one the rate stays at their values.

    Source: cifar10-fast; optax's `piecewise_interpolate_schedule("linear", …)`, which has factors in place of values.

    Args:
        knots: Iterations in increasing order; 0 is before any update.
        values: The learning rate at each knot.

    Raises:
        FieldError: An argument is invalid, or `knots` and `values` differ in length.

    Example:
        >>> schedule = PiecewiseLinear(knots=[0, 400, 1000], values=[0, 1, 0])
        >>> schedule(1), schedule(400), schedule(700), schedule(1000), schedule(1_000_000)
        (0.0025, 1.0, 0.5, 0.0, 0.0)
    """

    knots: Sequence[int] = duration(Listed(Whole(0), increases=True), kw_only=False)
    values: Sequence[float] = setting(Listed(RATE))

    example: ClassVar[dict[str, Any]] = {"knots": (0, 400, 1000), "values": (0, 1, 0.05)}

    def check_together(self) -> None:
        if len(self.values) != len(self.knots):
            raise self.refused("values", f"must have length {len(self.knots)}, one for each knot")

    @property
    def last_change(self) -> int | None:
        return max(self.knots[-1], 1)

    def rate_at(self, iteration: int) -> float:
        right = bisect_left(self.knots, iteration)
        if right == 0:
            return self.values[0]
        if right == len(self.knots):
            return self.values[-1]
        before, after = self.knots[right - 1], self.knots[right]
        done = (iteration - before) / (after - before)
        return self.values[right - 1] * (1 - done) + self.values[right] * done
