"""Requests to stop by Ctrl-C, SIGTERM, or SIGHUP when the terminal closes."""

import signal
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
def stop_request() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP in the body into a request to stop.

    Yields:
        The request.

    Raises:
        KeyboardInterrupt: A second signal arrived.
    """
    request = StopRequest()

    def take(_number: int, _frame: FrameType | None) -> None:
        if request.was_made:
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
