"""Opens the model of a finished run, and predicts digits.

`preprocessing` converts pictures to MNIST images, and `evaluation` evaluates the test images.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mnist_trainer import run_folder
from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.errors import RequestError, RunError
from mnist_trainer.inference.pictures import read_picture
from mnist_trainer.inference.preprocessing import mnist_image
from mnist_trainer.model.backends import accelerate, choose_backend
from mnist_trainer.model.network import create_network, initialize, parameters_sha256
from mnist_trainer.model.parameter_file import ParameterFileError, read_parameters
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet, lacks_memory
from mnist_trainer.runtime.devices import resolve_devices

mx = import_mxnet()

NOT_FINITE = "the network's output is not finite; its parameters are damaged, so train it again"

_MAX_BYTES = 2**20  # of the parameters of the tutorial's network, which have 0.7 MB
_MAX_BYTES_OF_USERS_NETWORK = 2**30


class Prediction(NamedTuple):
    """The prediction of a model for one image.

    Attributes:
        image: The network's input, shape (28, 28), unsigned bytes.
        probabilities: The probabilities of the ten digits, shape (10,).
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
    """The parameters of a finished run, ready for use.

    Attributes:
        network: The run's network with these parameters.
        accelerated: The same function computed by `backend`.
        backend: The name of the backend.
        devices: The devices that compute it.
        summary: The content of the run's `summary.json`.
    """

    network: Any
    accelerated: Any
    backend: str
    devices: Sequence[Any]
    summary: Mapping[str, Any]

    def predict(self, image: npt.NDArray[np.uint8]) -> Prediction:
        """Predict the digit of an image, shape (28, 28), unsigned bytes. Waits for the device."""
        logits = self.accelerated(mx.nd.array(network_input(image[np.newaxis]), ctx=self.devices[0]))
        return Prediction(image, softmax(logits.asnumpy())[0])

    def predict_picture(self, stream: IO[bytes]) -> Prediction:
        """Predict the digit in a picture. Waits for the device.

        Args:
            stream: A PNG, JPEG, BMP or PGM file.

        Raises:
            PictureError: The picture cannot be read, or shows no digit.
        """
        return self.predict(mnist_image(read_picture(stream)))


def open_model(folder: RunFolder, config: RunConfig) -> Model:
    """Open the model in a run folder on the devices of `config`.

    Args:
        folder: A finished run.
        config: `load_recorded_config` of the folder; device and threads may be changed.

    Returns:
        The model.

    Raises:
        RequestError: The run is not finished; the parameters are missing, do not fit the network or do not match the summary;
            or the device does not exist.
    """
    path = folder / run_folder.PARAMETERS
    if not folder.is_finished:
        # The folder may come from someone else, so the command does not confirm the code that it names.
        command = shlex.join(["mnist-trainer", "train", "--resume", str(folder.path)])
        raise RequestError(f"{folder.path}: the run is not finished; resume it with {command}")
    warning = ", if you trust the code that this file names" if config.users_code() else ""
    remedy = f"train it again with --config {folder / run_folder.CONFIG}{warning}"
    if not folder.has_file(run_folder.PARAMETERS):
        raise RequestError(f"{path}: missing from a finished run; {remedy}")
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
    with mx.name.NameManager():  # so that the parameters have the same names in every process
        network = create_network(config.model.network)
    devices = resolve_devices(config.runtime.device)
    try:
        initialize(network, devices)  # a user's function may have initialized it elsewhere
        parameters = network._collect_params_with_prefix()  # by the names in the file
        content = folder.read(run_folder.PARAMETERS, _MAX_BYTES_OF_USERS_NETWORK if config.model.network else _MAX_BYTES)
        arrays = read_parameters(content, {name: parameter.shape for name, parameter in parameters.items()})
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    except (AssertionError, AttributeError, KeyError, ValueError, TypeError, mx.MXNetError) as error:
        if lacks_memory(error):
            raise
        changed = f"; the code of {config.model.network} may have changed since the run" if config.model.network else ""
        reason = f" ({error})" if isinstance(error, ParameterFileError) else ""
        network_of = f"the network in {folder / run_folder.CONFIG}"
        raise RequestError(f"{path}: does not hold the parameters of {network_of}{reason}{changed}; {remedy}") from error
    for name, array in arrays.items():
        parameters[name].set_data(mx.nd.array(array, dtype=array.dtype))
    if parameters_sha256(network) != summary["parameters_sha256"]:
        raise RequestError(f"{path}: the parameters do not match parameters_sha256 in {run_folder.SUMMARY}; {remedy}")
    requested = "stock" if config.model.backend == "stock" else "auto"  # the fused operator may not be available here
    backend = choose_backend(replace(config.model, backend=requested), devices)
    accelerated = accelerate(network, replace(config.model, backend=backend), devices)
    return Model(network, accelerated, backend, devices, summary)


def network_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Convert images, shape (N, 28, 28), unsigned bytes, to the network's input, shape (N, 1, 28, 28), float32 in [0, 1]."""
    return np.divide(images[:, np.newaxis], np.float32(255), dtype=np.float32)


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Convert logits, shape (N, 10), to probabilities of the same shape.

    Raises:
        RunError: A logit is not finite, because the parameters are not, or are extremely large.
    """
    if not np.isfinite(logits).all():
        raise RunError(NOT_FINITE)
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]
