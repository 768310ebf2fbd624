"""Opens, creates, replaces and removes files that may come from someone else, alone or in a folder.

Every access to a folder is relative to the opened folder and follows no symbolic link. Only regular files and real folders are
read or changed, no file is read whole without a limit, and temporary names cannot be guessed. Standard library only.
"""

import errno
import fcntl
import json
import math
import os
import re
import secrets
import stat
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, BinaryIO

from mnist_trainer.errors import RequestError

MAX_JSON_BYTES = 4 * 2**20
"""Maximum size of a JSON file."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

# Names of files and folders that are not complete yet; the group is the final name.
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{16}\.partial")

_COPIED_BYTES = 2**20


class Folder:
    """A folder, opened for each access.

    The user has named the folder itself, so links in its path are followed. Links within it are not.

    Args:
        path: The path of the folder.
        parent: The folder that contains it, if the user has not named it. It must then be a real folder, not a link.

    Attributes:
        path: The path of the folder.
    """

    def __init__(self, path: Path, parent: "Folder | None" = None) -> None:
        self.path = path
        self._parent = parent
        self._lock: weakref.finalize[..., Folder] | None = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def subfolder(self, name: str) -> "Folder":
        """Return a folder within this one. It need not exist."""
        return Folder(self.path / name, self)

    def make(self) -> None:
        """Make the folder if it does not exist. Its parent must exist."""
        with suppress(FileExistsError):
            self._make_new()

    def _make_new(self) -> None:
        with _named(self.path):
            if self._parent is None:
                self.path.mkdir()
                return
            with self._parent.opened() as parent:
                os.mkdir(self.path.name, dir_fd=parent)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the folder, and yield its descriptor.

        Raises:
            OSError: It does not exist, or is not a folder.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with _named(self.path):
            if self._parent is None:
                descriptor = os.open(self.path, flags)
            else:
                with self._parent.opened() as parent:
                    _require_kind_of_entry(self.path, parent, stat.S_IFDIR)
                    descriptor = os.open(self.path.name, flags | os.O_NOFOLLOW, dir_fd=parent)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def lock(self) -> None:
        """Prevent other processes from locking this folder until `unlock` or the end of this process.

        Raises:
            RequestError: Another process has locked it.
        """
        if self._lock is not None:
            return
        with self.opened() as folder:
            lock = os.dup(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends for any reason
        except BaseException as error:
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            raise RequestError(f"{self.path}: another process is writing to this folder; wait until it ends") from error
        self._lock = weakref.finalize(self, os.close, lock)  # also released with this object
        _locked.add(self)

    def unlock(self) -> None:
        """Allow other processes to lock this folder."""
        if self._lock is not None:
            self._lock()
            self._lock = None
            _locked.discard(self)

    # --- looking

    def names(self) -> list[str]:
        """Return the names of all entries, sorted; [] if there is no such folder."""
        try:
            with self.opened() as folder:
                return sorted(os.listdir(folder))  # noqa: PTH208 - of a descriptor
        except (FileNotFoundError, NotADirectoryError):
            return []

    def kind(self, name: str) -> str | None:
        """Return the kind of an entry: "a file", "a folder", "a symbolic link", …; None if there is none."""
        with suppress(FileNotFoundError, NotADirectoryError), self.opened() as folder:
            return _kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        return None

    def has_file(self, name: str) -> bool:
        """Return True if there is a regular file of this name."""
        return self.kind(name) == "a file"

    def has_folder(self, name: str) -> bool:
        """Return True if there is a real folder of this name."""
        return self.kind(name) == "a folder"

    # --- reading

    @contextmanager
    def reading(self, name: str, max_bytes: int | None = None) -> Iterator[BufferedReader]:
        """Open a regular file for reading, and yield its stream.

        Args:
            name: The name of the file.
            max_bytes: The maximum size of the file; None for any size.

        Raises:
            OSError: It does not exist, is not a regular file, is too large, or cannot be read. The error has its path and a
                reason.
        """
        path = self.path / name
        with _named(path), self.opened() as folder:
            _require_kind_of_entry(path, folder)
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as stream:
            _require_size(stream, path, max_bytes)
            yield stream

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the content of a file; see `reading`."""
        with self.reading(name, max_bytes) as stream:
            return read_limited(stream, self.path / name, max_bytes)

    def read_json(self, name: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
        """Return the object in a JSON file.

        Raises:
            RequestError: The file cannot be read, or does not hold an object. Infinity and NaN are not JSON.
        """
        try:
            content = parse_json(self.read(name, max_bytes))
        except OSError as error:
            raise RequestError(f"{self / name}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise RequestError(f"{self / name}: is damaged (it is not valid JSON)") from error
        if not isinstance(content, dict):
            raise RequestError(f"{self / name}: is damaged (it does not hold a JSON object)")
        return content

    # --- writing

    @contextmanager
    def replacing(self, name: str, copy: str | None = None) -> Iterator[BinaryIO]:
        """Write a file under a temporary name, then rename it, so that the file is never incomplete.

        Args:
            name: The final name of the file. An existing file or link of this name is replaced, not written to.
            copy: A free name for the existing entry, which is then kept; None if there is none, or to lose it.

        Yields:
            The stream to write the content to.
        """
        path, temporary = self.path / name, _unfinished(name)
        with self.opened() as folder:
            with _named(path), _created(temporary, folder) as stream:
                yield stream
                _flush(stream)  # otherwise the name may reach the disk before the content
                if copy is not None:
                    os.rename(name, copy, src_dir_fd=folder, dst_dir_fd=folder)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            self._sync(folder)

    def append(self, name: str, content: bytes) -> None:
        """Append to a file, which is created if it does not exist."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        path = self.path / name
        with _named(path), self.opened() as folder:
            _require_kind_of_entry(path, folder)
            with os.fdopen(os.open(name, flags, 0o666, dir_fd=folder), "ab") as stream:
                stream.write(content)

    def truncate(self, name: str, length: int) -> None:
        """Replace a file by its first `length` bytes; remove it if `length` is 0.

        The bytes are copied to a new file, because another folder may have a hard link to the present one.
        """
        if not length:
            self.remove(name)
            return
        with self.reading(name) as stream, self.replacing(name) as copy:
            for piece in pieces(stream, length):
                copy.write(piece)

    def remove(self, name: str) -> None:
        """Remove a file or a link, if it exists. The target of a link is kept."""
        with suppress(FileNotFoundError), _named(self.path / name), self.opened() as folder:
            os.unlink(name, dir_fd=folder)

    def write_folder(self, name: str, contents: Mapping[str, bytes]) -> None:
        """Write a folder of files under a temporary name, then rename it, so that the folder is never incomplete.

        Args:
            name: The final name of the folder. There must be no entry of this name.
            contents: Name → content of its files.
        """
        path = self.path / name
        with self.opened() as folder:
            with self.draft_folder(name, contents) as draft:
                with draft.opened() as opened:
                    for file, content in contents.items():
                        with _named(path / file), _created(file, opened) as stream:
                            stream.write(content)
                            _flush(stream)
                    draft._sync(opened)
                with _named(path):
                    os.rename(draft.path.name, name, src_dir_fd=folder, dst_dir_fd=folder)
            self._sync(folder)

    @contextmanager
    def draft_folder(self, name: str, files: Collection[str]) -> Iterator["Folder"]:
        """Make a temporary folder, which is locked, and remove it afterwards unless it was renamed.

        Args:
            name: The name in its name; see `remove_unfinished`.
            files: The names of the files that may be in it.

        Yields:
            The folder.
        """
        draft = self.subfolder(_unfinished(name))
        draft._make_new()
        try:
            draft.lock()
            yield draft
        finally:
            self.remove_folder(draft.path.name, files)
            draft.unlock()

    def holds_only(self, name: str, files: Collection[str]) -> bool:
        """Return True if there is a real folder of this name, and all that it contains are regular files with these names."""
        folder = self.subfolder(name)
        return self.has_folder(name) and all(entry in files and folder.has_file(entry) for entry in folder.names())

    def remove_folder(self, name: str, files: Collection[str]) -> None:
        """Remove a folder if it holds only files with these names; otherwise keep it. Errors are ignored."""
        with suppress(OSError):
            if self.holds_only(name, files):
                folder = self.subfolder(name)
                for entry in folder.names():
                    folder.remove(entry)
                with self.opened() as opened:
                    os.rmdir(name, dir_fd=opened)

    def remove_unfinished(self, is_own: Callable[[str], bool], files: Collection[str] = ()) -> None:
        """Remove temporary files and folders of a process that was killed. Lock the folder first.

        Args:
            is_own: Takes a final name, and returns True if this program writes it.
            files: The names of the files in temporary folders.
        """
        for entry in self.names():
            matches = _UNFINISHED.fullmatch(entry)
            if not matches or not is_own(matches[1]):
                continue
            if self.has_file(entry):
                self.remove(entry)
            elif self.holds_only(entry, files):
                draft = self.subfolder(entry)
                with suppress(RequestError):  # another process is writing to it
                    draft.lock()
                    self.remove_folder(entry, files)
                draft.unlock()

    def sync(self) -> None:
        """Flush the names of the entries to the disk."""
        with self.opened() as folder:
            self._sync(folder)

    def _sync(self, opened: int) -> None:
        with _named(self.path):
            os.fsync(opened)


@contextmanager
def unlocking() -> Iterator[None]:
    """Unlock the folders that the code within locks and does not unlock.

    A traceback may keep a folder alive long after the code that locked it has failed.
    """
    before = set(_locked)
    try:
        yield
    finally:
        for folder in set(_locked) - before:
            folder.unlock()


_locked: "weakref.WeakSet[Folder]" = weakref.WeakSet()


def open_named(path: str | Path, max_bytes: int | None = None) -> BufferedReader:
    """Open a file that the user has named, for reading. Links are followed.

    Args:
        path: A regular file, or a pipe without a name, such as that of the shell's `<(command)`.
        max_bytes: The maximum size of a regular file; None for any size.

    Raises:
        OSError: It does not exist, cannot be read, or is a folder, a named pipe, a device or a socket. None of these is
            waited for. The error has a reason.
    """
    if path and (mode := _mode(os.path.realpath(path))):  # a pipe without a name has no real path
        _require_kind(mode, Path(path), stat.S_IFREG)
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _require_kind(os.fstat(stream.fileno()).st_mode, Path(path), stat.S_IFREG, stat.S_IFIFO)
        _require_size(stream, Path(path), max_bytes)
        os.set_blocking(stream.fileno(), True)  # the writer of a pipe may be slow
    except BaseException:
        stream.close()
        raise
    return stream


def read_limited(stream: IO[bytes], path: Path, max_bytes: int) -> bytes:
    """Return the rest of a file or pipe.

    Args:
        stream: The file or pipe.
        path: Its path, for the error.
        max_bytes: The maximum number of bytes.

    Raises:
        OSError: It has more bytes, or cannot be read.
    """
    content = b"".join(pieces(stream, max_bytes + 1))
    if len(content) > max_bytes:
        raise _too_large(path, max_bytes)
    return content


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder and its parents. If the code within fails, remove those that were made, unless they are not empty.

    Raises:
        OSError: A folder cannot be made, or something else has the name of one.
    """
    made = []
    try:
        for folder in reversed((path, *path.parents)):
            if not os.path.lexists(folder):
                with suppress(FileExistsError):  # another process has made it in the meantime
                    folder.mkdir()
                    made.append(folder)
        if not path.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise


def pieces(stream: IO[bytes], length: int) -> Iterator[bytes]:
    """Yield the next `length` bytes of a stream in pieces; fewer if it ends before."""
    while length > 0 and (piece := stream.read(min(length, _COPIED_BYTES))):
        length -= len(piece)
        yield piece


def parse_json(content: bytes) -> Any:
    """Parse JSON in UTF-8. Numbers are finite.

    Raises:
        ValueError: The content is not valid.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_number(value: Any, maximum: float) -> bool:
    """Return True for a number from JSON between 0 and a maximum. True and False are not numbers."""
    return type(value) in (int, float) and 0 <= value <= maximum


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _unfinished(name: str) -> str:
    return f".{name}.{secrets.token_hex(8)}.partial"


@contextmanager
def _created(name: str, folder: int) -> Iterator[BinaryIO]:
    """Create a new file in an open folder, and remove it if the code within fails."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    stream = os.fdopen(os.open(name, flags, 0o666, dir_fd=folder), "w+b")
    try:
        with stream:
            yield stream
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            os.unlink(name, dir_fd=folder)
        raise


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def _mode(path: str) -> int:
    """Return the mode of a path; 0 if there is none."""
    try:
        return Path(path).stat().st_mode
    except OSError:
        return 0


def _require_kind_of_entry(path: Path, folder: int, kind: int = stat.S_IFREG) -> None:
    """Raise OSError if an entry of an open folder exists and is of another kind. Opening a device may have an effect."""
    with suppress(FileNotFoundError):
        _require_kind(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode, path, kind)


def _require_kind(mode: int, path: Path, *kinds: int) -> None:
    """Raise OSError if a mode is not of one of these kinds."""
    if stat.S_IFMT(mode) not in kinds:
        is_folder_wanted = stat.S_IFDIR in kinds
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOTDIR if is_folder_wanted else errno.EINVAL
        raise OSError(number, f"it is {_kind(mode)}, not a {'folder' if is_folder_wanted else 'regular file'}", str(path))


def _require_size(stream: BinaryIO, path: Path, max_bytes: int | None) -> None:
    """Raise OSError if a file is larger than `max_bytes`."""
    if max_bytes is not None and os.fstat(stream.fileno()).st_size > max_bytes:
        raise _too_large(path, max_bytes)


def _too_large(path: Path, max_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes", str(path))


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Set the file name of an OSError that the code within raises.

    Without this, the error of a full disk has no file name, and other errors have the name of a temporary file.
    """
    try:
        yield
    except OSError as error:
        if error.strerror:
            error.filename = str(path)
        raise
