"""Processes that this program starts: their command, their end and their exit codes."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

_PR_SET_PDEATHSIG = 1


def this_program() -> list[str]:
    """Return the beginning of a command that runs this program in another process, with the same search path."""
    # With -m, Python searches for modules in the current folder first. A process of the command mnist-trainer does not.
    looks_there = sys.path[:1] in ([""], [os.getcwd()])  # noqa: PTH109 - sys.path holds text
    return [sys.executable, *([] if looks_there else ["-P"]), "-m", "mnist_trainer"]


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` for `Popen`: the process gets a signal when this process ends, even if it is killed.

    The kernel may send the signal several times. It also sends it when the thread that starts the process ends, so start the
    process in a thread that outlives it.

    Args:
        number: The signal, with its default action until the new program handles it.
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork

    def set_signal() -> None:
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)  # a handler of this process would swallow it before the program is replaced
        prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), number)

    return set_signal


def end_group(process: "subprocess.Popen[Any]") -> None:
    """End all processes of a group, and discard unread output.

    Args:
        process: The process that leads the group.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()


def how_it_ended(code: int, messages: Iterable[str] = ()) -> str:
    """Describe the end of a process, with its last message.

    Args:
        code: The exit code as in `Popen.returncode`, negative for a signal.
        messages: The lines that the process wrote to stderr.

    Returns:
        The predicate of a sentence, such as "ended with exit code 1".
    """
    lines = [line.strip() for line in messages if line.strip()]
    last = f"; its last message: {lines[-1]}" if lines else ""
    if code >= 0:
        return f"ended with exit code {code}{last}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-code}"
    return f"was ended by {name}{last}"
