"""Names of devices resolved to MXNet contexts: real CPU devices, and GPUs simulated by replacing three functions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_names, refused
from conftest import Snapshot

from mnist_trainer.errors import RequestError
from mnist_trainer.runtime import devices, import_mxnet, nvidia
from mnist_trainer.runtime.devices import device_name, gpu_problem, resolve_devices, run_tiny_operation
from mnist_trainer.runtime.nvidia import DriverError, Gpu

mx = import_mxnet()

# Words that a message contains in addition to the device.
CPU_BUILD = ("CPU build", "scripts/setup_gpu.sh", "--device cpu")
NO_GPU = ("no GPU", "nvidia-smi", "--device cpu")
NO_SECOND = ("GPU number 1", " is gpu:0")
OUT_OF_MEMORY = ("GPU 0", "(cudaMalloc retry failed: out of memory)", "--device cpu")

A100, H100 = Gpu("NVIDIA A100", (8, 0)), Gpu("NVIDIA H100", (9, 0))

# Messages of MXNet 1.9.1: a traceback, and the reason in the last line.
NO_KERNEL_ERROR = """Traceback (most recent call last):
  File "../src/operator/./mxnet_op.h", line 1141
Name: Check failed: err == cudaSuccess (209 vs. 0) : mxnet_generic_kernel ErrStr:no kernel image is available for \
execution on the device
"""

OUT_OF_MEMORY_ERROR = """Traceback (most recent call last):
  File "../src/storage/./pooled_storage_manager.h", line 192
MXNetError: cudaMalloc retry failed: out of memory
"""


def too_new(number: int, gpu: Gpu = H100) -> tuple[str, ...]:
    return f"GPU {number} ({gpu})", "MXNet 1.9.1", "5.0 to 8.9", "another GPU", "--device cpu"


def assert_devices_refused(name: str, named: Sequence[tuple[str, ...]]) -> str:
    """Assert that each problem of this name names its words; return all of them as one text."""
    with pytest.raises(RequestError) as caught:
        resolve_devices(name)
    for problem, words in zip(caught.value.problems, named, strict=True):
        assert_names(problem, f"--device {name}: ", *words)
    return str(caught.value)


class Gpus:
    """Simulated GPUs: the list that the driver shows, and the error of the first operation on some of them."""

    def __init__(self, there: Sequence[Gpu] | Exception, errors: dict[int, str]) -> None:
        self.there = there
        self.errors = errors
        self.tried: list[int] = []

    def show(self) -> list[Gpu]:
        if isinstance(self.there, Exception):
            raise self.there
        return list(self.there)

    def run(self, context: Any) -> None:
        assert context.device_type == "gpu"
        self.tried.append(context.device_id)
        if context.device_id in self.errors:
            raise mx.MXNetError(self.errors[context.device_id])


PlugIn = Callable[..., Gpus]


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> PlugIn:
    """Make this MXNet a GPU build with simulated GPUs, some of which fail."""

    def plug_in(there: Sequence[Gpu] | Exception, errors: dict[int, str] | None = None) -> Gpus:
        gpus = Gpus(there, errors or {})
        monkeypatch.setattr(devices, "built_with_cuda", lambda: True)
        monkeypatch.setattr(nvidia, "gpus", gpus.show)
        monkeypatch.setattr(devices, "run_tiny_operation", gpus.run)
        return gpus

    return plug_in


# --- this machine


@pytest.mark.parametrize(
    ("name", "numbers", "read_back"),
    [
        pytest.param("cpu", [0], "cpu", id="cpu"),
        pytest.param("cpu:0", [0], "cpu", id="cpu by its number"),
        pytest.param("cpu:1", [1], "cpu:1", id="another cpu"),
        pytest.param("cpu:0,1", [0, 1], "cpu:0,1", id="two"),
        pytest.param("cpu:2,0,1", [2, 0, 1], "cpu:2,0,1", id="three in another order"),
        pytest.param("auto", [0], "cpu", id="auto without a GPU"),
    ],
)
def test_cpu_devices(name: str, numbers: list[int], read_back: str) -> None:
    devices = resolve_devices(name)
    assert devices == [mx.cpu(number) for number in numbers]
    assert device_name(devices) == read_back
    assert resolve_devices(device_name(devices)) == devices
    for context in devices:
        run_tiny_operation(context)
        assert (mx.nd.ones((2,), ctx=context) + 1).context == context


def test_the_tiny_operation_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # MXNet computes asynchronously: an error of the device is raised when the result is fetched.
    waited_for: list[Any] = []
    for name in ("asnumpy", "wait_to_read"):
        real = getattr(mx.nd.NDArray, name)

        def fetch(array: Any, real: Any = real) -> Any:
            waited_for.append(array.context)
            return real(array)

        monkeypatch.setattr(mx.nd.NDArray, name, fetch)
    run_tiny_operation(mx.cpu(1))
    assert waited_for == [mx.cpu(1)]


@pytest.mark.parametrize("name", ["gpu", "gpu:0", "gpu:1", "gpu:0,1"])
def test_a_gpu_on_the_cpu_build(name: str) -> None:
    assert_devices_refused(name, [CPU_BUILD])


def test_the_replaced_functions_on_this_machine(snapshot: Snapshot) -> None:
    assert not devices.built_with_cuda()
    with pytest.raises(mx.MXNetError, match="is not implemented for GPU"):
        run_tiny_operation(mx.gpu())
    snapshot(str(gpu_problem(0)))


def test_problems_of_device_and_data_are_reported_together(tmp_path: Path) -> None:
    nowhere, output = tmp_path / "nowhere", tmp_path / "run"
    problems = refused("train", "--device", "gpu:3", "--data-dir", nowhere, "--output", output)
    (of_device,) = (problem for problem in problems if problem.startswith("--device"))
    assert_names(of_device, "--device gpu:3: ", *CPU_BUILD)
    assert any(problem.startswith(f"{nowhere / 'train-images-idx3-ubyte.gz'}: ") for problem in problems)
    assert list(tmp_path.iterdir()) == []


# --- other machines


@pytest.mark.parametrize(
    ("name", "there", "errors", "named", "tried"),
    [
        pytest.param(
            "gpu",
            DriverError("NVIDIA's driver failed: cuInit returned error 999 (unknown error)"),
            {},
            [("NVIDIA's driver failed: cuInit returned error 999 (unknown error)", "nvidia-smi", "--device cpu")],
            [],
            id="no driver",
        ),
        pytest.param("gpu", [], {}, [NO_GPU], [], id="no GPU"),
        pytest.param("gpu:0,1", [], {}, [NO_GPU], [], id="no GPU, reported once for two"),
        pytest.param("gpu:1", [A100], {}, [NO_SECOND], [], id="a number too high by one"),
        pytest.param("gpu:0,1", [A100], {}, [NO_SECOND], [0], id="the second number too high by one"),
        pytest.param("gpu", [H100], {}, [too_new(0)], [], id="too new by its capability"),
        pytest.param("gpu:0,1", [A100, H100], {}, [too_new(1)], [0], id="the second too new by its capability"),
        pytest.param("gpu", [A100], {0: NO_KERNEL_ERROR}, [too_new(0, A100)], [0], id="too new by an error of MXNet"),
        pytest.param("gpu:1", [A100, A100], {1: NO_KERNEL_ERROR}, [too_new(1, A100)], [1], id="the second too new"),
        pytest.param("gpu", [A100], {0: OUT_OF_MEMORY_ERROR}, [OUT_OF_MEMORY], [0], id="out of memory"),
        pytest.param("gpu", [A100], {0: ""}, [("GPU 0", "(MXNetError)", "--device cpu")], [0], id="no reason"),
        pytest.param("gpu:0,1", [A100, A100], {1: NO_KERNEL_ERROR}, [too_new(1, A100)], [0, 1], id="one of two too new"),
        pytest.param(
            "gpu:0,1",
            [A100, A100],
            {0: OUT_OF_MEMORY_ERROR, 1: NO_KERNEL_ERROR},
            [OUT_OF_MEMORY, too_new(1, A100)],
            [0, 1],
            id="both, for different reasons",
        ),
    ],
)
def test_a_gpu_that_cannot_be_used(
    name: str,
    there: Sequence[Gpu] | Exception,
    errors: dict[int, str],
    named: list[tuple[str, ...]],
    tried: list[int],
    plug_in: PlugIn,
    snapshot: Snapshot,
) -> None:
    gpus = plug_in(there, errors)
    message = assert_devices_refused(name, named)
    assert gpus.tried == tried
    snapshot(message)


def test_a_number_far_too_high_names_the_gpus_that_are_there(plug_in: PlugIn) -> None:
    plug_in([A100] * 3)
    assert_names(str(gpu_problem(7)), "", "GPU number 7", " are gpu:0, gpu:1, gpu:2")


@pytest.mark.parametrize(
    ("name", "there", "errors", "numbers", "read_back"),
    [
        pytest.param("gpu", [A100], {}, [0], "gpu:0", id="the only one"),
        pytest.param("gpu", [A100, A100], {1: NO_KERNEL_ERROR}, [0], "gpu:0", id="the first, although the second fails"),
        pytest.param("gpu:1", [A100, A100], {0: NO_KERNEL_ERROR}, [1], "gpu:1", id="the second, although the first fails"),
        pytest.param("gpu:0,1", [A100, A100], {}, [0, 1], "gpu:0,1", id="both"),
        pytest.param("gpu:2,0", [A100] * 3, {}, [2, 0], "gpu:2,0", id="two of three in another order"),
    ],
)
def test_a_gpu_that_works(
    name: str, there: Sequence[Gpu], errors: dict[int, str], numbers: list[int], read_back: str, plug_in: PlugIn
) -> None:
    gpus = plug_in(there, errors)
    devices = resolve_devices(name)
    assert devices == [mx.gpu(number) for number in numbers]
    assert gpus.tried == numbers, "each has been tried"
    assert device_name(devices) == read_back
    assert resolve_devices(device_name(devices)) == devices


@pytest.mark.parametrize(
    ("there", "errors", "chosen"),
    [
        pytest.param([A100], {}, "gpu:0", id="it works"),
        pytest.param([A100, A100], {1: NO_KERNEL_ERROR}, "gpu:0", id="the first works"),
        pytest.param([A100], {0: NO_KERNEL_ERROR}, "cpu", id="it is too new"),
        pytest.param([A100], {0: OUT_OF_MEMORY_ERROR}, "cpu", id="it is full"),
        pytest.param([], {}, "cpu", id="there is none"),
        pytest.param(DriverError("no driver"), {}, "cpu", id="the driver does not answer"),
    ],
)
def test_auto_uses_a_gpu_only_if_it_works(
    there: Sequence[Gpu] | Exception, errors: dict[int, str], chosen: str, plug_in: PlugIn
) -> None:
    gpus = plug_in(there, errors)
    assert device_name(resolve_devices("auto")) == chosen
    assert gpus.tried == ([0] if there == [A100] or there == [A100, A100] else [])


def test_a_real_error_of_mxnet_is_reported(plug_in: PlugIn, monkeypatch: pytest.MonkeyPatch) -> None:
    # When the CPU build is asked to compute on a GPU, it raises a real error of MXNet 1.9.1.
    plug_in([A100])
    monkeypatch.setattr(devices, "run_tiny_operation", run_tiny_operation)
    assert_names(str(gpu_problem(0)), "GPU 0 ", "(Operator _zeros is not implemented for GPU.)", "--device cpu")
    assert device_name(resolve_devices("auto")) == "cpu"


def test_train_refuses_a_gpu_that_is_too_new(plug_in: PlugIn, tmp_path: Path) -> None:
    plug_in([A100, A100], {1: NO_KERNEL_ERROR})
    (problem,) = refused("train", "--device", "gpu:0,1", "--output", tmp_path / "run")
    assert_names(problem, "--device gpu:0,1: ", *too_new(1, A100))
    assert list(tmp_path.iterdir()) == []


def test_the_gpu_build_cannot_train_on_the_cpu_if_cuda_does_not_respond(
    monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    reason = "CUDA: Check failed: e == cudaSuccess (36 vs. 0) : API call is not supported"

    def fail() -> int:
        raise mx.MXNetError(f"Traceback:\n  {reason}")

    monkeypatch.setattr(mx.context, "num_gpus", fail)
    for name in ("cpu", "auto", "cpu:0,1"):
        with pytest.raises(RequestError) as caught:
            resolve_devices(name)
        (problem,) = caught.value.problems
        assert_names(problem, "", "GPU build", "CPU", f"({reason})", "nvidia-smi", "mxnet==1.9.1")
    snapshot(problem)
