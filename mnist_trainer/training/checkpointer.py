"""The callback that saves checkpoints as configured, and stops a run on request."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mnist_trainer.config.schema import RunConfig
from mnist_trainer.errors import Interrupted, RunError
from mnist_trainer.run_folder import ITERATIONS, METRICS, RunFolder, checkpoint_name
from mnist_trainer.training.callbacks import Callback
from mnist_trainer.training.checkpoint import capture, write
from mnist_trainer.training.early_stopping import EarlyStopping
from mnist_trainer.training.records import DIVERGENCE_ADVICE, EpochMetrics, IterationRecord, LoopState
from mnist_trainer.training.trainer import ScheduledTrainer


class Checkpointer(Callback):
    """Saves checkpoints at the end of each epoch, within epochs when they are due, and when the run stops on request.

    This must be the last callback, because a checkpoint records files that the others write.

    Args:
        folder: The run folder to write the checkpoints to.
        config: The configuration of the run; its table `checkpoint` specifies when to save.
        network: The network whose parameters are saved.
        trainer: The trainer whose state is saved.
        early_stopping: The callback that finds the best epoch, whose checkpoint is kept. It must be notified before this one.
        seconds_before: Duration of the run in seconds before it was resumed.
        stop_requested: A function that is called after each iteration. When it returns True, the run is saved and `Interrupted`
            is raised. With several processes it is called less often, because all processes must agree.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        network: Any,
        trainer: ScheduledTrainer,
        early_stopping: EarlyStopping,
        *,
        seconds_before: float = 0.0,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder = folder
        self.config = config
        self.network = network
        self.trainer = trainer
        self.early_stopping = early_stopping
        self.stop_requested = stop_requested
        self._began = time.monotonic() - seconds_before
        self._saved_at, self._saved_after = time.monotonic(), trainer.iteration  # a clock that never jumps

    @property
    def seconds(self) -> float:
        """Duration of the run in seconds, including the time before it was resumed."""
        return time.monotonic() - self._began

    def wants_sync(self, trainer: ScheduledTrainer) -> bool:
        if self._enough_iterations():
            return True
        # Clocks and signals differ between processes, and an agreement takes as long as an iteration. Several processes agree
        # only when losses are fetched anyway.
        return trainer.process_group.world_size == 1 and self._enough_time_or_stop()

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        if state.batch == state.batches_per_epoch or not records[-1].is_finite:
            return  # `on_epoch_end` saves the end of an epoch; a diverged run is not saved
        if self._enough_iterations() or self.trainer.process_group.all_reduce_any(self._enough_time_or_stop()):
            self.save(state)

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        self.save(LoopState(epoch=state.epoch + 1))

    def save(self, loop_state: LoopState) -> None:
        """Save a checkpoint, and stop the run if a stop is requested.

        Args:
            loop_state: The state of the loop from which to resume.

        Raises:
            RunError: A parameter or an optimizer state is not finite; nothing was saved.
            Interrupted: A stop is requested; the checkpoint was saved.
        """
        state, arrays = capture(self.network, self.trainer, loop_state)
        # Loss and gradients can be finite while the parameters are not.
        if not all(np.isfinite(values).all() for values in arrays.values()):
            raise RunError(
                f"a parameter or its optimizer state is no longer finite after iteration {self.trainer.iteration} "
                f"(learning rate {self.trainer.learning_rate}); {DIVERGENCE_ADVICE}"
            )
        # A checkpoint must record these files, or a resumed run would lose their first rows.
        written = [ITERATIONS, METRICS] if loop_state.epoch > 1 else [ITERATIONS] if loop_state.batch else []
        state |= {
            "seconds": self.seconds,
            "config": self.config.to_tables(),
            "files": self.folder.digests(written),
        }
        write(self.folder, state, arrays)
        self._remove_old()
        self._saved_at, self._saved_after = time.monotonic(), self.trainer.iteration
        if self.trainer.process_group.all_reduce_any(self.stop_requested()):
            iteration, total = self.trainer.iteration, self.config.run_length.total_iterations
            raise Interrupted(iteration, f"interrupted after iteration {iteration} of {total}")

    def _enough_iterations(self) -> bool:
        return self.trainer.iteration - self._saved_after >= self.config.checkpoint.every_iterations

    def _enough_time_or_stop(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        return minutes >= self.config.checkpoint.every_minutes or self.stop_requested()

    def _remove_old(self) -> None:
        best = self.early_stopping.best
        for saved in self.folder.checkpoints()[: -self.config.checkpoint.keep]:
            if best is None or saved.path.name != checkpoint_name(best["iteration"]):
                self.folder.remove_checkpoint(saved.path.name)
