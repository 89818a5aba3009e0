"""What a dataset's folder says of how it was made: settings, plan, skipped rows, logs."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from .shards import LOGS, PLAN, RUN, SKIPPED

ENTRY = ("shard", "samples", "seconds", "process", "device", "skipped")  # what such a line says


class Record(NamedTuple):
    """Whatever of it is there; a dataset on the Hub has none.

    run: the settings as given. written, planned: numbers of shards, None if unknown. skipped: rows
    of the source that could not be used. logs: one entry a finished shard, see `ENTRY`.
    """

    run: dict[str, Any]
    written: int | None
    planned: int | None
    skipped: int
    logs: list[dict[str, Any]]


def read_record(dataset: str) -> Record:
    """The record of a dataset folder, an empty one of anything else.

    Raises InputError where a file of it is not readable.
    """
    folder = Path(dataset).expanduser()
    if not folder.is_dir():
        return Record({}, None, None, 0, [])
    plan = read_json(folder / PLAN)
    # what decided the bytes stands in the plan too, of folders without settings
    run = {"resolution": plan.get("resolution"), **read_json(folder / RUN)}
    written = len(list((folder / "data").glob("train-*.parquet")))
    planned = len(plan["shards"]) if "shards" in plan else None
    lines = (line for file in sorted((folder / LOGS).glob("*.jsonl")) for line in _lines(file))
    return Record(run, written or None, planned, len(read_json(folder / SKIPPED)), list(lines))


def read_json(file: Path) -> dict[str, Any]:
    """The object of a JSON file, empty where there is none."""
    return _parse(file.read_text(), file) if file.is_file() else {}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The entries of a log; a line that a kill or a full disk has torn says nothing."""
    for line in file.read_text().splitlines():
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and all(key in entry for key in ENTRY):
                yield entry


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected an object, got {type(content).__name__}")
    return content
