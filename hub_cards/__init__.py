"""Jinja templates of the cards, the sentences the Hub shows, and of the page of a report."""

from pathlib import Path

FOLDER = Path(__file__).parent
