"""Jinja templates of cards, reports, the app and its Space.

The folder also holds the citations of the papers that cards name, and the licence ids of the Hub.
"""

from pathlib import Path
from typing import Any

import jinja2

FOLDER = Path(__file__).parent
REPOSITORY = "https://github.com/diff2in1/diff2in1"  # of our code, as in pyproject.toml


def environment(**options: Any) -> jinja2.Environment:
    """An environment that finds the templates. It escapes all values in `.html.jinja` files.

    Args:
        **options: further options of `jinja2.Environment`.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def render(template: str, **values: Any) -> str:
    """The text of a template, filled with values."""
    return environment().get_template(template).render(**values)
