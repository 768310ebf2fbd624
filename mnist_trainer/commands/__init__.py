"""What each command does, from the arguments it was given to results on stdout; which flags there are, `cli` knows.

A command has its own module, which is loaded when it runs; what takes time to load is imported there by the function that
needs it, so that curves alone answer at once.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

COMMANDS = {
    "train": "train.train",
    "compare": "compare.compare",
    "launch": "launch.launch",
    "find-lr": "find_lr.find_lr",
    "evaluate": "evaluate.evaluate",
    "predict": "predict.predict",
    "export": "export.export",
    "demo": "demo.demo",
    "schedules list": "schedules.list_schedules",
    "schedules show": "schedules.show_schedules",
    "schedules plot": "schedules.plot_schedules",
    "data verify": "data.verify",
    "data fetch": "data.fetch",
    "benchmark": "benchmark.benchmark",
    "doctor": "doctor.doctor",
}
"""As a user types it → the module below this package and the function in it."""


def find_command(name: str) -> Callable[[Any], int]:
    """Return the function of a command: from parsed arguments to an exit code."""
    module, _, function = COMMANDS[name].partition(".")
    found: Callable[[Any], int] = getattr(import_module(f"{__name__}.{module}"), function)
    return found
