"""What the variables of a job say, what is wrong with them, and where its scheduler is."""

import socket
import threading
import time

import pytest

from mnist_trainer.errors import RequestError
from mnist_trainer.job import Job, free_ports, refuse_taken_port

VARIABLES = {
    "DMLC_ROLE": "worker",
    "DMLC_PS_ROOT_URI": "10.0.0.1",
    "DMLC_PS_ROOT_PORT": "9091",
    "DMLC_NUM_WORKER": "4",
    "DMLC_NUM_SERVER": "2",
}


def test_a_job_as_any_tracker_describes_it() -> None:
    job = Job.from_variables(VARIABLES)
    assert job == Job("worker", "10.0.0.1", 9091, 4, 2)
    assert job.scheduler == "the scheduler at 10.0.0.1:9091"
    assert Job.from_variables(job.to_variables()) == job


@pytest.mark.parametrize("variables", [{}, {"DMLC_ROLE": ""}, {"DMLC_NUM_WORKER": "4"}])
def test_without_a_role_the_process_is_alone(variables: dict[str, str]) -> None:
    assert Job.from_variables(variables) is None


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        pytest.param(
            {"DMLC_ROLE": "boss"},
            [
                "DMLC_ROLE: 'boss' is not one of worker, server, scheduler "
                "(DMLC_ROLE is set, which makes this process one of a job)"
            ],
            id="another role",
        ),
        pytest.param(
            {"DMLC_NUM_WORKER": "many"},
            [
                "DMLC_NUM_WORKER: 'many' is not a whole number from 1 to 1024 "
                "(DMLC_ROLE is set, which makes this process one of a job)"
            ],
            id="no number",
        ),
        pytest.param(
            {"DMLC_PS_ROOT_URI": "", "DMLC_PS_ROOT_PORT": "70000", "DMLC_NUM_SERVER": "0"},
            [
                "DMLC_PS_ROOT_URI: is not set; it is the address of the job's scheduler "
                "(DMLC_ROLE is set, which makes this process one of a job)",
                "DMLC_PS_ROOT_PORT: '70000' is not a whole number from 1 to 65535",
                "DMLC_NUM_SERVER: '0' is not a whole number from 1 to 1024",
            ],
            id="several at once",
        ),
    ],
)
def test_variables_that_make_no_sense(changes: dict[str, str], problems: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        Job.from_variables(VARIABLES | changes)
    assert list(caught.value.problems) == problems


def test_a_port_that_is_taken_is_refused_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RequestError) as caught:
            refuse_taken_port(f"--port {port}", "127.0.0.1", port)
        assert str(caught.value) == (f"--port {port}: the scheduler cannot listen at 127.0.0.1:{port} (Address already in use)")
    refuse_taken_port(f"--port {port}", "127.0.0.1", port)


@pytest.mark.parametrize("host", ["256.0.0.1", "x" * 64, "192.0.2.1"])
def test_an_address_that_is_not_of_this_machine(host: str) -> None:
    with pytest.raises(RequestError, match=rf"^DMLC_PS_ROOT_PORT: the scheduler cannot listen at {host}:9091 \(.+\)$"):
        refuse_taken_port("DMLC_PS_ROOT_PORT", host, 9091)


def test_free_ports_are_free_and_in_order() -> None:
    ports = free_ports(3)
    assert sorted(set(ports)) == ports
    for port in ports:
        refuse_taken_port("", "127.0.0.1", port)


def test_a_scheduler_that_never_answers_is_given_up_in_time() -> None:
    [port] = free_ports(1)
    started = time.monotonic()
    with pytest.raises(RequestError) as caught:
        Job("worker", "127.0.0.1", port, 2, 1).wait_for_scheduler(0.5)
    assert 0.5 <= time.monotonic() - started < 5
    assert str(caught.value) == (
        f"the scheduler at 127.0.0.1:{port} has not answered for 0.5 seconds (Connection refused); "
        "start it, or set DMLC_PS_ROOT_URI and DMLC_PS_ROOT_PORT to where it is"
    )


def test_a_scheduler_that_comes_late_is_waited_for() -> None:
    with socket.socket() as scheduler:
        scheduler.bind(("127.0.0.1", 0))
        timer = threading.Timer(0.4, scheduler.listen)
        timer.start()
        started = time.monotonic()
        Job("worker", "127.0.0.1", scheduler.getsockname()[1], 2, 1).wait_for_scheduler(20)
        assert time.monotonic() - started >= 0.3
        timer.join()
