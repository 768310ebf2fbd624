"""Trains MXNet's tutorial network on MNIST, and shows with evidence how learning-rate schedules behave.

    from mnist_trainer import build_cnn, create_loaders, create_trainer, fit, load_config
    from mnist_trainer.schedules import MultiFactor, Cosine

Importing the package loads none of its modules and installs `MXNetFinder`. With it, a plain `import mxnet` works even with a
numpy that MXNet 1.9.1 does not support. The names in `__all__` load MXNet when they are first used.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_trainer.config.loading import load_config
    from mnist_trainer.data.loaders import create_loaders, create_validation_loader
    from mnist_trainer.model.network import build_cnn, initialize
    from mnist_trainer.training.callbacks import Callback, ProgressBar
    from mnist_trainer.training.early_stopping import EarlyStopping
    from mnist_trainer.training.loop import evaluate, fit, seed_everything
    from mnist_trainer.training.lr_finder import find_learning_rate
    from mnist_trainer.training.tensorboard import TensorBoard
    from mnist_trainer.training.trainer import create_trainer

__all__ = [
    "Callback",
    "EarlyStopping",
    "ProgressBar",
    "TensorBoard",
    "build_cnn",
    "create_loaders",
    "create_trainer",
    "create_validation_loader",
    "evaluate",
    "find_learning_rate",
    "fit",
    "initialize",
    "load_config",
    "seed_everything",
]

_HOMES = {
    "Callback": "training.callbacks",
    "EarlyStopping": "training.early_stopping",
    "ProgressBar": "training.callbacks",
    "TensorBoard": "training.tensorboard",
    "build_cnn": "model.network",
    "create_loaders": "data.loaders",
    "create_trainer": "training.trainer",
    "create_validation_loader": "data.loaders",
    "evaluate": "training.loop",
    "find_learning_rate": "training.lr_finder",
    "fit": "training.loop",
    "initialize": "model.network",
    "load_config": "config.loading",
    "seed_everything": "training.loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


class MXNetFinder:
    """Finds MXNet for each `import mxnet` in this process. Its loader prepares the process before MXNet's code runs.

    Finding alone prepares and imports nothing: `importlib.util.find_spec("mxnet")` has no side effects.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the usual spec of `mxnet` with a loader that prepares the process, or None for any other module."""
        spec = PathFinder.find_spec(name, path, target) if name == "mxnet" else None
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _MXNetLoader(name, spec.loader.path)
        return spec


class _MXNetLoader(SourceFileLoader):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        # Not in exec_module, which importlib.reload(mxnet) also calls.
        from mnist_trainer import runtime
        from mnist_trainer.errors import RequestError

        try:
            runtime.prepare_import()
        except RequestError as error:  # the error that other libraries expect when an import fails
            raise ImportError(str(error)) from error
        return super().create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        from mnist_trainer import runtime

        with runtime.mxnet_warnings_ignored():
            super().exec_module(module)


# Replace the finder of an earlier import of this module, for example before importlib.reload.
sys.meta_path[:] = [MXNetFinder, *(finder for finder in sys.meta_path if getattr(finder, "__module__", None) != __name__)]
