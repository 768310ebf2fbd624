"""What the processes of a job tell each other, and how they end; on the loopback interface, started as a tracker starts them.

Each is forked from this process, which has loaded MXNet already, and then is what `mnist-trainer train` is.
"""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import wait_for
from small_runs import RUN_FILES, assert_same_run, train

from mnist_trainer import experiment, plots
from mnist_trainer.checkpoint import read
from mnist_trainer.cli import main
from mnist_trainer.config import Override, RunConfig, load_config
from mnist_trainer.job import Job, free_ports
from mnist_trainer.run_folder import RunFolder

# Loaded here, so that the processes that are forked have it.
assert experiment
assert plots

# Two epochs of 12 batches of 8 and one of 5: of that four workers have 2, 1, 1 and 1 images, two have 3 and 2.
SETTINGS = {
    "training.epochs": "2",
    "training.batch_size": "8",
    "training.learning_rate": "0.02",
    "data.train_images": "101",
    "data.test_images": "20",
    "optimizer.momentum": "0.9",
    "schedule": '{name = "MultiFactor", step = [9, 15], factor = 0.3}',
    "runtime.device": "cpu",
    "runtime.threads": "1",
}

ITERATIONS = 26


def flags(**changes: str) -> list[str]:
    return [part for key, value in (SETTINGS | changes).items() for part in ("--set", f"{key}={value}")]


def config(**changes: str) -> RunConfig:
    return load_config(overrides=[Override("", key, value) for key, value in (SETTINGS | changes).items()])


class Outcome(NamedTuple):
    code: int  # negative for a signal
    stdout: str
    stderr: str


class Process:
    """A command of this program in a process that is forked from this one, in a folder of its own choice."""

    def __init__(self, arguments: list[str], folder: Path, told: Path, variables: dict[str, str]) -> None:
        self.told = told
        self.code: int | None = None
        self.id = os.fork()
        if self.id == 0:
            self._be(arguments, folder, variables)

    def _be(self, arguments: list[str], folder: Path, variables: dict[str, str]) -> None:
        code = 99
        try:
            os.chdir(folder)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(self.told.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT), number)
                setattr(sys, name, open(number, "w", closefd=False, encoding="utf-8"))  # noqa: SIM115
            for signal_number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signal_number, signal.default_int_handler if signal_number == signal.SIGINT else signal.SIG_DFL)
            os.environ.update(variables)
            code = main(arguments)
            sys.stderr.flush()
        finally:
            os._exit(code)

    def has_ended(self) -> bool:
        if self.code is None:
            ended, status = os.waitpid(self.id, os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def signal(self, number: int) -> None:
        if not self.has_ended():
            os.kill(self.id, number)

    def outcome(self, seconds: float = 60) -> Outcome:
        wait_for(self.has_ended, seconds)
        assert self.code is not None
        said = [self.told.with_suffix(f".{name}").read_text(encoding="utf-8") for name in ("stdout", "stderr")]
        return Outcome(self.code, *said)


Start = Callable[..., dict[str, Process]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the processes of a job, by name with their own arguments; none is left afterwards."""
    started: list[Process] = []

    def start(of: Job, roles: dict[str, list[str]], common: list[str], patience_seconds: float = 20) -> dict[str, Process]:
        variables = of.to_variables() | {"DMLC_NODE_HOST": "127.0.0.1"}
        told = tmp_path / f"told-{len(started)}"
        told.mkdir()
        (tmp_path / "here").mkdir(exist_ok=True)
        for name, own in roles.items():
            arguments = ["train", *common, "--set", f"runtime.patience_seconds={patience_seconds}", "--quiet", *own]
            role = variables | {"DMLC_ROLE": name.split()[0]}
            started.append(Process(arguments, tmp_path / "here", told / name, role))
        return dict(zip(roles, started[-len(roles) :], strict=True))

    yield start
    for each in started:
        each.signal(signal.SIGKILL)
        wait_for(each.has_ended)


def job(workers: int = 2, servers: int = 1) -> Job:
    [port] = free_ports(1)
    return Job("worker", "127.0.0.1", port, workers, servers)


def roles(of: Job) -> dict[str, list[str]]:
    names = ["scheduler", *(f"server {number}" for number in range(of.servers))]
    return {name: [] for name in (*names, *(f"worker {number}" for number in range(of.workers)))}


def outcomes(started: dict[str, Process]) -> dict[str, Outcome]:
    return {name: each.outcome() for name, each in started.items()}


def parameters(path: Path) -> dict[str, Any]:
    last = read(max((path / "checkpoints").iterdir()))
    return {name: values for name, values in last.arrays.items() if name.startswith(("parameter", "optimizer"))}


def rates(path: Path) -> list[tuple[int, float]]:
    return [row[:2] for row in RunFolder(path).read_iterations()]


def losses(path: Path) -> list[float]:
    return [row[2] for row in RunFolder(path).read_iterations()]


# --- they repeat what one process does


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process does with two devices."""
    return train(config(**{"runtime.device": "cpu:0,1"}), tmp_path_factory.mktemp("pair") / "run")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process does with one device."""
    return train(config(), tmp_path_factory.mktemp("alone") / "run")


def run_job(start: Start, of: Job, path: Path, *arguments: str) -> dict[str, Outcome]:
    told = outcomes(start(of, roles(of), [*arguments, "--output", str(path)]))
    assert {name: each.code for name, each in told.items()} == dict.fromkeys(told, 0), told
    assert [name for name, each in told.items() if each.stdout] == [next(name for name in told if told[name].stdout)]
    return told


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_two_workers_are_one_process_with_two_devices(mode: str, pair: Path, start: Start, tmp_path: Path) -> None:
    run_job(start, job(), tmp_path / "run", *flags(**{"training.scheduler_mode": mode}))
    assert rates(tmp_path / "run") == rates(pair)
    # To the last bit: either adds up two sums over the same images, and a + b is b + a.
    ours, theirs = parameters(tmp_path / "run"), parameters(pair)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], name)
    # Two devices' losses are added up as float32, two workers' as float64.
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(pair), rtol=1e-6)
    for epoch, other in zip(RunFolder(tmp_path / "run").read_metrics(), RunFolder(pair).read_metrics(), strict=True):
        assert (epoch["test_accuracy"], epoch["train_accuracy"]) == (other["test_accuracy"], other["train_accuracy"])
        assert epoch["test_loss"] == pytest.approx(other["test_loss"], rel=1e-6)


# A sum of gradients in another order differs by some 1e-7 of its largest part. That grows with the iterations, and where two
# inputs of a max-pool are nearly equal, or one of relu nearly 0, it jumps: these losses then differ by some 1e-3. A part left
# out, added twice or scaled wrongly makes 1e-2 of it after the first iteration.
EARLY, EARLY_TOLERANCE, TOLERANCE = 8, 1e-5, 0.05


def test_four_workers_and_two_servers_repeat_it_but_for_rounding(alone: Path, start: Start, tmp_path: Path) -> None:
    run_job(start, job(4, 2), tmp_path / "run", *flags())
    assert rates(tmp_path / "run") == rates(alone)
    ours, theirs = losses(tmp_path / "run"), losses(alone)
    assert len(ours) == ITERATIONS
    np.testing.assert_allclose(ours[:EARLY], theirs[:EARLY], rtol=EARLY_TOLERANCE)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE)


def test_only_the_first_writes_and_prints(start: Start, tmp_path: Path) -> None:
    told = run_job(start, job(), tmp_path / "run", *flags())
    [stdout] = [each.stdout for each in told.values() if each.stdout]
    lines = stdout.splitlines()
    assert lines[0] == "Learning rate drops after iterations: [9, 15]"
    assert lines[-1] == f"Run folder {tmp_path / 'run'}"
    assert len(lines) == 8
    assert "".join(each.stderr for each in told.values()) == ""
    assert {each.name for each in (tmp_path / "run").iterdir()} == RUN_FILES
    assert list((tmp_path / "here").iterdir()) == []
    assert RunFolder(tmp_path / "run").read_json("environment.json")["workers"] == 2


def test_workers_without_a_batch_of_the_test_images(start: Start, tmp_path: Path) -> None:
    few = flags(**{"data.test_images": "7", "data.validation_images": "5", "training.epochs": "1"})
    run_job(start, job(), tmp_path / "run", *few)
    train(config(**{"data.test_images": "7", "data.validation_images": "5", "training.epochs": "1"}), tmp_path / "alone")
    [ours], [theirs] = (RunFolder(tmp_path / name).read_metrics() for name in ("run", "alone"))
    assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-2)
    assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-2)
    assert RunFolder(tmp_path / "run").read_summary()["test_total"] == 7


# --- they stop and go on together


def test_a_job_that_one_worker_is_asked_to_stop_goes_on_bit_for_bit(start: Start, tmp_path: Path) -> None:
    # 57 iterations an epoch: the workers ask each other after the 50th, in the middle of it.
    long = flags(**{"data.train_images": "453", "schedule": '{name = "Cosine", max_update_fraction = 1.0}'})
    run_job(start, job(), tmp_path / "whole", *long)
    of = job()
    started = start(of, roles(of), [*long, "--output", str(tmp_path / "run")])
    wait_for(lambda: (tmp_path / "run" / "iterations.csv").exists())
    started["worker 1"].signal(signal.SIGTERM)
    told = outcomes(started)
    assert {name: each.code for name, each in told.items()} == {"scheduler": 0, "server 0": 0, "worker 0": 130, "worker 1": 130}
    [said] = [each.stderr for each in told.values() if each.stderr]
    how = f"go on with: mnist-trainer train --resume {tmp_path / 'run'}"
    found = re.fullmatch(rf"mnist-trainer: interrupted after iteration (50|57|100); {how}\n", said)
    assert found, said
    of = job()
    told = outcomes(start(of, roles(of), ["--resume", str(tmp_path / "run")]))
    assert {each.code for each in told.values()} == {0}
    [said] = [each.stderr for each in told.values() if each.stderr]
    assert said == f"mnist-trainer: {tmp_path / 'run'}: going on after iteration {found[1]}\n"
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    of = job()
    told = outcomes(start(of, roles(of), ["--resume", str(tmp_path / "run")]))
    assert {each.code for each in told.values()} == {0}
    [said] = [each.stdout for each in told.values() if each.stdout]
    assert said == f"{tmp_path / 'run'}: the run is finished; there is nothing to go on with\n"


def test_a_loss_that_is_not_finite_stops_all_at_the_same_iteration(start: Start, tmp_path: Path) -> None:
    of = job()
    told = outcomes(start(of, roles(of), [*flags(**{"training.learning_rate": "1e30"}), "--output", "run"], 2))
    said = {name: each.stderr for name, each in told.items() if name.startswith("worker")}
    where = {re.search(r"at iteration (\d+) \(epoch 1, learning rate 1e\+30\)", each).group(1) for each in said.values()}  # type: ignore[union-attr]
    assert len(where) == 1, said
    assert {name: each.code for name, each in told.items()} == dict.fromkeys(told, 1)
    assert sorted("what was done until now is in run" in each for each in said.values()) == [False, True]


def test_a_worker_that_is_killed_ends_the_job_within_twice_its_patience(start: Start, tmp_path: Path) -> None:
    of = job()
    started = start(of, roles(of), [*flags(**{"training.epochs": "100000"}), "--output", "run"], 2)
    wait_for(lambda: (tmp_path / "here" / "run" / "metrics.jsonl").exists())
    started["worker 1"].signal(signal.SIGKILL)
    killed = time.monotonic()
    told = outcomes(started)
    assert time.monotonic() - killed < 12
    assert {name: each.code for name, each in told.items()} == {"scheduler": 1, "server 0": 1, "worker 0": 1, "worker 1": -9}
    assert re.fullmatch(
        r"mnist-trainer: no sign of life from worker [01] for 2 seconds; the job ends\n", told["scheduler"].stderr
    )
    for name in ("server 0", "worker 0"):
        assert told[name].stderr == (
            f"mnist-trainer: the scheduler at 127.0.0.1:{of.port} has given no sign of life for 2 seconds: it has ended, "
            "perhaps because a worker or a server has; this process ends too\n"
        )


# --- what one has to refuse, all refuse


def refused(start: Start, of: Job, common: list[str], theirs: list[str]) -> str:
    """What both workers say, of whom one has further arguments."""
    told = outcomes(start(of, roles(of) | {"worker 1": theirs}, common, 2))
    assert {name: each.code for name, each in told.items()} == {"scheduler": 1, "server 0": 1, "worker 0": 2, "worker 1": 2}
    assert told["worker 0"].stdout == told["worker 1"].stdout == ""
    assert told["worker 0"].stderr == told["worker 1"].stderr
    return told["worker 0"].stderr


def test_different_settings(start: Start, tmp_path: Path) -> None:
    said = refused(start, job(), flags(), ["--seed", "2"])
    assert re.fullmatch(
        r"mnist-trainer: worker 1 has training\.seed = [12], and worker 0 [12]; "
        r"all workers of a job are started with the same settings and data\n",
        said,
    ), said
    assert list((tmp_path / "here").iterdir()) == []


def test_data_that_one_does_not_have(start: Start, tmp_path: Path) -> None:
    said = refused(start, job(), flags(), ["--data-dir", "nowhere"]).splitlines()
    assert len(said) == 4
    for line in said:
        assert re.match(r"mnist-trainer: worker [01]: nowhere/\S+: expected a file", line), line
    assert list((tmp_path / "here").iterdir()) == []


def test_a_folder_that_is_not_empty(start: Start, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    taken = tmp_path / "taken"
    said = refused(start, job(), [*flags(), "--output", str(taken)], [])
    assert said == f"mnist-trainer: worker 0: --output {taken}: the folder is not empty; choose another\n"
    assert [each.name for each in taken.iterdir()] == ["mine"]


def test_more_workers_than_images_in_a_batch(start: Start) -> None:
    said = refused(start, job(), flags(**{"data.train_images": "9"}), [])
    assert said == (
        "mnist-trainer: DMLC_NUM_WORKER=2: 2 workers cannot share a batch of 1, the smallest of 9 images in batches of 8\n"
    )


def test_a_job_to_which_not_all_come_is_given_up(start: Start) -> None:
    of = job()
    told = outcomes(start(of, {name: own for name, own in roles(of).items() if name != "worker 1"}, flags(), 2))
    sentence = (
        f"the scheduler at 127.0.0.1:{of.port}: not all of the job's processes (2 workers, 1 servers) have come within "
        "2 seconds; see what the others say"
    )
    assert told == dict.fromkeys(told, Outcome(2, "", f"mnist-trainer: {sentence}\n"))


def test_a_scheduler_that_never_answers(start: Start) -> None:
    of = job()
    told = outcomes(start(of, {"worker 0": [], "server 0": []}, flags(), 1))
    sentence = (
        f"the scheduler at 127.0.0.1:{of.port} has not answered for 1 seconds (Connection refused); "
        "start it, or set DMLC_PS_ROOT_URI and DMLC_PS_ROOT_PORT to where it is"
    )
    assert told == dict.fromkeys(told, Outcome(2, "", f"mnist-trainer: {sentence}\n"))


def test_a_port_that_is_taken(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        of = Job("scheduler", "127.0.0.1", taken.getsockname()[1], 2, 1)
        [told] = outcomes(start(of, {"scheduler": []}, flags(), 1)).values()
    sentence = f"DMLC_PS_ROOT_PORT: the scheduler cannot listen at 127.0.0.1:{of.port} (Address already in use)"
    assert told == Outcome(2, "", f"mnist-trainer: {sentence}\n")


def test_a_role_that_there_is_not(start: Start) -> None:
    [told] = outcomes(start(job(), {"boss": []}, flags(), 1)).values()
    assert told.code == 2
    assert told.stderr.startswith("mnist-trainer: DMLC_ROLE: 'boss' is not one of worker, server, scheduler (DMLC_ROLE is set")
