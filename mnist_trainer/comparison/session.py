"""One call of the command `compare`: from a plan that is checked to the folder that is left.

Knows which runs are there already and which are to be trained or gone on with, and when the results are written.
"""

import shlex
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mnist_trainer import runtime
from mnist_trainer.comparison import page, report
from mnist_trainer.comparison.jobs import Ended, Job, Progress, run_jobs
from mnist_trainer.comparison.plan import RUNS, Candidate, Plan
from mnist_trainer.comparison.results import Result, Results
from mnist_trainer.config import RunConfig, load_recorded_config
from mnist_trainer.environment import describe_environment
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.run_folder import CONFIG, RunFolder

NOT_TRAINED = "it was not trained to its end"


@dataclass(frozen=True)
class Comparison:
    """A comparison that has passed every check, and waits to be started.

    plan: its configurations with device, threads and stages resolved.
    at_once: trainings side by side.
    arguments: of `train`, what each run gets beside its configuration, seed, scheduler mode and threads.
    """

    plan: Plan
    at_once: int
    arguments: Sequence[str]
    data_dir: Path
    command_line: Sequence[str]

    @cached_property
    def environment(self) -> dict[str, Any]:
        """That of all runs, which have the same."""
        config = self.plan.candidates[0].config
        threads, stages = int(config.runtime.threads), config.model.stages
        return describe_environment(config.runtime.device, threads, stages, self.data_dir, self.command_line)


def prepare(
    plan: Plan, jobs: str, arguments: Sequence[str], data_dir: Path | None = None, command_line: Sequence[str] = ()
) -> Comparison:
    """Checks every configuration. Writes nothing. Raises RequestError with all that is wrong.

    jobs: a number, or "auto": as many as the processors hold with the threads that a run has; on a GPU one.
    """
    from mnist_trainer import experiment

    problems: list[str] = []
    candidates = []
    folder = Path()
    for candidate in plan.candidates:
        with collected(problems):
            checked = experiment.check(_with_one_thread(candidate.config), data_dir)
            folder = checked.data_dir
            candidates.append(replace(candidate, config=checked.config))
    at_once = 1
    with collected(problems):
        at_once = _parse_jobs(jobs, candidates)
    if problems:
        raise RequestError(*dict.fromkeys(problems))
    return Comparison(replace(plan, candidates=candidates), at_once, arguments, folder, command_line)


def _with_one_thread(config: RunConfig) -> RunConfig:
    # Unless the configuration names a number; so that nothing of a run depends on how many are trained at once.
    return replace(config, runtime=replace(config.runtime, threads=1)) if config.runtime.threads == "auto" else config


def _parse_jobs(text: str, candidates: Sequence[Candidate]) -> int:
    if text != "auto":
        if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) > 0):
            raise RequestError(f"--jobs {text}: this is neither auto nor a whole number from 1 to 999")
        return int(text)
    if any(not each.config.runtime.device.startswith("cpu") for each in candidates):
        return 1
    threads = max((int(each.config.runtime.threads) for each in candidates), default=1)
    return max(1, runtime.available_processors() // threads)


# --- the folder


def open_folder(comparison: Comparison, output: Path) -> RunFolder:
    """The folder of a new comparison, or of one that is gone on with or extended; locked.

    Raises RequestError when there is anything else, or runs that this comparison has not, or has otherwise.
    """
    if not (output / report.RECORD).is_file():
        return RunFolder.create(output)
    folder = RunFolder(output)
    folder.lock()
    planned = {each.folder_name: each for each in comparison.plan.runs()}
    there = sorted(path.name for path in (folder / RUNS).glob("*") if (path / CONFIG).is_file())
    problems: list[str] = []
    if others := [name for name in there if name not in planned]:
        problems.append(
            f"--output {output}: holds a comparison with other runs ({', '.join(others)}); "
            "name their configurations, modes and seeds too, or choose another folder"
        )
    for name in there:
        if name in planned:
            with collected(problems):
                result = Result(planned[name], RunFolder.open(folder / RUNS / name))
                problems += [
                    f"--output {output}: its run {name} had {change}; choose another folder" for change in _changes(result)
                ]
                if result.folder.is_finished:
                    result.check()
    if problems:
        raise RequestError(*problems)
    return folder


def _changes(result: Result) -> list[str]:
    before = load_recorded_config(result.folder / CONFIG)
    return [f"{key} = {old!r}, and now it is {new!r}" for key, old, new in before.differences(result.run.config)]


# --- the runs


def run(
    comparison: Comparison,
    folder: RunFolder,
    on_event: Callable[[Progress | Ended], object] = lambda _: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Results:
    """Trains what is not there yet, and writes the results: the record after each run, the rest in the end.

    A run that is stopped is gone on with by the same call again. Nothing is raised for one that fails: it is in the results.
    """
    problems: dict[str, str] = {}
    jobs = {_job(comparison, each): each for each in unfinished(comparison, folder)}
    _write_record(comparison, folder, _results(comparison, folder, problems), "running")
    (folder / RUNS).mkdir(exist_ok=True)
    with closing(run_jobs(jobs, comparison.at_once, stop_requested)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Ended):
                result = jobs[event.job]
                problem = event.problem or _problem_of_finished(result)
                if problem:
                    problems[result.run.folder_name] = problem
                event = Ended(event.job, problem)
                _write_record(comparison, folder, _results(comparison, folder, problems), "running")
            on_event(event)
    results = _results(comparison, folder, problems)
    was_stopped = any(each.problem == NOT_TRAINED for each in results.failed)
    _write_record(comparison, folder, results, "interrupted" if was_stopped else "failed" if results.failed else "finished")
    _write_for_readers(comparison, folder, results)
    return results


def unfinished(comparison: Comparison, folder: RunFolder) -> list[Result]:
    """The runs that are still to be trained, or to be gone on with."""
    return [each for each in _results(comparison, folder, {}).results if not each.folder.is_finished]


def _job(comparison: Comparison, result: Result) -> Job:
    run, folder = result.run, result.folder
    if (folder / CONFIG).is_file():
        trusted = [f"{key}={name}" for key, name in run.config.users_code().items()]
        arguments = ["--resume", str(folder.path), *(word for each in trusted for word in ("--set", each))]
    else:
        if folder.path.is_dir():
            folder.remove_leftovers()  # of a process that was killed before it had written anything
        which = {"--seed": run.seed, "--scheduler-mode": run.mode, "--threads": run.config.runtime.threads}
        arguments = ["--config", run.candidate.file, *comparison.arguments]
        arguments += [str(word) for each in which.items() for word in each]
        arguments += ["--output", str(folder.path)]
    arguments += ["--data-dir", str(comparison.data_dir), "--quiet"]
    return Job(str(run), ("train", *arguments), folder, run.config.run_length.total_iterations)


def _problem_of_finished(result: Result) -> str | None:
    changes = _changes(result)
    return f"the configuration was changed while the comparison ran: it had {changes[0]}" if changes else None


# --- the results


def _results(comparison: Comparison, folder: RunFolder, problems: dict[str, str]) -> Results:
    found = []
    for planned in comparison.plan.runs():
        run = RunFolder(folder / RUNS / planned.folder_name)
        found.append(Result(planned, run, problems.get(planned.folder_name, None if run.is_finished else NOT_TRAINED)))
    return Results(comparison.plan, found)


def _write_record(comparison: Comparison, folder: RunFolder, results: Results, status: str) -> None:
    command_line = shlex.join(comparison.command_line)
    folder.write_json(report.RECORD, report.record(results, status, command_line, comparison.environment))


def _write_for_readers(comparison: Comparison, folder: RunFolder, results: Results) -> None:
    from mnist_trainer import plots

    command_line, svg = shlex.join(comparison.command_line), ""
    if results.standings:
        figure = plots.plot_comparison(results.to_draw())
        folder.write_file(report.FIGURE, lambda path: plots.save_figure(figure, path))
        svg = plots.svg_of(figure)
    folder.write_text(report.TEXT, report.markdown(results, command_line, comparison.environment))
    folder.write_text(report.PAGE, page.html(results, command_line, comparison.environment, svg))
