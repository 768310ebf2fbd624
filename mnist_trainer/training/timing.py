"""An estimate of the time of a run, from some of its iterations and an evaluation. Nothing is written."""

import time
from dataclasses import dataclass
from itertools import chain, islice, repeat

from mnist_trainer import runtime
from mnist_trainer.training.experiment import Experiment, create_network_and_trainer
from mnist_trainer.training.loop import evaluate
from mnist_trainer.training.step import TrainStep

mx = runtime.import_mxnet()

_WARM_UP = 10  # iterations that are not measured, since the first ones allocate memory
_MEASURED = 100
_MAX_SECONDS = 5.0  # of measured iterations; at least one is measured


@dataclass(frozen=True)
class TimeEstimate:
    """The estimated time of a run, without the start of the program, checkpoints and the figure at the end.

    Attributes:
        seconds: The time of all iterations and evaluations.
        iterations: The number of iterations that were measured.
        iteration_seconds: The mean time of one of them.
        evaluation_seconds: The measured time of the evaluation after an epoch.
    """

    seconds: float
    iterations: int
    iteration_seconds: float
    evaluation_seconds: float


def estimate_time(experiment: Experiment) -> TimeEstimate:
    """Train for some iterations, evaluate once, and estimate the time of the whole run.

    Args:
        experiment: The experiment, from `prepare`. It cannot be run afterwards.

    Raises:
        MXNetError: MXNet failed.
        ScheduleError: The schedule failed.
    """
    network, trainer = create_network_and_trainer(experiment)
    network = experiment.accelerate(network)
    step = TrainStep(network, trainer)
    run_length = experiment.config.run_length
    batches = islice(chain.from_iterable(repeat(experiment.train_loader)), run_length.total_iterations)
    for images, labels in islice(batches, min(_WARM_UP, run_length.total_iterations // 2)):
        step(images, labels)
    mx.nd.waitall()
    start, measured = time.perf_counter(), 0
    for images, labels in islice(batches, _MEASURED):
        step(images, labels)
        measured += 1
        if time.perf_counter() - start > _MAX_SECONDS:  # the device may be behind, so this is rough
            break
    mx.nd.waitall()
    trained = time.perf_counter()
    for loader in (experiment.test_loader, experiment.validation_loader):
        if loader is not None:
            evaluate(network, loader)
    iteration_seconds, evaluation_seconds = (trained - start) / measured, time.perf_counter() - trained
    seconds = run_length.total_iterations * iteration_seconds + run_length.epochs * evaluation_seconds
    return TimeEstimate(seconds, measured, iteration_seconds, evaluation_seconds)
