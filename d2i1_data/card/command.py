"""Commands for cards: the flags that differ from their defaults, without paths of this machine."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ..sources import SOURCES, parse_spec
from .text import is_repository

# flags that do not change the result
LEFT_OUT = {"overwrite", "engine", "workers", "report", "cache_dir", "resume_from_checkpoint"}
WIDTH = 100


def public_name(place: str) -> str:
    """Shorten a path to its last part. The id of a repository stays unchanged."""
    if is_repository(place) and not Path(place).exists():
        return place
    return Path(place).expanduser().name


def public_source(spec: str, name: str | None) -> str:
    """A `--source` without the path of its folder.

    Args:
        spec: the value of the flag.
        name: name of the source; for a dataset this may be its id on the Hub.
    """
    parsed = parse_spec(spec)
    if parsed.place is None:
        return spec
    place = Path(parsed.place)
    public = place.name if place.suffix else public_name(parsed.place)
    if name and not SOURCES[parsed.kind].is_file:
        public = name
    return str(parsed._replace(place=public))


def changed_flags(given: Mapping[str, Any], kind: type) -> list[str]:
    """The flags that differ from the defaults of a dataclass.

    Args:
        given: settings by name.
        kind: the dataclass of the settings.

    Returns:
        Each flag, followed by its value: `["--seed", "3", ...]`.
    """
    flags = []
    for field in fields(kind):
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if field.name in LEFT_OUT or field.name not in given or given[field.name] == default:
            continue
        value = given[field.name]
        text = value if isinstance(value, str) else json.dumps(value)
        flags += [f"--{field.name}", text]
    return flags


def shell_command(act: str, flags: Sequence[str]) -> str:
    """A command for a shell, on as many lines as it needs.

    Args:
        act: the word after `d2i1`.
        flags: each flag, followed by its value.
    """
    lines = [f"d2i1 {shlex.quote(act)}"]
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        between = "=" if value.startswith("-") else " "  # or else it reads as a flag
        part = f"{flag}{between}{shlex.quote(value)}"
        if len(lines[-1]) + len(part) + 3 > WIDTH:
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)
