"""The schedule that reacts to results: Plateau, which lowers a curve when validation results stop improving.

Like every curve it is immutable. Its fields include the state derived from results, and `observe` returns a Plateau with the
next state.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Self

from mnist_trainer.fields import FRACTION, RATE, Choice, Number, Or, Whole, setting
from mnist_trainer.schedules.schedule import AnySchedule, Filling, Schedule, curve, inner_curve, learned
from mnist_trainer.schedules.stepwise import Constant

METRICS = ("loss", "accuracy")
THRESHOLD_MODES = ("rel", "abs")


@curve
class Plateau(Schedule):
    """Lowers a curve by `factor` each time that the validation results stop improving.

    lr(k) = max(curve(k) · factor^reductions, min(curve(k), min_lr))

    The validation images are evaluated after each epoch. After more than `patience` epochs in a row without an improvement
    there is one more reduction. The rate is never above that of the curve.

    Source: PyTorch's `ReduceLROnPlateau` with `eps=0`. Keras' callback of that name counts one epoch fewer: a patience of p
    there is p − 1 here. Paddle's `ReduceOnPlateau` ignores the results of the epochs in its cooldown.

    Args:
        curve: The schedule to lower.
        factor: The factor of each reduction, from 0 to 1.
        patience: Epochs without an improvement that are tolerated.
        threshold: The amount by which a result must be better than the best one so far.
        threshold_mode: "rel" for a fraction of the best result, "abs" for a difference from it.
        cooldown: Epochs after a reduction that do not count as epochs without an improvement.
        min_lr: The lowest learning rate to which reductions lead.
        metric: "loss", which improves by falling, or "accuracy", which improves by rising.
        reductions: State, not a setting: the number of reductions so far.
        best: State, not a setting: the best result so far; None before the first.
        bad_epochs: State, not a setting: the number of epochs in a row without an improvement.
        cooldown_left: State, not a setting: the remaining epochs of the cooldown.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = Plateau(Constant(0.1), factor=0.5, patience=0)
        >>> schedule(1), schedule(1_000_000)
        (0.1, 0.1)
        >>> worse = schedule.observe(loss=1.0, accuracy=0.9).observe(loss=2.0, accuracy=0.8)
        >>> worse(1_000_000), schedule(1_000_000)
        (0.05, 0.1)
    """

    curve: AnySchedule = inner_curve(Filling({"name": "Constant"}))
    factor: float = setting(FRACTION, default=0.1)
    patience: int = setting(Whole(0), default=10)
    threshold: float = setting(Number(0), default=1e-4)
    threshold_mode: str = setting(Choice(THRESHOLD_MODES), default="rel")
    cooldown: int = setting(Whole(0), default=0)
    min_lr: float = setting(RATE, default=0.0)
    metric: str = setting(Choice(METRICS), default="loss")
    reductions: int = learned(Whole(0), default=0)
    best: float | None = learned(Or(None, Number()), default=None)
    bad_epochs: int = learned(Whole(0), default=0)
    cooldown_left: int = learned(Whole(0), default=0)

    example: ClassVar[dict[str, Any]] = {"curve": Constant(1), "factor": 0.5, "patience": 2}

    def rate_at(self, iteration: int) -> float:
        learning_rate = self.curve.rate_at(iteration)
        reduced = learning_rate * float(self.factor**self.reductions)
        return max(reduced, min(self.min_lr, learning_rate))

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return self.curve.level_ends(total_iterations)

    @property
    def reacts(self) -> bool:
        return True

    def observe(self, loss: float, accuracy: float) -> Self:
        """Return the schedule after one more epoch with these results on the validation images."""
        result = float(loss if self.metric == "loss" else accuracy)
        inner = self.curve.observe(loss, accuracy)
        if self._improves(result):
            return replace(self, curve=inner, best=result, bad_epochs=0, cooldown_left=max(self.cooldown_left - 1, 0))
        if self.cooldown_left > 0:
            return replace(self, curve=inner, bad_epochs=0, cooldown_left=self.cooldown_left - 1)
        if self.bad_epochs < self.patience:
            return replace(self, curve=inner, bad_epochs=self.bad_epochs + 1)
        return replace(self, curve=inner, reductions=self.reductions + 1, bad_epochs=0, cooldown_left=self.cooldown)

    def _improves(self, result: float) -> bool:
        if not math.isfinite(result):  # as in PyTorch, an infinite loss is no better than none; and JSON has no infinity
            return False
        if self.best is None:
            return True
        margin = self.threshold if self.metric == "accuracy" else -self.threshold
        bar = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return result > bar if self.metric == "accuracy" else result < bar
