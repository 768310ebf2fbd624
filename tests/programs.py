"""Functions that run `mnist-trainer` and other programs, in a fork of the test process or in a new interpreter."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from mnist_trainer import runtime
from mnist_trainer.cli import main

REPOSITORY = Path(__file__).parent.parent

LIMIT_SECONDS = 600
"""Maximum duration of every wait, far longer than a machine ten times slower needs."""


def load_script(name: str) -> ModuleType:
    """Return a script of `scripts/` as a module."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait_for(condition: Callable[[], Any], *processes: "ForkedProgram | subprocess.Popen[Any]") -> Any:
    """Wait until the condition is true or one of the processes has ended, and return the last result of the condition."""
    until = time.monotonic() + LIMIT_SECONDS
    while not (found := condition()) and all(process.poll() is None for process in processes):
        assert time.monotonic() < until, f"the condition was not met within {LIMIT_SECONDS} s"
        time.sleep(0.02)
    return found


def state_and_parent(process_id: int) -> tuple[str, int]:
    """Return the letter for the state of a process, such as "S" for sleeping, and the ID of its parent."""
    stat = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8", errors="replace")
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)


def is_alive(process_id: int) -> bool:
    """Return whether a process with this ID exists and has not ended."""
    try:
        return state_and_parent(process_id)[0] != "Z"
    except OSError:
        return False


def children_of(process_id: int) -> list[int]:
    """Return the IDs of the children of a process, including zombies."""
    tasks = list(Path(f"/proc/{process_id}/task").iterdir())
    children: list[int] = []
    if (tasks[0] / "children").exists():
        for task in tasks:
            with contextlib.suppress(OSError):  # the thread has just ended
                children += map(int, (task / "children").read_text(encoding="ascii").split())
        return children
    for process in Path("/proc").glob("[0-9]*"):  # this kernel does not list children
        with contextlib.suppress(OSError):
            if state_and_parent(int(process.name))[1] == process_id:
                children.append(int(process.name))
    return children


def new_environment(**variables: str) -> dict[str, str]:
    """Return the environment for a new interpreter that may use all processors and imports from this checkout first."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return inherited | {"PYTHONPATH": str(REPOSITORY), **variables}


def run_new_program(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `mnist-trainer ARGUMENTS` in a new interpreter."""
    return run_python("-m", "mnist_trainer", *arguments, cwd=cwd, **variables)


def run_python(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a new interpreter."""
    return run_command(sys.executable, *arguments, cwd=cwd, **variables)


def run_command(*command: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run any command in the environment for a new interpreter."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=new_environment(**variables),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


class ForkedProgram:
    """`mnist-trainer ARGUMENTS` in a fork of this process. A fork saves the two seconds that importing MXNet takes.

    The fork has as many OpenMP threads as this process: one. Its methods have the same names as in `subprocess.Popen`.

    Attributes:
        arguments: The arguments of the program, without its name.
        returncode: The exit code, negative for a signal; None while the process runs.
        pid: The process ID.
    """

    def __init__(self, *arguments: str | Path, cwd: Path, **variables: str) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.returncode: int | None = None
        runtime.import_mxnet().nd.waitall()  # MXNet's engine restarts at a fork and may lose pending operations
        from mnist_trainer import plots  # noqa: F401 - imported once here instead of in each fork

        self._streams = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in ("stdout", "stderr")]  # noqa: SIM115
        self.pid = os.fork()
        if self.pid == 0:
            self._become_program(cwd, variables)

    def _become_program(self, cwd: Path, variables: Mapping[str, str]) -> NoReturn:
        code = 1
        try:
            os.chdir(cwd)
            os.environ.update(variables)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(self._streams[number - 1].fileno(), number)
                setattr(sys, name, open(number, "w", closefd=False, encoding="utf-8"))  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            code = main(self.arguments)
        except SystemExit as end:  # argparse raises it after --help
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)  # the fork must never return into pytest and run the tests a second time

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def printed(self) -> str:
        """Return what the process has printed on stdout so far."""
        return os.pread(self._streams[0].fileno(), 2**20, 0).decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process if it is alive, and discard its output."""
        self.send_signal(signal.SIGKILL)
        wait_for(lambda: self.poll() is not None)
        for stream in self._streams:
            stream.close()

    def communicate(self) -> tuple[str, str]:
        """Wait until the process has ended, and return its stdout and stderr."""
        wait_for(lambda: self.poll() is not None)
        printed = []
        for stream in self._streams:
            with stream:
                stream.seek(0)
                printed.append(stream.read())
        return printed[0], printed[1]


def run_forked_program(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `mnist-trainer ARGUMENTS` in a fork of this process."""
    process = ForkedProgram(*arguments, cwd=cwd, **variables)
    try:
        stdout, stderr = process.communicate()
    except BaseException:
        process.kill()
        raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.arguments, process.returncode, stdout, stderr)
