"""Values that the curves refuse: the field that the error names, and its message."""

import math
import pickle  # an error must survive the transfer from another process
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import partial
from typing import Any

import pytest
from command_line import assert_names
from conftest import Snapshot

from mnist_trainer.fields import FieldError, FieldTypeError, FieldValueError, Kind
from mnist_trainer.schedules import (
    CURVES,
    Clip,
    Constant,
    Cooldown,
    Cosine,
    CosineAnnealing,
    Cyclical,
    Exponential,
    ExpRange,
    Factor,
    FlatCosine,
    Greedy,
    Hold,
    InverseSqrt,
    Linear,
    MultiFactor,
    Noam,
    Noise,
    OneCycle,
    OneCycleLR,
    OneCycleMomentum,
    Piecewise,
    PiecewiseLinear,
    Plateau,
    Poly,
    Product,
    Repeat,
    Scale,
    Schedule,
    ScheduleError,
    Sequential,
    Shift,
    Sum,
    Tanh,
    Triangular,
    Triangular2,
    UserSchedule,
    WarmRestarts,
    Warmup,
    WarmupStableDecay,
    check_rates,
)
from mnist_trainer.schedules.schedule import DURATION, fields_in_role

ONE = Constant(1)


def refused(make: Callable[[], object]) -> FieldError:
    with pytest.raises(FieldError) as caught:
        make()
    return caught.value


def untyped(value: object) -> Any:
    """Return a value that mypy accepts anywhere."""
    return value


# --- every field of every curve

EVERY_FIELD = [
    pytest.param(cls, spec.name, id=f"{cls.__name__}.{spec.name}") for cls in CURVES for spec in fields(cls) if spec.init
]

BAD: dict[str, Any] = {
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "-1": -1,
    "-0.5": -0.5,
    "text": "text",
    "True": True,
    "None": None,
    "a list of NaN": [math.nan],
    "a list of text": ["text"],
    "a list of bool": [True, False],
    "a list of nothing": [],
    "a table": {"name": "Constant"},
}

ALLOWED = {
    ("Tanh", "lower", "-1"): "a hyperbolic tangent has negative arguments",
    ("Tanh", "lower", "-0.5"): "a hyperbolic tangent has negative arguments",
    ("Tanh", "upper", "-1"): "a hyperbolic tangent has negative arguments",
    ("Tanh", "upper", "-0.5"): "a hyperbolic tangent has negative arguments",
    **{
        (cls, field, bad): "a loss may be negative"
        for cls, field in (("Plateau", "best"), ("NewBob", "previous"), ("Greedy", "best"))
        for bad in ("-1", "-0.5")
    },
    ("NewBob", "threshold", "-1"): "a result may become worse by this fraction",
    ("NewBob", "threshold", "-0.5"): "a result may become worse by this fraction",
    ("Shift", "by", "-1"): "the curve begins later",
}


@pytest.mark.parametrize(("cls", "field"), EVERY_FIELD)
def test_every_field_refuses_impossible_values_by_name(cls: type[Schedule], field: str) -> None:
    default = next(spec.default for spec in fields(cls) if spec.name == field)
    for bad, value in BAD.items():
        is_allowed = (
            (cls.__name__, field, bad) in ALLOWED
            or (bad == "None" and default is None and not (cls is OneCycle and field == "finish_lr"))
            or (bad == "True" and isinstance(default, bool))
        )
        arguments = cls.example | {field: value}
        if is_allowed:
            assert cls(**arguments)(1) >= 0
        else:
            error = refused(partial(cls, **arguments))
            assert error.field.partition("[")[0] == field, bad
            assert_names(str(error), error.field)


def test_the_list_of_allowed_values_has_only_existing_fields() -> None:
    known = {(cls.__name__, spec.name) for cls in CURVES for spec in fields(cls)}
    assert {(cls, field) for cls, field, _ in ALLOWED} <= known


MAY_BE_ZERO = {
    *((cls, "warmup_steps") for cls in (Factor, MultiFactor, Poly, Cosine, WarmupStableDecay, Warmup)),  # no warm-up
    (WarmupStableDecay, "decay_steps"),  # no decay
    (Cooldown, "cooldown_steps"),  # no cool-down
    (Shift, "by"),  # no shift
    (FlatCosine, "flat_steps"),  # falls from the beginning
    (Cooldown, "start"),  # cools down from the first iteration
    (Noise, "start"),  # noisy before any update too
    (PiecewiseLinear, "knots"),  # the rate before any update
}
ZERO_CONTRADICTS = {(OneCycle, "cooldown_length"): "finish_lr", (Noise, "end"): "start"}
"""Duration whose value 0 contradicts another field of the example → the field that is refused."""

DURATIONS = [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls in CURVES for name in fields_in_role(cls, DURATION)]


@pytest.mark.parametrize(("cls", "field"), DURATIONS)
def test_a_length_of_zero_is_refused_where_it_has_no_meaning(cls: type[Schedule], field: str) -> None:
    zero: Any = (0, *cls.example[field][1:]) if isinstance(cls.example.get(field), tuple) else 0
    arguments = cls.example | {field: zero}
    if (cls, field) in MAY_BE_ZERO:
        assert cls(**arguments)(0) >= 0
    else:
        error = refused(lambda: cls(**arguments))
        assert error.field.partition("[")[0] == ZERO_CONTRADICTS.get((cls, field), field)
        assert_names(str(error), error.field, "0")


@pytest.mark.parametrize(("cls", "field"), [case for case in DURATIONS if case.id != "WarmRestarts.cycle_length"])
def test_a_length_is_a_whole_number(cls: type[Schedule], field: str) -> None:
    fraction: Any = [0.5, 1.5, 2.5][: len(cls.example[field])] if isinstance(cls.example.get(field), tuple) else 2.5
    error = refused(lambda: cls(**(cls.example | {field: fraction})))
    assert error.field.partition("[")[0] == field
    assert_names(str(error), field, "0.5" if isinstance(fraction, list) else "2.5", "whole number")
    assert isinstance(error, TypeError)


RATES = ("base_lr", "final_lr", "min_lr", "max_lr", "start_lr", "finish_lr", "warmup_begin_lr", "stop_factor_lr")


@pytest.mark.parametrize(("cls", "field"), [case for case in EVERY_FIELD if case.values[1] in RATES])
@pytest.mark.parametrize("huge", [1e39, 10**400])
def test_a_rate_beyond_float32_is_refused(cls: type[Schedule], field: str, huge: float) -> None:
    error = refused(lambda: cls(**(cls.example | {field: huge})))
    assert error.field == field


def test_every_field_has_a_kind_and_a_default_or_an_example() -> None:
    for cls in CURVES:
        needed = {spec.name for spec in fields(cls) if spec.default is MISSING}
        assert needed <= set(cls.example) <= {spec.name for spec in fields(cls)}
        assert all(isinstance(spec.metadata["kind"], Kind) for spec in fields(cls))


# --- messages


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        pytest.param(lambda: Constant(-0.1), "base_lr", ("-0.1", "≥ 0"), id="negative rate"),
        pytest.param(lambda: Constant(math.nan), "base_lr", ("nan", "≥ 0"), id="nan"),
        pytest.param(lambda: Constant(math.inf), "base_lr", ("inf", "≥ 0"), id="infinity"),
        pytest.param(lambda: Constant(1e39), "base_lr", ("1e+39", "float32"), id="beyond float32"),
        pytest.param(lambda: Constant(10**400), "base_lr", ("1000000000000", "≥ 0"), id="beyond float64"),
        pytest.param(lambda: Factor(step=0), "step", ("0", "whole number from 1 "), id="length zero"),
        pytest.param(lambda: Factor(step=-3), "step", ("-3", "whole number from 1 "), id="length negative"),
        pytest.param(lambda: Factor(step=1, factor=1.1), "factor", ("1.1", "0 to 1"), id="factor above 1"),
        pytest.param(lambda: Factor(step=1, factor=-0.1), "factor", ("-0.1", "0 to 1"), id="factor below 0"),
        pytest.param(lambda: Exponential(step=1, factor=-0.1), "factor", ("-0.1", "≥ 0"), id="rates below 0"),
        pytest.param(
            lambda: ExpRange(0, max_lr=1, cycle_length=9, factor=1.1), "factor", ("1.1", "0 to 1"), id="growing range"
        ),
        pytest.param(lambda: MultiFactor(step=[]), "step", ("[]", "one or more"), id="no steps"),
        pytest.param(lambda: MultiFactor(step=[5, 5]), "step", ("[5, 5]", "increasing order"), id="equal steps"),
        pytest.param(lambda: MultiFactor(step=[7, 4]), "step", ("[7, 4]", "increasing order"), id="unsorted steps"),
        pytest.param(lambda: MultiFactor(step=[0, 4]), "step[0]", ("0", "whole number from 1 "), id="step at zero"),
        pytest.param(
            lambda: Piecewise([7, 4], values=[1, 2, 3]), "boundaries", ("[7, 4]", "increasing order"), id="unsorted boundaries"
        ),
        pytest.param(
            lambda: Piecewise([4, 4], values=[1, 2, 3]), "boundaries", ("[4, 4]", "increasing order"), id="equal boundaries"
        ),
        pytest.param(lambda: Piecewise([], values=[1]), "boundaries", ("[]", "one or more"), id="no boundaries"),
        pytest.param(lambda: Piecewise([4], values=[1]), "values", ("[1.0]", "2", "boundaries"), id="value too few"),
        pytest.param(
            lambda: Piecewise([4], values=[1, 2, 3]), "values", ("[1.0, 2.0, 3.0]", "boundaries"), id="value too many"
        ),
        pytest.param(lambda: Piecewise([4], values=[1, -2]), "values[1]", ("-2", "≥ 0"), id="negative value"),
        pytest.param(lambda: PiecewiseLinear([4, 4], values=[1, 2]), "knots", ("[4, 4]", "increasing order"), id="equal knots"),
        pytest.param(lambda: PiecewiseLinear([-1], values=[1]), "knots[0]", ("-1", "whole number from 0 "), id="knot before 0"),
        pytest.param(lambda: PiecewiseLinear([], values=[]), "knots", ("[]", "one or more"), id="no knots"),
        pytest.param(lambda: PiecewiseLinear([0, 4], values=[1]), "values", ("[1.0]", "2", "knot"), id="knot without a value"),
        pytest.param(lambda: Poly(max_update=0), "max_update", ("0", "whole number from 1 "), id="poly of no length"),
        pytest.param(lambda: Poly(max_update=5, pwr=-1), "pwr", ("-1", "≥ 0"), id="negative power"),
        pytest.param(
            lambda: Poly(max_update=5, warmup_steps=5),
            "warmup_steps",
            ("5", "max_update"),
            id="all warm-up, poly",
        ),
        pytest.param(lambda: Cosine(max_update=5, warmup_steps=5), "warmup_steps", ("5", "max_update"), id="all warm-up"),
        pytest.param(lambda: Cosine(max_update=5, warmup_steps=9), "warmup_steps", ("9", "max_update", "5"), id="more warm-up"),
        pytest.param(
            lambda: Cosine(max_update=5, base_lr=0.1, warmup_begin_lr=0.2),
            "warmup_begin_lr",
            ("0.2", "base_lr", "0.1"),
            id="warm-up from above",
        ),
        pytest.param(
            lambda: Cosine(max_update=5, warmup_mode=untyped("cubic")),
            "warmup_mode",
            ("'cubic'", "linear, constant"),
            id="unknown built-in warm-up",
        ),
        pytest.param(lambda: Cosine(max_update=5, k_decay=0), "k_decay", ("0", "> 0"), id="k_decay zero"),
        pytest.param(
            lambda: CosineAnnealing(2, max_lr=1, cycle_length=3), "min_lr", ("2.0", "max_lr", "1.0"), id="annealing upwards"
        ),
        pytest.param(
            lambda: Triangular(2, max_lr=1, cycle_length=3), "min_lr", ("2.0", "max_lr", "1.0"), id="triangle upside down"
        ),
        pytest.param(
            lambda: Triangular2(2, max_lr=1, cycle_length=3), "min_lr", ("2.0", "max_lr", "1.0"), id="triangles upside down"
        ),
        pytest.param(lambda: ExpRange(2, max_lr=1, cycle_length=3), "min_lr", ("2.0", "max_lr", "1.0"), id="range upside down"),
        pytest.param(
            lambda: WarmRestarts(2, max_lr=1, cycle_length=3), "min_lr", ("2.0", "max_lr", "1.0"), id="restarts upside down"
        ),
        pytest.param(
            lambda: Triangular(1, max_lr=2, cycle_length=3, inc_fraction=1.5), "inc_fraction", ("1.5", "0 to 1"), id="rise > 1"
        ),
        pytest.param(
            lambda: WarmRestarts(0, max_lr=1, cycle_length=3, t_mult=0.5), "t_mult", ("0.5", "1 to 1000000"), id="ever shorter"
        ),
        pytest.param(
            lambda: WarmRestarts(0, max_lr=1, cycle_length=3, cycle_limit=0),
            "cycle_limit",
            ("0", "whole number from 1 "),
            id="no cycle at all",
        ),
        pytest.param(lambda: Tanh(max_update=5, lower=3, upper=3), "lower", ("3.0", "upper"), id="no part of the tangent"),
        pytest.param(lambda: InverseSqrt(timescale=0), "timescale", ("0", "whole number from 1 "), id="timescale zero"),
        pytest.param(
            lambda: Noam(model_size=0, warmup_steps=1), "model_size", ("0", "whole number from 1 "), id="model of no size"
        ),
        pytest.param(
            lambda: Noam(model_size=1, warmup_steps=0), "warmup_steps", ("0", "whole number from 1 "), id="noam, no warm-up"
        ),
        pytest.param(lambda: Cyclical(ONE), "curve", ("Constant(base_lr=1.0)", "cycle_length", "Repeat"), id="no cycle"),
        pytest.param(
            lambda: Cyclical(Cyclical(CosineAnnealing(0, max_lr=1, cycle_length=5))),
            "curve",
            ("Cyclical(curve=CosineAnnealing(", "Repeat"),
            id="cycles of cycles",
        ),
        pytest.param(
            lambda: Cyclical(CosineAnnealing(0, max_lr=1, cycle_length=5), cycle_length=6),
            "cycle_length",
            ("6", "5"),
            id="two cycle lengths",
        ),
        pytest.param(
            lambda: OneCycle(2, max_lr=1, cycle_length=9), "start_lr", ("2.0", "max_lr", "1.0"), id="one cycle upside down"
        ),
        pytest.param(
            lambda: OneCycle(1, max_lr=2, cycle_length=9, cooldown_length=3),
            "finish_lr",
            ("missing", "cooldown_length", "3"),
            id="cool-down to nowhere",
        ),
        pytest.param(
            lambda: OneCycle(1, max_lr=2, cycle_length=9, cooldown_length=0, finish_lr=0.1),
            "finish_lr",
            ("0.1", "cooldown_length"),
            id="no cool-down",
        ),
        pytest.param(
            lambda: OneCycleLR(max_lr=1, max_update=9, pct_start=0.6, three_phase=True),
            "pct_start",
            ("0.6", "three_phase", "at most 0.5"),
            id="three phases that do not fit",
        ),
        pytest.param(
            lambda: OneCycleLR(max_lr=1, max_update=9, anneal_strategy=untyped("cosine")),
            "anneal_strategy",
            ("'cosine'", "cos, linear"),
            id="unknown annealing",
        ),
        pytest.param(
            lambda: OneCycleLR(max_lr=1, max_update=9, div_factor=0),
            "div_factor",
            ("0", "> 0"),
            id="division by 0",
        ),
        pytest.param(
            lambda: OneCycleLR(max_lr=1, max_update=9, div_factor=1e-39),
            "div_factor",
            ("1e-39", "float32"),
            id="tiny divisor",
        ),
        pytest.param(
            lambda: OneCycleLR(max_lr=1, max_update=9, final_div_factor=1e-40),
            "final_div_factor",
            ("1e-40", "float32"),
            id="tiny final divisor",
        ),
        pytest.param(lambda: Linear(max_update=10**19), "max_update", ("10000000000000000000", "10¹⁸"), id="far too long"),
        pytest.param(
            lambda: Linear(max_update=10**5000),
            "max_update",
            ("thousands of digits", "10¹⁸"),
            id="beyond print",
        ),
        pytest.param(
            lambda: Noise(Constant(1), seed=1, noise_std=1e7), "noise_std", ("10000000.0", "≤ 1000000"), id="flat noise"
        ),
        pytest.param(
            lambda: OneCycleMomentum(max_update=9, base_momentum=0.96),
            "base_momentum",
            ("0.96", "max_momentum", "0.95"),
            id="momentum upside down",
        ),
        pytest.param(
            lambda: OneCycleMomentum(max_update=9, max_momentum=1.5),
            "max_momentum",
            ("1.5", "0 to 1"),
            id="momentum",
        ),
        pytest.param(
            lambda: WarmupStableDecay(max_update=9, warmup_steps=5, decay_steps=5),
            "decay_steps",
            ("5", "warmup_steps", "max_update", "9"),
            id="more than the budget",
        ),
        pytest.param(
            lambda: WarmupStableDecay(max_update=9, warmup_steps=1, decay_steps=1, decay=untyped("exp")),
            "decay",
            ("'exp'", "linear, cosine, 1-sqrt", "exponential"),
            id="unknown decay",
        ),
        pytest.param(lambda: FlatCosine(max_update=9, flat_steps=9), "flat_steps", ("9", "max_update"), id="all flat"),
        pytest.param(lambda: Warmup(ONE, warmup_steps=-1), "warmup_steps", ("-1", "whole number from 0 "), id="before warm-up"),
        pytest.param(
            lambda: Warmup(ONE, 5, warmup_mode="1-exp", warmup_end_lr=0.1),
            "warmup_end_lr",
            ("0.1", "1-exp"),
            id="end of an endless warm-up",
        ),
        pytest.param(
            lambda: Cooldown(ONE, start=5, cooldown_steps=2, decay="cosine", decay_power=2),
            "decay_power",
            ("2.0", "power"),
            id="exponent of another decay",
        ),
        pytest.param(
            lambda: OneCycleLR(max_lr=1, max_update=9, final_lr=0, final_div_factor=10),
            "final_lr",
            ("0.0", "final_div_factor"),
            id="two last rates",
        ),
        pytest.param(lambda: Sum([ONE, ONE], weights=[1]), "weights", ("[1.0]", "length 2"), id="weight too few"),
        pytest.param(lambda: Hold(ONE, 0), "length", ("0", "whole number from 1 "), id="period of no length"),
        pytest.param(
            lambda: Cyclical(WarmRestarts(0, max_lr=1, cycle_length=2.5)),
            "curve",
            ("2.5", "whole"),
            id="cycle not whole",
        ),
        pytest.param(lambda: Greedy(factor=1), "factor", ("1", "> 0 and < 1"), id="never lower"),
        pytest.param(
            lambda: Plateau(UserSchedule(lambda _: 0.1, "own"), eps=1e-8), "eps", ("1e-08", "highest rate"), id="eps of own"
        ),
        pytest.param(
            lambda: Warmup(ONE, warmup_steps=5, warmup_mode=untyped("cubic")),
            "warmup_mode",
            ("'cubic'", "linear, constant, exponential, cosine"),
            id="unknown warm-up",
        ),
        pytest.param(
            lambda: Warmup(ONE, warmup_steps=5, warmup_mode="exponential"),
            "warmup_begin_lr",
            ("0.0", "exponential"),
            id="exponential from 0",
        ),
        pytest.param(
            lambda: Cooldown(ONE, start=-1, cooldown_steps=5), "start", ("-1", "whole number from 0 "), id="start before 0"
        ),
        pytest.param(
            lambda: Cooldown(ONE, start=5, cooldown_steps=-1),
            "cooldown_steps",
            ("-1", "whole number from 0 "),
            id="cool-down backwards",
        ),
        pytest.param(
            lambda: Sequential([ONE, ONE], [5, 9]),
            "boundaries",
            ("[5, 9]", "length 1", "curves"),
            id="boundary too many",
        ),
        pytest.param(
            lambda: Sequential([ONE, ONE, ONE], [5]), "boundaries", ("[5]", "length 2", "curves"), id="boundary too few"
        ),
        pytest.param(
            lambda: Sequential([ONE, ONE, ONE], [5, 5]), "boundaries", ("[5, 5]", "increasing order"), id="curve of no length"
        ),
        pytest.param(lambda: Sequential([], [5]), "curves", ("[]", "schedule"), id="no curves in a row"),
        pytest.param(lambda: Product([]), "curves", ("[]", "schedule"), id="product of nothing"),
        pytest.param(lambda: Repeat(ONE, length=0), "length", ("0", "whole number from 1 "), id="repeats nothing"),
        pytest.param(lambda: Clip(ONE, min_lr=2, max_lr=1), "min_lr", ("2.0", "max_lr", "1.0"), id="bounds crossed"),
        pytest.param(lambda: Scale(ONE, factor=-1), "factor", ("-1", "≥ 0"), id="negative factor"),
        pytest.param(lambda: Noise(ONE, seed=-1), "seed", ("-1", "whole number from 0 "), id="negative seed"),
        pytest.param(lambda: Noise(ONE, seed=1, noise_pct=0), "noise_pct", ("0", "> 0"), id="no noise"),
        pytest.param(lambda: Noise(ONE, seed=1, noise_pct=1.1), "noise_pct", ("1.1", "≤ 1"), id="noise to below 0"),
        pytest.param(lambda: Noise(ONE, seed=1, noise_std=0), "noise_std", ("0", "> 0"), id="no deviation"),
        pytest.param(lambda: Noise(ONE, seed=1, start=6, end=5), "start", ("6", "end", "5"), id="noise of no length"),
        pytest.param(lambda: Plateau(ONE, factor=1.5), "factor", ("1.5", "0 to 1"), id="raises on plateaus"),
        pytest.param(lambda: Plateau(ONE, metric=untyped("f1")), "metric", ("'f1'", "loss, accuracy"), id="unknown metric"),
        pytest.param(
            lambda: Plateau(ONE, threshold_mode=untyped("both")), "threshold_mode", ("'both'", "rel, abs"), id="unknown mode"
        ),
        pytest.param(lambda: ONE(-1), "iteration", ("-1", "whole number from 0 "), id="iteration below 0"),
    ],
)
def test_bad_values_are_refused_by_name(
    make: Callable[[], object], field: str, words: tuple[str, ...], snapshot: Snapshot
) -> None:
    error = refused(make)
    assert isinstance(error, FieldValueError)
    assert isinstance(error, ValueError)
    assert error.field == field
    assert_names(str(error), field, *words)
    assert error.sentence in str(error)
    snapshot(str(error))


def loosely(cls: type[Schedule], *positional: Any, **named: Any) -> Callable[[], Schedule]:
    """Return a function that makes a curve from values of any type."""
    return lambda: cls(*positional, **named)


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        pytest.param(loosely(Constant, "0.1"), "base_lr", ("'0.1'", "number"), id="text for a rate"),
        pytest.param(loosely(Constant, True), "base_lr", ("True", "number"), id="bool for a rate"),
        pytest.param(loosely(Factor, step=2.5), "step", ("2.5", "whole number"), id="fraction for a length"),
        pytest.param(loosely(MultiFactor, step=5), "step", ("5", "list", "whole number"), id="number for a list"),
        pytest.param(loosely(MultiFactor, step="57"), "step", ("'57'", "list", "whole number"), id="text for a list"),
        pytest.param(loosely(Piecewise, [4], values=0.1), "values", ("0.1", "list", "number"), id="number for the values"),
        pytest.param(loosely(Poly, max_update=5, cycle=1), "cycle", ("1", "true", "false"), id="1 for a switch"),
        pytest.param(loosely(Warmup, ONE, 5, overlay="no"), "overlay", ("'no'", "true", "false"), id="text for a switch"),
        pytest.param(loosely(Noise, ONE, seed=1.5), "seed", ("1.5", "whole number"), id="fraction for a seed"),
        pytest.param(loosely(Warmup, 0.1, 5), "curve", ("0.1", "schedule", "UserSchedule"), id="rate for a curve"),
        pytest.param(loosely(Warmup, math.sqrt, 5), "curve", ("sqrt", "schedule", "UserSchedule"), id="function for a curve"),
        pytest.param(loosely(Warmup, Cosine, 5), "curve", ("Cosine", "schedule", "UserSchedule"), id="class for a curve"),
        pytest.param(loosely(Product, ONE), "curves", ("Constant(base_lr=1.0)", "list", "schedule"), id="curve for a list"),
        pytest.param(loosely(Product, "Cosine"), "curves", ("'Cosine'", "list", "schedule"), id="text for curves"),
        pytest.param(loosely(Product, [ONE, 0.1]), "curves[1]", ("0.1", "schedule", "UserSchedule"), id="rate among curves"),
        pytest.param(
            loosely(Sequential, [0.1, ONE], [5]), "curves[0]", ("0.1", "schedule", "UserSchedule"), id="rate in a row"
        ),
        pytest.param(loosely(Plateau, ONE, best="low"), "best", ("'low'", "finite number"), id="text for the best"),
        pytest.param(partial(ONE, untyped(1.5)), "iteration", ("1.5", "whole number"), id="fraction of an iteration"),
        pytest.param(partial(ONE, True), "iteration", ("True", "whole number"), id="bool for an iteration"),
    ],
)
def test_wrong_types_are_refused_by_name(
    make: Callable[[], object], field: str, words: tuple[str, ...], snapshot: Snapshot
) -> None:
    error = refused(make)
    assert isinstance(error, FieldTypeError)
    assert isinstance(error, TypeError)
    assert error.field == field
    assert_names(str(error), field, *words)
    snapshot(str(error))


def test_a_refusal_can_be_sent_to_another_process() -> None:
    error = refused(lambda: Constant(-1))
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), twin.field, twin.sentence, str(twin)) == (type(error), "base_lr", error.sentence, str(error))


# --- errors that appear only at an iteration


@pytest.mark.parametrize(
    ("schedule", "iteration", "rate"),
    [
        pytest.param(Product([Constant(1e30), Constant(1e30)]), 1, "1e+60", id="product"),
        pytest.param(Sum([Constant(3e38), Constant(3e38)]), 1, "6e+38", id="sum"),
        pytest.param(Exponential(step=1, factor=2, base_lr=1), 200, "1.6", id="growth"),
        pytest.param(Exponential(step=1, factor=2, base_lr=1), 5000, "inf", id="growth beyond float64"),
        pytest.param(Product([*[Constant(1e38)] * 9, Constant(0)]), 1, "nan", id="infinity times 0"),
        pytest.param(Scale(Linear(max_update=10, base_lr=0, final_lr=1e38), factor=10), 4, "4e+38", id="scale"),
        pytest.param(Noise(Constant(3.4e38), seed=1), 1, "4.65", id="noise"),
    ],
)
def test_a_rate_that_leaves_float32_is_an_error_at_its_iteration(schedule: Schedule, iteration: int, rate: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        schedule(iteration)
    assert_names(str(caught.value), repr(schedule), rate, f"iteration {iteration}", "float32")


def test_rates_that_may_leave_float32_are_checked_before_a_run_at_any_depth() -> None:
    rising = Scale(Linear(max_update=100, base_lr=0, final_lr=1e38), factor=10)
    within = Warmup(Sequential([ONE, Clip(rising)], [5]), warmup_steps=5)
    check_rates(within, range(1, 41))
    with pytest.raises(ScheduleError, match="iteration 45"):
        check_rates(within, range(1, 51))


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(Warmup(Sequential([ONE, Cosine(max_update=10**9)], [5]), warmup_steps=5), id="curves"),
        pytest.param(Noise(Scale(Product([ONE, ONE]), factor=1e9), seed=1), id="arithmetic"),
    ],
)
def test_rates_with_a_bound_are_not_checked_before_a_run(schedule: Schedule) -> None:
    iterations = iter(range(1, 10**12))
    check_rates(schedule, iterations, below=1e10)
    assert next(iterations) == 1


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(Scale(Scale(Constant(1), factor=1e20), factor=1e20), id="the outer"),
        pytest.param(Product([*[Constant(1e38)] * 9, Constant(0)]), id="one of several"),
        pytest.param(Clip(Exponential(step=1, factor=1e300, base_lr=1)), id="growth"),
        pytest.param(
            Sequential([Constant(1), Scale(Exponential(step=1, factor=2, base_lr=1), factor=0)], [5]), id="inf times 0"
        ),
        pytest.param(
            Sequential([ONE, Sum([Exponential(step=1, factor=2, base_lr=1), ONE], weights=[0, 1])], [5]), id="a weight of 0"
        ),
        pytest.param(
            Sequential([ONE, Product([Exponential(step=1, factor=2, base_lr=1), Constant(0)])], [5]), id="product with 0"
        ),
    ],
)
def test_rates_without_a_bound_are_checked_before_a_run(schedule: Schedule) -> None:
    with pytest.raises(ScheduleError, match="float32"):
        check_rates(schedule, [1, 2000])


def test_a_negative_rate_beside_a_factor_of_0_is_found_before_a_run() -> None:
    below_0 = Sum([Constant(0.1), Constant(0.2)], weights=[1, -1])
    with pytest.raises(ScheduleError, match="below 0"):
        check_rates(Sequential([Product([below_0, Exponential(step=1, factor=2, base_lr=1)]), ONE], [5]), range(1, 10))


def test_a_rate_within_a_schedule_may_leave_float32() -> None:
    schedule = Clip(Exponential(step=1, factor=2, base_lr=1), max_lr=4)
    check_rates(schedule, range(1, 2000))
    assert schedule.rates(1, 3) == [2, 4, 4]
    assert schedule(10**6) == 4
    assert Scale(Scale(Constant(1e20), factor=1e20), factor=1e-20)(1) == pytest.approx(1e20)


def test_a_sum_below_0_is_an_error_but_its_rounding_is_not() -> None:
    falling = Sum([Linear(max_update=10, base_lr=1), Constant(0.25)], weights=[1, -1])
    check_rates(falling, range(1, 8))
    with pytest.raises(ScheduleError) as caught:
        check_rates(falling, range(1, 11))
    assert_names(str(caught.value), repr(falling), "iteration 8", "below 0")
    assert Sum([Constant(0.3), Constant(0.1), Constant(0.2)], weights=[1, -1, -1])(1) == 0
    assert Clip(falling, min_lr=0.01).rates(7, 10) == pytest.approx([0.05, 0.01, 0.01, 0.01])
    assert Sum([Constant(0.1), Linear(max_update=10, base_lr=1)], weights=[1, -1])(0) == 0  # no update uses this rate


def test_the_rates_of_a_nested_user_function_are_checked() -> None:
    broken = UserSchedule(lambda iteration: 0.5 if iteration < 5 else -0.5, "mine:broken")
    within = Warmup(Clip(broken, min_lr=0.1), warmup_steps=10)
    check_rates(within, range(1, 15))
    with pytest.raises(ScheduleError) as caught:
        check_rates(within, range(1, 16))
    assert_names(str(caught.value), "schedule mine:broken", "-0.5", "iteration 5", "≥ 0")
