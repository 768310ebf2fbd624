"""`scripts/plot_schedules.py ARGS` is `mnist-trainer schedules plot ARGS`."""

import sys

from mnist_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main(["schedules", "plot", *sys.argv[1:]]))
