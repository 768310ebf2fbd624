"""Random cases of Megatron."""

from functools import partial
from types import SimpleNamespace
from typing import Any

from mnist_trainer.schedules import (
    AnySchedule,
    Clip,
    Constant,
    Cooldown,
    Cosine,
    InverseSqrt,
    Linear,
    Warmup,
    WarmupStableDecay,
)
from origins.comparisons import Comparison, Draw, Stepped
from origins.curves import draw_warmed, from_zero
from origins.libraries import MEGATRON


def megatron_call(optimizer: Any, **given: Any) -> Any:
    weight_decay = {"start_wd": 0.0, "end_wd": 0.0, "wd_incr_steps": 1, "wd_incr_style": "constant"}
    scheduler = MEGATRON.load().OptimizerParamScheduler(optimizer, **given, **weight_decay)
    return SimpleNamespace(step=partial(scheduler.step, 1))


@MEGATRON.case
def megatron_styles(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    begin, low = lr * draw.fraction(), lr * draw.fraction()
    style = draw.choice(("constant", "linear", "cosine", "inverse-square-root"))
    common: dict[str, Any] = {"max_update": length - warmup, "base_lr": lr, "final_lr": low}
    match style:
        case "constant":
            ours: AnySchedule = Constant(lr)
        case "linear":
            ours = Linear(**common)
        case "cosine":
            ours = Cosine(**common)
        case _:
            fall: AnySchedule = InverseSqrt(timescale=warmup or 1, base_lr=lr)
            fall = Clip(fall if warmup else from_zero(fall), min_lr=low)
            ours = Cooldown(fall, start=length - warmup, cooldown_steps=0, final_lr=low)
    given = {"init_lr": begin, "max_lr": lr, "min_lr": low, "lr_warmup_steps": warmup, "lr_decay_steps": length}
    origin = Stepped(partial(megatron_call, lr_decay_style=style, **given))
    return Comparison(origin, Warmup(ours, warmup, warmup_begin_lr=begin), length + 20, (warmup, length))


@MEGATRON.case
def megatron_wsd(draw: Draw) -> Comparison:
    lr, length, warmup = draw_warmed(draw)
    begin, low, decay_steps = lr * draw.fraction(), lr * draw.fraction(), draw.up_to(length - warmup) or 1
    forms = {"linear": "linear", "cosine": "cosine", "exponential": "exponential", "minus_sqrt": "1-sqrt"}
    form = draw.choice(list(forms))
    steps: dict[str, Any] = {"max_update": length, "warmup_steps": warmup, "decay_steps": decay_steps, "decay": forms[form]}
    ours = WarmupStableDecay(**steps, base_lr=lr, warmup_begin_lr=begin, final_lr=low)
    given = {"init_lr": begin, "max_lr": lr, "min_lr": low, "lr_warmup_steps": warmup, "lr_decay_steps": length}
    wsd = {"lr_decay_style": "WSD", "wsd_decay_steps": decay_steps, "lr_wsd_decay_style": form}
    return Comparison(
        Stepped(partial(megatron_call, **given, **wsd)), ours, length + 20, (warmup, length - decay_steps, length)
    )
