"""The processes of the implementations, from without: their environment, their rounds, and their end."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark.worker import GO, Task
from mnist_trainer.errors import RunError
from mnist_trainer.runtime.processes import end_group, how_it_ended

_PACKAGE = Path(__file__).resolve().parents[1]

_SECONDS_TO_LEAVE = 5


class Worker:
    """A process that waits for its rounds; made by `worker_running`."""

    def __init__(self, task: Task, process: "subprocess.Popen[str]", errors: Path) -> None:
        self.task = task
        self.process = process
        self._errors = errors
        self._send(task.to_json() + "\n")

    def wait_until_ready(self) -> None:
        """Return when the worker waits for its first round. Raise RunError if its process fails or dies."""
        self._read_answer()

    def run_round(self) -> dict[str, Any]:
        """Return the measurement of the next round. Raise RunError if the process fails or dies."""
        self._send(GO)
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RunError(f"{self.task.name} {self._how_it_ended()}")
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise RunError(f"{self.task.name} answered {line.strip()!r}, which is not a measurement") from error
        if "failed" in answer:
            raise RunError(f"{self.task.name} failed: {answer['failed']}")
        measured: dict[str, Any] = answer["measured"]
        return measured

    def _send(self, line: str) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # the process has died: reading its answer reports it
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _how_it_ended(self) -> str:
        code = self.process.wait(_SECONDS_TO_LEAVE)
        return how_it_ended(code, self._errors.read_text(encoding="utf-8", errors="replace").splitlines())


@contextlib.contextmanager
def environment_of_processes(threads: int) -> Iterator[dict[str, str]]:
    """Provide the environment variables of a worker: its threads, this package, and a scratch folder, `TMPDIR`.

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
    """Start a worker in a process group of its own, which is gone afterwards.

    Args:
        task: The worker's task.
        python: The interpreter. Of this program it needs only the imports of the task's module.
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
        try:
            yield Worker(task, process, errors)
        finally:
            end_group(process)
