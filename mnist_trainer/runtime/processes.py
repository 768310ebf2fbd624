"""Processes that this program starts: how it starts itself again, and how a process ends with all that it has started."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any


def this_program() -> list[str]:
    """The beginning of a command that runs this program in another process, as it was found here."""
    # With -m, Python looks for modules in the current folder first. Whoever was started by the command does not.
    looks_there = sys.path[:1] in ([""], [os.getcwd()])  # noqa: PTH109 - sys.path holds text
    return [sys.executable, *([] if looks_there else ["-P"]), "-m", "mnist_trainer"]


def end_group(process: "subprocess.Popen[Any]") -> None:
    """Ends a process that leads its own group, with all of the group. What it might still tell, nobody wants."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()


def how_it_ended(code: int, messages: Iterable[str] = ()) -> str:
    """Return how a process ended, and its last message.

    Args:
        code: As `Popen.returncode`: negative for a signal.
        messages: The lines that it wrote on stderr.
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
