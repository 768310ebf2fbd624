"""MXNet's built-in warm-up, which Factor, MultiFactor, Poly and Cosine share.

It overlays the curve: iterations below `warmup_steps` have the rates of the warm-up, and the curve is not shifted. The
arithmetic follows `mx.lr_scheduler.LRScheduler` (MXNet 1.9.1) operation by operation, so the rates are the same to the last
bit.
"""

from typing import Literal, get_args

from mnist_trainer.fields import RATE, Choice, Whole, setting
from mnist_trainer.schedules.schedule import FromBaseLr, curve, duration

BuiltinWarmupMode = Literal["linear", "constant"]


@curve
class BuiltinSchedule(FromBaseLr):
    """Base of the curves of `mx.lr_scheduler`: a warm-up to `base_lr`, then the curve.

    A subclass implements `rate_after_warmup`.

    Args:
        base_lr: The learning rate at the end of the warm-up.
        warmup_steps: The iteration at which the warm-up is over; 0 for no warm-up.
        warmup_begin_lr: The learning rate at which the warm-up begins, at most `base_lr`.
        warmup_mode: "linear" rises evenly to `base_lr`; "constant" keeps `warmup_begin_lr`.
    """

    warmup_steps: int = duration(Whole(0), default=0)
    warmup_begin_lr: float = setting(RATE, default=0.0)
    warmup_mode: BuiltinWarmupMode = setting(Choice(get_args(BuiltinWarmupMode)), default="linear")

    relations = ("warmup_begin_lr <= base_lr",)

    def rate_at(self, iteration: int) -> float:
        if iteration >= self.warmup_steps:
            return self.rate_after_warmup(iteration)
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        rise = (self.base_lr - self.warmup_begin_lr) * float(iteration) / float(self.warmup_steps)
        return self.warmup_begin_lr + rise

    def rate_after_warmup(self, iteration: int) -> float:
        """Return the learning rate of `iteration`, which is at least `warmup_steps`."""
        raise NotImplementedError
