"""Progress bars on stderr, and in notebooks."""

import sys
import warnings
from collections.abc import Iterator
from typing import Any

from mnist_trainer.console import in_one_line

with warnings.catch_warnings():
    # tqdm warns in every notebook, about ipywidgets if they are missing. `tqdm.auto` makes the same choice, but loads asyncio.
    warnings.simplefilter("ignore")
    from tqdm.autonotebook import tqdm


def progress_bar(
    title: str,
    total: int,
    *,
    done: int = 0,
    unit: str = "",
    is_quiet: bool = False,
    delay_seconds: float = 0,
    is_narrow: bool = False,
) -> Any:
    """Create a progress bar on stderr. It shows nothing if stderr is neither a terminal nor the output of a notebook.

    Args:
        title: The text before the bar.
        total: The number of steps.
        done: The number of steps that are already done.
        unit: The unit of large numbers, such as B for bytes. With a unit, numbers are shown as 1.5M.
        is_quiet: True to show nothing.
        delay_seconds: The time before the bar is shown.
        is_narrow: True to leave out the number of steps, for a bar with a long postfix.

    Returns:
        A tqdm bar.
    """
    state = "{elapsed}<{remaining}{postfix}"
    return tqdm(
        desc=in_one_line(title),
        total=total,
        initial=done,
        leave=False,
        disable=is_quiet or not (sys.stderr.isatty() or _is_in_notebook()),
        dynamic_ncols=True,
        unit=unit,
        unit_scale=bool(unit),
        delay=delay_seconds,
        bar_format="{desc} {percentage:3.0f}%|{bar}| " + (state if is_narrow else f"{{n_fmt}}/{{total_fmt}}{{unit}} [{state}]"),
    )


def _is_in_notebook() -> bool:
    return type(sys.stderr).__module__ == "ipykernel.iostream"


def count_with_bar(title: str, total: int, *, is_quiet: bool = False) -> Iterator[int]:
    """Yield 1, 2, …, `total`, with a progress bar if that takes more than two seconds.

    Args:
        title: The text before the bar.
        total: The last number.
        is_quiet: True to show nothing.
    """
    with progress_bar(title, total, is_quiet=is_quiet, delay_seconds=2) as bar:
        bar.iterable = range(1, total + 1)  # tqdm's own loop costs a tenth of a call of `update` for each number
        yield from bar
