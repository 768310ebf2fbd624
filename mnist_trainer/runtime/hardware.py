"""Processors, memory and instruction sets of this machine, as reported by Linux, and the number of OpenMP threads."""

import os
import re
from pathlib import Path

from mnist_trainer.errors import RequestError
from mnist_trainer.fields import FieldError, Whole

THREADS = Whole(1, 1024)


def available_processors() -> int:
    """Return the number of processors that this process may use.

    The number is that of the process's affinity, limited by the quota of its control group (the limit of a container).
    """
    processors = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            processors = min(processors, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass  # no control group of version 2: the quota is unknown
    return processors


def available_memory_bytes() -> int:
    """Return the memory in bytes that is available without swapping, limited by the control group.

    The value is 2⁶³ if Linux does not report the memory.
    """
    found = 2**63
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current"))
        if limit != "max":
            found = min(found, int(limit) - int(used))
    except (OSError, ValueError, StopIteration):
        pass  # not reported, or no control group of version 2
    return found


def processor_line(name: str) -> str:
    """Return an entry of the first processor in /proc/cpuinfo.

    Args:
        name: The name of the entry, such as "model name" or "flags".

    Returns:
        The value of the entry; "" if it is missing.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in entries if key.strip() == name), "")


def processor_flags() -> set[str]:
    """Return the features of the processor by Linux's names, such as "avx2" and "fma"."""
    return set(processor_line("flags").split())


def floats_in_a_vector() -> int:
    """Return the number of floats in the processor's widest vectors: 16 with AVX-512, 8 with AVX2, otherwise 1."""
    flags = processor_flags()
    return 16 if "avx512f" in flags else 8 if "avx2" in flags else 1


def choose_threads(requested: int | str = "auto") -> int:
    """Return the number of OpenMP threads.

    Args:
        requested: The number, or "auto" for OMP_NUM_THREADS if it is set, otherwise the number of available processors.

    Raises:
        RequestError: OMP_NUM_THREADS is not a number or is out of range.
    """
    if isinstance(requested, int):
        return requested
    from_environment = os.environ.get("OMP_NUM_THREADS", "")
    if not from_environment:
        return available_processors()
    outermost = from_environment.split(",")[0].strip()  # OpenMP allows a list with a number for each level of nesting
    number = int(outermost) if re.fullmatch(r"[1-9][0-9]{0,3}", outermost) else from_environment
    try:
        return THREADS.check("OMP_NUM_THREADS", number)
    except FieldError as error:
        raise RequestError(str(error)) from error
