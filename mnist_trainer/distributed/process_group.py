"""The interface of a group of processes that train together, and the group of a single process.

The operations are named as in `torch.distributed`. Every process of a group calls the same operations in the same order, and
each operation waits for all processes.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

from mnist_trainer.errors import Interrupted


class ProcessGroup:
    """The group of a single process, in which nothing waits. `parameter_server.WorkerGroup` is a group of several.

    As a context manager, it calls `shut_down` at the end.

    Attributes:
        rank: The number of this process, counted from 0.
        world_size: The number of processes.
        world_size_setting: The flag or variable with which the user set `world_size`, for messages.
        kvstore: The store that sums the gradients, for Gluon's Trainer.
    """

    rank = 0
    world_size = 1
    world_size_setting = ""
    kvstore: Any = "device"

    def all_reduce_sum(self, rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        """Sum rows of numbers over all processes, element by element.

        Args:
            rows: The rows of this process; at least one. All rows have the same length on all processes.

        Returns:
            The sums, in rows of the same lengths.
        """
        return list(rows)

    def all_reduce_any(self, flag: bool) -> bool:
        """Return True if `flag` is True on any process."""
        return flag

    def shared_errors(self) -> AbstractContextManager[None]:
        """Return a context manager that raises RequestError on every process if its body raises it on any process."""
        return nullcontext()

    def require_same(self, settings: Callable[[], Mapping[str, Any]]) -> None:
        """Raise RequestError on every process if their settings differ.

        Args:
            settings: Returns the settings of this process by name. A single process does not call it.
        """

    def shut_down(self) -> None:
        """Wait until all processes have called this method, then leave the group."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A process that fails does not wait for the others, which notice its end. All processes agree on an interruption.
        if kind is None or issubclass(kind, Interrupted):
            self.shut_down()


SINGLE_PROCESS = ProcessGroup()
