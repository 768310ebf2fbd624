"""The genuine folders and pictures from which hostile inputs are made, and a case: a command with the files that it uses."""

import os
import random
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drawn_digits import FONTS, STYLES, drawn_digits

SMALL = ("--epochs=1", "--batch-size=32", "--train-images=64", "--test-images=10", "--threads=1")
"""Flags for a run that takes a fraction of a second."""

OUTPUT = "output"


@dataclass(frozen=True)
class Library:
    """Genuine folders, from which the cases are made.

    Attributes:
        finished: A finished run.
        stopped: Runs that were stopped, with different optimizers and schedules.
        comparison: The folder of a finished comparison.
        compare: The command line that resumes the comparison, except `--output`.
    """

    finished: Path
    stopped: Sequence[Path]
    comparison: Path
    compare: Sequence[str]


@dataclass
class Case:
    """A command line, with the files that it uses.

    Attributes:
        folder: The folder of the case. Nothing outside may change.
        chance: The random generator for the details.
        number: The number of the case.
        library: The genuine folders.
        arguments: The command line, without the name of the program.
        alterations: The names of the alterations.
        named: Names in the current folder that the program may create.
        stdin: The file to read as standard input.
        pictures: The files to send to the server of `demo`.
        may_be_long: True if the command may train for a long time. It is then interrupted.
        is_large: True if a message about memory is a correct outcome.
    """

    folder: Path
    chance: random.Random
    number: int
    library: Library
    arguments: list[str] = field(default_factory=list)
    alterations: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=lambda: {"runs"})
    stdin: Path = Path(os.devnull)
    pictures: list[Path] = field(default_factory=list)
    may_be_long: bool = False
    is_large: bool = False

    def __post_init__(self) -> None:
        for name in ("cwd", "victim/their-run/2019", "victim/checkpoints/2019"):
            (self.folder / name).mkdir(parents=True)
        for name in (
            *("diary.txt", "photo.png", "their-run/2019/photo.png", "checkpoints/2019/photo.png", "their-run/iterations.csv"),
        ):
            (self.victim / name).write_text(f"theirs: {name}\n", encoding="utf-8")
        (self.victim / "link").symlink_to("diary.txt")

    @property
    def cwd(self) -> Path:
        """The current folder of the program."""
        return self.folder / "cwd"

    @property
    def victim(self) -> Path:
        """A folder of someone else, with files that the program must not touch."""
        return self.folder / "victim"

    @property
    def run(self) -> Path:
        """The run folder that the program uses."""
        return self.cwd / "run"

    def row(self, table: Sequence[Any], divisor: int = 1) -> Any:
        """Return the row of a table that belongs to this case."""
        return table[self.number // divisor % len(table)]

    def use(self, *arguments: str | Path) -> None:
        """Append to the command line. Paths are relative to the current folder."""
        for argument in arguments:
            path = (
                argument.relative_to(self.cwd) if isinstance(argument, Path) and argument.is_relative_to(self.cwd) else argument
            )
            self.arguments.append(str(path))

    def copy_finished(self) -> None:
        """Copy the finished run to `run`."""
        shutil.copytree(self.library.finished, self.run)

    def picture(self) -> Path:
        """Return a genuine picture."""
        path = self.cwd / "digit.png"
        path.write_bytes(DIGITS[3])
        return path

    def plant(self) -> str:
        """Write a module that leaves a mark in the current folder when it runs, and return the name of its function."""
        name = f"planted_{self.number}"
        mark = f"open({str(self.cwd / 'THE PLANTED CODE HAS RUN')!r}, 'w')"
        (self.cwd / f"{name}.py").write_text(f"{mark}\ndef function(*_, **__): {mark}\n", encoding="utf-8")
        return f"{name}:function"


DIGITS = [drawing.content for drawing in drawn_digits(FONTS[:1], STYLES[:1])]
"""A picture of each digit, as a PNG file."""


MODEL_COMMANDS = [
    *(("predict", "run", "digit.png"), ("evaluate", "run"), ("export", "run", "--format", "mxnet")),
    *(("train", "--resume", "run"), ("predict", "run", "digit.png", "--json", "--show")),
    *(("export", "run", "--format", "onnx"), ("demo", "run", "--port", "0")),
]


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(path.parent, os.O_RDONLY)  # the path of a socket has at most 107 bytes
        try:
            listening.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)
