"""What the processes of a job tell each other, and how they end; on the loopback interface, started as a tracker starts them.

Each is forked from this process, which has loaded MXNet already, and then is what `mnist-trainer train` is.
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
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.training.checkpoint import read

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

pytestmark = pytest.mark.process

TIMEOUT_SECONDS = 120.0  # on a machine that is busy with other things, nobody is missed
SHORT_TIMEOUT_SECONDS = 6.0  # in tests in which somebody is


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
    """Starts the processes of a job, by name with their own arguments; none is left afterwards."""
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
    """Wait for all; what they printed can be read once."""
    ended = {}
    for name, process in started.items():
        stdout, stderr = process.communicate()
        assert process.returncode is not None
        ended[name] = Outcome(process.returncode, stdout, stderr)
    return ended


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


def run_job(start: Start, of: Cluster, path: Path, *arguments: str) -> dict[str, Outcome]:
    told = outcomes(start(of, roles(of), [*arguments, "--output", str(path)]))
    assert {name: outcome.code for name, outcome in told.items()} == dict.fromkeys(told, 0), told
    assert [name for name, outcome in told.items() if outcome.stdout] == [next(name for name in told if told[name].stdout)]
    return told


@pytest.mark.slow
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


@pytest.mark.slow
def test_four_workers_and_two_servers_repeat_it_but_for_rounding(alone: Path, start: Start, tmp_path: Path) -> None:
    run_job(start, job(4, 2), tmp_path / "run", *flags())
    assert rates(tmp_path / "run") == rates(alone)
    ours, theirs = losses(tmp_path / "run"), losses(alone)
    assert len(ours) == ITERATIONS
    np.testing.assert_allclose(ours[:EARLY], theirs[:EARLY], rtol=EARLY_TOLERANCE)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE)


@pytest.mark.slow
def test_only_the_first_writes_and_prints(start: Start, tmp_path: Path) -> None:
    told = run_job(start, job(), tmp_path / "run", *flags())
    [stdout] = [outcome.stdout for outcome in told.values() if outcome.stdout]
    lines = stdout.splitlines()
    assert lines[0] == "Learning rate drops after iterations: [9, 15]"
    assert lines[-1] == f"Run folder {tmp_path / 'run'}"
    assert len(lines) == 8
    assert "".join(outcome.stderr for outcome in told.values()) == ""
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


# --- they stop and go on together


@pytest.mark.slow
def test_a_job_that_one_worker_is_asked_to_stop_goes_on_bit_for_bit(start: Start, tmp_path: Path) -> None:
    # 57 iterations an epoch: the workers ask each other after the 50th, in the middle of it.
    long = flags(**{"data.train_images": "453", "schedule": '{name = "Cosine", max_update_fraction = 1.0}'})
    run_job(start, job(), tmp_path / "whole", *long)
    of = job()
    started = start(of, roles(of), [*long, "--output", str(tmp_path / "run")])
    wait_for((tmp_path / "run" / "iterations.csv").exists, *started.values())
    started["worker 1"].send_signal(signal.SIGTERM)
    told = outcomes(started)
    assert {name: outcome.code for name, outcome in told.items()} == {
        "scheduler": 0,
        "server 0": 0,
        "worker 0": 130,
        "worker 1": 130,
    }
    [said] = [outcome.stderr for outcome in told.values() if outcome.stderr]
    found = re.search(rf"after iteration (50|57|100); .* mnist-trainer train --resume {tmp_path / 'run'}\n", said)
    assert found, said
    of = job()
    told = outcomes(start(of, roles(of), ["--resume", str(tmp_path / "run")]))
    assert {outcome.code for outcome in told.values()} == {0}
    [said] = [outcome.stderr for outcome in told.values() if outcome.stderr]
    assert said.startswith(f"mnist-trainer: {tmp_path / 'run'}: ")
    assert f"after iteration {found[1]}\n" in said
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    of = job()
    told = outcomes(start(of, roles(of), ["--resume", str(tmp_path / "run")]))
    assert {outcome.code for outcome in told.values()} == {0}
    [said] = [outcome.stdout for outcome in told.values() if outcome.stdout]
    assert said.startswith(f"{tmp_path / 'run'}: the run is finished")


def test_a_loss_that_is_not_finite_stops_all_at_the_same_iteration(start: Start, tmp_path: Path) -> None:
    of = job()
    started = start(of, roles(of), [*flags(**{"training.learning_rate": "1e30"}), "--output", "run"])
    told = outcomes({name: started[name] for name in ("worker 0", "worker 1")})
    where = [re.search(r"at iteration (\d+) \(epoch 1, learning rate 1e\+30\)", outcome.stderr) for outcome in told.values()]
    assert len({found and found[1] for found in where}) == 1, told
    assert {outcome.code for outcome in told.values()} == {1}
    assert sorted("what was done until now is in run" in outcome.stderr for outcome in told.values()) == [False, True]


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_job(start: Start, tmp_path: Path) -> None:
    of = job()
    started = start(of, roles(of), [*flags(**{"training.epochs": "100000"}), "--output", "run"], SHORT_TIMEOUT_SECONDS)
    wait_for((tmp_path / "here" / "run" / "metrics.jsonl").exists, *started.values())
    started["worker 1"].send_signal(signal.SIGKILL)
    told = outcomes(started)
    assert {name: outcome.code for name, outcome in told.items()} == {
        "scheduler": 1,
        "server 0": 1,
        "worker 0": 1,
        "worker 1": -9,
    }
    # The worker may have been taken for dead before it was: ps-lite asks each process of the job, in no order.
    assert re.search(r"no heartbeat from worker [01] for 6 seconds", told["scheduler"].stderr)
    for name in ("server 0", "worker 0"):
        assert re.search(rf"the scheduler at 127\.0\.0\.1:{of.port} has sent no heartbeat for 6 seconds", told[name].stderr)


# --- what one has to refuse, all refuse


def refused(start: Start, of: Cluster, common: list[str], theirs: list[str]) -> str:
    """What both workers say, of whom one has further arguments; the others are ended, before they miss them."""
    started = start(of, roles(of) | {"worker 1": theirs}, common)
    one, other = outcomes({name: started[name] for name in ("worker 0", "worker 1")}).values()
    assert one == other
    assert (one.code, one.stdout) == (2, "")
    return one.stderr


def test_different_settings(start: Start, tmp_path: Path) -> None:
    said = refused(start, job(), flags(), ["--seed", "2"])
    assert re.search(r"worker 1 has training\.seed = [12], and worker 0 [12]", said), said
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
    assert said.startswith(f"mnist-trainer: worker 0: --output {taken}: ")
    assert [path.name for path in taken.iterdir()] == ["mine"]


def test_more_workers_than_images_in_a_batch(start: Start) -> None:
    said = refused(start, job(), flags(**{"data.train_images": "9"}), [])
    assert said.startswith("mnist-trainer: DMLC_NUM_WORKER=2: ")
    assert "batch of 1" in said


@pytest.mark.slow
def test_a_job_to_which_not_all_come_is_given_up(start: Start) -> None:
    of = job()
    without_one = {name: own for name, own in roles(of).items() if name != "worker 1"}
    told = outcomes(start(of, without_one, flags(), SHORT_TIMEOUT_SECONDS))
    for outcome in told.values():
        assert (outcome.code, outcome.stdout) == (2, "")
        assert f"127.0.0.1:{of.port}" in outcome.stderr
        assert "(2 workers, 1 servers) have come within 6 seconds" in outcome.stderr


def test_a_scheduler_that_never_answers(start: Start) -> None:
    of = job()
    told = outcomes(start(of, {"worker 0": [], "server 0": []}, flags(), 1))
    for outcome in told.values():
        assert (outcome.code, outcome.stdout) == (2, "")
        for word in (f"127.0.0.1:{of.port}", "1 seconds", "Connection refused", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"):
            assert word in outcome.stderr


def test_a_port_that_is_taken(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        of = Cluster("scheduler", "127.0.0.1", taken.getsockname()[1], 2, 1)
        [told] = outcomes(start(of, {"scheduler": []}, flags(), 1)).values()
    assert (told.code, told.stdout) == (2, "")
    for word in ("DMLC_PS_ROOT_PORT: ", f"127.0.0.1:{of.port}", "Address already in use"):
        assert word in told.stderr


def test_a_role_that_there_is_not(start: Start) -> None:
    [told] = outcomes(start(job(), {"boss": []}, flags(), 1)).values()
    assert told.code == 2
    assert "DMLC_ROLE = 'boss': must be one of worker, server, scheduler" in told.stderr
