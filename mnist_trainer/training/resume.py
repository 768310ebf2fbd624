"""Resumes a run: finds its checkpoint, refuses changes, and restores the folder, the network and the trainer.

`checkpoint` reads and writes checkpoints, and `checkpointer` decides when to save them.
"""

import os
import random
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import Console, shown
from mnist_trainer.diagnostics.environment import environment_changes
from mnist_trainer.distributed.cluster import LAUNCHED_BY
from mnist_trainer.errors import Interrupted, RequestError, RunError
from mnist_trainer.fields import MAX_FLOAT32
from mnist_trainer.folder import is_number
from mnist_trainer.run_folder import (
    CONFIG,
    ENVIRONMENT,
    ITERATIONS,
    METRICS,
    PARAMETERS,
    SUMMARY,
    RunFolder,
)
from mnist_trainer.runtime import explain_failure, import_mxnet
from mnist_trainer.schedules import AnySchedule
from mnist_trainer.training.checkpoint import OPTIMIZER_NUMBERS, Checkpoint, DamagedError, read, unflatten
from mnist_trainer.training.early_stopping import EarlyStopping
from mnist_trainer.training.records import LoopState
from mnist_trainer.training.trainer import ScheduledTrainer
from mnist_trainer.user_code import assignment_of_folders

mx = import_mxnet()

_NUMPY_KEYS = 624
"""Number of keys of numpy's Mersenne Twister."""


def lock_and_find_checkpoint(
    folder: RunFolder, config: RunConfig, unconfirmed: Sequence[str], report: Callable[[str], object]
) -> tuple[Checkpoint | None, bool]:
    """Lock a run that is to be resumed and find the checkpoint to resume from.

    Args:
        folder: The run's folder.
        config: The configuration with which to resume.
        unconfirmed: A message for each code that the run names and the user has not confirmed.
        report: A function that is called with a message for each damaged checkpoint, which is skipped.

    Returns:
        The latest usable checkpoint, or None for a run that is finished or was never saved; and True if it is finished. A
        finished run is not trained, so that none of its code runs. Do not ask the folder again, because it may change.

    Raises:
        RequestError: Another process writes to the folder, `config` would change the run, the run is not finished and its code
            is not confirmed, or no checkpoint can be used.
    """
    folder.lock()
    is_finished = folder.is_finished
    if unconfirmed and not is_finished:
        raise RequestError(*unconfirmed)
    checkpoint = None if is_finished else latest_checkpoint(folder, report, has_own_shapes=config.has_own_shapes)
    refuse_changes(folder, config, checkpoint)
    if checkpoint and config.data.validation_images:
        _require_best_checkpoint(folder, config, checkpoint)
    return checkpoint, is_finished


def _require_best_checkpoint(folder: RunFolder, config: RunConfig, checkpoint: Checkpoint) -> None:
    """Refuse to resume if the checkpoint of the best epoch so far cannot be read: the run may need it at its end."""
    best = EarlyStopping(**vars(config.early_stopping), completed=completed_metrics(folder, checkpoint)).best
    if best and best["iteration"] != checkpoint.iteration:
        try:
            read(folder.checkpoint(best["iteration"]), has_own_shapes=config.has_own_shapes)
        except DamagedError as error:
            advice = "the run needs it for best.params; restore it, or repeat the run in a new folder"
            raise RequestError(f"{error}; {advice}") from error


def latest_checkpoint(folder: RunFolder, report: Callable[[str], object], *, has_own_shapes: bool = False) -> Checkpoint | None:
    """Find the latest checkpoint that is undamaged and matches the files of the run.

    Args:
        folder: The run's folder.
        report: A function that is called with a message for each checkpoint that is skipped.
        has_own_shapes: True for a network with other shapes than the tutorial's, whose checkpoints may be large.

    Returns:
        The checkpoint; None if the run was never saved.

    Raises:
        RequestError: There are checkpoints, but none can be used. Starting from the beginning would discard them.
    """
    saved = folder.checkpoints()
    for checkpoint_folder in reversed(saved):
        try:
            checkpoint = read(checkpoint_folder, has_own_shapes=has_own_shapes)
            _check_rows(folder, checkpoint)
            return checkpoint
        except DamagedError as error:
            report(f"{error}; the checkpoint is skipped")
    if saved:
        raise RequestError(
            f"{folder.path}: no checkpoint of this run can be used; repair the files named above, or start a new run"
        )
    return None


def _check_rows(folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Check the rows that a run had written when a checkpoint was saved.

    Raises:
        DamagedError: The rows differ from what the checkpoint recorded, or are not those of its iterations and epochs.
    """
    files = checkpoint.state["files"]
    try:
        # The rows first: a file of zeros can claim any size without needing it on the disk, and would take hours to hash.
        iterations, epochs = checkpoint.iteration, checkpoint.loop_state.epoch - 1
        rows = _count(folder.iteration_rows(length=files[ITERATIONS]["bytes"]), iterations)
        metrics = _count(folder.metrics_rows(length=files[METRICS]["bytes"]), epochs) if METRICS in files else 0
        if (rows, metrics) != (iterations, epochs):
            raise DamagedError(f"{folder.path}: its rows are not those before checkpoint {checkpoint.path.name}")
        for name, prefix in files.items():
            if folder.prefix_sha256(name, prefix["bytes"]) != prefix["sha256"]:
                raise DamagedError(f"{folder / name}: differs from what checkpoint {checkpoint.path.name} recorded")
    except OSError as error:
        message = f"{error.filename}: cannot be read ({error.strerror}), but checkpoint {checkpoint.path.name} needs it"
        raise DamagedError(message) from error
    except ValueError as error:
        raise DamagedError(str(error)) from error


def _count(rows: Iterable[object], expected: int) -> int:
    """Return the number of rows, or `expected` + 1 if there are more."""
    return sum(1 for _ in islice(rows, expected + 1))


def load_state(checkpoint: Checkpoint, network: Any, trainer: ScheduledTrainer) -> LoopState:
    """Load a checkpoint into a new network and trainer.

    Args:
        checkpoint: The checkpoint to load.
        network: A network created from the run's configuration, on any devices.
        trainer: A trainer created from the run's configuration.

    Returns:
        The state of the loop from which to resume.

    Raises:
        RequestError: The checkpoint belongs to another network, optimizer or schedule.
    """
    try:
        checkpoint.load_parameters(network)
        kept = checkpoint.state["optimizer"]
        states = {int(index): unflatten(shape, checkpoint.arrays) for index, shape in kept["states"].items()}
        trainer.load_state(checkpoint.iteration, states)
        for name, number in kept["numbers"].items():
            is_known = name in OPTIMIZER_NUMBERS and hasattr(trainer.optimizer, name)
            if not (is_known and is_number(number, MAX_FLOAT32)):
                raise DamagedError(f"{name} = {shown(number)} is not a number of this optimizer")
            setattr(trainer.optimizer, name, number)
        if isinstance(trainer.schedule, AnySchedule):
            trainer.set_schedule(trainer.schedule.with_state(checkpoint.state["schedule"]))
        for schedule in (trainer.schedule, *trainer.hyperparameter_schedules.values()):
            if getattr(schedule, "asked_in_order", False):  # a user's schedule, which may count its calls
                for iteration in range(1, checkpoint.iteration + 1):
                    schedule(iteration)
        kind, place, has_gauss, gauss = checkpoint.state["numpy_random"]
        if type(place) is not int or not 0 <= place <= _NUMPY_KEYS:  # numpy would read beyond its keys
            raise DamagedError(f"the state of numpy's generator has the position {shown(place)}")
        np.random.set_state((kind, checkpoint.arrays["numpy_random"], place, has_gauss, gauss))
        version, internal, gauss_next = checkpoint.state["python_random"]
        if any(type(number) not in (int, float, type(None)) for number in (gauss, gauss_next)):
            raise DamagedError("the state of a random generator has a value that is not a number")
        random.setstate((version, tuple(internal), gauss_next))
    except Exception as error:  # MXNet, numpy and Python raise errors of every kind for an untrusted state
        if users_network := checkpoint.config.model.network:
            remedy = f"if the code of {users_network} has changed since the run began, restore it"
        else:
            remedy = _remedy(RunFolder(checkpoint.path.parents[1]), checkpoint.path)
        raise RequestError(f"{checkpoint.path}: does not match this network and its optimizer ({error}); {remedy}") from error
    return checkpoint.loop_state


def truncate(folder: RunFolder, checkpoint: Checkpoint | None) -> None:
    """Remove rows and checkpoints after a checkpoint, and temporary files of a process that was killed.

    Args:
        folder: The run's folder.
        checkpoint: The checkpoint to resume from; None for the beginning of the run.
    """
    folder.remove_leftovers()
    if checkpoint is None:
        folder.begin_anew()
        return
    for saved in folder.checkpoints():
        if int(saved.path.name) > checkpoint.iteration:
            folder.remove_checkpoint(saved.path.name)
    for name in (ITERATIONS, METRICS):
        folder.truncate(name, checkpoint.state["files"].get(name, {"bytes": 0})["bytes"])
    folder.restore_metrics_csv()


def completed_metrics(folder: RunFolder, checkpoint: Checkpoint | None) -> list[dict[str, Any]]:
    """Return the rows of `metrics.jsonl` of the epochs before a checkpoint.

    Args:
        folder: The run's folder.
        checkpoint: The checkpoint to resume from; None for the beginning of the run.
    """
    if checkpoint is None or METRICS not in checkpoint.state["files"]:
        return []
    # Only these bytes: in distributed training, the first process truncates the file at the same time.
    return list(folder.metrics_rows(length=checkpoint.state["files"][METRICS]["bytes"]))


def refuse_changes(folder: RunFolder, config: RunConfig, checkpoint: Checkpoint | None) -> None:
    """Refuse to resume a run with a configuration that would change it.

    A device may be replaced by another device of its kind, and several devices by the same number of devices of their kind.
    The table `checkpoint`, `training.allow_zero_rate`, the timeout and the log may change. The number of epochs may increase if
    the rates of the completed iterations are the same in the longer run. Nothing may change in a finished run.

    Args:
        folder: The run's folder.
        config: The configuration with which to resume.
        checkpoint: The checkpoint to resume from; None for the beginning of the run.

    Raises:
        RequestError: `config` differs from the run's in keys that must not change, or a file of the run is missing or cannot
            be read; the message names all problems.
    """
    # The configuration file in the folder may have been edited since the checkpoint was saved.
    before = checkpoint.config if checkpoint else load_recorded_config(folder / CONFIG)
    edited = before.differences(load_recorded_config(folder / CONFIG)) if checkpoint else []
    problems = [
        f"{folder / CONFIG}: {key} is {_shown(new)}, but {_shown(old)} in {checkpoint.path}; restore it"
        if checkpoint and (key, old, new) in edited
        else f"--resume {folder.path}: {key} was {_shown(old)} and cannot become {_shown(new)} in the middle of a run"
        for key, old, new in before.differences(config)
        if key not in ("training.epochs", "training.allow_zero_rate", "runtime.timeout_seconds", "runtime.log")
        and not key.startswith("checkpoint.")
        and not (key == "runtime.device" and _are_same_kind(old, new))
    ]
    if folder.is_finished and config.training.epochs != before.training.epochs:
        problems.append(
            f"--resume {folder.path}: the run is finished, and --epochs cannot change; "
            f"start a longer run with --config {folder / CONFIG} --epochs {config.training.epochs}"
        )
    if folder.is_finished and not folder.has_file(PARAMETERS):
        problems.append(f"{folder / PARAMETERS}: missing from a finished run; {_remedy(folder, folder / SUMMARY)}")
    if config.training.epochs < before.training.epochs:
        epochs = f"{config.training.epochs}, which is less than the {before.training.epochs} epochs of the run"
        problems.append(f"--resume {folder.path}: training.epochs cannot become {epochs}; it can only increase")
    elif config.training.epochs > before.training.epochs and checkpoint and not problems:
        # Without problems the schedules are the same, and the user has already named the code that they run.
        done = checkpoint.iteration
        schedules = {"schedule": (before.build_schedule(), config.build_schedule())} | {
            name: (before.build_hyperparameter(name), longer) for name, longer in config.build_hyperparameters().items()
        }
        for name, (short, longer) in schedules.items():
            if any(short(iteration) != longer(iteration) for iteration in range(1, done + 1)):
                problems.append(
                    f"--resume {folder.path}: training.epochs cannot become {config.training.epochs}: "
                    f"the {name} of the longer run differs within the first {done} iterations"
                )
    for name, read_file in {ENVIRONMENT: folder.read_environment, SUMMARY: folder.read_summary}.items():
        try:
            if folder.has_file(name):
                read_file()
        except RequestError as error:
            problems += [f"{problem}; {_remedy(folder, folder / name)}" for problem in error.problems]
    if not folder.is_finished:
        problems += [
            f"{path}: is not a checkpoint, or has other files than a checkpoint; move it elsewhere"
            for path in folder.foreign_checkpoints(after=checkpoint.iteration if checkpoint else 0)
        ]
    if problems:
        raise RequestError(*problems)


def merge_environments(folder: RunFolder, environment: dict[str, Any]) -> dict[str, Any]:
    """Add an environment to those in which a run was trained.

    Args:
        folder: The run's folder.
        environment: The environment in which the run begins or resumes.

    Returns:
        The environment in which the run began, with the later ones under `resumed`; `environment` for a new run.
    """
    if not folder.has_file(ENVIRONMENT):
        return environment
    began = folder.read_environment()
    resumed = began.get("resumed", [])
    return began | {"resumed": [*(resumed if isinstance(resumed, list) else [resumed]), environment]}


def report_resumption(
    console: Console, folder: RunFolder | None, checkpoint: Checkpoint | None, environment: Mapping[str, Any]
) -> None:
    """Print the iteration after which a run resumes, and a warning for each change of the environment since it began.

    Args:
        console: The console to print to.
        folder: The folder of the run that is resumed; None for a new run, of which nothing is printed.
        checkpoint: The checkpoint to resume from; None for the beginning of the run.
        environment: The present environment.
    """
    if folder is None:
        return
    if checkpoint:
        console.note(f"{folder.path}: resumes after iteration {checkpoint.iteration}")
    else:
        console.say(f"{folder.path}: has no checkpoint; the run starts again from the beginning")
    if folder.has_file(ENVIRONMENT):
        console.say(*(f"{folder.path}: {change}" for change in environment_changes(folder.read_environment(), environment)))


def resume_arguments(folder: RunFolder, config: RunConfig) -> list[str]:
    """Return the command-line arguments that resume a run.

    Args:
        folder: The run's folder.
        config: The run's configuration. The arguments name the user's code that it runs.
    """
    users_code = (f"{key}={name}" for key, name in config.users_code().items())
    return ["train", "--resume", str(folder.path), *(word for setting in users_code for word in ("--set", setting))]


@contextmanager
def advice_on_failure(folder: RunFolder, config: RunConfig, data_dir: Path | None) -> Iterator[None]:
    """Add the folder of the results, or the command that resumes the run, to the error that ends a run.

    Args:
        folder: The run's folder.
        config: The run's configuration.
        data_dir: The folder of the MNIST files, for the command; None for the default.

    Raises:
        RunError: The run failed, MXNet failed, memory ran out, or a file could not be written.
        Interrupted: The run stopped on request.
        KeyboardInterrupt: The run was interrupted.
    """
    try:
        yield
    except Interrupted as error:
        # Only the first process, which writes the folder, prints the message.
        message = f"{error}; {_how_to_resume(folder, config, data_dir)}" if folder.is_written else ""
        raise Interrupted(error.iteration, message) from None
    except BrokenPipeError:
        raise
    except (RunError, KeyboardInterrupt, OSError, MemoryError, mx.MXNetError) as error:
        if not folder.is_written:
            raise
        if isinstance(error, RunError):
            raise RunError(f"{error}; the results so far are in {folder.path}") from error
        advice = _how_to_resume(folder, config, data_dir)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted; {advice}") from None
        if isinstance(error, OSError):
            raise RunError(f"{error.filename or 'standard output'}: {error.strerror}; when that is fixed, {advice}") from error
        raise RunError(f"{explain_failure(error)}; when that is fixed, {advice}") from error


def _how_to_resume(folder: RunFolder, config: RunConfig, data_dir: Path | None) -> str:
    if not folder.has_file(CONFIG):  # the run had not begun, or the folder was removed
        return "start the run again"
    launched_by = shlex.split(os.environ.get(LAUNCHED_BY, ""))
    command = [*(launched_by or ["mnist-trainer"]), *resume_arguments(folder, config)]
    if data_dir:
        command += ["--data-dir", str(data_dir)]
    return f"resume with: {assignment_of_folders() if config.users_code() else ''}{shlex.join(command)}"


def _remedy(folder: RunFolder, path: Path) -> str:
    """Return a remedy, which loses no data, for a file that prevents resuming."""
    if any(saved.path != path for saved in folder.checkpoints()):
        return f"move {path} elsewhere; --resume then uses the latest remaining checkpoint"
    # Without a checkpoint the run would start from the beginning and discard the files that it has written.
    return f"repeat the run in a new folder with: mnist-trainer train --config {shlex.quote(str(folder / CONFIG))}"


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _are_same_kind(device: str, other: str) -> bool:
    """Return whether both names have the same number of devices of one kind, on which a run gives the same bits."""
    return device.partition(":")[0] == other.partition(":")[0] and device.count(",") == other.count(",")
