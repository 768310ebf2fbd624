"""Marks that skip a test if the machine lacks a requirement. The reason has the command that installs it."""

import re
import shutil
import subprocess
import sys
from importlib import import_module

import pytest

from mnist_trainer.model import native

_BROWSER = {"chromium": "chromium", "chromedriver": "chromium-driver"}
_missing = [package for program, package in _BROWSER.items() if shutil.which(program) is None]
_fused_problem = native.problem()


def _has_compiler() -> bool:
    """Return whether `g++` is GCC 9 or newer, which the kernels need."""
    if shutil.which("g++") is None:
        return False
    command = ["g++", "-dM", "-E", "-x", "c++", "/dev/null"]
    macros = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    version = re.search(r"#define __GNUC__ (\d+)", macros)
    return version is not None and int(version[1]) >= 9 and "__clang__" not in macros


needs_browser = pytest.mark.skipif(
    bool(_missing), reason=f"Chromium or its driver is missing; apt-get install {' '.join(_missing)}"
)
needs_compiler = pytest.mark.skipif(not _has_compiler(), reason="GCC 9 or newer is missing; apt-get install g++")
needs_fused = pytest.mark.skipif(_fused_problem is not None, reason=str(_fused_problem))


def hide_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make imports of matplotlib and of `mnist_trainer.plots` fail."""
    import_module("mnist_trainer.plots")  # `delattr` below needs the attribute
    monkeypatch.delattr("mnist_trainer.plots")
    monkeypatch.delitem(sys.modules, "mnist_trainer.plots")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
