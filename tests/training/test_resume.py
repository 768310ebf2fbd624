"""A run that is stopped and resumed at any iteration, any number of times, ends like a run that was never stopped."""

import copy
import random
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Snapshot
from small_runs import (
    ITERATIONS_PER_EPOCH,
    SMALL,
    assert_same_run,
    changed,
    checkpoints,
    contents,
    edit_json,
    resume_run,
    sign,
    spare_time,
    train,
)

from mnist_trainer import cli
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.optimizers import OPTIMIZERS
from mnist_trainer.config.schema import RunConfig, SweepConfig
from mnist_trainer.data.loaders import create_loaders
from mnist_trainer.diagnostics.environment import describe_environment
from mnist_trainer.errors import DONE, WRONG_REQUEST, RequestError, RunError
from mnist_trainer.model import network
from mnist_trainer.model.network import ScoredNetwork, build_cnn, build_loss, initialize
from mnist_trainer.run_folder import RunFolder, UnwrittenRunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Linear
from mnist_trainer.training import experiment
from mnist_trainer.training.checkpoint import OPTIMIZER_NUMBERS, capture
from mnist_trainer.training.lr_search import search_learning_rate
from mnist_trainer.training.records import LoopState
from mnist_trainer.training.resume import advice_on_failure, latest_checkpoint, load_state
from mnist_trainer.training.trainer import ScheduledTrainer, create_trainer

mx = import_mxnet()

MIDDLE = 15  # in the second epoch of `SMALL`

WholeRun = Callable[[RunConfig], Path]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """Train a run without a stop, once for each configuration; return its folder."""
    known: dict[str, Path] = {}

    def find(config: RunConfig) -> Path:
        key = config.to_toml()
        if key not in known:
            known[key] = train(config, tmp_path_factory.mktemp("whole") / "run")
        return known[key]

    return find


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([1], id="first iteration"),
        pytest.param([2], id="second iteration"),
        pytest.param([6], id="middle of an epoch"),
        pytest.param([10], id="last but one of an epoch"),
        pytest.param([11], id="last of an epoch"),
        pytest.param([12], id="first of the next"),
        pytest.param([21], id="last but one of the run"),
        pytest.param([22], id="last of the run"),
        pytest.param([1, 2, 3, 4], id="after each iteration"),
        pytest.param([3, 11, 12, 17, 22], id="five times"),
    ],
)
def test_where_it_is_stopped_makes_no_difference(stops: list[int], whole_run: WholeRun, tmp_path: Path) -> None:
    train(SMALL, tmp_path / "run", stops[0])
    for stop in stops[1:]:
        resume_run(tmp_path / "run", stop)
    resume_run(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole_run(SMALL))
    assert (tmp_path / "run" / "config.toml").read_bytes() == (whole_run(SMALL) / "config.toml").read_bytes()
    assert len(RunFolder(tmp_path / "run").read_json("environment.json")["resumed"]) == len(stops)


LONG_EPOCH = changed(SMALL, training={"batch_size": 4, "epochs": 1}, data={"train_images": 4 * 104})


@pytest.mark.parametrize("stop", [50, 51, 75])
def test_losses_fetched_in_blocks_are_complete_after_any_stop(stop: int, whole_run: WholeRun, tmp_path: Path) -> None:
    train(LONG_EPOCH, tmp_path / "run", stop)
    assert [row[0] for row in RunFolder(tmp_path / "run").read_iterations()] == list(range(1, stop + 1))
    assert_same_run(resume_run(tmp_path / "run"), whole_run(LONG_EPOCH))


def test_additional_checkpoints_change_nothing(whole_run: WholeRun, tmp_path: Path) -> None:
    often = changed(SMALL, checkpoint={"every_iterations": 1})
    train(often, tmp_path / "run")
    assert_same_run(tmp_path / "run", whole_run(SMALL))


def _optimizer(name: str) -> dict[str, Any]:
    return {"name": name} | ({"momentum": 0.9} if "momentum" in OPTIMIZERS[name] else {})


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
@pytest.mark.parametrize("name", [*OPTIMIZERS, "rmsprop centered"])
def test_every_optimizer_resumes_exactly(name: str, mode: str, whole_run: WholeRun, tmp_path: Path) -> None:
    name, _, centered = name.partition(" ")
    table = _optimizer(name) | ({"centered": True} if centered else {})
    # ftml and ftrl divide by the rate, so it must not fall to 0.
    cosine = {"name": "Cosine", "max_update_fraction": 1.0, "final_lr": 0.0002}
    config = changed(SMALL, training={"learning_rate": 0.002}, schedule=cosine, optimizer={**table, "wd": 0.001})
    train(changed(config, training={"scheduler_mode": mode}), tmp_path / "run", MIDDLE)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(config))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_has_other_state_besides_its_arrays(name: str) -> None:
    table = _optimizer(name)
    del table["name"]
    _, trainer = _trained(1, Linear(base_lr=0.01, max_update=10), name, table)
    before = copy.copy({key: repr(value) for key, value in vars(trainer.optimizer).items()})
    _update(trainer, 3)
    after = {key: repr(value) for key, value in vars(trainer.optimizer).items()}
    different = {key for key in before | after if before.get(key) != after.get(key)}
    # These are counts of updates, which follow from the iteration.
    assert different - {"num_update", "_all_index_update_counts", "_index_update_count"} <= set(OPTIMIZER_NUMBERS)
    expected = {"nadam": {"m_schedule"}, "lars": {"cur_lr", "last_lr"}}.get(name, set())
    assert different & set(OPTIMIZER_NUMBERS) == expected


def _trained(iterations: int, schedule: Any, name: str = "sgd", arguments: dict[str, Any] | None = None) -> tuple[Any, Any]:
    mx.random.seed(1)
    net = build_cnn()
    initialize(net)
    trainer = create_trainer(net.collect_params(), schedule, "optimizer", name, arguments)
    trainer.net = net
    _update(trainer, iterations)
    return net, trainer


def _update(trainer: Any, iterations: int) -> None:
    for _ in range(iterations):
        with mx.autograd.record():
            loss = build_loss()(trainer.net(mx.nd.ones((4, 1, 28, 28))), mx.nd.arange(4))
        loss.backward()
        trainer.step(4)


PLATEAU = {
    "name": "Plateau",
    "factor": 0.5,
    "patience": 0,
    "threshold": 0.5,
    "curve": {"name": "Warmup", "warmup_steps": 4, "curve": {"name": "Cosine", "max_update_fraction": 1.0}},
}


@pytest.mark.parametrize(("stop", "mode"), [(3, "manual"), (11, "optimizer"), (22, "manual"), (27, "optimizer")])
def test_a_plateau_keeps_its_state(stop: int, mode: str, whole_run: WholeRun, tmp_path: Path) -> None:
    config = changed(
        SMALL,
        training={"epochs": 4, "scheduler_mode": mode},
        schedule=PLATEAU,
        data={"train_images": 134, "validation_images": 50},
    )
    train(config, tmp_path / "run", stop)
    whole = whole_run(changed(config, training={"scheduler_mode": "optimizer"}))
    assert_same_run(resume_run(tmp_path / "run"), whole, "best.params")
    rates = [row[1] for row in RunFolder(tmp_path / "run").read_iterations()]
    assert rates != [config.build_schedule()(iteration) for iteration in range(1, len(rates) + 1)]  # it did react


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
@pytest.mark.parametrize("stop", [3, 16])
def test_scheduled_momentum_and_weight_decay_resume(stop: int, mode: str, whole_run: WholeRun, tmp_path: Path) -> None:
    config = changed(
        SMALL,
        training={"scheduler_mode": mode},
        optimizer={"name": "sgd"},
        momentum={"name": "OneCycleMomentum", "max_update_fraction": 1.0},
        wd={"name": "Linear", "base_lr": 0.001, "max_update_fraction": 1.0},
    )
    train(config, tmp_path / "run", stop)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(config))


def test_gluons_loader_resumes_with_the_next_batch(whole_run: WholeRun, tmp_path: Path) -> None:
    config = changed(SMALL, data={"loader": "gluon"})
    train(config, tmp_path / "run", MIDDLE)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(SMALL))


@pytest.mark.parametrize("loader", ["array", "gluon"])
@pytest.mark.parametrize("device", ["cpu", "cpu:0,1"])
def test_augmented_images_resume_in_the_middle_of_an_epoch(
    loader: str, device: str, whole_run: WholeRun, tmp_path: Path
) -> None:
    whole = changed(SMALL, data={"augment": True}, runtime={"device": device})
    train(changed(whole, data={"loader": loader}), tmp_path / "run", 6)
    resume_run(tmp_path / "run", MIDDLE)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(whole))


COUNTING = """
class Falling:
    def __init__(self, start):
        self.rate = start

    def __call__(self, iteration):
        self.rate *= 0.97
        return self.rate
"""


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_users_code_that_counts_its_calls_resumes(
    mode: str, whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counting_of_test_resume.py").write_text(COUNTING, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "counting_of_test_resume", raising=False)
    falling = {"name": "counting_of_test_resume:Falling"}
    config = changed(
        SMALL,
        training={"learning_rate": None, "scheduler_mode": mode},
        optimizer={"name": "sgd"},
        schedule={"name": "Warmup", "warmup_steps": 4, "curve": falling | {"start": 0.1}},
        momentum=falling | {"start": 0.9},
        wd=falling | {"start": 0.001},
    )
    train(config, tmp_path / "run", 6)
    resume_run(tmp_path / "run", MIDDLE)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(config))
    assert len({row["momentum"] for row in RunFolder(tmp_path / "run").read_metrics()}) == 2


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_run_may_resume_on_another_device(name: str, whole_run: WholeRun, tmp_path: Path) -> None:
    config = changed(SMALL, training={"learning_rate": 0.002}, optimizer=_optimizer(name))
    train(config, tmp_path / "run", 6)
    for device, stop in (("cpu:1", MIDDLE), ("cpu:2", None)):
        recorded = load_config(tmp_path / "run" / "config.toml")
        resume_run(tmp_path / "run", stop, changed(recorded, runtime={"device": device}))
    assert_same_run(tmp_path / "run", whole_run(config))
    assert load_config(tmp_path / "run" / "config.toml").runtime.device == "cpu:2"


@pytest.mark.parametrize(
    ("name", "mode"),
    [("sgd", "optimizer"), ("sgd", "manual"), ("adam", "manual"), ("nadam", "optimizer"), ("lars", "manual")],
)
def test_a_run_on_two_devices_resumes(name: str, mode: str, whole_run: WholeRun, tmp_path: Path) -> None:
    config = changed(
        SMALL,
        training={"learning_rate": 0.002, "scheduler_mode": mode},
        optimizer=_optimizer(name),
        runtime={"device": "cpu:0,1"},
    )
    train(config, tmp_path / "run", 6)
    resume_run(tmp_path / "run", MIDDLE)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(config))


@pytest.mark.parametrize(("first", "then"), [("cpu", "cpu:0,1"), ("cpu:0,1", "cpu:1")])
def test_the_number_of_devices_may_not_change(first: str, then: str, tmp_path: Path) -> None:
    # They sum in another order, so the last bits would differ.
    config = changed(SMALL, runtime={"device": first})
    train(config, tmp_path / "run", 6)
    with pytest.raises(RequestError) as caught:
        resume_run(tmp_path / "run", config=changed(config, runtime={"device": then}))
    assert_names(str(caught.value), f"--resume {tmp_path / 'run'}: ", "runtime.device", repr(first), repr(then))


def test_numpys_and_pythons_generators_are_restored(tmp_path: Path) -> None:
    net, trainer = _trained(2, Linear(base_lr=0.01, max_update=10))
    np.random.normal()  # leaves the second of a pair for the next call
    random.gauss(0, 1)
    state, arrays = capture(net, trainer, LoopState())
    expected = np.random.normal(size=3).tolist(), [random.gauss(0, 1) for _ in range(3)]
    folder = RunFolder(train(SMALL, tmp_path / "run", 2))
    checkpoint = latest_checkpoint(folder, pytest.fail)
    assert checkpoint is not None
    load_state(replace(checkpoint, state={**checkpoint.state, **state}, arrays=arrays), net, trainer)
    assert (np.random.normal(size=3).tolist(), [random.gauss(0, 1) for _ in range(3)]) == expected


# --- runs that can be resumed, and their messages


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        spare_time(patch)
        return train(SMALL, tmp_path_factory.mktemp("stopped") / "run", MIDDLE)


@pytest.fixture
def copy_of_stopped(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "stopped"))


def _resume(*arguments: str | Path) -> int:
    return cli.main(["train", "--quiet", "--resume", *map(str, arguments)])


def test_the_command_resumes_quietly(copy_of_stopped: Path, whole_run: WholeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert _resume(copy_of_stopped) == DONE
    captured = capsys.readouterr()
    assert captured.err == "", "it is quiet"
    assert "Test accuracy" in captured.out
    assert_same_run(copy_of_stopped, whole_run(SMALL))


def test_a_failed_resumption_unlocks_the_folder_although_its_traceback_is_kept(
    copy_of_stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[RequestError] = []

    def refuse(*_: Any, **_more: Any) -> None:
        kept.append(RequestError("refused"))
        raise kept[0]

    monkeypatch.setattr(experiment, "prepare", refuse)
    assert cli.main(["train", "--resume", str(copy_of_stopped)]) == WRONG_REQUEST
    assert kept[0].__traceback__
    again = RunFolder(copy_of_stopped)
    again.lock()
    again.unlock()


def test_a_resumed_run_says_where_it_resumes(copy_of_stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--resume", str(copy_of_stopped)]) == DONE
    assert f"{copy_of_stopped}: resumes after iteration 15\n" in capsys.readouterr().err


def test_a_finished_run_is_not_changed(whole_run: WholeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copytree(whole_run(SMALL), tmp_path / "finished"))
    before = contents(path)
    assert _resume(path) == DONE
    (message,) = capsys.readouterr().out.splitlines()
    assert_names(message, f"{path}: ", "finished")
    assert _resume(path, "--epochs", "5") == WRONG_REQUEST
    (message,) = capsys.readouterr().err.splitlines()
    assert_names(message, f"--resume {path}: ", "finished", "--epochs", f"--config {path}/config.toml --epochs 5")
    assert contents(path) == before
    (path / "curves.png").unlink()
    assert _resume(path) == DONE
    assert contents(path) == before
    (path / "model.params").unlink()
    (message,) = _refusal(path, capsys)
    assert_names(message, f"{path}/model.params: ", "missing")
    _follow_advice(message, path / "summary.json")
    assert _resume(path) == DONE
    assert_same_run(path, whole_run(SMALL))


def _follow_advice(sentence: str, path: Path) -> None:
    """Follow the advice of a message about a file."""
    assert f"move {path}" in sentence
    assert "--resume" in sentence
    path.rename(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("name", ["model.params", "summary.json"])
def test_a_finished_run_without_checkpoints_is_not_started_again(
    name: str, whole_run: WholeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copytree(whole_run(SMALL), tmp_path / "finished"))
    shutil.rmtree(path / "checkpoints")
    (path / name).unlink()
    if name == "summary.json":
        (path / name).write_text("{", encoding="utf-8")
    (message,) = _refusal(path, capsys)
    assert str(path / name) in message
    assert "move" not in message  # its iterations and metrics would be discarded
    assert f"mnist-trainer train --config {path}/config.toml" in message


@pytest.mark.parametrize("missing", [(), ("environment.json",), ("environment.json", "iterations.csv")])
def test_a_run_that_died_before_its_first_checkpoint_starts_again(
    missing: tuple[str, ...], copy_of_stopped: Path, whole_run: WholeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy_of_stopped / "checkpoints")
    (copy_of_stopped / ".environment.json.0123456789abcdef.partial").write_text("{", encoding="utf-8")
    for name in missing:
        (copy_of_stopped / name).unlink()
    assert _resume(copy_of_stopped) == DONE
    assert_names(capsys.readouterr().err, f"{copy_of_stopped}: ", "no checkpoint")
    assert_same_run(copy_of_stopped, whole_run(SMALL))


def _refusal(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[str]:
    """Resume a run, assert that this is refused and changes nothing, and return the messages."""
    before = contents(path)
    capsys.readouterr()
    assert _resume(path, *arguments) == WRONG_REQUEST
    assert contents(path) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.splitlines()


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        (("--seed", "2"), [("training.seed", "1", "2")]),
        (("--learning-rate", "0.1"), [("training.learning_rate", "0.05", "0.1")]),
        (("--set", "data.augment=true"), [("data.augment", "False", "True")]),
        (
            ("--batch-size", "32", "--set", "optimizer.wd=0.1", "--device", "cpu:1"),
            [("training.batch_size", "8", "32"), ("optimizer.wd", "not", "0.1")],
        ),
        (
            ("--set", "momentum={name='Constant', base_lr=0.9}", "--set", "optimizer={name='sgd'}"),
            [
                ("optimizer.momentum", "0.9", "not"),
                ("momentum.name", "not", "'Constant'"),
                ("momentum.base_lr", "not", "0.9"),
            ],
        ),
        (("--epochs", "1"), [("training.epochs", "1", "less")]),
        (("--epochs", "3"), [("training.epochs", "3", "schedule")]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_changed_configuration_is_refused_with_what_differs(
    change: tuple[str, ...],
    differences: list[tuple[str, ...]],
    copy_of_stopped: Path,
    capsys: pytest.CaptureFixture[str],
    snapshot: Snapshot,
) -> None:
    found = _refusal(copy_of_stopped, capsys, *change)
    for sentence, (key, *values) in zip(found, differences, strict=True):
        assert_names(sentence, f"--resume {copy_of_stopped}: {key} ")
        assert set(values) <= set(re.findall(r"[\w.']+", sentence.removeprefix(f"mnist-trainer: --resume {copy_of_stopped}: ")))
    snapshot("\n".join(found))


def test_a_configuration_that_was_edited_in_the_folder_is_refused(
    copy_of_stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = copy_of_stopped / "config.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("seed = 1", "seed = 3"), encoding="utf-8")
    (sentence,) = _refusal(copy_of_stopped, capsys)
    assert_names(sentence, f"{config}: training.seed ", "1", "3", f"{copy_of_stopped / 'checkpoints'}/", "restore")


def test_a_network_that_was_added_in_the_folder_is_refused_although_it_is_confirmed(
    copy_of_stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = copy_of_stopped / "config.toml"
    text = config.read_text(encoding="utf-8").replace("[model]", '[model]\nnetwork = "json:dumps"')
    config.write_text(text, encoding="utf-8")
    (sentence,) = _refusal(copy_of_stopped, capsys, "--set", "model.network=json:dumps")
    assert_names(
        sentence, f"{config}: model.network ", "json:dumps", "not set", f"{copy_of_stopped / 'checkpoints'}/", "restore"
    )


@pytest.mark.parametrize(
    "schedule",
    [{"name": "Constant"}, {"name": "MultiFactor", "step": [5, 25], "factor": 0.1}],
    ids=lambda schedule: schedule["name"],
)
def test_epochs_may_grow_where_the_rates_stay_the_same(schedule: dict[str, Any], whole_run: WholeRun, tmp_path: Path) -> None:
    config = changed(SMALL, schedule=schedule)
    longer = changed(config, training={"epochs": 3})
    path = train(config, tmp_path / "run", MIDDLE)
    assert _resume(path, "--epochs", "3") == DONE
    assert_same_run(path, whole_run(longer))
    assert (path / "config.toml").read_bytes() == (whole_run(longer) / "config.toml").read_bytes()


def test_epochs_may_not_grow_where_a_scheduled_momentum_would_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    momentum = {"name": "OneCycleMomentum", "max_update_fraction": 1.0}
    config = changed(SMALL, schedule={"name": "Constant"}, optimizer={"name": "sgd"}, momentum=momentum)
    path = train(config, tmp_path / "run", MIDDLE)
    (sentence,) = _refusal(path, capsys, "--epochs", "3")
    assert_names(sentence, f"--resume {path}: ", "training.epochs", "3", "the momentum")


@pytest.mark.parametrize("flag", ["--config", "--output"])
def test_a_run_resumes_only_with_its_own_configuration_and_folder(
    flag: str, copy_of_stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sentence,) = _refusal(copy_of_stopped, capsys, flag, "other")
    assert_names(sentence, f"--resume {copy_of_stopped}: ", flag)


def test_a_folder_that_is_not_a_run_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sentence,) = _refusal(tmp_path / "none", capsys)
    assert_names(sentence, f"{tmp_path / 'none'}: ", "no such")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear all", encoding="utf-8")
    (sentence,) = _refusal(tmp_path / "other", capsys)
    assert_names(sentence, f"{tmp_path / 'other'}: ", "config.toml")


def test_a_search_for_a_learning_rate_is_not_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder.create(tmp_path / "sweep")
    search_learning_rate(experiment.prepare(SMALL), folder, SweepConfig(iterations=20))
    del folder
    (sentence,) = _refusal(tmp_path / "sweep", capsys)
    assert_names(sentence, f"{tmp_path / 'sweep'}: ", "search")


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"python": '])
def test_an_environment_that_cannot_be_read_is_refused_before_anything_is_changed(
    content: str, copy_of_stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy_of_stopped / "environment.json").write_text(content, encoding="utf-8")
    with (copy_of_stopped / "iterations.csv").open("a", encoding="utf-8") as stream:
        stream.write("16,0.0")  # a row that would be removed
    _refusal(copy_of_stopped, capsys)


@pytest.mark.parametrize("content", ["", '{"status": "fini'])
def test_a_damaged_summary_does_not_count_as_a_finished_run(
    content: str, whole_run: WholeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copytree(whole_run(SMALL), tmp_path / "finished"))
    (path / "summary.json").write_text(content, encoding="utf-8")
    (sentence,) = _refusal(path, capsys)
    assert_names(sentence, f"{path}/summary.json: ")
    _follow_advice(sentence, path / "summary.json")
    assert _resume(path) == DONE
    assert_same_run(path, whole_run(SMALL))


@pytest.mark.process  # which describes the processor
def test_another_processor_or_version_is_reported(copy_of_stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = {"processor": "Z80", "python": "3.13.1", "packages": {"numpy": "1.23.0", "tqdm": "1.0"}}
    edit_json(copy_of_stopped / "environment.json", lambda content: content.update(elsewhere))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "describe_environment", describe_environment)
        assert _resume(copy_of_stopped) == DONE
    messages = capsys.readouterr().err.splitlines()
    for sentence, (name, value) in zip(
        messages, (("python", "3.13.1"), ("processor", "Z80"), ("numpy", "1.23.0")), strict=True
    ):
        assert_names(sentence, f"{copy_of_stopped}", name, repr(value))


# --- code that is named in an untrusted folder

REPLACEMENTS = {
    "schedule": "schedule={name = 'Constant'}",
    "momentum": "momentum={name = 'Constant', base_lr = 0.5}",
    "wd": "wd={name = 'Constant', base_lr = 0.5}",
}

MARK = "mark-of-test-resume"

EVIL = """
from pathlib import Path
Path("{mark}").touch()
def run(iteration, **anything):
    return 0.1
"""


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({"schedule": {"name": "subprocess:Popen", "args": ["touch", MARK]}}, ["schedule.name=subprocess:Popen"]),
        ({"schedule": {"name": "os:system"}}, ["schedule.name=os:system"]),
        ({"schedule": {"name": "evil_of_test_resume:run"}}, ["schedule.name=evil_of_test_resume:run"]),
        (
            {"schedule": {"name": "Warmup", "warmup_steps": 3, "curve": {"name": "evil_of_test_resume:run"}}},
            ["schedule.curve.name=evil_of_test_resume:run"],
        ),
        (
            {
                "momentum": {"name": "evil_of_test_resume:run"},
                "wd": {
                    "name": "Sequential",
                    "boundaries": [4],
                    "curves": [{"name": "Constant", "base_lr": 0.1}, {"name": "evil_of_test_resume:run"}],
                },
                "optimizer": {"name": "sgd"},
            },
            ["momentum.name=evil_of_test_resume:run", "wd.curves[1].name=evil_of_test_resume:run"],
        ),
    ],
)
def test_code_that_an_untrusted_folder_names_is_not_run(
    sections: dict[str, Any],
    keys: list[str],
    copy_of_stopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "evil_of_test_resume.py").write_text(EVIL.format(mark=MARK), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = changed(SMALL, **sections)
    (copy_of_stopped / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    newest = copy_of_stopped / "checkpoints" / f"{MIDDLE:08}"
    edit_json(newest / "state.json", lambda state: state.update(config=config.to_tables()))
    sign(newest)
    for checkpoints_too in (False, True):
        if checkpoints_too:
            shutil.rmtree(copy_of_stopped / "checkpoints")
        # It is not run without other arguments, and not with additional or misspelt ones.
        for more in ((), ("--epochs", "9"), ("--set", f"{keys[0].replace('name=', 'nam=')}")):
            sentences = _refusal(copy_of_stopped, capsys, *more)
            for key in keys:
                name, code = key.split("=")
                start = f"{copy_of_stopped / 'config.toml'}: {name} "
                (sentence,) = [candidate for candidate in sentences if candidate.startswith(f"mnist-trainer: {start}")]
                assert_names(sentence, start, repr(code), f"--set {key if '[' not in key else repr(key)}")
        replaced = [REPLACEMENTS[section] for section in sections if section in REPLACEMENTS]
        _refusal(copy_of_stopped, capsys, "--epochs", "9", *(argument for text in replaced for argument in ("--set", text)))
        assert not (tmp_path / MARK).exists()


def test_code_that_the_user_names_again_is_run(
    tmp_path: Path, whole_run: WholeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_of_test_resume.py").write_text(COUNTING, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = changed(SMALL, training={"learning_rate": None}, schedule={"name": "own_of_test_resume:Falling", "start": 0.1})
    path = train(config, tmp_path / "run", MIDDLE)
    _refusal(path, capsys)
    _refusal(path, capsys, "--set", "schedule.name=own_of_test_resume:Other")  # a change like any other
    assert _resume(path, "--set", "schedule.name=own_of_test_resume:Falling") == DONE
    assert_same_run(path, whole_run(config))

    capsys.readouterr()
    (path / "curves.png").unlink()
    (path / "metrics.jsonl").rename(tmp_path / "metrics.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr("mnist_trainer.plots.plot_run", lambda folder, _: folder.read_metrics())
        assert _resume(path, "--set", "schedule.name=own_of_test_resume:Falling") == DONE
    stderr = capsys.readouterr().err
    assert str(path / "metrics.jsonl") in stderr
    assert stderr.endswith(f"train --resume {path} --set schedule.name=own_of_test_resume:Falling\n")


# --- numbers that are not finite

EVERY_4 = changed(SMALL, checkpoint={"every_iterations": 4})


def _assert_ends_at(path: Path, iteration: int, saved: int) -> None:
    assert [row[0] for row in RunFolder(path).read_iterations()] == list(range(1, iteration + 1))
    assert checkpoints(path)[-1] == saved
    assert not (path / "summary.json").exists()


@pytest.mark.parametrize(("iteration", "saved"), [(1, None), (7, 4), (8, 4), (11, 8), (12, 11)])
def test_a_loss_that_is_not_finite_stops_immediately(
    iteration: int, saved: int | None, whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = [1.0]

    def spoil(now: int, images: Any) -> Any:
        factor[0] = np.nan if now == iteration else 1.0
        return images

    class Spoiled(ScoredNetwork):
        def forward(self, images: Any, labels: Any) -> tuple[Any, Any]:
            loss_sum, correct = super().forward(images, labels)
            return loss_sum * factor[0], correct

    with monkeypatch.context() as patch:
        patch.setattr(network, "ScoredNetwork", Spoiled)
        with pytest.raises(RunError, match=rf"\bloss .*\bnan\b.* iteration {iteration} .*lower rates"):
            train(EVERY_4, tmp_path / "run", change=spoil)
    if saved is None:
        assert not (tmp_path / "run" / "checkpoints").exists()
    else:
        _assert_ends_at(tmp_path / "run", iteration, saved)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(SMALL))


@pytest.mark.parametrize(
    ("iteration", "saved", "value"), [(7, 4, np.nan), (8, 4, np.inf), (11, 8, np.nan), (12, 11, -np.inf), (22, 19, np.nan)]
)
def test_a_gradient_that_is_not_finite_stops_immediately(
    iteration: int,
    saved: int,
    value: float,
    whole_run: WholeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = ScheduledTrainer.step

    def spoiled_step(self: Any, batch_size: int) -> None:
        if self.iteration + 1 == iteration:
            self._params[3].list_grad()[0][0] = value
        step(self, batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(ScheduledTrainer, "step", spoiled_step)
        with pytest.raises(RunError, match=rf"\bgradient .*\bnan\b.* iteration {iteration} "):
            train(EVERY_4, tmp_path / "run")
    _assert_ends_at(tmp_path / "run", iteration, saved)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(SMALL))


def test_parameters_that_are_no_longer_finite_are_not_saved(
    whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ScheduledTrainer.step

    def spoiled_step(self: Any, batch_size: int) -> None:
        step(self, batch_size)
        if self.iteration == 8:
            self._params[3].list_data()[0][0] = np.inf

    with monkeypatch.context() as patch:
        patch.setattr(ScheduledTrainer, "step", spoiled_step)
        with pytest.raises(RunError, match=r"\bparameter .* iteration 8 "):
            train(EVERY_4, tmp_path / "run")
    _assert_ends_at(tmp_path / "run", 8, 4)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(SMALL))


@pytest.mark.parametrize("mode", ["optimizer", "manual"])
def test_a_rate_that_is_not_finite_stops_before_it_is_used(
    mode: str, whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "failing_of_test_resume", raising=False)
    (tmp_path / "failing_of_test_resume.py").write_text(
        "bad = True\ntimes = {}\n"
        "def rate(iteration):\n"
        "    times[iteration] = times.get(iteration, 0) + 1\n"
        "    return float('nan') if bad and iteration == 7 and times[7] > 1 else 0.1\n",  # not in the check before the run
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    config = changed(
        EVERY_4, training={"learning_rate": None, "scheduler_mode": mode}, schedule={"name": "failing_of_test_resume:rate"}
    )
    with pytest.raises(RunError, match=r"failing_of_test_resume:rate .*\bnan\b.* iteration 7\b"):
        train(config, tmp_path / "run")
    assert checkpoints(tmp_path / "run") == [4]
    monkeypatch.setattr(sys.modules["failing_of_test_resume"], "bad", False)
    assert_same_run(resume_run(tmp_path / "run"), whole_run(config))


def test_a_checkpoint_of_another_run_is_refused(copy_of_stopped: Path, tmp_path: Path) -> None:
    other = train(changed(SMALL, optimizer={"name": "adam"}, training={"learning_rate": 0.001}), tmp_path / "other", MIDDLE)
    for name in ("iterations.csv", "metrics.jsonl", "checkpoints"):
        target = copy_of_stopped / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        (shutil.copytree if (other / name).is_dir() else shutil.copyfile)(other / name, target)
    with pytest.raises(RequestError, match=r"optimizer\.name .*'sgd', .*'adam' in .*/checkpoints/"):
        resume_run(copy_of_stopped)


def test_an_epoch_of_these_runs_has_eleven_iterations() -> None:
    assert SMALL.run_length.iterations_per_epoch == ITERATIONS_PER_EPOCH == len(create_loaders(SMALL)[0])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(MemoryError(), "not enough memory", id="Python"),
        pytest.param(mx.MXNetError("Traceback:\n  Failed to allocate CPU Memory"), "not enough memory", id="MXNet"),
        pytest.param(
            mx.MXNetError("Traceback:\n  Check failed: a == b"), "MXNet failed: Check failed: a == b", id="not memory"
        ),
    ],
)
def test_a_run_that_fails_in_mxnet_or_lacks_memory_has_advice(error: Exception, reason: str, copy_of_stopped: Path) -> None:
    folder = RunFolder(copy_of_stopped)
    with pytest.raises(RunError) as caught, advice_on_failure(folder, SMALL, None):
        raise error
    assert_names(str(caught.value), reason, f"mnist-trainer train --resume {copy_of_stopped}")
    with pytest.raises(type(error)), advice_on_failure(UnwrittenRunFolder(copy_of_stopped), SMALL, None):
        raise error
