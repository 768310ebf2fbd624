"""From curves and run folders to figures; the only file that imports matplotlib.

Figures are made without pyplot: no window, no global state, the same on a server and on a desk.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, MaxNLocator, PercentFormatter

from mnist_trainer.run_folder import RunFolder

# Okabe and Ito's colours, told apart by colour-blind readers and, with the line styles, in black and white.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#999999"
_DPI = 150

FORMATS = ("png", "pdf", "svg", "jpg")
"""Endings of the figures that `save_figure` writes."""


def plot_schedule(schedule: Callable[[int], float], iterations: int = 1500, axes: Axes | None = None) -> Axes:
    """Draws the learning rate of iterations 1 … `iterations`, as the tutorial's function of this name does.

    schedule: any callable that maps an iteration, counted from 1, to a learning rate. It is asked in order, once each; one with
    state, such as MXNet's own, is used up by it.
    axes: where to draw; None makes a figure, which is `returned.figure`.
    """
    if axes is None:
        axes = Figure(figsize=(6.4, 4.0), layout="constrained", dpi=_DPI).add_subplot()
    numbers = range(1, iterations + 1)
    # Dots, as in the tutorial: a line would draw a slope into every drop. Where they overlap they look like a line anyway.
    axes.plot(numbers, [schedule(iteration) for iteration in numbers], ".", color=_BLUE, markersize=3, rasterized=True)
    axes.set_xlabel("Iteration")
    axes.set_ylabel("Learning Rate")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.grid(alpha=0.3)
    return axes


def plot_schedules(schedules: Mapping[str, tuple[Callable[[int], float], int]]) -> Figure:
    """A panel each: title → (schedule, number of iterations)."""
    columns = min(len(schedules), 3)
    rows = math.ceil(len(schedules) / columns)
    width, height = (6.4, 4.0) if columns == 1 else (4.2 * columns, 3.2 * rows)
    figure = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    for number, (title, (schedule, iterations)) in enumerate(schedules.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        plot_schedule(schedule, iterations, axes)
        axes.set_title("\n".join(textwrap.wrap(title, 48)), fontsize=9)
    return figure


def plot_run(folder: RunFolder) -> Figure:
    """Loss, accuracy and learning rate over the iterations of a run; epochs are marked by thin lines."""
    rows, metrics = folder.read_iterations(), folder.read_metrics()
    iterations = [row[0] for row in rows]
    ends = [each["iteration"] for each in metrics]
    figure = Figure(figsize=(7.2, 8.0), layout="constrained", dpi=_DPI)
    figure.suptitle(_run_title(metrics))
    loss_axes, accuracy_axes, rate_axes = figure.subplots(3, 1, sharex=True)

    loss_axes.plot(iterations, [row[2] for row in rows], color=_GREY, linewidth=0.5, alpha=0.5, label="each batch")
    _plot_train_and_test(loss_axes, ends, metrics, "loss")
    if all(row[2] > 0 for row in rows):
        _make_logarithmic(loss_axes)
    loss_axes.set_ylabel("Loss")
    figure.legend(*loss_axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)

    _plot_train_and_test(accuracy_axes, ends, metrics, "accuracy")
    accuracy_axes.set_ylabel("Accuracy")
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))

    rates = [row[1] for row in rows]
    rate_axes.plot(iterations, rates, color=_BLUE, linewidth=1.5, drawstyle="steps-mid")
    if min(rates) > 0 and max(rates) / min(rates) > 50:
        _make_logarithmic(rate_axes)
    else:
        rate_axes.set_ylim(bottom=0)
    rate_axes.set_ylabel("Learning Rate")
    rate_axes.set_xlabel("Iteration")

    for axes in (loss_axes, accuracy_axes, rate_axes):
        axes.grid(alpha=0.3)
        axes.margins(x=0.02)
        if len(ends) <= 30:
            for end in ends[:-1]:
                axes.axvline(end, color=_GREY, linewidth=0.6, alpha=0.6)
    iterations_per_epoch = ends[0]
    epoch_axis = loss_axes.secondary_xaxis(
        "top", functions=(lambda each: each / iterations_per_epoch, lambda each: each * iterations_per_epoch)
    )
    epoch_axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    epoch_axis.set_xlabel("Epoch")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure; the ending of the name, one of `FORMATS`, says how."""
    figure.savefig(path, format=path.suffix.lstrip(".").lower(), dpi=_DPI)


def _plot_train_and_test(axes: Axes, ends: Sequence[int], metrics: Sequence[Mapping[str, Any]], quantity: str) -> None:
    train, test = [each[f"train_{quantity}"] for each in metrics], [each[f"test_{quantity}"] for each in metrics]
    axes.plot(ends, train, "o--", color=_ORANGE, markersize=4, linewidth=1.2, label="training, mean of the epoch")
    axes.plot(ends, test, "s-", color=_BLUE, markersize=4, linewidth=1.2, label="test, after the epoch")


def _make_logarithmic(axes: Axes) -> None:
    """A logarithmic axis with plain numbers: 0.03 rather than 3 × 10⁻²; between the powers of ten only on short axes."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))


def _run_title(metrics: Sequence[Mapping[str, Any]]) -> str:
    last = metrics[-1]
    epochs = "1 epoch" if last["epoch"] == 1 else f"{last['epoch']} epochs"
    return f"{last['test_accuracy']:.2%} on the test images after {epochs}"
