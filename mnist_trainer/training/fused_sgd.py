"""MXNet's SGD with one operator for all updates, which also checks whether all gradients are finite.

The results are the same as those of `mx.optimizer.SGD`, bit for bit. `trainer` sets the learning rates.
"""

import sys
from collections.abc import Sequence
from typing import Any

from mnist_trainer.model import native
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.runtime.devices import are_cpu

mx = import_mxnet()


class FusedSGD(mx.optimizer.SGD):  # type: ignore[misc,name-defined]  # MXNet has no types
    """SGD with momentum, weight decay and clipping, for dense float32 parameters on one CPU device.

    `native.load` must be called before the first update.

    Args:
        momentum: The momentum.
        **arguments: The other arguments of `mx.optimizer.SGD`.

    Attributes:
        finite: An array of shape (1,): 1 if all gradients of the last update are finite, else 0.
    """

    finite: Any = None

    def __init__(self, momentum: float = 0.0, **arguments: Any) -> None:
        super().__init__(momentum=momentum, **arguments)
        self.aggregate_num = sys.maxsize  # so that MXNet passes all parameters in one call

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
    """Choose the optimizer to pass to `create_trainer`.

    Args:
        name: The name of an MXNet optimizer.
        backend: The backend, from `choose_backend`. With "fused", the operator is already loaded.
        devices: The devices of the parameters.

    Returns:
        `FusedSGD` in place of "sgd" with the fused backend on one CPU device; otherwise `name`.
    """
    is_one_cpu = len(devices) == 1 and are_cpu(devices)
    return FusedSGD if name.lower() == "sgd" and backend == "fused" and is_one_cpu else name
