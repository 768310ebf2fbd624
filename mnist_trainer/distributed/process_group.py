"""The processes that train together, and the group of a process alone.

The operations have the names that `torch.distributed` gives them. Every process of a group calls the same ones in the same
order, and waits for the others in each.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

from mnist_trainer.errors import Interrupted


class ProcessGroup:
    """The group of a process alone, in which nothing waits; `parameter_server.WorkerGroup` has several.

    As a context manager it waits at the end until all have come there.

    Attributes:
        rank: The number of this process, counted from 0.
        world_size: The number of processes.
        world_size_setting: The user's setting of `world_size`, for messages.
        kvstore: The store that sums the gradients, for Gluon's Trainer.
    """

    rank = 0
    world_size = 1
    world_size_setting = ""
    kvstore: Any = "device"

    def all_reduce_sum(self, rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        """Return rows of numbers, each number added to those that the other processes have in its place."""
        return list(rows)

    def all_reduce_any(self, flag: bool) -> bool:
        """Return whether the flag is set on any process."""
        return flag

    def shared_errors(self) -> AbstractContextManager[None]:
        """Return a context manager that raises a RequestError on every process if its body raises one on any."""
        return nullcontext()

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Raise RequestError on every process when their settings differ."""

    def shut_down(self) -> None:
        """Wait until all processes have called this, and leave the group."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A process that fails ends without the others, which notice; all agree on an interruption.
        if kind is None or issubclass(kind, Interrupted):
            self.shut_down()


SINGLE_PROCESS = ProcessGroup()
