"""The command behind settings: what differs from the defaults, and no path of a machine."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ..sources import SOURCES, parse_spec
from .text import is_repository

# where something lies, or how fast it is made, but not what
UNTOLD = {"overwrite", "engine", "workers", "cache_dir", "resume_from_checkpoint"}
WIDTH = 100


def named(place: str) -> str:
    """A repository's id as it is, a path by its last part."""
    if is_repository(place) and not Path(place).exists():
        return place
    return Path(place).expanduser().name


def named_source(spec: str, name: str | None) -> str:
    """A `--source` without its place. name: the source's own, of a dataset perhaps its id."""
    found = parse_spec(spec)
    if found.place is None:
        return spec
    known = name if name and not SOURCES[found.kind].is_file else Path(found.place).name
    return str(found._replace(place=known))


def flags(given: Mapping[str, Any], kind: type) -> list[str]:
    """Flags and values of settings that differ from the defaults of their dataclass."""
    found = []
    for field in fields(kind):
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if field.name in UNTOLD or field.name not in given or given[field.name] == default:
            continue
        value = given[field.name]
        text = value if isinstance(value, str) else json.dumps(value)
        found += [f"--{field.name}", text]
    return found


def as_typed(act: str, given: list[str]) -> str:
    """A command of a shell, over as many lines as it needs. given: flags and values by turns."""
    lines = [f"d2i1 {shlex.quote(act)}"]
    for flag, value in zip(given[::2], given[1::2], strict=True):
        part = f"{flag} {shlex.quote(value)}"
        if len(lines[-1]) + len(part) + 3 > WIDTH:
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)
