"""The list of all curves that a configuration can name. Register a new curve here."""

from mnist_trainer.fields import nearest
from mnist_trainer.schedules.budgets import REX, FlatCosine, WarmupStableDecay
from mnist_trainer.schedules.composition import (
    Clip,
    Cooldown,
    Hold,
    Noise,
    Product,
    Repeat,
    Scale,
    Sequential,
    Shift,
    Sum,
    Warmup,
)
from mnist_trainer.schedules.cycles import Cyclical, ExpRange, Triangular, Triangular2, WarmRestarts
from mnist_trainer.schedules.decays import Cosine, CosineAnnealing, Linear, PiecewiseLinear, Poly, Tanh
from mnist_trainer.schedules.dictionary import hint_for, plain
from mnist_trainer.schedules.endless import Exponential, InverseSqrt, InverseTime, NaturalExponential, Noam
from mnist_trainer.schedules.one_cycle import OneCycle, OneCycleLR, OneCycleMomentum
from mnist_trainer.schedules.reacting import Greedy, NewBob, Plateau
from mnist_trainer.schedules.schedule import Schedule
from mnist_trainer.schedules.stepwise import Constant, Factor, MultiFactor, Piecewise

FAMILIES: dict[str, tuple[type[Schedule], ...]] = {
    "levels": (Constant, Factor, MultiFactor, Piecewise),
    "decays": (Poly, Cosine, CosineAnnealing, Linear, PiecewiseLinear, Tanh),
    "decays without an end": (Exponential, NaturalExponential, InverseTime, InverseSqrt, Noam),
    "cycles": (Triangular, Triangular2, ExpRange, WarmRestarts, Cyclical),
    "one cycle": (OneCycle, OneCycleLR, OneCycleMomentum),
    "budgets": (WarmupStableDecay, FlatCosine, REX),
    "made of other schedules": (Warmup, Cooldown, Sequential, Product, Sum, Repeat, Shift, Hold, Clip, Scale, Noise),
    "driven by results": (Plateau, NewBob, Greedy),
}
"""All curves, by their purpose."""

CURVES: tuple[type[Schedule], ...] = tuple(cls for family in FAMILIES.values() for cls in family)


def summarize(cls: type[Schedule]) -> list[str]:
    """Return the first line of a curve's docstring, then the lines with its equations, without backquotes."""
    first, *others = (cls.__doc__ or "").replace("`", "").splitlines()
    return [first, *(line.strip() for line in others if line.lstrip().startswith("lr(k) = "))]


def find_curve(name: str) -> type[Schedule]:
    """Return the class of a curve.

    Args:
        name: The name of the class; capitals, hyphens and underscores do not matter.

    Raises:
        ValueError: The name is unknown. The message has the nearest name.
    """
    known = {plain(cls.__name__): cls for cls in CURVES}
    if plain(name) not in known:
        if hint := hint_for(name):
            raise ValueError(f"there is no schedule {name!r}; {hint}")
        if "." in name:
            module, _, attribute = name.rpartition(".")
            raise ValueError(f"there is no schedule {name!r}; write a function of your own as {module}:{attribute}")
        near = nearest(plain(name), known)
        hint = f"did you mean {known[near].__name__}?" if near else "`mnist-trainer schedules list` shows all"
        raise ValueError(f"there is no schedule {name!r}; {hint}")
    return known[plain(name)]
