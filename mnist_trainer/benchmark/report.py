"""What came of a benchmark: medians, ranges and ratios, the tables that are printed, and the content of `benchmark.json`.

Standard library only.
"""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from mnist_trainer.benchmark.contest import IMPLEMENTATIONS, OURS, Measurement
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
    """How one implementation did.

    ratio: its seconds over those of the baseline, repetition by repetition.
    system_share: of the processors' seconds in its turns, those that the system took; much of it are threads that wait.
    """

    implementation: str
    train_seconds: Spread
    test_seconds: Spread
    ratio: Spread
    test_accuracy: float
    system_share: float


def baseline(measurements: Sequence[Measurement]) -> str:
    """With whom the others are compared: this program, or the first that took part."""
    names = [each.implementation for each in measurements]
    return OURS if OURS in names else names[0]


def standings(measurements: Sequence[Measurement]) -> list[Standing]:
    """Return a standing for each implementation, in the order of `IMPLEMENTATIONS`. The first epoch of each is not counted."""
    counted = [each for each in measurements if each.repetition > 0]
    of = {
        name: sorted((each for each in counted if each.implementation == name), key=lambda each: each.repetition)
        for name in IMPLEMENTATIONS
        if any(each.implementation == name for each in counted)
    }
    others = [each.train_seconds for each in of[baseline(measurements)]]
    return [
        Standing(
            implementation=name,
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
    """A line an implementation, below a line of headings."""
    rows = [("implementation", "seconds an epoch", f"times {baseline(measurements)}", "test accuracy", "system time")]
    rows += [
        (
            each.implementation,
            each.train_seconds.shown(),
            each.ratio.shown(),
            f"{each.test_accuracy:.2%}",
            f"{each.system_share:.0%}",
        )
        for each in standings(measurements)
    ]
    return in_columns(rows)


def contest_record(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """What `benchmark.json` says of a contest."""
    return {
        "baseline": baseline(measurements),
        "standings": {
            each.implementation: {
                "title": IMPLEMENTATIONS[each.implementation].title,
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
