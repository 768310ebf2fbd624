"""Reading of picture files: formats, orientations, and files that are damaged, too large, or made to take memory or time."""

import contextlib
import io
import itertools
import os
import random
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot
from drawn_digits import Picture, saved, seven
from PIL import Image, ImageDraw
from programs import run_python

from mnist_trainer.inference import pictures
from mnist_trainer.inference.pictures import MAX_PIXELS, MAX_SIDE, PictureError, read_picture
from mnist_trainer.inference.preprocessing import mnist_image


def read(content: bytes) -> Picture:
    return read_picture(io.BytesIO(content))


def levels_of(picture: Picture) -> Any:
    return np.asarray(picture.convert("L")).astype(int)


# --- formats


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("png", mode) for mode in ("1", "P", "LA", "RGBA")),
        *(("bmp", mode) for mode in ("1", "L", "RGB", "RGBA")),
        *(("ppm", mode) for mode in ("1", "L", "RGB")),
        *(("jpeg", mode) for mode in ("L", "RGB", "CMYK")),
    ],
)
def test_the_pixels_are_those_of_the_file(kind: str, mode: str) -> None:
    content = saved(seven().convert(mode), kind).getvalue()
    assert np.array_equal(levels_of(read(content)), levels_of(Image.open(io.BytesIO(content))))


def test_a_pgm_of_other_depths_is_read() -> None:
    levels = np.asarray(seven())
    deep = b"P5 200 160 65535\n" + (levels.astype(">u2") * 257).tobytes()
    shallow = b"P5\n# made by hand\n200 160 999\n" + (levels.astype(">u2") * 3).tobytes()
    for content in (deep, shallow):
        assert np.abs(np.asarray(read(content)) / 257 - levels).max() < 60  # 255 × 3 of 999 levels is a light grey


def test_a_run_length_encoded_bmp_is_read() -> None:
    rows = b"\0\0".join([b"\x0a\xff", b"\x04\x00\x06\xff"])  # the lowest row first
    header = struct.pack("<IiiHHIIiiII", 40, 10, 2, 1, 8, 1, len(rows), 0, 0, 0, 0)
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    content = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + len(palette)) + header + palette + rows
    assert levels_of(read(content)).tolist() == [[0] * 4 + [255] * 6, [255] * 10]


def test_cameras_files_of_several_pictures_are_read() -> None:
    content = io.BytesIO()
    seven().save(content, "MPO", save_all=True, append_images=[Image.new("L", (30, 30))])
    assert np.abs(levels_of(read(content.getvalue())) - levels_of(seven())).mean() < 2
    animation = saved(seven(), save_all=True, append_images=[Image.new("L", (200, 160))], default_image=True)
    assert np.array_equal(levels_of(read(animation.getvalue())), levels_of(seven()))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_the_exif_orientation_is_applied(kind: str, orientation: int, endian: str) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    turned = seven().transpose(turns[orientation]) if orientation in turns else seven()
    found = read(saved(turned, kind, exif=exif).getvalue())
    assert found.size == (200, 160)
    assert np.abs(levels_of(found) - levels_of(seven())).mean() < 2


# --- files that are not pictures, and damaged ones

NOT_A_PICTURE = "PNG, JPEG, BMP or PGM"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"seven", id="text"),
        pytest.param(bytes(range(256)) * 40, id="bytes"),
        pytest.param(saved(seven(), "gif").getvalue(), id="another format"),
        pytest.param(saved(seven(), "tiff").getvalue(), id="a TIFF"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", id="a program"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="an SVG"),
        pytest.param(b"Pf\n1 1\n-1.0\n" + struct.pack("<f", float("nan")), id="levels that are not numbers"),
        pytest.param(b"PF\n1 1\n-1.0\n" + struct.pack("<fff", 1e38, float("inf"), 0), id="colours without bounds"),
        pytest.param(b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n\0", id="a PAM"),
        pytest.param(b"P0CMYK\n1 1\n255\n\0\0\0\0", id="Pillow's own format"),
        pytest.param(b"PyRGBA\n1 1\n255\n\0\0\0\0", id="another of Pillow's own formats"),
    ],
)
def test_a_file_that_is_not_a_picture_is_refused(content: bytes) -> None:
    with pytest.raises(PictureError, match=NOT_A_PICTURE):
        read(content)


@pytest.mark.parametrize("content", [b"P1 1 1 0", b"P2 1 1 255 7", b"P3 1 1 255 7 7 7", b"P2\n" + b"#\n" * 2**20])
def test_pgm_in_plain_text_is_refused(content: bytes) -> None:
    with pytest.raises(PictureError, match=r"plain text .*P5"):
        read(content)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file of these chunks, each a kind and its data."""
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def header(width: int, height: int, colours: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)


PIXELS = [(b"IDAT", zlib.compress(b"\0\0" * 2)), (b"IEND", b"")]
"""The last chunks of a PNG file of 1×2 pixels."""


def with_segment(marker: int, data: bytes, picture: Picture | None = None) -> bytes:
    """Return a JPEG file that begins with this segment."""
    content = saved(picture or seven(), "jpeg").getvalue()
    return content[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + content[2:]


WHOLE: dict[str, bytes] = {
    f"{kind} {mode}": saved(seven().convert(mode), kind, **arguments).getvalue()
    for kind, mode, arguments in list[tuple[str, str, dict[str, Any]]](
        [
            ("png", "1", {}),
            ("png", "L", {}),
            ("png", "P", {"transparency": 255}),
            ("png", "LA", {}),
            ("png", "RGB", {"transparency": (255, 255, 255)}),
            ("png", "RGBA", {}),
            ("png", "I;16", {}),
            ("jpeg", "L", {}),
            ("jpeg", "RGB", {"progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}),
            ("jpeg", "CMYK", {}),
            ("bmp", "1", {}),
            ("bmp", "P", {}),
            ("bmp", "RGB", {}),
            ("ppm", "1", {}),
            ("ppm", "L", {}),
            ("ppm", "RGB", {}),
        ]
    )
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_picture_is_converted_or_refused(name: str) -> None:
    whole = WHOLE[name]
    chance = random.Random(0)
    outcomes = []
    for _ in range(100):
        spoiled = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            spoiled[int(len(whole) * chance.random() ** 3)] = chance.randrange(256)  # most of them in the header
        if chance.random() < 0.3:
            del spoiled[chance.randrange(len(spoiled)) :]
        if name.startswith("png"):
            spoiled = bytearray(with_checksums(bytes(spoiled)))  # otherwise they would be the only damage that is found
        try:
            with warnings.catch_warnings(record=True) as shown:
                warnings.simplefilter("always")
                assert mnist_image(read(bytes(spoiled))).shape == (28, 28)
            outcomes.append("image")
        except PictureError as error:
            assert len(str(error)) > 25  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            outcomes.append("message")
        assert not shown
    assert outcomes.count("message") > 5


def with_checksums(content: bytes) -> bytes:
    """Return a PNG file with right checksums, as far as its chunks can be found."""
    place, parts = 8, [content[:8]]
    while place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4])
        parts += [content[place:end], struct.pack(">I", zlib.crc32(content[place + 4 : end]))]
        place = end + 4
    return b"".join([*parts, content[place:]])


def test_a_picture_that_ends_early_is_damaged() -> None:
    whole = saved(seven()).getvalue()
    for length in (8, 30, len(whole) // 2):
        with pytest.raises(PictureError, match=r"damaged \(.+\)"):
            read(whole[:length])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(png(header(0, 0), *PIXELS), id="no pixels"),
        pytest.param(b"P5 0 5 255\n", id="no columns"),
        pytest.param(b"BM" + bytes(60), id="no header"),
        pytest.param(png(header(1, 2, 3), (b"PLTE", bytes(3)), (b"tRNS", bytes(300)), *PIXELS), id="too long a palette"),
        pytest.param(png(header(1, 2), (b"IDAT", b"zip"), (b"IEND", b"")), id="not compressed"),
        pytest.param(png(header(1, 2), *[(b"tEXt", b"")] * 100_001, *PIXELS), id="more than 100,000 chunks"),
        pytest.param(b"\xff\xd8" + b"\xff\xe5\0\2" * 100_001, id="many segments"),
    ],
)
def test_damage_is_reported(content: bytes) -> None:
    with pytest.raises(PictureError, match=r"damaged \(.+\)"):
        mnist_image(read(content))


def test_a_lack_of_memory_is_not_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(MemoryError):
        read(saved(seven(), "bmp").getvalue())


# --- metadata

ORIENTATION = b"\0\1" + struct.pack(">HHLHH", 0x0112, 3, 1, 6, 0)


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"MM\0*", id="only its begin"),
        pytest.param(b"MM\0*\xff\xff\xff\xff" + ORIENTATION, id="entries beyond its end"),
        pytest.param(b"MM\0*\0\0\0\x08\xff\xff", id="fewer entries than it says"),
        pytest.param(b"NN\0*\0\0\0\x08" + ORIENTATION, id="unknown byte order"),
        pytest.param(b"\x1b[2J" * 100, id="something else"),
    ],
)
def test_damaged_exif_is_ignored(exif: bytes) -> None:
    for content in (with_segment(0xE1, b"Exif\0\0" + exif), png(header(1, 2), (b"eXIf", exif), *PIXELS)):
        assert read(content).size in ((200, 160), (1, 2))


def test_pillow_never_sees_metadata() -> None:
    entries = 5_000
    begin = b"MM\0*\0\0\0\x08" + struct.pack(">H", entries)
    data = 8 + 2 + 12 * entries + 4
    # Every entry refers to the same bytes, and older versions of Pillow copy them for each.
    exif = begin + b"".join(struct.pack(">HHLL", 0x1000 + entry, 7, 2_000, data) for entry in range(entries)) + bytes(2_004)
    text = zlib.compress(bytes(2**20))
    texts = [(b"tEXt", b"Title\0" + bytes(2**20)), (b"zTXt", b"Title\0\0" + text), (b"iCCP", b"Title\0\0" + text)]
    animation = [(b"acTL", bytes(8)), (b"fcTL", bytes(26))]
    png_file = png(header(1, 2), (b"eXIf", exif), *texts, *animation, *PIXELS)
    for content in (png_file, with_segment(0xE1, b"Exif\0\0" + exif), with_segment(0xE2, b"MPF\0" + bytes(2_000))):
        picture = read(content)
        assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


# --- large pictures


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((10_000, 10_000), ("10,000×10,000 pixels", "50,000,000", "smaller")),
        ((7072, 7072), ("7,072×7,072 pixels", "50,000,000", "smaller")),
        ((2**31 - 1, 2**31 - 1), ("2,147,483,647×2,147,483,647 pixels", "50,000,000", "smaller")),
        ((MAX_SIDE + 1, 1), ("65,536×1 pixels", "side", "65,535")),
        ((1, MAX_SIDE + 1), ("1×65,536 pixels", "side", "65,535")),
    ],
    ids=["10,000", "7,072", "most", "wide", "high"],
)
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(
    size: tuple[int, int], words: tuple[str, ...], snapshot: Snapshot
) -> None:
    with pytest.raises(PictureError) as caught:
        read(png(header(*size), *PIXELS))
    assert_names(str(caught.value), "", *words)
    snapshot(str(caught.value))


def test_a_smaller_maximum_can_be_given() -> None:
    assert read_picture(saved(seven()), 32_000).size == (200, 160)
    with pytest.raises(PictureError, match=r"200×160 pixels, .*31,999"):
        read_picture(saved(seven()), 31_999)


READ_WITHIN = """
import resource, sys
from mnist_trainer.inference.pictures import PictureError, read_picture
from mnist_trainer.inference.preprocessing import mnist_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with open(sys.argv[1], "rb") as stream:
        print(mnist_image(read_picture(stream)).sum() > 0)
except PictureError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("size", "mode", "arguments", "max_mebibytes"),
    [
        ((10_000, 10_000), "L", {}, 20),
        ((10_000, 5_000), "L", {}, 80),
        ((8_000, 6_250), "P", {"transparency": 255}, 80),
        ((8_000, 6_250), "LA", {}, 250),
        ((8_000, 6_250), "RGB", {"transparency": (255, 255, 255)}, 250),
        ((8_000, 6_250), "RGBA", {}, 250),
    ],
)
def test_the_memory_of_a_large_picture_is_bounded(
    size: tuple[int, int], mode: str, arguments: dict[str, Any], max_mebibytes: int, tmp_path: Path
) -> None:
    picture = Image.new("L", size, "white")
    ImageDraw.Draw(picture).line([(3000, 1000), (6000, 1000), (4500, 4500)], fill="black", width=500)
    picture.convert(mode).save(tmp_path / "large.png", compress_level=1, **arguments)
    done = run_python("-c", READ_WITHIN, tmp_path / "large.png")
    assert done.returncode == 0, done.stderr
    printed, mebibytes = done.stdout.splitlines()
    assert ("50,000,000" in printed) if size[0] * size[1] > MAX_PIXELS else printed == "True"
    assert int(mebibytes) < max_mebibytes


# --- pictures that take long

SECONDS = "more than 0 s"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(saved(seven()).getvalue(), id="png"),
        pytest.param(saved(seven(), "jpeg").getvalue(), id="jpeg"),
        pytest.param(saved(seven(), "bmp").getvalue(), id="bmp"),
        pytest.param(b"P5\n#" + bytes(1000), id="a comment in a pgm"),
        pytest.param(b"P5\n2 2\n999\n" + bytes(8), id="pixels that are decoded in Python"),
    ],
)
def test_the_processor_time_is_limited(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_SECONDS", 0)
    with pytest.raises(PictureError, match=SECONDS):
        read(content)


def test_the_processor_time_is_checked_while_a_picture_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.thread_time", itertools.count(step=0.1).__next__)  # as if each read took 0.1 s
    assert read(b"P5\n1 1\n255\n7").size == (1, 1)
    with pytest.raises(PictureError, match="more than 5 s"):
        read(b"P5\n9 9\n999\n" + bytes(162))


def test_a_jpeg_of_many_scans_is_refused() -> None:
    whole = saved(seven(), "jpeg", progressive=True).getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    many = whole[:-2] + 50 * last
    for content in (many, many + b"\xff\xd9", many + b"\xff\xd9" + whole):
        with pytest.raises(PictureError, match="more than 50 scans"):
            read(content)
    assert np.array_equal(levels_of(read(whole + 50 * whole)), levels_of(read(whole)))  # they come after its end
    assert read(with_segment(0xE1, 50 * b"\xff\xda\0\4")).size == (200, 160)  # a preview


def test_scans_cannot_be_hidden_behind_an_end_in_a_comment() -> None:
    whole = saved(seven(), "jpeg", progressive=True).getvalue()
    last = whole.rindex(b"\xff\xda")
    comment = b"\xff\xfe\0\6\xff\xd9\0\0"
    with pytest.raises(PictureError, match="truncated"):  # Pillow does not get what follows the comment
        read(whole[:last] + comment + 50 * whole[last:-2] + b"\xff\xd9")


# --- streams


def through_pipe(content: bytes, read: Callable[[Any], Any]) -> Any:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as stream, contextlib.suppress(BrokenPipeError):
            stream.write(content)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            return read(stream)
    finally:
        thread.join()


def test_a_pipe_is_read() -> None:
    assert np.array_equal(levels_of(through_pipe(saved(seven()).getvalue(), read_picture)), levels_of(seven()))


def test_endless_pipes_and_long_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 2**20)
    too_long = "1 MiB; .*smaller"
    with pytest.raises(PictureError, match=too_long):
        through_pipe(bytes(2**21), read_picture)
    padded = saved(seven()).getvalue() + bytes(2**20)
    with pytest.raises(PictureError, match=too_long):
        read(padded)
    with pytest.raises(PictureError, match=NOT_A_PICTURE), open("/dev/zero", "rb") as stream:  # noqa: PTH123 - it has no end
        read_picture(stream)
