"""Tracks the processes that tests start, the files that they write to the checkout, and anything that they leave behind."""

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

# Fonts that matplotlib keeps open, a database that onnxruntime keeps open, files of the kernel, and the monitor thread of tqdm.
_KEPT = re.compile(r"file (.*\.ttf|.*/\.onnxruntime/.*|/proc/.*|/sys/.*|/dev/(?!shm/).*|anon_inode:.*)|thread .*TMonitor.*")

# Caches of Python and of development tools in the checkout.
_NOT_OURS = re.compile(r"(^|/)(__pycache__|\.(venv|git|hypothesis|(pytest|mypy|ruff)_cache))(/|$)|^\.coverage")

# Audit event that changes a folder → index of the argument with the changed path. The last argument of each event is the
# descriptor of the folder that the path is relative to, or -1.
_CHANGES = {"os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1}

_PR_SET_CHILD_SUBREAPER = 36

SECONDS_TO_END = 20.0
"""Maximum time for processes, threads and files to disappear after a test has ended them."""


def adopt_orphans() -> None:
    """Make this process, instead of the init process, adopt descendants whose parent has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def held() -> set[str]:
    """Return descriptions of the child processes, threads and open files of this process."""
    return {item for item in _everything() if not _KEPT.fullmatch(item)}


def _everything() -> Iterator[str]:
    yield from (f"process {child} {command}" for child in children_of(os.getpid()) if (command := _command_of(child)))
    yield from (f"thread {thread.ident} {thread.name} {type(thread).__name__}" for thread in threading.enumerate())
    for opened in Path("/proc/self/fd").iterdir():
        try:
            yield f"file {opened.readlink()}"
        except OSError:  # the descriptor that was used to list the folder
            continue


def _command_of(process_id: int) -> str:
    # The result is empty if the process has ended: a zombie has an empty command line, and a reaped process has no file.
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
    except OSError:
        return ""


def left_since(before: set[str]) -> set[str]:
    """Return the new items of `held()` since `before`, after waiting for them to disappear."""
    until = time.monotonic() + SECONDS_TO_END
    while (left := held() - before) and time.monotonic() < until:
        gc.collect()  # objects in a reference cycle do not count as left behind
        multiprocessing.active_children()  # reaps pool workers that have ended
        time.sleep(0.05)
    return left


def changed_path(event: str, arguments: tuple[Any, ...]) -> Path | None:
    """Return the path that is opened for writing, made, renamed or removed at an audit event (see `sys.addaudithook`).

    The result is None for all other events, and for `os.open` with a path that is relative to an open folder.
    """
    name: object = None
    if event in _CHANGES:
        name, folder = arguments[_CHANGES[event]], arguments[-1]
        if folder != -1:
            name = Path(f"/proc/self/fd/{folder}").readlink() / os.fsdecode(arguments[_CHANGES[event]])
    elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        path, mode = arguments[:2]
        # os.open has no mode. Its path may be relative to a folder that the event does not have.
        if mode is not None or os.path.isabs(os.fsdecode(path)):  # noqa: PTH117
            name = path
    if not isinstance(name, str | bytes | os.PathLike):
        return None
    path = Path(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100 - resolve() accesses the disk
    descriptor = re.fullmatch(r"(/proc/self/fd/\d+)/(.+)", str(path))
    return Path(descriptor[1]).readlink() / descriptor[2] if descriptor else path


class Started:
    """Records the processes that a test or a shared fixture starts, and the files that it writes to the checkout.

    Attributes:
        files: Paths in the checkout that were written since the last `clear`.
    """

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._process = False
        self._fixtures: set[str] = set()

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record an audit event (see `sys.addaudithook`)."""
        if event in ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"):
            # The import of numpy.testing runs lscpu, and the first use of `platform` runs uname.
            self._process |= arguments[:1] not in (("lscpu",), ("uname",))
        path = changed_path(event, arguments)
        if path and path.is_relative_to(REPOSITORY) and not _NOT_OURS.search(str(path.relative_to(REPOSITORY))):
            self.files.add(str(path))

    def clear(self) -> None:
        self.files.clear()
        self._process = False

    @contextlib.contextmanager
    def by_fixture(self, name: str) -> Iterator[None]:
        """Remember whether a fixture starts a process, because only the first test of a module sets up a shared fixture."""
        before, self._process = self._process, False
        try:
            yield
        finally:
            if self._process:
                self._fixtures.add(name)
            self._process = before

    def has_process(self, fixtures: Iterable[str]) -> bool:
        """Return whether the test or one of its fixtures has started a process."""
        return self._process or not self._fixtures.isdisjoint(fixtures)
