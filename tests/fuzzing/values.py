"""Hostile texts, numbers, bytes and JSON for all kinds of cases."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

CONTROL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\r\x08\x9b5m\u202e"
"""Characters that would change a terminal's title, contents and colour."""

HUGE = "9" * 400

TEXTS = [
    *("", " ", "-", "--", "=", ",", ",,,", ":", ".", "..", "~", "*", "%s%n%d", "{0}", "${HOME}", "$(touch mark)", "\\"),
    *("'", '"'),
    *("-1", "0", "-0", "1", "2", "1.5", "1e3", "1e308", "-1e308", "5e-324", "nan", "inf", "-inf", "0x10", "1_0", "１２"),
    *("٣", "½", "1,2"),
    *("2147483647", "2147483648", "4294967296", "9223372036854775807", "18446744073709551616", HUGE, "9" * 5000, f"-{HUGE}"),
    *("true", "false", "null", "None", "[]", "[1]", "{}", "{a = 1}", "[[", "]]", "1979-05-27", "07:32:00", "é", "日本"),
    *("😀", "\u202e\u0000x"),
    CONTROL,
    *("\x1b[31m", "a\nb", "\n", "\t", "\r", "\x7f", "\udcff", "\udcff\udcfe", "\ufeff", "a" * 300, "a" * 100_000),
    "[" * 3000,
    *("cpu", "gpu", "gpu:0", "cpu:0,0", "auto", "optimizer", "manual", "sgd", "adam", "Cosine", "all", "tutorial"),
    *("quick", "onnx"),
    *("{" * 3000, "a." * 3000 + "a", "--help", "--version", "--set", "-h", "-x", "@file", "/dev/zero\n", "..\\.."),
    "file:///etc/passwd",
]
"""Hostile texts for any flag. NUL cannot be part of an argument; it is removed there."""

PATHS = [
    *("/", ".", "..", "/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/stdin", "/proc/self/mem"),
    *("/proc/self/environ", "/proc"),
    *("/proc/self/fd", "/sys/kernel", "../victim", "../victim/diary.txt", "../victim/link", "run/config.toml"),
    "run/model.params",
    *("run/checkpoints", "run/", "./run", "run//.", "link", "loop", "dangling", "pipe", "socket", "digit.png"),
    *("digit.png/", "missing/x"),
    f"{CONTROL.replace('/', '')}.toml",
    *("a\nb.toml", "\udcff.toml", "n" * 255, "n" * 256, "d/" * 2000 + "x", "x" * 5000, "-", " ", "*"),
]
"""Paths that a command may be asked to read."""

NEW_PATHS = [
    *(".", "run", "digit.png", "digit.png/x", "../victim", "/dev/null", "/proc/x", "n" * 256, "d/" * 2000 + "x", "", " "),
    *("~", "a\nb", "\udcff"),
    CONTROL,
]
"""Paths that a command may be asked to write. Those that can be written are in the current folder."""

NUMBERS = [
    *("-1", "0", "1", "2", "3", "7", "1.5", "-0.0", "1e-300", "5e-324", "1e38", "1e39", "1e308", "-1e308", "nan", "inf"),
    "-inf",
    *("2147483648", "9223372036854775807", "9223372036854775808", "1" + "0" * 30, HUGE, f"-{HUGE}", "0x" + "f" * 4000),
]

LITERALS = [
    *NUMBERS,
    *("true", '""', '"a"', '"\\u001b[31m"', '"\\u0000"', '"\\n\\r\\b"', '"\\U0010ffff"', '"' + "x" * 10_000 + '"'),
    *('"math:pi"', '"json:loads"'),
    *("[]", "[1]", "[[1], [2]]", "[nan]", "['a', 1]", "{}", "{a = 1}", "{name = 'Constant'}", "{name = {name = {}}}", "[{}]"),
    *("1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "'''\n'''", '"""\na\\\n b"""', "0b1", "0o7", "+1", "1_000"),
    *("[" + "1, " * 20_000 + "]", "[" * 200 + "]" * 200, "[" * 20_000 + "]" * 20_000, "{a = " * 200 + "1" + "}" * 200),
    *("[" + "{name = 'Constant'}, " * 2000 + "]", "{" + ", ".join(f"k{number} = 1" for number in range(3000)) + "}"),
]
"""Values as TOML."""

JSON_VALUES = [
    *("null", "true", "-1", "0", "1", "0.5", "1e308", "-1e308", "1e400", "NaN", "Infinity", "-Infinity"),
    HUGE,
    f"-{HUGE}",
    "9" * 5000,
    *("2147483648", "4611686018427387904", "9223372036854775807", "18446744073709551616", '""', '"a"', '"\\u001b[31m"'),
    '"\\ud800"',
    *("[]", "[null]", "[1, 2]", "{}", '{"a": 1}', "[[[[]]]]", "[" * 500 + "]" * 500, "[" * 50_000 + "]" * 50_000),
    '"' + "x" * 100_000 + '"',
    "[" + "0, " * 50_000 + "0]",
    '{"a": 1, "a": 2}',
]
"""Values as JSON, or as Python's parser would accept them."""


def truncated(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def flipped(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 3, 30))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def inserted(chance: random.Random, content: bytes) -> bytes:
    place = chance.randrange(len(content) + 1)
    piece = chance.choice(
        (
            *(b"\0", b"\xff\xfe", b"\x1b[31m", b"\r", b"[", b"]" * 5000, b"[[x]]\n", b"\x7f", b'"', b"'''", b"#" * 10_000),
            b"\n" * 1000,
        )
    )
    return content[:place] + piece + content[place:]


def doubled(_: random.Random, content: bytes) -> bytes:
    return content + content


def recoded(chance: random.Random, content: bytes) -> bytes:
    return (
        b"\xef\xbb\xbf" + content
        if chance.random() < 0.3
        else content.decode().encode(chance.choice(("utf-16", "utf-32", "utf-7", "cp037")))
    )


def enlarged(chance: random.Random, content: bytes) -> bytes:
    return content + chance.choice((b"#", b"\0", b"\n", b"[a]\n")) * chance.choice((1000, 300_000, 2_000_000))


def emptied(chance: random.Random, _: bytes) -> bytes:
    return chance.choice((b"", b"\n", b"\0" * 100, b"{}", b"null", b"\x89PNG\r\n"))


Place = tuple[str | int, ...]
"""The keys and indices that lead to a value in JSON."""


def places_in(value: Any, before: Place = ()) -> Iterator[Place]:
    """Yield the places in JSON. Of a long list, only the first two and the last."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [(number, value[number]) for number in sorted({0, 1, len(value) - 1}) if 0 <= number < len(value)]
    for name, held in items:
        yield (*before, name)
        yield from places_in(held, (*before, name))


def replace_in_json(path: Path, place: Place, value: str) -> None:
    content = json.loads(path.read_bytes())
    holder = content
    for name in place[:-1]:
        with suppress(LookupError, TypeError):
            holder = holder[name]
    with suppress(LookupError, TypeError):  # an earlier alteration has replaced its parent
        holder[place[-1]] = "\0here"
    path.write_text(json.dumps(content).replace('"\\u0000here"', value), encoding="utf-8")
