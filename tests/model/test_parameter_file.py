"""Parameter files: read as MXNet reads them, and refused before MXNet sees a wrong header."""

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_trainer.model.network import build_cnn, initialize
from mnist_trainer.model.parameter_file import ParameterFileError, read_parameters
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

SHAPES = {
    "0.weight": (10, 1, 5, 5),
    "0.bias": (10,),
    "2.weight": (20, 10, 5, 5),
    "2.bias": (20,),
    "5.weight": (512, 320),
    "5.bias": (512,),
    "6.weight": (10, 512),
    "6.bias": (10,),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parameters") / "model.params"
    network = build_cnn()
    initialize(network)
    network.save_parameters(str(path))
    return path


def test_the_arrays_are_those_that_mxnet_reads(path: Path) -> None:
    arrays, expected = read_parameters(path.read_bytes(), SHAPES), mx.nd.load(str(path))
    assert list(arrays) == list(expected) == list(SHAPES)
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name].asnumpy(), name)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floating_point_types_are_read(dtype: str, tmp_path: Path) -> None:
    given = mx.nd.array([[1, 2.5, -3]], dtype=dtype)
    mx.nd.save(str(tmp_path / "x.params"), {"x": given})
    array = read_parameters((tmp_path / "x.params").read_bytes(), {"x": (1, 3)})["x"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, given.asnumpy())


def _put(layout: str, place: int, *numbers: int) -> Callable[[bytes], bytes]:
    def put(content: bytes) -> bytes:
        changed = bytearray(content)
        struct.pack_into(layout, changed, place, *numbers)
        return bytes(changed)

    return put


# Places in the file: 0 magic, 8 reserved, 16 count. Those of the first array: 24 magic, 28 storage, 32 dimensions, 36 shape,
# 68 device, 76 type, 80 data.
WRONG: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "of another format": lambda content: b"\x89PNG" + content[4:],
    "no arrays": _put("<Q", 16, 0),
    "2⁶⁴ − 1 arrays": _put("<Q", 16, 2**64 - 1),
    "an array of an old version": _put("<I", 24, 0xF993FAC8),
    "a sparse array": _put("<i", 28, 1),
    "no dimensions": _put("<i", 32, 0),
    "−1 dimensions": _put("<i", 32, -1),
    "2³¹ − 1 dimensions": _put("<i", 32, 2**31 - 1),
    "a dimension of −1": _put("<q", 36, -1),
    "a dimension of 0": _put("<q", 36, 0),
    "a dimension of 2⁶³ − 1": _put("<q", 36, 2**63 - 1),
    "two dimensions whose product is that of the shape": _put("<qq", 36, 1, 10),
    "another type": _put("<i", 76, 4),
    "a type that does not exist": _put("<i", 76, 99),
    "a longer name": lambda content: content.replace(
        struct.pack("<Q", 8) + b"0.weight", struct.pack("<Q", 2**40) + b"0.weight"
    ),
    "another name": lambda content: content.replace(b"0.weight", b"1.weight"),
    "a name twice": lambda content: content.replace(b"2.weight", b"0.weight"),
    "bytes after the end": lambda content: content + b"\0",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_refused(what: str, path: Path) -> None:
    content = path.read_bytes()
    assert WRONG[what](content) != content
    with pytest.raises(ParameterFileError):
        read_parameters(WRONG[what](content), SHAPES)


@pytest.mark.parametrize("expected", [{}, SHAPES | {"7.bias": (1,)}, SHAPES | {"0.bias": (11,)}])
def test_parameters_of_another_network_are_refused(expected: dict[str, Any], path: Path) -> None:
    with pytest.raises(ParameterFileError, match="network"):
        read_parameters(path.read_bytes(), expected)


def test_any_bytes_are_read_or_refused(path: Path) -> None:
    content = path.read_bytes()
    chance = random.Random(7)
    for length in (*range(130), *(chance.randrange(len(content)) for _ in range(100))):
        with pytest.raises(ParameterFileError):
            read_parameters(content[:length], SHAPES)
    refused = 0
    for _ in range(2000):
        changed = bytearray(content)
        changed[chance.randrange(130)] = chance.randrange(256)
        try:
            read_parameters(bytes(changed), SHAPES)
        except ParameterFileError:
            refused += 1
    assert refused > 500  # the others change the data or the device
