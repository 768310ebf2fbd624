"""Reads and writes the folder of a run, and checks what it reads.

`folder` opens the files. Other modules provide the content of `model.params` and the figures; this module defines the names.
Standard library only.
"""

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self

from mnist_trainer.errors import RequestError
from mnist_trainer.fields import MAX_FLOAT32
from mnist_trainer.folder import Folder, is_number, new_folder, parse_json, pieces

CONFIG = "config.toml"
ENVIRONMENT = "environment.json"
ITERATIONS = "iterations.csv"
METRICS = "metrics.jsonl"
METRICS_CSV = "metrics.csv"
PARAMETERS = "model.params"
BEST_PARAMETERS = "best.params"
CURVES = "curves.png"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
SUMMARY = "summary.json"
EVALUATION = "evaluation.json"
CONFUSION_MATRIX = "confusion_matrix.png"
MISTAKES = "mistakes.png"
LR_FINDER = "lr_finder.csv"
LR_FINDER_RESULT = "lr_finder.json"
LR_FINDER_FIGURE = "lr_finder.png"

CHECKPOINT_FILES = ("arrays.npz", "state.json", "manifest.json")

_OF_A_RUN = (CONFIG, ENVIRONMENT, ITERATIONS, METRICS, METRICS_CSV, PARAMETERS, BEST_PARAMETERS, CURVES, SUMMARY)
_OF_COMMANDS = (EVALUATION, CONFUSION_MATRIX, MISTAKES, LR_FINDER, LR_FINDER_RESULT, LR_FINDER_FIGURE)

_ITERATIONS_HEADER = b"iteration,learning_rate,loss\n"
_MAX_ROW_BYTES = 100  # two numbers as Python's repr and an iteration
_MAX_METRICS_BYTES = 4096  # of a row
_MAX_NUMBER = 9.999999999999999e38  # of metrics and summaries; sums and squares are finite
_MAX_ROWS = 20_000_000  # that are read into memory

_METRICS = ("iteration", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
_OPTIONAL_METRICS = ("validation_loss", "validation_accuracy", "momentum", "wd")
_DURATIONS = ("epoch_seconds", "test_seconds", "images_per_second")


class RunFolder(Folder):
    """A run folder, new or existing. `summary.json` is written last; a run that has it is finished.

    Attributes:
        path: The folder.
    """

    is_written = True
    """True if this process writes to the folder."""

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
        folder = cls(path)
        try:
            with new_folder(path):
                if folder.names():
                    raise RequestError(folder._not_empty())
                with tempfile.TemporaryFile(dir=path):
                    pass
                with suppress(PermissionError):  # a folder may be writable but not readable
                    Folder(path.parent).sync()
        except FileExistsError as error:
            raise RequestError(f"--output {path}: there is a file of this name; choose another folder") from error
        except OSError as error:
            raise RequestError(f"--output {path}: the folder cannot be written ({error.strerror}); choose another") from error
        folder.lock()
        if folder.names():  # another process has created and finished a run in the meantime
            raise RequestError(folder._not_empty())
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
    def open(cls, path: Path, parent: Folder | None = None) -> Self:
        """Open an existing run folder.

        Args:
            path: The folder.
            parent: The folder that contains it, if the user has not named it.

        Raises:
            RequestError: `path` is not a run folder, or has something other than a file where a run has a file.
        """
        folder = cls(path, parent)
        try:
            with folder.opened():
                pass
        except (NotADirectoryError, FileNotFoundError) as error:
            is_there = os.path.lexists(path)
            what = "this is a file, not a run folder" if is_there else "there is no such run folder"
            raise RequestError(f"{path}: {what}") from error
        except OSError as error:
            raise RequestError(f"{path}: the run folder cannot be opened ({error.strerror})") from error
        if folder.kind(CONFIG) in (None, "a folder"):
            raise RequestError(f"{path}: this is not a run folder; it has no {CONFIG}")
        if folder.kind(LR_FINDER):
            raise RequestError(f"{path}: this is the folder of a learning-rate search, not of a run")
        kinds = dict.fromkeys(_OF_A_RUN, "a file") | {CHECKPOINTS: "a folder", TENSORBOARD: "a folder"}
        problems = [
            f"{folder / name}: this is {found}, but a run has {wanted} here"
            for name, wanted in kinds.items()
            if (found := folder.kind(name)) not in (None, wanted)
        ]
        if problems:
            raise RequestError(*problems)
        return folder

    @property
    def is_finished(self) -> bool:
        """True if the run is finished."""
        return self.has_file(SUMMARY)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file completely or not at all."""
        self.write_file(name, lambda stream: stream.write(content))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file in UTF-8."""
        self.write_bytes(name, text.encode(errors="backslashreplace"))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON object."""
        self.write_text(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_file(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Write a file completely or not at all.

        Args:
            name: The name of the file.
            write: Writes the content to a given stream.
        """
        with self.replacing(name) as stream:
            write(stream)

    def begin_anew(self) -> None:
        """Remove the results of a run without a checkpoint. Its configuration and environment are kept."""
        for name in (ITERATIONS, METRICS, METRICS_CSV, PARAMETERS, BEST_PARAMETERS, CURVES):
            self.remove(name)

    def remove_leftovers(self) -> None:
        """Remove the temporary files of a killed process, here and among the checkpoints. Other files are kept."""
        self.remove_unfinished(_is_known_name)
        self.subfolder(CHECKPOINTS).remove_unfinished(_is_checkpoint_name, CHECKPOINT_FILES)

    def digests(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Flush files to the disk, and return their sizes and checksums.

        Args:
            names: The names of the files.

        Returns:
            Name → `bytes` and `sha256` of the file.
        """
        found = {}
        for name in names:
            with self.reading(name) as stream:
                os.fsync(stream.fileno())
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                found[name] = {"bytes": stream.tell(), "sha256": digest}
        return found

    def prefix_sha256(self, name: str, length: int) -> str:
        """Return the SHA-256 of the first `length` bytes of a file."""
        digest = hashlib.sha256()
        with self.reading(name) as stream:
            for piece in pieces(stream, length):
                digest.update(piece)
        return digest.hexdigest()

    # --- checkpoints

    def checkpoint(self, iteration: int) -> Folder:
        """Return the folder of the checkpoint after an iteration, which may not exist."""
        return self.subfolder(CHECKPOINTS).subfolder(checkpoint_name(iteration))

    def checkpoints(self) -> list[Folder]:
        """Return the folders of the checkpoints, the oldest first."""
        parent = self.subfolder(CHECKPOINTS)
        names = (name for name in parent.names() if _is_checkpoint_name(name) and parent.has_folder(name))
        return [parent.subfolder(name) for name in sorted(names, key=int)]

    def write_checkpoint(self, name: str, contents: Mapping[str, bytes]) -> None:
        """Write the folder of a checkpoint completely or not at all.

        Args:
            name: The name of the checkpoint's folder.
            contents: Name → content of its files.
        """
        parent = self.subfolder(CHECKPOINTS)
        parent.make()
        parent.write_folder(name, contents)
        self.sync()  # the names of `checkpoints` and of the files that the checkpoint refers to

    def remove_checkpoint(self, name: str) -> None:
        """Remove a checkpoint. A folder with any other file is kept."""
        self.subfolder(CHECKPOINTS).remove_folder(name, CHECKPOINT_FILES)

    def foreign_checkpoints(self, after: int) -> list[Path]:
        """Return the entries after an iteration that have the name of a checkpoint, but are none or hold other files too."""
        parent = self.subfolder(CHECKPOINTS)
        names = (name for name in parent.names() if _is_checkpoint_name(name) and int(name) > after)
        return [parent / name for name in names if not parent.holds_only(name, CHECKPOINT_FILES)]

    # --- rows

    def append_iterations(self, rows: Iterable[tuple[int, float, float]]) -> None:
        """Append rows to `iterations.csv`. Numbers are written as Python's repr, so they are read back as the same floats.

        Args:
            rows: Rows (iteration, learning rate, loss).
        """
        header = b"" if self.has_file(ITERATIONS) else _ITERATIONS_HEADER
        lines = "".join(f"{iteration},{learning_rate!r},{loss!r}\n" for iteration, learning_rate, loss in rows)
        self.append(ITERATIONS, header + lines.encode())

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append the metrics of an epoch to `metrics.jsonl` and `metrics.csv`."""
        is_first = not self.has_file(METRICS)
        self.append(METRICS, json.dumps(metrics, allow_nan=False).encode() + b"\n")
        if self.has_file(METRICS_CSV):
            self.append(METRICS_CSV, _csv_row(metrics, metrics))
        elif is_first:
            self.append(METRICS_CSV, _csv_header(metrics) + _csv_row(metrics, metrics))
        else:  # it was removed during the run
            self.restore_metrics_csv()

    def restore_metrics_csv(self) -> None:
        """Write `metrics.csv` with the rows of `metrics.jsonl`."""
        self.remove(METRICS_CSV)
        if self.has_file(METRICS):
            first, *others = self.read_metrics()
            lines = (_csv_row(row, first) for row in (first, *others))
            self.write_bytes(METRICS_CSV, _csv_header(first) + b"".join(lines))

    def read_iterations(self, max_rows: int = _MAX_ROWS) -> list[tuple[int, float, float]]:
        """Return the rows of `iterations.csv` in order: (iteration, learning rate, loss).

        Args:
            max_rows: The maximum number of rows.

        Raises:
            OSError: The file cannot be read.
            ValueError: A row is not as `append_iterations` writes it, or is not the next iteration; or there are more rows.
        """
        rows = list(islice(self.iteration_rows(), max_rows + 1))
        if len(rows) > max_rows:
            raise ValueError(f"{self / ITERATIONS}: has more than {max_rows:,} rows")
        return rows

    def iteration_rows(self, *, length: int | None = None) -> Iterator[tuple[int, float, float]]:
        """Yield the rows of `iterations.csv`; see `read_iterations`.

        Args:
            length: Read only the first `length` bytes of the file.
        """
        lines = self._lines(ITERATIONS, _MAX_ROW_BYTES, length)
        if next(lines, None) != _ITERATIONS_HEADER:
            raise ValueError(f"{self / ITERATIONS}: the first line is not {_ITERATIONS_HEADER.decode().strip()}")
        for iteration, line in enumerate(lines, start=1):
            try:
                number, learning_rate, loss = line.decode("ascii").split(",")
                row = iteration, float(learning_rate), float(loss)
                if f"{row[0]},{row[1]!r},{row[2]!r}\n" != f"{number},{learning_rate},{loss}" or not 0 <= row[1] <= MAX_FLOAT32:
                    raise ValueError(line)
            except ValueError as error:
                message = f"{self / ITERATIONS}: line {iteration + 1} is not the row of iteration {iteration}"
                raise ValueError(message) from error
            yield row

    def last_iteration(self) -> int:
        """Return the last iteration in `iterations.csv`; 0 if there is none.

        Only the end of the file is read, and a partial last row is ignored.
        """
        try:
            with self.reading(ITERATIONS) as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - 2 * _MAX_ROW_BYTES))
                rows = stream.read(2 * _MAX_ROW_BYTES).split(b"\n")[:-1]
        except OSError:
            return 0
        number = rows[-1].partition(b",")[0] if rows else b""
        return int(number) if number.isdigit() else 0

    def read_metrics(self, max_rows: int = _MAX_ROWS) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl` in order, one for each epoch.

        Args:
            max_rows: The maximum number of rows.

        Raises:
            OSError: The file cannot be read.
            ValueError: A row is not the metrics of the next epoch, or there are more rows.
        """
        rows = list(islice(self.metrics_rows(), max_rows + 1))
        if len(rows) > max_rows:
            raise ValueError(f"{self / METRICS}: has more than {max_rows:,} lines")
        return rows

    def metrics_rows(self, *, length: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of `metrics.jsonl`; see `read_metrics`.

        Args:
            length: Read only the first `length` bytes of the file.
        """
        iterations_per_epoch = None
        for epoch, line in enumerate(self._lines(METRICS, _MAX_METRICS_BYTES, length), start=1):
            try:
                row = parse_json(line)
                iterations_per_epoch = iterations_per_epoch or row["iteration"]
                is_complete = (
                    {"epoch", *_METRICS, *_DURATIONS} <= row.keys() <= {"epoch", *_METRICS, *_DURATIONS, *_OPTIONAL_METRICS}
                    and all(is_number(value, _MAX_NUMBER) for value in row.values())
                    and all(row[name] <= 1 for name in ("train_accuracy", "test_accuracy"))
                    and type(row["iteration"]) is int
                    and (row["epoch"], row["iteration"]) == (epoch, epoch * iterations_per_epoch)
                    and iterations_per_epoch >= 1
                )
            except (ValueError, LookupError, AttributeError, TypeError):
                is_complete = False
            if not is_complete:
                raise ValueError(f"{self / METRICS}: line {epoch} is not the metrics of epoch {epoch}")
            yield row

    def _lines(self, name: str, max_line_bytes: int, length: int | None) -> Iterator[bytes]:
        """Yield the lines of a file, or of its first `length` bytes, with their line breaks.

        Raises:
            OSError: The file cannot be read.
            ValueError: A line is longer than `max_line_bytes`, or has no line break.
        """
        with self.reading(name) as stream:
            left = math.inf if length is None else length
            while left > 0 and (line := stream.readline(int(min(left, max_line_bytes)))):
                if not line.endswith(b"\n"):
                    raise ValueError(f"{self / name}: has a line that is too long or incomplete")
                left -= len(line)
                yield line

    # --- JSON

    def read_environment(self) -> dict[str, Any]:
        """Return the content of `environment.json`.

        Raises:
            RequestError: The file cannot be read, or does not hold an object.
        """
        return self.read_json(ENVIRONMENT)

    def read_summary(self) -> dict[str, Any]:
        """Return the summary of a finished run.

        Raises:
            RequestError: The file cannot be read, or is not a summary.
        """
        summary = self.read_json(SUMMARY)
        counts, numbers = ("epochs", "iterations", "test_correct", "test_total"), ("seconds", "test_loss", "test_accuracy")
        is_complete = (
            all(type(summary.get(name)) is int and summary[name] >= 0 for name in counts)
            and all(is_number(summary.get(name), _MAX_NUMBER) for name in numbers)
            and summary["test_accuracy"] <= 1
            and isinstance(summary.get("parameters_sha256"), str)
        )
        if "best_epoch" in summary:
            is_complete = (
                is_complete
                and type(summary["best_epoch"]) is int
                and 1 <= summary["best_epoch"] <= summary["epochs"]
                and isinstance(summary.get("best_parameters_sha256"), str)
            )
        if not (is_complete and isinstance(summary.get("stopped_because"), str | None)):
            expected = ", ".join((*counts, *numbers, "parameters_sha256"))
            raise RequestError(f"{self / SUMMARY}: is damaged; a summary has valid values of {expected}")
        return summary

    def _not_empty(self) -> str:
        if self.has_file(CONFIG) and not self.has_file(SUMMARY) and not self.has_file(LR_FINDER):
            advice = f"holds an unfinished run; resume it with --resume {self.path}, or choose another folder"
        else:
            advice = "the folder is not empty; choose another"
        return f"--output {self.path}: {advice}"


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

    lock = begin_anew = remove_leftovers = restore_metrics_csv = _do_nothing
    write_folder = remove = remove_folder = remove_unfinished = make = sync = _do_nothing  # type: ignore[assignment]
    write_file = write_checkpoint = remove_checkpoint = truncate = append = _do_nothing  # type: ignore[assignment]

    def digests(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {}


def with_suffix(name: str, suffix: str) -> str:
    """Return the name of a file of a command with a suffix before its ending, such as `evaluation_best.json`."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}{suffix}{dot}{ending}"


def _is_known_name(name: str) -> bool:
    return name in _OF_A_RUN or re.sub(r"_(best|\d+)(?=\.\w+$)", "", name) in _OF_COMMANDS


def checkpoint_name(iteration: int) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"{iteration:08}"


def _csv_header(columns: Iterable[str]) -> bytes:
    return ",".join(columns).encode() + b"\n"


def _csv_row(row: Mapping[str, float], columns: Iterable[str]) -> bytes:
    """Return a row as a line of CSV. Numbers are written as Python's repr, so they are read back as the same floats."""
    return ",".join(repr(row[name]) if name in row else "" for name in columns).encode() + b"\n"


def _is_checkpoint_name(name: str) -> bool:
    return name.isascii() and name.isdigit() and name == checkpoint_name(int(name))
