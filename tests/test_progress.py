"""What a person sees on a terminal: a bar with loss, rate and speed; and nothing of it elsewhere."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

from conftest import REPOSITORY

from mnist_trainer.progress import drops_line
from mnist_trainer.schedules import Constant, Factor, MultiFactor

COMMAND = [sys.executable, "-m", "mnist_trainer", "train", "--epochs", "2", "--train-images", "6400", "--test-images", "100"]


def run_on_terminal(folder: Path, *more: str) -> tuple[str, str]:
    """Runs with a terminal for stderr; returns stdout and what the terminal showed."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    process = subprocess.Popen(
        [*COMMAND, *more],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    stdout, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return stdout, shown.decode()


def test_a_bar_an_epoch_on_a_terminal(tmp_path: Path) -> None:
    stdout, shown = run_on_terminal(tmp_path)
    for epoch in (1, 2):
        assert re.search(rf"Epoch {epoch}/2 +\d+%\|.*\| \d+/100 \[.*loss \d\.\d{{4}}, rate 0\.03, [\d,]+ images/s\]", shown), (
            shown
        )
    assert "Epoch 1/2" not in stdout
    assert "Epoch: 1; Batch 1; Loss" in stdout


def test_quiet_shows_nothing_even_on_a_terminal(tmp_path: Path) -> None:
    stdout, shown = run_on_terminal(tmp_path, "--quiet")
    assert shown == ""
    assert "Test accuracy" in stdout


def test_the_line_of_drops() -> None:
    tutorial = MultiFactor(step=[3752, 6566, 8442], factor=0.1)
    assert drops_line(tutorial, 9380) == "Learning rate drops after iterations: [3752, 6566, 8442]"
    assert drops_line(Factor(step=3, factor=0.5), 10) == "Learning rate drops after iterations: [3, 6, 9]"
    many = drops_line(Factor(step=1, factor=0.999), 1000)
    assert many is not None
    assert many.endswith("19, 20, … 979 more]")
    assert drops_line(Constant(0.1), 100) is None
    assert drops_line(lambda iteration: 0.1, 100) is None
