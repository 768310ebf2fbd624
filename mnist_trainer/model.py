"""The tutorial's network: how it is built, how it starts, and how its parameters are fingerprinted."""

import hashlib
from collections.abc import Sequence
from typing import Any

from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()
nn = mx.gluon.nn

IMAGE_SHAPE = (1, 28, 28)
DIGITS = 10


def build_cnn() -> Any:
    """The convolutional network of MXNet's tutorial on learning-rate schedules: a HybridBlock, not yet initialised.

    Takes images (N, 1, 28, 28), float32 in [0, 1]; gives logits (N, 10). 174,762 parameters.
    """
    net = nn.HybridSequential()
    with net.name_scope():
        # First convolution
        net.add(nn.Conv2D(channels=10, kernel_size=5, activation="relu"))
        net.add(nn.MaxPool2D(pool_size=2, strides=2))
        # Second convolution
        net.add(nn.Conv2D(channels=20, kernel_size=5, activation="relu"))
        net.add(nn.MaxPool2D(pool_size=2, strides=2))
        # Flatten the output before the fully connected layers
        net.add(nn.Flatten())
        # First fully connected layer with 512 neurons
        net.add(nn.Dense(512, activation="relu"))
        # Second fully connected layer with as many neurons as there are digits
        net.add(nn.Dense(DIGITS))
    return net


def build_loss() -> Any:
    """Softmax cross-entropy, hybridized: logits (N, 10) and labels (N,) to losses (N,)."""
    loss_function = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    loss_function.hybridize()
    return loss_function


def initialize(net: Any, contexts: Sequence[Any] = ()) -> None:
    """Draws Xavier parameters from MXNet's generator, on every context the same ones, and hybridizes the network.

    contexts: where the parameters live; () is the CPU.

    MXNet draws them at the first forward pass, when it knows the shapes; one pass here keeps any other draw from
    coming between.
    """
    chosen = list(contexts) or [mx.cpu()]
    net.initialize(mx.init.Xavier(), ctx=chosen)
    net.hybridize()
    for context in chosen:
        net(mx.nd.zeros((1, *IMAGE_SHAPE), ctx=context)).wait_to_read()


def parameters_in_order(net: Any) -> list[Any]:
    """Weight and bias of the first convolution, the second, the first dense layer and the second; of any inner names."""
    layers = [layer for layer in net if isinstance(layer, nn.Conv2D | nn.Dense)]
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


def parameters_sha256(net: Any) -> str:
    """SHA-256 of all parameters' raw little-endian float32 bytes, in the order of `parameters_in_order`.

    Waits for the device.
    """
    digest = hashlib.sha256()
    for parameter in parameters_in_order(net):
        digest.update(parameter.data(parameter.list_ctx()[0]).asnumpy().astype("<f4").tobytes())
    return digest.hexdigest()
