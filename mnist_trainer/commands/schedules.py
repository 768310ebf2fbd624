"""`mnist-trainer schedules …`: list, find, show and plot schedules, without MXNet."""

import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, islice

from mnist_trainer.commands.request import Arguments
from mnist_trainer.config.loading import bundled_configs, config_name, load_config
from mnist_trainer.console import print_lines, say
from mnist_trainer.errors import DONE, RequestError, RunError, collected
from mnist_trainer.fields import FieldError
from mnist_trainer.figures import FORMATS, why
from mnist_trainer.schedules import CURVES, AnySchedule, RunLength, ScheduleError, SettingsError, build_schedule
from mnist_trainer.schedules.catalogue import FAMILIES, find_curve, summarize
from mnist_trainer.schedules.dictionary import counterparts, find_translations, translations
from mnist_trainer.schedules.named import fill_settings, read_schedule
from mnist_trainer.schedules.schedule import TUTORIALS_ITERATIONS
from mnist_trainer.schedules.settings import UnusedLearningRateError
from mnist_trainer.schedules.user import rates_at

_MAX_OVERLAID = 12

_EXAMPLE_RUN = RunLength(TUTORIALS_ITERATIONS // 10, 10)


def list_schedules(arguments: Arguments) -> int:
    """Run `mnist-trainer schedules list`; return the exit code."""
    width = max(len(cls.__name__) for cls in CURVES)
    for family, curves in FAMILIES.items():
        print_lines(f"{family[0].upper()}{family[1:]}")
        for cls in curves:
            sentence, *equations = summarize(cls)
            print_lines(f"  {cls.__name__:{width}}  {sentence}")
            print_lines(*(f"  {'':{width}}  {equation}" for equation in equations))
    return DONE


def show_schedules(arguments: Arguments) -> int:
    """Run `mnist-trainer schedules show`; return the exit code."""
    iterations = arguments.iterations
    shown = _named_schedules(arguments.schedule)[0]
    if iterations is None:
        try:
            texts = [schedule.to_toml("" if column == "learning_rate" else column) for column, schedule in shown.items()]
        except TypeError as error:  # a user's own
            raise RequestError(f"{arguments.schedule}: {error}; add --iterations 1,2,3 to see its rates") from error
        print_lines(*_commented(map(str, shown.values())), "", *"\n".join(texts).splitlines())
        return DONE
    try:
        columns = [rates_at(schedule, iterations) for schedule in shown.values()]
    except ScheduleError as error:
        raise RequestError(str(error)) from error
    print_lines(*map(str, shown.values()), ",".join(["iteration", *shown]))
    for number, iteration in enumerate(iterations):
        print_lines(",".join([str(iteration), *(repr(column[number]) for column in columns)]))
    return DONE


def find_schedules(arguments: Arguments) -> int:
    """Run `mnist-trainer schedules find`; return the exit code."""
    if arguments.name is None:
        _list_other_frameworks()
        return DONE
    blocks = []
    with suppress(ValueError):
        blocks.append(_commented(_described(find_curve(arguments.name).__name__)))
    try:
        found = find_translations(arguments.name)
    except ValueError as error:
        if not blocks:
            raise RequestError(str(error)) from error
        found = []
    printed: set[str] = set()
    for translation in found:
        settings = read_schedule(translation.ours)
        base_lr = settings.pop("base_lr", None)
        schedule = build_schedule(settings, None, base_lr)
        lines = [f"{translation.framework}: {translation.call}", f"Here: {schedule}", *translation.sentences]
        # The output is a configuration, so it has one schedule, and perhaps one for the momentum.
        is_table = translation.section not in printed and (not printed or translation.framework == found[0].framework)
        printed |= {translation.section} if is_table else set()
        blocks.append([*_commented(lines), *(["", *schedule.to_toml(translation.section).splitlines()] if is_table else ())])
    for number, lines in enumerate(blocks):
        print_lines(*[""] * (number > 0), *lines)
    if found:
        print_lines("", "# The numbers are examples. `mnist-trainer schedules show 'EXPRESSION'` prints another one as TOML.")
    return DONE


def _described(curve: str) -> list[str]:
    """Return lines about a schedule of this program and its counterparts."""
    names = counterparts(curve)
    elsewhere = "Schedules of other frameworks that are one:" if names else "No schedule of another framework is one."
    return [f"{curve} is a schedule of this program; `mnist-trainer schedules show {curve}` prints it. {elsewhere}", *names]


def _commented(lines: Iterable[str]) -> list[str]:
    return [f"# {line}" for line in lines]


def _list_other_frameworks() -> None:
    names: dict[str, dict[str, None]] = {}
    for translation in translations():
        names.setdefault(translation.framework, {}).update(dict.fromkeys(translation.names))
    for framework, known in names.items():
        print_lines(framework, *(f"  {name}" for name in known))


def plot_schedules(arguments: Arguments) -> int:
    """Run `mnist-trainer schedules plot`; return the exit code."""
    panels = {}
    problems: list[str] = []
    all_names = [cls.__name__ for cls in CURVES]
    for name in dict.fromkeys(
        chain.from_iterable(all_names if given.lower() == "all" else [given] for given in arguments.schedules)
    ):
        with collected(problems):
            shown, iterations = _named_schedules(name)
            for column, schedule in islice(shown.items(), 1 if arguments.overlay else None):
                panels[name if schedule is next(iter(shown.values())) else f"{name} [{column}]"] = schedule, iterations
    output = arguments.output
    if output.suffix.lstrip(".").lower() not in FORMATS:
        problems.append(f"--output {output}: the name must end in .{', .'.join(FORMATS)}")
    if arguments.overlay and len(panels) > _MAX_OVERLAID:
        problems.append(f"--overlay: draws at most {_MAX_OVERLAID} schedules, not {len(panels)}; leave it out")
    if arguments.overlay and len({schedule.quantity for schedule, _ in panels.values()}) > 1:
        problems.append("--overlay: learning rates and momentum cannot share an axis; leave it out")
    if problems:
        raise RequestError(*problems)
    try:
        from mnist_trainer import plots

        plots.save_figure(plots.overlay_schedules(panels) if arguments.overlay else plots.plot_schedules(panels), output)
    except ScheduleError as error:
        raise RequestError(str(error)) from error
    except Exception as error:  # matplotlib raises many kinds of exceptions
        if isinstance(error, OSError) and error.filename == str(output):
            raise RequestError(f"--output {output}: cannot be written ({error.strerror}); choose another file") from error
        raise RunError(f"--output {output}: the figure cannot be drawn ({why(error)})") from error
    print_lines(str(output))
    return DONE


def _named_schedules(name: str) -> tuple[dict[str, AnySchedule], int]:
    """Return the schedules of a name, by the headings of their columns, and the number of iterations to show.

    Args:
        name: A curve, which is shown with example values for 1,500 iterations, as in the tutorial's plots; an expression or
            "module:attribute", for its own length; or a configuration, whose schedules are shown for the whole run.
    """
    if "(" in name or ":" in name:
        schedule = _expressed_schedule(name)
        return {_column(schedule): schedule}, schedule.plotted_iterations or TUTORIALS_ITERATIONS
    if not _is_file_name(name):
        try:
            cls = find_curve(name)
            if name in bundled_configs():
                say(f"{name} is {cls.__name__} with example values; for the configuration, write configs/{name}.toml")
            schedule = cls(**cls.example)
            return {_column(schedule): schedule}, TUTORIALS_ITERATIONS
        except ValueError as error:
            if config_name(name) not in bundled_configs():
                raise RequestError(f"{error} (for a configuration, write configs/NAME.toml)") from error
    config = load_config(name)
    return {"learning_rate": config.build_schedule(), **config.build_hyperparameters()}, config.run_length.total_iterations


def _column(schedule: AnySchedule) -> str:
    """Return the heading of the values of a schedule."""
    return schedule.quantity.lower().replace(" ", "_")


def _expressed_schedule(text: str) -> AnySchedule:
    """Return the schedule of an expression or of "module:attribute".

    A `base_lr` that is not given is 1. Other settings that the user leaves open are filled, as for `train --schedule`, for the
    example run.
    """
    try:
        settings = read_schedule(text)
        base_lr = settings.pop("base_lr", 1.0)
        with suppress(ValueError):  # reported below
            settings = fill_settings(settings, False, base_lr if isinstance(base_lr, int | float) else None)
        if re.search(r"_(epochs|fraction)\b", text):
            run = f"{_EXAMPLE_RUN.epochs} epochs with {_EXAMPLE_RUN.iterations_per_epoch} iterations each"
            say(f"{text}: epochs and fractions are those of a run of {run}")
        try:
            return build_schedule(settings, _EXAMPLE_RUN, base_lr)
        except UnusedLearningRateError:
            return build_schedule(settings, _EXAMPLE_RUN)
    except FieldError as error:
        raise RequestError(f"{text}: {error.sentence}") from error
    except SettingsError as error:
        raise RequestError(*(f"{text}: {_as_typed(problem)}" for problem in error.problems)) from error


def _as_typed(problem: FieldError) -> str:
    """Return the message of a problem in an expression."""
    if problem.field == "name":
        return problem.sentence
    return str(FieldError("base_lr", problem.sentence, problem.given) if problem.field == "learning_rate" else problem)


def _is_file_name(name: str) -> bool:
    return "/" in name or name.endswith(".toml")
