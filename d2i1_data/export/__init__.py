"""Exports: a dataset in our schema, written in a layout that other tools read."""
