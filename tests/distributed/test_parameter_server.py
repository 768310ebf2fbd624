"""The processes of a job on the loopback interface, started as a tracker starts them: their communication and their end.

Each is forked from this process, which has already loaded MXNet, and runs `mnist-trainer train`.
"""

import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from programs import ForkedProgram, wait_for
from small_runs import RUN_FILES, assert_same_run, train

from mnist_trainer.config.loading import load_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.distributed.cluster import Cluster, free_ports
from mnist_trainer.folder import Folder
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.training.checkpoint import read

# Two epochs of 12 batches of 8 images and one of 5. Of the 5, four workers receive 2, 1, 1 and 1 images, two receive 3 and 2.
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

pytestmark = pytest.mark.process

TIMEOUT_SECONDS = 120.0  # long enough on a machine that is busy with other work
SHORT_TIMEOUT_SECONDS = 6.0  # in tests where a process is missing


def flags(**changes: str) -> list[str]:
    return [part for key, value in (SETTINGS | changes).items() for part in ("--set", f"{key}={value}")]


def config(**changes: str) -> RunConfig:
    return load_config(overrides=[Override("", key, value) for key, value in (SETTINGS | changes).items()])


class Outcome(NamedTuple):
    code: int  # negative for a signal
    stdout: str
    stderr: str


Start = Callable[..., dict[str, ForkedProgram]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the processes of a job by name, each with its own arguments, and kill them at the end."""
    started: list[ForkedProgram] = []

    def start(
        of: Cluster, roles: dict[str, list[str]], common: list[str], timeout_seconds: float = TIMEOUT_SECONDS
    ) -> dict[str, ForkedProgram]:
        variables = of.to_variables() | {"DMLC_NODE_HOST": "127.0.0.1"}
        (tmp_path / "here").mkdir(exist_ok=True)
        for name, own in roles.items():
            arguments = ["train", *common, "--set", f"runtime.timeout_seconds={timeout_seconds}", "--quiet", *own]
            role = variables | {"DMLC_ROLE": name.split()[0]}
            started.append(ForkedProgram(*arguments, cwd=tmp_path / "here", **role))
        return dict(zip(roles, started[-len(roles) :], strict=True))

    yield start
    for process in started:
        process.kill()


def job(workers: int = 2, servers: int = 1) -> Cluster:
    [port] = free_ports(1)
    return Cluster("worker", "127.0.0.1", port, workers, servers)


def roles(of: Cluster) -> dict[str, list[str]]:
    names = ["scheduler", *(f"server {number}" for number in range(of.servers))]
    return {name: [] for name in (*names, *(f"worker {number}" for number in range(of.workers)))}


def outcomes(started: dict[str, ForkedProgram]) -> dict[str, Outcome]:
    """Wait for all processes. Their output can be read only once."""
    ended = {}
    for name, process in started.items():
        stdout, stderr = process.communicate()
        assert process.returncode is not None
        ended[name] = Outcome(process.returncode, stdout, stderr)
    return ended


def parameters(path: Path) -> dict[str, Any]:
    last = read(Folder(max((path / "checkpoints").iterdir())))
    return {name: values for name, values in last.arrays.items() if name.startswith(("parameter", "optimizer"))}


def rates(path: Path) -> list[tuple[int, float]]:
    return [row[:2] for row in RunFolder(path).read_iterations()]


def losses(path: Path) -> list[float]:
    return [row[2] for row in RunFolder(path).read_iterations()]


# --- the same results as in one process


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in one process with two devices."""
    return train(config(**{"runtime.device": "cpu:0,1"}), tmp_path_factory.mktemp("pair") / "run")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in one process with one device."""
    return train(config(), tmp_path_factory.mktemp("alone") / "run")


def run_job(start: Start, of: Cluster, path: Path, *arguments: str) -> dict[str, Outcome]:
    results = outcomes(start(of, roles(of), [*arguments, "--output", str(path)]))
    assert {name: outcome.code for name, outcome in results.items()} == dict.fromkeys(results, 0), results
    assert [name for name, outcome in results.items() if outcome.stdout] == [
        next(name for name in results if results[name].stdout)
    ]
    return results


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_two_workers_equal_one_process_with_two_devices(mode: str, pair: Path, start: Start, tmp_path: Path) -> None:
    run_job(start, job(), tmp_path / "run", *flags(**{"training.scheduler_mode": mode}))
    assert rates(tmp_path / "run") == rates(pair)
    # Bit for bit: both add two sums over the same images, and a + b = b + a.
    ours, theirs = parameters(tmp_path / "run"), parameters(pair)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], name)
    # The losses of two devices are summed in float32, those of two workers in float64.
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(pair), rtol=1e-6)
    for epoch, other in zip(RunFolder(tmp_path / "run").read_metrics(), RunFolder(pair).read_metrics(), strict=True):
        assert (epoch["test_accuracy"], epoch["train_accuracy"]) == (other["test_accuracy"], other["train_accuracy"])
        assert epoch["test_loss"] == pytest.approx(other["test_loss"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_one_worker_equals_one_process(mode: str, alone: Path, start: Start, tmp_path: Path) -> None:
    run_job(start, job(1), tmp_path / "run", *flags(**{"training.scheduler_mode": mode}))
    assert (rates(tmp_path / "run"), losses(tmp_path / "run")) == (rates(alone), losses(alone))
    for name, values in parameters(tmp_path / "run").items():
        np.testing.assert_array_equal(values, parameters(alone)[name], name)


# A sum of gradients in another order differs by about 1e-7 of its largest part. The difference grows with the iterations, and
# it jumps when two inputs of a max-pool are nearly equal or an input of ReLU is nearly 0: these losses then differ by about
# 1e-3. A part that is missing, added twice or scaled wrongly changes the sum by 1e-2 after the first iteration.
EARLY, EARLY_TOLERANCE, TOLERANCE = 8, 1e-5, 0.05


@pytest.mark.slow
def test_four_workers_and_two_servers_equal_one_process_except_for_rounding(alone: Path, start: Start, tmp_path: Path) -> None:
    run_job(start, job(4, 2), tmp_path / "run", *flags())
    assert rates(tmp_path / "run") == rates(alone)
    ours, theirs = losses(tmp_path / "run"), losses(alone)
    assert len(ours) == ITERATIONS
    np.testing.assert_allclose(ours[:EARLY], theirs[:EARLY], rtol=EARLY_TOLERANCE)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE)


@pytest.mark.slow
def test_only_the_first_writes_and_prints(start: Start, tmp_path: Path) -> None:
    results = run_job(start, job(), tmp_path / "run", *flags())
    [stdout] = [outcome.stdout for outcome in results.values() if outcome.stdout]
    lines = stdout.splitlines()
    assert lines[0] == "Learning rate drops after iterations: [9, 15]"
    assert lines[-1] == f"Run folder {tmp_path / 'run'}"
    assert len(lines) == 10
    assert "".join(outcome.stderr for outcome in results.values()) == ""
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    assert list((tmp_path / "here").iterdir()) == []
    assert RunFolder(tmp_path / "run").read_json("environment.json")["workers"] == 2


@pytest.mark.slow
def test_workers_without_a_batch_of_the_test_images(start: Start, tmp_path: Path) -> None:
    few = flags(**{"data.test_images": "7", "data.validation_images": "5", "training.epochs": "1"})
    run_job(start, job(), tmp_path / "run", *few)
    train(config(**{"data.test_images": "7", "data.validation_images": "5", "training.epochs": "1"}), tmp_path / "alone")
    [ours], [theirs] = (RunFolder(tmp_path / name).read_metrics() for name in ("run", "alone"))
    assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-2)
    assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], rel=1e-2)
    assert RunFolder(tmp_path / "run").read_summary()["test_total"] == 7


# --- stopping and resuming together


@pytest.mark.slow
def test_a_job_that_one_worker_stops_resumes_bit_for_bit(start: Start, tmp_path: Path) -> None:
    # 57 iterations per epoch. The workers agree when they fetch losses: after batches 1, 50 and 57 of an epoch.
    long = flags(**{"data.train_images": "453", "schedule": '{name = "Cosine", max_update_fraction = 1.0}'})
    run_job(start, job(), tmp_path / "whole", *long)
    of = job()
    started = start(of, roles(of), [*long, "--output", str(tmp_path / "run")])
    wait_for((tmp_path / "run" / "iterations.csv").exists, *started.values())
    started["worker 1"].send_signal(signal.SIGTERM)
    results = outcomes(started)
    assert {name: outcome.code for name, outcome in results.items()} == {
        "scheduler": 0,
        "server 0": 0,
        "worker 0": 130,
        "worker 1": 130,
    }
    [output] = [outcome.stderr for outcome in results.values() if outcome.stderr]
    found = re.search(rf"after iteration (\d+) of 114; .* mnist-trainer train --resume {tmp_path / 'run'}\n", output)
    assert found, output
    assert int(found[1]) in {1, 50, 57, 58, 107}
    of = job()
    results = outcomes(start(of, roles(of), ["--resume", str(tmp_path / "run")]))
    assert {outcome.code for outcome in results.values()} == {0}
    assert not any(outcome.stderr for outcome in results.values())  # the jobs are quiet
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    of = job()
    results = outcomes(start(of, roles(of), ["--resume", str(tmp_path / "run")]))
    assert {outcome.code for outcome in results.values()} == {0}
    [output] = [outcome.stdout for outcome in results.values() if outcome.stdout]
    assert output.startswith(f"{tmp_path / 'run'}: the run is finished")


def test_a_loss_that_is_not_finite_stops_all_at_the_same_iteration(start: Start, tmp_path: Path) -> None:
    of = job()
    started = start(of, roles(of), [*flags(**{"training.learning_rate": "1e30"}), "--output", "run"])
    results = outcomes({name: started[name] for name in ("worker 0", "worker 1")})
    where = [re.search(r"at iteration (\d+) \(epoch 1, learning rate 1e\+30\)", outcome.stderr) for outcome in results.values()]
    assert len({found and found[1] for found in where}) == 1, results
    assert {outcome.code for outcome in results.values()} == {1}
    assert sorted("the results so far are in run" in outcome.stderr for outcome in results.values()) == [False, True]


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_job(start: Start, tmp_path: Path) -> None:
    of = job()
    started = start(of, roles(of), [*flags(**{"training.epochs": "100000"}), "--output", "run"], SHORT_TIMEOUT_SECONDS)
    wait_for((tmp_path / "here" / "run" / "metrics.jsonl").exists, *started.values())
    started["worker 1"].send_signal(signal.SIGKILL)
    results = outcomes(started)
    assert {name: outcome.code for name, outcome in results.items()} == {
        "scheduler": 1,
        "server 0": 1,
        "worker 0": 1,
        "worker 1": -9,
    }
    # The message may name either worker, because ps-lite checks the processes in no particular order.
    assert re.search(r"no heartbeat from worker [01] for 6 seconds", results["scheduler"].stderr)
    for name in ("server 0", "worker 0"):
        assert re.search(rf"the scheduler at 127\.0\.0\.1:{of.port} has sent no heartbeat for 6 seconds", results[name].stderr)


# --- requests that all refuse because one worker must


def refused(start: Start, of: Cluster, common: list[str], theirs: list[str]) -> str:
    """Start two workers, one of them with further arguments; return the message that both print."""
    started = start(of, roles(of) | {"worker 1": theirs}, common)
    one, other = outcomes({name: started[name] for name in ("worker 0", "worker 1")}).values()
    assert one == other
    assert (one.code, one.stdout) == (2, "")
    return one.stderr


def test_different_settings(start: Start, tmp_path: Path) -> None:
    output = refused(start, job(), flags(), ["--seed", "2"])
    assert re.search(r"worker 1 has training\.seed = [12], but worker 0 has [12]", output), output
    assert list((tmp_path / "here").iterdir()) == []


def test_data_that_one_worker_does_not_have(start: Start, tmp_path: Path) -> None:
    output = refused(start, job(), flags(), ["--data-dir", "nowhere"]).splitlines()
    assert len(output) == 4
    for line in output:
        assert re.match(r"mnist-trainer: worker [01]: nowhere/\S+: expected a file", line), line
    assert list((tmp_path / "here").iterdir()) == []


def test_a_folder_that_is_not_empty(start: Start, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    taken = tmp_path / "taken"
    output = refused(start, job(), [*flags(), "--output", str(taken)], [])
    assert output.startswith(f"mnist-trainer: worker 0: --output {taken}: ")
    assert [path.name for path in taken.iterdir()] == ["mine"]


def test_more_workers_than_images_in_a_batch(start: Start) -> None:
    output = refused(start, job(), flags(**{"data.train_images": "9"}), [])
    assert output.startswith("mnist-trainer: DMLC_NUM_WORKER=2: ")
    assert "batch of 1" in output


@pytest.mark.slow
def test_a_job_ends_if_a_worker_does_not_join(start: Start) -> None:
    of = job()
    without_one = {name: own for name, own in roles(of).items() if name != "worker 1"}
    results = outcomes(start(of, without_one, flags(), SHORT_TIMEOUT_SECONDS))
    for outcome in results.values():
        assert (outcome.code, outcome.stdout) == (2, "")
        assert f"127.0.0.1:{of.port}" in outcome.stderr
        assert "(2 workers, 1 servers) joined within 6 seconds" in outcome.stderr


def test_a_scheduler_that_never_answers(start: Start) -> None:
    of = job()
    results = outcomes(start(of, {"worker 0": [], "server 0": []}, flags(), 1))
    for outcome in results.values():
        assert (outcome.code, outcome.stdout) == (2, "")
        for word in (f"127.0.0.1:{of.port}", "1 seconds", "Connection refused", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"):
            assert word in outcome.stderr


def test_a_port_that_is_taken(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        of = Cluster("scheduler", "127.0.0.1", taken.getsockname()[1], 2, 1)
        [outcome] = outcomes(start(of, {"scheduler": []}, flags(), 1)).values()
    assert (outcome.code, outcome.stdout) == (2, "")
    for word in ("DMLC_PS_ROOT_PORT: ", f"127.0.0.1:{of.port}", "Address already in use"):
        assert word in outcome.stderr


def test_an_unknown_role(start: Start) -> None:
    [outcome] = outcomes(start(job(), {"boss": []}, flags(), 1)).values()
    assert outcome.code == 2
    assert "DMLC_ROLE = 'boss': must be one of worker, server, scheduler" in outcome.stderr
