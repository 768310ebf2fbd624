"""Which optimizers of MXNet 1.9.1 a schedule can drive, and which arguments they take.

MXNet is retired, so the table is final; a test holds it against MXNet's own signatures. It stands here, without MXNet, so
that a typing error in a configuration is found before anything is loaded.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from mnist_trainer.schedules.fields import LARGEST_FLOAT32, SMALLEST_FLOAT32

OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adagrad": ("eps",),
    "adam": ("beta1", "beta2", "epsilon", "lazy_update"),
    "dcasgd": ("lamda",),  # it has a momentum too, and fails with it: it asks for the truth value of an array
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
"""Name in MXNet's registry → the arguments of its own; `COMMON_ARGUMENTS` go with each."""

COMMON_ARGUMENTS = ("wd", "clip_gradient")

UNSUITABLE: dict[str, str] = {
    "adadelta": "has no learning rate, so no schedule can act on it",
    "adamax": "divides by zero where a unit is never active, so that the loss is nan at iteration 2",
    "ccsgd": "is MXNet's old name of sgd",
    "groupadagrad": "is made for sparse gradients, which this network has not",
    "lbsgd": "reads the rate before it counts the update and multiplies it by a warm-up of its own",
    "sgld": "adds noise of the rate's size, and MXNet fails where a schedule ends at 0",
    "test": "is MXNet's dummy for its own tests",
}
"""The others in MXNet's registry, and why not."""

# Smallest and largest value of each number; the bounds themselves are allowed where the flag says so.
_FRACTION = (0.0, True, 1.0, False)
_NOT_NEGATIVE = (0.0, True, math.inf, False)
_POSITIVE = (0.0, False, math.inf, False)
_NUMBERS = {
    "beta": _NOT_NEGATIVE,
    "beta1": _FRACTION,
    "beta2": _FRACTION,
    "clip_gradient": _POSITIVE,
    "clip_weights": _POSITIVE,
    "eps": _NOT_NEGATIVE,
    "epsilon": _NOT_NEGATIVE,
    "eta": _POSITIVE,
    "gamma1": _FRACTION,
    "gamma2": _FRACTION,
    "lamda": _NOT_NEGATIVE,
    "lamda1": _NOT_NEGATIVE,
    "lower_bound": _NOT_NEGATIVE,
    "momentum": _FRACTION,
    "schedule_decay": _NOT_NEGATIVE,
    "upper_bound": _POSITIVE,
    "wd": _NOT_NEGATIVE,
    "wd_lh": _NOT_NEGATIVE,
}
_SWITCHES = ("bias_correction", "centered", "lazy_update", "momentum_correction")


def optimizer_problems(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with the settings of an optimizer (`name` and its arguments): pairs (key, sentence)."""
    name = settings.get("name", "sgd")
    if not isinstance(name, str) or name not in OPTIMIZERS:
        return [("name", _unknown_optimizer(name))]
    known = OPTIMIZERS[name] + COMMON_ARGUMENTS
    problems = []
    for key, value in settings.items():
        if key == "name":
            continue
        if key not in known:
            problems.append((key, _unknown_argument(key, name, known)))
        elif key in _SWITCHES:
            if not isinstance(value, bool):
                problems.append((key, f"{value!r} is neither true nor false"))
        elif not _in_range(value, _NUMBERS[key]):
            problems.append((key, f"{value!r} is not a number {_range_text(_NUMBERS[key])}"))
    return problems


def _unknown_optimizer(name: Any) -> str:
    if isinstance(name, str) and name in UNSUITABLE:
        return f"{name} {UNSUITABLE[name]}; use one of {', '.join(OPTIMIZERS)}"
    near = difflib.get_close_matches(str(name).lower(), OPTIMIZERS, n=1)
    return f"there is no optimizer {name!r}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(OPTIMIZERS)}")


def _unknown_argument(key: str, name: str, known: tuple[str, ...]) -> str:
    if key in ("learning_rate", "lr_scheduler"):
        return "the rate is training.learning_rate and the table [schedule]"
    near = difflib.get_close_matches(key, known, n=1)
    return f"{name} has no such argument; " + (f"did you mean optimizer.{near[0]}?" if near else f"it has {', '.join(known)}")


def _in_range(value: Any, bounds: tuple[float, bool, float, bool]) -> bool:
    low, with_low, high, with_high = bounds
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if value and not SMALLEST_FLOAT32 <= abs(value) <= LARGEST_FLOAT32:
        return False
    return low < value < high or (with_low and value == low) or (with_high and value == high)


def _range_text(bounds: tuple[float, bool, float, bool]) -> str:
    low, with_low, high, _ = bounds
    text = f"≥ {low:g}" if with_low else f"> {low:g}"
    return text if high == math.inf else f"{text} and < {high:g}"
