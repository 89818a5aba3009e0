"""The card of a dataset, made from its folder and its shards."""

from collections import Counter
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
from ..dataset.files import write_png, write_text
from ..dataset.preview import PREVIEW, preview
from ..dataset.record import read_json, read_run
from ..dataset.sample import Sample
from ..dataset.schema import METADATA, SCORES, Schema, read_schema
from ..dataset.shards import PLAN, dataset_shards, readable, row_batches
from ..tasks import Task
from . import command, licence
from .links import Links
from .summary import Shard, Summary, summarize
from .text import (
    Markdown,
    address,
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
# categories of the Hub for row counts of up to three digits, of four digits, and so on
SIZES = (
    *("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"),
    *("1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T"),
)
# fields of the provenance that the card lists; its sentences use the others
SHOWN = (
    *("host", "fingerprint", "create_with", "labels_from", "strength", "steps"),
    *("guidance", "negative_prompt", "scheduler", "precision", "seed"),
)
CREATION_FIELDS = ("strength", "steps")  # zero for real images
SCORE_TEXTS = {
    "confidence": "`confidence`: one minus the predicted uncertainty",
    "flip": "`flip`: agreement with the labels of the mirrored input",
    "reencode": "`reencode`: agreement with the labels of the stored picture",
}


def write_card(folder: Path) -> None:
    """Write README.md and preview.png of a dataset whose shards are complete."""
    schema = _schema(folder)
    samples: list[Sample] = []
    for shard in dataset_shards(folder):
        with readable(shard), pq.ParquetFile(shard) as file:
            for group in islice(row_batches(file, PREVIEWS), PREVIEWS):
                rows = group.to_pylist()[: PREVIEWS - len(samples)]
                samples += map(schema.from_row, rows)
        if len(samples) == PREVIEWS:
            break
    picture = preview(samples, schema.tasks)
    write_png(folder / PREVIEW, picture)
    write_text(folder / "README.md", dataset_card(folder))


def dataset_card(
    folder: Path, links: Links | None = None, shards: Sequence[Shard] | None = None
) -> str:
    """The text of README.md: metadata for the Hub, then text for people.

    Args:
        folder: the dataset.
        links: repositories that the card names.
        shards: all shards of the dataset, if it has more than the folder. They are paths, or open
            files for shards elsewhere. Facts about the folder alone are then left out.

    Raises:
        InputError: if a shard cannot be read.
    """
    links, schema = links or Links(), _schema(folder)
    tasks = schema.tasks
    own = dataset_shards(folder)
    shards = own if shards is None else shards
    alone = all(shard in own for shard in shards)
    summary = summarize(shards, schema)
    metadata = read_json(folder / METADATA)
    made = links.checkpoint is not None and summary.values("fingerprint") == [links.checkpoint]
    maker = links.model if made else None
    body = render(
        "dataset.md.jinja",
        folder,
        links,
        tasks,
        uncertainty=comma_list(f"{task.family.unsure} ({name})" for name, task in tasks.items()),
        coded=[code(name) for name in tasks],
        summary=summary,
        splits=[
            Markdown(f"{code(name)} ({counted(rows, 'row')})")
            for name, (rows, _) in summary.splits.items()
        ],
        stored=[*schema.columns],
        scores=_score_texts(schema),
        provenance=[name.replace("_", " ") for name in schema.inner("provenance")],
        format_version=metadata["format_version"],
        least=min(summary.values("strength"), default=None),
        models=len(summary.values("fingerprint")),
        made=_made(summary, links, metadata.get("versions", {}) if alone else {}),
        makers=_makers(summary, links),
        example=_example(summary),
        quality=_quality(summary),
        command=_command(folder, maker) if alone else None,
        maker=maker,
        pictures=_pictures(folder, tasks) if alone else {},
        preview=(folder / PREVIEW).is_file(),
        licences=_licence_texts(summary),
        citations=citations(summary.values("base"), summary.values("host")),
    )
    data = _metadata(schema, summary, links)
    if (folder / PREVIEW).is_file():
        data["thumbnail"] = address(links.name, "datasets/", PREVIEW)
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _score_texts(schema: Schema) -> str:
    """The meaning of the scores that the dataset has."""
    stored = {name for scores in schema.inner("quality").values() for name in scores}
    return "; ".join(text for name, text in SCORE_TEXTS.items() if name in stored)


def _schema(folder: Path) -> Schema:
    file = folder / METADATA
    return read_schema(file.read_bytes(), str(file))


def _metadata(schema: Schema, summary: Summary, links: Links) -> DatasetCardData:
    """Metadata for the Hub."""
    tasks = schema.tasks
    count, made = summary.rows, summary.rows - summary.kinds["real"]
    synthetic = ["synthetic"] if summary.kinds["created"] else []
    sources = [name for name, _ in summary.sources if name and is_repository(name)]
    data = DatasetCardData(
        pretty_name=title(tasks, links.name),
        annotations_creators=["machine-generated"] if made else None,
        size_categories=[size_category(count)],
        source_datasets=sorted(set(sources)) or None,
        task_categories=sorted({c for task in tasks.values() for c in task.categories}),
        tags=[*synthetic, "diff2in1", *sorted({tag for t in tasks.values() for tag in t.tags})],
        **licence.metadata(_licences(summary)),
    )
    splits = SplitDict(
        {
            name: SplitInfo(name, num_bytes=size, num_examples=rows)
            for name, (rows, size) in summary.splits.items()
        }
    )
    sizes = {"download_size": summary.size, "dataset_size": summary.size}
    info = DatasetInfo(features=schema.features, splits=splits, **sizes)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in summary.splits]
    configs = {"data_files": files}
    MetadataConfigs({"default": configs}).to_dataset_card_data(data)
    return data


def size_category(count: int) -> str:
    """The category of the Hub for a number of rows."""
    return SIZES[min(max(len(str(count)) - 3, 0), len(SIZES) - 1)]


def _licences(summary: Summary) -> set[str | None]:
    """The licences of the sources and of the bases that created images."""
    own = {source.licence for source in summary.sources.values()}
    created = summary.base_licences if summary.kinds["created"] else set()
    return own | created


def _licence_texts(summary: Summary) -> dict[str, list[str]]:
    """Every licence, with the sources and bases that it applies to."""
    owners: dict[str, list[str]] = {}
    for source in summary.sources.values():
        if source.licence:
            owners.setdefault(source.licence, []).append(f"source {source.name or 'images'}")
    if summary.kinds["created"]:
        for name in sorted(filter(None, summary.base_licences)):
            owners.setdefault(name, []).append("base")
    return owners


def _makers(summary: Summary, links: Links) -> list[Markdown]:
    """The checkpoints that made rows, if there are several, with the number of their rows."""
    rows: Counter[str] = Counter()
    for (name, digest), count in summary.checkpoints.items():
        known = links.model if digest and digest == links.checkpoint else None
        rows[name or known or f"checkpoint {str(digest)[:12]}"] += count
    shown = [Markdown(f"{link(name)} ({counted(n, 'row')})") for name, n in rows.most_common()]
    return shown if len(shown) > 1 else []


def _made(summary: Summary, links: Links, versions: Mapping[str, str]) -> list[tuple[str, object]]:
    """List how the rows were made: names and values."""
    facts: list[tuple[str, object]] = []
    for source in summary.sources.values():
        name = str(source.name or "unnamed")
        shown = link(name, "datasets/") if is_repository(name) else escape(name)
        licence = f", licence {escape(source.licence)}" if source.licence else ""
        rows = f"{counted(source.rows, 'row')} from {counted(len(source.images), 'image')}"
        facts.append(("source", Markdown(f"{shown}: {rows}{licence}")))
    facts += [("base", link(value)) for value in summary.values("base")]
    makers = _makers(summary, links) or map(link, summary.values("checkpoint"))
    facts += [("checkpoint", maker) for maker in makers]
    for name in SHOWN:
        known = {*summary.values(name)} - {""}  # zero counts as a value
        if known and (summary.kinds["created"] or name not in CREATION_FIELDS):
            facts.append((name.replace("_", " "), describe_counts(summary.provenance[name])))
    if summary.skipped:
        facts.append(("source images left out", f"{summary.skipped:,}"))
    facts += [(change, f"{count:,}") for change, count in summary.notes.items()]
    if versions:
        facts.append(
            ("versions", comma_list(f"{name} {number}" for name, number in versions.items()))
        )
    return facts


def _quality(summary: Summary) -> list[list[object]]:
    """Each measured score with its mean, and the value that 90 % of the rows reach."""
    return [
        [code(task), score, f"{own[score].mean():.3f}", f"{np.quantile(own[score], 0.1):.3f}"]
        for task, own in summary.scores.items()
        for score in SCORES
        if score in own
    ]


def _example(summary: Summary) -> dict[str, Any] | None:
    """A score for the example of a filter, with its median. It is `flip` if that was measured."""
    for task, own in summary.scores.items():
        score = "flip" if "flip" in own else next(iter(own))
        return {"task": task, "score": score, "median": f"{np.median(own[score]):.2f}"}
    return None


def _command(folder: Path, maker: str | None) -> str | None:
    """The last command that wrote the folder, with names instead of paths; None if unknown.

    maker: the id of the pipeline on the Hub, if it has one.
    """
    run, plan = read_run(folder), read_json(folder / PLAN)
    if run is None:
        return None
    flags = run.command
    values = dict(zip(flags[::2], flags[1::2], strict=True))
    # the plan has ids of the Hub
    values["--source"] = command.public_source(values["--source"], plan.get("source"))
    if "--pipeline" in values:
        values["--pipeline"] = maker or plan.get("checkpoint") or Path(values["--pipeline"]).name
    if "--captions" in values:
        values["--captions"] = Path(values["--captions"]).name
    values["--output_dir"] = folder.resolve().name
    return command.shell_command(run.act, [*chain.from_iterable(values.items())])


def _pictures(folder: Path, tasks: Mapping[str, Task]) -> dict[str, str]:
    """The pictures of a report: name -> caption. It is empty without a report."""
    report = read_json(folder / "report" / "report.json")
    captions = {str(task["name"]): str(task["about"]) for task in report.get("maps", [])}
    if copies := report.get("copies"):
        captions["copies"] = (
            "Similarity of created images to images of the source: the cosine between their U-Net"
            f" features. Images beyond the line, at {copies['threshold']}, count as copies."
        )
    captions["quality"] = ""
    names = [*tasks, "copies", "quality"]
    files = {name for name in names if (folder / "report" / f"{name}.png").is_file()}
    return {name: captions[name] for name in names if name in files and name in captions}
