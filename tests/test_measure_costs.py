"""The developers' script that measures the costs of a run."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from command_line import assert_names
from programs import load_script

from mnist_trainer.model import native
from mnist_trainer.training import subprocesses

# Replaces the trainings of `jobs`; `memory`, `startup` and `workers` start real ones.
NOTE_ARGUMENTS = """
import sys
with open("jobs", "a") as stream:
    print(*sys.argv[1:], file=stream)
"""

TINY = ("--set", "data.train_images=640", "--set", "data.test_images=100", "--set", "runtime.threads=1", "--repetitions", "1")


@pytest.fixture
def script() -> ModuleType:
    return load_script("measure_costs")


@pytest.mark.slow
@pytest.mark.process
def test_the_script_measures_every_cost(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "STARTS", 2)
    monkeypatch.setattr(script, "NUMBERS_OF_WORKERS", (2,))
    monkeypatch.setattr(subprocesses, "this_program", lambda: [sys.executable, "-c", NOTE_ARGUMENTS])
    assert script.main([*TINY, "--output", "costs.json"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    record = json.loads((tmp_path / "costs.json").read_text(encoding="utf-8"))
    assert (record["environment"]["repetitions"], record["environment"]["threads"]) == (1, 1)
    measured = record["costs"]
    graphs = ["as_written", "one_graph", "planned_memory", "pooled_first", "channels_by_8", "channels_by_16"]
    fused = [] if native.problem() else ["fused", "fused_update"]
    assert {cost: set(quantities) for cost, quantities in measured.items()} == {
        "memory": {"peak_mb"},
        "startup": {"python_seconds", "help_seconds", "help_to_python_ratio", "first_iteration_seconds"},
        "checkpoints": {
            *("without_seconds", "by_default_seconds", "every_50_seconds"),
            *("by_default_ratio", "every_50_ratio"),
        },
        "data": {"iteration_ms", "array_ms", "array_to_iteration_ratio", "gluon_ms", "gluon_to_iteration_ratio"},
        "graphs": {f"{way}_ms" for way in [*graphs, *fused]},
        "jobs": {
            *("side_by_side_seconds", "in_turn_one_thread_seconds", "in_turn_all_threads_seconds"),
            *("in_turn_one_thread_ratio", "in_turn_all_threads_ratio"),
        },
        "workers": {"alone_images_per_second", "2_workers_images_per_second", "2_workers_megabytes_per_iteration"},
    }
    lines = [f"{cost}: {quantity}" for cost, quantities in measured.items() for quantity in quantities]
    assert [line.split("  ")[0] for line in out.splitlines()[1:]] == lines
    assert all(len(values) == 1 and values[0] > 0 for quantities in measured.values() for values in quantities.values())
    assert 100 < measured["memory"]["peak_mb"][0] < 2000
    assert measured["startup"]["help_to_python_ratio"][0] > 1  # --help starts the same interpreter, and does more
    trainings = (tmp_path / "jobs").read_text(encoding="utf-8").splitlines()
    assert len(trainings) == 3 * 2
    # Each of two workers sends 174,762 gradients and receives as many sums. The rest is less than half of that. The traffic of
    # other tests over the loopback interface counts too. Without the division by 20 iterations, the result would be far larger.
    traffic = 4 * 4 * 174_762 / 1e6
    assert traffic < measured["workers"]["2_workers_megabytes_per_iteration"][0] < 10 * traffic


@pytest.mark.process
def test_a_training_that_fails_is_an_error(script: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    assert script.main(["memory", *TINY, "--set", "training.learning_rate=1e30"]) == 1
    of_train, of_script = capfd.readouterr().err.splitlines()
    assert_names(of_train, "", "1e+30")
    assert_names(of_script, "measure_costs.py: ", "train --config ", "exit code 1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("speed",), ("speed", "memory, startup"), id="another cost"),
        pytest.param(("memory", "--repetitions", "0"), ("--repetitions 0",), id="no repetition"),
        pytest.param(("memory", "--set", "data.loader=arry"), ("--set data.loader", "array?"), id="a wrong setting"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: tuple[str, ...], words: tuple[str, ...], script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = script.main(arguments)
    except SystemExit as end:  # raised by argparse
        code = end.code
    assert code == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], "measure_costs.py: ", *words)
