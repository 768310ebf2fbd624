"""Data sets whose published checksums are not known: checks and reads the user's own four IDX files.

The files have MNIST's names, packed with gzip or not. Needs numpy but not MXNet. `files` chooses between these and the
published files.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_trainer.config.schema import IMAGE_SIDE, MAX_IMAGES, DataConfig
from mnist_trainer.console import shown
from mnist_trainer.data import idx
from mnist_trainer.data.mnist_files import FILES, Split, path_of
from mnist_trainer.datasets import DATA_SETS, DIGITS, IMAGE_SIZE
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.fields import FieldError
from mnist_trainer.folder import open_named

_MAX_BYTES = 2**30  # of a file, and of its unpacked content


@dataclass(frozen=True)
class OwnFiles:
    """The content of the four files.

    Attributes:
        train: The training images and labels.
        test: The test images and labels.
        sha256: The SHA-256 of the unpacked contents of the four files, one after the other.
    """

    train: Split
    test: Split
    sha256: str

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.train.images.shape[1:]
        return height, width

    @property
    def max_label(self) -> int:
        """The highest label."""
        return int(max(self.train.labels.max(), self.test.labels.max()))


def read_files(data_dir: Path) -> OwnFiles:
    """Read the four files. They are read once per process, and again after one has changed.

    Args:
        data_dir: The folder of the files.

    Raises:
        RequestError: A file is missing or is not an IDX file of images or labels, or two files do not belong together.
    """
    paths = [path_of(data_dir, file) for file in FILES]
    states = []
    problems = []
    for path in paths:
        try:
            status = path.stat()
            states.append((path, status.st_mtime_ns, status.st_size))
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror}); name the folder of the four files with --data-dir")
    if problems:
        raise RequestError(*problems)
    return _read_files(tuple(states))


@lru_cache(maxsize=1)
def _read_files(states: tuple[tuple[Path, int, int], ...]) -> OwnFiles:
    problems: list[str] = []
    arrays: list[npt.NDArray[np.uint8]] = []
    digest = hashlib.sha256()
    paths = [path for path, _, _ in states]
    for path, file in zip(paths, FILES, strict=True):
        with collected(problems):
            content, shape = _read_content(path, len(file.shape))
            digest.update(content)
            arrays.append(idx.array_of(content, shape))
    if problems:
        raise RequestError(*problems)
    for images, labels in ((0, 1), (2, 3)):
        if len(arrays[images]) != len(arrays[labels]):
            numbers = f"{len(arrays[labels]):,} labels, but {paths[images].name} has {len(arrays[images]):,} images"
            problems.append(f"{paths[labels]}: has {numbers}")
    if arrays[0].shape[1:] != arrays[2].shape[1:]:
        sizes = [idx.shape_text(array.shape[1:]) for array in (arrays[2], arrays[0])]
        problems.append(f"{paths[2]}: has images of {sizes[0]} pixels, but those of {paths[0].name} have {sizes[1]}")
    if problems:
        raise RequestError(*problems)
    return OwnFiles(Split(arrays[0], arrays[1]), Split(arrays[2], arrays[3]), digest.hexdigest())


def _read_content(path: Path, dimensions: int) -> tuple[bytes, tuple[int, ...]]:
    """Return the content of a file of images or labels, and the shape of its array."""
    expected = "images: 3 dimensions" if dimensions == 3 else "labels: 1 dimension"
    try:
        with open_named(path, _MAX_BYTES) as stream:
            header = idx.read_header(stream)
            if header != idx.header_of(header.shape) or len(header.shape) != dimensions:
                raise idx.IdxError(f"unsigned bytes (IDX type 0x08) for {expected}", str(header))
            if not 1 <= header.shape[0] <= MAX_IMAGES or math.prod(header.shape) > _MAX_BYTES:
                raise idx.IdxError(f"1 to {MAX_IMAGES:,} entries in {_MAX_BYTES:,} bytes", idx.shape_text(header.shape))
            for side in header.shape[1:]:
                IMAGE_SIDE.check("side", side)
            stream.seek(0)
            return idx.read_content(stream, header.shape), header.shape
    except FieldError as error:
        size = idx.shape_text(header.shape[1:])
        reason = f"two 5×5 convolutions and two poolings need {IMAGE_SIDE.low}"
        raise RequestError(f"{path}: has images of {size} pixels; a side {error.sentence} ({reason})") from error
    except idx.IdxError as error:
        raise RequestError(f"{path}: {error}") from error
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error


def describe(data_dir: Path, name: str) -> dict[str, Any]:
    """Return the table `data` of a configuration for the four files in a folder.

    Args:
        data_dir: The folder of the files.
        name: The name of the data set.

    Raises:
        RequestError: A file is missing or wrong; see `read_files`.
    """
    files = read_files(data_dir)
    table = {"name": name, "train_images": len(files.train.labels), "test_images": len(files.test.labels)}
    if name not in DATA_SETS:
        if files.image_shape != IMAGE_SIZE:
            table["image_size"] = list(files.image_shape)
        if files.max_label != len(DIGITS) - 1:
            table["classes"] = [str(label) for label in range(files.max_label + 1)]
    return table | {"sha256": files.sha256}


def differences(files: OwnFiles, data: DataConfig, data_dir: Path) -> list[str]:
    """Return the problems of a configuration with the files that it is for.

    Args:
        files: The content of the four files.
        data: The configuration of the data.
        data_dir: The folder of the files, for messages.
    """
    problems = []
    if files.image_shape != data.image_shape:
        size = list(files.image_shape)
        problems.append(f"data.image_size: the images in {data_dir} have {idx.shape_text(size)} pixels; set it to {size}")
    classes = data.class_names
    if files.max_label >= len(classes):
        problems.append(
            f"data.classes: names {len(classes)} classes, but the highest label in {data_dir} is {files.max_label}, which is "
            f"class {files.max_label + 1}; name them all"
        )
    for key, split in (("train_images", files.train), ("test_images", files.test)):
        if getattr(data, key) > len(split.labels):
            problems.append(f"data.{key} = {getattr(data, key)}: must be at most {len(split.labels)}, the number in {data_dir}")
    if data.sha256 not in (None, files.sha256):
        problems.append(
            f"data.sha256 = {data.sha256}: the files in {data_dir} have the SHA-256 {files.sha256}; restore them, or for other "
            f"data than {shown(data.name)} before, leave data.sha256 out"
        )
    return problems
