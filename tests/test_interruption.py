"""A first signal is a wish, a second one stops at once, and what was there before comes back."""

import os
import signal

import pytest

from mnist_trainer.interruption import stop_wish

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_first_is_a_wish_and_the_second_stops(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_wish() as wish:
        assert not wish()
        os.kill(os.getpid(), number)
        assert wish()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_who_was_started_by_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_wish() as wish:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not wish()
    finally:
        signal.signal(signal.SIGHUP, before)
