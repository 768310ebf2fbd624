"""Settings that replace those of a file: from flags, from `--set`, or as Python values."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mnist_trainer.config.optimizers import ARGUMENT_KINDS
from mnist_trainer.config.schema import SECTIONS, RunConfig, field_of
from mnist_trainer.console import shortened, shown
from mnist_trainer.errors import RequestError
from mnist_trainer.fields import FieldError, read_text
from mnist_trainer.schedules.named import read_schedule

MAX_DEPTH = 30
"""Maximum number of levels of tables and lists in a value."""


@dataclass(frozen=True)
class Override:
    """A setting from the command line.

    The key is `section.key`, or `schedule.curve.key` or `schedule.curves[0].key` in a table within a table, or `schedule` for a
    whole table.

    Attributes:
        spelling: The flag as the user spelled it, with the key after `--set`.
        key: The key that it sets.
        text: The value as the user typed it.
    """

    spelling: str
    key: str
    text: str

    @classmethod
    def from_assignment(cls, assignment: str) -> "Override":
        """Return the override for an argument of `--set`.

        Args:
            assignment: The argument, `section.key=value`.

        Raises:
            RequestError: The argument does not have this form.
        """
        key, equals, text = assignment.partition("=")
        if not equals or ("." not in key.strip(".") and SECTIONS.get(key.strip(), RunConfig) is not None):
            raise RequestError(f"--set {assignment}: write it as section.key=value, for example training.epochs=3")
        return cls(f"--set {key.strip()}", key.strip(), text.strip())

    def __str__(self) -> str:
        """Return the setting as the user typed it."""
        return f"{self.spelling}{'=' if self.spelling.startswith('--set ') else ' '}{shortened(self.text)}"

    def sets(self, key: str) -> bool:
        """Return True if the override sets this key, or a table that contains it."""
        return key == self.key or key.startswith((f"{self.key}.", f"{self.key}["))

    def overlaps(self, key: str) -> bool:
        """Return True if the override sets this key, a table that contains it, or a key within it."""
        return self.sets(key) or self.key.startswith((f"{key}.", f"{key}["))

    def value(self) -> Any:
        """Return the unchecked value, read by the kind of its key, or as TOML if the key is in an open table."""
        spec = field_of(self.key)
        section, _, name = self.key.partition(".")
        kind = spec.metadata["kind"] if spec else ARGUMENT_KINDS.get(name) if section == "optimizer" else None
        if kind:
            return kind.read(self.text)
        value = read_text(self.text)
        return value if depth(value) <= MAX_DEPTH else self.text

    def set_within(self, table: dict[str, Any]) -> None:
        """Set the value in the table of its section.

        Raises:
            FieldError: The table does not have this key.
        """
        parts = (part.removesuffix("]") for part in re.split(r"\.|\[(?=\d{1,4}\])", self.key.partition(".")[2]))
        path: list[Any] = [int(part) if part.isdigit() else part for part in parts]
        last = path.pop()
        place: Any = table
        for part in path:
            try:
                place = place[part]
            except (KeyError, IndexError, TypeError):
                place = None
            if not isinstance(place, dict | list):
                raise FieldError(self.key, f"there is no {part!r} in the configuration")
        if isinstance(place, list) != isinstance(last, int) or (isinstance(place, list) and last >= len(place)):
            raise FieldError(self.key, f"there is no {last!r} in the configuration")
        place[last] = self.value()


@dataclass(frozen=True)
class PythonOverride(Override):
    """A setting from Python.

    Attributes:
        given: The value. Tuples, arrays and numbers of numpy are converted to those of Python.
    """

    given: Any

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> list[Override]:
        """Return an override for each key and value, such as `{"training.epochs": 3}`."""
        return [cls(str(key), str(key), shown(value), value) for key, value in settings.items()]

    def __str__(self) -> str:
        """Return the setting as a message shows it."""
        return f"{self.spelling} = {self.text}"

    def value(self) -> Any:
        """Return the unchecked value."""
        try:
            value = _without_tuples(self.given)
        except RecursionError:
            return self.text
        return value if depth(value) <= MAX_DEPTH else self.text


def _without_tuples(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()  # numpy's
    if isinstance(value, Mapping):
        return {str(key): _without_tuples(held) for key, held in value.items()}
    return [_without_tuples(member) for member in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class NameOverride(Override):
    """A flag that names the schedule or the optimizer. It replaces the whole table; `--set` can set keys of the new one."""

    def __str__(self) -> str:
        """Return the flag as the user typed it, for a shell."""
        return f"{self.spelling} {shlex.quote(shortened(self.text))}"

    @property
    def is_name_alone(self) -> bool:
        """True if the text is a name, not an expression with arguments."""
        return "(" not in self.text

    def leaves(self, other: Override) -> bool:
        """Return True if another override may set its key of the new table."""
        return other.key.startswith(f"{self.key}.") and other.key != f"{self.key}.name"

    def value(self) -> dict[str, Any]:
        """Return the new table.

        Raises:
            FieldError: The text is not an expression that stands for a schedule.
        """
        return read_schedule(self.text) if self.key == "schedule" else {"name": self.text}


def depth(value: Any) -> int:
    """Return the number of levels of tables and lists."""
    # Not recursive: deep nesting would exceed the recursion limit.
    levels, level = 0, [value]
    while level := [inner for outer in level if isinstance(outer, dict | list) for inner in _members(outer)]:
        levels += 1
    return levels


def _members(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
