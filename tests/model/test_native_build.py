"""The library is built once for a compiler, its flags and MXNet, also if that is interrupted, and only the user can change it.

Except in the last test, the compilers are scripts of a few lines.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from command_line import assert_names
from conftest import Program, Snapshot
from programs import REPOSITORY, is_alive, new_environment, run_python, wait_for
from requirements import needs_compiler, needs_fused

from mnist_trainer import cli
from mnist_trainer.diagnostics import doctor
from mnist_trainer.errors import DONE, FAILED, RequestError
from mnist_trainer.model import native
from mnist_trainer.model.native import build
from mnist_trainer.model.native.build import FLAGS, opened_library

# The error of Clang, shortened.
REFUSES = "echo 'kernels.cc:3:2: error: GCC 9 or newer is needed' >&2; exit 1"
# Writes its arguments, one per line, to the library, which is the last argument.
WRITES_ITS_ARGUMENTS = 'for last; do :; done; printf "%s\\n" "$@" >"$last"'

OPEN = "from mnist_trainer.model.native.build import opened_library\nwith opened_library() as library: print(library.name)"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return an empty folder for compilers."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache, the compilers in `programs`, and no flags of the user. Return the folder of the libraries."""
    for name in ("CC", "CXX", "CPPFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv(native.VARIABLE, "portable")  # a processor without AVX2 would be another obstacle
    return tmp_path / "cache" / "mnist-trainer"


def add_compiler(programs: Path, script: str, name: str = "g++") -> Path:
    path = programs / name
    path.write_text(f"#!/bin/sh\nPATH={os.defpath}\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def built() -> tuple[str, list[str]]:
    """Return the name of the library and the arguments that a script has written to it, without the path of the draft."""
    with opened_library() as library:
        return library.name, library.read_text(encoding="utf-8").splitlines()[:-2]


def refused() -> str:
    with pytest.raises(RequestError) as caught, opened_library():
        pass
    (problem,) = caught.value.problems
    return problem


def names_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


# --- the compiler


def test_without_a_compiler_nothing_is_built(cache: Path, snapshot: Snapshot) -> None:
    problem = refused()
    assert_names(problem, "", "fused operator", "g++", "apt-get install g++")
    assert not cache.parent.exists()
    snapshot(problem)


@pytest.mark.process
@pytest.mark.parametrize("broken", [REFUSES, "kill -9 $$"], ids=["another compiler", "a compiler that crashes"])
def test_gcc_is_tried_after_the_compiler_of_the_environment(
    broken: str, cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(add_compiler(programs, f"echo >>{programs}/tried\n{broken}", "clang++")))
    add_compiler(programs, WRITES_ITS_ARGUMENTS)
    name, _ = built()
    failed, there = sorted(names_in(cache), key=len, reverse=True)
    assert (there, failed.endswith(".failed")) == (name, True)
    assert built()[0] == name
    assert (programs / "tried").read_text(encoding="utf-8") == "\n", "it is not tried again"


@pytest.mark.process
def test_a_suitable_compiler_of_the_environment_is_used(cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_compiler(programs, REFUSES)
    monkeypatch.setenv("CXX", f"{add_compiler(programs, WRITES_ITS_ARGUMENTS, 'g++-14')} -one '-two of them'")
    assert built()[1][:2] == ["-one", "-two of them"]


@pytest.mark.process
def test_flags_of_the_user_precede_ours_and_are_recorded(cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"CPPFLAGS": "-DA", "CFLAGS": "-march=haswell -ffast-math", "CXXFLAGS": '-DB="b"', "LDFLAGS": "-Wl,-z,now"}
    for name, flags in users.items():
        monkeypatch.setenv(name, flags)
    add_compiler(programs, WRITES_ITS_ARGUMENTS)
    _, arguments = built()
    theirs = ["-DA", "-march=haswell", "-ffast-math", "-DB=b", "-Wl,-z,now"]
    assert arguments[: len(theirs) + len(FLAGS)] == [*theirs, *FLAGS]
    assert f'-DMNIST_TRAINER_NATIVE_FLAGS=", flags {" ".join(theirs)}"' in arguments


@pytest.mark.process
@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(REFUSES, ["g++: GCC 9 or newer is needed", "apt-get install g++"], id="another compiler"),
        pytest.param("echo 'out of space' >&2; exit 4", ["g++: ended with exit code 4", "out of space"], id="another error"),
        pytest.param("kill -9 $$", ["g++: was ended by SIGKILL"], id="a crash"),
        pytest.param(
            "echo '/usr/bin/ld: warning: a stack\n/usr/bin/ld: cannot find -la\ncollect2: error: ld returned 1' >&2; exit 1",
            ["g++: cannot find -la"],
            id="the linker",
        ),
        pytest.param(
            "echo '/usr/bin/ld: a.o: in function f:\na.cc:(.text+0x9): undefined reference to g' >&2; exit 1",
            ["g++: undefined reference to g"],
            id="a missing function",
        ),
    ],
)
def test_the_doctor_and_runs_give_the_reason_of_a_failure(
    script: str, words: list[str], cache: Path, programs: Path, data_dir: Path, snapshot: Snapshot
) -> None:
    add_compiler(programs, script)
    found = str(native.problem())
    assert_names(found, "", "fused operator", *words)
    (finding,) = (finding for finding in doctor.examine(1, data_dir, builds=True) if finding.subject == "fused backend")
    assert (finding.state, finding.problem) == (f"not used: {found}", found)
    assert [name for name in names_in(cache) if not name.endswith(".failed")] == []
    reported: list[str] = []
    assert native.choose_backend("auto", True, reported.append) == "stock"
    assert reported == [found]
    with pytest.raises(RequestError, match=r"model\.backend = fused"):
        native.choose_backend("fused", on_cpu=True)
    snapshot(found)


@pytest.mark.process
def test_the_flags_of_the_user_may_be_the_cause(cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_compiler(programs, "echo 'g++: error: unrecognized option -garbage' >&2; exit 1")
    monkeypatch.setenv("CXXFLAGS", "-garbage")
    problem = refused()
    assert_names(problem, "", "fused operator", "unrecognized option", "check CXXFLAGS;")
    assert "apt-get" not in problem


@pytest.mark.process
def test_flags_that_cannot_be_read(cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_compiler(programs, WRITES_ITS_ARGUMENTS)
    monkeypatch.setenv("CFLAGS", "-DA='b")
    assert_names(refused(), "", "fused operator", "flags", "quotation", "check CFLAGS")


# --- the cache


@pytest.mark.process
def test_a_library_is_built_once_and_reused_without_a_compiler(
    cache: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = add_compiler(programs, WRITES_ITS_ARGUMENTS)
    assert native.is_pending()
    name, arguments = built()
    assert not native.is_pending()
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert_names(line, "built the fused operator", str(compiler), " s;", str(cache))
    compiler.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")  # another compiler
    assert native.is_pending()
    compiler.unlink()
    assert not native.is_pending()
    assert built() == (name, arguments)
    assert capsys.readouterr() == ("", "")


@pytest.mark.process
def test_what_requires_another_library(cache: Path, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, mxnet = tmp_path / "sources", tmp_path / "mxnet"
    shutil.copytree(build.SOURCES, sources)
    for file in ("include/mxnet/lib_api.h", "src/lib_api.cc", "libmxnet.so"):
        (mxnet / file).parent.mkdir(parents=True, exist_ok=True)
        (mxnet / file).write_text("content", encoding="utf-8")
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "_mxnet_folder", lambda: mxnet)
    compiler = add_compiler(programs, WRITES_ITS_ARGUMENTS)
    names = [built()[0]]
    changed = [
        *(sources / name for name in (*build.COMPILED, *build.INCLUDED)),
        *(path for path in mxnet.rglob("*.*")),
        compiler,
    ]
    assert len(changed) == len(list(sources.glob("*.cc"))) + len(list(sources.glob("*.h"))) + 3 + 1
    for path in changed:
        content = path.read_text(encoding="utf-8")
        path.write_text(f"{content}\n#", encoding="utf-8")
        names.append(built()[0])
        if path != compiler:
            path.write_text(content, encoding="utf-8")
    monkeypatch.setenv("CXX", str(add_compiler(programs, WRITES_ITS_ARGUMENTS, "g++-14")))
    names.append(built()[0])
    monkeypatch.setenv("CFLAGS", "-O2")
    names.append(built()[0])
    monkeypatch.setenv("CFLAGS", "-march=native")
    names.append(built()[0])
    monkeypatch.setattr(build, "processor_flags", lambda: {"sse2"})  # another machine with the same home
    names.append(built()[0])
    monkeypatch.setattr(build, "FLAGS", (*FLAGS, "-O2"))
    names.append(built()[0])
    assert len(set(names)) == len(names)
    assert names_in(cache) == sorted(names)


@pytest.mark.process
def test_a_failed_build_is_repeated_only_on_request(
    cache: Path, programs: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_compiler(programs, f"echo >>{programs}/tried\n{REFUSES}")
    problem = refused()
    assert_names(problem, "", "GCC 9", "mnist-trainer doctor --build")
    assert not native.is_pending()
    assert refused() == problem
    assert (programs / "tried").read_text(encoding="utf-8") == "\n"
    assert cli.main(["doctor", "--threads", "1", "--data-dir", str(data_dir), "--build"]) == FAILED
    assert (programs / "tried").read_text(encoding="utf-8") == "\n\n"


@pytest.mark.process
def test_flags_in_any_encoding(cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_compiler(programs, 'for last; do :; done; printf x >"$last"')
    monkeypatch.setenv("CFLAGS", os.fsdecode(b"-I/caf\xe9 -I/\xf0\x9f\x98\x80"))
    with opened_library():
        pass


def test_without_a_home_folder(
    monkeypatch: pytest.MonkeyPatch, here: Path, programs: Path, cache: Path, data_dir: Path
) -> None:
    def fail() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.delenv("XDG_CACHE_HOME")
    add_compiler(programs, WRITES_ITS_ARGUMENTS)
    assert not native.is_pending()
    problem = refused()
    assert_names(problem, "", "fused operator", "home", "XDG_CACHE_HOME")
    assert problem in [finding.problem for finding in doctor.examine(1, data_dir, builds=True)]
    assert list(here.iterdir()) == []


@pytest.mark.process
def test_nobody_else_can_write_to_a_draft(cache: Path, programs: Path) -> None:
    cache.mkdir(parents=True, mode=0o755)
    add_compiler(programs, f'{WRITES_ITS_ARGUMENTS}; ls -ld "${{last%/*}}" >{programs}/mode')
    before = os.umask(0o002)
    try:
        built()
    finally:
        os.umask(before)
    assert (programs / "mode").read_text(encoding="utf-8").startswith("drwx------")


@pytest.mark.process
@pytest.mark.parametrize("kind", ["cut short", "empty", "other sources", "a link"])
def test_an_unusable_library_is_built_again(kind: str, cache: Path, programs: Path, tmp_path: Path) -> None:
    add_compiler(programs, WRITES_ITS_ARGUMENTS)
    name, arguments = built()
    path = cache / name
    content = path.read_bytes()
    path.unlink()
    if kind == "a link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes({"cut short": content[:-1], "empty": b""}.get(kind, content[:-64] + b"0" * 64))
    assert built() == (name, arguments)
    assert len(path.read_bytes()) == len(content)
    assert not path.is_symlink()


@pytest.mark.process
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720], ids=oct)
@pytest.mark.parametrize("part", ["folder", "library"])
def test_a_cache_that_others_can_write_to_is_not_loaded(
    part: str, mode: int, cache: Path, programs: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    add_compiler(programs, WRITES_ITS_ARGUMENTS)
    name, _ = built()
    assert {path.stat().st_mode & 0o777 for path in (cache.parent, cache, cache / name)} == {0o700}
    exposed = cache if part == "folder" else cache / name
    exposed.chmod(mode)
    problem = refused()
    assert_names(problem, "", "fused operator", "others can write", f"rm -r {exposed}")
    assert native.problem() == problem
    (cache / name).unlink()
    assert native.is_pending() == (part == "library")
    if part == "folder":
        assert refused() == problem, "nothing is built into it"
        assert names_in(cache) == []
        snapshot(problem)


@pytest.mark.process
def test_a_cache_of_another_user_is_not_loaded(cache: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_compiler(programs, WRITES_ITS_ARGUMENTS)
    built()
    if os.geteuid() == 0:
        os.chown(cache, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert_names(refused(), "", "fused operator", "another user", str(cache), "XDG_CACHE_HOME")


@pytest.mark.process
def test_a_cache_that_cannot_be_written(cache: Path, programs: Path, snapshot: Snapshot) -> None:
    add_compiler(programs, WRITES_ITS_ARGUMENTS)
    cache.parent.write_text("not a folder", encoding="utf-8")
    assert not native.is_pending()
    problem = refused()
    assert_names(problem, "", "fused operator", str(cache.parent), "XDG_CACHE_HOME")
    assert native.choose_backend("auto", on_cpu=True) == "stock"
    snapshot(problem)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/someone")
    assert build.cache_folder() == Path("/var/cache/someone/mnist-trainer")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert build.cache_folder() == Path("/home/someone/.cache/mnist-trainer")


@pytest.mark.process
def test_the_doctor_builds_only_on_request(
    cache: Path, programs: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_compiler(programs, REFUSES)
    command = ["doctor", "--threads", "1", "--data-dir", str(data_dir)]
    assert cli.main(command) == DONE
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fused backend ")]
    assert_names(line, "fused backend ", "not built yet", "doctor --build")
    assert not cache.exists()
    assert cli.main([*command, "--build"]) == FAILED
    assert "\nproblem: the fused operator cannot be built" in capsys.readouterr().out


# --- several processes, and interruptions


@pytest.fixture
def waiting_compiler(programs: Path, tmp_path: Path) -> Iterator[Callable[[], list[int]]]:
    """Add a compiler that waits for a file named `go`. Yield a function that returns the process IDs of its calls."""
    calls = tmp_path / "calls"
    calls.mkdir()
    add_compiler(programs, f"echo >{calls}/$$\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.02; done\n{WRITES_ITS_ARGUMENTS}")
    yield lambda: sorted(int(path.name) for path in calls.iterdir())
    (tmp_path / "go").touch()  # ends the compilers of a test that has failed


def start_build() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OPEN]
    return subprocess.Popen(command, env=new_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def waits_for_a_lock(process: subprocess.Popen[str]) -> bool:
    """Return whether the kernel lists a process as waiting for a lock."""
    locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any("->" in line and f" {process.pid} " in line for line in locks)


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_build_once(cache: Path, tmp_path: Path, waiting_compiler: Callable[[], list[int]]) -> None:
    first = start_build()
    wait_for(waiting_compiler, first)
    second = start_build()
    wait_for(lambda: waits_for_a_lock(second) or len(waiting_compiler()) > 1, second)
    (tmp_path / "go").touch()
    (name, said), (same_name, nothing) = first.communicate(), second.communicate()
    assert (name, first.returncode, second.returncode) == (same_name, 0, 0)
    assert_names(said, "built the fused operator")
    assert nothing == ""
    assert len(waiting_compiler()) == 1
    assert names_in(cache) == [name.strip()]


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_an_interrupted_build_is_repeated(
    number: signal.Signals, cache: Path, tmp_path: Path, waiting_compiler: Callable[[], list[int]]
) -> None:
    process = start_build()
    (compiler,) = wait_for(waiting_compiler, process)
    process.send_signal(number)
    process.communicate()
    if number == signal.SIGINT:
        wait_for(lambda: not is_alive(compiler))
        assert names_in(cache) == []
    else:
        assert len(names_in(cache)) == 1, "a draft is left"
    (tmp_path / "go").touch()
    wait_for(lambda: not is_alive(compiler))
    name, _ = built()
    assert names_in(cache) == [name]


# --- the real compiler


@pytest.mark.slow
@needs_compiler
@needs_fused
def test_a_training_builds_the_library(tmp_path: Path, new_program: Program) -> None:
    few = ("--epochs", "1", "--train-images", "64", "--test-images", "10")
    done = new_program("train", *few, "--output", "run", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == DONE, done.stderr
    assert_names(done.stderr.splitlines()[0], "built the fused operator", str(tmp_path / "cache"))
    assert "fused backend" in done.stderr


@pytest.mark.process
@pytest.mark.slow
@needs_compiler
@needs_fused
def test_no_flag_of_the_user_changes_the_results(tmp_path: Path) -> None:
    hostile = "-march=native -Ofast -ffast-math -funsafe-math-optimizations -fvisibility=hidden"
    run = partial(run_python, cwd=REPOSITORY, CFLAGS=hostile, XDG_CACHE_HOME=str(tmp_path))
    done = run("-c", "from mnist_trainer.model import native; print(native.built_from())")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f", flags {hostile}")
    assert done.stdout.split()[0] == native.built_from().split()[0]  # the same sources
    done = run(
        *("-m", "pytest", "-n0", "-p", "no:cacheprovider"),
        "tests/training/test_fused_sgd.py::test_the_bits_are_those_of_mxnets_sgd",
        "tests/model/test_native.py::test_numbers_that_are_not_finite_reach_the_output",
        "tests/model/test_native.py::test_a_nan_in_one_of_four_is_not_lost",
        "tests/model/test_native.py::test_loading_the_library_preserves_denormals",
    )
    assert done.returncode == 0, done.stdout + done.stderr
