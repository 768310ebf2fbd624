"""Starts the processes of a distributed training on this machine, watches them, and stops all of them when one ends.

Standard library only. Each process reads its role from the environment variables of `cluster`.
"""

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
from mnist_trainer.distributed.cluster import SCHEDULER, SERVER, WORKER, Cluster, free_ports
from mnist_trainer.errors import FAILED, INTERRUPTED
from mnist_trainer.runtime.processes import end_group, end_with_parent, how_it_ended, this_program
from mnist_trainer.runtime.signals import StopRequest, stop_request

SECONDS_TO_FOLLOW = 5
"""Time in seconds for the other processes to end by themselves after the first has ended.

They may report the same problem, or wait forever.
"""

_POLL_SECONDS = 0.05

# With several servers, MXNet splits arrays above this size among them. Its default is a million numbers.
_MAX_NUMBERS_UNSPLIT = "10000"


class _Member:
    """A process of the cluster.

    Args:
        name: The name of the process in messages.
        process: The process.
        output: The file with its output; None if the output goes to the terminal.
    """

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", output: IO[bytes] | None) -> None:
        self.name = name
        self.process = process
        self.output = output

    @property
    def code(self) -> int | None:
        """Exit code as in `Popen.poll`: None while the process runs, negative if a signal ended it."""
        return self.process.poll()

    def how_it_ended(self) -> str:
        return f"{self.name} {how_it_ended(self.process.returncode)}"

    def lines(self) -> list[str]:
        """Return the lines that the process has printed."""
        if self.output is None:
            return []
        self.output.seek(0)
        return self.output.read().decode(errors="replace").splitlines()


def launch(command: Sequence[str], workers: int, servers: int, port: int, threads: str) -> int:
    """Run a command of this program in several processes, and wait until all of them have ended.

    The first worker shares stdout and stderr with this process. Messages of the others are shown if the first worker has not
    printed the same. Ctrl-C and SIGTERM are passed to the workers as a request to stop; a second signal kills all processes.

    Args:
        command: `train` and its arguments.
        workers: The number of processes that train.
        servers: The number of processes that sum the gradients.
        port: The port of the scheduler, which listens on the loopback interface only.
        threads: The value of OMP_NUM_THREADS for each process.

    Returns:
        The exit code.
    """
    launched_by = ["mnist-trainer", "launch", "--workers", str(workers), "--servers", str(servers), "--"]
    cluster = Cluster(SCHEDULER, "127.0.0.1", port, workers, servers, shlex.join(launched_by))
    with stop_request() as request, _started(command, cluster, threads) as members:
        try:
            return _watch(members, request)
        except KeyboardInterrupt:
            say("interrupted a second time; all processes were killed")
            return INTERRUPTED


def _watch(members: Sequence[_Member], request: StopRequest) -> int:
    """Wait until all processes have ended, report the reason, and return the exit code."""
    of_workers = [member for member in members if member.name.startswith(WORKER)]
    is_passed_on = False
    while not (ended := [member for member in members if member.code is not None and (member.code or member in of_workers)]):
        if request.was_made and not is_passed_on:
            is_passed_on = True
            for member in of_workers:
                member.process.send_signal(signal.SIGTERM)
        time.sleep(_POLL_SECONDS)
    first = ended[0]
    until = time.monotonic() + SECONDS_TO_FOLLOW
    while any(member.code is None for member in members) and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    codes = {member.name: member.code for member in members}
    leader, *others = of_workers
    for member in members:
        differs = member in others and codes[member.name] not in (None, codes[leader.name])
        if differs or (member is first and member not in of_workers):
            for line in member.lines():
                say(f"{member.name}: {line.removeprefix('mnist-trainer: ')}")
    code = codes[leader.name]
    if code is not None and code >= 0 and all(codes[member.name] == code for member in others):
        return code
    if request.was_made:
        say("interrupted before the workers could agree to stop")
        return INTERRUPTED
    say(f"{first.how_it_ended()}; all other processes were stopped")
    return FAILED


@contextmanager
def _started(command: Sequence[str], cluster: Cluster, threads: str) -> Iterator[list[_Member]]:
    """Start the processes, and kill those that still run at the end."""
    members: list[_Member] = []
    variables = os.environ | {
        "OMP_NUM_THREADS": threads,
        "DMLC_INTERFACE": "lo",
        "DMLC_NODE_HOST": cluster.host,
    }
    variables.pop("PORT", None)
    if cluster.servers > 1:
        variables.setdefault("MXNET_KVSTORE_BIGARRAY_BOUND", _MAX_NUMBERS_UNSPLIT)
    # ps-lite ranks the processes of one address by their ports. In ascending order, the first worker has rank 0.
    ports = free_ports(cluster.workers)
    roles = [(SCHEDULER, SCHEDULER, "")]
    roles += [(SERVER, f"{SERVER} {number}", "") for number in range(cluster.servers)]
    roles += [(WORKER, f"{WORKER} {number}", str(port)) for number, port in enumerate(ports)]
    try:
        for role, name, port in roles:
            output = None if name == f"{WORKER} 0" else tempfile.TemporaryFile()  # noqa: SIM115 - read when all have ended
            process = subprocess.Popen(
                [*this_program(), *command],
                env=variables | replace(cluster, role=role).to_variables() | ({"PORT": port} if port else {}),
                stdin=subprocess.DEVNULL,
                stdout=None if role == WORKER else output,
                stderr=output,
                start_new_session=True,  # Ctrl-C must reach only this process
                preexec_fn=end_with_parent(signal.SIGKILL),  # a parent that is killed cannot end it
            )
            members.append(_Member(name, process, output))
        yield members
    finally:
        for member in members:
            end_group(member.process)
            if member.output:
                member.output.close()
