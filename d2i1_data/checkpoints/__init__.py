"""Checkpoints: find, check and open bases and trained pipelines."""
