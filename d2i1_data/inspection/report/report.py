"""Report: what is in a dataset, on one page that needs no network and runs no script.

Columns without pictures are read whole; of the rows at most so many are decoded as are asked for,
so the page of a dataset of millions costs little more than that of thousands.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hub_cards

from ...dataset.columns import count_values
from ...dataset.files import require_folder, write_text
from ...dataset.record import Record, read_record
from ...errors import InputError
from ...sources import open_dataset
from ...sources.dataset import Dataset
from ...sources.source import evenly_spaced
from ...tasks import Task
from ..settings import ReportSettings
from . import sections
from .copies import Eye
from .reading import Seen, look
from .source_images import Origin

PAGE, FIGURES = "index.html", "report.json"


def report(settings: ReportSettings) -> Path:
    """Write the page of a dataset, with figures as PNG and numbers as JSON beside it; its path."""
    rows = open_dataset(settings.dataset)
    record = read_record(settings.dataset)
    origin = Origin(rows, settings, record)
    eye, blind = open_eye(rows, origin, settings, record)
    folder = claim(settings)
    limit, batch = settings.max_samples, settings.batch_size
    seen = look(rows, evenly_spaced(len(rows), limit), rows.tasks, eye, batch)
    truth: Seen | None = None
    if origin.source:
        shared = {
            n: t for n, t in rows.tasks.items() if same_classes(t, origin.source.tasks.get(n))
        }
        truth = look(origin.source, origin.chosen(seen.origins, limit), shared, eye, batch)
    page = {
        "name": rows.name,
        "read": len(seen.ids),
        "source": origin.source.name if origin.source else None,
        "sources_read": len(truth.ids) if truth else 0,
        "no_source": origin.missing,
        "no_copies": blind,
        **sections.columns(rows, record, seen, folder),
        "gallery": sections.gallery(seen, origin, folder),
        "maps": sections.maps(rows.tasks, seen, truth, folder),
        "copies": None,
    }
    if truth and eye:
        page["copies"] = sections.near_copies(seen, truth, origin, settings.copy_threshold, folder)
    write_text(folder / PAGE, render(page))
    files = sorted(file.name for file in folder.iterdir() if file.suffix in (".png", ".html"))
    write_text(folder / FIGURES, json.dumps({"files": files, **page}, indent=2) + "\n")
    return folder / PAGE


def same_classes(task: Task, other: Task | None) -> bool:
    """Whether two tasks may be compared."""
    return other is not None and task.family.config() == other.family.config()


def render(page: Mapping[str, Any]) -> str:
    """The page as HTML; whatever the dataset says is text in it and nothing else."""
    return hub_cards.render("report.html.jinja", **page)


def claim(settings: ReportSettings) -> Path:
    """The folder of a report: a new one, or one whose report is replaced; nothing else is touched.

    Raises InputError where it is a file or holds anything but a report of ours.
    """
    home = Path(settings.dataset).expanduser()
    if settings.output_dir is None and not home.is_dir():
        raise InputError(f"dataset {settings.dataset} is no folder: say --output_dir")
    folder = Path(settings.output_dir) if settings.output_dir else home / "report"
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        for name in _files_of(folder):
            (folder / name).unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output_dir {folder}: {error.strerror}") from error
    write_text(folder / FIGURES, json.dumps({"files": []}))
    return folder


def _files_of(folder: Path) -> list[str]:
    """The files of an earlier report."""
    try:
        files = json.loads((folder / FIGURES).read_text())["files"]
        return [Path(name).name for name in files]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} is not empty and holds no report of ours: choose another --output_dir"
        ) from error


def open_eye(
    rows: Dataset, origin: Origin, settings: ReportSettings, record: Record
) -> tuple[Eye | None, str | None]:
    """What compares images, or why they are not compared."""
    from accelerate import PartialState

    from ...checkpoints.pipelines import open_pipeline

    name = settings.pipeline or record.run.get("pipeline")
    if not any(count_values(rows.column("provenance.strength")).keys() - {None, 0.0}):
        return None, "The images are those of the source: none was created."
    if origin.source is None:
        return None, origin.missing
    if len(origin.used) < 2:
        return None, "One image of a source has no others to be compared with."
    if name is None:
        return None, "No pipeline to see the images with; --pipeline names one."
    try:
        pipe = open_pipeline(str(name), base_unet=None).to(PartialState().device)
    except InputError as error:
        if settings.pipeline:
            raise
        return None, f"The pipeline to see the images with cannot be opened: {error}."
    return Eye(pipe, max(rows[0].size)), None
