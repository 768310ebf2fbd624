"""For tests of what a machine may lack: marks that skip a test with the command that installs it, and a way to hide it."""

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
    """Return whether `g++` is GCC 9 or newer, as the kernels need it."""
    if shutil.which("g++") is None:
        return False
    command = ["g++", "-dM", "-E", "-x", "c++", "/dev/null"]
    macros = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    version = re.search(r"#define __GNUC__ (\d+)", macros)
    return version is not None and int(version[1]) >= 9 and "__clang__" not in macros


needs_browser = pytest.mark.skipif(
    bool(_missing), reason=f"there is no Chromium with its driver; apt-get install {' '.join(_missing)}"
)
needs_compiler = pytest.mark.skipif(not _has_compiler(), reason="there is no GCC 9 or newer; apt-get install g++")
needs_fused = pytest.mark.skipif(_fused_problem is not None, reason=str(_fused_problem))


def hide_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the import of matplotlib, and of the module that draws with it, fail."""
    import_module("mnist_trainer.plots")  # so that it is there to be removed
    monkeypatch.delattr("mnist_trainer.plots")
    monkeypatch.delitem(sys.modules, "mnist_trainer.plots")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
