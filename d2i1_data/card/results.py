"""Results: what `d2i1 evaluate` and `d2i1 demo` measured of a checkpoint, for its card."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult

from ..checkpoints.files import fingerprint
from ..checkpoints.training_record import ValidationRecord
from ..errors import InputError
from ..tasks import TASKS, Task
from .text import Written, is_repository, table

# settings of an evaluation that change its figures
PROTOCOL = ("processing_resolution", "flip", "window", "crop", "farthest", "average", "min_quality")
USUAL = (None, False, "pixels")

Figures = dict[str, dict[str, float]]  # task -> figure -> value


class Results(NamedTuple):
    """Figures by task; see `EvaluateSettings` for what the settings mean.

    table: of a comparison, the figures of every model by its name, else empty.
    """

    source: str
    split: str | None
    samples: int
    settings: dict[str, Any]
    tasks: Figures
    table: dict[str, Figures]


def tables(results: Sequence[Results], validation: ValidationRecord | None) -> list[Written]:
    """A column for every measurement of this model, then a table for every comparison.

    validation: what training measured last, see `training.json`.
    """
    columns = {_where(one._asdict()): one.tasks for one in results if not one.table}
    if validation is not None:
        chosen = f", chosen by {validation.best_metric}" if validation.best_metric else ""
        columns[f"while training: {_where(asdict(validation))}{chosen}"] = validation.tasks
    compared = [(_where(one._asdict()), one.table) for one in results if one.table]
    return [
        *([_table("", columns)] if columns else []),
        *(_table(where, models) for where, models in compared),
    ]


def _where(found: Mapping[str, Any]) -> str:
    """What was measured on, and how."""
    split = f" {found['split']}" if found.get("split") else ""
    how = "".join(f", {key} {value}" for key, value in found.get("settings", {}).items())
    return f"{found['source']}{split}, {found['samples']:,} samples{how}"


def _table(head: str, columns: Mapping[str, Figures]) -> Written:
    """Figures for tables, a row each, and how they are better."""
    rows = []
    for name, task in TASKS.items():
        for figure in task.meter.table_metrics:
            values = [own.get(name, {}).get(figure, math.nan) for own in columns.values()]
            if any(map(math.isfinite, values)):
                arrow = "↑" if task.meter.higher_is_better(figure) else "↓"
                cells = [f"{value:.4g}" if math.isfinite(value) else "" for value in values]
                rows.append([f"{name} {figure} {arrow}", *cells])
    return table([head, *columns], rows)


def read_results(file: Path, folder: Path) -> Results:
    """What a file says of the checkpoint in a folder.

    Raises InputError where it is none of ours, of another checkpoint, or of weights that are not
    what is published.
    """
    try:
        content = json.loads(file.read_text())
        own = content.get("fingerprint")
        settings = content.get("settings", {})
        found = Results(
            str(content["source"]),
            None if content.get("split") is None else str(content["split"]),
            int(content["samples"]),
            {k: settings[k] for k in PROTOCOL if k in settings and settings[k] not in USUAL},
            _figures(content["tasks"]),
            {str(model): _figures(own) for model, own in content.get("table", {}).items()},
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{file}: no results of ours ({error!r}); d2i1 evaluate --output_file writes them"
        ) from error
    if own != fingerprint(folder):
        raise InputError(
            f"{file}: of another checkpoint than {folder}, or of none it names: evaluate this one"
        )
    if settings.get("theta", "creation") != "creation":
        raise InputError(f"{file}: of theta_E, and theta_C is what {folder} holds")
    return found


def _figures(tasks: Mapping[str, Any]) -> Figures:
    return {name: {k: float(v) for k, v in own.items()} for name, own in tasks.items()}


def model_index(results: Sequence[Results], tasks: Mapping[str, Task]) -> list[EvalResult]:
    """The figures as the Hub reads them, those for tables, unrounded.

    Surface normals and edges have no task of the Hub's own, so they are `other`.
    """
    return [
        EvalResult(
            task_type=task.categories[0],
            dataset_type=one.source
            if is_repository(one.source)
            else re.sub(r"[^\w-]+", "-", one.source.lower()).strip("-") or "unnamed",
            dataset_name=one.source,
            dataset_split=one.split,
            metric_type=figure,
            metric_name=f"{name} {figure}",
            metric_value=one.tasks[name][figure],
            metric_args={"samples": one.samples, **one.settings},
        )
        for one in results
        for name, task in tasks.items()
        for figure in task.meter.table_metrics
        if math.isfinite(one.tasks.get(name, {}).get(figure, math.nan))
    ]
