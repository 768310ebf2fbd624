"""Several processes, on the loopback interface: they repeat what one does, stop and go on together, and leave nobody behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import REPOSITORY
from small_runs import RUN_FILES, assert_same_run, train

from mnist_trainer.checkpoint import read
from mnist_trainer.cli import main
from mnist_trainer.config import Override, RunConfig, load_config
from mnist_trainer.job import Job, free_ports
from mnist_trainer.run_folder import RunFolder

# Two epochs of 56 batches of 8 and one of 5: of that four workers have 1, 1, 1 and 2 images, two have 2 and 3.
SETTINGS = {
    "training.epochs": "2",
    "training.batch_size": "8",
    "training.learning_rate": "0.02",
    "data.train_images": "453",
    "data.test_images": "130",
    "optimizer.momentum": "0.9",
    "schedule": '{name = "MultiFactor", step = [40, 80], factor = 0.3}',
    "runtime.device": "cpu",
    "runtime.threads": "1",
}

ITERATIONS = 114

# A part of a batch is added up before it is added to the other parts, so that a sum may differ in its last bits from that of
# one process, 1.2e-7 of it each time; training makes more of that with each iteration. A wrong part, rate or scale of the
# gradients is some 1e-2.
LOSS_TOLERANCE = 1e-5
PARAMETER_TOLERANCE = 1e-5

Launched = subprocess.Popen[str]


def flags(**changes: str) -> list[str]:
    return [part for key, value in (SETTINGS | changes).items() for part in ("--set", f"{key}={value}")]


def config(**changes: str) -> RunConfig:
    return load_config(overrides=[Override("", key, value) for key, value in (SETTINGS | changes).items()])


_all: list[Launched] = []


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    for process in _all:
        if process.poll() is None:
            process.kill()
            process.communicate()
    _all.clear()


def start(*arguments: str | Path, cwd: Path, **variables: str) -> Launched:
    process = subprocess.Popen(
        [sys.executable, "-m", "mnist_trainer", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _all.append(process)
    return process


class Outcome(NamedTuple):
    code: int
    stdout: str
    stderr: str


def outcome(process: Launched, seconds: float = 100) -> Outcome:
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Outcome(process.returncode, stdout, stderr)


def launch(workers: int, *arguments: str | Path, cwd: Path, servers: int = 1) -> Outcome:
    return outcome(start("launch", "--workers", str(workers), "--servers", str(servers), "--", "train", *arguments, cwd=cwd))


def processes_of(marker: str) -> list[int]:
    """Those whose command line has this in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def role_of(process_id: int) -> str:
    content = Path(f"/proc/{process_id}/environ").read_bytes().split(b"\0")
    return next((each.partition(b"=")[2].decode() for each in content if each.startswith(b"DMLC_ROLE=")), "")


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come in time"
        time.sleep(0.02)
    return found


def parameters(path: Path) -> dict[str, Any]:
    last = read(max((path / "checkpoints").iterdir()))
    return {name: values for name, values in last.arrays.items() if name.startswith(("parameter", "optimizer"))}


def assert_same_within_rounding(path: Path, other: Path) -> None:
    """The same rates to the last bit, the same losses and parameters within the tolerances."""
    ours, theirs = RunFolder(path).read_iterations(), RunFolder(other).read_iterations()
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    np.testing.assert_allclose([row[2] for row in ours], [row[2] for row in theirs], rtol=LOSS_TOLERANCE)
    for name, values in parameters(path).items():
        np.testing.assert_allclose(values, parameters(other)[name], rtol=0, atol=PARAMETER_TOLERANCE, err_msg=name)
    for ours_of_epoch, theirs_of_epoch in zip(RunFolder(path).read_metrics(), RunFolder(other).read_metrics(), strict=True):
        assert ours_of_epoch["test_accuracy"] == theirs_of_epoch["test_accuracy"]
        assert ours_of_epoch["train_accuracy"] == theirs_of_epoch["train_accuracy"]
        assert ours_of_epoch["test_loss"] == pytest.approx(theirs_of_epoch["test_loss"], rel=LOSS_TOLERANCE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process does."""
    return train(config(), tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """What two workers do, and what they say."""
    folder = tmp_path_factory.mktemp("pair")
    return folder / "run", launch(2, *flags(), "--output", "run", cwd=folder)


# --- they repeat what one does


def test_two_workers_repeat_the_run_of_one(alone: Path, pair: tuple[Path, Outcome]) -> None:
    path, done = pair
    assert done.code == 0, done.stderr
    assert_same_within_rounding(path, alone)
    assert len(RunFolder(path).read_iterations()) == ITERATIONS


def test_only_the_first_writes_and_prints(pair: tuple[Path, Outcome]) -> None:
    path, done = pair
    assert {each.name for each in path.iterdir()} == RUN_FILES
    assert [each.name for each in path.parent.iterdir()] == ["run"]
    lines = done.stdout.splitlines()
    assert lines[0] == "Learning rate drops after iterations: [40, 80]"
    assert [line.split(";")[0] for line in lines[1:5]] == ["Epoch: 1", "Epoch: 1", "Epoch: 2", "Epoch: 2"]
    assert lines[-1] == "Run folder run"
    assert len(lines) == 8
    assert done.stderr == "Device cpu, OpenMP threads 1, fused stages, 2 workers, run folder run\n"
    environment = json.loads((path / "environment.json").read_text(encoding="utf-8"))
    assert environment["workers"] == 2


def test_four_workers_and_two_servers_repeat_it_in_the_other_mode(alone: Path, tmp_path: Path) -> None:
    done = launch(4, *flags(**{"training.scheduler_mode": "manual"}), "--output", "run", cwd=tmp_path, servers=2)
    assert done.code == 0, done.stderr
    assert_same_within_rounding(tmp_path / "run", alone)


# --- they stop and go on together


def test_a_stopped_pair_goes_on_bit_for_bit(pair: tuple[Path, Outcome], tmp_path: Path) -> None:
    process = start("launch", "--workers", "2", "--", "train", *flags(), "--output", "run", cwd=tmp_path)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("Epoch: 1; Batch 1"):
            process.send_signal(signal.SIGTERM)
            break
    done = outcome(process)
    assert done.code == 130
    found = re.fullmatch(r".*\nmnist-trainer: interrupted after iteration (\d+); go on with: (.+)\n", done.stderr)
    assert found, done.stderr
    assert int(found[1]) < ITERATIONS
    assert found[2] == "mnist-trainer launch --workers 2 --servers 1 -- train --resume run"
    gone_on = outcome(start(*found[2].split()[1:], cwd=tmp_path))
    assert gone_on.code == 0, gone_on.stderr
    assert_same_run(tmp_path / "run", pair[0])
    again = outcome(start(*found[2].split()[1:], cwd=tmp_path))
    assert (again.code, again.stdout) == (0, "run: the run is finished; there is nothing to go on with\n")


@pytest.mark.parametrize("role", ["worker", "server", "scheduler"])
def test_a_process_that_is_killed_ends_the_job(role: str, tmp_path: Path) -> None:
    long = flags(**{"training.epochs": "10000"})
    process = start(
        "launch", "--workers", "2", "--", "train", *long, "--quiet", "--output", str(tmp_path / "run"), cwd=tmp_path
    )
    assert process.stdout
    wait_for(lambda: process.stdout and process.stdout.readline().startswith("Epoch: 1; Test"))
    members = [each for each in processes_of(str(tmp_path / "run")) if role_of(each)]
    assert sorted(map(role_of, members)) == ["scheduler", "server", "worker", "worker"]
    victim = next(each for each in reversed(sorted(members)) if role_of(each) == role)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    done = outcome(process, 30)
    assert time.monotonic() - killed < 15
    name = {"worker": r"worker 1", "server": r"server 0", "scheduler": "scheduler"}[role]
    assert done.code == 1
    assert done.stderr == f"mnist-trainer: {name} was ended by SIGKILL, and the job was ended with it\n"
    assert processes_of(str(tmp_path / "run")) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_launch_that_is_ended_leaves_nobody_behind(number: int, tmp_path: Path) -> None:
    long = flags(**{"training.epochs": "10000"})
    process = start(
        "launch", "--workers", "2", "--", "train", *long, "--quiet", "--output", str(tmp_path / "run"), cwd=tmp_path
    )
    wait_for(lambda: len(processes_of(str(tmp_path / "run"))) == 5)
    process.send_signal(number)
    if number == signal.SIGINT:
        process.send_signal(number)  # at once, and not at the end of an iteration
    done = outcome(process, 30)
    assert done.code == (-9 if number == signal.SIGKILL else 130)
    wait_for(lambda: not processes_of(str(tmp_path / "run")), 10)


# --- on a cluster, where a tracker starts them


def job(workers: int = 2) -> Job:
    [port] = free_ports(1)
    return Job("worker", "127.0.0.1", port, workers, 1)


def start_roles(folder: Path, roles: dict[str, list[str]], of: Job, patience_seconds: float) -> dict[str, Launched]:
    """The processes of a job, as a tracker starts them: name → its own arguments."""
    common = ["train", *flags(**{"runtime.patience_seconds": str(patience_seconds)}), "--quiet"]
    variables = of.to_variables() | {"DMLC_NODE_HOST": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    return {
        name: start(*common, *given, cwd=folder, **variables | {"DMLC_ROLE": name.split()[0]}) for name, given in roles.items()
    }


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        pytest.param(
            ["--seed", "2"],
            r"worker 1 has training\.seed = [12], and worker 0 [12]; "
            r"all workers of a job are started with the same settings and data",
            id="settings",
        ),
        pytest.param(
            ["--data-dir", "nowhere"],
            r"(worker \d: nowhere/\S+: expected a file, and there is none.*\n?(mnist-trainer: )?)+",
            id="data",
        ),
    ],
)
def test_workers_with_different_settings_or_data_all_refuse(theirs: list[str], sentence: str, tmp_path: Path) -> None:
    roles = {"scheduler": [], "server": [], "worker one": [], "worker other": theirs}
    said = {name: outcome(each) for name, each in start_roles(tmp_path, roles, job(), 3).items()}
    for name in ("worker one", "worker other"):
        assert (said[name].code, said[name].stdout) == (2, "")
        assert re.fullmatch(rf"mnist-trainer: {sentence}\n?", said[name].stderr), said[name].stderr
    assert said["worker one"].stderr == said["worker other"].stderr
    assert list(tmp_path.iterdir()) == []
    # Those who only serve notice that the others have left, and leave too.
    assert said["scheduler"].code == said["server"].code == 1


def test_a_worker_that_is_killed_ends_the_job_within_twice_its_patience(tmp_path: Path) -> None:
    roles = {"scheduler": [], "server": [], "worker one": ["--epochs", "10000"], "worker other": ["--epochs", "10000"]}
    of = job()
    started = start_roles(tmp_path, roles, of, 2)
    wait_for(lambda: list(tmp_path.glob("runs/*/metrics.jsonl")))
    started["worker other"].kill()
    killed = time.monotonic()
    said = {name: outcome(each) for name, each in started.items()}
    assert time.monotonic() - killed < 12
    assert [said[name].code for name in roles] == [1, 1, 1, -9]
    gone = rf"the scheduler at 127\.0\.0\.1:{of.port} has given no sign of life for 2 seconds: it has ended, perhaps because .*"
    assert re.fullmatch(
        r"mnist-trainer: no sign of life from worker [01] for 2 seconds; the job ends\n", said["scheduler"].stderr
    )
    for name in ("server", "worker one"):
        assert re.fullmatch(rf"mnist-trainer: {gone}\n", said[name].stderr), said[name].stderr


def test_a_job_to_which_not_all_come_is_given_up(tmp_path: Path) -> None:
    of = job()
    said = {
        name: outcome(each)
        for name, each in start_roles(tmp_path, {"scheduler": [], "server": [], "worker one": []}, of, 3).items()
    }
    for name, (code, stdout, stderr) in said.items():
        assert (code, stdout) == (2, ""), name
        assert stderr == (
            f"mnist-trainer: the scheduler at 127.0.0.1:{of.port}: not all of the job's processes (2 workers, 1 servers) have "
            "come within 3 seconds; see what the others say\n"
        )


def test_a_scheduler_that_never_answers_is_a_sentence(tmp_path: Path) -> None:
    of = job()
    [said] = (outcome(each) for each in start_roles(tmp_path, {"worker": []}, of, 1).values())
    assert said == Outcome(
        2,
        "",
        f"mnist-trainer: the scheduler at 127.0.0.1:{of.port} has not answered for 1 seconds (Connection refused); "
        "start it, or set DMLC_PS_ROOT_URI and DMLC_PS_ROOT_PORT to where it is\n",
    )


def test_a_schedulers_port_that_is_taken_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        of = Job("scheduler", "127.0.0.1", taken.getsockname()[1], 2, 1)
        [said] = (outcome(each) for each in start_roles(tmp_path, {"scheduler": []}, of, 1).values())
    assert said == Outcome(
        2,
        "",
        f"mnist-trainer: DMLC_PS_ROOT_PORT: the scheduler cannot listen at 127.0.0.1:{of.port} (Address already in use)\n",
    )


# --- what is refused before anybody is started


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        pytest.param([], ["the following arguments are required: --workers; see mnist-trainer launch --help"], id="nothing"),
        pytest.param(
            ["--workers", "2"],
            ["what is to be launched is missing; write it after --, as in: mnist-trainer launch --workers 2 -- train"],
            id="no command",
        ),
        pytest.param(
            ["--workers", "2", "--", "evaluate", "run"],
            ["launch starts train, and not 'evaluate'; write mnist-trainer launch --workers 2 -- train …"],
            id="another command",
        ),
        pytest.param(
            ["--workers", "0", "--servers", "2000", "--port", "70000", "--wrong", "--", "train", "--seed", "-1", "--bad"],
            [
                "--wrong: there is no such flag; see mnist-trainer launch --help",
                "--workers: 0 is not a whole number from 1 to 1024",
                "--servers: 2000 is not a whole number from 1 to 1024",
                "--port: 70000 is not a whole number from 1 to 65535",
                "--bad: there is no such flag; see mnist-trainer train --help",
                "--seed: -1 is not a whole number from 0 to 2147483647",
            ],
            id="all at once",
        ),
        pytest.param(
            ["--workers", "3", "--", "train", "--train-images", "66"],
            ["--workers 3: 3 workers cannot share a batch of 2, the smallest of 66 images in batches of 64"],
            id="more workers than images",
        ),
        pytest.param(["--workers", "2", "train", "--resume", "no"], ["no: there is no such run folder"], id="without the --"),
    ],
)
def test_what_cannot_be_launched(
    arguments: list[str],
    sentences: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launch", *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.splitlines()) == ("", [f"mnist-trainer: {each}" for each in sentences])
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["launch", "--workers", "2", "--port", str(port), "--", "train"]) == 2
    told = f"mnist-trainer: --port {port}: the scheduler cannot listen at 127.0.0.1:{port} (Address already in use)\n"
    assert capsys.readouterr().err == told


def test_a_folder_that_is_not_empty_is_refused_by_all_and_told_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    done = launch(2, *flags(), "--output", "run", cwd=tmp_path)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == "mnist-trainer: worker 0: --output run: the folder is not empty; choose another, or remove it first\n"
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["mine"]
