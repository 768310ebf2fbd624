"""Multipliers by layer: the same bits as plain Gluon with `lr_mult` and `wd_mult`, and frozen layers that stay as they are."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot
from requirements import needs_fused
from small_runs import SMALL, changed, resume_run, spare_time, train

from mnist_trainer.config.loading import load_config, load_recorded_config
from mnist_trainer.config.optimizers import OPTIMIZERS
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.data.loaders import create_loaders
from mnist_trainer.errors import RequestError
from mnist_trainer.model.layers import set_multipliers
from mnist_trainer.model.network import build_cnn, build_loss, initialize, parameters_in_order
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.training import experiment

mx = import_mxnet()


@pytest.fixture(autouse=True)
def _spare_time(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)


STOCK = changed(SMALL, model={"backend": "stock"}, training={"epochs": 1})

MULTIPLIERS: dict[str, dict[str, float]] = {
    "conv1": {"lr_mult": 0.5},
    "conv2": {"wd_mult": 3},
    "dense1": {"lr_mult": 0},
    "dense2": {"lr_mult": 2.0, "wd_mult": 0},
}

OF_LAYER = {"conv1": [0, 1], "conv2": [2, 3], "dense1": [4, 5], "dense2": [6, 7]}
"""The parameters of each layer, by their number."""


def trained(config: RunConfig, path: Path) -> list[bytes]:
    """Return the parameters at the end of a run."""
    experiment.run(experiment.prepare(config), RunFolder.create(path))
    network = build_cnn()
    network.load_parameters(str(path / "model.params"))
    return bits(network)


def bits(network: Any) -> list[bytes]:
    return [parameter.data().asnumpy().tobytes() for parameter in parameters_in_order(network)]


def initial(config: RunConfig) -> list[bytes]:
    return bits(experiment.create_initial_network(experiment.prepare(config)))


def trained_by_gluon(config: RunConfig, layers: Mapping[str, Mapping[str, float]]) -> list[bytes]:
    """Return the parameters that plain Gluon gives for the same batches. Only the forward pass is the program's."""
    prepared = experiment.prepare(replace(config, layers={}))
    network = experiment.create_initial_network(prepared)
    parameters = parameters_in_order(network)
    for layer, multipliers in layers.items():
        for number in OF_LAYER[layer]:
            for name, value in multipliers.items():
                setattr(parameters[number], name, value)
            if multipliers.get("lr_mult") == 0:
                parameters[number].grad_req = "null"
    accelerated, loss_of = prepared.accelerate(network), build_loss()
    arguments = {"learning_rate": None, "lr_scheduler": prepared.schedule, **config.optimizer_arguments}
    trainer = mx.gluon.Trainer(network.collect_params(), config.optimizer["name"], arguments)
    for images, labels in create_loaders(config)[0]:
        with mx.autograd.record():
            loss = loss_of(accelerated(images), labels).sum()
        loss.backward()
        trainer.step(len(images))
    return bits(network)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_every_optimizer_gives_the_bits_of_plain_gluon(optimizer: str, mode: str, tmp_path: Path) -> None:
    rate = 0.001 if optimizer in ("adam", "ftml", "nadam", "lamb", "rmsprop", "signum") else 0.05
    config = changed(
        STOCK,
        optimizer={"name": optimizer, "wd": 0.01},
        training={"scheduler_mode": mode, "learning_rate": rate},
        schedule={"name": "Linear", "max_update": 20},  # ftml and ftrl divide by the rate, which must not be 0
    )
    ours = trained(replace(config, layers=MULTIPLIERS), tmp_path / "run")
    assert ours == trained_by_gluon(config, MULTIPLIERS)
    frozen = [number for number, (before, after) in enumerate(zip(initial(config), ours, strict=True)) if before == after]
    assert frozen == OF_LAYER["dense1"]
    assert ours != trained(config, tmp_path / "without")


@pytest.mark.parametrize("layer", OF_LAYER)
@pytest.mark.parametrize("backend", ["stock", pytest.param("fused", marks=needs_fused)])
def test_a_frozen_layer_keeps_its_bits_and_the_others_learn(layer: str, backend: str, tmp_path: Path) -> None:
    config = changed(STOCK, model={"backend": backend}, optimizer={"name": "sgd", "momentum": 0.9, "wd": 0.1})
    after = trained(replace(config, layers={layer: {"lr_mult": 0}}), tmp_path / "run")
    equal = [number for number, bits in enumerate(initial(config)) if bits == after[number]]
    assert equal == OF_LAYER[layer]


@needs_fused
def test_the_fused_update_applies_multipliers(tmp_path: Path) -> None:
    # The gradients of the two backends differ by rounding, so the results are only close.
    config = replace(changed(STOCK, optimizer={"name": "sgd", "momentum": 0.9, "wd": 0.01}), layers=MULTIPLIERS)
    stock = trained(config, tmp_path / "stock")
    fused = trained(changed(config, model={"backend": "fused"}), tmp_path / "fused")
    without = trained(changed(replace(config, layers={}), model={"backend": "fused"}), tmp_path / "without")
    for ours, theirs, other in zip(*([np.frombuffer(b, "<f4") for b in run] for run in (fused, stock, without)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert not np.allclose(ours, other, atol=1e-5)


def test_a_scheduled_weight_decay_is_multiplied_too(tmp_path: Path) -> None:
    config = changed(STOCK, optimizer={"name": "sgd"}, wd={"name": "Constant", "base_lr": 0.01})
    ours = trained(replace(config, layers=MULTIPLIERS), tmp_path / "run")
    assert ours == trained_by_gluon(changed(config, optimizer={"name": "sgd", "wd": 0.01}, wd={}), MULTIPLIERS)


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    config = replace(changed(SMALL, optimizer={"name": "adam"}, training={"learning_rate": 0.001}), layers=MULTIPLIERS)
    whole = train(config, tmp_path / "whole")
    parts = resume_run(train(config, tmp_path / "parts", stop_at=15))
    assert (parts / "model.params").read_bytes() == (whole / "model.params").read_bytes()
    assert load_recorded_config(parts / "config.toml").layers == MULTIPLIERS


def test_a_resumed_run_cannot_thaw_a_layer(tmp_path: Path) -> None:
    config = replace(STOCK, layers={"conv1": {"lr_mult": 0}})
    path = train(config, tmp_path / "run", stop_at=3)
    with pytest.raises(RequestError) as caught:
        resume_run(path, config=replace(config, layers={}))
    [problem] = caught.value.problems
    assert_names(problem, f"--resume {path}: layers.conv1 ", "{'lr_mult': 0}", "not set")


def test_several_devices_give_the_bits_of_multipliers_too(tmp_path: Path) -> None:
    config = replace(changed(STOCK, runtime={"device": "cpu:0,1"}), layers=MULTIPLIERS)
    after, before = trained(config, tmp_path / "run"), initial(STOCK)
    assert [number for number in range(8) if before[number] == after[number]] == OF_LAYER["dense1"]
    one = trained(replace(STOCK, layers=MULTIPLIERS), tmp_path / "one")
    for ours, theirs in zip(after, one, strict=True):
        np.testing.assert_allclose(np.frombuffer(ours, "<f4"), np.frombuffer(theirs, "<f4"), atol=1e-5)


# --- a user's own network


class Nested(mx.gluon.nn.HybridBlock):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.features = mx.gluon.nn.HybridSequential()
            self.features.add(mx.gluon.nn.Conv2D(4, 5), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(8, activation="relu"))
            self.output = mx.gluon.nn.Dense(10)

    def hybrid_forward(self, F: Any, images: Any) -> Any:  # noqa: N803
        return self.output(self.features(images))


def nested() -> Any:
    return Nested()


OWN = changed(STOCK, model={"network": f"{__name__}:nested"}, optimizer={"name": "sgd"})


def changes(layers: Mapping[str, Mapping[str, float]], path: Path) -> set[str]:
    """Return the names of the parameters that a run of the user's network changes."""
    config = replace(OWN, layers=layers)
    prepared = experiment.prepare(config)
    before = {name: p.data().asnumpy() for name, p in names_of(experiment.create_initial_network(prepared)).items()}
    experiment.run(prepared, RunFolder.create(path))
    network = nested()
    network.load_parameters(str(path / "model.params"))
    return {name for name, p in names_of(network).items() if p.data().asnumpy().tobytes() != before[name].tobytes()}


def names_of(network: Any) -> dict[str, Any]:
    named: dict[str, Any] = network._collect_params_with_prefix()
    return named


ALL = {
    *("features.0.weight", "features.0.bias", "features.1.gamma", "features.1.beta", "features.1.running_mean"),
    *("features.1.running_var", "features.2.weight", "features.2.bias", "output.weight", "output.bias"),
}


@pytest.mark.parametrize(
    ("layers", "frozen"),
    [
        pytest.param({}, set(), id="none"),
        pytest.param({"features.0": {"lr_mult": 0}}, {"features.0.weight", "features.0.bias"}, id="a layer"),
        pytest.param({"output.bias": {"lr_mult": 0}}, {"output.bias"}, id="a parameter"),
        pytest.param({"features": {"lr_mult": 0}}, ALL - {"output.weight", "output.bias"}, id="a block with BatchNorm"),
        pytest.param(
            {"features": {"lr_mult": 0}, "features.2": {"lr_mult": 1}},
            ALL - {"output.weight", "output.bias", "features.2.weight", "features.2.bias"},
            id="the longest name decides",
        ),
    ],
)
def test_a_users_layers_have_the_names_of_the_parameter_file(
    layers: dict[str, dict[str, float]], frozen: set[str], tmp_path: Path
) -> None:
    # The bias of a convolution before BatchNorm has gradients of rounding errors only, but these change it.
    assert changes(layers, tmp_path / "run") == ALL - frozen


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"feature": {"lr_mult": 0}}, ("layers.feature: ", "test_layers:nested", "did you mean features?")),
        ({"conv1": {"lr_mult": 0}}, ("layers.conv1: ", "features.1.gamma")),
        ({"features": {"lr_mult": 0}, "output": {"lr_mult": 0}}, ("layers: ", "every layer is frozen")),
    ],
    ids=str,
)
def test_names_that_a_users_network_lacks_are_refused(
    layers: dict[str, dict[str, float]], words: tuple[str, ...], snapshot: Snapshot
) -> None:
    with pytest.raises(RequestError) as caught:
        experiment.check(replace(OWN, layers=layers))
    [problem] = caught.value.problems
    assert_names(problem, *words)
    snapshot(problem)


# --- the table


def problems_of(path: Path, text: str, *assignments: str) -> tuple[str, ...]:
    path.write_text(f'[schedule]\nname = "Constant"\n[training]\nlearning_rate = 0.1\n{text}', encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        load_config(path, [Override.from_assignment(assignment) for assignment in assignments])
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "assignments", "words"),
    [
        ("[layers.conv3]\nlr_mult = 0", (), ("mine.toml: layers.conv3.lr_mult: ", "did you mean conv2?")),
        ("[layers.features]\nlr_mult = 0", (), ("mine.toml: layers.features.lr_mult: ", "conv1, conv2, dense1, dense2")),
        ("[layers.conv1]\nlr_mul = 0", (), ("mine.toml: layers.conv1.lr_mul: ", "did you mean layers.conv1.lr_mult?")),
        ("[layers.conv1]\nlr_mult = -1", (), ("mine.toml: layers.conv1.lr_mult = -1: ", "≥ 0")),
        ("[layers.conv1]\nwd_mult = true", (), ("mine.toml: layers.conv1.wd_mult = True: ", "≥ 0")),
        ("[layers.conv1]\nwd_mult = inf", (), ("mine.toml: layers.conv1.wd_mult = inf: ",)),
        ("[layers]\nconv1 = 0", (), ("mine.toml: layers.conv1 = 0: ", "{lr_mult = 0}")),
        (
            '[model]\nnetwork = "a:b"\n[layers.features.0]\nlr_mult = 0',
            (),
            ("mine.toml: layers.features.0: ", '[layers."features.0"]'),
        ),
        ("layers = 3", (), ("mine.toml: ",)),
        ("", ("layers.conv3.lr_mult=0",), ("--set layers.conv3.lr_mult: ", "did you mean conv2?")),
        ("", ("layers.conv1.lr_mul=0",), ("--set layers.conv1.lr_mul: ", "did you mean layers.conv1.lr_mult?")),
        ("", ("layers.conv1.lr_mult=high",), ("--set layers.conv1.lr_mult=high: ", "≥ 0")),
        ("", ("layers.conv1=0",), ("--set layers.conv1=0: ", "{lr_mult = 0}")),
        ("", ("layers=0",), ("--set layers=0: ", "{conv1 = {lr_mult = 0}}")),
        ("", ("layers.conv1.lr_mult=0", "layers.conv1={wd_mult = 1}"), ("--set layers.conv1: ", "keep one of them")),
        ("[layers]\nconv1 = 0", ("layers.conv1.lr_mult=0",), ("mine.toml: layers.conv1 = 0: ", "{lr_mult = 0}")),
        ("", ("conv1.lr_mult=0",), ("--set conv1.lr_mult: ", "did you mean layers.conv1.lr_mult?")),
    ],
    ids=str,
)
def test_a_wrong_table_is_one_problem(
    text: str, assignments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [problem] = problems_of(Path("mine.toml"), text, *assignments)
    assert_names(problem, *words)


def test_flags_and_tables_are_the_same_and_are_recorded(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = '[schedule]\nname = "Constant"\n[training]\nlearning_rate = 0.1\n'
    file.write_text(f"{text}[layers.conv1]\nlr_mult = 0\n[layers.dense1]\nlr_mult = 0.5\nwd_mult = 2\n", encoding="utf-8")
    expected = {"conv1": {"lr_mult": 0}, "dense1": {"lr_mult": 0.5, "wd_mult": 2}}
    config = load_config(file)
    assert config.layers == expected
    file.write_text(text, encoding="utf-8")
    settings = ("layers.conv1.lr_mult=0", "layers.dense1.lr_mult=0.5", "layers.dense1={lr_mult = 0.5, wd_mult = 2}")
    assert load_config(file, [Override.from_assignment(settings[number]) for number in (0, 2)]) == config
    assert load_config(file, [Override.from_assignment("layers={conv1 = {lr_mult = 0}}")]).layers == {"conv1": {"lr_mult": 0}}
    file.write_text(config.to_toml(), encoding="utf-8")
    assert load_recorded_config(file) == config


def test_a_users_layer_may_have_dots(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = '[schedule]\nname = "Constant"\n[training]\nlearning_rate = 0.1\n[model]\nnetwork = "math:floor"\n'
    file.write_text(f'{text}[layers."features.0"]\nlr_mult = 0\n', encoding="utf-8")
    config = load_config(file)
    assert config.layers == {"features.0": {"lr_mult": 0}}
    file.write_text(text, encoding="utf-8")
    assert load_config(file, [Override.from_assignment("layers.features.0.lr_mult=0")]) == config
    file.write_text(config.to_toml(), encoding="utf-8")
    assert load_recorded_config(file) == config


def test_the_layers_of_the_tutorial_are_those_of_its_network() -> None:
    network = build_cnn()
    set_multipliers(network, {layer: {"lr_mult": number + 2} for number, layer in enumerate(OF_LAYER)})
    initialize(network)
    multipliers = [parameter.lr_mult for parameter in parameters_in_order(network)]
    assert multipliers == [2, 2, 3, 3, 4, 4, 5, 5]
