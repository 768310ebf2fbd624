"""The classes of schedules in MXNet's tutorials, unchanged."""

import copy
import math
from collections.abc import Callable
from typing import Any

Origin = Callable[[int], float]


class CosineAnnealingSchedule:
    def __init__(self, min_lr: float, max_lr: float, cycle_length: int) -> None:
        self.min_lr = min_lr
        self.max_lr = max_lr
        self.cycle_length = cycle_length

    def __call__(self, iteration: int) -> float:
        if iteration <= self.cycle_length:
            unit_cycle = (1 + math.cos(iteration * math.pi / self.cycle_length)) / 2
            adjusted_cycle = (unit_cycle * (self.max_lr - self.min_lr)) + self.min_lr
            return adjusted_cycle  # noqa: RET504
        else:  # noqa: RET505
            return self.min_lr


class TriangularSchedule:
    def __init__(self, min_lr: float, max_lr: float, cycle_length: int, inc_fraction: float = 0.5) -> None:
        self.min_lr = min_lr
        self.max_lr = max_lr
        self.cycle_length = cycle_length
        self.inc_fraction = inc_fraction

    def __call__(self, iteration: int) -> float:
        if iteration <= self.cycle_length * self.inc_fraction:
            unit_cycle = iteration * 1 / (self.cycle_length * self.inc_fraction)
        elif iteration <= self.cycle_length:
            unit_cycle = (self.cycle_length - iteration) * 1 / (self.cycle_length * (1 - self.inc_fraction))
        else:
            unit_cycle = 0
        adjusted_cycle = (unit_cycle * (self.max_lr - self.min_lr)) + self.min_lr
        return adjusted_cycle  # noqa: RET504


class LinearWarmUp:
    def __init__(self, schedule: Origin, start_lr: float, length: int) -> None:
        self.schedule = schedule
        self.start_lr = start_lr
        self.finish_lr = copy.copy(schedule)(0)
        self.length = length

    def __call__(self, iteration: int) -> float:
        if iteration <= self.length:
            return iteration * (self.finish_lr - self.start_lr) / (self.length) + self.start_lr
        else:  # noqa: RET505
            return self.schedule(iteration - self.length)


class LinearCoolDown:
    def __init__(self, schedule: Origin, finish_lr: float, start_idx: int, length: int) -> None:
        self.schedule = schedule
        self.start_lr = copy.copy(self.schedule)(start_idx)
        self.finish_lr = finish_lr
        self.start_idx = start_idx
        self.finish_idx = start_idx + length
        self.length = length

    def __call__(self, iteration: int) -> float:
        if iteration <= self.start_idx:
            return self.schedule(iteration)
        elif iteration <= self.finish_idx:  # noqa: RET505
            return (iteration - self.start_idx) * (self.finish_lr - self.start_lr) / (self.length) + self.start_lr
        else:
            return self.finish_lr


class OneCycleSchedule:
    def __init__(
        self, start_lr: float, max_lr: float, cycle_length: int, cooldown_length: int = 0, finish_lr: float | None = None
    ) -> None:
        finish_lr = finish_lr if (cooldown_length > 0) else start_lr
        schedule = TriangularSchedule(min_lr=start_lr, max_lr=max_lr, cycle_length=cycle_length)
        self.schedule = LinearCoolDown(schedule, finish_lr=finish_lr, start_idx=cycle_length, length=cooldown_length)  # type: ignore[arg-type]

    def __call__(self, iteration: int) -> float:
        return self.schedule(iteration)


class CyclicalSchedule:
    def __init__(
        self,
        schedule_class: Callable[..., Origin],
        cycle_length: int,
        cycle_length_decay: float = 1,
        cycle_magnitude_decay: float = 1,
        **kwargs: Any,
    ) -> None:
        self.schedule_class = schedule_class
        self.length = cycle_length
        self.length_decay = cycle_length_decay
        self.magnitude_decay = cycle_magnitude_decay
        self.kwargs = kwargs

    def __call__(self, iteration: int) -> float:
        cycle_idx = 0
        cycle_length = self.length
        idx = self.length
        while idx <= iteration:
            cycle_length = math.ceil(cycle_length * self.length_decay)
            cycle_idx += 1
            idx += cycle_length
        cycle_offset = iteration - idx + cycle_length
        schedule = self.schedule_class(cycle_length=cycle_length, **self.kwargs)
        return float(schedule(cycle_offset) * self.magnitude_decay**cycle_idx)
