"""Jinja templates of the cards, the sentences the Hub shows, and of the page of a report.

With the papers that cards cite, and the licences that the Hub has an id for.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
