"""Small training runs for tests: start in this process, stop at a given iteration, resume and compare.

Each run takes a fraction of a second.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_trainer.config.loading import load_config
from mnist_trainer.config.schema import DataConfig, RunConfig, RuntimeConfig, TrainingConfig
from mnist_trainer.data import loaders
from mnist_trainer.data.files import files_problems
from mnist_trainer.errors import Interrupted
from mnist_trainer.folder import Folder
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.training import experiment
from mnist_trainer.training.checkpoint import read
from mnist_trainer.training.resume import lock_and_find_checkpoint

ITERATIONS_PER_EPOCH = 11

SMALL = RunConfig(
    training=TrainingConfig(epochs=2, batch_size=8, learning_rate=0.05),
    schedule={"name": "Cosine", "max_update_fraction": 1.0},
    optimizer={"name": "sgd", "momentum": 0.9},
    data=DataConfig(train_images=84, test_images=20),  # 10 batches of 8 and one of 4
    runtime=RuntimeConfig(device="cpu", threads=1),
)

METRICS = {
    "iteration": 11,
    "learning_rate": 0.1,
    "train_loss": 0.5,
    "train_accuracy": 0.5,
    "test_loss": 0.5,
    "test_accuracy": 0.5,
    "epoch_seconds": 0.5,
    "test_seconds": 0.1,
    "images_per_second": 1e4,
}
"""A row of metrics.jsonl, without the epoch."""

SUMMARY = {
    "status": "finished",
    "epochs": 1,
    "iterations": 11,
    "seconds": 1.5,
    "final_learning_rate": 0.1,
    "train_loss": 0.5,
    "test_loss": 0.25,
    "test_accuracy": 0.9876,
    "test_correct": 9876,
    "test_total": 10_000,
    "parameters_sha256": 64 * "0",
    "stopped_because": None,
}
"""The content of summary.json."""

TIMES = {"epoch_seconds", "test_seconds", "images_per_second", "seconds"}

RUN_FILES = {
    "checkpoints",
    "config.toml",
    "curves.png",
    "environment.json",
    "iterations.csv",
    "metrics.csv",
    "metrics.jsonl",
    "model.params",
    "summary.json",
}


def changed(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    """Return `config` with other values in these sections. Tables with free keys are replaced as a whole."""
    tables = config.to_tables()
    for section, values in sections.items():
        tables[section] = (
            values if section in ("schedule", "optimizer", "momentum", "wd", "layers") else tables[section] | values
        )
    return RunConfig.from_tables(tables)


def spare_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed up runs: draw no figures, skip `fsync` and the description of the environment, and check the data files once."""
    monkeypatch.setattr(os, "fsync", lambda _stream: None)
    for name in ("plot_run", "plot_confusion_matrix", "plot_mistakes"):
        monkeypatch.setattr(f"mnist_trainer.plots.{name}", lambda *_: None)
    monkeypatch.setattr("mnist_trainer.plots.png_of", lambda _figure: b"figure")
    for module in (loaders, experiment):
        monkeypatch.setattr(module, "files_problems", _files_problems_once)
    monkeypatch.setattr(experiment, "describe_environment", lambda *_: {})


@cache
def _files_problems_once(folder: Path, data: DataConfig) -> list[str]:
    return files_problems(folder, data)


class StopAt:
    """Loader that requests a stop while it yields the batch of a given iteration, as a signal would.

    Attributes:
        loader: The loader that yields the batches.
        stop_at: The iteration at which to request the stop, or None for never.
        iteration: The iteration of the last batch, counted from 1 over the whole run.
        stop_requested: Whether the stop was requested. Calling the loader returns this.
        change: Function of the iteration and the images that returns other images, or None.
    """

    def __init__(self, loader: Any, iteration: int | None, change: Callable[[int, Any], Any] | None = None) -> None:
        self.loader = loader
        self.stop_at = iteration
        self.iteration = 0
        self.stop_requested = False
        self.change = change

    def __call__(self) -> bool:
        return self.stop_requested

    def __len__(self) -> int:
        return len(self.loader)

    def seek(self, epoch: int, batches: int) -> None:
        self.iteration = (epoch - 1) * len(self.loader) + batches
        self.loader.seek(epoch, batches)

    def batch_size_of(self, batch: int) -> int:
        return int(self.loader.batch_size_of(batch))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for images, labels in self.loader:
            self.iteration += 1
            self.stop_requested = self.stop_requested or self.iteration == self.stop_at
            yield (self.change(self.iteration, images) if self.change else images), labels


def train(config: RunConfig, path: Path, stop_at: int | None = None, change: Callable[[int, Any], Any] | None = None) -> Path:
    """Train in a new run folder, to the end or until the run stops at iteration `stop_at`; return `path`."""
    prepared = experiment.prepare(config)
    loader = StopAt(prepared.train_loader, stop_at, change)
    start = replace(prepared, train_loader=loader), RunFolder.create(path)
    _expect_stop(lambda: experiment.run(*start, stop_requested=loader), stop_at)
    return path


def resume_run(
    path: Path, stop_at: int | None = None, config: RunConfig | None = None, complain: Callable[[str], object] = pytest.fail
) -> Path:
    """Resume as `mnist-trainer train --resume` does, to the end or until the run stops at iteration `stop_at`."""
    folder = RunFolder.open(path)
    config = config or load_config(folder / "config.toml")
    checkpoint, _ = lock_and_find_checkpoint(folder, config, (), complain)
    prepared = experiment.prepare(config)
    loader = StopAt(prepared.train_loader, stop_at)
    start = replace(prepared, train_loader=loader), folder, checkpoint
    _expect_stop(lambda: experiment.run(*start, stop_requested=loader), stop_at)
    return path


def _expect_stop(start: Callable[[], object], stop_at: int | None) -> None:
    if stop_at is None:
        start()
        return
    reached = None
    try:  # pytest.raises would keep the traceback, which keeps the folder and its lock alive
        start()
    except Interrupted as stopped:
        reached = stopped.iteration
    assert reached == stop_at


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    assert record.keys() & TIMES
    return {key: value for key, value in record.items() if key not in TIMES}


def assert_same_run(path: Path, whole: Path, *more_files: str) -> None:
    """Assert that two run folders differ only in times and in the checkpoints that were kept.

    Args:
        path: One folder.
        whole: The other folder.
        more_files: Files that both have in addition to those of every run; their contents must be equal.
    """
    for name in ("iterations.csv", "model.params", *more_files):
        assert (path / name).read_bytes() == (whole / name).read_bytes(), name
    ours, theirs = RunFolder(path), RunFolder(whole)
    for folder in (ours, theirs):
        assert csv_of_metrics(folder.path) == folder.read_metrics()
    assert list(map(without_times, ours.read_metrics())) == list(map(without_times, theirs.read_metrics()))
    assert without_times(ours.read_summary()) == without_times(theirs.read_summary())
    assert {entry.name for entry in path.iterdir()} == {entry.name for entry in whole.iterdir()} == RUN_FILES | set(more_files)
    kept = checkpoints(path)
    assert kept[-1] == checkpoints(whole)[-1] == ours.read_summary()["iterations"]
    last, other = (read(Folder(folder / "checkpoints" / f"{kept[-1]:08}")) for folder in (path, whole))
    assert last.iteration == kept[-1]
    assert last.arrays.keys() == other.arrays.keys()
    for name, values in last.arrays.items():
        np.testing.assert_array_equal(values, other.arrays[name], name)


def csv_of_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of `metrics.csv`, with whole numbers as int."""
    with (path / "metrics.csv").open(encoding="ascii", newline="") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    return [{name: int(text) if text.isdigit() else float(text) for name, text in row.items()} for row in rows]


def checkpoints(path: Path) -> list[int]:
    """Return the iterations of the checkpoints of a run, sorted. The folder of checkpoints must contain nothing else."""
    return sorted(int(folder.name) for folder in (path / "checkpoints").iterdir())


def contents(path: Path) -> dict[str, bytes]:
    """Return the relative path and the content of every file in a folder."""
    return {str(entry.relative_to(path)): entry.read_bytes() for entry in path.rglob("*") if entry.is_file()}


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def sign(folder: Path) -> None:
    """Write the manifest that matches the files of a checkpoint."""
    manifest = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("arrays.npz", "state.json")}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
