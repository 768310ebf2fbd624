"""Imports the user's own code, such as a schedule or a network, and locates its errors.

Modules are looked up in the installed packages, in the current folder, and beside the configuration that the user named. A run
folder is never searched: it may come from someone else.
"""

import importlib
import importlib.machinery
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

FOLDERS = "MNIST_TRAINER_MODULES"
"""Environment variable with the folders to search, for a process that this program starts with a copy of a configuration."""

_beside: list[str] = []  # the folders of the configurations that are in use


def search_beside(*configurations: Path) -> None:
    """Search the folders of these configurations from now on, and no longer those of others.

    Args:
        configurations: The files. A process that has the variable `FOLDERS` ignores them.
    """
    _beside[:] = [str(file.resolve().parent) for file in configurations]


def environment_with_folders() -> dict[str, str]:
    """Return the environment for a process that reads copies of this process's configurations."""
    return {**os.environ, FOLDERS: os.pathsep.join(_searched()[1:])}


def assignment_of_folders() -> str:
    """Return the words that go before a command, so that it finds the code of this process's configurations; "" for none."""
    folders = _searched()[1:]
    return f"{FOLDERS}={shlex.quote(os.pathsep.join(folders))} " if folders else ""


def _searched() -> list[str]:
    """Return the folders to search besides those of Python, the current one first."""
    given = os.environ.get(FOLDERS)
    others = _beside if given is None else given.split(os.pathsep)
    return list(dict.fromkeys([str(Path.cwd()), *filter(None, others)]))


def import_callable(path: str) -> Callable[..., Any]:
    """Import a function or class.

    Args:
        path: The name "module:attribute".

    Raises:
        ValueError: The function or class cannot be imported or called. The message has the reason.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"{path!r} is not of the form module:attribute")
    with _folders_importable():
        _refuse_another(module_name.partition(".")[0])
        try:
            found = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # the user's module may raise anything while it loads
            hint = ""
            if module_name.endswith(".py"):
                hint = f"; write {module_name.removesuffix('.py')}:{attribute}, without .py"
            elif isinstance(error, ModuleNotFoundError):
                beside = "".join(f", in {folder}" for folder in _searched()[1:])
                hint = f"; not found in the current folder{beside} or in the installed packages; name its folder in {FOLDERS}"
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


def _refuse_another(name: str) -> None:
    """Raise ValueError if a module of this name is loaded, but the search would find another one now."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    spec = importlib.machinery.PathFinder.find_spec(name) if loaded else None
    if loaded and spec and spec.origin and spec.has_location and os.path.realpath(spec.origin) != os.path.realpath(loaded):
        raise ValueError(f"module {name!r} is loaded from {loaded}, and {spec.origin} is another one; rename one of the two")


@contextmanager
def _folders_importable() -> Iterator[None]:
    # Unlike `python -m`, the console script does not search the current folder.
    folders = _searched()
    sys.path += folders
    try:
        yield
    finally:
        for folder in folders:
            sys.path.remove(folder)
