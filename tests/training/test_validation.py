"""Validation images, and a schedule that reacts to them, in both scheduler modes."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_names, refused, run
from conftest import Snapshot
from small_runs import spare_time

from mnist_trainer.config.loading import load_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import DataConfig, RunConfig, RuntimeConfig, TrainingConfig
from mnist_trainer.data.loaders import create_loaders, create_validation_loader
from mnist_trainer.data.mnist_files import read_split
from mnist_trainer.errors import DONE, RequestError
from mnist_trainer.model.network import build_cnn, initialize, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import AnySchedule, Constant, Plateau, Warmup
from mnist_trainer.schedules.reacting import Metric
from mnist_trainer.training import experiment
from mnist_trainer.training.loop import evaluate, fit, seed_everything
from mnist_trainer.training.records import EpochMetrics
from mnist_trainer.training.trainer import create_trainer

mx = import_mxnet()

EPOCHS = 6
IMPATIENT = Plateau(Constant(0.1), factor=0.5, patience=0, threshold=0.5)


def held_out(loader: str = "array", validation_images: int = 50) -> RunConfig:
    data = DataConfig(loader=loader, train_images=210, validation_images=validation_images, test_images=100)
    return replace(load_config(), training=TrainingConfig(batch_size=16), data=data)


@pytest.mark.parametrize("loader", ["array", "gluon"])
def test_the_last_training_images_are_held_out(loader: str, data_dir: Path) -> None:
    config = held_out(loader)
    assert config.run_length.iterations_per_epoch == 10
    split = read_split(data_dir, train=True)
    validation = [labels.asnumpy().tolist() for _, labels in create_validation_loader(config, data_dir)]
    assert list(chain.from_iterable(validation)) == split.labels[160:210].tolist()
    trained_on = sorted(label for _, labels in create_loaders(config, data_dir)[0] for label in labels.asnumpy().tolist())
    assert trained_on == sorted(split.labels[:160].tolist())


def test_without_validation_images_there_is_no_loader(data_dir: Path) -> None:
    assert create_validation_loader(held_out(validation_images=0), data_dir) is None


def train(data_dir: Path, schedule: AnySchedule, mode: str) -> tuple[list[EpochMetrics], Any, str]:
    config = held_out()
    seed_everything(1)
    net = build_cnn()
    initialize(net)
    trainer = create_trainer(net.collect_params(), schedule, mode)
    validation_loader = create_validation_loader(config, data_dir)
    history = fit(net, *create_loaders(config, data_dir), trainer, EPOCHS, validation_loader=validation_loader)
    assert history[-1].validation == evaluate(net, validation_loader)
    return history, trainer.schedule, parameters_sha256(net)


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_both_modes_lower_the_rate_after_the_same_epochs(metric: Metric, data_dir: Path) -> None:
    schedule = replace(IMPATIENT, metric=metric)
    by_optimizer, by_trainer = (train(data_dir, schedule, mode) for mode in ("optimizer", "manual"))
    assert by_optimizer[1:] == by_trainer[1:]
    # Each epoch trains with the schedule that has observed the validation scores of the epochs before.
    expected = schedule
    for theirs, ours in zip(by_optimizer[0], by_trainer[0], strict=True):
        assert theirs.learning_rate == ours.learning_rate == expected(1)
        assert theirs.validation is not None
        assert theirs.validation == ours.validation
        expected = expected.observe(theirs.validation.loss, theirs.validation.accuracy)
    assert by_optimizer[1] == expected
    assert expected.reductions > 0


def test_a_restored_schedule_is_the_same(data_dir: Path) -> None:
    _, schedule, _ = train(data_dir, Warmup(IMPATIENT, warmup_steps=15, warmup_begin_lr=0.01), "optimizer")
    state = json.loads(json.dumps(schedule.state()))
    assert state["curve.reductions"] > 0
    fresh = Warmup(IMPATIENT, warmup_steps=15, warmup_begin_lr=0.01)
    assert fresh(100) > schedule(100)
    assert fresh.with_state(state) == schedule


CONFIG = """
[training]
epochs = 4
batch_size = 16
learning_rate = 0.1

[schedule]
name = "Plateau"
factor = 0.5
patience = 0
threshold = 0.5
curve = {name = "Warmup", warmup_epochs = 1, curve = {name = "Cosine", max_update_epochs = 3}}

[momentum]
name = "OneCycleMomentum"
max_update_fraction = 1.0

[wd]
name = "Linear"
base_lr = 0.001
max_update_fraction = 1.0

[data]
train_images = 210
validation_images = 50
test_images = 100
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("validation") / "all.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_all_together_as_a_user_runs_it(config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)
    code, out, err = run("train", "--config", config_file, "--output", tmp_path / "one")
    assert code == DONE, err
    assert "Epoch: 1; Validation loss " in out
    # The written configuration repeats the run, here in the other scheduler mode.
    again = ("--config", tmp_path / "one" / "config.toml", "--scheduler-mode", "manual", "--output", tmp_path / "two")
    code, _, err = run("train", *again)
    assert code == DONE, err
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert (one / "iterations.csv").read_bytes() == (two / "iterations.csv").read_bytes()
    assert one.read_summary()["parameters_sha256"] == two.read_summary()["parameters_sha256"]

    config = load_config(config_file)
    schedule, others = config.build_schedule(), config.build_hyperparameters()
    rows = one.read_iterations()
    for metrics in one.read_metrics():
        of_epoch = rows[metrics["iteration"] - 10 : metrics["iteration"]]
        assert [rate for _, rate, _ in of_epoch] == [schedule(iteration) for iteration, _, _ in of_epoch]
        schedule = schedule.observe(metrics["validation_loss"], metrics["validation_accuracy"])
        assert metrics["momentum"] == others["momentum"](metrics["iteration"])
        assert metrics["wd"] == others["wd"](metrics["iteration"])
    assert schedule.state()["reductions"] > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param("data.validation_images=0", ("reacts to results", "5000"), id="nothing to react to"),
        pytest.param("data.validation_images=210", ("=210: ", "data.train_images = 210"), id="nothing to train on"),
        pytest.param("optimizer.momentum=0.9", (": ", "[momentum]"), id="momentum twice"),
        pytest.param("optimizer.name=adam", ("adam",), id="no momentum"),
        pytest.param('momentum={name = "Constant"}', (", base_lr: ", "Constant"), id="a momentum without a value"),
        pytest.param(
            'wd={name = "Plateau", curve = {name = "Constant", base_lr = 1}}',
            (", name: ", "learning rate"),
            id="a weight decay that reacts",
        ),
        pytest.param(
            "schedule.curve.curve.max_update_epoch=3",
            ("Cosine", "did you mean max_update_epochs?"),
            id="typing error two tables down",
        ),
        pytest.param("schedule.curve.warmup_epochs=4.1", ("warmup_steps = 41 ", " 40"), id="warm-up longer than the run"),
        pytest.param("schedule.curves[0].step=3", ("'curves'",), id="no such table"),
        pytest.param("schedule=3", ("=3: ", '{name = "Constant"}'), id="no table"),
    ],
)
def test_an_invalid_configuration_has_one_message(
    change: str, words: tuple[str, ...], config_file: Path, snapshot: Snapshot
) -> None:
    with pytest.raises(RequestError) as caught:
        load_config(config_file, [Override.from_assignment(change)])
    (problem,) = caught.value.problems
    key, _, _ = change.partition("=")
    problem = problem.removeprefix(f"{config_file}: ")
    assert_names(problem, f"--set {key}", *words)
    snapshot(problem)


def test_a_momentum_of_one_is_refused_before_anything_is_written(config_file: Path, tmp_path: Path) -> None:
    arguments = ("--config", config_file, "--set", "momentum.max_momentum=1", "--output", tmp_path / "never")
    (problem,) = refused("train", *arguments)
    curve = "OneCycleMomentum(max_update=40, max_momentum=1.0)"
    assert_names(problem, f"[momentum]: {curve}", " 1.0 ", "iteration 1,", "below 1")
    assert not (tmp_path / "never").exists()


def test_a_schedule_that_reacts_needs_a_validation_loader(data_dir: Path) -> None:
    net = build_cnn()
    initialize(net)
    trainer = create_trainer(net.collect_params(), Warmup(IMPATIENT, warmup_steps=5))
    with pytest.raises(ValueError, match=r"^Warmup\(.*Plateau.* validation_loader"):
        fit(net, *create_loaders(held_out(), data_dir), trainer, 1)


@pytest.mark.parametrize(("train_images", "validation_images", "works"), [(192, 63, False), (193, 1, True)])
def test_the_smallest_batch_excludes_the_validation_images(
    train_images: int, validation_images: int, works: bool, data_dir: Path
) -> None:
    data = DataConfig(train_images=train_images, validation_images=validation_images, test_images=100)
    config = replace(load_config(), data=data, runtime=RuntimeConfig(device="cpu:0,1"))
    if works:
        experiment.prepare(config, data_dir)
    else:
        with pytest.raises(RequestError, match=r"^--device cpu:0,1: 2 devices .*batch of 1\b"):
            experiment.prepare(config, data_dir)


def test_a_users_momentum_is_checked_with_one_call_per_iteration(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counting.py").write_text(
        "class Ramp:\n"
        "    value = 0.0\n"
        "    def __call__(self, iteration):\n"
        "        self.value += 0.01\n"
        "        return self.value\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    data = DataConfig(train_images=64 * 8, test_images=100)
    ramp = replace(load_config(), momentum={"name": "counting:Ramp"}, data=data)
    experiment.prepare(ramp, data_dir)  # up to 0.8 in 80 iterations
    longer = replace(ramp, training=replace(ramp.training, epochs=13))
    with pytest.raises(RequestError, match=r"^\[momentum\]: counting:Ramp\(\) .*1\.0\d* at iteration 1\d\d, .*below 1$"):
        experiment.prepare(longer, data_dir)
