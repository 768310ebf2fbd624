"""Fixtures for all tests: the real data, the program as a user runs it, and a check that a test leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from leftovers import Started, adopt_orphans, held, left_since
from programs import REPOSITORY, run_forked_program, run_new_program
from snapshots import drop_other_snapshots, snapshots_of

from mnist_trainer import runtime
from mnist_trainer.cli import main
from mnist_trainer.config.schema import DataConfig
from mnist_trainer.data import files
from mnist_trainer.data.mnist_files import Split, read_split
from mnist_trainer.errors import DONE
from mnist_trainer.user_code import search_beside

# Environment variables of the user would change the behaviour of the program.
for _name in [name for name in os.environ if name.startswith(("MNIST_TRAINER_", "DMLC_", "MXNET_"))]:
    del os.environ[_name]

# This must run before any test module imports MXNet. Use one thread: on a busy machine, two threads wait for each other most of
# the time. Tests that start a new interpreter use one thread per processor.
runtime.prepare(threads=1)

# Under `nohup`, and in the background of a shell, this process ignores signals, and child processes would inherit that. With a
# handler instead, this process still ignores the signal, but its children get the default action.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

Program = Callable[..., subprocess.CompletedProcess[str]]
Snapshot = Callable[[str], None]

adopt_orphans()
started = Started()
sys.addaudithook(started.note)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--forbid-skips", action="store_true", help="fail if any test is skipped")
    parser.addoption("--update-snapshots", action="store_true", help="rewrite tests/snapshots; requires -n 0")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--update-snapshots") and config.getoption("numprocesses", 0):
        raise pytest.UsageError("--update-snapshots: several processes would write the same files; add -n 0")


_PROCESS_FIXTURES = {"program", "new_program", "python", "modes", "schedules", "both_modes", "results"}
"""Fixtures that start processes. A test that uses one gets the marker `process`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _PROCESS_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("process")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
    with started.by_fixture(fixturedef.argname):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        path, _line, reason = report.longrepr
        report.longrepr = (path, None, reason)  # without a line number, pytest reports each reason once per file
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker process of pytest-xdist
        return
    chosen = reporter.stats.get("deselected") or any("::" in argument for argument in session.config.args)
    if session.config.getoption("--update-snapshots") and not chosen:
        drop_other_snapshots(session.items)
    if session.config.getoption("--forbid-skips") and reporter.stats.get("skipped") and not session.exitstatus:
        reporter.write_line("--forbid-skips: tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something behind, writes to the checkout, or starts a process without the marker `process`.

    This does not detect files that other processes write, nor anything that a module-scoped fixture leaves behind.
    """
    search_beside()  # forgets the configurations of earlier tests
    before = held()
    yield
    if started.has_process(request.fixturenames):
        assert request.node.get_closest_marker("process"), "add @pytest.mark.process"
    if not request.config.getoption("--update-snapshots"):
        assert not started.files, f"written to the checkout: {sorted(started.files)}"
    left = left_since(before)
    assert not left, f"left behind: {sorted(left)}"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the genuine MNIST files."""
    return REPOSITORY / "data" / "mnist"


@pytest.fixture(scope="session")
def test_split(data_dir: Path) -> Split:
    """Return the test images and labels."""
    return read_split(data_dir, train=False)


@pytest.fixture(scope="session", autouse=True)
def _read_genuine_files_once(data_dir: Path) -> Iterator[None]:
    """Cache the MNIST files: reading and checking them takes half a second per training in this process or in a fork of it."""
    once = cache(read_split)

    def read(folder: Path, data: DataConfig, train: bool) -> Split:
        return once(folder, train) if folder == data_dir and data.name == "mnist" else files.read_split(folder, data, train)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnist_trainer.data.loaders.read_split", read)
        yield


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run that took a few seconds and recognizes most digits. Tests must not change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = ("--epochs", "1", "--train-images", "12800", "--set", "optimizer.momentum=0.9", "--quiet")
    assert main(["train", *arguments, "--output", str(folder)]) == DONE
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Return a function that runs `mnist-trainer ARGUMENTS` in a fork of this process, in an empty folder."""
    return partial(run_forked_program, cwd=tmp_path)


@pytest.fixture
def new_program(tmp_path: Path) -> Program:
    """Return a function that runs `mnist-trainer ARGUMENTS` in a new interpreter, in an empty folder.

    Use it for tests that depend on how MXNet is loaded.
    """
    return partial(run_new_program, cwd=tmp_path)


@pytest.fixture
def snapshot(request: pytest.FixtureRequest, tmp_path: Path) -> Snapshot:
    """Return a function that compares messages with the reviewed wording (see `snapshots`). Call it once per test."""

    def check(text: str) -> None:
        text = text.replace(str(tmp_path), "TMP").replace(str(REPOSITORY), "CHECKOUT").rstrip("\n")
        snapshots_of(request.path.stem, request.config.getoption("--update-snapshots")).check(request.node.name, text)

    return check
