"""The best epoch and early stopping: the rule, runs that stop, their files, and their resumption."""

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Program
from small_runs import SMALL, assert_same_run, changed, checkpoints, edit_json, resume_run, sign, spare_time, train

from mnist_trainer import build_cnn, create_loaders, create_trainer, fit, initialize, load_config
from mnist_trainer.errors import RequestError, RunError
from mnist_trainer.fields import FieldError
from mnist_trainer.folder import Folder
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet
from mnist_trainer.schedules import Constant
from mnist_trainer.training.callbacks import Callback
from mnist_trainer.training.checkpoint import read
from mnist_trainer.training.early_stopping import EarlyStopping
from mnist_trainer.training.records import EpochMetrics, LoopState

mx = import_mxnet()


def two_rates(first: float, second: float) -> dict[str, Any]:
    """Return a schedule with another rate after two epochs."""
    curves = [{"name": "Constant", "base_lr": first}, {"name": "Constant", "base_lr": second}]
    return {"name": "Sequential", "boundaries_epochs": [2], "curves": curves}


# At the second rate nothing improves, so the run stops two epochs after its best.
STOPPING = changed(
    SMALL,
    training={"epochs": 7, "learning_rate": None},
    data={"validation_images": 40},
    early_stopping={"patience": 2, "min_delta": 0.001},
    schedule=two_rates(0.05, 1e-9),
)


@pytest.fixture(autouse=True)
def _spare_time(request: pytest.FixtureRequest) -> None:
    if "process" not in request.keywords:
        spare_time(request.getfixturevalue("monkeypatch"))


def rows_of(losses: Sequence[float]) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "validation_loss": loss, "validation_accuracy": 1 - loss} for epoch, loss in enumerate(losses, start=1)
    ]


# --- the rule


def keras(scores: Sequence[float], metric: str, patience: int, min_delta: float) -> tuple[int, int | None]:
    """Return the best epoch and the epoch after which to stop, as in the source of Keras 3's EarlyStopping."""
    better = np.less if metric == "loss" else np.greater
    signed_delta = -min_delta if metric == "loss" else min_delta
    best, best_epoch, wait = None, 0, 0
    for epoch, score in enumerate(scores, start=1):
        wait += 1
        if best is None or better(score - signed_delta, best):
            best, best_epoch, wait = score, epoch, 0
            continue
        if wait >= patience:
            return best_epoch, epoch
    return best_epoch, None


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_the_rule_is_that_of_keras(metric: str) -> None:
    chance = random.Random(0)
    stops = 0
    for _ in range(500):
        # Multiples of 1/64, so that sums are exact and some differences are equal to min_delta.
        losses = [chance.randint(0, 32) / 64 for _ in range(12)]
        patience, min_delta = chance.randint(1, 4), chance.choice([0, 1 / 64, 1 / 16])
        rows = rows_of(losses)
        best, stop = keras([row[f"validation_{metric}"] for row in rows], metric, patience, min_delta)
        ended = next(
            (
                epoch
                for epoch in range(1, 13)
                if EarlyStopping(metric, patience, min_delta, completed=rows[:epoch]).stopped_because is not None
            ),
            None,
        )
        assert ended == stop
        found = EarlyStopping(metric, patience, min_delta, completed=rows[:stop]).best
        assert found is not None
        assert found["epoch"] == best
        stops += stop is not None
    assert 100 < stops < 500


def test_without_patience_nothing_stops_and_the_first_of_equal_epochs_is_the_best() -> None:
    early_stopping = EarlyStopping(completed=rows_of([0.5, 0.25, 0.25, 0.75] * 20))
    assert early_stopping.stopped_because is None
    assert early_stopping.best is not None
    assert early_stopping.best["epoch"] == 2


@pytest.mark.parametrize(
    "arguments", [{"metric": "test_loss"}, {"patience": 0}, {"patience": 1.5}, {"min_delta": -1}, {"min_delta": float("nan")}]
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=next(iter(arguments))):
        EarlyStopping(**arguments)


# --- fit


def small_fit(callbacks: Sequence[Callback], *, validates: bool = True) -> list[EpochMetrics]:
    config = load_config("quick", {"data.train_images": 640, "data.test_images": 100})
    train_loader, test_loader = create_loaders(config)
    network = build_cnn()
    initialize(network)
    trainer = create_trainer(network.collect_params(), Constant(0.0), "manual")
    validation_loader = test_loader if validates else None
    return fit(network, train_loader, test_loader, trainer, 5, callbacks=callbacks, validation_loader=validation_loader)


def test_it_stops_fit() -> None:
    history = small_fit([EarlyStopping(patience=2)])
    assert [metrics.epoch for metrics in history] == [1, 2, 3]


def test_any_callback_stops_fit_after_the_current_epoch() -> None:
    class Enough(Callback):
        def on_iterations(self, records: Any, state: LoopState) -> None:
            if state.epoch == 2:
                state.stopped_because = "enough"

    [*_, last] = small_fit([Enough()])
    assert (last.epoch, last.iteration) == (2, 20)


def test_the_reason_of_another_callback_is_kept() -> None:
    class Enough(Callback):
        def on_epoch_begin(self, state: LoopState) -> None:
            state.stopped_because = "enough"

    class Reason(Callback):
        def on_epoch_end(self, metrics: EpochMetrics, state: LoopState) -> None:
            reasons.append(state.stopped_because)

    reasons: list[str | None] = []
    assert len(small_fit([Enough(), EarlyStopping(patience=2), Reason()])) == 1
    assert reasons == ["enough"]


def test_patience_needs_validation_results() -> None:
    class NoEpoch(Callback):
        def on_epoch_begin(self, state: LoopState) -> None:
            raise AssertionError("the training has begun")

    with pytest.raises(ValueError, match="validation_loader"):
        small_fit([NoEpoch(), EarlyStopping(patience=2)], validates=False)
    assert len(small_fit([EarlyStopping()], validates=False)) == 5


# --- runs


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        spare_time(monkeypatch)
        yield train(STOPPING, tmp_path_factory.mktemp("stopped") / "run")


def parameters(path: Path) -> dict[str, Any]:
    return {name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()}


def test_a_run_stops_early_and_keeps_its_best_epoch(stopped: Path) -> None:
    folder = RunFolder(stopped)
    summary, metrics = folder.read_summary(), folder.read_metrics()
    losses = [row["validation_loss"] for row in metrics]
    best = losses.index(min(losses)) + 1
    assert summary["best_epoch"] == best
    assert summary["epochs"] == len(metrics) == best + 2 < 7
    assert summary["best_validation_loss"] == min(losses)
    assert "validation loss" in summary["stopped_because"]
    assert "2 epochs" in summary["stopped_because"]


def test_best_params_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    # The rate of the last epoch makes the network worse.
    config = changed(
        STOPPING, training={"epochs": 3}, early_stopping={"patience": None, "min_delta": 0}, schedule=two_rates(0.05, 1)
    )
    config = changed(config, checkpoint={"keep": 1})
    run = train(config, tmp_path / "run")
    shorter = train(changed(config, training={"epochs": 2}), tmp_path / "shorter")
    summary = RunFolder(run).read_summary()
    assert (summary["best_epoch"], summary["epochs"], summary["stopped_because"]) == (2, 3, None)
    for name, values in parameters(shorter / "model.params").items():
        np.testing.assert_array_equal(parameters(run / "best.params")[name], values)
    assert summary["best_parameters_sha256"] == RunFolder(shorter).read_summary()["parameters_sha256"]
    assert summary["parameters_sha256"] != summary["best_parameters_sha256"]
    iterations_per_epoch = config.run_length.iterations_per_epoch
    assert checkpoints(run) == [2 * iterations_per_epoch, 3 * iterations_per_epoch]


def test_a_run_without_validation_images_has_no_best_params(tmp_path: Path) -> None:
    run = train(changed(SMALL, training={"epochs": 1}), tmp_path / "run")
    assert not (run / "best.params").exists()
    summary = RunFolder(run).read_summary()
    assert summary["stopped_because"] is None
    assert not [key for key in summary if key.startswith("best")]


def test_both_modes_stop_at_the_same_epoch(stopped: Path, tmp_path: Path) -> None:
    other = train(changed(STOPPING, training={"scheduler_mode": "manual"}), tmp_path / "run")
    for name in ("iterations.csv", "model.params", "best.params"):
        assert (other / name).read_bytes() == (stopped / name).read_bytes()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_stops_at_the_same_epoch(epoch: int, stopped: Path, tmp_path: Path) -> None:
    run = train(STOPPING, tmp_path / "run", epoch * STOPPING.run_length.iterations_per_epoch + 1)
    resume_run(run)
    assert_same_run(run, stopped, "best.params")


def test_a_run_that_was_killed_before_its_summary_trains_no_further_epoch(stopped: Path, tmp_path: Path) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    for name in ("summary.json", "best.params", "model.params"):
        (run / name).unlink()
    resume_run(run)
    assert_same_run(run, stopped, "best.params")


def test_a_damaged_checkpoint_of_the_best_epoch_is_an_error_that_names_it(stopped: Path, tmp_path: Path) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    (run / "summary.json").unlink()
    best = checkpoints(run)[0]
    (run / "checkpoints" / f"{best:08}" / "arrays.npz").write_bytes(b"")
    with pytest.raises(RequestError, match=f"{best:08}.*best"):
        resume_run(run)
    assert not (run / "summary.json").exists()
    shutil.copytree(stopped / "checkpoints", run / "checkpoints", dirs_exist_ok=True)
    resume_run(run)
    assert (run / "best.params").read_bytes() == (stopped / "best.params").read_bytes()


def test_a_strangers_checkpoint_of_the_best_epoch_has_other_parameters(stopped: Path, tmp_path: Path) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    (run / "summary.json").unlink()
    best = run / "checkpoints" / f"{checkpoints(run)[0]:08}"
    arrays = dict(read(Folder(best)).arrays)
    arrays["parameter.0"] = np.zeros((1, 2), np.float32)
    np.savez(best / "arrays.npz", **arrays)  # type: ignore[arg-type]
    sign(best)
    with pytest.raises(RunError, match="shape"):
        resume_run(run)


@pytest.mark.parametrize(
    "change",
    [
        {"best_epoch": 99},
        {"best_epoch": "1"},
        {"best_epoch": 0},
        {"best_parameters_sha256": None},
        {"stopped_because": ["x"]},
    ],
)
def test_a_wrong_summary_is_refused(change: dict[str, Any], stopped: Path, tmp_path: Path) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    edit_json(run / "summary.json", lambda summary: summary.update(change))
    with pytest.raises(Exception, match=r"summary\.json.*damaged"):
        RunFolder(run).read_summary()


# --- the command line


@pytest.mark.process
def test_patience_needs_validation_images(program: Program, tmp_path: Path) -> None:
    outcome = program("train", "--set", "early_stopping.patience=2", "--output", "run")
    assert outcome.returncode == 2
    assert "early_stopping.patience=2" in outcome.stderr
    assert "data.validation_images" in outcome.stderr
    assert not (tmp_path / "run").exists()
