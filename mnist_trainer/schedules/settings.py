"""From the settings of a configuration to a schedule; the one place where epochs become iterations.

Settings are a table: `name` (a curve of this package, or "module:attribute" for a user's own) and its arguments. An argument
that counts iterations may carry another unit in its key: `step_epochs` for `step`, `warmup_fraction` for
`warmup_steps`. `base_lr` is not among them: it is the run's learning rate.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from mnist_trainer.schedules.decays import Cosine, CosineAnnealing, Poly
from mnist_trainer.schedules.schedule import Schedule, duration_fields
from mnist_trainer.schedules.stepwise import Constant, Factor, MultiFactor
from mnist_trainer.schedules.user import (
    UserSchedule,
    bind_arguments,
    import_callable,
    parameters_of,
)

CURVES: tuple[type[Schedule], ...] = (Constant, Factor, MultiFactor, Poly, Cosine, CosineAnnealing)
"""The table of contents: every curve that a configuration can name."""


class SettingsError(ValueError):
    """Settings that make no schedule; `problems` holds a pair (key, sentence) each."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {sentence}" for key, sentence in problems))
        self.problems = problems


@dataclass(frozen=True)
class RunLength:
    """What a duration in epochs or in fractions of the run is measured by."""

    iterations_per_epoch: int
    epochs: int

    @property
    def total_iterations(self) -> int:
        return self.iterations_per_epoch * self.epochs


def build_schedule(
    settings: Mapping[str, Any], run_length: RunLength, learning_rate: float | None = None
) -> Callable[[int], float]:
    """The schedule that `settings` describe.

    settings: `name` and the schedule's arguments.
    run_length: converts durations in epochs and fractions of the run into iterations, rounded to the nearest.
    learning_rate: becomes the schedule's `base_lr`; None for schedules that have none.

    Raises SettingsError with all that is wrong.

    >>> build_schedule({"name": "MultiFactor", "step_epochs": [4, 7, 9], "factor": 0.1}, RunLength(938, 10), 0.03)
    MultiFactor(base_lr=0.03, step=(3752, 6566, 8442), factor=0.1)
    """
    name = settings.get("name")
    if not isinstance(name, str):
        missing = "missing" if name is None else f"{name!r} is not the name of a schedule"
        raise SettingsError([("name", f"{missing}; it is one of {', '.join(curve_names())}, or module:attribute")])
    if ":" in name:
        try:
            target = import_callable(name)
            accepted = {key: spec.default is spec.empty for key, spec in parameters_of(target).items()}
        except ValueError as error:
            raise SettingsError([("name", str(error))]) from error
        durations = tuple(accepted)
    else:
        target = find_curve(name)
        accepted = {spec.name: spec.default is MISSING for spec in fields(target)}
        durations = duration_fields(target)

    arguments, problems = _arguments(settings, name, accepted, durations, run_length)
    problems += _give_learning_rate(arguments, name, accepted, learning_rate)
    if problems:
        raise SettingsError(problems)
    try:
        if ":" in name:
            return UserSchedule(bind_arguments(target, arguments), name)
        curve: Schedule = target(**arguments)
        return curve
    except (TypeError, ValueError) as error:
        raise SettingsError([("name", f"{name}: {error}")]) from error


def check_rates(schedule: Callable[[int], float], total_iterations: int) -> None:
    """Asks for the rate of every iteration of a run, in order, so that a bad one is found before the run.

    Raises ScheduleError for the first. The curves of this package hold their promise by construction; a user's
    schedule that has state should be made anew afterwards.
    """
    if isinstance(schedule, UserSchedule):
        for iteration in range(1, total_iterations + 1):
            schedule(iteration)


def curve_names() -> list[str]:
    return [cls.__name__ for cls in CURVES]


def find_curve(name: str) -> Any:
    """The class called `name`, whatever its capitals and underscores. Raises SettingsError with the nearest name."""
    known = {_plain(cls.__name__): cls for cls in CURVES}
    if _plain(name) not in known:
        near = difflib.get_close_matches(_plain(name), known, n=1)
        hint = f"did you mean {known[near[0]].__name__}?" if near else f"there are {', '.join(curve_names())}"
        raise SettingsError([("name", f"there is no schedule {name!r}; {hint}")])
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _arguments(
    settings: Mapping[str, Any],
    name: str,
    accepted: Mapping[str, bool],
    durations: tuple[str, ...],
    run_length: RunLength,
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Settings to constructor arguments, with durations in iterations; and what is wrong with them."""
    arguments: dict[str, Any] = {}
    given_as: dict[str, str] = {}
    problems = []
    in_other_units = _keys_in_other_units(durations)
    for key, value in settings.items():
        if key == "name":
            continue
        argument, unit = (key, "iterations") if key in accepted else in_other_units.get(key, (key, None))
        if key == "base_lr":
            problems.append((key, "a schedule starts from the run's learning rate; set training.learning_rate"))
        elif unit is None:
            problems.append((key, _unknown(key, name, accepted, in_other_units)))
        elif argument in given_as:
            problems.append((key, f"{key} and {given_as[argument]} say the same thing in two units; keep one"))
        else:
            given_as[argument] = key
            try:
                arguments[argument] = value if unit == "iterations" else _in_iterations(value, unit, run_length)
            except ValueError as error:
                problems.append((key, str(error)))
    for argument, required in accepted.items():
        if required and argument not in given_as and argument != "base_lr":
            problems.append((argument, f"missing; {name} needs it"))
    return arguments, problems


def _give_learning_rate(
    arguments: dict[str, Any], name: str, accepted: Mapping[str, bool], learning_rate: float | None
) -> list[tuple[str, str]]:
    if "base_lr" not in accepted:
        if learning_rate is None:
            return []
        return [("learning_rate", f"{name} does not start from a learning rate, so nothing would read it")]
    if learning_rate is None:
        return [("learning_rate", f"missing; {name} starts from it")]
    arguments["base_lr"] = learning_rate
    return []


def _keys_in_other_units(durations: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """`step_epochs` → (`step`, "epochs"), `warmup_fraction` → (`warmup_steps`, "fraction"), …"""
    return {
        f"{argument.removesuffix('_steps')}_{unit}": (argument, unit)
        for argument in durations
        for unit in ("epochs", "fraction")
    }


def _in_iterations(value: Any, unit: str, run_length: RunLength) -> Any:
    if isinstance(value, list):
        return [_in_iterations(each, unit, run_length) for each in value]
    most = math.inf if unit == "epochs" else 1
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or value == math.inf:
        allowed = "a number of epochs ≥ 0" if unit == "epochs" else "a fraction of the run from 0 to 1"
        raise ValueError(f"{value!r} is not {allowed}")
    return round(value * (run_length.iterations_per_epoch if unit == "epochs" else run_length.total_iterations))


def _unknown(key: str, name: str, accepted: Mapping[str, bool], in_other_units: Mapping[str, tuple[str, str]]) -> str:
    known = [each for each in (*accepted, *in_other_units) if each != "base_lr"]
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"{name} has no such setting; did you mean schedule.{near[0]}?"
    return f"{name} has no such setting" + (f"; it has {', '.join(known)}" if known else " and takes none")
