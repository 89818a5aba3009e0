"""The training loop: the code that both stages share."""
