"""Transformers: Parquet files of images and class ids, which its scripts for segmentation read."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Features, Image, Value

from ..dataset.shards import ROWS_A_GROUP, shard_path, write_id2label
from ..tasks import Task
from .entries import Entry, Selection, write_new

FEATURES = Features(
    {"image": Image(), "label": Image(), "id": Value("string"), "caption": Value("string")}
)
NAMES = {"val": "validation"}  # the name of the split that the scripts evaluate on
TEXT = """
Images with a class id for each pixel, in the layout that `run_semantic_segmentation.py` of
transformers reads. `id2label.json` names the classes; 255 is unknown.
"""


def write_transformers(folder: Path, selection: Selection, *, shard_size: int) -> None:
    """Write data/SPLIT-00000.parquet and so on, id2label.json, and a README.md with the splits.

    Args:
        folder: an empty folder.
        selection: the samples, with one task that has classes.
        shard_size: samples in one file.
    """
    (task,) = selection.tasks.values()
    (folder / "data").mkdir()
    for split, entries in selection.by_split():
        for index in count():
            rows = (_row(entry, task) for entry in islice(entries, shard_size))
            if not _write(shard_path(folder, index, NAMES.get(split, split)), rows):
                break
    write_id2label(folder, selection.tasks)
    names = [NAMES.get(split, split) for split in selection.splits]
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in names]
    configs = [{"config_name": "default", "data_files": files}]
    data = {"task_categories": ["image-segmentation"], "configs": configs}
    write_new(folder / "README.md", f"---\n{yaml.safe_dump(data)}---\n{TEXT}".encode())


def _row(entry: Entry, task: Task) -> dict[str, Any]:
    entry.classes(task)  # raises for ids of no class
    return {
        "image": {"bytes": entry.image, "path": None},
        "label": {"bytes": entry.maps[task.name], "path": None},
        "id": entry.facts["id"],
        "caption": entry.facts["caption"],
    }


def _write(file: Path, rows: Iterator[dict[str, Any]]) -> int:
    """Write rows to a Parquet file, none if there are none. Return their number."""
    schema, written = FEATURES.arrow_schema, 0
    with ExitStack() as stack:
        while group := list(islice(rows, ROWS_A_GROUP)):
            if not written:
                writer = stack.enter_context(pq.ParquetWriter(file, schema, compression="none"))
            writer.write_table(pa.Table.from_pylist(group, schema))
            written += len(group)
    return written
