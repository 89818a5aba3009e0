"""Inspection: report on a dataset, judge its labels, predict and evaluate with a pipeline."""
