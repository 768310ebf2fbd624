"""Curves that rise and fall, once or forever: Triangular, Triangular2, ExpRange, WarmRestarts and Cyclical."""

import math
from bisect import bisect_right
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from threading import Lock
from typing import Any, ClassVar

from mnist_trainer.fields import FRACTION, MAX_COUNT, RATE, Number, Or, Whole, setting
from mnist_trainer.schedules.decays import CosineAnnealing
from mnist_trainer.schedules.schedule import ITS_RATE, WHOLE_RUN, AnySchedule, Filling, Schedule, curve, duration, inner_curve


@curve
class Triangular(Schedule):
    """Rises and falls once, in two straight lines.

    lr(k) = min_lr + (max_lr − min_lr) · min(k / up, (cycle_length − k) / down)

    up = inc_fraction · cycle_length, and down is the rest of the cycle. From iteration `cycle_length` on the rate is `min_lr`.

    Source: the class `TriangularSchedule` of MXNet's advanced tutorial, whose rates are equal to the last bit. The unequal
    sides are from Howard & Ruder, "ULMFiT", 2018.

    Args:
        min_lr: The learning rate at both ends of the triangle and after it.
        max_lr: The learning rate at the tip.
        cycle_length: Iterations of the triangle.
        inc_fraction: The fraction of the triangle in which the rate rises, from 0 to 1.

    Raises:
        FieldError: An argument is invalid, or `min_lr` is above `max_lr`.

    Example:
        >>> schedule = Triangular(min_lr=1, max_lr=2, cycle_length=1000, inc_fraction=0.2)
        >>> schedule(1), schedule(200), schedule(600), schedule(1000), schedule(1_000_000)
        (1.005, 2.0, 1.5, 1.0, 1.0)
    """

    min_lr: float = setting(RATE, kw_only=False, filling=Filling(0.0))
    max_lr: float = setting(RATE, filling=ITS_RATE)
    cycle_length: int = duration(filling=WHOLE_RUN)
    inc_fraction: float = setting(FRACTION, default=0.5)

    relations = ("min_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {"min_lr": 1, "max_lr": 2, "cycle_length": 1000, "inc_fraction": 0.2}

    @property
    def last_change(self) -> int | None:
        return self.cycle_length + (self._height(self.cycle_length) > 0)  # the tip, with an inc_fraction of 1

    def rate_at(self, iteration: int) -> float:
        return self._height(iteration) * (self.max_lr - self.min_lr) + self.min_lr

    def _height(self, iteration: int) -> float:
        """Return the height of the triangle, from 0 at its ends to 1 at its tip."""
        up = self.cycle_length * self.inc_fraction
        if iteration <= up:
            return iteration / up if up else 1.0
        if iteration <= self.cycle_length:
            return (self.cycle_length - iteration) / (self.cycle_length * (1 - self.inc_fraction))
        return 0.0


@curve
class Triangular2(Triangular):
    """Repeats a triangle forever, and halves its height after each cycle.

    lr(k) = min_lr + (max_lr − min_lr) · triangle(t) / 2^i

    i = ⌊k / cycle_length⌋ counts the cycles from 0, and t = k mod cycle_length is the iteration within the cycle. triangle(t)
    is the shape of `Triangular`, from 0 at its ends to 1 at its tip.

    Source: "triangular2" of Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; PyTorch's
    `CyclicLR(mode="triangular2")`.

    Args:
        min_lr: The learning rate at both ends of each triangle.
        max_lr: The learning rate at the tip of the first triangle.
        cycle_length: Iterations of each triangle.
        inc_fraction: The fraction of each triangle in which the rate rises, from 0 to 1.

    Raises:
        FieldError: An argument is invalid, or `min_lr` is above `max_lr`.

    Example:
        >>> schedule = Triangular2(min_lr=0, max_lr=1, cycle_length=500)
        >>> schedule(1), schedule(250), schedule(500), schedule(750), schedule(1_000_000)
        (0.004, 1.0, 0.0, 0.5, 0.0)
    """

    cycle_length: int = duration(filling=Filling(0.25, "fraction"))

    example: ClassVar[dict[str, Any]] = {"min_lr": 0.1, "max_lr": 1, "cycle_length": 500}

    @property
    def last_change(self) -> int | None:
        return None

    def rate_at(self, iteration: int) -> float:
        cycle, offset = divmod(iteration, self.cycle_length)
        return self.min_lr + (self.max_lr - self.min_lr) * math.ldexp(self._height(offset), -cycle)


@curve
class ExpRange(Triangular):
    """Repeats a triangle forever, and lowers it with every iteration.

    lr(k) = min_lr + (max_lr − min_lr) · triangle(k mod cycle_length) · factor^k

    triangle is the shape of `Triangular`, from 0 at its ends to 1 at its tip.

    Source: "exp_range" of Smith, "Cyclical Learning Rates for Training Neural Networks", 2015; PyTorch's
    `CyclicLR(mode="exp_range")`, where `factor` is `gamma`.

    Args:
        min_lr: The learning rate at both ends of each triangle.
        max_lr: The learning rate at the tip of a triangle, without the decay.
        cycle_length: Iterations of each triangle.
        inc_fraction: The fraction of each triangle in which the rate rises, from 0 to 1.
        factor: The factor of the height per iteration, from 0 to 1.

    Raises:
        FieldError: An argument is invalid, or `min_lr` is above `max_lr`.

    Example:
        >>> schedule = ExpRange(min_lr=0, max_lr=1, cycle_length=500, factor=0.999)
        >>> schedule(1), round(schedule(250), 6), schedule(500), round(schedule(750), 6), schedule(1_000_000)
        (0.003996, 0.778703, 0.0, 0.472189, 0.0)
    """

    cycle_length: int = duration(filling=Filling(0.25, "fraction"))
    factor: float = setting(FRACTION, default=1.0)

    example: ClassVar[dict[str, Any]] = {"min_lr": 0.1, "max_lr": 1, "cycle_length": 500, "factor": 0.999}

    @property
    def last_change(self) -> int | None:
        return None

    def rate_at(self, iteration: int) -> float:
        height = self._height(iteration % self.cycle_length) * float(self.factor**iteration)
        return self.min_lr + (self.max_lr - self.min_lr) * height


@curve
class WarmRestarts(Schedule):
    """Falls along half a cosine in each of its cycles, which can become longer and lower.

    lr(k) = min_lr + (max_lr · cycle_decay^i − min_lr) · (1 + cos(π · t / L)) / 2

    i counts the cycles from 0, L = cycle_length · t_mult^i is the length of the cycle, and t is the number of iterations since
    it began. Iteration `cycle_length` begins the second cycle, so it has the highest rate of that cycle. Decimal numbers are
    exact: with a cycle of 100 iterations and `t_mult=1.11` the third cycle begins at iteration 211. If `cycle_decay` brings the
    start of a cycle below `min_lr`, the rate rises to `min_lr` within the cycle, as in timm.

    Source: Loshchilov & Hutter, "SGDR", 2016; PyTorch's `CosineAnnealingWarmRestarts`; timm's `CosineLRScheduler` with
    `cycle_mul`, `cycle_decay` and `cycle_limit`; Hugging Face's `get_cosine_with_hard_restarts_schedule_with_warmup`, whose
    cycles need not be whole; Keras' `CosineDecayRestarts`, whose `m_mul` equals `cycle_decay` only if `min_lr` is 0. With
    both, that is Sum([WarmRestarts(0, …), Constant(…)]).

    Args:
        min_lr: The learning rate that each cycle approaches.
        max_lr: The learning rate at the start of the first cycle.
        cycle_length: Iterations of the first cycle, a whole or a decimal number.
        t_mult: Each cycle is `t_mult` times as long as the one before; at least 1.
        cycle_decay: Each cycle starts from `cycle_decay` times the rate of the one before; from 0 to 1.
        cycle_limit: The number of cycles, after which the rate stays at `min_lr`; None for no limit. A run that is exactly as
            long as its cycles needs a limit, or its last iteration is a restart.

    Raises:
        FieldError: An argument is invalid, or `min_lr` is above `max_lr`.

    Example:
        >>> schedule = WarmRestarts(min_lr=0, max_lr=1, cycle_length=100, t_mult=2, cycle_limit=3)
        >>> round(schedule(1), 6), round(schedule(99), 6), schedule(100), round(schedule(200), 6), schedule(1_000_000)
        (0.999753, 0.000247, 1.0, 0.5, 0.0)
    """

    min_lr: float = setting(RATE, kw_only=False, filling=Filling(0.0))
    max_lr: float = setting(RATE, filling=ITS_RATE)
    cycle_length: float = duration(Number(1, MAX_COUNT), filling=Filling(0.25, "fraction"))
    t_mult: float = setting(Number(1, 1e6), default=1)
    cycle_decay: float = setting(FRACTION, default=1.0)
    # Four cycles of a quarter of the run. A fifth would begin in the last iteration.
    cycle_limit: int | None = setting(Or(None, Whole(1)), default=None, filling=Filling(4, beside="cycle_length"))

    relations = ("min_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {"min_lr": 0.01, "max_lr": 1, "cycle_length": 200, "t_mult": 2}

    def check_together(self) -> None:
        for name in ("cycle_length", "t_mult"):
            if float(getattr(self, name)).is_integer():
                object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def last_change(self) -> int | None:
        if self.cycle_limit is None or self.cycle_limit * math.log2(self.t_mult) > 64:  # the number would be astronomical
            return None
        return math.ceil(_start_of_cycle(self.cycle_limit, self.cycle_length, self.t_mult))

    def rate_at(self, iteration: int) -> float:
        cycle = self._cycle_at(iteration)
        if self.cycle_limit is not None and cycle >= self.cycle_limit:
            return self.min_lr
        gone = iteration - _start_of_cycle(cycle, self.cycle_length, self.t_mult)
        shape = (1 + math.cos(math.pi * gone / float(self.cycle_length * self.t_mult**cycle))) / 2
        peak: float = self.max_lr * self.cycle_decay**cycle
        return self.min_lr + (peak - self.min_lr) * shape

    def _cycle_at(self, iteration: int) -> int:
        # The equation of `_start_of_cycle`, solved for the cycle. Rounding may make it wrong by one where a cycle begins.
        if self.t_mult == 1:
            cycle = int(iteration // self.cycle_length)
        else:
            cycle = int(math.log1p(iteration * (self.t_mult - 1) / self.cycle_length) / math.log(self.t_mult))
        while _start_of_cycle(cycle, self.cycle_length, self.t_mult) > iteration:
            cycle -= 1
        while _start_of_cycle(cycle + 1, self.cycle_length, self.t_mult) <= iteration:
            cycle += 1
        return cycle


_MAX_EXACT_CYCLES = 64
"""The number of cycles that may begin at a whole iteration if `t_mult` is not whole: its denominator to this power, at least
2^64, would have to divide a length."""


@lru_cache(maxsize=1024)
def _start_of_cycle(cycle: int, cycle_length: float, t_mult: float) -> float:
    """Return the iteration at which a cycle begins: cycle_length · (1 + t_mult + … + t_mult^(cycle−1)).

    A start within 1e-12 of a whole number, as a fraction of it, is that number. A length such as a third of 1,000 is not exact.
    """
    if t_mult == 1:
        cycles: float | Fraction = cycle
    elif cycle <= _MAX_EXACT_CYCLES:
        factor = Fraction(repr(t_mult))
        cycles = (factor**cycle - 1) / (factor - 1)
    else:
        cycles = math.expm1(cycle * math.log1p(t_mult - 1)) / (t_mult - 1)
    start = Fraction(repr(cycle_length)) * Fraction(cycles)
    whole = round(start)
    return whole if abs(start - whole) <= whole * Fraction(1, 10**12) else float(start)


@curve
class Cyclical(Schedule):
    """Repeats a curve that has a `cycle_length`, in cycles that can become longer, shorter or lower.

    lr(k) = curve(t) · cycle_magnitude_decay^i

    i counts the cycles from 0, and t is the number of iterations since the cycle began. The length of a cycle is that of the
    cycle before times `cycle_length_decay`, rounded up to a whole number of iterations; the curve is stretched to it.

    Source: the class `CyclicalSchedule` of MXNet's advanced tutorial, whose rates are equal to the last bit. As there, the
    product is rounded in floating point first: 100 · 1.1 is a little above 110, so the second cycle has 111 iterations.

    Args:
        curve: A curve with a `cycle_length`, such as Triangular or CosineAnnealing.
        cycle_length: Iterations of the first cycle. None takes the length of the curve; any other value must be equal to it.
        cycle_length_decay: Each cycle is `cycle_length_decay` times as long as the one before: longer above 1, shorter below 1.
        cycle_magnitude_decay: Each cycle has `cycle_magnitude_decay` times the rates of the one before; from 0 to 1.

    Raises:
        FieldError: An argument is invalid, `curve` has no `cycle_length` or is itself Cyclical, or `cycle_length` is not
            the curve's own.

    Example:
        >>> curve = CosineAnnealing(min_lr=0.01, max_lr=2, cycle_length=250)
        >>> schedule = Cyclical(curve, cycle_length_decay=2, cycle_magnitude_decay=0.5)
        >>> round(schedule(1), 6), round(schedule(249), 6), schedule(250), schedule(1750), schedule(1_000_000) < 0.001
        (1.999921, 0.010079, 1.0, 0.25, True)
    """

    curve: AnySchedule = inner_curve(kw_only=False)
    cycle_length: int | None = duration(Or(None, Whole(1)), default=None)
    cycle_length_decay: float = setting(Number(1e-6, 1e6), default=1.0)
    cycle_magnitude_decay: float = setting(FRACTION, default=1.0)

    example: ClassVar[dict[str, Any]] = {
        "curve": CosineAnnealing(min_lr=0.01, max_lr=2, cycle_length=250),
        "cycle_length_decay": 2,
        "cycle_magnitude_decay": 0.5,
    }

    def check_together(self) -> None:
        own_length = getattr(self.curve, "cycle_length", None)
        if not isinstance(own_length, int) or isinstance(self.curve, Cyclical):
            raise self.refused("curve", "must be a single cycle with a whole cycle_length; use Repeat for any other curve")
        if self.cycle_length not in (None, own_length):
            raise self.refused("cycle_length", f"must be {own_length}, the cycle_length of the curve, or left out")
        object.__setattr__(self, "cycle_length", own_length)

    @property
    def last_change(self) -> int | None:
        return None

    def rate_at(self, iteration: int) -> float:
        cycle, offset, length = _cycle_at(iteration, self.cycle_length or 0, self.cycle_length_decay)
        stretched = self.curve if length == self.cycle_length else _stretched(self.curve, length)
        return float(stretched.rate_at(offset) * self.cycle_magnitude_decay**cycle)


def _cycle_at(iteration: int, cycle_length: int, decay: float) -> tuple[int, int, int]:
    """Return the cycle, counted from 0, the number of iterations since it began, and its length."""
    starts, lengths = _known_cycles(cycle_length, decay)
    with _memo_lock:
        while starts[-1] + lengths[-1] <= iteration:
            next_length = math.ceil(lengths[-1] * decay)
            if next_length == lengths[-1]:  # all later cycles have this length too
                further, offset = divmod(iteration - starts[-1], next_length)
                return len(starts) - 1 + further, offset, next_length
            starts.append(starts[-1] + lengths[-1])
            lengths.append(next_length)
    cycle = bisect_right(starts, iteration) - 1
    return cycle, iteration - starts[cycle], lengths[cycle]


# The starts and lengths of the cycles that have been computed so far: the cache of a pure function. There is no formula, since
# each length is rounded up, and to add up the lengths at every iteration would take quadratic time in a run.
@lru_cache(maxsize=16)
def _known_cycles(cycle_length: int, decay: float) -> tuple[list[int], list[int]]:
    return [0], [cycle_length]


_memo_lock = Lock()


@lru_cache(maxsize=64)
def _stretched(curve: Any, cycle_length: int) -> Any:
    return replace(curve, cycle_length=cycle_length)
