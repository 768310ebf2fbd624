"""The fused SGD gives the same bits as MXNet's, checks whether gradients are finite, and refuses unsupported arguments."""

import locale
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot
from requirements import needs_fused
from small_runs import SMALL, changed

from mnist_trainer import create_trainer
from mnist_trainer.model import native
from mnist_trainer.model.network import build_cnn, initialize
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Cosine, Linear
from mnist_trainer.training import experiment
from mnist_trainer.training.fused_sgd import FusedSGD, choose_optimizer
from mnist_trainer.training.loop import evaluate
from mnist_trainer.training.trainer import ScheduledTrainer

pytestmark = needs_fused

mx = import_mxnet()

SHAPES = [(10, 1, 5, 5), (10,), (7, 333), (1,)]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    native.load()


def parameters(seed: int = 0) -> Any:
    """Return parameters with values. Not all of their multipliers of rate and weight decay are 1."""
    random = np.random.RandomState(seed)
    group = mx.gluon.ParameterDict("some_")
    for i, shape in enumerate(SHAPES):
        parameter = group.get(f"parameter{i}", shape=shape, lr_mult=1 + i, wd_mult=i / 2)
        parameter.initialize(ctx=mx.cpu())
        parameter.set_data(mx.nd.array(random.randn(*shape)))
    return group


def give_gradients(group: Any, seed: int, change: Callable[[list[Any]], object] = lambda _: None) -> None:
    """Set gradients as a backward pass does. `change` is called with the gradients as numpy arrays."""
    random = np.random.RandomState(seed)
    gradients = [random.randn(*param.shape).astype("float32") for param in group.values()]
    change(gradients)
    for parameter, gradient in zip(group.values(), gradients, strict=True):
        parameter.grad()[:] = mx.nd.array(gradient)
        parameter.data()._fresh_grad = True


def trained(optimizer: Any, batch_size: int, mode: str, arguments: dict[str, Any], schedules: dict[str, Any]) -> list[bytes]:
    """Return parameters and states after six updates."""
    group = parameters()
    trainer = create_trainer(
        group, Cosine(max_update=5, base_lr=0.07), mode, optimizer, arguments, hyperparameter_schedules=schedules
    )
    for seed in range(6):
        give_gradients(group, seed)
        trainer.step(batch_size)
    states = [state.asnumpy() for _, state in sorted(trainer.optimizer_states().items()) if state is not None]
    for state in states:
        # A scheduled momentum of 0 is float32's smallest normal number, which MXNet reads a little differently.
        state[np.abs(state) < 1e-36] = 0
    return [array.tobytes() for array in (*(parameter.data().asnumpy() for parameter in group.values()), *states)]


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
@pytest.mark.parametrize("batch_size", [64, 60, 7])  # 1/60 and 1/7 are rounded
@pytest.mark.parametrize(
    ("arguments", "schedules"),
    [
        ({}, {}),
        ({"wd": 1e-3}, {}),
        ({"clip_gradient": 0.4, "wd": 0.01}, {}),
        ({"momentum": 0.9}, {}),
        ({"momentum": 0.123456789, "wd": 1e-3, "clip_gradient": 0.4}, {}),
        ({"wd": 1e-3}, {"momentum": Linear(max_update=6, base_lr=0.9)}),  # ends with 0
        ({"momentum": 0.5}, {"wd": Linear(max_update=6, base_lr=0.01)}),
    ],
    ids=str,
)
def test_the_bits_are_those_of_mxnets_sgd(
    mode: str, batch_size: int, arguments: dict[str, Any], schedules: dict[str, Any]
) -> None:
    ours, theirs = (trained(optimizer, batch_size, mode, arguments, schedules) for optimizer in (FusedSGD, "sgd"))
    assert ours == theirs
    assert len(ours) == len(SHAPES) * (2 if "momentum" in {**arguments, **schedules} else 1)


DECIMAL_COMMA = """LC_NUMERIC
decimal_point ","
thousands_sep ""
grouping -1
END LC_NUMERIC
"""
ASCII = """<code_set_name> ASCII
CHARMAP
<U0000>..<U007F> /x00
END CHARMAP
"""


@pytest.mark.process
def test_the_decimal_comma_of_a_users_locale_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some libraries, such as Qt, set the user's locale for the whole process. This machine may have no locale with a comma.
    for name, content in (("definition", DECIMAL_COMMA), ("characters", ASCII)):
        (tmp_path / name).write_text(content, encoding="ascii")
    command = ["localedef", "--force", "--no-archive", "-f", "./characters", "-i", "./definition", "./comma"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)  # it warns of everything that is missing
    arguments = {"momentum": 0.9, "wd": 0.001, "clip_gradient": 0.4}
    expected = trained(FusedSGD, 60, "manual", arguments, {})
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    try:
        locale.setlocale(locale.LC_NUMERIC, "comma")
        assert trained(FusedSGD, 60, "manual", arguments, {}) == expected
    finally:
        locale.setlocale(locale.LC_NUMERIC, "C")


def trainer_of(group: Any, **arguments: Any) -> ScheduledTrainer:
    return create_trainer(group, lambda _: 0.1, "manual", FusedSGD, arguments)


@pytest.mark.parametrize("which", range(len(SHAPES)))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_number_that_is_not_finite_is_detected(which: int, value: float, momentum: float) -> None:
    group = parameters()
    trainer = trainer_of(group, momentum=momentum)

    def spoil(gradients: list[Any]) -> None:
        gradients[which].reshape(-1)[-1] = value

    flags = []
    for change in (lambda _: None, spoil, lambda _: None):
        give_gradients(group, 0, change)
        trainer.step(1)
        flags.append(trainer.finite_gradients())
    # Fetched afterwards: an update does not overwrite the flag of the previous one.
    assert [[flag.asscalar() for flag in devices] for devices in flags] == [[1], [0], [1]]


def test_the_largest_and_the_smallest_numbers_are_finite() -> None:
    group = parameters()
    trainer = trainer_of(group)
    give_gradients(group, 0, lambda gradients: gradients[2].__setitem__((0, slice(3)), [3.4e38, -3.4e38, 1e-45]))
    trainer.step(1)
    assert trainer.finite_gradients()[0].asscalar() == 1


def test_other_optimizers_detect_numbers_that_are_not_finite() -> None:
    group = parameters()
    trainer = create_trainer(group, lambda _: 0.1, "manual", "adam")
    for value, expected in ((0, 1), (np.inf, 0)):
        give_gradients(group, 0, lambda gradients, value=value: gradients[1].__setitem__(3, value))  # type: ignore[misc]
        trainer.step(1)
        assert [flag.asscalar() for flag in trainer.finite_gradients()] == [expected]


def test_weights_that_inference_has_used_are_updated_too() -> None:
    # For inference, MXNet may change the layout of a dense layer's weights in place.
    def parameters_of(optimizer: Any) -> list[bytes]:
        mx.random.seed(1)
        net = build_cnn()
        initialize(net)
        images, labels = mx.nd.random.uniform(shape=(64, 1, 28, 28)), mx.nd.array(np.arange(64) % 10, dtype="int32")
        trainer = create_trainer(net.collect_params(), lambda _: 0.1, "manual", optimizer)
        for _ in range(3):
            with mx.autograd.record():
                loss = net(images).sum()
            loss.backward()
            trainer.step(64)
            evaluate(net, [(images, labels)])
        return [parameter.data().asnumpy().tobytes() for parameter in net.collect_params().values()]

    assert parameters_of(FusedSGD) == parameters_of("sgd")


@pytest.mark.parametrize(
    ("name", "backend", "devices", "ours"),
    [
        ("sgd", "fused", [mx.cpu()], True),
        ("SGD", "fused", [mx.cpu()], True),
        ("sgd", "stock", [mx.cpu()], False),
        ("nag", "fused", [mx.cpu()], False),
        ("sgd", "fused", [mx.cpu(0), mx.cpu(1)], False),
        ("sgd", "stock", [mx.gpu(0)], False),
    ],
)
def test_when_it_replaces_sgd(name: str, backend: str, devices: list[Any], ours: bool) -> None:
    assert choose_optimizer(name, backend, devices) is (FusedSGD if ours else name)


@pytest.mark.parametrize("backend", ["fused", "stock"])
def test_a_run_uses_it_with_the_fused_backend(backend: str) -> None:
    prepared = experiment.prepare(changed(SMALL, model={"backend": backend}))
    _, trainer = experiment.create_network_and_trainer(prepared)
    assert type(trainer.optimizer) is (FusedSGD if backend == "fused" else mx.optimizer.SGD)
    assert trainer.optimizer.momentum == 0.9
    _, other = experiment.create_network_and_trainer(
        replace(prepared, hyperparameter_schedules={"wd": Linear(max_update=6, base_lr=0.01)})
    )
    assert type(other.optimizer) is type(trainer.optimizer)


ARGUMENTS: dict[str, Any] = {"num_weights": 1, "lrs": (0.1,), "wds": (0.0,)}


def refused(shapes: Any, dtype: str, change: dict[str, Any]) -> str:
    """Return the operator's message. MXNet repeats the messages of earlier errors before the last one."""
    arrays = [mx.nd.zeros(shape, dtype=dtype) for shape in shapes]
    with pytest.raises(mx.MXNetError) as caught:
        getattr(mx.nd, native.UPDATE_OPERATOR)(*arrays, **(ARGUMENTS | change))
    prefix, name, message = str(caught.value).strip().splitlines()[-1].partition(f"{native.UPDATE_OPERATOR}: ")
    assert name, prefix
    return message


@pytest.mark.parametrize(
    ("shapes", "dtype", "change", "words"),
    [
        pytest.param(((2, 3), (3, 2)), "float32", {}, ("weight", "gradient", "shape"), id="gradient of another shape"),
        pytest.param(
            ((3,), (3,), (4,)),
            "float32",
            {"momentum": 0.9},
            ("weight", "momentum", "shape"),
            id="momentum of another shape",
        ),
        pytest.param(((3,), (3,)), "float64", {}, ("float32",), id="float64"),
        pytest.param(((3,), (3,)), "float16", {}, ("float32",), id="float16"),
    ],
)
def test_unsupported_arrays_are_refused(
    shapes: Any, dtype: str, change: dict[str, Any], words: tuple[str, ...], snapshot: Snapshot
) -> None:
    message = refused(shapes, dtype, change)
    assert_names(message, "", *words)
    snapshot(message)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_weights", value) for value in (0, -1, 1.5, 1.0, "many", "1x", " 1", "", "nan", 1e30, 2**31, 2**64 + 1)),
        *((name, value) for name in ("lrs", "wds") for value in ((), (0.1, 0.1), "many", "0.1x", "(0.1 and more)", "0,1", "")),
        *((name, value) for name in ("momentum", "rescale_grad", "clip_gradient") for value in ("many", "0.1x", "0,1", "")),
    ],
)
def test_invalid_values_are_refused(name: str, value: Any) -> None:
    arrays = 2 if name in ARGUMENTS else 3
    message = refused(arrays * [(3,)], "float32", {name: value} if arrays == 2 else {"momentum": 0.9} | {name: value})
    assert_names(message, f"{name} ", f'"{value}"', *(["1 to 99999999"] if name == "num_weights" else []))


@pytest.mark.parametrize("name", ["num_weights", "lrs", "momentum"])
def test_the_wording_of_a_refused_value(name: str, snapshot: Snapshot) -> None:
    snapshot(refused(3 * [(3,)], "float32", {"momentum": 0.9} | {name: "many"}))


def test_too_few_arrays_are_refused() -> None:
    with pytest.raises(mx.MXNetError):
        getattr(mx.nd, native.UPDATE_OPERATOR)(mx.nd.zeros((3,)), **ARGUMENTS)
