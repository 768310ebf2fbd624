"""The schedule of `--schedule`: a name, or an expression as the program prints it, as a table of settings.

`settings` makes a curve of the table. An expression is parsed, never evaluated.
"""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from mnist_trainer.console import shown
from mnist_trainer.fields import FieldError
from mnist_trainer.schedules.catalogue import find_curve
from mnist_trainer.schedules.schedule import CURVE, CURVES, STATE, Filling, Schedule
from mnist_trainer.schedules.settings import example_setting, spellings_of

MAX_LENGTH = 2000
"""Maximum number of characters of an expression."""

MAX_DEPTH = 30
"""Maximum nesting depth of schedules and lists in an expression."""

_COLON = "\u02d0"  # a letter for Python, which stands for the colon of module:attribute while an expression is parsed

_COLON_OR_TEXT = re.compile(r"""(?P<text>"[^"]*"|'[^']*')|(?<=\w):(?=\w)""")

_ALLOWED = "an argument must be a number, a text in quotes, True, False, a list of these, or a schedule"


def read_schedule(text: str) -> dict[str, Any]:
    """Return the settings of a schedule that a flag names.

    Args:
        text: The name of a curve, such as "one-cycle"; "module:attribute" for a user's schedule; or an expression in the form
            of a curve's `repr`, such as "Warmup(Cosine(max_update=9000), 300)". Arguments may also have the keys of a
            configuration, such as `max_update_epochs`.

    Returns:
        The table that stands for the schedule in a configuration. A name alone has no other settings.

    Raises:
        FieldError: The text is not an expression of this form; the field is "name".

    Example:
        >>> read_schedule("Warmup(Cosine(max_update=9000), 300)")
        {'name': 'Warmup', 'curve': {'name': 'Cosine', 'max_update': 9000}, 'warmup_steps': 300}
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise FieldError("name", f"must have at most {MAX_LENGTH:,} characters; write a longer schedule in a TOML file")
    if not re.search(r"[()\[\]]", text):
        return {"name": text}
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python's parser
            parsed = ast.parse(_COLON_OR_TEXT.sub(lambda found: found["text"] or _COLON, text), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        column = getattr(error, "offset", None)
        place = f" at character {column}" if column else ""
        raise FieldError("name", f"is not complete or has a wrong sign{place}; write Name(argument=value, …)") from None
    if not isinstance(parsed, ast.Call):
        raise _wrong(parsed, "must be the name of a schedule with its arguments in parentheses")
    return _settings_of(parsed, 0)


def fill_settings(settings: Mapping[str, Any], is_name_alone: bool, learning_rate: float | None) -> dict[str, Any]:
    """Return settings with values for those that the user left open, so that the schedule spans the run.

    Args:
        settings: The table, whose curve is known. A user's schedule is returned as it is.
        is_name_alone: True to fill optional settings too, such as the factor of MultiFactor; False for an expression.
        learning_rate: The learning rate of the run, from which rates are filled; None to leave them open.

    Example:
        >>> fill_settings({"name": "OneCycleLR"}, True, 0.1)
        {'name': 'OneCycleLR', 'max_update_fraction': 1.0, 'max_lr': 0.1}
    """
    filled = dict(settings)
    added: set[str] = set()
    for spec, filling in _open_fields(settings):
        unit = filling.unit
        is_wanted = spec.default is MISSING or (is_name_alone and (not filling.beside or filling.beside in added))
        if is_wanted and unit != "learning_rate":
            key = spec.name if not unit else next(key for key, of in spellings_of(spec).items() if of == unit)
            filled[key] = filling.value
            added.add(spec.name)
        elif is_wanted and learning_rate is not None:
            filled[spec.name] = float(f"{filling.value * learning_rate:.15g}")
    return filled


def rates_to_fill(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the open settings that `fill_settings` takes from the learning rate of the run."""
    return [spec.name for spec, filling in _open_fields(settings) if filling.unit == "learning_rate"]


def missing_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return each required setting that is still open after `fill_settings`, with a message that has an example.

    The message is "" for a setting that belongs to the expression in the message of another.
    """
    curve = find_curve(settings["name"])
    missing = [
        spec
        for spec in fields(curve)
        if spec.default is MISSING and not set(spellings_of(spec)) & set(settings) and spec.name != "base_lr"
    ]
    held = next((spec.name for spec in missing if spec.metadata.get("role") in (CURVE, CURVES)), None)
    if held:
        # `base_lr` is left out: the run has a learning rate of its own.
        example = re.sub(r"base_lr=[\d.]+(, )?", "", repr(curve(**curve.example)))
        also = f'{curve.__name__} is made of others: write them as an expression, such as --schedule "{example}"'
        return {spec.name: f"missing; {also}" if spec.name == held else "" for spec in missing}
    return {
        spec.name: f"missing; {curve.__name__} needs it: add --set schedule.{example_setting(spec, curve.example)}, for example"
        for spec in missing
    }


def _open_fields(settings: Mapping[str, Any]) -> Iterator[tuple[Any, Filling]]:
    """Yield each field of the outermost curve that is not set and has a filling."""
    for spec in fields(find_curve(settings["name"])) if ":" not in settings["name"] else ():
        if (filling := spec.metadata.get("filling")) and not set(spellings_of(spec)) & set(settings):
            yield spec, filling


def _settings_of(call: ast.expr, depth: int) -> dict[str, Any]:
    """Return the settings of a schedule in an expression."""
    function = call.func if isinstance(call, ast.Call) else call
    name = _text_of(function)
    if not re.fullmatch(rf"[\w.{_COLON}]+", name):
        raise _wrong(function, "must be the name of a schedule")
    name = name.replace(_COLON, ":")
    settings: dict[str, Any] = {"name": name}
    if not isinstance(call, ast.Call):
        return settings
    for key, value in zip(_positional(name, call), call.args, strict=True):
        settings[key] = _value_of(value, depth + 1)
    for keyword in call.keywords:
        if keyword.arg is None:
            raise _wrong(keyword.value, "must be an argument of the form key=value")
        if keyword.arg in settings:
            raise _wrong(keyword.value, f"sets {keyword.arg} of {name} a second time; keep one of them")
        settings[keyword.arg] = _value_of(keyword.value, depth + 1)
    return {key: value for key, value in settings.items() if value is not None}  # None is the default of optional settings


def _positional(name: str, call: ast.Call) -> list[str]:
    """Return the keys of the arguments that have no name."""
    if not call.args:
        return []
    if ":" in name:
        raise _wrong(call.args[0], f"must be an argument of the form key=value, since {name} is your own")
    try:
        curve: type[Schedule] = find_curve(name)
    except ValueError as error:
        raise FieldError("name", str(error)) from None
    known = [spec.name for spec in fields(curve) if not spec.kw_only and spec.metadata.get("role") != STATE]
    if len(call.args) > len(known):
        sentence = f"{curve.__name__} takes {', '.join(known)}" if known else f"name the arguments of {curve.__name__}"
        raise _wrong(call.args[len(known)], f"is one argument too many without a name; {sentence}")
    return known[: len(call.args)]


def _value_of(node: ast.expr, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise FieldError("name", f"schedules and lists nest more than {MAX_DEPTH} deep")
    if isinstance(node, ast.List | ast.Tuple):
        return [_value_of(member, depth + 1) for member in node.elts]
    if isinstance(node, ast.Call | ast.Name | ast.Attribute):
        return _settings_of(node, depth)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = node.operand
        if not isinstance(number, ast.Constant) or isinstance(number.value, bool) or not isinstance(number.value, int | float):
            raise _wrong(number, f"must be a number; {_ALLOWED}")
        return -number.value if isinstance(node.op, ast.USub) else number.value
    if not isinstance(node, ast.Constant) or not isinstance(node.value, int | float | str | None):
        raise _wrong(node, f"is not allowed; {_ALLOWED}")
    return node.value


def _wrong(node: ast.expr, sentence: str) -> FieldError:
    return FieldError("name", f"{shown(_text_of(node).replace(_COLON, ':'))} {sentence}")


def _text_of(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except RecursionError:
        return "…"
