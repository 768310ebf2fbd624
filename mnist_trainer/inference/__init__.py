"""Uses of a finished run's model: predictions, evaluation, export."""
