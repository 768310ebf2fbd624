"""`mnist-trainer train`: a run from its beginning, or one that goes on; alone, or as a process of a job."""

import os
import shlex
import sys
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from mnist_trainer import runtime
from mnist_trainer.commands.request import Arguments, make_run_folder, read_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import say
from mnist_trainer.distributed.job import LAUNCHED_BY, WORKER, Job
from mnist_trainer.errors import DONE, INTERRUPTED, Interrupted, RequestError, RunError
from mnist_trainer.run_folder import CONFIG, CURVES, RunFolder

if TYPE_CHECKING:
    from mnist_trainer.distributed.process_group import Team


def train(arguments: Arguments) -> int:
    job = Job.from_variables(os.environ)
    folder = _folder_to_resume(arguments) if arguments.resume else None
    if folder and job is None:
        folder.lock()
    config = read_config(arguments)
    runtime.prepare(config.runtime.threads)
    if job is None:
        from mnist_trainer.distributed.process_group import ALONE

        return _train(arguments, config, folder, ALONE)
    from mnist_trainer.distributed import parameter_server

    if job.role != WORKER:
        parameter_server.serve(job, config.runtime.patience_seconds)
        return DONE
    return _train(arguments, config, folder, parameter_server.join(job, config.runtime.patience_seconds))


def _train(arguments: Arguments, config: RunConfig, to_resume: RunFolder | None, team: "Team") -> int:
    """Trains alone, or as one of a team, whose first has the run folder and says what there is to say."""
    from mnist_trainer.runtime.signals import stop_wish
    from mnist_trainer.training import experiment
    from mnist_trainer.training.callbacks import ProgressBar, TutorialLines, drops_line
    from mnist_trainer.training.checkpoint import newest_whole

    leads = team.rank == 0
    checkpoint = None
    with team.together():
        if to_resume:
            if leads:
                to_resume.lock()
            if not to_resume.is_finished:
                checkpoint = newest_whole(to_resume, say if leads else _keep_quiet)
            experiment.refuse_changes(to_resume, config, checkpoint)
        prepared = None if to_resume and to_resume.is_finished else experiment.prepare(config, arguments.data_dir, team)
    if prepared is None:
        if to_resume and leads:
            _complete(to_resume, config)
        team.leave()
        return DONE
    team.refuse_differences(experiment.what_all_must_have(config, prepared, checkpoint))
    with team.together():
        folder = (to_resume or make_run_folder(arguments, config.training.scheduler_mode)) if leads else None
    if to_resume and folder:
        where = f"going on after iteration {checkpoint.iteration}" if checkpoint else "it has no checkpoint, and begins again"
        say(f"{folder.path}: {where}")
        for sentence in experiment.what_is_new(prepared, folder):
            say(f"{folder.path}: {sentence}")
    start = partial(experiment.run, prepared, folder)
    if to_resume:
        start = partial(experiment.resume, prepared, folder, checkpoint)
    if folder and not arguments.quiet:
        resolved = prepared.config
        where = f"Device {resolved.runtime.device}, OpenMP threads {resolved.runtime.threads}, {resolved.model.stages} stages"
        workers = f", {team.size} workers" if team.size > 1 else ""
        print(f"{where}{workers}, run folder {folder.path}", file=sys.stderr)
    if folder and (line := drops_line(prepared.schedule, config.run_length.total_iterations)):
        print(line, flush=True)
    lines = [TutorialLines()] if folder else []
    bar = ProgressBar(config.training.epochs) if folder and not arguments.quiet else None
    try:
        with stop_wish() as stop_requested, bar or nullcontext():
            summary = start(arguments.command_line, [*lines, *([bar] if bar else [])], stop_requested)
    except (Interrupted, KeyboardInterrupt) as interruption:
        if folder:
            say(f"{str(interruption) or 'interrupted'}; {_how_to_go_on(folder, config, arguments)}")
        if isinstance(interruption, Interrupted):
            team.leave()
        return INTERRUPTED
    except RunError as error:
        if not folder:
            raise
        raise RunError(f"{error}; what was done until now is in {folder.path}") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        if not folder:
            raise
        what = f"{error.filename or 'standard output'}: {error.strerror}"
        raise RunError(f"{what}; when that is mended, {_how_to_go_on(folder, config, arguments)}") from error
    if folder:
        print(
            f"Test accuracy {summary['test_accuracy']:.2%} ({summary['test_correct']} of {summary['test_total']}), "
            f"test loss {summary['test_loss']:.6f}; {summary['iterations']} iterations, {summary['seconds']:.1f} s with tests"
        )
        print(f"Parameters SHA-256 {summary['parameters_sha256']}")
        print(f"Run folder {folder.path}", flush=True)
    team.leave()
    return DONE


def _complete(folder: RunFolder, config: RunConfig) -> None:
    """Draw the figure of a finished run if it is missing."""
    from mnist_trainer.training import experiment

    if (folder / CURVES).exists():
        print(f"{folder.path}: the run is finished; there is nothing to resume")
    elif experiment.draw_curves(folder, config):
        print(f"{folder.path}: the run is finished; {CURVES} was missing and is drawn")


def _keep_quiet(_sentence: str) -> None:
    """In place of `say` where the first of a team says it."""


def _how_to_go_on(folder: RunFolder, config: RunConfig, arguments: Arguments) -> str:
    from mnist_trainer.training.experiment import resume_arguments

    if not (folder / CONFIG).is_file():  # it had not begun, or the folder is gone
        return "start it again"
    launched_by = shlex.split(os.environ.get(LAUNCHED_BY, ""))
    command = [*(launched_by or ["mnist-trainer"]), *resume_arguments(folder, config)]
    if arguments.data_dir:
        command += ["--data-dir", str(arguments.data_dir)]
    return f"go on with: {shlex.join(command)}"


def _folder_to_resume(arguments: Arguments) -> RunFolder:
    for flag in ("--config", "--output"):
        if getattr(arguments, flag.removeprefix("--")) is not None:
            raise RequestError(
                f"--resume {arguments.resume}: goes on with the run's own configuration, there; leave {flag} out"
            )
    folder = RunFolder.open(arguments.resume)
    arguments.config = folder / CONFIG
    return folder
