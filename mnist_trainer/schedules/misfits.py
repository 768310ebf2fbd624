"""Schedules that do not fit the length of their run: trained mostly at rate 0, cut off, or with lengths in a wrong unit.

Judges any curve by its rates over the run and its durations.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from mnist_trainer.console import counted, shown
from mnist_trainer.schedules.schedule import (
    CURVE,
    CURVES,
    DURATION,
    MAX_LEVELS,
    AnySchedule,
    Schedule,
    ScheduleError,
    fields_in_role,
)
from mnist_trainer.schedules.settings import RunLength, key_in_unit
from mnist_trainer.schedules.stepwise import Factor, MultiFactor
from mnist_trainer.schedules.user import rates_at

_MAX_SAMPLES = 1000
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""Its multiples are spread evenly, and not at regular distances, which might always meet the same iteration of a cycle."""
_MAX_CALLS = 100_000
"""The longest run in which a user's callable is examined, because it must be called for every iteration."""
_MAX_END = 10_000_000
"""The last iteration beyond the run that is examined. Far beyond, a single rate of some curves takes minutes."""
_NEARLY_ZERO = 1e-6
"""A fraction of the highest rate so small that an update no longer changes a parameter of type float32."""
_TOLERATED = 0.01
"""A fraction of the run, far above the rounding of durations to iterations, that may be at rate 0 or cut off."""
_MANY_EPOCHS = 50
"""A length in epochs up to which a shortened run is the more likely cause than a wrong unit."""
_MAX_DROPS_SHOWN = 5
_PACES = ("step", "timescale", "start", "end", "by")
"""Numbers of iterations that may well be few: a drop every 2 iterations, or noise from iteration 5 on."""


class Misfit(NamedTuple):
    """One way in which a schedule does not fit its run.

    Attributes:
        sentence: The key as the user wrote it, the misfit in numbers, and the key that was probably meant.
        prevents_training: True if the learning rate is 0 in most iterations of the run.
    """

    sentence: str
    prevents_training: bool = False


def find_misfits(
    schedule: AnySchedule, settings: Mapping[str, Any], run_length: RunLength, section: str = "schedule"
) -> list[Misfit]:
    r"""Find the ways in which a schedule does not fit its run.

    The rates of about 1,000 iterations are examined. A user's callable is called in order, and not at all in a run of more
    than 100,000 iterations.

    Args:
        schedule: A new instance of the schedule, since a user's callable may have state.
        settings: The settings that it was built from, for the names of the keys.
        run_length: The length of the run.
        section: The table of the settings: "schedule", or "momentum" or "wd", whose values may be 0.

    Returns:
        The misfits; empty if the schedule fits, or if it raises an exception, which `check_rates` reports.

    Example:
        >>> from mnist_trainer.schedules import Cosine
        >>> settings = {"name": "Cosine", "max_update": 10}
        >>> [misfit] = find_misfits(Cosine(max_update=10, base_lr=0.1), settings, RunLength(100, 10))
        >>> print(misfit.sentence.replace("; ", ";\n"))
        schedule.max_update = 10: the learning rate is 0 from iteration 10 of 1,000 on;
        did you mean schedule.max_update_epochs = 10?
        >>> misfit.prevents_training
        True
    """
    run = _Run(schedule, list(_durations(schedule, settings, f"{section}.")), run_length, section)
    try:
        # With a length in the wrong unit, the other sentences would only describe its consequences.
        consequences = [*run.cut_off(), *run.restart_at_end()]
        return [*run.rates_at_zero()] or [*run.wrong_units()] or [*run.without_effect(), *consequences]
    except ScheduleError:
        return []


# --- the settings


@dataclass(frozen=True)
class _Duration:
    """A number of iterations, or a list of them, and the setting that it comes from.

    Attributes:
        name: The name of the argument.
        iterations: Its value.
        table: The path of its table, such as "schedule.curve.".
        key: The key that sets it, such as `max_update_epochs`.
        typed: The value of that key.
    """

    name: str
    iterations: Sequence[int]
    table: str
    key: str
    typed: Any

    @property
    def unit(self) -> str:
        return self.key.rpartition("_")[2] if self.key != self.name else "iterations"

    @property
    def longest(self) -> int:
        return self.iterations[-1]

    def __str__(self) -> str:
        return f"{self.table}{self.key} = {shown(self.typed)}"

    def in_unit(self, unit: str) -> str:
        """Return an assignment of the same number in another unit."""
        return f"{self.table}{key_in_unit(self.name, unit)} = {shown(self.typed)}"

    def advice_to_shorten(self, excess: int, run_length: RunLength) -> str:
        """Return the end of a message that a schedule is longer than the run by `excess` iterations; "" for a list."""
        fitting = self.longest - excess
        if isinstance(self.typed, list | tuple) or self.name in _PACES or fitting < 1:
            return ""
        whole = {"epochs": run_length.iterations_per_epoch, "fraction": run_length.total_iterations}.get(self.unit, 1)
        number = float(f"{fitting / whole:.6g}")
        if self.unit == "iterations" or round(number * whole) != fitting:
            return f"; with {self.table}{self.name} = {fitting} it ends with the run"
        return f"; with {self.table}{self.key} = {number:.6g} it ends with the run"


def _durations(schedule: AnySchedule, settings: Any, table: str) -> Iterator[_Duration]:
    """Yield the durations above 0 that a table of settings gives, and those in the tables within it."""
    if not (isinstance(schedule, Schedule) and isinstance(settings, Mapping)):
        return
    for name in fields_in_role(type(schedule), DURATION):
        value = getattr(schedule, name)
        for key in (key_in_unit(name, unit) for unit in ("iterations", "epochs", "fraction")):
            if key in settings and value:
                yield _Duration(name, value if isinstance(value, tuple) else (value,), table, key, settings[key])
    for name in fields_in_role(type(schedule), CURVE):
        yield from _durations(getattr(schedule, name), settings.get(name), f"{table}{name}.")
    for name in fields_in_role(type(schedule), CURVES):
        for number, (held, inner) in enumerate(zip(getattr(schedule, name), settings.get(name, ()), strict=False)):
            yield from _durations(held, inner, f"{table}{name}[{number}].")


# --- the run


@dataclass(frozen=True)
class _Run:
    """A run with its schedule.

    Attributes:
        schedule: The schedule.
        durations: Its durations.
        run_length: The length of the run.
        section: The table of the schedule.
    """

    schedule: AnySchedule
    durations: Sequence[_Duration]
    run_length: RunLength
    section: str

    @property
    def total(self) -> int:
        """The number of iterations."""
        return self.run_length.total_iterations

    @cached_property
    def rates(self) -> dict[int, float]:
        """The rates of all iterations, or of some that are evenly spread, with the first and the last two."""
        if not self.schedule.asked_in_order and self.total > _MAX_SAMPLES:
            iterations = {
                *(1 + int(self.total * (number * _GOLDEN_RATIO % 1)) for number in range(_MAX_SAMPLES)),
                self.total - 1,
                self.total,
            }
        else:
            iterations = set(range(1, self.total + 1) if self.total <= _MAX_CALLS else ())
        in_order = sorted(iterations)
        return dict(zip(in_order, rates_at(self.schedule, in_order), strict=True)) if in_order else {}

    @property
    def longest(self) -> _Duration | None:
        """The longest duration."""
        return max(self.durations, key=lambda duration: duration.longest, default=None)

    @property
    def label(self) -> str:
        """The setting to name in a message if no other is at fault: the longest duration."""
        return str(self.longest or self.section)

    def rates_at_zero(self) -> Iterator[Misfit]:
        """Yield a misfit if the learning rate is 0, or nearly 0, in more than a hundredth of the run."""
        if self.section != "schedule" or not self.rates:
            return
        at_zero, almost = (self._share_up_to(limit) for limit in (0.0, self._nearly_zero))
        if almost < 1 and almost * self.total <= max(1, _TOLERATED * self.total):
            return
        is_exact = almost - at_zero <= _TOLERATED
        what = "0" if is_exact else "below a millionth of its maximum"
        if almost == 1:
            where = f"in every iteration of the run ({self.total:,})"
        elif first := self._first_of_end(0.0 if is_exact else self._nearly_zero):
            where = f"from iteration {first:,} of {self.total:,} on"
        else:
            where = f"in {almost:.0%} of the {self.total:,} iterations"
        cause, hint = self._cause_of_zeros()
        yield Misfit(f"{cause}: the learning rate is {what} {where}{hint}", at_zero > 0.5)

    @property
    def _nearly_zero(self) -> float:
        return max(self.rates.values()) * _NEARLY_ZERO

    def _share_up_to(self, limit: float) -> float:
        return sum(rate <= limit for rate in self.rates.values()) / len(self.rates)

    def _cause_of_zeros(self) -> tuple[str, str]:
        """Return the setting to name in the message, and a hint if it is probably in epochs."""
        in_epochs = [
            duration
            for duration in self.durations
            if duration.unit == "iterations" and duration.longest <= self.run_length.epochs
        ]
        if in_epochs and self.run_length.iterations_per_epoch > 1:
            return str(in_epochs[-1]), f"; did you mean {in_epochs[-1].in_unit('epochs')}?"
        return self.label, ""

    def _first_of_end(self, limit: float) -> int | None:
        """Return the iteration from which on no rate exceeds a limit, if all rates before it do."""
        iterations = list(self.rates)
        first = next(iteration for iteration in iterations if self.rates[iteration] <= limit)
        if any(self.rates[iteration] > limit for iteration in iterations[iterations.index(first) :]):
            return None
        between = range(max((iteration for iteration in iterations if iteration < first), default=0) + 1, first)
        return between.start + bisect_left(between, True, key=lambda iteration: self.schedule(iteration) <= limit)

    def wrong_units(self) -> Iterator[Misfit]:
        """Yield a misfit for each number of iterations that is probably one of epochs, far shorter than an epoch."""
        longest = min(self.run_length.epochs, self.run_length.iterations_per_epoch / 10)
        for duration in self.durations:
            may_be_few = duration.name in _PACES and len(duration.iterations) == 1
            if duration.unit == "iterations" and duration.longest <= longest and not may_be_few:
                length = f"{self.run_length.iterations_per_epoch:,} iterations are an epoch of this run"
                yield Misfit(f"{duration}: {length}; did you mean {duration.in_unit('epochs')}?")

    def without_effect(self) -> Iterator[Misfit]:
        """Yield a misfit for each curve that never drops, because its factor is 1."""
        for curve in _curves_in(self.schedule):
            if isinstance(curve, Factor | MultiFactor) and curve.factor == 1:
                name = type(curve).__name__
                yield Misfit(f"{self.section}: the factor of {name} is 1, so it never drops; set factor, for example 0.1")

    def cut_off(self) -> Iterator[Misfit]:
        """Yield a misfit if the run ends before the schedule does."""
        quantity = {"schedule": "learning rate", "wd": "weight decay"}.get(self.section, self.section)
        if self.schedule.asked_in_order:
            return
        ends = (end for end in islice(self.schedule.level_ends(self.total), MAX_LEVELS) if end >= self.total)
        drops = (end for end in ends if self.schedule.rate_at(end + 1) < self.schedule.rate_at(end))
        if missed := list(islice(drops, _MAX_DROPS_SHOWN + 1)):
            consequence = f"the {quantity} does not drop after {_listed(missed)}"
            yield Misfit(
                f"{self.label}: the run has {counted(self.total, 'iteration')}, so {consequence}{self._hint_on_unit()}"
            )
            return
        planned = self.schedule.last_change or self._first_cycle()
        excess, end = planned - self.total, min(planned, _MAX_END)
        if excess <= max(2, _TOLERATED * self.total) or end <= self.total:
            return
        last, *later = (self.schedule(self.total + (end - self.total) * number // 8) for number in range(9))
        if all(rate == last for rate in later):
            return
        instead = f" instead of {later[-1]:.3g}" if end == planned else ""
        advice = self._hint_on_unit() or (self.longest.advice_to_shorten(excess, self.run_length) if self.longest else "")
        yield Misfit(
            f"{self.label}: the run has {self.total:,} of the schedule's {planned:,} iterations, "
            f"so it ends at the {quantity} {last:.3g}{instead}{advice}"
        )

    def _first_cycle(self) -> int:
        """Return the longest duration of a schedule without an end."""
        if len(set(self.rates.values())) == 1:  # not even the first drop is within the run
            return self.longest.longest + 1 if self.longest else 0
        return max((duration.longest for duration in self.durations if duration.name not in _PACES), default=0)

    def _hint_on_unit(self) -> str:
        """Return a hint if the longest duration is in epochs, and probably meant in iterations."""
        longest = self.longest
        if longest is None or longest.unit != "epochs":
            return ""
        typed = max(longest.typed) if isinstance(longest.typed, list) else longest.typed
        is_likely = max(self.run_length.epochs, self.run_length.iterations_per_epoch / 2, _MANY_EPOCHS) < typed <= self.total
        return f"; did you mean {longest.in_unit('iterations')}?" if is_likely else ""

    def restart_at_end(self) -> Iterator[Misfit]:
        """Yield a misfit if a new cycle begins with the last iteration."""
        if self.section != "schedule" or len(self.rates) < 10:
            return
        before, last = list(self.rates.values())[-2:]
        if before <= max(self.rates.values()) / 10 and last >= max(self.rates.values()) / 2:
            yield Misfit(
                f"{self.label}: a new cycle begins with the last iteration, which has the learning rate {last:.3g} after "
                f"{before:.3g}; limit the number of cycles, or make them a little longer"
            )


def _curves_in(schedule: AnySchedule) -> Iterator[AnySchedule]:
    """Yield a schedule and those within it."""
    yield schedule
    for _, held in schedule.inner():
        yield from _curves_in(held)


def _listed(iterations: Sequence[int]) -> str:
    """Return a list of iterations as text, of which only the first are shown."""
    shown_ones = [f"{iteration:,}" for iteration in iterations[:_MAX_DROPS_SHOWN]]
    if len(iterations) == 1:
        return f"iteration {shown_ones[0]}"
    if len(iterations) > _MAX_DROPS_SHOWN:
        return f"iterations {', '.join(shown_ones)} and more"
    return f"iterations {', '.join(shown_ones[:-1])} and {shown_ones[-1]}"
