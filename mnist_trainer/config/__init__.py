"""The configuration of a run: declared, read, checked and written."""
