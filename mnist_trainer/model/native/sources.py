"""The source files of the library, and the fingerprint that a built library contains.

Standard library only: `setup.py` runs this module to build the library, and `mnist_trainer.model.native` imports it to load the
library.
"""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
COMPILED = ("kernels.cc", "operator.cc", "update.cc", "update_operator.cc")
INCLUDED = ("kernels.h", "stage.h", "update.h")
MARKER = b"mnist_trainer native sources "  # as in operator.cc, and at the end of the file
NOT_BUILT = "not_built.txt"  # in the folder of the library if the build failed; contains the reason

# These flags follow the user's flags, such as CFLAGS, and override them. The compiler must not assume that there are no NaNs,
# add in another order, hide the functions that MXNet calls, or link code that rounds denormals to zero. Fused multiply-adds
# (-ffp-contract=fast) are allowed even if the user's flags forbid them; update.cc forbids them for itself.
FLAGS = (
    *("-std=c++11", "-O3", "-g0", "-fPIC", "-shared", "-fopenmp", "-fvisibility=default"),
    *("-ffp-contract=fast", "-fno-fast-math", "-fno-unsafe-math-optimizations"),
)


def fingerprint() -> str:
    """Return the SHA-256 of all sources and compiler flags."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in sorted(COMPILED + INCLUDED):
        digest.update((FOLDER / name).read_bytes())
    return digest.hexdigest()


def ending() -> bytes:
    """Return the bytes that the build appends to the library. They show that it is complete and built from these sources."""
    return MARKER + fingerprint().encode("ascii")
