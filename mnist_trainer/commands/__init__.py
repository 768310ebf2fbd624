"""The commands, which turn parsed arguments into output and an exit code. `cli` defines the flags.

The module of a command is loaded when the command runs. Slow imports are inside the functions that need them, to keep
`mnist-trainer schedules` fast.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from mnist_trainer import memory

COMMANDS = {
    "train": "train.train",
    "train --dry-run": "dry_run.dry_run",
    "train --print-config": "dry_run.print_config",
    "compare": "compare.compare",
    "launch": "launch.launch",
    "find-lr": "find_lr.find_lr",
    "evaluate": "evaluate.evaluate",
    "predict": "predict.predict",
    "export": "export.export",
    "demo": "demo.demo",
    "runs": "runs.list_runs",
    "schedules list": "schedules.list_schedules",
    "schedules find": "schedules.find_schedules",
    "schedules show": "schedules.show_schedules",
    "schedules plot": "schedules.plot_schedules",
    "completion": "completion.completion",
    "data verify": "data.verify",
    "data fetch": "data.fetch",
    "data import": "data.import_files",
    "benchmark": "benchmark.benchmark",
    "doctor": "doctor.doctor",
}
"""Command as a user types it → module.function in this package."""

_STANDARD_LIBRARY_ALONE = ("launch", "runs", "train --print-config", "completion", "schedules list", "schedules show")


def find_command(name: str) -> Callable[[Any], int]:
    """Return the function of a command.

    Args:
        name: A key of `COMMANDS`.

    Returns:
        A function that takes the parsed arguments and returns the exit code.

    Raises:
        RequestError: The limit on the address space is too low to load the modules of the command.
    """
    memory.refuse_low_limit(memory.PYTHON_MIB)
    if name not in _STANDARD_LIBRARY_ALONE:
        from mnist_trainer.runtime.hardware import available_processors

        memory.refuse_low_limit(memory.numpy_mib(available_processors()))
    module, _, function = COMMANDS[name].partition(".")
    found: Callable[[Any], int] = getattr(import_module(f"{__name__}.{module}"), function)
    return found
