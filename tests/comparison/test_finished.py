"""`compare RUN_DIR RUN_DIR …`: finished runs, compared as they are."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Program
from small_runs import SMALL, changed, contents, edit_json, spare_time, train

from mnist_trainer.comparison import finished, report
from mnist_trainer.errors import RequestError
from mnist_trainer.training import experiment

OTHER = changed(SMALL, schedule={"name": "Constant"})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs of two schedules and two seeds, of the other mode, and of another length."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        spare_time(monkeypatch)
        monkeypatch.setattr(experiment, "describe_environment", lambda *_: {"python": "3.11"})
        for name, config in {"cosine": SMALL, "constant": OTHER}.items():
            for seed in (1, 2):
                train(changed(config, training={"seed": seed}), folder / f"{name}-{seed}")
        train(SMALL, folder / "again-1")
        train(changed(SMALL, training={"scheduler_mode": "manual"}), folder / "manual-1")
        train(changed(OTHER, training={"epochs": 3}), folder / "longer-1")
    return folder


def paths_in(folder: Path, *names: str) -> list[Path]:
    return [folder / name for name in names]


def test_runs_that_differ_in_their_seed_are_paired(runs: Path) -> None:
    results = finished.read_runs(paths_in(runs, "cosine-1", "constant-2", "cosine-2", "constant-1"))
    assert [candidate.name for candidate in results.plan.candidates] == ["cosine-1", "constant-2"]
    _, constant = results.scores
    difference = constant.against_first
    assert difference is not None
    assert difference.n == 2
    pairs = [
        json.loads((runs / f"constant-{seed}" / "summary.json").read_bytes())["test_accuracy"]
        - json.loads((runs / f"cosine-{seed}" / "summary.json").read_bytes())["test_accuracy"]
        for seed in (1, 2)
    ]
    assert difference.mean == pytest.approx(sum(pairs) / 2)


def test_only_the_settings_that_differ_are_shown(runs: Path) -> None:
    results = finished.read_runs(paths_in(runs, "cosine-1", "constant-1", "constant-2"))
    headings, *rows = report.settings_table(results)
    assert headings == ("setting", "cosine-1", "constant-1")
    assert {row[0]: row[1:] for row in rows} == {
        "schedule.name": ("'Cosine'", "'Constant'"),
        "schedule.max_update_fraction": ("1.0", ""),
        "training.seed": ("1", "1, 2"),
    }


def agreement(runs: Path, one: str, other: str) -> str:
    [sentence] = finished.agreements(finished.read_runs(paths_in(runs, one, other)))
    return sentence


def test_a_repeated_run_and_the_other_mode_agree_to_the_last_bit(runs: Path) -> None:
    for other in ("again-1", "manual-1"):
        sentence = agreement(runs, "cosine-1", other)
        assert "learning rates and losses of 22 iterations are the same" in sentence
        assert "parameters are the same" in sentence


def test_runs_that_should_be_equal_are_drawn_with_their_difference(runs: Path) -> None:
    names = ("cosine-1", "constant-1", "manual-1", "cosine-2", "again-1")
    pairs = finished.read_runs(paths_in(runs, *names)).pairs_to_draw()
    assert [tuple(folder.path.name for folder in pair) for pair in pairs] == [("cosine-1", "manual-1"), ("cosine-1", "again-1")]


def test_the_first_iteration_at_which_runs_differ_is_named(runs: Path, tmp_path: Path) -> None:
    sentence = agreement(runs, "constant-1", "cosine-1")
    assert "learning rates first differ at iteration 1," in sentence
    assert "losses first differ at iteration 2," in sentence
    assert "parameters differ" in sentence
    copy = shutil.copytree(runs / "cosine-1", tmp_path / "copy")
    rows = (copy / "iterations.csv").read_text().splitlines()
    rows[17] = ",".join([*rows[17].split(",")[:2], "0.25"])
    (copy / "iterations.csv").write_text("\n".join(rows) + "\n")
    [changed_run] = finished.agreements(finished.read_runs([runs / "cosine-1", copy]))
    assert "learning rates of 22 iterations are the same" in changed_run
    assert "losses first differ at iteration 17," in changed_run
    assert "0.25" in changed_run


def test_runs_of_one_name_are_told_apart_by_their_paths(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "cosine-1"
    shutil.copytree(runs / "constant-1", other)
    results = finished.read_runs([runs / "cosine-1", other])
    assert [candidate.name for candidate in results.plan.candidates] == ["cosine-1", str(other)]


def test_runs_without_a_common_seed_are_said_to_be_no_pairs(runs: Path) -> None:
    results = finished.read_runs(paths_in(runs, "cosine-1", "constant-2"))
    assert results.scores[1].against_first is None
    (sentence,) = finished.agreements(results)
    assert sentence.startswith("cosine-1 and constant-2 have no seed in common")


def test_runs_of_different_lengths_are_compared_where_both_have_iterations(runs: Path) -> None:
    sentence = agreement(runs, "constant-1", "longer-1")
    assert "learning rates and losses of 22 iterations are the same" in sentence
    assert sentence.startswith("constant-1 and longer-1, seed 1: ")
    assert "22 and 33 iterations" in sentence


def test_the_runs_of_one_comparison_must_be_finished_whole_and_different(runs: Path, tmp_path: Path) -> None:
    unfinished = shutil.copytree(runs / "cosine-1", tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    damaged = shutil.copytree(runs / "cosine-1", tmp_path / "damaged")
    (damaged / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(runs / "cosine-1")
    given = [runs / "cosine-1", unfinished, damaged, tmp_path / "empty", tmp_path / "link"]
    with pytest.raises(RequestError) as caught:
        finished.read_runs(given)
    problems = "\n".join(caught.value.problems)
    for words in (f"train --resume {unfinished}", f"{damaged / 'metrics.jsonl'}", "empty: this is not a run folder", "twice"):
        assert words in problems
    with pytest.raises(RequestError, match="at least two"):
        finished.read_runs([runs / "cosine-1"])


def test_the_code_of_a_strangers_run_is_not_run(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('was_here').touch()\ndef rate(k): return 0.1\n")
    copy = shutil.copytree(runs / "cosine-1", tmp_path / "copy")
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace('"Cosine"\nmax_update_fraction = 1.0', '"evil:rate"'))
    results = finished.read_runs([runs / "cosine-1", copy])
    assert results.plan.candidates[1].schedule == "'evil:rate'"
    assert not (tmp_path / "was_here").exists()


@pytest.mark.process
def test_the_command_writes_a_comparison_and_leaves_the_runs(runs: Path, program: Program, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "given")
    before = contents(tmp_path / "given")
    names = ("cosine-1", "cosine-2", "constant-1", "constant-2")
    done = program("compare", *(f"given/{name}" for name in names), "--output", "out")
    assert done.returncode == 0, done.stderr
    assert "schedule.name" in done.stdout
    assert "cosine-1 and constant-1, seed 2: " in done.stdout
    assert contents(tmp_path / "given") == before
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(report.FILES)
    record = json.loads((tmp_path / "out" / "comparison.json").read_bytes())
    assert record["settings"]["schedule.name"] == {"cosine-1": "'Cosine'", "constant-1": "'Constant'"}
    assert [run["folder"] for run in record["runs"]] == [f"../given/{name}" for name in names]
    assert record["environment"] is None
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "Settings that differ" in page
    assert "<svg" in page


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cosine-1", "tutorial"], ["tutorial", "not a folder"]),
        (["cosine-1", "constant-1", "--seeds", "1,2"], ["--seeds", "as they are"]),
        (["cosine-1", "constant-1", "--epochs", "3"], ["--epochs", "as they are"]),
        (["cosine-1", "constant-1", "--jobs", "1"], ["--jobs", "as they are"]),
        (["cosine-1", "constant-1", "--seeds", "x"], ["--seeds x"]),
        (["cosine-1"], ["at least two"]),
    ],
)
def test_a_wrong_request_writes_nothing(arguments: list[str], words: list[str], runs: Path, program: Program) -> None:
    done = program("compare", *(str(runs / word) if word.endswith("-1") else word for word in arguments), "--output", "out")
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr


def test_a_wrong_summary_of_a_stranger_is_refused(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs / "cosine-1", tmp_path / "copy")
    edit_json(copy / "summary.json", lambda summary: summary.update(test_accuracy=7))
    with pytest.raises(RequestError, match=r"summary\.json"):
        finished.read_runs([runs / "cosine-1", copy])
