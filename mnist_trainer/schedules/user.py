"""A user's own schedule, a function or a class that is named as "module:attribute".

Knows how to find it, how to give it its arguments, and that nothing but a finite number ≥ 0 may leave it.
"""

import copy
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mnist_trainer.errors import RunError
from mnist_trainer.fields import RATE, FieldError
from mnist_trainer.schedules.schedule import AnySchedule


class ScheduleError(RunError):
    """A schedule raised, or returned something that is not a learning rate."""


class UserSchedule(AnySchedule):
    """A callable from outside, held to the contract of a curve.

    function: takes an iteration (1, 2, …) and returns its learning rate; 0 is never asked.
    name: "module:attribute", which messages call it by.
    arguments: what it was made with, for its print.

    Unlike the curves of this package it may have state, as MXNet's own schedulers do; whoever trains with it makes
    it afresh for each use.
    """

    keeps_contract: ClassVar[bool] = False

    @property
    def asked_in_order(self) -> bool:
        return True

    @property
    def initial_rate(self) -> float:
        return self.rate_at(1)  # it knows of no iteration before

    def __init__(self, function: Callable[[int], Any], name: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.function = function
        self.name = name
        self.arguments = dict(arguments or {})
        self._latest: tuple[int, float] | None = None

    def rate_at(self, iteration: int) -> float:
        """The learning rate of `iteration`. Raises ScheduleError when the function raises or returns no such thing."""
        # MXNet asks several times an iteration, which a function that counts must not notice.
        if self._latest is None or self._latest[0] != iteration:
            self._latest = iteration, self._ask(iteration)
        return self._latest[1]

    def _ask(self, iteration: int) -> float:
        try:
            returned = self.function(iteration)
        except (Exception, SystemExit) as error:  # a user's function may raise anything
            raise ScheduleError(
                f"schedule {self.name} raised {type(error).__name__} at iteration {iteration}: {error}"
            ) from error
        try:
            return RATE.check("the rate", returned)
        except FieldError as error:
            raise ScheduleError(
                f"schedule {self.name} returned {error.given} at iteration {iteration}; a rate {error.sentence}"
            ) from error

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


def check_rates(schedule: AnySchedule, total_iterations: int, below: float | None = None) -> None:
    """Asks a schedule for the rate of every iteration of a run, in order, so that a bad one is found before it.

    below: what every rate must be below; None for no such bound.

    Raises ScheduleError for the first. A schedule that has state should be made afresh afterwards. One that keeps the
    contract by construction, with all that it holds, is not asked where there is no bound.
    """
    if _keeps_contract(schedule) and below is None:
        return
    for iteration in range(1, total_iterations + 1):
        value = schedule(iteration)
        if below is not None and value >= below:
            raise ScheduleError(f"{schedule!r} is {value} at iteration {iteration}, which is not below {below:g}")


def _keeps_contract(schedule: AnySchedule) -> bool:
    return schedule.keeps_contract and all(_keeps_contract(held) for _, held in schedule.inner())


def import_callable(path: str) -> Callable[..., Any]:
    """The function or class at "module:attribute"; the module may be in the current folder.

    Raises ValueError with a sentence when there is none.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"{path!r} is not of the form module:attribute")
    with _current_folder_importable():
        try:
            found = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # the user's module may raise anything while it loads
            raise ValueError(f"{path!r} cannot be imported: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ValueError(f"module {module_name!r} has no attribute {attribute!r}") from error
    if not callable(found):
        raise ValueError(f"{path!r} is {found!r}, which cannot be called")
    return found


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters that a configuration may fill: all of a class, all but the iteration of a function."""
    parameters = dict(inspect.signature(target).parameters)
    if not inspect.isclass(target) and parameters:
        del parameters[next(iter(parameters))]
    return parameters


def bind_arguments(target: Callable[..., Any], arguments: Mapping[str, Any]) -> Callable[[int], Any]:
    """An instance of the class, or the function with its keyword arguments filled in.

    Raises ValueError with a sentence when the arguments do not fit or the constructor refuses them.
    """
    try:
        if inspect.isclass(target):
            made = target(**arguments)
        else:
            inspect.signature(target).bind(1, **arguments)
            # An instance may have state, and every use begins at the beginning; a function is its own copy.
            fresh = copy.deepcopy(target)
            made = partial(fresh, **arguments) if arguments else fresh
    except (Exception, SystemExit) as error:  # the user's constructor may raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not callable(made):
        raise ValueError(f"an instance of {target.__name__} cannot be called")
    return made


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    # The console script, unlike `python -m`, does not look there.
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
