"""A run from its configuration to the finished folder.

All checks precede the first file that is written. `loop` trains, `resume` prepares a run to be resumed, and `lr_search`
searches for a learning rate.
"""

import errno
import hashlib
import math
import shlex
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mnist_trainer import run_folder, runtime
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import Console
from mnist_trainer.data.files import files_problems, find_data_dir, identified
from mnist_trainer.data.loaders import Shard, create_loaders, create_validation_loader
from mnist_trainer.diagnostics.environment import describe_environment
from mnist_trainer.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from mnist_trainer.errors import RequestError, RunError, collected
from mnist_trainer.figures import draw
from mnist_trainer.model import native
from mnist_trainer.model.backends import accelerate, choose_backend
from mnist_trainer.model.layers import set_multipliers
from mnist_trainer.model.network import (
    check_users_network,
    create_network,
    initialize,
    parameters_in_order,
    parameters_sha256,
)
from mnist_trainer.progress import count_with_bar
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import hardware
from mnist_trainer.runtime.devices import are_cpu, device_name, resolve_devices
from mnist_trainer.schedules import AnySchedule, ScheduleError, check_rates
from mnist_trainer.training.callbacks import Callback, RunFolderWriter
from mnist_trainer.training.checkpoint import Checkpoint, DamagedError, read
from mnist_trainer.training.checkpointer import Checkpointer
from mnist_trainer.training.early_stopping import EarlyStopping
from mnist_trainer.training.fused_sgd import choose_optimizer
from mnist_trainer.training.initial_parameters import read_initial_parameters
from mnist_trainer.training.loop import fit, seed_everything
from mnist_trainer.training.records import LoopState
from mnist_trainer.training.resume import completed_metrics, load_state, merge_environments, resume_arguments, truncate
from mnist_trainer.training.tensorboard import begin_log, require_tensorboard
from mnist_trainer.training.trainer import ScheduledTrainer, create_trainer

mx = runtime.import_mxnet()


@dataclass(frozen=True)
class CheckedConfig:
    """A configuration that has passed all checks.

    Attributes:
        config: The configuration with device, threads and backend resolved. It repeats the run exactly.
        devices: The MXNet contexts to train on.
        data_dir: The folder of the four MNIST files.
        initial_parameters: The parameters with which the run begins, in the order of `parameters_in_order`; None for random
            ones.
    """

    config: RunConfig
    devices: Sequence[Any]
    data_dir: Path
    initial_parameters: Sequence[Any] | None


@dataclass(frozen=True)
class Experiment(CheckedConfig):
    """A checked run with its data, ready to start.

    Attributes:
        schedule: The schedule of the learning rate.
        hyperparameter_schedules: The schedules of momentum and weight decay, by name.
        train_loader: The images to train on.
        test_loader: The test images.
        validation_loader: The images held out of the training; None if there are none.
        process_group: The processes that train together. The loaders yield the shards of this process.
    """

    schedule: AnySchedule
    hyperparameter_schedules: Mapping[str, AnySchedule]
    train_loader: Any
    test_loader: Any
    validation_loader: Any
    process_group: ProcessGroup

    def accelerate(self, network: Any) -> Any:
        """Return the network in the form that its backend computes.

        Args:
            network: The initialized network of the run.

        Returns:
            A network with the same parameters. A user's network is returned unchanged.

        Raises:
            RequestError: The fused operator cannot be loaded, or does not support the devices or parameters.
        """
        return accelerate(network, self.config.model, self.devices)

    def describe_environment(self, command_line: Sequence[str] = ()) -> dict[str, Any]:
        """Return the content of `environment.json`.

        Args:
            command_line: The words of the command line.
        """
        device, threads, backend = self.config.runtime.device, int(self.config.runtime.threads), self.config.model.backend
        return describe_environment(device, threads, backend, self.data_dir, command_line, self.process_group.world_size)

    @property
    def conditions_line(self) -> str:
        """Device, threads and backend in one line."""
        config, world_size = self.config, self.process_group.world_size
        workers = f", {world_size} workers" if world_size > 1 else ""
        path = config.model.initial_parameters
        begins = f", initial parameters of {path}" if self.initial_parameters is not None else ""
        threads = f"OpenMP threads {config.runtime.threads}"
        return f"Device {config.runtime.device}, {threads}, {config.model.backend} backend{workers}{begins}"


def check(
    config: RunConfig,
    data_dir: Path | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
    *,
    checkpoint: Checkpoint | None = None,
    is_quiet: bool = True,
) -> CheckedConfig:
    """Check schedule, device, network, data and backend, without loading images. Build the fused operator if it is needed.

    Args:
        config: The configuration to check.
        data_dir: The folder of the four MNIST files; None for the default.
        process_group: The processes that train together.
        checkpoint: The checkpoint from which to resume; it replaces the initial parameters, which are then not read.
        is_quiet: True to show no progress bar, and not to print why the stock backend is used.

    Returns:
        The configuration with device, threads, backend and initial parameters resolved.

    Raises:
        RequestError: A check failed; the message names all problems.
    """
    folder = find_data_dir(config.data.name, data_dir)
    problems = _schedule_problems(config, is_quiet)
    threads = 0
    devices: list[Any] = []
    model, initial_parameters = config.model, None
    with collected(problems):
        threads = hardware.choose_threads(config.runtime.threads)
    with collected(problems):
        devices = resolve_devices(config.runtime.device)
        _refuse_too_many(devices, config, process_group)
    network_problems: list[str] = []
    with collected(network_problems):
        if config.model.network:
            device_count = len(devices) * process_group.world_size
            check_users_network(config.model.network, device_count, len(config.data.class_names), config.data.image_shape)
    problems += network_problems
    if not network_problems:
        with collected(problems):
            if config.layers:
                network = create_network(config.model.network, len(config.data.class_names))
                set_multipliers(network, config.layers, config.model.network)
        with collected(problems):
            if config.model.initial_parameters and checkpoint is None:
                model, initial_parameters = read_initial_parameters(config)
    with collected(problems):
        if config.runtime.log == "tensorboard":
            require_tensorboard()
    problems += files_problems(folder, config.data)
    if not (problems and native.is_pending()):  # do not build the fused operator for a wrong request
        with collected(problems):
            report = partial(_note_stock_backend, is_quiet)
            model = replace(model, backend=choose_backend(config.model, devices, report, config.data.image_shape))
    if problems:
        raise RequestError(*problems)
    runtime_config = replace(config.runtime, device=device_name(devices), threads=threads)
    resolved = replace(config, model=model, data=identified(folder, config.data), runtime=runtime_config)
    return CheckedConfig(resolved, devices, folder, initial_parameters)


def _note_stock_backend(is_quiet: bool, reason: str) -> None:
    Console(is_quiet).note(f"Using MXNet's own operators, which are slower: {reason}")


def prepare(
    config: RunConfig,
    data_dir: Path | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
    *,
    checkpoint: Checkpoint | None = None,
    is_quiet: bool = True,
) -> Experiment:
    """Check a run and load its data, without writing files.

    Args:
        config: The configuration of the run.
        data_dir: The folder of the four MNIST files; None for the default.
        process_group: The processes that train together.
        checkpoint: The checkpoint from which to resume, as for `check`.
        is_quiet: True to show no progress bar.

    Returns:
        The experiment, ready for `run` or `lr_search.search_learning_rate`.

    Raises:
        RequestError: A check failed; the message names all problems.
    """
    runtime.prepare(config.runtime.threads)
    checked = check(config, data_dir, process_group, checkpoint=checkpoint, is_quiet=is_quiet)
    loader_device = None if are_cpu(checked.devices) else checked.devices[0]
    shard = Shard(process_group.rank, process_group.world_size)
    train_loader, test_loader = create_loaders(config, checked.data_dir, loader_device, shard)
    return Experiment(
        **vars(checked),
        schedule=config.build_schedule(),
        hyperparameter_schedules=config.build_hyperparameters(),
        train_loader=train_loader,
        test_loader=test_loader,
        validation_loader=create_validation_loader(config, checked.data_dir, loader_device, shard),
        process_group=process_group,
    )


def run(
    experiment: Experiment,
    folder: RunFolder,
    checkpoint: Checkpoint | None = None,
    *,
    command_line: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train a network and write the run folder.

    Args:
        experiment: The experiment, from `prepare`.
        folder: The run's folder, new or to be resumed.
        checkpoint: The checkpoint to resume from; None for the beginning. A resumed run gives the same results as one that
            never stopped.
        command_line: The words of the command line, for `environment.json`.
        callbacks: Callbacks to notify after the rows are written and before a checkpoint is saved.
        stop_requested: A function that is called after each iteration, less often with several processes. When it returns True,
            the run is saved and stops.

    Returns:
        The content of `summary.json`, which is written last.

    Raises:
        RunError: The run cannot continue. The files that it has written remain.
        MXNetError: MXNet failed.
        Interrupted: `stop_requested` returned True, and the run was saved.
    """
    config = experiment.config
    network, trainer = create_network_and_trainer(experiment)
    environment = merge_environments(folder, experiment.describe_environment(command_line))
    state = load_state(checkpoint, network, trainer) if checkpoint else LoopState()
    early_stopping = EarlyStopping(**vars(config.early_stopping), completed=completed_metrics(folder, checkpoint))
    state.stopped_because = early_stopping.stopped_because
    truncate(folder, checkpoint)
    write_origin(experiment, folder, environment)
    log = [begin_log(folder, config, experiment.data_dir)] if config.runtime.log != "none" and folder.is_written else []
    checkpointer = Checkpointer(
        folder,
        config,
        network,
        trainer,
        early_stopping,
        seconds_before=checkpoint.seconds if checkpoint else 0.0,
        stop_requested=stop_requested,
    )
    history = fit(
        experiment.accelerate(network),
        experiment.train_loader,
        experiment.test_loader,
        trainer,
        config.training.epochs,
        callbacks=(RunFolderWriter(folder), *log, early_stopping, *callbacks, checkpointer),
        validation_loader=experiment.validation_loader,
        state=state,
    )
    metrics = history[-1].to_row() if history else folder.read_metrics()[-1]
    is_early = metrics["epoch"] < config.training.epochs
    results = {"seconds": checkpointer.seconds, "stopped_because": state.stopped_because if is_early else None}
    return _finish(folder, network, config, metrics, early_stopping.best, results)


def create_network_and_trainer(experiment: Experiment) -> tuple[Any, ScheduledTrainer]:
    """Create the network and the trainer with which a run begins.

    Args:
        experiment: The experiment, from `prepare`.

    Returns:
        The initialized network and its trainer.
    """
    network = create_initial_network(experiment)
    config = experiment.config
    trainer = create_trainer(
        network.collect_params(),
        experiment.schedule,
        config.training.scheduler_mode,
        choose_optimizer(config.optimizer["name"], config.model.backend, experiment.devices),
        config.optimizer_arguments,
        hyperparameter_schedules=experiment.hyperparameter_schedules,
        process_group=experiment.process_group,
    )
    return network, trainer


def create_initial_network(experiment: Experiment) -> Any:
    """Create the network with which a run begins, with the initial parameters or with some drawn from the run's seed.

    Args:
        experiment: The experiment, from `prepare`.
    """
    seed_everything(experiment.config.training.seed)
    data = experiment.config.data
    network = create_network(experiment.config.model.network, len(data.class_names))
    if experiment.config.layers:
        set_multipliers(network, experiment.config.layers, experiment.config.model.network)
    seed_everything(experiment.config.training.seed)  # again, because a user's function may have drawn numbers
    initialize(network, experiment.devices, data.image_shape)
    if experiment.initial_parameters is not None:
        for parameter, values in zip(parameters_in_order(network), experiment.initial_parameters, strict=True):
            parameter.set_data(mx.nd.array(values, dtype=values.dtype))
    return network


def write_origin(experiment: Experiment, folder: RunFolder, environment: Mapping[str, Any]) -> None:
    """Write `config.toml` and `environment.json`, which suffice to repeat the run.

    Args:
        experiment: The experiment, from `prepare`.
        folder: The folder to write to.
        environment: The content of `environment.json`.
    """
    folder.write_text(run_folder.CONFIG, experiment.config.to_toml())
    folder.write_json(run_folder.ENVIRONMENT, environment)


def draw_missing_curves(folder: RunFolder, config: RunConfig) -> str:
    """Draw the figure of a finished run if it is missing.

    Args:
        folder: The run's folder.
        config: The run's configuration.

    Returns:
        A message about the run and its figure.
    """
    if folder.has_file(run_folder.CURVES):
        state = "there is nothing to resume"
    else:
        state = (
            f"{run_folder.CURVES} was missing and has been drawn"
            if draw_curves(folder, config)
            else f"{run_folder.CURVES} is missing"
        )
    return f"{folder.path}: the run is finished; {state}"


def draw_curves(folder: RunFolder, config: RunConfig) -> bool:
    """Draw `curves.png` from the other files of a run. A failure is reported and does not raise.

    Args:
        folder: The run's folder.
        config: The run's configuration.

    Returns:
        True if the figure was drawn.
    """
    command, total = shlex.join(["mnist-trainer", *resume_arguments(folder, config)]), config.run_length.total_iterations
    return draw(folder, run_folder.CURVES, lambda plots: plots.plot_run(folder, total), f"to draw it later: {command}")


def shared_settings(
    config: RunConfig, experiment: Experiment, checkpoint: Checkpoint | None, *, is_quiet: bool = True
) -> dict[str, Any]:
    """Return the settings that must match on all workers of a run. The machines may differ.

    Args:
        config: The configuration as it was requested.
        experiment: The experiment prepared from it.
        checkpoint: The checkpoint to resume from; None for the beginning.
        is_quiet: True to show no progress bar.
    """
    tables = config.to_tables()
    del tables["runtime"]
    tables["data"]["sha256"] = experiment.config.data.sha256
    tables["model"] |= {
        "initial_parameters": None,  # the files may be in other places
        "initial_parameters_sha256": experiment.config.model.initial_parameters_sha256,
    }
    rates = hashlib.sha256()
    schedule = experiment.config.build_schedule()
    for iteration in count_with_bar("Comparing rates", config.run_length.total_iterations, is_quiet=is_quiet):
        rates.update(struct.pack("<d", schedule(iteration)))
    return {
        **{f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()},
        "rates": rates.hexdigest(),
        "checkpoint": checkpoint.iteration if checkpoint else None,
        "program": runtime.package_version("mnist-trainer"),
    }


def _finish(
    folder: RunFolder,
    network: Any,
    config: RunConfig,
    metrics: Mapping[str, Any],
    best: Mapping[str, Any] | None,
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the parameters, the figure and the summary at the end of a run.

    Args:
        folder: The run's folder.
        network: The trained network. With validation images, its parameters become those of the best epoch.
        config: The run's configuration.
        metrics: The metrics of the last epoch.
        best: The metrics of the best epoch.
        results: Further entries of the summary.

    Returns:
        The content of `summary.json`.
    """
    folder.write_file(run_folder.PARAMETERS, lambda stream: _save_parameters(network, stream))
    test_total = config.data.test_images
    summary = {
        "status": "finished",
        "epochs": metrics["epoch"],
        "iterations": metrics["iteration"],
        **results,
        "final_learning_rate": metrics["learning_rate"],
        "train_loss": metrics["train_loss"],
        "test_loss": metrics["test_loss"],
        "test_accuracy": metrics["test_accuracy"],
        "test_correct": round(metrics["test_accuracy"] * test_total),
        "test_total": test_total,
        "parameters_sha256": parameters_sha256(network),
    }
    if config.data.validation_images and best and folder.is_written:
        _write_best_parameters(folder, network, config, best["iteration"])
        summary |= {
            "best_epoch": best["epoch"],
            "best_validation_loss": best["validation_loss"],
            "best_validation_accuracy": best["validation_accuracy"],
            "best_parameters_sha256": parameters_sha256(network),
        }
    draw_curves(folder, config)
    folder.write_json(run_folder.SUMMARY, summary)
    return summary


def _write_best_parameters(folder: RunFolder, network: Any, config: RunConfig, iteration: int) -> None:
    """Load the checkpoint of the best epoch into the network and write `best.params`.

    Raises:
        RunError: The checkpoint is missing or damaged.
    """
    try:
        read(folder.checkpoint(iteration), has_own_shapes=config.has_own_shapes).load_parameters(network)
    except DamagedError as error:
        what = f"{run_folder.BEST_PARAMETERS} is made from this checkpoint of the best epoch"
        raise RunError(f"{error}; {what}, so restore it and resume the run, or repeat the run") from error
    folder.write_file(run_folder.BEST_PARAMETERS, lambda stream: _save_parameters(network, stream))


def _save_parameters(network: Any, stream: BinaryIO) -> None:
    path = f"/proc/self/fd/{stream.fileno()}"  # MXNet takes no stream
    try:
        network.save_parameters(path)
        mx.nd.load(path)  # MXNet does not report a full disk if only the last kilobytes are missing
    except mx.MXNetError as error:
        if runtime.lacks_memory(error):
            raise
        raise OSError(errno.EIO, "MXNet could not write the whole file; check for free disk space") from error


def _schedule_problems(config: RunConfig, is_quiet: bool) -> list[str]:
    """Return the problems of the schedules' values in this run."""
    total = config.run_length.total_iterations
    problems = []
    for name, schedule in {"schedule": config.build_schedule(), **config.build_hyperparameters()}.items():
        try:
            iterations = count_with_bar(f"Checking the {name}", total, is_quiet=is_quiet)
            check_rates(schedule, iterations, below=1.0 if name == "momentum" else math.inf)
        except ScheduleError as error:
            problems.append(str(error) if name == "schedule" else f"[{name}]: {error}")
    return problems


def _refuse_too_many(devices: Sequence[Any], config: RunConfig, process_group: ProcessGroup) -> None:
    # A process or device without images has no gradient to add to the others.
    workers = process_group.world_size
    if problem := config.sharing_problem(workers):
        raise RequestError(f"{process_group.world_size_setting}: {workers} workers {problem}")
    if problem := config.sharing_problem(workers * len(devices)):
        of_each = f" of each of {workers} workers" if workers > 1 else ""
        raise RequestError(f"--device {config.runtime.device}: {len(devices)} devices{of_each} {problem}")
