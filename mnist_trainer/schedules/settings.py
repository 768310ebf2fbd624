"""Conversion of the settings in a configuration to schedules, and back. Only this module converts epochs to iterations.

The settings of a schedule are a table with its `name` (a curve of this package, or "module:attribute" for a user's schedule)
and its arguments. A number of iterations can also be given in another unit: `step_epochs` for `step`, `warmup_fraction` for
`warmup_steps`. A fraction is always a fraction of the whole run. An argument that is a curve is a table of the same form, and
a list of curves is a list of tables. The `base_lr` of the outermost curve is the learning rate of the run. It is also the
default for the curves inside.
"""

import math
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from mnist_trainer.console import shown
from mnist_trainer.fields import FRACTION, FieldError, FieldValueError, Listed, Number, Whole, nearest
from mnist_trainer.schedules.catalogue import FAMILIES, find_curve
from mnist_trainer.schedules.schedule import (
    CURVE,
    CURVES,
    DURATION,
    ITS_RATE,
    SECTIONS,
    STATE,
    AnySchedule,
    Schedule,
    fields_in_role,
)
from mnist_trainer.schedules.stepwise import Constant
from mnist_trainer.schedules.user import UserSchedule, bind_arguments, parameters_of
from mnist_trainer.user_code import import_callable

_ANY_KEY = "**"  # an accepted argument of a user's callable that takes any keyword
_UNITS = {"epochs": Number(0, 1_000_000), "fraction": FRACTION}
_SIGNED_UNITS = {"epochs": Number(-1_000_000, 1_000_000), "fraction": Number(-1, 1)}
_LISTS = {"iterations": "[250, 500]", "epochs": "[4, 7, 9]", "fraction": "[0.5, 0.75]"}
"""Unit → example of a list of durations, for messages."""
_ITS_OWN_BASE_LR = "the schedule takes it from the learning rate of the run; set training.learning_rate"
_REACTS = "a schedule that reacts to results can set only the learning rate; choose another"


class SettingsError(ValueError):
    """Wrong settings of a schedule.

    Attributes:
        problems: All problems, with the keys of the settings. The key `learning_rate` is the learning rate of the run.
    """

    def __init__(self, problems: list[FieldError]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class UnusedLearningRateError(SettingsError):
    """A run has a learning rate, but its schedule has rates of its own."""


@dataclass(frozen=True)
class RunLength:
    """The length of a run, which converts durations in epochs and fractions of the run to iterations.

    Attributes:
        iterations_per_epoch: The number of batches in an epoch.
        epochs: The number of epochs.
    """

    iterations_per_epoch: int
    epochs: int

    @property
    def total_iterations(self) -> int:
        """The number of iterations of the run."""
        return self.iterations_per_epoch * self.epochs


def build_schedule(
    settings: Mapping[str, Any], run_length: RunLength | None, learning_rate: float | None = None
) -> AnySchedule:
    """Return the schedule of a table of settings.

    Args:
        settings: The `name` of the schedule and its arguments. A number of iterations can be given in epochs or as a fraction
            of the run (`step_epochs` or `step_fraction` for `step`).
        run_length: Converts epochs and fractions to iterations, rounded to the nearest whole number (a half to the even one);
            None if all lengths are in iterations.
        learning_rate: The `base_lr` of every curve that has one and whose table does not set it; None for schedules without
            `base_lr`.

    Returns:
        A curve of this package, or a UserSchedule for a name of the form "module:attribute".

    Raises:
        SettingsError: The settings are wrong. The error has all problems.

    Example:
        >>> build_schedule({"name": "MultiFactor", "step_epochs": [4, 7, 9], "factor": 0.1}, RunLength(938, 10), 0.03)
        MultiFactor(base_lr=0.03, step=(3752, 6566, 8442), factor=0.1)
    """
    building = _Building(run_length, learning_rate, _ITS_OWN_BASE_LR)
    schedule = building.schedule(settings, "")
    problems = building.problems
    if not problems and learning_rate is not None and not building.learning_rate_is_read:
        sentence = _unused_learning_rate(settings["name"])
        raise UnusedLearningRateError([FieldError("learning_rate", sentence, shown(learning_rate))])
    if problems or schedule is None:
        raise SettingsError(problems)
    return schedule


def _unused_learning_rate(name: str) -> str:
    own = [] if ":" in name else [spec.name for spec in fields(find_curve(name)) if spec.metadata.get("filling") == ITS_RATE]
    remedy = f"set schedule.{own[0]} instead" if own else "leave it out"
    return f"{name} does not use it, because it has its own rates; {remedy}"


def spellings_of(spec: Field[Any]) -> dict[str, str]:
    """Return the keys that set a field of a curve, each with the unit of its value ("iterations" for the field's own name)."""
    return {spec.name: "iterations"} | (_in_other_units(spec.name) if spec.metadata.get("role") == DURATION else {})


def _in_other_units(argument: str) -> dict[str, str]:
    return {key_in_unit(argument, unit): unit for unit in _UNITS}


def key_in_unit(argument: str, unit: str) -> str:
    """Return the key that sets a duration in "iterations", "epochs" or "fraction".

    Example:
        >>> key_in_unit("warmup_steps", "epochs")
        'warmup_epochs'
    """
    return argument if unit == "iterations" else f"{argument.removesuffix('_steps')}_{unit}"


def example_setting(spec: Field[Any], example: Mapping[str, Any]) -> str:
    """Return an assignment of a value to a field of a curve, as for `--set`, such as "step_epochs=[4,7,9]".

    Args:
        spec: The field.
        example: The `example` of the curve, whose durations are not those of a run.
    """
    key, value = spec.name, example[spec.name]
    if spec.metadata.get("role") == DURATION:
        key = next(key for key, unit in _in_other_units(key).items() if unit == "epochs")
        value = _LISTS["epochs"] if isinstance(spec.metadata["kind"], Listed) else 1
    return f"{key}={list(value) if isinstance(value, tuple) else value}".replace(", ", ",")


def canonical_settings(settings: Any) -> Any:
    """Return settings with the names of curves and the texts of choices as this package spells them.

    Args:
        settings: A table, a list of tables, or any other value. Unknown names and wrong values stay as they are.
    """
    if isinstance(settings, list):
        return [canonical_settings(member) for member in settings]
    if not isinstance(settings, Mapping):
        return settings
    canonical = {key: canonical_settings(value) for key, value in settings.items()}
    if not isinstance(canonical.get("name"), str):
        return canonical
    with suppress(ValueError):
        curve = find_curve(canonical["name"])
        canonical["name"] = curve.__name__
        for spec in fields(curve):
            if isinstance(canonical.get(spec.name), str):
                with suppress(FieldError):
                    canonical[spec.name] = spec.metadata["kind"].check(spec.name, canonical[spec.name])
    return canonical


def build_hyperparameter(settings: Mapping[str, Any], run_length: RunLength | None) -> AnySchedule:
    """Return the schedule of a momentum or a weight decay.

    Unlike in `build_schedule`, each table sets its own `base_lr`.

    Args:
        settings: The `name` of the schedule and its arguments.
        run_length: Converts durations in epochs and fractions of the run to iterations; None if there are none.

    Returns:
        A schedule whose values are momenta or weight decays.

    Raises:
        SettingsError: The settings are wrong, or the schedule reacts to results. The error has all problems.
    """
    building = _Building(run_length, None, None)
    if settings.get("name") in [cls.__name__ for cls in FAMILIES["driven by results"]]:  # their other settings do not matter
        building.complain("name", _REACTS)
        raise SettingsError(building.problems)
    schedule = building.schedule(settings, "")
    if schedule is not None and schedule.reacts:
        building.complain("name", _REACTS)
    if building.problems or schedule is None:
        raise SettingsError(building.problems)
    return schedule


def schedule_settings(schedule: Schedule) -> tuple[dict[str, Any], float | None]:
    """Return the settings from which `build_schedule` makes an equal schedule.

    Args:
        schedule: A curve of this package.

    Returns:
        The table of settings, and the learning rate of the run (None for a curve without `base_lr`). Defaults, and the
        state of schedules that react to results, are left out.

    Raises:
        TypeError: The schedule is or contains a user's function. Only a configuration has its settings.

    Example:
        >>> schedule_settings(find_curve("Cosine")(max_update=9380, base_lr=0.1))
        ({'name': 'Cosine', 'max_update': 9380}, 0.1)
    """
    settings = schedule.settings()
    return settings, settings.pop("base_lr", None)


def from_toml(text: str, run_length: RunLength | None = None) -> AnySchedule:
    r"""Return the schedule of a configuration, such as `to_toml` returns.

    Args:
        text: The configuration in TOML. The first of the tables `[schedule]`, `[momentum]` and `[wd]` is read, and
            `training.learning_rate`; other tables are ignored.
        run_length: The length of the run, which a length in epochs or as a fraction needs.

    Raises:
        ValueError: The text is not valid TOML or has none of these tables. A SettingsError for wrong settings has all problems.

    Example:
        >>> from_toml("schedule = {name = 'Cosine', max_update = 9380}\ntraining = {learning_rate = 0.1}")
        Cosine(base_lr=0.1, max_update=9380)
    """
    if "\n" not in text and text.endswith(".toml"):
        raise ValueError(f"{shown(text)} is the name of a file; pass its text")
    tables = tomllib.loads(text)
    name = next((name for name in SECTIONS if name in tables), None)
    if name is None:
        raise ValueError(f"the configuration has no table [{'], ['.join(SECTIONS)}]")
    if not isinstance(tables[name], dict):
        raise ValueError(f"{name} = {shown(tables[name])}: must be a table with the name of a schedule and its settings")
    if name != "schedule":
        return build_hyperparameter(tables[name], run_length)
    training = tables.get("training")
    return build_schedule(tables[name], run_length, training.get("learning_rate") if isinstance(training, dict) else None)


@dataclass
class _Building:
    """Converts settings and collects all problems.

    Attributes:
        run_length: Converts durations in epochs and fractions of the run to iterations; None without a run.
        learning_rate: The rate of curves whose table does not set `base_lr`.
        no_own_base_lr: The reason why the table of the outermost curve must not set `base_lr`; None if each table sets its own.
        problems: The problems found so far.
        learning_rate_is_read: True if a curve uses `learning_rate`.
    """

    run_length: RunLength | None
    learning_rate: float | None
    no_own_base_lr: str | None
    problems: list[FieldError] = field(default_factory=list)
    learning_rate_is_read: bool = False

    def complain(self, key: str, sentence: str, given: str = "") -> None:
        self.problems.append(FieldError(key, sentence, given))

    def schedule(self, settings: Any, path: str) -> AnySchedule | None:
        """Return the schedule of a table, or None after a problem. Messages name its keys with the prefix `path`."""
        if not isinstance(settings, Mapping):
            self.complain(path.rstrip("."), "must be a table with the name of a schedule and its settings", shown(settings))
            return None
        try:
            target = _find(settings.get("name"))
        except ValueError as error:
            self.complain(f"{path}name", str(error))
            return None
        before = len(self.problems)
        arguments, given_as = self._arguments(settings, target, path)
        self._check_required(target, arguments, given_as, path)
        if target.is_users:
            schedule = self._construct_users(target, arguments, path)
        else:
            schedule = self._construct(target, settings, arguments, given_as, path)
        return schedule if len(self.problems) == before else None

    def _arguments(self, settings: Mapping[str, Any], target: "_Target", path: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the constructor arguments, with durations in iterations, and the key of each."""
        arguments: dict[str, Any] = {}
        given_as: dict[str, str] = {}
        misspelled: dict[str, str] = {}
        for key, value in settings.items():
            argument, unit = target.argument_of(key)
            if key == "name":
                continue
            if unit is None:
                near, sentence = target.unknown(key)
                self.complain(f"{path}{key}", sentence)
                if near:
                    misspelled[target.argument_of(near)[0]] = key
            elif key == "base_lr" and not path and self.no_own_base_lr:
                self.complain(key, self.no_own_base_lr)
            elif argument in given_as:
                self.complain(f"{path}{key}", f"{key} and {given_as[argument]} set the same value in two units; keep one")
            else:
                given_as[argument] = key
                arguments[argument] = self._argument(target, argument, value, unit, f"{path}{key}")
        return arguments, misspelled | given_as  # a misspelled argument is not also reported as missing

    def _argument(self, target: "_Target", argument: str, value: Any, unit: str, key: str) -> Any:
        if argument in target.held and argument not in target.lists:
            return self.schedule(value, f"{key}.")
        if argument in target.held:
            if not isinstance(value, list | tuple):
                self.complain(key, "must be a list of tables, one for each schedule", shown(value))
                return None
            return [self.schedule(table, f"{key}[{number}].") for number, table in enumerate(value)]
        if argument in target.duration_lists and not isinstance(value, list | tuple):
            self.complain(key, f"must be a list of numbers; write it as {_LISTS[unit]}", shown(value))
            return None
        if unit == "iterations":
            return value
        try:
            kind = (_SIGNED_UNITS if argument in target.signed else _UNITS)[unit]
            return _in_iterations(key, value, unit, kind, self.run_length)
        except FieldError as error:
            self.problems.append(error)
            return None

    def _check_required(self, target: "_Target", arguments: dict[str, Any], given_as: dict[str, str], path: str) -> None:
        if "base_lr" in target.accepted and "base_lr" not in arguments:
            self.learning_rate_is_read = True
            arguments["base_lr"] = self.learning_rate
            key = "learning_rate" if self.no_own_base_lr else f"{path}base_lr"
            if self.learning_rate is None and key not in {problem.field for problem in self.problems}:
                self.complain(key, f"missing; {target.name} needs it")
        for argument, required in target.accepted.items():
            if required and argument not in given_as and argument != "base_lr":
                spellings = [argument, *(key for key, (of, _) in target.other_units.items() if of == argument)]
                also = f" (or {', '.join(spellings[1:])})" if len(spellings) > 1 and not target.is_users else ""
                self.complain(f"{path}{argument}", f"missing; {target.name} needs it{also}")

    def _construct_users(self, target: "_Target", arguments: dict[str, Any], path: str) -> AnySchedule | None:
        try:
            if not self.problems:
                return UserSchedule(bind_arguments(target.make, arguments), target.name, arguments)
        except ValueError as error:
            self.complain(f"{path}name", f"{target.name}: {error}")
        return None

    def _construct(
        self, target: "_Target", settings: Mapping[str, Any], arguments: dict[str, Any], given_as: dict[str, str], path: str
    ) -> AnySchedule | None:
        """Return the curve, or None after a problem.

        This is tried even if other settings are wrong, so that all problems are reported together.
        """
        kept = {key: _with_stand_ins(value) if key in target.held else value for key, value in arguments.items()}
        kept = {key: value for key, value in kept.items() if value is not None}
        if any(required and argument not in kept for argument, required in target.accepted.items()):
            return None
        warmup_steps, total = kept.get("warmup_steps"), self.run_length.total_iterations if self.run_length else math.inf
        if isinstance(warmup_steps, int) and warmup_steps > total:
            sentence = f"must be at most {total}, the iterations of the run"
            self._complain_of_argument(FieldError("warmup_steps", sentence, shown(warmup_steps)), settings, given_as, path)
            return None
        while True:
            try:
                made: AnySchedule = target.make(**kept)
                return made
            except FieldError as error:
                field_name = error.field.partition("[")[0]
                if kept.get(field_name) == arguments.get(field_name):  # not a stand-in
                    self._complain_of_argument(error, settings, given_as, path)
                # A constructor reports one field at a time. If the field is optional, try without it to find the next problem.
                if field_name not in kept or target.accepted.get(field_name, True):
                    return None
                del kept[field_name]

    def _complain_of_argument(
        self, error: FieldError, settings: Mapping[str, Any], given_as: dict[str, str], path: str
    ) -> None:
        """Add a problem of an argument, with the key that the user gave."""
        argument = error.field.partition("[")[0]
        key = given_as.get(argument, argument)
        if key == "base_lr" and key not in given_as:
            self.complain("learning_rate", error.sentence, error.given)
        elif key == argument:
            self.complain(f"{path}{error.field}", error.sentence, error.given)
        else:  # in another unit
            self.complain(f"{path}{key}", f"{error.field} = {error.given} {error.sentence}", shown(settings[key]))


def _with_stand_ins(held: Any) -> Any:
    """Return the curves with a stand-in for each that could not be made, so that the curve around them can be checked."""
    if isinstance(held, list):
        return [_with_stand_ins(curve) for curve in held]
    return Constant(1.0) if held is None else held


class _Target:
    """The curve or the user's callable that a table names, and the keys that the table may have."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_users = ":" in name
        self.lists: tuple[str, ...] = ()  # arguments that are lists of schedules
        self.held: tuple[str, ...] = ()  # these, and arguments that are one schedule
        self.duration_lists: tuple[str, ...] = ()  # arguments that are lists of durations
        self.signed: tuple[str, ...] = ()  # arguments that are durations and may be below 0
        self.make: Callable[..., Any]
        self.accepted: dict[str, bool]  # name of each argument → True if it is required
        if self.is_users:
            self.make = import_callable(name)
            self.accepted = _accepted_by_user_code(self.make)
            durations = tuple(key for key in self.accepted if key != "base_lr")
        else:
            self.make = curve = find_curve(name)
            state = fields_in_role(curve, STATE)
            self.accepted = {spec.name: spec.default is MISSING for spec in fields(curve) if spec.name not in state}
            self.lists = fields_in_role(curve, CURVES)
            self.held = (*fields_in_role(curve, CURVE), *self.lists)
            durations = fields_in_role(curve, DURATION)
            kinds = {spec.name: spec.metadata["kind"] for spec in fields(curve) if spec.name in durations}
            self.duration_lists = tuple(name for name, kind in kinds.items() if isinstance(kind, Listed))
            self.signed = tuple(name for name, kind in kinds.items() if isinstance(kind, Whole) and kind.low < 0)
        self.other_units = {key: (argument, unit) for argument in durations for key, unit in _in_other_units(argument).items()}

    def argument_of(self, key: str) -> tuple[str, str | None]:
        """Return the argument that a key sets, and its unit; the unit is None for an unknown key."""
        if key in self.accepted or (_ANY_KEY in self.accepted and key not in self.other_units):
            return key, "iterations"
        return self.other_units.get(key, (key, None))

    def unknown(self, key: str) -> tuple[str | None, str]:
        """Return the known key nearest to an unknown one, or None, and a message."""
        known = [key for key in (*self.accepted, *self.other_units) if key not in ("base_lr", _ANY_KEY)]
        near = nearest(key, known)
        if near:
            return near, f"{self.name} has no such setting; did you mean {near}?"
        return None, f"{self.name} has no such setting" + (f"; it has {', '.join(known)}" if known else "; it has none")


def _find(name: Any) -> _Target:
    """Return the target of a table's `name`.

    Raises:
        ValueError: There is no such schedule. The message has a hint.
    """
    if not isinstance(name, str):
        missing = "missing" if name is None else f"{shown(name)} is not the name of a schedule"
        raise ValueError(f"{missing}; choose one of `mnist-trainer schedules list`, or write module:attribute for your own")
    return _Target(name)


def _accepted_by_user_code(target: Callable[..., Any]) -> dict[str, bool]:
    accepted = {}
    for key, spec in parameters_of(target).items():
        if spec.kind is spec.VAR_KEYWORD:
            accepted[_ANY_KEY] = False
        elif spec.kind is not spec.VAR_POSITIONAL:
            accepted[key] = spec.default is spec.empty
    return accepted


def _in_iterations(key: str, value: Any, unit: str, kind: Number, run_length: RunLength | None) -> Any:
    if run_length is None:
        raise FieldValueError(key, "needs run_length, the length of the run", shown(value))
    if isinstance(value, list):
        return [_in_iterations(f"{key}[{number}]", member, unit, kind, run_length) for number, member in enumerate(value)]
    kind.check(key, value)
    try:
        return round(value * (run_length.iterations_per_epoch if unit == "epochs" else run_length.total_iterations))
    except OverflowError as error:
        raise FieldValueError(key, "must be smaller; it is too many iterations to count", shown(value)) from error
