"""`scripts/train.py ARGS` is `mnist-trainer train ARGS`."""

import sys

from mnist_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
