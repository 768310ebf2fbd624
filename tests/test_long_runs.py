"""Long runs: after many epochs a run holds as much memory, as many files and as many threads as after five.

python tests/test_long_runs.py FOLDER    trains into FOLDER and prints what the process held after each epoch
"""

import gc
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from programs import REPOSITORY, run_python

from mnist_trainer import experiment
from mnist_trainer.config import Override, load_config
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.trainer import EpochMetrics, Observer

EPOCHS = 16
YOUNG = 5  # MXNet's pools and Python's caches are filled by then

# From epoch YOUNG on this process grew by 0.0 to 0.6 MB in a dozen measurements: malloc enlarges the heap of a thread in
# steps of some 100 KB. A batch that each of the eleven epochs leaves behind adds 5 MB, and 13 MB where it is a view of all
# images of its epoch. Both hold for a process that does nothing else: where other tests have run, malloc gives memory back
# and takes it anew, by more than that.
ALLOWED_BYTES = 1_500_000

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
    """What this process holds."""

    bytes_of_its_own: int  # in memory, without what is mapped from files
    files: int
    threads: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
        files, threads = (len(list(Path("/proc/self", of).iterdir())) for of in ("fd", "task"))
        return cls((resident - shared) * os.sysconf("SC_PAGE_SIZE"), files, threads)


class Watch(Observer):
    """What is held after each epoch."""

    def __init__(self) -> None:
        self.after: list[Held] = []

    def epoch_done(self, metrics: EpochMetrics) -> None:
        self.after.append(Held.now())


def main(folder: Path) -> None:
    after: dict[str, list[Held]] = {}
    for scheduler_mode, loader in VARIANTS.items():
        settings = SETTINGS | {"training.scheduler_mode": scheduler_mode, "data.loader": loader}
        config = load_config(overrides=[Override(f"--set {key}", key, value) for key, value in settings.items()])
        config = replace(config, checkpoint=replace(config.checkpoint, every_iterations=2))
        watch = Watch()
        prepared = experiment.prepare(config, REPOSITORY / "data" / "mnist")
        experiment.run(prepared, RunFolder.create(folder / scheduler_mode), observers=[watch])
        after[scheduler_mode] = watch.after
    print(json.dumps(after))


@pytest.mark.slow
@pytest.mark.process
def test_a_long_run_grows_in_nothing(tmp_path: Path) -> None:
    done = run_python(__file__, tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    after = {mode: [Held(*each) for each in held] for mode, held in json.loads(done.stdout).items()}
    print(after)
    assert set(after) == set(VARIANTS)
    for mode, held in after.items():
        assert len(held) == EPOCHS
        young, old = held[YOUNG - 1], held[-1]
        assert old.bytes_of_its_own - young.bytes_of_its_own <= ALLOWED_BYTES, mode
        assert (old.files, old.threads) == (young.files, young.threads), mode
        assert len(list((tmp_path / mode / "checkpoints").iterdir())) <= load_config().checkpoint.keep + 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
