"""What every curve is: a frozen value that maps an iteration (1, 2, 3, …) to a learning rate.

Knows the contract, the checks that constructors share, and how a curve prints. The formulas stand in the
modules beside this one; turning a configuration into a curve is left to `settings`.
"""

import math
import operator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, TypeVar, dataclass_transform

_DURATION = "duration"
_LARGEST_FLOAT32 = 3.4028234663852886e38  # MXNet's kernels take the rate as a float32

MXNET_DEFAULT_RATES = (0.001, 0.002, 0.01)
"""Rates that MXNet's optimizers take unasked: Adam, LAMB, Nadam, RMSProp; Adamax; Signum and all without one."""

_T = TypeVar("_T")


def duration(*, default: Any = MISSING) -> Any:
    """A dataclass field that counts iterations, so that a configuration may also give it in epochs."""
    return field(default=default, metadata={_DURATION: True})


def positive_int(name: str, number: Any) -> int:
    """`number` as an int ≥ 1, or an error that names the field."""
    return _int_from(name, number, 1)


def non_negative_int(name: str, number: Any) -> int:
    """`number` as an int ≥ 0, or an error that names the field."""
    return _int_from(name, number, 0)


def rate(name: str, number: Any) -> float:
    """`number` as a learning rate, a finite float ≥ 0 (in float32 too), or an error that names the field."""
    value = number_between(name, number, 0.0, math.inf)
    if value > _LARGEST_FLOAT32:
        raise ValueError(f"{name} = {number!r} is infinite in the float32 that MXNet computes with")
    return value


def number_between(name: str, number: Any, low: float, high: float) -> float:
    """`number` as a finite float in [low, high], or an error that names the field and the value."""
    if isinstance(number, bool | str) or not hasattr(number, "__float__"):
        raise TypeError(f"{name} = {number!r} is not a number")
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value) or not low <= value <= high:
        allowed = f"a finite number ≥ {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"
        raise ValueError(f"{name} = {number!r} is not {allowed}")
    return value + 0.0  # -0.0 becomes 0.0


def _int_from(name: str, number: Any, low: int) -> int:
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise TypeError(f"{name} = {number!r} is not a whole number")
    value = operator.index(number)
    if value < low:
        raise ValueError(f"{name} = {number!r} is not a whole number ≥ {low}")
    return value


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


@dataclass_transform(frozen_default=True, field_specifiers=(field, duration))
def curve(cls: type[_T]) -> type[_T]:
    """Class decorator of every curve: a frozen dataclass that no optimizer can change behind its owner's back."""
    made = dataclass(frozen=True, repr=False)(cls)
    type.__setattr__(made, "__setattr__", _keep_value)  # dataclass() refuses to take it from the class body
    return made


@curve
class Schedule:
    """Base of all curves.

    A curve is called with an iteration, counted from 1; 0 is the value before any update. It returns the
    learning rate of that iteration, a finite float ≥ 0, whatever was asked before. It can be given to any MXNet
    optimizer as `lr_scheduler=`.

    A new curve is a class under `@curve` that implements `rate_at`, and a line in `catalogue`.
    """

    example: ClassVar[dict[str, Any]]
    """Arguments for a first look: `Cosine(**Cosine.example)`; what `schedules show NAME` uses."""

    def rate_at(self, iteration: int) -> float:
        """The learning rate of `iteration` ≥ 0."""
        raise NotImplementedError

    def __call__(self, iteration: int) -> float:
        """The learning rate of `iteration`.

        Raises TypeError for what is not a whole number and ValueError for one below 0.
        """
        return self.rate_at(non_negative_int("iteration", iteration))

    def drops(self, total_iterations: int) -> list[int]:
        """The iterations after which the rate drops, for curves that stay on levels; [] for smooth ones.

        total_iterations: how far a curve without an end is looked at; one that names its drops names them all.
        """
        return []

    def __repr__(self) -> str:
        """A Python expression that evaluates to an equal curve; fields at their default are left out."""
        parts = [
            f"{spec.name}={getattr(self, spec.name)!r}"
            for spec in fields(self)
            if spec.default is MISSING or getattr(self, spec.name) != spec.default
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    def _set(self, **values: Any) -> None:
        """Normalises fields in `__post_init__`, the one moment in which a frozen value may still change."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def duration_fields(cls: type[Schedule]) -> tuple[str, ...]:
    """Names of the fields of a curve that count iterations."""
    return tuple(spec.name for spec in fields(cls) if spec.metadata.get(_DURATION))
