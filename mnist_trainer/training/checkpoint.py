"""Everything that is needed to go on exactly, in plain files: a folder a checkpoint, without pickle.

    checkpoints/00003752/arrays.npz     parameters, the optimizer's state, numpy's random state
                         state.json     iteration, position in the epoch, what the loop has accumulated, the schedule's state,
                                        the run's configuration, …
                         manifest.json  the SHA-256 of the two

Knows what belongs to a checkpoint, how it is written so that it is there whole or not at all, and how it is read so that
a damaged or a stranger's one is found out and nothing of it is ever executed. When to save is told by `Checkpointer`.
"""

import hashlib
import io
import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_trainer.config.schema import RunConfig
from mnist_trainer.distributed.process_group import ALONE, Team
from mnist_trainer.errors import Interrupted, RequestError, RunError
from mnist_trainer.model.network import parameters_in_order
from mnist_trainer.run_folder import CHECKPOINTS, ITERATIONS, METRICS, RunFolder, file_named, fsync_folder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import AnySchedule
from mnist_trainer.training.loop import FETCH_EVERY, EpochMetrics, Keeper, Position, Scores
from mnist_trainer.training.trainer import ScheduledTrainer

mx = import_mxnet()

FORMAT = 2

_ARRAYS, _STATE, _MANIFEST = "arrays.npz", "state.json", "manifest.json"

# Numbers that optimizers of MXNet 1.9.1 keep beside their arrays; a test looks for others.
_OPTIMIZER_NUMBERS = ("m_schedule", "cur_lr", "last_lr")

Arrays = dict[str, npt.NDArray[Any]]


class DamagedError(ValueError):
    """A checkpoint that cannot be used; the sentence says why."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: `state` as JSON holds it, and the arrays by name."""

    path: Path
    state: Mapping[str, Any]
    arrays: Arrays

    @property
    def iteration(self) -> int:
        return int(self.state["iteration"])

    @property
    def position(self) -> Position:
        """Where the loop goes on."""
        kept = self.state["position"]
        return Position(kept["epoch"], kept["batch"], [Scores(*each) for each in kept["batches"]], kept["epoch_seconds"])

    @property
    def seconds(self) -> float:
        """What the run had taken."""
        return float(self.state["seconds"])

    @property
    def config(self) -> RunConfig:
        """Of the run, as it was when this was saved."""
        return RunConfig.from_tables(self.state["config"])


def capture(net: Any, trainer: ScheduledTrainer, position: Position) -> tuple[dict[str, Any], Arrays]:
    """State and arrays of a run between two iterations. Waits for the device.

    MXNet's own random state cannot be read; nothing draws from it once the network is initialised.
    """
    arrays: Arrays = {
        f"parameter.{number}": parameter.data(parameter.list_ctx()[0]).asnumpy()
        for number, parameter in enumerate(parameters_in_order(net))
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
        "position": asdict(position) | {"batches": [list(each) for each in position.batches]},
        "schedule": trainer.schedule.state() if isinstance(trainer.schedule, AnySchedule) else {},
        "optimizer": {
            "states": shapes,
            "numbers": {
                name: getattr(trainer.optimizer, name) for name in _OPTIMIZER_NUMBERS if hasattr(trainer.optimizer, name)
            },
        },
        "numpy_random": [kind, place, has_gauss, gauss],
        "python_random": [version, list(internal), gauss_next],
    }
    return state, arrays


def restore(checkpoint: Checkpoint, net: Any, trainer: ScheduledTrainer) -> None:
    """Puts a run, made anew from its configuration, where the checkpoint was taken; on whatever devices it now is.

    Raises DamagedError when the checkpoint is of another network, optimizer or schedule.
    """
    try:
        for number, parameter in enumerate(parameters_in_order(net)):
            values = checkpoint.arrays[f"parameter.{number}"]
            if values.shape != parameter.shape or values.dtype != np.float32:
                raise DamagedError(f"parameter {number} has shape {values.shape} and type {values.dtype}")
            parameter.set_data(mx.nd.array(values))
        kept = checkpoint.state["optimizer"]
        states = {int(index): _unflatten(shape, checkpoint.arrays) for index, shape in kept["states"].items()}
        trainer.go_on_after(checkpoint.iteration, states)
        for name, number in kept["numbers"].items():
            if name in _OPTIMIZER_NUMBERS and hasattr(trainer.optimizer, name):
                setattr(trainer.optimizer, name, number)
        if isinstance(trainer.schedule, AnySchedule):
            trainer.set_schedule(trainer.schedule.with_state(checkpoint.state["schedule"]))
        for schedule in (trainer.schedule, *trainer.hyperparameter_schedules.values()):
            if getattr(schedule, "asked_in_order", False):  # a user's own, which may count
                for iteration in range(1, checkpoint.iteration + 1):
                    schedule(iteration)
        kind, place, has_gauss, gauss = checkpoint.state["numpy_random"]
        np.random.set_state((kind, checkpoint.arrays["numpy_random"], place, has_gauss, gauss))
        version, internal, gauss_next = checkpoint.state["python_random"]
        random.setstate((version, tuple(internal), gauss_next))
    except Exception as error:  # what MXNet, numpy and Python raise for a stranger's state is of every kind
        raise DamagedError(f"{checkpoint.path}: this is no checkpoint of this run ({error})") from error


# --- files


def write(folder: RunFolder, state: Mapping[str, Any], arrays: Arrays) -> Path:
    """Writes a checkpoint below the run folder: under a temporary name, to the disk, and then under its own."""
    parent = folder / CHECKPOINTS
    parent.mkdir(exist_ok=True)
    path = parent / f"{state['iteration']:08}"
    temporary = parent / f".{os.getpid()}.{path.name}"
    aside = parent / f".{os.getpid()}.0{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        contents = {_ARRAYS: _archive(arrays), _STATE: json.dumps(state).encode()}
        manifest = {name: _sha256(content) for name, content in contents.items()}
        for name, content in {**contents, _MANIFEST: json.dumps(manifest, indent=2).encode()}.items():
            with file_named(path / name):
                _write_to_disk(temporary / name, content)
        fsync_folder(temporary)
        with file_named(path):
            if path.exists():  # one of this very iteration, from before the run was resumed, or a stranger's file
                path.rename(aside)
            temporary.rename(path)
        fsync_folder(parent)
        fsync_folder(folder.path)  # where the names of `checkpoints` and of the files stand that the state counts on
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)
    return path


def read(path: Path) -> Checkpoint:
    """A checkpoint, whose files are those of its manifest. Raises DamagedError."""
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        contents = {name: (path / name).read_bytes() for name in (_ARRAYS, _STATE)}
        for name, content in contents.items():
            if _sha256(content) != manifest[name]:
                raise DamagedError(f"{path / name}: the content is not what was written")
        state = json.loads(contents[_STATE])
        if state["format"] != FORMAT:
            raise DamagedError(f"{path}: format {state['format']} is not the one that this version writes, {FORMAT}")
        with np.load(io.BytesIO(contents[_ARRAYS]), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        checkpoint = Checkpoint(path, state, arrays)
        _check_state(checkpoint)
    except DamagedError:
        raise
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # what json, zipfile, zlib and numpy raise for a stranger's file is of every kind
        raise DamagedError(f"{path}: this is no checkpoint ({error})") from error
    return checkpoint


def newest_whole(folder: RunFolder, complain: Callable[[str], object]) -> Checkpoint | None:
    """The newest checkpoint that is whole and that the run's files reach; None if the run was never saved.

    complain: is told of each that had to be passed over, a sentence each.

    Raises RequestError when there are some and none can be used: to begin again would throw them away.
    """
    paths = _paths(folder)
    for path in reversed(paths):
        try:
            checkpoint = read(path)
            for name, prefix in checkpoint.state["files"].items():
                content = folder.read_prefix(name, prefix["bytes"])
                if _sha256(content) != prefix["sha256"]:
                    raise DamagedError(f"{folder / name}: is not as it was when {path.name} was saved")
            return checkpoint
        except DamagedError as error:
            complain(f"{error}; the checkpoint is passed over")
        except OSError as error:
            complain(f"{error.filename}: cannot be read ({error.strerror}); the checkpoint {path.name} is passed over")
    if paths:
        raise RequestError(
            f"{folder.path}: no checkpoint of this run can be used; start another run, or mend what is named above"
        )
    return None


def go_back_to(checkpoint: Checkpoint, folder: RunFolder) -> None:
    """Removes from the run folder what came after the checkpoint, and what a killed process left half done."""
    folder.remove_leftovers()
    for path in (folder / CHECKPOINTS).iterdir():
        if path.name.isdigit() and int(path.name) > checkpoint.iteration:
            shutil.rmtree(path, ignore_errors=True)
    for name in (ITERATIONS, METRICS):
        folder.cut(name, checkpoint.state["files"].get(name, {"bytes": 0})["bytes"])


def _paths(folder: RunFolder) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted(path for path in (folder / CHECKPOINTS).glob("*") if path.name.isdigit() and path.is_dir())


def _check_state(checkpoint: Checkpoint) -> None:
    """Raises DamagedError, or whatever its properties raise, when the state is not of the kind that is written."""
    position, files, config = checkpoint.position, checkpoint.state["files"], checkpoint.config
    per_epoch = config.run_length.iterations_per_epoch
    counts = [checkpoint.iteration, position.epoch - 1, position.batch, *(each["bytes"] for each in files.values())]
    makes_sense = (
        all(isinstance(count, int) and 0 <= count < 2**62 for count in counts)
        and all(isinstance(each["sha256"], str) for each in files.values())
        and set(files) <= {ITERATIONS, METRICS}
        and math.isfinite(checkpoint.seconds + position.epoch_seconds)
        and checkpoint.iteration == (position.epoch - 1) * per_epoch + position.batch
        and checkpoint.path.name == f"{checkpoint.iteration:08}"
        and position.epoch <= config.training.epochs + 1
        and len(position.batches) == position.batch < per_epoch
        and all(math.isfinite(each.loss) and 0 <= int(each.correct) <= int(each.total) for each in position.batches)
    )
    if not makes_sense:
        raise DamagedError(f"{checkpoint.path}: this is no checkpoint (its state makes no sense)")


def _archive(arrays: Arrays) -> bytes:
    # In memory, because zipfile is noisy when it is left in the middle, as on a full disk.
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _write_to_disk(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flatten(kept: Any, name: str, arrays: Arrays) -> Any:
    """The shape of an optimizer's state: null, the name of an array, a number, or a list of these. Fills `arrays`."""
    if isinstance(kept, tuple | list):
        return [_flatten(each, f"{name}.{number}", arrays) for number, each in enumerate(kept)]
    if kept is None or isinstance(kept, int | float):
        return kept
    arrays[name] = kept.asnumpy()
    return name


def _unflatten(shape: Any, arrays: Arrays) -> Any:
    if isinstance(shape, list):
        return tuple(_unflatten(each, arrays) for each in shape)
    return arrays[shape] if isinstance(shape, str) else shape


# --- when


class Checkpointer(Keeper):
    """Saves a run as its configuration says, at the end of each epoch, and when it is to stop.

    folder: None in those of a team who write nothing; they do all else at the same iterations.
    stop_requested: asked after each iteration; when it says so, the run is saved and `save` raises Interrupted. In a team it
        is asked less often, for everybody has to agree.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        config: RunConfig,
        net: Any,
        trainer: ScheduledTrainer,
        seconds_before: float = 0.0,
        stop_requested: Callable[[], bool] = lambda: False,
        team: Team = ALONE,
    ) -> None:
        self.folder = folder
        self.run_config = config
        self.config = config.checkpoint
        self.net = net
        self.trainer = trainer
        self.stop_requested = stop_requested
        self.team = team
        self._started = time.monotonic() - seconds_before
        self._saved_at, self._saved_after = time.monotonic(), trainer.iteration  # a clock that nobody can set
        self._best: tuple[float, str] | None = self._best_of_before()

    @property
    def seconds(self) -> float:
        """What the run has taken, with what it took before it was resumed."""
        return time.monotonic() - self._started

    def is_due(self, iteration: int) -> bool:
        if iteration - self._saved_after >= self.config.every_iterations:
            return True
        if self.team.size > 1 and iteration % FETCH_EVERY:
            return False  # clocks and signals differ, and to ask the others takes as long as they do
        return self.team.agrees(time.monotonic() - self._saved_at >= 60 * self.config.every_minutes or self.stop_requested())

    def save(self, position: Position, metrics: EpochMetrics | None = None) -> None:
        state, arrays = capture(self.net, self.trainer, position)
        # Loss and gradient were finite, the rate was too high all the same: nobody can go on from what it has left.
        if not all(np.isfinite(values).all() for values in arrays.values()):
            raise RunError(
                f"a parameter or its optimizer state is no longer finite after iteration {self.trainer.iteration} "
                f"(learning rate {self.trainer.learning_rate}); try lower rates, a warm-up, or optimizer.clip_gradient"
            )
        scores = metrics and (metrics.validation or metrics.train)  # the test images choose nothing
        state["loss"] = scores.loss if scores else None
        state["seconds"] = self.seconds
        state["config"] = self.run_config.to_tables()
        if self.folder:
            self._write(self.folder, state, arrays, position)
        self._saved_at, self._saved_after = time.monotonic(), self.trainer.iteration
        if self.team.agrees(self.stop_requested()):
            raise Interrupted(self.trainer.iteration)

    def _write(self, folder: RunFolder, state: dict[str, Any], arrays: Arrays, position: Position) -> None:
        # These must be there: a checkpoint that knew nothing of them would lead to files without their beginning.
        written = [ITERATIONS, METRICS] if position.epoch > 1 else [ITERATIONS] if position.batch else []
        contents = {name: folder.read_to_disk(name) for name in written}
        state["files"] = {name: {"bytes": len(content), "sha256": _sha256(content)} for name, content in contents.items()}
        path = write(folder, state, arrays)
        if state["loss"] is not None and (self._best is None or state["loss"] < self._best[0]):
            self._best = state["loss"], path.name
        self._remove_old(folder)

    def _remove_old(self, folder: RunFolder) -> None:
        for path in _paths(folder)[: -self.config.keep]:
            if self._best is None or path.name != self._best[1]:
                shutil.rmtree(path, ignore_errors=True)

    def _best_of_before(self) -> tuple[float, str] | None:
        known = []
        for path in _paths(self.folder) if self.folder else ():
            try:
                loss = read(path).state["loss"]
            except (DamagedError, KeyError):
                continue
            if isinstance(loss, float) and math.isfinite(loss):
                known.append((loss, path.name))
        return min(known, default=None)
