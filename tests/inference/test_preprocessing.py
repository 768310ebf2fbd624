"""Conversion of pictures to MNIST images: compared with MNIST's own images, for all kinds of pictures, and refusals."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import assert_names
from conftest import Snapshot
from drawn_digits import FONTS, STYLES, Picture, drawn_digits, enlarged, saved, seven
from PIL import Image, ImageDraw

from mnist_trainer.data.mnist_files import Split
from mnist_trainer.inference.pictures import PictureError, read_picture
from mnist_trainer.inference.preprocessing import CENTRE, mnist_image


def made(picture: Picture, kind: str = "png", **arguments: Any) -> npt.NDArray[np.int64]:
    """Save a picture, read it, and return its MNIST image."""
    return mnist_image(read_picture(saved(picture, kind, **arguments))).astype(np.int64)


def difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the mean absolute difference over the pixels with ink in either image."""
    has_ink = (one > 0) | (other > 0)
    return float(np.abs(one.astype(float) - other.astype(float))[has_ink].mean())


EXPECTED = mnist_image(seven()).astype(np.int64)


# --- MNIST's images


def test_mnists_own_images_hardly_change(test_split: Split) -> None:
    differences = [difference(mnist_image(Image.fromarray(image)), image) for image in test_split.images[:500]]
    assert np.median(differences) < 1
    assert np.quantile(differences, 0.99) < 12
    assert np.mean(np.array(differences) == 0) > 0.5


def test_mnists_images_enlarged_on_white_are_recovered(test_split: Split) -> None:
    coarse = []
    for image in test_split.images[:100]:
        picture = Image.fromarray(255 - image).resize((280, 280), Image.Resampling.NEAREST)
        coarse.append(difference(mnist_image(picture), image))
    assert np.quantile(coarse, 0.9) < 2
    smooth = [difference(mnist_image(read_picture(io.BytesIO(enlarged(image)))), image) for image in test_split.images[:100]]
    assert np.median(smooth) < 30  # because the strokes are blurred once more


def test_mnists_images_follow_the_documented_rule(test_split: Split) -> None:
    # The rule that the conversion follows: a box of 20 pixels, and the centre of mass in pixel (14, 14).
    for image in test_split.images[:1000].astype(float):
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        centre = [(image.sum(axis=axis) @ np.arange(28)) / image.sum() for axis in (1, 0)]
        assert centre == pytest.approx([CENTRE, CENTRE], abs=0.501)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_images_of_drawn_digits_follow_the_documented_rule(style: Any) -> None:
    for drawing in drawn_digits(FONTS[::8], [style]):
        image = mnist_image(read_picture(io.BytesIO(drawing.content))).astype(float)
        assert (image.shape, image.max()) == ((28, 28), 255)
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20, drawing.name
        centre = [(image.sum(axis=axis) @ np.arange(28)) / image.sum() for axis in (1, 0)]
        assert centre == pytest.approx([CENTRE, CENTRE], abs=0.52), drawing.name  # the levels are rounded after the shift
        assert (image == 0).mean() > 0.5, drawing.name


# --- the same digit in different pictures


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(seven(255, 0), id="light on dark"),
        pytest.param(seven(120, 90), id="pale"),
        pytest.param(seven((200, 0, 0), (255, 255, 255), "RGB"), id="red"),
        pytest.param(seven((0, 0, 255), (255, 255, 0), "RGB"), id="blue on yellow"),
        pytest.param(seven((214, 40, 40), (40, 125, 40), "RGB"), id="red on green of the same brightness"),
        pytest.param(seven(0, 1, "1"), id="one bit"),
        pytest.param(seven().convert("P"), id="palette"),
        pytest.param(seven(40000, 1000, "I;16"), id="16 bits, dark"),
        pytest.param(seven(1000, 40000, "I;16"), id="16 bits, light"),
        pytest.param(seven((0, 0, 0, 255), (255, 255, 255, 255), "RGBA"), id="opaque"),
        pytest.param(seven((0, 0, 0, 255), (0, 0, 0, 0), "RGBA"), id="black on transparent"),
        pytest.param(seven((255, 255, 255, 255), (255, 255, 255, 0), "RGBA"), id="white on transparent"),
        pytest.param(seven((255, 255, 255, 255), (0, 0, 0, 0), "RGBA"), id="white on transparent black"),
        pytest.param(seven((0, 255), (0, 0), "LA"), id="grey with alpha"),
    ],
)
def test_colours_and_modes_do_not_matter(picture: Picture) -> None:
    assert difference(made(picture), EXPECTED) < 2


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("jpeg", "L"), ("jpeg", "RGB"), ("jpeg", "CMYK"), ("bmp", "1"), ("bmp", "L"), ("bmp", "RGB"), ("ppm", "L")],
)
def test_formats_do_not_matter(kind: str, mode: str) -> None:
    assert difference(made(seven().convert(mode), kind), EXPECTED) < 12


def test_levels_of_32_bits_are_read_as_16_bits() -> None:  # older versions of Pillow read 16-bit files so
    levels = np.where(np.asarray(seven()) == 0, 1000, 40000).astype(np.int32)
    assert difference(mnist_image(Image.fromarray(levels)), EXPECTED) < 2


def test_a_transparent_colour_is_not_paper() -> None:
    # A PNG without an alpha channel may name one colour, or entry of its palette, as transparent.
    assert difference(made(seven((255, 255, 255), (255, 0, 255), "RGB"), transparency=(255, 0, 255)), EXPECTED) < 2
    assert difference(made(seven(200, 7), transparency=7), EXPECTED) < 2
    assert difference(made(seven().convert("P"), transparency=255), EXPECTED) < 2


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 0)])
def test_a_sheet_with_transparent_corners_is_completed(ink: tuple[int, int, int]) -> None:
    card = Image.new("RGBA", (240, 200), (0, 0, 0, 0))
    ImageDraw.Draw(card).rounded_rectangle((10, 10, 230, 190), 40, (90, 60, 160, 255))
    card.alpha_composite(seven((*ink, 255), (0, 0, 0, 0), "RGBA"), (20, 20))
    assert difference(made(card), EXPECTED) < 3


def test_ink_of_many_colours_on_transparent_is_ink() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    alpha = 255 - np.asarray(seven())
    assert difference(made(Image.fromarray(np.dstack([colours, alpha]))), EXPECTED) < 2


@pytest.mark.parametrize("scale", [0.2, 0.5, 3, 12])
def test_the_size_does_not_matter(scale: float) -> None:
    size = (round(200 * scale), round(160 * scale))
    assert difference(made(seven().resize(size, Image.Resampling.LANCZOS)), EXPECTED) < (60 if scale < 0.5 else 20)


def test_the_position_does_not_matter() -> None:
    for place in [(0, 0), (300, 0), (40, 260)]:
        wide = Image.new("L", (500, 420), 255)
        wide.paste(seven(), place)
        assert difference(made(wide), EXPECTED) < 3


def test_a_digit_that_reaches_to_the_edge_is_ink() -> None:
    assert difference(made(seven().crop((53, 23, 128, 121))), EXPECTED) < 12


def test_wide_and_narrow_marks_keep_their_aspect_ratio() -> None:
    for box, extents in (((20, 90, 180, 106), [2, 20]), ((90, 20, 106, 140), [20, 3])):
        picture = Image.new("L", (200, 160), 255)
        ImageDraw.Draw(picture).rectangle(box, fill=0)
        image = made(picture)
        assert [int(np.ptp(np.flatnonzero(image.any(axis=axis)))) + 1 for axis in (1, 0)] == extents


def test_no_ink_is_moved_out_of_the_image() -> None:
    picture = Image.new("L", (220, 220), 255)  # nearly all of the mass in one corner
    pen = ImageDraw.Draw(picture)
    pen.rectangle((10, 10, 80, 80), fill=0)
    pen.line([(10, 10), (209, 209)], fill=0, width=4)
    image = made(picture)
    assert max(np.ptp(np.flatnonzero(image.any(axis=axis))) + 1 for axis in (1, 0)) == 20


def test_light_from_one_side_and_noise_are_not_ink() -> None:
    chance = np.random.default_rng(0)
    light = np.linspace(0.55, 1, 200)[None, :] * np.linspace(0.9, 1, 160)[:, None]
    for noise in (0, 2, 6):
        levels = np.asarray(seven(40, 235)) * light + noise * chance.standard_normal((160, 200))
        photo = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        image = made(photo, "jpeg", quality=80)
        assert difference(image, EXPECTED) < 10, noise
        assert (image > 0)[EXPECTED == 0].mean() < 0.05, noise


def test_thin_strokes_are_not_faint() -> None:
    picture = Image.new("L", (400, 400), 255)
    ImageDraw.Draw(picture).line([(100, 60), (300, 60), (180, 340)], fill=0, width=2)
    image = made(picture)
    assert image.max() == 255
    assert (image > 60).sum() > 25


# --- refused pictures


@pytest.mark.parametrize(
    ("picture", "word"),
    [
        pytest.param(Image.new("L", (50, 50), 0), "one colour", id="black"),
        pytest.param(Image.new("RGB", (50, 50), (9, 99, 199)), "one colour", id="blue"),
        pytest.param(Image.new("L", (1, 1), 255), "one colour", id="one pixel"),
        pytest.param(seven(250, 255), "one colour", id="hardly visible"),
        pytest.param(Image.new("I;16", (50, 50), 30000), "one colour", id="16 bits"),
        pytest.param(Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "transparent", id="fully transparent"),
        pytest.param(Image.new("RGBA", (50, 50), (9, 9, 9, 255)), "one colour", id="opaque"),
    ],
)
def test_a_picture_of_one_colour_is_refused(picture: Picture, word: str, snapshot: Snapshot) -> None:
    with pytest.raises(PictureError) as caught:
        made(picture)
    assert_names(str(caught.value), "no digit", word)
    snapshot(str(caught.value))


def test_noise_alone_is_not_a_digit() -> None:
    levels = np.random.default_rng(0).normal(200, 4, (300, 300))
    with pytest.raises(PictureError, match=r"no digit.*one colour"):
        made(Image.fromarray(levels.astype(np.uint8)))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (3, 5), (10_000, 2)])
def test_pictures_of_extreme_sizes_are_converted_or_refused(size: tuple[int, int]) -> None:
    levels = np.random.default_rng(0).integers(0, 2, size[::-1], np.uint8) * 255
    try:
        assert made(Image.fromarray(levels)).shape == (28, 28)
    except PictureError as error:
        assert "one colour" in str(error)  # noqa: PT017 - both outcomes are correct
