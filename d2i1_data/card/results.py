"""Results: what `d2i1 evaluate` and `d2i1 demo` measured of a checkpoint, for its card."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult

from ..errors import InputError
from ..loading import fingerprint
from ..tasks import TASKS, Task
from .text import Written, is_repository, table

# settings of an evaluation that change its figures
PROTOCOL = ("processing_resolution", "flip", "window", "crop", "farthest", "average", "min_quality")
USUAL = (None, False, "pixels")


class Results(NamedTuple):
    """Figures by task; see `EvaluateSettings` for what the settings mean.

    table: of a comparison, the figures of every model by its name, else empty.
    """

    source: str
    split: str | None
    samples: int
    settings: dict[str, Any]
    tasks: dict[str, dict[str, float]]
    table: dict[str, dict[str, dict[str, float]]]

    @property
    def where(self) -> str:
        """What was measured on, and how."""
        split = f", split {self.split}" if self.split else ""
        how = "".join(f", {key} {value}" for key, value in self.settings.items())
        return f"{self.source}{split}, {self.samples:,} samples{how}"

    def tables(self) -> list[Written]:
        """A table for each task: the figures for tables of this model, or of all compared."""
        models = self.table or {"this model": self.tasks}
        found = []
        for name, task in TASKS.items():
            if name not in self.tasks:
                continue
            heads = [f"{one} {'↑' if task.meter.rises(one) else '↓'}" for one in task.meter.shown]
            rows = [
                [model, *(f"{scores[name][one]:.4g}" for one in task.meter.shown)]
                for model, scores in models.items()
            ]
            found.append(table([name, *heads], rows))
        return found


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


def _figures(tasks: Mapping[str, Any]) -> dict[str, dict[str, float]]:
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
        for figure in task.meter.shown
        if math.isfinite(one.tasks.get(name, {}).get(figure, math.nan))
    ]
