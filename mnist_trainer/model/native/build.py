"""Builds the library of the native operators at first use, and keeps it in the user's cache.

The name of a library in the cache has two parts: one for the sources and the installed build of MXNet, and one for the compiler
and the user's flags. When any of these changes, another library is built. The file is the same for every Python and numpy.

This module calls the compiler directly, because the sources need GCC and flags that keep the results exact.
"""

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from mnist_trainer.console import Console, say
from mnist_trainer.errors import RequestError
from mnist_trainer.folder import Folder
from mnist_trainer.runtime import INSTALL_MXNET
from mnist_trainer.runtime.hardware import processor_flags
from mnist_trainer.runtime.processes import end_group, how_it_ended

SOURCES = Path(__file__).parent
COMPILED = ("kernels.cc", "operator.cc", "update.cc", "update_operator.cc")
INCLUDED = ("kernels.h", "stage.h", "update.h")
MARKER = b"mnist_trainer native sources "  # as in operator.cc, and at the end of the file

# These flags follow the user's flags, such as CFLAGS, and override them. The compiler must not assume that there are no NaNs,
# add in another order, hide the functions that MXNet calls, or link code that rounds denormals to zero. Fused multiply-adds
# (-ffp-contract=fast) are allowed even if the user's flags forbid them; update.cc forbids them for itself.
FLAGS = (
    *("-std=c++11", "-O3", "-g0", "-fPIC", "-shared", "-fopenmp", "-fvisibility=default"),
    *("-ffp-contract=fast", "-fno-fast-math", "-fno-unsafe-math-optimizations"),
)

_USERS_FLAGS = ("CPPFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS")
_MXNET_FILES = ("include/mxnet/lib_api.h", "src/lib_api.cc")
# An error of the compiler or the linker.
_ERROR = re.compile(r"(?:error: |/ld: |(?=undefined reference))(?:#error )?(?!ld returned|warning: |.*in function )(.+)")
_FAILED = ".failed"  # the end of the name of a file with the reason
_MAX_REASON_BYTES = 4096
_DRAFT, _DRAFT_FILE = "draft", "library.so"
_ELSEWHERE = "set XDG_CACHE_HOME to a folder of your own"


class Compiler(NamedTuple):
    """A compiler with the user's flags.

    Attributes:
        program: The path of the compiler.
        flags: The user's flags.
    """

    program: str
    flags: tuple[str, ...]

    def key(self) -> str:
        """Return a text that changes with the compiler and the flags. As in ccache, size and time identify the compiler."""
        path = Path(self.program).resolve()
        status = path.stat()
        processor = sorted(processor_flags()) if any("=native" in flag for flag in self.flags) else []
        return _digest(str(path), str(status.st_size), str(status.st_mtime_ns), *self.flags, *processor)


@contextmanager
def opened_library() -> Iterator[Path]:
    """Open the library. It is built if it is not in the cache.

    Yields:
        The path of the library. It is valid while the code within runs, and refers to the file that was checked.

    Raises:
        RequestError: It cannot be built, or others can write to the cache. The message has a remedy.
    """
    folder = Folder(cache_folder())
    with ExitStack() as stack:
        try:
            name = _find_or_build(folder)
            opened = stack.enter_context(folder.opened())
            _refuse_writable_by_others(folder.path, os.fstat(opened))
            _refuse_writable_by_others(folder / name, os.stat(name, dir_fd=opened, follow_symlinks=False))
        except OSError as error:
            reason = f"{error.filename or folder.path}: {error.strerror}"
            raise RequestError(f"the fused operator is not available ({reason}); {_ELSEWHERE}") from error
        yield Path(f"/proc/self/fd/{opened}") / name  # stays the same folder if the cache is moved or replaced


def is_pending() -> bool:
    """Return True if `opened_library` would try to build the library."""
    compilers, _ = _compilers()
    try:
        folder = Folder(cache_folder())
        can_build = any(_failure(folder, compiler) is None for compiler in compilers)
        if not can_build or _find(folder, compilers):
            return False
        nearest = next(path for path in (folder.path, *folder.path.parents) if path.exists())
        if nearest == folder.path:
            _refuse_writable_by_others(nearest, nearest.stat())
        return nearest.is_dir() and os.access(nearest, os.W_OK)
    except (OSError, RequestError):
        return False


def cache_folder() -> Path:
    """Return the folder of the built libraries: `mnist-trainer` in XDG_CACHE_HOME, or in ~/.cache if that is not set.

    Raises:
        RequestError: There is no home folder.
    """
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not chosen.is_absolute():  # as the standard demands
        try:
            chosen = Path.home() / ".cache"
        except RuntimeError as error:
            raise RequestError(f"the fused operator has no folder, because there is no home folder; {_ELSEWHERE}") from error
    return chosen / "mnist-trainer"


def forget_failures() -> None:
    """Let the next `opened_library` try again to build what could not be built."""
    with suppress(OSError, RequestError):  # there is no cache yet, or no home folder
        folder = Folder(cache_folder())
        for name in folder.names():
            if name.endswith(_FAILED):
                folder.remove(name)


def fingerprint() -> str:
    """Return the SHA-256 of all sources and compiler flags."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in sorted(COMPILED + INCLUDED):
        digest.update((SOURCES / name).read_bytes())
    return digest.hexdigest()


def ending() -> bytes:
    """Return the bytes at the end of a complete library. Loading a truncated library would kill the process."""
    return MARKER + fingerprint().encode("ascii")


def _find_or_build(folder: Folder) -> str:
    """Return the name of the library in the cache.

    Raises:
        RequestError: It cannot be built, or others can write to the cache.
        OSError: The cache cannot be read or written.
    """
    compilers, problems = _compilers()
    if found := _find(folder, compilers):
        return found
    if not compilers:
        raise RequestError(f"the fused operator is not built ({'; '.join(problems)}); {_remedy(problems)}")
    for missing in reversed([path for path in (folder.path, *folder.path.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    with folder.opened() as opened:
        _refuse_writable_by_others(folder.path, os.fstat(opened))
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the folder is closed
        except BlockingIOError:
            Console().note_on_terminal("Waiting for another process that builds the fused operator…")
            fcntl.flock(opened, fcntl.LOCK_EX)
        return _find(folder, compilers) or _build(folder, compilers)


def _refuse_writable_by_others(path: Path, status: os.stat_result) -> None:
    """Refuse a file or folder that others can change, because loading it would run their code."""
    if status.st_uid not in (0, os.geteuid()):
        raise RequestError(f"the fused operator is not loaded, because {path} belongs to another user; {_ELSEWHERE}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        remedy = f"remove it with rm -r {shlex.quote(str(path))}"  # they may have replaced the library
        raise RequestError(f"the fused operator is not loaded, because others can write to {path}; {remedy}")


def _compilers() -> tuple[list[Compiler], list[str]]:
    """Return the compilers to try, $CXX first, then g++; and the problems of those that cannot be used."""
    found, problems = [], []
    for given in dict.fromkeys([os.environ.get("CXX", "").strip() or "g++", "g++"]):
        try:
            name, *flags = shlex.split(given)
            for variable in _USERS_FLAGS:
                flags += shlex.split(os.environ.get(variable, ""))
        except ValueError as error:  # unbalanced quotation marks
            problems.append(f"{given}: its flags cannot be read, {error}")
            continue
        if program := shutil.which(name):
            found.append(Compiler(program, tuple(flags)))
        else:
            problems.append(f"{name or given} was not found")
    return found, problems


def _find(folder: Folder, compilers: Sequence[Compiler]) -> str | None:
    """Return the name of the library of the first compiler that has not failed; without a compiler, of any."""
    if not compilers:
        found = (name for name in folder.names() if name.startswith(_sources_key()))
        return next((name for name in found if _is_complete(folder, name)), None)
    for compiler in compilers:
        if _is_complete(folder, _name(compiler)):
            return _name(compiler)
        if _failure(folder, compiler) is None:
            break
    return None


def _failure(folder: Folder, compiler: Compiler) -> str | None:
    """Return the reason why a compiler could not build the library; None if it has not failed."""
    try:
        return folder.read(_name(compiler) + _FAILED, _MAX_REASON_BYTES).decode(errors="replace")
    except OSError:
        return None


def _is_complete(folder: Folder, name: str) -> bool:
    expected = ending()
    try:
        with folder.reading(name) as stream:
            stream.seek(-len(expected), os.SEEK_END)
            return stream.read() == expected
    except OSError:  # it does not exist, or is shorter
        return False


def _name(compiler: Compiler) -> str:
    return f"{_sources_key()}-{compiler.key()}.so"


def _sources_key() -> str:
    """Return a text that changes with the sources and with the build of MXNet."""
    mxnet = _mxnet_folder()
    contents = [(mxnet / name).read_text(encoding="utf-8") for name in _MXNET_FILES]
    return _digest(fingerprint(), *contents, str((mxnet / "libmxnet.so").stat().st_size))  # hashing it would take a while


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogateescape")).hexdigest()[:16]


def _mxnet_folder() -> Path:
    # Found without an import, which takes a second.
    found = find_spec("mxnet")
    if found is None or not found.submodule_search_locations:
        raise RequestError(f"MXNet is not installed; {INSTALL_MXNET}")
    return Path(found.submodule_search_locations[0])


def _build(folder: Folder, compilers: Sequence[Compiler]) -> str:
    """Build the library with the first compiler that can, in a locked folder. Return its name.

    Raises:
        RequestError: No compiler can build it.
        OSError: The folder cannot be written.
    """
    folder.remove_unfinished(_DRAFT.__eq__, [_DRAFT_FILE])  # of a process that was killed
    console = Console()
    reasons = []
    for compiler in compilers:
        if reason := _failure(folder, compiler):
            reasons.append(f"{compiler.program}: {reason}")
            continue
        console.note_on_terminal(f"Building the fused operator with {compiler.program}, which takes a few seconds…")
        began = time.monotonic()
        with folder.draft_folder(_DRAFT, [_DRAFT_FILE]) as draft:
            draft.path.chmod(0o700)  # the compiler makes the library with the user's umask
            reason = _compile(compiler, draft / _DRAFT_FILE)
            if reason is None:
                _complete(draft / _DRAFT_FILE).replace(folder / _name(compiler))
                folder.sync()
                seconds = time.monotonic() - began
                say(f"built the fused operator with {compiler.program} in {seconds:.1f} s; it is kept in {folder.path}")
                return _name(compiler)
        with folder.replacing(_name(compiler) + _FAILED) as stream:  # not to try again at each start
            stream.write(reason.encode(errors="replace")[:_MAX_REASON_BYTES])
        reasons.append(f"{compiler.program}: {reason}")
    problem = f"the fused operator cannot be built ({'; '.join(reasons)}); {_remedy(reasons)}"
    raise RequestError(f"{problem}; to try again, run mnist-trainer doctor --build")


def _remedy(reasons: Sequence[str]) -> str:
    given = [name for name in ("CXX", *_USERS_FLAGS) if os.environ.get(name)]
    is_old = any("GCC 9" in reason for reason in reasons)
    return "install GCC 9 or newer (apt-get install g++)" if is_old or not given else f"check {', '.join(given)}"


def _complete(path: Path) -> Path:
    """Append the ending to a library, and flush it to the disk. Only the user may write to it."""
    with path.open("ab") as stream:
        os.fchmod(stream.fileno(), 0o700)
        stream.write(ending())
        stream.flush()
        os.fsync(stream.fileno())
    return path


def _compile(compiler: Compiler, library: Path) -> str | None:
    """Compile and link the library. Return the reason if that failed, otherwise None."""
    flags = shlex.join(compiler.flags)
    macros = {
        "MNIST_TRAINER_NATIVE_FINGERPRINT": fingerprint(),
        "MNIST_TRAINER_NATIVE_FLAGS": f", flags {flags}" if flags else "",
    }
    mxnet = _mxnet_folder()
    command = [
        *(compiler.program, *compiler.flags, *FLAGS, "-fdiagnostics-color=never"),
        *(f"-D{name}={json.dumps(value, ensure_ascii=False)}" for name, value in macros.items()),
        *(f"-I{mxnet / 'include'}", f"-I{mxnet / 'src'}"),
        *(*(str(SOURCES / name) for name in COMPILED), "-lstdc++", "-o", str(library)),  # gcc does not link C++ by itself
    ]
    try:
        process = subprocess.Popen(
            command,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:  # it is not a program
        return error.strerror
    try:
        _, output = process.communicate()
    finally:
        end_group(process)  # after Ctrl-C
    if process.returncode == 0:
        return None
    errors = [match[1] for match in map(_ERROR.search, output.splitlines()) if match]
    return errors[0] if errors else how_it_ended(process.returncode, output.splitlines())
