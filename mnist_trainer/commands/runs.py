"""`mnist-trainer runs`: list the runs in a folder, with their settings, their accuracy and their state.

A run may come from somebody else. Nothing in its folder is changed, and none of the code that it names is run.
"""

import json
import shlex
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import chain, pairwise
from typing import Any

from mnist_trainer.commands.request import LATEST, RUNS_FOLDER, Arguments
from mnist_trainer.config.loading import DEFAULT_CONFIG, config_name, load_recorded_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import in_columns, print_lines, shortened, terminal_width
from mnist_trainer.errors import DONE, RequestError
from mnist_trainer.folder import Folder
from mnist_trainer.run_folder import CONFIG, LR_FINDER, RunFolder

_MAX_LENGTH = 60  # of a text in the table, except for the path of a folder, which commands take


@dataclass(frozen=True)
class ListedRun:
    """A run in the list.

    Attributes:
        folder: Its path.
        configuration: The name of its configuration; None if its command line is not recorded.
        schedule: The names of its schedule and of those within it; None if its configuration cannot be read.
        mode: Its scheduler mode.
        seed: Its seed.
        epochs: The number of epochs that it has completed.
        total_epochs: The number of epochs in its configuration.
        accuracy: The test accuracy after the last of these epochs.
        started: The time when it began, with its time zone.
        state: "finished", "stopped early", "training", "stopped after iteration N of M", or the reason why it cannot be read.
    """

    folder: str
    configuration: str | None = None
    schedule: str | None = None
    mode: str | None = None
    seed: int | None = None
    epochs: int = 0
    total_epochs: int | None = None
    accuracy: float | None = None
    started: str | None = None
    state: str = ""

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table, in the order of `COLUMNS`."""
        return (
            self.folder,
            self.configuration or "",
            self.schedule or "",
            self.mode or "",
            "" if self.seed is None else str(self.seed),
            "" if self.total_epochs is None else f"{self.epochs}/{self.total_epochs}",
            "" if self.accuracy is None else f"{self.accuracy:.2%}",
            f"{_time(self.started):%Y-%m-%d %H:%M}" if self.started else "",
            self.state,
        )


COLUMNS = ("folder", "configuration", "schedule", "mode", "seed", "epochs", "accuracy", "started", "state")


def list_runs(arguments: Arguments) -> int:
    """Run `mnist-trainer runs`; return the exit code."""
    parent = arguments.folder or RUNS_FOLDER
    if not parent.is_dir():
        what = "this is a file" if parent.exists() else "there is no such folder"
        raise RequestError(f"{parent}: {what}; name a folder that contains runs, or train one with mnist-trainer train")
    found = [_read(folder) for folder in _run_folders(Folder(parent))]
    found.sort(key=lambda run: _sort_key(run, arguments.sort))
    if arguments.sort in ("accuracy", "started"):
        found.reverse()  # the best or the newest first
    if arguments.json:
        print_lines(*json.dumps([asdict(run) for run in found], indent=2).splitlines())
    elif found:
        rows = [(run.folder, *(shortened(cell, _MAX_LENGTH) for cell in run.row()[1:])) for run in found]
        print_lines(*in_columns([COLUMNS, *rows], terminal_width()))
    else:
        print_lines(f"{parent}: contains no runs")
    return DONE


def _run_folders(parent: Folder) -> Iterator[RunFolder]:
    """Yield the folders of runs in a folder, in the comparisons in it, and in the folder itself if it is a comparison."""
    for name in parent.names():
        folder = RunFolder(parent / name, parent)
        if name == LATEST or not parent.has_folder(name):
            continue
        if folder.kind(CONFIG) and not folder.kind(LR_FINDER):
            yield folder
        elif name == "runs" or folder.has_folder("runs"):
            yield from _run_folders(folder if name == "runs" else folder.subfolder("runs"))


def _read(folder: RunFolder) -> ListedRun:
    """Read what is known about a run. If a file is damaged, the state has the reason."""
    path = str(folder.path)
    try:
        config = load_recorded_config(folder / CONFIG)
    except RequestError as error:
        return ListedRun(path, state=error.problems[0])
    environment: Mapping[str, Any] = {}
    with suppress(RequestError):
        environment = folder.read_environment()
    rows: deque[Mapping[str, Any]] = deque([{}], maxlen=1)
    with suppress(OSError, ValueError):
        rows.extend(folder.metrics_rows())
    [last] = rows
    training = config.training
    return ListedRun(
        path,
        configuration=_configuration(environment, training.scheduler_mode, training.seed),
        schedule=_names(config.schedule),
        mode=training.scheduler_mode,
        seed=training.seed,
        epochs=last.get("epoch", 0),
        total_epochs=training.epochs,
        accuracy=last.get("test_accuracy"),
        started=_started(environment),
        state=_state(folder, config),
    )


def _state(folder: RunFolder, config: RunConfig) -> str:
    if folder.is_finished:
        try:
            return "stopped early" if folder.read_summary().get("stopped_because") else "finished"
        except RequestError as error:
            return error.problems[0]
    try:
        folder.lock()
    except RequestError:
        return "training"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    folder.unlock()
    return f"stopped after iteration {folder.last_iteration():,} of {config.run_length.total_iterations:,}"


def _configuration(environment: Mapping[str, Any], mode: str, seed: int) -> str | None:
    """Return the name of the configuration in the command line that trained a run."""
    try:
        words = shlex.split(str(environment["command_line"]))
    except (KeyError, ValueError):
        return None
    given = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    given += [value for flag, value in pairwise(words) if flag == "--config"]
    name = config_name(given[-1] if given else DEFAULT_CONFIG)
    return name.removesuffix(f"-{mode}-seed-{seed}")  # as `compare` names the configurations of its runs


def _started(environment: Mapping[str, Any]) -> str | None:
    try:
        return _time(environment["started"]).isoformat(timespec="seconds")
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone()


def _names(schedule: Any) -> str:
    """Return the name of a schedule in a configuration and, in parentheses, of those within it."""
    values = chain.from_iterable(value if isinstance(value, list) else [value] for value in schedule.values())
    inner = [value for value in values if isinstance(value, Mapping)]
    names = f"({', '.join(map(_names, inner))})" if inner else ""
    return f"{schedule.get('name', '')}{names}"


def _sort_key(run: ListedRun, column: str) -> tuple[bool, Any]:
    value = getattr(run, column)
    # In a column that is listed from its highest value on, runs without a value are the last too.
    return (value is None) != (column in ("accuracy", "started")), 0 if value is None else value
