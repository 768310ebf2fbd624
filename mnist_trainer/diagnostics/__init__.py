"""Diagnosis of the installation: the command `doctor`, and a run's `environment.json`."""
