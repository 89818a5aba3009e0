"""Damaged files through every command that reads them: see `python -m tests.fuzz --help`."""
