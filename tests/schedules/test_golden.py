"""Comparison of the curves with the frameworks that they are named after, by tables that `origins/golden.py` made.

The test does not need the frameworks. Where our definition differs on purpose, the table has the reason, and the test asserts
that the rates do differ.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import load_script

from mnist_trainer import schedules
from mnist_trainer.schedules import CURVES, build_schedule
from mnist_trainer.schedules.dictionary import Translation, find_translations, translations
from mnist_trainer.schedules.named import read_schedule
from mnist_trainer.schedules.schedule import AnySchedule

MAKE_DOCS = load_script("make_docs")
GOLDEN = Path(__file__).parent / "golden"
TABLES: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(GOLDEN.glob("*.json"))}

# The frameworks computed in double precision. Some of them compute each rate from the one before, up to a thousand times. An
# exact zero in one may be a rounding error in the other.
RELATIVE_TOLERANCE = 1e-12
ABSOLUTE_TOLERANCE = 1e-15


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


WITHOUT_ORIGIN = {"Noise", "REX"}
"""Curves that no framework here has, or, in the case of Noise, with other draws."""


def test_every_curve_has_a_case() -> None:
    found = {name for table in TABLES.values() for case in table["cases"] for name in curves_in(made(case["ours"]))}
    assert found == {cls.__name__ for cls in CURVES} - WITHOUT_ORIGIN


def test_a_case_covers_most_of_a_curve() -> None:
    for table in TABLES.values():
        for case in table["cases"]:
            iterations = [iteration for iteration, _ in case["values"]]
            assert iterations == sorted(set(iterations))
            assert iterations[0] == 1
            assert len(iterations) >= 40 or len(iterations) == iterations[-1], case["origin"]


# --- the dictionary


def test_the_dictionary_is_made_from_the_tables() -> None:
    assert MAKE_DOCS.DICTIONARY.read_text("utf-8") == MAKE_DOCS.dictionary_text(), "run python scripts/make_docs.py tables"


@pytest.mark.parametrize("translation", translations(), ids=lambda found: f"{found.framework}-{found.names[0]}")
def test_a_translation_has_a_case_and_is_an_expression_of_the_command_line(translation: Translation) -> None:
    table = next(table for table in TABLES.values() if table["framework"] == translation.framework)
    schedule = made(translation.ours)
    assert any(
        case.get("shown", case["origin"]) == translation.call and made(case["ours"]) == schedule for case in table["cases"]
    )
    settings = read_schedule(translation.ours)
    base_lr = settings.pop("base_lr", None)
    assert build_schedule(settings, None, base_lr) == schedule


@pytest.mark.parametrize(
    "name",
    [
        *("StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "CosineAnnealingLR", "PolynomialLR"),
        *("ReduceLROnPlateau", "SequentialLR", "LambdaLR", "CyclicLR", "CosineAnnealingWarmRestarts", "OneCycleLR"),
        *("StepLRScheduler", "WSDLRScheduler", "warmup_cosine_decay_schedule", "PiecewiseConstantDecay"),
        *("get_cosine_schedule_with_warmup", "FactorScheduler", "LRSequential", "fit_one_cycle", "tri_stage"),
    ],
)
def test_the_dictionary_has_the_names_that_people_know(name: str) -> None:
    assert find_translations(name)


@pytest.mark.parametrize("framework", TABLES)
def test_the_dictionary_has_every_schedule_of_a_framework(framework: str) -> None:
    listed = {name for found in translations() for name in found.names if found.framework == TABLES[framework]["framework"]}
    called = {name for case in TABLES[framework]["cases"] for name in case.get("names") or [MAKE_DOCS._name_of(case["origin"])]}
    assert called == listed
