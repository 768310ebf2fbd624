"""The learning-rate range test: the loss at rates from too low to too high.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2015, section 3.3; MXNet's tutorial "Learning Rate Finder".
A sweep leaves the network as it was and writes no files; `lr_search` does.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from statistics import fmean, linear_regression, stdev
from typing import Any, NamedTuple

import numpy as np

from mnist_trainer.config.schema import SweepConfig
from mnist_trainer.console import shown
from mnist_trainer.fields import FieldValueError
from mnist_trainer.schedules import Constant, Warmup
from mnist_trainer.training.step import TrainStep
from mnist_trainer.training.trainer import create_trainer

FIRST_SETTLED_ITERATION = 10
"""First iteration at which the moving average covers enough batches to be used."""

_HALF_LINE = 5  # the slope at an iteration is that of a straight line through this many others on each side of it
_CLEAR_FALL = 3  # standard deviations of the first losses: batches differ even if the network learns nothing


class SweepRow(NamedTuple):
    """One iteration of a sweep."""

    iteration: int  # counted from 1
    learning_rate: float  # read back from the trainer after the update
    loss: float  # mean over the batch, before the update
    smoothed_loss: float


@dataclass(frozen=True)
class LrSweep:
    """The rows of a sweep and the suggested rates.

    The moving average lags, so that both suggestions are higher than without it: by 9 iterations with the defaults, which is
    a factor of 1.4.

    Attributes:
        rows: The iterations, in order; their rates grow by a constant factor.
        stopped_because: A clause such as "the loss became nan".
    """

    rows: tuple[SweepRow, ...]
    stopped_because: str

    @property
    def steepest(self) -> float | None:
        """Rate at the fastest fall of the smoothed loss against the logarithm of the rate; None if `why` gives a reason."""
        return _rate_or_none(_steepest(self.rows))

    @property
    def tenth_of_minimum(self) -> float | None:
        """Tenth of the rate with the lowest smoothed loss; None if `why` gives a reason."""
        return _rate_or_none(_tenth_of_minimum(self.rows))

    @property
    def suggestion(self) -> float | None:
        """Rate to try: `steepest`, or else `tenth_of_minimum`, or else None."""
        return self.steepest or self.tenth_of_minimum

    @property
    def why(self) -> str:
        """The reason for the suggestion or its absence: one sentence without a full stop."""
        steepest, tenth = _steepest(self.rows), _tenth_of_minimum(self.rows)
        if isinstance(steepest, str) and isinstance(tenth, str):
            return steepest if steepest == tenth else f"{steepest}; {tenth}"
        if isinstance(steepest, str):
            return f"a tenth of the rate with the lowest smoothed loss; there is no steepest fall: {steepest}"
        if isinstance(tenth, str):
            return f"the smoothed loss falls fastest there; there is no tenth of its minimum's rate: {tenth}"
        return "the smoothed loss falls fastest there"


def find_learning_rate(
    network: Any,
    train_loader: Iterable[tuple[Any, Any]],
    optimizer: str = "sgd",
    optimizer_params: Mapping[str, Any] | None = None,
    *,
    start_lr: float = SweepConfig.start_lr,
    end_lr: float = SweepConfig.end_lr,
    iterations: int = SweepConfig.iterations,
    diverged_at: float = SweepConfig.diverged_at,
    smoothing: float = SweepConfig.smoothing,
    on_iteration: Callable[[SweepRow], object] | None = None,
) -> LrSweep:
    """Train `network` with rates that grow exponentially from `start_lr` to `end_lr`, then restore it.

    Afterwards, also after an exception, these are restored bit by bit: the values and gradients of all parameters and their
    flags of fresh gradients; the Trainer that they belong to; the loader's epoch; numpy's and Python's generators. MXNet's
    generator can be neither read nor restored. The sweep itself does not draw from it, but a network with dropout and the
    optimizer sgld do.

    Waits for the device at every iteration.

    Args:
        network: An initialized Block, from images to logits (N, 10). Each batch is split among its devices. If its shapes are
            not known yet, it is run on one image first, which draws its parameters.
        train_loader: The loader from `create_loaders`, or any iterable of (images, labels). It is iterated again if it has
            fewer batches than `iterations`. The sweep begins with its current epoch.
        optimizer: The name of an MXNet optimizer.
        optimizer_params: The optimizer's arguments (momentum, wd, …), without the learning rate.
        start_lr: The first rate.
        end_lr: The last rate.
        iterations: The number of rates, at least 20. With too few, the loss has no time to fall before the rates are too high.
        diverged_at: The sweep stops when the smoothed loss exceeds its minimum times this factor, both counted from iteration
            10 on. It also stops when the loss is not finite.
        smoothing: The weight of the past in the exponential moving average
            s(k) = smoothing · s(k−1) + (1 − smoothing) · loss(k), s(0) = 0. The smoothed loss is s(k) / (1 − smoothingᵏ), which
            removes the bias towards s(0).
        on_iteration: Called with each row. An exception from it ends the sweep.

    Returns:
        The rows and the suggestions.

    Raises:
        ValueError: An argument is out of range, `optimizer` is not a name, or `network` is not initialized; nothing has been
            changed. Or `train_loader` has no batches left.
        TypeError: An argument that must be a number is not one; nothing has been changed.
    """
    config = SweepConfig(start_lr, end_lr, iterations, diverged_at, smoothing)
    if not isinstance(optimizer, str):
        raise FieldValueError("optimizer", "must be a name; an instance would remember the sweep", shown(optimizer))

    rows: list[SweepRow] = []
    average = 0.0
    best = math.inf
    with _restored_loader(train_loader):
        _complete_initialization(network, train_loader)
    with _restored_loader(train_loader), _restored_network(network):
        trainer = create_trainer(network.collect_params(), sweep_curve(config), "manual", optimizer, optimizer_params)
        step = TrainStep(network, trainer)
        for images, labels in islice(_cycled(train_loader), config.iterations):
            step(images, labels)
            [record] = step.fetch()  # waits for the device
            iteration, loss = record.iteration, record.loss
            average = config.smoothing * average + (1 - config.smoothing) * loss
            row = SweepRow(iteration, record.learning_rate, loss, average / (1 - config.smoothing**iteration))
            rows.append(row)
            if on_iteration:
                on_iteration(row)
            if not math.isfinite(loss):
                return LrSweep(tuple(rows), f"the loss became {loss}")
            if iteration >= FIRST_SETTLED_ITERATION:
                best = min(best, row.smoothed_loss)
                if row.smoothed_loss > config.diverged_at * best:
                    return LrSweep(tuple(rows), f"the smoothed loss rose above {config.diverged_at:g} times its best")
    return LrSweep(tuple(rows), "the rates reached end_lr")


def sweep_curve(config: SweepConfig) -> Callable[[int], float]:
    """Return the rates of a sweep.

    Args:
        config: The configuration of the sweep.

    Returns:
        A function of the iteration: `start_lr` at iteration 1, `end_lr` at the last, with a constant factor between
        consecutive rates.
    """
    begin, steps = config.start_lr, config.iterations - 1
    rising = Warmup(Constant(config.end_lr), warmup_steps=steps, warmup_begin_lr=begin, warmup_mode="exponential")
    return lambda iteration: rising(iteration - 1)  # a warm-up has its first rate at iteration 0


def _cycled(loader: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise ValueError("train_loader has no more batches; give one that can be gone through again")


def _complete_initialization(network: Any, loader: Iterable[tuple[Any, Any]]) -> None:
    """Run a network on one image if Gluon has deferred its initialization until the shapes are known."""
    parameters = list(network.collect_params().values())
    try:
        for parameter in parameters:
            parameter.list_ctx()
    except RuntimeError as error:
        raise ValueError("the network is not initialized; call network.initialize() first") from error
    if any(0 in (parameter.shape or (0,)) for parameter in parameters):
        images, _ = next(_cycled(loader))
        network(images[:1].as_in_context(parameters[0].list_ctx()[0]))


@contextmanager
def _restored_network(network: Any) -> Iterator[None]:
    """Restore the values, gradients and Trainer of all parameters."""
    parameters = list(network.collect_params().values())
    trained = [parameter for parameter in parameters if parameter.grad_req != "null"]
    values = [array for parameter in parameters for array in parameter.list_data()]
    gradients = [array for parameter in trained for array in parameter.list_grad()]
    copies = [(array, array.copy()) for array in (*values, *gradients)]
    fresh = [(array, array._fresh_grad) for parameter in trained for array in parameter.list_data()]
    trainers = [(parameter, parameter._trainer) for parameter in parameters]
    try:
        yield
    finally:
        for parameter, trainer in trainers:
            parameter._set_trainer(trainer)
        for array, copy in copies:
            copy.copyto(array)  # in place: hybridized graphs and autograd hold the array itself
        for array, is_fresh in fresh:
            array._fresh_grad = is_fresh  # an update without a fresh gradient is an error


@contextmanager
def _restored_loader(loader: Iterable[tuple[Any, Any]]) -> Iterator[None]:
    """Restore the epoch of a loader, and the generators that it may draw from."""
    epoch = getattr(loader, "epoch", None)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        if epoch is not None:
            loader.epoch = epoch  # type: ignore[attr-defined]
        np.random.set_state(numpy_state)
        random.setstate(python_state)


# --- suggestions from the losses: a rate, or the reason for its absence


def _steepest(rows: tuple[SweepRow, ...]) -> float | str:
    lowest = _row_of_minimum(rows)
    if isinstance(lowest, str):
        return lowest
    last = lowest.iteration - _HALF_LINE
    slopes = {middle: _slope(rows, middle) for middle in range(FIRST_SETTLED_ITERATION + _HALF_LINE, last + 1)}
    middle = min(slopes, key=slopes.__getitem__, default=0)
    if not middle or slopes[middle] >= 0:
        return f"the smoothed loss is lowest at iteration {lowest.iteration} already; lower start_lr"
    if middle == last and lowest is rows[-1]:
        return "the smoothed loss fell fastest at the last rates; raise end_lr"
    return rows[middle - 1].learning_rate


def _tenth_of_minimum(rows: tuple[SweepRow, ...]) -> float | str:
    lowest = _row_of_minimum(rows)
    if isinstance(lowest, str):
        return lowest
    if lowest is rows[-1]:
        return f"the smoothed loss was still falling at the last rate, {lowest.learning_rate:g}; raise end_lr"
    return lowest.learning_rate / 10


def _row_of_minimum(rows: tuple[SweepRow, ...]) -> SweepRow | str:
    """Return the row with the lowest smoothed loss, or the reason why it gives no suggestion."""
    settled = [row for row in rows[FIRST_SETTLED_ITERATION - 1 :] if math.isfinite(row.loss)]
    if not settled:
        return f"there were fewer than {FIRST_SETTLED_ITERATION} iterations with a finite loss; lower start_lr"
    lowest = min(settled, key=lambda row: row.smoothed_loss)
    first = [row.loss for row in rows[:FIRST_SETTLED_ITERATION]]
    if fmean(first) - lowest.smoothed_loss <= _CLEAR_FALL * stdev(first):
        return f"the smoothed loss never fell clearly below the first {FIRST_SETTLED_ITERATION} losses"
    return lowest


def _slope(rows: tuple[SweepRow, ...], middle: int) -> float:
    """Return the slope of the smoothed loss per iteration.

    The slope against the logarithm of the rate is the same up to a constant factor.
    """
    around = [row.smoothed_loss for row in rows[middle - 1 - _HALF_LINE : middle + _HALF_LINE]]
    return linear_regression(range(len(around)), around).slope


def _rate_or_none(found: float | str) -> float | None:
    return None if isinstance(found, str) else found
