"""Rows of cells as lines: for a terminal, and in Markdown."""

from collections.abc import Sequence

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
