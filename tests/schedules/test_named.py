"""Schedules from one flag: expressions, which are parsed and not evaluated, and names whose settings the run fills."""

from dataclasses import MISSING, fields
from typing import Any

import pytest

from mnist_trainer.fields import FieldError
from mnist_trainer.schedules import (
    CURVES,
    Cosine,
    CosineAnnealing,
    InverseSqrt,
    Noise,
    OneCycle,
    RunLength,
    Sequential,
    Warmup,
    build_schedule,
)
from mnist_trainer.schedules.named import MAX_DEPTH, MAX_LENGTH, fill_settings, missing_settings, read_schedule
from mnist_trainer.schedules.schedule import CURVE, WHOLE_RUN, Schedule
from mnist_trainer.schedules.schedule import CURVES as CURVES_ROLE
from mnist_trainer.schedules.settings import canonical_settings

RUN = RunLength(iterations_per_epoch=100, epochs=10)


@pytest.mark.parametrize("cls", CURVES, ids=lambda cls: cls.__name__)
def test_the_printed_form_of_every_curve_is_read_back(cls: type[Schedule]) -> None:
    schedule = cls(**cls.example)
    settings = read_schedule(repr(schedule))
    base_lr = settings.pop("base_lr", None)
    long_run = RunLength(1000, 10)  # the examples have a thousand iterations
    assert build_schedule(settings, long_run, base_lr) == schedule


def test_arguments_without_names_have_the_order_of_the_class() -> None:
    settings = read_schedule("Warmup(Cosine(900, final_lr=-0.0), 100, warmup_mode='exponential', warmup_begin_lr=0.001)")
    expected = Warmup(Cosine(max_update=900, base_lr=0.1), 100, warmup_mode="exponential", warmup_begin_lr=0.001)
    assert build_schedule(settings, RUN, 0.1) == expected


def test_arguments_may_have_the_units_of_a_configuration() -> None:
    settings = read_schedule(
        "Sequential([Cosine(max_update_epochs=5), Cosine(max_update_fraction=0.5)], boundaries_epochs=[5])"
    )
    cosine = Cosine(max_update=500, base_lr=0.1)
    assert build_schedule(settings, RUN, 0.1) == Sequential([cosine, cosine], [500])


def test_a_users_schedule_in_an_expression() -> None:
    assert read_schedule("Scale(my.module:Made.of(period=3), 0.5)") == {
        "name": "Scale",
        "curve": {"name": "my.module:Made.of", "period": 3},
        "factor": 0.5,
    }


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Cosine(", "character"),
        ("Cosine(max_update=1 + 2)", "'1 + 2'"),
        ("Cosine(max_update=abs(-1)[0])", "'abs(-1)[0]'"),
        ("__import__('os').system('true')", "__import__"),
        ("(lambda: 1)()", "lambda"),
        ("[Cosine(3)]", "parentheses"),
        ("Cosine(*[1])", "'*[1]'"),
        ("Cosine(**{})", "key=value"),
        ("Cosine(f'{1}')", "f'"),
        ("Cosine(b'1')", "b'1'"),
        ("Cosine(3j)", "3j"),
        ("Cosine(...)", "Ellipsis"),
        ("Cosine(-True)", "must be a number"),
        ("Cosine(max_update=1, max_update=2)", "second time"),
        ("Cosine(1, max_update=2)", "second time"),
        ("Cosine(1, 2, 3, 4)", "'2'"),
        ("Nosie(1)", "did you mean Noise?"),
        ("my:function(3)", "key=value"),
        ("x := Cosine(3)", "character"),
        ("(" * 300 + ")" * 300, "character"),
        ("-" * 1000 + "()", "name of a schedule"),
        ("a" + ".a" * 900 + "()", "name of a schedule"),
        ("Repeat(" * 40 + ")" * 40, f"{MAX_DEPTH} deep"),
        ("Product([" * 20 + "])" * 20, f"{MAX_DEPTH} deep"),
        ("Cosine(" + "9" * 5000 + ")", f"{MAX_LENGTH:,}"),
    ],
)
def test_an_expression_is_not_python(text: str, word: str) -> None:
    with pytest.raises(FieldError) as caught:
        read_schedule(text)
    assert word.replace("Ellipsis", "...") in caught.value.sentence
    assert caught.value.field == "name"


def test_a_text_in_an_expression_gives_no_warning_of_python(recwarn: pytest.WarningsRecorder) -> None:
    assert read_schedule(r"Cosine(warmup_mode='\d')")["warmup_mode"] == r"\d"
    assert not recwarn.list


@pytest.mark.parametrize("cls", [cls for cls in CURVES if not cls.is_momentum], ids=lambda cls: cls.__name__)
def test_a_name_alone_spans_the_run_or_names_what_is_missing(cls: type[Schedule]) -> None:
    filled = fill_settings({"name": cls.__name__}, True, 0.1)
    missing = missing_settings(filled)
    if missing:
        sentences = list(filter(None, missing.values()))
        assert sentences
        assert all(cls.__name__ in sentence and "--s" in sentence for sentence in sentences)
        return
    reads_rate = "max_lr" not in filled
    schedule = build_schedule(filled, RUN, 0.1 if reads_rate else None)
    rates = [schedule(iteration) for iteration in range(1, RUN.total_iterations + 1)]
    if cls is not InverseSqrt:  # which reaches the rate only before the first iteration
        assert max(rates) == pytest.approx(0.1, rel=0.01)
    if WHOLE_RUN in (spec.metadata.get("filling") for spec in fields(cls)):
        assert schedule(RUN.total_iterations) == schedule(RUN.total_iterations + 1) or cls in (CosineAnnealing, OneCycle)
        assert rates[-1] <= 0.01
        assert rates[-2] > rates[-1]  # the curve ends with the run, not before


def test_what_the_user_gives_is_not_filled() -> None:
    assert fill_settings({"name": "Cosine", "max_update_epochs": 3}, True, 0.1) == {"name": "Cosine", "max_update_epochs": 3}
    assert "cycle_limit" not in fill_settings({"name": "WarmRestarts", "cycle_length": 10}, True, 0.1)
    assert "factor" not in fill_settings({"name": "MultiFactor", "step": [3]}, False, 0.1)  # an expression means what it says
    assert fill_settings({"name": "OneCycle", "max_lr": 0.5}, True, None).keys() == {"name", "max_lr", "cycle_length_fraction"}


def test_every_filling_is_of_a_field_that_can_be_set() -> None:
    for cls in CURVES:
        for spec in fields(cls):
            filling = spec.metadata.get("filling")
            if filling and filling.beside:
                assert filling.beside in {other.name for other in fields(cls)}
            if filling and spec.metadata.get("role") in (CURVE, CURVES_ROLE):
                assert spec.default is MISSING
                build_schedule(filling.value, RUN, 0.1)


@pytest.mark.parametrize("name", ["warm-restarts", "WARM_RESTARTS", "warmrestarts", "WarmRestarts"])
def test_settings_get_the_spelling_of_the_package(name: str) -> None:
    settings: dict[str, Any] = {"name": "noise", "seed": 1, "curve": {"name": name}, "unknown": "Linear"}
    canonical = canonical_settings(settings)
    assert canonical == {"name": Noise.__name__, "seed": 1, "curve": {"name": "WarmRestarts"}, "unknown": "Linear"}
    assert canonical_settings({"name": "cosine", "warmup_mode": "LINEAR"}) == {"name": "Cosine", "warmup_mode": "linear"}
    assert canonical_settings({"name": "cosine", "warmup_mode": "Slow"}) == {"name": "Cosine", "warmup_mode": "Slow"}
