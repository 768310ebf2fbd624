"""`fit` with a Gluon user's own network, loaders and callbacks, and the parts that it refuses."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from command_line import assert_names, refused, run
from small_runs import spare_time, train

from mnist_trainer import Callback, create_trainer, evaluate, find_learning_rate, fit, seed_everything
from mnist_trainer.config.loading import load_config, load_recorded_config
from mnist_trainer.console import Console
from mnist_trainer.distributed.process_group import ProcessGroup
from mnist_trainer.errors import DONE, WRONG_REQUEST, Interrupted
from mnist_trainer.model.network import parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Constant, Cosine, MultiFactor
from mnist_trainer.training.callbacks import RunFolderWriter, TutorialLines
from mnist_trainer.training.records import EpochMetrics, History, IterationRecord, LoopState
from mnist_trainer.training.trainer import ScheduledTrainer

mx = import_mxnet()

TRAIN_IMAGES, TEST_IMAGES, BATCH_SIZE = 600, 200, 64


def create_mlp() -> Any:
    """Create a network of two dense layers. The shapes of its parameters are inferred from the first batch."""
    seed_everything(3)
    network = mx.gluon.nn.HybridSequential()
    network.add(mx.gluon.nn.Dense(32, activation="relu"), mx.gluon.nn.Dense(10))
    network.initialize(mx.init.Xavier())
    return network


class PlainMlp(mx.gluon.Block):  # type: ignore[misc,name-defined]
    """Computes the same function with the same parameters, as a Block that cannot be hybridized."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Any) -> Any:
        assert images.shape[1:] == (1, 28, 28), "an array, not a symbol"
        return self.network(images)


@pytest.fixture(scope="module")
def loaders(data_dir: Path) -> tuple[Any, Any]:
    """Create Gluon's own DataLoaders over Gluon's own dataset, for training and test."""
    to_tensor = mx.gluon.data.vision.transforms.ToTensor()
    train, test = (
        mx.gluon.data.vision.MNIST(str(data_dir), train=is_train).take(images).transform_first(to_tensor)
        for is_train, images in ((True, TRAIN_IMAGES), (False, TEST_IMAGES))
    )
    return mx.gluon.data.DataLoader(train, BATCH_SIZE), mx.gluon.data.DataLoader(test, BATCH_SIZE)


def gluon_loop(network: Any, loader: Any, schedule: Any, epochs: int) -> list[float]:
    """Train as a Gluon user does without this program; return the mean loss of each batch."""
    trainer = mx.gluon.Trainer(network.collect_params(), mx.optimizer.SGD(learning_rate=None, lr_scheduler=schedule))
    loss_function = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    losses = []
    for _ in range(epochs):
        for images, labels in loader:
            with mx.autograd.record():
                loss = loss_function(network(images), labels)
            loss.backward()
            trainer.step(len(images))
            losses.append(float(loss.mean().asscalar()))
    return losses


class Losses(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        self.losses += [record.loss for record in records]


@pytest.mark.parametrize("kind", ["HybridBlock", "Block"])
def test_the_users_network_and_loader_train_as_in_gluons_own_loop(kind: str, loaders: tuple[Any, Any]) -> None:
    schedule = Cosine(max_update=20, base_lr=0.1)
    theirs = create_mlp()
    expected = gluon_loop(theirs, loaders[0], schedule, 2)

    mlp = create_mlp()
    network = mlp if kind == "HybridBlock" else PlainMlp(mlp)
    losses = Losses()
    trainer = create_trainer(network.collect_params(), schedule)
    history = fit(network, *loaders, trainer, 2, callbacks=[losses])
    assert losses.losses == pytest.approx(expected, rel=1e-6)
    assert parameters_sha256(mlp) == parameters_sha256(theirs)
    assert history[-1].train.total == TRAIN_IMAGES
    assert history[-1].test == evaluate(network, loaders[1])
    assert history[-1].test
    assert history[-1].test.total == TEST_IMAGES


def test_a_list_of_batches_is_a_loader(loaders: tuple[Any, Any]) -> None:
    train, test = map(list, loaders)
    network = create_mlp()
    history = fit(network, train, test, create_trainer(network.collect_params(), Constant(0.1)), 1)
    assert history[0].test
    assert (history[0].iteration, history[0].test.total) == (10, TEST_IMAGES)


def test_without_test_images_the_training_is_the_same_and_nothing_is_evaluated(
    loaders: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder.create(tmp_path / "run")
    callbacks = [RunFolderWriter(folder), TutorialLines(Console(), Constant(0.1), 10)]
    network = create_mlp()
    with_test = fit(network, *loaders, create_trainer(network.collect_params(), Constant(0.1)), 1)
    expected = parameters_sha256(network)
    network = create_mlp()
    trainer = create_trainer(network.collect_params(), Constant(0.1))
    without = fit(network, loaders[0], None, trainer, 1, callbacks=callbacks)
    assert parameters_sha256(network) == expected
    assert with_test[0].test
    assert without[0].test is None
    assert without[0].train == with_test[0].train
    assert "Test" not in capsys.readouterr().out
    (row,) = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert row == without[0].to_row()
    assert {"test_loss", "test_accuracy"}.isdisjoint(row)
    assert "train_loss" in row


def test_metrics_are_printed_as_a_table(loaders: tuple[Any, Any]) -> None:
    network = create_mlp()
    trainer = create_trainer(network.collect_params(), MultiFactor(step=[10], factor=0.1, base_lr=0.03))
    history = fit(network, loaders[0], None, trainer, 2, validation_loader=loaders[1])
    assert isinstance(history, list)
    assert [metrics.epoch for metrics in history] == [1, 2]
    headings, first, last = map(str.split, str(history).splitlines())
    names = ["epoch", "learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    assert headings == names
    for metrics, row, rate in zip(history, (first, last), ("0.03", "0.003"), strict=True):
        assert row[:2] == [str(metrics.epoch), rate]
        assert list(map(float, row[2:])) == pytest.approx([metrics.to_row()[name] for name in names[2:]], abs=5e-5)
    rows = ElementTree.fromstring(history._repr_html_()).iter("tr")
    assert [[cell.text for cell in row] for row in rows] == [headings, first, last]
    assert repr(history).startswith("[EpochMetrics(")


def test_the_table_without_epochs_has_headings() -> None:
    assert str(History()).split() == ["epoch", "learning_rate"]


def test_a_learning_rate_is_found_for_the_users_network(loaders: tuple[Any, Any]) -> None:
    network = create_mlp()
    sweep = find_learning_rate(network, loaders[0], end_lr=1.0, iterations=30)
    assert len(sweep.rows) == 30
    known = create_mlp()
    known(next(iter(loaders[0]))[0])  # infers its shapes
    assert find_learning_rate(known, loaders[0], end_lr=1.0, iterations=30).rows == sweep.rows
    assert parameters_sha256(network) == parameters_sha256(known)


def test_a_sweep_needs_an_initialized_network(loaders: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"network\.initialize\(\)"):
        find_learning_rate(mx.gluon.nn.Dense(10), loaders[0])


class Order(Callback):
    """Records its calls, in order with those of other callbacks."""

    def __init__(self, name: str, calls: list[str], end_at: int | None = None) -> None:
        self.name, self.calls, self.end_at = name, calls, end_at

    def on_epoch_begin(self, state: LoopState) -> None:
        self.calls.append(f"{self.name} begins {state.epoch}: {state.batch} of {state.batches_per_epoch}")

    def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
        self.calls.append(f"{self.name} {records[0].iteration} to {records[-1].iteration}, batch {state.batch}")
        if state.batch == self.end_at:
            raise Interrupted(records[-1].iteration)

    def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
        self.calls.append(f"{self.name} ends {metrics.epoch}")

    def wants_sync(self, trainer: ScheduledTrainer) -> bool:
        return trainer.iteration == 4


def test_callbacks_are_called_in_order(loaders: tuple[Any, Any]) -> None:
    network = create_mlp()
    calls: list[str] = []
    trainer = create_trainer(network.collect_params(), Constant(0.1))
    fit(network, *loaders, trainer, 1, callbacks=[Order("a", calls), Order("b", calls)])
    assert calls == [
        f"{name} {event}"
        for event in ("begins 1: 0 of 10", "1 to 1, batch 1", "2 to 4, batch 4", "5 to 10, batch 10", "ends 1")
        for name in "ab"
    ]


def test_the_time_before_an_epoch_is_not_part_of_it(loaders: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Waits(Callback):
        def on_epoch_begin(self, state: LoopState) -> None:
            nonlocal now
            now += 100

        def on_iterations(self, records: Sequence[IterationRecord], state: LoopState) -> None:
            nonlocal now
            now += 1

    monkeypatch.setattr("mnist_trainer.training.records.time", SimpleNamespace(perf_counter=lambda: now))
    network = create_mlp()
    history = fit(network, *loaders, create_trainer(network.collect_params(), Constant(0.1)), 2, callbacks=[Waits()])
    assert [metrics.epoch_seconds for metrics in history] == [2, 2]  # one for the first iteration, one for the others


def test_a_callback_ends_the_loop_by_raising(loaders: tuple[Any, Any]) -> None:
    network = create_mlp()
    calls: list[str] = []
    trainer = create_trainer(network.collect_params(), Constant(0.1))
    with pytest.raises(Interrupted, match="4"):
        fit(network, *loaders, trainer, 1, callbacks=[Order("a", calls, end_at=4), Order("b", calls)])
    assert calls[-1] == "a 2 to 4, batch 4"
    assert trainer.iteration == 4


def test_a_loader_that_cannot_seek_is_not_resumed_within_an_epoch(loaders: tuple[Any, Any]) -> None:
    network = create_mlp()
    trainer = create_trainer(network.collect_params(), Constant(0.1))
    with pytest.raises(ValueError, match=r"DataLoader .*\bseek\b.* epoch 2"):
        fit(network, *loaders, trainer, 2, state=LoopState(epoch=2, batch=3))
    assert trainer.iteration == 0
    assert len(fit(network, *loaders, trainer, 2, state=LoopState(epoch=2))) == 1  # it is resumed at the beginning of an epoch


def test_a_loader_of_whole_batches_is_refused_for_several_processes(loaders: tuple[Any, Any]) -> None:
    class TwoProcesses(ProcessGroup):
        world_size = 2

    network = create_mlp()
    trainer = create_trainer(network.collect_params(), Constant(0.1), process_group=TwoProcesses())
    with pytest.raises(ValueError, match=r"DataLoader .*\bbatch_size_of\b.*processes"):
        fit(network, *loaders, trainer, 1)


@pytest.mark.parametrize("yielded", [0, 3, 5])
def test_a_loader_of_another_length_is_refused(yielded: int, loaders: tuple[Any, Any]) -> None:
    class OfLengthFour(list[Any]):
        def __len__(self) -> int:
            return 4

    network = create_mlp()
    batches = OfLengthFour(list(loaders[0])[:yielded])
    with pytest.raises(ValueError, match=rf"OfLengthFour .*\b4\b.*\b{yielded}\b"):
        fit(network, batches, loaders[1], create_trainer(network.collect_params(), Constant(0.1)), 1)


def test_evaluation_needs_images() -> None:
    with pytest.raises(ValueError, match="no images"):
        evaluate(create_mlp(), [])


def test_a_plain_gluon_trainer_is_refused(loaders: tuple[Any, Any]) -> None:
    network = create_mlp()
    trainer = mx.gluon.Trainer(network.collect_params(), "sgd")
    with pytest.raises(TypeError, match=r"Trainer.*create_trainer"):
        fit(network, *loaders, trainer, 1)


@pytest.mark.parametrize("callback", [Callback, print])
def test_a_callback_of_another_kind_is_refused(callback: Any, loaders: tuple[Any, Any]) -> None:
    network = create_mlp()
    with pytest.raises(TypeError, match=r"callbacks .*mnist_trainer\.Callback"):
        fit(network, *loaders, create_trainer(network.collect_params(), Constant(0.1)), 1, callbacks=[callback])


# --- on the command line

MY_NETWORKS = """
import mxnet as mx

def mlp():
    network = mx.gluon.nn.HybridSequential()
    network.add(mx.gluon.nn.Dense(32, activation="relu"), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dense(10))
    return network

class Plain(mx.gluon.Block):
    def __init__(self):
        super().__init__()
        self.dense = mx.gluon.nn.Dense(10)
    def forward(self, images):
        return self.dense(images)

def five_digits():
    return mx.gluon.nn.Dense(5)

def fails():
    raise KeyError("no such layer")

class FailsLater(mx.gluon.Block):
    def forward(self, images):
        raise ValueError("bad shape")

def text():
    return "mlp"

number = 7
"""


def line_of(text: str) -> int:
    """Return the line of MY_NETWORKS that contains a text."""
    return next(number for number, line in enumerate(MY_NETWORKS.splitlines(), 1) if text in line)


SMALL_RUN = ("--train-images", "320", "--test-images", "50", "--epochs", "2", "--threads", "1", "--quiet")


@pytest.fixture
def my_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write a user's module into the current folder, for runs without figures."""
    spare_time(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_networks.py").write_text(MY_NETWORKS, encoding="utf-8")
    yield
    sys.modules.pop("my_networks", None)


@pytest.mark.usefixtures("my_networks")
@pytest.mark.parametrize("name", ["mlp", "Plain"])
def test_a_run_with_the_users_network_is_trained_resumed_and_evaluated(name: str, tmp_path: Path) -> None:
    own = f"model.network=my_networks:{name}"
    assert run("train", *SMALL_RUN, "--set", own, "--output", "run").code == DONE
    config = load_recorded_config(tmp_path / "run" / "config.toml")
    assert (config.model.network, config.model.backend) == (f"my_networks:{name}", "stock")

    stopped = train(load_config("run/config.toml"), tmp_path / "stopped", stop_at=3)
    assert run("train", "--resume", stopped, "--set", own, "--quiet").code == DONE
    whole, resumed = (RunFolder(tmp_path / folder).read_summary() for folder in ("run", "stopped"))
    assert resumed["parameters_sha256"] == whole["parameters_sha256"]

    for device in ("cpu", "cpu:1"):
        _, out, _ = run("evaluate", "run", "--network", f"my_networks:{name}", "--device", device)
        assert out.startswith(f"Test accuracy {whole['test_accuracy']:.2%} ")


@pytest.mark.usefixtures("my_networks")
def test_a_network_that_has_changed_since_the_run_is_refused(tmp_path: Path) -> None:
    own = "my_networks:mlp"
    assert run("train", *SMALL_RUN, "--set", f"model.network={own}", "--output", "run").code == DONE
    train(load_config("run/config.toml"), tmp_path / "stopped", stop_at=3)
    (problem,) = refused("evaluate", "stopped", "--network", own)
    assert_names(problem, "stopped: ", "mnist-trainer train --resume stopped")
    assert "--set" not in problem  # only the user confirms code
    # Python reuses the compiled file of a module with the same size that was written in the same second.
    changed = MY_NETWORKS.replace("Dense(32", "Dense(48") + "# another network\n"
    (tmp_path / "my_networks.py").write_text(changed, encoding="utf-8")
    del sys.modules["my_networks"]
    code, _, err = run("train", "--resume", "stopped", "--set", f"model.network={own}", "--quiet")
    assert code == WRONG_REQUEST
    assert_names(err, "", "stopped/checkpoints", "(32, 784)", "(48, 784)", f"the code of {own}", "restore it")
    (problem,) = refused("evaluate", "run", "--network", own)
    assert_names(problem, "run/model.params: ", f"the code of {own}")


@pytest.mark.usefixtures("my_networks")
def test_the_users_network_is_exported_if_it_is_a_hybrid_block(tmp_path: Path) -> None:
    for name in ("mlp", "Plain"):
        own = f"my_networks:{name}"
        assert run("train", *SMALL_RUN, "--set", f"model.network={own}", "--output", name).code == DONE
        export = ("export", name, "--network", own, "--format", "mxnet", "--output", tmp_path / f"{name}-model")
        if name == "mlp":
            assert run(*export).code == DONE
        else:
            (problem,) = refused(*export)
            assert_names(problem, "model.network", "HybridBlock")
    assert {path.name for path in tmp_path.glob("*-model*")} == {"mlp-model-symbol.json", "mlp-model-0000.params"}


@pytest.mark.usefixtures("my_networks")
def test_a_network_with_statistics_is_refused_on_several_devices() -> None:
    shared = ("train", *SMALL_RUN, "--device", "cpu:0,1", "--set")
    (problem,) = refused(*shared, "model.network=my_networks:mlp", "--output", "run")
    assert_names(problem, "model.network = my_networks:mlp", "running_mean", "one device")
    assert run(*shared, "model.network=my_networks:Plain", "--output", "run").code == DONE


@pytest.mark.usefixtures("my_networks")
def test_the_benchmark_trains_the_tutorials_network() -> None:
    (problem,) = refused("benchmark", "--implementations", "ours", "--set", "model.network=my_networks:mlp")
    assert_names(problem, "model.network", "benchmark")


@pytest.mark.usefixtures("my_networks")
def test_the_code_of_a_folder_runs_only_when_it_is_named(tmp_path: Path) -> None:
    assert run("train", *SMALL_RUN, "--set", "model.network=my_networks:mlp", "--output", "run").code == DONE
    (tmp_path / "my_networks.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    del sys.modules["my_networks"]
    for command in ("evaluate", "demo", "export --format mxnet", "predict"):
        arguments = [*command.split(), "run", *(["picture.png"] if command == "predict" else [])]
        (problem,) = refused(*arguments)
        assert_names(problem, "run: ", "model.network", "'my_networks:mlp'", "--network my_networks:mlp")
        (problem,) = refused(*arguments, "--network", "my_networks:Plain")
        assert_names(problem, "--network my_networks:Plain: ", "my_networks:mlp")
    code, out, err = run("train", "--resume", "run")
    assert (code, err) == (DONE, "")
    assert_names(out, "run: ", "finished")
    (tmp_path / "run" / "summary.json").unlink()
    (problem,) = refused("train", "--resume", "run")
    assert_names(problem, "run", "model.network", "--set model.network=my_networks:mlp")
    assert "my_networks" not in sys.modules


@pytest.mark.usefixtures("my_networks")
@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("my_networks:five_digits", ("(2, 5)", "(2, 10)")),
        ("my_networks:fails", ("KeyError", "no such layer", f"(my_networks.py, line {line_of('no such layer')})")),
        ("my_networks:FailsLater", ("ValueError", "bad shape", f"(my_networks.py, line {line_of('bad shape')})")),
        ("my_networks:text", ("'mlp'", "Block")),
        ("my_networks:number", ("7", "cannot be called")),
        ("my_networks:cnn", ("my_networks", "'cnn'")),
        ("no_networks:mlp", ("no_networks", "imported")),
        ("my_networks.py:mlp", ("write my_networks:mlp, without .py",)),
        ("mlp", ("module:function", "my_networks:mlp")),
        ("my networks:mlp", ("module:function", "my_networks:mlp")),
        ("my_networks:", ("module:function", "the function after the colon is missing")),
        (":mlp", ("module:function", "the module before the colon is missing")),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused(network: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (problem,) = refused("train", *SMALL_RUN, "--set", f"model.network={network}", "--output", "run")
    assert_names(problem, "", "model.network", network, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("my_networks")
def test_the_fused_backend_is_only_for_the_tutorials_network() -> None:
    (problem,) = refused("train", "--set", "model.network=my_networks:mlp", "--set", "model.backend=fused", "--output", "run")
    assert_names(problem, "model.backend = fused", "auto", "model.network")


def test_the_tutorials_network_needs_no_flag(trained_run: Path) -> None:
    (problem,) = refused("evaluate", trained_run, "--network", "my_networks:mlp")
    assert_names(problem, "--network my_networks:mlp: ", "the tutorial's")
