"""Gives numpy the names that MXNet 1.9.1 uses and that numpy has removed since.

A name that this numpy still has is kept. numpy 1.24 removed `int` and `float`, for example, and numpy 2.0 removed `PINF`; numpy
2 has a `bool` of its own.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy


def restore_numpy_names() -> None:
    """Add the missing names to numpy. MXNet reads all but `compat` when it is imported."""
    for name, value in _REMOVED.items():
        if name not in vars(numpy):  # `hasattr` would print the warnings of deprecated names
            setattr(numpy, name, value)


def _copied(function: Callable[..., Any]) -> Callable[..., Any]:
    # MXNet's table of numpy's functions has both `any` and `sometrue`, so they must be two objects.
    @functools.wraps(function)
    def copy(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return copy


def _in1d(ar1: Any, ar2: Any, *args: Any, **kwargs: Any) -> Any:
    return numpy.isin(numpy.ravel(ar1), ar2, *args, **kwargs)


def _msort(a: Any) -> Any:
    return numpy.sort(a, axis=0)


def _moved(*_args: Any, **_kwargs: Any) -> Any:
    raise RuntimeError("numpy has no financial functions since 1.20; install numpy-financial")


_REMOVED: dict[str, Any] = {
    # Removed in numpy 1.20. Until 2.0, numpy had functions of these names that raised an error.
    **dict.fromkeys(("mirr", "npv", "pmt", "ppmt", "pv", "rate"), _moved),
    # Removed in 1.24.
    "bool": bool,
    "int": int,
    "float": float,
    "object": object,
    # Removed in 2.0 or later.
    "PZERO": 0.0,
    "NZERO": -0.0,
    "PINF": numpy.inf,
    "NINF": -numpy.inf,
    "Inf": numpy.inf,
    "NAN": numpy.nan,
    "NaN": numpy.nan,
    "alltrue": numpy.all,
    "in1d": _in1d,
    "msort": _msort,
    "trapz": getattr(numpy, "trapezoid", None),  # the new name, since 2.0
    "sometrue": _copied(numpy.any),
    "product": _copied(numpy.prod),
    "round_": _copied(numpy.round),
    "compat": SimpleNamespace(basestring=str),  # mx.sym.np.take reads it
}
