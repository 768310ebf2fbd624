"""From the settings of a configuration to a schedule; the one place where epochs become iterations.

Settings are a table: `name` (a curve of this package, or "module:attribute" for a user's own) and its arguments. An argument
that counts iterations may carry another unit in its key: `step_epochs` for `step`, `warmup_fraction` for
`warmup_steps`. `base_lr` is not among them: it is the run's learning rate.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from mnist_trainer.schedules.catalogue import curve_names, find_curve
from mnist_trainer.schedules.schedule import Schedule, duration_fields
from mnist_trainer.schedules.user import UserSchedule, bind_arguments, import_callable, parameters_of

_ANY_KEY = "**"  # stands among the accepted arguments of a user's callable that takes any keyword


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
    run_length: converts durations in epochs and fractions of the run into iterations, rounded to the
        nearest whole number (a half to the even one).
    learning_rate: becomes the schedule's `base_lr`; None for schedules that have none.

    Raises SettingsError with all that is wrong.

    >>> build_schedule({"name": "MultiFactor", "step_epochs": [4, 7, 9], "factor": 0.1}, RunLength(938, 10), 0.03)
    MultiFactor(base_lr=0.03, step=(3752, 6566, 8442), factor=0.1)
    """
    name = settings.get("name")
    if not isinstance(name, str):
        missing = "missing" if name is None else f"{name!r} is not the name of a schedule"
        raise SettingsError([("name", f"{missing}; it is one of {', '.join(curve_names())}, or module:attribute")])
    target: Callable[..., Any]
    try:
        if ":" in name:
            target = import_callable(name)
            accepted = _accepted_by_user_code(target)
            durations = tuple(key for key in accepted if key != "base_lr")
        else:
            target = curve = find_curve(name)
            accepted = _accepted_by_curve(curve)
            durations = duration_fields(curve)
    except ValueError as error:
        raise SettingsError([("name", str(error))]) from error

    arguments, given_as, problems = _arguments(settings, name, accepted, durations, run_length)
    problems += _give_learning_rate(arguments, name, accepted, learning_rate)
    if problems:
        raise SettingsError(problems)
    if ":" in name:
        try:
            return UserSchedule(bind_arguments(target, arguments), name, arguments)
        except ValueError as error:
            raise SettingsError([("name", f"{name}: {error}")]) from error
    return _construct(curve, arguments, given_as)


def _construct(curve: type[Schedule], arguments: Mapping[str, Any], given_as: Mapping[str, str]) -> Schedule:
    """The curve; or SettingsError with what its constructor refuses."""
    problems: list[tuple[str, str]] = []
    kept = dict(arguments)
    while True:
        try:
            made = curve(**kept)
            break
        except (TypeError, ValueError) as error:
            # A constructor names one field, the first word of its sentence, at a time. Without that one, if it can do
            # without, it goes on to the next.
            field = str(error).split(" ", 1)[0]
            key = "learning_rate" if field == "base_lr" else given_as.get(field, "name")
            problems.append((key, f"{curve.__name__}: {error}"))
            if field not in kept or _accepted_by_curve(curve)[field]:
                raise SettingsError(problems) from error
            del kept[field]
    if problems:
        raise SettingsError(problems)
    return made


def _accepted_by_curve(curve: type[Schedule]) -> dict[str, bool]:
    """Name of each argument → whether it must be given."""
    return {spec.name: spec.default is MISSING for spec in fields(curve)}


def _accepted_by_user_code(target: Callable[..., Any]) -> dict[str, bool]:
    """Name of each argument → whether it must be given."""
    accepted = {}
    for key, spec in parameters_of(target).items():
        if spec.kind is spec.VAR_KEYWORD:
            accepted[_ANY_KEY] = False
        elif spec.kind is not spec.VAR_POSITIONAL:
            accepted[key] = spec.default is spec.empty
    return accepted


def _arguments(
    settings: Mapping[str, Any],
    name: str,
    accepted: Mapping[str, bool],
    durations: tuple[str, ...],
    run_length: RunLength,
) -> tuple[dict[str, Any], dict[str, str], list[tuple[str, str]]]:
    """Settings to constructor arguments, with durations in iterations; the key of each; and what is wrong with them."""
    arguments: dict[str, Any] = {}
    given_as: dict[str, str] = {}
    problems = []
    in_other_units = _keys_in_other_units(durations)
    for key, value in settings.items():
        if key == "name":
            continue
        as_it_is = key in accepted or (_ANY_KEY in accepted and key not in in_other_units)
        argument, unit = (key, "iterations") if as_it_is else in_other_units.get(key, (key, None))
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
    return arguments, given_as, problems


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
    most = 1_000_000 if unit == "epochs" else 1
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        allowed = "a number of epochs from 0 to a million" if unit == "epochs" else "a fraction of the run from 0 to 1"
        raise ValueError(f"{value!r} is not {allowed}")
    try:
        return round(value * (run_length.iterations_per_epoch if unit == "epochs" else run_length.total_iterations))
    except OverflowError as error:
        raise ValueError(f"{value!r} in a run of this length are more iterations than can be counted") from error


def _unknown(key: str, name: str, accepted: Mapping[str, bool], in_other_units: Mapping[str, tuple[str, str]]) -> str:
    known = [each for each in (*accepted, *in_other_units) if each not in ("base_lr", _ANY_KEY)]
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"{name} has no such setting; did you mean schedule.{near[0]}?"
    return f"{name} has no such setting" + (f"; it has {', '.join(known)}" if known else " and takes none")
