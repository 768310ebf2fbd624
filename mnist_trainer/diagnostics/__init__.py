"""Checks of the installation for the command `doctor`, and descriptions of a run's environment."""
