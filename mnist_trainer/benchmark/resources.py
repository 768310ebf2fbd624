"""What a run costs beside an epoch's time: memory, start-up, checkpoints, data loading, ways to compute the network, and what
several workers gain and send each other.

Each measurement is of a process as a user starts it, or of a worker's `costs`.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mnist_trainer.benchmark.contest import Plan
from mnist_trainer.benchmark.processes import environment_of_processes, worker_running
from mnist_trainer.benchmark.worker import Task
from mnist_trainer.errors import RunError
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime.processes import end_group
from mnist_trainer.training.subprocesses import Ended, Job, run_jobs

Measured = dict[str, list[float]]

NUMBERS_OF_WORKERS = (1, 2, 4)

_STARTS = 5
"""Start-ups for each repetition: they are short, and a single one says little."""


def memory(plan: Plan, config_file: Path, on_turn: Callable[[], object]) -> Measured:
    """Peak resident megabytes (10⁶ bytes) of a whole `train` of one epoch."""
    measured: Measured = {"peak_mb": []}
    for _ in range(plan.repetitions):
        with tempfile.TemporaryDirectory() as name:
            command = _train_command(plan, config_file, Path(name) / "run")
            measured["peak_mb"].append(_run(command, plan.threads)[1] * 1024 / 1e6)
        on_turn()
    return measured


def startup(plan: Plan, config_file: Path, on_turn: Callable[[], object]) -> Measured:
    """Seconds of `mnist-trainer --help` and of a bare interpreter in turn, and those of `train` up to its first iteration."""
    measured: Measured = {"help_seconds": [], "python_seconds": [], "help_to_python_ratio": [], "first_iteration_seconds": []}
    for _ in range(plan.repetitions):
        for _ in range(_STARTS):
            bare = _run([sys.executable, "-c", "pass"], plan.threads)[0]
            helped = _run([sys.executable, "-P", "-m", "mnist_trainer", "--help"], plan.threads)[0]
            measured["python_seconds"].append(bare)
            measured["help_seconds"].append(helped)
            measured["help_to_python_ratio"].append(helped / bare)
        measured["first_iteration_seconds"].append(_seconds_to_first_iteration(plan, config_file))
        on_turn()
    return measured


def checkpoints(plan: Plan, _config_file: Path, on_turn: Callable[[], object]) -> Measured:
    """Seconds of an epoch with its evaluation, without and with checkpoints, and the ratios to that without."""
    measured = _costs(plan, "checkpoints", on_turn)
    without = measured["without_seconds"]
    for kind in ("by_default", "every_50"):
        pairs = zip(measured[f"{kind}_seconds"], without, strict=True)
        measured[f"{kind}_ratio"] = [one / other for one, other in pairs]
    return measured


def data(plan: Plan, _config_file: Path, on_turn: Callable[[], object]) -> Measured:
    """Milliseconds a batch of each loader alone, those of an iteration, and the former as a share of the latter."""
    measured = _costs(plan, "data", on_turn)
    for kind in ("array", "gluon"):
        pairs = zip(measured[f"{kind}_ms"], measured["iteration_ms"], strict=True)
        measured[f"{kind}_to_iteration_ratio"] = [one / other for one, other in pairs]
    return measured


def graphs(plan: Plan, _config_file: Path, on_turn: Callable[[], object]) -> Measured:
    """Milliseconds of an iteration without data and scores, a way to compute the network each; see `costs.graphs`."""
    return _costs(plan, "graphs", on_turn)


def workers(plan: Plan, config_file: Path, on_turn: Callable[[], object]) -> Measured:
    """Images per second in the second epoch of a process alone and of jobs of several workers, and what these send.

    Each has a thread. Sent are the megabytes (10⁶ bytes) that all processes of the job send each other, by the counter of the
    loopback interface, over the iterations of both epochs; whatever else uses the interface counts too.
    """
    measured: Measured = {}
    for _ in range(plan.repetitions):
        for number in (0, *NUMBERS_OF_WORKERS):
            with tempfile.TemporaryDirectory() as name:
                output = Path(name) / "run"
                launch = ["launch", "--workers", str(number), "--"] if number else []
                arguments = _train_arguments(plan, config_file, output, epochs=2, threads=1)
                sent_before = _bytes_sent_to_itself()
                _run([sys.executable, "-P", "-m", "mnist_trainer", *launch, *arguments], 1)
                sent = _bytes_sent_to_itself() - sent_before
                metrics = RunFolder(output).read_metrics()
            who = f"{number}_workers" if number else "alone"
            measured.setdefault(f"{who}_images_per_second", []).append(metrics[-1]["images_per_second"])
            if number:
                megabytes = sent / 1e6 / metrics[-1]["iteration"]
                measured.setdefault(f"{who}_megabytes_an_iteration", []).append(megabytes)
        on_turn()
    return measured


def _bytes_sent_to_itself() -> int:
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    counters = next((line.split(":")[1].split() for line in lines if line.strip().startswith("lo:")), None)
    if counters is None:
        raise RunError("/proc/net/dev: tells nothing of the loopback interface, by which the workers' traffic is measured")
    return int(counters[8])


def jobs(plan: Plan, config_file: Path, on_turn: Callable[[], object]) -> Measured:
    """Seconds of as many trainings as there are threads, an epoch each, with their start; then the ratios to the first way.

    At once with one thread each, as `compare` has them; one after the other with one thread; one after the other with all.
    """
    count = max(2, plan.threads)
    ways = {"at_once": (count, 1), "in_turn_one_thread": (1, 1), "in_turn_all_threads": (1, plan.threads)}
    measured: Measured = {f"{name}_seconds": [] for name in ways}
    for _ in range(plan.repetitions):
        for name, (at_once, threads) in ways.items():
            measured[f"{name}_seconds"].append(_seconds_of_jobs(plan, config_file, count, at_once, threads))
        on_turn()
    for name in list(ways)[1:]:
        pairs = zip(measured[f"{name}_seconds"], measured["at_once_seconds"], strict=True)
        measured[f"{name}_ratio"] = [one / other for one, other in pairs]
    return measured


Measure = Callable[[Plan, Path, Callable[[], object]], Measured]

RESOURCES: Mapping[str, Measure] = {
    "memory": memory,
    "startup": startup,
    "checkpoints": checkpoints,
    "data": data,
    "graphs": graphs,
    "jobs": jobs,
    "workers": workers,
}


def phases(plan: Plan) -> dict[str, float]:
    """Medians in ms of the phases of an iteration; see `costs`."""
    with worker_running(_costs_task(plan, "phases")) as worker:
        worker.read_answer()
        worker.take_turn()  # not counted: libraries allocate and choose
        measured = worker.take_turn()
    return {name: measured[name] for name in ("data", "forward", "backward", "update")}


def _costs(plan: Plan, what: str, on_turn: Callable[[], object]) -> Measured:
    with worker_running(_costs_task(plan, what)) as worker:
        worker.read_answer()
        worker.take_turn()  # not counted
        turns = []
        for _ in range(plan.repetitions):
            turns.append(worker.take_turn())
            on_turn()
    quantities = [name for name in turns[0] if name not in ("user_seconds", "system_seconds")]
    return {name: [turn[name] for turn in turns] for name in quantities}


def _costs_task(plan: Plan, what: str) -> Task:
    return Task(
        name=f"the measurement of {what}",
        module="costs",
        data_dir=str(plan.data_dir),
        train_images=plan.train_images,
        test_images=plan.test_images,
        threads=plan.threads,
        epochs=1,
        settings={"what": what, "config": plan.config},
    )


def _train_command(plan: Plan, config_file: Path, output: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "mnist_trainer", *_train_arguments(plan, config_file, output)]


def _train_arguments(
    plan: Plan, config_file: Path, output: Path, epochs: int = 1, threads: int | None = None
) -> tuple[str, ...]:
    where = ("--config", str(config_file), "--data-dir", str(plan.data_dir), "--output", str(output))
    return "train", *where, "--epochs", str(epochs), *(("--threads", str(threads)) if threads else ()), "--quiet"


def _seconds_of_jobs(plan: Plan, config_file: Path, count: int, at_once: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        waiting = []
        for number in range(count):
            folder = RunFolder(Path(name) / str(number))
            arguments = _train_arguments(plan, config_file, folder.path, threads=threads)
            waiting.append(Job(f"training {number + 1}", arguments, folder, 0))
        started = time.perf_counter()
        for event in run_jobs(waiting, at_once, stop_requested=lambda: False):
            if isinstance(event, Ended) and event.problem:
                raise RunError(f"{event.job.title}: {event.problem}")
        return time.perf_counter() - started


def _start(command: Sequence[str], environment: Mapping[str, str], **streams: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, text=True, start_new_session=True, **streams)


def _run(command: Sequence[str], threads: int) -> tuple[float, int]:
    """Seconds of a process, and its peak resident size in units of 1,024 bytes."""
    with environment_of_processes(threads) as environment, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = _start(command, environment, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            end_group(process)
            raise
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            _fail(command, process.returncode, errors.read())
    return seconds, used.ru_maxrss


def _seconds_to_first_iteration(plan: Plan, config_file: Path) -> float:
    with environment_of_processes(plan.threads) as environment, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        command = _train_command(plan, config_file, Path(environment["TMPDIR"]) / "run")
        process = _start(command, environment, stdout=subprocess.PIPE, stderr=errors)
        try:
            assert process.stdout
            for line in process.stdout:
                if line.startswith("Epoch: 1; Batch 1;"):
                    return time.perf_counter() - started
            errors.seek(0)
            _fail(command, process.wait(), errors.read())
        finally:
            end_group(process)


def _fail(command: Sequence[str], code: int, errors: str) -> NoReturn:
    said = errors.strip().splitlines()
    words = " ".join(("mnist-trainer", *command[4:]) if command[3:4] == ["mnist_trainer"] else command)
    raise RunError(f"{words} ended with exit code {code}{f': {said[-1]}' if said else ''}")
