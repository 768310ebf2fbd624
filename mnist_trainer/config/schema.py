"""The fields of a configuration: frozen dataclasses, each field with its kind and help.

Standard library only. The settings of a schedule are in `schedules`, those of an optimizer in `optimizers`. `loading` and
`overrides` read the values.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from itertools import chain
from typing import Any

from mnist_trainer.config.optimizers import OPTIMIZERS
from mnist_trainer.datasets import DATA_SETS, DIGITS, IMAGE_SIZE
from mnist_trainer.fields import (
    MAX_FLOAT32,
    POSITIVE_RATE,
    Choice,
    ClassName,
    CodeName,
    DataName,
    Device,
    FieldError,
    Listed,
    Number,
    Or,
    PathName,
    Sha256,
    Switch,
    Whole,
    check_fields,
    nearest,
    setting,
)
from mnist_trainer.runtime import hardware
from mnist_trainer.schedules import AnySchedule, RunLength, build_hyperparameter, build_schedule
from mnist_trainer.schedules.misfits import Misfit, find_misfits
from mnist_trainer.toml import to_toml

SCHEDULER_MODES = ("optimizer", "manual")

MAX_SEED = 2**31 - 1

SEED = Whole(0, MAX_SEED)

DATA_NAME = DataName(tuple(DATA_SETS))

DATA_IDENTITY = ("name", "classes", "image_size", "sha256")
"""Keys of the table `data` that identify the data, regardless of how much of it is used."""

MAX_IMAGES = 10_000_000

IMAGE_SIDE = Whole(16, 128)
"""Sides of an image: two convolutions with 5×5 pixels and two poolings need 16."""

THREADS = Or("auto", hardware.THREADS)

HYPERPARAMETERS = ("momentum", "wd")
"""Optimizer hyperparameters that may have a schedule, as MXNet spells them."""


@dataclass(frozen=True)
class TrainingConfig:
    """Length, batches, initial rate, scheduler mode and seed."""

    epochs: int = setting(Whole(1, 1_000_000), default=10, sentence="number of passes over the training images")
    batch_size: int = setting(
        Whole(1, 60_000), default=64, sentence="number of images in a batch, in training and in evaluation"
    )
    learning_rate: float | None = setting(
        Or(None, POSITIVE_RATE),
        default=None,
        sentence="learning rate that the schedule starts from; leave it out for schedules that set their own rates",
    )
    scheduler_mode: str = setting(
        Choice(SCHEDULER_MODES),
        default="optimizer",
        sentence="how the schedule is applied: optimizer, by MXNet's optimizer; manual, by the training loop with "
        "trainer.set_learning_rate",
    )
    seed: int = setting(
        SEED,
        default=1,
        sentence="seed for the initial parameters, and for the order and the augmentation of the training images",
    )
    allow_zero_rate: bool = setting(
        Switch(), default=False, sentence="true to train even if the learning rate is 0 in most iterations"
    )


@dataclass(frozen=True)
class DataConfig:
    """Data and loader."""

    loader: str = setting(
        Choice(("array", "gluon")),
        default="array",
        sentence="how batches are made: array, from arrays in memory; gluon, by MXNet's DataLoader",
    )
    train_images: int = setting(
        Whole(1, MAX_IMAGES), default=60_000, sentence="use only the first N training images; all by default"
    )
    validation_images: int = setting(
        Whole(0, MAX_IMAGES - 1), default=0, sentence="hold out the last N of the selected training images for validation"
    )
    test_images: int = setting(
        Whole(1, MAX_IMAGES), default=10_000, sentence="use only the first N test images; all by default"
    )
    augment: bool = setting(
        Switch(),
        default=False,
        sentence="true to train on images that are shifted, rotated, scaled, slanted, and drawn with thinner or thicker "
        "strokes, at random and differently in each epoch",
    )
    name: str = setting(
        DATA_NAME,
        default="mnist",
        sentence=f"data set: {', '.join(DATA_SETS)}, or any other name for your own four files in MNIST's format",
    )
    classes: Sequence[str] | None = setting(
        Or(None, Listed(ClassName())),
        default=None,
        sentence="names of the classes of your own data, in the order of the labels; leave it out for 0 to 9",
    )
    image_size: Sequence[int] | None = setting(
        Or(None, Listed(IMAGE_SIDE)),
        default=None,
        sentence="height and width of your own images in pixels; leave it out for 28 and 28",
    )
    sha256: str | None = setting(
        Or(None, Sha256()),
        default=None,
        sentence="SHA-256 that the unpacked contents of your own four files must have, one after the other; a run records it "
        "in its own configuration",
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        return DATA_SETS[self.name].classes if self.name in DATA_SETS else tuple(self.classes or DIGITS)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.image_size or IMAGE_SIZE
        return height, width

    @property
    def identity(self) -> dict[str, Any]:
        """The values of `DATA_IDENTITY` by key."""
        return {key: getattr(self, key) for key in DATA_IDENTITY}

    @property
    def trained_images(self) -> int:
        """The number of training images, excluding those held out for validation."""
        return self.train_images - self.validation_images


@dataclass(frozen=True)
class ModelConfig:
    """Network, backend and initial parameters."""

    network: str | None = setting(
        Or(None, CodeName()),
        default=None,
        sentence="module:function that returns your own network, which maps images to a logit for each class; "
        "leave it out for the tutorial's network",
    )
    backend: str = setting(
        Choice(("auto", "stock", "fused")),
        default="auto",
        sentence="how convolution, pooling and relu are computed: stock, by MXNet's operators; fused, by this program's "
        "fused operator; auto, by the fused operator where it can be used",
    )
    initial_parameters: str | None = setting(
        Or(None, PathName()),
        default=None,
        sentence="parameters with which the run begins, in place of random ones: a .params file, a run folder, or a checkpoint "
        "such as runs/first/checkpoints/00003752",
    )
    initial_parameters_sha256: str | None = setting(
        Or(None, Sha256()),
        default=None,
        sentence="SHA-256 that the initial parameters must have; a run records it in its own configuration",
    )


TUTORIAL_LAYERS = ("conv1", "conv2", "dense1", "dense2")
"""The layers of the tutorial's network that have parameters, in order."""


@dataclass(frozen=True)
class LayerConfig:
    """Multipliers for the parameters of a layer."""

    lr_mult: float = setting(Number(0, MAX_FLOAT32), default=1, sentence="multiplier of the learning rate; 0 freezes the layer")
    wd_mult: float = setting(Number(0, MAX_FLOAT32), default=1, sentence="multiplier of the weight decay")


@dataclass(frozen=True)
class RuntimeConfig:
    """Device, threads, timeout and log."""

    device: str = setting(
        Device(),
        default="auto",
        sentence="device to compute on: auto, cpu, gpu, gpu:1, or several such as gpu:0,1; "
        "auto uses a GPU if one works, otherwise the CPU",
    )
    threads: int | str = setting(
        THREADS,
        default="auto",
        sentence="number of OpenMP threads; auto means OMP_NUM_THREADS if it is set, otherwise the number of processors "
        "that the process may use",
    )
    timeout_seconds: float = setting(
        Number(above=0),
        default=60,
        sentence="in distributed training, the time a process waits for the others to join, and later for their heartbeats",
    )
    log: str = setting(
        Choice(("none", "tensorboard")),
        default="none",
        sentence="log to write in addition to the run's own files: tensorboard, in the folder tensorboard of the run",
    )


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save, in addition to the end of each epoch, and how many checkpoints to keep."""

    every_iterations: int = setting(
        Whole(1, 1_000_000_000), default=1000, sentence="save a checkpoint N iterations after the last one"
    )
    every_minutes: float = setting(Number(above=0), default=5, sentence="save a checkpoint when the last one is N minutes old")
    keep: int = setting(Whole(1, 1000), default=2, sentence="keep the newest N checkpoints, and that of the best epoch")


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """Ranking of the epochs by their validation scores, and the end of a run that no longer improves."""

    metric: str = setting(
        Choice(("loss", "accuracy")), default="loss", sentence="score of the validation images by which epochs are ranked"
    )
    patience: int | None = setting(
        Or(None, Whole(1, 1_000_000)),
        default=None,
        sentence="stop after N epochs in a row without an improvement; leave it out to train all epochs",
    )
    min_delta: float = setting(
        Number(0),
        default=0,
        sentence="change that an improvement must exceed, in units of the metric: 0.001 is 0.1 points of accuracy",
    )


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a run.

    Attributes:
        training: Length, batches, initial rate, scheduler mode and seed.
        schedule: The `name` of the learning-rate schedule, and its arguments.
        optimizer: The `name` of the optimizer, and its arguments.
        momentum: The `name` and arguments of the momentum's schedule; empty for a fixed momentum.
        wd: The `name` and arguments of the weight decay's schedule; empty for a fixed weight decay.
        layers: Multipliers by the name of a layer, each a table with the keys of `LayerConfig`.
        model: Network, backend and initial parameters.
        data: Data and loader.
        checkpoint: When to save, and how many checkpoints to keep.
        early_stopping: Ranking of the epochs, and the end of a run that no longer improves.
        runtime: Device, threads, timeout and log.
    """

    training: TrainingConfig = field(default_factory=TrainingConfig)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "sgd"})
    momentum: Mapping[str, Any] = field(default_factory=dict)
    wd: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    @property
    def run_length(self) -> RunLength:
        """The length in epochs and iterations. A partial last batch counts as an iteration."""
        return RunLength(math.ceil(self.data.trained_images / self.training.batch_size), self.training.epochs)

    @property
    def has_own_shapes(self) -> bool:
        """True if the parameters may have other shapes than the tutorial's, and may be large."""
        has_other_data = (self.data.image_shape, len(self.data.class_names)) != (IMAGE_SIZE, len(DIGITS))
        return self.model.network is not None or has_other_data

    def sharing_problem(self, sharers: int) -> str | None:
        """Return a problem if a batch has fewer images than there are sharers.

        Args:
            sharers: The number of workers or devices that share a batch.

        Returns:
            A clause for a message, or None if every batch can be shared.
        """
        images, batch_size = self.data.trained_images, self.training.batch_size
        smallest = images % batch_size or min(batch_size, images)
        if sharers <= smallest:
            return None
        return f"cannot share a batch of {smallest}, the smallest of {images:,} images in batches of {batch_size}"

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """The arguments of the optimizer, without its name."""
        return {key: value for key, value in self.optimizer.items() if key != "name"}

    def build_schedule(self) -> AnySchedule:
        """Return a new instance of the learning-rate schedule.

        Raises:
            SettingsError: The settings are wrong.
        """
        return build_schedule(self.schedule, self.run_length, self.training.learning_rate)

    def build_hyperparameters(self) -> dict[str, AnySchedule]:
        """Return the schedules of momentum and weight decay by name. A fixed hyperparameter has no schedule.

        Raises:
            SettingsError: The settings are wrong.
        """
        return {name: self.build_hyperparameter(name) for name in HYPERPARAMETERS if getattr(self, name)}

    def build_hyperparameter(self, name: str) -> AnySchedule:
        """Return a new instance of the schedule of a hyperparameter.

        Args:
            name: "momentum" or "wd".

        Raises:
            SettingsError: The settings are wrong.
        """
        return build_hyperparameter(getattr(self, name), self.run_length)

    def misfits(self) -> list[Misfit]:
        """Return the ways in which the schedules do not fit the length of the run.

        Raises:
            SettingsError: The settings of a schedule are wrong.
        """
        schedules = {"schedule": self.build_schedule(), **self.build_hyperparameters()}
        return [
            misfit
            for section, schedule in schedules.items()
            for misfit in find_misfits(schedule, getattr(self, section), self.run_length, section)
        ]

    def users_code(self) -> dict[str, str]:
        """Return the user's code, which is the network and schedules named as "module:attribute", by key."""
        network = {"model.network": self.model.network} if self.model.network else {}
        schedules = (_users_code(section, getattr(self, section)) for section in ("schedule", *HYPERPARAMETERS))
        return network | dict(chain.from_iterable(schedules))

    def to_toml(self) -> str:
        """Return the configuration as TOML, from which `load_config` reads an equal one."""
        return to_toml(self.to_tables())

    def differences(self, other: "RunConfig") -> list[tuple[str, Any, Any]]:
        """Return the differences from another configuration.

        Args:
            other: The other configuration.

        Returns:
            The key, the value in this configuration and the value in the other, for each difference.
        """
        found = []
        for (section, ours), (_, theirs) in zip(self._tables(), other._tables(), strict=True):
            for key in dict.fromkeys((*ours, *theirs)):
                if ours.get(key) != theirs.get(key):
                    found.append((f"{section}.{key}", ours.get(key), theirs.get(key)))
        return found

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Return the configuration as plain tables, from which `from_tables` makes an equal one."""
        return {section: dict(table) for section, table in self._tables()}

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> "RunConfig":
        """Make a configuration from tables.

        Args:
            tables: The tables, as `to_tables` returns them.

        Raises:
            KeyError, TypeError, ValueError: The tables are not those of a configuration.
        """
        made: dict[str, Any] = {}
        for section, section_class in SECTIONS.items():
            table = dict(tables[section])
            made[section] = section_class(**table) if section_class else table
            for key, value in table.items() if section_class else ():
                check_value(f"{section}.{key}", value)
        return cls(**made)

    def _tables(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for section in fields(self):
            table = getattr(self, section.name)
            yield section.name, table if isinstance(table, Mapping) else vars(table)


SECTIONS: dict[str, type | None] = {
    "training": TrainingConfig,
    "schedule": None,  # an open table: its keys depend on its name
    "optimizer": None,
    "momentum": None,
    "wd": None,
    "layers": None,  # a table for each layer
    "model": ModelConfig,
    "data": DataConfig,
    "checkpoint": CheckpointConfig,
    "early_stopping": EarlyStoppingConfig,
    "runtime": RuntimeConfig,
}


@dataclass(frozen=True)
class SweepConfig:
    """The learning-rate range test.

    Raises:
        FieldError: A value is wrong.
    """

    start_lr: float = setting(POSITIVE_RATE, default=1e-6, sentence="lowest learning rate")
    end_lr: float = setting(POSITIVE_RATE, default=10.0, sentence="highest learning rate")
    # With fewer iterations the averaged loss is meaningless at useful rates.
    iterations: int = setting(
        Whole(20), default=400, sentence="number of learning rates to try, from the lowest to the highest"
    )
    diverged_at: float = setting(
        Number(above=1), default=4.0, sentence="stop when the smoothed loss exceeds its minimum times this factor"
    )
    smoothing: float = setting(Number(0, below=1), default=0.9, sentence="weight of the past in the moving average of the loss")

    relations = ("end_lr > start_lr",)

    def __post_init__(self) -> None:
        check_fields(self)


# --- keys


def field_of(key: str) -> Field[Any] | None:
    """Return the field of a key such as `training.epochs`, or None for an unknown key or a key of an open table."""
    section, _, name = key.partition(".")
    section_class = SECTIONS.get(section)
    if section == "layers":
        layer, _, name = name.rpartition(".")
        section_class = LayerConfig if layer else None
    return next((spec for spec in fields(section_class) if spec.name == name), None) if section_class else None


def check_value(key: str, value: Any) -> Any:
    """Check the value of a key.

    Args:
        key: The key, such as `training.epochs`.
        value: Any value.

    Returns:
        The value; a name in the spelling of its field, without regard to the case that the user wrote.

    Raises:
        FieldError: The value is wrong, or the key is unknown.
    """
    spec = field_of(key)
    if spec is None:
        raise FieldError(key, unknown(key, all_keys()))
    checked = spec.metadata["kind"].check(key, value)
    return checked if isinstance(value, str) else value


_OPEN_KEYS = {
    "schedule": "learning-rate schedule: a name of `schedules list`, whose lengths then span the run; your own "
    "module:attribute; or an expression such as 'Warmup(Cosine(max_update=9000), 300)'. Replaces the table [schedule]",
    "optimizer": f"optimizer with MXNet's defaults: {', '.join(OPTIMIZERS)}. Replaces the table [optimizer]",
    "optimizer.momentum": "momentum of the optimizer",
}
"""Key of an open table that has a flag → its help."""


def describe(key: str) -> str:
    """Return the help of a key such as `training.epochs`.

    Raises:
        KeyError: The key does not have a field.
    """
    if key in _OPEN_KEYS:
        return _OPEN_KEYS[key]
    spec = field_of(key)
    if spec is None:
        raise KeyError(key)
    return str(spec.metadata["sentence"])


def flag_of(key: str) -> str:
    """Return the flag of a key such as `training.batch_size`: --batch-size."""
    return "--" + key.rpartition(".")[2].replace("_", "-")


def all_keys() -> list[str]:
    """Return all keys of a configuration. Of an open table, only `name` is included, and of layers, those of the tutorial."""
    closed = [f"{section}.{spec.name}" for section, cls in SECTIONS.items() if cls for spec in fields(cls)]
    named = [f"{section}.name" for section, cls in SECTIONS.items() if cls is None and section != "layers"]
    return [*closed, *named, *(key for layer in TUTORIAL_LAYERS for key in keys_of_layer(layer))]


def keys_of_layer(layer: str) -> list[str]:
    """Return the keys of a layer, such as `layers.conv1.lr_mult`."""
    return [f"layers.{layer}.{spec.name}" for spec in fields(LayerConfig)]


def unknown(key: str, known: Sequence[str]) -> str:
    """Return the message about an unknown key, with the nearest known key.

    Args:
        key: The unknown key.
        known: The known keys.
    """
    last_parts = {name.rpartition(".")[2] for name in known}
    near = nearest(key.rpartition(".")[2], last_parts)
    same_part = [name for name in known if near and name.rpartition(".")[2] == near]
    best = nearest(key, same_part, cutoff=0)  # `name` is a key of two tables
    hint = f"did you mean {best}?" if best else f"there are {', '.join(known)}"
    return f"there is no such key; {hint}"


def _users_code(key: str, settings: Any) -> Iterator[tuple[str, str]]:
    if isinstance(settings, Mapping):
        if ":" in str(settings.get("name")):
            yield f"{key}.name", str(settings["name"])
        for name, value in settings.items():
            yield from _users_code(f"{key}.{name}", value)
    elif isinstance(settings, list):
        for number, value in enumerate(settings):
            yield from _users_code(f"{key}[{number}]", value)
