"""A quick sample of `fault_injection.py`, which tries many more of each: what a disturbed run becomes in the end."""

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
    resume_at_once,
    slow_disk,
    stop_and_resume,
    stop_twice,
    while_saving,
)

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Runs of 30 iterations."""
    bench = Bench(tmp_path_factory.mktemp("faults") / "bench", random.Random(0), train_images=960)
    yield bench
    bench.clean_up()


def test_killed_while_saving_and_killed_again(bench: Bench) -> None:
    for _ in range(10):  # on a busy machine the blow may come when the checkpoint is written
        if SAVING in kill_and_resume(bench, [while_saving(1, 0.03), while_saving(1, 0.05)]):
            return
    pytest.fail("no blow fell while a checkpoint was being written")


def test_asked_to_stop(bench: Bench) -> None:
    stop_and_resume(bench, signal.SIGTERM, 8)


def test_asked_to_stop_twice(bench: Bench) -> None:
    stop_twice(bench, signal.SIGINT, signal.SIGINT)


def test_a_disk_that_is_full(bench: Bench) -> None:
    arrays, *_, last_of_parameters = (full for full in full_disks(bench) if full.name in ("arrays.npz", "model.params"))
    fill_disk(bench, arrays)
    fill_disk(bench, last_of_parameters)


def test_a_folder_that_is_removed(bench: Bench) -> None:
    remove_folder(bench, as_soon_as("iterations.csv"), slow_disk(0.5, "/checkpoints"))


def test_two_that_resume_one_run(bench: Bench) -> None:
    resume_at_once(bench, 2)


def test_a_clock_that_jumps(bench: Bench) -> None:
    change_clock(bench, jumping_clock(0))
