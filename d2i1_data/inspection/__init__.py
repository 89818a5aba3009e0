"""Inspection: what is in a dataset, how right its labels are, how good a pipeline is."""
