"""TensorBoard's own reader finds in the event file of a run what the run folder has."""

import io
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Program
from PIL import Image
from programs import run_python
from small_runs import SMALL, changed, csv_of_metrics, resume_run, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_trainer import TensorBoard, build_cnn, cli, create_loaders, create_trainer, fit, initialize
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.data.augmentation import augment
from mnist_trainer.data.mnist_files import find_data_dir, read_split
from mnist_trainer.errors import DONE, WRONG_REQUEST, RequestError
from mnist_trainer.run_folder import RunFolder, UnwrittenRunFolder
from mnist_trainer.schedules import Constant
from mnist_trainer.training import experiment

LOGGED = changed(SMALL, runtime={"log": "tensorboard"})


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _stream: None)
    monkeypatch.setattr("mnist_trainer.plots.plot_run", lambda *_: (_ for _ in ()).throw(OSError("not drawn here")))


def read_log(folder: Path) -> EventAccumulator:
    log = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    log.Reload()
    return log


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves of a log: tag → (step, value)."""
    log = read_log(folder)
    return {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


def expected_scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves as they follow from the files of a run. Event files have numbers of type float32."""
    rows, metrics = RunFolder(path).read_iterations(), csv_of_metrics(path)
    curves = {
        "iteration/learning_rate": [(row[0], row[1]) for row in rows],
        "iteration/loss": [(row[0], row[2]) for row in rows],
    }
    for name in metrics[0].keys() - {"epoch", "iteration"}:
        curves[f"epoch/{name}"] = [(int(row["iteration"]), row[name]) for row in metrics]
    return {tag: [(step, float(np.float32(value))) for step, value in curve] for tag, curve in curves.items()}


def without_seconds(curves: dict[str, Any]) -> dict[str, Any]:
    return {tag: curve for tag, curve in curves.items() if not tag.endswith(("_seconds", "_per_second"))}


def event_files(path: Path) -> list[str]:
    """Return the names of the event files that are not empty."""
    return sorted(entry.name for entry in (path / "tensorboard").iterdir() if entry.stat().st_size)


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_the_log_has_the_rows_of_the_run(mode: str, tmp_path: Path) -> None:
    config = changed(LOGGED, training={"scheduler_mode": mode}, data={"validation_images": 4})
    path = train(config, tmp_path / "run")
    curves = scalars(path / "tensorboard")
    assert curves == expected_scalars(path)
    assert {"epoch/train_loss", "epoch/test_accuracy", "epoch/validation_loss", "epoch/learning_rate"} <= curves.keys()
    assert [step for step, _ in curves["iteration/loss"]] == list(range(1, config.run_length.total_iterations + 1))
    [name] = event_files(path)
    assert "tfevents" in name


def test_scheduled_momentum_and_weight_decay_are_in_the_log(tmp_path: Path) -> None:
    momentum = {"name": "Linear", "max_update": 30, "base_lr": 0.9}
    decay = {"name": "Cosine", "max_update": 20, "base_lr": 0.01}
    config = changed(LOGGED, optimizer={"name": "sgd"}, momentum=momentum, wd=decay)
    curves = scalars(train(config, tmp_path / "run") / "tensorboard")
    for name, schedule in config.build_hyperparameters().items():
        assert curves[f"iteration/{name}"] == [(k, float(np.float32(schedule(k)))) for k in range(1, 23)]
        assert curves[f"epoch/{name}"] == [curves[f"iteration/{name}"][k - 1] for k in (11, 22)]


@pytest.mark.parametrize("is_augmented", [False, True], ids=["as they are", "augmented"])
def test_the_images_are_the_schedules_and_the_first_training_images(is_augmented: bool, tmp_path: Path) -> None:
    log = read_log(train(changed(LOGGED, data={"augment": is_augmented}), tmp_path / "run") / "tensorboard")
    assert sorted(log.Tags()["images"]) == ["schedules", "training_images"]
    drawn = {}
    for tag in log.Tags()["images"]:
        [event] = log.Images(tag)
        image = Image.open(io.BytesIO(event.encoded_image_string))
        assert (event.step, event.width, event.height) == (0, *image.size)
        drawn[tag] = np.asarray(image)
    digits = read_split(find_data_dir(None), train=True).images[:16]
    if is_augmented:
        digits = augment(digits, range(16), LOGGED.training.seed, epoch=1)
    tiles = drawn["training_images"][::3, ::3]
    for number, digit in enumerate(digits):
        row, column = divmod(number, 8)
        np.testing.assert_array_equal(tiles[28 * row : 28 * row + 28, 28 * column : 28 * column + 28], digit)
    assert len(np.unique(drawn["schedules"])) > 10


def test_a_few_training_images_leave_the_others_black(tmp_path: Path) -> None:
    path = train(changed(LOGGED, data={"train_images": 9}, training={"epochs": 1}), tmp_path / "run")
    [event] = read_log(path / "tensorboard").Images("training_images")
    tiles = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))[::3, ::3]
    assert tiles[28:, :28].any()
    assert not tiles[28:, 28:].any()


# --- resuming


@pytest.mark.parametrize("stops", [[3], [11], [15], [22], [2, 12, 13]], ids=str)
def test_a_resumed_run_has_each_iteration_once(stops: list[int], tmp_path: Path) -> None:
    config = changed(LOGGED, checkpoint={"every_iterations": 5})
    path = train(config, tmp_path / "run", stops[0])
    for stop in stops[1:]:
        resume_run(path, stop)
    resume_run(path)
    curves = scalars(path / "tensorboard")
    assert curves == expected_scalars(path)
    assert without_seconds(curves) == without_seconds(scalars(train(config, tmp_path / "whole") / "tensorboard"))
    assert len(event_files(path)) == 1


def test_rows_after_the_last_checkpoint_are_not_kept(tmp_path: Path) -> None:
    path = train(LOGGED, tmp_path / "run", stop_at=15)
    log = path / "tensorboard" / event_files(path)[0]
    with log.open("ab") as stream:  # a process that was killed in the middle of a record
        stream.write(log.read_bytes()[:-7])
    resume_run(path)
    assert scalars(path / "tensorboard") == expected_scalars(path)


def test_a_reader_that_watches_the_folder_sees_no_iteration_twice(tmp_path: Path) -> None:
    path = train(LOGGED, tmp_path / "run", stop_at=15)
    log = read_log(path / "tensorboard")
    assert len(log.Scalars("iteration/loss")) == 15
    resume_run(path)
    log.Reload()
    assert max(Counter(event.step for event in log.Scalars("iteration/loss")).values()) == 1
    assert len(log.Scalars("iteration/loss")) == 22


@pytest.mark.parametrize(("first", "then"), [("none", "tensorboard"), ("tensorboard", "none")])
def test_the_log_may_begin_or_end_when_a_run_is_resumed(first: str, then: str, tmp_path: Path) -> None:
    path = train(changed(SMALL, runtime={"log": first}), tmp_path / "run", stop_at=7)
    assert cli.main(["train", "--resume", str(path), "--log", then, "--quiet"]) == DONE
    curves = scalars(path / "tensorboard")
    if then == "tensorboard":
        assert curves == expected_scalars(path)
    else:
        assert len(curves["iteration/loss"]) == 7


def test_other_files_in_the_folder_of_the_log_are_kept(tmp_path: Path) -> None:
    path = train(LOGGED, tmp_path / "run", stop_at=7)
    (path / "tensorboard" / "notes.txt").write_text("mine", encoding="utf-8")
    resume_run(path)
    assert (path / "tensorboard" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = train(LOGGED, tmp_path / "run", stop_at=7)
    (path / "tensorboard").rename(tmp_path / "elsewhere")
    (path / "tensorboard").symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere" / os.listdir(tmp_path / "elsewhere")[0]).read_bytes()  # noqa: PTH208
    assert cli.main(["train", "--resume", str(path)]) == WRONG_REQUEST
    assert_names(capsys.readouterr().err, f"{path / 'tensorboard'}: ", "a symbolic link", "a folder")
    assert before == (tmp_path / "elsewhere" / os.listdir(tmp_path / "elsewhere")[0]).read_bytes()  # noqa: PTH208


def test_a_figure_that_cannot_be_drawn_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("mnist_trainer.plots.plot_schedules", fail)
    path = train(LOGGED, tmp_path / "run")
    assert read_log(path / "tensorboard").Tags()["images"] == ["training_images"]
    assert_names(capsys.readouterr().err, f"{path / 'tensorboard'}: ", "no font")


# --- off, elsewhere and missing


def test_a_run_without_a_log_has_no_folder_for_it(tmp_path: Path) -> None:
    assert not (train(SMALL, tmp_path / "run") / "tensorboard").exists()


def test_only_the_process_that_writes_the_folder_writes_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config: RunConfig = replace(LOGGED, data=replace(LOGGED.data, train_images=8))
    experiment.run(experiment.prepare(config), UnwrittenRunFolder.create(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_training_loads_tensorboard_only_for_a_log() -> None:
    loaded = "[name for name in sys.modules if name.startswith('tensorboard')]"
    done = run_python("-c", f"import sys, mnist_trainer.training.tensorboard\nassert not {loaded}, {loaded}")
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_a_wrong_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert cli.main(["train", "--log", "tensorboard", "--output", "run"]) == WRONG_REQUEST
    assert_names(capsys.readouterr().err, "runtime.log = tensorboard: ", "pip install tensorboard")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RequestError):
        experiment.check(LOGGED)
    with pytest.raises(ImportError):
        TensorBoard(tmp_path / "log")


def test_a_name_of_another_log_is_refused(program: Program) -> None:
    done = program("train", "--log", "tensorbord")
    assert done.returncode == WRONG_REQUEST
    assert_names(done.stderr, "--log tensorbord: ", "did you mean tensorboard?")


# --- in Python


def test_the_callback_works_with_fit_alone(tmp_path: Path) -> None:
    def train_once(rate: float) -> list[float]:
        network = build_cnn()
        initialize(network)
        trainer = create_trainer(network.collect_params(), Constant(rate))
        log = TensorBoard(tmp_path / "logs" / "first", {"momentum": Constant(0.5)})
        [metrics] = fit(network, *create_loaders(SMALL), trainer, epochs=1, callbacks=[log])
        assert metrics.test
        return [metrics.test.loss, rate]

    train_once(0.1)
    loss, rate = train_once(0.2)  # another file in the same folder: the reader shows the latest
    curves = scalars(tmp_path / "logs" / "first")
    assert curves["epoch/test_loss"] == [(11, float(np.float32(loss)))]
    assert {value for _, value in curves["iteration/learning_rate"]} == {float(np.float32(rate))}
    assert curves["iteration/momentum"] == [(iteration, 0.5) for iteration in range(1, 12)]
    assert len(list((tmp_path / "logs" / "first").iterdir())) == 2
