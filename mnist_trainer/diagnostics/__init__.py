"""What is installed and what works: the command `doctor`, and a run's `environment.json`."""
