"""Data sets other than MNIST: one's own four files, and those that are known by name."""

import gzip
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import assert_names
from conftest import Program

from mnist_trainer.cli import main
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.schema import DataConfig, RunConfig
from mnist_trainer.data.files import files_problems, find_data_dir, identified, read_split
from mnist_trainer.data.mnist_files import FILES, PUBLISHED, MnistFile
from mnist_trainer.datasets import DATA_SETS
from mnist_trainer.errors import RequestError
from mnist_trainer.model.network import build_cnn, check_users_network, initialize, parameters_in_order
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

CLASSES = ("left", "middle", "right side")
SIZE = (20, 32)


def idx(array: npt.NDArray[Any], element_type: int = 0x08) -> bytes:
    return struct.pack(f">2xBB{array.ndim}I", element_type, array.ndim, *array.shape) + array.tobytes()


def stripes(count: int, size: tuple[int, int] = SIZE, classes: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """Return images with a bright vertical stripe, whose place is the class, and their labels."""
    chance = np.random.RandomState(seed)
    labels = (np.arange(count) % classes).astype(np.uint8)
    images = chance.randint(0, 60, (count, *size)).astype(np.uint8)
    width = size[1]
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label * width // classes : (label + 1) * width // classes] = 250
    return images, labels


def write(folder: Path, train: tuple[Any, Any], test: tuple[Any, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(FILES, (*train, *test), strict=True):
        (folder / file.unpacked_name).write_bytes(idx(array))
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write(tmp_path / "stripes", stripes(300), stripes(90, seed=1))


def data_of(**changes: Any) -> DataConfig:
    values: dict[str, Any] = {"name": "stripes", "train_images": 300, "test_images": 90, "classes": CLASSES, "image_size": SIZE}
    return DataConfig(**(values | changes))


CONFIG = """
[training]
learning_rate = 0.05
epochs = 2
batch_size = 20

[schedule]
name = "Constant"

[data]
name = "stripes"
train_images = 300
test_images = 90
image_size = [20, 32]
classes = ["left", "middle", "right side"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "stripes.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def sha256(folder: Path) -> str:
    return hashlib.sha256(b"".join((folder / file.unpacked_name).read_bytes() for file in FILES)).hexdigest()


# --- reading


def test_own_files_are_read_and_identified(own: Path) -> None:
    assert files_problems(own, data_of()) == []
    split = read_split(own, data_of(), train=True)
    images, labels = stripes(300)
    assert (split.images == images).all()
    assert split.labels.tolist() == labels.tolist()
    assert identified(own, data_of()) == data_of(sha256=sha256(own))


def test_packed_files_have_the_same_identity(own: Path) -> None:
    expected = sha256(own)
    for file in FILES:
        unpacked = own / file.unpacked_name
        (own / file.name).write_bytes(gzip.compress(unpacked.read_bytes()))
        unpacked.unlink()
    assert identified(own, data_of()).sha256 == expected


def test_images_of_emnist_are_upright(tmp_path: Path) -> None:
    images, labels = stripes(300, (28, 28))
    write(tmp_path, (images, labels), (images[:90], labels[:90]))
    data = data_of(name="emnist-digits", classes=None, image_size=None)
    assert (read_split(tmp_path, data, train=True).images == images.transpose(0, 2, 1)).all()
    assert (read_split(tmp_path, data_of(classes=None, image_size=None), train=True).images == images).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"image_size": None}, ("data.image_size: ", "20×32", "[20, 32]"), id="another size"),
        pytest.param({"image_size": (32, 20)}, ("data.image_size: ", "20×32"), id="height and width exchanged"),
        pytest.param({"classes": CLASSES[:2]}, ("data.classes: ", "2 classes", "is 2"), id="too few classes"),
        pytest.param({"train_images": 301}, ("data.train_images = 301: ", "300"), id="too many training images"),
        pytest.param({"test_images": 91}, ("data.test_images = 91: ", "90"), id="too many test images"),
        pytest.param({"sha256": "0" * 64}, ("data.sha256 = 000", "restore"), id="another SHA-256"),
    ],
)
def test_a_configuration_for_other_files_is_refused(changes: dict[str, Any], words: tuple[str, ...], own: Path) -> None:
    (problem,) = files_problems(own, data_of(**changes))
    assert_names(problem, *words)


ZEROS = np.zeros(300, np.uint8)

WRONG: dict[str, tuple[int, bytes, tuple[str, ...]]] = {
    "32-bit floats": (0, idx(stripes(300)[0], 0x0D), ("unsigned bytes", "32-bit floats", "0x0D")),
    "labels for images": (0, idx(ZEROS), ("3 dimensions", "shape 300")),
    "images for labels": (1, idx(stripes(300)[0]), ("1 dimension", "300×20×32")),
    "too few labels": (1, idx(ZEROS[:299]), ("299 labels", "300 images")),
    "test images of another size": (2, idx(stripes(90, (20, 20))[0]), ("20×20", "20×32")),
    "tiny images": (0, idx(np.zeros((300, 15, 32), np.uint8)), ("15×32", "from 16 to 128")),
    "huge images": (0, struct.pack(">2xBB3I", 8, 3, 300, 129, 129), ("129×129", "from 16 to 128")),
    "no images": (0, idx(np.zeros((0, 20, 32), np.uint8)), ("1 to 10,000,000",)),
    "more than fit": (0, struct.pack(">2xBB3I", 8, 3, 2**31, 128, 128), ("1,073,741,824 bytes", "2,147,483,648×128×128")),
    "too short": (3, idx(ZEROS[:90])[:-1], ("98 unpacked bytes", "97")),
    "too long": (3, idx(ZEROS[:90]) + b"1", ("98 unpacked bytes", "more")),
    "empty": (3, b"", ("IDX header", "empty")),
    "a text": (3, b"0, 1, 2", ("IDX header", "30 2c 20 31")),
    "damaged gzip": (3, gzip.compress(idx(ZEROS[:90]))[:-4], ("gzip",)),
}


@pytest.mark.parametrize(("number", "content", "words"), [pytest.param(*row, id=name) for name, row in WRONG.items()])
def test_a_wrong_file_is_refused_by_name(number: int, content: bytes, words: tuple[str, ...], own: Path) -> None:
    path = own / FILES[number].unpacked_name
    path.write_bytes(content)
    (problem,) = files_problems(own, data_of())
    assert_names(problem, f"{path}: ", *words)


def test_missing_files_and_folders_in_their_place_are_refused(own: Path) -> None:
    for file in FILES[:2]:
        (own / file.unpacked_name).unlink()
    problems = files_problems(own, data_of())
    for problem, file in zip(problems, FILES[:2], strict=True):
        assert_names(problem, f"{own / file.name}: ", "No such file", "--data-dir")
    for file in FILES[:2]:
        (own / file.name).mkdir()
    for problem, file in zip(files_problems(own, data_of()), FILES[:2], strict=True):
        assert_names(problem, f"{own / file.name}: ", "folder")


# --- configurations


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_known_data_set_sets_the_numbers_of_images(name: str) -> None:
    data = load_config("tutorial", {"data.name": name.upper()}).data
    known = DATA_SETS[name]
    assert (data.name, data.train_images, data.test_images) == (name, known.train_images, known.test_images)
    assert data.class_names == known.classes
    assert len(known.classes) == 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"data.name": "mine"}, ("data.name", "data.train_images and data.test_images", "--name mine"), id="counts"
        ),
        pytest.param(
            {"data.name": "kmnist", "data.train_images": 60_001}, ("data.train_images", "60000"), id="more than KMNIST has"
        ),
        pytest.param({"data.test_images": 10_001}, ("data.test_images", "10000"), id="more than MNIST has"),
        pytest.param({"data.classes": ["a", "b"]}, ("data.classes", "mnist"), id="classes of MNIST"),
        pytest.param({"data.image_size": [28, 28]}, ("data.image_size", "mnist"), id="size of MNIST"),
        pytest.param({"data.sha256": "0" * 64}, ("data.sha256", "mnist"), id="SHA-256 of MNIST"),
        pytest.param({"data.name": "fashion_mnist"}, ("data.name", "did you mean fashion-mnist?"), id="a misspelling"),
        pytest.param(
            {"data.name": "mine", "data.train_images": 5, "data.test_images": 5, "data.classes": ["a", "a"]},
            ("data.classes", "2 to 256 different"),
            id="a class twice",
        ),
        pytest.param(
            {"data.name": "mine", "data.train_images": 5, "data.test_images": 5, "data.image_size": [28, 28, 28]},
            ("data.image_size", "[32, 32]"),
            id="three sides",
        ),
    ],
)
def test_wrong_keys_of_the_data_are_refused(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        load_config("tutorial", changes)
    (problem,) = caught.value.problems
    assert_names(problem, *words)


def test_a_name_from_the_command_line_leaves_the_checksum_of_the_file_behind(config: Path) -> None:
    config.write_text(f'{CONFIG}sha256 = "{"0" * 64}"\n', encoding="utf-8")
    assert load_config(config).data.sha256 == "0" * 64
    assert load_config(config, {"data.name": "others"}).data.sha256 is None


def test_the_default_folder_of_other_data_is_below_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_TRAINER_DATA", "elsewhere")
    assert find_data_dir("mnist") == Path("elsewhere")
    assert find_data_dir("kmnist") == Path("data/kmnist")
    assert find_data_dir("kmnist", "here") == Path("here")


# --- the network


@pytest.mark.parametrize(("size", "classes"), [((16, 16), 2), ((28, 28), 10), ((17, 33), 62), ((20, 32), 3), ((128, 16), 256)])
def test_the_network_follows_the_data(size: tuple[int, int], classes: int) -> None:
    network = build_cnn(classes)
    initialize(network, image_size=size)
    assert network(mx.nd.zeros((2, 1, *size))).shape == (2, classes)
    *_, weight, bias = parameters_in_order(network)
    assert (weight.shape, bias.shape) == ((classes, 512), (classes,))


def test_a_network_of_the_users_must_fit_the_data() -> None:
    name = f"{build_cnn.__module__}:build_cnn"
    check_users_network(name, 1, image_size=(20, 32))
    with pytest.raises(RequestError, match=r"must be \(2, 3\)"):
        check_users_network(name, 1, classes=3)


# --- commands


def test_verify_prints_the_table_of_a_configuration(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "--name", "stripes", "--data-dir", str(own)]) == 0
    printed = capsys.readouterr().out
    for line in ('name = "stripes"', "train_images = 300", "test_images = 90", "image_size = [20, 32]", sha256(own)):
        assert line in printed
    assert 'classes = ["0", "1", "2"]' in printed


@pytest.fixture
def trained(own: Path, config: Path, tmp_path: Path) -> Path:
    """Return the folder of a run on the user's own data."""
    run = tmp_path / "run"
    assert main(["train", "--config", str(config), "--data-dir", str(own), "--output", str(run), "--quiet"]) == 0
    return run


def test_a_run_on_own_data(trained: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = load_config(trained / "config.toml")
    assert recorded.data.sha256 == sha256(own)
    assert RunFolder(trained).read_summary()["test_accuracy"] == 1
    capsys.readouterr()
    assert main(["evaluate", str(trained), "--data-dir", str(own)]) == 0
    printed = capsys.readouterr().out
    assert "predicted class" in printed
    for number, name in enumerate(CLASSES):
        assert f"{number} {name}" in printed
    evaluation = json.loads((trained / "evaluation.json").read_text(encoding="utf-8"))
    assert (evaluation["data"], evaluation["classes"]) == ("stripes", list(CLASSES))
    assert [len(row) for row in evaluation["confusion_matrix"]] == [3, 3, 3]
    again = tmp_path / "again"
    assert main(["train", "--config", str(trained / "config.toml"), "--data-dir", str(own), "--output", str(again)]) == 0
    assert (again / "model.params").read_bytes() == (trained / "model.params").read_bytes()


def test_other_files_under_the_same_name_are_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = str(write(tmp_path / "others", stripes(300, seed=5), stripes(90, seed=6)))
    capsys.readouterr()
    for command in (
        ["evaluate", str(trained)],
        ["export", str(trained), "--format", "mxnet"],
        ["train", "--config", str(trained / "config.toml"), "--output", str(tmp_path / "new")],
    ):
        assert main([*command, "--data-dir", others]) == 2
        assert_names(capsys.readouterr().err, "data.sha256 = ", sha256(Path(others)))
    assert not (tmp_path / "new").exists()


def test_pictures_need_images_of_the_size_of_mnist(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "digit.pgm"
    picture.write_bytes(b"P5 30 30 255\n" + bytes(range(225)) * 4)
    capsys.readouterr()
    assert main(["predict", str(trained), str(picture)]) == 2
    assert_names(capsys.readouterr().err, "data.image_size: ", "20×32")


def test_exports_have_the_shape_and_the_classes(trained: Path, own: Path) -> None:
    onnx = pytest.importorskip("onnx")
    assert main(["export", str(trained), "--format", "onnx", "--data-dir", str(own)]) == 0
    content = onnx.load(str(trained / "model.onnx"))
    metadata = {entry.key: entry.value for entry in content.metadata_props}
    assert (metadata["data"], json.loads(metadata["classes"])) == ("stripes", list(CLASSES))
    preprocessing = json.loads(metadata["preprocessing"])
    assert preprocessing["shape"] == ["batch", 1, 20, 32]
    assert "box" not in preprocessing
    assert content.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3


def test_the_fused_backend_needs_sides_of_multiples_of_four(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = str(write(tmp_path / "odd", stripes(300, (18, 17)), stripes(90, (18, 17))))
    flags = ["--config", str(config), "--data-dir", odd, "--set", "data.image_size=[18, 17]", "--epochs", "1", "--quiet"]
    assert main(["train", *flags, "--output", str(tmp_path / "run"), "--set", "model.backend=fused"]) == 2
    assert_names(capsys.readouterr().err, "model.backend = fused: ", "multiples of 4", "18×17")
    assert main(["train", *flags, "--output", str(tmp_path / "run")]) == 0
    assert load_config(tmp_path / "run" / "config.toml").model.backend == "stock"


def test_runs_on_different_data_are_not_compared(
    trained: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = str(write(tmp_path / "others", stripes(300, seed=5), stripes(90, seed=6)))
    other = tmp_path / "other"
    assert main(["train", "--config", str(config), "--data-dir", others, "--output", str(other), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["compare", str(trained), str(other), "--output", str(tmp_path / "comparison")]) == 2
    assert_names(capsys.readouterr().err, f"{other}: ", "other data", str(trained))
    assert not (tmp_path / "comparison").exists()
    named = tmp_path / "named.toml"
    named.write_text(CONFIG.replace('"left"', '"west"'), encoding="utf-8")
    command = ["compare", str(config), str(named), "--data-dir", others, "--output", str(tmp_path / "comparison")]
    assert main(command) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert_names(message, f"{named}: data.classes", "west")
    assert "--allow" not in message


def test_the_benchmark_trains_on_mnist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--set", "data.name=kmnist", "--implementations", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


# --- published data sets


def test_published_files_have_known_sizes_and_checksums() -> None:
    assert set(PUBLISHED) == {"mnist", "fashion-mnist", "kmnist"}
    assert len({file.sha256 for files in PUBLISHED.values() for file in files}) == 12
    for name, files in PUBLISHED.items():
        known = DATA_SETS[name]
        assert [file.shape[0] for file in files] == [known.train_images] * 2 + [known.test_images] * 2
        assert [file.name for file in files] == [file.name for file in FILES]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Return a function that writes a small data set, published as "fashion-mnist"."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    images, labels = stripes(60, (28, 28))
    files = []
    for file, array in zip(FILES, (images, labels, images[:20], labels[:20]), strict=True):
        content = gzip.compress(idx(array))
        (folder / file.name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(MnistFile(file.name, len(content), digest, "", array.shape, "fashion-mnist"))
    monkeypatch.setitem(PUBLISHED, "fashion-mnist", tuple(files))
    return lambda: folder


def test_a_known_data_set_is_fetched_and_verified(
    published: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    named = ["--name", "fashion-mnist"]
    assert main(["data", "verify", *named]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert "data fetch --name fashion-mnist --data-dir data/fashion-mnist" in line
    assert main(["data", "fetch", *named, "--mirror", published().as_uri(), "--quiet"]) == 0
    assert main(["data", "verify", *named]) == 0
    flags = ["--set", "data.name=fashion-mnist", "--train-images", "60", "--test-images", "20", "--epochs", "1", "--quiet"]
    assert main(["train", *flags, "--output", "run"]) == 0
    assert main(["data", "verify", "--data-dir", "data/fashion-mnist"]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert_names(line, "data/fashion-mnist/", "expected the file of mnist", "set data.name to fashion-mnist")
    recorded: RunConfig = load_config("run/config.toml")
    assert (recorded.data.name, recorded.data.sha256) == ("fashion-mnist", None)
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 0
    assert "9 Ankle boot" in capsys.readouterr().out
    path = Path("data/fashion-mnist") / FILES[3].name
    path.write_bytes(gzip.compress(idx(ZEROS[:20])))
    assert main(["train", "--config", "run/config.toml", "--output", "again"]) == 2
    assert_names(capsys.readouterr().err, f"{path}: ", "--name fashion-mnist")


@pytest.mark.parametrize(("name", "words"), [("emnist-digits", ("gzip.zip",)), ("mine", ("data/mine",))])
def test_other_data_sets_cannot_be_fetched(name: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "--name", name]) == 2
    assert_names(capsys.readouterr().err, f"--name {name}: ", "fashion-mnist", *words)


@pytest.mark.slow
@pytest.mark.process
def test_resuming_with_other_data_is_refused(own: Path, config: Path, tmp_path: Path, program: Program) -> None:
    others = write(tmp_path / "others", stripes(300, seed=5), stripes(90, seed=6))
    run = tmp_path / "run"
    assert main(["train", "--config", str(config), "--data-dir", str(own), "--output", str(run), "--quiet"]) == 0
    (run / "summary.json").unlink()
    done = program("train", "--resume", run, "--data-dir", others)
    assert done.returncode == 2
    assert_names(done.stderr, "data.sha256 = ", sha256(others))
