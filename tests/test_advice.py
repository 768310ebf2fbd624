"""Advice before and after runs that cannot learn: schedules that do not fit, and networks that guess."""

import re
from pathlib import Path

import pytest
from command_line import Outcome, assert_names, refused, run

from mnist_trainer.console import Console
from mnist_trainer.schedules import Constant
from mnist_trainer.training import callbacks
from mnist_trainer.training.records import IterationRecord, LoopState, Scores, remark_on_learning

SMALL = ("--train-images", "192", "--test-images", "100", "--epochs", "2")  # 3 iterations per epoch
COMMANDS = ("train", pytest.param("compare", marks=pytest.mark.process), "train --dry-run")
TOO_SHORT = ("--schedule", "Cosine(max_update=2)", "--epochs", "3")
TOO_LONG = ("--schedule", "MultiFactor(step=[2, 500], factor=0.5)")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_mostly_at_rate_zero_is_refused(command: str, here: Path) -> None:
    (sentence,) = refused(*command.split(), *SMALL, *TOO_SHORT)
    begin = "tutorial: " if command == "compare" else ""
    assert_names(sentence, f"{begin}schedule.max_update = 2: ", "0 from iteration", "--set training.allow_zero_rate=true")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_at_rate_zero_is_trained_if_asked_for(command: str, here: Path) -> None:
    code, _, err = run(*command.split(), *SMALL, *TOO_SHORT, "--set", "training.allow_zero_rate=true")
    assert code == 0
    assert "schedule.max_update = 2: the learning rate is 0 from iteration" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_schedule_that_does_not_fit_is_reported_before_the_training(command: str, here: Path) -> None:
    code, _, err = run(*command.split(), *SMALL, *TOO_LONG)
    assert code == 0
    (line,) = (line for line in err.splitlines() if "schedule.step = [2, 500]: " in line)
    assert "does not drop after iteration 500" in line


@pytest.mark.process
def test_a_comparison_names_the_configuration_that_does_not_fit(tmp_path: Path) -> None:
    for name, step in (("fits", 2), ("late", 500)):
        schedule = f'[training]\nlearning_rate = 0.1\n[schedule]\nname = "MultiFactor"\nstep = [1, {step}]\nfactor = 0.5\n'
        (tmp_path / f"{name}.toml").write_text(schedule, encoding="utf-8")
    files = [tmp_path / "fits.toml", tmp_path / "late.toml"]
    code, _, err = run("compare", *files, *SMALL, "--output", tmp_path / "compared")
    assert code == 0
    assert [line.partition(": ")[0] for line in err.splitlines() if "schedule.step" in line] == [str(files[1])]


# --- remarks on the results


def summary(accuracy: float, loss: float) -> dict[str, float]:
    return {"test_accuracy": accuracy, "test_loss": loss, "iterations": 9380}


def test_a_network_that_guesses_gets_a_remark() -> None:
    assert remark_on_learning(summary(0.9, 0.3)) is None
    assert remark_on_learning(summary(0.2, 2.3)) is None
    guessing = remark_on_learning(summary(0.087, 2.3))
    assert guessing
    assert_names(guessing, "the test accuracy 8.70%", "guessing", "9,380 iterations")
    of_three = remark_on_learning(summary(0.4, 0.9), classes=3)
    assert of_three
    assert_names(of_three, "the test accuracy 40.00% is hardly better", "guessing (33%)")
    assert remark_on_learning(summary(0.42, 0.9), classes=3) is None
    absurd = remark_on_learning(summary(0.6, 2.4))
    assert absurd
    assert_names(absurd, "the test loss 2.4 ", "guessing (2.303)")


@pytest.fixture(scope="module")
def guessed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Train with a rate at which the network learns nothing."""
    folder = tmp_path_factory.mktemp("guessed") / "run 1"
    return folder, run("train", *SMALL, "--lr", "1e-9", "--output", folder)


def test_a_run_that_guesses_ends_with_the_command_that_searches_for_a_rate(guessed: tuple[Path, Outcome]) -> None:
    folder, (code, out, err) = guessed
    assert code == 0
    assert "guessing" not in out
    (line,) = (line for line in err.splitlines() if "guessing" in line)
    assert_names(line, "The test ", f"mnist-trainer find-lr --config '{folder}/config.toml'")


def test_a_comparison_names_the_runs_that_guess(guessed: tuple[Path, Outcome], tmp_path: Path) -> None:
    learned = tmp_path / "learned"
    assert run("train", *SMALL, "--train-images", "1920", "--batch-size", "10", "--epochs", "2", "--output", learned).code == 0
    code, out, _ = run("compare", guessed[0], learned, "--output", tmp_path / "compared")
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines() if "guessing" in line] == ["run 1, optimizer, seed 1"]


# --- lines of a run


def test_a_rate_without_meaningful_decimals_is_printed_with_an_exponent(capsys: pytest.CaptureFixture[str]) -> None:
    lines = callbacks.TutorialLines(Console(), Constant(0.1), 10)
    state = LoopState()
    state.begin_epoch(1, 10)
    state.batch = 1
    for rate in (0.03, 1e-5, 9e-6, 0.0, 1e20):
        lines.on_iterations([IterationRecord(1, rate, Scores(2.5, 3, 10))], state)
    printed = [line.rpartition("LR ")[2] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["0.030000", "0.000010", "9e-06", "0.000000", "1e+20"]


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_without_a_terminal_lines_replace_the_bar(
    quiet: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_SECONDS_BETWEEN_LINES", 0.0)
    code, _, err = run("train", *SMALL, *quiet, "--output", tmp_path / "run")
    assert code == 0
    lines = [line for line in err.splitlines() if ", iteration " in line]
    assert "%|" not in err
    if quiet:
        assert lines == []
    else:
        assert [line.partition(", loss")[0] for line in lines] == [
            f"Epoch {epoch}/2, iteration {iteration} of 6" for iteration, epoch in enumerate((1, 1, 1, 2, 2, 2), start=1)
        ]
        assert all(re.search(r"loss \d\.\d{4}, accuracy \d+\.\d%, \d\d:\d\d left$", line) for line in lines), lines


def test_a_line_appears_after_half_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 10_000, 7))  # each look at the clock is 7 s later
    monkeypatch.setattr("mnist_trainer.training.callbacks.time.monotonic", lambda: float(next(seconds)))
    bar = callbacks.ProgressBar(1)
    state = LoopState()
    state.begin_epoch(1, 100)
    bar.on_epoch_begin(state)
    assert [bar._is_line_due() for _ in range(6)] == [False, False, False, True, True, True]
