"""Which files the library is built from, and the fingerprint by which a built library names them.

Run by `setup.py` when it builds and imported by `mnist_trainer.native` when it loads; the standard library only.
"""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
COMPILED = ("kernels.cc", "operator.cc")
INCLUDED = ("kernels.h", "stage.h")
MARKER = b"mnist_trainer native sources "  # as in operator.cc


def fingerprint() -> str:
    """The SHA-256 of all sources."""
    digest = hashlib.sha256()
    for name in sorted(COMPILED + INCLUDED):
        digest.update((FOLDER / name).read_bytes())
    return digest.hexdigest()
