"""Locations of the bundled files: the configurations and the MNIST data.

In a checkout they are in the top-level folders `configs/` and `data/mnist/`; an installed wheel has the same files inside the
package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def configs_folder() -> Path:
    """Return the folder of the bundled configurations."""
    return _folder("configs", "configs")


def mnist_folder() -> Path:
    """Return the folder of the bundled MNIST files."""
    return _folder("mnist", "data/mnist")


def _folder(in_wheel: str, in_checkout: str) -> Path:
    installed = _PACKAGE / "bundled_files" / in_wheel
    return installed if installed.is_dir() else _PACKAGE.parent / in_checkout
