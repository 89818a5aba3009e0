"""Report: show what is in a dataset, on one page without scripts that works offline.

Columns without pictures are read completely. At most `max_samples` rows are decoded, so a dataset
with millions of rows takes little longer than one with thousands.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hub_cards

from ...checks import parse_json
from ...dataset.columns import count_values
from ...dataset.files import require_folder, write_json, write_text
from ...dataset.record import DatasetRecord, read_record
from ...errors import InputError
from ...sources import open_dataset
from ...sources.dataset import Dataset
from ...sources.source import evenly_spaced
from ...tasks import Task
from ..settings import ReportSettings
from . import sections
from .copies import FeatureExtractor
from .reading import read_samples
from .source_images import SourceImages

PAGE, NUMBERS = "index.html", "report.json"


def report(settings: ReportSettings) -> Path:
    """Write the page of a dataset, with its figures (PNG) and numbers (JSON) beside it.

    Returns:
        The path of the page.

    Raises:
        InputError: if the dataset cannot be read, or the folder holds something else.
    """
    rows = open_dataset(settings.dataset)
    record = read_record(settings.dataset)
    source_images = SourceImages(rows, settings, record)
    extractor, not_compared = open_extractor(rows, source_images, settings, record)
    folder = claim(settings)
    limit, batch = settings.max_samples, settings.batch_size
    samples = read_samples(rows, evenly_spaced(len(rows), limit), rows.tasks, extractor, batch)
    source, read_source = source_images.source, None
    if source:
        shared = {n: t for n, t in rows.tasks.items() if same_classes(t, source.tasks.get(n))}
        chosen = source_images.chosen(samples.origins, limit)
        read_source = read_samples(source, chosen, shared, extractor, batch)
    page = {
        "name": rows.name,
        "read": len(samples.ids),
        "source": source.name if source else None,
        "sources_read": len(read_source.ids) if read_source else 0,
        "no_source": source_images.missing,
        "no_copies": not_compared,
        **sections.columns(rows, record, samples, folder),
        "gallery": sections.gallery(samples, source_images, folder),
        "maps": sections.maps(rows.tasks, samples, read_source, folder),
        "copies": None,
    }
    if read_source and extractor:
        page["copies"] = sections.near_copies(
            samples, read_source, source_images, settings.copy_threshold, folder
        )
    write_text(folder / PAGE, render(page))
    files = sorted(file.name for file in folder.iterdir() if file.suffix in (".png", ".html"))
    write_json(folder / NUMBERS, {"files": files, **page})
    return folder / PAGE


def same_classes(task: Task, other: Task | None) -> bool:
    """Whether the labels of two tasks can be compared."""
    return other is not None and task.family.config() == other.family.config()


def render(page: Mapping[str, Any]) -> str:
    """Render the page as HTML. All text of the dataset is escaped."""
    return hub_cards.render("report.html.jinja", **page)


def claim(settings: ReportSettings) -> Path:
    """Make the folder of a report. An earlier report in it is removed.

    Raises:
        InputError: if the folder is a file, or holds anything but a report of ours.
    """
    home = Path(settings.dataset).expanduser()
    if settings.output_dir is None and not home.is_dir():
        raise InputError(f"dataset {settings.dataset} is no folder: give an --output_dir")
    folder = Path(settings.output_dir) if settings.output_dir else home / "report"
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        for name in _files_of(folder):
            (folder / name).unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output_dir {folder}: {error.strerror}") from error
    write_json(folder / NUMBERS, {"files": []})
    return folder


def _files_of(folder: Path) -> list[str]:
    """Names of the files of an earlier report."""
    try:
        files = parse_json((folder / NUMBERS).read_text())["files"]
        return [Path(name).name for name in files]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} is not empty and holds no report of ours: choose another --output_dir"
        ) from error


def open_extractor(
    rows: Dataset, source_images: SourceImages, settings: ReportSettings, record: DatasetRecord
) -> tuple[FeatureExtractor | None, str | None]:
    """Open the extractor that compares images.

    Returns:
        The extractor and None; or None and the reason why images are not compared.

    Raises:
        InputError: if `--pipeline` names a pipeline that cannot be opened.
    """
    from accelerate import PartialState

    from ...checkpoints.pipelines import open_pipeline

    name = settings.pipeline or record.setting("pipeline")
    if not any(count_values(rows.column("provenance.strength")).keys() - {None, 0.0}):
        return None, "No image was created; all are images of the source."
    if source_images.source is None:
        return None, source_images.missing
    if len(source_images.used) < 2:
        return None, "A source of one image has no others to compare with."
    if name is None:
        return None, "The pipeline is unknown; name it with --pipeline."
    try:
        pipe = open_pipeline(str(name), base_unet=None).to(PartialState().device)
    except InputError as error:
        if settings.pipeline:
            raise
        return None, f"The pipeline cannot be opened: {error}."
    return FeatureExtractor(pipe, max(rows[0].size)), None
