"""Schedules that react to results: their reductions, their state, and its restoration from a checkpoint."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import schedule_strategies as draw
from command_line import assert_names
from conftest import Snapshot
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mnist_trainer.fields import FieldError
from mnist_trainer.schedules import (
    CURVES,
    AnySchedule,
    Clip,
    Constant,
    Cosine,
    Greedy,
    Linear,
    MultiFactor,
    NewBob,
    Plateau,
    Product,
    Scale,
    Schedule,
    Sequential,
    Warmup,
)
from mnist_trainer.schedules.reacting import Reacting

ONE = Constant(1)
losses = st.floats(0, 3) | st.sampled_from([1.0, 0.5, 0.25, math.nan, math.inf])
accuracies = st.floats(0, 1) | st.sampled_from([0.5, 0.9, math.nan])
results = st.lists(st.tuples(losses, accuracies), max_size=12)


def after(schedule: Any, losses: Sequence[float]) -> Any:
    """Return the schedule after epochs with these losses."""
    for loss in losses:
        schedule = schedule.observe(loss=loss, accuracy=0.5)
    return schedule


@pytest.mark.parametrize(
    ("options", "losses", "reductions"),
    [
        pytest.param({"patience": 0}, [1, 1], [0, 1], id="the first epoch without an improvement"),
        pytest.param({"patience": 2}, [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 2], id="more than patience in a row"),
        pytest.param({"patience": 1}, [3, 3, 2, 2, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1], id="an improvement resets the count"),
        pytest.param({"patience": 0}, [1, 2, 1.5, 0.9, 0.9], [0, 1, 2, 2, 3], id="compared with the best, not with the last"),
        pytest.param({"patience": 0, "threshold": 0.1}, [1, 0.95, 0.89, 0.81], [0, 1, 1, 2], id="better by a tenth"),
        pytest.param(
            {"patience": 0, "threshold": 0.1, "threshold_mode": "abs"}, [1, 0.95, 0.89, 0.81], [0, 1, 1, 2], id="better by 0.1"
        ),
        pytest.param(
            {"patience": 0, "threshold": 0.5, "threshold_mode": "abs"}, [10, 9.4, 9], [0, 0, 1], id="better by a half"
        ),
        pytest.param({"patience": 0, "threshold": 0.5}, [10, 9.4, 4.9], [0, 1, 1], id="better by half of it"),
        pytest.param({"patience": 0, "threshold": 0}, [1, 1, 0.999999], [0, 1, 1], id="better by anything"),
        pytest.param({"patience": 0, "cooldown": 2}, [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 2, 2], id="two epochs of cool-down"),
        pytest.param({"patience": 1, "cooldown": 1}, [1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 2], id="cool-down, then patience"),
        pytest.param({"patience": 0}, [math.nan, 1, math.nan, 0.5], [1, 1, 2, 2], id="nan is not an improvement"),
        pytest.param({"patience": 0}, [math.inf, 3, 2, math.inf, 1], [1, 1, 1, 2, 2], id="neither is an infinite loss"),
    ],
)
def test_it_reduces_once_results_stop_improving(options: dict[str, Any], losses: list[float], reductions: list[int]) -> None:
    schedule = Plateau(ONE, factor=0.5, **options)
    counted = []
    for loss in losses:
        schedule = schedule.observe(loss=loss, accuracy=0.5)
        counted.append(schedule.reductions)
        assert schedule(1) == 0.5**schedule.reductions
    assert counted == reductions


@pytest.mark.parametrize(
    ("options", "accuracies", "reductions"),
    [
        pytest.param({"patience": 0}, [0.5, 0.6, 0.6, 0.5, 0.7], [0, 0, 1, 2, 2], id="more is better"),
        pytest.param({"patience": 0, "threshold": 0.1}, [0.5, 0.54, 0.56, 0.61], [0, 1, 1, 2], id="by a tenth of it"),
        pytest.param(
            {"patience": 0, "threshold": 0.1, "threshold_mode": "abs"}, [0.5, 0.59, 0.61, 0.7], [0, 1, 1, 2], id="by 0.1"
        ),
        pytest.param({"patience": 0}, [0.0, 0.0, math.nan, 0.1], [0, 1, 2, 2], id="from an accuracy of 0"),
    ],
)
def test_an_accuracy_improves_upwards(options: dict[str, Any], accuracies: list[float], reductions: list[int]) -> None:
    schedule = Plateau(ONE, metric="accuracy", **options)
    counted: list[int] = []
    for accuracy in accuracies:
        schedule = schedule.observe(loss=1 / (1 + len(counted)), accuracy=accuracy)
        counted.append(schedule.reductions)
    assert counted == reductions


class StatedRule:
    """The rule of the docstring, computed in each epoch from all results so far, without state between epochs."""

    def __init__(self, patience: int, threshold: float, cooldown: int) -> None:
        self.patience, self.threshold, self.cooldown = patience, threshold, cooldown

    def reductions(self, losses: list[float]) -> list[int]:
        reduced_at: list[int] = []
        for epoch in range(len(losses)):
            last_improvement = max(
                (past_epoch for past_epoch in range(epoch + 1) if self.improves(losses[: past_epoch + 1])), default=-1
            )
            since = max([last_improvement, *(reduction + self.cooldown for reduction in reduced_at)])
            if epoch - since > self.patience:
                reduced_at.append(epoch)
        return [sum(reduction <= epoch for reduction in reduced_at) for epoch in range(len(losses))]

    def improves(self, losses: list[float]) -> bool:
        best = math.inf
        improved = False
        for loss in losses:
            improved = best == math.inf > loss or loss < best - self.threshold
            best = loss if improved else best
        return improved


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 3),
    threshold=st.sampled_from([0, 1, 2]),
    drawn=st.lists(st.integers(0, 9).map(float), min_size=1, max_size=25),
)
def test_it_counts_by_the_rule_of_the_docstring(patience: int, cooldown: int, threshold: int, drawn: list[float]) -> None:
    schedule = Plateau(ONE, patience=patience, cooldown=cooldown, threshold=threshold, threshold_mode="abs")
    counted = [after(schedule, drawn[: epoch + 1]).reductions for epoch in range(len(drawn))]
    assert counted == StatedRule(patience, threshold, cooldown).reductions(drawn)


def test_only_its_own_metric_counts() -> None:
    by_loss, by_accuracy = Plateau(ONE, patience=0), Plateau(ONE, patience=0, metric="accuracy")
    assert by_loss.observe(1, 0.5).observe(0.5, 0.1).reductions == 0
    assert by_accuracy.observe(1, 0.5).observe(0.5, 0.1).reductions == 1


def test_a_reduced_rate_stays_above_min_lr_and_below_the_curve() -> None:
    line = Linear(max_update=10, base_lr=1)
    reduced = after(Plateau(line, factor=0.1, patience=0, min_lr=0.3), [1, 1, 1])
    assert reduced.reductions == 2
    assert reduced.rates(0, 11) == [max(rate * 0.1**2, min(0.3, rate)) for rate in line.rates(0, 11)]
    assert all(rate <= whole for rate, whole in zip(reduced.rates(0, 11), line.rates(0, 11), strict=True))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(schedule=draw.schedules_of(Plateau), seen=results)
def test_results_never_raise_the_rate_above_the_curve(schedule: Any, seen: list[tuple[float, float]]) -> None:
    assume("Greedy" not in repr(schedule))  # it may raise its rate, also within a Plateau
    asked = (0, 1, 10, 1000)
    before = [schedule(iteration) for iteration in asked]
    for loss, accuracy in seen:
        schedule = schedule.observe(loss, accuracy)
        now = [schedule(iteration) for iteration in asked]
        assert all(0 <= rate <= earlier for rate, earlier in zip(now, before, strict=True))
        before = now


def test_a_reduction_by_no_more_than_eps_is_left_out_as_in_pytorch() -> None:
    schedule = after(Plateau(ONE, factor=0.1, patience=0, eps=0.05), [1, 1, 1, 1])
    assert schedule.reductions == 2  # from 1 to 0.1 and 0.01; the next would be one by 0.009
    assert after(Plateau(ONE, factor=0.1, patience=0), [1, 1, 1, 1]).reductions == 3
    assert after(Plateau(ONE, factor=0.1, patience=0, min_lr=0.96, eps=0.05), [1, 1, 1]).reductions == 0
    assert after(Plateau(Warmup(ONE, 5), factor=0.1, patience=0, eps=1e-8), [1, 1, 1]).reductions == 2


# --- NewBob and Greedy


@pytest.mark.parametrize(
    ("options", "losses", "reductions"),
    [
        pytest.param({}, [10, 2, 2.5], [0, 0, 1], id="worse"),
        pytest.param({}, [1, 0.998, 0.9955], [0, 1, 1], id="by less than a quarter per cent"),
        pytest.param({}, [1, 2, 1.5, 1.4], [0, 1, 1, 1], id="compared with the last, not with the best"),
        pytest.param({"patience": 1}, [1, 1, 0.5, 0.5, 0.5], [0, 0, 0, 1, 1], id="tolerated, but not in a row"),
        pytest.param({}, [0, 0, 0], [0, 1, 2], id="from a loss of 0"),
        pytest.param({}, [1, math.nan, 0.5, math.inf], [0, 1, 1, 2], id="nan and infinity"),
    ],
)
def test_newbob_reduces_after_a_small_improvement(options: dict[str, Any], losses: list[float], reductions: list[int]) -> None:
    counted = [after(NewBob(ONE, **options), losses[: epoch + 1]).reductions for epoch in range(len(losses))]
    assert counted == reductions
    assert after(NewBob(ONE, **options), losses)(1) == 0.5 ** reductions[-1]


def test_newbob_by_accuracy() -> None:
    schedule = NewBob(ONE, metric="accuracy", factor=0.1)
    for accuracy in (0.0, 0.5, 0.6, 0.6, 0.7):
        schedule = schedule.observe(1.0, accuracy)
    assert schedule.reductions == 1


def test_greedy_raises_and_lowers() -> None:
    schedule = Greedy(base_lr=0.1, factor=0.5, patience=0, max_lr=0.3, min_lr=0.05)
    rates = [after(schedule, [3, 2, 1, 1, 1, 1, 0.5][: epoch + 1])(7) for epoch in range(7)]
    assert rates == [0.2, 0.3, 0.3, 0.15, 0.075, 0.05, 0.1]


def test_greedy_ignores_results_after_a_change() -> None:
    schedule = Greedy(base_lr=0.1, factor=0.5, patience=0, warmup=2, cooldown=1)
    rates = [after(schedule, [3, 2, 1, 5, 5, 5][: epoch + 1])(7) for epoch in range(6)]
    assert rates == [0.2, 0.2, 0.2, 0.1, 0.1, 0.05]


def test_greedy_begins_anew_after_a_long_time_at_its_lowest_rate() -> None:
    schedule = Greedy(base_lr=0.1, factor=0.5, patience=0, min_lr=0.04, reset_start=3)
    rates = [after(schedule, [1, 1, 1, 1, 1, 1, 9][: epoch + 1])(7) for epoch in range(7)]
    assert rates == [0.2, 0.1, 0.05, 0.04, 0.04, 0.1, 0.2]


# --- state


def test_observe_returns_a_new_schedule_and_keeps_the_old_one() -> None:
    schedule = Plateau(ONE, factor=0.5, patience=0)
    printed, rates = repr(schedule), schedule.rates(1, 5)
    observed = after(schedule, [1, 2])
    assert (repr(schedule), schedule.rates(1, 5)) == (printed, rates)
    assert schedule == Plateau(ONE, factor=0.5, patience=0)
    assert observed == Plateau(ONE, factor=0.5, patience=0, reductions=1, best=1.0)
    assert observed != schedule


@pytest.mark.parametrize("cls", [cls for cls in CURVES if not issubclass(cls, Reacting)], ids=lambda cls: cls.__name__)
def test_curves_that_do_not_react_stay_the_same(cls: type[Schedule]) -> None:
    schedule = cls(**cls.example)
    assert not schedule.reacts
    assert schedule.observe(loss=1.0, accuracy=0.5) is schedule
    assert schedule.state() == {}
    assert schedule.with_state({}) is schedule
    with pytest.raises(ValueError, match="reductions"):
        schedule.with_state({"reductions": 1})


REACTING: dict[str, Schedule] = {
    "alone": Plateau(ONE, factor=0.5, patience=0),
    "in a warm-up": Warmup(Plateau(ONE, factor=0.5, patience=0), warmup_steps=5),
    "second in a sequence": Sequential([ONE, Plateau(ONE, factor=0.5, patience=0)], [5]),
    "eleven factors": Product([*[ONE] * 9, *[Plateau(ONE, factor=0.5, patience=k, metric="loss") for k in (0, 1)]]),
    "a product in a product": Product([Plateau(ONE, patience=0), Product([Plateau(ONE, factor=0.5, patience=1), ONE])]),
    "in a plateau": Plateau(Plateau(ONE, factor=0.5, patience=1), factor=0.1, patience=0),
    "NewBob": NewBob(Plateau(ONE, factor=0.5, patience=1)),
    "greedy": Product([Cosine(max_update=50, base_lr=1), Greedy(base_lr=0.5, patience=0)]),
    "three deep": Scale(Clip(Warmup(Plateau(Cosine(max_update=50, base_lr=1), patience=0), warmup_steps=5)), factor=2),
}

reacting = pytest.mark.parametrize("name", REACTING)


@reacting
def test_a_schedule_that_contains_one_that_reacts_does_too(name: str) -> None:
    schedule = REACTING[name]
    assert schedule.reacts
    observed = after(schedule, [1.0, 2.0, 3.0])
    assert type(observed) is type(schedule)
    assert observed(20) < schedule(20)
    assert schedule == REACTING[name]


@reacting
def test_the_state_survives_json_and_restores_the_schedule(name: str) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(seen=results)
    def check(seen: list[tuple[float, float]]) -> None:
        observed: AnySchedule = REACTING[name]
        for loss, accuracy in seen:
            observed = observed.observe(loss, accuracy)
        known = json.loads(json.dumps(observed.state(), allow_nan=False))
        restored = REACTING[name].with_state(known)
        assert restored == observed
        assert repr(restored) == repr(observed)
        assert restored.state() == known
        assert restored.observe(0.1, 0.9) == observed.observe(0.1, 0.9)
        assert observed.with_state(REACTING[name].state()) == REACTING[name]

    check()


@pytest.mark.parametrize(
    ("schedule", "names"),
    [
        pytest.param(Plateau(ONE), ["best", "reductions", "bad_epochs", "cooldown_left"], id="alone"),
        pytest.param(
            Sequential([ONE, Warmup(Plateau(ONE), warmup_steps=2)], [5]),
            [f"curves[1].curve.{name}" for name in ("best", "reductions", "bad_epochs", "cooldown_left")],
            id="nested",
        ),
    ],
)
def test_the_state_has_the_names_of_the_fields(schedule: Schedule, names: list[str]) -> None:
    assert list(schedule.state()) == names


@pytest.mark.parametrize(
    ("schedule", "known"),
    [
        pytest.param(Plateau(ONE), Warmup(Plateau(ONE), warmup_steps=2).state(), id="of a nested one"),
        pytest.param(Warmup(Plateau(ONE), warmup_steps=2), Plateau(ONE).state(), id="of one that was not nested"),
        pytest.param(Product([Plateau(ONE), ONE]), Product([ONE, Plateau(ONE)]).state(), id="of another in the list"),
        pytest.param(Plateau(ONE), {}, id="of none"),
        pytest.param(Plateau(ONE), {"reductions": 1}, id="a part of it"),
        pytest.param(Plateau(ONE), Plateau(ONE).state() | {"more": 1}, id="more than it"),
        pytest.param(MultiFactor(step=[5]), Plateau(ONE).state(), id="for one without state"),
    ],
)
def test_the_state_of_another_schedule_is_refused(schedule: Schedule, known: dict[str, Any], snapshot: Snapshot) -> None:
    with pytest.raises(ValueError, match="state") as caught:
        schedule.with_state(known)
    assert_names(str(caught.value), "", str(list(schedule.state())), str(list(known)))
    snapshot(str(caught.value))


@pytest.mark.parametrize(
    ("key", "value"),
    [("reductions", -1), ("reductions", 1.5), ("best", math.nan), ("best", math.inf), ("best", "low"), ("bad_epochs", "two")],
)
def test_an_impossible_state_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(FieldError) as caught:
        Plateau(ONE).with_state(Plateau(ONE).state() | {key: value})
    assert caught.value.field == key
    assert_names(str(caught.value), key, repr(value))
