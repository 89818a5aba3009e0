"""Metrics of a checkpoint for its card, from files of `d2i1 evaluate` and `d2i1 demo`."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult

from ..checkpoints.files import fingerprint
from ..checkpoints.training_record import ValidationRecord
from ..checks import parse_json
from ..errors import InputError
from ..tasks import TASKS, Task
from .classes import ClassScores, class_table, read_classes
from .text import Markdown, is_repository, table

# settings of an evaluation that change its metrics, and values that the card does not mention
PROTOCOL = (
    *("protocol", "processing_resolution", "flip", "window"),
    *("crop", "farthest", "average", "min_quality"),
)
DEFAULTS = (None, False, "pixels")

Metrics = dict[str, dict[str, float]]  # task -> metric -> value


class Results(NamedTuple):
    """One evaluation of a checkpoint.

    Attributes:
        source: name of the source.
        split: its split.
        samples: number of samples.
        settings: settings that differ from the defaults, see `EvaluateSettings`.
        tasks: metrics by task.
        table: for a comparison, the metrics of every model by its name; otherwise empty.
        classes: scores of single classes by task, if they are known.
    """

    source: str
    split: str | None
    samples: int
    settings: dict[str, Any]
    tasks: Metrics
    table: dict[str, Metrics]
    classes: dict[str, ClassScores]


def tables(results: Sequence[Results], validation: ValidationRecord | None) -> list[Markdown]:
    """A table with one column for each evaluation, then one table for each comparison.

    Args:
        results: evaluations and comparisons.
        validation: the last validation during training.
    """
    columns = {_protocol(own._asdict()): own.tasks for own in results if not own.table}
    if validation is not None:
        chosen = f", chosen by {validation.best_metric}" if validation.best_metric else ""
        columns[f"while training: {_protocol(asdict(validation))}{chosen}"] = validation.tasks
    compared = [(_protocol(own._asdict()), own.table) for own in results if own.table]
    return [
        *([_table("", columns)] if columns else []),
        *(_table(head, models) for head, models in compared),
    ]


def tables_of_classes(results: Sequence[Results]) -> list[tuple[str, list[Markdown]]]:
    """The scores of single classes: for each evaluation what was evaluated, and its tables."""
    return [
        (_protocol(own._asdict()), [class_table(name, one) for name, one in own.classes.items()])
        for own in results
        if own.classes
    ]


def _protocol(evaluation: Mapping[str, Any]) -> str:
    """Describe the data and the settings of an evaluation."""
    split = f" {evaluation['split']}" if evaluation.get("split") else ""
    settings = "".join(f", {k} {value}" for k, value in evaluation.get("settings", {}).items())
    return f"{evaluation['source']}{split}, {evaluation['samples']:,} samples{settings}"


def _table(head: str, columns: Mapping[str, Metrics]) -> Markdown:
    """One row for each metric; an arrow shows which direction is better."""
    rows = []
    for name, task in TASKS.items():
        for metric in task.meter.table_metrics:
            values = [own.get(name, {}).get(metric, math.nan) for own in columns.values()]
            if any(map(math.isfinite, values)):
                arrow = "↑" if task.meter.higher_is_better(metric) else "↓"
                cells = [f"{value:.4g}" if math.isfinite(value) else "" for value in values]
                rows.append([f"{name} {metric} {arrow}", *cells])
    return table([head, *columns], rows)


def read_results(file: Path, folder: Path) -> Results:
    """Read the results in a file.

    Args:
        file: a file that `d2i1 evaluate --output_file` or `d2i1 demo` wrote.
        folder: the checkpoint that was evaluated.

    Raises:
        InputError: if the file holds no results, results of another checkpoint, or of theta_E.
    """
    try:
        content = parse_json(file.read_text())
        own = content.get("fingerprint")
        settings = content.get("settings", {})
        results = Results(
            str(content["source"]),
            None if content.get("split") is None else str(content["split"]),
            int(content["samples"]),
            {k: settings[k] for k in PROTOCOL if k in settings and settings[k] not in DEFAULTS},
            _metrics(content["tasks"]),
            {str(model): _metrics(own) for model, own in content.get("table", {}).items()},
            read_classes(content.get("classes", {})),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{file}: no results of ours ({error!r}); d2i1 evaluate --output_file writes them"
        ) from error
    if own != fingerprint(folder):
        raise InputError(
            f"{file}: results of another checkpoint than {folder}, or without a fingerprint:"
            " evaluate this checkpoint"
        )
    if settings.get("theta", "creation") != "creation":
        raise InputError(f"{file}: results of theta_E, but {folder} holds theta_C")
    return results


def _metrics(tasks: Mapping[str, Any]) -> Metrics:
    return {name: {k: float(v) for k, v in own.items()} for name, own in tasks.items()}


def model_index(results: Sequence[Results], tasks: Mapping[str, Task]) -> list[EvalResult]:
    """The metrics of the tables as metadata for the Hub, not rounded.

    Args:
        results: evaluations.
        tasks: the tasks of the checkpoint. A task without a task on the Hub is `other`.
    """
    return [
        EvalResult(
            task_type=task.categories[0],
            dataset_type=one.source
            if is_repository(one.source)
            else re.sub(r"[^\w-]+", "-", one.source.lower()).strip("-") or "unnamed",
            dataset_name=one.source,
            dataset_split=one.split,
            metric_type=metric,
            metric_name=f"{name} {metric}",
            metric_value=one.tasks[name][metric],
            metric_args={"samples": one.samples, **one.settings},
        )
        for one in results
        for name, task in tasks.items()
        for metric in task.meter.table_metrics
        if math.isfinite(one.tasks.get(name, {}).get(metric, math.nan))
    ]
