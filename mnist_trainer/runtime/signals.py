"""Ctrl-C, SIGTERM and the end of the terminal as a request to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """A request to stop the run. Call it to find out whether it was made."""

    def __init__(self) -> None:
        self.was_made = False

    def __call__(self) -> bool:
        return self.was_made


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Take the first Ctrl-C, SIGTERM or SIGHUP within as a request to stop; a second one raises KeyboardInterrupt."""
    request = StopRequest()

    def take(_number: int, _frame: FrameType | None) -> None:
        if request.was_made:
            raise KeyboardInterrupt
        request.was_made = True

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
