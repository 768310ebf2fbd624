"""MXNet's built-in warm-up, which Factor, MultiFactor, Poly and Cosine share.

It overlays the curve: below `warmup_steps` the curve is not asked, and its own count goes on underneath. The
arithmetic follows `mx.lr_scheduler.LRScheduler` (MXNet 1.9.1) operation by operation, so that the rates
are the same to the last bit.
"""

from dataclasses import KW_ONLY

from mnist_trainer.fields import RATE, Choice, Whole, setting
from mnist_trainer.schedules.schedule import FromBaseLr, curve, duration

WARMUP_MODES = ("linear", "constant")


@curve
class BuiltinSchedule(FromBaseLr):
    """A curve of `mx.lr_scheduler`: warm-up to `base_lr`, then what the subclass says in `rate_after_warmup`.

    warmup_steps: iterations below this one are warm-up; 0 for none.
    warmup_begin_lr: where the warm-up starts, at most `base_lr`.
    warmup_mode: "linear" rises evenly to `base_lr`; "constant" keeps `warmup_begin_lr`.
    """

    _: KW_ONLY
    warmup_steps: int = duration(Whole(0), default=0)
    warmup_begin_lr: float = setting(RATE, default=0.0)
    warmup_mode: str = setting(Choice(WARMUP_MODES), default="linear")

    relations = ("warmup_begin_lr <= base_lr",)

    def rate_at(self, iteration: int) -> float:
        if iteration >= self.warmup_steps:
            return self.rate_after_warmup(iteration)
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        rise = (self.base_lr - self.warmup_begin_lr) * float(iteration) / float(self.warmup_steps)
        return self.warmup_begin_lr + rise

    def rate_after_warmup(self, iteration: int) -> float:
        """The learning rate of `iteration` ≥ `warmup_steps`."""
        raise NotImplementedError
