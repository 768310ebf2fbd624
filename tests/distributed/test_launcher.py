"""A launched job on this machine: its processes start and end together, and none is left behind.

Most processes here are small scripts that run for a second. `test_parameter_server` tests the real ones.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from command_line import assert_names, refused
from conftest import Program, Snapshot
from programs import LIMIT_SECONDS, REPOSITORY, is_alive, new_environment, wait_for
from small_runs import RUN_FILES

from mnist_trainer.run_folder import RunFolder

Launched = subprocess.Popen[str]

MEMBERS = ("scheduler", "server", "worker0", "worker1")

# Plays a process of the job: writes its process ID into the file of its name, then does what the variable of its name requests.
PLAYER = f"""
import os, signal, sys, time
role = os.environ["DMLC_ROLE"]
if role == "worker":
    # Its number is the rank that ps-lite would assign, by the order of the workers' ports.
    open("port-" + os.environ["PORT"], "w").close()
    while len(ports := sorted(int(name[5:]) for name in os.listdir() if name.startswith("port-"))) < 2:
        time.sleep(0.01)
    role = "worker" + str(ports.index(int(os.environ["PORT"])))
else:
    assert "PORT" not in os.environ

def end(*_):
    sys.exit(130 if role.startswith("worker") else 1)

def note(*_):
    open(role + "-was-asked", "w").close()

does = os.environ.get(role, os.environ.get("others", "wait"))
signal.signal(signal.SIGTERM, note if does == "deaf" else end)
with open(role + "-begun", "w") as stream:
    stream.write(str(os.getpid()))
os.rename(role + "-begun", role)
act, _, code = does.partition(" ")
if code:
    while not all(map(os.path.exists, {MEMBERS})):
        time.sleep(0.01)
    if act == "say":
        print(f"mnist-trainer: {{role}} refuses", file=sys.stderr, flush=True)
    sys.exit(int(code))
while True:
    time.sleep(60)
"""

# SECONDS_TO_FOLLOW are over when the members in the variable FOLLOWERS have ended, for however long that takes.
LAUNCH = """
import itertools, os, sys, time
from types import SimpleNamespace
from mnist_trainer.distributed import launcher
from programs import is_alive

looks = itertools.count()

def monotonic():
    is_first = next(looks) == 0
    return float(not is_first and not any(is_alive(int(open(name).read())) for name in os.environ["FOLLOWERS"].split()))

launcher.time = SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
launcher.SECONDS_TO_FOLLOW = 1
launcher.this_program = lambda: [sys.executable, "player.py"]
sys.exit(launcher.launch(["train"], 2, 1, 9999, "1"))
"""


@contextmanager
def running(command: list[str], folder: Path, **variables: str) -> Iterator[Launched]:
    """Start a command, and kill it at the end."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=new_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """Launch a job of played processes. The variables `worker0`, `server`, `others` and so on set what each process does."""
    (tmp_path / "player.py").write_text(PLAYER, encoding="utf-8")
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    with ExitStack() as stack:

        def play(followers: str = "", **does: str) -> Launched:
            command = [sys.executable, "-c", LAUNCH]
            return stack.enter_context(running(command, tmp_path, PYTHONPATH=path, PORT="1", FOLLOWERS=followers, **does))

        yield play


def outcome(job: Launched) -> tuple[str, int]:
    """Return what the job printed on stderr and its exit code; assert that it printed nothing on stdout."""
    stdout, stderr = job.communicate(timeout=LIMIT_SECONDS)
    assert stdout == ""
    return stderr, job.returncode


def process_ids(job: Launched, folder: Path) -> dict[str, int]:
    """Return the process ID of each member of a played job after all have started."""
    wait_for(lambda: all((folder / name).exists() for name in MEMBERS), job)
    return {name: int((folder / name).read_text()) for name in MEMBERS}


def who_was_asked(folder: Path) -> set[str]:
    """Return the deaf members that received SIGTERM."""
    return {path.name.removesuffix("-was-asked") for path in folder.glob("*-was-asked")}


@pytest.mark.process
def test_a_job_whose_workers_are_done_is_done(play: Callable[..., Launched]) -> None:
    assert outcome(play(" ".join(MEMBERS), others="end 0")) == ("", 0)


@pytest.mark.process
def test_servers_that_stay_are_ended(play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play("worker0 worker1", worker0="end 0", worker1="end 0")
    assert outcome(job) == ("", 0)
    assert not any(map(is_alive, process_ids(job, tmp_path).values()))


@pytest.mark.process
@pytest.mark.parametrize("victim", MEMBERS)
def test_a_process_that_is_killed_ends_the_job(victim: str, play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play(others="deaf")
    members = process_ids(job, tmp_path)
    os.kill(members[victim], signal.SIGKILL)
    stderr, code = outcome(job)
    name = {"server": "server 0", "worker0": "worker 0", "worker1": "worker 1"}.get(victim, victim)
    assert_names(stderr, name, "SIGKILL")
    assert (stderr.count("\n"), code) == (1, 1)
    assert not any(map(is_alive, members.values()))


@pytest.mark.process
def test_a_message_of_all_workers_is_printed_once(play: Callable[..., Launched]) -> None:
    job = play("worker0 worker1", worker0="say 2", worker1="say 2")
    assert outcome(job) == ("mnist-trainer: worker0 refuses\n", 2)


@pytest.mark.process
@pytest.mark.parametrize(
    ("member", "code", "name"),
    [pytest.param("worker1", 2, "worker 1", id="a worker"), pytest.param("server", 1, "server 0", id="a server")],
)
def test_a_message_of_one_process_is_printed_with_its_name(
    member: str, code: int, name: str, play: Callable[..., Launched], snapshot: Snapshot
) -> None:
    stderr, job_code = outcome(play(**{member: f"say {code}"}))
    message, how_it_ended = stderr.splitlines()
    assert message == f"mnist-trainer: {name}: {member} refuses"
    assert_names(how_it_ended, name, f"exit code {code}")
    assert job_code == 1
    snapshot(stderr)


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_requests_the_workers_to_stop(number: int, play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play("worker0 worker1", server="deaf", scheduler="deaf")
    members = process_ids(job, tmp_path)
    job.send_signal(number)
    assert outcome(job) == ("", 130)
    assert who_was_asked(tmp_path) == set()
    assert not any(map(is_alive, members.values()))


@pytest.mark.process
def test_a_second_signal_kills_all_processes(play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play(others="deaf")
    members = process_ids(job, tmp_path)
    job.send_signal(signal.SIGINT)
    wait_for(lambda: who_was_asked(tmp_path) >= {"worker0", "worker1"})
    job.send_signal(signal.SIGINT)
    stderr, code = outcome(job)
    assert "a second time" in stderr
    assert (stderr.count("\n"), code) == (1, 130)
    assert not any(map(is_alive, members.values()))


@pytest.mark.process
def test_a_launch_that_is_killed_leaves_no_process(play: Callable[..., Launched], tmp_path: Path) -> None:
    job = play(others="deaf")
    members = process_ids(job, tmp_path)
    job.kill()
    wait_for(lambda: not any(map(is_alive, members.values())))


# --- real processes


@pytest.mark.slow
def test_a_launched_training_stops_and_resumes(new_program: Program, tmp_path: Path) -> None:
    few = ("--epochs", "4", "--train-images", "520", "--test-images", "100", "--batch-size", "8")
    train = ["launch", "--workers", "2", "--", "train", *few, "--output", "run"]
    with running([sys.executable, "-m", "mnist_trainer", *train], tmp_path) as stopped:
        assert stopped.stdout
        for line in stopped.stdout:
            if line.startswith("Epoch: 1; Batch 1"):
                stopped.send_signal(signal.SIGTERM)
        _, stderr = stopped.communicate(timeout=LIMIT_SECONDS)
    assert stopped.returncode == 130
    conditions, drops, message = stderr.splitlines()
    assert_names(conditions, "Device cpu", "OpenMP threads 1", "2 workers", "run folder run")
    assert_names(drops, "", "does not drop", "260 iterations")
    iteration, resume = re.findall(r"iteration (\d+).* mnist-trainer (launch .+)", message)[0]
    batch = (int(iteration) - 1) % 65 + 1
    assert batch == 1 or batch % 50 == 0 or batch == 65, "the workers agree when they fetch: at batches 1, 50 and the last"
    assert resume == "launch --workers 2 --servers 1 -- train --resume run"
    resumed = new_program(*resume.split())
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.splitlines()[-1] == "Run folder run"
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    assert [row[0] for row in RunFolder(tmp_path / "run").read_iterations()] == list(range(1, 261))


# --- requests that are refused before any process starts


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param([], [("", "--workers", "mnist-trainer launch --help")], id="nothing"),
        pytest.param(["--workers", "2"], [("", " -- ", "mnist-trainer launch --workers 2 -- train")], id="no command"),
        pytest.param(
            ["--workers", "2", "--", "evaluate", "run"],
            [("launch", "'evaluate'", "mnist-trainer launch --workers 2 -- train")],
            id="another command",
        ),
        pytest.param(
            ["--workers", "0", "--servers", "2000", "--port", "70000", "--wrong", "--", "train", "--seed", "-1", "--bad"],
            [
                ("--wrong: ", "mnist-trainer launch --help"),
                ("--workers 0: ", "1 to 1024"),
                ("--servers 2000: ", "1 to 1024"),
                ("--port 70000: ", "1 to 65535"),
                ("--bad: ", "mnist-trainer train --help"),
                ("--seed -1: ", "0 to 2147483647"),
            ],
            id="several problems",
        ),
        pytest.param(
            ["--workers", "3", "--", "train", "--train-images", "66"],
            [("--workers 3: ", "3 workers", "batch of 2", "66 images", "batches of 64")],
            id="more workers than images",
        ),
        pytest.param(["--workers", "2", "train", "--resume", "no"], [("no: ",)], id="without the --"),
    ],
)
def test_a_wrong_request_is_refused(
    arguments: list[str],
    named: list[tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Snapshot,
) -> None:
    monkeypatch.chdir(tmp_path)
    messages = refused("launch", *arguments)
    for message, words in zip(messages, named, strict=True):
        assert_names(message, *words)
    assert list(tmp_path.iterdir()) == []
    snapshot("\n".join(messages))


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [message] = refused("launch", "--workers", "2", "--port", str(port), "--", "train")
    assert_names(message, f"--port {port}: ", f"127.0.0.1:{port}", "Address already in use")
