"""What came of a benchmark: medians, ranges and ratios, the tables that are printed, and the content of `benchmark.json`.

Standard library only.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mnist_trainer.benchmark.contest import CONTENDERS, OURS, Measurement
from mnist_trainer.console import in_columns

RESULT = "benchmark.json"
FIGURE = "benchmark.png"


class Spread(NamedTuple):
    """Several measurements of one thing."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def shown(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.lowest:.{digits}f} to {self.highest:.{digits}f})"


class Standing(NamedTuple):
    """How one contender did.

    ratio: its seconds over those of the yardstick, repetition by repetition.
    system_share: of the processors' seconds in its turns, those that the system took; much of it are threads that wait.
    """

    contender: str
    train_seconds: Spread
    test_seconds: Spread
    ratio: Spread
    test_accuracy: float
    system_share: float


def yardstick(measurements: Sequence[Measurement]) -> str:
    """With whom the others are compared: this program, or the first that took part."""
    names = [each.contender for each in measurements]
    return OURS if OURS in names else names[0]


def standings(measurements: Sequence[Measurement]) -> list[Standing]:
    """How each contender did, in the order of `CONTENDERS`; the first epoch of each is not counted, except as training."""
    counted = [each for each in measurements if each.repetition > 0]
    of = {
        name: sorted((each for each in counted if each.contender == name), key=lambda each: each.repetition)
        for name in CONTENDERS
        if any(each.contender == name for each in counted)
    }
    others = [each.train_seconds for each in of[yardstick(measurements)]]
    return [
        Standing(
            contender=name,
            train_seconds=Spread.of([each.train_seconds for each in turns]),
            test_seconds=Spread.of([each.test_seconds for each in turns]),
            ratio=Spread.of([each.train_seconds / other for each, other in zip(turns, others, strict=True)]),
            test_accuracy=turns[-1].test_accuracy,
            system_share=sum(each.system_seconds for each in turns)
            / (sum(each.system_seconds + each.user_seconds for each in turns) or 1.0),
        )
        for name, turns in of.items()
    ]


def contest_table(measurements: Sequence[Measurement]) -> list[str]:
    """A line a contender, below a line of headings."""
    rows = [("contender", "seconds an epoch", f"times {yardstick(measurements)}", "test accuracy", "system time")]
    rows += [
        (
            each.contender,
            each.train_seconds.shown(),
            each.ratio.shown(),
            f"{each.test_accuracy:.2%}",
            f"{each.system_share:.0%}",
        )
        for each in standings(measurements)
    ]
    return in_columns(rows)


def phases_table(phases: Mapping[str, float]) -> list[str]:
    """Where an iteration's time goes."""
    total = phases["iteration"]
    rows = [("where an iteration's time goes", "ms", "share")]
    rows += [(name.replace("_", " "), f"{value:.2f}", f"{value / total:.0%}") for name, value in phases.items()]
    return in_columns(rows)


def with_remainder(phases: Mapping[str, float], epoch_seconds: float, iterations: int) -> dict[str, float]:
    """The phases in ms, then what is left of an iteration of the free loop, then that iteration.

    phases: medians in ms of a pass that waits for the device after each; in the free loop they may overlap with Python, so
    that what is left may be below 0.
    """
    iteration = 1000 * epoch_seconds / iterations
    return {**phases, "python_and_the_rest": iteration - sum(phases.values()), "iteration": iteration}


def resource_lines(resources: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """A line for each quantity, with what it was measured on."""
    rows = [("what", "median (lowest to highest)", "measured")]
    for what, quantities in resources.items():
        for quantity, values in quantities.items():
            digits = 0 if quantity.endswith("_mb") else 4 if "ratio" in quantity else 3
            rows.append((f"{what}: {quantity}", Spread.of(values).shown(digits), f"{len(values)} times"))
    return in_columns(rows)


def contest_record(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What `benchmark.json` says of a contest."""
    return {
        "yardstick": yardstick(measurements),
        "standings": {
            each.contender: {
                "title": CONTENDERS[each.contender].title,
                "train_seconds": each.train_seconds._asdict(),
                "test_seconds": each.test_seconds._asdict(),
                "ratio": each.ratio._asdict(),
                "test_accuracy": each.test_accuracy,
                "system_share": each.system_share,
            }
            for each in standings(measurements)
        },
        "measurements": [each._asdict() for each in measurements],
    }


def resources_record(resources: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """What `benchmark.json` says of each resource: the spread, and every value."""
    return {
        what: {
            quantity: Spread.of(values)._asdict() | {"measurements": list(values)} for quantity, values in quantities.items()
        }
        for what, quantities in resources.items()
    }
