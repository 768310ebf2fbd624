"""Validation: kinds of values, their ranges and error messages.

A field is declared once, with its kind: `epochs: int = setting(Whole(1, 1_000_000), default=10)`. A kind checks the values of
keys in a file, of flags, and of arguments of schedules and optimizers, with the same error message for all of them. The fields
are in the modules that declare them. Standard library only.
"""

import math
import operator
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from mnist_trainer.console import shown

MIN_FLOAT32, MAX_FLOAT32 = 1.1754943508222875e-38, 3.4028234663852886e38
"""Bounds of the numbers that MXNet's kernels read, which are of type float32."""

MAX_COUNT = 10**18
"""Maximum of a whole number."""


class FieldError(Exception):
    """A wrong value of a field.

    Attributes:
        field: The name of the field, or the path to it, such as `curves[1].step`.
        sentence: The mistake and its remedy, such as "must be a number from 0 to 1".
        given: The value as shown in messages; empty if the mistake is not in a value.
    """

    def __init__(self, field: str, sentence: str, given: str = "") -> None:
        super().__init__(f"{field} = {given}: {sentence}" if given else f"{field}: {sentence}")
        self.field = field
        self.sentence = sentence
        self.given = given

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.sentence, self.given)


class FieldValueError(FieldError, ValueError):
    """A value of the right type that is out of range."""


class FieldTypeError(FieldError, TypeError):
    """A value of the wrong type."""


# --- kinds


class Kind:
    """A kind of value. Its `str` completes the message "must be …"."""

    def check(self, name: str, value: Any) -> Any:
        """Check the value of a field.

        Args:
            name: The name of the field, for the message.
            value: Any value.

        Returns:
            The value in the type of this kind.

        Raises:
            FieldTypeError: The value has the wrong type.
            FieldValueError: The value is out of range.
        """
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """Return the value of a text from the command line, without checking it."""
        return read_text(text)

    def refusal(self, name: str, value: Any, error: type[FieldError] = FieldValueError) -> FieldError:
        """Return the error about a value that is not of this kind."""
        return error(name, f"must be {self}", shown(value))


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number in a range.

    Attributes:
        low: The minimum.
        high: The maximum.
    """

    low: int
    high: int = MAX_COUNT

    def check(self, name: str, value: Any) -> int:
        try:
            number = operator.index(value)
        except TypeError:
            number = None
        if number is None or isinstance(value, bool):
            raise self.refusal(name, value, FieldTypeError)
        if not self.low <= number <= self.high:
            raise self.refusal(name, value)
        return number

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {'10¹⁸' if self.high == MAX_COUNT else self.high}"


@dataclass(frozen=True)
class Number(Kind):
    """A finite number in a range.

    Attributes:
        low: The minimum.
        high: The maximum.
        above: A bound that the number must exceed.
        below: A bound that the number must not reach.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def check(self, name: str, value: Any) -> float:
        if isinstance(value, bool | str) or not hasattr(value, "__float__"):
            raise self.refusal(name, value, FieldTypeError)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        except (TypeError, ValueError):  # an array has __float__ too, but cannot always be converted
            raise self.refusal(name, value, FieldTypeError) from None
        if not (self.low <= number <= self.high and self.above < number < self.below):
            raise self.refusal(name, value)
        return number + 0.0  # -0.0 becomes 0.0

    def read(self, text: str) -> Any:
        value = read_text(text)
        if isinstance(value, str):
            with suppress(ValueError):
                return float(text)  # .5 and 5. are not valid in TOML
        return value

    def __str__(self) -> str:
        in_float32 = self.high == MAX_FLOAT32
        if math.isfinite(self.low) and math.isfinite(self.high) and not in_float32:
            return f"a number from {self.low:.15g} to {self.high:.15g}"
        bounds = {"≥": self.low, ">": self.above, "<": self.below} | ({} if in_float32 else {"≤": self.high})
        named = " and ".join(f"{sign} {bound:.15g}" for sign, bound in bounds.items() if math.isfinite(bound))
        is_bounded = math.isfinite(min(self.high, self.below))
        return f"a{'' if is_bounded else ' finite'} number {named}".rstrip() + (
            " in the range of float32" if in_float32 else ""
        )


RATE = Number(0, MAX_FLOAT32)
"""A learning rate, or the value of a schedule used in its place."""

POSITIVE_RATE = Number(above=0, high=MAX_FLOAT32)

FRACTION = Number(0, 1)


@dataclass(frozen=True)
class Switch(Kind):
    """True or False."""

    def check(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.refusal(name, value, FieldTypeError)
        return value

    def __str__(self) -> str:
        return "true or false"


class _Text(Kind):
    """A text. On the command line it needs no quotes, even if TOML would read another value."""

    def read(self, text: str) -> str:
        value = read_text(text)
        return value if isinstance(value, str) else text


@dataclass(frozen=True)
class Choice(_Text):
    """One of several texts.

    Attributes:
        choices: The texts that are allowed, in lower case.
        ignores_case: True if a value may have capitals; `check` returns it without them.
    """

    choices: tuple[str, ...]
    ignores_case: bool = True

    def check(self, name: str, value: Any) -> str:
        text = value.lower() if isinstance(value, str) else ""
        if text in self.choices and (self.ignores_case or value == text):
            return text
        hint = did_you_mean(text, self.choices, "")
        raise FieldValueError(name, "; ".join(filter(None, (f"must be {self}", hint))), shown(value))

    def __str__(self) -> str:
        return f"one of {', '.join(self.choices)}"


@dataclass(frozen=True)
class Device(_Text):
    """The name of one or several devices of the same type."""

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"(?ai:auto|(cpu|gpu)(:\d{1,4}(,\d{1,4})*)?)", value):
            raise self.refusal(name, value)
        named = value.lower()
        indices = named.partition(":")[2].split(",")
        if len({int(index or 0) for index in indices}) < len(indices):
            raise FieldValueError(name, "must name each device once", shown(value))
        return named

    def __str__(self) -> str:
        return "auto, cpu, gpu, gpu:1 or gpu:0,1"


@dataclass(frozen=True)
class CodeName(_Text):
    """The name of a function in a Python module."""

    def check(self, name: str, value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value):
            return value
        module, colon, function = value.partition(":") if isinstance(value, str) else ("", "", "")
        hint = ""
        if colon and not module:
            hint = "; the module before the colon is missing"
        elif colon and not function:
            hint = "; the function after the colon is missing"
        raise FieldValueError(name, f"must be {self}{hint}", shown(value))

    def __str__(self) -> str:
        return "of the form module:function, such as my_networks:mlp"


@dataclass(frozen=True)
class DataName(_Text):
    """The name of a data set, which is also the name of a folder.

    Attributes:
        known: The names that have a meaning of their own.
    """

    known: tuple[str, ...]

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise self.refusal(name, value)
        plain = re.sub("[._-]", "", value.lower())
        meant = next((known for known in self.known if known.replace("-", "") == plain), value)
        if meant.lower() != value.lower():
            raise FieldValueError(name, f"did you mean {meant}?", shown(value))
        return meant

    def __str__(self) -> str:
        return f"{', '.join(self.known)}, or a name of up to 64 letters, digits and . _ -"


@dataclass(frozen=True)
class ClassName(_Text):
    """The name of a class in results and figures."""

    def check(self, name: str, value: Any) -> str:
        if isinstance(value, str) and value.isprintable() and value == value.strip() and 1 <= len(value) <= 64:
            return value
        raise self.refusal(name, value)

    def __str__(self) -> str:
        return "a text of 1 to 64 printable characters"


@dataclass(frozen=True)
class PathName(_Text):
    """The path of a file or folder."""

    def check(self, name: str, value: Any) -> str:
        if isinstance(value, str) and value and "\0" not in value and value.encode(errors="ignore").decode() == value:
            return value
        raise self.refusal(name, value)

    def __str__(self) -> str:
        return "the path of a file or folder, in UTF-8"


@dataclass(frozen=True)
class Sha256(_Text):
    """A SHA-256 as text."""

    def check(self, name: str, value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
            return value
        raise self.refusal(name, value)

    def __str__(self) -> str:
        return "a SHA-256 of 64 lower-case hexadecimal digits"


@dataclass(frozen=True)
class Listed(Kind):
    """A list of one or more values of a kind.

    Attributes:
        kind: The kind of the values.
        increases: True if each value must be greater than the one before.
    """

    kind: Kind
    increases: bool = False

    def check(self, name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, Iterable) or isinstance(value, str):
            raise self.refusal(name, value, FieldTypeError)
        members = tuple(self.kind.check(f"{name}[{number}]", member) for number, member in enumerate(value))
        if not members or (self.increases and any(later <= earlier for earlier, later in pairwise(members))):
            raise self.refusal(name, list(members))
        return members

    def __str__(self) -> str:
        return f"a list of one or more values{' in increasing order' if self.increases else ''}, each {self.kind}"


@dataclass(frozen=True)
class Or(Kind):
    """A constant, or a value of a kind.

    Attributes:
        constant: The constant; None for a field that may be left out.
        kind: The kind of the other values.
    """

    constant: str | None
    kind: Kind

    def check(self, name: str, value: Any) -> Any:
        if type(value) is type(self.constant) and (value.lower() if isinstance(value, str) else value) == self.constant:
            return self.constant
        try:
            return self.kind.check(name, value)
        except FieldError as error:
            if self.constant is None:
                raise
            raise self.refusal(name, value, type(error)) from None

    def read(self, text: str) -> Any:
        return self.kind.read(text)

    def __str__(self) -> str:
        return str(self.kind) if self.constant is None else f"{self.constant} or {self.kind}"


# --- declarations


def setting(kind: Kind, *, default: Any = MISSING, kw_only: Any = MISSING, **metadata: Any) -> Any:
    """Declare a field of a dataclass.

    Args:
        kind: The kind of its values.
        default: Its default; without a default the field is required.
        kw_only: True if the argument must be given with its name, False if it need not be; by default as in its class.
        metadata: More about the field; each field of a configuration has a `sentence`, its help.

    Returns:
        The field for the class body.
    """
    return field(default=default, kw_only=kw_only, metadata={"kind": kind, **metadata})


_COMPARISONS = {"<": (operator.lt, "below"), "<=": (operator.le, "at most"), ">": (operator.gt, "above")}


def check_fields(instance: Any) -> None:
    """Check and normalise all fields of a frozen dataclass, then the relations between them.

    Args:
        instance: A new instance. Its class and base classes may have `relations`, such as `("min_lr <= max_lr",)`. A relation
            also holds if one of its two fields is None.

    Raises:
        FieldError: A field is wrong; only the first is reported. A relation that does not hold is an error of its first field.
    """
    for spec in fields(instance):
        if kind := spec.metadata.get("kind"):
            object.__setattr__(instance, spec.name, kind.check(spec.name, getattr(instance, spec.name)))
    for cls in reversed(type(instance).__mro__):
        for relation in vars(cls).get("relations", ()):
            name, sign, other_name = relation.split()
            value, other = getattr(instance, name), getattr(instance, other_name)
            holds, words = _COMPARISONS[sign]
            if value is not None and other is not None and not holds(value, other):
                raise FieldValueError(name, f"must be {words} {other_name} = {other}", shown(value))


# --- texts


def read_text(text: str) -> Any:
    """Return the value of a text as TOML reads it, or the text itself if it is not valid TOML."""
    import tomllib  # needed only by the command line

    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return read["value"] if list(read) == ["value"] else text


NEAR_MISSES = {
    "--checkpoint": "--resume RUN_DIR",
    "--ckpt": "--resume RUN_DIR",
    "--cpu": "--device cpu",
    "--cuda": "--device gpu",
    "--data": "--data-dir DIR",
    "--early-stopping": "--set early_stopping.patience=N",
    "--gpu": "--device gpu",
    "--gpus": "--device gpu:0,1",
    "--log-dir": "--output DIR",
    "--lr-schedule": "--schedule NAME",
    "--lr-scheduler": "--schedule NAME",
    "--max-epochs": "--epochs N",
    "--model": "--set model.network=module:function",
    "--network": "--set model.network=module:function",
    "--num-epochs": "--epochs N",
    "--opt": "--optimizer NAME",
    "--out": "--output DIR",
    "--output-dir": "--output DIR",
    "--overwrite": "--force",
    "--patience": "--set early_stopping.patience=N",
    "--print-cfg": "--print-config",
    "--resume-from": "--resume RUN_DIR",
    "--run-dir": "--output DIR",
    "--save-dir": "--output DIR",
    "--sched": "--schedule NAME",
    "--scheduler": "--schedule NAME",
    "--silent": "--quiet",
    "--wd": "--set optimizer.wd=X",
    "--weight-decay": "--set optimizer.wd=X",
    "--workers": "mnist-trainer launch --workers N -- train",
    "T_0": "cycle_length",
    "T_max": "max_update|cycle_length",
    "base_learning_rate": "learning_rate",
    "batchsize": "batch_size",
    "eta_min": "final_lr|min_lr",
    "gamma": "factor|decay_rate",
    "lr": "learning_rate",
    "lr_end": "final_lr",
    "lr_min": "final_lr|min_lr",
    "max_epochs": "epochs",
    "milestones": "step|boundaries",
    "min_delta": "threshold",
    "monitor": "metric",
    "num_epochs": "epochs",
    "num_training_steps": "max_update",
    "num_warmup_steps": "warmup_steps",
    "step_size": "step",
    "step_size_up": "cycle_length",
    "t_initial": "max_update|cycle_length",
    "total_iters": "max_update",
    "total_steps": "max_update",
    "weight_decay": "wd",
}
"""Name that users try → the names to suggest, separated by bars: the first one whose first word is known."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is nearest to `name`.

    Args:
        name: Any name. The last part of a known name, such as `epochs`, is near to it.
        known: The known names, such as `training.epochs`.
        cutoff: The similarity that is required, from 0 (any name) to 1 (the same name).

    Returns:
        The nearest name, the suggestion in `NEAR_MISSES`, or None if no name is near enough.
    """
    known = list(known)
    for meant in NEAR_MISSES.get(name, "").split("|"):
        # `train` has --resume, and `launch` starts it.
        needed = "--resume" if meant.startswith("mnist-trainer ") else meant.split(" ")[0]
        if needed in known:
            return meant
    last_parts = [other for other in known if other.rpartition(".")[2] == name]
    return next(iter(last_parts or get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str, spelling: str = "{}") -> str:
    """Return the end of a message about an unknown name.

    Args:
        name: The unknown name.
        known: The known names.
        otherwise: The end if no known name is near.
        spelling: The form of the suggested name in the message, with `{}` for the name.
    """
    near = nearest(name, known)
    return f"did you mean {spelling.format(near)}?" if near else otherwise
