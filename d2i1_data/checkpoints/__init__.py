"""Checkpoints that others wrote: bases and pipelines, found, checked and opened."""
