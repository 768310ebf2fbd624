"""The tutorial's network and its loss, as separate blocks and as one graph; initialization; the hash of the parameters."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from mnist_trainer.datasets import DIGITS, IMAGE_SIZE
from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import explain_mxnet_error, import_mxnet
from mnist_trainer.user_code import import_callable, place_of

mx = import_mxnet()
nn = mx.gluon.nn


def build_cnn(classes: int = len(DIGITS)) -> Any:
    """Build the convolutional network of MXNet's tutorial on learning-rate schedules.

    The layers are two stages of 5×5 convolution (10 and 20 channels, no padding), ReLU and 2×2 max-pooling, then a dense layer
    of 512 units with ReLU and a dense layer with a unit for each class. For ten classes and images of 28×28 pixels they have
    174,762 parameters.

    Args:
        classes: The number of classes.

    Returns:
        A HybridSequential that is not initialized yet; see `initialize`. It maps images of shape (N, 1, height, width), float32
        in [0, 1], with sides of at least 16 pixels, to logits of shape (N, classes).
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
        # Second fully connected layer with as many neurons as there are classes
        net.add(nn.Dense(classes))
    return net


def create_network(function_name: str | None = None, classes: int = len(DIGITS)) -> Any:
    """Create the tutorial's network or a user's network.

    Args:
        function_name: "module:function", the name of a function that returns a Block. The Block maps images of shape
            (N, 1, height, width) to logits of shape (N, classes). None for the tutorial's network.
        classes: The number of classes of the tutorial's network.

    Returns:
        The network, which is not initialized.

    Raises:
        RequestError: The function does not exist, fails, or returns something other than a Block.
    """
    if function_name is None:
        return build_cnn(classes)
    try:
        build = import_callable(function_name)
    except ValueError as error:
        raise RequestError(f"model.network = {function_name}: {error}") from error
    with _users_errors_explained(function_name):
        network = build()
    if not isinstance(network, mx.gluon.Block):
        raise RequestError(f"model.network = {function_name}: returned {network!r}, which is not a Gluon Block")
    return network


def check_users_network(
    function_name: str, device_count: int, classes: int = len(DIGITS), image_size: tuple[int, int] = IMAGE_SIZE
) -> None:
    """Check a user's network by running it on two images.

    Args:
        function_name: The name of the function, as for `create_network`.
        device_count: The number of devices of all processes together.
        classes: The number of classes of the data.
        image_size: Height and width of the images.

    Raises:
        RequestError: The network failed, its logits have a wrong shape, or each of several devices would compute its own
            statistics, such as those of BatchNorm.
    """
    network = create_network(function_name)
    with _users_errors_explained(function_name):
        initialize(network, image_size=image_size)
        shape = getattr(network(mx.nd.zeros((2, 1, *image_size))), "shape", None)
    if shape != (2, classes):
        problem = f"gives logits of shape {shape} for 2 images; the shape must be (2, {classes})"
        raise RequestError(f"model.network = {function_name}: {problem}")
    untrained = [name for name, parameter in network.collect_params().items() if parameter.grad_req == "null"]
    if device_count > 1 and untrained:
        raise RequestError(f"model.network = {function_name}: {untrained[0]} would differ on each device; train on one device")


@contextmanager
def _users_errors_explained(function_name: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        reason = f"{type(error).__name__}: {explain_mxnet_error(error)}{place_of(error, function_name)}"
        raise RequestError(f"model.network = {function_name}: {reason}") from error


def build_loss() -> Any:
    """Build softmax cross-entropy, a HybridBlock that maps logits (N, classes) and labels (N,) to losses (N,)."""
    return mx.gluon.loss.SoftmaxCrossEntropyLoss()


class ScoredNetwork(mx.gluon.HybridBlock):  # type: ignore[misc,name-defined]  # MXNet has no types
    """A network and its scores as one graph, which is faster than a separate graph and arithmetic on its logits.

    Maps images and labels (N,) to the sum of the losses and the number of correct answers, both of shape (1,).

    Args:
        network: A HybridBlock that maps images to logits (N, classes). It is hybridized with this block and stays hybridized.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.loss_function = build_loss()
        # For each shape of a batch, the memory of all arrays in the graph is planned once.
        self.hybridize(static_alloc=True, static_shape=True)

    def hybrid_forward(self, F: Any, images: Any, labels: Any) -> tuple[Any, Any]:  # noqa: N803 - as Gluon calls it
        return _score(F, self.network(images), labels, self.loss_function)


class ScoredBlock(mx.gluon.Block):  # type: ignore[misc,name-defined]
    """The equivalent of `ScoredNetwork` for a Block that cannot be hybridized."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.loss_function = build_loss()

    def forward(self, images: Any, labels: Any) -> tuple[Any, Any]:
        return _score(mx.nd, self.network(images), labels, self.loss_function)


def with_scores(network: Any) -> Any:
    """Return a Block that maps images and labels (N,) to the sum of the losses and the number of correct answers.

    Args:
        network: A Block that maps images to logits (N, classes). A Block that this function has returned is returned unchanged.
    """
    if isinstance(network, ScoredNetwork | ScoredBlock):
        return network
    return ScoredNetwork(network) if isinstance(network, mx.gluon.HybridBlock) else ScoredBlock(network)


def _score(F: Any, logits: Any, labels: Any, loss_function: Any) -> tuple[Any, Any]:  # noqa: N803
    correct = F.broadcast_equal(F.argmax(logits, axis=1), F.cast(labels, dtype="float32"))
    return F.sum(loss_function(logits, labels)), F.sum(correct)


def initialize(network: Any, devices: Sequence[Any] = (), image_size: tuple[int, int] = IMAGE_SIZE) -> None:
    """Initialize the parameters of a network with Xavier's method, and hybridize the network.

    The numbers are drawn from MXNet's generator and are the same on every device. MXNet draws them at the first forward pass,
    when the shapes are known. This function runs a forward pass, so that no other draws come before.

    Args:
        network: A Block that accepts images of shape (N, 1, height, width).
        devices: The MXNet contexts of the parameters; () for the CPU.
        image_size: Height and width of the images.
    """
    chosen = list(devices) or [mx.cpu()]
    network.initialize(mx.init.Xavier(), ctx=chosen, force_reinit=True)  # a user's network may have been initialized
    network.hybridize()
    for device in chosen:
        network(mx.nd.zeros((1, 1, *image_size), ctx=device)).wait_to_read()


def parameters_in_order(network: Any) -> list[Any]:
    """Return the parameters in the order of the layers. For `build_cnn()` these are weight and bias of each layer."""
    return list(network.collect_params().values())


def parameters_sha256(network: Any) -> str:
    """Return the SHA-256 of all parameters as raw little-endian float32 bytes, in the order of `parameters_in_order`.

    Waits for the device.
    """
    return arrays_sha256(parameter.data(parameter.list_ctx()[0]).asnumpy() for parameter in parameters_in_order(network))


def arrays_sha256(arrays: Iterable[npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of parameters as arrays; see `parameters_sha256`."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()
