"""This program as `train` runs it: the same experiment, loaders, loop, observers and checkpoints, stopped between epochs."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark.worker import Task, Turns


def run(task: Task, turns: Turns) -> None:
    """Trains and evaluates an epoch each turn; what a run writes between two epochs is in neither time.

    settings: `config`, the tables of a configuration.
    """
    from mnist_trainer.config.schema import RunConfig

    config = RunConfig.from_tables(task.settings["config"])
    # One more than are asked for: the process ends while it waits for it, before a run's last figure is drawn.
    config = replace(config, training=replace(config.training, epochs=task.epochs + 1))

    from mnist_trainer.run_folder import RunFolder
    from mnist_trainer.training import experiment
    from mnist_trainer.training.loop import EpochMetrics, IterationRecord, Observer

    class Gate(Observer):
        """Lets the loop through to an epoch when it is its turn."""

        measured: dict[str, Any] | None = None

        def epoch_started(self, epoch: int, batches: int, done: int) -> None:
            turns.wait(self.measured)

        def iterations_done(self, records: Sequence[IterationRecord]) -> None:
            pass

        def epoch_done(self, metrics: EpochMetrics) -> None:
            self.measured = {
                "train_seconds": metrics.epoch_seconds,
                "test_seconds": metrics.test_seconds,
                "correct": metrics.test.correct,
            }

    prepared = experiment.prepare(config, Path(task.data_dir))
    with tempfile.TemporaryDirectory() as folder:
        experiment.run(prepared, RunFolder.create(Path(folder) / "run"), ["mnist-trainer", "benchmark"], [Gate()])
