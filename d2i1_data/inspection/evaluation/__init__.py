"""Evaluation: measure the metrics of a pipeline."""
