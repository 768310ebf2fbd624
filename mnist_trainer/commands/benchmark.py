"""`mnist-trainer benchmark`: compare the speed of this program with that of other implementations."""

from contextlib import suppress

from mnist_trainer.commands.request import Arguments, make_run_folder, read_config
from mnist_trainer.console import print_lines, say
from mnist_trainer.errors import DONE, INTERRUPTED, RequestError, RunError, collected


def benchmark(arguments: Arguments) -> int:
    """Run `mnist-trainer benchmark`; return the exit code."""
    problems, arguments.problems = arguments.problems, []
    with collected(problems):
        config = read_config(arguments)
        from mnist_trainer.benchmark import report, session

        requested = {name: getattr(arguments, name) for name in ("implementations", "peer_python", "data_dir")}
        prepared = session.prepare(config, repetitions=arguments.repetitions or 1, **requested)
    if problems:
        raise RequestError(*problems)
    from mnist_trainer.progress import progress_bar

    for sentence in prepared.left_out:
        say(f"left out: {sentence}")
    was_there = False
    with suppress(OSError):  # the name is too long; make_run_folder reports it
        was_there = arguments.output is not None and arguments.output.is_dir()
    folder = make_run_folder(arguments, "benchmark")
    try:
        with progress_bar("Rounds", prepared.total_rounds, is_quiet=arguments.quiet) as bar:
            lines = session.run(prepared, folder, arguments.command_line, bar.update)
    except (KeyboardInterrupt, RunError) as error:
        if not (folder / report.RECORD).is_file():
            raise
        kept = f"the measurements so far are in {folder.path}"
        if isinstance(error, RunError):
            raise RunError(f"{error}; {kept}") from error
        say(f"interrupted; {kept}")
        return INTERRUPTED
    finally:
        if not was_there:
            with suppress(OSError):  # do not remove a folder that is not empty
                folder.path.rmdir()
    print_lines(*lines, f"Folder {folder.path}")
    return DONE
