"""Export: write a dataset in a layout that other tools read."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from accelerate import PartialState
from tqdm import tqdm

from ..errors import InputError
from ..registry import load
from ..sources.dataset import Dataset
from ..tasks import Task
from .entries import Entry, Selection, check_ids, entries
from .registry import EXPORTERS, Exporter
from .settings import ExportSettings
from .staging import staged


def export(settings: ExportSettings) -> Path:
    """Write a dataset in another layout.

    Returns:
        The folder. If the export fails, no folder is left.

    Raises:
        InputError: if the folder is not empty, or the layout cannot hold the dataset.
    """
    if PartialState().num_processes > 1:
        raise InputError("export runs in one process")
    exporter = EXPORTERS[settings.format]
    source = Dataset(settings.dataset, settings.split, settings.min_quality)
    tasks = choose_tasks(exporter, source, settings.tasks)
    check_ids(source)
    options = {name: getattr(settings, name) for name in exporter.options}
    with staged(Path(settings.output_dir)) as folder:
        rows = tqdm(entries(source, tasks), "export", len(source), unit="sample")
        with (folder / "samples.jsonl").open("x") as listing:
            name = Path(settings.dataset).resolve().name
            selection = Selection(name, tasks, _listed(rows, listing))
            load(exporter.target)(folder, selection, **options)
    return Path(settings.output_dir)


def choose_tasks(exporter: Exporter, source: Dataset, names: str | None) -> dict[str, Task]:
    """The tasks to export.

    Args:
        exporter: the layout.
        source: the dataset.
        names: comma-separated; None is all that the layout can hold.

    Raises:
        InputError: if the dataset lacks a task, or the layout cannot hold it.
    """
    form, available = exporter.name, ", ".join(source.tasks) or "no labels"
    fitting = list(source.tasks)
    if exporter.of_classes:
        fitting = [name for name, task in source.tasks.items() if task.family.names]
        if not fitting:
            raise InputError(
                f"--format {form} needs a task with classes; dataset {source.name} has {available}"
            )
    chosen = fitting
    if names is not None:
        chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in chosen:
        if name not in source.tasks:
            raise InputError(f"--tasks: dataset {source.name} has no {name!r}, it has {available}")
        if name not in fitting:
            raise InputError(
                f"--tasks {name}: --format {form} holds only tasks with classes; choose from"
                f" {', '.join(fitting)}"
            )
    if exporter.of_one_task and len(chosen) > 1:
        raise InputError(
            f"--format {form} holds one task: choose one of {', '.join(chosen)} with --tasks"
        )
    return {name: source.tasks[name] for name in chosen}


def _listed(rows: Iterable[Entry], listing: TextIO) -> Iterator[Entry]:
    """Yield the same entries, and write the facts of each to a file as a line of JSON."""
    for entry in rows:
        listing.write(json.dumps({"name": entry.name, **entry.facts}) + "\n")
        yield entry
