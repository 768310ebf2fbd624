"""The training loop, its callbacks, checkpoints and experiments."""
