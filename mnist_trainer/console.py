"""Prints messages and results, and formats values and tables for them.

Nothing else prints. Text may come from others, so control characters and Markdown's markup in it are escaped here.
"""

import re
import shutil
import sys
from collections.abc import Sequence
from typing import Any, TextIO


def _escape_of(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# A terminal would execute or hide these characters: C0 except for newlines, DEL, C1, the bidirectional controls, the separators
# of lines and paragraphs, and invisible ones, with which two names look the same.
_CONTROL_CODES = (
    *(code for code in range(0x20) if code != ord("\n")),
    *range(0x7F, 0xA0),
    *(0x00AD, 0x061C, 0x180E, 0x200B, 0x200E, 0x200F),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    *(0xFEFF, 0xFFF9, 0xFFFA, 0xFFFB, 0xE0001),
    *range(0xE0020, 0xE0080),
)
_ESCAPES = {code: _escape_of(code) for code in _CONTROL_CODES}

# What Markdown may take for markup. An underscore between letters or digits is none.
_MARKUP = re.compile(
    r"""[\\`*\[\]<>&~\#$]
    | (?<![^\W_])(?<!_)_++ | (?<!_)_++(?![^\W_])  # a run of underscores that is not within a word
    | (?<=www)\. | :(?=//)                       # addresses, from which GitHub makes links
    | \A[-+](?=[-\s]|\Z)                         # the beginning of a list, or a line
    """,
    re.VERBOSE | re.IGNORECASE,
)

_MAX_MESSAGE = 5000  # characters. A name of a stranger can have millions

Table = list[tuple[str, ...]]
"""Rows with the same number of cells; the first row holds the headings."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> counted(1, "epoch"), counted(1000, "epoch")
        ('1 epoch', '1,000 epochs')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def terminal_width() -> int | None:
    """Return the number of columns of the terminal, or None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def in_columns(table: Sequence[Sequence[str]], max_width: int | None = None) -> list[str]:
    """Return the lines of a table with aligned columns.

    Args:
        table: Rows with the same number of cells. The first column is left-aligned, the others right-aligned.
        max_width: The maximum number of characters in a line. A table that is wider is printed as several tables, one below
            the other, each with the first column. None for no limit.
    """
    first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
    if max_width is not None and first + sum(width + 2 for width in others) > max_width:
        used, count = first, 0
        while count < len(others) and (count == 0 or used + others[count] + 2 <= max_width):
            used += others[count] + 2
            count += 1
        if count < len(others):
            rest = [(row[0], *row[1 + count :]) for row in table]
            return [*in_columns([row[: 1 + count] for row in table]), "", *in_columns(rest, max_width)]
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))]).rstrip()
        for row in table
    ]


def in_markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        table: Rows with the same number of cells, which are Markdown: `as_markdown` of any text.
    """
    headings, *rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    return [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]


def as_markdown(text: str) -> str:
    """Return Markdown that is rendered as the text itself, for a paragraph, a heading, an item of a list or a cell of a table.

    Ordinary names stay as they are. GitHub makes a link of an e-mail address in any case.

    Args:
        text: Any text. Line breaks are escaped too.
    """
    escaped = _MARKUP.sub(lambda match: "".join(f"\\{character}" for character in match[0]), in_one_line(text).strip())
    return re.sub(r"\A(\d{1,9})([.)])(?=\s|\Z)", r"\1\\\2", escaped)  # not a numbered list


def as_code_block(text: str) -> list[str]:
    """Return the lines of a Markdown code block with the text. A blank line must precede them."""
    return [f"    {line}" for line in printable(text).split("\n")]


def printable(text: str) -> str:
    r"""Return a text with control characters, except for newlines, and surrogates as escapes such as `\x1b` or `\u202e`."""
    return text.encode(errors="backslashreplace").decode().translate(_ESCAPES)


def in_one_line(text: str) -> str:
    r"""Return a text with control characters as escapes, and with `\n` for a newline."""
    return printable(text).replace("\n", "\\n")


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
    _print("mnist-trainer: " + shortened(sentence.rstrip("\n").replace("\n", " "), _MAX_MESSAGE), sys.stderr)


def print_lines(*lines: str) -> None:
    """Print lines of the results of a command on stdout, above any progress bar.

    Args:
        lines: The lines. A newline within a line is escaped, because it comes from a name.
    """
    for line in lines:
        _print(line, sys.stdout)
    sys.stdout.flush()


def _print(line: str, stream: TextIO) -> None:
    line = in_one_line(line)
    if tqdm := sys.modules.get("tqdm"):  # if it is not loaded, there is no bar
        tqdm.tqdm.write(line, file=stream)
    else:
        stream.write(f"{line}\n")


class Console:
    """Prints the results of a command on stdout, and messages on stderr.

    Args:
        is_quiet: True to print no progress bars and notes.
    """

    def __init__(self, is_quiet: bool = False) -> None:
        self.is_quiet = is_quiet

    def print(self, *lines: str) -> None:
        """Print lines of the results, above any progress bar."""
        print_lines(*lines)

    def say(self, *sentences: str) -> None:
        """Print messages."""
        for sentence in sentences:
            say(sentence)

    def note(self, *lines: str) -> None:
        """Print lines on stderr, unless the console is quiet."""
        for line in () if self.is_quiet else lines:
            _print(line, sys.stderr)

    def note_on_terminal(self, line: str) -> None:
        """Print a line on stderr if that is a terminal, where somebody waits for it."""
        if sys.stderr.isatty():
            self.note(line)


class SilentConsole(Console):
    """A console that prints nothing, for processes with a rank above 0."""

    def __init__(self) -> None:
        super().__init__(is_quiet=True)

    def print(self, *lines: str) -> None:
        pass

    def say(self, *sentences: str) -> None:
        pass
