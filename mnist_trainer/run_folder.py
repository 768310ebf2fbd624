"""Reads and writes the folder of a run. A file is written completely or not at all.

Standard library only. Other modules provide the content of `model.params` and the figures; this module defines the names.
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
    """A run folder, new or existing. `summary.json` is written last; a run that has it is finished.

    Attributes:
        path: The folder.
    """

    is_written = True
    """True if this process writes to the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: weakref.finalize[..., RunFolder] | None = None

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a folder and lock it.

        Args:
            path: The folder. It may exist if it is empty.

        Returns:
            The run folder.

        Raises:
            RequestError: The folder is not empty, or cannot be made or written.
        """
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"--output {path}: the name is not valid UTF-8, which MXNet needs; choose another") from error
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RequestError(_not_empty(path))
            with tempfile.TemporaryFile(dir=path):
                pass
        except FileExistsError as error:
            raise RequestError(f"--output {path}: there is a file of this name; choose another folder") from error
        except OSError as error:
            raise RequestError(f"--output {path}: the folder cannot be written ({error.strerror}); choose another") from error
        fsync_folder(path.parent)
        folder = cls(path)
        folder.lock()
        if any(path.iterdir()):  # another process has created and finished a run in the meantime
            raise RequestError(_not_empty(path))
        return folder

    @classmethod
    def create_below(cls, parent: Path, name: str) -> Self:
        """Make a new folder, named after the current time, and lock it.

        Args:
            parent: The folder that will contain it.
            name: The end of its name, after the time.

        Returns:
            The run folder.

        Raises:
            RequestError: The folder cannot be made.
        """
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}"
        for candidate in (stem, *(f"{stem}_{number}" for number in range(2, 1000))):
            try:
                (parent / candidate).mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                message = f"{parent}: a run folder cannot be made there ({error.strerror}); choose one with --output"
                raise RequestError(message) from error
            return cls.create(parent / candidate)
        raise RequestError(f"{parent}: already holds 999 runs from this second; try again")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing run folder.

        Raises:
            RequestError: `path` is not a run folder.
        """
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
            what = "this is a file, not a run folder" if os.path.isfile(path) else "there is no such run folder"  # noqa: PTH113
            raise RequestError(f"{path}: {what}")
        if not (path / CONFIG).is_file():
            raise RequestError(f"{path}: this is not a run folder; it has no {CONFIG}")
        if (path / LR_FINDER).is_file():
            raise RequestError(f"{path}: this is the folder of a learning-rate search, not of a run")
        files = (ENVIRONMENT, ITERATIONS, METRICS, PARAMETERS, CURVES, SUMMARY)
        problems = [f"{path / name}: this is a folder, but a run has a file here" for name in files if (path / name).is_dir()]
        if (path / CHECKPOINTS).is_file():
            problems.append(f"{path / CHECKPOINTS}: this is a file, but a run has a folder here")
        if problems:
            raise RequestError(*problems)
        return cls(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def lock(self) -> None:
        """Prevent other processes from writing to this folder until `unlock` or the end of this process.

        Raises:
            RequestError: Another process is writing to it.
        """
        if self._lock is not None:
            return
        lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends for any reason
        except BlockingIOError as error:
            os.close(lock)
            raise RequestError(f"{self.path}: another process is writing to this run folder; wait until it ends") from error
        self._lock = weakref.finalize(self, os.close, lock)  # also released with this object

    def unlock(self) -> None:
        """Allow other processes to write to this folder."""
        if self._lock is not None:
            self._lock()
            self._lock = None

    @property
    def is_finished(self) -> bool:
        """True if the run is finished."""
        return (self / SUMMARY).is_file()

    def write_text(self, name: str, text: str) -> None:
        """Write a text file in UTF-8."""
        self.write_file(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON object."""
        self.write_text(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_file(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file under a temporary name, then rename it, so that the file is never incomplete.

        Args:
            name: The name of the file.
            write: Writes the content to a given temporary path.
        """
        temporary = self / f".{os.getpid()}.{name}"
        try:
            with file_named(self / name):
                write(temporary)
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())  # otherwise the name may reach the disk before the content
                temporary.replace(self / name)
                fsync_folder(self.path)
        finally:
            with suppress(OSError):  # the first error is the one to report
                temporary.unlink()

    def begin_anew(self) -> None:
        """Remove the results of a run without a checkpoint. Its configuration and environment are kept."""
        for name in (ITERATIONS, METRICS, PARAMETERS, CURVES):
            (self / name).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove the temporary files of a killed process, here and among the checkpoints. Other files are kept."""
        names = "|".join(map(re.escape, (CONFIG, ENVIRONMENT, PARAMETERS, CURVES, SUMMARY)))
        for path in self.path.iterdir():
            if re.fullmatch(rf"\.\d+\.({names})", path.name) and path.is_file():
                path.unlink()
        for path in (self / CHECKPOINTS).glob(".*"):
            if re.fullmatch(r"\.\d+\.\d{8,}", path.name):
                shutil.rmtree(path, ignore_errors=True)

    def digests(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Flush files to the disk, and return their sizes and checksums.

        Args:
            names: The names of the files.

        Returns:
            Name → `bytes` and `sha256` of the file.
        """
        found = {}
        for name in names:
            with file_named(self / name), (self / name).open("rb") as stream:
                os.fsync(stream.fileno())
                content = stream.read()
            found[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return found

    def read_prefix(self, name: str, length: int) -> bytes:
        """Return the first `length` bytes of a file."""
        with (self / name).open("rb") as stream:
            return stream.read(length)

    def truncate(self, name: str, length: int) -> None:
        """Truncate a file to its first `length` bytes; remove it if `length` is 0."""
        if length:
            os.truncate(self / name, length)
        else:
            (self / name).unlink(missing_ok=True)

    def checkpoint_paths(self) -> list[Path]:
        """Return the folders of the checkpoints, the oldest first."""
        return sorted(path for path in (self / CHECKPOINTS).glob("*") if path.name.isdigit() and path.is_dir())

    def write_checkpoint(self, name: str, contents: Mapping[str, bytes]) -> None:
        """Write a checkpoint to a folder with a temporary name, then rename the folder.

        Args:
            name: The name of the checkpoint's folder.
            contents: Name → content of its files.
        """
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
                if path.exists():  # an older checkpoint of the same iteration, or a foreign file
                    path.rename(aside)
                temporary.rename(path)
            fsync_folder(parent)
            fsync_folder(self.path)  # the names of `checkpoints` and of the files that the checkpoint refers to
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)

    def remove_checkpoint(self, path: Path) -> None:
        """Remove a checkpoint, one of `checkpoint_paths`."""
        shutil.rmtree(path, ignore_errors=True)

    def append_iterations(self, rows: Iterable[tuple[int, float, float]]) -> None:
        """Append rows to `iterations.csv`. Numbers are written as Python's repr, so they are read back as the same floats.

        Args:
            rows: Rows (iteration, learning rate, loss).
        """
        path = self / ITERATIONS
        header = "" if path.exists() else _ITERATIONS_HEADER
        lines = "".join(f"{iteration},{learning_rate!r},{loss!r}\n" for iteration, learning_rate, loss in rows)
        _append(path, header + lines)

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append the metrics of an epoch to `metrics.jsonl`."""
        _append(self / METRICS, json.dumps(metrics, allow_nan=False) + "\n")

    def read_iterations(self) -> list[tuple[int, float, float]]:
        """Return the rows of `iterations.csv` in order: (iteration, learning rate, loss)."""
        with (self / ITERATIONS).open(encoding="utf-8", newline="") as stream:
            return [(int(row[0]), float(row[1]), float(row[2])) for row in list(csv.reader(stream))[1:]]

    def last_iteration(self) -> int:
        """Return the last iteration in `iterations.csv`; 0 if there is none.

        Only the end of the file is read, and a partial last row is ignored.
        """
        try:
            with (self / ITERATIONS).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 200))  # a row has fewer than 100 bytes
                rows = stream.read().decode("utf-8", "replace").split("\n")[:-1]
        except OSError:
            return 0
        number = rows[-1].partition(",")[0] if rows else ""
        return int(number) if number.isdigit() else 0

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl` in order, one for each epoch."""
        return [json.loads(line) for line in (self / METRICS).read_text(encoding="utf-8").splitlines()]

    def read_summary(self) -> dict[str, Any]:
        """Return the summary of a finished run.

        Raises:
            RequestError: The file cannot be read, or does not hold an object.
        """
        return self.read_json(SUMMARY)

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file.

        Raises:
            RequestError: The file cannot be read, or does not hold an object.
        """
        try:
            content = json.loads((self / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise RequestError(f"{self / name}: cannot be read ({error})") from error
        if not isinstance(content, dict):
            raise RequestError(f"{self / name}: does not hold a JSON object")
        return content


class UnwrittenRunFolder(RunFolder):
    """The run folder of a process whose rank is above 0. It can be read if it exists, but it is never written."""

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
        return f"--output {path}: holds an unfinished run; resume it with --resume {path}, or choose another folder"
    return f"--output {path}: the folder is not empty; choose another"


def fsync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def file_named(path: Path) -> Iterator[None]:
    """Set the file name of an OSError that the code within raises.

    Without this, the error of a full disk has no file name, and other errors have the name of a temporary file.
    """
    try:
        yield
    except OSError as error:
        if error.strerror:
            error.filename = str(path)
        raise


def _append(path: Path, text: str) -> None:
    with file_named(path), path.open("a", encoding="utf-8", newline="") as stream:
        stream.write(text)
