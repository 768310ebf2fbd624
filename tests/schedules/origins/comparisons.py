"""Random parameters, and comparisons of a framework's schedule with our curve for it."""

import math
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mnist_trainer.schedules import AnySchedule
from origins.libraries import pytorch_optimizer, read_in_steps

RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""Tolerated differences: as a fraction of the rate, and of the largest rate of the comparison. Their sum is the tolerance."""

IN_BETWEEN = 10
"""The number of random iterations to compare, besides the first ones, the corners and the last ones."""


class Draw(random.Random):
    """A source of random parameters that are often at the edge of their range."""

    def length(self, longest: int = 120, shortest: int = 1) -> int:
        """Return a number of iterations."""
        if self.random() < 0.3:
            return min(shortest + self.randrange(3), longest)
        return round(math.exp(self.uniform(math.log(shortest), math.log(longest))))

    def up_to(self, limit: int) -> int:
        """Return a whole number from 0 to `limit`."""
        return self.choice((0, min(1, limit), limit, self.randint(0, limit), self.randint(0, limit), self.randint(0, limit)))

    def rate(self) -> float:
        """Return a learning rate above 0."""
        return self.choice((1.0, 0.1, 10 ** self.uniform(-4, 0.5), self.uniform(0.001, 2)))

    def fraction(self) -> float:
        """Return a number from 0 to 1."""
        return self.choice((0.0, 1.0, 0.5, 0.1, self.random(), self.random()))

    def share(self) -> float:
        """Return a number above 0 and at most 1."""
        return self.fraction() or 0.25

    def inner(self) -> float:
        """Return a number between 0 and 1."""
        return self.choice((0.1, 0.5, 0.9, self.uniform(0.01, 0.99)))

    def power(self) -> float:
        """Return an exponent."""
        return self.choice((1.0, 2.0, 0.5, self.uniform(0.1, 4)))

    def ratio(self, times: int) -> float:
        """Return a factor that is applied `times` times at most: often below 1, sometimes above it."""
        if self.random() < 0.3:
            return float(10 ** (self.uniform(0, 6) / max(times, 1)))
        return self.choice((self.share(), 10 ** (-self.uniform(0, 6) / max(times, 1))))

    def multiple(self) -> float:
        """Return a factor between the lengths of cycles, with up to two decimals."""
        return self.choice((1.0, 1.0, 2.0, 3.0, 1.5, 1.11, round(self.uniform(1.01, 3), 2), round(self.uniform(1.01, 3), 1)))

    def increasing(self, limit: int = 150, most: int = 4, first: int = 1) -> list[int]:
        """Return whole numbers from `first` to `limit` in increasing order."""
        count = min(self.randint(1, most), limit - first + 1)
        edge = {first, first + 1} if self.random() < 0.3 and count > 1 and limit > first else set()
        while len(edge) < count:
            edge.add(self.randint(first, limit))
        return sorted(edge)

    def results(self, *, negative: bool = True, unknown: bool = True) -> list[float]:
        """Return the losses of some epochs, with ties and, if wanted, infinite or undefined ones and ones below 0."""
        losses, level = [], 2.0
        for _ in range(self.randint(5, 40)):
            level = level * self.choice((1, 0.99, 0.9, 0.999, 1.0, 1.05, 1.3)) + self.choice((0, 0, self.uniform(-0.02, 0.02)))
            losses.append(math.nan if unknown and self.random() < 0.02 else level)
        return [loss - 1.5 for loss in losses] if negative and self.random() < 0.2 else [abs(loss) for loss in losses]


Point = tuple[int, float, float]
"""An iteration, the rate of the framework and ours."""

Sample = tuple[list[Point], int]
"""The compared points, and the number of those left out, where the framework differs by its rounding or on purpose."""


class Compared(Protocol):
    """A schedule of a framework and our curve for it."""

    def sample(self, draw: Draw) -> Sample:
        """Return the rates of a sample of iterations."""
        ...


@dataclass(frozen=True)
class Comparison:
    """A schedule that depends only on the iteration.

    Attributes:
        origin: The framework's schedule: it returns the rates after the given numbers of steps, which increase.
        ours: Our curve.
        last: The last iteration to compare.
        corners: Iterations where something happens, to be compared with their neighbours.
        shift: 0 if ours(k) is the framework's value after k steps, 1 if it is that of its k-th update, after k − 1 steps.
        apart: Iterations at which the framework differs on purpose.
        restarts: Iterations at which a cycle begins. By a rounding error of the framework, the cycle before may end only there:
            a different rate that continues its fall or rise is left out.
    """

    origin: Callable[[list[int]], list[float]]
    ours: AnySchedule
    last: int
    corners: Iterable[int] = ()
    shift: int = 0
    apart: Collection[int] = ()
    restarts: Collection[int] = ()

    def sample(self, draw: Draw) -> Sample:
        """Return the rates of the first iterations, the corners, the last ones, and some in between."""
        chosen = {1, 2, 3, self.last - 1, self.last} | {draw.randint(1, self.last) for _ in range(IN_BETWEEN)}
        chosen |= {corner + offset for corner in self.corners for offset in (-1, 0, 1, 2)}
        wanted = {k for k in chosen if 1 <= k <= self.last}
        iterations = sorted(wanted - set(self.apart))
        theirs = self.origin([k - self.shift for k in iterations]) if iterations else []
        points = [(k, rate, self.ours(k)) for k, rate in zip(iterations, theirs, strict=True)]
        kept = [point for point in points if not self._ends_cycle(*point)]
        return kept, len(wanted) - len(kept)

    def _ends_cycle(self, iteration: int, theirs: float, ours: float) -> bool:
        if iteration not in self.restarts or iteration < 2 or math.isclose(theirs, ours):
            return False
        earlier, before = self.ours(iteration - 2), self.ours(iteration - 1)
        return theirs <= before * (1 + RELATIVE) or theirs > before > earlier


@dataclass(frozen=True)
class Reaction:
    """A schedule that reacts to the result of each epoch.

    Attributes:
        origin: The framework's schedule, for a message.
        theirs: Its rate after each epoch.
        ours: Our curve.
        results: The result of each epoch.
    """

    origin: Any
    theirs: Sequence[float]
    ours: AnySchedule
    results: Sequence[float]

    def sample(self, draw: Draw) -> Sample:
        """Return the rates after each epoch."""
        points, ours = [], self.ours
        for epoch, (rate, result) in enumerate(zip(self.theirs, self.results, strict=True), start=1):
            ours = ours.observe(result, result)
            points.append((epoch, rate, ours(epoch)))
        return points, 0


@dataclass(frozen=True)
class Stepped:
    """A scheduler of a PyTorch optimizer, which is stepped as in a training.

    Attributes:
        call: Its call, without the optimizer.
        lr: The learning rate of the optimizer.
        read: The value to read, "lr", "momentum" or "betas".
    """

    call: Callable[..., Any]
    lr: float = 1.0
    read: str = "lr"

    def __call__(self, counts: list[int]) -> list[float]:
        optimizer = pytorch_optimizer(self.lr, adam=self.read == "betas")
        scheduler = self.call(optimizer)
        values = read_in_steps(counts, scheduler.step, lambda: optimizer.param_groups[0][self.read])
        return [float(value[0] if self.read == "betas" else value) for value in values]


@dataclass(frozen=True)
class Counted:
    """A schedule that is a function of the number of steps."""

    call: Callable[..., Callable[[int], Any]]

    def __call__(self, counts: list[int]) -> list[float]:
        schedule = self.call()
        return [float(schedule(count)) for count in counts]
