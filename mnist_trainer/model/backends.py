"""The backends, which compute the network of `build_cnn` faster than its layers do, from the same parameters.

A backend gives the same logits and the same gradients of the parameters, except for rounding. It computes the two stages of
convolution, pooling and ReLU: `stock` with MXNet's operators, on channels padded to whole vectors of the processor, and `fused`
with the operator of `native`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mnist_trainer.config.schema import ModelConfig
from mnist_trainer.datasets import IMAGE_SIZE
from mnist_trainer.errors import RequestError
from mnist_trainer.model import native
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.runtime.devices import are_cpu
from mnist_trainer.runtime.hardware import floats_in_a_vector

mx = import_mxnet()


def choose_backend(
    config: ModelConfig,
    devices: Sequence[Any],
    report: Callable[[str], object] = lambda sentence: None,
    image_size: tuple[int, int] = IMAGE_SIZE,
) -> str:
    """Choose the backend, and load the fused operator if it is chosen.

    Args:
        config: The network and the requested backend: "stock", "fused", or "auto", which is "fused" if it can be used.
        devices: The devices on which to compute.
        report: Called with the reason if "auto" becomes "stock" although this machine could use the fused operator.
        image_size: Height and width of the images.

    Returns:
        "stock" or "fused".

    Raises:
        RequestError: "fused" is requested and cannot be used, or the environment variable requests unknown kernels.
    """
    if config.network:
        if config.backend == "fused":
            raise RequestError("model.backend = fused: supports only the tutorial's network; with model.network, use auto")
        return "stock"
    if any(side % 4 for side in image_size):  # both stages pool pairs of pixels
        if config.backend == "fused":
            size = "×".join(map(str, image_size))
            needed = "needs images with sides that are multiples of 4"
            raise RequestError(f"model.backend = fused: {needed}, and these have {size} pixels; use auto")
        return "stock"
    chosen = native.choose_backend(config.backend, are_cpu(devices), report)
    if chosen == "fused":
        try:
            native.load()
        except RequestError as error:
            if config.backend == "fused":
                raise
            report(str(error))
            return "stock"
    return chosen


def accelerate(network: Any, config: ModelConfig, devices: Sequence[Any]) -> Any:
    """Return a Block that computes the same function as `network` from the same parameters.

    Args:
        network: A network from `create_network`, initialized and with known shapes; see `initialize`. A user's network is
            returned unchanged.
        config: The network and the backend from `choose_backend`. "fused" sets the gradient of the images to zero, because
            training does not need it.
        devices: The devices on which to compute.

    Returns:
        The Block. Its parameters are those of `network`.

    Raises:
        RequestError: The fused operator cannot be loaded, or does not support the devices or parameters.
        ValueError: The shapes of the parameters are not known yet.
    """
    if config.network:
        return network
    convolutions = [layer for layer in network if isinstance(layer, mx.gluon.nn.Conv2D)]
    parameters = [parameter for layer in convolutions for parameter in (layer.weight, layer.bias)]
    if any(0 in parameter.shape for parameter in parameters):
        raise ValueError("the network has parameters without shapes; call initialize(network) first")
    if config.backend == "fused":
        native.refuse_other_devices(devices)
        native.refuse_added_gradients(parameters)
        native.load()
        return FusedNetwork(network)
    return StockNetwork(network, floats_in_a_vector() if are_cpu(devices) else 1)


class _AcceleratedNetwork(mx.gluon.HybridBlock):  # type: ignore[misc,name-defined]  # MXNet has no types
    """The network. A subclass computes its two stages of convolution, pooling and ReLU."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network  # as a child, so that its parameters belong to this block too
        self.hybridize()  # `stage` takes parameters as symbols

    def hybrid_forward(self, F: Any, images: Any) -> Any:  # noqa: N803 - as Gluon calls it
        convolution1, _, convolution2, _, flatten, dense1, dense2 = self.network
        pooled = self.stage(F, images, convolution1, first=True)
        pooled = self.stage(F, pooled, convolution2, first=False)
        return dense2(dense1(flatten(pooled)))

    def stage(self, F: Any, images: Any, convolution: Any, first: bool) -> Any:  # noqa: N803
        """Compute convolution, ReLU and 2×2 max-pooling of a stage.

        Args:
            F: `mx.nd` or `mx.sym`.
            images: The input of the stage, of shape (N, C, H, W).
            convolution: The layer with weight and bias.
            first: Whether this is the first stage.

        Returns:
            The pooled array of shape (N, O, (H−4)/2, (W−4)/2).
        """
        raise NotImplementedError


class FusedNetwork(_AcceleratedNetwork):
    """The network with one fused operator for each stage; see `native`."""

    def stage(self, F: Any, images: Any, convolution: Any, first: bool) -> Any:  # noqa: N803
        weight, bias = convolution.weight.var(), convolution.bias.var()
        return native.conv_pool_relu(F, images, weight, bias, images_gradient=not first)


class StockNetwork(_AcceleratedNetwork):
    """The network with MXNet's operators, on channels padded with zeros to whole vectors. oneDNN has fast kernels for these.

    Pooling precedes ReLU, which then has a quarter of the work. The maximum of the numbers and 0 is the same in both orders.

    Args:
        network: The network, as for `accelerate`.
        vector: The number of floats in a vector of the processor.
    """

    def __init__(self, network: Any, vector: int) -> None:
        super().__init__(network)
        self.vector = vector

    def stage(self, F: Any, images: Any, convolution: Any, first: bool) -> Any:  # noqa: N803
        outputs, channels, *kernel = convolution.weight.shape
        more_outputs = -outputs % self.vector
        more_channels = 0 if first else -channels % self.vector  # the first stage has padded them
        weight, bias = convolution.weight.var(), convolution.bias.var()
        if more_channels:
            weight = F.concat(weight, F.zeros((outputs, more_channels, *kernel)), dim=1)
        if more_outputs:
            weight = F.concat(weight, F.zeros((more_outputs, channels + more_channels, *kernel)), dim=0)
            bias = F.concat(bias, F.zeros((more_outputs,)), dim=0)
        convolved = F.Convolution(images, weight, bias, kernel=tuple(kernel), num_filter=outputs + more_outputs)
        pooled = F.Activation(F.Pooling(convolved, kernel=(2, 2), stride=(2, 2), pool_type="max"), act_type="relu")
        if more_outputs and not first:
            pooled = F.slice_axis(pooled, axis=1, begin=0, end=outputs)
        return pooled
