"""What checkpoints cost: epochs with and without them in one process, one after the other, and the ratio of their times.

    python tests/benchmark_checkpoints.py [--repetitions N] [--threads N]

Run it on a machine that does nothing else. One epoch on all training images, 938 iterations; with checkpoints it is saved once
at its end, as by default, or after every 50 iterations too.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnist_trainer import runtime


def epoch_seconds(config: Any, loaders: Any, every_iterations: int | None) -> float:
    """The time of an epoch with a fresh network; None for no checkpoints."""
    from mnist_trainer.checkpoint import Checkpointer
    from mnist_trainer.experiment import FolderWriter
    from mnist_trainer.model import build_cnn, initialize
    from mnist_trainer.optimizer import create_trainer
    from mnist_trainer.run_folder import RunFolder
    from mnist_trainer.trainer import Keeper, fit, seed_everything

    seed_everything(1)
    net = build_cnn()
    initialize(net)
    trainer = create_trainer(net.collect_params(), config.build_schedule())
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder.create(Path(name))
        keeper = Keeper()
        if every_iterations:
            when = replace(config.checkpoint, every_iterations=every_iterations)
            keeper = Checkpointer(folder, replace(config, checkpoint=when), net, trainer)
        started = time.perf_counter()
        train_loader, test_loader = loaders
        fit(net, train_loader, test_loader, trainer, 1, [FolderWriter(folder)], keeper=keeper)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    threads = runtime.prepare(arguments.threads or "auto")
    from mnist_trainer.config import load_config
    from mnist_trainer.data import create_loaders

    config = load_config("tutorial")
    loaders = create_loaders(config)
    kinds = {"none": None, "by default": config.checkpoint.every_iterations, "every 50": 50}
    for every_iterations in kinds.values():  # once to warm up
        epoch_seconds(config, loaders, every_iterations)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(arguments.repetitions):
        for kind, every_iterations in kinds.items():
            times[kind].append(epoch_seconds(config, loaders, every_iterations))
    print(
        f"{threads} threads, {arguments.repetitions} repetitions, seconds of an epoch with its test (median, lowest to highest)"
    )
    for kind, seconds in times.items():
        ratios = [one / other for one, other in zip(seconds, times["none"], strict=True)]
        print(
            f"{kind:12}{statistics.median(seconds):7.2f} ({min(seconds):.2f} to {max(seconds):.2f}), "
            f"ratio {statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})"
        )


if __name__ == "__main__":
    main()
