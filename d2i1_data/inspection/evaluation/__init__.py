"""Evaluation: what is measured of a pipeline, and on which pixels."""
