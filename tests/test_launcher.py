"""A job on this machine: its processes start, end together however they end, and leave nobody behind.

What a process does in the job is tested beside `parameter_server`; here most are small scripts that take a second to live.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from programs import REPOSITORY, wait_for
from small_runs import RUN_FILES

from mnist_trainer.cli import main
from mnist_trainer.run_folder import RunFolder

Launched = subprocess.Popen[str]

# What plays a process of the job. It says who it is, and then does what the variable of its name tells it.
PLAYER = """
import os, signal, sys, time
role = os.environ["DMLC_ROLE"]
if role == "worker":
    # Its number is the rank that ps-lite would give it, by its port among those of the workers.
    open("port-" + os.environ["PORT"], "w").close()
    while len(ports := sorted(int(name[5:]) for name in os.listdir() if name.startswith("port-"))) < 2:
        time.sleep(0.01)
    role = f"worker{ports.index(int(os.environ['PORT']))}"
else:
    assert "PORT" not in os.environ
open(role, "w").write(str(os.getpid()))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130 if role.startswith("worker") else 1))
does = os.environ.get(role, os.environ.get("others", "wait"))
if does.startswith("say"):
    print(f"mnist-trainer: {role} says no", file=sys.stderr, flush=True)
    sys.exit(int(does.partition(" ")[2]))
if does.startswith("end"):
    time.sleep(1.5)
    sys.exit(int(does.partition(" ")[2]))
if does == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""

LAUNCH = """
import sys
from mnist_trainer import launcher
launcher.this_program = lambda: [sys.executable, "player.py"]
launcher.SECONDS_TO_FOLLOW = 2.5
sys.exit(launcher.launch(["train"], 2, 1, 9999, "1"))
"""


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Launches two workers and a server that are played; what each does is in variables: worker0, server, others, …"""
    (tmp_path / "player.py").write_text(PLAYER, encoding="utf-8")
    started: list[Launched] = []

    def play(**does: str) -> Launched:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PORT": "1"} | does,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield play
    for each in started:
        each.kill()
        each.communicate()


MEMBERS = ("scheduler", "server", "worker0", "worker1")


def process_ids(folder: Path) -> dict[str, int]:
    """Of all members of a played job, when all have come."""
    wait_for(lambda: all((folder / name).exists() and (folder / name).read_text() for name in MEMBERS))
    return {name: int((folder / name).read_text()) for name in MEMBERS}


def is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_job_whose_workers_are_done_is_done(play: Callable[..., Launched], tmp_path: Path) -> None:
    done = play(worker0="end 0", worker1="end 0", server="end 0", scheduler="end 0")
    assert (*done.communicate(timeout=30), done.returncode) == ("", "", 0)


def test_servers_that_stay_are_ended(play: Callable[..., Launched], tmp_path: Path) -> None:
    done = play(worker0="end 0", worker1="end 0")
    members = process_ids(tmp_path)
    assert (*done.communicate(timeout=30), done.returncode) == ("", "", 0)
    assert not any(map(is_alive, members.values()))


@pytest.mark.parametrize("victim", MEMBERS)
def test_a_process_that_is_killed_ends_the_job(victim: str, play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play(others="deaf")
    members = process_ids(tmp_path)
    killed = time.monotonic()
    os.kill(members[victim], signal.SIGKILL)
    _, stderr = job.communicate(timeout=30)
    assert time.monotonic() - killed < 10
    name = {"server": "server 0", "worker0": "worker 0", "worker1": "worker 1"}.get(victim, victim)
    assert (stderr, job.returncode) == (f"mnist-trainer: {name} was ended by SIGKILL, and the job was ended with it\n", 1)
    assert not any(map(is_alive, members.values()))


def test_what_all_workers_say_is_told_once(play: Callable[..., Launched]) -> None:
    job = play(worker0="say 2", worker1="say 2")
    assert (job.communicate(timeout=30)[1], job.returncode) == ("mnist-trainer: worker0 says no\n", 2)


@pytest.mark.parametrize(
    ("does", "told"),
    [
        pytest.param(
            {"worker1": "say 2"},
            "mnist-trainer: worker 1: worker1 says no\n"
            "mnist-trainer: worker 1 ended with exit code 2, and the job was ended with it\n",
            id="a worker",
        ),
        pytest.param(
            {"server": "say 1"},
            "mnist-trainer: server 0: server says no\n"
            "mnist-trainer: server 0 ended with exit code 1, and the job was ended with it\n",
            id="a server",
        ),
    ],
)
def test_what_one_says_alone_is_told_with_its_name(does: dict[str, str], told: str, play: Callable[..., Launched]) -> None:
    job = play(**does)
    assert (job.communicate(timeout=30)[1], job.returncode) == (told, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_wish_of_which_the_workers_hear(number: int, play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play(server="deaf", scheduler="deaf")
    members = process_ids(tmp_path)
    job.send_signal(number)
    assert (job.communicate(timeout=30)[1], job.returncode) == ("", 130)
    assert not any(map(is_alive, members.values()))


def test_a_second_signal_ends_all_at_once(play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play(others="deaf")
    members = process_ids(tmp_path)
    job.send_signal(signal.SIGINT)
    time.sleep(0.5)
    job.send_signal(signal.SIGINT)
    told = "mnist-trainer: interrupted a second time: the job was ended where it stood\n"
    assert (job.communicate(timeout=30)[1], job.returncode) == (told, 130)
    assert not any(map(is_alive, members.values()))


def test_a_launch_that_is_killed_leaves_nobody_behind(play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play(others="deaf")
    members = process_ids(tmp_path)
    job.kill()
    wait_for(lambda: not any(map(is_alive, members.values())), 10)


# --- for real


def program(*arguments: str | Path, cwd: Path) -> Launched:
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_trainer", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_launched_training_stops_and_goes_on(tmp_path: Path) -> None:
    few = ("--epochs", "2", "--train-images", "520", "--test-images", "100", "--batch-size", "8")
    stopped = program("launch", "--workers", "2", "--", "train", *few, "--output", "run", cwd=tmp_path)
    assert stopped.stdout
    for line in stopped.stdout:
        if line.startswith("Epoch: 1; Batch 1"):
            stopped.send_signal(signal.SIGTERM)
    _, stderr = stopped.communicate(timeout=100)
    assert stopped.returncode == 130
    begun, told = stderr.splitlines()
    assert re.fullmatch(r"Device cpu, OpenMP threads 1, (fused|stock) stages, 2 workers, run folder run", begun)
    found = re.fullmatch(r"mnist-trainer: interrupted after iteration (50|65|100); go on with: mnist-trainer (.+)", told)
    assert found, told
    assert found[2] == "launch --workers 2 --servers 1 -- train --resume run"
    gone_on = program(*found[2].split(), cwd=tmp_path)
    stdout, stderr = gone_on.communicate(timeout=100)
    assert gone_on.returncode == 0, stderr
    assert stdout.splitlines()[-1] == "Run folder run"
    assert {each.name for each in (tmp_path / "run").iterdir()} == RUN_FILES
    assert [row[0] for row in RunFolder(tmp_path / "run").read_iterations()] == list(range(1, 131))


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
