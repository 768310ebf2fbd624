"""Turns parsed arguments into checked configurations and folders."""

import secrets
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mnist_trainer import runtime
from mnist_trainer.config.loading import (
    DEFAULT_CONFIG,
    config_name,
    load_config,
    load_config_to_resume,
    load_recorded_config,
    search_code,
)
from mnist_trainer.config.overrides import NameOverride, Override
from mnist_trainer.config.schema import RunConfig, flag_of
from mnist_trainer.errors import RequestError, collected
from mnist_trainer.run_folder import CONFIG, RunFolder

RUNS_FOLDER = Path("runs")

LATEST = "latest"
"""Name of the symbolic link in `RUNS_FOLDER` to the run that was started last."""

Arguments = Any
"""The parsed arguments, with an attribute for each flag.

Attributes:
    command_line: The command line as the user typed it.
    config_keys: The keys of the configuration that have their own flag.
    problems: The problems found so far.
    unconfirmed: After `read_config` with `--resume`, a message for each code of the run that the user has not confirmed.
"""


def read_config(arguments: Arguments) -> RunConfig:
    """Return the configuration of a command.

    Args:
        arguments: The parsed arguments, with `--config` or `--resume` and the overrides.

    Raises:
        RequestError: The configuration or the flags are wrong; the error has the problems of both.
    """
    if not getattr(arguments, "resume", None):
        return read_configs(arguments, [arguments.config or DEFAULT_CONFIG])[0]
    path = _config_to_resume(arguments)
    problems: list[str] = arguments.problems
    overrides = _overrides(arguments, problems)
    with collected(problems):
        config, arguments.unconfirmed = load_config_to_resume(path, overrides)
    if problems:
        raise RequestError(*dict.fromkeys(problems))  # a wrong flag is reported again for the file
    return config


def _config_to_resume(arguments: Arguments) -> Path:
    for flag, given in (("--config", arguments.config), ("--output", arguments.output)):
        if given is not None:
            raise RequestError(f"--resume {arguments.resume}: resumes with the run's own configuration; leave {flag} out")
    arguments.resume = follow_link(arguments.resume)
    return RunFolder.open(arguments.resume) / CONFIG


def read_configs(arguments: Arguments, paths: Sequence[str | Path]) -> list[RunConfig]:
    """Return the configuration of each file, with the overrides.

    Args:
        arguments: The parsed arguments, with the overrides.
        paths: TOML files or names of bundled configurations.

    Raises:
        RequestError: All problems of the files, the overrides and the flags.
    """
    problems: list[str] = arguments.problems
    overrides = _overrides(arguments, problems)
    configs = []
    for path in paths:
        with collected(problems):
            configs.append(load_config(path, overrides))
    if problems:
        raise RequestError(*dict.fromkeys(problems))  # a wrong flag is reported again for each file
    search_code(paths)
    return configs


def overrides_of(arguments: Arguments) -> list[Override]:
    """Return the overrides from the flags and `--set`.

    Raises:
        RequestError: An argument of `--set` is not an assignment.
    """
    problems: list[str] = []
    overrides = _overrides(arguments, problems)
    if problems:
        raise RequestError(*problems)
    return overrides


def _overrides(arguments: Arguments, problems: list[str]) -> list[Override]:
    overrides = []
    for key in arguments.config_keys:
        name = flag_of(key)[2:].replace("-", "_")
        text = getattr(arguments, name)
        if text is None:
            continue
        flag = arguments.spellings[name]
        if "," in text and f"{name}s" in arguments:
            problems.append(f"{flag} {text}: sets one value; for several write {flag}s {text}")
        else:
            overrides.append((Override if "." in key else NameOverride)(flag, key, text))
    for assignment in getattr(arguments, "set", ()):
        with collected(problems):
            overrides.append(Override.from_assignment(assignment))
    return overrides


def describe_misfits(config: RunConfig, file: str = "") -> list[str]:
    """Describe the ways in which the schedules of a run do not fit its length.

    Args:
        config: The configuration of the run.
        file: Its file, for the messages, if there are several configurations.

    Returns:
        A message for each.

    Raises:
        RequestError: The learning rate would be 0 in most of the run, and the configuration does not allow it.
    """
    label = f"{file}: " if file else ""
    misfits = config.misfits()
    refused = [f"{label}{misfit.sentence}" for misfit in misfits if misfit.prevents_training]
    if refused and not config.training.allow_zero_rate:
        remedy = "to train nevertheless, add --set training.allow_zero_rate=true"
        raise RequestError(*(f"{sentence}{' Or,' if sentence.endswith('?') else ';'} {remedy}" for sentence in refused))
    return [f"{label}{misfit.sentence}" for misfit in misfits]


def open_run(arguments: Arguments) -> tuple[RunFolder, RunConfig]:
    """Open the folder of a run, and prepare the process to load MXNet.

    Returns:
        The run folder, and its configuration with the overrides.

    Raises:
        RequestError: The folder or the flags are wrong, or `--network` does not name the run's own network.
    """
    folder = RunFolder.open(follow_link(arguments.run_dir))
    config = load_recorded_config(folder / CONFIG, overrides_of(arguments))
    network, trusted = config.model.network, arguments.network
    if network and not trusted:
        advice = f"if you trust it, add --network {shlex.quote(network)}"
        raise RequestError(f"{folder.path}: model.network would run the code {network!r}, which this folder names; {advice}")
    if trusted != network:
        expected = network or "the tutorial's; leave the flag out"
        raise RequestError(f"--network {trusted}: the network of {folder.path} is {expected}")
    runtime.prepare(config.runtime.threads)
    return folder, config


def make_run_folder(arguments: Arguments, suffix: str, folder_class: type[RunFolder] = RunFolder) -> RunFolder:
    """Make the folder that `--output` names, or a new folder in `runs/`.

    Args:
        arguments: The parsed arguments.
        suffix: The end of the name of a new folder, after the time and the name of the configuration.
        folder_class: The class of the folder.

    Raises:
        RequestError: The folder cannot be made.
    """
    if arguments.output:
        return folder_class.create(arguments.output)
    folder = folder_class.create_below(RUNS_FOLDER, f"{config_name(arguments.config or DEFAULT_CONFIG)}_{suffix}")
    if arguments.command == "train" and folder.is_written:
        _link_latest(folder.path)
    return folder


def name_ending(config: RunConfig) -> str:
    """Return the end of the name of a new run's folder, which tells the runs of a configuration apart."""
    return f"{config.training.scheduler_mode}_seed-{config.training.seed}"


def follow_link(path: Path) -> Path:
    """Return the target of a symbolic link such as `runs/latest`, and any other path as it is.

    A command follows the link once, because a run that is started meanwhile changes it.
    """
    try:
        return path.parent / path.readlink()
    except OSError:  # it is not a link
        return path


def _link_latest(path: Path) -> None:
    """Let `runs/latest` refer to a run. A file or folder of the user's with this name is kept."""
    link, draft = path.parent / LATEST, path.parent / f".{LATEST}.{secrets.token_hex(8)}.partial"
    with suppress(OSError):  # for example a file system without links; the run does not need it
        if link.is_symlink() or not link.exists():
            draft.symlink_to(path.name)
            draft.replace(link)
