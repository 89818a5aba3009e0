"""Evaluation: how the metrics of a pipeline are measured, and on which pixels."""
