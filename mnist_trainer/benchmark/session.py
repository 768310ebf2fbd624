"""One call of the command `benchmark`: checks the request, runs the measurements, and writes the folder of results."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark import phases, report, rounds
from mnist_trainer.benchmark.implementations import IMPLEMENTATIONS, OURS, OURS_ON_STOCK, choose_implementations
from mnist_trainer.benchmark.rounds import Benchmark, Measurement
from mnist_trainer.config.loading import DEFAULT_CONFIG, load_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import counted
from mnist_trainer.data.mnist_files import files_problems, find_data_dir, unpublished
from mnist_trainer.diagnostics.environment import describe_environment
from mnist_trainer.errors import RequestError, RunError, collected
from mnist_trainer.figures import draw
from mnist_trainer.model import native
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import hardware

# Settings that apply to every implementation, and the epochs, whose number is that of the rounds.
_SHARED_SETTINGS = ("runtime.device", "runtime.threads", "data.train_images", "data.test_images", "training.epochs")


def prepare(
    config: RunConfig,
    implementations: Sequence[str] | None = None,
    repetitions: int = 3,
    peer_python: str | None = None,
    data_dir: Path | None = None,
) -> Benchmark:
    """Check a request, and build the fused operator if it is needed.

    Args:
        config: The configuration of this program. Its threads and its numbers of images apply to every implementation.
        implementations: Names in `IMPLEMENTATIONS`; None for all that can run here.
        repetitions: The number of counted rounds of each implementation.
        peer_python: The interpreter that has torch and jax, or None for this one.
        data_dir: The folder of the MNIST files, or None for the default one.

    Raises:
        RequestError: With a message for each problem.
    """
    problems: list[str] = []
    if config.model.network:
        problems.append(f"model.network = {config.model.network}: the benchmark trains the tutorial's network; leave it out")
    if config.data.name != "mnist":
        problems.append(f"data.name = {config.data.name}: the benchmark trains on MNIST; leave it out")
    folder = find_data_dir(data_dir)
    problems += files_problems(folder) or [
        f"{path}: the benchmark needs the file as published, for MXNet's own reader; leave --data-dir out"
        for path in unpublished(folder)
    ]
    if config.runtime.device not in ("auto", "cpu"):
        problems.append(f"runtime.device = {config.runtime.device}: the benchmark compares on the CPU; leave it at auto")
    python = peer_python or sys.executable
    with collected(problems):
        threads = hardware.choose_threads(config.runtime.threads)
    with collected(problems):
        names, left_out, peer_packages = choose_implementations(implementations, python)
    if not (problems and native.is_pending()):  # do not build the fused operator for a wrong request
        with collected(problems):
            backend = native.choose_backend(config.model.backend, on_cpu=True)
    if problems:
        raise RequestError(*problems)
    if {OURS, OURS_ON_STOCK} <= set(names) and backend == "stock":
        names.remove(OURS_ON_STOCK)
        left_out.append(f"{OURS_ON_STOCK}: {OURS} uses the stock backend too; mnist-trainer doctor shows the reason")
    config = replace(config, runtime=replace(config.runtime, threads=threads, device="cpu"))
    return Benchmark(names, repetitions, config, backend, folder, python, peer_packages, left_out)


def run(
    benchmark: Benchmark, folder: RunFolder, command_line: Sequence[str] = (), on_round: Callable[[], object] = lambda: None
) -> list[str]:
    """Run the measurements, and write `benchmark.json` and a figure into the folder.

    `benchmark.json` is written as soon as all rounds are done. A later failure or Ctrl-C does not remove it.

    Args:
        benchmark: The checked request.
        folder: The folder of the results.
        command_line: The command, to be recorded.
        on_round: Called after each round.

    Returns:
        The lines to print.

    Raises:
        RunError: A process failed, or an implementation has not learned. All processes end, also after KeyboardInterrupt.
    """
    device = benchmark.config.runtime.device
    environment = describe_environment(device, benchmark.threads, benchmark.backend, benchmark.data_dir, command_line)
    differences = _differences(benchmark.config)
    result: dict[str, Any] = {
        "environment": environment | {"peer_packages": benchmark.peer_packages, "peer_python": benchmark.peer_python},
        "conditions": {
            "repetitions": benchmark.repetitions,
            "threads": benchmark.threads,
            "train_images": benchmark.train_images,
            "test_images": benchmark.test_images,
            "implementations": list(benchmark.implementations),
            "left_out": list(benchmark.left_out),
            "ours_unlike_tutorial": differences,
            "config": benchmark.config.to_tables(),
        },
    }
    conditions = [_conditions(benchmark, environment["processor"])]
    if differences:
        conditions.append(_sentence_of_differences(differences))
    measurements = rounds.measure(benchmark, on_round)
    result |= report.record(measurements)
    try:
        rounds.refuse_untrained(measurements, benchmark.train_images)
    except RunError as error:
        result["failed"] = str(error)  # marks the results as invalid
        raise
    finally:
        folder.write_json(report.RECORD, result)
    lines = [*conditions, *report.table(measurements)]
    _draw(folder, measurements, "; ".join(conditions))
    if OURS in benchmark.implementations:
        seconds = [row.train_seconds for row in measurements if row.implementation == OURS and row.repetition > 0]
        result["phases_ms"] = phases.measure(benchmark, statistics.median(seconds))
        folder.write_json(report.RECORD, result)
        lines += phases.table(result["phases_ms"])
    return lines


def _conditions(benchmark: Benchmark, processor: str) -> str:
    threads = counted(benchmark.threads, "thread")
    repetitions = counted(benchmark.repetitions, "repetition")
    return f"{threads}, {benchmark.train_images:,} images per epoch, {repetitions}, {processor}"


def _differences(config: RunConfig) -> dict[str, Any]:
    """Return the settings of this program that differ from the tutorial's, which the other implementations use."""
    found = load_config(DEFAULT_CONFIG).differences(config)
    return {key: value for key, _, value in found if key not in _SHARED_SETTINGS}


def _sentence_of_differences(differences: Mapping[str, Any]) -> str:
    settings = [f"without {key}" if value is None else f"{key}={value}" for key, value in differences.items()]
    return f"ours differs from configs/{DEFAULT_CONFIG}.toml: {', '.join(settings)}"


def _draw(folder: RunFolder, measurements: Sequence[Measurement], conditions: str) -> None:
    bars = {IMPLEMENTATIONS[result.implementation].title: result.train_seconds for result in report.results(measurements)}
    ours = [each.title for each in IMPLEMENTATIONS.values() if each.module == "ours"]
    later = "to draw it, measure again with another --output"
    draw(folder, report.FIGURE, lambda plots: plots.plot_benchmark(bars, ours, conditions), later)
