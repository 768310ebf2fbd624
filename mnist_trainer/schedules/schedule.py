"""The base classes of curves: immutable values that map an iteration (1, 2, 3, …) to a learning rate.

They define the contract, the `repr`, and the traversal of curves within curves. The formulas are in the other modules of this
package; `settings` makes curves from a configuration.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, replace
from itertools import islice
from typing import Any, ClassVar, Self, SupportsIndex, TypeVar, dataclass_transform

from mnist_trainer.console import shown
from mnist_trainer.errors import RunError
from mnist_trainer.fields import (
    MAX_COUNT,
    MAX_FLOAT32,
    RATE,
    Choice,
    FieldError,
    FieldTypeError,
    FieldValueError,
    Kind,
    Listed,
    Or,
    Whole,
    check_fields,
    setting,
)
from mnist_trainer.schedules.picture import MAX_POINTS, code_of, picture_of
from mnist_trainer.toml import to_toml

SECTIONS = ("schedule", "momentum", "wd")
"""The tables of a configuration that hold a schedule."""

DURATION, CURVE, CURVES, STATE = "duration", "curve", "curves", "state"
"""Roles of fields that are not plain values: the functions below declare such fields."""

_ITERATION = Whole(0)

MAX_LEVELS = 10_000
"""Maximum number of levels that are searched for drops, to bound the time before a run begins."""

TUTORIALS_ITERATIONS = 1500
"""The number of iterations in the figures of MXNet's tutorial, and in those of a curve without an end."""

MXNET_DEFAULT_RATES = (0.001, 0.002, 0.01)
"""Default learning rates of MXNet's optimizers: Adam, LAMB, Nadam and RMSProp; Adamax; Signum, and those without a default."""

_FLOAT32_ROUNDING = 1e-6
"""A relative difference above the rounding of a rate to float32, which numpy and MXNet may have done."""

HELD_OUT_IMAGES = 5000
"""The number of validation images that `to_toml` adds for a schedule that reacts to results."""

_T = TypeVar("_T")


class ScheduleError(RunError):
    """A schedule that raised an exception or returned a value that is not a learning rate."""


# --- fields


@dataclass(frozen=True)
class InnerCurve(Kind):
    """A curve within another curve."""

    def check(self, name: str, value: Any) -> "AnySchedule":
        if not isinstance(value, AnySchedule):
            raise self.refusal(name, value, FieldTypeError)
        return value

    def __str__(self) -> str:
        return "a schedule, such as Constant(0.1) or, for a function, UserSchedule(function, name)"


@dataclass(frozen=True)
class Filling:
    """Value of a setting when the user names only the schedule, as in `train --schedule cosine`.

    Attributes:
        value: The value.
        unit: "epochs" or "fraction" for a duration, "learning_rate" for a multiple of the run's learning rate, otherwise "".
        beside: The name of another setting; this one is filled only if that one is filled as well. "" for none.
    """

    value: Any
    unit: str = ""
    beside: str = ""


WHOLE_RUN = Filling(1.0, "fraction")

ITS_RATE = Filling(1.0, "learning_rate")


def duration(
    kind: Kind = Whole(1),  # noqa: B008 - a kind is a value
    *,
    default: Any = MISSING,
    kw_only: bool = True,
    filling: Filling | None = None,
) -> Any:
    """Declare a field that is a number of iterations or a list of such numbers.

    A configuration may also give it in epochs or as a fraction of the run.

    Args:
        kind: The kind of its values.
        default: Its default; without a default the field is required.
        kw_only: False if the argument may be given without its name.
        filling: Its value if the user gives only the name of the schedule; None if only the user can know it.
    """
    return setting(kind, default=default, kw_only=kw_only, role=DURATION, filling=filling)


def inner_curve(*, kw_only: bool = True, filling: Filling | None = None) -> Any:
    """Declare a field that holds a curve.

    Args:
        kw_only: False if the argument may be given without its name.
        filling: The settings of the curve if the user gives only the name of the schedule around it.
    """
    return setting(InnerCurve(), kw_only=kw_only, role=CURVE, filling=filling)


def inner_curves(*, kw_only: bool = True) -> Any:
    """Declare a field that holds a tuple of curves.

    Args:
        kw_only: False if the argument may be given without its name.
    """
    return setting(Listed(InnerCurve()), kw_only=kw_only, role=CURVES)


def learned(kind: Kind, *, default: Any) -> Any:
    """Declare a field that is not a setting, but state that a curve derives from results.

    Args:
        kind: The kind of its values.
        default: The state before any result.
    """
    return setting(kind, default=default, kw_only=True, role=STATE)


def fields_in_role(cls: type["Schedule"], role: str) -> tuple[str, ...]:
    """Return the names of the fields of a curve that have this role."""
    return tuple(spec.name for spec in fields(cls) if spec.metadata.get("role") == role)


# --- curves


def _keep_value(self: "AnySchedule", name: str, value: Any) -> None:
    """Refuse to change a field, but ignore learning rates that optimizers assign to `base_lr` and that change nothing.

    Raises:
        AttributeError: The assignment would change the curve.
    """
    # An MXNet optimizer assigns its own learning rate to `lr_scheduler.base_lr` if the two differ. Adam and others assign
    # their default even if the user set no rate. A curve ignores the assignment of such a default, and that of a rate that it
    # is built from. Any other assignment is a contradiction in the user's code, and an error.
    known = (*MXNET_DEFAULT_RATES, *_own_rates(self)) if name == "base_lr" else ()
    with suppress(TypeError, ValueError):
        if any(math.isclose(value, rate, rel_tol=_FLOAT32_ROUNDING) for rate in known):
            return
    own = {spec.name for spec in fields(self)} if isinstance(self, Schedule) else set()
    remedies = [f"create the schedule with {name}={value!r}"] if name in own else []
    if name == "base_lr":
        remedies.append("create the optimizer with learning_rate=None to use the rates of the schedule")
    raise AttributeError(f"{self!r} cannot be changed to {name}={value!r}; {', or '.join(remedies)}".removesuffix("; "))


def _own_rates(schedule: "AnySchedule") -> list[float]:
    """Return the rates that a schedule and those within it are built from."""
    held = [rate for _, held in schedule.inner() for rate in _own_rates(held)]
    return [schedule.base_lr, *(schedule.rate_fields() if isinstance(schedule, Schedule) else ()), *held]


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(setting, duration, inner_curve, inner_curves, learned)
)
def curve(cls: type[_T]) -> type[_T]:
    """Turn the class of a curve into a frozen dataclass that an optimizer cannot change.

    Its arguments are keyword-only, except those that a field declares otherwise.
    """
    made = dataclass(frozen=True, repr=False, kw_only=True)(cls)
    type.__setattr__(made, "__setattr__", _keep_value)  # dataclass() does not accept it in the class body
    # The fields of base classes come first. The schedules within a curve go before them, as in its call.
    declared: dict[str, Field[Any]] = made.__dataclass_fields__  # type: ignore[attr-defined]
    within = {name: spec for name, spec in declared.items() if spec.metadata.get("role") in (CURVE, CURVES)}
    type.__setattr__(made, "__dataclass_fields__", within | declared)
    return made


class AnySchedule:
    """A schedule: a curve of this package, or a user's callable.

    It returns learning rates, and can be part of a composition or the `lr_scheduler` of an optimizer.
    """

    is_momentum: ClassVar[bool] = False
    """True for a curve of momenta."""

    @property
    def quantity(self) -> str:
        """The quantity of its values, as the label of a figure's axis: that of the first curve within."""
        own = "Momentum" if self.is_momentum else "Learning Rate"
        return next((held.quantity for _, held in self.inner()), own)

    def rate_at(self, iteration: int) -> float:
        """Return the learning rate of `iteration`, without checking that this is an int ≥ 0 and the rate a learning rate."""
        raise NotImplementedError

    def __call__(self, iteration: SupportsIndex) -> float:
        """Return the learning rate of `iteration`.

        Args:
            iteration: The iteration, counted from 1; 0 for the time before any update.

        Raises:
            TypeError: `iteration` is not a whole number.
            ValueError: `iteration` is below 0.
            ScheduleError: The rate is negative, or beyond the range of float32.
        """
        return self._checked_rate(_ITERATION.check("iteration", iteration))

    def _checked_rate(self, iteration: int) -> float:
        learning_rate = self.rate_at(iteration)
        if 0 <= learning_rate <= MAX_FLOAT32:
            return learning_rate
        if learning_rate < 0:
            if iteration == 0:  # MXNet reads this rate, but no update uses it
                return 0.0
            limit = "below 0; Clip limits a schedule to rates from 0"
        else:  # also nan, the product of infinity and 0
            limit = "beyond the range of float32 in MXNet"
        raise ScheduleError(f"{self!r} is {learning_rate:.6g} at iteration {iteration}, {limit}")

    @property
    def max_rate(self) -> float:
        """A bound that no rate exceeds by more than a rounding error; infinity if none is known.

        The rates of a schedule without a bound are checked before a run.
        """
        return math.inf

    @property
    def initial_rate(self) -> float:
        """The rate before any update. A warm-up rises to it."""
        return self.rate_at(0)

    @property
    def base_lr(self) -> float:
        """The learning rate that MXNet's optimizers read: that of the first curve within, or the rate before any update."""
        return next((held.base_lr for _, held in self.inner()), self.initial_rate)

    @base_lr.setter
    def base_lr(self, learning_rate: float) -> None:
        _keep_value(self, "base_lr", learning_rate)

    def rates(self, first: SupportsIndex, last: SupportsIndex) -> list[float]:
        """Return the learning rates of iterations `first` to `last`, including both.

        Args:
            first: The first iteration, from 0.
            last: The last iteration; `first` − 1 for an empty list.

        Raises:
            TypeError: An iteration is not a whole number.
            ValueError: `first` is below 0, or `last` is below `first` − 1.
            ScheduleError: A rate is negative, or beyond the range of float32.
        """
        begin = _ITERATION.check("first", first)
        return list(map(self._checked_rate, range(begin, Whole(begin - 1).check("last", last) + 1)))

    def drops(self, total_iterations: int) -> Iterator[int]:
        """Yield the iterations after which the rate drops, in increasing order, for curves with constant levels.

        They are found one at a time, because a curve without an end may have hundreds of millions. Smooth curves have none.
        The end of a warm-up, of a part of `Sequential` and of a cycle is not a drop. A schedule with a user's callable has
        none, because the callable must not be called out of order.

        Args:
            total_iterations: The last iteration to examine in a curve without an end. A curve with a list of drops yields all
                of them. No drop is found after the first 10,000 levels, for example of a curve whose bounds hide its drops.
        """
        if not self.asked_in_order:
            for end in islice(self.level_ends(total_iterations), MAX_LEVELS):
                if self.rate_at(end + 1) < self.rate_at(end):
                    yield end

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        """Return the iterations after which the rate may drop, in increasing order and as lazily as `drops`.

        A curve with constant levels implements this method. Its rates may also stay the same or rise after these iterations.
        """
        return ()

    def missed_drop(self, total_iterations: int) -> int | None:
        """Return the iteration of the first drop if a run of `total_iterations` ends before it; otherwise None."""
        first = next(self.drops(total_iterations), 0)
        return first if first >= total_iterations else None

    @property
    def last_change(self) -> int | None:
        """The iteration from which the rate stays the same, for example `max_update`; None without such an end."""
        return None

    @property
    def plotted_iterations(self) -> int | None:
        """The number of iterations to plot: to the last change, and a tenth more for a last level; None without an end."""
        end = self.last_change
        if end is None or end == 1:
            return None
        ends_in_level = end - 1 in islice(self.level_ends(end), MAX_LEVELS)
        return min(end + end // 10 if ends_in_level else end, MAX_COUNT)

    def _repr_html_(self) -> str:
        """Return a picture of the curve for notebooks; only its text if a user's callable would have to be called for it."""
        try:
            if not self.asked_in_order:
                last = self.plotted_iterations or TUTORIALS_ITERATIONS
                numbers = sorted({1} | {math.ceil(place * last / MAX_POINTS) for place in range(1, MAX_POINTS + 1)})
                return picture_of(repr(self), self.quantity, numbers, list(map(self, numbers)))
        except RunError:  # a rate is beyond the range of float32
            pass
        return code_of(repr(self))

    # --- settings

    def settings(self) -> dict[str, Any]:
        """Return the table of this schedule in a configuration, with its `base_lr`, but without defaults and state.

        Raises:
            TypeError: The schedule is or contains a user's function. Only a configuration has its settings.
        """
        raise TypeError(f"{self!r} is not a curve of this package, so it has no settings")

    def to_toml(self, section: str = "") -> str:
        """Return a configuration with this schedule; `from_toml` reads it.

        For a schedule that reacts to results, it also sets the number of validation images.

        Args:
            section: The table of the schedule: "schedule", "momentum" or "wd"; by default "momentum" for curves of momenta, and
                "schedule" for all others.

        Raises:
            TypeError: The schedule is or contains a user's function.
            ValueError: There is no such table, or the schedule reacts to results and the table is not "schedule".

        Example:
            >>> from mnist_trainer.schedules import Cosine
            >>> print(Cosine(max_update=9380, base_lr=0.1).to_toml())
            [training]
            learning_rate = 0.1
            <BLANKLINE>
            [schedule]
            name = "Cosine"
            max_update = 9380
            <BLANKLINE>
        """
        settings = self.settings()
        section = section or ("momentum" if self.quantity == "Momentum" else "schedule")
        if Choice(SECTIONS, ignores_case=False).check("section", section) != "schedule":
            if self.reacts:
                raise FieldValueError("section", "must be schedule for a schedule that reacts to results", shown(section))
            return to_toml({section: settings})
        held_out = {"validation_images": HELD_OUT_IMAGES} if self.reacts else {}
        training = {"learning_rate": settings.pop("base_lr")} if "base_lr" in settings else {}
        return to_toml({"data": held_out, "training": training, "schedule": settings})

    # --- schedules that contain others or react to results

    @property
    def asked_in_order(self) -> bool:
        """True if it is or contains a user's callable.

        A callable may have state, so it must be called for iterations 1, 2, 3, … in order.
        """
        return any(held.asked_in_order for _, held in self.inner())

    def inner(self) -> Iterator[tuple[str, "AnySchedule"]]:
        """Yield the name in messages (`curve`, or `curves[0]`, `curves[1]`, …) and value of each schedule within this one."""
        yield from ()

    @property
    def reacts(self) -> bool:
        """True if this schedule, or one within it, changes with the results of the training."""
        return any(held.reacts for _, held in self.inner())

    def observe(self, loss: float, accuracy: float) -> Self:
        """Return the schedule that applies after a validation.

        Args:
            loss: The loss of the validation.
            accuracy: The accuracy of the validation, from 0 to 1.

        Returns:
            The schedule for the following iterations; the same one if it does not react.
        """
        return self

    def state(self) -> dict[str, Any]:
        """Return the state derived from results as plain numbers by name, for a checkpoint; {} if it does not react."""
        return {}

    def with_state(self, known: Mapping[str, Any]) -> Self:
        """Return the schedule with a restored state.

        Args:
            known: The result of `state` of an equal schedule.

        Raises:
            ValueError: The state belongs to another schedule, or a value in it is out of range.
            TypeError: A value in the state has the wrong type.
        """
        if known:
            raise ValueError(f"the state belongs to another schedule: this one has no state, not {', '.join(known)}")
        return self


@curve
class Schedule(AnySchedule):
    """Base of all curves.

    Call a curve with an iteration, counted from 1, and it returns the learning rate of that iteration: a finite float ≥ 0 that
    does not depend on earlier calls. Iteration 0 is the time before any update. Any MXNet optimizer takes a curve as
    `lr_scheduler=`.

    In the formulas k is the iteration and lr(k) its learning rate. MXNet counts updates from 1, and other frameworks count from
    0. A smooth curve that is named after one of another framework has at iteration k the rate that the other has after k steps.
    A drop comes after the same number of updates as in the other.

    To add a curve, write a class with the decorator `@curve` that declares its fields and implements `rate_at`, and list it in
    `catalogue`. If its rates can exceed those of its fields and of the curves within, override `max_rate` too; if it has an end
    other than a `max_update`, override `last_change`.

    Raises:
        FieldError: An argument has the wrong type or is out of range. The error is also a TypeError or a ValueError.
    """

    relations: ClassVar[tuple[str, ...]] = ()
    """Relations between two fields, such as "min_lr <= max_lr"; those of base classes apply too."""

    example: ClassVar[dict[str, Any]]
    """Arguments of an example, as in `Cosine(**Cosine.example)`; `schedules show NAME` uses them."""

    @property
    def max_rate(self) -> float:
        """A bound that no rate exceeds by more than a rounding error: the highest rate of any field or curve within."""
        return max([*(held.max_rate for _, held in self.inner()), *self.rate_fields()], default=math.inf)

    def rate_fields(self) -> list[float]:
        """Return the learning rates in the fields of this curve, without those of the curves within it."""
        rates: list[float] = []
        for spec in fields(self):
            value, kind = getattr(self, spec.name), spec.metadata.get("kind")
            if kind in (RATE, Or(None, RATE)) and value is not None:
                rates.append(value)
            elif kind == Listed(RATE):
                rates += value
        return rates

    @property
    def last_change(self) -> int | None:
        """The `max_update`, or the last change of any curve within; None if there is none, or if a curve within has none."""
        own: int | None = getattr(self, "max_update", None)
        ends = [held.last_change for _, held in self.inner()] or [own]
        known = [end for end in ends if end is not None]
        return max(known) if len(known) == len(ends) else None

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_together()

    def check_together(self) -> None:
        """Check conditions that neither the kinds of the fields nor `relations` express.

        Raises:
            FieldError: The values of two fields contradict each other.
        """

    def refused(self, name: str, sentence: str) -> FieldError:
        """Return the error about a field whose value contradicts another field.

        Args:
            name: The name of the field.
            sentence: The mistake and its remedy.
        """
        value = getattr(self, name)
        return FieldValueError(name, sentence, shown(list(value) if isinstance(value, tuple) else value))

    def __repr__(self) -> str:
        """Return an expression that evaluates to an equal curve. It omits defaults, except that of `base_lr`."""
        parts = [
            f"{spec.name}={getattr(self, spec.name)!r}"
            for spec in fields(self)
            if spec.default is MISSING or spec.name == "base_lr" or getattr(self, spec.name) != spec.default
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    def settings(self) -> dict[str, Any]:
        table: dict[str, Any] = {"name": type(self).__name__}
        for spec in fields(self):
            value, role = getattr(self, spec.name), spec.metadata.get("role")
            if role == CURVE:
                table[spec.name] = value.settings()
            elif role == CURVES:
                table[spec.name] = [held.settings() for held in value]
            elif role != STATE and (spec.name == "base_lr" or value != spec.default):
                table[spec.name] = list(value) if isinstance(value, tuple) else value
        return table

    def inner(self) -> Iterator[tuple[str, AnySchedule]]:
        for spec in fields(self):
            held = getattr(self, spec.name)
            if spec.metadata.get("role") == CURVE:
                yield spec.name, held
            elif spec.metadata.get("role") == CURVES:
                yield from ((f"{spec.name}[{number}]", curve) for number, curve in enumerate(held))

    def observe(self, loss: float, accuracy: float) -> Self:
        return self._with_inner(lambda _, held: held.observe(loss, accuracy)) if self.reacts else self

    def state(self) -> dict[str, Any]:
        known = {name: getattr(self, name) for name in fields_in_role(type(self), STATE)}
        for name, held in self.inner():
            known |= {f"{name}.{key}": value for key, value in held.state().items()}
        return known

    def with_state(self, known: Mapping[str, Any]) -> Self:
        if set(known) != set(self.state()):
            raise ValueError(f"the state belongs to another schedule: this one has {list(self.state())}, not {list(known)}")
        if not known:
            return self

        def restore(name: str, held: AnySchedule) -> AnySchedule:
            start = f"{name}."
            return held.with_state({key.removeprefix(start): value for key, value in known.items() if key.startswith(start)})

        return replace(self._with_inner(restore), **{name: known[name] for name in fields_in_role(type(self), STATE)})

    def _with_inner(self, change: Callable[[str, AnySchedule], AnySchedule]) -> Self:
        changed: dict[str, Any] = {name: change(name, getattr(self, name)) for name in fields_in_role(type(self), CURVE)}
        for name in fields_in_role(type(self), CURVES):
            changed[name] = tuple(change(f"{name}[{number}]", curve) for number, curve in enumerate(getattr(self, name)))
        return replace(self, **changed) if changed else self


@curve
class FromBaseLr(Schedule):
    """Base of curves that start from a `base_lr`.

    Args:
        base_lr: The learning rate before any update.
    """

    base_lr: float = setting(RATE, default=0.01)
