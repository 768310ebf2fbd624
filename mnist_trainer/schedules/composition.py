"""Schedules made of schedules: Warmup, Cooldown, Sequential, Product, Repeat, Clip, Scale and Noise.

Each contains one or more curves, evaluates them at iterations that it chooses, and is a curve itself. They can be nested to any
depth.
"""

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from heapq import merge
from itertools import dropwhile, groupby, islice, takewhile
from statistics import NormalDist
from typing import Any, ClassVar

from mnist_trainer.fields import MAX_FLOAT32, RATE, Choice, Listed, Number, Or, Switch, Whole, setting
from mnist_trainer.schedules.decays import Cosine, Linear
from mnist_trainer.schedules.schedule import MAX_LEVELS, AnySchedule, Schedule, curve, duration, inner_curve, inner_curves
from mnist_trainer.schedules.stepwise import Constant, MultiFactor
from mnist_trainer.schedules.user import ScheduleError

WARMUP_MODES = ("linear", "constant", "exponential", "cosine")


@curve
class Warmup(Schedule):
    """Warms up to the initial rate of a curve, then follows the curve.

    lr(k) = begin + (curve(0) − begin) · k / warmup_steps for k ≤ warmup_steps
    lr(k) = curve(k − warmup_steps) after that

    begin is `warmup_begin_lr`, and the first equation is that of "linear". The curve begins after the warm-up, so its drops
    come `warmup_steps` iterations later.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017. The rates of a linear warm-up equal those of the class
    `LinearWarmUp` of MXNet's advanced tutorial to the last bit, except that rounding never makes them negative.

    Args:
        curve: The schedule after the warm-up.
        warmup_steps: Iterations of the warm-up.
        warmup_begin_lr: The learning rate at which the warm-up begins; above 0 for "exponential".
        warmup_mode: "linear"; "constant" to keep `warmup_begin_lr`; "exponential" to multiply by the same factor in every
            iteration; "cosine" to rise along half a cosine.
        overlay: True to begin the curve at the first iteration and replace its rates below `warmup_steps`, as `mx.lr_scheduler`
            does. From iteration `warmup_steps` on the rate is curve(k).

    Raises:
        FieldError: An argument is invalid, or an exponential warm-up begins at 0.

    Example:
        >>> schedule = Warmup(MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1), warmup_steps=250)
        >>> schedule(1), schedule(250), schedule(500), schedule(501), schedule(1_000_000)
        (0.004, 1.0, 1.0, 0.5, 0.125)
    """

    curve: AnySchedule = inner_curve()
    warmup_steps: int = duration()
    warmup_begin_lr: float = setting(RATE, default=0.0)
    warmup_mode: str = setting(Choice(WARMUP_MODES), default="linear")
    overlay: bool = setting(Switch(), default=False)

    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=1000, base_lr=1), "warmup_steps": 250}

    def check_together(self) -> None:
        if self.warmup_mode == "exponential" and self.warmup_begin_lr == 0:
            raise self.refused("warmup_begin_lr", "must be above 0, since an exponential warm-up multiplies it")

    @property
    def last_change(self) -> int | None:
        end = self.curve.last_change
        if end is None:
            return None
        return max(self.warmup_steps, end) if self.overlay else self.warmup_steps + end

    def rate_at(self, iteration: int) -> float:
        if self.overlay:
            return self.curve.rate_at(iteration) if iteration >= self.warmup_steps else self._rising(iteration)
        return self._rising(iteration) if iteration <= self.warmup_steps else self.curve.rate_at(iteration - self.warmup_steps)

    def _rising(self, iteration: int) -> float:
        start, finish, length = self.warmup_begin_lr, self.curve.initial_rate, self.warmup_steps
        if self.warmup_mode == "constant":
            return start
        if self.warmup_mode == "exponential":
            return float(start ** (1 - iteration / length) * finish ** (iteration / length))
        if self.warmup_mode == "cosine":
            return start + (finish - start) * (1 - math.cos(math.pi * iteration / length)) / 2
        return max(iteration * (finish - start) / length + start, 0.0)  # rounding may make the end of a fall to 0 negative

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        if self.overlay:
            ends = islice(self.curve.level_ends(total_iterations), MAX_LEVELS)
            return dropwhile(lambda end: end < self.warmup_steps - 1, ends)
        return (end + self.warmup_steps for end in self.curve.level_ends(total_iterations - self.warmup_steps))


@curve
class Cooldown(Schedule):
    """Follows a curve, then changes in a straight line to `final_lr`.

    lr(k) = curve(k) for k ≤ start
    lr(k) = curve(start) + (final_lr − curve(start)) · (k − start) / cooldown_steps in the cool-down

    After the cool-down the rate is `final_lr`.

    Source: Smith & Topin, "Super-Convergence", 2017. The rates equal those of the class `LinearCoolDown` of MXNet's advanced
    tutorial to the last bit, except that the last iteration has exactly `final_lr`, where the class has a rounding error.

    Args:
        curve: The schedule before the cool-down.
        start: The last iteration of the curve; the cool-down begins after it.
        cooldown_steps: Iterations of the cool-down.
        final_lr: The learning rate at the end of the cool-down and after it.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> curve = MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)
        >>> schedule = Cooldown(curve, start=1000, cooldown_steps=500, final_lr=0.001)
        >>> schedule(1), schedule(1000), schedule(1250), schedule(1500), schedule(1_000_000)
        (1.0, 0.125, 0.063, 0.001, 0.001)
    """

    curve: AnySchedule = inner_curve()
    start: int = duration(Whole(0))
    cooldown_steps: int = duration()
    final_lr: float = setting(RATE, default=0.0)

    example: ClassVar[dict[str, Any]] = {
        "curve": MultiFactor(step=[250, 750], factor=0.5, base_lr=1),
        "start": 1000,
        "cooldown_steps": 300,
        "final_lr": 0.01,
    }

    @property
    def last_change(self) -> int | None:
        return self.start + self.cooldown_steps

    def rate_at(self, iteration: int) -> float:
        gone = iteration - self.start
        if gone <= 0:
            return self.curve.rate_at(iteration)
        if gone >= self.cooldown_steps:
            return self.final_lr
        start_lr = self.curve.rate_at(self.start)
        return gone * (self.final_lr - start_lr) / self.cooldown_steps + start_lr

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return _below(self.start, self.curve.level_ends(min(total_iterations, self.start)))


@curve
class Sequential(Schedule):
    """Follows one curve after another.

    lr(k) = curves[i](k − b)

    i is the number of boundaries below k, and b is the last of these boundaries (0 for the first curve). Each curve counts its
    iterations from 1.

    Source: PyTorch's `SequentialLR` and optax's `join_schedules`. They count from 0, so they begin the next curve one iteration
    earlier.

    Args:
        curves: The schedules, in order.
        boundaries: The last iteration of each curve but the last one, in increasing order; one fewer than `curves`.

    Raises:
        FieldError: An argument is invalid, or `boundaries` does not have one member fewer than `curves`.

    Example:
        >>> schedule = Sequential([Constant(1), Linear(max_update=500, base_lr=1), Constant(0.01)], boundaries=[500, 1000])
        >>> schedule(1), schedule(500), schedule(750), schedule(1000), schedule(1_000_000)
        (1.0, 1.0, 0.5, 0.0, 0.01)
    """

    curves: Sequence[AnySchedule] = inner_curves()
    boundaries: Sequence[int] = duration(Listed(Whole(1), increases=True))

    example: ClassVar[dict[str, Any]] = {
        "curves": (Linear(max_update=300, base_lr=0.2, final_lr=1), Constant(1), Cosine(max_update=500, base_lr=0.6)),
        "boundaries": (300, 700),
    }

    def check_together(self) -> None:
        if len(self.boundaries) != len(self.curves) - 1:
            raise self.refused("boundaries", f"must have length {len(self.curves) - 1}, one fewer than curves")

    @property
    def last_change(self) -> int | None:
        end = self.curves[-1].last_change
        return None if end is None else (self.boundaries[-1] if self.boundaries else 0) + end

    def rate_at(self, iteration: int) -> float:
        part = bisect_left(self.boundaries, iteration)
        return self.curves[part].rate_at(iteration - self.boundaries[part - 1] if part else iteration)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        """Yield those within the curves. The rate may rise or fall between two curves, so boundaries are left out."""
        starts, stops = (0, *self.boundaries), (*self.boundaries, total_iterations)
        for part, start, stop in zip(self.curves, starts, stops, strict=True):
            for end in _below(stop - start, part.level_ends(stop - start)):
                yield start + end


@curve
class Product(Schedule):
    """Multiplies the rates of several curves.

    lr(k) = curves[0](k) · curves[1](k) · …

    One curve has learning rates; the others are factors. A factor has `base_lr` or `final_lr` 1 where it leaves the rate
    unchanged.

    Source: PyTorch's `ChainedScheduler`.

    Args:
        curves: One or more schedules.

    Raises:
        FieldError: `curves` is not a list of one or more schedules.
        ScheduleError: The product is beyond the range of float32 (raised when the schedule is called).

    Example:
        >>> schedule = Product([Linear(max_update=1000, base_lr=0.2), MultiFactor(step=[400], factor=0.5, base_lr=1)])
        >>> schedule(1), schedule(400), schedule(500), schedule(1_000_000)
        (0.1998, 0.12, 0.05, 0.0)
    """

    curves: Sequence[AnySchedule] = inner_curves()

    example: ClassVar[dict[str, Any]] = {
        "curves": (Cosine(max_update=1000, base_lr=1), MultiFactor(step=[300, 600], factor=0.6, base_lr=1)),
    }

    @property
    def max_rate(self) -> float:
        return math.prod(curve.max_rate for curve in self.curves)

    def rate_at(self, iteration: int) -> float:
        return _within_float32(math.prod(curve.rate_at(iteration) for curve in self.curves), self, iteration)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        # Far beyond, a single rate of another curve may take minutes.
        limit = min(total_iterations, _MAX_END)
        return (end for end, _ in groupby(merge(*(_below(limit, curve.level_ends(limit)) for curve in self.curves))))


@curve
class Repeat(Schedule):
    """Repeats the first iterations of a curve forever.

    lr(k) = curve((k − 1) mod length + 1)

    A cycle has `length` iterations of the curve, including its last. `WarmRestarts`, and the restarts of Hugging Face and timm,
    restart at that iteration instead. optax and PyTorch have no counterpart.

    Args:
        curve: The schedule to repeat.
        length: Iterations of the curve in each cycle.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = Repeat(Linear(max_update=500, base_lr=1), length=500)
        >>> schedule(1), schedule(500), schedule(501), schedule(1_000_000)
        (0.998, 0.0, 0.998, 0.0)
    """

    curve: AnySchedule = inner_curve()
    length: int = duration()

    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=400, base_lr=1, final_lr=0.1), "length": 400}

    @property
    def last_change(self) -> int | None:
        return None

    def rate_at(self, iteration: int) -> float:
        return self.curve.rate_at((iteration - 1) % self.length + 1 if iteration else 0)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        for start in range(0, total_iterations, self.length):
            end = 0
            for end in _below(min(self.length, total_iterations - start), self.curve.level_ends(self.length)):
                yield start + end
            if not end:  # without levels in the first cycle, none of a billion cycles has any
                return


@curve
class Clip(Schedule):
    """Keeps the rates of a curve between two bounds.

    lr(k) = min(max(curve(k), min_lr), max_lr)

    Source: the `end_value` of optax's `exponential_decay` and the lower bounds of Keras' schedules, here for any curve.

    Args:
        curve: The schedule to limit.
        min_lr: The lower bound of the learning rate.
        max_lr: The upper bound; None for no upper bound.

    Raises:
        FieldError: An argument is invalid, or `min_lr` is above `max_lr`.

    Example:
        >>> schedule = Clip(Linear(max_update=1000, base_lr=1), min_lr=0.1, max_lr=0.8)
        >>> schedule(1), schedule(500), schedule(1_000_000)
        (0.8, 0.5, 0.1)
    """

    curve: AnySchedule = inner_curve()
    min_lr: float = setting(RATE, default=0.0)
    max_lr: float | None = setting(Or(None, RATE), default=None)

    relations = ("min_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=1000, base_lr=1), "min_lr": 0.1, "max_lr": 0.8}

    def rate_at(self, iteration: int) -> float:
        bounded = max(self.curve.rate_at(iteration), self.min_lr)
        return bounded if self.max_lr is None else min(bounded, self.max_lr)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return self.curve.level_ends(total_iterations)


@curve
class Scale(Schedule):
    """Multiplies the rates of a curve by a constant.

    lr(k) = factor · curve(k)

    Source: the linear scaling rule of Goyal et al., "Accurate, Large Minibatch SGD", 2017: multiply a rate that is good for
    batches of 64 by 4 for batches of 256.

    Args:
        curve: The schedule to scale.
        factor: The constant, at least 0.

    Raises:
        FieldError: An argument is invalid.
        ScheduleError: The rate is beyond the range of float32 (raised when the schedule is called).

    Example:
        >>> schedule = Scale(Linear(max_update=1000, base_lr=1), factor=4)
        >>> schedule(1), schedule(500), schedule(1_000_000)
        (3.996, 2.0, 0.0)
    """

    curve: AnySchedule = inner_curve()
    factor: float = setting(RATE)

    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=1000, base_lr=1), "factor": 0.5}

    @property
    def max_rate(self) -> float:
        return self.factor * self.curve.max_rate

    def rate_at(self, iteration: int) -> float:
        return _within_float32(self.factor * self.curve.rate_at(iteration), self, iteration)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return self.curve.level_ends(total_iterations)


@curve
class Noise(Schedule):
    """Adds random noise to a curve in proportion to its rates; the same seed gives the same noise.

    lr(k) = curve(k) · (1 + z(seed, k))

    z is drawn from a normal distribution with mean 0 that is cut off at ±noise_pct. It depends only on the seed and the
    iteration.

    Source: timm's `noise_range_t`, `noise_pct`, `noise_std` and `noise_seed`. timm draws again until the noise is within its
    bounds; here one draw has the same distribution. The draws themselves differ.

    Args:
        curve: The schedule without noise.
        seed: The seed of the noise, a whole number from 0.
        noise_pct: The largest noise as a fraction of the rate, above 0 and at most 1, so no rate is negative.
        noise_std: The standard deviation of the noise before the cut-off, as a fraction of the rate.
        start: The first iteration with noise.
        end: The last iteration with noise; None for no end.

    Raises:
        FieldError: An argument is invalid, or `start` is above `end`.
        ScheduleError: The rate is beyond the range of float32 (raised when the schedule is called).

    Example:
        >>> schedule = Noise(Constant(1), seed=1, noise_pct=0.1)
        >>> round(schedule(1), 6), round(schedule(2), 6), round(schedule(1_000_000), 6)
        (1.057898, 0.945511, 0.939466)
    """

    curve: AnySchedule = inner_curve()
    seed: int = setting(Whole(0))
    noise_pct: float = setting(Number(above=0, high=1), default=0.67)
    # If it is far above noise_pct, all noise is equally likely. Beyond the maximum, rounding would remove the noise.
    noise_std: float = setting(Number(above=0, high=1e6), default=1.0)
    start: int = duration(Whole(0), default=1)
    end: int | None = duration(Or(None, Whole(0)), default=None)

    relations = ("start <= end",)
    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=1000, base_lr=1), "seed": 1, "noise_pct": 0.2, "start": 300}

    @property
    def max_rate(self) -> float:
        return self.curve.max_rate * (1 + self.noise_pct)

    @property
    def last_change(self) -> int | None:
        end = self.curve.last_change
        return None if end is None or self.end is None else max(end, self.end + 1)

    def rate_at(self, iteration: int) -> float:
        learning_rate = self.curve.rate_at(iteration)
        if iteration < self.start or (self.end is not None and iteration > self.end):
            return learning_rate
        return _within_float32(learning_rate * (1 + self._noise(iteration)), self, iteration)

    @cached_property
    def _below_cut(self) -> float:
        return NormalDist().cdf(-self.noise_pct / self.noise_std)

    def _noise(self, iteration: int) -> float:
        digest = hashlib.blake2b(f"{self.seed} {iteration}".encode(), digest_size=8).digest()
        uniform = (int.from_bytes(digest, "big") + 0.5) / 2**64
        quantile = self._below_cut + uniform * (1 - 2 * self._below_cut)
        if not 0 < quantile < 1:  # rounding has moved it to the end of the distribution
            return self.noise_pct if uniform > 0.5 else -self.noise_pct
        noise = NormalDist().inv_cdf(quantile) * self.noise_std
        return min(max(noise, -self.noise_pct), self.noise_pct)


_MAX_END = 10_000_000
"""The last iteration at which `Product` looks for a drop."""


def _below(limit: int, ends: Iterable[int]) -> Iterator[int]:
    return takewhile(lambda end: end < limit, ends)


def _within_float32(learning_rate: float, schedule: Schedule, iteration: int) -> float:
    if not learning_rate <= MAX_FLOAT32:  # also true of nan, the product of infinity and 0
        raise ScheduleError(f"{schedule!r} is {learning_rate!r} at iteration {iteration}, beyond the range of float32 in MXNet")
    return learning_rate
