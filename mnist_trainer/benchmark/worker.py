"""An implementation's process from within: what it is told, when it is its turn, and how it reports.

Standard library only: the interpreter may be another than this program's, without MXNet.
The process is started as `python -m mnist_trainer.benchmark.worker`, takes a task as one line of JSON on stdin and then a line
for each turn, and answers each with a line of JSON on what was stdout. Between two turns it waits at the pipe.
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
    """What a worker is told.

    name: what it is called in messages and tables.
    module: the module of `mnist_trainer.benchmark` whose `run(task, turns)` it calls.
    epochs: how many epochs there will be at most.
    settings: what only this module reads; values as JSON has them.
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
        return json.dumps(asdict(self))


class EndOfTurns(BaseException):
    """There will be no further turn. No Exception, so that nothing on the way takes it for a failure."""


class Turns:
    """An implementation's view of its turns: it waits for one, does its work, and tells what it measured with the next wait."""

    def __init__(self, requests: TextIO, replies: TextIO) -> None:
        self._requests = requests
        self._replies = replies
        self._used = _processor_seconds()

    def wait(self, measured: Mapping[str, Any] | None = None) -> None:
        """Reports what the turn that ends has measured, and waits for the next. Raises EndOfTurns when there is none.

        measured: None at the beginning, when nothing is to be reported but that the worker is ready.
        """
        user, system = (now - before for now, before in zip(_processor_seconds(), self._used, strict=True))
        self.reply({"measured": dict(measured or {}) | {"user_seconds": user, "system_seconds": system}})
        if self._requests.readline() != GO:
            raise EndOfTurns
        self._used = _processor_seconds()

    def reply(self, content: Mapping[str, Any]) -> None:
        self._replies.write(json.dumps(content) + "\n")
        self._replies.flush()


def take_turns(turns: Turns, train_epoch: Callable[[], float], count_correct: Callable[[], tuple[int, float]]) -> None:
    """An epoch and then an evaluation each turn, for implementations that have a function for each.

    train_epoch: returns the seconds it took, the device synchronised before and after.
    count_correct: returns the number of test images that are right, and the seconds it took.
    """
    measured: dict[str, Any] | None = None
    while True:
        turns.wait(measured)
        train_seconds = train_epoch()
        correct, test_seconds = count_correct()
        measured = {"train_seconds": train_seconds, "test_seconds": test_seconds, "correct": correct}


def _processor_seconds() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def main() -> int:
    # Nothing that a library prints may come between the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    turns = Turns(sys.stdin, replies)
    try:
        task = Task(**json.loads(sys.stdin.readline()))
        module = importlib.import_module(f"mnist_trainer.benchmark.{task.module}")
        module.run(task, turns)
    except (EndOfTurns, KeyboardInterrupt, BrokenPipeError):
        pass
    except BaseException as error:
        traceback.print_exc()
        turns.reply({"failed": _in_one_line(error)})
        return 1
    # Libraries that tidy up threads at exit sometimes hang; nothing is left to be written.
    os._exit(0)


def _in_one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, RequestError | RunError):
        return "; ".join(lines)
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
