"""Reads the parameters with which a run begins: those of a file, of a finished run, or of a checkpoint.

Only parameters are read. The optimizer, the schedule and the order of the images begin as in any other run.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_trainer.config.schema import ModelConfig, RunConfig
from mnist_trainer.errors import RequestError
from mnist_trainer.folder import open_named, read_limited
from mnist_trainer.model.network import arrays_sha256, create_network, initialize, parameters_in_order
from mnist_trainer.model.parameter_file import ParameterFileError, max_file_bytes, read_parameters
from mnist_trainer.run_folder import CHECKPOINT_FILES, PARAMETERS, SUMMARY, RunFolder
from mnist_trainer.training.checkpoint import DamagedError, read

Arrays = list[npt.NDArray[Any]]


def read_initial_parameters(config: RunConfig) -> tuple[ModelConfig, Arrays]:
    """Read the initial parameters of a run.

    Args:
        config: The configuration with `model.initial_parameters`. The network has been checked.

    Returns:
        The configuration of the model with the absolute path and the SHA-256 of the parameters, and the parameters as arrays in
        the order of `parameters_in_order`.

    Raises:
        RequestError: They cannot be read, do not fit the network, are not finite, or have another SHA-256 than the
            configuration.
    """
    model = config.model
    path = Path(model.initial_parameters or "")
    label = f"model.initial_parameters = {path}"
    network = create_network(model.network, len(config.data.class_names))
    initialize(network, image_size=config.data.image_shape)
    try:
        absolute = path.resolve(strict=True)  # a link such as runs/latest may have another target tomorrow
        arrays = _read_folder(absolute, network, config) if absolute.is_dir() else _read_file(absolute, network, config)
    except OSError as error:
        raise RequestError(f"{label}: cannot be read ({error.strerror})") from error
    except ParameterFileError as error:
        raise RequestError(f"{label}: does not hold the parameters of this network ({error})") from error
    except DamagedError as error:
        raise RequestError(f"{label}: {error}") from error
    if not all(np.isfinite(array).all() for array in arrays):
        raise RequestError(f"{label}: contains infinite parameters or NaN; choose another file")
    found, expected = arrays_sha256(arrays), model.initial_parameters_sha256
    if expected and found != expected:
        raise RequestError(
            f"{label}: its parameters have the SHA-256 {found}, but model.initial_parameters_sha256 is {expected}; "
            "restore the file, or leave model.initial_parameters_sha256 out"
        )
    return replace(model, initial_parameters=str(absolute), initial_parameters_sha256=found), arrays


def _read_folder(path: Path, network: Any, config: RunConfig) -> Arrays:
    """Return the parameters in the folder of a run or of a checkpoint."""
    folder = RunFolder(path)
    if folder.has_file(CHECKPOINT_FILES[-1]):
        checkpoint = read(folder, has_own_shapes=config.has_own_shapes)
        return checkpoint.parameters_for(network)
    if folder.kind(PARAMETERS) is None:
        saved = folder.checkpoints()
        advice = f"name one of its checkpoints, such as {saved[-1].path}" if saved else "name a run, a checkpoint or a file"
        raise ParameterFileError(f"the folder has no {PARAMETERS}; {advice}")
    arrays = _in_order(folder.read(PARAMETERS, max_file_bytes(config.has_own_shapes)), network)
    if folder.is_finished and folder.read_summary()["parameters_sha256"] != arrays_sha256(arrays):
        raise ParameterFileError(f"{PARAMETERS} does not match parameters_sha256 in {SUMMARY}")
    return arrays


def _read_file(path: Path, network: Any, config: RunConfig) -> Arrays:
    max_bytes = max_file_bytes(config.has_own_shapes)
    with open_named(path, max_bytes) as stream:
        return _in_order(read_limited(stream, path, max_bytes), network)


def _in_order(content: bytes, network: Any) -> Arrays:
    """Return the arrays of a parameter file in the order of the network's parameters."""
    named = network._collect_params_with_prefix()  # by the names in the file
    found = read_parameters(content, {name: parameter.shape for name, parameter in named.items()})
    by_parameter = {id(named[name]): array for name, array in found.items()}
    return [by_parameter[id(parameter)].astype(parameter.dtype) for parameter in parameters_in_order(network)]
