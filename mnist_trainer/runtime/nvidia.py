"""NVIDIA's libraries that MXNet's GPU build needs, and the GPUs that NVIDIA's driver shows.

Standard library only: this module is used before MXNet is loaded, and if MXNet cannot be loaded.
"""

import ctypes
import importlib.util
from dataclasses import dataclass
from pathlib import Path

MIN_CAPABILITY, MAX_CAPABILITY = (5, 0), (8, 9)
"""Bounds of the compute capabilities for which MXNet 1.9.1 has machine code.

It has machine code for 5.0, 6.0, 7.0, 8.0 and 8.6. Each also works for the capabilities up to the next.
"""

# Subpackage of `nvidia`, and library, from NVIDIA's packages on PyPI. Each library follows those that it needs.
_LIBRARIES = (
    ("cuda_runtime", "libcudart.so.11.0"),
    ("cuda_nvrtc", "libnvrtc.so.11.2"),
    ("nvtx", "libnvToolsExt.so.1"),
    ("cublas", "libcublasLt.so.11"),
    ("cublas", "libcublas.so.11"),
    ("cufft", "libcufft.so.10"),
    ("curand", "libcurand.so.10"),
    ("cusparse", "libcusparse.so.11"),
    ("cusolver", "libcusolver.so.11"),
    ("nccl", "libnccl.so.2"),
    ("cudnn", "libcudnn.so.8"),
)

# The driver's numbers for these attributes.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76

_LONGEST_NAME = 256


class DriverError(RuntimeError):
    """NVIDIA's driver is missing or failed; the message has the reason."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as described by the driver.

    Attributes:
        name: The name of the model.
        capability: The compute capability, major and minor.
    """

    name: str
    capability: tuple[int, int]

    @property
    def has_machine_code(self) -> bool:
        """True if MXNet 1.9.1 has machine code for this GPU."""
        return MIN_CAPABILITY <= self.capability <= MAX_CAPABILITY

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}"


def load_libraries() -> None:
    """Load the libraries of NVIDIA's installed packages. MXNet's GPU build then finds them without a system-wide CUDA.

    The system's loader searches for the other libraries when MXNet is loaded. Its error names a missing library.
    """
    found = importlib.util.find_spec("nvidia")
    folders = [Path(location) for location in (found.submodule_search_locations or ())] if found else []
    for package, name in _LIBRARIES:
        for path in (folder / package / "lib" / name for folder in folders):
            if path.is_file():
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
                break


def gpus() -> list[Gpu]:
    """Return the GPUs that the driver shows, in the order of their numbers.

    Raises:
        DriverError: The driver is missing or failed, or shows no GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DriverError("NVIDIA's driver is not installed: there is no libcuda.so.1") from error
    _call(driver, "cuInit", 0)
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    return [_gpu(driver, number) for number in range(count.value)]


def _gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_LONGEST_NAME)
    _call(driver, "cuDeviceGet", ctypes.byref(device), number)
    _call(driver, "cuDeviceGetName", name, _LONGEST_NAME, device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value))


def _call(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(driver, function)(*arguments)
    if code == 100:  # CUDA_ERROR_NO_DEVICE
        raise DriverError("NVIDIA's driver shows no GPU")
    if code:
        raise DriverError(f"NVIDIA's driver failed: {function} returned error {code}{_words(driver, code)}")


def _words(driver: ctypes.CDLL, code: int) -> str:
    words = ctypes.c_char_p()
    try:
        driver.cuGetErrorString(code, ctypes.byref(words))
    except AttributeError:
        return ""
    return f" ({words.value.decode(errors='replace')})" if words.value else ""
