"""MXNet's optimizers that a schedule can drive, and their arguments.

The table is for MXNet 1.9.1. MXNet is retired, so the table is final. A test compares it with MXNet's signatures. The module
does not import MXNet: mistakes in a configuration are reported before MXNet is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mnist_trainer.console import shown
from mnist_trainer.fields import (
    MAX_FLOAT32,
    MIN_FLOAT32,
    FieldError,
    FieldValueError,
    Kind,
    Number,
    Switch,
    did_you_mean,
)

OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adagrad": ("eps",),
    "adam": ("beta1", "beta2", "epsilon", "lazy_update"),
    "dcasgd": ("lamda",),  # not momentum, with which MXNet fails: it takes the truth value of an array
    "ftml": ("beta1", "beta2", "epsilon"),
    "ftrl": ("lamda1", "beta"),
    "lamb": ("beta1", "beta2", "epsilon", "lower_bound", "upper_bound", "bias_correction"),
    "lars": ("momentum", "lazy_update", "eta", "eps", "momentum_correction"),
    "nadam": ("beta1", "beta2", "epsilon", "schedule_decay"),
    "nag": ("momentum",),
    "rmsprop": ("gamma1", "gamma2", "epsilon", "centered", "clip_weights"),
    "sgd": ("momentum", "lazy_update"),
    "signum": ("momentum", "wd_lh"),
}
"""Name in MXNet's registry → arguments of this optimizer. Every optimizer also takes `COMMON_ARGUMENTS`."""

COMMON_ARGUMENTS = ("wd", "clip_gradient")

UNSUITABLE: dict[str, str] = {
    "adadelta": "has no learning rate, so no schedule can act on it",
    "adamax": "divides by zero where a unit is never active, and the loss becomes nan at iteration 2",
    "ccsgd": "is MXNet's old name for sgd",
    "groupadagrad": "needs sparse gradients, which this network does not have",
    "lbsgd": "reads the rate before it counts the update, and multiplies it by its own warm-up",
    "sgld": "scales its noise with the rate, and MXNet fails if a schedule ends at 0",
    "test": "is a dummy for MXNet's own tests",
}
"""The other optimizers in MXNet's registry, with the reason why each is unsuitable."""


@dataclass(frozen=True)
class _KernelNumber(Number):
    """A number that MXNet passes to a kernel as text.

    The kernel reads it as float32, and fails for numbers below the smallest float32 number.
    """

    def check(self, name: str, value: Any) -> float:
        number = super().check(name, value)
        if 0 < abs(number) < MIN_FLOAT32:
            zero = "0 or " if self.low == 0 else ""
            sentence = f"must be {zero}a number ≥ {MIN_FLOAT32:.6g}, the smallest in float32"
            raise FieldValueError(name, sentence, shown(value))
        return number


_FRACTION = _KernelNumber(0, below=1)
_NOT_NEGATIVE = _KernelNumber(0, MAX_FLOAT32)
_POSITIVE = _KernelNumber(above=0, high=MAX_FLOAT32)

ARGUMENT_KINDS: dict[str, Kind] = {
    "beta": _NOT_NEGATIVE,
    "beta1": _FRACTION,
    "beta2": _FRACTION,
    "bias_correction": Switch(),
    "centered": Switch(),
    "clip_gradient": _POSITIVE,
    "clip_weights": _POSITIVE,
    "eps": _NOT_NEGATIVE,
    "epsilon": _NOT_NEGATIVE,
    "eta": _POSITIVE,
    "gamma1": _FRACTION,
    "gamma2": _FRACTION,
    "lamda": _NOT_NEGATIVE,
    "lamda1": _NOT_NEGATIVE,
    "lazy_update": Switch(),
    "lower_bound": _NOT_NEGATIVE,
    "momentum": _FRACTION,
    "momentum_correction": Switch(),
    "schedule_decay": _NOT_NEGATIVE,
    "upper_bound": _POSITIVE,
    "wd": _NOT_NEGATIVE,
    "wd_lh": _NOT_NEGATIVE,
}
"""Argument of an optimizer → the kind of its values."""


def optimizer_problems(settings: Mapping[str, Any]) -> list[FieldError]:
    """Return all problems of the settings of an optimizer.

    Args:
        settings: Its `name` and its arguments.
    """
    name = settings.get("name", "sgd")
    if not isinstance(name, str) or name not in OPTIMIZERS:
        return [FieldError("name", _unknown_optimizer(name))]
    known = OPTIMIZERS[name] + COMMON_ARGUMENTS
    problems = []
    for key, value in settings.items():
        if key == "name":
            continue
        try:
            if key not in known:
                raise FieldError(key, _unknown_argument(key, name, known))
            ARGUMENT_KINDS[key].check(key, value)
        except FieldError as error:
            problems.append(error)
    return problems


def _unknown_optimizer(name: Any) -> str:
    if isinstance(name, str) and name in UNSUITABLE:
        return f"{name} {UNSUITABLE[name]}; use one of {', '.join(OPTIMIZERS)}"
    hint = did_you_mean(str(name).lower(), OPTIMIZERS, f"there are {', '.join(OPTIMIZERS)}")
    return f"there is no optimizer {shown(name)}; {hint}"


def _unknown_argument(key: str, name: str, known: tuple[str, ...]) -> str:
    if key in ("learning_rate", "lr", "lr_scheduler"):
        return "the learning rate is set by training.learning_rate and the table [schedule]"
    if key == "momentum":
        return f"{name} has no momentum; {', '.join(other for other, keys in OPTIMIZERS.items() if key in keys)} have one"
    hint = did_you_mean(key, ("name", *known), f"it has {', '.join(known)}", "optimizer.{}")
    return f"{name} has no such argument; {hint}"
