"""The group of a single process."""

import pytest

from mnist_trainer.distributed.process_group import SINGLE_PROCESS


def test_the_settings_of_a_single_process_are_not_compared() -> None:
    SINGLE_PROCESS.require_same(lambda: pytest.fail("they take minutes in a long run"))
