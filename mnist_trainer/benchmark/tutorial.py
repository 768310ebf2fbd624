"""The tutorial's loop verbatim, with MXNet's own settings.

https://mxnet.apache.org/versions/1.9.1/api/python/docs/tutorials/packages/gluon/training/learning_rates/learning_rate_schedules.html

Only the source of the data, the number of epochs and the `yield` at the end of an epoch differ from the tutorial.
"""

import math
import sys
import time
from collections.abc import Iterator
from typing import Any

from mnist_trainer import MXNetFinder
from mnist_trainer.benchmark.worker import Rounds, Task, run_rounds
from mnist_trainer.runtime.numpy_names import restore_numpy_names


def run(task: Task, rounds: Rounds) -> None:
    """Train for an epoch and evaluate, in each round."""
    restore_numpy_names()  # needed to import MXNet
    sys.meta_path.remove(MXNetFinder)  # without this program's settings for MXNet, as for a reader of the tutorial

    import mxnet as mx

    # MXNet's class downloads nothing if the genuine files are there.
    train = mx.gluon.data.vision.MNIST(task.data_dir, train=True)
    test = mx.gluon.data.vision.MNIST(task.data_dir, train=False).take(task.test_images)
    if task.train_images < len(train):
        train = train.take(task.train_images)
    epochs, net = _tutorial(mx, train, task.epochs)
    test_dataloader = mx.gluon.data.DataLoader(test.transform_first(mx.gluon.data.vision.transforms.ToTensor()), 64)

    def train_epoch() -> float:
        mx.nd.waitall()
        started = time.perf_counter()
        next(epochs)
        mx.nd.waitall()
        return time.perf_counter() - started

    def count_correct() -> tuple[int, float]:
        started = time.perf_counter()
        correct = sum(
            int((net(data).argmax(axis=1) == label.astype("float32")).sum().asscalar()) for data, label in test_dataloader
        )
        return correct, time.perf_counter() - started

    run_rounds(rounds, train_epoch, count_correct)


# fmt: off
def _tutorial(mx: Any, mnist: Any, num_epochs: int) -> tuple[Iterator[None], Any]:
    """Return a generator that trains for one epoch at a time, and the network."""
    nn = mx.gluon.nn
    transforms = mx.gluon.data.vision.transforms

    # Use GPU if one exists, else use CPU
    ctx = mx.gpu() if mx.test_utils.list_gpus() else mx.cpu()

    # Clasify the images into one of the 10 digits
    num_outputs = 10

    # 64 images in a batch
    batch_size = 64

    # Load the training data
    train_dataset = mnist.transform_first(transforms.ToTensor())
    train_dataloader = mx.gluon.data.DataLoader(train_dataset, batch_size, shuffle=True)

    # Build a simple convolutional network
    def build_cnn():  # type: ignore[no-untyped-def]
        net = nn.HybridSequential()
        with net.name_scope():
            # First convolution
            net.add(nn.Conv2D(channels=10, kernel_size=5, activation='relu'))
            net.add(nn.MaxPool2D(pool_size=2, strides=2))
            # Second convolution
            net.add(nn.Conv2D(channels=20, kernel_size=5, activation='relu'))
            net.add(nn.MaxPool2D(pool_size=2, strides=2))
            # Flatten the output before the fully connected layers
            net.add(nn.Flatten())
            # First fully connected layers with 512 neurons
            net.add(nn.Dense(512, activation="relu"))
            # Second fully connected layer with as many neurons as the number of classes
            net.add(nn.Dense(num_outputs))
            return net

    net = build_cnn()  # type: ignore[no-untyped-call]

    # Initialize the parameters with Xavier initializer
    net.collect_params().initialize(mx.init.Xavier(), ctx=ctx)
    # Use cross entropy loss
    softmax_cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    steps_epochs = [4, 7, 9]
    # assuming we keep partial batches, see `last_batch` parameter of DataLoader
    iterations_per_epoch = math.ceil(len(train_dataset) / batch_size)
    # iterations just before starts of epochs (iterations are 1-indexed)
    steps_iterations = [s*iterations_per_epoch for s in steps_epochs]

    schedule = mx.lr_scheduler.MultiFactorScheduler(step=steps_iterations, factor=0.1)
    sgd_optimizer = mx.optimizer.SGD(learning_rate=0.03, lr_scheduler=schedule)
    trainer = mx.gluon.Trainer(params=net.collect_params(), optimizer=sgd_optimizer)

    def train() -> Iterator[None]:
        # epoch and batch counts starting at 1
        for epoch in range(1, num_epochs+1):
            # Iterate through the images and labels in the training data
            for batch_num, (data, label) in enumerate(train_dataloader, start=1):
                # get the images and labels
                data = data.as_in_context(ctx)
                label = label.as_in_context(ctx)
                # Ask autograd to record the forward pass
                with mx.autograd.record():
                    # Run the forward pass
                    output = net(data)
                    # Compute the loss
                    loss = softmax_cross_entropy(output, label)
                # Compute gradients
                loss.backward()
                # Update parameters
                trainer.step(data.shape[0])

                # Show loss and learning rate after first iteration of epoch
                if batch_num == 1:
                    curr_loss = mx.nd.mean(loss).asscalar()
                    curr_lr = trainer.learning_rate
                    print("Epoch: %d; Batch %d; Loss %f; LR %f" % (epoch, batch_num, curr_loss, curr_lr))  # noqa: T201, UP031 - as in the tutorial
            yield  # the end of an epoch

    return train(), net
# fmt: on
