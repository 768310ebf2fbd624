"""What is done with a finished run's model: predictions, evaluation, export."""
