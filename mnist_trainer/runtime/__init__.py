"""Preparations for `import mxnet`, and errors for problems of the installation.

The modules of this package get MXNet from `import_mxnet()`. Users may write `import mxnet`. Both use `MXNetFinder`, which calls
`prepare_import`. To set the number of threads, call `prepare` first, because OpenMP reads the number when the library loads.
"""

import ctypes
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mnist_trainer import memory
from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import nvidia
from mnist_trainer.runtime.hardware import available_processors, choose_threads

MXNET_VERSION = "1.9.1"

INSTALL_MXNET = f"pip install --no-deps mxnet=={MXNET_VERSION}"
"""Installs MXNet. Without `--no-deps`, pip would replace numpy, because MXNet's metadata requires numpy below 2."""

# Debian packages of libraries that slim images lack.
_SYSTEM_PACKAGES = {"libgomp.so.1": "libgomp1", "libquadmath.so.0": "libquadmath0"}

# Parts of messages of the C++ library, MXNet's allocators, oneDNN, the threads library, CUDA, the loader, and Python.
_MEMORY_SIGNS = (
    "bad_alloc",
    "Failed to allocate",
    "could not create a memory object",
    "Resource temporarily unavailable",
    "out of memory",
    "failed to map segment",
    "Cannot allocate memory",
    "can't start new thread",
)

# MXNet's wheel for ARM needs them, and neither it nor PyPI has them.
_ARM_LIBRARIES = ("libarmpl", "libamath", "libastring")

_GPU_LIBRARIES = (
    "libcuda",
    "libcudnn",
    "libcublas",
    "libcudart",
    "libcufft",
    "libcurand",
    "libcusolver",
    "libnccl",
    "libnvrtc",
    "libnvToolsExt",
)

_SETTINGS = {
    # MXNet copies arrays with more elements than this on the calling thread with OpenMP. That starts a second pool of threads
    # in addition to the engine's. With more threads than processors, libgomp then makes every barrier of the process sleep in
    # the kernel, and an iteration takes about twice as long. None of our arrays has more than 2³¹ − 1 elements.
    "MXNET_CPU_PARALLEL_SIZE": str(2**31 - 1),
    # Number of spins of a waiting thread before it sleeps. By default it spins for milliseconds. If another program needs the
    # processors too, the spinning threads keep the working ones from running. With this setting, two simultaneous trainings
    # are 2.8 times as slow as one, instead of 40 times; a single training takes 4 % longer.
    "GOMP_SPINCOUNT": "3000",
}
"""Environment variables that MXNet and libgomp read. Values that the user has set are kept.

After the library is loaded, MXNET_CPU_PARALLEL_SIZE still takes effect until the first copy of an array; GOMP_SPINCOUNT and
OMP_NUM_THREADS do not.
"""


class InstallationError(RequestError):
    """A problem of the installation that prevents loading MXNet, with its remedy."""


def prepare(threads: int | str = "auto") -> int:
    """Set the environment variables that MXNet reads.

    Args:
        threads: The number of OpenMP threads. "auto" is the number of the loaded MXNet, or that of `choose_threads` if MXNet is
            not loaded yet.

    Returns:
        The number of OpenMP threads.

    Raises:
        RequestError: MXNet is already loaded with another number of threads, OMP_NUM_THREADS is invalid, or the limit on the
            address space is too low to load MXNet.
    """
    loaded_with = _threads_of_loaded_mxnet() if mxnet_is_loaded() else None
    if loaded_with and not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(loaded_with)
    chosen = choose_threads(threads)
    if loaded_with not in (None, chosen):
        requested = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}" if threads == "auto" else f"--threads {threads}"
        raise RequestError(
            f"{requested}: MXNet is already loaded, and its number of threads is {loaded_with}; "
            f"to use {chosen}, start a new process (in a notebook, restart the kernel)"
        )
    if loaded_with is None and (problem := memory_problem(chosen)):
        raise InstallationError(problem)
    os.environ["OMP_NUM_THREADS"] = str(chosen)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    return chosen


def fork_processes() -> None:
    """Make `multiprocessing` fork on Python 3.14 too, unless the user has chosen another start method.

    By default, Python 3.14 asks a server for new processes. The workers of Gluon's DataLoader then fail, and the lock of tqdm
    starts a process that tracks resources.
    """
    if sys.version_info >= (3, 14):
        import multiprocessing

        if multiprocessing.get_start_method(allow_none=True) is None:
            multiprocessing.set_start_method("fork")


def memory_problem(threads: int) -> str | None:
    """Return a message if the limit on the address space is too low to load MXNet and train; otherwise None.

    Args:
        threads: The number of OpenMP threads.
    """
    return memory.limit_problem(memory.mxnet_mib(threads, available_processors()))


def mxnet_is_loaded() -> bool:
    """Return True if MXNet's library is loaded in this process, even if the rest of the import failed."""
    return "mxnet.base" in sys.modules


def _threads_of_loaded_mxnet() -> int:
    # The environment may have changed since then. A library that was loaded without OMP_NUM_THREADS uses half of the
    # processors. libgomp returns this number on the thread that loaded it. A training gives the same bits as in a new process
    # with this number of threads.
    return int(ctypes.CDLL("libgomp.so.1").omp_get_max_threads())


def prepare_import() -> None:
    """Prepare the process for `import mxnet`. Called before MXNet's code runs.

    Raises:
        RequestError: MXNet would fail, or abort the process, which it does if OMP_NUM_THREADS is not a number.
    """
    if problem := _numpy_problem():
        raise InstallationError(problem)
    prepare()
    # An import that failed because numpy's old names were missing leaves 104 modules behind. Another import would reuse them
    # without adding them to their package (mxnet.autograd would be missing), and one of them keeps the failed package. Once
    # they are removed, all 230 modules load again, with the same names and the same training bits as in a new process.
    if "mxnet" not in sys.modules:  # it is present if another module was created from its spec
        for name in [name for name in list(sys.modules) if name.startswith("mxnet.")]:
            del sys.modules[name]
    from mnist_trainer.runtime.numpy_names import restore_numpy_names

    restore_numpy_names()
    fork_processes()
    if _is_gpu_build(mxnet_packages()):
        nvidia.load_libraries()


@contextmanager
def mxnet_warnings_ignored() -> Iterator[None]:
    """Ignore warnings from MXNet's code during its import."""
    with warnings.catch_warnings():
        # They are about distutils, removed numpy functions and backslashes in strings. A user cannot fix them.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        yield


def import_mxnet() -> Any:
    """Load MXNet and return the module `mxnet`.

    Raises:
        InstallationError: MXNet cannot be loaded. The message contains a remedy.
    """
    if sys.modules.get("mxnet") is None:
        _load_mxnet()
    import mxnet  # waits if another thread is loading it

    if not hasattr(mxnet, "autograd"):
        # This import bypassed `prepare_import`. A new copy of MXNet could not use the arrays that the user already has.
        raise InstallationError(
            "MXNet is incomplete (it has no mxnet.autograd), because it was imported again after an import that failed; "
            "start a new process (in a notebook, restart the kernel), and import mnist_trainer before mxnet"
        )
    return mxnet


def _load_mxnet() -> None:
    problems = installation_problems()
    if problems:
        raise InstallationError(*problems)
    # In a server or scheduler, MXNet would take this role during its import and then end the process.
    role = os.environ.pop("DMLC_ROLE", None)
    try:
        import mxnet  # noqa: F401
    except (OSError, ImportError, RuntimeError) as error:
        if isinstance(error.__cause__, RequestError):  # from `prepare_import`
            raise error.__cause__ from None
        raise InstallationError(explain_load_error(str(error))) from error
    finally:
        if role is not None:
            os.environ["DMLC_ROLE"] = role


def installation_problems() -> list[str]:
    """Return the problems of the installation that can be found without loading MXNet."""
    problems = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        problems.append(f"Python {sys.version_info[0]}.{sys.version_info[1]} is not supported; use Python 3.11 to 3.14")
    packages = mxnet_packages()
    if not packages:
        problems.append(f"MXNet is not installed; {INSTALL_MXNET}")
    elif len(packages) > 1:
        problems.append(
            f"{' and '.join(packages)} are installed together and overwrite each other's files; "
            f"pip uninstall -y {' '.join(packages)}, then install one of them with pip install --no-deps"
        )
    elif (version := package_version(packages[0])) != MXNET_VERSION:
        remedy = f"pip install --no-deps {packages[0]}=={MXNET_VERSION}"
        problems.append(f"{packages[0]} {version} is not {MXNET_VERSION}; {remedy}")
    problems += filter(None, [_numpy_problem()])
    problems += [
        f"{name} is not installed; pip install {name}"
        for name in ("matplotlib", "pillow", "requests", "tqdm")
        if package_version(name) is None
    ]
    if not _has_distutils():
        problems.append("MXNet needs distutils, which setuptools supplies on this Python; pip install setuptools")
    return problems


def _numpy_problem() -> str | None:
    remedy = 'pip install "numpy>=1.23,<3"'
    version = package_version("numpy")
    if version is None:
        return f"numpy is not installed; {remedy}"
    major, minor = (int(number) for number in version.split(".")[:2])
    if major > 2:
        return f"numpy {version} is too new; {remedy}"
    return f"numpy {version} is too old; {remedy}" if (major, minor) < (1, 23) else None


def mxnet_packages() -> list[str]:
    """Return the names of the installed distributions of MXNet, such as `mxnet` and `mxnet-cu112`."""
    from importlib.metadata import distributions  # its import takes a sixth of the time of `schedules show`

    names = {(found.metadata["Name"] or "").lower().replace("_", "-") for found in distributions()}
    return sorted(name for name in names if re.fullmatch(r"mxnet(-cu\d+)?", name))


def _is_gpu_build(packages: Sequence[str]) -> bool:
    return any(name != "mxnet" for name in packages)


def explain_mxnet_error(error: BaseException) -> str:
    """Return the message of an MXNet error: its last line, which follows a traceback of C++ frames."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("MXNetError: ") if lines else type(error).__name__


def lacks_memory(error: BaseException) -> bool:
    """Return True if an error is due to a lack of memory, of the processor or of a GPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)  # MXNetError is one too
    )


def explain_failure(error: BaseException) -> str | None:
    """Explain an error of MXNet or a lack of memory; return None for any other error."""
    if lacks_memory(error):
        return memory.NOT_ENOUGH_MEMORY
    return f"MXNet failed: {explain_mxnet_error(error)}" if _is_mxnet_error(error) else None


def _is_mxnet_error(error: BaseException) -> bool:
    return mxnet_is_loaded() and isinstance(error, getattr(sys.modules["mxnet.base"], "MXNetError", ()))


def package_version(name: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def explain_load_error(message: str) -> str:
    """Explain an error of the system's loader.

    Args:
        message: The message of the loader, such as "libgomp.so.1: cannot open shared object file …".

    Returns:
        The problem and a remedy.
    """
    if any(sign in message for sign in _MEMORY_SIGNS):
        return f"MXNet cannot be loaded: {memory.NOT_ENOUGH_MEMORY}"
    matches = re.search(r"(lib[\w+-]+\.so[.\d]*): cannot open shared object file", message)
    if not matches:
        reason = message.splitlines()[0] if message else "no reason given"
        reinstall = f"pip install --force-reinstall --no-deps {(mxnet_packages() or ['mxnet'])[0]}=={MXNET_VERSION}"
        return f"MXNet cannot be loaded ({reason}); reinstall it: {reinstall}"
    library = matches.group(1)
    if library in _SYSTEM_PACKAGES:
        return f"MXNet needs the system library {library}; apt-get install {_SYSTEM_PACKAGES[library]}"
    if library.startswith(_ARM_LIBRARIES):
        return f"MXNet on ARM needs Arm Performance Libraries, and {library} is missing; install them, or use Linux on x86-64"
    cpu_build = f"or replace MXNet's GPU build with mxnet=={MXNET_VERSION} for the CPU"
    if library.startswith("libcuda."):
        return f"MXNet's GPU build needs NVIDIA's driver, and {library} is missing; install the driver, {cpu_build}"
    if library.startswith(_GPU_LIBRARIES):
        set_up = "run scripts/setup_gpu.sh of the repository to install them"
        return f"MXNet's GPU build needs CUDA 11 and cuDNN 8, and {library} is missing; {set_up}, {cpu_build}"
    return f"MXNet needs the system library {library}, which is missing; install the package that contains it"


def _has_distutils() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.11 deprecates distutils
        try:
            import distutils.version  # noqa: F401
        except ImportError:
            return _setuptools_brings_distutils()
        return True


def _setuptools_brings_distutils() -> bool:
    # Since Python 3.12, a .pth file of setuptools supplies distutils. If it did not run, importing setuptools does the same.
    try:
        import setuptools  # noqa: F401
        import distutils.version  # noqa: F401  # isort: skip
    except ImportError:
        return False
    return True
