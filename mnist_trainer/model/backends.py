"""The backends: ways to compute the network faster than `build_cnn` writes it, from the same parameters.

A backend gives the same logits and the same gradients of the parameters, but for rounding. It computes the two stages of
convolution, pooling and relu: `stock` by MXNet's operators, on channels padded to whole vectors of the processor, and `fused`
by one operator of our own (`native`).
"""

from collections.abc import Sequence
from typing import Any

from mnist_trainer.config.schema import ModelConfig
from mnist_trainer.errors import RequestError
from mnist_trainer.model import native
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.runtime.devices import are_cpu
from mnist_trainer.runtime.hardware import floats_in_a_vector

mx = import_mxnet()


def choose_backend(config: ModelConfig, devices: Sequence[Any]) -> str:
    """Return "stock" or "fused", and load the fused operator if it is chosen.

    Args:
        config: The network, and the requested backend: "stock", "fused", or "auto" for the fused operator where it can be used.
        devices: The devices to compute on.

    Raises:
        RequestError: "fused" is requested and cannot be used, or the environment requests kernels that do not exist.
    """
    if config.network:
        if config.backend == "fused":
            raise RequestError(
                "model.backend = fused: computes the tutorial's network alone; leave it at auto for model.network"
            )
        return "stock"
    chosen = native.choose_backend(config.backend, are_cpu(devices))
    if chosen == "fused":
        try:
            native.load()
        except RequestError:
            if config.backend == "fused":
                raise
            return "stock"
    return chosen


def accelerate(network: Any, config: ModelConfig, devices: Sequence[Any]) -> Any:
    """Return a Block that computes the same function as `network` from the same parameters.

    Args:
        network: From `create_network`, initialized, with known shapes (`initialize`). A network of the user's is returned
            unchanged.
        config: The network, and the backend from `choose_backend`. "fused" sets the gradient of the images to zero; training
            does not need it.
        devices: The devices to compute on.

    Raises:
        RequestError: The fused operator cannot be loaded, or does not fit these devices or parameters.
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
    """The network, whose two stages of convolution, pooling and relu a subclass computes."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network  # a child, so that its parameters are this block's
        self.hybridize()  # `stage` takes parameters as symbols

    def hybrid_forward(self, F: Any, images: Any) -> Any:  # noqa: N803 - as Gluon calls it
        convolution1, _, convolution2, _, flatten, dense1, dense2 = self.network
        pooled = self.stage(F, images, convolution1, first=True)
        pooled = self.stage(F, pooled, convolution2, first=False)
        return dense2(dense1(flatten(pooled)))

    def stage(self, F: Any, images: Any, convolution: Any, first: bool) -> Any:  # noqa: N803
        """Compute convolution, relu and 2×2 max-pooling: (N, C, H, W) to (N, O, (H−4)/2, (W−4)/2)."""
        raise NotImplementedError


class FusedNetwork(_AcceleratedNetwork):
    """The network with one operator for each stage; see `native`."""

    def stage(self, F: Any, images: Any, convolution: Any, first: bool) -> Any:  # noqa: N803
        weight, bias = convolution.weight.var(), convolution.bias.var()
        return native.conv_pool_relu(F, images, weight, bias, images_gradient=not first)


class StockNetwork(_AcceleratedNetwork):
    """The network by MXNet's operators, on channels padded with zeros to whole vectors, for which oneDNN has fast kernels.

    Pooling comes before relu, which then has a quarter of the work; the maximum of some numbers and 0 is the same either way.

    Args:
        network: As for `accelerate`.
        vector: The number of floats in a vector of the processor.
    """

    def __init__(self, network: Any, vector: int) -> None:
        super().__init__(network)
        self.vector = vector

    def stage(self, F: Any, images: Any, convolution: Any, first: bool) -> Any:  # noqa: N803
        outputs, channels, *kernel = convolution.weight.shape
        more_outputs = -outputs % self.vector
        more_channels = 0 if first else -channels % self.vector  # the one before has filled them up
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
