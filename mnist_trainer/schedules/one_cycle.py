"""One cycle, for super-convergence: the tutorial's OneCycle, PyTorch's OneCycleLR, and the momentum that goes against it.

Smith & Topin, "Super-Convergence", 2017.
"""

import math
from dataclasses import KW_ONLY
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

from mnist_trainer.fields import FRACTION, MAX_FLOAT32, RATE, Choice, FieldValueError, Number, Or, Switch, Whole, setting
from mnist_trainer.schedules.cycles import Triangular
from mnist_trainer.schedules.schedule import Schedule, curve, duration

ANNEAL_STRATEGIES = ("cos", "linear")


@curve
class OneCycle(Schedule):
    """A triangle, then a cool-down: lr(k) = triangle(k) up to cycle_length, then straight from start_lr to finish_lr.

    Equal to the class `OneCycleSchedule` of MXNet's advanced tutorial to the last bit, except that the cool-down's last
    iteration has `finish_lr` itself, not what rounding leaves of it. It stays there.

    start_lr, max_lr: the foot and the tip of the triangle, which is `cycle_length` iterations long.
    finish_lr: where the cool-down of `cooldown_length` iterations ends; None where there is none.

    >>> schedule = OneCycle(start_lr=0.1, max_lr=0.5, cycle_length=500, cooldown_length=750, finish_lr=0.001)
    >>> round(schedule(1), 6), schedule(250), round(schedule(875), 6), schedule(1250), schedule(1_000_000)
    (0.1016, 0.5, 0.0505, 0.001, 0.001)
    """

    start_lr: float = setting(RATE)
    max_lr: float = setting(RATE)
    cycle_length: int = duration()
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
            raise FieldValueError("finish_lr", f"missing; a cool-down of cooldown_length = {self.cooldown_length} ends there")
        if self.finish_lr is not None and not self.cooldown_length:
            raise self.refused("finish_lr", "must be left out, since cooldown_length = 0 never reaches it")

    @cached_property
    def _triangle(self) -> Triangular:
        return Triangular(self.start_lr, self.max_lr, self.cycle_length)

    def rate_at(self, iteration: int) -> float:
        if iteration <= self.cycle_length:
            return self._triangle.rate_at(iteration)
        finish_lr = self.start_lr if self.finish_lr is None else self.finish_lr
        if iteration >= self.cycle_length + self.cooldown_length:
            return finish_lr
        return (iteration - self.cycle_length) * (finish_lr - self.start_lr) / self.cooldown_length + self.start_lr


@curve
class _Phases(Schedule):
    """What the rate and the momentum of PyTorch's one-cycle share: two or three phases between a low and a high value.

    max_update: iterations of the whole; PyTorch's `total_steps`.
    pct_start: the fraction of them in which the rate rises.
    anneal_strategy: "cos", half a cosine in each phase, or "linear".
    three_phase: back to where it came from as fast as it rose, and only then on to the end.
    """

    _: KW_ONLY
    max_update: int = duration()
    pct_start: float = setting(FRACTION, default=0.3)
    anneal_strategy: str = setting(Choice(ANNEAL_STRATEGIES), default="cos")
    three_phase: bool = setting(Switch(), default=False)

    def check_together(self) -> None:
        if self.three_phase and self.pct_start > 0.5:
            raise self.refused("pct_start", "must be at most 0.5 with three_phase, to leave room for the way back")

    def _between(self, iteration: int, initial: float, peak: float, back: float, end: float) -> float:
        # PyTorch counts its steps from 0, so that the first has exactly the initial value and the last exactly the end.
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
    """PyTorch's one-cycle, up from max_lr/div_factor and down: lr(k) = end + (start − end) · (1 + cos(π·part)) / 2 a phase.

    Equal to PyTorch's `OneCycleLR`, whose step k−1 is iteration k. It rises in the first `pct_start` of `max_update`
    iterations and falls in the rest; with `three_phase` it falls as fast as it rose and then on. It stays at its last rate.

    max_update: iterations of the whole; PyTorch's `total_steps`.
    pct_start: the fraction of them in which the rate rises.
    anneal_strategy: "cos", half a cosine in each phase, or "linear".
    three_phase: back to where it came from as fast as it rose, and only then on to the end.
    div_factor, final_div_factor: how far below `max_lr` it begins, and how far below that it ends.

    >>> schedule = OneCycleLR(max_lr=1, max_update=1000, div_factor=10, final_div_factor=100)
    >>> round(schedule(1), 6), schedule(300), round(schedule(650), 6), round(schedule(1000), 6), round(schedule(1_000_000), 6)
    (0.1, 1.0, 0.5005, 0.001, 0.001)
    """

    max_lr: float = setting(RATE)
    div_factor: float = setting(Number(above=0), default=25.0)
    final_div_factor: float = setting(Number(above=0), default=1e4)

    example: ClassVar[dict[str, Any]] = {"max_lr": 1, "max_update": 1000}

    def check_together(self) -> None:
        super().check_together()
        initial = self.max_lr / self.div_factor
        for name, learning_rate in (("div_factor", initial), ("final_div_factor", initial / self.final_div_factor)):
            if not learning_rate <= MAX_FLOAT32:
                raise self.refused(name, "must be larger; it makes a rate that is infinite in float32")

    def rate_at(self, iteration: int) -> float:
        initial = self.max_lr / self.div_factor
        return self._between(iteration, initial, self.max_lr, initial, initial / self.final_div_factor)


@curve
class OneCycleMomentum(_Phases):
    """The momentum that goes against OneCycleLR, down and up: lr(k) = end + (start − end) · (1 + cos(π·part)) / 2 a phase.

    PyTorch's `OneCycleLR(cycle_momentum=True)`, whose step k−1 is iteration k: a curve for the table [momentum], no learning
    rate.

    max_update: iterations of the whole; PyTorch's `total_steps`.
    pct_start: the fraction of them in which the rate rises and the momentum falls.
    anneal_strategy: "cos", half a cosine in each phase, or "linear".
    three_phase: back to where it came from as fast as it rose, and only then on to the end.
    base_momentum, max_momentum: its lowest and its highest value.

    >>> schedule = OneCycleMomentum(max_update=1000)
    >>> schedule(1), schedule(300), round(schedule(650), 6), schedule(1000), schedule(1_000_000)
    (0.95, 0.85, 0.9, 0.95, 0.95)
    """

    base_momentum: float = setting(FRACTION, default=0.85)
    max_momentum: float = setting(FRACTION, default=0.95)

    relations = ("base_momentum <= max_momentum",)
    quantity: ClassVar[str] = "Momentum"
    example: ClassVar[dict[str, Any]] = {"max_update": 1000}

    def rate_at(self, iteration: int) -> float:
        return self._between(iteration, self.max_momentum, self.base_momentum, self.max_momentum, self.max_momentum)
