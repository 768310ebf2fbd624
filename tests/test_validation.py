"""Images held out of the training, and a schedule that they drive, in both scheduler modes."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from conftest import Program

from mnist_trainer import experiment
from mnist_trainer.config import DataConfig, Override, RunConfig, RuntimeConfig, load_config
from mnist_trainer.data import create_loaders, create_validation_loader
from mnist_trainer.errors import RequestError
from mnist_trainer.mnist_files import read_split
from mnist_trainer.model import build_cnn, initialize, parameters_sha256
from mnist_trainer.optimizer import create_trainer
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import AnySchedule, Constant, Plateau, Warmup
from mnist_trainer.trainer import EpochMetrics, evaluate, fit, seed_everything

mx = import_mxnet()

EPOCHS = 6
IMPATIENT = Plateau(Constant(0.1), factor=0.5, patience=0, threshold=0.5)


def held_out(loader: str = "array", validation_images: int = 200) -> RunConfig:
    data = DataConfig(loader=loader, train_images=840, validation_images=validation_images, test_images=100)
    return replace(load_config(), data=data)


@pytest.mark.parametrize("loader", ["array", "gluon"])
def test_the_last_of_the_training_images_are_held_out(loader: str, data_dir: Path) -> None:
    config = held_out(loader)
    assert config.run_length.iterations_per_epoch == 10
    split = read_split(data_dir, train=True)
    validation = [labels.asnumpy().tolist() for _, labels in create_validation_loader(config, data_dir)]
    assert list(chain.from_iterable(validation)) == split.labels[640:840].tolist()
    trained_on = sorted(label for _, labels in create_loaders(config, data_dir)[0] for label in labels.asnumpy().tolist())
    assert trained_on == sorted(split.labels[:640].tolist())


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
def test_both_modes_lower_the_rate_after_the_same_epochs(metric: str, data_dir: Path) -> None:
    schedule = replace(IMPATIENT, metric=metric)
    by_mxnet, by_hand = (train(data_dir, schedule, mode) for mode in ("optimizer", "manual"))
    assert by_mxnet[1:] == by_hand[1:]
    # What the curve makes of the validation scores is what was trained with in the epoch after.
    expected = schedule
    for theirs, ours in zip(by_mxnet[0], by_hand[0], strict=True):
        assert theirs.learning_rate == ours.learning_rate == expected(1)
        assert theirs.validation is not None
        assert theirs.validation == ours.validation
        expected = expected.observe(theirs.validation.loss, theirs.validation.accuracy)
    assert by_mxnet[1] == expected
    assert expected.reductions > 0


def test_a_restored_state_goes_on_where_it_was(data_dir: Path) -> None:
    _, schedule, _ = train(data_dir, Warmup(IMPATIENT, warmup_steps=15, warmup_begin_lr=0.01), "optimizer")
    state = json.loads(json.dumps(schedule.state()))
    assert state["curve.reductions"] > 0
    fresh = Warmup(IMPATIENT, warmup_steps=15, warmup_begin_lr=0.01)
    assert fresh(100) > schedule(100)
    assert fresh.with_state(state) == schedule


CONFIG = """
[training]
epochs = 4
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
train_images = 840
validation_images = 200
test_images = 100
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("validation") / "all.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_all_together_as_a_user_runs_it(config_file: Path, program: Program, tmp_path: Path) -> None:
    done = program("train", "--config", config_file, "--output", "one")
    assert done.returncode == 0, done.stderr
    assert "Epoch: 1; Validation loss " in done.stdout
    # The written configuration repeats the run, here by the other hand.
    repeated = program("train", "--config", "one/config.toml", "--scheduler-mode", "manual", "--output", "two")
    assert repeated.returncode == 0, repeated.stderr
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
    ("change", "message"),
    [
        pytest.param(
            "data.validation_images=0",
            "--set data.validation_images: missing; a Plateau is driven by images held out of the training, for example 5000",
            id="nothing to react to",
        ),
        pytest.param(
            "data.validation_images=840",
            "--set data.validation_images: 840 leaves none of the 840 training images to train on",
            id="nothing to train on",
        ),
        pytest.param(
            "optimizer.momentum=0.9",
            "--set optimizer.momentum: the table [momentum] is a schedule of it; keep one of them",
            id="momentum twice",
        ),
        pytest.param("optimizer.name=adam", "momentum: adam has no momentum that a schedule could set", id="no momentum"),
        pytest.param(
            'momentum={name = "Constant"}',
            "--set momentum, base_lr: missing; Constant starts from it",
            id="a momentum without a value",
        ),
        pytest.param(
            'wd={name = "Plateau", curve = {name = "Constant", base_lr = 1}}',
            "--set wd, name: only a learning rate can be driven by results",
            id="a decay that reacts",
        ),
        pytest.param(
            "schedule.curve.curve.max_update_epoch=3",
            "--set schedule.curve.curve.max_update_epoch: Cosine has no such setting; did you mean max_update_epochs?",
            id="typing error two tables down",
        ),
        pytest.param(
            "schedule.curve.warmup_epochs=4.1",
            "--set schedule.curve.warmup_epochs: Warmup: a warm-up of 41 iterations is longer than the run of 40",
            id="warm-up longer than the run",
        ),
        pytest.param(
            "schedule.curves[0].step=3",
            "--set schedule.curves[0].step: there is no 'curves' to set it in",
            id="no such table",
        ),
        pytest.param("schedule=3", '--set schedule: 3 is not a table such as {name = "Constant"}', id="no table"),
    ],
)
def test_what_cannot_be_is_one_sentence(change: str, message: str, config_file: Path) -> None:
    with pytest.raises(RequestError) as caught:
        load_config(config_file, [Override.from_assignment(change)])
    (problem,) = caught.value.problems
    assert problem in (message, f"{config_file}: {message}")


def test_a_momentum_of_one_is_refused_before_anything_is_written(config_file: Path, program: Program, tmp_path: Path) -> None:
    done = program("train", "--config", config_file, "--set", "momentum.max_momentum=1", "--output", "never")
    assert done.returncode == 2
    assert done.stderr == (
        "mnist-trainer: [momentum]: OneCycleMomentum(max_update=40, max_momentum=1.0) is 1.0 at iteration 1, "
        "which is not below 1\n"
    )
    assert not (tmp_path / "never").exists()


def test_a_schedule_that_reacts_needs_something_to_react_to(data_dir: Path) -> None:
    net = build_cnn()
    initialize(net)
    trainer = create_trainer(net.collect_params(), Warmup(IMPATIENT, warmup_steps=5))
    with pytest.raises(ValueError, match="is driven by validation results; give fit a validation_loader"):
        fit(net, *create_loaders(held_out(), data_dir), trainer, 1)


@pytest.mark.parametrize(("train_images", "validation_images", "works"), [(192, 63, False), (193, 1, True)])
def test_the_smallest_batch_is_that_of_the_images_trained_on(
    train_images: int, validation_images: int, works: bool, data_dir: Path
) -> None:
    data = DataConfig(train_images=train_images, validation_images=validation_images, test_images=100)
    config = replace(load_config(), data=data, runtime=RuntimeConfig(device="cpu:0,1"))
    if works:
        experiment.prepare(config, data_dir)
    else:
        with pytest.raises(RequestError, match="2 devices cannot share a batch of 1"):
            experiment.prepare(config, data_dir)


def test_a_users_momentum_that_counts_is_asked_once(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(
        RequestError, match=r"\[momentum\]: counting:Ramp\(\) is 1\.0\d* at iteration 1\d\d, which is not below 1"
    ):
        experiment.prepare(longer, data_dir)
