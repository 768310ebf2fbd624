"""Schedules that do not fit the length of their run: found with the numbers and the key, and no false alarm."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from programs import REPOSITORY

from mnist_trainer.config.loading import load_config
from mnist_trainer.schedules import CURVES, RunLength, UserSchedule, build_hyperparameter, build_schedule, schedule_settings
from mnist_trainer.schedules.misfits import Misfit, find_misfits

CONFIGS = sorted((REPOSITORY / "configs").glob("*.toml"))
THOUSAND = RunLength(iterations_per_epoch=100, epochs=10)
TUTORIAL = RunLength(iterations_per_epoch=938, epochs=10)
ONE = RunLength(iterations_per_epoch=1, epochs=1)

COSINE = {"name": "Cosine", "max_update_fraction": 1}
RESTARTS = {"name": "WarmRestarts", "min_lr": 0, "max_lr": 0.1}


def assert_has(misfit: Misfit, *parts: str) -> None:
    assert all(part in misfit.sentence for part in parts), misfit.sentence


def misfits_of(settings: dict[str, Any], run_length: RunLength) -> list[Misfit]:
    has_own_rates = not {"max_lr", "values", "curves"}.isdisjoint(settings)
    return find_misfits(build_schedule(settings, run_length, None if has_own_rates else 0.1), settings, run_length)


@pytest.mark.parametrize(
    ("settings", "run_length", "parts"),
    [
        pytest.param(
            {"name": "Cosine", "max_update": 10},
            THOUSAND,
            ("schedule.max_update = 10: ", "is 0 from iteration 10 of 1,000 on", "schedule.max_update_epochs = 10?"),
            id="epochs in place of iterations",
        ),
        pytest.param({"name": "Cosine", "max_update": 1}, ONE, ("is 0 in every iteration",), id="only iteration at rate 0"),
        pytest.param(
            {"name": "Piecewise", "boundaries": [100], "values": [0.1, 0]},
            THOUSAND,
            ("schedule.boundaries = [100]: ", "is 0 from iteration 101 of 1,000 on"),
            id="a value of 0",
        ),
        pytest.param(
            {"name": "Repeat", "length": 10, "curve": {"name": "Cosine", "max_update": 3}},
            RunLength(50_000, 1),
            ("is 0 in 80% of the 50,000 iterations",),
            id="in every cycle",
        ),
    ],
)
def test_a_run_mostly_at_rate_0_is_prevented(settings: dict[str, Any], run_length: RunLength, parts: tuple[str, ...]) -> None:
    [misfit] = misfits_of(settings, run_length)
    assert_has(misfit, *parts)
    assert misfit.prevents_training


@pytest.mark.parametrize(
    ("settings", "run_length", "parts"),
    [
        pytest.param(
            {"name": "Cosine", "max_update_epochs": 9},
            TUTORIAL,
            ("schedule.max_update_epochs = 9: ", "is 0 from iteration 8,442 of 9,380 on"),
            id="last epoch at rate 0",
        ),
        pytest.param(
            {"name": "Factor", "step": 3, "factor": 0.5},
            TUTORIAL,
            ("schedule.step = 3: ", "millionth", "from iteration 61 of 9,380 on", "schedule.step_epochs = 3?"),
            id="nearly 0",
        ),
        pytest.param(
            {"name": "MultiFactor", "step": [4, 7, 9], "factor": 0.1},
            TUTORIAL,
            ("schedule.step = [4, 7, 9]: 938 iterations", "schedule.step_epochs = [4, 7, 9]?"),
            id="steps in epochs",
        ),
        pytest.param(
            {"name": "Warmup", "warmup_steps": 5, "curve": {"name": "Constant"}},
            TUTORIAL,
            ("schedule.warmup_steps = 5: ", "schedule.warmup_epochs = 5?"),
            id="warm-up in epochs",
        ),
        pytest.param(
            {"name": "Product", "curves": [{"name": "Constant", "base_lr": 1}, {**RESTARTS, "cycle_length": 2}]},
            TUTORIAL,
            ("schedule.curves[1].cycle_length = 2: ", "schedule.curves[1].cycle_length_epochs = 2?"),
            id="nested cycle in epochs",
        ),
        pytest.param(
            {"name": "MultiFactor", "step_epochs": [4, 7, 9], "factor": 0.1},
            RunLength(100, 8),
            ("schedule.step_epochs = [4, 7, 9]: the run has 800 iterations", "not drop after iteration 900"),
            id="last drop beyond the run",
        ),
        pytest.param(
            {"name": "MultiFactor", "step_epochs": [4, 7, 9], "factor": 0.1},
            RunLength(100, 2),
            ("200 iterations", "not drop after iterations 400, 700 and 900"),
            id="all drops beyond the run",
        ),
        pytest.param(
            {"name": "MultiFactor", "step": [100, *range(1000, 1007)], "factor": 0.9},
            THOUSAND,
            ("not drop after iterations 1,000, 1,001, 1,002, 1,003, 1,004 and more",),
            id="many drops beyond the run",
        ),
        pytest.param(
            {"name": "MultiFactor", "step_epochs": [500, 700], "factor": 0.1},
            THOUSAND,
            ("not drop after iterations 50,000 and 70,000; did you mean schedule.step = [500, 700]?",),
            id="iterations in place of epochs",
        ),
        pytest.param(
            {"name": "Warmup", "warmup_steps": 300, "curve": {"name": "Cosine", "max_update": 9380}},
            TUTORIAL,
            ("9,380 of the schedule's 9,680", "learning rate 0.000252 instead of 0", ".max_update = 9080 it ends"),
            id="whole-run cosine behind a warm-up",
        ),
        pytest.param(
            {"name": "Warmup", "warmup_epochs": 1, "curve": {"name": "Cosine", "max_update_epochs": 10}},
            TUTORIAL,
            ("schedule.curve.max_update_epochs = 10: ", "0.00245 instead of 0", ".max_update_epochs = 9 it ends"),
            id="whole-run cosine behind a warm-up, in epochs",
        ),
        pytest.param(
            {"name": "Linear", "max_update": 9380},
            RunLength(938, 5),
            ("4,690 of the schedule's 9,380", "rate 0.05 instead of 0", ".max_update = 4690"),
            id="half a schedule",
        ),
        pytest.param(
            {"name": "Cosine", "max_update_epochs": 9380},
            TUTORIAL,
            ("schedule.max_update_epochs = 9380: ", "did you mean schedule.max_update = 9380?"),
            id="iterations in place of epochs, for a cosine",
        ),
        pytest.param(
            {"name": "Triangular", "min_lr": 0.01, "max_lr": 0.1, "cycle_length": 2000},
            THOUSAND,
            ("schedule.cycle_length = 2000: ", "1,000 of the schedule's 2,000", "rate 0.1 instead of 0.01"),
            id="half a cycle",
        ),
        pytest.param(
            {"name": "Triangular2", "min_lr": 0.01, "max_lr": 0.1, "cycle_length": 2000},
            THOUSAND,
            ("schedule.cycle_length = 2000: ", "1,000 of the schedule's 2,000", "rate 0.1 instead of 0.01"),
            id="half of the first cycle",
        ),
        pytest.param(
            {"name": "Factor", "step_epochs": 20, "factor": 0.5},
            THOUSAND,
            ("schedule.step_epochs = 20: ", "1,000 iterations", "does not drop after iteration 2,000"),
            id="first of many drops beyond the run",
        ),
        pytest.param(
            {**RESTARTS, "cycle_length_epochs": 5},
            TUTORIAL,
            ("schedule.cycle_length_epochs = 5: ", "last iteration", "0.1 after"),
            id="restart at the last iteration",
        ),
    ],
)
def test_a_misfit_has_the_key_and_the_numbers(settings: dict[str, Any], run_length: RunLength, parts: tuple[str, ...]) -> None:
    [misfit] = misfits_of(settings, run_length)
    assert_has(misfit, *parts)
    assert not misfit.prevents_training


@pytest.mark.parametrize(
    ("settings", "run_length"),
    [
        pytest.param({"name": "Warmup", "warmup_fraction": 0.03, "curve": {**COSINE, "max_update_fraction": 0.97}}, TUTORIAL),
        pytest.param({**COSINE, "warmup_epochs": 0.5}, RunLength(3, 1), id="three iterations, the last at rate 0"),
        pytest.param({"name": "Factor", "step": 1, "factor": 0.999}, TUTORIAL, id="a drop after each iteration"),
        pytest.param({"name": "Exponential", "step": 10_000, "factor": 0.1}, THOUSAND, id="a slow decay"),
        pytest.param({"name": "InverseSqrt", "timescale": 10_000}, THOUSAND, id="a slow pace"),
        pytest.param({"name": "Warmup", "warmup_steps": 100, "curve": {"name": "Constant"}}, TUTORIAL, id="a short warm-up"),
        pytest.param({"name": "Warmup", "warmup_steps": 500, "curve": COSINE, "overlay": True}, RunLength(938, 1000)),
        pytest.param({"name": "Noise", "seed": 1, "start": 5, "end": 20_000, "curve": COSINE}, TUTORIAL, id="noise"),
        pytest.param({**RESTARTS, "cycle_length_epochs": 5, "cycle_limit": 2}, TUTORIAL, id="two whole cycles"),
        pytest.param({"name": "Poly", "max_update_fraction": 1, "pwr": 2}, TUTORIAL, id="flat at the end"),
    ],
)
def test_an_ordinary_schedule_has_no_misfit(settings: dict[str, Any], run_length: RunLength) -> None:
    assert misfits_of(settings, run_length) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "MultiFactor", "step": [30, 60]}, ("factor of MultiFactor is 1", "0.1")),
        ({"name": "Warmup", "warmup_steps": 20, "curve": {"name": "Factor", "step": 30}}, ("factor of Factor is 1",)),
        ({"name": "Factor", "step": 250, "factor": 0.5}, ("schedule.step = 250", "does not drop after iteration 250")),
        (
            {"name": "Exponential", "step": 250, "factor": 0.5, "staircase": True},
            ("schedule.step = 250", "does not drop after iteration 250"),
        ),
    ],
)
def test_a_drop_without_effect_or_beyond_the_run_is_named(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    (found,) = misfits_of(settings, RunLength(100, 1))
    for word in words:
        assert word in found.sentence


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_bundled_configuration_has_a_misfit(path: Path) -> None:
    config = load_config(path)
    assert config.misfits() == []
    few = replace(config, data=replace(config.data, train_images=6400, validation_images=0))
    assert few.misfits() == [], "with fewer images the lengths in epochs and fractions still fit"


@pytest.mark.parametrize("cls", CURVES.values() if isinstance(CURVES, dict) else CURVES, ids=lambda cls: cls.__name__)
def test_no_example_that_fills_its_run_has_a_misfit(cls: Any) -> None:
    schedule = cls(**cls.example)
    settings, _ = schedule_settings(schedule)
    total = schedule.last_change or 1000
    if cls.__name__ in ("WarmRestarts", "Cyclical"):
        total -= 1  # the next iteration begins another cycle
    for factor in (1, 3):
        longer = RunLength(total, factor) if schedule(10 * total) > 0 else RunLength(total, 1)
        found = find_misfits(schedule, settings, longer)
        assert [misfit.sentence for misfit in found if "new cycle" not in misfit.sentence] == []


def test_momentum_may_be_0_but_not_be_cut_off() -> None:
    settings = {"name": "Linear", "base_lr": 0.9, "max_update": 100}
    [] = find_misfits(build_hyperparameter(settings, THOUSAND), settings, THOUSAND, "momentum")
    settings |= {"max_update": 2000}
    [misfit] = find_misfits(build_hyperparameter(settings, THOUSAND), settings, THOUSAND, "momentum")
    assert_has(misfit, "momentum.max_update = 2000: ", "ends at the momentum 0.45 instead of 0")


class Recorder:
    """A user's schedule that keeps the iterations for which it is called."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.calls: list[int] = []

    def __call__(self, iteration: int) -> float:
        self.calls.append(iteration)
        return self.rate if iteration < 400 else 0.0


def test_a_users_callable_is_called_in_order_and_not_beyond_the_run() -> None:
    recorder = Recorder(0.1)
    [misfit] = find_misfits(UserSchedule(recorder, "own:recorder"), {"name": "own:recorder"}, THOUSAND)
    assert recorder.calls == list(range(1, 1001))
    assert_has(misfit, "is 0 from iteration 400 of 1,000 on")
    assert misfit.prevents_training


def test_a_users_callable_is_not_called_for_a_very_long_run() -> None:
    recorder = Recorder(0.1)
    assert find_misfits(UserSchedule(recorder, "own:recorder"), {"name": "own:recorder"}, RunLength(60_000, 1000)) == []
    assert recorder.calls == []


def test_an_exception_of_a_users_callable_is_left_to_the_other_checks() -> None:
    def broken(iteration: int) -> float:
        raise ZeroDivisionError

    assert find_misfits(UserSchedule(broken, "own:broken"), {"name": "own:broken"}, THOUSAND) == []


def test_the_first_iteration_at_rate_0_is_exact_in_a_long_run() -> None:
    settings = {"name": "Linear", "max_update": 123_456_789}
    [misfit] = misfits_of(settings, RunLength(60_000, 10_000))
    assert_has(misfit, "is 0 from iteration 123,456,789 of 600,000,000 on")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"name": "MultiFactor", "step": list(range(1, 10_000)), "factor": 0.9999}, id="many drops"),
        pytest.param({"name": "Cosine", "max_update": 10**18}, id="far end"),
        pytest.param(
            {
                "name": "Product",
                "curves": [
                    {
                        "name": "Cyclical",
                        "curve": {"name": "CosineAnnealing", "min_lr": 0.1, "max_lr": 1, "cycle_length": 1000},
                        "cycle_length_decay": 1.0001,
                    },
                    {"name": "Cosine", "max_update": 10**18, "base_lr": 1},
                ],
            },
            id="cycles that grow",
        ),
        pytest.param(
            {"name": "WarmRestarts", "min_lr": 0.1, "max_lr": 1, "cycle_length": 9, "t_mult": 2, "cycle_limit": 10**18},
            id="an astronomical number of iterations",
        ),
    ],
)
def test_the_time_is_bounded(settings: dict[str, Any]) -> None:
    began = time.process_time()
    misfits_of(settings, RunLength(60_000, 10))
    assert time.process_time() - began < 5
