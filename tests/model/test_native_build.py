"""The build of the library: it uses a suitable compiler and flags that keep the results exact, and records why it failed.

Except in the last test, the compilers are scripts of one or two lines.
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

# The error of Clang, shortened.
REFUSES = "echo 'kernels.cc:3:2: error: GCC 9 or newer is needed' >&2; exit 1"
# Writes its arguments, one per line, to the library, which is the last argument.
WRITES_ITS_ARGUMENTS = 'for last; do :; done; printf "%s\\n" "$@" >"$last"'

Build = Callable[..., str]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the sources of the build, without a library."""
    folder = tmp_path / "checkout"
    leave_out = shutil.ignore_patterns("*.so", NOT_BUILT, "__pycache__")
    shutil.copytree(REPOSITORY / "mnist_trainer", folder / "mnist_trainer", ignore=leave_out)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


@pytest.fixture
def build(checkout: Path) -> Build:
    """Build in the checkout as pip does; return the output."""

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
def test_without_a_compiler_the_build_continues_and_records_the_reason(checkout: Path, build: Build) -> None:
    output = build(PATH="/nonexistent", CC="/nonexistent/cc", CXX="/nonexistent/c++")
    assert "mnist_trainer.model.native.conv_pool_relu" in output
    assert not list(checkout.rglob("*.so"))
    # One is for a wheel, one for an editable installation.
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
@pytest.mark.parametrize("broken", [REFUSES, "kill -9 $$"], ids=["another compiler", "a compiler that crashes"])
def test_gcc_is_tried_after_the_compiler_of_the_environment(broken: str, checkout: Path, build: Build, tmp_path: Path) -> None:
    clang = compiler(tmp_path, "clang++", broken)
    path = str(compiler(tmp_path / "bin", "g++", WRITES_ITS_ARGUMENTS).parent)
    library_of(checkout).with_name(NOT_BUILT).write_text("from an earlier build", encoding="utf-8")
    build(CXX=str(clang), PATH=path)
    assert library_of(checkout).exists()
    assert not list(checkout.rglob(NOT_BUILT))


@pytest.mark.process
def test_a_suitable_compiler_of_the_environment_is_used(checkout: Path, build: Build, tmp_path: Path) -> None:
    build(CXX=f"{compiler(tmp_path, 'g++-14', WRITES_ITS_ARGUMENTS)} -one '-two of them'", PATH="/nonexistent")
    assert library_of(checkout).read_text(encoding="utf-8").splitlines()[:2] == ["-one", "-two of them"]


@pytest.mark.process
def test_flags_of_the_user_precede_ours_and_are_recorded(checkout: Path, build: Build, tmp_path: Path) -> None:
    users = {"CPPFLAGS": "-DA", "CFLAGS": "-march=haswell -ffast-math", "CXXFLAGS": '-DB="b"', "LDFLAGS": "-Wl,-z,now"}
    build(PATH=str(compiler(tmp_path / "bin", "g++", WRITES_ITS_ARGUMENTS).parent), **users)
    arguments = library_of(checkout).read_text(encoding="utf-8").splitlines()
    theirs = ["-DA", "-march=haswell", "-ffast-math", "-DB=b", "-Wl,-z,now"]
    assert arguments[: len(theirs) + len(FLAGS)] == [*theirs, *FLAGS]
    assert f'-DMNIST_TRAINER_NATIVE_FLAGS=", flags {" ".join(theirs)}"' in arguments


@pytest.mark.process
def test_nothing_of_an_earlier_build_is_left(checkout: Path, build: Build, tmp_path: Path) -> None:
    gcc = str(compiler(tmp_path / "bin", "g++", WRITES_ITS_ARGUMENTS).parent)
    for flag in ("-first", "-second"):  # other flags, but unchanged files
        build(PATH=gcc, CFLAGS=flag)
        assert [path.read_text(encoding="utf-8").split()[0] for path in checkout.rglob("*.so")] == [flag, flag]
    build(PATH="/nonexistent")
    assert not list(checkout.rglob("*.so"))


@pytest.mark.process
@pytest.mark.slow
@needs_compiler
@needs_fused
def test_no_flag_of_the_user_changes_the_results(checkout: Path, build: Build) -> None:
    hostile = "-march=native -Ofast -ffast-math -funsafe-math-optimizations -fvisibility=hidden"
    build(CFLAGS=hostile)

    def in_the_checkout(*arguments: str) -> str:
        done = run_python(*arguments, cwd=checkout, PYTHONPATH=str(checkout))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    output = in_the_checkout("-c", "from mnist_trainer.model import native; print(native.problem(), native.built_from())")
    assert output.startswith("None ")
    assert output.strip().endswith(f", flags {hostile}")
    assert output.split()[1] == native.built_from().split()[0]  # the same sources

    shutil.copytree(REPOSITORY / "tests", checkout / "tests")
    shutil.copytree(REPOSITORY / "data", checkout / "data")
    in_the_checkout(
        *("-m", "pytest", "-n0", "tests/training/test_fused_sgd.py::test_the_bits_are_those_of_mxnets_sgd"),
        "tests/model/test_native.py::test_numbers_that_are_not_finite_reach_the_output",
        "tests/model/test_native.py::test_a_nan_in_one_of_four_is_not_lost",
        "tests/model/test_native.py::test_loading_the_library_preserves_denormals",
    )
