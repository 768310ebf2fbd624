"""Shared by all tests: the real data, the program as a user runs it, and the check that a test leaves nothing behind."""

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
from mnist_trainer.data.mnist_files import Split, read_split
from mnist_trainer.errors import DONE

# Settings of the user's own would change what the program does.
for _name in [name for name in os.environ if name.startswith(("MNIST_TRAINER_", "DMLC_", "MXNET_"))]:
    del os.environ[_name]

# Before any test module imports MXNet. One thread, because two on a machine that has other work to do wait for each other
# most of the time; the tests that start a new interpreter have as many as the processors.
runtime.prepare(threads=1)

# `nohup`, and a shell that starts the suite in the background, have signals ignored, and so would every program that a test
# starts. A signal that this process handles is a default one for them; here it is ignored as before.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

Program = Callable[..., subprocess.CompletedProcess[str]]
Snapshot = Callable[[str], None]

adopt_orphans()
started = Started()
sys.addaudithook(started.note)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--forbid-skips", action="store_true", help="fail when a test was skipped")
    parser.addoption("--update-snapshots", action="store_true", help="rewrite tests/snapshots; takes -n 0")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--update-snapshots") and config.getoption("numprocesses", 0):
        raise pytest.UsageError("--update-snapshots: several processes would write the same files; add -n 0")


_PROCESS_FIXTURES = {"program", "new_program", "python", "modes", "schedules", "both_modes", "results"}
"""Fixtures that start processes, so that a test with one of them has the marker for it."""


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
        report.longrepr = (path, None, reason)  # without the line pytest names a reason once for each file
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # in the processes that run the tests
        return
    chosen = reporter.stats.get("deselected") or any("::" in argument for argument in session.config.args)
    if session.config.getoption("--update-snapshots") and not chosen:
        drop_other_snapshots(session.items)
    if session.config.getoption("--forbid-skips") and reporter.stats.get("skipped") and not session.exitstatus:
        reporter.write_line("--forbid-skips: tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves something behind, writes into the checkout, or starts a process without the marker for it.

    It does not see what other processes write, nor what a fixture of the whole module leaves behind.
    """
    before = held()
    yield
    if started.a_process(request.fixturenames):
        assert request.node.get_closest_marker("process"), "add @pytest.mark.process"
    if not request.config.getoption("--update-snapshots"):
        assert not started.files, f"written into the checkout: {sorted(started.files)}"
    left = left_since(before)
    assert not left, f"left behind: {sorted(left)}"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The genuine MNIST files."""
    return REPOSITORY / "data" / "mnist"


@pytest.fixture(scope="session")
def test_split(data_dir: Path) -> Split:
    """The test images and labels."""
    return read_split(data_dir, train=False)


@pytest.fixture(scope="session", autouse=True)
def _reads_the_genuine_files_once(data_dir: Path) -> Iterator[None]:
    """Spares each training in this process, or in a fork of it, the half second in which the files are read and checked."""
    once = cache(read_split)

    def read(folder: Path, train: bool) -> Split:
        return once(folder, train) if folder == data_dir else read_split(folder, train)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnist_trainer.data.loaders.read_split", read)
        yield


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that has learnt the digits in a few seconds; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = ("--epochs", "1", "--train-images", "12800", "--set", "optimizer.momentum=0.9", "--quiet")
    assert main(["train", *arguments, "--output", str(folder)]) == DONE
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Runs `mnist-trainer ARGUMENTS` in a fork of this process, in an empty folder."""
    return partial(run_forked_program, cwd=tmp_path)


@pytest.fixture
def new_program(tmp_path: Path) -> Program:
    """Runs `mnist-trainer ARGUMENTS` in a new interpreter, in an empty folder; for what depends on how MXNet is loaded."""
    return partial(run_new_program, cwd=tmp_path)


@pytest.fixture
def snapshot(request: pytest.FixtureRequest, tmp_path: Path) -> Snapshot:
    """Compares the wording of a test's messages with the reviewed one (see `snapshots`); once a test."""

    def check(text: str) -> None:
        text = text.replace(str(tmp_path), "TMP").replace(str(REPOSITORY), "CHECKOUT").rstrip("\n")
        snapshots_of(request.path.stem, request.config.getoption("--update-snapshots")).check(request.node.name, text)

    return check
