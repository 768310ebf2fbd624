"""Random cases of Keras."""

from functools import partial
from types import SimpleNamespace
from typing import Any

from mnist_trainer.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    Piecewise,
    Plateau,
    Product,
    Shift,
    Sum,
    WarmRestarts,
    Warmup,
)
from origins.comparisons import Comparison, Counted, Draw, Reaction
from origins.curves import draw_plateau, metric, polynomial, restarts, staircase, whole
from origins.libraries import KERAS, Lazy

keras_schedules = Lazy("keras.optimizers.schedules")


def by_steps(draw: Draw, lr: float, factor: float, kind: Any, call: Any) -> Comparison:
    steps, stairs = draw.length(60), draw.random() < 0.5
    name = "factor" if kind is Exponential else "decay_rate"
    ours = kind(step=steps, base_lr=lr, staircase=stairs, **{name: factor})
    origin = Counted(partial(call, lr, steps, factor, staircase=stairs))
    return Comparison(origin, ours, 8 * steps, (steps, 2 * steps), shift=int(stairs))


@KERAS.case
def keras_exponential(draw: Draw) -> Comparison:
    return by_steps(draw, draw.rate(), draw.ratio(8), Exponential, keras_schedules.ExponentialDecay)


@KERAS.case
def keras_inverse_time(draw: Draw) -> Comparison:
    strength = draw.choice((0.0, 1.0, draw.uniform(0, 5)))
    return by_steps(draw, draw.rate(), strength, InverseTime, keras_schedules.InverseTimeDecay)


@KERAS.case
def keras_piecewise(draw: Draw) -> Comparison:
    boundaries = draw.increasing(first=0)
    values = [draw.choice((0.0, draw.rate(), draw.rate())) for _ in (*boundaries, 0)]
    origin = Counted(partial(keras_schedules.PiecewiseConstantDecay, boundaries, values))
    ends = [boundary + 1 for boundary in boundaries]  # update k has count k − 1
    return Comparison(origin, Piecewise(boundaries=ends, values=values), ends[-1] + 20, ends, shift=1)


@KERAS.case
def keras_polynomial(draw: Draw) -> Comparison:
    given, ours, length = polynomial(draw)
    given = {"initial_learning_rate": given.pop("learning_rate"), "end_learning_rate": given.pop("end")} | given
    origin = Counted(partial(keras_schedules.PolynomialDecay, **given))
    return Comparison(origin, ours, 4 * length, (length, 2 * length, 3 * length))


@KERAS.case
def keras_cosine(draw: Draw) -> Comparison:
    lr, length, alpha, warmup = draw.rate(), draw.length(200), draw.fraction(), draw.up_to(50)
    begin = draw.choice((0.0, draw.rate()))
    if draw.random() < 0.3:
        warmup, begin, given = 0, lr, {}
    else:
        given = {"warmup_target": lr, "warmup_steps": warmup}
    origin = Counted(partial(keras_schedules.CosineDecay, begin, length, alpha, **given))
    ours = Warmup(Cosine(max_update=length, base_lr=lr, final_lr=alpha * lr), warmup, warmup_begin_lr=begin)
    return Comparison(origin, ours, warmup + length + 20, (warmup, warmup + length))


@KERAS.case
def keras_cosine_restarts(draw: Draw) -> Comparison:
    lr, length, multiple, alpha = draw.rate(), draw.length(60), draw.multiple(), draw.fraction()
    factor = draw.ratio(6) if multiple == 1 else draw.fraction()
    last = 6 * length
    starts = restarts(length, multiple, last)
    fall = WarmRestarts(0, max_lr=lr * (1 - alpha), cycle_length=length, t_mult=multiple, cycle_decay=min(factor, 1))
    ours = Sum([fall, Constant(alpha * lr)])
    if factor > 1:
        ours = Sum([Product([fall, Shift(staircase(1, length, factor), by=1)]), Constant(alpha * lr)])
    origin = Counted(partial(keras_schedules.CosineDecayRestarts, lr, length, multiple, factor, alpha))
    # Keras finds the cycle with a logarithm, whose rounding may make it wrong by one where a cycle begins.
    return Comparison(origin, ours, last, map(int, starts), restarts=whole(starts) if multiple > 1 else ())


@KERAS.case
def keras_plateau(draw: Draw) -> Reaction:
    lr, results, (settings, rises) = draw.rate(), draw.results(unknown=False), draw_plateau(draw)
    settings |= {"threshold_mode": "abs", "eps": 0.0}
    patience, cooldown = settings["patience"], settings["cooldown"]
    given = {"mode": "max" if rises else "min", "min_delta": settings["threshold"], "patience": patience, "cooldown": cooldown}
    call = partial(Lazy("keras.callbacks").ReduceLROnPlateau, factor=settings["factor"], min_lr=settings["min_lr"], **given)
    callback, model = call(), SimpleNamespace(optimizer=SimpleNamespace(learning_rate=lr))
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, result in enumerate(results):
        callback.on_epoch_end(epoch, {"val_loss": result})
        rates.append(float(model.optimizer.learning_rate))
    settings |= {"patience": max(patience - 1, 0), "cooldown": max(cooldown - 1, 0)}
    return Reaction((call, lr), rates, Plateau(Constant(lr), metric=metric(rises), **settings), results)
