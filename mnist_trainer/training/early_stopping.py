"""The callback that finds the best epoch, and stops a training that no longer improves."""

from collections.abc import Iterable, Mapping
from typing import Any

from mnist_trainer.config.schema import EarlyStoppingConfig
from mnist_trainer.fields import check_fields
from mnist_trainer.training.callbacks import Callback
from mnist_trainer.training.records import EpochMetrics, LoopState


class EarlyStopping(Callback):
    """Finds the best epoch, and stops the training after `patience` epochs in a row without an improvement.

    An epoch improves if its score is better than that of the best epoch so far by more than `min_delta`. It is then the best
    epoch, as with `restore_best_weights` of Keras' EarlyStopping. Of equal epochs, the first is the best. The scores are those
    of the validation images. Without a validation loader those of the training images rank the epochs, and `patience` must be
    None. The test images play no part.

    The result depends only on the metrics of the completed epochs, so a resumed training stops at the same epoch.

    Args:
        metric: "loss" or "accuracy".
        patience: The number of epochs without an improvement after which to stop; None never stops.
        min_delta: The smallest change, not included, that is an improvement; a fraction for the accuracy.
        completed: The metrics of the epochs that were completed before a resumption, in order, as `EpochMetrics.to_row`.

    Raises:
        FieldError: An argument is out of range.

    Attributes:
        best: The metrics of the best epoch, as `EpochMetrics.to_row`; None before the first epoch ends.
    """

    def __init__(
        self,
        metric: str = EarlyStoppingConfig.metric,
        patience: int | None = EarlyStoppingConfig.patience,
        min_delta: float = EarlyStoppingConfig.min_delta,
        *,
        completed: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self.config = EarlyStoppingConfig(metric, patience, min_delta)
        check_fields(self.config)
        self.needs_validation = patience is not None
        self.best: Mapping[str, Any] | None = None
        self._epochs_without_improvement = 0
        for row in completed:
            self._rank(row)

    @property
    def stopped_because(self) -> str | None:
        """The reason to stop, as a sentence without a full stop; None to continue."""
        patience = self.config.patience
        if patience is None or self._epochs_without_improvement < patience:
            return None
        epochs = "the last epoch" if patience == 1 else f"the last {patience} epochs"
        return f"the validation {self.config.metric} has not improved in {epochs}"

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        self._rank(metrics.to_row())
        state.stopped_because = state.stopped_because or self.stopped_because

    def _rank(self, row: Mapping[str, Any]) -> None:
        if self.best is None or self._gain(row) > self._gain(self.best) + self.config.min_delta:
            self.best, self._epochs_without_improvement = row, 0
        else:
            self._epochs_without_improvement += 1

    def _gain(self, row: Mapping[str, Any]) -> float:
        """Return the score of an epoch; higher is better."""
        part = "validation" if "validation_loss" in row else "train"
        score = float(row[f"{part}_{self.config.metric}"])
        return -score if self.config.metric == "loss" else score
