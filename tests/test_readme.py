"""What the README says is so: its commands run, its examples work, its tables are those of the files."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mnist_trainer.config import load_config
from mnist_trainer.mxnet_optimizers import OPTIMIZERS
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.schedules import CURVES, Schedule

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("console") for line in block.splitlines()]


def in_a_clone(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command as in a clone with an activated environment."""
    for name in ("configs", "data", "scripts"):
        if not (folder / name).exists():
            (folder / name).symlink_to(REPOSITORY / name)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command, cwd=folder, env=environment | {"PATH": path}, capture_output=True, text=True, timeout=300, check=False
    )


def shortened(command: str) -> str:
    """Trainings on all 60,000 images take minutes; here they get the first 640."""
    trains = re.search(r"(mnist-trainer train|scripts/train\.py)", command)
    return command + " --train-images 640 --test-images 100" if trains and "--train-images" not in command else command


def test_the_set_up_is_two_commands() -> None:
    set_up = [command for command in COMMANDS if "venv" in command]
    assert len(set_up) == 2
    assert set_up[0].endswith("&& .venv/bin/mnist-trainer train")
    assert set_up[1].endswith("&& .venv/bin/pytest")  # the check of a fresh checkout runs it word for word


def test_every_other_command_runs_one_after_the_other(tmp_path: Path) -> None:
    commands = [command for command in COMMANDS if "venv" not in command]
    assert len(commands) >= 15
    for command in commands:
        done = in_a_clone(tmp_path, ["bash", "-c", shortened(command)])
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if command.startswith("cmp"):
            assert done.stdout == ""
        if command.startswith("grep parameters_sha256"):
            fingerprints = re.findall(r'"parameters_sha256": "([0-9a-f]{64})"', done.stdout)
            assert len(fingerprints) == 2
            assert len(set(fingerprints)) == 1
    assert {"schedules.png", "configs.png", "cosine.png", "mnist-copy", "runs"} <= {path.name for path in tmp_path.iterdir()}


def test_the_python_example_runs(tmp_path: Path) -> None:
    example = next(block for block in blocks("python") if "fit(" in block)
    done = in_a_clone(tmp_path, [sys.executable, "-W", "error", "-c", example])
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.96


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
    told_below = {"base_lr", "warmup_steps", "warmup_begin_lr", "warmup_mode"}
    assert set(re.findall(r"`(\w+)`", row[1])) == {spec.name for spec in dataclasses.fields(cls)} - told_below


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
