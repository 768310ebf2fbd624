"""Makes the figures of schedules, runs and comparisons. No other module imports matplotlib.

Figures are made without pyplot, so that no window opens. They are made and saved with matplotlib's default settings, regardless
of the user's backend and settings. Only axes that the caller provides keep the caller's settings.
"""

import io
import logging
import math
import os
import random
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from mnist_trainer.console import counted, printable
from mnist_trainer.datasets import DIGITS, kind_of_class
from mnist_trainer.fields import Whole
from mnist_trainer.folder import open_named
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.schedules.schedule import TUTORIALS_ITERATIONS
from mnist_trainer.schedules.user import rates_at


@contextmanager
def _importing_matplotlib() -> Iterator[None]:
    """Hide the user's backend from the import of matplotlib, and keep the messages of the import off stderr.

    Jupyter sets MPLBACKEND for every program that it starts. If that backend is not installed, matplotlib cannot be imported.
    The variable is restored afterwards, and figures that the user makes in this process still get the user's backend.

    Raises:
        ImportError: The import failed, for any reason. The message includes matplotlib's log.
    """
    is_first = "matplotlib" not in sys.modules
    backend = os.environ.pop("MPLBACKEND", None)
    logger, log = logging.getLogger("matplotlib"), _Log()
    logger.addHandler(log)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings in the user's matplotlibrc
            with suppress(FileNotFoundError):
                open_named("matplotlibrc").close()  # matplotlib reads it in the current folder, and would wait for a pipe
            yield
            if backend and is_first:
                with suppress(ValueError):  # the backend is not installed
                    sys.modules["matplotlib"].rcParams["backend"] = backend
    except Exception as error:
        raise ImportError(f"matplotlib cannot be imported ({'; '.join([*log.messages, str(error)])})") from error
    finally:
        logger.removeHandler(log)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


class _Log(logging.Handler):
    """Collects the messages of matplotlib's import."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


with _importing_matplotlib():
    from matplotlib import colormaps, rc_context, style
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, PowerNorm
    from matplotlib.figure import Figure as MatplotlibFigure
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, LogFormatter, MaxNLocator, PercentFormatter, StrMethodFormatter

# Okabe and Ito's colours: colour-blind readers can distinguish them. The line styles differ in black and white too.
_BLUE, _ORANGE, _GREEN, _GREY, _DARK_GREY = "#0072B2", "#D55E00", "#009E73", "#999999", "#555555"
_DPI = 150

_MAX_POINTS = 20_000
"""Maximum number of iterations to draw, about twenty per column of pixels."""

_FEW_ROWS = 30  # of a run, each of which has a dot
_MAX_LEVELS = 20  # of a rate that changes in steps

_HYPERPARAMETERS = {"momentum": "Momentum", "wd": "Weight decay"}
"""Hyperparameters with a schedule, by their names in `metrics.jsonl`, with the labels of their axes."""

_CHARACTERS_PER_INCH = 12  # of text in the default size, at least


class Figure(MatplotlibFigure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = self.get_size_inches()
        return png_of(self), {"width": round(100 * width), "height": round(100 * height)}  # sharp on fine screens


class _ShownAxes(Axes):
    """Axes that a notebook shows as their figure."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return cast(Figure, self.figure)._repr_png_()


@contextmanager
def _own_settings() -> Iterator[None]:
    """Use matplotlib's default settings, but do not read a name with dollar signs as mathematics."""
    with style.context(["default", {"text.parse_math": False}]):
        yield


Curve = Callable[[int], float]


def plot_schedule(
    schedule: Curve | Sequence[Curve] | Mapping[str, Curve],
    iterations: int | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Plot the learning rate of iterations 1 … `iterations`, like the tutorial's function of this name.

    In a notebook, the result is shown as a picture if it is the last line of a cell.

    Args:
        schedule: Any callable from an iteration, counted from 1, to a learning rate. It is called once for each iteration, in
            order. A schedule with state, such as MXNet's own, cannot be used again afterwards. A curve of this package is only
            called for the iterations that are drawn. Several are drawn with a legend: a list, or titles → schedules.
        iterations: The number of iterations. None for the length of the longest schedule, or for the tutorial's 1,500 if none
            has an end. Of a long run, only as many are drawn as a figure can show.
        axes: The axes to draw on; None for a new figure.

    Returns:
        The axes. Their figure is `axes.figure`.

    Raises:
        FieldError: `iterations` is not a whole number above 0.
        TypeError: `schedule` is not a schedule or several of them.
    """
    if axes is None:
        with _own_settings():
            figure = Figure(figsize=(6.4, 4.0), layout="constrained", dpi=_DPI)
            return plot_schedule(schedule, iterations, figure.add_subplot(axes_class=_ShownAxes))
    if isinstance(schedule, Mapping):
        curves = list(schedule.items())
    else:
        curves = [(repr(curve), curve) for curve in (schedule if isinstance(schedule, Sequence) else [schedule])]
    if not curves or not all(callable(curve) for _, curve in curves) or callable(iterations):
        raise TypeError("plot one schedule, a list of schedules, or a dictionary with their titles")
    if iterations is None:
        lengths = [getattr(curve, "plotted_iterations", None) for _, curve in curves]
        iterations = max((length for length in lengths if length is not None), default=TUTORIALS_ITERATIONS)
    iterations = Whole(1).check("iterations", iterations)
    points = [_points(curve, iterations) for _, curve in curves]
    if len(curves) == 1:
        # Dots, as in the tutorial, because a line would show every drop as a slope. Overlapping dots look like a line.
        size = 3 if iterations > 200 else 6
        axes.plot(*points[0], ".", color=_BLUE, markersize=size, markeredgewidth=0, rasterized=True, clip_on=False)
    else:
        for number, ((title, _), drawn) in enumerate(zip(curves, points, strict=True)):
            look = _look(number)
            label = textwrap.fill(printable(title), 60)
            axes.plot(*drawn, color=look.color, linestyle=look.line, linewidth=1.8, drawstyle="steps-mid", label=label)
        axes.legend(fontsize="small", framealpha=0.9)
    axes.set_xlabel("Iteration")
    axes.set_ylabel(getattr(curves[0][1], "quantity", "Learning Rate"))  # the tutorial's label
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(0, 1.05 * max(max(rates) for _, rates in points) or None)
    axes.margins(x=0.02)
    axes.grid(alpha=0.3)
    return axes


@_own_settings()
def overlay_schedules(schedules: Mapping[str, tuple[Curve, int]]) -> Figure:
    """Plot several schedules in one panel with a legend.

    Args:
        schedules: Title → (schedule, number of iterations). The panel has the iterations of the longest.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(7.2, 4.2 + 0.2 * len(schedules)), layout="constrained", dpi=_DPI)
    iterations = max(length for _, length in schedules.values())
    curves = {_shortened(title, 80): schedule for title, (schedule, _) in schedules.items()}
    axes = plot_schedule(curves, iterations, figure.add_subplot())
    if legend := axes.get_legend():  # several schedules
        legend.remove()
        _add_legend(figure, axes, "outside lower left")
    return figure


@_own_settings()
def plot_schedules(schedules: Mapping[str, tuple[Curve, int]]) -> Figure:
    """Plot a panel for each schedule, with its title and its expression.

    Args:
        schedules: Title → (schedule, number of iterations).

    Returns:
        The figure.
    """
    columns, width, height = _panels(len(schedules))
    rows = math.ceil(len(schedules) / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=_DPI)
    for number, (title, (schedule, iterations)) in enumerate(schedules.items()):
        axes = plot_schedule(schedule, iterations, figure.add_subplot(rows, columns, number + 1))
        axes.lines[0].set_markersize(axes.lines[0].get_markersize() * (0.7 if columns > 1 else 1))
        axes.tick_params(labelsize=8)
        if number + columns < len(schedules):  # there is a panel below
            axes.set_xlabel("")
        if number % columns and axes.get_ylabel() == figure.axes[number - 1].get_ylabel():
            axes.yaxis.label.set_alpha(0)  # keeps its place, so that all panels have the same width
        text_width = 72 * (width - 0.6)  # in points
        expression = _wrapped(repr(schedule), round(text_width / 4.2), lines=3)
        axes.set_title(expression, fontsize=7, color=_DARK_GREY, loc="left")
        name = _shortened(printable(title), round(text_width / 6.5))
        axes.annotate(name, (0, 1), (0, 34), xycoords="axes fraction", textcoords="offset points", fontsize=10, weight="bold")
    return figure


def _panels(count: int) -> tuple[int, float, float]:
    """Return the number of columns, and the width and height of a panel in inches. The text can be read at 800 pixels."""
    columns = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 9: 3}.get(count, 4)
    width, height = {1: (6.4, 4.0), 2: (4.2, 3.2), 3: (3.6, 3.0), 4: (2.7, 2.5)}[columns]
    return columns, width, height


def _shortened(text: str, width: int) -> str:
    """Shorten a text to `width` characters; dots replace its middle."""
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[:half]}…{text[-half:]}"


def _wrapped(text: str, width: int, lines: int) -> str:
    """Wrap a text to exactly `lines` lines, so that the panels of a row have the same height; a longer text ends with dots."""
    wrapped = [line.replace("( ", "(") for line in textwrap.wrap(text.replace("(", "( "), width)]  # also after a parenthesis
    if len(wrapped) > lines:
        wrapped[lines - 1] = f"{wrapped[lines - 1][: width - 2]} …"
    return "\n".join((wrapped + [" "] * lines)[:lines])


def _points(schedule: Curve, iterations: int) -> tuple[Sequence[int], list[float]]:
    """Return the iterations to draw and their rates."""
    numbers: Sequence[int] = range(1, iterations + 1)
    if iterations > _MAX_POINTS:
        # Irregular distances, because regular ones may coincide with the period of a schedule with cycles.
        uneven = random.Random(0)
        places = ((number + uneven.random()) / _MAX_POINTS for number in range(1, _MAX_POINTS))
        numbers = [1, *(math.ceil(place * iterations) for place in places), iterations]
    return numbers, rates_at(schedule, numbers)


@_own_settings()
def plot_run(folder: RunFolder, total_iterations: int | None = None) -> Figure:
    """Plot loss, error, learning rate, and scheduled momentum and weight decay of a run. Vertical lines mark ends of epochs.

    Args:
        folder: The run's folder.
        total_iterations: The number of iterations of the run; None if it is not known.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is not that of a run, or has more rows than the run.
    """
    metrics = folder.read_metrics()
    rows = folder.read_iterations() if total_iterations is None else folder.read_iterations(total_iterations)
    iterations = [row[0] for row in rows]
    ends = [row["iteration"] for row in metrics]
    scheduled = [name for name in _HYPERPARAMETERS if name in metrics[0]]
    heights = [3, 3, 2.4, *(1.4 for _ in scheduled)]
    figure = Figure(figsize=(7.2, 0.6 + 0.9 * sum(heights)), layout="constrained", dpi=_DPI)
    figure.suptitle(_run_title(metrics))
    loss_axes, error_axes, rate_axes, *others = figure.subplots(
        len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    dot = "." if len(rows) < _FEW_ROWS else ""  # a line through a single point is invisible

    loss_axes.plot(iterations, [row[2] for row in rows], color=_GREY, linewidth=0.5, marker=dot, alpha=0.5, label="each batch")
    _plot_scores(loss_axes, ends, metrics, "loss")
    loss_axes.set_ylabel("Loss")
    _plot_scores(error_axes, ends, metrics, "accuracy")
    error_axes.set_ylabel("Error [%]")
    _scale_for_scores(loss_axes)
    _scale_for_scores(error_axes)
    figure.legend(*loss_axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)

    rates = [row[1] for row in rows]
    rate_axes.plot(iterations, rates, color=_BLUE, linewidth=1.5, marker=dot, drawstyle="steps-mid")
    _scale_for_rates(rate_axes, rates)
    rate_axes.set_ylabel("Learning rate")
    for axes, name in zip(others, scheduled, strict=True):
        axes.plot(ends, [row[name] for row in metrics], "o-", color=_GREEN, markersize=4, linewidth=1.2)
        axes.set_ylabel(_HYPERPARAMETERS[name])

    all_axes = [loss_axes, error_axes, rate_axes, *others]
    for axes in all_axes:
        axes.margins(x=0.02)
        axes.grid(axis="y", alpha=0.3)
        for end in ends[:-1] if len(ends) <= 30 else ():
            axes.axvline(end, color=_GREY, linewidth=0.6, alpha=0.3)
    all_axes[-1].set_xlabel("Iteration")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels(all_axes)
    iterations_per_epoch = ends[0]
    epoch_axis = loss_axes.secondary_xaxis(
        "top", functions=(lambda iteration: iteration / iterations_per_epoch, lambda epoch: epoch * iterations_per_epoch)
    )
    epoch_axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    epoch_axis.set_xlabel("Epoch")
    return figure


@_own_settings()
def plot_lr_sweep(
    rows: Sequence[tuple[int, float, float, float]], steepest: float | None, tenth_of_minimum: float | None
) -> Figure:
    """Plot the losses of a sweep over the learning rate, and mark the suggested rates. Losses far above the others are cut off.

    Args:
        rows: Rows (iteration, learning rate, loss, smoothed loss). The last losses need not be finite.
        steepest: The suggested rate at the steepest fall of the loss, or None.
        tenth_of_minimum: The suggested rate that is a tenth of the rate at the minimum, or None.

    Returns:
        The figure.
    """
    rates, losses, smoothed = ([row[column] for row in rows] for column in (1, 2, 3))
    figure = Figure(figsize=(7.2, 4.5), layout="constrained", dpi=_DPI)
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=_GREY, linewidth=0.8, alpha=0.7, label="each batch")
    axes.plot(rates, smoothed, color=_BLUE, linewidth=1.8, label="smoothed")
    for learning_rate, color, style, name in (
        (steepest, _ORANGE, "--", "steepest fall"),
        (tenth_of_minimum, _GREEN, ":", "a tenth of the minimum's rate"),
    ):
        if learning_rate is not None:
            axes.axvline(learning_rate, color=color, linestyle=style, linewidth=1.8, label=f"{name}: {learning_rate:.3g}")
    _make_logarithmic(axes, "x")
    bottom, top = _informative_range(losses, smoothed)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("Learning rate")
    axes.set_ylabel("Loss")
    axes.margins(x=0.02)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", framealpha=0.9)
    return figure


@_own_settings()
def plot_benchmark(bars: Mapping[str, tuple[float, float, float]], ours: Collection[str], conditions: str) -> Figure:
    """Plot seconds per epoch: a horizontal bar for each median, with a whisker from minimum to maximum.

    Args:
        bars: Title → (median, minimum, maximum). The fastest is at the top.
        ours: The titles of this program's implementations, which are marked.
        conditions: The conditions of the measurement, for the title.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(7.2, 1.6 + 0.5 * len(bars)), layout="constrained", dpi=_DPI)
    figure.suptitle(textwrap.fill(conditions, 90), fontsize="medium")
    axes = figure.add_subplot()
    bars = dict(sorted(bars.items(), key=lambda bar: bar[1]))
    titles = list(bars)
    medians = [median for median, _, _ in bars.values()]
    whiskers = [[median - low for median, low, _ in bars.values()], [high - median for median, _, high in bars.values()]]
    axes.barh(titles, medians, height=0.6, color=[_BLUE if title in ours else "#BBBBBB" for title in titles])
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in ours else "normal")
    axes.errorbar(medians, titles, xerr=whiskers, fmt="none", ecolor=_DARK_GREY, capsize=4, linewidth=1.5)
    for title, (median, _, high) in bars.items():
        axes.annotate(f"{median:.2f}", (high, title), xytext=(6, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(high for _, _, high in bars.values()))
    axes.set_xlabel("Seconds per epoch")
    axes.grid(axis="x", alpha=0.3)
    return figure


Pair = tuple[RunFolder, RunFolder]


@_own_settings()
def plot_comparison(runs: Mapping[str, Sequence[RunFolder]], pairs: Sequence[Pair] = ()) -> Figure:
    """Plot test error, test loss and learning rate of several groups of runs, and the final accuracy of each run.

    Args:
        runs: Title → finished runs that differ only in their seed. A line shows their mean, a band their range. The learning
            rates are those of the first run.
        pairs: Pairs of runs that should be the same. The differences of their losses and learning rates are plotted as well.

    Returns:
        The figure.
    """
    panels: list[Any] = [["error", "loss"], ["rates", "final"], *([["differences"] * 2] if pairs else [])]
    figure = Figure(figsize=(10.0, 7.2 + 1.6 * bool(pairs)), layout="constrained", dpi=_DPI)
    axes = figure.subplot_mosaic(panels, height_ratios=[3, 3, 1.2][: len(panels)])
    _draw_comparison(axes, runs, pairs)
    _add_legend(figure, axes["error"], "outside upper left")
    return figure


@_own_settings()
def comparison_parts(runs: Mapping[str, Sequence[RunFolder]], pairs: Sequence[Pair] = ()) -> list[Figure]:
    """Plot the same as `plot_comparison` in small figures, which a page shows side by side or one below the other.

    Args:
        runs: As for `plot_comparison`.
        pairs: As for `plot_comparison`.

    Returns:
        The legend, and a figure for each panel.
    """
    names = ["error", "loss", "rates", "final", *(["differences"] if pairs else [])]
    heights = {"final": max(2.9, 0.8 + 0.3 * len(runs)), "differences": 1.8}
    figures = [Figure(figsize=(5.0, heights.get(name, 2.9)), layout="constrained", dpi=_DPI) for name in names]
    axes = {name: figure.add_subplot() for name, figure in zip(names, figures, strict=True)}
    _draw_comparison(axes, runs, pairs)
    legend = Figure(figsize=(5.0, 0.0), dpi=_DPI)
    legend.set_figheight(0.1 + 0.22 * _add_legend(legend, axes["error"], "upper left"))
    return [legend, *figures]


def _draw_comparison(axes: Mapping[str, Axes], runs: Mapping[str, Sequence[RunFolder]], pairs: Sequence[Pair]) -> None:
    """Draw the panels of a comparison."""
    metrics = {title: [folder.read_metrics() for folder in folders] for title, folders in runs.items()}
    errors = {title: [[100 - 100 * row["test_accuracy"] for row in rows] for rows in of] for title, of in metrics.items()}
    losses = {title: [[row["test_loss"] for row in rows] for rows in of] for title, of in metrics.items()}
    _plot_means_and_ranges(axes["error"], errors)
    axes["error"].set_ylabel("Test error [%]")
    _plot_means_and_ranges(axes["loss"], losses)
    axes["loss"].set_ylabel("Test loss")
    _scale_for_scores(axes["error"])
    _scale_for_scores(axes["loss"])
    rates = [[row[1] for row in folders[0].read_iterations()] for folders in runs.values()]
    for number, (of_run, (rows, *_)) in enumerate(zip(rates, metrics.values(), strict=True)):
        look, scale = _look_and_scale(number, rates)
        epochs = _through_epochs(len(of_run), len(rows))
        # The markers of each line are at different places, so that they do not overlap.
        some = slice(number * len(of_run) // 40, None, max(1, len(of_run) // 5))
        (line,) = axes["rates"].plot(epochs, of_run, look.marker, color=look.color, markersize=5, markevery=some)
        line.set(linestyle=look.line, linewidth=1.5 * scale, drawstyle="steps-post")
    axes["rates"].set_ylabel("Learning rate")
    _scale_for_rates(axes["rates"], [rate for of_run in rates for rate in of_run])
    if pairs:
        _plot_differences(axes["differences"], pairs)
    last = max(len(rows) for of in metrics.values() for rows in of)
    for name in sorted(axes.keys() - {"final"}):
        axes[name].set_xlim(-0.03 * last, 1.03 * last)
        axes[name].set_xlabel("Epoch")
        axes[name].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[name].grid(alpha=0.3)
    _draw_final_accuracies(axes["final"], runs)


def _add_legend(figure: Figure, axes: Axes, place: Literal["upper left", "outside upper left", "outside lower left"]) -> int:
    """Add a legend for the curves of some axes to a figure; return its number of rows."""
    handles, labels = axes.get_legend_handles_labels()
    if axes.collections:
        handles.append(Patch(color=_GREY, alpha=0.4, linewidth=0))
        labels.append("range of the seeds")
    fitting = int(_CHARACTERS_PER_INCH * figure.get_figwidth() / (max(map(len, labels)) + 6))
    columns = max(1, min(fitting, len(labels)))
    figure.legend(handles, labels, loc=place, ncols=columns, frameon=False)
    return math.ceil(len(labels) / columns)


def _through_epochs(iterations: int, epochs: int) -> list[float]:
    """Return the number of epochs that have passed after each iteration of a run."""
    return [iteration * epochs / iterations for iteration in range(1, iterations + 1)]


def _plot_differences(axes: Axes, pairs: Sequence[Pair]) -> None:
    """Plot by how much the losses and the learning rates of the pairs differ at each iteration: the maximum over the pairs."""
    rows = [(one.read_iterations(), other.read_iterations()) for one, other in pairs]
    epochs = max(len(one.read_metrics()) for one, _ in pairs)
    maximum = 0.0
    for column, name, look, width in ((2, "losses", _LOOKS[0], 3.5), (1, "learning rates", _LOOKS[1], 1.5)):
        of_rows = ([abs(a[column] - b[column]) for a, b in zip(one, other, strict=False)] for one, other in rows)
        differences = list(map(max, zip_longest(*of_rows, fillvalue=0.0)))
        (line,) = axes.plot(_through_epochs(len(differences), epochs), differences, color=look.color, linewidth=width)
        line.set(linestyle=look.line, label=name)
        maximum = max(maximum, *differences)
    of_pairs = f", maximum of {len(pairs)} pairs" if len(pairs) > 1 else ""
    title = f"Difference of the runs{of_pairs if maximum else ': 0 at every iteration'}"
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_ylabel("Difference")
    if maximum:
        axes.set_ylim(0, 1.5 * maximum)  # with room for the legend
    else:
        axes.set_ylim(-1, 1)
        axes.set_yticks([0])
    axes.legend(fontsize="small", ncols=2, loc="upper right", frameon=False)


def _draw_final_accuracies(axes: Axes, runs: Mapping[str, Sequence[RunFolder]]) -> None:
    accuracies = [[100 * folder.read_metrics()[-1]["test_accuracy"] for folder in folders] for folders in runs.values()]
    for number, last in enumerate(accuracies):
        look = _look(number)
        axes.plot(last, [number] * len(last), look.marker, color=look.color, markersize=6, alpha=0.7)
        axes.plot([sum(last) / len(last)] * 2, [number - 0.3, number + 0.3], "-", color=look.color, linewidth=2)
    axes.set_yticks(range(len(runs)), [textwrap.fill(title, 22) for title in runs])
    axes.set_ylim(len(runs) - 0.5, -0.5)
    low, high = min(map(min, accuracies)), max(map(max, accuracies))
    margin = max(0.05 * (high - low), 0.1)  # otherwise the axis of equal accuracies would go beyond 100 %
    axes.set_xlim(low - margin, high + margin)
    axes.set_xlabel("Test accuracy of each seed, and mean [%]")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(alpha=0.3)


class _Look(NamedTuple):
    color: str
    line: Any
    marker: str


# Each differs from its neighbours in colour, line style and marker. The colours stay apart for colour-blind eyes; a test
# measures it. In a page, `svg_of` turns black into the colour of its text.
_LOOKS = [
    _Look(color, line, marker)
    for color, line, marker in zip(
        (_BLUE, _ORANGE, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000") * 3,
        ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))) * 5,
        "osD^vPX*<>hp" * 2,
        strict=False,
    )
]


def _look(number: int) -> _Look:
    return _LOOKS[number % len(_LOOKS)]


def _look_and_scale(number: int, curves: Sequence[Any]) -> tuple[_Look, float]:
    """Return the look of a curve, and a factor for its width: a curve is wider if a later one covers it."""
    return _look(number), 2.2 if curves[number] in curves[number + 1 :] else 1.0


def _plot_means_and_ranges(axes: Axes, groups: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Plot the mean and the range of each group of runs: title → a list for each run, with a value per epoch."""
    # Runs that stopped early have fewer epochs.
    by_epoch = [
        [[value for value in of_epoch if value is not None] for of_epoch in zip_longest(*values)] for values in groups.values()
    ]
    for number, (title, of_epochs) in enumerate(zip(groups, by_epoch, strict=True)):
        look, scale = _look_and_scale(number, by_epoch)
        epochs = range(1, len(of_epochs) + 1)
        means = [sum(of_runs) / len(of_runs) for of_runs in of_epochs]
        (line,) = axes.plot(epochs, means, look.marker, color=look.color, markersize=5 * scale, label=title)
        line.set(linestyle=look.line, linewidth=1.5 * scale)
        if len(of_epochs[0]) > 1:
            low, high = list(map(min, of_epochs)), list(map(max, of_epochs))
            axes.fill_between(epochs, low, high, color=look.color, alpha=0.15 if len(groups) <= 4 else 0.07, linewidth=0)


@_own_settings()
def svg_of(figure: MatplotlibFigure) -> str:
    """Return the figure as an SVG element for a page: transparent, with the page's text colour instead of black."""
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):  # text stays text, not outlines
        figure.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # a page has several figures, and an id must occur once
    return svg.replace("#000000", "currentColor")


@_own_settings()
def plot_confusion_matrix(confusion: Sequence[Sequence[int]], correct: int, total: int, classes: Sequence[str] = ()) -> Figure:
    """Plot a confusion matrix.

    Args:
        confusion: Numbers of images, with a row for each true label and a column for each predicted class.
        correct: The number of test images with a correct prediction.
        total: The number of test images.
        classes: The names of the classes; () for digits.

    Returns:
        The figure.
    """
    names = classes or [str(label) for label in range(len(confusion))]
    kind = kind_of_class(classes or DIGITS)
    figure = Figure(figsize=(6.8, 6.0), layout="constrained", dpi=_DPI)
    axes = figure.add_subplot()
    labels = range(len(confusion))
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    scale = PowerNorm(0.35, vmin=0, vmax=1)  # otherwise one mistake in a hundred would look like none
    image = axes.imshow(shares, cmap=_colormap("Blues"), norm=scale)
    for row in labels:
        for column in labels:
            count = confusion[row][column]
            if count or row == column:
                colour = "white" if scale(shares[row][column]) > 0.55 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(labels, names, rotation=0 if max(map(len, names)) < 3 else 90)
    axes.set_yticks(labels, names)
    axes.set_xlabel(f"Predicted {kind}")
    axes.set_ylabel(f"True {kind}")
    axes.set_title(f"{correct:,} of {total:,} test images correct ({correct / total:.2%})", fontsize="medium")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=(0, 0.01, 0.1, 0.5, 1), format=PercentFormatter(xmax=1, decimals=0))
    bar.set_label(f"Share of the images of the true {kind} (on the diagonal: recall)")
    return figure


@_own_settings()
def plot_mistakes(images: Iterable[Any], captions: Sequence[str], mistakes: int, total: int) -> Figure:
    """Plot wrongly predicted images.

    Args:
        images: Images, each of shape (height, width), from 0 to 1. Those without a caption are left out.
        captions: The captions of the first images.
        mistakes: The number of wrong predictions.
        total: The number of test images.

    Returns:
        The figure.
    """
    columns = 7
    rows = max(1, math.ceil(len(captions) / columns))
    figure = Figure(figsize=(1.1 * columns, 0.4 + 1.5 * rows), layout="constrained", dpi=_DPI)
    which = f"; the {len(captions)} most confident" if mistakes > len(captions) else ""
    figure.suptitle(f"{mistakes:,} of {total:,} test images predicted wrongly{which}", fontsize="medium")
    for number, (image, caption) in enumerate(zip(images, captions, strict=False), start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(image, cmap=_colormap("gray"), vmin=0, vmax=1)
        axes.set_title(caption, fontsize="x-small")
        axes.set_axis_off()
    return figure


@_own_settings()
def save_figure(figure: MatplotlibFigure, path: Path) -> None:
    """Write the figure in the format of the path's extension, one of `figures.FORMATS`."""
    figure.savefig(path, format=path.suffix.lstrip(".").lower(), dpi=_DPI)


@_own_settings()
def png_of(figure: MatplotlibFigure) -> bytes:
    """Return the figure as a PNG file in memory."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return stream.getvalue()


def _colormap(name: str) -> Colormap:
    # At its import, matplotlib gives every colormap the number of colours in the user's matplotlibrc.
    return colormaps[name].resampled(256)


def _plot_scores(axes: Axes, ends: Sequence[int], metrics: Sequence[Mapping[str, Any]], quantity: str) -> None:
    """Plot the scores of each epoch: the loss, or for the accuracy the error in percent."""
    for part, style, color, label in (
        ("train", "o--", _ORANGE, "training, mean of the epoch"),
        ("validation", "^:", _GREEN, "validation, after the epoch"),
        ("test", "s-", _BLUE, "test, after the epoch"),
    ):
        if (name := f"{part}_{quantity}") in metrics[0]:
            values = [row[name] if quantity == "loss" else 100 - 100 * row[name] for row in metrics]
            axes.plot(ends, values, style, color=color, markersize=4, linewidth=1.2, label=label)


def _informative_range(losses: Sequence[float], smoothed: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """Return a range for the losses up to the minimum of the smoothed losses; later losses may be outside."""
    pairs = [pair for pair in zip(losses, smoothed, strict=True) if all(map(math.isfinite, pair))]
    if not pairs:
        return None, None
    minimum = min(range(len(pairs)), key=lambda number: pairs[number][1])
    low = min(loss for loss, _ in pairs)
    high = max(loss for loss, _ in pairs[: minimum + 1])
    margin = 0.1 * (high - low)
    return (low - margin, high + 2 * margin) if margin else (None, None)


def _scale_for_scores(axes: Axes) -> None:
    """Make the axis logarithmic unless an error or a loss is 0."""
    if all(value > 0 for line in axes.lines for value in cast(Sequence[float], line.get_ydata())):
        _make_logarithmic(axes)


def _scale_for_rates(axes: Axes, rates: Sequence[float]) -> None:
    """Make the axis logarithmic if the rates have a few levels that span powers of ten; otherwise start it at 0.

    A logarithmic axis would hide the shape of a smooth curve, such as that of a cosine.
    """
    if min(rates) > 0 and max(rates) / min(rates) > 50 and len(set(rates)) <= _MAX_LEVELS:
        _make_logarithmic(axes)
    else:
        axes.set_ylim(bottom=0)


def _make_logarithmic(axes: Axes, which: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic with plain numbers, 0.03 rather than 3 × 10⁻². Only short axes have numbers at minor ticks."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(_PlainLogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))


class _PlainLogFormatter(LogFormatter):
    """Labels the same ticks as its base class, but with plain numbers."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _run_title(metrics: Sequence[Mapping[str, Any]]) -> str:
    last = metrics[-1]
    return f"{last['test_accuracy']:.2%} on the test images after {counted(last['epoch'], 'epoch')}"
