"""Schedules of the user: functions and classes that are named as "module:attribute".

This module binds their arguments, and checks that they return only finite numbers ≥ 0. `user_code` imports them.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from mnist_trainer.fields import MAX_FLOAT32, RATE, FieldError
from mnist_trainer.schedules.schedule import AnySchedule, ScheduleError
from mnist_trainer.user_code import place_of

_ROUNDING = 1 + 1e-9
"""A factor far above the rounding errors of nested curves."""


class UserSchedule(AnySchedule):
    """Makes a schedule of a user's function, and checks the rates that it returns.

    Unlike the curves of this package, the function may have state, as MXNet's own schedulers do. A function with state must be
    called for the iterations 1, 2, 3, … in order, and each training needs a new instance. Within `Hold`, `Shift`, `Repeat` or
    an overlaid `Warmup` it must not have state, because it is not called for every iteration there.

    Args:
        function: Takes an iteration (1, 2, …) and returns its learning rate. It is never called with 0.
        name: The name in messages, "module:attribute".
        arguments: The arguments of the function or class, for `repr`.

    Raises:
        ScheduleError: The function raises an exception, or returns a value that is not a learning rate (raised when the
            schedule is called).

    Example:
        >>> schedule = UserSchedule(lambda iteration: 0.1 / iteration, "my_schedules:inverse")
        >>> schedule(1), schedule(10)
        (0.1, 0.01)
        >>> schedule
        my_schedules:inverse()
    """

    @property
    def asked_in_order(self) -> bool:
        return True

    def __init__(self, function: Callable[[int], Any], name: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.function = function
        self.name = name
        self.arguments = dict(arguments or {})
        self._latest: tuple[int, float] | None = None

    def rate_at(self, iteration: int) -> float:
        """Return the learning rate of `iteration`; that of the first iteration for iteration 0.

        Raises:
            ScheduleError: The function raises an exception, or returns a value that is not a learning rate.
        """
        iteration = max(iteration, 1)  # the function is never called with iteration 0
        # MXNet reads the rate several times in an iteration; a function that counts its calls must be called once.
        if self._latest is None or self._latest[0] != iteration:
            self._latest = iteration, self._ask(iteration)
        return self._latest[1]

    def _ask(self, iteration: int) -> float:
        try:
            returned = self.function(iteration)
        except (Exception, SystemExit) as error:  # a user's function may raise anything
            what = f"{type(error).__name__} at iteration {iteration}: {error}{place_of(error, self.name)}"
            raise ScheduleError(f"schedule {self.name} raised {what}") from error
        try:
            return RATE.check("the rate", returned)
        except FieldError as error:
            raise ScheduleError(
                f"schedule {self.name} returned {error.given} at iteration {iteration}; a rate {error.sentence}"
            ) from error

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


def rates_at(schedule: Callable[[int], float], iterations: Sequence[int]) -> list[float]:
    """Return the learning rates of some iterations.

    Args:
        schedule: A curve of this package, or another callable, which may have state. The other is called for every iteration
            up to the last in order, as in a run.
        iterations: The iterations, in any order.
    """
    if isinstance(schedule, AnySchedule) and not schedule.asked_in_order:
        return [schedule(iteration) for iteration in iterations]
    wanted = set(iterations)
    rates = {}
    for iteration in range(1, max(iterations) + 1):
        learning_rate = schedule(iteration)
        if iteration in wanted:  # the others are not kept, since a run may have billions of iterations
            rates[iteration] = learning_rate
    return [rates[iteration] if iteration in rates else schedule(iteration) for iteration in iterations]


def check_rates(schedule: AnySchedule, iterations: Iterable[int], below: float = math.inf) -> None:
    """Check the rates of a schedule in every iteration of a run, before the run.

    If the schedule has state, make a new one for the run. A schedule is not called if `max_rate`, its own and that of each
    schedule within it, proves that its rates are valid.

    Args:
        schedule: The schedule.
        iterations: The iterations of the run, in order.
        below: A bound that no rate may reach.

    Raises:
        ScheduleError: A rate is wrong; only the first is reported.
    """
    if _is_bounded(schedule) and schedule.max_rate * _ROUNDING < min(below, MAX_FLOAT32):
        return
    for iteration in iterations:
        value = schedule(iteration)
        if value >= below:
            raise ScheduleError(f"{schedule!r} is {value} at iteration {iteration}, which is not below {below:g}")


def _is_bounded(schedule: AnySchedule) -> bool:
    return math.isfinite(schedule.max_rate) and all(_is_bounded(held) for _, held in schedule.inner())


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters that a configuration may set: all those of a class, or all but the iteration of a function."""
    parameters = dict(inspect.signature(target).parameters)
    if not inspect.isclass(target) and parameters:
        del parameters[next(iter(parameters))]
    return parameters


def bind_arguments(target: Callable[..., Any], arguments: Mapping[str, Any]) -> Callable[[int], Any]:
    """Return an instance of a class, or a function with its keyword arguments bound.

    Args:
        target: A class whose instances take an iteration, or a function that takes an iteration and the arguments.
        arguments: The keyword arguments.

    Raises:
        ValueError: The arguments do not fit, or the constructor raises an exception. The message has the reason.
    """
    try:
        if inspect.isclass(target):
            made = target(**arguments)
        else:
            inspect.signature(target).bind(1, **arguments)
            # An instance may have state, and each use starts with a new copy. deepcopy returns a function itself.
            fresh = copy.deepcopy(target)
            made = partial(fresh, **arguments) if arguments else fresh
    except (Exception, SystemExit) as error:  # the user's constructor may raise anything
        place = place_of(error, str(getattr(target, "__module__", "")))
        raise ValueError(f"{type(error).__name__}: {error}{place}") from error
    if not callable(made):
        raise ValueError(f"an instance of {target.__name__} cannot be called; define __call__(self, iteration)")
    return made
