"""MXNet's SGD, whose update is one operator of our own for all parameters; it tells on its way whether a gradient is finite.

The numbers are those of `mx.optimizer.SGD`, bit by bit; what is done with learning rates is known to `trainer`.
"""

import sys
from collections.abc import Sequence
from typing import Any

from mnist_trainer.model import native
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.runtime.devices import are_cpu

mx = import_mxnet()


class FusedSGD(mx.optimizer.SGD):  # type: ignore[misc,name-defined]  # MXNet has no types
    """SGD with momentum, weight decay and clipping, for dense float32 parameters on one CPU device. Takes SGD's arguments.

    finite: after an update, an array of shape (1,): 1 if every number of all its gradients is finite, else 0.

    Needs `native.load` before the first update.
    """

    finite: Any = None

    def __init__(self, momentum: float = 0.0, **arguments: Any) -> None:
        super().__init__(momentum=momentum, **arguments)
        self.aggregate_num = sys.maxsize  # has MXNet give all parameters to one call

    def _update_impl(
        self, indices: Sequence[int], weights: Sequence[Any], grads: Sequence[Any], states: Sequence[Any], **_: Any
    ) -> None:
        self._update_count(indices)
        self.finite = native.sgd_update(
            weights,
            grads,
            states if self.momentum > 0 else None,
            lrs=self._get_lrs(indices),
            wds=self._get_wds(indices),
            rescale_grad=self.rescale_grad,
            momentum=self.momentum,
            clip_gradient=self.clip_gradient,
        )


def choose_optimizer(name: str, backend: str, devices: Sequence[Any]) -> Any:
    """Return what `create_trainer` makes the optimizer of: the name of MXNet's, or FusedSGD in place of SGD.

    Args:
        name: The name of an MXNet optimizer.
        backend: From `choose_backend`. With "fused" the operator is loaded.
        devices: The devices of the parameters.
    """
    is_one_cpu = len(devices) == 1 and are_cpu(devices)
    return FusedSGD if name.lower() == "sgd" and backend == "fused" and is_one_cpu else name
