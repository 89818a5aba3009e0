"""Exports: a dataset of ours in a layout that other tools read."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from accelerate import PartialState
from tqdm import tqdm

from ..errors import InputError
from ..sources.dataset import Dataset
from ..tasks import Task
from .coco import write_coco
from .entries import Entry, check_ids, entries
from .folders import write_folders
from .settings import ExportSettings
from .staging import staged
from .webdataset import write_webdataset
from .yolo import write_yolo

Tasks = Mapping[str, Task]
FORMATS: dict[str, Callable[[Path, Iterable[Entry], Tasks, ExportSettings], None]] = {
    "coco": write_coco,
    "yolo": write_yolo,
    "webdataset": write_webdataset,
    "folders": write_folders,
}
OF_CLASSES = ("coco", "yolo")  # layouts that hold nothing but classes
OF_ONE_TASK = ("yolo",)


def export(settings: ExportSettings) -> Path:
    """Write a dataset in another layout; its folder."""
    if PartialState().num_processes > 1:
        raise InputError("export runs in one process")
    source = Dataset(settings.dataset, settings.split, settings.min_quality)
    tasks = choose_tasks(settings, source)
    check_ids(source)
    with staged(Path(settings.output_dir)) as folder:
        rows = tqdm(entries(source, tasks), "export", len(source), unit="sample")
        with (folder / "samples.jsonl").open("x") as listing:
            FORMATS[settings.format](folder, _listed(rows, listing), tasks, settings)
    return Path(settings.output_dir)


def choose_tasks(settings: ExportSettings, source: Dataset) -> dict[str, Task]:
    """What is exported: the tasks asked for, or all that the layout can hold."""
    form, held = settings.format, ", ".join(source.tasks) or "no labels"
    fitting = [name for name, task in source.tasks.items() if task.family.names]
    if form not in OF_CLASSES:
        fitting = list(source.tasks)
    elif not fitting:
        raise InputError(f"--format {form} holds classes; dataset {source.name} has {held}")
    wanted = fitting
    if settings.tasks is not None:
        wanted = list(dict.fromkeys(name.strip() for name in settings.tasks.split(",")))
    for name in wanted:
        if name not in source.tasks:
            raise InputError(f"--tasks: dataset {source.name} has no {name!r}, it has {held}")
        if name not in fitting:
            raise InputError(
                f"--tasks {name}: --format {form} holds classes; choose from {', '.join(fitting)}"
            )
    if form in OF_ONE_TASK and len(wanted) > 1:
        raise InputError(
            f"--format {form} holds one task: choose one with --tasks, of {', '.join(wanted)}"
        )
    return {name: source.tasks[name] for name in wanted}


def _listed(rows: Iterable[Entry], listing: TextIO) -> Iterator[Entry]:
    """The same entries, with all that is no picture written down, a line of JSON each."""
    for entry in rows:
        listing.write(json.dumps({"name": entry.name, **entry.facts}) + "\n")
        yield entry
