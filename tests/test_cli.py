"""The program as a user sees it: commands, flags, exit codes, messages and the files that it leaves."""

import argparse
import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names, content, parsers, refused, run
from conftest import Program, Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from programs import LIMIT_SECONDS, ForkedProgram, new_environment, wait_for
from requirements import hide_matplotlib
from small_runs import spare_time
from wrong_values import FLAGS, GOOD, WRONG_VALUES, typed

from mnist_trainer import commands, schedules
from mnist_trainer.config.schema import describe
from mnist_trainer.data.mnist_files import FILES
from mnist_trainer.errors import DONE
from mnist_trainer.model.network import build_cnn
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import CURVES, Cosine, Factor, Warmup, dictionary, from_toml
from mnist_trainer.schedules.catalogue import FAMILIES
from mnist_trainer.training import experiment
from mnist_trainer.training.records import IterationRecord
from mnist_trainer.training.step import TrainStep

mx = import_mxnet()

SMALL = ("--train-images", "128", "--test-images", "100", "--epochs", "1")
PROGRAM = (sys.executable, "-m", "mnist_trainer")
ONE_THREAD = ("--threads", "1")  # for separate processes: on a busy machine, two threads mostly wait for each other


def rates_of(folder: Path) -> list[float]:
    with (folder / "iterations.csv").open(encoding="utf-8") as stream:
        return [float(row["learning_rate"]) for row in csv.DictReader(stream)]


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a small run of two epochs, which tests must not change."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert run("train", *SMALL, "--epochs", "2", "--output", folder, "--quiet").code == 0
    return folder


# --- commands and help

CONTRACT = {
    "train",
    "compare",
    "find-lr",
    "evaluate",
    "schedules",
    "schedules list",
    "schedules find",
    "schedules show",
    "schedules plot",
    "data verify",
    "doctor",
    "benchmark",
    "predict",
    "export",
    "demo",
}


PARSERS = parsers()


def test_all_commands_exist() -> None:
    assert set(PARSERS) >= CONTRACT | {"data fetch", "data import"}


def test_every_command_that_is_not_a_group_has_a_function() -> None:
    groups = {name for name, parser in PARSERS.items() if parser.get_default("command") is None}
    assert groups == {"", "schedules", "data"}
    views = {"train --dry-run", "train --print-config"}  # flags of train that select another function
    assert commands.COMMANDS.keys() - views == PARSERS.keys() - groups
    for name, home in commands.COMMANDS.items():
        assert name in views or PARSERS[name].get_default("command") == name
        module, _, function = home.partition(".")
        assert callable(getattr(import_module(f"mnist_trainer.commands.{module}"), function))


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("train", "--device=--"), "--device"),
        (("evaluate", "run", "--threads=--"), "--threads"),
        (("compare", "--seeds=--"), "--seeds"),
        (("train", "--set=--"), "--set"),
    ],
)
def test_two_dashes_are_a_wrong_value(arguments: tuple[str, ...], flag: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("training = {learning_rate = 1}\n", encoding="utf-8")
    words = [str(tmp_path / "run") if word == "run" else word for word in arguments]
    assert any(message.startswith(f"{flag} --") for message in refused(*words))


@pytest.mark.parametrize("command", sorted(PARSERS))
def test_every_command_has_help(command: str) -> None:
    code, out, err = run(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: mnist-trainer {command}".strip() + " ")
    for action in PARSERS[command]._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, f"{action.dest} has no help"


@pytest.mark.parametrize("command", ["", "schedules", "data"])
def test_a_group_without_a_command_prints_its_help(command: str) -> None:
    assert run(*command.split()) == run(*command.split(), "--help")


def test_the_help_of_train_has_the_help_of_the_configuration() -> None:
    out = " ".join(run("train", "--help").out.split())
    for key in ("epochs", "batch_size", "learning_rate", "scheduler_mode", "seed"):
        assert f"--{key.replace('_', '-')}" in out
        assert describe(f"training.{key}") in out
    for flag in ("--config", "--device", "--threads", "--train-images", "--test-images", "--set", "--output", "--quiet"):
        assert f"{flag} " in out


# --- wrong requests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["trian"], ("", "'trian'", "did you mean train?"), id="misspelled command"),
        pytest.param(
            ["schedules", "shw"],
            ("mnist-trainer schedules ", "'shw'", "did you mean show?"),
            id="misspelled command of a group",
        ),
        pytest.param(["qqqq"], ("", "'qqqq'", *(name for name in PARSERS if name and " " not in name)), id="no such command"),
        pytest.param(["--quiet", "train"], ("--quiet: ", "mnist-trainer COMMAND --quiet"), id="a flag before its command"),
        pytest.param(["--epochs", "3", "train"], ("--epochs: ", "mnist-trainer COMMAND --epochs"), id="and its value"),
        pytest.param(["train", "--epoch=3"], ("--epoch: ", "did you mean --epochs?"), id="misspelled flag"),
        pytest.param(["train", "--epoch", "3"], ("--epoch: ", "did you mean --epochs?"), id="misspelled flag and its value"),
        pytest.param(["train", "--qiet"], ("--qiet: ", "did you mean --quiet?"), id="misspelled switch"),
        pytest.param(["evaluate", ".", "--thread", "2"], ("--thread: ", "did you mean --threads?"), id="evaluate's flag"),
        pytest.param(["train", "--zzzz"], ("--zzzz: ", "mnist-trainer train --help"), id="no such flag"),
        pytest.param(["train", "--gpu"], ("--gpu: ", "did you mean --device gpu?"), id="flag for a GPU"),
        pytest.param(["evaluate", ".", "--cpu"], ("--cpu: ", "did you mean --device cpu?"), id="flag for the CPU"),
        pytest.param(["data", "verify", "--gpu"], ("--gpu: ", "mnist-trainer data verify --help"), id="no device to name"),
        pytest.param(["train", "--lr", "0"], ("--lr 0: ", "> 0"), id="short name of the rate"),
        pytest.param(
            ["find-lr", "--network", "my_networks:mlp"],
            ("--network: ", "did you mean --set model.network=module:function?"),
            id="flag for a network",
        ),
        pytest.param(
            ["compare", "--allow", "epochs"], ("--allow epochs: ", "did you mean training.epochs?"), id="key without section"
        ),
        pytest.param(["compare", "--seed", "1,2"], ("--seed 1,2: ", "--seeds 1,2"), id="several seeds"),
        pytest.param(["compare", "--seeds", "1-3"], ("--seeds 1-3: ", "'1-3'", "1,2,3"), id="a range"),
        pytest.param(["train", "extra"], ("extra: ", "mnist-trainer train "), id="one argument too many"),
        pytest.param(["schedules", "list", "x"], ("x: ", "mnist-trainer schedules list "), id="an argument for list"),
        pytest.param(["train", "--epochs"], ("--epochs: ", "mnist-trainer train --help"), id="no value"),
        pytest.param(["train", "--set"], ("--set: ", "mnist-trainer train --help"), id="nothing to set"),
        pytest.param(["train", "--set", "epochs=3"], ("--set epochs=3: ", "section.key=value"), id="no section"),
        pytest.param(["train", "--epochs", "0"], ("--epochs 0: ", "from 1 to 1000000"), id="wrong value"),
        pytest.param(["doctor", "--threads", "0"], ("--threads 0: ", "auto", "from 1 to 1024"), id="doctor's flag"),
        pytest.param(["train", "--config", "."], (".: ", "folder", "TOML"), id="folder for a configuration"),
        pytest.param(["train", "--config", "tutoral"], ("tutoral: ", "did you mean tutorial?"), id="configuration"),
        pytest.param(["evaluate"], ("", "RUN_DIR", "mnist-trainer evaluate --help"), id="no run folder"),
        pytest.param(["evaluate", "nowhere"], ("nowhere: ",), id="a folder that is not there"),
        pytest.param(["evaluate", "."], (".: ", "config.toml"), id="a folder that is not a run"),
    ],
)
def test_a_wrong_request_is_a_message_and_exit_code_2(
    arguments: list[str], words: tuple[str, ...], here: Path, snapshot: Snapshot
) -> None:
    (message,) = refused(*arguments)
    assert_names(message, *words)
    assert content(here) == {}
    snapshot(message)


@pytest.mark.parametrize(
    "command",
    [["evaluate"], ["schedules", "show", "--iterations=1"], ["train", "--config"], ["train", "--output"]],
    ids=" ".join,
)
def test_a_name_that_is_too_long_is_a_message_and_exit_code_2(command: list[str], here: Path) -> None:
    name = "n" * 300
    (message,) = refused(*command, name)
    assert_names(message, "", name)
    assert content(here) == {}


def test_all_problems_are_reported_together(here: Path) -> None:
    Path("mine.toml").write_text('[training]\nseed = -1\n[schedule]\nname = "Cosin"\n', encoding="utf-8")
    wrong = ("--config", "mine.toml", "--epochs", "0", "--set", "data.loader=arry", "--set", "epochs=3", "--outptu=x")
    expected = [
        ("--epochs 0: ",),
        ("--outptu: ", "did you mean --output?"),
        ("--set data.loader=arry: ",),
        ("--set epochs=3: ",),
        ("mine.toml: schedule.name: ", "'Cosin'"),
        ("mine.toml: training.seed = -1: ",),
    ]
    for message, words in zip(sorted(refused("train", *wrong)), expected, strict=True):
        assert_names(message, *words)


LETTERS = "abcdefghijklmnopqrstuvwxyz_"

Mistake = tuple[list[str], str]  # arguments for the command line, and a piece of TOML


wrong_values = st.sampled_from([(key, value) for key, values in WRONG_VALUES.items() for value in values])
unknown_names = st.text(LETTERS, min_size=1, max_size=12).map(lambda name: f"{name}_q")  # no key ends with _q
unknown_keys = st.builds("{}.{}".format, st.sampled_from(["training", "data", "runtime", "nothing", "model"]), unknown_names)

mistakes: st.SearchStrategy[Mistake] = st.one_of(
    wrong_values.map(lambda pair: (["--set", f"{pair[0]}={typed(pair[1])}"], "")),
    wrong_values.filter(lambda pair: pair[0] in FLAGS).map(lambda pair: ([f"{FLAGS[pair[0]]}={typed(pair[1])}"], "")),
    wrong_values.map(lambda pair: ([], f"{pair[0]} = {pair[1]}\n")),
    unknown_keys.map(lambda key: (["--set", f"{key}=1"], "")),
    unknown_keys.map(lambda key: ([], f"{key} = 1\n")),
    unknown_names.map(lambda name: ([], f"{name} = 1\n")),
    unknown_names.map(lambda name: ([f"--{name}"], "")),
    st.text(max_size=20).filter(lambda text: "=" not in text).map(lambda text: (["--set", text], "")),
    st.sampled_from(["[training", "training", "training = 3", "= 3", "a = ", "a = [1", "\0", '"', "'''", "[[training]]"]).map(
        lambda text: ([], text + "\n")
    ),
    st.sampled_from(
        [["--config", "nowhere"], ["--epochs"], ["--set"], ["more"], ["--config"], ["-x"], ["-"], ["--quiet=1"]]
    ).map(lambda arguments: (arguments, "")),
)


def end_the_test(*arguments: object) -> None:
    raise AssertionError("a bad request was accepted")


@pytest.mark.slow
@settings(max_examples=400, deadline=None, database=None)
@given(several=st.lists(mistakes, min_size=1, max_size=3))
def test_bad_requests_in_bulk_are_messages_and_write_nothing(several: list[Mistake], bulk_folder: Path) -> None:
    file = bulk_folder / "bulk.toml"
    changed = {line.partition(" = ")[0] for _, piece in several for line in piece.splitlines()}
    kept = "".join(f"{key} = {value}\n" for key, value in GOOD.items() if key not in changed)
    file.write_text(kept + "".join(piece for _, piece in several), encoding="utf-8")
    arguments = [argument for part, _ in several for argument in part]
    assert content(bulk_folder).keys() == {"bulk.toml"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "prepare", end_the_test)  # it would train for minutes
        code, out, err = run("train", "--config", "bulk.toml", *arguments)

    assert (code, out) == (2, "")
    assert err.startswith("mnist-trainer: ")
    assert "Traceback" not in err
    assert content(bulk_folder).keys() == {"bulk.toml"}


@pytest.fixture(scope="module")
def bulk_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a current folder for all examples."""
    folder = tmp_path_factory.mktemp("bulk")
    with contextlib.chdir(folder):
        yield folder


# --- the output folder


def make_full_folder(path: Path) -> Path:
    path.mkdir()
    (path / "precious.txt").write_text("precious", encoding="utf-8")
    return path


def make_file(path: Path) -> Path:
    path.write_text("precious", encoding="utf-8")
    return path


def make_file_above(path: Path) -> Path:
    return make_file(path) / "run"


@pytest.mark.parametrize(
    ("make", "word"),
    [
        pytest.param(make_full_folder, "not empty", id="not empty"),
        pytest.param(make_file, "file", id="a file"),
        pytest.param(make_file_above, os.strerror(errno.ENOTDIR), id="below a file"),
        pytest.param(lambda path: Path("/proc/run"), "written", id="below /proc"),
    ],
)
def test_an_unusable_output_folder_is_left_unchanged(
    make: Callable[[Path], Path], word: str, here: Path, snapshot: Snapshot
) -> None:
    output = make(here / "run")
    before = content(here)
    (message,) = refused("train", *SMALL, "--output", output, "--quiet")
    assert_names(message, f"--output {output}: ", word)
    assert content(here) == before
    snapshot(message)


def test_an_empty_folder_is_accepted_as_output_folder(here: Path) -> None:
    Path("run").mkdir()
    assert run("train", *SMALL, "--output", "run", "--quiet").code == 0
    left = [name for name in sorted(content(here / "run")) if "/" not in name]
    assert left == [
        "checkpoints",
        "config.toml",
        "curves.png",
        "environment.json",
        "iterations.csv",
        "metrics.csv",
        "metrics.jsonl",
        "model.params",
        "summary.json",
    ]


def test_without_output_a_new_folder_in_runs_is_made(here: Path) -> None:
    code, out, _ = run("train", *SMALL, "--scheduler-mode", "manual", "--quiet")
    assert code == 0
    (folder,) = Path("runs").glob("2*")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_tutorial_manual_seed-1", folder.name)
    assert out.splitlines()[-1] == f"Run folder {folder}"
    assert (folder / "summary.json").is_file()
    assert [path.name for path in here.iterdir()] == ["runs"]


@pytest.mark.process
@pytest.mark.parametrize("name", [b"run\xff", "größe".encode()], ids=["not UTF-8", "UTF-8 in the locale C"])
def test_a_folder_may_have_any_name(name: bytes, program: Program, tmp_path: Path) -> None:
    output = name.decode("ascii", "surrogateescape")  # as sys.argv has it in the locale C
    assert program("train", *SMALL, *ONE_THREAD, "--output", output).returncode == 0
    done = program("export", output, "--format", "mxnet", "--threads", "1")
    assert done.returncode == 0
    assert os.fsencode(tmp_path / output) == os.fsencode(tmp_path) + b"/" + name
    assert (tmp_path / output / "model-symbol.json").is_file()


# --- train


def test_train_prints_the_tutorials_lines_and_results_on_stdout(program: Program, tmp_path: Path) -> None:
    done = program("train", *SMALL, *ONE_THREAD, "--epochs", "2", "--device", "cpu", "--output", "run")
    summary = summary_of(tmp_path / "run")
    assert done.returncode == 0
    assert_names(done.stderr, "Device cpu", "threads 1", "backend", "run folder run\n")
    lines = done.stdout.splitlines()
    assert lines[0] == "Learning rate drops after iterations: [8, 14, 18]"
    with (tmp_path / "run" / "iterations.csv").open(encoding="utf-8") as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    metrics = RunFolder(tmp_path / "run").read_metrics()
    for epoch in (1, 2):
        first, train, last = lines[3 * epoch - 2 : 3 * epoch + 1]
        assert train == "Epoch: {epoch}; Train loss {train_loss:f}; Train accuracy {train_accuracy:.4f}".format(
            **metrics[epoch - 1]
        )
        assert f"Epoch {epoch}: {metrics[epoch - 1]['epoch_seconds']:.1f} s" in done.stderr
        assert first == f"Epoch: {epoch}; Batch 1; Loss {losses[2 * epoch - 2]:f}; LR 0.030000"
        assert re.fullmatch(rf"Epoch: {epoch}; Test loss \d\.\d{{6}}; Test accuracy 0\.\d{{4}}", last)
    accuracy, loss = f"Test accuracy {summary['test_accuracy']:.2%}", f"test loss {summary['test_loss']:.6f}"
    assert_names(lines[7], accuracy, f"{summary['test_correct']} of 100", loss, "4 iterations", f"{summary['seconds']:.1f} s")
    assert lines[8:] == [f"Parameters SHA-256 {summary['parameters_sha256']}", "Run folder run"]


@pytest.mark.slow
def test_quiet_prints_only_results_and_evaluate_prints_the_same(program: Program, tmp_path: Path) -> None:
    trained = program("train", *SMALL, *ONE_THREAD, "--output", "run", "--quiet")
    assert (trained.returncode, trained.stderr) == (0, "")
    assert trained.stdout.startswith("Learning rate drops after iterations: [")
    assert trained.stdout.endswith("Run folder run\n")
    evaluated = program("evaluate", "run")
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    (result,) = (line for line in trained.stdout.splitlines() if line.startswith("Test accuracy "))
    assert result.startswith(evaluated.stdout.splitlines()[0] + "; ")


def test_a_smooth_schedule_prints_no_line_of_drops(here: Path) -> None:
    Path("smooth.toml").write_text(
        '[training]\nlearning_rate = 0.1\n[schedule]\nname = "Cosine"\nmax_update_fraction = 1\n', encoding="utf-8"
    )
    code, out, _ = run("train", "--config", "smooth.toml", *SMALL, "--output", "run", "--quiet")
    assert code == 0
    assert out.startswith("Epoch: 1; Batch 1; Loss ")
    assert rates_of(here / "run") == [0.05, 0.0]


def test_the_recorded_configuration_repeats_the_run(finished_run: Path, here: Path) -> None:
    shutil.copy(finished_run / "config.toml", "again.toml")
    assert run("train", "--config", "again.toml", "--output", "run", "--quiet").code == 0
    assert summary_of(here / "run")["parameters_sha256"] == summary_of(finished_run)["parameters_sha256"]
    assert (here / "run" / "iterations.csv").read_bytes() == (finished_run / "iterations.csv").read_bytes()
    assert (here / "run" / "config.toml").read_bytes() == (finished_run / "config.toml").read_bytes()


def test_the_folder_of_a_repeated_run_is_named_after_the_run(finished_run: Path, here: Path) -> None:
    shutil.copytree(finished_run, "mine")
    assert run("train", "--config", "mine/config.toml", "--epochs", "1", "--quiet").code == 0
    (folder,) = Path("runs").glob("2*")
    assert folder.name.endswith("_mine_optimizer_seed-1")


def test_a_run_that_fails_is_exit_code_1_and_keeps_its_rows(here: Path) -> None:
    code, _, err = run("train", *SMALL, "--batch-size", "16", "--learning-rate", "1e10", "--output", "run", "--quiet")
    assert code == 1
    assert re.search(r"\b(nan|inf)\b", err)
    last = len(rates_of(here / "run"))  # the row of the iteration that failed
    assert_names(err, "", f"iteration {last} ", "epoch 1", "10000000000.0", "optimizer.clip_gradient", " in run\n")
    assert not (here / "run" / "summary.json").exists()


@pytest.mark.process
def test_an_interrupted_run_is_exit_code_130_and_names_the_command_to_resume(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ("train", "--train-images", "640", "--test-images", "10", "--epochs", "100000", *ONE_THREAD, "--output", "run")
    process = ForkedProgram(*arguments, cwd=tmp_path)
    try:
        wait_for(lambda: (folder / "metrics.jsonl").exists() and rates_of(folder), process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 130
    *_, message = err.splitlines()
    iterations = len(rates_of(folder))
    assert_names(message, "", f"iteration {iterations} of ", "mnist-trainer train --resume run")
    assert iterations >= 10
    assert not (folder / "summary.json").exists()


# --- a user's own schedules

GOOD_MODULE = """
from pathlib import Path

def falling(iteration, base=0.1, power=1.0):
    return base / iteration ** power

class Halving:
    def __init__(self, base_lr, every):
        self.base_lr = base_lr
        self.every = every

    def __call__(self, iteration):
        return self.base_lr * 0.5 ** ((iteration - 1) // self.every)

class Counting:
    # It has state: a second call in an iteration returns another number.
    def __init__(self):
        self.calls = 0

    def __call__(self, iteration):
        self.calls += 1
        return 0.01 * self.calls

class Nested:
    @staticmethod
    def constant(iteration):
        return 0.05

def anything(iteration, **settings):
    return settings.get("rate", 0.01)

instance = Halving(0.2, 1)
"""

BAD_MODULE = """
def nan(iteration): return float("nan")
def infinite(iteration): return float("inf")
def negative(iteration): return -0.1
def text(iteration): return "0.1"
def none(iteration): pass
def true(iteration): return True
def a_list(iteration): return [0.1]
def huge(iteration): return 10 ** 400
def raising(iteration): raise RuntimeError("no rate today")
def dividing(iteration): return 1 / (iteration - 1)
def exiting(iteration): raise SystemExit("bye")
def late_nan(iteration): return 0.1 if iteration < 5 else float("nan")
def late_negative(iteration): return 5e-4 - 1e-4 * (iteration + 1)
def late_text(iteration): return 0.1 if iteration < 5 else "slow"
def late_none(iteration): return 0.1 if iteration < 5 else None
def late_raising(iteration): return [0.1, 0.1, 0.1, 0.1][iteration - 1]
def no_iteration(): return 0.1
def needy(iteration, rate): return rate
number = 0.1

class Refusing:
    def __init__(self, most=1):
        raise ValueError(f"most = {most} is not enough")
    def __call__(self, iteration): return 0.1

class NotCallable:
    pass

class Needy:
    def __init__(self, rate): pass
    def __call__(self, iteration): return 0.1
"""

WriteModule = Callable[[str, str], None]


@pytest.fixture
def write_module(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Return a function that writes a module into the current folder. The module is unloaded after the test."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, source: str) -> None:
        Path(f"{name}.py").write_text(source, encoding="utf-8")

    yield write
    for name in set(sys.modules) - before:
        if str(here) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write_schedule_config(name: str, arguments: str = "", learning_rate: float | None = None) -> None:
    training = "" if learning_rate is None else f"[training]\nlearning_rate = {learning_rate}\n"
    Path("own.toml").write_text(f'{training}[schedule]\nname = "{name}"\n{arguments}\n', encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "arguments", "learning_rate", "mode", "rates"),
    [
        pytest.param("mine:falling", "", None, "optimizer", [0.1 / k**1.0 for k in (1, 2, 3)], id="function"),
        pytest.param("mine:falling", "", None, "manual", [0.1 / k**1.0 for k in (1, 2, 3)], id="function, manual"),
        pytest.param(
            "mine:falling", "base = 0.2\npower = 0.5", None, "manual", [0.2 / k**0.5 for k in (1, 2, 3)], id="with arguments"
        ),
        pytest.param("mine:Halving", "every = 2", 0.08, "optimizer", [0.08, 0.08, 0.04], id="class"),
        pytest.param("mine:Halving", "every_fraction = 0.34", 0.08, "manual", [0.08, 0.04, 0.02], id="class with a duration"),
        pytest.param("mine:Counting", "", None, "optimizer", [0.01, 0.02, 0.03], id="class with state"),
        pytest.param("mine:Counting", "", None, "manual", [0.01, 0.02, 0.03], id="class with state, manual"),
        pytest.param("mine:instance", "", None, "optimizer", [0.2, 0.1, 0.05], id="instance"),
        pytest.param("mine:Nested.constant", "", None, "manual", [0.05, 0.05, 0.05], id="attribute of an attribute"),
        pytest.param("mine:anything", "rate = 0.07", None, "optimizer", [0.07, 0.07, 0.07], id="any arguments"),
    ],
)
def test_a_users_schedule_trains_at_its_own_rates(
    name: str,
    arguments: str,
    learning_rate: float | None,
    mode: str,
    rates: list[float],
    write_module: WriteModule,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spare_time(monkeypatch)
    write_module("mine", GOOD_MODULE)
    write_schedule_config(name, arguments, learning_rate)
    code, _, err = run(
        *("train", "--config", "own.toml", *SMALL, "--batch-size", "43"),
        *("--scheduler-mode", mode, "--output", "run", "--quiet"),
    )
    assert (code, err) == (0, "")
    assert rates_of(here / "run") == pytest.approx(rates, rel=1e-15, abs=0)


def test_a_users_schedule_may_be_one_of_mxnets(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import mxnet as mx\n\n"
        "class Warming(mx.lr_scheduler.LRScheduler):\n"
        "    def __init__(self, base_lr):\n"
        "        super().__init__(base_lr=base_lr, warmup_steps=2)\n"
        "    def __call__(self, num_update):\n"
        "        return self.get_warmup_lr(num_update) if num_update < self.warmup_steps else self.base_lr\n",
        encoding="utf-8",
    )
    (tmp_path / "own.toml").write_text('[training]\nlearning_rate = 0.1\n[schedule]\nname = "mine:Warming"\n', encoding="utf-8")
    done = program("train", "--config", "own.toml", *SMALL, *ONE_THREAD, "--output", "run", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert rates_of(tmp_path / "run") == [0.05, 0.1]


INVALID_SCHEDULES = [
    pytest.param("nowhere:f", "", ("'nowhere:f'", "ModuleNotFoundError"), id="no such module"),
    pytest.param(
        "broken:f", "", ("'broken:f'", "ZeroDivisionError: division by zero (broken.py, line 1)"), id="raises at import"
    ),
    pytest.param("unread:f", "", ("'unread:f'", "SyntaxError"), id="invalid Python"),
    pytest.param("exiting:f", "", ("'exiting:f'", "SystemExit"), id="exits at import"),
    pytest.param("bad:missing", "", ("'bad'", "'missing'"), id="no such attribute"),
    pytest.param("bad:Needy.rate", "", ("'bad'", "'Needy.rate'"), id="no such attribute of a class"),
    pytest.param("bad:", "", ("'bad:'", "module:attribute"), id="no attribute at all"),
    pytest.param(":f", "", ("':f'", "module:attribute"), id="no module at all"),
    pytest.param("bad:number", "", ("'bad:number'", "0.1"), id="a number"),
    pytest.param("bad:NotCallable", "", ("NotCallable",), id="a class without __call__"),
    pytest.param("bad:Refusing", "", ("ValueError: most = 1 is not enough (bad.py, line ",), id="a class that refuses"),
    pytest.param("bad:Refusing", "most = 0", ("ValueError: most = 0 is not enough",), id="a class that refuses its argument"),
    pytest.param("bad:Needy", "", ("schedule.rate: ", "missing", "bad:Needy"), id="a class without its argument"),
    pytest.param(
        "bad:Needy", "rate = 1\nmore = 2", ("schedule.more: ", "bad:Needy", "rate"), id="a class with an unknown argument"
    ),
    pytest.param("bad:needy", "", ("schedule.rate: ", "missing", "bad:needy"), id="a function without its argument"),
    pytest.param("bad:needy", "rat = 1", ("schedule.rat: ", "bad:needy", "did you mean rate?"), id="typing error"),
    pytest.param("bad:no_iteration", "", ("bad:no_iteration", "TypeError"), id="a function without an iteration"),
    pytest.param("bad:nan", "", ("bad:nan", " nan ", "iteration 1"), id="NaN"),
    pytest.param("bad:infinite", "", ("bad:infinite", " inf ", "iteration 1"), id="infinite"),
    pytest.param("bad:negative", "", ("bad:negative", " -0.1 ", "iteration 1"), id="negative"),
    pytest.param("bad:text", "", ("bad:text", " '0.1' ", "iteration 1"), id="text"),
    pytest.param("bad:none", "", ("bad:none", " None ", "iteration 1"), id="nothing"),
    pytest.param("bad:true", "", ("bad:true", " True ", "iteration 1"), id="true"),
    pytest.param("bad:a_list", "", ("bad:a_list", " [0.1] ", "iteration 1"), id="list"),
    pytest.param("bad:huge", "", ("bad:huge", " 1000"), id="beyond any float"),
    pytest.param(
        "bad:raising", "", ("bad:raising", "RuntimeError", "iteration 1", "no rate today", "(bad.py, line 10)"), id="raises"
    ),
    pytest.param("bad.py:nan", "", ("'bad.py:nan'", "write bad:nan, without .py"), id="a file instead of a module"),
    pytest.param("bad:dividing", "", ("bad:dividing", "ZeroDivisionError", "iteration 1"), id="divides by zero"),
    pytest.param("bad:exiting", "", ("bad:exiting", "SystemExit", "iteration 1"), id="exits"),
    pytest.param("bad:late_nan", "", ("bad:late_nan", " nan ", "iteration 5"), id="NaN at the fifth"),
    pytest.param("bad:late_negative", "", ("bad:late_negative", " -", "iteration 5"), id="negative at the fifth"),
    pytest.param("bad:late_text", "", ("bad:late_text", " 'slow' ", "iteration 5"), id="text at the fifth"),
    pytest.param("bad:late_none", "", ("bad:late_none", " None ", "iteration 5"), id="nothing at the fifth"),
    pytest.param("bad:late_raising", "", ("bad:late_raising", "IndexError", "iteration 5"), id="raises at the fifth"),
]


@pytest.mark.parametrize(("name", "arguments", "words"), INVALID_SCHEDULES)
def test_an_invalid_schedule_of_the_user_is_refused_before_anything_is_written(
    name: str, arguments: str, words: tuple[str, ...], write_module: WriteModule, here: Path, snapshot: Snapshot
) -> None:
    write_module("bad", BAD_MODULE)
    write_module("broken", "1 / 0\n")
    write_module("unread", "def f(iteration:\n")
    write_module("exiting", "raise SystemExit('bye')\n")
    write_schedule_config(name, arguments)
    before = content(here)
    (message,) = refused("train", "--config", "own.toml", "--batch-size", "8", *SMALL, "--output", "run")
    assert_names(message, "", *words)
    assert content(here) == before
    snapshot(message)


@pytest.mark.parametrize(("name", "words"), [("bad:nan", (" nan ", "iteration 1")), ("bad:raising", ("RuntimeError",))])
@pytest.mark.parametrize("command", [["show", "own.toml", "--iterations", "1"], ["plot", "own.toml", "--output", "x.png"]])
def test_an_invalid_schedule_of_the_user_is_neither_shown_nor_plotted(
    command: list[str], name: str, words: tuple[str, ...], write_module: WriteModule, here: Path
) -> None:
    write_module("bad", BAD_MODULE)
    write_schedule_config(name)
    (message,) = refused("schedules", *command)
    assert_names(message, "", name, *words)
    assert not Path("x.png").exists()


# --- schedules


def test_schedules_list_names_every_curve() -> None:
    code, out, err = run("schedules", "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.lower() for line in lines if not line.startswith(" ")] == list(FAMILIES)
    entries = list(re.finditer(r"^  (\S+)  .*\n(?:   .*\n)*", out, re.MULTILINE))
    assert [entry[1] for entry in entries] == [cls.__name__ for cls in CURVES]
    for entry in entries:
        assert "lr(k) = " in entry[0]


@pytest.mark.parametrize(
    ("name", "iterations", "lines"),
    [
        pytest.param("MultiFactor", "250,251", ["250,1.0", "251,0.5"], id="the tutorial's drop"),
        pytest.param("multi_factor", "250, 251", ["250,1.0", "251,0.5"], id="another spelling"),
        pytest.param("Factor", "1000000", ["1000000,1e-08"], id="far away"),
        pytest.param("Constant", "3,1,2,1", ["3,1.0", "1,1.0", "2,1.0", "1,1.0"], id="in the order asked"),
        pytest.param("CosineAnnealing", "1000,1001", ["1000,0.0", "1001,0.0"], id="after the end"),
        pytest.param("configs/tutorial.toml", "3752,3753", ["3752,0.03", "3753,0.003"], id="a shipped configuration"),
        pytest.param("tutorial.toml", "1,9380", ["1,0.03", "9380,3.0000000000000004e-05"], id="by its short name"),
    ],
)
def test_schedules_show(name: str, iterations: str, lines: list[str], here: Path) -> None:
    code, out, err = run("schedules", "show", name, "--iterations", iterations)
    assert (code, err) == (0, "")
    schedule, header, *rows = out.splitlines()
    assert re.fullmatch(r"\w+\(.*\)", schedule)
    assert (header, rows) == ("iteration,learning_rate", lines)


def test_schedules_show_without_iterations_prints_a_configuration(here: Path) -> None:
    code, out, _ = run("schedules", "show", "Warmup(Cosine(max_update=900, base_lr=0.1), 100)")
    assert code == DONE
    assert from_toml(out) == Warmup(Cosine(max_update=900, base_lr=0.1), warmup_steps=100)
    out = run("schedules", "show", "configs/one-cycle.toml").out
    assert set(tomllib.loads(out)) == {"schedule", "momentum"}
    assert run("schedules", "show", "OneCycleMomentum", "--iterations", "1").out.splitlines()[-2:] == [
        "iteration,momentum",
        "1,0.95",
    ]
    for cls in CURVES:
        assert from_toml(run("schedules", "show", cls.__name__).out) == cls(**cls.example)


def test_schedules_show_without_iterations_refuses_a_users_own(write_module: WriteModule, here: Path) -> None:
    write_module("my_schedules", "def half(iteration): return 0.5\n")
    (message,) = refused("schedules", "show", "my_schedules:half()")
    assert_names(message, "", "my_schedules:half()", "--iterations")


@pytest.mark.parametrize("name", ["StepLR", "steplr", "step_lr", "pytorch.StepLR", "torch.optim.lr_scheduler.StepLR"])
def test_schedules_find_prints_the_translation_as_python_and_toml(name: str) -> None:
    code, out, err = run("schedules", "find", name)
    assert (code, err) == (DONE, "")
    assert "# PyTorch: StepLR(optimizer, step_size=250, gamma=0.5), lr=1.0\n# Here: Factor(" in out
    assert from_toml(out) == Factor(step=250, factor=0.5, base_lr=1, stop_factor_lr=0)


def test_schedules_find_prints_a_configuration_for_every_name() -> None:
    for name in dictionary.names():
        out = run("schedules", "find", name).out
        (first, *others) = dictionary.find_translations(name)
        assert from_toml(out) == eval(first.ours, dict(vars(schedules)))
        assert all(f"# {other.framework}: {other.call}" in out for other in others)


def test_schedules_find_without_a_name_lists_all_names() -> None:
    lines = run("schedules", "find").out.splitlines()
    assert {line.strip() for line in lines} >= {*dictionary.names(), "PyTorch", "gluon-cv", "fairseq", "Megatron"}


def test_schedules_find_knows_the_names_that_a_schedule_has_elsewhere() -> None:
    out = run("schedules", "find", "WarmRestarts").out
    assert_names(out, "", "CosineAnnealingWarmRestarts (PyTorch)", "CosineDecayRestarts (Keras)")


def test_an_unknown_schedule_is_hinted_from_the_dictionary(here: Path) -> None:
    Path("own.toml").write_text('[schedule]\nname = "MultiStepLR"\n', encoding="utf-8")
    (message,) = refused("train", "--config", "own.toml")
    assert_names(message, "", "'MultiStepLR'", "PyTorch", "schedules find MultiStepLR")


def test_schedules_show_and_plot_momentum_next_to_the_rate(here: Path) -> None:
    code, out, err = run("schedules", "show", "configs/one-cycle.toml", "--iterations", "1,9380")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "OneCycleLR(max_update=9380, max_lr=0.05)",
        "OneCycleMomentum(max_update=9380)",
        "iteration,learning_rate,momentum",
        "1,0.0020000000000000018,0.95",
        "9380,2e-07,0.95",
    ]
    assert run("schedules", "plot", "configs/one-cycle.toml", "--output", "both.png").code == 0
    assert run("schedules", "plot", "configs/tutorial.toml", "--output", "one.png").code == 0
    assert imread("both.png").shape[1] > imread("one.png").shape[1]  # two panels


def test_two_configurations_with_the_same_kind_of_schedule_have_two_panels(here: Path) -> None:
    assert run("schedules", "plot", "MultiFactor", "tutorial", "tutorial-manual", "--output", "three.png").code == 0
    assert run("schedules", "plot", "MultiFactor", "--output", "one.png").code == 0
    assert imread("three.png").shape[1] > 1.5 * imread("one.png").shape[1]


def test_a_message_states_which_of_a_schedule_and_a_configuration_is_shown() -> None:
    code, out, err = run("schedules", "show", "one-cycle", "--iterations", "250")
    assert (code, out.splitlines()[-1]) == (0, "250,0.5")
    assert_names(err, "one-cycle ", "OneCycle", "configs/one-cycle.toml")


def test_schedules_show_a_users_own_file(here: Path) -> None:
    Path("own.toml").write_text(
        '[training]\nlearning_rate = 0.5\nepochs = 2\n[schedule]\nname = "Factor"\nstep_epochs = 1\nfactor = 0.5\n'
        "[data]\ntrain_images = 128\n",
        encoding="utf-8",
    )
    code, out, _ = run("schedules", "show", "own.toml", "--iterations", "1,2,3")
    assert (code, out.splitlines()[1:]) == (0, ["iteration,learning_rate", "1,0.5", "2,0.5", "3,0.25"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["find", "StepLL"], ("", "'StepLL'", "did you mean StepLR?"), id="a misspelled name of another framework"),
        pytest.param(["find", "qqqqq"], ("", "'qqqqq'", "schedules find"), id="an unknown name of another framework"),
        pytest.param(["find", "keras.StepLR"], ("", "'keras.StepLR'"), id="a name of another framework than this"),
        pytest.param(["show", "--iterations", "1"], ("", "NAME_OR_CONFIG"), id="no name"),
        pytest.param(["show", "Cosine", "--iterations", "1.5"], ("--iterations 1.5: ", "'1.5'"), id="half"),
        pytest.param(["show", "Cosine", "--iterations", "-1"], ("--iterations -1: ", "'-1'"), id="negative"),
        pytest.param(["show", "Cosine", "--iterations", ""], ("--iterations : ", "''"), id="empty"),
        pytest.param(["show", "Cosine", "--iterations", "1,,2"], ("--iterations 1,,2: ", "''"), id="a hole"),
        pytest.param(["show", "Cosine", "--iterations", "1;2"], ("--iterations 1;2: ", "'1;2'"), id="semicolon"),
        pytest.param(["show", "Cosine", "--iterations", "²"], ("--iterations ²: ", "'²'"), id="superscript"),
        pytest.param(["show", "Cosine", "--iterations", "9" * 19], (f"--iterations {'9' * 19}: ",), id="too many digits"),
        pytest.param(["show", "Cosin", "--iterations", "1"], ("", "'Cosin'", "did you mean Cosine?"), id="name"),
        pytest.param(["show", "qqqq", "--iterations", "1"], ("", "'qqqq'", "mnist-trainer schedules list"), id="no near name"),
        pytest.param(
            ["show", "configs/tutoral.toml", "--iterations", "1"],
            ("configs/tutoral.toml: ", "did you mean tutorial?"),
            id="configuration",
        ),
        pytest.param(["show", "./", "--iterations", "1"], (".: ", "folder", "TOML"), id="folder"),
        pytest.param(["plot", "Cosine"], ("", "--output"), id="no output"),
        pytest.param(["plot", "--output", "x.png"], ("", "NAME_OR_CONFIG"), id="nothing"),
        pytest.param(["plot", "Cosine", "--output", "x"], ("--output x: ", ".png, .pdf, .svg, .jpg"), id="no ending"),
        pytest.param(["plot", "Cosine", "--output", "x.doc"], ("--output x.doc: ", ".png, .pdf, .svg, .jpg"), id="ending"),
        pytest.param(
            ["plot", "Cosine", "--output", ".png"], ("--output .png: ", ".png, .pdf, .svg, .jpg"), id="only an ending"
        ),
        pytest.param(["plot", "Cosine", "--output", "nowhere/x.png"], ("--output nowhere/x.png: ",), id="no such folder"),
        pytest.param(["plot", "Cosine", "--output", "folder.png"], ("--output folder.png: ", "directory"), id="a folder"),
        pytest.param(["plot", "Cosin", "--output", "x.png"], ("", "'Cosin'", "did you mean Cosine?"), id="plot a name"),
    ],
)
def test_a_wrong_request_to_schedules_is_a_message(
    arguments: list[str], words: tuple[str, ...], here: Path, snapshot: Snapshot
) -> None:
    Path("folder.png").mkdir()
    (message,) = refused("schedules", *arguments)
    assert_names(message, *words)
    assert content(here) == {"folder.png": None}
    snapshot(message)


def test_all_unknown_schedules_of_a_plot_are_named(here: Path) -> None:
    name, path = refused("schedules", "plot", "Cosin", "Cosine", "nowhere/x.toml", "--output", "x.png")
    assert_names(name, "", "'Cosin'")
    assert_names(path, "nowhere/x.toml: ")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["Cosine"], id="one"),
        pytest.param(["Cosine", "Factor", "configs/tutorial.toml"], id="three"),
        pytest.param([cls.__name__ for cls in CURVES], id="all", marks=pytest.mark.slow),
    ],
)
def test_schedules_plot_writes_a_picture(names: list[str], here: Path) -> None:
    code, out, err = run("schedules", "plot", *names, "--output", "x.png")
    assert (code, out, err) == (0, "x.png\n", "")
    assert Path("x.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = imread("x.png")[..., :3]
    assert picture.shape[0] > 300
    assert (picture == 1).mean() > 0.5  # the background
    blue = (np.abs(picture - np.array([0, 0x72 / 255, 0xB2 / 255])) < 0.02).all(axis=-1)
    assert blue.sum() > 300 * len(names)  # the curves
    assert [path.name for path in here.iterdir()] == ["x.png"]


@pytest.mark.parametrize("broken", ["import", "figure", "file"])
def test_a_plot_that_fails_is_a_message(broken: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LookupError("no such font")

    if broken == "import":
        hide_matplotlib(monkeypatch)
    else:
        monkeypatch.setattr(f"mnist_trainer.plots.{'plot_schedules' if broken == 'figure' else 'save_figure'}", fail)
    code, out, err = run("schedules", "plot", "Cosine", "--output", "x.png")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "--output x.png" in err
    assert ("matplotlib" if broken == "import" else "no such font") in err
    assert list(here.iterdir()) == []


# --- evaluate


def test_evaluate_prints_the_scores_of_the_summary(finished_run: Path, here: Path) -> None:
    shutil.copytree(finished_run, "run")
    before = content(here)
    summary = summary_of(finished_run)
    code, out, err = run("evaluate", "run")
    assert (code, err) == (0, "")
    accuracy, loss = f"Test accuracy {summary['test_accuracy']:.2%}", f"test loss {summary['test_loss']:.6f}"
    assert_names(out, accuracy, f"{summary['test_correct']} of {summary['test_total']}", loss)
    assert content(here).items() >= before.items()
    assert {path.name for path in Path("run").iterdir() if str(path) not in before} == {
        "evaluation.json",
        "confusion_matrix.png",
        "mistakes.png",
    }


def other_network() -> Any:
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(10, in_units=784))
    net.initialize()
    return net


def wider_network() -> Any:
    net = mx.gluon.nn.HybridSequential(prefix="")
    with net.name_scope():
        for layer in build_cnn():
            net.add(mx.gluon.nn.Dense(100) if getattr(layer, "_units", 0) == 512 else layer)
    net.initialize()
    net(mx.nd.zeros((1, 1, 28, 28)))
    return net


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(truncate, id="half of them"),
        pytest.param(lambda path: path.write_bytes(b""), id="an empty file"),
        pytest.param(lambda path: path.write_bytes(b"garbage"), id="seven bytes"),
        pytest.param(lambda path: path.write_bytes(bytes(range(256)) * 1000), id="many bytes"),
        pytest.param(lambda path: other_network().save_parameters(str(path)), id="another network"),
        pytest.param(lambda path: wider_network().save_parameters(str(path)), id="other shapes"),
        pytest.param(lambda path: mx.nd.save(str(path), mx.nd.zeros((3,))), id="an array"),
    ],
)
def test_evaluate_refuses_parameters_of_another_network(
    spoil: Callable[[Path], object], finished_run: Path, here: Path
) -> None:
    shutil.copytree(finished_run, "run")
    spoil(Path("run/model.params"))
    before = content(here)
    (message,) = refused("evaluate", "run")
    assert_names(message, "run/model.params: ", "parameters")
    assert content(here) == before


def test_evaluate_refuses_a_run_that_did_not_finish(finished_run: Path, here: Path) -> None:
    shutil.copytree(finished_run, "run")
    Path("run/summary.json").unlink()
    (message,) = refused("evaluate", "run")
    assert_names(message, "run: ", "mnist-trainer train --resume run")


def test_evaluate_refuses_a_run_without_its_parameters(finished_run: Path, here: Path) -> None:
    shutil.copytree(finished_run, "run")
    Path("run/model.params").unlink()
    (message,) = refused("evaluate", "run")
    assert_names(message, "run/model.params: ", "missing")


def test_evaluate_refuses_a_broken_configuration(finished_run: Path, here: Path) -> None:
    shutil.copytree(finished_run, "run")
    Path("run/config.toml").write_text("[training]\nepochs = 0\n", encoding="utf-8")
    in_file, flag = refused("evaluate", "run", "--device", "tpu")
    assert_names(in_file, "run/config.toml: training.epochs = 0: ")
    assert_names(flag, "--device tpu: ")


def test_evaluate_runs_no_code_of_the_runs_folder(
    finished_run: Path, here: Path, write_module: WriteModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare_time(monkeypatch)
    shutil.copytree(finished_run, "run")
    write_module("evil", "from pathlib import Path\nPath('was_here').touch()\ndef run(iteration): return 0.1\n")
    recorded = Path("run/config.toml").read_text(encoding="utf-8")
    sections = [section for section in recorded.split("\n\n") if not section.startswith("[schedule]")]
    sections.append('[schedule]\nname = "evil:run"\n')
    Path("run/config.toml").write_text("\n\n".join(sections).replace("learning_rate = 0.03\n", ""), encoding="utf-8")
    shutil.copytree(finished_run, "twin")
    ours, theirs = run("evaluate", "run"), run("evaluate", "twin")
    assert (ours.code, ours.out, ours.err) == (0, theirs.out.replace("twin", "run"), "")
    assert not Path("was_here").exists()
    assert run("schedules", "show", "run/config.toml", "--iterations", "1").code == 0
    assert Path("was_here").exists()  # the code can run, so the check above is meaningful


# --- data, doctor, scripts


def test_data_verify_names_the_four_genuine_files(data_dir: Path) -> None:
    code, out, err = run("data", "verify", "--data-dir", data_dir)
    assert (code, err) == (0, "")
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for line, name in zip(out.splitlines(), names, strict=True):
        path = data_dir / f"{name}-ubyte.gz"
        assert_names(line, f"{path}: ", "genuine", hashlib.sha256(path.read_bytes()).hexdigest())


def test_data_verify_refuses_an_altered_file(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    shutil.copytree(data_dir, folder)
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\1")
    (message,) = refused("data", "verify", "--data-dir", folder)
    assert_names(message, f"{labels}: ")


def test_train_refuses_missing_data_before_it_writes(here: Path) -> None:
    messages = refused("train", *SMALL, "--data-dir", "nowhere", "--output", "run")
    for message, file in zip(messages, FILES, strict=True):
        assert_names(message, f"nowhere/{file.name}: ")
    assert content(here) == {}


def test_doctor_finds_all_well() -> None:
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert "problem: " not in out
    assert re.search(r"^mxnet +1\.9\.1$", out, re.MULTILINE)
    assert re.search(r"^threads +\d+ of \d+ processors$", out, re.MULTILINE)


def test_doctor_finds_what_is_missing(tmp_path: Path) -> None:
    code, out, err = run("doctor", "--data-dir", tmp_path)
    assert (code, err) == (1, "")
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    for problem, file in zip(problems, FILES, strict=True):
        assert_names(problem, f"problem: {tmp_path / file.name}: ")


@pytest.mark.process
def test_the_scripts_run_the_commands(repository: Path, tmp_path: Path) -> None:
    def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return start([sys.executable, str(repository / "scripts" / name), *arguments], tmp_path, stdout=subprocess.PIPE)

    refused_train = run_script("train.py", "--seed", "-1")
    assert (refused_train.returncode, refused_train.stdout) == (2, "")
    assert_names(refused_train.stderr, "--seed -1: ")
    plotted = run_script("plot_schedules.py", "Cosine", "--output", "x.png")
    assert (plotted.returncode, plotted.stdout, plotted.stderr) == (0, "x.png\n", "")
    refused_benchmark = run_script("benchmark.py", "--repetitions", "0")
    assert (refused_benchmark.returncode, refused_benchmark.stdout) == (2, "")
    assert_names(refused_benchmark.stderr, "--repetitions 0: ")


# --- streams


def start(command: list[str] | str, folder: Path, stdout: Any, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command, in a shell if it is a text, with the given stdout."""
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=new_environment(**variables),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        pytest.param(["schedules", "list"], "", id="at the end"),
        pytest.param(["schedules", "list"], "1", id="at the first line"),
        pytest.param(["train", "--help"], "", id="help"),
        pytest.param(["train", *SMALL, *ONE_THREAD, "--quiet"], "", id="in the middle of a run"),
    ],
)
def test_a_reader_that_closes_the_pipe_causes_no_traceback(arguments: Sequence[str], unbuffered: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does when it has read enough
    try:
        done = start([*PROGRAM, *arguments], tmp_path, writing, PYTHONUNBUFFERED=unbuffered)
    finally:
        os.close(writing)
    assert done.stderr == ""


@pytest.mark.process
def test_head_reads_its_byte(tmp_path: Path) -> None:
    done = start(f"{shlex.join(PROGRAM)} schedules list | head -c 1", tmp_path, subprocess.PIPE, PYTHONUNBUFFERED="")
    assert (done.stdout, done.stderr) == ("L", "")


@pytest.mark.process
def test_a_full_disk_behind_stdout_is_exit_code_1(tmp_path: Path) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = start([*PROGRAM, "schedules", "list"], tmp_path, full, PYTHONUNBUFFERED="")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert_names(done.stderr, "", os.strerror(errno.ENOSPC))


@pytest.mark.slow
@pytest.mark.process
def test_train_works_without_stdout(tmp_path: Path) -> None:
    arguments = shlex.join(("train", *SMALL, *ONE_THREAD, "--output", "run", "--quiet"))
    done = start(f"{shlex.join(PROGRAM)} {arguments} >&-", tmp_path, None)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_terminal_without_a_character_gets_its_code(new_program: Program) -> None:
    done = new_program("train", "--set", "optimizer.momentum=2", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2
    assert_names(done.stderr, "--set optimizer.momentum=2: ", "\\u2265 0")


# --- the search for a learning rate

SEARCH = ("--train-images", "128")


def test_find_lr_prints_its_suggestion_and_writes_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "lr"
    code, out, err = run("find-lr", *SEARCH, "--start-lr", "0.0001", "--end-lr", "1", "--iterations", "200", "--output", folder)
    assert (code, err) == (0, "")
    assert {path.name for path in folder.iterdir()} == {
        "config.toml",
        "environment.json",
        "lr_finder.csv",
        "lr_finder.json",
        "lr_finder.png",
    }
    header, *rows = (folder / "lr_finder.csv").read_text(encoding="utf-8").splitlines()
    assert header == "iteration,learning_rate,loss,smoothed_loss"
    rates = [float(row.split(",")[1]) for row in rows]
    assert rates[0] == 0.0001
    assert rates[-1] <= 1
    result = json.loads((folder / "lr_finder.json").read_text(encoding="utf-8"))
    assert result["iterations"] == len(rows)
    assert 0.001 < result["suggestion"] < 1
    stopped, steepest, *_, suggested, folder_line = out.splitlines()
    assert_names(stopped, "", f"{len(rows)} of 200 iterations")
    assert_names(steepest, "", f"learning rate {result['suggestion']:.3g}")
    assert_names(suggested, f"Suggested learning rate {result['suggestion']:.3g}")
    assert folder_line == f"Folder {folder}"
    (message,) = refused("evaluate", folder)
    assert_names(message, f"{folder}: ", "search")


def test_an_interrupted_sweep_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = TrainStep.fetch
    steps: list[TrainStep] = []

    def interrupted_fetch(step: TrainStep) -> list[IterationRecord]:
        if len(steps) == 7:
            raise KeyboardInterrupt
        steps.append(step)
        return fetch(step)

    monkeypatch.setattr(TrainStep, "fetch", interrupted_fetch)
    code, _, err = run("find-lr", *SEARCH, "--output", tmp_path / "lr")
    assert code == 130
    assert_names(err, "", "interrupted", str(tmp_path / "lr"))
    assert len((tmp_path / "lr" / "lr_finder.csv").read_text(encoding="utf-8").splitlines()) == 1 + 7
    assert not (tmp_path / "lr" / "lr_finder.json").exists()


def test_a_sweep_succeeds_without_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LookupError("no such font")

    monkeypatch.setattr("mnist_trainer.plots.plot_lr_sweep", fail)
    folder = tmp_path / "lr"
    code, out, err = run(
        "find-lr", *SEARCH, "--start-lr", "0.0001", "--end-lr", "1", "--iterations", "200", "--output", folder, "--quiet"
    )
    assert code == 0
    assert "Suggested learning rate" in out
    assert len(err.splitlines()) == 1
    assert_names(err, "", f"{folder / 'lr_finder.png'}: ", "no such font", "another --output")
    assert {path.name for path in folder.iterdir()} == {"config.toml", "environment.json", "lr_finder.csv", "lr_finder.json"}


def test_find_lr_trains_with_the_initial_momentum_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)

    def csv_with(name: str, *changes: str) -> str:
        flags = [argument for change in changes for argument in ("--set", change)]
        code, *_ = run("find-lr", *SEARCH, "--iterations", "20", "--end-lr", "1", *flags, "--output", tmp_path / name)
        assert code in (0, 1)
        return (tmp_path / name / "lr_finder.csv").read_text(encoding="utf-8")

    constant = csv_with("constant", "optimizer.momentum=0.5")
    assert csv_with("scheduled", 'momentum={name="Linear", base_lr=0.505, final_lr=0.005, max_update=100}') == constant
    assert csv_with("none") != constant


def test_a_sweep_without_a_suggestion_is_a_failure_that_keeps_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "lr"
    code, out, err = run(
        "find-lr", *SEARCH, "--start-lr", "1e-9", "--end-lr", "1e-8", "--iterations", "20", "--output", folder, "--quiet"
    )
    assert code == 1
    assert_names(out, "", "20 of 20 iterations", "end_lr")
    assert_names(err, "", "no learning rate", str(folder))
    assert (folder / "lr_finder.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--start-lr", "0"], ("--start-lr 0: ", "> 0"), id="no rate"),
        pytest.param(["--start-lr", "2", "--end-lr", "1"], ("--end-lr 1.0: ", "2.0"), id="falling"),
        pytest.param(["--end-lr", "inf"], ("--end-lr inf: ",), id="infinity"),
        pytest.param(["--end-lr", "1e39"], ("--end-lr 1e39: ", "float32"), id="float32"),
        pytest.param(["--start-lr", "x"], ("--start-lr x: ", "number > 0"), id="text"),
        pytest.param(["--iterations", "19"], ("--iterations 19: ", "from 20 "), id="too few"),
        pytest.param(["--iterations", "1e3"], ("--iterations 1e3: ", "whole number"), id="not a whole number"),
        pytest.param(["--seed", "-1"], ("--seed -1: ",), id="a flag of the run"),
        pytest.param(["--learning-rate", "1"], ("--learning-rate: ",), id="a flag that a sweep does not read"),
        pytest.param(["--iteration", "30"], ("--iteration: ", "did you mean --iterations?"), id="typing error"),
    ],
)
def test_find_lr_refuses_wrong_values(arguments: list[str], words: tuple[str, ...], tmp_path: Path, snapshot: Snapshot) -> None:
    (message,) = refused("find-lr", *SEARCH, *arguments, "--output", tmp_path / "lr")
    assert_names(message, *words)
    assert not (tmp_path / "lr").exists()
    snapshot(message)
