"""Opens the model of a run, and predicts digits.

`preprocessing` converts pictures to MNIST images, and `evaluation` evaluates the test images.
"""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mnist_trainer import run_folder
from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.schema import DataConfig, RunConfig
from mnist_trainer.data.loaders import network_input
from mnist_trainer.datasets import IMAGE_SIZE
from mnist_trainer.errors import RequestError, RunError
from mnist_trainer.folder import Folder
from mnist_trainer.inference.pictures import read_picture
from mnist_trainer.inference.preprocessing import mnist_image
from mnist_trainer.model.backends import accelerate, choose_backend
from mnist_trainer.model.network import create_network, initialize, parameters_sha256
from mnist_trainer.model.parameter_file import ParameterFileError, max_file_bytes, read_parameters
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet, lacks_memory
from mnist_trainer.runtime.devices import resolve_devices
from mnist_trainer.training.checkpoint import DamagedError, read

mx = import_mxnet()

NOT_FINITE = "the network's output is not finite; its parameters are damaged, so train it again"

_FILES: dict[str | int, tuple[str, str]] = {
    "last": (run_folder.PARAMETERS, "parameters_sha256"),
    "best": (run_folder.BEST_PARAMETERS, "best_parameters_sha256"),
}
"""Parameters that a finished run has as a file: the name of the file, and the key of their SHA-256 in the summary."""


class Prediction(NamedTuple):
    """The prediction of a model for one image.

    Attributes:
        image: The network's input, shape (height, width), unsigned bytes.
        probabilities: The probabilities of the classes, shape (classes,).
    """

    image: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float64]

    @property
    def digit(self) -> int:
        """The most probable digit; of equally probable digits, the lowest."""
        return self._ranked(0)

    @property
    def runner_up(self) -> int:
        """The second most probable digit."""
        return self._ranked(1)

    def _ranked(self, place: int) -> int:
        return int(np.argsort(-self.probabilities, kind="stable")[place])


@dataclass(frozen=True)
class Model:
    """Parameters of a run, ready for use.

    Attributes:
        network: The run's network with these parameters.
        accelerated: The same function computed by `backend`.
        backend: The name of the backend.
        devices: The devices that compute it.
        checkpoint: "last" for the parameters at the end of the run, "best" for those of the best epoch, or the iteration of a
            checkpoint.
        parameters_sha256: The SHA-256 of the parameters.
        test_accuracy: The test accuracy that the run has recorded for them; None within an epoch.
        data: The configuration of the data that the model is for.
    """

    network: Any
    accelerated: Any
    backend: str
    devices: Sequence[Any]
    checkpoint: str | int
    parameters_sha256: str
    test_accuracy: float | None
    data: DataConfig

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the probabilities."""
        return self.data.class_names

    @property
    def suffix(self) -> str:
        """The end of names of files about these parameters: "", "_best" or an iteration such as "_938"."""
        return "" if self.checkpoint == "last" else f"_{self.checkpoint}"

    def predict(self, image: npt.NDArray[np.uint8]) -> Prediction:
        """Predict the class of an image, shape (height, width), unsigned bytes. Waits for the device."""
        logits = self.accelerated(mx.nd.array(network_input(image[np.newaxis]), ctx=self.devices[0]))
        return Prediction(image, softmax(logits.asnumpy())[0])

    def predict_picture(self, stream: IO[bytes]) -> Prediction:
        """Predict the digit in a picture. Waits for the device.

        Args:
            stream: A PNG, JPEG, BMP or PGM file.

        Raises:
            PictureError: The picture cannot be read, or shows no digit.
            RequestError: The model is for images of another size than MNIST's.
        """
        if self.data.image_shape != IMAGE_SIZE:
            height, width = self.data.image_shape
            raise RequestError(
                f"data.image_size: pictures are converted to 28×28 pixels, but the model is for {height}×{width}; "
                "use evaluate, or export the model"
            )
        return self.predict(mnist_image(read_picture(stream)))


def open_model(folder: RunFolder, config: RunConfig, checkpoint: str | int = "last") -> Model:
    """Open the model in a run folder on the devices of `config`.

    Args:
        folder: A finished run. To open one of its checkpoints, the run need not be finished.
        config: `load_recorded_config` of the folder; device and threads may be changed.
        checkpoint: The parameters to open: "last" for those at the end of the run, "best" for those after the epoch with the
            best validation score, or the iteration of a checkpoint.

    Returns:
        The model.

    Raises:
        RequestError: The run is not finished or has no such checkpoint; the parameters are missing, do not fit the network or
            do not match the summary; or the device does not exist.
    """
    file, expected = _FILES.get(checkpoint, ("", ""))
    summary = _read_summary(folder, config) if file else {}
    if file and expected not in summary:
        advice = "use --checkpoint last, or train with --set data.validation_images=5000"
        raise RequestError(
            f"--checkpoint {checkpoint}: {folder.path} has no best epoch, because it has no validation images; {advice}"
        )
    if file and folder.kind(file) is None:
        raise RequestError(f"{folder / file}: missing from a finished run; {_remedy(folder, config)}")
    with mx.name.NameManager():  # so that the parameters have the same names in every process
        network = create_network(config.model.network, len(config.data.class_names))
    devices = resolve_devices(config.runtime.device)
    path = folder / file if file else _find_checkpoint(folder, int(checkpoint)).path
    try:
        initialize(network, devices, config.data.image_shape)  # a user's function may have initialized it elsewhere
        if file:
            parameters = network._collect_params_with_prefix()  # by the names in the file
            content = folder.read(file, max_file_bytes(config.has_own_shapes))
            shapes = {name: parameter.shape for name, parameter in parameters.items()}
            for name, array in read_parameters(content, shapes).items():
                parameters[name].set_data(mx.nd.array(array, dtype=array.dtype))
        else:
            saved = read(folder.checkpoint(int(checkpoint)), has_own_shapes=config.has_own_shapes)
            saved.load_parameters(network)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    except DamagedError as error:
        problem = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise RequestError(f"{problem}; use another --checkpoint, or {_remedy(folder, config)}") from error
    except (AssertionError, AttributeError, KeyError, ValueError, TypeError, mx.MXNetError) as error:
        if lacks_memory(error):
            raise
        changed = f"; the code of {config.model.network} may have changed since the run" if config.model.network else ""
        reason = f" ({error})" if isinstance(error, ParameterFileError) else ""
        network_of = f"the network in {folder / run_folder.CONFIG}"
        remedy = _remedy(folder, config)
        raise RequestError(f"{path}: does not hold the parameters of {network_of}{reason}{changed}; {remedy}") from error
    sha256 = parameters_sha256(network)
    if file and sha256 != summary[expected]:
        remedy = _remedy(folder, config)
        raise RequestError(f"{path}: the parameters do not match {expected} in {run_folder.SUMMARY}; {remedy}")
    requested = "stock" if config.model.backend == "stock" else "auto"  # the fused operator may not be available here
    backend = choose_backend(replace(config.model, backend=requested), devices, image_size=config.data.image_shape)
    accelerated = accelerate(network, replace(config.model, backend=backend), devices)
    test_accuracy = _test_accuracy(folder, checkpoint, summary)
    return Model(network, accelerated, backend, devices, checkpoint, sha256, test_accuracy, config.data)


def _read_summary(folder: RunFolder, config: RunConfig) -> dict[str, Any]:
    """Return the summary of a finished run."""
    if not folder.is_finished:
        # The folder may come from someone else, so the command does not confirm the code that it names.
        command = shlex.join(["mnist-trainer", "train", "--resume", str(folder.path)])
        saved = folder.checkpoints()
        advice = f", or use its latest checkpoint with --checkpoint {int(saved[-1].path.name)}" if saved else ""
        raise RequestError(f"{folder.path}: the run is not finished; resume it with {command}{advice}")
    remedy = _remedy(folder, config)
    try:
        summary = folder.read_summary()
    except RequestError as error:
        raise RequestError(*(f"{problem}; {remedy}" for problem in error.problems)) from error
    test_images = load_recorded_config(folder / run_folder.CONFIG).data.test_images
    if summary["test_total"] != test_images:
        raise RequestError(
            f"{folder / run_folder.CONFIG}: data.test_images = {test_images} does not match test_total in "
            f"{run_folder.SUMMARY}, {summary['test_total']}; restore it"
        )
    return summary


def _remedy(folder: RunFolder, config: RunConfig) -> str:
    warning = ", if you trust the code that this file names" if config.users_code() else ""
    return f"train it again with --config {folder / run_folder.CONFIG}{warning}"


def _find_checkpoint(folder: RunFolder, iteration: int) -> Folder:
    saved = {int(checkpoint.path.name) for checkpoint in folder.checkpoints()}
    if iteration not in saved:
        advice = f"there are {', '.join(map(str, sorted(saved)))}" if saved else "it has no checkpoints"
        raise RequestError(f"--checkpoint {iteration}: {folder.path} has no checkpoint of this iteration; {advice}")
    return folder.checkpoint(iteration)


def _test_accuracy(folder: RunFolder, checkpoint: str | int, summary: Mapping[str, Any]) -> float | None:
    """Return the test accuracy that the run has recorded for these parameters; None for those within an epoch."""
    if checkpoint == "last":
        return float(summary["test_accuracy"])
    key, wanted = ("epoch", summary["best_epoch"]) if checkpoint == "best" else ("iteration", checkpoint)
    with suppress(OSError, ValueError):  # the model can be used without it
        for row in folder.metrics_rows():
            if row[key] >= wanted:
                return float(row["test_accuracy"]) if row[key] == wanted else None
    return None


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Convert logits, shape (N, classes), to probabilities of the same shape.

    Raises:
        RunError: A logit is not finite, because the parameters are not, or are extremely large.
    """
    if not np.isfinite(logits).all():
        raise RunError(NOT_FINITE)
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
