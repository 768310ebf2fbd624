"""Runs `mnist-trainer` for one command line after another in a single process, because a new process takes a second to start.

A request is a line of JSON on stdin, and its answer is a line of JSON on stdout. `fuzz` sends the requests, checks what the
program did, and ends this process if it does not answer.

A request has these keys:
    arguments: The command line, without the name of the program.
    folder: The current folder of the program. Its output goes to the files `stdout` and `stderr` in the parent of this folder.
    stdin: The file to read as standard input.
    pictures: The files to send to the server of `demo` before it is interrupted.
    may_be_long: True to interrupt a training shortly after its first iteration.
An answer has these keys:
    code: The exit code.
    written: The paths outside the parent of `folder` that the program opened for writing, made, renamed or removed.
"""

import contextlib
import faulthandler
import http.client
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from leftovers import changed_path

MEMORY_BYTES = 1536 * 2**20
"""Memory that a command may use in addition to that of the idle process."""

MAX_SENT_BYTES = 2 * 2**20
"""Maximum number of bytes of a picture that the server gets, which is more than it accepts."""

SECONDS_UNTIL_INTERRUPTED = 0.3

SECONDS_UNTIL_NEXT_INTERRUPT = 5.0  # a training ends its evaluation after the first


class Watch:
    """Records what the program writes outside the folder of a request, and whether a training or a server has begun."""

    def __init__(self) -> None:
        self.begin(Path("/"))

    def begin(self, folder: Path) -> None:
        """Forget the last request."""
        self.folder = folder
        self.written: set[str] = set()
        self.trains = threading.Event()

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record an audit event (see `sys.addaudithook`)."""
        path = changed_path(event, arguments)
        if path and not path.is_relative_to(self.folder) and not path.is_relative_to("/dev") and path != IMPOSSIBLE:
            self.written.add(str(path))
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and any(name in str(arguments[0]) for name in _FIRST):
            self.trains.set()


IMPOSSIBLE = Path("/proc/x")
"""An output that a command line may name, and that cannot be made."""

_FIRST = ("config.toml", "iterations.csv")  # files that a new and a resumed run write first


def _interrupt(request: dict[str, Any], watch: Watch, ended: threading.Event) -> None:
    """Interrupt the program when it has trained an iteration, or when the server has answered the pictures."""
    printed = Path(request["folder"]).parent / "stdout"
    while not ended.wait(0.02):
        if request["may_be_long"] and watch.trains.is_set() and not ended.wait(SECONDS_UNTIL_INTERRUPTED):
            break
        if request["arguments"][:1] == ["demo"] and b"Draw digits at" in printed.read_bytes():
            port = int(printed.read_text(encoding="utf-8").split("127.0.0.1:")[1].split("/")[0])
            for picture in request["pictures"]:
                with Path(picture).open("rb") as stream:
                    _send(port, stream.read(MAX_SENT_BYTES))
            break
    while not ended.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        ended.wait(SECONDS_UNTIL_NEXT_INTERRUPT)


def _send(port: int, content: bytes) -> None:
    """Send a picture to the server, and print an error unless it answers with a result or refuses the picture."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it refuses a large picture before it has arrived
            connection.request("POST", "/answer", content, {"Content-Type": "image/png", "Host": f"127.0.0.1:{port}"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200 and not (400 <= response.status < 500 and answer["error"]):
            print(f"Traceback: the server has answered {response.status} {answer}", file=sys.stderr)
    except Exception:
        traceback.print_exc()
    finally:
        connection.close()


def _redirect(number: int, path: Path, flags: int) -> None:
    opened = os.open(path, flags | os.O_CLOEXEC, 0o600)
    os.dup2(opened, number)
    os.close(opened)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, resource.RLIM_INFINITY))


def _run(request: dict[str, Any], watch: Watch) -> dict[str, Any]:
    from mnist_trainer.cli import main

    folder = Path(request["folder"])
    environment, search_path = dict(os.environ), list(sys.path)
    _redirect(0, Path(request["stdin"]), os.O_RDONLY)
    for number, name in ((1, "stdout"), (2, "stderr")):
        _redirect(number, folder.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.chdir(folder)
    ended = threading.Event()
    thread = threading.Thread(target=_interrupt, args=(request, watch, ended))
    watch.begin(folder.parent)
    _limit_memory()
    code = -1
    try:
        thread.start()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main(request["arguments"])
    except SystemExit as end:  # argparse raises this after --help
        code = end.code if isinstance(end.code, int) else -1
    except BaseException:
        traceback.print_exc()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ended.set()
        thread.join()
    with contextlib.suppress(OSError):  # a full device
        sys.stdout.flush()
        sys.stderr.flush()
    written = sorted(watch.written)
    watch.begin(Path("/"))
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = search_path
    return {"code": code, "written": written}


def _prepare() -> None:
    """Load everything once, and skip what takes time but is not tested: reading the data again, and waiting for the disk."""
    from mnist_trainer import plots, runtime
    from mnist_trainer.config.schema import DataConfig
    from mnist_trainer.data import files
    from mnist_trainer.data.mnist_files import Split, read_split

    runtime.prepare(threads=1)
    runtime.import_mxnet()
    assert plots.__name__
    patch = pytest.MonkeyPatch()
    once = cache(read_split)

    def read(folder: Path, data: DataConfig, train: bool) -> Split:
        return once(folder, train) if data.name == "mnist" else files.read_split(folder, data, train)

    patch.setattr("mnist_trainer.data.loaders.read_split", read)
    patch.setattr(os, "fsync", lambda _: None)


def main() -> None:
    """Answer requests until stdin ends."""
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    faulthandler.enable(open(os.dup(2), "w"))  # noqa: SIM115, PTH123
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prepare()
    watch = Watch()
    sys.addaudithook(watch.note)
    answers.write("{}\n")
    answers.flush()
    for line in requests:
        started = time.monotonic()
        answer = _run(json.loads(line), watch)
        answers.write(json.dumps(answer | {"seconds": time.monotonic() - started}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
