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


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the body as Ctrl-C does, by KeyboardInterrupt, so that it cleans up.

    A signal that is ignored, as by nohup, or has a handler keeps its action. Only the main thread can handle signals.
    """
    is_main = threading.current_thread() is threading.main_thread()
    deadly = (signal.SIGTERM, signal.SIGHUP) if is_main else ()
    numbers = [number for number in deadly if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP in the body into a request to stop.

    Yields:
        The request.

    Raises:
        KeyboardInterrupt: A second signal arrived. A second SIGHUP does not count: when a terminal closes, the kernel and the
            shell may each send one, and when a parent is killed, the kernel sends one for each of its threads.
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
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
