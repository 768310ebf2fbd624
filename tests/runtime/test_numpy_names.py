"""numpy's removed names: they are given back before MXNet is imported, and MXNet then uses each of them correctly."""

import ast
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import run_python

import mnist_trainer
from mnist_trainer.runtime import import_mxnet, numpy_names
from mnist_trainer.runtime.numpy_names import restore_numpy_names

mx = import_mxnet()

_HAS_NUMPY_2 = np.lib.NumpyVersion(np.__version__) >= "2.0.0"


def given_back(name: str) -> Any:
    return vars(np)[name]


def test_every_name_is_there() -> None:
    assert set(numpy_names._REMOVED) <= set(vars(np))


def test_names_that_numpy_has_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = object()
    monkeypatch.setattr(np, "product", theirs)
    monkeypatch.delattr(np, "msort")
    restore_numpy_names()
    assert given_back("product") is theirs
    assert "msort" in vars(np)


@pytest.mark.process
def test_a_type_that_numpy_2_has_is_not_replaced() -> None:
    code = (
        "import numpy; before = vars(numpy).get('bool', bool); from mnist_trainer.runtime import import_mxnet; import_mxnet();"
        "assert vars(numpy)['bool'] is before; assert (numpy.int, numpy.float, numpy.object) == (int, float, object)"
    )
    done = run_python("-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr


def test_values() -> None:
    assert given_back("PINF") == given_back("Inf") == math.inf
    assert given_back("NINF") == -math.inf
    assert math.isnan(given_back("NAN"))
    assert math.isnan(given_back("NaN"))
    assert [math.copysign(1, given_back(name)) for name in ("PZERO", "NZERO")] == [1, -1]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        pytest.param("alltrue", ([1, 0],), False, id="alltrue"),
        pytest.param("sometrue", ([1, 0],), True, id="sometrue"),
        pytest.param("product", ([2, 3],), 6, id="product"),
        pytest.param("round_", (2.567, 1), 2.6, id="round_"),
        pytest.param("trapz", ([1, 2, 4],), 4.5, id="trapz"),
        pytest.param("msort", ([[3, 1], [2, 4]],), [[2, 1], [3, 4]], id="msort"),
        pytest.param("in1d", ([[1, 2], [3, 4]], [2, 3]), [False, True, True, False], id="in1d"),
    ],
)
def test_functions(name: str, arguments: tuple[Any, ...], expected: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # in numpy 1.25 and 1.26, which still have them
        assert np.array_equal(given_back(name)(*arguments), expected)


@pytest.mark.parametrize("name", ["mirr", "npv", "pmt", "ppmt", "pv", "rate"])
def test_financial_functions_raise_an_error(name: str) -> None:
    with pytest.raises(RuntimeError, match="financial"):
        given_back(name)(1, 2)


@pytest.mark.parametrize(
    ("name", "original"), [("sometrue", np.any), ("product", np.prod), ("round_", np.round), ("alltrue", np.all)]
)
def test_numpys_functions_still_dispatch_to_mxnet(name: str, original: Any) -> None:
    # MXNet's table has numpy's functions as keys, so the old name must not be the same function as the new one.
    arrays = mx.np.array([1.0, 0.0])
    assert type(original(arrays)) is mx.np.ndarray
    if name != "alltrue":
        assert given_back(name) is not original
    assert np.mean(arrays).item() == 0.5
    assert type(np.mean(arrays)) is mx.np.ndarray


def test_take_of_a_symbol_needs_compat() -> None:
    symbol = mx.sym.var("a").as_np_ndarray().take(mx.sym.var("b").as_np_ndarray(), mode="clip")
    assert symbol.list_arguments() == ["a", "b"]


# --- what differs with numpy 2, as docs/mxnet-1.9.1.md states


def test_a_scalar_plus_a_number_is_float32_only_with_numpy_2() -> None:
    scalar = mx.nd.ones(1).asscalar()
    assert type(scalar) is np.float32
    assert type(scalar + 1.0) is (np.float32 if _HAS_NUMPY_2 else np.float64)
    metric = mx.metric.Loss()
    metric.update(None, [mx.nd.ones(1)])
    assert type(metric.sum_metric) is (np.float32 if _HAS_NUMPY_2 else np.float64)


def test_a_numpy_scalar_in_a_tuple_is_an_error_only_with_numpy_2() -> None:
    shape = (np.int64(3), 2)
    if _HAS_NUMPY_2:
        with pytest.raises(mx.MXNetError):
            mx.nd.zeros(shape).wait_to_read()
    else:
        assert mx.nd.zeros(shape).shape == (3, 2)


def test_the_program_does_not_use_mxnets_metrics() -> None:
    # All tests run with numpy 2 in CI, where a numpy scalar in a tuple would be an error. A metric would only be less exact.
    used = [
        path
        for path in Path(mnist_trainer.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("mx.metric", "mxnet.metric")
    ]
    assert used == []
