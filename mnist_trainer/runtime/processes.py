"""Processes that this program starts: their command, their end and their exit codes."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any


def this_program() -> list[str]:
    """Return the beginning of a command that runs this program in another process, with the same search path."""
    # With -m, Python searches for modules in the current folder first. A process of the command mnist-trainer does not.
    looks_there = sys.path[:1] in ([""], [os.getcwd()])  # noqa: PTH109 - sys.path holds text
    return [sys.executable, *([] if looks_there else ["-P"]), "-m", "mnist_trainer"]


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
