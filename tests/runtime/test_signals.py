"""A first signal is a wish, a second one stops at once, and what was there before comes back."""

import os
import signal
from collections.abc import Iterator

import pytest

from mnist_trainer.runtime.signals import stop_wish

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def fail(number: int, _frame: object) -> None:
    pytest.fail(f"{signal.Signals(number).name} was left to the handler from before")


@pytest.fixture(autouse=True)
def _none_is_ignored() -> Iterator[None]:
    """Handle the signals here, also where `nohup`, or a shell that starts the tests in the background, ignores some."""
    before = {number: signal.signal(number, fail) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_first_is_a_wish_and_the_second_stops(number: signal.Signals) -> None:
    with stop_wish() as wish:
        assert not wish()
        os.kill(os.getpid(), number)
        assert wish()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(each) for each in SIGNALS] == [fail, fail, fail]


def test_who_was_started_by_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_wish() as wish:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not wish()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
