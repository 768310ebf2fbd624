"""Settings of schedules within schedules: nested tables, their base rates, and the keys in error messages."""

import copy
from typing import Any

import pytest
from conftest import Snapshot
from settings_checks import TUTORIAL, Problems, around, assert_problems, row

from mnist_trainer.schedules import (
    Constant,
    Cosine,
    CosineAnnealing,
    Cyclical,
    Factor,
    Linear,
    Noise,
    Plateau,
    Product,
    Repeat,
    Sequential,
    Triangular,
    Warmup,
    build_schedule,
)

CONSTANT = {"name": "Constant"}
COSINE = {"name": "Cosine", "max_update_epochs": 9}
WARMED = {"name": "Warmup", "warmup_epochs": 1, "curve": COSINE}


@pytest.mark.parametrize(
    ("settings", "learning_rate", "schedule"),
    [
        pytest.param(WARMED, 0.1, Warmup(Cosine(max_update=8442, base_lr=0.1), warmup_steps=938), id="a curve"),
        pytest.param(
            {
                "name": "Sequential",
                "boundaries_epochs": [2, 5],
                "curves": [
                    {"name": "Constant"},
                    {"name": "Linear", "max_update_fraction": 0.3},
                    {"name": "Constant", "base_lr": 0},
                ],
            },
            0.1,
            Sequential([Constant(0.1), Linear(max_update=2814, base_lr=0.1), Constant(0)], boundaries=[1876, 4690]),
            id="a list of curves, one with its own rate",
        ),
        pytest.param(
            {"name": "Sequential", "boundaries_fraction": [0.5], "curves": [{"name": "Constant"}, WARMED]},
            0.2,
            Sequential([Constant(0.2), Warmup(Cosine(max_update=8442, base_lr=0.2), warmup_steps=938)], boundaries=[4690]),
            id="fractions and epochs are of the run, however deep",
        ),
        pytest.param(
            {"name": "Warmup", "warmup_steps": 10, "curve": {"name": "Repeat", "length_fraction": 0.1, "curve": COSINE}},
            0.2,
            Warmup(Repeat(Cosine(max_update=8442, base_lr=0.2), length=938), warmup_steps=10),
            id="three deep",
        ),
        pytest.param(
            {"name": "Product", "curves": [{"name": "Linear", "max_update": 9}, {"name": "Factor", "step": 3, "base_lr": 1}]},
            0.2,
            Product([Linear(max_update=9, base_lr=0.2), Factor(step=3, base_lr=1)]),
            id="the run's rate for one, its own for the other",
        ),
        pytest.param(
            {
                "name": "warmup",
                "warmup_steps": 5,
                "curve": {"name": "cosine_annealing", "min_lr": 0, "max_lr": 1, "cycle_length": 9},
            },
            None,
            Warmup(CosineAnnealing(0, max_lr=1, cycle_length=9), warmup_steps=5),
            id="nothing within starts from a learning rate",
        ),
        pytest.param(
            {"name": "Warmup", "warmup_steps": 5, "curve": {"name": "Constant", "base_lr": 0.3}},
            None,
            Warmup(Constant(0.3), warmup_steps=5),
            id="its own rate and none of the run",
        ),
        pytest.param(
            {"name": "Plateau", "patience": 3, "curve": {"name": "Constant"}},
            0.1,
            Plateau(Constant(0.1), patience=3),
            id="plateau",
        ),
        pytest.param(
            {"name": "Cyclical", "curve": {"name": "Triangular", "min_lr": 0, "max_lr": 1, "cycle_length_epochs": 2}},
            None,
            Cyclical(Triangular(0, max_lr=1, cycle_length=1876)),
            id="cyclical takes the length from its curve",
        ),
        pytest.param(
            {"name": "Noise", "seed": 1, "end_fraction": 0.5, "curve": {"name": "Constant"}},
            1,
            Noise(Constant(1), seed=1, end=4690),
            id="a duration that may be left out",
        ),
    ],
)
def test_nested_tables_become_nested_schedules(settings: dict[str, Any], learning_rate: float | None, schedule: object) -> None:
    assert build_schedule(settings, TUTORIAL, learning_rate) == schedule


def test_building_does_not_change_the_settings() -> None:
    settings = {"name": "Sequential", "boundaries_epochs": [2], "curves": [{"name": "Constant"}, dict(WARMED)]}
    before = copy.deepcopy(settings)
    build_schedule(settings, TUTORIAL, 0.1)
    assert settings == before


@pytest.mark.parametrize(
    ("settings", "learning_rate", "problems"),
    [
        pytest.param({"name": "Warmup", "warmup_steps": 5}, None, [("curve", "missing", "Warmup")], id="no curve"),
        pytest.param({"name": "Product"}, None, [("curves", "missing", "Product")], id="no curves"),
        pytest.param(around("Cosine"), None, [("curve", "'Cosine'", "table", "name")], id="a name alone"),
        pytest.param(around([CONSTANT]), None, [("curve", "[{'name': 'Constant'}]", "table", "name")], id="a list for a curve"),
        pytest.param(
            {"name": "Product", "curves": CONSTANT}, None, [("curves", "{'name': 'Constant'}", "list of tables")], id="no list"
        ),
        pytest.param(
            {"name": "Product", "curves": "Cosine"},
            None,
            [("curves", "'Cosine'", "list of tables")],
            id="text for a list",
        ),
        pytest.param({"name": "Product", "curves": []}, None, [("curves", "[]", "schedule")], id="an empty list"),
        pytest.param(row(CONSTANT, 3), 0.1, [("curves[1]", "3", "table", "name")], id="a number among tables"),
        pytest.param(around({}), None, [("curve.name", "missing", "`mnist-trainer schedules list`")], id="no name within"),
        pytest.param(
            around({"name": "Cosin", "max_update": 3}),
            None,
            [("curve.name", "'Cosin'", "did you mean Cosine?")],
            id="typing error in a name",
        ),
        pytest.param(
            row(CONSTANT, {"name": "Facto", "step": 3}),
            0.1,
            [("curves[1].name", "'Facto'", "did you mean Factor?")],
            id="in a list",
        ),
        pytest.param(
            around({"name": "Factor", "step": 3, "fctor": 1}),
            1,
            [("curve.fctor", "Factor", "did you mean factor?")],
            id="typing error",
        ),
        pytest.param(
            around({"name": "Factor", "step": 3, "step_epochs": 1}),
            1,
            [("curve.step_epochs", " step ", "one")],
            id="two units",
        ),
        pytest.param(
            around({"name": "Cosine", "max_update": 9, "warmup_epochs": 2}),
            1,
            [("curve.warmup_epochs", "1876", "max_update", "9")],
            id="the key as written",
        ),
        pytest.param(
            row(CONSTANT, {"name": "Factor", "step": 0}),
            1,
            [("curves[1].step", "0", "from 1 ")],
            id="bad value in a list",
        ),
        pytest.param(
            around({"name": "Factor", "step_fraction": 1.5}),
            1,
            [("curve.step_fraction", "1.5", "from 0 to 1")],
            id="more than the run",
        ),
        pytest.param(
            around(row(CONSTANT, around({"name": "Factor"}))),
            1,
            [("curve.curves[1].curve.step", "missing", "Factor", "step_epochs", "step_fraction")],
            id="three deep",
        ),
        pytest.param(
            around({"name": "Constant", "base_lr": -1}),
            None,
            [("curve.base_lr", "-1", "≥ 0")],
            id="bad rate of its own",
        ),
        pytest.param(around(CONSTANT), None, [("learning_rate", "missing", "Constant")], id="no rate for it"),
        pytest.param(
            around(CONSTANT),
            -1.0,
            [("learning_rate", "-1.0", "≥ 0")],
            id="bad rate of the run",
        ),
        pytest.param(
            around({"name": "Constant", "base_lr": 0.3}),
            0.1,
            [("learning_rate", "leave it out")],
            id="rate that nothing reads, since the curve has its own",
        ),
        pytest.param(
            around({"name": "Triangular", "min_lr": 0, "max_lr": 1, "cycle_length": 9}),
            0.1,
            [("learning_rate", "leave it out")],
            id="rate that nothing reads, since no curve starts from one",
        ),
        pytest.param(
            around(CONSTANT, base_lr=0.1), 0.1, [("base_lr", "Warmup", "warmup_mode")], id="base_lr of a curve without one"
        ),
        pytest.param(
            {"name": "Constant", "base_lr": 0.1},
            None,
            [("base_lr", "training.learning_rate"), ("learning_rate", "missing", "Constant")],
            id="rate of its own at the top",
        ),
        pytest.param(
            row(
                {"name": "Factor", "step": 0},
                {"name": "Cosine", "max_updat": 9},
                {"name": "Linear", "max_update": "x"},
                CONSTANT,
            ),
            1,
            [
                ("curves[0].step", "0", "from 1 "),
                ("curves[1].max_updat", "Cosine", "did you mean max_update?"),
                ("curves[2].max_update", "'x'", "whole number"),
            ],
            id="several parts with problems",
        ),
        pytest.param(
            around({"name": "Factor"}, overlap=True, warmup_epochs=1),
            None,
            [
                ("overlap", "Warmup", "did you mean overlay?"),
                ("warmup_epochs", "warmup_steps", "one"),
                ("curve.step", "missing", "Factor"),
                ("learning_rate", "missing", "Factor"),
            ],
            id="inside and outside",
        ),
        pytest.param(
            around({"name": "Cosine", "max_update": 9, "warmup_begin_lr": 2, "k_decay": 0, "warmup_mode": "cubic"}),
            1,
            [
                ("curve.warmup_begin_lr", "2.0", "base_lr", "1.0"),
                ("curve.k_decay", "0", "> 0"),
                ("curve.warmup_mode", "'cubic'", "linear, constant"),
            ],
            id="several fields of one part",
        ),
        *(
            pytest.param(
                {"name": "Plateau", "curve": CONSTANT, name: 1},
                0.1,
                [(name, "Plateau", "cooldown")],
                id=f"state {name}",
            )
            for name in ("reductions", "best", "bad_epochs", "cooldown_left")
        ),
    ],
)
def test_mistakes_in_nested_tables_are_named(
    settings: dict[str, Any], learning_rate: float | None, problems: Problems, snapshot: Snapshot
) -> None:
    snapshot(assert_problems(settings, learning_rate, problems))


def test_mistakes_at_every_depth_are_named_together() -> None:
    assert_problems(
        {
            "name": "Warmup",
            "warmup_steps": -1,
            "warmup_modus": "linear",
            "curve": row({"name": "Cosine", "max_update": 0}, {"name": "Poly", "max_update": 5, "pwr": -1, "warmup_steps": 9}),
        },
        0.1,
        [
            ("warmup_modus", "Warmup", "did you mean warmup_mode?"),
            ("warmup_steps", "-1", "from 0 "),
            ("curve.curves[0].max_update", "0", "from 1 "),
            ("curve.curves[1].pwr", "-1", "≥ 0"),
            ("curve.curves[1].warmup_steps", "9", "max_update", "5"),
        ],
    )


def test_a_curve_with_a_mistake_is_reported_once() -> None:
    assert_problems(
        {
            "name": "Cyclical",
            "cycle_magnitude_decay": 2,
            "curve": {"name": "Triangular", "min_lr": 2, "max_lr": 1, "cycle_length": 9},
        },
        None,
        [("curve.min_lr", "2.0", "max_lr", "1.0"), ("cycle_magnitude_decay", "2", "from 0 to 1")],
    )
