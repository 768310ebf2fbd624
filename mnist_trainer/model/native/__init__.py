"""The native operators: checks whether they can be used, loads them, and refuses unsupported arguments.

Both operators run on the CPU. The fused operator, `mnist_trainer_conv_pool_relu`, computes a 5x5 convolution with bias, a 2x2
max-pool and a ReLU in one pass. `mnist_trainer_sgd_update`, in the same library, updates all parameters in one call. The
library is written in C++; `build` builds it when it is first needed, if there is GCC 9 or newer. This module loads MXNet only
when `load` is called.
"""

import ctypes
import os
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mnist_trainer.errors import RequestError
from mnist_trainer.model.native import build
from mnist_trainer.model.native.build import MARKER, cache_folder, opened_library
from mnist_trainer.runtime import explain_mxnet_error, import_mxnet
from mnist_trainer.runtime.hardware import processor_flags

OPERATOR = "mnist_trainer_conv_pool_relu"
UPDATE_OPERATOR = "mnist_trainer_sgd_update"

# The environment variable that selects the kernels of the fused operator. It is read once, when the library is loaded. If it is
# unset or empty, the best kernels for the processor run.
VARIABLE = "MNIST_TRAINER_NATIVE"
# Name of the kernels → features that they need of the processor, by Linux's names.
_AVX2 = frozenset({"avx2", "fma"})
KERNELS = {"portable": frozenset(), "avx2": _AVX2, "avx512": _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}}


def misspelt_variable() -> str | None:
    """Return the problem of the environment variable that selects the kernels; None if it is valid."""
    wanted = os.environ.get(VARIABLE, "")
    return None if wanted in ("", *KERNELS) else f"{VARIABLE}: {wanted!r} is not one of {', '.join(KERNELS)}"


def problem() -> str | None:
    """Return the reason why the fused operator cannot be used on this machine, with a remedy; None if it can be used.

    Builds the library if it is not in the cache. Does not load it, because that would start OpenMP with the current number of
    threads.
    """
    if found := _machine_problem():
        return found
    try:
        with opened_library():
            return None
    except RequestError as error:
        return str(error)


def is_pending() -> bool:
    """Return True if the first use of the fused operator will build it."""
    return _machine_problem() is None and build.is_pending()


def built_from() -> str:
    """Return the fingerprint of the library's sources, its compiler and the user's flags.

    Raises:
        RequestError: The operator cannot be used; see `problem`.
    """
    with opened_library() as library:
        found = re.search(re.escape(MARKER) + rb"([0-9a-f]{64} compiler [^\0]*)", library.read_bytes())
    return found[1].decode("ascii", "replace") if found else ""


def compiler() -> str:
    """Return the compiler that built the library, and the user's flags; see `built_from`."""
    return built_from().partition(" compiler ")[2]


def kernels() -> str:
    """Return the name of the fused operator's kernels that run on this machine, a key of KERNELS. Call `load` first."""
    with opened_library() as library:
        ask = ctypes.CDLL(str(library)).mnist_trainer_native_kernels
    ask.restype = ctypes.c_char_p
    return str(ask().decode("ascii"))


def choose_backend(requested: str, on_cpu: bool, report: Callable[[str], object] = lambda sentence: None) -> str:
    """Choose the backend without loading the operator; see `backends.choose_backend`.

    Args:
        requested: "stock", "fused" or "auto".
        on_cpu: Whether all devices are CPU devices.
        report: Called with the reason if "auto" becomes "stock" although this machine could use the operator.

    Returns:
        "stock" or "fused".

    Raises:
        RequestError: "fused" is requested and cannot be used, or the environment variable requests unknown kernels.
    """
    if requested == "stock":
        return requested
    if misspelt := misspelt_variable():  # also for "auto", which would ignore it
        raise RequestError(misspelt)
    found = problem() if on_cpu else "the fused operator runs on the CPU only"
    if found and requested == "fused":
        raise RequestError(f"model.backend = fused: {found}; for a new run, use --set model.backend=auto")
    if found and on_cpu and _machine_problem() is None:
        report(found)
    return "stock" if found else "fused"


def load() -> None:
    """Load the operators into MXNet if they are not loaded yet.

    Raises:
        RequestError: They cannot be used or loaded. The message is that of `problem`, or has MXNet's reason.
    """
    mx = import_mxnet()
    if hasattr(mx.nd, OPERATOR):
        return
    if found := _machine_problem():
        raise RequestError(found)
    with opened_library() as library:
        try:
            mx.library.load(str(library), verbose=False)
        except (mx.MXNetError, OSError) as error:
            reason = explain_mxnet_error(error).replace(str(library.parent), str(cache_folder()))
            raise RequestError(
                f"the fused operator cannot be loaded ({reason}); remove {cache_folder()}, or set XDG_CACHE_HOME"
            ) from error


def conv_pool_relu(functions: Any, images: Any, weight: Any, bias: Any, *, images_gradient: bool = True) -> Any:
    """Compute the fused stage: convolution, max-pooling and ReLU. All arrays are float32.

    Call `load` first. Gradients are always written, never accumulated; see `refuse_added_gradients`.

    Args:
        functions: `mx.nd` or `mx.sym`, the F of a HybridBlock.
        images: Images of shape (N, C, H, W); H and W are even and at least 6.
        weight: Weight of shape (O, C, 5, 5).
        bias: Bias of shape (O,).
        images_gradient: Whether to compute the gradient of the images. False fills it with zeros, which is faster.

    Returns:
        The pooled array of shape (N, O, (H-4)/2, (W-4)/2).

    Raises:
        MXNetError: An array has a wrong shape or type.
    """
    return getattr(functions, OPERATOR)(images, weight, bias, images_gradient=images_gradient)[0]


def sgd_update(
    weights: Sequence[Any],
    gradients: Sequence[Any],
    momenta: Sequence[Any] | None,
    *,
    lrs: Sequence[float],
    wds: Sequence[float],
    rescale_grad: float,
    momentum: float,
    clip_gradient: float | None,
) -> Any:
    """Update weights like MXNet's `multi_sgd_mom_update`, or like `multi_sgd_update` without momenta, bit for bit.

    Call `load` first. This function does not wait for the device.

    Args:
        weights: The float32 weights, updated in place.
        gradients: The float32 gradient of each weight.
        momenta: The float32 momentum of each weight, updated in place; None for updates without momentum.
        lrs: The learning rate of each weight.
        wds: The weight decay of each weight.
        rescale_grad: The factor of the gradients.
        momentum: The momentum.
        clip_gradient: The bound of the gradients; None or 0 for no clipping.

    Returns:
        An array of shape (1,): 1 if all gradients are finite, else 0.

    Raises:
        MXNetError: An array has a wrong shape or type.
    """
    mx = import_mxnet()
    finite = mx.nd.empty((1,), ctx=weights[0].context)
    numbers = {"num_weights": len(weights), "lrs": lrs, "wds": wds, "rescale_grad": rescale_grad}
    if clip_gradient:
        numbers["clip_gradient"] = clip_gradient
    if momenta is None:
        arrays = [array for both in zip(weights, gradients, strict=True) for array in both]
    else:
        numbers["momentum"] = momentum
        arrays = [array for three in zip(weights, gradients, momenta, strict=True) for array in three]
    getattr(mx.nd, UPDATE_OPERATOR)(*arrays, out=[*weights, finite], **numbers)
    return finite


def refuse_added_gradients(parameters: Iterable[Any]) -> None:
    """Raise RequestError for Gluon parameters with grad_req="add".

    MXNet does not pass this request to an external operator. The operator would silently overwrite the sum.
    """
    added = [parameter.name for parameter in parameters if parameter.grad_req == "add"]
    if added:
        raise RequestError(
            f'{", ".join(added)}: the fused operator cannot accumulate gradients (grad_req="add"); set grad_req="write", or '
            "use the stock backend"
        )


def refuse_other_devices(devices: Iterable[Any]) -> None:
    """Raise RequestError for contexts other than the CPU. The operator does not support them."""
    others = [str(device) for device in devices if device.device_type not in ("cpu", "cpu_pinned", "cpu_shared")]
    if others:
        raise RequestError(f"{', '.join(others)}: the fused operator runs on the CPU only; use the stock backend")


def _machine_problem() -> str | None:
    return misspelt_variable() or _processor_problem()


def _processor_problem() -> str | None:
    # The portable kernels are slower than MXNet's own operators, so they run only on request.
    if platform.machine() != "x86_64":
        return f"the fused operator needs an x86-64 processor with AVX2, and this one is {platform.machine()}"
    wanted = os.environ.get(VARIABLE) or "avx2"
    if KERNELS[wanted] <= processor_flags():
        return None
    if wanted == "avx2":
        return f"the fused operator needs a processor with AVX2 and FMA; {VARIABLE}=portable runs it without them, but slowly"
    return f"{VARIABLE}={wanted} needs a processor with {', '.join(sorted(KERNELS[wanted]))}; unset the variable"
