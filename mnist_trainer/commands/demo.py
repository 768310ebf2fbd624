"""`mnist-trainer demo`: a page to draw digits on, which a run's model reads as they are drawn."""

import io
from typing import Any

from mnist_trainer.commands.request import Arguments, open_run
from mnist_trainer.errors import DONE, RequestError

_MAX_PIXELS = 1_000_000
"""Of a drawing. The page sends far fewer; a file of a mebibyte could hold so many that others would wait long for an answer."""


def demo(arguments: Arguments) -> int:
    """Serves until it is interrupted, which is how it ends."""
    folder, config = open_run(arguments)
    from mnist_trainer.demo.server import DemoServer
    from mnist_trainer.inference.predictor import open_model

    model = open_model(folder, config)

    def answer_drawing(content: bytes) -> dict[str, Any]:
        answer = model.answer_picture(io.BytesIO(content), _MAX_PIXELS)
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
        raise RequestError(f"--port {arguments.port}: cannot be had ({reason}); choose another, or 0 for any") from error
    try:
        print(f"Draw digits at {server.address} (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    finally:
        server.server_close()
    return DONE
