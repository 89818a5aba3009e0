"""How a folder was written: `run.json`, and what a dataset's folder keeps beside it."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .files import require_folder, write_json
from .schema import FORMAT_VERSION, check_format
from .shards import LOGS, PLAN, SKIPPED, dataset_shards
from .typed_json import from_json, to_json

RUN = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """The command that wrote a folder. It stands in `run.json` and never leaves the machine.

    Attributes:
        act: name of the command, such as `create`.
        command: flags and values in turns, those that differ from the defaults.
        settings: all settings by name, as given.
        format_version: of the file.
    """

    act: str
    command: list[str]
    settings: dict[str, Any]
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class LogEntry:
    """What one shard cost: a line in `logs/`.

    Attributes:
        shard: its number.
        samples: how many rows it has.
        seconds: how long it took.
        process: number of the process.
        device: such as `cuda`.
        skipped: ids of samples that are left out, and why.
    """

    shard: int
    samples: int
    seconds: float
    process: int
    device: str
    skipped: dict[str, str]


@dataclass(frozen=True)
class DatasetRecord:
    """What a dataset's folder says about how it was written; a dataset on the Hub says nothing.

    Attributes:
        run: the last command, None if unknown.
        resolution: of the source, None if unknown or the images' own.
        written, planned: numbers of shards, None if unknown.
        skipped: rows of the source that could not be used.
        logs: an entry for each finished shard.
    """

    run: RunRecord | None = None
    resolution: str | None = None
    written: int | None = None
    planned: int | None = None
    skipped: int = 0
    logs: list[LogEntry] = field(default_factory=list)

    def setting(self, name: str) -> Any:
        """The value of a setting of the last command, None if unknown."""
        return self.run.settings.get(name) if self.run else None


def read_run(folder: Path) -> RunRecord | None:
    """Read `run.json`, None if there is none.

    Raises:
        InputError: if it is not a file of ours, or of a newer format.
    """
    file = folder / RUN
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        record = from_json(RunRecord, content)
        if len(record.command) % 2:
            raise ValueError("command: expected flags and values in turns")
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: not a run file of ours ({error!r})") from error
    check_format(record.format_version, str(file))
    return record


def write_run(folder: Path, record: RunRecord) -> None:
    """Write `run.json`."""
    write_json(folder / RUN, to_json(record))


def claim_run(folder: Path, record: RunRecord, resume: str | None) -> None:
    """Make a folder the one of a training run, and write its record.

    Args:
        folder: new, empty, or of a run that is resumed.
        record: of this run.
        resume: value of `--resume_from_checkpoint`.

    Raises:
        InputError: if the folder holds something else, or a run that is not resumed.
    """
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / RUN).is_file():
            raise InputError(f"{folder} is not empty and holds no run: choose another --output_dir")
        if not resume:
            raise InputError(
                f"{folder} holds a run already: continue it with --resume_from_checkpoint latest,"
                " or choose another --output_dir"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder, record)


def read_record(dataset: str) -> DatasetRecord:
    """Read what a dataset's folder says about how it was written.

    Args:
        dataset: a folder; of anything else the record is empty.

    Raises:
        InputError: if a file of it cannot be read.
    """
    folder = Path(dataset).expanduser()
    if not folder.is_dir():
        return DatasetRecord()
    run, plan = read_run(folder), read_json(folder / PLAN)
    resolution = run.settings.get("resolution") if run else plan.get("resolution")
    return DatasetRecord(
        run,
        None if resolution is None else str(resolution),
        len(dataset_shards(folder)) or None,
        len(plan["shards"]) if "shards" in plan else None,
        len(read_json(folder / SKIPPED)),
        [entry for file in sorted((folder / LOGS).glob("*.jsonl")) for entry in _entries(file)],
    )


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file, empty if there is no such file.

    Raises:
        InputError: if the file holds anything else.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected an object, got {type(content).__name__}")
    return content


def _entries(file: Path) -> Iterator[LogEntry]:
    """The entries of a log. A kill or a full disk may have torn a line; such a line is ignored."""
    for line in file.read_text().splitlines():
        with suppress(ValueError, TypeError, KeyError):
            yield from_json(LogEntry, json.loads(line))
