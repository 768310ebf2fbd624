"""What a test may not leave behind: processes, threads and open files."""

import gc
import multiprocessing
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# Fonts that matplotlib keeps open, the kernel's files, and what tqdm starts once and keeps.
_KEPT = re.compile(r"file (.*\.ttf|/proc/.*|/sys/.*|/dev/.*|anon_inode:.*)|thread .*TMonitor.*")

SECONDS_TO_END = 20.0
"""What a test has ended may need so long to be gone."""


def held() -> set[str]:
    """Return what this process holds now: child processes, threads and open files."""
    return {each for each in _everything() if not _KEPT.fullmatch(each)}


def _everything() -> Iterator[str]:
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text(encoding="ascii").split()
        except OSError:  # a thread that has just ended, or a kernel without this list
            continue
        yield from (f"process {child} {_command_of(child)}" for child in children)
    yield from (f"thread {thread.ident} {thread!r}" for thread in threading.enumerate())
    for opened in Path("/proc/self/fd").iterdir():
        try:
            yield f"file {opened.readlink()}"
        except OSError:  # the one through which the list was read
            continue


def _command_of(process_id: str) -> str:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
    except OSError:
        return ""


def left_since(before: set[str]) -> set[str]:
    """Return what is held now and was not before, after it has had time to go."""
    until = time.monotonic() + SECONDS_TO_END
    while (left := held() - before) and time.monotonic() < until:
        gc.collect()  # what only a circle of references holds is not left behind
        multiprocessing.active_children()  # which takes note of workers that a loader has ended and not waited for
        time.sleep(0.05)
    return left
