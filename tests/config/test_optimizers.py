"""The table of optimizers, compared with MXNet's registry and signatures, and the errors about wrong settings."""

import inspect
import math
from typing import Any

import pytest
from command_line import assert_names
from conftest import Snapshot
from settings_checks import Problems, assert_found

from mnist_trainer.config.optimizers import COMMON_ARGUMENTS, OPTIMIZERS, UNSUITABLE, optimizer_problems
from mnist_trainer.console import shown
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Constant
from mnist_trainer.training.trainer import create_trainer

mx = import_mxnet()

REGISTRY: dict[str, type] = dict(mx.optimizer.Optimizer.opt_registry)
PAIRS = [(name, argument) for name, own in sorted(OPTIMIZERS.items()) for argument in own + COMMON_ARGUMENTS]
SWITCHES = {"bias_correction", "centered", "lazy_update", "momentum_correction"}

# DCASGD takes the truth value of its momentum, which is an array.
BROKEN_IN_MXNET = {"dcasgd": {"momentum"}}


def arguments_of(cls: type) -> set[str]:
    return set(inspect.signature(cls).parameters)


def update_twice(name: str, arguments: dict[str, Any]) -> Any:
    """Update two parameters twice, and return MXNet's optimizer."""
    net = mx.gluon.nn.Dense(2, in_units=3)
    net.initialize()
    trainer = create_trainer(net.collect_params(), Constant(0.1), "optimizer", name, arguments)
    for _ in range(2):
        with mx.autograd.record():
            loss = net(mx.nd.ones((4, 3))).sum()
        loss.backward()
        trainer.step(4)
        mx.nd.waitall()
    return trainer.optimizer


def test_every_optimizer_of_mxnet_is_suitable_or_not() -> None:
    assert set(OPTIMIZERS) | set(UNSUITABLE) == set(REGISTRY)
    assert not set(OPTIMIZERS) & set(UNSUITABLE)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_table_has_the_arguments_of_mxnets_constructor(name: str) -> None:
    own = OPTIMIZERS[name]
    assert set(own) | BROKEN_IN_MXNET.get(name, set()) == arguments_of(REGISTRY[name]) - {"learning_rate", "kwargs"}
    assert len(own) == len(set(own))


@pytest.mark.parametrize(("name", "argument"), [(name, argument) for name, own in BROKEN_IN_MXNET.items() for argument in own])
def test_an_argument_with_which_mxnet_fails_is_not_in_the_table(name: str, argument: str) -> None:
    with pytest.raises(ValueError, match="truth value of an NDArray"):
        update_twice(name, {argument: 0.5})
    assert argument not in OPTIMIZERS[name]


def test_the_common_arguments_are_those_of_mxnets_base_class() -> None:
    base = arguments_of(mx.optimizer.Optimizer)
    assert set(COMMON_ARGUMENTS) <= base
    # The others have no use with a schedule, a Trainer or this network.
    assert base - set(COMMON_ARGUMENTS) == {
        "rescale_grad",
        "param_idx2name",
        "learning_rate",
        "lr_scheduler",
        "sym",
        "begin_num_update",
        "multi_precision",
        "param_dict",
    }


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_mxnets_own_defaults_are_accepted(name: str) -> None:
    parameters = inspect.signature(REGISTRY[name]).parameters
    defaults = {key: parameters[key].default for key in OPTIMIZERS[name]}
    settings = {"name": name, **{key: value for key, value in defaults.items() if value is not None}}
    assert optimizer_problems(settings) == []


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_mxnet_accepts_all_arguments_together(name: str) -> None:
    arguments = {key: True if key in SWITCHES else 0.5 for key in OPTIMIZERS[name] + COMMON_ARGUMENTS}
    assert optimizer_problems({"name": name, **arguments}) == []
    made = update_twice(name, arguments)
    assert (made.wd, made.clip_gradient) == (0.5, 0.5)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_mxnet_accepts_every_number_that_is_not_refused(name: str) -> None:
    for argument in set(OPTIMIZERS[name] + COMMON_ARGUMENTS) - SWITCHES:
        for number in (0, 5e-324, 1e-38, 1e-30, 0.99, 1e30, 1e39, 10**400):
            if not optimizer_problems({"name": name, argument: number}):
                update_twice(name, {argument: number})


@pytest.mark.parametrize(("name", "argument"), PAIRS)
def test_every_argument_has_a_kind(name: str, argument: str) -> None:
    (problem,) = optimizer_problems({"name": name, argument: "text"})
    assert_names(str(problem), f"{argument} = 'text': ", *(("true", "false") if argument in SWITCHES else ("number",)))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="sgd is the default"),
        pytest.param({"momentum": 0.9}, id="its own argument"),
        pytest.param({"name": "sgd", "momentum": 0}, id="no momentum"),
        pytest.param({"name": "adam", "beta1": 0, "beta2": 0.999, "epsilon": 0}, id="lower bounds"),
        pytest.param({"name": "adam", "beta1": 0.9999999}, id="nearly one"),
        pytest.param({"name": "lamb", "upper_bound": 10, "bias_correction": False}, id="a switch"),
        pytest.param({"name": "ftml", "wd": 0.5, "clip_gradient": 1}, id="the common ones"),
    ],
)
def test_good_settings(settings: dict[str, Any]) -> None:
    assert optimizer_problems(settings) == []


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        pytest.param({"name": "sdg"}, [("name", "'sdg'", "did you mean sgd?")], id="misspelled name"),
        pytest.param({"name": "qqqq"}, [("name", "'qqqq'", *OPTIMIZERS)], id="no near name"),
        pytest.param({"name": ""}, [("name", "''", *OPTIMIZERS)], id="no name"),
        pytest.param({"name": 3}, [("name", "3", *OPTIMIZERS)], id="number for a name"),
        pytest.param({"name": True}, [("name", "True")], id="switch for a name"),
        pytest.param({"name": ["sgd"]}, [("name", "['sgd']")], id="list for a name"),
        pytest.param({"name": "SGD"}, [("name", "'SGD'", "did you mean sgd?")], id="capitals"),
        pytest.param(
            {"name": "sgd", "momentm": 0.9},
            [("momentm", "sgd", "did you mean optimizer.momentum?")],
            id="misspelled argument",
        ),
        pytest.param(
            {"name": "sgd", "beta1": 0.9},
            [("beta1", "sgd", "momentum, lazy_update, wd, clip_gradient")],
            id="another's argument",
        ),
        pytest.param({"name": "nag", "qqqq": 0.9}, [("qqqq", "nag", "momentum, wd, clip_gradient")], id="nothing like it"),
        pytest.param({"learning_rate": 0.1}, [("learning_rate", "training.learning_rate", "[schedule]")], id="the rate"),
        pytest.param({"lr": 0.1}, [("lr", "training.learning_rate", "[schedule]")], id="the rate by its short name"),
        pytest.param({"lr_scheduler": "Cosine"}, [("lr_scheduler", "training.learning_rate", "[schedule]")], id="the schedule"),
        pytest.param(
            {"momentum": 1.0, "wd": -0.1, "clip_gradient": 0, "lazy_update": 1, "x": 0},
            [
                ("momentum", "1.0", "≥ 0", "< 1"),
                ("wd", "-0.1", "≥ 0"),
                ("clip_gradient", "0", "> 0"),
                ("lazy_update", "1", "true", "false"),
                ("x", "sgd", "momentum, lazy_update, wd, clip_gradient"),
            ],
            id="all at once",
        ),
    ],
)
def test_bad_settings(settings: dict[str, Any], problems: Problems, snapshot: Snapshot) -> None:
    snapshot(assert_found(optimizer_problems(settings), problems))


@pytest.mark.parametrize("name", sorted(UNSUITABLE))
def test_an_unsuitable_optimizer_is_refused_with_its_reason(name: str, snapshot: Snapshot) -> None:
    snapshot(assert_found(optimizer_problems({"name": name}), [("name", name, UNSUITABLE[name], *OPTIMIZERS)]))


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        pytest.param("sgd", "momentum", 1, id="momentum of one"),
        pytest.param("sgd", "momentum", -0.1, id="negative momentum"),
        pytest.param("sgd", "momentum", math.nan, id="NaN"),
        pytest.param("sgd", "wd", math.inf, id="infinite"),
        pytest.param("sgd", "wd", True, id="true for a number"),
        pytest.param("sgd", "wd", [0.1], id="list"),
        pytest.param("sgd", "wd", 1e39, id="infinite in float32"),
        pytest.param("sgd", "wd", 10**400, id="beyond any float"),
        pytest.param("sgd", "clip_gradient", 1e-50, id="nothing in float32"),
        pytest.param("adam", "beta1", 1.0, id="beta1 of one"),
        pytest.param("adam", "beta2", -1, id="negative beta2"),
        pytest.param("adam", "epsilon", -1e-8, id="negative epsilon"),
        pytest.param("adam", "lazy_update", 0, id="number for a switch"),
        pytest.param("rmsprop", "gamma1", 2, id="gamma1 of two"),
        pytest.param("rmsprop", "clip_weights", 0, id="clip to nothing"),
        pytest.param("lars", "eta", 0, id="eta of nothing"),
        pytest.param("lamb", "upper_bound", 0, id="upper bound of nothing"),
        pytest.param("ftrl", "beta", -1, id="negative beta"),
        pytest.param("ftrl", "lamda1", -1, id="negative lamda1"),
        pytest.param("dcasgd", "lamda", -1, id="negative lamda"),
        pytest.param("nadam", "schedule_decay", -1, id="negative schedule_decay"),
        pytest.param("signum", "wd_lh", -1, id="negative wd_lh"),
    ],
)
def test_out_of_range(name: str, argument: str, value: Any, snapshot: Snapshot) -> None:
    kind = "true" if argument in SWITCHES else "number"
    snapshot(assert_found(optimizer_problems({"name": name, argument: value}), [(argument, shown(value), kind)]))
