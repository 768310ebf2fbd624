"""The environment variables of MXNet's parameter server (ps-lite), which describe the processes of a distributed training.

Standard library only. `launcher`, or another program that starts the processes of a cluster, sets the variables.
`parameter_server` runs a process as a worker, a server or the scheduler.
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

ROLES = Choice((WORKER, SERVER, SCHEDULER), ignores_case=False)  # MXNet reads the variable too

PROCESSES = Whole(1, 1024)

PORTS = Whole(1, 65_535)


@dataclass(frozen=True)
class Cluster:
    """The processes of a distributed training, as one of them sees it.

    Attributes:
        role: The role of this process: "worker", "server" or "scheduler".
        host: The address of the scheduler.
        port: The port of the scheduler.
        workers: The number of processes that train.
        servers: The number of processes that sum the gradients.
        launched_by: The beginning of the command that started all processes, up to `--`; "" if another program started them.
    """

    role: str
    host: str
    port: int
    workers: int
    servers: int
    launched_by: str = ""

    @property
    def scheduler(self) -> str:
        """Name and address of the scheduler, for messages."""
        return f"the scheduler at {self.host}:{self.port}"

    def to_variables(self) -> dict[str, str]:
        """Return the environment variables from which `from_variables` reads an equal cluster."""
        return {
            ROLE: self.role,
            HOST: self.host,
            PORT: str(self.port),
            WORKERS: str(self.workers),
            SERVERS: str(self.servers),
            LAUNCHED_BY: self.launched_by,
        }

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> "Cluster | None":
        """Read the environment variables.

        Args:
            variables: The environment variables by name.

        Returns:
            The cluster; None if DMLC_ROLE is not set and the process trains alone.

        Raises:
            RequestError: Variables are missing or invalid. The message names all of them.
        """
        role = variables.get(ROLE)
        if not role:
            return None
        problems = []
        host = variables.get(HOST, "")
        if not host:
            problems.append(f"{HOST}: not set; set it to the address of the scheduler")
        numbers: dict[str, Any] = {}
        for name, kind in ((ROLE, ROLES), (PORT, PORTS), (WORKERS, PROCESSES), (SERVERS, PROCESSES)):
            text = variables.get(name, "")
            try:
                numbers[name] = kind.check(name, int(text) if re.fullmatch(r"[0-9]{1,5}", text) else text)
            except FieldError as error:
                problems.append(str(error))
        if problems:
            raise RequestError(f"{problems[0]} ({ROLE} is set, which makes this process one of several)", *problems[1:])
        return cls(role, host, numbers[PORT], numbers[WORKERS], numbers[SERVERS], variables.get(LAUNCHED_BY, ""))

    def wait_for_scheduler(self, seconds: float) -> None:
        """Wait until the scheduler accepts connections.

        Args:
            seconds: The maximum time to wait.

        Raises:
            RequestError: The scheduler did not accept a connection in this time.
        """
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            try:
                socket.create_connection((self.host, self.port), timeout=max(left, 0.1)).close()
                return
            except (OSError, UnicodeError) as error:
                if left <= 0:
                    raise RequestError(
                        f"{self.scheduler} did not answer within {seconds:g} seconds ({_reason(error)}); "
                        f"start it, or set {HOST} and {PORT} to its address"
                    ) from error
            time.sleep(min(0.2, max(left, 0)))


def refuse_taken_port(spelling: str, host: str, port: int) -> None:
    """Raise RequestError if the scheduler cannot listen on an address and port.

    Args:
        spelling: The flag or variable of the port, as the user spelled it.
        host: The address on which to listen.
        port: The port on which to listen.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ps-lite does: ignores connections that are closed
        try:
            listener.bind((host, port))
        except (OSError, UnicodeError) as error:
            problem = f"the scheduler cannot listen on {host}:{port} ({_reason(error)})"
            raise RequestError(f"{spelling}: {problem}; choose a free port and an address of this machine") from error


def free_ports(count: int) -> list[int]:
    """Return free ports of this machine in ascending order.

    Args:
        count: The number of ports.
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return sorted(listener.getsockname()[1] for listener in sockets)
    finally:
        for listener in sockets:
            listener.close()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
