"""Checkpoints and rows that someone has altered and signed, in runs to resume."""

import io
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from small_runs import sign

from fuzzing.case import Case
from fuzzing.values import (
    CONTROL,
    HUGE,
    JSON_VALUES,
    doubled,
    emptied,
    flipped,
    inserted,
    places_in,
    recoded,
    replace_in_json,
    truncated,
)
from mnist_trainer.run_folder import CHECKPOINT_FILES


def checkpoint(case: Case) -> None:
    """Alter a checkpoint or the rows of a stopped run, and resume it."""
    shutil.copytree(case.row(case.library.stopped), case.run)
    folder = sorted((case.run / "checkpoints").iterdir())[-1]
    if case.chance.random() < 0.7:  # otherwise the run resumes from the checkpoint before
        for other in sorted((case.run / "checkpoints").iterdir())[:-1]:
            shutil.rmtree(other)
    if case.chance.random() < 0.2:
        _state_value(case, folder)
    alter = case.row(_CHECKPOINTS)
    case.alterations.append(alter.__name__)
    signs = alter(case, folder) is not False
    if signs and (folder / "arrays.npz").exists() and (folder / "state.json").exists():
        sign(folder)
    case.use("train", "--resume", case.run, "--quiet")


_STATE_VALUES = {
    "optimizer/states": 'null 1 [] {} "optimizer.0" {"0":null} {"-1":null} {"x":null} {"99":"parameter.0"}',
    "optimizer/states/0": 'null 0.5 1e308 NaN true [] {} [1,2] DEEP "parameter.0" "numpy_random" "nowhere" "optimizer.1"',
    "optimizer/states/1": '["optimizer.1"] [null,"optimizer.1"] ["optimizer.1","optimizer.1"] [["optimizer.1"],[]]',
    "optimizer/numbers": 'null [] {"m_schedule":1e400} {"m_schedule":"x"} {"lr":1} {"__class__":1} {"cur_lr":0}',
    "optimizer/numbers/m_schedule": '0 NaN 1e308 HUGE -1 true null "1" 5e-324',
    "numpy_random": 'null [] {} ["MT19937"] "MT19937" ["MT19937",1,0,0.0,0]',
    "numpy_random/0": '"PCG64" "" null 5 "MT19937\\u0000" LONG',
    "numpy_random/1": '625 -1 1000000000 2147483648 9223372036854775808 624.0 null true "1" HUGE',
    "numpy_random/2": '2 -1 null "x" HUGE []',
    "numpy_random/3": 'NaN 1e308 null "x" HUGE',
    "python_random": 'null [] [2,[],null] [3,[1],null] [3,"x",null] [4,[],null]',
    "python_random/1/624": '625 -1 1000000 HUGE 0.5 "x"',
    "python_random/1/0": "-1 4294967296 HUGE 0.5 null true",
    "python_random/2": '1e308 NaN "x" [] HUGE',
    "loss": '1e308 NaN Infinity -1 HUGE "1" [] null true',
    "iteration": '0 -1 1 1000000 4611686018427387903 HUGE 10.0 true "10" null',
    "loop": "null [] {}",
    "loop/epoch": "0 -1 3 1000000 HUGE 1.0 true null",
    "loop/batch": "-1 0 11 1000000 HUGE 1.0 null",
    "loop/scores": "null {} [] [[]] [[1,2]] [null] [[0,0,0]] 5 MANY",
    "loop/scores/0": "[NaN,1,8] [1e308,1,8] [1,-1,8] [1,9,8] [1,HUGE,HUGE] [1,1,0] [1,1,8,8] null",
    "loop/epoch_seconds": '-1 NaN 1e308 null HUGE "x" 999999999999',
    "seconds": '-1 NaN 1e308 null HUGE "x" 999999999999',
    "files": 'null {} [] {"../../../victim/diary.txt":{"bytes":1,"sha256":""}} {"iterations.csv":null}',
    "files/iterations.csv/bytes": '0 -1 1 4611686018427387903 HUGE 10.5 null true "1"',
    "files/iterations.csv/sha256": 'null "" "x" [] 1',
    "schedule": 'null [] {"x":1} {"factor":1e308} {"best":NaN} {"level":-1} {"drops":[[]]} {"__class__":1}',
    "config": 'null [] {} {"training":{}} {"training":{"epochs":1e400}}',
    "config/training/epochs": '0 -1 1000000 HUGE 1e308 "2" null true',
    "config/training/batch_size": '0 -1 HUGE 1e-300 "8" null 60000',
    "config/data/train_images": '0 -1 60001 HUGE null "84"',
    "config/model/network": '"PLANTED" "os:abort" 1 [] "\\u001b[31m:x"',
    "config/schedule/name": '"PLANTED" "os:abort" 1 [] null',
    "config/runtime/device": '"gpu" "\\u001b[31m" 1 null "cpu:0,1"',
    "format": '2 4 null "3" 3.0 true HUGE "\\u001b[31m"',
}
"""Place in the state → hostile values as JSON, separated by spaces. Words in capitals stand for long values."""

_LONG_VALUES = {
    "HUGE": HUGE,
    "DEEP": "[" * 900 + "]" * 900,
    "LONG": '"' + "M" * 1000 + '"',
    "MANY": "[" + "[1.0,1,8]," * 20_000 + "[1,1,8]]",
}


def _state_value(case: Case, folder: Path) -> None:
    _replace_state_value(case, folder, case.chance.choice(list(_STATE_VALUES)))


def _state_value_from_table(case: Case, folder: Path) -> None:
    _replace_state_value(case, folder, case.row(list(_STATE_VALUES), len(_CHECKPOINTS)))


def _replace_state_value(case: Case, folder: Path, name: str) -> None:
    value = case.chance.choice(_STATE_VALUES[name].split())
    for word, long_value in _LONG_VALUES.items():
        value = value.replace(word, long_value)
    place = tuple(int(part) if part.isdigit() and not name.startswith("optimizer") else part for part in name.split("/"))
    replace_in_json(folder / "state.json", place, value.replace("PLANTED", case.plant()))


def _any_state_value(case: Case, folder: Path) -> None:
    state = json.loads((folder / "state.json").read_bytes())
    places = list(places_in(state))
    replace_in_json(folder / "state.json", case.chance.choice(places), case.chance.choice(JSON_VALUES))


def _removed_state_value(case: Case, folder: Path) -> None:
    state = json.loads((folder / "state.json").read_bytes())
    *parents, name = case.chance.choice(list(places_in(state)))
    holder = state
    for parent in parents:
        holder = holder[parent]
    del holder[name]
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


def _state_as_bytes(case: Case, folder: Path) -> None:
    content = (folder / "state.json").read_bytes()
    changes = (truncated, flipped, inserted, recoded, emptied)
    (folder / "state.json").write_bytes(case.chance.choice(changes)(case.chance, content))


def _load(folder: Path) -> dict[str, Any]:
    with np.load(folder / "arrays.npz", allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


_ARRAY_CHANGES: dict[str, Callable[[Any], Any]] = {
    "float64": lambda a: a.astype("f8"),
    "float16": lambda a: (a / 4e9).astype("f2"),
    "whole": lambda a: a.astype("i4"),
    "complex": lambda a: a.astype("c8"),
    "text": lambda a: a.astype("S4"),
    "bool": lambda a: a.astype("?"),
    "swapped bytes": lambda a: a.astype(a.dtype.newbyteorder()),
    "structured": lambda a: np.zeros(a.shape, [("a", "f4")]),
    "dates": lambda a: np.zeros(a.shape, "M8[s]"),
    "objects": lambda a: a.astype(object),
    "flat": lambda a: a.ravel(),
    "transposed": lambda a: a.T,
    "scalar": lambda a: a.ravel()[0],
    "empty": lambda a: a[:0],
    "one more": lambda a: np.concatenate([a, a]),
    "one dimension more": lambda a: a[np.newaxis],
    "32 dimensions": lambda a: a.reshape(a.shape + (1,) * (32 - a.ndim)),
    "NaN": lambda a: np.full_like(a, np.nan) if a.dtype.kind == "f" else a,
    "infinite": lambda a: np.full_like(a, -np.inf) if a.dtype.kind == "f" else a,
    "huge": lambda a: np.full_like(a, 3e38) if a.dtype.kind == "f" else a,
    "tiny": lambda a: np.full_like(a, 1e-45) if a.dtype.kind == "f" else a,
    "keys of 0": lambda a: np.zeros_like(a),
}


def _array_value(case: Case, folder: Path) -> None:
    arrays = _load(folder)
    change = case.row(list(_ARRAY_CHANGES), len(_CHECKPOINTS))
    name = case.chance.choice([*arrays, "numpy_random"])
    case.alterations.append(f"{change} in {name}")
    arrays[name] = _ARRAY_CHANGES[change](arrays[name])
    _save(folder, arrays)


def _array_names(case: Case, folder: Path) -> None:
    arrays = _load(folder)
    name = case.chance.choice(list(arrays))
    change = case.chance.choice(("drop", "add", "rename", "exchange", "parameters"))
    if change in ("drop", "rename"):
        kept = arrays.pop(name)
        if change == "rename":
            arrays[
                case.chance.choice(("../../../victim/x", "/etc/x", "parameter.99", "\x1b[31m", name + ".npy", "a" * 5000))
            ] = kept
    elif change == "add":
        arrays[case.chance.choice(("parameter.99", "parameter.x", "optimizer.8", "x", "file"))] = np.zeros(3, "f4")
    elif change == "exchange":
        other = case.chance.choice(list(arrays))
        arrays[name], arrays[other] = arrays[other], arrays[name]
    else:
        arrays |= {f"parameter.{number}": np.zeros(1, "f4") for number in range(8, 300)}
    _save(folder, arrays)


def _save(folder: Path, arrays: Mapping[str, Any], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(folder / "arrays.npz", "w", compression) as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue())


def _npy_header(case: Case, folder: Path) -> None:
    """Write an array whose header claims something else than its content."""
    shape = case.chance.choice(
        (
            *("(1000000000000,)", "(-1,)", "(2147483648, 2147483648)", "(0,)", "()", "(9223372036854775807,)"),
            f"({HUGE},)",
            "(True,)",
            "None",
            "[1]",
        )
    )
    kind = case.chance.choice(
        ("'<f4'", "'<f4'", "'|O'", "'<f8'", "'V1000000000'", "'<U1000000'", "'x'", "[('a', '<f4')]", "'<f4' * 9", "None")
    )
    header = f"{{'descr': {kind}, 'fortran_order': {case.chance.choice(('False', 'True', '1', 'None'))}, 'shape': {shape}, }}"
    header = case.chance.choice(
        (header, header, header, "(" * 5000, "{" * 200, "__import__('os').abort()", "a" * 70_000, "", header[:-5], "\0" * 100)
    )
    major = case.chance.choice((1, 1, 1, 2, 3, 9))
    length = (
        struct.pack("<H", min(65535, len(header)))
        if major == 1
        else struct.pack("<I", case.chance.choice((len(header), 2**32 - 1)))
    )
    content = b"\x93NUMPY" + bytes([major, 0]) + length + header.encode() + b"\0" * case.chance.choice((0, 64, 4096))
    name = case.chance.choice(list(_load(folder)))
    with zipfile.ZipFile(folder / "arrays.npz") as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        for member, held in members.items():
            archive.writestr(member, content if member == f"{name}.npy" else held)


def _compressed_arrays(case: Case, folder: Path) -> None:
    """Write a compressed archive, which may need much more memory than the file."""
    arrays = _load(folder)
    name = case.chance.choice(list(arrays))
    arrays[name] = np.zeros(case.chance.choice((1000, 50_000_000)), "f4")
    _save(folder, arrays, case.chance.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))


def _zip_directory(case: Case, folder: Path) -> None:
    """Change the central directory: sizes, offsets, flags, names or counts."""
    content = bytearray((folder / "arrays.npz").read_bytes())
    start = content.rindex(b"PK\x01\x02") if case.chance.random() < 0.5 else content.index(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    offset, layout = case.chance.choice(
        (
            *((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (30, "<H"), (42, "<I"), (-8, "<H")),
            *((-10, "<H"), (-12, "<I"), (-16, "<I")),
        )
    )
    value = case.chance.choice((0, 1, 8, 99, 2**31, 2**32 - 1, 2**32 - 2, 2**16 - 1))
    place = start + offset if offset > 0 else end + {-8: 8, -10: 10, -12: 12, -16: 16}[offset]
    struct.pack_into(layout, content, place, value % 2 ** (8 * struct.calcsize(layout)))
    (folder / "arrays.npz").write_bytes(content)


def _overlapping_members(_: Case, folder: Path) -> None:
    """Let all members of the same size have the content of the first one."""
    content = bytearray((folder / "arrays.npz").read_bytes())
    place, first = content.index(b"PK\x01\x02"), None
    while content[place : place + 4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<HHH", content, place + 28)
        first = struct.unpack_from("<I", content, place + 42)[0] if first is None else first
        struct.pack_into("<I", content, place + 42, first)
        place += 46 + name + extra + comment
    (folder / "arrays.npz").write_bytes(content)


def _arrays_as_bytes(case: Case, folder: Path) -> None:
    content = (folder / "arrays.npz").read_bytes()
    changes = (truncated, flipped, inserted, emptied, doubled)
    (folder / "arrays.npz").write_bytes(case.chance.choice(changes)(case.chance, content))


def _manifest(case: Case, folder: Path) -> bool:
    """Write another manifest, and do not sign."""
    sign(folder)
    content = json.loads((folder / "manifest.json").read_bytes())
    other = case.chance.choice(
        ('{"arrays.npz": null}', "[]", "null", "1", "{}", "[" * 100_000, '{"a": ' * 5000, "\0", "x" * 100, "NaN")
    )
    changed = json.dumps(dict.fromkeys(content, case.chance.choice((None, 1, "", "0" * 64, []))))
    text = case.chance.choice((other, other, changed, json.dumps(content | {"../../../victim/diary.txt": "0"})))
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return False


def _not_signed(case: Case, folder: Path) -> bool:
    _any_state_value(case, folder)
    return False


def _missing_file(case: Case, folder: Path) -> bool:
    name = case.chance.choice(CHECKPOINT_FILES)
    with suppress(FileNotFoundError):
        (folder / name).unlink()
    if case.chance.random() < 0.3:
        (folder / name).mkdir()
    return False


def _foreign_file(case: Case, folder: Path) -> None:
    where = case.chance.choice(
        (folder, folder.parent, case.run, folder.parent / "2019", folder.parent / "00000099", folder.parent / "0000000x")
    )
    where.mkdir(exist_ok=True)
    (where / case.chance.choice(("photo.jpg", ".hidden", "state.json~", f"a{CONTROL}".replace("/", ""), "\udcff"))).write_bytes(
        b"mine"
    )


_ROWS_CONTENT = [
    *("", "\n", "\0" * 1000, "garbage", "iteration,learning_rate,loss", "iteration,learning_rate,loss\n1,0.03,NaN\n"),
    "a,b,c\n1,2,3\n",
    *("iteration,learning_rate,loss\n" + "1,0.03,1.0\n" * 30, "iteration,learning_rate,loss\n1,0.03,2.3\n"),
    "iteration,learning_rate,loss\n" + "".join(f"{number},1e308,1e308\n" for number in range(1, 50)),
    "iteration,learning_rate,loss\n" + "".join(f"{number},0.03,nan\n" for number in range(1, 50)),
    *("iteration,learning_rate,loss\n" + f"1,{HUGE},1.0\n", "iteration,learning_rate,loss\n" + "x" * 200_000 + "\n"),
    *("iteration,learning_rate,loss\n１,0.03,1.0\n", "iteration,learning_rate,loss\r\n1,0.03,1.0\r\n"),
    f"iteration,learning_rate,loss\n1,0.03,{CONTROL}\n",
    *("[" * 4000 + "\n", '{"epoch": 1}\n', '{"epoch": NaN, "iteration": 1}\n', "null\n" * 5),
]


def _rows(case: Case, folder: Path) -> None:
    """Replace the rows of a run by others, whose hash is in the state. For garbage this is all; others have the right form."""
    name = case.chance.choice(("iterations.csv", "iterations.csv", "metrics.jsonl"))
    path = case.run / name
    content = case.chance.choice(
        [text.encode(errors="surrogatepass") for text in _ROWS_CONTENT] + [_altered_rows(case.chance, path)] * 20
    )
    path.write_bytes(content)
    state = json.loads((folder / "state.json").read_bytes())
    with suppress(LookupError, TypeError, AttributeError):
        if name in state["files"]:
            state["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}
            (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


def _altered_rows(chance: random.Random, path: Path) -> bytes:
    rows = path.read_bytes().splitlines(keepends=True) or [b"\n"]
    place = chance.randrange(len(rows))
    if path.suffix == ".csv":
        cells = rows[place].strip().split(b",")
        cells[chance.randrange(len(cells))] = chance.choice(
            (b"NaN", b"inf", b"1e308", b"-1.0", b"-1e+308", b"0", b"", HUGE.encode(), b"1e400", b"5e-324", b"3.4e+38")
        )
        rows[place] = b",".join(cells) + b"\n"
    else:
        with suppress(ValueError):
            row = json.loads(rows[place])
            row[chance.choice(list(row))] = "\0here"
            rows[place] = json.dumps(row).replace('"\\u0000here"', chance.choice(JSON_VALUES)).encode() + b"\n"
    return b"".join(rows)


def _huge_rows(case: Case, folder: Path) -> None:
    """Let the rows have 100 GB, of which the state claims all or a part."""
    name = case.chance.choice(("iterations.csv", "metrics.jsonl"))
    path = case.run / name
    with path.open("ab") as stream:
        stream.truncate(100 * 2**30)
    state = json.loads((folder / "state.json").read_bytes())
    with suppress(LookupError, TypeError):  # another alteration has replaced it
        state["files"][name]["bytes"] = case.chance.choice((100 * 2**30, 10 * 2**30, state["files"][name]["bytes"]))
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")


def _other_files(case: Case, _: Path) -> None:
    """Change a JSON file of the run that is not part of the checkpoint."""
    path = case.run / "environment.json"
    if case.chance.random() < 0.3:
        path.write_text(case.chance.choice(JSON_VALUES), encoding="utf-8")
    else:
        replace_in_json(
            path, case.chance.choice(list(places_in(json.loads(path.read_bytes())))), case.chance.choice(JSON_VALUES)
        )


_CHECKPOINTS: list[Callable[[Case, Path], object]] = [
    _state_value_from_table,
    _array_value,
    _state_value,
    _rows,
    _any_state_value,
    _npy_header,
    _state_value_from_table,
    _array_names,
    _compressed_arrays,
    _zip_directory,
    _rows,
    _overlapping_members,
    _state_value,
    _arrays_as_bytes,
    _state_as_bytes,
    _manifest,
    _removed_state_value,
    _other_files,
    _not_signed,
    _missing_file,
    _foreign_file,
    _huge_rows,
]
