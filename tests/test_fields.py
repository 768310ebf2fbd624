"""Kinds of values: the values that they accept and refuse, and the same message wherever a value comes from."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from command_line import refused
from wrong_values import document

from mnist_trainer.config.loading import load_config
from mnist_trainer.config.optimizers import optimizer_problems
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import SweepConfig
from mnist_trainer.errors import RequestError
from mnist_trainer.fields import (
    FRACTION,
    POSITIVE_RATE,
    RATE,
    Choice,
    Device,
    FieldError,
    FieldTypeError,
    FieldValueError,
    Kind,
    Listed,
    Number,
    Or,
    Switch,
    Whole,
    check_fields,
    did_you_mean,
    nearest,
    setting,
)
from mnist_trainer.schedules import Constant, Factor, Noam, Poly

COUNT = Whole(1, 9)
COUNTS = Listed(Whole(1), increases=True)
MODES = Choice(("optimizer", "manual"))


# --- one kind


@pytest.mark.parametrize(
    ("kind", "value", "normalised"),
    [
        (COUNT, 1, 1),
        (COUNT, np.int64(9), 9),
        (Whole(0), 10**18, 10**18),
        (FRACTION, 1, 1.0),
        (FRACTION, -0.0, 0.0),
        (FRACTION, np.float32(0.5), 0.5),
        (Number(), -1e300, -1e300),
        (Number(above=0, below=1), 5e-324, 5e-324),
        (RATE, 3.4e38, 3.4e38),
        (Switch(), True, True),
        (MODES, "manual", "manual"),
        (Device(), "gpu:0,1", "gpu:0,1"),
        (COUNTS, [1, 2], (1, 2)),
        (COUNTS, np.array([1, 2]), (1, 2)),
        (Listed(RATE), (1, 1), (1.0, 1.0)),
        (Or("auto", COUNT), "auto", "auto"),
        (Or("auto", COUNT), 2, 2),
        (Or(None, RATE), None, None),
        (Or(None, RATE), 1, 1.0),
    ],
)
def test_a_value_of_the_kind_is_normalised(kind: Kind, value: Any, normalised: Any) -> None:
    checked = kind.check("name", value)
    assert (type(checked), repr(checked)) == (type(normalised), repr(normalised))


A_COUNT = "must be a whole number from 1 to 9"
SOME_COUNTS = "must be a list of one or more values in increasing order, each a whole number from 1 to 10¹⁸"


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (COUNT, 0, f"name = 0: {A_COUNT}"),
        (COUNT, 10, f"name = 10: {A_COUNT}"),
        pytest.param(COUNT, 10**5000, f"name = a number of thousands of digits: {A_COUNT}", id="thousands of digits"),
        (Whole(0), -1, "name = -1: must be a whole number from 0 to 10¹⁸"),
        (FRACTION, 1.5, "name = 1.5: must be a number from 0 to 1"),
        (FRACTION, math.nan, "name = nan: must be a number from 0 to 1"),
        (Number(), math.inf, "name = inf: must be a finite number"),
        (Number(0), -1, "name = -1: must be a finite number ≥ 0"),
        (Number(above=1), 1, "name = 1: must be a finite number > 1"),
        (Number(0, below=1), 1, "name = 1: must be a number ≥ 0 and < 1"),
        (Number(above=0, high=1e6), 0, "name = 0: must be a number > 0 and ≤ 1000000"),
        (RATE, 1e39, "name = 1e+39: must be a number ≥ 0 in the range of float32"),
        (POSITIVE_RATE, 0, "name = 0: must be a number > 0 in the range of float32"),
        (MODES, "manul", "name = 'manul': must be one of optimizer, manual; did you mean manual?"),
        (MODES, 3, "name = 3: must be one of optimizer, manual"),
        (Device(), "tpu", "name = 'tpu': must be auto, cpu, gpu, gpu:1 or gpu:0,1"),
        (Device(), "gpu:1,1", "name = 'gpu:1,1': must name each device once"),
        (COUNTS, [], f"name = []: {SOME_COUNTS}"),
        (COUNTS, (2, 2), f"name = [2, 2]: {SOME_COUNTS}"),
        (COUNTS, [1, 0], "name[1] = 0: must be a whole number from 1 to 10¹⁸"),
        (Or("auto", COUNT), "many", "name = 'many': must be auto or a whole number from 1 to 9"),
        (Or(None, COUNT), 0, f"name = 0: {A_COUNT}"),
    ],
)
def test_a_value_that_is_not_of_the_kind_has_a_message(kind: Kind, value: Any, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        kind.check("name", value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((COUNT, value) for value in (True, 1.0, "1", None, [1], np.array([1, 2]))),
        *((FRACTION, value) for value in (True, "1", None, [1], 1j, np.array([0, 1]))),
        *((Switch(), value) for value in (0, 1, "true", None)),
        *((COUNTS, value) for value in (1, "12", None)),
        (Or("auto", COUNT), 1.5),
        (Or(None, COUNT), "auto"),
    ],
)
def test_a_value_of_another_type_is_a_type_error(kind: Kind, value: Any) -> None:
    with pytest.raises(FieldTypeError, match=r"^name = .*: must be "):
        kind.check("name", value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (COUNT, "0x3", 3),
        (COUNT, "1_0", 10),
        (COUNT, "3 4", "3 4"),
        (COUNT, "1\nother = 2", "1\nother = 2"),
        (FRACTION, "1e-3", 0.001),
        (FRACTION, ".5", 0.5),
        (FRACTION, "half", "half"),
        (MODES, "manual", "manual"),
        (MODES, '"manual"', "manual"),
        (MODES, "3", "3"),
        (Or("auto", COUNT), "auto", "auto"),
        (Or(None, FRACTION), ".5", 0.5),
    ],
)
def test_a_text_is_read_as_toml_unless_the_kind_is_text(kind: Kind, text: str, value: Any) -> None:
    assert kind.read(text) == value


# --- fields of a dataclass


@dataclasses.dataclass(frozen=True)
class Range:
    low: float = setting(FRACTION, default=0)
    high: float | None = setting(Or(None, FRACTION), default=None)
    unchecked: object = None

    relations: ClassVar[tuple[str, ...]] = ("low <= high",)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class NarrowRange(Range):
    middle: float = setting(FRACTION, default=0.5)

    relations = ("middle < high", "middle > low")


def test_the_fields_of_a_dataclass_are_checked_and_normalised() -> None:
    made = Range(0, 1, [])
    assert repr(made) == "Range(low=0.0, high=1.0, unchecked=[])"
    assert repr(Range()) == "Range(low=0.0, high=None, unchecked=None)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Range(low=2), "low = 2: must be a number from 0 to 1", id="a field"),
        pytest.param(lambda: Range(0.5, 0.25), "low = 0.5: must be at most high = 0.25", id="two fields"),
        pytest.param(lambda: NarrowRange(0.5, 0.25), "low = 0.5: must be at most high = 0.25", id="of the base class"),
        pytest.param(lambda: NarrowRange(0, 0.5), "middle = 0.5: must be below high = 0.5", id="below"),
        pytest.param(lambda: NarrowRange(0.5), "middle = 0.5: must be above low = 0.5", id="above"),
    ],
)
def test_a_wrong_field_or_relation_has_a_message(make: Callable[[], object], message: str) -> None:
    with pytest.raises(FieldValueError) as caught:
        make()
    assert str(caught.value) == message


def test_the_nearest_name_is_suggested() -> None:
    assert nearest("epoch", ["epochs", "seed"]) == "epochs"
    assert nearest("qqqq", ["epochs", "seed"]) is None
    assert nearest("qqqq", ["epochs"], cutoff=0) == "epochs"
    assert did_you_mean("epoch", ["epochs"], "see --help", "training.{}") == "did you mean training.epochs?"
    assert did_you_mean("qqqq", ["epochs"], "see --help") == "see --help"
    assert nearest("epochs", ["training.epochs", "training.seed"]) == "training.epochs"
    assert did_you_mean("--gpu", ["--device", "--gap"], "see --help") == "did you mean --device gpu?"
    assert did_you_mean("--gpu", ["--threads"], "see --help") == "see --help"


# --- one message for all places


def of_file(key: str, value: str, folder: Path) -> str:
    path = folder / "mine.toml"
    path.write_text(document({key: value}), encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        load_config(path)
    (problem,) = caught.value.problems
    return problem.removeprefix(f"{path}: {key} = {value}: ")


def of_set(key: str, value: str, folder: Path) -> str:
    with pytest.raises(RequestError) as caught:
        load_config(overrides=[Override.from_assignment(f"{key}={value}")])
    (problem,) = caught.value.problems
    return problem.removeprefix(f"--set {key}={value}: ")


def of_flag(command: str, value: str, folder: Path) -> str:
    *others, flag = command.split()
    (problem,) = refused(*others, f"{flag}={value}")
    return problem.removeprefix(f"{flag} {value}: ")


def of_argument(make: Callable[[Any], object]) -> Callable[[str, str, Path], str]:
    def sentence(name: str, value: str, folder: Path) -> str:
        with pytest.raises(FieldError) as caught:
            make(float(value))
        return str(caught.value).removeprefix(f"{name} = {value}: ")

    return sentence


def of_optimizer(name: str, value: str, folder: Path) -> str:
    (problem,) = optimizer_problems({name: float(value)})
    return str(problem).removeprefix(f"{name} = {value}: ")


Place = tuple[Callable[[str, str, Path], str], str]
"""A function that returns the message at a place, and the name of the value there."""

PLACES: list[tuple[str, str, list[Place]]] = [
    (
        "-1.5",
        "must be a number > 0 in the range of float32",
        [
            (of_file, "training.learning_rate"),
            (of_file, "optimizer.clip_gradient"),
            (of_set, "training.learning_rate"),
            (of_set, "optimizer.clip_gradient"),
            (of_flag, "train --learning-rate"),
            (of_flag, "find-lr --start-lr"),
            (of_argument(lambda value: SweepConfig(start_lr=value)), "start_lr"),
            (of_optimizer, "clip_gradient"),
        ],
    ),
    (
        "-1.5",
        "must be a number ≥ 0 in the range of float32",
        [
            (of_file, "schedule.warmup_begin_lr"),
            (of_file, "optimizer.wd"),
            (of_set, "schedule.warmup_begin_lr"),
            (of_argument(lambda value: Constant(value)), "base_lr"),
            (of_argument(lambda value: Poly(max_update=9, final_lr=value)), "final_lr"),
            (of_optimizer, "wd"),
        ],
    ),
    (
        "1.5",
        "must be a whole number from 1 to 10¹⁸",
        [
            (of_argument(lambda value: Factor(step=value)), "step"),
            (of_argument(lambda value: Noam(model_size=value, warmup_steps=9)), "model_size"),
        ],
    ),
    (
        "1.5",
        "must be a whole number from 0 to 2147483647",
        [(of_file, "training.seed"), (of_set, "training.seed"), (of_flag, "train --seed")],
    ),
    (
        "1.5",
        "must be true or false",
        [
            (of_argument(lambda value: Poly(max_update=9, cycle=value)), "cycle"),
            (of_optimizer, "lazy_update"),
            (of_set, "optimizer.lazy_update"),
        ],
    ),
]


@pytest.mark.parametrize(("value", "sentence", "places"), PLACES, ids=[sentence for _, sentence, _ in PLACES])
def test_the_same_wrong_value_has_the_same_message_everywhere(
    value: str, sentence: str, places: list[Place], tmp_path: Path
) -> None:
    for ask, name in places:
        assert ask(name, value, tmp_path) == sentence, name


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        pytest.param(
            "launch --workers x --servers 2000 --port 0 -- train --seed -1",
            [
                "--workers x: must be a whole number from 1 to 1024",
                "--servers 2000: must be a whole number from 1 to 1024",
                "--port 0: must be a whole number from 1 to 65535",
                "--seed -1: must be a whole number from 0 to 2147483647",
            ],
            id="launch",
        ),
        pytest.param("demo run --port 1e3", ["--port 1e3: must be a whole number from 0 to 65535"], id="demo"),
        pytest.param(
            "compare --jobs many --seeds 0,x,-1 --epochs 0",
            [
                "--seeds 0,x,-1: 'x' must be a whole number from 0 to 2147483647",
                "--seeds 0,x,-1: '-1' must be a whole number from 0 to 2147483647",
                "--jobs many: must be auto or a whole number from 1 to 999",
                "--epochs 0: must be a whole number from 1 to 1000000",
            ],
            id="compare",
        ),
        pytest.param(
            "find-lr --start-lr nan --iterations 19 --epoch 3 --seed x",
            [
                "--epoch: there is no such flag; see mnist-trainer find-lr --help",
                "--start-lr nan: must be a number > 0 in the range of float32",
                "--iterations 19: must be a whole number from 20 to 10¹⁸",
                "--seed x: must be a whole number from 0 to 2147483647",
            ],
            id="find-lr",
        ),
        pytest.param("find-lr --end-lr 1e-7", ["--end-lr 1e-07: must be above --start-lr 1e-06"], id="a relation"),
        pytest.param(
            "find-lr --start-lr 1 --end-lr 0.5 --batch-size 0",
            ["--batch-size 0: must be a whole number from 1 to 60000", "--end-lr 0.5: must be above --start-lr 1.0"],
            id="a relation and a wrong key",
        ),
        pytest.param(
            "launch --workers x -- trian",
            [
                "--workers x: must be a whole number from 1 to 1024",
                "launch starts only train, not 'trian'; write mnist-trainer launch --workers 2 -- train …",
            ],
            id="launch",
        ),
        pytest.param(
            "schedules plot Cosin --output x.gif",
            [
                "there is no schedule 'Cosin'; did you mean Cosine? (for a configuration, write configs/NAME.toml)",
                "--output x.gif: the name must end in .png, .pdf, .svg, .jpg",
            ],
            id="schedules plot",
        ),
        pytest.param("export run --format onx", ["--format onx: must be one of onnx, mxnet; did you mean onnx?"], id="export"),
        pytest.param(
            "schedules show Cosine --iterations 1,-2",
            ["--iterations 1,-2: '-2' must be a whole number from 0 to 10¹⁸"],
            id="schedules",
        ),
    ],
)
def test_the_values_of_all_flags_are_checked_together(command: str, problem: list[str]) -> None:
    assert refused(*command.split()) == problem
