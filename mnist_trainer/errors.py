"""Errors, exit codes, and collecting problems. `cli` prints the errors and returns the exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130


class RequestError(ValueError):
    """A wrong request: flag, key, file or installation. Exit code 2.

    Raised before anything is written.

    Args:
        problems: A message for each problem that was found.

    Attributes:
        problems: The same messages.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Collect the problems that the code within raises.

    Args:
        problems: Where the problems of a RequestError are added. The error itself is suppressed.
    """
    try:
        yield
    except RequestError as error:
        problems += error.problems


class RunError(RuntimeError):
    """A run that began and failed. Exit code 1."""


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
