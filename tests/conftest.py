"""What the tests share: real data, one OpenMP thread, and the program as a user runs it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnist_trainer import runtime
from mnist_trainer.cli import main
from mnist_trainer.errors import DONE
from mnist_trainer.mnist_files import Split, read_split

REPOSITORY = Path(__file__).parent.parent

# Before any test module imports MXNet. One thread, because two on a machine that has other work to do wait for each other
# most of the time; the tests that run the program as a user does have as many as the processors.
runtime.prepare(threads=1)

Program = Callable[..., subprocess.CompletedProcess[str]]


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What the condition gives as soon as it gives something that counts."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come in time"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The genuine MNIST files."""
    return REPOSITORY / "data" / "mnist"


@pytest.fixture(scope="session")
def test_split(data_dir: Path) -> Split:
    """The test images and labels."""
    return read_split(data_dir, train=False)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that has learnt the digits in a few seconds; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = ("--epochs", "1", "--train-images", "12800", "--set", "optimizer.momentum=0.9", "--quiet")
    assert main(["train", *arguments, "--output", str(folder)]) == DONE
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Runs `mnist-trainer ARGS` in a process of its own, in an empty folder; returns its exit code and what it printed."""

    def run(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        folder = cwd or tmp_path
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        return subprocess.run(
            [sys.executable, "-m", "mnist_trainer", *map(str, arguments)],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(REPOSITORY), **variables},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run
