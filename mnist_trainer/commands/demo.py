"""`mnist-trainer demo`: serve a web page on which the model of a run recognises drawn digits."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import TYPE_CHECKING, Any

from mnist_trainer.commands.request import Arguments, open_run
from mnist_trainer.console import print_lines, say
from mnist_trainer.errors import DONE, RequestError

if TYPE_CHECKING:
    from mnist_trainer.inference.predictor import Model

_MAX_PIXELS = 1_000_000
"""Maximum number of pixels of a drawing. The page sends far fewer, but a file of one mebibyte can hold many more."""

_MAX_READERS = 4
"""Number of drawings that are read at the same time. Each takes up to 70 MB of memory."""


def demo(arguments: Arguments) -> int:
    """Run `mnist-trainer demo` until Ctrl-C, which is its normal end; return the exit code."""
    folder, config = open_run(arguments)
    from mnist_trainer.demo.server import DemoServer
    from mnist_trainer.inference.predictor import open_model

    model = open_model(folder, config, arguments.checkpoint)
    with ThreadPoolExecutor(max_workers=1) as network_thread:
        try:
            server = DemoServer(arguments.port, drawing_answerer(model, network_thread), about_model(folder.path, model))
        except OSError as error:
            reason = error.strerror or error
            raise RequestError(
                f"--port {arguments.port}: the port is not available ({reason}); choose another, or 0 for any"
            ) from error
        try:
            print_lines(f"Draw digits at {server.address} (Ctrl-C ends it)")
            server.serve_forever()
        except KeyboardInterrupt:
            say("the demo has ended")
        finally:
            server.server_close()
    return DONE


def about_model(run_dir: Path, model: "Model") -> str:
    """Return the test accuracy and the run in one line.

    Args:
        run_dir: The run folder, as the user named it.
        model: The model.
    """
    parameters = "model" if model.checkpoint == "last" else f"checkpoint {model.checkpoint}"
    accuracy = "" if model.test_accuracy is None else f"Test accuracy {model.test_accuracy:.2%}, "
    return f"{accuracy}{parameters} of {run_dir}"


def drawing_answerer(model: "Model", network_thread: ThreadPoolExecutor) -> Callable[[bytes], dict[str, Any]]:
    """Return a function that answers drawings, for many threads at the same time.

    Args:
        model: The model.
        network_thread: The single thread that computes the network, as MXNet needs. Drawings are read in the callers' threads,
            so that one that takes long does not delay the others.
    """
    from mnist_trainer.inference.pictures import read_picture
    from mnist_trainer.inference.preprocessing import mnist_image

    readers = Semaphore(_MAX_READERS)

    def answer_drawing(content: bytes) -> dict[str, Any]:
        with readers:
            image = mnist_image(read_picture(io.BytesIO(content), _MAX_PIXELS))
        answer = network_thread.submit(model.predict, image).result()
        return {
            "digit": answer.digit,
            "runner_up": answer.runner_up,
            "probabilities": answer.probabilities.tolist(),
            "image": answer.image.tolist(),
        }

    return answer_drawing
