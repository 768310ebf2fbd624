"""Learning-rate schedules: pure values that map an iteration (1, 2, 3, …) to a learning rate.

Standard library only. Table of contents:

    schedule.py        what every curve is
    stepwise.py        Constant, Factor, MultiFactor
    decays.py          Poly, Cosine, CosineAnnealing
    builtin_warmup.py  MXNet's built-in warm-up, which four of them share
    catalogue.py       the list of all curves
    user.py            a user's own function or class
    settings.py        from a configuration's settings to a schedule

>>> schedule = MultiFactor(base_lr=1, step=[250], factor=0.5)
>>> schedule(250), schedule(251)
(1.0, 0.5)
"""

from mnist_trainer.schedules.catalogue import CURVES
from mnist_trainer.schedules.decays import Cosine, CosineAnnealing, Poly
from mnist_trainer.schedules.schedule import Schedule
from mnist_trainer.schedules.settings import RunLength, SettingsError, build_schedule
from mnist_trainer.schedules.stepwise import Constant, Factor, MultiFactor
from mnist_trainer.schedules.user import ScheduleError, UserSchedule

__all__ = [
    "CURVES",
    "Constant",
    "Cosine",
    "CosineAnnealing",
    "Factor",
    "MultiFactor",
    "Poly",
    "RunLength",
    "Schedule",
    "ScheduleError",
    "SettingsError",
    "UserSchedule",
    "build_schedule",
]
