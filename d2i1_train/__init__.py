"""How theta gets better: warm-up and self-improving, and what compares them."""
