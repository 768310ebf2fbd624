"""Comparisons: plans, statistics, trainings side by side, verdicts, and the files in the folder."""

import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cmarkgfm
import pytest
from browsers import browser, look, low_contrasts, until
from cmarkgfm.cmark import Options
from command_line import Outcome, assert_names, content, refused, run
from conftest import Snapshot
from hypothesis import given
from hypothesis import strategies as st
from programs import REPOSITORY, ForkedProgram, wait_for
from requirements import needs_browser
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from small_runs import METRICS, SUMMARY, assert_same_run, checkpoints, edit_json

from mnist_trainer.comparison import report
from mnist_trainer.comparison.intervals import Estimate, PairedDifference, students_t
from mnist_trainer.comparison.plan import MUST_BE_EQUAL, Plan, make_plan, unequal_settings
from mnist_trainer.comparison.results import Result, Results
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import ModelConfig
from mnist_trainer.errors import RequestError
from mnist_trainer.run_folder import RunFolder
from mnist_trainer.training.subprocesses import Ended, Progress, Training, run_trainings

SMALL = ("--train-images", "192", "--test-images", "100", "--epochs", "2")  # 3 iterations per epoch


def planned(*files: str, **arguments: Any) -> Plan:
    return make_plan(files, [load_config(file) for file in files], **arguments)


def problems_of(*files: str, **others: Any) -> list[str]:
    with pytest.raises(RequestError) as caught:
        planned(*files, **others)
    return list(caught.value.problems)


# --- the plan


def test_one_configuration_is_compared_in_both_modes() -> None:
    assert [str(planned_run) for planned_run in planned("tutorial").runs()] == [
        "tutorial, optimizer, seed 1",
        "tutorial, manual, seed 1",
    ]


def test_several_configurations_are_compared_each_in_its_own_mode() -> None:
    runs = list(planned("tutorial", "tutorial-manual", seeds=[0, 5]).runs())
    assert [(planned_run.candidate.name, planned_run.mode, planned_run.seed) for planned_run in runs] == [
        ("tutorial", "optimizer", 0),
        ("tutorial-manual", "manual", 0),
        ("tutorial", "optimizer", 5),
        ("tutorial-manual", "manual", 5),
    ]
    assert [(planned_run.config.training.scheduler_mode, planned_run.config.training.seed) for planned_run in runs] == [
        (planned_run.mode, planned_run.seed) for planned_run in runs
    ]
    assert len({planned_run.folder_name for planned_run in runs}) == 4


def test_given_modes_apply_to_all_configurations() -> None:
    plan = planned("cosine", "poly", modes=["manual", "optimizer"])
    assert [(planned_run.candidate.name, planned_run.mode) for planned_run in plan.runs()] == [
        ("cosine", "manual"),
        ("cosine", "optimizer"),
        ("poly", "manual"),
        ("poly", "optimizer"),
    ]


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        ("--seeds", "0,1,0", [("0", "twice")]),
        ("--seeds", "0,x,-1", [("'x'", "0 to 2147483647"), ("'-1'", "0 to 2147483647")]),
        ("--seeds", "", [("''", "0 to 2147483647")]),
        ("--seeds", "2147483648", [("'2147483648'", "0 to 2147483647")]),
        ("--modes", "hand", [("'hand'", "optimizer", "manual")]),
        ("--modes", "manual,manual", [("manual", "twice")]),
        ("--allow", "training.seed", [("'training.seed'", ", ".join(MUST_BE_EQUAL))]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_modes_seeds_and_allowed_keys_are_refused(
    flag: str, text: str, words: list[tuple[str, ...]], snapshot: Snapshot
) -> None:
    problems = refused("compare", "tutorial", flag, text)
    for problem, named in zip(problems, words, strict=True):
        assert_names(problem, flag, *named)
    snapshot("\n".join(problems))


def test_all_problems_of_a_plan_are_reported_together(tmp_path: Path, snapshot: Snapshot) -> None:
    same_name = tmp_path / "cosine.toml"
    same_name.write_text((REPOSITORY / "configs/cosine.toml").read_text(encoding="utf-8"), encoding="utf-8")
    problems = problems_of("cosine", str(same_name), "plateau", "plateau", modes=["manual"] * 2, seeds=[1, 1])
    words = [
        ("--modes: ", "manual", "twice"),
        ("--seeds: ", "1", "twice"),
        ("cosine ", f"{same_name}: ", "rename"),
        ("plateau: ", "twice"),
    ]
    for problem, named in zip(problems, words, strict=True):
        assert_names(problem, *named)
    snapshot("\n".join(problems))


def test_a_setting_that_must_be_equal_may_differ_if_allowed() -> None:
    (sentence,) = unequal_settings(planned("cosine", "plateau"))
    assert_names(sentence, "plateau: data.validation_images ", "cosine", "--allow data.validation_images")
    assert re.findall(r"\d+", sentence) == ["5000", "0"]
    assert unequal_settings(planned("cosine", "plateau", allowed=["data.validation_images"])) == []
    of_epochs, of_augmentation = unequal_settings(planned("one-cycle", "augmented"))
    assert_names(of_epochs, "augmented: training.epochs ", "15", "10")
    assert_names(of_augmentation, "augmented: data.augment ", "True", "False", "--allow data.augment")


def test_a_users_network_may_have_its_own_backend() -> None:
    theirs, ours = load_config("constant"), load_config("constant")
    models = ModelConfig(backend="fused"), ModelConfig(network="mine:mlp", backend="stock")
    configs = [replace(config, model=model) for config, model in zip((theirs, ours), models, strict=True)]
    plan = make_plan(["constant", "mine.toml"], configs)
    of_network, of_backend = unequal_settings(plan)
    assert_names(of_network, "mine.toml: model.network is 'mine:mlp', but left out in constant; ", "--allow model.network")
    assert_names(of_backend, "mine.toml: model.backend is 'stock', but 'fused' in constant; ")
    assert unequal_settings(replace(plan, allowed=["model.network"])) == []


@pytest.mark.parametrize("name", ["_cosine", "-x", "a$b$c", "two\nlines", "\udcff", ""])
def test_a_file_name_that_cannot_be_part_of_a_folder_name_is_refused(name: str) -> None:
    file = f"folder/{name}.toml" if name else "folder/..toml"
    with pytest.raises(RequestError) as caught:
        make_plan([file], [load_config("cosine")])
    (problem,) = caught.value.problems
    assert_names(problem, f"{file}: ", "rename", ". _ + -")


def test_the_configuration_of_a_run_is_named_after_its_folder() -> None:
    configs = [load_config("cosine")] * 2
    plan = make_plan(["runs/one/config.toml", "runs/two/config.toml"], configs)
    assert [candidate.name for candidate in plan.candidates] == ["one", "two"]


def test_without_given_seeds_all_configurations_need_the_same_seed(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text((REPOSITORY / "configs/poly.toml").read_text(encoding="utf-8").replace("seed = 1", "seed = 7"))
    (problem,) = problems_of("cosine", str(other))
    assert re.fullmatch(rf"training\.seed: .*cosine\b.*\b1\b.*{re.escape(str(other))}\b.*\b7\b.*--seeds\b.*", problem)
    assert len(list(planned("cosine", str(other), seeds=[3]).runs())) == 2


# --- statistics over seeds


@pytest.mark.parametrize(
    ("degrees", "published"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_students_t_agrees_with_published_tables(degrees: int, published: float) -> None:
    assert students_t(degrees) == pytest.approx(published, abs=5e-4)


@given(st.integers(1, 60), st.floats(0.5, 0.999))
def test_the_density_within_students_t_integrates_to_the_confidence(degrees: int, confidence: float) -> None:
    # Simpson's rule over the density of the distribution, in the angle: t = √degrees · tan θ.
    end = math.atan(students_t(degrees, confidence) / math.sqrt(degrees))
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    steps = 400
    values = [math.cos(end * number / steps) ** (degrees - 1) for number in range(steps + 1)]
    integral = (values[0] + values[-1] + 4 * sum(values[1::2]) + 2 * sum(values[2:-1:2])) * end / steps / 3
    assert 2 * scale * integral == pytest.approx(confidence, abs=1e-7)


@pytest.mark.parametrize(("degrees", "confidence"), [(0, 0.95), (3, 0.0), (3, 1.0)])
def test_students_t_refuses_arguments_out_of_range(degrees: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="degrees"):
        students_t(degrees, confidence)


def test_a_paired_difference_agrees_with_a_calculation_by_hand() -> None:
    mean, half_width, n = PairedDifference.of([0.991, 0.992, 0.990], [0.990, 0.990, 0.987])  # differences: 0.001, 0.002, 0.003
    assert n == 3
    assert mean == pytest.approx(0.002)
    assert half_width == pytest.approx(4.3027 * 0.001 / math.sqrt(3), rel=1e-4)


def test_a_single_pair_has_no_interval() -> None:
    alone = PairedDifference.of([0.99], [0.98])
    assert (alone.half_width, alone.excludes_zero, Estimate.of([0.99]).standard_deviation) == (None, False, None)


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ([0.991, 0.992, 0.993], ("other ", "better", "first", "0.20 ± 0.00 points", "n = 3")),
        ([0.981, 0.984, 0.985], ("other ", "worse", "first", "0.67 ± 0.29 points", "n = 3")),
        ([0.988, 0.990, 0.993], ("No difference", "other", "first", "+0.03 ± 0.38 points", "n = 3")),
        ([0.995], ("The test accuracy of other ", "0.60 points above", "first", "single seed")),
        ([0.980], ("The test accuracy of other ", "0.90 points below", "first", "single seed")),
        ([0.989], ("The test accuracy of other ", "equal to", "first", "single seed")),
    ],
    ids=["better", "worse", "neither", "a single seed, better", "a single seed, worse", "a single seed, equal"],
)
def test_a_difference_in_words(made: "Maker", accuracies: list[float], words: tuple[str, ...], snapshot: Snapshot) -> None:
    of_first = [0.989, 0.990, 0.991][: len(accuracies)]
    verdict = report.verdict(made({("first", "optimizer"): of_first, ("other", "optimizer"): accuracies}))
    assert_names(verdict[0], *words)
    snapshot("\n".join(verdict))


# --- results of folders with made-up runs

Maker = Callable[..., Results]

RATES = [0.1, 0.1, 0.01, 0.01]


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    """Make results of two epochs with two iterations each, given (configuration, mode) → the final accuracy of each seed."""

    def make(
        accuracies: dict[tuple[str, str], Sequence[float | None]],
        rates: dict[str, list[float]] | None = None,
        losses: dict[str, list[float]] | None = None,
        sha256: dict[str, str] | None = None,
    ) -> Results:
        names = list(dict.fromkeys(name for name, _ in accuracies))
        modes = list(dict.fromkeys(mode for _, mode in accuracies))
        for name in names:
            text = (REPOSITORY / "configs/tutorial.toml").read_text(encoding="utf-8")
            (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
        seeds = range(max(map(len, accuracies.values())))
        plan = planned(*(str(tmp_path / f"{name}.toml") for name in names), modes=modes, seeds=seeds)
        found = []
        for planned_run in plan.runs():
            accuracy = dict(enumerate(accuracies[planned_run.candidate.name, planned_run.mode])).get(planned_run.seed)
            folder = RunFolder(tmp_path / "runs" / planned_run.folder_name)
            if accuracy is not None:
                rows = zip(
                    range(1, 5),
                    (rates or {}).get(planned_run.mode, RATES),
                    (losses or {}).get(planned_run.mode, RATES),
                    strict=True,
                )
                write_run(folder, list(rows), accuracy, (sha256 or {}).get(planned_run.mode, "0" * 64))
            found.append(Result(planned_run, folder, "it broke" if accuracy is None else None))
        return Results(plan, found)

    return make


def write_run(folder: RunFolder, rows: list[tuple[int, float, float]], accuracy: float, sha256: str) -> None:
    folder.path.mkdir(parents=True)
    folder.append_iterations(rows)
    for epoch, reached in ((1, accuracy - 0.01), (2, accuracy)):
        scores = {"test_accuracy": reached, "test_loss": 1 - reached}
        folder.append_metrics(METRICS | scores | {"epoch": epoch, "iteration": 2 * epoch})
    scores = {"test_accuracy": accuracy, "test_loss": 1 - accuracy}
    folder.write_json("summary.json", SUMMARY | scores | {"seconds": 10.0, "parameters_sha256": sha256})


BOTH = {("a", "optimizer"): [0.98, 0.99], ("a", "manual"): [0.98, 0.99]}


def test_modes_that_agree(made: Maker, snapshot: Snapshot) -> None:
    results = made(BOTH)
    assert results.modes_identical is True
    assert list(results.to_draw()) == ["a, optimizer", "a, manual"]
    assert len(results.pairs_to_draw()) == 2
    verdict = report.verdict(results)
    assert_names(verdict[0], "", "agree", "2 pairs", "8 learning rates", "parameters")
    snapshot("\n".join(verdict))


def test_the_first_iteration_at_which_modes_differ_is_reported(made: Maker, snapshot: Snapshot) -> None:
    results = made(
        BOTH,
        rates={"manual": [0.1, 0.01, 0.01, 0.01]},
        losses={"manual": [0.1, 0.1, 0.03, 0.01]},
        sha256={"manual": "1" * 64},
    )
    assert results.modes_identical is False
    verdict = report.verdict(results)
    rates, losses = re.split(r"(?=losses)", verdict[0])
    assert_names(rates, "a, seed 0: ", "learning rates", "iteration 2,", "0.1 in optimizer", "0.01 in manual", "0.09")
    assert_names(losses, "losses", "iteration 3,", "0.01 in optimizer", "0.03 in manual", "0.02", "parameters")
    assert list(results.to_draw()) == ["a, optimizer", "a, manual"]
    snapshot("\n".join(verdict))


def test_modes_whose_parameters_alone_differ_do_not_agree(made: Maker, snapshot: Snapshot) -> None:
    results = made(BOTH, sha256={"manual": "1" * 64})
    assert results.modes_identical is False
    verdict = report.verdict(results)
    assert_names(verdict[0], "a, seed 0: ", "differ", "parameters", "last update")
    assert not re.search("learning rate|loss", verdict[0])
    snapshot("\n".join(verdict))


def test_agreement_is_undecided_until_all_modes_are_checked(made: Maker, snapshot: Snapshot) -> None:
    results = made({("a", "optimizer"): [0.98, 0.99], ("a", "manual"): [0.98, None]})
    assert results.modes_identical is None
    verdict = report.verdict(results)
    assert_names(verdict[1], "", "agree", "1 of 2 pairs", "4 learning rates")
    snapshot("\n".join(verdict))


def test_a_single_mode_is_not_checked(made: Maker) -> None:
    results = made({("a", "optimizer"): [0.98]})
    assert (results.modes_identical, results.mode_checks, results.begins_alike) == (None, [], None)


def test_runs_of_a_seed_with_different_first_losses_are_reported(made: Maker, snapshot: Snapshot) -> None:
    assert made(BOTH).begins_alike is True
    different = made({("b", mode): values for (_, mode), values in BOTH.items()}, losses={"manual": [0.2, 0.1, 0.01, 0.01]})
    assert different.begins_alike is False
    verdict = report.verdict(different)
    assert_names(verdict[-1], "", "should start out identical", "losses", "first update", "differ")
    snapshot("\n".join(verdict))


def test_a_schedule_that_would_drop_only_after_the_run_is_reported(tmp_path: Path) -> None:
    short = [Override.from_assignment("data.train_images=640"), Override.from_assignment("training.epochs=4")]
    names = ("tutorial", "multifactor")  # drops after iterations 40, 70 and 90, and after 20 and 30 of these 40
    plan = make_plan(names, [load_config(name, short) for name in names])
    assert [candidate.missed_drop for candidate in plan.candidates] == [40, None]
    assert planned("cosine").candidates[0].missed_drop is None
    run = next(plan.runs())
    folder = RunFolder(tmp_path / run.folder_name)
    write_run(folder, [(number, 0.03, 1.0) for number in range(1, 5)], 0.9, "0" * 64)
    [finding] = [line for line in report.verdict(Results(plan, [Result(run, folder, None)])) if "never drops" in line]
    assert_names(finding, "", "tutorial", "iteration 40", "40 iterations")


def test_a_users_network_is_reported(made: Maker) -> None:
    results = made({("a", "optimizer"): [0.98], ("b", "optimizer"): [0.98]})

    def verdict_of(*networks: str | None) -> list[str]:
        candidates = [
            replace(candidate, config=replace(candidate.config, model=ModelConfig(network=network, backend="stock")))
            for candidate, network in zip(results.plan.candidates, networks, strict=True)
        ]
        return report.verdict(Results(replace(results.plan, candidates=candidates), results.results))

    assert_names(verdict_of("mine:mlp", "mine:mlp")[-1], "All runs ", "mine:mlp,", "tutorial")
    assert_names(verdict_of("mine:mlp", "mine:cnn")[-1], "All runs ", "mine:cnn or mine:mlp,", "tutorial")
    assert not any("mine:mlp" in sentence for sentence in verdict_of("mine:mlp", None))


def test_the_first_epoch_that_reaches_an_accuracy(made: Maker) -> None:
    results = made({("a", "optimizer"): [0.985, 0.992, 0.970], ("b", "optimizer"): [0.990, 0.990, 0.990]})
    a, b = results.scores
    assert a.first_epochs == {0.98: [2, 1, None], 0.985: [2, 2, None]}
    assert b.first_epochs == {0.98: [1, 1, 1], 0.985: [2, 2, 2]}
    table = report.scores_table(results.scores)
    assert table[1][1] == "3"
    assert table[1][4:6] == ("1.5 (1 to 2), 2 of 3", "2, 2 of 3")
    assert table[2][4:6] == ("1", "2")
    some = report.scores_table(made({("c", "optimizer"): [0.981], ("d", "optimizer"): [0.9]}).scores)
    assert [row[4] for row in some] == ["first epoch with 98 %", "2", "never"]
    assert some[0][5] == "seconds"  # no run reaches 98.5 %


def test_differences_use_the_seeds_that_both_configurations_have(made: Maker) -> None:
    results = made({("a", "optimizer"): [0.98, None, 0.97], ("b", "optimizer"): [0.99, 0.50, 0.98]})
    a, b = results.scores
    assert (a.test_accuracy.n, b.test_accuracy.n, a.against_first) == (2, 3, None)
    assert b.against_first
    assert b.against_first.n == 2
    assert b.against_first.mean == pytest.approx(0.01)
    assert_names(report.verdict(results)[0], "a, optimizer, seed 1 ", "not finished", "it broke")


def test_the_first_batch_of_each_epoch_has_loss_and_rate(made: Maker) -> None:
    results = made({("a", "optimizer"): [0.98]}, losses={"optimizer": [2.5, 2.0, 1.5, 1.0]})
    assert results.results[0].first_batches() == [(1, 2.5, 0.1), (2, 1.5, 0.01)]


def test_the_record_is_json_with_the_same_numbers(made: Maker) -> None:
    results = made({("a", "optimizer"): [0.98, 0.99], ("b", "optimizer"): [0.97, None]})
    record = json.loads(
        json.dumps(report.record(results, [], "failed", "mnist-trainer compare", {}, 2, folder=Path()), allow_nan=False)
    )
    assert record["modes_identical"] is None
    assert [(entry["config"], entry["mode"], entry["seed"], entry["problem"]) for entry in record["runs"]] == [
        ("a", "optimizer", 0, None),
        ("b", "optimizer", 0, None),
        ("a", "optimizer", 1, None),
        ("b", "optimizer", 1, "it broke"),
    ]
    assert record["runs"][0]["summary"]["test_accuracy"] == 0.98
    assert record["runs"][3]["summary"] is None
    accuracy = record["configs"][0]["test_accuracy"]
    assert accuracy == {"mean": pytest.approx(0.985), "standard_deviation": pytest.approx(0.01 / math.sqrt(2)), "n": 2}
    assert record["configs"][1]["difference"]["n"] == 1


# --- trainings side by side

COMMANDS = {
    ("evaluate", "nowhere"): ["nowhere: "],
    ("schedules", "list"): None,
    ("schedules", "show", "Cosine", "--iterations", "x"): ["--iterations x: ", "'x'", "whole number"],
    ("doctor", "--help"): None,
}
"""Command → words of its message; None for a command that succeeds."""


def never() -> bool:
    return False


def trainings_of(folder: Path, commands: Sequence[tuple[str, ...]]) -> list[Training]:
    return [Training(" ".join(command), command, RunFolder(folder / str(number)), 0) for number, command in enumerate(commands)]


@pytest.mark.process
def test_each_failed_training_has_its_own_message(tmp_path: Path) -> None:
    ended = [event for event in run_trainings(trainings_of(tmp_path, list(COMMANDS)), 2, never) if isinstance(event, Ended)]
    assert sorted(event.training.arguments for event in ended) == sorted(COMMANDS)
    for event in ended:
        words = COMMANDS[event.training.arguments]
        assert (event.problem is None) == (words is None), event
        assert_names(event.problem or "", *words or [""])


@pytest.mark.process
@pytest.mark.parametrize("jobs", [1, 3])
def test_the_number_of_jobs_limits_the_trainings_side_by_side(
    tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = 0
    max_alive = 0

    class Counted(subprocess.Popen[Any]):
        def __init__(self, *arguments: Any, **others: Any) -> None:
            nonlocal alive, max_alive
            alive += 1
            max_alive = max(max_alive, alive)
            super().__init__(*arguments, **others)

        def wait(self, timeout: float | None = None) -> int:
            nonlocal alive
            alive -= 1
            return super().wait(timeout)

    monkeypatch.setattr("mnist_trainer.training.subprocesses.subprocess.Popen", Counted)
    commands = [("schedules", "show", "Cosine", "--iterations", str(number)) for number in range(5)]
    ended = [event for event in run_trainings(trainings_of(tmp_path, commands), jobs, never) if isinstance(event, Ended)]
    assert (len(ended), max_alive, alive) == (5, jobs, 0)


def processes_with(word: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def long_training(path: Path) -> Training:
    arguments = ("train", "--epochs", "1000", *SMALL[:4], "--threads", "1", "--quiet", "--output", str(path))
    return Training("long", arguments, RunFolder(path), 3000)


@pytest.mark.slow
@pytest.mark.process
def test_a_killed_training_is_reported(tmp_path: Path) -> None:
    events = run_trainings([long_training(tmp_path / "long")], 1, never)
    for event in events:
        if isinstance(event, Progress) and event.iteration:
            (process,) = processes_with(str(tmp_path / "long"))
            os.kill(process, signal.SIGKILL)
            break
    (ended,) = [event for event in events if isinstance(event, Ended)]
    assert_names(ended.problem or "", "", "SIGKILL")


@pytest.mark.process
def test_closing_the_generator_of_trainings_ends_their_processes(tmp_path: Path) -> None:
    both = [long_training(tmp_path / "one"), long_training(tmp_path / "two")]
    events = run_trainings(both, 2, never)
    next(events)
    assert len(processes_with(str(tmp_path))) == 2
    events.close()
    assert processes_with(str(tmp_path)) == []
    assert not any(training.folder.is_finished for training in both)  # they were ended early


# --- the command


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Run the command without a configuration. Tests must not change its folder."""
    folder = tmp_path_factory.mktemp("modes") / "comparison"
    return folder, run("compare", *SMALL, "--jobs", "2", "--output", folder)


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    return record


def test_by_default_the_tutorial_is_trained_in_both_modes(modes: tuple[Path, Outcome]) -> None:
    folder, (code, out, err) = modes
    assert code == 0
    assert_names(err, "2 runs", "2 jobs", f" {folder}\n")
    lines = out.splitlines()
    assert lines[0] == "tutorial, seed 1"
    assert lines[1].split() == ["epoch", "optimizer", "loss", "optimizer", "LR", "manual", "loss", "manual", "LR"]
    for epoch, line in enumerate(lines[2:4], start=1):
        number, loss, rate, loss_by_hand, rate_by_hand = line.split()
        assert (int(number), rate) == (epoch, "0.030000")
        assert (loss, rate) == (loss_by_hand, rate_by_hand)
    (agree,) = (line for line in lines if "agree" in line)
    assert_names(agree, "", "6 learning rates", "parameters")
    assert lines[-1] == f"Folder {folder}"


def test_the_folder_of_a_comparison_has_these_files(modes: tuple[Path, Outcome]) -> None:
    folder, _ = modes
    assert {path.name for path in folder.iterdir()} == {
        "comparison.html",
        "comparison.json",
        "comparison.md",
        "comparison.png",
        "configs",
        "runs",
    }
    record = record_of(folder)
    assert (record["status"], record["modes_identical"], record["begins_alike"]) == ("finished", True, True)
    assert [(entry["config"], entry["mode"], entry["seed"]) for entry in record["runs"]] == [
        ("tutorial", "optimizer", 1),
        ("tutorial", "manual", 1),
    ]
    for entry in record["runs"]:
        assert entry["summary"] == json.loads((folder / entry["folder"] / "summary.json").read_text(encoding="utf-8"))
    ours = record["configs"][0]["test_accuracy"]
    assert ours == {"mean": record["runs"][0]["summary"]["test_accuracy"], "standard_deviation": None, "n": 1}


def test_a_run_of_a_comparison_equals_a_run_of_train(modes: tuple[Path, Outcome], tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    flags = (*SMALL, "--scheduler-mode", "manual", "--threads", "1", "--quiet")
    assert run("train", *flags, "--output", alone).code == 0
    assert_same_run(modes[0] / "runs" / "tutorial-manual-seed-1", alone)


@pytest.mark.process
@pytest.mark.slow
def test_extending_a_comparison_trains_only_the_new_runs(
    modes: tuple[Path, Outcome], tmp_path: Path, snapshot: Snapshot
) -> None:
    folder = tmp_path / "extended"
    shutil.copytree(modes[0], folder)
    before = content(folder / "runs")
    code, out, err = run("compare", *SMALL, "--seeds", "1,2", "--jobs", "2", "--output", folder)
    assert code == 0
    assert_names(err, "4 runs", "2 jobs", f" {folder}\n")
    assert "4 runs (2 are there already)" in err
    assert {name: after for name, after in content(folder / "runs").items() if name in before} == before
    (agree,) = (line for line in out.splitlines() if "agree" in line)
    assert_names(agree, "", "2 pairs", "12 learning rates")
    assert record_of(folder)["configs"][0]["test_accuracy"]["n"] == 2
    runs = {entry["seed"]: entry["summary"] for entry in record_of(folder)["runs"]}
    assert runs[1]["parameters_sha256"] != runs[2]["parameters_sha256"]

    everything = content(folder)
    others = refused("compare", *SMALL, "--seeds", "1", "--output", folder)
    both = "tutorial-manual-seed-2, tutorial-optimizer-seed-2"
    assert_names(others[0], f"--output {folder}: ", both, "--modes", "--seeds", "another folder")
    otherwise = refused("compare", *SMALL, "--seeds", "1,2", "--batch-size", "32", "--output", folder)
    (sentence,) = otherwise  # one for all runs
    assert_names(sentence, f"--output {folder}: ", "all of its 4 runs", "training.batch_size", "another folder")
    assert re.findall(r"\d+", sentence.replace(str(folder), "")) == ["4", "64", "32"]
    assert content(folder) == everything
    snapshot("\n".join([*others, otherwise[0]]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", "{}"),
        ("summary.json", '{"test_accuracy": null, "test_loss": 1.0, "seconds": 1.0, "parameters_sha256": "0"}'),
        ("metrics.jsonl", ""),
        ("metrics.jsonl", '{"epoch": 1}\n{"epoch": 2}\n'),
        ("iterations.csv", "iteration,learning_rate,loss\n1,fast,2\n"),
        ("iterations.csv", "iteration,learning_rate,loss\n1,0.03,2.0\n2,0.03,2.0\n"),
        ("environment.json", "[]"),
    ],
    ids=[
        "an empty summary",
        "no accuracy in the summary",
        "no epochs",
        "epochs without numbers",
        "a rate in words",
        "too few iterations",
        "an environment that is a list",
    ],
)
def test_a_damaged_finished_run_is_reported(
    modes: tuple[Path, Outcome], tmp_path: Path, name: str, text: str, snapshot: Snapshot
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(modes[0], folder)
    damaged = folder / "runs" / "tutorial-manual-seed-1"
    (damaged / name).write_text(text, encoding="utf-8")
    before = content(folder)
    (sentence,) = refused("compare", *SMALL, "--output", folder)
    assert_names(sentence, f"{damaged / name}: ", "another --output", f"move {damaged} ")
    assert content(folder) == before
    # A comparison with other settings reports the damage as well.
    longer = refused("compare", *SMALL[:4], "--epochs", "3", "--output", folder)
    assert sentence in longer
    assert len([problem for problem in longer if "training.epochs" in problem]) == 1
    assert len(longer) == 2
    snapshot(sentence)


@pytest.mark.parametrize(
    ("flags", "key", "old", "new"),
    [
        (("--epochs", "3"), "training.epochs", 2, 3),
        (("--epochs", "1"), "training.epochs", 2, 1),
        (("--train-images", "256"), "data.train_images", 192, 256),
        (("--test-images", "50"), "data.test_images", 100, 50),
    ],
)
def test_finished_runs_with_other_settings_are_reported(
    flags: tuple[str, ...], key: str, old: int, new: int, modes: tuple[Path, Outcome]
) -> None:
    folder, _ = modes
    before = content(folder)
    settings = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | {flags[0]: flags[1]}
    (sentence,) = refused("compare", *(part for pair in settings.items() for part in pair), "--output", folder)
    assert_names(sentence, f"--output {folder}: ", "all of its 2 runs", key, "another folder")
    assert re.findall(r"\d+", sentence.replace(str(folder), "")) == ["2", str(old), str(new)]
    assert content(folder) == before


def test_a_change_of_some_runs_names_them(modes: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(modes[0], folder)
    config = folder / "runs" / "tutorial-manual-seed-1" / "config.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("batch_size = 64", "batch_size = 32"), encoding="utf-8")
    sentences = refused("compare", *SMALL, "--output", folder)
    assert_names(sentences[-1], f"--output {folder}: ", "its run tutorial-manual-seed-1 had", "training.batch_size = 32")


def test_a_comparison_without_its_record_is_not_called_a_full_folder(modes: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "without"
    shutil.copytree(modes[0], folder)
    (folder / "comparison.json").rename(tmp_path / "comparison.json")
    (sentence,) = refused("compare", *SMALL, "--output", folder)
    assert_names(sentence, f"{folder / 'comparison.json'}: ", "missing", "restore", "--output")
    (folder / "comparison.json").symlink_to(tmp_path / "comparison.json")
    (sentence,) = refused("compare", *SMALL, "--output", folder)
    assert_names(sentence, f"{folder / 'comparison.json'}: ", "symbolic link", "--output")


def test_equality_over_a_rate_that_never_changes_is_said_to_show_little(modes: tuple[Path, Outcome]) -> None:
    verdict = record_of(modes[0])["verdict"]
    assert any("agree" in sentence for sentence in verdict)
    assert any("never changes within these 6 iterations" in sentence for sentence in verdict)


def test_a_run_without_its_configuration_is_reported_as_damaged(modes: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    shutil.copytree(modes[0], folder)
    damaged = folder / "runs" / "tutorial-manual-seed-1"
    (damaged / "config.toml").unlink()
    (sentence,) = refused("compare", *SMALL, "--output", folder)
    assert "config.toml" in sentence
    assert f"move {damaged} " in sentence


@pytest.mark.process
@pytest.mark.slow
def test_a_damaged_run_is_trained_again_once_it_is_moved_elsewhere(modes: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    shutil.copytree(modes[0], folder)
    damaged = folder / "runs" / "tutorial-manual-seed-1"
    (damaged / "metrics.jsonl").write_text("", encoding="utf-8")
    (sentence,) = refused("compare", *SMALL, "--output", folder)
    assert f"move {damaged} " in sentence
    damaged.rename(tmp_path / "elsewhere")
    assert run("compare", *SMALL, "--output", folder, "--quiet").code == 0
    assert_same_run(damaged, modes[0] / "runs" / "tutorial-manual-seed-1")


def test_a_file_named_like_the_record_does_not_make_a_folder_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("precious", encoding="utf-8")
    (sentence,) = refused("compare", *SMALL, "--output", tmp_path)
    assert_names(sentence, f"--output {tmp_path}: ", "not empty")
    assert content(tmp_path) == {"comparison.json": b"precious"}


def test_runs_from_another_installation_are_reported(modes: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    shutil.copytree(modes[0], folder)
    edit_json(folder / "runs/tutorial-manual-seed-1/environment.json", lambda content: content.update(processor="another"))
    code, out, _ = run("compare", *SMALL, "--output", folder, "--quiet")
    assert code == 0
    (remark,) = (line for line in out.splitlines() if "'another'" in line)
    assert_names(remark, "tutorial, manual, seed 1 ", "tutorial, optimizer, seed 1", "processor")
    assert remark.rstrip(".") in (folder / "comparison.md").read_text(encoding="utf-8")


def test_checkpoint_settings_do_not_prevent_a_comparison(modes: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    shutil.copytree(modes[0], folder)
    (folder / ".comparison.md.0123456789abcdef.partial").write_text("half", encoding="utf-8")  # left by a killed process
    assert run("compare", *SMALL, "--set", "checkpoint.keep=1", "--output", folder, "--quiet").code == 0
    assert not (folder / ".comparison.md.0123456789abcdef.partial").exists()


def test_a_run_that_another_process_still_trains_is_not_resumed(modes: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    shutil.copytree(modes[0], folder)
    orphan = RunFolder(folder / "runs" / "tutorial-manual-seed-1")
    (orphan / "summary.json").unlink()
    orphan.lock()
    (sentence,) = refused("compare", *SMALL, "--output", folder)
    assert_names(sentence, f"{orphan.path}: ", "another process")


def test_a_message_names_the_command_that_draws_a_failed_figure_later(
    modes: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("no such font")

    folder = tmp_path / "a comparison"
    shutil.copytree(modes[0], folder)
    runs = content(folder / "runs")
    (folder / "runs" / "tutorial-manual-seed-1" / "curves.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("mnist_trainer.plots.plot_comparison", fail)
        code, out, err = run("compare", *SMALL, "--quiet", "--output", folder)
    assert (code, out.splitlines()[-1]) == (0, f"Folder {folder}")
    message = re.fullmatch(r"mnist-trainer: (.*?\.png): .*no such font.*: mnist-trainer (.*)\n", err)
    assert message, err
    assert message[1] == str(folder / "comparison.png")
    assert not (folder / "comparison.png").exists()
    assert record_of(folder)["status"] == "finished"
    assert "comparison.png" not in (folder / "comparison.md").read_text(encoding="utf-8")
    assert "<svg" not in (folder / "comparison.html").read_text(encoding="utf-8")

    code, _, err = run(*shlex.split(message[2]))
    assert (code, err) == (0, "")
    assert (folder / "comparison.png").read_bytes() == (modes[0] / "comparison.png").read_bytes()
    assert "(comparison.png)" in (folder / "comparison.md").read_text(encoding="utf-8")
    assert "<svg" in (folder / "comparison.html").read_text(encoding="utf-8")
    assert content(folder / "runs") == runs, "no run is trained again, and the missing figure of a run is drawn too"

    (folder / "runs" / "tutorial-manual-seed-1" / "curves.png").unlink()
    monkeypatch.setattr("mnist_trainer.plots.plot_run", fail)
    code, _, err = run(*shlex.split(message[2]))
    assert code == 0
    assert len(err.splitlines()) == 1
    assert str(folder / "runs" / "tutorial-manual-seed-1" / "curves.png") in err


@pytest.fixture(scope="module")
def schedules(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Compare two schedules that can be trained and one that diverges, with two seeds."""
    work = tmp_path_factory.mktemp("schedules")
    steep = work / "steep.toml"
    steep.write_text('[training]\nlearning_rate = 1e30\n[schedule]\nname = "Constant"\n', encoding="utf-8")
    files = ["multifactor", str(REPOSITORY / "configs/cosine.toml"), str(steep)]
    return work / "comparison", run("compare", *files, *SMALL, "--seeds", "0,3", "--output", work / "comparison", "--quiet")


@pytest.mark.slow
def test_a_failed_run_is_reported_and_the_others_finish(schedules: tuple[Path, Outcome]) -> None:
    folder, (code, out, err) = schedules
    assert code == 1
    failed = [line for line in out.splitlines() if line.startswith("steep")]
    for lines, separator in ((failed, " "), (err.splitlines(), ":")):  # once when it fails, and again at the end
        for seed, line in zip((0, 3), sorted(lines), strict=True):
            run_folder = str(folder / "runs" / f"steep-optimizer-seed-{seed}")
            words = ("epoch 1", "1e+30", "optimizer.clip_gradient", run_folder)
            assert_names(line, f"steep, optimizer, seed {seed}{separator}", *words)
            assert re.search(r"(loss|gradient) .*iteration \d\b", line)
    record = record_of(folder)
    assert record["status"] == "failed"
    assert [config["test_accuracy"]["n"] for config in record["configs"]] == [2, 2]
    assert record["configs"][1]["difference"]["to"] == "multifactor"
    assert record["modes_identical"] is None


@pytest.mark.slow
def test_runs_with_the_same_seed_have_the_same_first_loss(schedules: tuple[Path, Outcome]) -> None:
    folder, _ = schedules
    first_losses = {
        (name, seed): RunFolder(folder / "runs" / f"{name}-optimizer-seed-{seed}").read_iterations()[0][2]
        for name in ("multifactor", "cosine")
        for seed in (0, 3)
    }
    assert first_losses["multifactor", 0] == first_losses["cosine", 0] != first_losses["multifactor", 3]
    assert first_losses["multifactor", 3] == first_losses["cosine", 3]
    assert record_of(folder)["begins_alike"] is True


class Page(HTMLParser):
    """The tags, addresses and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.slow
def test_the_page_needs_neither_network_nor_script(schedules: tuple[Path, Outcome]) -> None:
    folder, _ = schedules
    source = (folder / "comparison.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(source)
    assert "svg" in page.tags
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)
    text = "".join(page.text)
    position = [text.index(passage) for passage in ("steep, optimizer, seed 0 ", "points from the first", "parameters SHA-256")]
    assert position == sorted(position)  # the verdict is first
    for name in ("multifactor", "cosine"):
        config = (folder / "runs" / f"{name}-optimizer-seed-3" / "config.toml").read_text(encoding="utf-8")
        assert config in text


@pytest.fixture
def page_on_a_screen(schedules: tuple[Path, Outcome]) -> Iterator[Callable[[int, str], Chrome]]:
    """Return a function that opens the page on a screen of this width and in this colour scheme."""
    with browser() as driver:

        def open_page(width: int, scheme: str) -> Chrome:
            look(driver, width, scheme=scheme)
            driver.get((schedules[0] / "comparison.html").as_uri())
            return driver

        yield open_page


@needs_browser
@pytest.mark.browser
@pytest.mark.process
@pytest.mark.slow
def test_the_page_can_be_read_on_every_screen(page_on_a_screen: Callable[[int, str], Chrome]) -> None:
    for width, scheme in itertools.product((320, 390, 1280), ("light", "dark")):
        driver = page_on_a_screen(width, scheme)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert low_contrasts(driver) == []
        for part in driver.find_elements(By.CSS_SELECTOR, ".panels svg"):
            assert part.rect["x"] + part.rect["width"] <= width
        labels = driver.find_elements(By.CSS_SELECTOR, ".panels text")
        assert {"multifactor", "cosine", "Epoch"} <= {label.text for label in labels}
        assert min(label.rect["height"] for label in labels if label.text == "cosine") >= 9

    tables = page_on_a_screen(390, "light").find_elements(By.CSS_SELECTOR, ".wide")
    assert [table.accessible_name for table in tables] == ["Scores", "Settings that differ", "Runs"]
    scores = tables[0]
    scores.send_keys(Keys.ARROW_RIGHT)
    until(driver, lambda: scores.get_property("scrollLeft") not in (0, None), "the arrow keys do not scroll the table")


def test_foreign_content_is_escaped_in_the_page(made: Maker) -> None:
    from mnist_trainer.comparison import page

    results = made({("a", "optimizer"): [0.98], ("c", "optimizer"): [None]})
    results = replace(results, results=[replace(result, problem=result.problem and "<i>") for result in results.results])
    for result in results.finished:
        for name in ("config.toml", "environment.json"):
            (result.folder / name).write_text("<script>alert(1)</script>", encoding="utf-8")
    source = page.html(results, ["<u>"], "mnist-trainer 'compare' <b>", "<i>", "")
    assert not re.search(r"<script|<i>|<b>|<u>", source)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source


def test_foreign_content_is_text_in_the_page_and_in_markdown(made: Maker) -> None:
    from mnist_trainer.comparison import page

    hostile = "<b>a</b> *a* [a](b) `a` | \x1b\u202e\udcff"
    harmless = hostile.replace("\x1b\u202e\udcff", r"\x1b\u202e\udcff")
    results = made({("a", "optimizer"): [0.98], ("a", "manual"): [0.98]})
    candidates = [replace(candidate, name=hostile) for candidate in results.plan.candidates]
    renamed = [replace(result, run=replace(result.run, candidate=candidates[0])) for result in results.results]
    for result in renamed:
        for name in ("config.toml", "environment.json"):
            (result.folder / name).write_text("", encoding="utf-8")
    results = Results(replace(results.plan, candidates=candidates), renamed)
    arguments = results, [hostile], f"mnist-trainer compare '\n{hostile}\n'", hostile
    text = report.markdown(*arguments, "")
    shown = Page()
    shown.feed(cmarkgfm.github_flavored_markdown_to_html(text, options=Options.CMARK_OPT_UNSAFE))
    assert {*shown.tags} <= {"h1", "h2", "ul", "li", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code"}
    assert shown.addresses == []
    # a remark, a row of the scores, the title of the modes, a row of each run, the command, and the conditions
    assert "".join(shown.text).count(harmless) == 7
    source = page.html(*arguments, "")
    text.encode()
    source.encode()
    assert not {"\x1b", "\u202e", "\udcff"} & {*text, *source}
    assert "<b>" not in source


@pytest.mark.slow
def test_the_text_has_the_tables(schedules: tuple[Path, Outcome]) -> None:
    text = (schedules[0] / "comparison.md").read_text(encoding="utf-8")
    assert re.search(r"^\| cosine \| 2 \| \d+\.\d\d ± \d+\.\d\d % \|", text, re.MULTILINE)
    assert re.search(r"^\| steep \| optimizer \| 0 \| not finished \|", text, re.MULTILINE)
    assert "    mnist-trainer compare multifactor" in text


RESTLESS = """
import random
import mxnet  # as the module of a user who wraps one of its schedules

def restless(iteration):
    return random.Random().choice([0.01, 0.02])
"""


@pytest.mark.process
@pytest.mark.slow
def test_modes_that_differ_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (tmp_path / "restless.py").write_text(RESTLESS, encoding="utf-8")
    (tmp_path / "mine.toml").write_text('[schedule]\nname = "restless:restless"\n', encoding="utf-8")
    flags = ("--train-images", "1920", "--test-images", "50", "--epochs", "1")
    code, out, _ = run("compare", "mine.toml", *flags, "--output", "c", "--quiet")
    assert code == 1
    message = re.search(r"^mine, seed 1: .*?learning rates .*?iteration (\d+)\b", out, re.MULTILINE)
    assert message
    one, other = (RunFolder(tmp_path / "c/runs" / f"mine-{mode}-seed-1").read_iterations() for mode in ("optimizer", "manual"))
    iteration = int(message[1])
    assert one[iteration - 1][1] != other[iteration - 1][1]
    assert [row[1] for row in one[: iteration - 1]] == [row[1] for row in other[: iteration - 1]]


@pytest.mark.process
@pytest.mark.slow
def test_an_interrupted_comparison_is_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    command = ["compare", *SMALL[:4], "--epochs", "60", "--output", str(folder)]
    process = ForkedProgram(*command, cwd=tmp_path)
    runs = [RunFolder(folder / "runs" / f"tutorial-{mode}-seed-1") for mode in ("optimizer", "manual")]
    try:
        wait_for(lambda: all(run_folder.last_iteration() for run_folder in runs), process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith(f": mnist-trainer {' '.join(command)}")
    assert processes_with(str(folder)) == []
    assert record_of(folder)["status"] == "interrupted"
    assert any(0 < run_folder.last_iteration() < 180 for run_folder in runs)

    assert run(*command, "--quiet").code == 0
    assert (record_of(folder)["status"], record_of(folder)["modes_identical"]) == ("finished", True)
    assert [run_folder.last_iteration() for run_folder in runs] == [180, 180]


@pytest.mark.process
@pytest.mark.slow
def test_the_trainings_of_a_killed_comparison_save_and_end(tmp_path: Path) -> None:
    long = ["--train-images", "1280", "--test-images", "50", "--epochs", "3", "--batch-size", "4"]  # 320 iterations per epoch
    command = ["compare", *long, "--jobs", "2", "--output"]
    folder = tmp_path / "killed"
    process = ForkedProgram(*command, folder, cwd=tmp_path)
    runs = [RunFolder(folder / "runs" / f"tutorial-{mode}-seed-1") for mode in ("optimizer", "manual")]
    try:
        wait_for(lambda: all(run_folder.last_iteration() for run_folder in runs), process)
    finally:
        process.kill()
    wait_for(lambda: processes_with(str(folder)) == [])
    assert any(0 < run_folder.last_iteration() < 960 for run_folder in runs)
    for run_folder in runs:
        assert run_folder.is_finished or checkpoints(run_folder.path)[-1] == run_folder.last_iteration()

    assert run(*command, folder, "--quiet").code == 0
    assert (record_of(folder)["status"], record_of(folder)["modes_identical"]) == ("finished", True)
    assert run(*command, tmp_path / "whole", "--quiet").code == 0
    for run_folder in runs:
        assert_same_run(run_folder.path, tmp_path / "whole" / "runs" / run_folder.path.name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--jobs", "0"), [("--jobs 0: ", "auto", "1 to 999")]),
        (("--jobs", "many"), [("--jobs many: ", "auto", "1 to 999")]),
        (("--epochs", "0"), [("--epochs 0: ", "1 to 1000000")]),
        (("--seeds", "1", "--seed", "2"), [("--seeds: ", "--seed ")]),
        (
            ("--modes", "manual", "--set", "training.scheduler_mode=optimizer"),
            [("--modes: ", "--set training.scheduler_mode ")],
        ),
        (("--train", "1"), [("--train: ", "--train-images")]),
        (("cosine", "nowhere.toml", "--seeds", "1"), [("nowhere.toml: ", "cosine", "tutorial")]),
        (("cosine", "broken.toml"), [("broken.toml: training.epochs = 0: ",), ("broken.toml: schedule.name: ", "missing")]),
        (("--device", "gpu"), [("--device gpu: ", "CPU")]),
        (("--output", "file"), [("--output file: ", "a file")]),
        (("--output", "full"), [("--output full: ", "not empty")]),
        (("--data-dir", "nowhere"), [("nowhere/",)] * 4),
        (
            ("cosine", "--seeds", "1", "plateau"),
            [("plateau: data.validation_images ", "5000", "cosine", "--allow data.validation_images")],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_request_starts_nothing(
    arguments: tuple[str, ...],
    words: list[tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Snapshot,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("[training]\nepochs = 0\n", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("", encoding="utf-8")
    before = content(tmp_path)
    problems = refused("compare", *arguments)
    for sentence, named in zip(problems, words, strict=True):
        assert_names(sentence, *named)
    assert content(tmp_path) == before
    snapshot("\n".join(problems))


def test_a_mode_or_seed_set_by_a_flag_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnist_trainer.comparison import session

    plans: list[Plan] = []

    def stop(plan: Plan, *_: Any, **_more: Any) -> None:
        plans.append(plan)
        raise RequestError("enough")

    monkeypatch.setattr(session, "prepare", stop)
    assert refused("compare", "--scheduler-mode", "manual", "--set", "training.seed=9") == ["enough"]
    assert [str(planned_run) for planned_run in plans[0].runs()] == ["tutorial, manual, seed 9"]
