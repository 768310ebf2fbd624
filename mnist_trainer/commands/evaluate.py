"""`mnist-trainer evaluate`: what a finished run scores on its test images."""

from mnist_trainer import runtime
from mnist_trainer.commands.request import Arguments, overrides_of
from mnist_trainer.config import load_recorded_config
from mnist_trainer.errors import DONE
from mnist_trainer.run_folder import CONFIG, RunFolder


def evaluate(arguments: Arguments) -> int:
    folder = RunFolder.open(arguments.run_dir)
    config = load_recorded_config(folder / CONFIG, overrides_of(arguments))
    runtime.prepare(config.runtime.threads)
    from mnist_trainer.evaluation import evaluate_run

    scores = evaluate_run(folder, config, arguments.data_dir)
    print(f"Test accuracy {scores.accuracy:.2%} ({scores.correct} of {scores.total}), test loss {scores.loss:.6f}")
    return DONE
