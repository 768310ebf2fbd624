"""The backends compute the same network: its function, its parameters and its runs; and requests that are refused.

`test_native` tests the fused operator alone, with other shapes and numbers of threads.
"""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names, content, refused
from conftest import Program, Snapshot
from requirements import needs_fused
from small_runs import ITERATIONS_PER_EPOCH, SMALL, assert_same_run, changed, resume_run, spare_time, train

from mnist_trainer import cli
from mnist_trainer.comparison import session
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.schema import ModelConfig, RunConfig
from mnist_trainer.data.mnist_files import read_split
from mnist_trainer.diagnostics import doctor
from mnist_trainer.diagnostics.environment import describe_environment
from mnist_trainer.errors import DONE, FAILED, WRONG_REQUEST, RequestError, RunError
from mnist_trainer.inference.evaluation import evaluate_run
from mnist_trainer.model import backends as backends_module
from mnist_trainer.model import native
from mnist_trainer.model.backends import accelerate
from mnist_trainer.model.native.build import opened_library
from mnist_trainer.model.network import ScoredNetwork, build_cnn, build_loss, initialize, parameters_in_order, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Constant
from mnist_trainer.training import experiment
from mnist_trainer.training.loop import seed_everything
from mnist_trainer.training.trainer import create_trainer

mx = import_mxnet()

SHAPES = [(10, 1, 5, 5), (10,), (20, 10, 5, 5), (20,), (512, 320), (512,), (10, 512), (10,)]

# For float32 sums of the same terms in another order, which differ by a few roundings of 6e-8. Errors are relative to the
# largest element of an array, because a small element may be a sum of large terms.
TOLERANCE = 2e-6

MIDDLE_OF_AN_EPOCH = 15

NOT_BUILT = "the fused operator is not built"

FUSED = pytest.param("fused", marks=needs_fused)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)


@pytest.fixture
def environment_is_described(monkeypatch: pytest.MonkeyPatch, _quickly: None) -> None:
    monkeypatch.setattr(experiment, "describe_environment", describe_environment)


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "problem", lambda: NOT_BUILT)


def seeded_net(devices: Any = ()) -> Any:
    seed_everything(1)
    net = build_cnn()
    initialize(net, devices)
    return net


def exact_net() -> Any:
    """Return a network of small integers. A float represents every sum from the pixels to the gradients exactly, in any order.

    All backends then find the same maxima and give the same bits. With rounding they may choose different ones of two nearly
    equal maxima, which gives different gradients.
    """
    net = seeded_net()
    random = np.random.RandomState(0)
    drawn = [random.randint(-most, most + 1, shape) for most, shape in zip((3, 50, 1, 500, 1, 50, 1, 50), SHAPES, strict=True)]
    drawn[4] *= random.randint(0, 16, SHAPES[4]) == 0  # so that sums have few terms
    for parameter, values in zip(parameters_in_order(net), drawn, strict=True):
        parameter.set_data(mx.nd.array(values))
    return net


def exact_images(kind: str, batch: int, data_dir: Path) -> Any:
    """Return real images in four shades, 0 to 3, or random ones."""
    if kind == "real":
        return mx.nd.array(read_split(data_dir, train=True).images[:batch, None] // 64)
    return mx.nd.array(np.random.RandomState(0).randint(0, 4, (batch, 1, 28, 28)))


def computed(net: Any, backend: str) -> Any:
    """Return the network as it is, or as computed by a backend, hybridized as for training."""
    accelerated = net if backend == "plain" else accelerate(net, ModelConfig(backend=backend), [mx.cpu()])
    accelerated.hybridize(static_alloc=True, static_shape=True)
    return accelerated


def logits_and_gradients(net: Any, backend: str, images: Any) -> list[Any]:
    """Return the logits, and the gradients of the network's parameters for a sum of logits with different signs."""
    accelerated = computed(net, backend)
    signs = mx.nd.array(np.random.RandomState(1).randint(-1, 2, (len(images), 10)))
    with mx.autograd.record():
        logits = accelerated(images)
    logits.backward(signs)
    return [logits.asnumpy(), *(parameter.grad().asnumpy() for parameter in parameters_in_order(net))]


def assert_equal(got: list[Any], expected: list[Any]) -> None:
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert 0 < np.abs(other).max() < 2**22, number  # so that no intermediate sum needs more than 24 bits
        np.testing.assert_array_equal(one, other, str(number))


def assert_within(tolerance: float, got: list[Any], expected: list[Any]) -> None:
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one.shape == other.shape
        assert np.abs(other).max() > 0, number
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max(), number


# --- the same function


@pytest.mark.parametrize("kind", ["random", "real"])
@pytest.mark.parametrize("batch", [1, 32, 63, 64, 1000])
@pytest.mark.parametrize("backend", ["stock", FUSED])
def test_logits_and_gradients_are_those_of_the_plain_network(backend: str, kind: str, batch: int, data_dir: Path) -> None:
    net = exact_net()
    images = exact_images(kind, batch, data_dir)
    assert_equal(logits_and_gradients(net, backend, images), logits_and_gradients(net, "plain", images))


@pytest.mark.parametrize("backend", ["stock", FUSED])
def test_with_initial_parameters_the_logits_are_the_same(backend: str, data_dir: Path) -> None:
    # The gradients may differ: of two maxima that differ in the last bit, either may be chosen.
    net = seeded_net()
    images = mx.nd.array(read_split(data_dir, train=True).images[:1000, None] / 255)
    plain, accelerated = (computed(net, name)(images).asnumpy() for name in ("plain", backend))
    assert_within(TOLERANCE, [accelerated], [plain])


@pytest.mark.parametrize("floats", [1, 8, 16])
def test_the_stock_backend_is_the_same_for_every_width_of_the_processor(
    floats: int, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = exact_net()
    images = exact_images("real", 64, data_dir)
    plain = logits_and_gradients(net, "plain", images)
    monkeypatch.setattr(backends_module, "floats_in_a_vector", lambda: floats)
    assert_equal(logits_and_gradients(net, "stock", images), plain)
    assert [parameter.shape for parameter in parameters_in_order(net)] == SHAPES
    filters = convolution_filters(accelerate(net, ModelConfig(backend="stock"), [mx.cpu()]))
    assert filters == {1: [10, 20], 8: [16, 24], 16: [16, 32]}[floats]


def nodes_of(accelerated: Any, operator: str) -> list[dict[str, str]]:
    """Return the attributes of each use of an operator in the graph."""
    nodes = json.loads(accelerated(mx.sym.var("images")).tojson())["nodes"]
    return [node.get("attrs", {}) for node in nodes if node["op"] == operator]


def convolution_filters(accelerated: Any) -> list[int]:
    """Return the number of output channels of each convolution in the graph."""
    return [int(node["num_filter"]) for node in nodes_of(accelerated, "Convolution")]


@needs_fused
def test_the_fused_backend_has_the_fused_operator_and_no_gradient_of_the_pixels() -> None:
    accelerated = accelerate(seeded_net(), ModelConfig(backend="fused"), [mx.cpu()])
    assert [node["images_gradient"] for node in nodes_of(accelerated, native.OPERATOR)] == ["False", "True"]
    assert not any(nodes_of(accelerated, operator) for operator in ("Convolution", "Pooling"))
    assert nodes_of(accelerate(seeded_net(), ModelConfig(backend="stock"), [mx.cpu()]), native.OPERATOR) == []


def test_on_a_gpu_channels_are_not_padded() -> None:
    assert convolution_filters(accelerate(seeded_net(), ModelConfig(backend="stock"), [mx.gpu(0)])) == [10, 20]


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("backend", ["plain", "stock", FUSED])
def test_pixels_that_are_not_finite_reach_a_gradient(backend: str, special: float) -> None:
    # They do not always reach the loss: MXNet's ReLU of NaN is 0, after the convolutions or after the first dense layer.
    net = seeded_net()
    scored = ScoredNetwork(computed(net, backend))
    for row, column in ((0, 0), (5, 9), (14, 14), (27, 27)):
        images = mx.nd.array(np.random.RandomState(0).rand(3, 1, 28, 28))
        images[2, 0, row, column] = special
        with mx.autograd.record():
            loss_sum, _ = scored(images, mx.nd.arange(3))
        loss_sum.backward()
        assert not all(np.isfinite(parameter.grad().asnumpy()).all() for parameter in parameters_in_order(net))


@pytest.mark.parametrize("backend", ["stock", FUSED])
def test_pixels_that_are_not_finite_stop_a_run(backend: str, tmp_path: Path) -> None:
    def spoil(iteration: int, images: Any) -> Any:
        return images * np.nan if iteration == 7 else images

    with pytest.raises(RunError, match=r"gradient .*\biteration 7 "):
        train(with_model(backend), tmp_path / "run", change=spoil)


# --- the same parameters


@pytest.mark.parametrize("backend", ["stock", FUSED])
def test_parameters_are_those_of_the_network(backend: str, tmp_path: Path) -> None:
    net = seeded_net()
    names = list(net.collect_params())
    before = parameters_sha256(net)
    accelerated = accelerate(net, ModelConfig(backend=backend), [mx.cpu()])
    assert list(accelerated.collect_params()) == names
    assert all(accelerated.collect_params()[name] is net.collect_params()[name] for name in names)

    scored = ScoredNetwork(accelerated)
    trainer = create_trainer(net.collect_params(), Constant(0.1))
    for _ in range(2):
        with mx.autograd.record():
            loss_sum, _ = scored(mx.nd.ones((4, 1, 28, 28)), mx.nd.arange(4))
        loss_sum.backward()
        trainer.step(4)
    after = parameters_sha256(net)
    assert after != before
    assert list(net.collect_params()) == names
    assert [parameter.shape for parameter in parameters_in_order(net)] == SHAPES

    net.save_parameters(str(tmp_path / "model.params"))
    loaded = build_cnn()
    loaded.load_parameters(str(tmp_path / "model.params"))
    assert parameters_sha256(loaded) == after
    images = mx.nd.array(np.random.RandomState(0).rand(5, 1, 28, 28))
    assert_within(TOLERANCE, [accelerated(images).asnumpy()], [loaded(images).asnumpy()])


# --- the same runs


def with_model(backend: str, **sections: dict[str, Any]) -> RunConfig:
    return changed(SMALL, model={"backend": backend}, **sections)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Train the small run with a backend without a stop, once for each backend; return its folder."""
    known: dict[str, Path] = {}

    def find(backend: str) -> Path:
        if backend not in known:
            known[backend] = train(with_model(backend), tmp_path_factory.mktemp(backend) / "run")
        return known[backend]

    return find


def fingerprint(path: Path) -> str:
    return str(RunFolder(path).read_summary()["parameters_sha256"])


@pytest.mark.parametrize("backend", ["stock", FUSED])
def test_both_scheduler_modes_give_the_same_bytes(backend: str, finished: Callable[[str], Path], tmp_path: Path) -> None:
    manual = train(with_model(backend, training={"scheduler_mode": "manual"}), tmp_path / "run")
    assert (manual / "iterations.csv").read_bytes() == (finished(backend) / "iterations.csv").read_bytes()
    assert fingerprint(manual) == fingerprint(finished(backend))


@pytest.mark.parametrize("backend", ["stock", FUSED])
def test_a_run_repeats_itself(backend: str, finished: Callable[[str], Path], tmp_path: Path) -> None:
    again = train(load_config(finished(backend) / "config.toml"), tmp_path / "run")
    assert_same_run(again, finished(backend))
    assert (again / "config.toml").read_bytes() == (finished(backend) / "config.toml").read_bytes()


@needs_fused
def test_the_backends_differ_by_rounding_alone(finished: Callable[[str], Path]) -> None:
    stock, fused = (RunFolder(finished(backend)).read_iterations() for backend in ("stock", "fused"))
    assert [row[:2] for row in stock] == [row[:2] for row in fused]
    np.testing.assert_allclose([row[2] for row in fused], [row[2] for row in stock], rtol=1e-4)
    assert fingerprint(finished("stock")) != fingerprint(finished("fused"))  # the backends computed in different ways


@pytest.mark.parametrize("backend", ["stock", FUSED, pytest.param("auto", marks=needs_fused)])
def test_a_run_that_was_stopped_resumes_exactly(backend: str, finished: Callable[[str], Path], tmp_path: Path) -> None:
    assert MIDDLE_OF_AN_EPOCH % ITERATIONS_PER_EPOCH
    path = train(with_model(backend), tmp_path / "run", MIDDLE_OF_AN_EPOCH)
    assert not (path / "summary.json").exists()
    resume_run(path)
    resolved = backend.replace("auto", "fused")
    assert_same_run(path, finished(resolved))
    assert load_config(path / "config.toml").model.backend == resolved


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("stock", "fused"),
        *(pytest.param(*pair, marks=needs_fused) for pair in (("fused", "stock"), ("auto", "stock"), ("fused", "auto"))),
    ],
)
def test_the_backend_cannot_change_in_the_middle_of_a_run(before: str, after: str, tmp_path: Path, snapshot: Snapshot) -> None:
    path = train(with_model(before), tmp_path / "run", MIDDLE_OF_AN_EPOCH)
    files = content(path)
    (problem,) = refused("train", "--resume", path, "--set", f"model.backend={after}")
    was = before.replace("auto", "fused")
    assert_names(problem, f"--resume {path}: ", f"model.backend was {was!r}", f"become {after!r}")
    assert content(path) == files
    snapshot(problem)


@needs_fused
def test_two_devices_give_the_single_devices_result_within_rounding(finished: Callable[[str], Path], tmp_path: Path) -> None:
    # The gradient is summed in another order, so the last bits may differ, and grow with the iterations.
    two = train(with_model("fused", runtime={"device": "cpu:0,1"}), tmp_path / "run")
    ours, theirs = (RunFolder(path).read_iterations() for path in (two, finished("fused")))
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    np.testing.assert_allclose([row[2] for row in ours], [row[2] for row in theirs], rtol=1e-4)
    parameters, others = (mx.nd.load(str(path / "model.params")) for path in (two, finished("fused")))
    assert_within(1e-4, [array.asnumpy() for array in parameters.values()], [array.asnumpy() for array in others.values()])


@needs_fused
def test_a_run_with_the_fused_backend_can_be_evaluated_without_it(
    finished: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(finished("fused"))
    config = load_config(folder / "config.toml")
    summary = folder.read_summary()
    for problem in (None, NOT_BUILT):
        monkeypatch.setattr(native, "problem", lambda problem=problem: problem)
        scores = evaluate_run(folder, config).scores
        assert scores.correct == summary["test_correct"]
        assert scores.loss == pytest.approx(summary["test_loss"], rel=1e-5)


# --- the choice of a backend


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("found", [None, NOT_BUILT, "the fused operator needs a processor with AVX2 and FMA"])
@pytest.mark.parametrize("requested", ["auto", "stock", "fused"])
def test_which_backend_is_chosen(requested: str, found: str | None, on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "problem", lambda: found)
    obstacle = found if on_cpu else "the fused operator runs on the CPU only"
    if requested == "fused" and obstacle:
        with pytest.raises(RequestError) as caught:
            native.choose_backend(requested, on_cpu)
        assert_names(str(caught.value), f"model.backend = fused: {obstacle}", "--set model.backend=auto")
    else:
        assert native.choose_backend(requested, on_cpu) == ("stock" if obstacle or requested == "stock" else "fused")


def train_in_this_process(output: Path, *arguments: str) -> int:
    few = ("--epochs", "1", "--train-images", "64", "--test-images", "10", "--threads", "1")
    return cli.main(["train", *few, *arguments, "--output", str(output)])


@pytest.mark.usefixtures("not_built")
def test_a_fused_backend_that_cannot_be_used_is_refused_before_anything_is_written(tmp_path: Path, snapshot: Snapshot) -> None:
    (problem,) = refused("train", "--set", "model.backend=fused", "--output", tmp_path / "run")
    assert_names(problem, f"model.backend = fused: {NOT_BUILT}", "--set model.backend=auto")
    assert list(tmp_path.iterdir()) == []
    snapshot(problem)


@pytest.mark.usefixtures("not_built", "environment_is_described")
def test_a_run_on_stock_operators_has_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "processor_flags", lambda: {"avx2", "fma"})
    assert train_in_this_process(tmp_path / "run") == DONE
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert_names(first, "Using MXNet's own operators", "slower", NOT_BUILT)
    assert "stock backend" in second
    monkeypatch.setattr(native, "processor_flags", lambda: {"sse2"})  # nothing to install would help
    assert train_in_this_process(tmp_path / "other") == DONE
    assert NOT_BUILT not in capsys.readouterr().err


@pytest.mark.usefixtures("not_built")
def test_a_comparison_on_stock_operators_has_the_reason_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "processor_flags", lambda: {"avx2", "fma"})
    monkeypatch.setattr(session, "open_folder", lambda *_: pytest.fail("enough"))
    for quiet in ([], ["--quiet"]):
        with pytest.raises(pytest.fail.Exception, match="enough"):
            cli.main(["compare", "tutorial", "quick", "--allow", "training.epochs", "--output", str(tmp_path / "x"), *quiet])
        assert capsys.readouterr().err.count(NOT_BUILT) == (not quiet)


@pytest.mark.parametrize("command", ["train", pytest.param("benchmark", marks=pytest.mark.process)])
def test_a_wrong_request_builds_nothing(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "is_pending", lambda: True)
    monkeypatch.setattr(native, "problem", lambda: pytest.fail("it is built"))
    problems = refused(command, "--data-dir", tmp_path / "none", "--output", tmp_path / "run")
    assert len(problems) == 4  # one for each file


@pytest.mark.usefixtures("not_built", "environment_is_described")
def test_auto_uses_stock_if_the_fused_backend_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_in_this_process(tmp_path / "run", "--quiet") == DONE
    assert capsys.readouterr().err == ""
    assert_backend_is_recorded(tmp_path / "run", "stock")


def test_train_refuses_unknown_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "fast")
    (problem,) = refused("train", "--set", "model.backend=fused", "--output", tmp_path / "run")
    assert_names(problem, f"{native.VARIABLE}: ", "'fast'", "portable, avx2, avx512")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    (problem,) = refused("train", "--set", "model.backend=fast", "--output", tmp_path / "run")
    assert_names(problem, "--set model.backend=fast: ", "auto, stock, fused")
    assert list(tmp_path.iterdir()) == []


@needs_fused
def test_only_the_fused_backend_refuses_accumulated_gradients() -> None:
    net = seeded_net()
    parameters_in_order(net)[4].grad_req = "add"
    accelerate(net, ModelConfig(backend="fused"), [mx.cpu()])  # of a dense layer, which the operator does not compute
    parameter = parameters_in_order(net)[2]
    parameter.grad_req = "add"
    with pytest.raises(RequestError, match=rf'^{parameter.name}: .*\(grad_req="add"\)'):
        accelerate(net, ModelConfig(backend="fused"), [mx.cpu()])
    accelerate(net, ModelConfig(backend="stock"), [mx.cpu()])


def test_the_fused_backend_refuses_a_gpu() -> None:
    with pytest.raises(RequestError, match=r"^gpu\(0\): .*\bCPU\b"):
        accelerate(seeded_net(), ModelConfig(backend="fused"), [mx.cpu(0), mx.gpu(0)])


# --- reports of the backend


def assert_backend_is_recorded(path: Path, backend: str) -> None:
    assert json.loads((path / "environment.json").read_bytes())["backend"] == backend
    assert tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))["model"] == {"backend": backend}


@pytest.mark.usefixtures("environment_is_described")
@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        pytest.param("auto", "fused", marks=needs_fused),
        pytest.param("fused", "fused", marks=needs_fused),
        ("stock", "stock"),
    ],
)
def test_a_run_prints_its_backend(requested: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_in_this_process(tmp_path / "run", "--device", "cpu", "--set", f"model.backend={requested}") == DONE
    first, *_ = capsys.readouterr().err.splitlines()
    assert_names(first, "Device cpu", "OpenMP threads 1", f"{expected} backend", f"run folder {tmp_path / 'run'}")
    assert_backend_is_recorded(tmp_path / "run", expected)


@pytest.mark.parametrize("found", [pytest.param(None, marks=needs_fused), NOT_BUILT])
def test_the_doctor_reports_the_fused_backend_without_a_problem(
    found: str | None, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "problem", lambda: found)
    (finding,) = [finding for finding in doctor.examine(1, data_dir) if finding.subject == "fused backend"]
    assert (found or f"kernels {native.kernels()}") in finding.state
    assert finding.problem is None


def test_the_doctors_command_has_a_line_for_the_fused_backend(capsys: pytest.CaptureFixture[str], not_built: None) -> None:
    assert cli.main(["doctor", "--threads", "1"]) == DONE
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fused backend ")]
    assert NOT_BUILT in line


# --- network and loss as one graph


def draw_batches(*sizes: int) -> list[tuple[Any, Any]]:
    random = np.random.RandomState(0)
    return [
        (mx.nd.array(random.rand(size, 1, 28, 28)), mx.nd.array(random.randint(0, 10, size), dtype="int32")) for size in sizes
    ]


def scores_computed_plainly(net: Any, images: Any, labels: Any) -> tuple[float, int]:
    logits = net(images)
    right = logits.asnumpy().argmax(axis=1) == labels.asnumpy()
    return float(build_loss()(logits, labels).asnumpy().astype(np.float64).sum()), int(right.sum())


@pytest.mark.parametrize("backend", ["plain", "stock", FUSED])
def test_a_scored_network_gives_the_sum_of_losses_and_the_correct_answers(backend: str) -> None:
    net = seeded_net()
    batches = draw_batches(64, 1, 63, 1000)
    expected = [scores_computed_plainly(net, *batch) for batch in batches]
    assert any(correct for _, correct in expected)
    scored = ScoredNetwork(net if backend == "plain" else accelerate(net, ModelConfig(backend=backend), [mx.cpu()]))
    for batch, (loss_sum, correct) in zip(batches, expected, strict=True):
        got = scored(*batch)
        assert [result.shape for result in got] == [(1,), (1,)]
        assert got[0].asscalar() == pytest.approx(loss_sum, rel=TOLERANCE)
        assert got[1].asscalar() == correct


@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("backend", ["plain", "stock", FUSED])
def test_results_that_are_not_fetched_yet_are_preserved(backend: str, recording: bool) -> None:
    # The memory of the graph is planned once, and the next batch uses it again. It must not use the memory of results again.
    net = seeded_net()
    batches = draw_batches(64, 64, 64, 64, 64)
    expected = [scores_computed_plainly(net, *batch) for batch in batches]
    scored = ScoredNetwork(net if backend == "plain" else accelerate(net, ModelConfig(backend=backend), [mx.cpu()]))
    waiting = []
    for batch in batches:
        with mx.autograd.record() if recording else mx.autograd.pause():
            waiting.append(scored(*batch))
        if recording:
            waiting[-1][0].backward()
    mx.nd.waitall()
    assert len({loss_sum for loss_sum, _ in expected}) == len(batches)
    assert [loss_sum.asscalar() for loss_sum, _ in waiting] == pytest.approx(
        [loss_sum for loss_sum, _ in expected], rel=TOLERANCE
    )
    assert [correct.asscalar() for _, correct in waiting] == [correct for _, correct in expected]


@pytest.mark.parametrize("requested", ["auto", "fused"])
def test_unknown_kernels_are_an_error(
    requested: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(native.VARIABLE, "fast")
    with pytest.raises(RequestError, match=r"^MNIST_TRAINER_NATIVE: 'fast' .*portable, avx2, avx512"):
        native.choose_backend(requested, on_cpu=True)
    assert native.choose_backend("stock", on_cpu=True) == "stock"
    assert cli.main(["doctor", "--threads", "1"]) == FAILED
    assert "MNIST_TRAINER_NATIVE: 'fast' " in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["stock", FUSED])
def test_an_accelerated_network_can_be_called(backend: str) -> None:
    net = build_cnn()
    initialize(net)
    assert accelerate(net, ModelConfig(backend=backend), [mx.cpu()])(mx.nd.ones((2, 1, 28, 28))).shape == (2, 10)


@pytest.mark.parametrize("backend", ["stock", FUSED])
def test_a_network_whose_shapes_are_not_known_yet_is_refused(backend: str) -> None:
    net = build_cnn()
    net.initialize()  # MXNet learns the shapes at the first forward pass
    with pytest.raises(ValueError, match=r"network .*\binitialize\(network\)"):
        accelerate(net, ModelConfig(backend=backend), [mx.cpu()])


@pytest.mark.slow
@needs_fused
def test_a_library_that_cannot_be_loaded_is_reported_before_anything_is_written(tmp_path: Path, new_program: Program) -> None:
    with opened_library() as library:
        whole, name = library.read_bytes(), library.name
    cache = tmp_path / "cache" / "mnist-trainer"
    cache.mkdir(mode=0o700, parents=True)
    (cache / name).write_bytes(whole.replace(b"_opVersion", b"_opVersiom"))  # looks complete, but is not
    (cache / name).chmod(0o700)
    few = ("--train-images", "64", "--test-images", "10", "--epochs", "1", "--quiet")
    requested, chosen = (
        new_program(
            *("train", *few, "--set", f"model.backend={backend}", "--output", backend), XDG_CACHE_HOME=str(cache.parent)
        )
        for backend in ("fused", "auto")
    )
    assert (requested.returncode, chosen.returncode, chosen.stderr) == (WRONG_REQUEST, DONE, "")
    (problem,) = requested.stderr.splitlines()
    assert_names(problem, "the fused operator cannot be loaded", f"{cache / name}: ", "_opVersion", f"remove {cache}")
    assert not (tmp_path / "fused").exists()
    assert_backend_is_recorded(tmp_path / "auto", "stock")


@needs_fused
def test_evaluate_uses_the_backend_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def recorded(net: Any, config: ModelConfig, devices: Any) -> Any:
        used.append(config.backend)
        return accelerate(net, config, devices)

    monkeypatch.setattr("mnist_trainer.inference.predictor.accelerate", recorded)
    for backend in ("stock", "fused"):
        train(with_model(backend), tmp_path / backend)
        assert cli.main(["evaluate", str(tmp_path / backend)]) == DONE
    assert used == ["stock", "fused"]
