"""Prints messages and results, and formats values and tables for them."""

import sys
from collections.abc import Sequence
from typing import Any

Table = list[tuple[str, ...]]
"""Rows with the same number of cells; the first row holds the headings."""


def in_columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with aligned columns.

    Args:
        table: Rows with the same number of cells. The first column is left-aligned, the others right-aligned.
    """
    first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))]).rstrip()
        for row in table
    ]


def in_markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    headings, *rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    return [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]


def shown(value: Any, max_length: int = 80) -> str:
    """Return the repr of a value, shortened for a message.

    Args:
        value: Any value.
        max_length: The maximum number of characters.
    """
    try:
        text = repr(value)
    except ValueError:  # Python does not convert whole numbers of thousands of digits to text
        return "a number of thousands of digits"
    return shortened(text, max_length)


def shortened(text: str, max_length: int = 80) -> str:
    """Return a text, shortened for a message.

    Args:
        text: Any text. Characters that cannot be encoded are replaced by their codes.
        max_length: The maximum number of characters.
    """
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def say(sentence: str) -> None:
    """Print a message on stderr, above any progress bar."""
    # A message is one line, even if a name or a user's exception in it has several.
    line = f"mnist-trainer: {' '.join(sentence.splitlines())}"
    if tqdm := sys.modules.get("tqdm"):  # if it is not loaded, there is no bar
        tqdm.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)


class Console:
    """Prints the results of a command on stdout, and messages on stderr.

    Args:
        is_quiet: True to print no progress bars and notes.
    """

    def __init__(self, is_quiet: bool = False) -> None:
        self.is_quiet = is_quiet

    def print(self, line: str) -> None:
        """Print a line of the results, above any progress bar."""
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
    """A console that prints nothing, for processes with a rank above 0."""

    def __init__(self) -> None:
        super().__init__(is_quiet=True)

    def print(self, line: str) -> None:
        pass

    def say(self, sentence: str) -> None:
        pass
