"""`mnist-trainer train`: train the network in a new or resumed run, alone or in a group, where only rank 0 writes."""

import os

from mnist_trainer import runtime
from mnist_trainer.commands.request import Arguments, describe_misfits, make_run_folder, name_ending, read_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import Console, SilentConsole
from mnist_trainer.distributed.cluster import WORKER, Cluster
from mnist_trainer.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from mnist_trainer.errors import DONE
from mnist_trainer.run_folder import RunFolder, UnwrittenRunFolder
from mnist_trainer.runtime.signals import stop_request


def train(arguments: Arguments) -> int:
    """Run `mnist-trainer train`; return the exit code."""
    cluster = Cluster.from_variables(os.environ)
    config = read_config(arguments)
    runtime.prepare(config.runtime.threads)
    if cluster is None:
        return _train(arguments, config, SINGLE_PROCESS)
    from mnist_trainer.distributed import parameter_server

    if cluster.role != WORKER:
        parameter_server.serve(cluster, config.runtime.timeout_seconds)
        return DONE
    with parameter_server.join(cluster, config.runtime.timeout_seconds) as group:
        return _train(arguments, config, group)


def _train(arguments: Arguments, config: RunConfig, group: ProcessGroup) -> int:
    folder_class, console = (UnwrittenRunFolder, SilentConsole()) if group.rank else (RunFolder, Console(arguments.quiet))
    console.note_on_terminal(f"Preparing {config.run_length.total_iterations:,} iterations")  # loading MXNet takes a second
    from mnist_trainer.training import callbacks, experiment, resume

    with group.shared_errors():
        resumed = folder_class.open(arguments.resume) if arguments.resume else None
        found = resume.lock_and_find_checkpoint(resumed, config, arguments.unconfirmed, console.say) if resumed else None
    checkpoint, is_finished = found or (None, False)
    if resumed and is_finished:
        console.print(experiment.draw_missing_curves(resumed, config))
        return DONE
    with group.shared_errors():
        misfits = describe_misfits(config)
        prepared = experiment.prepare(config, arguments.data_dir, group, checkpoint=checkpoint, is_quiet=console.is_quiet)
    group.require_same(lambda: experiment.shared_settings(config, prepared, checkpoint, is_quiet=console.is_quiet))
    with group.shared_errors():
        folder = resumed or make_run_folder(arguments, name_ending(config), folder_class)
    resume.report_resumption(console, resumed, checkpoint, prepared.describe_environment())
    console.note(f"{prepared.conditions_line}, run folder {folder.path}", *misfits)
    with (
        resume.advice_on_failure(folder, config, arguments.data_dir),
        stop_request() as stop_requested,
        callbacks.shown_on(console, prepared.schedule, config.run_length) as watchers,
    ):
        options = {"command_line": arguments.command_line, "callbacks": watchers, "stop_requested": stop_requested}
        summary = experiment.run(prepared, folder, checkpoint, **options)
    callbacks.print_summary(console, summary, folder, len(config.data.class_names))
    return DONE
