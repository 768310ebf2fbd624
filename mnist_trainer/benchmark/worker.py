"""The code inside a worker process: its task, its rounds and its answers. `processes` starts it.

Standard library only, because the process may run in another interpreter, without MXNet. It is started as
`python -m mnist_trainer.benchmark.worker`. It reads a task as one line of JSON on stdin, and then a line for each round. It
answers each line with a line of JSON on the original stdout. Between two rounds it waits at the pipe.
"""

import importlib
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from mnist_trainer.errors import RequestError, RunError

GO = "go\n"


@dataclass(frozen=True)
class Task:
    """The task of a worker.

    Attributes:
        name: Its name in messages.
        module: The module of `mnist_trainer.benchmark` whose `run(task, rounds)` executes it.
        data_dir: The folder of the MNIST files.
        train_images: The number of images in an epoch.
        test_images: The number of images in an evaluation.
        threads: The number of threads.
        epochs: The maximum number of rounds.
        settings: Settings of the module, with values of JSON's types.
    """

    name: str
    module: str
    data_dir: str
    train_images: int
    test_images: int
    threads: int
    epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the task as one line."""
        return json.dumps(asdict(self))


class EndOfRounds(BaseException):
    """Raised if there is no further round. Not an Exception, so that no code in between handles it as a failure."""


class Rounds:
    """The rounds of a worker. Waiting for the next round reports the measurement of the previous one."""

    def __init__(self, requests: TextIO, replies: TextIO) -> None:
        self._requests = requests
        self._replies = replies
        self._used = _processor_seconds()

    def wait(self, measured: Mapping[str, Any] | None = None) -> None:
        """Report the measurement of the previous round, and wait for the next one.

        Args:
            measured: The measurement; None before the first round, which reports that the worker is ready.

        Raises:
            EndOfRounds: There is no further round.
        """
        user, system = (now - before for now, before in zip(_processor_seconds(), self._used, strict=True))
        self.reply({"measured": dict(measured or {}) | {"user_seconds": user, "system_seconds": system}})
        if self._requests.readline() != GO:
            raise EndOfRounds
        self._used = _processor_seconds()

    def reply(self, content: Mapping[str, Any]) -> None:
        """Send a line of JSON."""
        self._replies.write(json.dumps(content) + "\n")
        self._replies.flush()


def run_rounds(rounds: Rounds, train_epoch: Callable[[], float], count_correct: Callable[[], tuple[int, float]]) -> None:
    """Train an epoch and then evaluate in each round.

    Args:
        rounds: The rounds of this worker.
        train_epoch: Trains for an epoch and returns its seconds, with the device synchronised before and after.
        count_correct: Evaluates and returns the number of correct predictions for the test images, and the seconds.
    """
    measured: dict[str, Any] | None = None
    while True:
        rounds.wait(measured)
        train_seconds = train_epoch()
        correct, test_seconds = count_correct()
        measured = {"train_seconds": train_seconds, "test_seconds": test_seconds, "correct": correct}


def _processor_seconds() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def main() -> int:
    """Execute the task that stdin describes; return the exit code."""
    # Keep the output of libraries out of the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    rounds = Rounds(sys.stdin, replies)
    try:
        task = Task(**json.loads(sys.stdin.readline()))
        module = importlib.import_module(f"mnist_trainer.benchmark.{task.module}")
        module.run(task, rounds)
    except (EndOfRounds, KeyboardInterrupt, BrokenPipeError):
        pass
    except BaseException as error:
        traceback.print_exc()
        rounds.reply({"failed": _in_one_line(error)})
        return 1
    # Libraries that end their threads at exit sometimes hang. There is nothing left to write.
    os._exit(0)


def _in_one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RequestError | RunError):
        return "; ".join(lines)
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
