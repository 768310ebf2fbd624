"""Exports: loaded by onnxruntime and MXNet without this program, and refused if they cannot be written or are wrong."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from command_line import assert_names, content, refused
from conftest import Program
from programs import run_python

from mnist_trainer.cli import main
from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.data.loaders import network_input
from mnist_trainer.data.mnist_files import Split
from mnist_trainer.errors import RequestError, RunError
from mnist_trainer.inference import export as module
from mnist_trainer.inference.export import export_mxnet, export_onnx
from mnist_trainer.inference.predictor import Model, open_model, softmax
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return open_model(RunFolder.open(trained_run), load_recorded_config(trained_run / "config.toml"))


@pytest.fixture(scope="module")
def images(test_split: Split) -> npt.NDArray[np.uint8]:
    return test_split.images[:200]


@pytest.fixture(scope="module")
def onnx_file(model: Model, images: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "digits.onnx"
    done = export_onnx(model, path, images)
    assert (done.files, done.reader, done.images) == ([path], f"onnxruntime {onnxruntime.__version__}", 200)
    assert 0 < done.max_difference < 1e-5
    assert [entry.name for entry in path.parent.iterdir()] == ["digits.onnx"]
    return path


@pytest.fixture(scope="module")
def session(onnx_file: Path) -> Any:
    return onnxruntime.InferenceSession(str(onnx_file))


def probabilities(model: Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return np.array([model.predict(image).probabilities for image in images])


# --- ONNX


@pytest.mark.parametrize("batch", [1, 2, 7, 64, 200])
def test_onnxruntime_accepts_any_batch_size(batch: int, session: Any, model: Model, images: npt.NDArray[np.uint8]) -> None:
    (logits,) = session.run(None, {"images": network_input(images[:batch])})
    assert logits.shape == (batch, 10)
    np.testing.assert_allclose(softmax(logits), probabilities(model, images[:batch]), atol=1e-5)


def test_the_onnx_model_scores_like_the_run(session: Any, test_split: Split, trained_run: Path) -> None:
    (logits,) = session.run(["logits"], {"images": network_input(test_split.images)})
    correct = RunFolder(trained_run).read_summary()["test_correct"]
    assert abs(int((logits.argmax(axis=1) == test_split.labels).sum()) - correct) <= 1


def test_inputs_and_outputs_have_names_and_shapes(session: Any) -> None:
    ((images,), (logits,)) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(float)", ["batch", 1, 28, 28])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 10])


def test_the_metadata_specify_the_preprocessing(session: Any, model: Model) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["parameters_sha256"] == model.parameters_sha256
    assert float(metadata["test_accuracy"]) == model.test_accuracy
    assert json.loads(metadata["classes"]) == list("0123456789")
    assert json.loads(metadata["preprocessing"]) == {
        "layout": "NCHW",
        "shape": ["batch", 1, 28, 28],
        "scale": 1 / 255,
        "ink": "light on black",
        "box": [20, 20],
        "centre_of_mass": [14, 14],
    }


def test_the_file_passes_onnxs_checker_and_is_reproducible(
    onnx_file: Path, model: Model, images: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    content = onnx.load(str(onnx_file))
    onnx.checker.check_model(content, full_check=True)
    assert [(opset.domain, opset.version) for opset in content.opset_import] == [("", 13)]
    export_onnx(model, tmp_path / "again.onnx", images)
    assert (tmp_path / "again.onnx").read_bytes() == onnx_file.read_bytes()


WITHOUT_MXNET = """
import sys
sys.modules["mxnet"] = sys.modules["mnist_trainer"] = None
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
print(session.run(None, {"images": numpy.zeros((3, 1, 28, 28), numpy.float32)})[0].shape)
"""


@pytest.mark.process
def test_the_file_can_be_used_without_mxnet(onnx_file: Path, tmp_path: Path) -> None:
    done = run_python("-c", WITHOUT_MXNET, onnx_file, HOME=str(tmp_path))  # onnxruntime warns if HOME cannot be written
    assert (done.stdout, done.stderr) == ("(3, 10)\n", "")


# --- MXNet's files


def test_mxnet_alone_can_load_its_files(model: Model, images: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    done = export_mxnet(model, tmp_path / "digits", images)
    files = [tmp_path / "digits-symbol.json", tmp_path / "digits-0000.params"]
    assert (done.files, done.images, done.max_difference) == (files, 200, 0)
    assert sorted(path for path in tmp_path.iterdir()) == sorted(files)
    symbol, parameters, _ = mx.model.load_checkpoint(str(tmp_path / "digits"), 0)
    executor = symbol.bind(mx.cpu(), {**parameters, "data": mx.nd.array(network_input(images))})
    np.testing.assert_allclose(softmax(executor.forward()[0].asnumpy()), probabilities(model, images), atol=1e-5)


# --- the command


@pytest.mark.slow
def test_without_output_the_export_is_in_the_run_folder(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    before = {path.name for path in copy.iterdir()}
    for kind, names in (("onnx", ["model.onnx"]), ("mxnet", ["model-symbol.json", "model-0000.params"])):
        assert main(["export", str(copy), "--format", kind]) == 0
        first, *paths = capsys.readouterr().out.splitlines()
        reader = f"onnxruntime {onnxruntime.__version__}" if kind == "onnx" else "SymbolBlock of MXNet 1.9.1"
        assert_names(first, "", reader, "10,000 test images", "within" if kind == "onnx" else "same")
        assert paths == [str(copy / name) for name in names]
        assert all((copy / name).is_file() for name in names)
        before |= set(names)
    assert {path.name for path in copy.iterdir()} == before
    assert main(["export", str(copy), "--format", "onnx"]) == 0  # overwrites its own file
    assert main(["evaluate", str(copy), "--test-images", "5"]) == 0


@pytest.mark.parametrize("kind", ["onxx", "", "ONX"])
def test_an_unknown_format_is_refused(kind: str, trained_run: Path) -> None:
    (message,) = refused("export", trained_run, "--format", kind)
    assert_names(message, f"--format {kind}: ", "onnx, mxnet")


@pytest.mark.parametrize("kind", ["onnx", "mxnet"])
def test_a_place_that_cannot_be_written_is_refused(kind: str, trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output, reason in (
        (tmp_path / "nowhere" / "x.onnx", "No such file or directory"),
        (tmp_path / "file" / "x.onnx", "Not a directory"),
        (Path("/proc/x.onnx"), "No such file or directory"),
    ):
        named = f"{output}-symbol.json" if kind == "mxnet" else output
        (message,) = refused("export", trained_run, "--format", kind, "--output", output)
        assert_names(message, f"--output {named}: ", reason)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_refused_as_output(trained_run: Path, tmp_path: Path) -> None:
    for name in ("x-0000.params", "x.onnx"):
        (tmp_path / name).mkdir()
    for kind, output, named in (
        ("onnx", tmp_path / "x.onnx", tmp_path / "x.onnx"),
        ("mxnet", ".", "."),
        ("mxnet", tmp_path / "x", tmp_path / "x-0000.params"),
    ):
        (message,) = refused("export", trained_run, "--format", kind, "--output", output)
        assert_names(message, f"--output {named}: ", "folder", "name")
    assert {path.name for path in tmp_path.iterdir()} == {"x-0000.params", "x.onnx"}


@pytest.mark.parametrize("name", ["model.params", "config.toml", "iterations.csv", "summary.json", "x.onnx.txt", "onnx"])
def test_onnx_does_not_overwrite_other_files(name: str, trained_run: Path) -> None:
    before = content(trained_run)
    (message,) = refused("export", trained_run, "--format", "onnx", "--output", trained_run / name)
    assert_names(message, f"--output {trained_run / name}: ", ".onnx")
    assert content(trained_run) == before


def test_the_ending_is_checked_before_the_run_is_opened(tmp_path: Path) -> None:
    (message,) = refused("export", tmp_path / "no-such-run", "--format", "onnx", "--output", "x.txt")
    assert_names(message, "--output x.txt: ", ".onnx")


@pytest.mark.slow
@pytest.mark.process
def test_the_telemetry_of_onnxruntime_is_off(trained_run: Path, tmp_path: Path, new_program: Program) -> None:
    (tmp_path / "home").mkdir()
    variables = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""}
    done = new_program("export", trained_run, "--format", "onnx", "--output", tmp_path / "x.onnx", **variables)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("home/.cache/*")} <= {"mnist-trainer"}  # it writes to ~/.cache


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_the_message_for_missing_packages_names_the_extra(
    name: str, model: Model, images: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError) as caught:
        export_onnx(model, tmp_path / "x.onnx", images)
    (problem,) = caught.value.problems
    assert_names(problem, "--format onnx: ", f" {name}, ", "pip install -e '.[onnx]'")
    assert list(tmp_path.iterdir()) == []
    export_mxnet(model, tmp_path / "x", images)  # needs no extra


@pytest.mark.parametrize("wrong", [np.nan, 1e-3])
@pytest.mark.parametrize("write", [export_onnx, export_mxnet])
def test_an_export_with_other_predictions_is_not_written(
    write: Any, wrong: float, model: Model, images: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if parameters had been damaged in the file.
    calls: list[None] = []

    def disturbed(logits: Any) -> Any:
        calls.append(None)
        return softmax(logits) + (wrong if len(calls) % 2 else 0)

    monkeypatch.setattr("mnist_trainer.inference.export.softmax", disturbed)
    (tmp_path / "x.onnx").write_bytes(b"from before")
    with pytest.raises(RunError, match=r"other probabilities.* (nan|0\.001);"):
        write(model, tmp_path / "x.onnx", images)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.onnx": b"from before"}


def test_an_export_that_cannot_be_loaded_is_not_written(
    model: Model, images: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OPSET", 1)  # lacks some of these operators
    with pytest.raises(RunError, match=r"cannot be read back \(.+\)"):
        export_onnx(model, tmp_path / "x.onnx", images)
    assert list(tmp_path.iterdir()) == []


def test_damaged_parameters_in_an_export_are_detected(
    model: Model, images: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = module._describe

    def describe_and_spoil(onnx_module: Any, content: Any, of: Model) -> None:
        describe(onnx_module, content, of)
        first = content.graph.initializer[0]
        weights = onnx.numpy_helper.to_array(first)
        first.CopyFrom(onnx.numpy_helper.from_array(weights + np.float32(0.01), first.name))

    monkeypatch.setattr(module, "_describe", describe_and_spoil)
    with pytest.raises(RunError, match=r"^onnxruntime .*other probabilities"):
        export_onnx(model, tmp_path / "x.onnx", images)
    assert list(tmp_path.iterdir()) == []
