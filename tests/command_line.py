"""The program in the tests' own process: its exit code, what it prints, and that it left nothing behind."""

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

from mnist_trainer import cli


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: str | Path) -> Outcome:
    """`mnist-trainer ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse leaves so after --help
            code = end.code if isinstance(end.code, int) else -1
    return Outcome(code, out.getvalue(), err.getvalue())


def refused(*arguments: str | Path) -> list[str]:
    """The sentences of a request that must be refused, without the program's name."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    lines = err.splitlines()
    assert lines
    for line in lines:
        assert line.startswith("mnist-trainer: ")
    return [line.removeprefix("mnist-trainer: ") for line in lines]


def content(folder: Path) -> dict[str, bytes | None]:
    """All that lies below a folder: path → bytes, None for what is no file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_names(message: str, *words: str) -> None:
    """Assert that a message begins with the first of these words, the flag, key or file, and names the others."""
    assert message.removeprefix("mnist-trainer: ").startswith(words[:1]), message
    for word in words[1:]:
        assert word in message, f"{word!r} is not in: {message}"
