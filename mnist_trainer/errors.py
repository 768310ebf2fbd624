"""The ways in which the program says no or stops, the exit codes, and how a user is told; `cli` brings them together."""

from collections.abc import Iterator
from contextlib import contextmanager

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


class Interrupted(Exception):  # noqa: N818 - not an error: it was requested
    """The run was asked to stop, and is saved. Exit code 130.

    Attributes:
        iteration: The last iteration, which is done and saved.

    Args:
        message: What the user sees; "" for nothing, where another process reports it.
    """

    def __init__(self, iteration: int, message: str | None = None) -> None:
        super().__init__(f"interrupted after iteration {iteration}" if message is None else message)
        self.iteration = iteration
