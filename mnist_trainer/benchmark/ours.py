"""This program as `train` runs it, with the same loaders, loop, callbacks and checkpoints, but paused between epochs."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark.worker import Rounds, Task


def run(task: Task, rounds: Rounds) -> None:
    """Train for an epoch and evaluate, in each round. Neither time includes the files that a run writes between epochs.

    Args:
        task: The task; its setting `config` holds the tables of a configuration.
        rounds: The rounds of this worker.
    """
    from mnist_trainer.config.schema import RunConfig

    config = RunConfig.from_tables(task.settings["config"])
    # One more epoch than rounds: the process ends while it waits for that epoch, so the run's final figure is not drawn.
    config = replace(config, training=replace(config.training, epochs=task.epochs + 1))

    from mnist_trainer.run_folder import RunFolder
    from mnist_trainer.training import experiment
    from mnist_trainer.training.callbacks import Callback
    from mnist_trainer.training.records import EpochMetrics, LoopState

    class Gate(Callback):
        """Pauses the loop before each epoch until its round begins."""

        measured: dict[str, Any] | None = None

        def on_epoch_begin(self, state: LoopState) -> None:
            rounds.wait(self.measured)

        def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
            assert metrics.test  # an experiment always has test images
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
