"""The IDX format of the MNIST files, packed with gzip or not: reads headers and arrays of unsigned bytes.

Source of the format: http://yann.lecun.com/exdb/mnist, section "File formats". Needs numpy but not MXNet.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_TYPES = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
_UNSIGNED_BYTES = 0x08

_MAX_HEADER_BYTES = 4 + 4 * 255


class IdxError(ValueError):
    """The content is not the expected one. The message has the form "expected …, found …"."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")


class Header(NamedTuple):
    """The header of an IDX file.

    Attributes:
        element_type: The code of the type of an element.
        shape: The shape of the array.
    """

    element_type: int
    shape: tuple[int, ...]

    def __str__(self) -> str:
        name = _TYPES.get(self.element_type, "elements of an unknown type")
        return f"{name} (IDX type 0x{self.element_type:02X}) of shape {shape_text(self.shape)}"

    @property
    def content(self) -> bytes:
        """The bytes of the header."""
        return struct.pack(f">2xBB{len(self.shape)}I", self.element_type, len(self.shape), *self.shape)


def header_of(shape: tuple[int, ...]) -> Header:
    """Return the header of an array of unsigned bytes."""
    return Header(_UNSIGNED_BYTES, shape)


def unpacked_bytes(shape: tuple[int, ...]) -> int:
    """Return the length of the unpacked content of a file with an array of unsigned bytes."""
    return 4 + 4 * len(shape) + math.prod(shape)


def read_content(stream: BufferedReader, shape: tuple[int, ...]) -> bytes:
    """Read the content of a file, unpacked if it is packed with gzip. No more than its header is unpacked if that is wrong.

    Args:
        stream: The file.
        shape: The shape that the array must have.

    Returns:
        The header and the elements.

    Raises:
        IdxError: The content is not an array of unsigned bytes in this shape, or the gzip file is damaged.
        OSError: The file cannot be read.
    """
    with _unpacking(stream) as unpacked:
        begin = unpacked.read(_MAX_HEADER_BYTES)
        header, expected = _parse_header(begin), header_of(shape)
        if header != expected:
            raise IdxError(str(expected), str(header))
        length = unpacked_bytes(shape)
        content = begin + unpacked.read(max(length + 1 - len(begin), 0))  # at the end of the file, gzip checks its checksum
    if len(content) != length:
        raise IdxError(f"{length:,} unpacked bytes", "more" if len(content) > length else f"{len(content):,}")
    return content


def read_header(stream: BufferedReader) -> Header:
    """Read the header at the beginning of a file, which may be packed with gzip.

    Raises:
        IdxError: There is no complete header, or the gzip file is damaged.
        OSError: The file cannot be read.
    """
    with _unpacking(stream) as unpacked:
        return _parse_header(unpacked.read(_MAX_HEADER_BYTES))


def array_of(content: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the array in the content of a file, from `read_content`."""
    return np.frombuffer(content, np.uint8, offset=len(header_of(shape).content)).reshape(shape)


def _parse_header(content: bytes) -> Header:
    zeros, element_type, dimensions = struct.unpack(">HBB", content[:4]) if len(content) >= 4 else (1, 0, 0)
    if zeros or not dimensions:
        raise IdxError("an IDX header", f"the first bytes {content[:4].hex(' ')}" if content else "an empty file")
    length = 4 + 4 * dimensions
    if len(content) < length:
        raise IdxError(f"an IDX header of {length:,} bytes", f"{len(content):,} bytes in total")
    return Header(element_type, struct.unpack(f">{dimensions}I", content[4:length]))


@contextmanager
def _unpacking(stream: BufferedReader) -> Iterator[BufferedReader | gzip.GzipFile]:
    """Yield the stream of a file's unpacked content."""
    if stream.peek(2)[:2] != b"\x1f\x8b":
        yield stream
        return
    try:
        with gzip.GzipFile(fileobj=stream) as unpacked:
            yield unpacked
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise IdxError("a complete gzip file", f"a damaged one ({error})") from error


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as text, such as 60,000×28×28."""
    return "×".join(f"{length:,}" for length in shape)
