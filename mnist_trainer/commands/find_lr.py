"""`mnist-trainer find-lr`: search for a good learning rate with the range test."""

from mnist_trainer import runtime
from mnist_trainer.commands.request import Arguments, make_run_folder, read_config
from mnist_trainer.config.schema import SweepConfig, flag_of
from mnist_trainer.console import print_lines, say
from mnist_trainer.errors import DONE, INTERRUPTED, RequestError, RunError, collected
from mnist_trainer.fields import FieldError


def find_lr(arguments: Arguments) -> int:
    """Run `mnist-trainer find-lr`; return the exit code."""
    problems, arguments.problems = arguments.problems, []
    with collected(problems):
        config = read_config(arguments)
    with collected(problems):
        sweep_config = _read_sweep(arguments)
    if problems:
        raise RequestError(*problems)
    runtime.prepare(config.runtime.threads)
    from mnist_trainer.progress import progress_bar
    from mnist_trainer.training import experiment
    from mnist_trainer.training.lr_finder import SweepRow
    from mnist_trainer.training.lr_search import search_learning_rate

    prepared = experiment.prepare(config, arguments.data_dir, is_quiet=arguments.quiet)
    folder = make_run_folder(arguments, "find-lr")
    try:
        with progress_bar("Learning rates", arguments.iterations, is_quiet=arguments.quiet) as bar:

            def show(row: SweepRow) -> None:
                bar.set_postfix_str(f"rate {row.learning_rate:.3g}, smoothed loss {row.smoothed_loss:.4f}", refresh=False)
                bar.update()

            sweep = search_learning_rate(prepared, folder, sweep_config, command_line=arguments.command_line, on_iteration=show)
    except KeyboardInterrupt:
        say(f"interrupted; the results so far are in {folder.path}")
        return INTERRUPTED
    except Exception as error:
        if sentence := str(error) if isinstance(error, RunError) else runtime.explain_failure(error):
            raise RunError(f"{sentence}; the results so far are in {folder.path}") from error
        raise
    print_lines(f"Stopped after {len(sweep.rows)} of {arguments.iterations} iterations: {sweep.stopped_because}")
    for name, suggested in (("Steepest fall", sweep.steepest), ("Tenth of the minimum", sweep.tenth_of_minimum)):
        if suggested is not None:
            print_lines(f"{name}: learning rate {suggested:.3g}")
    if sweep.suggestion is None:
        raise RunError(f"no learning rate can be suggested: {sweep.why}; the sweep is in {folder.path}")
    print_lines(f"Suggested learning rate {sweep.suggestion:.3g}: {sweep.why}")
    print_lines(f"Folder {folder.path}")
    return DONE


def _read_sweep(arguments: Arguments) -> SweepConfig:
    """Return the configuration of the sweep, or the default one if a flag has a wrong value, which `read_config` reports.

    Raises:
        RequestError: The lowest rate is not below the highest.
    """
    given = {name: getattr(arguments, name) for name in ("start_lr", "end_lr", "iterations")}
    if None in given.values():
        return SweepConfig()
    try:
        return SweepConfig(**given)
    except FieldError as error:
        sentence = error.sentence
        for name in given:
            sentence = sentence.replace(f"{name} = ", f"{flag_of(name)} ")
        raise RequestError(f"{flag_of(error.field)} {error.given}: {sentence}") from error
