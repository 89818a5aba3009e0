"""`training.json`: how a pipeline or an adapter was trained. One reader and one writer.

The file lies beside the weights. Cards show its content, and people copy its commands.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import parse_json
from ..dataset.files import write_json
from ..dataset.typed_json import from_json, to_json
from ..diff2in1.saving import TRAINING
from ..errors import InputError

FLAG = re.compile("--[a-z0-9_]+")


@dataclass(frozen=True)
class TrainingRows:
    """The rows that a stage learned from. Only created datasets have a fingerprint.

    held_out: how many created rows were made from samples that may be held out (`--allow_leak`).
    """

    name: str
    rows: int
    split: str | None = None
    licence: str | None = None
    fingerprint: str | None = None
    held_out: int | None = None


@dataclass(frozen=True)
class ValidationRecord:
    """The metrics of the published weights, from the last validation of a stage.

    tasks: task -> metric -> value. best_metric: the metric that chose the weights, None for the
    last weights.
    """

    source: str
    samples: int
    tasks: dict[str, dict[str, float]]
    split: str | None = None
    best_metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    command: flags and their values, one after the other. seen: how many samples of each kind were
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
    """All stages of a training in their order, and facts about the base; None if unknown."""

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
        InputError: if `write_training` did not write the file.
    """
    file = folder / TRAINING
    if not file.is_file():
        return TrainingRecord()
    try:
        content = parse_json(file.read_text())
        stages = tuple(from_json(Stage, stage) for stage in content["stages"])
        for stage in stages:
            if not _is_command(stage.command):
                raise ValueError("command: expected flags, each with its value")
        base = {key: value for key, value in content.items() if key != "stages"}
        record: TrainingRecord = from_json(TrainingRecord, base)
        return TrainingRecord(record.base_licence, record.base_embedded, stages)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: not a training file of ours ({error!r})") from error


def write_training(folder: Path, record: TrainingRecord) -> None:
    """Write the training record of a pipeline or an adapter into its folder."""
    write_json(folder / TRAINING, to_json(record))


def _is_command(parts: list[str]) -> bool:
    """Whether the words are flags and values, one after the other."""
    return len(parts) % 2 == 0 and all(map(FLAG.fullmatch, parts[::2]))
