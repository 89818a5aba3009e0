"""Jinja templates: cards and sentences the Hub shows, the pages of reports and of the app.

With the papers that cards cite, and the licences that the Hub has an id for.
"""

from pathlib import Path
from typing import Any

import jinja2

FOLDER = Path(__file__).parent


def environment(**options: Any) -> jinja2.Environment:
    """Where the templates are; in `.html.jinja` whatever a value says is text and nothing else."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def render(template: str, **values: Any) -> str:
    """A template filled in."""
    return environment().get_template(template).render(**values)
