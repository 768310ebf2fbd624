"""The exact wording of messages, one file an area below tests/snapshots, reviewed as a diff when it changes.

    pytest -n 0 --update-snapshots tests/test_cli.py    rewrites the file of that area

Tests assert what matters about a message, and leave its wording to the fixture `snapshot`.
"""

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "snapshots"


class Snapshots:
    """The messages of one test module: the name of a test → the lines of its messages."""

    def __init__(self, module: str, updates: bool) -> None:
        self.path = FOLDER / f"{module.removeprefix('test_')}.txt"
        self.updates = updates
        self._kept = {} if updates or not self.path.exists() else _parse(self.path.read_text(encoding="utf-8"))

    def check(self, test: str, text: str) -> None:
        """Compare the messages of a test with those kept, or keep them."""
        if self.updates:
            assert test not in self._kept, "a test has one snapshot"
            self._kept[test] = text
            FOLDER.mkdir(exist_ok=True)
            content = "\n".join(f"## {name}\n{kept}\n" for name, kept in sorted(self._kept.items()))
            self.path.write_text(content, encoding="utf-8")
        assert text == self._kept.get(test), "the wording has changed; review it with --update-snapshots"


def _parse(content: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", content, flags=re.MULTILINE)[1:]
    return {name: text.removesuffix("\n\n").removesuffix("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


@cache
def snapshots_of(module: str, updates: bool) -> Snapshots:
    """Return the snapshots of a test module, which is read once."""
    return Snapshots(module, updates)
