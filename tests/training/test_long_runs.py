"""Long runs: the memory, open files and threads of a run do not grow after the fifth epoch.

python tests/training/test_long_runs.py FOLDER    trains into FOLDER and prints the resources of the process after each epoch
"""

import gc
import json
import os
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from programs import REPOSITORY, run_python

from mnist_trainer.config.loading import load_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.training import experiment
from mnist_trainer.training.callbacks import Callback
from mnist_trainer.training.records import EpochMetrics, LoopState

EPOCHS = 16
WARM_UP_EPOCHS = 5  # MXNet's pools and Python's caches are filled by then

# From epoch WARM_UP_EPOCHS on, MXNet's pool still grows by up to 2 MB at a time, when its threads happen to need more arrays
# at the same time than before. In 48 measurements on a busy machine, it grew in zero to five of the eleven epochs; without the
# four epochs with the largest growth, a run grew by less than 0.2 MB. A batch that each epoch leaks adds 0.4 MB per epoch,
# 2.8 MB in these seven. This holds only for a process that does nothing else: in a process that has run other tests, malloc
# returns and requests more memory than this.
EXCEPTIONS = 4
ALLOWED_BYTES = 500_000

SETTINGS = {
    "training.epochs": str(EPOCHS),
    "training.batch_size": "128",
    "data.train_images": "448",  # three batches of images to train on
    "data.validation_images": "64",
    "data.test_images": "100",
    "optimizer.momentum": "0.9",  # so that the optimizer has a state to keep
    "runtime.threads": "1",
}

VARIANTS = {"optimizer": "array", "manual": "gluon"}
"""The scheduler modes, each with one of the loaders."""


class Held(NamedTuple):
    """The resources of this process."""

    bytes_of_its_own: int  # in memory, without mapped files
    files: int
    threads: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
        files, threads = (len(list(Path("/proc/self", of).iterdir())) for of in ("fd", "task"))
        return cls((resident - shared) * os.sysconf("SC_PAGE_SIZE"), files, threads)


class Watch(Callback):
    """Records the resources after each epoch."""

    def __init__(self) -> None:
        self.after: list[Held] = []

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        self.after.append(Held.now())


def main(folder: Path) -> None:
    after: dict[str, list[Held]] = {}
    for scheduler_mode, loader in VARIANTS.items():
        settings = SETTINGS | {"training.scheduler_mode": scheduler_mode, "data.loader": loader}
        config = load_config(overrides=[Override(f"--set {key}", key, value) for key, value in settings.items()])
        config = replace(config, checkpoint=replace(config.checkpoint, every_iterations=2))
        watch = Watch()
        prepared = experiment.prepare(config, REPOSITORY / "data" / "mnist")
        experiment.run(prepared, RunFolder.create(folder / scheduler_mode), callbacks=[watch])
        after[scheduler_mode] = watch.after
    print(json.dumps(after))


@pytest.mark.slow
@pytest.mark.process
def test_a_long_run_does_not_grow(tmp_path: Path) -> None:
    done = run_python(__file__, tmp_path, OMP_NUM_THREADS="1", PYTHONPATH=str(REPOSITORY / "tests"))
    assert done.returncode == 0, done.stderr
    runs = {mode: [Held(*numbers) for numbers in held] for mode, held in json.loads(done.stdout).items()}
    print(runs)
    assert set(runs) == set(VARIANTS)
    for mode, held in runs.items():
        assert len(held) == EPOCHS
        young, old = held[WARM_UP_EPOCHS - 1], held[-1]
        growths = sorted(
            after.bytes_of_its_own - before.bytes_of_its_own for before, after in pairwise(held[WARM_UP_EPOCHS - 1 :])
        )
        assert sum(growths[:-EXCEPTIONS]) <= ALLOWED_BYTES, mode
        assert (old.files, old.threads) == (young.files, young.threads), mode
        assert len(list((tmp_path / mode / "checkpoints").iterdir())) <= load_config().checkpoint.keep + 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
