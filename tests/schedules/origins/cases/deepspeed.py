"""Random cases of DeepSpeed."""

from functools import partial
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Constant,
    Cosine,
    Hold,
    InverseTime,
    Linear,
    Sequential,
    Sum,
    Triangular,
    Warmup,
)
from origins.comparisons import Comparison, Draw, Stepped
from origins.curves import from_zero, joined
from origins.libraries import DEEPSPEED


def draw_deepspeed(draw: Draw) -> tuple[int, int, float, str]:
    """Draw the lengths of the warm-up and of the decay, the first rate as a fraction, and the form of the warm-up."""
    return draw.length(120, 2), draw.length(), draw.fraction(), draw.choice(("log", "linear"))


def deepspeed_warmed(curve: AnySchedule, warmup: int, begin: float, form: str) -> AnySchedule:
    # The linear warm-up reaches its end one step later than the logarithmic one, and the decay begins after both.
    if form == "log":
        return Warmup(from_zero(curve), warmup, warmup_begin_lr=begin, warmup_mode="log")
    return from_zero(Warmup(curve, warmup, warmup_begin_lr=begin))


@DEEPSPEED.case
def deepspeed_warmup(draw: Draw) -> Comparison:
    lr, (warmup, _, begin, form) = draw.rate(), draw_deepspeed(draw)
    given: dict[str, Any] = {"warmup_min_lr": begin * lr, "warmup_num_steps": draw.choice((1, 2)) if warmup == 2 else warmup}
    origin = Stepped(partial(DEEPSPEED.load().WarmupLR, warmup_max_lr=lr, warmup_type=form, **given))
    return Comparison(origin, deepspeed_warmed(Constant(lr), warmup, begin * lr, form), warmup + 20, [warmup])


@DEEPSPEED.case
def deepspeed_warmup_decay(draw: Draw) -> Comparison:
    lr, (warmup, length, begin, form) = draw.rate(), draw_deepspeed(draw)
    given = {"warmup_min_lr": begin * lr, "warmup_num_steps": warmup, "total_num_steps": warmup + length}
    origin = Stepped(partial(DEEPSPEED.load().WarmupDecayLR, warmup_max_lr=lr, warmup_type=form, **given))
    ours = deepspeed_warmed(Linear(max_update=length, base_lr=lr, final_lr=begin * lr), warmup, begin * lr, form)
    return Comparison(origin, ours, warmup + length + 20, (warmup, warmup + length))


@DEEPSPEED.case
def deepspeed_warmup_cosine(draw: Draw) -> Comparison:
    lr, low, (warmup, length, begin, form) = draw.rate(), draw.fraction(), draw_deepspeed(draw)
    given = {"warmup_min_ratio": begin, "warmup_num_steps": warmup, "total_num_steps": warmup + length, "cos_min_ratio": low}
    origin = Stepped(partial(DEEPSPEED.load().WarmupCosineLR, warmup_type=form, **given), lr)
    cosine = Cosine(max_update=length, base_lr=lr, final_lr=lr * low)
    if form == "log":
        ours: AnySchedule = Warmup(cosine, warmup, warmup_begin_lr=begin * lr, warmup_mode="log")
    else:
        ours = joined([from_zero(Linear(max_update=warmup, base_lr=begin * lr, final_lr=lr)), cosine], [warmup])
    return Comparison(origin, ours, warmup + length + 20, (warmup, warmup + length))


def draw_deepspeed_cycle(draw: Draw) -> tuple[dict[str, Any], int, dict[str, Any]]:
    up, down = draw.length(), draw.up_to(60)
    given = {"cycle_first_step_size": up, "cycle_second_step_size": down}
    return given, up + down, {"cycle_length": up + down, "inc_fraction": up / (up + down)}


@DEEPSPEED.case
def deepspeed_one_cycle(draw: Draw) -> Comparison:
    low, (given, length, sides) = draw.rate(), draw_deepspeed_cycle(draw)
    high, rate, steps = low + draw.choice((0.0, draw.rate())), draw.choice((0.0, draw.uniform(0, 2))), draw.up_to(50)
    given |= {"cycle_min_lr": low, "cycle_max_lr": high, "decay_lr_rate": rate, "decay_step_size": steps}
    decay = InverseTime(step=steps, decay_rate=rate, base_lr=low) if steps else Constant(low)
    ours = Sequential([Triangular(low, max_lr=high, **sides), decay], boundaries=[length])
    # Without a second half the tip is at the end of the cycle, where DeepSpeed has the lowest rate.
    apart = [] if given["cycle_second_step_size"] else [length]
    origin = Stepped(partial(DEEPSPEED.load().OneCycle, cycle_momentum=False, **given))
    return Comparison(origin, ours, length + 60, (given["cycle_first_step_size"], length), apart=apart)


@DEEPSPEED.case
def deepspeed_one_cycle_momentum(draw: Draw) -> Comparison:
    (low, high), (given, length, sides) = sorted((draw.fraction(), draw.fraction())), draw_deepspeed_cycle(draw)
    given |= {"cycle_min_lr": 0.1, "cycle_max_lr": 1.0, "cycle_min_mom": low, "cycle_max_mom": high}
    ours = Sum([Constant(high), Triangular(0, max_lr=high - low, **sides)], weights=[1, -1])
    apart = [] if given["cycle_second_step_size"] else [length]
    origin = Stepped(partial(DEEPSPEED.load().OneCycle, **given), read="betas")
    return Comparison(origin, ours, length + 20, (given["cycle_first_step_size"], length), apart=apart)


@DEEPSPEED.case
def deepspeed_range_test(draw: Draw) -> Comparison:
    lr, steps, rate, stairs, last = draw.rate(), draw.length(60), draw.uniform(0, 3), draw.random() < 0.5, 200
    given = {"lr_range_test_min_lr": lr, "lr_range_test_step_size": steps, "lr_range_test_step_rate": rate}
    origin = Stepped(partial(DEEPSPEED.load().LRRangeTest, lr_range_test_staircase=stairs, **given))
    # DeepSpeed's line has no end; ours is long enough for the run.
    line = Linear(max_update=last, base_lr=lr, final_lr=lr * (1 + rate * last / steps))
    return Comparison(origin, Hold(line, length=steps) if stairs else line, last, (steps, 2 * steps), shift=int(stairs))
