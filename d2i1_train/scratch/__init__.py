"""Scratch: train small bases from scratch. The act is in `scratch.base`."""
