"""`mnist-trainer train --dry-run` and `--print-config`: show what a run would be, and make no run folder."""

from collections.abc import Iterator

from mnist_trainer import runtime
from mnist_trainer.commands.request import Arguments, describe_misfits, read_config
from mnist_trainer.config.loading import DEFAULT_CONFIG, find_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import Console, Table, counted, in_columns, print_lines
from mnist_trainer.errors import DONE, RequestError
from mnist_trainer.schedules import AnySchedule
from mnist_trainer.schedules.user import rates_at
from mnist_trainer.toml import to_toml

_MAX_EPOCHS = 12  # rows of the table of rates


def print_config(arguments: Arguments) -> int:
    """Run `mnist-trainer train --print-config`; return the exit code."""
    _refuse_folders(arguments, "--print-config")
    print_lines(*read_config(arguments).to_toml().splitlines())
    return DONE


def dry_run(arguments: Arguments) -> int:
    """Run `mnist-trainer train --dry-run`; return the exit code."""
    _refuse_folders(arguments, "--dry-run")
    config = read_config(arguments)
    runtime.prepare(config.runtime.threads)
    from mnist_trainer.training import experiment
    from mnist_trainer.training.callbacks import drops_line
    from mnist_trainer.training.timing import estimate_time

    misfits = describe_misfits(config)
    prepared = experiment.prepare(config, arguments.data_dir, is_quiet=arguments.quiet)
    Console().say(*misfits)
    print_lines(f"Configuration {find_config(arguments.config or DEFAULT_CONFIG)}, where it differs from the defaults:", "")
    print_lines(*(f"    {line}" if line else "" for line in _differences(config).splitlines()), "")
    length = config.run_length
    print_lines(
        f"{counted(length.epochs, 'epoch')} of {counted(length.iterations_per_epoch, 'iteration')}: "
        f"{counted(length.total_iterations, 'iteration')} with {counted(config.data.trained_images, 'image')} "
        f"in batches of {config.training.batch_size}"
    )
    schedule = config.build_schedule()
    for name, shown in {"Learning rate": schedule, **config.build_hyperparameters()}.items():
        print_lines("", f"{name}: {shown}", *in_columns(_rates(config, shown)))
        if shown.reacts:
            print_lines("The schedule reacts to validation results; these rates are without any reaction")
    if line := drops_line(schedule, length.total_iterations):
        epochs = ", ".join(_epochs_of_drops(schedule, length.iterations_per_epoch, length.total_iterations))
        print_lines("", line, f"In epochs: {epochs}")
    print_lines("", prepared.conditions_line)
    estimate = estimate_time(prepared)
    print_lines(
        f"Estimated time {_duration(estimate.seconds)}, from {counted(estimate.iterations, 'iteration')} of "
        f"{1000 * estimate.iteration_seconds:.3g} ms and one evaluation of {estimate.evaluation_seconds:.2g} s, measured now; "
        "not including the start of MXNet, checkpoints and the figure",
        "No run folder was made",
    )
    return DONE


def _refuse_folders(arguments: Arguments, flag: str) -> None:
    """Refuse flags that have no meaning without a run folder.

    Raises:
        RequestError: `--resume` or `--output` was given.
    """
    for name in ("resume", "output"):
        if getattr(arguments, name) is not None:
            raise RequestError(f"--{name} {getattr(arguments, name)}: {flag} writes nothing; leave --{name} out")


def _differences(config: RunConfig) -> str:
    """Return the keys that differ from a configuration without settings, as TOML."""
    differing = {key for key, _, _ in config.differences(RunConfig())}
    tables = {
        section: {key: value for key, value in table.items() if f"{section}.{key}" in differing}
        for section, table in config.to_tables().items()
    }
    return to_toml(tables)


def _rates(config: RunConfig, schedule: AnySchedule) -> Table:
    """Return a table with the value of a schedule at the first, the middle and the last iteration of some epochs."""
    epochs, per_epoch = config.training.epochs, config.run_length.iterations_per_epoch
    rows = sorted({round(1 + row * (epochs - 1) / max(_MAX_EPOCHS - 1, 1)) for row in range(_MAX_EPOCHS)})
    chosen = [
        ((epoch - 1) * per_epoch + 1, (epoch - 1) * per_epoch + (per_epoch + 1) // 2, epoch * per_epoch) for epoch in rows
    ]
    values = iter(rates_at(schedule, [iteration for row in chosen for iteration in row]))
    return [
        ("epoch", "iterations", "first", "middle", "last"),
        *(
            (str(epoch), f"{row[0]}-{row[-1]}", *(f"{next(values):.6g}" for _ in row))
            for epoch, row in zip(rows, chosen, strict=True)
        ),
    ]


def _epochs_of_drops(schedule: AnySchedule, per_epoch: int, total: int) -> Iterator[str]:
    for number, iteration in enumerate(schedule.drops(total)):
        if number == _MAX_EPOCHS:
            yield "…"
            return
        yield f"{iteration / per_epoch:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.2g} s" if seconds < 10 else f"about {seconds:.0f} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} minutes" if minutes < 90 else f"about {minutes / 60:.1f} hours"
