"""`mnist-trainer predict`: pictures, folders and pipes, and messages for pictures that cannot be read."""

import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot
from drawn_digits import FONTS, drawn_digits, enlarged, saved, seven
from PIL import Image
from programs import LIMIT_SECONDS, new_environment, run_command, wait_for

from mnist_trainer.cli import main
from mnist_trainer.data.mnist_files import read_split
from mnist_trainer.inference.preprocessing import mnist_image


@pytest.fixture(scope="module")
def pictures(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with MNIST's first test image of each digit, enlarged: 0.png … 9.png. Tests must not change it."""
    folder = tmp_path_factory.mktemp("pictures")
    test = read_split(data_dir, train=False)
    for digit in range(10):
        (folder / f"{digit}.png").write_bytes(enlarged(test.images[int((test.labels == digit).argmax())]))
    return folder


def predict(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str], list[str]]:
    """Run predict; return the exit code, the lines on stdout, and those on stderr without the program's name."""
    code = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out.splitlines(), [line.removeprefix("mnist-trainer: ") for line in err.splitlines()]


def test_the_prediction_of_a_picture_is_one_line(trained_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (line,), err = predict(capsys, trained_run, pictures / "7.png")
    assert (code, err) == (0, [])
    assert re.fullmatch(rf"{re.escape(str(pictures))}/7\.png: 7 \(\d+\.\d\d%\), runner-up [0-689] \(\d+\.\d\d%\)", line)


def test_the_pictures_in_a_folder_are_predicted(trained_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = predict(capsys, trained_run, pictures)
    assert (code, err) == (0, [])
    assert [line.split(": ")[0] for line in out] == [str(pictures / f"{digit}.png") for digit in range(10)]
    assert sum(line.split(": ")[1].startswith(f"{digit} ") for digit, line in enumerate(out)) >= 9


def test_json_output_has_one_object_per_line(trained_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = predict(capsys, trained_run, pictures / "1.png", pictures / "0.png", "--json")
    assert (code, err) == (0, [])
    for digit, line in zip((1, 0), out, strict=True):
        printed = json.loads(line)
        assert printed["picture"] == str(pictures / f"{digit}.png")
        assert printed["digit"] == digit == int(np.argmax(printed["probabilities"]))
        assert sum(printed["probabilities"]) == pytest.approx(1)
        assert printed["probability"] == max(printed["probabilities"])
        probabilities = printed["probabilities"]
        assert printed["runner_up_probability"] == sorted(probabilities)[-2] == probabilities[printed["runner_up"]]
        assert "image" not in printed


def test_show_prints_the_input_of_the_network(trained_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = mnist_image(Image.open(pictures / "3.png"))
    _, (line, *rows), _ = predict(capsys, trained_run, pictures / "3.png", "--show")
    assert line.startswith(f"{pictures / '3.png'}: ")
    assert [len(row) for row in rows] == 28 * [56]
    for row, levels in zip(rows, seen, strict=True):
        assert row[::2] == row[1::2]
        assert [" .:-=+*#%@".index(sign) for sign in row[::2]] == (levels.astype(int) * 10 // 256).tolist()
    _, (line,), _ = predict(capsys, trained_run, pictures / "3.png", "--show", "--json")
    assert json.loads(line)["image"] == seen.tolist()


def through_stdin(run: Path, content: bytes | None, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "mnist_trainer", "predict", str(run), *arguments, "--threads", "1"],
        env=new_environment(),
        input=content,
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.process
def test_a_dash_means_standard_input(trained_run: Path, pictures: Path) -> None:
    done = through_stdin(trained_run, (pictures / "6.png").read_bytes(), "-", str(pictures / "1.png"))
    assert (done.returncode, done.stderr) == (0, b"")
    first, second = done.stdout.decode().splitlines()
    assert first.startswith("-: 6 (")
    assert second.startswith(f"{pictures / '1.png'}: 1 (")


@pytest.mark.slow
@pytest.mark.process
def test_a_closed_standard_input_is_refused(trained_run: Path) -> None:
    command = f"exec {sys.executable} -m mnist_trainer predict {trained_run} - --threads 1 <&-"
    done = run_command("bash", "-c", command)
    assert (done.returncode, done.stdout) == (2, "")
    (message,) = done.stderr.splitlines()
    assert_names(message, "-: ", "standard input")


def test_wrong_pictures_are_reported_and_the_others_are_predicted(
    trained_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], snapshot: Snapshot
) -> None:
    files = {name: tmp_path / name for name in ("text.png", "blank.png", "half.png", "huge.png", "nowhere.png", "empty")}
    files["text.png"].write_text("seven", encoding="utf-8")
    Image.new("RGB", (60, 60), "navy").save(files["blank.png"])
    whole = (pictures / "5.png").read_bytes()
    files["half.png"].write_bytes(whole[: len(whole) // 2])
    Image.new("1", (10_000, 10_000)).save(files["huge.png"])
    files["empty"].mkdir()
    before = sorted(tmp_path.rglob("*"))
    arguments = [pictures / "1.png", *files.values(), pictures / "0.png"]
    code, out, err = predict(capsys, trained_run, *arguments)
    assert code == 2
    assert [line.split(" (")[0] for line in out] == [f"{pictures / '1.png'}: 1", f"{pictures / '0.png'}: 0"]
    words = {
        "text.png": ("PNG, JPEG, BMP or PGM",),
        "blank.png": ("one colour", "no digit"),
        "half.png": ("damaged",),
        "huge.png": ("10,000×10,000 pixels", "50,000,000"),
        "nowhere.png": ("no such file",),
        "empty": ("no picture", ".png, .jpg, .jpeg, .bmp, .pgm"),
    }
    for line, (name, path) in zip(err, files.items(), strict=True):
        assert_names(line, f"{path}: ", *words[name])
    snapshot("\n".join(line for line in err if "half.png" not in line))  # its message has a reason from Pillow
    assert sorted(tmp_path.rglob("*")) == before


def test_only_the_pictures_in_a_folder_are_predicted(
    trained_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.PNG", "a.png", "c.jpeg"):
        (tmp_path / name).write_bytes((pictures / "2.png").read_bytes())
    (tmp_path / "notes.txt").touch()
    (tmp_path / "more.png").mkdir()
    code, out, err = predict(capsys, trained_run, tmp_path)
    assert (code, err) == (0, [])
    assert [line.split(": ")[0] for line in out] == [str(tmp_path / name) for name in ("a.png", "b.PNG", "c.jpeg")]


def test_only_regular_files_and_unnamed_pipes_are_read(
    trained_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "link.png").symlink_to(pictures / "3.png")
    (tmp_path / "nowhere.png").symlink_to("nothing.png")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "socket.png"))
        code, out, err = predict(capsys, trained_run, tmp_path, pictures / "1.png", tmp_path / "pipe.png", "/dev/null")
    assert code == 2
    assert [line.split(" (")[0] for line in out] == [f"{tmp_path / 'link.png'}: 3", f"{pictures / '1.png'}: 1"]
    expected = {
        tmp_path / "circle.png": "Too many levels of symbolic links",
        tmp_path / "device.png": "not a regular file",
        tmp_path / "nowhere.png": "no such file",
        tmp_path / "pipe.png": "not a regular file",
        tmp_path / "socket.png": "not a regular file",
    }
    lines = [*expected.items(), (tmp_path / "pipe.png", "not a regular file"), (Path("/dev/null"), "not a regular file")]
    for line, (path, words) in zip(err, lines, strict=True):
        assert_names(line, f"{path}: ", words)


def test_a_pipe_without_a_name_is_read(trained_run: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    content = (pictures / "4.png").read_bytes()
    os.write(writing, content[:100])

    def write_the_rest() -> None:
        wait_for(lambda: fcntl.ioctl(reading, termios.FIONREAD, bytes(4)) == bytes(4))  # until the first bytes are read
        with os.fdopen(writing, "wb") as stream:
            stream.write(content[100:])

    with ThreadPoolExecutor() as writer:
        done = writer.submit(write_the_rest)
        code, (line,), err = predict(capsys, trained_run, f"/dev/fd/{reading}")  # as with the shell's <(command)
        done.result()
    os.close(reading)
    assert (code, err) == (0, [])
    assert line.startswith(f"/dev/fd/{reading}: 4 (")


def test_a_folder_that_cannot_be_read_is_reported(
    trained_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, scandir: Any = os.scandir) -> Any:  # root could read it
        if path == str(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, (line,), (message,) = predict(capsys, trained_run, tmp_path, pictures / "1.png")
    assert (code, line.split(" (")[0]) == (2, f"{pictures / '1.png'}: 1")
    assert_names(message, f"{tmp_path}: ", "Permission denied")


def test_a_lack_of_memory_is_reported(
    trained_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", fail)
    large = tmp_path / "large.bmp"
    large.write_bytes(saved(seven(), "bmp").getvalue())
    code, (line,), (message, _) = predict(capsys, trained_run, large, pictures / "1.png", tmp_path / "nowhere.png")
    assert (code, line.split(" (")[0]) == (1, f"{pictures / '1.png'}: 1")
    assert_names(message, f"{large}: ", "not enough memory")


@pytest.mark.parametrize("name", ["n" * 300, ""])
def test_an_impossible_file_name_is_reported(name: str, trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, (line,) = predict(capsys, trained_run, name)
    assert (code, out) == (2, [])
    assert_names(line, f"{name}: ", "File name too long" if name else "no such file")


def test_a_wrong_run_folder_is_one_problem(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = predict(capsys, tmp_path, pictures / "0.png", tmp_path / "nowhere.png")
    assert (code, out) == (2, [])
    (line,) = err
    assert_names(line, f"{tmp_path}: ", "config.toml")


def test_most_drawn_digits_are_recognised(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = list(drawn_digits(FONTS[::10]))
    for drawing in drawn:
        (tmp_path / drawing.name).write_bytes(drawing.content)
    code, out, err = predict(capsys, trained_run, *(tmp_path / drawing.name for drawing in drawn), "--json")
    assert (code, err) == (0, [])
    right = [json.loads(line)["digit"] == drawing.digit for line, drawing in zip(out, drawn, strict=True)]
    assert np.mean(right) > 0.7
