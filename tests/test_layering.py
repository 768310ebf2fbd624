"""Tests of imports: layers, packages that need the standard library alone, and modules that each command loads."""

import ast
import re
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from documents import section
from programs import REPOSITORY, run_python

import mnist_trainer
from mnist_trainer.cli import main
from mnist_trainer.errors import DONE
from mnist_trainer.training.step import TrainStep

PACKAGE = Path(mnist_trainer.__file__).parent
DEVELOPERS_SCRIPTS = {REPOSITORY / "scripts" / name for name in ("make_docs.py", "measure_costs.py")}
"""Scripts for developers. They do what no command does, so they have their own flags and imports."""

SCRIPTS = sorted(set((REPOSITORY / "scripts").glob("*.py")) - DEVELOPERS_SCRIPTS)
"""Scripts that only call a command."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, at its top or in a function, including submodules imported with `from`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: use an absolute import instead of a relative one"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


def own_imports(name: str) -> set[str]:
    return {module for module in imported_names(MODULES[name]) if module.partition(".")[0] == "mnist_trainer"}


def foreign_imports(path: Path) -> set[str]:
    """Return the top-level names of third-party modules that a file imports."""
    tops = {module.partition(".")[0] for module in imported_names(path)}
    return {top for top in tops if top not in sys.stdlib_module_names and top != "mnist_trainer"}


LAYERS = (
    ("errors", "console", "bundled", "toml"),
    ("datasets", "fields", "folder", "memory", "user_code"),
    ("schedules", "runtime", "run_folder", "progress", "demo"),
    ("config", "plots", "distributed"),
    ("data", "model", "figures"),
    ("diagnostics",),
    ("training",),
    ("inference", "comparison", "benchmark"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""Modules and packages of `mnist_trainer`, the lowest layer first. Each imports only from lower layers and from itself."""

STANDARD_LIBRARY_ALONE = {
    "__main__",
    "benchmark.implementations",
    "benchmark.processes",
    "benchmark.report",
    "benchmark.rounds",
    "benchmark.worker",
    "bundled",
    "comparison.intervals",
    "training.subprocesses",
    "comparison.page",
    "comparison.plan",
    "comparison.report",
    "comparison.results",
    "config",
    "console",
    "demo",
    "distributed.cluster",
    "distributed.launcher",
    "distributed.process_group",
    "errors",
    "fields",
    "figures",
    "folder",
    "memory",
    "run_folder",
    "runtime.hardware",
    "runtime.nvidia",
    "runtime.processes",
    "runtime.signals",
    "schedules",
    "toml",
    "user_code",
}
"""Modules and whole packages that import only this package and the standard library."""


def layer_of(name: str) -> int:
    """Return the number of the layer of a module. The package itself imports on demand; its number is -1."""
    part = name.split(".")[1] if "." in name else None
    return next((number for number, parts in enumerate(LAYERS) if part in parts), -1)


def part_of(name: str) -> str:
    return name.split(".")[1] if "." in name else name


def is_within(name: str, parts: set[str]) -> bool:
    """Return whether a module is one of `parts`, or within one that is a package."""
    return any(name == f"mnist_trainer.{part}" or name.startswith(f"mnist_trainer.{part}.") for part in parts)


PURE = [name for name in MODULES if name == "mnist_trainer" or is_within(name, STANDARD_LIBRARY_ALONE)]


# --- static checks of the source


def test_modules_are_found() -> None:
    assert {"mnist_trainer.cli", "mnist_trainer.schedules.decays", "mnist_trainer.plots"} <= set(MODULES)
    assert own_imports("mnist_trainer.__main__") == {"mnist_trainer.cli"}
    assert "mnist_trainer.runtime" in own_imports("mnist_trainer.commands.train")  # `from mnist_trainer import runtime`


def test_every_imported_module_of_the_package_exists() -> None:
    for name in MODULES:
        assert own_imports(name) <= set(MODULES), name


def test_there_are_no_circular_imports() -> None:
    waiting = {name: own_imports(name) for name in MODULES}
    waiting["mnist_trainer"] = set()  # it imports on demand, and declares its names only for type checkers
    while ready := [name for name, needed in waiting.items() if not needed & set(waiting)]:
        for name in ready:
            del waiting[name]
    assert not waiting


def test_every_module_is_in_one_layer() -> None:
    assert sorted(part for parts in LAYERS for part in parts) == sorted({part_of(name) for name in MODULES} - {"mnist_trainer"})


def test_the_page_of_the_architecture_lists_the_layers() -> None:
    rows = re.findall(r"^\| (`.*?) \|", section("docs/architecture.md", "The package").text, re.MULTILINE)
    listed = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    assert listed == [set(parts) for parts in reversed(LAYERS) if parts != ("__main__",)]


def test_a_module_imports_only_from_lower_layers_and_its_own_package() -> None:
    upwards = [
        f"{name} imports {needed}"
        for name in MODULES
        if name != "mnist_trainer"
        for needed in own_imports(name)
        if part_of(needed) != part_of(name) and layer_of(needed) >= layer_of(name)
    ]
    assert not upwards
    for number, parts in reversed(list(enumerate(LAYERS))):
        print(f"{number}  {', '.join(parts)}")


def test_class_names_are_unique() -> None:
    names = [node.name for path in MODULES.values() for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_every_part_listed_as_standard_library_alone_exists() -> None:
    for part in STANDARD_LIBRARY_ALONE:
        assert any(is_within(name, {part}) for name in MODULES), part


@pytest.mark.process
def test_schedules_work_without_any_installed_package() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from mnist_trainer.cli import main\n"
        "from mnist_trainer.schedules import Cosine, from_toml\n"
        "schedule = from_toml(Cosine(900, base_lr=0.1).to_toml())\n"
        "assert schedule(450) == Cosine(900, base_lr=0.1)(450)\n"
        "assert main(['schedules', 'find', 'StepLR']) == 0\n"
        "assert main(['schedules', 'show', 'Cosine', '--iterations', '1']) == 0\n"
        "assert not {'numpy', 'mxnet', 'matplotlib', 'tqdm'} & set(sys.modules)\n"
    )
    # Isolated, and without the packages that are installed: a checkout, or `pip install --no-deps`.
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", code, str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Factor" in done.stdout


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_only_the_standard_library(name: str) -> None:
    assert foreign_imports(MODULES[name]) == set()


def test_only_plots_imports_matplotlib() -> None:
    assert [name for name, path in MODULES.items() if "matplotlib" in foreign_imports(path)] == ["mnist_trainer.plots"]


def test_only_runtime_imports_mxnet_by_its_name() -> None:
    # The tutorial's loop must run like an independent program, without the settings of `runtime`.
    allowed = ["mnist_trainer.benchmark.tutorial", "mnist_trainer.runtime"]
    assert [name for name, path in MODULES.items() if "mxnet" in foreign_imports(path)] == allowed


def test_only_peer_implementations_import_the_packages_of_the_extra_bench() -> None:
    found = {name: top for name, path in MODULES.items() for top in foreign_imports(path) & {"torch", "jax"}}
    assert found == {"mnist_trainer.benchmark.torch_eager": "torch", "mnist_trainer.benchmark.jax_jitted": "jax"}


def test_only_three_modules_import_pillow_and_only_export_names_onnxruntime() -> None:
    assert [name for name, path in MODULES.items() if "PIL" in foreign_imports(path)] == [
        "mnist_trainer.inference.pictures",
        "mnist_trainer.inference.preprocessing",
        "mnist_trainer.training.tensorboard",
    ]
    naming = [name for name, path in MODULES.items() if "onnxruntime" in path.read_text(encoding="utf-8")]
    assert naming == ["mnist_trainer.inference.export"]


def test_only_cli_defines_flags() -> None:
    parsers = {"argparse", "getopt", "optparse", "click", "typer", "fire"}
    files = {**MODULES, **{f"scripts/{path.name}": path for path in SCRIPTS}}
    assert [name for name, path in files.items() if parsers & set(imported_names(path))] == ["mnist_trainer.cli"]
    assert all(parsers & set(imported_names(script)) for script in DEVELOPERS_SCRIPTS)


def command_modules() -> list[str]:
    return [name for name in MODULES if name.startswith("mnist_trainer.commands")]


def test_only_cli_imports_commands() -> None:
    others = [name for name in MODULES if name not in command_modules()]
    assert [name for name in others if own_imports(name) & set(command_modules())] == ["mnist_trainer.cli"]


def test_a_command_imports_no_other_command() -> None:
    for name in command_modules():
        assert own_imports(name) & set(command_modules()) <= {"mnist_trainer.commands.request"}, name


def test_only_main_and_scripts_import_cli() -> None:
    assert [name for name in MODULES if "mnist_trainer.cli" in own_imports(name)] == ["mnist_trainer.__main__"]
    assert SCRIPTS
    for path in SCRIPTS:
        own = {module for module in imported_names(path) if module.startswith("mnist_trainer")}
        assert own == {"mnist_trainer.cli"}, path.name
        assert foreign_imports(path) == set(), path.name


# --- checks at run time


def run(script: str, folder: Path) -> tuple[str, str, int]:
    done = run_python("-c", script, cwd=folder)
    return done.stdout, done.stderr, done.returncode


def blocking(*names: str) -> str:
    return "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in names)


USE_THE_PURE_MODULES = """
from pathlib import Path
from mnist_trainer.config import optimizers
from mnist_trainer import run_folder, bundled
from mnist_trainer.config.loading import load_config
from mnist_trainer.errors import RequestError
from mnist_trainer.schedules import CURVES, Cosine

config = load_config("tutorial")
print(config.build_schedule()(3753), len(list(bundled.configs_folder().glob("tutorial.toml"))))
folder = run_folder.RunFolder.create(Path("run"))
folder.write_text(run_folder.CONFIG, config.to_toml())
folder.append_iterations([(1, 0.03, 2.3)])
print(folder.read_iterations(), load_config(folder / run_folder.CONFIG) == config)
print([cls(**cls.example)(1) >= 0 for cls in CURVES].count(True) == len(CURVES))
print(optimizers.optimizer_problems({"name": "sgd", "momentum": 0.9}))
"""


@pytest.mark.process
def test_pure_modules_work_without_any_library(tmp_path: Path) -> None:
    script = blocking("mxnet", "numpy", "matplotlib", "tqdm") + USE_THE_PURE_MODULES
    assert run(script, tmp_path) == ("0.003 1\n[(1, 0.03, 2.3)] True\nTrue\n[]\n", "", 0)


LOAD_EACH_ALONE = """
import importlib

for name in {names}:
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "mnist_trainer"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error)
"""

LOADS_WITHOUT_MXNET = [
    *(
        f"mnist_trainer.{name}"
        for name in ("plots", "inference.preprocessing", "data.mnist_files", "diagnostics.environment", "diagnostics.doctor")
    ),
    *(f"mnist_trainer.benchmark.{name}" for name in ("session", "tutorial")),
]


@pytest.mark.process
@pytest.mark.parametrize(
    ("names", "missing"),
    [
        pytest.param(
            [*PURE, "mnist_trainer.runtime", *command_modules(), "mnist_trainer.cli"],
            ("mxnet", "numpy", "matplotlib", "tqdm"),
            id="pure modules without any library",
        ),
        pytest.param(LOADS_WITHOUT_MXNET, ("mxnet",), id="other modules without MXNet"),
    ],
)
def test_each_module_loads_alone(names: list[str], missing: tuple[str, ...], tmp_path: Path) -> None:
    assert run(blocking(*missing) + LOAD_EACH_ALONE.format(names=names), tmp_path) == ("", "", 0)


@pytest.mark.process
def test_importing_the_package_loads_no_modules(tmp_path: Path) -> None:
    script = "import mnist_trainer, sys\nprint([name for name in sys.modules if name.startswith('mnist_trainer')])\n"
    assert run(script, tmp_path) == ("['mnist_trainer']\n", "", 0)


@pytest.mark.parametrize("name", mnist_trainer.__all__)
def test_the_package_imports_its_names_on_demand(name: str) -> None:
    assert callable(getattr(mnist_trainer, name))
    assert getattr(mnist_trainer, name).__name__ == name


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match=r"^module 'mnist_trainer' has no attribute 'build_rnn'$"):
        mnist_trainer.build_rnn  # noqa: B018


COMMANDS_WITHOUT_MXNET = """
from mnist_trainer.cli import main

def run(*arguments):
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code

assert run("--help") == 0
assert run("train", "--help") == 0
assert run("schedules", "list") == 0
assert run("schedules", "show", "tutorial.toml", "--iterations", "3752,3753") == 0
assert run("train", "--seed", "-1") == 2
assert run("evaluate", "nowhere") == 2
print(sorted({"mxnet", "numpy", "matplotlib", "tqdm"} & {name for name, module in sys.modules.items() if module}))
"""


def loaded_by(folder: Path, *command: str) -> list[str]:
    """Return the modules that `python -m mnist_trainer COMMAND` imports, in order, without those that Python starts with."""
    done = run_python("-X", "importtime", "-m", "mnist_trainer", *command, cwd=folder)
    assert done.returncode == 0, done.stderr
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return names[names.index("site") + 1 :]


@pytest.mark.process
@pytest.mark.parametrize("command", [pytest.param((), id="none"), ("--help",)])
def test_the_main_help_loads_three_modules_of_the_package(command: tuple[str, ...], tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, *command)
    assert [name for name in loaded if name.startswith("mnist_trainer.")] == [
        "mnist_trainer.console",
        "mnist_trainer.errors",
        "mnist_trainer.cli",
    ]
    slow = {"mxnet", "numpy", "matplotlib", "tqdm", "importlib.metadata"}
    if sys.version_info < (3, 14):  # whose argparse loads it
        slow.add("dataclasses")
    assert not slow & set(loaded)


@pytest.mark.process
@pytest.mark.parametrize("command", [("train", "--help"), ("find-lr", "--help"), ("schedules", "--help")], ids=" ".join)
def test_help_for_a_command_does_not_load_the_command(command: tuple[str, ...], tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, *command)
    assert "mnist_trainer.cli" in loaded
    assert not {"mnist_trainer.commands", "importlib.metadata"} & set(loaded)


# Prints whether MXNet and matplotlib are loaded when the first line of an epoch is printed, after its first iteration.
PRINT_LOADED_MODULES_AT_FIRST_ITERATION = """
import sys
from mnist_trainer.training import callbacks
from mnist_trainer.cli import main

class LoadedModules(callbacks.TutorialLines):
    def on_iterations(self, records, state):
        if records[0].iteration == 1:
            print("mxnet" in sys.modules, "matplotlib" in sys.modules)
        super().on_iterations(records, state)

callbacks.TutorialLines = LoadedModules
SMALL = ("--train-images", "64", "--test-images", "10", "--epochs", "1")
assert main(["train", *SMALL, "--quiet", "--output", "run"]) == 0
print("matplotlib" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.process
def test_a_run_loads_matplotlib_only_after_training_starts(tmp_path: Path) -> None:
    stdout, stderr, code = run(PRINT_LOADED_MODULES_AT_FIRST_ITERATION, tmp_path)
    assert (stderr, code) == ("", 0)
    lines = stdout.splitlines()
    assert lines.count("True False") == 1
    assert lines[-1] == "True"
    assert (tmp_path / "run" / "curves.png").is_file()


def test_the_call_stack_of_the_first_batch_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = []
    step = TrainStep.__call__

    def recording_step(self: TrainStep, *batch: Any) -> None:
        stacks.append([(Path(frame.filename).name, frame.name) for frame in traceback.extract_stack()[:-1]])
        step(self, *batch)

    monkeypatch.setattr(TrainStep, "__call__", recording_step)
    small = ("--train-images", "64", "--test-images", "10", "--epochs", "1", "--quiet")
    assert main(["train", *small, "--output", str(tmp_path / "run")]) == DONE
    frames = stacks[0][stacks[0].index(("cli.py", "main")) :]
    assert frames[-1] == ("loop.py", "fit")
    assert len(frames) <= 6, frames
    assert len({file for file, _ in frames} - {"cli.py"}) <= 3, frames


def test_the_command_train_is_short() -> None:
    assert len((PACKAGE / "commands" / "train.py").read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.process
def test_help_and_curves_load_no_slow_library(tmp_path: Path) -> None:
    stdout, _, code = run("import sys\n" + COMMANDS_WITHOUT_MXNET, tmp_path)
    assert (stdout.splitlines()[-1], code) == ("[]", 0)


@pytest.mark.process
def test_help_and_curves_work_without_mxnet(tmp_path: Path) -> None:
    stdout, stderr, code = run(blocking("mxnet", "numpy", "matplotlib", "tqdm") + COMMANDS_WITHOUT_MXNET, tmp_path)
    assert "3752,0.03\n3753,0.003\n" in stdout
    assert stderr == (
        "mnist-trainer: --seed -1: must be a whole number from 0 to 2147483647\n"
        "mnist-trainer: nowhere: there is no such run folder\n"
    )
    assert code == 0


@pytest.mark.process
def test_plotting_a_curve_needs_no_mxnet(tmp_path: Path) -> None:
    script = blocking("mxnet") + (
        "from mnist_trainer.cli import main\n"
        "assert main(['schedules', 'plot', 'Cosine', '--output', 'cosine.png']) == 0\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    assert run(script, tmp_path) == ("cosine.png\nFalse\n", "", 0)
