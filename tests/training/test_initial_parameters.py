"""A run that begins with given parameters gives the bits of plain Gluon after `load_parameters`, and records their origin."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Program, Snapshot
from small_runs import SMALL, changed, edit_json, resume_run, sign, spare_time, train

from mnist_trainer import cli
from mnist_trainer.config.loading import load_config, load_recorded_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import RunConfig, SweepConfig
from mnist_trainer.data.loaders import create_loaders
from mnist_trainer.errors import DONE, WRONG_REQUEST, RequestError
from mnist_trainer.model.network import build_cnn, build_loss, initialize, parameters_in_order, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Cosine
from mnist_trainer.training import experiment
from mnist_trainer.training.lr_search import search_learning_rate

mx = import_mxnet()

STABLE = changed(SMALL, schedule={"name": "Constant"}, model={"backend": "stock"})
"""The stable phase: two epochs at a constant rate."""

DECAY = changed(SMALL, schedule={"name": "Cosine", "max_update": 12}, training={"epochs": 1}, model={"backend": "stock"})


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)


@pytest.fixture(scope="module")
def _origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        spare_time(patch)
        return train(STABLE, tmp_path_factory.mktemp("origin") / "run")


@pytest.fixture
def origin(_origin: Path, tmp_path: Path) -> Path:
    """Return a copy of a finished run."""
    return Path(shutil.copytree(_origin, tmp_path / "origin"))


def beginning_with(path: Path | str, config: RunConfig = DECAY) -> RunConfig:
    return changed(config, model={"initial_parameters": str(path)})


def summary_of(path: Path) -> dict[str, Any]:
    return RunFolder(path).read_summary()


def bits(network: Any) -> list[bytes]:
    return [parameter.data().asnumpy().tobytes() for parameter in parameters_in_order(network)]


def loaded(path: Path) -> Any:
    network = build_cnn()
    network.load_parameters(str(path))
    return network


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_a_branch_gives_the_bits_of_plain_gluon(mode: str, origin: Path, tmp_path: Path) -> None:
    config = changed(beginning_with(origin), training={"scheduler_mode": mode, "seed": 3})
    branch = train(config, tmp_path / "branch")

    network, loss_of = loaded(origin / "model.params"), build_loss()
    network(mx.nd.zeros((1, 1, 28, 28))).wait_to_read()  # the shapes are known afterwards
    accelerated = experiment.prepare(replace(config, model=STABLE.model)).accelerate(network)
    arguments = {"momentum": 0.9, "learning_rate": None, "lr_scheduler": Cosine(max_update=12, base_lr=0.05)}
    trainer = mx.gluon.Trainer(network.collect_params(), "sgd", arguments)
    for images, labels in create_loaders(config)[0]:
        with mx.autograd.record():
            loss = loss_of(accelerated(images), labels).sum()
        loss.backward()
        trainer.step(len(images))
    assert bits(loaded(branch / "model.params")) == bits(network)
    assert summary_of(branch)["parameters_sha256"] != summary_of(origin)["parameters_sha256"]


def test_the_first_evaluation_of_a_branch_at_a_tiny_rate_is_that_of_the_origin(origin: Path, tmp_path: Path) -> None:
    config = changed(beginning_with(origin), schedule={"name": "Constant"}, training={"learning_rate": 1e-30})
    branch = summary_of(train(config, tmp_path / "branch"))
    for name in ("test_accuracy", "test_loss"):
        assert branch[name] == summary_of(origin)[name], name
    without = summary_of(train(replace(config, model=STABLE.model), tmp_path / "without"))
    assert without["test_loss"] != branch["test_loss"]


@pytest.mark.parametrize("source", [".", "model.params", "checkpoints/00000022"])
def test_a_run_a_file_and_a_checkpoint_are_sources(source: str, origin: Path, tmp_path: Path) -> None:
    branch = train(beginning_with(origin / source), tmp_path / "branch")
    recorded = load_recorded_config(branch / "config.toml").model
    assert recorded.initial_parameters == str((origin / source).resolve())
    assert recorded.initial_parameters_sha256 == summary_of(origin)["parameters_sha256"]
    expected = train(beginning_with(origin), tmp_path / "expected")
    assert (branch / "iterations.csv").read_bytes() == (expected / "iterations.csv").read_bytes()


def test_an_earlier_checkpoint_is_a_source(origin: Path, tmp_path: Path) -> None:
    checkpoint = origin / "checkpoints" / "00000011"
    config = beginning_with(checkpoint)
    network = experiment.create_initial_network(experiment.prepare(config))
    shorter = train(changed(STABLE, training={"epochs": 1}), tmp_path / "shorter")
    assert parameters_sha256(network) == summary_of(shorter)["parameters_sha256"]


def test_parameters_of_another_type_are_converted(tmp_path: Path) -> None:
    network = build_cnn()
    initialize(network)
    half = {name: p.data().astype("float16") for name, p in network._collect_params_with_prefix().items()}
    mx.nd.save(str(tmp_path / "half.params"), half)
    begun = experiment.create_initial_network(experiment.prepare(beginning_with(tmp_path / "half.params")))
    assert bits(begun) == [array.astype("float32").asnumpy().tobytes() for array in half.values()]


def test_both_scheduler_modes_give_the_same_parameters(origin: Path, tmp_path: Path) -> None:
    configs = [changed(beginning_with(origin), training={"scheduler_mode": mode}) for mode in ("optimizer", "manual")]
    one, other = (train(config, tmp_path / config.training.scheduler_mode) for config in configs)
    assert (one / "model.params").read_bytes() == (other / "model.params").read_bytes()
    assert (one / "iterations.csv").read_bytes() == (other / "iterations.csv").read_bytes()


def test_a_search_begins_with_the_parameters(origin: Path, tmp_path: Path) -> None:
    prepared = experiment.prepare(beginning_with(origin))
    sweep = search_learning_rate(prepared, RunFolder.create(tmp_path / "search"), SweepConfig(iterations=20, end_lr=0.1))
    [_, learning_rate, loss] = RunFolder(train(beginning_with(origin), tmp_path / "run")).read_iterations()[0]
    assert sweep.rows[0].loss == loss
    assert sweep.rows[0].learning_rate != learning_rate
    assert load_recorded_config(tmp_path / "search" / "config.toml").model == prepared.config.model


def mlp() -> Any:
    network = mx.gluon.nn.HybridSequential()
    network.add(mx.gluon.nn.Dense(8, activation="relu"), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(10))
    return network


@pytest.mark.parametrize("source", [".", "model.params", "checkpoints/00000022"])
def test_a_users_network_is_read_too(source: str, tmp_path: Path) -> None:
    own = changed(STABLE, model={"network": f"{__name__}:mlp"})
    origin = train(own, tmp_path / "origin")
    prepared = experiment.prepare(beginning_with(origin / source, own))
    assert parameters_sha256(experiment.create_initial_network(prepared)) == summary_of(origin)["parameters_sha256"]
    with pytest.raises(RequestError, match="parameters"):
        experiment.prepare(beginning_with(origin / source))


# --- repeating and resuming


def test_the_recorded_configuration_repeats_the_branch_and_refuses_other_parameters(origin: Path, tmp_path: Path) -> None:
    branch = train(beginning_with(origin / "model.params"), tmp_path / "branch")
    again = train(load_config(branch / "config.toml"), tmp_path / "again")
    assert (again / "model.params").read_bytes() == (branch / "model.params").read_bytes()
    shutil.copy(branch / "model.params", origin / "model.params")
    with pytest.raises(RequestError) as caught:
        experiment.prepare(load_config(branch / "config.toml"))
    [problem] = caught.value.problems
    hashes = (summary_of(path)["parameters_sha256"] for path in (branch, origin))
    assert_names(problem, f"model.initial_parameters = {origin / 'model.params'}: ", *hashes, "restore the file")
    # The recorded hash belongs to the recorded file only.
    flag = Override("--initial-parameters", "model.initial_parameters", str(branch))
    config = experiment.prepare(load_config(branch / "config.toml", [flag])).config
    assert config.model.initial_parameters_sha256 == summary_of(branch)["parameters_sha256"]


def test_a_resumed_branch_does_not_need_the_origin(origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = changed(beginning_with(origin), training={"epochs": 2}, schedule={"name": "Constant"})
    whole = train(config, tmp_path / "whole")
    parts = train(config, tmp_path / "parts", stop_at=7)
    begun = train(config, tmp_path / "begun", stop_at=1)
    shutil.rmtree(begun / "checkpoints")
    shutil.rmtree(origin)
    assert cli.main(["train", "--resume", str(parts), "--quiet"]) == DONE
    for name in ("model.params", "iterations.csv", "config.toml"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    capsys.readouterr()
    assert cli.main(["train", "--resume", str(begun), "--quiet"]) == WRONG_REQUEST  # without a checkpoint, it begins again
    assert str(origin) in capsys.readouterr().err


def test_a_resumed_run_cannot_have_other_initial_parameters(origin: Path, tmp_path: Path) -> None:
    path = train(DECAY, tmp_path / "run", stop_at=3)
    with pytest.raises(RequestError) as caught:
        resume_run(path, config=beginning_with(origin))
    assert_names(caught.value.problems[0], f"--resume {path}: model.initial_parameters was not set", str(origin))


def test_workers_compare_the_hash_and_not_the_path(origin: Path, tmp_path: Path) -> None:
    def settings(path: Path) -> dict[str, Any]:
        config = beginning_with(path)
        return experiment.shared_settings(config, experiment.prepare(config), None)

    shutil.copytree(origin, tmp_path / "copy")
    assert settings(origin) == settings(tmp_path / "copy")
    assert settings(origin) != settings(origin / "checkpoints" / "00000011")


@pytest.mark.slow
@pytest.mark.process
def test_two_workers_begin_with_the_parameters(origin: Path, new_program: Program, tmp_path: Path) -> None:
    arguments = ["--epochs", "1", "--train-images", "640", "--test-images", "100", "--quiet", "--threads", "1"]
    arguments += ["--initial-parameters", str(origin), "--learning-rate", "1e-30", "--set", "schedule={name = 'Constant'}"]
    for words, name in ((["train"], "one"), (["launch", "--workers", "2", "--", "train"], "two")):
        done = new_program(*words, *arguments, "--output", name)
        assert done.returncode == DONE, done.stderr
    one, two = (summary_of(tmp_path / name) for name in ("one", "two"))
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-6)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-6)
    recorded = load_recorded_config(tmp_path / "two" / "config.toml").model
    assert recorded.initial_parameters_sha256 == summary_of(origin)["parameters_sha256"]


@pytest.mark.slow
@pytest.mark.process
def test_all_runs_of_a_comparison_begin_with_the_parameters(origin: Path, new_program: Program, tmp_path: Path) -> None:
    small = ["--epochs", "1", "--train-images", "640", "--test-images", "100", "--quiet", "--jobs", "1"]
    done = new_program("compare", *small, "--seeds", "1,2", "--initial-parameters", str(origin), "--output", "both")
    assert done.returncode == DONE, done.stderr
    folders = sorted((tmp_path / "both" / "runs").iterdir())
    assert len(folders) == 4
    expected = summary_of(origin)["parameters_sha256"]
    assert {load_recorded_config(path / "config.toml").model.initial_parameters_sha256 for path in folders} == {expected}
    first_losses = [RunFolder(path).read_iterations()[0][2] for path in folders]
    assert first_losses[0] == first_losses[2] != first_losses[1] == first_losses[3]  # the modes agree; the seeds shuffle


# --- what is not the parameters of the network


def another_network(path: Path) -> Path:
    network = mx.gluon.nn.Dense(10, in_units=784)
    network.initialize()
    network.save_parameters(str(path / "other.params"))
    return path / "other.params"


def with_nan(path: Path) -> Path:
    network = loaded(path / "model.params")
    values = parameters_in_order(network)[3].data().asnumpy()
    values[7] = np.nan
    parameters_in_order(network)[3].set_data(mx.nd.array(values))
    network.save_parameters(str(path / "nan.params"))
    return path / "nan.params"


def another_hash(path: Path) -> Path:
    edit_json(path / "summary.json", lambda summary: summary.update(parameters_sha256=64 * "0"))
    return path


def unfinished(path: Path) -> Path:
    (path / "model.params").unlink()
    (path / "summary.json").unlink()
    return path


def empty(path: Path) -> Path:
    (path / "empty").mkdir()
    return path / "empty"


def linked(path: Path) -> Path:
    (path / "model.params").rename(path / "elsewhere")
    (path / "model.params").symlink_to("elsewhere")
    return path


def damaged(path: Path) -> Path:
    with (path / "checkpoints" / "00000022" / "arrays.npz").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"damage")
    return path / "checkpoints" / "00000022"


def large(path: Path) -> Path:
    with (path / "model.params").open("r+b") as stream:
        stream.truncate(2**21)
    return path / "model.params"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "nothing", ("No such file",)),
        (lambda path: path / "summary.json", ("not a parameter file",)),
        (lambda path: path / "checkpoints", ("no model.params",)),
        (lambda _: Path("/dev/zero"), ("not a regular file",)),
        (lambda path: path / ("x" * 300), ("too long",)),
        (another_network, ("2 arrays", "8 parameters")),
        (with_nan, ("infinite",)),
        (another_hash, ("model.params", "summary.json")),
        (unfinished, ("checkpoints/00000022",)),
        (empty, ("name a run, a checkpoint or a file",)),
        (linked, ("a symbolic link",)),
        (damaged, ("arrays.npz", "damaged")),
        (large, ("more than 1,048,576 bytes",)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_other_files_are_refused(
    make: Callable[[Path], Path], words: tuple[str, ...], origin: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    path = make(origin)
    with pytest.raises(RequestError) as caught:
        experiment.prepare(beginning_with(path))
    [problem] = caught.value.problems
    assert_names(problem, f"model.initial_parameters = {path}: ", *words)
    snapshot(problem.replace(str(tmp_path), "HERE"))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    own = train(changed(STABLE, model={"network": f"{__name__}:mlp"}), tmp_path / "own")
    with pytest.raises(RequestError) as caught:
        experiment.prepare(beginning_with(own / "checkpoints" / "00000022"))
    assert_names(str(caught.value), "model.initial_parameters = ", "(8, 784)", "(10, 1, 5, 5)")


def test_a_forged_checkpoint_is_read_like_any_other(origin: Path) -> None:
    checkpoint = origin / "checkpoints" / "00000022"
    edit_json(checkpoint / "state.json", lambda state: state.update(iteration=21))
    sign(checkpoint)
    with pytest.raises(RequestError) as caught:
        experiment.prepare(beginning_with(checkpoint))
    assert_names(str(caught.value), "model.initial_parameters = ", "not a valid checkpoint")


def test_a_hash_without_a_file_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        load_config(overrides=[Override.from_assignment(f"model.initial_parameters_sha256={64 * 'a'}")])
    [problem] = caught.value.problems
    assert_names(problem, "--set model.initial_parameters_sha256: ", "model.initial_parameters, which is missing")


def test_nothing_is_written_if_the_parameters_are_missing(program: Program, tmp_path: Path) -> None:
    for command in ("train", "find-lr", "compare"):
        done = program(command, "--initial-parameters", "nothing", "--output", "run")
        assert done.returncode == WRONG_REQUEST
        assert_names(done.stderr, "model.initial_parameters = nothing: ", "No such file")
        assert not (tmp_path / "run").exists()
