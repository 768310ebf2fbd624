"""Which files the library is built from, and the fingerprint by which a built library names them.

Run by `setup.py` when it builds and imported by `mnist_trainer.model.native` when it loads; the standard library only.
"""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
COMPILED = ("kernels.cc", "operator.cc", "update.cc", "update_operator.cc")
INCLUDED = ("kernels.h", "stage.h", "update.h")
MARKER = b"mnist_trainer native sources "  # as in operator.cc, and at the end of the file
NOT_BUILT = "not_built.txt"  # beside the place of the library: why the build has left none

# They follow the user's CFLAGS and the like, so that the last ones win: no flag of the user may let the compiler assume that
# there are no NaNs, add in another order, hide the functions that MXNet calls, or link code that rounds denormals to zero.
# Fused multiply-adds (-ffp-contract=fast) are allowed even if the user's flags forbid them; update.cc forbids them for itself.
FLAGS = (
    *("-std=c++11", "-O3", "-g0", "-fPIC", "-shared", "-fopenmp", "-fvisibility=default"),
    *("-ffp-contract=fast", "-fno-fast-math", "-fno-unsafe-math-optimizations"),
)


def fingerprint() -> str:
    """Return the SHA-256 of all sources and of the compiler's flags."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in sorted(COMPILED + INCLUDED):
        digest.update((FOLDER / name).read_bytes())
    return digest.hexdigest()


def ending() -> bytes:
    """Return the bytes that the build appends to the library: they prove that it is whole and of these sources."""
    return MARKER + fingerprint().encode("ascii")
