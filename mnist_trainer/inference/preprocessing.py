"""Converts any picture of a digit to MNIST's form: light ink on black, in a 20×20 box, centred in 28×28.

Needs Pillow and numpy, not MXNet. Prediction is left to `predictor`.
"""

import io
import os
import warnings
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "PGM")

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm")
"""File name extensions of these formats, in lower case."""

MAX_PIXELS = 50_000_000
"""Largest picture that is read; a larger one is refused by its header, before memory is allocated for it."""

MAX_BYTES = 256 * 2**20
"""Largest file or pipe that is read; a picture of MAX_PIXELS pixels has fewer bytes."""

IMAGE_SIDE = 28
BOX_SIDE = 20
CENTRE = 14
_WORKING_SIDE = 512  # the longer side of the picture in which the digit is looked for, or up to twice as much
_MIN_CONTRAST = 12.0  # levels of 255 between paper and ink

Grey = npt.NDArray[np.float32]


class PictureError(ValueError):
    """The picture has no readable digit; the message states the reason, without the picture's name."""


def read_picture(stream: IO[bytes], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the picture in a PNG, JPEG, BMP or PGM file, upright, of any size and Pillow mode.

    JPEG pictures are decoded at a fraction of their size where that is enough.

    Args:
        stream: The file, or a pipe.
        max_pixels: The largest number of pixels to accept.

    Raises:
        PictureError: The file has another format, is damaged, or has too many bytes or more than `max_pixels` pixels.
    """
    if not stream.seekable():
        stream = io.BytesIO(stream.read(MAX_BYTES + 1))
    if stream.seek(0, os.SEEK_END) > MAX_BYTES:
        raise PictureError(f"this is more than the {MAX_BYTES // 2**20} MiB that are read; make the picture smaller")
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a file that can be read, and of sizes that are refused below
            picture = Image.open(stream, formats=("PNG", "JPEG", "BMP", "PPM"))
            width, height = picture.size
            if width * height > max_pixels:
                raise PictureError(_too_large(f"{width:,}×{height:,} pixels are", max_pixels))
            picture.draft(None, (_WORKING_SIDE, _WORKING_SIDE))
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"this is no picture in the format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(_too_large("these pixels are", max_pixels)) from error
    except Exception as error:  # there is hardly one that Pillow does not raise for a damaged file
        raise PictureError(f"the picture is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error
    return picture


def _too_large(what: str, max_pixels: int) -> str:
    return f"{what} more than the {max_pixels:,} that are read; make the picture smaller"


def mnist_image(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the digit on a picture in MNIST's form: (28, 28), unsigned bytes, 0 for the paper and 255 for the ink.

    The paper is what the picture has at its edges; ink is whatever has another colour, lighter or darker. Its bounding box is
    scaled, with its aspect, to 20 pixels at the longer side, and moved by whole pixels until the centre of mass is in the
    pixel (14, 14), counted from 0: so are all of MNIST's own (http://yann.lecun.com/exdb/mnist).

    Raises:
        PictureError: The picture has only one colour, or is transparent all over.
    """
    return _centred(_boxed(_ink(_opaque(picture))))


# --- from any mode to ink


def _opaque(picture: Image.Image) -> Grey:
    """The colours, levels from 0 to 255, (H, W) or (H, W, 3), of a picture of middling size."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        # 16 bits a pixel, of which Pillow's own conversion would cut off whatever is above 255.
        return _reduced(picture, "F") / np.float32(257)
    if picture.has_transparency_data:
        return _on_paper(picture)
    return _reduced(picture, "L" if picture.mode in ("1", "L") else "RGB")


def _reduced(picture: Image.Image, mode: str) -> Grey:
    """The levels in this mode: the mean of whole squares of pixels, so many that what is left is of middling size."""
    if picture.mode != mode:  # a large picture is not copied in vain
        picture = picture.convert(mode)
    factor = max(1, max(picture.size) // _WORKING_SIDE)
    return np.asarray(picture.reduce(factor) if factor > 1 else picture, np.float32)


def _on_paper(picture: Image.Image) -> Grey:
    """Put a picture with transparent parts on matching paper.

    If the visible part is a sheet with something on it, the paper continues in the median colour of the sheet. Otherwise the
    visible part is the ink itself, regardless of its colours.
    """
    pixels = _reduced(picture, "RGBA")
    colours, alpha = pixels[..., :3], pixels[..., 3] / 255
    seen = alpha > 0.5
    if not seen.any():
        raise PictureError("the picture is transparent all over; there is no digit to be seen")
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    box = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    sheet = np.median(colours[seen], axis=0)
    if box.mean() > _MIN_SHEET and np.ptp(colours[seen], axis=0).max() >= _MIN_CONTRAST:
        completed: Grey = colours * alpha[..., np.newaxis] + sheet * (1 - alpha[..., np.newaxis])
        return completed
    return pixels[..., 3]


_MIN_SHEET = 0.8  # of its bounding box, that a sheet covers, with its corners rounded; the bold digits of fonts cover less


def _ink(colours: Grey) -> Grey:
    """Return the distance of each pixel from the paper, (H, W): 0 for the paper, 1 for the ink.

    In colours the distance is the root of the mean square over the channels; in grey pictures, the difference of the levels.
    """
    channels = colours.reshape(*colours.shape[:2], -1)
    paper = _paper(channels)
    distance = np.sqrt(np.mean((channels - paper) ** 2, axis=-1))
    distance *= 255 / np.maximum(paper, 255 - paper).mean(axis=-1)  # where there is half the light, half of it is as much
    noise = _NOISE * float(np.median(distance[_edge(distance.shape)]))
    strongest = float(distance.max())
    if strongest < max(_MIN_CONTRAST, 2 * noise):
        raise PictureError("the picture is of one colour, or nearly so; there is no digit to be seen")
    ink: Grey = ((distance - noise) / (strongest - noise)).clip(0, 1).astype(np.float32)
    return ink


_NOISE = 5.0  # times the median of the paper's own deviations: more than nearly all of them


def _edge(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return a mask of a picture's edge, one twentieth wide."""
    height, width = shape[:2]
    wide = max(1, min(height, width) // 20)
    edge = np.ones((height, width), np.bool_)
    edge[wide : height - wide, wide : width - wide] = False
    return edge


def _paper(channels: Grey) -> Grey:
    """The paper without what is on it: a plane through the levels at the edge, for light may come from one side."""
    height, width = channels.shape[:2]
    edge = _edge(channels.shape)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    places = np.stack([np.ones_like(rows), rows, columns], axis=-1)
    at_edge, levels = places[edge], channels[edge]
    plane = np.zeros((3, channels.shape[2]), np.float32)
    plane[0] = np.median(levels, axis=0)
    for _ in range(3):
        away = np.sqrt(np.mean((levels - at_edge @ plane) ** 2, axis=-1))
        paper = away <= 3 * np.median(away) + 1  # and not a digit that reaches to the edge
        plane = np.linalg.lstsq(at_edge[paper], levels[paper], rcond=None)[0].astype(np.float32)
    everywhere: Grey = (places @ plane).clip(0, 255)
    return everywhere


# --- from ink to 28×28


def _boxed(ink: Grey) -> Grey:
    """The bounding box of the ink, with its aspect, scaled to 20 pixels at the longer side."""
    box = _cropped(ink, _FAINT)
    if max(box.shape) > 2 * BOX_SIDE:
        # What is faint in a small picture is the edge of the ink; in a larger one also what JPEG leaves around it.
        box = _cropped(box, _CLEAR)
    scale = BOX_SIDE / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    scaled = np.array(Image.fromarray(box).resize((width, height), Image.Resampling.BOX), np.float32)
    scaled /= scaled.max()  # thin strokes have become faint ones, which MNIST's are not
    return scaled


_FAINT, _CLEAR = 0.05, 0.25  # of the strongest ink


def _cropped(ink: Grey, minimum: float) -> Grey:
    there = ink > minimum
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centred(box: Grey) -> npt.NDArray[np.uint8]:
    image = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    starts = []
    for axis, length in enumerate(box.shape):
        mass = box.sum(axis=1 - axis)
        centre = float(mass @ np.arange(length) / mass.sum())
        starts.append(min(max(0, round(CENTRE - centre)), IMAGE_SIDE - length))
    top, left = starts
    image[top : top + box.shape[0], left : left + box.shape[1]] = np.rint(255 * box)
    return image
