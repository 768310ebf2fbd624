"""Measure the costs of a run: memory, start-up, checkpoints, data loading, graphs, parallel trainings, and workers.

For developers. `mnist-trainer benchmark` compares the speed with other implementations.

    python scripts/measure_costs.py memory startup --repetitions 5 --output costs.json
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from mnist_trainer import runtime
from mnist_trainer.benchmark.report import Spread
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import in_columns
from mnist_trainer.errors import DONE, FAILED, WRONG_REQUEST, RequestError, RunError
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import hardware
from mnist_trainer.runtime.processes import this_program
from mnist_trainer.training.subprocesses import Ended, Training, run_trainings

STARTS = 5
"""Number of start-ups per repetition. A single start-up is short and varies much."""

GRAPH_BATCHES = 50
"""Number of batches that are timed for each way to compute the network."""

NUMBERS_OF_WORKERS = (1, 2, 4)


def memory(config: RunConfig) -> dict[str, float]:
    """Measure the peak resident memory of `train` over one epoch, in megabytes (10⁶ bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        return {"peak_mb": _run(*this_program(), *_train(config, Path(folder)))[1]}


def startup(config: RunConfig) -> dict[str, float]:
    """Measure the seconds of an empty Python program, of `--help`, and of `train` up to its first iteration."""
    bare_seconds, help_seconds = [], []
    for _ in range(STARTS):
        bare_seconds.append(_run(sys.executable, "-c", "pass")[0])
        help_seconds.append(_run(*this_program(), "--help")[0])
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [*this_program(), *_train(config, Path(folder))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            line = next((line for line in process.stdout if line.startswith("Epoch: 1; Batch 1;")), None)
            first_iteration_seconds = time.perf_counter() - started
            process.kill()
        if line is None:
            raise RunError(f"{shlex.join(command)}: ended before its first iteration")
    return {
        "python_seconds": statistics.median(bare_seconds),
        "help_seconds": statistics.median(help_seconds),
        "help_to_python_ratio": statistics.median(map(float.__truediv__, help_seconds, bare_seconds)),
        "first_iteration_seconds": first_iteration_seconds,
    }


def checkpoints(config: RunConfig) -> dict[str, float]:
    """Measure the seconds per epoch with evaluation: without checkpoints, with the configured ones, and with one in 50."""
    prepared = _prepared(config)
    _train_epoch(prepared)  # not counted: libraries allocate memory and choose algorithms
    without = _train_epoch(prepared)[1]
    by_default = _train_epoch(prepared, config.checkpoint.every_iterations)[1]
    every_50 = _train_epoch(prepared, 50)[1]
    return {
        "without_seconds": without,
        "by_default_seconds": by_default,
        "every_50_seconds": every_50,
        "by_default_ratio": by_default / without,
        "every_50_ratio": every_50 / without,
    }


def data(config: RunConfig) -> dict[str, float]:
    """Measure the milliseconds per batch of each loader alone, and per iteration with the configured loader."""
    from mnist_trainer.data.loaders import create_loaders

    prepared = _prepared(config)
    _train_epoch(prepared)  # not counted
    iteration_ms = 1000 * _train_epoch(prepared)[0] / len(prepared.train_loader)
    measured = {"iteration_ms": iteration_ms}
    for kind in ("array", "gluon"):
        loader, _ = create_loaders(replace(config, data=replace(config.data, loader=kind)), prepared.data_dir)
        started = time.perf_counter()
        for images, labels in loader:
            images.wait_to_read()
            labels.wait_to_read()
        batch_ms = 1000 * (time.perf_counter() - started) / len(loader)
        measured |= {f"{kind}_ms": batch_ms, f"{kind}_to_iteration_ratio": batch_ms / iteration_ms}
    return measured


def graphs(config: RunConfig) -> dict[str, float]:
    """Measure the milliseconds per iteration for each way to compute the network, with the same batches.

    An iteration is forward, backward and update. `as_written` is the network and the loss of `build_cnn` and `build_loss`,
    hybridized separately, with the scores outside. Each further way adds one change: a single graph for all of it, planned
    memory, pooling before relu, channels padded to multiples of 8 and of 16, the fused operator, and a fused update.
    """
    from mnist_trainer.model import native
    from mnist_trainer.model.backends import FusedNetwork, StockNetwork
    from mnist_trainer.model.network import ScoredNetwork
    from mnist_trainer.training import experiment
    from mnist_trainer.training.step import TrainStep

    mx = runtime.import_mxnet()
    prepared = _prepared(config)
    batches = list(islice(prepared.train_loader, GRAPH_BATCHES))
    ways: dict[str, Callable[[Any], Any]] = {
        "as_written": _as_written,
        "one_graph": ScoredNetwork,
        "planned_memory": ScoredNetwork,
        "pooled_first": lambda net: ScoredNetwork(StockNetwork(net, 1)),
        "channels_by_8": lambda net: ScoredNetwork(StockNetwork(net, 8)),
        "channels_by_16": lambda net: ScoredNetwork(StockNetwork(net, 16)),
    }
    if not native.problem():
        native.load()
        ways["fused"] = ways["fused_update"] = lambda net: ScoredNetwork(FusedNetwork(net))
    measured = {}
    for name, way in ways.items():
        # The backend determines the optimizer.
        model = replace(prepared.config.model, backend="fused" if name == "fused_update" else "stock")
        network, trainer = experiment.create_network_and_trainer(
            replace(prepared, config=replace(prepared.config, model=model))
        )
        step = TrainStep(network, trainer)
        step.scored = way(network)
        if name == "one_graph":
            step.scored.hybridize(static_alloc=False, static_shape=False)
        for _ in range(2):  # the first pass is not counted
            mx.nd.waitall()
            started = time.perf_counter()
            for images, labels in batches:
                step.backward(step.forward([(images, labels)]))
                step.update(len(images))
            mx.nd.waitall()
            measured[f"{name}_ms"] = 1000 * (time.perf_counter() - started) / len(batches)
    return measured


def jobs(config: RunConfig) -> dict[str, float]:
    """Measure the seconds of several trainings of one epoch, as many as there are threads, and ratios to the first way.

    The ways: side by side with one thread each, as in `compare`; one after the other with one thread; one after the other with
    all threads.
    """
    threads = int(config.runtime.threads)
    count = max(2, threads)
    side_by_side = _seconds_of_trainings(config, count, side_by_side=count, threads=1)
    one_thread = _seconds_of_trainings(config, count, side_by_side=1, threads=1)
    all_threads = _seconds_of_trainings(config, count, side_by_side=1, threads=threads)
    return {
        "side_by_side_seconds": side_by_side,
        "in_turn_one_thread_seconds": one_thread,
        "in_turn_all_threads_seconds": all_threads,
        "in_turn_one_thread_ratio": one_thread / side_by_side,
        "in_turn_all_threads_ratio": all_threads / side_by_side,
    }


def workers(config: RunConfig) -> dict[str, float]:
    """Measure images per second of one process and of several workers in the second epoch, and the workers' traffic.

    Each process has one thread. The traffic is in megabytes (10⁶ bytes) per iteration, over both epochs. It comes from the
    counter of the loopback interface, which also counts the traffic of other programs.
    """
    measured = {}
    for number in (0, *NUMBERS_OF_WORKERS):
        with tempfile.TemporaryDirectory() as folder:
            launch = ["launch", "--workers", str(number), "--"] if number else []
            bytes_before = _loopback_bytes()
            _run(*this_program(), *launch, *_train(config, Path(folder), epochs=2, threads=1))
            bytes_sent = _loopback_bytes() - bytes_before
            last = RunFolder(Path(folder) / "run").read_metrics()[-1]
        name = f"{number}_workers" if number else "alone"
        measured[f"{name}_images_per_second"] = last["images_per_second"]
        if number:
            measured[f"{name}_megabytes_per_iteration"] = bytes_sent / 1e6 / last["iteration"]
    return measured


COSTS: dict[str, Callable[[RunConfig], dict[str, float]]] = {
    function.__name__: function for function in (memory, startup, checkpoints, data, graphs, jobs, workers)
}


def _train(config: RunConfig, folder: Path, *, epochs: int = 1, threads: int | str = "auto") -> tuple[str, ...]:
    """Return the arguments of `mnist-trainer` that train this configuration in `folder/run`."""
    runtime_config = config.runtime if threads == "auto" else replace(config.runtime, threads=threads)
    training = replace(config.training, epochs=epochs)
    (folder / "config.toml").write_text(replace(config, runtime=runtime_config, training=training).to_toml(), encoding="utf-8")
    return "train", "--config", str(folder / "config.toml"), "--output", str(folder / "run"), "--quiet"


def _run(*command: str) -> tuple[float, float]:
    """Run a process; return its seconds and its peak resident megabytes."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RunError(f"{shlex.join(command)}: ended with exit code {process.returncode}")
    return seconds, usage.ru_maxrss * 1024 / 1e6


def _prepared(config: RunConfig) -> Any:
    from mnist_trainer.training import experiment

    return experiment.prepare(config)


def _train_epoch(prepared: Any, every_iterations: int | None = None) -> tuple[float, float]:
    """Train for an epoch; return the seconds without and with evaluation. `every_iterations` None saves no checkpoints."""
    from mnist_trainer.training import experiment
    from mnist_trainer.training.callbacks import Callback, RunFolderWriter
    from mnist_trainer.training.checkpointer import Checkpointer
    from mnist_trainer.training.early_stopping import EarlyStopping
    from mnist_trainer.training.loop import fit

    network, trainer = experiment.create_network_and_trainer(prepared)
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder.create(Path(name))
        callbacks: list[Callback] = [RunFolderWriter(folder)]
        if every_iterations:
            when = replace(prepared.config.checkpoint, every_iterations=every_iterations)
            callbacks.append(Checkpointer(folder, replace(prepared.config, checkpoint=when), network, trainer, EarlyStopping()))
        started = time.perf_counter()
        loaders = prepared.train_loader, prepared.test_loader
        (epoch,) = fit(prepared.accelerate(network), *loaders, trainer, 1, callbacks=callbacks)
        return epoch.epoch_seconds, time.perf_counter() - started


def _as_written(net: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    from mnist_trainer.model.network import build_loss

    mx = runtime.import_mxnet()
    loss_function = build_loss()
    net.hybridize()
    loss_function.hybridize()

    def scored(images: Any, labels: Any) -> tuple[Any, Any]:
        logits = net(images)
        losses = loss_function(logits, labels)
        return losses.sum(), (mx.nd.argmax(logits, axis=1) == labels.astype("float32")).sum()

    return scored


def _seconds_of_trainings(config: RunConfig, count: int, *, side_by_side: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        waiting = []
        for number in range(1, count + 1):
            folder = Path(name) / str(number)
            folder.mkdir()
            waiting.append(
                Training(f"training {number}", _train(config, folder, threads=threads), RunFolder(folder / "run"), 0)
            )
        started = time.perf_counter()
        for event in run_trainings(waiting, side_by_side, stop_requested=lambda: False):
            if isinstance(event, Ended) and event.problem:
                raise RunError(f"{event.training.title}: {event.problem}")
        return time.perf_counter() - started


def _loopback_bytes() -> int:
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


def _environment(config: RunConfig, repetitions: int) -> dict[str, Any]:
    return {"repetitions": repetitions, **_prepared(config).describe_environment()}


def measure(config: RunConfig, names: Iterable[str], repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Measure costs.

    Args:
        config: The configuration of the runs.
        names: Names in `COSTS`.
        repetitions: The number of measurements of each cost.

    Returns:
        Cost → quantity → its values, one for each repetition.
    """
    measured = {}
    for name in names:
        rows = [COSTS[name](config) for _ in range(repetitions)]
        measured[name] = {quantity: [row[quantity] for row in rows] for quantity in rows[0]}
    return measured


def table(measured: dict[str, dict[str, list[float]]]) -> list[str]:
    """Return a line of headings and a line for each quantity."""
    rows = [("cost", "median (minimum to maximum)")]
    for name, quantities in measured.items():
        for quantity, values in quantities.items():
            digits = 0 if quantity.endswith(("_mb", "_per_second")) else 4 if "ratio" in quantity else 3
            rows.append((f"{name}: {quantity}", Spread.of(values).shown(digits)))
    return in_columns(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the costs on the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="measure_costs.py", description=str(__doc__).partition("\n")[0])
    parser.add_argument("costs", metavar="COST", nargs="*", help=f"{', '.join(COSTS)} (default: all)")
    parser.add_argument("--config", metavar="FILE", default="tutorial", help="a TOML file or a bundled configuration")
    parser.add_argument(
        "--set", metavar="section.key=value", action="append", default=[], help="setting; may be given several times"
    )
    parser.add_argument(
        "--repetitions", metavar="N", type=int, default=3, help="number of measurements of each cost (default: 3)"
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="JSON file for all measured values")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.costs) - set(COSTS)):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(COSTS)}")
    if given.repetitions < 1:
        parser.error(f"--repetitions {given.repetitions}: must be 1 or more")
    try:
        config = load_config(given.config, [Override.from_assignment(text) for text in given.set])
        threads = hardware.choose_threads(config.runtime.threads)
        config = replace(config, runtime=replace(config.runtime, threads=threads, device="cpu"))
        runtime.prepare(threads)
        measured = measure(config, given.costs or COSTS, given.repetitions)
    except (RequestError, RunError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return WRONG_REQUEST if isinstance(error, RequestError) else FAILED
    print("\n".join(table(measured)))
    if given.output:
        record = {"environment": _environment(config, given.repetitions), "costs": measured}
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
