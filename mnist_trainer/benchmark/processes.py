"""The processes that are measured, from without: what they find, how one is asked in turn, and that all of them end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark.worker import GO, Task
from mnist_trainer.errors import RunError
from mnist_trainer.runtime.processes import end_group

_PACKAGE = Path(__file__).resolve().parents[1]

_SECONDS_TO_LEAVE = 5


class Worker:
    """A process that waits until it is asked; made by `worker_running`."""

    def __init__(self, task: Task, process: "subprocess.Popen[str]", errors: Path) -> None:
        self.task = task
        self.process = process
        self._errors = errors

    def take_turn(self) -> dict[str, Any]:
        """What the next turn measured. Raises RunError, a sentence, when the process fails or dies."""
        self._send(GO)
        return self.read_answer()

    def start(self) -> None:
        """Tells it its task; `read_answer` then waits until it is ready."""
        self._send(self.task.to_json() + "\n")

    def read_answer(self) -> dict[str, Any]:
        """What the process says next. Waits for it."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise RunError(f"{self.task.name} {self._how_it_ended(line)}") from error
        if "failed" in answer:
            raise RunError(f"{self.task.name} failed: {answer['failed']}")
        measured: dict[str, Any] = answer["measured"]
        return measured

    def _send(self, line: str) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has died, which reading its answer will tell
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _how_it_ended(self, line: str) -> str:
        if line:
            return f"answered {line.strip()!r}, which is no measurement"
        code = self.process.wait(_SECONDS_TO_LEAVE)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = [
            line.strip() for line in self._errors.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        return f"{how} in the middle of its turn{f'; the last it said was: {said[-1]}' if said else ''}"


@contextlib.contextmanager
def environment_of_processes(threads: int) -> Iterator[dict[str, str]]:
    """The environment variables of a process that is measured: its threads, this package, and a scratch folder, `TMPDIR`.

    The scratch folder is gone afterwards: a process that is killed leaves nothing behind.
    """
    with tempfile.TemporaryDirectory(prefix="mnist-trainer-benchmark-") as scratch:
        # The package alone: beside it, when it is installed, are all packages of this interpreter, and on PYTHONPATH they
        # would come before those of the interpreter that is started, and even before its standard library.
        alone = Path(scratch) / "path"
        alone.mkdir()
        (alone / _PACKAGE.name).symlink_to(_PACKAGE, target_is_directory=True)
        paths = [str(alone), *filter(None, [os.environ.get("PYTHONPATH")])]
        yield os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": scratch}


@contextlib.contextmanager
def worker_running(task: Task, python: str = sys.executable) -> Iterator[Worker]:
    """A worker that has been told its task, in a process group of its own, which is gone afterwards.

    python: the interpreter; it need have nothing of this program but what the task's module imports.
    """
    with environment_of_processes(task.threads) as environment:
        errors = Path(environment["TMPDIR"]) / "stderr.txt"
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [python, "-P", "-m", "mnist_trainer.benchmark.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is ours to answer, and its children end with it
            )
        worker = Worker(task, process, errors)
        try:
            worker.start()
            yield worker
        finally:
            end_group(process)
