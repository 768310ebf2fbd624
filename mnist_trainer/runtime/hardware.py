"""Reads what Linux reports of this machine: processors, memory, instructions; chooses the number of OpenMP threads."""

import os
import re
from pathlib import Path

from mnist_trainer.errors import RequestError
from mnist_trainer.fields import FieldError, Whole

THREADS = Whole(1, 1024)


def available_processors() -> int:
    """Processors that this process may use: its affinity, and the quota of its control group (a container's limit)."""
    processors = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            processors = min(processors, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass  # no control group of version 2, so no quota to know of
    return processors


def available_memory_bytes() -> int:
    """What the system says can be had without swapping; its control group's limit, if that is less."""
    found = 2**63
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current"))
        if limit != "max":
            found = min(found, int(limit) - int(used))
    except (OSError, ValueError, StopIteration):
        pass  # not told here, or no control group of version 2
    return found


def processor_line(name: str) -> str:
    """What Linux tells of the first processor under this name ("model name", "flags"); "" if it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    told = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in told if key.strip() == name), "")


def processor_flags() -> set[str]:
    """What the processor can do, as Linux names it: "avx2", "fma", …"""
    return set(processor_line("flags").split())


def floats_in_a_vector() -> int:
    """How many floats the processor's widest instructions take at once, from AVX2 on; 1 below."""
    flags = processor_flags()
    return 16 if "avx512f" in flags else 8 if "avx2" in flags else 1


def choose_threads(requested: int | str = "auto") -> int:
    """The number of OpenMP threads: the requested one, else OMP_NUM_THREADS, else the available processors.

    Raises RequestError when OMP_NUM_THREADS is not a number.
    """
    if isinstance(requested, int):
        return requested
    from_environment = os.environ.get("OMP_NUM_THREADS", "")
    if not from_environment:
        return available_processors()
    outermost = from_environment.split(",")[0].strip()  # OpenMP allows a list, one number a level of nesting
    number = int(outermost) if re.fullmatch(r"[1-9][0-9]{0,3}", outermost) else from_environment
    try:
        return THREADS.check("OMP_NUM_THREADS", number)
    except FieldError as error:
        raise RequestError(str(error)) from error
