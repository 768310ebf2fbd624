"""How the network's insides are computed faster than they are written, from the same parameters.

`build_cnn` says what the network is, and keeps the parameters. What is made here gives the same logits and the same gradients
of the parameters, but for rounding: the two stages of convolution, pooling and relu either from MXNet's stock operators
on channels filled up to what the processor likes, or from one operator of our own (`native`).
"""

from collections.abc import Sequence
from typing import Any

from mnist_trainer.errors import RequestError
from mnist_trainer.model import native
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.runtime.devices import are_cpu
from mnist_trainer.runtime.hardware import floats_in_a_vector

mx = import_mxnet()


def choose_stages(requested: str, contexts: Sequence[Any]) -> str:
    """ "stock" or "fused": what was requested, or for "auto" the fused ones where they can be used, which then are loaded.

    Raises RequestError when fused stages are requested and cannot be used, and when the environment asks for other kernels than
    there are.
    """
    chosen = native.choose_stages(requested, are_cpu(contexts))
    if chosen == "fused":
        try:
            native.load()
        except RequestError:
            if requested == "fused":
                raise
            return "stock"
    return chosen


def with_stages(net: Any, stages: str, contexts: Sequence[Any]) -> Any:
    """A HybridBlock that computes what `net` does, from its parameters: images (N, 1, 28, 28) to logits (N, 10).

    net: of `build_cnn`, initialised, its shapes known (`initialize`).
    stages: "stock" or "fused", as `choose_stages` has chosen. Fused ones leave the gradient of the images, which no training
        asks for, at zero.
    contexts: where it will run.

    Raises RequestError when fused stages cannot be loaded, or are of no use for these contexts or parameters; ValueError when
    shapes are not known yet.
    """
    convolutions = [layer for layer in net if isinstance(layer, mx.gluon.nn.Conv2D)]
    parameters = [parameter for layer in convolutions for parameter in (layer.weight, layer.bias)]
    if any(0 in parameter.shape for parameter in parameters):
        raise ValueError("net has parameters without shapes; call initialize(net) first")
    if stages == "fused":
        native.refuse_other_devices(contexts)
        native.refuse_added_gradients(parameters)
        native.load()
        return FusedStages(net)
    return StockStages(net, floats_in_a_vector() if are_cpu(contexts) else 1)


class _Stages(mx.gluon.HybridBlock):  # type: ignore[misc,name-defined]  # MXNet has no types
    """The network, whose two stages somebody else computes."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net  # a child, so that its parameters are this block's
        self.hybridize()  # `stage` speaks of parameters as symbols

    def hybrid_forward(self, F: Any, images: Any) -> Any:  # noqa: N803 - as Gluon calls it
        convolution1, _, convolution2, _, flatten, dense1, dense2 = self.net
        pooled = self.stage(F, images, convolution1, first=True)
        pooled = self.stage(F, pooled, convolution2, first=False)
        return dense2(dense1(flatten(pooled)))

    def stage(self, F: Any, images: Any, convolution: Any, first: bool) -> Any:  # noqa: N803
        """Convolution, relu and 2×2 max-pooling: (N, C, H, W) to (N, O, (H−4)/2, (W−4)/2)."""
        raise NotImplementedError


class FusedStages(_Stages):
    """One operator a stage; see `native`."""

    def stage(self, F: Any, images: Any, convolution: Any, first: bool) -> Any:  # noqa: N803
        weight, bias = convolution.weight.var(), convolution.bias.var()
        return native.conv_pool_relu(F, images, weight, bias, images_gradient=not first)


class StockStages(_Stages):
    """MXNet's operators, on channels filled up with zeros to whole vectors: oneDNN has fast kernels for these alone.

    Pooling comes before relu, which then has a quarter of the work; the greatest of some numbers and 0 is the same either way.
    """

    def __init__(self, net: Any, vector: int) -> None:
        super().__init__(net)
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
