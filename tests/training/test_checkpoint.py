"""Checkpoints: they are complete or absent, damage is detected, untrusted files are harmless, and one process writes."""

import ast
import copy
import hashlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot
from programs import REPOSITORY, new_environment
from small_runs import SMALL, assert_same_run, changed, checkpoints, contents, edit_json, resume_run, sign, spare_time, train

from mnist_trainer import cli
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.distributed.process_group import SINGLE_PROCESS
from mnist_trainer.errors import WRONG_REQUEST, Interrupted, RequestError, RunError
from mnist_trainer.folder import Folder
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.training import checkpoint as checkpoint_module
from mnist_trainer.training import checkpointer as checkpointer_module
from mnist_trainer.training import experiment
from mnist_trainer.training.checkpoint import DamagedError, read, write
from mnist_trainer.training.checkpointer import Checkpointer
from mnist_trainer.training.early_stopping import EarlyStopping
from mnist_trainer.training.records import EpochMetrics, LoopState, Scores
from mnist_trainer.training.resume import latest_checkpoint, load_state

FILES = ("arrays.npz", "state.json", "manifest.json")

FOUR_CHECKPOINTS = changed(SMALL, checkpoint={"every_iterations": 5, "keep": 4})
SAVED = [5, 10, 11, 15]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run that is stopped in its second epoch, with four checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        spare_time(patch)
        path = train(FOUR_CHECKPOINTS, tmp_path_factory.mktemp("stopped") / "run", 15)
    assert checkpoints(path) == SAVED
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the same run without a stop."""
    with pytest.MonkeyPatch.context() as patch:
        spare_time(patch)
        return train(FOUR_CHECKPOINTS, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def damaged(stopped: Path, tmp_path: Path) -> Path:
    """Copy the stopped run, for a test to damage."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def _of(path: Path, iteration: int) -> Path:
    return path / "checkpoints" / f"{iteration:08}"


def _found(path: Path) -> tuple[int | None, list[str]]:
    """Return the iteration of the latest usable checkpoint, and the messages about skipped ones."""
    messages: list[str] = []
    try:
        checkpoint = latest_checkpoint(RunFolder(path), messages.append)
    except RequestError:  # there are checkpoints, but none can be used
        checkpoint = None
    return None if checkpoint is None else checkpoint.iteration, messages


# --- untrusted files


def test_the_package_never_executes_the_content_of_a_file() -> None:
    for path in sorted((REPOSITORY / "mnist_trainer").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            roots = {name.partition(".")[0] for name in (*imported, module)}
            assert not roots & {"pickle", "cPickle", "_pickle", "dill", "shelve", "marshal", "joblib"}, path
            assert "torch" not in roots or path.name == "torch_eager.py", path  # the benchmark reads no file with it
            if isinstance(node, ast.Name):
                assert node.id not in ("eval", "exec", "__import__"), f"{path}:{node.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, ast.Attribute):
                # These methods of MXNet and Gluon use pickle.
                assert node.attr not in ("load_states", "set_states", "save_states", "get_states"), f"{path}:{node.lineno}"
                assert ast.unparse(node) not in ("torch.load", "torch.jit", "torch.hub"), f"{path}:{node.lineno}"


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["evil", "parameter.0", "numpy_random", "optimizer.0"])
def test_a_pickled_object_in_a_checkpoint_is_not_unpickled(name: str, damaged: Path, whole: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    archive = _of(damaged, 15) / "arrays.npz"
    arrays = read(Folder(_of(damaged, 15))).arrays
    np.savez(archive, **arrays | {name: np.array([_Evil(mark)], dtype=object)})  # type: ignore[arg-type]
    sign(_of(damaged, 15))
    complaints: list[str] = []
    resume_run(damaged, complain=complaints.append)
    assert not mark.exists()
    (complaint,) = complaints
    assert_names(complaint, str(_of(damaged, 15)), "the arrays of the state" if name == "evil" else "an array of objects")
    assert_same_run(damaged, whole)
    with np.load(archive_of_evil(tmp_path, mark), allow_pickle=True) as unsafe:
        assert unsafe["evil"] is not None  # creates the folder
    assert mark.exists()


def archive_of_evil(folder: Path, mark: Path) -> Path:
    np.savez(folder / "evil.npz", evil=np.array([_Evil(mark)], dtype=object))
    return folder / "evil.npz"


STRANGE_STATES: dict[str, Callable[[Any], object]] = {
    "another format": lambda state: state.update(format=1),
    "no iteration": lambda state: state.pop("iteration"),
    "iteration of text": lambda state: state.update(iteration="many"),
    "negative iteration": lambda state: state.update(iteration=-1),
    "no loop": lambda state: state.pop("loop"),
    "epoch 0": lambda state: state["loop"].update(epoch=0),
    "epoch of text": lambda state: state["loop"].update(epoch="1"),
    "half a batch": lambda state: state["loop"].update(batch=0.5),
    "scores of two numbers": lambda state: state["loop"].update(scores=[[1, 2]]),
    "no files": lambda state: state.pop("files"),
    "a file elsewhere": lambda state: state["files"].update({"../../../dev/zero": {"bytes": 10**12, "sha256": ""}}),
    "a file of 100 digits": lambda state: state["files"]["iterations.csv"].update(bytes=10**100),
    "no metrics": lambda state: state["files"].pop("metrics.jsonl"),
    "negative length": lambda state: state["files"]["iterations.csv"].update(bytes=-1),
    "no state of Python's generator": lambda state: state.pop("python_random"),
    "an unknown entry": lambda state: state.update(more=[{}] * 1000),
    "no seconds": lambda state: state.pop("seconds"),
    "infinite seconds": lambda state: state.update(seconds=float("inf")),
    "negative seconds": lambda state: state["loop"].update(epoch_seconds=-1.0),
    "a score of 1e308": lambda state: state["loop"]["scores"][0].__setitem__(0, 1e308),
    "a score that is not a number": lambda state: state["loop"]["scores"][0].__setitem__(0, float("nan")),
    "counts of 400 digits": lambda state: state["loop"]["scores"].__setitem__(0, [1.0, 10**399, 10**399]),
    "more images than in a batch": lambda state: state["loop"]["scores"].__setitem__(0, [1.0, 1, 9]),
    "the optimizer is null": lambda state: state.update(optimizer=None),
    "a state of the optimizer without its array": lambda state: state["optimizer"]["states"].update({"2": None}),
    "an array that is not there": lambda state: state["optimizer"]["states"].update({"2": "optimizer.9"}),
    "no configuration": lambda state: state.pop("config"),
    "a configuration of another kind": lambda state: state.update(config=[1]),
    "an unknown key": lambda state: state["config"]["training"].update(luck=7),
}


@pytest.mark.parametrize("strange", STRANGE_STATES)
def test_an_inconsistent_state_with_a_matching_manifest_is_skipped(strange: str, damaged: Path) -> None:
    edit_json(_of(damaged, 15) / "state.json", STRANGE_STATES[strange])
    sign(_of(damaged, 15))
    found, (complaint,) = _found(damaged)
    assert found == 11
    assert_names(complaint, str(_of(damaged, 15)))


@pytest.mark.parametrize("name", ["arrays.npz", "state.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 10_000, b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\xff\xfe\x00"])
def test_a_file_of_another_kind_with_a_matching_manifest_is_skipped(name: str, content: bytes, damaged: Path) -> None:
    (_of(damaged, 15) / name).write_bytes(content)
    sign(_of(damaged, 15))
    found, (complaint,) = _found(damaged)
    assert found == 11
    assert_names(complaint, str(_of(damaged, 15)))
    assert "\n" not in complaint


STRANGE_CONTENTS: dict[str, Callable[[dict[str, Any], Any], object]] = {
    "a parameter has another shape": lambda arrays, _: arrays.update({"parameter.3": np.zeros(3, np.float32)}),
    "a parameter has another type": lambda arrays, _: arrays.update({"parameter.1": np.zeros(10, np.int8)}),
    "the optimizer has a pair for an array": lambda _, state: state["optimizer"]["states"].update({"2": ["optimizer.2", 1]}),
    "the optimizer has a list for an array": lambda _, state: state["optimizer"]["states"].update({"2": ["optimizer.2"]}),
    "the optimizer has an array of another shape": lambda arrays, _: arrays.update({"optimizer.2": np.zeros(3, np.float32)}),
    "the optimizer has an array of another type": lambda arrays, _: arrays.update({"optimizer.1": np.zeros(10)}),
    "the optimizer has a state for a parameter that is not there": lambda arrays, state: (
        arrays.update({"optimizer.8": np.zeros(10, np.float32)}),
        state["optimizer"]["states"].update({"8": "optimizer.8"}),
    ),
    "the optimizer has no states": lambda arrays, state: (
        [arrays.pop(name) for name in list(arrays) if name.startswith("optimizer.")],
        state["optimizer"].update(states={}),
    ),
    "the optimizer has a number of another": lambda _, state: state["optimizer"]["numbers"].update(m_schedule=1.0),
    "numpy's position is beyond its keys": lambda _, state: state["numpy_random"].__setitem__(1, 10**6),
    "numpy's position is negative": lambda _, state: state["numpy_random"].__setitem__(1, -1),
    "the random state is short": lambda arrays, _: arrays.update(numpy_random=np.zeros(3, np.uint32)),
    "the schedule has a state": lambda _, state: state.update(schedule={"reductions": 3}),
}


@pytest.mark.parametrize("strange", STRANGE_CONTENTS)
def test_a_checkpoint_that_does_not_match_is_refused_and_changes_nothing(
    strange: str, damaged: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _of(damaged, 15)
    checkpoint = read(Folder(path))
    arrays, state = checkpoint.arrays, dict(checkpoint.state)
    STRANGE_CONTENTS[strange](arrays, state)
    np.savez(path / "arrays.npz", **arrays)  # type: ignore[arg-type]
    (path / "state.json").write_text(json.dumps(state), encoding="utf-8")
    sign(path)
    before = contents(damaged)
    assert cli.main(["train", "--quiet", "--resume", str(damaged)]) == WRONG_REQUEST
    *_, sentence = capsys.readouterr().err.splitlines()
    assert_names(sentence, str(path), f"move {path}")
    assert contents(damaged) == before
    path.rename(damaged.parent / "elsewhere")
    assert_same_run(resume_run(damaged), whole)


def test_the_advice_does_not_remove_the_only_checkpoint(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _of(damaged, 15)
    for other in (damaged / "checkpoints").iterdir():
        if other != path:
            shutil.rmtree(other)
    edit_json(path / "state.json", lambda state: state.update(schedule={"reductions": 3}))
    sign(path)
    assert cli.main(["train", "--quiet", "--resume", str(damaged)]) == WRONG_REQUEST
    *_, sentence = capsys.readouterr().err.splitlines()
    assert "move" not in sentence  # without it, the run would start from the beginning and discard its files
    assert_names(sentence, str(path), f"mnist-trainer train --config {damaged / 'config.toml'}")


def _archive_with(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    def write_archive(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            kept = {member.filename: archive.read(member) for member in archive.infolist()}
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in (kept | members).items():
                archive.writestr(name, data)

    return write_archive


def _array_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(1, np.float32))
    header, _, data = stream.getvalue().partition(b"(1,), }")
    return header + f"{shape}, }}".encode() + data[len(f"{shape}") - len("(1,)") :]


def _overlap(path: Path) -> None:
    """Let the directory of the archive name the largest member many times under the names of the others."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        largest = max(members, key=lambda member: member.file_size)
        start = archive.start_dir
    directory = io.BytesIO()
    with zipfile.ZipFile(directory, "w") as archive:
        for member in members:
            other = copy.copy(largest)
            other.filename = member.filename
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
        archive.start_dir = 0
        archive._didModify = True  # type: ignore[attr-defined]
    end = bytearray(directory.getvalue())
    end[-6:-2] = struct.pack("<I", start)
    path.write_bytes(content[:start] + bytes(end))


def _fill_directory(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(30_000):
            archive.mkdir(f"folder {number}")


STRANGE_ARCHIVES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a member too many": (_archive_with({"more.npy": b""}), "the arrays of the state"),
    "compressed": (_archive_with({}, zipfile.ZIP_DEFLATED), "compressed"),
    "a bomb": (_archive_with({"parameter.1.npy": bytes(2**28)}, zipfile.ZIP_BZIP2), "compressed"),
    "members that overlap": (_overlap, "compressed"),
    "a header of 10¹² numbers": (_archive_with({"parameter.1.npy": _array_header((10**12,))}), "another size"),
    "a large directory": (_fill_directory, "the arrays of the state"),
    "a comment": (lambda path: path.write_bytes(path.read_bytes()[:-2] + b"\1\0x"), "the arrays of the state"),
    "nothing": (lambda path: path.write_bytes(b""), "not a valid checkpoint"),
    "a sparse file": (lambda path: os.truncate(path, 100 * 2**30), "more than"),
}


@pytest.mark.parametrize("strange", STRANGE_ARCHIVES)
def test_an_archive_is_checked_before_it_is_unpacked(strange: str, damaged: Path) -> None:
    make, reason = STRANGE_ARCHIVES[strange]
    make(_of(damaged, 15) / "arrays.npz")
    if strange != "a sparse file":  # to hash it would take a minute
        sign(_of(damaged, 15))
    tracemalloc.start()
    try:
        found, (complaint,) = _found(damaged)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 11
    assert_names(complaint, str(_of(damaged, 15)), reason)
    assert peak < 32 * 2**20


HEADER = b"iteration,learning_rate,loss\n"

GARBAGE = [
    ("iterations.csv", HEADER + "²,0.1,1.0\n".encode()),  # str.isdigit accepts the digit, int does not
    ("iterations.csv", b"1,0.1,1.0\n"),
    ("iterations.csv", HEADER + b"1,fast,1.0\n"),
    ("iterations.csv", HEADER + b"1,0.1,1.0\n"),  # of 15 iterations
    ("iterations.csv", b"\0" * 1000),
    ("metrics.jsonl", b"{}\n"),
    ("metrics.jsonl", b"[]\n"),
    ("metrics.jsonl", b"null"),
    ("metrics.jsonl", b'{"epoch": 1}\n'),
    ("metrics.jsonl", b"[" * 10_000),
    ("metrics.jsonl", b'{"epoch": 1, "train_loss": NaN}\n'),
    ("metrics.jsonl", b"\xff\n"),
]


@pytest.mark.parametrize(("name", "garbage"), GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_with_the_right_hash_is_found_before_the_training(name: str, garbage: bytes, damaged: Path) -> None:
    (damaged / name).write_bytes(garbage)
    recorded = {"bytes": len(garbage), "sha256": hashlib.sha256(garbage).hexdigest()}
    for iteration in SAVED:
        edit_json(_of(damaged, iteration) / "state.json", lambda state: state["files"].update({name: recorded}))
        sign(_of(damaged, iteration))
    found, messages = _found(damaged)
    assert found is None
    assert len(messages) == len(SAVED)
    assert all(str(damaged) in message for message in messages)


# --- damage

Damage = Callable[[random.Random, Path, Path], object]


def _flip(chance: random.Random, path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _truncate(chance: random.Random, path: Path, _: Path) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _insert(chance: random.Random, path: Path, _: Path) -> None:
    content = path.read_bytes()
    place = chance.randrange(len(content))
    path.write_bytes(content[:place] + bytes([chance.randrange(128, 256)]) + content[place:])


def _zero(chance: random.Random, path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    content[place : place + 512] = bytes(len(content[place : place + 512]))
    path.write_bytes(content)


def _into_folder(_: random.Random, path: Path, __: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "bit flipped": _flip,
    "truncated": _truncate,
    "byte inserted": _insert,
    "zeros written": _zero,
    "emptied": lambda _, path, __: path.write_bytes(b""),
    "deleted": lambda _, path, __: path.unlink(),
    "garbage appended": lambda chance, path, _: path.write_bytes(path.read_bytes() + chance.randbytes(20)),
    "of another checkpoint": lambda _, path, other: path.write_bytes(other.read_bytes()),
    "a folder in its place": _into_folder,
}


def _random_damage(chance: random.Random, path: Path) -> str:
    """Damage one file, or the same file of several checkpoints; return a description."""
    which = chance.choice([*FILES, *FILES, "iterations.csv", "metrics.jsonl"])
    how = chance.choice(list(DAMAGES))
    if which in FILES:
        hit = chance.choice([SAVED[-1:], SAVED[-1:], SAVED[-2:], chance.sample(SAVED, 2), SAVED])
        for iteration in hit:
            other = _of(path, chance.choice([candidate for candidate in SAVED if candidate != iteration])) / which
            DAMAGES[how](chance, _of(path, iteration) / which, other if other.is_file() else path / "iterations.csv")
    else:
        hit = []
        DAMAGES[how](chance, path / which, path / "config.toml")
    return f"{which} of {hit}: {how}"


def _expected(path: Path, whole: dict[str, bytes], prefixes: dict[int, dict[str, int]]) -> int | None:
    """Return the latest checkpoint that is undamaged, by comparison with the original files."""
    now = contents(path)
    for iteration in reversed(SAVED):
        names = [f"checkpoints/{iteration:08}/{name}" for name in FILES]
        intact = all(now.get(name) == whole[name] for name in names)
        if intact and all(now.get(name, b"")[:end] == whole[name][:end] for name, end in prefixes[iteration].items()):
            return iteration
    return None


@pytest.mark.slow
def test_each_of_250_random_damages_is_detected(stopped: Path, whole: Path, tmp_path: Path) -> None:
    undamaged = contents(stopped)
    prefixes = {
        iteration: {name: prefix["bytes"] for name, prefix in read(Folder(_of(stopped, iteration))).state["files"].items()}
        for iteration in SAVED
    }
    chance = random.Random(20)
    outcomes: dict[int | None, int] = {}
    for number in range(250):
        path = tmp_path / str(number)
        shutil.copytree(stopped, path)
        done = _random_damage(chance, path)
        expected = _expected(path, undamaged, prefixes)
        found, messages = _found(path)
        assert found == expected, done
        assert len(messages) == sum(expected is None or iteration > expected for iteration in SAVED), done
        assert all(sentence.startswith(str(path)) and "\n" not in sentence for sentence in messages), done
        outcomes[expected] = outcomes.get(expected, 0) + 1
        if number % 17 == 0:  # resuming gives the right result
            complaints: list[str] = []
            if expected is None:  # nothing is discarded
                before = contents(path)
                with pytest.raises(RequestError) as caught:
                    resume_run(path, complain=complaints.append)
                assert_names(str(caught.value), str(path), "no checkpoint")
                assert contents(path) == before
            else:
                resume_run(path, complain=complaints.append)
                assert_same_run(path, whole)
            assert complaints == messages
        shutil.rmtree(path)
    assert all(outcomes[which] >= 5 for which in (15, 11, 10, None)), outcomes


def test_without_a_usable_checkpoint_nothing_is_discarded(
    damaged: Path, capsys: pytest.CaptureFixture[str], snapshot: Snapshot
) -> None:
    for iteration in SAVED:
        _flip(random.Random(iteration), _of(damaged, iteration) / "arrays.npz", damaged)
    before = contents(damaged)
    assert cli.main(["train", "--quiet", "--resume", str(damaged)]) == WRONG_REQUEST
    assert contents(damaged) == before
    *complaints, refusal = capsys.readouterr().err.splitlines()
    for complaint, iteration in zip(complaints, reversed(SAVED), strict=True):
        assert_names(complaint, f"{_of(damaged, iteration)}/arrays.npz: ")
    assert_names(refusal, f"{damaged}: ", "no checkpoint")
    snapshot("\n".join((*complaints, refusal)))


def test_checkpoints_with_exchanged_names_are_skipped(damaged: Path, whole: Path) -> None:
    _of(damaged, 5).rename(_of(damaged, 99))
    _of(damaged, 15).rename(_of(damaged, 5))
    _of(damaged, 99).rename(_of(damaged, 15))
    complaints: list[str] = []
    assert_same_run(resume_run(damaged, complain=complaints.append), whole)
    (complaint,) = complaints
    assert_names(complaint, f"{_of(damaged, 15)}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(("loop", "batch"), 999, id="a batch beyond the epoch"),
        pytest.param(("loop", "epoch"), 99, id="an epoch beyond the run"),
        pytest.param(("loop", "scores"), [["x", 1, 64]], id="scores that are text"),
        pytest.param(("files", "iterations.csv", "bytes"), 10**30, id="too many bytes"),
        pytest.param(("files", "iterations.csv", "sha256"), None, id="no checksum"),
        pytest.param(("config", "training", "epochs"), "2", id="epochs that are text"),
        pytest.param(("iteration",), 10**400, id="an iteration that is too large"),
    ],
)
def test_a_state_with_impossible_values_is_skipped(key: tuple[str, ...], value: Any, damaged: Path) -> None:
    path = _of(damaged, 15)
    state = json.loads((path / "state.json").read_bytes())
    place = state
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    (path / "state.json").write_text(json.dumps(state), encoding="utf-8")
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["state.json"] = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found, messages = _found(damaged)
    assert found == 11
    (complaint,) = messages
    assert_names(complaint, f"{_of(damaged, 15)}: ")


def test_files_are_on_the_disk_before_the_checkpoint_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise a power failure may leave empty files under the checkpoint's name.
    done: list[tuple[str, str]] = []
    rename = os.rename

    def fsync(opened: int) -> None:
        done.append(("fsync", Path(f"/proc/self/fd/{opened}").readlink().name))

    def record_rename(name: str, target: str, **folders: int) -> None:
        done.append(("rename", target))
        rename(name, target, **folders)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    train(SMALL, tmp_path / "run", 3)
    name = "00000003"
    end = done.index(("rename", name))
    _, temporary = done[end - 1]
    assert re.fullmatch(rf"\.{name}\.[0-9a-f]{{16}}\.partial", temporary)
    assert done[end - 5 : end + 3] == [
        ("fsync", "iterations.csv"),
        ("fsync", "arrays.npz"),
        ("fsync", "state.json"),
        ("fsync", "manifest.json"),
        ("fsync", temporary),
        ("rename", name),
        ("fsync", "checkpoints"),
        ("fsync", "run"),
    ]


def _mutated(chance: random.Random, value: Any) -> Any:
    """Return the value with one of its parts replaced, removed or put into a list."""
    if isinstance(value, dict | list) and value and chance.random() < 0.9:
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy = value.copy()
        what = chance.random()
        if what < 0.2:
            del copy[key]
        elif what < 0.3:
            copy[key] = [copy[key]]
        else:
            copy[key] = _mutated(chance, copy[key])
        return copy
    return chance.choice([None, True, -1, 0, 1, 2.5, 1e308, 10**30, "", "x", "parameter.0", [], [[]], {}, {"name": 1}])


@pytest.mark.slow
def test_each_of_400_mutated_states_is_skipped_or_refused_or_loaded(damaged: Path) -> None:
    config = FOUR_CHECKPOINTS
    prepared = experiment.prepare(config)
    net, trainer = experiment.create_network_and_trainer(prepared)
    path = _of(damaged, 15)
    state = json.loads((path / "state.json").read_bytes())
    chance = random.Random(4)
    outcomes = {"skipped": 0, "refused": 0, "loaded": 0}
    for _ in range(400):
        (path / "state.json").write_text(json.dumps(_mutated(chance, state)), encoding="utf-8")
        sign(path)
        try:
            checkpoint = read(Folder(path))
        except DamagedError:
            outcomes["skipped"] += 1
            continue
        try:
            load_state(checkpoint, net, trainer)
        except RequestError:
            outcomes["refused"] += 1
        else:
            outcomes["loaded"] += 1
    assert all(count >= 10 for count in outcomes.values()), outcomes


@pytest.mark.parametrize("name", ["iterations.csv", "metrics.jsonl"])
def test_rows_that_claim_a_huge_size_are_not_hashed(name: str, damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2**36  # of zeros, which a file system stores without needing space
    os.truncate(damaged / name, size)
    edit_json(_of(damaged, 15) / "state.json", lambda state: state["files"][name].update(bytes=size))
    sign(_of(damaged, 15))
    hashed: list[int] = []
    monkeypatch.setattr(RunFolder, "prefix_sha256", lambda _folder, _name, length: hashed.append(length))
    _, messages = _found(damaged)
    assert name in messages[0]
    assert size not in hashed


def test_rows_and_files_after_the_checkpoint_are_removed(damaged: Path, whole: Path) -> None:
    for name in ("iterations.csv", "metrics.jsonl"):
        with (damaged / name).open("ab") as stream:
            stream.write(b'16,0.01,1.0\n{"epo')
    shutil.copytree(_of(damaged, 11), _of(damaged, 20))
    (_of(damaged, 20) / "state.json").write_bytes(b"")
    _of(damaged, 20).with_name(".00000021.0123456789abcdef.partial").mkdir()
    (damaged / ".model.params.0123456789abcdef.partial").write_bytes(b"half")
    complaints: list[str] = []
    resume_run(damaged, complain=complaints.append)
    assert len(complaints) == 1
    assert_same_run(damaged, whole)


# --- complete or absent


class _FailsAt:
    """A replacement for `os.fsync` that finds the disk full at the n-th call."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, _stream: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(28, "No space left on device")


def test_a_checkpoint_that_could_not_be_written_leaves_earlier_ones(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = read(Folder(_of(damaged, 15)))
    loop = newest.state["loop"]
    loop = {**loop, "batch": loop["batch"] + 1, "scores": [*loop["scores"], [1.0, 1, 8]]}
    RunFolder(damaged).append_iterations([(16, 0.01, 1.0)])
    files = RunFolder(damaged).digests(["iterations.csv", "metrics.jsonl"])
    state = {**newest.state, "iteration": 16, "loop": loop, "files": files}
    for number in itertools.count(1):
        before = contents(damaged)
        monkeypatch.setattr(os, "fsync", _FailsAt(number))
        try:
            write(RunFolder(damaged), state, newest.arrays)
            break
        except OSError:
            assert not list((damaged / "checkpoints").glob(".*"))
            found, messages = _found(damaged)
            assert messages == []
            if number < 5:  # the last calls are for the folders, when the checkpoint is already complete
                assert found == 15
                assert contents(damaged) == before
            RunFolder(damaged).remove_checkpoint("00000016")
    assert number == 7
    assert _found(damaged) == (16, [])


@pytest.mark.parametrize("number", [4, 5, 6, 7, 9, 12, 15, 18, 20])
def test_a_run_whose_disk_was_full_can_be_resumed(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _FailsAt(number))
        with pytest.raises(OSError, match="No space left"):
            train(changed(SMALL, checkpoint={"every_iterations": 8}), tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()
    assert_same_run(resume_run(tmp_path / "run"), whole)


# --- when checkpoints are saved, and how many are kept


class _Run:
    """The parts of a run that a `Checkpointer` uses."""

    def __init__(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, config: RunConfig, stop: bool = False, completed: Any = ()
    ) -> None:
        self.now = 1000.0
        self.rows = list(completed)
        self.iteration = 0
        self.learning_rate = 0.1
        self.process_group = SINGLE_PROCESS
        trainer: Any = self
        self.trainer = trainer
        known: dict[str, Any] = {
            "format": checkpoint_module.FORMAT,
            "loop": {"epoch": 1, "batch": 0, "scores": [], "epoch_seconds": 0.0},
            "optimizer": {"states": {}},
            "schedule": {},
            "numpy_random": [],
            "python_random": [],
        }
        arrays = {"parameter.0": np.ones(3), "numpy_random": np.ones(3)}
        monkeypatch.setattr(checkpointer_module, "capture", lambda *_: ({**known, "iteration": self.iteration}, arrays))
        monkeypatch.setattr(checkpoint_module, "_is_consistent", lambda _: True)  # this state is incomplete
        monkeypatch.setattr(checkpointer_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.path = path
        for name in ("iterations.csv", "metrics.jsonl"):
            (path / name).touch()
        self.early_stopping = EarlyStopping(completed=completed)
        folder = RunFolder(path)
        self.checkpointer = Checkpointer(folder, config, None, trainer, self.early_stopping, stop_requested=lambda: stop)

    def save(self, iteration: int, loss: float | None = None, validation_loss: float | None = None) -> list[int]:
        self.iteration = iteration
        if loss is None:
            self.checkpointer.save(LoopState())
            return checkpoints(self.path)
        metrics = EpochMetrics(
            epoch=1,
            iteration=iteration,
            learning_rate=0.1,
            train=Scores(loss, 1, 2),
            test=Scores(100.0 - loss, 1, 2),
            epoch_seconds=1.0,
            test_seconds=1.0,
            validation=None if validation_loss is None else Scores(validation_loss, 1, 2),
            hyperparameters={},
        )
        self.rows.append(metrics.to_row())
        for callback in (self.early_stopping, self.checkpointer):
            callback.on_epoch_end(metrics, LoopState())
        return checkpoints(self.path)


def test_the_latest_and_the_best_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Run(tmp_path, monkeypatch, changed(SMALL, checkpoint={"keep": 2}))
    assert run.save(5) == [5]
    assert run.save(10, loss=0.9) == [5, 10]
    assert run.save(15) == [10, 15]
    assert run.save(20, loss=0.5) == [15, 20]  # the best is among the newest
    assert run.save(25) == [20, 25]
    assert run.save(30, loss=0.7) == [20, 25, 30]
    assert run.save(35) == [20, 30, 35]
    assert run.save(40, loss=0.5) == [20, 35, 40]  # as good, but later
    assert run.save(50, loss=0.4) == [40, 50]
    again = _Run(tmp_path, monkeypatch, changed(SMALL, checkpoint={"keep": 1}), completed=run.rows)  # finds the best again
    assert again.save(55) == [50, 55]
    assert again.save(60, loss=0.6) == [50, 60]
    assert again.save(70, loss=0.3) == [70]


def test_the_best_is_chosen_by_the_validation_loss_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Run(tmp_path, monkeypatch, changed(SMALL, checkpoint={"keep": 1}))
    run.save(10, loss=0.9, validation_loss=0.2)
    assert run.save(20, loss=0.5, validation_loss=0.3) == [10, 20]
    assert run.save(30, loss=0.4, validation_loss=0.1) == [30]


def test_a_checkpoint_is_due_after_a_number_of_iterations_or_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(SMALL, checkpoint={"every_iterations": 100, "every_minutes": 2})
    run = _Run(tmp_path, monkeypatch, config)
    due = []
    for iteration in range(1, 400):
        run.iteration = iteration
        if run.checkpointer.wants_sync(run.trainer):
            due.append(iteration)
            run.save(iteration)
        if iteration == 250:
            run.save(iteration)  # as at the end of an epoch, where the count starts again
    assert due == [100, 200, 350]
    run.now += 119.9
    run.iteration = 407
    assert not run.checkpointer.wants_sync(run.trainer)
    run.now += 0.2
    assert run.checkpointer.wants_sync(run.trainer)
    run.save(407)
    run.iteration = 408
    assert not run.checkpointer.wants_sync(run.trainer)
    run.now += 121
    assert run.checkpointer.wants_sync(run.trainer)


def test_a_request_to_stop_saves_immediately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Run(tmp_path, monkeypatch, SMALL, stop=True)
    run.iteration = 7
    assert run.checkpointer.wants_sync(run.trainer)
    with pytest.raises(Interrupted) as caught:
        run.save(7)
    assert caught.value.iteration == 7
    assert str(caught.value) == f"interrupted after iteration 7 of {SMALL.run_length.total_iterations}"
    assert checkpoints(tmp_path) == [7]


def test_seconds_continue_after_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Run(tmp_path, monkeypatch, SMALL)
    run.now += 30
    run.save(1)
    assert read(Folder(_of(tmp_path, 1))).seconds == run.checkpointer.seconds == 30
    run.checkpointer = Checkpointer(RunFolder(tmp_path), SMALL, None, run.trainer, run.early_stopping, seconds_before=30)
    run.now += 5
    assert run.checkpointer.seconds == 35


def test_a_clock_that_jumps_changes_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle([0.0, 4e9, 1.0, 2e9])
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: next(jumps))
        train(SMALL, tmp_path / "run", 15)
        resume_run(tmp_path / "run")
    assert checkpoints(tmp_path / "run") == [15, 22]
    assert_same_run(tmp_path / "run", whole)


# --- one writer


HOLD = """
import sys
from pathlib import Path
from mnist_trainer.run_folder import RunFolder
folder = getattr(RunFolder, sys.argv[1])(Path(sys.argv[2]))
folder.lock()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[str, Path], "subprocess.Popen[str]"]]:
    """Start processes that hold the lock of a run folder."""
    started = []

    def start(how: str, path: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, how, str(path)],
            env=new_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.process
def test_a_run_folder_has_one_writer_and_is_free_when_it_is_killed(
    hold: Callable[[str, Path], "subprocess.Popen[str]"], damaged: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = hold("open", damaged)
    before = contents(damaged)
    assert cli.main(["train", "--quiet", "--resume", str(damaged)]) == WRONG_REQUEST
    (sentence,) = capsys.readouterr().err.splitlines()
    assert_names(sentence, f"{damaged}: ", "another process")
    assert contents(damaged) == before
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert_same_run(resume_run(damaged), whole)


@pytest.mark.process
def test_an_empty_folder_that_another_process_has_taken_is_refused(
    hold: Callable[[str, Path], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    hold("create", path)
    assert list(path.iterdir()) == []
    with pytest.raises(RequestError) as caught:
        RunFolder.create(path)
    assert_names(str(caught.value), f"{path}: ", "another process")


def test_the_lock_is_released_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        folder = RunFolder.open(tmp_path)
        folder.lock()
        folder.lock()
        with pytest.raises(RequestError):
            RunFolder.open(tmp_path).lock()
        del folder
    assert len(os.listdir("/proc/self/fd")) == opened  # noqa: PTH208


def test_a_damaged_checkpoint_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DamagedError) as missing:
        read(Folder(tmp_path))
    assert_names(str(missing.value), f"{tmp_path / 'manifest.json'}: ", "No such file")
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    for name in FILES[:2]:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DamagedError) as empty:
        read(Folder(tmp_path))
    assert_names(str(empty.value), f"{tmp_path}: ", "'state.json'")


def test_a_checkpoint_that_could_not_be_read_is_not_written(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = read(Folder(_of(stopped, 15)))
    monkeypatch.setattr(checkpoint_module, "_MAX_ARRAYS_BYTES_OF_USERS_NETWORK", 1000)
    with pytest.raises(RunError, match="too large"):
        write(RunFolder(tmp_path), checkpoint.state, checkpoint.arrays)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_has_the_captured_state(stopped: Path) -> None:
    checkpoint = read(Folder(_of(stopped, 15)))
    assert (checkpoint.loop_state.epoch, checkpoint.loop_state.batch, len(checkpoint.loop_state.scores)) == (2, 4, 4)
    resolved = checkpoint.config
    assert resolved == replace(FOUR_CHECKPOINTS, model=resolved.model, runtime=resolved.runtime)
    assert resolved.model.backend in ("stock", "fused")
    assert {path.name for path in _of(stopped, 15).iterdir()} == set(FILES)
