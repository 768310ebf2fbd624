"""`mnist-trainer demo`: serve a web page on which the model of a run recognises drawn digits."""

import io
from typing import Any

from mnist_trainer.commands.request import Arguments, open_run
from mnist_trainer.console import print_lines
from mnist_trainer.errors import DONE, RequestError

_MAX_PIXELS = 1_000_000
"""Maximum number of pixels of a drawing.

The page sends far fewer. A file of one mebibyte can hold many more, and other requests would wait while it is read.
"""


def demo(arguments: Arguments) -> int:
    """Run `mnist-trainer demo` until it is interrupted; return the exit code."""
    folder, config = open_run(arguments)
    from mnist_trainer.demo.server import DemoServer
    from mnist_trainer.inference.predictor import open_model

    model = open_model(folder, config)

    def answer_drawing(content: bytes) -> dict[str, Any]:
        answer = model.predict_picture(io.BytesIO(content), _MAX_PIXELS)
        return {
            "digit": answer.digit,
            "runner_up": answer.runner_up,
            "probabilities": answer.probabilities.tolist(),
            "image": answer.image.tolist(),
        }

    try:
        server = DemoServer(arguments.port, answer_drawing)
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(
            f"--port {arguments.port}: the port is not available ({reason}); choose another, or 0 for any"
        ) from error
    try:
        print_lines(f"Draw digits at {server.address} (Ctrl-C ends it)")
        server.serve_forever()
    finally:
        server.server_close()
    return DONE
