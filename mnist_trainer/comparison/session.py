"""One call of the command `compare`: from a plan that is checked to the folder that is left.

Knows which runs are there already and which are to be trained or gone on with, and when the results are written.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from mnist_trainer.comparison import page, report
from mnist_trainer.comparison.plan import RUNS, Plan, inequalities
from mnist_trainer.comparison.results import NOT_TRAINED, Result, Results
from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.diagnostics.environment import describe_environment, environment_changes
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.figures import draw
from mnist_trainer.run_folder import CONFIG, CURVES, SUMMARY, RunFolder
from mnist_trainer.runtime import hardware
from mnist_trainer.training.subprocesses import Ended, Job, Progress, run_jobs

CONFIGS = "configs"
"""The folder in that of the comparison that holds the configuration of each run, as `train` is given it."""

_BYTES_OF_A_RUN = 600 * 2**20
"""What a training needs of memory, with something to spare."""


@dataclass(frozen=True)
class Comparison:
    """A comparison that has passed every check, and waits to be started.

    plan: its configurations with device, threads and stages resolved.
    at_once: trainings side by side.
    """

    plan: Plan
    at_once: int
    data_dir: Path
    command_line: Sequence[str]

    @cached_property
    def environment(self) -> dict[str, Any]:
        """In which the runs are trained that are trained now."""
        config = self.plan.candidates[0].config
        threads, stages = int(config.runtime.threads), config.model.stages
        return describe_environment(config.runtime.device, threads, stages, self.data_dir, self.command_line)

    def results(self, folder: RunFolder) -> list[Result]:
        """Each planned run, as it stands in the folder of the comparison."""
        found = []
        for run in self.plan.runs():
            run_folder = RunFolder(folder / RUNS / run.folder_name)
            found.append(Result(run, run_folder, None if run_folder.is_finished else NOT_TRAINED))
        return found


def prepare(plan: Plan, jobs: str, data_dir: Path | None = None, command_line: Sequence[str] = ()) -> Comparison:
    """Checks every configuration. Writes nothing. Raises RequestError with all that is wrong.

    jobs: a number, or "auto": as many as processors and memory hold with the threads that a run has; on a GPU one.
    """
    from mnist_trainer.training import experiment

    problems: list[str] = []
    checked = []
    for candidate in plan.candidates:
        with collected(problems):
            checked.append(experiment.check(_with_one_thread(candidate.config), data_dir))
    at_once = 1
    with collected(problems):
        at_once = _parse_jobs(jobs, [each.config for each in checked])
    if not problems:
        pairs = zip(plan.candidates, checked, strict=True)
        plan = replace(plan, candidates=[replace(candidate, config=of.config) for candidate, of in pairs])
        problems += inequalities(plan)
    if problems:
        raise RequestError(*dict.fromkeys(problems))
    return Comparison(plan, min(at_once, sum(1 for _ in plan.runs())), checked[0].data_dir, command_line)


def _with_one_thread(config: RunConfig) -> RunConfig:
    # Unless the configuration names a number; so that nothing of a run but its time depends on how many are trained at once.
    return replace(config, runtime=replace(config.runtime, threads=1)) if config.runtime.threads == "auto" else config


def _parse_jobs(text: str, configs: Sequence[RunConfig]) -> int:
    if text != "auto":
        if not re.fullmatch(r"[1-9][0-9]{0,2}", text):
            raise RequestError(f"--jobs {text}: this is neither auto nor a whole number from 1 to 999")
        return int(text)
    if any(not each.runtime.device.startswith("cpu") for each in configs):
        return 1
    threads = max((int(each.runtime.threads) for each in configs), default=1)
    return max(1, min(hardware.available_processors() // threads, hardware.available_memory_bytes() // _BYTES_OF_A_RUN))


# --- the folder


def open_folder(comparison: Comparison, output: Path) -> RunFolder:
    """The folder of a new comparison, or of one that is gone on with or extended; locked.

    Raises RequestError when there is anything else, or runs that this comparison has not or has otherwise, or that are damaged
    or still being trained. These runs stay as they are.
    """
    _remove_leftovers(output)
    if not ((output / report.RECORD).is_file() and (output / RUNS).is_dir()):
        return RunFolder.create(output)
    folder = RunFolder(output)
    folder.lock()
    results = {each.run.folder_name: each for each in comparison.results(folder)}
    files = (path for name in (CONFIG, SUMMARY) for path in (folder / RUNS).glob(f"*/{name}") if path.is_file())
    there = sorted({path.parent.name for path in files})
    problems: list[str] = []
    if others := [name for name in there if name not in results]:
        problems.append(
            f"--output {output}: holds a comparison with other runs ({', '.join(others)}); "
            "name their configurations, --modes and --seeds too, or choose another folder"
        )
    for name in there:
        if name in results:
            problems += _run_problems(results[name], output)
    if problems:
        raise RequestError(*problems)
    return folder


def _remove_leftovers(output: Path) -> None:
    """Removes what a killed process was about to write."""
    for name in (report.RECORD, report.TEXT, report.FIGURE, report.PAGE):
        for path in output.glob(f".*.{name}"):
            if re.fullmatch(r"\.\d+", path.name.removesuffix(f".{name}")):
                path.unlink()


def _run_problems(result: Result, output: Path) -> list[str]:
    """Return why a run that is there cannot be part of the comparison, a sentence each."""
    problems: list[str] = []
    damages: list[str] = []
    with collected(damages):
        folder = RunFolder.open(result.folder.path)
        before = load_recorded_config(folder / CONFIG)
        problems += [
            f"--output {output}: its run {result.run.folder_name} had {key} = {old!r}, and now {new!r} is asked for; "
            "choose another folder, or extend this one with the same settings"
            for key, old, new in before.differences(result.run.config)
            if not key.startswith("checkpoint.")  # when it is saved changes no run
        ]
        if folder.is_finished:
            result.check(before)  # by what it was to be; what is asked for now may be another run
    problems += [
        f"{damage}; choose another --output, or move {result.folder.path} elsewhere to have this run trained again; "
        "the rest stays usable"
        for damage in damages
    ]
    if not result.folder.is_finished:
        with collected(problems):
            result.folder.lock()  # or a process of a comparison that was killed still trains it
            result.folder.unlock()
    return problems


# --- the runs


def run(
    comparison: Comparison,
    folder: RunFolder,
    on_event: Callable[[Progress | Ended], object] = lambda _: None,
    stop_requested: Callable[[], bool] = lambda: False,
    *,
    resume_command: str,
) -> Results:
    """Trains what is not there yet, and writes the results: the record after each run, the rest in the end.

    resume_command: the command that resumes the comparison, for messages.

    A run that is stopped is gone on with by the same call again. Nothing is raised for one that fails: it is in the results.
    """
    results = {each.run.folder_name: each for each in comparison.results(folder)}
    jobs = {_job(comparison, folder, each): each for each in results.values() if each.problem}

    def found() -> Results:
        return Results(comparison.plan, list(results.values()))

    (folder / RUNS).mkdir(exist_ok=True)
    _write_record(comparison, folder, found(), "running")
    try:
        with closing(run_jobs(jobs, comparison.at_once, stop_requested)) as events:
            for event in events:
                if isinstance(event, Ended):
                    planned = jobs[event.job].run
                    results[planned.folder_name] = _checked(Result(planned, event.job.folder, event.problem))
                    _write_record(comparison, folder, found(), "running")
                on_event(event)
    except KeyboardInterrupt:
        _write_record(comparison, folder, found(), "interrupted")
        raise
    was_stopped = any(each.problem == NOT_TRAINED for each in results.values())
    _write_record(comparison, folder, found(), "interrupted" if was_stopped else "failed" if found().failed else "finished")
    _write_for_readers(comparison, folder, found(), resume_command)
    return found()


def _job(comparison: Comparison, folder: RunFolder, result: Result) -> Job:
    run, run_folder = result.run, result.folder
    if (run_folder / CONFIG).is_file():
        when = {f"checkpoint.{key}": value for key, value in vars(run.config.checkpoint).items()}
        settings = {**run.config.users_code(), **when}  # the code of which the user has just named
        arguments = [f"--resume={run_folder.path}", *(f"--set={key}={value}" for key, value in settings.items())]
    else:
        if run_folder.path.is_dir():
            run_folder.remove_leftovers()  # of a process that was killed before it had written anything
        given = RunFolder(folder / CONFIGS)
        given.path.mkdir(exist_ok=True)
        name = f"{run.folder_name}.toml"
        given.write_text(name, run.config.to_toml())
        arguments = [f"--config={given / name}", f"--output={run_folder.path}"]
    arguments += [f"--data-dir={comparison.data_dir}", "--quiet"]
    return Job(str(run), ("train", *arguments), run_folder, run.config.run_length.total_iterations)


def _checked(result: Result) -> Result:
    if result.problem is None:
        try:
            result.check(result.run.config)
        except RequestError as error:  # somebody has been there
            return replace(result, problem=str(error))
    return result


# --- the results


def remarks(results: Results) -> list[str]:
    """In what the finished runs were not trained alike though their configurations are: a sentence each."""
    if not results.finished:
        return []
    first, *others = results.finished
    return [
        f"{each.run} was trained on another installation than {first.run}: {change}"
        for each in others
        for change in environment_changes(first.environment, each.environment)
    ]


def _write_record(comparison: Comparison, folder: RunFolder, results: Results, status: str) -> None:
    command_line = shlex.join(comparison.command_line)
    record = report.record(results, remarks(results), status, command_line, comparison.environment, comparison.at_once)
    folder.write_json(report.RECORD, record)


def _write_for_readers(comparison: Comparison, folder: RunFolder, results: Results, resume_command: str) -> None:
    command_line, caveats, svg = shlex.join(comparison.command_line), remarks(results), ""
    conditions = report.conditions(comparison.plan, comparison.environment, comparison.at_once)

    def make(plots: ModuleType) -> Any:
        nonlocal svg
        runs = results.to_draw()
        svg = plots.svg_of(plots.plot_comparison(runs))
        return plots.plot_comparison(runs)  # a second one: saving a figure changes its layout

    is_drawn = bool(results.standings) and draw(folder, report.FIGURE, make, f"to draw it later: {resume_command}")
    if is_drawn:  # or these would fail in the same way
        _draw_missing_curves(results)
    figure_name = report.FIGURE if is_drawn else ""
    folder.write_text(report.TEXT, report.markdown(results, caveats, command_line, conditions, figure_name))
    folder.write_text(report.PAGE, page.html(results, caveats, command_line, conditions, svg if is_drawn else ""))


def _draw_missing_curves(results: Results) -> None:
    """Draw the figures that finished runs lack: the messages of a run's own process are not shown."""
    from mnist_trainer.training import experiment

    for result in results.finished:
        if not (result.folder / CURVES).exists():
            experiment.draw_curves(result.folder, result.run.config)
