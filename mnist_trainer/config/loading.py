"""What a run is: frozen dataclasses, a sentence a field; made from a TOML file and then from flags.

Standard library only. Knows every key, its type, its range and its default, and how to say what is wrong with
one; what a schedule's own settings mean is left to `schedules`, an optimizer's to `optimizers`.
"""

import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from mnist_trainer import bundled, runtime
from mnist_trainer.config.optimizers import OPTIMIZERS, optimizer_problems
from mnist_trainer.console import shown
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.runtime import hardware
from mnist_trainer.schedules import AnySchedule, RunLength, SettingsError, build_hyperparameter, build_schedule

DEFAULT_CONFIG = "tutorial"

HIGHEST_SEED = 2**31 - 1

SCHEDULER_MODES = ("optimizer", "manual")

_DEEPEST = 30

HYPERPARAMETERS = ("momentum", "wd")
"""Of the optimizer, that may have a schedule of their own, as MXNet spells them."""


@dataclass(frozen=True)
class _Whole:
    low: int
    high: float = math.inf

    def problem(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return f"{shown(value)} is not a whole number"
        if not self.low <= value <= self.high:
            return f"{shown(value)} is not a whole number {self}"
        return None

    def __str__(self) -> str:
        return f"≥ {self.low}" if self.high == math.inf else f"from {self.low} to {self.high}"


@dataclass(frozen=True)
class _WholeOrAuto(_Whole):
    def problem(self, value: Any) -> str | None:
        if value == "auto" or super().problem(value) is None:
            return None
        return f"{shown(value)} is neither auto nor a whole number {self}"


@dataclass(frozen=True)
class _PositiveNumber:
    def problem(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{shown(value)} is not a number"
        return None if value > 0 and _is_plain(value) else f"{shown(value)} is not a finite number > 0"


@dataclass(frozen=True)
class _Choice:
    choices: tuple[str, ...]

    def problem(self, value: Any) -> str | None:
        if value in self.choices:
            return None
        near = difflib.get_close_matches(value, self.choices, n=1) if isinstance(value, str) else []
        return f"{shown(value)} is not one of {', '.join(self.choices)}" + (f"; did you mean {near[0]}?" if near else "")


@dataclass(frozen=True)
class _Device:
    def problem(self, value: Any) -> str | None:
        matches = re.fullmatch(r"auto|(cpu|gpu)(:\d{1,4}(,\d{1,4})*)?", value) if isinstance(value, str) else None
        if not matches:
            return f"{shown(value)} is not a device; it is auto, cpu, gpu, gpu:1 or gpu:0,1"
        indices = value.partition(":")[2].split(",")
        if len({int(index or 0) for index in indices}) < len(indices):
            return f"{shown(value)} names a device twice"
        return None


_Kind = _Whole | _PositiveNumber | _Choice | _Device


def _setting(default: Any, kind: _Kind, sentence: str) -> Any:
    return field(default=default, metadata={"kind": kind, "sentence": sentence})


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in which batches, and from which rate."""

    epochs: int = _setting(10, _Whole(1, 1_000_000), "passes over the training images")
    batch_size: int = _setting(64, _Whole(1, 60_000), "images in a batch, in training and in tests")
    learning_rate: float | None = _setting(
        None,
        _PositiveNumber(),
        "the rate that the schedule starts from; left out for schedules that name their own rates",
    )
    scheduler_mode: str = _setting(
        "optimizer",
        _Choice(SCHEDULER_MODES),
        "who applies the schedule: MXNet's optimizer, or the loop by trainer.set_learning_rate",
    )
    seed: int = _setting(1, _Whole(0, HIGHEST_SEED), "seed of the initial parameters and of the batch order")


@dataclass(frozen=True)
class DataConfig:
    """What is trained and tested on, and how it is loaded."""

    loader: str = _setting(
        "array",
        _Choice(("array", "gluon")),
        "how batches are made: from arrays in memory, or by MXNet's DataLoader",
    )
    num_workers: int = _setting(0, _Whole(0, 64), "processes of MXNet's DataLoader; 0 loads in the program's own")
    train_images: int = _setting(60_000, _Whole(1, 60_000), "use the first N training images")
    validation_images: int = _setting(0, _Whole(0, 59_999), "hold the last N of these out of the training, for validation")
    test_images: int = _setting(10_000, _Whole(1, 10_000), "use the first N test images")

    @property
    def trained_images(self) -> int:
        """The images that are trained on: without those held out for validation."""
        return self.train_images - self.validation_images


@dataclass(frozen=True)
class ModelConfig:
    """How the network is computed; what it is, is the tutorial's."""

    stages: str = _setting(
        "auto",
        _Choice(("auto", "stock", "fused")),
        "convolution, pooling and relu: MXNet's stock operators, or the fused one; auto takes the fused where it can be used",
    )


@dataclass(frozen=True)
class RuntimeConfig:
    """Where it runs."""

    device: str = _setting("auto", _Device(), "auto, cpu, gpu, gpu:1 or gpu:0,1; auto takes a GPU only if one works")
    threads: int | str = _setting(
        "auto",
        _WholeOrAuto(1, hardware.MOST_THREADS),
        "OpenMP threads; auto means OMP_NUM_THREADS, or the processors that this process may use",
    )
    patience_seconds: float = _setting(
        60, _PositiveNumber(), "of several processes: how long one waits for the others to come, and then for signs of life"
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved so that it can go on, beside the end of each epoch; and how many of these are kept."""

    every_iterations: int = _setting(1000, _Whole(1, 1_000_000_000), "save after every N iterations of the run")
    every_minutes: float = _setting(5, _PositiveNumber(), "save when the last time is so many minutes ago")
    keep: int = _setting(2, _Whole(1, 1000), "keep the newest N checkpoints, and the best epoch's")


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    `schedule` and `optimizer` hold a `name` and that one's own arguments; so do `momentum` and `wd`, where the optimizer's
    momentum or weight decay have a schedule of their own.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "sgd"})
    momentum: Mapping[str, Any] = field(default_factory=dict)
    wd: Mapping[str, Any] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    @property
    def run_length(self) -> RunLength:
        """Epochs and iterations; the last batch of an epoch may be a partial one, and counts."""
        return RunLength(math.ceil(self.data.trained_images / self.training.batch_size), self.training.epochs)

    def sharing_problem(self, sharers: int) -> str | None:
        """What so many workers or devices cannot do, when there is a batch with fewer images than them."""
        images, batch_size = self.data.trained_images, self.training.batch_size
        smallest = images % batch_size or min(batch_size, images)
        if sharers <= smallest:
            return None
        return f"cannot share a batch of {smallest}, the smallest of {images:,} images in batches of {batch_size}"

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """The table `optimizer` without its name."""
        return {key: value for key, value in self.optimizer.items() if key != "name"}

    def build_schedule(self) -> AnySchedule:
        """The schedule, made afresh. Raises SettingsError."""
        return build_schedule(self.schedule, self.run_length, self.training.learning_rate)

    def build_hyperparameters(self) -> dict[str, AnySchedule]:
        """The schedules of momentum and weight decay, as far as there are any. Raises SettingsError."""
        return {name: self.build_hyperparameter(name) for name in HYPERPARAMETERS if getattr(self, name)}

    def build_hyperparameter(self, name: str) -> AnySchedule:
        """The schedule in the table `momentum` or `wd`, made afresh. Raises SettingsError."""
        return build_hyperparameter(getattr(self, name), self.run_length)

    def users_code(self) -> dict[str, str]:
        """Key → module:attribute of each schedule, also within another, whose making imports and calls what is not ours."""
        return dict(each for section in ("schedule", *HYPERPARAMETERS) for each in _users_code(section, getattr(self, section)))

    def to_toml(self) -> str:
        """The configuration as a TOML file that `load_config` reads back as an equal one."""
        return "\n".join(
            f"[{section}]\n"
            + "".join(f"{_to_toml_key(key)} = {_to_toml(value)}\n" for key, value in table.items() if value is not None)
            for section, table in self._tables()
            if table
        )

    def differences(self, other: "RunConfig") -> list[tuple[str, Any, Any]]:
        """The keys in which another configuration is not as this one: key, value here, value there."""
        found = []
        for (section, ours), (_, theirs) in zip(self._tables(), other._tables(), strict=True):
            for key in dict.fromkeys((*ours, *theirs)):
                if ours.get(key) != theirs.get(key):
                    found.append((f"{section}.{key}", ours.get(key), theirs.get(key)))
        return found

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """The configuration as plain tables, which `from_tables` makes an equal one of."""
        return {section: dict(table) for section, table in self._tables()}

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> "RunConfig":
        """From what `to_tables` returned. Raises KeyError, TypeError or ValueError when it is of another kind."""
        for section, cls_of_section in _SECTIONS.items():
            for key, value in tables[section].items() if cls_of_section else ():
                problem = value is not None and _problem(f"{section}.{key}", value)
                if problem:
                    raise ValueError(f"{section}.{key}: {problem}")
        made: dict[str, Any] = {
            section: dict(tables[section]) if cls_of_section is None else cls_of_section(**tables[section])
            for section, cls_of_section in _SECTIONS.items()
        }
        return cls(**made)

    def _tables(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for section in fields(self):
            table = getattr(self, section.name)
            yield section.name, table if isinstance(table, Mapping) else vars(table)


_SECTIONS: dict[str, type | None] = {
    "training": TrainingConfig,
    "schedule": None,  # an open table: its keys depend on its name
    "optimizer": None,
    "momentum": None,
    "wd": None,
    "model": ModelConfig,
    "data": DataConfig,
    "checkpoint": CheckpointConfig,
    "runtime": RuntimeConfig,
}


@dataclass(frozen=True)
class Override:
    """A setting from the command line: how the user spelled it, the key that it sets, and the text that was given.

    The key is `section.key`; in a table within a table `schedule.curve.key` or `schedule.curves[0].key`; or a whole `schedule`.
    """

    spelling: str
    key: str
    text: str

    def sets(self, key: str) -> bool:
        """Whether it sets this key, or the table that it stands in."""
        return key == self.key or key.startswith((f"{self.key}.", f"{self.key}["))

    @classmethod
    def from_assignment(cls, assignment: str) -> "Override":
        """From the argument of `--set`. Raises RequestError if it is not a `section.key=value`."""
        key, equals, text = assignment.partition("=")
        if not equals or ("." not in key.strip(".") and _SECTIONS.get(key.strip(), RunConfig) is not None):
            raise RequestError(f"--set {assignment}: write it as section.key=value, for example training.epochs=3")
        return cls(f"--set {key.strip()}", key.strip(), text.strip())


def load_config(path: str | Path = DEFAULT_CONFIG, overrides: Sequence[Override] = ()) -> RunConfig:
    """The configuration of a run: the file, then the overrides, all checked.

    path: a TOML file, or the name of one that comes with the program.

    Raises RequestError with every problem of the file and the overrides, a sentence each.
    """
    reading = _Reading(path, overrides)
    reading.check_schedules()
    return reading.finish()


def load_recorded_config(path: str | Path, overrides: Sequence[Override] = ()) -> RunConfig:
    """The configuration of a run folder, which may be a stranger's: its schedule is not built, nothing is imported.

    Raises RequestError as `load_config` does.
    """
    return _Reading(path, overrides).finish()


def bundled_configs() -> dict[str, Path]:
    """Name → file of each configuration that comes with the program."""
    return {each.stem: each for each in sorted(bundled.configs_folder().glob("*.toml"))}


def find_config(path: str | Path) -> Path:
    """The file of a configuration.

    path: a bare name such as `tutorial` is a bundled configuration. Anything else is a file, and where there is none, the
    bundled one that `configs/NAME.toml` or `NAME.toml` names.

    Raises RequestError with the nearest name.
    """
    given = Path(path)
    bundled = bundled_configs()
    if str(path) in bundled:
        return bundled[str(path)]
    if os.path.exists(given):  # noqa: PTH110 - Path.exists raises for a name that is too long
        return given
    if given.suffix == ".toml" and str(given.parent) in (".", "configs") and given.stem in bundled:
        return bundled[given.stem]
    near = difflib.get_close_matches(given.stem, bundled, n=1)
    hint = f"did you mean configs/{near[0]}.toml?" if near else f"the bundled ones are {', '.join(bundled)}"
    raise RequestError(f"{path}: there is no such configuration; {hint}")


def check_value(override: Override) -> Any:
    """The value of a single override, for commands that need no more. Raises RequestError."""
    value = _parse_value(override.key, override.text)
    if problem := _problem(override.key, value):
        raise RequestError(f"{override.spelling}: {problem}")
    return value


def describe(key: str) -> str:
    """The sentence of a key such as `training.epochs`."""
    spec = _field(key)
    if spec is None:
        raise KeyError(key)
    return str(spec.metadata["sentence"])


def flag_of(key: str) -> str:
    """The flag of a key such as `training.batch_size`: --batch-size."""
    return "--" + key.partition(".")[2].replace("_", "-")


class _Reading:
    """One reading of a file and its overrides, which collects what is wrong on its way."""

    def __init__(self, path: str | Path, overrides: Sequence[Override]) -> None:
        self.problems: list[str] = []
        self.file = find_config(path)
        self.labels: dict[str, str] = {}
        self.refused: set[str] = set()
        tables = self._from_file()
        for override in overrides:
            self._override(tables, override)
        self.config = RunConfig(**{section: self._section(section, tables[section]) for section in _SECTIONS})
        self._check_unread()
        for key, sentence in optimizer_problems(self.config.optimizer):
            self._complain(f"optimizer.{key}", sentence)

    def check_schedules(self) -> None:
        if self.config.run_length.total_iterations < 1:
            return  # which is said already, and nothing can be measured by it
        if self.config.users_code() and not runtime.mxnet_is_loaded():
            with collected(self.problems):
                runtime.prepare(self.config.runtime.threads)  # a user's module may import MXNet
        try:
            schedule = self.config.build_schedule()
        except SettingsError as error:
            self._complain_of_schedule("schedule", error)
        else:
            if schedule.reacts and not self.config.data.validation_images:
                self._complain(
                    "data.validation_images",
                    "missing; a Plateau is driven by images held out of the training, for example 5000",
                )
        for name in HYPERPARAMETERS:
            try:
                if getattr(self.config, name):
                    self.config.build_hyperparameter(name)
            except SettingsError as error:
                self._complain_of_schedule(name, error)

    def _complain_of_schedule(self, section: str, error: SettingsError) -> None:
        for name, sentence in error.problems:
            key = "training.learning_rate" if name == "learning_rate" else f"{section}.{name}"
            # What was given and refused is not in the settings, and would be called missing.
            stem = key.removesuffix("_steps")
            if self.refused.isdisjoint({key, f"{stem}_epochs", f"{stem}_fraction"}):
                self._complain(key, sentence)

    def finish(self) -> RunConfig:
        if self.problems:
            raise RequestError(*self.problems)
        return self.config

    def _complain(self, key: str, sentence: str) -> None:
        self.refused.add(key)
        holders = [set_key for set_key in self.labels if len(set_key) < len(key) and _overlap(set_key, key)]
        if key in self.labels:
            label = self.labels[key]
        elif holders:  # a whole table came from the command line
            label = f"{self.labels[holders[0]]}, {key.removeprefix(holders[0]).lstrip('.')}"
        else:
            label = f"{self.file}: {key}"
        self.problems.append(f"{label}: {sentence}")

    def _from_file(self) -> dict[str, dict[str, Any]]:
        """Section → its keys; an empty one for each that the file leaves out."""
        tables: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
        for section, table in _read_toml(self.file).items():
            if _depth(table) > _DEEPEST:
                self._complain(section, f"tables and lists nest more than {_DEEPEST} deep")
            elif section in HYPERPARAMETERS and table == {}:
                self._complain(f"{section}.name", "missing; without a schedule of its own leave the table out")
            elif isinstance(table, dict) and section in _SECTIONS:
                tables[section] = table
            elif section in _SECTIONS:
                self._complain(section, f"this is a table; write [{section}] and its keys below")
            else:
                self._complain(section, _unknown(section, list(_SECTIONS)))
        return tables

    def _override(self, tables: dict[str, dict[str, Any]], override: Override) -> None:
        section, _, key = override.key.partition(".")
        if section not in _SECTIONS:
            self.problems.append(f"{override.spelling}: {_unknown(override.key, _all_keys())}")
            return
        same = [label for set_key, label in self.labels.items() if _overlap(set_key, override.key)]
        if same:
            self.problems.append(f"{override.spelling}: {same[0]} sets the same key; keep one of them")
            return
        self.labels[override.key] = override.spelling
        value = _parse_value(override.key, override.text)
        if not key and not isinstance(value, dict):
            also = f"; for a fixed one set optimizer.{section}" if section in HYPERPARAMETERS else ""
            self._complain(section, f'{shown(value)} is not a table such as {{name = "Constant"}}{also}')
        elif not key:
            tables[section] = value
        elif _SECTIONS[section] is not None:
            tables[section][key] = value
        elif problem := _set_within(tables[section], key, value):
            self._complain(override.key, problem)

    def _section(self, section: str, given: dict[str, Any]) -> Any:
        cls = _SECTIONS[section]
        if cls is None:
            return self._open_table(section, given)
        good = {}
        for key, value in given.items():
            problem = _problem(f"{section}.{key}", value)
            if problem:
                self._complain(f"{section}.{key}", problem)
            else:
                good[key] = value
        return cls(**good)

    def _open_table(self, section: str, given: dict[str, Any]) -> dict[str, Any]:
        if section == "optimizer":
            given.setdefault("name", "sgd")
        allowed = _is_plain if section == "optimizer" else _is_plain_or_table
        also = "" if section == "optimizer" else ", or a table with the name of a schedule"
        for key, value in given.items():
            if not allowed(value):
                place, wrong = _innermost(key, value, allowed)
                sentence = f"{shown(wrong)} is not a finite number, text, true, false or a list of these{also}"
                self._complain(f"{section}.{place}", sentence)
                self.refused.add(f"{section}.{key}")
        return {key: value for key, value in given.items() if allowed(value)}

    def _check_unread(self) -> None:
        if self.config.data.num_workers and self.config.data.loader != "gluon":
            self._complain("data.num_workers", 'only the loader "gluon" has workers; set data.loader or leave this at 0')
        data = self.config.data
        if data.validation_images >= data.train_images:
            sentence = f"{data.validation_images} leaves none of the {data.train_images} training images to train on"
            self._complain("data.validation_images", sentence)
        for name in HYPERPARAMETERS:
            if getattr(self.config, name) and name in self.config.optimizer:
                self._complain(f"optimizer.{name}", f"the table [{name}] is a schedule of it; keep one of them")
        optimizer = self.config.optimizer.get("name")
        if self.config.momentum and optimizer in OPTIMIZERS and "momentum" not in OPTIMIZERS[optimizer]:
            self._complain("momentum", f"{optimizer} has no momentum that a schedule could set")


def _depth(value: Any) -> int:
    """How deep tables and lists nest; without recursion, which has an end of its own."""
    depth, level = 0, [value]
    while level := [inner for each in level if isinstance(each, dict | list) for inner in _members(each)]:
        depth += 1
    return depth


def _members(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: this is not a text file in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: this is not valid TOML: {error}") from error


def _parse_value(key: str, text: str) -> Any:
    """The text of an override as TOML would read it; what TOML cannot read is text without quotes."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = read["value"] if list(read) == ["value"] and _depth(read) <= _DEEPEST else text
    spec = _field(key)
    wants_text = spec is not None and isinstance(spec.metadata["kind"], _Choice | _Device)
    return text if wants_text and not isinstance(value, str) else value


def _problem(key: str, value: Any) -> str | None:
    """What is wrong with the value of a key such as `training.epochs`, or with the key."""
    spec = _field(key)
    problem: str | None = spec.metadata["kind"].problem(value) if spec else _unknown(key, _all_keys())
    return problem


def _overlap(one: str, other: str) -> bool:
    """Whether two keys set the same place, or one of them a place within the other's."""
    short, long = sorted((one, other), key=len)
    return long == short or long.startswith((f"{short}.", f"{short}["))


def _set_within(table: dict[str, Any], key: str, value: Any) -> str | None:
    """Sets `key`, `curve.key`, `curves[0].key` or `curves[0]` of a table; what is wrong if there is no such place."""
    parts = (part.removesuffix("]") for part in re.split(r"\.|\[(?=\d{1,4}\])", key))
    places: list[Any] = [int(part) if part.isdigit() else part for part in parts]
    where: Any = table
    for place in places[:-1]:
        try:
            where = where[place]
        except (KeyError, IndexError, TypeError):
            where = None
        if not isinstance(where, dict | list):
            return f"there is no {place!r} to set it in"
    if isinstance(where, list) != isinstance(places[-1], int) or (isinstance(where, list) and places[-1] >= len(where)):
        return f"there is no {places[-1]!r} to set"
    where[places[-1]] = value
    return None


def _users_code(key: str, settings: Any) -> Iterator[tuple[str, str]]:
    if isinstance(settings, Mapping):
        if ":" in str(settings.get("name")):
            yield f"{key}.name", str(settings["name"])
        for name, value in settings.items():
            yield from _users_code(f"{key}.{name}", value)
    elif isinstance(settings, list):
        for number, value in enumerate(settings):
            yield from _users_code(f"{key}[{number}]", value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    if isinstance(value, str):
        return value.isprintable() or value.encode(errors="ignore").decode() == value  # no half of a surrogate pair
    if isinstance(value, int):
        return value.bit_length() < 1024  # as large as a float can be; Python refuses to write much larger ones
    return isinstance(value, float) and math.isfinite(value)


def _innermost(key: str, value: Any, allowed: Callable[[Any], bool]) -> tuple[str, Any]:
    """The place within a value because of which it is not allowed, and what stands there."""
    if isinstance(value, dict) and allowed({}):
        inner = [(f"{key}.{name}", each) for name, each in value.items()]
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        inner = [(f"{key}[{number}]", each) for number, each in enumerate(value)]
    else:
        inner = []
    return next((_innermost(*each, allowed) for each in inner if not allowed(each[1])), (key, value))


def _is_plain_or_table(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain_or_table(each) for key, each in value.items())
    return all(map(_is_plain_or_table, value)) if isinstance(value, list) else _is_plain(value)


def _to_toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_to_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_to_toml_key(key)} = {_to_toml(each)}' for key, each in value.items())}}}"
    return repr(value)


def _to_toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _to_toml(key)


def _all_keys() -> list[str]:
    closed = [f"{section}.{spec.name}" for section, cls in _SECTIONS.items() if cls for spec in fields(cls)]
    return [*closed, *(f"{section}.name" for section, cls in _SECTIONS.items() if cls is None)]


def _field(key: str) -> Field[Any] | None:
    """The field of a key such as `training.epochs`; None for keys of open tables and unknown ones."""
    section, _, name = key.partition(".")
    cls = _SECTIONS.get(section)
    return next((spec for spec in fields(cls) if spec.name == name), None) if cls else None


def _unknown(key: str, known: Sequence[str]) -> str:
    last_parts = {each.rpartition(".")[2] for each in known}
    near = difflib.get_close_matches(key.rpartition(".")[2], last_parts, n=1)
    same_part = [each for each in known if near and each.rpartition(".")[2] == near[0]]
    nearest = difflib.get_close_matches(key, same_part, n=1, cutoff=0)  # `name` is a key of two tables
    hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
    return f"there is no such key; {hint}"
