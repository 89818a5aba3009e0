"""Licences: what the Hub calls them, and what a card says of those that it does not know."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.repocard import metadata_load

import hub_cards

from ..checkpoints.bases import BASES, embedded
from .text import is_repository

PATIENCE = 5  # seconds for a base's card, which may be on the Hub


def metadata(names: Iterable[str | None]) -> dict[str, Any]:
    """The fields of a card for something under all of these licences; None is an unknown one.

    One has its id, or is `other` with its own name; several are `other`.
    """
    found = set(names)
    if not found - {None}:
        return {}
    if len(found) > 1:
        return {"license": "other"}
    (name,) = map(str, found)
    # those of huggingface.co/docs/hub/repositories-licenses, without `unknown` and `other`
    if name.lower() in (hub_cards.FOLDER / "licences.txt").read_text().split():
        return {"license": name.lower()}
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    return {"license": "other", **({"license_name": slug} if slug else {})}


def read_licence(base: str, revision: str | None = None) -> str | None:
    """What the card of a base says its licence is; None where that cannot be known.

    base: an embedded one, a folder, or the id of a repository on the Hub, which is asked once.
    """
    folder = BASES / base if base in embedded() else Path(base).expanduser()
    if folder.is_dir():
        return _licence_in(folder / "README.md")
    if not is_repository(base):
        return None
    try:
        card = hf_hub_download(base, "README.md", revision=revision, etag_timeout=PATIENCE)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None
    return _licence_in(Path(card))


def _licence_in(card: Path) -> str | None:
    """The licence in the front matter of a card, by its own name if the Hub has none for it."""
    try:
        said = metadata_load(card) if card.is_file() else None
    except (ValueError, OSError, yaml.YAMLError):
        return None
    licence = (said or {}).get("license")
    if licence == "other":
        licence = (said or {}).get("license_name")
    return licence if isinstance(licence, str) and licence != "unknown" else None
