"""Reads picture files. A stranger may have made them, so their size, the memory and the time that they take are bounded.

Pillow decodes the pixels, but never sees the metadata, whose cost has no bound in every version: entries of an EXIF block may
refer to the same bytes, and Pillow 10.3 takes 800 MB for a block of 200 KB. `preprocessing` converts the pictures to MNIST
images.
"""

import io
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile

FORMATS = ("PNG", "JPEG", "BMP", "PGM")

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm")
"""File name extensions of `FORMATS`, in lower case."""

MAX_PIXELS = 50_000_000
"""Maximum number of pixels of a picture. A larger picture is refused by its header, before memory is allocated for it."""

MAX_SIDE = 65_535
"""Maximum width and height of a picture, as in JPEG. Rows of a single pixel, or a single row, take far more time and memory."""

MAX_BYTES = 256 * 2**20
"""Maximum number of bytes of a file or pipe. A picture of MAX_PIXELS pixels has fewer."""

MAX_SECONDS = 5
"""Maximum processor time for reading a picture. Most pictures of MAX_PIXELS pixels take less than one second."""

WORKING_SIDE = 512
"""Pictures are reduced so that their longer side has between 512 and 1023 pixels."""

_MAX_PARTS = 100_000  # chunks of a PNG file; segments of a JPEG file. A PNG of MAX_BYTES has 32,768 chunks of the usual size
_MAX_SCANS = 50  # of a JPEG picture. Each takes time for every pixel, even if it is empty; 1 to 24 are usual
_MAX_EXIF_BYTES = 2**16  # as in JPEG


class PictureError(ValueError):
    """The picture cannot be read, or shows no digit. The message is the reason, without the name of the picture."""


def read_picture(stream: IO[bytes], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a PNG, JPEG, BMP or PGM picture, and turn it upright according to its EXIF orientation.

    A large JPEG picture is decoded at a fraction of its size.

    Args:
        stream: The file, or a pipe.
        max_pixels: The maximum number of pixels.

    Returns:
        The picture, in any of Pillow's modes.

    Raises:
        PictureError: The file has another format or is damaged; it has more than `MAX_BYTES` bytes, more than `max_pixels`
            pixels, or more than `MAX_SIDE` in a row or column; or decoding it takes more than `MAX_SECONDS`.
        MemoryError: There is not enough memory.
        OSError: The file cannot be read.
    """
    if not stream.seekable():
        stream = io.BytesIO(stream.read(MAX_BYTES + 1))
    if stream.seek(0, os.SEEK_END) > MAX_BYTES:
        raise PictureError(f"the file has more than {MAX_BYTES // 2**20} MiB; make the picture smaller")
    stream.seek(0)
    prepare, decoder = _format(stream.read(8))
    stream.seek(0)
    with damage_reported():
        pixels, exif = prepare(stream)
        picture = decoder(_LimitedStream(pixels))
        _check_size(*picture.size, max_pixels)
        picture.draft(None, (WORKING_SIDE, WORKING_SIDE))
        picture.load()
        turn = _TURNS.get(_orientation(exif))
        return picture if turn is None else picture.transpose(turn)


@contextmanager
def damage_reported() -> Iterator[None]:
    """Raise PictureError instead of the exceptions of many types that Pillow raises for damaged pictures."""
    try:
        yield
    except (PictureError, MemoryError):
        raise
    except Exception as error:
        raise PictureError(f"the picture is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


class _LimitedStream:
    """A file that can be read until MAX_SECONDS of processor time have passed in this thread.

    Pillow decodes some formats in Python, byte by byte. Every decoder reads a block or less at a time, so this ends it in time.

    Args:
        stream: The file, which must be seekable.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        stream.seek(0)
        self._stream = stream
        self._until = time.thread_time() + MAX_SECONDS
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = MAX_BYTES) -> bytes:
        if time.thread_time() > self._until:
            raise PictureError(f"reading the picture takes more than {MAX_SECONDS} s; make it smaller, or save it as PNG")
        return self._stream.read(size)


def _format(begin: bytes) -> "_Format":
    """Return the functions for a file that begins with these bytes."""
    if not begin:
        raise PictureError("the file is empty; name a PNG, JPEG, BMP or PGM picture")
    for magic, prepare, decoder in _MAGIC_NUMBERS:
        if begin.startswith(magic):
            return prepare, decoder
    if begin.startswith((b"P1", b"P2", b"P3")):
        raise PictureError("a PGM picture in plain text is not supported; save it in the binary form, which begins with P5")
    raise PictureError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    size = f"the picture has {width:,}×{height:,} pixels"
    if width * height > max_pixels:
        raise PictureError(f"{size}, more than the {max_pixels:,} allowed; make it smaller")
    if max(width, height) > MAX_SIDE:
        raise PictureError(f"{size}; a side may have at most {MAX_SIDE:,}")


# --- the parts of a file that the pixels depend on

_Parts = tuple[IO[bytes], bytes]
"""A file without metadata, and the EXIF block of the original file or b""."""

_Format = tuple[Callable[[IO[bytes]], _Parts], Callable[[Any], ImageFile]]
"""A function that takes the parts from a file, and the function that decodes the first of them."""


def _prepare_png(stream: IO[bytes]) -> _Parts:
    pixels, exif = io.BytesIO(), b""
    pixels.write(stream.read(8))
    for _ in range(_MAX_PARTS):
        head = stream.read(8)
        length, kind = min(int.from_bytes(head[:4]), MAX_BYTES), head[4:]
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            pixels.write(head)
            pixels.write(stream.read(length + 4))
        elif kind == b"eXIf" and length <= _MAX_EXIF_BYTES:
            exif = stream.read(length)
            stream.seek(4, os.SEEK_CUR)
        else:
            stream.seek(length + 4, os.SEEK_CUR)
        if kind in (b"IEND", b""):
            return pixels, exif
    raise PictureError(f"the picture is damaged (more than {_MAX_PARTS:,} chunks)")


_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xda-\xfe])(..)", re.DOTALL)  # the marker, and the length of the rest in two bytes
_NEEDED_SEGMENTS = re.compile(rb"[\xc0-\xcf\xdb-\xdd\xe0\xee]")  # frames, tables, and the colour space in APP0 and APP14


def _prepare_jpeg(stream: IO[bytes]) -> _Parts:
    content = stream.read()
    pixels, exif, place = io.BytesIO(), b"", 2
    pixels.write(content[:2])
    for _ in range(_MAX_PARTS):
        segment = _SEGMENT.search(content, place)
        if not segment:
            break
        start, marker, place = segment.start(), segment[1], segment.end() - 2 + int.from_bytes(segment[2])
        if marker == b"\xda":  # the first scan. In the pixels, 0 follows each byte 255, so that markers can be found
            end = content.find(b"\xff\xd9", start) + 2
            end = end if end > 1 else len(content)
            if content.count(b"\xff\xda", start, end) > _MAX_SCANS:
                raise PictureError(f"the picture is damaged (more than {_MAX_SCANS} scans)")
            pixels.write(memoryview(content)[start:end])
            break
        if _NEEDED_SEGMENTS.match(marker):
            pixels.write(content[start:place])
        elif marker == b"\xe1" and content.startswith(b"Exif\0\0", segment.end()):
            exif = exif or content[segment.end() + 6 : place]
    return pixels, exif


def _prepare_other(stream: IO[bytes]) -> _Parts:
    return stream, b""


_MAGIC_NUMBERS: tuple[tuple[bytes, *_Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", _prepare_png, PngImageFile),
    (b"\xff\xd8\xff", _prepare_jpeg, JpegImageFile),
    (b"BM", _prepare_other, BmpImageFile),
    (b"P4", _prepare_other, PpmImageFile),
    (b"P5", _prepare_other, PpmImageFile),
    (b"P6", _prepare_other, PpmImageFile),
)
"""The first bytes of each format, and the functions that prepare and decode its files. PpmImageFile also reads other formats,
whose decoders take too long or return levels without bounds.
"""


# --- the orientation

_ORIENTATION = 0x0112  # the tag's number

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns a picture of each orientation upright."""


def _orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block; 1, which means upright, if it has none or is damaged."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order:
        with suppress(struct.error):  # the block ends early
            (start,) = struct.unpack_from(f"{order}L", exif, 4)
            (count,) = struct.unpack_from(f"{order}H", exif, start)
            for entry in range(count):
                tag, _, _, value = struct.unpack_from(f"{order}HHLH", exif, start + 2 + 12 * entry)
                if tag == _ORIENTATION:
                    return int(value)
    return 1
