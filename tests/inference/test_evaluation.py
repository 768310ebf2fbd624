"""`evaluate`: its scores compared with an independent count and with the summary, and the files that it writes."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_names
from conftest import Program
from drawn_digits import drawn_digits
from matplotlib.image import imread
from programs import run_python
from small_runs import edit_json

from mnist_trainer import plots
from mnist_trainer.cli import main
from mnist_trainer.config.loading import load_recorded_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.data.loaders import create_test_loader
from mnist_trainer.data.mnist_files import Split
from mnist_trainer.errors import FAILED
from mnist_trainer.inference.evaluation import Evaluation, evaluate_run, table, write_evaluation
from mnist_trainer.model.network import build_cnn, parameters_sha256
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.runtime import import_mxnet

mx = import_mxnet()

FILES = ["confusion_matrix.png", "evaluation.json", "mistakes.png"]


def evaluated(path: Path, *overrides: Override) -> Evaluation:
    return evaluate_run(RunFolder.open(path), load_recorded_config(path / "config.toml", overrides))


@pytest.fixture(scope="module")
def evaluation(trained_run: Path) -> Evaluation:
    return evaluated(trained_run)


@pytest.fixture(scope="module")
def probabilities(trained_run: Path, test_split: Split) -> Any:
    """Return the probabilities of all test images, from the plain network and in batches of another size."""
    net = build_cnn()
    net.load_parameters(str(trained_run / "model.params"))
    parts = np.array_split(test_split.images[:, None].astype(np.float32) / 255, 20)
    return np.concatenate([mx.nd.softmax(net(mx.nd.array(part))).asnumpy() for part in parts]).astype(np.float64)


@pytest.fixture
def copy(trained_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained_run, tmp_path / "run")
    return tmp_path / "run"


# --- numbers


def test_the_scores_equal_those_of_the_run(evaluation: Evaluation, trained_run: Path) -> None:
    summary = RunFolder(trained_run).read_summary()
    assert (evaluation.scores.correct, evaluation.scores.total) == (summary["test_correct"], 10_000)
    assert evaluation.scores.loss == pytest.approx(summary["test_loss"], rel=1e-12)
    assert 0.9 < evaluation.scores.accuracy < 1


def test_every_count_equals_that_of_a_plain_loop(evaluation: Evaluation, probabilities: Any, test_split: Split) -> None:
    predicted = probabilities.argmax(axis=1)
    for label in range(10):
        for digit in range(10):
            count = sum(1 for pair in zip(test_split.labels, predicted, strict=True) if pair == (label, digit))
            assert evaluation.confusion[label, digit] == count
    for digit in range(10):
        correct = int(((predicted == digit) & (test_split.labels == digit)).sum())
        assert evaluation.precision[digit] == correct / (predicted == digit).sum()
        assert evaluation.recall[digit] == correct / (test_split.labels == digit).sum()


def test_all_mistakes_are_listed_with_the_most_confident_first(
    evaluation: Evaluation, probabilities: Any, test_split: Split
) -> None:
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != test_split.labels)
    assert sorted(mistake.image for mistake in evaluation.mistakes) == wrong.tolist()
    assert len(wrong) == 10_000 - evaluation.scores.correct
    confidences = [mistake.predicted_probability for mistake in evaluation.mistakes]
    assert confidences == sorted(confidences, reverse=True)
    for mistake, image in zip(evaluation.mistakes, evaluation.mistaken_images, strict=True):
        assert (mistake.true_label, mistake.predicted) == (test_split.labels[mistake.image], predicted[mistake.image])
        assert mistake.predicted_probability == pytest.approx(probabilities[mistake.image, mistake.predicted], abs=1e-5)
        assert mistake.true_label_probability == pytest.approx(probabilities[mistake.image, mistake.true_label], abs=1e-5)
        assert (np.rint(255 * image) == test_split.images[mistake.image]).all()


def test_precision_and_recall_without_images_are_none(trained_run: Path) -> None:
    # The first four test images are 7, 2, 1 and 0.
    few = evaluated(trained_run, Override("--test-images", "data.test_images", "4"))
    assert few.scores.total == 4
    assert [share is None for share in few.recall] == [digit not in (0, 1, 2, 7) for digit in range(10)]
    lines = table(few)
    assert lines[1 + 5].split() == ["5", "0", "–", "–"]


@pytest.mark.parametrize(("device", "backend"), [("cpu", "stock"), ("cpu:1", "auto"), ("cpu:0,1,2", "auto")])
def test_devices_and_backends_agree(device: str, backend: str, trained_run: Path, evaluation: Evaluation) -> None:
    other = evaluated(trained_run, Override("--device", "runtime.device", device), Override("--set", "model.backend", backend))
    assert (other.confusion == evaluation.confusion).all()
    assert other.scores.loss == pytest.approx(evaluation.scores.loss, rel=1e-5)


def test_the_images_are_read_once(trained_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    class Counting:
        def __init__(self, loader: Any) -> None:
            self.loader = loader

        def __iter__(self) -> Any:
            passes.append(len(self.loader))
            return iter(self.loader)

    counting = lambda *arguments: Counting(create_test_loader(*arguments))  # noqa: E731
    monkeypatch.setattr("mnist_trainer.inference.evaluation.create_test_loader", counting)
    evaluated(trained_run)
    assert passes == [157]


# --- output and files


def test_it_prints_scores_and_table_and_writes_three_files(copy: Path, program: Program, evaluation: Evaluation) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    done = program("evaluate", copy, "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    first, head, *rows = done.stdout.splitlines()
    summary = RunFolder(copy).read_summary()
    accuracy = f"{summary['test_accuracy']:.2%} ({summary['test_correct']} of 10000)"
    assert first == f"Test accuracy {accuracy}, test loss {summary['test_loss']:.6f}"
    assert head.split() == ["digit", "images", "precision", "recall"]
    for digit in range(10):
        number, images, precision, recall = rows[digit].split()
        assert (int(number), int(images)) == (digit, evaluation.confusion[digit].sum())
        assert (precision, recall) == (f"{evaluation.precision[digit]:.2%}", f"{evaluation.recall[digit]:.2%}")
    printed = [[int(count) for count in row.split()[1:]] for row in rows[12:22]]
    assert printed == evaluation.confusion.tolist()
    assert rows[22:] == [f"In {copy}: evaluation.json, confusion_matrix.png, mistakes.png"]
    assert sorted({path.name for path in copy.iterdir() if path.is_file()} - {path.name for path in before}) == FILES
    assert all(path.read_bytes() == content for path, content in before.items())


def test_its_json_has_all_results(copy: Path, evaluation: Evaluation) -> None:
    assert write_evaluation(evaluation, RunFolder(copy)) == ["evaluation.json", "confusion_matrix.png", "mistakes.png"]
    content = json.loads((copy / "evaluation.json").read_text(encoding="utf-8"))
    summary = RunFolder(copy).read_summary()
    for name in ("test_accuracy", "test_correct", "test_total", "parameters_sha256"):
        assert content[name] == summary[name]
    assert content["confusion_matrix"] == evaluation.confusion.tolist()
    assert [tuple(mistake.values()) for mistake in content["mistakes"]] == evaluation.mistakes
    assert (
        sum(digit["images"] for digit in content["digits"]) == sum(digit["predicted"] for digit in content["digits"]) == 10_000
    )
    assert sum(digit["correct"] for digit in content["digits"]) == summary["test_correct"]
    assert [digit["precision"] for digit in content["digits"]] == evaluation.precision
    assert content["device"] == "cpu"


def test_it_overwrites_its_own_files(copy: Path, evaluation: Evaluation, trained_run: Path) -> None:
    for name in FILES:
        (copy / name).write_text("from before", encoding="utf-8")
    write_evaluation(evaluation, RunFolder(copy))
    assert json.loads((copy / "evaluation.json").read_bytes())["test_total"] == 10_000
    for name in ("confusion_matrix.png", "mistakes.png"):
        assert imread(copy / name).shape[0] > 300


def test_an_evaluated_run_can_be_evaluated_and_resumed_again(copy: Path, evaluation: Evaluation) -> None:
    write_evaluation(evaluation, RunFolder(copy))
    assert evaluated(copy).scores == evaluation.scores
    assert main(["train", "--resume", str(copy)]) == 0


@pytest.mark.parametrize(
    ("name", "other"), [("confusion_matrix.png", "mistakes.png"), ("mistakes.png", "confusion_matrix.png")]
)
def test_a_figure_that_cannot_be_drawn_does_not_affect_the_results(
    name: str, other: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / name).mkdir()
    assert main(["evaluate", str(copy), "--test-images", "10"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"In {copy}: evaluation.json, {other}"
    assert len(err.splitlines()) == 1
    assert f"{copy / name}: " in err
    assert "Is a directory" in err
    assert "same command" in err
    assert json.loads((copy / "evaluation.json").read_bytes())["test_total"] == 10
    (copy / name).rmdir()
    assert main(["evaluate", str(copy), "--test-images", "10"]) == 0
    assert capsys.readouterr().err == ""
    assert (copy / name).is_file()


def test_results_that_cannot_be_written_are_still_printed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "evaluation.json"
    (copy / name).mkdir()
    assert main(["evaluate", str(copy), "--test-images", "10"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("Test accuracy ")
    assert len(out.splitlines()) == 24
    (sentence,) = err.splitlines()
    assert_names(sentence, f"{copy / name}: ", "Is a directory", "results")
    assert not list(copy.glob(".*"))


@pytest.mark.slow
@pytest.mark.process
def test_a_folder_that_cannot_be_written_is_reported(copy: Path) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        "from mnist_trainer.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = run_python("-c", limited, "evaluate", copy, "--test-images", "10", "--threads", "1")
    assert done.returncode == 1
    assert done.stdout.startswith("Test accuracy ")
    *of_figures, last = done.stderr.splitlines()
    for name, line in zip(("confusion_matrix.png", "mistakes.png"), of_figures, strict=True):
        assert f"{copy / name}: " in line
        assert "File too large" in line
    assert_names(last, f"{copy / 'evaluation.json'}: ", "File too large", "results")


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
@pytest.mark.parametrize("command", [("evaluate",), ("predict", "digit.png"), ("predict", "digit.png", "--json")])
def test_parameters_with_useless_outputs_are_refused(
    command: tuple[str, ...], value: float, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    Path("digit.png").write_bytes(next(drawn_digits()).content)
    net = build_cnn()
    net.load_parameters("model.params")
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.full(parameter.shape, value))
    net.save_parameters("model.params")
    edit_json(copy / "summary.json", lambda summary: summary.update(parameters_sha256=parameters_sha256(net)))
    before = {path.name for path in copy.iterdir()}
    assert main([command[0], ".", *command[1:]]) == FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_names(captured.err, "the network's output", "not finite", "train it again")
    assert {path.name for path in copy.iterdir()} == before


# --- figures


def test_the_confusion_figure_shows_every_number() -> None:
    counts = [[row * 10 + column for column in range(10)] for row in range(10)]
    counts[3][5] = 0
    figure = plots.plot_confusion_matrix(counts, 495, 4950)
    axes, _ = figure.axes  # the other has the scale
    shown = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    for row in range(10):
        for column in range(10):
            expected = str(counts[row][column]) if counts[row][column] or row == column else None
            assert shown.get((row, column)) == expected
    assert axes.get_title() == "495 of 4,950 test images correct (10.00%)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted digit", "True digit")
    shares = np.array(axes.images[0].get_array())
    np.testing.assert_allclose(shares, np.array(counts) / np.sum(counts, axis=1, keepdims=True))  # the diagonal is the recall


@pytest.mark.parametrize(("mistakes", "drawn"), [(0, 0), (1, 1), (7, 7), (300, 28)])
def test_the_mistakes_figure_shows_each_image_with_its_caption(mistakes: int, drawn: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((mistakes, 28, 28))
    captions = [f"predicted {number}" for number in range(drawn)]
    figure = plots.plot_mistakes(images, captions, mistakes, 10_000)
    assert [axes.get_title() for axes in figure.axes] == captions
    for axes, image in zip(figure.axes, images, strict=False):
        assert (axes.images[0].get_array() == image).all()
    which = "; the 28 most confident" if mistakes == 300 else ""
    assert figure._suptitle.get_text() == f"{mistakes:,} of 10,000 test images predicted wrongly{which}"  # type: ignore[attr-defined]
    plots.save_figure(figure, tmp_path / "mistakes.png")
