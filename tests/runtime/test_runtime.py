"""Preparations before MXNet loads: threads, warnings, and a message for each broken installation."""

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_names
from conftest import Program, Snapshot
from programs import LIMIT_SECONDS, new_environment

from mnist_trainer.config.loading import load_config
from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import (
    explain_failure,
    explain_load_error,
    explain_mxnet_error,
    hardware,
    import_mxnet,
    installation_problems,
    numpy_names,
    prepare,
)
from mnist_trainer.runtime.hardware import choose_threads

Python = Callable[..., str]

# Queries the OpenMP library that MXNet has loaded into the process.
_OPENMP_THREADS = "__import__('ctypes').CDLL('libgomp.so.1').omp_get_max_threads()"


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Run Python code in a new process, which must succeed without output on stderr; return its stdout."""

    def run(code: str, *options: str, **variables: str) -> str:
        # Without the variables that `prepare` has set in this process.
        environment = new_environment()
        for name in ("MXNET_CPU_PARALLEL_SIZE", "GOMP_SPINCOUNT"):
            environment.pop(name, None)
        done = subprocess.run(
            [sys.executable, *options, "-c", code],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()

    return run


# --- threads


@pytest.mark.parametrize(
    ("requested", "variable", "threads"),
    [
        pytest.param(3, "7", 3, id="a number before the variable"),
        pytest.param(3, "garbage", 3, id="a number with an invalid variable"),
        pytest.param("auto", "3", 3, id="the variable"),
        pytest.param("auto", "2,1", 2, id="the outermost of nested levels"),
        pytest.param("auto", " 4 , 2", 4, id="spaces"),
        pytest.param("auto", "1024", 1024, id="many"),
    ],
)
def test_choose_threads(requested: int | str, variable: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert choose_threads(requested) == threads


@pytest.mark.parametrize(
    "variable",
    [
        pytest.param("abc", id="a word"),
        pytest.param("0", id="zero"),
        pytest.param("-1", id="negative"),
        pytest.param("1.5", id="a fraction"),
        pytest.param("auto", id="the word auto"),
        pytest.param("1025", id="too many"),
        pytest.param("123456", id="far too many"),
        pytest.param(",2", id="no outermost"),
        pytest.param("x,2", id="a word before a number"),
        pytest.param(" ", id="a space"),
    ],
)
def test_an_unreadable_variable_is_refused(variable: str, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    with pytest.raises(RequestError) as caught:
        choose_threads()
    (problem,) = caught.value.problems
    assert_names(problem, "OMP_NUM_THREADS = ", variable, "1 to 1024")
    snapshot(problem)


@pytest.mark.parametrize("variable", [pytest.param(None, id="unset"), pytest.param("", id="empty")])
def test_without_a_variable_all_processors_are_used(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(hardware, "available_processors", lambda: 5)
    assert choose_threads() == 5


@pytest.mark.parametrize(
    ("cpu_max", "processors"),
    [
        pytest.param("200000 100000\n", 2, id="two processors"),
        pytest.param("150000 100000\n", 2, id="one and a half"),
        pytest.param("50000 100000\n", 1, id="half a processor"),
        pytest.param("max 100000\n", 4, id="no quota"),
        pytest.param("900000 100000\n", 4, id="more than the affinity"),
        pytest.param("unheard-of\n", 4, id="another format"),
        pytest.param(None, 4, id="no such file"),
    ],
)
def test_quota_of_a_container(cpu_max: str | None, processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpu.max"
    if cpu_max is not None:
        file.write_text(cpu_max, encoding="ascii")
    monkeypatch.setattr(hardware, "Path", lambda name: file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 4, 5})
    assert hardware.available_processors() == processors


@pytest.mark.process
def test_prepare_sets_what_mxnet_and_libgomp_read(python: Python) -> None:
    cases: list[tuple[int | str, dict[str, str], str]] = [
        (3, {}, "3 3 2147483647 3000 3"),
        (3, {"OMP_NUM_THREADS": "5"}, "3 3 2147483647 3000 3"),
        ("auto", {"OMP_NUM_THREADS": "5"}, "5 5 2147483647 3000 5"),
        ("auto", {"OMP_NUM_THREADS": "4,2"}, "4 4 2147483647 3000 4"),
        (3, {"MXNET_CPU_PARALLEL_SIZE": "1000"}, "3 3 1000 3000 3"),
        (3, {"GOMP_SPINCOUNT": "9"}, "3 3 2147483647 9 3"),
        ("auto", {}, "1 1 2147483647 3000 1"),  # bound to one of the processors of the machine
    ]
    # Each in a fork, because libgomp reads the environment when it is loaded.
    code = f"""
import os, sys
from mnist_trainer import runtime
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
for asked, variables, _ in {cases}:
    child = os.fork()
    if child == 0:
        os.environ.update(variables)
        print(runtime.prepare(asked), end=" ")
        print(*(os.environ[name] for name in ("OMP_NUM_THREADS", "MXNET_CPU_PARALLEL_SIZE", "GOMP_SPINCOUNT")), end=" ")
        print({_OPENMP_THREADS}, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
assert "mxnet" not in sys.modules and "libgomp" not in open("/proc/self/maps").read()
"""
    assert python(code).splitlines() == [printed for *_, printed in cases]


@pytest.mark.slow
@pytest.mark.process
def test_importing_mxnet_prepares_too_and_warns_of_nothing(python: Python) -> None:
    code = f"""
import os, warnings
from mnist_trainer import build_cnn, cli, plots, runtime
from mnist_trainer.diagnostics import doctor
from mnist_trainer.inference import evaluation
from mnist_trainer.training import experiment
import numpy
build_cnn()
mx = runtime.import_mxnet()
assert runtime.import_mxnet() is mx
print(mx.__version__, os.environ["OMP_NUM_THREADS"], os.environ["MXNET_CPU_PARALLEL_SIZE"], {_OPENMP_THREADS})
print([vars(numpy)[name] for name in ("int", "float", "object")])
try:
    warnings.warn("shown", DeprecationWarning)
except DeprecationWarning as warning:
    print(warning)
"""
    loaded, names_of_numpy, warning = python(code, "-W", "error", OMP_NUM_THREADS="3").splitlines()
    assert loaded == "1.9.1 3 2147483647 3"
    assert names_of_numpy == "[<class 'int'>, <class 'float'>, <class 'object'>]"
    assert warning == "shown", "the user's filters are restored"


def test_another_number_is_refused_after_mxnet_is_loaded() -> None:
    import_mxnet()
    threads = int(os.environ["OMP_NUM_THREADS"])
    assert prepare(threads) == prepare("auto") == threads
    with pytest.raises(RequestError) as caught:
        prepare(threads + 1)
    (problem,) = caught.value.problems
    assert_names(problem, f"--threads {threads + 1}", "MXNet", f" {threads};", "restart the kernel")
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


def test_another_variable_is_refused_after_mxnet_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import_mxnet()
    threads = int(os.environ["OMP_NUM_THREADS"])
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads + 1))  # after MXNet has read it
    for asked, named in (("auto", f"OMP_NUM_THREADS={threads + 1}"), (threads + 1, f"--threads {threads + 1}")):
        with pytest.raises(RequestError) as caught:
            prepare(asked)
        assert_names(caught.value.problems[0], named, "MXNet", f" {threads};", "restart the kernel")


def test_the_largest_number_of_threads_can_be_recorded_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(hardware.THREADS.high))
    file = tmp_path / "config.toml"
    file.write_text(load_config().to_toml().replace('threads = "auto"', f"threads = {choose_threads()}"), encoding="utf-8")
    assert load_config(file).runtime.threads == hardware.THREADS.high


# --- processes


@pytest.mark.process
@pytest.mark.parametrize(("chosen", "expected"), [(None, "fork"), ("spawn", "spawn")], ids=["no choice", "the user's choice"])
def test_processes_are_forked_on_python_3_14(chosen: str | None, expected: str, python: Python) -> None:
    code = f"""
import multiprocessing, sys
sys.version_info = (3, 14)
from mnist_trainer.runtime import fork_processes
if {chosen!r}:
    multiprocessing.set_start_method({chosen!r})
for _ in range(2):
    fork_processes()
print(multiprocessing.get_start_method(allow_none=True))
"""
    assert python(code) == expected


@pytest.mark.slow
def test_workers_of_gluons_dataloader(python: Python) -> None:
    code = """
import mnist_trainer
from mxnet import gluon, nd
loader = gluon.data.DataLoader(gluon.data.ArrayDataset(nd.arange(8)), batch_size=4, num_workers=1)
print([batch.asnumpy().tolist() for batch in loader])
"""
    assert python(code, "-W", "ignore") == "[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]"


# --- notebooks


@pytest.mark.slow
@pytest.mark.process
def test_after_the_package_anyone_may_import_mxnet(python: Python) -> None:
    code = f"""
import importlib, os, sys
import mnist_trainer
importlib.reload(mnist_trainer)
assert [finder.__module__ for finder in sys.meta_path].count("mnist_trainer") == 1

before = dict(os.environ)
spec = importlib.util.find_spec("mxnet")
assert spec.origin.endswith("/mxnet/__init__.py") and spec.submodule_search_locations
assert os.environ == before and not {{"numpy", "mxnet", "mnist_trainer.runtime"}} & set(sys.modules), "it changes nothing"

try:
    import mxnet  # MXNet itself would abort the process
except ImportError as error:  # which other libraries expect
    print(error)
assert not [name for name in sys.modules if name.startswith("mxnet")]

from mnist_trainer import errors, runtime
try:
    runtime.import_mxnet()
except errors.RequestError as error:
    print(error)
runtime.prepare(3)
from mxnet import gluon
import mxnet
assert runtime.import_mxnet() is mxnet and importlib.reload(mxnet).gluon is gluon
importlib.util.module_from_spec(importlib.util.find_spec("mxnet"))
assert sys.modules["mxnet.gluon"] is gluon, "another module from its spec removes nothing"
print(mxnet.nd.ones(2).sum().asscalar(), os.environ["MXNET_CPU_PARALLEL_SIZE"], {_OPENMP_THREADS})
"""
    *refused, computed = python(code, "-W", "error", OMP_NUM_THREADS="abc").splitlines()
    assert len(refused) == 2
    for message in refused:
        assert_names(message, "OMP_NUM_THREADS", "'abc'")
    assert computed == "2.0 2147483647 3"


# The first statement of a notebook, which fails with the numpy of today.
IMPORT_MXNET_FIRST = """
try:
    import mxnet
except AttributeError as error:
    assert "numpy" in str(error).lower()
else:
    raise SystemExit("MXNet can be imported")
"""

TRAIN_THE_TUTORIALS_NETWORK = """
from dataclasses import replace
from mnist_trainer import build_cnn, create_loaders, create_trainer, evaluate, fit, initialize, load_config, seed_everything
from mnist_trainer.model import native
from mnist_trainer.config.schema import DataConfig, ModelConfig
from mnist_trainer.schedules import MultiFactor
from mnist_trainer.model.backends import accelerate
import mxnet

def train():
    data = DataConfig(train_images=640, test_images=100)
    train_loader, test_loader = create_loaders(replace(load_config("quick"), data=data))
    trained = []
    for kind in ("stock",) if native.problem() else ("stock", "fused"):
        seed_everything(1)
        network = build_cnn()
        initialize(network)
        trainer = create_trainer(network.collect_params(), MultiFactor(base_lr=0.1, step=[5], factor=0.1))
        fit(accelerate(network, ModelConfig(backend=kind), [mxnet.cpu()]), train_loader, test_loader, trainer, epochs=2)
        parameters = [parameter.data().asnumpy().tobytes() for parameter in network.collect_params().values()]
        trained.append((evaluate(network, test_loader), parameters))
    return trained
"""


@pytest.mark.process
@pytest.mark.slow
def test_an_import_of_mxnet_that_failed_is_repaired(python: Python) -> None:
    code = f"""{IMPORT_MXNET_FIRST}
import hashlib, os, sys
assert "mxnet.ndarray" in sys.modules and "mxnet" not in sys.modules
import mnist_trainer
os.environ["OMP_NUM_THREADS"] = "2"
try:
    import mxnet
except ImportError as error:
    print(error)
del os.environ["OMP_NUM_THREADS"]
import mxnet
from mnist_trainer import runtime
print(runtime.prepare(), os.environ["OMP_NUM_THREADS"], {_OPENMP_THREADS})
try:
    runtime.prepare(3)
except ValueError as error:
    print(error)
{TRAIN_THE_TUTORIALS_NETWORK}
print(hashlib.sha256(repr(train()).encode()).hexdigest())
"""
    by_variable, threads, by_flag, trained = python(code, "-W", "ignore", OMP_NUM_THREADS="1").splitlines()
    assert_names(by_variable, "OMP_NUM_THREADS=2", "MXNet", " 1;")
    assert_names(by_flag, "--threads 3", "MXNet", " 1;")
    assert threads == "1 1 1"
    fresh: dict[str, Any] = {}
    exec(TRAIN_THE_TUTORIALS_NETWORK, fresh)  # one thread here too
    assert trained == hashlib.sha256(repr(fresh["train"]()).encode()).hexdigest()


@pytest.mark.slow
@pytest.mark.process
def test_an_import_of_mxnet_that_was_repeated_without_the_package_is_refused(python: Python) -> None:
    code = f"""{IMPORT_MXNET_FIRST}
import runpy
runpy.run_path({numpy_names.__file__!r})["restore_numpy_names"]()
import mxnet
from mnist_trainer import runtime
assert runtime.prepare() == {_OPENMP_THREADS}, "the number with which it was loaded"
try:
    from mnist_trainer import build_cnn
except runtime.InstallationError as error:
    print(error)
"""
    message = python(code, "-W", "ignore")
    assert "mxnet.autograd" in message
    assert "restart the kernel" in message
    assert "import mnist_trainer before mxnet" in message


# --- loading


@pytest.mark.process
def test_which_modules_load_mxnet(python: Python) -> None:
    without = [
        "mnist_trainer",
        *(f"mnist_trainer.{name}" for name in ("runtime", "schedules", "config.loading", "data.mnist_files")),
    ]
    without += [f"mnist_trainer.{name}" for name in ("run_folder", "diagnostics.doctor", "cli")]
    code = f"""
import importlib, sys
for module in {[*without, "mnist_trainer.runtime.devices"]}:
    importlib.import_module(module)
    print(module, "mxnet" in sys.modules)
"""
    assert python(code).splitlines() == [*(f"{module} False" for module in without), "mnist_trainer.runtime.devices True"]


# --- broken installations


def fake_package(folder: Path, name: str, version: str) -> None:
    """Write the metadata of a package as pip does in site-packages."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


def packages_without(folder: Path, *missing: str) -> Path:
    """Create a folder with links to all installed packages except some, for Python's option -S, which finds no others."""
    folder.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if re.split(r"[-.]", entry.name)[0] not in missing:
            (folder / entry.name).symlink_to(entry)
    return folder


Words = tuple[str, ...]

_NUMPY_REMEDY = 'pip install "numpy>=1.23,<3"'
_INSTALL = "pip install --no-deps mxnet==1.9.1"
_REINSTALL = "pip install --force-reinstall --no-deps mxnet==1.9.1"


def two_builds(other: str) -> Words:
    return f"mxnet and {other}", f"pip uninstall -y mxnet {other}", "pip install --no-deps"


@pytest.mark.parametrize(
    "package",
    [
        pytest.param(("numpy", "1.23.0"), id="the oldest numpy"),
        pytest.param(("numpy", "2.99.0"), id="the newest numpy"),
        pytest.param(("mxnet-model-server", "1.0"), id="a package with a similar name"),
    ],
)
def test_a_good_installation_has_no_problem(package: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, *package)
    monkeypatch.syspath_prepend(tmp_path)
    assert installation_problems() == []


@pytest.mark.parametrize(
    ("packages", "problems"),
    [
        pytest.param([("numpy", "3.0.0")], [("numpy 3.0.0", _NUMPY_REMEDY)], id="numpy 3"),
        pytest.param([("numpy", "10.0")], [("numpy 10.0", _NUMPY_REMEDY)], id="numpy 10"),
        pytest.param([("numpy", "1.22.4")], [("numpy 1.22.4", _NUMPY_REMEDY)], id="numpy before 1.23"),
        pytest.param([("mxnet", "1.5.1")], [("mxnet 1.5.1", _INSTALL)], id="another MXNet"),
        pytest.param([("mxnet-cu112", "1.9.1")], [two_builds("mxnet-cu112")], id="the CPU build and a GPU build"),
        pytest.param([("MXNet_cu117", "1.9.1")], [two_builds("mxnet-cu117")], id="a GPU build in another spelling"),
        pytest.param(
            [("mxnet-cu112", "1.9.1"), ("numpy", "1.22.4")],
            [two_builds("mxnet-cu112"), ("numpy 1.22.4", _NUMPY_REMEDY)],
            id="two problems",
        ),
    ],
)
def test_problems_in_the_installed_metadata(
    packages: list[tuple[str, str]],
    problems: list[Words],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Snapshot,
) -> None:
    for name, version in packages:
        fake_package(tmp_path, name, version)
    monkeypatch.syspath_prepend(tmp_path)
    found = installation_problems()
    for problem, words in zip(found, problems, strict=True):
        assert_names(problem, *words)
    snapshot("\n".join(found))


def test_train_refuses_a_broken_installation(tmp_path: Path, repository: Path, new_program: Program) -> None:
    fake_package(tmp_path / "packages", "mxnet-cu112", "1.9.1")
    fake_package(tmp_path / "packages", "numpy", "1.22.4")
    path = f"{repository}{os.pathsep}{tmp_path / 'packages'}"
    done = new_program("train", "--output", "run", PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    builds, numpy = done.stderr.splitlines()
    assert_names(builds, *two_builds("mxnet-cu112"))
    assert_names(numpy, "numpy 1.22.4", _NUMPY_REMEDY)
    assert not (tmp_path / "run").exists()


_TO_INSTALL = {
    "mxnet": _INSTALL,
    "numpy": _NUMPY_REMEDY,
    "matplotlib": "pip install matplotlib",
    "pillow": "pip install pillow",
    "requests": "pip install requests",
    "tqdm": "pip install tqdm",
}


@pytest.mark.parametrize("missing", _TO_INSTALL)
def test_missing_packages(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot) -> None:
    whole, part = packages_without(tmp_path / "whole"), packages_without(tmp_path / "part", missing)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(whole)])
        assert installation_problems() == []
        patch.setattr(sys, "path", [str(part)])
        found = installation_problems()
    (problem,) = found
    assert_names(problem, "MXNet" if missing == "mxnet" else missing, _TO_INSTALL[missing])
    snapshot(problem)


@pytest.mark.process
@pytest.mark.parametrize(
    ("missing", "block", "is_problem"),
    [
        pytest.param(("setuptools", "_distutils_hack"), "", sys.version_info >= (3, 12), id="setuptools"),
        pytest.param((), "distutils", False, id="distutils, which setuptools supplies"),
        pytest.param(("setuptools", "_distutils_hack"), "distutils", True, id="distutils and setuptools"),
    ],
)
def test_missing_distutils(
    missing: Words, block: str, is_problem: bool, tmp_path: Path, repository: Path, python: Python
) -> None:
    # The block removes the distutils of any Python, as in 3.12 and later.
    code = f"""
import sys
class Block:
    def find_spec(self, name, *arguments):
        if name == {block!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
from mnist_trainer.runtime import installation_problems
print(*installation_problems(), sep="\\n")
"""
    path = f"{repository}{os.pathsep}{packages_without(tmp_path / 'packages', *missing)}"
    found = python(code, "-S", PYTHONPATH=path).splitlines()
    assert len(found) == is_problem
    if is_problem:
        assert_names(found[0], "MXNet", "distutils", "pip install setuptools")


_TRAIN = ["train", "--output", "run"]


def run_in_turn(python: Python, path: str, *commands: list[str], **variables: str) -> list[list[str]]:
    """Run commands in one new interpreter without site-packages; return the lines of each, with its exit code at the end."""
    code = f"""
import sys
from mnist_trainer.cli import main
sys.stderr = sys.stdout
for command in {commands}:
    print(main(command), end="\\n\\f\\n", flush=True)
"""
    printed = python(code, "-S", PYTHONPATH=path, **variables).split("\n\f")
    return [output.strip().splitlines() for output in printed[: len(commands)]]


@pytest.mark.process
@pytest.mark.parametrize(
    ("left", "remedy"),
    [
        pytest.param("nothing", _INSTALL, id="nothing"),
        # This is left after two builds were installed and one of them was uninstalled.
        pytest.param("metadata", _REINSTALL, id="metadata"),
        pytest.param("all but the library", "mxnet==1.9.1", id="all but the library"),
    ],
)
def test_an_incomplete_mxnet(left: str, remedy: str, tmp_path: Path, repository: Path, python: Python) -> None:
    packages = packages_without(tmp_path / "packages", "mxnet")
    installed = Path(import_mxnet().__file__).parent
    if left != "nothing":
        (packages / "mxnet-1.9.1.dist-info").symlink_to(next(installed.parent.glob("mxnet-*.dist-info")))
    if left == "all but the library":
        (packages / "mxnet").mkdir()
        for entry in installed.iterdir():
            if entry.suffix == ".py":
                (packages / "mxnet" / entry.name).write_bytes(entry.read_bytes())
            elif entry.name != "libmxnet.so":
                (packages / "mxnet" / entry.name).symlink_to(entry)
    (*train, train_code), (*doctor, doctor_code) = run_in_turn(
        python, f"{repository}{os.pathsep}{packages}", _TRAIN, ["doctor"]
    )
    assert (train_code, doctor_code) == ("2", "1")
    (problem,) = train
    assert_names(problem, "MXNet", remedy)
    assert problem.removeprefix("mnist-trainer: ") in "\n".join(doctor)
    assert not (tmp_path / "run").exists()


@pytest.mark.process
@pytest.mark.parametrize("missing", ["numpy", "matplotlib", "tqdm"])
def test_a_package_is_missing(missing: str, tmp_path: Path, repository: Path, python: Python) -> None:
    path = f"{repository}{os.pathsep}{packages_without(tmp_path / 'packages', missing)}"
    (*train, train_code), (*doctor, doctor_code), data = run_in_turn(python, path, _TRAIN, ["doctor"], ["data", "verify"])
    assert (train_code, doctor_code) == ("2", "1")
    (problem,) = train
    assert_names(problem, missing, _TO_INSTALL[missing])
    assert problem.removeprefix("mnist-trainer: ") in "\n".join(doctor)
    assert "Traceback" not in "\n".join(data)


# --- errors of MXNet

_TRACEBACK = 'Traceback (most recent call last):\n  File "../src/imperative/imperative.cc", line 81\n'


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(f"{_TRACEBACK}MXNetError: Operator f is not implemented.", "Operator f is not implemented.", id="a name"),
        pytest.param(f"{_TRACEBACK}Name: Check failed: a == b\n\n", "Name: Check failed: a == b", id="blank lines at the end"),
        pytest.param("one line", "one line", id="one line"),
        pytest.param("", "MXNetError", id="nothing"),
    ],
)
def test_an_error_of_mxnet_is_its_last_line(message: str, reason: str) -> None:
    assert explain_mxnet_error(import_mxnet().MXNetError(message)) == reason


@pytest.mark.parametrize(
    ("error", "explained"),
    [
        pytest.param(MemoryError(), "not enough memory", id="Python"),
        pytest.param(RuntimeError("can't start new thread"), "not enough memory", id="a thread of Python"),
        pytest.param(import_mxnet().MXNetError("std::bad_alloc"), "not enough memory", id="C++"),
        pytest.param(import_mxnet().MXNetError("cudaMalloc retry failed: out of memory"), "not enough memory", id="a GPU"),
        pytest.param(import_mxnet().MXNetError("Check failed"), "MXNet failed: Check failed", id="another of MXNet"),
        pytest.param(RuntimeError("generator raised StopIteration"), None, id="a mistake in the program"),
        pytest.param(ValueError("bad_alloc"), None, id="another type"),
    ],
)
def test_failures_of_memory_and_of_mxnet_are_explained(error: Exception, explained: str | None) -> None:
    if explained is None:
        assert explain_failure(error) is None
    else:
        assert_names(str(explain_failure(error)), explained)


# --- libraries that are missing

_SET_UP = ("CUDA 11", "cuDNN 8", "scripts/setup_gpu.sh", "mxnet==1.9.1")
_DRIVER = ("driver", "mxnet==1.9.1")
_NO_FILE = "cannot open shared object file: No such file or directory"


# The first two are messages of MXNet 1.9.1 on Debian 12 without the library.
_MISSING_LIBRARIES: dict[str, Words] = {
    "libgomp.so.1": ("apt-get install libgomp1",),
    "libquadmath.so.0": ("apt-get install libquadmath0",),
    "libcuda.so.1": _DRIVER,
    "libcudnn.so.8": _SET_UP,
    "libcudart.so.11.0": _SET_UP,
    "libcublas.so.11": _SET_UP,
    "libcublasLt.so.11": _SET_UP,
    "libcufft.so.10": _SET_UP,
    "libcurand.so.10": _SET_UP,
    "libcusolver.so.11": _SET_UP,
    "libnccl.so.2": _SET_UP,
    "libnvrtc.so.11.2": _SET_UP,
    "libnvToolsExt.so.1": _SET_UP,
    "libstdc++.so.6": ("system library",),
    "libarmpl_lp64_mp.so": ("ARM", "Arm Performance Libraries", "x86-64"),
    "libamath.so": ("ARM", "Arm Performance Libraries", "x86-64"),
}


@pytest.mark.parametrize("library", _MISSING_LIBRARIES)
def test_a_missing_library_is_explained(library: str, snapshot: Snapshot) -> None:
    explained = explain_load_error(f"{library}: {_NO_FILE}")
    assert_names(explained, "MXNet", library, *_MISSING_LIBRARIES[library])
    snapshot(explained)


def test_a_library_that_does_not_fit_into_memory_is_not_reinstalled() -> None:
    explained = explain_load_error("mxnet/libmxnet.so: failed to map segment from shared object")
    assert_names(explained, "MXNet", "not enough memory")
    assert _REINSTALL not in explained


def test_another_message_is_passed_on(snapshot: Snapshot) -> None:
    message = "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by libmxnet.so)"
    explained = explain_load_error(message)
    assert_names(explained, "MXNet", message, _REINSTALL)
    snapshot(explained)


def mxnet_that_misses(library: str, folder: Path) -> Path:
    """Create a link to the real MXNet library next to a libgfortran that needs `library` instead of libquadmath."""
    installed = Path(import_mxnet().__file__).parent
    folder.mkdir()
    for name in ("libmxnet.so", "libopenblas.so.0"):
        (folder / name).symlink_to(installed / name)
    asked, asks_for = b"libquadmath.so.0\0", library.encode().ljust(16, b"\0") + b"\0"
    content = (installed / "libgfortran.so.3").read_bytes()
    assert (content.count(asked), len(asks_for)) == (1, len(asked))
    (folder / "libgfortran.so.3").write_bytes(content.replace(asked, asks_for))
    return folder / "libmxnet.so"


@pytest.mark.process
def test_train_with_a_library_that_cannot_be_loaded(tmp_path: Path, python: Python) -> None:
    damaged = tmp_path / "libmxnet.so"
    damaged.write_bytes(b"")
    expected: dict[Path, Words] = {
        mxnet_that_misses("libabsent.so.7", tmp_path / "system"): ("libabsent.so.7", "system library"),
        mxnet_that_misses("libcudnn.so.888", tmp_path / "cuda"): ("libcudnn.so.888", *_SET_UP),
        mxnet_that_misses("libcuda.so.999", tmp_path / "driver"): ("libcuda.so.999", *_DRIVER),
        damaged: (f"{damaged}: file too short", _REINSTALL),
    }
    code = f"""
import os, sys
from mnist_trainer.cli import main
sys.stderr = sys.stdout
for library in {[str(library) for library in expected]}:
    os.environ["MXNET_LIBRARY_PATH"] = library
    for _ in range(2):
        print(main({_TRAIN}))
"""
    lines = python(code).splitlines()
    assert lines[1::2] == ["2"] * 2 * len(expected)
    assert lines[0::4] == lines[2::4], "a second attempt fails in the same way"
    for line, words in zip(lines[0::4], expected.values(), strict=True):
        assert_names(line, "MXNet", *words)
    assert not (tmp_path / "run").exists()
