"""Exact wording of messages. Each test module has one file in tests/snapshots. Review its diff when a message changes.

    pytest -n 0 --update-snapshots tests/test_cli.py    rewrites the file of that module

Tests assert the essential parts of a message and check its exact wording with the fixture `snapshot`.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "snapshots"


class Snapshots:
    """Messages of one test module: name of a test → its text.

    Attributes:
        path: The file of the messages.
        updates: Whether `check` rewrites the file.
    """

    def __init__(self, module: str, updates: bool) -> None:
        self.path = FOLDER / f"{module.removeprefix('test_')}.txt"
        self.updates = updates
        self._kept = _parse(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self._checked: set[str] = set()

    def check(self, test: str, text: str) -> None:
        """Compare the messages of a test with those in the file. With `updates`, write them to the file first."""
        assert test not in self._checked, "a test can have only one snapshot"
        self._checked.add(test)
        if self.updates and self._kept.get(test) != text:
            self._kept[test] = text
            self._write()
        assert text == self._kept.get(test), "the wording has changed; update it with --update-snapshots, then review the diff"

    def keep_only(self, tests: set[str]) -> None:
        """Remove the messages of all other tests."""
        if others := self._kept.keys() - tests:
            for test in others:
                del self._kept[test]
            self._write()

    def _write(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        content = "\n".join(f"## {name}\n{kept}\n" for name, kept in sorted(self._kept.items()))
        self.path.write_text(content, encoding="utf-8")


def _parse(content: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", content, flags=re.MULTILINE)[1:]
    return {name: text.removesuffix("\n\n").removesuffix("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


def drop_other_snapshots(items: Iterable[pytest.Item]) -> None:
    """Remove the messages of tests that no longer exist.

    Args:
        items: All tests of each module. Doctests are ignored, because they have no messages.
    """
    by_module: dict[str, set[str]] = {}
    for item in items:
        if item.path.stem.startswith("test_"):
            by_module.setdefault(item.path.stem, set()).add(item.name)
    for module, tests in by_module.items():
        snapshots_of(module, updates=True).keep_only(tests)


@cache
def snapshots_of(module: str, updates: bool) -> Snapshots:
    """Return the snapshots of a test module. The file is read once."""
    return Snapshots(module, updates)
