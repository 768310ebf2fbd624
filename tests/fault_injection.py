"""Faults, tried for real on real runs: killed, interrupted, on a full disk, in a folder that vanishes, with a mad clock.

    python tests/fault_injection.py [--seed N]

Each trial disturbs a small run in a process of its own, mends what was broken, and resumes. It must end in a folder equal to
that of a run that nobody disturbed, or in one clear sentence. Prints a table of counts; exit code 1 if any outcome was wrong.
Takes about eight minutes on one thread. The trials of a full disk and of a read-only folder want Linux and root; what could
not be tried stands in the table.

The program knows nothing of all this: a child is slowed, or given another clock, by a `sitecustomize` in its PYTHONPATH.
"""

import argparse
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
"""How long to wait for what must come; far above what any takes on a machine ten times slower."""

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

JUMPING_CLOCK = """
import random, time
original, dice = time.time, random.Random(SEED)
time.time = lambda: original() + dice.choice((-1e9, 0, 1e9))
"""

CLOCK_AT_ZERO = """
import time
time.time = lambda: 0.0
"""


class WrongOutcomeError(AssertionError):
    """What must not happen: a traceback, a wrong result, silence."""


class NotPossibleError(Exception):
    """The fault cannot be made on this machine; the sentence says why."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    stdout: str
    stderr: str


@dataclass
class Child:
    """A `mnist-trainer` that runs, in a session of its own, as under a terminal of its own."""

    process: subprocess.Popen[str]
    _printed: tuple[str, str] | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, condition: Callable[[], object], seconds: float = LIMIT_SECONDS) -> bool:
        """Looks again and again until the condition holds; False if the child ends first."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.is_alive:
                return False
            if time.monotonic() > deadline:
                raise WrongOutcomeError(f"nothing happened in {seconds} s")
            time.sleep(0.0005)
        return True

    def end(self, seconds: float = LIMIT_SECONDS) -> Ended:
        """Waits for the end. Nothing of the session is left afterwards."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise WrongOutcomeError(f"it did not end in {seconds} s") from error
        finally:
            self.kill()
        assert self._printed
        return Ended(code, *self._printed)

    def kill(self) -> None:
        """SIGKILL to the process and to all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if not self._printed:  # little enough for what a pipe holds
            self._printed = self.process.communicate()

    def limit_file_size(self, limit: int) -> None:
        """From now on no file can grow beyond so many bytes: as a full disk, but for this process alone."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@dataclass
class Bench:
    """A folder for trials, with an undisturbed run to compare with.

    seconds: how long the undisturbed run took, with its start.
    """

    folder: Path
    dice: random.Random
    train_images: int = 3200
    seconds: float = 0.0
    _number: int = 0
    _children: list[Child] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "cwd").mkdir(parents=True)
        started = time.monotonic()
        self.must_be_done(self.train(self.undisturbed).end())
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
        """Bytes of a file of the undisturbed run."""
        return (self.undisturbed / name).stat().st_size

    def new_folder(self) -> Path:
        """A path for a run; there is nothing yet. The folder around it is for this trial alone."""
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
        """A command as the program prints it, given to a shell as it is."""
        name, rest = command.split(" ", 1)
        if name != "mnist-trainer":
            raise WrongOutcomeError(f"no command of ours: {command}")
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

    # --- what must be

    def must_be_done(self, ended: Ended) -> None:
        if ended.code != 0:
            raise WrongOutcomeError(f"exit code {ended.code}: {ended.stderr}")
        _must_not_trace(ended)

    def must_say(self, ended: Ended, code: int, *parts: str) -> str:
        """The last sentence on stderr, which holds these parts."""
        _must_not_trace(ended)
        lines = ended.stderr.splitlines() or [""]
        if ended.code != code:
            raise WrongOutcomeError(f"exit code {ended.code}, not {code}: {ended.stderr}")
        if not lines[-1].startswith("mnist-trainer: ") or not all(part in lines[-1] for part in parts):
            raise WrongOutcomeError(f"not the sentence that should be, with {parts}: {ended.stderr!r}")
        besides = ("after iteration", "checkpoint", "figure")  # where it resumes, not from where, and what it cannot draw
        if any(line.startswith("mnist-trainer: ") and not any(phrase in line for phrase in besides) for line in lines[:-1]):
            raise WrongOutcomeError(f"more than one sentence: {ended.stderr!r}")
        return lines[-1]

    def must_finish(self, folder: Path, aliens: Sequence[str] = (), unlike: Sequence[str] = ()) -> None:
        """Resumes, and has the folder be as that of the undisturbed run."""
        self.must_be_done(self.resume(folder).end())
        self.must_be_equal(folder, aliens, unlike)

    def must_be_equal(self, folder: Path, aliens: Sequence[str] = (), unlike: Sequence[str] = ()) -> None:
        """aliens: files that are there besides, and must be. unlike: files whose content may be another."""
        here, there = _files(folder), _files(self.undisturbed)
        if here != there | set(aliens):
            raise WrongOutcomeError(f"{folder}: other files, {sorted(here ^ (there | set(aliens)))}")
        for name in sorted(there - {"environment.json"} - set(unlike)):
            if name.endswith(("state.json", "manifest.json")):  # with seconds in it
                continue
            mine, right = (_without_times(name, (root / name).read_bytes()) for root in (folder, self.undisturbed))
            if mine != right:
                raise WrongOutcomeError(f"{folder / name}: another content")
        self.must_stay_in_place()

    def must_stay_in_place(self) -> None:
        if elsewhere := list((self.folder / "cwd").iterdir()):
            raise WrongOutcomeError(f"written elsewhere: {elsewhere}")

    def must_be_clean(self, folder: Path) -> None:
        if leftovers := [name for name in _files(folder) if re.search(r"(^|/)\.", name)]:
            raise WrongOutcomeError(f"{folder}: left behind, {leftovers}")


def _must_not_trace(ended: Ended) -> None:
    for text in (ended.stdout, ended.stderr):
        if "Traceback" in text or "Error:" in text or "Exception ignored" in text:
            raise WrongOutcomeError(f"a traceback: {text}")


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def _without_times(name: str, content: bytes) -> Any:
    if name == "metrics.jsonl":
        return [_without(json.loads(line)) for line in content.splitlines()]
    return _without(json.loads(content)) if name == "summary.json" else content


def _without(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in TIMES}


def slow_disk(seconds: float, ending: str = "") -> str:
    """A hook: what is brought to the disk takes so long, where the name ends so."""
    return SLOW_DISK.replace("SECONDS", repr(seconds)).replace("ENDING", repr(ending))


def held_disk(gate: Path) -> str:
    """A hook: no checkpoint is brought to the disk before there is a file `gate`."""
    return HELD_DISK.replace("GATE", repr(str(gate)))


def rows(folder: Path) -> int:
    """Rows of iterations.csv, as far as they are written."""
    try:
        return max(0, (folder / "iterations.csv").read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def half_written(folder: Path) -> set[str]:
    """Checkpoints that are being written, or that nobody came to write to the end."""
    try:
        return {name for name in os.listdir(folder / "checkpoints") if name.startswith(".")}  # noqa: PTH208 - faster
    except OSError:
        return set()


# --- kill -9

Moment = Callable[[Child, Path], bool]
"""Waits for the moment to strike; False if the child ends first."""


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

        def is_there() -> bool:
            seen.update(half_written(folder))
            return len(seen) > checkpoints_before

        if not child.wait_until(is_there):
            return False
        time.sleep(seconds_into_it)
        return child.is_alive

    return wait


SAVING, ANYWHERE = "kill -9 with a checkpoint half written", "kill -9 at any other moment"


def kill_and_resume(bench: Bench, moments: Sequence[Moment]) -> list[str]:
    """A run that is killed at the first moment, resumed, killed at the second, …; where the blows fell."""
    folder = bench.new_folder()
    hook = slow_disk(0.02)
    child = bench.train(folder, hook=hook)
    blows = []
    for moment in moments:
        if not moment(child, folder):
            break
        child.kill()
        if (folder / "summary.json").exists():  # faster than the blow
            break
        blows.append(SAVING if half_written(folder) else ANYWHERE)
        if not (folder / "config.toml").exists():  # it had not begun
            bench.must_say(bench.resume(folder).end(), 2, str(folder))
            folder = bench.new_folder()
            child = bench.train(folder, hook=hook)
        else:
            child = bench.resume(folder, hook=hook)
    bench.must_be_done(child.end()) if child.process.poll() != -signal.SIGKILL else None
    bench.must_finish(folder)
    return blows


def kill_often(bench: Bench, table: "Table") -> None:
    """At 30 random moments and more, at least ten of them while a checkpoint is being written."""
    dice = bench.dice
    named = ("config.toml", "environment.json", "iterations.csv", "model.params", "curves.png", "summary.json")
    chains: list[list[Moment]] = [[as_soon_as(name), as_soon_as(name)] for name in named]
    while chains or table.tried[SAVING] < 12 or table.tried[ANYWHERE] < 18:
        if chains:
            moments = chains.pop()
        elif table.tried[SAVING] < 12:
            moments = [while_saving(dice.randrange(4), dice.uniform(0, 0.15)) for _ in range(4)]
        else:
            moments = [at_second(dice.uniform(0.2, 1) * bench.seconds) for _ in range(3)]
        try:
            for blow in kill_and_resume(bench, moments):
                table.count(blow)
        except WrongOutcomeError as error:
            table.count(ANYWHERE if len(moments) < 4 else SAVING, error)


# --- signals


def stop_and_resume(bench: Bench, number: signal.Signals, at_row: int, *settings: str, group: bool = False) -> None:
    """The iteration is finished and saved, and the command that is printed goes on."""
    folder = bench.new_folder().with_name("it's a run")
    child = bench.train(folder, *settings, hook=slow_disk(0.1, "/checkpoints"))  # it does not run away meanwhile
    child.wait_until(lambda: rows(folder) >= at_row)
    before = rows(folder)
    (os.killpg if group else os.kill)(child.process.pid, number)
    sentence = bench.must_say(child.end(), 130)
    told = re.fullmatch(r"mnist-trainer: .*\biteration (\d+)\b.*: (mnist-trainer train --resume .*)", sentence)
    if not told:
        raise WrongOutcomeError(f"does not say how to go on: {sentence}")
    iteration = int(told[1])
    if rows(folder) != iteration or not (folder / f"checkpoints/{iteration:08}/manifest.json").exists():
        raise WrongOutcomeError(f"iteration {iteration} is not saved")
    if not before <= iteration <= before + 10:
        raise WrongOutcomeError(f"asked to stop at iteration {before}, it stopped at {iteration}")
    bench.must_be_clean(folder)
    bench.must_be_done(bench.start_line(told[2]).end())
    bench.must_be_equal(folder, unlike=("config.toml",) if settings else ())


def stop_twice(bench: Bench, first: signal.Signals, second: signal.Signals) -> None:
    """The second stops at once, in the middle of the saving that the first asked for."""
    folder = bench.new_folder()
    child = bench.train(folder, hook=slow_disk(2 * LIMIT_SECONDS, "arrays.npz"))  # without the second it would not end in time
    child.wait_until(lambda: rows(folder) >= 1)
    child.process.send_signal(first)
    child.wait_until(lambda: list(folder.glob("checkpoints/.*/arrays.npz")))
    child.process.send_signal(second)
    bench.must_say(child.end(), 130, "mnist-trainer train --resume ", str(folder))
    bench.must_be_clean(folder)
    bench.must_finish(folder)


def stop_at_the_end(bench: Bench, number: signal.Signals, name: str) -> None:
    """When no iteration is left to be finished, the run ends, or can be resumed."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until((folder / name).exists)
    child.process.send_signal(number)
    ended = child.end()
    if ended.code == 0:
        bench.must_be_done(ended)
        bench.must_be_equal(folder)
    else:
        bench.must_say(ended, 130, "mnist-trainer train --resume ")
        bench.must_finish(folder)


def stop_before_it_begins(bench: Bench, number: signal.Signals, seconds: float) -> None:
    """While the program is being loaded: it ends, without a traceback; there is nothing to save."""
    folder = bench.new_folder()
    child = bench.train(folder)
    at_second(seconds)(child, folder)
    child.process.send_signal(number)
    ended = child.end()
    _must_not_trace(ended)
    if ended.code not in (130, -number):
        raise WrongOutcomeError(f"exit code {ended.code}: {ended.stderr}")
    if (folder / "config.toml").exists():
        bench.must_finish(folder)


# --- a full disk


@dataclass(frozen=True)
class FullDisk:
    """Files cannot grow beyond `limit` bytes from a moment on, so that `name` cannot be written."""

    name: str
    limit: int
    moment: Moment | None = None
    hook: str = ""


def full_disks(bench: Bench) -> list[FullDisk]:
    """A limit for each file that a run writes."""
    arrays, parameters, curves = (
        bench.size(name) for name in (f"{bench.last_checkpoint}/arrays.npz", "model.params", "curves.png")
    )

    def temporary(name: str, size: int) -> Moment:
        def is_there(folder: Path) -> bool:
            return any(path.stat().st_size >= size for path in folder.glob(name))

        return lambda child, folder: child.wait_until(lambda: _tried(is_there, folder))

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
        FullDisk("summary.json", 100, temporary(".*.curves.png", curves), slow_disk(0.3, "curves.png")),
    ]


def _tried(condition: Callable[[Path], bool], folder: Path) -> bool:
    try:
        return condition(folder)
    except OSError:  # renamed meanwhile
        return False


def fill_disk(bench: Bench, full: FullDisk) -> None:
    """One sentence with the file, nothing half there; and when there is space again, the run goes on. A figure costs no run."""
    code = 0 if full.name == "curves.png" else 1
    for _ in range(10):  # the moment may be missed, when this machine is busy
        folder = bench.new_folder()
        child = bench.train(folder, hook=full.hook)
        if full.moment:
            full.moment(child, folder)
        child.limit_file_size(full.limit)
        ended = child.end()
        sentence = bench.must_say(ended, code, str(folder))
        if re.search(rf"/{full.name}: .*(File too large|MXNet)", sentence):
            break
    else:
        raise WrongOutcomeError(f"it does not name {full.name}: {ended.stderr}")
    bench.must_be_clean(folder)
    if not (folder / "config.toml").exists():
        bench.must_say(bench.resume(folder).end(), 2, f"{folder}: ", "config.toml")
    else:
        bench.must_finish(folder)


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """A mount that is gone afterwards."""
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
        raise NotPossibleError(f"there is no {words[0]}") from error
    if done.returncode:
        raise NotPossibleError(done.stderr.strip() or f"{words[0]} failed")


def fill_small_disk(bench: Bench) -> None:
    """A disk too small for the third checkpoint, and larger afterwards."""
    with mounted(bench.new_folder(), "-t", "tmpfs", "-o", "size=2m", "none") as disk:
        folder = disk / "run"
        ended = bench.train(folder).end()
        bench.must_say(ended, 1, str(folder), "No space left on device")
        bench.must_be_clean(folder)
        _command("mount", "-o", "remount,size=32m", str(disk))
        bench.must_finish(folder)


def fill_disk_in_the_middle(bench: Bench, at_row: int) -> None:
    """Somebody else takes all the space that is left."""
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
                while child.is_alive:  # also what is freed meanwhile
                    _fill_up(stream)
            finally:
                ended = child.end()
        bench.must_say(ended, 1, str(folder), "No space left on device")
        filler.unlink()
        bench.must_finish(folder)


def _fill_up(stream: Any) -> None:
    try:
        stream.write(bytes(64))
    except OSError:
        time.sleep(0.0005)


# --- the folder


def make_immutable(bench: Bench, at_row: int) -> None:
    """`chattr +i`, which binds root, too."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= at_row)
    try:
        # Twice: a checkpoint that comes or goes meanwhile ends the first pass early.
        subprocess.run(["chattr", "-R", "+i", str(folder)], capture_output=True, check=False)
        _command("chattr", "+i", str(folder), str(folder / "checkpoints"), str(folder / "iterations.csv"))
        bench.must_say(child.end(), 1, str(folder), "Operation not permitted")
        bench.must_say(bench.resume(folder).end(), 1, str(folder), "Operation not permitted")
    finally:
        child.end()
        subprocess.run(["chattr", "-R", "-i", str(folder)], capture_output=True, check=False)
    bench.must_finish(folder)


def make_read_only(bench: Bench, at_row: int) -> None:
    """The file system becomes read-only, as it does after a fault of the disk."""
    with mounted(bench.new_folder(), "-t", "tmpfs", "-o", "size=32m", "none") as disk:
        folder = disk / "run"
        child = bench.train(folder)
        child.wait_until(lambda: rows(folder) >= at_row)
        for _ in range(1000):  # refused as long as a file is open for writing
            try:
                _command("mount", "-o", "remount,ro", str(disk))
                break
            except NotPossibleError:
                if not child.is_alive:
                    raise
        bench.must_say(child.end(), 1, str(folder), "Read-only file system")
        bench.must_say(bench.resume(folder).end(), 1, str(folder), "Read-only file system")
        bench.must_say(bench.train(disk / "other").end(), 2, "--output", "Read-only file system")
        _command("mount", "-o", "remount,rw", str(disk))
        bench.must_finish(folder)


def remove_folder(bench: Bench, moment: Moment, hook: str = "") -> None:
    """It ends with a sentence, makes the folder not anew, and writes nowhere else."""
    folder = bench.new_folder()
    child = bench.train(folder, hook=hook)
    moment(child, folder)
    away = bench.folder / "away"
    folder.rename(away)
    shutil.rmtree(away)
    bench.must_say(child.end(), 1, str(folder), "No such file or directory")
    if left := list(folder.parent.iterdir()):
        raise WrongOutcomeError(f"the folder was removed, and there is {left}")
    bench.must_stay_in_place()
    bench.must_say(bench.resume(folder).end(), 2, f"{folder}: ", "no such")


def remove_part(bench: Bench, name: str, at_row: int) -> None:
    """A part of the run vanishes: it ends right nevertheless, or with a sentence; and right when the part is back."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= at_row and (folder / name).exists())
    away = folder.with_name("away")
    (folder / name).rename(away)
    ended = child.end()
    if ended.code != 0:
        bench.must_say(ended, 1, name)
        ended = bench.resume(folder).end()
    if ended.code != 0:
        bench.must_say(ended, 2, f"{folder}: ", "no checkpoint")
        away.rename(folder / name)
        ended = bench.resume(folder).end()
    bench.must_be_done(ended)
    bench.must_be_equal(folder)


ALIENS = (
    "notes.txt",
    ".hidden",
    "photos/1.jpg",
    "0",
    "checkpoints/readme.txt",
    "checkpoints/mine/notes.txt",
    "checkpoints/.x/y",
)


def fill_with_aliens(bench: Bench, at_row: int) -> None:
    """Files that are not the program's trouble nobody, also when the run is killed and resumed, and they stay."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= at_row)
    for name in ALIENS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine", encoding="utf-8")
    child.wait_until(lambda: rows(folder) >= at_row + 10)
    child.kill()
    bench.must_finish(folder, aliens=ALIENS)


def put_in_the_way(bench: Bench, name: str, at_row: int) -> None:
    """A folder where a file should be, or a file where a folder should: set aside, or a sentence until it is away.

    A figure that cannot be drawn costs no run.
    """
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= at_row)
    alien = folder / name
    if name.startswith("checkpoints/"):
        alien.parent.mkdir(exist_ok=True)
        alien.write_text("mine", encoding="utf-8")
    else:
        alien.mkdir()
    ended = child.end()
    if ended.code == 0 and name != "curves.png":
        bench.must_be_done(ended)
        bench.must_be_equal(folder, aliens=[file for file in _files(folder) if (folder / file).read_bytes() == b"mine"])
        return
    bench.must_say(ended, 0 if name == "curves.png" else 1, name)
    alien.unlink() if alien.is_file() else alien.rmdir()
    bench.must_finish(folder)


# --- two processes


def resume_at_once(bench: Bench, processes: int) -> None:
    """One wins, the others are told, and the result is right."""
    folder = bench.new_folder()
    child = bench.train(folder)
    child.wait_until(lambda: rows(folder) >= bench.iterations // 4)
    child.kill()
    hook = held_disk(folder.with_name("gate"))
    _must_have_one_winner(bench, [bench.resume(folder, hook=hook) for _ in range(processes)], folder)


def train_at_once(bench: Bench, processes: int) -> None:
    """The same `--output`, an empty folder."""
    folder = bench.new_folder()
    folder.mkdir()
    hook = held_disk(folder.with_name("gate"))
    _must_have_one_winner(bench, [bench.train(folder, hook=hook) for _ in range(processes)], folder)


def _must_have_one_winner(bench: Bench, children: Sequence[Child], folder: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while sum(child.is_alive for child in children) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    folder.with_name("gate").touch()  # the winner was not to end before all had tried
    ends = sorted((child.end() for child in children), key=lambda ended: ended.code)
    bench.must_be_done(ends[0])
    for ended in ends[1:]:
        bench.must_say(ended, 2, str(folder))
    bench.must_be_equal(folder)


def resume_what_runs(bench: Bench) -> None:
    """A run is not to be resumed while it goes on."""
    folder = bench.new_folder()
    gate = folder.with_name("gate")
    child = bench.train(folder, hook=held_disk(gate))
    child.wait_until(lambda: rows(folder) >= 5)
    bench.must_say(bench.resume(folder).end(), 2, f"{folder}: ", "another process")
    gate.touch()
    bench.must_be_done(child.end())
    bench.must_be_equal(folder)


# --- the clock


def change_clock(bench: Bench, hook: str) -> None:
    """As if it had not been changed, also across a kill."""
    folder = bench.new_folder()
    bench.must_be_done(bench.train(folder, hook=hook).end())
    bench.must_be_equal(folder)
    folder = bench.new_folder()
    child = bench.train(folder, hook=hook)
    child.wait_until(lambda: rows(folder) >= bench.iterations // 3)
    child.kill()
    bench.must_be_done(bench.resume(folder, hook=hook).end())
    bench.must_be_equal(folder)


def jumping_clock(seed: int) -> str:
    return JUMPING_CLOCK.replace("SEED", repr(seed))


# --- all of them


@dataclass
class Table:
    """What was tried, and how it went."""

    tried: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def count(self, fault: str, error: Exception | None = None) -> None:
        self.tried[fault] += not isinstance(error, NotPossibleError)
        self.right[fault] += error is None
        if error:
            kind = "not tried" if isinstance(error, NotPossibleError) else "WRONG"
            self.notes.setdefault(fault, []).append(f"{kind}: {error or type(error).__name__}")
            print(f"{fault}: {error}", file=sys.stderr, flush=True)

    def try_fault(self, fault: str, trial: Callable[[], object]) -> None:
        try:
            trial()
        except Exception as error:  # the table must stand at the end, whatever comes
            self.count(fault, error)
        else:
            self.count(fault)

    @property
    def is_right(self) -> bool:
        return self.tried == self.right

    def __str__(self) -> str:
        names = list(dict.fromkeys([*self.tried, *self.notes]))
        width = max(map(len, names))
        lines = [f"{'fault':{width}}  tried  right"]
        for name in names:
            lines.append(f"{name:{width}}  {self.tried[name]:5}  {self.right[name]:5}")
            lines += [f"    {note}" for note in self.notes.get(name, ())]
        lines.append(f"{'together':{width}}  {self.tried.total():5}  {self.right.total():5}")
        return "\n".join(lines)


def other_trials(bench: Bench) -> list[tuple[str, Callable[[], object]]]:
    """Name and trial of every fault but kill −9."""
    dice = bench.dice
    term, ctrl_c = signal.SIGTERM, signal.SIGINT

    def at_row() -> int:
        return dice.randrange(2, int(0.8 * bench.iterations))

    trials: list[tuple[str, Callable[[], object]]] = []
    for _ in range(2):
        trials.append(("SIGTERM", partial(stop_and_resume, bench, term, at_row())))
        trials.append(("Ctrl-C", partial(stop_and_resume, bench, ctrl_c, at_row(), group=True)))
    for pair in ((ctrl_c, ctrl_c), (ctrl_c, ctrl_c), (term, ctrl_c)):
        trials.append(("second Ctrl-C while saving", partial(stop_twice, bench, *pair)))
    for name in (bench.last_checkpoint, "model.params"):
        trials.append(("Ctrl-C after the last iteration", partial(stop_at_the_end, bench, ctrl_c, name)))
    for number in (ctrl_c, ctrl_c, ctrl_c, term):
        moment = dice.uniform(0.1, 0.4) * bench.seconds
        trials.append(("signal while the program is loaded", partial(stop_before_it_begins, bench, number, moment)))
    for full in full_disks(bench):
        trials.append((f"file-size limit, {full.name}", partial(fill_disk, bench, full)))
    trials.append(("disk too small (tmpfs)", partial(fill_small_disk, bench)))
    for _ in range(2):
        trials.append(("disk filled in the middle (tmpfs)", partial(fill_disk_in_the_middle, bench, at_row())))
        trials.append(("folder made immutable (chattr)", partial(make_immutable, bench, max(6, at_row()))))
        trials.append(("file system made read-only", partial(make_read_only, bench, max(6, at_row()))))
        saving = while_saving(dice.randrange(8), dice.uniform(0, 0.1))
        trials.append(("folder removed while saving", partial(remove_folder, bench, saving, slow_disk(0.02))))
    for name in ("iterations.csv", bench.last_checkpoint, "model.params"):
        trials.append(("folder removed", partial(remove_folder, bench, as_soon_as(name), slow_disk(0.05, "/checkpoints"))))
    for name, row in (("iterations.csv", at_row()), ("metrics.jsonl", bench.iterations // 2 + 5), ("checkpoints", 6)):
        trials.append((f"{name} removed", partial(remove_part, bench, name, row)))
    for _ in range(2):
        trials.append(("alien files", partial(fill_with_aliens, bench, dice.randrange(2, bench.iterations // 2))))
    in_the_way = ("model.params", "curves.png", "summary.json", "metrics.jsonl", f"checkpoints/{bench.iterations // 2:08}")
    for name in in_the_way:
        trials.append(("alien in the way of a file", partial(put_in_the_way, bench, name, 3)))
    trials.append(("two resumed at once", partial(resume_at_once, bench, 2)))
    trials.append(("three trained into one folder at once", partial(train_at_once, bench, 3)))
    trials.append(("resumed while it runs", partial(resume_what_runs, bench)))
    trials.append(("clock that jumps by ±1e9 s", partial(change_clock, bench, jumping_clock(dice.randrange(1000)))))
    trials.append(("clock at 1970", partial(change_clock, bench, CLOCK_AT_ZERO)))
    return trials


def main() -> int:
    """Tries every fault; 1 if any outcome was wrong."""
    parser = argparse.ArgumentParser(description="Disturbs real runs in every way, and looks at what becomes of them.")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which the faults strike (default: 0)")
    parser.add_argument("--only", default="", help="only faults whose name holds this")
    arguments = parser.parse_args()
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
        if table.is_right:
            shutil.rmtree(folder)
        else:
            print(f"What went wrong is in {folder}", file=sys.stderr)
    print(table)
    print(f"{time.monotonic() - started:.0f} s, seed {arguments.seed}")
    return 0 if table.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
