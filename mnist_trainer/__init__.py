"""Trains MXNet's tutorial network on MNIST and shows, with proof, how learning-rate schedules behave.

    from mnist_trainer import build_cnn, create_loaders, create_trainer, fit, load_config
    from mnist_trainer.schedules import MultiFactor, Cosine

Importing the package loads nothing; MXNet is loaded when one of these names that needs it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_trainer.config import load_config
    from mnist_trainer.data import create_loaders, create_validation_loader
    from mnist_trainer.model import build_cnn, initialize
    from mnist_trainer.optimizer import create_trainer
    from mnist_trainer.trainer import evaluate, fit, seed_everything

__all__ = [
    "build_cnn",
    "create_loaders",
    "create_trainer",
    "create_validation_loader",
    "evaluate",
    "fit",
    "initialize",
    "load_config",
    "seed_everything",
]

_HOMES = {
    "build_cnn": "model",
    "create_loaders": "data",
    "create_trainer": "optimizer",
    "create_validation_loader": "data",
    "evaluate": "trainer",
    "fit": "trainer",
    "initialize": "model",
    "load_config": "config",
    "seed_everything": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
