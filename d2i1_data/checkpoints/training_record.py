"""`training.json`: how a pipeline or an adapter was trained. One reader and one writer.

The file stands beside the weights. Cards show it, and people copy its commands.
"""

import json
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..dataset.files import write_text
from ..errors import InputError

TRAINING = "training.json"
FLAG = re.compile("--[a-z0-9_]+")


@dataclass(frozen=True)
class TrainingRows:
    """The rows that a stage learned from. The fingerprint is known of created datasets only."""

    name: str
    rows: int
    split: str | None = None
    licence: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class ValidationRecord:
    """The metrics that a stage measured last, by task and metric, of the published weights."""

    source: str
    samples: int
    tasks: dict[str, dict[str, float]]
    split: str | None = None
    best_metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    `command` holds flags and values in turns. `seen` counts the samples of each kind that were
    drawn, repetitions included.
    """

    stage: str
    command: list[str]
    source: TrainingRows
    created: TrainingRows | None = None
    tasks: list[str] | None = None
    steps: int
    seen: dict[str, int]
    processes: int
    settings: dict[str, Any] | None = None
    versions: dict[str, str]
    validation: ValidationRecord | None = None


@dataclass(frozen=True)
class TrainingRecord:
    """All stages of a training in their order, and facts about the base where they are known."""

    base_licence: str | None = None
    base_embedded: bool | None = None
    stages: tuple[Stage, ...] = ()


def read_training(folder: Path) -> TrainingRecord:
    """Read the training record of a pipeline or an adapter.

    Args:
        folder: the folder of the pipeline or adapter.

    Returns:
        The record. It is empty if the folder has no `training.json`.

    Raises:
        InputError: if the file is not what `write_training` writes.
    """
    file = folder / TRAINING
    if not file.is_file():
        return TrainingRecord()
    try:
        found = json.loads(file.read_text())
        stages = tuple(_read_record(Stage, one) for one in found["stages"])
        for stage in stages:
            if not _is_command(stage.command):
                raise ValueError("command: expected flags and values in turns")
        base = {key: value for key, value in found.items() if key != "stages"}
        record: TrainingRecord = _read_record(TrainingRecord, base)
        return TrainingRecord(record.base_licence, record.base_embedded, stages)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file}: not a training file of ours ({error!r})") from error


def write_training(folder: Path, record: TrainingRecord) -> None:
    """Write the training record of a pipeline or an adapter into its folder."""
    write_text(folder / TRAINING, json.dumps(_to_json(record), indent=2) + "\n")


def _to_json(value: Any) -> Any:
    """Records as objects of JSON. What a record does not know is left out."""
    if isinstance(value, tuple):
        return [_to_json(one) for one in value]
    if not is_dataclass(value):
        return value
    known = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: _to_json(one) for name, one in known.items() if one is not None}


def _read_record(kind: Any, found: Any) -> Any:
    """An object of JSON as a record; keys that it does not know are left out."""
    if not isinstance(found, Mapping):
        raise TypeError(f"expected an object, got {found!r}")
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):
        if field.name in found:
            values[field.name] = _read_value(hints[field.name], found[field.name], field.name)
        elif field.default is MISSING:
            raise KeyError(field.name)
    return kind(**values)


def _read_value(kind: Any, found: Any, name: str) -> Any:
    """A value of JSON that must be of a type, with its name for the message."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return found
    if origin in (Union, types.UnionType):
        return None if found is None else _read_value(inner[0], found, name)
    if is_dataclass(kind):
        try:
            return _read_record(kind, found)
        except (TypeError, KeyError) as error:
            raise TypeError(f"{name}: {error}") from error
    if origin is list and isinstance(found, list):
        return [_read_value(inner[0], one, name) for one in found]
    if origin is dict and isinstance(found, dict):
        return {str(key): _read_value(inner[1], one, name) for key, one in found.items()}
    if origin is None and isinstance(found, (int, float) if kind is float else kind):
        return found
    raise TypeError(f"{name}: got {found!r}")


def _is_command(parts: list[str]) -> bool:
    """Whether the words are flags and values in turns."""
    return len(parts) % 2 == 0 and all(map(FLAG.fullmatch, parts[::2]))
