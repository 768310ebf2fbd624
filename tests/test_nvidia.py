"""What NVIDIA's driver is asked, against a small one that is compiled here, and the order in which its libraries are loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import REPOSITORY

from mnist_trainer.nvidia import _LIBRARIES, Gpu

ASK = """
import sys
from mnist_trainer import nvidia
try:
    print([str(gpu) for gpu in nvidia.gpus()], [gpu.has_machine_code for gpu in nvidia.gpus()])
except nvidia.DriverError as error:
    print(error)
"""


def compile_library(source: Path, library: Path, *flags: str) -> Path:
    library.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["g++", "-shared", "-fPIC", "-Wall", "-Werror", *flags, str(source), "-o", str(library)], check=True)
    return library


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a driver that has no GPU."""
    folder = tmp_path_factory.mktemp("driver")
    compile_library(REPOSITORY / "tests" / "stub_driver.cc", folder / "libcuda.so.1")
    return folder


def python(script: str, **variables: str | Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | {name: str(value) for name, value in variables.items()}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("shown", "answer"),
    [
        pytest.param("none", "NVIDIA's driver shows no GPU", id="none"),
        pytest.param("9.0", "['Stub GPU, compute capability 9.0'] [False]", id="Hopper"),
        pytest.param("8.9", "['Stub GPU, compute capability 8.9'] [True]", id="Ada"),
        pytest.param("5.0", "['Stub GPU, compute capability 5.0'] [True]", id="Maxwell"),
        pytest.param("3.7", "['Stub GPU, compute capability 3.7'] [False]", id="Kepler"),
        pytest.param("broken", "NVIDIA's driver answers cuInit with error 999 (unknown error)", id="broken"),
    ],
)
def test_what_the_driver_shows(shown: str, answer: str, driver: Path) -> None:
    assert python(ASK, LD_LIBRARY_PATH=driver, STUB_DRIVER=shown) == f"{answer}\n"


def test_no_driver() -> None:
    # The tests run where there is no GPU; one that is there makes them say so.
    assert python(ASK) == "NVIDIA's driver is not installed: there is no libcuda.so.1\n"


@pytest.mark.parametrize(
    ("capability", "has"),
    [
        ((4, 9), False),
        ((5, 0), True),
        ((5, 3), True),
        ((7, 5), True),
        ((8, 6), True),
        ((8, 9), True),
        ((9, 0), False),
        ((12, 0), False),
    ],
)
def test_for_which_capabilities_there_is_machine_code(capability: tuple[int, int], has: bool) -> None:
    assert Gpu("any", capability).has_machine_code == has


# Each library writes its name into a file when it is loaded.
TELLING = """
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
static void __attribute__((constructor)) tell() {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&tell), &info);
    FILE* stream = std::fopen(std::getenv("TOLD"), "a");
    std::fprintf(stream, "%s\\n", info.dli_fname);
    std::fclose(stream);
}
"""


def packages_of_nvidia(folder: Path, *missing: str) -> Path:
    """A folder of packages in which NVIDIA's libraries are, each of which tells when it is loaded."""
    source = folder / "telling.cc"
    source.write_text(TELLING, encoding="utf-8")
    library = compile_library(source, folder / "telling.so")
    for package, name in _LIBRARIES:
        if name not in missing:
            path = folder / "packages" / "nvidia" / package / "lib" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(library.read_bytes())
    return folder / "packages"


LOAD = "from mnist_trainer import nvidia; nvidia.load_libraries()"


def test_the_libraries_are_loaded_each_after_those_that_it_needs(tmp_path: Path) -> None:
    packages = packages_of_nvidia(tmp_path)
    python(f"import sys; sys.path.insert(0, {str(packages)!r}); {LOAD}", TOLD=tmp_path / "told")
    told = [Path(line).name for line in (tmp_path / "told").read_text(encoding="utf-8").splitlines()]
    assert [name.partition(".so")[0].removeprefix("lib") for name in told] == [
        *("cudart", "nvrtc", "nvToolsExt", "cublasLt", "cublas", "cufft", "curand", "cusparse", "cusolver", "nccl", "cudnn")
    ]


def test_a_library_that_is_missing_is_left_to_the_systems_loader(tmp_path: Path) -> None:
    packages = packages_of_nvidia(tmp_path, "libcusparse.so.11", "libcudnn.so.8")
    python(f"import sys; sys.path.insert(0, {str(packages)!r}); {LOAD}", TOLD=tmp_path / "told")
    assert len((tmp_path / "told").read_text(encoding="utf-8").splitlines()) == len(_LIBRARIES) - 2


def test_without_the_packages_nothing_is_loaded() -> None:
    assert python(LOAD) == ""


@pytest.mark.parametrize(("build", "is_loaded"), [("mxnet", False), ("mxnet-cu112", True)])
def test_only_the_gpu_build_has_them_loaded_before_it(build: str, is_loaded: bool, tmp_path: Path) -> None:
    packages = packages_of_nvidia(tmp_path)
    script = f"""
import json, sys
sys.path.insert(0, {str(packages)!r})
from mnist_trainer import nvidia, runtime
seen = []
real = nvidia.load_libraries
def load():
    seen.append("mxnet" in sys.modules)
    real()
nvidia.load_libraries = load
runtime.mxnet_packages = lambda: [{build!r}]
runtime.installation_problems = lambda: []
runtime.import_mxnet()
print(json.dumps(seen))
"""
    assert json.loads(python(script, TOLD=tmp_path / "told")) == ([False] if is_loaded else [])
    assert (tmp_path / "told").exists() == is_loaded
