"""What happens before MXNet loads: threads, warnings, numpy's old names, and a sentence for each broken installation."""

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
from conftest import Program

from mnist_trainer import runtime
from mnist_trainer.config import load_config
from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import choose_threads, explain_load_error, explain_mxnet_error, import_mxnet, prepare

Python = Callable[..., str]

# Asks the OpenMP library that MXNet brought into the process.
_OPENMP_THREADS = "__import__('ctypes').CDLL('libgomp.so.1').omp_get_max_threads()"


@pytest.fixture
def python(repository: Path, tmp_path: Path) -> Python:
    """Runs Python code in a process of its own, which must succeed in silence; returns what it printed."""

    def run(code: str, *options: str, **variables: str) -> str:
        ours = ("OMP_NUM_THREADS", "MXNET_CPU_PARALLEL_SIZE", "GOMP_SPINCOUNT")
        environment = {key: value for key, value in os.environ.items() if key not in ours}
        done = subprocess.run(
            [sys.executable, *options, "-c", code],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(repository), **variables},
            capture_output=True,
            text=True,
            timeout=120,
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
        pytest.param(3, "garbage", 3, id="a number whatever the variable says"),
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
        pytest.param("auto", id="our word"),
        pytest.param("1025", id="too many"),
        pytest.param("123456", id="far too many"),
        pytest.param(",2", id="no outermost"),
        pytest.param("x,2", id="a word before a number"),
        pytest.param(" ", id="a space"),
    ],
)
def test_an_unreadable_variable_is_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    with pytest.raises(RequestError, match=rf"^OMP_NUM_THREADS: {variable!r} is not a whole number from 1 to 1024$"):
        choose_threads()


@pytest.mark.parametrize("variable", [pytest.param(None, id="unset"), pytest.param("", id="empty")])
def test_without_a_variable_all_processors_are_used(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(runtime, "available_processors", lambda: 5)
    assert choose_threads() == 5


@pytest.mark.process
def test_affinity_is_respected(python: Python) -> None:
    # Bound to one processor, MXNet gets one thread however many the machine has.
    code = f"""
import os
from mnist_trainer import runtime
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(runtime.available_processors(), runtime.choose_threads())
runtime.import_mxnet()
print(os.environ["OMP_NUM_THREADS"], {_OPENMP_THREADS})
"""
    assert python(code).splitlines() == ["1 1", "1 1"]


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
    monkeypatch.setattr(runtime, "Path", lambda name: file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 4, 5})
    assert runtime.available_processors() == processors


@pytest.mark.process
@pytest.mark.parametrize(
    ("asked", "variables", "printed"),
    [
        pytest.param("3", {}, "3 3 2147483647 3000 3", id="a number"),
        pytest.param("3", {"OMP_NUM_THREADS": "5"}, "3 3 2147483647 3000 3", id="a number before the variable"),
        pytest.param("", {"OMP_NUM_THREADS": "5"}, "5 5 2147483647 3000 5", id="the variable"),
        pytest.param("", {"OMP_NUM_THREADS": "4,2"}, "4 4 2147483647 3000 4", id="nested levels"),
        pytest.param("3", {"MXNET_CPU_PARALLEL_SIZE": "1000"}, "3 3 1000 3000 3", id="the user's own size of parallel copies"),
        pytest.param("3", {"GOMP_SPINCOUNT": "9"}, "3 3 2147483647 9 3", id="the user's own patience"),
    ],
)
def test_prepare_sets_what_mxnet_reads(asked: str, variables: dict[str, str], printed: str, python: Python) -> None:
    code = f"""
import os, sys
from mnist_trainer import runtime
threads = runtime.prepare({asked})
assert "mxnet" not in sys.modules
print(threads, *(os.environ[name] for name in ("OMP_NUM_THREADS", "MXNET_CPU_PARALLEL_SIZE", "GOMP_SPINCOUNT")), end=" ")
runtime.import_mxnet()
print({_OPENMP_THREADS})
"""
    assert python(code, **variables) == printed


@pytest.mark.process
def test_importing_mxnet_prepares_too(python: Python) -> None:
    code = f"""
import os
from mnist_trainer import runtime
mx = runtime.import_mxnet()
assert runtime.import_mxnet() is mx
print(mx.__version__, os.environ["OMP_NUM_THREADS"], os.environ["MXNET_CPU_PARALLEL_SIZE"], {_OPENMP_THREADS})
"""
    assert python(code, OMP_NUM_THREADS="3") == "1.9.1 3 2147483647 3"


def test_another_number_comes_too_late_once_mxnet_is_loaded() -> None:
    import_mxnet()
    threads = int(os.environ["OMP_NUM_THREADS"])
    assert prepare(threads) == prepare("auto") == threads
    with pytest.raises(RequestError) as caught:
        prepare(threads + 1)
    (problem,) = caught.value.problems
    assert problem.startswith(f"--threads {threads + 1}: MXNet is loaded already")
    assert f" {threads};" in problem
    assert "restart the kernel" in problem
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


# --- notebooks


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
assert os.environ == before and not {{"numpy", "mxnet", "mnist_trainer.runtime"}} & set(sys.modules), "looking changes nothing"

try:
    import mxnet  # MXNet itself would abort the process
except ValueError as error:
    print(error)
assert not [name for name in sys.modules if name.startswith("mxnet")]

from mnist_trainer import runtime
runtime.prepare(3)
from mxnet import gluon
import mxnet
assert runtime.import_mxnet() is mxnet and importlib.reload(mxnet).gluon is gluon
print(mxnet.nd.ones(2).sum().asscalar(), os.environ["MXNET_CPU_PARALLEL_SIZE"], {_OPENMP_THREADS})
"""
    refused, computed = python(code, "-W", "error", OMP_NUM_THREADS="abc").splitlines()
    assert refused.startswith("OMP_NUM_THREADS: 'abc' ")
    assert computed == "2.0 2147483647 3"


# The first statement of a notebook, which numpy 1.24 and later let fail.
IMPORT_MXNET_FIRST = """
try:
    import mxnet
except AttributeError as error:
    assert "numpy" in str(error)
else:
    raise SystemExit("MXNet can be imported")
"""

TRAIN_THE_TUTORIALS_NETWORK = """
from dataclasses import replace
from mnist_trainer import build_cnn, create_loaders, create_trainer, evaluate, fit, initialize, load_config, seed_everything
from mnist_trainer.config import DataConfig
from mnist_trainer.schedules import MultiFactor
from mnist_trainer.stages import with_stages
import mxnet

def train():
    data = DataConfig(train_images=640, test_images=100)
    train_loader, test_loader = create_loaders(replace(load_config("quick"), data=data))
    trained = []
    for kind in ("stock", "fused"):
        seed_everything(1)
        network = build_cnn()
        initialize(network)
        trainer = create_trainer(network.collect_params(), MultiFactor(base_lr=0.1, step=[5], factor=0.1))
        fit(with_stages(network, kind, [mxnet.cpu()]), train_loader, test_loader, trainer, epochs=2)
        parameters = [each.data().asnumpy().tobytes() for each in network.collect_params().values()]
        trained.append((evaluate(network, test_loader), parameters))
    return trained
"""


@pytest.mark.process
@pytest.mark.slow
def test_an_import_of_mxnet_that_failed_is_healed(python: Python) -> None:
    code = f"""{IMPORT_MXNET_FIRST}
import hashlib, os, sys
assert "mxnet.ndarray" in sys.modules and "mxnet" not in sys.modules
import mnist_trainer
os.environ["OMP_NUM_THREADS"] = "2"
try:
    import mxnet
except ValueError as error:
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
    assert by_variable.startswith("OMP_NUM_THREADS=2: MXNet is loaded already")
    assert by_flag.startswith("--threads 3: MXNet is loaded already")
    assert threads == "1 1 1"
    fresh: dict[str, Any] = {}
    exec(TRAIN_THE_TUTORIALS_NETWORK, fresh)  # one thread here too
    assert trained == hashlib.sha256(repr(fresh["train"]()).encode()).hexdigest()


@pytest.mark.process
def test_an_import_of_mxnet_that_was_repeated_without_us_is_refused(python: Python) -> None:
    code = f"""{IMPORT_MXNET_FIRST}
import numpy
numpy.bool = bool
import mxnet
from mnist_trainer import runtime
assert runtime.prepare() == {_OPENMP_THREADS}, "whatever it was loaded with"
try:
    from mnist_trainer import build_cnn
except runtime.InstallationError as error:
    print(error)
"""
    told = python(code, "-W", "ignore")
    assert "mxnet.autograd" in told
    assert "restart the kernel" in told
    assert "import mnist_trainer before mxnet" in told


# --- loading


@pytest.mark.process
@pytest.mark.parametrize(
    ("module", "loads"),
    [
        pytest.param("mnist_trainer", False, id="the package"),
        pytest.param("mnist_trainer.cli", False, id="cli"),
        pytest.param("mnist_trainer.config", False, id="config"),
        pytest.param("mnist_trainer.schedules", False, id="schedules"),
        pytest.param("mnist_trainer.run_folder", False, id="run_folder"),
        pytest.param("mnist_trainer.runtime", False, id="runtime"),
        pytest.param("mnist_trainer.mnist_files", False, id="mnist_files"),
        pytest.param("mnist_trainer.doctor", False, id="doctor"),
        pytest.param("mnist_trainer.devices", True, id="devices, which needs it"),
    ],
)
def test_which_modules_load_mxnet(module: str, loads: bool, python: Python) -> None:
    assert python(f"import sys, {module}; print('mxnet' in sys.modules)") == str(loads)


@pytest.mark.process
def test_nothing_warns_where_warnings_are_errors(python: Python) -> None:
    code = """
import warnings
from mnist_trainer import cli, doctor, evaluation, experiment, plots
from mnist_trainer import build_cnn
build_cnn()
try:
    warnings.warn("told", DeprecationWarning)
except DeprecationWarning as warning:
    print(warning)
"""
    assert python(code, "-W", "error") == "told", "the user's filters are as they were"


@pytest.mark.process
def test_numpy_has_its_old_names_again(python: Python) -> None:
    code = """
from mnist_trainer.runtime import import_mxnet
import numpy
import_mxnet()
print([vars(numpy)[name] for name in ("bool", "int", "float", "object")])
"""
    assert python(code) == "[<class 'bool'>, <class 'int'>, <class 'float'>, <class 'object'>]"


# --- broken installations


def fake_package(folder: Path, name: str, version: str) -> None:
    """Metadata as pip leaves it in site-packages."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


def packages_without(folder: Path, *missing: str) -> Path:
    """A folder with links to all that is installed, except some packages. For Python's option -S, which sees no other."""
    folder.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if re.split(r"[-.]", entry.name)[0] not in missing:
            (folder / entry.name).symlink_to(entry)
    return folder


_NUMPY_TOO_NEW = 'numpy {} is too new for MXNet 1.9.1; pip install "numpy>=1.23,<2"'
_TWO_BUILDS = (
    "mxnet and {0} are installed together and overwrite each other's files; "
    "pip uninstall -y mxnet {0}, then install one of them again"
)

_NO_DISTUTILS = "MXNet needs distutils, which setuptools supplies on this Python; pip install setuptools"


@pytest.mark.process
@pytest.mark.parametrize(
    ("packages", "problems"),
    [
        pytest.param([("numpy", "2.1.0")], [_NUMPY_TOO_NEW.format("2.1.0")], id="numpy 2"),
        pytest.param([("numpy", "10.0")], [_NUMPY_TOO_NEW.format("10.0")], id="numpy 10"),
        pytest.param(
            [("numpy", "1.22.4")], ['numpy 1.22.4 is too old; pip install "numpy>=1.23,<2"'], id="numpy of before 1.23"
        ),
        pytest.param([("numpy", "1.23.0")], [], id="the oldest numpy"),
        pytest.param([("numpy", "1.26.4")], [], id="the newest numpy"),
        pytest.param([("mxnet", "1.5.1")], ["mxnet 1.5.1 is not 1.9.1; pip install mxnet==1.9.1"], id="another MXNet"),
        pytest.param([("mxnet-cu112", "1.9.1")], [_TWO_BUILDS.format("mxnet-cu112")], id="the CPU build beside a GPU build"),
        pytest.param([("MXNet_cu117", "1.9.1")], [_TWO_BUILDS.format("mxnet-cu117")], id="a GPU build spelled otherwise"),
        pytest.param([("mxnet-model-server", "1.0")], [], id="a package that only sounds alike"),
        pytest.param(
            [("mxnet-cu112", "1.9.1"), ("numpy", "2.1.0")],
            [_TWO_BUILDS.format("mxnet-cu112"), _NUMPY_TOO_NEW.format("2.1.0")],
            id="two problems at once",
        ),
    ],
)
def test_what_the_installed_metadata_shows(
    packages: list[tuple[str, str]], problems: list[str], tmp_path: Path, repository: Path, python: Python
) -> None:
    for name, version in packages:
        fake_package(tmp_path / "packages", name, version)
    code = "from mnist_trainer.runtime import installation_problems; print(*installation_problems(), sep='\\n')"
    path = f"{repository}{os.pathsep}{tmp_path / 'packages'}"
    assert python(code, PYTHONPATH=path).splitlines() == problems


def test_train_refuses_a_broken_installation(tmp_path: Path, repository: Path, new_program: Program) -> None:
    fake_package(tmp_path / "packages", "mxnet-cu112", "1.9.1")
    fake_package(tmp_path / "packages", "numpy", "2.1.0")
    path = f"{repository}{os.pathsep}{tmp_path / 'packages'}"
    done = new_program("train", "--output", "run", PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"mnist-trainer: {_TWO_BUILDS.format('mxnet-cu112')}",
        f"mnist-trainer: {_NUMPY_TOO_NEW.format('2.1.0')}",
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    ("missing", "block", "problems"),
    [
        pytest.param((), "", [], id="nothing"),
        pytest.param(("mxnet",), "", ["MXNet is not installed; pip install mxnet==1.9.1"], id="mxnet"),
        pytest.param(("numpy",), "", ['numpy is not installed; pip install "numpy>=1.23,<2"'], id="numpy"),
        pytest.param(("matplotlib",), "", ["matplotlib is not installed; pip install matplotlib"], id="matplotlib"),
        pytest.param(("pillow",), "", ["pillow is not installed; pip install pillow"], id="pillow"),
        pytest.param(("tqdm",), "", ["tqdm is not installed; pip install tqdm"], id="tqdm"),
        pytest.param(
            ("setuptools", "_distutils_hack"),
            "",
            [] if sys.version_info < (3, 12) else [_NO_DISTUTILS],
            id="setuptools",
        ),
        pytest.param((), "distutils", [], id="distutils, which setuptools brings"),
        pytest.param(
            ("setuptools", "_distutils_hack"),
            "distutils",
            [_NO_DISTUTILS],
            id="distutils and setuptools",
        ),
    ],
)
def test_missing_packages(
    missing: tuple[str, ...], block: str, problems: list[str], tmp_path: Path, repository: Path, python: Python
) -> None:
    # The block makes any Python one without a distutils of its own, as 3.12 and later are.
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
    assert python(code, "-S", PYTHONPATH=path).splitlines() == problems


_TRAIN = """
import sys
from mnist_trainer.cli import main
sys.stderr = sys.stdout
print(main(["train", "--output", "run"]))
"""


@pytest.mark.process
def test_train_without_mxnet(tmp_path: Path, repository: Path, python: Python) -> None:
    path = f"{repository}{os.pathsep}{packages_without(tmp_path / 'packages', 'mxnet')}"
    told = python(_TRAIN, "-S", PYTHONPATH=path).splitlines()
    assert told == ["mnist-trainer: MXNet is not installed; pip install mxnet==1.9.1", "2"]
    assert not (tmp_path / "run").exists()


@pytest.mark.process
def test_train_with_nothing_left_of_mxnet_but_its_metadata(tmp_path: Path, repository: Path, python: Python) -> None:
    # So it is after two builds were installed and one of them uninstalled.
    packages = packages_without(tmp_path / "packages", "mxnet")
    fake_package(packages, "mxnet", "1.9.1")
    told = python(_TRAIN, "-S", PYTHONPATH=f"{repository}{os.pathsep}{packages}").splitlines()
    assert told == [
        "mnist-trainer: MXNet cannot be loaded (No module named 'mxnet'); "
        "install it afresh: pip install --force-reinstall mxnet==1.9.1",
        "2",
    ]
    assert not (tmp_path / "run").exists()


# --- errors of MXNet

_TRACEBACK = 'Traceback (most recent call last):\n  File "../src/imperative/imperative.cc", line 81\n'


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param(f"{_TRACEBACK}MXNetError: Operator f is not implemented.", "Operator f is not implemented.", id="a name"),
        pytest.param(f"{_TRACEBACK}Name: Check failed: a == b\n\n", "Name: Check failed: a == b", id="blank lines behind"),
        pytest.param("one line", "one line", id="one line"),
        pytest.param("", "MXNetError", id="nothing"),
    ],
)
def test_an_error_of_mxnet_is_its_last_line(message: str, reason: str) -> None:
    assert explain_mxnet_error(import_mxnet().MXNetError(message)) == reason


# --- libraries that are missing

_SET_UP = "run scripts/setup_gpu.sh of the repository, which installs them"
_CPU_BUILD = "or replace MXNet's GPU build by mxnet==1.9.1 for the CPU"
_NO_FILE = "cannot open shared object file: No such file or directory"


# The first two are what MXNet 1.9.1 said on Debian 12 with the library out of sight.
@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        pytest.param(
            f"libgomp.so.1: {_NO_FILE}",
            "MXNet needs the system library libgomp.so.1; apt-get install libgomp1",
            id="libgomp",
        ),
        pytest.param(
            f"libquadmath.so.0: {_NO_FILE}",
            "MXNet needs the system library libquadmath.so.0; apt-get install libquadmath0",
            id="libquadmath",
        ),
        pytest.param(
            f"libcuda.so.1: {_NO_FILE}",
            f"MXNet's GPU build needs NVIDIA's driver, and libcuda.so.1 is missing; install the driver, {_CPU_BUILD}",
            id="libcuda",
        ),
        *(
            pytest.param(
                f"{library}: {_NO_FILE}",
                f"MXNet's GPU build needs CUDA 11 and cuDNN 8, and {library} is missing; {_SET_UP}, {_CPU_BUILD}",
                id=library.partition(".")[0],
            )
            for library in (
                "libcudnn.so.8",
                "libcudart.so.11.0",
                "libcublas.so.11",
                "libcublasLt.so.11",
                "libcufft.so.10",
                "libcurand.so.10",
                "libcusolver.so.11",
                "libnccl.so.2",
                "libnvrtc.so.11.2",
                "libnvToolsExt.so.1",
            )
        ),
        pytest.param(
            f"libstdc++.so.6: {_NO_FILE}",
            "MXNet needs the system library libstdc++.so.6, which is not here; install the package that holds it",
            id="any other",
        ),
    ],
)
def test_a_missing_library_is_explained(message: str, sentence: str) -> None:
    assert explain_load_error(message) == sentence


def test_another_message_is_passed_on() -> None:
    message = "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by libmxnet.so)"
    assert explain_load_error(message) == (
        f"MXNet cannot be loaded ({message}); install it afresh: pip install --force-reinstall mxnet==1.9.1"
    )


def mxnet_that_misses(library: str, folder: Path) -> Path:
    """The real MXNet library beside a libgfortran that asks for `library` instead of libquadmath."""
    installed = Path(import_mxnet().__file__).parent
    folder.mkdir()
    for name in ("libmxnet.so", "libopenblas.so.0"):
        (folder / name).symlink_to(installed / name)
    asked, asks_for = b"libquadmath.so.0\0", library.encode().ljust(16, b"\0") + b"\0"
    content = (installed / "libgfortran.so.3").read_bytes()
    assert (content.count(asked), len(asks_for)) == (1, len(asked))
    (folder / "libgfortran.so.3").write_bytes(content.replace(asked, asks_for))
    return folder / "libmxnet.so"


@pytest.mark.parametrize(
    ("library", "sentence"),
    [
        pytest.param(
            "libabsent.so.7",
            "MXNet needs the system library libabsent.so.7, which is not here; install the package that holds it",
            id="a system library",
        ),
        pytest.param(
            "libcudnn.so.888",
            f"MXNet's GPU build needs CUDA 11 and cuDNN 8, and libcudnn.so.888 is missing; {_SET_UP}, {_CPU_BUILD}",
            id="a library of CUDA",
        ),
        pytest.param(
            "libcuda.so.999",
            f"MXNet's GPU build needs NVIDIA's driver, and libcuda.so.999 is missing; install the driver, {_CPU_BUILD}",
            id="the driver",
        ),
    ],
)
def test_train_where_the_loader_misses_a_library(library: str, sentence: str, tmp_path: Path, new_program: Program) -> None:
    path = mxnet_that_misses(library, tmp_path / "mxnet")
    done = new_program("train", "--output", "run", MXNET_LIBRARY_PATH=str(path))
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mnist-trainer: {sentence}\n")
    assert not (tmp_path / "run").exists()


def test_train_with_a_damaged_library(tmp_path: Path, new_program: Program) -> None:
    (tmp_path / "libmxnet.so").write_bytes(b"")
    done = new_program("train", "--output", "run", MXNET_LIBRARY_PATH=str(tmp_path / "libmxnet.so"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"mnist-trainer: MXNet cannot be loaded ({tmp_path / 'libmxnet.so'}: file too short); "
        "install it afresh: pip install --force-reinstall mxnet==1.9.1\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.process
def test_a_failed_load_fails_alike_again(tmp_path: Path, python: Python) -> None:
    code = """
from mnist_trainer.runtime import InstallationError, import_mxnet
for _ in range(2):
    try:
        import_mxnet()
    except InstallationError as error:
        print(error)
"""
    library = mxnet_that_misses("libabsent.so.7", tmp_path / "mxnet")
    first, second = python(code, MXNET_LIBRARY_PATH=str(library)).splitlines()
    assert first == second == explain_load_error(f"libabsent.so.7: {_NO_FILE}")


def mnist_trainer(packages: Path, repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "mnist_trainer", *arguments],
        env=os.environ | {"PYTHONPATH": f"{repository}{os.pathsep}{packages}"},
        cwd=packages.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.process
@pytest.mark.parametrize("command", [("train", "--output", "run"), ("doctor",)], ids=" ".join)
@pytest.mark.parametrize("left", ["no file", "no library"])
def test_metadata_without_a_package(left: str, command: tuple[str, ...], tmp_path: Path, repository: Path) -> None:
    packages = packages_without(tmp_path / "packages", "mxnet")
    installed = Path(import_mxnet().__file__).parent
    (packages / "mxnet-1.9.1.dist-info").symlink_to(next(installed.parent.glob("mxnet-*.dist-info")))
    if left == "no library":
        (packages / "mxnet").mkdir()
        for entry in installed.iterdir():
            if entry.suffix == ".py":
                (packages / "mxnet" / entry.name).write_bytes(entry.read_bytes())
            elif entry.name != "libmxnet.so":
                (packages / "mxnet" / entry.name).symlink_to(entry)
    done = mnist_trainer(packages, repository, *command)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == (1 if command == ("doctor",) else 2)


@pytest.mark.process
@pytest.mark.parametrize("command", [("train", "--output", "run"), ("doctor",), ("data", "verify")], ids=" ".join)
@pytest.mark.parametrize("missing", ["numpy", "matplotlib", "tqdm"])
def test_a_package_is_missing(missing: str, command: tuple[str, ...], tmp_path: Path, repository: Path) -> None:
    done = mnist_trainer(packages_without(tmp_path / "packages", missing), repository, *command)
    assert "Traceback" not in done.stderr
    if command[0] != "data":
        assert f"{missing} is not installed" in done.stdout + done.stderr
        assert done.returncode == (1 if command == ("doctor",) else 2)


def test_a_recorded_number_of_threads_can_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5000")
    try:
        threads = choose_threads()
    except ValueError:
        return
    file = tmp_path / "config.toml"
    file.write_text(f"{load_config().to_toml()}".replace('threads = "auto"', f"threads = {threads}"), encoding="utf-8")
    load_config(file)


def test_a_damaged_library_has_a_way_out() -> None:
    assert "pip install" in explain_load_error("/x/libmxnet.so: file too short")


def test_what_mxnet_was_loaded_with_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    other = int(os.environ["OMP_NUM_THREADS"]) + 1
    monkeypatch.setenv("OMP_NUM_THREADS", str(other))  # after MXNet has read it
    with pytest.raises(ValueError, match="MXNet is loaded already"):
        prepare(other)
