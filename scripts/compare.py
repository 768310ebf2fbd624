"""`scripts/compare.py ARGS` is `mnist-trainer compare ARGS`."""

import sys

from mnist_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
