"""Run folders and comparisons whose entries are links, pipes, devices and the like."""

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fuzzing.case import Case, make_socket
from fuzzing.values import CONTROL


def folder_of_a_stranger(case: Case) -> None:
    """Replace entries of a run folder or of a comparison by links, pipes, devices and the like, and use the folder."""
    use = case.row(_FOLDER_USES)
    if use[0] == "compare":
        shutil.copytree(case.library.comparison, case.run)
        roots = [case.run, case.chance.choice(sorted((case.run / "runs").iterdir()))]
    else:
        shutil.copytree(case.library.finished if use != _RESUME else case.chance.choice(case.library.stopped), case.run)
        roots = [case.run]
    for _ in range(case.chance.choice((1, 1, 2, 3))):
        alter = case.row(_FOLDERS, len(_FOLDER_USES))
        case.alterations.append(alter.__name__)
        alter(case, case.chance.choice(roots))
    case.picture()
    case.use(*(word for argument in use for word in (case.library.compare if argument == "compare" else [argument])))


_RESUME = ("train", "--resume", "run", "--quiet")

_FOLDER_USES = [
    _RESUME,
    *(("compare", "--output", "run"), ("evaluate", "run"), ("export", "run", "--format", "mxnet")),
    *(("predict", "run", "digit.png"), ("demo", "run", "--port", "0")),
    _RESUME,
    ("export", "run", "--format", "onnx"),
    ("compare", "--output", "run"),
]


def _entries(root: Path) -> list[Path]:
    names = (
        *("config.toml", "environment.json", "iterations.csv", "metrics.jsonl", "model.params", "curves.png", "summary.json"),
        *("metrics.csv", "tensorboard", "checkpoints"),
    )
    outputs = (
        *("evaluation.json", "confusion_matrix.png", "mistakes.png", "model.onnx", "model-symbol.json", "model-0000.params"),
    )
    comparison = ("comparison.json", "comparison.md", "comparison.html", "comparison.png", "runs", "configs")
    found = [root / name for name in (comparison if (root / "runs").exists() else (*names, *outputs))]
    for folder in ("checkpoints", "runs", "configs"):
        with suppress(OSError):
            entries = sorted((root / folder).iterdir())
            found += entries
            found += (file for entry in entries if entry.is_dir() for file in sorted(entry.iterdir()))
    return found


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _any_entry(case: Case, root: Path) -> Path:
    return Path(case.chance.choice([entry for entry in _entries(root) if entry.parent.is_dir()] or [case.run / "x"]))


def _linked_away(case: Case, root: Path) -> None:
    """Move an entry into the folder of the victim, and leave a link to it."""
    entry = _any_entry(case, root)
    if entry.exists() and not entry.is_symlink():
        target = case.victim / f"moved-{case.chance.randrange(10**6)}"
        shutil.move(entry, target)
        entry.symlink_to(target)


def _link(case: Case, root: Path) -> None:
    entry = _any_entry(case, root)
    _remove(entry)
    targets = ("diary.txt", "their-run", "link", "nowhere", "checkpoints")
    target = case.chance.choice(
        (*(str(case.victim / name) for name in targets), entry.name, "/dev/zero", "/dev/full", "/proc/self/mem", "..", "/")
    )
    entry.symlink_to(target)


def _hard_link(case: Case, root: Path) -> None:
    entry = _any_entry(case, root)
    if entry.is_file():
        os.link(entry, case.victim / f"hard-{case.chance.randrange(10**6)}")


def _special(case: Case, root: Path) -> None:
    entry = _any_entry(case, root)
    _remove(entry)
    kind = case.chance.choice(("pipe", "socket", "zero", "full", "disk", "folder", "file"))
    case.alterations.append(f"{kind} {entry.name}")
    if kind == "pipe":
        os.mkfifo(entry)
    elif kind == "socket":
        make_socket(entry)
    elif kind == "folder":
        entry.mkdir()
        (entry / "mine.txt").write_text("mine", encoding="utf-8")
    elif kind == "file":
        entry.write_bytes(case.chance.choice((b"", b"\0", b"x" * 100)))
    else:
        mode, device = {"zero": (stat.S_IFCHR, (1, 5)), "full": (stat.S_IFCHR, (1, 7)), "disk": (stat.S_IFBLK, (7, 250))}[kind]
        with suppress(PermissionError):  # only root may make devices
            os.mknod(entry, mode | 0o666, os.makedev(*device))


def _sparse(case: Case, root: Path) -> None:
    entry = _any_entry(case, root)
    if entry.is_file():
        with entry.open("ab") as stream:
            stream.truncate(100 * 2**30)


def _read_only(case: Case, root: Path) -> None:
    entry = _any_entry(case, root)
    if entry.exists() and not entry.is_symlink():
        entry.chmod(case.chance.choice((0, 0o444, 0o555)))


def _planted_temporary(case: Case, root: Path) -> None:
    """Plant links with the names of temporary files, for all processes that may come next."""
    name = case.chance.choice(
        ("iterations.csv", "config.toml", "summary.json", "model.params", "00000021", "comparison.json", "evaluation.json")
    )
    partial = f".{name}.{case.chance.randbytes(8).hex()}.partial"
    here = root / "checkpoints" if (root / "checkpoints").is_dir() and case.chance.random() < 0.5 else root
    target = case.chance.choice([case.victim / "diary.txt", case.victim / "their-run", case.victim])
    for planted in (
        partial,
        f".{name}.tmp",
        f"{name}.tmp",
        f".{name}",
        *(f".{os.getpid() + number}.{name}" for number in range(40)),
    ):
        with suppress(FileExistsError):
            (here / planted).symlink_to(target)


def _unfinished_folder(case: Case, root: Path) -> None:
    """Plant a temporary folder of a checkpoint that holds files of the user."""
    parent = root / "checkpoints"
    if parent.is_dir():
        folder = parent / f".00000021.{case.chance.randbytes(8).hex()}.partial"
        folder.mkdir(exist_ok=True)
        (folder / case.chance.choice(("state.json", "photo.jpg"))).symlink_to(case.victim / "diary.txt")


def _foreign_checkpoints(case: Case, root: Path) -> None:
    """Let `checkpoints` be a link to a folder of the victim that has a folder 2019."""
    _remove(root / "checkpoints")
    target = case.victim / case.chance.choice(("checkpoints", "their-run"))
    (root / "checkpoints").symlink_to(target if case.chance.random() < 0.5 else Path("../../victim") / target.name)


def _users_own_checkpoint(case: Case, root: Path) -> None:
    """Add a folder of the user whose name is a number."""
    folder = root / "checkpoints" / case.chance.choice(("2019", "00002019", "99999999", "２０１９", "-1", "1e3"))
    if folder.parent.is_dir():
        folder.mkdir(exist_ok=True)
        (folder / case.chance.choice(("photo.jpg", "state.json", "manifest.json"))).write_bytes(b"mine")


def _strange_names(case: Case, root: Path) -> None:
    for name in (f"a{CONTROL}".replace("/", ""), "a\nb", "\udcff", "-rf", " ", "n" * 255, "config.toml~", "CONFIG.TOML"):
        with suppress(OSError):
            (root / name).write_bytes(b"mine")


def _whole_folder_is_a_link(case: Case, root: Path) -> None:
    """Let a run folder be a link: the folder that the user names may be one, a run folder within a comparison may not."""
    target = case.victim / f"whole-{case.chance.randrange(10**6)}"
    if root.exists() and not root.is_symlink() and root != case.run:
        shutil.move(root, target)
        root.symlink_to(target)


def _foreign_code(case: Case, root: Path) -> None:
    """Name code of the stranger in the configuration."""
    path, name = root / "config.toml", case.plant()
    if path.is_file() and path.stat().st_size < 10_000:
        key = case.chance.choice(("[model]\nnetwork", "[schedule]\nname", "[momentum]\nname"))
        text = path.read_text(encoding="utf-8", errors="replace")
        section = key.partition("\n")[0]
        kept = text.replace(f"{section}\n", f"{section}\n{key.partition(chr(10))[2]}_ = 0\n")
        path.write_text(
            text + f'\n{key} = "{name}"\n' if section not in text else kept.replace("_ = 0", f' = "{name}"'), encoding="utf-8"
        )
    for other in ("sitecustomize.py", "numpy.py", "json.py", "mxnet.py", "planted.py"):
        (root / other).write_text((case.cwd / f"{name.partition(':')[0]}.py").read_text(encoding="utf-8"), encoding="utf-8")


_FOLDERS: list[Callable[[Case, Path], None]] = [
    _linked_away,
    _special,
    _link,
    _hard_link,
    _planted_temporary,
    _foreign_checkpoints,
    _sparse,
    _special,
    _users_own_checkpoint,
    _whole_folder_is_a_link,
    _linked_away,
    _read_only,
    _unfinished_folder,
    _foreign_code,
    _strange_names,
    _link,
]
