"""The implementations that the benchmark compares, and the choice of those that can run here."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mnist_trainer.errors import RequestError


@dataclass(frozen=True)
class Implementation:
    """An implementation of the tutorial's training.

    Attributes:
        title: Its name in figures.
        module: The module of `mnist_trainer.benchmark` that trains it.
        package: The package that it needs in addition to those of this program; "" for none.
        settings: Settings of its module. For this program: tables that replace those of the benchmark's configuration.
    """

    title: str
    module: str
    package: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


IMPLEMENTATIONS = {
    "tutorial": Implementation("the tutorial's loop", "tutorial"),
    "ours": Implementation("mnist-trainer", "ours"),
    "ours-stock": Implementation("mnist-trainer, stock operators", "ours", settings={"model": {"backend": "stock"}}),
    "torch": Implementation("PyTorch, contiguous", "torch_eager", "torch", {"memory_format": "contiguous"}),
    "torch-channels-last": Implementation("PyTorch, channels-last", "torch_eager", "torch", {"memory_format": "channels_last"}),
    "jax": Implementation("JAX, jitted", "jax_jitted", "jax"),
}

OURS, OURS_ON_STOCK = "ours", "ours-stock"


def choose_implementations(
    requested: Sequence[str] | None, peer_python: str = sys.executable
) -> tuple[list[str], list[str], dict[str, str | None]]:
    """Choose the implementations that take part.

    Args:
        requested: Names in `IMPLEMENTATIONS`; None for all that can run here.
        peer_python: The interpreter that has torch and jax.

    Returns:
        The names; a message for each implementation that is left out; package → its version, None if it is not installed.

    Raises:
        RequestError: The package of a requested implementation is not installed.
    """
    names = list(dict.fromkeys(IMPLEMENTATIONS if requested is None else requested))
    package_of = {name: IMPLEMENTATIONS[name].package for name in names if IMPLEMENTATIONS[name].package}
    versions = _versions(list(dict.fromkeys(package_of.values())), peer_python) if package_of else {}
    missing = {name: package for name, package in package_of.items() if versions[package] is None}
    left_out = [f"{name}: {_how_to_install(package, peer_python)}" for name, package in missing.items()]
    if requested is not None and left_out:
        raise RequestError(*(f"--implementations {sentence}" for sentence in left_out))
    return [name for name in names if name not in missing], left_out, versions


def _how_to_install(package: str, peer_python: str) -> str:
    if peer_python != sys.executable:
        install = f"{shlex.quote(peer_python)} -m pip install {package}"
        return f"--peer-python {peer_python} has no {package}; install it with {install}"
    return (
        f"this environment has no {package}; "
        "install it with pip install -e '.[bench]', or name an interpreter that has it with --peer-python"
    )


_PRINT_VERSIONS = """
import sys
from importlib.metadata import PackageNotFoundError, version
if sys.version_info < (3, 11):
    sys.exit("it is Python %d.%d, and the implementations need 3.11" % sys.version_info[:2])
for name in sys.argv[1:]:
    try:
        print(version(name))
    except PackageNotFoundError:
        print()
"""


def _versions(packages: Sequence[str], python: str) -> dict[str, str | None]:
    command = [python, "-c", _PRINT_VERSIONS, *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RequestError(f"--peer-python {python}: cannot be run ({getattr(error, 'strerror', None) or error})") from error
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != len(packages):
        errors = done.stderr.strip().splitlines() or ["it printed no versions"]
        raise RequestError(f"--peer-python {python}: is not a usable Python: {errors[-1]}")
    return {package: line or None for package, line in zip(packages, lines, strict=True)}
