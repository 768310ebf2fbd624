"""The contest: who takes part, how the turns go round, and what is measured.

Each implementation lives in a process of its own and waits at a pipe while another trains: it has its own threads, and disturbs
nobody. A turn is an epoch of training and then an evaluation on the test images; the order rotates from one repetition to the
next. The first epoch of each, in which libraries compile and allocate, is not counted.
"""

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mnist_trainer.benchmark.processes import worker_running
from mnist_trainer.benchmark.worker import Task
from mnist_trainer.errors import RequestError, RunError

LOWEST_ACCURACY = 0.9
"""Of an implementation that has seen as many images as one epoch has; whoever is below trains something else."""

_IMAGES_THAT_MUST_TELL = 60_000


@dataclass(frozen=True)
class Implementation:
    """One that takes part: what it is called in tables, its module, the package it needs, and its module's settings.

    Of this program, these are tables of its configuration that are not as in the others.
    """

    title: str
    module: str
    package: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


IMPLEMENTATIONS = {
    "tutorial": Implementation("the tutorial's loop", "tutorial"),
    "ours": Implementation("mnist-trainer", "ours"),
    "ours-stock": Implementation("mnist-trainer, stock operators", "ours", settings={"model": {"stages": "stock"}}),
    "torch": Implementation("PyTorch, contiguous", "torch_eager", "torch", {"memory_format": "contiguous"}),
    "torch-channels-last": Implementation("PyTorch, channels-last", "torch_eager", "torch", {"memory_format": "channels_last"}),
    "jax": Implementation("JAX, jitted", "jax_jitted", "jax"),
}

OURS, OURS_ON_STOCK = "ours", "ours-stock"


class Measurement(NamedTuple):
    """One turn. Repetition 0 is the first epoch, which is not counted."""

    implementation: str
    repetition: int
    train_seconds: float  # an epoch, the device synchronised before and after
    test_seconds: float
    test_accuracy: float
    user_seconds: float  # of the processors, in the whole turn
    system_seconds: float


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    peer_python: the interpreter that has torch and jax.
    config: the tables of this program's configuration.
    """

    implementations: Sequence[str]
    repetitions: int
    threads: int
    train_images: int
    test_images: int
    data_dir: Path
    config: Mapping[str, Any]
    peer_python: str = sys.executable

    def task(self, name: str) -> Task:
        implementation = IMPLEMENTATIONS[name]
        return Task(
            name=f"the implementation {name}",
            module=implementation.module,
            data_dir=str(self.data_dir),
            train_images=self.train_images,
            test_images=self.test_images,
            threads=self.threads,
            epochs=self.repetitions + 1,
            settings={"config": {**self.config, **implementation.settings}}
            if implementation.module == OURS
            else implementation.settings,
        )

    def python(self, name: str) -> str:
        return self.peer_python if IMPLEMENTATIONS[name].package else sys.executable


def choose_implementations(
    asked: str | None, peer_python: str = sys.executable
) -> tuple[list[str], list[str], dict[str, str | None]]:
    """Who takes part, a sentence for each that is left out, and the versions of the peers' packages.

    asked: names with commas between them, or None for all that can.

    Raises RequestError for names that there are not, and for those asked for whose package is not installed.
    """
    names = list(dict.fromkeys(each.strip() for each in asked.split(","))) if asked is not None else list(IMPLEMENTATIONS)
    unknown = [name for name in names if name not in IMPLEMENTATIONS]
    if unknown:
        raise RequestError(
            *(f"--implementations: there is no {name!r}; there are {', '.join(IMPLEMENTATIONS)}" for name in unknown)
        )
    packages = list(dict.fromkeys(IMPLEMENTATIONS[name].package for name in names if IMPLEMENTATIONS[name].package))
    versions = _versions(packages, peer_python) if packages else {}
    missing = [name for name in names if IMPLEMENTATIONS[name].package and versions[IMPLEMENTATIONS[name].package] is None]
    sentences = [f"{name}: {_sentence_for_missing(IMPLEMENTATIONS[name].package, peer_python)}" for name in missing]
    if asked is not None and sentences:
        raise RequestError(*(f"--implementations {sentence}" for sentence in sentences))
    return [name for name in names if name not in missing], sentences, versions


def _sentence_for_missing(package: str, peer_python: str) -> str:
    if peer_python != sys.executable:
        install = f"{shlex.quote(peer_python)} -m pip install {package}"
        return f"--peer-python {peer_python} has no {package}; install it with {install}"
    return (
        f"this environment has no {package}; "
        "install it with pip install -e '.[bench]', or name an interpreter that has it with --peer-python"
    )


_SAY_VERSIONS = """
import sys
from importlib.metadata import PackageNotFoundError, version
if sys.version_info < (3, 11):
    sys.exit("it is Python %d.%d, and the implementations need 3.11" % sys.version_info[:2])
for name in sys.argv[1:]:
    try:
        print(version(name))
    except PackageNotFoundError:
        print()
"""


def _versions(packages: Sequence[str], python: str) -> dict[str, str | None]:
    try:
        done = subprocess.run([python, "-c", _SAY_VERSIONS, *packages], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RequestError(f"--peer-python {python}: cannot be run ({getattr(error, 'strerror', None) or error})") from error
    told = done.stdout.splitlines()
    if done.returncode or len(told) != len(packages):
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise RequestError(f"--peer-python {python}: is no Python that can be used: {said[-1]}")
    return {name: line or None for name, line in zip(packages, told, strict=True)}


def hold(plan: Plan, on_turn: Callable[[Measurement], object] = lambda _: None) -> list[Measurement]:
    """All turns of all implementations, in the order in which they were taken.

    on_turn: called with each.

    Raises RunError, a sentence, when one fails or dies. No process is left afterwards. Whether they have learned is another
    question, so that the measurements can be kept before it is asked: see `refuse_who_has_not_learned`.
    """
    measurements = []
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(worker_running(plan.task(name), plan.python(name))) for name in plan.implementations
        }
        for worker in workers.values():
            worker.read_answer()  # all of them have loaded before the first turn
        for repetition in range(plan.repetitions + 1):
            for name in order_of_turns(plan.implementations, repetition):
                measured = workers[name].take_turn()
                measurement = Measurement(
                    implementation=name,
                    repetition=repetition,
                    train_seconds=measured["train_seconds"],
                    test_seconds=measured["test_seconds"],
                    test_accuracy=measured["correct"] / plan.test_images,
                    user_seconds=measured["user_seconds"],
                    system_seconds=measured["system_seconds"],
                )
                measurements.append(measurement)
                on_turn(measurement)
    return measurements


def order_of_turns(names: Sequence[str], repetition: int) -> list[str]:
    """Rotated by one each time, so that everybody follows and precedes the others and nobody is always the first."""
    first = repetition % len(names)
    return [*names[first:], *names[:first]]


def refuse_who_has_not_learned(measurements: Sequence[Measurement], train_images: int) -> None:
    """Raise RunError for implementations whose last test accuracy is below that of a trained network."""
    last = {each.implementation: each for each in measurements}
    poor = [
        f"the implementation {name} reaches only {each.test_accuracy:.2%} test accuracy after {each.repetition + 1} epochs; "
        f"a trained network reaches more than {LOWEST_ACCURACY:.0%}"
        for name, each in last.items()
        if (each.repetition + 1) * train_images >= _IMAGES_THAT_MUST_TELL and each.test_accuracy < LOWEST_ACCURACY
    ]
    if poor:
        raise RunError("; ".join(poor))
