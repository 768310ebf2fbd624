"""Runs the program on thousands of hostile inputs, and checks that it refuses or survives each of them.

    python tests/fuzz.py [--seed N] [--only KIND] [--cases N] [--case N]

The package `fuzzing` makes the inputs from the seed: command lines, configurations, checkpoints, parameters, pictures and
folders. A command uses each of them, in one of two long-lived processes (`fuzzing.worker`). The program must end within 20 s
with exit code 0, 1, 2 or 130 and, if it fails, with a message. It must print no traceback and no control character, change
nothing outside the folder of the case or in a folder of someone else, and need at most 1.5 GiB of memory. A command that is
refused must change nothing. Code that a folder names must not run.

The script prints a table of counts, and returns exit code 1 if any outcome is wrong. For a wrong outcome, it prints the command
that repeats the case alone and keeps its folder.
"""

import argparse
import json
import os
import random
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzzing.case import SMALL, Case, Library
from fuzzing.checkpoints import checkpoint
from fuzzing.commands import command_line
from fuzzing.configurations import configuration
from fuzzing.folders import folder_of_a_stranger
from fuzzing.parameters import parameters
from fuzzing.pictures import picture
from programs import LIMIT_SECONDS as LIMIT_OF_STARTING
from programs import REPOSITORY, new_environment

LIMIT_SECONDS = 20.0
"""Maximum duration of a case."""

MAX_PRINTED_BYTES = 16 * 2**20

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_ABOUT_MEMORY = "memory"

_WORKERS = 2

KINDS: dict[str, tuple[Callable[[Case], None], int]] = {
    "command line": (command_line, 2000),
    "configuration": (configuration, 1500),
    "checkpoint": (checkpoint, 500),
    "parameters": (parameters, 500),
    "picture": (picture, 500),
    "folder": (folder_of_a_stranger, 400),
}
"""Kind → the function that makes a case, and the number of cases."""


def make(folder: Path, library: Library, seed: int, kind: str, number: int) -> Case:
    """Make a case in a new folder."""
    case = Case(folder, random.Random(f"{seed} {kind} {number}"), number, library)
    KINDS[kind][0](case)
    return case


@dataclass(frozen=True)
class Outcome:
    """The end of a command.

    Attributes:
        code: The exit code; None if the process ended or was ended.
        stdout: What it printed.
        stderr: Its messages.
        written: The paths outside the folder of the case that it opened for writing, made, renamed or removed.
        end: The end of the process, if `code` is None.
    """

    code: int | None
    stdout: str
    stderr: str
    written: tuple[str, ...] = ()
    end: str = ""


class Worker:
    """A process that runs one command after another. It is replaced when it ends.

    Args:
        folder: The folder for its files.
        variables: Environment variables.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            name: value
            for name, value in new_environment(**variables).items()
            if not name.startswith(("MNIST_TRAINER_", "DMLC_", "MXNET_"))
        }
        tests = str(Path(__file__).parent)
        self._environment = environment | {
            "PYTHONPATH": f"{environment['PYTHONPATH']}:{tests}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "MPLCONFIGDIR": str(folder / "matplotlib"),
            "HOME": str(folder),
            "TMPDIR": str(folder),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self) -> "subprocess.Popen[bytes]":
        with (self.folder / "crashes").open("wb") as crashes:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / "fuzzing" / "worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=crashes,
                env=self._environment,
                start_new_session=True,
            )
        self._process = process
        if not self._answer(process, LIMIT_OF_STARTING):
            raise RuntimeError(f"the worker does not start: {(self.folder / 'crashes').read_text(encoding='utf-8')}")
        return process

    def _answer(self, process: "subprocess.Popen[bytes]", seconds: float) -> bytes:
        """Return the next line that the process writes; b"" if it ends or does not answer in time."""
        assert process.stdout
        readable, _, _ = select.select([process.stdout], [], [], seconds)
        return process.stdout.readline() if readable else b""

    def run(self, case: Case) -> Outcome:
        """Run the command of a case."""
        return self.run_command(
            case.arguments, case.cwd, str(case.stdin), [str(path) for path in case.pictures], case.may_be_long
        )

    def run_command(
        self,
        arguments: Iterable[str],
        cwd: Path,
        stdin: str = os.devnull,
        pictures: Iterable[str] = (),
        may_be_long: bool = False,
        seconds: float | None = None,
    ) -> Outcome:
        """Run a command; see `fuzzing.worker`."""
        process = self._process or self._start()
        request = {
            "arguments": list(arguments),
            "folder": str(cwd),
            "stdin": stdin,
            "pictures": list(pictures),
            "may_be_long": may_be_long,
        }
        assert process.stdin
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        line = self._answer(process, seconds or LIMIT_SECONDS)
        answer: dict[str, Any] = json.loads(line) if line else {"code": None, "written": (), "end": self._end(process)}
        stdout, stderr = (_text(cwd.parent / name) for name in ("stdout", "stderr"))
        return Outcome(answer["code"], stdout, stderr, tuple(answer["written"]), answer.get("end", ""))

    def _end(self, process: "subprocess.Popen[bytes]") -> str:
        """End a process that has not answered, and describe its end, with the lines of the program that it was running."""
        try:
            end = f"the process has ended with the code {process.wait(1)}"
        except subprocess.TimeoutExpired:
            end = f"no end within {LIMIT_SECONDS:.0f} s"
            process.send_signal(signal.SIGABRT)  # prints where it is
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
        self.close()
        return f"{end}: {(self.folder / 'crashes').read_text(encoding='utf-8', errors='replace')[-3000:]}"

    def close(self) -> None:
        """End the process, and the processes that it has started."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_PRINTED_BYTES + 1).decode(errors="replace")
    except FileNotFoundError:
        return ""


# --- checks


def contents(folder: Path, with_bytes: bool = False) -> dict[str, tuple[Any, ...]]:
    """Return the path of each entry below a folder, with its kind, size, time and target.

    Args:
        folder: The folder.
        with_bytes: True to add the bytes of small files.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for name, folders, files in os.walk(folder):
        for entry in (*folders, *files):
            path = Path(name, entry)
            about = path.lstat()
            target = os.readlink(path) if path.is_symlink() else ""  # noqa: PTH115
            size = 0 if entry in folders else about.st_size
            time_ = 0 if entry in folders and not with_bytes else about.st_mtime_ns
            content = b""
            if with_bytes and about.st_size < 2**20 and (about.st_mode & 0o170000) == 0o100000:
                content = path.read_bytes()
            found[str(path.relative_to(folder))] = (about.st_mode, size, time_, target, content)
    return found


def problems(case: Case, outcome: Outcome, before: "Before") -> Iterator[str]:
    """Yield a sentence for each wrong thing in the outcome of a case."""
    printed = outcome.stdout + outcome.stderr
    if outcome.code is None:
        yield outcome.end
    elif outcome.code not in (0, 1, 2, 130):
        yield f"exit code {outcome.code}"
    # Python itself prints and ignores an interruption within a callback of its garbage collection.
    is_pythons = case.may_be_long and "Exception ignored" in printed and "KeyboardInterrupt" in printed
    if ("Traceback (most recent call last)" in printed or "Exception ignored" in printed) and not is_pythons:
        yield "a traceback"
    messages = (
        printed if case.arguments[:1] == ["doctor"] else "".join(re.findall("^mnist-trainer: .", outcome.stderr, re.MULTILINE))
    )
    if outcome.code in (1, 2) and not messages:
        yield f"exit code {outcome.code} without a message"
    if outcome.code == 130 and not case.may_be_long and case.arguments[0] != "demo":
        yield "interrupted without a reason"
    if len(printed) > MAX_PRINTED_BYTES:
        yield f"more than {MAX_PRINTED_BYTES} bytes printed"
    if control := _CONTROL.search(printed):
        yield f"the control character {control[0]!r}"
    if _ABOUT_MEMORY in outcome.stderr and not case.is_large:
        yield "more memory than allowed"
    if outcome.written:
        yield f"written outside the folder: {outcome.written}"
    yield from _differences("the folder of someone else", before.victim, contents(case.victim, with_bytes=True))
    present = contents(case.cwd)
    for name in sorted(
        {Path(path).parts[0] for path in present.keys() - before.cwd.keys()} - {Path(path).parts[0] for path in before.cwd}
    ):
        if name not in case.named:
            yield f"the new file {name!r} in the current folder"
    if outcome.code == 2:
        yield from _differences("refused, but changed", before.cwd, present)


def _differences(what: str, before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> Iterator[str]:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        yield f"{what}: {changed[:5]}"


@dataclass(frozen=True)
class Before:
    """The entries of the folder of someone else, and of the current folder, before a command."""

    victim: dict[str, tuple[Any, ...]]
    cwd: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, case: Case) -> "Before":
        """Return the entries for a case."""
        return cls(contents(case.victim, with_bytes=True), contents(case.cwd))


# --- all cases


def make_library(worker: Worker, folder: Path) -> Library:
    """Train the genuine runs."""
    cwd = folder / "cwd"
    cwd.mkdir(parents=True)
    tiny = ("--train-images=84", "--test-images=20", "--batch-size=8", "--epochs=2", "--threads=1", "--quiet")
    saves = ("--set", "checkpoint.every_iterations=5", "--set", "checkpoint.keep=3")
    plateau = '{name = "Plateau", factor = 0.5, patience = 0, curve = {name = "Constant"}}'
    runs = {
        "finished": ("--train-images=640", "--batch-size=32", "--set", "optimizer.momentum=0.9"),
        "sgd": ("--set", "optimizer.momentum=0.9"),
        "adam": ("--set", "optimizer.name=adam", "--learning-rate=0.001"),
        "nadam": (
            "--set",
            "optimizer.name=nadam",
            "--learning-rate=0.001",
            "--set",
            f"schedule={plateau}",
            "--validation-images=20",
        ),
    }
    compare = ("compare", "quick", *SMALL, "--modes=optimizer", "--seeds=1", "--quiet")
    commands = {name: ("train", *tiny, *saves, *arguments) for name, arguments in runs.items()} | {"comparison": compare}
    for name, command in commands.items():
        outcome = worker.run_command([*command, "--output", str(folder / name)], cwd, seconds=LIMIT_OF_STARTING)
        if outcome.code != 0:
            raise RuntimeError(f"{shlex.join(command)}: {outcome}")
    stopped = [folder / name for name in ("sgd", "adam", "nadam")]
    for run in stopped:
        shutil.rmtree(sorted((run / "checkpoints").iterdir())[-1])
        for name in ("summary.json", "model.params", "curves.png"):
            (run / name).unlink()
    return Library(folder / "finished", stopped, folder / "comparison", compare)


@dataclass
class Fuzz:
    """Runs cases, and counts them.

    Attributes:
        folder: The folder of all cases.
        seed: The seed.
        library: The genuine runs.
        keeps: True to keep the folders of all cases.
        tried: Kind → number of cases.
        codes: Kind and exit code → number of cases.
        wrong: Kind → the numbers of the cases with a wrong outcome.
    """

    folder: Path
    seed: int
    library: Library
    keeps: bool = False
    tried: Counter[str] = field(default_factory=Counter)
    codes: Counter[tuple[str, int | None]] = field(default_factory=Counter)
    wrong: dict[str, list[int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def try_case(self, worker: Worker, kind: str, number: int) -> list[str]:
        """Run a case, and return a sentence for each wrong thing."""
        folder = worker.folder / f"{kind} {number}"
        case = make(folder, self.library, self.seed, kind, number)
        before = Before.of(case)
        started = time.monotonic()
        outcome = worker.run(case)
        seconds = time.monotonic() - started
        found = list(problems(case, outcome, before))
        with self._lock:
            self.tried[kind] += 1
            self.codes[kind, outcome.code] += 1
            if found:
                self.wrong.setdefault(kind, []).append(number)
            if found or self.keeps:
                print(_report(self.seed, kind, case, outcome, found, seconds), file=sys.stderr, flush=True)
        if not self.keeps:
            remove(folder)
        return found

    def __str__(self) -> str:
        width = max(map(len, KINDS))
        lines = [f"{'kind':{width}}  tried  refused  failed  wrong"]
        for kind, tried in self.tried.items():
            refused, failed = self.codes[kind, 2], self.codes[kind, 1]
            lines.append(f"{kind:{width}}  {tried:5}  {refused:7}  {failed:6}  {len(self.wrong.get(kind, ())):5}")
        return "\n".join(lines)


def _report(seed: int, kind: str, case: Case, outcome: Outcome, found: list[str], seconds: float) -> str:
    command = f"python tests/fuzz.py --seed {seed} --only {shlex.quote(kind)} --case {case.number}"
    words = " ".join(ascii(word if len(word) < 100 else f"{word[:100]}…") for word in case.arguments)
    last = ascii("\n".join(outcome.stderr.strip().splitlines()[-3:])[-600:])
    return "\n".join(
        [
            f"{kind} {case.number} ({', '.join(case.alterations)}): exit code {outcome.code}, {seconds:.1f} s",
            f"    {words}",
            f"    stderr: {last}",
            *(f"    WRONG: {sentence}" for sentence in found),
            *([f"    repeat: {command}"] if found else []),
        ]
    )


def remove(folder: Path) -> None:
    """Remove the folder of a case, with entries that cannot be read or written."""
    for name, folders, _ in os.walk(folder):
        for entry in folders:
            if not Path(name, entry).is_symlink():
                Path(name, entry).chmod(0o700)
    shutil.rmtree(folder)


@contextmanager
def workers(folder: Path, count: int = _WORKERS) -> Iterator[list[Worker]]:
    """Yield workers, and end them."""
    found = [Worker(folder / f"worker {number}") for number in range(count)]
    try:
        yield found
    finally:
        for worker in found:
            worker.close()


def run_all(fuzz: Fuzz, found: list[Worker], numbers: Iterable[tuple[str, int]]) -> None:
    """Run the cases with these kinds and numbers."""
    waiting, lock = iter(list(numbers)), threading.Lock()

    def work(worker: Worker) -> None:
        while True:
            with lock:
                case = next(waiting, None)
            if case is None:
                return
            fuzz.try_case(worker, *case)

    with ThreadPoolExecutor(len(found)) as pool:
        for result in [pool.submit(work, worker) for worker in found]:
            result.result()


def main() -> int:
    """Run all cases. Return exit code 1 if any outcome is wrong."""
    parser = argparse.ArgumentParser(description="Run the program on hostile inputs and check the outcomes.")
    parser.add_argument("--seed", type=int, default=0, help="seed for the alterations (default: %(default)s)")
    parser.add_argument("--only", choices=KINDS, metavar="KIND", help=f"one of: {', '.join(KINDS)}")
    parser.add_argument("--cases", type=int, metavar="N", help="number of cases of each kind")
    parser.add_argument("--case", type=int, metavar="N", help="run only this case, and keep its folder")
    arguments = parser.parse_args()
    if arguments.case is not None and not arguments.only:
        parser.error("--case: also give --only")
    kinds = [arguments.only] if arguments.only else list(KINDS)
    if arguments.case is None:
        numbers = [(kind, number) for kind in kinds for number in range(arguments.cases or KINDS[kind][1])]
    else:
        numbers = [(kinds[0], arguments.case)]
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="fuzz."))
    try:
        with workers(folder, min(_WORKERS, len(numbers))) as found:
            library = make_library(found[0], folder / "library")
            fuzz = Fuzz(folder, arguments.seed, library, keeps=arguments.case is not None)
            run_all(fuzz, found, numbers)
    finally:
        if arguments.case is None:
            remove(folder)
        else:
            print(f"the folder of the case is below {folder}", file=sys.stderr)
    print(fuzz)
    print(f"{time.monotonic() - started:.0f} s, seed {arguments.seed}")
    return 1 if fuzz.wrong else 0


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    sys.exit(main())
