"""The benchmark: choice of implementations, order of rounds, statistics, failures, and files."""

import ast
import contextlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from command_line import Outcome, assert_names, refused, run
from conftest import Program, Snapshot
from matplotlib.image import imread
from programs import LIMIT_SECONDS, REPOSITORY, children_of, is_alive, new_environment, run_forked_program, run_python, wait_for
from small_runs import spare_time

from mnist_trainer import plots
from mnist_trainer.benchmark import implementations, phases, report, rounds, session, tutorial
from mnist_trainer.benchmark.implementations import IMPLEMENTATIONS, Implementation, choose_implementations
from mnist_trainer.benchmark.processes import environment_of_processes, worker_running
from mnist_trainer.benchmark.report import Spread
from mnist_trainer.benchmark.rounds import Benchmark, Measurement
from mnist_trainer.benchmark.worker import Task
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.config.schema import RunConfig
from mnist_trainer.errors import DONE, RequestError, RunError
from mnist_trainer.model import native


def measurement(
    implementation: str, repetition: int, seconds: float, accuracy: float = 0.97, system: float = 1.0
) -> Measurement:
    return Measurement(implementation, repetition, seconds, 0.5, accuracy, 3.0, system)


# Two repetitions after a first epoch that must not count. The ratios are 20 / 10 and 33 / 11.
MADE_UP = [
    *(measurement("ours", 0, 99.0), measurement("tutorial", 0, 999.0)),
    *(measurement("tutorial", 1, 20.0, 0.9), measurement("ours", 1, 10.0)),
    *(measurement("ours", 2, 11.0, 0.975, 0.0), measurement("tutorial", 2, 33.0, 0.96)),
]


# --- statistics


def test_a_spread_has_median_and_range() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert Spread.of([1.0, 2.0]) == (1.5, 1.0, 2.0)
    assert Spread.of([3.0, 1.0, 2.004]).shown() == "2.00 (1.00 to 3.00)"


def test_ratios_are_those_of_each_repetition_without_the_first_epoch() -> None:
    theirs, ours = report.results(MADE_UP)
    assert (theirs.implementation, ours.implementation) == ("tutorial", "ours")
    assert theirs.train_seconds == (26.5, 20.0, 33.0)
    assert theirs.ratio == (2.5, 2.0, 3.0)  # not 26.5 / 10.5
    assert ours.ratio == (1.0, 1.0, 1.0)
    assert theirs.test_accuracy == 0.96
    assert theirs.system_share == 0.25
    assert ours.system_share == pytest.approx(1 / 7)


def test_the_first_implementation_is_the_baseline_if_ours_is_absent() -> None:
    measurements = [measurement("jax", 1, 8.0), measurement("torch", 1, 4.0)]
    assert report.baseline(measurements) == "jax"
    assert {result.implementation: result.ratio.median for result in report.results(measurements)} == {"torch": 0.5, "jax": 1.0}


def test_the_table_has_these_lines() -> None:
    assert report.table(MADE_UP) == [
        "implementation       seconds per epoch     relative to ours  test accuracy  system time",
        "tutorial        26.50 (20.00 to 33.00)  2.50 (2.00 to 3.00)         96.00%          25%",
        "ours            10.50 (10.00 to 11.00)  1.00 (1.00 to 1.00)         97.50%          14%",
    ]


def test_the_rest_is_the_iteration_without_its_phases(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    measured = {"data": 1.0, "forward": 2.0, "backward": 4.0, "update": 0.5}
    worker = SimpleNamespace(wait_until_ready=lambda: None, run_round=lambda: measured | {"user_seconds": 1.0})
    monkeypatch.setattr(phases, "worker_running", lambda _: contextlib.nullcontext(worker))
    found = phases.measure(benchmark_of(data_dir), epoch_seconds=0.1)
    assert found == measured | {"python_and_the_rest": pytest.approx(2.5), "iteration": pytest.approx(10.0)}
    assert phases.table(found) == [
        "where an iteration's time goes     ms  share",
        "data                             1.00    10%",
        "forward                          2.00    20%",
        "backward                         4.00    40%",
        "update                           0.50     5%",
        "python and the rest              2.50    25%",
        "iteration                       10.00   100%",
    ]


def test_the_record_has_every_measurement() -> None:
    record = report.record(MADE_UP)
    assert len(record["measurements"]) == len(MADE_UP)
    assert record["measurements"][0]["train_seconds"] == 99.0
    assert record["results"]["tutorial"]["ratio"] == {"median": 2.5, "minimum": 2.0, "maximum": 3.0}
    json.dumps(record, allow_nan=False)


# --- order of rounds


def test_each_implementation_is_first_equally_often() -> None:
    names = ["a", "b", "c"]
    orders = [rounds.rotated(names, repetition) for repetition in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


# --- implementations that do not learn


def test_an_implementation_that_does_not_learn_is_refused() -> None:
    poor = [measurement("ours", 1, 10.0, 0.98), measurement("torch", 1, 1.0, 0.8999)]
    with pytest.raises(RunError) as caught:
        rounds.refuse_untrained(poor, 60_000)
    assert_names(str(caught.value), "the implementation torch ", "89.99%", "2 epochs", "90%")
    rounds.refuse_untrained(poor[:1], 60_000)
    rounds.refuse_untrained(poor, 29_999)  # too few images to decide


def test_the_last_accuracy_counts() -> None:
    rounds.refuse_untrained([measurement("ours", 0, 1.0, 0.1), measurement("ours", 1, 1.0, 0.95)], 60_000)


# --- choice of implementations


def test_an_unknown_implementation_is_refused(snapshot: Snapshot) -> None:
    problems = refused("benchmark", "--implementations", "ours,tensorflow, mxnet")
    for problem, name in zip(problems, ("tensorflow", "mxnet"), strict=True):
        assert_names(problem, "--implementations ", repr(name), " tutorial, ours, ours-stock, torch, torch-channels-last, jax")
    snapshot("\n".join(problems))


def interpreter(folder: Path, script: str) -> str:
    """Make a fake Python that has, or lacks, the peers' packages."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.process
def test_a_missing_peer_is_left_out_with_a_message(tmp_path: Path, snapshot: Snapshot) -> None:
    python = interpreter(tmp_path, "echo 2.13.0; echo")
    names, (sentence,), versions = choose_implementations(None, python)
    assert names == ["tutorial", "ours", "ours-stock", "torch", "torch-channels-last"]
    assert_names(sentence, "jax: ", f"--peer-python {python}", f"{python} -m pip install jax")
    assert versions == {"torch": "2.13.0", "jax": None}
    snapshot(sentence)


@pytest.mark.process
def test_a_missing_peer_that_is_requested_is_refused(tmp_path: Path, snapshot: Snapshot) -> None:
    python = interpreter(tmp_path, "echo; echo")
    with pytest.raises(RequestError) as caught:
        choose_implementations(["ours", "torch", "jax"], python)
    for problem, name in zip(caught.value.problems, ("torch", "jax"), strict=True):
        assert_names(problem, f"--implementations {name}: ", f"--peer-python {python}", f"{python} -m pip install {name}")
    snapshot(str(caught.value))


def test_the_message_for_a_missing_peer_names_the_extra(monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot) -> None:
    monkeypatch.setattr(implementations, "_versions", lambda packages, python: dict.fromkeys(packages))
    with pytest.raises(RequestError) as caught:
        choose_implementations(["torch"])
    assert_names(str(caught.value), "--implementations torch: ", "pip install -e '.[bench]'", "--peer-python")
    snapshot(str(caught.value))


@pytest.mark.process
def test_versions_are_found_without_importing_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noisy.py").write_text("raise SystemExit('it was imported')\n", encoding="utf-8")
    (tmp_path / "noisy-2.5.dist-info").mkdir()
    (tmp_path / "noisy-2.5.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 2.5\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert implementations._versions(["noisy", "no-such-package"], sys.executable) == {"noisy": "2.5", "no-such-package": None}


@pytest.mark.process
@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param("echo 'no such option' >&2; exit 3", ["no such option"], id="fails"),
        pytest.param("true", [], id="prints nothing"),
    ],
)
def test_a_peer_interpreter_that_is_not_a_python_is_refused(
    script: str, words: list[str], tmp_path: Path, snapshot: Snapshot
) -> None:
    python = interpreter(tmp_path, script)
    with pytest.raises(RequestError) as caught:
        choose_implementations(None, python)
    assert_names(str(caught.value), f"--peer-python {python}: ", *words)
    snapshot(str(caught.value))


@pytest.mark.process
def test_a_missing_peer_interpreter_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        choose_implementations(["torch"], "/nowhere/python")
    assert_names(str(caught.value), "--peer-python /nowhere/python: ", "No such file or directory")


def test_no_peer_interpreter_is_needed_without_peers() -> None:
    assert choose_implementations(["ours", "tutorial", "ours"], "/nowhere/python") == (["ours", "tutorial"], [], {})


@pytest.mark.process
def test_the_code_that_a_peer_interpreter_runs_needs_only_numpy(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "for package in ('mxnet', 'matplotlib', 'tqdm', 'torch', 'jax'): sys.modules[package] = None\n"
        "from mnist_trainer.benchmark import jax_jitted, torch_eager, worker\n"
    )
    done = run_python("-W", "error", "-c", script, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


# --- wrong requests


def test_all_problems_are_reported_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = ("--implementations", "our", "--repetitions", "0", "--data-dir", ".")
    of_implementations, of_repetitions, *of_data = refused("benchmark", *wrong)
    assert_names(of_repetitions, "--repetitions 0: ", "from 1 ")
    assert of_data[0].startswith("train-images-idx3-ubyte.gz: ")
    assert_names(of_implementations, "--implementations our: ", " tutorial, ours, ")
    assert list(tmp_path.iterdir()) == []
    snapshot("\n".join([of_repetitions, of_implementations]))


def test_a_wrong_setting_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    problems = refused("benchmark", "--set", "data.loader=arry", "--outptu", "x")
    for problem, (flag, meant) in zip(
        sorted(problems), (("--outptu: ", "--output?"), ("--set data.loader=arry: ", "array?")), strict=True
    ):
        assert_names(problem, flag, f"did you mean {meant}")
    assert list(tmp_path.iterdir()) == []


def problems_of(**given: Any) -> tuple[str, ...]:
    config = load_config("tutorial", [Override.from_assignment(assignment) for assignment in given.pop("set", ())])
    with pytest.raises(RequestError) as caught:
        session.prepare(config, **given)
    return caught.value.problems


def test_unavailable_devices_and_backends_are_refused_with_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    monkeypatch.setenv("MNIST_TRAINER_NATIVE", "avx3")
    problems = problems_of(set=["runtime.device=gpu", "model.backend=fused"], implementations=["ours"], data_dir=tmp_path)
    assert problems[0].startswith(f"{tmp_path}/train-images-idx3-ubyte.gz: ")
    assert_names(problems[4], "runtime.device = gpu: ", "CPU", "auto")
    assert problems[5].startswith("OMP_NUM_THREADS = 'many': ")
    assert problems[6].startswith("MNIST_TRAINER_NATIVE: 'avx3' ")
    assert len(problems) == 7


def test_everything_is_measured_on_the_cpu(data_dir: Path) -> None:
    config = load_config("tutorial")
    assert config.runtime.device == "auto"
    prepared = session.prepare(config, implementations=["ours"], data_dir=data_dir)
    assert prepared.config.runtime.device == "cpu"
    assert prepared.threads >= 1
    assert prepared.backend in ("stock", "fused")


# --- worker processes


def benchmark_of(data_dir: Path, *names: str, repetitions: int = 1) -> Benchmark:
    small = ("data.train_images=640", "data.test_images=100", "runtime.threads=1")
    config = load_config("tutorial", [Override.from_assignment(setting) for setting in small])
    return Benchmark(names, repetitions, config, "stock", data_dir)


@pytest.fixture
def implementation_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Give a module of the benchmark another `run` in the processes that this test starts; return its name."""

    def make(name: str, body: str) -> str:
        # Python imports sitecustomize first of all, before the process runs our code.
        (tmp_path / "sitecustomize.py").write_text(
            "import sys, types\n"
            f"module = types.ModuleType('mnist_trainer.benchmark.{name}')\n"
            f"exec({body!r}, module.__dict__)\n"
            f"sys.modules[module.__name__] = module\n",
            encoding="utf-8",
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setitem(IMPLEMENTATIONS, name, Implementation(name, name))
        return name

    return make


LEARNS = "rounds.wait(None if number == 0 else {'train_seconds': 1.0, 'test_seconds': 0.1, 'correct': 60})"


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        (
            "dying",
            f"import os\ndef run(task, rounds):\n    for number in range(2): {LEARNS}\n    os.kill(os.getpid(), 9)\n",
            ["SIGKILL"],
        ),
        (
            "leaving",
            "import os, sys\ndef run(task, rounds):\n    rounds.wait()\n"
            "    print('no memory left', file=sys.stderr, flush=True)\n    os._exit(7)\n",
            ["exit code 7", ": no memory left"],
        ),
        ("raising", "def run(task, rounds):\n    raise OSError('first line\\nno network')\n", [": OSError: no network"]),
    ],
    ids=["dying", "leaving", "raising"],
)
def test_a_failing_implementation_is_reported(
    name: str,
    body: str,
    words: list[str],
    implementation_named: Callable[[str, str], str],
    data_dir: Path,
    snapshot: Snapshot,
) -> None:
    with pytest.raises(RunError) as caught:
        rounds.measure(benchmark_of(data_dir, implementation_named(name, body)))
    assert_names(str(caught.value), f"the implementation {name} ", *words)
    snapshot(str(caught.value))


@pytest.mark.process
def test_the_output_of_an_implementation_is_kept_out_of_its_answers(
    implementation_named: Callable[[str, str], str], data_dir: Path
) -> None:
    body = (
        "import os\ndef run(task, rounds):\n    for number in range(5):\n        print('a line of a library', flush=True)\n"
        f"        os.write(1, b'and one of its C code')\n        {LEARNS}\n"
    )
    measurements = rounds.measure(benchmark_of(data_dir, implementation_named("talking", body), repetitions=2))
    assert [(sample.repetition, sample.train_seconds, sample.test_accuracy) for sample in measurements] == [
        (0, 1.0, 0.6),
        (1, 1.0, 0.6),
        (2, 1.0, 0.6),
    ]


@pytest.mark.process
def test_every_round_is_run_and_the_process_ends(
    implementation_named: Callable[[str, str], str], data_dir: Path, tmp_path: Path
) -> None:
    body = (
        "import os, pathlib\ndef run(task, rounds):\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        f"    for number in range(9): {LEARNS}\n"
    )
    done: list[None] = []
    rounds.measure(benchmark_of(data_dir, implementation_named("waiting", body), repetitions=2), lambda: done.append(None))
    assert len(done) == 3
    assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.process
def test_workers_find_this_package_but_not_the_packages_installed_next_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with environment_of_processes(3) as environment:
        alone, *others = environment["PYTHONPATH"].split(os.pathsep)
        assert others == [str(tmp_path)]
        assert [path.name for path in Path(alone).iterdir()] == ["mnist_trainer"]
        script = "import mnist_trainer; print(mnist_trainer.__file__)"
        done = subprocess.run(
            [sys.executable, "-S", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == f"{alone}/mnist_trainer/__init__.py", done.stderr
        assert (environment["OMP_NUM_THREADS"], Path(environment["TMPDIR"]).is_dir()) == ("3", True)
    assert not Path(environment["TMPDIR"]).exists()
    assert (REPOSITORY / "mnist_trainer/__init__.py").is_file()


@pytest.mark.process
def test_a_worker_has_its_threads_and_leaves_no_scratch_folder(
    implementation_named: Callable[[str, str], str], tmp_path: Path
) -> None:
    body = (
        "import os, tempfile\ndef run(task, rounds):\n    rounds.wait()\n"
        "    folder = tempfile.mkdtemp()\n    rounds.wait({'threads': os.environ['OMP_NUM_THREADS'], 'folder': folder})\n"
    )
    name = implementation_named("reporting", body)
    with worker_running(Task("reporting", name, "", 1, 1, 3, 1)) as worker:
        worker.wait_until_ready()
        measured = worker.run_round()
        assert measured["threads"] == "3"
        assert Path(measured["folder"]).is_dir()
    assert not Path(measured["folder"]).parent.exists()


# --- the tutorial's loop


def without_blanks_and_comments(text: str) -> list[str]:
    lines = (line.partition("  # ")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


THE_TUTORIALS_LINES = """
ctx = mx.gpu() if mx.test_utils.list_gpus() else mx.cpu()
num_outputs = 10
batch_size = 64
train_dataloader = mx.gluon.data.DataLoader(train_dataset, batch_size, shuffle=True)
net = nn.HybridSequential()
with net.name_scope():
net.add(nn.Conv2D(channels=10, kernel_size=5, activation='relu'))
net.add(nn.MaxPool2D(pool_size=2, strides=2))
net.add(nn.Conv2D(channels=20, kernel_size=5, activation='relu'))
net.add(nn.MaxPool2D(pool_size=2, strides=2))
net.add(nn.Flatten())
net.add(nn.Dense(512, activation="relu"))
net.add(nn.Dense(num_outputs))
return net
net = build_cnn()
net.collect_params().initialize(mx.init.Xavier(), ctx=ctx)
softmax_cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss()
steps_epochs = [4, 7, 9]
iterations_per_epoch = math.ceil(len(train_dataset) / batch_size)
steps_iterations = [s*iterations_per_epoch for s in steps_epochs]
schedule = mx.lr_scheduler.MultiFactorScheduler(step=steps_iterations, factor=0.1)
sgd_optimizer = mx.optimizer.SGD(learning_rate=0.03, lr_scheduler=schedule)
trainer = mx.gluon.Trainer(params=net.collect_params(), optimizer=sgd_optimizer)
for epoch in range(1, num_epochs+1):
for batch_num, (data, label) in enumerate(train_dataloader, start=1):
data = data.as_in_context(ctx)
label = label.as_in_context(ctx)
with mx.autograd.record():
output = net(data)
loss = softmax_cross_entropy(output, label)
loss.backward()
trainer.step(data.shape[0])
if batch_num == 1:
curr_loss = mx.nd.mean(loss).asscalar()
curr_lr = trainer.learning_rate
print("Epoch: %d; Batch %d; Loss %f; LR %f" % (epoch, batch_num, curr_loss, curr_lr))
""".strip().splitlines()


def test_the_tutorials_loop_has_the_tutorials_lines_and_few_others() -> None:
    ours = without_blanks_and_comments(inspect.getsource(tutorial._tutorial))
    added = iter(ours)
    for line in THE_TUTORIALS_LINES:
        assert line in added, line  # in this order
    assert [line for line in ours if line not in THE_TUTORIALS_LINES] == [
        "def _tutorial(mx: Any, mnist: Any, num_epochs: int) -> tuple[Iterator[None], Any]:",
        '"""Return a generator that trains for one epoch at a time, and the network."""',
        "nn = mx.gluon.nn",
        "transforms = mx.gluon.data.vision.transforms",
        "train_dataset = mnist.transform_first(transforms.ToTensor())",
        "def build_cnn():",
        "def train() -> Iterator[None]:",
        "yield",
        "return train(), net",
    ]


@pytest.mark.slow
@pytest.mark.process
def test_the_tutorials_loop_has_none_of_our_settings_for_mxnet(data_dir: Path, tmp_path: Path) -> None:
    script = (
        "import os\nfrom mnist_trainer.benchmark import tutorial\nfrom mnist_trainer.benchmark.worker import Task\n"
        "def rounds(_, train_epoch, count_correct):\n"
        "    train_epoch()\n    print(count_correct()[0] > 50, [name for name in os.environ if name.startswith('MXNET_')])\n"
        f"tutorial.run_rounds = rounds\ntutorial.run(Task('t', 'tutorial', {str(data_dir)!r}, 640, 1000, 1, 1), None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={name: value for name, value in new_environment().items() if not name.startswith("MXNET_")},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "True []", done.stderr


# --- the command


SMALL = ("--train-images", "640", "--threads", "1", "--set", "data.test_images=1000", "--set", "data.loader=gluon", "--quiet")


class Done(NamedTuple):
    """The lines that a benchmark printed, and its folder."""

    lines: list[str]
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / "benchmark.json").read_text(encoding="utf-8"))
        return read


def benchmark(*arguments: str, cwd: Path) -> Done:
    done = run_forked_program("benchmark", *arguments, "--output", "bench", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return Done(done.stdout.splitlines(), cwd / "bench")


@pytest.fixture(scope="module")
def small_benchmark(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("small")
    return benchmark(*SMALL, "--repetitions", "2", "--implementations", "tutorial,ours", cwd=folder)


@pytest.mark.slow
@pytest.mark.process
def test_a_small_benchmark_prints_its_table_and_writes_its_files(small_benchmark: Done) -> None:
    (conditions, unlike_tutorial, *lines), result = small_benchmark.lines, small_benchmark.result
    assert_names(conditions, "1 thread,", "640 images", "2 repetitions")
    assert_names(unlike_tutorial, "ours ", "configs/tutorial.toml", "data.loader=gluon")
    spread = r" +\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)"
    for line, name in zip(lines[1:3], ("tutorial", "ours"), strict=True):
        assert re.fullmatch(rf"{name}{spread}{spread} +\d+\.\d\d% +\d+%", line), line
    assert [line.rstrip(" 0123456789.%-") for line in lines[4:10]] == [
        *("data", "forward", "backward", "update", "python and the rest", "iteration"),
    ]
    assert lines[10:] == ["Folder bench"]
    assert {path.name for path in small_benchmark.folder.iterdir()} == {"benchmark.json", "benchmark.png"}
    assert set(result) == {"environment", "conditions", "baseline", "results", "measurements", "phases_ms"}
    assert result["conditions"]["threads"] == 1
    assert result["conditions"]["config"]["data"]["loader"] == "gluon"
    assert result["conditions"]["ours_unlike_tutorial"] == {"data.loader": "gluon"}
    assert result["environment"]["device"] == "cpu"
    assert result["environment"]["packages"]["mxnet"] == "1.9.1"
    rounds = [(sample["implementation"], sample["repetition"]) for sample in result["measurements"]]
    assert rounds == [
        *(("tutorial", 0), ("ours", 0)),
        *(("ours", 1), ("tutorial", 1)),
        *(("tutorial", 2), ("ours", 2)),
    ]
    for sample in result["measurements"]:
        assert sample["train_seconds"] > 0
        assert sample["test_seconds"] > 0
        assert 0 < sample["test_accuracy"] < 1
    found = result["phases_ms"]
    assert sum(value for name, value in found.items() if name != "iteration") == pytest.approx(found["iteration"])
    height, width = imread(small_benchmark.folder / "benchmark.png").shape[:2]
    assert width > height > 200


@pytest.mark.slow
@pytest.mark.process
def test_ours_has_the_accuracies_of_train(small_benchmark: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare_time(monkeypatch)
    code, _, err = run("train", *SMALL, "--epochs", "3", "--output", tmp_path / "run")
    assert code == DONE, err
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    ours = [sample for sample in small_benchmark.result["measurements"] if sample["implementation"] == "ours"]
    assert [sample["test_accuracy"] for sample in ours] == [row["test_accuracy"] for row in metrics]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_benchmark_leaves_no_process_and_no_folder(number: int, tmp_path: Path) -> None:
    with in_an_epoch(tmp_path) as process:
        children = children_of(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, out, err.count("\n")) == (130, "", 1)
    assert_names(err, "interrupted")
    assert len(children) == 2
    for child in children:
        assert not is_alive(child)
    assert list((tmp_path / "runs").iterdir()) == []
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow
@pytest.mark.process
def test_a_benchmark_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    with in_an_epoch(tmp_path) as process:
        children = children_of(process.pid)
    assert len(children) == 2
    wait_for(lambda: not any(map(is_alive, children)))
    assert all(os.waitpid(child, 0)[1] == signal.SIGKILL for child in children)  # and not at the end of the epoch


@contextlib.contextmanager
def in_an_epoch(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a benchmark until its first epoch is under way, and kill it at the end."""
    scratch = folder / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "mnist_trainer", "benchmark", "--threads", "1", "--implementations", "tutorial,ours", "--quiet"],
        cwd=folder,
        env=new_environment(TMPDIR=str(scratch), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_for(lambda: an_epoch_is_under_way(scratch), process)
            assert process.poll() is None
            yield process
        finally:
            process.kill()


def an_epoch_is_under_way(scratch: Path) -> bool:
    """Return whether the tutorial's loop has printed its first iteration, into the file with a worker's messages."""
    return any("Epoch: 1; Batch 1; " in path.read_text(encoding="utf-8") for path in scratch.glob("*/stderr.txt"))


def test_a_failing_implementation_ends_the_benchmark_with_exit_code_1(
    implementation_named: Callable[[str, str], str], program: Program, tmp_path: Path
) -> None:
    # tmp_path, which contains sitecustomize, is first on the path of the workers too.
    implementation_named("ours", "def run(task, rounds):\n    raise MemoryError('no memory')\n")
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    done = program("benchmark", *SMALL, "--implementations", "ours", PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert_names(done.stderr, "the implementation ours ", ": MemoryError: no memory")
    assert list((tmp_path / "runs").iterdir()) == []


# --- measurements and folders after a failure


def call_benchmark(*arguments: str | Path) -> Outcome:
    return run("benchmark", "--train-images", "60000", "--threads", "1", "--quiet", *arguments)


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        pytest.param(KeyboardInterrupt, 130, ["interrupted"], id="ctrl-c"),
        pytest.param(partial(RunError, "no memory"), 1, ["no memory"], id="failure"),
    ],
)
def test_the_measurements_are_kept_if_measuring_the_phases_fails(
    error: Callable[[], BaseException],
    expected: int,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: Snapshot,
) -> None:
    def fail(*_: Any) -> dict[str, float]:
        raise error()

    learned = [measurement("ours", repetition, 10.0) for repetition in (0, 1)]
    monkeypatch.setattr(rounds, "measure", lambda *_: learned)
    monkeypatch.setattr(phases, "measure", fail)
    code, out, err = call_benchmark("--implementations", "ours", "--repetitions", "1", "--output", tmp_path / "bench")
    assert (code, out) == (expected, "")
    assert_names(err, *words, f" {tmp_path / 'bench'}\n")
    result = json.loads((tmp_path / "bench/benchmark.json").read_text(encoding="utf-8"))
    assert [sample["train_seconds"] for sample in result["measurements"]] == [10.0, 10.0]
    snapshot(err)


def test_the_measurements_of_an_untrained_implementation_are_kept_with_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = [measurement("ours", repetition, 10.0, 0.1) for repetition in (0, 1)]
    monkeypatch.setattr(rounds, "measure", lambda *_: poor)
    code, _, err = call_benchmark("--implementations", "ours", "--repetitions", "1", "--output", tmp_path / "bench")
    assert code == 1
    assert_names(err, "the implementation ours ", " 10.00% ")
    result = json.loads((tmp_path / "bench/benchmark.json").read_text(encoding="utf-8"))
    assert_names(result["failed"], "the implementation ours ", " 10.00% ")
    assert [sample["test_accuracy"] for sample in result["measurements"]] == [0.1, 0.1]


@pytest.mark.parametrize("was_there", [True, False])
def test_an_empty_folder_is_removed_only_if_the_program_made_it(
    was_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> list[Measurement]:
        raise RunError("no memory")

    monkeypatch.setattr(rounds, "measure", fail)
    if was_there:
        (tmp_path / "bench").mkdir()
    assert call_benchmark("--implementations", "ours", "--output", tmp_path / "bench").code == 1
    assert (tmp_path / "bench").is_dir() == was_there


def test_only_settings_that_change_ours_alone_are_listed(snapshot: Snapshot) -> None:
    def differences(*assignments: str) -> dict[str, Any]:
        config: RunConfig = load_config("tutorial", [Override.from_assignment(assignment) for assignment in assignments])
        return session._differences(config)

    assert differences("runtime.threads=3", "data.train_images=640", "training.epochs=3") == {}
    found = differences("training.batch_size=128", "model.backend=stock", "schedule={name = 'Constant'}")
    assert found == {
        "training.batch_size": 128,
        "schedule.name": "Constant",
        "schedule.step_epochs": None,
        "schedule.factor": None,
        "model.backend": "stock",
    }
    sentence = session._sentence_of_differences(found)
    changes = (key if value is None else f"{key}={value}" for key, value in found.items())
    assert_names(sentence, "ours ", "configs/tutorial.toml", *changes)
    snapshot(sentence)


# --- the figure


def test_the_figure_has_a_bar_and_a_whisker_for_each_implementation() -> None:
    figure = plots.plot_benchmark({"other": (4.0, 3.9, 4.2), "one": (2.0, 1.5, 3.0)}, ["one"], "2 threads")
    (axes,) = figure.axes
    bars, whiskers = axes.containers
    assert [bar.get_width() for bar in bars] == [2.0, 4.0]
    segments = cast(Any, whiskers).lines[2][0].get_segments()
    assert [(segment[0][0], segment[1][0]) for segment in segments] == [(1.5, 3.0), (3.9, 4.2)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "other"]
    assert [label.get_fontweight() for label in axes.get_yticklabels()] == ["bold", "normal"]
    assert len({bar.get_facecolor() for bar in bars}) == 2
    assert axes.yaxis_inverted()
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "Seconds per epoch"
    assert figure.get_suptitle() == "2 threads"
    assert [note.get_text() for note in axes.texts] == ["2.00", "4.00"]


def test_the_extra_lists_the_packages_of_the_peers() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    extra = re.search(r"^bench = (\[.*\])$", text, re.MULTILINE)
    assert extra
    assert [re.match(r"[a-z]+", requirement)[0] for requirement in ast.literal_eval(extra[1])] == sorted(  # type: ignore[index]
        {implementation.package for implementation in IMPLEMENTATIONS.values()} - {""}, reverse=True
    )


def test_the_number_of_rounds_includes_the_first_epochs(data_dir: Path) -> None:
    assert session.prepare(load_config("quick"), ["tutorial", "ours"], 3, data_dir=data_dir).total_rounds == 4 * 2


def test_ours_is_not_compared_with_itself(data_dir: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot) -> None:
    stock = load_config("quick", [Override.from_assignment("model.backend=stock")])
    prepared = session.prepare(stock, ["ours", "ours-stock"], 1, data_dir=data_dir)
    assert list(prepared.implementations) == ["ours"]
    (sentence,) = prepared.left_out
    assert_names(sentence, "ours-stock: ", "mnist-trainer doctor")
    monkeypatch.setattr(native, "problem", lambda: None)
    fused = session.prepare(load_config("quick"), ["ours", "ours-stock"], 1, data_dir=data_dir)
    assert list(fused.implementations) == ["ours", "ours-stock"]
    snapshot(sentence)


@pytest.mark.process
def test_files_in_the_current_folder_are_not_imported_as_modules(
    implementation_named: Callable[[str, str], str], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "colorsys.py").write_text("raise SystemExit('a file of the user')\n", encoding="utf-8")
    monkeypatch.chdir(here)
    body = f"import colorsys\ndef run(task, rounds):\n    for number in range(3):\n        {LEARNS}\n"
    name = implementation_named("importing", body)
    assert [sample.implementation for sample in rounds.measure(benchmark_of(data_dir, name))] == [name, name]
