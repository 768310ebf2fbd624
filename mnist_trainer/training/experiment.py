"""What is done with a configuration, up to the finished folder: a run, or a search for a learning rate.

Puts the parts together and checks all that can be checked before the first file is written; the loop itself is
in `loop`, that of the search in `lr_finder`.
"""

import errno
import hashlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnist_trainer import run_folder, runtime
from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.schema import ModelConfig, RunConfig
from mnist_trainer.data.loaders import Share, create_loaders, create_validation_loader
from mnist_trainer.data.mnist_files import FILES, files_problems, find_data_dir, sha256_of
from mnist_trainer.diagnostics.environment import describe_environment, environment_changes
from mnist_trainer.distributed.process_group import ALONE, Team
from mnist_trainer.errors import RequestError, RunError, collected
from mnist_trainer.figures import draw
from mnist_trainer.model.backends import choose_stages, with_stages
from mnist_trainer.model.network import build_cnn, initialize, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import hardware
from mnist_trainer.runtime.devices import are_cpu, device_name, resolve_devices
from mnist_trainer.schedules import AnySchedule, ScheduleError, check_rates
from mnist_trainer.training.checkpoint import Checkpoint, Checkpointer, DamagedError, go_back_to, restore
from mnist_trainer.training.fused_sgd import choose_optimizer
from mnist_trainer.training.loop import EpochMetrics, IterationRecord, Observer, fit, seed_everything
from mnist_trainer.training.lr_finder import LrSweep, SweepRow, find_learning_rate, write_result, write_rows
from mnist_trainer.training.trainer import ScheduledTrainer, create_trainer

mx = runtime.import_mxnet()


@dataclass(frozen=True)
class Checked:
    """A run that has passed every check.

    config: with device, threads and stages resolved, so that it repeats the run as it was.
    """

    config: RunConfig
    contexts: Sequence[Any]
    data_dir: Path


@dataclass(frozen=True)
class Experiment(Checked):
    """A run that has passed every check and waits to be started.

    team: who trains it; the loaders have what is this one's.
    """

    schedule: AnySchedule
    hyperparameter_schedules: Mapping[str, AnySchedule]
    train_loader: Any
    test_loader: Any
    validation_loader: Any
    team: Team

    def staged(self, net: Any) -> Any:
        """What is trained in place of `net`: the same function of the same parameters, computed as the configuration says."""
        return with_stages(net, self.config.model.stages, self.contexts)


def check(config: RunConfig, data_dir: Path | None = None, team: Team = ALONE) -> Checked:
    """Checks schedule, device, stages and data; loads no images and writes nothing.

    Raises RequestError with all that is wrong.
    """
    folder = find_data_dir(data_dir)
    problems = _schedule_problems(config)
    threads = 0
    contexts: list[Any] = []
    stages = ""
    with collected(problems):
        threads = hardware.choose_threads(config.runtime.threads)
    with collected(problems):
        contexts = resolve_devices(config.runtime.device)
        _refuse_too_many(contexts, config, team)
    with collected(problems):
        stages = choose_stages(config.model.stages, contexts)
    problems += files_problems(folder)
    if problems:
        raise RequestError(*problems)
    runtime_config = replace(config.runtime, device=device_name(contexts), threads=threads)
    return Checked(replace(config, model=ModelConfig(stages=stages), runtime=runtime_config), contexts, folder)


def prepare(config: RunConfig, data_dir: Path | None = None, team: Team = ALONE) -> Experiment:
    """Checks a run and loads its data. Writes nothing. Raises RequestError with all that is wrong."""
    runtime.prepare(config.runtime.threads)
    checked = check(config, data_dir, team)
    where = None if are_cpu(checked.contexts) else checked.contexts[0]
    share = Share(team.rank, team.size)
    train_loader, test_loader = create_loaders(config, checked.data_dir, where, share)
    return Experiment(
        config=checked.config,
        contexts=checked.contexts,
        data_dir=checked.data_dir,
        schedule=config.build_schedule(),
        hyperparameter_schedules=config.build_hyperparameters(),
        train_loader=train_loader,
        test_loader=test_loader,
        validation_loader=create_validation_loader(config, checked.data_dir, where, share),
        team=team,
    )


def run(
    experiment: Experiment,
    folder: RunFolder | None,
    command_line: Sequence[str] = (),
    observers: Sequence[Observer] = (),
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains from the beginning, and fills the run folder. Returns the content of its `summary.json`, which is written last.

    folder: None for all of a team but the first, who write nothing, and return {}.
    stop_requested: asked after each iteration; when it says so, the run is saved and stops.

    Raises RunError when the run cannot go on, and Interrupted when it was asked to stop; what was written until then stays.
    """
    if folder:
        _write_origin(experiment, folder, command_line)
    return _train(experiment, folder, *start(experiment), observers, stop_requested, None)


def resume(
    experiment: Experiment,
    folder: RunFolder | None,
    checkpoint: Checkpoint | None,
    command_line: Sequence[str] = (),
    observers: Sequence[Observer] = (),
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Goes on with a run as if it had never stopped; from its beginning where there is no checkpoint. As `run` otherwise.

    The network and its training are those of the run folder's configuration, whatever the checkpoint says.
    """
    net, trainer = start(experiment)
    environment = _resumed_environment(experiment, folder, command_line) if folder else {}
    if checkpoint:
        try:
            restore(checkpoint, net, trainer)
        except DamagedError as error:
            raise RunError(f"{error}; {_way_out(checkpoint.path.parents[1], checkpoint.path)}") from error
    if folder:
        if checkpoint:
            go_back_to(checkpoint, folder)
        else:
            folder.remove_leftovers()
            folder.begin_anew()
        folder.write_text(run_folder.CONFIG, experiment.config.to_toml())
        folder.write_json(run_folder.ENVIRONMENT, environment)
    return _train(experiment, folder, net, trainer, observers, stop_requested, checkpoint)


def start(experiment: Experiment) -> tuple[Any, ScheduledTrainer]:
    """Network and trainer as a run begins with them."""
    net = _initial_network(experiment)
    config = experiment.config
    trainer = create_trainer(
        net.collect_params(),
        experiment.schedule,
        config.training.scheduler_mode,
        choose_optimizer(config.optimizer["name"], config.model.stages, experiment.contexts),
        config.optimizer_arguments,
        experiment.hyperparameter_schedules,
        experiment.team.kvstore,
    )
    return net, trainer


def _train(
    experiment: Experiment,
    folder: RunFolder | None,
    net: Any,
    trainer: ScheduledTrainer,
    observers: Sequence[Observer],
    stop_requested: Callable[[], bool],
    checkpoint: Checkpoint | None,
) -> dict[str, Any]:
    config = experiment.config
    team = experiment.team
    keeper = Checkpointer(folder, config, net, trainer, checkpoint.seconds if checkpoint else 0.0, stop_requested, team)
    with _mxnet_errors_explained():
        fit(
            experiment.staged(net),
            experiment.train_loader,
            experiment.test_loader,
            trainer,
            config.training.epochs,
            (*([FolderWriter(folder)] if folder else []), *observers),
            experiment.validation_loader,
            checkpoint.position if checkpoint else None,
            keeper,
            team,
        )
    return _finish(folder, net, config, keeper.seconds) if folder else {}


def _finish(folder: RunFolder, net: Any, config: RunConfig, seconds: float) -> dict[str, Any]:
    """Writes what stands at the end of a run."""
    folder.write_file(run_folder.PARAMETERS, lambda path: _save_parameters(net, path))
    draw_curves(folder, config)
    test_total = config.data.test_images
    last = folder.read_metrics()[-1]
    summary = {
        "status": "finished",
        "epochs": last["epoch"],
        "iterations": last["iteration"],
        "seconds": seconds,
        "final_learning_rate": last["learning_rate"],
        "train_loss": last["train_loss"],
        "test_loss": last["test_loss"],
        "test_accuracy": last["test_accuracy"],
        "test_correct": round(last["test_accuracy"] * test_total),
        "test_total": test_total,
        "parameters_sha256": parameters_sha256(net),
    }
    folder.write_json(run_folder.SUMMARY, summary)
    return summary


def draw_curves(folder: RunFolder, config: RunConfig) -> bool:
    """Draw `curves.png` from the other files of a run; return whether it is there. A failure is reported."""
    command = shlex.join(["mnist-trainer", *resume_arguments(folder, config)])
    return draw(folder, run_folder.CURVES, lambda plots: plots.plot_run(folder), f"to draw it later: {command}")


def resume_arguments(folder: RunFolder, config: RunConfig) -> list[str]:
    """Return the arguments of the command line that resumes a run. They name the user's code that it runs."""
    users_code = (f"{key}={name}" for key, name in config.users_code().items())
    return ["train", "--resume", str(folder.path), *(word for setting in users_code for word in ("--set", setting))]


def _save_parameters(net: Any, path: Path) -> None:
    path.open("wb").close()  # says better than MXNet why a file cannot be written
    try:
        net.save_parameters(str(path))
        mx.nd.load(str(path))  # MXNet says nothing when the last kilobytes find no room on the disk
    except mx.MXNetError as error:
        raise OSError(errno.EIO, "MXNet could not write all of it; is the disk full?", str(path)) from error


def search_learning_rate(
    experiment: Experiment,
    folder: RunFolder,
    command_line: Sequence[str] = (),
    on_iteration: Callable[[SweepRow], object] | None = None,
    **sweep_arguments: float,
) -> LrSweep:
    """Sweeps the learning rate for the network that a run would begin with.

    Writes `lr_finder.csv`, its figure, and last `lr_finder.json` with the suggestions.

    sweep_arguments: `start_lr`, `end_lr` and `iterations` of `find_learning_rate`.

    Raises RunError when MXNet fails.
    """
    _write_origin(experiment, folder, command_line)
    net = _initial_network(experiment)
    config = experiment.config
    # Only the rate is on trial: what else has a schedule stays as it is at the first iteration.
    beginnings = {name: schedule(1) for name, schedule in experiment.hyperparameter_schedules.items()}
    rows: list[SweepRow] = []

    def keep(row: SweepRow) -> None:
        rows.append(row)
        if on_iteration:
            on_iteration(row)

    try:
        with _mxnet_errors_explained():
            sweep = find_learning_rate(
                experiment.staged(net),
                experiment.train_loader,
                config.optimizer["name"],
                {**config.optimizer_arguments, **beginnings},
                on_iteration=keep,
                **sweep_arguments,  # type: ignore[arg-type]  # iterations is an int
            )
    finally:  # also of a sweep that was interrupted
        write_rows(rows, folder)
    draw(
        folder,
        run_folder.LR_FINDER_FIGURE,
        lambda plots: plots.plot_lr_sweep(sweep.rows, sweep.steepest, sweep.tenth_of_minimum),
        "to draw it, search again with another --output",
    )
    write_result(sweep, folder)
    return sweep


def _write_origin(experiment: Experiment, folder: RunFolder, command_line: Sequence[str]) -> None:
    """What it takes to do it again: the configuration and the environment."""
    folder.write_text(run_folder.CONFIG, experiment.config.to_toml())
    folder.write_json(run_folder.ENVIRONMENT, _environment(experiment, command_line))


def _environment(experiment: Experiment, command_line: Sequence[str]) -> dict[str, Any]:
    config = experiment.config
    device, threads, stages = config.runtime.device, int(config.runtime.threads), config.model.stages
    return describe_environment(device, threads, stages, experiment.data_dir, command_line, experiment.team.size)


def _resumed_environment(experiment: Experiment, folder: RunFolder, command_line: Sequence[str]) -> dict[str, Any]:
    """The environment in which the run began, with that in which it goes on."""
    now = _environment(experiment, command_line)
    if not (folder / run_folder.ENVIRONMENT).exists():  # it died before this was written
        return now
    began = folder.read_json(run_folder.ENVIRONMENT)
    resumed = began.get("resumed", [])
    return began | {"resumed": [*(resumed if isinstance(resumed, list) else [resumed]), now]}


def what_all_must_have(config: RunConfig, experiment: Experiment, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """What has to be the same in all of a team, for one run to come of it; the machines need not be.

    config: as it was asked for.
    """
    tables = config.to_tables()
    del tables["runtime"]
    rates = experiment.config.build_schedule().rates(1, config.run_length.total_iterations)
    return {
        **{f"{section}.{key}": value for section, table in tables.items() for key, value in table.items()},
        "rates": hashlib.sha256(repr(rates).encode()).hexdigest(),
        "checkpoint": checkpoint.iteration if checkpoint else None,
        "program": runtime.package_version("mnist-trainer"),
        "data": {file.name: sha256_of(experiment.data_dir / file.name) for file in FILES},
    }


def what_is_new(experiment: Experiment, folder: RunFolder) -> list[str]:
    """In what the installation is not that in which a run began: what may change the last bits, a sentence each."""
    if not (folder / run_folder.ENVIRONMENT).exists():
        return []
    return environment_changes(folder.read_json(run_folder.ENVIRONMENT), _environment(experiment, ()))


def _initial_network(experiment: Experiment) -> Any:
    seed_everything(experiment.config.training.seed)
    net = build_cnn()
    initialize(net, experiment.contexts)
    return net


@contextmanager
def _mxnet_errors_explained() -> Iterator[None]:
    try:
        yield
    except mx.MXNetError as error:
        raise RunError(f"MXNet failed: {runtime.explain_mxnet_error(error)}") from error


class FolderWriter(Observer):
    """Writes what the loop reports into `iterations.csv` and `metrics.jsonl`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def iterations_done(self, records: Sequence[IterationRecord]) -> None:
        if records[0].iteration > 1:
            self._must_go_on(run_folder.ITERATIONS)
        self.folder.append_iterations((each.iteration, each.learning_rate, each.loss) for each in records)

    def epoch_done(self, metrics: EpochMetrics) -> None:
        row: dict[str, float] = {
            "epoch": metrics.epoch,
            "iteration": metrics.iteration,
            "learning_rate": metrics.learning_rate,
            **metrics.hyperparameters,
            "train_loss": metrics.train.loss,
            "train_accuracy": metrics.train.accuracy,
        }
        if metrics.validation:
            row |= {"validation_loss": metrics.validation.loss, "validation_accuracy": metrics.validation.accuracy}
        row |= {
            "test_loss": metrics.test.loss,
            "test_accuracy": metrics.test.accuracy,
            "epoch_seconds": metrics.epoch_seconds,
            "test_seconds": metrics.test_seconds,
            "images_per_second": metrics.images_per_second,
        }
        if metrics.epoch > 1:
            self._must_go_on(run_folder.METRICS)
        self.folder.append_metrics(row)

    def _must_go_on(self, name: str) -> None:
        # What somebody has removed would begin anew, without its beginning.
        if not (self.folder / name).exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder / name))


def refuse_changes(folder: RunFolder, config: RunConfig, checkpoint: Checkpoint | None) -> None:
    """Raises RequestError with the keys in which `config` is not that of the run to be gone on with.

    The device may be another of its kind, or as many others, and when to save and how long to wait may change; the epochs may
    be more, where the rates of what is done are the same in the longer run. Of a finished run nothing may change.
    """
    # The folder's file may have been written into since.
    before = checkpoint.config if checkpoint else load_recorded_config(folder / run_folder.CONFIG)
    problems = [
        f"--resume {folder.path}: {key} was {old!r} and cannot become {new!r} in the middle of a run"
        for key, old, new in before.differences(config)
        if key not in ("training.epochs", "runtime.patience_seconds")
        and not key.startswith("checkpoint.")
        and not (key == "runtime.device" and _alike(old, new))
    ]
    if folder.is_finished and config.training.epochs != before.training.epochs:
        problems.append(
            f"--resume {folder.path}: the run is finished, and its {before.training.epochs} epochs stay what they are; "
            f"a longer one begins with --config {folder / run_folder.CONFIG} --epochs {config.training.epochs}"
        )
    if folder.is_finished and not (folder / run_folder.PARAMETERS).is_file():
        problems.append(
            f"{folder / run_folder.PARAMETERS}: is missing from a finished run; "
            f"{_way_out(folder.path, folder / run_folder.SUMMARY)}"
        )
    if config.training.epochs < before.training.epochs:
        problems.append(f"--resume {folder.path}: training.epochs can grow, but {config.training.epochs} is less than it was")
    elif config.training.epochs > before.training.epochs and checkpoint and not problems:
        # Without problems the schedules are the same, and code that they name has been trusted already.
        done = checkpoint.iteration
        schedules = {"schedule": (before.build_schedule(), config.build_schedule())} | {
            name: (before.build_hyperparameter(name), longer) for name, longer in config.build_hyperparameters().items()
        }
        for name, (short, longer) in schedules.items():
            if short.rates(1, done) != longer.rates(1, done):
                sentence = f"the {name} of the longer run would have been another from the beginning"
                problems.append(
                    f"--resume {folder.path}: training.epochs cannot become {config.training.epochs}, for {sentence}"
                )
    for name in (run_folder.ENVIRONMENT, run_folder.SUMMARY):
        try:
            if (folder / name).exists():
                folder.read_json(name)
        except RequestError as error:
            problems += [f"{problem}; {_way_out(folder.path, folder / name)}" for problem in error.problems]
    if problems:
        raise RequestError(*problems)


def _way_out(folder: Path, path: Path) -> str:
    """Return what to do, so that nothing is lost, about a file or a checkpoint with which the run cannot be resumed."""
    kept = (each for each in (folder / run_folder.CHECKPOINTS).glob("*") if each.name.isdigit() and each.is_dir())
    if any(each != path for each in kept):
        return f"move {path} elsewhere, and --resume goes on from the newest checkpoint that is left"
    # Without a checkpoint the run would begin again, and throw away what it has written.
    return f"mnist-trainer train --config {shlex.quote(str(folder / run_folder.CONFIG))} repeats the run in a new folder"


def _alike(device: str, other: str) -> bool:
    """Whether a run comes to the same bits on either: as many devices of the same kind."""
    return device.partition(":")[0] == other.partition(":")[0] and device.count(",") == other.count(",")


def _schedule_problems(config: RunConfig) -> list[str]:
    """What is wrong with the values that the schedules give in this run."""
    total = config.run_length.total_iterations
    problems = []
    for name, schedule in {"schedule": config.build_schedule(), **config.build_hyperparameters()}.items():
        try:
            check_rates(schedule, total, below=1.0 if name == "momentum" else None)
        except ScheduleError as error:
            problems.append(str(error) if name == "schedule" else f"[{name}]: {error}")
    return problems


def _refuse_too_many(contexts: Sequence[Any], config: RunConfig, team: Team) -> None:
    # Who has no image has no gradient to add to the others'.
    if problem := config.sharing_problem(team.size):
        raise RequestError(f"{team.size_spelling}: {team.size} workers {problem}")
    if problem := config.sharing_problem(team.size * len(contexts)):
        each = f" of each of {team.size} workers" if team.size > 1 else ""
        raise RequestError(f"--device {config.runtime.device}: {len(contexts)} devices{each} {problem}")
