"""Imports the user's own code, such as a schedule or a network, and locates its errors."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any


def import_callable(path: str) -> Callable[..., Any]:
    """Import a function or class.

    Args:
        path: The name "module:attribute". The module may be in the current folder.

    Raises:
        ValueError: The function or class cannot be imported or called. The message has the reason.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"{path!r} is not of the form module:attribute")
    with _current_folder_importable():
        try:
            found = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # the user's module may raise anything while it loads
            hint = ""
            if module_name.endswith(".py"):
                hint = f"; write {module_name.removesuffix('.py')}:{attribute}, without .py"
            elif isinstance(error, ModuleNotFoundError):
                hint = "; a module must be in the current folder or in an installed package"
            reason = f"{type(error).__name__}: {error}{place_of(error, path)}"
            raise ValueError(f"{path!r} cannot be imported: {reason}{hint}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ValueError(f"module {module_name!r} has no attribute {attribute!r}") from error
    if not callable(found):
        raise ValueError(f"{path!r} is {found!r}, which cannot be called")
    return found


def place_of(error: BaseException, name: str) -> str:
    """Return the place in the user's code where an error was raised, for the end of a message.

    Args:
        error: The error.
        name: The user's code, "module:attribute" or "module".

    Returns:
        The file and the last line in the module or its package, such as " (my_schedules.py, line 7)"; "" if there is none.
    """
    package = re.split("[.:]", name)[0]
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package
    ]
    return f" ({Path(places[-1][0]).name}, line {places[-1][1]})" if places else ""


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    # Unlike `python -m`, the console script does not search the current folder.
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
