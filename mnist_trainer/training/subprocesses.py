"""Trainings side by side, each the command `mnist-trainer train` in a process of its own.

Knows how they are started, watched and stopped, so that none is left behind; nothing of what is compared.
"""

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import IO, NamedTuple

from mnist_trainer.errors import FAILED, WRONG_REQUEST
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime.processes import end_group, this_program

SECONDS_BETWEEN_LOOKS = 0.1

SECONDS_TO_SAVE = 60.0
"""What trainings have to end their iteration and save when all are to stop; then they are killed."""


@dataclass(frozen=True)
class Job:
    """A training. arguments: of the command line, without the program. folder: where it writes."""

    title: str
    arguments: tuple[str, ...]
    folder: RunFolder
    iterations: int


class Progress(NamedTuple):
    """So many iterations of a job are in its folder."""

    job: Job
    iteration: int


class Ended(NamedTuple):
    """A job came to its end. problem: what it said when it failed; None if it is done."""

    job: Job
    problem: str | None


def run_jobs(jobs: Iterable[Job], at_once: int, stop_requested: Callable[[], bool]) -> Generator[Progress | Ended, None, None]:
    """Runs all jobs, so many at once, and tells how they get on.

    stop_requested: asked all the time; when it says so no further job is begun, and those that run save and stop. They have not
        come to an end, and it is not told of them.

    However this ends, also when the iterator is closed, no process is left.
    """
    waiting = list(jobs)
    running: list[_Running] = []
    must_have_stopped_at: float | None = None
    try:
        while waiting or running:
            if must_have_stopped_at is None and stop_requested():
                must_have_stopped_at = time.monotonic() + SECONDS_TO_SAVE
                waiting.clear()
                for each in running:
                    each.process.send_signal(signal.SIGTERM)
            while waiting and len(running) < at_once:
                running.append(_Running(waiting.pop(0)))
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for each in tuple(running):
                code = each.process.poll()
                yield Progress(each.job, each.job.folder.last_iteration())
                if code is not None:
                    running.remove(each)
                    problem = each.end(code)
                    if code == 0 or must_have_stopped_at is None:
                        yield Ended(each.job, problem)
            if must_have_stopped_at is not None and time.monotonic() > must_have_stopped_at:
                return
    finally:
        for each in running:
            each.end()


class _Running:
    """A job's process, in a group of its own: a Ctrl-C of the terminal is answered here."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see `end`
        self.process = subprocess.Popen(
            [*this_program(), *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    def end(self, code: int | None = None) -> str | None:
        """Ends it, if it lives. Returns what went wrong where it ended by itself, with this exit code."""
        end_group(self.process)
        with self._errors as errors:
            errors.seek(0)
            said = [line.removeprefix("mnist-trainer: ").strip() for line in errors if line.strip()]
        if not code:
            return None
        last = f"; the last it said was: {said[-1]}" if said else ""
        if code < 0:
            return f"the process was ended by {_name_of_signal(-code)}{last}"
        if code == WRONG_REQUEST and said:
            return "; ".join(said)
        return said[-1] if code == FAILED and said else f"the process ended with exit code {code}{last}"


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real time have no names
        return f"signal {number}"
