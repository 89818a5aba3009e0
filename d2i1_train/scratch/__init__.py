"""Small bases, trained from nothing."""
