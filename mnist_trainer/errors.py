"""Errors, exit codes, and the collection of problems. `cli` prints the errors and returns the exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130


class RequestError(ValueError):
    """A wrong request, such as a wrong flag, key, file or installation. Exit code 2.

    It is raised before anything is written.

    Args:
        problems: A message for each problem.

    Attributes:
        problems: The same messages.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Suppress a RequestError of the code within, and collect its problems.

    Args:
        problems: The list to which the problems are added.
    """
    try:
        yield
    except RequestError as error:
        problems += error.problems


class RunError(RuntimeError):
    """A run that failed after it began. Exit code 1."""


class Interrupted(Exception):  # noqa: N818 - a requested stop is not an error
    """A run that was stopped on request and is saved. Exit code 130.

    Args:
        iteration: The last iteration, which is completed and saved.
        message: The message for the user; "" if another process reports the interruption; None for the default.

    Attributes:
        iteration: The last iteration.
    """

    def __init__(self, iteration: int, message: str | None = None) -> None:
        super().__init__(f"interrupted after iteration {iteration}" if message is None else message)
        self.iteration = iteration
