"""This program as `train` runs it: the same experiment, loaders, loop, observers and checkpoints, stopped between epochs."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark.worker import Task, Turns


def run(task: Task, turns: Turns) -> None:
    """Trains and evaluates an epoch each turn; what a run writes between two epochs is in neither time.

    settings: `config`, the tables of a configuration.
    """
    from mnist_trainer.config.loading import RunConfig

    config = RunConfig.from_tables(task.settings["config"])
    # One more than are asked for: the process ends while it waits for it, before a run's last figure is drawn.
    config = replace(config, training=replace(config.training, epochs=task.epochs + 1))

    from mnist_trainer.run_folder import RunFolder
    from mnist_trainer.training import experiment
    from mnist_trainer.training.callbacks import Callback
    from mnist_trainer.training.records import EpochMetrics, LoopState

    class Gate(Callback):
        """Lets the loop through to an epoch when it is its turn."""

        measured: dict[str, Any] | None = None

        def on_epoch_begin(self, state: LoopState) -> None:
            turns.wait(self.measured)

        def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
            self.measured = {
                "train_seconds": metrics.epoch_seconds,
                "test_seconds": metrics.test_seconds,
                "correct": metrics.test.correct,
            }

    prepared = experiment.prepare(config, Path(task.data_dir))
    with tempfile.TemporaryDirectory() as folder:
        experiment.run(
            prepared, RunFolder.create(Path(folder) / "run"), command_line=["mnist-trainer", "benchmark"], callbacks=[Gate()]
        )
