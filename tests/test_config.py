"""What a configuration accepts, what it refuses and in which words, and that it reads back what it wrote."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_trainer import shipped
from mnist_trainer.config import (
    DataConfig,
    ModelConfig,
    Override,
    RunConfig,
    RuntimeConfig,
    TrainingConfig,
    describe,
    find_config,
    load_config,
    load_recorded_config,
)
from mnist_trainer.errors import RequestError
from mnist_trainer.mxnet_optimizers import OPTIMIZERS
from mnist_trainer.schedules import RunLength, UserSchedule

SECTIONS: dict[str, type] = {"training": TrainingConfig, "model": ModelConfig, "data": DataConfig, "runtime": RuntimeConfig}
FIELDS = [f"{section}.{field.name}" for section, cls in SECTIONS.items() for field in dataclasses.fields(cls)]

WriteConfig = Callable[[str], Path]


def any_rate(iteration: int, anything: Any = None) -> float:
    """A user's schedule that takes whatever a configuration can hold."""
    return 0.1


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteConfig:
    """Writes a TOML file into an empty current folder and returns its name, as a user would give it."""
    monkeypatch.chdir(tmp_path)

    def write_config(text: str) -> Path:
        Path("mine.toml").write_text(text, encoding="utf-8")
        return Path("mine.toml")

    return write_config


def toml(**changes: Mapping[str, str]) -> str:
    """A small valid file, with other keys and values, each as it stands in TOML."""
    tables: dict[str, dict[str, str]] = {
        "training": {"learning_rate": "0.1"},
        "schedule": {"name": '"Constant"'},
        "optimizer": {},
        "data": {},
        "runtime": {},
    }
    for section, table in changes.items():
        tables.setdefault(section, {}).update(table)
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in table.items()) for section, table in tables.items()
    )


def with_key(key: str, value: str) -> str:
    """The small valid file with one key (`training.epochs`) as given."""
    section, _, name = key.partition(".")
    return toml(**{section: {name: value}})


def problems_of(path: str | Path, *overrides: Override) -> tuple[str, ...]:
    with pytest.raises(RequestError) as caught:
        load_config(path, overrides)
    return caught.value.problems


def setting(assignment: str) -> Override:
    return Override.from_assignment(assignment)


# --- what is there


def test_the_shipped_tutorial_is_the_tutorials_experiment() -> None:
    config = load_config()
    assert config == RunConfig(
        TrainingConfig(epochs=10, batch_size=64, learning_rate=0.03, scheduler_mode="optimizer", seed=1),
        {"name": "MultiFactor", "step_epochs": [4, 7, 9], "factor": 0.1},
        {"name": "sgd"},
        momentum={},
        wd={},
        model=ModelConfig(stages="auto"),
        data=DataConfig(loader="array", num_workers=0, train_images=60_000, validation_images=0, test_images=10_000),
        runtime=RuntimeConfig(device="auto", threads="auto"),
    )
    assert config.run_length == RunLength(iterations_per_epoch=938, epochs=10)
    assert repr(config.build_schedule()) == "MultiFactor(base_lr=0.03, step=(3752, 6566, 8442), factor=0.1)"


@pytest.mark.parametrize(
    ("images", "batch_size", "iterations"),
    [
        pytest.param(128, 64, 2, id="whole batches"),
        pytest.param(129, 64, 3, id="a last batch of one"),
        pytest.param(1, 64, 1, id="less than a batch"),
        pytest.param(60_000, 64, 938, id="the tutorial"),
    ],
)
def test_a_partial_batch_is_an_iteration(images: int, batch_size: int, iterations: int) -> None:
    config = RunConfig(TrainingConfig(epochs=3, batch_size=batch_size), data=DataConfig(train_images=images))
    assert config.run_length == RunLength(iterations, 3)
    assert config.run_length.total_iterations == 3 * iterations


@pytest.mark.parametrize("key", FIELDS)
def test_every_field_has_a_sentence(key: str) -> None:
    sentence = describe(key)
    assert len(sentence.split()) >= 3
    assert not sentence.endswith(".")


@pytest.mark.parametrize("key", ["training.epoch", "nothing.epochs", "schedule.name", "training"])
def test_there_is_no_sentence_for_what_is_no_field(key: str) -> None:
    with pytest.raises(KeyError):
        describe(key)


@pytest.mark.parametrize(
    "part",
    [TrainingConfig(), DataConfig(), RuntimeConfig(), RunConfig()],
    ids=lambda part: type(part).__name__,
)
def test_a_configuration_cannot_be_changed(part: Any) -> None:
    name = dataclasses.fields(part)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, name, None)


# --- where it comes from


@pytest.mark.parametrize("name", ["tutorial", "tutorial.toml", "configs/tutorial.toml"])
def test_a_shipped_configuration_has_its_name_everywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == shipped.configs_folder() / "tutorial.toml"
    assert load_config(name) == load_config()
    assert not list(tmp_path.iterdir())


def test_the_users_own_file_comes_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("configs/tutorial.toml")
    own.parent.mkdir()
    own.write_text(toml(training={"epochs": "3"}), encoding="utf-8")
    assert load_config("configs/tutorial.toml").training.epochs == 3
    assert load_config("tutorial").training.epochs == 10


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        pytest.param("tutoral", "tutoral: there is no such configuration; did you mean configs/tutorial.toml?", id="a name"),
        pytest.param(
            "configs/tutorail.toml",
            "configs/tutorail.toml: there is no such configuration; did you mean configs/tutorial.toml?",
            id="a path",
        ),
        pytest.param(
            "elsewhere/tutorial.toml",
            "elsewhere/tutorial.toml: there is no such configuration; did you mean configs/tutorial.toml?",
            id="another folder",
        ),
        pytest.param(
            "tutorial.json", "tutorial.json: there is no such configuration; did you mean configs/tutorial.toml?", id="ending"
        ),
        pytest.param("qqqq.toml", "qqqq.toml: there is no such configuration; the bundled ones are ", id="nothing like it"),
        pytest.param("a" * 300, "a" * 300 + ": ", id="longer than a name can be"),
    ],
)
def test_a_missing_file_is_answered_with_the_nearest_shipped_one(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = problems_of(name)
    assert problem.startswith(sentence)
    assert "tutorial" in problem or len(name) == 300


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"[training\n", "mine.toml: this is not valid TOML: Expected ']'", id="a bracket is missing"),
        pytest.param(
            b"[training]\nepochs 3\n", "mine.toml: this is not valid TOML: Expected '='", id="an equals sign is missing"
        ),
        pytest.param(b"[data]\n[data]\n", "mine.toml: this is not valid TOML: Cannot declare", id="a table twice"),
        pytest.param(b"a = " + b"[" * 100_000, "mine.toml: this is not valid TOML: ", id="nested beyond measure"),
        pytest.param(b"a = 1" + b"0" * 5000, "mine.toml: this is not valid TOML: ", id="a number beyond measure"),
        pytest.param(b"# \xe9t\xe9\n", "mine.toml: this is not a text file in UTF-8", id="Latin-1"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "mine.toml: this is not a text file in UTF-8", id="a picture"),
    ],
)
def test_a_broken_file_is_one_problem(content: bytes, sentence: str, write: WriteConfig) -> None:
    path = write("")
    path.write_bytes(content)
    (problem,) = problems_of(path)
    assert problem.startswith(sentence)


@pytest.mark.parametrize("path", [".", "below", ""])
def test_a_folder_is_no_configuration(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("below").mkdir()
    (problem,) = problems_of(path)
    assert problem == f"{path or '.'}: cannot be read: Is a directory"


# --- overrides


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        pytest.param("training.epochs", "3", 3, id="whole number"),
        pytest.param("training.batch_size", "1_000", 1000, id="as TOML writes thousands"),
        pytest.param("training.learning_rate", "1e-3", 1e-3, id="number"),
        pytest.param("training.learning_rate", "1", 1, id="whole number for a number"),
        pytest.param("training.scheduler_mode", "manual", "manual", id="choice"),
        pytest.param("training.scheduler_mode", '"manual"', "manual", id="choice in quotes"),
        pytest.param("training.seed", "0", 0, id="smallest seed"),
        pytest.param("training.seed", "2147483647", 2147483647, id="largest seed"),
        pytest.param("model.stages", "stock", "stock", id="stages"),
        pytest.param("data.loader", "gluon", "gluon", id="loader"),
        pytest.param("data.train_images", "60000", 60000, id="all training images"),
        pytest.param("data.test_images", "1", 1, id="one test image"),
        pytest.param("runtime.device", "gpu:0,1", "gpu:0,1", id="two GPUs"),
        pytest.param("runtime.device", "cpu", "cpu", id="CPU"),
        pytest.param("runtime.threads", "auto", "auto", id="threads by themselves"),
        pytest.param("runtime.threads", "1024", 1024, id="most threads"),
    ],
)
def test_an_override_wins_over_the_file(key: str, text: str, value: object, write: WriteConfig) -> None:
    section, _, name = key.partition(".")
    file = write(toml(training={"epochs": "7", "batch_size": "32", "scheduler_mode": '"optimizer"', "seed": "5"}))
    config = load_config(file, [Override(f"--{name}", key, text)])
    unchanged = load_config(file)
    assert getattr(getattr(config, section), name) == value
    assert config == dataclasses.replace(
        unchanged, **{section: dataclasses.replace(getattr(unchanged, section), **{name: value})}
    )


@pytest.mark.parametrize(
    ("assignments", "schedule"),
    [
        pytest.param(["schedule.step_epochs=[1, 2]"], {"step_epochs": [1, 2]}, id="list"),
        pytest.param(["schedule.name=multi_factor"], {"name": "multi_factor"}, id="text without quotes"),
        pytest.param(["schedule.name='MultiFactor'"], {"name": "MultiFactor"}, id="text in quotes"),
        pytest.param([" schedule.factor = 0.25 "], {"factor": 0.25}, id="spaces"),
        pytest.param(["schedule.warmup_mode=constant"], {"warmup_mode": "constant"}, id="new key"),
    ],
)
def test_an_assignment_sets_any_key(assignments: list[str], schedule: dict[str, object]) -> None:
    config = load_config(overrides=[setting(each) for each in assignments])
    assert config.schedule == {**load_config().schedule, **schedule}


def test_a_text_keeps_its_equals_signs_and_lines(write: WriteConfig) -> None:
    file = write(toml(training={"learning_rate": "0.1"}, schedule={"name": f'"{__name__}:any_rate"'}).replace("0.1", "1"))
    file.write_text(file.read_text(encoding="utf-8").replace("learning_rate = 1\n", ""), encoding="utf-8")
    for text in ("a=b", "1\nname = 2", "# none", "{", "yes"):
        assert load_config(file, [setting(f"schedule.anything={text}")]).schedule["anything"] == text


@pytest.mark.parametrize("assignment", ["", "=", "=3", "training.epochs", "epochs=3", ".epochs=3", "training.=3", ".=3"])
def test_an_assignment_needs_a_section_a_key_and_a_value(assignment: str) -> None:
    with pytest.raises(RequestError) as caught:
        setting(assignment)
    sentence = f"--set {assignment}: write it as section.key=value, for example training.epochs=3"
    assert caught.value.problems == (sentence,)


# --- what is refused

LOW = 10**30

WRONG_VALUES = [
    pytest.param("training.epochs", '"three"', "'three' is not a whole number", id="epochs, text"),
    pytest.param("training.epochs", '"3"', "'3' is not a whole number", id="epochs, a number in quotes"),
    pytest.param("training.epochs", "2.0", "2.0 is not a whole number", id="epochs, float"),
    pytest.param("training.epochs", "true", "True is not a whole number", id="epochs, bool"),
    pytest.param("training.epochs", "nan", "nan is not a whole number", id="epochs, NaN"),
    pytest.param("training.epochs", "inf", "inf is not a whole number", id="epochs, infinite"),
    pytest.param("training.epochs", "[3]", "[3] is not a whole number", id="epochs, list"),
    pytest.param("training.epochs", "{a = 3}", "{'a': 3} is not a whole number", id="epochs, table"),
    pytest.param("training.epochs", "0", "0 is not a whole number from 1 to 1000000", id="epochs, zero"),
    pytest.param("training.epochs", "-1", "-1 is not a whole number from 1 to 1000000", id="epochs, negative"),
    pytest.param("training.epochs", "1000001", "1000001 is not a whole number from 1 to 1000000", id="epochs, many"),
    pytest.param("training.batch_size", "0", "0 is not a whole number from 1 to 60000", id="batch_size, zero"),
    pytest.param("training.batch_size", "60001", "60001 is not a whole number from 1 to 60000", id="batch_size, many"),
    pytest.param("training.batch_size", "1e3", "1000.0 is not a whole number", id="batch_size, exponent"),
    pytest.param("training.batch_size", "false", "False is not a whole number", id="batch_size, bool"),
    pytest.param("training.batch_size", f"-{LOW}", f"-{LOW} is not a whole number from 1 to 60000", id="batch_size, far below"),
    pytest.param("training.learning_rate", '"fast"', "'fast' is not a number", id="learning_rate, text"),
    pytest.param("training.learning_rate", "true", "True is not a number", id="learning_rate, bool"),
    pytest.param("training.learning_rate", "[0.1]", "[0.1] is not a number", id="learning_rate, list"),
    pytest.param("training.learning_rate", "0", "0 is not a finite number > 0", id="learning_rate, zero"),
    pytest.param("training.learning_rate", "0.0", "0.0 is not a finite number > 0", id="learning_rate, 0.0"),
    pytest.param("training.learning_rate", "-0.1", "-0.1 is not a finite number > 0", id="learning_rate, negative"),
    pytest.param("training.learning_rate", "nan", "nan is not a finite number > 0", id="learning_rate, NaN"),
    pytest.param("training.learning_rate", "inf", "inf is not a finite number > 0", id="learning_rate, infinite"),
    pytest.param("training.learning_rate", "-inf", "-inf is not a finite number > 0", id="learning_rate, -inf"),
    pytest.param("training.seed", "-1", "-1 is not a whole number from 0 to 2147483647", id="seed, negative"),
    pytest.param("training.seed", "2147483648", "2147483648 is not a whole number from 0 to 2147483647", id="seed, huge"),
    pytest.param("training.seed", "1.5", "1.5 is not a whole number", id="seed, float"),
    pytest.param(
        "training.scheduler_mode",
        '"manul"',
        "'manul' is not one of optimizer, manual; did you mean manual?",
        id="scheduler_mode, typing error",
    ),
    pytest.param("training.scheduler_mode", '""', "'' is not one of optimizer, manual", id="scheduler_mode, empty"),
    pytest.param(
        "model.stages", '"fuse"', "'fuse' is not one of auto, stock, fused; did you mean fused?", id="stages, typing error"
    ),
    pytest.param("model.stages", '""', "'' is not one of auto, stock, fused", id="stages, empty"),
    pytest.param(
        "data.loader", '"gloun"', "'gloun' is not one of array, gluon; did you mean gluon?", id="loader, typing error"
    ),
    pytest.param("data.num_workers", "-1", "-1 is not a whole number from 0 to 64", id="num_workers, negative"),
    pytest.param("data.num_workers", "65", "65 is not a whole number from 0 to 64", id="num_workers, many"),
    pytest.param(
        "data.num_workers",
        "2",
        'only the loader "gluon" has workers; set data.loader or leave this at 0',
        id="num_workers, without their loader",
    ),
    pytest.param("data.train_images", "0", "0 is not a whole number from 1 to 60000", id="train_images, none"),
    pytest.param("data.train_images", "60001", "60001 is not a whole number from 1 to 60000", id="train_images, many"),
    pytest.param("data.test_images", "10001", "10001 is not a whole number from 1 to 10000", id="test_images, many"),
    pytest.param("data.test_images", '"all"', "'all' is not a whole number", id="test_images, text"),
    pytest.param(
        "runtime.device", '"tpu"', "'tpu' is not a device; it is auto, cpu, gpu, gpu:1 or gpu:0,1", id="device, unknown"
    ),
    pytest.param(
        "runtime.device", '"gpu:"', "'gpu:' is not a device; it is auto, cpu, gpu, gpu:1 or gpu:0,1", id="device, no index"
    ),
    pytest.param(
        "runtime.device", '"gpu:-1"', "'gpu:-1' is not a device; it is auto, cpu, gpu, gpu:1 or gpu:0,1", id="device, -1"
    ),
    pytest.param("runtime.device", '"gpu:1,1"', "'gpu:1,1' names a device twice", id="device, twice"),
    pytest.param("runtime.threads", "0", "0 is neither auto nor a whole number from 1 to 1024", id="threads, none"),
    pytest.param("runtime.threads", "1025", "1025 is neither auto nor a whole number from 1 to 1024", id="threads, many"),
    pytest.param("runtime.threads", '"all"', "'all' is neither auto nor a whole number from 1 to 1024", id="threads, text"),
    pytest.param("runtime.threads", "2.0", "2.0 is neither auto nor a whole number from 1 to 1024", id="threads, float"),
    pytest.param("runtime.patience_seconds", "0", "0 is not a finite number > 0", id="patience, none"),
    pytest.param("runtime.patience_seconds", '"long"', "'long' is not a number", id="patience, text"),
    pytest.param("runtime.threads", "true", "True is neither auto nor a whole number from 1 to 1024", id="threads, bool"),
    pytest.param("schedule.name", '"Cosin"', "there is no schedule 'Cosin'; did you mean Cosine?", id="schedule, typing error"),
    pytest.param(
        "schedule.nmae", "1", "Constant has no such setting and takes none", id="schedule, a key that it does not have"
    ),
    pytest.param(
        "schedule.base_lr",
        "1",
        "a schedule starts from the run's learning rate; set training.learning_rate",
        id="schedule, base_lr",
    ),
    pytest.param("optimizer.name", '"sdg"', "there is no optimizer 'sdg'; did you mean sgd?", id="optimizer, typing error"),
    pytest.param(
        "optimizer.momentm",
        "0.9",
        "sgd has no such argument; did you mean optimizer.momentum?",
        id="optimizer, argument with a typing error",
    ),
    pytest.param("optimizer.momentum", "1", "1 is not a number ≥ 0 and < 1", id="optimizer, momentum of one"),
    pytest.param(
        "optimizer.momentum",
        "nan",
        "nan is not a finite number, text, true, false or a list of these",
        id="optimizer, NaN",
    ),
    pytest.param(
        "optimizer.wd",
        "{a = 1}",
        "{'a': 1} is not a finite number, text, true, false or a list of these",
        id="optimizer, table",
    ),
]


@pytest.mark.parametrize(("key", "value", "sentence"), WRONG_VALUES)
def test_one_mistake_in_the_file_is_one_sentence(key: str, value: str, sentence: str, write: WriteConfig) -> None:
    assert problems_of(write(with_key(key, value))) == (f"mine.toml: {key}: {sentence}",)


@pytest.mark.parametrize(("key", "value", "sentence"), WRONG_VALUES)
def test_one_mistake_in_an_assignment_is_one_sentence(key: str, value: str, sentence: str, write: WriteConfig) -> None:
    assert problems_of(write(toml()), setting(f"{key}={value}")) == (f"--set {key}: {sentence}",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("training.seed", "0x" + "f" * 5000, id="a seed of 6,000 digits"),
        pytest.param("runtime.threads", "0x" + "f" * 5000, id="threads of 6,000 digits"),
        pytest.param("optimizer.name", '["sgd"]', id="a list of optimizers"),
        pytest.param("optimizer.wd", "1" + "0" * 400, id="a decay beyond any float"),
        pytest.param("optimizer.wd", "1e39", id="a decay beyond MXNet's floats"),
        pytest.param("schedule.name", '["Constant"]', id="a list of schedules"),
        pytest.param("schedule.name", "nan", id="a schedule that is no number"),
    ],
)
def test_a_strange_value_is_a_sentence_too(key: str, value: str, write: WriteConfig) -> None:
    (problem,) = problems_of(write(with_key(key, value)))
    assert problem.startswith(f"mine.toml: {key}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("schedule.step_epochs", "[1e308]", id="more iterations than a float can count"),
        pytest.param("schedule.step_epochs", "[nan]", id="NaN epochs"),
        pytest.param("schedule.step_epochs", "[-1]", id="negative epochs"),
        pytest.param("schedule.step_epochs", "[[1]]", id="a list in a list"),
        pytest.param("schedule.step_epochs", "[7, 4]", id="epochs that fall"),
        pytest.param("schedule.step_epochs", "[]", id="no epochs"),
        pytest.param("schedule.step_epochs", "4", id="a number for a list"),
        pytest.param("schedule.factor", "fast", id="text for a number"),
        pytest.param("schedule.factor", "1.5", id="a factor above one"),
        pytest.param("schedule.warmup_steps", "-1", id="a negative warm-up"),
        pytest.param("schedule.warmup_steps", "1.5", id="half an iteration"),
        pytest.param("schedule.warmup_begin_lr", "0.5", id="a warm-up from above"),
        pytest.param("schedule.warmup_mode", "slow", id="a way that is none"),
        pytest.param("training.learning_rate", "1e39", id="a rate beyond MXNet's floats"),
    ],
)
def test_a_value_that_the_schedule_refuses_is_named_as_it_was_spelled(key: str, value: str) -> None:
    (problem,) = problems_of("tutorial", setting(f"{key}={value}"))
    assert problem.startswith(f"--set {key}: ")


def test_text_that_is_no_utf_8_is_refused(write: WriteConfig) -> None:
    file = write(f'[schedule]\nname = "{__name__}:any_rate"\n')
    (problem,) = problems_of(file, setting("schedule.anything=" + os.fsdecode(b"gr\xfc\xdfe")))
    assert problem.startswith("--set schedule.anything: ")


def test_durations_of_a_run_without_end_are_a_sentence() -> None:
    problems = problems_of("tutorial", setting("training.epochs=1" + "0" * 400), setting("schedule.warmup_fraction=0.5"))
    assert any(problem.startswith(("--set training.epochs: ", "--set schedule.warmup_fraction: ")) for problem in problems)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param("foo = 1\n" + toml(), ["foo: there is no such key; there are training,"], id="a key outside"),
        pytest.param(toml(trainin={}), ["trainin: there is no such key; did you mean training?"], id="an unknown section"),
        pytest.param(
            "runtime = 3\n" + toml().replace("[runtime]\n", ""),
            ["runtime: this is a table; write [runtime] and its keys below"],
            id="a value for a section",
        ),
        pytest.param(
            with_key("training.epoch", "3"),
            ["training.epoch: there is no such key; did you mean training.epochs?"],
            id="an unknown key",
        ),
        pytest.param(
            with_key("data.epochs", "3"),
            ["data.epochs: there is no such key; did you mean training.epochs?"],
            id="a key in the wrong section",
        ),
        pytest.param(
            with_key("runtime.seed", "3"),
            ["runtime.seed: there is no such key; did you mean training.seed?"],
            id="a short key in the wrong section",
        ),
        pytest.param(
            with_key("runtime.qqqq", "3"), ["runtime.qqqq: there is no such key; there are training.epochs,"], id="no idea"
        ),
        pytest.param(
            "",
            ["schedule.name: missing; it is one of those that `mnist-trainer schedules list` shows, or module:attribute"],
            id="an empty file",
        ),
        pytest.param(
            '[schedule]\nname = "Constant"\n',
            ["training.learning_rate: missing; Constant starts from it"],
            id="no learning rate",
        ),
        pytest.param(
            toml(schedule={"name": '"CosineAnnealing"', "min_lr": "0", "max_lr": "1", "cycle_length": "9"}),
            ["training.learning_rate: no schedule here starts from it; each has rates of its own, so leave it out"],
            id="a learning rate that nothing reads",
        ),
        pytest.param(
            toml(schedule={"name": '"Factor"'}), ["schedule.step: missing; Factor needs it"], id="an argument is missing"
        ),
        pytest.param(
            toml(schedule={"name": '"Factor"', "step": "3", "step_epochs": "1"}),
            ["schedule.step_epochs: step_epochs and step say the same thing in two units; keep one"],
            id="twice in two units",
        ),
    ],
)
def test_what_a_file_cannot_say(text: str, problems: list[str], write: WriteConfig) -> None:
    found = problems_of(write(text))
    assert len(found) == len(problems)
    for problem, sentence in zip(found, problems, strict=True):
        assert problem.startswith(f"mine.toml: {sentence}")


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        pytest.param(
            "trainng.epochs=3", "--set trainng.epochs: there is no such key; did you mean training.epochs?", id="section"
        ),
        pytest.param("training.epoch=3", "--set training.epoch: there is no such key; did you mean training.epochs?", id="key"),
        pytest.param(
            "training..epochs=3", "--set training..epochs: there is no such key; did you mean training.epochs?", id="dots"
        ),
        pytest.param(
            "schedul.name=Cosine", "--set schedul.name: there is no such key; did you mean schedule.name?", id="schedule.name"
        ),
        pytest.param(
            "optimzer.name=adam", "--set optimzer.name: there is no such key; did you mean optimizer.name?", id="optimizer.name"
        ),
        pytest.param(
            "schedule.facto=1", "--set schedule.facto: MultiFactor has no such setting; did you mean factor?", id="own"
        ),
        pytest.param(
            "optimizer.learning_rate=1",
            "--set optimizer.learning_rate: the rate is training.learning_rate and the table [schedule]",
            id="the optimizer's rate",
        ),
        pytest.param(
            "optimizer.name=adadelta",
            "--set optimizer.name: adadelta has no learning rate, so no schedule can act on it; use one of adagrad, ",
            id="an optimizer without a rate",
        ),
    ],
)
def test_an_assignment_to_nothing_gets_the_nearest_key(assignment: str, problem: str) -> None:
    (found,) = problems_of("tutorial", setting(assignment))
    assert found.startswith(problem)


def test_all_that_is_wrong_comes_at_once_and_under_its_own_name(write: WriteConfig) -> None:
    file = write(
        toml(
            training={"epochs": "0", "batch_size": "1.5", "seed": "-1"},
            schedule={"name": '"Factor"', "sted": "3"},
            optimizer={"momentum": "2"},
            runtime={"device": '"tpu"'},
            dtaa={},
        )
    )
    problems = problems_of(
        file,
        Override("--batch-size", "training.batch_size", "0"),
        Override("--threads", "runtime.threads", "many"),
        setting("data.loader=arry"),
        setting("nothing.at_all=1"),
    )
    expected = {
        "mine.toml: dtaa: there is no such key; did you mean data?",
        "mine.toml: training.epochs: 0 is not a whole number from 1 to 1000000",
        "mine.toml: training.seed: -1 is not a whole number from 0 to 2147483647",
        "mine.toml: optimizer.momentum: 2 is not a number ≥ 0 and < 1",
        "mine.toml: runtime.device: 'tpu' is not a device; it is auto, cpu, gpu, gpu:1 or gpu:0,1",
        "--batch-size: 0 is not a whole number from 1 to 60000",
        "--threads: 'many' is neither auto nor a whole number from 1 to 1024",
        "--set data.loader: 'arry' is not one of array, gluon; did you mean array?",
        "mine.toml: schedule.sted: Factor has no such setting; did you mean step?",
    }
    assert expected <= set(problems)
    (other,) = set(problems) - expected
    assert other.startswith("--set nothing.at_all: there is no such key; there are training.epochs,")
    assert len(problems) == len(set(problems))


def test_two_bad_arguments_of_a_schedule_come_together() -> None:
    problems = problems_of("tutorial", setting("schedule.factor=fast"), setting("schedule.warmup_mode=slow"))
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        "--set schedule.factor",
        "--set schedule.warmup_mode",
    ]


def test_two_overrides_of_one_key_are_a_contradiction() -> None:
    flag = Override("--epochs", "training.epochs", "3")
    assert problems_of("tutorial", flag, setting("training.epochs=3")) == (
        "--set training.epochs: --epochs sets the same key; keep one of them",
    )
    assert problems_of("tutorial", setting("schedule.factor=0.5"), setting("schedule.factor=0.25")) == (
        "--set schedule.factor: --set schedule.factor sets the same key; keep one of them",
    )


def test_a_good_override_hides_what_is_wrong_in_the_file(write: WriteConfig) -> None:
    file = write(with_key("training.epochs", "0"))
    assert load_config(file, [Override("--epochs", "training.epochs", "3")]).training.epochs == 3


# --- what it writes

AWKWARD = ["", '"', "\\", "\n", "\r\n", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028", "'''", '"""', "#", "é", "🙂", "=", "[x]"]
texts = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
anything = st.recursive(texts | st.booleans() | numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
rates = st.floats(1e-12, 1e6)
fractions = st.just(0) | st.floats(1e-9, 0.99)

schedules: st.SearchStrategy[tuple[dict[str, Any], float | None]] = st.one_of(
    st.tuples(st.fixed_dictionaries({"name": st.sampled_from(["Constant", "constant"])}), rates),
    st.tuples(
        st.fixed_dictionaries(
            {"name": st.just("Factor"), "step_epochs": st.floats(1, 9), "factor": fractions},
            optional={"warmup_fraction": st.sampled_from([0, 0.1, 1]), "warmup_mode": st.sampled_from(["linear", "constant"])},
        ),
        rates,
    ),
    st.tuples(
        st.fixed_dictionaries(
            {
                "name": st.just("MultiFactor"),
                "step": st.lists(st.integers(1, 10**12), min_size=1, max_size=4, unique=True).map(sorted),
            }
        ),
        rates,
    ),
    st.tuples(st.fixed_dictionaries({"name": st.just("Cosine"), "max_update": st.integers(1, 10**9)}), rates),
    st.tuples(
        st.fixed_dictionaries(
            {"name": st.just("CosineAnnealing"), "min_lr": st.just(0), "max_lr": rates, "cycle_length_fraction": st.just(1)}
        ),
        st.none(),
    ),
    st.tuples(st.fixed_dictionaries({"name": st.just(f"{__name__}:any_rate"), "anything": anything}), st.none()),
)

optimizers: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"name": st.sampled_from(sorted(OPTIMIZERS))}, optional={"wd": fractions}),
    st.fixed_dictionaries({"name": st.just("adam"), "beta1": fractions, "lazy_update": st.booleans()}),
)


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    schedule, learning_rate = draw(schedules)
    train_images = draw(st.integers(1, 60_000))
    optimizer = draw(optimizers)
    loader, num_workers = draw(st.sampled_from([("array", 0), ("gluon", 0), ("gluon", 64)]))
    return RunConfig(
        TrainingConfig(
            epochs=draw(st.integers(1, 1000)),
            batch_size=draw(st.integers(1, 60_000)),
            learning_rate=learning_rate,
            scheduler_mode=draw(st.sampled_from(["optimizer", "manual"])),
            seed=draw(st.integers(0, 2**31 - 1)),
        ),
        schedule,
        optimizer,
        wd={} if "wd" in optimizer else draw(st.sampled_from([{}, {"name": "Constant", "base_lr": 0.001}])),
        model=ModelConfig(draw(st.sampled_from(["auto", "stock", "fused"]))),
        data=DataConfig(
            loader, num_workers, train_images, draw(st.integers(0, train_images - 1)), draw(st.integers(1, 10_000))
        ),
        runtime=RuntimeConfig(
            draw(st.sampled_from(["auto", "cpu", "cpu:1", "gpu", "gpu:3", "gpu:0,1"])),
            # A user's schedule may import MXNet, which this process has loaded with its own number of threads.
            "auto" if ":" in schedule["name"] else draw(st.just("auto") | st.integers(1, 1024)),
        ),
    )


@pytest.fixture(scope="module")
def written_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples."""
    return tmp_path_factory.mktemp("written") / "config.toml"


@settings(max_examples=300, deadline=None, database=None)
@given(config=configs())
def test_what_was_written_reads_back_as_the_same_configuration(config: RunConfig, written_file: Path) -> None:
    written_file.write_text(config.to_toml(), encoding="utf-8")
    for read in (load_config(written_file), load_recorded_config(written_file)):
        assert read == config
        assert repr(read) == repr(config)  # 1 and 1.0 and True are equal, and not the same


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_awkward_text_reads_back(text: str, write: WriteConfig) -> None:
    schedule = {"name": f"{__name__}:any_rate", "anything": ["before", f"{text}{text} {text}"]}
    config = dataclasses.replace(load_config(), schedule=schedule)
    assert load_recorded_config(write(config.to_toml())) == config


def test_every_key_of_a_run_is_written_down() -> None:
    written = load_config().to_toml()
    tables = {section: [name for name in FIELDS if name.startswith(f"{section}.")] for section in SECTIONS}
    for section, keys in tables.items():
        block = written.split(f"[{section}]\n")[1].split("\n\n")[0]
        assert [f"{section}.{line.partition(' =')[0]}" for line in block.splitlines()] == keys


def test_a_setting_with_a_name_beyond_ascii_reads_back(write: WriteConfig) -> None:
    schedule = {"name": f"{__name__}:any_rate", "größe": 1.5, "a.b": 2, "": 3, "two words": 4, 'a"b': 5}
    config = dataclasses.replace(load_config(), schedule=schedule)
    assert load_recorded_config(write(config.to_toml())) == config


# --- a stranger's run folder

EVIL = """
from pathlib import Path

Path("was_here").touch()

def run(iteration):
    return 0.1
"""


def test_a_recorded_configuration_imports_nothing(write: WriteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    file = write('[schedule]\nname = "evil_of_test_config:run"\n')
    Path("evil_of_test_config.py").write_text(EVIL, encoding="utf-8")

    assert load_recorded_config(file).schedule["name"] == "evil_of_test_config:run"
    assert not Path("was_here").exists()

    assert isinstance(load_config(file).build_schedule(), UserSchedule)  # what the recorded one must not do
    assert Path("was_here").exists()


def test_a_recorded_configuration_is_checked_all_the_same(write: WriteConfig) -> None:
    file = write(toml(training={"epochs": "0"}, optimizer={"name": '"sdg"'}, schedule={"name": '"nothing:at_all"'}))
    with pytest.raises(RequestError) as caught:
        load_recorded_config(file, [Override("--device", "runtime.device", "tpu")])
    assert [problem.rpartition(": ")[0] for problem in caught.value.problems] == [
        "mine.toml: training.epochs",
        "--device",
        "mine.toml: optimizer.name",
    ]


# --- tables within tables

NESTED = """
[training]
learning_rate = 0.1
[schedule]
name = "Sequential"
boundaries_epochs = [5]
curves = [{name = "Constant"}, {name = "Warmup", warmup_epochs = 1, curve = {name = "Linear", max_update_epochs = 4}}]
"""


@pytest.mark.parametrize(
    ("assignments", "schedule"),
    [
        pytest.param(
            ["schedule.curves[1].curve.final_lr=0.05"],
            "Sequential(curves=(Constant(base_lr=0.1), Warmup(curve=Linear(base_lr=0.1, max_update=3752, final_lr=0.05), "
            "warmup_steps=938)), boundaries=(4690,))",
            id="three down",
        ),
        pytest.param(
            ["schedule.curves[1]={name='Constant', base_lr=0.2}"],
            "Sequential(curves=(Constant(base_lr=0.1), Constant(base_lr=0.2)), boundaries=(4690,))",
            id="one of a list",
        ),
        pytest.param(['schedule={name = "Constant"}'], "Constant(base_lr=0.1)", id="the whole"),
        pytest.param(["schedule.name=constant", "schedule.curves=[]"], None, id="leftovers"),
    ],
)
def test_assignments_reach_into_tables(assignments: list[str], schedule: str | None, write: WriteConfig) -> None:
    overrides = [setting(each) for each in assignments]
    if schedule is None:
        assert all("has no such setting" in problem for problem in problems_of(write(NESTED), *overrides))
    else:
        assert repr(load_config(write(NESTED), overrides).build_schedule()) == schedule


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        pytest.param(["schedule.curvs[0].x=1"], "--set schedule.curvs[0].x: there is no 'curvs' to set it in", id="no list"),
        pytest.param(
            ["schedule.curves[2].x=1"], "--set schedule.curves[2].x: there is no 2 to set it in", id="beyond the list"
        ),
        pytest.param(["schedule.curves[2]=1"], "--set schedule.curves[2]: there is no 2 to set", id="a member beyond the list"),
        pytest.param(
            ["schedule.boundaries_epochs.x=1"], "--set schedule.boundaries_epochs.x: there is no 'x' to set", id="list"
        ),
        pytest.param(
            ["momentum=0.9"],
            '--set momentum: 0.9 is not a table such as {name = "Constant"}; for a fixed one set optimizer.momentum',
            id="a number",
        ),
        pytest.param(
            ['schedule={name="Constant"}', "schedule.factor=0.5"],
            "--set schedule.factor: --set schedule sets the same key; keep one of them",
            id="a table and its key",
        ),
        pytest.param(
            ["schedule.curves[0].base_lr=0.5", 'schedule.curves=[{name="Constant"}]'],
            "--set schedule.curves: --set schedule.curves[0].base_lr sets the same key; keep one of them",
            id="a key and its list",
        ),
    ],
)
def test_assignments_that_lead_nowhere_are_one_sentence(assignments: list[str], problem: str, write: WriteConfig) -> None:
    assert problems_of(write(NESTED), *(setting(each) for each in assignments)) == (problem,)


@pytest.mark.parametrize("depth", [31, 1200])
def test_tables_that_nest_beyond_measure_are_one_sentence(depth: int, write: WriteConfig) -> None:
    header = ".".join(["schedule", *["curve"] * depth])
    problem = problems_of(write(f'[{header}]\nname = "Constant"\n'))[0]
    assert problem == "mine.toml: schedule: tables and lists nest more than 30 deep"


@pytest.mark.parametrize("section", ["momentum", "wd"])
def test_an_empty_table_is_no_schedule(section: str, write: WriteConfig) -> None:
    text = f'[training]\nlearning_rate = 0.1\n[schedule]\nname = "Constant"\n[{section}]\n'
    assert problems_of(write(text)) == (
        f"mine.toml: {section}.name: missing; without a schedule of its own leave the table out",
    )
