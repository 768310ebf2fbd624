"""Schedules of one cycle, for super-convergence: OneCycle, OneCycleLR, and its momentum, OneCycleMomentum.

Source: Smith & Topin, "Super-Convergence", 2017.
"""

import math
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

from mnist_trainer.fields import FRACTION, MAX_FLOAT32, RATE, Choice, FieldValueError, Number, Or, Switch, Whole, setting
from mnist_trainer.schedules.cycles import Triangular
from mnist_trainer.schedules.schedule import ITS_RATE, WHOLE_RUN, Filling, Schedule, curve, duration

AnnealStrategy = Literal["cos", "linear"]

_FINAL_DIV_FACTOR = 1e4


@curve
class OneCycle(Schedule):
    """Rises and falls in a triangle, then changes in a straight line to `finish_lr`.

    lr(k) = triangle(k) for k ≤ cycle_length
    lr(k) = start_lr + (finish_lr − start_lr) · (k − cycle_length) / cooldown_length in the cool-down

    triangle is `Triangular(start_lr, max_lr, cycle_length)`. After the cool-down the rate is `finish_lr`. Without a cool-down
    it is `start_lr` after the triangle.

    Source: the class `OneCycleSchedule` of MXNet's advanced tutorial. The rates are equal to the last bit, except that the last
    iteration of the cool-down has exactly `finish_lr`, where the class has a rounding error.

    Args:
        start_lr: The learning rate at both ends of the triangle.
        max_lr: The learning rate at the tip of the triangle.
        cycle_length: Iterations of the triangle.
        cooldown_length: Iterations of the cool-down; 0 for none.
        finish_lr: The learning rate at the end of the cool-down and after it; None without a cool-down.

    Raises:
        FieldError: An argument is invalid, `start_lr` is above `max_lr`, or only one of `cooldown_length` and `finish_lr`
            is given.

    Example:
        >>> schedule = OneCycle(start_lr=0.1, max_lr=0.5, cycle_length=500, cooldown_length=750, finish_lr=0.001)
        >>> round(schedule(1), 6), schedule(250), round(schedule(875), 6), schedule(1250), schedule(1_000_000)
        (0.1016, 0.5, 0.0505, 0.001, 0.001)
    """

    start_lr: float = setting(RATE, kw_only=False, filling=Filling(0.1, "learning_rate"))
    max_lr: float = setting(RATE, filling=ITS_RATE)
    cycle_length: int = duration(filling=WHOLE_RUN)
    cooldown_length: int = duration(Whole(0), default=0)
    finish_lr: float | None = setting(Or(None, RATE), default=None)

    relations = ("start_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {
        "start_lr": 0.1,
        "max_lr": 0.5,
        "cycle_length": 500,
        "cooldown_length": 750,
        "finish_lr": 0.001,
    }

    def check_together(self) -> None:
        if self.cooldown_length and self.finish_lr is None:
            sentence = f"missing; the cool-down of cooldown_length = {self.cooldown_length} ends at this rate"
            raise FieldValueError("finish_lr", sentence)
        if self.finish_lr is not None and not self.cooldown_length:
            raise self.refused("finish_lr", "must be left out, since there is no cool-down (cooldown_length = 0)")

    @cached_property
    def _triangle(self) -> Triangular:
        return Triangular(self.start_lr, max_lr=self.max_lr, cycle_length=self.cycle_length)

    @property
    def last_change(self) -> int | None:
        return self.cycle_length + self.cooldown_length

    def rate_at(self, iteration: int) -> float:
        if iteration <= self.cycle_length:
            return self._triangle.rate_at(iteration)
        finish_lr = self.start_lr if self.finish_lr is None else self.finish_lr
        if iteration >= self.cycle_length + self.cooldown_length:
            return finish_lr
        return (iteration - self.cycle_length) * (finish_lr - self.start_lr) / self.cooldown_length + self.start_lr


@curve
class _Phases(Schedule):
    """Base of PyTorch's one cycle: two or three phases between a low and a high value.

    Args:
        max_update: Iterations of the cycle; PyTorch's `total_steps`.
        pct_start: The fraction of the cycle in the first phase, from 0 to 1.
        anneal_strategy: "cos" for half a cosine in each phase, "linear" for a straight line.
        three_phase: True to return to the first value as fast as it was left, before the phase to the last value.
    """

    max_update: int = duration(filling=WHOLE_RUN)
    pct_start: float = setting(FRACTION, default=0.3)
    anneal_strategy: AnnealStrategy = setting(Choice(get_args(AnnealStrategy)), default="cos")
    three_phase: bool = setting(Switch(), default=False)

    def check_together(self) -> None:
        if self.three_phase and self.pct_start > 0.5:
            raise self.refused("pct_start", "must be at most 0.5 with three_phase, whose first two phases are equally long")

    def _between(self, iteration: int, initial: float, peak: float, back: float, end: float) -> float:
        # PyTorch counts its steps from 0: its first step has exactly the initial value, and its last step exactly the end.
        done = min(max(iteration - 1, 0), self.max_update - 1)
        rise_end = self.pct_start * self.max_update - 1
        corners = [(0.0, initial), (rise_end, peak)]
        if self.three_phase:
            corners.append((2 * self.pct_start * self.max_update - 2, back))
        corners.append((self.max_update - 1, end))
        for (start, value), (stop, target) in pairwise(corners):
            if done <= stop or stop == self.max_update - 1:
                part = (done - start) / (stop - start) if stop > start else 1.0
                return self._anneal(value, target, min(max(part, 0.0), 1.0))
        raise AssertionError("the last corner is at the end")

    def _anneal(self, start: float, end: float, part: float) -> float:
        if self.anneal_strategy == "linear":
            return start * (1 - part) + end * part
        return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


@curve
class OneCycleLR(_Phases):
    """Rises to `max_lr`, then falls far below its start, as PyTorch's OneCycleLR does.

    lr(k) = end + (start − end) · (1 + cos(π · p)) / 2 in each phase

    start and end are the rates at the ends of the phase, and p is its elapsed fraction. The rate starts from
    max_lr / div_factor, rises to `max_lr` and falls to max_lr / div_factor / final_div_factor, or to `final_lr`, where it
    stays.

    Source: PyTorch's `OneCycleLR`, whose step k − 1 is iteration k; Smith & Topin, "Super-Convergence", 2017. Paddle's
    `OneCycleLR`, whose `end_learning_rate` is `final_lr`.

    Args:
        max_update: Iterations of the cycle; PyTorch's `total_steps`.
        pct_start: The fraction of the cycle in which the rate rises, from 0 to 1.
        anneal_strategy: "cos" for half a cosine in each phase, "linear" for a straight line.
        three_phase: True to fall to the first rate as fast as it rose, and only then to the last rate. `pct_start` must be at
            most 0.5 then.
        max_lr: The learning rate at the tip, the highest unless `final_lr` is above it.
        div_factor: `max_lr` divided by the first rate.
        final_div_factor: The first rate divided by the last one.
        final_lr: The last rate, in place of `final_div_factor`; None to use that.

    Raises:
        FieldError: An argument is invalid, `pct_start` is above 0.5 with `three_phase`, a divisor is so small that a rate is
            infinite in float32, or both `final_lr` and `final_div_factor` are given.

    Example:
        >>> schedule = OneCycleLR(max_lr=1, max_update=1000, div_factor=10, final_div_factor=100)
        >>> round(schedule(1), 6), schedule(300), round(schedule(650), 6)
        (0.1, 1.0, 0.5005)
        >>> round(schedule(1000), 6), round(schedule(1_000_000), 6)
        (0.001, 0.001)
    """

    max_lr: float = setting(RATE, filling=ITS_RATE)
    div_factor: float = setting(Number(above=0), default=25.0)
    final_div_factor: float = setting(Number(above=0), default=_FINAL_DIV_FACTOR)
    final_lr: float | None = setting(Or(None, RATE), default=None)

    example: ClassVar[dict[str, Any]] = {"max_lr": 1, "max_update": 1000}

    def check_together(self) -> None:
        super().check_together()
        initial = self.max_lr / self.div_factor
        for name, learning_rate in (("div_factor", initial), ("final_div_factor", initial / self.final_div_factor)):
            if not learning_rate <= MAX_FLOAT32:
                raise self.refused(name, "must be larger, since it makes a rate infinite in float32")
        if self.final_lr is not None and self.final_div_factor != _FINAL_DIV_FACTOR:
            raise self.refused("final_lr", "must be left out, since final_div_factor sets the last rate; keep one of them")

    @property
    def max_rate(self) -> float:
        return max(self._first, self.max_lr, self._last)

    @property
    def _first(self) -> float:
        return self.max_lr / self.div_factor

    @property
    def _last(self) -> float:
        return self._first / self.final_div_factor if self.final_lr is None else self.final_lr

    def rate_at(self, iteration: int) -> float:
        return self._between(iteration, self._first, self.max_lr, self._first, self._last)


@curve
class OneCycleMomentum(_Phases):
    """Lowers the momentum while OneCycleLR raises the rate, and then raises it again.

    lr(k) = end + (start − end) · (1 + cos(π · p)) / 2 in each phase

    start and end are the values at the ends of the phase, and p is its elapsed fraction. The values are momenta, not learning
    rates: in a configuration this curve belongs to the table [momentum].

    Source: PyTorch's `OneCycleLR(cycle_momentum=True)`, whose step k − 1 is iteration k.

    Args:
        max_update: Iterations of the cycle; PyTorch's `total_steps`.
        pct_start: The fraction of the cycle in which the rate rises and the momentum falls, from 0 to 1.
        anneal_strategy: "cos" for half a cosine in each phase, "linear" for a straight line.
        three_phase: True to return to the highest momentum as fast as it fell, and stay there. `pct_start` must be at most 0.5
            then.
        base_momentum: The lowest momentum, from 0 to 1.
        max_momentum: The highest momentum, from 0 to 1.

    Raises:
        FieldError: An argument is invalid, `pct_start` is above 0.5 with `three_phase`, or `base_momentum` is above
            `max_momentum`.

    Example:
        >>> schedule = OneCycleMomentum(max_update=1000)
        >>> schedule(1), schedule(300), round(schedule(650), 6), schedule(1000), schedule(1_000_000)
        (0.95, 0.85, 0.9, 0.95, 0.95)
    """

    base_momentum: float = setting(FRACTION, default=0.85)
    max_momentum: float = setting(FRACTION, default=0.95)

    relations = ("base_momentum <= max_momentum",)
    is_momentum = True
    example: ClassVar[dict[str, Any]] = {"max_update": 1000}

    @property
    def max_rate(self) -> float:
        return self.max_momentum

    def rate_at(self, iteration: int) -> float:
        return self._between(iteration, self.max_momentum, self.base_momentum, self.max_momentum, self.max_momentum)
