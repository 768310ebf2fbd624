"""The memory that the program needs, the limit on a process's address space, and the message when there is too little.

Under a low limit (`ulimit -v`), MXNet and OpenBLAS do not raise errors: they abort or hang, or their threads do. Commands
therefore compare the limit with their needs before they load these libraries.
"""

from mnist_trainer.errors import RequestError

NOT_ENOUGH_MEMORY = (
    "not enough memory; close other programs, raise the limit (`ulimit -v`, or that of the container), "
    "or use smaller batches or fewer threads"
)

PYTHON_MIB = 64
"""Address space for commands that need only the standard library: twice what they use."""


def numpy_mib(processors: int) -> int:
    """Return the address space for commands that load numpy and matplotlib. They used 241 MiB on 2 processors.

    Args:
        processors: The number of available processors.
    """
    return 220 + 45 * processors


def mxnet_mib(threads: int, processors: int) -> int:
    """Return the address space for a training on all images, in batches of 64.

    It was measured for 1 to 16 threads on 2 processors, 1,198 MiB for 1 thread and 1,437 MiB for 2, and is rounded up. The C
    library reserves 72 MiB for each thread, and OpenBLAS, which numpy and MXNet both contain, for each processor.

    Args:
        threads: The number of OpenMP threads.
        processors: The number of available processors.
    """
    return 1000 + 80 * threads + 170 * min(threads, processors)


def limit_mib() -> int | None:
    """Return the limit on the address space of this process in MiB, rounded down; None if there is no limit."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit // 2**20


def limit_problem(needed_mib: int) -> str | None:
    """Return a message if the limit on the address space is too low; otherwise None.

    Args:
        needed_mib: The address space that the command needs, in MiB.
    """
    limit = limit_mib()
    if limit is None or limit >= needed_mib:
        return None
    return (
        f"the limit on the address space (ulimit -v) is {limit:,} MiB, but {needed_mib:,} MiB are needed; "
        "raise it, for example with: ulimit -v unlimited"
    )


def refuse_low_limit(needed_mib: int) -> None:
    """Refuse to run under a limit on the address space that is too low.

    Args:
        needed_mib: The address space that the command needs, in MiB.

    Raises:
        RequestError: The limit is too low.
    """
    if problem := limit_problem(needed_mib):
        raise RequestError(problem)
