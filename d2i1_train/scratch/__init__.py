"""Scratch: small bases, trained from scratch. The act is in `scratch.base`."""
