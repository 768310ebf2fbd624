"""Calls of other frameworks, and our schedules for them. `golden.py` evaluates them.

A framework counts from 0: its value at count c is the rate of update c + 1. There are two ways to compare it with ours. With
`shift` 0, ours(k) is the value at count k: this compares the formulas of smooth curves. With `shift` 1, ours(k) is the value at
count k − 1, the framework's k-th update: this is for curves with constant levels, which drop after the last iteration of a
level, for PyTorch's OneCycleLR, and for schedules made of several. MXNet and gluon-cv count updates from 1, as we do.

`mnist-trainer schedules find` lists the first case of each name, and the cases that are marked as listed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

GRID = 50
"""The number of intervals at which a case is sampled, besides its first iterations and its corners."""


@dataclass(frozen=True)
class _Call:
    """A call of a framework, and our curve for it.

    Attributes:
        origin: The call, a Python expression that is evaluated in the framework's module; `optimizer` has the rate `lr`.
        ours: Our curve, a Python expression.
        lr: The learning rate of the optimizer.
        differs: Reason → the iterations at which our curve differs on purpose.
        names: Names under which `schedules find` lists the case, in place of that of the call.
        listed: True to list the case even if it is not the first of its name.
        note: More about the translation.
        module: The module of the schedule, if it is not that of the table.
        shown: The call that `schedules find` prints, in place of the one that is evaluated.
    """

    origin: str
    ours: str
    _: KW_ONLY
    lr: float = 1.0
    differs: Mapping[str, Iterable[int]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    listed: bool = False
    note: str = ""
    module: str = ""
    shown: str = ""

    def _expressions(self) -> dict[str, Any]:
        origin = f"{self.origin}, lr={self.lr}" if "(optimizer" in self.origin else self.origin
        return {"origin": origin, "ours": self.ours}

    def _lookup(self) -> dict[str, Any]:
        """Return what `schedules find` needs to know beside the call."""
        given = {
            "names": list(self.names),
            "listed": self.listed,
            "note": self.note,
            "module": self.module,
            "shown": self.shown,
        }
        return {key: value for key, value in given.items() if value}


@dataclass(frozen=True)
class Case(_Call):
    """A curve that depends only on the iteration.

    Attributes:
        last: The last iteration to compare: after the end of the curve, if the framework allows it.
        corners: Iterations where something happens, to be compared with two more on each side.
        shift: 0 or 1; see the docstring of the module.
    """

    last: int
    corners: tuple[int, ...] = ()
    shift: int = 0

    def iterations(self) -> list[int]:
        around = {corner + offset for corner in self.corners for offset in (-2, -1, 0, 1, 2)}
        grid = range(1, self.last + 1, max(self.last // GRID, 1))
        return sorted(iteration for iteration in {1, 2, 3, self.last, *around, *grid} if 1 <= iteration <= self.last)

    def row(self, rates: Callable[["Case", list[int]], list[float]]) -> dict[str, Any]:
        iterations = self.iterations()
        values = rates(self, [iteration - self.shift for iteration in iterations])
        row = self._expressions() | {"shift": self.shift}
        differs = {
            reason: [iteration for iteration in iterations if iteration in set(where)] for reason, where in self.differs.items()
        }
        if differs:
            row["differs"] = differs
        sampled = [[iteration, float(value)] for iteration, value in zip(iterations, values, strict=True)]
        return row | self._lookup() | {"values": sampled}


@dataclass(frozen=True)
class PlateauCase(_Call):
    """A curve that observes a result, one of `metrics`, after each epoch; its values are the rates after each epoch."""

    metrics: tuple[float, ...]

    def row(self, rates: Callable[["PlateauCase"], list[float]]) -> dict[str, Any]:
        row = self._expressions() | {"metrics": self.metrics}
        if self.differs:
            row["differs"] = {reason: list(where) for reason, where in self.differs.items()}
        return row | self._lookup() | {"values": [[epoch, float(value)] for epoch, value in enumerate(rates(self), start=1)]}


def after(end: int) -> range:
    """Return all iterations after `end`."""
    return range(end + 1, 1_000_000)


ANY_FUNCTION = "an example; write any other function as a schedule of your own, module:function (docs/schedules.md)"
COUNTS_BY_PATIENCE = "Keras counts one epoch fewer: a patience of p is max(p − 1, 0) here, a cooldown of c is max(c − 1, 0)"
RISES_AGAIN = "the origin's cosine rises again after its end, ours stays there"
NEXT_BEGINS = "the origin begins the next curve at the boundary, ours after it"
NEXT_CYCLE = "the origin begins the next cycle at a cycle's last iteration, Repeat after it"

LOSSES = (2.0, 1.0, 0.9, 0.95, 0.97, 0.96, 0.99, 0.5, 0.6, 0.7, 0.8, 0.6, 0.55, 0.4, 0.45, 0.43, 0.44, 0.41, 0.3999, 0.42)
SLOW_LOSSES = tuple(1 / (epoch + 1) ** 0.25 for epoch in range(30))
ACCURACIES = (0.1, 0.5, 0.6, 0.55, 0.58, 0.59, 0.7, 0.71, 0.70, 0.69, 0.72, 0.71, 0.71, 0.71, 0.71, 0.9, 0.8, 0.8, 0.8, 0.8)

PYTORCH: list[Case | PlateauCase] = [
    Case(
        "StepLR(optimizer, step_size=250, gamma=0.5)",
        "Factor(step=250, factor=0.5, base_lr=1, stop_factor_lr=0)",
        1200,
        (250, 500, 750, 1000),
        shift=1,
    ),
    Case(
        "StepLR(optimizer, step_size=250, gamma=0.5)",
        "Exponential(step=250, factor=0.5, base_lr=1, staircase=True)",
        1200,
        (250, 500, 750, 1000),
        shift=1,
    ),
    Case(
        "StepLR(optimizer, step_size=7, gamma=0.9)",
        "Factor(step=7, factor=0.9, base_lr=0.3, stop_factor_lr=0)",
        150,
        (7, 14, 49, 140),
        shift=1,
        lr=0.3,
    ),
    Case(
        "StepLR(optimizer, step_size=1, gamma=0.98)",
        "Factor(step=1, factor=0.98, base_lr=0.3, stop_factor_lr=0)",
        150,
        shift=1,
        lr=0.3,
    ),
    Case(
        "MultiStepLR(optimizer, milestones=[250, 750, 900], gamma=0.5)",
        "MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)",
        1200,
        (250, 750, 900),
        shift=1,
    ),
    Case(
        "MultiStepLR(optimizer, milestones=[3752, 6566, 8442], gamma=0.1)",
        "MultiFactor(step=[3752, 6566, 8442], factor=0.1, base_lr=0.03)",
        9380,
        (3752, 6566, 8442),
        shift=1,
        lr=0.03,
    ),
    Case(
        "MultiStepLR(optimizer, milestones=[1, 2, 4], gamma=0.3)",
        "Piecewise(boundaries=[1, 2, 4], values=[0.5, 0.15, 0.045, 0.0135])",
        40,
        (1, 2, 4),
        shift=1,
        lr=0.5,
    ),
    Case(
        "StepLR(optimizer, step_size=30, gamma=1.5)",
        "Exponential(step=30, factor=1.5, base_lr=0.01, staircase=True)",
        200,
        (30, 60, 180),
        shift=1,
        lr=0.01,
        listed=True,
        note="Factor refuses a gamma above 1, as MXNet does",
    ),
    Case(
        "ConstantLR(optimizer, factor=0.25, total_iters=100)",
        "Piecewise(boundaries=[100], values=[0.1, 0.4])",
        300,
        (100,),
        shift=1,
        lr=0.4,
    ),
    Case("ConstantLR(optimizer, factor=1.0, total_iters=10)", "Constant(0.03)", 100, lr=0.03),
    Case(
        "LambdaLR(optimizer, lambda step: 0.95**step)",
        "Exponential(step=1, factor=0.95, base_lr=0.1)",
        200,
        lr=0.1,
        note=ANY_FUNCTION,
    ),
    Case(
        "MultiplicativeLR(optimizer, lambda step: 0.95)",
        "Exponential(step=1, factor=0.95, base_lr=0.1)",
        200,
        lr=0.1,
        note=ANY_FUNCTION,
    ),
    Case(
        "LinearLR(optimizer, start_factor=0.25, end_factor=1.0, total_iters=100)",
        "Linear(max_update=100, base_lr=0.1, final_lr=0.4)",
        150,
        (100,),
        lr=0.4,
    ),
    Case(
        "LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=1000)",
        "Linear(max_update=1000, base_lr=1)",
        1300,
        (1000,),
    ),
    Case(
        "LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=333)",
        "Linear(max_update=333, base_lr=0.3, final_lr=0.03)",
        500,
        (333,),
        lr=0.3,
    ),
    Case("ExponentialLR(optimizer, gamma=0.99)", "Exponential(step=1, factor=0.99, base_lr=0.1)", 1000, lr=0.1),
    Case("ExponentialLR(optimizer, gamma=0.5)", "Exponential(step=1, factor=0.5, base_lr=1)", 60),
    Case("ExponentialLR(optimizer, gamma=1.02)", "Exponential(step=1, factor=1.02, base_lr=0.001)", 300, lr=0.001),
    Case(
        "CosineAnnealingLR(optimizer, T_max=1000)",
        "Cosine(max_update=1000, base_lr=1)",
        1400,
        (500, 1000),
        differs={RISES_AGAIN: after(1000)},
    ),
    Case(
        "CosineAnnealingLR(optimizer, T_max=200, eta_min=0.01)",
        "Cosine(max_update=200, base_lr=0.3, final_lr=0.01)",
        200,
        (100, 200),
        lr=0.3,
        listed=True,
    ),
    Case(
        "CosineAnnealingLR(optimizer, T_max=200, eta_min=0.01)",
        "CosineAnnealing(min_lr=0.01, max_lr=0.3, cycle_length=200)",
        200,
        (100, 200),
        lr=0.3,
    ),
    Case(
        "per_epoch(100, CosineAnnealingLR(optimizer, T_max=10))",
        "Hold(Cosine(max_update=1000, base_lr=0.1), length=100)",
        1000,
        (100, 200, 500, 900),
        shift=1,
        lr=0.1,
        listed=True,
        note="stepped once per epoch of 100 updates; length_epochs = 1 in a configuration",
    ),
    Case(
        "per_epoch(100, StepLR(optimizer, step_size=3, gamma=0.5))",
        "Factor(step=300, factor=0.5, base_lr=0.1, stop_factor_lr=0)",
        1000,
        (300, 600, 900),
        shift=1,
        lr=0.1,
        listed=True,
        note="stepped once per epoch of 100 updates; a schedule that drops needs no Hold",
    ),
    Case(
        "per_epoch(100, StepLR(optimizer, step_size=3, gamma=0.5))",
        "Hold(Shift(Factor(step=300, factor=0.5, base_lr=0.1, stop_factor_lr=0), by=1), length=100)",
        1000,
        (300, 600, 900),
        shift=1,
        lr=0.1,
    ),
    Case("PolynomialLR(optimizer, total_iters=1000, power=2.0)", "Poly(max_update=1000, base_lr=1, pwr=2)", 1300, (1000,)),
    Case(
        "PolynomialLR(optimizer, total_iters=100, power=0.9)", "Poly(max_update=100, base_lr=0.1, pwr=0.9)", 130, (100,), lr=0.1
    ),
    Case(
        "PolynomialLR(optimizer, total_iters=100, power=0.5)", "Poly(max_update=100, base_lr=0.1, pwr=0.5)", 130, (100,), lr=0.1
    ),
    Case(
        "CosineAnnealingWarmRestarts(optimizer, T_0=100)",
        "WarmRestarts(min_lr=0, max_lr=1, cycle_length=100)",
        450,
        (100, 200, 300, 400),
        names=("CosineAnnealingWarmRestarts", "SGDR"),
    ),
    Case(
        "CosineAnnealingWarmRestarts(optimizer, T_0=100, T_mult=2, eta_min=0.01)",
        "WarmRestarts(min_lr=0.01, max_lr=0.3, cycle_length=100, t_mult=2)",
        1600,
        (100, 300, 700, 1500),
        lr=0.3,
    ),
    Case(
        "CosineAnnealingWarmRestarts(optimizer, T_0=7, T_mult=3, eta_min=0.001)",
        "WarmRestarts(min_lr=0.001, max_lr=0.3, cycle_length=7, t_mult=3)",
        300,
        (7, 28, 91, 280),
        lr=0.3,
    ),
    Case(
        "CyclicLR(optimizer, base_lr=0.1, max_lr=1.0, step_size_up=100)",
        "Cyclical(Triangular(min_lr=0.1, max_lr=1, cycle_length=200))",
        700,
        (100, 200, 300, 400, 600),
    ),
    Case(
        "CyclicLR(optimizer, base_lr=0.1, max_lr=1.0, step_size_up=30, step_size_down=170)",
        "Cyclical(Triangular(min_lr=0.1, max_lr=1, cycle_length=200, inc_fraction=0.15))",
        700,
        (30, 200, 230, 400, 430),
    ),
    Case(
        "CyclicLR(optimizer, base_lr=0.1, max_lr=1.0, step_size_up=30, step_size_down=170)",
        "Repeat(Triangular(min_lr=0.1, max_lr=1, cycle_length=200, inc_fraction=0.15), length=200)",
        700,
        (30, 200, 230, 400, 430),
    ),
    Case(
        "CyclicLR(optimizer, base_lr=0.1, max_lr=1.0, step_size_up=250, mode='triangular2')",
        "Triangular2(min_lr=0.1, max_lr=1, cycle_length=500)",
        2100,
        (250, 500, 750, 1000, 1500),
    ),
    Case(
        "CyclicLR(optimizer, base_lr=0.01, max_lr=0.5, step_size_up=160, step_size_down=40, mode='triangular2')",
        "Triangular2(min_lr=0.01, max_lr=0.5, cycle_length=200, inc_fraction=0.8)",
        900,
        (160, 200, 360, 400, 800),
    ),
    Case(
        "CyclicLR(optimizer, base_lr=0.1, max_lr=1.0, step_size_up=250, mode='exp_range', gamma=0.999)",
        "ExpRange(min_lr=0.1, max_lr=1, cycle_length=500, factor=0.999)",
        2100,
        (250, 500, 750, 1000, 1500),
    ),
    Case(
        "CyclicLR(optimizer, base_lr=0.01, max_lr=0.5, step_size_up=40, step_size_down=160, mode='exp_range', gamma=0.99)",
        "ExpRange(min_lr=0.01, max_lr=0.5, cycle_length=200, inc_fraction=0.2, factor=0.99)",
        900,
        (40, 200, 240, 400, 800),
    ),
    *(
        Case(f"OneCycleLR(optimizer, {theirs})", f"OneCycleLR({ours})", total, corners, shift=1)
        for theirs, ours, total, corners in (
            ("max_lr=0.1, total_steps=1000", "max_lr=0.1, max_update=1000", 1000, (300, 1000)),
            (
                "max_lr=1.0, total_steps=1000, div_factor=10, final_div_factor=100, anneal_strategy='linear'",
                "max_lr=1, max_update=1000, div_factor=10, final_div_factor=100, anneal_strategy='linear'",
                1000,
                (300, 1000),
            ),
            ("max_lr=1.0, total_steps=555, pct_start=0.1", "max_lr=1, max_update=555, pct_start=0.1", 555, (55, 56, 555)),
            (
                "max_lr=1.0, total_steps=1000, pct_start=0.4, three_phase=True",
                "max_lr=1, max_update=1000, pct_start=0.4, three_phase=True",
                1000,
                (400, 799, 1000),
            ),
            (
                "max_lr=1.0, total_steps=333, pct_start=0.25, three_phase=True, anneal_strategy='linear', final_div_factor=50",
                "max_lr=1, max_update=333, pct_start=0.25, three_phase=True, anneal_strategy='linear', final_div_factor=50",
                333,
                (83, 84, 165, 166, 333),
            ),
            (
                "max_lr=1.0, total_steps=200, pct_start=0.5, three_phase=True",
                "max_lr=1, max_update=200, pct_start=0.5, three_phase=True",
                200,
                (100, 199, 200),
            ),
            ("max_lr=1.0, total_steps=100, pct_start=0.0", "max_lr=1, max_update=100, pct_start=0", 100, (100,)),
            ("max_lr=1.0, total_steps=100, pct_start=1.0", "max_lr=1, max_update=100, pct_start=1", 100, (100,)),
            ("max_lr=1.0, total_steps=7", "max_lr=1, max_update=7", 7, ()),
        )
    ),
    *(
        Case(
            f"momentum(OneCycleLR(optimizer, max_lr=1.0, {theirs}))",
            f"OneCycleMomentum({ours})",
            total,
            corners,
            shift=1,
            listed=theirs == "total_steps=1000",
        )
        for theirs, ours, total, corners in (
            ("total_steps=1000", "max_update=1000", 1000, (300, 1000)),
            (
                "total_steps=1000, pct_start=0.4, three_phase=True, anneal_strategy='linear'",
                "max_update=1000, pct_start=0.4, three_phase=True, anneal_strategy='linear'",
                1000,
                (400, 799, 1000),
            ),
            (
                "total_steps=555, pct_start=0.1, base_momentum=0.5, max_momentum=0.99",
                "max_update=555, pct_start=0.1, base_momentum=0.5, max_momentum=0.99",
                555,
                (55, 56, 555),
            ),
        )
    ),
    *(
        Case(
            "momentum(CyclicLR(optimizer, base_lr=0.1, max_lr=1.0, step_size_up=100, base_momentum=0.8, max_momentum=0.9"
            f"{theirs}))",
            f"Sum([Constant(0.9), {ours}], weights=[1, -1])",
            900,
            (100, 200, 300, 400, 600),
            listed=True,
        )
        for theirs, ours in (
            ("", "Cyclical(Triangular(min_lr=0, max_lr=0.1, cycle_length=200))"),
            (", mode='triangular2'", "Triangular2(min_lr=0, max_lr=0.1, cycle_length=200)"),
            (", mode='exp_range', gamma=0.99", "ExpRange(min_lr=0, max_lr=0.1, cycle_length=200, factor=0.99)"),
        )
    ),
    Case(
        "SequentialLR(optimizer, [LinearLR(optimizer, start_factor=0.1, total_iters=100), "
        "CosineAnnealingLR(optimizer, T_max=900)], milestones=[100])",
        "Sequential([Shift(Linear(max_update=100, base_lr=0.1, final_lr=1), by=-1), "
        "Shift(Cosine(max_update=900, base_lr=1), by=-1)], boundaries=[100])",
        1001,
        (100, 1000),
        shift=1,
        note="schedules that drop, such as Factor, need no Shift",
    ),
    Case(
        "SequentialLR(optimizer, [ConstantLR(optimizer, factor=0.1, total_iters=1000), "
        "ExponentialLR(optimizer, gamma=0.99)], milestones=[50])",
        "Sequential([Constant(0.1), Shift(Exponential(step=1, factor=0.99, base_lr=1), by=-1)], boundaries=[50])",
        400,
        (50,),
        shift=1,
    ),
    Case(
        "SequentialLR(optimizer, [LinearLR(optimizer, start_factor=0.1, total_iters=100), "
        "CosineAnnealingLR(optimizer, T_max=900)], milestones=[100])",
        "Sequential([Linear(max_update=100, base_lr=0.1, final_lr=1), Cosine(max_update=900, base_lr=1)], boundaries=[100])",
        1000,
        (100, 1000),
    ),
    Case(
        "SequentialLR(optimizer, [LinearLR(optimizer, start_factor=0.1, total_iters=100), "
        "CosineAnnealingLR(optimizer, T_max=900)], milestones=[100])",
        "Warmup(Cosine(max_update=900, base_lr=1), warmup_steps=100, warmup_begin_lr=0.1)",
        1000,
        (100, 1000),
    ),
    Case(
        "SequentialLR(optimizer, [ConstantLR(optimizer, factor=0.1, total_iters=1000), "
        "ExponentialLR(optimizer, gamma=0.99)], milestones=[50])",
        "Sequential([Constant(0.1), Exponential(step=1, factor=0.99, base_lr=1)], boundaries=[50])",
        400,
        (50,),
        differs={NEXT_BEGINS: (50,)},
    ),
    Case(
        "SequentialLR(optimizer, [StepLR(optimizer, step_size=30, gamma=0.5), "
        "MultiStepLR(optimizer, milestones=[50, 70], gamma=0.1), ConstantLR(optimizer, factor=1.0)], milestones=[100, 250])",
        "Sequential([Factor(step=30, factor=0.5, base_lr=1, stop_factor_lr=0), "
        "MultiFactor(step=[50, 70], factor=0.1, base_lr=1), Constant(1)], boundaries=[100, 250])",
        300,
        (30, 90, 100, 150, 170, 250),
        shift=1,
    ),
    Case(
        "SequentialLR(optimizer, [ConstantLR(optimizer, factor=1.0), CosineAnnealingLR(optimizer, T_max=250, eta_min=0.02)], "
        "milestones=[750])",
        "FlatCosine(max_update=1000, flat_steps=750, base_lr=0.5, final_lr=0.02)",
        1000,
        (750, 1000),
        lr=0.5,
    ),
    Case(
        "SequentialLR(optimizer, [LinearLR(optimizer, start_factor=0.1, total_iters=100), ConstantLR(optimizer, factor=1.0), "
        "LinearLR(optimizer, start_factor=1.0, end_factor=0.05, total_iters=200)], milestones=[100, 800])",
        "WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=200, base_lr=1, warmup_begin_lr=0.1, final_lr=0.05)",
        1200,
        (100, 800, 1000),
    ),
    Case(
        "SequentialLR(optimizer, [ConstantLR(optimizer, factor=1.0), "
        "LinearLR(optimizer, start_factor=1.0, end_factor=0.05, total_iters=200)], milestones=[800])",
        "Cooldown(Constant(1), start=800, cooldown_steps=200, final_lr=0.05)",
        1200,
        (800, 1000),
    ),
    Case(
        "ChainedScheduler([LinearLR(optimizer, start_factor=0.1, total_iters=100), ExponentialLR(optimizer, gamma=0.995)])",
        "Product([Linear(max_update=100, base_lr=0.1, final_lr=1), Exponential(step=1, factor=0.995, base_lr=0.3)])",
        600,
        (100,),
        lr=0.3,
    ),
    Case(
        "ChainedScheduler([ConstantLR(optimizer, factor=0.1, total_iters=50), StepLR(optimizer, step_size=200, gamma=0.5)])",
        "Product([Piecewise(boundaries=[50], values=[0.1, 1]), Factor(step=200, factor=0.5, base_lr=0.3, stop_factor_lr=0)])",
        600,
        (50, 200, 400),
        shift=1,
        lr=0.3,
    ),
    Case(
        "ChainedScheduler([LinearLR(optimizer, start_factor=0.1, total_iters=50), CosineAnnealingLR(optimizer, T_max=500)])",
        "Product([Cosine(max_update=500, base_lr=0.3), Linear(max_update=50, base_lr=0.1, final_lr=1)])",
        500,
        (50, 500),
        lr=0.3,
    ),
    Case(
        "ChainedScheduler([LinearLR(optimizer, start_factor=0.1, total_iters=50), "
        "CosineAnnealingLR(optimizer, T_max=500, eta_min=0.03)])",
        "Product([Cosine(max_update=500, base_lr=0.3, final_lr=0.03), Linear(max_update=50, base_lr=0.1, final_lr=1)])",
        400,
        (50,),
        lr=0.3,
        differs={"CosineAnnealingLR with an eta_min above 0 adds to the rate that the others left": range(1, 401)},
        listed=True,
    ),
    PlateauCase(
        "ReduceLROnPlateau(optimizer, factor=0.1, patience=2)",
        "Plateau(Constant(0.1), factor=0.1, patience=2, eps=1e-8)",
        (2.0, 1.0, *[1.0] * 38),
        lr=0.1,
    ),
    *(
        PlateauCase(f"ReduceLROnPlateau(optimizer, {theirs}, eps=0)", f"Plateau(Constant({lr}), {ours})", metrics, lr=lr)
        for theirs, ours, metrics, lr in (
            ("factor=0.5, patience=0", "factor=0.5, patience=0", LOSSES, 0.1),
            ("factor=0.5, patience=2", "factor=0.5, patience=2", LOSSES, 0.1),
            ("factor=0.1, patience=1, cooldown=2", "factor=0.1, patience=1, cooldown=2", LOSSES, 0.1),
            ("factor=0.5, patience=0, cooldown=3", "factor=0.5, patience=0, cooldown=3", LOSSES, 1.0),
            ("factor=0.1, patience=0, min_lr=0.002", "factor=0.1, patience=0, min_lr=0.002", LOSSES, 0.1),
            ("factor=0.5, patience=1, threshold=0.03", "factor=0.5, patience=1, threshold=0.03", SLOW_LOSSES, 1.0),
            (
                "factor=0.5, patience=2, threshold=0.05, threshold_mode='abs'",
                "factor=0.5, patience=2, threshold=0.05, threshold_mode='abs'",
                SLOW_LOSSES,
                1.0,
            ),
            ("mode='max', factor=0.5, patience=1", "metric='accuracy', factor=0.5, patience=1", ACCURACIES, 0.1),
            (
                "mode='max', factor=0.3, patience=2, threshold=0.04, threshold_mode='abs', cooldown=1",
                "metric='accuracy', factor=0.3, patience=2, threshold=0.04, threshold_mode='abs', cooldown=1",
                ACCURACIES,
                0.1,
            ),
            (
                "mode='max', factor=0.3, patience=2, threshold=0.04",
                "metric='accuracy', factor=0.3, patience=2, threshold=0.04",
                ACCURACIES,
                0.1,
            ),
        )
    ),
]

OPTAX: list[Case | PlateauCase] = [
    Case("constant_schedule(0.03)", "Constant(0.03)", 100),
    Case("linear_schedule(1.0, 0.0, transition_steps=1000)", "Linear(max_update=1000, base_lr=1)", 1300, (1000,)),
    Case("linear_schedule(0.1, 0.4, transition_steps=333)", "Linear(max_update=333, base_lr=0.1, final_lr=0.4)", 500, (333,)),
    Case(
        "linear_schedule(0.4, 0.1, transition_steps=300, transition_begin=100)",
        "PiecewiseLinear(knots=[100, 400], values=[0.4, 0.1])",
        500,
        (100, 400),
    ),
    Case(
        "polynomial_schedule(1.0, 0.0, power=2, transition_steps=1000)",
        "Poly(max_update=1000, base_lr=1, pwr=2)",
        1300,
        (1000,),
    ),
    Case(
        "polynomial_schedule(0.3, 0.01, power=0.5, transition_steps=100)",
        "Poly(max_update=100, base_lr=0.3, final_lr=0.01, pwr=0.5)",
        150,
        (100,),
    ),
    Case(
        "polynomial_schedule(0.3, 0.01, power=3, transition_steps=200, transition_begin=100)",
        "Sequential([Constant(0.3), Poly(max_update=200, base_lr=0.3, final_lr=0.01, pwr=3)], boundaries=[100])",
        400,
        (100, 300),
    ),
    Case("cosine_decay_schedule(1.0, decay_steps=1000)", "Cosine(max_update=1000, base_lr=1)", 1300, (500, 1000)),
    Case(
        "cosine_decay_schedule(0.3, decay_steps=200, alpha=0.1)",
        "Cosine(max_update=200, base_lr=0.3, final_lr=0.03)",
        300,
        (100, 200),
    ),
    Case(
        "cosine_decay_schedule(0.3, decay_steps=200, alpha=0.1)",
        "CosineAnnealing(min_lr=0.03, max_lr=0.3, cycle_length=200)",
        300,
        (100, 200),
    ),
    Case(
        "cosine_decay_schedule(0.3, decay_steps=200, alpha=0.1, exponent=1.5)",
        "Cosine(max_update=200, base_lr=0.3, final_lr=0.03, exponent=1.5)",
        300,
        (100, 200),
    ),
    Case(
        "exponential_decay(0.01, transition_steps=20, decay_rate=1.5, end_value=0.2)",
        "Clip(Exponential(step=20, factor=1.5, base_lr=0.01), max_lr=0.2)",
        400,
        (147, 148),
    ),
    Case(
        "exponential_decay(0.1, transition_steps=250, decay_rate=0.5)",
        "Exponential(step=250, factor=0.5, base_lr=0.1)",
        1200,
        (250,),
    ),
    Case(
        "exponential_decay(0.1, transition_steps=250, decay_rate=0.5, staircase=True)",
        "Exponential(step=250, factor=0.5, base_lr=0.1, staircase=True)",
        1200,
        (250, 500, 750, 1000),
        shift=1,
    ),
    Case(
        "exponential_decay(0.1, transition_steps=7, decay_rate=0.9, staircase=True)",
        "Factor(step=7, factor=0.9, base_lr=0.1, stop_factor_lr=0)",
        150,
        (7, 14, 49, 140),
        shift=1,
    ),
    Case(
        "exponential_decay(1.0, transition_steps=100, decay_rate=0.5, end_value=0.1)",
        "Clip(Exponential(step=100, factor=0.5, base_lr=1), min_lr=0.1)",
        500,
        (100, 332, 333),
    ),
    Case(
        "exponential_decay(1.0, transition_steps=100, decay_rate=0.5, staircase=True, end_value=0.1)",
        "Factor(step=100, factor=0.5, base_lr=1, stop_factor_lr=0.1)",
        700,
        (100, 200, 300, 400),
        shift=1,
    ),
    Case(
        "exponential_decay(1.0, transition_steps=100, decay_rate=0.5, transition_begin=50)",
        "Sequential([Constant(1), Exponential(step=100, factor=0.5, base_lr=1)], boundaries=[50])",
        400,
        (50, 150),
    ),
    Case(
        "piecewise_constant_schedule(0.4, {250: 2.5, 750: 0.2, 1000: 0.25})",
        "Piecewise(boundaries=[250, 750, 1000], values=[0.4, 1, 0.2, 0.05])",
        1200,
        (250, 750, 1000),
        shift=1,
    ),
    Case(
        "piecewise_constant_schedule(1.0, {250: 0.5, 750: 0.5, 900: 0.5})",
        "MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)",
        1200,
        (250, 750, 900),
        shift=1,
    ),
    Case(
        "piecewise_interpolate_schedule('linear', 0.1, {400: 10.0, 1000: 0.05})",
        "PiecewiseLinear(knots=[0, 400, 1000], values=[0.1, 1, 0.05])",
        1200,
        (400, 1000),
    ),
    Case(
        "piecewise_interpolate_schedule('linear', 0.3, {30: 3.0, 70: 0.5, 71: 0.2, 200: 0.0})",
        "PiecewiseLinear(knots=[0, 30, 70, 71, 200], values=[0.3, 0.9, 0.45, 0.09, 0])",
        250,
        (30, 70, 71, 200),
    ),
    Case(
        "piecewise_interpolate_schedule('cosine', 0.3, {30: 3.0, 70: 0.5, 200: 0.0})",
        "Sequential([Cosine(max_update=30, base_lr=0.3, final_lr=0.9), Cosine(max_update=40, base_lr=0.9, final_lr=0.45), "
        "Cosine(max_update=130, base_lr=0.45)], boundaries=[30, 70])",
        250,
        (30, 70, 200),
    ),
    Case(
        "linear_onecycle_schedule(1000, 1.0, pct_start=0.3, pct_final=0.85, div_factor=25.0, final_div_factor=100.0)",
        "PiecewiseLinear(knots=[0, 300, 850, 1000], values=[0.04, 1, 0.04, 0.0004])",
        1200,
        (300, 850, 1000),
    ),
    Case(
        "linear_onecycle_schedule(1000, 0.5, pct_start=0.25, pct_final=0.5, div_factor=5.0, final_div_factor=100.0)",
        "OneCycle(start_lr=0.1, max_lr=0.5, cycle_length=500, cooldown_length=500, finish_lr=0.001)",
        1200,
        (250, 500, 1000),
    ),
    Case(
        "linear_onecycle_schedule(1000, 0.5, pct_start=0.25, pct_final=0.5, div_factor=5.0, final_div_factor=100.0)",
        "OneCycleLR(max_lr=0.5, max_update=1001, pct_start=251/1001, div_factor=5, final_div_factor=100, "
        "anneal_strategy='linear', three_phase=True)",
        1200,
        (251, 501, 1001),
        shift=1,
    ),
    Case(
        "cosine_onecycle_schedule(1000, 1.0, pct_start=0.3, div_factor=25.0, final_div_factor=100.0)",
        "OneCycleLR(max_lr=1, max_update=1001, pct_start=301/1001, div_factor=25, final_div_factor=100)",
        1200,
        (301, 1001),
        shift=1,
    ),
    Case(
        "join_schedules([constant_schedule(1.0), linear_schedule(1.0, 0.0, 500), constant_schedule(0.01)], [500, 1000])",
        "Sequential([Constant(1), Shift(Linear(max_update=500, base_lr=1), by=-1), Constant(0.01)], boundaries=[500, 1000])",
        1200,
        (500, 1000),
        shift=1,
    ),
    Case(
        "join_schedules([constant_schedule(1.0), linear_schedule(1.0, 0.0, 500), constant_schedule(0.01)], [500, 1000])",
        "Sequential([Constant(1), Linear(max_update=500, base_lr=1), Constant(0.01)], boundaries=[500, 1000])",
        1200,
        (500, 1000),
        differs={NEXT_BEGINS: (1000,)},
    ),
    Case(
        "join_schedules([piecewise_constant_schedule(1.0, {30: 0.5, 60: 0.5}), "
        "exponential_decay(0.3, 20, 0.9, staircase=True)], [100])",
        "Sequential([MultiFactor(step=[30, 60], factor=0.5, base_lr=1), "
        "Exponential(step=20, factor=0.9, base_lr=0.3, staircase=True)], boundaries=[100])",
        250,
        (30, 60, 100, 120, 140),
        shift=1,
    ),
    Case(
        "join_schedules([constant_schedule(0.5), cosine_decay_schedule(0.5, 250, alpha=0.04)], [750])",
        "FlatCosine(max_update=1000, flat_steps=750, base_lr=0.5, final_lr=0.02)",
        1200,
        (750, 1000),
    ),
    Case(
        "join_schedules([polynomial_schedule(0.5, 0.0, 2, 1000), linear_schedule(0.5 * 0.2**2, 0.001, 100)], [800])",
        "Cooldown(Poly(max_update=1000, base_lr=0.5, pwr=2), start=800, cooldown_steps=100, final_lr=0.001)",
        1000,
        (800, 900),
    ),
    Case(
        "join_schedules([linear_schedule(0.05, 1.0, 100), constant_schedule(1.0), cosine_decay_schedule(1.0, 200, alpha=0.1)], "
        "[100, 800])",
        "WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=200, decay='cosine', base_lr=1, "
        "warmup_begin_lr=0.05, final_lr=0.1)",
        1200,
        (100, 800, 1000),
    ),
    Case("warmup_constant_schedule(0.1, 1.0, 100)", "Warmup(Constant(1), warmup_steps=100, warmup_begin_lr=0.1)", 300, (100,)),
    Case(
        "warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=100, decay_steps=1000, end_value=0.1)",
        "Warmup(Cosine(max_update=900, base_lr=1, final_lr=0.1), warmup_steps=100)",
        1200,
        (100, 550, 1000),
    ),
    Case(
        "warmup_cosine_decay_schedule(0.05, 0.3, warmup_steps=33, decay_steps=200)",
        "Cosine(max_update=200, base_lr=0.3, warmup_steps=33, warmup_begin_lr=0.05)",
        250,
        (33, 200),
    ),
    Case(
        "warmup_exponential_decay_schedule(0.05, 0.3, warmup_steps=100, transition_steps=50, decay_rate=0.7, end_value=0.02)",
        "Warmup(Clip(Exponential(step=50, factor=0.7, base_lr=0.3), min_lr=0.02), warmup_steps=100, warmup_begin_lr=0.05)",
        700,
        (100, 150, 479),
    ),
    Case(
        "sgdr_schedule([dict(init_value=0.1, peak_value=1.0, decay_steps=100, warmup_steps=20, end_value=0.01), "
        "dict(init_value=0.1, peak_value=0.5, decay_steps=200, warmup_steps=50)])",
        "Sequential([Shift(Warmup(Cosine(max_update=80, base_lr=1, final_lr=0.01), 20, warmup_begin_lr=0.1), by=-1), "
        "Shift(Warmup(Cosine(max_update=150, base_lr=0.5), 50, warmup_begin_lr=0.1), by=-1)], boundaries=[100])",
        400,
        (20, 100, 150, 300),
        shift=1,
    ),
    Case(
        "sgdr_schedule([dict(init_value=p, peak_value=p, decay_steps=d, warmup_steps=0, end_value=0.01) "
        "for p, d in ((1.0, 100), (0.5, 200), (0.25, 400))])",
        "WarmRestarts(min_lr=0.01, max_lr=1, cycle_length=100, t_mult=2, cycle_decay=0.5, cycle_limit=3)",
        900,
        (100, 300, 700),
    ),
    Case(
        "sgdr_schedule([dict(init_value=0.1, peak_value=1.0, decay_steps=100, warmup_steps=20, end_value=0.01), "
        "dict(init_value=0.1, peak_value=0.5, decay_steps=200, warmup_steps=50)])",
        "Sequential([Warmup(Cosine(max_update=80, base_lr=1, final_lr=0.01), warmup_steps=20, warmup_begin_lr=0.1), "
        "Warmup(Cosine(max_update=150, base_lr=0.5), warmup_steps=50, warmup_begin_lr=0.1)], boundaries=[100])",
        400,
        (20, 100, 150, 300),
        differs={NEXT_BEGINS: (100,)},
    ),
]

KERAS: list[Case | PlateauCase] = [
    Case(
        "ExponentialDecay(0.1, decay_steps=250, decay_rate=0.5)", "Exponential(step=250, factor=0.5, base_lr=0.1)", 1200, (250,)
    ),
    Case("ExponentialDecay(0.3, decay_steps=1, decay_rate=0.96)", "Exponential(step=1, factor=0.96, base_lr=0.3)", 300),
    Case(
        "ExponentialDecay(0.1, decay_steps=250, decay_rate=0.5, staircase=True)",
        "Exponential(step=250, factor=0.5, base_lr=0.1, staircase=True)",
        1200,
        (250, 500, 750, 1000),
        shift=1,
    ),
    Case(
        "ExponentialDecay(0.1, decay_steps=7, decay_rate=0.9, staircase=True)",
        "Factor(step=7, factor=0.9, base_lr=0.1, stop_factor_lr=0)",
        150,
        (7, 14, 49, 140),
        shift=1,
    ),
    Case(
        "PiecewiseConstantDecay([250, 750, 1000], [0.4, 1.0, 0.2, 0.05])",
        "Piecewise(boundaries=[251, 751, 1001], values=[0.4, 1, 0.2, 0.05])",
        1200,
        (250, 750, 1000),
        shift=1,
        note="each value lasts one update longer than its boundary: boundaries + 1",
    ),
    Case(
        "PiecewiseConstantDecay([3751, 6565, 8441], [0.03, 0.003, 0.0003, 0.00003])",
        "MultiFactor(step=[3752, 6566, 8442], factor=0.1, base_lr=0.03)",
        9380,
        (3752, 6566, 8442),
        shift=1,
    ),
    Case("PiecewiseConstantDecay([3], [1.0, 0.5])", "Piecewise(boundaries=[4], values=[1, 0.5])", 40, shift=1),
    *(
        PlateauCase(
            f"ReduceLROnPlateau(mode='min', factor=0.5, patience={patience}, cooldown={cooldown}, min_lr={min_lr})",
            f"Plateau(Constant(1.0), factor=0.5, patience={patience - 1}, cooldown={max(cooldown - 1, 0)}, min_lr={min_lr}, "
            "threshold_mode='abs')",
            LOSSES,
            note=COUNTS_BY_PATIENCE,
            module="keras.callbacks",
        )
        for patience, cooldown, min_lr in ((2, 3, 0.0), (1, 0, 0.0), (1, 1, 0.0), (1, 4, 0.2), (3, 2, 0.0))
    ),
    Case(
        "per_epoch(100, LearningRateScheduler(lambda epoch, lr: 0.1 * 0.9**epoch))",
        "Hold(Exponential(step=100, factor=0.9, base_lr=0.1), length=100)",
        1000,
        (100, 200, 900),
        shift=1,
        note=f"called once per epoch, here of 100 updates; {ANY_FUNCTION}",
        module="keras.callbacks",
    ),
    Case(
        "PolynomialDecay(1.0, decay_steps=1000, end_learning_rate=0.0)",
        "Poly(max_update=1000, base_lr=1, pwr=1)",
        1300,
        (1000,),
    ),
    Case(
        "PolynomialDecay(0.3, decay_steps=300, end_learning_rate=0.01)",
        "Linear(max_update=300, base_lr=0.3, final_lr=0.01)",
        400,
        (300,),
    ),
    Case(
        "PolynomialDecay(0.3, decay_steps=300, end_learning_rate=0.01, power=2.0)",
        "Poly(max_update=300, base_lr=0.3, final_lr=0.01, pwr=2)",
        400,
        (300,),
    ),
    Case(
        "PolynomialDecay(1.0, decay_steps=100, end_learning_rate=0.01, power=2.0, cycle=True)",
        "Poly(max_update=100, base_lr=1, final_lr=0.01, pwr=2, cycle=True)",
        450,
        (100, 200, 300, 400),
    ),
    Case(
        "PolynomialDecay(0.3, decay_steps=70, end_learning_rate=0.0, power=0.5, cycle=True)",
        "Poly(max_update=70, base_lr=0.3, pwr=0.5, cycle=True)",
        300,
        (70, 140, 210, 280),
    ),
    Case(
        "InverseTimeDecay(0.1, decay_steps=250, decay_rate=1.0)",
        "InverseTime(step=250, decay_rate=1, base_lr=0.1)",
        2000,
        (250,),
    ),
    Case("InverseTimeDecay(0.3, decay_steps=1, decay_rate=0.5)", "InverseTime(step=1, decay_rate=0.5, base_lr=0.3)", 300),
    Case(
        "InverseTimeDecay(0.1, decay_steps=250, decay_rate=0.7, staircase=True)",
        "InverseTime(step=250, decay_rate=0.7, base_lr=0.1, staircase=True)",
        1200,
        (250, 500, 750, 1000),
        shift=1,
    ),
    Case("CosineDecay(1.0, decay_steps=1000)", "Cosine(max_update=1000, base_lr=1)", 1300, (500, 1000)),
    Case("CosineDecay(0.3, decay_steps=200, alpha=0.1)", "Cosine(max_update=200, base_lr=0.3, final_lr=0.03)", 300, (100, 200)),
    Case(
        "CosineDecay(0.3, decay_steps=200, alpha=0.1)",
        "CosineAnnealing(min_lr=0.03, max_lr=0.3, cycle_length=200)",
        300,
        (100, 200),
    ),
    Case(
        "CosineDecay(0.05, decay_steps=900, alpha=0.1, warmup_target=1.0, warmup_steps=100)",
        "Warmup(Cosine(max_update=900, base_lr=1, final_lr=0.1), warmup_steps=100, warmup_begin_lr=0.05)",
        1200,
        (100, 550, 1000),
        listed=True,
    ),
    Case(
        "CosineDecay(0.0, decay_steps=170, warmup_target=0.3, warmup_steps=30)",
        "Cosine(max_update=200, base_lr=0.3, warmup_steps=30)",
        250,
        (30, 200),
    ),
    Case(
        "CosineDecayRestarts(1.0, first_decay_steps=100, t_mul=1.0)",
        "WarmRestarts(min_lr=0, max_lr=1, cycle_length=100)",
        450,
        (100, 200, 300, 400),
    ),
    Case(
        "CosineDecayRestarts(0.3, first_decay_steps=100, t_mul=2.0, alpha=0.1)",
        "WarmRestarts(min_lr=0.03, max_lr=0.3, cycle_length=100, t_mult=2)",
        900,
        (100, 300, 700),
    ),
    Case(
        "CosineDecayRestarts(0.3, first_decay_steps=100, t_mul=2.0, m_mul=0.5)",
        "WarmRestarts(min_lr=0, max_lr=0.3, cycle_length=100, t_mult=2, cycle_decay=0.5)",
        900,
        (100, 300, 700),
    ),
    Case(
        "CosineDecayRestarts(0.3, first_decay_steps=100, t_mul=1.5, m_mul=0.9)",
        "WarmRestarts(min_lr=0, max_lr=0.3, cycle_length=100, t_mult=1.5, cycle_decay=0.9)",
        1200,
        (100, 250, 475, 812, 813),
    ),
    Case(
        "CosineDecayRestarts(1.0, first_decay_steps=100, t_mul=2.0, m_mul=0.5, alpha=0.1)",
        "Sum([WarmRestarts(min_lr=0, max_lr=0.9, cycle_length=100, t_mult=2, cycle_decay=0.5), Constant(0.1)])",
        900,
        (100, 300, 700),
        listed=True,
    ),
    Case(
        "CosineDecayRestarts(1.0, first_decay_steps=100, t_mul=1.0, m_mul=0.5, alpha=0.1)",
        "WarmRestarts(min_lr=0.1, max_lr=1, cycle_length=100, cycle_decay=0.5)",
        350,
        (100, 200, 300),
        differs={"m_mul lowers what is above the least rate, cycle_decay lowers the whole, as in timm": after(99)},
    ),
]

TIMM: list[Case | PlateauCase] = [
    Case("CosineLRScheduler(optimizer, t_initial=1000)", "Cosine(max_update=1000, base_lr=1)", 1300, (500, 1000)),
    Case(
        "CosineLRScheduler(optimizer, t_initial=200, lr_min=0.01)",
        "CosineAnnealing(min_lr=0.01, max_lr=0.3, cycle_length=200)",
        300,
        (100, 200),
        lr=0.3,
    ),
    *(
        Case(
            f"CosineLRScheduler(optimizer, t_initial=300, lr_min=0.01, k_decay={k_decay})",
            f"Cosine(max_update=300, base_lr=0.3, final_lr=0.01, k_decay={k_decay})",
            400,
            (150, 300),
            lr=0.3,
        )
        for k_decay in (0.5, 1.5, 2.0, 3.0)
    ),
    Case(
        "CosineLRScheduler(optimizer, t_initial=100, lr_min=0.01, cycle_limit=3)",
        "WarmRestarts(min_lr=0.01, max_lr=0.3, cycle_length=100, cycle_limit=3)",
        400,
        (100, 200, 300),
        lr=0.3,
    ),
    Case(
        "CosineLRScheduler(optimizer, t_initial=100, lr_min=0.01, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=3)",
        "WarmRestarts(min_lr=0.01, max_lr=0.3, cycle_length=100, t_mult=2, cycle_decay=0.5, cycle_limit=3)",
        900,
        (100, 300, 700),
        lr=0.3,
    ),
    Case(
        "CosineLRScheduler(optimizer, t_initial=100, cycle_mul=1.5, cycle_decay=0.9, cycle_limit=4)",
        "WarmRestarts(min_lr=0, max_lr=0.3, cycle_length=100, t_mult=1.5, cycle_decay=0.9, cycle_limit=4)",
        1200,
        (100, 250, 475, 812, 813),
        lr=0.3,
    ),
    Case(
        "CosineLRScheduler(optimizer, t_initial=900, lr_min=0.01, warmup_t=100, warmup_lr_init=0.05, warmup_prefix=True)",
        "Warmup(Cosine(max_update=900, base_lr=0.3, final_lr=0.01), warmup_steps=100, warmup_begin_lr=0.05)",
        1200,
        (100, 1000),
        lr=0.3,
        listed=True,
    ),
    Case(
        "CosineLRScheduler(optimizer, t_initial=1000, lr_min=0.01, warmup_t=100, warmup_lr_init=0.05)",
        "Warmup(Cosine(max_update=1000, base_lr=0.3, final_lr=0.01), warmup_steps=100, warmup_begin_lr=0.05, overlay=True)",
        1200,
        (100, 1000),
        lr=0.3,
    ),
    Case(
        "lr_scale(CosineLRScheduler(optimizer, t_initial=300, lr_min=0.01), 0.25)",
        "Scale(Cosine(max_update=300, base_lr=0.3, final_lr=0.01), factor=0.25)",
        400,
        (300,),
        lr=0.3,
    ),
    Case(
        "CosineLRScheduler(optimizer, t_initial=100, cycle_mul=1.11, cycle_limit=3)",
        "WarmRestarts(min_lr=0, max_lr=0.3, cycle_length=100, t_mult=1.11, cycle_limit=3)",
        400,
        (100, 211, 334, 335),
        lr=0.3,
        differs={"the origin misses the start of a cycle by the rounding of its floating point": (211,)},
    ),
    Case("TanhLRScheduler(optimizer, t_initial=1000)", "Tanh(max_update=1000, base_lr=1)", 1300, (700, 1000)),
    Case(
        "TanhLRScheduler(optimizer, t_initial=300, lb=-6.0, ub=4.0, lr_min=0.01)",
        "Tanh(max_update=300, base_lr=0.3, lower=-6, upper=4, final_lr=0.01)",
        400,
        (180, 300),
        lr=0.3,
    ),
    Case(
        "TanhLRScheduler(optimizer, t_initial=300, lb=-1.0, ub=1.0)",
        "Tanh(max_update=300, base_lr=0.3, lower=-1, upper=1)",
        400,
        (150, 300),
        lr=0.3,
    ),
    Case(
        "TanhLRScheduler(optimizer, t_initial=300, lb=-2.0, ub=2.0, cycle_limit=3)",
        "Repeat(Tanh(max_update=300, base_lr=0.3, lower=-2, upper=2), length=300)",
        890,
        (300, 600),
        lr=0.3,
        differs={NEXT_CYCLE: (300, 600)},
    ),
    Case(
        "TanhLRScheduler(optimizer, t_initial=300, lb=-4.0, warmup_t=100, warmup_lr_init=0.05, warmup_prefix=True)",
        "Warmup(Tanh(max_update=300, base_lr=0.3, lower=-4), warmup_steps=100, warmup_begin_lr=0.05, warmup_end_lr=0.3)",
        500,
        (100, 400),
        lr=0.3,
        listed=True,
        note="the origin warms up to lr, not to the rate at which the tangent begins",
    ),
    Case("PolyLRScheduler(optimizer, t_initial=1000, power=2.0)", "Poly(max_update=1000, base_lr=1, pwr=2)", 1300, (1000,)),
    Case(
        "PolyLRScheduler(optimizer, t_initial=300, lr_min=0.01)",
        "Poly(max_update=300, base_lr=0.3, final_lr=0.01, pwr=0.5)",
        400,
        (300,),
        lr=0.3,
    ),
    *(
        Case(
            f"PolyLRScheduler(optimizer, t_initial=300, power={power}, lr_min=0.01, k_decay={k_decay})",
            f"Poly(max_update=300, base_lr=0.3, final_lr=0.01, pwr={power}, k_decay={k_decay})",
            400,
            (150, 300),
            lr=0.3,
        )
        for power, k_decay in ((1.0, 2.0), (0.5, 1.5), (2.0, 0.5))
    ),
    Case(
        "PolyLRScheduler(optimizer, t_initial=300, power=3.0, lr_min=0.01, warmup_t=50, "
        "warmup_lr_init=0.02, warmup_prefix=True)",
        "Warmup(Poly(max_update=300, base_lr=0.3, final_lr=0.01, pwr=3), warmup_steps=50, warmup_begin_lr=0.02)",
        450,
        (50, 350),
        lr=0.3,
    ),
    Case(
        "PolyLRScheduler(optimizer, t_initial=300, power=1.0, warmup_t=50)",
        "Warmup(Linear(max_update=300, base_lr=0.3), warmup_steps=50, overlay=True)",
        400,
        (50, 300),
        lr=0.3,
    ),
    Case(
        "StepLRScheduler(optimizer, decay_t=250, decay_rate=0.5)",
        "Factor(step=250, factor=0.5, base_lr=1, stop_factor_lr=0)",
        1200,
        (250, 500, 750, 1000),
        shift=1,
    ),
    Case(
        "StepLRScheduler(optimizer, decay_t=30, decay_rate=0.9, warmup_t=50, warmup_lr_init=0.02, warmup_prefix=False)",
        "Sequential([Shift(Warmup(Constant(0.3), 50, warmup_begin_lr=0.02), by=-1), "
        "Shift(Factor(step=30, factor=0.9, base_lr=0.3, stop_factor_lr=0), by=50)], boundaries=[50])",
        250,
        (50, 60, 90, 120),
        shift=1,
        lr=0.3,
        listed=True,
        note="the drops count the updates of the run, also those of the warm-up",
    ),
    Case(
        "StepLRScheduler(optimizer, decay_t=30, decay_rate=0.9, warmup_t=50, warmup_lr_init=0.02, warmup_prefix=True)",
        "Sequential([Shift(Warmup(Constant(0.3), 50, warmup_begin_lr=0.02), by=-1), "
        "Factor(step=30, factor=0.9, base_lr=0.3, stop_factor_lr=0)], boundaries=[50])",
        250,
        (50, 80, 110, 140),
        shift=1,
        lr=0.3,
    ),
    Case(
        "MultiStepLRScheduler(optimizer, decay_t=[251, 751, 901], decay_rate=0.5)",
        "MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)",
        1200,
        (250, 750, 900),
        shift=1,
        note="a milestone m applies at m − 1: milestones − 1",
    ),
    *(
        PlateauCase(
            f"PlateauLRScheduler(optimizer, {theirs})",
            f"Plateau(Constant(0.1), {ours}, eps=1e-8)",
            metrics,
            lr=0.1,
        )
        for theirs, ours, metrics in (
            ("decay_rate=0.5, patience_t=1", "factor=0.5, patience=1, metric='accuracy'", ACCURACIES),
            ("decay_rate=0.3, patience_t=0, cooldown_t=2, mode='min'", "factor=0.3, patience=0, cooldown=2", LOSSES),
        )
    ),
    *(
        Case(
            f"WSDLRScheduler(optimizer, t_initial=900, decay_t=300, lr_min=0.01, decay_fn={decay!r}, warmup_t=100, "
            "warmup_lr_init=0.05)",
            f"WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=300, decay={decay!r}, base_lr=0.3, "
            "warmup_begin_lr=0.05, final_lr=0.01)",
            1200,
            (100, 700, 1000),
            lr=0.3,
        )
        for decay in ("linear", "cosine", "1-sqrt")
    ),
    *(
        Case(
            f"WSDLRScheduler(optimizer, t_initial=900, decay_t=300, lr_min=0.01, {theirs}, warmup_t=100)",
            f"WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=300, {ours}, base_lr=0.3, final_lr=0.01)",
            1200,
            (100, 700, 1000),
            lr=0.3,
        )
        for theirs, ours in (
            ("decay_fn='power', decay_power=2.0", "decay='power', decay_power=2"),
            ("decay_fn='exp', decay_ratio=0.1", "decay='exponential', decay_ratio=0.1"),
        )
    ),
    Case(
        "WSDLRScheduler(optimizer, t_initial=900, decay_t=300, lr_min=0.01, stable_fn='power', stable_timescale=50, "
        "stable_power=0.7, decay_fn='linear', warmup_t=100)",
        "Warmup(Sum([Constant(0.01), Product([Sum([InverseTime(step=50, decay_rate=1, power=0.7, base_lr=0.3), "
        "Constant(0.01)], weights=[1, -1]), Cooldown(Constant(1), start=600, cooldown_steps=300)])]), 100)",
        1200,
        (100, 700, 1000),
        lr=0.3,
        listed=True,
        note="the decay multiplies what the stable part has above lr_min",
    ),
    Case(
        "WSDLRScheduler(optimizer, t_initial=900, decay_t=300, stable_fn='rsqrt', stable_timescale=50, decay_fn='linear', "
        "warmup_t=100)",
        "Product([Warmup(InverseSqrt(timescale=50, base_lr=0.3), warmup_steps=100), "
        "PiecewiseLinear(knots=[700, 1000], values=[1, 0])])",
        1200,
        (100, 700, 1000),
        lr=0.3,
    ),
]

TRANSFORMERS: list[Case | PlateauCase] = [
    Case("get_constant_schedule(optimizer)", "Constant(0.03)", 100, lr=0.03),
    Case(
        "get_constant_schedule_with_warmup(optimizer, num_warmup_steps=100)",
        "Warmup(Constant(0.3), warmup_steps=100)",
        300,
        (100,),
        lr=0.3,
        names=("get_constant_schedule_with_warmup", "constant_with_warmup"),
    ),
    Case(
        "get_linear_schedule_with_warmup(optimizer, num_warmup_steps=100, num_training_steps=1000)",
        "Warmup(Linear(max_update=900, base_lr=0.3), warmup_steps=100)",
        1200,
        (100, 1000),
        lr=0.3,
        names=("get_linear_schedule_with_warmup", "linear"),
    ),
    Case(
        "get_linear_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=333)",
        "Linear(max_update=333, base_lr=1)",
        400,
        (333,),
    ),
    Case(
        "get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=100, num_training_steps=1000)",
        "Warmup(Cosine(max_update=900, base_lr=0.3), warmup_steps=100)",
        1200,
        (100, 550, 1000),
        lr=0.3,
        differs={RISES_AGAIN: after(1000)},
        names=("get_cosine_schedule_with_warmup", "cosine"),
    ),
    Case(
        "get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=33, num_training_steps=333)",
        "Cosine(max_update=333, base_lr=0.3, warmup_steps=33)",
        333,
        (33, 333),
        lr=0.3,
    ),
    Case(
        "get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 100, 1000, num_cycles=3)",
        "Warmup(WarmRestarts(min_lr=0, max_lr=0.3, cycle_length=300, cycle_limit=3), warmup_steps=100)",
        1200,
        (100, 400, 700, 1000),
        lr=0.3,
        names=("get_cosine_with_hard_restarts_schedule_with_warmup", "cosine_with_restarts"),
    ),
    Case(
        "get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 100, 1000, num_cycles=3)",
        "Warmup(Repeat(Cosine(max_update=300, base_lr=0.3), length=300), warmup_steps=100)",
        1000,
        (100, 400, 700, 1000),
        lr=0.3,
        differs={NEXT_CYCLE: (400, 700)},
    ),
    Case(
        "get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, 100, 1100, num_cycles=3)",
        "Warmup(WarmRestarts(min_lr=0, max_lr=0.3, cycle_length=1000 / 3, cycle_limit=3), warmup_steps=100)",
        1300,
        (100, 433, 766, 1100),
        lr=0.3,
        listed=True,
        note="the cycles need not be whole",
    ),
    PlateauCase(
        "get_greedy_schedule(optimizer, factor=0.8, patience=1, min_lr=0.02, max_lr=0.3)",
        "Greedy(base_lr=0.1, factor=0.8, patience=1, min_lr=0.02, max_lr=0.3)",
        (*LOSSES, *LOSSES, *[0.3] * 30),
        lr=0.1,
        names=("get_greedy_schedule", "GreedyLR", "greedy"),
    ),
    PlateauCase(
        "get_greedy_schedule(optimizer, factor=0.5, patience=0, warmup=1, cooldown=2, min_lr=0.05, reset_start=3)",
        "Greedy(base_lr=0.1, factor=0.5, patience=0, warmup=1, cooldown=2, min_lr=0.05, reset_start=3)",
        (*LOSSES, *[0.3] * 30, *LOSSES),
        lr=0.1,
    ),
    PlateauCase(
        "get_greedy_schedule(optimizer, mode='max', factor=0.5, patience=1, threshold=0.05, threshold_mode='rel')",
        "Greedy(base_lr=0.1, factor=0.5, patience=1, threshold=0.05, threshold_mode='rel', metric='accuracy')",
        (*ACCURACIES, *ACCURACIES),
        lr=0.1,
    ),
    PlateauCase(
        "get_reduce_on_plateau_schedule(optimizer, factor=0.5, patience=1)",
        "Plateau(Constant(0.1), factor=0.5, patience=1, eps=1e-8)",
        LOSSES,
        lr=0.1,
        names=("get_reduce_on_plateau_schedule", "reduce_lr_on_plateau"),
    ),
    Case(
        "get_polynomial_decay_schedule_with_warmup(optimizer, 100, 1000, lr_end=0.01, power=2.0)",
        "Poly(max_update=1000, base_lr=0.3, final_lr=0.01, pwr=2, warmup_steps=100)",
        1200,
        (100, 1000),
        lr=0.3,
        names=("get_polynomial_decay_schedule_with_warmup", "polynomial"),
    ),
    Case(
        "get_polynomial_decay_schedule_with_warmup(optimizer, 30, 333)",
        "Warmup(Poly(max_update=303, base_lr=0.3, final_lr=1e-7, pwr=1), warmup_steps=30)",
        400,
        (30, 333),
        lr=0.3,
    ),
    Case(
        "get_inverse_sqrt_schedule(optimizer, num_warmup_steps=100)",
        "Warmup(InverseSqrt(timescale=100, base_lr=0.3), warmup_steps=100)",
        2000,
        (100, 400),
        lr=0.3,
        names=("get_inverse_sqrt_schedule", "inverse_sqrt"),
    ),
    Case(
        "get_inverse_sqrt_schedule(optimizer, num_warmup_steps=30, timescale=250)",
        "Warmup(InverseSqrt(timescale=250, base_lr=0.3), warmup_steps=30)",
        1000,
        (30, 780),
        lr=0.3,
    ),
    Case(
        "get_inverse_sqrt_schedule(optimizer, num_warmup_steps=0, timescale=250)", "InverseSqrt(timescale=250, base_lr=1)", 1000
    ),
    Case(
        "get_cosine_with_min_lr_schedule_with_warmup(optimizer, 100, 1000, min_lr=0.01)",
        "Warmup(Cosine(max_update=900, base_lr=0.3, final_lr=0.01), warmup_steps=100)",
        1200,
        (100, 550, 1000),
        lr=0.3,
        differs={RISES_AGAIN: after(1000)},
        names=("get_cosine_with_min_lr_schedule_with_warmup", "cosine_with_min_lr"),
    ),
    Case(
        "get_cosine_with_min_lr_schedule_with_warmup(optimizer, 0, 300, min_lr_rate=0.1)",
        "CosineAnnealing(min_lr=0.03, max_lr=0.3, cycle_length=300)",
        300,
        (300,),
        lr=0.3,
    ),
    Case(
        "get_cosine_with_min_lr_schedule_with_warmup_lr_rate(optimizer, 100, 1000, min_lr_rate=0.1)",
        "Warmup(Cosine(max_update=900, base_lr=0.3, final_lr=0.03), warmup_steps=100)",
        1000,
        (100, 550, 1000),
        shift=1,
        lr=0.3,
        names=("get_cosine_with_min_lr_schedule_with_warmup_lr_rate", "cosine_warmup_with_min_lr"),
    ),
    *(
        Case(
            f"get_wsd_schedule(optimizer, 100, 300, num_training_steps=1000, decay_type={decay!r}, min_lr_ratio=0.1)",
            f"WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=300, decay={decay!r}, base_lr=0.3, "
            "warmup_begin_lr=0.03, final_lr=0.03)",
            1200,
            (100, 700, 1000),
            lr=0.3,
            names=("get_wsd_schedule", "warmup_stable_decay", "WSD"),
        )
        for decay in ("linear", "cosine", "1-sqrt")
    ),
    Case(
        "get_wsd_schedule(optimizer, 100, 300, num_stable_steps=200, warmup_type='1-sqrt')",
        "Warmup(WarmupStableDecay(max_update=500, warmup_steps=0, decay_steps=300, decay='cosine', base_lr=0.3), "
        "warmup_steps=100, warmup_mode='1-sqrt')",
        800,
        (100, 300, 600),
        lr=0.3,
    ),
    Case(
        "get_wsd_schedule(optimizer, 100, 300, num_stable_steps=200, warmup_type='cosine')",
        "Warmup(WarmupStableDecay(max_update=500, warmup_steps=0, decay_steps=300, decay='cosine', base_lr=0.3), "
        "warmup_steps=100, warmup_mode='cosine')",
        800,
        (100, 300, 600),
        lr=0.3,
    ),
    Case(
        "get_wsd_schedule(optimizer, 0, 250, num_stable_steps=750)",
        "FlatCosine(max_update=1000, flat_steps=750, base_lr=1)",
        1200,
        (750, 1000),
    ),
]

PADDLE: list[Case | PlateauCase] = [
    Case("NoamDecay(d_model=512, warmup_steps=250)", "Noam(model_size=512, warmup_steps=250, base_lr=1)", 2000, (250,)),
    Case(
        "NoamDecay(d_model=64, warmup_steps=4000, learning_rate=2.0)",
        "Noam(model_size=64, warmup_steps=4000, base_lr=2)",
        20_000,
        (4000,),
    ),
    Case(
        "PiecewiseDecay([250, 750, 1000], [0.4, 1.0, 0.2, 0.05])",
        "Piecewise(boundaries=[250, 750, 1000], values=[0.4, 1, 0.2, 0.05])",
        1200,
        (250, 750, 1000),
        shift=1,
    ),
    Case("NaturalExpDecay(0.3, gamma=0.01)", "NaturalExponential(step=1, decay_rate=0.01, base_lr=0.3)", 1000),
    Case("NaturalExpDecay(1.0, gamma=0.004)", "NaturalExponential(step=250, decay_rate=1, base_lr=1)", 1000, (250,)),
    Case("InverseTimeDecay(0.3, gamma=0.1)", "InverseTime(step=1, decay_rate=0.1, base_lr=0.3)", 1000),
    Case("InverseTimeDecay(1.0, gamma=0.004)", "InverseTime(step=250, decay_rate=1, base_lr=1)", 1000, (250,)),
    Case(
        "PolynomialDecay(0.3, decay_steps=300, end_lr=0.01)", "Linear(max_update=300, base_lr=0.3, final_lr=0.01)", 400, (300,)
    ),
    Case(
        "PolynomialDecay(1.0, decay_steps=1000, end_lr=0.0, power=2.0)",
        "Poly(max_update=1000, base_lr=1, pwr=2)",
        1300,
        (1000,),
    ),
    Case(
        "PolynomialDecay(1.0, decay_steps=100, end_lr=0.01, power=2.0, cycle=True)",
        "Poly(max_update=100, base_lr=1, final_lr=0.01, pwr=2, cycle=True)",
        450,
        (100, 200, 300, 400),
    ),
    Case("ExponentialDecay(0.1, gamma=0.99)", "Exponential(step=1, factor=0.99, base_lr=0.1)", 1000),
    Case(
        "StepDecay(1.0, step_size=250, gamma=0.5)",
        "Factor(step=250, factor=0.5, base_lr=1, stop_factor_lr=0)",
        1200,
        (250, 500, 750, 1000),
        shift=1,
    ),
    Case(
        "MultiStepDecay(1.0, milestones=[250, 750, 900], gamma=0.5)",
        "MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)",
        1200,
        (250, 750, 900),
        shift=1,
    ),
    Case("LinearLR(0.4, total_steps=100, start_factor=0.25)", "Linear(max_update=100, base_lr=0.1, final_lr=0.4)", 150, (100,)),
    Case(
        "LinearWarmup(0.3, warmup_steps=100, start_lr=0.0, end_lr=0.3)", "Warmup(Constant(0.3), warmup_steps=100)", 300, (100,)
    ),
    Case(
        "LinearWarmup(PolynomialDecay(0.3, decay_steps=300, end_lr=0.01, power=2.0), 100, start_lr=0.05, end_lr=0.5)",
        "Warmup(Poly(max_update=300, base_lr=0.3, final_lr=0.01, pwr=2), 100, warmup_begin_lr=0.05, warmup_end_lr=0.5)",
        500,
        (100, 400),
        listed=True,
    ),
    Case(
        "LambdaDecay(0.1, lr_lambda=lambda step: 0.95**step)",
        "Exponential(step=1, factor=0.95, base_lr=0.1)",
        200,
        note=ANY_FUNCTION,
    ),
    Case(
        "MultiplicativeDecay(0.1, lr_lambda=lambda step: 0.95)",
        "Exponential(step=1, factor=0.95, base_lr=0.1)",
        200,
        note=ANY_FUNCTION,
    ),
    Case(
        "LinearWarmup(PolynomialDecay(0.3, decay_steps=300, end_lr=0.01, power=2.0), 100, start_lr=0.05, end_lr=0.3)",
        "Warmup(Poly(max_update=300, base_lr=0.3, final_lr=0.01, pwr=2), warmup_steps=100, warmup_begin_lr=0.05)",
        500,
        (100, 400),
    ),
    Case(
        "LinearWarmup(CosineAnnealingDecay(0.3, T_max=300, eta_min=0.01), 100, start_lr=0.05, end_lr=0.3)",
        "Cosine(max_update=400, base_lr=0.3, final_lr=0.01, warmup_steps=100, warmup_begin_lr=0.05)",
        500,
        (100, 400),
        differs={RISES_AGAIN: after(400)},
    ),
    Case(
        "CosineAnnealingDecay(1.0, T_max=1000)",
        "Cosine(max_update=1000, base_lr=1)",
        1300,
        (500, 1000),
        differs={RISES_AGAIN: after(1000)},
    ),
    Case(
        "CosineAnnealingDecay(0.3, T_max=200, eta_min=0.01)",
        "CosineAnnealing(min_lr=0.01, max_lr=0.3, cycle_length=200)",
        200,
        (100, 200),
    ),
    Case(
        "CosineAnnealingWarmRestarts(0.3, T_0=100, T_mult=2, eta_min=0.01)",
        "WarmRestarts(min_lr=0.01, max_lr=0.3, cycle_length=100, t_mult=2)",
        900,
        (100, 300, 700),
    ),
    Case(
        "OneCycleLR(1.0, total_steps=1000, divide_factor=10.0, end_learning_rate=0.001)",
        "OneCycleLR(max_lr=1, max_update=1000, div_factor=10, final_div_factor=100)",
        1000,
        (300, 1000),
        shift=1,
    ),
    Case(
        "OneCycleLR(1.0, total_steps=1000, end_learning_rate=0.0)",
        "OneCycleLR(max_lr=1, max_update=1000, final_lr=0)",
        1000,
        (300, 1000),
        shift=1,
        listed=True,
    ),
    Case(
        "OneCycleLR(1.0, total_steps=333, end_learning_rate=0.0004, phase_pct=0.25, "
        "anneal_strategy='linear', three_phase=True)",
        "OneCycleLR(max_lr=1, max_update=333, final_div_factor=100, pct_start=0.25, "
        "anneal_strategy='linear', three_phase=True)",
        333,
        (83, 84, 165, 166, 333),
        shift=1,
    ),
    Case(
        "CyclicLR(0.1, 1.0, step_size_up=30, step_size_down=170)",
        "Cyclical(Triangular(min_lr=0.1, max_lr=1, cycle_length=200, inc_fraction=0.15))",
        700,
        (30, 200, 230, 400, 430),
    ),
    Case(
        "CyclicLR(0.1, 1.0, step_size_up=250, mode='triangular2')",
        "Triangular2(min_lr=0.1, max_lr=1, cycle_length=500)",
        2100,
        (250, 500, 750, 1000, 1500),
    ),
    Case(
        "CyclicLR(0.01, 0.5, step_size_up=40, step_size_down=160, mode='exp_range', exp_gamma=0.99)",
        "ExpRange(min_lr=0.01, max_lr=0.5, cycle_length=200, inc_fraction=0.2, factor=0.99)",
        900,
        (40, 200, 240, 400, 800),
    ),
    *(
        PlateauCase(f"ReduceOnPlateau({lr}, {theirs}, epsilon=0)", f"Plateau(Constant({lr}), {ours})", metrics)
        for theirs, ours, metrics, lr in (
            ("factor=0.5, patience=2", "factor=0.5, patience=2", LOSSES, 0.1),
            ("factor=0.1, patience=0, min_lr=0.002", "factor=0.1, patience=0, min_lr=0.002", LOSSES, 0.1),
            ("mode='max', factor=0.5, patience=1", "metric='accuracy', factor=0.5, patience=1", ACCURACIES, 0.1),
            ("factor=0.1, patience=1, cooldown=2", "factor=0.1, patience=1, cooldown=2", LOSSES, 0.1),
        )
    ),
    PlateauCase(
        "ReduceOnPlateau(0.1, factor=0.5, patience=0, cooldown=3, epsilon=0)",
        "Plateau(Constant(0.1), factor=0.5, patience=0, cooldown=3)",
        LOSSES,
        differs={"the origin does not look at results in a cooldown, ours keeps the best, as PyTorch does": (17, 18, 19)},
    ),
]

MXNET: list[Case | PlateauCase] = [
    Case(
        "FactorScheduler(step=250, factor=0.5, base_lr=1)",
        "Factor(step=250, factor=0.5, base_lr=1)",
        1200,
        (250, 500, 750, 1000),
    ),
    Case(
        "MultiFactorScheduler(step=[250, 750, 900], factor=0.5, base_lr=1)",
        "MultiFactor(step=[250, 750, 900], factor=0.5, base_lr=1)",
        1200,
        (250, 750, 900),
    ),
    Case("PolyScheduler(max_update=1000, base_lr=1, pwr=2)", "Poly(max_update=1000, base_lr=1, pwr=2)", 1300, (1000,)),
    Case(
        "CosineScheduler(max_update=1000, base_lr=0.3, final_lr=0.01, warmup_steps=100)",
        "Cosine(max_update=1000, base_lr=0.3, final_lr=0.01, warmup_steps=100)",
        1300,
        (100, 1000),
    ),
]

TUTORIAL = "MXNet's tutorials"

MXNET += [
    Case(
        "CosineAnnealingSchedule(min_lr=0.01, max_lr=0.3, cycle_length=1000)",
        "CosineAnnealing(min_lr=0.01, max_lr=0.3, cycle_length=1000)",
        1200,
        (1000,),
        module=TUTORIAL,
    ),
    Case(
        "TriangularSchedule(min_lr=0.01, max_lr=0.3, cycle_length=1000, inc_fraction=0.2)",
        "Triangular(min_lr=0.01, max_lr=0.3, cycle_length=1000, inc_fraction=0.2)",
        1200,
        (200, 1000),
        module=TUTORIAL,
    ),
    Case(
        "CyclicalSchedule(TriangularSchedule, min_lr=0.01, max_lr=0.3, cycle_length=100, cycle_length_decay=2, "
        "cycle_magnitude_decay=0.5)",
        "Cyclical(Triangular(min_lr=0.01, max_lr=0.3, cycle_length=100), cycle_length_decay=2, cycle_magnitude_decay=0.5)",
        900,
        (100, 300, 700),
        module=TUTORIAL,
    ),
    Case(
        "OneCycleSchedule(start_lr=0.01, max_lr=0.3, cycle_length=500, cooldown_length=500, finish_lr=0.001)",
        "OneCycle(start_lr=0.01, max_lr=0.3, cycle_length=500, cooldown_length=500, finish_lr=0.001)",
        1200,
        (250, 500, 1000),
        module=TUTORIAL,
    ),
    Case(
        "LinearWarmUp(CosineAnnealingSchedule(min_lr=0.01, max_lr=0.3, cycle_length=900), start_lr=0.02, length=100)",
        "Warmup(CosineAnnealing(min_lr=0.01, max_lr=0.3, cycle_length=900), warmup_steps=100, warmup_begin_lr=0.02)",
        1200,
        (100, 1000),
        module=TUTORIAL,
    ),
    Case(
        "LinearCoolDown(CosineAnnealingSchedule(min_lr=0.1, max_lr=0.3, cycle_length=800), finish_lr=0.01, start_idx=800, "
        "length=200)",
        "Cooldown(CosineAnnealing(min_lr=0.1, max_lr=0.3, cycle_length=800), start=800, cooldown_steps=200, final_lr=0.01)",
        1200,
        (800, 1000),
        module=TUTORIAL,
    ),
]

GLUONCV: list[Case | PlateauCase] = [
    Case(
        "LRScheduler('cosine', base_lr=0.3, target_lr=0.01, niters=1000)",
        "Cosine(max_update=999, base_lr=0.3, final_lr=0.01)",
        1200,
        (999,),
        note="the last of niters iterations has target_lr: max_update = niters − 1",
    ),
    Case(
        "LRScheduler('poly', base_lr=0.3, target_lr=0.01, niters=1000, power=0.9)",
        "Poly(max_update=999, base_lr=0.3, final_lr=0.01, pwr=0.9)",
        1200,
        (999,),
        listed=True,
    ),
    Case(
        "LRScheduler('linear', base_lr=0.0, target_lr=0.3, niters=100)",
        "Linear(max_update=99, base_lr=0, final_lr=0.3)",
        200,
        (99,),
        listed=True,
    ),
    Case("LRScheduler('constant', base_lr=0.3, niters=100)", "Constant(0.3)", 200, listed=True),
    Case(
        "LRScheduler('step', base_lr=0.3, niters=1000, step_iter=[250, 750], step_factor=0.1)",
        "MultiFactor(step=[249, 749], factor=0.1, base_lr=0.3)",
        1000,
        (250, 750),
        listed=True,
        note="the rate drops at the iterations of step_iter, ours after those of step",
    ),
    Case(
        "LRSequential([LRScheduler('linear', base_lr=0.0, target_lr=0.3, niters=100), "
        "LRScheduler('cosine', base_lr=0.3, target_lr=0.0, niters=900)])",
        "Sequential([Linear(max_update=99, base_lr=0, final_lr=0.3), Shift(Cosine(max_update=899, base_lr=0.3), by=-1)], "
        "boundaries=[99])",
        1200,
        (99, 100, 999),
    ),
    Case(
        "LRSequential([LRScheduler('linear', base_lr=0.0, target_lr=0.3, niters=100), "
        "LRScheduler('step', base_lr=0.3, niters=900, step_iter=[300, 600], step_factor=0.1)])",
        "Sequential([Linear(max_update=99, base_lr=0, final_lr=0.3), MultiFactor(step=[300, 600], factor=0.1, base_lr=0.3)], "
        "boundaries=[99])",
        1200,
        (99, 400, 700, 999),
    ),
]

MEGATRON: list[Case | PlateauCase] = [
    *(
        Case(
            "OptimizerParamScheduler(init_lr=0.05, max_lr=0.3, min_lr=0.01, lr_warmup_steps=100, lr_decay_steps=1000, "
            f"lr_decay_style={style!r})",
            ours,
            1200,
            (100, 550, 1000),
            listed=True,
        )
        for style, ours in (
            ("linear", "Warmup(Linear(max_update=900, base_lr=0.3, final_lr=0.01), 100, warmup_begin_lr=0.05)"),
            ("cosine", "Warmup(Cosine(max_update=900, base_lr=0.3, final_lr=0.01), 100, warmup_begin_lr=0.05)"),
            ("constant", "Warmup(Constant(0.3), 100, warmup_begin_lr=0.05)"),
        )
    ),
    Case(
        "OptimizerParamScheduler(init_lr=0.0, max_lr=0.3, min_lr=0.1, lr_warmup_steps=100, lr_decay_steps=1000, "
        "lr_decay_style='inverse-square-root')",
        "Sequential([Warmup(Clip(InverseSqrt(timescale=100, base_lr=0.3), min_lr=0.1), 100), Constant(0.1)], "
        "boundaries=[1000])",
        1200,
        (100, 899, 900, 901, 1000),
        listed=True,
    ),
    *(
        Case(
            "OptimizerParamScheduler(init_lr=0.0, max_lr=0.3, min_lr=0.01, lr_warmup_steps=100, lr_decay_steps=1000, "
            f"lr_decay_style='WSD', wsd_decay_steps=200, lr_wsd_decay_style={theirs!r})",
            f"WarmupStableDecay(max_update=1000, warmup_steps=100, decay_steps=200, decay={ours!r}, base_lr=0.3, "
            "final_lr=0.01)",
            1200,
            (100, 800, 1000),
            listed=theirs == "exponential",
        )
        for theirs, ours in (
            ("linear", "linear"),
            ("cosine", "cosine"),
            ("exponential", "exponential"),
            ("minus_sqrt", "1-sqrt"),
        )
    ),
]

FASTAI: list[Case | PlateauCase] = [
    Case(
        "after(1000, combined_cos(0.25, 0.1 / 25, 0.1, 0.1 / 1e5))",
        "Sequential([Cosine(max_update=250, base_lr=0.004, final_lr=0.1), Cosine(max_update=750, base_lr=0.1, final_lr=1e-6)], "
        "boundaries=[250])",
        1000,
        (250, 1000),
        names=("fit_one_cycle", "combined_cos"),
        note="with the defaults, in 1,000 batches",
        shown="fit_one_cycle(n_epoch, lr_max=0.1)",
    ),
    Case(
        "momentum(after(1000, combined_cos(0.25, 0.95, 0.85, 0.95)))",
        "Sequential([Cosine(max_update=250, base_lr=0.95, final_lr=0.85), "
        "Cosine(max_update=750, base_lr=0.85, final_lr=0.95)], boundaries=[250])",
        1000,
        (250, 1000),
        names=("fit_one_cycle",),
        listed=True,
        shown="fit_one_cycle(n_epoch, moms=(0.95, 0.85, 0.95))",
    ),
    Case(
        "after(1000, combined_cos(0.75, 0.1, 0.1, 0.1 / 1e5))",
        "FlatCosine(max_update=1000, flat_steps=750, base_lr=0.1, final_lr=1e-6)",
        1000,
        (750, 1000),
        names=("fit_flat_cos",),
        note="with the defaults, in 1,000 batches",
        shown="fit_flat_cos(n_epoch, lr=0.1)",
    ),
    Case(
        "after(700, combine_scheds([1 / 7, 2 / 7, 4 / 7], [SchedCos(0.1, 0) for _ in range(3)]))",
        "WarmRestarts(min_lr=0, max_lr=0.1, cycle_length=100, t_mult=2, cycle_limit=3)",
        700,
        (300, 700),
        names=("fit_sgdr", "combine_scheds"),
        note="with epochs of 100 batches",
        shown="fit_sgdr(3, 1, lr_max=0.1)",
        differs={"the origin's cycle has ended at this iteration, by the rounding of 1 / 7": (100,)},
    ),
    Case("after(500, SchedNo(0.1, 0.1))", "Constant(0.1)", 500, names=("SchedNo",)),
    Case(
        "after(500, SchedLin(0.1, 0.01))",
        "Linear(max_update=500, base_lr=0.1, final_lr=0.01)",
        500,
        (500,),
        names=("SchedLin",),
    ),
    Case(
        "after(500, SchedCos(0.1, 0.01))",
        "Cosine(max_update=500, base_lr=0.1, final_lr=0.01)",
        500,
        (500,),
        names=("SchedCos",),
    ),
    Case(
        "after(500, SchedExp(0.1, 0.001))",
        "Exponential(step=500, factor=0.01, base_lr=0.1)",
        500,
        (500,),
        names=("SchedExp",),
    ),
    Case(
        "after(500, SchedPoly(0.1, 0.01, 3))",
        "Poly(max_update=500, base_lr=0.1, final_lr=0.01, pwr=1, k_decay=3)",
        500,
        (500,),
        names=("SchedPoly",),
    ),
]

FAIRSEQ: list[Case | PlateauCase] = [
    Case(
        "inverse_sqrt(lr=0.3, warmup_updates=100, warmup_init_lr=0.001)",
        "Warmup(InverseSqrt(timescale=100, base_lr=0.3), 100, warmup_begin_lr=0.001)",
        2000,
        (100, 400),
    ),
    Case(
        "polynomial_decay(lr=0.3, warmup_updates=100, force_anneal=None, end_learning_rate=0.01, power=2.0, "
        "total_num_update=1000)",
        "Warmup(Poly(max_update=900, base_lr=0.3, final_lr=0.01, pwr=2), 100)",
        1200,
        (100, 1000),
    ),
    Case(
        "cosine(lr=0.3, min_lr=0.01, warmup_updates=100, warmup_init_lr=-1, t_mult=1, lr_period_updates=200, lr_shrink=0.5, "
        "max_update=0)",
        "Warmup(Cyclical(CosineAnnealing(min_lr=0.01, max_lr=0.3, cycle_length=200), cycle_magnitude_decay=0.5), 100, "
        "warmup_begin_lr=0.01)",
        1000,
        (100, 300, 500, 700),
        note="lr_shrink lowers each cycle as a whole",
    ),
    Case(
        "cosine(lr=0.3, min_lr=0.01, warmup_updates=0, warmup_init_lr=-1, t_mult=2, lr_period_updates=100, lr_shrink=1.0, "
        "max_update=0)",
        "WarmRestarts(min_lr=0.01, max_lr=0.3, cycle_length=100, t_mult=2)",
        1200,
        (100, 300, 700),
        listed=True,
    ),
    Case(
        "triangular(lr=0.01, max_lr=0.3, lr_period_updates=200, lr_shrink=0.5, shrink_min=True)",
        "Cyclical(Triangular(min_lr=0.01, max_lr=0.3, cycle_length=200), cycle_magnitude_decay=0.5)",
        900,
        (100, 200, 300, 400, 600),
        listed=True,
    ),
    Case(
        "triangular(lr=0.01, max_lr=0.3, lr_period_updates=200, lr_shrink=0.5, shrink_min=False)",
        "Sum([Constant(0.01), Cyclical(Triangular(min_lr=0, max_lr=0.3, cycle_length=200), cycle_magnitude_decay=0.5), "
        "Cyclical(Triangular(min_lr=0, max_lr=0.01, cycle_length=200))], weights=[1, 1, -1])",
        900,
        (100, 200, 300, 400, 600),
        listed=True,
        note="without shrink_min, only the tips become lower",
    ),
    Case(
        "tri_stage(lr=0.3, phase_ratio=None, max_update=0, warmup_steps=100, hold_steps=400, decay_steps=300, "
        "init_lr_scale=0.01, final_lr_scale=0.05)",
        "Sequential([Warmup(Constant(0.3), 100, warmup_begin_lr=0.003), Exponential(step=300, factor=0.05, base_lr=0.3), "
        "Constant(0.015)], boundaries=[500, 800])",
        1000,
        (100, 500, 800),
    ),
]

DEEPSPEED: list[Case | PlateauCase] = [
    Case(
        "WarmupLR(optimizer, warmup_min_lr=0.01, warmup_max_lr=0.3, warmup_num_steps=100)",
        "Warmup(Constant(0.3), 100, warmup_begin_lr=0.01, warmup_mode='log')",
        300,
        (100,),
    ),
    Case(
        "WarmupLR(optimizer, warmup_min_lr=0.01, warmup_max_lr=0.3, warmup_num_steps=100, warmup_type='linear')",
        "Shift(Warmup(Constant(0.3), 100, warmup_begin_lr=0.01), by=-1)",
        300,
        (100,),
        listed=True,
    ),
    Case(
        "WarmupDecayLR(optimizer, total_num_steps=1000, warmup_max_lr=0.3, warmup_num_steps=100, warmup_type='linear')",
        "Shift(Warmup(Linear(max_update=900, base_lr=0.3), 100), by=-1)",
        1200,
        (100, 1000),
    ),
    Case(
        "WarmupCosineLR(optimizer, total_num_steps=1000, warmup_num_steps=100, cos_min_ratio=0.1, warmup_type='linear')",
        "Sequential([Shift(Warmup(Constant(0.3), 100), by=-1), Cosine(max_update=900, base_lr=0.3, final_lr=0.03)], "
        "boundaries=[100])",
        1200,
        (101, 1001),
        lr=0.3,
    ),
    Case(
        "LRRangeTest(optimizer, lr_range_test_min_lr=0.001, lr_range_test_step_size=100, lr_range_test_step_rate=2.0)",
        "Linear(max_update=1000, base_lr=0.001, final_lr=0.021)",
        1000,
        note="rises for the length of the run; `mnist-trainer find-lr` searches for a learning rate",
    ),
]

PYTORCH_WARMUP: list[Case | PlateauCase] = [
    Case(
        "None, ExponentialWarmup(optimizer, warmup_period=50)",
        "Warmup(Constant(0.3), 50, warmup_mode='1-exp')",
        500,
        shift=1,
        lr=0.3,
        names=("ExponentialWarmup", "UntunedExponentialWarmup"),
        note="the untuned warm-up has the period 1 / (1 − beta2)",
        shown="ExponentialWarmup(optimizer, warmup_period=50), lr=0.3",
    ),
    Case(
        "StepLR(optimizer, step_size=200, gamma=0.1), ExponentialWarmup(optimizer, warmup_period=50)",
        "Warmup(Factor(step=200, factor=0.1, base_lr=0.3, stop_factor_lr=0), 50, warmup_mode='1-exp', overlay=True)",
        500,
        (200, 400),
        shift=1,
        lr=0.3,
        names=("ExponentialWarmup", "UntunedExponentialWarmup"),
        listed=True,
    ),
    Case(
        "CosineAnnealingLR(optimizer, T_max=500), LinearWarmup(optimizer, warmup_period=50)",
        "Product([Shift(Cosine(max_update=500, base_lr=0.3), by=-1), Linear(max_update=50, base_lr=0, final_lr=1)])",
        500,
        (50,),
        shift=1,
        lr=0.3,
        names=("LinearWarmup", "UntunedLinearWarmup"),
        note="the curve runs during the warm-up; the untuned warm-up has the period 2 / (1 − beta2)",
    ),
]

SPEECHBRAIN: list[Case | PlateauCase] = [
    *(
        PlateauCase(f"NewBobScheduler(0.1{theirs})", f"NewBob(Constant(0.1){ours})", LOSSES)
        for theirs, ours in (
            ("", ""),
            (", annealing_factor=0.8, patient=2", ", factor=0.8, patience=2"),
            (", improvement_threshold=0.1, patient=1", ", threshold=0.1, patience=1"),
        )
    ),
]
