"""Altered parameters of finished runs."""

import io
import json
import math
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from fuzzing.case import MODEL_COMMANDS, Case
from fuzzing.values import (
    CONTROL,
    doubled,
    enlarged,
    flipped,
    inserted,
    replace_in_json,
    truncated,
)


def parameters(case: Case) -> None:
    """Alter the parameters of a finished run, and use them."""
    case.copy_finished()
    path = case.run / "model.params"
    alter = case.row(_PARAMETERS)
    case.alterations.append(alter.__name__)
    content = alter(case.chance, path.read_bytes())
    path.write_bytes(content)
    if case.number // len(_PARAMETERS) % 2:
        case.alterations.append("adapted SHA-256")
        with suppress(struct.error, ValueError, OverflowError):
            digest = parameters_digest(content)
            replace_in_json(case.run / "summary.json", ("parameters_sha256",), json.dumps(digest))
    case.picture()
    commands = [command for command in MODEL_COMMANDS if command[0] in ("predict", "evaluate", "export")]
    case.use(*case.chance.choice([commands[0], commands[0], *commands]))
    if case.arguments[0] == "evaluate" and case.chance.random() < 0.5:
        case.use("--test-images", "10")


_LIST_HEADER = 24


@dataclass(frozen=True)
class _Field:
    """A number in a file of parameters."""

    name: str
    offset: int
    layout: str


def _layout_of(content: bytes) -> tuple[list[_Field], list[tuple[int, int]]]:
    """Return the numbers in the headers of a file of parameters, and the start and the end of each array's values."""
    found = [_Field("magic", 0, "<Q"), _Field("reserved", 8, "<Q"), _Field("count", 16, "<Q")]
    values, place = [], _LIST_HEADER
    [count] = struct.unpack_from("<Q", content, 16)
    for _ in range(min(count, 100)):
        found += [_Field("array magic", place, "<I"), _Field("storage", place + 4, "<i"), _Field("dimensions", place + 8, "<i")]
        [dimensions] = struct.unpack_from("<i", content, place + 8)
        place += 12
        found += [_Field("dimension", place + 8 * number, "<q") for number in range(min(max(0, dimensions), 100))]
        shape = struct.unpack_from(f"<{min(max(0, dimensions), 100)}q", content, place)
        place += 8 * len(shape)
        found += [_Field(name, place + 4 * number, "<i") for number, name in enumerate(("device", "device number", "type"))]
        place += 12
        values.append((place, place + 4 * math.prod(shape)))
        place = values[-1][1]
    found.append(_Field("count of names", place, "<Q"))
    place += 8
    for _ in range(min(count, 100)):
        found.append(_Field("length of a name", place, "<Q"))
        place += 8 + struct.unpack_from("<Q", content, place)[0]
    return found, values


def parameters_digest(content: bytes) -> str:
    """Return the SHA-256 of the values in a file of parameters."""
    digest = sha256()
    for start, end in _layout_of(content)[1]:
        digest.update(content[start:end])
    return digest.hexdigest()


def _header_number(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for place in chance.sample(_layout_of(content)[0], chance.choice((1, 1, 2))):
        bits = 8 * struct.calcsize(place.layout)
        [now] = struct.unpack_from(place.layout, content, place.offset)
        value = chance.choice(
            (
                *(-1, 0, 1, 2, 3, 7, 33, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, now + 1, now - 1),
                *(now * 2**32, -now),
            )
        )
        value %= 2**bits
        if place.layout.islower() and value >= 2 ** (bits - 1):
            value -= 2**bits
        struct.pack_into(place.layout, changed, place.offset, value)
    return bytes(changed)


def _array_values(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    places = _layout_of(content)[1]
    value = chance.choice((math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 0.0, 1e30, -1.0))
    for start, end in chance.choice((places, places[-1:], places[:1], [chance.choice(places)])):
        last = end if chance.random() < 0.7 else start + 4
        changed[start:last] = struct.pack("<f", value) * ((last - start) // 4)
    return bytes(changed)


def _array_types(chance: random.Random, content: bytes) -> bytes:
    """Write all arrays with another type, and the values that belong to it."""
    kind, dtype = chance.choice(
        ((1, "<f8"), (2, "<f2"), (3, "u1"), (4, "<i4"), (5, "i1"), (6, "<i8"), (7, "?"), (12, "<u2"), (99, "<f4"), (-1, "<f4"))
    )
    pieces, before = [], 0
    for start, end in _layout_of(content)[1]:
        pieces += [
            content[before : start - 4],
            struct.pack("<i", kind),
            np.frombuffer(content[start:end], "<f4").astype(dtype).tobytes(),
        ]
        before = end
    return b"".join([*pieces, content[before:]])


def _names(chance: random.Random, content: bytes) -> bytes:
    names_at = next(place.offset for place in _layout_of(content)[0] if place.name == "count of names")
    names = [b"conv1.weight"] * 8 if chance.random() < 0.2 else [bytes(name) for name in _names_of(content, names_at)]
    other = chance.choice(
        (
            b"",
            b"\xff\xfe",
            b"\0",
            CONTROL.encode(errors="surrogatepass"),
            b"n" * 2000,
            b"../../victim",
            names[0],
            b"arg:" + names[0],
        )
    )
    names[chance.randrange(len(names))] = other
    if chance.random() < 0.3:
        chance.shuffle(names)
    return content[: names_at + 8] + b"".join(struct.pack("<Q", len(name)) + name for name in names)


def _names_of(content: bytes, place: int) -> Iterator[bytes]:
    [count] = struct.unpack_from("<Q", content, place)
    place += 8
    for _ in range(count):
        [length] = struct.unpack_from("<Q", content, place)
        yield content[place + 8 : place + 8 + length]
        place += 8 + length


def _other_format(chance: random.Random, content: bytes) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    return chance.choice(
        (b"", b"\0", b"\0" * 1000, stream.getvalue(), b"{}", content[:_LIST_HEADER], content[::-1], b"\x80\x04N.")
    )


_PARAMETERS: list[Callable[[random.Random, bytes], bytes]] = [
    _header_number,
    _array_values,
    flipped,
    _header_number,
    _names,
    _array_values,
    truncated,
    _array_types,
    _header_number,
    inserted,
    doubled,
    enlarged,
    _other_format,
]
