"""The processes of a job on this machine: started, watched, and ended together, however the job ends.

Standard library only. What a process does in the job is its own business, by the variables that `job` names.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

from mnist_trainer.console import say
from mnist_trainer.distributed.job import SCHEDULER, SERVER, WORKER, Job, free_ports
from mnist_trainer.errors import FAILED, INTERRUPTED
from mnist_trainer.runtime.processes import end_group, how_it_ended, this_program
from mnist_trainer.runtime.signals import StopWish, stop_wish

SECONDS_TO_FOLLOW = 5
"""How long the others of a job have to end by themselves when one has: they may have the same to say, or wait for ever."""

_LOOK_EVERY_SECONDS = 0.05

# What a server should hold of one array, when there are several: by default MXNet splits only arrays of a million numbers.
_MOST_NUMBERS_UNSPLIT = "10000"

_PR_SET_PDEATHSIG = 1


class _Member:
    """A process of the job. `told` is where its messages wait, of those that do not go to the terminal."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", told: IO[bytes] | None) -> None:
        self.name = name
        self.process = process
        self.told = told

    @property
    def code(self) -> int | None:
        """As `Popen.poll`: None while it runs, negative when a signal ended it."""
        return self.process.poll()

    def how_it_ended(self) -> str:
        return f"{self.name} {how_it_ended(self.process.returncode)}"

    def lines(self) -> list[str]:
        """What it has told."""
        if self.told is None:
            return []
        self.told.seek(0)
        return self.told.read().decode(errors="replace").splitlines()


def launch(command: Sequence[str], workers: int, servers: int, port: int, threads: str) -> int:
    """Runs a command of this program as a job on this machine; returns its exit code when all of its processes are gone.

    command: `train` and its arguments.
    port: where the scheduler listens, on the loopback interface alone.
    threads: OMP_NUM_THREADS of each process.

    The first worker has the standard output and error of this process; what the others say is told when the first has not
    said it. Ctrl-C and SIGTERM go to the workers as a wish to stop; the second ends all processes at once.
    """
    launched_by = ["mnist-trainer", "launch", "--workers", str(workers), "--servers", str(servers), "--"]
    job = Job(SCHEDULER, "127.0.0.1", port, workers, servers, shlex.join(launched_by))
    with stop_wish() as wish, _started(command, job, threads) as members:
        try:
            return _watch(members, wish)
        except KeyboardInterrupt:
            say("interrupted a second time: the job was ended where it stood")
            return INTERRUPTED


def _watch(members: Sequence[_Member], wish: StopWish) -> int:
    """Waits for the end of the job, and tells what is to be told of it."""
    of_workers = [each for each in members if each.name.startswith(WORKER)]
    has_been_told = False
    while not (ended := [each for each in members if each.code is not None and (each.code or each in of_workers)]):
        if wish.is_there and not has_been_told:
            has_been_told = True
            for each in of_workers:
                each.process.send_signal(signal.SIGTERM)
        time.sleep(_LOOK_EVERY_SECONDS)
    first = ended[0]
    until = time.monotonic() + SECONDS_TO_FOLLOW
    while any(each.code is None for each in members) and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_SECONDS)
    codes = {each.name: each.code for each in members}
    chief, *others = of_workers
    for each in members:
        speaks_for_itself = each in others and codes[each.name] not in (None, codes[chief.name])
        if speaks_for_itself or (each is first and each not in of_workers):
            for line in each.lines():
                say(f"{each.name}: {line.removeprefix('mnist-trainer: ')}")
    code = codes[chief.name]
    if code is not None and code >= 0 and all(codes[each.name] == code for each in others):
        return code
    if wish.is_there:
        say("interrupted before the workers could agree to stop")
        return INTERRUPTED
    say(f"{first.how_it_ended()}, and the job was ended with it")
    return FAILED


@contextmanager
def _started(command: Sequence[str], job: Job, threads: str) -> Iterator[list[_Member]]:
    """The job's processes, all of which are gone afterwards."""
    members: list[_Member] = []
    variables = os.environ | {
        "OMP_NUM_THREADS": threads,
        "DMLC_INTERFACE": "lo",
        "DMLC_NODE_HOST": job.host,
    }
    variables.pop("PORT", None)
    if job.servers > 1:
        variables.setdefault("MXNET_KVSTORE_BIGARRAY_BOUND", _MOST_NUMBERS_UNSPLIT)
    # ps-lite ranks processes of one address by their ports, so that the first worker is the one with rank 0.
    ports = free_ports(job.workers)
    roles = [(SCHEDULER, SCHEDULER, "")]
    roles += [(SERVER, f"{SERVER} {number}", "") for number in range(job.servers)]
    roles += [(WORKER, f"{WORKER} {number}", str(port)) for number, port in enumerate(ports)]
    try:
        for role, name, port in roles:
            told = None if name == f"{WORKER} 0" else tempfile.TemporaryFile()  # noqa: SIM115 - read when the job has ended
            process = subprocess.Popen(
                [*this_program(), *command],
                env=variables | replace(job, role=role).to_variables() | ({"PORT": port} if port else {}),
                stdin=subprocess.DEVNULL,
                stdout=None if role == WORKER else told,
                stderr=told,
                start_new_session=True,  # Ctrl-C is ours to answer
                preexec_fn=_end_with_parent,
            )
            members.append(_Member(name, process, told))
        yield members
    finally:
        for each in members:
            end_group(each.process)
            if each.told:
                each.told.close()


def _end_with_parent() -> None:
    # Also when it is killed, and can end nobody itself.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
