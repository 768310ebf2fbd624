"""One call of the command `compare`: checks the plan, trains the runs and writes the folder of the comparison.

Keeps the runs that are already finished, and trains or resumes the others.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from mnist_trainer.comparison import page, report
from mnist_trainer.comparison.plan import RUNS, Plan, unequal_settings
from mnist_trainer.comparison.results import NOT_TRAINED, Result, Results
from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import say
from mnist_trainer.diagnostics.environment import describe_environment, environment_changes
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.figures import draw
from mnist_trainer.folder import Folder
from mnist_trainer.run_folder import CONFIG, CURVES, SUMMARY, RunFolder
from mnist_trainer.runtime import hardware
from mnist_trainer.training.records import remark_on_learning
from mnist_trainer.training.subprocesses import Ended, Progress, Training, run_trainings

CONFIGS = "configs"
"""The subfolder with the configuration of each run, for `train`."""

_BYTES_OF_A_RUN = 600 * 2**20
"""Memory of a training, with some to spare."""


@dataclass(frozen=True)
class Comparison:
    """A comparison that has passed every check and can be started.

    Attributes:
        plan: The runs. Device, threads and backend of the configurations are resolved.
        jobs: The number of trainings side by side.
        data_dir: The folder of the MNIST files.
        command_line: The command, to be recorded.
    """

    plan: Plan
    jobs: int
    data_dir: Path
    command_line: Sequence[str]

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The environment of the runs that this process trains."""
        config = self.plan.candidates[0].config
        threads, backend = int(config.runtime.threads), config.model.backend
        return describe_environment(config.runtime.device, threads, backend, self.data_dir, self.command_line)

    def results(self, folder: RunFolder) -> list[Result]:
        """Return the current result of each planned run in the folder of the comparison."""
        found = []
        runs = folder.subfolder(RUNS)
        for run in self.plan.runs():
            run_folder = RunFolder(runs / run.folder_name, runs)
            found.append(Result(run, run_folder, None if run_folder.is_finished else NOT_TRAINED))
        return found


def prepare(
    plan: Plan,
    jobs: int | str,
    data_dir: Path | None = None,
    command_line: Sequence[str] = (),
    *,
    is_quiet: bool = True,
) -> Comparison:
    """Check every configuration, and make no folder.

    Args:
        plan: The runs.
        jobs: A number, or "auto": as many as the processors and the memory allow; one on a GPU.
        data_dir: The folder of the MNIST files, or None for the default one.
        command_line: The command, to be recorded.
        is_quiet: True not to print why the stock backend is used.

    Raises:
        RequestError: With a message for each problem.
    """
    from mnist_trainer.training import experiment

    problems: list[str] = []
    checked = []
    for number, candidate in enumerate(plan.candidates):
        with collected(problems):
            is_silent = is_quiet or number > 0  # the reason for the stock backend is the same for all
            checked.append(experiment.check(_with_one_thread(candidate.config), data_dir, is_quiet=is_silent))
    if not problems:
        pairs = zip(plan.candidates, checked, strict=True)
        plan = replace(plan, candidates=[replace(candidate, config=run.config) for candidate, run in pairs])
        problems += unequal_settings(plan)
    if problems:
        raise RequestError(*dict.fromkeys(problems))
    max_jobs = _jobs_that_fit([run.config for run in checked]) if isinstance(jobs, str) else jobs
    return Comparison(plan, min(max_jobs, sum(1 for _ in plan.runs())), checked[0].data_dir, command_line)


def _with_one_thread(config: RunConfig) -> RunConfig:
    # The results of a run then do not depend on the number of jobs, only its time does.
    return replace(config, runtime=replace(config.runtime, threads=1)) if config.runtime.threads == "auto" else config


def _jobs_that_fit(configs: Sequence[RunConfig]) -> int:
    if any(not config.runtime.device.startswith("cpu") for config in configs):
        return 1
    threads = max((int(config.runtime.threads) for config in configs), default=1)
    return max(1, min(hardware.available_processors() // threads, hardware.available_memory_bytes() // _BYTES_OF_A_RUN))


# --- the folder


def open_folder(comparison: Comparison, output: Path) -> RunFolder:
    """Open and lock the folder of a new comparison, or of one that is resumed or extended.

    Args:
        comparison: The comparison.
        output: The path of the folder.

    Raises:
        RequestError: The folder contains other files, or runs that do not belong to this comparison, have other settings, are
            damaged or are still being trained. Nothing in the folder is changed.
    """
    folder = RunFolder(output)
    try:
        folder.lock()
    except OSError:  # there is no such folder, or `create` reports why it cannot be used
        return RunFolder.create(output)
    record = folder.kind(report.RECORD)
    if record not in (None, "a file"):
        raise RequestError(
            f"{folder / report.RECORD}: this is {record}, but a comparison has a file here; choose another --output"
        )
    if record is None and folder.kind(CONFIGS):
        missing = f"{folder / report.RECORD}: missing, without which this comparison cannot be extended"
        raise RequestError(f"{missing}; restore the file, or choose another --output")
    if not (record and folder.kind(RUNS)):
        folder.remove_unfinished(report.FILES.__contains__)
        folder.unlock()
        return RunFolder.create(output)
    results = {result.run.folder_name: result for result in comparison.results(folder)}
    runs = folder.subfolder(RUNS)
    there = [name for name in runs.names() if any(runs.subfolder(name).kind(file) for file in (CONFIG, SUMMARY))]
    problems = [
        f"{folder / name}: this is {found}, but a comparison has a folder here"
        for name in (RUNS, CONFIGS)
        if (found := folder.kind(name)) not in (None, "a folder")
    ]
    problems += [
        f"{runs / name}: this is {found}, but a comparison has the folder of a run here"
        for name in results
        if (found := runs.kind(name)) not in (None, "a folder")
    ]
    if others := [name for name in there if name not in results]:
        problems.append(
            f"--output {output}: holds a comparison with further runs ({', '.join(others)}); "
            "include their configurations, --modes and --seeds, or choose another folder"
        )
    changes: dict[str, list[str]] = {}
    for name in there:
        if name in results:
            problems += _run_problems(results[name], runs, output, changes)
    problems += [
        f"--output {output}: {_runs_named(names, len(there))} had {change}; choose another folder, or extend this one with the "
        "same settings"
        for change, names in changes.items()
    ]
    if problems:
        raise RequestError(*problems)
    folder.remove_unfinished(report.FILES.__contains__)
    return folder


def _runs_named(names: Sequence[str], total: int) -> str:
    if len(names) == 1:
        return f"its run {names[0]}"
    return f"all of its {total} runs" if len(names) == total else f"{len(names)} of its runs ({', '.join(names)})"


def _run_problems(result: Result, folder_of_runs: Folder, output: Path, changes: dict[str, list[str]]) -> list[str]:
    """Return a message for each reason why an existing run cannot be part of the comparison.

    Args:
        result: The run.
        folder_of_runs: The folder that contains its folder.
        output: The folder of the comparison.
        changes: Description of a changed setting → names of the runs. The changes of this run are added, because several runs
            usually have the same.
    """
    problems: list[str] = []
    damages: list[str] = []
    with collected(damages):
        folder = RunFolder.open(result.folder.path, folder_of_runs)
        before = load_recorded_config(folder / CONFIG)
        for key, old, new in before.differences(result.run.config):
            if not key.startswith("checkpoint."):  # does not change the results
                changes.setdefault(f"{key} = {old!r}, which is now {new!r}", []).append(result.run.folder_name)
        if folder.is_finished:
            result.check(before)  # not `result.run.config`, which may differ
    problems += [
        f"{damage}; choose another --output, or move {result.folder.path} elsewhere to train this run again and keep the others"
        for damage in damages
    ]
    if not result.folder.is_finished:
        with collected(problems):
            result.folder.lock()  # fails if a process of a killed comparison is still training it
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
    """Train the runs that are not finished, and write the results: the record after each run, the rest at the end.

    The same call resumes runs that were stopped. A run that fails raises no exception; the results contain its problem.

    Args:
        comparison: The comparison.
        folder: Its folder.
        on_event: Called for the progress and the end of each training.
        stop_requested: Polled. Once it returns True, the trainings save and stop.
        resume_command: The command that resumes the comparison, for messages.
    """
    results = {result.run.folder_name: result for result in comparison.results(folder)}
    waiting = {_training(comparison, folder, result): result for result in results.values() if result.problem}

    def found() -> Results:
        return Results(comparison.plan, list(results.values()))

    folder.subfolder(RUNS).make()
    _write_record(comparison, folder, found(), "running")
    try:
        with closing(run_trainings(waiting, comparison.jobs, stop_requested)) as events:
            for event in events:
                if isinstance(event, Ended):
                    if event.problem:
                        say(f"{event.training.title}: {event.problem}")
                    planned = waiting[event.training].run
                    results[planned.folder_name] = _checked(Result(planned, event.training.folder, event.problem))
                    _write_record(comparison, folder, found(), "running")
                on_event(event)
    except KeyboardInterrupt:
        _write_record(comparison, folder, found(), "interrupted")
        raise
    was_stopped = any(result.problem == NOT_TRAINED for result in results.values())
    _write_record(comparison, folder, found(), "interrupted" if was_stopped else "failed" if found().failed else "finished")
    conditions = report.conditions(comparison.plan, comparison.environment, comparison.jobs)
    command_line, later = shlex.join(comparison.command_line), f"to draw it later: {resume_command}"
    write_for_readers(folder, found(), remarks(found()), command_line, conditions, later)
    if folder.has_file(report.FIGURE):  # otherwise these figures would fail for the same reason
        _draw_missing_curves(found())
    return found()


def _training(comparison: Comparison, folder: RunFolder, result: Result) -> Training:
    run, run_folder = result.run, result.folder
    if run_folder.has_file(CONFIG):
        checkpoint = {f"checkpoint.{key}": value for key, value in vars(run.config.checkpoint).items()}
        settings = {**run.config.users_code(), **checkpoint}  # --resume runs the user's code only if the command names it
        arguments = [f"--resume={run_folder.path}", *(f"--set={key}={value}" for key, value in settings.items())]
    else:
        run_folder.remove_leftovers()  # of a process that was killed before it wrote its configuration
        given = RunFolder(folder / CONFIGS, folder)
        given.make()
        name = f"{run.folder_name}.toml"
        given.write_text(name, run.config.to_toml())
        arguments = [f"--config={given / name}", f"--output={run_folder.path}"]
    arguments += [f"--data-dir={comparison.data_dir}", "--quiet"]
    return Training(str(run), ("train", *arguments), run_folder, run.config.run_length.total_iterations)


def _checked(result: Result) -> Result:
    if result.problem is None:
        try:
            result.check(result.run.config)
        except RequestError as error:  # another process has changed its files
            return replace(result, problem=str(error))
    return result


# --- the results


def remarks(results: Results) -> list[str]:
    """Return sentences about runs that stopped early or learned nothing, and about differences between the installations."""
    if not results.finished:
        return []
    first, *others = results.finished
    classes = len(first.run.candidate.config.data.class_names)
    return [
        *_early_stops(results),
        *(f"{result.run}: {remark}" for result in results.finished if (remark := remark_on_learning(result.summary, classes))),
        *(
            f"{other.run} was trained on another installation than {first.run}: {change}"
            for other in others
            for change in environment_changes(first.environment, other.environment)
        ),
    ]


def _early_stops(results: Results) -> Iterator[str]:
    for candidate in results.plan.candidates:
        runs = [result for result in results.finished if result.run.candidate is candidate]
        ends = sorted(result.summary["epochs"] for result in runs)
        total = candidate.config.training.epochs
        if early := [epoch for epoch in ends if epoch < total]:
            which = "all runs" if len(early) == len(runs) else f"{len(early)} of {len(runs)} runs"
            after = str(early[0]) if early[0] == early[-1] else f"{early[0]} to {early[-1]}"
            yield f"{candidate.name}: {which} stopped early, after epoch {after} of {total}"


def _write_record(comparison: Comparison, folder: RunFolder, results: Results, status: str) -> None:
    command_line = shlex.join(comparison.command_line)
    origin = comparison.environment, comparison.jobs
    record = report.record(results, remarks(results), status, command_line, *origin, folder=folder.path)
    folder.write_json(report.RECORD, record)


def write_for_readers(
    folder: RunFolder, results: Results, findings: Sequence[str], command_line: str, conditions: str, later: str
) -> None:
    """Write the figure, the text and the page of a comparison.

    Args:
        folder: The folder of the comparison.
        results: Its results.
        findings: Further sentences; see `report.verdict`.
        command_line: The command that made the comparison.
        conditions: The machine and the versions, in one line.
        later: A way to draw the figure later, for a message.
    """
    svg = ""

    def make(plots: ModuleType) -> Any:
        nonlocal svg
        runs, pairs = results.to_draw(), results.pairs_to_draw()
        svg = "".join(map(plots.svg_of, plots.comparison_parts(runs, pairs)))
        return plots.plot_comparison(runs, pairs)

    is_drawn = bool(results.scores) and draw(folder, report.FIGURE, make, later)
    figure_name = report.FIGURE if is_drawn else ""
    folder.write_text(report.TEXT, report.markdown(results, findings, command_line, conditions, figure_name))
    folder.write_text(report.PAGE, page.html(results, findings, command_line, conditions, svg if is_drawn else ""))


def _draw_missing_curves(results: Results) -> None:
    """Draw the missing figures of finished runs; report a failure, because messages of a run's own process are not shown."""
    from mnist_trainer.training import experiment

    for result in results.finished:
        if not result.folder.has_file(CURVES):
            experiment.draw_curves(result.folder, result.run.config)
