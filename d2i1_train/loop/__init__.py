"""The training loop: what both stages share around their own page of code."""
