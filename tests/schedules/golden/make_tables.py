r"""Write the learning rates of the frameworks that our curves are named after, as tables next to this file.

`cases.py` has each call of a framework and our curve for it; `tests/schedules/test_golden.py` compares the two and does not
need the frameworks. To make the tables again, use a separate environment with Python 3.11:

    pip install torch==2.13.0 optax==0.2.8 jax==0.10.2 keras==3.15.1 timm==1.0.31 transformers==5.24.0 paddlepaddle==3.3.1 \
        pytorch_warmup==0.2.0
    pip download --no-deps --no-build-isolation --dest sources gluoncv==0.10.5.post0 fairseq==0.12.2 megatron-core==0.16.1 \
        fastai==2.8.12 deepspeed==0.19.8 speechbrain==1.1.2
    python tests/schedules/golden/make_tables.py                  # or: make_tables.py keras timm

The table `mxnet` needs MXNet, and is made in the environment of this project: `make_tables.py mxnet`. Of the packages in
`sources`, only the files with schedulers are read, because the packages do not install beside the others.
"""

import io
import json
import logging
import math
import os
import platform
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cases
from cases import Case, PlateauCase

SOURCES = Path("sources")
"""The folder with the downloaded packages."""

Namespace = dict[str, Any]
Table = dict[str, Any]

# --- the frameworks


def pytorch() -> Table:
    from torch.optim import lr_scheduler

    def plateau_rates(case: PlateauCase) -> list[float]:
        return _observed(case, vars(lr_scheduler), lambda scheduler, _, metric: scheduler.step(metric))

    rates = partial(_walked, vars(lr_scheduler))
    return _table("PyTorch", "torch.optim.lr_scheduler", ["torch"], cases.PYTORCH, rates, plateau_rates)


def optax() -> Table:
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)  # without it JAX computes in float32

    def rates(case: Case, counts: list[int]) -> list[float]:
        schedule = eval(case.origin, dict(vars(optax)))
        return [float(schedule(count)) for count in counts]

    return _table("optax", "optax", ["optax", "jax"], cases.OPTAX, rates)


def keras() -> Table:
    # Keras computes in float32 by default, and with JAX its cosine does so even in float64.
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import numpy as np

    keras.config.set_floatx("float64")

    def model_with(lr: float) -> Any:
        return SimpleNamespace(optimizer=SimpleNamespace(learning_rate=np.float64(lr)))

    def rates(case: Case, counts: list[int]) -> list[float]:
        made = eval(case.origin, vars(keras.optimizers.schedules) | vars(keras.callbacks) | {"per_epoch": _per_epoch})
        if not isinstance(made, _PerEpoch):
            return [float(made(count)) for count in counts]
        callback, model = made.scheduler, model_with(case.lr)
        callback.set_model(model)
        seen = []
        for epoch in range(max(counts) // made.length + 1):
            callback.on_epoch_begin(epoch)
            seen.append(float(model.optimizer.learning_rate))
        return [seen[count // made.length] for count in counts]

    def plateau_rates(case: PlateauCase) -> list[float]:
        callback, model = eval(case.origin, dict(vars(keras.callbacks))), model_with(case.lr)
        callback.set_model(model)
        callback.on_train_begin()
        seen = []
        for epoch, metric in enumerate(case.metrics):
            callback.on_epoch_end(epoch, {"val_loss": metric})
            seen.append(float(model.optimizer.learning_rate))
        return seen

    return _table("Keras", "keras.optimizers.schedules", ["keras", "torch"], cases.KERAS, rates, plateau_rates)


def timm() -> Table:
    # The package itself imports torchvision, which not every build of PyTorch fits.
    package = _module("timm", __path__=[str(Path(find_spec("timm").submodule_search_locations[0]))])  # type: ignore
    sys.modules["timm"] = package
    import timm.scheduler

    def rates(case: Case, counts: list[int]) -> list[float]:
        optimizer = _torch_optimizer(case.lr)

        def lr_scale(scheduler: Any, scale: float) -> Any:
            optimizer.param_groups[0]["lr_scale"] = scale
            return scheduler

        scheduler = eval(case.origin, vars(timm.scheduler) | {"optimizer": optimizer, "lr_scale": lr_scale})
        seen = []
        for count in counts:
            scheduler.step(count)
            seen.append(optimizer.param_groups[0]["lr"])
        return seen

    def plateau_rates(case: PlateauCase) -> list[float]:
        return _observed(case, vars(timm.scheduler), lambda scheduler, epoch, metric: scheduler.step(epoch, metric))

    return _table("timm", "timm.scheduler", ["timm", "torch"], cases.TIMM, rates, plateau_rates)


def transformers() -> Table:
    from transformers import optimization

    def plateau_rates(case: PlateauCase) -> list[float]:
        return _observed(case, vars(optimization), lambda scheduler, _, metric: scheduler.step(metric))

    rates = partial(_walked, vars(optimization))
    packages = ["transformers", "torch"]
    return _table("Hugging Face", "transformers.optimization", packages, cases.TRANSFORMERS, rates, plateau_rates)


def paddle() -> Table:
    from paddle.optimizer import lr

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, dict(vars(lr)))
        seen = [scheduler()]
        while len(seen) <= max(counts):
            scheduler.step()
            seen.append(scheduler())
        return [seen[count] for count in counts]

    def plateau_rates(case: PlateauCase) -> list[float]:
        scheduler = eval(case.origin, dict(vars(lr)))
        seen = []
        for metric in case.metrics:
            scheduler.step(metric)
            seen.append(scheduler())
        return seen

    return _table("Paddle", "paddle.optimizer.lr", ["paddlepaddle"], cases.PADDLE, rates, plateau_rates)


def mxnet() -> Table:
    from mnist_trainer.runtime import import_mxnet

    schedulers = vars(import_mxnet().lr_scheduler)

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, dict(schedulers))
        in_order = [scheduler(count) for count in range(1, max(counts) + 1)]
        return [in_order[count - 1] for count in counts]

    return _table("MXNet", "mxnet.lr_scheduler", ["mxnet"], cases.MXNET, rates)


def gluoncv() -> Table:
    base = ModuleType("mxnet")
    base.lr_scheduler = SimpleNamespace(LRScheduler=object)  # type: ignore[attr-defined]
    source = _source("gluoncv", "gluoncv/utils/lr_scheduler.py").replace("super(LRScheduler, self).__init__()", "pass")
    schedulers = _executed(source.replace("super(LRSequential, self).__init__()", "pass"), {"mxnet": base})

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, dict(schedulers))
        return [float(scheduler(count)) for count in counts]

    return _table("gluon-cv", "gluoncv.utils", [_archive("gluoncv").name], cases.GLUONCV, rates)


def megatron() -> Table:
    utils = _module("megatron.core.utils", log_single_rank=lambda *_: None)
    text = _source("megatron", "megatron/core/optimizer_param_scheduler.py")
    scheduler_class = _executed(text, {"megatron.core.utils": utils})["OptimizerParamScheduler"]

    def scheduler_of(**arguments: Any) -> Any:
        optimizer = SimpleNamespace(param_groups=[{"lr": 0.0, "weight_decay": 0.0}])
        weight_decay = {"start_wd": 0.0, "end_wd": 0.0, "wd_incr_steps": 1, "wd_incr_style": "constant"}
        return scheduler_class(optimizer, **weight_decay, **arguments)

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, {"OptimizerParamScheduler": scheduler_of})
        seen = [scheduler.optimizer.param_groups[0]["lr"]]
        while len(seen) <= max(counts):
            scheduler.step(1)
            seen.append(scheduler.optimizer.param_groups[0]["lr"])
        return [seen[count] for count in counts]

    return _table("Megatron", "megatron.core", [_archive("megatron").name], cases.MEGATRON, rates)


def fastai() -> Table:
    import functools

    import torch

    torch.set_default_dtype(torch.float64)

    def store_attr(names: str) -> None:
        frame = sys._getframe(1).f_locals
        for name in names.split(","):
            setattr(frame["self"], name, frame[name])

    text = _source("fastai", "fastai/callback/schedule.py").partition("@docs\nclass ParamScheduler")[0]
    for imported in ("from ..basics import *", "from .tracker import SaveModelCallback"):
        text = text.replace(imported, "")
    given = {"functools": functools, "math": math, "torch": torch, "tensor": torch.tensor, "L": list, "store_attr": store_attr}
    schedules = _executed(text, {}, given)

    def rates(case: Case, counts: list[int]) -> list[float]:
        # `fit` passes the fraction of the training: `after(total, schedule)` has the number of its batches.
        total, schedule = eval(case.origin, schedules | {"after": lambda total, schedule: (total, schedule)})
        return [float(schedule(count / total)) for count in counts]

    return _table("fastai", "fastai.callback.schedule", [_archive("fastai").name], cases.FASTAI, rates)


def fairseq() -> Table:
    class Base:
        def __init__(self, cfg: Any, optimizer: Any) -> None:
            self.cfg, self.optimizer = cfg, optimizer

    made: dict[str, Any] = {}

    def register(name: str, dataclass: Any = None) -> Callable[[Any], Any]:
        return lambda cls: made.setdefault(name, cls)

    stand_ins = {
        "omegaconf": _module("omegaconf", II=lambda name: name),
        "fairseq.dataclass": _module("fairseq.dataclass", FairseqDataclass=object),
        "fairseq.optim.lr_scheduler": _module(
            "fairseq.optim.lr_scheduler", FairseqLRScheduler=Base, register_lr_scheduler=register
        ),
    }
    for name in ("cosine_lr", "triangular_lr", "tri_stage_lr"):
        _executed(_source("fairseq", f"fairseq/optim/lr_scheduler/{name}_scheduler.py"), stand_ins)
    for name in ("inverse_square_root", "polynomial_decay"):
        _executed(_source("fairseq", f"fairseq/optim/lr_scheduler/{name}_schedule.py"), stand_ins)

    def scheduler_of(cls: Any, lr: float, **arguments: Any) -> Any:
        optimizer = SimpleNamespace(lr=0.0)
        optimizer.set_lr = lambda lr: setattr(optimizer, "lr", lr)
        optimizer.get_lr = lambda: optimizer.lr
        return cls(SimpleNamespace(lr=[lr], **arguments), optimizer)

    def rates(case: Case, counts: list[int]) -> list[float]:
        scheduler = eval(case.origin, {name: partial(scheduler_of, cls) for name, cls in made.items()})
        return [float(scheduler.step_update(count)) for count in counts]

    return _table("fairseq", "fairseq.optim.lr_scheduler", [_archive("fairseq").name], cases.FAIRSEQ, rates)


def deepspeed() -> Table:
    utils = _module("deepspeed.utils", logger=logging.getLogger("deepspeed"))
    logging.getLogger("deepspeed").setLevel(logging.ERROR)
    schedulers = _executed(_source("deepspeed", "deepspeed/runtime/lr_schedules.py"), {"deepspeed.utils": utils})
    rates = partial(_walked, schedulers)
    return _table("DeepSpeed", "deepspeed.runtime.lr_schedules", [_archive("deepspeed").name], cases.DEEPSPEED, rates)


def pytorch_warmup() -> Table:
    import pytorch_warmup as package
    from torch.optim import lr_scheduler

    def rates(case: Case, counts: list[int]) -> list[float]:
        optimizer = _torch_optimizer(case.lr)
        scheduler, warmup = eval(case.origin, vars(lr_scheduler) | vars(package) | {"optimizer": optimizer})
        seen = [optimizer.param_groups[0]["lr"]]
        while len(seen) <= max(counts):
            optimizer.step()
            with warmup.dampening():
                if scheduler:
                    scheduler.step()
            seen.append(optimizer.param_groups[0]["lr"])
        return [seen[count] for count in counts]

    return _table("pytorch_warmup", "pytorch_warmup", ["pytorch_warmup", "torch"], cases.PYTORCH_WARMUP, rates)


def speechbrain() -> Table:
    stand_ins = {
        "speechbrain.utils": _module(
            "speechbrain.utils",
            checkpoints=SimpleNamespace(
                **dict.fromkeys(("register_checkpoint_hooks", "mark_as_saver", "mark_as_loader"), lambda decorated: decorated)
            ),
        ),
        "speechbrain.utils.logger": _module("speechbrain.utils.logger", get_logger=logging.getLogger),
    }
    schedulers = _executed(_source("speechbrain", "speechbrain/nnet/schedulers.py"), stand_ins)

    def plateau_rates(case: PlateauCase) -> list[float]:
        scheduler = eval(case.origin, dict(schedulers))
        return [float(scheduler(metric)[1]) for metric in case.metrics]

    packages = [_archive("speechbrain").name]
    return _table("SpeechBrain", "speechbrain.nnet.schedulers", packages, cases.SPEECHBRAIN, None, plateau_rates)


FRAMEWORKS = {
    make.__name__: make
    for make in (
        *(pytorch, optax, keras, timm, transformers, paddle, gluoncv, megatron, fastai, fairseq, deepspeed),
        *(pytorch_warmup, speechbrain),
    )
}


# --- schedulers of PyTorch


class _PerEpoch:
    """A scheduler that is stepped once per epoch.

    Attributes:
        length: The number of updates in an epoch.
        scheduler: The scheduler.
    """

    def __init__(self, length: int, scheduler: Any) -> None:
        self.length, self.scheduler = length, scheduler


def _per_epoch(length: int, scheduler: Any) -> _PerEpoch:
    return _PerEpoch(length, scheduler)


def _torch_optimizer(lr: float) -> Any:
    import torch

    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def _walked(namespace: Namespace, case: Case, counts: list[int]) -> list[float]:
    """Return the values that an optimizer would use, step by step, since OneCycleLR refuses steps beyond its end."""
    optimizer, read = _torch_optimizer(case.lr), "lr"

    def momentum(scheduler: Any) -> Any:
        nonlocal read
        read = "momentum"
        return scheduler

    given = {"optimizer": optimizer, "momentum": momentum, "per_epoch": _per_epoch}
    scheduler = eval(case.origin, namespace | given)
    length = 1
    if isinstance(scheduler, _PerEpoch):
        length, scheduler = scheduler.length, scheduler.scheduler
    seen = [optimizer.param_groups[0][read]]
    while len(seen) <= max(counts):
        optimizer.step()
        if len(seen) % length == 0:
            scheduler.step()
        seen.append(optimizer.param_groups[0][read])
    return [seen[count] for count in counts]


def _observed(case: PlateauCase, namespace: Namespace, step: Callable[[Any, int, float], None]) -> list[float]:
    """Return the rate after each epoch."""
    optimizer = _torch_optimizer(case.lr)
    scheduler = eval(case.origin, namespace | {"optimizer": optimizer})
    seen = []
    for epoch, metric in enumerate(case.metrics, start=1):
        step(scheduler, epoch, metric)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


# --- packages that are read, not installed


def _archive(package: str) -> Path:
    return next(path for path in sorted(SOURCES.iterdir()) if path.name.lower().startswith(package))


def _source(package: str, name: str) -> str:
    """Return the text of a file in a downloaded package."""
    archive = _archive(package)
    if archive.suffix == ".whl":
        return zipfile.ZipFile(archive).read(name).decode()
    with tarfile.open(archive) as opened:
        member = next(member for member in opened.getmembers() if member.name.endswith(f"/{name}"))
        return (opened.extractfile(member) or io.BytesIO()).read().decode()


def _module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(contents)
    return made


def _executed(text: str, modules: Mapping[str, ModuleType], given: Namespace | None = None) -> Namespace:
    """Return the names that the text of a module defines, with stand-ins for modules that it imports."""
    parents = {name.partition(".")[0] for name in modules}
    stand_ins = {parent: ModuleType(parent) for parent in parents} | dict(modules)
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        namespace: Namespace = {"__name__": "origin"} | (given or {})
        sys.modules["origin"] = ModuleType("origin")  # dataclasses look up the module of their class
        exec(text, namespace)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return namespace


# --- the tables


def _table(
    framework: str,
    module: str,
    packages: list[str],
    listed: list[Case] | list[PlateauCase] | list[Case | PlateauCase],
    rates: Callable[[Case, list[int]], list[float]] | None,
    plateau_rates: Callable[[PlateauCase], list[float]] | None = None,
) -> Table:
    versions = {"python": platform.python_version()}
    for package in packages:
        name, _, archived = package.partition("-")
        versions[name] = archived.split("-")[0].removesuffix(".tar.gz") if archived else version(package).partition("+")[0]
    rows = []
    for case in listed:
        if isinstance(case, Case):
            assert rates
            rows.append(case.row(rates))
        else:
            assert plateau_rates
            rows.append(case.row(plateau_rates))
    return {"framework": framework, "module": module, "versions": versions, "cases": rows}


def _as_text(table: Table) -> str:
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in table.items() if key != "cases")
    rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in table["cases"])
    return f'{{\n{head} "cases": [\n{rows}\n ]\n}}\n'


def main(names: list[str]) -> None:
    for name in names or FRAMEWORKS:
        path = Path(__file__).with_name(f"{name}.json")
        path.write_text(_as_text((FRAMEWORKS | {"mxnet": mxnet})[name]()), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
