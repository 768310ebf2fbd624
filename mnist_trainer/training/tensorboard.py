"""Writes the course of a training for TensorBoard. Needs the package tensorboard, which is loaded when a log begins.

The event file of a run follows from its rows: a resumed run writes it again, so that no iteration is in it twice.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mnist_trainer.config.schema import RunConfig
from mnist_trainer.console import say
from mnist_trainer.data.augmentation import augment
from mnist_trainer.data.files import read_split
from mnist_trainer.errors import RequestError
from mnist_trainer.figures import why
from mnist_trainer.folder import Folder
from mnist_trainer.run_folder import ITERATIONS, METRICS, TENSORBOARD, RunFolder
from mnist_trainer.training.callbacks import Callback
from mnist_trainer.training.records import EpochMetrics, IterationRecord, LoopState

_PREFIX = "events.out.tfevents."
_SUFFIX = ".mnist-trainer"

_ROWS_AT_ONCE = 1000
_IMAGES = 2, 8  # rows and columns
_IMAGE_SCALE = 3


class TensorBoard(Callback):
    """Writes an event file for TensorBoard. `tensorboard --logdir FOLDER` shows it.

    The file has `iteration/loss` and `iteration/learning_rate` of each iteration, and each column of `metrics.csv` after each
    epoch, such as `epoch/test_accuracy`. The step is always the iteration.

    Args:
        folder: The folder of the event file. It is made if it does not exist. TensorBoard shows the latest file in it, so give
            each training a folder of its own.
        schedules: Schedules by name, such as those of momentum and weight decay. Their values are written as
            `iteration/momentum` and `iteration/wd`.

    Raises:
        ImportError: The package tensorboard is not installed.

    Example:
        >>> from mnist_trainer import TensorBoard
        >>> fit(network, train_loader, test_loader, trainer, 10, callbacks=[TensorBoard("logs/first")])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path | Folder, schedules: Mapping[str, Callable[[int], float]] | None = None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        if not isinstance(folder, Folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            folder = Folder(Path(folder))
        self._protos, self._summaries, self._writer = event_pb2, summary_pb2, RecordWriter
        self._folder = folder
        self._name = f"{_PREFIX}{time.time_ns():020}{_SUFFIX}"  # TensorBoard reads the files in the order of their names
        self._schedules = dict(schedules or {})
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        # TensorBoard drops what it has read of earlier files in the folder when it reads this start.
        self._write([self._event(0, file_version="brain.Event:2"), self._event(0, session_log=start)])

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        self.write_iterations([(record.iteration, record.learning_rate, record.loss) for record in records])

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        self.write_metrics(metrics.to_row())

    def write_iterations(self, rows: Sequence[tuple[int, float, float]]) -> None:
        """Write iterations.

        Args:
            rows: Rows (iteration, learning rate, loss).
        """
        events = []
        for iteration, learning_rate, loss in rows:
            others = {name: schedule(iteration) for name, schedule in self._schedules.items()}
            events.append(self._scalars(iteration, "iteration", {"loss": loss, "learning_rate": learning_rate} | others))
        self._write(events)

    def write_metrics(self, row: Mapping[str, float]) -> None:
        """Write the metrics of an epoch.

        Args:
            row: The metrics by their names in `metrics.jsonl`.
        """
        numbers = {name: value for name, value in row.items() if name not in ("epoch", "iteration")}
        self._write([self._scalars(int(row["iteration"]), "epoch", numbers)])

    def write_image(self, name: str, png: bytes) -> None:
        """Write an image before the first iteration.

        Args:
            name: The name of the image.
            png: Its PNG file.
        """
        width, height = Image.open(io.BytesIO(png)).size
        image = self._summaries.Summary.Image(height=height, width=width, encoded_image_string=png)
        value = self._summaries.Summary.Value(tag=name, image=image)
        self._write([self._event(0, summary=self._summaries.Summary(value=[value]))])

    def _scalars(self, step: int, group: str, numbers: Mapping[str, float]) -> Any:
        values = [self._summaries.Summary.Value(tag=f"{group}/{name}", simple_value=number) for name, number in numbers.items()]
        return self._event(step, summary=self._summaries.Summary(value=values))

    def _event(self, step: int, **content: Any) -> Any:
        return self._protos.Event(wall_time=time.time(), step=step, **content)

    def _write(self, events: Sequence[Any]) -> None:
        stream = io.BytesIO()
        for event in events:
            self._writer(stream).write(event.SerializeToString())
        self._folder.append(self._name, stream.getvalue())


def require_tensorboard() -> None:
    """Raise RequestError if the package tensorboard cannot be imported."""
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError as error:
        message = f"needs the package tensorboard, which cannot be imported ({error}); install it with pip install tensorboard"
        raise RequestError(f"runtime.log = tensorboard: {message}") from error


def begin_log(folder: RunFolder, config: RunConfig, data_dir: Path) -> TensorBoard:
    """Begin the event file of a run with images of the schedules and of training images, and with the rows that it has.

    Args:
        folder: The run's folder. Its earlier event files are emptied.
        config: The run's configuration.
        data_dir: The folder of the MNIST files.

    Returns:
        The callback that continues the file.
    """
    logs = folder.subfolder(TENSORBOARD)
    logs.make()
    for name in logs.names():
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
            with logs.replacing(name):  # by an empty file; a TensorBoard whose file is removed never reads another
                pass
    log = TensorBoard(logs, config.build_hyperparameters())
    total = config.run_length.total_iterations
    try:
        from mnist_trainer import plots

        schedules = {"learning_rate": config.build_schedule(), **config.build_hyperparameters()}
        figure = plots.plot_schedules({name: (schedule, total) for name, schedule in schedules.items()})
        log.write_image("schedules", plots.png_of(figure))
    except Exception as error:  # matplotlib raises exceptions of any kind
        say(f"{logs.path}: the figure of the schedules cannot be drawn ({why(error)}); the log has none")
    log.write_image("training_images", _training_images(config, data_dir))
    if folder.has_file(ITERATIONS):
        rows = folder.iteration_rows()
        while block := list(islice(rows, _ROWS_AT_ONCE)):
            log.write_iterations(block)
    if folder.has_file(METRICS):
        for row in folder.metrics_rows():
            log.write_metrics(row)
    return log


def _training_images(config: RunConfig, data_dir: Path) -> bytes:
    """Return the first training images, as they are in the first epoch, side by side as a PNG file."""
    rows, columns = _IMAGES
    images = read_split(data_dir, config.data, train=True).part(0, min(rows * columns, config.data.trained_images)).images
    if config.data.augment:
        images = augment(images, range(len(images)), config.training.seed, epoch=1)
    tiles = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    tiles[: len(images)] = images
    whole = tiles.reshape(rows, columns, *images.shape[1:]).swapaxes(1, 2).reshape(rows * images.shape[1], -1)
    stream = io.BytesIO()
    Image.fromarray(whole.repeat(_IMAGE_SCALE, axis=0).repeat(_IMAGE_SCALE, axis=1)).save(stream, "PNG")
    return stream.getvalue()
