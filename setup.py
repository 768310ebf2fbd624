"""Compiles the library of `mnist_trainer.model.native` for the installed build of MXNet. pyproject.toml cannot do this."""

import importlib.metadata
import importlib.util
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

_FOLDER = Path("mnist_trainer/model/native")
_sources = runpy.run_path(str(Path(__file__).parent / _FOLDER / "sources.py"))
_NOT_BUILT = _sources["NOT_BUILT"]


def _mxnet_folder() -> Path:
    # Found without an import: MXNet cannot be imported without the old names of numpy, and its import takes a second.
    found = importlib.util.find_spec("mxnet")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("MXNet's headers are needed to build; pip install mxnet==1.9.1")
    return Path(found.submodule_search_locations[0])


def _mxnet_requirement() -> str:
    # If the GPU build is installed (scripts/setup_gpu.sh), require that build. Otherwise pip would add the CPU build, which has
    # the same files.
    installed = {(package.metadata["Name"] or "").lower() for package in importlib.metadata.distributions()}
    return f"{'mxnet-cu112' if 'mxnet-cu112' in installed else 'mxnet'}==1.9.1"


class BuildLibrary(build_ext):
    """Builds the library with $CXX or, if that fails, with g++. If both fail, writes the reason to a file in the same folder.

    It calls the compiler directly, because the compiler and flags of distutils depend on the versions of Python and setuptools.
    """

    def build_extension(self, extension: Extension) -> None:
        library = Path(self.get_ext_fullpath(extension.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        for name in (library.name, _NOT_BUILT):  # from an earlier build
            library.with_name(name).unlink(missing_ok=True)
        reasons = []
        for compiler in dict.fromkeys([os.environ.get("CXX", "").strip() or "g++", "g++"]):
            reason = _compile(compiler, extension, library)
            if reason is None:
                with library.open("ab") as file:
                    file.write(_sources["ending"]())
                return
            reasons.append(f"{compiler}: {reason}")
        library.with_name(_NOT_BUILT).write_text("; ".join(reasons), encoding="utf-8")
        raise CompileError("; ".join(reasons))

    def copy_extensions_to_source(self) -> None:
        for extension in self.extensions:
            for name in (Path(self.get_ext_filename(extension.name)).name, _NOT_BUILT):
                built, target = Path(self.build_lib, _FOLDER, name), _FOLDER / name
                target.unlink(missing_ok=True)
                if built.exists():
                    shutil.copy(built, target)


def _compile(compiler: str, extension: Extension, library: Path) -> str | None:
    """Compile and link the library. Return the reason if that failed, otherwise None."""
    try:
        program, *flags = shlex.split(compiler)
        for variable in ("CPPFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS"):
            flags += shlex.split(os.environ.get(variable, ""))
    except ValueError as error:  # unbalanced quotation marks
        return f"the flags cannot be read ({error})"
    macros = {
        "MNIST_TRAINER_NATIVE_FINGERPRINT": _sources["fingerprint"](),
        "MNIST_TRAINER_NATIVE_FLAGS": f", flags {shlex.join(flags)}" if flags else "",
    }
    command = [
        *(program, *flags, *_sources["FLAGS"]),
        *(f"-D{name}={json.dumps(value)}" for name, value in macros.items()),
        *(f"-I{folder}" for folder in extension.include_dirs),
        *(*extension.sources, "-o", str(library)),
    ]
    print(shlex.join(command))
    try:
        done = subprocess.run(
            command, env=os.environ | {"LC_ALL": "C"}, stderr=subprocess.PIPE, text=True, errors="replace", check=False
        )
    except OSError as error:
        return error.strerror
    sys.stderr.write(done.stderr)
    if done.returncode == 0:
        return None
    errors = [line.partition("error: ")[2].removeprefix("#error ") for line in done.stderr.splitlines() if "error: " in line]
    return errors[0] if errors else f"it failed with exit code {done.returncode}"


_mxnet = _mxnet_folder()
setup(
    install_requires=[
        _mxnet_requirement(),
        "numpy>=1.23,<2",
        "matplotlib>=3.8",
        "pillow>=10.3",  # reads pictures of digits; matplotlib needs it too
        "tqdm>=4.66",
        "setuptools",  # only because MXNet imports distutils, which Python 3.12 and later do not have
    ],
    cmdclass={"build_ext": BuildLibrary},
    ext_modules=[
        Extension(
            f"{'.'.join(_FOLDER.parts)}.conv_pool_relu",
            sources=[str(_FOLDER / name) for name in _sources["COMPILED"]],
            include_dirs=[str(_mxnet / "include"), str(_mxnet / "src")],
            optional=True,  # the program works without it
        )
    ],
)
