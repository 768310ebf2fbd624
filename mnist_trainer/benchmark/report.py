"""The results of a benchmark: medians, ranges and ratios, the printed table, and the content of `benchmark.json`.

Standard library only.
"""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from mnist_trainer.benchmark.implementations import IMPLEMENTATIONS, OURS
from mnist_trainer.benchmark.rounds import Measurement
from mnist_trainer.console import in_columns

RECORD = "benchmark.json"
FIGURE = "benchmark.png"


class Spread(NamedTuple):
    """Median and range of several measurements of a quantity."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def shown(self, digits: int = 2) -> str:
        """Return the median with the range in parentheses."""
        return f"{self.median:.{digits}f} ({self.minimum:.{digits}f} to {self.maximum:.{digits}f})"


class BenchmarkResult(NamedTuple):
    """The result of one implementation. Its first epoch does not count.

    Attributes:
        implementation: Its name.
        train_seconds: Seconds per epoch of training.
        test_seconds: Seconds per evaluation.
        ratio: Its training seconds divided by those of the baseline in the same repetition.
        test_accuracy: The test accuracy after its last epoch.
        system_share: The fraction of its processor time that was spent in the kernel, much of it by waiting threads.
    """

    implementation: str
    train_seconds: Spread
    test_seconds: Spread
    ratio: Spread
    test_accuracy: float
    system_share: float


def baseline(measurements: Sequence[Measurement]) -> str:
    """Return the implementation that the others are compared with: this program if it takes part, otherwise the first."""
    names = [measurement.implementation for measurement in measurements]
    return OURS if OURS in names else names[0]


def results(measurements: Sequence[Measurement]) -> list[BenchmarkResult]:
    """Return a result for each implementation, in the order of `IMPLEMENTATIONS`."""
    rounds_of: dict[str, list[Measurement]] = {name: [] for name in IMPLEMENTATIONS}
    for measurement in sorted(measurements, key=lambda measurement: measurement.repetition):
        if measurement.repetition > 0:
            rounds_of[measurement.implementation].append(measurement)
    baseline_seconds = [measurement.train_seconds for measurement in rounds_of[baseline(measurements)]]
    found = []
    for name, rounds in rounds_of.items():
        if rounds:
            seconds = [measurement.train_seconds for measurement in rounds]
            system_seconds = sum(measurement.system_seconds for measurement in rounds)
            processor_seconds = system_seconds + sum(measurement.user_seconds for measurement in rounds)
            found.append(
                BenchmarkResult(
                    implementation=name,
                    train_seconds=Spread.of(seconds),
                    test_seconds=Spread.of([measurement.test_seconds for measurement in rounds]),
                    ratio=Spread.of([one / other for one, other in zip(seconds, baseline_seconds, strict=True)]),
                    test_accuracy=rounds[-1].test_accuracy,
                    system_share=system_seconds / (processor_seconds or 1.0),
                )
            )
    return found


def table(measurements: Sequence[Measurement]) -> list[str]:
    """Return a line of headings and a line for each implementation."""
    rows = [("implementation", "seconds per epoch", f"relative to {baseline(measurements)}", "test accuracy", "system time")]
    rows += [
        (
            result.implementation,
            result.train_seconds.shown(),
            result.ratio.shown(),
            f"{result.test_accuracy:.2%}",
            f"{result.system_share:.0%}",
        )
        for result in results(measurements)
    ]
    return in_columns(rows)


def record(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Return the part of `benchmark.json` that holds the measurements."""
    return {
        "baseline": baseline(measurements),
        "results": {
            result.implementation: {
                "title": IMPLEMENTATIONS[result.implementation].title,
                "train_seconds": result.train_seconds._asdict(),
                "test_seconds": result.test_seconds._asdict(),
                "ratio": result.ratio._asdict(),
                "test_accuracy": result.test_accuracy,
                "system_share": result.system_share,
            }
            for result in results(measurements)
        },
        "measurements": [measurement._asdict() for measurement in measurements],
    }
