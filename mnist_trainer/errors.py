"""The ways in which the program says no or stops, the exit codes, and how a user is told; `cli` brings them together."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130


class RequestError(ValueError):
    """What was asked for cannot be done as asked: a flag, a key, a file or the installation. Exit code 2.

    Raised before anything is written. Carries every problem that was found, a sentence each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Adds what a check within refuses to the problems, and goes on."""
    try:
        yield
    except RequestError as error:
        problems += error.problems


class RunError(RuntimeError):
    """The run began and could not go on. Exit code 1."""


class Interrupted(Exception):  # noqa: N818 - no error: it was asked for
    """The run was asked to stop, and stopped where it can go on. Exit code 130.

    iteration: the last that is done and saved.
    """

    def __init__(self, iteration: int) -> None:
        super().__init__(f"interrupted after iteration {iteration}")
        self.iteration = iteration


def shown(value: Any, most: int = 80) -> str:
    """A value in a message: as Python writes it, but never longer than so many characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most - 3]}…"


def say(sentence: str) -> None:
    """Tells the user, on stderr, above the progress bars that are there."""
    # A line each, also where a name or a user's exception has several.
    line = f"mnist-trainer: {' '.join(sentence.splitlines())}"
    if tqdm := sys.modules.get("tqdm"):  # without it there is no bar
        tqdm.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)
