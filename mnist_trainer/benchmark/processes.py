"""Starts and ends the worker processes, and requests their rounds. `worker` is the code inside such a process."""

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
from mnist_trainer.runtime.processes import end_group, end_with_parent, how_it_ended

_PACKAGE = Path(__file__).resolve().parents[1]

_SECONDS_TO_LEAVE = 5


class Worker:
    """A process that measures a round on request; made by `worker_running`."""

    def __init__(self, task: Task, process: "subprocess.Popen[str]", errors: Path) -> None:
        self.task = task
        self.process = process
        self._errors = errors
        self._send(task.to_json() + "\n")

    def wait_until_ready(self) -> None:
        """Wait until the worker is ready for its first round. Raise RunError if its process fails or dies."""
        self._read_answer()

    def run_round(self) -> dict[str, Any]:
        """Run the next round and return its measurement. Raise RunError if the process fails or dies."""
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
        with contextlib.suppress(BrokenPipeError):  # the process has died, which reading its answer reports
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _how_it_ended(self) -> str:
        code = self.process.wait(_SECONDS_TO_LEAVE)
        return how_it_ended(code, self._errors.read_text(encoding="utf-8", errors="replace").splitlines())


@contextlib.contextmanager
def environment_of_processes(threads: int) -> Iterator[dict[str, str]]:
    """Provide the environment variables of a worker, with its number of threads, this package, and a scratch folder `TMPDIR`.

    The scratch folder is removed afterwards, so a killed process leaves no files behind.
    """
    with tempfile.TemporaryDirectory(prefix="mnist-trainer-benchmark-") as scratch:
        # A folder with a link to this package alone. If the package is installed, its own folder also holds all packages of
        # this interpreter. On PYTHONPATH they would precede the packages and the standard library of the other interpreter.
        alone = Path(scratch) / "path"
        alone.mkdir()
        (alone / _PACKAGE.name).symlink_to(_PACKAGE, target_is_directory=True)
        paths = [str(alone), *filter(None, [os.environ.get("PYTHONPATH")])]
        yield os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": scratch}


@contextlib.contextmanager
def worker_running(task: Task, python: str = sys.executable) -> Iterator[Worker]:
    """Start a worker in its own process group, and end the group afterwards.

    Args:
        task: The worker's task.
        python: The interpreter. It needs only the packages that the task's module imports.
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
                start_new_session=True,  # so that Ctrl-C reaches this process alone, and the worker's children end with it
                preexec_fn=end_with_parent(signal.SIGKILL),  # in the middle of a round, it would not notice
            )
        try:
            yield Worker(task, process, errors)
        finally:
            end_group(process)
