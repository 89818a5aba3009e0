"""Captions from a file: a source whose captions stand in a file of JSON lines, see `--captions`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks import parse_json
from ..dataset.sample import Sample
from ..errors import InputError
from .source import Source, fingerprint
from .wrapped import WrappedSource

if TYPE_CHECKING:
    from ..dataset.schema import Schema


class CaptionedSource(WrappedSource):
    """A source whose captions come from a file. They replace those of the source.

    Args:
        source: the source.
        file: the file, see `read_captions`. It may have captions of other samples too.

    Raises:
        InputError: if the file is wrong, or has no caption of this source.
    """

    def __init__(self, source: Source, file: str) -> None:
        super().__init__(source)
        found, ids = read_captions(file), [source.identity(n) for n in range(len(source))]
        self.file = file
        self.captions = {name: found[name] for name in ids if name in found}
        if not self.captions:
            first, other = next(iter(found), "none"), ids[0] if ids else "none"
            raise InputError(
                f"--captions {file}: no id is one of source {source.name}; the first are {first!r}"
                f" in the file and {other!r} in the source"
            )
        self.fingerprint = fingerprint(source.fingerprint, self.captions)

    @property
    def schema(self) -> "Schema":
        return self.source.schema.with_columns(captions=True, provenance=())

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        identity = self.identity(index)
        if identity not in self.captions:
            raise InputError(f"--captions {self.file}: has no caption of {identity!r}")
        return replace(self.source.read(index, tasks), caption=self.captions[identity])


def read_captions(file: str) -> Mapping[str, str]:
    """Read captions by id.

    Args:
        file: UTF-8 text. Each line is a JSON object with the texts `id` and `caption`; other keys
            are ignored, and so are empty lines. `d2i1 caption` writes such a file.

    Raises:
        InputError: if there is no such file, or a line is wrong.
    """
    path, found = Path(file), dict[str, str]()
    if not path.is_file():
        raise InputError(f"--captions {file}: no such file")
    try:
        lines = path.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"--captions {file}: not readable as UTF-8: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"--captions {file}: line {number}"
        identity, caption = _read_line(line, where)
        if found.setdefault(identity, caption) != caption:
            raise InputError(f"{where}: another caption of {identity!r} stands above")
    return found


def write_line(identity: str, caption: str) -> str:
    """A line of a file of captions, with its newline."""
    return json.dumps({"id": identity, "caption": caption}, ensure_ascii=False) + "\n"


def _read_line(line: str, where: str) -> tuple[str, str]:
    expected = 'expected {"id": "...", "caption": "..."}'
    try:
        content = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where}: no JSON ({error}), {expected}") from error
    values = content if isinstance(content, dict) else {}
    identity, caption = values.get("id"), values.get("caption")
    if not isinstance(identity, str) or not isinstance(caption, str):
        raise InputError(f"{where}: {line.strip()!r:.80}, {expected}")
    return identity, " ".join(caption.split())
