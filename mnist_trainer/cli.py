"""The command line: the only file that defines flags.

Turns arguments into a call of a command, and errors into messages on stderr and an exit code. The commands are in `commands`,
which is loaded when one of them runs. The flags of a command are added only when that command is given, so that
`mnist-trainer --help` answers at once.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from mnist_trainer.console import say, shortened, shown
from mnist_trainer.errors import DONE, FAILED, INTERRUPTED, WRONG_REQUEST, Interrupted, RequestError, RunError, collected

if TYPE_CHECKING:
    from pathlib import Path

    from mnist_trainer.fields import Kind

# Keys of the configuration that have a flag, with the placeholder of the value in the help.
CONFIG_FLAGS = {
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

# The keys that a search for a learning rate reads.
_SEARCH_FLAGS = ("runtime.device", "training.batch_size", "training.seed", "runtime.threads", "data.train_images")

# Fields of the search that have a flag.
_SWEEP_FLAGS = {"start_lr": "X", "end_lr": "X", "iterations": "N"}

# The keys that a benchmark reads: those that apply to every implementation.
_BENCHMARK_FLAGS = ("runtime.threads", "data.train_images")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    An error that a user can cause is reported on stderr, not raised. A process of a distributed training does not return: it
    ends here, whatever the state of the other processes.

    Args:
        argv: The arguments; None for those of the process.

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

                code = find_command(arguments.command)(arguments)
        except SystemExit:  # argparse raises this after --help
            sys.stdout.flush()
            raise
        except BaseException:
            with suppress(OSError):  # the first error is the one to report
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
        # The reader of our output, such as `head`, has closed the pipe.
        _discard_stdout()
        return FAILED
    if isinstance(error, ImportError):
        from mnist_trainer import runtime

        return _say_errors(runtime.installation_problems() or [str(error)], WRONG_REQUEST)
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            _discard_stdout()  # which may be on the full disk
        return _say_errors([f"{error.filename}: {error.strerror}" if error.filename else str(error)], FAILED)
    raise error


def _parse(given: Sequence[str]) -> Any:
    """Return the arguments of a command.

    Raises:
        RequestError: Arguments are wrong, and the command does not report them together with the configuration.
    """
    arguments, unknown = _build_parser().parse_known_args(given)
    arguments.command_line = ["mnist-trainer", *given]
    if "configs" in arguments and not any(word.startswith("-") for word in unknown):
        arguments.configs, unknown = [*arguments.configs, *unknown], []  # argparse takes only those before the first flag
    arguments.problems = _read_values(arguments, unknown)
    # `compare` would take the value of an unknown flag for a configuration.
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
    """Return the arguments of `train`, the command that `launch` starts."""
    if not rest:
        raise RequestError(
            "what is to be launched is missing; write it after --, as in: mnist-trainer launch --workers 2 -- train"
        )
    if rest[0] != "train":
        raise RequestError(f"launch starts train, and not {rest[0]!r}; write mnist-trainer launch --workers 2 -- train …")
    launched, unknown = _build_parser().parse_known_args(rest)
    launched.problems = _read_values(launched, unknown)
    return launched


def _read_values(arguments: Any, unknown: Sequence[str]) -> list[str]:
    """Convert the texts of the flags that have a kind to values.

    Args:
        arguments: The parsed arguments, which are changed in place.
        unknown: The arguments that argparse does not know.

    Returns:
        The problems of the values and of the unknown arguments.
    """
    problems = _unknown_problems(unknown, arguments.parser)
    for name, (flag, kind, is_list) in arguments.parser.kinds.items():
        text = getattr(arguments, name)
        if not isinstance(text, str):
            continue  # a default
        from mnist_trainer.fields import FieldError

        values = []
        for part in text.split(",") if is_list else [text]:
            try:
                values.append(kind.check(name, kind.read(part.strip())))
            except FieldError as error:
                member = f"{shown(part.strip())} " if is_list else ""
                problems.append(f"{flag} {shortened(text)}: {member}{error.sentence}")
        setattr(arguments, name, values if is_list else next(iter(values), None))
    return problems


def _discard_stdout() -> None:
    # Otherwise Python reports the error again when it closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _make_streams_writable() -> None:
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 - None when started with `>&-`
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # characters that the terminal lacks are shown as codes


def _say_errors(problems: Sequence[str], code: int) -> int:
    for problem in problems:
        say(problem)
    return code


def _unknown_problems(unknown: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    flags = [flag for action in parser._actions for flag in action.option_strings if flag != "--help"]
    problems = []
    after_flag = False  # the argument after an unknown flag is its value, not another mistake
    for argument in unknown:
        flag, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            if flag in flags:
                problems.append(f"{flag}: write it after the command, {parser.prog} {flag}")
            else:
                hint = _did_you_mean(flag, flags, f"see {parser.prog} --help")
                problems.append(f"{flag}: there is no such flag; {hint}")
        elif not after_flag:
            problems.append(f"{argument}: {parser.prog} takes no such argument")
        after_flag = argument.startswith("-") and not equals
    return problems


def _did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    from mnist_trainer.fields import did_you_mean  # slow to load, and needed only for mistakes

    return did_you_mean(name, known, otherwise)


# --- flags


def _path(text: str) -> "Path":
    from pathlib import Path  # its import takes a tenth of the time of `mnist-trainer --help`

    return Path(text)


class _Parser(argparse.ArgumentParser):
    """Raises argparse's errors as RequestError.

    Args:
        add_flags: Adds the flags; called with the parser when it is first used. Only the flags of one command are needed, and
            some have their help from `config`, which is slow to load.
        arguments: The arguments of ArgumentParser.

    Attributes:
        kinds: Name of an argument → its flag, the kind of its value, and True if the value is a list.
    """

    def __init__(self, add_flags: Callable[["_Parser"], object] | None = None, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, **arguments)
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
        """Add the flags once."""
        add_flags, self._add_flags = self._add_flags, None
        if add_flags:
            add_flags(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self.complete()
        flag = args[0] if args else ""
        if self._subparsers and flag.startswith("-") and flag.partition("=")[0] not in self._option_string_actions:
            # argparse would take the value of this flag for the command.
            raise RequestError(f"{flag}: write it after the command, {self.prog} COMMAND {flag} …")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = _did_you_mean(str(value), action.choices, f"there are {', '.join(action.choices)}")
            raise RequestError(f"{self.prog} has no command {value!r}; {hint}")

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


class _SayVersion(argparse.Action):
    """Looks up the version only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from mnist_trainer.runtime import package_version

        print(f"mnist-trainer {package_version('mnist-trainer')}")
        parser.exit()


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="mnist-trainer",
        description="Trains MXNet's tutorial network on MNIST, and shows how learning-rate schedules behave.",
        epilog="Exit codes: 0 done; 1 failed while running; 2 the request was wrong; 130 interrupted.",
    )
    parser.add_argument(
        "--version", action=_SayVersion, nargs=0, default=argparse.SUPPRESS, help="show program's version number and exit"
    )
    commands = _begin_commands(parser)
    _add(commands, "train", "train the network, by default as the tutorial does", _add_train_flags, reads_config=True)
    _add(
        commands,
        "compare",
        "train in several scheduler modes, schedules and seeds, and report the differences",
        _add_compare_flags,
        reads_config=True,
    )
    _add(commands, "launch", "train by several processes of this machine", _add_launch_flags, reads_config=True)
    _add(commands, "find-lr", "search for a good learning rate by the range test", _add_find_lr_flags, reads_config=True)
    _add(commands, "evaluate", "score a finished run on its test images", _add_evaluate_flags)
    _add(commands, "predict", "recognise the digits on pictures with a finished run's model", _add_predict_flags)
    _add(commands, "export", "write a finished run's model for use by other programs", _add_export_flags)
    _add(commands, "demo", "serve a page on this machine to draw digits on for a finished run's model", _add_demo_flags)
    _add(commands, "schedules", "list, show or plot learning-rate schedules", _add_schedules_commands)
    _add(commands, "data", "check or fetch the MNIST files", _add_data_commands)
    _add(
        commands,
        "benchmark",
        "compare the speed of this program with other implementations",
        _add_benchmark_flags,
        reads_config=True,
    )
    _add(commands, "doctor", "check the installation and the devices, and suggest remedies", _add_doctor_flags)
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
        sentence: Its help.
        add_flags: Adds its flags.
        reads_config: Whether the command reports the problems of its flags itself, together with those of the configuration.
    """
    description = f"{sentence[0].upper()}{sentence[1:]}."
    parser = commands.add_parser(name, help=sentence, description=description, add_flags=add_flags)
    parser.set_defaults(command=parser.prog.removeprefix("mnist-trainer "), parser=parser, reads_config=reads_config)


def _begin_commands(parser: _Parser) -> Any:
    """Return the group to which commands are added. Given without a command, the group prints its help."""
    parser.set_defaults(command=None, parser=parser, reads_config=False)
    return parser.add_subparsers(title="commands", metavar="COMMAND")


def _add_train_flags(parser: _Parser) -> None:
    _add_data_dir(parser)
    _add_run_flags(parser, CONFIG_FLAGS)
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        type=_path,
        help="resume a stopped run, with the same result as without the stop; --epochs may grow, --device may name another "
        "device of its kind, and checkpoint.* and runtime.timeout_seconds may change; nothing else may",
    )
    _add_quiet(parser)


def _add_launch_flags(parser: _Parser) -> None:
    from mnist_trainer.distributed.cluster import PORTS, PROCESSES

    parser.usage = "mnist-trainer launch [--help] --workers N [--servers M] [--port P] -- train …"
    parser.add_value("--workers", PROCESSES, metavar="N", required=True, help="processes that share each batch")
    parser.add_value("--servers", PROCESSES, metavar="M", default=1, help="processes that add up their gradients (default: 1)")
    parser.add_value("--port", PORTS, metavar="P", help="where they find each other (default: one that is free)")
    parser.add_argument("rest", metavar="train …", nargs=argparse.REMAINDER, help="the command train, with its own flags")


def _add_compare_flags(parser: _Parser) -> None:
    from mnist_trainer.comparison.plan import MUST_BE_EQUAL
    from mnist_trainer.config.schema import SCHEDULER_MODES, SEED
    from mnist_trainer.fields import Choice, Or, Whole

    parser.add_argument(
        "configs",
        metavar="CONFIG",
        nargs="*",
        help="the experiments: TOML files, or names of bundled ones; all are compared with the first (default: tutorial)",
    )
    parser.add_value(
        "--modes",
        Choice(SCHEDULER_MODES),
        is_list=True,
        metavar="optimizer,manual",
        help="scheduler modes of each configuration (default: both if there is one configuration, else that which each names)",
    )
    parser.add_value(
        "--seeds",
        SEED,
        is_list=True,
        metavar="A,B,…",
        help="seeds of each configuration and mode (default: the configurations')",
    )
    parser.add_value(
        "--jobs",
        Or("auto", Whole(1, 999)),
        metavar="N",
        default="auto",
        help="trainings side by side, of one thread each unless --threads is given (default: auto, as many as fit)",
    )
    parser.add_value(
        "--allow",
        Choice(MUST_BE_EQUAL),
        is_list=True,
        default=(),
        metavar="section.key,…",
        help="keys that may differ although they must be equal in all configurations of a comparison",
    )
    _add_data_dir(parser)
    _add_override_flags(parser, CONFIG_FLAGS)
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=_path,
        help="the folder, new or of a comparison to resume or extend (default: a new one below runs/)",
    )
    _add_quiet(parser)


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


def _add_evaluate_flags(parser: _Parser) -> None:
    _add_data_dir(parser)
    _add_model_flags(parser, "data.test_images")


def _add_predict_flags(parser: _Parser) -> None:
    _add_model_flags(parser)
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="a PNG, JPEG, BMP or PGM picture, a folder of them, or - for standard input"
    )
    parser.add_argument("--show", action="store_true", help="print the 28×28 image too that the network saw")
    parser.add_argument("--json", action="store_true", help="print a JSON object a picture, with all ten probabilities")


def _add_export_flags(parser: _Parser) -> None:
    from mnist_trainer.fields import Choice

    _add_data_dir(parser)
    _add_model_flags(parser)
    parser.add_value(
        "--format",
        Choice(("onnx", "mxnet")),
        metavar="onnx|mxnet",
        required=True,
        help="ONNX, with any number of images in a batch (needs the extra onnx), or MXNet's symbol and parameters",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=_path,
        help="the ONNX file, which ends in .onnx, or what MXNet's two files begin with: FILE-symbol.json, FILE-0000.params "
        "(default: model.onnx, or model, in the run folder)",
    )


def _add_demo_flags(parser: _Parser) -> None:
    from mnist_trainer.fields import Whole

    _add_model_flags(parser)
    parser.add_value(
        "--port",
        Whole(0, 65_535),
        metavar="N",
        default=8000,
        help="of the loopback address; 0 for any that is free (default: 8000)",
    )


def _add_model_flags(parser: _Parser, *keys: str) -> None:
    """Add flags for a finished run, and for the device and threads that compute its model."""
    parser.add_argument("run_dir", metavar="RUN_DIR", type=_path, help="the run folder")
    _add_config_flags(parser, ("runtime.device", "runtime.threads", *keys), " (default: as in the run)")
    parser.add_argument(
        "--network",
        metavar="module:function",
        help="the run's own network, if it has one; its code runs",
    )


def _add_schedules_commands(parser: _Parser) -> None:
    commands = _begin_commands(parser)
    _add(commands, "list", "all schedules, with their equations")
    _add(commands, "show", "the learning rate at some iterations", _add_schedules_show_flags)
    _add(commands, "plot", "a figure with a panel for each schedule", _add_schedules_plot_flags)


def _add_schedules_show_flags(parser: _Parser) -> None:
    from mnist_trainer.fields import Whole

    parser.add_argument("schedule", metavar="NAME_OR_CONFIG", help="a schedule (its example is shown) or a configuration")
    parser.add_value(
        "--iterations",
        Whole(0),
        is_list=True,
        metavar="A,B,…",
        required=True,
        help="iterations; 0 is the rate before the first",
    )


def _add_schedules_plot_flags(parser: _Parser) -> None:
    parser.add_argument(
        "schedules",
        metavar="NAME_OR_CONFIG",
        nargs="+",
        help="schedules (their examples), all for every one of them, or configurations (the whole run)",
    )
    parser.add_argument(
        "--output", metavar="FILE", type=_path, required=True, help="the figure; the ending says in which format"
    )


def _add_data_commands(parser: _Parser) -> None:
    commands = _begin_commands(parser)
    _add(commands, "verify", "check that the four files are the genuine ones", _add_data_dir)
    _add(commands, "fetch", "download the files that are missing", _add_data_fetch_flags)


def _add_data_fetch_flags(parser: _Parser) -> None:
    _add_data_dir(parser)
    parser.add_argument(
        "--mirror",
        metavar="URL",
        action="append",
        help="fetch from this address instead of the known ones; may be repeated",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that are there and are not the genuine ones (default: leave them, and fetch nothing)",
    )
    _add_quiet(parser)


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
        help=f"{', '.join(IMPLEMENTATIONS)} (default: all that are installed; the last three are in the extra bench)",
    )
    parser.add_value(
        "--repetitions", Whole(1), metavar="N", default=3, help="rounds of each implementation that count (default: 3)"
    )
    parser.add_argument(
        "--peer-python", metavar="FILE", help="a Python that has torch and jax (default: the one that runs this)"
    )
    _add_quiet(parser)


def _add_doctor_flags(parser: _Parser) -> None:
    from mnist_trainer.config.schema import THREADS, describe

    _add_data_dir(parser)
    parser.add_value("--threads", THREADS, metavar="N", default="auto", help=describe("runtime.threads"))


def _add_quiet(parser: _Parser) -> None:
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress bars and no notes; results and warnings are still printed"
    )


def _add_data_dir(parser: _Parser) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        type=_path,
        help="folder of the four MNIST files (default: MNIST_TRAINER_DATA, or the bundled ones)",
    )


def _add_run_flags(parser: _Parser, keys: Iterable[str]) -> None:
    """Add flags for the configuration, for these keys of it, and for the run folder."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the experiment: a TOML file, or the name of a bundled one (default: tutorial)",
    )
    _add_override_flags(parser, keys)
    parser.add_argument("--output", metavar="DIR", type=_path, help="the folder to write (default: a new one below runs/)")


def _add_override_flags(parser: _Parser, keys: Iterable[str]) -> None:
    """Add flags for these keys of the configuration, and `--set` for any key."""
    first, *_, last = _add_config_flags(parser, keys)
    parser.epilog = f"The flags from {first} to {last} change single keys of the configuration, as --set does."
    parser.add_argument(
        "--set",
        metavar="section.key=value",
        action="append",
        default=[],
        help="any other key of the configuration, as in the file; may be repeated",
    )


def _add_config_flags(parser: _Parser, keys: Iterable[str], default: str = "") -> list[str]:
    """Add flags for these keys of the configuration, and return the flags."""
    from mnist_trainer.config.schema import describe, flag_of

    parser.set_defaults(config_keys=tuple(keys))
    flags = {key: flag_of(key) for key in keys}
    for key, flag in flags.items():
        parser.add_argument(flag, metavar=CONFIG_FLAGS[key], help=f"{describe(key)}{default}")
    return list(flags.values())
