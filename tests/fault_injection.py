"""Fault injection for real runs: kills, signals, full and failing disks, removed folders, planted links, and wrong clocks.

    python tests/fault_injection.py [--seed N] [--only TEXT]

Each trial disturbs a small run in a separate process, repairs the damage, and resumes the run. The result must be a run folder
that equals the folder of an undisturbed run, or one clear error message. The script prints a table of counts and returns exit
code 1 if any outcome is wrong. It takes about eight minutes on one thread. The trials with a full disk and with a read-only
folder need Linux and root. The table lists the trials that are not possible on this machine.

The program has no code for these trials. A `sitecustomize` module in PYTHONPATH slows a child down or replaces its clock.
"""

import argparse
import csv
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent

LIMIT_SECONDS = 600.0
"""Maximum duration of every wait, far longer than a machine ten times slower needs."""

TIMES = {"seconds", "epoch_seconds", "test_seconds", "images_per_second"}
"""Keys of metrics.jsonl and summary.json that differ from run to run."""

SLOW_DISK = """
import os, time
original = os.fsync
def fsync(opened):
    if os.readlink(f"/proc/self/fd/{opened}").endswith(ENDING):
        time.sleep(SECONDS)
    original(opened)
os.fsync = fsync
"""

HELD_DISK = """
import os, time
original = os.fsync
def fsync(opened):
    while os.readlink(f"/proc/self/fd/{opened}").endswith("/checkpoints") and not os.path.exists(GATE):
        time.sleep(0.01)
    original(opened)
os.fsync = fsync
"""

FAILING_DISK = """
import errno, os, re
original = os.fsync
def fsync(opened):
    if re.search(PATTERN, os.readlink(f"/proc/self/fd/{opened}")):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    original(opened)
os.fsync = fsync
"""

JUMPING_CLOCK = """
import random, time
original, rng = time.time, random.Random(SEED)
time.time = lambda: original() + rng.choice((-1e9, 0, 1e9))
"""

CLOCK_AT_ZERO = """
import time
time.time = lambda: 0.0
"""


class WrongOutcomeError(AssertionError):
    """Wrong outcome of a trial: a traceback, a wrong result, or no message."""


class NotPossibleError(Exception):
    """The fault cannot be injected on this machine. The message has the reason."""


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a child."""

    code: int
    stdout: str
    stderr: str


@dataclass
class Child:
    """A running `mnist-trainer` in its own session, as if started from a separate terminal."""

    process: subprocess.Popen[str]
    _printed: tuple[str, str] | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, condition: Callable[[], object], seconds: float = LIMIT_SECONDS) -> bool:
        """Poll until the condition is true. Return False if the child ends first.

        Raises:
            WrongOutcomeError: The condition is still false after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.is_alive:
                return False
            if time.monotonic() > deadline:
                raise WrongOutcomeError(f"the condition was not met within {seconds} s")
            time.sleep(0.0005)
        return True

    def end(self, seconds: float = LIMIT_SECONDS) -> Outcome:
        """Wait for the child to end, kill the rest of its session, and return the outcome.

        Raises:
            WrongOutcomeError: The child is still alive after `seconds`.
        """
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise WrongOutcomeError(f"the child did not end within {seconds} s") from error
        finally:
            self.kill()
        assert self._printed
        return Outcome(code, *self._printed)

    def kill(self) -> None:
        """Send SIGKILL to the process and to all processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if not self._printed:  # the output is small enough for the buffer of a pipe
            self._printed = self.process.communicate()

    def limit_file_size(self, limit: int) -> None:
        """Limit every file to `limit` bytes from now on. This acts like a full disk for this process alone."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@dataclass
class Bench:
    """A folder for trials, with an undisturbed run for comparison.

    Attributes:
        folder: The folder of all trials.
        rng: The random generator for the moments of faults.
        train_images: The number of training images of each run.
        seconds: The duration of the undisturbed run, including start-up.
    """

    folder: Path
    rng: random.Random
    train_images: int = 3200
    seconds: float = 0.0
    _number: int = 0
    _children: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "cwd").mkdir(parents=True)
        started = time.monotonic()
        self.must_succeed(self.train(self.undisturbed).end())
        self.seconds = time.monotonic() - started

    @property
    def undisturbed(self) -> Path:
        return self.folder / "undisturbed"

    @property
    def iterations(self) -> int:
        return self.train_images // 64 * 2

    @property
    def last_checkpoint(self) -> str:
        return f"checkpoints/{self.iterations:08}"

    def size(self, name: str) -> int:
        """Return the size in bytes of a file of the undisturbed run."""
        return (self.undisturbed / name).stat().st_size

    def new_folder(self) -> Path:
        """Return a path for a new run folder. It does not exist yet; its parent is used by this trial alone."""
        self._number += 1
        parent = self.folder / f"trial {self._number}"
        parent.mkdir()
        return parent / "run"

    # --- children

    def train(self, output: Path, *more: str, hook: str = "") -> Child:
        settings = ("--train-images", str(self.train_images), "--test-images", "100", "--epochs", "2")
        saving = ("--set", "checkpoint.every_iterations=5")
        return self.start("train", "--threads", "1", *settings, *saving, "--output", str(output), *more, hook=hook)

    def resume(self, folder: Path, *more: str, hook: str = "") -> Child:
        return self.start("train", "--resume", str(folder), *more, hook=hook)

    def start(self, *arguments: str, hook: str = "") -> Child:
        return self._start([sys.executable, "-m", "mnist_trainer", *arguments], hook)

    def start_line(self, command: str) -> Child:
        """Run a command line that the program printed, unchanged, in a shell."""
        name, rest = command.split(" ", 1)
        if name != "mnist-trainer":
            raise WrongOutcomeError(f"the command does not start with mnist-trainer: {command}")
        return self._start(["sh", "-c", f"{sys.executable} -m mnist_trainer {rest}"], "")

    def _start(self, command: Sequence[str], hook: str) -> Child:
        self._number += 1
        around = self.folder / f"child {self._number}"
        around.mkdir()
        (around / "sitecustomize.py").write_text(hook, encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        process = subprocess.Popen(
            command,
            cwd=self.folder / "cwd",
            env=environment | {"PYTHONPATH": f"{around}:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        child = Child(process)
        self._children.append(child)
        return child

    def clean_up(self) -> None:
        for child in self._children:
            if child.is_alive:
                child.kill()

    # --- checks

    def must_succeed(self, outcome: Outcome) -> None:
        if outcome.code != 0:
            raise WrongOutcomeError(f"exit code {outcome.code}: {outcome.stderr}")
        _must_have_no_traceback(outcome)

    def must_report(self, outcome: Outcome, code: int, *parts: str) -> str:
        """Check the exit code and that stderr ends with one message that contains `parts`; return that message."""
        _must_have_no_traceback(outcome)
        lines = outcome.stderr.splitlines() or [""]
        if outcome.code != code:
            raise WrongOutcomeError(f"exit code {outcome.code}, expected {code}: {outcome.stderr}")
        if not lines[-1].startswith("mnist-trainer: ") or not all(part in lines[-1] for part in parts):
            raise WrongOutcomeError(f"the last message does not contain all of {parts}: {outcome.stderr!r}")
        # Messages about the iteration of a resume, about skipped checkpoints, and about figures may come first.
        allowed = ("after iteration", "checkpoint", "figure")
        if any(line.startswith("mnist-trainer: ") and not any(phrase in line for phrase in allowed) for line in lines[:-1]):
            raise WrongOutcomeError(f"more than one message: {outcome.stderr!r}")
        return lines[-1]

    def must_finish(self, folder: Path, foreign: Sequence[str] = (), may_differ: Sequence[str] = ()) -> None:
        """Resume the run, and check that its folder equals the folder of the undisturbed run."""
        self.must_succeed(self.resume(folder).end())
        self.must_be_equal(folder, foreign, may_differ)

    def must_be_equal(self, folder: Path, foreign: Sequence[str] = (), may_differ: Sequence[str] = ()) -> None:
        """Check that a folder equals the folder of the undisturbed run.

        Args:
            folder: The run folder.
            foreign: Additional files that the folder must contain.
            may_differ: Files whose content may differ.
        """
        here, there = _files(folder), _files(self.undisturbed)
        if here != there | set(foreign):
            raise WrongOutcomeError(f"{folder}: missing or unexpected files: {sorted(here ^ (there | set(foreign)))}")
        for name in sorted(there - {"environment.json"} - set(may_differ)):
            if name.endswith(("state.json", "manifest.json")):  # they depend on durations
                continue
            content, expected = (_without_times(name, (root / name).read_bytes()) for root in (folder, self.undisturbed))
            if content != expected:
                raise WrongOutcomeError(f"{folder / name}: the content differs from the undisturbed run")
        self.must_write_nowhere_else()

    def must_write_nowhere_else(self) -> None:
        if elsewhere := list((self.folder / "cwd").iterdir()):
            raise WrongOutcomeError(f"files written outside the run folder: {elsewhere}")

    def must_be_clean(self, folder: Path) -> None:
        if leftovers := [name for name in _files(folder) if re.search(r"(^|/)\.", name)]:
            raise WrongOutcomeError(f"{folder}: temporary files left behind: {leftovers}")


def _must_have_no_traceback(outcome: Outcome) -> None:
    for text in (outcome.stdout, outcome.stderr):
        if "Traceback" in text or "Error:" in text or "Exception ignored" in text:
            raise WrongOutcomeError(f"a traceback was printed: {text}")


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def _without_times(name: str, content: bytes) -> Any:
    if name == "metrics.jsonl":
        return [_without(json.loads(line)) for line in content.splitlines()]
    if name == "metrics.csv":
        return [_without(row) for row in csv.DictReader(content.decode().splitlines())]
    return _without(json.loads(content)) if name == "summary.json" else content


def _without(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in TIMES}


def slow_disk(seconds: float, ending: str = "") -> str:
    """Return a hook that delays each `fsync` of a path that ends with `ending`."""
    return SLOW_DISK.replace("SECONDS", repr(seconds)).replace("ENDING", repr(ending))


def failing_disk(pattern: str) -> str:
    """Return a hook with which each `fsync` of a path that the regular expression matches fails."""
    return FAILING_DISK.replace("PATTERN", repr(pattern))


def held_disk(gate: Path) -> str:
    """Return a hook that blocks the `fsync` of the folder of checkpoints until the file `gate` exists."""
    return HELD_DISK.replace("GATE", repr(str(gate)))


def rows(folder: Path) -> int:
    """Return the number of rows written to iterations.csv so far."""
    try:
        return max(0, (folder / "iterations.csv").read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def half_written(folder: Path) -> set[str]:
    """Return the names of checkpoints that are being written or were left incomplete."""
    try:
        return {name for name in os.listdir(folder / "checkpoints") if name.startswith(".")}  # noqa: PTH208 - faster
    except OSError:
        return set()


# --- kill -9

Moment = Callable[[Child, Path], bool]
"""Waits for the moment of the fault. Returns False if the child ends first."""


def at_second(seconds: float) -> Moment:
    def wait(child: Child, _folder: Path) -> bool:
        deadline = time.monotonic() + seconds
        return child.wait_until(lambda: time.monotonic() > deadline)

    return wait


def as_soon_as(name: str) -> Moment:
    return lambda child, folder: child.wait_until((folder / name).exists)


def while_saving(checkpoints_before: int, seconds_into_it: float) -> Moment:
    def wait(child: Child, folder: Path) -> bool:
        seen: set[str] = set()

        def is_met() -> bool:
            seen.update(half_written(folder))
            return len(seen) > checkpoints_before

        if not child.wait_until(is_met):
            return False
        time.sleep(seconds_into_it)
        return child.is_alive

    return wait


SAVING, ANYWHERE = "kill -9 while saving a checkpoint", "kill -9 at any other moment"


def kill_and_resume(bench: Bench, moments: Sequence[Moment]) -> list[str]:
    """Kill a run at each of the moments, resuming it in between, then finish it.

    Returns:
        The kind of each kill, `SAVING` or `ANYWHERE`.
    """
    folder = bench.new_folder()
    hook = slow_disk(0.02)
    child = bench.train(folder, hook=hook)
    kills: list[str] = []
    for moment in moments:
        if not moment(child, folder):
            break
        child.kill()
        if (folder / "summary.json").exists():  # the run finished before the kill
            break
        kills.append(SAVING if half_written(folder) else ANYWHERE)
        if not (folder / "config.toml").exists():  # the run had not started
            bench.must_report(bench.resume(folder).end(), 2, str(folder))
            folder = bench.new_folder()
            child = bench.train(folder, hook=hook)
        else:
            child = bench.resume(folder, hook=hook)
    bench.must_succeed(child.end()) if child.process.poll() != -signal.SIGKILL else None
    bench.must_finish(folder)
    return kills


def kill_often(bench: Bench, table: "Table") -> None:
    """Kill runs at 30 or more random moments, at least 12 of them while a checkpoint is being written."""
    rng = bench.rng
    named = ("config.toml", "environment.json", "iterations.csv", "model.params", "curves.png", "summary.json")
    chains: list[list[Moment]] = [[as_soon_as(name), as_soon_as(name)] for name in named]
    while chains or table.tried[SAVING] < 12 or table.tried[ANYWHERE] < 18:
        if chains:
            moments = chains.pop()
        elif table.tried[SAVING] < 12:
            moments = [while_saving(rng.randrange(4), rng.uniform(0, 0.15)) for _ in range(4)]
        else:
            moments = [at_second(rng.uniform(0.2, 1) * bench.seconds) for _ in range(3)]
        try:
            for kind in kill_and_resume(bench, moments):
                table.count(kind)
        except WrongOutcomeError as error:
            table.count(ANYWHERE if len(moments) < 4 else SAVING, error)


def kill_comparison(bench: Bench, at_row: int) -> None:
    """Kill a comparison while it trains two runs. They must save and end, and the same command must finish the comparison."""
    folder = bench.new_folder()
    settings = ("--train-images", str(bench.train_images), "--test-images", "100", "--epochs", "2")
    command = ("compare", *settings, "--modes", "optimizer,manual", "--jobs", "2", "--output", str(folder), "--quiet")
    runs = [folder / f"runs/tutorial-{mode}-seed-1" for mode in ("optimizer", "manual")]
    child = bench.start(*command)
    child.wait_until(lambda: all(rows(run) >= at_row for run in runs))
    child.process.kill()
    child.end()
    deadline = time.monotonic() + LIMIT_SECONDS
    while _is_in_use(folder):
        if time.monotonic() > deadline:
            raise WrongOutcomeError("a training outlived its comparison")
        time.sleep(0.05)
    for run in runs:
        last = max(run.glob("checkpoints/[0-9]*"), default=run).name
        if not (run / "summary.json").exists() and last != f"{rows(run):08}":
            raise WrongOutcomeError(f"{run}: {rows(run)} iterations, but the last checkpoint is {last}")
    bench.must_succeed(bench.start(*command).end())
    for run in runs:
        if (run / "iterations.csv").read_bytes() != (bench.undisturbed / "iterations.csv").read_bytes():
            raise WrongOutcomeError(f"{run}: the rows differ from those of the undisturbed run")


def _is_in_use(folder: Path) -> bool:
    """Return whether a process has the folder in its command line."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder).encode() in process.read_bytes():
                return True
    return False


# --- signals


def stop_and_resume(bench: Bench, number: signal.Signals, at_row: int, *settings: str, group: bool = False) -> None:
    """Stop a run by a signal. It must finish and save the iteration, and print a command that resumes it.

    Args:
        bench: The bench.
        number: The signal.
        at_row: The number of rows of iterations.csv at which to send the signal.
        settings: Additional arguments of `train`.
        group: Whether to send the signal to the whole process group, as a terminal does for Ctrl-C.
    """
    folder = bench.new_folder().with_name("it's a run")
    child = bench.train(folder, *settings, hook=slow_disk(0.1, "/checkpoints"))  # slow, so that the signal arrives in time
    child.wait_until(lambda: rows(folder) >= at_row)
    before = rows(folder)
    (os.killpg if group else os.kill)(child.process.pid, number)
    message = bench.must_report(child.end(), 130)
    match = re.fullmatch(r"mnist-trainer: .*\biteration (\d+)\b.*: (mnist-trainer train --resume .*)", message)
    if not match:
        raise WrongOutcomeError(f"the message has no command that resumes the run: {message}")
    iteration = int(match[1])
    if rows(folder) != iteration or not (folder / f"checkpoints/{iteration:08}/manifest.json").exists():
        raise WrongOutcomeError(f"iteration {iteration} is not saved")
    if not before <= iteration <= before + 10:
        raise WrongOutcomeError(f"the signal was sent at iteration {before}, but the run stopped at iteration {iteration}")
    bench.must_be_clean(folder)
    bench.must_succeed(bench.start_line(match[2]).end())
    bench.must_be_equal(folder, may_differ=("config.toml",) if settings else ())


def stop_twice(bench: Bench, first: signal.Signals, second: signal.Signals) -> None:
    """Send a second signal while the run saves because of the first. It must stop immediately."""
    folder = bench.new_folder()
    child = bench.train(folder, hook=slow_disk(2 * LIMIT_SECONDS, "arrays.npz"))  # only the second signal can end it in time
    child.wait_until(lambda: rows(folder) >= 1)
    child.process.send_signal(first)
    child.wait_until(lambda: list(folder.glob("checkpoints/.*/arrays.npz")))
    child.process.send_signal(second)
    bench.must_report(child.end(), 130, "mnist-trainer train --resume ", str(folder))
    bench.must_be_clean(folder)
    bench.must_finish(folder)


def stop_at_the_end(bench: Bench, number: signal.Signals, name: str) -> None:
    """Send a signal after the last iteration. The run must finish or be resumable."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until((folder / name).exists)
    child.process.send_signal(number)
    outcome = child.end()
    if outcome.code == 0:
        bench.must_succeed(outcome)
        bench.must_be_equal(folder)
    else:
        bench.must_report(outcome, 130, "mnist-trainer train --resume ")
        bench.must_finish(folder)


def stop_before_start(bench: Bench, number: signal.Signals, seconds: float) -> None:
    """Send a signal while the program loads. It must end without a traceback."""
    for _ in range(10):  # on a machine that has become faster, the run may have begun
        folder = bench.new_folder()
        child = bench.train(folder)
        at_second(seconds)(child, folder)
        has_begun = (folder / "iterations.csv").exists()
        child.process.send_signal(number)
        outcome = child.end()
        if not has_begun:
            break
        seconds /= 2
    _must_have_no_traceback(outcome)
    # Python ends by SIGINT if the interruption came within an `exec`, such as that of a dataclass, although 130 was returned.
    if outcome.code not in (130, -number, -signal.SIGINT):
        raise WrongOutcomeError(f"exit code {outcome.code}: {outcome.stderr}")
    if (folder / "config.toml").exists():
        bench.must_finish(folder)


# --- a full disk


@dataclass(frozen=True)
class FullDisk:
    """A limit for the size of files that makes writing `name` fail.

    Attributes:
        name: The file that cannot be written.
        limit: The maximum size of a file in bytes.
        moment: When the limit takes effect; None for the start of the run.
        hook: The `sitecustomize` of the run.
    """

    name: str
    limit: int
    moment: Moment | None = None
    hook: str = ""


def full_disks(bench: Bench) -> list[FullDisk]:
    """Return a limit for each file that a run writes."""
    arrays, parameters, curves = (
        bench.size(name) for name in (f"{bench.last_checkpoint}/arrays.npz", "model.params", "curves.png")
    )

    def temporary(name: str, size: int) -> Moment:
        def is_met(folder: Path) -> bool:
            return any(path.stat().st_size >= size for path in folder.glob(name))

        return lambda child, folder: child.wait_until(lambda: _tried(is_met, folder))

    def at_row(number: int) -> Moment:
        return lambda child, folder: child.wait_until(lambda: rows(folder) >= number)

    slow_parent = slow_disk(0.05, "/checkpoints")
    end = as_soon_as(bench.last_checkpoint)
    return [
        FullDisk("config.toml", 100),
        FullDisk("environment.json", bench.size("config.toml") + 20),
        FullDisk("arrays.npz", arrays // 2),
        FullDisk("arrays.npz", arrays - 10),
        FullDisk("state.json", 500, temporary("checkpoints/.*/arrays.npz", arrays), slow_disk(0.1, "arrays.npz")),
        FullDisk("manifest.json", 50, temporary("checkpoints/.*/state.json", 500), slow_disk(0.1, "state.json")),
        FullDisk("iterations.csv", 100, as_soon_as("checkpoints/00000005"), slow_parent),
        FullDisk("metrics.jsonl", 100, at_row(bench.iterations // 2)),
        FullDisk("model.params", parameters // 2, end, slow_parent),
        FullDisk("model.params", parameters - 100, end, slow_parent),
        FullDisk("curves.png", curves // 2, as_soon_as("model.params")),
        FullDisk("summary.json", 100, temporary(".curves.png.*.partial", curves), slow_disk(0.3)),
    ]


def _tried(condition: Callable[[Path], bool], folder: Path) -> bool:
    try:
        return condition(folder)
    except OSError:  # the file was renamed in the meantime
        return False


def fill_disk(bench: Bench, full: FullDisk) -> None:
    """Make one file impossible to write. The run must name it, leave no partial file, and resume when there is space.

    A figure that cannot be written must not stop the run.
    """
    code = 0 if full.name == "curves.png" else 1
    for _ in range(10):  # a busy machine may miss the moment
        folder = bench.new_folder()
        child = bench.train(folder, hook=full.hook)
        if full.moment:
            full.moment(child, folder)
        child.limit_file_size(full.limit)
        outcome = child.end()
        message = bench.must_report(outcome, code, str(folder))
        if re.search(rf"/{full.name}: .*(File too large|MXNet)", message):
            break
    else:
        raise WrongOutcomeError(f"the message does not name {full.name}: {outcome.stderr}")
    bench.must_be_clean(folder)
    if not (folder / "config.toml").exists():
        bench.must_report(bench.resume(folder).end(), 2, f"{folder}: ", "config.toml")
    else:
        bench.must_finish(folder)


def fail_to_flush(bench: Bench, pattern: str, code: int) -> None:
    """Let the disk fail when it flushes a path that matches. The run must name a path, and resume once the disk works."""
    folder = bench.new_folder()
    bench.must_report(bench.train(folder, hook=failing_disk(pattern)).end(), code, str(folder), "Input/output error")
    bench.must_be_clean(folder)
    if (folder / "config.toml").exists():
        bench.must_finish(folder)


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mount a file system on `folder` for the duration of the context."""
    folder.mkdir(parents=True, exist_ok=True)
    _command("mount", *arguments, str(folder))
    try:
        yield folder
    finally:
        _command("umount", "--lazy", str(folder))


def _command(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NotPossibleError(f"{words[0]} is not installed") from error
    if done.returncode:
        raise NotPossibleError(done.stderr.strip() or f"{words[0]} failed")


def fill_small_disk(bench: Bench) -> None:
    """Train on a disk that is too small for the third checkpoint, then enlarge the disk and resume."""
    with mounted(bench.new_folder(), "-t", "tmpfs", "-o", "size=2m", "none") as disk:
        folder = disk / "run"
        outcome = bench.train(folder).end()
        bench.must_report(outcome, 1, str(folder), "No space left on device")
        bench.must_be_clean(folder)
        _command("mount", "-o", "remount,size=32m", str(disk))
        bench.must_finish(folder)


def fill_disk_during_run(bench: Bench, at_row: int) -> None:
    """Fill the rest of the disk while the run writes to it."""
    with mounted(bench.new_folder(), "-t", "tmpfs", "-o", "size=8m", "none") as disk:
        folder, filler = disk / "run", disk / "filler"
        child = bench.train(folder)
        child.wait_until(lambda: rows(folder) >= at_row)
        with filler.open("wb", buffering=0) as stream:
            try:
                while child.is_alive:
                    stream.write(bytes(1024))
            except OSError:
                pass
            try:
                while child.is_alive:  # refill space that the run frees
                    _fill_up(stream)
            finally:
                outcome = child.end()
        bench.must_report(outcome, 1, str(folder), "No space left on device")
        filler.unlink()
        bench.must_finish(folder)


def _fill_up(stream: Any) -> None:
    try:
        stream.write(bytes(64))
    except OSError:
        time.sleep(0.0005)


# --- the folder


def make_immutable(bench: Bench, at_row: int) -> None:
    """Make the files of a run immutable with `chattr +i`, which also affects root."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= at_row)
    try:
        # Two calls, because the first ends early if a checkpoint is created or removed while it runs.
        subprocess.run(["chattr", "-R", "+i", str(folder)], capture_output=True, check=False)
        _command("chattr", "+i", str(folder), str(folder / "checkpoints"), str(folder / "iterations.csv"))
        bench.must_report(child.end(), 1, str(folder), "Operation not permitted")
        bench.must_report(bench.resume(folder).end(), 1, str(folder), "Operation not permitted")
    finally:
        child.end()
        subprocess.run(["chattr", "-R", "-i", str(folder)], capture_output=True, check=False)
    bench.must_finish(folder)


def make_read_only(bench: Bench, at_row: int) -> None:
    """Remount the file system read-only during the run, as the kernel does after a disk error."""
    with mounted(bench.new_folder(), "-t", "tmpfs", "-o", "size=32m", "none") as disk:
        folder = disk / "run"
        child = bench.train(folder)
        child.wait_until(lambda: rows(folder) >= at_row)
        for _ in range(1000):  # fails while a file is open for writing
            try:
                _command("mount", "-o", "remount,ro", str(disk))
                break
            except NotPossibleError:
                if not child.is_alive:
                    raise
        bench.must_report(child.end(), 1, str(folder), "Read-only file system")
        bench.must_report(bench.resume(folder).end(), 1, str(folder), "Read-only file system")
        bench.must_report(bench.train(disk / "other").end(), 2, "--output", "Read-only file system")
        _command("mount", "-o", "remount,rw", str(disk))
        bench.must_finish(folder)


def remove_folder(bench: Bench, moment: Moment, hook: str = "") -> None:
    """Remove the folder of a run. The run must end with a message, not recreate the folder, and write nowhere else."""
    folder = bench.new_folder()
    child = bench.train(folder, hook=hook)
    moment(child, folder)
    away = bench.folder / "away"
    folder.rename(away)
    shutil.rmtree(away)
    bench.must_report(child.end(), 1, str(folder), "No such file or directory")
    if left := list(folder.parent.iterdir()):
        raise WrongOutcomeError(f"files written after the run folder was removed: {left}")
    bench.must_write_nowhere_else()
    bench.must_report(bench.resume(folder).end(), 2, f"{folder}: ", "no such")


def remove_part(bench: Bench, name: str, at_row: int) -> None:
    """Remove a file or folder of a run. The run must end correctly, or with a message and be resumable.

    If no checkpoint is left, resuming must fail until the folder is restored.
    """
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= at_row and (folder / name).exists())
    away = folder.with_name("away")
    (folder / name).rename(away)
    outcome = child.end()
    if outcome.code != 0:
        bench.must_report(outcome, 1, name)
        outcome = bench.resume(folder).end()
    if outcome.code != 0:
        bench.must_report(outcome, 2, f"{folder}: ", "no checkpoint")
        away.rename(folder / name)
        outcome = bench.resume(folder).end()
    bench.must_succeed(outcome)
    bench.must_be_equal(folder)


FOREIGN_FILES = (
    "notes.txt",
    ".hidden",
    "photos/1.jpg",
    "0",
    "checkpoints/readme.txt",
    "checkpoints/mine/notes.txt",
    "checkpoints/.x/y",
)


def add_foreign_files(bench: Bench, at_row: int) -> None:
    """Add foreign files to a run folder. They must not affect the run, even after a kill and a resume, and must be kept."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= at_row)
    for name in FOREIGN_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine", encoding="utf-8")
    child.wait_until(lambda: rows(folder) >= at_row + 10)
    child.kill()
    bench.must_finish(folder, foreign=FOREIGN_FILES)


def block_path(bench: Bench, name: str, at_row: int) -> None:
    """Create a folder at the path of a file of the run, or a file at the path of a folder.

    The run must move it out of the way, or end with a message until it is removed. A figure that cannot be written must not
    stop the run.
    """
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= at_row)
    obstacle = folder / name
    if name.startswith("checkpoints/"):
        obstacle.parent.mkdir(exist_ok=True)
        obstacle.write_text("mine", encoding="utf-8")
    else:
        obstacle.mkdir()
    outcome = child.end()
    if outcome.code == 0 and name != "curves.png":
        bench.must_succeed(outcome)
        bench.must_be_equal(folder, foreign=[file for file in _files(folder) if (folder / file).read_bytes() == b"mine"])
        return
    bench.must_report(outcome, 0 if name == "curves.png" else 1, name)
    obstacle.unlink() if obstacle.is_file() else obstacle.rmdir()
    bench.must_finish(folder)


PARTS = ("config.toml", "environment.json", "iterations.csv", "metrics.jsonl", "checkpoints")


def plant(bench: Bench, name: str, put: Callable[[Path, Path], object]) -> None:
    """Put something else in the place of a part of a killed run. Resuming must refuse it, wait for nothing, and touch nothing.

    Args:
        bench: The bench.
        name: The part of the run.
        put: Puts something in the place of a path, given that path and the path to which the part was moved.
    """
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= bench.iterations // 2 + 10)
    child.kill()
    moved = folder.with_name("moved")
    (folder / name).rename(moved)
    before = _contents(moved)
    put(folder / name, moved)
    bench.must_report(bench.resume(folder).end(), 2, f"{folder / name}: ")
    if _contents(moved) != before:
        raise WrongOutcomeError(f"{moved} was changed through {folder / name}")
    (folder / name).unlink()
    moved.rename(folder / name)
    bench.must_finish(folder)


def _contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file()}


def plant_hard_links(bench: Bench) -> None:
    """Give the files of a killed run second names elsewhere. Resuming must not change those files."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= bench.iterations // 2 + 10)
    child.kill()
    backup = folder.with_name("backup")
    shutil.copytree(folder, backup, copy_function=os.link)
    before = _contents(backup)
    bench.must_finish(folder)
    if _contents(backup) != before:
        raise WrongOutcomeError(f"{backup} was changed through a hard link")


# --- two processes


def resume_in_parallel(bench: Bench, processes: int) -> None:
    """Resume one run in several processes. One must win, the others must end with a message, and the result must be correct."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= bench.iterations // 4)
    child.kill()
    hook = held_disk(folder.with_name("gate"))
    _must_have_one_winner(bench, [bench.resume(folder, hook=hook) for _ in range(processes)], folder)


def train_in_parallel(bench: Bench, processes: int) -> None:
    """Train in several processes with the same empty `--output` folder. Exactly one must win."""
    folder = bench.new_folder()
    folder.mkdir()
    hook = held_disk(folder.with_name("gate"))
    _must_have_one_winner(bench, [bench.train(folder, hook=hook) for _ in range(processes)], folder)


def _must_have_one_winner(bench: Bench, children: Sequence[Child], folder: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while sum(child.is_alive for child in children) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    folder.with_name("gate").touch()  # the winner must not end before all others have tried
    ends = sorted((child.end() for child in children), key=lambda outcome: outcome.code)
    bench.must_succeed(ends[0])
    for outcome in ends[1:]:
        bench.must_report(outcome, 2, str(folder))
    bench.must_be_equal(folder)


def resume_running(bench: Bench) -> None:
    """Try to resume a run while it is running. This must fail."""
    folder = bench.new_folder()
    gate = folder.with_name("gate")
    child = bench.train(folder, hook=held_disk(gate))
    child.wait_until(lambda: rows(folder) >= 5)
    bench.must_report(bench.resume(folder).end(), 2, f"{folder}: ", "another process")
    gate.touch()
    bench.must_succeed(child.end())
    bench.must_be_equal(folder)


# --- the clock


def change_clock(bench: Bench, hook: str) -> None:
    """Train with another clock, also across a kill. The result must be the same."""
    folder = bench.new_folder()
    bench.must_succeed(bench.train(folder, hook=hook).end())
    bench.must_be_equal(folder)
    folder = bench.new_folder()
    child = bench.train(folder, hook=hook)
    child.wait_until(lambda: rows(folder) >= bench.iterations // 3)
    child.kill()
    bench.must_succeed(bench.resume(folder, hook=hook).end())
    bench.must_be_equal(folder)


def jumping_clock(seed: int) -> str:
    return JUMPING_CLOCK.replace("SEED", repr(seed))


# --- all trials


@dataclass
class Table:
    """Counts of trials and of correct outcomes.

    Attributes:
        tried: Name of a fault → number of trials.
        correct: Name of a fault → number of trials with a correct outcome.
        notes: Name of a fault → descriptions of wrong outcomes and of trials that were not possible.
    """

    tried: Counter[str] = field(default_factory=Counter)
    correct: Counter[str] = field(default_factory=Counter)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def count(self, fault: str, error: Exception | None = None) -> None:
        self.tried[fault] += not isinstance(error, NotPossibleError)
        self.correct[fault] += error is None
        if error:
            kind = "not possible" if isinstance(error, NotPossibleError) else "WRONG"
            self.notes.setdefault(fault, []).append(f"{kind}: {error or type(error).__name__}")
            print(f"{fault}: {error}", file=sys.stderr, flush=True)

    def try_fault(self, fault: str, trial: Callable[[], object]) -> None:
        try:
            trial()
        except Exception as error:  # the other trials must run in any case
            self.count(fault, error)
        else:
            self.count(fault)

    @property
    def all_correct(self) -> bool:
        return self.tried == self.correct

    def __str__(self) -> str:
        names = list(dict.fromkeys([*self.tried, *self.notes]))
        width = max(map(len, names))
        lines = [f"{'fault':{width}}  tried  correct"]
        for name in names:
            lines.append(f"{name:{width}}  {self.tried[name]:5}  {self.correct[name]:7}")
            lines += [f"    {note}" for note in self.notes.get(name, ())]
        lines.append(f"{'total':{width}}  {self.tried.total():5}  {self.correct.total():7}")
        return "\n".join(lines)


def other_trials(bench: Bench) -> list[tuple[str, Callable[[], object]]]:
    """Return the name and the trial of every fault except `kill -9`."""
    rng = bench.rng
    term, ctrl_c = signal.SIGTERM, signal.SIGINT

    def at_row() -> int:
        return rng.randrange(2, int(0.8 * bench.iterations))

    trials: list[tuple[str, Callable[[], object]]] = []
    for _ in range(2):
        trials.append(("SIGTERM", partial(stop_and_resume, bench, term, at_row())))
        trials.append(("Ctrl-C", partial(stop_and_resume, bench, ctrl_c, at_row(), group=True)))
    for pair in ((ctrl_c, ctrl_c), (ctrl_c, ctrl_c), (term, ctrl_c)):
        trials.append(("second Ctrl-C while saving", partial(stop_twice, bench, *pair)))
    for name in (bench.last_checkpoint, "model.params"):
        trials.append(("Ctrl-C after the last iteration", partial(stop_at_the_end, bench, ctrl_c, name)))
    for _ in range(2):
        trials.append(("kill -9 of a comparison", partial(kill_comparison, bench, at_row())))
    for number in (ctrl_c, ctrl_c, ctrl_c, term):
        moment = rng.uniform(0.1, 0.4) * bench.seconds
        trials.append(("signal while the program loads", partial(stop_before_start, bench, number, moment)))
    for full in full_disks(bench):
        trials.append((f"file-size limit, {full.name}", partial(fill_disk, bench, full)))
    patterns = {r"/trial \d+$": 2} | dict.fromkeys(
        (r"/run$", r"/checkpoints$", "arrays.npz", "iterations.csv", "summary.json"), 1
    )
    for pattern, code in patterns.items():
        trials.append(("disk that fails to flush", partial(fail_to_flush, bench, pattern, code)))
    trials.append(("disk too small (tmpfs)", partial(fill_small_disk, bench)))
    for _ in range(2):
        trials.append(("disk filled during the run (tmpfs)", partial(fill_disk_during_run, bench, at_row())))
        trials.append(("folder made immutable (chattr)", partial(make_immutable, bench, max(6, at_row()))))
        trials.append(("file system made read-only", partial(make_read_only, bench, max(6, at_row()))))
        saving = while_saving(rng.randrange(8), rng.uniform(0, 0.1))
        trials.append(("folder removed while saving", partial(remove_folder, bench, saving, slow_disk(0.02))))
    for name in ("iterations.csv", bench.last_checkpoint, "model.params"):
        trials.append(("folder removed", partial(remove_folder, bench, as_soon_as(name), slow_disk(0.05, "/checkpoints"))))
    for name, row in (("iterations.csv", at_row()), ("metrics.jsonl", bench.iterations // 2 + 5), ("checkpoints", 6)):
        trials.append((f"{name} removed", partial(remove_part, bench, name, row)))
    for _ in range(2):
        trials.append(("foreign files", partial(add_foreign_files, bench, rng.randrange(2, bench.iterations // 2))))
    blocked = ("model.params", "curves.png", "summary.json", "metrics.jsonl", f"checkpoints/{bench.iterations // 2:08}")
    for name in blocked:
        trials.append(("path of a run file blocked", partial(block_path, bench, name, 3)))
    for name in PARTS:
        trials.append(("link in place of a part of the run", partial(plant, bench, name, Path.symlink_to)))
        trials.append(("pipe in place of a part of the run", partial(plant, bench, name, lambda path, _: os.mkfifo(path))))
    trials.append(("hard links to the files of the run", partial(plant_hard_links, bench)))
    trials.append(("two processes resume one run", partial(resume_in_parallel, bench, 2)))
    trials.append(("three processes train in one folder", partial(train_in_parallel, bench, 3)))
    trials.append(("resumed while running", partial(resume_running, bench)))
    trials.append(("clock that jumps by ±1e9 s", partial(change_clock, bench, jumping_clock(rng.randrange(1000)))))
    trials.append(("clock stuck at 1970", partial(change_clock, bench, CLOCK_AT_ZERO)))
    return trials


def main() -> int:
    """Try every fault. Return exit code 1 if any outcome was wrong."""
    parser = argparse.ArgumentParser(description="Inject faults into real runs and check the outcomes.")
    parser.add_argument("--seed", type=int, default=0, help="seed for the random moments of faults (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="try only faults whose name contains TEXT")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets commands in the background ignore it
    started = time.monotonic()
    table = Table()
    folder = Path(tempfile.mkdtemp(prefix="faults."))
    bench = Bench(folder / "bench", random.Random(arguments.seed))
    try:
        if any(arguments.only in fault for fault in (SAVING, ANYWHERE)):
            kill_often(bench, table)
        for fault, trial in other_trials(bench):
            if arguments.only in fault:
                table.try_fault(fault, trial)
    finally:
        bench.clean_up()
        if table.all_correct:
            shutil.rmtree(folder)
        else:
            print(f"the files of the trials are kept in {folder}", file=sys.stderr)
    print(table)
    print(f"{time.monotonic() - started:.0f} s, seed {arguments.seed}")
    return 0 if table.all_correct else 1


if __name__ == "__main__":
    sys.exit(main())
