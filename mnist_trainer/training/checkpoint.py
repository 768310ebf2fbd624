"""Checkpoints: everything needed to resume a run exactly, as a folder of plain files, without pickle.

    checkpoints/00003752/arrays.npz     parameters, the optimizer's state, numpy's random state
                         state.json     iteration, loop state, schedule state, configuration of the run, …
                         manifest.json  the SHA-256 of both files

A checkpoint is complete or absent. `read` detects damage, limits what it reads, and executes no code. `checkpointer` decides
when to save, and `resume` loads checkpoints.
"""

import hashlib
import io
import json
import math
import random
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mnist_trainer.config.schema import RunConfig
from mnist_trainer.errors import RequestError, RunError
from mnist_trainer.fields import MAX_FLOAT32
from mnist_trainer.folder import Folder, is_number, parse_json
from mnist_trainer.model.network import parameters_in_order
from mnist_trainer.run_folder import CHECKPOINT_FILES, ITERATIONS, METRICS, RunFolder, checkpoint_name
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import AnySchedule
from mnist_trainer.training.records import LoopState, Scores
from mnist_trainer.training.trainer import ScheduledTrainer

mx = import_mxnet()

FORMAT = 4

_ARRAYS, _STATE, _MANIFEST = CHECKPOINT_FILES

_MAX_STATE_BYTES = 8 * 2**20  # the state has the scores of each batch of an epoch, at most 60,000
_MAX_ARRAYS_BYTES = 16 * 2**20  # of the tutorial's network; five times what any optimizer needs
_MAX_ARRAYS_BYTES_OF_USERS_NETWORK = 2**30
_MAX_DIRECTORY_BYTES = 2**20  # of the zip archive

# Numbers that optimizers of MXNet 1.9.1 keep in addition to their arrays. A test checks that there are no others.
OPTIMIZER_NUMBERS = ("m_schedule", "cur_lr", "last_lr")

_STATE_KEYS = {
    "format",
    "iteration",
    "loop",
    "schedule",
    "optimizer",
    "numpy_random",
    "python_random",
    "seconds",
    "config",
    "files",
}

Arrays = dict[str, npt.NDArray[Any]]


class DamagedError(ValueError):
    """A checkpoint cannot be used; the message has the reason."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        path: The folder of the checkpoint.
        state: The content of `state.json`.
        arrays: The content of `arrays.npz`: arrays by name.
    """

    path: Path
    state: Mapping[str, Any]
    arrays: Arrays

    @property
    def iteration(self) -> int:
        return int(self.state["iteration"])

    @property
    def loop_state(self) -> LoopState:
        """State of the loop from which to resume."""
        kept = self.state["loop"]
        return LoopState(kept["epoch"], kept["batch"], [Scores(*scores) for scores in kept["scores"]], kept["epoch_seconds"])

    @property
    def seconds(self) -> float:
        """Duration of the run in seconds when it was saved."""
        return float(self.state["seconds"])

    @property
    def config(self) -> RunConfig:
        """Configuration of the run when it was saved."""
        return RunConfig.from_tables(self.state["config"])

    def parameters_for(self, network: Any) -> list[npt.NDArray[Any]]:
        """Return the parameters of a network in the order of `parameters_in_order`.

        Raises:
            DamagedError: They are not those of this network.
        """
        parameters = parameters_in_order(network)
        found = [values for name, values in self.arrays.items() if name.startswith("parameter.")]
        if len(found) != len(parameters):
            raise DamagedError(f"it has {len(found)} parameters, but the network has {len(parameters)}")
        found = [self.arrays[f"parameter.{number}"] for number in range(len(found))]
        for number, (values, parameter) in enumerate(zip(found, parameters, strict=True)):
            if values.shape != parameter.shape or values.dtype != np.float32:
                shape = f"{values.shape} and type {values.dtype}"
                raise DamagedError(f"parameter {number} has shape {shape}, but {parameter.shape} and float32 in the network")
        return found

    def load_parameters(self, network: Any) -> None:
        """Load the parameters into a network, on all its devices.

        Raises:
            DamagedError: They are not those of this network; nothing was changed.
        """
        for parameter, values in zip(parameters_in_order(network), self.parameters_for(network), strict=True):
            parameter.set_data(mx.nd.array(values))


def capture(network: Any, trainer: ScheduledTrainer, loop_state: LoopState) -> tuple[dict[str, Any], Arrays]:
    """Capture the state of a run between two iterations. Waits for the device.

    MXNet's own random state cannot be read. After the network is initialized, only layers such as dropout draw from it.

    Args:
        network: The network to save.
        trainer: Its trainer.
        loop_state: The state of the loop from which to resume.

    Returns:
        The state, which can be written as JSON, and the arrays, by name.
    """
    arrays: Arrays = {
        f"parameter.{number}": parameter.data(parameter.list_ctx()[0]).asnumpy()
        for number, parameter in enumerate(parameters_in_order(network))
    }
    shapes = {}
    for index, kept in trainer.optimizer_states().items():
        shapes[str(index)] = _flatten(kept, f"optimizer.{index}", arrays)
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    arrays["numpy_random"] = np.asarray(keys)
    version, internal, gauss_next = random.getstate()
    state = {
        "format": FORMAT,
        "iteration": trainer.iteration,
        "loop": {
            "epoch": loop_state.epoch,
            "batch": loop_state.batch,
            "scores": [list(scores) for scores in loop_state.scores],
            "epoch_seconds": loop_state.epoch_seconds,
        },
        "schedule": trainer.schedule.state() if isinstance(trainer.schedule, AnySchedule) else {},
        "optimizer": {
            "states": shapes,
            "numbers": {
                name: getattr(trainer.optimizer, name) for name in OPTIMIZER_NUMBERS if hasattr(trainer.optimizer, name)
            },
        },
        "numpy_random": [kind, place, has_gauss, gauss],
        "python_random": [version, list(internal), gauss_next],
    }
    return state, arrays


# --- files


def write(folder: RunFolder, state: Mapping[str, Any], arrays: Arrays) -> str:
    """Write a checkpoint into a run folder.

    Args:
        folder: The run folder.
        state: The state from `capture`, with the entries that `Checkpointer.save` adds.
        arrays: The arrays from `capture`.

    Returns:
        The name of the checkpoint.

    Raises:
        RunError: The network is too large.
    """
    name = checkpoint_name(state["iteration"])
    archive = _archive(arrays)
    if len(archive) > _MAX_ARRAYS_BYTES_OF_USERS_NETWORK:  # `read` would refuse it
        raise RunError(f"the network is too large for a checkpoint: {len(archive):,} bytes with the optimizer's state")
    contents = {_ARRAYS: archive, _STATE: json.dumps(state).encode()}
    manifest = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    folder.write_checkpoint(name, {**contents, _MANIFEST: json.dumps(manifest, indent=2).encode()})
    return name


def read(folder: Folder, *, has_own_shapes: bool = False) -> Checkpoint:
    """Read a checkpoint and check its files against its manifest.

    Args:
        folder: The folder of the checkpoint.
        has_own_shapes: True for a network with other shapes than the tutorial's, whose checkpoints may be large.

    Returns:
        The checkpoint.

    Raises:
        DamagedError: The checkpoint cannot be read, is damaged, or has an unsupported format.
    """
    path = folder.path
    try:
        manifest = folder.read_json(_MANIFEST)
        state = _read_state(folder, manifest)
        max_bytes = _MAX_ARRAYS_BYTES_OF_USERS_NETWORK if has_own_shapes else _MAX_ARRAYS_BYTES
        with folder.reading(_ARRAYS, max_bytes) as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != manifest[_ARRAYS]:
                raise _damaged(path / _ARRAYS)
            checkpoint = Checkpoint(path, state, _read_arrays(stream, state))
    except (DamagedError, MemoryError):
        raise
    except RequestError as error:
        raise DamagedError(str(error)) from error
    except OSError as error:
        raise DamagedError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zipfile, numpy and the checks raise errors of every kind for an untrusted file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(f"{path}: not a valid checkpoint ({reason})") from error
    return checkpoint


def _read_state(folder: Folder, manifest: Mapping[str, Any]) -> dict[str, Any]:
    content = folder.read(_STATE, _MAX_STATE_BYTES)
    if hashlib.sha256(content).hexdigest() != manifest[_STATE]:
        raise _damaged(folder / _STATE)
    state: dict[str, Any] = parse_json(content)
    if state["format"] != FORMAT:
        raise DamagedError(f"{folder.path}: format {state['format']} is not supported; this version reads format {FORMAT}")
    if state.keys() != _STATE_KEYS:
        raise DamagedError(f"{folder.path}: not a valid checkpoint (its state has other entries)")
    checkpoint = Checkpoint(folder.path, state, {})
    if not _is_consistent(checkpoint):
        raise DamagedError(f"{folder.path}: not a valid checkpoint (its state is inconsistent)")
    return state


def _damaged(path: Path) -> DamagedError:
    return DamagedError(f"{path}: damaged (its SHA-256 is not the one in {_MANIFEST})")


def _is_consistent(checkpoint: Checkpoint) -> bool:
    """Return whether `capture` could have returned the state. If this raises an exception, it could not."""
    state, loop, config = checkpoint.state, checkpoint.loop_state, checkpoint.config
    files = {ITERATIONS, METRICS} if loop.epoch > 1 else {ITERATIONS}
    per_epoch = config.run_length.iterations_per_epoch
    counts = [state["iteration"], loop.epoch - 1, loop.batch, *(file["bytes"] for file in state["files"].values())]
    return (
        all(type(count) is int and 0 <= count < 2**62 for count in counts)
        and set(state["files"]) == files
        and all(isinstance(file["sha256"], str) for file in state["files"].values())
        and all(is_number(seconds, 1e12) for seconds in (state["seconds"], loop.epoch_seconds))
        and checkpoint.iteration == (loop.epoch - 1) * per_epoch + loop.batch
        and checkpoint.path.name == checkpoint_name(checkpoint.iteration)
        and loop.epoch <= config.training.epochs + 1
        and len(loop.scores) == loop.batch < per_epoch
        and all(is_number(scores.loss, MAX_FLOAT32) for scores in loop.scores)
        and all(type(scores.correct) is int and 0 <= scores.correct <= scores.total for scores in loop.scores)
        and all(scores.total == config.training.batch_size for scores in loop.scores)
    )


def _read_arrays(stream: BinaryIO, state: Mapping[str, Any]) -> Arrays:
    """Read exactly the arrays that belong to a state.

    Raises:
        ValueError: The archive has other members, or members that would need more memory than the archive itself.
    """
    size = stream.seek(0, io.SEEK_END)
    _check_directory(stream, size)
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        count = sum(member.filename.startswith("parameter.") for member in members)
        names = {f"parameter.{number}" for number in range(count)}
        names |= {"numpy_random", *_array_names(list(state["optimizer"]["states"].values()))}
        if sorted(member.filename for member in members) != sorted(f"{name}.npy" for name in names):
            raise ValueError(f"{_ARRAYS} does not have the arrays of the state")
        is_stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not is_stored or sum(member.file_size for member in members) > size:  # members may overlap
            raise ValueError(f"{_ARRAYS} is compressed")
        return {name: _read_array(archive.read(f"{name}.npy")) for name in names}


def _check_directory(stream: BinaryIO, size: int) -> None:
    """Refuse a zip archive with a large directory, which zipfile would read into memory.

    Raises:
        ValueError: The archive does not end as those of `_archive` do, or its directory is too large.
    """
    stream.seek(max(0, size - 42))
    end = stream.read(42)  # the place of the end record of large archives, and the end record without a comment
    signature, directory_bytes = struct.unpack_from("<4s8xL", end, 20)
    if signature != b"PK\5\6" or end[:4] == b"PK\6\7" or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"{_ARRAYS} does not have the arrays of the state")


def _read_array(content: bytes) -> npt.NDArray[Any]:
    """Read the content of an npy file.

    Raises:
        ValueError: The array holds Python objects, which are not unpickled, or has another size than the content.
    """
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"{_ARRAYS} has an array of objects, or of another size than its header has")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if is_fortran else "C")


def _array_names(shape: Any) -> Iterator[str]:
    """Yield the names of arrays in the structures of optimizer states; see `_flatten`."""
    if isinstance(shape, list):
        for part in shape:
            yield from _array_names(part)
    elif isinstance(shape, str):
        yield shape


def _archive(arrays: Arrays) -> bytes:
    # In memory, because zipfile prints errors when it cannot finish writing a file, for example on a full disk.
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # as if an array were named allow_pickle
    return stream.getvalue()


def _flatten(kept: Any, name: str, arrays: Arrays) -> Any:
    """Return the structure of an optimizer's state, and add its arrays to `arrays`.

    The structure is None, a number, the name of an array, or a list of these.
    """
    if isinstance(kept, tuple | list):
        return [_flatten(part, f"{name}.{number}", arrays) for number, part in enumerate(kept)]
    if kept is None or isinstance(kept, int | float):
        return kept
    arrays[name] = kept.asnumpy()
    return name


def unflatten(shape: Any, arrays: Arrays) -> Any:
    """Rebuild the state of an optimizer that `capture` has flattened.

    Args:
        shape: The structure of the state, from the checkpoint's `state`.
        arrays: The arrays of the checkpoint.

    Returns:
        None, a number, a numpy array, or a tuple of these.
    """
    if isinstance(shape, list):
        return tuple(unflatten(part, arrays) for part in shape)
    return arrays[shape] if isinstance(shape, str) else shape
