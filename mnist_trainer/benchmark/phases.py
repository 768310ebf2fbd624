"""The time of an iteration of this program by phase: data, forward, backward and update.

`measure` starts a worker process; `run` is the worker's part.
"""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from mnist_trainer.benchmark.processes import worker_running
from mnist_trainer.benchmark.rounds import Benchmark
from mnist_trainer.benchmark.worker import Rounds, Task
from mnist_trainer.console import in_columns

WARM_UP_ITERATIONS = 20
"""Number of iterations at the beginning of an epoch that are not counted."""


def measure(benchmark: Benchmark, epoch_seconds: float) -> dict[str, float]:
    """Measure the phases of an iteration.

    Args:
        benchmark: The benchmark; its configuration and data are used.
        epoch_seconds: Seconds per epoch of the ordinary loop.

    Returns:
        Milliseconds by name: each phase, `python_and_the_rest` and `iteration`. A phase is the median over an epoch that waits
        for the device after each phase. `iteration` is the mean of the ordinary loop, and `python_and_the_rest` its difference
        from the sum of the phases. The difference may be negative, because in the ordinary loop Python and the device work in
        parallel.

    Raises:
        RunError: The worker failed.
    """
    task = benchmark.task("the measurement of phases", "phases", {"config": benchmark.config.to_tables()})
    with worker_running(task) as worker:
        worker.wait_until_ready()
        worker.run_round()  # not counted: libraries allocate memory and choose algorithms
        measured = worker.run_round()
    phases = {name: measured[name] for name in ("data", "forward", "backward", "update")}
    iteration = 1000 * epoch_seconds / benchmark.config.run_length.iterations_per_epoch
    return {**phases, "python_and_the_rest": iteration - sum(phases.values()), "iteration": iteration}


def table(phases: Mapping[str, float]) -> list[str]:
    """Return a line of headings and a line for each phase."""
    rows = [("where an iteration's time goes", "ms", "share")]
    rows += [(name.replace("_", " "), f"{ms:.2f}", f"{ms / phases['iteration']:.0%}") for name, ms in phases.items()]
    return in_columns(rows)


def run(task: Task, rounds: Rounds) -> None:
    """Train for an epoch in each round, and report the median time of each phase in milliseconds.

    Args:
        task: The task; its setting `config` holds the tables of a configuration.
        rounds: The rounds of this worker.
    """
    from mnist_trainer.config.schema import RunConfig
    from mnist_trainer.runtime import import_mxnet
    from mnist_trainer.training import experiment
    from mnist_trainer.training.step import TrainStep, split_batch

    mx = import_mxnet()
    prepared = experiment.prepare(RunConfig.from_tables(task.settings["config"]), Path(task.data_dir))
    measured = None
    while True:
        rounds.wait(measured)
        network, trainer = experiment.create_network_and_trainer(prepared)
        step = TrainStep(prepared.accelerate(network), trainer)
        seconds: dict[str, list[float]] = {"data": [], "forward": [], "backward": [], "update": []}
        started = time.perf_counter()

        def end(phase: str, seconds: dict[str, list[float]] = seconds) -> None:
            nonlocal started
            mx.nd.waitall()
            now = time.perf_counter()
            seconds[phase].append(now - started)
            started = now

        for images, labels in prepared.train_loader:
            parts = split_batch(images, labels, step.devices)
            end("data")
            scores = step.forward(parts)
            end("forward")
            step.backward(scores)
            end("backward")
            step.update(len(images))
            end("update")
        measured = {name: 1000 * statistics.median(times[WARM_UP_ITERATIONS:] or times) for name, times in seconds.items()}
