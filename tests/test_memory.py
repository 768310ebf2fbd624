"""Limits on the address space, and errors when memory runs out."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import assert_names
from programs import LIMIT_SECONDS, new_environment, run_python

from mnist_trainer import memory
from mnist_trainer.cli import main
from mnist_trainer.commands import COMMANDS
from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.runtime.hardware import available_processors

UNDER_LIMIT = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2); "
    "from mnist_trainer.cli import main; sys.exit(main(sys.argv[2:]))"
)
"""A program that runs `mnist-trainer` under a limit in MiB, its first argument."""

TRAIN = ("train", "--threads", "1", "--quiet", "--output", "run")


@pytest.mark.process
@pytest.mark.parametrize(
    ("limit_mib", "command", "needed_mib"),
    [
        pytest.param(40, ("schedules", "list"), memory.PYTHON_MIB, id="the standard library"),
        pytest.param(100, TRAIN, memory.numpy_mib(available_processors()), id="numpy, which hangs"),
        pytest.param(400, TRAIN, memory.mxnet_mib(1, available_processors()), id="MXNet, which crashes"),
        pytest.param(900, TRAIN, memory.mxnet_mib(1, available_processors()), id="MXNet, which hangs"),
    ],
)
def test_a_limit_that_is_too_low_is_refused(limit_mib: int, command: tuple[str, ...], needed_mib: int, tmp_path: Path) -> None:
    limit_mib = min(limit_mib, needed_mib - 1)  # it is higher on a machine with more processors
    done = run_python("-c", UNDER_LIMIT, str(limit_mib), *command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert_names(done.stderr, "the limit on the address space", f"{limit_mib:,} MiB", f"{needed_mib:,} MiB", "ulimit -v")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_commands_that_need_little_run_under_a_low_limit(tmp_path: Path) -> None:
    done = run_python("-c", UNDER_LIMIT, str(memory.PYTHON_MIB), "schedules", "list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.process
def test_a_training_that_runs_out_of_memory_can_be_resumed(tmp_path: Path) -> None:
    limit_mib = memory.mxnet_mib(1, available_processors())
    # The images of one such batch need several gigabytes.
    done = run_python("-c", UNDER_LIMIT, str(limit_mib), *TRAIN, "--epochs", "1", "--batch-size", "60000", cwd=tmp_path)
    assert done.returncode == 1
    assert_names(done.stderr, "not enough memory", "mnist-trainer train --resume run")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.process
def test_an_endless_run_begins_at_once(tmp_path: Path) -> None:
    # The rates of 60 thousand million iterations do not fit into any memory.
    (tmp_path / "endless.toml").write_text(
        "[training]\nepochs = 1000000\nbatch_size = 1\nlearning_rate = 0.001\n"
        '[schedule]\nname = "Noise"\nseed = 1\n'
        '[schedule.curve]\nname = "Repeat"\nlength = 60\n'
        '[schedule.curve.curve]\nname = "Factor"\nstep = 2\nfactor = 0.5\n'
    )
    command = [sys.executable, "-c", UNDER_LIMIT, "3000", *TRAIN, "--config", "endless.toml"]
    with subprocess.Popen(command, cwd=tmp_path, env=new_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_SECONDS) == 130
    assert first.startswith("Epoch: 1; Batch 1; ")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("error", [MemoryError(), import_mxnet().MXNetError("Traceback:\n  std::bad_alloc")], ids=type)
def test_every_command_explains_a_lack_of_memory(
    command: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("mnist_trainer.commands.find_command", lambda _: fail)
    needed = {"schedules show": ["Cosine", "--iterations", "1"], "schedules plot": ["Cosine", "--output", "a.png"]}
    needed |= {"evaluate": ["run"], "demo": ["run"], "predict": ["run", "image.png"], "find-lr": ["--output", "a"]}
    needed |= {"completion": ["bash"], "data import": ["mnist.npz"]}
    needed |= {"export": ["run", "--format", "onnx", "--output", "a"], "launch": ["--workers", "2", "--", "train"]}
    assert main([*command.split(), *needed.get(command, [])]) == 1
    assert_names(capsys.readouterr().err, "not enough memory", "ulimit -v")


def test_another_error_of_mxnet_is_its_reason(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> int:
        raise import_mxnet().MXNetError("Traceback:\n  MXNetError: Check failed: a == b")

    monkeypatch.setattr("mnist_trainer.commands.find_command", lambda _: fail)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "mnist-trainer: MXNet failed: Check failed: a == b\n"


@pytest.mark.parametrize(
    ("limit", "is_refused"),
    [(resource.RLIM_INFINITY, False), (2**30, False), (2**30 - 1, True)],
    ids=["none", "equal", "below"],
)
def test_the_limit_is_compared_with_the_need(limit: int, is_refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, resource.RLIM_INFINITY))
    assert (memory.limit_problem(1024) is not None) == is_refused
    if is_refused:
        with pytest.raises(RequestError, match="1,023 MiB"):
            memory.refuse_low_limit(1024)


def test_more_threads_need_more_memory_than_more_processors_without_threads() -> None:
    assert memory.mxnet_mib(1, 1) == memory.mxnet_mib(1, 64) < memory.mxnet_mib(2, 1) < memory.mxnet_mib(2, 2)
