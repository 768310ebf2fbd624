"""Watches tests: the processes that they start, their writes into the checkout, and what they leave behind."""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from programs import REPOSITORY, children_of

# Fonts and a database that matplotlib and onnxruntime keep open, the kernel's files, and what tqdm starts once and keeps.
_KEPT = re.compile(r"file (.*\.ttf|.*/\.onnxruntime/.*|/proc/.*|/sys/.*|/dev/(?!shm/).*|anon_inode:.*)|thread .*TMonitor.*")

# Caches of Python and of the tools below the checkout.
_NOT_OURS = re.compile(r"(^|/)(__pycache__|\.(venv|git|hypothesis|(pytest|mypy|ruff)_cache))(/|$)|^\.coverage")

# The audit events that change a folder → which argument is the changed path; the last one is the open folder it is relative to.
_CHANGES = {"os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1}

_PR_SET_CHILD_SUBREAPER = 36

SECONDS_TO_END = 20.0
"""How long what a test has ended may take to disappear."""


def adopt_orphans() -> None:
    """Make the processes whose parent has ended children of this one, and not of the first process of the machine."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def held() -> set[str]:
    """Return what this process holds now: child processes, threads and open files."""
    return {item for item in _everything() if not _KEPT.fullmatch(item)}


def _everything() -> Iterator[str]:
    yield from (f"process {child} {command}" for child in children_of(os.getpid()) if (command := _command_of(child)))
    yield from (f"thread {thread.ident} {thread.name} {type(thread).__name__}" for thread in threading.enumerate())
    for opened in Path("/proc/self/fd").iterdir():
        try:
            yield f"file {opened.readlink()}"
        except OSError:  # the one through which the list was read
            continue


def _command_of(process_id: int) -> str:
    # It is empty when the process has ended, whether or not it was waited for.
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
    except OSError:
        return ""


def left_since(before: set[str]) -> set[str]:
    """Return what is held now and was not before, after it has had time to go."""
    until = time.monotonic() + SECONDS_TO_END
    while (left := held() - before) and time.monotonic() < until:
        gc.collect()  # what only a circle of references holds is not left behind
        multiprocessing.active_children()  # reaps the ended workers of a pool
        time.sleep(0.05)
    return left


class Started:
    """Notes the processes that a test or a shared fixture starts, and the files that it writes into the checkout."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._process = False
        self._fixtures: set[str] = set()

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of an audit event (see `sys.addaudithook`)."""
        if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"):
            # numpy starts the one when its tests' tools are imported, `platform` the other when it is first asked.
            self._process |= arguments[:1] not in (("lscpu",), ("uname",))
        elif event in _CHANGES:
            name, folder = arguments[_CHANGES[event]], arguments[-1]
            self._note_file(name if folder == -1 else Path(f"/proc/self/fd/{folder}").readlink() / os.fsdecode(name))
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self._note_file(arguments[0])

    def _note_file(self, name: object) -> None:
        if isinstance(name, str | os.PathLike):
            path = Path(os.path.abspath(name))  # noqa: PTH100 - resolve() looks at the disk
            if path.is_relative_to(REPOSITORY) and not _NOT_OURS.search(str(path.relative_to(REPOSITORY))):
                self.files.add(str(path))

    def clear(self) -> None:
        self.files.clear()
        self._process = False

    @contextlib.contextmanager
    def by_fixture(self, name: str) -> Iterator[None]:
        """Remember whether a fixture starts a process: it may be one of the module, which only its first test sets up."""
        before, self._process = self._process, False
        try:
            yield
        finally:
            if self._process:
                self._fixtures.add(name)
            self._process = before

    def a_process(self, fixtures: Iterable[str]) -> bool:
        """Return whether the test, or one of its fixtures, has started a process."""
        return self._process or not self._fixtures.isdisjoint(fixtures)
