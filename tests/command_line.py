"""Runs the program in the process of the tests, and checks its exit code, its output and the files that it leaves."""

import argparse
import contextlib
import io
from pathlib import Path
from typing import NamedTuple

from mnist_trainer import cli


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def parsers() -> dict[str, cli._Parser]:
    """Return the parser of each command by name; the program itself has an empty name."""
    found = {"": cli._build_parser()}
    waiting = [("", found[""])]
    while waiting:
        name, parser = waiting.pop()
        parser.complete()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                below = [(f"{name} {command}".strip(), child) for command, child in action.choices.items()]
                found.update(below)
                waiting += below
    return found


def run(*arguments: str | Path) -> Outcome:
    """Run `mnist-trainer ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse raises this after --help
            code = end.code if isinstance(end.code, int) else -1
    return Outcome(code, out.getvalue(), err.getvalue())


def refused(*arguments: str | Path) -> list[str]:
    """Run a request that must be refused, and return its messages without the name of the program."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    lines = err.splitlines()
    assert lines
    for line in lines:
        assert line.startswith("mnist-trainer: ")
    return [line.removeprefix("mnist-trainer: ") for line in lines]


def content(folder: Path) -> dict[str, bytes | None]:
    """Return the paths below a folder with their bytes; None for a path that is not a file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_names(message: str, *words: str) -> None:
    """Assert that a message begins with the first of `words`, the flag, key or file, and contains the others."""
    assert message.removeprefix("mnist-trainer: ").startswith(words[:1]), message
    for word in words[1:]:
        assert word in message, f"{word!r} is not in: {message}"
