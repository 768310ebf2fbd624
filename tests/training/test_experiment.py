"""The program as a whole: it trains, writes a complete run folder, and repeats a run bit for bit."""

import hashlib
import json
import os
import re
import shlex
import signal
from pathlib import Path

import pytest
from command_line import assert_names, run
from conftest import Program
from programs import REPOSITORY, ForkedProgram, run_new_program, wait_for
from small_runs import SMALL as SMALL_CONFIG
from small_runs import changed

from mnist_trainer.data.mnist_files import FILES
from mnist_trainer.model.network import build_cnn, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime.hardware import available_processors
from mnist_trainer.training import experiment

SMALL = ("--train-images", "1280", "--test-images", "500")  # 20 iterations per epoch
TINY = ("--train-images", "64", "--test-images", "10", "--epochs", "1", "--threads", "1", "--quiet")
FOUR_ITERATIONS = ("--epochs", "2", "--train-images", "128", "--test-images", "10", "--threads", "1", "--quiet")
TEN_EPOCHS_OF_RATES = [0.03] * 4 + [0.003] * 3 + [0.0003] * 2 + [0.00003]

RUN_FILES = {
    "config.toml",
    "environment.json",
    "iterations.csv",
    "metrics.csv",
    "metrics.jsonl",
    "model.params",
    "curves.png",
    "checkpoints",
    "summary.json",
}


@pytest.fixture(scope="module")
def both_modes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RunFolder, str]]:
    """Run the tutorial's ten epochs on a part of the data in each scheduler mode; return run folder and stdout."""
    folder = tmp_path_factory.mktemp("modes")
    runs = {}
    for mode in ("optimizer", "manual"):
        command = ["train", *SMALL, "--scheduler-mode", mode, "--output", str(folder / mode)]
        done = run_new_program(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
        runs[mode] = RunFolder(folder / mode), done.stdout
    return runs


@pytest.mark.slow
@pytest.mark.process
def test_both_modes_leave_the_same_rates_losses_and_parameters(both_modes: dict[str, tuple[RunFolder, str]]) -> None:
    (optimizer, _), (manual, _) = both_modes["optimizer"], both_modes["manual"]
    assert (optimizer / "iterations.csv").read_bytes() == (manual / "iterations.csv").read_bytes()
    assert optimizer.read_summary()["parameters_sha256"] == manual.read_summary()["parameters_sha256"]
    rates = [rate for _, rate, _ in optimizer.read_iterations()]
    assert rates[::20] == pytest.approx(TEN_EPOCHS_OF_RATES, rel=1e-12)
    for drop in (80, 140, 180):  # the last iteration before the drop, the first after it
        assert rates[drop] == pytest.approx(rates[drop - 1] / 10)


@pytest.mark.slow
@pytest.mark.process
def test_it_prints_the_tutorials_lines(both_modes: dict[str, tuple[RunFolder, str]]) -> None:
    for _, stdout in both_modes.values():
        lines = stdout.splitlines()
        assert lines[0] == "Learning rate drops after iterations: [80, 140, 180]"
        first_batches = [re.fullmatch(r"Epoch: (\d+); Batch 1; Loss (\d\.\d{6}); LR (0\.\d{6})", line) for line in lines]
        found = [match for match in first_batches if match]
        assert [int(match[1]) for match in found] == list(range(1, 11))
        assert [float(match[3]) for match in found] == TEN_EPOCHS_OF_RATES
        assert 2.2 < float(found[0][2]) < 2.5  # ln 10 = 2.303: the network is untrained
    assert both_modes["optimizer"][1].splitlines()[:-3] == both_modes["manual"][1].splitlines()[:-3]


@pytest.mark.slow
@pytest.mark.process
def test_the_content_of_the_run_folder(both_modes: dict[str, tuple[RunFolder, str]], data_dir: Path) -> None:
    folder, _ = both_modes["manual"]
    assert {path.name for path in folder.path.iterdir()} == RUN_FILES

    rows = (folder / "iterations.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "iteration,learning_rate,loss"
    assert rows[1].startswith("1,0.03,2.")
    assert [int(row.partition(",")[0]) for row in rows[1:]] == list(range(1, 201))

    metrics = folder.read_metrics()
    assert [row["epoch"] for row in metrics] == list(range(1, 11))
    assert [row["iteration"] for row in metrics] == list(range(20, 201, 20))
    assert set(metrics[0]) == {
        "epoch",
        "iteration",
        "learning_rate",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "epoch_seconds",
        "test_seconds",
        "images_per_second",
    }

    summary = folder.read_summary()
    assert set(summary) == {
        "status",
        "epochs",
        "iterations",
        "seconds",
        "final_learning_rate",
        "train_loss",
        "test_loss",
        "test_accuracy",
        "test_correct",
        "test_total",
        "parameters_sha256",
        "stopped_because",
    }
    assert summary["status"] == "finished"
    assert (summary["epochs"], summary["iterations"], summary["test_total"]) == (10, 200, 500)
    assert summary["test_accuracy"] == summary["test_correct"] / 500 == metrics[-1]["test_accuracy"]
    assert summary["test_accuracy"] > 0.5
    assert summary["final_learning_rate"] == metrics[-1]["learning_rate"] == folder.read_iterations()[-1][1]
    assert summary["seconds"] > sum(row["epoch_seconds"] + row["test_seconds"] for row in metrics)

    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert environment["packages"]["mxnet"] == "1.9.1"
    assert environment["device"] == "cpu"
    assert environment["threads"] == available_processors()
    assert "--scheduler-mode manual" in environment["command_line"]
    assert environment["data_sha256"] == {
        file.name: hashlib.sha256((data_dir / file.name).read_bytes()).hexdigest() for file in FILES
    }
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.process
def test_the_parameters_file_is_the_final_network(both_modes: dict[str, tuple[RunFolder, str]]) -> None:
    folder, _ = both_modes["optimizer"]
    net = build_cnn()
    net.load_parameters(str(folder / "model.params"))
    assert parameters_sha256(net) == folder.read_summary()["parameters_sha256"]


@pytest.mark.slow
def test_its_configuration_repeats_the_run(
    both_modes: dict[str, tuple[RunFolder, str]], new_program: Program, tmp_path: Path
) -> None:
    folder, _ = both_modes["manual"]
    done = new_program("train", "--config", folder / "config.toml", "--output", "again")
    assert done.returncode == 0, done.stderr
    again = RunFolder(tmp_path / "again")
    assert (again / "config.toml").read_bytes() == (folder / "config.toml").read_bytes()
    assert (again / "iterations.csv").read_bytes() == (folder / "iterations.csv").read_bytes()
    assert again.read_summary()["parameters_sha256"] == folder.read_summary()["parameters_sha256"]


@pytest.mark.slow
def test_evaluate_gives_the_scores_of_the_run(both_modes: dict[str, tuple[RunFolder, str]], new_program: Program) -> None:
    folder, _ = both_modes["optimizer"]
    done = new_program("evaluate", folder.path)
    summary = folder.read_summary()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == (
        f"Test accuracy {summary['test_accuracy']:.2%} ({summary['test_correct']} of 500), test loss {summary['test_loss']:.6f}"
    )


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Run without the options of the next test."""
    folder = tmp_path_factory.mktemp("unchanged") / "run"
    assert run("train", *FOUR_ITERATIONS, "--output", folder).code == 0
    return RunFolder(folder)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(("--seed", "2"), id="seed"),
        pytest.param(("--learning-rate", "0.02"), id="learning rate"),
        pytest.param(("--batch-size", "32"), id="batch size"),
        pytest.param(("--train-images", "127"), id="training images"),
        pytest.param(("--set", "data.augment=true"), id="augmentation"),
        pytest.param(("--set", "optimizer.momentum=0.9"), id="momentum"),
        pytest.param(("--set", "optimizer.name=adam"), id="optimizer"),
        pytest.param(("--set", "schedule.factor=0.5", "--set", "schedule.step_epochs=[1]"), id="schedule"),
    ],
)
def test_every_option_has_an_effect(changed: tuple[str, ...], unchanged: RunFolder, tmp_path: Path) -> None:
    assert run("train", *FOUR_ITERATIONS, *changed, "--output", tmp_path / "other").code == 0
    other = RunFolder(tmp_path / "other")
    assert other.read_summary()["parameters_sha256"] != unchanged.read_summary()["parameters_sha256"]


@pytest.mark.slow
def test_both_loaders_train_alike(program: Program, tmp_path: Path) -> None:
    short = ("train", *FOUR_ITERATIONS, "--output")
    assert program(*short, "array").returncode == 0
    assert program(*short, "gluon", "--set", "data.loader=gluon").returncode == 0
    one, other = RunFolder(tmp_path / "array"), RunFolder(tmp_path / "gluon")
    assert one.read_summary()["parameters_sha256"] == other.read_summary()["parameters_sha256"]


def test_without_output_a_new_folder_appears_below_runs(program: Program, tmp_path: Path) -> None:
    for _ in range(2):
        done = program("train", "--epochs", "1", "--train-images", "64", "--test-images", "10", "--quiet")
        assert done.returncode == 0
        assert done.stderr == ""
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 3  # with the link `latest`
    *made, latest = [folder.name for folder in folders]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_tutorial_optimizer_seed-1(_2)?", name) for name in made)
    assert latest == "latest"
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}  # nothing is written outside the run folder


def test_a_run_that_diverges_is_reported_and_not_finished(program: Program, tmp_path: Path) -> None:
    done = program("train", "--learning-rate", "1e6", "--epochs", "1", *SMALL, "--output", "blown")
    assert done.returncode == 1
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("mnist-trainer: ")]
    for word in ("nan", "epoch 1", "learning rate 1000000.0", "lower rates"):
        assert word in sentence
    assert "Traceback" not in done.stderr
    rows = (tmp_path / "blown" / "iterations.csv").read_text(encoding="utf-8").splitlines()[1:]
    wrong = re.search(r"(gradient|loss) .*\bnan\b.* iteration (\d+)", sentence)
    assert wrong
    assert len(rows) == int(wrong[2])  # it ends with the iteration that went wrong
    assert [row.endswith(("nan", "inf")) for row in rows] == [False] * (len(rows) - 1) + [wrong[1] == "loss"]
    assert {path.name for path in (tmp_path / "blown").iterdir()} == {"config.toml", "environment.json", "iterations.csv"}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        pytest.param({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, "", id="the backend of a notebook"),
        pytest.param({"MPLBACKEND": "no such backend"}, "", id="an unknown backend"),
        pytest.param({}, "text.usetex: True\nno setting\n", id="a matplotlibrc with LaTeX"),
    ],
)
def test_a_run_finishes_with_any_setting_of_matplotlib(
    variables: dict[str, str], settings: str, new_program: Program, tmp_path: Path
) -> None:
    (tmp_path / "matplotlibrc").write_text(settings, encoding="utf-8")
    done = new_program("train", *TINY, "--output", "run", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES


@pytest.mark.slow
@pytest.mark.process
def test_a_run_without_its_figure_is_finished_and_advises_how_to_draw_it(new_program: Program, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n", encoding="utf-8")
    without_matplotlib = f"{tmp_path / 'broken'}{os.pathsep}{REPOSITORY}"
    done = new_program("train", *TINY, "--output", "a run", PYTHONPATH=without_matplotlib)
    assert done.returncode == 0
    assert "Test accuracy" in done.stdout
    advice = re.fullmatch(r"mnist-trainer: a run/curves\.png: .*\(matplotlib .*\); .*: mnist-trainer (.*)\n", done.stderr)
    assert advice, done.stderr
    assert {path.name for path in (tmp_path / "a run").iterdir()} == RUN_FILES - {"curves.png"}
    before = RunFolder(tmp_path / "a run").read_summary()

    again = new_program(*shlex.split(advice[1]), PYTHONPATH=without_matplotlib)
    assert again.returncode == 0  # the run is finished all the same
    assert "curves.png is missing" in again.stdout
    assert again.stderr == done.stderr

    drawn = new_program(*shlex.split(advice[1]))
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert "a run" in drawn.stdout
    assert "curves.png" in drawn.stdout
    assert (tmp_path / "a run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (tmp_path / "a run").iterdir()} == RUN_FILES
    assert RunFolder(tmp_path / "a run").read_summary() == before


def test_a_batch_that_devices_cannot_share_is_refused(program: Program, tmp_path: Path) -> None:
    done = program("train", "--device", "cpu:0,1", "--train-images", "65", "--output", "never")
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert_names(sentence, "--device cpu:0,1: ", "2 devices", "batch of 1")
    assert not (tmp_path / "never").exists()


@pytest.mark.process
def test_ctrl_c_ends_a_run_without_a_traceback(tmp_path: Path) -> None:
    stopped = RunFolder(tmp_path / "stopped")
    process = ForkedProgram("train", "--output", "stopped", cwd=tmp_path)
    try:
        wait_for(stopped.last_iteration, process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    rows = stopped.read_iterations()
    assert_names(stderr.splitlines()[-1], "", f"iteration {len(rows)} of 9380;", "mnist-trainer train --resume stopped")
    assert (stopped / "checkpoints" / f"{len(rows):08}").is_dir()
    assert not stopped.is_finished


def test_the_rates_of_an_endless_run_are_not_evaluated_before_it() -> None:
    noise = {"name": "Noise", "seed": 1, "curve": {"name": "Repeat", "length": 60, "curve": {"name": "Factor", "step": 2}}}
    endless = changed(SMALL_CONFIG, training={"epochs": 1_000_000, "batch_size": 1}, schedule=noise)
    assert experiment.check(endless).config.run_length.total_iterations == 84_000_000
