"""The learning-rate range test: train with rates from too low to too high, and record the loss.

Sources: Smith, "Cyclical Learning Rates for Training Neural Networks", 2015, section 3.3; MXNet's tutorial "Learning Rate
Finder". A sweep restores the network and writes no files; `lr_search` writes them.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from statistics import fmean, linear_regression, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mnist_trainer.config.schema import SweepConfig
from mnist_trainer.console import shown
from mnist_trainer.fields import FieldValueError
from mnist_trainer.schedules import Constant, Warmup
from mnist_trainer.training.step import TrainStep
from mnist_trainer.training.trainer import create_trainer

if TYPE_CHECKING:
    from mnist_trainer.plots import Figure

FIRST_SETTLED_ITERATION = 10
"""First iteration at which the moving average covers enough batches to be used."""

_HALF_LINE = 5  # a slope is that of a straight line through an iteration and this many neighbours on each side
_CLEAR_FALL = 3  # in standard deviations of the first losses: batches differ even if the network learns nothing


class SweepRow(NamedTuple):
    """One iteration of a sweep.

    Attributes:
        iteration: Number of the iteration, counted from 1.
        learning_rate: Rate of the update, read back from the trainer afterwards.
        loss: Mean loss of the batch before the update.
        smoothed_loss: Exponential moving average of the loss; see `find_learning_rate`.
    """

    iteration: int
    learning_rate: float
    loss: float
    smoothed_loss: float


@dataclass(frozen=True)
class LrSweep:
    """The rows of a sweep and the suggested rates.

    The moving average lags behind the loss, so both suggestions are higher than without it. With the default arguments the lag
    is 9 iterations, which is a factor of 1.4.

    Attributes:
        rows: The iterations, in order. Their rates grow by a constant factor.
        stopped_because: The reason for the end of the sweep, such as "the loss became nan".
    """

    rows: tuple[SweepRow, ...]
    stopped_because: str

    @property
    def steepest(self) -> float | None:
        """Rate at which the smoothed loss falls fastest against the logarithm of the rate; None for the reason in `why`."""
        return _rate_or_none(_steepest(self.rows))

    @property
    def tenth_of_minimum(self) -> float | None:
        """Tenth of the rate with the lowest smoothed loss; None for the reason in `why`."""
        return _rate_or_none(_tenth_of_minimum(self.rows))

    @property
    def suggestion(self) -> float | None:
        """Rate to try: `steepest` if there is one, otherwise `tenth_of_minimum`, which may be None."""
        return self.steepest or self.tenth_of_minimum

    @property
    def why(self) -> str:
        """Reason for the suggestion, or for its absence, as one sentence without a full stop."""
        steepest, tenth = _steepest(self.rows), _tenth_of_minimum(self.rows)
        if isinstance(steepest, str) and isinstance(tenth, str):
            return steepest if steepest == tenth else f"{steepest}; {tenth}"
        if isinstance(steepest, str):
            return f"a tenth of the rate with the lowest smoothed loss; there is no steepest fall, because {steepest}"
        if isinstance(tenth, str):
            return f"the smoothed loss falls fastest there; there is no tenth of the rate at the minimum, because {tenth}"
        return "the smoothed loss falls fastest there"

    def plot(self) -> "Figure":
        """Return a figure of the losses over the learning rate, with the suggested rates. A notebook shows it."""
        from mnist_trainer.plots import plot_lr_sweep  # loads matplotlib

        return plot_lr_sweep(self.rows, self.steepest, self.tenth_of_minimum)


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
    """Suggest a learning rate: train with rates that grow exponentially, record the loss, then restore the network.

    This is the learning-rate range test of Smith (2015, section 3.3). It waits for the device at every iteration.

    When the sweep ends, also by an exception, the following are restored bit for bit: the values and gradients of all
    parameters and their flags of fresh gradients, the Trainer to which they belong, the loader's epoch, and the states of
    numpy's and Python's random generators. MXNet's generator can be neither read nor restored. The sweep itself does not draw
    from it, but dropout layers and the optimizer sgld do.

    Args:
        network: An initialized Gluon Block that maps images to logits of shape (N, 10). Each batch is split among the devices
            of its parameters. If their shapes are not known yet, the network is first run on one image, which draws its
            parameters.
        train_loader: The train loader from `create_loaders`, or another iterable of tuples (images, labels). It is iterated
            again if it has fewer batches than `iterations`. The sweep begins with its current epoch.
        optimizer: The name of an MXNet optimizer.
        optimizer_params: The arguments of the optimizer (`momentum`, `wd`, …), without the learning rate.
        start_lr: The first rate, above 0.
        end_lr: The last rate, above `start_lr`.
        iterations: The number of rates, at least 20. With too few, the loss has no time to fall before the rates are too high.
        diverged_at: A factor above 1. The sweep stops when the smoothed loss exceeds its minimum times this factor; both are
            counted from iteration 10 on. The sweep also stops when the loss is not finite.
        smoothing: The weight of the past in the exponential moving average of the loss, from 0 to below 1:
            s(k) = smoothing · s(k−1) + (1 − smoothing) · loss(k), with s(0) = 0. The smoothed loss is
            s(k) / (1 − smoothingᵏ), which removes the bias towards s(0).
        on_iteration: A function that is called with each `SweepRow`. An exception that it raises ends the sweep.

    Returns:
        An `LrSweep`: the rows of all iterations (`rows`), the rate to try (`suggestion`, None if there is none) and the reason
        for it (`why`).

    Raises:
        ValueError: An argument is out of range, `optimizer` is not a name, or `network` is not initialized; nothing was
            changed. Or `train_loader` ran out of batches.
        TypeError: An argument that must be a number is not one; nothing was changed.
    """
    config = SweepConfig(start_lr, end_lr, iterations, diverged_at, smoothing)
    if not isinstance(optimizer, str):
        raise FieldValueError("optimizer", "must be a name; an instance would keep the state of the sweep", shown(optimizer))

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
                    return LrSweep(tuple(rows), f"the smoothed loss rose above {config.diverged_at:g} times its minimum")
    return LrSweep(tuple(rows), "the rates reached end_lr")


def sweep_curve(config: SweepConfig) -> Callable[[int], float]:
    """Return the schedule of a sweep.

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
            raise ValueError("train_loader has no more batches; pass one that can be iterated more than once")


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
    """Restore the epoch of a loader and the random generators from which it may draw."""
    epoch = getattr(loader, "epoch", None)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        if epoch is not None:
            loader.epoch = epoch  # type: ignore[attr-defined]
        np.random.set_state(numpy_state)
        random.setstate(python_state)


# --- suggestions from the losses: a rate, or the reason why there is none


def _steepest(rows: tuple[SweepRow, ...]) -> float | str:
    lowest = _row_of_minimum(rows)
    if isinstance(lowest, str):
        return lowest
    last = lowest.iteration - _HALF_LINE
    slopes = {middle: _slope(rows, middle) for middle in range(FIRST_SETTLED_ITERATION + _HALF_LINE, last + 1)}
    middle = min(slopes, key=slopes.__getitem__, default=0)
    if not middle or slopes[middle] >= 0:
        return f"the smoothed loss is already lowest at iteration {lowest.iteration}; lower start_lr"
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
    """Return the row with the lowest smoothed loss, or the reason why there is no suggestion."""
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
