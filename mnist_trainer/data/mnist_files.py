"""The four files of MNIST, Fashion-MNIST and KMNIST: finds, checks, reads and downloads them.

A file is recognised by its content, regardless of the program that has packed it. Needs numpy but not MXNet. `idx` reads the
format, `packings` finds MNIST in files of other formats, and `loaders` makes batches.
"""

import hashlib
import http.client
import os
import queue
import shlex
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_trainer import bundled
from mnist_trainer.console import shortened
from mnist_trainer.data import idx
from mnist_trainer.errors import RequestError, RunError
from mnist_trainer.folder import Folder, new_folder

DATA_DIR_VARIABLE = "MNIST_TRAINER_DATA"

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

ADDRESSES = {
    "mnist": MIRRORS,
    "fashion-mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    "kmnist": ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
}
"""Name of a data set → URLs of the folders from which to download it."""

TIMEOUT_SECONDS = 30.0
"""Time after which a silent server has failed."""

SECONDS_TO_BEGIN = 60.0
"""Time for the connection and the first bytes of a file, in which a server may be slower than `MIN_BYTES_PER_SECOND`."""

MIN_BYTES_PER_SECOND = 10_000
"""Minimum speed of a server over the whole download of a file."""

OTHER_PACKINGS = (
    "MNIST",
    "raw",
    "mnist.npz",
    "train.csv",
    "mnist_train.csv",
    "train-images.idx3-ubyte",
    "train-images.idx3-ubyte.gz",
)
"""Names in folders that have MNIST in another packing, such as the root folder of torchvision."""

_MAX_GZIP_BYTES = 2**16


@dataclass(frozen=True)
class MnistFile:
    """One of the four files, as its authors published it.

    Attributes:
        name: The name of the file, which is packed with gzip.
        size_bytes: The size of the packed file.
        sha256: The SHA-256 of the packed file.
        content_sha256: The SHA-256 of its unpacked content, by which the file is recognised in another packing;
            "" if it is not known.
        shape: The shape of the array in the file.
        data_set: The name of the data set.
    """

    name: str
    size_bytes: int
    sha256: str
    content_sha256: str
    shape: tuple[int, ...]
    data_set: str = "mnist"

    @property
    def unpacked_name(self) -> str:
        """The name of the file without its packing."""
        return self.name.removesuffix(".gz")

    @property
    def unpacked_bytes(self) -> int:
        return idx.unpacked_bytes(self.shape)


FILES = (
    MnistFile(
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        (60_000, 28, 28),
    ),
    MnistFile(
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        (60_000,),
    ),
    MnistFile(
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        (10_000, 28, 28),
    ),
    MnistFile(
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        (10_000,),
    ),
)


def _published_as(data_set: str, *published: tuple[int, str]) -> tuple[MnistFile, ...]:
    """Return files with the names and shapes of MNIST's."""
    return tuple(
        MnistFile(file.name, size_bytes, sha256, "", file.shape, data_set)
        for file, (size_bytes, sha256) in zip(FILES, published, strict=True)
    )


# Sizes and SHA-256 are those of TensorFlow Datasets, tensorflow_datasets/url_checksums/fashion_mnist.txt and kmnist.txt.
PUBLISHED = {
    "mnist": FILES,
    "fashion-mnist": _published_as(
        "fashion-mnist",
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    "kmnist": _published_as(
        "kmnist",
        (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
        (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
        (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
        (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    ),
}
"""Name of a data set → its files as published."""


@dataclass(frozen=True)
class Split:
    """Images and labels, in the order of the files.

    Attributes:
        images: Unsigned bytes of shape (N, height, width).
        labels: Unsigned bytes of shape (N,), numbers of classes from 0.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]

    def part(self, start: int, stop: int) -> "Split":
        return Split(self.images[start:stop], self.labels[start:stop])


def find_data_dir(given: str | Path | None = None) -> Path:
    """Return the folder of the four files.

    Args:
        given: The folder that the user has chosen. None for the folder in the environment variable MNIST_TRAINER_DATA, or if
            that is not set, the bundled folder.
    """
    return Path(given or os.environ.get(DATA_DIR_VARIABLE) or bundled.mnist_folder())


def files_problems(data_dir: Path, files: Sequence[MnistFile] = FILES) -> list[str]:
    """Return the problems of the four files, at most one for each file.

    Args:
        data_dir: The folder of the four files.
        files: The files of the data set.
    """
    return [problem for file in files if (problem := file_problem(data_dir, file))]


def read_split(data_dir: Path, train: bool, files: Sequence[MnistFile] = FILES) -> Split:
    """Read the training images and labels or the test images and labels.

    Args:
        data_dir: The folder of the four files.
        train: True for the training files, False for the test files.
        files: The files of the data set.

    Returns:
        The images and labels.

    Raises:
        RequestError: A file is missing or is not the genuine one. The error has a message for each such file.
    """
    images, labels = files[:2] if train else files[2:]
    problems = [problem for file in (images, labels) if (problem := file_problem(data_dir, file))]
    if problems:
        raise RequestError(*problems)
    return Split(read_idx(path_of(data_dir, images), images), read_idx(path_of(data_dir, labels), labels))


def path_of(data_dir: Path, file: MnistFile) -> Path:
    """Return the path of a file: packed with gzip, or unpacked if only that is there."""
    packed, unpacked = data_dir / file.name, data_dir / file.unpacked_name
    return unpacked if os.path.lexists(unpacked) and not os.path.lexists(packed) else packed


def is_there(data_dir: Path, file: MnistFile) -> bool:
    """Return True if `data_dir` has an entry with the file's name, even if it is a directory or a broken link."""
    return os.path.lexists(path_of(data_dir, file))


def file_problem(data_dir: Path, file: MnistFile) -> str | None:
    """Check one of the files. It is hashed once per process.

    Args:
        data_dir: The folder of the four files.
        file: The file to check.

    Returns:
        The problem with a remedy; None if the file is the genuine one.
    """
    problem = difference(data_dir, file)
    if problem is None:
        return None
    for name, others in PUBLISHED.items():
        if any(other.name == file.name and _is_published(data_dir, other) for other in others):
            return (
                f"{data_dir / file.name}: expected the file of {file.data_set}, found that of {name}; set data.name to {name}"
            )
    if file.data_set == "mnist" and _has_other_packing(data_dir):
        folder = shlex.quote(other_folder(data_dir))
        remedy = f"mnist-trainer data import {shlex.quote(str(data_dir))} --data-dir {folder}"
        return f"{problem}; if MNIST is there in another packing, run {remedy}, and use that folder"
    # `data fetch` would refuse a folder with files that are not the genuine ones.
    if _is_missing(data_dir / file.name) and not any(
        is_there(data_dir, other) and difference(data_dir, other) for other in PUBLISHED[file.data_set]
    ):
        return f"{problem}; run {_fetch_command(data_dir, file.data_set)} to download the genuine file"
    return f"{problem}; {_remedy(data_dir, file.data_set)}"


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)  # and not, for example, a file in the place of the folder
    return False


def _has_other_packing(data_dir: Path) -> bool:
    """Return True if a folder without the four files has a name that `packings` reads, or is such a file itself."""
    if any(is_there(data_dir, file) for file in FILES):
        return False
    if os.path.isfile(data_dir):  # noqa: PTH113 - Path.is_file raises for a name that is too long
        return data_dir.suffix in (".npz", ".csv", ".gz")
    return any(os.path.lexists(data_dir / name) for name in OTHER_PACKINGS)


def difference(data_dir: Path, file: MnistFile) -> str | None:
    """Return how a file differs from the genuine one, without a remedy; None if it is the genuine one. See `file_problem`."""
    path = path_of(data_dir, file)
    if path.name == file.name:
        size_bytes, sha256 = file.size_bytes, file.sha256
    else:
        size_bytes, sha256 = file.unpacked_bytes, file.content_sha256
    content_problem = ""
    try:
        status = path.stat()
        if not path.is_file():
            kind = "a directory" if path.is_dir() else "something other than a regular file"
            return f"{path}: expected a file of {size_bytes:,} bytes, found {kind}"
        digest = sha256_of(path) if status.st_size == size_bytes else None
        # A file that is too large is not read. A packed file is smaller than its content, except for gzip's own bytes.
        if digest != sha256 and status.st_size <= file.unpacked_bytes + _MAX_GZIP_BYTES:
            try:
                found = _content_sha256_of(path, status.st_mtime_ns, status.st_size, file.shape)
                digest, content_problem = (sha256, "") if found == file.content_sha256 else (digest, "; the content differs")
            except idx.IdxError as error:
                content_problem = f"; {error}"
    except FileNotFoundError:
        if is_there(data_dir, file):
            return f"{path}: expected a file of {size_bytes:,} bytes, found a broken link"
        return f"{path}: expected a file of {size_bytes:,} bytes, found none"
    except OSError as error:
        return f"{path}: expected a file of {size_bytes:,} bytes, but it cannot be read ({error.strerror})"
    if digest == sha256:
        return None
    for other in PUBLISHED[file.data_set]:
        if status.st_size == other.size_bytes != file.size_bytes:
            return f"{path}: expected {file.name}, found the size of {other.name} ({other.size_bytes:,} bytes)"
    if digest is None:
        return f"{path}: expected {size_bytes:,} bytes, found {status.st_size:,}{content_problem}"
    return f"{path}: expected SHA-256 {sha256[:16]}…, found {digest[:16]}…{content_problem}"


def unpublished(data_dir: Path) -> list[Path]:
    """Return the paths of the files that are not packed as published. MXNet's own reader downloads these again."""
    return [data_dir / file.name for file in FILES if not _is_published(data_dir, file)]


def _is_published(data_dir: Path, file: MnistFile) -> bool:
    """Return True if there is a file as it was published, in the same packing."""
    path = data_dir / file.name
    try:
        return path.is_file() and path.stat().st_size == file.size_bytes and sha256_of(path) == file.sha256
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file. The file is read once per process, and again after it has changed.

    Args:
        path: The file.
    """
    status = path.stat()
    return _sha256_of(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _sha256_of(path: Path, modified_ns: int, size_bytes: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _content_sha256_of(path: Path, modified_ns: int, size_bytes: int, shape: tuple[int, ...]) -> str:
    """Return the SHA-256 of the unpacked content of a file, which is an array of this shape."""
    with path.open("rb") as stream:
        return hashlib.sha256(idx.read_content(stream, shape)).hexdigest()


def read_idx(path: Path, file: MnistFile) -> npt.NDArray[np.uint8]:
    """Read the array in an IDX file, which may be packed with gzip.

    At most one byte more than expected is unpacked.

    Args:
        path: The file to read.
        file: The expected shape and size.

    Returns:
        The array of unsigned bytes, in the shape of `file`.

    Raises:
        RequestError: The content is not as expected.
    """
    try:
        with path.open("rb") as stream:
            array = idx.array_of(idx.read_content(stream, file.shape), file.shape)
        if array.ndim == 1 and array.max() > 9:
            raise idx.IdxError("labels from 0 to 9", str(array.max()))
    except idx.IdxError as error:
        raise RequestError(f"{path}: {error}; {_remedy(path.parent, file.data_set)}") from error
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    return array


def fetch_files(
    data_dir: Path,
    files: Sequence[MnistFile],
    mirrors: Sequence[str] = MIRRORS,
    on_bytes: Callable[[int], object] = lambda count: None,
) -> dict[str, str]:
    """Download files into a folder, as `place_files` writes them.

    Args:
        data_dir: The folder to write to.
        files: The files to download.
        mirrors: URLs of folders, which are tried in order.
        on_bytes: A function that is called with the number of bytes of each piece. A negative number takes back the bytes of a
            mirror that failed.

    Returns:
        The name of each file that replaced an entry, and the new name of this entry.

    Raises:
        RunError: All mirrors failed, and the message has the error of each; or a file cannot be written, as on a full disk.
        RequestError: The folder cannot be written, or another process writes to it.
    """
    return place_files(data_dir, files, lambda file: _download(file, mirrors, on_bytes))


def place_files(data_dir: Path, files: Sequence[MnistFile], content_of: Callable[[MnistFile], bytes]) -> dict[str, str]:
    """Write files into a folder.

    A file appears in the folder only after it is complete. An entry of the same name is kept under another name. Meanwhile, no
    other process can write files into the folder.

    Args:
        data_dir: The folder to write to. It is created if it does not exist, and removed again if nothing is written.
        files: The files to write.
        content_of: A function that returns the content of a file.

    Returns:
        The name of each file that replaced an entry, and the new name of this entry.

    Raises:
        RunError: A file cannot be written, as on a full disk.
        RequestError: The folder cannot be written, or another process writes to it.
    """
    folder = Folder(data_dir)
    copies = {}
    try:
        with new_folder(data_dir):
            folder.lock()
            folder.remove_unfinished({file.name for file in FILES}.__contains__)
            for file in files:
                if folder.kind(file.name):
                    copies[file.name] = _free_name(folder, f"{file.name}.replaced")
                _place_file(folder, file, copies.get(file.name), content_of)
    except OSError as error:
        raise _not_writable(data_dir, error) from error
    finally:
        folder.unlock()
    return copies


def _free_name(folder: Folder, name: str) -> str:
    """Return `name`, or if there is such an entry, `name` with the first free number."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(free for free in names if folder.kind(free) is None)


def _place_file(folder: Folder, file: MnistFile, copy: str | None, content_of: Callable[[MnistFile], bytes]) -> None:
    content = b""
    try:
        with folder.replacing(file.name, copy) as stream:  # fails before a long download
            content = content_of(file)
            stream.write(content)
    except OSError as error:
        if not content:
            raise _not_writable(folder.path, error) from error
        message = f"{folder / file.name}: cannot be written ({error.strerror}); choose another --data-dir"
        raise RunError(message) from error


def _not_writable(data_dir: Path, error: OSError) -> RequestError:
    return RequestError(f"{data_dir}: cannot be written ({error.strerror}); choose another --data-dir")


def _download(file: MnistFile, mirrors: Sequence[str], on_bytes: Callable[[int], object]) -> bytes:
    """Return the content of a file from the first mirror that sends the genuine file."""
    failures: dict[str, list[str]] = {}  # reason → mirrors
    for mirror in mirrors:
        pieces: list[bytes] = []
        try:
            with closing(_pieces(mirror.rstrip("/") + "/" + file.name, file.size_bytes + 1)) as arriving:
                for piece in arriving:
                    pieces.append(piece)
                    on_bytes(len(piece))
            content = b"".join(pieces)
            if len(content) > file.size_bytes:
                raise ValueError(f"sent more than the expected {file.size_bytes:,} bytes")
            if len(content) != file.size_bytes:
                raise ValueError(f"sent {len(content):,} of {file.size_bytes:,} bytes")
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise ValueError("sent a file with another SHA-256")
            return content
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.setdefault(_reason(error), []).append(mirror)
            on_bytes(-sum(map(len, pieces)))
    reasons = "; ".join(f"{' and '.join(failed)}: {reason}" for reason, failed in failures.items())
    raise RunError(f"{file.name} could not be fetched: {reasons}; name another address with --mirror")


def _reason(error: Exception) -> str:
    """Return the reason of a failed download, without the words that urllib puts around it."""
    if isinstance(error, urllib.error.HTTPError):
        return shortened(f"the server answered {error.code}: {error.reason}", 200)
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return shortened(" ".join(str(getattr(cause, "strerror", None) or cause).split()), 200)


def _pieces(address: str, max_bytes: int) -> Generator[bytes, None, None]:
    """Yield what a server sends, in pieces.

    A thread receives them, because a server can delay each step, from the connection to the last byte, for as long as it sends
    a byte from time to time. If this iterator ends early, the thread ends with the next byte that arrives.

    Args:
        address: The address of a file.
        max_bytes: The number of bytes after which the connection is closed.

    Raises:
        TimeoutError: The server is silent for `TIMEOUT_SECONDS`, or too slow.
        OSError: Another failure of the connection; also ValueError and HTTPException.
    """
    received: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    is_abandoned = threading.Event()

    def receive() -> None:
        left = max_bytes
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response:
                while left and not is_abandoned.is_set() and (piece := response.read1(min(left, 1 << 16))):
                    received.put(piece)
                    left -= len(piece)
            received.put(b"")
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection open
            received.put(error)

    threading.Thread(target=receive, daemon=True).start()
    began, count = time.monotonic(), 0
    try:
        while True:
            seconds = SECONDS_TO_BEGIN + count / MIN_BYTES_PER_SECOND - (time.monotonic() - began)
            try:
                piece = received.get(timeout=max(0.0, seconds))
            except queue.Empty:
                message = f"too slow: sent {count:,} bytes in {time.monotonic() - began:.0f} seconds; "
                raise TimeoutError(message + f"at least {MIN_BYTES_PER_SECOND:,} per second are expected") from None
            if isinstance(piece, Exception):
                try:
                    raise piece
                finally:
                    del piece  # its traceback refers to this frame
            if not piece:
                return
            count += len(piece)
            yield piece
    finally:
        is_abandoned.set()


def _remedy(data_dir: Path, data_set: str) -> str:
    """Return the remedy for a file that is not the genuine one. It may belong to the user, so the remedy keeps it."""
    if os.path.realpath(data_dir) == os.path.realpath(bundled.mnist_folder()):
        return f"run {_fetch_command(data_dir, data_set)} --force to download the genuine file and keep a copy of this one"
    return f"run {_fetch_command(other_folder(data_dir), data_set)} to download the genuine files, and use that folder"


def other_folder(data_dir: Path) -> str:
    """Return the name of a folder beside `data_dir` for the genuine files."""
    other = data_dir if data_dir.name not in ("", "..") else data_dir.resolve()
    return f"{other}-genuine"


def _fetch_command(folder: Path | str, data_set: str) -> str:
    name = f" --name {data_set}" if data_set != "mnist" else ""
    return f"mnist-trainer data fetch{name} --data-dir {shlex.quote(str(folder))}"
