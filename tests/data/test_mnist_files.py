"""The MNIST files: genuine ones are accepted, others are refused with a message, and only genuine ones are downloaded."""

import gzip
import hashlib
import http.server
import io
import os
import random
import re
import resource
import shlex
import shutil
import signal
import socket
import stat
import struct
import threading
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Program, Snapshot
from programs import LIMIT_SECONDS, ForkedProgram, wait_for

from mnist_trainer import bundled
from mnist_trainer.cli import main
from mnist_trainer.data import mnist_files
from mnist_trainer.data.mnist_files import FILES, MnistFile, fetch_files, file_problem, find_data_dir, read_idx, read_split
from mnist_trainer.errors import RequestError, RunError
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


@pytest.fixture(autouse=True)
def no_data_dir_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mnist_files.DATA_DIR_VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    """Create a folder with links to the four genuine files. Tests replace some of them."""
    made = tmp_path / "mnist"
    made.mkdir()
    for file in FILES:
        (made / file.name).symlink_to(data_dir / file.name)
    return made


# --- the genuine files


@pytest.mark.parametrize(
    ("train", "count", "first_labels", "of_each_digit", "mean_pixel"),
    [
        pytest.param(
            True,
            60_000,
            [5, 0, 4, 1, 9],
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            33.318421,
            id="train",
        ),
        pytest.param(
            False,
            10_000,
            [7, 2, 1, 0, 4],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
            33.791224,
            id="t10k",
        ),
    ],
)
def test_genuine_files_are_read(
    train: bool, count: int, first_labels: list[int], of_each_digit: list[int], mean_pixel: float, data_dir: Path
) -> None:
    split = read_split(data_dir, train)
    assert (split.images.shape, split.images.dtype.name) == ((count, 28, 28), "uint8")
    assert (split.labels.shape, split.labels.dtype.name) == ((count,), "uint8")
    assert split.labels[:5].tolist() == first_labels
    assert np.bincount(split.labels).tolist() == of_each_digit
    assert split.images.mean() == pytest.approx(mean_pixel, abs=1e-6)
    assert (split.images.min(), split.images.max()) == (0, 255)


def test_first_images_keep_their_labels(data_dir: Path) -> None:
    split = read_split(data_dir, train=False)
    first = split.part(0, 3)
    assert first.labels.tolist() == [7, 2, 1]
    assert first.images.tobytes() == split.images[:3].tobytes()


@pytest.mark.parametrize("train", [pytest.param(True, id="train"), pytest.param(False, id="t10k")])
def test_mxnet_reads_the_same_folder(train: bool, data_dir: Path) -> None:
    dataset = mx.gluon.data.vision.MNIST(root=str(data_dir), train=train)
    images, labels = dataset[:]
    split = read_split(data_dir, train)
    assert images.shape == (*split.images.shape, 1)
    assert images.asnumpy().tobytes() == split.images.tobytes()
    assert labels.tolist() == split.labels.tolist()


@pytest.mark.parametrize("file", [pytest.param(file, id=file.name) for file in FILES])
def test_the_table_of_files_is_correct(file: MnistFile, data_dir: Path) -> None:
    content = (data_dir / file.name).read_bytes()
    assert file.size_bytes == len(content)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert file.unpacked_bytes == len(gzip.decompress(content))
    assert file.content_sha256 == hashlib.sha256(gzip.decompress(content)).hexdigest()
    assert file_problem(data_dir, file) is None


def test_a_file_is_hashed_once_per_process_and_again_when_it_changes(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real_digest: Any = hashlib.file_digest

    def counting(stream: Any, *arguments: Any) -> Any:
        hashed.append(stream.name)
        return real_digest(stream, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    path = tmp_path / TEST_LABELS.name
    shutil.copyfile(data_dir / TEST_LABELS.name, path)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert [file_problem(tmp_path, TEST_LABELS) for _ in range(3)] == [None] * 3
    assert hashed == [str(path)]
    flip_a_bit(path)
    assert TEST_LABELS.sha256[:16] in str(file_problem(tmp_path, TEST_LABELS))
    assert hashed == [str(path)] * 2
    path.write_bytes(bytes(2**20))
    assert_names(str(file_problem(tmp_path, TEST_LABELS)), str(path), "4,542", "1,048,576")
    assert hashed == [str(path)] * 2, "a file of another size is not read"


# --- files that are not the genuine ones


def remove(path: Path) -> None:
    path.unlink()


def make_empty(path: Path) -> None:
    replace(path, b"")


def lengthen(path: Path) -> None:
    replace(path, path.read_bytes() + b"1")  # gzip ignores zeros at the end


def truncate(seed: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = path.read_bytes()
        replace(path, content[: random.Random(seed).randrange(1, len(content))])

    return damage


def flip_a_bit(path: Path, seed: int = 0) -> None:
    content = bytearray(path.read_bytes())
    chance = random.Random(seed)
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    replace(path, bytes(content))


def flip(seed: int) -> Callable[[Path], None]:
    return lambda path: flip_a_bit(path, seed)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)  # a link to itself: not even root can open it


def break_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("a drive that is not mounted")


def give_content_of(other: MnistFile) -> Callable[[Path], None]:
    return lambda path: replace(path, (path.parent / other.name).read_bytes())


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # the link, not the genuine file behind it
    path.write_bytes(content)


Damage = Callable[[Path], None]
Words = tuple[str, ...]

_OTHER_SIZE = ("{size} bytes", "{found_size}")
_OTHER_CONTENT = ("{sha256}", "{found_sha256}")

DAMAGES: dict[str, tuple[Damage, Words]] = {
    "missing": (remove, ("{size} bytes",)),
    "empty": (make_empty, _OTHER_SIZE),
    "truncated somewhere": (truncate(1), _OTHER_SIZE),
    "truncated elsewhere": (truncate(2), _OTHER_SIZE),
    "truncated at a third place": (truncate(3), _OTHER_SIZE),
    "a byte too long": (lengthen, _OTHER_SIZE),
    "one bit flipped": (flip(1), _OTHER_CONTENT),
    "another bit flipped": (flip(2), _OTHER_CONTENT),
    "a directory": (make_directory, ("{size} bytes", "directory")),
    "a FIFO": (make_fifo, ("{size} bytes", "regular file")),
    "a broken link": (break_link, ("{size} bytes", "link")),
    "unreadable": (make_unreadable, ("{size} bytes", "Too many levels of symbolic links")),
}

SWAPS = [
    (TRAIN_IMAGES, TRAIN_LABELS),
    (TRAIN_IMAGES, TEST_IMAGES),
    (TRAIN_LABELS, TRAIN_IMAGES),
    (TRAIN_LABELS, TEST_LABELS),
    (TEST_IMAGES, TRAIN_IMAGES),
    (TEST_IMAGES, TEST_LABELS),
    (TEST_LABELS, TRAIN_LABELS),
    (TEST_LABELS, TEST_IMAGES),
]


def damages(*files: MnistFile) -> list[Any]:
    """Return rows (file, damage, words of the message) for each of the files."""
    rows = [
        pytest.param(file, damage, words, id=f"{file.name.removesuffix('-ubyte.gz')} {name}")
        for file in files
        for name, (damage, words) in DAMAGES.items()
    ]
    swapped = [
        pytest.param(
            file,
            give_content_of(other),
            (other.name, f"{other.size_bytes:,} bytes"),
            id=f"{file.name.removesuffix('-ubyte.gz')} is {other.name.removesuffix('-ubyte.gz')}",
        )
        for file, other in SWAPS
        if file in files
    ]
    return rows + swapped


def assert_names_file(message: str | None, words: Words, path: Path, file: MnistFile, can_be_added: bool | None = None) -> None:
    """Assert that a message has the file, what was expected and found, and a remedy that loses no data.

    can_be_added: whether the remedy is to fetch the file into this folder. By default this is the case if nothing has its name.
    """
    regular = path.is_file() if not path.is_symlink() else False
    facts = {
        "size": f"{file.size_bytes:,}",
        "sha256": file.sha256[:16],
        "found_size": f"{path.stat().st_size:,}" if regular else "",
        "found_sha256": hashlib.sha256(path.read_bytes()).hexdigest()[:16] if regular else "",
    }
    assert message
    assert_names(message, f"{path}: ", *(word.format(**facts) for word in words))
    if can_be_added if can_be_added is not None else not os.path.lexists(path):
        assert f"mnist-trainer data fetch --data-dir {path.parent} " in message
        assert "-genuine" not in message
    else:
        assert f"mnist-trainer data fetch --data-dir {path.parent}-genuine " in message
    assert "--force" not in message


@pytest.mark.parametrize(("file", "damage", "words"), damages(*FILES))
def test_another_file_is_refused(file: MnistFile, damage: Damage, words: Words, folder: Path) -> None:
    damage(folder / file.name)
    assert_names_file(file_problem(folder, file), words, folder / file.name, file)
    assert [file_problem(folder, other) for other in FILES if other is not file] == [None] * 3


@pytest.mark.parametrize(("file", "damage", "words"), damages(TEST_LABELS))
def test_data_verify_reports_it(
    file: MnistFile,
    damage: Damage,
    words: Words,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    snapshot: Snapshot,
) -> None:
    damage(folder / file.name)
    assert main(["data", "verify", "--data-dir", str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (message,) = captured.err.splitlines()
    assert_names_file(message, words, folder / file.name, file)
    snapshot(message)


@pytest.mark.parametrize(("file", "damage", "words"), [*damages(TRAIN_LABELS), *damages(TEST_LABELS)[::4]])
def test_train_reports_it_and_writes_nothing(
    file: MnistFile, damage: Damage, words: Words, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder / file.name)
    output = tmp_path / "run"
    assert main(["train", "--data-dir", str(folder), "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (message,) = captured.err.splitlines()
    assert_names_file(message, words, folder / file.name, file)
    assert not output.exists()


@pytest.mark.parametrize("command", [["data", "verify"], ["train", "--output", "run"]], ids=" ".join)
def test_as_a_user_runs_it(command: list[str], folder: Path, tmp_path: Path, program: Program) -> None:
    remove(folder / TRAIN_IMAGES.name)
    flip_a_bit(folder / TRAIN_LABELS.name)
    done = program(*command, "--data-dir", folder)
    assert (done.returncode, done.stdout) == (2, "")
    of_images, of_labels = done.stderr.splitlines()
    for line, file, name in ((of_images, TRAIN_IMAGES, "missing"), (of_labels, TRAIN_LABELS, "one bit flipped")):
        # `data fetch` refuses a folder with a file that is not the genuine one.
        assert_names_file(line, DAMAGES[name][1], folder / file.name, file, can_be_added=False)
    assert not (tmp_path / "run").exists()


def test_all_problems_are_reported_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in FILES:
        truncate(1)(folder / file.name)
    assert main(["data", "verify", "--data-dir", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines] == [str(folder / file.name) for file in FILES]


def test_a_file_that_cannot_be_opened_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / TEST_LABELS.name
    with path.open("wb") as stream:
        stream.truncate(TEST_LABELS.size_bytes)  # of the right size, so that it has to be read
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))  # stops even root
    try:
        problem = file_problem(tmp_path, TEST_LABELS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert_names_file(problem, ("{size} bytes", "Too many open files"), path, TEST_LABELS)


def test_a_data_dir_that_is_a_file(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    no_folder = data_dir / "README.md"
    assert main(["data", "verify", "--data-dir", str(no_folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    for line, file in zip(lines, FILES, strict=True):
        assert_names_file(line, ("{size} bytes", "Not a directory"), no_folder / file.name, file, can_be_added=False)


def test_read_split_names_both_files_of_the_split(folder: Path) -> None:
    for file in FILES:
        remove(folder / file.name)
    with pytest.raises(RequestError) as caught:
        read_split(folder, train=False)
    of_images, of_labels = caught.value.problems
    for problem, file in ((of_images, TEST_IMAGES), (of_labels, TEST_LABELS)):
        assert_names_file(problem, DAMAGES["missing"][1], folder / file.name, file)


# --- the content of IDX files

IMAGES = MnistFile("images.gz", 0, "", "", (3, 2, 5))
LABELS = MnistFile("labels.gz", 0, "", "", (3,))


def idx(magic: int, shape: tuple[int, ...], content: bytes) -> bytes:
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + content)


def test_idx_content_keeps_its_order(tmp_path: Path) -> None:
    (tmp_path / IMAGES.name).write_bytes(idx(2051, (3, 2, 5), bytes(range(30))))
    (tmp_path / LABELS.name).write_bytes(idx(2049, (3,), bytes([9, 0, 3])))
    images = read_idx(tmp_path / IMAGES.name, IMAGES)
    assert (images.dtype.name, images.tolist()) == ("uint8", np.arange(30).reshape(3, 2, 5).tolist())
    labels = read_idx(tmp_path / LABELS.name, LABELS)
    assert (labels.dtype.name, labels.tolist()) == ("uint8", [9, 0, 3])


_GOOD = idx(2049, (3,), bytes([9, 0, 3]))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        pytest.param(
            LABELS, idx(2051, (3,), bytes(3)), ("IDX header of 16 bytes", "11 bytes"), id="the magic number of images in labels"
        ),
        pytest.param(
            IMAGES,
            idx(2049, (3, 2, 5), bytes(30)),
            ("0x08", "3×2×5", "found unsigned bytes (IDX type 0x08) of shape 3;"),
            id="the magic number of labels in images",
        ),
        pytest.param(LABELS, idx(0, (3,), bytes(3)), ("IDX header", "00 00 00 00"), id="magic number 0"),
        pytest.param(LABELS, b"", ("IDX header", "empty file"), id="no byte"),
        pytest.param(
            LABELS,
            idx(0x0901, (3,), bytes(3)),
            ("unsigned bytes (IDX type 0x08)", "signed bytes (IDX type 0x09)"),
            id="signed bytes",
        ),
        pytest.param(
            LABELS,
            idx(0x0B01, (3,), bytes(3)),
            ("unsigned bytes (IDX type 0x08)", "16-bit integers (IDX type 0x0B)"),
            id="16-bit integers",
        ),
        pytest.param(
            LABELS,
            idx(0x0C01, (3,), bytes(3)),
            ("unsigned bytes (IDX type 0x08)", "32-bit integers (IDX type 0x0C)"),
            id="32-bit integers",
        ),
        pytest.param(
            LABELS,
            idx(0x0D01, (3,), bytes(3)),
            ("unsigned bytes (IDX type 0x08)", "32-bit floats (IDX type 0x0D)"),
            id="32-bit floats",
        ),
        pytest.param(
            LABELS,
            idx(0x0E01, (3,), bytes(3)),
            ("unsigned bytes (IDX type 0x08)", "64-bit floats (IDX type 0x0E)"),
            id="64-bit floats",
        ),
        pytest.param(
            LABELS,
            idx(0x0F01, (3,), bytes(3)),
            ("unsigned bytes (IDX type 0x08)", "elements of an unknown type (IDX type 0x0F)"),
            id="elements of an unknown type",
        ),
        pytest.param(LABELS, idx(2049, (4,), bytes(3)), ("shape 3,", "shape 4"), id="a header with one label too many"),
        pytest.param(LABELS, idx(2049, (2,), bytes(2)), ("shape 3,", "shape 2"), id="a header with one label too few"),
        pytest.param(IMAGES, idx(2051, (3, 5, 2), bytes(30)), ("3×2×5", "3×5×2"), id="height and width exchanged"),
        pytest.param(
            IMAGES,
            idx(2051, (2**32 - 1, 2, 5), bytes(30)),
            ("3×2×5", "4,294,967,295×2×5"),
            id="more images than fit in memory",
        ),
        pytest.param(LABELS, idx(2049, (3,), bytes(2)), ("11 unpacked bytes", "10"), id="a byte too short"),
        pytest.param(LABELS, idx(2049, (3,), bytes(4)), ("11 unpacked bytes", "more"), id="a byte too long"),
        pytest.param(
            IMAGES,
            gzip.compress(bytes([0, 0, 8, 3, *range(11)])),
            ("IDX header", "16 bytes", "15 bytes"),
            id="shorter than its header",
        ),
        pytest.param(LABELS, gzip.compress(b""), ("IDX header", "empty"), id="empty"),
        pytest.param(LABELS, idx(2049, (3,), bytes([0, 10, 9])), ("0 to 9", "10"), id="a label 10"),
        pytest.param(LABELS, idx(2049, (3,), bytes([255, 0, 1])), ("0 to 9", "255"), id="a label 255"),
    ],
)
def test_wrong_idx_content_is_refused(
    file: MnistFile, content: bytes, words: Words, tmp_path: Path, snapshot: Snapshot
) -> None:
    message = refused_content(tmp_path / file.name, file, content)
    assert_names(message, f"{tmp_path / file.name}: ", *words)
    snapshot(message)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(_GOOD[:-9], "Compressed file ended before the end-of-stream marker was reached", id="an early end"),
        pytest.param(_GOOD[:-8] + bytes([_GOOD[-8] ^ 1]) + _GOOD[-7:], "CRC check failed", id="another checksum"),
        pytest.param(_GOOD[:10] + b"\xff" * 8 + _GOOD[18:], "Error -3 while decompressing data", id="garbage inside"),
        pytest.param(_GOOD + b"more", "Not a gzipped file", id="garbage at the end"),
    ],
)
def test_a_damaged_gzip_file_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    message = refused_content(tmp_path / LABELS.name, LABELS, content)
    assert_names(message, f"{tmp_path / LABELS.name}: ", "gzip", reason)


def refused_content(path: Path, file: MnistFile, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_idx(path, file)
    (message,) = caught.value.problems
    assert "mnist-trainer data fetch" in message
    return message


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / TEST_LABELS.name
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(struct.pack(">II", 2049, 10_000))
        for _ in range(100):
            stream.write(bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="10,008 unpacked bytes"):
            read_idx(path, TEST_LABELS)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * 2**20, "of more than 100 MB"


# --- the folder of the files


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        pytest.param("given", "variable", "given", id="the argument before the variable"),
        pytest.param(Path("given"), None, "given", id="the argument before the bundled folder"),
        pytest.param(None, "variable", "variable", id="the variable before the bundled folder"),
        pytest.param(None, None, None, id="the bundled folder"),
        pytest.param(None, "", None, id="an empty variable"),
    ],
)
def test_find_data_dir(
    given: str | Path | None, variable: str | None, expected: str | None, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("MNIST_TRAINER_DATA", variable)
    found = find_data_dir(given)
    assert found.resolve() == data_dir.resolve() if expected is None else found == Path(expected)


def test_the_commands_use_the_same_folder(
    folder: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, file in zip(lines, FILES, strict=True):
        assert_names(line, f"{data_dir / file.name}: ", file.sha256)
    monkeypatch.setenv("MNIST_TRAINER_DATA", str(tmp_path / "nowhere"))
    assert main(["data", "verify"]) == 2
    assert_names(capsys.readouterr().err, f"{tmp_path / 'nowhere' / TRAIN_IMAGES.name}: ", "9,912,422 bytes")
    assert main(["data", "verify", "--data-dir", str(folder)]) == 0
    assert str(folder / TEST_LABELS.name) in capsys.readouterr().out


# --- fetching


class Mirrors(http.server.ThreadingHTTPServer):
    """A server of the genuine files on this machine. The folder in an address selects the answer."""

    daemon_threads = True

    def __init__(self, data_dir: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.data_dir = data_dir
        self.asked: list[str] = []
        self.endless_mebibytes = 0
        self.endless_is_over = threading.Event()
        self.slow_may_end = threading.Event()
        self.slow_is_over = threading.Event()

    def address(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{folder}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client has closed the connection


class Answer(http.server.BaseHTTPRequestHandler):
    server: Mirrors

    def do_GET(self) -> None:
        _, folder, name = self.path.split("/")
        self.server.asked.append(f"{folder}/{name}")
        genuine = (self.server.data_dir / name).read_bytes()
        if folder == "good":
            self.answer(genuine)
        elif folder == "missing":
            self.send_error(404)
        elif folder == "failing":
            self.send_error(503)
        elif folder == "truncated":
            self.answer(genuine[: len(genuine) // 2], announced_bytes=len(genuine))
        elif folder == "short":
            self.answer(genuine[:-1])
        elif folder == "long":
            self.answer(genuine + b"\0")
        elif folder == "wrong":
            self.answer(genuine[:-1] + bytes([genuine[-1] ^ 1]))
        elif folder == "nothing":
            self.answer(b"")
        elif folder == "half-a-chunk":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"10000\r\n" + genuine[:1000])
        elif folder == "endless":
            self.answer_without_end()
        elif folder == "silent":
            self.rfile.read(1)  # waits until the client has closed the connection
        elif folder == "hangs-up":
            self.close_connection = True
        elif folder == "hostile":
            self.send_response(404, "\x1b]0;owned\x07")
            self.end_headers()
        elif folder == "slow-header":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nDelay: ")
            self.send_slowly()
        elif folder == "slow-body":
            self.send_response(200)
            self.end_headers()
            self.send_slowly()

    def answer(self, content: bytes, announced_bytes: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if announced_bytes is None else announced_bytes))
        self.end_headers()
        self.wfile.write(content)

    def send_slowly(self) -> None:
        """Send a byte from time to time until the client closes the connection or the test ends."""
        try:
            while not self.server.slow_may_end.wait(0.01):
                self.wfile.write(b" ")
        except OSError:
            pass  # the client has closed the connection
        self.server.slow_is_over.set()

    def answer_without_end(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while self.server.endless_mebibytes < 100:
                self.wfile.write(bytes(2**20))
                self.server.endless_mebibytes += 1
        except OSError:
            pass  # the client has closed the connection
        self.server.endless_is_over.set()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def mirrors(data_dir: Path) -> Iterator[Mirrors]:
    with Mirrors(data_dir) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def fetch(folder: Path, *addresses: str, force: bool = False) -> int:
    flags = [part for address in addresses for part in ("--mirror", address)]
    return main(["data", "fetch", "--data-dir", str(folder), *flags, *(["--force"] if force else [])])


def fetched(printed: str, folder: Path) -> list[MnistFile]:
    """Return the fetched files according to the output of `data fetch`, which reports that the others were there."""
    lines = printed.splitlines()
    for line, file in zip(lines, FILES, strict=True):
        assert_names(line, f"{folder / file.name}: ", "genuine")
        assert ("fetched" in line) != ("was there" in line)
    return [file for line, file in zip(lines, FILES, strict=True) if "fetched" in line]


def state(folder: Path) -> dict[str, Any]:
    """Return the content of a folder: the targets of links, the bytes of files, None for anything else."""
    return {
        path.name: path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in folder.iterdir()
    }


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_files_are_fetched(mirrors: Mirrors, data_dir: Path, tmp_path: Path, program: Program) -> None:
    new = tmp_path / "a" / "new folder"
    done = program("data", "fetch", "--data-dir", new, "--mirror", mirrors.address("good"))
    assert (done.returncode, done.stderr) == (0, "")
    assert fetched(done.stdout, new) == list(FILES)
    assert names(new) == {file.name for file in FILES}
    for file in FILES:
        assert (new / file.name).read_bytes() == (data_dir / file.name).read_bytes()
        assert stat.S_IMODE((new / file.name).stat().st_mode) == 0o644


def test_existing_files_are_not_fetched_again(mirrors: Mirrors, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remove(folder / TEST_LABELS.name)
    mirrors.asked.clear()
    assert fetch(folder, mirrors.address("good").rstrip("/")) == 0
    assert mirrors.asked == [f"good/{TEST_LABELS.name}"]
    assert fetched(capsys.readouterr().out, folder) == [TEST_LABELS]
    assert fetch(folder, mirrors.address("good")) == 0
    assert len(mirrors.asked) == 1


def advised_command(sentence: str | None) -> list[str]:
    advice = re.search(r"mnist-trainer (data fetch --data-dir \S+( --force)?)", sentence or "")
    assert advice
    return shlex.split(advice.group(1))


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, (damage, _) in DAMAGES.items()])
def test_the_advised_command_adds_genuine_files_and_changes_none(
    damage: Damage, folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder / TEST_LABELS.name)
    before = state(folder)
    command = advised_command(file_problem(folder, TEST_LABELS))
    assert main([*command, "--mirror", data_dir.as_uri()]) == 0
    assert main(["data", "verify", *command[2:]]) == 0
    assert capsys.readouterr().err == ""
    after = state(folder)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    "damage", [pytest.param(damage, id=name) for name, (damage, _) in DAMAGES.items() if name != "missing"]
)
def test_existing_files_are_replaced_only_on_request(
    damage: Damage, folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder / TEST_LABELS.name)
    remove(folder / TRAIN_LABELS.name)
    before = state(folder)
    assert fetch(folder, "file:///nowhere") == 2  # and not 1: no mirror is asked
    captured = capsys.readouterr()
    (sentence,) = captured.err.splitlines()
    assert captured.out == ""
    assert_names(sentence, f"{folder / TEST_LABELS.name}: ", f"--data-dir {folder}-genuine", "--force")
    assert state(folder) == before
    assert fetch(folder, data_dir.as_uri(), force=True) == 0
    printed = capsys.readouterr().out
    assert fetched(printed, folder) == [TRAIN_LABELS, TEST_LABELS]
    copy = f"{TEST_LABELS.name}.replaced"
    assert [copy in line for line in printed.splitlines()] == [file is TEST_LABELS for file in FILES]
    assert state(folder)[copy] == before[TEST_LABELS.name]
    assert main(["data", "verify", "--data-dir", str(folder)]) == 0


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """Create a folder with another data set in files with MNIST's names and shapes, as in Fashion-MNIST."""
    made = tmp_path / "fashion"
    made.mkdir()
    chance = np.random.default_rng(0)
    for file in FILES:
        values = np.repeat(chance.integers(0, 10, file.shape[0], np.uint8), int(np.prod(file.shape[1:])))
        (made / file.name).write_bytes(idx(0x800 + len(file.shape), file.shape, values.tobytes()))
        assert read_idx(made / file.name, file).shape == file.shape
    return made


def test_another_data_set_is_not_replaced(fashion: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(fashion)
    assert main(["data", "verify", "--data-dir", str(fashion)]) == 2
    advised = {tuple(advised_command(line)) for line in capsys.readouterr().err.splitlines()}
    assert advised == {("data", "fetch", "--data-dir", f"{fashion}-genuine")}
    assert fetch(fashion, data_dir.as_uri()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for line, file in zip(captured.err.splitlines(), FILES, strict=True):
        assert str(fashion / file.name) in line
        assert "--force" in line
    assert state(fashion) == before
    assert fetch(fashion, data_dir.as_uri(), force=True) == 0
    copies = {f"{name}.replaced": content for name, content in before.items()}
    assert state(fashion) == {file.name: (data_dir / file.name).read_bytes() for file in FILES} | copies


def test_no_copy_replaces_another(fashion: Path, data_dir: Path) -> None:
    path = fashion / TEST_LABELS.name
    contents = [path.read_bytes(), b"mine", b"again mine"]
    for content in contents:
        path.write_bytes(content)
        assert fetch(fashion, data_dir.as_uri(), force=True) == 0
    copies = [f"{path.name}.replaced{number}" for number in ("", "-2", "-3")]
    assert [(fashion / copy).read_bytes() for copy in copies] == contents


def test_a_link_is_replaced_and_not_its_target(fashion: Path, folder: Path, data_dir: Path) -> None:
    precious = state(fashion)
    link = folder / TRAIN_LABELS.name
    link.unlink()
    link.symlink_to(fashion / TRAIN_LABELS.name)
    assert fetch(folder, data_dir.as_uri()) == 2
    assert link.readlink() == fashion / TRAIN_LABELS.name
    assert fetch(folder, data_dir.as_uri(), force=True) == 0
    assert not link.is_symlink()
    assert (folder / f"{TRAIN_LABELS.name}.replaced").readlink() == fashion / TRAIN_LABELS.name
    assert file_problem(folder, TRAIN_LABELS) is None
    assert state(fashion) == precious


def test_a_file_stays_if_its_replacement_cannot_be_fetched(fashion: Path, data_dir: Path, tmp_path: Path) -> None:
    before = state(fashion)
    half = tmp_path / "half a mirror"
    half.mkdir()
    for file in (TRAIN_IMAGES, TRAIN_LABELS):
        (half / file.name).symlink_to(data_dir / file.name)
    assert fetch(fashion, half.as_uri(), force=True) == 1
    replaced = {file.name: (half / file.name).read_bytes() for file in (TRAIN_IMAGES, TRAIN_LABELS)}
    copies = {f"{name}.replaced": before[name] for name in replaced}
    assert state(fashion) == before | replaced | copies


def test_a_damaged_bundled_file_is_replaced_only_there(
    folder: Path, fashion: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = state(fashion)
    monkeypatch.setattr(bundled, "mnist_folder", lambda: folder)
    flip_a_bit(folder / TEST_LABELS.name)
    command = advised_command(file_problem(folder, TEST_LABELS))
    assert "--force" in command
    monkeypatch.setenv("MNIST_TRAINER_DATA", str(fashion))
    assert main([*command, "--mirror", data_dir.as_uri()]) == 0
    assert main(["data", "verify", "--data-dir", str(folder)]) == 0
    assert state(fashion) == precious


BAD_MIRRORS: dict[str, Words] = {
    "missing": ("404",),
    "failing": ("503",),
    "truncated": ("824,438 ", "1,648,877 bytes"),
    "short": ("1,648,876 ", "1,648,877 bytes"),
    "nothing": (" 0 ", "1,648,877 bytes"),
    "long": ("1,648,877 bytes",),
    "wrong": ("SHA-256",),
    "half-a-chunk": ("IncompleteRead",),
    "hangs-up": ("Remote end closed connection",),
    "silent": ("timed out",),
}
"""Answer of a mirror → words of the message."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeout for the silent mirror."""
    real = urllib.request.urlopen
    monkeypatch.setattr(
        urllib.request,
        "urlopen",
        lambda address, timeout: real(address, timeout=0.1 if "/silent/" in address else timeout),
    )


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("bad", BAD_MIRRORS)
def test_a_bad_mirror_is_skipped(bad: str, mirrors: Mirrors, folder: Path, data_dir: Path) -> None:
    remove(folder / TEST_IMAGES.name)
    mirrors.asked.clear()
    assert fetch(folder, mirrors.address(bad), mirrors.address("good")) == 0
    assert mirrors.asked == [f"{bad}/{TEST_IMAGES.name}", f"good/{TEST_IMAGES.name}"]
    assert (folder / TEST_IMAGES.name).read_bytes() == (data_dir / TEST_IMAGES.name).read_bytes()
    assert names(folder) == {file.name for file in FILES}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("bad", BAD_MIRRORS)
def test_nothing_changes_if_all_mirrors_fail(
    bad: str, mirrors: Mirrors, folder: Path, capsys: pytest.CaptureFixture[str], snapshot: Snapshot
) -> None:
    replace(folder / TEST_IMAGES.name, b"of old")
    assert fetch(folder, mirrors.address("missing"), mirrors.address(bad), force=True) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (message,) = captured.err.splitlines()
    assert_names(message, TEST_IMAGES.name, mirrors.address("missing"), "404")
    reason = message.rpartition(mirrors.address(bad))[2]
    assert_names(reason, ": ", *BAD_MIRRORS[bad])
    if bad not in ("half-a-chunk", "hangs-up", "silent"):  # whose messages come from Python
        snapshot(message.replace(f":{mirrors.server_port}/", ":PORT/"))
    assert (folder / TEST_IMAGES.name).read_bytes() == b"of old"
    assert names(folder) == {file.name for file in FILES}


def test_the_answer_of_a_server_that_refuses_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = io.BytesIO(b"it is gone")
    error = urllib.error.HTTPError(
        "http://example.org", 410, "Gone", Message(), answer
    )  # would close it at the end of its life

    def refuse(*_: Any, **_more: Any) -> None:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    remove(folder / TEST_IMAGES.name)
    assert fetch(folder, "http://example.org") == 1
    assert answer.closed


def test_no_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remove(folder / TEST_IMAGES.name)
    address = closed_port()
    assert fetch(folder, address) == 1
    assert_names(capsys.readouterr().err, TEST_IMAGES.name, address, "Connection refused")
    assert names(folder) == {file.name for file in FILES} - {TEST_IMAGES.name}


def test_an_endless_answer_is_cut_off(mirrors: Mirrors, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"endless/: .*4,542 bytes"):
        fetch_files(tmp_path, [TEST_LABELS], (mirrors.address("endless"),))
    assert mirrors.endless_is_over.wait(LIMIT_SECONDS)
    assert mirrors.endless_mebibytes < 100, "the client took all of it"
    assert names(tmp_path) == set()


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time in which a mirror may be slow."""
    monkeypatch.setattr(mnist_files, "SECONDS_TO_BEGIN", 0.2)
    monkeypatch.setattr(mnist_files, "MIN_BYTES_PER_SECOND", 10**9)


@pytest.mark.usefixtures("in_a_hurry")
@pytest.mark.parametrize("slow", ["slow-header", "slow-body"])
def test_a_slow_mirror_is_given_up(slow: str, mirrors: Mirrors, tmp_path: Path, data_dir: Path) -> None:
    mirrors.slow_may_end.clear()
    mirrors.slow_is_over.clear()
    counts: list[int] = []
    fetch_files(tmp_path, [TEST_LABELS], (mirrors.address(slow), data_dir.as_uri()), counts.append)
    assert sum(counts) == TEST_LABELS.size_bytes
    with pytest.raises(RunError, match=rf"{slow}/: too slow: .* at least 1,000,000,000 "):
        fetch_files(tmp_path, [TRAIN_IMAGES], (mirrors.address(slow),))  # would take a day
    assert names(tmp_path) == {TEST_LABELS.name}
    if slow == "slow-body":
        assert mirrors.slow_is_over.wait(LIMIT_SECONDS), "the client did not close the connection"
    mirrors.slow_may_end.set()  # the client is still waiting for the end of the header


@pytest.mark.usefixtures("in_a_hurry")
def test_a_mirror_that_cannot_be_reached_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: may_end.wait(LIMIT_SECONDS))
    with pytest.raises(RunError, match="too slow: sent 0 bytes"):
        fetch_files(tmp_path, [TEST_LABELS])
    may_end.set()


def test_a_mirror_may_be_slow_as_long_as_it_keeps_the_minimum_speed(
    mirrors: Mirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist_files, "SECONDS_TO_BEGIN", LIMIT_SECONDS)
    monkeypatch.setattr(mnist_files, "MIN_BYTES_PER_SECOND", 10**9)
    fetch_files(tmp_path, [TEST_IMAGES], (mirrors.address("good"),))
    assert names(tmp_path) == {TEST_IMAGES.name}


def test_control_characters_of_a_mirror_are_escaped(
    mirrors: Mirrors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, mirrors.address("hostile")) == 1
    assert r"404: \x1b]0;owned\x07" in capsys.readouterr().err


def test_progress_takes_back_what_a_bad_mirror_sent(mirrors: Mirrors, tmp_path: Path) -> None:
    counts: list[int] = []
    fetch_files(tmp_path, [TEST_IMAGES], (mirrors.address("truncated"), mirrors.address("good")), counts.append)
    assert min(counts) == -824_438
    assert sum(counts) == TEST_IMAGES.size_bytes


def test_an_interrupted_fetch_leaves_nothing(mirrors: Mirrors, tmp_path: Path) -> None:
    replaced = tmp_path / TEST_IMAGES.name
    replaced.write_bytes(b"of old")

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_files(tmp_path, [TEST_IMAGES], (mirrors.address("good"),), interrupt)
    assert names(tmp_path) == {TEST_IMAGES.name}
    assert replaced.read_bytes() == b"of old"


@contextmanager
def fetching(folder: Path, mirrors: Mirrors) -> Iterator[ForkedProgram]:
    """Run `data fetch` with a silent mirror in another process, until it waits for the first file."""
    arguments = ("data", "fetch", "--data-dir", folder, "--mirror", mirrors.address("silent"))
    process = ForkedProgram(*arguments, cwd=folder.parent)
    try:
        wait_for(lambda: list(folder.glob(f".{TRAIN_IMAGES.name}.*")), process)
        yield process
    finally:
        process.kill()


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_fetch_that_is_ended_by_a_signal_leaves_nothing(number: int, mirrors: Mirrors, tmp_path: Path) -> None:
    with fetching(tmp_path / "new", mirrors) as process:
        process.send_signal(number)
        assert process.communicate() == ("", "mnist-trainer: interrupted\n")
    assert process.returncode == 130
    assert names(tmp_path) == set()


@pytest.mark.process
def test_the_incomplete_file_of_a_killed_fetch_is_removed_by_the_next(mirrors: Mirrors, tmp_path: Path, data_dir: Path) -> None:
    new = tmp_path / "new"
    with fetching(new, mirrors) as process:
        process.kill()
    (incomplete,) = names(new)
    link = f".{TEST_LABELS.name}.0123456789abcdef.partial"
    (new / link).symlink_to(data_dir / TEST_LABELS.name)
    others = {f".{TEST_LABELS.name}.old", f".{TEST_LABELS.name}.a1b2c3d4.partial", ".other.0123456789abcdef.partial"}
    for name in others:
        (new / name).write_text("of a user", encoding="utf-8")
    assert fetch(new, data_dir.as_uri()) == 0
    assert incomplete not in names(new)
    assert names(new) == {file.name for file in FILES} | others | {link}


@pytest.mark.process
def test_a_second_fetch_into_a_folder_is_refused(
    mirrors: Mirrors, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    with fetching(new, mirrors):
        before = names(new)
        assert fetch(new, data_dir.as_uri()) == 2
        assert names(new) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_names(captured.err, f"{new}: ", "another process")


def test_a_full_disk_is_not_the_fault_of_a_mirror(mirrors: Mirrors, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirrors.asked.clear()
    new = tmp_path / "new"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        code = fetch(new, mirrors.address("good"), mirrors.address("good"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    assert_names(capsys.readouterr().err, f"{new / TRAIN_IMAGES.name}: ", "cannot be written", "File too large", "--data-dir")
    assert mirrors.asked == [f"good/{TRAIN_IMAGES.name}"]
    assert names(tmp_path) == set()


@pytest.mark.parametrize("below", ["", "new/folder"])
def test_a_fetch_that_fails_leaves_no_new_folder(below: str, tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    assert fetch(folder / below, closed_port()) == 1
    assert names(folder) == set()


@pytest.mark.parametrize(
    ("below", "reason"),
    [
        pytest.param("file", "File exists", id="a file"),
        pytest.param("file/mnist", "Not a directory", id="below a file"),
        pytest.param("/proc/mnist", "No such file or directory", id="in proc"),
    ],
)
def test_a_folder_that_cannot_be_written(
    below: str, reason: str, mirrors: Mirrors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    unwritable = tmp_path / below
    mirrors.asked.clear()
    assert fetch(unwritable, mirrors.address("good")) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_names(captured.err, f"{unwritable}: ", reason, "--data-dir")
    assert mirrors.asked == []


def test_train_names_all_four_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data-dir", str(tmp_path), "--output", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4


def test_a_directory_in_the_way(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_the_way = tmp_path / FILES[3].name
    in_the_way.mkdir()
    assert "directory" in str(file_problem(tmp_path, FILES[3]))
    (in_the_way / "notes").write_text("mine", encoding="utf-8")
    assert fetch(tmp_path, data_dir.as_uri()) == 2
    assert str(in_the_way) in capsys.readouterr().err
    assert names(tmp_path) == {in_the_way.name}
    assert fetch(tmp_path, data_dir.as_uri(), force=True) == 0
    assert names(tmp_path / f"{in_the_way.name}.replaced") == {"notes"}


def test_a_garbled_answer_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert main(["data", "fetch", "--data-dir", str(tmp_path), "--mirror", address]) == 1
        thread.join()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_advice_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    assert f"--data-dir '{folder}'" in str(file_problem(folder, FILES[0]))


def test_a_nonsensical_mirror_is_a_wrong_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "--data-dir", str(tmp_path), "--mirror", "nonsense"]) == 2
    assert_names(capsys.readouterr().err, "--mirror nonsense: ")
