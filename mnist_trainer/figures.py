"""Draws figures into folders of results. A figure that fails is reported and does not stop the program.

`plots` makes the figures. It is imported only when a figure is drawn, because the import of matplotlib may fail.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from mnist_trainer.console import say
from mnist_trainer.run_folder import RunFolder

FORMATS = ("png", "pdf", "svg", "jpg")
"""File name extensions of the formats of figures."""


def draw(folder: RunFolder, name: str, make: Callable[[ModuleType], Any], later: str) -> bool:
    """Draw a figure into a folder, and report a failure on stderr.

    Args:
        folder: The folder of the figure.
        name: The name of its PNG file. If the figure cannot be drawn, an older file is removed, because it shows other results.
        make: Makes the figure, given the module `plots`.
        later: The last part of the message: a way to draw the figure later.

    Returns:
        True if the figure was drawn; False if it failed, or if this process does not write to the folder.
    """
    if not folder.is_written:
        return False
    try:
        from mnist_trainer import plots

        folder.write_bytes(name, plots.png_of(make(plots)))
    except Exception as error:  # matplotlib raises exceptions of any kind
        with suppress(OSError):
            folder.remove(name)
        with suppress(OSError):  # stderr may be a file on the same full disk
            say(f"{folder / name}: the figure cannot be drawn ({why(error, folder / name)}); {later}")
        return False
    return True


def why(error: Exception, path: Path | None = None) -> str:
    """Return the reason why a figure cannot be drawn, for a message.

    Args:
        error: The exception.
        path: The path of the figure, which the message already has.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename in (None, str(path)) else f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
