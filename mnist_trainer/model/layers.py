"""Multipliers of the learning rate and the weight decay for the layers of a network, and frozen layers.

The multipliers are `lr_mult` and `wd_mult` of Gluon's parameters, which every optimizer of MXNet applies. A frozen layer has no
gradients, because some optimizers change parameters at a rate of 0, and others divide by the rate.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from mnist_trainer.config.schema import TUTORIAL_LAYERS
from mnist_trainer.errors import RequestError
from mnist_trainer.fields import did_you_mean


def set_multipliers(network: Any, layers: Mapping[str, Mapping[str, float]], function_name: str | None = None) -> None:
    """Set the multipliers of a network's parameters, and freeze those whose multiplier of the learning rate is 0.

    Frozen layers also keep the statistics of BatchNorm, and use them instead of those of the batch.

    Args:
        network: The network. It need not be initialized.
        layers: Multipliers by layer, as in the table `layers` of a configuration. A name is that of a layer of the tutorial's
            network, or for a user's network the beginning of the names in a file of `save_parameters`: a layer such as
            `features.0`, or a parameter such as `features.0.bias`. For each multiplier, the longest name that fits decides.
        function_name: The name of the user's network; None for the tutorial's.

    Raises:
        RequestError: A name fits no parameter, or no parameter is left to train.
    """
    parameters = network._collect_params_with_prefix()
    prefixes = _tutorial_prefixes(parameters) if function_name is None else {}
    known = dict.fromkeys(prefix for name in parameters for prefix in _prefixes_of(name))
    problems = []
    for layer in sorted(layers, key=len):
        prefix = prefixes.get(layer, layer)
        if prefix not in known:
            hint = did_you_mean(layer, known, f"there are {', '.join(known)}")
            problems.append(f"layers.{layer}: {function_name} has no such layer or parameter; {hint}")
        for name, parameter in parameters.items():
            if prefix in _prefixes_of(name):
                for multiplier, value in layers[layer].items():
                    setattr(parameter, multiplier, value)
    if problems:
        raise RequestError(*problems)
    for parameter in parameters.values():
        if parameter.lr_mult == 0:
            parameter.grad_req = "null"
    if all(parameter.grad_req == "null" for parameter in parameters.values()):
        raise RequestError("layers: every layer is frozen; leave one whose lr_mult is not 0")
    network.apply(_keep_statistics)


def _tutorial_prefixes(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the beginnings of the parameters' names for the layers of the tutorial's network."""
    return dict(zip(TUTORIAL_LAYERS, dict.fromkeys(name.partition(".")[0] for name in parameters), strict=True))


def _prefixes_of(name: str) -> list[str]:
    """Return the names of the layers that contain a parameter, and its own: a, a.b and a.b.weight for a.b.weight."""
    return list(accumulate(name.split("."), "{}.{}".format))


def _keep_statistics(block: Any) -> None:
    own = block._reg_params.values()
    is_normalization = "use_global_stats" in getattr(block, "_kwargs", {})
    if is_normalization and all(parameter.lr_mult == 0 for parameter in own):
        block._kwargs["use_global_stats"] = True
