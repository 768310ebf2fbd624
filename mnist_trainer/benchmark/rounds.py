"""The rounds of a benchmark. In a round, one implementation trains for an epoch and evaluates on the test images.

Each implementation runs in its own process, with its own threads, and waits at a pipe while another one trains. Every
implementation has a round in each repetition; the order rotates from one repetition to the next. The first epoch of each
implementation is not counted, because libraries compile and allocate in it.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mnist_trainer.benchmark.implementations import IMPLEMENTATIONS, OURS
from mnist_trainer.benchmark.processes import worker_running
from mnist_trainer.benchmark.worker import Task
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.errors import RunError

MIN_ACCURACY = 0.9
"""Minimum test accuracy of an implementation that has trained on `MIN_IMAGES` images."""

MIN_IMAGES = 60_000


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that has passed every check and can be started.

    Attributes:
        implementations: Their names.
        repetitions: The number of counted rounds of each implementation.
        config: The configuration of this program, with device and threads resolved. Its number of threads and numbers of images
            apply to every implementation.
        backend: The resolved backend of this program.
        data_dir: The folder of the MNIST files.
        peer_python: The interpreter that has torch and jax.
        peer_packages: Package of a peer → its version; None if it is not installed.
        left_out: A message for each implementation that cannot run here.
    """

    implementations: Sequence[str]
    repetitions: int
    config: RunConfig
    backend: str
    data_dir: Path
    peer_python: str = sys.executable
    peer_packages: Mapping[str, str | None] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    @property
    def threads(self) -> int:
        """The number of threads of every implementation."""
        return int(self.config.runtime.threads)

    @property
    def train_images(self) -> int:
        """The number of images in an epoch."""
        return self.config.data.trained_images

    @property
    def test_images(self) -> int:
        """The number of images in an evaluation."""
        return self.config.data.test_images

    @property
    def total_rounds(self) -> int:
        """The number of rounds, including those that do not count."""
        return (self.repetitions + 1) * len(self.implementations)

    def task(self, name: str, module: str, settings: Mapping[str, Any]) -> Task:
        """Return the task of a worker."""
        return Task(
            name=name,
            module=module,
            data_dir=str(self.data_dir),
            train_images=self.train_images,
            test_images=self.test_images,
            threads=self.threads,
            epochs=self.repetitions + 1,
            settings=settings,
        )


class Measurement(NamedTuple):
    """The measurement of a round. Repetition 0 is the first epoch, which is not counted."""

    implementation: str
    repetition: int
    train_seconds: float  # of an epoch, with the device synchronised before and after
    test_seconds: float
    test_accuracy: float
    user_seconds: float  # processor time of the whole round
    system_seconds: float


def measure(benchmark: Benchmark, on_round: Callable[[], object] = lambda: None) -> list[Measurement]:
    """Run all rounds.

    Args:
        benchmark: The implementations and their settings.
        on_round: Called after each round.

    Returns:
        A measurement for each round, in order. `refuse_untrained` checks the accuracies, so that the caller can save the
        measurements first.

    Raises:
        RunError: An implementation failed. All processes have ended.
    """
    measurements = []
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in benchmark.implementations:
            implementation = IMPLEMENTATIONS[name]
            settings = implementation.settings
            if implementation.module == OURS:
                settings = {"config": {**benchmark.config.to_tables(), **settings}}
            task = benchmark.task(f"the implementation {name}", implementation.module, settings)
            python = benchmark.peer_python if implementation.package else sys.executable
            workers[name] = stack.enter_context(worker_running(task, python))
        for worker in workers.values():
            worker.wait_until_ready()
        for repetition in range(benchmark.repetitions + 1):
            for name in rotated(benchmark.implementations, repetition):
                measured = workers[name].run_round()
                measurement = Measurement(
                    implementation=name,
                    repetition=repetition,
                    train_seconds=measured["train_seconds"],
                    test_seconds=measured["test_seconds"],
                    test_accuracy=measured["correct"] / benchmark.test_images,
                    user_seconds=measured["user_seconds"],
                    system_seconds=measured["system_seconds"],
                )
                measurements.append(measurement)
                on_round()
    return measurements


def rotated(names: Sequence[str], repetition: int) -> list[str]:
    """Return the names in the order of a repetition, which rotates by one place from repetition to repetition."""
    first = repetition % len(names)
    return [*names[first:], *names[:first]]


def refuse_untrained(measurements: Sequence[Measurement], train_images: int) -> None:
    """Raise RunError if the last test accuracy of an implementation is below that of a trained network."""
    last_of = {measurement.implementation: measurement for measurement in measurements}
    problems = [
        f"the implementation {name} reaches only {last.test_accuracy:.2%} test accuracy after {last.repetition + 1} epochs; "
        f"a trained network reaches more than {MIN_ACCURACY:.0%}"
        for name, last in last_of.items()
        if (last.repetition + 1) * train_images >= MIN_IMAGES and last.test_accuracy < MIN_ACCURACY
    ]
    if problems:
        raise RunError("; ".join(problems))
