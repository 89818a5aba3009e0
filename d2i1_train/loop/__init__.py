"""The training loop: everything that both stages share around their own page of code."""
