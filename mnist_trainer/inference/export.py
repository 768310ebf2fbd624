"""Exports a run's model for other programs: as ONNX, or as MXNet's symbol and parameters.

An export is written to temporary files first. They get their final names only after an independent reader has loaded them and
has predicted the same as the model on real images. `predictor` opens the model.
"""

import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mnist_trainer.data.loaders import network_input
from mnist_trainer.errors import RequestError, RunError
from mnist_trainer.folder import Folder
from mnist_trainer.inference.predictor import Model, softmax
from mnist_trainer.inference.preprocessing import BOX_SIDE, CENTRE
from mnist_trainer.runtime import explain_failure, import_mxnet, package_version

mx = import_mxnet()

_INPUT, _OUTPUT = "images", "logits"
_OPSET = 13  # MXNet 1.9.1 writes its operators
_IR_VERSION = 8  # version of the file format; readers since 2021 support it
_MAX_DIFFERENCE = 1e-5  # between the probabilities of the model and those of the reader

_BATCHES = (1, 2, 10, 100)  # sizes of the first batches for the reader; the others have the next size
_BATCH = 1000

_ENDINGS = ("-symbol.json", "-0000.params")
"""Endings of the names of MXNet's two files."""

_DRAFT = "export"
_DRAFTS = (f"{_DRAFT}.onnx", *(f"{_DRAFT}{ending}" for ending in _ENDINGS))

Read = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""A function of an exported file's reader: from images, shape (N, 1, height, width), to logits, shape (N, classes)."""


class ReadBack(NamedTuple):
    """The result of checking an export with an independent reader.

    Attributes:
        files: The exported files.
        reader: The name and version of the reader.
        images: The number of images compared.
        max_difference: The largest difference between a probability of the reader and that of the model, over these images.
    """

    files: Sequence[Path]
    reader: str
    images: int
    max_difference: float


def export_onnx(model: Model, path: Path, images: npt.NDArray[np.uint8]) -> ReadBack:
    """Write the network as an ONNX file.

    Its input is `images`, float32, shape (batch, 1, height, width) for any batch size; its output is `logits`, shape
    (batch, classes). The metadata specify the preprocessing of the images and identify the run's parameters.

    Args:
        model: The model to export.
        path: The file to write; its name ends in .onnx.
        images: Real images for the check with onnxruntime, shape (N, height, width), unsigned bytes.

    Returns:
        The result of the check.

    Raises:
        RequestError: The network is a plain Block, the extra `onnx` is not installed, or the file cannot be written.
        RunError: MXNet failed, the file cannot be loaded, or the reader predicts something else.
    """
    _require_hybrid(model)
    onnx, onnxruntime = _extra("onnx"), _extra("onnxruntime")
    with _drafts(path) as folder:
        draft = folder / f"{_DRAFT}.onnx"
        _restore_mapping(onnx)
        _convert(model, draft)
        content = onnx.load(str(draft))
        _describe(onnx, content, model)
        onnx.save(content, str(draft))
        try:
            onnx.checker.check_model(str(draft), full_check=True)
            session = onnxruntime.InferenceSession(str(draft), providers=["CPUExecutionProvider"])
        except Exception as error:  # both packages have many exceptions of their own
            raise RunError(f"the export cannot be read back ({' '.join(str(error).split())}); no file was written") from error
        difference = _compare(model, lambda batch: session.run([_OUTPUT], {_INPUT: batch})[0], images, "onnxruntime")
        _publish([(draft, path)])
    return ReadBack([path], f"onnxruntime {onnxruntime.__version__}", len(images), difference)


def export_mxnet(model: Model, prefix: Path, images: npt.NDArray[np.uint8]) -> ReadBack:
    """Write MXNet's two files: PREFIX-symbol.json with the network from `data` to logits, and PREFIX-0000.params.

    Args:
        model: The model to export.
        prefix: The beginning of both paths.
        images: Real images for the check with MXNet's SymbolBlock, shape (N, height, width), unsigned bytes.

    Returns:
        The result of the check.

    Raises:
        RequestError: The network is a plain Block, or a file cannot be written.
        RunError: MXNet failed, or the reader predicts something else.
    """
    _require_hybrid(model)
    files = [prefix.with_name(f"{prefix.name}{ending}") for ending in _ENDINGS]
    with _drafts(*files) as folder:
        device = model.devices[0]
        model.network.hybridize()
        model.network(mx.nd.zeros((1, 1, *model.data.image_shape), ctx=device)).wait_to_read()  # builds the graph to export
        model.network.export(str(folder / _DRAFT))
        drafts = [folder / f"{_DRAFT}{ending}" for ending in _ENDINGS]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the type of `data`, which is inferred at the first use
            block = mx.gluon.SymbolBlock.imports(str(drafts[0]), ["data"], str(drafts[1]), ctx=device)
        difference = _compare(model, lambda batch: block(mx.nd.array(batch, ctx=device)).asnumpy(), images, "SymbolBlock")
        _publish(list(zip(drafts, files, strict=True)))
    return ReadBack(files, f"SymbolBlock of MXNet {mx.__version__}", len(images), difference)


def _require_hybrid(model: Model) -> None:
    if not isinstance(model.network, mx.gluon.HybridBlock):
        raise RequestError("model.network is a plain Block; use a HybridBlock, which MXNet can export as a graph")


def _extra(name: str) -> ModuleType:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # which writes an identifier of the device to ~/.cache
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise RequestError(
            f"--format onnx: needs the package {name}, which cannot be imported ({error}); "
            "install it with pip install -e '.[onnx]'"
        ) from error


def _restore_mapping(onnx: Any) -> None:
    """Add the two tables to onnx that MXNet reads and that onnx 1.19 removed."""
    if find_spec("onnx.mapping"):
        return
    types = {number: onnx.helper.tensor_dtype_to_np_dtype(number) for number in onnx.helper.get_all_tensor_dtypes()}
    numbers = {dtype: number for number, dtype in types.items()}
    onnx.mapping = SimpleNamespace(TENSOR_TYPE_TO_NP_TYPE=types, NP_TYPE_TO_TENSOR_TYPE=numbers)


def _convert(model: Model, path: Path) -> None:
    """Convert the stock network to an ONNX file with MXNet."""
    symbol = model.network(mx.sym.var(_INPUT))
    parameters = {name: parameter.data(model.devices[0]) for name, parameter in model.network.collect_params().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about deprecated names in onnx
        importlib.import_module("mxnet.onnx").export_model(
            symbol,
            parameters,
            [(1, 1, *model.data.image_shape)],
            np.float32,
            str(path),
            dynamic=True,
            dynamic_input_shapes=[("batch", 1, *model.data.image_shape)],
        )


def _describe(onnx: Any, content: Any, model: Model) -> None:
    """Set the name and shape of the output and the metadata of the file; keep only the images as input."""
    graph = content.graph
    constants = {constant.name for constant in graph.initializer}
    for given in [value for value in graph.input if value.name in constants]:
        graph.input.remove(given)  # MXNet lists the parameters as inputs too, which prevents readers from folding them
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = [_OUTPUT if name == output.name else name for name in node.output]
    output.CopyFrom(onnx.helper.make_tensor_value_info(_OUTPUT, onnx.TensorProto.FLOAT, ["batch", len(model.classes)]))
    content.opset_import[0].version = _OPSET
    content.ir_version = _IR_VERSION
    content.producer_name, content.producer_version = "mnist-trainer", package_version("mnist-trainer") or ""
    preprocessing = {
        "layout": "NCHW",
        "shape": ["batch", 1, *model.data.image_shape],
        "scale": 1 / 255,
    }
    if model.data.name == "mnist":
        preprocessing |= {"ink": "light on black", "box": [BOX_SIDE, BOX_SIDE], "centre_of_mass": [CENTRE, CENTRE]}
    metadata = {
        "data": model.data.name,
        "preprocessing": json.dumps(preprocessing),
        "classes": json.dumps(model.classes),
        "output": "logits; softmax makes them probabilities",
        "parameters_sha256": model.parameters_sha256,
    }
    if model.test_accuracy is not None:
        metadata["test_accuracy"] = str(model.test_accuracy)
    onnx.helper.set_model_props(content, metadata)


def _compare(model: Model, read: Read, images: npt.NDArray[np.uint8], reader: str) -> float:
    """Return the largest difference between probabilities, over batches of several sizes. Raise RunError if it is too large."""
    largest = 0.0
    sizes = [*_BATCHES, *[_BATCH] * (len(images) // _BATCH)]
    for batch in np.split(images, np.cumsum(sizes)):
        if not len(batch):
            break
        given = network_input(batch)
        ours = softmax(model.network(mx.nd.array(given, ctx=model.devices[0])).asnumpy())
        difference = float(np.abs(softmax(read(given)) - ours).max())
        if not difference <= _MAX_DIFFERENCE:  # also true for nan
            raise RunError(
                f"{reader} loaded the export but predicts other probabilities, by up to {difference:.1g}; no file was written"
            )
        largest = max(largest, difference)
    return largest


@contextmanager
def _drafts(*files: Path) -> Iterator[Path]:
    """Create a temporary folder for drafts next to these files, and remove it afterwards.

    Raises:
        RequestError: A file cannot be written.
        RunError: MXNet failed.
    """
    try:
        if taken := [path for path in files if path.is_dir()]:
            raise RequestError(*(f"--output {path}: this is a folder; choose another name" for path in taken))
        parent = Folder(files[0].parent)
        parent.remove_unfinished(_DRAFT.__eq__, _DRAFTS)  # of a process that was killed
        with parent.draft_folder(_DRAFT, _DRAFTS) as draft, draft.opened() as opened:
            yield Path(f"/proc/self/fd/{opened}")  # MXNet takes only names in UTF-8
    except OSError as error:
        raise RequestError(
            f"--output {files[0]}: cannot be written ({error.strerror or error}); choose another folder"
        ) from error
    except mx.MXNetError as error:
        raise RunError(f"{explain_failure(error)}; no file was written") from error


def _publish(moves: Sequence[tuple[Path, Path]]) -> None:
    """Flush finished drafts to the disk, and then rename them."""
    for draft, _ in moves:
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
    for draft, path in moves:
        draft.replace(path)
        Folder(path.parent).sync()
