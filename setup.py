"""The description for the package index. All other facts are in pyproject.toml.

The index shows README.md without the repository around it, so its links become absolute.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!\w+:)([^)\s]+)\)")  # without a scheme such as https:


def description() -> str:
    """README.md with absolute links to the repository."""
    facts = tomllib.loads((HERE / "pyproject.toml").read_text())
    repository = facts["project"]["urls"]["Repository"]

    def absolute(link: re.Match[str]) -> str:
        picture, text, place = link.groups()
        inside = "" if place.startswith("#") else f"/{'raw' if picture else 'blob'}/main/"
        return f"{picture}{text}({repository}{inside}{place})"

    return LINK.sub(absolute, (HERE / "README.md").read_text())


setup(long_description=description(), long_description_content_type="text/markdown")
