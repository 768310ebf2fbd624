"""Training in several processes: process groups, MXNet's parameter server, and the launcher."""
