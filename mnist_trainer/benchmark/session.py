"""One call of the benchmark: from a request that is checked to the lines that are printed and the folder that is left."""

import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark import contest, phases, report
from mnist_trainer.benchmark.contest import OURS, OURS_ON_STOCK, Measurement, Plan
from mnist_trainer.config.loading import DEFAULT_CONFIG, RunConfig, load_config
from mnist_trainer.data.mnist_files import files_problems, find_data_dir
from mnist_trainer.diagnostics.environment import describe_environment
from mnist_trainer.errors import RequestError, RunError, collected
from mnist_trainer.figures import draw
from mnist_trainer.model import native
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import hardware

# These are everybody's, and the epochs are as many as there are turns.
_NOT_OURS_ALONE = ("runtime.device", "runtime.threads", "data.train_images", "data.test_images", "training.epochs")


@dataclass(frozen=True)
class Session:
    """A request that has passed every check. `left_out` has a sentence for each implementation that cannot take part.

    stages: of this program, as resolved.
    """

    plan: Plan
    config: RunConfig
    stages: str
    left_out: Sequence[str]
    peers: dict[str, str | None]

    @property
    def turns(self) -> int:
        """How often `run` will call `on_turn`."""
        return (self.plan.repetitions + 1) * len(self.plan.implementations)


def prepare(
    config: RunConfig,
    implementations: str | None = None,
    repetitions: int = 3,
    peer_python: str | None = None,
    data_dir: Path | None = None,
) -> Session:
    """Checks a request, in which names have commas between them. Writes nothing.

    config: this program's settings; its threads and its images are everybody's.
    implementations: None for all that can take part.

    Raises RequestError with all that is wrong.
    """
    problems: list[str] = []
    if repetitions < 1:
        problems.append(f"--repetitions: {repetitions} is not a whole number ≥ 1")
    folder = find_data_dir(data_dir)
    problems += files_problems(folder)
    if config.runtime.device not in ("auto", "cpu"):
        problems.append(f"runtime.device = {config.runtime.device}: the benchmark compares on the CPU; leave it at auto")
    threads, stages = 0, ""
    names: list[str] = []
    left_out: list[str] = []
    peers: dict[str, str | None] = {}
    with collected(problems):
        threads = hardware.choose_threads(config.runtime.threads)
    with collected(problems):
        stages = native.choose_stages(config.model.stages, on_cpu=True)
    with collected(problems):
        names, left_out, peers = contest.choose_implementations(implementations, peer_python or sys.executable)
    if problems:
        raise RequestError(*problems)
    if {OURS, OURS_ON_STOCK} <= set(names) and stages == "stock":
        names.remove(OURS_ON_STOCK)
        left_out.append(f"{OURS_ON_STOCK}: {OURS} has stock stages itself; mnist-trainer doctor says why")
    config = replace(config, runtime=replace(config.runtime, threads=threads, device="cpu"))
    plan = Plan(
        implementations=names,
        repetitions=repetitions,
        threads=threads,
        train_images=config.data.trained_images,
        test_images=config.data.test_images,
        data_dir=folder,
        config=config.to_tables(),
        peer_python=peer_python or sys.executable,
    )
    return Session(plan, config, stages, left_out, peers)


def run(
    session: Session, folder: RunFolder, command_line: Sequence[str] = (), on_turn: Callable[[], object] = lambda: None
) -> list[str]:
    """Measures, writes `benchmark.json` and a figure into the folder, and returns the lines to be printed.

    The file is written as soon as the implementations are measured: a later failure or Ctrl-C leaves it.

    Raises RunError, a sentence, when something fails. No process is left afterwards, also after Ctrl-C or SIGTERM.
    """
    plan = session.plan
    device = session.config.runtime.device
    environment = describe_environment(device, plan.threads, session.stages, plan.data_dir, command_line)
    differences = _differences(session.config)
    result: dict[str, Any] = {
        "environment": environment | {"peer_packages": session.peers, "peer_python": plan.peer_python},
        "conditions": {
            "repetitions": plan.repetitions,
            "threads": plan.threads,
            "train_images": plan.train_images,
            "test_images": plan.test_images,
            "implementations": list(plan.implementations),
            "left_out": list(session.left_out),
            "ours_unlike_tutorial": differences,
            "config": {section: dict(table) for section, table in plan.config.items()},
        },
    }
    under_which = [conditions(session, environment["processor"])]
    if differences:
        under_which.append(_sentence_of_differences(differences))
    with _sigterm_as_interrupt():
        measurements = contest.hold(plan, lambda _: on_turn())
        result["epochs"] = report.contest_record(measurements)
        try:
            contest.refuse_who_has_not_learned(measurements, plan.train_images)
        except RunError as error:
            result["failed"] = str(error)  # or the standings would be read as those of a contest that counts
            raise
        finally:
            folder.write_json(report.RESULT, result)
        lines = [*under_which, *report.contest_table(measurements)]
        _draw(folder, measurements, "; ".join(under_which))
        if OURS in plan.implementations:
            seconds = [each.train_seconds for each in measurements if each.implementation == OURS and each.repetition > 0]
            result["phases_ms"] = phases.measure(plan, statistics.median(seconds))
            folder.write_json(report.RESULT, result)
            lines += phases.table(result["phases_ms"])
    return lines


def conditions(session: Session, processor: str) -> str:
    """On what was measured, in one line."""
    plan = session.plan
    threads, repetitions = _counted(plan.threads, "thread"), _counted(plan.repetitions, "repetition")
    return f"{threads}, {plan.train_images:,} images an epoch, {repetitions}, {processor}"


def _differences(config: RunConfig) -> dict[str, Any]:
    """The settings that make this program train otherwise than the tutorial; the others train as the tutorial does."""
    found = load_config(DEFAULT_CONFIG).differences(config)
    return {key: value for key, _, value in found if key not in _NOT_OURS_ALONE}


def _sentence_of_differences(differences: Mapping[str, Any]) -> str:
    told = [f"without {key}" if value is None else f"{key}={value}" for key, value in differences.items()]
    return f"ours is not as in configs/{DEFAULT_CONFIG}.toml: {', '.join(told)}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _draw(folder: RunFolder, measurements: Sequence[Measurement], sentence: str) -> None:
    bars = {contest.IMPLEMENTATIONS[each.implementation].title: each.train_seconds for each in report.standings(measurements)}
    again = "to draw it, measure again with another --output"
    draw(folder, report.FIGURE, lambda plots: plots.plot_benchmark(bars, sentence), again)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that the implementations' processes end too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
