"""Requests to stop by Ctrl-C, SIGTERM, or SIGHUP when the terminal closes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """A request to stop the run. Calling it returns True if a stop was requested."""

    def __init__(self) -> None:
        self.was_made = False

    def __call__(self) -> bool:
        return self.was_made


class _Interrupter:
    """A handler of signals that raises KeyboardInterrupt, and keeps in mind that it did.

    Attributes:
        was_called: True if a signal arrived.
    """

    def __init__(self) -> None:
        self.was_called = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.was_called = True
        raise KeyboardInterrupt


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the body as Ctrl-C does, by KeyboardInterrupt, so that it cleans up.

    A signal that is ignored, as by nohup, or has a handler keeps its action. Only the main thread can handle signals.
    """
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if is_main else ()
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: action for number, action in before.items() if action in (signal.SIG_DFL, signal.default_int_handler)}
    interrupter = _Interrupter()
    for number in before:
        signal.signal(number, interrupter)
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP in the body into a request to stop.

    Yields:
        The request.

    Raises:
        KeyboardInterrupt: A signal arrived before, within `interrupted_by_signals`; or a second one arrived. A second SIGHUP
            does not count: when a terminal closes, the kernel and the shell may each send one, and when a parent is killed, the
            kernel sends one for each of its threads.
    """
    request = StopRequest()

    def take(number: int, _frame: FrameType | None) -> None:
        if request.was_made and number != signal.SIGHUP:
            raise KeyboardInterrupt
        request.was_made = True

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        if any(isinstance(action, _Interrupter) and action.was_called for action in before.values()):
            raise KeyboardInterrupt  # again, because a library that was being imported has suppressed the first
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
