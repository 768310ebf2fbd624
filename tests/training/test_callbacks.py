"""Output on a terminal: a bar with loss, rate and speed. Without a terminal there is no bar."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest
from programs import LIMIT_SECONDS, REPOSITORY, new_environment, run_python

from mnist_trainer.schedules import Constant, Factor, MultiFactor, UserSchedule
from mnist_trainer.training.callbacks import drops_line

COMMAND = [sys.executable, "-m", "mnist_trainer", "train", "--epochs", "2", "--train-images", "640", "--test-images", "100"]


def run_on_terminal(folder: Path, *more: str, command: Sequence[str] = COMMAND, columns: int = 120) -> tuple[str, str]:
    """Run a command with a terminal as stderr, which shows every change of a bar; return stdout and stderr."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    with subprocess.Popen(
        [*command, *more],
        cwd=folder,
        env=new_environment(TQDM_MININTERVAL="0"),
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # on Linux, the other end is closed
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        stdout, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0
    return stdout, shown.decode()


@pytest.mark.slow
@pytest.mark.process
def test_a_terminal_shows_one_bar_for_all_epochs_and_fits_60_columns(tmp_path: Path) -> None:
    stdout, shown = run_on_terminal(tmp_path, columns=60)
    for epoch, percents in ((1, "[1-5]?[05]"), (2, "[5-9][05]|100")):
        bar = rf"Epoch {epoch}/2 +({percents})%\|[^|]{{5,}}\| \d\d:\d\d<\d\d:\d\d, loss \d\.\d{{4}}, acc \d+\.\d%"
        assert re.search(bar, shown), shown
    assert all(len(line) <= 60 for line in re.split(r"[\r\n]", shown) if "%|" in line)
    assert re.search(r"Preparing 20 iterations\r\n.*Saving the model and drawing the curves\r\n", shown, re.DOTALL), shown
    assert "Epoch 1/2" not in stdout
    assert "Epoch: 1; Batch 1; Loss" in stdout


@pytest.mark.slow
@pytest.mark.process
def test_quiet_shows_nothing_even_on_a_terminal(tmp_path: Path) -> None:
    stdout, shown = run_on_terminal(tmp_path, "--quiet")
    assert shown == ""
    assert "Test accuracy" in stdout


SWEEP = [sys.executable, "-m", "mnist_trainer", "find-lr", "--iterations", "60", "--train-images", "3200", "--threads", "1"]


@pytest.mark.slow
@pytest.mark.process
def test_a_bar_for_a_sweep_on_a_terminal(tmp_path: Path) -> None:
    _, shown = run_on_terminal(tmp_path, "--start-lr", "0.001", "--end-lr", "1", command=SWEEP)
    assert re.search(r"Learning rates +\d+%\|.*\| \d+/60 \[.*rate \d\S*, smoothed loss \d\.\d{4}\]", shown), shown


COMPARISON = """
from pathlib import Path
from mnist_trainer.training.subprocesses import Ended, Progress, Training
from mnist_trainer.comparison.progress import ComparisonBars
from mnist_trainer.run_folder import RunFolder

trainings = [Training(f"cosine, manual, seed {seed}", (), RunFolder(Path("run")), 200) for seed in (1, 2, 3)]
with ComparisonBars(3, 600) as bars:
    bars(Progress(trainings[0], 50))
    bars(Progress(trainings[1], 10))
    bars(Progress(trainings[0], 150))
    bars(Ended(trainings[0], None))
    bars(Ended(trainings[2], "it broke"))
    bars(Progress(trainings[1], 20))
print("done")
"""


@pytest.mark.slow
@pytest.mark.process
def test_bars_for_a_comparison_on_a_terminal(tmp_path: Path) -> None:
    stdout, shown = run_on_terminal(tmp_path, command=[sys.executable, "-c", COMPARISON])
    assert re.search(r"Runs 0/3 +0%\|.*\| 0/600 \[", shown), shown
    # As for a resumed training: the estimate of the remaining time ignores earlier iterations.
    assert re.search(r"cosine, manual, seed 1 +25%\|.*\| 50/200 \[00:00<\?", shown), shown
    assert stdout == "done\n"


@pytest.mark.slow
@pytest.mark.process
def test_no_bars_for_a_comparison_without_a_terminal(tmp_path: Path) -> None:
    done = run_python("-c", COMPARISON, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("done\n", "")


# --- messages while a bar is shown


def lines_shown(written: str, columns: int) -> list[str]:
    """Return the lines that a terminal with this number of columns shows after a text was written to it."""
    lines: list[list[str]] = [[]]
    row = column = 0
    for piece in re.findall(r"\x1b\[A|.", written, re.DOTALL):
        if piece == "\x1b[A":
            row -= 1
        elif piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
        else:
            if column == columns:
                row, column = row + 1, 0
            lines += [[] for _ in range(len(lines), row + 1)]
            lines[row] += " " * (column + 1 - len(lines[row]))
            lines[row][column] = piece
            column += 1
        lines += [[] for _ in range(len(lines), row + 1)]
    return ["".join(line).rstrip() for line in lines]


def watch(folder: Path, *arguments: str, interrupt_at: str | None = None, path: str = "") -> tuple[int, list[str]]:
    """Run `mnist-trainer ARGUMENTS` on a terminal of 80 columns; return its exit code and the lines at the end.

    interrupt_at: a pattern; SIGINT is sent once when the output matches it. path: the first folder of Python's search path.
    """
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    with subprocess.Popen(
        [sys.executable, "-m", "mnist_trainer", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{REPOSITORY}"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        # If a shell starts the tests in the background, they and their child processes ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                written += os.read(master, 65536)
            except OSError:  # on Linux, the other end is closed
                break
            if interrupt_at and re.search(interrupt_at, written.decode(errors="replace")):
                process.send_signal(signal.SIGINT)
                interrupt_at = None
        os.close(master)
        code = process.wait(timeout=60)
    return code, lines_shown(written.decode(), 80)


def test_a_terminal_shows_what_was_written_last() -> None:
    assert lines_shown("one\rtw\r\nthree\r\n\x1b[A\x1b[AO\n\n12345678", 6) == ["Owe", "three", " 12345", "678"]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "bar"),
    [
        pytest.param(["train"], r"Epoch 1/10 +[1-9]", id="train"),
        pytest.param(["find-lr", "--iterations", "4000"], r"Learning rates +[1-9]", id="find-lr"),
        pytest.param(["compare", "quick", "--jobs", "2"], r"seed 1 +[1-9]", id="compare"),
    ],
)
def test_the_message_of_an_interruption_has_its_own_line(arguments: list[str], bar: str, tmp_path: Path) -> None:
    code, lines = watch(tmp_path, *arguments, "--threads", "1", "--output", "out", interrupt_at=bar)
    assert code == 130
    assert len([line for line in lines if line.startswith("mnist-trainer: interrupted")]) == 1, lines
    assert not [line for line in lines if "%|" in line], "no bar is left"


@pytest.mark.slow
@pytest.mark.process
def test_a_message_while_a_bar_is_shown_has_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n", encoding="utf-8")
    small = ("--train-images", "640", "--threads", "1", "--iterations", "100", "--end-lr", "1")
    code, lines = watch(tmp_path, "find-lr", *small, "--output", "out", path=str(tmp_path))
    assert code == 0
    assert len([line for line in lines if line.startswith("mnist-trainer: out/lr_finder.png: ")]) == 1, lines
    assert not [line for line in lines if "%|" in line], "no bar is left"


def test_the_line_of_drops() -> None:
    tutorial = MultiFactor(step=[3752, 6566, 8442], factor=0.1)
    assert drops_line(tutorial, 9380) == "Learning rate drops after iterations: [3752, 6566, 8442]"
    assert drops_line(Factor(step=3, factor=0.5), 10) == "Learning rate drops after iterations: [3, 6, 9]"
    many = drops_line(Factor(step=1, factor=0.999), 1000)
    assert many is not None
    assert many.endswith("19, 20, … and more]")
    assert drops_line(Constant(0.1), 100) is None
    assert drops_line(UserSchedule(lambda iteration: 0.1, "own"), 100) is None
