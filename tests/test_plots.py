"""Figures show the numbers that they are made from, do not need pyplot, and ignore the user's settings."""

import contextlib
import csv
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from programs import REPOSITORY
from small_runs import METRICS

from mnist_trainer import plots
from mnist_trainer.cli import main
from mnist_trainer.figures import FORMATS
from mnist_trainer.plots import (
    comparison_parts,
    plot_comparison,
    plot_lr_sweep,
    plot_run,
    plot_schedule,
    plot_schedules,
    png_of,
    save_figure,
    svg_of,
)
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.schedules import CURVES, AnySchedule, Constant, Cosine, Linear, Repeat, UserSchedule, Warmup

BLUE = "#0072B2"
RUN_CONFIG = """
[training]
epochs = 3
batch_size = 48
learning_rate = 0.03

[schedule]
name = "MultiFactor"
step_epochs = [1, 2]
factor = 0.1

[data]
train_images = 128
test_images = 100
"""


def points(line: Line2D) -> list[tuple[float, float]]:
    horizontal, vertical = (np.asarray(coordinates).tolist() for coordinates in line.get_data())
    return list(zip(horizontal, vertical, strict=True))


def line_labelled(axes: Axes, label: str) -> list[tuple[float, float]]:
    (line,) = (candidate for candidate in axes.get_lines() if candidate.get_label() == label)
    return points(line)


def series(axes: Axes) -> list[Line2D]:
    """Return the lines of an axes that show data, without the vertical ones at the ends of epochs."""
    return [line for line in axes.get_lines() if len(set(np.asarray(line.get_xdata()).tolist())) > 1]


def is_blue(path: Path) -> npt.NDArray[np.bool_]:
    """Return a mask, shape (height, width), of the pixels in the colour of rates and test scores."""
    return np.asarray((np.abs(imread(path)[..., :3] - np.array(to_rgb(BLUE))) < 0.02).all(axis=-1))


def small_figure() -> Figure:
    return plot_schedules({"constant": (Constant(0.03), 10)})


# --- names from others


def test_dollar_signs_in_a_name_are_not_mathematics(tmp_path: Path) -> None:
    name = r"$\no$ $x^2$"
    drawn = svg_of(plot_schedules({f"{name}\x1b": (UserSchedule(lambda _: 0.1, name), 5)}))
    assert rf">{name}\x1b</text>" in drawn
    assert f">{name}()</text>" in drawn
    drawn = svg_of(plot_comparison({name: [comparison_folder(tmp_path / "run", [1, 0], [0.1] * 4)]}))
    assert drawn.count(f">{name}</text>") == 2  # at the axis and in the legend


# --- schedules


class Recording:
    """A schedule that records its calls."""

    def __init__(self) -> None:
        self.evaluated: list[int] = []

    def __call__(self, iteration: int) -> float:
        self.evaluated.append(iteration)
        return 1 / iteration


@pytest.mark.parametrize("iterations", [1, 7, 1500])
def test_a_schedule_is_drawn_as_points_from_iteration_1(iterations: int) -> None:
    schedule = Recording()
    axes = plot_schedule(schedule, iterations)
    assert schedule.evaluated == list(range(1, iterations + 1))
    (line,) = axes.get_lines()
    assert points(line) == [(iteration, 1 / iteration) for iteration in range(1, iterations + 1)]
    assert line.get_linestyle() == "None"  # a line would show every drop as a slope
    assert line.get_marker() == "."
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Iteration", "Learning Rate")  # as in the tutorial


def test_a_schedule_is_drawn_over_the_tutorials_1500_iterations() -> None:
    schedule = Recording()
    plot_schedule(schedule)
    assert schedule.evaluated == list(range(1, 1501))


def test_a_curve_is_drawn_to_its_own_end() -> None:
    (line,) = plot_schedule(Cosine(max_update=90, base_lr=1)).get_lines()
    assert points(line)[-1] == (90, 0)
    (line,) = plot_schedule(Constant(1)).get_lines()
    assert points(line)[-1] == (1500, 1)


SEVERAL: list[AnySchedule] = [Cosine(max_update=90, base_lr=1), Linear(max_update=40, base_lr=0.5), Constant(0.2)]


@pytest.mark.parametrize("titles", [None, ["cosine", "line", "$\\no$"]])
def test_several_schedules_share_the_axes_and_differ_in_colour_and_style(titles: list[str] | None) -> None:
    axes = plot_schedule(dict(zip(titles, SEVERAL, strict=True))) if titles else plot_schedule(SEVERAL)
    lines = axes.get_lines()
    assert [points(line) for line in lines] == [[(k, schedule(k)) for k in range(1, 91)] for schedule in SEVERAL]
    legend = axes.get_legend()
    assert legend
    assert [text.get_text() for text in legend.get_texts()] == (titles or [repr(schedule) for schedule in SEVERAL])
    assert len({line.get_color() for line in lines}) == len({str(line.get_linestyle()) for line in lines}) == 3
    assert axes.get_ylim()[1] == pytest.approx(1.05, rel=0.01)


@pytest.mark.parametrize("wrong", [[], {}, "cosine", 3, [Constant(1), "cosine"]])
def test_what_is_not_a_schedule_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a list of schedules"):
        plot_schedule(wrong)


def test_a_second_schedule_is_not_a_number_of_iterations() -> None:
    wrong: Any = Constant(1)
    with pytest.raises(TypeError, match="a list of schedules"):
        plot_schedule(Constant(1), wrong)
    with pytest.raises(ValueError, match="iterations = 0"):
        plot_schedule(Constant(1), 0)


def test_a_notebook_shows_the_figure_at_half_the_size_of_its_pixels() -> None:
    axes: Any = plot_schedule(Constant(1))
    png, size = axes._repr_png_()
    assert png == png_of(plot_schedule(Constant(1)).figure)  # type: ignore[arg-type]  # a subfigure has no file
    assert size == {"width": 640, "height": 400}
    assert imread(io.BytesIO(png)).shape[:2] == (600, 960)


def test_axes_of_the_users_pyplot_are_shown_by_pyplot_alone() -> None:
    assert not hasattr(plot_schedule(Constant(1), 10, Figure().add_subplot()), "_repr_png_")


def test_a_long_curve_is_evaluated_only_as_often_as_a_figure_can_show() -> None:
    # The calls are counted, not timed. They include the first and the last iteration, and cover the whole run.
    evaluated: list[int] = []

    class Counting(Cosine):
        def rate_at(self, iteration: int) -> float:
            evaluated.append(iteration)
            return super().rate_at(iteration)

    schedule = Counting(max_update=1_000_000, base_lr=1)
    (line,) = plot_schedule(schedule, 1_000_000).get_lines()
    assert len(evaluated) <= 20_001
    assert (evaluated[0], evaluated[-1]) == (1, 1_000_000)
    assert evaluated == sorted(evaluated)
    assert max(np.diff(evaluated)) <= 100
    assert points(line) == [(iteration, Cosine(max_update=1_000_000, base_lr=1)(iteration)) for iteration in evaluated]


def test_cycles_shorter_than_the_distance_of_points_show_their_whole_range() -> None:
    # Regular distances would coincide with the period of the cycles and show only a few of their rates.
    (line,) = plot_schedule(Repeat(Linear(max_update=50, base_lr=1), 50), 1_000_000).get_lines()
    rates = [rate for _, rate in points(line)]
    assert {round(rate * 50) for rate in rates} == set(range(50))


def test_a_users_schedule_is_evaluated_in_order_for_any_length() -> None:
    evaluated: list[int] = []

    def own(iteration: int) -> float:
        evaluated.append(iteration)
        return 0.1

    held = Warmup(UserSchedule(own, "own"), warmup_steps=10)
    plot_schedule(held, 50_000)
    assert evaluated == list(range(1, 49_991))


def test_the_axis_of_rates_begins_at_zero() -> None:
    assert plot_schedule(Constant(0.03), 10).get_ylim()[0] == 0


def test_a_schedule_is_drawn_on_the_given_axes() -> None:
    axes = Figure().add_subplot()
    assert plot_schedule(Constant(0.03), 10, axes) is axes
    assert len(axes.get_lines()) == 1


@pytest.mark.parametrize("number", [1, 2, 3, 4, len(CURVES)])
def test_each_schedule_gets_a_panel(number: int) -> None:
    named = {cls.__name__: (cls(**cls.example), 10 * place) for place, cls in enumerate(CURVES[:number], start=1)}
    figure = plot_schedules(named)
    assert [axes.texts[0].get_text() for axes in figure.axes] == list(named)
    for axes, (schedule, iterations) in zip(figure.axes, named.values(), strict=True):
        assert points(axes.get_lines()[0]) == [(iteration, schedule(iteration)) for iteration in range(1, iterations + 1)]


def test_long_names_do_not_make_the_panels_smaller() -> None:
    def sizes(prefix: str) -> list[tuple[float, float]]:
        figure = plot_schedules({f"{prefix}{number}.toml": (Constant(0.03), 10) for number in range(3)})
        figure.draw_without_rendering()
        boxes = [axes.get_window_extent() for axes in figure.axes]
        return [(round(box.width), round(box.height)) for box in boxes]

    np.testing.assert_allclose(sizes("long/configuration-" * 20), sizes("short"), atol=2)
    figure = plot_schedules({"beginning-" + 30 * "middle-" + "end": (Constant(0.03), 10)})
    title = figure.axes[0].texts[0].get_text()
    assert re.fullmatch("beginning.*….*end", title)


def test_the_axes_of_a_gallery_are_labelled_at_its_edges() -> None:
    figure = plot_schedules({str(number): (Constant(0.03), 10) for number in range(9)})
    shown = [axes.get_ylabel() if axes.yaxis.label.get_alpha() != 0 else "" for axes in figure.axes]
    assert shown == ["Learning Rate", "", ""] * 3
    assert [axes.get_xlabel() for axes in figure.axes] == [""] * 6 + ["Iteration"] * 3


# --- runs


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a real run of three epochs with three iterations each."""
    folder = tmp_path_factory.mktemp("plots")
    (folder / "small.toml").write_text(RUN_CONFIG, encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["train", "--config", str(folder / "small.toml"), "--output", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def rows_of(path: Path) -> list[dict[str, float]]:
    with (path / "iterations.csv").open(encoding="utf-8") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def metrics_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def error_of(row: Any, part: str) -> float:
    return 100 - 100 * float(row[f"{part}_accuracy"])


def test_the_figure_of_a_run_shows_the_numbers_in_its_files(run_path: Path) -> None:
    rows, metrics = rows_of(run_path), metrics_of(run_path)
    assert (len(rows), len(metrics)) == (9, 3)
    figure = plot_run(RunFolder.open(run_path))
    loss_axes, error_axes, rate_axes = figure.axes
    ends = [epoch["iteration"] for epoch in metrics]

    assert line_labelled(loss_axes, "each batch") == [(row["iteration"], row["loss"]) for row in rows]
    for axes, of in ((loss_axes, lambda row, part: row[f"{part}_loss"]), (error_axes, error_of)):
        train = [(end, of(epoch, "train")) for end, epoch in zip(ends, metrics, strict=True)]
        test = [(end, of(epoch, "test")) for end, epoch in zip(ends, metrics, strict=True)]
        assert line_labelled(axes, "training, mean of the epoch") == train
        assert line_labelled(axes, "test, after the epoch") == test
    assert [points(line) for line in series(rate_axes)] == [[(row["iteration"], row["learning_rate"]) for row in rows]]
    assert (len(series(loss_axes)), len(series(error_axes))) == (3, 2)


def test_the_figure_of_a_run_has_labels_title_and_legend(run_path: Path) -> None:
    figure = plot_run(RunFolder.open(run_path))
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "Error [%]", "Learning rate"]
    assert figure.axes[-1].get_xlabel() == "Iteration"
    accuracy = metrics_of(run_path)[-1]["test_accuracy"]
    assert figure.get_suptitle() == f"{accuracy:.2%} on the test images after 3 epochs"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "each batch",
        "training, mean of the epoch",
        "test, after the epoch",
    ]


def test_the_ends_of_epochs_are_marked_and_counted(run_path: Path) -> None:
    for axes in plot_run(RunFolder.open(run_path)).axes:
        vertical = [line for line in axes.get_lines() if line not in series(axes)]
        assert [np.asarray(line.get_xdata()).tolist()[0] for line in vertical] == [3, 6]
    figure = plot_run(RunFolder.open(run_path))
    (epoch_axis,) = figure.axes[0].child_axes
    assert epoch_axis.get_xlabel() == "Epoch"
    figure.axes[0].set_xlim(0, 9)
    figure.draw_without_rendering()
    assert epoch_axis.get_xlim() == (0, 3)


def make_run(path: Path, rows: Sequence[tuple[float, float]]) -> RunFolder:
    """Make a run of one epoch with these rates and losses."""
    folder = RunFolder.create(path)
    folder.append_iterations((number, rate, loss) for number, (rate, loss) in enumerate(rows, start=1))
    folder.append_metrics(METRICS | {"epoch": 1, "iteration": len(rows)})
    return folder


@pytest.mark.parametrize(
    ("rows", "loss_scale", "rate_scale"),
    [
        pytest.param([(0.03, 2.0), (0.003, 1.0)], "log", "linear", id="one drop"),
        pytest.param([(0.03, 2.0), (0.0003, 1.0)], "log", "log", id="rates far apart"),
        pytest.param([(1.0 / number, 2.0) for number in range(1, 101)], "log", "linear", id="a smooth curve"),
        pytest.param([(0.03, 2.0), (0.0, 1.0)], "log", "linear", id="a rate of zero"),
        pytest.param([(0.0, 2.0), (0.0, 1.0)], "log", "linear", id="all rates are zero"),
        pytest.param([(0.03, 2.0), (0.03, 0.0)], "linear", "linear", id="a loss of zero"),
        pytest.param([(0.03, 2.0)], "log", "linear", id="one iteration"),
    ],
)
def test_an_axis_is_logarithmic_for_positive_numbers_far_apart(
    rows: list[tuple[float, float]], loss_scale: str, rate_scale: str, tmp_path: Path
) -> None:
    figure = plot_run(make_run(tmp_path / "run", rows))
    loss_axes, error_axes, rate_axes = figure.axes
    assert (loss_axes.get_yscale(), error_axes.get_yscale(), rate_axes.get_yscale()) == (loss_scale, "log", rate_scale)
    assert figure.get_suptitle() == "50.00% on the test images after 1 epoch"
    save_figure(figure, tmp_path / "run.png")  # warnings, as about zero on a logarithmic axis, are errors
    assert is_blue(tmp_path / "run.png").sum() > 10


def test_momentum_and_weight_decay_have_panels_where_they_are_scheduled(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.append_iterations((number, 0.1, 1.0) for number in range(1, 5))
    for epoch, momentum in ((1, 0.9), (2, 0.8)):
        folder.append_metrics(METRICS | {"epoch": epoch, "iteration": 2 * epoch, "momentum": momentum, "wd": momentum / 100})
    figure = plot_run(folder)
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "Error [%]", "Learning rate", "Momentum", "Weight decay"]
    assert points(series(figure.axes[3])[0]) == [(2, 0.9), (4, 0.8)]


# --- learning-rate sweeps

SWEEP = [
    # falls from 2.3 at rate 0.001 to 0.4 at 0.1, then diverges
    *(
        (number, 0.001 * 10 ** ((number - 1) / 10), 2.3 - 0.09 * (number - 1), 2.3 - 0.08 * (number - 1))
        for number in range(1, 22)
    ),
    (22, 0.12, 3.0, 1.0),
    (23, 0.15, 900.0, 90.0),
]


def vertical_lines(axes: Axes) -> dict[str, float]:
    """Return the positions of the vertical lines of an axes, by their labels."""
    lines = [line for line in axes.get_lines() if line not in series(axes)]
    return {str(line.get_label()): points(line)[0][0] for line in lines}


def test_the_figure_of_a_sweep_shows_each_loss_and_both_suggestions() -> None:
    (axes,) = plot_lr_sweep(SWEEP, 0.0321, 0.01).axes
    assert line_labelled(axes, "each batch") == [(row[1], row[2]) for row in SWEEP]
    assert line_labelled(axes, "smoothed") == [(row[1], row[3]) for row in SWEEP]
    assert vertical_lines(axes) == {"steepest fall: 0.0321": 0.0321, "a tenth of the minimum's rate: 0.01": 0.01}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Learning rate", "Loss")


def test_the_suggestions_of_a_sweep_look_different() -> None:
    (axes,) = plot_lr_sweep(SWEEP, 0.0321, 0.01).axes
    lines = [line for line in axes.get_lines() if line not in series(axes)]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 2
    assert len({line.get_color() for line in axes.get_lines()}) == 4
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [line.get_label() for line in axes.get_lines()]


def test_a_divergence_does_not_compress_the_earlier_losses() -> None:
    (axes,) = plot_lr_sweep(SWEEP, 0.0321, 0.01).axes
    low, high = axes.get_ylim()
    assert 0.2 < low < 0.5 < 2.3 < high < 2.9


def test_the_rates_of_a_sweep_are_plain_numbers() -> None:
    figure = plot_lr_sweep(SWEEP, None, None)
    figure.draw_without_rendering()
    assert {"0.001", "0.01", "0.1"} <= {label.get_text() for label in figure.axes[0].get_xticklabels()}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([*SWEEP, (24, 0.2, float("nan"), float("nan"))], id="a loss that is not a number"),
        pytest.param([*SWEEP, (24, 0.2, float("inf"), float("inf"))], id="an infinite loss"),
        pytest.param([(1, 0.1, 2.3, 2.3)], id="one iteration"),
        pytest.param([(1, 0.1, 2.3, 2.3), (2, 0.2, float("nan"), float("nan"))], id="only one loss"),
        pytest.param([(1, 0.1, float("nan"), float("nan"))], id="no loss"),
        pytest.param([(1, 0.1, 2.3, 2.3), (2, 0.2, 2.3, 2.3)], id="all the same"),
        pytest.param([(1, 0.1, 2.3, 2.3), (2, 0.2, 2.9, 2.6)], id="never fell"),
    ],
)
def test_a_sweep_with_any_end_can_be_drawn(rows: list[tuple[int, float, float, float]], tmp_path: Path) -> None:
    figure = plot_lr_sweep(rows, None, None)
    save_figure(figure, tmp_path / "sweep.png")  # warnings are errors
    assert [line.get_label() for line in figure.axes[0].get_lines()] == ["each batch", "smoothed"]
    assert (tmp_path / "sweep.png").stat().st_size > 1000


# --- files


def test_the_picture_in_a_run_folder_is_the_figure_of_its_files(run_path: Path, tmp_path: Path) -> None:
    save_figure(plot_run(RunFolder.open(run_path)), tmp_path / "again.png")
    assert np.array_equal(imread(tmp_path / "again.png"), imread(run_path / "curves.png"))
    assert is_blue(run_path / "curves.png").sum() > 100


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        pytest.param("figure.png", b"\x89PNG\r\n\x1a\n", id="PNG"),
        pytest.param("figure.PNG", b"\x89PNG\r\n\x1a\n", id="PNG in capitals"),
        pytest.param(".12345.figure.png", b"\x89PNG\r\n\x1a\n", id="PNG under a temporary name"),
        pytest.param("figure.svg", b"<?xml", id="SVG"),
        pytest.param("figure.pdf", b"%PDF-", id="PDF"),
        pytest.param("figure.jpg", b"\xff\xd8\xff", id="JPEG"),
    ],
)
def test_the_extension_determines_the_format(name: str, signature: bytes, tmp_path: Path) -> None:
    save_figure(small_figure(), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes().startswith(signature)


def test_a_saved_schedule_is_drawn_at_the_right_height(tmp_path: Path) -> None:
    figure = plot_schedules({"drops": (lambda iteration: 1.0 if iteration <= 750 else 0.1, 1500)})
    save_figure(figure, tmp_path / "figure.png")
    drawn = is_blue(tmp_path / "figure.png")
    height, width = drawn.shape
    left, right = np.nonzero(drawn[:, : width // 3])[0], np.nonzero(drawn[:, 2 * width // 3 :])[0]
    assert left.max() < height * 0.2
    assert right.min() > height * 0.6


def test_every_format_can_be_written(tmp_path: Path) -> None:
    assert "png" in FORMATS
    for name in FORMATS:
        save_figure(small_figure(), tmp_path / f"figure.{name}")
        assert (tmp_path / f"figure.{name}").stat().st_size > 0


def test_a_figure_in_memory_equals_the_file(tmp_path: Path) -> None:
    save_figure(small_figure(), tmp_path / "figure.png")
    assert png_of(small_figure()) == (tmp_path / "figure.png").read_bytes()


@pytest.mark.process
def test_pyplot_is_never_loaded(run_path: Path, repository: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from mnist_trainer.plots import plot_run, plot_schedule, save_figure\n"
        "from mnist_trainer.run_folder import RunFolder\n"
        "from mnist_trainer.schedules import Constant\n"
        "save_figure(plot_schedule(Constant(1)).figure, Path('curve.png'))\n"
        "save_figure(plot_run(RunFolder.open(Path(sys.argv[1]))), Path('run.png'))\n"
        "print(sorted({'matplotlib', 'matplotlib.pyplot', 'mxnet'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(run_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("['matplotlib']\n", "", 0)
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert (tmp_path / "run.png").stat().st_size > 1000


# --- the user's settings

HOSTILE = """
text.usetex: True
font.family: serif
font.size: 23
figure.dpi: 44
savefig.dpi: 44
savefig.bbox: tight
savefig.facecolor: yellow
savefig.transparent: True
axes.facecolor: black
axes.grid: True
axes.prop_cycle: cycler(color=["red"])
lines.linewidth: 7
image.lut: 3
image.interpolation: bilinear
image.origin: lower
path.sketch: 5, 10, 20
text.hinting: none
svg.fonttype: path
backend: no such backend
toolbar: toolmanager
no setting
no.such.setting: 1
"""

DRAW_ALL = """
import os, sys
from pathlib import Path
from mnist_trainer import plots
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.schedules import Cosine

run, folder = RunFolder(Path("run")), Path(sys.argv[1])
folder.mkdir()
cosine = Cosine(max_update=8, base_lr=0.1)
figures = {
    "plot_schedule": plots.plot_schedule(cosine, 10).figure,
    "plot_schedules": plots.plot_schedules({"cosine": (cosine, 10), "again": (cosine, 5)}),
    "plot_run": plots.plot_run(run),
    "plot_lr_sweep": plots.plot_lr_sweep([(1, 0.001, 2.0, 2.1), (2, 0.01, 1.0, 1.5), (3, 0.1, 3.0, 2.0)], 0.02, 0.01),
    "plot_benchmark": plots.plot_benchmark({"one": (2.0, 1.5, 3.0)}, ["one"], "2 threads"),
    "plot_comparison": plots.plot_comparison({"one": [run, run]}),
    "plot_confusion_matrix": plots.plot_confusion_matrix([[5, 1, 2], [3, 5, 0], [4, 6, 5]], 15, 31),
    "plot_mistakes": plots.plot_mistakes([[[x * y / 729 for x in range(28)] for y in range(28)]], ["predicted 1"], 1, 31),
}
assert set(figures) == {name for name in vars(plots) if name.startswith("plot_")}
for name, figure in figures.items():
    plots.save_figure(figure, folder / f"{name}.png")
assert plots.png_of(figures["plot_lr_sweep"]) == (folder / "plot_lr_sweep.png").read_bytes()
assert ">Test error [%]</text>" in plots.svg_of(figures["plot_comparison"])
print(os.environ.get("MPLBACKEND"), "matplotlib.pyplot" in sys.modules)
"""


def python(script: str, cwd: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python without the user's settings for matplotlib, but with these variables."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "MATPLOTLIB"))}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env=ours | {"PYTHONPATH": str(REPOSITORY), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def plain_figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a figure of each kind without any settings, of a run in the same folder."""
    folder = tmp_path_factory.mktemp("plain")
    make_run(folder / "run", [(0.03, 2.0), (0.003, 1.0)])
    done = python(DRAW_ALL, folder, "plain")
    assert (done.stdout, done.stderr) == ("None False\n", "")
    return folder


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("rc_file", "variables"),
    [
        pytest.param("", {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, id="a backend that is not installed"),
        pytest.param("matplotlibrc", {"MPLBACKEND": "svg"}, id="settings in the current folder and a backend"),
        pytest.param(
            "settings",
            {"MATPLOTLIBRC": "settings", "HOME": "/dev/null", "MPLCONFIGDIR": "/dev/null/matplotlib"},
            id="a file of settings in a variable and no folder for a cache",
        ),
    ],
)
def test_figures_are_the_same_to_the_last_byte_with_any_settings(
    rc_file: str, variables: dict[str, str], plain_figures: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").symlink_to(plain_figures / "run")
    if rc_file:
        (tmp_path / rc_file).write_text(HOSTILE, encoding="utf-8")
    done = python(DRAW_ALL, tmp_path, "drawn", **variables)
    assert (done.stdout, done.stderr) == (f"{variables.get('MPLBACKEND')} False\n", "")
    for path in (plain_figures / "plain").iterdir():
        assert (tmp_path / "drawn" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.process
@pytest.mark.parametrize(("backend", "is_there"), [("svg", True), ("module://xml.dom", True), ("no such backend", False)])
def test_the_users_own_figures_have_the_users_backend_and_settings(backend: str, is_there: bool, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 23\nno setting\n", encoding="utf-8")
    script = (
        "import logging, os\n"
        "from mnist_trainer import plots\n"
        "from mnist_trainer.schedules import Constant\n"
        "axes = plots.plot_schedule(Constant(1), 10)\n"
        "import matplotlib\n"
        "backend = os.environ['MPLBACKEND']\n"
        "print(backend, matplotlib.get_backend() == backend, matplotlib.rcParams['font.size'], sep=', ')\n"
        "figure = plots.Figure()\n"
        "assert plots.plot_schedule(Constant(1), 10, figure.add_subplot()).xaxis.label.get_fontsize() == 23\n"
        "logging.getLogger('matplotlib.font_manager').warning('printed')\n"
    )
    done = python(script, tmp_path, MPLBACKEND=backend)
    assert (done.stdout, done.stderr) == (f"{backend}, {is_there}, 23.0\n", "printed\n")


@pytest.mark.process
def test_a_matplotlib_that_was_imported_before_keeps_its_backend(tmp_path: Path) -> None:
    script = (
        "import matplotlib\nmatplotlib.use('pdf')\nfrom mnist_trainer import plots\nprint(matplotlib.rcParams['backend'])\n"
    )
    assert python(script, tmp_path, MPLBACKEND="svg").stdout == "pdf\n"


@pytest.mark.process
def test_a_file_of_settings_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"# f\xfcr mich\n")
    done = python("from mnist_trainer import plots", tmp_path)
    assert done.returncode == 1
    assert re.search(r"^ImportError: .*'matplotlibrc'.*utf-8", done.stderr, re.MULTILINE)


# --- comparisons


def comparison_folder(path: Path, errors: Sequence[float], rates: list[float]) -> RunFolder:
    """Make a run with two iterations per epoch and these test errors in percent."""
    path.mkdir()
    folder = RunFolder(path)
    folder.append_iterations((iteration, rate, 1.0) for iteration, rate in enumerate(rates, start=1))
    for epoch, error in enumerate(errors, start=1):
        scores = {"test_accuracy": 1 - error / 100, "test_loss": error / 10}
        folder.append_metrics(METRICS | scores | {"epoch": epoch, "iteration": 2 * epoch})
    return folder


@pytest.fixture
def compared(tmp_path: Path) -> Figure:
    """Plot two seeds of one configuration and one seed of another."""
    first = [
        comparison_folder(tmp_path / name, errors, [0.1, 0.1, 0.01, 0.01]) for name, errors in (("1", [4, 2]), ("2", [6, 3]))
    ]
    other = [comparison_folder(tmp_path / "3", [5, 1], [0.2, 0.2, 0.1, 0.1])]
    return plot_comparison({"steps": first, "falling": other})


def test_a_comparison_shows_the_means_over_the_seeds_and_their_range(compared: Figure) -> None:
    errors, losses, rates, final = compared.axes
    np.testing.assert_allclose(line_labelled(errors, "steps"), [(1, 5), (2, 2.5)])
    np.testing.assert_allclose(line_labelled(losses, "falling"), [(1, 0.5), (2, 0.1)])
    (band,) = errors.collections  # a single seed has no band
    corners = np.asarray(band.get_paths()[0].vertices)
    assert {(x, y) for x, y in corners.round(6).tolist()} == {(1, 4), (1, 6), (2, 2), (2, 3)}
    assert [points(line) for line in rates.get_lines()] == [
        list(zip([0.5, 1.0, 1.5, 2.0], curve, strict=True)) for curve in ([0.1, 0.1, 0.01, 0.01], [0.2, 0.2, 0.1, 0.1])
    ]
    seeds, mean, *_ = final.get_lines()
    np.testing.assert_allclose(points(seeds), [(98, 0), (97, 0)])
    np.testing.assert_allclose(points(mean), [(97.5, -0.3), (97.5, 0.3)])
    assert [label.get_text() for label in final.get_yticklabels()] == ["steps", "falling"]


def test_the_lines_of_a_comparison_differ_without_colour(tmp_path: Path) -> None:
    runs = {str(number): [comparison_folder(tmp_path / str(number), [5, 1], [0.1] * 4)] for number in range(12)}
    lines = plot_comparison(runs).axes[0].get_lines()
    assert len({(line.get_linestyle(), str(line.get_marker())) for line in lines}) == 12


def test_both_of_two_equal_runs_are_visible_and_their_difference_is_zero(tmp_path: Path) -> None:
    runs = [comparison_folder(tmp_path / name, [4, 2], [0.1, 0.1, 0.01, 0.01]) for name in ("one", "other")]
    groups = {run.path.name: [run] for run in runs}
    pairs = [(runs[0], runs[1])]
    whole = plot_comparison(groups, pairs)
    legend, *parts = comparison_parts(groups, pairs)
    for drawn in (whole.axes, [axes for part in parts for axes in part.axes]):
        errors, losses, rates, _, differences = drawn
        for axes in (errors, losses, rates):
            covered, other = axes.get_lines()
            assert points(covered)[-1][1] == points(other)[-1][1]
            assert covered.get_linewidth() > 2 * other.get_linewidth()
        assert [points(line) for line in differences.get_lines()] == [[(0.5, 0), (1, 0), (1.5, 0), (2, 0)]] * 2
        assert "0 at every iteration" in differences.get_title(loc="left")
    accuracies = whole.axes[3]
    assert accuracies.get_xlim() == pytest.approx((97.9, 98.1))
    for figure in (whole, legend):
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "other"]


def test_differences_of_pairs_are_drawn_with_their_maximum(tmp_path: Path) -> None:
    rates = {"a": [0.1, 0.1, 0.1, 0.1], "b": [0.1, 0.2, 0.1, 0.1], "c": [0.1, 0.1, 0.4, 0.1], "d": [0.1, 0.1, 0.1]}
    a, b, c, d = (comparison_folder(tmp_path / name, [4, 2], of_run) for name, of_run in rates.items())
    axes = plot_comparison({"a": [a]}, [(a, b), (c, a), (a, d)]).axes[-1]
    losses, learning_rates = axes.get_lines()
    assert [y for _, y in points(losses)] == [0, 0, 0, 0]
    np.testing.assert_allclose([y for _, y in points(learning_rates)], [0, 0.1, 0.3, 0])
    assert "3 pairs" in axes.get_title(loc="left")
    assert "0 at every" not in axes.get_title(loc="left")


def test_a_band_is_explained(compared: Figure, tmp_path: Path) -> None:
    def legend(figure: Figure) -> list[str]:
        return [text.get_text() for text in figure.legends[0].get_texts()]

    assert legend(compared) == ["steps", "falling", "range of the seeds"]
    assert legend(plot_comparison({"single": [comparison_folder(tmp_path / "4", [5, 1], [0.1] * 4)]})) == ["single"]


def test_an_error_of_zero_can_be_drawn(tmp_path: Path) -> None:
    figure = plot_comparison({"perfect": [comparison_folder(tmp_path / "run", [1, 0], [0.1] * 4)]})
    assert figure.axes[0].get_yscale() == "linear"
    save_figure(figure, tmp_path / "figure.png")


def test_a_figure_for_a_page_has_its_text_colour(compared: Figure) -> None:
    svg = svg_of(compared)
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert ">Test error [%]</text>" in svg  # text can be read and searched


def test_a_long_schedule_with_state_is_called_in_order_and_drawn_in_part() -> None:
    asked = 0

    def count(iteration: int) -> float:
        nonlocal asked
        asked += 1
        assert iteration == asked
        return float(iteration)

    (line,) = plot_schedule(count, 50_000).get_lines()
    assert asked == 50_000
    drawn = np.asarray(line.get_xdata())
    assert len(drawn) <= 20_001
    np.testing.assert_array_equal(drawn, np.asarray(line.get_ydata()))


# --- colours

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1.
COLOUR_VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen_in_lab(colour: str, vision: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the CIE L*a*b* coordinates (D65) of a colour such as "#0072B2" as somebody with this colour vision sees it."""
    coded = np.array(to_rgb(colour))
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(COLOUR_VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ linear / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_seven_colours_stay_apart_for_every_colour_vision(vision: str) -> None:
    seen = [seen_in_lab(look.color, vision) for look in plots._LOOKS[:7]]
    distances = [float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)]
    assert min(distances) > 15  # 2.3 is a just noticeable difference


def test_the_measure_of_colours_agrees_with_known_coordinates() -> None:
    np.testing.assert_allclose(seen_in_lab("#FF0000", "normal"), [53.24, 80.09, 67.20], atol=0.02)
    np.testing.assert_allclose(seen_in_lab("#FFFFFF", "deuteranopia"), [100, 0, 0], atol=0.02)


def test_an_overlay_has_a_line_for_each_schedule(tmp_path: Path) -> None:
    figure = plots.overlay_schedules({"cosine": (Cosine(max_update=10), 10), "other": (Cosine(max_update=20), 20)})
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cosine", "other"]
    assert [points(line)[-1][0] for line in series(axes)] == [20, 20]
