"""Flags that name a schedule or an optimizer, views of a run before it begins, and names in any case."""

import itertools
import re
import shlex
import signal
import tomllib
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_names, content, refused, run
from conftest import Snapshot
from programs import ForkedProgram, run_forked_program, wait_for

from mnist_trainer.config.loading import bundled_configs, load_config
from mnist_trainer.schedules import CURVES

SMALL = ("--train-images", "128", "--test-images", "100", "--epochs", "1", "--quiet")


def resolved(*arguments: str) -> str:
    """Return what `train --print-config` prints."""
    code, out, err = run("train", "--print-config", *arguments)
    assert (code, err) == (0, "")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", [cls.__name__ for cls in CURVES])
def test_every_schedule_trains_by_its_name_or_gets_a_helpful_error(name: str, here: Path) -> None:
    code, _, err = run("train", "--schedule", name, "--lr", "0.1", *SMALL, "--train-images", "640", "--output", "run")
    if code == 0:
        assert np.loadtxt("run/iterations.csv", delimiter=",", skiprows=1).shape == (10, 3)
        assert tomllib.loads(Path("run/config.toml").read_text(encoding="utf-8"))["schedule"]["name"] == name
        return
    assert code == 2
    assert content(here) == {}
    for line in err.splitlines():
        assert line.startswith(f"mnist-trainer: --schedule {name}: ")
        assert any(word in line for word in ("--set schedule.", '--schedule "', "--validation-images", "[momentum]"))


@pytest.mark.parametrize(
    ("arguments", "schedule"),
    [
        (["--schedule", "cosine"], "Cosine(base_lr=0.03, max_update=9380)"),
        (["--schedule", "one-cycle", "--lr", "0.1"], "OneCycle(start_lr=0.01, max_lr=0.1, cycle_length=9380)"),
        (["--schedule", "Constant", "--config", "cosine"], "Constant(base_lr=0.1)"),
        (
            ["--schedule", "cosine-annealing", "--config", "cosine"],
            "CosineAnnealing(min_lr=0.0, max_lr=0.1, cycle_length=9380)",
        ),
        (
            ["--schedule", "multi-factor", "--set", "schedule.step_epochs=[4, 7, 9]"],
            "MultiFactor(base_lr=0.03, step=(3752, 6566, 8442), factor=0.1)",
        ),
        (["--schedule", "cosine", "--set", "schedule.max_update_epochs=5"], "Cosine(base_lr=0.03, max_update=4690)"),
        (
            ["--schedule", "Warmup(Cosine(max_update=9000), 300)"],
            "Warmup(curve=Cosine(base_lr=0.03, max_update=9000), warmup_steps=300)",
        ),
        (["--schedule", "Cosine(base_lr=0.5, max_update=9000)"], "Cosine(base_lr=0.5, max_update=9000)"),
        (
            ["--schedule", "CosineAnnealing(0, max_lr=0.2, cycle_length=9)"],
            "CosineAnnealing(min_lr=0.0, max_lr=0.2, cycle_length=9)",
        ),
    ],
)
def test_a_schedule_by_one_flag_is_recorded_as_a_table(arguments: list[str], schedule: str, here: Path) -> None:
    Path("printed.toml").write_text(resolved(*arguments), encoding="utf-8")
    assert str(load_config("printed.toml").build_schedule()) == schedule


def test_an_optimizer_by_one_flag_leaves_nothing_of_the_other(here: Path) -> None:
    Path("mine.toml").write_text(
        'training.learning_rate = 0.1\nschedule.name = "Constant"\noptimizer = {name = "sgd", lazy_update = false}\n',
        encoding="utf-8",
    )
    for arguments, expected in (
        (["--optimizer", "Adam"], {"name": "adam"}),
        (["--optimizer", "nag", "--momentum", ".9"], {"name": "nag", "momentum": 0.9}),
        (["--optimizer", "adam", "--set", "optimizer.beta1=0.8"], {"name": "adam", "beta1": 0.8}),
        (["--momentum", "0.5"], {"name": "sgd", "lazy_update": False, "momentum": 0.5}),
    ):
        assert tomllib.loads(resolved("--config", "mine.toml", *arguments))["optimizer"] == expected


def test_names_are_recorded_in_their_usual_spelling(here: Path) -> None:
    changes = ("training.scheduler_mode=Manual", "data.loader=GLUON", "runtime.threads=AUTO", "optimizer.lazy_update=True")
    sets = [word for change in changes for word in ("--set", change)]
    wanted = resolved(
        "--config", "tutorial-manual", "--device", "cpu", "--set", "data.loader=gluon", "--set", "optimizer.lazy_update=true"
    )
    assert resolved("--config", "Tutorial-Manual", "--device", "CPU", *sets) == wanted
    Path("mine.toml").write_text(
        'training.learning_rate = 1\nschedule.name = "multi_factor"\nschedule.step = [3]\n', encoding="utf-8"
    )
    assert tomllib.loads(resolved("--config", "mine.toml"))["schedule"]["name"] == "MultiFactor"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--schedule", "cosin"], ("--schedule cosin: ", "did you mean Cosine?")),
        (["--schedule", "multi-factor"], ("--schedule multi-factor: step: ", "--set schedule.step_epochs=[4,7,9]")),
        (["--schedule", "warmup"], ("--schedule warmup: curve: ", '--schedule "Warmup(curve=Cosine(')),
        (["--schedule", "Cosine("], ("--schedule 'Cosine(': ", "character 7")),
        (["--schedule", "Cosine(max_update=-4)"], ("--schedule 'Cosine(max_update=-4)': max_update = -4: ", "from 1")),
        (["--schedule", "plateau"], ("--schedule plateau: ", "--validation-images 5000")),
        (["--schedule", "cosine", "--config", "one-cycle"], ("--schedule cosine: ", "one-cycle.toml", "--learning-rate 0.1")),
        (["--schedule", "triangular", "--config", "one-cycle"], ("--schedule triangular: ", "--learning-rate 0.1")),
        (["--schedule", "nowhere:f"], ("--schedule nowhere:f: ", "not found in the current folder")),
        (
            ["--schedule", "Triangular(0, max_lr=1, cycle_length=9)", "--lr", "1"],
            ("--lr 1: ", "Triangular", "schedule.max_lr"),
        ),
        (["--schedule", "Cosine(9, base_lr=1)", "--lr", "1"], ("--schedule 'Cosine(9, base_lr=1)': base_lr", "twice")),
        (["--schedule", "linear", "--set", "schedule.name=Cosine"], ("--set schedule.name: ", "--schedule sets")),
        (["--lr", "0.1", "--config", "one-cycle"], ("--lr 0.1: ", "OneCycleLR", "schedule.max_lr")),
        (["--lr", "0.1", "--set", "training.learning_rate=1"], ("--set training.learning_rate: ", "--lr sets")),
        (["--set", "schedule.name=Cosine"], ("--set schedule.name: ", "'MultiFactor'", "--schedule Cosine")),
        (["--set", "schedule.max_update=9"], ("--set schedule.max_update: ", "MultiFactor", "Cosine", "--schedule NAME")),
        (["--set", "momentum.name=plateau"], ("--set momentum.name: ", "only the learning rate")),
        (["--set", "momentum.name=Constant"], ("--set momentum.name=Constant: momentum.base_lr: ", "missing")),
        (["--optimizer", "adma"], ("--optimizer adma: ", "did you mean adam?")),
        (["--optimizer", "adam", "--momentum", "0.9"], ("--momentum: ", "adam has no momentum", "nag", "sgd")),
        (["--momentum", "9"], ("--momentum 9: ", "< 1")),
        (["--optimizer", "adam", "--config", "one-cycle"], ("--optimizer adam: ", "--set momentum={}")),
        (["--set", "optimizer.nmae=adam"], ("--set optimizer.nmae: ", "did you mean optimizer.name?")),
        (["--scheduler", "cosine"], ("--scheduler: ", "did you mean --schedule NAME?")),
        (["--weight-decay", "1"], ("--weight-decay: ", "--set optimizer.wd=X")),
        (["--batchsize", "1"], ("--batchsize: ", "did you mean --batch-size?")),
        (["--max-epochs", "1"], ("--max-epochs: ", "did you mean --epochs N?")),
        (["--workers", "2"], ("--workers: ", "mnist-trainer launch --workers N -- train")),
        (["--save-dir", "x"], ("--save-dir: ", "did you mean --output DIR?")),
        (["--checkpoint", "x"], ("--checkpoint: ", "did you mean --resume RUN_DIR?")),
        (["--dry-run", "--output", "x"], ("--output x: ", "--dry-run writes nothing")),
        (["--print-config", "--resume", "x"], ("--resume x: ", "--print-config writes nothing")),
        (["--print-config", "--dry-run"], ("--dry-run: ", "--print-config")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_message_names_what_was_typed_and_the_remedy(
    arguments: list[str], words: tuple[str, ...], here: Path, snapshot: Snapshot
) -> None:
    (message,) = refused("train", *arguments)
    assert_names(message, *words)
    assert content(here) == {}
    snapshot(message.replace(str(bundled_configs()["tutorial"].parent), "configs"))


def test_the_flags_of_launched_training_and_of_a_comparison_are_the_same(here: Path) -> None:
    for arguments in (["launch", "--workers", "2", "--", "train"], ["compare"], ["find-lr"]):
        (message,) = refused(*arguments, "--schedule", "cosin")
        assert_names(message, "--schedule cosin: ", "Cosine")
    (message,) = refused("launch", "--workers", "2", "--", "train", "--dry-run")
    assert_names(message, "--dry-run: ", "mnist-trainer train --dry-run")
    assert content(here) == {}


def test_predict_says_how_it_is_called(here: Path) -> None:
    Path("digit.png").write_bytes(b"")
    for arguments in (["digit.png"], ["digit.png", "digit.png"]):
        (message,) = refused("predict", *arguments)
        assert_names(message, "digit.png: ", "run folder", "mnist-trainer predict RUN_DIR IMAGE")


# --- before a run


@pytest.mark.slow
def test_a_dry_run_shows_the_run_and_writes_nothing(here: Path) -> None:
    code, out, err = run("train", "--dry-run", "--quiet", "--train-images", "640", "--test-images", "100")
    assert (code, err) == (0, "")
    assert content(here) == {}
    lines = out.splitlines()
    assert "    train_images = 640" in lines
    assert "    epochs = 10" not in lines  # the default
    assert "10 epochs of 10 iterations: 100 iterations with 640 images in batches of 64" in lines
    assert "Learning rate: MultiFactor(base_lr=0.03, step=(40, 70, 90), factor=0.1)" in lines
    assert [line.split() for line in lines if line.startswith(("4 ", "5 "))] == [
        ["4", "31-40", "0.03", "0.03", "0.03"],
        ["5", "41-50", "0.003", "0.003", "0.003"],
    ]
    assert "Learning rate drops after iterations: [40, 70, 90]" in lines
    assert "In epochs: 4, 7, 9" in lines
    (estimate,) = (line for line in lines if line.startswith("Estimated time "))
    assert "from 90 iterations" in estimate  # the first ten are not measured
    assert lines[-1] == "No run folder was made"


@pytest.mark.slow
def test_a_dry_run_of_one_iteration_with_a_schedule_of_the_user(here: Path) -> None:
    Path("counting_schedules.py").write_text(
        "class Counting:\n    calls = 0\n    def __call__(self, iteration):\n        self.calls += 1\n"
        "        assert self.calls == iteration\n        return 0.1 / iteration\n",
        encoding="utf-8",
    )
    arguments = ("--schedule", "counting_schedules:Counting", *SMALL, "--train-images", "64")
    code, out, _ = run("train", "--dry-run", *arguments)
    assert code == 0
    assert ["1", "1-1", "0.1", "0.1", "0.1"] in [line.split() for line in out.splitlines()]
    assert "from 1 iteration of" in out
    assert "1 epoch of 1 iteration: 1 iteration with 64 images" in out


def test_the_printed_configuration_is_the_recorded_one(here: Path) -> None:
    printed = resolved("--schedule", "one-cycle", "--lr", "0.1", "--momentum", "0.9")
    Path("printed.toml").write_text(printed, encoding="utf-8")
    assert resolved("--config", "printed.toml") == printed
    assert {path.name for path in here.iterdir()} == {"printed.toml"}


def test_the_help_of_train_has_examples_and_the_bundled_configurations() -> None:
    out = run("train", "--help").out
    assert "examples:\n  mnist-trainer train " in out
    for name, path in bundled_configs().items():
        first = path.read_text(encoding="utf-8").removeprefix("# ").split()[:4]
        assert f"\n  {name} " in out
        assert " ".join(first) in out


# --- code of the user


def write_experiment(folder: Path, module: str, rate: float) -> Path:
    folder.mkdir()
    (folder / f"{module}.py").write_text(f"def constant(iteration):\n    return {rate}\n", encoding="utf-8")
    (folder / "mine.toml").write_text(f'schedule.name = "{module}:constant"\n', encoding="utf-8")
    return folder / "mine.toml"


def test_a_module_is_searched_beside_the_configuration(here: Path) -> None:
    file = write_experiment(here / "elsewhere", "beside_the_configuration", 0.25)
    code, out, _ = run("schedules", "show", str(file), "--iterations", "1")
    assert (code, out.splitlines()[-1]) == (0, "1,0.25")


def test_a_module_is_not_searched_in_a_run_folder(here: Path) -> None:
    file = write_experiment(here / "run", "within_a_run", 0.25)
    (here / "run" / "config.toml").write_text("", encoding="utf-8")
    (message,) = refused("train", "--config", file, "--print-config")
    assert_names(message, f"{file}: schedule.name: ", "'within_a_run:constant'", "not found in the current folder or in")


def test_two_modules_of_one_name_are_not_mistaken_for_each_other(here: Path) -> None:
    first = write_experiment(here / "first", "same_name_in_two_folders", 0.25)
    second = write_experiment(here / "second", "same_name_in_two_folders", 0.5)
    (message,) = refused("compare", str(first), str(second))
    assert_names(message, f"{second}: schedule.name: ", "rename one of the two")


@pytest.mark.slow
@pytest.mark.process
def test_a_comparison_finds_modules_beside_its_configurations(here: Path) -> None:
    file = write_experiment(here / "elsewhere", "compared_elsewhere", 0.25)
    other = write_experiment(here / "nowhere", "compared_nowhere", 0.5)
    other = other.rename(other.with_name("other.toml"))
    code, out, err = run("compare", str(file), str(other), *SMALL, "--jobs", "1", "--output", "compared")
    assert code == 0, err
    assert "0.25" in (here / "compared" / "comparison.md").read_text(encoding="utf-8") or out


@pytest.mark.slow
@pytest.mark.process
def test_the_printed_command_resumes_a_run_with_code_beside_its_configuration(here: Path) -> None:
    file = write_experiment(here / "else where", "resumed_elsewhere", 0.25)
    arguments = ("--epochs", "3", "--train-images", "6400", "--test-images", "100", "--threads", "1", "--output", "run")
    process = ForkedProgram("train", "--config", file, *arguments, cwd=here)
    wait_for(lambda: "Batch 1" in process.printed(), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assignment, program, *command = shlex.split(err.partition("resume with: ")[2])
    assert program == "mnist-trainer"
    resumed = run_forked_program(*command, cwd=here, **dict([assignment.split("=", 1)]))
    assert resumed.returncode == 0, resumed.stderr


def test_a_folder_named_like_a_bundled_configuration_is_not_a_run(here: Path) -> None:
    Path("tutorial").mkdir()
    (message,) = refused("compare", "--epochs", "0")
    assert_names(message, "--epochs 0: ")
    (message,) = refused("compare", "a" * 300)
    assert "no file or bundled configuration" in message


def test_a_wrong_rate_is_reported_alone(here: Path) -> None:
    for schedule, rate in itertools.product(("triangular", "cosine"), ("true", "0", "-5", "nan", "abc")):
        (message,) = refused("train", "--schedule", schedule, "--lr", rate)
        assert_names(message, f"--lr {rate}: ", "number > 0")


def test_text_in_an_expression_keeps_its_colons(here: Path) -> None:
    Path("colons.py").write_text(
        "class Written:\n    def __init__(self, text):\n        assert text == 'a:b'\n"
        "    def __call__(self, iteration):\n        return 0.25\n",
        encoding="utf-8",
    )
    for expression in ("colons:Written(text='a:b')", 'Scale(colons:Written(text="a:b"), 1)'):
        code, out, err = run("schedules", "show", expression, "--iterations", "1")
        assert code == 0, err
        assert out.splitlines()[-1] == "1,0.25"


def test_an_expression_is_completed_in_show_as_in_train(here: Path) -> None:
    code, out, _ = run("schedules", "show", "Cosine()", "--iterations", "1500")
    assert (code, out.splitlines()[0]) == (0, "Cosine(base_lr=1.0, max_update=1500)")
    _, _, err = run("schedules", "show", "Cosine(max_update_epochs=5)", "--iterations", "1")
    assert "10 epochs with 150 iterations" in err
    (message,) = refused("schedules", "show", "Cosine(base_lr=-1, max_update=5)", "--iterations", "1")
    assert_names(message, "Cosine(base_lr=-1, max_update=5): base_lr = -1: ")


def test_an_overlay_has_one_quantity_and_few_curves(here: Path) -> None:
    assert_names(refused("schedules", "plot", "--overlay", "Poly", "OneCycleMomentum", "--output", "x.png")[0], "--overlay: ")
    assert_names(refused("schedules", "plot", "--overlay", "all", "--output", "x.png")[0], "--overlay: ", "12")
    assert run("schedules", "plot", "--overlay", "configs/one-cycle.toml", "configs/cosine.toml", "--output", "x.svg").code == 0
    assert run("schedules", "plot", "--overlay", "Poly", "--output", "single.svg").code == 0
    drawn = Path("x.svg").read_text(encoding="utf-8")
    assert "configs/one-cycle.toml" in drawn
    assert "Momentum" not in drawn


def test_show_takes_expressions_and_schedules_of_the_user(here: Path) -> None:
    Path("shown_schedules.py").write_text(
        "class Half:\n    def __init__(self, base_lr):\n        self.rate = base_lr / 2\n"
        "    def __call__(self, iteration):\n        return self.rate\n",
        encoding="utf-8",
    )
    for text, rate in (("shown_schedules:Half", "0.5"), ("Scale(shown_schedules:Half(base_lr=3), 0.1)", "0.15000000000000002")):
        code, out, _ = run("schedules", "show", text, "--iterations", "7")
        assert (code, out.splitlines()[-1]) == (0, f"7,{rate}")
    code, out, _ = run("schedules", "show", "Warmup(Cosine(max_update=900), 100)", "--iterations", "1,100,1000")
    assert (code, out.splitlines()[2:]) == (0, ["1,0.01", "100,1.0", "1000,0.0"])
    (message,) = refused("schedules", "show", "Cosine(max_update=0)", "--iterations", "1")
    assert_names(message, "Cosine(max_update=0): max_update = 0: ")


def test_names_on_the_command_line_may_be_written_in_any_case(here: Path) -> None:
    for one, other in (("cosine", "COSINE"), ("tutorial", "Tutorial"), ("configs/cosine.toml", "configs/Cosine.toml")):
        shown = [run("schedules", "show", name, "--iterations", "1,2") for name in (one, other)]
        assert [outcome.code for outcome in shown] == [0, 0], shown
        assert shown[0].out == shown[1].out
    assert run("schedules", "plot", "ALL", "--output", "all.SVG").code == 0
    assert Path("all.SVG").read_text(encoding="utf-8").count("WarmupStableDecay") >= 1


def test_an_expression_is_plotted_for_its_own_length(here: Path) -> None:
    for expression, iterations in (("Linear(max_update=9000)", 9000), ("Constant()", 1500)):
        assert run("schedules", "plot", expression, "--output", "drawn.svg").code == 0
        numbers = re.findall(r"<!-- ([\d,]+) -->", Path("drawn.svg").read_text(encoding="utf-8"))
        last = max(int(number.replace(",", "")) for number in numbers)  # a tick of the axis
        assert last <= iterations < 1.5 * last
