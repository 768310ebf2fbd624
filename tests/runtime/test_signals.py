"""Signals interrupt a command. In a run, the first is a request to stop, and a second one stops immediately."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mnist_trainer.runtime.signals import interrupted_by_signals, stop_request

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


def test_a_second_hangup_does_not_prevent_saving() -> None:
    with stop_request() as request:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert request()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_process_started_by_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_request() as request:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not request()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_that_would_end_the_process_interrupts(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt), interrupted_by_signals():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_request_to_stop_takes_precedence_over_the_interruption() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with interrupted_by_signals(), stop_request() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("action", [signal.SIG_IGN, fail])
def test_other_actions_of_a_signal_are_kept(action: signal.Handlers) -> None:
    signal.signal(signal.SIGHUP, action)
    with interrupted_by_signals():
        assert signal.getsignal(signal.SIGHUP) == action


def test_a_thread_changes_no_action() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    found = []

    def look() -> None:
        with interrupted_by_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_that_an_import_has_suppressed_is_raised_again(number: signal.Signals) -> None:
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    with interrupted_by_signals():
        with suppress(KeyboardInterrupt):  # as some libraries do, with a bare except
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt), stop_request():
            pytest.fail("the body must not begin")
    with stop_request() as request:
        assert not request()
