"""Reads a file that `save_parameters` of a Gluon Block has written, and checks every number in its headers first.

MXNet's own reader ends the process if a header is wrong, for example if a dimension is negative. Needs numpy but not MXNet.
"""

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_LIST_MAGIC = 0x112
_ARRAY_MAGIC = 0xF993FAC9  # of dense and sparse arrays; those of MXNet before 1.0 have other headers
_DENSE = 0
_TYPES = {0: "<f4", 1: "<f8", 2: "<f2"}

_MAX_DIMENSIONS = 32
_MAX_NAME_BYTES = 1024

_MAX_BYTES = 2**20  # of the tutorial's network, whose parameters have 0.7 MB
_MAX_BYTES_OF_USERS_NETWORK = 2**30

Arrays = dict[str, npt.NDArray[Any]]


class ParameterFileError(ValueError):
    """The file does not hold the expected parameters; the message has the reason."""


def max_file_bytes(has_own_shapes: bool) -> int:
    """Return the maximum size of a file: that of a user's own network, or of the tutorial's."""
    return _MAX_BYTES_OF_USERS_NETWORK if has_own_shapes else _MAX_BYTES


def read_parameters(content: bytes, expected: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Read the parameters of a network.

    Args:
        content: The content of the file.
        expected: Name → shape of each parameter.

    Returns:
        Name → array, in the order of the file.

    Raises:
        ParameterFileError: The file has another format, is incomplete, or has other names or shapes.
    """
    reader = _Reader(content)
    magic, reserved, count = reader.numbers("<QQQ")
    if (magic, reserved) != (_LIST_MAGIC, 0):
        raise ParameterFileError("it is not a parameter file of MXNet")
    if count != len(expected):
        raise ParameterFileError(f"it has {count} arrays, but the network has {len(expected)} parameters")
    arrays = [reader.array() for _ in range(count)]
    [names_count] = reader.numbers("<Q")
    if names_count != count:
        raise ParameterFileError(f"it has {names_count} names for {count} arrays")
    found = {reader.name(): array for array in arrays}
    if reader.left:
        raise ParameterFileError("it does not end after the last name")
    if found.keys() != expected.keys():
        raise ParameterFileError("its arrays have other names than the parameters of the network")
    for name, array in found.items():
        if array.shape != expected[name]:
            raise ParameterFileError(f"{name} has the shape {array.shape}, but the network has {expected[name]}")
    return found


class _Reader:
    """Takes numbers, arrays and names from the beginning of a file."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)

    @property
    def left(self) -> int:
        return len(self._content)

    def take(self, length: int) -> memoryview:
        if length > self.left:
            raise ParameterFileError("it is incomplete")
        taken, self._content = self._content[:length], self._content[length:]
        return taken

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def array(self) -> npt.NDArray[Any]:
        magic, storage, dimensions = self.numbers("<Iii")
        if magic != _ARRAY_MAGIC or storage != _DENSE or not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise ParameterFileError("it has an array that is not dense, or that another version of MXNet has written")
        shape = self.numbers(f"<{dimensions}q")
        _, _, kind = self.numbers("<iii")  # the first two are the device
        if kind not in _TYPES or min(shape) < 1:
            raise ParameterFileError(f"it has an array of shape {shape} and type {kind}")
        dtype = np.dtype(_TYPES[kind])
        return np.frombuffer(self.take(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)

    def name(self) -> str:
        [length] = self.numbers("<Q")
        if length > _MAX_NAME_BYTES:
            raise ParameterFileError("it has a name that is too long")
        return bytes(self.take(length)).decode("utf-8", "replace")
