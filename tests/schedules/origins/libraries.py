"""The frameworks: installed packages, and packages of which one file is read, with stand-ins for what it imports."""

import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar


class Lazy:
    """A module that is imported when it is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith(("_", "pytest")):  # pytest looks for doctests
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


torch, lr_scheduler = Lazy("torch"), Lazy("torch.optim.lr_scheduler")


def pytorch_optimizer(lr: float, *, adam: bool = False) -> Any:
    """Return an optimizer without a model."""
    parameters = [torch.zeros(1, requires_grad=True)]
    return torch.optim.Adam(parameters, lr=lr) if adam else torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def read_in_steps(counts: list[int], step: Callable[[], object], read: Callable[[], Any]) -> list[Any]:
    """Return the values after the given numbers of steps."""
    seen = [read()]
    while len(seen) <= max(counts):
        step()
        seen.append(read())
    return [seen[count] for count in counts]


@dataclass
class Library:
    """A library and its cases.

    Attributes:
        package: The name of its package.
        file: A file of the package to load without installing it; "" for an installed package.
        stand_ins: Attributes of the modules that stand in for what the file imports, by the name of the module.
        cases: Its cases.
    """

    package: str
    file: str = ""
    stand_ins: Callable[[], dict[str, dict[str, Any]]] = dict
    cases: list[Callable[[Any], Any]] = field(default_factory=list)
    sources: ClassVar[Path | None] = None
    _loaded: dict[str, ModuleType] = field(default_factory=dict)

    def case(self, draw_case: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Add a case: a function that draws parameters."""
        self.cases.append(draw_case)
        return draw_case

    def path(self, file: str = "") -> Path:
        """Return the path of a file of the package in the folder of sources."""
        assert self.sources is not None
        found = [path for depth in ("", "*/", "*/*/") for path in self.sources.glob(depth + (file or self.file))]
        if not found:
            raise SystemExit(f"{self.sources} has no {file or self.file}; see the docstring of this package")
        return found[0]

    def version(self) -> str:
        """Return the version of the package."""
        if not self.file:
            return version(self.package).partition("+")[0]
        for folder in self.path().parents:
            for beside in folder.glob(f"{self.package}-*"):
                if beside.is_dir():
                    return beside.name.removeprefix(f"{self.package}-").removesuffix(".dist-info")
        return "unknown"

    def load(self, file: str = "") -> Any:
        """Return the module of a file, with stand-ins for what it imports."""
        file = file or self.file
        if file not in self._loaded:
            importlib.import_module("torch")
            name = file.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, self.path(file))
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            added = {name: module} | {other: stand_in(other, values) for other, values in self.stand_ins().items()}
            sys.modules |= added
            try:
                spec.loader.exec_module(module)
            finally:
                for other in added:
                    del sys.modules[other]
            self._loaded[file] = module
        return self._loaded[file]


def stand_in(name: str, attributes: dict[str, Any]) -> ModuleType:
    """Return a module with these attributes, which can also be a package."""
    module = ModuleType(name)
    vars(module).update(attributes, __path__=[])
    return module


def unchanged(*arguments: Any) -> Any:
    """Stand in for a decorator, or for a function without an effect."""
    return arguments[0] if arguments else None


PYTORCH = Library("torch")
OPTAX = Library("optax")
KERAS = Library("keras")
TIMM = Library("timm")
TRANSFORMERS = Library("transformers")
PADDLE = Library("paddlepaddle")
GLUON = Library(
    "gluoncv",
    "gluoncv/utils/lr_scheduler.py",
    lambda: {"mxnet": {"lr_scheduler": SimpleNamespace(LRScheduler=object)}},
)


MEGATRON = Library(
    "megatron_core",
    "megatron/core/optimizer_param_scheduler.py",
    lambda: {"megatron": {}, "megatron.core": {}, "megatron.core.utils": {"log_single_rank": unchanged}},
)


def fastai_stand_ins() -> dict[str, dict[str, Any]]:
    def double(values: Any) -> Any:
        return torch.tensor(values, dtype=torch.float64)  # the default of fastai is float32

    def keep(names: str) -> None:
        values = sys._getframe(1).f_locals
        vars(values["self"]).update((name, values[name]) for name in names.split(","))

    learner = SimpleNamespace(fit_one_cycle=unchanged)
    names = {name: Lazy(name) for name in ("functools", "math", "numpy", "torch")}
    basics = names | {
        "tensor": double,
        "store_attr": keep,
        "L": list,
        "patch": unchanged,
        "docs": unchanged,
        "Callback": object,
    }
    basics |= {"Learner": learner, "Recorder": object, "delegates": lambda _: unchanged, "mk_class": lambda *_, **__: None}
    basics["SuggestionMethod"] = SimpleNamespace(Valley=None)
    packages: dict[str, dict[str, Any]] = {"fastai": {}, "fastai.callback": {}}
    return packages | {"fastai.basics": basics, "fastai.callback.tracker": {"SaveModelCallback": object}}


FASTAI = Library("fastai", "fastai/callback/schedule.py", fastai_stand_ins)


def fairseq_stand_ins() -> dict[str, dict[str, Any]]:
    packages: dict[str, dict[str, Any]] = {"omegaconf": {"II": unchanged}, "fairseq": {}}
    packages |= {
        "fairseq.dataclass": {"FairseqDataclass": object},
        "fairseq.dataclass.utils": {"gen_parser_from_dataclass": None},
    }
    packages["fairseq.optim"] = {"FairseqOptimizer": FairseqOptimizer}
    base = {} if not FAIRSEQ._loaded else vars(FAIRSEQ.load())
    return packages | {"fairseq.optim.lr_scheduler": base | {"register_lr_scheduler": lambda *_, **__: unchanged}}


class FairseqOptimizer:
    """An optimizer that only has a rate."""

    rate = 0.0

    def set_lr(self, rate: float) -> None:
        self.rate = rate

    def get_lr(self) -> float:
        return self.rate


FAIRSEQ = Library("fairseq", "fairseq/optim/lr_scheduler/fairseq_lr_scheduler.py", fairseq_stand_ins)


DEEPSPEED = Library(
    "deepspeed",
    "deepspeed/runtime/lr_schedules.py",
    lambda: {"deepspeed": {}, "deepspeed.utils": {"logger": SimpleNamespace(warning=unchanged)}},
)


PYTORCH_WARMUP = Library("pytorch_warmup", "pytorch_warmup/base.py")


class Checkpoints:
    """Decorators for checkpoints, without an effect."""

    register_checkpoint_hooks = mark_as_saver = mark_as_loader = staticmethod(unchanged)


SPEECHBRAIN = Library(
    "speechbrain",
    "speechbrain/nnet/schedulers.py",
    lambda: {
        "speechbrain": {},
        "speechbrain.utils": {"checkpoints": Checkpoints},
        "speechbrain.utils.logger": {"get_logger": unchanged},
    },
)


LIBRARIES = {
    "PyTorch": PYTORCH,
    "optax": OPTAX,
    "Keras": KERAS,
    "timm": TIMM,
    "Hugging Face": TRANSFORMERS,
    "Paddle": PADDLE,
    "gluon-cv": GLUON,
    "Megatron": MEGATRON,
    "fastai": FASTAI,
    "fairseq": FAIRSEQ,
    "DeepSpeed": DEEPSPEED,
    "pytorch_warmup": PYTORCH_WARMUP,
    "SpeechBrain": SPEECHBRAIN,
}


def prepare() -> None:
    """Make the frameworks compute in double precision, on one core."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ |= {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    importlib.import_module("keras").config.set_floatx("float64")
    found = importlib.util.find_spec("timm")  # without its models, which need torchvision
    assert found is not None
    sys.modules["timm"] = package = stand_in("timm", {})
    vars(package).update(__spec__=found, __path__=found.submodule_search_locations)
