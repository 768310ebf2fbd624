"""The bundled configurations: each loads, and its first lines state its command, time and accuracy."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Program
from programs import REPOSITORY

from mnist_trainer.config.loading import load_config
from mnist_trainer.schedules.catalogue import FAMILIES

CONFIGS = sorted((REPOSITORY / "configs").glob("*.toml"))

each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


@each_config
def test_it_loads_and_all_its_rates_are_valid(path: Path) -> None:
    config = load_config(path)
    schedule = config.build_schedule()
    rates = [schedule(iteration) for iteration in range(1, config.run_length.total_iterations + 1)]
    assert max(rates) > 0
    assert min(rates) >= 0


@each_config
def test_the_rate_does_not_rise_at_the_last_iteration(path: Path) -> None:
    # A run exactly as long as its cycles would end with a restart.
    config = load_config(path)
    last, total = config.build_schedule(), config.run_length.total_iterations
    assert last(total) <= last(total - 1)


@each_config
def test_its_first_lines_state_command_time_and_accuracy(path: Path) -> None:
    head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    assert head, "no comment at the top"
    assert f"#     mnist-trainer train --config configs/{path.name}\n" in head[0]
    assert re.search(r"# Measured: \d\d\.\d\d % on the test images, \d+ s ", head[0])


def names_in(settings: Any) -> set[str]:
    """Return the names of the schedules in a table and in the tables within it."""
    if isinstance(settings, list):
        return set().union(*map(names_in, settings))
    return {settings["name"]}.union(*map(names_in, settings.values())) if isinstance(settings, dict) and settings else set()


def test_every_family_of_schedules_and_all_of_the_tutorials_have_a_configuration() -> None:
    configs = [load_config(path) for path in CONFIGS]
    used = set().union(*(names_in(table) for config in configs for table in (config.schedule, config.momentum, config.wd)))
    for family, curves in FAMILIES.items():
        assert used & {cls.__name__ for cls in curves}, family
    assert {"Factor", "MultiFactor", "Poly", "Cosine", "CosineAnnealing"} <= used


def test_the_two_configurations_of_the_tutorial_differ_only_in_the_mode() -> None:
    one, other = load_config("tutorial"), load_config("tutorial-manual")
    assert one == replace(other, training=replace(other.training, scheduler_mode="optimizer"))
    assert repr(one.build_schedule()) == "MultiFactor(base_lr=0.03, step=(3752, 6566, 8442), factor=0.1)"
    assert (one.training.epochs, one.training.batch_size, one.optimizer) == (10, 64, {"name": "sgd"})


@pytest.mark.slow
def test_the_quick_configuration_reaches_its_stated_accuracy(program: Program, tmp_path: Path) -> None:
    # One epoch on all the data: a broken network, loss, loader or optimizer does not reach 96 % in it.
    done = program("train", "--config", "quick", "--quiet", "--output", "quick")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "quick" / "summary.json").read_text(encoding="utf-8"))
    assert summary["test_total"] == 10_000
    stated = re.search(r"Measured: (\d\d\.\d\d) %", (REPOSITORY / "configs/quick.toml").read_text(encoding="utf-8"))
    assert stated
    assert summary["test_accuracy"] > 0.96
    assert abs(100 * summary["test_accuracy"] - float(stated[1])) < 0.5
