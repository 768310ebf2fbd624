"""The tutorial's network and the backends that compute it."""
