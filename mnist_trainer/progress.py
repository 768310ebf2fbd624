"""Progress bars on stderr."""

from typing import Any

from tqdm import tqdm

from mnist_trainer.console import in_one_line


def progress_bar(title: str, total: int, *, done: int = 0, unit: str = "", is_quiet: bool = False) -> Any:
    """Create a progress bar on stderr. It shows nothing if stderr is not a terminal.

    Args:
        title: The text before the bar.
        total: The number of steps.
        done: The number of steps that are already done.
        unit: The unit of large numbers, such as B for bytes. With a unit, numbers are shown as 1.5M.
        is_quiet: True to show nothing.

    Returns:
        A tqdm bar.
    """
    return tqdm(
        desc=in_one_line(title),
        total=total,
        initial=done,
        leave=False,
        disable=True if is_quiet else None,  # None disables the bar if stderr is not a terminal
        dynamic_ncols=True,
        unit=unit,
        unit_scale=bool(unit),
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]",
    )
