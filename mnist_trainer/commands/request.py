"""From parsed arguments to what the commands need: a checked configuration, its overrides, a folder for the results."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_trainer import runtime
from mnist_trainer.config.loading import DEFAULT_CONFIG, load_config, load_recorded_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import RunConfig, flag_of
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.run_folder import CONFIG, RunFolder

RUNS_FOLDER = Path("runs")

Arguments = Any
"""The parsed arguments, an attribute a flag. Besides: `command_line`, as it was typed; `config_keys`, the keys of the
configuration that have a flag of their own; `problems`, what has been found wrong until now."""


def read_config(arguments: Arguments) -> RunConfig:
    """The configuration that `--config` and the overrides give. Raises RequestError, also with what is wrong with the flags."""
    if getattr(arguments, "resume", None):
        arguments.config = _config_to_resume(arguments)
    return read_configs(arguments, [arguments.config or DEFAULT_CONFIG])[0]


def _config_to_resume(arguments: Arguments) -> Path:
    for flag, given in (("--config", arguments.config), ("--output", arguments.output)):
        if given is not None:
            raise RequestError(f"--resume {arguments.resume}: resumes with the run's own configuration; leave {flag} out")
    return RunFolder.open(arguments.resume) / CONFIG


def read_configs(arguments: Arguments, paths: Sequence[str | Path]) -> list[RunConfig]:
    """Of each of these files, with the overrides. Raises RequestError with all that is wrong, also with the flags."""
    problems: list[str] = arguments.problems
    overrides = _overrides(arguments, problems)
    configs = []
    for path in paths:
        with collected(problems):
            untrusted = _untrusted_code(path, overrides) if getattr(arguments, "resume", None) else []
            problems += untrusted
            configs.append((load_recorded_config if untrusted else load_config)(path, overrides))
    if problems:
        raise RequestError(*dict.fromkeys(problems))  # what is wrong with a flag is so with each file
    return configs


def _untrusted_code(path: str | Path, overrides: Sequence[Override]) -> list[str]:
    """A sentence for each schedule of a run folder, perhaps a stranger's, that is code and not named on this command line."""
    users_code = load_recorded_config(path, overrides).users_code()
    return [
        f"{path}: {key} would run the code {name!r}, which this folder names and you have not; "
        f"if you trust it, say so with --set {shlex.quote(f'{key}={name}')}"
        for key, name in users_code.items()
        if not any(override.sets(key) for override in overrides)
    ]


def overrides_of(arguments: Arguments) -> list[Override]:
    """What the flags and `--set` change. Raises RequestError."""
    problems: list[str] = []
    overrides = _overrides(arguments, problems)
    if problems:
        raise RequestError(*problems)
    return overrides


def _overrides(arguments: Arguments, problems: list[str]) -> list[Override]:
    texts = {key: getattr(arguments, key.partition(".")[2]) for key in arguments.config_keys}
    overrides = [Override(flag_of(key), key, text) for key, text in texts.items() if text is not None]
    for assignment in getattr(arguments, "set", ()):
        with collected(problems):
            overrides.append(Override.from_assignment(assignment))
    return overrides


def open_run(arguments: Arguments) -> tuple[RunFolder, RunConfig]:
    """Return a run folder, and its configuration with the changes by flags; MXNet can be loaded afterwards."""
    folder = RunFolder.open(arguments.run_dir)
    config = load_recorded_config(folder / CONFIG, overrides_of(arguments))
    network, trusted = config.model.network, arguments.network
    if network and not trusted:
        advice = f"if you trust it, add --network {shlex.quote(network)}"
        raise RequestError(f"{folder.path}: model.network would run the code {network!r}, which this folder names; {advice}")
    if trusted != network:
        its_own = network or "the tutorial's; leave the flag out"
        raise RequestError(f"--network {trusted}: the network of {folder.path} is {its_own}")
    runtime.prepare(config.runtime.threads)
    return folder, config


def make_run_folder(arguments: Arguments, what: str, folder_class: type[RunFolder] = RunFolder) -> RunFolder:
    if arguments.output:
        return folder_class.create(arguments.output)
    return folder_class.create_below(RUNS_FOLDER, f"{Path(arguments.config or DEFAULT_CONFIG).stem}_{what}")
