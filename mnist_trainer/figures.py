"""Draws figures into folders of results, and reports one that fails: no result is lost for a figure.

`plots` makes the figures. It is loaded only when one is drawn, because the import of matplotlib may fail.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mnist_trainer.console import say
from mnist_trainer.run_folder import RunFolder

FORMATS = ("png", "pdf", "svg", "jpg")
"""Endings of the figures that can be written."""


def draw(folder: RunFolder, name: str, make: Callable[[ModuleType], Any], later: str) -> bool:
    """Draw a figure into a folder; report a failure, whatever its reason, on stderr.

    Args:
        folder: Where the figure is written.
        name: The name of its file. No file of this name is left where the figure cannot be drawn: it would show other results.
        make: Returns the figure, given the module `plots`.
        later: How the user can draw it later, as the end of a sentence.

    Returns:
        Whether the figure is there. Nothing is drawn for a folder that this process does not write.
    """
    if not folder.is_written:
        return False
    try:
        from mnist_trainer import plots

        folder.write_file(name, partial(plots.save_figure, make(plots)))
    except Exception as error:  # what matplotlib raises is of every kind
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # stderr may be a file on the same full disk
            say(f"{folder / name}: the figure cannot be drawn ({why(error, folder / name)}); {later}")
        return False
    return True


def why(error: Exception, path: Path | None = None) -> str:
    """Return the reason why a figure cannot be drawn, for a message that names its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename in (None, str(path)) else f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
