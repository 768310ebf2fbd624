"""The command line, and the only file that defines flags.

Turns arguments into a call of a command, and errors into messages on stderr and an exit code. The commands are in `commands`,
which is loaded when one of them runs. The flags of a command are added only when that command is given, to keep
`mnist-trainer --help` fast.
"""

import argparse
import errno
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from mnist_trainer.console import print_lines, say, shortened, shown
from mnist_trainer.errors import DONE, FAILED, INTERRUPTED, WRONG_REQUEST, Interrupted, RequestError, RunError, collected

if TYPE_CHECKING:
    from pathlib import Path

    from mnist_trainer.fields import Kind

# Keys of the configuration that have a flag, with the placeholder for the value in the help.
CONFIG_FLAGS = {
    "runtime.device": "D",
    "training.scheduler_mode": "optimizer|manual",
    "training.epochs": "N",
    "training.batch_size": "N",
    "training.learning_rate": "X",
    "schedule": "NAME",
    "optimizer": "NAME",
    "optimizer.momentum": "X",
    "training.seed": "N",
    "runtime.threads": "N",
    "data.train_images": "N",
    "data.validation_images": "N",
    "data.test_images": "N",
    "model.initial_parameters": "FILE",
    "runtime.log": "none|tensorboard",
}

# Other spellings of flags.
_ALIASES = {"--learning-rate": ("--lr",)}

# Flags of `compare` that take several values, by the flag for one.
_SEVERAL = {"--seed": "--seeds", "--scheduler-mode": "--modes"}

# Keys that a search for a learning rate reads. It checks the schedule, so that the flags of the run to come are correct.
_SEARCH_FLAGS = (
    "runtime.device",
    "training.batch_size",
    "schedule",
    "optimizer",
    "optimizer.momentum",
    "training.seed",
    "runtime.threads",
    "data.train_images",
    "model.initial_parameters",
)

_MAX_PROBLEMS = 50  # that are printed. A file can have a hundred thousand

# Fields of the search that have a flag.
_SWEEP_FLAGS = {"start_lr": "X", "end_lr": "X", "iterations": "N"}

# Keys that a benchmark reads: those that apply to every implementation.
_BENCHMARK_FLAGS = ("runtime.threads", "data.train_images")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    An error that a user can cause is reported on stderr, not raised. In distributed training, this function ends the process
    instead of returning, regardless of the state of the other processes.

    Args:
        argv: The arguments; None for the command line of the process.

    Returns:
        The exit code.
    """
    _make_streams_writable()
    try:
        try:
            code = DONE
            arguments = _parse(sys.argv[1:] if argv is None else argv)
            if arguments.command:
                from mnist_trainer.commands import find_command
                from mnist_trainer.folder import unlocking
                from mnist_trainer.runtime import fork_processes
                from mnist_trainer.runtime.signals import interrupted_by_signals

                fork_processes()
                with interrupted_by_signals(), unlocking():
                    code = find_command(arguments.command)(arguments)
        except SystemExit:  # argparse raises this after --help
            sys.stdout.flush()
            raise
        except BaseException:
            with suppress(OSError):  # report the first error only
                sys.stdout.flush()
            raise
        sys.stdout.flush()  # here a closed pipe or a full disk can still be reported
    except Exception as error:
        code = _report(error)
    except KeyboardInterrupt as interruption:
        code = _say_errors([str(interruption) or "interrupted"], INTERRUPTED)
    if parameter_server := sys.modules.get("mnist_trainer.distributed.parameter_server"):
        parameter_server.end_process(code)
    return code


def _report(error: Exception) -> int:
    """Print an error that a user can cause and return the exit code; raise any other."""
    if isinstance(error, RequestError):
        return _say_errors(error.problems, WRONG_REQUEST)
    if isinstance(error, RunError):
        return _say_errors([str(error)], FAILED)
    if isinstance(error, Interrupted):
        return _say_errors([str(error)] if str(error) else [], INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        # The reader of the output, such as `head`, closed the pipe.
        _discard_stdout()
        return FAILED
    if isinstance(error, ImportError):
        from mnist_trainer import runtime

        return _say_errors(runtime.installation_problems() or [str(error)], WRONG_REQUEST)
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            _discard_stdout()  # it may be on the full disk
        return _say_errors([f"{error.filename}: {error.strerror}" if error.filename else str(error)], FAILED)
    if isinstance(error, MemoryError):
        from mnist_trainer.memory import NOT_ENOUGH_MEMORY

        return _say_errors([NOT_ENOUGH_MEMORY], FAILED)
    loaded = sys.modules.get("mnist_trainer.runtime")  # without it, the error is not MXNet's
    if loaded and (sentence := loaded.explain_failure(error)):
        return _say_errors([sentence], FAILED)
    raise error


def _parse(given: Sequence[str]) -> Any:
    """Parse the arguments of a command.

    Raises:
        RequestError: Arguments are wrong, and the command does not report them itself, together with the configuration.
    """
    arguments, unknown = _build_parser().parse_known_args(given)
    arguments.command_line = ["mnist-trainer", *given]
    if "configs" in arguments and not any(word.startswith("-") for word in unknown):
        arguments.configs, unknown = [*arguments.configs, *unknown], []  # argparse only accepts those before the first flag
    arguments.problems = _read_values(arguments, unknown)
    # `compare` would mistake the value of an unknown flag for a configuration.
    if arguments.problems and (not arguments.reads_config or (unknown and "configs" in arguments)):
        raise RequestError(*arguments.problems)
    if arguments.command is None:
        arguments.parser.print_help()
    if arguments.command == "launch":
        arguments.rest = arguments.rest[arguments.rest[:1] == ["--"] :]  # the -- is optional
        arguments.launched = None
        with collected(arguments.problems):
            arguments.launched = _parse_launched(arguments.rest)
    return arguments


def _parse_launched(rest: Sequence[str]) -> Any:
    """Parse the arguments of `train`, the command that `launch` starts."""
    if not rest:
        raise RequestError(
            "the command to launch is missing; write it after --, for example: mnist-trainer launch --workers 2 -- train"
        )
    if rest[0] != "train":
        raise RequestError(f"launch starts only train, not {rest[0]!r}; write mnist-trainer launch --workers 2 -- train …")
    launched, unknown = _build_parser().parse_known_args(rest)
    if launched.command != "train":
        raise RequestError(
            f"{launched.command.removeprefix('train ')}: not with launch; write mnist-trainer {launched.command}"
        )
    launched.problems = _read_values(launched, unknown)
    return launched


def _read_values(arguments: Any, unknown: Sequence[str]) -> list[str]:
    """Convert the texts of flags that have a kind to values.

    Args:
        arguments: The parsed arguments, which are changed in place.
        unknown: The arguments that argparse did not recognise.

    Returns:
        The problems of the values and of the unknown arguments.
    """
    problems = _unknown_problems(unknown, arguments.parser)
    for name, (flag, kind, is_list) in arguments.parser.kinds.items():
        text = getattr(arguments, name)
        if not isinstance(text, str):
            continue  # a default value
        from mnist_trainer.fields import FieldError

        values = []
        for part in text.split(",") if is_list else [text]:
            try:
                values.append(kind.check(name, kind.read(part.strip())))
            except FieldError as error:
                member = f"{shown(part.strip())} " if is_list else ""
                hint = "; write a range as 1,2,3" if is_list and re.fullmatch(r"\s*\d+\s*-\s*\d+\s*", part) else ""
                problems.append(f"{flag} {shortened(text)}: {member}{error.sentence}{hint}")
        setattr(arguments, name, values if is_list else next(iter(values), None))
    return problems


def _discard_stdout() -> None:
    # Otherwise, Python reports the error again when it closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _make_streams_writable() -> None:
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 - None when started with `>&-`
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # show characters that the terminal lacks as codes


def _say_errors(problems: Sequence[str], code: int) -> int:
    for problem in problems[:_MAX_PROBLEMS]:
        say(problem)
    if len(problems) > _MAX_PROBLEMS:
        say(f"… and {len(problems) - _MAX_PROBLEMS:,} more problems")
    return code


def _unknown_problems(unknown: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    flags = [flag for action in parser._actions for flag in action.option_strings if flag != "--help"]
    problems = []
    after_flag = False  # the argument after an unknown flag is probably its value, not another mistake
    for argument in unknown:
        flag, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            if flag in flags:
                problems.append(f"{flag}: write it after the command: {parser.prog} {flag}")
            else:
                hint = _did_you_mean(flag, flags, f"see {parser.prog} --help")
                problems.append(f"{flag}: there is no such flag; {hint}")
        elif not after_flag:
            problems.append(f"{argument}: {parser.prog} does not take this argument")
        after_flag = argument.startswith("-") and not equals
    return problems


def _did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    from mnist_trainer.fields import did_you_mean  # slow to load, and only needed after a mistake

    return did_you_mean(name, known, otherwise)


# --- flags


def _path(text: str) -> "Path":
    from pathlib import Path  # its import takes a tenth of the time of `mnist-trainer --help`

    return Path(text)


class _Parser(argparse.ArgumentParser):
    """A parser that raises argparse's errors as RequestError.

    Args:
        add_flags: Adds the flags. It is called with the parser when the parser is first used, because only the flags of one
            command are needed, and `config`, which has the help of some, is slow to load.
        arguments: The arguments of ArgumentParser.

    Attributes:
        kinds: Name of an argument → its flag, the kind of its value, and True if it takes a list of values.
    """

    def __init__(self, add_flags: Callable[["_Parser"], object] | None = None, **arguments: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter  # keeps the lines of examples
        super().__init__(allow_abbrev=False, formatter_class=formatter, **arguments)
        self._add_flags = add_flags
        self.kinds: dict[str, tuple[str, Kind, bool]] = {}

    def add_value(self, flag: str, kind: "Kind", *, is_list: bool = False, **arguments: Any) -> None:
        """Add a flag whose value has a kind.

        The value is checked after all arguments are parsed, so that all problems are reported together.

        Args:
            flag: The flag.
            kind: The kind of its value.
            is_list: True for a list of such values, separated by commas.
            arguments: The arguments of `add_argument`.
        """
        self.kinds[self.add_argument(flag, **arguments).dest] = flag, kind, is_list

    def complete(self) -> None:
        """Add the flags, if they have not been added yet."""
        add_flags, self._add_flags = self._add_flags, None
        if add_flags:
            add_flags(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self.complete()
        flag = args[0] if args else ""
        if self._subparsers and flag.startswith("-") and flag.partition("=")[0] not in self._option_string_actions:
            # argparse would take the value of this flag for the command.
            raise RequestError(f"{flag}: write it after the command: {self.prog} COMMAND {flag} …")
        return super().parse_known_args(args, namespace)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")  # from --flag=--; argparse would return an empty list
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = _did_you_mean(str(value), action.choices, f"the commands are {', '.join(action.choices)}")
            raise RequestError(f"{self.prog} has no command {value!r}; {hint}")

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


class _Store(argparse.Action):
    """Stores the value of a flag, and in `spellings` the flag as the user typed it."""

    def __call__(self, _parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values)
        namespace.spellings = {**getattr(namespace, "spellings", {}), self.dest: option_string}


class _SayVersion(argparse.Action):
    """Prints the version, which is only looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from mnist_trainer.runtime import package_version

        print_lines(f"mnist-trainer {package_version('mnist-trainer')}")
        parser.exit()


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="mnist-trainer",
        description="Train MXNet's tutorial network on MNIST, and see how learning-rate schedules behave.",
        epilog="Exit codes: 0 done; 1 failed while running; 2 wrong request; 130 interrupted.",
    )
    parser.add_argument("--version", action=_SayVersion, nargs=0, default=argparse.SUPPRESS, help="show the version and exit")
    commands = _begin_commands(parser)
    _add(commands, "train", "train the network, by default as in the tutorial", _add_train_flags, reads_config=True)
    _add(
        commands,
        "compare",
        "train with several scheduler modes, schedules and seeds, and report the differences",
        _add_compare_flags,
        reads_config=True,
    )
    _add(commands, "launch", "train with several processes on this machine", _add_launch_flags, reads_config=True)
    _add(commands, "find-lr", "search for a good learning rate with the range test", _add_find_lr_flags, reads_config=True)
    _add(commands, "evaluate", "evaluate the model of a run on its test images", _add_evaluate_flags)
    _add(commands, "predict", "recognise the digits in pictures with the model of a run", _add_predict_flags)
    _add(commands, "export", "export the model of a run for use in other programs", _add_export_flags)
    _add(commands, "demo", "serve a web page on which the model of a run recognises drawn digits", _add_demo_flags)
    _add(commands, "runs", "list runs, with their settings, accuracy and state", _add_runs_flags)
    _add(commands, "schedules", "list, find, show or plot learning-rate schedules", _add_schedules_commands)
    _add(commands, "completion", "print a script that completes commands and flags in a shell", _add_completion_flags)
    _add(commands, "data", "check, fetch or import the MNIST files", _add_data_commands)
    _add(
        commands,
        "benchmark",
        "compare the speed of this program with that of other implementations",
        _add_benchmark_flags,
        reads_config=True,
    )
    _add(commands, "doctor", "check the installation and the devices, and suggest fixes", _add_doctor_flags)
    return parser


def _add(
    commands: Any,
    name: str,
    sentence: str,
    add_flags: Callable[[_Parser], object] | None = None,
    *,
    reads_config: bool = False,
) -> None:
    """Add a command.

    Args:
        commands: The group, from `_begin_commands`.
        name: The name of the command.
        sentence: The help of the command.
        add_flags: Adds its flags.
        reads_config: True if the command reports the problems of its flags itself, together with those of the configuration.
    """
    description = f"{sentence[0].upper()}{sentence[1:]}."
    parser = commands.add_parser(name, help=sentence, description=description, add_flags=add_flags)
    parser.set_defaults(command=parser.prog.removeprefix("mnist-trainer "), parser=parser, reads_config=reads_config)


def _begin_commands(parser: _Parser) -> Any:
    """Return the group to which commands are added. Without a command, the group prints its help."""
    parser.set_defaults(command=None, parser=parser, reads_config=False)
    return parser.add_subparsers(title="commands", metavar="COMMAND")


def _add_train_flags(parser: _Parser) -> None:
    _add_data_dir(parser)
    _add_run_flags(parser, CONFIG_FLAGS)
    views = parser.add_mutually_exclusive_group()  # commands of their own, which make no run folder
    views.add_argument(
        "--dry-run",
        dest="command",
        action="store_const",
        const="train --dry-run",
        help="check everything, show the settings, the learning rates and an estimate of the time, and make no run folder",
    )
    views.add_argument(
        "--print-config",
        dest="command",
        action="store_const",
        const="train --print-config",
        help="print the whole configuration as TOML, for --config, and do nothing else",
    )
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        type=_path,
        help="resume a stopped run; the result is the same as without the stop. You may increase --epochs if the "
        "schedule so far stays the same, choose another --device of the same kind, and change checkpoint.*, "
        "runtime.timeout_seconds and --log, but nothing else",
    )
    _add_quiet(parser)
    _add_examples(
        parser,
        "mnist-trainer train --train-images 6400",
        "mnist-trainer train --schedule cosine --lr 0.1 --momentum 0.9",
        "mnist-trainer train --schedule 'Warmup(Cosine(max_update=9000), 300)' --dry-run",
        "mnist-trainer train --config one-cycle --set schedule.max_lr=0.1 --output runs/mine",
        "mnist-trainer train --resume runs/mine",
    )
    _add_bundled_configs(parser)


def _add_launch_flags(parser: _Parser) -> None:
    from mnist_trainer.distributed.cluster import PORTS, PROCESSES

    parser.usage = "mnist-trainer launch [--help] --workers N [--servers M] [--port P] -- train …"
    parser.add_value(
        "--workers", PROCESSES, metavar="N", required=True, help="number of worker processes, which share each batch"
    )
    parser.add_value(
        "--servers",
        PROCESSES,
        metavar="M",
        default=1,
        help="number of server processes, which add up the gradients (default: 1)",
    )
    parser.add_value("--port", PORTS, metavar="P", help="port at which the processes find each other (default: a free port)")
    parser.add_argument("rest", metavar="train …", nargs=argparse.REMAINDER, help="the train command, with its own flags")
    _add_examples(parser, "mnist-trainer launch --workers 2 -- train --epochs 1")


def _add_compare_flags(parser: _Parser) -> None:
    from mnist_trainer.comparison.plan import MUST_BE_EQUAL
    from mnist_trainer.config.schema import SCHEDULER_MODES, SEED
    from mnist_trainer.fields import Choice, Or, Whole

    parser.add_argument(
        "configs",
        metavar="CONFIG_OR_RUN_DIR",
        nargs="*",
        help="configurations to train and compare: TOML files, or names of bundled configurations; each is compared with the "
        "first (default: tutorial). Or folders of finished runs, which are compared as they are, without training",
    )
    parser.add_value(
        "--modes",
        Choice(SCHEDULER_MODES),
        is_list=True,
        metavar="optimizer,manual",
        help="scheduler modes to train each configuration in (default: both for a single configuration; for several, the mode "
        "that each configuration sets)",
    )
    parser.add_value(
        "--seeds",
        SEED,
        is_list=True,
        metavar="A,B,…",
        help="seeds to train each configuration and mode with (default: the seeds in the configurations)",
    )
    parser.add_value(
        "--jobs",
        Or("auto", Whole(1, 999)),
        metavar="N",
        help="number of trainings side by side, with one thread each unless you set --threads (default: auto, as many as the "
        "processors and the memory allow)",
    )
    parser.add_value(
        "--allow",
        Choice(MUST_BE_EQUAL),
        is_list=True,
        default=(),
        metavar="section.key,…",
        help="keys that may differ between the configurations, although they normally must be equal",
    )
    _add_data_dir(parser)
    _add_override_flags(parser, CONFIG_FLAGS)
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=_path,
        help="folder to write, or folder of a comparison to resume or extend (default: a new folder in runs/)",
    )
    _add_quiet(parser)
    _add_examples(
        parser,
        "mnist-trainer compare --train-images 6400",
        "mnist-trainer compare tutorial cosine one-cycle --seeds 1,2,3",
        "mnist-trainer compare tutorial mine.toml --output runs/comparison",
    )
    _add_bundled_configs(parser)


def _add_find_lr_flags(parser: _Parser) -> None:
    from dataclasses import fields

    from mnist_trainer.config.schema import SweepConfig, flag_of

    _add_data_dir(parser)
    _add_run_flags(parser, _SEARCH_FLAGS)
    for spec in fields(SweepConfig):
        if spec.name in _SWEEP_FLAGS:
            kind, sentence = spec.metadata["kind"], spec.metadata["sentence"]
            help_ = f"{sentence} (default: {spec.default:g})"
            parser.add_value(flag_of(spec.name), kind, metavar=_SWEEP_FLAGS[spec.name], default=spec.default, help=help_)
    _add_quiet(parser)
    _add_examples(parser, "mnist-trainer find-lr", "mnist-trainer find-lr --optimizer adam --end-lr 1")


def _add_evaluate_flags(parser: _Parser) -> None:
    _add_data_dir(parser)
    _add_model_flags(parser, "data.test_images")
    _add_examples(parser, "mnist-trainer evaluate runs/mine")


def _add_predict_flags(parser: _Parser) -> None:
    _add_model_flags(parser)
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="*",
        help="PNG, JPEG, BMP or PGM picture, a folder of pictures, or - for standard input",
    )
    parser.add_argument("--show", action="store_true", help="also print the 28×28 image that the network sees")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each picture, with all ten probabilities")
    _add_examples(parser, "mnist-trainer predict runs/mine digit.png --show", "mnist-trainer predict runs/mine digits/ --json")


def _add_export_flags(parser: _Parser) -> None:
    from mnist_trainer.fields import Choice

    _add_data_dir(parser)
    _add_model_flags(parser)
    parser.add_value(
        "--format",
        Choice(("onnx", "mxnet")),
        metavar="onnx|mxnet",
        required=True,
        help="onnx, for batches of any size (needs the extra onnx), or mxnet, for MXNet's symbol and parameters",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=_path,
        help="name of the ONNX file, which must end in .onnx, or the start of the names of MXNet's two files, FILE-symbol.json "
        "and FILE-0000.params (default: model.onnx or model in the run folder)",
    )


def _add_demo_flags(parser: _Parser) -> None:
    from mnist_trainer.fields import Whole

    _add_model_flags(parser)
    parser.add_value(
        "--port",
        Whole(0, 65_535),
        metavar="N",
        default=8000,
        help="port of the loopback address; 0 for any free port (default: 8000)",
    )
    _add_examples(parser, "mnist-trainer demo runs/mine --port 0")


def _add_model_flags(parser: _Parser, *keys: str) -> None:
    """Add arguments for a run and its checkpoint, for its device and threads, and for `keys` of its configuration."""
    from mnist_trainer.fields import Or, Whole

    parser.add_argument("run_dir", metavar="RUN_DIR", type=_path, help="folder of the run")
    parser.add_value(
        "--checkpoint",
        Or("best", Or("last", Whole(1))),
        metavar="best|last|ITERATION",
        default="last",
        help="parameters to use: best, of the epoch with the best validation score; last, of the end of the run; or those of "
        "the checkpoint after this iteration (default: last)",
    )
    _add_config_flags(parser, ("runtime.device", "runtime.threads", *keys), " (default: as in the run)")
    parser.add_argument(
        "--network",
        metavar="module:function",
        help="the run's own network, if it has one; naming it permits its code to run",
    )


def _add_runs_flags(parser: _Parser) -> None:
    from mnist_trainer.commands.runs import COLUMNS
    from mnist_trainer.fields import Choice

    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=_path,
        help="folder that contains runs or comparisons (default: runs)",
    )
    parser.add_value(
        "--sort",
        Choice(COLUMNS),
        metavar="COLUMN",
        default="started",
        help=f"column to sort by: {', '.join(COLUMNS)} (default: started, the newest first)",
    )
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")
    _add_examples(parser, "mnist-trainer runs --sort accuracy", "mnist-trainer runs compared/two --json")


def _add_schedules_commands(parser: _Parser) -> None:
    commands = _begin_commands(parser)
    _add(commands, "list", "list all schedules, with their equations")
    _add(commands, "find", "print the schedule that equals one of another framework", _add_schedules_find_flags)
    _add(commands, "show", "print a schedule as TOML, or its learning rate at chosen iterations", _add_schedules_show_flags)
    _add(commands, "plot", "draw a figure with a panel for each schedule", _add_schedules_plot_flags)
    _add_examples(
        parser,
        "mnist-trainer schedules list",
        "mnist-trainer schedules find StepLR",
        "mnist-trainer schedules show cosine --iterations 1,500,1000",
        "mnist-trainer schedules show 'Warmup(Cosine(max_update=900), 100)' --iterations 1,100,1000",
        "mnist-trainer schedules plot cosine one-cycle configs/tutorial.toml --output schedules.png",
    )


def _add_schedules_find_flags(parser: _Parser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="name of a schedule in another framework, such as StepLR, get_cosine_schedule_with_warmup or "
        "paddle.OneCycleLR; without it, all names are listed",
    )


def _add_schedules_show_flags(parser: _Parser) -> None:
    from mnist_trainer.fields import Whole

    parser.add_argument(
        "schedule",
        metavar="NAME_OR_CONFIG",
        help="schedule (shown with example values), an expression such as 'Cosine(max_update=900)', your own "
        "module:attribute, or a configuration",
    )
    parser.add_value(
        "--iterations",
        Whole(0),
        is_list=True,
        metavar="A,B,…",
        help="iterations to print; at 0, the rate before the first iteration. Without it, the configuration is printed",
    )


def _add_schedules_plot_flags(parser: _Parser) -> None:
    parser.add_argument(
        "schedules",
        metavar="NAME_OR_CONFIG",
        nargs="+",
        help="schedules (drawn with example values), all for every schedule, or configurations (drawn for the whole run)",
    )
    parser.add_argument("--overlay", action="store_true", help="draw all schedules in one panel, with a legend")
    parser.add_argument(
        "--output", metavar="FILE", type=_path, required=True, help="file of the figure; its ending selects the format"
    )


def _add_completion_flags(parser: _Parser) -> None:
    from mnist_trainer.fields import Choice

    parser.add_argument("shell", metavar="SHELL", help="bash, zsh or fish")
    parser.kinds["shell"] = "completion", Choice(("bash", "zsh", "fish")), False
    parser.set_defaults(build_parser=_build_parser)
    _add_examples(
        parser,
        'eval "$(mnist-trainer completion bash)"     # in ~/.bashrc',
        'eval "$(mnist-trainer completion zsh)"      # in ~/.zshrc',
        "mnist-trainer completion fish | source      # in ~/.config/fish/config.fish",
    )


def _add_data_commands(parser: _Parser) -> None:
    commands = _begin_commands(parser)
    _add(commands, "verify", "check that the four files are genuine, or describe your own", _add_data_verify_flags)
    _add(commands, "fetch", "download the missing files", _add_data_fetch_flags)
    _add(commands, "import", "make the four files from MNIST as another program keeps it", _add_data_import_flags)


def _add_data_verify_flags(parser: _Parser) -> None:
    _add_data_dir(parser)
    _add_data_name(parser)
    _add_examples(parser, "mnist-trainer data verify", "mnist-trainer data verify --name fashion-mnist")


def _add_data_name(parser: _Parser) -> None:
    from mnist_trainer.config.schema import DATA_NAME, describe

    parser.add_value("--name", DATA_NAME, metavar="NAME", default="mnist", help=f"{describe('data.name')} (default: mnist)")


def _add_data_fetch_flags(parser: _Parser) -> None:
    _add_data_dir(parser)
    _add_data_name(parser)
    parser.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        help="download from this address instead of the known ones; may be repeated",
    )
    _add_force(parser)
    _add_quiet(parser)


def _add_data_import_flags(parser: _Parser) -> None:
    parser.add_argument(
        "source",
        metavar="FILE_OR_FOLDER",
        type=_path,
        help="IDX files, packed with gzip or not, under any names; the root folder of torchvision; mnist.npz of Keras; or "
        "mnist_train.csv and mnist_test.csv with a label and 784 pixels in each row",
    )
    _add_data_dir(parser)
    _add_force(parser)
    _add_examples(parser, "mnist-trainer data import ~/.keras/datasets/mnist.npz --data-dir data/mnist")


def _add_force(parser: _Parser) -> None:
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace files that exist but are not genuine, and keep a copy of each in NAME.replaced (default: leave them, and "
        "write nothing)",
    )


def _add_benchmark_flags(parser: _Parser) -> None:
    from mnist_trainer.benchmark.implementations import IMPLEMENTATIONS
    from mnist_trainer.fields import Choice, Whole

    _add_data_dir(parser)
    _add_run_flags(parser, _BENCHMARK_FLAGS)
    parser.add_value(
        "--implementations",
        Choice(tuple(IMPLEMENTATIONS)),
        is_list=True,
        metavar="A,B,…",
        help=f"{', '.join(IMPLEMENTATIONS)} (default: all that are installed; the last three need the extra bench)",
    )
    parser.add_value(
        "--repetitions", Whole(1), metavar="N", default=3, help="number of measured rounds of each implementation (default: 3)"
    )
    parser.add_argument(
        "--peer-python",
        metavar="FILE",
        help="Python interpreter that has torch and jax (default: the one that runs this program)",
    )
    _add_quiet(parser)


def _add_doctor_flags(parser: _Parser) -> None:
    from mnist_trainer.config.schema import THREADS, describe

    _add_data_dir(parser)
    parser.add_value("--threads", THREADS, metavar="N", default="auto", help=describe("runtime.threads"))
    parser.add_argument("--build", action="store_true", help="build the fused operator now instead of at the first training")


def _add_examples(parser: _Parser, *examples: str) -> None:
    _add_to_epilog(parser, "examples:", *(f"  {example}" for example in examples))


def _add_bundled_configs(parser: _Parser) -> None:
    from mnist_trainer.config.loading import describe_bundled_configs

    heads = describe_bundled_configs()
    width = max(map(len, heads))
    indent = " " * (width + 4)
    wrapped = (textwrap.fill(f"  {name:{width}}  {head}", width=88, subsequent_indent=indent) for name, head in heads.items())
    _add_to_epilog(parser, "bundled configurations:", *wrapped)


def _add_to_epilog(parser: _Parser, *lines: str) -> None:
    parser.epilog = "\n".join([*([parser.epilog, ""] if parser.epilog else []), *lines])


def _add_quiet(parser: _Parser) -> None:
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress bars or notes; results and warnings are still printed"
    )


def _add_data_dir(parser: _Parser) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=_path,
        help="folder of the four MNIST files (default: MNIST_TRAINER_DATA if it is set, otherwise the bundled files; for other "
        "data, data/NAME below the current folder)",
    )


def _add_run_flags(parser: _Parser, keys: Iterable[str]) -> None:
    """Add flags for the configuration, for `keys` of it, and for the run folder."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration of the run: a TOML file, or the name of a bundled configuration (default: tutorial)",
    )
    _add_override_flags(parser, keys)
    parser.add_argument("--output", metavar="DIR", type=_path, help="folder to write (default: a new folder in runs/)")


def _add_override_flags(parser: _Parser, keys: Iterable[str]) -> None:
    """Add flags for `keys` of the configuration, and `--set` for any key."""
    first, *_, last = _add_config_flags(parser, keys)
    parser.epilog = f"Each flag from {first} to {last} sets one key of the configuration, as --set does."
    parser.add_argument(
        "--set",
        metavar="section.key=value",
        action="append",
        default=[],
        help="set any key of the configuration, with a value as in a TOML file; may be repeated",
    )


def _add_config_flags(parser: _Parser, keys: Iterable[str], default: str = "") -> list[str]:
    """Add flags for `keys` of the configuration, and return the flags."""
    from mnist_trainer.config.schema import describe, flag_of

    parser.set_defaults(config_keys=tuple(keys))
    flags = {key: flag_of(key) for key in keys}
    for key, flag in flags.items():
        spellings = (flag, *_ALIASES.get(flag, ()))
        several = f"; for several, use {_SEVERAL[flag]}" if _SEVERAL.get(flag) in parser._option_string_actions else ""
        parser.add_argument(*spellings, action=_Store, metavar=CONFIG_FLAGS[key], help=f"{describe(key)}{several}{default}")
    return list(flags.values())
