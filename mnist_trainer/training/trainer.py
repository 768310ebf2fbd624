"""A Gluon Trainer that applies a schedule, in one of two scheduler modes.

Only this module changes Gluon's learning rate. The modes are:

- mode `optimizer`: the schedule is the optimizer's `lr_scheduler`, and MXNet evaluates it at every update;
- mode `manual`: the trainer evaluates the schedule and calls `set_learning_rate` before every update.

MXNet has no schedulers for momentum and weight decay. Their schedules are applied in the same two modes: in mode `optimizer`
the optimizer evaluates them when it counts an update, in mode `manual` the trainer evaluates them before every update.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mnist_trainer.config.schema import SCHEDULER_MODES
from mnist_trainer.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from mnist_trainer.fields import MIN_FLOAT32, Choice
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import AnySchedule
from mnist_trainer.schedules.schedule import MXNET_DEFAULT_RATES
from mnist_trainer.training.fused_sgd import FusedSGD
from mnist_trainer.training.records import EpochMetrics

mx = import_mxnet()

Schedules = Mapping[str, Callable[[int], float]]


class ScheduledTrainer(mx.gluon.Trainer):  # type: ignore[misc,name-defined]  # MXNet has no types
    """A Gluon Trainer that applies a schedule and counts its iterations. Create it with `create_trainer`.

    After `step`, `learning_rate` and `hyperparameters` have the values that this update used.

    Attributes:
        iteration: Number of the latest iteration, counted from 1; 0 before the first.
        schedule: The schedule of the learning rate. It changes when a schedule such as `Plateau` reacts to results.
        scheduler_mode: "optimizer" or "manual".
        hyperparameter_schedules: The schedules of momentum and weight decay, by name.
        process_group: The processes that train together.
    """

    def __init__(
        self,
        params: Any,
        optimizer: Any,
        optimizer_params: Mapping[str, Any] | None,
        schedule: Callable[[int], float],
        scheduler_mode: str,
        *,
        hyperparameter_schedules: Schedules,
        process_group: ProcessGroup,
    ) -> None:
        # By default MXNet runs the optimizer of several processes on the server, which does not receive set_learning_rate.
        # With a store that only sums, each process updates its own parameters at the rate that was set.
        update_on_kvstore = None if process_group is SINGLE_PROCESS else False
        super().__init__(
            params, optimizer, optimizer_params, kvstore=process_group.kvstore, update_on_kvstore=update_on_kvstore
        )
        self.schedule = schedule
        self.scheduler_mode = scheduler_mode
        self.hyperparameter_schedules = hyperparameter_schedules
        self.process_group = process_group
        self.iteration = 0

    def step(self, batch_size: int, ignore_stale_grad: bool = False) -> None:
        """Count an iteration and update the parameters; see Gluon's Trainer.

        Args:
            batch_size: Number of images by which the summed gradient is divided.
            ignore_stale_grad: Whether to skip parameters whose gradient is not new instead of raising.
        """
        self._begin_iteration()
        super().step(batch_size, ignore_stale_grad)

    def update(self, batch_size: int, ignore_stale_grad: bool = False) -> None:
        """Count an iteration and update the parameters after `allreduce_grads`; see Gluon's Trainer.

        Args:
            batch_size: Number of images by which the summed gradient is divided.
            ignore_stale_grad: Whether to skip parameters whose gradient is not new instead of raising.
        """
        self._begin_iteration()
        super().update(batch_size, ignore_stale_grad)

    def _begin_iteration(self) -> None:
        self.iteration += 1
        if self.scheduler_mode == "manual":  # in mode optimizer MXNet itself evaluates the schedule
            self.set_learning_rate(self.schedule(self.iteration))
            _set_hyperparameters(self.optimizer, self.hyperparameter_schedules, self.iteration)

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Values of `momentum` and `wd` in the last update, by name. Contains only those with a schedule."""
        used = {name: float(getattr(self.optimizer, name)) for name in self.hyperparameter_schedules}
        return {name: 0.0 if value == _NO_MOMENTUM else value for name, value in used.items()}

    def finite_gradients(self) -> list[Any]:
        """Check whether all gradients of the last update are finite, without waiting for the devices.

        Returns:
            An array of shape (1,) for each device: 1 if all gradients are finite, else 0.
        """
        if isinstance(self.optimizer, FusedSGD):
            return [self.optimizer.finite]
        trained = [parameter for parameter in self._params if parameter.grad_req != "null"]
        return [_all_finite(of_device) for of_device in zip(*(parameter.list_grad() for parameter in trained), strict=True)]

    def observe(self, metrics: EpochMetrics) -> None:
        """Pass validation results to the schedule, which may react to them from the next iteration on.

        Args:
            metrics: The metrics of an epoch. Without validation results, the schedule does not change.
        """
        if metrics.validation and isinstance(self.schedule, AnySchedule):
            self.set_schedule(self.schedule.observe(metrics.validation.loss, metrics.validation.accuracy))

    def set_schedule(self, schedule: Callable[[int], float]) -> None:
        """Replace the schedule from the next iteration on.

        Args:
            schedule: Maps an iteration (1, 2, …) to its rate.
        """
        self.schedule = schedule
        if self.scheduler_mode == "optimizer":
            self.optimizer.lr_scheduler = schedule

    def optimizer_states(self) -> dict[int, Any]:
        """Return the optimizer's state of each parameter, by its index.

        Returns:
            For each parameter None, an array, or a tuple of these; an empty dict before the first update.
        """
        self._init_everything()
        return dict(self._acting_updaters()[0].states)

    def load_state(self, iteration: int, states: Mapping[int, Any]) -> None:
        """Resume after an iteration.

        Args:
            iteration: The last iteration that was completed.
            states: The result of `optimizer_states` at that iteration, with numpy arrays.

        Raises:
            ValueError: The states are not those of this optimizer and these parameters.
        """
        self._init_everything()
        trained = {index: parameter for index, parameter in enumerate(self._params) if parameter.grad_req != "null"}
        if set(states) != set(trained):
            raise ValueError(f"the optimizer has a state for each of {len(trained)} parameters, not for {len(states)}")
        for index, parameter in trained.items():
            expected = self.optimizer.create_state_multi_precision(index, parameter.data(parameter.list_ctx()[0]))
            if _structure(states[index]) != _structure(expected):
                raise ValueError(f"the optimizer's state of parameter {index} has another structure than in this run")
        self.iteration = iteration
        # MXNet counts updates for each parameter and device id; all counts begin here.
        self.optimizer.begin_num_update = self.optimizer.num_update = iteration
        for updater in self._acting_updaters():
            updater.states.clear()
            updater.states.update({index: _to_mxnet(state) for index, state in states.items()})
            updater.states_synced.update(
                dict.fromkeys(states, False)
            )  # the updater moves them to its device at the next update

    def _init_params(self) -> None:
        super()._init_params()
        if self._distributed:
            # The base class has requested the first worker's parameters from the servers, under the keys of the gradients.
            # MXNet does not wait for them before it sends the first gradients. Without this wait, a worker would sometimes
            # receive the sum of the gradients as its parameters.
            mx.nd.waitall()

    def _acting_updaters(self) -> list[Any]:
        """Return the updaters with the optimizer's states: one for each device, or the kvstore's on several devices."""
        return [self._kvstore._updater] if self._update_on_kvstore else list(self._updaters)

    def _init_everything(self) -> None:
        if not self._kv_initialized:
            self._init_kvstore()
        if self._params_to_init:
            self._init_params()


def create_trainer(
    params: Any,
    schedule: Callable[[int], float],
    scheduler_mode: str = "optimizer",
    optimizer: Any = "sgd",
    optimizer_params: Mapping[str, Any] | None = None,
    *,
    hyperparameter_schedules: Schedules | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> ScheduledTrainer:
    """Create a Gluon Trainer that applies the learning rates of a schedule.

    Args:
        params: The parameters to train, from `network.collect_params()`.
        schedule: The schedule of the learning rate: a callable that maps an iteration (1, 2, …) to its rate.
        scheduler_mode: How the schedule is applied. With "optimizer", it is the `lr_scheduler` of the optimizer, and MXNet
            evaluates it; with "manual", the trainer evaluates it and calls `set_learning_rate` before each update.
        optimizer: The name of an MXNet optimizer ("sgd", "adam", …), an optimizer class, or an instance. An instance must not
            have a learning rate or a schedule of its own, and must not belong to another Trainer.
        optimizer_params: Arguments for an optimizer given by name or class (`momentum`, `wd`, …), without the learning rate.
        hyperparameter_schedules: Schedules for `momentum` and `wd`, by name, for an optimizer given by name or class.
        process_group: The processes that train together. They sum their gradients, and all make the same update.

    Returns:
        A `ScheduledTrainer`, which is a `mxnet.gluon.Trainer`. Its `learning_rate` is the rate of the last update, and its
        `iteration` is the number of updates.

    Raises:
        TypeError: `schedule` is not callable.
        ValueError: The scheduler mode or the optimizer does not exist, `optimizer_params` contains the learning rate, the
            instance cannot be used, or a hyperparameter cannot have a schedule.
    """
    scheduler_mode = Choice(SCHEDULER_MODES).check("scheduler_mode", scheduler_mode)
    if not callable(schedule):
        raise TypeError(f"schedule is {schedule!r}, which cannot be called; for a constant rate, pass Constant({schedule!r})")
    arguments = dict(optimizer_params or {})
    others = dict(hyperparameter_schedules or {})
    for name in ("learning_rate", "lr_scheduler"):
        if name in arguments:
            raise ValueError(f"optimizer_params has {name}; remove it, because the learning rate comes from the schedule")
    if isinstance(optimizer, mx.optimizer.Optimizer):
        if arguments:
            raise ValueError("optimizer_params cannot be used with an optimizer instance; pass its name or class")
        if others:
            raise ValueError("hyperparameter_schedules cannot be used with an optimizer instance; pass its name or class")
        _give_schedule(optimizer, schedule, scheduler_mode)
    else:
        # Adam and others have a default rate, with which MXNet would overwrite the schedule's base_lr.
        arguments["learning_rate"] = None
        if scheduler_mode == "optimizer":
            arguments["lr_scheduler"] = schedule
        if others:
            optimizer, arguments = _create_scheduled_optimizer(optimizer, arguments, others, scheduler_mode), {}
        elif isinstance(optimizer, type):
            optimizer, arguments = optimizer(**arguments), {}
    return ScheduledTrainer(
        params,
        optimizer,
        arguments or None,
        schedule,
        scheduler_mode,
        hyperparameter_schedules=others,
        process_group=process_group,
    )


def _all_finite(arrays: Sequence[Any]) -> Any:
    """Return 1 if every number in arrays of one device is finite, else 0, as an array of shape (1,), without waiting."""
    # Arrays are checked one by one: multi_all_finite takes thirty times as long for these sizes.
    first, *others = arrays
    flag = mx.nd.all_finite(first)
    for array in others:
        mx.nd.all_finite(array, init_output=False, out=flag)
    return flag


def _structure(state: Any) -> Any:
    """Return the shape and type of each array in the state of an optimizer, in a tuple for a tuple."""
    if isinstance(state, tuple | list):
        return tuple(map(_structure, state))
    return (tuple(state.shape), np.dtype(state.dtype)) if hasattr(state, "dtype") else type(state)


def _to_mxnet(state: Any) -> Any:
    if isinstance(state, tuple):
        return tuple(map(_to_mxnet, state))
    return mx.nd.array(state, dtype=state.dtype) if isinstance(state, np.ndarray) else state


def _create_scheduled_optimizer(optimizer: Any, arguments: dict[str, Any], schedules: Schedules, scheduler_mode: str) -> Any:
    """Create an optimizer by its name or class, with scheduled momentum and weight decay."""
    for name in schedules:
        if name not in ("momentum", "wd"):
            raise ValueError(f"hyperparameter_schedules has {name}; only momentum and wd can have a schedule")
        if name in arguments:
            raise ValueError(f"optimizer_params and hyperparameter_schedules both have {name}; keep one of them")
    if "momentum" in schedules:
        cls = optimizer if isinstance(optimizer, type) else mx.optimizer.Optimizer.opt_registry.get(optimizer.lower())
        if cls and "momentum" not in inspect.signature(cls).parameters:
            raise ValueError(f"{optimizer} has no momentum that a schedule could set")
        arguments = arguments | {"momentum": _NO_MOMENTUM}
    created = optimizer(**arguments) if isinstance(optimizer, type) else mx.optimizer.create(optimizer, **arguments)
    if scheduler_mode == "optimizer":
        created._update_count = _ScheduledUpdateCount(created, schedules)
    return created


class _ScheduledUpdateCount:
    """Replacement for an optimizer's `_update_count` that also evaluates the schedules of momentum and weight decay.

    MXNet evaluates `lr_scheduler` afterwards.
    """

    def __init__(self, optimizer: Any, schedules: Schedules) -> None:
        self.optimizer = optimizer
        self.schedules = schedules

    def __call__(self, index: Any) -> None:
        type(self.optimizer)._update_count(self.optimizer, index)
        _set_hyperparameters(self.optimizer, self.schedules, self.optimizer.num_update)


# Replaces a momentum of 0. At 0 MXNet uses another kernel, which keeps the old momentum until the schedule rises again, and an
# optimizer that begins with 0 has no momentum state at all.
_NO_MOMENTUM = MIN_FLOAT32


def _set_hyperparameters(optimizer: Any, schedules: Schedules, iteration: int) -> None:
    for name, schedule in schedules.items():
        value = schedule(iteration)
        setattr(optimizer, name, max(value, _NO_MOMENTUM) if name == "momentum" else value)


def _give_schedule(optimizer: Any, schedule: Callable[[int], float], scheduler_mode: str) -> None:
    if optimizer.lr_scheduler is not None and (scheduler_mode == "manual" or optimizer.lr_scheduler != schedule):
        raise ValueError("the optimizer already has an lr_scheduler; create it without one")
    if optimizer.param_dict:
        # rescale_grad is captured by the first Trainer, so a second one would divide by the batch size twice.
        raise ValueError("the optimizer already belongs to another Trainer; create an optimizer for each Trainer")
    if optimizer.lr is not None and optimizer.lr not in MXNET_DEFAULT_RATES:
        raise ValueError(f"the optimizer has learning_rate={optimizer.lr}; create it without one, and use the schedule")
    if scheduler_mode == "optimizer":
        optimizer.lr_scheduler = schedule
