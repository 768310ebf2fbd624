"""Processes end with the process that started them, even if it is killed."""

import os
import signal
import subprocess
import sys

import pytest
from programs import is_alive, new_environment, wait_for

from mnist_trainer.runtime.processes import end_with_parent

PARENT = """
import signal, subprocess, sys, time
from mnist_trainer.runtime.processes import end_with_parent

signal.signal(signal.SIGHUP, lambda *_: None)
number = signal.Signals[sys.argv[1]]
command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(3600)"]
process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, preexec_fn=end_with_parent(number))
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(3600)
"""


@pytest.mark.process
@pytest.mark.parametrize("name", ["SIGHUP", "SIGKILL"])
def test_a_process_ends_when_its_parent_is_killed(name: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, name], env=new_environment(), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.kill()
    wait_for(lambda: not is_alive(child))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.Signals[name]  # the test process adopts orphans


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_a_process_ends_if_its_parent_has_ended_before(number: signal.Signals) -> None:
    set_signal = end_with_parent(number)
    middle = os.fork()
    if middle == 0:
        child = os.fork()  # its parent is not the process that called `end_with_parent`, as after the end of that process
        if child == 0:
            signal.signal(signal.SIGHUP, lambda *_: None)
            set_signal()
            os._exit(0)
        os._exit(-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    assert os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1]) == number
