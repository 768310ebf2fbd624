"""A run's folder: what is in it, how it is written so that nothing is half there, and how it is read.

Standard library only. `model.params` and the figures are written by those who can; their names stand here.
"""

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_trainer.errors import RequestError

CONFIG = "config.toml"
ENVIRONMENT = "environment.json"
ITERATIONS = "iterations.csv"
METRICS = "metrics.jsonl"
PARAMETERS = "model.params"
CURVES = "curves.png"
SUMMARY = "summary.json"
LR_FINDER = "lr_finder.csv"
LR_FINDER_RESULT = "lr_finder.json"
LR_FINDER_FIGURE = "lr_finder.png"

_ITERATIONS_HEADER = "iteration,learning_rate,loss\n"


class RunFolder:
    """A run folder at `path`, new or old. `summary.json` is written last: with it, the run is finished."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """Makes the folder; it may exist if it is empty. Raises RequestError."""
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"--output {path}: the name is not UTF-8, and MXNet can write no other") from error
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RequestError(f"--output {path}: the folder is not empty; choose another, or remove it first")
            with tempfile.TemporaryFile(dir=path):
                pass
        except FileExistsError as error:
            raise RequestError(f"--output {path}: the folder cannot be made; there is a file of this name") from error
        except OSError as error:
            raise RequestError(f"--output {path}: the folder cannot be written ({error.strerror})") from error
        return cls(path)

    @classmethod
    def create_below(cls, parent: Path, name: str) -> "RunFolder":
        """Makes a new folder below `parent`, named after the time and `name`. Raises RequestError."""
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}"
        for candidate in (stem, *(f"{stem}_{number}" for number in range(2, 1000))):
            try:
                (parent / candidate).mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RequestError(f"{parent}: a run folder cannot be made there ({error.strerror})") from error
            return cls.create(parent / candidate)
        raise RequestError(f"{parent}: holds a thousand runs of this second already")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder. Raises RequestError when `path` is none."""
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
            raise RequestError(f"{path}: there is no such run folder")
        if not (path / CONFIG).is_file():
            raise RequestError(f"{path}: this is not a run folder; it has no {CONFIG}")
        if (path / LR_FINDER).is_file():
            raise RequestError(f"{path}: this is the folder of a search for a learning rate, not of a run")
        return cls(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def is_finished(self) -> bool:
        return (self / SUMMARY).is_file()

    def write_text(self, name: str, text: str) -> None:
        self.write_file(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_file(self, name: str, write: Callable[[Path], object]) -> None:
        """Has `write` fill a file under a temporary name, then gives it its own: it is there whole or not at all."""
        temporary = self / f".{os.getpid()}.{name}"
        try:
            write(temporary)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())  # or the name may reach the disk before the content
            temporary.replace(self / name)
        finally:
            temporary.unlink(missing_ok=True)

    def append_iterations(self, rows: Iterable[tuple[int, float, float]]) -> None:
        """Rows (iteration, learning rate, loss); numbers as Python's repr, which reads back as the same float."""
        path = self / ITERATIONS
        header = "" if path.exists() else _ITERATIONS_HEADER
        lines = "".join(f"{iteration},{learning_rate!r},{loss!r}\n" for iteration, learning_rate, loss in rows)
        _append(path, header + lines)

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        _append(self / METRICS, json.dumps(metrics, allow_nan=False) + "\n")

    def read_iterations(self) -> list[tuple[int, float, float]]:
        """Rows (iteration, learning rate, loss), in order."""
        with (self / ITERATIONS).open(encoding="utf-8", newline="") as stream:
            return [(int(row[0]), float(row[1]), float(row[2])) for row in list(csv.reader(stream))[1:]]

    def read_metrics(self) -> list[dict[str, Any]]:
        """One object an epoch, in order."""
        return [json.loads(line) for line in (self / METRICS).read_text(encoding="utf-8").splitlines()]

    def read_summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self / SUMMARY).read_text(encoding="utf-8"))
        return content


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", newline="") as stream:
        stream.write(text)
