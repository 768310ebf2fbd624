"""The first signal is a request to stop, a second one stops immediately, and the previous handlers are restored."""

import os
import signal
from collections.abc import Iterator

import pytest

from mnist_trainer.runtime.signals import stop_request

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def fail(number: int, _frame: object) -> None:
    pytest.fail(f"{signal.Signals(number).name} went to the previous handler")


@pytest.fixture(autouse=True)
def _none_is_ignored() -> Iterator[None]:
    """Handle the signals, even if `nohup` or a shell that starts the tests in the background has some of them ignored."""
    before = {number: signal.signal(number, fail) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_the_first_is_a_request_and_the_second_stops(number: signal.Signals) -> None:
    with stop_request() as request:
        assert not request()
        os.kill(os.getpid(), number)
        assert request()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(signum) for signum in SIGNALS] == [fail, fail, fail]


def test_a_process_started_by_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_request() as request:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not request()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
