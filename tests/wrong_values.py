"""Wrong values for each key of the configuration, as TOML, and a configuration to put them in."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any

GOOD = {
    "training.learning_rate": "0.03",
    "schedule.name": '"MultiFactor"',
    "schedule.step_epochs": "[4]",
    "schedule.factor": "0.1",
}
"""A complete configuration, with the schedule of the default one."""

FLAGS = {
    key: f"--{key.partition('.')[2].replace('_', '-')}"
    for key in (
        *("training.epochs", "training.batch_size", "training.learning_rate", "training.scheduler_mode", "training.seed"),
        *("data.train_images", "data.validation_images", "data.test_images", "runtime.device", "runtime.threads"),
        *("model.initial_parameters", "runtime.log"),
    )
}
"""The keys that have a flag of their own."""


def document(changes: Mapping[str, str] = GOOD) -> str:
    """Return a configuration with these values, each as TOML. Another schedule has no settings of the good one."""
    kept = {key: value for key, value in GOOD.items() if not ("schedule.name" in changes and key.startswith("schedule."))}
    return "".join(f"{key} = {value}\n" for key, value in (kept | dict(changes)).items())


def read(value: str) -> Any:
    """Return a value that is written as TOML."""
    return tomllib.loads(f"value = {value}")["value"]


def typed(value: str) -> str:
    """Return a value as typed after a flag: a text without quotes, unless TOML would read it as something else."""
    text = read(value)
    if not isinstance(text, str):
        return value
    try:
        read(text)
    except (ValueError, RecursionError):
        return text
    return value


def _texts(*texts: str) -> list[str]:
    return [json.dumps(text) for text in texts]


HUGE = "0x" + "f" * 4000  # Python reads such numbers but does not write them
_NOT_NUMBERS = [
    *_texts("three", "", "1 2", "0x", "1_", "--1", "[[", "é", "½", "\\", "'", "1e3", "3"),
    *("true", "false", "nan", "[1]", "{a = 1}", "1979-05-27"),
]
_NOT_WHOLE = [
    *(*_NOT_NUMBERS, "1.5", "2.0", "-0.0", "1e3", "inf", "-inf", *_texts("1" + "0" * 5000)),
    *("-1", "1" + "0" * 30, "-1" + "0" * 30, "-" + "9" * 400, "-" + "9" * 4000, HUGE),
]
_NOT_POSITIVE = [*_NOT_NUMBERS, "0", "0.0", "-0.0", "-0.1", "inf", "-inf", HUGE]

WRONG_VALUES = {
    "training.epochs": [*_NOT_WHOLE, "0", "1000001"],
    "training.batch_size": [*_NOT_WHOLE, "0", "60001"],
    "training.learning_rate": [*_NOT_POSITIVE, "1e39"],
    "training.scheduler_mode": [*_NOT_WHOLE, *_texts("manul", "manual mode", "optimizer,manual")],
    "training.seed": [*_NOT_WHOLE, "2147483648"],
    "training.allow_zero_rate": ["0", "1", *_texts("yes", "on"), "[]"],
    "model.network": [*_NOT_WHOLE, *_texts("mlp", "my_networks:", ":mlp", "my networks:mlp")],
    "model.backend": [*_NOT_WHOLE, *_texts("fuse", "plain", "stock,fused")],
    "model.initial_parameters": _texts(""),
    "model.initial_parameters_sha256": [*_NOT_WHOLE, *_texts("abc", 63 * "0", 65 * "0", 64 * "A", 64 * "g")],
    "data.name": ["[1]", *_texts("", "a b", "a/b", "..", "-x", "é", "a" * 65, "fashion_mnist", "EMNIST.digits")],
    "data.classes": ["1", "[]", "[1]", '["a", ""]', '["a", "\\n"]', '["a", " b"]', *_texts("abc")],
    "data.image_size": ["28", "[]", "[15, 28]", "[28, 129]", "[28.0, 28]", *_texts("28")],
    "data.sha256": [*_NOT_WHOLE, *_texts("abc", 63 * "0", 65 * "0", 64 * "A", 64 * "g")],
    "data.loader": [*_NOT_WHOLE, *_texts("gloun", "dataloader")],
    "data.train_images": [*_NOT_WHOLE, "0", "60001"],
    "data.validation_images": [*_NOT_WHOLE, "60000"],
    "data.test_images": [*_NOT_WHOLE, "0", "10001"],
    "data.augment": ["0", "1", *_texts("yes", "on", "ture"), "[]"],
    "checkpoint.every_iterations": [*_NOT_WHOLE, "0"],
    "checkpoint.every_minutes": _NOT_POSITIVE,
    "checkpoint.keep": [*_NOT_WHOLE, "0", "1001"],
    "early_stopping.metric": [*_NOT_WHOLE, *_texts("los", "test_loss", "acc")],
    "early_stopping.patience": [*_NOT_WHOLE, "0", "1000001"],
    "early_stopping.min_delta": [*_NOT_NUMBERS, "-0.1", "inf"],
    "runtime.device": [
        *(*_NOT_WHOLE, *_texts("tpu", "GPU:", "gpu:", "gpu:-1", "cpu:-1", "cpu:a", "gpu:1,", "cpu gpu", "gpu:1,1", "cpu:0,0")),
    ],
    "runtime.threads": [*_NOT_WHOLE, "0", "1025", *_texts("all", "automatic")],
    "runtime.timeout_seconds": _NOT_POSITIVE,
    "runtime.log": [*_NOT_WHOLE, *_texts("tensorbord", "tensor board", "csv")],
    "optimizer.name": [*_NOT_WHOLE, *_texts("sdg", "SGD2", "adadelta", "lbsgd"), "['sgd']", "[['sgd']]"],
    "optimizer.momentum": [*_NOT_NUMBERS, "1", "-0.1", "inf"],
    "optimizer.wd": [*_NOT_NUMBERS, "-0.1", "-1e-9", "inf", "1e39", "1" + "0" * 400],
    "optimizer.clip_gradient": [*_NOT_NUMBERS, "0", "-1"],
    "optimizer.lazy_update": ["0", "1", *_texts("yes"), "[]"],
    "schedule.name": [
        *(*_NOT_WHOLE, "['Constant']", *_texts("Cosin", "sgd", ":", "a:", ":a", "..:x", "a.b:c", "no_such_module:f")),
        *_texts("math:pi", "math:no_such"),
    ],
    "schedule.step_epochs": [
        *(value for value in _NOT_WHOLE if value != "[1]"),
        *("[]", "[0]", "[7, 4]", "[4, 4]", "[1e308]", "[nan]", "[-1]", "['a']", "[true]", "[[1]]", "4"),
    ],
    "schedule.factor": [*_NOT_NUMBERS, "1.5", "2", "-1", "inf", "[0.5]"],
    "schedule.warmup_steps": [*_NOT_NUMBERS, "-1", "1.5"],
    "schedule.warmup_mode": [*_NOT_NUMBERS, *_texts("slow", "cubic")],
    "schedule.warmup_begin_lr": ["-1", "0.5", *_texts("three")],
}
