"""Curves that fall for ever: Exponential, NaturalExponential, InverseTime, InverseSqrt and Noam."""

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar

from mnist_trainer.fields import FRACTION, Number, Switch, Whole, setting
from mnist_trainer.schedules.schedule import FromBaseLr, curve, duration


@curve
class _BySteps(FromBaseLr):
    """A decay in the number of `step`s that are behind: smoothly, or as a staircase.

    step: iterations in which the rate decays once.
    staircase: whole steps count alone. As with MXNet's FactorScheduler a drop comes after a step's last iteration.
    """

    step: int = duration()
    _: KW_ONLY
    staircase: bool = setting(Switch(), default=False)

    def rate_at(self, iteration: int) -> float:
        return self.rate_after(float(max(iteration - 1, 0) // self.step) if self.staircase else iteration / self.step)

    def rate_after(self, steps: float) -> float:
        """The learning rate after so many steps."""
        raise NotImplementedError

    def drops(self, total_iterations: int) -> list[int]:
        ends = range(self.step, total_iterations, self.step) if self.staircase else range(0)
        return [end for end in ends if self.rate_at(end + 1) < self.rate_at(end)]


@curve
class Exponential(_BySteps):
    """Falls by the same factor in every step: lr(k) = base_lr · factor^(k/step).

    Keras' `ExponentialDecay`, optax's `exponential_decay` and, with `step=1`, PyTorch's `ExponentialLR`. With `staircase`
    the exponent is ⌊(k−1)/step⌋, as in MXNet's `FactorScheduler`.

    >>> schedule = Exponential(step=250, factor=0.5, base_lr=1)
    >>> round(schedule(1), 6), schedule(250), schedule(500), schedule(1_000_000)
    (0.997231, 0.5, 0.25, 0.0)
    >>> Exponential(step=250, factor=0.5, base_lr=1, staircase=True)(251)
    0.5
    """

    factor: float = setting(FRACTION)

    example: ClassVar[dict[str, Any]] = {"step": 250, "factor": 0.5, "base_lr": 1}

    def rate_after(self, steps: float) -> float:
        return float(self.base_lr * self.factor**steps)


@curve
class _ByDecayRate(_BySteps):
    """A decay with a strength.

    decay_rate: how much a step takes away; 0 is none.
    """

    decay_rate: float = setting(Number(0))

    example: ClassVar[dict[str, Any]] = {"step": 250, "decay_rate": 1, "base_lr": 1}


@curve
class NaturalExponential(_ByDecayRate):
    """Falls exponentially, by an exponent a step: lr(k) = base_lr · exp(−decay_rate · k/step).

    Paddle's `NaturalExpDecay` (with `step=1`). With `staircase` k/step becomes ⌊(k−1)/step⌋.

    >>> schedule = NaturalExponential(step=250, decay_rate=1, base_lr=1)
    >>> round(schedule(1), 6), round(schedule(250), 6), round(schedule(500), 6), schedule(1_000_000)
    (0.996008, 0.367879, 0.135335, 0.0)
    """

    def rate_after(self, steps: float) -> float:
        return self.base_lr * math.exp(-self.decay_rate * steps)


@curve
class InverseTime(_ByDecayRate):
    """Falls as one over the time: lr(k) = base_lr / (1 + decay_rate · k/step).

    Keras' and TensorFlow's `InverseTimeDecay`; Paddle's has `step=1`. With `staircase` k/step becomes ⌊(k−1)/step⌋.

    >>> schedule = InverseTime(step=250, decay_rate=1, base_lr=1)
    >>> round(schedule(1), 6), schedule(250), schedule(750), round(schedule(1_000_000), 6)
    (0.996016, 0.5, 0.25, 0.00025)
    """

    def rate_after(self, steps: float) -> float:
        return self.base_lr / (1 + self.decay_rate * steps)


@curve
class InverseSqrt(FromBaseLr):
    """Falls as one over the square root: lr(k) = base_lr · √(timescale / (timescale + k)).

    Hugging Face's `get_inverse_sqrt_schedule`, and fairseq's `inverse_sqrt` with `timescale` the length of its warm-up, are
    `Warmup(InverseSqrt(timescale), warmup_steps)`.

    timescale: after three of these the rate has halved.

    >>> schedule = InverseSqrt(timescale=250, base_lr=1)
    >>> round(schedule(1), 6), schedule(750), round(schedule(1_000_000), 6)
    (0.998006, 0.5, 0.015809)
    """

    timescale: int = duration()

    example: ClassVar[dict[str, Any]] = {"timescale": 250, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        return self.base_lr * math.sqrt(self.timescale / (self.timescale + iteration))


@curve
class Noam(FromBaseLr):
    """Rises and falls as for the Transformer: lr(k) = base_lr · model_size^−½ · min(k^−½, k · warmup_steps^−1½).

    Vaswani et al., "Attention Is All You Need", 2017, equation 3; Paddle's `NoamDecay`. The highest rate, at `warmup_steps`, is
    base_lr / √(model_size · warmup_steps).

    base_lr: a factor of the whole.

    >>> schedule = Noam(model_size=512, warmup_steps=4000, base_lr=1)
    >>> f"{schedule(1):.4g}, {schedule(4000):.4g}, {schedule(16_000):.4g}, {schedule(1_000_000):.4g}"
    '1.747e-07, 0.0006988, 0.0003494, 4.419e-05'
    """

    model_size: int = setting(Whole(1))
    warmup_steps: int = duration()

    example: ClassVar[dict[str, Any]] = {"model_size": 512, "warmup_steps": 250, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        if iteration == 0:
            return 0.0
        return float(self.base_lr * self.model_size**-0.5 * min(iteration**-0.5, iteration * self.warmup_steps**-1.5))
