"""What each command does, from the arguments it was given to results on stdout; which flags there are, `cli` knows.

What takes time to load is imported by the command that needs it, so that curves alone answer at once.
"""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mnist_trainer import runtime
from mnist_trainer.config import (
    DEFAULT_CONFIG,
    Override,
    RunConfig,
    bundled_configs,
    check_value,
    flag_of,
    load_config,
    load_recorded_config,
)
from mnist_trainer.errors import DONE, FAILED, INTERRUPTED, Interrupted, RequestError, RunError, say
from mnist_trainer.run_folder import CONFIG, RunFolder
from mnist_trainer.schedules import CURVES, AnySchedule, ScheduleError
from mnist_trainer.schedules.catalogue import FAMILIES, find_curve
from mnist_trainer.schedules.fields import FieldError

RUNS_FOLDER = Path("runs")

_EXAMPLE_ITERATIONS = 1500  # as far as the tutorial plots its schedules

Arguments = Any
"""The parsed arguments, an attribute a flag. Besides: `command_line`, as it was typed; `config_keys`, the keys of the
configuration that have a flag of their own; `problems`, what has been found wrong until now."""


def train(arguments: Arguments) -> int:
    folder = _folder_to_resume(arguments) if arguments.resume else None
    config = _read_config(arguments)
    runtime.prepare(config.runtime.threads)
    from mnist_trainer import experiment
    from mnist_trainer.checkpoint import newest_whole
    from mnist_trainer.interruption import stop_wish
    from mnist_trainer.progress import ProgressBar, TutorialLines, drops_line

    checkpoint = newest_whole(folder, say) if folder and not folder.is_finished else None
    if folder:
        experiment.refuse_changes(folder, config, checkpoint)
        if folder.is_finished:
            print(f"{folder.path}: the run is finished; there is nothing to go on with")
            return DONE
    prepared = experiment.prepare(config, arguments.data_dir)
    if folder:
        where = f"going on after iteration {checkpoint.iteration}" if checkpoint else "it has no checkpoint, and begins again"
        say(f"{folder.path}: {where}")
        for sentence in experiment.what_is_new(prepared, folder):
            say(f"{folder.path}: {sentence}")
        start = partial(experiment.resume, prepared, folder, checkpoint)
    else:
        folder = _make_run_folder(arguments, config.training.scheduler_mode)
        start = partial(experiment.run, prepared, folder)
    if not arguments.quiet:
        resolved = prepared.config
        where = f"Device {resolved.runtime.device}, OpenMP threads {resolved.runtime.threads}, {resolved.model.stages} stages"
        print(f"{where}, run folder {folder.path}", file=sys.stderr)
    if line := drops_line(prepared.schedule, config.run_length.total_iterations):
        print(line, flush=True)
    bars = [] if arguments.quiet else [ProgressBar(config.training.epochs)]
    try:
        with stop_wish() as stop_requested:
            summary = start(arguments.command_line, [TutorialLines(), *bars], stop_requested)
    except (Interrupted, KeyboardInterrupt) as interruption:
        say(f"{str(interruption) or 'interrupted'}; {_how_to_go_on(folder, config, arguments)}")
        return INTERRUPTED
    except RunError as error:
        raise RunError(f"{error}; what was done until now is in {folder.path}") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        what = f"{error.filename or 'standard output'}: {error.strerror}"
        raise RunError(f"{what}; when that is mended, {_how_to_go_on(folder, config, arguments)}") from error
    finally:
        for bar in bars:
            bar.close()
    print(
        f"Test accuracy {summary['test_accuracy']:.2%} ({summary['test_correct']} of {summary['test_total']}), "
        f"test loss {summary['test_loss']:.6f}; {summary['iterations']} iterations, {summary['seconds']:.1f} s with tests"
    )
    print(f"Parameters SHA-256 {summary['parameters_sha256']}")
    print(f"Run folder {folder.path}")
    return DONE


def _how_to_go_on(folder: RunFolder, config: RunConfig, arguments: Arguments) -> str:
    if not (folder / CONFIG).is_file():  # it had not begun, or the folder is gone
        return "start it again"
    command = ["mnist-trainer", "train", "--resume", str(folder.path)]
    for key, name in config.users_code().items():
        command += ["--set", f"{key}={name}"]
    if arguments.data_dir:
        command += ["--data-dir", str(arguments.data_dir)]
    return f"go on with: {shlex.join(command)}"


def find_lr(arguments: Arguments) -> int:
    config = _read_config(arguments)
    runtime.prepare(config.runtime.threads)
    from mnist_trainer import experiment
    from mnist_trainer.lr_finder import sweep_curve
    from mnist_trainer.progress import SweepBar

    sweep_arguments = {name: getattr(arguments, name) for name in ("start_lr", "end_lr", "iterations")}
    try:
        sweep_curve(**sweep_arguments)
    except FieldError as error:
        raise RequestError(f"--{error.field.replace('_', '-')}: {error.sentence.removeprefix('= ')}") from error
    prepared = experiment.prepare(config, arguments.data_dir)
    folder = _make_run_folder(arguments, "find-lr")
    bar = None if arguments.quiet else SweepBar(arguments.iterations)
    try:
        sweep = experiment.search_learning_rate(prepared, folder, arguments.command_line, bar, **sweep_arguments)
    except KeyboardInterrupt:
        say(f"interrupted; what was done until now is in {folder.path}")
        return INTERRUPTED
    except RunError as error:
        raise RunError(f"{error}; what was done until now is in {folder.path}") from error
    finally:
        if bar:
            bar.close()
    print(f"Stopped after {len(sweep.rows)} of {arguments.iterations} iterations: {sweep.stopped_because}")
    for name, suggested in (("Steepest fall", sweep.steepest), ("Tenth of the minimum", sweep.tenth_of_minimum)):
        if suggested is not None:
            print(f"{name}: learning rate {suggested:.3g}")
    if sweep.suggestion is None:
        raise RunError(f"no learning rate can be suggested: {sweep.why}; the sweep is in {folder.path}")
    print(f"Suggested learning rate {sweep.suggestion:.3g}: {sweep.why}")
    print(f"Folder {folder.path}")
    return DONE


def evaluate(arguments: Arguments) -> int:
    folder = RunFolder.open(arguments.run_dir)
    config = load_recorded_config(folder / CONFIG, _overrides(arguments))
    runtime.prepare(config.runtime.threads)
    from mnist_trainer.evaluation import evaluate_run

    scores = evaluate_run(folder, config, arguments.data_dir)
    print(f"Test accuracy {scores.accuracy:.2%} ({scores.correct} of {scores.total}), test loss {scores.loss:.6f}")
    return DONE


def schedules_list(arguments: Arguments) -> int:
    width = max(len(cls.__name__) for cls in CURVES)
    for family, curves in FAMILIES.items():
        print(f"{family[0].upper()}{family[1:]}")
        for cls in curves:
            first_line = (cls.__doc__ or "").splitlines()[0].replace("`", "")
            print(f"  {cls.__name__:{width}}  {first_line}")
    return DONE


def schedules_show(arguments: Arguments) -> int:
    iterations = _parse_iterations(arguments.iterations)
    shown = _named_schedules(arguments.schedule)[0]
    try:
        columns = [_asked(schedule, iterations) for schedule in shown.values()]
    except ScheduleError as error:
        raise RequestError(str(error)) from error
    for schedule in shown.values():
        print(schedule)
    print(",".join(["iteration", *shown]))
    for number, iteration in enumerate(iterations):
        print(",".join([str(iteration), *(repr(column[number]) for column in columns)]))
    return DONE


def _asked(schedule: AnySchedule, iterations: Sequence[int]) -> list[float]:
    # A user's schedule may have state: it is asked in order, once, as in a training.
    asked = range(1, max(iterations) + 1) if schedule.asked_in_order else iterations
    rates = {iteration: schedule(iteration) for iteration in asked}
    return [rates[iteration] if iteration in rates else schedule(iteration) for iteration in iterations]


def schedules_plot(arguments: Arguments) -> int:
    panels = {}
    problems: list[str] = []
    all_names = [cls.__name__ for cls in CURVES]
    for name in dict.fromkeys(each for given in arguments.schedules for each in (all_names if given == "all" else [given])):
        try:
            shown, iterations = _named_schedules(name)
            for column, schedule in shown.items():
                panels[name if column == "learning_rate" else f"{name} [{column}]"] = schedule, iterations
        except RequestError as error:
            problems += error.problems
    if problems:
        raise RequestError(*problems)
    from mnist_trainer import plots

    output = arguments.output
    if output.suffix.lstrip(".").lower() not in plots.FORMATS:
        raise RequestError(f"--output {output}: the name must end in .{', .'.join(plots.FORMATS)}")
    try:
        plots.save_figure(plots.plot_schedules(panels), output)
    except ScheduleError as error:
        raise RequestError(str(error)) from error
    except OSError as error:
        raise RequestError(f"--output {output}: cannot be written ({error.strerror})") from error
    print(output)
    return DONE


def data_verify(arguments: Arguments) -> int:
    from mnist_trainer.mnist_files import FILES, files_problems, find_data_dir

    folder = find_data_dir(arguments.data_dir)
    if problems := files_problems(folder):
        raise RequestError(*problems)
    for file in FILES:
        print(f"{folder / file.name}: genuine, SHA-256 {file.sha256}")
    return DONE


def data_fetch(arguments: Arguments) -> int:
    from tqdm import tqdm

    from mnist_trainer.mnist_files import FILES, MIRRORS, fetch_file, file_problem, find_data_dir

    for mirror in arguments.mirror or ():
        if not mirror.startswith(("https://", "http://", "file://")):
            raise RequestError(f"--mirror {mirror}: write it as https://…, http://… or file://…")
    folder = find_data_dir(arguments.data_dir)
    missing = [file for file in FILES if file_problem(folder, file)]
    total = sum(file.size_bytes for file in missing)
    with tqdm(desc="MNIST", total=total, unit="B", unit_scale=True, disable=True if arguments.quiet else None) as bar:
        for file in missing:
            fetch_file(folder, file, tuple(arguments.mirror or MIRRORS), bar.update)
    for file in FILES:
        print(f"{folder / file.name}: {'fetched' if file in missing else 'was there'}, genuine")
    return DONE


def doctor(arguments: Arguments) -> int:
    from mnist_trainer.doctor import examine

    problems = []
    for finding in examine(_threads(arguments), arguments.data_dir):
        print(f"{finding.subject:32}{finding.state}", flush=True)
        if finding.problem:
            problems.append(finding.problem)
    for problem in problems:
        print(f"problem: {problem}")
    print(f"Problems found: {len(problems)}." if problems else "All is well.")
    return FAILED if problems else DONE


def benchmark(arguments: Arguments) -> int:
    config = _read_config(arguments)
    from tqdm import tqdm

    from mnist_trainer.benchmark import report, session

    asked = {name: getattr(arguments, name) for name in ("what", "contenders", "repetitions", "peer_python", "data_dir")}
    prepared = session.prepare(config, **asked)
    for sentence in prepared.left_out:
        say(f"left out: {sentence}")
    was_there = False
    with suppress(OSError):  # a name that is too long, which the folder's making tells
        was_there = arguments.output is not None and arguments.output.is_dir()
    folder = _make_run_folder(arguments, "benchmark")
    try:
        with tqdm(desc="Turns", total=prepared.turns, leave=False, disable=True if arguments.quiet else None) as bar:
            lines = session.run(prepared, folder, arguments.command_line, bar.update)
    except (KeyboardInterrupt, RunError) as error:
        if not (folder / report.RESULT).is_file():
            raise
        kept = f"what was done until now is in {folder.path}"
        if isinstance(error, RunError):
            raise RunError(f"{error}; {kept}") from error
        say(f"interrupted; {kept}")
        return INTERRUPTED
    finally:
        if not was_there:
            with suppress(OSError):  # what is in it stays
                folder.path.rmdir()
    print("\n".join([*lines, f"Folder {folder.path}"]))
    return DONE


COMMANDS: Mapping[str, Callable[[Arguments], int]] = {
    "train": train,
    "find-lr": find_lr,
    "evaluate": evaluate,
    "schedules list": schedules_list,
    "schedules show": schedules_show,
    "schedules plot": schedules_plot,
    "data verify": data_verify,
    "data fetch": data_fetch,
    "benchmark": benchmark,
    "doctor": doctor,
}
"""As a user types it → what it does; returns the exit code."""


# --- from arguments to what the commands need


def _read_config(arguments: Arguments) -> RunConfig:
    problems: list[str] = arguments.problems
    overrides = _overrides(arguments)
    for assignment in arguments.set:
        try:
            overrides.append(Override.from_assignment(assignment))
        except RequestError as error:
            problems += error.problems
    try:
        untrusted = _untrusted_code(arguments.config, overrides) if getattr(arguments, "resume", None) else []
        problems += untrusted
        read = load_recorded_config if untrusted else load_config
        config = read(arguments.config or DEFAULT_CONFIG, overrides)
    except RequestError as error:
        problems += error.problems
    if problems:
        raise RequestError(*problems)
    return config


def _untrusted_code(path: str | Path, overrides: Sequence[Override]) -> list[str]:
    """A sentence for each schedule of a run folder, perhaps a stranger's, that is code and not named on this command line."""
    users_code = load_recorded_config(path, overrides).users_code()
    return [
        f"{path}: {key} would run the code {name!r}, which this folder names and you have not; "
        f"if you trust it, say so with --set {shlex.quote(f'{key}={name}')}"
        for key, name in users_code.items()
        if not any(override.sets(key) for override in overrides)
    ]


def _overrides(arguments: Arguments) -> list[Override]:
    texts = {key: getattr(arguments, key.partition(".")[2]) for key in arguments.config_keys}
    return [Override(flag_of(key), key, text) for key, text in texts.items() if text is not None]


def _threads(arguments: Arguments) -> Any:
    return next((check_value(each) for each in _overrides(arguments)), "auto")


def _folder_to_resume(arguments: Arguments) -> RunFolder:
    for flag in ("--config", "--output"):
        if getattr(arguments, flag.removeprefix("--")) is not None:
            raise RequestError(
                f"--resume {arguments.resume}: goes on with the run's own configuration, there; leave {flag} out"
            )
    folder = RunFolder.open(arguments.resume)
    folder.lock()
    arguments.config = folder / CONFIG
    return folder


def _make_run_folder(arguments: Arguments, what: str) -> RunFolder:
    if arguments.output:
        return RunFolder.create(arguments.output)
    return RunFolder.create_below(RUNS_FOLDER, f"{Path(arguments.config or DEFAULT_CONFIG).stem}_{what}")


def _named_schedules(name: str) -> tuple[dict[str, AnySchedule], int]:
    """Column → schedule: a curve's example with the tutorial's 1,500 iterations, or those of a configuration with its run's."""
    if not _is_file_name(name):
        try:
            cls = find_curve(name)
            if name in bundled_configs():
                say(f"{name} is {cls.__name__} with example values; the configuration is configs/{name}.toml")
            return {"learning_rate": cls(**cls.example)}, _EXAMPLE_ITERATIONS
        except ValueError as error:
            if name not in bundled_configs():
                raise RequestError(f"{error}; a configuration is given by its file, configs/NAME.toml") from error
    config = load_config(name)
    return {"learning_rate": config.build_schedule(), **config.build_hyperparameters()}, config.run_length.total_iterations


def _is_file_name(name: str) -> bool:
    return "/" in name or name.endswith(".toml")


def _parse_iterations(text: str) -> list[int]:
    numbers = [part.strip() for part in text.split(",")]
    wrong = [part for part in numbers if not (part.isascii() and part.isdigit() and len(part) <= 18)]
    if wrong:
        raise RequestError(f"--iterations {text}: {wrong[0]!r} is not a whole number ≥ 0")
    return [int(part) for part in numbers]
