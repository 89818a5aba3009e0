"""The card of a dataset, filled from what the shards hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
from datasets.info import DatasetInfo, DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData

import hub_cards

from .diff2in1.families import LabelMap
from .preview import preview
from .schema import FEATURES, from_row
from .tasks import Task
from .write import write_text

PREVIEWS = 8

SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def write_card(folder: Path, tasks: Mapping[str, Task], facts: Mapping[str, Any]) -> None:
    """Write README.md and preview.png of a dataset folder whose shards are complete."""
    first = pq.ParquetFile(next((folder / "data").glob("train-00000.parquet")))
    rows = next(first.iter_batches(PREVIEWS)).to_pylist()
    preview([from_row(row, tasks) for row in rows], tasks).save(folder / "preview.png")
    write_text(folder / "README.md", dataset_card(folder, tasks, facts))


def dataset_card(folder: Path, tasks: Mapping[str, Task], facts: Mapping[str, Any]) -> str:
    """The text of README.md: metadata for the Hub, then what people want to know."""
    title = f"Diff-2-in-1: {', '.join(tasks)}"
    shards = sorted((folder / "data").glob("train-*.parquet"))
    count = sum(pq.read_metadata(shard).num_rows for shard in shards)
    columns = pq.read_table(shards, columns=["id", "quality", "provenance"]).to_pylist()
    shown = [_task(task, [row["quality"][name] for row in columns]) for name, task in tasks.items()]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(hub_cards.FOLDER), undefined=jinja2.StrictUndefined
    )
    body = environment.get_template("dataset.md.jinja").render(
        title=title,
        count=count,
        created=bool(facts.get("strength")),
        tasks=shown,
        facts=facts,
        load_path=folder.name,
    )
    licences = {row["provenance"]["licence"] for row in columns} - {None}
    data = DatasetCardData(
        pretty_name=title,
        license=licences.pop() if len(licences) == 1 else "other",
        annotations_creators=["machine-generated"],
        size_categories=[next((v for k, v in SIZES.items() if count < k), "n>1M")],
        task_categories=sorted({c for task in tasks.values() for c in task.categories}),
        tags=["synthetic", "diff2in1", *sorted({tag for t in tasks.values() for tag in t.tags})],
    )
    size = sum(shard.stat().st_size for shard in shards)
    splits = SplitDict({"train": SplitInfo("train", num_bytes=size, num_examples=count)})
    info = DatasetInfo(features=FEATURES, splits=splits, download_size=size, dataset_size=size)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    configs = {"data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    MetadataConfigs({"default": configs}).to_dataset_card_data(data)
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _task(task: Task, quality: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says of a task: its sentence, classes and mean quality."""

    def mean(key: str) -> str:
        known = [row[key] for row in quality if row[key] is not None]
        return f"{np.mean(known):.3f}" if known else "not measured"

    return {
        "name": task.name,
        "sentence": task.sentence,
        "names": task.family.names if isinstance(task.family, LabelMap) else None,
        **{key: mean(key) for key in ("confidence", "flip", "reencode")},
    }
