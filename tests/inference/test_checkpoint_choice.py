"""`--checkpoint best|last|ITERATION`: each command uses the parameters that were asked for."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Program
from PIL import Image
from small_runs import SMALL, changed, checkpoints, contents, sign, spare_time, train

from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.data.mnist_files import find_data_dir, read_split
from mnist_trainer.errors import RequestError
from mnist_trainer.folder import Folder
from mnist_trainer.inference.predictor import Model, open_model
from mnist_trainer.model.network import build_cnn, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.training.checkpoint import read

# The last epoch makes the network worse.
TWO_RATES = {
    "name": "Sequential",
    "boundaries_epochs": [2],
    "curves": [{"name": "Constant", "base_lr": 0.05}, {"name": "Constant", "base_lr": 1.0}],
}
CONFIG = changed(
    SMALL,
    training={"epochs": 3, "learning_rate": None},
    data={"validation_images": 40},
    schedule=TWO_RATES,
    checkpoint={"every_iterations": 4, "keep": 9},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        spare_time(monkeypatch)
        yield train(CONFIG, tmp_path_factory.mktemp("chosen") / "run")


def opened(path: Path, checkpoint: str | int) -> Model:
    return open_model(RunFolder.open(path), load_recorded_config(path / "config.toml"), checkpoint)


def test_each_checkpoint_has_its_own_parameters_and_accuracy(run: Path) -> None:
    summary, metrics = RunFolder(run).read_summary(), RunFolder(run).read_metrics()
    assert summary["best_epoch"] == 2
    last, best = opened(run, "last"), opened(run, "best")
    assert last.parameters_sha256 == summary["parameters_sha256"] != best.parameters_sha256
    assert best.parameters_sha256 == summary["best_parameters_sha256"]
    assert [last.test_accuracy, best.test_accuracy] == [metrics[2]["test_accuracy"], metrics[1]["test_accuracy"]]
    net = build_cnn()
    net.load_parameters(str(run / "best.params"))
    assert parameters_sha256(net) == best.parameters_sha256
    ends = [row["iteration"] for row in metrics]
    assert checkpoints(run) == [4, ends[0], ends[0] + 4, ends[1], ends[1] + 4, ends[2]]
    assert opened(run, ends[1]).parameters_sha256 == best.parameters_sha256
    assert opened(run, ends[1]).test_accuracy == best.test_accuracy
    assert opened(run, ends[2]).parameters_sha256 == last.parameters_sha256
    assert opened(run, 4).test_accuracy is None
    assert len({opened(run, iteration).parameters_sha256 for iteration in checkpoints(run)}) == 6


def test_a_checkpoint_of_an_unfinished_run_can_be_used(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "summary.json").unlink()
    assert opened(copy, 4).parameters_sha256 == opened(run, 4).parameters_sha256
    for checkpoint in ("best", "last"):
        with pytest.raises(RequestError, match=f"not finished.*--checkpoint {checkpoints(run)[-1]}"):
            opened(copy, checkpoint)


def test_a_missing_checkpoint_is_refused_with_those_that_exist(run: Path) -> None:
    with pytest.raises(RequestError, match=r"--checkpoint 5: .*there are 4, "):
        opened(run, 5)


def test_a_run_without_validation_images_has_no_best_epoch(trained_run: Path) -> None:
    with pytest.raises(RequestError, match=r"--checkpoint best: .*validation.*--checkpoint last"):
        opened(trained_run, "best")


def test_missing_or_exchanged_best_parameters_are_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.copy(copy / "model.params", copy / "best.params")
    with pytest.raises(RequestError, match=r"best\.params.*best_parameters_sha256"):
        opened(copy, "best")
    (copy / "best.params").unlink()
    with pytest.raises(RequestError, match=r"best\.params: missing.*train it again"):
        opened(copy, "best")
    (copy / "best.params").symlink_to(run / "best.params")
    with pytest.raises(RequestError, match=r"best\.params"):
        opened(copy, "best")


def test_a_strangers_checkpoint_is_checked(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    checkpoint = copy / "checkpoints" / "00000004"
    arrays: dict[str, Any] = dict(read(Folder(checkpoint)).arrays)
    np.savez(checkpoint / "arrays.npz", **arrays | {"parameter.1": np.zeros(3, np.float32)})
    with pytest.raises(RequestError, match=r"00000004.*damaged"):
        opened(copy, 4)
    sign(checkpoint)
    with pytest.raises(RequestError, match=r"00000004.*shape"):
        opened(copy, 4)


def test_metrics_that_cannot_be_read_leave_the_model_usable(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "metrics.jsonl").write_text("nonsense\n", encoding="utf-8")
    assert opened(copy, "best").test_accuracy is None


# --- the commands


@pytest.mark.process
def test_evaluations_of_other_parameters_have_other_names(run: Path, program: Program, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    assert program("evaluate", "run").returncode == 0
    before = contents(copy)
    for checkpoint in ("best", "4"):
        done = program("evaluate", "run", "--checkpoint", checkpoint)
        assert done.returncode == 0, done.stderr
        assert f"Checkpoint {checkpoint}: Test accuracy" in done.stdout
        record = json.loads((copy / f"evaluation_{checkpoint}.json").read_bytes())
        assert str(record["checkpoint"]) == checkpoint
        assert record["parameters_sha256"] == opened(run, checkpoint if checkpoint == "best" else 4).parameters_sha256
    after = contents(copy)
    names = ("evaluation.json", "confusion_matrix.png", "mistakes.png")
    added = {name.replace(".", f"_{checkpoint}.") for name in names for checkpoint in ("best", "4")}
    assert after.keys() - before.keys() == added
    assert {name: after[name] for name in before} == before


@pytest.mark.process
def test_predict_and_export_take_a_checkpoint(run: Path, program: Program, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    done = program("export", "run", "--format", "mxnet", "--checkpoint", "best")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model_best-0000.params").exists()
    Image.fromarray(read_split(find_data_dir(None), train=False).images[0]).resize((56, 56)).save(tmp_path / "digit.png")
    answers = {}
    for checkpoint in ("best", "last"):
        done = program("predict", "run", "digit.png", "--json", "--checkpoint", checkpoint)
        assert done.returncode == 0, done.stderr
        answers[checkpoint] = json.loads(done.stdout)
    assert answers["best"] != answers["last"]  # other probabilities


def test_the_best_parameters_do_not_need_those_of_the_end(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "model.params").unlink()
    assert opened(copy, "best").parameters_sha256 == opened(run, "best").parameters_sha256
    with pytest.raises(RequestError, match=r"model\.params: missing"):
        opened(copy, "last")


@pytest.mark.process
@pytest.mark.parametrize("value", ["worst", "0", "-1", "1.5", ""])
def test_a_wrong_checkpoint_is_refused(value: str, program: Program) -> None:
    done = program("evaluate", "run", f"--checkpoint={value}")
    assert done.returncode == 2
    assert f"--checkpoint {value}" in done.stderr
    assert "best" in done.stderr
