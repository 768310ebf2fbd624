"""The library is built by a compiler that can, with flags that keep its numbers right; without one, the reason is kept.

The compilers are scripts of a line or two, but for the last test.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import assert_names
from programs import LIMIT_SECONDS, REPOSITORY, run_python
from requirements import needs_compiler, needs_fused

from mnist_trainer.diagnostics import doctor
from mnist_trainer.model import native
from mnist_trainer.model.native.sources import FLAGS, NOT_BUILT

# Of Clang, in short.
REFUSES = "echo 'kernels.cc:3:2: error: GCC 9 or newer is needed' >&2; exit 1"
# The last argument is the library, which gets the arguments, one a line.
WRITES_ITS_ARGUMENTS = 'for last; do :; done; printf "%s\\n" "$@" >"$last"'

Build = Callable[..., str]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is built, without a library."""
    folder = tmp_path / "checkout"
    leave_out = shutil.ignore_patterns("*.so", NOT_BUILT, "__pycache__")
    shutil.copytree(REPOSITORY / "mnist_trainer", folder / "mnist_trainer", ignore=leave_out)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


@pytest.fixture
def build(checkout: Path) -> Build:
    """Builds in the checkout, as pip does; returns what the build printed."""

    def run(*arguments: str, **variables: str) -> str:
        users = ("CC", "CXX", "CPPFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS")
        environment = {key: value for key, value in os.environ.items() if key not in users} | variables
        command = [sys.executable, "-W", "ignore", "setup.py", *(arguments or ("build_ext", "--inplace"))]
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def compiler(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def library_of(checkout: Path) -> Path:
    return checkout / "mnist_trainer" / "model" / "native" / native.library_path().name


@pytest.mark.process
def test_without_a_compiler_the_build_goes_on_and_keeps_the_reason(checkout: Path, build: Build) -> None:
    told = build(PATH="/nonexistent", CC="/nonexistent/cc", CXX="/nonexistent/c++")
    assert "mnist_trainer.model.native.conv_pool_relu" in told
    assert not list(checkout.rglob("*.so"))
    # One goes into a wheel, one is for an editable installation.
    reasons = {
        path.parent.relative_to(checkout).parts[0]: path.read_text(encoding="utf-8") for path in checkout.rglob(NOT_BUILT)
    }
    assert set(reasons) == {"build", "mnist_trainer"}
    (reason,) = set(reasons.values())
    assert_names(reason, "/nonexistent/c++: No such file or directory", "g++: No such file or directory")


@pytest.mark.process
def test_the_doctor_and_runs_give_the_reason(
    checkout: Path, build: Build, data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build(PATH=str(compiler(tmp_path / "bin", "g++", REFUSES).parent))
    library = library_of(checkout)
    monkeypatch.setattr(native, "library_path", lambda: library)
    monkeypatch.setenv(native.VARIABLE, "portable")  # a processor without AVX2 would be another reason
    found = str(native.problem())
    assert_names(found, "", "fused operator", "g++: GCC 9 or newer is needed", "apt-get install g++")
    (finding,) = (candidate for candidate in doctor.examine(1, data_dir) if candidate.subject == "fused backend")
    assert found in finding.state


@pytest.mark.process
@pytest.mark.parametrize("broken", [REFUSES, "kill -9 $$"], ids=["another compiler", "one that dies"])
def test_gcc_is_tried_after_the_compiler_of_the_environment(broken: str, checkout: Path, build: Build, tmp_path: Path) -> None:
    clang = compiler(tmp_path, "clang++", broken)
    path = str(compiler(tmp_path / "bin", "g++", WRITES_ITS_ARGUMENTS).parent)
    library_of(checkout).with_name(NOT_BUILT).write_text("of an earlier build", encoding="utf-8")
    build(CXX=str(clang), PATH=path)
    assert library_of(checkout).exists()
    assert not list(checkout.rglob(NOT_BUILT))


@pytest.mark.process
def test_a_compiler_of_the_environment_that_can_is_taken(checkout: Path, build: Build, tmp_path: Path) -> None:
    build(CXX=f"{compiler(tmp_path, 'g++-14', WRITES_ITS_ARGUMENTS)} -one '-two of them'", PATH="/nonexistent")
    assert library_of(checkout).read_text(encoding="utf-8").splitlines()[:2] == ["-one", "-two of them"]


@pytest.mark.process
def test_flags_of_the_user_come_before_ours_and_are_told(checkout: Path, build: Build, tmp_path: Path) -> None:
    users = {"CPPFLAGS": "-DA", "CFLAGS": "-march=haswell -ffast-math", "CXXFLAGS": '-DB="b"', "LDFLAGS": "-Wl,-z,now"}
    build(PATH=str(compiler(tmp_path / "bin", "g++", WRITES_ITS_ARGUMENTS).parent), **users)
    arguments = library_of(checkout).read_text(encoding="utf-8").splitlines()
    theirs = ["-DA", "-march=haswell", "-ffast-math", "-DB=b", "-Wl,-z,now"]
    assert arguments[: len(theirs) + len(FLAGS)] == [*theirs, *FLAGS]
    assert f'-DMNIST_TRAINER_NATIVE_FLAGS=", flags {" ".join(theirs)}"' in arguments


@pytest.mark.process
def test_nothing_of_an_earlier_build_is_left(checkout: Path, build: Build, tmp_path: Path) -> None:
    gcc = str(compiler(tmp_path / "bin", "g++", WRITES_ITS_ARGUMENTS).parent)
    for flag in ("-first", "-second"):  # other flags, and all files as they were
        build(PATH=gcc, CFLAGS=flag)
        assert [path.read_text(encoding="utf-8").split()[0] for path in checkout.rglob("*.so")] == [flag, flag]
    build(PATH="/nonexistent")
    assert not list(checkout.rglob("*.so"))


@pytest.mark.process
@pytest.mark.slow
@needs_compiler
@needs_fused
def test_no_flag_of_the_user_spoils_the_numbers(checkout: Path, build: Build) -> None:
    hostile = "-march=native -Ofast -ffast-math -funsafe-math-optimizations -fvisibility=hidden"
    build(CFLAGS=hostile)

    def in_the_checkout(*arguments: str) -> str:
        done = run_python(*arguments, cwd=checkout, PYTHONPATH=str(checkout))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    told = in_the_checkout("-c", "from mnist_trainer.model import native; print(native.problem(), native.built_from())")
    assert told.startswith("None ")
    assert told.strip().endswith(f", flags {hostile}")
    assert told.split()[1] == native.built_from().split()[0]  # the same sources

    shutil.copytree(REPOSITORY / "tests", checkout / "tests")
    shutil.copytree(REPOSITORY / "data", checkout / "data")
    in_the_checkout(
        *("-m", "pytest", "-n0", "tests/training/test_fused_sgd.py::test_the_bits_are_those_of_mxnets_sgd"),
        "tests/model/test_native.py::test_what_is_not_finite_reaches_the_output",
        "tests/model/test_native.py::test_a_nan_in_one_of_four_is_not_lost",
        "tests/model/test_native.py::test_denormals_stay_what_they_are_when_the_library_is_loaded",
    )
