"""`mnist-trainer compare`: train with several scheduler modes, schedules and seeds, and report the differences."""

import os
import shlex
from pathlib import Path
from typing import Any

from mnist_trainer import runtime
from mnist_trainer.commands.request import RUNS_FOLDER, Arguments, describe_misfits, follow_link, overrides_of, read_configs
from mnist_trainer.config.loading import DEFAULT_CONFIG, bundled_configs, config_name
from mnist_trainer.config.overrides import Override
from mnist_trainer.console import Console, counted, in_columns, print_lines, say, terminal_width
from mnist_trainer.errors import DONE, FAILED, INTERRUPTED, RequestError, RunError, collected
from mnist_trainer.run_folder import RunFolder


def compare(arguments: Arguments) -> int:
    """Run `mnist-trainer compare`; return the exit code."""
    from mnist_trainer.comparison import report
    from mnist_trainer.comparison.plan import make_plan
    from mnist_trainer.comparison.results import NOT_TRAINED

    files = arguments.configs or [DEFAULT_CONFIG]
    if any(map(_is_run_folder, files)):
        return _compare_finished(arguments, files)
    runtime.prepare(1)  # a user's module may load MXNet; this process does not train
    configs = read_configs(arguments, files)
    overrides = overrides_of(arguments)
    sets_mode = _sets(overrides, "training.scheduler_mode", "--modes", arguments.modes)
    _sets(overrides, "training.seed", "--seeds", arguments.seeds)
    modes = [configs[0].training.scheduler_mode] if sets_mode else arguments.modes
    plan = make_plan(files, configs, modes, arguments.seeds, arguments.allow)
    from mnist_trainer.comparison import session
    from mnist_trainer.comparison.progress import ComparisonBars
    from mnist_trainer.runtime.signals import stop_request

    problems: list[str] = []
    misfits: list[str] = []
    for file, config in zip(files, configs, strict=True):
        with collected(problems):
            misfits += describe_misfits(config, file)
    if problems:
        raise RequestError(*problems)
    jobs, quiet = arguments.jobs or "auto", arguments.quiet
    comparison = session.prepare(plan, jobs, arguments.data_dir, arguments.command_line, is_quiet=quiet)
    folder = _make_folder(comparison, arguments.output, files[0])
    there = comparison.results(folder)
    total, waiting = len(there), sum(result.problem is not None for result in there)
    iterations = sum(result.run.config.run_length.total_iterations for result in there if result.problem is not None)
    done = f" ({total - waiting} are there already)" if waiting < total else ""
    Console(arguments.quiet).note(f"{total} runs{done}, {counted(comparison.jobs, 'job')}, folder {folder.path}", *misfits)
    resume_command = shlex.join([*arguments.command_line, *([] if arguments.output else ["--output", str(folder.path)])])
    try:
        with stop_request() as stop_requested, ComparisonBars(waiting, iterations, is_quiet=arguments.quiet) as bars:
            results = session.run(comparison, folder, bars, stop_requested, resume_command=resume_command)
    except KeyboardInterrupt:
        return _say_interrupted(resume_command)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else f"no training can be started ({error})"
        raise RunError(f"{what}; when that is fixed, resume with: {resume_command}") from error
    if any(result.problem == NOT_TRAINED for result in results.failed):
        return _say_interrupted(resume_command)
    for title, table in report.modes_tables(results).items():
        print_lines(title, *in_columns(table, terminal_width()), "")
    if results.scores:
        print_lines(*in_columns(report.scores_table(results.scores), terminal_width()), "")
    verdict = report.verdict(results, session.remarks(results))
    print_lines(*(f"{sentence}." for sentence in verdict), f"Folder {folder.path}")
    agree = results.modes_identical is not False and results.begins_alike is not False
    return DONE if agree and not results.failed else FAILED


def _compare_finished(arguments: Arguments, paths: list[str]) -> int:
    """Compare finished runs as they are; return the exit code."""
    from mnist_trainer.comparison import finished, report

    _refuse_training_flags(arguments, paths)
    results = finished.read_runs([follow_link(Path(path)) for path in paths])
    output = arguments.output
    folder = RunFolder.create(output) if output else RunFolder.create_below(RUNS_FOLDER, "runs_compare")
    finished.write(results, folder, arguments.command_line)
    for table in (report.settings_table(results), report.scores_table(results.scores)):
        if len(table) > 1:
            print_lines(*in_columns(table, terminal_width()), "")
    verdict = report.verdict(results, finished.findings(results))
    print_lines(*(f"{sentence}." for sentence in verdict), f"Folder {folder.path}")
    return DONE


def _is_run_folder(argument: str) -> bool:
    # Not Path.is_dir, which raises an exception for a name that is too long.
    return argument not in bundled_configs() and os.path.isdir(argument)  # noqa: PTH112


def _refuse_training_flags(arguments: Arguments, paths: list[str]) -> None:
    """Refuse configurations among run folders, and flags for trainings.

    Raises:
        RequestError: There are any.
    """
    problems = [
        f"{path}: is not a folder, but other arguments are; compare either finished runs or configurations"
        for path in paths
        if not _is_run_folder(path)
    ]
    flags = {"--modes": arguments.modes, "--seeds": arguments.seeds, "--jobs": arguments.jobs, "--allow": arguments.allow}
    given = [flag for flag, value in {**flags, "--data-dir": arguments.data_dir}.items() if value]
    given += [override.spelling for override in overrides_of(arguments)]
    problems += [f"{flag}: finished runs are compared as they are; leave it out" for flag in given]
    if problems := [*arguments.problems, *problems]:
        raise RequestError(*problems)


def _sets(overrides: list[Override], key: str, flag: str, given: object) -> bool:
    """Return True if an override sets this key.

    Raises:
        RequestError: The flag for several values is also given.
    """
    setting = [override.spelling for override in overrides if override.key == key]
    if setting and given is not None:
        raise RequestError(f"{flag}: {setting[0]} sets the same; keep one of them")
    return bool(setting)


def _make_folder(comparison: Any, output: Path | None, first_file: str) -> RunFolder:
    from mnist_trainer.comparison import session

    if output:
        return session.open_folder(comparison, output)
    return RunFolder.create_below(RUNS_FOLDER, f"{config_name(first_file)}_compare")


def _say_interrupted(resume_command: str) -> int:
    say(f"interrupted; resume with: {resume_command}")
    return INTERRUPTED
