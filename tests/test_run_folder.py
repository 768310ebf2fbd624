"""Run folders: created or refused, never incomplete, and read back to the last bit."""

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from command_line import assert_names, content
from conftest import Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import METRICS, SUMMARY

from mnist_trainer import run_folder
from mnist_trainer.errors import RequestError
from mnist_trainer.run_folder import RunFolder, UnwrittenRunFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder.create(tmp_path / "run")
    yield folder
    folder.unlock()


# --- creating and opening


@pytest.mark.parametrize("path", ["new", "two/new", "empty"])
def test_a_new_or_an_empty_folder_becomes_a_run_folder(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    made = RunFolder.create(tmp_path / path)
    assert made.path == tmp_path / path
    assert made.path.is_dir()
    assert content(made.path) == {}
    assert not made.is_finished


def put_file(path: Path) -> None:
    path.mkdir()
    (path / "precious.txt").write_text("precious", encoding="utf-8")


def put_hidden_file(path: Path) -> None:
    path.mkdir()
    (path / ".hidden").touch()


def put_folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


def be_file(path: Path) -> None:
    path.write_text("precious", encoding="utf-8")


def be_broken_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def below_file(path: Path) -> None:
    be_file(path.parent)


@pytest.mark.parametrize(
    ("prepare", "name", "reason"),
    [
        pytest.param(put_file, "run", "not empty", id="a file in it"),
        pytest.param(put_hidden_file, "run", "not empty", id="a hidden file in it"),
        pytest.param(put_folder, "run", "not empty", id="a folder in it"),
        pytest.param(be_file, "run", "there is a file", id="is a file itself"),
        pytest.param(be_broken_link, "run", "there is a file", id="is a broken link"),
        pytest.param(below_file, "file/run", "Not a directory", id="below a file"),
        pytest.param(lambda path: None, "r" * 300, "File name too long", id="long name"),
    ],
)
def test_a_path_that_cannot_be_a_run_folder_is_refused_and_left_unchanged(
    prepare: Callable[[Path], None], name: str, reason: str, tmp_path: Path, snapshot: Snapshot
) -> None:
    prepare(tmp_path / name)
    before = content(tmp_path)
    with pytest.raises(RequestError) as caught:
        RunFolder.create(tmp_path / name)
    (problem,) = caught.value.problems
    assert_names(problem, f"--output {tmp_path / name}: ", reason)
    assert content(tmp_path) == before
    snapshot(problem)


@pytest.mark.parametrize("path", ["/proc/run", "/proc/self/fdinfo/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_written_is_refused(path: str) -> None:
    with pytest.raises(RequestError, match=rf"^--output {path}: "):
        RunFolder.create(Path(path))
    with pytest.raises(RequestError, match=rf"^{path}: "):
        RunFolder.create_below(Path(path), "name")


def test_each_folder_below_another_is_new(tmp_path: Path) -> None:
    made = [RunFolder.create_below(tmp_path / "runs", "tutorial_manual") for _ in range(5)]
    assert len({new_folder.path for new_folder in made}) == 5
    assert {new_folder.path for new_folder in made} == set((tmp_path / "runs").iterdir())
    for new_folder in made:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_tutorial_manual(_\d+)?", new_folder.path.name)


def test_a_folder_with_a_configuration_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / run_folder.CONFIG).touch()
    opened = RunFolder.open(tmp_path)
    assert opened.path == tmp_path
    assert opened / "model.params" == tmp_path / "model.params"
    assert not opened.is_finished
    (tmp_path / run_folder.SUMMARY).touch()
    assert opened.is_finished


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("nothing", "no such", id="nothing there"),
        pytest.param("file", "a file", id="a file"),
        pytest.param("empty", "config.toml", id="an empty folder"),
        pytest.param("odd", "config.toml", id="its configuration is a folder"),
        pytest.param("r" * 300, "File name too long", id="longer than a name can be"),
    ],
)
def test_a_path_that_is_not_a_run_folder_cannot_be_opened(name: str, reason: str, tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / run_folder.CONFIG).mkdir(parents=True)
    with pytest.raises(RequestError) as caught:
        RunFolder.open(tmp_path / name)
    (problem,) = caught.value.problems
    assert_names(problem, f"{tmp_path / name}: ", reason)
    snapshot(problem)


# --- files are complete or missing


def test_a_file_is_written_under_another_name_first(folder: RunFolder) -> None:
    folder.write_text("model.params", "old")
    seen: list[Path] = []

    def write(stream: BinaryIO) -> None:
        stream.write(b"new")
        seen.append(Path(f"/proc/self/fd/{stream.fileno()}").readlink())
        assert (folder / "model.params").read_text(encoding="utf-8") == "old"

    for _ in range(2):
        (folder / "model.params").write_bytes(b"old")
        folder.write_file("model.params", write)
    assert {path.parent for path in seen} == {folder.path}
    assert len({path.name for path in seen} | {"model.params"}) == 3  # a name that cannot be guessed
    assert content(folder.path) == {"model.params": b"new"}


@pytest.mark.parametrize("before", [{}, {"model.params": b"old"}], ids=["no file yet", "a file before"])
@pytest.mark.parametrize("error", [ValueError("broke"), OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("writes", [True, False], ids=["half written", "nothing written"])
def test_a_failed_write_leaves_the_folder_unchanged(
    before: dict[str, bytes], error: BaseException, writes: bool, folder: RunFolder
) -> None:
    for name, old in before.items():
        (folder / name).write_bytes(old)

    def write(stream: BinaryIO) -> None:
        if writes:
            stream.write(b"hal")
        raise error

    with pytest.raises(type(error)):
        folder.write_file("model.params", write)
    assert content(folder.path) == before


@pytest.mark.process
def test_a_process_that_dies_while_it_writes_leaves_the_old_file(folder: RunFolder) -> None:
    folder.write_text("summary.json", "old")

    def write_and_die(stream: BinaryIO) -> None:
        stream.write(b"hal")
        stream.flush()
        os._exit(9)

    process = os.fork()
    if process == 0:
        try:
            folder.write_file("summary.json", write_and_die)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert (folder / "summary.json").read_text(encoding="utf-8") == "old"
    assert len(content(folder.path)) == 2
    folder.remove_leftovers()
    assert content(folder.path) == {"summary.json": b"old"}


def test_text_is_written_as_utf_8(folder: RunFolder) -> None:
    folder.write_text("config.toml", 'name = "größe × 🙂"\n')
    assert (folder / "config.toml").read_bytes() == 'name = "größe × 🙂"\n'.encode()


def test_json_can_hold_a_name_that_is_not_utf_8(folder: RunFolder) -> None:
    folder.write_json("environment.json", {"command_line": os.fsdecode(b"train --output run\xff")})
    assert b"train --output run" in (folder / "environment.json").read_bytes()


# --- numbers

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Make one folder for all examples."""
    return RunFolder.create(tmp_path_factory.mktemp("runs") / "run")


@settings(max_examples=100, deadline=None, database=None)
@given(numbers=st.lists(st.tuples(st.floats(0, 3e38), finite), min_size=1, max_size=20), cut=st.integers(0, 20))
def test_iterations_read_back_as_the_same_floats(numbers: list[tuple[float, float]], cut: int, shared: RunFolder) -> None:
    rows = [(iteration, *pair) for iteration, pair in enumerate(numbers, start=1)]
    (shared / run_folder.ITERATIONS).unlink(missing_ok=True)
    shared.append_iterations(rows[:cut])
    shared.append_iterations(rows[cut:])
    read = shared.read_iterations()
    assert read == rows
    assert [[number.hex() for number in row[1:]] for row in read] == [[number.hex() for number in row[1:]] for row in rows]


def test_the_rows_of_iterations_have_these_bytes(folder: RunFolder) -> None:
    folder.append_iterations([(1, 0.03, 2.304071), (2, 1e-05, 0.1 + 0.2)])
    folder.append_iterations([(3, 0.0, math.inf)])
    assert (folder / "iterations.csv").read_bytes() == (
        b"iteration,learning_rate,loss\n1,0.03,2.304071\n2,1e-05,0.30000000000000004\n3,0.0,inf\n"
    )
    assert folder.read_iterations() == [(1, 0.03, 2.304071), (2, 1e-05, 0.30000000000000004), (3, 0.0, math.inf)]


@settings(max_examples=50, deadline=None, database=None)
@given(losses=st.lists(st.floats(0, 1e38), max_size=5))
def test_metrics_have_a_line_for_each_epoch_and_read_back(losses: list[float], shared: RunFolder) -> None:
    metrics = [
        METRICS | {"epoch": epoch, "iteration": 11 * epoch, "train_loss": loss} for epoch, loss in enumerate(losses, start=1)
    ]
    path = shared / run_folder.METRICS
    path.write_bytes(b"")
    for row in metrics:
        shared.append_metrics(row)
    assert path.read_bytes().count(b"\n") == len(metrics)
    assert shared.read_metrics() == metrics


def test_a_summary_reads_back(folder: RunFolder) -> None:
    summary = SUMMARY | {"test_loss": 0.1 + 0.2}
    folder.write_json(run_folder.SUMMARY, summary)
    assert folder.read_summary() == summary
    assert folder.is_finished
    assert (folder / run_folder.SUMMARY).read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_refuses_numbers_that_are_not_finite(number: float, folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json(run_folder.SUMMARY, {"test_loss": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.append_metrics({"test_loss": number})
    assert content(folder.path) == {}


def test_the_message_for_an_unfinished_run_suggests_resuming_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    with pytest.raises(RequestError) as caught:
        RunFolder.create(tmp_path)
    assert_names(str(caught.value), f"--output {tmp_path}: ", "unfinished", f"--resume {tmp_path}")


def test_the_last_iteration_is_that_of_the_last_complete_row(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.last_iteration() == 0
    folder.append_iterations([])
    assert folder.last_iteration() == 0  # only the header
    folder.append_iterations((iteration, 0.0123456789012345678, 1.2345678901234567e-300) for iteration in range(1, 1001))
    assert folder.last_iteration() == 1000
    with (folder / "iterations.csv").open("a", encoding="utf-8") as stream:
        stream.write("1001,0.0")  # half a row, which another process is writing
    assert folder.last_iteration() == 1000


def test_the_folder_of_a_search_is_not_an_unfinished_run(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    with pytest.raises(RequestError, match="--resume"):
        RunFolder.create(tmp_path)
    (tmp_path / "lr_finder.csv").write_text("", encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        RunFolder.create(tmp_path)
    assert_names(str(caught.value), f"--output {tmp_path}: ", "not empty")
    assert "--resume" not in str(caught.value)


@pytest.mark.parametrize("rate", ["-0.1", "1e+300", "nan", "inf", "1", "0.10", "١.0", ""])
def test_a_rate_that_no_optimizer_uses_is_refused(rate: str, folder: RunFolder) -> None:
    (folder / "iterations.csv").write_text(f"iteration,learning_rate,loss\n1,{rate},0.5\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2 .* iteration 1"):
        folder.read_iterations()


def test_more_rows_than_expected_are_not_read(folder: RunFolder) -> None:
    folder.append_iterations((iteration, 0.1, 0.5) for iteration in range(1, 4))
    assert len(folder.read_iterations(3)) == 3
    with pytest.raises(ValueError, match="more than 2 rows"):
        folder.read_iterations(2)
    for epoch in (1, 2):
        folder.append_metrics(METRICS | {"epoch": epoch, "iteration": 11 * epoch})
    assert len(folder.read_metrics(2)) == 2
    with pytest.raises(ValueError, match="more than 1 lines"):
        folder.read_metrics(1)


def test_a_folder_that_cannot_be_used_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="File name too long"):
        RunFolder.create(tmp_path / "new" / ("r" * 300))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_write_reads_no_metrics_while_another_truncates_them(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"epoch": 1, "it')
    UnwrittenRunFolder(tmp_path).restore_metrics_csv()
    with pytest.raises(ValueError, match="metrics"):
        RunFolder(tmp_path).restore_metrics_csv()


def test_a_removed_table_of_metrics_is_written_again(tmp_path: Path) -> None:
    whole, removed = tmp_path / "whole", tmp_path / "removed"
    for path in (whole, removed):
        path.mkdir()
        for epoch in (1, 2, 3):
            if path == removed and epoch == 3:
                (path / "metrics.csv").unlink()
            RunFolder(path).append_metrics(METRICS | {"epoch": epoch, "iteration": 11 * epoch})
    assert (removed / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert len((whole / "metrics.csv").read_bytes().splitlines()) == 4


@pytest.mark.parametrize("name", ["evaluation_best.json", "mistakes_938.png", "confusion_matrix_best.png"])
def test_unfinished_files_of_commands_on_a_checkpoint_are_removed(name: str, tmp_path: Path) -> None:
    for kept in (name, "notes_best.txt"):
        (tmp_path / f".{kept}.0123456789abcdef.partial").write_bytes(b"")
    RunFolder(tmp_path).remove_leftovers()
    assert [path.name for path in tmp_path.iterdir()] == [".notes_best.txt.0123456789abcdef.partial"]
