"""A job of several processes, as the variables of MXNet's parameter server (ps-lite) describe it, and what is wrong with it.

Standard library only. Those variables are set by `launcher`, or by whatever tracker starts the processes of a cluster; what a
process then does as a worker, a server or the scheduler is known to `parameter_server`.
"""

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mnist_trainer.errors import RequestError
from mnist_trainer.fields import Choice, FieldError, Whole

ROLE = "DMLC_ROLE"
HOST = "DMLC_PS_ROOT_URI"
PORT = "DMLC_PS_ROOT_PORT"
WORKERS = "DMLC_NUM_WORKER"
SERVERS = "DMLC_NUM_SERVER"
LAUNCHED_BY = "MNIST_TRAINER_LAUNCHED_BY"

WORKER, SERVER, SCHEDULER = "worker", "server", "scheduler"

ROLES = Choice((WORKER, SERVER, SCHEDULER))

PROCESSES = Whole(1, 1024)

PORTS = Whole(1, 65_535)


@dataclass(frozen=True)
class Job:
    """What this process is in the job, where its scheduler is, and how many others there are.

    launched_by: the command that started the whole job, up to that of its workers; "" where a tracker did.
    """

    role: str
    host: str
    port: int
    workers: int
    servers: int
    launched_by: str = ""

    @property
    def scheduler(self) -> str:
        """Where the scheduler is, as messages name it."""
        return f"the scheduler at {self.host}:{self.port}"

    def to_variables(self) -> dict[str, str]:
        """The variables from which `from_variables` reads an equal job."""
        return {
            ROLE: self.role,
            HOST: self.host,
            PORT: str(self.port),
            WORKERS: str(self.workers),
            SERVERS: str(self.servers),
            LAUNCHED_BY: self.launched_by,
        }

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> "Job | None":
        """The job that these environment variables speak of; None when DMLC_ROLE is not set, and the process is alone.

        Raises RequestError with all that is missing or makes no sense.
        """
        role = variables.get(ROLE)
        if not role:
            return None
        problems = []
        host = variables.get(HOST, "")
        if not host:
            problems.append(f"{HOST}: is not set; it is the address of the job's scheduler")
        numbers: dict[str, Any] = {}
        for name, kind in ((ROLE, ROLES), (PORT, PORTS), (WORKERS, PROCESSES), (SERVERS, PROCESSES)):
            text = variables.get(name, "")
            try:
                numbers[name] = kind.check(name, int(text) if re.fullmatch(r"[0-9]{1,5}", text) else text)
            except FieldError as error:
                problems.append(str(error))
        if problems:
            raise RequestError(f"{problems[0]} ({ROLE} is set, which makes this process one of a job)", *problems[1:])
        return cls(role, host, numbers[PORT], numbers[WORKERS], numbers[SERVERS], variables.get(LAUNCHED_BY, ""))

    def wait_for_scheduler(self, seconds: float) -> None:
        """Returns as soon as the scheduler takes connections. Raises RequestError when it has not for so many seconds."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            try:
                socket.create_connection((self.host, self.port), timeout=max(left, 0.1)).close()
                return
            except (OSError, UnicodeError) as error:
                if left <= 0:
                    raise RequestError(
                        f"{self.scheduler} has not answered for {seconds:g} seconds ({_reason(error)}); "
                        f"start it, or set {HOST} and {PORT} to where it is"
                    ) from error
            time.sleep(min(0.2, max(left, 0)))


def refuse_taken_port(spelling: str, host: str, port: int) -> None:
    """Raises RequestError when the scheduler could not listen there. spelling: of the setting that names the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ps-lite does: it minds no connection that is over
        try:
            listener.bind((host, port))
        except (OSError, UnicodeError) as error:
            raise RequestError(f"{spelling}: the scheduler cannot listen at {host}:{port} ({_reason(error)})") from error


def free_ports(count: int) -> list[int]:
    """So many ports of this machine that nobody uses, in ascending order."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return sorted(each.getsockname()[1] for each in sockets)
    finally:
        for each in sockets:
            each.close()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
