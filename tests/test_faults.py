"""A quick sample of the trials in `fault_injection.py`, which tries many more faults of each kind."""

import random
import signal
from collections.abc import Iterator

import pytest
from fault_injection import (
    SAVING,
    Bench,
    as_soon_as,
    change_clock,
    fill_disk,
    full_disks,
    jumping_clock,
    kill_and_resume,
    remove_folder,
    resume_in_parallel,
    slow_disk,
    stop_and_resume,
    stop_twice,
    while_saving,
)

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Return a bench for runs of 30 iterations."""
    bench = Bench(tmp_path_factory.mktemp("faults") / "bench", random.Random(0), train_images=960)
    yield bench
    bench.clean_up()


def test_a_run_killed_twice_while_saving(bench: Bench) -> None:
    for _ in range(10):  # on a busy machine, the kill may come after the checkpoint is complete
        if SAVING in kill_and_resume(bench, [while_saving(1, 0.03), while_saving(1, 0.05)]):
            return
    pytest.fail("no kill happened while a checkpoint was being written")


def test_a_run_stopped_by_a_signal(bench: Bench) -> None:
    stop_and_resume(bench, signal.SIGTERM, 8)


def test_a_run_stopped_by_two_signals(bench: Bench) -> None:
    stop_twice(bench, signal.SIGINT, signal.SIGINT)


def test_a_full_disk(bench: Bench) -> None:
    arrays, *_, parameters = (full for full in full_disks(bench) if full.name in ("arrays.npz", "model.params"))
    fill_disk(bench, arrays)
    fill_disk(bench, parameters)


def test_a_removed_folder(bench: Bench) -> None:
    remove_folder(bench, as_soon_as("iterations.csv"), slow_disk(0.5, "/checkpoints"))


def test_two_processes_that_resume_one_run(bench: Bench) -> None:
    resume_in_parallel(bench, 2)


def test_a_jumping_clock(bench: Bench) -> None:
    change_clock(bench, jumping_clock(0))
