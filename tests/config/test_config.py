"""Configurations: accepted and refused values, and reading back what was written."""

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_values import WRONG_VALUES, document, read, typed

from mnist_trainer import bundled
from mnist_trainer.config.loading import config_name, find_config, load_config, load_recorded_config
from mnist_trainer.config.optimizers import OPTIMIZERS
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import DataConfig, ModelConfig, RunConfig, RuntimeConfig, TrainingConfig, describe
from mnist_trainer.console import shortened, shown
from mnist_trainer.errors import RequestError
from mnist_trainer.schedules import RunLength, UserSchedule

SECTIONS = {section: part for section, part in vars(RunConfig()).items() if dataclasses.is_dataclass(part)}
FIELDS = [f"{section}.{field.name}" for section, part in SECTIONS.items() for field in dataclasses.fields(part)]

WriteConfig = Callable[[str], Path]


def any_rate(iteration: int, anything: Any = None) -> float:
    """Return a constant rate. Accepts any value that a configuration can hold."""
    return 0.1


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteConfig:
    """Return a function that writes a TOML file into the empty current folder and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_config(text: str) -> Path:
        Path("mine.toml").write_text(text, encoding="utf-8")
        return Path("mine.toml")

    return write_config


def problems_of(path: str | Path, *overrides: Override) -> tuple[str, ...]:
    with pytest.raises(RequestError) as caught:
        load_config(path, overrides)
    return caught.value.problems


def setting(assignment: str) -> Override:
    return Override.from_assignment(assignment)


# --- contents and lengths


def test_the_bundled_tutorial_is_the_tutorials_experiment() -> None:
    config = load_config()
    assert config == RunConfig(
        TrainingConfig(epochs=10, batch_size=64, learning_rate=0.03, scheduler_mode="optimizer", seed=1),
        {"name": "MultiFactor", "step_epochs": [4, 7, 9], "factor": 0.1},
        {"name": "sgd"},
        momentum={},
        wd={},
        model=ModelConfig(backend="auto"),
        data=DataConfig(loader="array", train_images=60_000, validation_images=0, test_images=10_000),
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
def test_every_field_has_a_help_text(key: str) -> None:
    sentence = describe(key)
    assert len(sentence.split()) >= 3
    assert not sentence.endswith(".")


@pytest.mark.parametrize("key", ["training.epoch", "nothing.epochs", "schedule.name", "training"])
def test_a_key_without_a_field_has_no_help_text(key: str) -> None:
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


# --- finding the file


@pytest.mark.parametrize("name", ["tutorial", "tutorial.toml", "configs/tutorial.toml"])
def test_a_bundled_configuration_is_found_by_its_name_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == bundled.configs_folder() / "tutorial.toml"
    assert load_config(name) == load_config()
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_user_comes_before_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("configs/tutorial.toml")
    own.parent.mkdir()
    own.write_text(document({"training.epochs": "3"}), encoding="utf-8")
    assert load_config("configs/tutorial.toml").training.epochs == 3
    assert load_config("tutorial").training.epochs == 10


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("tutoral", id="a name"),
        pytest.param("configs/tutorail.toml", id="a path"),
        pytest.param("elsewhere/tutorial.toml", id="another folder"),
        pytest.param("tutorial.json", id="another ending"),
    ],
)
def test_the_message_about_a_missing_file_suggests_the_nearest_bundled_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = problems_of(name)
    assert_names(problem, f"{name}: ", "did you mean tutorial?")
    snapshot(problem)


@pytest.mark.parametrize("name", ["qqqq.toml", "a" * 300])
def test_the_message_about_a_missing_file_lists_all_bundled_ones_if_none_is_near(name: str) -> None:
    (problem,) = problems_of(name)
    assert_names(problem, f"{name}: ", ", ".join(path.stem for path in sorted(bundled.configs_folder().glob("*.toml"))))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"[training\n", ("TOML", "Expected ']'"), id="a bracket is missing"),
        pytest.param(b"[training]\nepochs 3\n", ("TOML", "Expected '='"), id="an equals sign is missing"),
        pytest.param(b"[data]\n[data]\n", ("TOML", "Cannot declare"), id="a table twice"),
        pytest.param(b"a = " + b"[" * 100_000, ("TOML",), id="nested too deep"),
        pytest.param(b"a = 1" + b"0" * 5000, ("TOML",), id="a number with too many digits"),
        pytest.param(b"[training]\n# \xe9t\xe9\n", ("UTF-8", "line 2", "0xE9"), id="Latin-1"),
        pytest.param(b"\x89PNG\r\n\x1a\n", ("UTF-8",), id="a picture"),
        *(
            pytest.param(
                f"{mark}[training]\nepochs = 3\n".encode(encoding), (f"in {named};", f"-f {named} -t UTF-8"), id=encoding + mark
            )
            for encoding, mark, named in (
                ("utf-16", "", "UTF-16"),  # Python writes the mark itself
                ("utf-16-be", "\ufeff", "UTF-16"),
                ("utf-32", "", "UTF-32"),
                ("utf-32-be", "\ufeff", "UTF-32"),
                ("utf-16-le", "", "UTF-16LE"),
                ("utf-16-be", "", "UTF-16BE"),
            )
        ),
    ],
)
def test_a_broken_file_is_one_problem(content: bytes, words: tuple[str, ...], write: WriteConfig) -> None:
    path = write("")
    path.write_bytes(content)
    (problem,) = problems_of(path)
    assert_names(problem, "mine.toml: ", *words)


def test_a_byte_order_mark_is_skipped(write: WriteConfig) -> None:
    path = write("")
    path.write_text(find_config("quick").read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_config(path) == load_config("quick")


@pytest.mark.parametrize("path", [".", "below", ""])
def test_a_folder_is_not_a_configuration(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("below").mkdir()
    (problem,) = problems_of(path)
    assert_names(problem, f"{path or '.'}: ", "folder", "TOML")


def test_the_message_about_a_run_folder_names_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    (problem,) = problems_of(tmp_path)
    assert_names(problem, f"{tmp_path}: ", "folder", f"write {tmp_path / 'config.toml'}")


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
        pytest.param("model.backend", "stock", "stock", id="backend"),
        pytest.param("data.loader", "gluon", "gluon", id="loader"),
        pytest.param("data.train_images", "60000", 60000, id="all training images"),
        pytest.param("data.test_images", "1", 1, id="one test image"),
        pytest.param("runtime.device", "gpu:0,1", "gpu:0,1", id="two GPUs"),
        pytest.param("runtime.device", "cpu", "cpu", id="CPU"),
        pytest.param("runtime.threads", "auto", "auto", id="automatic threads"),
        pytest.param("runtime.threads", "1024", 1024, id="most threads"),
    ],
)
def test_an_override_wins_over_the_file(key: str, text: str, value: object, write: WriteConfig) -> None:
    section, _, name = key.partition(".")
    values = {"epochs": "7", "batch_size": "32", "scheduler_mode": '"optimizer"', "seed": "5"}
    file = write(document({f"training.{name}": value for name, value in values.items()}))
    config = load_config(file, [Override(f"--{name}", key, text)])
    unchanged = load_config(file)
    assert getattr(getattr(config, section), name) == value
    assert config == dataclasses.replace(
        unchanged, **{section: dataclasses.replace(getattr(unchanged, section), **{name: value})}
    )


@pytest.mark.parametrize(
    ("assignment", "schedule"),
    [
        pytest.param("schedule.step_epochs=[1, 2]", {"step_epochs": [1, 2]}, id="list"),
        pytest.param("schedule.name=multi_factor", {"name": "MultiFactor"}, id="text without quotes"),
        pytest.param("schedule.name='MultiFactor'", {"name": "MultiFactor"}, id="text in quotes"),
        pytest.param(" schedule.factor = 0.25 ", {"factor": 0.25}, id="spaces"),
        pytest.param("schedule.warmup_mode=constant", {"warmup_mode": "constant"}, id="new key"),
    ],
)
def test_an_assignment_sets_any_key(assignment: str, schedule: dict[str, object]) -> None:
    config = load_config(overrides=[setting(assignment)])
    assert config.schedule == {**load_config().schedule, **schedule}


def test_a_text_keeps_its_equals_signs_and_newlines(write: WriteConfig) -> None:
    file = write(f'schedule.name = "{__name__}:any_rate"\n')
    for text in ("a=b", "1\nname = 2", "# none", "{", "yes"):
        assert load_config(file, [setting(f"schedule.anything={text}")]).schedule["anything"] == text


@pytest.mark.parametrize("assignment", ["", "=", "=3", "training.epochs", "epochs=3", ".epochs=3", "training.=3", ".=3"])
def test_an_assignment_needs_a_section_a_key_and_a_value(assignment: str) -> None:
    with pytest.raises(RequestError) as caught:
        setting(assignment)
    (problem,) = caught.value.problems
    assert_names(problem, f"--set {assignment}: ", "section.key=value", "training.epochs=3")


# --- overrides in Python

PYTHON_VALUES = [
    ("training.epochs", 3, "3"),
    ("training.learning_rate", 1e-3, "1e-3"),
    ("training.scheduler_mode", "manual", "manual"),
    ("data.train_images", np.int64(640), "640"),
    ("schedule.step_epochs", (1, 2), "[1, 2]"),
    ("schedule.step_epochs", np.array([1, 2]), "[1, 2]"),
    ("schedule.factor", np.float32(0.5), "0.5"),
    ("schedule", {"name": "Constant"}, '{name = "Constant"}'),
    ("optimizer.momentum", 0.9, "0.9"),
    ("momentum", {"name": "Constant", "base_lr": np.float64(0.9)}, '{name = "Constant", base_lr = 0.9}'),
]


@pytest.mark.parametrize(("key", "value", "text"), PYTHON_VALUES, ids=str)
def test_a_value_in_python_sets_what_its_text_sets(key: str, value: object, text: str) -> None:
    config = load_config("tutorial", {key: value})
    assert config == load_config("tutorial", [setting(f"{key}={text}")]) != load_config("tutorial")
    assert config.to_toml() == load_config("tutorial", [setting(f"{key}={text}")]).to_toml()


def test_values_in_python_reach_into_nested_schedules_and_stay_unchanged(write: WriteConfig) -> None:
    values: dict[str, Any] = {"schedule.curves[1]": {"name": "Constant", "base_lr": 0.2}, "optimizer": {}}
    before = copy.deepcopy(values)
    schedule = load_config(write(NESTED), values).build_schedule()
    assert [curve.base_lr for _, curve in schedule.inner()] == [0.1, 0.2]
    assert values == before


def test_all_wrong_values_in_python_are_reported_by_their_keys(snapshot: Snapshot) -> None:
    cyclic: dict[str, object] = {}
    cyclic["name"] = cyclic
    with pytest.raises(RequestError) as caught:
        load_config(
            "tutorial",
            {
                "data.trian_images": 640,
                "epochs": 3,
                "training": {"epochs": 3},
                "data.train_images": "640",
                "training.seed": None,
                "training.learning_rate": True,
                "optimizer.name": "sdg",
                "optimizer.momentum": [float("nan")],
                "schedule.curve": {1: {2: None}},
                "momentum": 0.9,
                "wd": cyclic,
            },
        )
    text = "\n".join(caught.value.problems)
    for label in ("training: ", "data.train_images = '640': ", "training.learning_rate = True: ", "momentum = 0.9: "):
        assert f"\n{label}" in text
    assert "data.trian_images: there is no such key; did you mean data.train_images?" in text
    assert "--set" not in text
    snapshot(text)


# --- refused values


def test_every_field_has_wrong_values() -> None:
    assert {key for key in WRONG_VALUES if key.partition(".")[0] in SECTIONS} == set(FIELDS)


def wording(problem: str, label: str, equals: str, value: str) -> tuple[str, bool]:
    """Return the sentence of a problem, with VALUE in place of the value, and True if the problem names the value."""
    assert_names(problem, label)
    behind = problem.removeprefix(label)
    names = (shown(read(value)), shortened(typed(value)), repr(typed(value)))
    for name in names:
        if behind.startswith(f"{equals}{name}: "):
            return behind.removeprefix(f"{equals}{name}: "), True
    named = next((name for name in names if name in behind), None)
    return behind.removeprefix(": ").replace(named or "VALUE", "VALUE", 1), named is not None


@pytest.mark.parametrize("key", WRONG_VALUES)
def test_a_wrong_value_is_one_problem_in_a_file_and_on_the_command_line(
    key: str, write: WriteConfig, snapshot: Snapshot
) -> None:
    wordings = []
    for value in WRONG_VALUES[key]:
        (in_file,) = problems_of(write(document({key: value})))
        (override,) = problems_of(write(document()), setting(f"{key}={typed(value)}"))
        wordings += [wording(in_file, f"mine.toml: {key}", " = ", value), wording(override, f"--set {key}", "=", value)]
    # These name a part of the value, and epochs as iterations.
    if key not in ("schedule.name", "schedule.step_epochs", "data.classes", "data.image_size"):
        assert all(names_value for _, names_value in wordings)
    snapshot("\n".join(dict.fromkeys(sentence for sentence, _ in wordings)))


def test_text_that_is_not_utf_8_is_refused(write: WriteConfig) -> None:
    file = write(f'schedule.name = "{__name__}:any_rate"\n')
    (problem,) = problems_of(file, setting("schedule.anything=" + os.fsdecode(b"gr\xfc\xdfe")))
    assert_names(problem, "--set schedule.anything=gr\\udcfc\\udcdfe: ")


def test_durations_of_an_endless_run_are_a_problem_and_not_a_traceback() -> None:
    problems = problems_of("tutorial", setting("training.epochs=1" + "0" * 400), setting("schedule.warmup_fraction=0.5"))
    assert any(problem.startswith(("--set training.epochs=1000", "--set schedule.warmup_fraction: ")) for problem in problems)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("foo = 1\n" + document(), ("foo: ", *vars(RunConfig())), id="a key outside"),
        pytest.param("trainin = {}\n" + document(), ("trainin: ", "did you mean training?"), id="an unknown section"),
        pytest.param("runtime = 3\n" + document(), ("runtime: ", "[runtime]"), id="a value for a section"),
        pytest.param(
            document({"training.epoch": "3"}), ("training.epoch: ", "did you mean training.epochs?"), id="an unknown key"
        ),
        pytest.param(
            document({"data.epochs": "3"}), ("data.epochs: ", "did you mean training.epochs?"), id="a key in the wrong section"
        ),
        pytest.param(
            document({"runtime.seed": "3"}),
            ("runtime.seed: ", "did you mean training.seed?"),
            id="a short key in the wrong section",
        ),
        pytest.param(document({"runtime.qqqq": "3"}), ("runtime.qqqq: ", *FIELDS), id="no near name"),
        pytest.param(
            document({"data.train_images": "128", "data.validation_images": "128"}),
            ("data.validation_images = 128: ", "data.train_images = 128"),
            id="all images held out",
        ),
        pytest.param(
            document({"schedule.factr": "1"}),
            ("schedule.factr: ", "MultiFactor", "did you mean factor?"),
            id="a misspelled setting",
        ),
        pytest.param(
            document({"schedule.name": '"Constant"', "schedule.factor": "1"}),
            ("schedule.factor: ", "Constant"),
            id="a setting of a schedule without any",
        ),
        pytest.param(document({"schedule.base_lr": "1"}), ("schedule.base_lr: ", "training.learning_rate"), id="base_lr"),
        pytest.param(document({"schedule.step": "[3]"}), ("schedule.step: ", "step_epochs"), id="twice in two units"),
        pytest.param(
            document({"schedule.name": '"Factor"'}), ("schedule.step: ", "Factor", "missing"), id="an argument is missing"
        ),
        pytest.param(
            document({"optimizer.momentm": "0.9"}),
            ("optimizer.momentm: ", "sgd", "did you mean optimizer.momentum?"),
            id="a misspelled argument",
        ),
        pytest.param(
            document({"optimizer.beta1": "0.9"}), ("optimizer.beta1: ", "sgd", "momentum"), id="another optimizer's argument"
        ),
        pytest.param(
            document({"optimizer.learning_rate": "1"}),
            ("optimizer.learning_rate: ", "training.learning_rate", "[schedule]"),
            id="the optimizer's rate",
        ),
        pytest.param(
            "", ("schedule.name: ", "missing", "mnist-trainer schedules list", "module:attribute"), id="an empty file"
        ),
        pytest.param(
            'schedule.name = "Constant"\n',
            ("training.learning_rate: ", "missing", "Constant"),
            id="no learning rate",
        ),
        pytest.param(
            'training.learning_rate = 0.1\nschedule = {name = "CosineAnnealing", min_lr = 0, max_lr = 1, cycle_length = 9}\n',
            ("training.learning_rate = 0.1: ", "schedule.max_lr"),
            id="a learning rate that nothing reads",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_problem(text: str, words: tuple[str, ...], write: WriteConfig, snapshot: Snapshot) -> None:
    (problem,) = problems_of(write(text))
    label, *others = words
    assert_names(problem, f"mine.toml: {label}", *others)
    snapshot(problem)


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [
        pytest.param("trainng.epochs=3", "training.epochs", id="section"),
        pytest.param("training.epoch=3", "training.epochs", id="key"),
        pytest.param("training..epochs=3", "training.epochs", id="dots"),
        pytest.param("schedul.name=Cosine", "schedule.name", id="schedule.name"),
        pytest.param("optimzer.name=adam", "optimizer.name", id="optimizer.name"),
        pytest.param("optimizer.momentm=0.9", "optimizer.momentum", id="argument of the optimizer"),
        pytest.param("schedule.facto=1", "factor", id="setting of the schedule"),
        pytest.param("optimizer.nmae=adam", "optimizer.name", id="name of the optimizer"),
        pytest.param("training.lr=0.1", "training.learning_rate", id="short name of the rate"),
    ],
)
def test_the_message_about_an_unknown_key_suggests_the_nearest_one(assignment: str, nearest: str) -> None:
    (problem,) = problems_of("tutorial", setting(assignment))
    assert_names(problem, f"--set {assignment.partition('=')[0]}: ", f"did you mean {nearest}?")


def test_all_problems_are_reported_together_each_with_its_source(write: WriteConfig) -> None:
    values = {
        "training.epochs": "0",
        "training.batch_size": "1.5",
        "training.seed": "-1",
        "schedule.name": '"Factor"',
        "schedule.sted": "3",
        "optimizer.momentum": "2",
        "runtime.device": '"tpu"',
        "dtaa.loader": '"array"',
    }
    problems = problems_of(
        write(document(values)),
        Override("--batch-size", "training.batch_size", "0"),
        Override("--threads", "runtime.threads", "many"),
        setting("data.loader=arry"),
        setting("nothing.at_all=1"),
    )
    expected = [
        ("--batch-size 0: ", "from 1 to 60000"),
        ("--set data.loader=arry: ", "did you mean array?"),
        ("--set nothing.at_all: ", *FIELDS),
        ("--threads many: ", "auto", "from 1 to 1024"),
        ("mine.toml: dtaa: ", "did you mean data?"),
        ("mine.toml: optimizer.momentum = 2: ", "< 1"),
        ("mine.toml: runtime.device = 'tpu': ", "cpu", "gpu"),
        ("mine.toml: schedule.sted: ", "Factor", "did you mean step?"),
        ("mine.toml: training.epochs = 0: ", "from 1 to 1000000"),
        ("mine.toml: training.seed = -1: ", "from 0 to 2147483647"),
    ]
    for problem, words in zip(sorted(problems), expected, strict=True):
        assert_names(problem, *words)


def test_two_wrong_arguments_of_a_schedule_are_reported_together() -> None:
    problems = problems_of("tutorial", setting("schedule.factor=fast"), setting("schedule.warmup_mode=slow"))
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        "--set schedule.factor=fast",
        "--set schedule.warmup_mode=slow",
    ]


@pytest.mark.parametrize("text", ["[4,7", "4,7", "[4,x]", "4"])
@pytest.mark.parametrize(
    ("key", "form"), [("step_epochs", "[4, 7, 9]"), ("step_fraction", "[0.5, 0.75]"), ("step", "[250, 500]")]
)
def test_the_message_about_a_wrong_list_shows_how_to_write_one(key: str, form: str, text: str, write: WriteConfig) -> None:
    file = write(document({"schedule.name": '"MultiFactor"', "schedule.factor": "0.1"}))
    (problem,) = problems_of(file, setting(f"schedule.{key}={text}"))
    assert_names(problem, f"--set schedule.{key}={text}: ", f"must be a list of numbers; write it as {form}")


def test_the_flag_that_leaves_no_images_to_train_on_is_named() -> None:
    (problem,) = problems_of("plateau", Override("--train-images", "data.train_images", "640"))
    assert_names(problem, "--train-images 640: ", "data.validation_images = 5000")
    overrides = [Override(f"--{name}-images", f"data.{name}_images", "640") for name in ("train", "validation")]
    (problem,) = problems_of("plateau", *overrides)
    assert_names(problem, "--validation-images 640: ", "data.train_images = 640")


@pytest.mark.parametrize(
    ("path", "name"),
    [("tutorial", "tutorial"), ("configs/cosine.toml", "cosine"), ("runs/mine/config.toml", "mine")],
)
def test_a_configuration_is_named_after_its_file_or_its_run_folder(path: str, name: str) -> None:
    assert config_name(path) == name


def test_two_overrides_of_one_key_are_a_contradiction() -> None:
    (problem,) = problems_of("tutorial", Override("--epochs", "training.epochs", "3"), setting("training.epochs=3"))
    assert_names(problem, "--set training.epochs: ", "--epochs")
    (problem,) = problems_of("tutorial", setting("schedule.factor=0.5"), setting("schedule.factor=0.25"))
    assert_names(problem, "--set schedule.factor: --set schedule.factor ")


def test_a_correct_override_hides_a_wrong_value_in_the_file(write: WriteConfig) -> None:
    file = write(document({"training.epochs": "0"}))
    assert load_config(file, [Override("--epochs", "training.epochs", "3")]).training.epochs == 3


# --- writing

AWKWARD = ["", '"', "\\", "\n", "\r\n", "\t", "\0", "\x1b", "\x7f", "\x85", "\u2028", "'''", '"""', "#", "é", "🙂", "=", "[x]"]
texts = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
anything = st.recursive(texts | st.booleans() | numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
rates = st.floats(1e-12, 1e6)
fractions = st.just(0) | st.floats(1e-9, 0.99)

schedules: st.SearchStrategy[tuple[dict[str, Any], float | None]] = st.one_of(
    st.tuples(st.fixed_dictionaries({"name": st.just("Constant")}), rates),
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
        model=ModelConfig(draw(st.sampled_from([None, "my_networks:mlp"])), draw(st.sampled_from(["auto", "stock", "fused"]))),
        data=DataConfig(
            draw(st.sampled_from(["array", "gluon"])),
            train_images,
            draw(st.integers(0, train_images - 1)),
            draw(st.integers(1, 10_000)),
        ),
        runtime=RuntimeConfig(
            draw(st.sampled_from(["auto", "cpu", "cpu:1", "gpu", "gpu:3", "gpu:0,1"])),
            # A user's schedule may import MXNet, which this process has already loaded with its own number of threads.
            "auto" if ":" in schedule["name"] else draw(st.just("auto") | st.integers(1, 1024)),
        ),
    )


@pytest.fixture(scope="module")
def written_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file for all examples."""
    return tmp_path_factory.mktemp("written") / "config.toml"


@settings(max_examples=300, deadline=None, database=None)
@given(config=configs())
def test_a_written_configuration_reads_back_as_the_same(config: RunConfig, written_file: Path) -> None:
    written_file.write_text(config.to_toml(), encoding="utf-8")
    for loaded in (load_config(written_file), load_recorded_config(written_file)):
        assert loaded == config
        assert repr(loaded) == repr(config)  # 1, 1.0 and True are equal but not the same


@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_awkward_text_reads_back(text: str, write: WriteConfig) -> None:
    schedule = {"name": f"{__name__}:any_rate", "anything": ["before", f"{text}{text} {text}"]}
    config = dataclasses.replace(load_config(), schedule=schedule)
    assert load_recorded_config(write(config.to_toml())) == config


def test_every_key_of_a_run_is_written() -> None:
    written = load_config().to_toml()
    left_out = {
        *("model.network", "model.initial_parameters", "model.initial_parameters_sha256", "early_stopping.patience"),
        *("data.classes", "data.image_size", "data.sha256"),
    }
    tables = {section: [name for name in FIELDS if name.startswith(f"{section}.")] for section in SECTIONS}
    for section, keys in tables.items():
        block = written.split(f"[{section}]\n")[1].split("\n\n")[0]
        assert [f"{section}.{line.partition(' =')[0]}" for line in block.splitlines()] == [
            key for key in keys if key not in left_out
        ]


def test_a_setting_with_a_name_outside_ascii_reads_back(write: WriteConfig) -> None:
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

    assert isinstance(load_config(file).build_schedule(), UserSchedule)  # load_recorded_config must not do this
    assert Path("was_here").exists()


def test_a_recorded_configuration_is_checked_all_the_same(write: WriteConfig) -> None:
    file = write(document({"training.epochs": "0", "optimizer.name": '"sdg"', "schedule.name": '"nothing:at_all"'}))
    with pytest.raises(RequestError) as caught:
        load_recorded_config(file, [Override("--device", "runtime.device", "tpu")])
    labels = ("mine.toml: training.epochs = 0: ", "--device tpu: ", "mine.toml: optimizer.name: ")
    for problem, label in zip(caught.value.problems, labels, strict=True):
        assert_names(problem, label)


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
    ("assignment", "schedule"),
    [
        pytest.param(
            "schedule.curves[1].curve.final_lr=0.05",
            "Sequential(curves=(Constant(base_lr=0.1), Warmup(curve=Linear(base_lr=0.1, max_update=3752, final_lr=0.05), "
            "warmup_steps=938)), boundaries=(4690,))",
            id="three down",
        ),
        pytest.param(
            "schedule.curves[1]={name='Constant', base_lr=0.2}",
            "Sequential(curves=(Constant(base_lr=0.1), Constant(base_lr=0.2)), boundaries=(4690,))",
            id="one of a list",
        ),
        pytest.param('schedule={name = "Constant"}', "Constant(base_lr=0.1)", id="the whole"),
    ],
)
def test_an_assignment_reaches_into_tables(assignment: str, schedule: str, write: WriteConfig) -> None:
    assert repr(load_config(write(NESTED), [setting(assignment)]).build_schedule()) == schedule


def test_settings_of_a_replaced_schedule_are_reported_with_their_source(write: WriteConfig) -> None:
    problems = problems_of(write(NESTED), setting("schedule.name=constant"), setting("schedule.curves=[]"))
    for problem, label in zip(problems, ("--set schedule.name: ", "--set schedule.curves: "), strict=True):
        assert_names(problem, label, "Constant")


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        pytest.param(["schedule.curvs[0].x=1"], ("--set schedule.curvs[0].x: ", "'curvs'"), id="no list"),
        pytest.param(["schedule.curves[2].x=1"], ("--set schedule.curves[2].x: ", "no 2 "), id="beyond the list"),
        pytest.param(["schedule.curves[2]=1"], ("--set schedule.curves[2]: ", "no 2 "), id="a member beyond the list"),
        pytest.param(["schedule.boundaries_epochs.x=1"], ("--set schedule.boundaries_epochs.x: ", "'x'"), id="list"),
        pytest.param(["momentum=0.9"], ("--set momentum=0.9: ", '{name = "Constant"}', "optimizer.momentum"), id="a number"),
        pytest.param(
            ['schedule={name="Constant"}', "schedule.factor=0.5"],
            ("--set schedule.factor: ", "--set schedule "),
            id="a table and its key",
        ),
        pytest.param(
            ["schedule.curves[0].base_lr=0.5", 'schedule.curves=[{name="Constant"}]'],
            ("--set schedule.curves: ", "--set schedule.curves[0].base_lr "),
            id="a key and its list",
        ),
    ],
)
def test_assignments_that_lead_nowhere_are_one_problem(
    assignments: list[str], words: tuple[str, ...], write: WriteConfig, snapshot: Snapshot
) -> None:
    (problem,) = problems_of(write(NESTED), *(setting(assignment) for assignment in assignments))
    assert_names(problem, *words)
    snapshot(problem)


@pytest.mark.parametrize("depth", [31, 990])  # Python 3.14 refuses keys with more than 1000 parts
def test_tables_that_nest_too_deep_are_one_problem(depth: int, write: WriteConfig) -> None:
    header = ".".join(["schedule", *["curve"] * depth])
    problem = problems_of(write(f'[{header}]\nname = "Constant"\n'))[0]
    assert_names(problem, "mine.toml: schedule: ", "30")


@pytest.mark.parametrize("section", ["momentum", "wd"])
def test_an_empty_table_is_not_a_schedule(section: str, write: WriteConfig) -> None:
    (problem,) = problems_of(write(document({section: "{}"})))
    assert_names(problem, f"mine.toml: {section}.name: ", "missing")
