"""Random cases of SpeechBrain."""

from functools import partial

from mnist_trainer.schedules import (
    Constant,
    NewBob,
)
from origins.comparisons import Draw, Reaction
from origins.libraries import SPEECHBRAIN


@SPEECHBRAIN.case
def speechbrain_new_bob(draw: Draw) -> Reaction:
    lr, results, factor, patience = draw.rate(), draw.results(unknown=False), draw.fraction(), draw.randrange(4)
    results = [draw.choice((0.0, result)) if draw.random() < 0.05 else result for result in results]
    threshold = draw.choice((0.0, 0.0025, draw.uniform(-0.1, 0.2)))
    call = partial(SPEECHBRAIN.load().NewBobScheduler, lr, factor, threshold, patience)
    scheduler = call()
    rates = [float(scheduler(result)[1]) for result in results]
    return Reaction(call, rates, NewBob(Constant(lr), factor=factor, threshold=threshold, patience=patience), results)
