"""Learning-rate schedules: immutable values that map an iteration (1, 2, 3, …) to a learning rate.

This package needs only the standard library. Its modules:

    schedule.py        base classes of all curves, and declarations of their fields
    stepwise.py        Constant, Factor, MultiFactor, Piecewise
    builtin_warmup.py  MXNet's built-in warm-up, for Factor, MultiFactor, Poly and Cosine
    decays.py          Poly, Cosine, CosineAnnealing, Linear, PiecewiseLinear, Tanh
    endless.py         Exponential, NaturalExponential, InverseTime, InverseSqrt, Noam
    cycles.py          Triangular, Triangular2, ExpRange, WarmRestarts, Cyclical
    one_cycle.py       OneCycle, OneCycleLR, OneCycleMomentum
    budgets.py         WarmupStableDecay, FlatCosine, REX; the forms of a decay at the end
    composition.py     Warmup, Cooldown, Sequential, Product, Sum, Repeat, Shift, Hold, Clip, Scale, Noise
    reacting.py        Plateau, NewBob, Greedy, which react to validation results
    catalogue.py       the list of all curves
    dictionary.py      the schedules of other frameworks, and ours for them
    picture.py         a small picture of a curve, for notebooks
    user.py            schedules made of a user's function or class
    settings.py        conversion from the settings in a configuration, and back
    named.py           the schedule of a flag: a name, or an expression
    misfits.py         schedules that do not fit the length of their run

Example:
    >>> schedule = MultiFactor(base_lr=1, step=[250], factor=0.5)
    >>> schedule(250), schedule(251)
    (1.0, 0.5)
    >>> Warmup(Repeat(Cosine(max_update=500, base_lr=0.1), length=500), warmup_steps=100)
    Warmup(curve=Repeat(curve=Cosine(base_lr=0.1, max_update=500), length=500), warmup_steps=100)
"""

from mnist_trainer.schedules.budgets import REX, FlatCosine, WarmupStableDecay
from mnist_trainer.schedules.catalogue import CURVES
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
from mnist_trainer.schedules.endless import Exponential, InverseSqrt, InverseTime, NaturalExponential, Noam
from mnist_trainer.schedules.one_cycle import OneCycle, OneCycleLR, OneCycleMomentum
from mnist_trainer.schedules.reacting import Greedy, NewBob, Plateau
from mnist_trainer.schedules.schedule import AnySchedule, Schedule, ScheduleError
from mnist_trainer.schedules.settings import (
    RunLength,
    SettingsError,
    build_hyperparameter,
    build_schedule,
    from_toml,
    schedule_settings,
)
from mnist_trainer.schedules.stepwise import Constant, Factor, MultiFactor, Piecewise
from mnist_trainer.schedules.user import UserSchedule, check_rates

__all__ = [
    "CURVES",
    "REX",
    "AnySchedule",
    "Clip",
    "Constant",
    "Cooldown",
    "Cosine",
    "CosineAnnealing",
    "Cyclical",
    "ExpRange",
    "Exponential",
    "Factor",
    "FlatCosine",
    "Greedy",
    "Hold",
    "InverseSqrt",
    "InverseTime",
    "Linear",
    "MultiFactor",
    "NaturalExponential",
    "NewBob",
    "Noam",
    "Noise",
    "OneCycle",
    "OneCycleLR",
    "OneCycleMomentum",
    "Piecewise",
    "PiecewiseLinear",
    "Plateau",
    "Poly",
    "Product",
    "Repeat",
    "RunLength",
    "Scale",
    "Schedule",
    "ScheduleError",
    "Sequential",
    "SettingsError",
    "Shift",
    "Sum",
    "Tanh",
    "Triangular",
    "Triangular2",
    "UserSchedule",
    "WarmRestarts",
    "Warmup",
    "WarmupStableDecay",
    "build_hyperparameter",
    "build_schedule",
    "check_rates",
    "from_toml",
    "schedule_settings",
]

for _cls in CURVES:
    _cls.__module__ = __name__  # pickled curves survive a move to another module of this package
del _cls
