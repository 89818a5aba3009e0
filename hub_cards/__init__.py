"""Jinja templates of the cards: the sentences the Hub shows."""

from pathlib import Path

FOLDER = Path(__file__).parent
