"""What the README says is so: its commands run, its examples work, its tables are those of the files."""

import dataclasses
import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread
from programs import REPOSITORY, run_command, run_forked_program

from mnist_trainer.cli import main
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.optimizers import OPTIMIZERS
from mnist_trainer.config.overrides import Override
from mnist_trainer.errors import DONE
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.schedules import CURVES, Schedule
from mnist_trainer.schedules.builtin_warmup import BuiltinSchedule
from mnist_trainer.schedules.schedule import CURVE, STATE, fields_in_role
from mnist_trainer.schedules.schedule import CURVES as CURVES_ROLE

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# Title → commands, of the sections that have some.
SECTIONS = {
    title: commands
    for title, section in re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    if (commands := [line for block in blocks("console", section) for line in block.splitlines()])
}
SET_UP, *OTHERS = SECTIONS


def in_a_clone(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command as in a clone with an activated environment; `mnist-trainer` in a fork, which has loaded MXNet."""
    for name in ("configs", "data", "scripts", "tests"):
        if not (folder / name).exists():
            (folder / name).symlink_to(REPOSITORY / name)
    if command[0] == "mnist-trainer":
        return run_forked_program(*command[1:], cwd=folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return run_command(*command, cwd=folder, PATH=path, OMP_NUM_THREADS="1")


def words(command: str) -> list[str]:
    """Splits a command line, or leaves it to a shell where it takes one."""
    return ["bash", "-c", command] if re.search(r"[|>$&]", command) else shlex.split(command)


def shortened(command: str) -> str:
    """Makes minutes seconds: the first 640 images, one seed, one of the costs of a run, and pictures of two fonts."""
    command = re.sub(r"--seeds [\d,]+", "--seeds 0 --epochs 1", command)
    command = command.replace("measure_costs.py", "measure_costs.py memory --set data.train_images=640 --repetitions 1")
    if "find-lr" in command:
        return command + " --iterations 100"
    if re.search(r"mnist-trainer benchmark|scripts/benchmark\.py", command):
        return command + " --train-images 640 --set data.test_images=100 --repetitions 1 --threads 1"
    if "mnist-trainer demo" in command:  # which serves until it is stopped; `timeout` then says 124
        return f"timeout 5 {command} --port 0 || [ $? = 124 ]"
    if command.startswith("python tests/drawn_digits.py"):  # 750 pictures, of which two fonts do
        return command + " && find drawn -type f ! -name 'DejaVuSans_*' ! -name 'cmr10_*' -delete"
    trains = re.search(r"(mnist-trainer (train|compare)|-- train|scripts/(train|compare)\.py)", command)
    fixed = "--train-images" in command or "--resume" in command
    return command + " --train-images 640 --test-images 100" if trains and not fixed else command


def test_the_set_up_and_the_tests_are_three_commands() -> None:
    set_up, quick, whole = SECTIONS[SET_UP]
    assert set_up.startswith("python3 -m venv .venv && ")
    assert set_up.endswith("&& .venv/bin/mnist-trainer train")
    # The check of a fresh checkout runs these two word for word.
    assert quick.startswith("python3 -m venv .venv && ")
    assert quick.endswith('&& .venv/bin/pytest -m "not slow"')
    assert whole == ".venv/bin/pytest"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("title", OTHERS)
def test_the_commands_of_a_section_run_one_after_the_other(title: str, trained_run: Path, tmp_path: Path) -> None:
    commands = SECTIONS[title]
    if not any("--output runs/tutorial" in command for command in commands):  # which an earlier section trains
        shutil.copytree(trained_run, tmp_path / "runs" / "tutorial")
    for command in commands:
        done = in_a_clone(tmp_path, words(shortened(command)))
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if command.startswith("cmp"):
            assert done.stdout == ""
        if command.startswith("grep parameters_sha256"):
            fingerprints = re.findall(r'"parameters_sha256": "([0-9a-f]{64})"', done.stdout)
            assert len(fingerprints) == 2
            assert len(set(fingerprints)) == 1
    for path in re.findall(r"--output (\S+)", " ".join(commands)):
        assert list(tmp_path.glob(f"{path}*")), path


@pytest.mark.slow
@pytest.mark.process
def test_the_python_example_runs(tmp_path: Path) -> None:
    example = next(block for block in blocks("python") if "fit(" in block)
    done = in_a_clone(tmp_path, [sys.executable, "-W", "error", "-c", example])
    assert done.returncode == 0, done.stderr
    *_, last = re.findall(r"^test accuracy (0\.\d{4}) at", done.stdout, re.MULTILINE)
    assert float(last) > 0.96


@pytest.mark.slow
@pytest.mark.process
def test_the_exported_model_is_used_as_the_example_does(trained_run: Path, tmp_path: Path) -> None:
    example = next(block for block in blocks("python") if "onnxruntime" in block)
    assert len([line for line in example.splitlines() if line]) <= 10
    assert main(["export", str(trained_run), "--format", "onnx", "--output", str(tmp_path / "digits.onnx")]) == DONE
    done = in_a_clone(tmp_path, [sys.executable, "tests/drawn_digits.py", "drawn"])
    assert done.returncode == 0, done.stderr
    alone = "import sys\nsys.modules['mxnet'] = sys.modules['mnist_trainer'] = None\n"
    right = 0
    for digit in range(5):
        script = alone + example.replace("_7.png", f"_{digit}.png")
        done = in_a_clone(tmp_path, [sys.executable, "-W", "error", "-c", script])
        assert done.returncode == 0, done.stderr
        right += done.stdout == f"{digit}\n"
    assert right >= 4


@pytest.mark.slow
@pytest.mark.process
def test_the_users_schedule_trains(tmp_path: Path) -> None:
    module = next(block for block in blocks("python") if block.startswith("# my_schedules.py"))
    (tmp_path / "my_schedules.py").write_text(module, encoding="utf-8")
    schedule = next(block for block in blocks("toml") if "my_schedules" in block)
    (tmp_path / "mine.toml").write_text(schedule, encoding="utf-8")
    done = in_a_clone(tmp_path, ["mnist-trainer", "schedules", "show", "mine.toml", "--iterations", "1,939,1877"])
    assert done.stdout.splitlines()[2:] == ["1,0.05", "939,0.025", "1877,0.05"], done.stderr
    done = in_a_clone(tmp_path, shortened("mnist-trainer train --config mine.toml --epochs 4 --output mine").split())
    assert done.returncode == 0, done.stderr
    rates = [rate for _, rate, _ in RunFolder(tmp_path / "mine").read_iterations()]
    assert rates == pytest.approx([0.05 * (1 - k % 20 / 20) for k in range(40)])  # 10 iterations an epoch now


@pytest.mark.parametrize("cls", CURVES, ids=lambda cls: cls.__name__)
def test_the_table_of_settings_is_that_of_the_curve(cls: type[Schedule]) -> None:
    row = re.search(rf"^\| `{cls.__name__}` \|(.*)\|$", README, re.MULTILINE)
    assert row
    named = {spec.name for spec in dataclasses.fields(cls)} - set(fields_in_role(cls, STATE))
    told_below = {"warmup_steps", "warmup_begin_lr", "warmup_mode"} if issubclass(cls, BuiltinSchedule) else set()
    assert set(re.findall(r"`(\w+)`", row[1])) - {"base_lr"} == named - told_below - {"base_lr"}
    holds_others = fields_in_role(cls, CURVE) or fields_in_role(cls, CURVES_ROLE)
    assert ("no `base_lr`" in row[1]) == ("base_lr" not in named and not holds_others)


def test_the_number_of_tables_and_values_is_that_of_the_files() -> None:
    tables = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((REPOSITORY / "tests/schedules/golden").glob("*.json"))
    ]
    cases = [case for table in tables for case in table["cases"]]
    values = sum(len(case["values"]) for case in cases)
    assert f"{len(tables)} of them, {len(cases)} cases with {values:,} rates" in README


def test_every_figure_is_there() -> None:
    figures = re.findall(r"!\[.+\]\((.+)\)", README)
    assert len(figures) >= 5
    for path in figures:
        assert imread(REPOSITORY / path).shape[0] > 100, path


def test_the_figure_shows_every_schedule() -> None:
    path = re.search(r"!\[A small panel for each schedule\]\((data/figures/.*\.png)\)", README)
    assert path
    columns, rows = 5, -(-len(CURVES) // 5)
    width, height = imread(REPOSITORY / path[1]).shape[1::-1]
    assert width / height == pytest.approx(3.0 * columns / (2.5 * rows), rel=0.01)


@pytest.mark.slow
@pytest.mark.process
def test_the_example_of_a_nested_schedule_trains(tmp_path: Path) -> None:
    nested = next(block for block in blocks("toml") if "[schedule.curve]" in block)
    (tmp_path / "nested.toml").write_text(f"[training]\nlearning_rate = 0.1\n{nested}", encoding="utf-8")
    schedule = load_config(tmp_path / "nested.toml").build_schedule()
    assert schedule.rates(469, 470) == [0.1, pytest.approx(0.1, rel=1e-5)]
    assert schedule(469 + 5628) == pytest.approx(0.01)
    assert schedule(9380) == pytest.approx(0, abs=1e-9)
    changes = [change for change in re.findall(r"`--set '?(schedule[^`']*)'?`", README) if "module:" not in change]
    assert len(changes) == 2
    for change in changes:
        changed = load_config(tmp_path / "nested.toml", [Override.from_assignment(change)]).build_schedule()
        assert changed != schedule
    done = in_a_clone(tmp_path, shortened("mnist-trainer train --config nested.toml --output nested").split())
    assert done.returncode == 0, done.stderr


def test_what_python_prints_in_the_examples_is_what_it_prints() -> None:
    examples = [block for block in blocks("python") if block.startswith(">>>")]
    assert examples
    for example in examples:
        tests = doctest.DocTestParser().get_doctest(example, {}, "README", "README.md", 0)
        assert doctest.DocTestRunner().run(tests).failed == 0


def test_the_configuration_example_is_a_configuration(tmp_path: Path) -> None:
    whole = next(block for block in blocks("toml") if "[training]" in block)
    (tmp_path / "whole.toml").write_text(whole, encoding="utf-8")
    config = load_config(tmp_path / "whole.toml")
    assert repr(config.build_schedule()) == repr(load_config("tutorial").build_schedule())
    names = re.search(r'name = "sgd" +# or (.*)', whole)
    assert names
    assert sorted(["sgd", *names[1].split(", ")]) == sorted(OPTIMIZERS)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_the_table_of_configurations_says_what_they_say(path: Path) -> None:
    measured = re.search(r"# Measured: (\d\d\.\d\d) % on the test images, (\d+) s ", path.read_text(encoding="utf-8"))
    assert measured
    assert re.search(rf"^\| `{path.stem}` \|.*\| {re.escape(measured[1])} % \| {measured[2]} s \|$", README, re.MULTILINE)
