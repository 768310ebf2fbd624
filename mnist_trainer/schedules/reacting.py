"""Schedules that react to results: Plateau and NewBob, which lower a curve, and Greedy, which also raises its rate.

Like every curve they are immutable. Their fields include the state derived from results, and `observe` returns a curve with the
next state.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, get_args

from mnist_trainer.fields import FRACTION, RATE, Choice, Number, Or, Whole, setting
from mnist_trainer.schedules.schedule import AnySchedule, Filling, FromBaseLr, Schedule, curve, inner_curve, learned
from mnist_trainer.schedules.stepwise import Constant

Metric = Literal["loss", "accuracy"]
ThresholdMode = Literal["rel", "abs"]


@curve
class Reacting(Schedule):
    """Base of schedules that react to the results of the training.

    Args:
        metric: The result to react to.
    """

    metric: Metric = setting(Choice(get_args(Metric)), default="loss")

    @property
    def reacts(self) -> bool:
        return True

    def observe(self, loss: float, accuracy: float) -> Self:
        """Return the schedule after one more epoch with these results on the validation images."""
        inner = self._with_inner(lambda _, held: held.observe(loss, accuracy))
        return inner.after_result(float(loss if self.metric == "loss" else accuracy))

    def after_result(self, result: float) -> Self:
        """Return the schedule after one more epoch.

        Args:
            result: The result of the validation, which may be infinite or nan.
        """
        raise NotImplementedError


@curve
class _WithThreshold(Reacting):
    """Base of schedules that compare a result with the best one so far.

    Args:
        threshold: The amount by which a result must be better than the best one so far.
        threshold_mode: "rel" for a fraction of the best result, "abs" for a difference from it.
        best: State, not a setting: the best result so far; None before the first.
    """

    threshold: float = setting(Number(0), default=1e-4)
    threshold_mode: ThresholdMode = setting(Choice(get_args(ThresholdMode)), default="rel")
    best: float | None = learned(Or(None, Number()), default=None)

    def improves(self, result: float) -> bool:
        """Return True if a result is better than the best one so far."""
        if not math.isfinite(result):  # as in PyTorch, an infinite loss is no better than none; and JSON has no infinity
            return False
        if self.best is None:
            return True
        margin = self.threshold if self.metric == "accuracy" else -self.threshold
        bar = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return result > bar if self.metric == "accuracy" else result < bar


@curve
class Plateau(_WithThreshold):
    """Lowers a curve by `factor` each time that the validation results stop improving.

    lr(k) = max(curve(k) · factor^reductions, min(curve(k), min_lr))

    The validation images are evaluated after each epoch. After more than `patience` epochs in a row without an improvement
    there is one more reduction. The rate is never above that of the curve.

    Source: PyTorch's `ReduceLROnPlateau`, whose `eps` is 1e-8 by default. Keras' callback of that name counts one epoch fewer:
    a patience of p there is max(p − 1, 0) here, and a cooldown of c is max(c − 1, 0). Paddle's
    `ReduceOnPlateau` ignores the results of the epochs in its cooldown.

    Args:
        curve: The schedule to lower.
        factor: The factor of each reduction, from 0 to 1.
        patience: Epochs without an improvement that are tolerated.
        threshold: The amount by which a result must be better than the best one so far.
        threshold_mode: "rel" for a fraction of the best result, "abs" for a difference from it.
        cooldown: Epochs after a reduction that do not count as epochs without an improvement.
        min_lr: The lowest learning rate to which reductions lead.
        eps: A reduction is left out if it would lower the highest rate of the curve by no more than this.
        metric: "loss", which improves by falling, or "accuracy", which improves by rising.
        reductions: State, not a setting: the number of reductions so far.
        best: State, not a setting: the best result so far; None before the first.
        bad_epochs: State, not a setting: the number of epochs in a row without an improvement.
        cooldown_left: State, not a setting: the remaining epochs of the cooldown.

    Raises:
        FieldError: An argument is invalid, or `eps` is above 0 and the highest rate of the curve is not known.

    Example:
        >>> schedule = Plateau(Constant(0.1), factor=0.5, patience=0)
        >>> schedule(1), schedule(1_000_000)
        (0.1, 0.1)
        >>> worse = schedule.observe(loss=1.0, accuracy=0.9).observe(loss=2.0, accuracy=0.8)
        >>> worse(1_000_000), schedule(1_000_000)
        (0.05, 0.1)
    """

    curve: AnySchedule = inner_curve(kw_only=False, filling=Filling({"name": "Constant"}))
    factor: float = setting(FRACTION, default=0.1)
    patience: int = setting(Whole(0), default=10)
    cooldown: int = setting(Whole(0), default=0)
    min_lr: float = setting(RATE, default=0.0)
    eps: float = setting(Number(0), default=0.0)
    reductions: int = learned(Whole(0), default=0)
    bad_epochs: int = learned(Whole(0), default=0)
    cooldown_left: int = learned(Whole(0), default=0)

    example: ClassVar[dict[str, Any]] = {"curve": Constant(1), "factor": 0.5, "patience": 2}

    def check_together(self) -> None:
        if self.eps and not math.isfinite(self.curve.max_rate):
            raise self.refused("eps", "must be 0, since the highest rate of the curve is not known")

    def rate_at(self, iteration: int) -> float:
        return self._reduced(self.curve.rate_at(iteration), self.reductions)

    def _reduced(self, learning_rate: float, reductions: int) -> float:
        return max(learning_rate * float(self.factor**reductions), min(self.min_lr, learning_rate))

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return self.curve.level_ends(total_iterations)

    def after_result(self, result: float) -> Self:
        if self.improves(result):
            return replace(self, best=result, bad_epochs=0, cooldown_left=max(self.cooldown_left - 1, 0))
        if self.cooldown_left > 0:
            return replace(self, bad_epochs=0, cooldown_left=self.cooldown_left - 1)
        if self.bad_epochs < self.patience:
            return replace(self, bad_epochs=self.bad_epochs + 1)
        reductions = self.reductions + (not self.eps or self._next_reduction() > self.eps)
        return replace(self, reductions=reductions, bad_epochs=0, cooldown_left=self.cooldown)

    def _next_reduction(self) -> float:
        """Return how much the next reduction lowers the highest rate of the curve."""
        highest = self.curve.max_rate
        return self._reduced(highest, self.reductions) - self._reduced(highest, self.reductions + 1)


@curve
class NewBob(Reacting):
    """Lowers a curve by `factor` after each epoch that improves too little on the epoch before.

    lr(k) = curve(k) · factor^reductions

    The improvement is the fraction by which the loss has fallen, or the accuracy has risen, since the epoch before. A loss of 0
    cannot improve. Each `patience` + 1 epochs with an improvement below `threshold` lead to one reduction; they need not be in
    a row.

    Source: SpeechBrain's `NewBobScheduler`, whose `patient` is `patience`.

    Args:
        curve: The schedule to lower.
        factor: The factor of each reduction, from 0 to 1.
        threshold: The improvement that is required, as a fraction of the result of the epoch before.
        patience: The number of epochs without it that are tolerated before each reduction.
        metric: "loss", which improves by falling, or "accuracy", which improves by rising.
        reductions: State, not a setting: the number of reductions so far.
        previous: State, not a setting: the result of the epoch before; None before the first.
        tolerated: State, not a setting: the number of epochs tolerated since the last reduction.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = NewBob(Constant(1))
        >>> schedule(1), schedule(1_000_000)
        (1.0, 1.0)
        >>> schedule.observe(loss=2.0, accuracy=0.5).observe(loss=2.5, accuracy=0.4)(1_000_000)
        0.5
    """

    curve: AnySchedule = inner_curve(kw_only=False, filling=Filling({"name": "Constant"}))
    factor: float = setting(FRACTION, default=0.5)
    threshold: float = setting(Number(), default=0.0025)
    patience: int = setting(Whole(0), default=0)
    reductions: int = learned(Whole(0), default=0)
    previous: float | None = learned(Or(None, Number()), default=None)
    tolerated: int = learned(Whole(0), default=0)

    example: ClassVar[dict[str, Any]] = {"curve": Constant(1)}

    def rate_at(self, iteration: int) -> float:
        return self.curve.rate_at(iteration) * float(self.factor**self.reductions)

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return self.curve.level_ends(total_iterations)

    def after_result(self, result: float) -> Self:
        following = replace(self, previous=result) if math.isfinite(result) else self
        if self.previous is None or self._improvement(result) >= self.threshold:
            return following
        if self.tolerated < self.patience:
            return replace(following, tolerated=self.tolerated + 1)
        return replace(following, tolerated=0, reductions=self.reductions + 1)

    def _improvement(self, result: float) -> float:
        if not math.isfinite(result):
            return -math.inf
        if not self.previous:
            return math.inf if self.metric == "accuracy" and result > 0 else 0.0
        gain = result - self.previous if self.metric == "accuracy" else self.previous - result
        return gain / self.previous


@curve
class Greedy(_WithThreshold, FromBaseLr):
    """Raises the rate while the results improve, and lowers it when they do not.

    lr(k) = learning_rate, which starts from base_lr

    After more than `patience` epochs in a row with a new best result the rate is divided by `factor`, after more than
    `patience` epochs in a row without one it is multiplied by it. To vary a curve in this way, multiply the two in a `Product`.

    Source: Hugging Face's `GreedyLR` ("greedy"), from "GreedyLR: A Novel Adaptive Learning Rate Scheduler", 2025, without its
    average of several results (`smooth`).

    Args:
        factor: The factor of each reduction, above 0 and below 1.
        patience: Epochs in a row with, or without, an improvement that change nothing.
        threshold: The amount by which a result must be better than the best one so far.
        threshold_mode: "rel" for a fraction of the best result, "abs" for a difference from it.
        cooldown: Epochs after a reduction whose results are ignored.
        warmup: Epochs after an increase whose results are ignored.
        min_lr: The lowest learning rate to which a reduction leads.
        max_lr: The highest learning rate to which an increase leads.
        eps: A change is left out if it is at most this.
        reset_start: The number of reductions at `min_lr`, without an increase between them, after which the rate and the state
            are reset.
        metric: "loss", which improves by falling, or "accuracy", which improves by rising.
        base_lr: The learning rate at the beginning.
        learning_rate: State, not a setting: the current rate; None for `base_lr`.
        best: State, not a setting: the best result so far; None before the first.
        good_epochs: State, not a setting: the number of epochs in a row with an improvement.
        bad_epochs: State, not a setting: the number of epochs in a row without one.
        ignored: State, not a setting: the number of further epochs whose results are ignored.
        at_min: State, not a setting: the number of reductions at `min_lr` since the last increase.

    Raises:
        FieldError: An argument is invalid, or `min_lr` is above `max_lr`.

    Example:
        >>> schedule = Greedy(factor=0.5, patience=0, base_lr=0.1)
        >>> schedule(1), schedule(1_000_000)
        (0.1, 0.1)
        >>> better = schedule.observe(loss=2.0, accuracy=0.5)
        >>> better(1_000_000), better.observe(loss=2.5, accuracy=0.4)(1_000_000)
        (0.2, 0.1)
    """

    factor: float = setting(Number(above=0, below=1), default=0.95)
    patience: int = setting(Whole(0), default=10)
    threshold: float = setting(Number(0), default=1e-6)
    threshold_mode: ThresholdMode = setting(Choice(get_args(ThresholdMode)), default="abs")
    cooldown: int = setting(Whole(0), default=0)
    warmup: int = setting(Whole(0), default=0)
    min_lr: float = setting(RATE, default=1e-3)
    max_lr: float = setting(RATE, default=1.0)
    eps: float = setting(Number(0), default=1e-8)
    reset_start: int = setting(Whole(1), default=500)
    learning_rate: float | None = learned(Or(None, RATE), default=None)
    good_epochs: int = learned(Whole(0), default=0)
    bad_epochs: int = learned(Whole(0), default=0)
    ignored: int = learned(Whole(0), default=0)
    at_min: int = learned(Whole(0), default=0)

    relations = ("min_lr <= max_lr",)
    example: ClassVar[dict[str, Any]] = {"base_lr": 1}

    @property
    def last_change(self) -> int | None:
        return 1

    def rate_at(self, iteration: int) -> float:
        return self.base_lr if self.learning_rate is None else self.learning_rate

    def after_result(self, result: float) -> Self:
        if self.ignored > 0:
            return replace(self, ignored=self.ignored - 1, good_epochs=0, bad_epochs=0)
        if self.improves(result):
            following = replace(self, best=result, good_epochs=self.good_epochs + 1, bad_epochs=0)
            return following._raised() if following.good_epochs > self.patience else following
        following = replace(self, good_epochs=0, bad_epochs=self.bad_epochs + 1)
        return following._lowered() if following.bad_epochs > self.patience else following

    def _raised(self) -> Self:
        rate = self.rate_at(0)
        higher = min(rate / self.factor, self.max_lr)
        return replace(
            self,
            learning_rate=higher if higher - rate > self.eps else rate,
            good_epochs=0,
            ignored=self.warmup,
            at_min=0,
        )

    def _lowered(self) -> Self:
        rate = self.rate_at(0)
        lower = max(rate * self.factor, self.min_lr)
        lower = lower if rate - lower > self.eps else rate
        at_min = self.at_min + (lower <= self.min_lr)
        if at_min >= self.reset_start:
            return replace(self, learning_rate=None, best=None, bad_epochs=0, at_min=0, ignored=self.cooldown)
        return replace(self, learning_rate=lower, bad_epochs=0, ignored=self.cooldown, at_min=at_min)
