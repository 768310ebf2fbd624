"""Long runs: after fifty epochs a run holds as much memory, as many files and as many threads as after five."""

import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from mnist_trainer import experiment
from mnist_trainer.config import Override, load_config
from mnist_trainer.mnist_files import DATA_DIR_VARIABLE
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.trainer import EpochMetrics, Observer

EPOCHS = 50
YOUNG = 5  # MXNet's pools and Python's caches are filled by then


class Held(NamedTuple):
    """What this process holds."""

    resident_bytes: int
    files: int
    threads: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        files, threads = (len(list(Path("/proc/self", of).iterdir())) for of in ("fd", "task"))
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), files, threads)


class Watch(Observer):
    """What is held after each epoch."""

    def __init__(self) -> None:
        self.after: dict[int, Held] = {}

    def epoch_done(self, metrics: EpochMetrics) -> None:
        self.after[metrics.epoch] = Held.now()


@pytest.mark.parametrize(("scheduler_mode", "loader"), [("optimizer", "array"), ("manual", "gluon")])
def test_a_long_run_grows_in_nothing(scheduler_mode: str, loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    config = load_config(
        overrides=[
            Override("--epochs", "training.epochs", str(EPOCHS)),
            Override("--batch-size", "training.batch_size", "64"),
            Override("--scheduler-mode", "training.scheduler_mode", scheduler_mode),
            Override("--train-images", "data.train_images", "640"),
            Override("--validation-images", "data.validation_images", "64"),
            Override("--test-images", "data.test_images", "100"),
            Override("--loader", "data.loader", loader),
            Override("--set", "optimizer.momentum", "0.9"),  # so that the optimizer has a state to keep
            Override("--threads", "runtime.threads", "1"),
        ]
    )
    config = replace(config, checkpoint=replace(config.checkpoint, every_iterations=3))
    watch = Watch()
    experiment.run(experiment.prepare(config), RunFolder.create(tmp_path / "run"), observers=[watch])
    assert list(watch.after) == list(range(1, EPOCHS + 1))
    young, old = watch.after[YOUNG], watch.after[EPOCHS]
    print(f"after epoch {YOUNG}: {young}\nafter epoch {EPOCHS}: {old}")
    assert old.resident_bytes <= 1.02 * young.resident_bytes
    assert (old.files, old.threads) == (young.files, young.threads)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) <= config.checkpoint.keep + 1
