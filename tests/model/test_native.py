"""The fused operator computes the same as MXNet's operators, with any number of threads, and refuses invalid arguments."""

import itertools
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command_line import assert_names
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import LIMIT_SECONDS, REPOSITORY, run_python
from requirements import needs_compiler, needs_fused

from mnist_trainer.errors import RequestError
from mnist_trainer.model import native
from mnist_trainer.model.native.build import SOURCES, fingerprint
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.runtime.hardware import processor_flags

if TYPE_CHECKING:  # conftest would set one thread in the processes that import this module
    from conftest import Snapshot

pytestmark = needs_fused

mx = import_mxnet()
HybridBlock: Any = mx.gluon.HybridBlock

# Batch, channels, height, width, outputs of the two stages of the tutorial's network.
FIRST = (64, 1, 28, 28, 10)
SECOND = (64, 10, 12, 12, 20)

# For float32 sums of the same terms in another order. Errors are relative to the sum of the terms' absolute values, because the
# error of an element depends on the size of its terms, even if the element is small. (One term of the largest sum here is 7e-6
# of it.)
TOLERANCE = 2e-6

Shape = tuple[int, int, int, int, int]
Stage = Callable[[Any, Any, Any], Any]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    native.load()


def fused(images: Any, weight: Any, bias: Any) -> Any:
    return native.conv_pool_relu(mx.nd, images, weight, bias)


def stock(images: Any, weight: Any, bias: Any) -> Any:
    convolved = mx.nd.Convolution(images, weight, bias, kernel=(5, 5), num_filter=weight.shape[0])
    return mx.nd.relu(mx.nd.Pooling(convolved, kernel=(2, 2), stride=(2, 2), pool_type="max"))


def draw_integers(shape: Shape, seed: int = 0, most: int = 1) -> list[Any]:
    """Draw images, weight, bias and the gradient of the output as small integers: sums are exact, and many maxima are equal."""
    batch, channels, height, width, outputs = shape
    random = np.random.RandomState(seed)
    sizes = [(batch, channels, height, width), (outputs, channels, 5, 5), (outputs,)]
    sizes.append((batch, outputs, (height - 4) // 2, (width - 4) // 2))
    return [random.randint(-most, most + 1, size).astype("float32") for size in sizes]


def draw_floats(shape: Shape, seed: int = 0) -> list[Any]:
    """Draw the arrays as floats. All but the gradient have few bits: convolutions are exact, and both sides find equal maxima.

    Images are not negative. With a gradient that is not negative either, the terms of a sum do not cancel.
    """
    images, weight, bias, gradient = draw_integers(shape, seed, most=63)
    return [np.abs(images) / 64, weight / 64, bias / 64, np.random.RandomState(seed).randn(*gradient.shape).astype("float32")]


def outputs_and_gradients(stage: Stage, images: Any, weight: Any, bias: Any, gradient: Any) -> list[Any]:
    arrays = [mx.nd.array(array) for array in (images, weight, bias)]
    for array in arrays:
        array.attach_grad()
    with mx.autograd.record():
        pooled = stage(*arrays)
    pooled.backward(mx.nd.array(gradient))
    return [pooled.asnumpy(), *(array.grad.asnumpy() for array in arrays)]


def assert_close(got: list[Any], drawn: list[Any], expected: list[Any] | None = None) -> None:
    """Compare with MXNet's own operators, or with `expected`, for the same drawn arrays."""
    images, weight, bias, gradient = drawn
    others = expected or outputs_and_gradients(stock, *drawn)
    without_cancelling = outputs_and_gradients(stock, images, weight, bias, np.abs(gradient))
    # The gradient of an image has few terms; its largest element is as large as they are.
    measures = [others[0], others[1], *without_cancelling[2:]]
    for name, one, other, measure in zip(("pooled", "images", "weight", "bias"), got, others, measures, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= TOLERANCE * np.abs(measure).max(), name


shapes = st.tuples(
    st.integers(1, 5), st.integers(1, 13), st.sampled_from([6, 8, 14]), st.sampled_from([6, 10, 12]), st.integers(1, 40)
)


@given(shape=shapes, seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, database=None)
def test_random_shapes(shape: Shape, seed: int) -> None:
    drawn = draw_floats(shape, seed)
    assert_close(outputs_and_gradients(fused, *drawn), drawn)


@pytest.mark.parametrize("batch", [1, 32, 63, 64, 1000])
@pytest.mark.parametrize("shape", [FIRST, SECOND], ids=["first stage", "second stage"])
def test_batches(shape: Shape, batch: int) -> None:
    drawn = draw_floats((batch, *shape[1:]))
    assert_close(outputs_and_gradients(fused, *drawn), drawn)


@pytest.mark.parametrize("shape", [FIRST, SECOND], ids=["first stage", "second stage"])
def test_the_rounding_of_convolutions(shape: Shape) -> None:
    # The two sides may choose different ones of two nearly equal maxima, so only the outputs can be compared.
    random = np.random.RandomState(0)
    drawn = [random.randn(*array.shape).astype("float32") for array in draw_integers(shape)]
    got, expected = (outputs_and_gradients(stage, *drawn)[0] for stage in (fused, stock))
    assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("shape", [FIRST, SECOND, (3, 2, 8, 10, 5)], ids=["first stage", "second stage", "small"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_maxima_and_zeros_are_treated_as_in_mxnet(shape: Shape, seed: int) -> None:
    drawn = draw_integers(shape, seed)
    got, expected = (outputs_and_gradients(stage, *drawn) for stage in (fused, stock))
    for one, other in zip(got, expected, strict=True):
        assert (one == other).all()
    if shape != SECOND:  # its sums of 250 terms are seldom equal
        convolved = mx.nd.Convolution(*map(mx.nd.array, drawn[:3]), kernel=(5, 5), num_filter=shape[4]).asnumpy()
        assert (convolved[:, :, 0::2, 0::2] == convolved[:, :, 0::2, 1::2]).mean() > 0.02
        assert (convolved == 0).mean() > 0.02


def test_the_first_of_four_equal_maxima_gets_the_gradient() -> None:
    images, weight, bias = np.ones((1, 1, 6, 6)), np.zeros((1, 1, 5, 5)), np.ones(1)
    weight[0, 0, 0, 0] = 1
    gradient = outputs_and_gradients(fused, images, weight, bias, np.ones((1, 1, 1, 1)))[1]
    assert gradient[0, 0, 0, 0] == 1
    assert gradient.sum() == 1


def test_a_pooled_value_of_zero_has_no_gradient() -> None:
    images, weight, bias = np.ones((1, 1, 6, 6)), np.zeros((1, 1, 5, 5)), np.zeros(1)
    for array in outputs_and_gradients(fused, images, weight, bias, np.ones((1, 1, 1, 1))):
        assert not array.any()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["images", "weight", "bias"])
def test_numbers_that_are_not_finite_reach_the_output(special: float, where: str) -> None:
    drawn = draw_floats((2, 2, 12, 12, 10))[:3]
    drawn[0][drawn[0] == 0] = drawn[1][drawn[1] == 0] = 1 / 64  # infinity times zero would be NaN
    array = drawn[["images", "weight", "bias"].index(where)]
    array.reshape(-1)[len(array.reshape(-1)) // 2] = special
    arrays = [mx.nd.array(operand) for operand in drawn]
    convolved = mx.nd.Convolution(*arrays, kernel=(5, 5), num_filter=10).asnumpy()
    pooled = convolved.reshape(2, 10, 4, 2, 4, 2).max(axis=(3, 5))  # NaN if any of the four is
    expected = np.where(pooled <= 0, 0, pooled)
    got = fused(*arrays).asnumpy()
    assert (np.isnan(got) == np.isnan(expected)).all()
    assert (np.isinf(got) == np.isinf(expected)).all()
    if special != -np.inf or where == "images":  # otherwise it is below all others, and ReLU sets it to zero
        assert not np.isfinite(got).all()


@pytest.mark.parametrize("position", [(0, 0), (0, 5), (5, 0), (5, 5)])
def test_a_nan_in_one_of_four_is_not_lost(position: tuple[int, int]) -> None:
    # Each corner of a 6x6 image belongs to only one of the four positions.
    images = mx.nd.ones((1, 1, 6, 6))
    images[0, 0, position[0], position[1]] = np.nan
    assert np.isnan(fused(images, mx.nd.ones((3, 1, 5, 5)), mx.nd.zeros(3)).asnumpy()).all()


class TwoStages(HybridBlock):  # type: ignore[misc]
    """Both stages in sequence, with the fused operator or with MXNet's own operators."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        with self.name_scope():
            for stage, outputs in (("first", 10), ("second", 20)):
                weight = self.params.get(f"{stage}_weight", shape=(outputs, 0, 5, 5), allow_deferred_init=True)
                setattr(self, f"{stage}_weight", weight)
                setattr(self, f"{stage}_bias", self.params.get(f"{stage}_bias", shape=(outputs,), init="zeros"))

    def hybrid_forward(self, F: Any, images: Any, **parameters: Any) -> Any:  # noqa: N803 - MXNet's name
        for stage, outputs in (("first", 10), ("second", 20)):
            weight, bias = parameters[f"{stage}_weight"], parameters[f"{stage}_bias"]
            if self.fused:
                images = native.conv_pool_relu(F, images, weight, bias, images_gradient=stage != "first")
            else:
                images = F.Convolution(images, weight, bias, kernel=(5, 5), num_filter=outputs)
                images = F.relu(F.Pooling(images, kernel=(2, 2), stride=(2, 2), pool_type="max"))
        return images


def test_hybridized_static_blocks_of_changing_batch_size() -> None:
    # Images and weights have few bits, so even the sums of the second stage are exact, and both sides find the same maxima.
    random = np.random.RandomState(0)
    shapes = [(10, 1, 5, 5), (10,), (20, 10, 5, 5), (20,)]
    drawn = [mx.nd.array(random.randint(-7, 8, shape) / 16) for shape in shapes]
    blocks = [TwoStages(fused=True), TwoStages(fused=False)]
    for block in blocks:
        block.initialize()
        block.hybridize(static_alloc=True, static_shape=True)
        block(mx.nd.zeros((2, 1, 28, 28)))  # the parameters get their shapes
        assert [param.shape for param in block.collect_params().values()] == shapes
        for parameter, array in zip(block.collect_params().values(), drawn, strict=True):
            parameter.set_data(array)
    for batch in (64, 64, 32, 1, 64, 63, 32):
        images = mx.nd.array(random.randint(0, 4, (batch, 1, 28, 28)) / 4)
        gradients = []
        for block in blocks:
            with mx.autograd.record():
                pooled = block(images)
                total = (pooled * pooled).sum()
            total.backward()
            gradients.append([pooled.asnumpy(), *(param.grad().asnumpy() for param in block.collect_params().values())])
        assert (gradients[0][0] == gradients[1][0]).all()
        for one, other in zip(*gradients, strict=True):
            # The terms of these sums cancel, so the tolerance is wider. It is a tenth of one of the 9,216 terms of a bias.
            assert np.abs(one - other).max() <= 5 * TOLERANCE * np.abs(other).max()


def test_the_gradient_of_images_can_be_left_out() -> None:
    *arrays, gradient = (mx.nd.array(array) for array in draw_floats((3, 2, 8, 8, 4)))
    for array in arrays:
        array.attach_grad()
    weights = []
    for wanted in (True, False):
        with mx.autograd.record():
            pooled = native.conv_pool_relu(mx.nd, *arrays, images_gradient=wanted)
        pooled.backward(gradient)
        assert arrays[0].grad.asnumpy().any() == wanted
        weights.append([array.grad.asnumpy().tobytes() for array in arrays[1:]])
    assert weights[0] == weights[1]


IN_PROCESSES = [(batch, *shape[1:]) for shape in (FIRST, SECOND) for batch in (3, 63, 100)]


Results = dict[str, list[Any]]


def save_results(folder: str) -> None:
    """Save outputs and gradients of both stages and three batch sizes, twice, in a fork for each of the kernels."""
    for name in kernels_here():
        child = os.fork()  # because the variable is read once, when the library is loaded
        if child == 0:
            os.environ[native.VARIABLE] = name
            native.load()
            assert native.kernels() == name
            drawn = [draw_floats(shape) for shape in 2 * IN_PROCESSES]
            np.savez(
                f"{folder}/{name}.npz", *(array for operands in drawn for array in outputs_and_gradients(fused, *operands))
            )
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Results]:
    """Return the results of processes with one, two and three threads: threads → kernels → arrays."""
    found: dict[int, Results] = {}
    for threads in (1, 2, 3):
        folder = tmp_path_factory.mktemp("results")
        paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)])
        code = f"import test_native; test_native.save_results({str(folder)!r})"
        done = run_python("-c", code, PYTHONPATH=paths, OMP_NUM_THREADS=str(threads))
        assert done.returncode == 0, done.stderr
        found[threads] = {}
        for name in kernels_here():
            with np.load(folder / f"{name}.npz") as file:
                found[threads][name] = [file[key] for key in file.files]
    return found


def kernels_here() -> list[str]:
    """Return the kernels that this processor can run."""
    return [name for name, needed in native.KERNELS.items() if needed <= processor_flags()]


@pytest.mark.process
@pytest.mark.slow
def test_the_number_of_threads_and_the_run_change_no_bit(results: dict[int, Results]) -> None:
    for name in kernels_here():
        one, *others = (arrays for result in results.values() for arrays in halves(result[name]))
        for other in others:
            assert [array.tobytes() for array in other] == [array.tobytes() for array in one]


def halves(arrays: list[Any]) -> tuple[list[Any], list[Any]]:
    return arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]


@pytest.mark.process
@pytest.mark.slow
def test_the_kernels_for_each_processor_agree(results: dict[int, Results]) -> None:
    of_kernels = [halves(arrays)[0] for arrays in results[2].values()]
    assert len(of_kernels) >= 2
    for i, shape in enumerate(IN_PROCESSES):
        for other in of_kernels[1:]:
            assert_close(of_kernels[0][4 * i : 4 * i + 4], draw_floats(shape), expected=other[4 * i : 4 * i + 4])
    for one, other in itertools.combinations(of_kernels, 2):  # they are not the same kernels with different names
        assert any(mine.tobytes() != theirs.tobytes() for mine, theirs in zip(one, other, strict=True))


def test_the_library_reports_its_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in ("", *kernels_here()):
        monkeypatch.setenv(native.VARIABLE, wanted)
        assert native.kernels() == (wanted or kernels_here()[-1])
    monkeypatch.setenv(native.VARIABLE, "fast")
    assert native.kernels() == ""


def test_loading_the_library_preserves_denormals() -> None:
    assert (np.full(16, 1e-40, "float32") * np.float32(1)).all()


def test_the_library_reports_its_sources_and_compiler() -> None:
    assert re.fullmatch(r"GCC \d+\.\d+\.\d+(, flags .*)?", native.compiler())
    assert native.built_from() == f"{fingerprint()} compiler {native.compiler()}"


def zeros_of(images: Any, weight: Any, bias: Any, dtypes: tuple[str, str, str] = ("float32",) * 3) -> list[Any]:
    return [mx.nd.zeros(shape, dtype=dtype) for shape, dtype in zip((images, weight, bias), dtypes, strict=True)]


GOOD = ((2, 1, 28, 28), (3, 1, 5, 5), (3,))
Words = tuple[str, ...]


def refused(of: Callable[[], Any]) -> str:
    """Return the operator's message. MXNet repeats the messages of earlier errors before the last one."""
    with pytest.raises(mx.MXNetError) as caught:
        of()
    prefix, name, message = str(caught.value).strip().splitlines()[-1].partition(native.OPERATOR)
    assert name, prefix
    return name + message


REFUSED_SHAPES: dict[Any, Words] = {
    ((2, 1, 28), *GOOD[1:]): ("images", "(2, 1, 28)"),
    ((2, 1, 27, 28), *GOOD[1:]): ("images", "even height and width", "6", "(2, 1, 27, 28)"),
    ((2, 1, 28, 9), *GOOD[1:]): ("images", "even height and width", "6", "(2, 1, 28, 9)"),
    ((2, 1, 4, 28), *GOOD[1:]): ("images", "even height and width", "6", "(2, 1, 4, 28)"),
    (GOOD[0], (3, 1, 3, 3), (3,)): ("weight", "1, 5, 5)", "(2, 1, 28, 28)", "(3, 1, 3, 3)"),
    (GOOD[0], (3, 2, 5, 5), (3,)): ("weight", "1, 5, 5)", "(2, 1, 28, 28)", "(3, 2, 5, 5)"),
    (GOOD[0], (3, 25), (3,)): ("weight", "1, 5, 5)", "(2, 1, 28, 28)", "(3, 25)"),
    (*GOOD[:2], (4,)): ("bias", "(3,)", "(3, 1, 5, 5)", "(4,)"),
    (*GOOD[:2], (3, 1)): ("bias", "(3,)", "(3, 1, 5, 5)", "(3, 1)"),
}


@pytest.mark.parametrize("shapes", REFUSED_SHAPES, ids=str)
def test_unsupported_shapes_are_refused(shapes: Any, snapshot: "Snapshot") -> None:
    name, *words = REFUSED_SHAPES[shapes]
    message = refused(lambda: fused(*zeros_of(*shapes)))
    assert_names(message, f"{native.OPERATOR}: {name} ", *words)
    snapshot(message)


@pytest.mark.parametrize("name", ["images", "weight", "bias"])
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_unsupported_types_are_refused(name: str, dtype: str) -> None:
    dtypes: Any = tuple(dtype if operand == name else "float32" for operand in ("images", "weight", "bias"))
    message = refused(lambda: fused(*zeros_of(*GOOD, dtypes=dtypes)))
    assert_names(message, f"{native.OPERATOR}: {name} ", "float32")


def test_an_empty_batch_is_refused() -> None:
    with mx.util.np_shape(True):
        message = refused(lambda: fused(*zeros_of((0, 1, 28, 28), *GOOD[1:])).wait_to_read())
    assert_names(message, f"{native.OPERATOR}: images ", "(0, 1, 28, 28)")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"images_gradient": "maybe"}, ("True or False", "maybe")),
        ({"image_gradient": True}, ("images_gradient", "image_gradient")),
    ],
    ids=["a value", "a name"],
)
def test_unsupported_attributes_are_refused(attributes: dict[str, Any], words: Words, snapshot: "Snapshot") -> None:
    message = refused(lambda: getattr(mx.nd, native.OPERATOR)(*zeros_of(*GOOD), **attributes))
    assert_names(message, f"{native.OPERATOR}: ", "images_gradient", *words)
    snapshot(message)


def test_accumulated_gradients_are_refused() -> None:
    block = TwoStages(fused=True)
    native.refuse_added_gradients(block.collect_params().values())
    block.second_weight.grad_req = "add"
    with pytest.raises(RequestError, match=r'second_weight: .*grad_req="add".*grad_req="write".*stock'):
        native.refuse_added_gradients(block.collect_params().values())


def test_other_devices_are_refused() -> None:
    native.refuse_other_devices([mx.cpu(), mx.cpu(1)])
    with pytest.raises(RequestError, match=r"^gpu\(0\): .*CPU.*stock"):
        native.refuse_other_devices([mx.cpu(), mx.gpu(0)])


@pytest.mark.process
def test_checking_for_a_problem_loads_neither_mxnet_nor_the_library() -> None:
    code = (
        "import sys; from mnist_trainer.model import native; assert native.problem() is None;"
        "assert 'mxnet' not in sys.modules;"
        "maps = open('/proc/self/maps').read(); assert 'mnist-trainer' not in maps and 'libgomp' not in maps"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def test_loading_twice_is_loading_once(capfd: pytest.CaptureFixture[str]) -> None:
    native.load()
    native.load()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "flags", "words"),
    [
        ("", "sse2", ("AVX2 and FMA", "MNIST_TRAINER_NATIVE=portable")),
        ("avx2", "sse2 avx2", ("AVX2 and FMA", "MNIST_TRAINER_NATIVE=portable")),
        ("avx512", "avx2 fma avx512f", ("MNIST_TRAINER_NATIVE=avx512", "avx2, avx512bw, avx512dq, avx512f", "unset")),
        ("fast", "avx2 fma", ("MNIST_TRAINER_NATIVE", "'fast'", "portable, avx2, avx512")),
    ],
    ids=["no variable", "no FMA", "AVX-512 in part", "unknown kernels"],
)
def test_an_unsuitable_processor_or_variable(
    value: str, flags: str, words: Words, monkeypatch: pytest.MonkeyPatch, snapshot: "Snapshot"
) -> None:
    monkeypatch.setenv(native.VARIABLE, value)
    monkeypatch.setattr(native, "processor_flags", lambda: set(flags.split()))
    found = native.problem()
    assert found is not None
    assert_names(found, words[0] if value in ("avx512", "fast") else "", *words)
    snapshot(found)


@pytest.mark.parametrize(
    ("value", "flags"), [("portable", "sse2"), ("avx512", "avx2 fma avx512f avx512bw avx512dq avx512vl"), ("", "avx2 fma")]
)
def test_a_suitable_processor(value: str, flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, value)
    monkeypatch.setattr(native, "processor_flags", lambda: set(flags.split()))
    assert native.problem() is None


def test_another_kind_of_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "platform", SimpleNamespace(machine=lambda: "aarch64"))
    assert_names(str(native.problem()), "", "fused operator", "x86-64", "AVX2", "aarch64")


@pytest.mark.process
@pytest.mark.slow
@needs_compiler
def test_the_kernels_run_under_the_sanitizers(tmp_path: Path) -> None:
    sources = [REPOSITORY / "tests" / "native_driver.cc", SOURCES / "kernels.cc", SOURCES / "update.cc"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    command = ["g++", "-std=c++11", "-O1", "-fopenmp", "-ffp-contract=fast", "-Wall", "-Wextra", "-Werror", *sanitizers]
    built = [*command, f"-I{SOURCES}", *map(str, sources), "-o", str(tmp_path / "driver")]
    subprocess.run(built, check=True, timeout=LIMIT_SECONDS)
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [tmp_path / "driver"], env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{144 * len(kernels_here()) + 8} runs\n"), done.stderr
