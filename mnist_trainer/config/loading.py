"""Configurations from TOML files and overrides. All problems are collected and raised together.

Standard library only. `schema` declares the fields and their kinds, `schedules` checks the settings of a schedule, and
`optimizers` those of an optimizer.
"""

import math
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mnist_trainer import bundled, runtime, user_code
from mnist_trainer.config.optimizers import OPTIMIZERS, optimizer_problems
from mnist_trainer.config.overrides import MAX_DEPTH, NameOverride, Override, PythonOverride, depth
from mnist_trainer.config.schema import (
    HYPERPARAMETERS,
    SECTIONS,
    TUTORIAL_LAYERS,
    RunConfig,
    all_keys,
    check_value,
    keys_of_layer,
    unknown,
)
from mnist_trainer.console import shown
from mnist_trainer.datasets import DATA_SETS
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.fields import FieldError, Whole, did_you_mean
from mnist_trainer.folder import Folder, open_named, read_limited
from mnist_trainer.run_folder import CONFIG
from mnist_trainer.schedules import SettingsError
from mnist_trainer.schedules.catalogue import CURVES, find_curve
from mnist_trainer.schedules.named import fill_settings, missing_settings, rates_to_fill
from mnist_trainer.schedules.settings import UnusedLearningRateError, canonical_settings, key_in_unit, spellings_of

DEFAULT_CONFIG = "tutorial"

_MAX_BYTES = 2**20  # of a TOML file
_MAX_DOTS = 2000  # Python's parser takes quadratic time for a key with many dots
_NOT_A_LAYER = "must be a table such as {lr_mult = 0}"
_OTHER_ENCODINGS = {
    "UTF-32": rb"\xff\xfe\0\0|\0\0\xfe\xff",
    "UTF-16": rb"\xff\xfe|\xfe\xff",
    "UTF-16LE": rb"[^\0]\0[^\0]\0",
    "UTF-16BE": rb"\0[^\0]\0[^\0]",
}
"""Encodings that TOML does not allow → the first bytes: a byte-order mark, or two ASCII characters without one."""
_DECIMAL_POINT = re.compile(rb"(?<![0-9.])[0-9]+\.[0-9]+(?![0-9.])")


def load_config(path: str | Path = DEFAULT_CONFIG, overrides: Mapping[str, Any] | Sequence[Override] = ()) -> RunConfig:
    """Load and check the configuration of a run.

    Args:
        path: A TOML file, or the name of a bundled configuration.
        overrides: Settings that replace those of the file: values by their keys, such as `{"training.epochs": 3}`. A key can
            reach into a schedule, as in `schedule.curve.max_update` or `schedule.curves[0]`, or be `schedule` for the whole
            table. Or settings from the command line.

    Raises:
        RequestError: The file or the overrides are wrong; the error has all problems.

    Example:
        >>> load_config("quick", {"data.train_images": 640, "schedule.name": "Constant"}).data.train_images
        640
    """
    if isinstance(overrides, Mapping):
        overrides = PythonOverride.from_mapping(overrides)
    file = find_config(path)
    search_code([file])
    reading = _Reading(file, _read_named(file), overrides)
    reading.check_schedules()
    return reading.finish()


def search_code(paths: Sequence[str | Path]) -> None:
    """Search the user's code beside these configurations too, except in run folders, which may come from someone else.

    Args:
        paths: TOML files, or names of bundled configurations.
    """
    files = [find_config(path) for path in paths]
    own = [file for file in files if file not in bundled_configs().values() and not (file.parent / CONFIG).exists()]
    user_code.search_beside(*own)


def load_recorded_config(path: str | Path, overrides: Sequence[Override] = ()) -> RunConfig:
    """Load the configuration of a run folder without running code that it names.

    The folder may come from someone else. No code is imported, no schedule is built or checked, and a link is not followed.

    Args:
        path: The TOML file of the run folder.
        overrides: Settings that replace those of the file.

    Raises:
        RequestError: The file or the overrides are wrong; the error has all problems except those of schedules.
    """
    return _read_recorded(path, overrides).finish()


def load_config_to_resume(path: str | Path, overrides: Sequence[Override] = ()) -> tuple[RunConfig, list[str]]:
    """Load the configuration of a run that is to be resumed, and find the code that the user has not confirmed.

    The folder may come from someone else. The file is read once, so that it cannot change between the two.

    Args:
        path: The TOML file of the run folder.
        overrides: Settings that replace those of the file. An override with the name of the user's code confirms it.

    Returns:
        The configuration, and a message for each network or schedule whose code must not run. If there are any, no code is
        imported, and no schedule is built or checked.

    Raises:
        RequestError: The file or the overrides are wrong; the error has all problems.
    """
    reading = _read_recorded(path, overrides)
    unconfirmed = [
        f"{path}: {key} would run the code {name!r}, which this folder names; "
        f"if you trust it, confirm it with --set {shlex.quote(f'{key}={name}')}"
        for key, name in reading.config.users_code().items()
        if not any(override.sets(key) for override in overrides)
    ]
    if not unconfirmed:
        reading.check_schedules()
    return reading.finish(), unconfirmed


def bundled_configs() -> dict[str, Path]:
    """Return the files of the bundled configurations by name."""
    return {path.stem: path for path in sorted(bundled.configs_folder().glob("*.toml"))}


def describe_bundled_configs() -> dict[str, str]:
    """Return the first sentence of each bundled configuration by name."""
    heads = {}
    for name, path in bundled_configs().items():
        paragraph = path.read_text(encoding="utf-8").partition("\n#\n")[0]
        heads[name] = " ".join(line.removeprefix("#").strip() for line in paragraph.splitlines())
    return heads


def find_config(path: str | Path) -> Path:
    """Find the file of a configuration.

    Args:
        path: The name of a bundled configuration, such as `tutorial`, or a file. `configs/NAME.toml` and `NAME.toml` also name
            the bundled configuration if there is no such file.

    Raises:
        RequestError: The file does not exist. The message suggests the nearest name.
    """
    given = Path(path)
    configs = bundled_configs()
    if str(path) in configs:
        return configs[str(path)]
    if os.path.exists(given):  # noqa: PTH110 - Path.exists raises for a name that is too long
        return given
    if (name := _bundled_name(given)) in configs:
        return configs[name]
    hint = did_you_mean(given.stem, configs, f"the bundled configurations are {', '.join(configs)}")
    raise RequestError(f"{path}: there is no file or bundled configuration of this name; {hint}")


def _bundled_name(path: Path) -> str:
    """Return the name of the bundled configuration that a path names if there is no such file; "" if it names none."""
    if path.suffix == ".toml" and str(path.parent) in (".", "configs"):
        return path.stem.lower()
    return str(path).lower() if str(path.parent) == "." else ""


def config_name(path: str | Path) -> str:
    """Return the name of a configuration: its file without the ending, or for the `config.toml` of a run, the run folder."""
    path = Path(path)
    if path.name == CONFIG:
        return path.resolve().parent.name
    bundled_name = _bundled_name(path)
    return bundled_name if bundled_name in bundled_configs() and not os.path.exists(path) else path.stem  # noqa: PTH110


class _Reading:
    """Reads a file and overrides, and collects all problems."""

    def __init__(self, file: Path, content: bytes, overrides: Sequence[Override]) -> None:
        self.problems: list[str] = []
        self.file = file
        self.content = content
        self.overrides: list[Override] = []
        self.refused: set[str] = set()
        tables = self._from_file()
        self.file_schedule = tables["schedule"].get("name")
        for override in overrides:
            self._override(tables, override)
        self._complete_data(tables["data"])
        self._complete_schedule(tables)
        if self._is_set("model.initial_parameters") and not self._is_set("model.initial_parameters_sha256"):
            tables["model"].pop("initial_parameters_sha256", None)  # it belongs to the parameters that the file names
        self.config = RunConfig(**{section: self._section(section, tables[section]) for section in SECTIONS})
        self._check_relations()
        for problem in optimizer_problems(self.config.optimizer):
            self._complain(f"optimizer.{problem.field}", problem.sentence, problem.given)

    def _complete_data(self, table: dict[str, Any]) -> None:
        """Fill and check the numbers of images of a known data set; those of another one must be given."""
        if self._is_set("data.name") and not self._is_set("data.sha256"):
            table.pop("sha256", None)  # it belongs to the data that the file names
        try:
            name = check_value("data.name", table.get("name", "mnist"))
        except FieldError:
            return  # reported later
        keys = ("train_images", "test_images")
        if known := DATA_SETS.get(name):
            table |= {key: getattr(known, key) for key in keys if key not in table}
            ranges = {key: Whole(1, getattr(known, key)) for key in keys}
            for key, kind in {**ranges, "validation_images": Whole(0, known.train_images - 1)}.items():
                try:
                    kind.check(f"data.{key}", table.get(key, 0))
                except FieldError as error:
                    self._complain(error.field, error.sentence, error.given)
                    del table[key]
        elif missing := [f"data.{key}" for key in keys if key not in table]:
            advice = f"mnist-trainer data verify --name {shlex.quote(name)} prints them"
            self._complain("data.name", f"needs {' and '.join(missing)}, its numbers of images; {advice}", shown(name))

    def check_schedules(self) -> None:
        if self.config.run_length.total_iterations < 1:
            return  # reported already, and durations cannot be converted without it
        if self.config.users_code() and not runtime.mxnet_is_loaded():
            with collected(self.problems):
                runtime.prepare(self.config.runtime.threads)  # a user's module may import MXNet
        flag = self._schedule_flag()
        try:
            try:
                schedule = self.config.build_schedule()
            except UnusedLearningRateError:
                if not flag or self._is_set("training.learning_rate"):
                    raise
                # The rate of the file was for its own schedule.
                self.config = replace(self.config, training=replace(self.config.training, learning_rate=None))
                schedule = self.config.build_schedule()
        except SettingsError as error:
            self._complain_of_schedule("schedule", error)
        else:
            if schedule.reacts and not self.config.data.validation_images:
                sentence = "the schedule reacts to results on validation images, and there are none"
                if self._is_set("schedule.name"):
                    self._complain("schedule.name", f"{sentence}; add --validation-images 5000, for example")
                else:
                    self._complain("data.validation_images", f"{sentence}; set it to 5000, for example")
        for name in HYPERPARAMETERS:
            try:
                if getattr(self.config, name):
                    self.config.build_hyperparameter(name)
            except SettingsError as error:
                self._complain_of_schedule(name, error)

    def _complain_of_schedule(self, section: str, error: SettingsError) -> None:
        problems = self._without_consequences(error.problems) if section == "schedule" else error.problems
        for problem in map(self._with_remedy, problems):
            key = "training.learning_rate" if problem.field == "learning_rate" else f"{section}.{problem.field}"
            # A setting that was refused is not in the table, and would be reported again as missing.
            if self.refused.isdisjoint({key_in_unit(key, unit) for unit in ("iterations", "epochs", "fraction")}):
                self._complain(key, problem.sentence, problem.given)

    def _schedule_flag(self) -> NameOverride | None:
        """Return the flag that names the schedule."""
        flags = (override for override in self.overrides if override.key == "schedule")
        return next((flag for flag in flags if isinstance(flag, NameOverride)), None)

    def _complete_schedule(self, tables: dict[str, dict[str, Any]]) -> None:
        """Fill the settings that a schedule from a flag leaves open, and move its `base_lr` to the learning rate of the run."""
        flag, table, training = self._schedule_flag(), tables["schedule"], tables["training"]
        if flag is None or not isinstance(table.get("name"), str):
            return
        if "base_lr" in table and self._is_set("training.learning_rate"):
            self._complain("schedule.base_lr", "the learning rate is given twice; keep one", shown(table.pop("base_lr")))
        elif "base_lr" in table:
            base_lr = table.pop("base_lr")
            try:
                training["learning_rate"] = check_value("training.learning_rate", base_lr)
            except FieldError as error:
                self._complain("schedule.base_lr", error.sentence, error.given)
        if ":" in table["name"]:
            return
        try:
            curve = find_curve(table["name"])
        except ValueError:
            return  # reported later
        if curve.is_momentum:
            self._complain("schedule.name", f"{curve.__name__} is a schedule of the momentum; write it in a table [momentum]")
            self.refused.add("training.learning_rate")  # which it does not use either
        learning_rate = training.get("learning_rate")
        try:
            learning_rate = None if learning_rate is None else check_value("training.learning_rate", learning_rate)
        except FieldError as error:
            self._complain(error.field, error.sentence, error.given)
            learning_rate = None
            del training["learning_rate"]
        taken = rates_to_fill(table)
        tables["schedule"] = fill_settings(table, flag.is_name_alone, learning_rate)
        if taken and learning_rate is not None:
            del training["learning_rate"]
        elif taken or (learning_rate is None and "base_lr" in {spec.name for spec in fields(curve)}):
            if "training.learning_rate" not in self.refused:
                sentence = f"{curve.__name__} needs a learning rate, which {self.file} does not set"
                self._complain("schedule.name", f"{sentence}; add --learning-rate 0.1, for example")
            self.refused |= {"training.learning_rate", *(f"schedule.{name}" for name in taken)}
        for name, sentence in missing_settings(tables["schedule"]).items():
            if sentence and f"schedule.{name}" not in self.refused:
                self._complain(f"schedule.{name}", sentence)
            self.refused.add(f"schedule.{name}")

    def _with_remedy(self, problem: FieldError) -> FieldError:
        """Return a problem of the schedule, with the remedy if `--set` has a setting of another schedule."""
        key, name = problem.field, str(self.config.schedule.get("name"))
        if self._schedule_flag() or key in ("name", "learning_rate") or not self._is_set(f"schedule.{key}") or ":" in name:
            return problem
        having = [curve.__name__ for curve in CURVES if any(key in spellings_of(spec) for spec in fields(curve))]
        if not having or name in having or self._is_set("schedule.name"):
            return problem
        schedules = ", ".join(having[:3]) + (" and others" if having[3:] else "")
        has = f"{having[0]} has" if len(having) == 1 else f"{schedules} have"
        sentence = (
            f"{name}, the schedule of the configuration, has no such setting ({has} it); choose another with --schedule NAME"
        )
        return FieldError(key, sentence)

    def _without_consequences(self, problems: list[FieldError]) -> list[FieldError]:
        """Report a `--set schedule.name` that leaves the settings of another schedule, and return only the other problems."""
        renamed = any(override.key == "schedule.name" for override in self.overrides)
        name = str(self.config.schedule.get("name"))
        own = [problem for problem in problems if self._is_set(f"schedule.{problem.field}")]
        if not renamed or not self.file_schedule or name == self.file_schedule or len(own) == len(problems):
            return problems
        sentence = f"the other settings of the schedule are those of {shown(self.file_schedule)}; write --schedule {name}"
        self._complain("schedule.name", f"{sentence}, which replaces them all")
        return own

    def finish(self) -> RunConfig:
        if self.problems:
            raise RequestError(*self.problems)
        return self.config

    def _is_set(self, key: str) -> bool:
        """Return True if the command line sets a key."""
        return any(override.sets(key) for override in self.overrides)

    def _complain(self, key: str, sentence: str, given: str = "") -> None:
        """Add a problem, with the file or the flag that it comes from.

        Args:
            key: The key of the setting.
            sentence: The mistake and its remedy.
            given: The wrong value as shown in messages; empty if the mistake is not in the value.
        """
        self.refused.add(key)
        value = f" = {given}" if given else ""
        setting = (override for override in self.overrides if override.sets(key))
        override = max(setting, key=lambda override: len(override.key), default=None)  # the one nearest to the key
        section = key.partition(".")[0]
        named = next((override for override in self.overrides if override.key == f"{section}.name"), None)
        if override is None and named and section in HYPERPARAMETERS:
            label = f"{named}: {key}{value}"
        elif override is None:
            label = f"{self.file}: {key}{value}"
        elif isinstance(override, NameOverride):
            within = key.removeprefix(override.key).removeprefix(".")
            label = f"{override}{f': {within}{value}' if within != 'name' else ''}"
        elif override.key == key:
            label = str(override) if given else override.spelling
        else:  # a whole table or list came from the command line
            within = key.removeprefix(override.key)
            label = f"{override.spelling}{f', {within[1:]}' if within.startswith('.') else within}{value}"
        self.problems.append(f"{label}: {sentence}")

    def _from_file(self) -> dict[str, dict[str, Any]]:
        """Return the tables of the file by section, with an empty table for each section that the file leaves out."""
        tables: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        for section, table in _parse_toml(self.file, self.content).items():
            if depth(table) > MAX_DEPTH:
                self._complain(section, f"tables and lists nest more than {MAX_DEPTH} deep")
            elif section in HYPERPARAMETERS and table == {}:
                self._complain(f"{section}.name", f"missing; write the name of a schedule, or leave out the table [{section}]")
            elif isinstance(table, dict) and section in SECTIONS:
                tables[section] = table
            elif section in SECTIONS:
                self._complain(section, f"must be a table; write [{section}], and its keys on the lines below")
            else:
                self._complain(section, unknown(section, list(SECTIONS)))
        return tables

    def _override(self, tables: dict[str, dict[str, Any]], override: Override) -> None:
        section, _, key = override.key.partition(".")
        if section not in SECTIONS:
            self.problems.append(f"{override.spelling}: {unknown(override.key, all_keys())}")
            return
        if not key and SECTIONS[section] is not None:
            self.problems.append(f"{override.spelling}: write it as section.key, for example training.epochs")
            return
        same = next((other for other in self.overrides if other.overlaps(override.key)), None)
        if same and not (isinstance(same, NameOverride) and same.leaves(override)):
            self.problems.append(f"{override.spelling}: {same.spelling} sets the same key; keep one of them")
            return
        self.overrides.append(override)
        try:
            value = override.value()
        except FieldError as error:
            self._complain(f"{section}.{error.field}", error.sentence)
            tables[section] = {}
            return
        if not key and not isinstance(value, dict):
            also = f"; for a fixed value set optimizer.{section}" if section in HYPERPARAMETERS else ""
            example = "{conv1 = {lr_mult = 0}}" if section == "layers" else '{name = "Constant"}'
            self._complain(section, f"must be a table such as {example}{also}", shown(value))
        elif not key:
            tables[section] = value
        elif SECTIONS[section] is not None:
            tables[section][key] = value
        elif section == "layers":
            self._override_layer(tables[section], override, key, value)
        else:
            try:
                override.set_within(tables[section])
            except FieldError as error:
                self._complain(override.key, error.sentence)

    def _override_layer(self, layers: dict[str, Any], override: Override, key: str, value: Any) -> None:
        layer, dot, multiplier = key.rpartition(".")
        if isinstance(value, dict):
            layers[key] = value
        elif not dot:
            self._complain(override.key, _NOT_A_LAYER, shown(value))
        elif isinstance(layers.setdefault(layer, {}), dict):
            layers[layer][multiplier] = value

    def _section(self, section: str, given: dict[str, Any]) -> Any:
        cls = SECTIONS[section]
        if section == "layers":
            return {layer: self._layer(layer, table) for layer, table in given.items()}
        if cls is None:
            return self._open_table(section, given)
        good = {}
        for key, value in given.items():
            try:
                good[key] = check_value(f"{section}.{key}", value)
            except FieldError as error:
                self._complain(error.field, error.sentence, error.given)
        return cls(**good)

    def _layer(self, layer: str, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict):
            self._complain(f"layers.{layer}", _NOT_A_LAYER, shown(given))
            return {}
        good = {}
        for multiplier, value in given.items():
            key = f"layers.{layer}.{multiplier}"
            try:
                if key not in keys_of_layer(layer):
                    quoted = f'for the layer "{layer}.{multiplier}", write [layers."{layer}.{multiplier}"]'
                    raise FieldError(key, quoted if isinstance(value, dict) else unknown(key, keys_of_layer(layer)))
                check_value(key, value)
                good[multiplier] = value
            except FieldError as error:
                self._complain(error.field, error.sentence, error.given)
        return good

    def _open_table(self, section: str, given: dict[str, Any]) -> dict[str, Any]:
        if section == "optimizer":
            given.setdefault("name", "sgd")
        allowed = _is_plain if section == "optimizer" else _is_plain_or_table
        also = "" if section == "optimizer" else ", or a table with the name of a schedule"
        for key, value in given.items():
            if not allowed(value):
                place, wrong = _innermost(key, value, allowed)
                sentence = f"must be a finite number, text, true, false or a list of these{also}"
                self._complain(f"{section}.{place}", sentence, shown(wrong))
                self.refused.add(f"{section}.{key}")
        kept = {key: value for key, value in given.items() if allowed(value)}
        if section != "optimizer":
            return dict(canonical_settings(kept))
        name = kept.get("name")
        return kept | {"name": name.lower()} if isinstance(name, str) and name.lower() in OPTIMIZERS else kept

    def _check_relations(self) -> None:
        data = self.config.data
        known = DATA_SETS.get(data.name)
        for key in ("classes", "image_size", "sha256") if known else ():
            if getattr(data, key) is not None and (key, data.name) != ("sha256", "emnist-digits"):
                self._complain(f"data.{key}", f"is known for {data.name}; leave it out, or choose another data.name")
        if data.classes is not None and not 2 <= len(set(data.classes)) == len(data.classes) <= 256:
            self._complain("data.classes", "must be 2 to 256 different names", shown(list(data.classes)))
        if data.image_size is not None and len(data.image_size) != 2:
            self._complain("data.image_size", "must be a height and a width, such as [32, 32]", shown(list(data.image_size)))
        if data.validation_images >= data.train_images:
            if self._is_set("data.train_images") and not self._is_set("data.validation_images"):
                sentence = f"must be more than data.validation_images = {data.validation_images}; change one of them"
                self._complain("data.train_images", sentence, str(data.train_images))
            else:
                sentence = f"must be less than data.train_images = {data.train_images}; the other images are for training"
                self._complain("data.validation_images", sentence, str(data.validation_images))
        patience = self.config.early_stopping.patience
        if patience is not None and not data.validation_images:
            sentence = "early stopping needs validation images; set data.validation_images to 5000, for example"
            self._complain("early_stopping.patience", sentence, str(patience))
        model = self.config.model
        if model.initial_parameters_sha256 and not model.initial_parameters and "model.initial_parameters" not in self.refused:
            sentence = "belongs to model.initial_parameters, which is missing; leave it out, or set both"
            self._complain("model.initial_parameters_sha256", sentence)
        for layer, table in self.config.layers.items() if not model.network and "model.network" not in self.refused else ():
            if layer not in TUTORIAL_LAYERS:
                hint = did_you_mean(layer, TUTORIAL_LAYERS, f"there are {', '.join(TUTORIAL_LAYERS)}")
                key = ".".join(("layers", layer, *islice(table, 1)))  # as in the command line's --set layers.conv3.lr_mult
                self._complain(key, f"the tutorial's network has no layer {layer}; {hint}")
        for name in HYPERPARAMETERS:
            if getattr(self.config, name) and name in self.config.optimizer:
                away = f"; --set {name}={{}} leaves the table out" if self._is_set(f"optimizer.{name}") else ""
                sentence = f"the table [{name}] is a schedule for {name}; keep one of the two{away}"
                self._complain(f"optimizer.{name}", sentence)
        optimizer = self.config.optimizer.get("name")
        if self.config.momentum and optimizer in OPTIMIZERS and "momentum" not in OPTIMIZERS[optimizer]:
            remedy = "add --set momentum={}" if self._is_set("optimizer.name") else "leave out the table [momentum]"
            sentence = f"{optimizer} has no momentum, which the table [momentum] is a schedule for; {remedy}"
            self._complain("optimizer.name" if self._is_set("optimizer.name") else "momentum", sentence)


def _read_recorded(path: str | Path, overrides: Sequence[Override]) -> _Reading:
    file = Path(path)
    try:
        return _Reading(file, Folder(file.parent).read(file.name, _MAX_BYTES), overrides)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error


def _read_named(path: Path) -> bytes:
    try:
        with open_named(path, _MAX_BYTES) as stream:
            return read_limited(stream, path, _MAX_BYTES)
    except IsADirectoryError as error:
        hint = f"for the configuration of this run, write {path / CONFIG}" if (path / CONFIG).exists() else "name a TOML file"
        raise RequestError(f"{path}: this is a folder; {hint}") from error
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error


def _parse_toml(path: Path, content: bytes) -> dict[str, Any]:
    if content.count(b".") - len(_DECIMAL_POINT.findall(content)) > _MAX_DOTS:
        raise RequestError(f"{path}: has more than {_MAX_DOTS:,} dots outside of numbers; shorten its keys")
    for encoding, begins in _OTHER_ENCODINGS.items():
        if re.match(begins, content, re.DOTALL):
            remedy = f"save it in UTF-8, for example with iconv -f {encoding} -t UTF-8"
            raise RequestError(f"{path}: the file is in {encoding}; {remedy}")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # editors on Windows begin a file with a byte-order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        place = f"line {line} has the byte 0x{content[error.start]:02X}"
        raise RequestError(f"{path}: not a UTF-8 text file ({place}); save it in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: not valid TOML: {error}") from error


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return value.isprintable() or value.encode(errors="ignore").decode() == value  # no half of a surrogate pair
    if isinstance(value, int):
        return value.bit_length() < 1024  # the range of a float; Python refuses to write much larger numbers
    return isinstance(value, float) and math.isfinite(value)


def _innermost(key: str, value: Any, allowed: Callable[[Any], bool]) -> tuple[str, Any]:
    """Return the innermost value that is not allowed, and its place."""
    if isinstance(value, dict) and allowed({}):
        inner = [(f"{key}.{name}", held) for name, held in value.items()]
    elif isinstance(value, list) and any(isinstance(member, dict) for member in value):
        inner = [(f"{key}[{number}]", member) for number, member in enumerate(value)]
    else:
        inner = []
    return next((_innermost(place, held, allowed) for place, held in inner if not allowed(held)), (key, value))


def _is_plain_or_table(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain_or_table(held) for key, held in value.items())
    return all(map(_is_plain_or_table, value)) if isinstance(value, list) else _is_plain(value)
