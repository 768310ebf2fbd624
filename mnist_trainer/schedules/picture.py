"""A small picture of a curve for notebooks, as HTML with an SVG element. `plots` makes the figures for everything else."""

import html
from collections.abc import Sequence

from mnist_trainer.console import printable

MAX_POINTS = 800
"""Maximum number of iterations in a picture, about two per column of pixels."""

_WIDTH, _HEIGHT = 380, 110  # of the curve, in pixels
_LEFT, _TOP = 60, 10


def picture_of(text: str, quantity: str, numbers: Sequence[int], rates: Sequence[float]) -> str:
    """Return the picture of a curve, with the text of its `repr` below.

    Args:
        text: The text.
        quantity: The label of the vertical axis.
        numbers: The iterations that are drawn, in order.
        rates: Their learning rates.
    """
    last, top = numbers[-1], max(rates) or 1.0
    # A step for each iteration: its rate holds for the whole iteration, and a drop is a vertical line.
    path = [f"M0 {_y(rates[0], top)}"]
    for number, learning_rate in zip(numbers, rates, strict=True):
        path.append(f"V{_y(learning_rate, top)}H{number / last * _WIDTH:.1f}")
    labels = (
        _label(-6, 4, "end", f"{top:.4g}"),
        _label(-6, _HEIGHT + 4, "end", "0"),
        _label(0, _HEIGHT + 16, "start", "1"),
        _label(_WIDTH / 2, _HEIGHT + 16, "middle", f"{quantity} over iterations"),
        _label(_WIDTH, _HEIGHT + 16, "end", f"{last:,}"),
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{_WIDTH + _LEFT + 20}" height="{_HEIGHT + _TOP + 24}">'
        f'<g transform="translate({_LEFT} {_TOP})"><path d="M0 0V{_HEIGHT}H{_WIDTH}" fill="none" stroke="currentColor" '
        f'opacity="0.4"/><path d="{"".join(path)}" fill="none" stroke="#0072B2" stroke-width="2"/>{"".join(labels)}</g></svg>'
        f"<div>{code_of(text)}</div>"
    )


def code_of(text: str) -> str:
    """Return HTML that shows a text as code."""
    return f"<code>{html.escape(printable(text))}</code>"


def _y(learning_rate: float, top: float) -> str:
    return f"{_HEIGHT * (1 - learning_rate / top):.1f}"


def _label(x: float, y: float, anchor: str, text: str) -> str:
    style = f'font-family="sans-serif" font-size="11" fill="currentColor" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{html.escape(text)}</text>'
