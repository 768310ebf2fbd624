"""Random cases of Paddle."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Constant,
    Cosine,
    Exponential,
    Factor,
    InverseTime,
    Linear,
    MultiFactor,
    NaturalExponential,
    Noam,
    OneCycleLR,
    Piecewise,
    Plateau,
    Poly,
    WarmRestarts,
    Warmup,
)
from origins.comparisons import Comparison, Draw, Reaction
from origins.curves import (
    cyclic,
    draw_cyclic,
    draw_one_cycle,
    draw_plateau,
    metric,
    one_cycle_corners,
    polynomial,
    restarts,
    staircase,
)
from origins.libraries import PADDLE, Lazy, read_in_steps

paddle = Lazy("paddle.optimizer.lr")


@dataclass(frozen=True)
class Paddle:
    """A scheduler of Paddle, which is stepped as in a training."""

    call: Callable[..., Any]

    def __call__(self, counts: list[int]) -> list[float]:
        scheduler = self.call()
        return [float(rate) for rate in read_in_steps(counts, scheduler.step, scheduler)]


@PADDLE.case
def paddle_noam(draw: Draw) -> Comparison:
    size, warmup, factor = draw.choice((1, 64, 512)), draw.length(200), draw.rate()
    ours = Noam(model_size=size, warmup_steps=warmup, base_lr=factor)
    return Comparison(Paddle(partial(paddle.NoamDecay, size, warmup, factor)), ours, 2 * warmup + 20, [warmup])


@PADDLE.case
def paddle_piecewise(draw: Draw) -> Comparison:
    boundaries = draw.increasing()
    values = [draw.choice((0.0, draw.rate(), draw.rate())) for _ in (*boundaries, 0)]
    origin = Paddle(partial(paddle.PiecewiseDecay, boundaries, values))
    return Comparison(origin, Piecewise(boundaries=boundaries, values=values), boundaries[-1] + 20, boundaries, shift=1)


@PADDLE.case
def paddle_natural_exp(draw: Draw) -> Comparison:
    lr, gamma = draw.rate(), draw.uniform(1e-4, 1)
    ours = NaturalExponential(step=1, decay_rate=gamma, base_lr=lr)
    return Comparison(Paddle(partial(paddle.NaturalExpDecay, lr, gamma)), ours, 200)


@PADDLE.case
def paddle_inverse_time(draw: Draw) -> Comparison:
    lr, gamma = draw.rate(), draw.choice((0.0, draw.uniform(0, 1)))
    return Comparison(
        Paddle(partial(paddle.InverseTimeDecay, lr, gamma)), InverseTime(step=1, decay_rate=gamma, base_lr=lr), 200
    )


@PADDLE.case
def paddle_polynomial(draw: Draw) -> Comparison:
    given, ours, length = polynomial(draw)
    origin = Paddle(partial(paddle.PolynomialDecay, **{"end_lr" if name == "end" else name: given[name] for name in given}))
    return Comparison(origin, ours, 4 * length, (length, 2 * length, 3 * length))


@PADDLE.case
def paddle_exponential(draw: Draw) -> Comparison:
    lr, gamma = draw.rate(), draw.inner()
    return Comparison(Paddle(partial(paddle.ExponentialDecay, lr, gamma)), Exponential(step=1, factor=gamma, base_lr=lr), 200)


@PADDLE.case
def paddle_multi_step(draw: Draw) -> Comparison:
    lr, ends, gamma = draw.rate(), draw.increasing(), draw.choice((0.0, draw.inner()))
    origin = Paddle(partial(paddle.MultiStepDecay, lr, ends, gamma))
    return Comparison(origin, MultiFactor(step=ends, factor=gamma, base_lr=lr), ends[-1] + 20, ends, shift=1)


@PADDLE.case
def paddle_step(draw: Draw) -> Comparison:
    lr, step, gamma = draw.rate(), draw.length(60), draw.choice((0.0, draw.inner()))
    ours = draw.choice((staircase(lr, step, gamma), Factor(step=step, factor=gamma, base_lr=lr, stop_factor_lr=0)))
    return Comparison(Paddle(partial(paddle.StepDecay, lr, step, gamma)), ours, 8 * step, (step, 2 * step), shift=1)


@PADDLE.case
def paddle_linear(draw: Draw) -> Comparison:
    lr, start, end, length = draw.rate(), draw.share(), draw.fraction(), draw.length()
    ours = Linear(max_update=length, base_lr=lr * start, final_lr=lr * end)
    return Comparison(Paddle(partial(paddle.LinearLR, lr, length, start, end)), ours, length + 20, [length])


@PADDLE.case
def paddle_cosine(draw: Draw) -> Comparison:
    lr, length = draw.rate(), draw.length(300)
    low = draw.choice((0.0, lr * draw.fraction(), draw.rate()))
    # After T_max steps the cosine of Paddle rises again; ours stays at its end.
    origin = Paddle(partial(paddle.CosineAnnealingDecay, lr, length, low))
    return Comparison(origin, Cosine(max_update=length, base_lr=lr, final_lr=low), length, [length // 2])


@PADDLE.case
def paddle_warm_restarts(draw: Draw) -> Comparison:
    lr, length, multiple, last = draw.rate(), draw.length(60), draw.randint(1, 4), 300
    low = lr * draw.fraction()
    origin = Paddle(partial(paddle.CosineAnnealingWarmRestarts, lr, length, multiple, low))
    ours = WarmRestarts(low, max_lr=lr, cycle_length=length, t_mult=multiple)
    return Comparison(origin, ours, last, map(round, restarts(length, multiple, last)))


@PADDLE.case
def paddle_cyclic(draw: Draw) -> Comparison:
    mode, low, high, up, down, gamma = draw_cyclic(draw)
    origin = Paddle(partial(paddle.CyclicLR, low, high, up, down, mode, gamma))
    corners = (up, up + down, 2 * up + down, 2 * up + 2 * down)
    return Comparison(origin, cyclic(draw, mode, low, high, up, down, gamma), 3 * (up + down) + 10, corners)


@PADDLE.case
def paddle_one_cycle(draw: Draw) -> Comparison:
    cycle = draw_one_cycle(draw)
    if cycle["three_phase"]:
        cycle["three_phase"] = cycle["pct_start"] < 0.5  # Paddle takes no larger one
    lr, div, end = draw.rate(), draw.choice((25.0, 1.0, draw.uniform(0.5, 50))), draw.choice((0.0, 1e-4, draw.rate()))
    given = {
        "total_steps": cycle["max_update"],
        "divide_factor": div,
        "end_learning_rate": end,
        "phase_pct": cycle["pct_start"],
    }
    given |= {"anneal_strategy": cycle["anneal_strategy"], "three_phase": cycle["three_phase"]}
    ours = OneCycleLR(max_lr=lr, div_factor=div, final_lr=end, **cycle)
    origin = Paddle(partial(paddle.OneCycleLR, lr, **given))
    return Comparison(origin, ours, cycle["max_update"], one_cycle_corners(cycle), shift=1)


def paddle_warmed(inner: Any, *arguments: Any) -> Any:
    return paddle.LinearWarmup(inner() if callable(inner) else inner, *arguments)


@PADDLE.case
def paddle_linear_warmup(draw: Draw) -> Comparison:
    lr, warmup, begin, length = draw.rate(), draw.length(), draw.choice((0.0, draw.rate())), draw.length()
    end = begin + draw.rate()
    parts: list[tuple[Any, AnySchedule]] = [
        (lr, Constant(lr)),
        (partial(paddle.PolynomialDecay, lr, length, 0.0, 2.0), Poly(max_update=length, base_lr=lr, pwr=2)),
        (partial(paddle.ExponentialDecay, lr, 0.9), Exponential(step=1, factor=0.9, base_lr=lr)),
    ]
    inner, curve = draw.choice(parts)
    ours = Warmup(curve, warmup, warmup_begin_lr=begin, warmup_end_lr=end)
    # Paddle begins the other schedule after `warmup` steps; our warm-up reaches its end then.
    origin = Paddle(partial(paddle_warmed, inner, warmup, begin, end))
    return Comparison(origin, ours, warmup + length + 20, (warmup, warmup + length), apart=[warmup])


@PADDLE.case
def paddle_plateau(draw: Draw) -> Reaction:
    lr, results, (settings, rises) = draw.rate(), draw.results(unknown=False), draw_plateau(draw)
    eps = settings.pop("eps")
    # Paddle adds best · threshold to the best result, where PyTorch and ours multiply it by 1 + threshold. This decides a tie.
    settings["threshold"] *= 1.001
    call = partial(paddle.ReduceOnPlateau, lr, mode="max" if rises else "min", epsilon=eps, **settings)
    scheduler, rates = call(), []
    for epoch, result in enumerate(results):
        if scheduler.cooldown_counter > 0:  # Paddle does not look at the result; ours would keep it if it were the best
            results[epoch] = result = scheduler.best - 1 if rises else scheduler.best + 1
        scheduler.step(result)
        rates.append(scheduler())
    return Reaction((call, lr), rates, Plateau(Constant(lr), metric=metric(rises), eps=eps, **settings), results)
