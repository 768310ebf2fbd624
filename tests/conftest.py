"""What the tests share: real data, two OpenMP threads, and the program as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_trainer import runtime

REPOSITORY = Path(__file__).parent.parent

runtime.prepare(threads=2)  # before any test module imports MXNet: the number of threads is part of every result

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The genuine MNIST files."""
    return REPOSITORY / "data" / "mnist"


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
