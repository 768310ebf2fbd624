"""Write the rates of the frameworks that our curves are named after, as tables in `../golden`.

`golden_cases.py` has each call of a framework and our curve for it; `tests/schedules/test_golden.py` compares the two and does
not need the frameworks. The docstring of this package describes the environment.

    PYTHONPATH=.:tests/schedules python -m origins.golden --sources SOURCES          # or: … keras timm

The table `mxnet` is made in the environment of this project: `python -m origins.golden mxnet`.
"""

import argparse
import json
import platform
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from origins import golden_cases as cases
from origins import tutorials
from origins.golden_cases import Case, PlateauCase
from origins.libraries import (
    DEEPSPEED,
    FAIRSEQ,
    FASTAI,
    GLUON,
    KERAS,
    MEGATRON,
    OPTAX,
    PADDLE,
    PYTORCH,
    PYTORCH_WARMUP,
    SPEECHBRAIN,
    TIMM,
    TRANSFORMERS,
    FairseqOptimizer,
    Library,
    prepare,
    pytorch_optimizer,
    read_in_steps,
)

TABLES = Path(__file__).parent.parent / "golden"

Namespace = dict[str, Any]
Rates = Callable[[Case, list[int]], list[float]]
ReactingRates = Callable[[PlateauCase], list[float]]
Table = dict[str, Any]
Cases = list[Case | PlateauCase]

# --- the frameworks


def pytorch() -> Table:
    namespace = vars(import_module("torch.optim.lr_scheduler"))

    def reacting(case: PlateauCase) -> list[float]:
        return _observed(case, namespace, lambda scheduler, _, metric: scheduler.step(metric))

    return _table("PyTorch", "torch.optim.lr_scheduler", PYTORCH, cases.PYTORCH, partial(_walked, namespace), reacting)


def optax() -> Table:
    namespace = vars(import_module("optax"))

    def rates(case: Case, counts: list[int]) -> list[float]:
        schedule = eval(case.origin, dict(namespace))
        return [float(schedule(count)) for count in counts]

    return _table("optax", "optax", OPTAX, cases.OPTAX, rates)


def keras() -> Table:
    schedules, callbacks = (vars(import_module(f"keras.{name}")) for name in ("optimizers.schedules", "callbacks"))
    double = import_module("numpy").float64

    def model_with(lr: float) -> Any:
        return SimpleNamespace(optimizer=SimpleNamespace(learning_rate=double(lr)))

    def rates(case: Case, counts: list[int]) -> list[float]:
        made = eval(case.origin, schedules | callbacks | {"per_epoch": PerEpoch})
        if not isinstance(made, PerEpoch):
            return [float(made(count)) for count in counts]
        callback, model = made.scheduler, model_with(case.lr)
        callback.set_model(model)
        seen = []
        for epoch in range(max(counts) // made.length + 1):
            callback.on_epoch_begin(epoch)
            seen.append(float(model.optimizer.learning_rate))
        return [seen[count // made.length] for count in counts]

    def reacting(case: PlateauCase) -> list[float]:
        callback, model = eval(case.origin, dict(callbacks)), model_with(case.lr)
        callback.set_model(model)
        callback.on_train_begin()
        seen = []
        for epoch, metric in enumerate(case.metrics):
            callback.on_epoch_end(epoch, {"val_loss": metric})
            seen.append(float(model.optimizer.learning_rate))
        return seen

    return _table("Keras", "keras.optimizers.schedules", KERAS, cases.KERAS, rates, reacting)


def timm() -> Table:
    namespace = vars(import_module("timm.scheduler"))

    def rates(case: Case, counts: list[int]) -> list[float]:
        optimizer = pytorch_optimizer(case.lr)

        def lr_scale(scheduler: Any, scale: float) -> Any:
            optimizer.param_groups[0]["lr_scale"] = scale
            return scheduler

        scheduler = eval(case.origin, namespace | {"optimizer": optimizer, "lr_scale": lr_scale})
        seen = []
        for count in counts:
            scheduler.step(count)
            seen.append(optimizer.param_groups[0]["lr"])
        return seen

    def reacting(case: PlateauCase) -> list[float]:
        return _observed(case, namespace, lambda scheduler, epoch, metric: scheduler.step(epoch, metric))

    return _table("timm", "timm.scheduler", TIMM, cases.TIMM, rates, reacting)


def transformers() -> Table:
    namespace = vars(import_module("transformers.optimization"))

    def reacting(case: PlateauCase) -> list[float]:
        return _observed(case, namespace, lambda scheduler, _, metric: scheduler.step(metric))

    rates = partial(_walked, namespace)
    return _table("Hugging Face", "transformers.optimization", TRANSFORMERS, cases.TRANSFORMERS, rates, reacting)


def paddle() -> Table:
    namespace = vars(import_module("paddle.optimizer.lr"))

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, dict(namespace))
        return read_in_steps(counts, scheduler.step, scheduler)

    def reacting(case: PlateauCase) -> list[float]:
        scheduler = eval(case.origin, dict(namespace))
        seen = []
        for metric in case.metrics:
            scheduler.step(metric)
            seen.append(scheduler())
        return seen

    return _table("Paddle", "paddle.optimizer.lr", PADDLE, cases.PADDLE, rates, reacting)


def mxnet() -> Table:
    from mnist_trainer.runtime import import_mxnet

    namespace = vars(import_mxnet().lr_scheduler) | vars(tutorials)

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, dict(namespace))
        in_order = [scheduler(count) for count in range(1, max(counts) + 1)]
        return [in_order[count - 1] for count in counts]

    return _table("MXNet", "mxnet.lr_scheduler", Library("mxnet"), cases.MXNET, rates)


def gluoncv() -> Table:
    namespace = vars(GLUON.load())

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, dict(namespace))
        return [float(scheduler(count)) for count in counts]

    return _table("gluon-cv", "gluoncv.utils", GLUON, cases.GLUONCV, rates)


def megatron() -> Table:
    def scheduler_of(**arguments: Any) -> Any:
        optimizer = SimpleNamespace(param_groups=[{"lr": 0.0, "weight_decay": 0.0}])
        weight_decay = {"start_wd": 0.0, "end_wd": 0.0, "wd_incr_steps": 1, "wd_incr_style": "constant"}
        return MEGATRON.load().OptimizerParamScheduler(optimizer, **weight_decay, **arguments)

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, {"OptimizerParamScheduler": scheduler_of})
        return read_in_steps(counts, lambda: scheduler.step(1), lambda: scheduler.optimizer.param_groups[0]["lr"])

    return _table("Megatron", "megatron.core", MEGATRON, cases.MEGATRON, rates)


def fastai() -> Table:
    namespace = vars(FASTAI.load())

    def rates(case: Case, counts: list[int]) -> list[float]:
        # `fit` passes the fraction of the training: `after(total, schedule)` has the number of its batches.
        total, schedule = eval(
            case.origin, namespace | {"after": lambda total, schedule: (total, schedule), "momentum": lambda schedule: schedule}
        )
        return [float(schedule(count / total)) for count in counts]

    return _table("fastai", "fastai.callback.schedule", FASTAI, cases.FASTAI, rates)


def fairseq() -> Table:
    classes = {
        "cosine": ("cosine_lr_scheduler", "CosineLRSchedule"),
        "triangular": ("triangular_lr_scheduler", "TriangularLRSchedule"),
        "tri_stage": ("tri_stage_lr_scheduler", "TriStageLRSchedule"),
        "inverse_sqrt": ("inverse_square_root_schedule", "InverseSquareRootSchedule"),
        "polynomial_decay": ("polynomial_decay_schedule", "PolynomialDecayLRSchedule"),
    }
    FAIRSEQ.load()  # the base class of the others

    def scheduler_of(file: str, name: str, lr: float, **arguments: Any) -> Any:
        module = FAIRSEQ.load(f"fairseq/optim/lr_scheduler/{file}.py")
        return getattr(module, name)(SimpleNamespace(lr=[lr], **arguments), FairseqOptimizer())

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, {name: partial(scheduler_of, *where) for name, where in classes.items()})
        return [float(scheduler.step_update(count)) for count in counts]

    return _table("fairseq", "fairseq.optim.lr_scheduler", FAIRSEQ, cases.FAIRSEQ, rates)


def deepspeed() -> Table:
    rates = partial(_walked, vars(DEEPSPEED.load()))
    return _table("DeepSpeed", "deepspeed.runtime.lr_schedules", DEEPSPEED, cases.DEEPSPEED, rates)


def pytorch_warmup() -> Table:
    namespace = vars(import_module("torch.optim.lr_scheduler")) | vars(PYTORCH_WARMUP.load())

    def rates(case: Case, counts: list[int]) -> list[float]:
        optimizer = pytorch_optimizer(case.lr)
        scheduler, warmup = eval(case.origin, namespace | {"optimizer": optimizer})

        def step() -> None:
            with warmup.dampening():
                if scheduler:
                    scheduler.step()

        return read_in_steps(counts, step, lambda: optimizer.param_groups[0]["lr"])

    return _table("pytorch_warmup", "pytorch_warmup", PYTORCH_WARMUP, cases.PYTORCH_WARMUP, rates)


def speechbrain() -> Table:
    namespace = vars(SPEECHBRAIN.load())

    def reacting(case: PlateauCase) -> list[float]:
        scheduler = eval(case.origin, dict(namespace))
        return [float(scheduler(metric)[1]) for metric in case.metrics]

    return _table("SpeechBrain", "speechbrain.nnet.schedulers", SPEECHBRAIN, cases.SPEECHBRAIN, None, reacting)


FRAMEWORKS = {
    make.__name__: make
    for make in (
        *(pytorch, optax, keras, timm, transformers, paddle, gluoncv, megatron, fastai, fairseq, deepspeed),
        *(pytorch_warmup, speechbrain),
    )
}


# --- schedulers that are stepped


class PerEpoch:
    """A scheduler that is stepped once per epoch.

    Attributes:
        length: The number of updates in an epoch.
        scheduler: The scheduler.
    """

    def __init__(self, length: int, scheduler: Any) -> None:
        self.length, self.scheduler = length, scheduler


def _walked(namespace: Namespace, case: Case, counts: list[int]) -> list[float]:
    """Return the values that an optimizer would use, step by step, since OneCycleLR refuses steps beyond its end."""
    optimizer, read = pytorch_optimizer(case.lr), "lr"

    def momentum(scheduler: Any) -> Any:
        nonlocal read
        read = "momentum"
        return scheduler

    made = eval(case.origin, namespace | {"optimizer": optimizer, "momentum": momentum, "per_epoch": PerEpoch})
    stepped = made if isinstance(made, PerEpoch) else PerEpoch(1, made)
    steps = [count // stepped.length for count in counts]
    return read_in_steps(steps, stepped.scheduler.step, lambda: optimizer.param_groups[0][read])


def _observed(case: PlateauCase, namespace: Namespace, step: Callable[[Any, int, float], None]) -> list[float]:
    """Return the rate after each epoch."""
    optimizer = pytorch_optimizer(case.lr)
    scheduler = eval(case.origin, namespace | {"optimizer": optimizer})
    seen = []
    for epoch, metric in enumerate(case.metrics, start=1):
        step(scheduler, epoch, metric)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


# --- the tables


def _table(
    framework: str, module: str, library: Library, listed: Cases, rates: Rates | None, reacting: ReactingRates | None = None
) -> Table:
    versions = {"python": platform.python_version(), library.package: library.version()}
    if library in (KERAS, TIMM, TRANSFORMERS):
        versions["torch"] = PYTORCH.version()
    if library is OPTAX:
        versions["jax"] = version("jax")
    rows = []
    for case in listed:
        if isinstance(case, Case):
            assert rates
            rows.append(case.row(rates))
        else:
            assert reacting
            rows.append(case.row(reacting))
    counts_from = int(framework in ("MXNet", "gluon-cv"))  # the first update is 1, as here, or 0
    return {"framework": framework, "module": module, "versions": versions, "counts_from": counts_from, "cases": rows}


def _as_text(table: Table) -> str:
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in table.items() if key != "cases")
    rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in table["cases"])
    return f'{{\n{head} "cases": [\n{rows}\n ]\n}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help=f"tables to make, by default: {', '.join(FRAMEWORKS)}")
    parser.add_argument("--sources", type=Path, metavar="DIR", help="folder of the packages that are not installed")
    flags = parser.parse_args()
    Library.sources = flags.sources
    if flags.tables != ["mxnet"]:
        prepare()
    for name in flags.tables or FRAMEWORKS:
        path = TABLES / f"{name}.json"
        path.write_text(_as_text((FRAMEWORKS | {"mxnet": mxnet})[name]()), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
