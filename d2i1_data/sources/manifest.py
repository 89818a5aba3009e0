"""Manifests: CSV or JSONL tables that name the files of each sample."""

import csv
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..checks import parse_json
from ..errors import InputError
from .layout import Manifest

DELIMITERS = {".csv": ",", ".tsv": "\t"}
FORMS = ".csv, .tsv, .jsonl"
MOST = 1_000_000  # characters of a cell
Row = Mapping[str, Any]


class Table(NamedTuple):
    """The content of a manifest.

    files: column of the YAML file -> id -> file. texts: id -> caption. digest: hash of its content.
    """

    files: dict[str, dict[str, Path]]
    texts: dict[str, str]
    digest: str


def read_manifest(
    root: Path, keys: Manifest, columns: Mapping[str, str], caption: str | None, split: str | None
) -> Table:
    """Read the manifest of a source.

    Args:
        root: the folder of the manifest, to which its paths are relative.
        keys: the manifest.
        columns: column of the YAML file -> column of the manifest.
        caption: the column of the captions.
        split: only rows of this split; None takes all.

    Raises:
        InputError: if it cannot be read, lacks a column, or names an id twice.
    """
    file = root / keys.file
    text = read_text(file).removeprefix("\ufeff")
    rows = _jsonl(text, file) if file.suffix in (".jsonl", ".ndjson") else _csv(text, file)
    wanted = [*columns.values(), *(one for one in (keys.id, keys.split, caption) if one)]
    known = dict.fromkeys(name for _, row in rows for name in row)
    for name in wanted:
        if name not in known:
            raise InputError(f"{file}: no column {name!r} among {', '.join(known) or 'none'}")
    if split is not None and keys.split is not None:
        splits = dict.fromkeys(_cell(row, keys.split, file, line) for line, row in rows)
        rows = [row for row in rows if row[1].get(keys.split) == split]
        if not rows:
            found = ", ".join(str(one) for one in splits)
            raise InputError(f"{file}: no row of the split {split!r}, only of {found}")
    table = Table({name: {} for name in columns}, {}, hashlib.sha256(text.encode()).hexdigest())
    for line, row in rows:
        image = _cell(row, columns["image"], file, line)
        identity = _identity(row, keys.id, image, file, line)
        if identity in table.files["image"]:
            raise InputError(f"{file}: line {line}: the id {identity!r} is there twice")
        for name, column in columns.items():
            if (path := _cell(row, column, file, line)) is not None:
                table.files[name][identity] = root / path
        if caption and (told := _cell(row, caption, file, line)) is not None:
            table.texts[identity] = told
    return table


def _identity(row: Row, column: str | None, image: str | None, file: Path, line: int) -> str:
    """The id of a row."""
    if image is None:
        raise InputError(f"{file}: line {line}: no image")
    if column is not None:
        identity = _cell(row, column, file, line)
        if identity is None:
            raise InputError(f"{file}: line {line}: no {column}")
        return identity
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(
            f"{file}: line {line}: {image!r} is not below the manifest: name a column of ids with"
            " `manifest: {file: ..., id: ...}`"
        )
    return path.with_suffix("").as_posix()


def _cell(row: Row, column: str, file: Path, line: int) -> str | None:
    """The text of a cell; None if it is empty."""
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{file}: line {line}: {column}: got {value!r:.60}, expected a text")
    return (value or "").strip() or None


def _csv(text: str, file: Path) -> list[tuple[int, Row]]:
    """Line number and cells of each row of a CSV or TSV file."""
    if file.suffix not in DELIMITERS:
        raise InputError(f"{file}: expected a manifest that ends with one of {FORMS}")
    csv.field_size_limit(MOST)
    reader = csv.DictReader(io.StringIO(text), delimiter=DELIMITERS[file.suffix], strict=True)
    rows: list[tuple[int, Row]] = []
    try:
        for row in reader:
            if None in row or None in row.values():
                count = len(reader.fieldnames or ())
                raise InputError(f"{file}: line {reader.line_num}: expected {count} cells")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(f"{file}: after line {reader.line_num}: {error}") from error
    return rows


def _jsonl(text: str, file: Path) -> list[tuple[int, Row]]:
    """Line number and content of each object of a JSONL file."""
    rows: list[tuple[int, Row]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(f"{file}: line {number}: not readable as JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{file}: line {number}: expected an object, got {row!r:.60}")
        rows.append((number, row))
    return rows


def read_text(path: Path) -> str:
    """The text of a file, without spaces at its ends.

    Raises:
        InputError: if there is no such file, or it is not UTF-8.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as UTF-8: {error}") from error
