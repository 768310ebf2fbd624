"""Random changes of the training images: shifts, rotations, scales, shears and widths of the pen.

An augmented image is a pure function of the run's seed, the epoch and the number of the image. All loaders, batch sizes and
workers therefore see the same images, and a run can resume in the middle of an epoch. The pixels are computed with integers,
and the random numbers with additions, multiplications and divisions alone, so that every processor and version of numpy
gives the same bits.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MAX_SHIFT = 1.5
"""Largest horizontal and vertical shift, in pixels."""

MAX_HALF_ANGLE_TANGENT = 0.105
"""Tangent of half of the largest rotation, which is 12 degrees. Sine and cosine are quotients of polynomials in it, which have
the same bits everywhere, unlike the functions of a mathematical library."""

MAX_SCALE = 0.12
"""Largest change of the width and of the height, as a fraction. They change independently."""

MAX_SHEAR = 0.1
"""Largest slant, in pixels per row: 0.1 is 6 degrees."""

MAX_THICKENING = 0.8
"""Largest weight of the image with strokes that are a pixel thicker on each side: they become up to 1.6 pixels thicker."""

MAX_THINNING = 0.6
"""Largest weight of the image with strokes that are a pixel thinner on each side: they become up to 1.2 pixels thinner."""

_DRAWS = 7  # random numbers for each image
_IMAGES_AT_ONCE = 64  # their arrays fit into the cache
_ONE = 256  # 1 in the fixed-point numbers of positions and weights


def augment(
    images: npt.NDArray[np.uint8], numbers: Sequence[int] | npt.NDArray[np.integer], seed: int, epoch: int
) -> npt.NDArray[np.uint8]:
    """Return randomly changed copies of images.

    Each image is moved, rotated, scaled and slanted about its centre, and drawn with a thinner or thicker pen. Space that is
    uncovered at the edges is black.

    Args:
        images: Bytes of shape (N, height, width), 0 for the background.
        numbers: The number of each image in the training set, counted from 0, of shape (N,). An image with the same number,
            seed and epoch is always changed in the same way, regardless of the other images.
        seed: The seed of the run.
        epoch: The epoch, counted from 1.

    Returns:
        Bytes of the same shape.
    """
    turn, wide, high, slant, right, down, thick = 2 * _random_numbers(np.asarray(numbers), seed, epoch) - 1
    tangent = MAX_HALF_ANGLE_TANGENT * turn
    cosine, sine = (1 - tangent * tangent) / (1 + tangent * tangent), 2 * tangent / (1 + tangent * tangent)
    scale_x, scale_y, shear = 1 + MAX_SCALE * wide, 1 + MAX_SCALE * high, MAX_SHEAR * slant
    # The pixel at (x, y), measured from the centre, is taken from matrix · (x, y) + shift.
    matrix = scale_x * cosine, scale_x * (shear * cosine - sine), scale_y * sine, scale_y * (shear * sine + cosine)
    shift = MAX_SHIFT * right, MAX_SHIFT * down
    weights = _fixed(np.where(thick > 0, MAX_THICKENING, MAX_THINNING) * thick)
    augmented = np.empty_like(images)
    for first in range(0, len(images), _IMAGES_AT_ONCE):
        part = slice(first, first + _IMAGES_AT_ONCE)
        drawn = _with_pen(images[part], weights[part])
        augmented[part] = _moved(drawn, *(values[part, np.newaxis] for values in (*matrix, *shift)))
    return augmented


def _random_numbers(numbers: npt.NDArray[np.integer], seed: int, epoch: int) -> npt.NDArray[np.float64]:
    """Return `_DRAWS` numbers in [0, 1) for each image, of shape (_DRAWS, N).

    They are elements of one stream of SplitMix64 for each epoch, which can be computed in any order (Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", 2014). numpy guarantees the results of SeedSequence.
    """
    # The key separates the stream from that of `epoch_order`.
    start = np.random.SeedSequence([seed, epoch], spawn_key=(1,)).generate_state(1, np.uint64)
    places = numbers.astype(np.uint64) * _DRAWS + np.arange(1, _DRAWS + 1, dtype=np.uint64)[:, np.newaxis]
    bits = start + places * 0x9E3779B97F4A7C15
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB
    uniform: npt.NDArray[np.float64] = ((bits ^ bits >> 31) >> 11) * 2.0**-53
    return uniform


def _fixed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Return values as fixed-point numbers with eight binary places."""
    return np.rint(_ONE * values).astype(np.int32)


def _with_pen(images: npt.NDArray[np.uint8], weights: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Blend images with images whose strokes are a pixel thicker or thinner on each side.

    In these, a pixel is the brightest or darkest of itself and its four neighbours.

    Args:
        images: Bytes of shape (N, height, width).
        weights: The weights of the other images, of shape (N,), as fixed-point numbers: positive for thicker strokes, negative
            for thinner ones.
    """
    inverted = np.where(weights < 0, np.uint8(255), np.uint8(0))[:, np.newaxis, np.newaxis]
    weight = np.abs(weights).astype(np.uint16)[:, np.newaxis, np.newaxis]
    thin = images ^ inverted  # strokes become thinner where their background becomes thicker
    thick = thin.copy()
    for axis_part, other_part in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        np.maximum(thick[axis_part], thin[other_part], out=thick[axis_part])
        np.maximum(thick[other_part], thin[axis_part], out=thick[other_part])
    blended = (thin * (_ONE - weight) + thick * weight + _ONE // 2) >> 8
    return blended.astype(np.uint8) ^ inverted


def _moved(images: npt.NDArray[np.uint8], *transform: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Move, rotate, scale and slant images, with linear interpolation between their pixels.

    Args:
        images: Bytes of shape (N, height, width).
        transform: The elements of each image's matrix by rows, then its shift, each of shape (N, 1).
    """
    count, height, width = images.shape
    xx, xy, yx, yy, right, down = transform
    x, y = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    # Positions in the padded images, which have black pixels at each edge.
    to_x = _fixed(xx * x)[:, np.newaxis] + _fixed(xy * y + right + (width + 1) / 2)[:, :, np.newaxis]
    to_y = _fixed(yx * x)[:, np.newaxis] + _fixed(yy * y + down + (height + 1) / 2)[:, :, np.newaxis]
    np.clip(to_x, 0, _ONE * (width + 1), out=to_x)
    np.clip(to_y, 0, _ONE * (height + 1), out=to_y)
    # Each pixel is gathered with its three neighbours as the bytes of one number: from the lowest, upper left, upper right,
    # lower left and lower right. This is faster than four times, and one multiplication weights an upper and a lower pixel.
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2))).astype(np.uint32)
    pairs = padded[:, :, :-1] | padded[:, :, 1:] << 8
    squares = pairs[:, :-1] | pairs[:, 1:] << 16
    rows = np.arange(count)[:, np.newaxis, np.newaxis] * (height + 2) + (to_y >> 8)
    gathered = squares.ravel().take(rows * (width + 2) + (to_x >> 8))
    left, right_weight = gathered & 0xFF00FF, (to_x & 0xFF).view(np.uint32)
    # A difference below 0 borrows from the higher bits; the sum gives it back.
    columns = (left << 8) + ((gathered >> 8 & 0xFF00FF) - left) * right_weight
    upper, lower_weight = columns & 0xFFFF, (to_y & 0xFF).view(np.uint32)
    pixels: npt.NDArray[np.uint32] = ((upper << 8) + ((columns >> 16) - upper) * lower_weight + (1 << 15)) >> 16
    return pixels.astype(np.uint8)
