"""Statistics over seeds: mean and standard deviation, and the interval of a paired difference. Standard library only."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """The mean over several runs.

    Attributes:
        mean: The mean.
        standard_deviation: The sample standard deviation (divisor n − 1); None for a single run.
        n: The number of runs.
    """

    mean: float
    standard_deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Return the estimate of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def shown(self, times: float, digits: int) -> str:
        """Return the mean and the standard deviation, both multiplied by `times`."""
        mean = f"{times * self.mean:.{digits}f}"
        return mean if self.standard_deviation is None else f"{mean} ± {times * self.standard_deviation:.{digits}f}"


class PairedDifference(NamedTuple):
    """The mean difference over pairs of runs that start from the same parameters and have the same batches.

    Attributes:
        mean: The mean difference.
        half_width: Half the width of the 95 % confidence interval around `mean`; None for a single pair.
        n: The number of pairs.
    """

    mean: float
    half_width: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float], others: Sequence[float]) -> "PairedDifference":
        """Return the mean of values − others over at least one pair, with Student's interval: ± t(n − 1) · s / √n."""
        differences = [one - other for one, other in zip(values, others, strict=True)]
        mean, deviation, n = Estimate.of(differences)
        return cls(mean, None if deviation is None else students_t(n - 1) * deviation / math.sqrt(n), n)

    @property
    def excludes_zero(self) -> bool:
        """True if there is an interval and it does not contain 0."""
        return self.half_width is not None and abs(self.mean) > self.half_width

    def shown(self) -> str:
        """Return the mean difference and its interval in percentage points."""
        mean = f"{100 * self.mean:+.2f}"
        return mean if self.half_width is None else f"{mean} ± {100 * self.half_width:.2f}"


def students_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t distribution: the t with P(|T| < t) = confidence.

    For a whole number of degrees the distribution is a finite sum: Abramowitz and Stegun, Handbook of Mathematical Functions,
    26.7.3 and 26.7.4, with t = √degrees · tan θ. Bisection finds θ to the last bit.

    Args:
        degrees: Degrees of freedom, at least 1.
        confidence: The probability, between 0 and 1.

    Raises:
        ValueError: An argument is out of range.
    """
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(f"degrees = {degrees} must be at least 1, and confidence = {confidence} must be between 0 and 1")
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _probability_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _probability_within(angle: float, degrees: int) -> float:
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for number in range(2 + odd, degrees, 2):
        term *= cosine**2 * (number - 1) / number
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
