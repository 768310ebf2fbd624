"""The environment variables of a job, messages about invalid ones, and the wait for the scheduler."""

import socket
from collections.abc import Callable, Iterator

import pytest
from command_line import assert_names
from conftest import Snapshot

from mnist_trainer.distributed import cluster as cluster_module
from mnist_trainer.distributed.cluster import Cluster, free_ports, refuse_taken_port
from mnist_trainer.errors import RequestError

VARIABLES = {
    "DMLC_ROLE": "worker",
    "DMLC_PS_ROOT_URI": "10.0.0.1",
    "DMLC_PS_ROOT_PORT": "9091",
    "DMLC_NUM_WORKER": "4",
    "DMLC_NUM_SERVER": "2",
}


def test_variables_as_a_tracker_sets_them() -> None:
    cluster = Cluster.from_variables(VARIABLES)
    assert cluster == Cluster("worker", "10.0.0.1", 9091, 4, 2)
    assert cluster.scheduler == "the scheduler at 10.0.0.1:9091"
    assert Cluster.from_variables(cluster.to_variables()) == cluster


@pytest.mark.parametrize("variables", [{}, {"DMLC_ROLE": ""}, {"DMLC_NUM_WORKER": "4"}])
def test_without_a_role_the_process_is_alone(variables: dict[str, str]) -> None:
    assert Cluster.from_variables(variables) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"DMLC_ROLE": "boss"}, [("DMLC_ROLE = 'boss': ", "worker, server, scheduler")], id="another role"),
        pytest.param({"DMLC_NUM_WORKER": "many"}, [("DMLC_NUM_WORKER = 'many': ", "1 to 1024")], id="not a number"),
        pytest.param(
            {"DMLC_PS_ROOT_URI": "", "DMLC_PS_ROOT_PORT": "70000", "DMLC_NUM_SERVER": "0"},
            [
                ("DMLC_PS_ROOT_URI: ", "not set", "address"),
                ("DMLC_PS_ROOT_PORT = 70000: ", "1 to 65535"),
                ("DMLC_NUM_SERVER = 0: ", "1 to 1024"),
            ],
            id="several problems",
        ),
    ],
)
def test_invalid_variables(changes: dict[str, str], named: list[tuple[str, ...]], snapshot: Snapshot) -> None:
    with pytest.raises(RequestError) as caught:
        Cluster.from_variables(VARIABLES | changes)
    for problem, words in zip(caught.value.problems, named, strict=True):
        assert_names(problem, *words)
    assert "DMLC_ROLE is set" in caught.value.problems[0]
    snapshot(str(caught.value))


def test_a_port_that_is_taken_is_refused_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RequestError) as caught:
            refuse_taken_port(f"--port {port}", "127.0.0.1", port)
        assert_names(str(caught.value), f"--port {port}: ", f"127.0.0.1:{port}", "Address already in use")
    refuse_taken_port(f"--port {port}", "127.0.0.1", port)


@pytest.mark.parametrize("host", ["256.0.0.1", "x" * 64, "192.0.2.1"])
def test_an_address_of_another_machine(host: str) -> None:
    with pytest.raises(RequestError) as caught:
        refuse_taken_port("DMLC_PS_ROOT_PORT", host, 9091)
    assert_names(str(caught.value), "DMLC_PS_ROOT_PORT: ", f"{host}:9091")


def test_free_ports_are_free_and_in_order() -> None:
    ports = free_ports(3)
    assert sorted(set(ports)) == ports
    for port in ports:
        refuse_taken_port("", "127.0.0.1", port)


@pytest.fixture
def silent_scheduler() -> Iterator[socket.socket]:
    """Yield a socket with a port of its own, which refuses connections until it listens."""
    with socket.socket() as scheduler:
        scheduler.bind(("127.0.0.1", 0))
        yield scheduler


class Clock:
    """A clock for `wait_for_scheduler` that advances only while it sleeps."""

    def __init__(self) -> None:
        self.naps: list[float] = []
        self.during_nap: Callable[[int], object] = lambda number: None

    def monotonic(self) -> float:
        return sum(self.naps)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        assert len(self.naps) < 100, "it never gives up"
        self.during_nap(len(self.naps))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cluster_module, "time", clock)
    return clock


def test_the_wait_for_a_scheduler_that_never_answers_ends_in_time(silent_scheduler: socket.socket, clock: Clock) -> None:
    port = silent_scheduler.getsockname()[1]
    with pytest.raises(RequestError) as caught:
        Cluster("worker", "127.0.0.1", port, 2, 1).wait_for_scheduler(0.5)
    assert clock.monotonic() == pytest.approx(0.5)
    assert_names(
        str(caught.value),
        f"the scheduler at 127.0.0.1:{port} ",
        *("0.5 seconds", "Connection refused", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"),
    )


def test_a_scheduler_may_start_late(silent_scheduler: socket.socket, clock: Clock) -> None:
    clock.during_nap = lambda number: silent_scheduler.listen() if number == 3 else None
    Cluster("worker", "127.0.0.1", silent_scheduler.getsockname()[1], 2, 1).wait_for_scheduler(20)
    assert len(clock.naps) == 3
