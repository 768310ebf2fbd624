"""The tutorial's network and its loss: built, joined in one graph, initialised, and fingerprinted."""

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
    """Softmax cross-entropy: a HybridBlock, logits (N, 10) and labels (N,) to losses (N,)."""
    return mx.gluon.loss.SoftmaxCrossEntropyLoss()


class ScoredNetwork(mx.gluon.HybridBlock):  # type: ignore[misc,name-defined]  # MXNet has no types
    """A network and what its answers are worth, as one graph, which costs less than two and the arithmetic between them.

    Takes images (N, 1, 28, 28) and labels (N,); gives the sum of the losses and the number of correct answers, (1,) each.

    net: images to logits (N, 10). It is hybridized with the whole, and stays so.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.loss_function = build_loss()
        # The memory of every array in the graph is planned once, for each shape of a batch.
        self.hybridize(static_alloc=True, static_shape=True)

    def hybrid_forward(self, F: Any, images: Any, labels: Any) -> tuple[Any, Any]:  # noqa: N803 - as Gluon calls it
        logits = self.net(images)
        correct = F.broadcast_equal(F.argmax(logits, axis=1), F.cast(labels, dtype="float32"))
        return F.sum(self.loss_function(logits, labels)), F.sum(correct)


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
