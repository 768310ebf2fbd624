"""Shared parts of the tests of settings: the tutorial's run, nested tables, and checks of errors."""

from collections.abc import Sequence
from typing import Any

import pytest
from command_line import assert_names

from mnist_trainer.fields import FieldError
from mnist_trainer.schedules import RunLength, SettingsError, build_schedule

TUTORIAL = RunLength(iterations_per_epoch=938, epochs=10)

Problems = Sequence[tuple[str, ...]]
"""The key of each problem, and the words that its message must have."""


def assert_problems(settings: Any, learning_rate: float | None, problems: Problems) -> str:
    """Assert that these settings have exactly these problems; return the messages, one per line."""
    with pytest.raises(SettingsError) as caught:
        build_schedule(settings, TUTORIAL, learning_rate)
    return assert_error_names(caught.value, problems)


def assert_error_names(error: SettingsError, problems: Problems) -> str:
    """Assert that an error has exactly these problems; return its messages, one per line."""
    messages = assert_found(error.problems, problems)
    assert all(message in str(error) for message in messages.splitlines())
    return messages


def assert_found(found: Sequence[FieldError], problems: Problems) -> str:
    """Assert that errors are exactly these problems, in any order; return the messages, one per line."""
    messages = list(map(str, found))
    assert sorted(error.field for error in found) == sorted(key for key, *_ in problems), messages
    for error, words in zip(sorted(found, key=lambda error: error.field), sorted(problems), strict=True):
        assert_names(str(error), *words)
    return "\n".join(messages)


def around(curve: Any, **others: Any) -> dict[str, Any]:
    return {"name": "Warmup", "warmup_steps": 5, "curve": curve} | others


def row(*curves: Any) -> dict[str, Any]:
    return {"name": "Sequential", "boundaries": list(range(1, len(curves))), "curves": list(curves)}
