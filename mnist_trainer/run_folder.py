"""A run's folder: what is in it, how it is written so that nothing is half there, and how it is read.

Standard library only. `model.params` and the figures are written by those who can; their names stand here.
"""

import csv
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from mnist_trainer.errors import RequestError

CONFIG = "config.toml"
ENVIRONMENT = "environment.json"
ITERATIONS = "iterations.csv"
METRICS = "metrics.jsonl"
PARAMETERS = "model.params"
CURVES = "curves.png"
CHECKPOINTS = "checkpoints"
SUMMARY = "summary.json"
EVALUATION = "evaluation.json"
CONFUSION_MATRIX = "confusion_matrix.png"
MISTAKES = "mistakes.png"
LR_FINDER = "lr_finder.csv"
LR_FINDER_RESULT = "lr_finder.json"
LR_FINDER_FIGURE = "lr_finder.png"

_ITERATIONS_HEADER = "iteration,learning_rate,loss\n"


class RunFolder:
    """A run folder at `path`, new or old. `summary.json` is written last: with it, the run is finished."""

    is_written = True
    """Whether this process writes into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: weakref.finalize[..., RunFolder] | None = None

    @classmethod
    def create(cls, path: Path) -> Self:
        """Makes the folder; it may exist if it is empty. Raises RequestError."""
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"--output {path}: the name is not UTF-8, and MXNet can write no other") from error
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RequestError(_not_empty(path))
            with tempfile.TemporaryFile(dir=path):
                pass
        except FileExistsError as error:
            raise RequestError(f"--output {path}: the folder cannot be made; there is a file of this name") from error
        except OSError as error:
            raise RequestError(f"--output {path}: the folder cannot be written ({error.strerror})") from error
        fsync_folder(path.parent)
        folder = cls(path)
        folder.lock()
        if any(path.iterdir()):  # another process has been faster, and is done already
            raise RequestError(_not_empty(path))
        return folder

    @classmethod
    def create_below(cls, parent: Path, name: str) -> Self:
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
    def open(cls, path: Path) -> Self:
        """An existing run folder. Raises RequestError when `path` is none."""
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
            what = "this is a file, not a run folder" if os.path.isfile(path) else "there is no such run folder"  # noqa: PTH113
            raise RequestError(f"{path}: {what}")
        if not (path / CONFIG).is_file():
            raise RequestError(f"{path}: this is not a run folder; it has no {CONFIG}")
        if (path / LR_FINDER).is_file():
            raise RequestError(f"{path}: this is the folder of a search for a learning rate, not of a run")
        files = (ENVIRONMENT, ITERATIONS, METRICS, PARAMETERS, CURVES, SUMMARY)
        problems = [f"{path / name}: this is a folder, and a run has a file here" for name in files if (path / name).is_dir()]
        if (path / CHECKPOINTS).is_file():
            problems.append(f"{path / CHECKPOINTS}: this is a file, and a run has a folder here")
        if problems:
            raise RequestError(*problems)
        return cls(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def lock(self) -> None:
        """Keeps other processes from writing here as long as this one lives. Raises RequestError if one does already."""
        if self._lock is not None:
            return
        lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however it ends
        except BlockingIOError as error:
            os.close(lock)
            raise RequestError(f"{self.path}: another process is writing to this run folder") from error
        self._lock = weakref.finalize(self, os.close, lock)  # or with this object

    def unlock(self) -> None:
        """Lets other processes write here again."""
        if self._lock is not None:
            self._lock()
            self._lock = None

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
            with file_named(self / name):
                write(temporary)
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())  # or the name may reach the disk before the content
                temporary.replace(self / name)
                fsync_folder(self.path)
        finally:
            with suppress(OSError):  # what went wrong before is what is to be told
                temporary.unlink()

    def begin_anew(self) -> None:
        """Removes what a run wrote that never came to a checkpoint; its configuration and environment stay."""
        for name in (ITERATIONS, METRICS, PARAMETERS, CURVES):
            (self / name).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Removes what a killed process was about to write, here and among the checkpoints; what is not ours stays."""
        names = "|".join(map(re.escape, (CONFIG, ENVIRONMENT, PARAMETERS, CURVES, SUMMARY)))
        for path in self.path.iterdir():
            if re.fullmatch(rf"\.\d+\.({names})", path.name) and path.is_file():
                path.unlink()
        for path in (self / CHECKPOINTS).glob(".*"):
            if re.fullmatch(r"\.\d+\.\d{8,}", path.name):
                shutil.rmtree(path, ignore_errors=True)

    def digests(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return `bytes` and `sha256` of each of these files, which are on the disk afterwards."""
        found = {}
        for name in names:
            with file_named(self / name), (self / name).open("rb") as stream:
                os.fsync(stream.fileno())
                content = stream.read()
            found[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return found

    def read_prefix(self, name: str, length: int) -> bytes:
        """Return the first bytes of a file."""
        with (self / name).open("rb") as stream:
            return stream.read(length)

    def truncate(self, name: str, length: int) -> None:
        """Leave the first bytes of a file; of none, no file."""
        if length:
            os.truncate(self / name, length)
        else:
            (self / name).unlink(missing_ok=True)

    def checkpoint_paths(self) -> list[Path]:
        """Return the folders of the checkpoints, the oldest first."""
        return sorted(path for path in (self / CHECKPOINTS).glob("*") if path.name.isdigit() and path.is_dir())

    def write_checkpoint(self, name: str, contents: Mapping[str, bytes]) -> None:
        """Write a checkpoint's files under a temporary name, to the disk, and then give their folder its own name."""
        parent = self / CHECKPOINTS
        parent.mkdir(exist_ok=True)
        path = parent / name
        temporary = parent / f".{os.getpid()}.{name}"
        aside = parent / f".{os.getpid()}.0{name}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            for file, content in contents.items():
                with file_named(path / file), (temporary / file).open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            fsync_folder(temporary)
            with file_named(path):
                if path.exists():  # one of this very iteration, from before the run was resumed, or a stranger's file
                    path.rename(aside)
                temporary.rename(path)
            fsync_folder(parent)
            fsync_folder(self.path)  # where the names of `checkpoints` and of the files stand that the state counts on
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)

    def remove_checkpoint(self, path: Path) -> None:
        """Remove one of `checkpoint_paths`."""
        shutil.rmtree(path, ignore_errors=True)

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

    def last_iteration(self) -> int:
        """The number in the last whole row of `iterations.csv`; 0 if there is none. Reads the end of the file alone."""
        try:
            with (self / ITERATIONS).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 200))  # a row is shorter than half of that
                rows = stream.read().decode("utf-8", "replace").split("\n")[:-1]
        except OSError:
            return 0
        number = rows[-1].partition(",")[0] if rows else ""
        return int(number) if number.isdigit() else 0

    def read_metrics(self) -> list[dict[str, Any]]:
        """One object an epoch, in order."""
        return [json.loads(line) for line in (self / METRICS).read_text(encoding="utf-8").splitlines()]

    def read_summary(self) -> dict[str, Any]:
        return self.read_json(SUMMARY)

    def read_json(self, name: str) -> dict[str, Any]:
        """An object. Raises RequestError when the file is missing or holds none."""
        try:
            content = json.loads((self / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RequestError(f"{self / name}: cannot be read ({error})") from error
        if not isinstance(content, dict):
            raise RequestError(f"{self / name}: holds no object")
        return content


class UnwrittenRunFolder(RunFolder):
    """The run folder of a process whose rank is above 0: it can be read where it is there, and is never written."""

    is_written = False

    @classmethod
    def create(cls, path: Path) -> Self:
        return cls(Path(os.devnull))

    @classmethod
    def create_below(cls, parent: Path, name: str) -> Self:
        return cls(Path(os.devnull))

    def _do_nothing(self, *_: Any) -> Any:
        pass

    lock = begin_anew = remove_leftovers = _do_nothing
    write_file = write_checkpoint = remove_checkpoint = truncate = append_iterations = append_metrics = _do_nothing  # type: ignore[assignment]

    def digests(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {}


def _not_empty(path: Path) -> str:
    if (path / CONFIG).is_file() and not any((path / name).is_file() for name in (SUMMARY, LR_FINDER)):
        return f"--output {path}: there is an unfinished run; go on with it by --resume {path}, or choose another folder"
    return f"--output {path}: the folder is not empty; choose another"


def fsync_folder(path: Path) -> None:
    """Has the names in a folder be on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def file_named(path: Path) -> Iterator[None]:
    """Has an OSError name this file: that of a full disk names none, and others a temporary one."""
    try:
        yield
    except OSError as error:
        if error.strerror:
            error.filename = str(path)
        raise


def _append(path: Path, text: str) -> None:
    with file_named(path), path.open("a", encoding="utf-8", newline="") as stream:
        stream.write(text)
