"""Describes the environment of a run for `environment.json`: versions, processor, threads, devices and data."""

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mnist_trainer.data.mnist_files import FILES, path_of, sha256_of
from mnist_trainer.model.native import VARIABLE, built_from, kernels
from mnist_trainer.runtime import mxnet_packages, package_version
from mnist_trainer.runtime.hardware import available_processors, processor_flags, processor_line

_WITHOUT_EFFECT = ("matplotlib", "tqdm")  # packages that do not change the numbers of a run

_VARIABLES = ("MXNET_", "OMP_", "GOMP_", "DNNL_", "MNIST_TRAINER_")  # beginnings of the names that are recorded

_PACKAGES = ("mnist-trainer", "numpy", *_WITHOUT_EFFECT)


def describe_environment(
    device: str, threads: int, backend: str, data_dir: Path, command_line: Sequence[str], workers: int = 1
) -> dict[str, Any]:
    """Describe everything that may explain a difference between two runs with the same configuration.

    Args:
        device: The resolved device.
        threads: The resolved number of threads.
        backend: The resolved backend.
        data_dir: The folder of the four MNIST files.
        command_line: The arguments, with the program's name first.
        workers: The number of processes that train together.

    Returns:
        The content of `environment.json`.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": shlex.join(command_line),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in (*mxnet_packages(), *_PACKAGES)},
        "platform": platform.platform(),
        "processor": processor_name(),
        "processors": available_processors(),
        "environment_variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
        "device": device,
        "threads": threads,
        "workers": workers,
        "backend": backend,
        "fused_operator": f"{built_from()} kernels {kernels()}" if backend == "fused" else "",
        "data_dir": str(data_dir.resolve()),
        "data_sha256": {path.name: sha256_of(path) for path in (path_of(data_dir, file) for file in FILES)},
    }


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each change that may affect the last bits of the results.

    Args:
        before: An earlier environment. It may have any content.
        now: The current environment, from `describe_environment`.
    """
    was = _versions(before)
    return [
        f"{name} was {was[name]!r} and is {value!r}; the last bits of the results may differ"
        for name, value in _versions(now).items()
        if was.get(name, value) not in (value, None) and name not in _WITHOUT_EFFECT
    ]


def _versions(described: Mapping[str, Any]) -> dict[str, Any]:
    packages, variables = described.get("packages"), described.get("environment_variables")
    single = {name: described[name] for name in ("python", "processor", "workers", "fused_operator") if described.get(name)}
    wanted = {VARIABLE: variables.get(VARIABLE, "")} if isinstance(variables, dict) else {}
    return single | wanted | (packages if isinstance(packages, dict) else {})


def processor_name() -> str:
    """Return the name of the processor and its widest vector instructions, which determine MXNet's kernels."""
    widest = next((name for name in ("avx512f", "avx2", "avx", "sse4_2") if name in processor_flags()), "")
    name = processor_line("model name") or platform.processor() or platform.machine()
    return f"{name}{f' ({widest})' if widest else ''}"
