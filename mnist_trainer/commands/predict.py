"""`mnist-trainer predict`: recognise the digits in pictures with the model of a run."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from mnist_trainer.commands.request import Arguments, open_run
from mnist_trainer.console import print_lines, say
from mnist_trainer.errors import DONE, FAILED, WRONG_REQUEST, RequestError
from mnist_trainer.folder import open_named

if TYPE_CHECKING:
    from mnist_trainer.inference.predictor import Model, Prediction

_STDIN = "-"

_SHADES = " .:-=+*#%@"  # from no ink to full ink


def predict(arguments: Arguments) -> int:
    """Run `mnist-trainer predict`; return the exit code."""
    usage = "write mnist-trainer predict RUN_DIR IMAGE…"
    if not arguments.images:
        raise RequestError(f"{arguments.run_dir}: a run folder and a picture are needed; {usage}")
    if arguments.run_dir.is_file():
        raise RequestError(f"{arguments.run_dir}: the first argument must be a run folder; {usage}")
    folder, config = open_run(arguments)
    from mnist_trainer.inference.pictures import PictureError
    from mnist_trainer.inference.predictor import open_model

    model = open_model(folder, config, arguments.checkpoint)
    shown = _as_json if arguments.json else _as_text
    code = DONE
    for path in _pictures(arguments.images):
        try:
            prediction = _predict(model, path)
        except PictureError as error:
            say(f"{path}: {error}")
            code = code or WRONG_REQUEST  # the other pictures are still predicted
        except MemoryError:
            say(f"{path}: there is not enough memory for this picture")
            code = FAILED
        else:
            print_lines(*shown(path, prediction, arguments.show))
    return code


def _pictures(paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths of files, and for a folder the paths of its pictures, or of the folder itself if it has none."""
    from mnist_trainer.inference.pictures import ENDINGS

    for path in paths:
        found: list[str] = []
        if path != _STDIN:
            with suppress(OSError), os.scandir(path) as entries:  # `_predict` finds the reason
                found = sorted(entry.path for entry in entries if entry.name.lower().endswith(ENDINGS))
        yield from [file for file in found if not os.path.isdir(file)] or [path]  # noqa: PTH112 - Path.is_dir may raise


def _predict(model: "Model", path: str) -> "Prediction":
    from mnist_trainer.inference.pictures import ENDINGS, PictureError

    try:
        if path == _STDIN:
            if sys.stdin is None:
                raise PictureError("standard input is closed")
            return model.predict_picture(sys.stdin.buffer)
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir may raise
            os.scandir(path).close()  # raises OSError if the folder cannot be read
            raise PictureError(f"there is no picture in this folder; the name of a picture ends in {', '.join(ENDINGS)}")
        with open_named(path) as stream:
            return model.predict_picture(stream)
    except FileNotFoundError as error:
        raise PictureError("no such file") from error
    except OSError as error:
        raise PictureError(f"cannot be read ({error.strerror})") from error


def _as_text(path: str, prediction: "Prediction", with_image: bool) -> list[str]:
    digits = prediction.digit, prediction.runner_up
    predicted, runner_up = (f"{digit} ({prediction.probabilities[digit]:.2%})" for digit in digits)
    line = f"{path}: {predicted}, runner-up {runner_up}"
    if not with_image:
        return [line]
    # Two characters are about as wide as one line is high.
    rows = ("".join(2 * _SHADES[level * len(_SHADES) // 256] for level in row) for row in prediction.image.tolist())
    return [line, *rows]


def _as_json(path: str, prediction: "Prediction", with_image: bool) -> list[str]:
    content = {
        "picture": path,
        "digit": prediction.digit,
        "probability": float(prediction.probabilities[prediction.digit]),
        "runner_up": prediction.runner_up,
        "runner_up_probability": float(prediction.probabilities[prediction.runner_up]),
        "probabilities": prediction.probabilities.tolist(),
    }
    return [json.dumps(content | ({"image": prediction.image.tolist()} if with_image else {}))]
