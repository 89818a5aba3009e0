"""Licences: their ids on the Hub, and the licence of a base."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.repocard import metadata_load

import hub_cards

from ..checkpoints.bases import embedded
from ..diff2in1.checkpoint import EMBEDDED
from ..hub import download
from .text import is_repository


def metadata(names: Iterable[str | None]) -> dict[str, Any]:
    """The licence fields of a card.

    Args:
        names: the licences that apply together; None stands for an unknown one.

    Returns:
        The Hub's id of a single known licence, otherwise `other` with a name: for several licences
        all of them, as in `apache-2.0-and-cc0-1.0`. Empty if all are unknown.
    """
    licences = set(names)
    if not licences - {None}:
        return {}
    name = " and ".join(sorted(one or "unknown" for one in licences))
    # the ids of huggingface.co/docs/hub/repositories-licenses, without `unknown` and `other`
    if name.lower() in (hub_cards.FOLDER / "licences.txt").read_text().split():
        return {"license": name.lower()}
    slug = re.sub(r"[^a-z0-9.+]+", "-", name.lower()).strip("-.")
    return {"license": "other", "license_name": slug or "custom"}


def read_licence(base: str, revision: str | None = None) -> str | None:
    """Read the licence of a base from its card; None if it is unknown.

    Args:
        base: an embedded base, a folder, or a repository on the Hub, which is tried only once.
        revision: revision of the repository.
    """
    folder = EMBEDDED / base if base in embedded() else Path(base).expanduser()
    if folder.is_dir():
        return _licence_in(folder / "README.md")
    if not is_repository(base):
        return None
    try:
        card = download(base, "README.md", revision=revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None
    return _licence_in(card)


def _licence_in(card: Path) -> str | None:
    """The licence in the metadata of a card. It is the `license_name` if the Hub has no id."""
    try:
        content = metadata_load(card) if card.is_file() else None
    except (ValueError, OSError, yaml.YAMLError):
        return None
    licence = (content or {}).get("license")
    if licence == "other":
        licence = (content or {}).get("license_name")
    return licence if isinstance(licence, str) and licence != "unknown" else None
