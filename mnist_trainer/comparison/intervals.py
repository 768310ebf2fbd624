"""Statistics over seeds: mean and standard deviation, and the interval of a paired difference. Standard library only."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """What several runs came to. standard_deviation: of the sample (n − 1); None for a single run."""

    mean: float
    standard_deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


class PairedDifference(NamedTuple):
    """By how much one thing is above another, over pairs of runs that began alike.

    half_width: of the interval around `mean` that holds the true difference in 95 of 100 such experiments; None for one pair.
    """

    mean: float
    half_width: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float], others: Sequence[float]) -> "PairedDifference":
        """Of values − others, pair by pair; at least one pair. The interval is Student's: t(n − 1) · s / √n."""
        differences = [one - other for one, other in zip(values, others, strict=True)]
        mean, deviation, n = Estimate.of(differences)
        return cls(mean, None if deviation is None else students_t(n - 1) * deviation / math.sqrt(n), n)

    @property
    def is_seen(self) -> bool:
        """Whether the interval is there and leaves 0 out."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def students_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t that |T| stays below with this probability, for T of Student's distribution with so many degrees of freedom.

    For whole degrees the distribution is a finite sum: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3
    and 26.7.4, with t = √degrees · tan θ. Bisected to the last bits of θ.
    """
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(f"degrees = {degrees} is not ≥ 1, or confidence = {confidence} not between 0 and 1")
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
