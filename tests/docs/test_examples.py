"""The examples of the README and of `docs/` work: one test for each section that has some."""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from documents import PAGES, README, Block, Section, section, sections_of
from programs import REPOSITORY, run_command, run_forked_program

from mnist_trainer.cli import main
from mnist_trainer.config.loading import load_config
from mnist_trainer.config.overrides import Override
from mnist_trainer.errors import DONE
from mnist_trainer.run_folder import RunFolder

SECTIONS = [
    found
    for page in PAGES
    for found in sections_of(page)
    if found.examples and not any("python3 -m venv" in block.text for block in found.blocks)  # `.ci/run` runs these
]


def in_a_clone(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as in a clone with an activated environment; `mnist-trainer` in a fork, which has loaded MXNet."""
    for name in ("configs", "data", "scripts", "tests"):
        if not (folder / name).exists():
            (folder / name).symlink_to(REPOSITORY / name)
    if command[0] == "mnist-trainer":
        return run_forked_program(*command[1:], cwd=folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return run_command(*command, cwd=folder, PATH=path, OMP_NUM_THREADS="1")


def words(command: str) -> list[str]:
    """Return the words of a command line, or a shell that runs it if it needs one."""
    return ["bash", "-c", command] if re.search(r"[|>$&]", command) else shlex.split(command)


_TRAINS = r"^(?!.*(?:--resume|--config runs/|compare runs/))((?:.*-- |mnist-trainer |python scripts/)(?:train|compare)\b"

SHORTER = (
    (r"--seeds [\d,]+", "--seeds 0 --epochs 1"),
    (r"multifactor poly cosine warm-restarts warmup-stable-decay ", ""),
    (r"(?<=compare )tutorial plateau", "--set data.train_images=6400 --set data.test_images=100 constant plateau"),
    (_TRAINS + r"(?!.*(?:--train-images|plateau)).*)$", r"\1 --train-images 640"),
    (_TRAINS + r"(?!.*plateau).*)$", r"\1 --test-images 100"),
    (r"checkpoints/00002814", "checkpoints/00000030"),
    (r"measure_costs\.py", "measure_costs.py memory --set data.train_images=640 --repetitions 1"),
    (r"(mnist-trainer find-lr .*)", r"\1 --iterations 100"),
    (r"(mnist-trainer benchmark .*)", r"\1 --train-images 640 --set data.test_images=100 --repetitions 1 --threads 1"),
    (r"(mnist-trainer demo .*)", r"timeout 5 \1 --port 0 || [ $? = 124 ]"),  # serves until it is stopped
    (r"(python tests/drawn_digits\.py drawn)", r"\1 && find drawn -type f ! -name 'DejaVuSans_*' ! -name 'cmr10_*' -delete"),
)
"""Changes that make a command take seconds: fewer images, epochs, seeds, costs and pictures."""


def shortened(command: str) -> str:
    for pattern, replacement in SHORTER:
        command = re.sub(pattern, replacement, command)
    return command


OTHERS_RUN = r"(?m)^import (onnxruntime|torch|jax|keras)\b"
"""An example that has a test below, or that `schedules/origins/examples.py` runs."""


def test_every_shortening_has_a_command() -> None:
    commands = [line for found in SECTIONS for block in found.blocks if block.language == "console" for line in block.commands]
    assert [pattern for pattern, _ in SHORTER if not any(re.search(pattern, line) for line in commands)] == []


def run_block(block: Block, folder: Path) -> None:
    """Run the commands or the Python code of a block, or write the file that it is."""
    if block.language == "console":
        for command in block.commands:
            done = in_a_clone(folder, words(shortened(command)))
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    elif block.file:
        (folder / block.file).write_text(block.text, encoding="utf-8")
    elif block.text.startswith(">>>"):
        found = doctest.DocTestParser().get_doctest(block.text, {}, "documents", None, 0)
        assert doctest.DocTestRunner().run(found).failed == 0
    else:
        assert block.language == "python", f"give this file a name in its first line:\n{block.text}"
        # Without this package, the import of MXNet warns.
        warnings = "error" if "mnist_trainer" in block.text else "ignore"
        done = in_a_clone(folder, [sys.executable, "-W", warnings, "-c", block.text])
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("found", SECTIONS, ids=str)
def test_the_examples_of_a_section_run_one_after_the_other(found: Section, trained_run: Path, tmp_path: Path) -> None:
    commands = [command for block in found.blocks if block.language == "console" for command in block.commands]
    if not any("--output runs/tutorial" in command for command in commands):  # trained by another section
        shutil.copytree(trained_run, tmp_path / "runs" / "tutorial")
    for block in found.examples:
        is_cell = found.page.name == "tutorial.md" and block.language == "python"  # `test_notebooks` runs it
        if not is_cell and not re.search(OTHERS_RUN, block.text):
            run_block(block, tmp_path)
    for path in re.findall(r"--output (\S+)", " ".join(commands)):
        assert (tmp_path / path).exists() or (tmp_path / f"{path}-symbol.json").exists(), path


def masked(line: str) -> str:
    """Return a line of output with its numbers and hashes replaced."""
    return re.sub(r"\d+(\.\d+)?", "0", re.sub(r"\b[0-9a-f]{64}\b", "SHA", line))


@pytest.mark.process
def test_the_printed_output_has_the_lines_of_a_run(tmp_path: Path) -> None:
    done = in_a_clone(tmp_path, shlex.split("mnist-trainer train --train-images 640 --test-images 100 --epochs 2"))
    printed = {masked(line) for line in done.stdout.splitlines()}
    printed.add(re.sub("runs/.*", "runs/tutorial", done.stdout.splitlines()[-1]))
    for found in (section("README.md", "Start"), section("docs/training.md", "Run the tutorial's experiment")):
        (text,) = [block.text for block in found.blocks if block.language == "text"]
        assert {masked(line) for line in text.splitlines()} - {"…"} <= printed


def test_the_printed_translation_is_that_of_the_program() -> None:
    found = section("docs/other-frameworks.md", "Find a schedule by its name")
    (text,) = [block.text for block in found.blocks if block.language == "text"]
    assert run("schedules", "find", "StepLR").out.startswith(text.removesuffix("…\n"))


def test_the_commands_for_a_fresh_checkout_are_those_of_ci() -> None:
    (set_up,) = section("README.md", "Start").examples
    (tests,) = section("README.md", "Run the tests").examples
    install = r"python3 -m venv \.venv && \.venv/bin/pip install -e .* &&\n\.venv/bin/pip install --no-deps mxnet==1\.9\.1 && "
    assert re.fullmatch(rf"{install}\.venv/bin/mnist-trainer train\n", set_up.text)
    assert re.fullmatch(rf"{install}\.venv/bin/pytest .*\n", tests.text)
    pattern = re.search(r"grep --before-context=1 '(.*)' README\.md", (REPOSITORY / ".ci/run").read_text(encoding="utf-8"))
    assert pattern
    (found,) = re.findall(f"^.*\n.*{pattern[1]}.*\n", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert found == tests.text


@pytest.mark.slow
@pytest.mark.process
def test_the_example_of_onnx_recognises_digits_without_mxnet(trained_run: Path, tmp_path: Path) -> None:
    example = next(
        block.text for block in section("docs/using-a-model.md", "Export it").examples if "onnxruntime" in block.text
    )
    assert main(["export", str(trained_run), "--format", "onnx", "--output", str(tmp_path / "digits.onnx")]) == DONE
    done = in_a_clone(tmp_path, [sys.executable, "tests/drawn_digits.py", "drawn"])
    assert done.returncode == 0, done.stderr
    alone = "import sys\nsys.modules['mxnet'] = sys.modules['mnist_trainer'] = None\n"
    correct = 0
    for digit in range(5):
        done = in_a_clone(tmp_path, [sys.executable, "-W", "error", "-c", alone + example.replace("_7.png", f"_{digit}.png")])
        assert done.returncode == 0, done.stderr
        correct += done.stdout == f"{digit}\n"
    assert correct >= 4


@pytest.mark.slow
@pytest.mark.process
def test_the_schedule_of_ones_own_has_the_rates_that_its_page_describes(tmp_path: Path) -> None:
    for block in section("docs/schedules.md", "Write your own").examples:
        if block.file:
            run_block(block, tmp_path)
    done = in_a_clone(tmp_path, shlex.split("mnist-trainer schedules show sawtooth.toml --iterations 1,939,1877"))
    assert done.stdout.splitlines()[2:] == ["1,0.05", "939,0.025", "1877,0.05"], done.stderr
    done = in_a_clone(tmp_path, shortened("mnist-trainer train --config sawtooth.toml --epochs 4 --output mine").split())
    assert done.returncode == 0, done.stderr
    rates = [rate for _, rate, _ in RunFolder(tmp_path / "mine").read_iterations()]
    assert rates == pytest.approx([0.05 * (1 - k % 20 / 20) for k in range(40)])  # 10 iterations per epoch


def test_the_nested_schedule_has_the_rates_that_its_page_describes(tmp_path: Path) -> None:
    nested = section("docs/schedules.md", "Nest schedules")
    path = tmp_path / "nested.toml"
    path.write_text(next(block.text for block in nested.examples if block.file == "nested.toml"), encoding="utf-8")
    schedule = load_config(path).build_schedule()
    assert schedule.rates(469, 470) == [0.1, pytest.approx(0.1, rel=1e-5)]
    assert schedule(469 + 5628) == pytest.approx(0.01)
    assert schedule(9380) == pytest.approx(0, abs=1e-9)
    changes = re.findall(r"`--set '?(schedule[^`']*)'?`", nested.text)
    assert len(changes) == 2
    for change in changes:
        assert load_config(path, [Override.from_assignment(change)]).build_schedule() != schedule


def test_the_example_of_a_configuration_is_the_tutorials_schedule(tmp_path: Path) -> None:
    (example, _) = section("docs/configuration.md", "An experiment is a TOML file").examples
    path = tmp_path / "experiment.toml"
    path.write_text(example.text, encoding="utf-8")
    assert repr(load_config(path).build_schedule()) == repr(load_config("tutorial").build_schedule())
