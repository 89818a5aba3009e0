"""The card of a dataset: a function of its folder and of what its shards hold."""

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData

from ..dataset.columns import describe_counts
from ..dataset.files import write_text
from ..dataset.preview import PREVIEW, preview
from ..dataset.record import read_json, read_record
from ..dataset.schema import METADATA, SCORES, Schema, read_schema
from ..dataset.shards import PLAN, dataset_shards
from ..tasks import Task
from . import command, licence
from .columns import Columns, Shard, read_columns
from .links import Links
from .text import (
    Markdown,
    citations,
    code,
    comma_list,
    counted,
    escape,
    is_repository,
    link,
    render,
    title,
)

PREVIEWS = 4
# the Hub's words for numbers of rows with up to three digits, with four, and so on
SIZES = (
    *("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"),
    *("1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T"),
)
# fields of the provenance that are told as they are; the others stand in sentences of their own
SHOWN = (
    *("host", "fingerprint", "create_with", "labels_from", "strength", "steps"),
    *("guidance", "negative_prompt", "scheduler", "precision", "seed"),
)
OF_CREATING = ("strength", "steps")  # zero where a real image was only labelled


def write_card(folder: Path) -> None:
    """Write README.md and preview.png of a dataset's folder whose shards are complete."""
    schema = _schema(folder)
    files = (pq.ParquetFile(shard) for shard in dataset_shards(folder))
    groups = chain.from_iterable(file.iter_batches(PREVIEWS) for file in files)
    rows = list(islice(chain.from_iterable(group.to_pylist() for group in groups), PREVIEWS))
    preview([schema.from_row(row) for row in rows], schema.tasks).save(folder / PREVIEW)
    write_text(folder / "README.md", dataset_card(folder))


def dataset_card(
    folder: Path, links: Links | None = None, shards: Sequence[Shard] | None = None
) -> str:
    """The text of README.md: metadata for the Hub, then what people want to know.

    shards: all that the dataset is to have, if not those of the folder: paths, or open files where
    some lie elsewhere already; what the folder knows of its own alone is left out then. Raises
    InputError where one of them cannot be read.
    """
    links, schema = links or Links(), _schema(folder)
    tasks = schema.tasks
    own = dataset_shards(folder)
    shards = own if shards is None else shards
    alone = all(shard in own for shard in shards)
    columns = read_columns(shards, schema)
    made = links.checkpoint is not None and columns.values("fingerprint") == [links.checkpoint]
    maker = links.model if made else None
    body = render(
        "dataset.md.jinja",
        folder,
        links,
        tasks,
        unsure=comma_list(f"{task.family.unsure} ({name})" for name, task in tasks.items()),
        coded=[code(name) for name in tasks],
        columns=columns,
        stored=[*schema.columns],
        least=min(columns.values("strength"), default=None),
        models=len(columns.values("fingerprint")),
        made=_made(columns, read_json(folder / METADATA).get("versions", {}) if alone else {}),
        example=_example(columns),
        quality=_quality(columns),
        command=_command(folder, maker) if alone else None,
        maker=maker,
        pictures=_pictures(folder, tasks) if alone else {},
        preview=(folder / PREVIEW).is_file(),
        licences=_listed(columns),
        citations=citations(columns.values("base"), columns.values("host")),
    )
    return f"---\n{_metadata(schema, columns).to_yaml()}\n---\n\n{body}"


def _schema(folder: Path) -> Schema:
    file = folder / METADATA
    return read_schema(file.read_text(), str(file))


def _metadata(schema: Schema, columns: Columns) -> DatasetCardData:
    """What the Hub reads."""
    tasks = schema.tasks
    count, made = columns.rows, columns.rows - columns.kinds["real"]
    synthetic = ["synthetic"] if columns.kinds["created"] else []
    sources = [name for name, _ in columns.origins if name and is_repository(name)]
    data = DatasetCardData(
        pretty_name=str(title(tasks)),
        annotations_creators=["machine-generated"] if made else None,
        size_categories=[size_category(count)],
        source_datasets=sorted(set(sources)) or None,
        task_categories=sorted({c for task in tasks.values() for c in task.categories}),
        tags=[*synthetic, "diff2in1", *sorted({tag for t in tasks.values() for tag in t.tags})],
        **licence.metadata(_licences(columns)),
    )
    splits = SplitDict({"train": SplitInfo("train", num_bytes=columns.size, num_examples=count)})
    sizes = {"download_size": columns.size, "dataset_size": columns.size}
    info = DatasetInfo(features=schema.features, splits=splits, **sizes)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    configs = {"data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    MetadataConfigs({"default": configs}).to_dataset_card_data(data)
    return data


def size_category(count: int) -> str:
    """The Hub's word for a number of rows."""
    return SIZES[min(max(len(str(count)) - 3, 0), len(SIZES) - 1)]


def _licences(columns: Columns) -> set[str | None]:
    """Of the sources, and of what created the images."""
    own = {origin.licence for origin in columns.origins.values()}
    created = columns.base_licences if columns.kinds["created"] else set()
    return own | created


def _listed(columns: Columns) -> dict[str, list[str]]:
    """Every licence, and what it is of."""
    found: dict[str, list[str]] = {}
    for origin in columns.origins.values():
        if origin.licence:
            found.setdefault(origin.licence, []).append(f"source {origin.name or 'images'}")
    if columns.kinds["created"]:
        for name in sorted(filter(None, columns.base_licences)):
            found.setdefault(name, []).append("base")
    return found


def _made(columns: Columns, versions: Mapping[str, str]) -> list[tuple[str, object]]:
    """How the rows were made, as far as all of them say."""
    found: list[tuple[str, object]] = []
    for origin in columns.origins.values():
        name = str(origin.name or "unnamed")
        shown = link(name, "datasets/") if is_repository(name) else escape(name)
        licence = f", licence {escape(origin.licence)}" if origin.licence else ""
        rows = f"{counted(origin.rows, 'row')} from {counted(len(origin.images), 'image')}"
        found.append(("source", Markdown(f"{shown}: {rows}{licence}")))
    for key in ("base", "checkpoint"):
        found += [(key, link(value)) for value in columns.values(key)]
    for name in SHOWN:
        said = {*columns.values(name)} - {""}  # but zero is said
        if said and (columns.kinds["created"] or name not in OF_CREATING):
            found.append((name.replace("_", " "), describe_counts(columns.provenance[name])))
    if columns.skipped:
        found.append(("source images left out", f"{columns.skipped:,}"))
    found += [(what, f"{count:,}") for what, count in columns.notes.items()]
    if versions:
        found.append(
            ("versions", comma_list(f"{name} {number}" for name, number in versions.items()))
        )
    return found


def _quality(columns: Columns) -> list[list[object]]:
    """Of each measured score its mean, and what nine tenths of the rows reach."""
    return [
        [code(task), score, f"{own[score].mean():.3f}", f"{np.quantile(own[score], 0.1):.3f}"]
        for task, own in columns.scores.items()
        for score in SCORES
        if score in own
    ]


def _example(columns: Columns) -> dict[str, Any] | None:
    """A score to filter by, the one that tells most where it was measured, and its median."""
    for task, own in columns.scores.items():
        score = "flip" if "flip" in own else next(iter(own))
        return {"task": task, "score": score, "median": f"{np.median(own[score]):.2f}"}
    return None


def _command(folder: Path, maker: str | None) -> str | None:
    """The command of the folder's last run, with names instead of places; None if that is not
    known. maker: the id of the pipeline, if it has one."""
    given, plan = read_record(str(folder)).run, read_json(folder / PLAN)
    flags = given.get("command")
    if not flags:
        return None
    found = dict(zip(flags[::2], flags[1::2], strict=True))
    # the plan knows what is on the Hub
    found["--source"] = command.public_source(found["--source"], plan.get("source"))
    if "--pipeline" in found:
        found["--pipeline"] = maker or plan.get("checkpoint") or Path(found["--pipeline"]).name
    found["--output_dir"] = folder.resolve().name
    return command.shell_command(str(given["act"]), [*chain.from_iterable(found.items())])


def _pictures(folder: Path, tasks: Mapping[str, Task]) -> dict[str, str]:
    """Figures of a report, if there is one: names of their files, and what they show."""
    report = read_json(folder / "report" / "report.json")
    known = {str(one["name"]): str(one["about"]) for one in report.get("maps", [])}
    if copies := report.get("copies"):
        known["copies"] = (
            "How near created images are to those of the source, as the cosine of what the U-Net"
            f" sees of them; beyond the line, at {copies['threshold']}, they count as copies."
        )
    known["quality"] = ""
    names = [*tasks, "copies", "quality"]
    there = {name for name in names if (folder / "report" / f"{name}.png").is_file()}
    return {name: known[name] for name in names if name in there and name in known}
