"""Schedules made of schedules: Warmup, Cooldown, Sequential, Product, Sum, Repeat, Shift, Hold, Clip, Scale and Noise.

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
from typing import Any, ClassVar, Literal, get_args

from mnist_trainer.fields import MAX_COUNT, RATE, Choice, Listed, Number, Or, Switch, Whole, setting
from mnist_trainer.schedules.budgets import DecayAtEnd
from mnist_trainer.schedules.decays import Cosine, Linear
from mnist_trainer.schedules.schedule import (
    MAX_LEVELS,
    AnySchedule,
    Filling,
    Schedule,
    curve,
    duration,
    inner_curve,
    inner_curves,
)
from mnist_trainer.schedules.stepwise import Constant, MultiFactor

WarmupMode = Literal["linear", "constant", "exponential", "cosine", "1-sqrt", "log", "1-exp"]


@curve
class Warmup(Schedule):
    """Warms up to the initial rate of a curve, then follows the curve.

    lr(k) = begin + (curve(0) − begin) · k / warmup_steps for k ≤ warmup_steps
    lr(k) = curve(k − warmup_steps) after that

    begin is `warmup_begin_lr`, and the first equation is that of "linear". The curve begins after the warm-up, so its drops
    come `warmup_steps` iterations later.

    The other modes replace p = k / warmup_steps by (1 − cos(π · p)) / 2 for "cosine", by 1 − √(1 − p) for "1-sqrt", and by
    ln k / ln warmup_steps for "log". "exponential" multiplies by the same factor in every iteration, and "constant" keeps
    `warmup_begin_lr`. "1-exp" has no end: lr(k) = begin + (rate − begin) · (1 − exp(−k / warmup_steps)), where rate is the rate
    of the curve. After 5 · warmup_steps iterations lr(k) is 99 % of it if begin is 0.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017. The rates of a linear warm-up equal those of the class
    `LinearWarmUp` of MXNet's advanced tutorial to the last bit, except that rounding never makes them negative. "1-sqrt" is
    from Hugging Face's `get_wsd_schedule`, "log" from DeepSpeed's `WarmupLR`, "1-exp" with `overlay` from `ExponentialWarmup`
    of pytorch_warmup, and `warmup_end_lr` from Paddle's `LinearWarmup`. detectron2 rises to the rate that the curve has at
    `warmup_steps`: use `overlay`, and give it as `warmup_end_lr`.

    Args:
        curve: The schedule after the warm-up.
        warmup_steps: Iterations of the warm-up; 0 for none, which leaves the curve as it is.
        warmup_begin_lr: The learning rate at which the warm-up begins; above 0 for "exponential".
        warmup_end_lr: The learning rate at which the warm-up aims. It is not reached, since iteration `warmup_steps` has the
            rate of the curve then. None for the initial rate of the curve.
        warmup_mode: The form of the warm-up: "linear", "constant", "exponential", "cosine", "1-sqrt", "log" or "1-exp".
        overlay: True to begin the curve at the first iteration and replace its rates below `warmup_steps`, as `mx.lr_scheduler`
            does. From iteration `warmup_steps` on the rate is curve(k).

    Raises:
        FieldError: An argument is invalid, an exponential warm-up begins at 0, or `warmup_end_lr` is given for "1-exp" or
            "constant".

    Example:
        >>> schedule = Warmup(MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1), warmup_steps=250)
        >>> schedule(1), schedule(250), schedule(500), schedule(501), schedule(1_000_000)
        (0.004, 1.0, 1.0, 0.5, 0.125)
    """

    curve: AnySchedule = inner_curve(kw_only=False)
    warmup_steps: int = duration(Whole(0), kw_only=False)
    warmup_begin_lr: float = setting(RATE, default=0.0)
    warmup_end_lr: float | None = setting(Or(None, RATE), default=None)
    warmup_mode: WarmupMode = setting(Choice(get_args(WarmupMode)), default="linear")
    overlay: bool = setting(Switch(), default=False)

    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=1000, base_lr=1), "warmup_steps": 250}

    def check_together(self) -> None:
        if self.warmup_mode == "exponential" and self.warmup_begin_lr == 0:
            raise self.refused("warmup_begin_lr", "must be above 0, since an exponential warm-up multiplies it")
        if self.warmup_mode in ("constant", "1-exp") and self.warmup_end_lr is not None:
            raise self.refused("warmup_end_lr", f'must be left out, since warmup_mode = "{self.warmup_mode}" does not use it')

    @property
    def last_change(self) -> int | None:
        end = self.curve.last_change
        if end is None or (self.warmup_mode == "1-exp" and self.warmup_steps):
            return None
        return max(self.warmup_steps, end) if self.overlay else self.warmup_steps + end

    def rate_at(self, iteration: int) -> float:
        if self.warmup_steps == 0:
            return self.curve.rate_at(iteration)
        begins_after = 0 if self.overlay else self.warmup_steps
        if self.warmup_mode == "1-exp":
            learning_rate = self.curve.rate_at(max(iteration - begins_after, 0))
            return learning_rate + (self.warmup_begin_lr - learning_rate) * math.exp(-iteration / self.warmup_steps)
        if iteration < self.warmup_steps or (iteration == begins_after and self.warmup_end_lr is None):
            return self._rising(iteration)
        return self.curve.rate_at(iteration - begins_after)

    def _rising(self, iteration: int) -> float:
        start, length = self.warmup_begin_lr, self.warmup_steps
        finish = self.curve.initial_rate if self.warmup_end_lr is None else self.warmup_end_lr
        match self.warmup_mode:
            case "constant":
                return start
            case "exponential":
                return float(start ** (1 - iteration / length) * max(finish, 0.0) ** (iteration / length))
            case "cosine":
                return start + (finish - start) * (1 - math.cos(math.pi * iteration / length)) / 2
            case "1-sqrt":
                return start + (finish - start) * (1 - math.sqrt(1 - iteration / length))
            case "log":
                part = math.log(max(iteration, 1)) / math.log(length) if length > 1 else iteration
                return start + (finish - start) * part
            case _:  # rounding may make the end of a fall to 0 negative
                return max(iteration * (finish - start) / length + start, 0.0)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        if self.overlay:
            return _from(self.warmup_steps - 1, self.curve.level_ends(total_iterations))
        return (end + self.warmup_steps for end in self.curve.level_ends(total_iterations - self.warmup_steps))


@curve
class Cooldown(DecayAtEnd):
    """Follows a curve, then changes in a straight line to `final_lr`, or with another form of decay.

    lr(k) = curve(k) for k ≤ start
    lr(k) = final_lr + (curve(start) − final_lr) · remaining((k − start) / cooldown_steps) in the cool-down

    remaining(d) is 1 − d, or another function of `WarmupStableDecay`. After the cool-down the rate is `final_lr`.

    Source: Smith & Topin, "Super-Convergence", 2017. The rates of a straight line equal those of the class `LinearCoolDown` of
    MXNet's advanced tutorial to the last bit, except that the last iteration has exactly `final_lr`, where the class has a
    rounding error.

    Args:
        curve: The schedule before the cool-down.
        start: The last iteration of the curve; the cool-down begins after it.
        cooldown_steps: Iterations of the cool-down; 0 to change to `final_lr` at once.
        final_lr: The learning rate at the end of the cool-down and after it.
        decay: The form of the decay: "linear", "cosine", "1-sqrt", "power" or "exponential".
        decay_power: The exponent of the elapsed fraction for "power".
        decay_ratio: The strength of "exponential", between 0 and 1.

    Raises:
        FieldError: An argument is invalid or belongs to another decay.

    Example:
        >>> curve = MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)
        >>> schedule = Cooldown(curve, start=1000, cooldown_steps=500, final_lr=0.001)
        >>> schedule(1), schedule(1000), schedule(1250), schedule(1500), schedule(1_000_000)
        (1.0, 0.125, 0.063, 0.001, 0.001)
    """

    curve: AnySchedule = inner_curve(kw_only=False)
    start: int = duration(Whole(0))
    cooldown_steps: int = duration(Whole(0))
    final_lr: float = setting(RATE, default=0.0)

    example: ClassVar[dict[str, Any]] = {
        "curve": MultiFactor(step=[250, 750], factor=0.5, base_lr=1),
        "start": 1000,
        "cooldown_steps": 300,
        "final_lr": 0.01,
    }

    @property
    def last_change(self) -> int | None:
        return self.start + max(self.cooldown_steps, 1)

    def rate_at(self, iteration: int) -> float:
        gone = iteration - self.start
        if gone <= 0:
            return self.curve.rate_at(iteration)
        if gone >= self.cooldown_steps:
            return self.final_lr
        start_lr = self.curve.rate_at(self.start)
        if self.decay == "linear":
            return gone * (self.final_lr - start_lr) / self.cooldown_steps + start_lr
        return self.final_lr + (start_lr - self.final_lr) * self.remaining(gone / self.cooldown_steps)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return _below(self.start, self.curve.level_ends(min(total_iterations, self.start)))


@curve
class Sequential(Schedule):
    """Follows one curve after another.

    lr(k) = curves[i](k − b)

    i is the number of boundaries below k, and b is the last of these boundaries (0 for the first curve). Each curve counts its
    iterations from 1.

    Source: PyTorch's `SequentialLR` and optax's `join_schedules`. They count from 0, so a smooth curve begins with curve(0).
    `Sequential([Shift(curve, -1), …], boundaries)` has the rates of the same updates.

    Args:
        curves: The schedules, in order. A schedule that should go on counting the iterations of the run is
            `Shift(curve, boundary)`.
        boundaries: The last iteration of each curve but the last one, in increasing order; one fewer than `curves`.

    Raises:
        FieldError: An argument is invalid, or `boundaries` does not have one member fewer than `curves`.

    Example:
        >>> schedule = Sequential([Constant(1), Linear(max_update=500, base_lr=1), Constant(0.01)], boundaries=[500, 1000])
        >>> schedule(1), schedule(500), schedule(750), schedule(1000), schedule(1_000_000)
        (1.0, 1.0, 0.5, 0.0, 0.01)
    """

    curves: Sequence[AnySchedule] = inner_curves(kw_only=False)
    boundaries: Sequence[int] = duration(Listed(Whole(1), increases=True), kw_only=False)

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
        start = 0
        for part, stop in zip(self.curves, self.boundaries, strict=False):
            for end in _below(stop - start, part.level_ends(stop - start)):
                yield start + end
            start = stop
        yield from (start + end for end in self.curves[-1].level_ends(total_iterations - start))


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

    curve: AnySchedule = inner_curve(kw_only=False)
    length: int = duration(kw_only=False)

    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=400, base_lr=1, final_lr=0.1), "length": 400}

    @property
    def last_change(self) -> int | None:
        return None

    def rate_at(self, iteration: int) -> float:
        return self.curve.rate_at((iteration - 1) % self.length + 1 if iteration else 0)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        for start in range(0, max(total_iterations, 1), self.length):
            end = 0
            last = self.length if start == 0 else min(self.length, total_iterations - start)
            for end in _below(last, self.curve.level_ends(self.length)):
                yield start + end
            if not end:  # without levels in the first cycle, none of a billion cycles has any
                return


@curve
class _Together(Schedule):
    """Base of curves that combine the rates of several curves at the same iteration.

    Args:
        curves: The schedules.
    """

    curves: Sequence[AnySchedule] = inner_curves(kw_only=False)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        # Far beyond, a single rate of another curve may take minutes.
        limit = min(total_iterations, _MAX_END)
        return (end for end, _ in groupby(merge(*(_below(_MAX_END, curve.level_ends(limit)) for curve in self.curves))))


@curve
class Product(_Together):
    """Multiplies the rates of several curves.

    lr(k) = curves[0](k) · curves[1](k) · …

    One curve has learning rates; the others are factors. A factor has `base_lr` or `final_lr` 1 where it leaves the rate
    unchanged.

    Source: PyTorch's `ChainedScheduler`, if its schedulers multiply the rate. One that sets the rate from its own past, such as
    `CosineAnnealingLR` with an `eta_min` above 0, also depends on the others there, and is not a product.

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

    example: ClassVar[dict[str, Any]] = {
        "curves": (Cosine(max_update=1000, base_lr=1), MultiFactor(step=[300, 600], factor=0.6, base_lr=1)),
    }

    @property
    def max_rate(self) -> float:
        return _bound(math.prod(curve.max_rate for curve in self.curves))

    def rate_at(self, iteration: int) -> float:
        return math.prod(curve.rate_at(iteration) for curve in self.curves)


@curve
class Sum(_Together):
    """Adds the rates of several curves, each of which can have a weight.

    lr(k) = weights[0] · curves[0](k) + weights[1] · curves[1](k) + …

    A weight below 0 subtracts a curve, for example to turn a momentum cycle upside down.

    Source: Keras' `CosineDecayRestarts` with `m_mul` and `alpha`, fairseq's `triangular`, and the momentum of PyTorch's
    `CyclicLR` are such sums.

    Args:
        curves: One or more schedules.
        weights: The weight of each schedule; None for 1.

    Raises:
        FieldError: An argument is invalid, or `weights` and `curves` differ in length.
        ScheduleError: The sum is below 0, or beyond the range of float32 (raised when the schedule is called).

    Example:
        >>> schedule = Sum([Constant(0.95), Linear(max_update=1000, base_lr=0.1)], weights=[1, -1])
        >>> round(schedule(1), 6), round(schedule(500), 6), schedule(1_000_000)
        (0.8501, 0.9, 0.95)
    """

    weights: Sequence[float] | None = setting(Or(None, Listed(Number())), default=None)

    example: ClassVar[dict[str, Any]] = {
        "curves": (Cosine(max_update=1000, base_lr=0.8), Repeat(Linear(max_update=200, base_lr=0.2), length=200)),
    }

    def check_together(self) -> None:
        if self.weights is not None and len(self.weights) != len(self.curves):
            raise self.refused("weights", f"must have length {len(self.curves)}, one for each schedule")

    @property
    def max_rate(self) -> float:
        if self.weights is not None and min(self.weights) < 0:
            return math.inf  # the sum may be below 0, so its rates are checked before a run
        return _bound(sum(weight * curve.max_rate for weight, curve in self._weighted()))

    def rate_at(self, iteration: int) -> float:
        parts = [weight * curve.rate_at(iteration) for weight, curve in self._weighted()]
        total = sum(parts)
        return 0.0 if -_ROUNDING * max(map(abs, parts)) <= total < 0 else total

    def _weighted(self) -> Iterator[tuple[float, AnySchedule]]:
        return zip(self.weights or [1.0] * len(self.curves), self.curves, strict=True)


@curve
class Shift(Schedule):
    """Begins a curve later, or in its middle.

    lr(k) = curve(max(k + by, 0))

    With `by=-1` a smooth curve begins with curve(0), as in the frameworks that count from 0. In a part of `Sequential`, a shift
    by the boundary before it makes the curve count the iterations of the run.

    Source: optax's `transition_begin`, for any curve.

    Args:
        curve: The schedule.
        by: The number of iterations that the curve is ahead; below 0 it waits at its initial rate.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = Shift(Linear(max_update=1000, base_lr=1), by=-200)
        >>> schedule(1), schedule(200), schedule(700), schedule(1200), schedule(1_000_000)
        (1.0, 1.0, 0.5, 0.0, 0.0)
    """

    curve: AnySchedule = inner_curve(kw_only=False)
    by: int = duration(Whole(-MAX_COUNT), kw_only=False)

    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=800, base_lr=1), "by": -300}

    @property
    def last_change(self) -> int | None:
        end = self.curve.last_change
        return None if end is None else max(end - self.by, 1)

    def rate_at(self, iteration: int) -> float:
        return self.curve.rate_at(max(iteration + self.by, 0))

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return _from(1, (end - self.by for end in self.curve.level_ends(total_iterations + self.by)))


@curve
class Hold(Schedule):
    """Keeps the rate that a curve has at the beginning of each period, such as an epoch.

    lr(k) = curve(⌊(k − 1) / length⌋ · length)

    The first period has the rate curve(0). A drop of the curve after the last iteration of a period comes a period later, so
    hold `Shift(curve, 1)` if the curve drops between periods; or leave Hold out, because such a curve is constant within them.

    Source: schedulers that are stepped once per epoch, as in most scripts for PyTorch and timm: `length_epochs = 1`.

    Args:
        curve: The schedule.
        length: Iterations of each period.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = Hold(Linear(max_update=1000, base_lr=1), length=100)
        >>> schedule(1), schedule(100), schedule(101), schedule(1_000_000)
        (1.0, 1.0, 0.9, 0.0)
    """

    curve: AnySchedule = inner_curve(kw_only=False)
    length: int = duration(kw_only=False, filling=Filling(1, "epochs"))

    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=1000, base_lr=1), "length": 100}

    @property
    def last_change(self) -> int | None:
        end = self.curve.last_change
        return None if end is None else -(-end // self.length) * self.length + 1

    def rate_at(self, iteration: int) -> float:
        return self.curve.rate_at(max(iteration - 1, 0) // self.length * self.length)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        ends = islice(self.curve.level_ends(total_iterations), MAX_LEVELS)
        missed = next((end for end in ends if end >= total_iterations), 0)  # by the run
        last = max(self.last_change or 0, (missed // self.length + 1) * self.length + 1)
        return range(self.length, max(total_iterations, min(last, _MAX_END)), self.length)


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

    curve: AnySchedule = inner_curve(kw_only=False)
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

    curve: AnySchedule = inner_curve(kw_only=False)
    factor: float = setting(RATE, kw_only=False)

    example: ClassVar[dict[str, Any]] = {"curve": Cosine(max_update=1000, base_lr=1), "factor": 0.5}

    @property
    def max_rate(self) -> float:
        return _bound(self.factor * self.curve.max_rate)

    def rate_at(self, iteration: int) -> float:
        return self.factor * self.curve.rate_at(iteration)

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

    curve: AnySchedule = inner_curve(kw_only=False)
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
        return learning_rate * (1 + self._noise(iteration))

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
"""The last iteration at which `Product` and `Sum` look for a drop."""

_MAX_SKIPPED = 1_000_000
"""Maximum number of levels before the first iteration, or within a warm-up, that are passed in the search for drops."""

_ROUNDING = 1e-12
"""A fraction of the largest part of a sum, far above its rounding error."""


def _bound(rate: float) -> float:
    return math.inf if math.isnan(rate) else rate  # the product of infinity and 0


def _from(first: int, ends: Iterable[int]) -> Iterator[int]:
    return dropwhile(lambda end: end < first, islice(ends, _MAX_SKIPPED))


def _below(limit: int, ends: Iterable[int]) -> Iterator[int]:
    return takewhile(lambda end: end < limit, ends)
