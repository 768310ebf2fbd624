"""Write the generated parts of the documentation: tables, figures and measurements.

For developers. Without arguments it makes everything, which takes half an hour on two cores; run nothing else meanwhile.

    python scripts/make_docs.py tables                       # tables of the pages; takes a second
    python scripts/make_docs.py schedules.png demo.png       # figures in docs/figures/
    python scripts/make_docs.py tutorial.ipynb               # the notebook of docs/tutorial.md, and its outputs on that page
    python scripts/make_docs.py benchmark.json costs.json    # measurements in docs/

The demo's figure needs the system packages chromium and chromium-driver; benchmark.json needs the extra `bench`, or
`--peer-python` with an interpreter that has torch and jax.
"""

import argparse
import base64
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import cache, partial
from pathlib import Path
from typing import Any

from mnist_trainer import schedules
from mnist_trainer.benchmark.report import Spread
from mnist_trainer.cli import CONFIG_FLAGS
from mnist_trainer.comparison.intervals import Estimate, PairedDifference
from mnist_trainer.config.optimizers import COMMON_ARGUMENTS, OPTIMIZERS
from mnist_trainer.config.schema import SECTIONS, LayerConfig, flag_of
from mnist_trainer.console import Table, in_markdown
from mnist_trainer.data import augmentation
from mnist_trainer.errors import DONE
from mnist_trainer.runtime.processes import this_program
from mnist_trainer.schedules import CURVES
from mnist_trainer.schedules.builtin_warmup import BuiltinSchedule
from mnist_trainer.schedules.dictionary import translations
from mnist_trainer.schedules.named import fill_settings, missing_settings
from mnist_trainer.schedules.schedule import DURATION, STATE
from mnist_trainer.toml import to_toml

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"
PAGES = (README, *sorted(DOCS.glob("*.md")))
GOLDEN = REPOSITORY / "tests" / "schedules" / "golden"
DICTIONARY = REPOSITORY / "mnist_trainer" / "schedules" / "dictionary.json"

BANNER = (
    *("MultiFactor", "Cosine", "WarmRestarts", "OneCycleLR"),
    *("WarmupStableDecay", "Cyclical", "Noise", "Sequential"),
)
"""The schedules in the README's first figure."""

FRAMEWORKS = (
    *("mxnet", "gluoncv", "pytorch", "keras", "optax", "timm", "transformers", "paddle", "fastai", "fairseq"),
    *("megatron", "deepspeed", "pytorch_warmup", "speechbrain"),
)
"""The golden tables, in the order of the dictionary."""

COST_TITLES = {
    "memory.peak_mb": "peak memory of `train`, MB",
    "startup.help_to_python_ratio": "`mnist-trainer --help`, relative to starting Python",
    "startup.first_iteration_seconds": "from the start of `train` to its first iteration, s",
    "checkpoints.by_default_ratio": "an epoch with the default checkpoints, relative to one without",
    "checkpoints.every_50_ratio": "an epoch with a checkpoint every 50 iterations, relative to one without",
    "data.array_ms": "a batch of the array loader, ms",
    "data.gluon_ms": "a batch of Gluon's DataLoader with ToTensor, ms",
    "data.iteration_ms": "an iteration with the array loader, ms",
    "jobs.in_turn_all_threads_ratio": "two trainings in sequence, two threads each; relative to side by side, one thread each",
    "jobs.in_turn_one_thread_ratio": "two trainings in sequence, one thread each; relative to side by side",
    "workers.alone_images_per_second": "one process with one thread, images per second",
    "workers.1_workers_images_per_second": "`launch` with one worker, images per second",
    "workers.2_workers_images_per_second": "`launch` with two workers, images per second",
    "workers.4_workers_images_per_second": "`launch` with four workers, images per second",
    "workers.2_workers_megabytes_per_iteration": "traffic of two workers, MB per iteration",
}

GRAPH_TITLES = {
    "as_written_ms": "the network as written, hybridized; the loss separate",
    "one_graph_ms": "network, loss and correct answers in one graph",
    "planned_memory_ms": "memory planned once (`static_alloc`, `static_shape`)",
    "pooled_first_ms": "pooling before relu",
    "channels_by_8_ms": "channels padded to a multiple of 8, a vector of AVX2",
    "channels_by_16_ms": "channels padded to a multiple of 16, a vector of AVX-512: the stock backend",
    "fused_ms": "convolution, pooling and relu in one operator: the fused backend",
    "fused_update_ms": "the update in one operator, which also checks the gradients (the others do not)",
}


# --- tables


def keys(section: str) -> Table:
    """Return the keys of a section that has fields."""
    section_class = LayerConfig if section == "layers" else SECTIONS[section]
    assert section_class
    rows: Table = [("key", "value", "default", "flag", "meaning")]
    for spec in fields(section_class):
        key = f"{section}.{spec.name}"
        default = "" if spec.default is None else f"`{json.dumps(spec.default)}`"
        flag = f"`{flag_of(key)}`" if key in CONFIG_FLAGS else ""
        rows.append((f"`{spec.name}`", str(spec.metadata["kind"]), default, flag, spec.metadata["sentence"]))
    return rows


def augmentations() -> Table:
    """Return the random changes of the training images."""
    angle = math.degrees(2 * math.atan(augmentation.MAX_HALF_ANGLE_TANGENT))
    slant = math.degrees(math.atan(augmentation.MAX_SHEAR))
    thinner, thicker = 2 * augmentation.MAX_THINNING, 2 * augmentation.MAX_THICKENING
    return [
        ("change", "range"),
        ("shift, horizontally and vertically", f"± {augmentation.MAX_SHIFT:g} pixels each"),
        ("rotation", f"± {angle:.0f}°"),
        ("scale of the width and the height", f"± {augmentation.MAX_SCALE:.0%} each".replace("%", " %")),
        ("slant", f"± {slant:.0f}°"),
        ("thickness of the strokes", f"from {thinner:g} pixels thinner to {thicker:g} pixels thicker"),
    ]


def schedules_by_name() -> Table:
    """Return a table with the settings that `--schedule NAME` fills for a learning rate of 1, and those that must be added."""
    rows: Table = [("schedule", "filled for a learning rate of 1", "to be added")]
    for curve in CURVES:
        if not curve.is_momentum:
            filled = fill_settings({"name": curve.__name__}, True, 1.0)
            settings = [f"`{line}`" for line in to_toml({"schedule": filled}).splitlines()[2:]]
            missing = [f"`{name}`" for name in missing_settings(filled)]
            rows.append((f"`{curve.__name__}`", ", ".join(settings), ", ".join(missing)))
    return rows


def settings_of_schedules() -> Table:
    """Return the settings of each schedule, without `base_lr` and without the built-in warm-up of four of them."""
    builtin = {spec.name for spec in fields(BuiltinSchedule)}
    rows: Table = [("schedule", "settings", "in iterations")]
    for cls in CURVES:
        has_warmup = issubclass(cls, BuiltinSchedule)
        specs = [spec for spec in fields(cls) if spec.metadata.get("role") != STATE]
        own = [spec for spec in specs if spec.name != "base_lr" and not (has_warmup and spec.name in builtin)]
        marks = ("" if any(spec.name == "base_lr" for spec in specs) else " †") + (" ‡" if has_warmup else "")
        durations = [f"`{spec.name}`" for spec in own if spec.metadata.get("role") == DURATION]
        rows.append((f"`{cls.__name__}`{marks}", ", ".join(map(_with_default, own)), ", ".join(durations)))
    return rows


def _with_default(spec: Any) -> str:
    if spec.default is None:
        return f"`{spec.name}` (optional)"
    return f"`{spec.name}`" if spec.default is MISSING else f"`{spec.name} = {json.dumps(spec.default)}`"


def arguments_of_optimizers() -> Table:
    """Return the arguments of each optimizer."""
    rows: Table = [("optimizer", "arguments")]
    for name, arguments in OPTIMIZERS.items():
        rows.append((f"`{name}`", ", ".join(f"`{argument}`" for argument in arguments + COMMON_ARGUMENTS)))
    return rows


def configurations() -> Table:
    """Return the bundled configurations with the results that they state."""
    rows: Table = [("configuration", "experiment", "test accuracy", "time")]
    for path in sorted((REPOSITORY / "configs").glob("*.toml")):
        text = _text_of(path)
        sentence = " ".join(re.findall(r"^# ?(.*)$", text.partition("\n#\n")[0], re.MULTILINE))
        measured = re.search(r"# Measured: (\d\d\.\d\d) % on the test images, (\d+) s ", text)
        assert measured, path
        rows.append((f"`{path.stem}`", sentence, f"{measured[1]} %", f"{measured[2]} s"))
    return rows


def frameworks() -> list[str]:
    """Return the names of the frameworks in the dictionary, in its order."""
    return list(dict.fromkeys(found.framework for found in translations()))


def dictionary(framework: str) -> Table:
    """Return the translations of the schedules of a framework."""
    rows: Table = [("its call", "the same schedule here", "at k", "notes")]
    for found in translations():
        if found.framework == framework:
            rows.append((f"`{found.call}`", f"`{found.ours}`", found.at, "; ".join(found.notes)))
    return rows


def dictionary_text() -> str:
    """Return the dictionary of `schedules find`: the first golden case of each name, and those that are listed."""
    rows = []
    for name in FRAMEWORKS:
        table = json.loads(_text_of(GOLDEN / f"{name}.json"))
        seen: set[str] = set()
        for case in table["cases"]:
            names = case.get("names") or [_name_of(case["origin"])]
            if case.get("listed") or not seen.issuperset(names):
                seen |= set(names)
                shift = table["counts_from"] or case.get("shift")  # from 1, as here, or from 0
                rows.append(
                    {
                        "framework": table["framework"],
                        "module": case.get("module", table["module"]),
                        "names": names,
                        "call": case.get("shown", case["origin"]),
                        "ours": repr(eval(case["ours"], dict(vars(schedules)))),
                        "at": "" if "metrics" in case else {0: "count k", 1: "update k"}[shift],
                        "section": "momentum" if case["origin"].startswith("momentum(") else "schedule",
                        "notes": [*filter(None, [case.get("note", "")]), *case.get("differs", {})],
                    }
                )
    return "[\n" + ",\n".join(f" {json.dumps(row, ensure_ascii=False)}" for row in rows) + "\n]\n"


def _name_of(call: str) -> str:
    """Return the name of the schedule in a call, which may be within a wrapper such as `momentum(…)`."""
    found = re.match(r"(?:(?:momentum|lr_scale|per_epoch|after)\((?:\d+, )?)*(\w+)\(", call)
    assert found, call
    return found[1]


def differential() -> Table:
    """Return the numbers of the differential test, by library."""
    libraries = _measured("differential.json")["libraries"]
    keys = ("cases", "sets", "rates", "omitted", "differences")
    rows = [(name, found["version"], *(f"{found[key]:,}" for key in keys)) for name, found in libraries.items()]
    total = ("all", "", *(f"{sum(found[key] for found in libraries.values()):,}" for key in keys))
    return [("library", "version", "cases", "parameter sets", "rates", "omitted", "differences"), *rows, total]


def speed() -> Table:
    """Return the seconds of an epoch of each implementation."""
    rows: Table = [("implementation", "seconds per epoch", "relative to mnist-trainer", "test accuracy")]
    for result in _measured("benchmark.json")["results"].values():
        seconds, ratio = (Spread(**result[name]).shown() for name in ("train_seconds", "ratio"))
        rows.append((result["title"], seconds, ratio, f"{100 * result['test_accuracy']:.2f} %"))
    return rows


def phases() -> Table:
    """Return the milliseconds of each phase of an iteration."""
    rows = [(name, f"{milliseconds:.2f}") for name, milliseconds in _measured("benchmark.json")["phases_ms"].items()]
    return [("phase", "ms per iteration"), *rows]


def costs() -> Table:
    """Return the costs of a run."""
    return [("cost", "median (minimum to maximum)"), *((title, _cost(key)) for key, title in COST_TITLES.items())]


def graphs() -> Table:
    """Return the milliseconds of forward, backward and update for each way to compute the network."""
    rows = [(title, _cost(f"graphs.{key}")) for key, title in GRAPH_TITLES.items()]
    return [("way, each with the changes above it", "ms per iteration: median (minimum to maximum)"), *rows]


def scores() -> Table:
    """Return the scores of the compared schedules."""
    rows: Table = [("configuration", "test accuracy", "test loss", "points from `tutorial`, 95 % interval")]
    for score in _measured("comparison.json")["configs"]:
        accuracy, loss = Estimate(**score["test_accuracy"]), Estimate(**score["test_loss"])
        points = ""
        if difference := score["difference"]:
            points = PairedDifference(difference["mean"], difference["half_width"], difference["n"]).shown()
        rows.append((f"`{score['config']}`", f"{accuracy.shown(100, 2)} %", loss.shown(1, 4), points))
    return rows


def _cost(key: str) -> str:
    cost, _, quantity = key.partition(".")
    digits = 0 if quantity.endswith(("_mb", "_second")) else 2
    return Spread.of(_measured("costs.json")["costs"][cost][quantity]).shown(digits)


@cache
def _measured(name: str) -> Any:
    return json.loads(_text_of(DOCS / name))


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


TABLES: dict[str, Callable[[], Table]] = {
    **{f"keys of {section}": partial(keys, section) for section, section_class in SECTIONS.items() if section_class},
    "keys of layers": partial(keys, "layers"),
    "settings of schedules": settings_of_schedules,
    "schedules by name": schedules_by_name,
    "arguments of optimizers": arguments_of_optimizers,
    "augmentations": augmentations,
    "configurations": configurations,
    **{f"dictionary of {framework}": partial(dictionary, framework) for framework in frameworks()},
    "differential": differential,
    "speed": speed,
    "phases": phases,
    "costs": costs,
    "graphs": graphs,
    "scores": scores,
}


def with_tables(page: str) -> str:
    """Return a page with new tables: the text between the comments `<!-- table: NAME -->` and `<!-- end -->`."""
    return re.sub(
        r"(?<=<!-- table: )(.+?)( -->\n).*?(?=<!-- end -->)",
        lambda match: f"{match[1]}{match[2]}\n" + "\n".join(in_markdown(TABLES[match[1]]())) + "\n\n",
        page,
        flags=re.DOTALL,
    )


def write_tables() -> None:
    """Write the dictionary of schedules, and the tables of all pages."""
    DICTIONARY.write_text(dictionary_text(), encoding="utf-8")
    translations.cache_clear()
    for path in PAGES:
        before = _text_of(path)
        if (after := with_tables(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(path.relative_to(REPOSITORY))


# --- the notebook

TUTORIAL = DOCS / "tutorial.md"
NOTEBOOK = DOCS / "tutorial.ipynb"

_CODE = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"  # a code cell, and what the page shows of its output
    r"(?P<text>\n```text\n.*?^```\n)?(?P<figure>\n!\[[^]]*\]\(figures/tutorial_\w+\.png\)\n)?",
    re.MULTILINE | re.DOTALL,
)


def notebook_of(page: str) -> dict[str, Any]:
    """Return the notebook of a page, without outputs: its Python code in cells for code, and the rest in cells for Markdown."""
    cells: list[dict[str, Any]] = []

    def add(kind: str, source: str, **more: Any) -> None:
        if source.strip():
            cells.append({"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}, "source": source.strip(), **more})

    end = 0
    for found in _CODE.finditer(page):
        add("markdown", page[end : found.start()])
        add("code", found["code"], execution_count=None, outputs=[])
        end = found.end()
    add("markdown", page[end:])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def executed(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a notebook with the outputs of its cells, without times and versions.

    Args:
        notebook: The notebook.
        folder: A folder for the files of Jupyter.

    Raises:
        CalledProcessError: A cell raised an exception, which Jupyter prints on stderr.
    """
    path = folder / NOTEBOOK.name
    path.write_text(json.dumps(notebook), encoding="utf-8")
    program = Path(sys.executable).with_name("jupyter-execute")
    own = {name: str(folder / name) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    own["PYTHONPATH"] = str(REPOSITORY)
    command = [str(program), "--inplace", "--timeout=600", path.name]
    subprocess.run(command, cwd=folder, env=os.environ | own, check=True, stdout=sys.stderr)
    cells = json.loads(_text_of(path))["cells"]
    for cell, made in zip(notebook["cells"], cells, strict=True):
        if cell["cell_type"] == "code":
            cell |= {"execution_count": made["execution_count"], "outputs": _joined(made["outputs"])}
    return notebook


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the outputs of a cell with consecutive texts joined. How the kernel divides them depends on time."""
    joined: list[dict[str, Any]] = []
    for output in outputs:
        if joined and "text" in output and output.get("name") == joined[-1].get("name"):
            joined[-1]["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def figure_of(cell: dict[str, Any]) -> str:
    """Return the PNG file in base64 that a cell shows, or an empty text."""
    return "".join("".join(output.get("data", {}).get("image/png", "")) for output in cell["outputs"])


def text_of(cell: dict[str, Any]) -> str:
    """Return what a cell prints, or the text of its last value if it shows no figure."""
    shows_figure = bool(figure_of(cell))
    texts = [output.get("text") or ([] if shows_figure else output["data"]["text/plain"]) for output in cell["outputs"]]
    return "".join(map("".join, texts)).removesuffix("\n")


def with_outputs(page: str, notebook: dict[str, Any]) -> str:
    """Return a page with the texts that the cells of its notebook print."""
    cells = iter([cell for cell in notebook["cells"] if cell["cell_type"] == "code"])

    def with_output(found: re.Match[str]) -> str:
        text = text_of(next(cells))
        shown = f"\n```text\n{text}\n```\n" if text else ""
        return f"```python\n{found['code']}```\n{shown}{found['figure'] or ''}"

    return _CODE.sub(with_output, page)


def tutorial_figures(page: str, notebook: dict[str, Any]) -> dict[str, bytes]:
    """Return the figures of a page that are outputs of its notebook, by name."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return {
        found["figure"].rpartition("/")[2].rstrip(")\n"): base64.b64decode(figure_of(cell))
        for found, cell in zip(_CODE.finditer(page), cells, strict=True)
        if found["figure"]
    }


# --- figures and measurements


class Workshop:
    """A temporary folder in which the documented commands run, each once.

    Args:
        folder: The folder.
        peer_python: An interpreter that has torch and jax, for the benchmark.
    """

    def __init__(self, folder: Path, peer_python: str) -> None:
        self.folder = folder
        self.peer_python = peer_python

    def run(self, *command: str) -> None:
        """Run a command in the folder, with its output on stderr."""
        print("+", *command, file=sys.stderr)
        program = {"mnist-trainer": this_program(), "python": [sys.executable]}.get(command[0], [command[0]])
        subprocess.run([*program, *command[1:]], cwd=self.folder, check=True, stdout=sys.stderr)

    def output_of(self, output: str, *arguments: str) -> Path:
        """Return the file or folder that the documented command with `--output` and this name writes.

        Args:
            output: The name.
            arguments: Further arguments of the command.
        """
        path = self.folder / output
        if not path.exists():
            self.run(*shlex.split(documented_command(output)), *arguments)
        return path

    def evaluated_run(self) -> Path:
        """Return the run folder of the tutorial, with the figures of its evaluation."""
        path = self.output_of("runs/tutorial")
        if not (path / "evaluation.json").exists():
            self.run("mnist-trainer", "evaluate", "runs/tutorial")
        return path

    def banner(self) -> Path:
        """Return the first figure of the README."""
        self.run("mnist-trainer", "schedules", "plot", *BANNER, "--output", "banner.png")
        return self.folder / "banner.png"

    def designed_schedule(self) -> Path:
        """Return the figure of the schedule that the README designs."""
        example = re.search(r"^```toml\n(# mine\.toml\n.*?)^```$", _text_of(README), re.MULTILINE | re.DOTALL)
        assert example
        (self.folder / "mine.toml").write_text(example[1], encoding="utf-8")
        return self.output_of("mine.png")

    def notebook(self) -> Path:
        """Return the notebook of the tutorial with its outputs, beside its figures."""
        path = self.folder / "notebook.json"
        if not path.exists():
            notebook = executed(notebook_of(_text_of(TUTORIAL)), self.folder)
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            for name, png in tutorial_figures(_text_of(TUTORIAL), notebook).items():
                (self.folder / name).write_bytes(png)
        return path

    def demo_page(self) -> Path:
        """Return a picture of the demo's page."""
        script = REPOSITORY / "tests" / "demo_browser.py"
        self.output_of("runs/tutorial")
        self.run("python", str(script), "runs/tutorial", "demo.png")  # the page shows the name of the run
        return self.folder / "demo.png"

    def benchmark(self) -> Path:
        """Return the folder of the benchmark."""
        return self.output_of("bench", "--peer-python", self.peer_python)

    def costs(self) -> Path:
        """Return the file of the costs."""
        (self.folder / "scripts").symlink_to(REPOSITORY / "scripts")
        return self.output_of("costs.json")


def documented_command(output: str) -> str:
    """Return the first command of the README and the pages that writes to `--output` with this name."""
    text = "\n".join(map(_text_of, PAGES)).replace("\\\n", "")
    command = re.search(rf"^(?:mnist-trainer|python) .*--output {re.escape(output)}$", text, re.MULTILINE)
    assert command, output
    return command[0]


FIGURES: dict[str, Callable[[Workshop], Path]] = {
    "banner.png": Workshop.banner,
    "benchmark.png": lambda shop: shop.benchmark() / "benchmark.png",
    "comparison.png": lambda shop: shop.output_of("compared/schedules") / "comparison.png",
    "confusion_matrix.png": lambda shop: shop.evaluated_run() / "confusion_matrix.png",
    "curves.png": lambda shop: shop.output_of("runs/tutorial") / "curves.png",
    "demo.png": Workshop.demo_page,
    "lr_finder.png": lambda shop: shop.output_of("lr") / "lr_finder.png",
    "mine.png": Workshop.designed_schedule,
    "mistakes.png": lambda shop: shop.evaluated_run() / "mistakes.png",
    "schedules.png": lambda shop: shop.output_of("schedules.png"),
    "two.png": lambda shop: shop.output_of("compared/two") / "comparison.png",
}
"""Figure in `docs/figures` → function that makes it."""

MEASUREMENTS: dict[str, Callable[[Workshop], Path]] = {
    "benchmark.json": lambda shop: shop.benchmark() / "benchmark.json",
    "comparison.json": lambda shop: shop.output_of("compared/schedules") / "comparison.json",
    "costs.json": Workshop.costs,
    "two.json": lambda shop: shop.output_of("compared/two") / "comparison.json",
}
"""Measurement in `docs` → function that makes it."""

PRIVATE = ("command_line", "data_dir", "environment_variables", "peer_python", "platform")
"""Keys of an environment that name paths or settings of one machine."""


def record(path: Path, name: str) -> None:
    """Copy a measurement into `docs` under this name, without what is private to the machine."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["environment"] = {key: value for key, value in content["environment"].items() if key not in PRIVATE}
    (DOCS / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="make_docs.py", description=str(__doc__).partition("\n")[0])
    names = ("tables", NOTEBOOK.name, *FIGURES, *MEASUREMENTS)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"{', '.join(names)} (default: all)")
    parser.add_argument("--peer-python", metavar="FILE", default=sys.executable, help="a Python that has torch and jax")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(names)):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(names)}")
    wanted = given.names or names
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), given.peer_python)
        for name in FIGURES:
            if name in wanted:
                shutil.copyfile(FIGURES[name](shop), DOCS / "figures" / name)
        for name in MEASUREMENTS:
            if name in wanted:
                record(MEASUREMENTS[name](shop), name)
        if NOTEBOOK.name in wanted:
            shutil.copyfile(shop.notebook(), NOTEBOOK)
            for figure in shop.notebook().parent.glob("tutorial_*.png"):
                shutil.copyfile(figure, DOCS / "figures" / figure.name)
            TUTORIAL.write_text(with_outputs(_text_of(TUTORIAL), json.loads(_text_of(NOTEBOOK))), encoding="utf-8")
    if "tables" in wanted:
        write_tables()
    return DONE


if __name__ == "__main__":
    sys.exit(main())
