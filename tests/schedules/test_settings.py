"""Conversion of settings to schedules and back: units, the learning rate of the run, users' schedules, and errors."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_names
from conftest import Snapshot
from settings_checks import TUTORIAL, Problems, around, assert_error_names, assert_problems, row

from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import (
    CURVES,
    Constant,
    Cosine,
    CosineAnnealing,
    Factor,
    MultiFactor,
    OneCycleMomentum,
    Plateau,
    Schedule,
    ScheduleError,
    Sequential,
    SettingsError,
    Triangular,
    UserSchedule,
    Warmup,
    build_hyperparameter,
    build_schedule,
    schedule_settings,
)
from mnist_trainer.schedules.user import check_rates


@pytest.mark.parametrize(
    ("settings", "learning_rate", "schedule"),
    [
        pytest.param(
            {"name": "MultiFactor", "step_epochs": [4, 7, 9], "factor": 0.1},
            0.03,
            MultiFactor(step=[3752, 6566, 8442], factor=0.1, base_lr=0.03),
            id="the tutorial's steps",
        ),
        pytest.param({"name": "Factor", "step": 250}, 1, Factor(step=250, base_lr=1), id="iterations"),
        pytest.param({"name": "Factor", "step_epochs": 0.5}, 1, Factor(step=469, base_lr=1), id="half an epoch"),
        pytest.param({"name": "Factor", "step_epochs": 0.3}, 1, Factor(step=281, base_lr=1), id="rounded to the nearest"),
        pytest.param(
            {"name": "Cosine", "max_update_fraction": 1, "warmup_epochs": 1},
            0.1,
            Cosine(max_update=9380, warmup_steps=938, base_lr=0.1),
            id="the whole run after an epoch of warm-up",
        ),
        pytest.param(
            {"name": "MultiFactor", "step_fraction": [0.5, 0.75]},
            0.1,
            MultiFactor(step=[4690, 7035], base_lr=0.1),
            id="fractions of the run",
        ),
        pytest.param(
            {"name": "CosineAnnealing", "min_lr": 0, "max_lr": 1, "cycle_length_epochs": 2},
            None,
            CosineAnnealing(0, max_lr=1, cycle_length=1876),
            id="no base_lr, no learning rate",
        ),
        pytest.param({"name": "constant"}, 0.1, Constant(0.1), id="small letters"),
        pytest.param({"name": "multi_factor", "step": [3]}, 0.1, MultiFactor(step=[3], base_lr=0.1), id="underscore"),
    ],
)
def test_settings_become_a_schedule(settings: dict[str, Any], learning_rate: float | None, schedule: object) -> None:
    assert build_schedule(settings, TUTORIAL, learning_rate) == schedule


@pytest.mark.parametrize(
    ("schedule", "settings", "learning_rate"),
    [
        pytest.param(Cosine(max_update=9, base_lr=0.1), {"name": "Cosine", "max_update": 9}, 0.1, id="the run's rate"),
        pytest.param(
            Warmup(Cosine(max_update=9, base_lr=0.1), warmup_steps=5),
            {"name": "Warmup", "curve": {"name": "Cosine", "base_lr": 0.1, "max_update": 9}, "warmup_steps": 5},
            None,
            id="a rate within",
        ),
        pytest.param(
            Sequential([Constant(1), Triangular(0, max_lr=1, cycle_length=5)], [3]),
            {
                "name": "Sequential",
                "curves": [
                    {"name": "Constant", "base_lr": 1.0},
                    {"name": "Triangular", "min_lr": 0.0, "max_lr": 1.0, "cycle_length": 5},
                ],
                "boundaries": [3],
            },
            None,
            id="lists, not tuples",
        ),
        pytest.param(
            Plateau(Constant(1), patience=3, reductions=2, best=0.5),
            {"name": "Plateau", "curve": {"name": "Constant", "base_lr": 1.0}, "patience": 3},
            None,
            id="the state from results is not a setting",
        ),
    ],
)
def test_a_schedule_has_its_settings(schedule: Schedule, settings: dict[str, Any], learning_rate: float | None) -> None:
    assert schedule_settings(schedule) == (settings, learning_rate)


def test_a_users_function_has_no_settings() -> None:
    schedule = Warmup(UserSchedule(lambda iteration: 1.0, "mine:one"), warmup_steps=5)
    with pytest.raises(TypeError, match=r"^mine:one\(\) .*settings"):
        schedule_settings(schedule)


@pytest.mark.parametrize(
    ("settings", "learning_rate", "problems"),
    [
        pytest.param({}, 0.1, [("name", "missing", "`mnist-trainer schedules list`", "module:attribute")], id="no name"),
        pytest.param({"name": 3}, 0.1, [("name", "3", "`mnist-trainer schedules list`")], id="number for a name"),
        pytest.param({"name": "Cosin"}, 0.1, [("name", "'Cosin'", "did you mean Cosine?")], id="typing error in the name"),
        pytest.param({"name": "zzz"}, 0.1, [("name", "'zzz'", "`mnist-trainer schedules list`")], id="nothing like it"),
        pytest.param({"name": "Factor", "step": 3, "step_epochs": 1}, 0.1, [("step_epochs", " step ", "one")], id="two units"),
        pytest.param(
            {"name": "Factor", "step": 3, "fctor": 1}, 0.1, [("fctor", "Factor", "did you mean factor?")], id="typing error"
        ),
        pytest.param({"name": "Constant", "step": 3}, 0.1, [("step", "Constant", "none")], id="takes no settings"),
        pytest.param(
            {"name": "Factor"},
            None,
            [("step", "missing", "Factor", "step_epochs", "step_fraction"), ("learning_rate", "missing", "Factor")],
            id="two missing",
        ),
        pytest.param({"name": "Factor", "step": 1, "base_lr": 1}, 0.1, [("base_lr", "training.learning_rate")], id="base_lr"),
        pytest.param(
            {"name": "CosineAnnealing", "min_lr": 0, "max_lr": 1, "cycle_length": 9},
            0.1,
            [("learning_rate", "schedule.max_lr")],
            id="learning rate that nothing reads",
        ),
        pytest.param({"name": "Factor", "step_epochs": "two"}, 0.1, [("step_epochs", "'two'", "from 0 to")], id="text"),
        pytest.param({"name": "Factor", "step_fraction": 1.5}, 0.1, [("step_fraction", "1.5", "from 0 to 1")], id="1.5"),
        pytest.param({"name": "Factor", "step_epochs": float("nan")}, 0.1, [("step_epochs", "nan", "from 0 to")], id="nan"),
        pytest.param(
            {"name": "Factor", "step_epochs": 0}, 0.1, [("step_epochs", "step = 0 ", "from 1 ")], id="no epochs at all"
        ),
        pytest.param(
            {"name": "MultiFactor", "step_epochs": [7, 4]},
            0.1,
            [("step_epochs", "step = [6566, 3752] ", "increasing order")],
            id="unsorted epochs",
        ),
    ],
)
def test_mistakes_are_named(
    settings: dict[str, Any], learning_rate: float | None, problems: Problems, snapshot: Snapshot
) -> None:
    snapshot(assert_problems(settings, learning_rate, problems))


@pytest.mark.parametrize("settings", [None, "Cosine", 3, [{"name": "Constant"}]])
def test_settings_that_are_not_a_table_are_refused(settings: Any, snapshot: Snapshot) -> None:
    snapshot(assert_problems(settings, 0.1, [("", repr(settings), "table", "name")]))


def test_a_warmup_longer_than_the_run_is_a_mistake() -> None:
    assert_problems(
        around({"name": "Constant"}, warmup_steps=9381),
        0.1,
        [("warmup_steps", "9381", "9380")],
    )
    assert build_schedule(around({"name": "Constant"}, warmup_steps=9380), TUTORIAL, 0.1)(9380) == 0.1


@pytest.fixture
def my_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write a user's module into the current folder."""
    import_mxnet()  # as a run does before it imports a user's module, which may import it
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_schedules.py").write_text(
        """
from mxnet.lr_scheduler import FactorScheduler

def sawtooth(iteration, length, base_lr=0.1):
    return base_lr * (1 - (iteration - 1) % length / length)

def constant(iteration):
    return 0.25

def any_keyword(iteration, *args, **settings):
    return settings["height"] / iteration

def broken(iteration):
    return 0.1 if iteration < 5 else float("nan")

def raising(iteration):
    raise ZeroDivisionError("raised on purpose")

class Ramp:
    def __init__(self, rise, warmup_steps):
        self.rise, self.warmup_steps = rise, warmup_steps
    def __call__(self, iteration):
        return self.rise * min(iteration, self.warmup_steps)

class Mute:
    pass

number = 7
""",
        encoding="utf-8",
    )
    yield
    sys.modules.pop("my_schedules", None)  # other tests have modules of this name


@pytest.mark.usefixtures("my_schedules")
@pytest.mark.parametrize(
    ("settings", "learning_rate", "expected"),
    [
        pytest.param({"name": "my_schedules:constant"}, None, [0.25, 0.25, 0.25], id="function"),
        pytest.param({"name": "my_schedules:sawtooth", "length": 4}, 0.2, [0.2, 0.15, 0.1], id="function with base_lr"),
        pytest.param({"name": "my_schedules:sawtooth", "length_epochs": 4 / 938}, 0.2, [0.2, 0.15, 0.1], id="length in epochs"),
        pytest.param({"name": "my_schedules:any_keyword", "height": 6}, None, [6, 3, 2], id="any keyword"),
        pytest.param({"name": "my_schedules:Ramp", "rise": 0.5, "warmup_steps": 2}, None, [0.5, 1.0, 1.0], id="class"),
        pytest.param({"name": "my_schedules:Ramp", "rise": 1, "warmup_epochs": 1}, None, [1, 2, 3], id="class in epochs"),
        pytest.param({"name": "mxnet.lr_scheduler:FactorScheduler", "step": 2, "factor": 0.5}, 1, [1, 1, 0.5], id="MXNet's"),
    ],
)
def test_a_users_own_schedule(settings: dict[str, Any], learning_rate: float | None, expected: list[float]) -> None:
    schedule = build_schedule(settings, TUTORIAL, learning_rate)
    assert isinstance(schedule, UserSchedule)
    assert [schedule(iteration) for iteration in (1, 2, 3)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("my_schedules")
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        pytest.param({"name": "nowhere_at_all:f"}, ("name", "'nowhere_at_all:f'", "ModuleNotFoundError"), id="no module"),
        pytest.param({"name": "my_schedules:f"}, ("name", "'my_schedules'", "'f'"), id="no attribute"),
        pytest.param({"name": "my_schedules:"}, ("name", "'my_schedules:'", "module:attribute"), id="half a name"),
        pytest.param({"name": "my_schedules:number"}, ("name", "'my_schedules:number'", "7", "called"), id="not callable"),
        pytest.param({"name": "my_schedules:Mute"}, ("name", "my_schedules:Mute", "called"), id="instance not callable"),
        pytest.param(
            {"name": "my_schedules:Ramp", "rise": 1}, ("warmup_steps", "missing", "my_schedules:Ramp"), id="argument missing"
        ),
        pytest.param({"name": "my_schedules:constant", "x": 1}, ("x", "my_schedules:constant"), id="argument too many"),
    ],
)
def test_mistakes_in_naming_a_users_schedule(settings: dict[str, Any], problem: tuple[str, ...], snapshot: Snapshot) -> None:
    snapshot(assert_problems(settings, None, [problem]))


@pytest.mark.usefixtures("my_schedules")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("broken", ("nan", "iteration 5", "≥ 0"), id="broken"),
        pytest.param("raising", ("ZeroDivisionError", "iteration 1", "raised on purpose"), id="raising"),
    ],
)
def test_the_rates_of_a_users_schedule_are_checked(name: str, words: tuple[str, ...], snapshot: Snapshot) -> None:
    named = {"name": f"my_schedules:{name}"}
    messages = []
    for settings in (named, around(named)):
        with pytest.raises(ScheduleError) as caught:
            check_rates(build_schedule(settings, TUTORIAL), range(1, 21))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert_names(messages[0], f"schedule my_schedules:{name} ", *words)
    snapshot(messages[0])
    check_rates(build_schedule({"name": "my_schedules:constant"}, TUTORIAL), range(1, 11))


@pytest.mark.usefixtures("my_schedules")
def test_a_users_function_within_a_warmup() -> None:
    own = {"name": "my_schedules:sawtooth", "length_epochs": 4 / 938}
    schedule = build_schedule(around(own, warmup_steps=2), TUTORIAL, 0.2)
    assert schedule.rates(1, 6) == pytest.approx([0.1, 0.2, 0.2, 0.15, 0.1, 0.05])  # it is never called for iteration 0
    assert build_schedule(around(own | {"base_lr": 0.4}, warmup_steps=2), TUTORIAL)(3) == pytest.approx(0.4)
    check_rates(schedule, range(1, 101))


@pytest.mark.usefixtures("my_schedules")
@pytest.mark.parametrize(
    ("own", "learning_rate", "problem"),
    [
        pytest.param({"name": "my_schedules:f"}, None, ("curve.name", "'my_schedules'", "'f'"), id="no attribute"),
        pytest.param(
            {"name": "my_schedules:Ramp", "rise": 1}, None, ("curve.warmup_steps", "missing", "my_schedules:Ramp"), id="missing"
        ),
        pytest.param({"name": "my_schedules:constant", "x": 1}, None, ("curve.x", "my_schedules:constant"), id="too many"),
        pytest.param({"name": "my_schedules:constant"}, 0.1, ("learning_rate", "leave it out"), id="rate unread"),
        pytest.param(
            {"name": "my_schedules:sawtooth", "length": 4},
            None,
            ("learning_rate", "missing", "my_schedules:sawtooth"),
            id="rate missing",
        ),
    ],
)
def test_mistakes_in_naming_a_users_schedule_within(
    own: dict[str, Any], learning_rate: float | None, problem: tuple[str, ...], snapshot: Snapshot
) -> None:
    snapshot(assert_problems(around(own), learning_rate, [problem]))


# --- momentum and weight decay


def test_each_curve_of_a_hyperparameter_has_its_own_base_lr() -> None:
    settings = row({"name": "Constant", "base_lr": 0.9}, {"name": "OneCycleMomentum", "max_update_epochs": 1})
    assert build_hyperparameter(settings, TUTORIAL) == Sequential([Constant(0.9), OneCycleMomentum(max_update=938)], [1])
    assert build_hyperparameter({"name": "Constant", "base_lr": 0.9}, TUTORIAL) == Constant(0.9)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        pytest.param({"name": "Constant"}, ("base_lr", "missing", "Constant"), id="no value"),
        pytest.param(around({"name": "Constant"}), ("curve.base_lr", "missing", "Constant"), id="no value within"),
        pytest.param(
            {"name": "Plateau", "curve": {"name": "Constant", "base_lr": 1}}, ("name", "learning rate", "results"), id="plateau"
        ),
    ],
)
def test_mistakes_in_a_hyperparameters_schedule_are_named(
    settings: dict[str, Any], problem: tuple[str, ...], snapshot: Snapshot
) -> None:
    with pytest.raises(SettingsError) as caught:
        build_hyperparameter(settings, TUTORIAL)
    snapshot(assert_error_names(caught.value, [problem]))


def test_the_example_of_every_curve_makes_a_curve() -> None:
    for cls in CURVES:
        assert cls(**cls.example)(1) > 0


def test_a_misspelled_key_does_not_contradict_another() -> None:
    with pytest.raises(SettingsError) as caught:
        build_schedule({"name": "MultiFactor", "step": [9], "max_update_fraction": 1.0, "warmup_epochs": 0.5}, TUTORIAL, 0.1)
    assert [problem.field for problem in caught.value.problems] == ["max_update_fraction"]
