"""Compare our curves with the schedules that they are named after, for random parameters.

The tables in `golden` have fixed cases and need no framework. This script calls the frameworks themselves: each case draws
parameters, builds the schedule of a framework and our curve for it, and compares their rates. Run it by hand in an environment
of its own, with Python 3.11:

    pip install torch optax jax keras timm transformers paddlepaddle
    pip download --no-deps --dest SOURCES gluoncv==0.10.5.post0 megatron_core==0.16.1 fastai==2.8.12
    pip download --no-deps --dest SOURCES pytorch_warmup==0.2.0 speechbrain==1.1.2
    pip download --no-deps --no-binary :all: --no-build-isolation --dest SOURCES fairseq==0.12.2 deepspeed==0.19.8
    (cd SOURCES; for file in *.whl; do python -m zipfile -e $file .; done; for file in *.tar.gz; do tar -xf $file; done)
    PYTHONPATH=. python tests/schedules/differential.py --sources SOURCES --output counts.json     # or: … Keras timm

The libraries in SOURCES are not installed, since they need MXNet, CUDA or much else. The script loads one file of each, and
puts stand-ins in place of what that file imports.

All frameworks compute in double precision. A framework counts from 0, and there are two ways to compare it with ours, as in
`golden/make_tables.py`. With `shift` 0, ours(k) is the framework's value after k steps. With `shift` 1, ours(k) is its value
after k − 1 steps, the rate of its k-th update. A difference is more than 1e-9 of a rate and 1e-12 of the largest rate.
"""

import argparse
import importlib
import importlib.util
import json
import logging
import math
import os
import platform
import random
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import accumulate, pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, Literal, Protocol

from mnist_trainer.schedules import (
    AnySchedule,
    Clip,
    Constant,
    Cooldown,
    Cosine,
    CosineAnnealing,
    Cyclical,
    Exponential,
    ExpRange,
    Factor,
    FlatCosine,
    Greedy,
    Hold,
    InverseSqrt,
    InverseTime,
    Linear,
    MultiFactor,
    NaturalExponential,
    NewBob,
    Noam,
    OneCycleLR,
    OneCycleMomentum,
    Piecewise,
    PiecewiseLinear,
    Plateau,
    Poly,
    Product,
    Repeat,
    Scale,
    Sequential,
    Shift,
    Sum,
    Tanh,
    Triangular,
    Triangular2,
    WarmRestarts,
    Warmup,
    WarmupStableDecay,
)

RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""Tolerated differences: as a fraction of the rate, and of the largest rate of the comparison. Their sum is the tolerance."""

IN_BETWEEN = 10
"""The number of random iterations to compare, besides the first ones, the corners and the last ones."""

# --- random parameters


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


# --- comparisons

Point = tuple[int, float, float]
"""An iteration, the rate of the framework and ours."""


class Compared(Protocol):
    """A schedule of a framework and our curve for it."""

    def points(self, draw: Draw) -> list[Point]:
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
        shift: 0 or 1; see the docstring of the module.
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

    def points(self, draw: Draw) -> list[Point]:
        """Return the rates of the first iterations, the corners, the last ones, and some in between."""
        chosen = {1, 2, 3, self.last - 1, self.last} | {draw.randint(1, self.last) for _ in range(IN_BETWEEN)}
        chosen |= {corner + offset for corner in self.corners for offset in (-1, 0, 1, 2)}
        iterations = sorted(k for k in chosen - set(self.apart) if 1 <= k <= self.last)
        theirs = self.origin([k - self.shift for k in iterations]) if iterations else []
        points = [(k, rate, self.ours(k)) for k, rate in zip(iterations, theirs, strict=True)]
        return [point for point in points if not self._ends_cycle(*point)]

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

    def points(self, draw: Draw) -> list[Point]:
        """Return the rates after each epoch."""
        points, ours = [], self.ours
        for epoch, (rate, result) in enumerate(zip(self.theirs, self.results, strict=True), start=1):
            ours = ours.observe(result, result)
            points.append((epoch, rate, ours(epoch)))
        return points


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
        seen = [optimizer.param_groups[0][self.read]]
        for _ in range(counts[-1]):
            scheduler.step()
            seen.append(optimizer.param_groups[0][self.read])
        return [float(seen[count][0] if self.read == "betas" else seen[count]) for count in counts]


@dataclass(frozen=True)
class Counted:
    """A schedule that is a function of the number of steps."""

    call: Callable[..., Callable[[int], Any]]

    def __call__(self, counts: list[int]) -> list[float]:
        schedule = self.call()
        return [float(schedule(count)) for count in counts]


def pytorch_optimizer(lr: float, *, adam: bool = False) -> Any:
    """Return an optimizer without a model."""
    parameters = [torch.zeros(1, requires_grad=True)]
    return torch.optim.Adam(parameters, lr=lr) if adam else torch.optim.SGD(parameters, lr=lr, momentum=0.9)


class Lazy:
    """A module that is imported when it is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith(("_", "pytest")):  # pytest looks for doctests
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


torch, lr_scheduler = Lazy("torch"), Lazy("torch.optim.lr_scheduler")


@dataclass
class Library:
    """A library and its cases.

    Attributes:
        package: The name of its package.
        file: A file of the package to load without installing it; "" for an installed package.
        stand_ins: Attributes of the modules that stand in for what the file imports, by the name of the module.
        cases: Its cases.
    """

    package: str
    file: str = ""
    stand_ins: Callable[[], dict[str, dict[str, Any]]] = dict
    cases: list[Callable[[Draw], Compared]] = field(default_factory=list)
    sources: ClassVar[Path | None] = None
    _loaded: dict[str, ModuleType] = field(default_factory=dict)

    def case(self, draw_case: Callable[[Draw], Compared]) -> Callable[[Draw], Compared]:
        """Add a case: a function that draws parameters."""
        self.cases.append(draw_case)
        return draw_case

    def path(self, file: str = "") -> Path:
        """Return the path of a file of the package in the folder of sources."""
        assert self.sources is not None
        found = [path for depth in ("", "*/", "*/*/") for path in self.sources.glob(depth + (file or self.file))]
        if not found:
            raise SystemExit(f"{self.sources} has no {file or self.file}; see the docstring of this script")
        return found[0]

    def version(self) -> str:
        """Return the version of the package."""
        if not self.file:
            return version(self.package)
        for folder in self.path().parents:
            for beside in folder.glob(f"{self.package}-*"):
                if beside.is_dir():
                    return beside.name.removeprefix(f"{self.package}-").removesuffix(".dist-info")
        return "unknown"

    def load(self, file: str = "") -> Any:
        """Return the module of a file, with stand-ins for what it imports."""
        file = file or self.file
        if file not in self._loaded:
            importlib.import_module("torch")
            name = file.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, self.path(file))
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            added = {name: module} | {other: stand_in(other, values) for other, values in self.stand_ins().items()}
            sys.modules |= added
            try:
                spec.loader.exec_module(module)
            finally:
                for other in added:
                    del sys.modules[other]
            self._loaded[file] = module
        return self._loaded[file]


def stand_in(name: str, attributes: dict[str, Any]) -> ModuleType:
    """Return a module with these attributes, which can also be a package."""
    module = ModuleType(name)
    vars(module).update(attributes, __path__=[])
    return module


def unchanged(*arguments: Any) -> Any:
    """Stand in for a decorator, or for a function without an effect."""
    return arguments[0] if arguments else None


# --- what several libraries have in common


def exact(curves: Sequence[AnySchedule], boundaries: Sequence[int]) -> AnySchedule:
    """Return the curves one after another, as frameworks that count from 0 join them."""
    if boundaries and boundaries[0] == 0:
        return exact(curves[1:], boundaries[1:])
    return Sequential(curves, boundaries=boundaries) if boundaries else curves[0]


def from_zero(curve: AnySchedule) -> AnySchedule:
    """Return a smooth curve that begins with its initial rate."""
    return Shift(curve, by=-1)


def staircase(lr: float, step: int, factor: float) -> AnySchedule:
    """Return levels that drop or rise after each step."""
    return Exponential(step=step, factor=factor, base_lr=lr, staircase=True)


def levels(lr: float, ends: Sequence[int], factors: Sequence[float]) -> AnySchedule:
    """Return levels that change by a factor after each of some iterations."""
    return Piecewise(boundaries=ends, values=list(accumulate(factors, lambda rate, factor: rate * factor, initial=lr)))


def restarts(length: float, multiple: float, last: int) -> list[float]:
    """Return the starts of the cycles after the first one, up to iteration `last`."""
    starts = [length]
    while starts[-1] <= last:
        length *= multiple
        starts.append(starts[-1] + length)
    return starts


def whole(starts: Iterable[float], offset: int = 0) -> set[int]:
    """Return the starts that are whole numbers."""
    return {offset + round(start) for start in starts if abs(start - round(start)) < 1e-6}


def triangle(draw: Draw, low: float, high: float, up: int, down: int) -> AnySchedule:
    """Return triangles of equal height."""
    one = Triangular(low, max_lr=high, cycle_length=up + down, inc_fraction=up / (up + down))
    # Repeat ends a cycle with the last rate of the curve, which is the first rate of the next cycle unless down is 0.
    return Repeat(one, length=up + down) if down and draw.random() < 0.5 else Cyclical(one)


def cyclic(draw: Draw, mode: str, low: float, high: float, up: int, down: int, gamma: float) -> AnySchedule:
    """Return the curve for a mode of CyclicLR."""
    sides: dict[str, Any] = {"cycle_length": up + down, "inc_fraction": up / (up + down)}
    if mode == "triangular":
        return triangle(draw, low, high, up, down)
    if mode == "triangular2":
        return Triangular2(low, max_lr=high, **sides)
    if gamma <= 1:
        return ExpRange(low, max_lr=high, factor=gamma, **sides)
    height = Cyclical(Triangular(0, max_lr=high - low, **sides))
    return Sum([Constant(low), Product([height, Exponential(step=1, factor=gamma, base_lr=1)])])


def draw_cyclic(draw: Draw) -> tuple[str, float, float, int, int, float]:
    """Draw a mode of CyclicLR, its rates, the lengths of its sides, and `gamma`."""
    low = draw.choice((0.0, draw.rate()))
    high = low + draw.choice((0.0, draw.rate(), draw.rate(), draw.rate()))
    return draw.choice(("triangular", "triangular2", "exp_range")), low, high, draw.length(), draw.length(), draw.ratio(400)


def draw_one_cycle(draw: Draw, pct_below: float = 1.0) -> dict[str, Any]:
    """Draw the arguments of our `OneCycleLR`, without its rates."""
    three_phase = draw.random() < 0.4
    while True:
        total = draw.length(300)
        pct = draw.choice((0.0, 0.3, 1.0, 0.5, draw.random())) / (2 if three_phase else 1)
        # The frameworks divide by zero if a phase has no length.
        phases = [0, pct * total - 1] + [2 * pct * total - 2] * three_phase + [total - 1]
        if pct <= pct_below and all(abs(stop - start) > 1e-6 for start, stop in pairwise(phases)):
            strategy = draw.choice(("cos", "linear"))
            return {"max_update": total, "pct_start": pct, "anneal_strategy": strategy, "three_phase": three_phase}


def one_cycle_corners(cycle: dict[str, Any]) -> set[int]:
    """Return the corners of a cycle that `draw_one_cycle` has drawn."""
    peak = round(cycle["pct_start"] * cycle["max_update"])
    return {peak, 2 * peak - 1}


def draw_plateau(draw: Draw) -> tuple[dict[str, Any], bool]:
    """Draw the arguments of our `Plateau`, and whether the result should rise."""
    rises = draw.random() < 0.4
    return {
        "factor": draw.choice((0.0, 0.1, 0.5, draw.uniform(0, 0.999))),
        "patience": draw.randrange(4),
        "threshold": draw.choice((0.0, 1e-4, 0.05, draw.uniform(0, 0.2))),
        "threshold_mode": draw.choice(("rel", "abs")),
        "cooldown": draw.randrange(4),
        "min_lr": draw.choice((0.0, 0.002, draw.rate())),
        "eps": draw.choice((0.0, 1e-8, 0.01, draw.uniform(0, 0.1))),
    }, rises


def metric(rises: bool) -> Any:
    """Return our name of a result that rises or falls."""
    return "accuracy" if rises else "loss"


# --- PyTorch

PYTORCH = Library("torch")


def pytorch_part(draw: Draw, lr: float, length: int, *, every: int = 1, product: bool = False) -> tuple[Any, AnySchedule]:
    """Draw one of PyTorch's schedulers, and our curve that has the rates of the same updates.

    Args:
        draw: The source of random parameters.
        lr: The initial rate of the curve.
        length: The number of steps, which a cosine must not exceed: PyTorch's rises again after its end.
        every: The number of updates per step.
        product: True for a scheduler that only multiplies the rate.
    """

    def smooth(curve: AnySchedule) -> AnySchedule:
        return from_zero(curve) if every == 1 else Hold(curve, length=every)

    steps, ratio = draw.length(length), draw.ratio(length)
    match draw.randrange(7):
        case 0:
            return partial(lr_scheduler.StepLR, step_size=steps, gamma=ratio), staircase(lr, steps * every, ratio)
        case 1:
            ends, factor = draw.increasing(length + 1), draw.fraction()
            curve: AnySchedule = MultiFactor(step=[end * every for end in ends], factor=factor, base_lr=lr)
            return partial(lr_scheduler.MultiStepLR, milestones=ends, gamma=factor), curve
        case 2:
            factor = draw.share()
            curve = Piecewise(boundaries=[steps * every], values=[lr * factor, lr])
            return partial(lr_scheduler.ConstantLR, factor=factor, total_iters=steps), curve
        case 3:
            start, end = draw.share(), draw.fraction()
            line = Linear(max_update=steps * every, base_lr=lr * start, final_lr=lr * end)
            return partial(lr_scheduler.LinearLR, start_factor=start, end_factor=end, total_iters=steps), smooth(line)
        case 4:
            return partial(lr_scheduler.ExponentialLR, gamma=ratio), smooth(Exponential(step=every, factor=ratio, base_lr=lr))
        case 5:
            power = draw.power()
            poly = Poly(max_update=steps * every, base_lr=lr, pwr=power)
            return partial(lr_scheduler.PolynomialLR, total_iters=steps, power=power), smooth(poly)
        case _:
            end, low = draw.randint(length, 2 * length), 0 if product else lr * draw.fraction()
            cosine = Cosine(max_update=end * every, base_lr=lr, final_lr=low)
            return partial(lr_scheduler.CosineAnnealingLR, T_max=end, eta_min=low), smooth(cosine)


@PYTORCH.case
def pytorch_step(draw: Draw) -> Comparison:
    lr, step, gamma = draw.rate(), draw.length(60), draw.ratio(8)
    ours = staircase(lr, step, gamma)
    if gamma <= 1 and draw.random() < 0.5:
        ours = Factor(step=step, factor=gamma, base_lr=lr, stop_factor_lr=0)
    origin = Stepped(partial(lr_scheduler.StepLR, step_size=step, gamma=gamma), lr)
    return Comparison(origin, ours, 8 * step, (step, 2 * step, 5 * step), shift=1)


@PYTORCH.case
def pytorch_multi_step(draw: Draw) -> Comparison:
    lr, ends, gamma = draw.rate(), draw.increasing(), draw.choice((0.0, draw.ratio(4)))
    repeated = [end for end in ends for _ in range(draw.choice((1, 1, 1, 2)))]
    ours: AnySchedule = levels(lr, ends, [gamma ** repeated.count(end) for end in ends])
    if gamma <= 1 and repeated == ends:
        ours = MultiFactor(step=ends, factor=gamma, base_lr=lr)
    origin = Stepped(partial(lr_scheduler.MultiStepLR, milestones=repeated, gamma=gamma), lr)
    return Comparison(origin, ours, ends[-1] + 20, ends, shift=1)


@PYTORCH.case
def pytorch_constant(draw: Draw) -> Comparison:
    lr, factor, end = draw.rate(), draw.share(), draw.length()
    origin = Stepped(partial(lr_scheduler.ConstantLR, factor=factor, total_iters=end), lr)
    return Comparison(origin, Piecewise(boundaries=[end], values=[lr * factor, lr]), end + 20, [end], shift=1)


@PYTORCH.case
def pytorch_linear(draw: Draw) -> Comparison:
    lr, start, end, length = draw.rate(), draw.share(), draw.fraction(), draw.length()
    ours = Linear(max_update=length, base_lr=lr * start, final_lr=lr * end)
    origin = Stepped(partial(lr_scheduler.LinearLR, start_factor=start, end_factor=end, total_iters=length), lr)
    return Comparison(origin, ours, length + 20, [length])


@PYTORCH.case
def pytorch_exponential(draw: Draw) -> Comparison:
    lr, gamma = draw.rate(), draw.ratio(200)
    origin = Stepped(partial(lr_scheduler.ExponentialLR, gamma=gamma), lr)
    return Comparison(origin, Exponential(step=1, factor=gamma, base_lr=lr), 200)


@PYTORCH.case
def pytorch_polynomial(draw: Draw) -> Comparison:
    lr, length, power = draw.rate(), draw.length(), draw.choice((0.0, draw.power(), draw.power(), draw.power()))
    origin = Stepped(partial(lr_scheduler.PolynomialLR, total_iters=length, power=power), lr)
    return Comparison(origin, Poly(max_update=length, base_lr=lr, pwr=power), length + 20, [length])


@PYTORCH.case
def pytorch_cosine(draw: Draw) -> Comparison:
    lr, length = draw.rate(), draw.length(300)
    low = draw.choice((0.0, lr * draw.fraction(), draw.rate()))
    ours: AnySchedule = Cosine(max_update=length, base_lr=lr, final_lr=low)
    if low <= lr and draw.random() < 0.5:
        ours = CosineAnnealing(low, max_lr=lr, cycle_length=length)
    # After T_max steps the cosine of PyTorch rises again; ours stays at its end.
    return Comparison(
        Stepped(partial(lr_scheduler.CosineAnnealingLR, T_max=length, eta_min=low), lr), ours, length, [length // 2]
    )


@PYTORCH.case
def pytorch_warm_restarts(draw: Draw) -> Comparison:
    lr, length, multiple = draw.rate(), draw.length(60), draw.randint(1, 4)
    low = draw.choice((0.0, lr * draw.fraction(), lr + draw.rate()))
    cycles = {"cycle_length": length, "t_mult": multiple}
    if low <= lr:
        ours: AnySchedule = WarmRestarts(low, max_lr=lr, **cycles)
    else:  # the cosine rises
        ours = Sum([Constant(low), WarmRestarts(0, max_lr=low - lr, **cycles)], weights=[1, -1])
    last = draw.choice((4 * length, 300))
    origin = Stepped(partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=length, T_mult=multiple, eta_min=low), lr)
    return Comparison(origin, ours, last, map(round, restarts(length, multiple, last)))


def pytorch_cyclic_call(mode: str, low: float, high: float, up: int, down: int, gamma: float) -> Any:
    rates = {"base_lr": low, "max_lr": high, "step_size_up": up, "step_size_down": down}
    return partial(lr_scheduler.CyclicLR, mode=mode, gamma=gamma, **rates)


@PYTORCH.case
def pytorch_cyclic(draw: Draw) -> Comparison:
    mode, low, high, up, down, gamma = draw_cyclic(draw)
    down = draw.choice((0, down, down, down))
    ours = cyclic(draw, mode, low, high, up, down, gamma)
    corners = (up, up + down, 2 * up + down, 2 * up + 2 * down)
    return Comparison(Stepped(pytorch_cyclic_call(mode, low, high, up, down, gamma)), ours, 3 * (up + down) + 10, corners)


@PYTORCH.case
def pytorch_cyclic_momentum(draw: Draw) -> Comparison:
    mode, _, _, up, down, gamma = draw_cyclic(draw)
    gamma = min(gamma, 1)  # a larger one makes the momentum negative
    low, high = sorted((draw.fraction(), draw.fraction()))
    ours = Sum([Constant(high), cyclic(draw, mode, 0, high - low, up, down, gamma)], weights=[1, -1])
    call = partial(pytorch_cyclic_call(mode, 0.1, 1, up, down, gamma), base_momentum=low, max_momentum=high)
    return Comparison(Stepped(call, read="momentum"), ours, 3 * (up + down), (up, up + down, 2 * up + down))


def pytorch_one_cycle_call(cycle: dict[str, Any], **others: float) -> Any:
    given = {name: value for name, value in cycle.items() if name != "max_update"}
    return partial(lr_scheduler.OneCycleLR, total_steps=cycle["max_update"], **given, **others)


@PYTORCH.case
def pytorch_one_cycle(draw: Draw) -> Comparison:
    cycle = draw_one_cycle(draw)
    rates: dict[str, Any] = {
        "max_lr": draw.rate(),
        "div_factor": draw.choice((25.0, 1.0, draw.uniform(0.5, 50))),
        "final_div_factor": draw.choice((1e4, 1.0, draw.uniform(0.5, 1000))),
    }
    origin = Stepped(pytorch_one_cycle_call(cycle, **rates))
    return Comparison(origin, OneCycleLR(**cycle, **rates), cycle["max_update"], one_cycle_corners(cycle), shift=1)


@PYTORCH.case
def pytorch_one_cycle_momentum(draw: Draw) -> Comparison:
    cycle, (low, high) = draw_one_cycle(draw), sorted((draw.fraction(), draw.fraction()))
    momenta: dict[str, Any] = {"base_momentum": low, "max_momentum": high}
    origin = Stepped(pytorch_one_cycle_call(cycle, max_lr=1, **momenta), read="momentum")
    return Comparison(origin, OneCycleMomentum(**cycle, **momenta), cycle["max_update"], one_cycle_corners(cycle), shift=1)


def pytorch_sequential_call(optimizer: Any, parts: Sequence[Any], milestones: list[int]) -> Any:
    return lr_scheduler.SequentialLR(optimizer, [part(optimizer) for part in parts], milestones)


@PYTORCH.case
def pytorch_sequential(draw: Draw) -> Comparison:
    lr, milestones = draw.rate(), draw.increasing(200, 3)
    lengths = [stop - start for start, stop in pairwise((0, *milestones, milestones[-1] + draw.length()))]
    parts, curves = zip(*(pytorch_part(draw, lr, length) for length in lengths), strict=True)
    origin = Stepped(partial(pytorch_sequential_call, parts=parts, milestones=milestones), lr)
    return Comparison(origin, exact(curves, milestones), sum(lengths), milestones, shift=1)


def pytorch_chained_call(optimizer: Any, parts: Sequence[Any]) -> Any:
    return lr_scheduler.ChainedScheduler([part(optimizer) for part in parts], optimizer)


@PYTORCH.case
def pytorch_chained(draw: Draw) -> Comparison:
    lr, length = draw.rate(), draw.length(200)
    drawn = [pytorch_part(draw, rate, length, product=True) for rate in (lr, 1, 1)[: draw.randint(1, 3)]]
    parts, curves = zip(*drawn, strict=True)
    return Comparison(Stepped(partial(pytorch_chained_call, parts=parts), lr), Product(curves), length, shift=1)


class PerEpoch:
    """A scheduler that is stepped once per epoch."""

    def __init__(self, optimizer: Any, part: Any, iterations: int) -> None:
        self.scheduler, self.iterations, self.count = part(optimizer), iterations, 0

    def step(self) -> None:
        self.count += 1
        if self.count % self.iterations == 0:
            self.scheduler.step()


@PYTORCH.case
def pytorch_per_epoch(draw: Draw) -> Comparison:
    lr, epochs, iterations = draw.rate(), draw.length(20), draw.length(20)
    part, ours = pytorch_part(draw, lr, epochs, every=iterations)
    origin = Stepped(partial(PerEpoch, part=part, iterations=iterations), lr)
    return Comparison(origin, ours, epochs * iterations, (iterations, 2 * iterations), shift=1)


def pytorch_reduced(call: Any, lr: float, results: Iterable[float]) -> list[float]:
    """Return the rate after each result."""
    optimizer, rates = pytorch_optimizer(lr), []
    scheduler = call(optimizer)
    for result in results:
        scheduler.step(result)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def pytorch_plateau_with(draw: Draw, call: Any) -> Reaction:
    lr, results, (settings, rises) = draw.rate(), draw.results(), draw_plateau(draw)
    call = partial(call, mode="max" if rises else "min", **settings)
    ours = Plateau(Constant(lr), metric=metric(rises), **settings)
    return Reaction((call, lr), pytorch_reduced(call, lr, results), ours, results)


@PYTORCH.case
def pytorch_plateau(draw: Draw) -> Reaction:
    return pytorch_plateau_with(draw, lr_scheduler.ReduceLROnPlateau)


# --- optax

OPTAX = Library("optax")
optax = Lazy("optax")


def optax_polynomial(draw: Draw, power: float | None) -> Comparison:
    begin, length, start, end = draw.up_to(50), draw.length(), draw.rate(), draw.choice((0.0, draw.rate()))
    end = draw.choice((end, end, start))
    given = {"init_value": start, "end_value": end, "transition_steps": length, "transition_begin": begin}
    if power is None:
        ours: AnySchedule = Linear(max_update=length, base_lr=start, final_lr=end)
        origin = Counted(partial(optax.linear_schedule, **given))
    else:
        ours = Poly(max_update=length, base_lr=start, final_lr=end, pwr=power)
        origin = Counted(partial(optax.polynomial_schedule, power=power, **given))
    return Comparison(origin, Shift(ours, by=-begin), begin + length + 20, (begin, begin + length))


def optax_decay(draw: Draw, lr: float, length: int) -> tuple[dict[str, Any], AnySchedule]:
    """Draw the arguments of `exponential_decay`, and the curve with the rates of the same updates."""
    steps, stairs, begin = draw.length(length), draw.random() < 0.5, draw.up_to(length // 2)
    factor = draw.ratio(length // steps)
    given = {"transition_steps": steps, "decay_rate": factor, "staircase": stairs, "transition_begin": begin}
    curve: AnySchedule = Exponential(step=steps, factor=factor, base_lr=lr, staircase=stairs)
    curve = Shift(curve, by=-begin if stairs else -begin - 1)
    if draw.random() < 0.6:
        bound = given["end_value"] = draw.choice((lr, lr * draw.uniform(0.1, 10)))
        curve = Clip(curve, min_lr=bound) if factor < 1 else Clip(curve, max_lr=bound)
    return given, curve


def optax_part(draw: Draw, length: int) -> tuple[Any, AnySchedule]:
    """Draw a schedule, and our curve that has the rates of the same updates."""
    lr, end = draw.rate(), draw.rate()
    match draw.randrange(4):
        case 0:
            return partial(optax.constant_schedule, lr), Constant(lr)
        case 1:
            given, curve = optax_decay(draw, lr, length)
            return partial(optax.exponential_decay, lr, **given), curve
        case 2:
            line = Linear(max_update=length, base_lr=lr, final_lr=end)
            return partial(optax.linear_schedule, lr, end, length), from_zero(line)
        case _:
            steps, alpha, exponent = draw.length(2 * length), draw.fraction(), draw.power()
            cosine = Cosine(max_update=steps, base_lr=lr, final_lr=alpha * lr, exponent=exponent)
            return partial(optax.cosine_decay_schedule, lr, steps, alpha, exponent), from_zero(cosine)


@OPTAX.case
def optax_constant(draw: Draw) -> Comparison:
    lr = draw.rate()
    return Comparison(Counted(partial(optax.constant_schedule, lr)), Constant(lr), 50)


@OPTAX.case
def optax_linear(draw: Draw) -> Comparison:
    return optax_polynomial(draw, None)


@OPTAX.case
def optax_poly(draw: Draw) -> Comparison:
    return optax_polynomial(draw, draw.power())


@OPTAX.case
def optax_cosine(draw: Draw) -> Comparison:
    lr, length, alpha, exponent = draw.rate(), draw.length(300), draw.choice((draw.fraction(), 1.5)), draw.power()
    origin = Counted(partial(optax.cosine_decay_schedule, lr, length, alpha, exponent))
    ours = Cosine(max_update=length, base_lr=lr, final_lr=alpha * lr, exponent=exponent)
    return Comparison(origin, ours, length + 20, [length // 2, length])


@OPTAX.case
def optax_exponential(draw: Draw) -> Comparison:
    lr, length = draw.rate(), draw.length(200)
    given, ours = optax_decay(draw, lr, length)
    begin, steps = given["transition_begin"], given["transition_steps"]
    origin = Counted(partial(optax.exponential_decay, lr, **given))
    return Comparison(origin, ours, length + 1, (begin, begin + steps, begin + 2 * steps), shift=1)


def draw_scales(draw: Draw) -> dict[int, float]:
    return {boundary: draw.choice((draw.uniform(0, 3), draw.fraction())) for boundary in draw.increasing()}


@OPTAX.case
def optax_piecewise_constant(draw: Draw) -> Comparison:
    lr, scales = draw.rate(), draw_scales(draw)
    origin = Counted(partial(optax.piecewise_constant_schedule, lr, scales))
    return Comparison(origin, levels(lr, list(scales), list(scales.values())), max(scales) + 20, scales, shift=1)


def optax_interpolated(kind: str, lr: float, scales: dict[int, float], origin: Any) -> Comparison:
    if 0 in scales:
        lr, scales = lr * scales[0], {boundary: scale for boundary, scale in scales.items() if boundary}
    knots, values = [0, *scales], list(accumulate(scales.values(), lambda rate, scale: rate * scale, initial=lr))
    ours: AnySchedule = PiecewiseLinear(knots=knots, values=values)
    if kind == "cosine":
        parts = zip(pairwise(knots), pairwise(values), strict=True)
        curves = [Cosine(max_update=stop - start, base_lr=high, final_lr=low) for (start, stop), (high, low) in parts]
        ours = Sequential(curves, boundaries=knots[1:-1]) if len(curves) > 1 else curves[0]
    return Comparison(Counted(origin), ours, knots[-1] + 20, knots)


@OPTAX.case
def optax_piecewise_interpolate(draw: Draw) -> Comparison:
    lr, scales, kind = draw.rate(), draw_scales(draw), draw.choice(("linear", "cosine"))
    return optax_interpolated(kind, lr, scales, partial(optax.piecewise_interpolate_schedule, kind, lr, scales))


@OPTAX.case
def optax_linear_onecycle(draw: Draw) -> Comparison:
    # With two equal boundaries, optax loses one of its phases.
    lr, length, (start, final) = draw.rate(), draw.length(300, 3), sorted((draw.random(), draw.random()))
    rise, fall = int(start * length), int(final * length)
    if rise == fall:
        rise, fall, start, final = 1, 2, 1.1 / length, 2.1 / length
    given = {
        "pct_start": start,
        "pct_final": final,
        "div_factor": draw.uniform(0.5, 30),
        "final_div_factor": draw.uniform(0.5, 90),
    }
    scales = {rise: given["div_factor"], fall: 1 / given["div_factor"], length: 1 / given["final_div_factor"]}
    origin = partial(optax.linear_onecycle_schedule, length, lr, **given)
    return optax_interpolated("linear", lr / given["div_factor"], scales, origin)


@OPTAX.case
def optax_cosine_onecycle(draw: Draw) -> Comparison:
    lr, length, start = draw.rate(), draw.length(300), draw.uniform(0, 0.999)
    given: dict[str, Any] = {"div_factor": draw.uniform(0.5, 30), "final_div_factor": draw.uniform(0.5, 1000)}
    rise = int(start * length) + 1
    ours = OneCycleLR(max_lr=lr, max_update=length + 1, pct_start=rise / (length + 1), **given)
    origin = Counted(partial(optax.cosine_onecycle_schedule, length, lr, pct_start=start, **given))
    return Comparison(origin, ours, length + 20, (rise, length + 1), shift=1)


@OPTAX.case
def optax_warmup_constant(draw: Draw) -> Comparison:
    lr, begin, warmup = draw.rate(), draw.choice((0.0, draw.rate())), draw.length()  # 0 steps would stay at the first rate
    origin = Counted(partial(optax.warmup_constant_schedule, begin, lr, warmup))
    return Comparison(origin, Warmup(Constant(lr), warmup, warmup_begin_lr=begin), warmup + 20, [warmup])


@OPTAX.case
def optax_warmup_cosine(draw: Draw) -> Comparison:
    lr, begin, end, power = draw.rate(), draw.choice((0.0, draw.rate())), draw.choice((0.0, draw.rate())), draw.power()
    length = draw.length(300)
    warmup = draw.up_to(length - 1)
    origin = Counted(partial(optax.warmup_cosine_decay_schedule, begin, lr, warmup, length, end, power))
    cosine = Cosine(max_update=length - warmup, base_lr=lr, final_lr=end, exponent=power)
    return Comparison(origin, Warmup(cosine, warmup, warmup_begin_lr=begin), length + 20, (warmup, length))


@OPTAX.case
def optax_warmup_exponential(draw: Draw) -> Comparison:
    lr, begin, warmup, length = draw.rate(), draw.choice((0.0, draw.rate())), draw.up_to(80), draw.length()
    given, decay = optax_decay(draw, lr, length)
    origin = Counted(partial(optax.warmup_exponential_decay_schedule, begin, lr, warmup, **given))
    rise = Linear(max_update=max(warmup, 1), base_lr=begin, final_lr=lr)
    return Comparison(origin, exact([from_zero(rise), decay], [warmup]), warmup + length, [warmup], shift=1)


@OPTAX.case
def optax_sgdr(draw: Draw) -> Comparison:
    cycles, curves = [], []
    for _ in range(draw.randint(1, 4)):
        lr, begin, end, length, power = draw.rate(), draw.rate(), draw.rate(), draw.length(100), draw.power()
        warmup = draw.up_to(length - 1)
        given = {"init_value": begin, "peak_value": lr, "decay_steps": length, "warmup_steps": warmup, "end_value": end}
        cycles.append(given | {"exponent": power})
        cosine = Cosine(max_update=length - warmup, base_lr=lr, final_lr=end, exponent=power)
        curves.append(from_zero(Warmup(cosine, warmup, warmup_begin_lr=begin)))
    ends = list(accumulate(int(cycle["decay_steps"]) for cycle in cycles))
    ours = exact(curves, ends[:-1])
    return Comparison(Counted(partial(optax.sgdr_schedule, cycles)), ours, ends[-1] + 20, ends, shift=1)


def optax_joined(parts: Sequence[Any], boundaries: list[int]) -> Any:
    return optax.join_schedules([part() for part in parts], boundaries)


@OPTAX.case
def optax_join(draw: Draw) -> Comparison:
    boundaries = draw.increasing(200, 3)
    lengths = [stop - start for start, stop in pairwise((0, *boundaries, boundaries[-1] + draw.length()))]
    parts, curves = zip(*(optax_part(draw, length) for length in lengths), strict=True)
    origin = Counted(partial(optax_joined, parts, boundaries))
    return Comparison(origin, exact(curves, boundaries), sum(lengths), boundaries, shift=1)


# --- Keras

KERAS = Library("keras")
keras_schedules = Lazy("keras.optimizers.schedules")


def by_steps(draw: Draw, lr: float, factor: float, kind: Any, call: Any) -> Comparison:
    steps, stairs = draw.length(60), draw.random() < 0.5
    name = "factor" if kind is Exponential else "decay_rate"
    ours = kind(step=steps, base_lr=lr, staircase=stairs, **{name: factor})
    origin = Counted(partial(call, lr, steps, factor, staircase=stairs))
    return Comparison(origin, ours, 8 * steps, (steps, 2 * steps), shift=int(stairs))


@KERAS.case
def keras_exponential(draw: Draw) -> Comparison:
    return by_steps(draw, draw.rate(), draw.ratio(8), Exponential, keras_schedules.ExponentialDecay)


@KERAS.case
def keras_inverse_time(draw: Draw) -> Comparison:
    strength = draw.choice((0.0, 1.0, draw.uniform(0, 5)))
    return by_steps(draw, draw.rate(), strength, InverseTime, keras_schedules.InverseTimeDecay)


@KERAS.case
def keras_piecewise(draw: Draw) -> Comparison:
    boundaries = draw.increasing(first=0)
    values = [draw.choice((0.0, draw.rate(), draw.rate())) for _ in (*boundaries, 0)]
    origin = Counted(partial(keras_schedules.PiecewiseConstantDecay, boundaries, values))
    ends = [boundary + 1 for boundary in boundaries]  # update k has count k − 1
    return Comparison(origin, Piecewise(boundaries=ends, values=values), ends[-1] + 20, ends, shift=1)


def polynomial(draw: Draw) -> tuple[dict[str, Any], AnySchedule, int]:
    """Draw the arguments that Keras and Paddle have in common."""
    length, end, power, cycle = draw.length(), draw.choice((0.0, draw.rate())), draw.power(), draw.random() < 0.5
    lr = draw.choice((draw.rate(), end or 1.0))
    ours = Poly(max_update=length, base_lr=lr, final_lr=end, pwr=power, cycle=cycle)
    return {"learning_rate": lr, "decay_steps": length, "end": end, "power": power, "cycle": cycle}, ours, length


@KERAS.case
def keras_polynomial(draw: Draw) -> Comparison:
    given, ours, length = polynomial(draw)
    given = {"initial_learning_rate": given.pop("learning_rate"), "end_learning_rate": given.pop("end")} | given
    origin = Counted(partial(keras_schedules.PolynomialDecay, **given))
    return Comparison(origin, ours, 4 * length, (length, 2 * length, 3 * length))


@KERAS.case
def keras_cosine(draw: Draw) -> Comparison:
    lr, length, alpha, warmup = draw.rate(), draw.length(200), draw.fraction(), draw.up_to(50)
    begin = draw.choice((0.0, draw.rate()))
    if draw.random() < 0.3:
        warmup, begin, given = 0, lr, {}
    else:
        given = {"warmup_target": lr, "warmup_steps": warmup}
    origin = Counted(partial(keras_schedules.CosineDecay, begin, length, alpha, **given))
    ours = Warmup(Cosine(max_update=length, base_lr=lr, final_lr=alpha * lr), warmup, warmup_begin_lr=begin)
    return Comparison(origin, ours, warmup + length + 20, (warmup, warmup + length))


@KERAS.case
def keras_cosine_restarts(draw: Draw) -> Comparison:
    lr, length, multiple, alpha = draw.rate(), draw.length(60), draw.multiple(), draw.fraction()
    factor = draw.ratio(6) if multiple == 1 else draw.fraction()
    last = 6 * length
    starts = restarts(length, multiple, last)
    fall = WarmRestarts(0, max_lr=lr * (1 - alpha), cycle_length=length, t_mult=multiple, cycle_decay=min(factor, 1))
    ours = Sum([fall, Constant(alpha * lr)])
    if factor > 1:
        ours = Sum([Product([fall, Shift(staircase(1, length, factor), by=1)]), Constant(alpha * lr)])
    origin = Counted(partial(keras_schedules.CosineDecayRestarts, lr, length, multiple, factor, alpha))
    # Keras finds the cycle with a logarithm, whose rounding may make it wrong by one where a cycle begins.
    return Comparison(origin, ours, last, map(int, starts), restarts=whole(starts) if multiple > 1 else ())


@KERAS.case
def keras_plateau(draw: Draw) -> Reaction:
    lr, results, (settings, rises) = draw.rate(), draw.results(unknown=False), draw_plateau(draw)
    settings |= {"threshold_mode": "abs", "eps": 0.0}
    patience, cooldown = settings["patience"], settings["cooldown"]
    given = {"mode": "max" if rises else "min", "min_delta": settings["threshold"], "patience": patience, "cooldown": cooldown}
    call = partial(Lazy("keras.callbacks").ReduceLROnPlateau, factor=settings["factor"], min_lr=settings["min_lr"], **given)
    callback, model = call(), SimpleNamespace(optimizer=SimpleNamespace(learning_rate=lr))
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, result in enumerate(results):
        callback.on_epoch_end(epoch, {"val_loss": result})
        rates.append(float(model.optimizer.learning_rate))
    settings |= {"patience": max(patience - 1, 0), "cooldown": max(cooldown - 1, 0)}
    return Reaction((call, lr), rates, Plateau(Constant(lr), metric=metric(rises), **settings), results)


# --- timm

TIMM = Library("timm")
timm = Lazy("timm.scheduler")


@dataclass(frozen=True)
class Timm:
    """A scheduler of timm, whose rate depends only on the number of steps."""

    call: Callable[..., Any]
    lr: float

    def __call__(self, counts: list[int]) -> list[float]:
        optimizer, seen = pytorch_optimizer(self.lr), []
        scheduler = self.call(optimizer)
        for count in counts:
            scheduler.step(count)
            seen.append(optimizer.param_groups[0]["lr"])
        return seen


def timm_warmup(draw: Draw) -> tuple[dict[str, Any], int, float, bool]:
    """Draw the arguments of the warm-up."""
    warmup, begin, prefix = draw.up_to(60), draw.choice((0.0, draw.rate())), draw.random() < 0.5
    return {"warmup_t": warmup, "warmup_lr_init": begin, "warmup_prefix": prefix}, warmup, begin, prefix


def timm_levels(draw: Draw, call: Any, lr: float, curve: AnySchedule, ends: Sequence[int]) -> Comparison:
    given, warmup, begin, prefix = timm_warmup(draw)
    rise = from_zero(Linear(max_update=max(warmup, 1), base_lr=begin, final_lr=lr))
    ours = exact([rise, curve if prefix else Shift(curve, by=warmup)], [warmup])
    offset = warmup if prefix else 0
    corners = [warmup, *(offset + end for end in ends)]
    return Comparison(Timm(partial(call, **given), lr), ours, offset + warmup + ends[-1] + 20, corners, shift=1)


@TIMM.case
def timm_step(draw: Draw) -> Comparison:
    lr, step = draw.rate(), draw.length(60)
    factor = draw.ratio(8 + 200 // step)
    call = partial(timm.StepLRScheduler, decay_t=step, decay_rate=factor)
    return timm_levels(draw, call, lr, staircase(lr, step, factor), [step, 2 * step, 6 * step])


@TIMM.case
def timm_multi_step(draw: Draw) -> Comparison:
    lr, milestones, factor = draw.rate(), draw.increasing(first=2), draw.ratio(4)
    ends = [milestone - 1 for milestone in milestones]  # timm drops one step early
    curve: AnySchedule = levels(lr, ends, [factor] * len(ends))
    if factor <= 1:
        curve = MultiFactor(step=ends, factor=factor, base_lr=lr)
    return timm_levels(draw, partial(timm.MultiStepLRScheduler, decay_t=milestones, decay_rate=factor), lr, curve, ends)


def timm_single(draw: Draw, call: Any, lr: float, curve: AnySchedule, length: int) -> Comparison:
    given, warmup, begin, prefix = timm_warmup(draw)
    # Without the prefix, the warm-up of TanhLRScheduler ends at the rate of the tangent there; that of the others ends at lr.
    end = curve.rate_at(warmup) if isinstance(curve, Tanh) and not prefix else lr
    ours = Warmup(curve, warmup, warmup_begin_lr=begin, warmup_end_lr=end, overlay=not prefix)
    # The tangent does not begin with lr, and timm begins it at the last iteration of the warm-up; ours begins after it.
    apart = [warmup] if isinstance(curve, Tanh) and prefix else []
    offset = warmup if prefix else 0
    return Comparison(Timm(partial(call, **given), lr), ours, offset + length + 20, (warmup, offset + length), apart=apart)


@TIMM.case
def timm_cosine(draw: Draw) -> Comparison:
    lr, length, k_decay = draw.rate(), draw.length(200), draw.power()
    low = draw.choice((0.0, lr * draw.fraction(), draw.rate()))
    ours = Cosine(max_update=length, base_lr=lr, final_lr=low, k_decay=k_decay)
    call = partial(timm.CosineLRScheduler, t_initial=length, lr_min=low, k_decay=k_decay)
    return timm_single(draw, call, lr, ours, length)


@TIMM.case
def timm_poly(draw: Draw) -> Comparison:
    lr, length, power, k_decay = draw.rate(), draw.length(200), draw.power(), draw.power()
    low = draw.choice((0.0, lr * draw.fraction(), draw.rate()))
    ours = Poly(max_update=length, base_lr=lr, final_lr=low, pwr=power, k_decay=k_decay)
    call = partial(timm.PolyLRScheduler, t_initial=length, power=power, lr_min=low, k_decay=k_decay)
    return timm_single(draw, call, lr, ours, length)


def draw_tanh(draw: Draw) -> dict[str, Any]:
    lower = draw.choice((-7.0, -1.0, draw.uniform(-8, 2)))
    return {"lower": lower, "upper": lower + draw.choice((10.0, 0.5, draw.uniform(0.1, 10)))}


@TIMM.case
def timm_tanh(draw: Draw) -> Comparison:
    lr, length, bounds = draw.rate(), draw.length(200), draw_tanh(draw)
    low = draw.choice((0.0, lr * draw.fraction()))
    call = partial(timm.TanhLRScheduler, t_initial=length, lb=bounds["lower"], ub=bounds["upper"], lr_min=low)
    return timm_single(draw, call, lr, Tanh(max_update=length, base_lr=lr, final_lr=low, **bounds), length)


def draw_timm_cycles(draw: Draw, multiple: float) -> tuple[dict[str, Any], int, float, int]:
    length, factor, limit = draw.length(50), draw.fraction(), draw.randint(1, 5)
    given = {"t_initial": length, "cycle_mul": multiple, "cycle_decay": factor, "cycle_limit": limit}
    return given, length, factor, limit


@TIMM.case
def timm_cosine_cycles(draw: Draw) -> Comparison:
    lr, multiple = draw.rate(), draw.multiple()
    low, (cycles, length, factor, limit) = lr * draw.fraction(), draw_timm_cycles(draw, multiple)
    given, warmup, begin, prefix = timm_warmup(draw)
    starts = restarts(length, multiple, 400)
    ours = WarmRestarts(low, max_lr=lr, cycle_length=length, t_mult=multiple, cycle_decay=factor, cycle_limit=limit)
    warmed = Warmup(ours, warmup, warmup_begin_lr=begin, overlay=not prefix)
    origin = Timm(partial(timm.CosineLRScheduler, lr_min=low, **cycles, **given), lr)
    offset = warmup if prefix else 0
    # timm finds the cycle with a logarithm, whose rounding may make it wrong by one where a cycle begins.
    begins = whole(starts, offset) if multiple > 1 else ()
    return Comparison(origin, warmed, 400, [warmup, *(offset + int(start) for start in starts)], restarts=begins)


@TIMM.case
def timm_other_cycles(draw: Draw) -> Comparison:
    lr, multiple, power, bounds = draw.rate(), draw.randint(1, 3), draw.power(), draw_tanh(draw)
    low, (given, length, factor, limit) = lr * draw.fraction(), draw_timm_cycles(draw, multiple)
    kind = draw.choice(("Cosine", "Poly", "Tanh"))
    curves: list[AnySchedule] = []
    lengths = [length * multiple**cycle for cycle in range(limit)]
    for cycle, steps in enumerate(lengths):
        common = {"max_update": steps, "base_lr": lr * factor**cycle, "final_lr": low}
        match kind:
            case "Cosine":
                curves.append(Cosine(k_decay=power, **common))
            case "Poly":
                curves.append(Poly(k_decay=power, pwr=bounds["upper"] % 3, **common))
            case _:
                curves.append(Tanh(**bounds, **common))
    match kind:
        case "Cosine":
            given |= {"k_decay": power}
        case "Poly":
            given |= {"k_decay": power, "power": bounds["upper"] % 3}
        case _:
            given |= {"lb": bounds["lower"], "ub": bounds["upper"]}
    ends = list(accumulate(lengths))
    ours = exact([*map(from_zero, curves), Constant(low)], ends)
    origin = Timm(partial(getattr(timm, f"{kind}LRScheduler"), lr_min=low, **given), lr)
    begins = {end + 1 for end in ends} if multiple > 1 else ()
    return Comparison(origin, ours, min(ends[-1] + 20, 3000), ends, shift=1, restarts=begins)


def draw_timm_decay(draw: Draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw the form of the decay of WSDLRScheduler, and the arguments of our curve for it."""
    power, ratio = draw.power(), draw.inner()
    match draw.choice(("linear", "1-sqrt", "cosine", "power", "exp")):
        case "power":
            return {"decay_fn": "power", "decay_power": power}, {"decay": "power", "decay_power": power}
        case "exp":
            return {"decay_fn": "exp", "decay_ratio": ratio}, {"decay": "exponential", "decay_ratio": ratio}
        case form:
            return {"decay_fn": form}, {"decay": form}


@TIMM.case
def timm_wsd(draw: Draw) -> Comparison:
    lr, length, warmup, begin = draw.rate(), draw.length(200), draw.up_to(60), draw.choice((0.0, draw.rate()))
    low, decay_steps, (theirs, form) = lr * draw.fraction(), draw.up_to(length) or 1, draw_timm_decay(draw)
    end = warmup + length
    given: dict[str, Any] = {
        "t_initial": length,
        "decay_t": decay_steps,
        "lr_min": low,
        "warmup_t": warmup,
        "warmup_lr_init": begin,
    }
    stable, timescale, power = draw.choice(("constant", "rsqrt", "power")), draw.uniform(0.5, 100), draw.power()
    given |= {"stable_fn": stable, "stable_timescale": timescale, "stable_power": power} | theirs
    if stable == "constant":
        steps: dict[str, Any] = {"max_update": end, "warmup_steps": warmup, "decay_steps": decay_steps}
        ours: AnySchedule = WarmupStableDecay(**steps, **form, base_lr=lr, warmup_begin_lr=begin, final_lr=low)
    else:
        # lr_min + (stable − lr_min) · decay
        power = 0.5 if stable == "rsqrt" else power
        decline = Clip(InverseTime(step=1, decay_rate=1 / timescale, power=power, base_lr=lr), min_lr=low)
        warmed = Warmup(decline, warmup, warmup_begin_lr=begin)
        decay = WarmupStableDecay(max_update=end, warmup_steps=0, decay_steps=decay_steps, base_lr=1, **form)
        ours = Product([warmed, decay])
        if low:
            ours = Sum([ours, Constant(low), Scale(decay, low)], weights=[1, 1, -1])
    corners = (warmup, end - decay_steps, end)
    return Comparison(Timm(partial(timm.WSDLRScheduler, **given), lr), ours, end + 20, corners)


# --- transformers

TRANSFORMERS = Library("transformers")
transformers = Lazy("transformers.optimization")


def draw_warmed(draw: Draw) -> tuple[float, int, int]:
    """Draw a rate, a number of iterations, and how many of them are the warm-up."""
    length = draw.length(300)
    return draw.rate(), length, draw.up_to(length - 1)


@TRANSFORMERS.case
def transformers_constant(draw: Draw) -> Comparison:
    lr, warmup = draw.rate(), draw.up_to(100)
    if draw.random() < 0.2:
        return Comparison(Stepped(transformers.get_constant_schedule, lr), Constant(lr), 50)
    origin = Stepped(partial(transformers.get_constant_schedule_with_warmup, num_warmup_steps=warmup), lr)
    return Comparison(origin, Warmup(Constant(lr), warmup), warmup + 20, [warmup])


@TRANSFORMERS.case
def transformers_linear(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    ours: AnySchedule = from_zero(Warmup(Linear(max_update=length - warmup, base_lr=lr), warmup))
    if draw.random() < 0.2:
        warmup = length  # the origin falls to 0 at once
        ours = Sequential([from_zero(Linear(max_update=length, base_lr=0, final_lr=lr)), Constant(0)], boundaries=[length])
    origin = Stepped(
        partial(transformers.get_linear_schedule_with_warmup, num_warmup_steps=warmup, num_training_steps=length), lr
    )
    return Comparison(origin, ours, length + 20, (warmup, length), shift=1)


@TRANSFORMERS.case
def transformers_cosine(draw: Draw) -> Comparison:
    lr, half_waves, half = draw.rate(), draw.randint(1, 5), draw.length(80)
    length, warmup = half * half_waves, draw.up_to(60)
    highs = [lr * (wave % 2 == 0) for wave in range(half_waves + 1)]
    waves = [Cosine(max_update=half, base_lr=high, final_lr=low) for high, low in pairwise(highs)]
    ours = exact(waves, [half * wave for wave in range(1, half_waves)])
    given = {"num_warmup_steps": warmup, "num_training_steps": warmup + length, "num_cycles": half_waves / 2}
    origin = Stepped(partial(transformers.get_cosine_schedule_with_warmup, **given), lr)
    # After its end the cosine goes on; ours stays.
    return Comparison(origin, Warmup(ours, warmup), warmup + length, (warmup, warmup + half, warmup + 2 * half))


@TRANSFORMERS.case
def transformers_cosine_part(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    longer = draw.randint(1, 4)
    given = {"num_warmup_steps": warmup, "num_training_steps": length, "num_cycles": 0.5 / longer}
    origin = Stepped(partial(transformers.get_cosine_schedule_with_warmup, **given), lr)
    ours = Warmup(Cosine(max_update=longer * (length - warmup), base_lr=lr), warmup)
    return Comparison(origin, ours, warmup + longer * (length - warmup), (warmup, length))


@TRANSFORMERS.case
def transformers_hard_restarts(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    cycles = draw.randint(1, min(9, length - warmup))
    ours = WarmRestarts(0, max_lr=lr, cycle_length=(length - warmup) / cycles, cycle_limit=cycles)
    given = {"num_warmup_steps": warmup, "num_training_steps": length, "num_cycles": cycles}
    starts = [(length - warmup) / cycles * cycle for cycle in range(1, cycles)]
    origin = Stepped(partial(transformers.get_cosine_with_hard_restarts_schedule_with_warmup, **given), lr)
    # The rounding of the origin's `% 1.0` decides whether a cycle ends or the next one begins at a restart.
    corners = [warmup, length, *(warmup + int(start) for start in starts)]
    return Comparison(origin, Warmup(ours, warmup), length + 20, corners, restarts=whole(starts, warmup))


@TRANSFORMERS.case
def transformers_polynomial(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    end, power = draw.choice((0.0, lr * draw.uniform(0, 0.99))), draw.power()
    ours: AnySchedule = Poly(max_update=length, base_lr=lr, final_lr=end, pwr=power, warmup_steps=warmup)
    if draw.random() < 0.5:
        ours = Warmup(Poly(max_update=length - warmup, base_lr=lr, final_lr=end, pwr=power), warmup)
    given = {"num_warmup_steps": warmup, "num_training_steps": length, "lr_end": end, "power": power}
    origin = Stepped(partial(transformers.get_polynomial_decay_schedule_with_warmup, **given), lr)
    return Comparison(origin, ours, length + 20, (warmup, length))


@TRANSFORMERS.case
def transformers_inverse_sqrt(draw: Draw) -> Comparison:
    lr, warmup, timescale = draw.rate(), draw.up_to(100), draw.choice((None, draw.length(1000)))
    given = {"num_warmup_steps": warmup, "timescale": timescale}
    ours = Warmup(InverseSqrt(timescale=timescale or warmup or 10_000, base_lr=lr), warmup)
    return Comparison(Stepped(partial(transformers.get_inverse_sqrt_schedule, **given), lr), ours, warmup + 200, [warmup])


def draw_min_lr(draw: Draw, lr: float) -> tuple[dict[str, float], float]:
    ratio = draw.fraction()
    return draw.choice(({"min_lr": ratio * lr}, {"min_lr_rate": ratio})), ratio * lr


@TRANSFORMERS.case
def transformers_cosine_min(draw: Draw) -> Comparison:
    (lr, length, warmup), call = draw_warmed(draw), transformers.get_cosine_with_min_lr_schedule_with_warmup
    given, low = draw_min_lr(draw, lr)
    origin = Stepped(partial(call, num_warmup_steps=warmup, num_training_steps=length, **given), lr)
    ours = Cosine(max_update=length - warmup, base_lr=lr, final_lr=low)
    # After its end the cosine rises again; ours stays there.
    return Comparison(origin, Warmup(ours, warmup), length, [warmup])


@TRANSFORMERS.case
def transformers_cosine_warmup_min(draw: Draw) -> Comparison:
    (lr, length, warmup), call = draw_warmed(draw), transformers.get_cosine_with_min_lr_schedule_with_warmup_lr_rate
    given, low = draw_min_lr(draw, lr)
    cosine = Cosine(max_update=length - warmup, base_lr=lr, final_lr=low)
    ours: AnySchedule = Warmup(cosine, warmup)
    if draw.random() < 0.5:
        begin = draw.fraction()
        given |= {"warmup_lr_rate": begin}
        rise: AnySchedule = from_zero(Linear(max_update=max(warmup - 1, 1), base_lr=begin * lr, final_lr=lr))
        ours = exact([rise, cosine], [warmup])
    origin = Stepped(partial(call, num_warmup_steps=warmup, num_training_steps=length, **given), lr)
    return Comparison(origin, ours, length, [warmup], shift=1)


@TRANSFORMERS.case
def transformers_wsd(draw: Draw) -> Comparison:
    lr, warmup, stable, decay_steps, ratio = draw.rate(), draw.up_to(60), draw.up_to(80), draw.up_to(80), draw.fraction()
    stable += stable + decay_steps == 0
    forms: tuple[Literal["linear"], Literal["cosine"], Literal["1-sqrt"]] = ("linear", "cosine", "1-sqrt")
    rise, fall = draw.choice(forms), draw.choice(forms)
    given: dict[str, Any] = {"num_warmup_steps": warmup, "num_decay_steps": decay_steps, "min_lr_ratio": ratio}
    given |= {"warmup_type": rise, "decay_type": fall}
    end = warmup + stable + decay_steps
    given |= draw.choice(({"num_stable_steps": stable}, {"num_training_steps": end}))
    steps = {"max_update": stable + decay_steps, "warmup_steps": 0, "decay_steps": decay_steps}
    flat = WarmupStableDecay(**steps, decay=fall, base_lr=lr, final_lr=lr * ratio)
    ours = Warmup(flat, warmup, warmup_begin_lr=lr * ratio, warmup_mode=rise)
    origin = Stepped(partial(transformers.get_wsd_schedule, **given), lr)
    return Comparison(origin, ours, end + 20, (warmup, warmup + stable, end))


@TRANSFORMERS.case
def transformers_plateau(draw: Draw) -> Reaction:
    return pytorch_plateau_with(draw, transformers.get_reduce_on_plateau_schedule)


@TRANSFORMERS.case
def transformers_greedy(draw: Draw) -> Reaction:
    lr, results, (settings, rises) = draw.rate(), draw.results(), draw_plateau(draw)
    low = settings["min_lr"]
    settings |= {"factor": draw.inner(), "warmup": draw.randrange(4), "max_lr": max(low, draw.choice((lr, lr * 3, 100.0)))}
    settings |= {"reset_start": draw.randint(1, 4), "eps": draw.choice((0.0, 1e-8, lr / 10))}
    call = partial(transformers.get_greedy_schedule, mode="max" if rises else "min", **settings)
    ours = Greedy(base_lr=lr, metric=metric(rises), **settings)
    return Reaction((call, lr), pytorch_reduced(call, lr, results), ours, results)


# --- Paddle

PADDLE = Library("paddlepaddle")
paddle = Lazy("paddle.optimizer.lr")


@dataclass(frozen=True)
class Paddle:
    """A scheduler of Paddle, which is stepped as in a training."""

    call: Callable[..., Any]

    def __call__(self, counts: list[int]) -> list[float]:
        scheduler = self.call()
        seen = [scheduler()]
        for _ in range(counts[-1]):
            scheduler.step()
            seen.append(scheduler())
        return [float(seen[count]) for count in counts]


@PADDLE.case
def paddle_noam(draw: Draw) -> Comparison:
    size, warmup, factor = draw.choice((1, 64, 512)), draw.length(200), draw.rate()
    ours = Noam(model_size=size, warmup_steps=warmup, base_lr=factor)
    return Comparison(Paddle(partial(paddle.NoamDecay, size, warmup, factor)), ours, 2 * warmup + 20, [warmup])


@PADDLE.case
def paddle_piecewise(draw: Draw) -> Comparison:
    boundaries = draw.increasing()
    values = [draw.choice((0.0, draw.rate(), draw.rate())) for _ in (*boundaries, 0)]
    origin = Paddle(partial(paddle.PiecewiseDecay, boundaries, values))
    return Comparison(origin, Piecewise(boundaries=boundaries, values=values), boundaries[-1] + 20, boundaries, shift=1)


@PADDLE.case
def paddle_natural_exp(draw: Draw) -> Comparison:
    lr, gamma = draw.rate(), draw.uniform(1e-4, 1)
    ours = NaturalExponential(step=1, decay_rate=gamma, base_lr=lr)
    return Comparison(Paddle(partial(paddle.NaturalExpDecay, lr, gamma)), ours, 200)


@PADDLE.case
def paddle_inverse_time(draw: Draw) -> Comparison:
    lr, gamma = draw.rate(), draw.choice((0.0, draw.uniform(0, 1)))
    return Comparison(
        Paddle(partial(paddle.InverseTimeDecay, lr, gamma)), InverseTime(step=1, decay_rate=gamma, base_lr=lr), 200
    )


@PADDLE.case
def paddle_polynomial(draw: Draw) -> Comparison:
    given, ours, length = polynomial(draw)
    origin = Paddle(partial(paddle.PolynomialDecay, **{"end_lr" if name == "end" else name: given[name] for name in given}))
    return Comparison(origin, ours, 4 * length, (length, 2 * length, 3 * length))


@PADDLE.case
def paddle_exponential(draw: Draw) -> Comparison:
    lr, gamma = draw.rate(), draw.inner()
    return Comparison(Paddle(partial(paddle.ExponentialDecay, lr, gamma)), Exponential(step=1, factor=gamma, base_lr=lr), 200)


@PADDLE.case
def paddle_multi_step(draw: Draw) -> Comparison:
    lr, ends, gamma = draw.rate(), draw.increasing(), draw.choice((0.0, draw.inner()))
    origin = Paddle(partial(paddle.MultiStepDecay, lr, ends, gamma))
    return Comparison(origin, MultiFactor(step=ends, factor=gamma, base_lr=lr), ends[-1] + 20, ends, shift=1)


@PADDLE.case
def paddle_step(draw: Draw) -> Comparison:
    lr, step, gamma = draw.rate(), draw.length(60), draw.choice((0.0, draw.inner()))
    ours = draw.choice((staircase(lr, step, gamma), Factor(step=step, factor=gamma, base_lr=lr, stop_factor_lr=0)))
    return Comparison(Paddle(partial(paddle.StepDecay, lr, step, gamma)), ours, 8 * step, (step, 2 * step), shift=1)


@PADDLE.case
def paddle_linear(draw: Draw) -> Comparison:
    lr, start, end, length = draw.rate(), draw.share(), draw.fraction(), draw.length()
    ours = Linear(max_update=length, base_lr=lr * start, final_lr=lr * end)
    return Comparison(Paddle(partial(paddle.LinearLR, lr, length, start, end)), ours, length + 20, [length])


@PADDLE.case
def paddle_cosine(draw: Draw) -> Comparison:
    lr, length = draw.rate(), draw.length(300)
    low = draw.choice((0.0, lr * draw.fraction(), draw.rate()))
    # After T_max steps the cosine of Paddle rises again; ours stays at its end.
    origin = Paddle(partial(paddle.CosineAnnealingDecay, lr, length, low))
    return Comparison(origin, Cosine(max_update=length, base_lr=lr, final_lr=low), length, [length // 2])


@PADDLE.case
def paddle_warm_restarts(draw: Draw) -> Comparison:
    lr, length, multiple, last = draw.rate(), draw.length(60), draw.randint(1, 4), 300
    low = lr * draw.fraction()
    origin = Paddle(partial(paddle.CosineAnnealingWarmRestarts, lr, length, multiple, low))
    ours = WarmRestarts(low, max_lr=lr, cycle_length=length, t_mult=multiple)
    return Comparison(origin, ours, last, map(round, restarts(length, multiple, last)))


@PADDLE.case
def paddle_cyclic(draw: Draw) -> Comparison:
    mode, low, high, up, down, gamma = draw_cyclic(draw)
    origin = Paddle(partial(paddle.CyclicLR, low, high, up, down, mode, gamma))
    corners = (up, up + down, 2 * up + down, 2 * up + 2 * down)
    return Comparison(origin, cyclic(draw, mode, low, high, up, down, gamma), 3 * (up + down) + 10, corners)


@PADDLE.case
def paddle_one_cycle(draw: Draw) -> Comparison:
    cycle = draw_one_cycle(draw)
    if cycle["three_phase"]:
        cycle["three_phase"] = cycle["pct_start"] < 0.5  # Paddle takes no larger one
    lr, div, end = draw.rate(), draw.choice((25.0, 1.0, draw.uniform(0.5, 50))), draw.choice((0.0, 1e-4, draw.rate()))
    given = {
        "total_steps": cycle["max_update"],
        "divide_factor": div,
        "end_learning_rate": end,
        "phase_pct": cycle["pct_start"],
    }
    given |= {"anneal_strategy": cycle["anneal_strategy"], "three_phase": cycle["three_phase"]}
    ours = OneCycleLR(max_lr=lr, div_factor=div, final_lr=end, **cycle)
    origin = Paddle(partial(paddle.OneCycleLR, lr, **given))
    return Comparison(origin, ours, cycle["max_update"], one_cycle_corners(cycle), shift=1)


def paddle_warmed(inner: Any, *arguments: Any) -> Any:
    return paddle.LinearWarmup(inner() if callable(inner) else inner, *arguments)


@PADDLE.case
def paddle_linear_warmup(draw: Draw) -> Comparison:
    lr, warmup, begin, length = draw.rate(), draw.length(), draw.choice((0.0, draw.rate())), draw.length()
    end = begin + draw.rate()
    parts: list[tuple[Any, AnySchedule]] = [
        (lr, Constant(lr)),
        (partial(paddle.PolynomialDecay, lr, length, 0.0, 2.0), Poly(max_update=length, base_lr=lr, pwr=2)),
        (partial(paddle.ExponentialDecay, lr, 0.9), Exponential(step=1, factor=0.9, base_lr=lr)),
    ]
    inner, curve = draw.choice(parts)
    ours = Warmup(curve, warmup, warmup_begin_lr=begin, warmup_end_lr=end)
    # Paddle begins the other schedule after `warmup` steps; our warm-up reaches its end then.
    origin = Paddle(partial(paddle_warmed, inner, warmup, begin, end))
    return Comparison(origin, ours, warmup + length + 20, (warmup, warmup + length), apart=[warmup])


@PADDLE.case
def paddle_plateau(draw: Draw) -> Reaction:
    lr, results, (settings, rises) = draw.rate(), draw.results(unknown=False), draw_plateau(draw)
    eps = settings.pop("eps")
    # Paddle adds best · threshold to the best result, where PyTorch and ours multiply it by 1 + threshold. This decides a tie.
    settings["threshold"] *= 1.001
    call = partial(paddle.ReduceOnPlateau, lr, mode="max" if rises else "min", epsilon=eps, **settings)
    scheduler, rates = call(), []
    for epoch, result in enumerate(results):
        if scheduler.cooldown_counter > 0:  # Paddle does not look at the result; ours would keep it if it were the best
            results[epoch] = result = scheduler.best - 1 if rises else scheduler.best + 1
        scheduler.step(result)
        rates.append(scheduler())
    return Reaction((call, lr), rates, Plateau(Constant(lr), metric=metric(rises), eps=eps, **settings), results)


# --- gluon-cv

GLUON = Library(
    "gluoncv",
    "gluoncv/utils/lr_scheduler.py",
    lambda: {"mxnet": {"lr_scheduler": SimpleNamespace(LRScheduler=object)}},
)


def gluon_part(draw: Draw, *, exactly: bool) -> tuple[Any, AnySchedule, int]:
    """Draw a scheduler of gluon-cv, our curve for it, and its length.

    Args:
        draw: The source of random parameters.
        exactly: True for the curve with the rates of the same updates, False for the one that has at iteration k the
            scheduler's rate at its `num_update` k.
    """
    mode = draw.choice(("constant", "step", "linear", "poly", "cosine"))
    # The rate of the last iteration is the final one; with a single iteration gluon-cv divides by zero.
    lr, end, length = draw.rate(), draw.choice((0.0, draw.rate())), draw.length(120, 1 if mode == "constant" else 2)
    power, factor, begin = draw.power(), draw.ratio(4), 0 if exactly else draw.up_to(20)
    steps = draw.increasing(length, first=1 if exactly else 2)
    common: dict[str, Any] = {"max_update": max(length - 1, 1), "base_lr": lr, "final_lr": end}
    within = [step for step in steps if step < length]
    match mode:
        case "constant":
            curve: AnySchedule = Constant(lr)
        case "step":
            ends = within if exactly else [step - 1 for step in within]
            curve = levels(lr, ends, [factor] * len(ends)) if ends else Constant(lr)
        case "linear":
            curve = Linear(**common)
        case "poly":
            curve = Poly(pwr=power, **common)
        case _:
            curve = Cosine(**common)
    given = {"base_lr": lr, "target_lr": end, "niters": length, "power": power, "step_iter": steps, "step_factor": factor}
    if exactly and mode != "step":
        curve = from_zero(curve)
    call = partial(GLUON.load().LRScheduler, mode, offset=begin, **given)
    return call, curve if exactly else Shift(curve, by=-begin), begin + length


@GLUON.case
def gluon_scheduler(draw: Draw) -> Comparison:
    call, ours, length = gluon_part(draw, exactly=False)
    return Comparison(Counted(call), ours, length + 20, (length - 1, length))


def gluon_joined(parts: Sequence[Any]) -> Any:
    return GLUON.load().LRSequential([part() for part in parts])


@GLUON.case
def gluon_sequential(draw: Draw) -> Comparison:
    parts, curves, lengths = zip(*(gluon_part(draw, exactly=True) for _ in range(draw.randint(1, 4))), strict=True)
    ends = list(accumulate(lengths))
    # After its end gluon-cv keeps the rate of the last iteration, which a curve with levels may not.
    return Comparison(Counted(partial(gluon_joined, parts)), exact(curves, ends[:-1]), ends[-1], ends, shift=1)


# --- Megatron

MEGATRON = Library(
    "megatron_core",
    "megatron/core/optimizer_param_scheduler.py",
    lambda: {"megatron": {}, "megatron.core": {}, "megatron.core.utils": {"log_single_rank": unchanged}},
)


def megatron_call(optimizer: Any, **given: Any) -> Any:
    weight_decay = {"start_wd": 0.0, "end_wd": 0.0, "wd_incr_steps": 1, "wd_incr_style": "constant"}
    scheduler = MEGATRON.load().OptimizerParamScheduler(optimizer, **given, **weight_decay)
    return SimpleNamespace(step=partial(scheduler.step, 1))


@MEGATRON.case
def megatron_styles(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    begin, low = lr * draw.fraction(), lr * draw.fraction()
    style = draw.choice(("constant", "linear", "cosine", "inverse-square-root"))
    common: dict[str, Any] = {"max_update": length - warmup, "base_lr": lr, "final_lr": low}
    match style:
        case "constant":
            ours: AnySchedule = Constant(lr)
        case "linear":
            ours = Linear(**common)
        case "cosine":
            ours = Cosine(**common)
        case _:
            fall: AnySchedule = InverseSqrt(timescale=warmup or 1, base_lr=lr)
            fall = Clip(fall if warmup else from_zero(fall), min_lr=low)
            ours = Cooldown(fall, start=length - warmup, cooldown_steps=0, final_lr=low)
    given = {"init_lr": begin, "max_lr": lr, "min_lr": low, "lr_warmup_steps": warmup, "lr_decay_steps": length}
    origin = Stepped(partial(megatron_call, lr_decay_style=style, **given))
    return Comparison(origin, Warmup(ours, warmup, warmup_begin_lr=begin), length + 20, (warmup, length))


@MEGATRON.case
def megatron_wsd(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    begin, low, decay_steps = lr * draw.fraction(), lr * draw.fraction(), draw.up_to(length - warmup) or 1
    forms = {"linear": "linear", "cosine": "cosine", "exponential": "exponential", "minus_sqrt": "1-sqrt"}
    form = draw.choice(list(forms))
    steps: dict[str, Any] = {"max_update": length, "warmup_steps": warmup, "decay_steps": decay_steps, "decay": forms[form]}
    ours = WarmupStableDecay(**steps, base_lr=lr, warmup_begin_lr=begin, final_lr=low)
    given = {"init_lr": begin, "max_lr": lr, "min_lr": low, "lr_warmup_steps": warmup, "lr_decay_steps": length}
    wsd = {"lr_decay_style": "WSD", "wsd_decay_steps": decay_steps, "lr_wsd_decay_style": form}
    return Comparison(
        Stepped(partial(megatron_call, **given, **wsd)), ours, length + 20, (warmup, length - decay_steps, length)
    )


# --- fastai


def fastai_stand_ins() -> dict[str, dict[str, Any]]:
    def double(values: Any) -> Any:
        return torch.tensor(values, dtype=torch.float64)  # the default of fastai is float32

    def keep(names: str) -> None:
        values = sys._getframe(1).f_locals
        vars(values["self"]).update((name, values[name]) for name in names.split(","))

    learner = SimpleNamespace(fit_one_cycle=unchanged)
    names = {name: Lazy(name) for name in ("functools", "math", "numpy", "torch")}
    basics = names | {
        "tensor": double,
        "store_attr": keep,
        "L": list,
        "patch": unchanged,
        "docs": unchanged,
        "Callback": object,
    }
    basics |= {"Learner": learner, "Recorder": object, "delegates": lambda _: unchanged, "mk_class": lambda *_, **__: None}
    basics["SuggestionMethod"] = SimpleNamespace(Valley=None)
    packages: dict[str, dict[str, Any]] = {"fastai": {}, "fastai.callback": {}}
    return packages | {"fastai.basics": basics, "fastai.callback.tracker": {"SaveModelCallback": object}}


FASTAI = Library("fastai", "fastai/callback/schedule.py", fastai_stand_ins)


@dataclass(frozen=True)
class Progressed:
    """A schedule of fastai, a function of the elapsed fraction of the training."""

    call: Callable[..., Any]
    length: int

    def __call__(self, counts: list[int]) -> list[float]:
        schedule = self.call()
        return [float(schedule(count / self.length)) for count in counts]


@FASTAI.case
def fastai_annealing(draw: Draw) -> Comparison:
    start, end, length, power = draw.rate(), draw.rate(), draw.length(300), draw.power()
    common: dict[str, Any] = {"max_update": length, "base_lr": start, "final_lr": end}
    curves: dict[str, AnySchedule] = {
        "SchedLin": Linear(**common),
        "SchedCos": Cosine(**common),
        "SchedNo": Constant(start),
        "SchedExp": Exponential(step=length, factor=end / start, base_lr=start),
        "SchedPoly": Poly(pwr=1, k_decay=power, **common),
    }
    name = draw.choice(list(curves))
    given = (start, end, power) if name == "SchedPoly" else (start, end)
    return Comparison(Progressed(partial(getattr(FASTAI.load(), name), *given), length), curves[name], length, [length // 2])


@FASTAI.case
def fastai_one_cycle(draw: Draw) -> Comparison:
    lr, length, pct = draw.rate(), draw.length(300), draw.choice((0.25, 0.5, draw.uniform(0.001, 0.999)))
    div, div_final = draw.choice((25.0, draw.uniform(1, 50))), draw.choice((1e5, draw.uniform(1, 1e5)))
    ours = OneCycleLR(
        max_lr=lr,
        max_update=length + 1,
        pct_start=(pct * length + 1) / (length + 1),
        div_factor=div,
        final_div_factor=div_final / div,
    )
    # The call of fit_one_cycle
    origin = Progressed(partial(FASTAI.load().combined_cos, pct, lr / div, lr, lr / div_final), length)
    return Comparison(origin, ours, length + 1, [round(pct * length), round(pct * length) + 1], shift=1)


@FASTAI.case
def fastai_flat_cosine(draw: Draw) -> Comparison:
    lr, length, div_final = draw.rate(), draw.length(300, 2), draw.choice((1e5, draw.uniform(1, 1e5)))
    flat = draw.randint(1, length - 1)
    # The call of fit_flat_cos
    origin = Progressed(partial(FASTAI.load().combined_cos, flat / length, lr, lr, lr / div_final), length)
    ours = FlatCosine(max_update=length, flat_steps=flat, base_lr=lr, final_lr=lr / div_final)
    return Comparison(origin, ours, length, [flat])


@FASTAI.case
def fastai_sgdr(draw: Draw) -> Comparison:
    while True:
        lr, length, multiple, cycles = draw.rate(), draw.length(40), draw.randint(2, 3), draw.randint(1, 5)
        lengths = [length * multiple**cycle for cycle in range(cycles)]
        pcts = [steps / sum(lengths) for steps in lengths]
        if sum(pcts) == 1:  # fastai refuses others
            break
    schedules = FASTAI.load()
    # The call of fit_sgdr. The rounding of the fractions decides whether a cycle ends or the next one begins at a restart.
    origin = partial(schedules.combine_scheds, pcts, [schedules.SchedCos(lr, 0)] * cycles)
    ours = WarmRestarts(0, max_lr=lr, cycle_length=length, t_mult=multiple, cycle_limit=cycles)
    starts = list(accumulate(lengths))
    return Comparison(Progressed(origin, starts[-1]), ours, starts[-1], starts, restarts=starts[:-1])


@FASTAI.case
def fastai_combined_cos(draw: Draw) -> Comparison:
    start, middle, end, length = draw.rate(), draw.rate(), draw.rate(), draw.length(300, 2)
    turn = draw.randint(1, length - 1)
    origin = Progressed(partial(FASTAI.load().combined_cos, turn / length, start, middle, end), length)
    rise = Cosine(max_update=turn, base_lr=start, final_lr=middle)
    fall = Cosine(max_update=length - turn, base_lr=middle, final_lr=end)
    return Comparison(origin, Sequential([rise, fall], boundaries=[turn]), length, [turn])


# --- fairseq


def fairseq_stand_ins() -> dict[str, dict[str, Any]]:
    packages: dict[str, dict[str, Any]] = {"omegaconf": {"II": unchanged}, "fairseq": {}}
    packages |= {
        "fairseq.dataclass": {"FairseqDataclass": object},
        "fairseq.dataclass.utils": {"gen_parser_from_dataclass": None},
    }
    packages["fairseq.optim"] = {"FairseqOptimizer": FairseqOptimizer}
    base = {} if not FAIRSEQ._loaded else vars(FAIRSEQ.load())
    return packages | {"fairseq.optim.lr_scheduler": base | {"register_lr_scheduler": lambda *_, **__: unchanged}}


class FairseqOptimizer:
    """An optimizer that only has a rate."""

    rate = 0.0

    def set_lr(self, rate: float) -> None:
        self.rate = rate

    def get_lr(self) -> float:
        return self.rate


FAIRSEQ = Library("fairseq", "fairseq/optim/lr_scheduler/fairseq_lr_scheduler.py", fairseq_stand_ins)


def fairseq_call(file: str, name: str, lr: float, **given: Any) -> Any:
    FAIRSEQ.load()  # the base class of the others
    module = FAIRSEQ.load(f"fairseq/optim/lr_scheduler/{file}.py")
    return getattr(module, name)(SimpleNamespace(lr=[lr], **given), FairseqOptimizer()).step_update


@FAIRSEQ.case
def fairseq_cosine(draw: Draw) -> Comparison:
    lr, warmup, length = draw.rate(), draw.up_to(60), draw.length(60, 2)
    low, multiple, factor = lr * draw.uniform(0, 0.99), draw.multiple(), draw.fraction()
    begin, last = draw.choice((-1.0, 0.0, draw.rate())), 6 * length
    given = {"warmup_updates": warmup, "warmup_init_lr": begin, "min_lr": low, "t_mult": multiple, "lr_shrink": factor}
    starts = restarts(length, multiple, last)
    # Each cycle shrinks as a whole, with its lowest rate.
    shrink = levels(1, [math.ceil(start - 1e-9) - 1 for start in starts], [factor] * len(starts))
    ours = Product([WarmRestarts(low, max_lr=lr, cycle_length=length, t_mult=multiple), shrink])
    call = partial(fairseq_call, "cosine_lr_scheduler", "CosineLRSchedule", lr, lr_period_updates=length, max_update=0, **given)
    warmed = Warmup(ours, warmup, warmup_begin_lr=low if begin < 0 else begin)
    # fairseq finds the cycle with a logarithm, whose rounding may make it wrong by one where a cycle begins.
    begins = whole(starts, warmup) if multiple > 1 else ()
    return Comparison(
        Counted(call), warmed, warmup + last, [warmup, *(warmup + int(start) for start in starts)], restarts=begins
    )


@FAIRSEQ.case
def fairseq_inverse_sqrt(draw: Draw) -> Comparison:
    lr, warmup, begin = draw.rate(), draw.length(200), draw.choice((-1.0, 0.0, draw.rate()))
    given = {"warmup_updates": warmup, "warmup_init_lr": begin}
    origin = Counted(partial(fairseq_call, "inverse_square_root_schedule", "InverseSquareRootSchedule", lr, **given))
    ours = Warmup(InverseSqrt(timescale=warmup, base_lr=lr), warmup, warmup_begin_lr=max(begin, 0.0))
    return Comparison(origin, ours, 3 * warmup + 20, [warmup])


@FAIRSEQ.case
def fairseq_polynomial(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    end, power = draw.choice((0.0, draw.rate())), draw.power()
    ours = Warmup(Poly(max_update=length - warmup, base_lr=lr, final_lr=end, pwr=power), warmup)
    if draw.random() < 0.2:
        warmup = length
        ours = Warmup(Cooldown(Constant(lr), start=0, cooldown_steps=0, final_lr=end), warmup)
    given = {
        "warmup_updates": warmup,
        "end_learning_rate": end,
        "power": power,
        "total_num_update": length,
        "force_anneal": None,
    }
    origin = Counted(partial(fairseq_call, "polynomial_decay_schedule", "PolynomialDecayLRSchedule", lr, **given))
    return Comparison(origin, ours, length + 20, (warmup, length))


@FAIRSEQ.case
def fairseq_tri_stage(draw: Draw) -> Comparison:
    lr, warmup, hold, decay_steps = draw.rate(), draw.up_to(60), draw.up_to(60), draw.length()
    begin, final = draw.fraction(), draw.choice((0.01, draw.share()))
    given: dict[str, Any] = {"warmup_steps": warmup, "hold_steps": hold, "decay_steps": decay_steps, "phase_ratio": None}
    if draw.random() < 0.3:
        length = draw.length(300, 4)
        given |= {"phase_ratio": (0.25, 0.25, 0.5), "max_update": length}
        warmup, hold, decay_steps = length // 4, length // 4, length // 2
    given |= {"init_lr_scale": begin, "final_lr_scale": final}
    origin = Counted(partial(fairseq_call, "tri_stage_lr_scheduler", "TriStageLRSchedule", lr, **given))
    decay = Shift(Exponential(step=decay_steps, factor=final, base_lr=lr), by=-hold)
    ours = Warmup(Clip(decay, min_lr=final * lr), warmup, warmup_begin_lr=begin * lr)
    end = warmup + hold + decay_steps
    return Comparison(origin, ours, end + 20, (warmup, warmup + hold, end))


@FAIRSEQ.case
def fairseq_triangular(draw: Draw) -> Comparison:
    low, length, factor, shrink_min = draw.rate(), draw.length(100, 2), draw.fraction(), draw.random() < 0.5
    high, whole_length = low + draw.rate(), length // 2 * 2
    given = {"max_lr": high, "lr_period_updates": length, "lr_shrink": factor, "shrink_min": shrink_min}
    origin = Counted(partial(fairseq_call, "triangular_lr_scheduler", "TriangularLRSchedule", low, **given))

    def shrinking(start: float, tip: float) -> AnySchedule:
        return Cyclical(Triangular(start, max_lr=tip, cycle_length=whole_length), cycle_magnitude_decay=factor)

    ours = shrinking(low, high)
    if not shrink_min:
        steady = Cyclical(Triangular(0, max_lr=low, cycle_length=whole_length))
        ours = Sum([Constant(low), shrinking(0, high), steady], weights=[1, 1, -1])
    return Comparison(origin, ours, 5 * length, (whole_length // 2, whole_length, 2 * whole_length))


# --- DeepSpeed

DEEPSPEED = Library(
    "deepspeed",
    "deepspeed/runtime/lr_schedules.py",
    lambda: {"deepspeed": {}, "deepspeed.utils": {"logger": SimpleNamespace(warning=unchanged)}},
)


def draw_deepspeed(draw: Draw) -> tuple[int, int, float, str]:
    """Draw the lengths of the warm-up and of the decay, the first rate as a fraction, and the form of the warm-up."""
    return draw.length(120, 2), draw.length(), draw.fraction(), draw.choice(("log", "linear"))


def deepspeed_warmed(curve: AnySchedule, warmup: int, begin: float, form: str) -> AnySchedule:
    # The linear warm-up reaches its end one step later than the logarithmic one, and the decay begins after both.
    if form == "log":
        return Warmup(from_zero(curve), warmup, warmup_begin_lr=begin, warmup_mode="log")
    return from_zero(Warmup(curve, warmup, warmup_begin_lr=begin))


@DEEPSPEED.case
def deepspeed_warmup(draw: Draw) -> Comparison:
    lr, (warmup, _, begin, form) = draw.rate(), draw_deepspeed(draw)
    given: dict[str, Any] = {"warmup_min_lr": begin * lr, "warmup_num_steps": draw.choice((1, 2)) if warmup == 2 else warmup}
    origin = Stepped(partial(DEEPSPEED.load().WarmupLR, warmup_max_lr=lr, warmup_type=form, **given))
    return Comparison(origin, deepspeed_warmed(Constant(lr), warmup, begin * lr, form), warmup + 20, [warmup])


@DEEPSPEED.case
def deepspeed_warmup_decay(draw: Draw) -> Comparison:
    lr, (warmup, length, begin, form) = draw.rate(), draw_deepspeed(draw)
    given = {"warmup_min_lr": begin * lr, "warmup_num_steps": warmup, "total_num_steps": warmup + length}
    origin = Stepped(partial(DEEPSPEED.load().WarmupDecayLR, warmup_max_lr=lr, warmup_type=form, **given))
    ours = deepspeed_warmed(Linear(max_update=length, base_lr=lr, final_lr=begin * lr), warmup, begin * lr, form)
    return Comparison(origin, ours, warmup + length + 20, (warmup, warmup + length))


@DEEPSPEED.case
def deepspeed_warmup_cosine(draw: Draw) -> Comparison:
    lr, low, (warmup, length, begin, form) = draw.rate(), draw.fraction(), draw_deepspeed(draw)
    given = {"warmup_min_ratio": begin, "warmup_num_steps": warmup, "total_num_steps": warmup + length, "cos_min_ratio": low}
    origin = Stepped(partial(DEEPSPEED.load().WarmupCosineLR, warmup_type=form, **given), lr)
    cosine = Cosine(max_update=length, base_lr=lr, final_lr=lr * low)
    if form == "log":
        ours: AnySchedule = Warmup(cosine, warmup, warmup_begin_lr=begin * lr, warmup_mode="log")
    else:
        ours = exact([from_zero(Linear(max_update=warmup, base_lr=begin * lr, final_lr=lr)), cosine], [warmup])
    return Comparison(origin, ours, warmup + length + 20, (warmup, warmup + length))


def draw_deepspeed_cycle(draw: Draw) -> tuple[dict[str, Any], int, dict[str, Any]]:
    up, down = draw.length(), draw.up_to(60)
    given = {"cycle_first_step_size": up, "cycle_second_step_size": down}
    return given, up + down, {"cycle_length": up + down, "inc_fraction": up / (up + down)}


@DEEPSPEED.case
def deepspeed_one_cycle(draw: Draw) -> Comparison:
    low, (given, length, sides) = draw.rate(), draw_deepspeed_cycle(draw)
    high, rate, steps = low + draw.choice((0.0, draw.rate())), draw.choice((0.0, draw.uniform(0, 2))), draw.up_to(50)
    given |= {"cycle_min_lr": low, "cycle_max_lr": high, "decay_lr_rate": rate, "decay_step_size": steps}
    decay = InverseTime(step=steps, decay_rate=rate, base_lr=low) if steps else Constant(low)
    ours = Sequential([Triangular(low, max_lr=high, **sides), decay], boundaries=[length])
    # Without a second half the tip is at the end of the cycle, where DeepSpeed has the lowest rate.
    apart = [] if given["cycle_second_step_size"] else [length]
    origin = Stepped(partial(DEEPSPEED.load().OneCycle, cycle_momentum=False, **given))
    return Comparison(origin, ours, length + 60, (given["cycle_first_step_size"], length), apart=apart)


@DEEPSPEED.case
def deepspeed_one_cycle_momentum(draw: Draw) -> Comparison:
    (low, high), (given, length, sides) = sorted((draw.fraction(), draw.fraction())), draw_deepspeed_cycle(draw)
    given |= {"cycle_min_lr": 0.1, "cycle_max_lr": 1.0, "cycle_min_mom": low, "cycle_max_mom": high}
    ours = Sum([Constant(high), Triangular(0, max_lr=high - low, **sides)], weights=[1, -1])
    apart = [] if given["cycle_second_step_size"] else [length]
    origin = Stepped(partial(DEEPSPEED.load().OneCycle, **given), read="betas")
    return Comparison(origin, ours, length + 20, (given["cycle_first_step_size"], length), apart=apart)


@DEEPSPEED.case
def deepspeed_range_test(draw: Draw) -> Comparison:
    lr, steps, rate, stairs, last = draw.rate(), draw.length(60), draw.uniform(0, 3), draw.random() < 0.5, 200
    given = {"lr_range_test_min_lr": lr, "lr_range_test_step_size": steps, "lr_range_test_step_rate": rate}
    origin = Stepped(partial(DEEPSPEED.load().LRRangeTest, lr_range_test_staircase=stairs, **given))
    # DeepSpeed's line has no end; ours is long enough for the run.
    line = Linear(max_update=last, base_lr=lr, final_lr=lr * (1 + rate * last / steps))
    return Comparison(origin, Hold(line, length=steps) if stairs else line, last, (steps, 2 * steps), shift=int(stairs))


# --- pytorch_warmup

PYTORCH_WARMUP = Library("pytorch_warmup", "pytorch_warmup/base.py")


class Dampened:
    """A scheduler within the warm-up of pytorch_warmup."""

    def __init__(self, optimizer: Any, part: Any, warmup: Any) -> None:
        self.scheduler, self.warmup = part(optimizer), warmup(optimizer)

    def step(self) -> None:
        with self.warmup.dampening():
            self.scheduler.step()


@PYTORCH_WARMUP.case
def pytorch_warmup_exponential(draw: Draw) -> Comparison:
    lr, period, length = draw.rate(), draw.length(), draw.length(200)
    part, curve = pytorch_part(draw, lr, length)
    warmup = partial(PYTORCH_WARMUP.load().ExponentialWarmup, warmup_period=period)
    ours = Warmup(curve, period, warmup_mode="1-exp", overlay=True)
    return Comparison(Stepped(partial(Dampened, part=part, warmup=warmup), lr), ours, length, [period], shift=1)


@PYTORCH_WARMUP.case
def pytorch_warmup_linear(draw: Draw) -> Comparison:
    lr, period, length = draw.rate(), draw.length(), draw.length(200)
    part, curve = pytorch_part(draw, lr, length)
    warmup = partial(PYTORCH_WARMUP.load().LinearWarmup, warmup_period=period)
    ours = Product([curve, Linear(max_update=period, base_lr=0, final_lr=1)])
    return Comparison(Stepped(partial(Dampened, part=part, warmup=warmup), lr), ours, length, [period], shift=1)


# --- SpeechBrain


class Checkpoints:
    """Decorators for checkpoints, without an effect."""

    register_checkpoint_hooks = mark_as_saver = mark_as_loader = staticmethod(unchanged)


SPEECHBRAIN = Library(
    "speechbrain",
    "speechbrain/nnet/schedulers.py",
    lambda: {
        "speechbrain": {},
        "speechbrain.utils": {"checkpoints": Checkpoints},
        "speechbrain.utils.logger": {"get_logger": unchanged},
    },
)


@SPEECHBRAIN.case
def speechbrain_new_bob(draw: Draw) -> Reaction:
    lr, results, factor, patience = draw.rate(), draw.results(unknown=False), draw.fraction(), draw.randrange(4)
    results = [draw.choice((0.0, result)) if draw.random() < 0.05 else result for result in results]
    threshold = draw.choice((0.0, 0.0025, draw.uniform(-0.1, 0.2)))
    call = partial(SPEECHBRAIN.load().NewBobScheduler, lr, factor, threshold, patience)
    scheduler = call()
    rates = [float(scheduler(result)[1]) for result in results]
    return Reaction(call, rates, NewBob(Constant(lr), factor=factor, threshold=threshold, patience=patience), results)


# --- the comparison of all

LIBRARIES = {
    "PyTorch": PYTORCH,
    "optax": OPTAX,
    "Keras": KERAS,
    "timm": TIMM,
    "transformers": TRANSFORMERS,
    "Paddle": PADDLE,
    "gluon-cv": GLUON,
    "Megatron": MEGATRON,
    "fastai": FASTAI,
    "fairseq": FAIRSEQ,
    "DeepSpeed": DEEPSPEED,
    "pytorch_warmup": PYTORCH_WARMUP,
    "SpeechBrain": SPEECHBRAIN,
}


def prepare(names: Iterable[str]) -> None:
    """Make the frameworks compute in double precision, on one core."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ |= {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    if "timm" in names:  # without its models, which need torchvision
        spec = importlib.util.find_spec("timm")
        assert spec is not None
        sys.modules["timm"] = package = stand_in("timm", {})
        vars(package).update(__spec__=spec, __path__=spec.submodule_search_locations)
    if "Keras" in names:
        importlib.import_module("keras").config.set_floatx("float64")


def compare(name: str, seed: int, sets: int) -> dict[str, Any]:
    """Compare the cases of a library, print the differences, and return the numbers of them and of everything else."""
    library = LIBRARIES[name]
    counts: dict[str, Any] = {
        "version": library.version(),
        "cases": len(library.cases),
        "sets": 0,
        "rates": 0,
        "differences": 0,
    }
    for draw_case in library.cases:
        began, differing = time.monotonic(), 0
        for number in range(sets):
            draw = Draw(f"{seed} {draw_case.__name__} {number}")
            compared = draw_case(draw)
            points = compared.points(draw)
            largest = max((abs(theirs) for _, theirs, _ in points), default=0.0)
            wrong = [
                (k, theirs, ours)
                for k, theirs, ours in points
                if not abs(theirs - ours) <= RELATIVE * abs(theirs) + ABSOLUTE * largest
            ]
            counts["sets"] += 1
            counts["rates"] += len(points)
            counts["differences"] += len(wrong)
            differing += bool(wrong)
            if wrong:
                print(f"{draw_case.__name__}, set {number}: {len(wrong)} of {len(points)} rates differ\n  {compared}")
                print("\n".join(f"  at {k}: {theirs!r}, ours {ours!r}" for k, theirs, ours in wrong[:5]))
        print(f"{draw_case.__name__}: {differing} of {sets} sets differ, {time.monotonic() - began:.1f} s", flush=True)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", nargs="*", help=f"libraries to compare, by default all: {', '.join(LIBRARIES)}")
    parser.add_argument("--sets", type=int, default=300, metavar="N", help="parameter sets per case (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random parameters (default: 1)")
    parser.add_argument("--sources", type=Path, metavar="DIR", help="folder of the libraries that are not installed")
    parser.add_argument("--output", type=Path, metavar="FILE", help="file for the numbers, as JSON")
    flags = parser.parse_args()
    Library.sources = flags.sources
    names = flags.libraries or [name for name, library in LIBRARIES.items() if flags.sources or not library.file]
    prepare(names)
    table = {name: compare(name, flags.seed, flags.sets) for name in names}
    print(f"\n{'library':16}{'version':>14}{'cases':>8}{'sets':>8}{'rates':>10}{'differences':>13}")
    total = {key: sum(counts[key] for counts in table.values()) for key in ("cases", "sets", "rates", "differences")}
    for name, counts in (table | {"all": {"version": f"Python {platform.python_version()}"} | total}).items():
        row = (counts["cases"], counts["sets"], counts["rates"], counts["differences"])
        print(f"{name:16}{counts['version']:>14}{row[0]:8}{row[1]:8}{row[2]:10}{row[3]:13}")
    if flags.output:
        text = json.dumps({"libraries": table, "seed": flags.seed, "sets_per_case": flags.sets}, indent=1)
        flags.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(total["differences"] > 0)


if __name__ == "__main__":
    main()
