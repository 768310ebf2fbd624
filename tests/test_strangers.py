"""Folders that came from someone else: they are used or refused, and nothing outside of them is touched."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Program
from small_runs import SMALL, assert_same_run, checkpoints, edit_json, sign, spare_time, train

from mnist_trainer import cli
from mnist_trainer.errors import DONE, WRONG_REQUEST
from mnist_trainer.run_folder import RunFolder

RUN_FILES = (
    *("config.toml", "environment.json", "iterations.csv", "metrics.jsonl", "metrics.csv", "model.params", "curves.png"),
    "summary.json",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        spare_time(patch)
        return train(SMALL, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        spare_time(patch)
        return train(SMALL, tmp_path_factory.mktemp("stopped") / "run", 15)


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """Copy the stopped run, for a stranger to change."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """Return a user's folder, which must not change."""
    victim = tmp_path / "victim"
    (victim / "2019").mkdir(parents=True)
    (victim / "00000020").mkdir()
    for name in ("2019/photo.jpg", "00000020/state.json", "file.csv"):
        (victim / name).write_bytes(b"iteration,learning_rate,loss\n" * 100)
    before = _state_of(victim)
    yield victim
    assert _state_of(victim) == before


def _state_of(folder: Path) -> dict[Path, Any]:
    return {
        path: (path.lstat().st_mtime_ns, path.lstat().st_nlink, path.is_file() and path.read_bytes())
        for path in (folder, *folder.rglob("*"))
    }


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[str]:
    """Run the program, assert that it refuses the request, and return its messages."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert (code, captured.out) == (WRONG_REQUEST, "")
    return captured.err.splitlines()


USES: dict[str, Callable[[Path], Sequence[str | Path]]] = {
    "evaluate": lambda run: ("evaluate", run, "--test-images", "20"),
    "predict": lambda run: ("predict", run, "picture.png"),
    "export": lambda run: ("export", run, "--format", "mxnet"),
    "demo": lambda run: ("demo", run),
    "resume": lambda run: ("train", "--resume", run, "--quiet"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", RUN_FILES)
@pytest.mark.parametrize("what", ["link", "pipe", "device", "folder"])
def test_a_run_has_regular_files_only(
    what: str, name: str, use: str, finished: Path, victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / name).rename(victim.parent / "original")
    if what == "link":
        (run / name).symlink_to(victim.parent / "original")
    elif what == "pipe":
        os.mkfifo(run / name)
    elif what == "device":
        (run / name).symlink_to("/dev/zero")
    else:
        (run / name).mkdir()
    (message,) = refused(capsys, *USES[use](run))
    if what == "folder" and name == "config.toml":
        assert_names(message, f"{run}: ", "not a run folder")
    else:
        assert_names(message, f"{run / name}: ", "folder" if what == "folder" else "pipe" if what == "pipe" else "link")


@pytest.mark.parametrize("name", ["iterations.csv", "metrics.jsonl"])
def test_resuming_does_not_shorten_a_file_elsewhere(
    name: str, run: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink()
    (run / name).symlink_to(victim / "file.csv")
    recorded = {"bytes": 1, "sha256": hashlib.sha256(b"i").hexdigest()}
    for checkpoint in (run / "checkpoints").iterdir():
        edit_json(checkpoint / "state.json", lambda state: state["files"].update({name: recorded}))
        sign(checkpoint)
    (message,) = refused(capsys, "train", "--resume", run)
    assert_names(message, f"{run / name}: ", "link")


def test_a_hard_link_is_not_shortened(run: Path, finished: Path, victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)
    rows = (run / "iterations.csv").read_bytes() + b"16,0.1,1.0\n"
    (run / "iterations.csv").write_bytes(rows)
    os.link(run / "iterations.csv", victim.parent / "backup.csv")
    assert cli.main(["train", "--resume", str(run), "--quiet"]) == DONE
    assert (victim.parent / "backup.csv").read_bytes() == rows
    assert_same_run(run, finished)


def test_checkpoints_are_not_removed_elsewhere(run: Path, victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").symlink_to(victim)
    (message,) = refused(capsys, "train", "--resume", run)
    assert_names(message, f"{run / 'checkpoints'}: ", "link")


def test_a_users_folder_among_the_checkpoints_is_kept(run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)
    names = ("2019", "20", "000000020", "-0000020", "٢٠١٩٢٠١٩", "notes")  # none of them is a checkpoint's
    for name in names:
        (run / "checkpoints" / name).mkdir()
        (run / "checkpoints" / name / "photo.jpg").write_bytes(b"photo")
    assert cli.main(["train", "--resume", str(run), "--quiet"]) == DONE
    for name in names:
        assert (run / "checkpoints" / name / "photo.jpg").read_bytes() == b"photo"
        shutil.rmtree(run / "checkpoints" / name)
    assert_same_run(run, finished)


def test_a_link_among_the_checkpoints_is_not_followed(
    run: Path, finished: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spare_time(monkeypatch)
    planted = run / "checkpoints/00000020"
    for plant in (lambda path: path.symlink_to(victim / "00000020"), Path.touch, os.mkfifo):
        plant(planted)
        (message,) = refused(capsys, "train", "--resume", run)
        assert_names(message, f"{planted}: ", "move it")
        planted.unlink()
    unfinished = run / "checkpoints/.00000021.0123456789abcdef.partial"
    unfinished.symlink_to(victim / "00000020")
    assert cli.main(["train", "--resume", str(run), "--quiet"]) == DONE
    unfinished.unlink()
    assert_same_run(run, finished)


@pytest.mark.parametrize("foreign", ["photo.jpg", "state.json.bak"])
def test_a_later_checkpoint_with_foreign_files_is_not_removed(
    foreign: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = checkpoints(run)[-1]
    later = Path(shutil.copytree(run / "checkpoints" / f"{last:08}", run / "checkpoints" / f"{last + 1:08}"))
    (later / foreign).write_bytes(b"precious")
    *_, message = refused(capsys, "train", "--resume", run)
    assert_names(message, f"{later}: ", "other files", "move it")


@pytest.mark.parametrize("use", ["evaluate", "export", "find-lr"])
def test_planted_temporary_names_are_not_written_through(
    use: str, finished: Path, victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    names = ("evaluation.json", "confusion_matrix.png", "mistakes.png", "model-symbol.json", "model-0000.params")
    for name in names:
        (run / name).symlink_to(victim / "file.csv")
        (run / f".{os.getpid()}.{name}").symlink_to(victim / "new")
    if use == "find-lr":
        monkeypatch.chdir(tmp_path)
        assert refused(capsys, "find-lr", "--output", run)
        return
    assert cli.main([str(word) for word in USES[use](run)]) == DONE
    written = names[:3] if use == "evaluate" else names[3:]
    assert all((run / name).is_file() and not (run / name).is_symlink() for name in written)


def _altered(content: bytes) -> bytes:
    return content[:32] + (0xFFFFFFFF).to_bytes(4, "little") + content[36:]


@pytest.mark.process
@pytest.mark.parametrize("use", ["evaluate", "predict", "export", "demo"])
def test_parameters_with_negative_dimensions_are_refused(use: str, finished: Path, tmp_path: Path, program: Program) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "model.params").write_bytes(_altered((run / "model.params").read_bytes()))
    done = program(*map(str, USES[use](run)))
    assert (done.returncode, done.stdout) == (WRONG_REQUEST, "")
    assert_names(done.stderr, f"{run / 'model.params'}: ", "parameters of the network", "config.toml")


def test_a_comparison_does_not_follow_the_links_of_a_stranger(
    finished: Path, victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = tmp_path / "comparison"
    (comparison / "runs").mkdir(parents=True)
    (comparison / "comparison.json").write_text("{}", encoding="utf-8")
    (comparison / "runs/tutorial-manual-seed-1").symlink_to(finished)
    (message,) = refused(capsys, "compare", "--modes", "manual", "--output", comparison)
    assert_names(message, f"{comparison / 'runs/tutorial-manual-seed-1'}: ", "link")
    for name in ("runs", "configs"):
        shutil.rmtree(comparison)
        comparison.mkdir()
        (comparison / "runs").mkdir()
        (comparison / "comparison.json").write_text("{}", encoding="utf-8")
        if name == "runs":
            (comparison / "runs").rmdir()
        (comparison / name).symlink_to(victim)
        (message,) = refused(capsys, "compare", "--modes", "manual", "--output", comparison)
        assert_names(message, f"{comparison / name}: ", "link")


def test_numbers_that_are_not_finite_in_a_summary_are_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for number in (float("nan"), float("inf"), -1.0, "1", None, [1], 10**400):
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8")) | {"test_accuracy": number}
        (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        for use in ("evaluate", "resume"):
            (message,) = refused(capsys, *USES[use](run))
            assert_names(message, f"{run / 'summary.json'}: ")


def test_a_large_configuration_is_not_read(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    os.truncate(run / "config.toml", 100 * 2**30)
    (message,) = refused(capsys, "evaluate", run)
    assert_names(message, f"{run / 'config.toml'}: ", "more than")
    (message,) = refused(capsys, "train", "--config", run / "config.toml")
    assert_names(message, f"{run / 'config.toml'}: ", "more than")


def test_a_pipe_is_not_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "mine.toml")
    for command in (("train", "--config"), ("compare",), ("schedules", "show", "--iterations", "1")):
        (message,) = refused(capsys, *command, tmp_path / "mine.toml")
        assert_names(message, f"{tmp_path / 'mine.toml'}: ", "pipe")


def test_the_shells_pipe_is_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'[training]\nlearning_rate = 0.5\n[schedule]\nname = "Constant"\n')
    os.close(writer)
    try:
        assert cli.main(["schedules", "show", f"/dev/fd/{reader}", "--iterations", "1"]) == DONE
    finally:
        os.close(reader)
    captured = capsys.readouterr()
    assert "0.5" in captured.out
    assert captured.err == ""


def name_code(run: Path, module: str, before: str, after: str) -> Path:
    """Let the configuration of a run name code that leaves a mark when it is imported; return the path of the mark.

    Args:
        run: The run folder.
        module: The name of the module, which is written next to the folder.
        before: The text in the configuration to replace.
        after: The text with the name of the code.
    """
    mark = run.parent / "mark"
    (run.parent / f"{module}.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n", encoding="utf-8")
    text = (run / "config.toml").read_text(encoding="utf-8").replace(before, after)
    assert f"{module}:" in text
    (run / "config.toml").write_text(text, encoding="utf-8")
    return mark


def test_the_code_that_a_folder_names_does_not_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    mark = name_code(run, "evil", "[model]", '[model]\nnetwork = "evil:network"')
    monkeypatch.chdir(tmp_path)
    for use, words in USES.items():
        if use != "resume":  # a finished run is not trained
            (message,) = refused(capsys, *words(run))
            assert_names(message, f"{run}: ", "evil:network", "trust")
    assert not mark.exists()
    assert "evil" not in sys.modules


def test_the_code_of_an_unfinished_run_does_not_run_before_it_is_confirmed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = name_code(run, "evil2", 'name = "Cosine"', 'name = "evil2:schedule"')
    monkeypatch.chdir(tmp_path)
    assert_names(refused(capsys, "train", "--resume", run)[0], f"{run / 'config.toml'}: ", "evil2:schedule", "trust")
    (run / "summary.json").write_text("{}", encoding="utf-8")  # it looks finished while the command line is read
    has_file = RunFolder.has_file

    def vanish(folder: RunFolder, name: str) -> bool:
        found = has_file(folder, name)
        if name == "summary.json":
            (run / name).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(RunFolder, "has_file", vanish)
    assert cli.main(["train", "--resume", str(run)]) in (DONE, WRONG_REQUEST)
    assert not mark.exists()
    assert "evil2" not in sys.modules


def test_a_key_with_thousands_of_dots_is_refused_before_it_is_parsed(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for part in ("a.", "1.", '"a" . ', "[a."):
        (run / "config.toml").write_text("x = 1.5\n" + part * 100_000 + "b = 1\n", encoding="utf-8")
        (message,) = refused(capsys, "evaluate", run)
        assert_names(message, f"{run / 'config.toml'}: ", "dots")
    numbers = f"x = [{'0.5, ' * 50_000}]\n"
    (run / "config.toml").write_text(numbers, encoding="utf-8")
    (message,) = refused(capsys, "evaluate", run)
    assert "dots" not in message


def test_large_parameters_are_not_read(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    os.truncate(run / "model.params", 2**21)
    (message,) = refused(capsys, "evaluate", run)
    assert_names(message, f"{run / 'model.params'}: ", "more than")


def test_arrays_of_a_checkpoint_are_compared_with_the_optimizer(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = run / "checkpoints" / f"{checkpoints(run)[-1]:08}"
    with np.load(last / "arrays.npz") as archive:
        arrays = dict(archive)
    np.savez(last / "arrays.npz", **arrays | {"optimizer.1": np.zeros((3, 3), np.float32)})
    sign(last)
    assert cli.main(["train", "--resume", str(run), "--quiet"]) == WRONG_REQUEST
    assert_names(capsys.readouterr().err.splitlines()[-1], f"{last}: ", "optimizer")
