"""`environment.json`: its content is correct, and changes between two environments are found."""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Program
from requirements import needs_fused

from mnist_trainer.data.mnist_files import FILES
from mnist_trainer.diagnostics.environment import describe_environment, environment_changes, processor_name
from mnist_trainer.runtime import hardware, import_mxnet

platform.processor()  # the first call starts `uname`; a test must not leave that process

COMMAND_LINE = ["mnist-trainer", "train", "--output", "a folder", "--set", "schedule.step_epochs=[4, 7]"]


@pytest.fixture
def described(data_dir: Path) -> dict[str, Any]:
    return describe_environment("gpu:0,1", 7, "stock", data_dir, COMMAND_LINE)


def test_keys(described: dict[str, Any]) -> None:
    assert list(described) == [
        "started",
        "command_line",
        "python",
        "packages",
        "platform",
        "processor",
        "processors",
        "environment_variables",
        "device",
        "threads",
        "workers",
        "backend",
        "fused_operator",
        "data_dir",
        "data_sha256",
    ]


def test_device_threads_and_backend_are_the_given_ones(described: dict[str, Any]) -> None:
    assert (described["device"], described["threads"], described["backend"]) == ("gpu:0,1", 7, "stock")


def test_the_description_is_json(described: dict[str, Any]) -> None:
    assert json.loads(json.dumps(described, allow_nan=False)) == described


def test_versions(described: dict[str, Any]) -> None:
    packages = described["packages"]
    assert set(packages) == {"mxnet", "mnist-trainer", "numpy", "matplotlib", "tqdm"}
    assert packages["mxnet"] == import_mxnet().__version__ == "1.9.1"
    assert packages["numpy"] == np.__version__
    assert all(packages.values())
    assert described["python"] == platform.python_version()
    assert described["platform"] == platform.platform()


def test_the_time_is_now_in_utc(data_dir: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    started = datetime.fromisoformat(describe_environment("cpu", 1, "stock", data_dir, [])["started"])
    assert started.utcoffset() == timedelta(0)
    assert before <= started <= datetime.now(UTC)


def test_the_command_line_can_be_pasted_into_a_shell(described: dict[str, Any]) -> None:
    assert described["command_line"].startswith("mnist-trainer train --output 'a folder'")
    assert shlex.split(described["command_line"]) == COMMAND_LINE


def test_the_variables_that_mxnet_reads_are_recorded_and_no_others(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_mxnet()
    monkeypatch.setenv("MXNET_ENGINE_TYPE", "NaiveEngine")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("DNNL_VERBOSE", "0")
    monkeypatch.setenv("A_PASSWORD", "secret")
    variables = describe_environment("cpu", 1, "stock", data_dir, [])["environment_variables"]
    assert {name: variables.pop(name) for name in ("MXNET_ENGINE_TYPE", "OMP_WAIT_POLICY", "DNNL_VERBOSE")} == {
        "MXNET_ENGINE_TYPE": "NaiveEngine",
        "OMP_WAIT_POLICY": "ACTIVE",
        "DNNL_VERBOSE": "0",
    }
    assert variables["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]
    assert variables["MXNET_CPU_PARALLEL_SIZE"] == "2147483647"
    assert all(name.startswith(("MXNET_", "OMP_", "GOMP_", "DNNL_", "MNIST_TRAINER_")) for name in variables)


def test_the_checksums_of_the_files_are_recorded(described: dict[str, Any], data_dir: Path) -> None:
    checksums = {file.name: hashlib.sha256((data_dir / file.name).read_bytes()).hexdigest() for file in FILES}
    assert described["data_sha256"] == checksums
    assert list(checksums.values()) == [file.sha256 for file in FILES]


def test_a_changed_file_has_another_checksum(tmp_path: Path, data_dir: Path) -> None:
    for file in FILES:
        shutil.copy2(data_dir / file.name, tmp_path)
    before = describe_environment("cpu", 1, "stock", tmp_path, [])["data_sha256"]
    changed = tmp_path / FILES[3].name
    changed.write_bytes(b"something else")
    after = describe_environment("cpu", 1, "stock", tmp_path, [])["data_sha256"]
    assert after == before | {FILES[3].name: hashlib.sha256(b"something else").hexdigest()}
    assert after != before


def test_the_data_folder_is_recorded_as_an_absolute_path(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data_dir.parent)
    described = describe_environment("cpu", 1, "stock", Path(data_dir.name), [])
    assert described["data_dir"] == str(data_dir.resolve())
    assert set(described["data_sha256"]) == {file.name for file in FILES}


def test_the_number_of_processors_is_that_of_the_available_ones(described: dict[str, Any]) -> None:
    assert 1 <= described["processors"] <= len(os.sched_getaffinity(0))


def test_the_processor_is_that_of_this_machine(described: dict[str, Any]) -> None:
    assert described["processor"] == processor_name()
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name, _, instructions = described["processor"].rpartition(" (")
    assert name in cpuinfo
    assert instructions.rstrip(")") in cpuinfo.split()


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        pytest.param("model name\t: A\nflags\t\t: sse4_2 avx avx2 avx512f\n", "A (avx512f)", id="AVX-512"),
        pytest.param("model name\t: A\nflags\t\t: avx sse4_2 avx2 avx512\n", "A (avx2)", id="AVX2"),
        pytest.param("model name\t: A\nflags\t\t: fpu sse4_2 avx\n", "A (avx)", id="AVX"),
        pytest.param("model name\t: A\nflags\t\t: fpu sse4_2\n", "A (sse4_2)", id="SSE"),
        pytest.param("model name\t: A\nflags\t\t: fpu\n", "A", id="none of them"),
        pytest.param("model name\t: A: B @ 2 GHz\nflags\t\t: avx\n", "A: B @ 2 GHz (avx)", id="a colon in the name"),
        pytest.param(
            "model name\t: A\nflags\t\t: avx\n\nmodel name\t: B\nflags\t\t: avx2\n", "A (avx)", id="the first of several"
        ),
        pytest.param("processor\t: 0\n", platform.machine(), id="no name"),
    ],
)
def test_the_name_of_a_processor(cpuinfo: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo, encoding="utf-8")
    monkeypatch.setattr(hardware, "Path", lambda name: file)
    assert processor_name() == expected


def test_a_system_without_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "Path", lambda name: tmp_path / "missing")
    assert processor_name() == (platform.processor() or platform.machine())


def test_a_run_writes_it(tmp_path: Path, data_dir: Path, program: Program) -> None:
    few = ("--epochs", "1", "--train-images", "64", "--test-images", "64", "--quiet")
    done = program("train", "--threads", "1", "--device", "cpu:0,1", "--data-dir", data_dir, "--output", "a run", *few)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "a run" / "environment.json").read_text(encoding="utf-8"))
    assert (written["device"], written["threads"], written["data_dir"]) == ("cpu:0,1", 1, str(data_dir))
    assert written["data_sha256"] == {file.name: file.sha256 for file in FILES}
    assert shlex.split(written["command_line"]) == [
        *(
            "mnist-trainer",
            "train",
            "--threads",
            "1",
            "--device",
            "cpu:0,1",
            "--data-dir",
            str(data_dir),
            "--output",
            "a run",
            *few,
        )
    ]


def test_changes_of_an_environment_are_found(described: dict[str, Any]) -> None:
    assert environment_changes(described, described) == []
    before = described | {"processor": "Z80", "packages": described["packages"] | {"numpy": "1.23.0", "tqdm": "1.0"}}
    processor, numpy = environment_changes(before, described)
    assert_names(processor, "processor ", "'Z80'", repr(described["processor"]), "bits")
    assert_names(numpy, "numpy ", "'1.23.0'", f"'{np.__version__}'")


@pytest.mark.parametrize("before", [{}, {"packages": None, "python": None}, {"packages": [1]}])
def test_an_environment_without_content_has_no_changes(before: dict[str, Any], described: dict[str, Any]) -> None:
    assert environment_changes(before, described) == []


def test_a_change_of_kernels_is_found(described: dict[str, Any]) -> None:
    before = described | {"environment_variables": {"MNIST_TRAINER_NATIVE": "portable"}}
    (kernels,) = environment_changes(before, described)
    assert_names(kernels, "MNIST_TRAINER_NATIVE ", "'portable'", "''", "bits")


@needs_fused
def test_a_change_of_the_fused_operator_is_found(data_dir: Path, described: dict[str, Any]) -> None:
    assert described["fused_operator"] == ""  # because its backend is stock
    now = describe_environment("cpu", 1, "fused", data_dir, [])
    assert re.fullmatch(r"[0-9a-f]{64} compiler GCC \d+\.\d+.* kernels avx(2|512)", now["fused_operator"])
    (change,) = environment_changes(now | {"fused_operator": "0" * 64 + " compiler 4.8"}, now)
    assert_names(change, "fused_operator ", f"'{'0' * 64} compiler 4.8'", repr(now["fused_operator"]))
