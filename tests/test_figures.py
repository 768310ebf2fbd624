"""Figures in folders: drawn, or reported with the reason and a remedy."""

import errno
import io
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from requirements import hide_matplotlib

from mnist_trainer.figures import draw
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.schedules import Constant


def small_figure(plots: ModuleType) -> Any:
    return plots.plot_schedules({"constant": (Constant(0.03), 10)})


def fails(make: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Draw a figure that must fail, check the parts that all messages have, and return the message."""
    assert not draw(RunFolder(folder), "x.png", make, "to draw it later: do this")
    message = capsys.readouterr().err
    assert message.startswith(f"mnist-trainer: {folder / 'x.png'}: ")
    assert message.endswith("; to draw it later: do this\n")
    assert len(message.splitlines()) == 1
    return message


def test_a_figure_is_drawn_without_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(RunFolder(tmp_path), "x.png", small_figure, "never")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().err == ""


def test_a_failed_figure_is_reported_and_an_older_one_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.png").write_bytes(b"of other results")

    def make(_: ModuleType) -> None:
        raise LookupError("no such\nfont")

    assert "(LookupError: no such font)" in fails(make, tmp_path, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_import_of_matplotlib_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide_matplotlib(monkeypatch)
    assert "matplotlib cannot be imported" in fails(small_figure, tmp_path, capsys)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(lambda _: (tmp_path / "iterations.csv").read_text(encoding="utf-8"), tmp_path, capsys)
    assert f"({tmp_path / 'iterations.csv'}: {os.strerror(errno.ENOENT)})" in message


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fsync(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    assert f"({os.strerror(errno.ENOSPC)})" in fails(small_figure, tmp_path, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_message_that_cannot_be_written_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stderr", Full())
    assert not draw(RunFolder(tmp_path), "x.png", lambda _: 1 / 0, "never")


def test_ctrl_c_is_not_treated_as_a_failure(tmp_path: Path) -> None:
    def make(_: ModuleType) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(RunFolder(tmp_path), "x.png", make, "never")
