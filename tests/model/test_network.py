"""The network is the tutorial's, its initial parameters depend only on the seed, and its hash identifies the parameters."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_trainer.model.network import build_cnn, build_loss, initialize, parameters_in_order, parameters_sha256
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.training.loop import seed_everything

mx = import_mxnet()
nn = mx.gluon.nn


def seeded_net(seed: int = 1, devices: list[Any] | None = None) -> Any:
    seed_everything(seed)
    net = build_cnn()
    initialize(net, devices or [mx.cpu()])
    return net


def test_layers_and_number_of_parameters_are_the_tutorials() -> None:
    net = seeded_net()
    kinds = [type(layer).__name__ for layer in net]
    assert kinds == ["Conv2D", "MaxPool2D", "Conv2D", "MaxPool2D", "Flatten", "Dense", "Dense"]
    shapes = [parameter.shape for parameter in parameters_in_order(net)]
    assert shapes == [(10, 1, 5, 5), (10,), (20, 10, 5, 5), (20,), (512, 320), (512,), (10, 512), (10,)]
    assert sum(int(np.prod(shape)) for shape in shapes) == 174_762
    assert net(mx.nd.zeros((3, 1, 28, 28))).shape == (3, 10)


def test_the_forward_pass_is_the_tutorials_formula() -> None:
    # In numpy, without MXNet's operators: convolution, relu, max-pool, twice; then two dense layers.
    net = seeded_net()
    weights = [parameter.data().asnumpy().astype(np.float64) for parameter in parameters_in_order(net)]
    images = np.random.RandomState(0).rand(2, 1, 28, 28)

    def stage(planes: Any, weight: Any, bias: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(planes, (1, 1, 5, 5))[:, :, :, :, 0, 0]
        convolved = np.maximum(np.einsum("ncyxij,ocij->noyx", windows, weight) + bias[None, :, None, None], 0)
        n, c, height, width = convolved.shape
        return convolved.reshape(n, c, height // 2, 2, width // 2, 2).max(axis=(3, 5))

    planes = stage(stage(images, *weights[:2]), *weights[2:4]).reshape(2, -1)
    expected = np.maximum(planes @ weights[4].T + weights[5], 0) @ weights[6].T + weights[7]
    got = net(mx.nd.array(images)).asnumpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_loss_is_softmax_cross_entropy() -> None:
    logits = np.random.RandomState(0).randn(4, 10)
    labels = np.array([3, 0, 9, 5])
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), labels]
    got = build_loss()(mx.nd.array(logits), mx.nd.array(labels, dtype="int32")).asnumpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_parameters_are_xavier_and_a_function_of_the_seed() -> None:
    one, same, other = seeded_net(1), seeded_net(1), seeded_net(2)
    assert parameters_sha256(one) == parameters_sha256(same)
    assert parameters_sha256(one) != parameters_sha256(other)
    dense = parameters_in_order(one)[4].data().asnumpy()
    bound = np.sqrt(3 / ((320 + 512) / 2))  # Glorot & Bengio (2010), uniform, average of fan-in and fan-out
    assert 0.99 * bound < np.abs(dense).max() <= bound
    assert not parameters_in_order(one)[5].data().asnumpy().any()


def test_every_context_starts_from_the_same_parameters() -> None:
    net = seeded_net(1, [mx.cpu(0), mx.cpu(1)])
    assert parameters_sha256(net) == parameters_sha256(seeded_net(1))
    for parameter in parameters_in_order(net):
        first, second = (array.asnumpy() for array in parameter.list_data())
        assert (first == second).all()


def test_a_draw_after_initialize_changes_nothing() -> None:
    seed_everything(1)
    net = build_cnn()
    initialize(net, [mx.cpu()])
    mx.nd.random.uniform(shape=(3,)).wait_to_read()
    net(mx.nd.zeros((1, 1, 28, 28)))
    assert parameters_sha256(net) == parameters_sha256(seeded_net(1))


def test_the_fingerprint_is_that_of_the_raw_bytes_in_order(tmp_path: Path) -> None:
    net = seeded_net()
    by_name = {name.split("_", 1)[1]: parameter for name, parameter in net.collect_params().items()}
    order = [f"{layer}_{kind}" for layer in ("conv0", "conv1", "dense0", "dense1") for kind in ("weight", "bias")]
    raw = b"".join(by_name[name].data().asnumpy().astype("<f4").tobytes() for name in order)
    assert parameters_sha256(net) == hashlib.sha256(raw).hexdigest()

    net.save_parameters(str(tmp_path / "model.params"))
    loaded = build_cnn()
    loaded.load_parameters(str(tmp_path / "model.params"))
    assert parameters_sha256(loaded) == parameters_sha256(net)

    parameter = parameters_in_order(net)[7]
    parameter.set_data(parameter.data() + 1e-7)
    assert parameters_sha256(net) != hashlib.sha256(raw).hexdigest()


def test_hybridizing_changes_no_bit() -> None:
    images = mx.nd.array(np.random.RandomState(0).rand(5, 1, 28, 28))
    net = seeded_net()
    hybridized = net(images).asnumpy()
    net.hybridize(active=False)
    assert net(images).asnumpy().tobytes() == hybridized.tobytes()


def test_build_cnn_draws_nothing() -> None:
    seed_everything(5)
    before = mx.nd.random.uniform(shape=(4,)).asnumpy()
    seed_everything(5)
    build_cnn()
    assert (mx.nd.random.uniform(shape=(4,)).asnumpy() == before).all()
    with pytest.raises(RuntimeError, match="has not been initialized"):
        build_cnn()(mx.nd.zeros((1, 1, 28, 28)))
