"""`mnist-trainer runs`, the link `runs/latest`, and the names of run folders."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import refused, run
from conftest import Program
from small_runs import METRICS, SMALL, SUMMARY, changed, edit_json

from mnist_trainer.commands.request import follow_link
from mnist_trainer.run_folder import RunFolder

FEW = ("--epochs", "1", "--train-images", "128", "--test-images", "50")


def make_run(path: Path, started: str = "2026-11-27T12:00:00+00:00", accuracy: float = 0.5, **sections: Any) -> Path:
    """Write a finished run."""
    config = changed(SMALL, **sections)
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.write_text("config.toml", config.to_toml())
    folder.write_json(
        "environment.json", {"started": started, "command_line": "mnist-trainer train --config configs/cosine.toml --seed 1"}
    )
    for epoch in range(1, config.training.epochs + 1):
        folder.append_metrics(METRICS | {"epoch": epoch, "iteration": 11 * epoch, "test_accuracy": accuracy})
    folder.write_json("summary.json", SUMMARY | {"epochs": config.training.epochs, "test_accuracy": accuracy})
    return path


def listed(*arguments: str | Path) -> list[dict[str, Any]]:
    outcome = run("runs", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    runs: list[dict[str, Any]] = json.loads(outcome.out)
    return runs


def test_a_run_is_listed_with_its_settings_accuracy_and_state(tmp_path: Path) -> None:
    make_run(tmp_path / "one", accuracy=0.75, training={"seed": 7, "scheduler_mode": "manual"})
    [one] = listed(tmp_path)
    assert one.pop("started").startswith("2026-11-27T")
    assert one == {
        "folder": str(tmp_path / "one"),
        "configuration": "cosine",
        "schedule": "Cosine",
        "mode": "manual",
        "seed": 7,
        "epochs": 2,
        "total_epochs": 2,
        "accuracy": 0.75,
        "state": "finished",
    }
    out = run("runs", tmp_path).out
    headings, row = out.splitlines()
    assert headings.split() == ["folder", "configuration", "schedule", "mode", "seed", "epochs", "accuracy", "started", "state"]
    assert row.split()[1:7] == ["cosine", "Cosine", "manual", "7", "2/2", "75.00%"]


def test_runs_are_sorted(tmp_path: Path) -> None:
    make_run(tmp_path / "b", "2026-11-27T12:00:00+00:00", 0.5)
    make_run(tmp_path / "a", "2026-11-27T15:00:00+02:00", 0.9)
    make_run(tmp_path / "c", "2026-11-27T11:59:59+00:00", 0.7)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.toml").write_text("[training]\nepochs = 0\n", encoding="utf-8")

    def order(*arguments: str) -> str:
        return "".join(Path(each["folder"]).name for each in listed(tmp_path, *arguments))

    assert order() == "abcd"  # the newest first; one without a date last
    assert order("--sort", "folder") == "abcd"
    assert order("--sort", "accuracy") == "acbd"
    assert order("--sort", "SEED")[-1] == "d"
    assert "did you mean accuracy?" in refused("runs", tmp_path, "--sort", "acuracy")[0]


def test_an_unfinished_run_is_listed_with_the_place_where_it_stands(tmp_path: Path) -> None:
    path = make_run(tmp_path / "one")
    (path / "summary.json").unlink()
    folder = RunFolder(path)
    folder.append_iterations((iteration, 0.1, 0.5) for iteration in range(1, 16))
    assert listed(tmp_path)[0]["state"] == "stopped after iteration 15 of 22"
    folder.lock()
    assert listed(tmp_path)[0]["state"] == "training"
    folder.unlock()
    folder.write_json("summary.json", SUMMARY | {"stopped_because": "the validation loss has not improved"})
    assert listed(tmp_path)[0]["state"] == "stopped early"


def test_the_folder_of_a_search_for_a_rate_is_not_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (make_run(tmp_path / "search") / "lr_finder.csv").write_text("", encoding="utf-8")
    assert [Path(each["folder"]).name for each in listed(tmp_path)] == ["run"]


def test_the_path_of_a_folder_is_never_shortened(tmp_path: Path) -> None:
    path = make_run(tmp_path / ("long" * 20) / "runs" / "tutorial-optimizer-seed-1")
    assert str(path) in run("runs", tmp_path).out


def test_a_folder_that_cannot_be_locked_is_not_called_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (make_run(tmp_path / "run") / "summary.json").unlink()

    def fail(folder: RunFolder) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(RunFolder, "lock", fail)
    [one] = listed(tmp_path)
    assert "No locks available" in one["state"]


def test_the_runs_of_comparisons_are_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "compared" / "runs" / "tutorial-optimizer-seed-1")
    edit_json(
        tmp_path / "compared" / "runs" / "tutorial-optimizer-seed-1" / "environment.json",
        lambda environment: environment.update(command_line="mnist-trainer train --config=x/tutorial-optimizer-seed-1.toml"),
    )
    for parent in (tmp_path, tmp_path / "compared", tmp_path / "compared" / "runs"):
        assert [(each["configuration"], each["state"]) for each in listed(parent)] == [("tutorial", "finished")]


def test_strangers_folders_are_listed_with_the_reason_and_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('was_here').touch()\n", encoding="utf-8")
    make_run(tmp_path / "code", schedule={"name": "Warmup", "curve": {"name": "evil:rate"}})
    for name, file, text in (
        ("broken-config", "config.toml", "[training"),
        ("broken-summary", "summary.json", "[]"),
        ("broken-environment", "environment.json", '{"started": 1e300, "command_line": "a \'"}'),
        ("broken-metrics", "metrics.jsonl", "{}\n"),
        ("escape", "environment.json", '{"started": "2026-01-01", "command_line": "x --config a\\u001b[31m"}'),
    ):
        (make_run(tmp_path / name) / file).write_text(text, encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "code")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "config.toml")
    runs = {Path(each["folder"]).name: each for each in listed(tmp_path)}
    assert runs.keys() == {
        *("code", "broken-config", "broken-summary", "broken-environment", "broken-metrics", "escape", "pipe")
    }
    assert runs["code"]["schedule"] == "Warmup(evil:rate)"
    assert "TOML" in runs["broken-config"]["state"]
    assert "summary.json" in runs["broken-summary"]["state"]
    assert runs["broken-environment"]["started"] is None
    assert runs["broken-metrics"]["epochs"] == 0
    out = run("runs", tmp_path).out
    assert "\x1b" not in out
    assert not (tmp_path / "was_here").exists()


def test_a_folder_without_runs(tmp_path: Path) -> None:
    assert "contains no runs" in run("runs", tmp_path).out
    assert listed(tmp_path) == []
    assert "no such folder" in refused("runs", tmp_path / "nowhere")[0]
    (tmp_path / "file").touch()
    assert "this is a file" in refused("runs", tmp_path / "file")[0]


def test_many_runs_are_listed(tmp_path: Path) -> None:
    first = make_run(tmp_path / "0")
    for number in range(1, 300):
        shutil.copytree(first, tmp_path / str(number))
    assert len(listed(tmp_path)) == 300


# --- runs/latest


@pytest.mark.slow
@pytest.mark.process
def test_latest_is_the_run_that_was_started_last(program: Program, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        assert program("train", *FEW, "--seed", seed, "--quiet").returncode == 0
    latest = tmp_path / "runs" / "latest"
    assert latest.is_symlink()
    assert latest.readlink().name.endswith("_tutorial_optimizer_seed-2")
    assert len(json.loads(program("runs", "--json").stdout)) == 2
    evaluated = program("evaluate", "runs/latest")
    assert evaluated.returncode == 0
    assert f"In runs/{latest.readlink()}: " in evaluated.stdout
    assert f"runs/{latest.readlink()}: the run is finished" in program("train", "--resume", "runs/latest").stdout
    before = latest.readlink()
    assert program("train", *FEW, "--output", "elsewhere", "--quiet").returncode == 0
    assert latest.readlink() == before


@pytest.mark.process
def test_a_folder_of_the_users_named_latest_is_kept(program: Program, tmp_path: Path) -> None:
    (tmp_path / "runs" / "latest").mkdir(parents=True)
    (tmp_path / "runs" / "latest" / "mine").touch()
    assert program("train", *FEW, "--quiet").returncode == 0
    assert (tmp_path / "runs" / "latest" / "mine").exists()
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_link_is_followed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/latest").symlink_to("one")
    assert follow_link(Path("runs/latest")) == Path("runs/one")
    assert follow_link(Path("runs/one")) == Path("runs/one")
