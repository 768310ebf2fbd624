"""Ctrl-C, SIGTERM and the end of the terminal as a wish to stop: the first is remembered, the second stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopWish:
    """Whether somebody wants the run to stop; asked after each iteration."""

    def __init__(self) -> None:
        self.is_there = False

    def __call__(self) -> bool:
        return self.is_there


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """While this lasts, the first Ctrl-C, SIGTERM or SIGHUP is a wish; a second one raises KeyboardInterrupt."""
    wish = StopWish()

    def take(_number: int, _frame: FrameType | None) -> None:
        if wish.is_there:
            raise KeyboardInterrupt
        wish.is_there = True

    taken = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        taken.append(signal.SIGHUP)
    before = {number: signal.signal(number, take) for number in taken}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
