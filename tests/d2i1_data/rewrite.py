"""A dataset made of another one's samples, changed as a test wants them."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from d2i1_data.dataset.sample import Sample
from d2i1_data.dataset.schema import Schema
from d2i1_data.dataset.shards import shard_path, write_metadata, write_shard
from d2i1_data.sources.dataset import Dataset
from d2i1_data.tasks import Task


def save_dataset(folder: Path, samples: Iterable[Sample], tasks: dict[str, Task]) -> Path:
    """Write samples as a dataset of one shard; its folder."""
    folder.mkdir(parents=True)
    samples = list(samples)
    schema = Schema.of(tasks, confidence=any(sample.confidence for sample in samples))
    write_metadata(folder, schema)
    write_shard(shard_path(folder, 0), samples, schema)
    return folder


def changed(old: Path, folder: Path, changes: dict[int, Sample]) -> Path:
    """A dataset with some of its samples replaced; all else is kept."""
    rows = Dataset(str(old))
    samples = [changes.get(n, sample) for n, sample in enumerate(rows)]
    shutil.copytree(old, folder, ignore=shutil.ignore_patterns("data", "report"))
    write_shard(shard_path(folder, 0), samples, rows.stored_schema)
    return folder
