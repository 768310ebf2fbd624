"""Uses of a run's model: predictions, evaluation, export."""
