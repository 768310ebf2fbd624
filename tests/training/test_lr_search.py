"""The files of a search for a learning rate."""

import csv
import math
from pathlib import Path

import pytest
from command_line import assert_names
from conftest import Program
from small_runs import SMALL

from mnist_trainer.config.schema import SweepConfig
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.training import experiment
from mnist_trainer.training.lr_finder import SweepRow
from mnist_trainer.training.lr_search import search_learning_rate, write_rows

mx = import_mxnet()


def test_the_file_has_a_row_for_each_iteration(tmp_path: Path) -> None:
    rows = (SweepRow(1, 1e-06, 2.3, 2.3), SweepRow(2, 0.1 + 0.2, 1 / 3, 2.25), SweepRow(3, 10.0, math.nan, math.inf))
    write_rows(rows, RunFolder.create(tmp_path / "search"))
    assert [path.name for path in (tmp_path / "search").iterdir()] == ["lr_finder.csv"]
    assert (tmp_path / "search" / "lr_finder.csv").read_text(encoding="utf-8") == (
        "iteration,learning_rate,loss,smoothed_loss\n"
        "1,1e-06,2.3,2.3\n"
        "2,0.30000000000000004,0.3333333333333333,2.25\n"
        "3,10.0,nan,inf\n"
    )


def test_the_file_reads_back_as_the_same_numbers(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "search")
    sweep = search_learning_rate(experiment.prepare(SMALL), folder, SweepConfig(iterations=20, end_lr=0.1))
    with (folder / "lr_finder.csv").open(encoding="utf-8", newline="") as stream:
        read = [SweepRow(int(row[0]), *map(float, row[1:])) for row in list(csv.reader(stream))[1:]]
    assert tuple(read) == sweep.rows


@pytest.mark.parametrize("error", [MemoryError(), mx.MXNetError("std::bad_alloc"), mx.MXNetError("Check failed")], ids=repr)
def test_a_search_that_fails_names_its_folder(error: Exception, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr("mnist_trainer.training.lr_search.find_learning_rate", fail)
    done = program("find-lr", "--quiet", "--train-images", "64", "--output", "search")
    assert done.returncode == 1
    reason = "MXNet failed: Check failed" if "Check" in str(error) else "not enough memory"
    assert_names(done.stderr, reason, "the results so far are in search")
