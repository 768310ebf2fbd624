"""The fields of a curve: which kinds there are, and how their values are checked.

A constructor that refuses a value raises one of the two errors here; both carry the field's name, so that a configuration
can say under which key the value was given.
"""

import math
import operator
from collections.abc import Iterable
from dataclasses import MISSING, field
from itertools import pairwise
from typing import Any

from mnist_trainer.console import shown

SMALLEST_FLOAT32, LARGEST_FLOAT32 = 1.1754943508222875e-38, 3.4028234663852886e38
"""What MXNet's kernels, which take numbers as float32, can read."""

_LARGEST_COUNT = 10**18

KIND = "kind"
"""Key of a field's metadata; its value is one of the four below, or absent for a plain number, text or switch."""

DURATION, CURVE, CURVES, STATE = "duration", "curve", "curves", "state"


class FieldError(Exception):
    """A constructor refused what a field was given.

    field: the field's name, which the sentence begins with.
    """

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(f"{field} {sentence}")
        self.field = field
        self.sentence = sentence

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.sentence)


class FieldValueError(FieldError, ValueError):
    """The value is of the right type and cannot be."""


class FieldTypeError(FieldError, TypeError):
    """The value is not of the field's type."""


# --- kinds of fields


def duration(*, default: Any = MISSING) -> Any:
    """A field that counts iterations, or lists such counts; a configuration may also give it in epochs."""
    return field(default=default, metadata={KIND: DURATION})


def inner_curve() -> Any:
    """A field that holds a curve."""
    return field(metadata={KIND: CURVE})


def inner_curves() -> Any:
    """A field that holds a tuple of curves."""
    return field(metadata={KIND: CURVES})


def state(*, default: Any) -> Any:
    """A field that is no setting, but what a curve has learned from results."""
    return field(default=default, metadata={KIND: STATE})


# --- checks: each returns the normalised value


def positive_int(name: str, number: Any) -> int:
    """`number` as an int ≥ 1."""
    return _int_from(name, number, 1)


def non_negative_int(name: str, number: Any) -> int:
    """`number` as an int ≥ 0."""
    return _int_from(name, number, 0)


def rate(name: str, number: Any) -> float:
    """`number` as a learning rate: a finite float ≥ 0, in float32 too."""
    value = number_between(name, number, 0.0, math.inf)
    if value > LARGEST_FLOAT32:
        raise FieldValueError(name, f"= {number!r} is infinite in the float32 that MXNet computes with")
    return value


def finite_in_float32(name: str, given: float, learning_rate: float) -> None:
    """Raises unless the rate that follows from the field's value is finite in float32."""
    if not learning_rate <= LARGEST_FLOAT32:
        raise FieldValueError(name, f"= {given!r} makes a rate that is infinite in the float32 of MXNet")


def number_between(name: str, number: Any, low: float, high: float) -> float:
    """`number` as a finite float in [low, high]."""
    if isinstance(number, bool | str) or not hasattr(number, "__float__"):
        raise FieldTypeError(name, f"= {number!r} is not a number")
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value) or not low <= value <= high:
        allowed = f"a finite number ≥ {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"
        raise FieldValueError(name, f"= {number!r} is not {allowed}")
    return value + 0.0  # -0.0 becomes 0.0


def positive_number(name: str, number: Any) -> float:
    """`number` as a finite float > 0."""
    try:
        value = number_between(name, number, 0.0, math.inf)
    except FieldValueError:
        value = 0.0
    if value == 0:
        raise FieldValueError(name, f"= {number!r} is not a finite number > 0")
    return value


def switch(name: str, value: Any) -> bool:
    """`value`, which is True or False."""
    if not isinstance(value, bool):
        raise FieldTypeError(name, f"= {value!r} is neither true nor false")
    return value


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value`, which is one of `choices`."""
    if value not in choices:
        raise FieldValueError(name, f"= {value!r} is not one of {', '.join(choices)}")
    return str(value)


def increasing_ints(name: str, numbers: Any, least: int = 1) -> tuple[int, ...]:
    """`numbers` as a tuple of ints ≥ `least`, at least one, each above the one before."""
    counts = tuple(_int_from(name, each, least) for each in _listed(name, numbers, "whole numbers"))
    if not counts:
        raise FieldValueError(name, "= [] names no iteration")
    if any(later <= earlier for earlier, later in pairwise(counts)):
        raise FieldValueError(name, f"= {list(counts)} does not increase")
    return counts


def rates(name: str, numbers: Any, count: int, why: str) -> tuple[float, ...]:
    """`numbers` as a tuple of `count` learning rates; `why` says where the count comes from."""
    values = tuple(rate(name, each) for each in _listed(name, numbers, "numbers"))
    if len(values) != count:
        raise FieldValueError(name, f"= {list(values)} has {len(values)} values, not {count}, {why}")
    return values


def not_above(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raises unless low ≤ high."""
    if low > high:
        raise FieldValueError(low_name, f"= {low} is above {high_name} = {high}")


def below(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raises unless low < high."""
    if low >= high:
        raise FieldValueError(low_name, f"= {low} is not below {high_name} = {high}")


def _listed(name: str, numbers: Any, of: str) -> tuple[Any, ...]:
    if not isinstance(numbers, Iterable) or isinstance(numbers, str):
        raise FieldTypeError(name, f"= {numbers!r} is not a list of {of}")
    return tuple(numbers)


def _int_from(name: str, number: Any, low: int) -> int:
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise FieldTypeError(name, f"= {number!r} is not a whole number")
    value = operator.index(number)
    if value < low:
        raise FieldValueError(name, f"= {shown(number, 40)} is not a whole number ≥ {low}")
    if value > _LARGEST_COUNT:
        raise FieldValueError(name, f"= {shown(number, 40)} is more than can be counted, 10¹⁸")
    return value
