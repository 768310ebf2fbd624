"""`scripts/benchmark.py ARGS` is `mnist-trainer benchmark ARGS`."""

import sys

from mnist_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
