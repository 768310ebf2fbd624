"""Files of a folder that may come from someone else: links, pipes and devices are refused, and nothing outside is touched."""

import errno
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import content

from mnist_trainer.errors import RequestError
from mnist_trainer.folder import Folder, new_folder, open_named, parse_json, pieces, unlocking


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "folder").mkdir()
    return Folder(tmp_path / "folder")


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """Return a user's folder, which must not change."""
    victim = tmp_path / "victim"
    (victim / "2019").mkdir(parents=True)
    (victim / "2019/photo.jpg").write_bytes(b"photo")
    (victim / "file").write_bytes(b"precious")
    before = content(victim)
    yield victim
    assert content(victim) == before


def be_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim / "file")


def be_link_to_folder(path: Path, victim: Path) -> None:
    path.symlink_to(victim / "2019")


def be_loop(path: Path, _: Path) -> None:
    path.symlink_to(path)


def be_dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim / "new")


def be_device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def be_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def be_socket(path: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket_path(path) as name:
        server.bind(name)


class socket_path:  # noqa: N801 - used as a function
    """A short name for a path, because the name of a socket is short."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> str:
        self.opened = os.open(self.path.parent, os.O_RDONLY)
        return f"/proc/self/fd/{self.opened}/{self.path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self.opened)


Be = Callable[[Path, Path], None]

NOT_FILES: dict[str, tuple[Be, str]] = {
    "a link": (be_link, "symbolic link"),
    "a link to a folder": (be_link_to_folder, "symbolic link"),
    "a link to itself": (be_loop, "symbolic link"),
    "a dangling link": (be_dangling, "symbolic link"),
    "a link to a device": (be_device, "symbolic link"),
    "a pipe": (be_pipe, "named pipe"),
    "a socket": (be_socket, "socket"),
    "a folder": (lambda path, _: path.mkdir(), "folder"),
}


@pytest.mark.parametrize("what", NOT_FILES)
def test_only_regular_files_are_read_and_appended_to(what: str, folder: Folder, victim: Path) -> None:
    be, kind = NOT_FILES[what]
    be(folder / "name", victim)
    for attempt in (
        lambda: folder.read("name", 100),
        lambda: folder.append("name", b"more"),
        lambda: folder.truncate("name", 1),
    ):
        with pytest.raises(OSError, match=f"it is a {kind}, not a regular file") as caught:
            attempt()
        assert caught.value.filename == str(folder / "name")
    with pytest.raises(RequestError, match=re.escape(str(folder / "name"))):
        folder.read_json("name")
    assert not folder.has_file("name")
    assert folder.kind("name") == f"a {kind}"
    assert folder.has_folder("name") == (what == "a folder")


@pytest.mark.parametrize("what", [what for what in NOT_FILES if what != "a folder"])
def test_anything_but_a_folder_is_replaced_or_removed_without_following_it(what: str, folder: Folder, victim: Path) -> None:
    be, _ = NOT_FILES[what]
    be(folder / "name", victim)
    with folder.replacing("name") as stream:
        stream.write(b"new")
    assert content(folder.path) == {"name": b"new"}
    (folder / "name").unlink()
    be(folder / "name", victim)
    folder.remove("name")
    assert folder.names() == []


def test_a_folder_is_not_replaced_by_a_file(folder: Folder) -> None:
    (folder / "name").mkdir()
    with pytest.raises(IsADirectoryError) as caught, folder.replacing("name") as stream:
        stream.write(b"new")
    assert caught.value.filename == str(folder / "name")
    assert folder.names() == ["name"]


def test_a_device_is_not_opened() -> None:
    for attempt in (lambda: Folder(Path("/dev")).read("zero", 100), lambda: Folder(Path("/dev")).append("null", b"")):
        with pytest.raises(OSError, match="it is a device, not a regular file"):
            attempt()


def test_a_hard_link_is_copied_before_it_is_truncated(folder: Folder, victim: Path) -> None:
    os.link(victim / "file", folder / "name")
    folder.truncate("name", 3)
    assert content(folder.path) == {"name": b"pre"}
    os.link(victim / "file", folder / "other")
    folder.truncate("other", 0)
    assert folder.names() == ["name"]


def test_a_large_file_is_refused_before_it_is_read(folder: Folder) -> None:
    with (folder / "name").open("wb") as stream:
        stream.truncate(100 * 2**30)  # sparse
    with pytest.raises(OSError, match="more than 1,000 bytes") as caught:
        folder.read("name", 1000)
    assert caught.value.errno == errno.EFBIG
    (folder / "name").write_bytes(b"x" * 1000)
    assert folder.read("name", 1000) == b"x" * 1000


@pytest.mark.parametrize("what", NOT_FILES)
def test_only_real_folders_within_a_folder_are_opened(what: str, folder: Folder, victim: Path) -> None:
    be, kind = NOT_FILES[what]
    inner = folder.subfolder("name")
    assert inner.names() == []
    be(folder / "name", victim)
    inner.make()
    if what == "a folder":
        (folder / "name/file").write_bytes(b"x")
        assert inner.read("file", 1) == b"x"
        return
    assert inner.names() == []
    assert inner.kind("file") is None
    for attempt in (
        lambda: inner.read("file", 1),
        lambda: inner.append("new", b""),
        lambda: inner.remove("photo.jpg"),
        lambda: inner.write_folder("new", {"file": b""}),
        lambda: inner.subfolder("2019").remove("photo.jpg"),
        inner.lock,
    ):
        with pytest.raises(OSError, match=f"it is a {kind}, not a folder") as caught:
            attempt()
        assert str(folder / "name") in str(caught.value.filename)
    folder.remove_folder("name", ("photo.jpg",))
    assert folder.names() == ["name"]


def test_links_in_the_path_that_the_user_named_are_followed(tmp_path: Path, folder: Folder) -> None:
    (tmp_path / "latest").symlink_to(folder.path)
    named = Folder(tmp_path / "latest")
    named.append("file", b"1")
    with named.replacing("other") as stream:
        stream.write(b"2")
    assert content(folder.path) == {"file": b"1", "other": b"2"}


# --- writing


def test_temporary_names_cannot_be_guessed(folder: Folder) -> None:
    names = set()
    for _ in range(3):
        with folder.replacing("name"):
            names |= set(folder.names()) - {"name"}
    assert len(names) == 3
    assert all(re.fullmatch(r"\.name\.[0-9a-f]{16}\.partial", name) for name in names)
    assert folder.names() == ["name"]


def test_new_files_have_the_users_permissions(folder: Folder) -> None:
    before = os.umask(0o027)
    try:
        with folder.replacing("name"):
            pass
        folder.append("other", b"")
    finally:
        os.umask(before)
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("name", "other")} == {0o640}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_folder_of_files_is_written_completely_or_not_at_all(
    error: BaseException, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, iter(range(100))

    def fail_at_third(opened: int) -> None:
        if next(calls) == 2:
            raise error
        fsync(opened)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_at_third)
        with pytest.raises(type(error)):
            folder.write_folder("name", {"a": b"3", "b": b"4"})
    assert folder.names() == []
    folder.write_folder("name", {"a": b"3", "b": b"4"})
    assert content(folder.path) == {"name": None, "name/a": b"3", "name/b": b"4"}


@pytest.mark.parametrize("foreign", ["c", "a/deeper", "link"])
def test_a_folder_with_foreign_entries_is_neither_replaced_nor_removed(foreign: str, folder: Folder, victim: Path) -> None:
    folder.write_folder("name", {"b": b"2"})
    if foreign == "link":
        (folder / "name/a").symlink_to(victim / "file")
    else:
        (folder / "name" / foreign).parent.mkdir(exist_ok=True)
        (folder / "name" / foreign).write_bytes(b"precious")
    before = content(folder.path)
    folder.remove_folder("name", ("a", "b"))
    with pytest.raises(OSError, match="not empty") as caught:
        folder.write_folder("name", {"a": b"3", "b": b"4"})
    assert caught.value.filename == str(folder / "name")
    assert content(folder.path) == before
    assert folder.names() == ["name"]


@pytest.mark.parametrize("what", ["a link", "a pipe"])
def test_an_entry_that_is_exchanged_before_it_is_opened_is_refused(
    what: str, folder: Folder, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_trainer.folder._require_kind_of_entry", lambda *_: None)  # as if it had been a regular file
    be, _ = NOT_FILES[what]
    be(folder / "name", victim)
    if what == "a link":
        for attempt in (lambda: folder.read("name", 100), lambda: folder.append("name", b"")):
            with pytest.raises(OSError, match="symbolic links"):
                attempt()
    else:
        assert folder.read("name", 100) == b""  # without a wait for a writer


def test_a_temporary_name_that_is_taken_is_not_written_through(
    folder: Folder, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "0123456789abcdef")
    (folder / ".name.0123456789abcdef.partial").symlink_to(victim / "file")
    with pytest.raises(FileExistsError), folder.replacing("name") as stream:
        stream.write(b"new")
    (folder / ".name.0123456789abcdef.partial").unlink()
    (folder / ".name.0123456789abcdef.partial").symlink_to(victim)
    with pytest.raises(FileExistsError):
        folder.write_folder("name", {"file": b"new"})


def test_a_draft_is_removed_unless_another_process_uses_it(folder: Folder) -> None:
    with folder.draft_folder("name", ("a",)) as opened:
        opened.append("a", b"")
        (draft,) = folder.names()
        Folder(folder.path).remove_unfinished({"name"}.__contains__, ("a",))
        assert folder.names() == [draft]
    assert folder.names() == []
    (folder / draft).mkdir()
    (folder / draft / "a").touch()
    folder.remove_unfinished({"name"}.__contains__, ("a",))
    assert folder.names() == []


def test_a_new_folder_is_removed_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "there/new/deeper"):
        raise KeyboardInterrupt
    assert list((tmp_path / "there").iterdir()) == []
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "there/new/deeper"):  # noqa: PT012 - fails after a change
        (tmp_path / "there/new/file").touch()
        (tmp_path / "nowhere").unlink()
    assert content(tmp_path / "there") == {"new": None, "new/file": b""}
    with new_folder(tmp_path / "there/new/deeper"):
        pass
    assert (tmp_path / "there/new/deeper").is_dir()
    with pytest.raises(OSError, match="file"), new_folder(tmp_path / "there/new/file/deeper"):
        pass


def test_only_own_temporary_files_are_removed(folder: Folder, victim: Path) -> None:
    foreign = [".name.partial", ".name.0123456789abcdeg.partial", ".other.0123456789abcdef.partial", "name", ".123.name"]
    for name in foreign:
        (folder / name).write_bytes(b"")
    (folder / ".name.0123456789abcdef.partial").write_bytes(b"")
    (folder / ".name.1123456789abcdef.partial").mkdir()
    (folder / ".name.1123456789abcdef.partial/a").write_bytes(b"")
    (folder / ".name.2123456789abcdef.partial").mkdir()
    (folder / ".name.2123456789abcdef.partial/precious").write_bytes(b"")
    (folder / ".name.3123456789abcdef.partial").symlink_to(victim)
    folder.remove_unfinished({"name"}.__contains__, ("a",))
    assert set(folder.names()) == {*foreign, ".name.2123456789abcdef.partial", ".name.3123456789abcdef.partial"}


def test_a_failed_flush_of_the_folder_has_its_name(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        folder.sync()
    assert caught.value.filename == str(folder.path)


def test_a_locked_folder_cannot_be_locked_again(folder: Folder) -> None:
    folder.lock()
    with pytest.raises(RequestError, match=re.escape(f"{folder.path}: another process")):
        Folder(folder.path).lock()
    folder.unlock()
    other = Folder(folder.path)
    other.lock()
    other.unlock()


def test_unlocking_keeps_earlier_locks(folder: Folder) -> None:
    folder.make()
    other = folder.subfolder("other")
    other.make()
    folder.lock()
    with unlocking():
        other.lock()
    again = folder.subfolder("other")
    again.lock()
    with pytest.raises(RequestError, match="another process"):
        Folder(folder.path).lock()
    folder.unlock()
    again.unlock()


def test_a_removed_folder_is_not_made_again(folder: Folder) -> None:
    shutil.rmtree(folder.path)
    with pytest.raises(FileNotFoundError):
        folder.append("name", b"")
    assert not folder.path.exists()


# --- files that the user names


@pytest.mark.parametrize("what", [what for what in NOT_FILES if what != "a link"])
def test_a_named_file_is_a_regular_file_or_a_pipe_without_a_name(what: str, folder: Folder, victim: Path) -> None:
    be, _ = NOT_FILES[what]
    be(folder / "name", victim)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - of several kinds
        open_named(folder / "name").close()
    assert caught.value.strerror
    assert caught.value.filename == str(folder / "name")


def test_the_pipe_of_a_shell_is_read(folder: Folder, victim: Path) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"content")
        os.close(writer)
        with open_named(f"/dev/fd/{reader}", 3) as stream:
            assert stream.read() == b"content"
    finally:
        os.close(reader)
    (folder / "name").symlink_to(victim / "file")
    with open_named(folder / "name") as stream:
        assert stream.read() == b"precious"
    with pytest.raises(OSError, match="more than 3 bytes"):
        open_named(folder / "name", 3)


def test_pieces_have_the_given_length(folder: Folder) -> None:
    (folder / "name").write_bytes(b"x" * (2**20 + 100))
    with folder.reading("name") as stream:
        assert [len(piece) for piece in pieces(stream, 2**20 + 50)] == [2**20, 50]
        assert [len(piece) for piece in pieces(stream, 100)] == [50]


@pytest.mark.parametrize(
    "text", [b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"[" * 100_000, b"1" * 5000, b"", b"\xff", b"{}x"]
)
def test_json_has_finite_numbers(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        parse_json(text)
    assert parse_json(json.dumps({"a": [1, 2.5, None]}).encode()) == {"a": [1, 2.5, None]}
