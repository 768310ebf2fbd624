"""An augmented image depends only on seed, epoch and number, and has the named changes, within their bounds."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mnist_trainer.data import augmentation
from mnist_trainer.data.augmentation import augment
from mnist_trainer.data.mnist_files import read_split

Images = npt.NDArray[np.uint8]

DRAWN = ("turn", "wide", "high", "slant", "right", "down", "thick")
"""The changes, in the order of their random numbers."""


@pytest.fixture(scope="module")
def images(data_dir: Path) -> Images:
    return read_split(data_dir, train=True).images[:300]


def without_changes(monkeypatch: pytest.MonkeyPatch, **kept: float) -> None:
    """Set all magnitudes to 0, except those that are given."""
    for name in [name for name in vars(augmentation) if name.startswith("MAX_")]:
        monkeypatch.setattr(augmentation, name, kept.pop(name, 0.0))
    assert not kept


def with_drawn(monkeypatch: pytest.MonkeyPatch, **drawn: int) -> None:
    """Replace the random numbers. 1 and -1 are the largest changes in the two directions."""
    column = np.array([[(drawn.pop(name, 0) + 1) / 2] for name in DRAWN])
    assert not drawn
    monkeypatch.setattr(augmentation, "_random_numbers", lambda numbers, *_: column.repeat(len(numbers), axis=1))


# --- a pure function


def test_the_images_never_change(images: Images) -> None:
    # Another processor or version of numpy gives the same bits. They must never change, so that runs can be repeated in years.
    augmented = np.concatenate([augment(images[:20], range(20), seed, epoch) for seed, epoch in ((1, 1), (2**31 - 1, 1000))])
    assert hashlib.sha256(augmented.tobytes()).hexdigest() == "e53ec9170e8b335a8176d303a26615cda1c8b6547c5f77376886903fba0086f6"


def test_other_images_in_the_call_make_no_difference(images: Images) -> None:
    together = augment(images, range(300), seed=1, epoch=3)
    order = np.random.RandomState(0).permutation(300)
    np.testing.assert_array_equal(augment(images[order], order, seed=1, epoch=3), together[order])
    one_by_one = [augment(images[number : number + 1], [number], seed=1, epoch=3)[0] for number in (0, 63, 64, 299)]
    np.testing.assert_array_equal(one_by_one, together[[0, 63, 64, 299]])
    assert augment(images[:0], [], seed=1, epoch=3).shape == (0, 28, 28)


def test_seed_epoch_and_number_each_make_a_difference(images: Images) -> None:
    same = images[[0]].repeat(50, axis=0)
    augmented = [
        augment(same, range(first, first + 50), seed, epoch) for seed, epoch, first in ((1, 1, 0), (1, 2, 0), (2, 1, 0))
    ]
    assert len({image.tobytes() for image in np.concatenate(augmented)}) == 150
    np.testing.assert_array_equal(augment(same[:10], range(40, 50), seed=1, epoch=1), augmented[0][40:])


def test_the_given_images_are_not_changed(images: Images) -> None:
    before = images.copy()
    augment(images, range(300), seed=1, epoch=1)
    np.testing.assert_array_equal(images, before)


def test_random_numbers_are_uniform_and_independent() -> None:
    drawn = augmentation._random_numbers(np.arange(60_000), seed=1, epoch=1)
    assert drawn.shape == (len(DRAWN), 60_000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for row in drawn:
        counts = np.histogram(row, bins=20, range=(0, 1))[0]
        assert ((counts - 3000) ** 2 / 3000).sum() < 45  # chi-squared with 19 degrees of freedom: 0.1 % are above 43.8
    next_epoch = augmentation._random_numbers(np.arange(60_000), seed=1, epoch=2)
    rows = np.concatenate([drawn, next_epoch, np.roll(drawn, 1, axis=1)])
    correlations = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlations).max() < 0.02  # the standard deviation is 0.004


# --- the changes


def test_without_magnitudes_nothing_changes(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    without_changes(monkeypatch)
    np.testing.assert_array_equal(augment(images, range(300), seed=1, epoch=1), images)


def shifted(image: Images, rows: int, columns: int) -> Images:
    moved = np.zeros_like(image)
    height, width = image.shape
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = image[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return moved


def slanted(image: Images) -> Images:
    middle = len(image) // 2
    return np.concatenate([shifted(row[np.newaxis], 0, middle - y) for y, row in enumerate(image)])


def halved(image: Images, *axes: int) -> Images:
    """Halve an image of 29 rows and columns along some axes."""
    for axis in axes:
        image = np.pad(image.take(range(0, 29, 2), axis), [(7, 7) if axis == padded else (0, 0) for padded in (0, 1)])
    return image


@pytest.mark.parametrize(
    ("magnitudes", "drawn", "expected"),
    [
        pytest.param({"MAX_SHIFT": 3}, {"right": 1}, lambda image: shifted(image, 0, -3), id="left"),
        pytest.param({"MAX_SHIFT": 3}, {"right": -1, "down": -1}, lambda image: shifted(image, 3, 3), id="right and down"),
        pytest.param({"MAX_SHIFT": 40}, {"down": 1}, np.zeros_like, id="out of the image"),
        pytest.param({"MAX_HALF_ANGLE_TANGENT": 1}, {"turn": 1}, np.rot90, id="quarter turn"),
        pytest.param({"MAX_HALF_ANGLE_TANGENT": 1}, {"turn": -1}, lambda image: np.rot90(image, -1), id="quarter turn back"),
        pytest.param({"MAX_SHEAR": 1}, {"slant": 1}, slanted, id="slant"),
        pytest.param({"MAX_SCALE": 1}, {"wide": 1}, lambda image: halved(image, 1), id="half the width"),
        pytest.param({"MAX_SCALE": 1}, {"high": 1}, lambda image: halved(image, 0), id="half the height"),
        pytest.param({"MAX_SCALE": 1}, {"wide": 1, "high": 1}, lambda image: halved(image, 0, 1), id="half the size"),
    ],
)
def test_each_change_of_the_geometry(
    magnitudes: dict[str, float], drawn: dict[str, int], expected: Any, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_changes(monkeypatch, **magnitudes)
    with_drawn(monkeypatch, **drawn)
    odd = np.pad(images, ((0, 0), (1, 0), (1, 0)))  # 29 rows and columns, so that the centre is a pixel
    np.testing.assert_array_equal(augment(odd, range(300), 1, 1), np.stack([expected(image) for image in odd]))


def neighbourhoods(images: Images, edge: int) -> npt.NDArray[np.uint8]:
    """Return each pixel, with the four beside it, along a new first axis."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=edge)
    return np.stack([padded[:, 1 + dy : 29 + dy, 1 + dx : 29 + dx] for dy, dx in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))])


@pytest.mark.parametrize(("thickening", "thinning"), [(1.0, 0.5), (0.25, 1.0)])
def test_strokes_become_thicker_and_thinner(
    thickening: float, thinning: float, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_changes(monkeypatch, MAX_THICKENING=thickening, MAX_THINNING=thinning)
    thicker, thinner = neighbourhoods(images, 0).max(axis=0), neighbourhoods(images, 255).min(axis=0)
    for thick, weight, other in ((1, thickening, thicker), (-1, thinning, thinner)):
        with_drawn(monkeypatch, thick=thick)
        blended = images + weight * (other.astype(float) - images)
        np.testing.assert_allclose(augment(images, range(300), 1, 1), blended, atol=0.5)


def test_half_a_pixel_is_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    without_changes(monkeypatch, MAX_SHIFT=0.5)
    image = np.array([[[0, 100, 255, 7]]], np.uint8)
    with_drawn(monkeypatch, right=1)
    assert augment(image, [0], 1, 1).tolist() == [[[50, 178, 131, 4]]]  # halves are rounded up
    with_drawn(monkeypatch, down=1)
    assert augment(image.swapaxes(1, 2), [0], 1, 1).tolist() == [[[50], [178], [131], [4]]]


# --- their bounds


def test_little_ink_leaves_the_image(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "MAX_THICKENING", 0.0)
    monkeypatch.setattr(augmentation, "MAX_THINNING", 0.0)
    margin = 14
    wide = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    for epoch in range(1, 11):
        all_ink = augment(wide, range(300), 1, epoch).sum(axis=(1, 2), dtype=float)
        kept_ink = augment(images, range(300), 1, epoch).sum(axis=(1, 2), dtype=float)
        assert (kept_ink / all_ink).min() > 0.9  # one of these digits reaches the edge already
        assert (kept_ink / all_ink).mean() > 0.998


def test_the_centre_of_the_ink_moves_by_a_few_pixels(images: Images) -> None:
    def centres(of: Images) -> npt.NDArray[np.float64]:
        ink = of.sum(axis=(1, 2), dtype=float)
        return np.stack([(of * place).sum(axis=(1, 2)) / ink for place in np.mgrid[:28, :28]])

    moves = centres(augment(images, range(300), 1, 1)) - centres(images)
    assert 0.7 < moves.std() < 1
    assert np.abs(moves).max() < 2
    assert np.abs(moves.mean(axis=1)).max() < 0.15


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 48)], ids=str)
def test_images_of_other_sizes(shape: tuple[int, int]) -> None:
    black, white = np.zeros((3, *shape), np.uint8), np.full((3, *shape), 255, np.uint8)
    assert not augment(black, range(3), 1, 1).any()
    augmented = augment(white, range(3), 1, 1)
    assert augmented.shape == white.shape
    assert augmented.dtype == np.uint8
    assert augmented[:, shape[0] // 2, shape[1] // 2].min() > 50 or min(shape) == 1
