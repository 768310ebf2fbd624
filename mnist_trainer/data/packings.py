"""MNIST in the packings of other programs: finds the contents of the four files in IDX, gzip, npz and CSV files.

Contents are recognised by their SHA-256, regardless of the names of the files. Sizes are bounded before anything is unpacked,
and nothing is unpickled. Needs numpy but not MXNet. `mnist_files` writes the four files.
"""

import gzip
import hashlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from mnist_trainer import bundled
from mnist_trainer.data import idx
from mnist_trainer.data.mnist_files import FILES, MnistFile, files_problems, read_split
from mnist_trainer.errors import RequestError
from mnist_trainer.folder import Folder, open_named

_SUBFOLDERS = ("", "MNIST/raw", "raw")
"""Where the files are in a folder, such as the root folder of torchvision."""

_MAX_ENTRIES = 100  # of a folder
_MAX_BYTES = 2**28  # of a file. The 60,000 training images as CSV have 110 MB
_MAX_LINE_BYTES = 2**13  # of a CSV file. A header with pixel0, …, pixel783 has 6,769
_MAX_NPZ_DIRECTORY_BYTES = 2**16
_PIXELS = 28 * 28

_KERAS_NAMES = ("x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy")
"""Arrays of Keras' mnist.npz, in the order of `FILES`."""


@dataclass
class Found:
    """Contents that were found in a file or folder.

    Attributes:
        contents: The content to write for each file: as published if it was found so, otherwise packed anew.
        places: Where each file was found.
        remarks: A message about each file that was read and does not hold one of the four.
    """

    contents: dict[MnistFile, bytes] = field(default_factory=dict)
    places: dict[MnistFile, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def find_mnist(path: Path) -> Found:
    """Find the contents of the four files.

    Args:
        path: A file, or a folder of files. Links within a folder are skipped.

    Returns:
        The contents that were found, which may be none.

    Raises:
        RequestError: The file or folder cannot be read.
    """
    found = Found()
    try:
        if path.is_dir():
            for place, stream in _files(path):
                with stream:
                    _examine(place, stream, found)
        else:
            with open_named(path, _MAX_BYTES) as stream:
                if not stream.seekable():
                    raise RequestError(f"{path}: is a pipe; name a file or a folder")
                _examine(path, stream, found)
    except OSError as error:
        raise RequestError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
    return found


def _files(path: Path) -> Iterator[tuple[Path, BufferedReader]]:
    """Yield the regular files in a folder, opened."""
    for subfolder in _SUBFOLDERS:
        folder = Folder(path)
        for name in Path(subfolder).parts:
            folder = folder.subfolder(name)
        names = [name for name in folder.names() if folder.has_file(name)]
        if len(names) > _MAX_ENTRIES:
            raise RequestError(f"{folder.path}: has more than {_MAX_ENTRIES} files; name one of them, or a smaller folder")
        for name in names:
            with folder.reading(name) as stream:
                yield folder / name, stream


def _examine(path: Path, stream: BufferedReader, found: Found) -> None:
    """Add what is in a file to `found`. A file of another kind is skipped."""
    first = stream.peek(4)[:4]
    size_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if size_bytes > _MAX_BYTES:
        found.remarks.append(f"{path}: has more than {_MAX_BYTES:,} bytes, and was not read")
        return
    try:
        if first[:2] in (b"\0\0", b"\x1f\x8b"):
            _examine_idx(path, stream, found)
        elif first == b"PK\x03\x04":
            _examine_npz(path, stream, found)
        elif path.suffix.lower() == ".csv":
            _examine_csv(path, stream, found)
    except idx.IdxError as error:
        found.remarks.append(f"{path}: {error}")
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        found.remarks.append(f"{path}: cannot be read ({error})")


def _examine_idx(path: Path, stream: BufferedReader, found: Found) -> None:
    header = idx.read_header(stream)
    shapes = {file.shape for file in FILES}
    if header not in map(idx.header_of, shapes):
        found.remarks.append(f"{path}: holds {header}, and none of MNIST's arrays")
        return
    stream.seek(0)
    content = idx.read_content(stream, header.shape)
    file = _recognise(content)
    if file is None:
        found.remarks.append(f"{path}: holds {header} as in MNIST, but other content")
        return
    stream.seek(0)
    packed = stream.read(file.size_bytes + 1)
    _add(found, file, content, str(path), packed if hashlib.sha256(packed).hexdigest() == file.sha256 else None)


def _examine_npz(path: Path, stream: BufferedReader, found: Found) -> None:
    """Examine a file of Keras, which has the arrays x_train, y_train, x_test and y_test."""
    _refuse_large_directory(stream)
    with zipfile.ZipFile(stream) as archive:
        for file, name in zip(FILES, _KERAS_NAMES, strict=True):
            place = f"{path}, {name.removesuffix('.npy')}"
            if name not in archive.namelist():
                found.remarks.append(f"{place}: there is no such array")
                continue
            try:
                with archive.open(name) as member:
                    content = idx.header_of(file.shape).content + _read_npy(member, file.shape)
            except idx.IdxError as error:
                found.remarks.append(f"{place}: {error}")
                continue
            if _recognise(content) is file:
                _add(found, file, content, place)
            else:
                found.remarks.append(f"{place}: has the shape of MNIST's array, but other content")


def _refuse_large_directory(stream: BufferedReader) -> None:
    """Raise BadZipFile if the directory of a zip file is large. Python's reader would load any number of entries."""
    stream.seek(-min(42, stream.seek(0, io.SEEK_END)), io.SEEK_END)
    end = stream.read()
    record = end[-22:]
    if record[:4] != b"PK\x05\x06" or end.startswith(b"PK\x06\x07"):
        raise zipfile.BadZipFile("not an archive as numpy writes it")
    if int.from_bytes(record[12:16], "little") > _MAX_NPZ_DIRECTORY_BYTES:
        raise zipfile.BadZipFile("too many entries")


def _read_npy(member: IO[bytes], shape: tuple[int, ...]) -> bytes:
    """Return the elements of an array of unsigned bytes. No more than these are unpacked, and nothing is unpickled."""
    version = np.lib.format.read_magic(member)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"version {version[0]}.{version[1]} of the npy format is not supported")
    found_shape, in_fortran_order, dtype = read[version](member)
    if (found_shape, in_fortran_order, dtype) != (shape, False, np.dtype(np.uint8)):
        raise idx.IdxError(
            f"unsigned bytes of shape {idx.shape_text(shape)}", f"{dtype} of shape {idx.shape_text(found_shape)}"
        )
    length = int(np.prod(shape))
    content = member.read(length)
    if len(content) != length:
        raise EOFError("an array is incomplete")
    return content


def _examine_csv(path: Path, stream: BufferedReader, found: Found) -> None:
    """Examine a table with a label and 784 pixels in each row, with or without a header."""
    first = stream.readline(_MAX_LINE_BYTES)
    columns = first.count(b",") + 1
    if columns == _PIXELS:
        found.remarks.append(f"{path}: has images without labels; the four files cannot be made from it")
        return
    if columns != 1 + _PIXELS:
        raise ValueError(f"{columns:,} columns; a label and {_PIXELS} pixels are {1 + _PIXELS}")
    if first.partition(b",")[0].strip().isdigit():
        stream.seek(0)
    max_rows = FILES[0].shape[0] + FILES[2].shape[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a table without rows
        rows = np.loadtxt(_lines(stream), np.uint8, delimiter=",", comments=None, max_rows=max_rows + 1, ndmin=2)
    if rows.shape[1:] != (1 + _PIXELS,) or not 1 <= len(rows) <= max_rows:
        raise ValueError(f"{len(rows):,} rows; from 1 to {max_rows:,} are expected")
    arrays = rows[:, 1:].reshape(-1, 28, 28), rows[:, 0]
    contents = [idx.header_of(array.shape).content + array.tobytes() for array in arrays]
    files = [_recognise(content) for content in contents]
    if None in files:
        found.remarks.append(f"{path}: has {_describe_rows(*arrays)}; the four files cannot be made from it")
        return
    for file, content in zip(files, contents, strict=True):
        if file is not None:
            _add(found, file, content, str(path))


def _lines(stream: BufferedReader) -> Iterator[str]:
    while line := stream.readline(_MAX_LINE_BYTES):
        if len(line) == _MAX_LINE_BYTES:
            raise ValueError(f"a line has more than {_MAX_LINE_BYTES:,} bytes")
        yield line.decode("ascii")


def _describe_rows(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> str:
    """Describe labelled images that are not those of a file: the number of MNIST's images among them."""
    described = f"{len(labels):,} labelled images, which are not the images of one of the files in their order"
    folder = bundled.mnist_folder()
    if files_problems(folder):
        return described  # there is nothing to compare with
    numbers = {}
    for name, train in (("training", True), ("test", False)):
        split = read_split(folder, train)
        known = set(_labelled(split.images, split.labels))
        numbers[name] = sum(image in known for image in _labelled(images, labels))
    return f"{described} ({numbers['training']:,} are MNIST's training images, and {numbers['test']:,} its test images)"


def _labelled(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    for image, label in zip(images, labels.tolist(), strict=True):
        yield hashlib.blake2b(image.tobytes(), digest_size=16, salt=bytes([label])).digest()


def _recognise(content: bytes) -> MnistFile | None:
    digest = hashlib.sha256(content).hexdigest()
    return next((file for file in FILES if file.content_sha256 == digest), None)


def _add(found: Found, file: MnistFile, content: bytes, place: str, published: bytes | None = None) -> None:
    """Add the content of a file. The file as it was published is preferred to others."""
    if published is not None:
        found.contents[file] = published
    elif file not in found.contents:
        found.contents[file] = gzip.compress(content, compresslevel=6, mtime=0)
    else:
        return
    found.places[file] = place
