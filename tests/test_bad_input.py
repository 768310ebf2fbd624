"""Bad input in bulk: configurations, flags, data files and run folders, each spoiled in a known place.

Each request ends with exit code 2, prints messages that name the spoiled place, prints nothing on stdout, and leaves the disk
unchanged. If a spoiled file is not needed, the result is correct.
"""

import ast
import gzip
import json
import os
import random
import re
import resource
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, assert_names, run
from small_runs import spare_time, train
from wrong_values import FLAGS, HUGE, WRONG_VALUES, typed

from mnist_trainer import bundled
from mnist_trainer.config.loading import load_config
from mnist_trainer.data import mnist_files
from mnist_trainer.data.mnist_files import DATA_DIR_VARIABLE, FILES
from mnist_trainer.training import experiment, lr_search

DONE, FAILED, WRONG_REQUEST = 0, 1, 2

# A file in the way may be intact and belong to the user. A message may advise to move it elsewhere.
ADVICE_TO_REMOVE = re.compile(r"\b(remove|delete|erase|discard|rm)d?\b", re.IGNORECASE)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return the paths of a folder and below it, each with the time of its last change, and its bytes if it is a file."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


def assert_refused(outcome: Outcome, *named: str) -> None:
    """Assert exit code 2 and only messages, which contain these words."""
    assert (outcome.code, outcome.out) == (WRONG_REQUEST, ""), outcome
    assert_messages(outcome)
    for word in named:
        assert word in outcome.err


def assert_messages(outcome: Outcome) -> None:
    assert outcome.err.endswith("\n")
    for line in outcome.err.splitlines():
        assert line.startswith("mnist-trainer: "), outcome.err
        assert len(line) > 25
    assert "Traceback" not in outcome.err
    assert not ADVICE_TO_REMOVE.search(outcome.err)


def never(*arguments: object, **others: object) -> None:
    raise AssertionError("a bad request was accepted")


# --- mistakes in configurations and flags


@dataclass
class Case:
    """A request with one mistake.

    Attributes:
        arguments: The command line.
        named: The key, flag or file that is spoiled, which the message must contain.
        files: The files in the current folder, by name.
        setup: Prepares the current folder further.
    """

    arguments: list[str]
    named: str
    files: dict[str, str | bytes] = field(default_factory=dict)
    setup: Callable[[], object] | None = None

    def __str__(self) -> str:
        return f"{self.arguments} with {self.files}, where {self.named!r} is spoiled"


Table = dict[str, Any]
SMALL = ("--train-images", "128", "--test-images", "100")


class Raw(str):
    """A value that is written to the file without conversion."""

    __slots__ = ()


def toml(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def document(tables: Table) -> str:
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items()) for name, table in tables.items()
    )


def good_document(chance: random.Random) -> Table:
    """Return a configuration without mistakes."""
    schedules: list[Table] = [
        {"name": "MultiFactor", "step_epochs": [4, 7], "factor": 0.1},
        {"name": "Cosine", "max_update_fraction": 1.0, "warmup_epochs": 0.5},
        {"name": "Factor", "step": 20, "factor": 0.5},
        {"name": "Warmup", "warmup_epochs": 0.5, "curve": {"name": "InverseSqrt", "timescale_epochs": 0.5}},
    ]
    return {
        "training": {"epochs": 2, "batch_size": 64, "learning_rate": 0.03},
        "schedule": chance.choice(schedules),
        "optimizer": {"name": "sgd"},
        "model": {"backend": "stock"},
        "data": {"train_images": 128, "test_images": 100},
        "checkpoint": {"every_iterations": 10, "keep": 3},
        "runtime": {"threads": 1},
    }


OF_THE_SEARCH = (
    *("training.batch_size", "training.seed", "data.train_images", "runtime.device", "runtime.threads"),
    "model.initial_parameters",
)


def command_with_file(chance: random.Random, name: str) -> list[str]:
    """Return a command that reads a configuration."""
    commands = [
        ["train", "--config", name],
        ["train", "--quiet", "--output", "run", "--config", name],
        ["find-lr", "--config", name, "--output", "run"],
        ["schedules", "show", name, "--iterations", "1,2,3"],
        ["schedules", "plot", name, "--output", "curve.png"],
    ]
    return chance.choice(commands)


def with_file(chance: random.Random, tables: Table, named: str) -> Case:
    name = chance.choice(["mine.toml", "./mine.toml"])
    return Case(command_with_file(chance, name), named, {"mine.toml": document(tables)})


def wrong_value_in_file(chance: random.Random) -> Case:
    key = chance.choice(sorted(WRONG_VALUES))
    tables = good_document(chance)
    section, name = key.split(".")
    if section == "schedule":
        tables["schedule"] = {"name": "MultiFactor", "step_epochs": [4, 7], "factor": 0.1}
    tables.setdefault(section, {})[name] = Raw(chance.choice(WRONG_VALUES[key]))
    return with_file(chance, tables, key)


def wrong_value_by_set(chance: random.Random) -> Case:
    key = chance.choice(sorted(set(WRONG_VALUES) - {"runtime.threads", "data.train_images", "data.test_images"}))
    value = typed(chance.choice(WRONG_VALUES[key]))
    return Case(["train", *SMALL, "--threads", "1", "--set", f"{key}={value}"], f"--set {key}")


def wrong_value_by_flag(chance: random.Random) -> Case:
    command = chance.choice(["train", "find-lr"])
    key = chance.choice(sorted(FLAGS) if command == "train" else OF_THE_SEARCH)
    value = typed(chance.choice(WRONG_VALUES[key]))
    return Case([command, f"{FLAGS[key]}={value}"], f"{FLAGS[key]} ")


def unknown_key(chance: random.Random) -> Case:
    tables = good_document(chance)
    section = chance.choice(["training", "model", "data", "runtime", "checkpoint", "optimizer", "schedule"])
    name = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(1, 20))) + "_q"  # no key ends with _q
    if chance.random() < 0.3:
        return Case(["train", "--set", f"{section}.{name}=1"], f"--set {section}.{name}: ")
    tables[section][name] = chance.choice([1, "text", [], {}])
    return with_file(chance, tables, f"{section}.{name}")


def unknown_section(chance: random.Random) -> Case:
    tables = good_document(chance)
    name = chance.choice(["trainings", "checkpoints", "lr_schedule", "wds", "network", "Training", "momentums", "x" * 200])
    tables[name] = {"epochs": 3}
    return with_file(chance, tables, f"{name}: ")


def section_of_another_kind(chance: random.Random) -> Case:
    section = chance.choice(["training", "schedule", "optimizer", "momentum", "wd", "model", "data", "checkpoint", "runtime"])
    value = chance.choice([3, "text", [], True, [{"name": "Constant"}], 0.5])
    tables = good_document(chance)
    tables.pop(section, None)
    return Case(
        command_with_file(chance, "mine.toml"),
        f"{section}: ",
        {"mine.toml": f"{section} = {toml(value)}\n" + document(tables)},
    )


def invalid_toml(chance: random.Random) -> Case:
    text = document(good_document(chance))
    broken: list[str | bytes] = [
        chance.randbytes(200) + b"\xff",
        b"\x1f\x8b" + chance.randbytes(50),
        text.encode("utf-16"),
        text.replace("[training]", "[training"),
        text.replace(" = ", " ", 1),
        text + "\n[training]\nepochs = 2\n",
        text + "\n[data]\n",
        text.replace("epochs = 2", "epochs = 2\nepochs = 2"),
        text + '"""',
        text + "\0",
        text + "a = " + "[" * 5000,
        text.replace("epochs = 2", "epochs = 02"),
        text.replace("epochs = 2", "epochs = "),
        text.replace("epochs = 2", "epochs = None"),
        text.replace("epochs = 2", "epochs: 2"),
    ]
    return Case(command_with_file(chance, "mine.toml"), "mine.toml: ", {"mine.toml": chance.choice(broken)})


def something_missing(chance: random.Random) -> Case:
    tables = good_document(chance)
    section, key = chance.choice([("training", "learning_rate"), ("schedule", "name")])
    del tables[section][key]
    if chance.random() < 0.3:
        del tables[section]
    if chance.random() < 0.2:  # an unnamed schedule has no settings that could be missing
        return Case(command_with_file(chance, "mine.toml"), "schedule.name: ", {"mine.toml": ""})
    return with_file(chance, tables, f"{section}.{key}: ")


def contradicting_keys(chance: random.Random) -> Case:
    """Spoil a configuration with two values that are correct alone but not together."""
    tables = good_document(chance)
    section, changed, named = chance.choice(
        [
            ("data", {"validation_images": 128}, "data.validation_images"),
            ("momentum", {"name": "Constant", "base_lr": 1.0}, "[momentum]"),
            ("momentum", {"name": "Linear", "base_lr": 0.5, "final_lr": 1.0, "max_update": 3}, "[momentum]"),
        ]
    )
    tables.setdefault(section, {}).update(changed)
    if named == "[momentum]":  # found when the rates are computed, which only training does
        return Case(["train", "--config", "mine.toml"], named, {"mine.toml": document(tables)})
    return with_file(chance, tables, named)


def wrong_hyperparameter(chance: random.Random) -> Case:
    tables = good_document(chance)
    name = chance.choice(["momentum", "wd"])
    constant = {"name": "Constant", "base_lr": 0.5}
    kind = chance.randrange(6)
    named = f"{name}.name: "
    if kind == 0:
        tables[name], tables["optimizer"] = constant, {"name": "sgd", name: 0.5}
        named = f"optimizer.{name}: "
    elif kind == 1:
        tables["momentum"], tables["optimizer"] = constant, {"name": chance.choice(["adam", "ftrl", "rmsprop", "dcasgd"])}
        named = "momentum: "
    elif kind == 2:
        tables[name] = {"name": "Plateau", "curve": constant}
    elif kind == 3:
        tables[name] = {}
    elif kind == 4:
        tables[name] = {"name": "Constant"}
        named = f"{name}.base_lr: "
    else:
        tables[name] = {"base_lr": 0.5}
    return with_file(chance, tables, named)


Spoiled = tuple[Table, str]  # settings, and the wrong key in them

LEAVES: list[Callable[[], Spoiled]] = [
    lambda: ({"name": "MultiFactor", "step": [3, 2], "factor": 0.1}, "step"),
    lambda: ({"name": "MultiFactor", "step": [], "factor": 0.1}, "step"),
    lambda: ({"name": "MultiFactor", "step": 3, "factor": 0.1}, "step"),
    lambda: ({"name": "MultiFactor", "step_epochs": ["a"], "factor": 0.1}, "step_epochs"),
    lambda: ({"name": "MultiFactor", "step_fraction": [0.5, 1.5], "factor": 0.1}, "step_fraction"),
    lambda: ({"name": "MultiFactor", "step": [3], "step_epochs": [1], "factor": 0.1}, "step_epochs"),
    lambda: ({"name": "MultiFactor", "step": [3], "factor": 2}, "factor"),
    lambda: ({"name": "MultiFactor", "factor": 0.5}, "step"),
    lambda: ({"name": "Factor", "step": 0, "factor": 0.5}, "step"),
    lambda: ({"name": "Factor", "step": 2.5, "factor": 0.5}, "step"),
    lambda: ({"name": "Factor", "step": Raw("1" + "0" * 25), "factor": 0.5}, "step"),
    lambda: ({"name": "Factor", "step": Raw(HUGE), "factor": 0.5}, "step"),
    lambda: ({"name": "Factor", "step": 5, "factor": Raw(HUGE)}, "factor"),
    lambda: ({"name": "Cosine", "max_update_epochs": Raw(HUGE)}, "max_update_epochs"),
    lambda: ({"name": "Factor", "step_epoch": 1, "factor": 0.5}, "step_epoch"),
    lambda: ({"name": "Factor", "step_iterations": 1, "factor": 0.5}, "step_iterations"),
    lambda: ({"name": "Factor", "step": 5, "factor": "half"}, "factor"),
    lambda: ({"name": "Factor", "step": 5, "factor": Raw("nan")}, "factor"),
    lambda: ({"name": "Factor", "step": 5, "factor": Raw("inf")}, "factor"),
    lambda: ({"name": "Factor", "step": 5, "factor": Raw("1e400")}, "factor"),
    lambda: ({"name": "Factor", "step": 5, "factor": True}, "factor"),
    lambda: ({"name": "Factor", "step": 5, "factor": 0.5, "factr": 0.5}, "factr"),
    lambda: ({"name": "Cosine", "max_update": 0}, "max_update"),
    lambda: ({"name": "Cosine", "max_update_fraction": 1.01}, "max_update_fraction"),
    lambda: ({"name": "Cosine", "max_update_epochs": -1}, "max_update_epochs"),
    lambda: ({"name": "Cosine", "max_update_epochs": Raw("nan")}, "max_update_epochs"),
    lambda: ({"name": "Cosine", "max_update_fraction": 1, "max_update_epochs": 1}, "max_update_epochs"),
    lambda: ({"name": "Cosine", "max_update": 4, "final_lr": -1}, "final_lr"),
    lambda: ({"name": "Cosine", "max_update": 4, "final_lr": 1e39}, "final_lr"),
    lambda: ({"name": "Cosine", "max_update": 3, "warmup_steps": 3}, "warmup_steps"),
    lambda: ({"name": "Cosine", "max_update": 4, "warmup_steps": 2, "warmup_mode": "cubic"}, "warmup_mode"),
    lambda: ({"name": "Poly", "max_update": 4, "pwr": "two"}, "pwr"),
    lambda: ({"name": "Constnt"}, "name"),
    lambda: ({"name": 3}, "name"),
    lambda: ({"name": ["Constant"]}, "name"),
    lambda: ({"nam": "Constant"}, "name"),
    lambda: ({"name": "nowhere.at:all"}, "name"),
    lambda: ({"name": "Constant", "curve": {"name": "Constant"}}, "curve"),
    lambda: ({"name": "Scale", "factor": 0.5, "curve": "Constant"}, "curve"),
    lambda: ({"name": "Scale", "factor": 0.5, "curve": [{"name": "Constant"}]}, "curve"),
    lambda: ({"name": "Scale", "factor": 0.5}, "curve"),
    lambda: ({"name": "Sequential", "curves": [], "boundaries": []}, "curves"),
    lambda: ({"name": "Product", "curves": {"name": "Constant"}}, "curves"),
    lambda: ({"name": "Product", "curves": ["Constant", "Cosine"]}, "curves[0]"),
]


def spoiled_schedule(chance: random.Random, depth: int) -> Spoiled:
    """Return a schedule with a mistake in the innermost of its tables, and the path to the mistake."""
    if depth == 0:
        return chance.choice(LEAVES)()
    inner, path = spoiled_schedule(chance, depth - 1)
    good: Table = {"name": "Constant", "base_lr": 0.1}
    holder = chance.choice(["Scale", "Repeat", "Clip", "Warmup", "Sequential", "Product"])
    if holder in ("Sequential", "Product"):
        place = chance.randrange(2)
        curves = [inner, good] if place == 0 else [good, inner]
        others = {"boundaries": [20]} if holder == "Sequential" else {}
        return {"name": holder, "curves": curves, **others}, f"curves[{place}].{path}"
    arguments: dict[str, Table] = {
        "Scale": {"factor": 0.5},
        "Repeat": {"length": 2},
        "Clip": {"min_lr": 0.0, "max_lr": 1.0},
        "Warmup": {"warmup_steps": 2},
    }
    return {"name": holder, "curve": inner, **arguments[holder]}, f"curve.{path}"


def nested_mistake(chance: random.Random) -> Case:
    settings, path = spoiled_schedule(chance, chance.randint(0, 7))
    section = chance.choice(["schedule", "schedule", "schedule", "momentum", "wd"])
    tables = good_document(chance)
    tables[section] = settings
    if chance.random() < 0.2:
        return Case(["train", "--config", "good.toml", "--set", f"{section}={toml(settings)}"], path, good_file(chance))
    return with_file(chance, tables, f"{section}.{path}")


def good_file(chance: random.Random) -> dict[str, str | bytes]:
    return {"good.toml": document(good_document(chance))}


def nested_too_deep(chance: random.Random) -> Case:
    settings: Table = {"name": "Constant"}
    for _ in range(chance.randint(31, 60)):
        settings = {"name": "Scale", "factor": 0.5, "curve": settings}
    tables = good_document(chance) | {"schedule": settings}
    return with_file(chance, tables, "schedule: ")


AT_IMPORT = [
    "raise ValueError('broken')",
    "raise SystemExit(3)",
    "raise RuntimeError('two\\nlines')",
    "import no_such_module_at_all",
    "def f(iteration:\n    pass",
    "1 / 0",
    "f = 3",
    "f = None",
    "def g(iteration):\n    return 0.1",
    "class f:\n    def __init__(self):\n        raise OSError('none')\n    def __call__(self, iteration):\n        return 0.1",
    "class f:\n    pass",
    "def f():\n    return 0.1",
    "def f(iteration, needed):\n    return 0.1",
    "\0",
]
AT_CALL = [
    "raise ValueError('broken')",
    "raise SystemExit(3)",
    "raise KeyError",
    "raise Exception('two\\nlines')",
    "raise StopIteration",
    "return float('nan')",
    "return float('inf')",
    "return -0.1",
    "return '0.1'",
    "return None",
    "return True",
    "return 1j",
    "return [0.1]",
    "return 10 ** 400",
    "return 1e39",
    "return 0.1 if iteration < 2 else float('nan')",
    "return 0.1 if iteration != 3 else -1.0",
    "return 'two\\nlines'",
    "return f(iteration)",
    "return int('9' * 9999)",
]


def users_module(chance: random.Random) -> Case:
    name = f"users_{chance.getrandbits(60):x}"  # a module is imported once per process
    tables = good_document(chance)
    tables["schedule"] = {"name": f"{name}:f"}
    del tables["training"]["learning_rate"]
    if chance.random() < 0.4:
        case = with_file(chance, tables, name)
        case.files[f"{name}.py"] = chance.choice(AT_IMPORT)
        return case
    commands = [
        ["train", "--config", "mine.toml"],
        ["find-lr", "--config", "mine.toml"],
        ["schedules", "show", "mine.toml", "--iterations", "1,3"],
        ["schedules", "plot", "mine.toml", "--output", "curve.png"],
    ]
    text = f"def f(iteration):\n    {chance.choice(AT_CALL)}\n"
    return Case(chance.choice(commands), f"{name}:f", {"mine.toml": document(tables), f"{name}.py": text})


def misspelled_flag(chance: random.Random) -> Case:
    command = chance.choice(["train", "find-lr", "evaluate .", "data verify", "schedules list", "schedules show Cosine"])
    known = {"--epochs", "--config", "--output", "--quiet", "--device", "--set", "--data-dir", "--iterations", "--resume"}
    flag = chance.choice(sorted(known))
    place = chance.randrange(3, len(flag))
    wrong = flag[:place] + chance.choice("xyz") + flag[place + chance.randrange(2) :]
    value = chance.choice([[], ["3"]])
    required = ["--iterations", "1"] if "show" in command else []
    return Case([*command.split(), *required, wrong, *value], f"{wrong}: ")


def flag_without_value(chance: random.Random) -> Case:
    flags = {
        "train": [*FLAGS.values(), "--config", "--set", "--output", "--resume", "--data-dir"],
        "find-lr": ["--start-lr", "--end-lr", "--iterations", "--output", "--config"],
        "evaluate .": ["--device", "--threads", "--data-dir"],
        "data verify": ["--data-dir"],
        "schedules show Cosine": ["--iterations"],
        "schedules plot Cosine": ["--output"],
    }
    command = chance.choice(sorted(flags))
    flag = chance.choice(flags[command])
    return Case([*command.split(), flag], flag)


def flag_of_another_command(chance: random.Random) -> Case:
    arguments, named = chance.choice(
        [
            (["find-lr", "--epochs", "3"], "--epochs"),
            (["find-lr", "--resume", "run"], "--resume"),
            (["evaluate", ".", "--epochs", "3"], "--epochs"),
            (["evaluate", ".", "--quiet"], "--quiet"),
            (["data", "verify", "--mirror", "x"], "--mirror"),
            (["schedules", "list", "--output", "x.png"], "--output"),
            (["train", "--start-lr", "1"], "--start-lr"),
            (["--epochs", "3", "train"], "mnist-trainer COMMAND --epochs"),
            (["--resume", "run"], "mnist-trainer COMMAND --resume"),
            (["train", "more"], "more"),
            (["train", "train"], "train: "),
            (["data", "verify", "here"], "here"),
            (["data", "verfy"], "'verfy'"),
            (["schedules", "plot", "show"], "--output"),
            (["evaluat", "."], "did you mean evaluate?"),
            (["", "train"], "''"),
        ]
    )
    return Case(arguments, named)


def contradiction(chance: random.Random) -> Case:
    key = chance.choice(sorted(FLAGS))
    good = {"training.scheduler_mode": "manual", "runtime.device": "cpu", "training.learning_rate": "0.1"}.get(key, "2")
    twice = [f"{FLAGS[key]}={good}", f"--set={key}={good}"]
    return chance.choice(
        [
            Case(["train", *twice], f"{key}: "),
            Case(["train", "--set", f"{key}={good}", "--set", f"{key}={good}"], f"--set {key}: "),
            Case(["train", "--set", 'schedule={name="Constant"}', "--set", 'schedule.name="Constant"'], "schedule"),
            Case(["train", "--set", "schedule.curve.factor=1"], "--set schedule.curve.factor: "),
            Case(["train", "--set", "schedule.step_epochs[9]=1"], "--set schedule.step_epochs[9]: "),
            Case(["train", "--set", "momentum=0.9"], "--set momentum=0.9: "),
            Case(["train", "--set", "checkpoint=9"], "--set checkpoint=9"),
            Case(["train", "--set", "epochs=3"], "--set epochs=3"),
            Case(["train", "--set", "=3"], "--set =3"),
            Case(["train", "--resume", "run", "--config", "tutorial"], "--config", setup=a_run_folder),
            Case(["train", "--resume", "run", "--output", "other"], "--output", setup=a_run_folder),
            Case(["train", "--resume", "run", "--seed", "7", "--train-images", "3"], "training.seed", setup=a_run_folder),
            Case(["train", "--resume", "run", "--seed", "-7"], "--seed", setup=a_run_folder),
            Case(["train", "--resume", "run", "--epochs", "1"], "training.epochs", setup=a_run_folder),
            Case(["train", "--resume", "run", "--set", "checkpoint.keep=1"], "checkpoint.keep", setup=a_run_folder),
            Case(["train", "--resume", "run", "--set", "model.backend=stock"], "model.backend", setup=a_run_folder),
            Case(["train", "--resume", "run", "--set", "schedule.factor=0.2"], "schedule.factor", setup=a_run_folder),
            Case(["train", "--resume", "nowhere"], "nowhere: "),
            Case(["train", "--resume", "."], ".: "),
            Case(["train", "--resume", "file"], "file: ", {"file": "text"}),
            Case(["train", "--resume", "n" * 300], "n" * 300),
            Case(["train", "--batch-size", "1", "--device", "cpu:0,1"], "--device"),
            Case(["train", *SMALL, "--device", "gpu"], "gpu"),
            Case(["find-lr", "--resume", "run"], "--resume"),
        ]
    )


def a_run_folder() -> None:
    """Make the folder of a run that died before its first checkpoint."""
    folder = Path("run")
    folder.mkdir()
    (folder / "config.toml").write_text(load_config().to_toml().replace('threads = "auto"', "threads = 1"), encoding="utf-8")
    (folder / "environment.json").write_text("{}\n", encoding="utf-8")


def place_that_cannot_be_written(chance: random.Random) -> Case:
    command = chance.choice([["train", "--quiet", "--epochs", "1"], ["find-lr", "--quiet", "--iterations", "20"]])
    files: dict[str, str | bytes] = {"file": "precious", "full/precious.txt": "precious"}
    output = chance.choice(["file", "full", "file/run", "/proc/run", "n" * 300, "/dev/null", ".", "full/precious.txt"])
    return Case([*command, *SMALL[:2], "--threads", "1", "--output", output], f"--output {output}: ", files)


def figure_that_cannot_be_written(chance: random.Random) -> Case:
    output = chance.choice(["x", "x.txt", "x.", ".png", "file/x.png", "/proc/x.png", "there.png", "no/such/x.png", "n" * 300])
    case = Case(["schedules", "plot", "Cosine", "--output", output], f"--output {output}: ", {"file": "precious"})
    case.setup = lambda: Path("there.png").mkdir()
    return case


def bad_sweep(chance: random.Random) -> Case:
    flag, value = chance.choice(
        [
            *(("--start-lr", text) for text in ("0", "-1", "nan", "inf", "text", "", "10", "1e39", "1e400")),
            *(("--end-lr", text) for text in ("0", "-1", "nan", "inf", "text", "1e-6", "1e-7", "1e39")),
            *(("--iterations", text) for text in ("0", "-1", "19", "2.5", "nan", "text", "", "1e3", "9" * 5000)),
        ]
    )
    # A lowest rate that is too high is reported as a highest rate that is too low.
    named = "--end-lr" if (flag, value) == ("--start-lr", "10") else flag
    return Case(["find-lr", *SMALL[:2], "--threads", "1", f"{flag}={value}"], named)


def wrong_schedules_command(chance: random.Random) -> Case:
    iterations = chance.choice(["", "a", "1,", "-1", "1.5", "1;2", "1-3", "nan", "9" * 19, "٣", "1 2", "0x"])
    name = chance.choice(["Cosin", "cosne.toml", "nowhere/x.toml", "", "file", "folder/", "n" * 300, "a:b", "..", "\n"])
    return chance.choice(
        [
            Case(["schedules", "show", "Cosine", f"--iterations={iterations}"], f"--iterations {iterations}"),
            Case(["schedules", "show", name, "--iterations", "1"], " ".join(name.split()), {"file": "text"}),
            Case(["schedules", "plot", name, "--output", "x.png"], " ".join(name.split()), {"file": "text"}),
            Case(["schedules", "plot", "Cosine", name, "--output", "x.svg"], " ".join(name.split()), {"file": "text"}),
            Case(["schedules", "find", f"no {name}"], "no schedule of another framework"),
            Case(["schedules", "plot", "--output", "x.png"], "NAME_OR_CONFIG"),
            Case(["schedules", "plot", "Cosine"], "--output"),
        ]
    )


def bad_place(chance: random.Random) -> Case:
    """Name a file or folder that does not exist or is of the wrong kind."""
    place = chance.choice(["nowhere", "file", "folder", "n" * 300, "", "file/below", "two\nlines", "/dev/null", "/proc/1"])
    shown = " ".join(place.split()) or "."
    files: dict[str, str | bytes] = {"file": "text", "folder/other": "text"}
    return chance.choice(
        [
            Case(["evaluate", place], shown, files),
            Case(["train", "--resume", place or "nowhere"], shown if place else "nowhere", files),
            Case(["data", "verify", "--data-dir", place or "nowhere"], shown if place else "nowhere", files),
            Case(["train", *SMALL, "--data-dir", place or "nowhere"], shown if place else "nowhere", files),
            Case(["train", "--config", place or "folder"], shown if place else "folder", files),
        ]
    )


# Number of cases of each kind. Kinds with many forms have many cases.
KINDS: dict[Callable[[random.Random], Case], int] = {
    wrong_value_in_file: 150,
    wrong_value_by_set: 80,
    wrong_value_by_flag: 80,
    unknown_key: 30,
    unknown_section: 10,
    section_of_another_kind: 30,
    invalid_toml: 50,
    something_missing: 15,
    contradicting_keys: 10,
    wrong_hyperparameter: 40,
    nested_mistake: 200,
    nested_too_deep: 5,
    users_module: 100,
    misspelled_flag: 50,
    flag_without_value: 30,
    flag_of_another_command: 30,
    contradiction: 70,
    place_that_cannot_be_written: 20,
    figure_that_cannot_be_written: 15,
    bad_sweep: 40,
    wrong_schedules_command: 50,
    bad_place: 50,
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep Python from writing the bytecode of modules, and unset the variable for the data folder."""
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in KINDS])
def test_bad_requests_are_refused_with_messages_and_change_nothing(
    kind: Callable[[random.Random], Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "run", never)
    monkeypatch.setattr(lr_search, "search_learning_rate", never)
    modules = set(sys.modules)
    for number in range(KINDS[kind]):
        case = kind(random.Random(f"{kind.__name__} {number}"))
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        for name, content in case.files.items():
            path = Path(name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if case.setup:
            case.setup()
        before = snapshot(folder)
        try:
            outcome = run(*case.arguments)
            assert_refused(outcome, case.named)
            assert snapshot(folder) == before
        except BaseException as error:
            error.add_note(f"case {number}: {case}")
            raise
        for name in set(sys.modules) - modules:
            if name.startswith("users_"):
                del sys.modules[name]


def test_there_are_at_least_500_different_bad_requests() -> None:
    assert sum(KINDS.values()) >= 500
    cases = [str(kind(random.Random(f"{kind.__name__} {number}"))) for kind, count in KINDS.items() for number in range(count)]
    assert len(set(cases)) >= 500


@pytest.mark.parametrize("number", range(8))
def test_a_configuration_without_a_mistake_loads(number: int, tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(document(good_document(random.Random(number))), encoding="utf-8")
    assert load_config(path).training.epochs == 2


# --- data files


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the paths below a folder with the time of their last change and size, for files too large to compare."""
    return {str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


class DataFolder:
    """Makes folders with links to the genuine files, some of which a test replaces."""

    def __init__(self, below: Path, genuine: Path) -> None:
        self.below = below
        self.genuine = genuine
        self.count = 0

    def make(self) -> Path:
        self.count += 1
        folder = self.below / f"data {self.count}"
        folder.mkdir()
        for file in FILES:
            (folder / file.name).symlink_to(self.genuine / file.name)
        return folder

    def content(self, name: str) -> bytes:
        return (self.genuine / name).read_bytes()


@pytest.fixture
def data_folder(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return DataFolder(tmp_path, data_dir)


def put(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def assert_data_refused(folder: Path, finished: Path, *names: str) -> None:
    """Assert that each command that reads the files refuses them and names exactly the spoiled ones."""
    before = stamps(folder)
    commands: list[list[str | Path]] = [["data", "verify"], ["train", *SMALL, "--threads", "1", "--output", "run"]]
    if any(name.startswith("t10k") for name in names):
        commands.append(["evaluate", finished])
    for command in commands:
        outcome = run(*command, "--data-dir", folder)
        read = [name for name in names if command[0] != "evaluate" or name.startswith("t10k")]
        assert_refused(outcome, *(f"{folder / name}: " for name in read))
        assert len(outcome.err.splitlines()) == len(read)
    assert stamps(folder) == before
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("name", [file.name for file in FILES])
def test_truncated_and_flipped_data_files_are_refused(name: str, data_folder: DataFolder, runs: "Runs") -> None:
    chance = random.Random(name)
    genuine = data_folder.content(name)
    for number in range(16):
        place = chance.randrange(len(genuine)) if number > 1 else (0, len(genuine) - 1)[number]
        folder = data_folder.make()
        put(folder / name, genuine[:place])
        assert_data_refused(folder, runs.finished, name)
    for _ in range(4):
        flipped = bytearray(genuine)
        flipped[chance.randrange(len(genuine))] ^= 1 << chance.randrange(8)
        folder = data_folder.make()
        put(folder / name, bytes(flipped))
        assert_data_refused(folder, runs.finished, name)


def rewritten(name: str, packed: bytes) -> Iterator[bytes]:
    """Yield IDX files of the genuine length with another magic number, other counts or other labels."""
    dimensions = 3 if "images" in name else 1
    unpacked = gzip.decompress(packed)
    header = list(struct.unpack_from(f">{1 + dimensions}I", unpacked))
    body = unpacked[4 + 4 * dimensions :]
    headers = [[header[0] ^ 2, *header[1:]], [0, *header[1:]], [header[0], 2**32 - 1, *header[2:]], [header[0], 1, *header[2:]]]
    contents = [struct.pack(f">{1 + dimensions}I", *variant) + body for variant in headers]
    if dimensions == 1:
        contents += [unpacked[:8] + bytes([10]) + body[1:], unpacked[:-1] + b"\xff"]
    for content in contents:
        # Uncompressed images are quick to write. Compressed labels fit into the genuine size; zeros may follow gzip's end.
        yield gzip.compress(content, 0 if dimensions == 3 else 9).ljust(len(packed), b"\0")


@pytest.mark.parametrize("name", [file.name for file in FILES])
def test_data_files_with_other_content_are_refused(name: str, data_folder: DataFolder, runs: "Runs") -> None:
    for content in rewritten(name, data_folder.content(name)):
        folder = data_folder.make()
        put(folder / name, content)
        assert_data_refused(folder, runs.finished, name)


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", [file.name for file in FILES])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(Path.unlink, id="missing"),
        pytest.param(lambda path: put(path, b""), id="empty"),
        pytest.param(lambda path: put(path, b"<html>404 Not Found</html>"), id="a page"),
        pytest.param(make_folder, id="a folder"),
        pytest.param(link_to_itself, id="a link to itself"),
        pytest.param(make_pipe, id="a pipe that no one writes to"),
        pytest.param(link_to_endless, id="a device without end"),
    ],
)
def test_anything_other_than_a_data_file_is_refused(
    name: str, spoil: Callable[[Path], object], data_folder: DataFolder, runs: "Runs"
) -> None:
    folder = data_folder.make()
    spoil(folder / name)
    assert_data_refused(folder, runs.finished, name)


@pytest.mark.parametrize(
    "order", [(1, 0, 2, 3), (2, 1, 0, 3), (0, 3, 2, 1), (2, 3, 0, 1), (1, 0, 3, 2), (3, 2, 1, 0), (1, 2, 3, 0), (0, 0, 2, 2)]
)
def test_swapped_data_files_are_refused(order: Sequence[int], data_folder: DataFolder, runs: "Runs") -> None:
    folder = data_folder.make()
    for file, place in zip(FILES, order, strict=True):
        (folder / file.name).unlink()
        (folder / file.name).symlink_to(data_folder.genuine / FILES[place].name)
    wrong = [file.name for number, file in enumerate(FILES) if order[number] != number]
    assert_data_refused(folder, runs.finished, *wrong)


def test_a_gzip_bomb_is_refused_without_being_unpacked(data_folder: DataFolder, runs: "Runs") -> None:
    bomb = gzip.compress(bytes(2**26), 9) * 32  # concatenated members are one file, here of 2 GiB
    for file in FILES:
        for content in (bomb, bomb[: file.size_bytes].ljust(file.size_bytes, b"\0")):
            folder = data_folder.make()
            put(folder / file.name, content)
            peak_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert_data_refused(folder, runs.finished, file.name)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kilobytes < 100_000


def test_a_data_file_without_read_permission_is_refused(data_folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_folder.make()
    for file in FILES:
        put(folder / file.name, b"secret")
        (folder / file.name).chmod(0)
    mnist_folder = bundled.mnist_folder()
    monkeypatch.setattr(
        bundled, "mnist_folder", lambda: mnist_folder
    )  # the other user may not be allowed to read the checkout either
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # this user cannot read the files of root's tests
    try:
        outcome = run("data", "verify", "--data-dir", folder)
    finally:
        os.seteuid(user)
    assert_refused(outcome, *(f"{folder / file.name}: " for file in FILES))


# --- run folders

RUN_LENGTH = ("--threads", "1", "--epochs", "2", "--train-images", "24", "--batch-size", "6")
EVERY_3 = ("--set", "checkpoint.every_iterations=3")  # in addition to the end of each epoch of 4 iterations
OTHER = ("--seed", "2", "--test-images", "20")


@dataclass
class Runs:
    """Small runs, which tests must not change. Runs of the same configurations must have the same results.

    Attributes:
        finished: A finished run.
        stopped: A run of the same configuration, stopped within its second epoch.
        other: A finished run of another configuration.
        other_stopped: A run of the other configuration, stopped within its second epoch.
    """

    finished: Path
    stopped: Path
    other: Path
    other_stopped: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    below = tmp_path_factory.mktemp("runs")
    made = Runs(below / "finished", below / "stopped", below / "other", below / "other_stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(DATA_DIR_VARIABLE, raising=False)
        spare_time(patch)
        for finished, stopped, flags in (
            (made.finished, made.stopped, ("--test-images", "10")),
            (made.other, made.other_stopped, OTHER),
        ):
            assert run("train", *RUN_LENGTH, *EVERY_3, *flags, "--output", finished, "--quiet").code == DONE
            train(load_config(finished / "config.toml"), stopped, stop_at=7)  # of its eight iterations
    return made


JSON_OF_ANOTHER_SHAPE = [b"[]", b"{}", b"3", b"null", b'"text"', b'{"format": 2}', b"[" * 100_000, b'{"iteration": -1}']

Damage = Callable[[Path, Path, random.Random], object]


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_path(path: Path, other: Path, chance: random.Random) -> None:
    remove(path)


def empty_path(path: Path, other: Path, chance: random.Random) -> None:
    is_folder = path.is_dir()
    remove(path)
    if is_folder:
        path.mkdir()
    else:
        path.write_bytes(b"")


def write_garbage(path: Path, other: Path, chance: random.Random) -> None:
    remove(path)
    path.write_bytes(chance.randbytes(chance.choice([1, 10, 3000])))


def write_other_json(path: Path, other: Path, chance: random.Random) -> None:
    remove(path)
    path.write_bytes(chance.choice(JSON_OF_ANOTHER_SHAPE))


def change_kind(path: Path, other: Path, chance: random.Random) -> None:
    is_folder = path.is_dir()
    remove(path)
    if is_folder:
        path.write_bytes(b"text")
    else:
        path.mkdir()


def truncate_path(path: Path, other: Path, chance: random.Random) -> None:
    if path.is_file():
        os.truncate(path, chance.randrange(path.stat().st_size))
    elif path.is_dir():
        remove(chance.choice(sorted(path.iterdir())))


def replace_by_other(path: Path, other: Path, chance: random.Random) -> None:
    remove(path)
    if other.is_dir():
        shutil.copytree(other, path)
    elif other.exists():
        shutil.copy(other, path)


DAMAGES: list[Damage] = [remove_path, empty_path, write_garbage, write_other_json, change_kind, truncate_path, replace_by_other]

Plan = list[tuple[str, Damage]]


def plans(of: Path, pairs: int) -> list[Plan]:
    """Return every damage of every file and folder of a run, and `pairs` random pairs of damages."""
    places = sorted(str(path.relative_to(of)) for path in of.rglob("*"))
    singles: list[Plan] = [[(place, damage)] for place in places for damage in DAMAGES]
    chance = random.Random(of.name)
    main = [place for place in places if "/" not in place]  # pairs within one checkpoint test little
    return singles + [
        [(chance.choice(main), chance.choice(DAMAGES)), (chance.choice(places), chance.choice(DAMAGES))] for _ in range(pairs)
    ]


def damaged_copies(of: Path, other: Path, below: Path, pairs: int) -> Iterator[tuple[Path, str]]:
    """Yield copies of a run, each damaged by a plan, with the plan in words."""
    for number, plan in enumerate(plans(of, pairs)):
        copy = below / str(number)
        shutil.copytree(of, copy)
        chance = random.Random(number)
        for place, damage in plan:
            if (copy / place).parent.is_dir():  # the other damage may have removed it
                damage(copy / place, other / place, chance)
        yield copy, f"{copy}: " + " and ".join(f"{damage.__name__} {place}" for place, damage in plan)
        shutil.rmtree(copy)


def result_of(folder: Path) -> tuple[Any, ...]:
    """Return all results of a finished run except times."""
    timeless = ("seconds", "epoch_seconds", "test_seconds", "images_per_second")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    objects = [json.loads(text) for text in (*lines, (folder / "summary.json").read_text(encoding="utf-8"))]
    return (
        (folder / "model.params").read_bytes(),
        (folder / "iterations.csv").read_bytes(),
        [{key: value for key, value in record.items() if key not in timeless} for record in objects],
    )


@pytest.fixture
def quick_runs(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip figures, the list of installed packages and waiting for the disk, which take longer than these runs."""
    spare_time(monkeypatch)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_runs")
@pytest.mark.parametrize("which", ["stopped", "finished"])
def test_a_damaged_run_is_resumed_correctly_or_refused(which: str, runs: Runs, tmp_path: Path) -> None:
    of = getattr(runs, which)
    other = runs.other_stopped if which == "stopped" else runs.other
    right = {True: result_of(runs.finished), False: result_of(runs.other)}
    own = (of / "config.toml").read_bytes()
    ends: list[int] = []
    for copy, words in damaged_copies(of, other, tmp_path, 60):
        before = snapshot(copy)
        config = copy / "config.toml"
        is_own = config.is_file() and config.read_bytes() == own
        was_finished, has_figure = ((copy / name).is_file() for name in ("summary.json", "curves.png"))
        try:
            outcome = run("train", "--resume", copy, "--quiet")
            assert_messages(outcome) if outcome.err else None
            if outcome.code == WRONG_REQUEST:
                assert outcome.out == ""
                assert str(copy) in outcome.err
                assert snapshot(copy) == before
            elif was_finished and not has_figure:
                assert (outcome.code, outcome.err) == (DONE, "")
                assert "curves.png" in outcome.out
                (copy / "curves.png").unlink()
                assert snapshot(copy) | {".": None} == before | {".": None}  # the folder's time is another
            elif was_finished:
                assert (outcome.code, outcome.err) == (DONE, "")
                assert_names(outcome.out, f"{copy}: ", "finished")
                assert snapshot(copy) == before
            else:
                assert outcome.code == DONE
                assert result_of(copy) == right[is_own]
        except BaseException as error:
            error.add_note(words)
            raise
        ends.append(outcome.code)
    assert list(Path.cwd().iterdir()) == []
    assert len(ends) >= 150
    assert ends.count(DONE) > 40, "most damages are of files that are not needed"
    assert ends.count(WRONG_REQUEST) > 5


def results_of(evaluated: Outcome) -> list[str]:
    """Return the printed results of evaluate, without the last line, which names the folder."""
    return evaluated.out.splitlines()[:-1]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_runs")
def test_a_damaged_run_is_evaluated_correctly_or_refused(runs: Runs, tmp_path: Path) -> None:
    said = {}
    for is_own, path in ((True, runs.finished), (False, runs.other)):
        shutil.copytree(path, tmp_path / "whole")
        said[is_own] = results_of(run("evaluate", tmp_path / "whole"))
        shutil.rmtree(tmp_path / "whole")
    assert said[True] != said[False]
    ends: list[int] = []
    for copy, words in damaged_copies(runs.finished, runs.other, tmp_path, 60):
        before = snapshot(copy)
        try:
            outcome = run("evaluate", copy)
            if outcome.code == DONE:
                summary = (copy / "summary.json").read_bytes()
                is_own = summary == (runs.finished / "summary.json").read_bytes()
                assert (results_of(outcome), outcome.err) == (said[is_own], "")
                for name in ("evaluation.json", "confusion_matrix.png", "mistakes.png"):
                    (copy / name).unlink()
                assert snapshot(copy) | {".": None} == before | {".": None}  # the folder's time is another
            else:
                assert_refused(outcome, str(copy))
                assert 1 <= len(outcome.err.splitlines()) <= 2, "at most one problem for each damage"
                assert snapshot(copy) == before
        except BaseException as error:
            error.add_note(words)
            raise
        ends.append(outcome.code)
    assert list(Path.cwd().iterdir()) == []
    assert len(ends) >= 150
    assert ends.count(DONE) > 40, "most damages are of files that are not needed"
    assert ends.count(WRONG_REQUEST) > 5


def test_no_message_advises_to_remove_anything() -> None:
    advice = {}
    for module in Path(mnist_files.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
        docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and node not in docstrings]
        advice[module.name] = [text for text in texts if isinstance(text, str) and ADVICE_TO_REMOVE.search(text)]
    assert "mnist_files.py" in advice
    assert {name: texts for name, texts in advice.items() if texts} == {}


@pytest.mark.parametrize("of", ["finished", "stopped"])
def test_foreign_files_in_a_run_folder_do_no_harm(of: str, runs: Runs, tmp_path: Path, quick_runs: None) -> None:
    copy = tmp_path / "run"
    shutil.copytree(getattr(runs, of), copy)
    (copy / "notes.txt").write_text("mine", encoding="utf-8")
    (copy / "more").mkdir()
    (copy / "checkpoints" / "notes.txt").write_text("mine", encoding="utf-8")
    (copy / "checkpoints" / "99999999").mkdir()
    (copy / "checkpoints" / "٣").mkdir()
    (copy / "loop").symlink_to(copy)
    outcome = run("train", "--resume", copy, "--quiet")
    assert outcome.code == DONE, outcome.err
    assert result_of(copy) == result_of(runs.finished)
    assert (copy / "notes.txt").read_text(encoding="utf-8") == "mine"
    shutil.copytree(runs.finished, tmp_path / "whole")
    assert results_of(run("evaluate", copy)) == results_of(run("evaluate", tmp_path / "whole")) != []


def test_of_thousands_of_problems_the_first_are_printed(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("".join(f"key{number} = 1\n" for number in range(60_000)), encoding="utf-8")
    code, _, err = run("train", "--config", tmp_path / "mine.toml")
    assert code == 2
    *first, last = err.splitlines()
    assert len(first) == 50
    assert_names(last, "… and 59,9", "more problems")
