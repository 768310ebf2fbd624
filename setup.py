"""What pyproject.toml cannot say: how the library of `mnist_trainer.native` is compiled, and for which build of MXNet."""

import importlib.metadata
import importlib.util
import runpy
from pathlib import Path

from setuptools import Extension, setup

_FOLDER = "mnist_trainer/native"
_sources = runpy.run_path(str(Path(__file__).parent / _FOLDER / "sources.py"))


def _mxnet_folder() -> Path:
    # Found, not imported: MXNet cannot be imported without old names in numpy, and takes a second.
    found = importlib.util.find_spec("mxnet")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("MXNet's headers are needed to build; pip install mxnet==1.9.1")
    return Path(found.submodule_search_locations[0])


def _mxnet_requirement() -> str:
    # The GPU build where that is what is there (scripts/setup_gpu.sh): both have the same files, and pip would add the other.
    installed = {(each.metadata["Name"] or "").lower() for each in importlib.metadata.distributions()}
    return f"{'mxnet-cu112' if 'mxnet-cu112' in installed else 'mxnet'}==1.9.1"


_mxnet = _mxnet_folder()
setup(
    install_requires=[
        _mxnet_requirement(),
        "numpy>=1.23,<2",
        "matplotlib>=3.8",
        "pillow>=10.3",  # which matplotlib needs too; reads pictures of digits
        "tqdm>=4.66",
        "setuptools",  # only because MXNet imports distutils, which Python 3.12 and later do not have
    ],
    ext_modules=[
        Extension(
            f"{_FOLDER.replace('/', '.')}.conv_pool_relu",
            sources=[f"{_FOLDER}/{name}" for name in _sources["COMPILED"]],
            depends=[f"{_FOLDER}/{name}" for name in (*_sources["INCLUDED"], "sources.py")],
            include_dirs=[str(_mxnet / "include"), str(_mxnet / "src")],
            define_macros=[("MNIST_TRAINER_NATIVE_FINGERPRINT", f'"{_sources["fingerprint"]()}"')],
            extra_compile_args=list(_sources["FLAGS"]),
            extra_link_args=["-fopenmp"],
            language="c++",
            optional=True,  # without a compiler the program does without it
        )
    ],
)
