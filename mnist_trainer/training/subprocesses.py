"""Trainings in parallel, each in its own process with the command `mnist-trainer train`.

Starts, watches and stops the processes, and leaves none behind. `comparison` and `benchmark` evaluate the results.
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
from mnist_trainer.runtime.processes import end_group, end_with_parent, how_it_ended, this_program
from mnist_trainer.user_code import environment_with_folders

SECONDS_BETWEEN_LOOKS = 0.1

SECONDS_TO_SAVE = 60.0
"""Time for trainings to finish their iteration and save after a request to stop. Then they are killed."""


@dataclass(frozen=True)
class Training:
    """A training to run.

    Attributes:
        title: The name of the training in messages.
        arguments: The command line, without the program.
        folder: The run folder that the training writes.
        iterations: The number of iterations.
    """

    title: str
    arguments: tuple[str, ...]
    folder: RunFolder
    iterations: int


class Progress(NamedTuple):
    """Progress of a training.

    Attributes:
        training: The training.
        iteration: The last iteration that it has written.
    """

    training: Training
    iteration: int


class Ended(NamedTuple):
    """End of a training.

    Attributes:
        training: The training.
        problem: Its error message; None if it succeeded.
    """

    training: Training
    problem: str | None


def run_trainings(
    trainings: Iterable[Training], jobs: int, stop_requested: Callable[[], bool]
) -> Generator[Progress | Ended, None, None]:
    """Run all trainings and report their progress.

    No process is left when this ends, even if it ends by an exception or the iterator is closed. If this process is killed, or
    the thread that runs the iterator ends, the trainings save and stop.

    Args:
        trainings: The trainings, in the order in which they start.
        jobs: The maximum number of trainings in parallel.
        stop_requested: A function that is called repeatedly. Once it returns True, no further training starts, and the running
            ones save and stop. These are not reported as ended.

    Yields:
        The progress and the end of each training.
    """
    waiting = list(trainings)
    running: list[_TrainingProcess] = []
    kill_at: float | None = None
    try:
        while waiting or running:
            if kill_at is None and stop_requested():
                kill_at = time.monotonic() + SECONDS_TO_SAVE
                waiting.clear()
                for process in running:
                    process.popen.send_signal(signal.SIGTERM)
            while waiting and len(running) < jobs:
                running.append(_TrainingProcess(waiting.pop(0)))
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for process in tuple(running):
                code = process.popen.poll()
                yield Progress(process.training, process.training.folder.last_iteration())
                if code is not None:
                    running.remove(process)
                    problem = process.end(code)
                    if code == 0 or kill_at is None:
                        yield Ended(process.training, problem)
            if kill_at is not None and time.monotonic() > kill_at:
                return
    finally:
        for process in running:
            process.end()


class _TrainingProcess:
    """The process of a training. It has its own process group, so Ctrl-C in the terminal reaches only this program."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see `end`
        self.popen = subprocess.Popen(
            [*this_program(), *training.arguments],
            env=environment_with_folders(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
            preexec_fn=end_with_parent(signal.SIGHUP),  # if this process is killed, the training saves and stops
        )

    def end(self, code: int | None = None) -> str | None:
        """End the process if it is still running.

        Args:
            code: The exit code, if the process has ended by itself.

        Returns:
            The error message; None if the training has not failed.
        """
        end_group(self.popen)
        with self._errors as errors:
            errors.seek(0)
            messages = [line.removeprefix("mnist-trainer: ").strip() for line in errors if line.strip()]
        if not code:
            return None
        if code == WRONG_REQUEST and messages:
            return "; ".join(messages)
        return messages[-1] if code == FAILED and messages else f"the process {how_it_ended(code, messages)}"
