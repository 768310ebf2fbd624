"""The tests' own tools: they name what a test leaves behind, keep wordings, and forbid skips where that is wanted."""

import subprocess
import sys
import threading
from pathlib import Path

import leftovers
import pytest
import snapshots
from programs import LIMIT_SECONDS, REPOSITORY, new_environment


@pytest.mark.process
def test_a_process_a_thread_and_a_file_that_are_left_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SECONDS_TO_END", 0.2)
    before = leftovers.held()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="waits")
    thread.start()
    with subprocess.Popen(["sleep", "600"]) as process, (tmp_path / "open").open("w"):
        left = leftovers.left_since(before)
        process.kill()
    end.set()
    thread.join()
    assert len(left) == 3
    for kind, name in (("process", "sleep 600"), ("thread", "waits"), ("file", str(tmp_path / "open"))):
        assert any(each.startswith(kind) and name in each for each in left), left
    assert not leftovers.left_since(before)


def test_a_wording_is_kept_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "FOLDER", tmp_path / "kept")
    kept = {"test_b[1]": "--flag: wrong\nand more", "test_a": "", "test_c": "one\n\nother"}
    updating = snapshots.Snapshots("test_area", updates=True)
    for test, text in kept.items():
        updating.check(test, text)
    with pytest.raises(AssertionError, match="one snapshot"):
        updating.check("test_a", "")
    for test, text in kept.items():
        snapshots.Snapshots("test_area", updates=False).check(test, text)
        with pytest.raises(AssertionError, match="--update-snapshots"):
            snapshots.Snapshots("test_area", updates=False).check(test, text + "!")
    with pytest.raises(AssertionError, match="--update-snapshots"):
        snapshots.Snapshots("test_area", updates=False).check("test_new", "")
    snapshots.Snapshots("test_area", updates=True).keep_only({"test_a", "test_new"})
    assert (tmp_path / "kept" / "area.txt").read_text(encoding="utf-8") == "## test_a\n\n"


SKIPPED = """
import pytest

@pytest.mark.skip(reason="there is no such thing; apt-get install thing")
def test_skipped(): pass

def test_passed(): pass
"""


@pytest.mark.process
@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--forbid-skips"], 1)], ids=["allowed", "forbidden"])
def test_a_skip_is_told_and_can_be_forbidden(flags: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPPED, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", str(REPOSITORY / "pyproject.toml"), "-n", "0"]
    environment = new_environment(PYTHONPATH=str(REPOSITORY / "tests"), PYTEST_ADDOPTS="")
    done = subprocess.run(
        [*command, *flags, str(tmp_path / "test_skips.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "apt-get install thing" in done.stdout
