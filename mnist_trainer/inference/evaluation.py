"""Evaluates the model of a run on the test images: scores, confusion matrix, mistakes, and their files.

`predictor` opens the model, and `plots` draws the figures.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mnist_trainer import run_folder
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.data.loaders import create_test_loader
from mnist_trainer.datasets import kind_of_class
from mnist_trainer.errors import RunError
from mnist_trainer.figures import draw
from mnist_trainer.inference.predictor import NOT_FINITE, Model, open_model, softmax
from mnist_trainer.model.network import build_loss
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.runtime.devices import device_name
from mnist_trainer.training.records import Scores
from mnist_trainer.training.step import split_batch

mx = import_mxnet()

_MAX_MISTAKES_DRAWN = 28


class Mistake(NamedTuple):
    """A test image whose predicted class is not its true label."""

    image: int  # index among the test images, from 0
    true_label: int
    predicted: int
    predicted_probability: float
    true_label_probability: float


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions for the test images, compared with the true labels.

    Attributes:
        model: The model.
        scores: Loss and accuracy.
        confusion: Counts, shape (classes, classes): a row for each true label, a column for each predicted class.
        mistakes: The M wrong predictions, the most confident first.
        mistaken_images: Their images, shape (M, height, width), float32 in [0, 1], in the same order.
    """

    model: Model
    scores: Scores
    confusion: npt.NDArray[np.int64]
    mistakes: list[Mistake]
    mistaken_images: npt.NDArray[np.float32]

    @property
    def precision(self) -> list[float | None]:
        """Fraction of the images predicted as a class that are of this class; None for a class that was never predicted."""
        return _shares(self.confusion.diagonal(), self.confusion.sum(axis=0))

    @property
    def recall(self) -> list[float | None]:
        """Fraction of the images of a class that were predicted as this class; None for a class without images."""
        return _shares(self.confusion.diagonal(), self.confusion.sum(axis=1))


def _shares(parts: npt.NDArray[np.int64], wholes: npt.NDArray[np.int64]) -> list[float | None]:
    return [part / whole if whole else None for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)]


def evaluate_run(
    folder: RunFolder, config: RunConfig, data_dir: Path | None = None, checkpoint: str | int = "last"
) -> Evaluation:
    """Evaluate the parameters in a run folder on the test images of `config`.

    Args:
        folder: The folder of the run.
        config: `load_recorded_config` of the folder; device, threads and number of test images may be changed.
        data_dir: The folder of the four MNIST files; None for the default.
        checkpoint: The parameters to evaluate, as for `open_model`.

    Returns:
        The evaluation.

    Raises:
        RequestError: The model cannot be opened (see `open_model`), or a data file is not the genuine one.
    """
    model = open_model(folder, config, checkpoint)
    return evaluate_model(model, create_test_loader(config, data_dir))


def evaluate_model(model: Model, loader: Any) -> Evaluation:
    """Evaluate a model on every image of a loader from `create_test_loader`. Waits for the device after each batch.

    Raises:
        RunError: A logit or the loss is not finite.
    """
    loss_function = build_loss()
    classes = len(model.classes)
    loss_sums, confusion, found = [], np.zeros((classes, classes), np.int64), []
    done = 0
    for images, labels in loader:
        parts = split_batch(images, labels, model.devices)
        logits = [model.accelerated(part) for part, _ in parts]
        losses = [loss_function(part, part_labels) for part, (_, part_labels) in zip(logits, parts, strict=True)]
        loss_sums += [loss.sum().asscalar() for loss in losses]
        true_labels, probabilities = labels.asnumpy(), softmax(np.concatenate([part.asnumpy() for part in logits]))
        predicted = probabilities.argmax(axis=1)
        np.add.at(confusion, (true_labels, predicted), 1)
        wrong = np.flatnonzero(predicted != true_labels)
        pixels = images.asnumpy()[wrong, 0]
        for number, image in zip(wrong.tolist(), pixels, strict=True):
            label, digit = int(true_labels[number]), int(predicted[number])
            of_image = probabilities[number]
            found.append((Mistake(done + number, label, digit, float(of_image[digit]), float(of_image[label])), image))
        done += len(true_labels)
    loss = math.fsum(loss_sums) / done
    if not math.isfinite(loss):
        raise RunError(NOT_FINITE)
    found.sort(key=lambda entry: -entry[0].predicted_probability)
    return Evaluation(
        model=model,
        scores=Scores(loss, int(confusion.trace()), done),
        confusion=confusion,
        mistakes=[mistake for mistake, _ in found],
        mistaken_images=np.array([image for _, image in found], np.float32).reshape(-1, *model.data.image_shape),
    )


def table(evaluation: Evaluation) -> list[str]:
    """Return the precision and recall of each class, and the confusion matrix, as lines of text."""
    kind = kind_of_class(evaluation.model.classes)
    names = list(evaluation.model.classes)
    if kind != "digit":
        names = [f"{label} {name}" for label, name in enumerate(names)]
    width = max(5, *map(len, names))
    lines = [f"{kind:>{width}} {'images':>8} {'precision':>10} {'recall':>8}"]
    rows = evaluation.confusion.tolist()
    for name, row, precision, recall in zip(names, rows, evaluation.precision, evaluation.recall, strict=True):
        lines.append(f"{name:>{width}} {sum(row):>8} {_percent(precision):>10} {_percent(recall):>8}")
    lines.append(f"Confusion matrix: a row for each true label, a column for each predicted {kind}")
    lines.append(" " * width + "".join(f"{label:>6}" for label in range(len(names))))
    lines += [f"{name:>{width}}" + "".join(f"{count:>6}" for count in row) for name, row in zip(names, rows, strict=True)]
    return lines


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def write_evaluation(evaluation: Evaluation, folder: RunFolder) -> list[str]:
    """Write two figures and then `evaluation.json` into the run folder. Existing files are overwritten.

    Other parameters than the last ones have other names, such as `evaluation_best.json`. A figure that cannot be drawn is
    reported on stderr.

    Returns:
        The names of the files that were written.

    Raises:
        RunError: `evaluation.json` cannot be written.
    """
    drawn = evaluation.mistakes[:_MAX_MISTAKES_DRAWN]
    classes = evaluation.model.classes
    captions = [
        f"predicted {classes[mistake.predicted]} ({mistake.predicted_probability:.1%})\n"
        f"true label {classes[mistake.true_label]}"
        for mistake in drawn
    ]
    right, total = evaluation.scores.correct, evaluation.scores.total
    figures: dict[str, Callable[[ModuleType], Any]] = {
        run_folder.CONFUSION_MATRIX: lambda plots: plots.plot_confusion_matrix(
            evaluation.confusion.tolist(), right, total, classes
        ),
        run_folder.MISTAKES: lambda plots: plots.plot_mistakes(
            evaluation.mistaken_images, captions, len(evaluation.mistakes), total
        ),
    }
    again = "to draw it later, run the same command again"
    name_of = {name: run_folder.with_suffix(name, evaluation.model.suffix) for name in (run_folder.EVALUATION, *figures)}
    drawn_figures = [name_of[name] for name, make in figures.items() if draw(folder, name_of[name], make, again)]
    try:
        folder.write_json(name_of[run_folder.EVALUATION], _content(evaluation))
    except OSError as error:
        sentence = f"{error.filename}: cannot be written ({error.strerror}); the results above are valid nevertheless"
        raise RunError(sentence) from error
    return [name_of[run_folder.EVALUATION], *drawn_figures]


def _content(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of `evaluation.json`."""
    scores, confusion = evaluation.scores, evaluation.confusion
    digits = enumerate(zip(evaluation.precision, evaluation.recall, strict=True))
    return {
        "test_accuracy": scores.accuracy,
        "test_loss": scores.loss,
        "test_correct": scores.correct,
        "test_total": scores.total,
        "data": evaluation.model.data.name,
        "classes": list(evaluation.model.classes),
        "digits": [
            {
                "digit": digit,
                "images": int(confusion[digit].sum()),
                "predicted": int(confusion[:, digit].sum()),
                "correct": int(confusion[digit, digit]),
                "precision": precision,
                "recall": recall,
            }
            for digit, (precision, recall) in digits
        ],
        "confusion_matrix": confusion.tolist(),
        "mistakes": [mistake._asdict() for mistake in evaluation.mistakes],
        "device": device_name(list(evaluation.model.devices)),
        "backend": evaluation.model.backend,
        "checkpoint": evaluation.model.checkpoint,
        "parameters_sha256": evaluation.model.parameters_sha256,
    }
