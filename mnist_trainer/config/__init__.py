"""What a run is: its settings, declared once with kind, range and sentence; read from TOML files and flags, and written."""
