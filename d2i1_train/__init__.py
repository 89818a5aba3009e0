"""Training: warm-up, self-improving, and commands that compare trained models."""
