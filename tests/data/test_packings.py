"""MNIST in the packings of other programs: recognised by its content, imported as the four files, or refused by name."""

import gzip
import io
import os
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names

from mnist_trainer import bundled
from mnist_trainer.cli import main
from mnist_trainer.data import packings
from mnist_trainer.data.mnist_files import FILES, Split, file_problem, files_problems, path_of, read_split

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES

DOTTED = {file: file.unpacked_name.replace("-idx", ".idx") for file in FILES}


@pytest.fixture(autouse=True)
def no_data_dir_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MNIST_TRAINER_DATA", raising=False)


@pytest.fixture(scope="module")
def contents(data_dir: Path) -> list[bytes]:
    """Return the unpacked contents of the four files."""
    return [gzip.decompress((data_dir / file.name).read_bytes()) for file in FILES]


@pytest.fixture(scope="module")
def splits(data_dir: Path) -> tuple[Split, Split]:
    return read_split(data_dir, train=True), read_split(data_dir, train=False)


Write = Callable[[Path, list[bytes]], None]


def named(name_of: Callable[[Any], str], pack: Callable[[bytes], bytes] = bytes) -> Write:
    """Return a function that writes the four contents with these names in this packing."""

    def write(folder: Path, contents: list[bytes]) -> None:
        for file, content in zip(FILES, contents, strict=True):
            path = folder / name_of(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pack(content))

    return write


def repack(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1)


def npz(save: Callable[..., None]) -> Write:
    def write(folder: Path, contents: list[bytes]) -> None:
        arrays = [
            np.frombuffer(content, np.uint8, offset=4 + 4 * len(file.shape)).reshape(file.shape)
            for file, content in zip(FILES, contents, strict=True)
        ]
        save(folder / "mnist.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))

    return write


def write_csv(path: Path, split: Split, header: str = "") -> None:
    table = np.column_stack([split.labels, split.images.reshape(len(split.labels), -1)])
    np.savetxt(path, table, fmt="%d", delimiter=",", header=header, comments="")


def import_(source: Path, folder: Path, *flags: str) -> int:
    return main(["data", "import", str(source), "--data-dir", str(folder), *flags])


# --- a folder of the four files in another packing is used as it is


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(named(lambda file: file.name, repack), id="packed anew"),
        pytest.param(named(lambda file: file.unpacked_name), id="unpacked"),
        pytest.param(named(lambda file: file.name), id="unpacked with the name of the packed file"),
    ],
)
def test_genuine_contents_are_accepted(
    write: Write, contents: list[bytes], splits: tuple[Split, Split], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, contents)
    assert main(["data", "verify", "--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": genuine")[0] for line in lines] == [str(path_of(tmp_path, file)) for file in FILES]
    for train, split in zip((True, False), splits, strict=True):
        read = read_split(tmp_path, train)
        assert (read.images == split.images).all()
        assert (read.labels == split.labels).all()


def test_training_on_unpacked_files_gives_the_same_bits(contents: list[bytes], tmp_path: Path, data_dir: Path) -> None:
    unpacked = tmp_path / "unpacked"
    named(lambda file: file.unpacked_name)(unpacked, contents)
    small = ["--train-images", "128", "--test-images", "64", "--epochs", "1", "--quiet"]
    for name, folder in (("a", data_dir), ("b", unpacked)):
        assert main(["train", *small, "--data-dir", str(folder), "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "a/model.params").read_bytes() == (tmp_path / "b/model.params").read_bytes()
    assert (tmp_path / "b/config.toml").read_bytes() == (tmp_path / "a/config.toml").read_bytes()


def test_another_content_in_an_unpacked_file_is_refused(contents: list[bytes], tmp_path: Path) -> None:
    named(lambda file: file.unpacked_name)(tmp_path, contents)
    changed = bytearray(contents[3])
    changed[100] ^= 1
    (tmp_path / TEST_LABELS.unpacked_name).write_bytes(changed)
    problem = str(file_problem(tmp_path, TEST_LABELS))
    assert_names(problem, f"{tmp_path / TEST_LABELS.unpacked_name}: ", TEST_LABELS.content_sha256[:16], "content")
    assert [file_problem(tmp_path, file) for file in FILES[:3]] == [None] * 3


@pytest.mark.parametrize(
    ("header", "words"),
    [
        pytest.param(struct.pack(">2xBBI", 0x0C, 1, 10_000), ("32-bit integers", "0x0C"), id="another type"),
        pytest.param(struct.pack(">2xBBII", 0x08, 2, 100, 100), ("shape 10,000,", "100×100"), id="another dimension"),
        pytest.param(struct.pack(">2xBBI", 0x08, 1, 9_999), ("shape 10,000,", "9,999"), id="another length"),
    ],
)
def test_another_header_is_refused_by_its_name(header: bytes, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / TEST_LABELS.unpacked_name
    path.write_bytes(header + bytes(9_996))
    assert_names(str(file_problem(tmp_path, TEST_LABELS)), f"{path}: ", *words)


@pytest.mark.process  # asks for the packages of the interpreter
def test_the_benchmark_needs_the_published_files(
    contents: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named(lambda file: file.name, repack)(tmp_path, contents)
    assert main(["benchmark", "--data-dir", str(tmp_path)]) == 2
    for line, file in zip(capsys.readouterr().err.splitlines(), FILES, strict=True):
        assert_names(line, f"{tmp_path / file.name}: ", "as published", "--data-dir")


# --- importing

PACKINGS: dict[str, Write] = {
    "packed anew": named(lambda file: file.name, repack),
    "unpacked": named(lambda file: file.unpacked_name),
    "dotted names": named(DOTTED.__getitem__),
    "dotted names, packed": named(lambda file: f"{DOTTED[file]}.gz", repack),
    "any names": named(lambda file: f"{FILES.index(file)}.bin"),
    "torchvision": named(lambda file: f"MNIST/raw/{file.unpacked_name}"),
    "Keras": npz(np.savez),
    "Keras, compressed": npz(np.savez_compressed),
}


@pytest.mark.slow
@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in PACKINGS.items()])
def test_other_packings_are_imported(
    write: Write, contents: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = tmp_path / "source", tmp_path / "mnist"
    source.mkdir()
    write(source, contents)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert import_(source, folder) == 0
    for line, file in zip(capsys.readouterr().out.splitlines(), FILES, strict=True):
        assert_names(line, f"{folder / file.name}: ", f"imported from {source}", "genuine")
    assert {path.name for path in folder.iterdir()} == {file.name for file in FILES}
    assert [gzip.decompress((folder / file.name).read_bytes()) for file in FILES] == contents
    assert main(["data", "verify", "--data-dir", str(folder)]) == 0
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_published_files_are_imported_as_they_are(contents: list[bytes], data_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "FolderOfTorchvision"
    named(lambda file: f"MNIST/raw/{file.unpacked_name}")(source, contents)
    for file in FILES:
        shutil.copyfile(data_dir / file.name, source / "MNIST" / "raw" / file.name)
    assert import_(source, tmp_path / "mnist") == 0
    for file in FILES:
        assert (tmp_path / "mnist" / file.name).read_bytes() == (data_dir / file.name).read_bytes()


@pytest.mark.slow
def test_tables_are_imported(splits: tuple[Split, Split], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "csv"
    source.mkdir()
    write_csv(source / "mnist_train.csv", splits[0])
    write_csv(source / "mnist_test.csv", splits[1], header=",".join(["label", *map(str, range(784))]))
    assert import_(source / "mnist_train.csv", tmp_path / "mnist") == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert_names(message, f"{source / 'mnist_train.csv'}: ", TRAIN_IMAGES.name, f"not {TEST_IMAGES.name}", TEST_LABELS.name)
    assert not (tmp_path / "mnist").exists()
    assert import_(source, tmp_path / "mnist") == 0
    assert files_problems(tmp_path / "mnist") == []


@pytest.mark.parametrize("header", ["", ",".join(["label", *(f"pixel{number}" for number in range(784))])])
def test_a_selection_of_mnist_is_described_and_refused(
    header: str, splits: tuple[Split, Split], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = splits
    labels = np.concatenate([train.labels[40:10:-1], test.labels[:5], train.labels[:2] + 1])
    images = np.concatenate([train.images[40:10:-1], test.images[:5], train.images[:2]])
    path = tmp_path / "train.csv"
    write_csv(path, Split(images, labels), header)
    assert import_(path, tmp_path / "mnist") == 2
    selection, missing = capsys.readouterr().err.splitlines()
    assert_names(selection, f"{path}: ", "37 labelled images", "30 are MNIST's training images", "5 its test images")
    assert_names(missing, f"{path}: ", *(file.name for file in FILES), "data fetch")
    assert not (tmp_path / "mnist").exists()


def test_without_the_bundled_files_a_selection_is_refused_too(
    splits: tuple[Split, Split], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "mnist_folder", lambda: tmp_path / "nowhere")
    write_csv(tmp_path / "train.csv", splits[0].part(0, 3))
    assert import_(tmp_path / "train.csv", tmp_path / "mnist") == 2
    assert "3 labelled images" in capsys.readouterr().err


def test_whole_files_are_kept(contents: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = tmp_path / "source", tmp_path / "mnist"
    named(lambda file: file.unpacked_name)(source, contents)
    named(lambda file: file.name, repack)(folder, contents)
    (folder / TEST_LABELS.name).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert import_(source, folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["was there" in line for line in lines] == [True, True, True, False]
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before


def test_other_files_are_kept_unless_forced(contents: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = tmp_path / "source", tmp_path / "mnist"
    named(lambda file: file.unpacked_name)(source, contents)
    folder.mkdir()
    (folder / TEST_LABELS.name).write_bytes(b"mine")
    assert import_(source, folder) == 2
    assert_names(capsys.readouterr().err, f"{folder / TEST_LABELS.name}: ", "imported", f"{folder}-genuine", "--force")
    assert {path.name for path in folder.iterdir()} == {TEST_LABELS.name}
    assert import_(source, folder, "--force") == 0
    assert (folder / f"{TEST_LABELS.name}.replaced").read_bytes() == b"mine"
    assert files_problems(folder) == []


@pytest.mark.parametrize("name", ["MNIST/raw", "mnist.npz", "train-images.idx3-ubyte"])
def test_train_names_the_command_that_imports(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).mkdir(parents=True)
    assert main(["train", "--data-dir", str(tmp_path), "--output", str(tmp_path / "run")]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert f"mnist-trainer data import {tmp_path} --data-dir {tmp_path}-genuine" in line


# --- hostile and damaged sources


def write_npz(path: Path, name: str, header: bytes, content: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content)


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    return repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"


def pickled(path: Path) -> None:
    np.savez(path, x_train=np.array([{"a": 1}], dtype=object))


def bomb(path: Path) -> None:
    write_npz(path, "x_train.npy", npy_header("|u1", TRAIN_IMAGES.shape), bytes(2**28))


def many_entries(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2000):
            archive.writestr(f"{number:060}", b"")


def in_zip64(path: Path) -> None:
    many_entries(path)
    content = path.read_bytes()
    path.write_bytes(content[:-22] + b"PK\x06\x07" + bytes(16) + content[-22:])


SOURCES: dict[str, tuple[str, Callable[[Path], Any], tuple[str, ...]]] = {
    "pickled objects": ("a.npz", pickled, ("x_train", "object")),
    "another type": (
        "a.npz",
        lambda path: np.savez(path, x_train=np.zeros(TRAIN_IMAGES.shape, "f4")),
        ("float32", "60,000×28×28"),
    ),
    "another shape": ("a.npz", lambda path: write_npz(path, "x_train.npy", npy_header("|u1", (2**40,))), ("unsigned bytes",)),
    "an incomplete array": (
        "a.npz",
        lambda path: write_npz(path, "x_train.npy", npy_header("|u1", TRAIN_IMAGES.shape)),
        ("incomplete",),
    ),
    "a zip bomb": ("a.npz", bomb, ("x_train", "other content")),
    "many entries": ("a.npz", many_entries, ("too many entries",)),
    "zip64": ("a.npz", in_zip64, ("not an archive as numpy writes it",)),
    "a cut archive": ("a.npz", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), ("archive",)),
    "32-bit floats": ("a", lambda path: path.write_bytes(struct.pack(">2xBBI", 0x0D, 1, 10_000)), ("32-bit floats",)),
    "Fashion-MNIST": (
        "a",
        lambda path: path.write_bytes(struct.pack(">2xBBI", 8, 1, 10_000) + bytes(10_000)),
        ("other content",),
    ),
    "damaged gzip": ("a.gz", lambda path: path.write_bytes(gzip.compress(b"a" * 100)[:-8]), ("gzip",)),
    "images without labels": ("test.csv", lambda path: path.write_text("0," * 783 + "0\n"), ("without labels",)),
    "other columns": ("a.csv", lambda path: path.write_text("1,2,3\n"), ("3 columns",)),
    "a long line": ("a.csv", lambda path: path.write_text("0," * 784 + "0\n" + "0" * 2**20), ("a line", "8,192 bytes")),
    "a pixel 256": ("a.csv", lambda path: path.write_text("0," * 784 + "256\n"), ("256",)),
    "a short row": ("a.csv", lambda path: path.write_text("0," * 784 + "0\n0,0\n"), ("columns",)),
    "only a header": ("a.csv", lambda path: path.write_text("label," + "p," * 783 + "p\n"), ("0 rows",)),
    "not ASCII": ("a.csv", lambda path: path.write_text("0," * 784 + "½\n", encoding="utf-8"), ("ascii",)),
    "a text": ("notes.txt", lambda path: path.write_text("MNIST"), ()),
    "empty": ("empty", lambda path: path.write_text(""), ()),
}


@pytest.mark.parametrize(
    ("name", "write", "words"), [pytest.param(*source, id=description) for description, source in SOURCES.items()]
)
def test_a_wrong_source_is_refused_by_name(
    name: str, write: Callable[[Path], Any], words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source / name)
    for given in (source, source / name):
        tracemalloc.start()
        assert import_(given, tmp_path / "mnist") == 2
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 3 * TRAIN_IMAGES.unpacked_bytes
        *remarks, last = capsys.readouterr().err.splitlines()
        assert_names(last, f"{given}: ", "does not hold", TRAIN_IMAGES.name, "data fetch")
        assert any(all(word in remark for word in (str(source / name), *words)) for remark in remarks) == bool(words)
    assert not (tmp_path / "mnist").exists()


def test_a_large_file_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train.csv", "mnist.npz", "images.gz"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(2**40)
        assert import_(tmp_path / name, tmp_path / "mnist") == 2
        assert f"{packings._MAX_BYTES:,} bytes" in capsys.readouterr().err
    assert import_(tmp_path, tmp_path / "mnist") == 2


def test_a_gzip_bomb_is_unpacked_to_its_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(struct.pack(">2xBBI", 8, 1, 10_000))
        for _ in range(200):
            stream.write(bytes(2**20))
    tracemalloc.start()
    assert import_(path, tmp_path / "mnist") == 2
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 3 * 2**20
    assert "10,008 unpacked bytes" in capsys.readouterr().err


def test_links_pipes_and_devices_in_a_folder_are_skipped(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for file in FILES:
        (source / file.name).symlink_to(data_dir / file.name)
    os.mkfifo(source / "pipe.csv")
    assert import_(source, tmp_path / "mnist") == 2
    assert_names(capsys.readouterr().err, f"{source}: ", "does not hold")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("nowhere", ("No such file",), id="missing"),
        pytest.param("pipe", ("named pipe",), id="a named pipe"),
        pytest.param("/dev/zero", ("device",), id="a device"),
        pytest.param("folder", ("more than 100 files",), id="a folder of many files"),
    ],
)
def test_a_source_that_cannot_be_read(
    source: str, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for number in range(101):
        (tmp_path / "folder" / str(number)).touch()
    path = tmp_path / source
    assert import_(path, tmp_path / "mnist") == 2
    assert_names(capsys.readouterr().err, f"{path}: ", *words)


def test_an_array_of_a_newer_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"9\.0"):
        packings._read_npy(io.BytesIO(b"\x93NUMPY\x09\x00" + bytes(100)), (3,))
