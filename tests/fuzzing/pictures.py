"""Hostile pictures, for `predict` and for the server of `demo`."""

import io
import math
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from fuzzing.case import DIGITS, Case, make_socket
from fuzzing.values import (
    CONTROL,
    doubled,
    flipped,
    inserted,
    truncated,
)


def picture(case: Case) -> None:
    """Make pictures, and let `predict` or the server of `demo` read them."""
    shutil.copytree(case.library.finished, case.run)
    is_demo = case.number % 12 == 11
    for number in range(6 if is_demo else 1):
        make = _PICTURES[(case.number + 37 * number) % len(_PICTURES)]
        case.alterations.append(make.__name__)
        path = make(case, case.cwd / f"picture{number}{case.chance.choice(('.png', '.jpg', '.bmp', '.pgm', '', '.PNG'))}")
        case.pictures.append(path)
    if is_demo:
        case.pictures = [path for path in case.pictures if path.is_file() and not path.is_symlink()]
        case.use("demo", case.run, "--port", "0")
    elif case.number % 12 == 5:
        case.stdin = case.pictures[0] if case.pictures[0].is_file() else case.stdin
        case.use("predict", case.run, "-")
    else:
        case.use("predict", case.run, *case.pictures, *case.chance.choice(((), ("--json",), ("--show",), ("--json", "--show"))))


_MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"),
    *("I;16B", "I;16L"),
)
_FORMATS = (
    *("PNG", "JPEG", "BMP", "PPM", "GIF", "TIFF", "WEBP", "ICO", "TGA", "PCX", "JPEG2000", "SGI", "MSP", "PDF", "DIB", "IM"),
    *("SPIDER", "EPS", "DDS"),
)
_SIZES = ((1, 1), (1, 2), (2, 1), (1, 3000), (3000, 1), (27, 28), (28, 28), (300, 300), (1023, 1025), (1, 60_000), (2500, 1900))


def _any_image(chance: random.Random, mode: str, size: tuple[int, int]) -> Image.Image:
    """Return a picture of a mode: a digit, noise or a single colour."""
    choice = chance.random()
    if choice < 0.6:
        picture = Image.open(io.BytesIO(chance.choice(DIGITS))).convert("RGB").resize(size)
    elif choice < 0.8:
        noise = chance.randbytes(3 * min(size[0] * size[1], 10_000))
        picture = Image.frombytes("RGB", (len(noise) // 3, 1), noise).resize(size)
    else:
        picture = Image.new("RGB", size, (chance.randrange(256),) * 3)
    for through in ((), ("L",), ("RGBA",), ("LA",), ("RGBA", "RGBa"), ("LA", "La"), ("L", "I")):
        with suppress(ValueError):
            for step in (*through, mode):
                picture = picture.convert(step)
            return picture
    return picture


def _image_file(case: Case, path: Path) -> Path:
    """Write a picture of any mode, format and size."""
    mode, format_ = case.chance.choice(_MODES), case.chance.choice((*_FORMATS, "PNG", "PNG", "JPEG", "BMP", "PPM", "TIFF"))
    image = _any_image(case.chance, mode, case.chance.choice(_SIZES))
    case.alterations.append(f"{image.mode} {format_} {image.size}")
    options: dict[str, Any] = (
        {"transparency": case.chance.choice((0, 5, 255))} if format_ == "PNG" and image.mode in ("L", "P") else {}
    )
    try:
        image.save(path, format_, **options)
    except (OSError, ValueError, KeyError, TypeError, SystemError):  # the format has no such mode
        _any_image(case.chance, "L", image.size).save(path, "PNG")
    return path


def _exif(case: Case, path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = case.chance.choice((*range(10), 65535, 3, 6, 8))
    content = exif.tobytes()
    if case.chance.random() < 0.4:
        content = case.chance.choice((flipped, truncated, inserted))(case.chance, content)
    with suppress(Exception):
        _any_image(case.chance, "RGB", (60, 40)).save(path, case.chance.choice(("JPEG", "PNG")), exif=content)
    return path if path.exists() else _text_file(case, path)


def _png_chunks(case: Case, path: Path) -> Path:
    """Write a PNG with a hostile chunk, or with a header that claims another size, depth or type."""
    chance = case.chance
    sizes = (
        *((0, 0), (0, 5), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (60_000, 60_000), (7100, 7100), (10_000, 10_000)),
        *((2**32 - 1, 1), (28, 28), (28, 28)),
    )
    width, height = chance.choice(sizes)
    header = struct.pack(
        ">IIBBBBB",
        width,
        height,
        chance.choice((8, 8, 8, 1, 16, 3)),
        chance.choice((0, 0, 2, 3, 6, 5)),
        0,
        0,
        chance.choice((0, 1, 7)),
    )
    bomb = zlib.compress(b"\0" * 30_000_000, 9)
    extra = chance.choice(
        (
            *((b"zTXt", b"x\0\0" + bomb), (b"iCCP", b"x\0\0" + bomb), (b"iTXt", b"x\0\1\0\0\0" + bomb)),
            *((b"PLTE", b"\0" * chance.choice((0, 2, 3, 769))), (b"tRNS", b"\0" * chance.choice((0, 1, 300)))),
            *((b"eXIf", chance.randbytes(50)), (b"acTL", struct.pack(">II", 2**31, 2**31)), (b"fcTL", b"\0" * 26)),
            *((b"IHDR", header), (b"pHYs", b"\xff" * 9), (b"gAMA", b"\0\0\0\0"), (b"\x1b[31", b"x"), (b"IEND", b"")),
        )
    )
    data = chance.choice(
        (zlib.compress(b"\0" * min(width * height * 4 + height, 2_000_000)), b"", chance.randbytes(1000), bomb)
    )
    chunks = [(b"IHDR", header), extra, (b"IDAT", data), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, *zip(*chunks, strict=True))))
    case.is_large = True
    return path


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _large_png(case: Case, path: Path) -> Path:
    """Write a picture with nearly as many pixels as are allowed, which compress well."""
    mode = case.chance.choice(("1", "L", "RGB", "RGBA", "I;16", "P", "LA"))
    size = case.chance.choice(((7000, 7000), (49_999_999, 1), (1, 49_999_999), (100_000, 499), (8000, 8000), (20_000, 5000)))
    image = Image.new(mode, size)
    image.paste(
        Image.new(mode, (max(1, size[0] // 4), max(1, size[1] // 4)), 1 if mode not in ("RGB", "RGBA", "LA") else "white"),
        (size[0] // 3, size[1] // 3),
    )
    image.save(path, "PNG", compress_level=1)
    case.alterations.append(f"{mode} {size}")
    case.is_large = True
    return path


def _header_of_a_large_picture(case: Case, path: Path) -> Path:
    """Write a header that claims many pixels, without them."""
    width, height = case.chance.choice(
        ((7000, 7000), (49_999_999, 1), (65_535, 65_535), (2**31 - 1, 2**31 - 1), (10**9, 10**9), (0, 0), (-1, 5))
    )
    kind = case.chance.choice(("P1", "P2", "P3", "P4", "P5", "P6", "PF", "Pf", "P7", "P0", "Py", "BM", "JPEG"))
    if kind == "BM":
        bits = case.chance.choice((1, 4, 8, 16, 24, 32, 0, 99))
        info = struct.pack(
            "<IiiHHIIiiII",
            case.chance.choice((40, 12, 124, 0, 2**31)),
            width % 2**31,
            height % 2**31,
            1,
            bits,
            case.chance.choice((0, 1, 2, 3, 9)),
            *(0, 1, 1, 0, 0),
        )
        path.write_bytes(b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + info + b"\0" * 100)
    elif kind == "JPEG":
        content = bytearray(_jpeg())
        place = content.index(b"\xff\xc0") + 5
        struct.pack_into(">HH", content, place, height % 65536, width % 65536)
        path.write_bytes(content)
    else:
        largest = case.chance.choice((255, 65535, 1, 0, -1, 10**30, "x"))
        path.write_bytes(
            f"{kind}\n{width} {height}\n{largest}\n".encode() + case.chance.choice((b"", b"\0" * 10_000, b"1 " * 10_000))
        )
    case.is_large = True
    return path


def _jpeg(**options: Any) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(DIGITS[5])).convert("RGB").resize((64, 64)).save(stream, "JPEG", **options)
    return stream.getvalue()


def _many_scans(case: Case, path: Path) -> Path:
    """Write a progressive JPEG whose last scan is repeated thousands of times."""
    content = bytearray(_jpeg(progressive=True))
    if case.chance.random() < 0.7:
        place = content.index(b"\xff\xc2") + 5
        struct.pack_into(">HH", content, place, *case.chance.choice(((64, 64), (4000, 4000), (7000, 7000), (65_000, 700))))
    scan = content[content.rindex(b"\xff\xda") : -2]
    content[-2:-2] = scan * case.chance.choice((10, 1000, 10_000, 100_000))
    path.write_bytes(content)
    case.is_large = True
    return path


def _plain_pnm(case: Case, path: Path) -> Path:
    width, height = case.chance.choice(((1, 1), (28, 28), (0, 5), (1, 0), (300, 20), (2000, 2000)))
    kind = case.chance.choice(("P1", "P2", "P3", "P5", "P6", "PF", "Pf"))
    number = case.chance.choice(("0", "1", "255", "-1", "256", "9" * 5000, "nan", "x", "1.5", "\x1b[31m"))
    between = case.chance.choice((" ", "\n", "\t", "\r", "# comment\n", "#" + "c" * 5000 + "\n", ""))
    body = between.join([number, "1", "0"] * min(width * height, 100_000))
    scale = case.chance.choice(("255", "65535", "65536", "0", "-1.0", "1e38", "nan", "9" * 5000, ""))
    content = f"{kind}{between}{width}{between or ' '}{height}{between or ' '}{scale}\n{body}".encode()
    if kind in ("PF", "Pf"):
        content = f"{kind}\n{width} {height}\n-1.0\n".encode() + case.chance.choice(
            (struct.pack("<f", math.nan), struct.pack("<f", 3e38), struct.pack("<ff", math.inf, 1.0))
        ) * (width * height * 3)
    path.write_bytes(content)
    return path


def _levels(case: Case, path: Path) -> Path:
    """Write levels at the ends of the range of 16 bits, 32 bits or floats."""
    values = case.chance.choice(
        ((0, 65535), (65534, 65535), (-(2**31), 2**31 - 1), (0.0, 3e38), (math.nan, 1.0), (math.inf, -math.inf), (1e-45, 0.0))
    )
    mode = "F" if isinstance(values[0], float) else "I"
    image = Image.new(mode, (40, 40), values[0])
    image.paste(values[1], (10, 5, 20, 35))
    try:
        image.save(path, case.chance.choice(("TIFF", "PPM", "PNG")) if mode == "I" else case.chance.choice(("TIFF", "PPM")))
    except (OSError, ValueError, struct.error):
        return _text_file(case, path)
    return path


def _damaged(case: Case, path: Path) -> Path:
    image = _any_image(case.chance, case.chance.choice(("RGB", "L", "1")), (64, 64))
    stream = io.BytesIO()
    image.save(stream, case.chance.choice(("PNG", "BMP", "PPM", "GIF", "TIFF")))
    content = case.chance.choice((stream.getvalue(), _jpeg(), _jpeg(progressive=True), stream.getvalue()))
    path.write_bytes(case.chance.choice((truncated, flipped, inserted, doubled))(case.chance, content))
    return path


def _text_file(case: Case, path: Path) -> Path:
    path.write_bytes(
        case.chance.choice(
            (b"", b"\0", b"hello\n", b"<svg/>", b"P", b"P5", b"BM", b"\xff\xd8", b"\x89PNG", CONTROL.encode(), b"x" * 1_000_000)
        )
    )
    return path


def _large_file(case: Case, path: Path) -> Path:
    """Write a sparse file that is longer than the memory."""
    with path.open("wb") as stream:
        stream.write(case.chance.choice((b"", b"P5\n5 5\n255\n", DIGITS[3], b"P2\n7000 7000\n255\n")))
        stream.truncate(case.chance.choice((300 * 2**20, 255 * 2**20, 100 * 2**30)))
    case.is_large = True
    return path


def _not_a_file(case: Case, path: Path) -> Path:
    """Name something other than a regular file."""
    kind = case.chance.choice(
        (
            *("pipe", "socket", "folder", "loop", "dangling", "/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem"),
            *("/dev/tty", "link", "name"),
        )
    )
    case.alterations.append(kind)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        make_socket(path)
    elif kind == "folder":
        path.mkdir()
        os.mkfifo(path / "pipe.png")
        (path / "loop.png").symlink_to("loop.png")
        (path / f"a{CONTROL}.png".replace("/", "")).write_bytes(DIGITS[3])
        (path / "\udcff.png").write_bytes(DIGITS[3])
        (path / "zero.png").symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "name":
        path = path.with_name(
            case.chance.choice(("a\nb.png", "--help.png", f"{CONTROL}.png", "\udcff.png", "é" * 100, "%s%n.png")).replace(
                "/", ""
            )
        )
        path.write_bytes(DIGITS[3])
    else:
        path.symlink_to(case.victim / "photo.png" if kind == "link" else kind)
    return path


_PICTURES: list[Callable[[Case, Path], Path]] = [
    _image_file,
    _png_chunks,
    _exif,
    _damaged,
    _image_file,
    _header_of_a_large_picture,
    _plain_pnm,
    _damaged,
    _not_a_file,
    _levels,
    _image_file,
    _many_scans,
    _text_file,
    _damaged,
    _large_png,
    _plain_pnm,
    _png_chunks,
    _large_file,
    _image_file,
]
