"""Imports the user's own code, such as a schedule or a network, by its name "module:attribute"."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def import_callable(path: str) -> Callable[..., Any]:
    """Import a function or class.

    Args:
        path: "module:attribute". The module may be in the current folder.

    Raises:
        ValueError: It cannot be imported or called. The message has the reason.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"{path!r} is not of the form module:attribute")
    with _current_folder_importable():
        try:
            found = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # the user's module may raise anything while it loads
            where = "; a module must be in the current folder or in an installed package"
            hint = where if isinstance(error, ModuleNotFoundError) else ""
            raise ValueError(f"{path!r} cannot be imported: {type(error).__name__}: {error}{hint}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ValueError(f"module {module_name!r} has no attribute {attribute!r}") from error
    if not callable(found):
        raise ValueError(f"{path!r} is {found!r}, which cannot be called")
    return found


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    # Unlike `python -m`, the console script does not search the current folder.
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
