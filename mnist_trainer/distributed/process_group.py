"""The processes that train together, and the group of a process alone."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Team:
    """Who trains together, each on its part of each batch. This one is a process alone."""

    rank = 0
    size = 1
    size_spelling = ""  # where `size` comes from, as the user spelled it
    kvstore: Any = "device"  # what sums the gradients; see `create_trainer`

    def sums(self, rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
        """Rows of numbers, each number added to those that the others have in its place; everybody gets the same."""
        return list(rows)

    def agrees(self, wish: bool) -> bool:
        """Whether anybody has this wish; everybody gets the same answer."""
        return wish

    def together(self) -> AbstractContextManager[None]:
        """Within it, a request that one has to refuse is refused by all."""
        return nullcontext()

    def refuse_differences(self, asked_for: Mapping[str, Any]) -> None:
        """Raises RequestError when not everybody has been asked for the same."""

    def leave(self) -> None:
        """Returns when all have come to the end."""


ALONE = Team()
