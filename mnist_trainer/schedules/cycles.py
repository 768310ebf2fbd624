"""Curves that go up and down, once or for ever: Triangular, Triangular2, ExpRange, WarmRestarts and Cyclical."""

import math
from bisect import bisect_right
from dataclasses import replace
from functools import lru_cache
from threading import Lock
from typing import Any, ClassVar

from mnist_trainer.fields import FRACTION, RATE, Number, Or, Whole, setting
from mnist_trainer.schedules.decays import CosineAnnealing
from mnist_trainer.schedules.schedule import AnySchedule, Schedule, curve, duration, inner_curve


@curve
class Triangular(Schedule):
    """Rises and falls in straight lines, once: lr(k) = min_lr + (max_lr − min_lr) · min(k/up, (cycle_length−k)/down).

    up = inc_fraction · cycle_length, down is the rest; after `cycle_length` it stays at `min_lr`. Equal to the class
    `TriangularSchedule` of MXNet's advanced tutorial to the last bit; slanted triangles are from Howard & Ruder, "ULMFiT",
    2018.

    >>> schedule = Triangular(min_lr=1, max_lr=2, cycle_length=1000, inc_fraction=0.2)
    >>> schedule(1), schedule(200), schedule(600), schedule(1000), schedule(1_000_000)
    (1.005, 2.0, 1.5, 1.0, 1.0)
    """

    min_lr: float = setting(RATE)
    max_lr: float = setting(RATE)
    cycle_length: int = duration()
    inc_fraction: float = setting(FRACTION, default=0.5)

    relations = ("min_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {"min_lr": 1, "max_lr": 2, "cycle_length": 1000, "inc_fraction": 0.2}

    def rate_at(self, iteration: int) -> float:
        return self._height(iteration) * (self.max_lr - self.min_lr) + self.min_lr

    def _height(self, iteration: int) -> float:
        """From 0 at the ends to 1 at the tip."""
        up = self.cycle_length * self.inc_fraction
        if iteration <= up:
            return iteration / up if up else 1.0
        if iteration <= self.cycle_length:
            return (self.cycle_length - iteration) / (self.cycle_length * (1 - self.inc_fraction))
        return 0.0


@curve
class Triangular2(Triangular):
    """Triangles for ever, each half as high: lr(k) = min_lr + (max_lr − min_lr) · triangle(k) / 2^⌊k/cycle_length⌋.

    "triangular2" of Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; PyTorch's
    `CyclicLR(mode="triangular2")`. A triangle is that of `Triangular`.

    cycle_length, inc_fraction: the length of each triangle, and the fraction of it that goes up.

    >>> schedule = Triangular2(min_lr=0, max_lr=1, cycle_length=500)
    >>> schedule(1), schedule(250), schedule(500), schedule(750), schedule(1_000_000)
    (0.004, 1.0, 0.0, 0.5, 0.0)
    """

    example: ClassVar[dict[str, Any]] = {"min_lr": 0.1, "max_lr": 1, "cycle_length": 500}

    def rate_at(self, iteration: int) -> float:
        cycle, offset = divmod(iteration, self.cycle_length)
        return self.min_lr + (self.max_lr - self.min_lr) * math.ldexp(self._height(offset), -cycle)


@curve
class ExpRange(Triangular):
    """Triangles for ever, lower with every iteration: lr(k) = min_lr + (max_lr − min_lr) · triangle(k) · factor^k.

    "exp_range" of Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; PyTorch's
    `CyclicLR(mode="exp_range")`, where `factor` is called gamma. A triangle is that of `Triangular`.

    cycle_length, inc_fraction: the length of each triangle, and the fraction of it that goes up.

    >>> schedule = ExpRange(min_lr=0, max_lr=1, cycle_length=500, factor=0.999)
    >>> schedule(1), round(schedule(250), 6), schedule(500), round(schedule(750), 6), schedule(1_000_000)
    (0.003996, 0.778703, 0.0, 0.472189, 0.0)
    """

    factor: float = setting(FRACTION, default=1.0)

    example: ClassVar[dict[str, Any]] = {"min_lr": 0.1, "max_lr": 1, "cycle_length": 500, "factor": 0.999}

    def rate_at(self, iteration: int) -> float:
        height = self._height(iteration % self.cycle_length) * float(self.factor**iteration)
        return self.min_lr + (self.max_lr - self.min_lr) * height


@curve
class WarmRestarts(Schedule):
    """Half cosines one after another: lr(k) = min_lr + (max_lr · cycle_decay^i − min_lr) · (1 + cos(π·t/L)) / 2.

    In the i-th cycle, counted from 0, which is L = cycle_length · t_mult^i iterations long and of which t are gone.
    Loshchilov & Hutter, "SGDR", 2016; PyTorch's `CosineAnnealingWarmRestarts`, timm's `CosineLRScheduler` with
    `cycle_mul`, `cycle_decay` and `cycle_limit`, and Keras' `CosineDecayRestarts`, whose `m_mul` is `cycle_decay` only where
    `min_lr` is 0.

    min_lr, max_lr: the ends of the first cycle. A later one whose `cycle_decay` brings it below `min_lr` rises to it, as
        timm's.
    cycle_length: of the first cycle. The iteration at which a cycle ends is the first of the next, and at `max_lr`.
    t_mult: each cycle is so many times as long as the one before, at least 1.
    cycle_decay: each cycle starts from so many times the rate of the one before.
    cycle_limit: after so many cycles it stays at `min_lr`; None for no end. A run that is as long as its cycles ends at a
        restart without it.

    >>> schedule = WarmRestarts(min_lr=0, max_lr=1, cycle_length=100, t_mult=2, cycle_limit=3)
    >>> round(schedule(1), 6), round(schedule(99), 6), schedule(100), round(schedule(200), 6), schedule(1_000_000)
    (0.999753, 0.000247, 1.0, 0.5, 0.0)
    """

    min_lr: float = setting(RATE)
    max_lr: float = setting(RATE)
    cycle_length: int = duration()
    t_mult: float = setting(Number(1, 1e6), default=1)
    cycle_decay: float = setting(FRACTION, default=1.0)
    cycle_limit: int | None = setting(Or(None, Whole(1)), default=None)

    relations = ("min_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {"min_lr": 0.01, "max_lr": 1, "cycle_length": 200, "t_mult": 2}

    def check_together(self) -> None:
        if float(self.t_mult).is_integer():
            object.__setattr__(self, "t_mult", int(self.t_mult))  # whole cycles are counted exactly

    def rate_at(self, iteration: int) -> float:
        cycle = self._cycle_at(iteration)
        if self.cycle_limit is not None and cycle >= self.cycle_limit:
            return self.min_lr
        gone = iteration - self._start_of(cycle)
        shape = (1 + math.cos(math.pi * gone / float(self.cycle_length * self.t_mult**cycle))) / 2
        peak: float = self.max_lr * self.cycle_decay**cycle
        return self.min_lr + (peak - self.min_lr) * shape

    def _cycle_at(self, iteration: int) -> int:
        if self.t_mult == 1:
            return iteration // self.cycle_length
        # Solved for the cycle; the logarithm may be wrong by one where a cycle begins.
        cycle = int(math.log1p(iteration * (self.t_mult - 1) / self.cycle_length) / math.log(self.t_mult))
        while self._start_of(cycle) > iteration:
            cycle -= 1
        while self._start_of(cycle + 1) <= iteration:
            cycle += 1
        return cycle

    def _start_of(self, cycle: int) -> float:
        """The iteration at which a cycle begins: cycle_length · (1 + t_mult + … + t_mult^(cycle−1))."""
        if self.t_mult == 1:
            return self.cycle_length * cycle
        if isinstance(self.t_mult, int):
            return int(self.cycle_length * ((self.t_mult**cycle - 1) // (self.t_mult - 1)))
        return float(self.cycle_length * (self.t_mult**cycle - 1) / (self.t_mult - 1))


@curve
class Cyclical(Schedule):
    """A curve with a `cycle_length` over and over: lr(k) = curve(t) · cycle_magnitude_decay^i in the i-th cycle.

    t are the iterations that are gone of that cycle, which is a whole number of iterations long: the length of the one
    before times `cycle_length_decay`, rounded up. Equal to the class `CyclicalSchedule` of MXNet's advanced tutorial to the
    last bit.

    curve: any curve with a `cycle_length`, such as Triangular or CosineAnnealing; it is stretched to the length of each cycle.
    cycle_length: of the first cycle; None for the curve's own, and otherwise equal to it.
    cycle_length_decay: above 1 for ever longer cycles, below 1 for shorter ones.
    cycle_magnitude_decay: each cycle's rates are those of the one before times this.

    >>> schedule = Cyclical(CosineAnnealing(0.01, 2, 250), cycle_length_decay=2, cycle_magnitude_decay=0.5)
    >>> round(schedule(1), 6), round(schedule(249), 6), schedule(250), schedule(1750), schedule(1_000_000) < 0.001
    (1.999921, 0.010079, 1.0, 0.25, True)
    """

    curve: AnySchedule = inner_curve()
    cycle_length: int | None = duration(Or(None, Whole(1)), default=None)
    cycle_length_decay: float = setting(Number(1e-6, 1e6), default=1.0)
    cycle_magnitude_decay: float = setting(FRACTION, default=1.0)

    example: ClassVar[dict[str, Any]] = {
        "curve": CosineAnnealing(0.01, 2, 250),
        "cycle_length_decay": 2,
        "cycle_magnitude_decay": 0.5,
    }

    def check_together(self) -> None:
        own_length = getattr(self.curve, "cycle_length", None)
        if own_length is None or isinstance(self.curve, Cyclical):
            raise self.refused("curve", "must be a single cycle with a cycle_length; Repeat repeats any curve")
        if self.cycle_length not in (None, own_length):
            raise self.refused("cycle_length", f"must be the curve's own, {own_length}, or left out")
        object.__setattr__(self, "cycle_length", own_length)

    def rate_at(self, iteration: int) -> float:
        cycle, offset, length = _cycle_at(iteration, self.cycle_length or 0, self.cycle_length_decay)
        stretched = self.curve if length == self.cycle_length else _stretched(self.curve, length)
        return float(stretched.rate_at(offset) * self.cycle_magnitude_decay**cycle)


def _cycle_at(iteration: int, cycle_length: int, decay: float) -> tuple[int, int, int]:
    """The cycle, counted from 0; how much of it is gone; and its length."""
    starts, lengths = _known_cycles(cycle_length, decay)
    with _memo_lock:
        while starts[-1] + lengths[-1] <= iteration:
            next_length = math.ceil(lengths[-1] * decay)
            if next_length == lengths[-1]:  # every later one has this length too
                further, offset = divmod(iteration - starts[-1], next_length)
                return len(starts) - 1 + further, offset, next_length
            starts.append(starts[-1] + lengths[-1])
            lengths.append(next_length)
    cycle = bisect_right(starts, iteration) - 1
    return cycle, iteration - starts[cycle], lengths[cycle]


# Starts and lengths of the cycles, as far as anyone has asked. A memo of a pure function: rounding up at every cycle leaves
# no formula, and adding up from the first one at every iteration would cost a run the square of its length.
@lru_cache(maxsize=16)
def _known_cycles(cycle_length: int, decay: float) -> tuple[list[int], list[int]]:
    return [0], [cycle_length]


_memo_lock = Lock()


@lru_cache(maxsize=64)
def _stretched(curve: Any, cycle_length: int) -> Any:
    return replace(curve, cycle_length=cycle_length)
