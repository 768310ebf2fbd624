"""The list of all curves that a configuration can name; the one place where a new curve is entered."""

import difflib

from mnist_trainer.schedules.decays import Cosine, CosineAnnealing, Poly
from mnist_trainer.schedules.schedule import Schedule
from mnist_trainer.schedules.stepwise import Constant, Factor, MultiFactor

CURVES: tuple[type[Schedule], ...] = (Constant, Factor, MultiFactor, Poly, Cosine, CosineAnnealing)


def curve_names() -> list[str]:
    return [cls.__name__ for cls in CURVES]


def find_curve(name: str) -> type[Schedule]:
    """The class called `name`, whatever its capitals and underscores. Raises ValueError with the nearest name."""
    known = {_plain(cls.__name__): cls for cls in CURVES}
    if _plain(name) not in known:
        near = difflib.get_close_matches(_plain(name), known, n=1)
        hint = f"did you mean {known[near[0]].__name__}?" if near else f"there are {', '.join(curve_names())}"
        raise ValueError(f"there is no schedule {name!r}; {hint}")
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
