"""Resolves names of devices, such as "auto", "cpu", "gpu", "gpu:1" and "gpu:0,1", to MXNet contexts.

A GPU is usable if NVIDIA's driver shows it, MXNet 1.9.1 has machine code for it, and a tiny operation on it succeeds. MXNet's
own count includes GPUs without machine code. `nvidia` queries the driver.
"""

from collections.abc import Iterable
from typing import Any

from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import MXNET_VERSION, explain_mxnet_error, import_mxnet, nvidia

mx = import_mxnet()


def resolve_devices(name: str) -> list[Any]:
    """Return the MXNet contexts for a name.

    Args:
        name: "auto" (the first GPU if it works, otherwise the CPU), "cpu", "gpu", or one of the latter two with indices, such
            as "gpu:1" or "gpu:0,1".

    Returns:
        One or more contexts, all of which work.

    Raises:
        RequestError: A device does not work. The message contains the reason and a remedy.
    """
    if name == "auto":
        return [mx.gpu(0)] if gpu_problem(0) is None else resolve_devices("cpu")
    kind, _, indices = name.partition(":")
    numbers = [int(index) for index in indices.split(",")] if indices else [0]
    if kind == "cpu":
        _refuse_silent_cuda()
        return [mx.cpu(number) for number in numbers]
    problems = [problem for number in numbers if (problem := gpu_problem(number))]
    if problems:
        raise RequestError(*(f"--device {name}: {problem}" for problem in dict.fromkeys(problems)))
    return [mx.gpu(number) for number in numbers]


def device_name(devices: list[Any]) -> str:
    """Return the name of devices, such as "cpu", "gpu:0" or "gpu:0,1". `resolve_devices` returns the devices for it."""
    kind = devices[0].device_type
    numbers = [device.device_id for device in devices]
    return kind if (kind, numbers) == ("cpu", [0]) else f"{kind}:{','.join(map(str, numbers))}"


def are_cpu(devices: Iterable[Any]) -> bool:
    """Return True if all devices are CPU devices."""
    return all(device.device_type == "cpu" for device in devices)


def gpu_problem(number: int) -> str | None:
    """Return the reason why a GPU cannot be used, with a remedy; None if it works.

    Args:
        number: The number of the GPU, counted from 0.
    """
    if not built_with_cuda():
        return "this MXNet is the CPU build; for a GPU run scripts/setup_gpu.sh of the repository, or run with --device cpu"
    try:
        there = nvidia.gpus()
    except nvidia.DriverError as error:
        return f"{error}; check the output of nvidia-smi, or run with --device cpu"
    if not there:
        return "NVIDIA's driver shows no GPU; check the output of nvidia-smi, or run with --device cpu"
    if number >= len(there):
        names = ", ".join(f"gpu:{index}" for index in range(len(there)))
        return f"there is no GPU number {number}; {'the only GPU is' if len(there) == 1 else 'the GPUs are'} {names}"
    try:
        if there[number].has_machine_code:
            run_tiny_operation(mx.gpu(number))
            return None
    except mx.MXNetError as error:
        if "no kernel image" not in str(error):
            return f"GPU {number} fails at its first operation ({explain_mxnet_error(error)}); run with --device cpu"
    return (
        f"MXNet {MXNET_VERSION} has no machine code for GPU {number} ({there[number]}): it supports only compute capability "
        "5.0 to 8.9 (Maxwell to Ada); use another GPU, or run with --device cpu"
    )


def _refuse_silent_cuda() -> None:
    # MXNet's GPU build queries CUDA's number of devices in each backward pass, even on the CPU.
    try:
        mx.context.num_gpus()
    except mx.MXNetError as error:
        raise RequestError(
            f"MXNet's GPU build cannot train, even on the CPU, while CUDA does not respond ({explain_mxnet_error(error)}); "
            f"check the output of nvidia-smi, or replace the GPU build with mxnet=={MXNET_VERSION}"
        ) from error


def built_with_cuda() -> bool:
    """Return True if this MXNet is a GPU build."""
    return bool(mx.runtime.Features().is_enabled("CUDA"))


def run_tiny_operation(device: Any) -> None:
    """Run one addition on a device and wait for the result.

    Args:
        device: The MXNet context.

    Raises:
        MXNetError: The operation failed.
    """
    if device.device_type == "gpu":
        mx.context.num_gpus()  # raises an error with the reason if CUDA cannot use the driver, for example an old one
    (mx.nd.zeros((1,), ctx=device) + 1).asnumpy()
