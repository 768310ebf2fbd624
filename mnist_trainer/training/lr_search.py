"""The search for a learning rate: runs the sweep of `lr_finder` for a configured run, and writes its files and figure."""

from collections.abc import Callable, Sequence

from mnist_trainer import run_folder
from mnist_trainer.config.schema import SweepConfig
from mnist_trainer.figures import draw
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.training.experiment import Experiment, create_initial_network, write_origin
from mnist_trainer.training.lr_finder import LrSweep, SweepRow, find_learning_rate


def search_learning_rate(
    experiment: Experiment,
    folder: RunFolder,
    sweep_config: SweepConfig,
    *,
    command_line: Sequence[str] = (),
    on_iteration: Callable[[SweepRow], object] | None = None,
) -> LrSweep:
    """Sweep the learning rate, starting from the network with which a run would begin.

    Writes `lr_finder.csv`, its figure, and finally `lr_finder.json` with the suggestions.

    Args:
        experiment: The experiment, from `prepare`.
        folder: The folder to write to.
        sweep_config: The rates and the number of iterations.
        command_line: The words of the command line, for `environment.json`.
        on_iteration: Called with each row of the sweep.

    Returns:
        The rows and the suggestions.

    Raises:
        MXNetError: MXNet failed.
    """
    write_origin(experiment, folder, experiment.describe_environment(command_line))
    network = create_initial_network(experiment)
    config = experiment.config
    # Only the learning rate changes; momentum and weight decay keep the first value of their schedules.
    beginnings = {name: schedule(1) for name, schedule in experiment.hyperparameter_schedules.items()}
    rows: list[SweepRow] = []

    def keep(row: SweepRow) -> None:
        rows.append(row)
        if on_iteration:
            on_iteration(row)

    try:
        sweep = find_learning_rate(
            experiment.accelerate(network),
            experiment.train_loader,
            config.optimizer["name"],
            {**config.optimizer_arguments, **beginnings},
            on_iteration=keep,
            **vars(sweep_config),
        )
    finally:  # also when the sweep is interrupted
        write_rows(rows, folder)
    draw(
        folder,
        run_folder.LR_FINDER_FIGURE,
        lambda plots: plots.plot_lr_sweep(sweep.rows, sweep.steepest, sweep.tenth_of_minimum),
        "to draw it, search again with another --output",
    )
    _write_result(sweep, folder)
    return sweep


def write_rows(rows: Sequence[SweepRow], folder: RunFolder) -> None:
    """Write `lr_finder.csv`, with numbers as Python's repr; a loss that is not finite is written as nan or inf."""
    lines = (",".join(map(repr, row)) + "\n" for row in rows)
    folder.write_text(run_folder.LR_FINDER, "iteration,learning_rate,loss,smoothed_loss\n" + "".join(lines))


def _write_result(sweep: LrSweep, folder: RunFolder) -> None:
    """Write `lr_finder.json`: the suggestions, null if there are none, and the reason."""
    folder.write_json(
        run_folder.LR_FINDER_RESULT,
        {
            "suggestion": sweep.suggestion,
            "why": sweep.why,
            "steepest": sweep.steepest,
            "tenth_of_minimum": sweep.tenth_of_minimum,
            "iterations": len(sweep.rows),
            "stopped_because": sweep.stopped_because,
        },
    )
