"""Tests of CONTRIBUTING.md: the steps work, and the checks are those of the hooks and of `.ci/run`."""

import re
import shutil
import textwrap
from pathlib import Path

import pytest
import yaml
from programs import REPOSITORY, run_python

CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")

SMALL = ("--train-images", "64", "--test-images", "10", "--epochs", "1", "--threads", "1", "--quiet")


def test_hooks_guide_and_ci_have_the_same_checks() -> None:
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    hooks = repository["hooks"]
    assert {(hook["language"], hook["pass_filenames"]) for hook in hooks} == {("system", False)}
    assert all(hook["entry"].startswith(f".venv/bin/{hook['name']}") for hook in hooks)
    (checks,) = re.findall(r"^.*ruff.*&&.*$", CONTRIBUTING, re.MULTILINE)
    assert [hook["entry"] for hook in hooks] == checks.split(" && ")
    ci = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    commands = re.findall(r'^quietly "\$work/tools/bin/python" -m ((?:ruff|mypy) .*)$', ci, re.MULTILINE)
    in_ci = [re.sub(r" --check| --python-executable \S+", "", command) for command in commands]
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in hooks] == in_ci


def follow(title: str, checkout: Path) -> None:
    """Follow the numbered steps of a section: create the files of its Python blocks, and apply its diffs."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert section
    steps = re.findall(r"^\d\. .*?`(mnist_trainer/\S+)`.*?^   ```(\w+)\n(.*?)^   ```$", section[1], re.MULTILINE | re.DOTALL)
    assert len(steps) >= 3
    for path, language, indented in steps:
        block = textwrap.dedent(indented) if language == "python" else re.sub("^   ", "", indented, flags=re.MULTILINE)
        if language == "python":
            assert not (checkout / path).exists()
            (checkout / path).write_text(block, encoding="utf-8")
            continue
        lines = block.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        content = (checkout / path).read_text(encoding="utf-8")
        assert content.count(before) == 1, f"{path} must contain this exactly once:\n{before}"
        (checkout / path).write_text(content.replace(before, after), encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the package, along with the configurations and the data next to it."""
    folder = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "mnist_trainer", folder / "mnist_trainer", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("configs", "data"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


def run(checkout: Path, *arguments: str) -> str:
    done = run_python("-m", "mnist_trainer", *arguments, cwd=checkout, PYTHONPATH=str(checkout))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
@pytest.mark.process
def test_the_steps_add_a_schedule(checkout: Path) -> None:
    follow("Add a schedule", checkout)
    assert re.search(r"^ +HalfLife +Halves every half_life iterations", run(checkout, "schedules", "list"), re.MULTILINE)
    assert run(checkout, "schedules", "show", "HalfLife", "--iterations", "1,101").splitlines()[-2:] == ["1,1.0", "101,0.5"]
    settings = "schedule={name = 'HalfLife', half_life_epochs = 1}"
    run(checkout, "train", *SMALL, "--set", settings, "--output", "run")
    assert 'name = "HalfLife"' in (checkout / "run" / "config.toml").read_text(encoding="utf-8")
    done = run_python("-m", "doctest", "mnist_trainer/schedules/half_life.py", cwd=checkout, PYTHONPATH=str(checkout))
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.process
def test_the_steps_add_a_command(checkout: Path) -> None:
    follow("Add a command", checkout)
    assert re.search(r"^ +locate +print the folder of the MNIST files$", run(checkout, "--help"), re.MULTILINE)
    assert "--data-dir" in run(checkout, "locate", "--help")
    assert run(checkout, "locate", "--data-dir", "elsewhere") == "elsewhere\n"


@pytest.mark.slow
@pytest.mark.process
def test_the_steps_add_an_optimizer(checkout: Path) -> None:
    follow("Add an optimizer", checkout)
    run(checkout, "train", *SMALL, "--set", "optimizer.name=signdescent", "--learning-rate", "0.001", "--output", "run")
    assert 'name = "signdescent"' in (checkout / "run" / "config.toml").read_text(encoding="utf-8")
