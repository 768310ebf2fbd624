"""The configuration of a run: its fields, and modules that read, check and write it."""
