"""Which files the library is built from, and the fingerprint by which a built library names them.

Run by `setup.py` when it builds and imported by `mnist_trainer.native` when it loads; the standard library only.
"""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
COMPILED = ("kernels.cc", "operator.cc", "update.cc", "update_operator.cc")
INCLUDED = ("kernels.h", "stage.h", "update.h")
MARKER = b"mnist_trainer native sources "  # as in operator.cc

# Products and sums may become one instruction (-ffp-contract), as they do not by default in standard C++; nothing is assumed of
# NaNs. -g0: Python's own flags would add fifteen times the size in debugging information.
FLAGS = ("-std=c++11", "-O3", "-g0", "-fopenmp", "-ffp-contract=fast")


def fingerprint() -> str:
    """The SHA-256 of all sources and of how they are compiled."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in sorted(COMPILED + INCLUDED):
        digest.update((FOLDER / name).read_bytes())
    return digest.hexdigest()
