"""PyTorch at its best on a CPU: all images in memory as one tensor, a batch by one indexing, eager mode, fused SGD.

Contiguous or channels-last, by the setting `memory_format`. Tried beside it, with PyTorch 2.13 on two threads of an Intel Xeon
with AVX-512: SGD with foreach, or with neither, took up to 4 % longer; `torch.compile` took twice as long, after a minute of
compiling; `index_select` in place of the indexing made no difference.

No test runs it, because the environment of the tests has no PyTorch; the benchmark itself fails when it does not learn.
"""

import time
from pathlib import Path

from mnist_trainer.benchmark.worker import Rounds, Task, run_rounds
from mnist_trainer.data.mnist_files import read_split

BATCH_SIZE = 64
LEARNING_RATE = 0.03


def run(task: Task, rounds: Rounds) -> None:
    """Train and evaluate an epoch each round.

    Args:
        task: Its settings have `memory_format`, "contiguous" or "channels_last".
        rounds: The rounds of this worker.
    """
    import torch
    from torch import nn

    torch.set_num_threads(task.threads)
    torch.manual_seed(1)
    memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[
        task.settings["memory_format"]
    ]

    def tensors(train: bool, count: int):  # type: ignore[no-untyped-def]
        split = read_split(Path(task.data_dir), train).part(0, count)
        images = torch.from_numpy(split.images.copy()).unsqueeze(1).to(torch.float32).div_(255)
        return images, torch.from_numpy(split.labels.copy()).to(torch.int64)

    train_images, train_labels = tensors(True, task.train_images)
    test_images, test_labels = tensors(False, task.test_images)
    net = nn.Sequential(
        # The pool comes before the activation: the function is the same, and relu has a quarter of the work.
        *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
        nn.Flatten(),
        *(nn.Linear(320, 512), nn.ReLU()),
        nn.Linear(512, 10),
    )
    for layer in net:
        if hasattr(layer, "weight"):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    net = net.to(memory_format=memory_format)
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE, fused=True)
    loss_function = nn.CrossEntropyLoss()

    def train_epoch() -> float:
        started = time.perf_counter()
        order = torch.randperm(len(train_images))
        for numbers in order.split(BATCH_SIZE):
            # An image of one channel lies the same way in both formats; the format of the parameters decides what follows.
            images, labels = train_images[numbers], train_labels[numbers]
            optimizer.zero_grad(set_to_none=True)
            loss_function(net(images), labels).backward()
            optimizer.step()
        return time.perf_counter() - started

    def count_correct() -> tuple[int, float]:
        started = time.perf_counter()
        with torch.inference_mode():
            pairs = zip(test_images.split(1000), test_labels.split(1000), strict=True)
            correct = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in pairs)
        return correct, time.perf_counter() - started

    run_rounds(rounds, train_epoch, count_correct)
