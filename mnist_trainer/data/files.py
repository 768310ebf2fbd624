"""The four files of any data set: finds, checks and reads them by the configuration of the data.

`mnist_files` has the files whose published checksums are known, and `own_files` the others. Needs numpy but not MXNet.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mnist_trainer.config.schema import DataConfig
from mnist_trainer.data import mnist_files, own_files
from mnist_trainer.data.mnist_files import PUBLISHED, Split
from mnist_trainer.datasets import DATA_SETS
from mnist_trainer.errors import RequestError


def find_data_dir(name: str, given: str | Path | None = None) -> Path:
    """Return the folder of the four files.

    Args:
        name: The name of the data set.
        given: The folder that the user has chosen; None for the default. This is the folder of `mnist_files.find_data_dir` for
            MNIST, and `data/NAME` for other data.
    """
    if given is None and name != "mnist":
        return Path("data", name)
    return mnist_files.find_data_dir(given)


def files_problems(data_dir: Path, data: DataConfig) -> list[str]:
    """Return the problems of the four files, and of the configuration if it does not fit them.

    Args:
        data_dir: The folder of the four files.
        data: The configuration of the data.
    """
    if data.name in PUBLISHED:
        return mnist_files.files_problems(data_dir, PUBLISHED[data.name])
    try:
        return own_files.differences(own_files.read_files(data_dir), data, data_dir)
    except RequestError as error:
        return list(error.problems)


def read_split(data_dir: Path, data: DataConfig, train: bool) -> Split:
    """Read the training images and labels or the test images and labels, upright.

    Args:
        data_dir: The folder of the four files.
        data: The configuration of the data.
        train: True for the training files, False for the test files.

    Returns:
        All images and labels of the files.

    Raises:
        RequestError: A file is missing or wrong, or the configuration does not fit the files.
    """
    if data.name in PUBLISHED:
        return mnist_files.read_split(data_dir, train, PUBLISHED[data.name])
    files = own_files.read_files(data_dir)
    if problems := own_files.differences(files, data, data_dir):
        raise RequestError(*problems)
    split = files.train if train else files.test
    known = DATA_SETS.get(data.name)
    if known and known.is_transposed:
        return Split(np.ascontiguousarray(split.images.transpose(0, 2, 1)), split.labels)
    return split


def identified(data_dir: Path, data: DataConfig) -> DataConfig:
    """Return the configuration with the SHA-256 of the files, unless the name of the data set determines them.

    Args:
        data_dir: The folder of the four files, which have been checked.
        data: The configuration of the data.
    """
    return data if data.name in PUBLISHED else replace(data, sha256=own_files.read_files(data_dir).sha256)
