"""Random cases, one module for each library. The import of a module adds them to its library."""
