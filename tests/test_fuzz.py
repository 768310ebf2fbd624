"""A small part of the cases of `fuzz`, and proof that its checks can fail."""

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import fuzz
import pytest
from fuzz import Before, Fuzz, Outcome, Worker, make, make_library, problems
from fuzzing.case import Case, Library
from programs import LIMIT_SECONDS, REPOSITORY

SAMPLE = {"command line": 32, "configuration": 33, "checkpoint": 22, "parameters": 13, "picture": 19, "folder": 9}
"""Number of cases of each kind, at least one for each row of the tables of alterations."""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path / "worker")
    yield worker
    worker.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from Pillow, about some of the formats that it writes
@pytest.mark.slow
@pytest.mark.process
def test_hostile_input_is_refused_or_survived(worker: Worker, tmp_path: Path) -> None:
    library = make_library(worker, tmp_path / "library")  # takes as long as most of the cases, so this is a single test
    tried = Fuzz(worker.folder, 1, library)
    for kind, cases in SAMPLE.items():
        for number in range(cases):
            tried.try_case(worker, kind, number)
        one, other = (make(tmp_path / name / kind, library, 5, kind, 8) for name in ("a", "b"))
        assert one.alterations == other.alterations
        assert _files(one.cwd) == _files(other.cwd)
    assert tried.tried == SAMPLE
    assert tried.wrong == {}


def _files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*") if path.is_file()}


# --- the checks can fail


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """Return a case whose command has not run yet."""
    case = Case(tmp_path / "case", random.Random(0), 0, Library(tmp_path, (), tmp_path, ()), ["evaluate", "run"])
    (case.cwd / "run").mkdir()
    (case.cwd / "run" / "summary.json").write_text("{}", encoding="utf-8")
    return case


FINE = Outcome(0, "Test accuracy 97 %\n", "")
REFUSED = Outcome(2, "", "mnist-trainer: run: this is not a run folder\n")

WRONG_OUTCOMES = {
    "an exit code": (replace(REFUSED, code=3), "exit code 3"),
    "no message": (replace(REFUSED, stderr="run: wrong\n"), "without a message"),
    "a traceback": (replace(FINE, stderr="Traceback (most recent call last):\n"), "traceback"),
    "an ignored exception": (replace(FINE, stdout="Exception ignored in: <x>\n"), "traceback"),
    "no end": (replace(FINE, code=None, end="no end within 20 s"), "no end"),
    "an interruption": (replace(REFUSED, code=130), "interrupted"),
    "memory": (replace(REFUSED, stderr="mnist-trainer: not enough memory\n"), "memory"),
    "a file elsewhere": (replace(FINE, written=("/etc/passwd",)), "/etc/passwd"),
}


@pytest.mark.parametrize("outcome", [FINE, REFUSED])
def test_a_good_outcome_has_no_problem(outcome: Outcome, case: Case) -> None:
    assert list(problems(case, outcome, Before.of(case))) == []


@pytest.mark.parametrize(("outcome", "problem"), WRONG_OUTCOMES.values(), ids=WRONG_OUTCOMES)
def test_a_wrong_outcome_is_found(outcome: Outcome, problem: str, case: Case) -> None:
    (found,) = problems(case, outcome, Before.of(case))
    assert problem in found


def test_control_characters_are_found(case: Case) -> None:
    for text in ("\x1b[31m", "\r", "\x9b5m", "\x07"):
        (found,) = problems(case, replace(FINE, stdout=text), Before.of(case))
        assert "control character" in found
    assert list(problems(case, replace(FINE, stdout="a\tb\n"), Before.of(case))) == []


CHANGES: dict[str, tuple[Callable[[Case], object], str]] = {
    "a changed file": (lambda case: (case.victim / "diary.txt").write_text("x", encoding="utf-8"), "diary.txt"),
    "a removed file": (lambda case: (case.victim / "checkpoints/2019/photo.png").unlink(), "photo.png"),
    "a new file": (lambda case: (case.victim / "new").touch(), "new"),
    "a touched file": (lambda case: os.utime(case.victim / "photo.png", (0, 0)), "photo.png"),
    "a replaced link": (lambda case: (case.victim / "link").rename(case.victim / "photo.png"), "photo.png"),
    "a mark": (lambda case: (case.cwd / "THE PLANTED CODE HAS RUN").touch(), "PLANTED"),
    "a refused request": (lambda case: (case.cwd / "run" / "summary.json").unlink(), "summary.json"),
}


@pytest.mark.parametrize(("change", "name"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_found(change: Callable[[Case], object], name: str, case: Case) -> None:
    before = Before.of(case)
    change(case)
    found = list(problems(case, REFUSED, before))
    assert found
    assert all(name in problem for problem in found)


def test_a_command_may_make_what_its_arguments_name(case: Case) -> None:
    case.named.add("output")
    before = Before.of(case)
    (case.cwd / "output").touch()
    (case.cwd / "run" / "evaluation.json").touch()
    assert list(problems(case, FINE, before)) == []


FAULTS = """
import mnist_trainer.cli as cli
import os, sys, time

def main(arguments):
    name, *rest = arguments
    if name == "raise":
        raise LookupError("of the program")
    elif name == "abort":
        os.abort()
    elif name == "sleep":
        time.sleep(1000)
    elif name == "allocate":
        b"x" * 2 * 2**30
    elif name == "write":
        open(rest[0], "w").close()
        os.mkdir(rest[0] + " folder")
    print("done")
    return 0

cli.main = main
"""
"""A `sitecustomize` module that replaces the program by one that does the wrong thing that its first argument names."""


@pytest.mark.slow
@pytest.mark.process
def test_a_worker_reports_what_the_program_does(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULTS, encoding="utf-8")
    worker = Worker(tmp_path / "worker", PYTHONPATH=f"{tmp_path}:{REPOSITORY}")

    def run(*arguments: str | Path, seconds: float = LIMIT_SECONDS) -> Outcome:
        monkeypatch.setattr(fuzz, "LIMIT_SECONDS", seconds)
        case.arguments = [str(argument) for argument in arguments]
        return worker.run(case)

    try:
        assert run("nothing") == Outcome(0, "done\n", "")
        assert "LookupError: of the program" in run("raise").stderr
        assert "MemoryError" in run("allocate").stderr
        elsewhere = tmp_path / "elsewhere"
        assert run("write", elsewhere).written == (str(elsewhere), f"{elsewhere} folder")
        assert run("write", case.cwd / "here").written == ()
        aborted = run("abort")
        assert aborted.code is None
        assert f"-{signal.SIGABRT.value}" in aborted.end
        assert "sitecustomize.py" in aborted.end
        asleep = run("sleep", seconds=1)
        assert asleep.code is None
        assert "no end" in asleep.end
        assert "sitecustomize.py" in asleep.end
        assert run("nothing").code == 0
    finally:
        worker.close()


def test_every_alteration_is_in_the_sample() -> None:
    from fuzzing import checkpoints, folders, parameters, pictures

    tables: dict[str, Sequence[object]] = {
        "checkpoint": checkpoints._CHECKPOINTS,
        "parameters": parameters._PARAMETERS,
        "picture": pictures._PICTURES,
        "folder": folders._FOLDER_USES,
    }
    for kind, table in tables.items():
        assert SAMPLE[kind] >= len(table), kind
