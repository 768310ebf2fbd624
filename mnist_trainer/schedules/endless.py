"""Curves without an end: Exponential, NaturalExponential, InverseTime, InverseSqrt and Noam."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar

from mnist_trainer.fields import Number, Switch, Whole, setting
from mnist_trainer.schedules.schedule import Filling, FromBaseLr, curve, duration


@curve
class _BySteps(FromBaseLr):
    """Base of decays that are measured in steps of several iterations, smooth or as a staircase.

    Args:
        step: Iterations per step.
        staircase: True to count only whole steps. A drop comes after the last iteration of a step, as in MXNet's
            `FactorScheduler`.
        base_lr: The learning rate before any update.
    """

    step: int = duration(kw_only=False, filling=Filling(1, "epochs"))
    staircase: bool = setting(Switch(), default=False)

    def rate_at(self, iteration: int) -> float:
        return self.rate_after(float(max(iteration - 1, 0) // self.step) if self.staircase else iteration / self.step)

    def rate_after(self, steps: float) -> float:
        """Return the learning rate after a number of steps, which need not be whole."""
        raise NotImplementedError

    def level_ends(self, total_iterations: int) -> Iterable[int]:
        return range(self.step, max(total_iterations, self.step + 1), self.step) if self.staircase else ()


@curve
class Exponential(_BySteps):
    """Falls or rises by the same factor in every step, smoothly or as a staircase.

    lr(k) = base_lr · factor^(k / step)

    With `staircase` the exponent is ⌊(k − 1) / step⌋, as in MXNet's `FactorScheduler`.

    Source: Keras' `ExponentialDecay`, optax's `exponential_decay` and, with `step=1`, PyTorch's `ExponentialLR`. With
    `staircase`, PyTorch's `StepLR`, also for factors above 1, which MXNet's `FactorScheduler` refuses.

    Args:
        step: Iterations in which the rate changes by `factor`.
        factor: The factor of each step; above 1 the rate rises.
        base_lr: The learning rate before any update.
        staircase: True to change after each step, False to change smoothly.

    Raises:
        FieldError: An argument is invalid.
        ScheduleError: The rate is beyond the range of float32 (raised when the schedule is called).

    Example:
        >>> schedule = Exponential(step=250, factor=0.5, base_lr=1)
        >>> round(schedule(1), 6), schedule(250), schedule(500), schedule(1_000_000)
        (0.997231, 0.5, 0.25, 0.0)
        >>> Exponential(step=250, factor=0.5, base_lr=1, staircase=True)(251)
        0.5
    """

    factor: float = setting(Number(0))

    example: ClassVar[dict[str, Any]] = {"step": 250, "factor": 0.5, "base_lr": 1}

    @property
    def max_rate(self) -> float:
        return math.inf if self.factor > 1 else self.base_lr

    def rate_after(self, steps: float) -> float:
        try:
            return float(self.base_lr * self.factor**steps)
        except OverflowError:
            return math.inf if self.base_lr else 0.0


@curve
class _ByDecayRate(_BySteps):
    """Base of decays with a strength.

    Args:
        step: Iterations per step.
        decay_rate: The strength of the decay in a step; 0 for no decay.
        base_lr: The learning rate before any update.
        staircase: True to drop after each step, False to fall smoothly.
    """

    decay_rate: float = setting(Number(0))

    example: ClassVar[dict[str, Any]] = {"step": 250, "decay_rate": 1, "base_lr": 1}


@curve
class NaturalExponential(_ByDecayRate):
    """Falls exponentially, by the factor exp(−decay_rate) in every step.

    lr(k) = base_lr · exp(−decay_rate · k / step)

    With `staircase` the number of steps k / step becomes ⌊(k − 1) / step⌋.

    Source: Paddle's `NaturalExpDecay`, with `step=1`.

    Args:
        step: Iterations per step.
        decay_rate: The negative exponent of the factor of each step; 0 for no decay.
        base_lr: The learning rate before any update.
        staircase: True to drop after each step, False to fall smoothly.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = NaturalExponential(step=250, decay_rate=1, base_lr=1)
        >>> round(schedule(1), 6), round(schedule(250), 6), round(schedule(500), 6), schedule(1_000_000)
        (0.996008, 0.367879, 0.135335, 0.0)
    """

    def rate_after(self, steps: float) -> float:
        return self.base_lr * math.exp(-self.decay_rate * steps)


@curve
class InverseTime(_ByDecayRate):
    """Falls in inverse proportion to the elapsed time, or to a power of it.

    lr(k) = base_lr / (1 + decay_rate · k / step)^power

    With `staircase` the number of steps k / step becomes ⌊(k − 1) / step⌋.

    Source: `InverseTimeDecay` of TensorFlow and Keras; Paddle's, with `step=1`. With `power`, the policy "inv" of Caffe, and
    the stable functions "rsqrt" and "power" of timm's `WSDLRScheduler`, from Shen et al., "Power Scheduler", 2024. A pure power
    k^−power is `Shift(InverseTime(step=1, decay_rate=1, power=power), -1)`.

    Args:
        step: Iterations per step.
        decay_rate: The increase of the denominator in a step; 0 for no decay.
        power: The exponent of the denominator.
        base_lr: The learning rate before any update.
        staircase: True to drop after each step, False to fall smoothly.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = InverseTime(step=250, decay_rate=1, base_lr=1)
        >>> round(schedule(1), 6), schedule(250), schedule(750), round(schedule(1_000_000), 6)
        (0.996016, 0.5, 0.25, 0.00025)
        >>> InverseTime(step=250, decay_rate=1, base_lr=1, power=0.5)(750)
        0.5
    """

    power: float = setting(Number(0, 1000), default=1.0)

    def rate_after(self, steps: float) -> float:
        denominator = 1 + self.decay_rate * steps
        if self.power == 1:
            return self.base_lr / denominator
        return float(self.base_lr * denominator**-self.power)


@curve
class InverseSqrt(FromBaseLr):
    """Falls in inverse proportion to the square root of the elapsed time.

    lr(k) = base_lr · √(timescale / (timescale + k))

    Source: Hugging Face's `get_inverse_sqrt_schedule` and fairseq's `inverse_sqrt`. Both begin with a warm-up:
    `Warmup(InverseSqrt(timescale), warmup_steps)`. In fairseq's, `timescale` is the length of the warm-up.

    Args:
        timescale: Iterations that set the pace: after three times as many, the rate has halved.
        base_lr: The learning rate before any update.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = InverseSqrt(timescale=250, base_lr=1)
        >>> round(schedule(1), 6), schedule(750), round(schedule(1_000_000), 6)
        (0.998006, 0.5, 0.015809)
    """

    timescale: int = duration(kw_only=False, filling=Filling(1, "epochs"))

    example: ClassVar[dict[str, Any]] = {"timescale": 250, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        return self.base_lr * math.sqrt(self.timescale / (self.timescale + iteration))


@curve
class Noam(FromBaseLr):
    """Rises in a straight line, then falls with the inverse square root, as in the Transformer paper.

    lr(k) = base_lr · model_size^(−1/2) · min(k^(−1/2), k · warmup_steps^(−3/2))

    The highest rate, at iteration `warmup_steps`, is base_lr / √(model_size · warmup_steps).

    Source: Vaswani et al., "Attention Is All You Need", 2017, equation 3; Paddle's `NoamDecay`.

    Args:
        model_size: The width of the model, d_model in the paper.
        warmup_steps: Iterations in which the rate rises.
        base_lr: A factor of all rates; the paper has 1.

    Raises:
        FieldError: An argument is invalid.

    Example:
        >>> schedule = Noam(model_size=512, warmup_steps=4000, base_lr=1)
        >>> f"{schedule(1):.4g}, {schedule(4000):.4g}, {schedule(16_000):.4g}, {schedule(1_000_000):.4g}"
        '1.747e-07, 0.0006988, 0.0003494, 4.419e-05'
    """

    model_size: int = setting(Whole(1), kw_only=False)
    warmup_steps: int = duration(filling=Filling(0.1, "fraction"))

    example: ClassVar[dict[str, Any]] = {"model_size": 512, "warmup_steps": 250, "base_lr": 1}

    def rate_at(self, iteration: int) -> float:
        if iteration == 0:
            return 0.0
        return float(self.base_lr * self.model_size**-0.5 * min(iteration**-0.5, iteration * self.warmup_steps**-1.5))
