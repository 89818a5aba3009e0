"""Exports: a dataset of ours in a layout that other tools read."""
