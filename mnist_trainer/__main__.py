"""`python -m mnist_trainer` is `mnist-trainer`."""

import sys

from mnist_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
