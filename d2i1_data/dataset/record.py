"""Records of how a folder was written: `run.json`, and the logs of a dataset."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checks import check_format, parse_json
from ..errors import InputError
from .files import locked, require_folder, temporary_path, write_json
from .schema import FORMAT_VERSION
from .shards import LOGS, PLAN, SKIPPED, dataset_shards
from .typed_json import from_json, to_json

RUN = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """The command that wrote a folder: the content of `run.json`. It is never published.

    Attributes:
        act: name of the command, such as `create`.
        command: the flags that differ from their defaults, each followed by its value.
        settings: all settings by name.
        format_version: format version of the file.
        samples: hash of the samples that a base is trained on.
    """

    act: str
    command: list[str]
    settings: dict[str, Any]
    format_version: int = FORMAT_VERSION
    samples: str | None = None


@dataclass(frozen=True)
class LogEntry:
    """The cost of one shard: a line in `logs/`.

    Attributes:
        shard: number of the shard.
        samples: number of its rows.
        seconds: time that it took.
        process: number of the process that made it.
        device: kind of the device, such as `cuda`.
        skipped: id of each sample that is left out -> why.
    """

    shard: int
    samples: int
    seconds: float
    process: int
    device: str
    skipped: dict[str, str]


@dataclass(frozen=True)
class DatasetRecord:
    """How a dataset was written. For a dataset on the Hub all fields are unknown.

    Attributes:
        run: the last command, None if unknown.
        resolution: resolution of the source; None if it is unknown, or that of the images.
        written, planned: numbers of shards, None if unknown.
        skipped: number of source rows that could not be used.
        reasons: id of each of these rows -> why.
        logs: an entry for each finished shard.
    """

    run: RunRecord | None = None
    resolution: str | None = None
    written: int | None = None
    planned: int | None = None
    skipped: int = 0
    logs: list[LogEntry] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    def setting(self, name: str) -> Any:
        """The value of a setting of the last command, None if unknown."""
        return self.run.settings.get(name) if self.run else None


def read_run(folder: Path) -> RunRecord | None:
    """Read `run.json`, None if there is none.

    Raises:
        InputError: if it is not a file of ours, or has a newer format.
    """
    file = folder / RUN
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        record = from_json(RunRecord, content)
        if len(record.command) % 2:
            raise ValueError("command: expected flags, each with its value")
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: not a run file of ours ({error!r})") from error
    check_format(record.format_version, FORMAT_VERSION, str(file))
    return record


def write_run(folder: Path, record: RunRecord) -> None:
    """Write `run.json`."""
    write_json(folder / RUN, to_json(record))


@contextmanager
def claimed_run(folder: Path, record: RunRecord, resume: str | None) -> Iterator[bool]:
    """Claim and lock a folder for a training run inside the block.

    The record of a run that begins is written here. For a run that loads a checkpoint, the caller
    calls `write_run` when it has read it: a resume that is refused must not change the folder.

    Args:
        folder: a folder that is new, empty, or has a run to resume.
        record: record of this run.
        resume: value of `--resume_from_checkpoint`.

    Returns:
        Whether the record is written.

    Raises:
        InputError: if the folder holds something else, a run that is not resumed, or a run that
            another process trains at the moment.
    """
    require_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        unfinished = temporary_path(folder / RUN)  # left by a run that was killed at its start
        new = all(file == unfinished for file in folder.iterdir())
        begins = new and resume in (None, "latest")
        if begins:
            write_run(folder, record)
        elif not new and not (folder / RUN).is_file():
            raise InputError(f"{folder} is not empty and holds no run: choose another --output_dir")
        elif not resume:
            raise InputError(
                f"{folder} holds a run already: continue it with --resume_from_checkpoint latest,"
                " or choose another --output_dir"
            )
        else:
            read_run(folder)  # raises if its format is newer
        yield begins


def read_record(dataset: str) -> DatasetRecord:
    """Read how a dataset was written.

    Args:
        dataset: a folder. For anything else the record is empty.

    Raises:
        InputError: if one of its files cannot be read.
    """
    folder = Path(dataset).expanduser()
    if not folder.is_dir():
        return DatasetRecord()
    run, plan, reasons = read_run(folder), read_json(folder / PLAN), read_json(folder / SKIPPED)
    resolution = run.settings.get("resolution") if run else plan.get("resolution")
    return DatasetRecord(
        run,
        None if resolution is None else str(resolution),
        len(dataset_shards(folder)) or None,
        len(plan["shards"]) if "shards" in plan else None,
        len(reasons),
        [entry for file in sorted((folder / LOGS).glob("*.jsonl")) for entry in _entries(file)],
        reasons,
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read the object in a JSON file. It is empty if there is no such file.

    Raises:
        InputError: if the file does not hold an object.
    """
    if not file.is_file():
        return {}
    try:
        content = parse_json(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected an object, got {type(content).__name__}")
    return content


def _entries(file: Path) -> Iterator[LogEntry]:
    """Read the entries of a log. A kill or a full disk can break a line; it is then ignored."""
    for line in file.read_bytes().splitlines():
        with suppress(ValueError, TypeError, KeyError):
            yield from_json(LogEntry, parse_json(line))
