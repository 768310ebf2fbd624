"""The command line: the only file that defines flags.

Turns arguments into calls, results into lines on stdout, and errors into sentences on stderr with an exit code. Whatever
takes time to load is imported by the command that needs it, so that help and schedules answer at once.
"""

import argparse
import difflib
import errno
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from mnist_trainer import runtime
from mnist_trainer.config import (
    DEFAULT_CONFIG,
    Override,
    RunConfig,
    bundled_configs,
    check_value,
    describe,
    load_config,
    load_recorded_config,
)
from mnist_trainer.errors import Interrupted, RequestError, RunError
from mnist_trainer.run_folder import CONFIG, RunFolder
from mnist_trainer.schedules import CURVES, AnySchedule, ScheduleError
from mnist_trainer.schedules.catalogue import FAMILIES, find_curve
from mnist_trainer.schedules.fields import FieldError

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

RUNS_FOLDER = Path("runs")

_EXAMPLE_ITERATIONS = 1500  # as far as the tutorial plots its schedules

# Flags that set a key of the configuration, with what stands for their value in the help.
_CONFIG_FLAGS = {
    "runtime.device": "D",
    "training.scheduler_mode": "optimizer|manual",
    "training.epochs": "N",
    "training.batch_size": "N",
    "training.learning_rate": "X",
    "training.seed": "N",
    "runtime.threads": "N",
    "data.train_images": "N",
    "data.validation_images": "N",
    "data.test_images": "N",
}

# Those of them that a search for a learning rate reads.
_SEARCH_FLAGS = ("runtime.device", "training.batch_size", "training.seed", "runtime.threads", "data.train_images")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. No exception leaves it for anything that a user can cause."""
    given = list(sys.argv[1:] if argv is None else argv)
    _make_streams_writable()
    try:
        try:
            code = _run_command(given)
        except SystemExit:  # argparse leaves so after --help
            sys.stdout.flush()
            raise
        except BaseException:
            with suppress(OSError):  # what went wrong before is what is to be told
                sys.stdout.flush()
            raise
        sys.stdout.flush()  # here, where a reader that has left or a full disk can still be answered
        return code
    except RequestError as error:
        return _say_errors(error.problems, WRONG_REQUEST)
    except RunError as error:
        return _say_errors([str(error)], FAILED)
    except KeyboardInterrupt:
        return _say_errors(["interrupted"], INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left, as `head` does.
        _discard_stdout()
        return FAILED
    except ImportError as error:
        return _say_errors(runtime.installation_problems() or [str(error)], WRONG_REQUEST)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _discard_stdout()  # which may be what is full
        return _say_errors([f"{error.filename}: {error.strerror}" if error.filename else str(error)], FAILED)


def _run_command(given: list[str]) -> int:
    arguments, unknown = _build_parser().parse_known_args(given)
    arguments.command_line = ["mnist-trainer", *given]
    arguments.problems = _unknown_problems(unknown, arguments.parser)
    if arguments.problems and arguments.command not in (_train, _find_lr):  # which say them with what else is wrong
        raise RequestError(*arguments.problems)
    return int(arguments.command(arguments))


def _discard_stdout() -> None:
    # Python would complain once more when it closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _make_streams_writable() -> None:
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - None when started with `>&-`
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without our signs shows their codes


def _say(sentence: str) -> None:
    # A line each, also where a name or a user's exception has several.
    print(f"mnist-trainer: {' '.join(sentence.splitlines())}", file=sys.stderr)


def _say_errors(problems: Sequence[str], code: int) -> int:
    for problem in problems:
        _say(problem)
    return code


# --- commands


def _train(arguments: argparse.Namespace) -> int:
    folder = _folder_to_resume(arguments) if arguments.resume else None
    config = _read_config(arguments)
    runtime.prepare(config.runtime.threads)
    from mnist_trainer import experiment
    from mnist_trainer.checkpoint import newest_whole
    from mnist_trainer.interruption import stop_wish
    from mnist_trainer.progress import ProgressBar, TutorialLines, drops_line

    checkpoint = newest_whole(folder, _say) if folder and not folder.is_finished else None
    if folder:
        experiment.refuse_changes(folder, config, checkpoint)
        if folder.is_finished:
            print(f"{folder.path}: the run is finished; there is nothing to go on with")
            return DONE
    prepared = experiment.prepare(config, arguments.data_dir)
    if folder:
        where = f"going on after iteration {checkpoint.iteration}" if checkpoint else "it has no checkpoint, and begins again"
        _say(f"{folder.path}: {where}")
        for sentence in experiment.what_is_new(prepared, folder):
            _say(f"{folder.path}: {sentence}")
        start = partial(experiment.resume, prepared, folder, checkpoint)
    else:
        folder = _make_run_folder(arguments, config.training.scheduler_mode)
        start = partial(experiment.run, prepared, folder)
    if not arguments.quiet:
        device, threads = prepared.config.runtime.device, prepared.config.runtime.threads
        print(f"Device {device}, OpenMP threads {threads}, run folder {folder.path}", file=sys.stderr)
    if line := drops_line(prepared.schedule, config.run_length.total_iterations):
        print(line, flush=True)
    bars = [] if arguments.quiet else [ProgressBar(config.training.epochs)]
    try:
        with stop_wish() as stop_requested:
            summary = start(arguments.command_line, [TutorialLines(), *bars], stop_requested)
    except (Interrupted, KeyboardInterrupt) as interruption:
        return _say_errors([f"{str(interruption) or 'interrupted'}; {_how_to_go_on(folder, config, arguments)}"], INTERRUPTED)
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


def _how_to_go_on(folder: RunFolder, config: RunConfig, arguments: argparse.Namespace) -> str:
    if not (folder / CONFIG).is_file():  # it had not begun, or the folder is gone
        return "start it again"
    command = ["mnist-trainer", "train", "--resume", str(folder.path)]
    for key, name in config.users_code().items():
        command += ["--set", f"{key}={name}"]
    if arguments.data_dir:
        command += ["--data-dir", str(arguments.data_dir)]
    return f"go on with: {shlex.join(command)}"


def _find_lr(arguments: argparse.Namespace) -> int:
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
        return _say_errors([f"interrupted; what was done until now is in {folder.path}"], INTERRUPTED)
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


def _evaluate(arguments: argparse.Namespace) -> int:
    folder = RunFolder.open(arguments.run_dir)
    config = load_recorded_config(folder / CONFIG, _overrides(arguments, ["runtime.device", "runtime.threads"]))
    runtime.prepare(config.runtime.threads)
    from mnist_trainer.evaluation import evaluate_run

    scores = evaluate_run(folder, config, arguments.data_dir)
    print(f"Test accuracy {scores.accuracy:.2%} ({scores.correct} of {scores.total}), test loss {scores.loss:.6f}")
    return DONE


def _schedules_list(arguments: argparse.Namespace) -> int:
    width = max(len(cls.__name__) for cls in CURVES)
    for family, curves in FAMILIES.items():
        print(f"{family[0].upper()}{family[1:]}")
        for cls in curves:
            first_line = (cls.__doc__ or "").splitlines()[0].replace("`", "")
            print(f"  {cls.__name__:{width}}  {first_line}")
    return DONE


def _schedules_show(arguments: argparse.Namespace) -> int:
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


def _schedules_plot(arguments: argparse.Namespace) -> int:
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


def _data_verify(arguments: argparse.Namespace) -> int:
    from mnist_trainer.mnist_files import FILES, files_problems, find_data_dir

    folder = find_data_dir(arguments.data_dir)
    if problems := files_problems(folder):
        raise RequestError(*problems)
    for file in FILES:
        print(f"{folder / file.name}: genuine, SHA-256 {file.sha256}")
    return DONE


def _data_fetch(arguments: argparse.Namespace) -> int:
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


def _doctor(arguments: argparse.Namespace) -> int:
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


# --- from arguments to what the commands need


def _read_config(arguments: argparse.Namespace) -> RunConfig:
    problems: list[str] = arguments.problems
    overrides = _overrides(arguments, [key for key in _CONFIG_FLAGS if hasattr(arguments, key.partition(".")[2])])
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


def _overrides(arguments: argparse.Namespace, keys: Iterable[str]) -> list[Override]:
    texts = {key: getattr(arguments, key.partition(".")[2]) for key in keys}
    return [Override(_flag(key), key, text) for key, text in texts.items() if text is not None]


def _threads(arguments: argparse.Namespace) -> Any:
    return next((check_value(each) for each in _overrides(arguments, ["runtime.threads"])), "auto")


def _folder_to_resume(arguments: argparse.Namespace) -> RunFolder:
    for flag in ("--config", "--output"):
        if getattr(arguments, flag.removeprefix("--")) is not None:
            raise RequestError(
                f"--resume {arguments.resume}: goes on with the run's own configuration, there; leave {flag} out"
            )
    folder = RunFolder.open(arguments.resume)
    folder.lock()
    arguments.config = folder / CONFIG
    return folder


def _make_run_folder(arguments: argparse.Namespace, what: str) -> RunFolder:
    if arguments.output:
        return RunFolder.create(arguments.output)
    return RunFolder.create_below(RUNS_FOLDER, f"{Path(arguments.config or DEFAULT_CONFIG).stem}_{what}")


def _named_schedules(name: str) -> tuple[dict[str, AnySchedule], int]:
    """Column → schedule: a curve's example with the tutorial's 1,500 iterations, or those of a configuration with its run's."""
    if not _is_file_name(name):
        try:
            cls = find_curve(name)
            if name in bundled_configs():
                meant = f"mnist-trainer: {name} is {cls.__name__} with example values; the configuration is configs/{name}.toml"
                print(meant, file=sys.stderr)
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


def _unknown_problems(unknown: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    flags = [flag for action in parser._actions for flag in action.option_strings if flag != "--help"]
    problems = []
    after_flag = False  # what follows an unknown flag is its value, and no mistake of its own
    for argument in unknown:
        flag, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            near = difflib.get_close_matches(flag, flags, n=1)
            hint = f"did you mean {near[0]}?" if near else f"see {parser.prog} --help"
            if flag in flags:
                problems.append(f"{flag}: write it after the command, {parser.prog} {flag}")
            else:
                problems.append(f"{flag}: there is no such flag; {hint}")
        elif not after_flag:
            problems.append(f"{argument}: {parser.prog} takes no such argument")
        after_flag = argument.startswith("-") and not equals
    return problems


def _flag(key: str) -> str:
    return "--" + key.partition(".")[2].replace("_", "-")


# --- flags


class _Parser(argparse.ArgumentParser):
    """Raises what argparse finds wrong, so that it is said like everything else."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, **arguments)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        flag = args[0] if args else ""
        if self._subparsers and flag.startswith("-") and flag.partition("=")[0] not in self._option_string_actions:
            # What follows is its value, and would be taken for the command.
            raise RequestError(f"{flag}: write it after the command, {self.prog} COMMAND {flag} …")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            near = difflib.get_close_matches(str(value), list(action.choices), n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(action.choices)}"
            raise RequestError(f"{self.prog} has no command {value!r}; {hint}")

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mnist-trainer",
        description="Trains MXNet's tutorial network on MNIST, and shows how learning-rate schedules behave.",
        epilog="Exit codes: 0 done; 1 failed while running; 2 the request was wrong; 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"mnist-trainer {runtime.package_version('mnist-trainer')}")
    parser.set_defaults(command=_say_help, parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    train = _add(commands, "train", _train, "train the network, by default as the tutorial does", data_dir=True)
    _add_run_flags(train, _CONFIG_FLAGS)
    train.add_argument(
        "--resume",
        metavar="RUN_DIR",
        type=Path,
        help="go on with a run that was stopped, as if it had not been; --epochs may grow, --device be another of its kind, "
        "and checkpoint.every_iterations, every_minutes and keep be set; nothing else may change",
    )
    train.add_argument("--quiet", action="store_true", help="no progress bar and no messages; results are still printed")

    find_lr = _add(commands, "find-lr", _find_lr, "search for a good learning rate by the range test", data_dir=True)
    _add_run_flags(find_lr, _SEARCH_FLAGS)
    find_lr.add_argument("--start-lr", metavar="X", type=float, default=1e-6, help="the lowest rate (default: 1e-6)")
    find_lr.add_argument("--end-lr", metavar="X", type=float, default=10.0, help="the highest rate (default: 10)")
    find_lr.add_argument(
        "--iterations", metavar="N", type=int, default=400, help="rates from the one to the other (default: 400)"
    )
    find_lr.add_argument("--quiet", action="store_true", help="no progress bar")

    evaluate = _add(commands, "evaluate", _evaluate, "score a finished run on its test images", data_dir=True)
    evaluate.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="the run folder")
    for key in ("runtime.device", "runtime.threads"):
        evaluate.add_argument(_flag(key), metavar=_CONFIG_FLAGS[key], help=f"{describe(key)} (default: as in the run)")

    schedules = _add_group(commands, "schedules", "list, show or plot learning-rate schedules")
    _add(schedules, "list", _schedules_list, "all schedules, with their equations")
    show = _add(schedules, "show", _schedules_show, "the learning rate at some iterations")
    show.add_argument("schedule", metavar="NAME_OR_CONFIG", help="a schedule (its example is shown) or a configuration")
    show.add_argument("--iterations", metavar="A,B,…", required=True, help="iterations, counted from 1")
    plot = _add(schedules, "plot", _schedules_plot, "a figure with a panel for each schedule")
    plot.add_argument(
        "schedules",
        metavar="NAME_OR_CONFIG",
        nargs="+",
        help="schedules (their examples), all for every one of them, or configurations (the whole run)",
    )
    plot.add_argument("--output", metavar="FILE", type=Path, required=True, help="the figure; the ending says in which format")

    data = _add_group(commands, "data", "check or fetch the MNIST files")
    _add(data, "verify", _data_verify, "check that the four files are the genuine ones", data_dir=True)
    fetch = _add(data, "fetch", _data_fetch, "download what is missing or altered", data_dir=True)
    fetch.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        help="fetch from this address instead of the known ones; may be repeated",
    )
    fetch.add_argument("--quiet", action="store_true", help="no progress bar")

    doctor = _add(
        commands,
        "doctor",
        _doctor,
        "say what is installed, which devices work, and what to do about problems",
        data_dir=True,
    )
    doctor.add_argument("--threads", metavar="N", help=describe("runtime.threads"))
    return parser


def _add(
    commands: Any, name: str, command: Callable[..., int], sentence: str, data_dir: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=sentence, description=f"{sentence[0].upper()}{sentence[1:]}."
    )
    parser.set_defaults(command=command, parser=parser)
    if data_dir:
        parser.add_argument(
            "--data-dir",
            metavar="DIR",
            type=Path,
            help="folder of the four MNIST files (default: MNIST_TRAINER_DATA, or the bundled ones)",
        )
    return parser


def _add_run_flags(parser: argparse.ArgumentParser, keys: Iterable[str]) -> None:
    """The flags that say what is trained, by these keys of the configuration, and where the results go."""
    first, *_, last = (_flag(key) for key in keys)
    parser.epilog = f"The flags from {first} to {last} change single keys of the configuration, as --set does."
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the experiment: a TOML file, or the name of a bundled one (default: tutorial)",
    )
    for key in keys:
        parser.add_argument(_flag(key), metavar=_CONFIG_FLAGS[key], help=describe(key))
    parser.add_argument(
        "--set",
        metavar="section.key=value",
        action="append",
        default=[],
        help="any other key of the configuration, as in the file; may be repeated",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="the run folder (default: a new one below runs/)")


def _add_group(commands: Any, name: str, sentence: str) -> Any:
    parser = _add(commands, name, _say_help, sentence)
    return parser.add_subparsers(title="commands", metavar="COMMAND")


def _say_help(arguments: argparse.Namespace) -> int:
    arguments.parser.print_help()
    return DONE
