"""Converts a picture of a digit to an image like MNIST's: light ink on black, in a 20×20 box, centred in 28×28 pixels.

Needs Pillow and numpy, but not MXNet. `pictures` reads the files, and `predictor` predicts the digit.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnist_trainer.inference.pictures import WORKING_SIDE, PictureError, damage_reported

IMAGE_SIDE = 28
BOX_SIDE = 20
CENTRE = 14
_MIN_CONTRAST = 12.0  # between paper and ink, in levels from 0 to 255

Grey = npt.NDArray[np.float32]


def mnist_image(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Convert a picture of a digit to an image like MNIST's.

    The colour at the edges of the picture is the paper; pixels of another colour, lighter or darker, are the ink. The bounding
    box of the ink is scaled so that its longer side has 20 pixels; its aspect ratio is kept. It is then moved by whole pixels
    so that its centre of mass lies in pixel (14, 14), counted from 0. MNIST's own images are made in this way
    (http://yann.lecun.com/exdb/mnist).

    Args:
        picture: A picture in any of Pillow's modes.

    Returns:
        The image, shape (28, 28), unsigned bytes: 0 for the paper, 255 for the ink.

    Raises:
        PictureError: The picture has only one colour, or is fully transparent, or its palette is damaged.
    """
    with damage_reported():
        colours = _opaque(picture)
    return _centred(_boxed(_ink(colours)))


# --- from any mode to ink


def _opaque(picture: Image.Image) -> Grey:
    """Return the picture, reduced and without transparency, as levels from 0 to 255, shape (H, W) or (H, W, 3)."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        # 16 bits per pixel. Pillow's own conversion would clip levels above 255.
        return _reduced(picture, "F") / np.float32(257)
    if picture.has_transparency_data:
        return _on_paper(picture)
    return _reduced(picture, "L" if picture.mode in ("1", "L") else "RGB")


def _reduced(picture: Image.Image, mode: str) -> Grey:
    """Convert the picture to this mode, and reduce a large one by averaging squares of pixels."""
    width, height = picture.size
    factor = max(1, max(width, height) // WORKING_SIDE)
    rows = factor * max(1, _BAND_PIXELS // (factor * width))
    bands = (picture.crop((0, top, width, min(top + rows, height))) for top in range(0, height, rows))
    return np.concatenate([np.asarray(band.convert(mode).reduce(factor), np.float32) for band in bands])


_BAND_PIXELS = 2**20  # a large picture is converted band by band, because its copies in other modes would take much memory


def _on_paper(picture: Image.Image) -> Grey:
    """Put a picture with transparent parts on matching paper.

    If the visible part is a sheet with something on it, the transparent part gets the median colour of the sheet. Otherwise the
    visible part is the ink itself, regardless of its colours.
    """
    pixels = _reduced(picture, "RGBA")
    colours, alpha = pixels[..., :3], pixels[..., 3] / np.float32(255)
    visible = alpha > 0.5
    if not visible.any():
        raise PictureError("no digit found: the picture is fully transparent")
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    box = visible[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    sheet = np.median(colours[visible], axis=0)
    if box.mean() > _MIN_SHEET and np.ptp(colours[visible], axis=0).max() >= _MIN_CONTRAST:
        completed: Grey = colours * alpha[..., np.newaxis] + sheet * (1 - alpha[..., np.newaxis])
        return completed
    return pixels[..., 3]


_MIN_SHEET = 0.8  # fraction of its bounding box that a sheet with rounded corners covers; bold digits cover less


def _ink(colours: Grey) -> Grey:
    """Return the distance of each pixel from the paper, shape (H, W): 0 for the paper, 1 for the strongest ink.

    The distance is the root mean square of the differences over the colour channels. In a grey picture it is the difference of
    the levels.
    """
    channels = colours.reshape(*colours.shape[:2], -1)
    paper = _paper(channels)
    distance = np.sqrt(np.mean((channels - paper) ** 2, axis=-1))
    distance *= 255 / np.maximum(paper, 255 - paper).mean(axis=-1)  # half the light halves the distances; undo that
    noise = _NOISE * float(np.median(distance[_edge(distance.shape)]))
    strongest = float(distance.max())
    if strongest < max(_MIN_CONTRAST, 2 * noise):
        raise PictureError("no digit found: the picture has only one colour, or nearly so")
    ink: Grey = ((distance - noise) / (strongest - noise)).clip(0, 1).astype(np.float32)
    return ink


_NOISE = 5.0  # in medians of the paper's own deviations; nearly all deviations are smaller


def _edge(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return a mask of a picture's edge, whose width is a twentieth of the shorter side."""
    height, width = shape[:2]
    wide = max(1, min(height, width) // 20)
    edge = np.ones((height, width), np.bool_)
    edge[wide : height - wide, wide : width - wide] = False
    return edge


def _paper(channels: Grey) -> Grey:
    """Estimate the levels of the bare paper: a plane fitted to the edge, because light may come from one side."""
    height, width = channels.shape[:2]
    edge = _edge(channels.shape)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    places = np.stack([np.ones_like(rows), rows, columns], axis=-1)
    at_edge, levels = places[edge], channels[edge]
    plane = np.zeros((3, channels.shape[2]), np.float32)
    plane[0] = np.median(levels, axis=0)
    for _ in range(3):
        away = np.sqrt(np.mean((levels - at_edge @ plane) ** 2, axis=-1))
        paper = away <= 3 * np.median(away) + 1  # excludes a digit that reaches to the edge
        plane = np.linalg.lstsq(at_edge[paper], levels[paper], rcond=None)[0].astype(np.float32)
    everywhere: Grey = (places @ plane).clip(0, 255)
    return everywhere


# --- from ink to 28×28


def _boxed(ink: Grey) -> Grey:
    """Return the bounding box of the ink, scaled so that its longer side has 20 pixels."""
    box = _cropped(ink, _FAINT)
    if max(box.shape) > 2 * BOX_SIDE:
        # In a small picture, faint pixels are the edge of the ink. In a larger one they may also be artefacts of JPEG.
        box = _cropped(box, _CLEAR)
    scale = BOX_SIDE / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    scaled = np.array(Image.fromarray(box).resize((width, height), Image.Resampling.BOX), np.float32)
    scaled /= scaled.max()  # scaling makes thin strokes faint, but MNIST's are not faint
    return scaled


_FAINT, _CLEAR = 0.05, 0.25  # fractions of the strongest ink


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
