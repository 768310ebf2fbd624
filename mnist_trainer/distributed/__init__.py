"""Several processes that train together: process groups, MXNet's parameter server, and the launcher."""
