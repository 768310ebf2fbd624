"""Schedule-aware SGD, and MXNet's other optimizers: the two scheduler modes.

The only code that touches Gluon's learning rate. A schedule is applied by one of two hands:

- mode `optimizer`: the schedule goes into the optimizer as `lr_scheduler`, and MXNet asks it at every update;
- mode `manual`: the loop asks the schedule and calls `trainer.set_learning_rate` before every update.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules.schedule import MXNET_DEFAULT_RATES

mx = import_mxnet()


class ScheduledTrainer(mx.gluon.Trainer):  # type: ignore[misc,name-defined]  # MXNet has no types
    """A Gluon Trainer that knows its schedule, who applies it, and how many iterations it has done. The loop calls

        trainer.begin_iteration()
        trainer.step(batch_size)

    after which `trainer.learning_rate` is the rate that this update used.

    iteration: the number of the last iteration that began, counted from 1; 0 before the first.
    """

    def __init__(
        self,
        params: Any,
        optimizer: Any,
        optimizer_params: Mapping[str, Any] | None,
        schedule: Callable[[int], float],
        scheduler_mode: str,
    ) -> None:
        super().__init__(params, optimizer, optimizer_params)
        self.schedule = schedule
        self.scheduler_mode = scheduler_mode
        self.iteration = 0

    def begin_iteration(self) -> int:
        """Counts the next iteration, and in manual mode sets its learning rate; in optimizer mode MXNet itself will ask."""
        self.iteration += 1
        if self.scheduler_mode == "manual":
            self.set_learning_rate(self.schedule(self.iteration))
        return self.iteration


def create_trainer(
    params: Any,
    schedule: Callable[[int], float],
    scheduler_mode: str = "optimizer",
    optimizer: Any = "sgd",
    optimizer_params: Mapping[str, Any] | None = None,
) -> ScheduledTrainer:
    """A Gluon Trainer whose learning rates are those of `schedule`, whatever MXNet's optimizer would rather do.

    params: `net.collect_params()`.
    schedule: maps an iteration (1, 2, …) to its rate.
    scheduler_mode: "optimizer" or "manual".
    optimizer: the name of one of MXNet's, or an instance that has no schedule and serves no other Trainer.
    optimizer_params: arguments for a name (momentum, wd, …); not the learning rate, which is the schedule's.

    Raises ValueError when the arguments contradict each other.
    """
    if scheduler_mode not in ("optimizer", "manual"):
        raise ValueError(f"scheduler_mode = {scheduler_mode!r} is neither optimizer nor manual")
    arguments = dict(optimizer_params or {})
    for name in ("learning_rate", "lr_scheduler"):
        if name in arguments:
            raise ValueError(f"optimizer_params has {name}; the learning rate comes from the schedule alone")
    if isinstance(optimizer, mx.optimizer.Optimizer):
        if arguments:
            raise ValueError("optimizer_params go with the name of an optimizer; this instance has its own")
        _give_schedule(optimizer, schedule, scheduler_mode)
        return ScheduledTrainer(params, optimizer, None, schedule, scheduler_mode)
    # Adam and others have a default rate, and MXNet would write it over the schedule's base_lr.
    arguments["learning_rate"] = None
    if scheduler_mode == "optimizer":
        arguments["lr_scheduler"] = schedule
    return ScheduledTrainer(params, optimizer, arguments, schedule, scheduler_mode)


def _give_schedule(optimizer: Any, schedule: Callable[[int], float], scheduler_mode: str) -> None:
    if optimizer.lr_scheduler is not None and (scheduler_mode == "manual" or optimizer.lr_scheduler != schedule):
        raise ValueError("the optimizer has an lr_scheduler already; make it without one")
    if optimizer.param_dict:
        # rescale_grad is captured by the first Trainer, so a second one would divide by the batch size twice.
        raise ValueError("the optimizer serves another Trainer already; make one for each")
    if optimizer.lr is not None and optimizer.lr not in MXNET_DEFAULT_RATES:
        raise ValueError(f"the optimizer has learning_rate={optimizer.lr}; the learning rate comes from the schedule alone")
    if scheduler_mode == "optimizer":
        optimizer.lr_scheduler = schedule
