"""What the parts of this program's training cost: phases of an iteration, checkpoints, loaders, ways to compute the network.

`run` is the module that `resources` has a worker run. Each is measured in a process of its own, where a turn is one repetition.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from mnist_trainer.benchmark.worker import Task, Turns

YOUNG = 20
"""Iterations at the beginning of the pass of phases that are not counted."""

BATCHES_OF_GRAPHS = 50
"""Batches with which each way to compute the network is timed in a turn."""


def run(task: Task, turns: Turns) -> None:
    """Takes one measurement each turn.

    settings: `what`, "phases", "checkpoints", "data" or "graphs"; `config`, the tables of a configuration.
    """
    from mnist_trainer.config.schema import RunConfig

    config = RunConfig.from_tables(task.settings["config"])

    from mnist_trainer.training import experiment

    prepared = experiment.prepare(config, Path(task.data_dir))
    measure = {"phases": phases, "checkpoints": checkpoints, "data": data_loading, "graphs": graphs}[task.settings["what"]]
    measured = None
    while True:
        turns.wait(measured)
        measured = measure(prepared)


def phases(prepared: Any) -> dict[str, float]:
    """Medians over the iterations of an epoch, in ms, in a pass that waits for the device after each phase."""
    from mnist_trainer.model.network import ScoredNetwork
    from mnist_trainer.runtime import import_mxnet
    from mnist_trainer.training import experiment
    from mnist_trainer.training.loop import split_batch

    mx = import_mxnet()
    net, trainer = experiment.start(prepared)
    scored = ScoredNetwork(prepared.staged(net))
    taken: dict[str, list[float]] = {"data": [], "forward": [], "backward": [], "update": []}
    batches = iter(prepared.train_loader)
    while True:
        moments = [time.perf_counter()]

        def phase_ends(moments: list[float] = moments) -> None:
            mx.nd.waitall()
            moments.append(time.perf_counter())

        try:
            images, labels = next(batches)
        except StopIteration:
            break
        parts = split_batch(images, labels, prepared.contexts)
        phase_ends()
        with mx.autograd.record():
            loss_sums = [scored(*part)[0] for part in parts]
        phase_ends()
        mx.autograd.backward(loss_sums)
        phase_ends()
        trainer.begin_iteration()
        trainer.step(len(images))
        phase_ends()
        for seconds, before, after in zip(taken.values(), moments[:-1], moments[1:], strict=True):
            seconds.append(after - before)
    return {name: 1000 * statistics.median(seconds[YOUNG:] or seconds) for name, seconds in taken.items()}


def checkpoints(prepared: Any) -> dict[str, float]:
    """Seconds of an epoch with its evaluation: without checkpoints, as configured, and with one every 50 iterations."""
    every = {"without": None, "by_default": prepared.config.checkpoint.every_iterations, "every_50": 50}
    return {f"{kind}_seconds": _epoch_seconds(prepared, iterations) for kind, iterations in every.items()}


def data_loading(prepared: Any) -> dict[str, float]:
    """Milliseconds a batch of each loader alone, and those of an iteration of training with the configured one."""
    from mnist_trainer.data.loaders import create_loaders
    from mnist_trainer.training import experiment

    measured = {}
    for kind in ("array", "gluon"):
        config = replace(prepared.config, data=replace(prepared.config.data, loader=kind))
        loader, _ = create_loaders(config, prepared.data_dir)
        measured[f"{kind}_ms"] = 1000 * _seconds_of(loader) / len(loader)
    net, trainer = experiment.start(prepared)
    iterations = len(prepared.train_loader)
    measured["iteration_ms"] = 1000 * _fit_seconds(prepared, net, trainer)[0] / iterations
    return measured


def graphs(prepared: Any) -> dict[str, float]:
    """Milliseconds of forward, backward and update, a way to compute the network each, all with the same batches in memory.

    as_written: network and loss of `build_cnn` and `build_loss`, hybridized, the scores computed outside. Then one change
    after the other: one graph of it all, its memory planned, pooling before relu, channels filled up to 8 and to 16, and the
    fused operator and an update that is one operator too, where they can be used.
    """
    from mnist_trainer.model import native
    from mnist_trainer.model.backends import FusedStages, StockStages
    from mnist_trainer.model.network import ScoredNetwork
    from mnist_trainer.runtime import import_mxnet
    from mnist_trainer.training import experiment

    mx = import_mxnet()
    batches = list(islice(prepared.train_loader, BATCHES_OF_GRAPHS))
    ways: dict[str, Callable[[Any], Any]] = {
        "as_written": _as_written,
        "one_graph": ScoredNetwork,
        "planned_memory": ScoredNetwork,
        "pooled_first": lambda net: ScoredNetwork(StockStages(net, 1)),
        "channels_by_8": lambda net: ScoredNetwork(StockStages(net, 8)),
        "channels_by_16": lambda net: ScoredNetwork(StockStages(net, 16)),
    }
    if not native.problem():
        native.load()
        ways["fused"] = ways["fused_update"] = lambda net: ScoredNetwork(FusedStages(net))
    measured = {}
    for name, way in ways.items():
        # The optimizer goes by the stages.
        model = replace(prepared.config.model, stages="fused" if name == "fused_update" else "stock")
        net, trainer = experiment.start(replace(prepared, config=replace(prepared.config, model=model)))
        scored = way(net)
        if name == "one_graph":
            scored.hybridize(static_alloc=False, static_shape=False)
        for is_counted in (False, True):
            mx.nd.waitall()
            started = time.perf_counter()
            for images, labels in batches:
                with mx.autograd.record():
                    loss_sum, _ = scored(images, labels)
                loss_sum.backward()
                trainer.begin_iteration()
                trainer.step(len(images))
            mx.nd.waitall()
            if is_counted:
                measured[f"{name}_ms"] = 1000 * (time.perf_counter() - started) / len(batches)
    return measured


def _as_written(net: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    from mnist_trainer.model.network import build_loss
    from mnist_trainer.runtime import import_mxnet

    mx = import_mxnet()
    loss_function = build_loss()
    net.hybridize()
    loss_function.hybridize()

    def scored(images: Any, labels: Any) -> tuple[Any, Any]:
        logits = net(images)
        losses = loss_function(logits, labels)
        return losses.sum(), (mx.nd.argmax(logits, axis=1) == labels.astype("float32")).sum()

    return scored


def _seconds_of(loader: Iterable[Any]) -> float:
    started = time.perf_counter()
    for images, labels in loader:
        images.wait_to_read()
        labels.wait_to_read()
    return time.perf_counter() - started


def _epoch_seconds(prepared: Any, every_iterations: int | None) -> float:
    from mnist_trainer.run_folder import RunFolder
    from mnist_trainer.training import experiment
    from mnist_trainer.training.checkpoint import Checkpointer
    from mnist_trainer.training.loop import Keeper

    net, trainer = experiment.start(prepared)
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder.create(Path(name))
        keeper = Keeper()
        if every_iterations:
            when = replace(prepared.config.checkpoint, every_iterations=every_iterations)
            keeper = Checkpointer(folder, replace(prepared.config, checkpoint=when), net, trainer)
        return _fit_seconds(prepared, net, trainer, [experiment.FolderWriter(folder)], keeper)[1]


def _fit_seconds(prepared: Any, net: Any, trainer: Any, observers: Any = (), keeper: Any = None) -> tuple[float, float]:
    """Of an epoch: the seconds of its training, and those of everything."""
    from mnist_trainer.training.loop import fit

    started = time.perf_counter()
    epoch = fit(prepared.staged(net), prepared.train_loader, prepared.test_loader, trainer, 1, observers, keeper=keeper)[0]
    return epoch.epoch_seconds, time.perf_counter() - started
