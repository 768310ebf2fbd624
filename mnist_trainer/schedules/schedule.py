"""What every curve is: a frozen value that maps an iteration (1, 2, 3, …) to a learning rate.

Knows the contract, how a curve prints, and how one that holds other curves is walked. The formulas stand in the
modules beside this one; turning a configuration into a curve is left to `settings`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields, replace
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

from mnist_trainer.console import shown
from mnist_trainer.fields import RATE, FieldError, FieldTypeError, FieldValueError, Kind, Listed, Whole, check_fields, setting

DURATION, CURVE, CURVES, STATE = "duration", "curve", "curves", "state"
"""Roles of the fields that are more than a value: see the functions that declare such fields."""

_ITERATION = Whole(0)

MXNET_DEFAULT_RATES = (0.001, 0.002, 0.01)
"""Rates that MXNet's optimizers take unasked: Adam, LAMB, Nadam, RMSProp; Adamax; Signum and all without one."""

_T = TypeVar("_T")


# --- fields


@dataclass(frozen=True)
class InnerCurve(Kind):
    """A curve that another may hold."""

    def check(self, name: str, value: Any) -> "AnySchedule":
        if not isinstance(value, AnySchedule):
            raise self.refusal(name, value, FieldTypeError)
        return value

    def __str__(self) -> str:
        return "a schedule of this package; UserSchedule makes one of a function"


def duration(kind: Kind = Whole(1), *, default: Any = MISSING) -> Any:  # noqa: B008 - a kind is a value
    """Declare a field that counts iterations, or lists such counts; a configuration may also give it in epochs."""
    return setting(kind, default=default, role=DURATION)


def inner_curve() -> Any:
    """Declare a field that holds a curve."""
    return setting(InnerCurve(), role=CURVE)


def inner_curves() -> Any:
    """Declare a field that holds a tuple of curves."""
    return setting(Listed(InnerCurve()), role=CURVES)


def learned(kind: Kind, *, default: Any) -> Any:
    """Declare a field that is not a setting, but knowledge that a curve has from results."""
    return setting(kind, default=default, role=STATE)


def fields_in_role(cls: type["Schedule"], role: str) -> tuple[str, ...]:
    """Return the names of the fields of a curve that have this role."""
    return tuple(spec.name for spec in fields(cls) if spec.metadata.get("role") == role)


# --- curves


def _keep_value(self: "Schedule", name: str, value: Any) -> None:
    # An MXNet optimizer assigns its own learning rate to `lr_scheduler.base_lr` where the two differ; Adam and others
    # do so with their default, when nobody asked for a rate at all. A curve stays what it is: such a default is
    # passed over, and any other assignment is a contradiction that somebody wrote, and refused.
    if name == "base_lr" and value in MXNET_DEFAULT_RATES:
        return
    raise AttributeError(
        f"{self!r} is a value and its {name} cannot become {value!r}: "
        f"make the schedule with {name}={value!r}, and the optimizer with learning_rate=None"
    )


@dataclass_transform(frozen_default=True, field_specifiers=(setting, duration, inner_curve, inner_curves, learned))
def curve(cls: type[_T]) -> type[_T]:
    """Class decorator of every curve: a frozen dataclass that no optimizer can change behind its owner's back."""
    made = dataclass(frozen=True, repr=False)(cls)
    type.__setattr__(made, "__setattr__", _keep_value)  # dataclass() refuses to take it from the class body
    return made


class AnySchedule:
    """What can be asked for rates, held by a composition, and given to an optimizer: a curve, or a user's own callable."""

    keeps_contract: ClassVar[bool] = True
    """Whether its rates are finite and ≥ 0 by construction, if those of what it holds are; others are asked before a run."""

    def rate_at(self, iteration: int) -> float:
        """The learning rate of `iteration`, an int ≥ 0 that is not checked."""
        raise NotImplementedError

    def __call__(self, iteration: int) -> float:
        """The learning rate of `iteration`.

        Raises TypeError for what is not a whole number and ValueError for one below 0.
        """
        return self.rate_at(_ITERATION.check("iteration", iteration))

    @property
    def initial_rate(self) -> float:
        """The rate before any update, which a warm-up rises to."""
        return self.rate_at(0)

    def rates(self, first: int, last: int) -> list[float]:
        """The learning rates of iterations `first` … `last`."""
        return list(map(self.rate_at, range(first, last + 1)))

    def drops(self, total_iterations: int) -> list[int]:
        """The iterations after which the rate drops, for curves that stay on levels; [] for smooth ones.

        total_iterations: how far a curve without an end is looked at; one that names its drops names them all.
        """
        return []

    def __getattr__(self, name: str) -> Any:
        # MXNet's optimizers look at the `base_lr` of any scheduler.
        if name == "base_lr":
            return self.initial_rate
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # --- for those that hold others, and those that react to results

    @property
    def asked_in_order(self) -> bool:
        """Whether it is or holds a user's own callable, which may have state and so is asked for iteration 1, 2, 3, …"""
        return any(held.asked_in_order for _, held in self.inner())

    def inner(self) -> Iterator[tuple[str, "AnySchedule"]]:
        """The curves that this one holds, by the names that a message calls them: `curve`, or `curves[0]`, `curves[1]`, …"""
        yield from ()

    @property
    def reacts(self) -> bool:
        """Whether this curve, or one that it holds, changes with the results of the training."""
        return any(held.reacts for _, held in self.inner())

    def observe(self, loss: float, accuracy: float) -> Self:
        """The curve as it goes on after a validation with these results; the same one if it does not react."""
        return self

    def state(self) -> dict[str, Any]:
        """What the curve has learned from results, as plain numbers under names, for a checkpoint; {} if it does not react."""
        return {}

    def with_state(self, known: Mapping[str, Any]) -> Self:
        """The curve with what `state` returned of an equal one. Raises ValueError or TypeError when it does not fit."""
        if known:
            raise ValueError(f"the state of another schedule: this one knows nothing, not {', '.join(known)}")
        return self


@curve
class Schedule(AnySchedule):
    """Base of all curves.

    A curve is called with an iteration, counted from 1; 0 is the value before any update. It returns the
    learning rate of that iteration, a finite float ≥ 0, whatever was asked before. It can be given to any MXNet
    optimizer as `lr_scheduler=`.

    MXNet counts updates from 1, other frameworks from 0: where a docstring names one of theirs, a smooth curve has at
    iteration k the rate that theirs has after k steps, and a drop comes after the same number of updates.

    A new curve is a class under `@curve` that declares its fields and implements `rate_at`, and a line in `catalogue`.
    """

    relations: ClassVar[tuple[str, ...]] = ()
    """Relations between two fields, such as "min_lr <= max_lr"; those of a base class hold too."""

    quantity: ClassVar[str] = "Learning Rate"
    """What its values are, for the axis of a figure."""

    example: ClassVar[dict[str, Any]]
    """Arguments for a first look: `Cosine(**Cosine.example)`; what `schedules show NAME` uses."""

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_together()

    def check_together(self) -> None:
        """Check what neither a field nor `relations` can tell alone. Raises FieldError."""

    def refused(self, name: str, sentence: str) -> FieldError:
        """Return the error about a field whose value does not go with the others."""
        value = getattr(self, name)
        return FieldValueError(name, sentence, shown(list(value) if isinstance(value, tuple) else value))

    def __repr__(self) -> str:
        """A Python expression that evaluates to an equal curve; fields at their default are left out, but never `base_lr`."""
        parts = [
            f"{spec.name}={getattr(self, spec.name)!r}"
            for spec in fields(self)
            if spec.default is MISSING or spec.name == "base_lr" or getattr(self, spec.name) != spec.default
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

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
            raise ValueError(f"the state of another schedule: this one knows {list(self.state())}, not {list(known)}")
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

    def _falls(self, ends: Iterable[int]) -> list[int]:
        """Those of the iterations after which this schedule, too, is lower."""
        return [end for end in ends if self.rate_at(end + 1) < self.rate_at(end)]


@curve
class FromBaseLr(Schedule):
    """A curve that starts from a rate of its own.

    base_lr: that rate, before any update.
    """

    _: KW_ONLY
    base_lr: float = setting(RATE, default=0.01)
