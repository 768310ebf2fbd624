"""`mnist-trainer train`: a run from its beginning, or one that goes on."""

import shlex
import sys
from functools import partial

from mnist_trainer import runtime
from mnist_trainer.commands.request import Arguments, make_run_folder, read_config
from mnist_trainer.config import RunConfig
from mnist_trainer.errors import DONE, INTERRUPTED, Interrupted, RequestError, RunError, say
from mnist_trainer.run_folder import CONFIG, RunFolder


def train(arguments: Arguments) -> int:
    folder = _folder_to_resume(arguments) if arguments.resume else None
    config = read_config(arguments)
    runtime.prepare(config.runtime.threads)
    from mnist_trainer import experiment
    from mnist_trainer.checkpoint import newest_whole
    from mnist_trainer.interruption import stop_wish
    from mnist_trainer.progress import ProgressBar, TutorialLines, drops_line

    checkpoint = newest_whole(folder, say) if folder and not folder.is_finished else None
    if folder:
        experiment.refuse_changes(folder, config, checkpoint)
        if folder.is_finished:
            print(f"{folder.path}: the run is finished; there is nothing to go on with")
            return DONE
    prepared = experiment.prepare(config, arguments.data_dir)
    if folder:
        where = f"going on after iteration {checkpoint.iteration}" if checkpoint else "it has no checkpoint, and begins again"
        say(f"{folder.path}: {where}")
        for sentence in experiment.what_is_new(prepared, folder):
            say(f"{folder.path}: {sentence}")
        start = partial(experiment.resume, prepared, folder, checkpoint)
    else:
        folder = make_run_folder(arguments, config.training.scheduler_mode)
        start = partial(experiment.run, prepared, folder)
    if not arguments.quiet:
        resolved = prepared.config
        where = f"Device {resolved.runtime.device}, OpenMP threads {resolved.runtime.threads}, {resolved.model.stages} stages"
        print(f"{where}, run folder {folder.path}", file=sys.stderr)
    if line := drops_line(prepared.schedule, config.run_length.total_iterations):
        print(line, flush=True)
    bars = [] if arguments.quiet else [ProgressBar(config.training.epochs)]
    try:
        with stop_wish() as stop_requested:
            summary = start(arguments.command_line, [TutorialLines(), *bars], stop_requested)
    except (Interrupted, KeyboardInterrupt) as interruption:
        say(f"{str(interruption) or 'interrupted'}; {_how_to_go_on(folder, config, arguments)}")
        return INTERRUPTED
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


def _how_to_go_on(folder: RunFolder, config: RunConfig, arguments: Arguments) -> str:
    if not (folder / CONFIG).is_file():  # it had not begun, or the folder is gone
        return "start it again"
    command = ["mnist-trainer", "train", "--resume", str(folder.path)]
    for key, name in config.users_code().items():
        command += ["--set", f"{key}={name}"]
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
    folder.lock()
    arguments.config = folder / CONFIG
    return folder
