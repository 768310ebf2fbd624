"""From a device's name to MXNet contexts: for real on the CPU; a GPU that is not here answers through the three seams."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Program

from mnist_trainer import devices, nvidia
from mnist_trainer.cli import main
from mnist_trainer.devices import device_name, gpu_problem, resolve_devices, run_tiny_operation
from mnist_trainer.errors import RequestError
from mnist_trainer.nvidia import DriverError, Gpu
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

CPU_BUILD = "this MXNet is the CPU build; for a GPU run scripts/setup_gpu.sh of the repository, or run with --device cpu"
NO_GPU = "NVIDIA's driver shows no GPU; see what nvidia-smi says, or run with --device cpu"

A100, H100 = Gpu("NVIDIA A100", (8, 0)), Gpu("NVIDIA H100", (9, 0))

# As MXNet 1.9.1 words them: a traceback of its own, and the reason in the last line.
NO_KERNEL_ERROR = """Traceback (most recent call last):
  File "../src/operator/./mxnet_op.h", line 1141
Name: Check failed: err == cudaSuccess (209 vs. 0) : mxnet_generic_kernel ErrStr:no kernel image is available for \
execution on the device
"""

OUT_OF_MEMORY_ERROR = """Traceback (most recent call last):
  File "../src/storage/./pooled_storage_manager.h", line 192
MXNetError: cudaMalloc retry failed: out of memory
"""


def too_new(number: int, gpu: Gpu = H100) -> str:
    return (
        f"MXNet 1.9.1 has no machine code for GPU {number} ({gpu}): it knows compute capability 5.0 to 8.9 "
        "(Maxwell to Ada), nothing older or newer; use another GPU, or run with --device cpu"
    )


class Gpus:
    """GPUs that are not here: what the driver shows, and what happens to the first operation on each."""

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
    """Makes this MXNet a GPU build with these GPUs, some of which fail."""

    def plug_in(there: Sequence[Gpu] | Exception, errors: dict[int, str] | None = None) -> Gpus:
        gpus = Gpus(there, errors or {})
        monkeypatch.setattr(devices, "built_with_cuda", lambda: True)
        monkeypatch.setattr(nvidia, "gpus", gpus.show)
        monkeypatch.setattr(devices, "run_tiny_operation", gpus.run)
        return gpus

    return plug_in


# --- as it is here


@pytest.mark.parametrize(
    ("name", "numbers", "read_back"),
    [
        pytest.param("cpu", [0], "cpu", id="cpu"),
        pytest.param("cpu:0", [0], "cpu", id="cpu by its number"),
        pytest.param("cpu:1", [1], "cpu:1", id="another cpu"),
        pytest.param("cpu:0,1", [0, 1], "cpu:0,1", id="two"),
        pytest.param("cpu:2,0,1", [2, 0, 1], "cpu:2,0,1", id="three in an order of their own"),
        pytest.param("auto", [0], "cpu", id="auto without a GPU"),
    ],
)
def test_cpu_devices(name: str, numbers: list[int], read_back: str) -> None:
    contexts = resolve_devices(name)
    assert contexts == [mx.cpu(number) for number in numbers]
    assert device_name(contexts) == read_back
    assert resolve_devices(device_name(contexts)) == contexts
    for context in contexts:
        run_tiny_operation(context)
        assert (mx.nd.ones((2,), ctx=context) + 1).context == context


def test_the_tiny_operation_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # MXNet computes behind the caller's back; an error of the device shows when its result is fetched.
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
    with pytest.raises(RequestError) as caught:
        resolve_devices(name)
    assert caught.value.problems == (f"--device {name}: {CPU_BUILD}",)


def test_the_seams_tell_what_is_here() -> None:
    assert not devices.built_with_cuda()
    with pytest.raises(mx.MXNetError, match="is not implemented for GPU"):
        run_tiny_operation(mx.gpu())


def test_train_on_a_gpu_with_the_cpu_build(tmp_path: Path, program: Program) -> None:
    done = program("train", "--device", "gpu", "--output", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"mnist-trainer: --device gpu: {CPU_BUILD}\n"
    assert not (tmp_path / "run").exists()


def test_device_and_data_are_complained_of_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    assert main(["train", "--device", "gpu:3", "--data-dir", str(tmp_path / "nowhere"), "--output", str(output)]) == 2
    told = capsys.readouterr().err
    assert f"mnist-trainer: --device gpu:3: {CPU_BUILD}\n" in told
    assert f"{tmp_path / 'nowhere' / 'train-images-idx3-ubyte.gz'}: expected a file" in told
    assert not output.exists()


# --- as it is elsewhere


@pytest.mark.parametrize(
    ("name", "there", "errors", "problems", "tried"),
    [
        pytest.param(
            "gpu",
            DriverError("NVIDIA's driver answers cuInit with error 999 (unknown error)"),
            {},
            [
                "NVIDIA's driver answers cuInit with error 999 (unknown error); "
                "see what nvidia-smi says, or run with --device cpu"
            ],
            [],
            id="no driver",
        ),
        pytest.param("gpu", [], {}, [NO_GPU], [], id="no GPU"),
        pytest.param("gpu:0,1", [], {}, [NO_GPU], [], id="no GPU, said once for two"),
        pytest.param("gpu:1", [A100], {}, ["there is no GPU number 1; there is gpu:0"], [], id="a number too high by one"),
        pytest.param(
            "gpu:0,1", [A100], {}, ["there is no GPU number 1; there is gpu:0"], [0], id="the second number too high by one"
        ),
        pytest.param("gpu", [H100], {}, [too_new(0)], [], id="too new, as the driver tells"),
        pytest.param("gpu:0,1", [A100, H100], {}, [too_new(1)], [0], id="the second too new, as the driver tells"),
        pytest.param("gpu", [A100], {0: NO_KERNEL_ERROR}, [too_new(0, A100)], [0], id="too new, as MXNet finds"),
        pytest.param("gpu:1", [A100, A100], {1: NO_KERNEL_ERROR}, [too_new(1, A100)], [1], id="the second too new"),
        pytest.param(
            "gpu",
            [A100],
            {0: OUT_OF_MEMORY_ERROR},
            [
                "GPU 0 fails at its first operation (cudaMalloc retry failed: out of memory); run with --device cpu",
            ],
            [0],
            id="out of memory",
        ),
        pytest.param(
            "gpu",
            [A100],
            {0: ""},
            ["GPU 0 fails at its first operation (MXNetError); run with --device cpu"],
            [0],
            id="no reason",
        ),
        pytest.param("gpu:0,1", [A100, A100], {1: NO_KERNEL_ERROR}, [too_new(1, A100)], [0, 1], id="one of two too new"),
        pytest.param(
            "gpu:0,1",
            [A100, A100],
            {0: OUT_OF_MEMORY_ERROR, 1: NO_KERNEL_ERROR},
            [
                "GPU 0 fails at its first operation (cudaMalloc retry failed: out of memory); run with --device cpu",
                too_new(1, A100),
            ],
            [0, 1],
            id="both, each in its own way",
        ),
    ],
)
def test_a_gpu_that_cannot_be_used(
    name: str, there: Sequence[Gpu] | Exception, errors: dict[int, str], problems: list[str], tried: list[int], plug_in: PlugIn
) -> None:
    gpus = plug_in(there, errors)
    with pytest.raises(RequestError) as caught:
        resolve_devices(name)
    assert list(caught.value.problems) == [f"--device {name}: {problem}" for problem in problems]
    assert gpus.tried == tried


def test_a_number_far_too_high_names_the_gpus_that_are_there(plug_in: PlugIn) -> None:
    plug_in([A100] * 3)
    problem = gpu_problem(7)
    assert problem is not None
    assert problem.startswith("there is no GPU number 7; there ")
    assert problem.endswith(" gpu:0, gpu:1, gpu:2")


@pytest.mark.parametrize(
    ("name", "there", "errors", "numbers", "read_back"),
    [
        pytest.param("gpu", [A100], {}, [0], "gpu:0", id="the only one"),
        pytest.param("gpu", [A100, A100], {1: NO_KERNEL_ERROR}, [0], "gpu:0", id="the first, whatever the second does"),
        pytest.param("gpu:1", [A100, A100], {0: NO_KERNEL_ERROR}, [1], "gpu:1", id="the second, whatever the first does"),
        pytest.param("gpu:0,1", [A100, A100], {}, [0, 1], "gpu:0,1", id="both"),
        pytest.param("gpu:2,0", [A100] * 3, {}, [2, 0], "gpu:2,0", id="two of three in an order of their own"),
    ],
)
def test_a_gpu_that_works(
    name: str, there: Sequence[Gpu], errors: dict[int, str], numbers: list[int], read_back: str, plug_in: PlugIn
) -> None:
    gpus = plug_in(there, errors)
    contexts = resolve_devices(name)
    assert contexts == [mx.gpu(number) for number in numbers]
    assert gpus.tried == numbers, "each has been tried"
    assert device_name(contexts) == read_back
    assert resolve_devices(device_name(contexts)) == contexts


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
def test_auto_takes_a_gpu_only_if_it_works(
    there: Sequence[Gpu] | Exception, errors: dict[int, str], chosen: str, plug_in: PlugIn
) -> None:
    gpus = plug_in(there, errors)
    assert device_name(resolve_devices("auto")) == chosen
    assert gpus.tried == ([0] if there == [A100] or there == [A100, A100] else [])


def test_a_real_error_of_mxnet_is_told_in_a_sentence(plug_in: PlugIn, monkeypatch: pytest.MonkeyPatch) -> None:
    # The CPU build, asked to compute on a GPU, answers with an error as MXNet 1.9.1 words it.
    plug_in([A100])
    monkeypatch.setattr(devices, "run_tiny_operation", run_tiny_operation)
    told = "GPU 0 fails at its first operation (Operator _zeros is not implemented for GPU.); run with --device cpu"
    assert gpu_problem(0) == told
    assert device_name(resolve_devices("auto")) == "cpu"


def test_train_says_it_of_a_gpu_that_is_too_new(plug_in: PlugIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plug_in([A100, A100], {1: NO_KERNEL_ERROR})
    output = tmp_path / "run"
    assert main(["train", "--device", "gpu:0,1", "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"mnist-trainer: --device gpu:0,1: {too_new(1, A100)}\n")
    assert not output.exists()


def test_several_gpus_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "built_with_cuda", lambda: True)
    monkeypatch.setattr(nvidia, "gpus", lambda: [A100, A100])
    assert "there are gpu:0, gpu:1" in str(devices.gpu_problem(7))


def test_the_gpu_build_cannot_train_on_the_cpu_either_while_cuda_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise mx.MXNetError("Traceback:\n  CUDA: Check failed: e == cudaSuccess (36 vs. 0) : API call is not supported")

    monkeypatch.setattr(mx.context, "num_gpus", fail)
    sentence = (
        "MXNet's GPU build cannot train on the CPU either while CUDA does not answer "
        "(CUDA: Check failed: e == cudaSuccess (36 vs. 0) : API call is not supported); "
        "see what nvidia-smi says, or replace it by mxnet==1.9.1"
    )
    for name in ("cpu", "auto", "cpu:0,1"):
        with pytest.raises(RequestError) as caught:
            resolve_devices(name)
        assert caught.value.problems == (sentence,)
