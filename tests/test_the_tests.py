"""Tests of the test tools: reports of anything that a test leaves behind, snapshots of messages, and forbidden skips."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import leftovers
import pytest
import snapshots
from programs import REPOSITORY, run_python, wait_for


@pytest.mark.process
def test_processes_threads_and_files_that_a_test_leaves_behind_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "SECONDS_TO_END", 0.2)
    before = leftovers.held()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="waits")
    thread.start()
    orphan = int(subprocess.run(["bash", "-c", "sleep 601 > /dev/null & echo $!"], stdout=subprocess.PIPE, check=True).stdout)
    with subprocess.Popen(["sleep", "600"]) as process, (tmp_path / "open").open("w"):
        left = leftovers.left_since(before)
        process.kill()
    os.kill(orphan, signal.SIGKILL)
    end.set()
    thread.join()
    assert len(left) == 4
    for kind, name in (
        ("process", "sleep 600"),
        ("process", "sleep 601"),
        ("thread", "waits"),
        ("file", str(tmp_path / "open")),
    ):
        assert any(leftover.startswith(kind) and name in leftover for leftover in left), left
    wait_for(lambda: not leftovers.left_since(before))


def test_snapshots_are_written_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def run_pytest(folder: Path, tests: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `tests`, the source of a test module, with the conftest and the pytest settings of the project."""
    (folder / "test_these.py").write_text(tests, encoding="utf-8")
    plugins = ("-p", "conftest", "-p", "no:hypothesispytest")
    command = ("-m", "pytest", *plugins, "-c", REPOSITORY / "pyproject.toml", "-n", "0", folder / "test_these.py")
    return run_python(*command, *flags, PYTHONPATH=str(REPOSITORY / "tests"), PYTEST_ADDOPTS="")


MESSAGES = """
import pytest

@pytest.mark.parametrize("text", ["one", "two"])
def test_message(text, snapshot): snapshot(text)
"""


@pytest.mark.slow
@pytest.mark.process
def test_updating_snapshots_removes_those_of_tests_that_no_longer_exist(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    area, other = kept / "these.txt", kept / "reacting.txt"  # the package has doctests in a file reacting.py
    other.write_text("## test_other\n\n", encoding="utf-8")
    doctests = tmp_path / "reacting.py"
    doctests.write_text('""">>> 1\n1\n"""', encoding="utf-8")

    def rewrite(*chosen: str) -> list[str]:
        area.write_text("## test_deleted\nold\n\n## test_message[two]\ntwo\n\n", encoding="utf-8")
        tests = f"{MESSAGES}\nimport pathlib, snapshots\nsnapshots.FOLDER = pathlib.Path({str(kept)!r})\n"
        done = run_pytest(tmp_path, tests, "--update-snapshots", str(doctests), *chosen)
        assert done.returncode == 0, done.stdout
        assert other.read_text(encoding="utf-8") == "## test_other\n\n"
        return re.findall("^## (.*)$", area.read_text(encoding="utf-8"), re.MULTILINE)

    assert rewrite() == ["test_message[one]", "test_message[two]"]
    everything = ["test_deleted", "test_message[one]", "test_message[two]"]
    assert rewrite("-k", "one") == everything
    assert rewrite(f"{tmp_path / 'test_these.py'}::test_message[one]") == everything


SKIPPED = """
import pytest

needs_thing = pytest.mark.skipif(True, reason="thing is missing; apt-get install thing")

@needs_thing
def test_skipped(): pass

@needs_thing
def test_skipped_too(): pass

def test_passed(): pass
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--forbid-skips"], 1)], ids=["allowed", "forbidden"])
def test_skips_are_reported_and_can_be_forbidden(flags: list[str], code: int, tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SKIPPED, *flags)
    assert done.returncode == code, done.stdout
    assert "1 passed, 2 skipped" in done.stdout
    assert re.search(r"^SKIPPED \[2\] .*test_these\.py: .*apt-get install thing$", done.stdout, re.MULTILINE), done.stdout


# The tests raise the audit events for opening and renaming a file, without creating one in the checkout.
FORBIDDEN = """
import os, subprocess, sys
import pytest
from programs import REPOSITORY

def test_starts_a_process(): subprocess.run(["true"], check=True)

@pytest.fixture(scope="module")
def process(): subprocess.run(["true"], check=True)

def test_has_a_fixture_that_starts_one(process): pass

def test_uses_the_same_fixture(process): pass

def test_writes_to_the_checkout(): sys.audit("open", str(REPOSITORY / "new.txt"), "w", os.O_WRONLY)

def test_renames_into_it(): sys.audit("os.rename", "/tmp/other.txt", str(REPOSITORY / "new.txt"), -1, -1)

@pytest.mark.process
def test_is_marked(process): subprocess.run(["true"], check=True)

def test_writes_elsewhere(tmp_path): (tmp_path / "new.txt").touch()
"""


@pytest.mark.slow
@pytest.mark.process
def test_processes_without_the_marker_and_files_in_the_checkout_are_errors(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, FORBIDDEN)
    assert "7 passed, 5 errors" in done.stdout, done.stdout
    processes = ("starts_a_process", "has_a_fixture_that_starts_one", "uses_the_same_fixture")
    for test in (*processes, "writes_to_the_checkout", "renames_into_it"):
        assert f"ERROR at teardown of test_{test} " in done.stdout
    assert len(re.findall("^E +AssertionError: add @pytest.mark.process$", done.stdout, re.MULTILINE)) == 3
    written = f"^E +AssertionError: written to the checkout: \\['{re.escape(str(REPOSITORY / 'new.txt'))}'\\]$"
    assert len(re.findall(written, done.stdout, re.MULTILINE)) == 2
