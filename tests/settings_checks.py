"""What the tests of settings share: the tutorial's run, tables that hold others, and what is said of mistakes in them."""

from typing import Any

import pytest

from mnist_trainer.schedules import RunLength, SettingsError, build_schedule

TUTORIAL = RunLength(iterations_per_epoch=938, epochs=10)


def assert_problems(settings: Any, learning_rate: float | None, problems: list[tuple[str, str]]) -> None:
    """That these settings have problems with these keys, in whatever order, whose sentences have these parts."""
    with pytest.raises(SettingsError) as caught:
        build_schedule(settings, TUTORIAL, learning_rate)
    found = sorted(caught.value.problems)
    assert [key for key, _ in found] == [key for key, _ in sorted(problems)], found
    for (_, sentence), (_, part) in zip(found, sorted(problems), strict=True):
        assert part in sentence
    assert all(f"{key}: {sentence}" in str(caught.value) for key, sentence in found)


def around(curve: Any, **others: Any) -> dict[str, Any]:
    return {"name": "Warmup", "warmup_steps": 5, "curve": curve} | others


def row(*curves: Any) -> dict[str, Any]:
    return {"name": "Sequential", "boundaries": list(range(1, len(curves))), "curves": list(curves)}
