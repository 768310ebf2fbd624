"""Checkpoints: everything needed to resume a run exactly, as a folder of plain files, without pickle.

    checkpoints/00003752/arrays.npz     parameters, the optimizer's state, numpy's random state
                         state.json     iteration, loop state, schedule state, configuration of the run, …
                         manifest.json  the SHA-256 of both files

A checkpoint is complete or absent. `read` detects damage and executes no code. `checkpointer` decides when to save, and
`resume` loads checkpoints.
"""

import hashlib
import io
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_trainer.config.schema import RunConfig
from mnist_trainer.model.network import parameters_in_order
from mnist_trainer.run_folder import ITERATIONS, METRICS, RunFolder
from mnist_trainer.schedules import AnySchedule
from mnist_trainer.training.records import LoopState, Scores
from mnist_trainer.training.trainer import ScheduledTrainer

FORMAT = 3

_ARRAYS, _STATE, _MANIFEST = "arrays.npz", "state.json", "manifest.json"

# Numbers that optimizers of MXNet 1.9.1 keep in addition to their arrays. A test checks that there are no others.
OPTIMIZER_NUMBERS = ("m_schedule", "cur_lr", "last_lr")

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
    """
    name = f"{state['iteration']:08}"
    contents = {_ARRAYS: _archive(arrays), _STATE: json.dumps(state).encode()}
    manifest = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    folder.write_checkpoint(name, {**contents, _MANIFEST: json.dumps(manifest, indent=2).encode()})
    return name


def read(path: Path) -> Checkpoint:
    """Read a checkpoint and check its files against its manifest.

    Args:
        path: The folder of the checkpoint.

    Returns:
        The checkpoint.

    Raises:
        DamagedError: The checkpoint cannot be read, is damaged, or has an unsupported format.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        contents = {name: (path / name).read_bytes() for name in (_ARRAYS, _STATE)}
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != manifest[name]:
                raise DamagedError(f"{path / name}: damaged (its SHA-256 is not the one in {_MANIFEST})")
        state = json.loads(contents[_STATE])
        if state["format"] != FORMAT:
            raise DamagedError(f"{path}: format {state['format']} is not supported; this version reads format {FORMAT}")
        with np.load(io.BytesIO(contents[_ARRAYS]), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        checkpoint = Checkpoint(path, state, arrays)
        _check_state(checkpoint)
    except DamagedError:
        raise
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # json, zipfile, zlib and numpy raise errors of every kind for an untrusted file
        raise DamagedError(f"{path}: not a valid checkpoint ({error})") from error
    return checkpoint


def _check_state(checkpoint: Checkpoint) -> None:
    """Check that `capture` could have returned the state.

    Raises:
        DamagedError: The state is inconsistent. The properties of the checkpoint may raise other exceptions.
    """
    loop, files, config = checkpoint.loop_state, checkpoint.state["files"], checkpoint.config
    per_epoch = config.run_length.iterations_per_epoch
    counts = [checkpoint.iteration, loop.epoch - 1, loop.batch, *(file["bytes"] for file in files.values())]
    makes_sense = (
        all(isinstance(count, int) and 0 <= count < 2**62 for count in counts)
        and all(isinstance(file["sha256"], str) for file in files.values())
        and set(files) <= {ITERATIONS, METRICS}
        and math.isfinite(checkpoint.seconds + loop.epoch_seconds)
        and checkpoint.iteration == (loop.epoch - 1) * per_epoch + loop.batch
        and checkpoint.path.name == f"{checkpoint.iteration:08}"
        and loop.epoch <= config.training.epochs + 1
        and len(loop.scores) == loop.batch < per_epoch
        and all(math.isfinite(scores.loss) and 0 <= int(scores.correct) <= int(scores.total) for scores in loop.scores)
    )
    if not makes_sense:
        raise DamagedError(f"{checkpoint.path}: not a valid checkpoint (its state is inconsistent)")


def _archive(arrays: Arrays) -> bytes:
    # In memory, because zipfile prints errors when it cannot finish writing a file, for example on a full disk.
    stream = io.BytesIO()
    np.savez(stream, **arrays)
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
