"""Training: warm-up, self-improving, and acts that compare them."""
