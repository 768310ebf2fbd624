"""The model of a finished run: its checks and its predictions."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot
from drawn_digits import enlarged
from small_runs import edit_json

from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.data.loaders import create_test_loader, network_input
from mnist_trainer.data.mnist_files import Split
from mnist_trainer.errors import RequestError
from mnist_trainer.inference.pictures import PictureError
from mnist_trainer.inference.predictor import Model, Prediction, open_model, softmax
from mnist_trainer.model.network import build_cnn, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()


def opened(path: Path) -> Model:
    return open_model(RunFolder.open(path), load_recorded_config(path / "config.toml"))


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return opened(trained_run)


@pytest.fixture
def copy(trained_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained_run, tmp_path / "run")
    return tmp_path / "run"


def test_the_opened_model_has_the_parameters_of_the_run(model: Model, trained_run: Path) -> None:
    summary = RunFolder(trained_run).read_summary()
    assert parameters_sha256(model.network) == summary["parameters_sha256"] == model.parameters_sha256


def test_its_predictions_equal_those_of_the_plain_network(model: Model, trained_run: Path, test_split: Split) -> None:
    net = build_cnn()
    net.load_parameters(str(trained_run / "model.params"))
    images = test_split.images[:50]
    expected = mx.nd.softmax(net(mx.nd.array(images[:, None] / 255.0))).asnumpy()
    answers = [model.predict(image) for image in images]
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected, atol=1e-5)
    assert [answer.digit for answer in answers] == expected.argmax(axis=1).tolist()
    assert [answer.runner_up for answer in answers] == np.argsort(expected)[:, -2].tolist()
    assert all((answer.image == image).all() for answer, image in zip(answers, images, strict=True))


def test_a_tie_goes_to_the_lower_digit() -> None:
    answer = Prediction(np.zeros((28, 28), np.uint8), np.array([0.1, 0.2, 0.0, 0.2, 0.2, 0.1, 0.1, 0.1, 0.0, 0.0]))
    assert (answer.digit, answer.runner_up) == (1, 3)


def test_the_network_input_equals_that_of_the_loader(test_split: Split, trained_run: Path) -> None:
    loader = create_test_loader(load_recorded_config(trained_run / "config.toml"))
    batch, _ = next(iter(loader))
    assert (network_input(test_split.images[:64]) == batch.asnumpy()).all()


def test_softmax_agrees_with_mxnet_and_is_stable_for_extreme_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (20, 10)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), mx.nd.softmax(mx.nd.array(logits)).asnumpy(), rtol=1e-5)
    extreme = softmax(np.array([[1e30] + 9 * [-1e30], 10 * [3e38]], np.float32))
    assert extreme.tolist() == [[1] + 9 * [0], 10 * [0.1]]


def test_pictures_are_predicted(model: Model, test_split: Split) -> None:
    right = [model.predict_picture(io.BytesIO(enlarged(image))).digit for image in test_split.images[:100]]
    assert np.mean(right == test_split.labels[:100]) > 0.93
    with pytest.raises(PictureError, match="PNG"):
        model.predict_picture(io.BytesIO(b"no picture"))


def test_the_parameters_have_the_same_names_in_every_process(trained_run: Path) -> None:
    for _ in range(2):
        names = list(opened(trained_run).network.collect_params())
        assert names[0] == "hybridsequential0_conv0_weight"
        build_cnn()  # increments MXNet's counter of names


@pytest.mark.parametrize("device", ["cpu", "cpu:1", "cpu:0,1"])
def test_the_model_runs_on_the_given_device(device: str, trained_run: Path, test_split: Split, model: Model) -> None:
    config = load_recorded_config(trained_run / "config.toml")
    elsewhere = open_model(RunFolder(trained_run), replace(config, runtime=replace(config.runtime, device=device)))
    image = test_split.images[0]
    np.testing.assert_allclose(elsewhere.predict(image).probabilities, model.predict(image).probabilities, atol=1e-6)


# --- refused run folders


def problem_of(path: Path, config: RunConfig | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        open_model(RunFolder(path), config or load_recorded_config(path / "config.toml"))
    (problem,) = caught.value.problems
    return problem


def test_the_message_for_an_unfinished_run_has_the_command_that_resumes_it(copy: Path, snapshot: Snapshot) -> None:
    (copy / "summary.json").unlink()
    problem = problem_of(copy)
    assert_names(problem, f"{copy}: ", "not finished", f"mnist-trainer train --resume {copy}")
    snapshot(problem)


def test_missing_parameters_are_reported(copy: Path, snapshot: Snapshot) -> None:
    (copy / "model.params").unlink()
    problem = problem_of(copy)
    assert_names(problem, f"{copy / 'model.params'}: ", "missing")
    snapshot(problem)


def test_other_parameters_are_refused(copy: Path, snapshot: Snapshot) -> None:
    net = build_cnn()
    net.initialize()
    net(mx.nd.zeros((1, 1, 28, 28)))
    net.save_parameters(str(copy / "model.params"))
    problem = problem_of(copy)
    assert_names(problem, f"{copy / 'model.params'}: ", "parameters do not match", "summary.json")
    snapshot(problem)


def test_another_network_is_refused(copy: Path, snapshot: Snapshot) -> None:
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(10, in_units=784))
    net.initialize()
    net.save_parameters(str(copy / "model.params"))
    problem = problem_of(copy)
    assert_names(problem, f"{copy / 'model.params'}: ", "network")
    snapshot(problem)


def test_a_configuration_with_another_number_of_test_images_is_refused(copy: Path, snapshot: Snapshot) -> None:
    edit_json(copy / "summary.json", lambda summary: summary.update(test_total=100))
    problem = problem_of(copy)
    assert_names(problem, f"{copy / 'config.toml'}: ", "data.test_images = 10000 ", "summary.json")
    snapshot(problem)


def test_opening_a_model_writes_nothing(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    opened(copy)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_lack_of_memory_is_not_a_wrong_file(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **_more: object) -> None:
        raise mx.MXNetError("Traceback:\n  std::bad_alloc")

    monkeypatch.setattr("mnist_trainer.inference.predictor.initialize", fail)
    with pytest.raises(mx.MXNetError, match="bad_alloc"):
        opened(trained_run)
