"""Runs `mnist-trainer` for `python -m mnist_trainer`."""

import sys

from mnist_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
