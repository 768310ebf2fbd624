"""Altered configurations, from the user and from the folders of strangers."""

import json
import random
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from wrong_values import WRONG_VALUES

from fuzzing.case import MODEL_COMMANDS, OUTPUT, Case
from fuzzing.values import LITERALS, NUMBERS, doubled, emptied, enlarged, flipped, inserted, recoded, truncated
from mnist_trainer.config.loading import bundled_configs
from mnist_trainer.schedules.catalogue import CURVES
from mnist_trainer.toml import to_toml


def configuration(case: Case) -> None:
    """Alter a bundled configuration, and use it in a command or as part of a run folder."""
    document = _lines_of(case.row(list(bundled_configs().values()), 3))
    document |= {"training.epochs": "1", "training.batch_size": "8", "data.train_images": "640", "data.test_images": "10"}
    if "data.validation_images" in document:
        document["data.validation_images"] = "16"
    if case.number % 4:
        for _ in range(case.chance.choice((1, 1, 2, 4))):
            alter = case.row(_LINES, 4)
            case.alterations.append(alter.__name__)
            alter(case, document)
    content = "".join(f"{key} = {value}\n" for key, value in document.items()).encode(errors="surrogatepass")
    if not case.number % 4:
        damage = case.row(_BYTES, 4)
        case.alterations.append(damage.__name__)
        content = damage(case.chance, content)
    case.may_be_long = True
    use = case.row(_USES, 7)
    case.alterations.append(use.__name__)
    use(case, content)


def _lines_of(path: Path) -> dict[str, str]:
    """Return a configuration as keys and values in TOML."""
    lines = {}
    for section, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        for key, value in table.items():
            lines[f"{section}.{key}"] = to_toml({"x": {"k": value}}).split(" = ", 1)[1].strip()
    return lines


def _hostile_value(case: Case, lines: dict[str, str]) -> None:
    lines[case.chance.choice(list(lines))] = case.chance.choice(LITERALS)


def _wrong_value(case: Case, lines: dict[str, str]) -> None:
    key = case.chance.choice(list(WRONG_VALUES))
    lines[key] = case.chance.choice(WRONG_VALUES[key])


def _new_key(case: Case, lines: dict[str, str]) -> None:
    section = case.chance.choice(("training", "schedule", "optimizer", "momentum", "wd", "data", "nowhere", "runtime", "model"))
    key = case.chance.choice(
        ("name", "x", "epochs", '"\\u001b[31m"', '"a.b"', '""', "curve.name", "curves", '"' + "k" * 5000 + '"', '"é"')
    )
    lines[f"{section}.{key}"] = case.chance.choice(LITERALS)


def _many_keys(case: Case, lines: dict[str, str]) -> None:
    section = case.chance.choice(("training", "schedule", "optimizer", "wd", "x"))
    for number in range(case.chance.choice((100, 5000))):
        lines[f"{section}.k{number}"] = case.chance.choice(LITERALS[:20])


def _deep_table(case: Case, lines: dict[str, str]) -> None:
    depth = case.chance.choice((5, 60, 900, 5000))
    lines["schedule" + ".curve" * depth + ".name"] = '"Constant"'


def _random_schedule(case: Case, lines: dict[str, str]) -> None:
    """Replace the schedule by another, with hostile numbers."""
    section = case.chance.choice(("schedule", "schedule", "momentum", "wd"))
    for key in [key for key in lines if key.startswith(f"{section}.")]:
        del lines[key]
    lines |= {f"{section}.{key}": value for key, value in _schedule_lines(case.chance, 2).items()}


def _schedule_lines(chance: random.Random, depth: int) -> dict[str, str]:
    """Return the settings of the example of a curve, of which some are hostile, and some are left out."""
    cls = chance.choice(CURVES)
    lines = {"name": f'"{cls.__name__}"'}
    for name, value in cls.example.items():
        choice = chance.random()
        if name == "base_lr" and choice < 0.95:  # it comes from the learning rate of the run
            continue
        if name in ("curve", "curves") and depth and choice < 0.95:
            inner = [_inline(_schedule_lines(chance, depth - 1)) for _ in range(1 if name == "curve" else len(value))]
            lines[name] = inner[0] if name == "curve" else f"[{', '.join(inner)}]"
        elif choice < 0.75:
            lines[name] = json.dumps(value, default=lambda _: 0)
        elif choice < 0.95:
            lines[name] = chance.choice(NUMBERS)
        elif choice < 0.98:
            lines[name] = chance.choice(LITERALS)
    return lines


def _inline(lines: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key} = {' '.join(value.split())}" for key, value in lines.items()) + "}"


def _random_optimizer(case: Case, lines: dict[str, str]) -> None:
    name = case.chance.choice(
        ("sgd", "nag", "adam", "nadam", "rmsprop", "ftrl", "lamb", "adagrad", "signum", "dcasgd", "sgld", "ftml", "adamax")
    )
    keys = (
        *("momentum", "wd", "clip_gradient", "beta1", "beta2", "epsilon", "gamma1", "gamma2", "lamda1", "eps", "rho"),
        "lazy_update",
    )
    lines["optimizer.name"] = f'"{name}"'
    for key in case.chance.sample(keys, 3):
        lines[f"optimizer.{key}"] = case.chance.choice(NUMBERS)


def _large_numbers(case: Case, lines: dict[str, str]) -> None:
    """Ask for as much of something as the ranges allow."""
    values = {
        "training.epochs": "1000000",
        "training.batch_size": case.chance.choice(("1", "60000")),
        "data.train_images": "60000",
        "data.validation_images": "59999",
        "checkpoint.keep": "1000",
        "checkpoint.every_iterations": "1",
        "training.learning_rate": case.chance.choice(("1e38", "1e-45", "3e38")),
        "runtime.timeout_seconds": "1e300",
    }
    for key in case.chance.sample(list(values), 3):
        lines[key] = values[key]
    case.is_large = True


def _users_code(case: Case, lines: dict[str, str]) -> None:
    key = case.chance.choice(("model.network", "schedule.name", "momentum.name"))
    lines[key] = case.chance.choice(
        ('"math:pi"', '"json:loads"', '"os:getcwd"', '"nowhere:f"', '"json:loads.x.y"', '"\\u001b:x"', '"..a:b"', '"a.py:f"')
    )


_LINES = [
    _hostile_value,
    _random_schedule,
    _wrong_value,
    _new_key,
    _random_schedule,
    _many_keys,
    _deep_table,
    _random_optimizer,
    _random_schedule,
    _large_numbers,
    _users_code,
]


_BYTES: list[Callable[[random.Random, bytes], bytes]] = [
    truncated,
    flipped,
    inserted,
    doubled,
    recoded,
    enlarged,
    emptied,
]


def _train_with(case: Case, content: bytes) -> None:
    case.use("train", "--config", _written(case, content), "--quiet", "--output", OUTPUT)
    case.named.add(OUTPUT)


def _show(case: Case, content: bytes) -> None:
    case.use("schedules", "show", _written(case, content), "--iterations", "0,1,2,100,1000000000000")


def _plot(case: Case, content: bytes) -> None:
    case.use("schedules", "plot", _written(case, content), "--output", "output.png")
    case.named.add("output.png")


def _search(case: Case, content: bytes) -> None:
    case.use("find-lr", "--config", _written(case, content), "--iterations", "20", "--quiet", "--output", OUTPUT)
    case.named.add(OUTPUT)


def _compare_with(case: Case, content: bytes) -> None:
    case.use("compare", _written(case, content), "quick", "--seeds", "1,1", "--quiet", "--output", OUTPUT)


def _written(case: Case, content: bytes) -> Path:
    path = case.cwd / "experiment.toml"
    path.write_bytes(content)
    return path


def _resume_foreign(case: Case, content: bytes) -> None:
    shutil.copytree(case.row(case.library.stopped), case.run)
    _foreign_config(case, content)
    case.use("train", "--resume", case.run, "--quiet")


def _use_foreign(case: Case, content: bytes) -> None:
    case.copy_finished()
    _foreign_config(case, content)
    case.use(*case.row(MODEL_COMMANDS, 50))
    case.picture()


def _foreign_config(case: Case, content: bytes) -> None:
    """Replace the configuration of a run folder. The code that it names must not run."""
    planted = case.plant()
    if case.chance.random() < 0.3:
        key = case.chance.choice(
            ("model.network", "schedule.name", "momentum.name", "wd.name", "schedule.curve.name", "optimizer.name")
        )
        lines = [line for line in content.splitlines() if not line.startswith(key.encode())]
        content = b"\n".join([*lines, f'{key} = "{planted}"'.encode(), b""])
    (case.run / "config.toml").write_bytes(content)


_USES = [_train_with, _show, _resume_foreign, _plot, _use_foreign, _search, _compare_with, _train_with, _show]
