"""Marks for tests that need what a machine may lack; such a test is skipped with the command that installs it."""

import shutil

import pytest

from mnist_trainer import native

_BROWSER = {"chromium": "chromium", "chromedriver": "chromium-driver"}
_missing = [package for program, package in _BROWSER.items() if shutil.which(program) is None]
_fused_problem = native.problem()

needs_browser = pytest.mark.skipif(
    bool(_missing), reason=f"there is no Chromium with its driver; apt-get install {' '.join(_missing)}"
)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler; apt-get install g++")
needs_fused = pytest.mark.skipif(_fused_problem is not None, reason=str(_fused_problem))
