"""Exports: write a dataset in a layout that other tools read."""
