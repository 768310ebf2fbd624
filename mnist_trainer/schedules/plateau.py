"""What reacts to results: Plateau, which lowers a curve when the validation no longer improves.

It is a value like every curve. What it has learned stands in its fields, and `observe` returns the value that goes on from
there.
"""

import math
from dataclasses import replace
from typing import Any, ClassVar, Self

from mnist_trainer.fields import FRACTION, RATE, Choice, Number, Or, Whole, setting
from mnist_trainer.schedules.schedule import AnySchedule, Schedule, curve, inner_curve, learned
from mnist_trainer.schedules.stepwise import Constant

METRICS = ("loss", "accuracy")
THRESHOLD_MODES = ("rel", "abs")


@curve
class Plateau(Schedule):
    """A curve, lower by `factor` whenever results stop improving: lr(k) = max(curve(k) · factor^reductions, min_lr).

    PyTorch's `ReduceLROnPlateau` with its `eps` 0. Keras' callback of that name counts one epoch fewer: its patience p is
    p − 1 here; and Paddle's `ReduceOnPlateau` does not look at results during its cooldown. After each epoch the validation
    images are scored; after more than `patience` epochs in a row without an improvement, the rate is reduced once more. It is
    never raised above the curve, and `min_lr` does not raise it either.

    metric: "loss", which improves downwards, or "accuracy", upwards.
    patience: epochs without improvement that are tolerated.
    threshold, threshold_mode: how much better than the best so far counts: "rel" as a fraction of it, "abs" as a difference.
    min_lr: reductions end here.
    cooldown: epochs after a reduction in which bad ones are not counted.
    reductions, best, bad_epochs, cooldown_left: what it has learned from results; no settings.

    >>> schedule = Plateau(Constant(0.1), factor=0.5, patience=0)
    >>> schedule(1), schedule(1_000_000)
    (0.1, 0.1)
    >>> worse = schedule.observe(loss=1.0, accuracy=0.9).observe(loss=2.0, accuracy=0.8)
    >>> worse(1_000_000), schedule(1_000_000)
    (0.05, 0.1)
    """

    curve: AnySchedule = inner_curve()
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

    def drops(self, total_iterations: int) -> list[int]:
        return self._falls(self.curve.drops(total_iterations))

    @property
    def reacts(self) -> bool:
        return True

    def observe(self, loss: float, accuracy: float) -> Self:
        """The curve after one more epoch with these results on the validation images."""
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
        if not math.isfinite(result):  # PyTorch neither takes an infinite loss for better than none; and JSON has none
            return False
        if self.best is None:
            return True
        margin = self.threshold if self.metric == "accuracy" else -self.threshold
        bar = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return result > bar if self.metric == "accuracy" else result < bar
