"""One call of the benchmark: from a request that is checked to the lines that are printed and the folder that is left."""

import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark import contest, report, resources
from mnist_trainer.benchmark.contest import OURS, OURS_ON_STOCK, Measurement, Plan
from mnist_trainer.config.loading import DEFAULT_CONFIG, load_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.data.mnist_files import files_problems, find_data_dir
from mnist_trainer.diagnostics.environment import describe_environment
from mnist_trainer.errors import RequestError, RunError, collected
from mnist_trainer.figures import draw
from mnist_trainer.model import native
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import hardware

EPOCHS = "epochs"
WHAT = (EPOCHS, *resources.RESOURCES)

# These are everybody's, and the epochs are as many as there are turns.
_NOT_OURS_ALONE = ("runtime.device", "runtime.threads", "data.train_images", "data.test_images", "training.epochs")


@dataclass(frozen=True)
class Session:
    """A request that has passed every check. `left_out` has a sentence for each contender that cannot take part.

    stages: of this program, as resolved.
    """

    plan: Plan
    what: Sequence[str]
    config: RunConfig
    stages: str
    left_out: Sequence[str]
    peers: dict[str, str | None]

    @property
    def turns(self) -> int:
        """How often `run` will call `on_turn`."""
        epochs = (self.plan.repetitions + 1) * len(self.plan.contenders) if EPOCHS in self.what else 0
        return epochs + self.plan.repetitions * sum(each != EPOCHS for each in self.what)


def prepare(
    config: RunConfig,
    what: str = EPOCHS,
    contenders: str | None = None,
    repetitions: int = 3,
    peer_python: str | None = None,
    data_dir: Path | None = None,
) -> Session:
    """Checks a request, in which names have commas between them. Writes nothing.

    config: this program's settings; its threads and its images are everybody's.
    contenders: None for all that can take part.

    Raises RequestError with all that is wrong.
    """
    problems = [f"--what: there is no {each!r}; there are {', '.join(WHAT)}" for each in _names(what) if each not in WHAT]
    if not problems and EPOCHS not in _names(what):
        given = {"--contenders": contenders, "--peer-python": peer_python}
        problems += [
            f"{flag}: others take part in --what {EPOCHS} alone, and --what is {what}"
            for flag, value in given.items()
            if value is not None
        ]
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
    if EPOCHS in _names(what):
        with collected(problems):
            names, left_out, peers = contest.choose_contenders(contenders, peer_python or sys.executable)
    if problems:
        raise RequestError(*problems)
    if {OURS, OURS_ON_STOCK} <= set(names) and stages == "stock":
        names.remove(OURS_ON_STOCK)
        left_out.append(f"{OURS_ON_STOCK}: {OURS} has stock stages itself; mnist-trainer doctor says why")
    config = replace(config, runtime=replace(config.runtime, threads=threads, device="cpu"))
    plan = Plan(
        contenders=names,
        repetitions=repetitions,
        threads=threads,
        train_images=config.data.trained_images,
        test_images=config.data.test_images,
        data_dir=folder,
        config=config.to_tables(),
        peer_python=peer_python or sys.executable,
    )
    return Session(plan, _names(what), config, stages, left_out, peers)


def run(
    session: Session, folder: RunFolder, command_line: Sequence[str] = (), on_turn: Callable[[], object] = lambda: None
) -> list[str]:
    """Measures, writes `benchmark.json` and a figure into the folder, and returns the lines to be printed.

    The file is written anew after each of `what`, so that what goes wrong later, or Ctrl-C, takes nothing of it away.

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
            "contenders": list(plan.contenders),
            "left_out": list(session.left_out),
            "ours_unlike_tutorial": differences,
            "config": {section: dict(table) for section, table in plan.config.items()},
        },
    }
    under_which = [conditions(session, environment["processor"])]
    if differences:
        under_which.append(_sentence_of_differences(differences))
    measured: dict[str, Any] = {}
    lines: list[str] = []
    with _sigterm_as_interrupt(), tempfile.TemporaryDirectory() as scratch:
        config_file = Path(scratch) / "benchmark.toml"
        config_file.write_text(session.config.to_toml(), encoding="utf-8")
        for each in session.what:
            if each == EPOCHS:
                lines += _compare(plan, folder, result, under_which, on_turn)
            else:
                measured[each] = resources.RESOURCES[each](plan, config_file, on_turn)
                result["resources"] = report.resources_record(measured)
                folder.write_json(report.RESULT, result)
    return [*under_which, *lines, *(report.resource_lines(measured) if measured else [])]


def _compare(
    plan: Plan, folder: RunFolder, result: dict[str, Any], under_which: Sequence[str], on_turn: Callable[[], object]
) -> list[str]:
    """Holds the contest, adds to the result what came of it, and returns the lines to be printed."""
    measurements = contest.hold(plan, lambda _: on_turn())
    result[EPOCHS] = report.contest_record(measurements)
    try:
        contest.refuse_who_has_not_learned(measurements, plan.train_images)
    except RunError as error:
        result["failed"] = str(error)  # or the standings would be read as those of a contest that counts
        raise
    finally:
        folder.write_json(report.RESULT, result)
    lines = report.contest_table(measurements)
    _draw(folder, measurements, "; ".join(under_which))
    if OURS in plan.contenders:
        result["phases_ms"] = _phases(plan, measurements)
        folder.write_json(report.RESULT, result)
        lines += report.phases_table(result["phases_ms"])
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


def _phases(plan: Plan, measurements: Sequence[Measurement]) -> dict[str, float]:
    seconds = [each.train_seconds for each in measurements if each.contender == OURS and each.repetition > 0]
    batch_size = int(plan.config["training"]["batch_size"])
    return report.with_remainder(resources.phases(plan), statistics.median(seconds), -(-plan.train_images // batch_size))


def _draw(folder: RunFolder, measurements: Sequence[Measurement], sentence: str) -> None:
    bars = {contest.CONTENDERS[each.contender].title: each.train_seconds for each in report.standings(measurements)}
    again = "to draw it, measure again with another --output"
    draw(folder, report.FIGURE, lambda plots: plots.plot_benchmark(bars, sentence), again)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(each.strip() for each in text.split(",")))


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Has SIGTERM, which ends a process where it stands, leave as Ctrl-C does, so that the contenders' processes end too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
