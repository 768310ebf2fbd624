"""Queries of NVIDIA's driver, with a small driver that is compiled here, and the order in which its libraries are loaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_names
from programs import REPOSITORY, run_python
from requirements import needs_compiler

from mnist_trainer.runtime import nvidia
from mnist_trainer.runtime.nvidia import _LIBRARIES, Gpu

# Queries the driver in one process, once for each value of STUB_DRIVER.
ASK = """
import json, os, sys
from mnist_trainer.runtime import nvidia
answers = {}
for shown in sys.argv[1:]:
    os.environ["STUB_DRIVER"] = shown
    try:
        answers[shown] = [[str(gpu), gpu.has_machine_code] for gpu in nvidia.gpus()]
    except nvidia.DriverError as error:
        answers[shown] = str(error)
print(json.dumps(answers))
"""

SHOWN = {
    "none": "no GPU",
    "9.0": [["Stub GPU, compute capability 9.0", False]],
    "8.9": [["Stub GPU, compute capability 8.9", True]],
    "5.0": [["Stub GPU, compute capability 5.0", True]],
    "3.7": [["Stub GPU, compute capability 3.7", False]],
    "broken": "cuInit returned error 999 (unknown error)",
}


def compile_library(source: Path, library: Path) -> Path:
    subprocess.run(["g++", "-shared", "-fPIC", "-Wall", "-Werror", str(source), "-o", str(library)], check=True)
    return library


def python(script: str, *arguments: str, **variables: str | Path) -> str:
    done = run_python("-c", script, *arguments, cwd=None, **{name: str(value) for name, value in variables.items()})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.process
@needs_compiler
def test_the_gpus_that_the_driver_shows(tmp_path: Path) -> None:
    compile_library(REPOSITORY / "tests" / "stub_driver.cc", tmp_path / "libcuda.so.1")
    answers: dict[str, Any] = json.loads(python(ASK, *SHOWN, LD_LIBRARY_PATH=tmp_path))
    for shown, expected in SHOWN.items():
        if isinstance(expected, str):
            assert expected in answers[shown]
        else:
            assert answers[shown] == expected


@pytest.mark.process
def test_no_driver(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").touch()  # found before the system's library, but not a library
    answers = json.loads(python(ASK, "", LD_LIBRARY_PATH=tmp_path))
    assert_names(answers[""], "NVIDIA's driver is not installed", "libcuda.so.1")


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
def test_capabilities_with_machine_code(capability: tuple[int, int], has: bool) -> None:
    assert Gpu("any", capability).has_machine_code == has


# Each library writes its name into a file when it is loaded.
RECORDING = """
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
static void __attribute__((constructor)) record() {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&record), &info);
    FILE* stream = std::fopen(std::getenv("LOADED"), "a");
    std::fprintf(stream, "%s\\n", info.dli_fname);
    std::fclose(stream);
}
"""


@pytest.fixture(scope="module")
def recording_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    (folder / "recording.cc").write_text(RECORDING, encoding="utf-8")
    return compile_library(folder / "recording.cc", folder / "recording.so")


def packages_of_nvidia(folder: Path, recording_library: Path, *missing: str) -> Path:
    """Create a folder with NVIDIA's packages, whose libraries record that they are loaded."""
    for package, name in _LIBRARIES:
        if name not in missing:
            path = folder / "packages" / "nvidia" / package / "lib" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(recording_library.read_bytes())
    return folder / "packages"


def loaded_libraries(folder: Path) -> list[str]:
    """Return the names of the loaded libraries, in order."""
    lines = (folder / "loaded").read_text(encoding="utf-8").splitlines()
    return [Path(line).name.partition(".so")[0].removeprefix("lib") for line in lines]


LOAD = "import sys; sys.path.insert(0, sys.argv[1]); from mnist_trainer.runtime import nvidia; nvidia.load_libraries()"

IN_ORDER = ["cudart", "nvrtc", "nvToolsExt", "cublasLt", "cublas", "cufft", "curand", "cusparse", "cusolver", "nccl", "cudnn"]


@pytest.mark.process
@needs_compiler
def test_each_library_is_loaded_after_those_that_it_needs(recording_library: Path, tmp_path: Path) -> None:
    packages = packages_of_nvidia(tmp_path, recording_library)
    python(LOAD, str(packages), LOADED=tmp_path / "loaded")
    assert loaded_libraries(tmp_path) == IN_ORDER


@pytest.mark.process
@needs_compiler
def test_a_library_that_is_missing_is_left_to_the_systems_loader(recording_library: Path, tmp_path: Path) -> None:
    packages = packages_of_nvidia(tmp_path, recording_library, "libcusparse.so.11", "libcudnn.so.8")
    python(LOAD, str(packages), LOADED=tmp_path / "loaded")
    assert loaded_libraries(tmp_path) == [name for name in IN_ORDER if name not in ("cusparse", "cudnn")]


def test_without_the_packages_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> set[str]:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        return {line.split(maxsplit=5)[5] for line in lines if ".so" in line}

    monkeypatch.setattr(sys, "path", [])
    before = loaded()
    nvidia.load_libraries()
    assert loaded() == before


# The first import of MXNet fails, so that both builds can be tested in one process.
IMPORT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from mnist_trainer.runtime import nvidia
from mnist_trainer import runtime
from mnist_trainer.errors import RequestError
seen = {}
load_libraries = nvidia.load_libraries

def load():
    seen[build] = "mxnet" in sys.modules
    load_libraries()

class Refusal:
    def find_spec(self, name, *_):
        if name == "mxnet":
            raise ImportError("not yet")

nvidia.load_libraries = load
runtime.installation_problems = lambda: []
refusal = Refusal()
sys.meta_path.insert(0, refusal)
runtime.mxnet_packages = lambda: [build]
build = "mxnet"
try:
    runtime.import_mxnet()
except RequestError as error:
    assert "not yet" in str(error)
sys.meta_path.remove(refusal)
build = "mxnet-cu112"
runtime.import_mxnet()
print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.process
@needs_compiler
def test_only_the_gpu_build_loads_them_before_mxnet(recording_library: Path, tmp_path: Path) -> None:
    packages = packages_of_nvidia(tmp_path, recording_library)
    assert json.loads(python(IMPORT, str(packages), LOADED=tmp_path / "loaded")) == {"mxnet-cu112": False}
    assert loaded_libraries(tmp_path) == IN_ORDER
