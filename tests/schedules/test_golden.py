"""Comparison of the curves with the frameworks that they are named after, by tables that `golden/make_tables.py` made.

The test does not need the frameworks. Where our definition differs on purpose, the table has the reason, and the test asserts
that the rates do differ.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_trainer import schedules
from mnist_trainer.schedules import CURVES
from mnist_trainer.schedules.schedule import AnySchedule

GOLDEN = Path(__file__).parent / "golden"
TABLES: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(GOLDEN.glob("*.json"))}

# The frameworks computed in double precision. Some of them compute each rate from the one before, up to a thousand times. An
# exact zero in one may be a rounding error in the other.
RELATIVE_TOLERANCE = 1e-12
ABSOLUTE_TOLERANCE = 1e-15

FRAMEWORKS_OF = {
    "Constant": {"optax", "paddle", "pytorch", "transformers"},
    "Factor": {"keras", "optax", "paddle", "pytorch", "timm"},
    "MultiFactor": {"keras", "optax", "paddle", "pytorch", "timm"},
    "Piecewise": {"keras", "optax", "paddle", "pytorch"},
    "Poly": {"keras", "optax", "paddle", "pytorch", "timm", "transformers"},
    "Cosine": {"keras", "optax", "paddle", "pytorch", "timm", "transformers"},
    "CosineAnnealing": {"keras", "optax", "paddle", "pytorch", "timm", "transformers"},
    "Linear": {"keras", "optax", "paddle", "pytorch", "timm", "transformers"},
    "PiecewiseLinear": {"optax", "timm"},
    "Tanh": {"timm"},
    "Exponential": {"keras", "optax", "paddle", "pytorch"},
    "NaturalExponential": {"paddle"},
    "InverseTime": {"keras", "paddle"},
    "InverseSqrt": {"timm", "transformers"},
    "Noam": {"paddle"},
    "Triangular": {"paddle", "pytorch"},
    "Triangular2": {"paddle", "pytorch"},
    "ExpRange": {"paddle", "pytorch"},
    "WarmRestarts": {"keras", "optax", "paddle", "pytorch", "timm", "transformers"},
    "Cyclical": {"paddle", "pytorch"},
    "OneCycle": {"optax"},
    "OneCycleLR": {"optax", "paddle", "pytorch"},
    "OneCycleMomentum": {"pytorch"},
    "WarmupStableDecay": {"optax", "pytorch", "timm", "transformers"},
    "FlatCosine": {"optax", "pytorch", "transformers"},
    "Warmup": {"keras", "optax", "paddle", "pytorch", "timm", "transformers"},
    "Cooldown": {"optax", "pytorch"},
    "Sequential": {"optax", "pytorch"},
    "Product": {"pytorch", "timm"},
    "Repeat": {"pytorch", "timm", "transformers"},
    "Clip": {"optax"},
    "Scale": {"timm"},
    "Noise": set(),  # timm has it, but draws other noise
    "Plateau": {"paddle", "pytorch"},
}
"""Curve → the frameworks that have it."""


def made(expression: str) -> AnySchedule:
    schedule = eval(expression, dict(vars(schedules)))
    assert isinstance(schedule, AnySchedule)
    return schedule


def our_rates(case: dict[str, Any]) -> list[float]:
    schedule = made(case["ours"])
    if "metrics" not in case:
        return [schedule(iteration) for iteration, _ in case["values"]]
    rates = []
    for epoch, metric in enumerate(case["metrics"], start=1):
        schedule = schedule.observe(loss=metric, accuracy=metric)
        rates.append(schedule(epoch))
    return rates


def curves_in(schedule: AnySchedule) -> Iterator[str]:
    yield type(schedule).__name__
    for _, inner in schedule.inner():
        yield from curves_in(inner)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{framework}-{number}-{case['origin']}")
        for framework, table in TABLES.items()
        for number, case in enumerate(table["cases"])
    ],
)
def test_a_curve_equals_its_origin_in_a_framework(case: dict[str, Any]) -> None:
    differing = {iteration for where in case.get("differs", {}).values() for iteration in where}
    surprises = {}
    for (iteration, value), rate in zip(case["values"], our_rates(case), strict=True):
        agree = math.isclose(rate, value, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)
        if agree == (iteration in differing):
            surprises[iteration] = f"ours {rate!r}, theirs {value!r}"
    assert surprises == {}, f"{case['ours']} and {case['origin']}"


def test_the_list_of_frameworks_has_every_curve() -> None:
    assert list(FRAMEWORKS_OF) == [cls.__name__ for cls in CURVES]


@pytest.mark.parametrize("framework", ["keras", "optax", "paddle", "pytorch", "timm", "transformers"])
def test_the_table_of_a_framework_has_its_curves(framework: str) -> None:
    found = {name for case in TABLES[framework]["cases"] for name in curves_in(made(case["ours"]))}
    assert found == {curve for curve, frameworks in FRAMEWORKS_OF.items() if framework in frameworks}


def test_a_case_covers_most_of_a_curve() -> None:
    for table in TABLES.values():
        for case in table["cases"]:
            iterations = [iteration for iteration, _ in case["values"]]
            assert iterations == sorted(set(iterations))
            assert iterations[0] == 1
            assert len(iterations) >= 40 or len(iterations) == iterations[-1], case["origin"]
