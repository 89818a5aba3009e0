"""Export: write a dataset in a layout that other tools read."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO

from accelerate import PartialState
from tqdm import tqdm

from ..dataset.splits import TRAIN, draw_splits, read_splits
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
    sources = _open(settings)
    tasks = choose_tasks(exporter, next(iter(sources.values())), settings.tasks)
    check_ids(sources.values())
    parts = _draw(sources, settings.splits) if settings.splits else _keep(sources)
    count = sum(len(source) for source in sources.values())
    options = {name: getattr(settings, name) for name in exporter.options}
    with staged(Path(settings.output_dir)) as folder:
        found = (entries(one.source, tasks, one.rows, one.split) for one in parts)
        rows = tqdm(chain.from_iterable(found), "export", count, unit="sample")
        with (folder / "samples.jsonl").open("x") as listing:
            name = Path(settings.dataset).resolve().name
            splits = [*dict.fromkeys(part.split for part in parts)]
            selection = Selection(name, tasks, splits, _listed(rows, listing))
            load(exporter.target)(folder, selection, **options)
    return Path(settings.output_dir)


class Part(NamedTuple):
    """Rows of a dataset that are exported as one split."""

    split: str
    source: Dataset
    rows: Sequence[int]


def _open(settings: ExportSettings) -> dict[str, Dataset]:
    """The splits of the dataset that are exported, by name."""
    name = settings.split or TRAIN
    first = Dataset(settings.dataset, name, settings.min_quality)
    others = [] if settings.split else [one for one in first.splits if one != name]
    more = {one: Dataset(settings.dataset, one, settings.min_quality) for one in others}
    return {name: first} | more


def _keep(sources: Mapping[str, Dataset]) -> list[Part]:
    return [Part(split, source, range(len(source))) for split, source in sources.items()]


def _draw(sources: Mapping[str, Dataset], text: str) -> list[Part]:
    """Draw new splits among all rows."""
    shares = read_splits(text)
    places = [(source, row) for source in sources.values() for row in range(len(source))]
    drawn = draw_splits([source.origin(row) for source, row in places], shares)
    rows = {(name, source): list[int]() for name in shares for source in sources.values()}
    for (source, row), split in zip(places, drawn, strict=True):
        rows[split, source].append(row)
    return [Part(split, source, own) for (split, source), own in rows.items()]


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
        named = {"name": entry.name, "split": entry.split}
        listing.write(json.dumps(named | entry.facts) + "\n")
        yield entry
