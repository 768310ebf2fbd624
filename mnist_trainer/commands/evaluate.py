"""`mnist-trainer evaluate`: evaluate the model of a run on its test images, and show its mistakes."""

from mnist_trainer.commands.request import Arguments, open_run
from mnist_trainer.console import print_lines
from mnist_trainer.errors import DONE


def evaluate(arguments: Arguments) -> int:
    """Run `mnist-trainer evaluate`; return the exit code."""
    folder, config = open_run(arguments)
    from mnist_trainer.inference.evaluation import evaluate_run, table, write_evaluation

    evaluation = evaluate_run(folder, config, arguments.data_dir, arguments.checkpoint)
    scores = evaluation.scores
    accuracy = f"Test accuracy {scores.accuracy:.2%} ({scores.correct} of {scores.total})"
    of_checkpoint = "" if arguments.checkpoint == "last" else f"Checkpoint {arguments.checkpoint}: "
    print_lines(f"{of_checkpoint}{accuracy}, test loss {scores.loss:.6f}", *table(evaluation))
    written = write_evaluation(evaluation, folder)
    print_lines(f"In {folder.path}: {', '.join(written)}")
    return DONE
