"""Messages on stderr, values in messages, and tables."""

import sys
from collections.abc import Sequence
from typing import Any

Table = list[tuple[str, ...]]
"""Rows of as many cells, the headings first."""


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the cells of a column stand below each other: the first to the left, the others to the right."""
    first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))]).rstrip()
        for row in table
    ]


def in_markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    headings, *rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    return [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]


def shown(value: Any, max_length: int = 80) -> str:
    """A value in a message: as Python writes it, but never longer than so many characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write whole numbers of thousands of digits
        return "a number of thousands of digits"
    return shortened(text, max_length)


def shortened(text: str, max_length: int = 80) -> str:
    """Return a text for a message: with codes for what no stream can write, and of at most so many characters."""
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= max_length else f"{text[: max_length - 3]}…"


def say(sentence: str) -> None:
    """Tells the user, on stderr, above the progress bars that are there."""
    # A line each, also where a name or a user's exception has several.
    line = f"mnist-trainer: {' '.join(sentence.splitlines())}"
    if tqdm := sys.modules.get("tqdm"):  # without it there is no bar
        tqdm.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)


class Console:
    """Prints the results of a command on stdout, and messages on stderr.

    Args:
        is_quiet: Whether to leave out progress bars and notes.
    """

    def __init__(self, is_quiet: bool = False) -> None:
        self.is_quiet = is_quiet

    def print(self, line: str) -> None:
        """Print a line of the results, above the progress bars that are there."""
        if tqdm := sys.modules.get("tqdm"):
            tqdm.tqdm.write(line, file=sys.stdout)
        else:
            print(line)
        sys.stdout.flush()

    def say(self, sentence: str) -> None:
        """Print a message."""
        say(sentence)

    def note(self, line: str) -> None:
        """Print a line on stderr, unless the console is quiet."""
        if not self.is_quiet:
            print(line, file=sys.stderr)


class SilentConsole(Console):
    """The console of a process whose rank is above 0: it prints nothing."""

    def __init__(self) -> None:
        super().__init__(is_quiet=True)

    def print(self, line: str) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass
