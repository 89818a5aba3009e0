"""Commands that tests run in this process, datasets that tests write, and what is in them."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from d2i1_data.dataset.sample import Sample
from d2i1_data.dataset.schema import Schema
from d2i1_data.dataset.shards import dataset_shards, shard_path, write_metadata, write_shard
from d2i1_data.sources import open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.tasks import Task
from d2i1_train.cli import main

SEVEN = (
    *("--source", "rooms:train", "--max_source_samples", 3, "--resolution", 32),
    *("--num_samples", 7, "--shard_size", 3, "--num_inference_steps", 2),
)


def run(*arguments: object) -> None:
    """Run a command that must succeed."""
    assert main([str(argument) for argument in arguments]) == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path, but the logs, which hold times."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    return {name: data for name, data in found.items() if not name.startswith("logs/")}


def shards(folder: Path) -> dict[str, bytes]:
    """The shards of a dataset by their paths."""
    return {name: data for name, data in contents(folder).items() if name.endswith(".parquet")}


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a dataset as its shards store them."""
    return [row for shard in dataset_shards(folder) for row in pq.read_table(shard).to_pylist()]


def samples(folder: Path) -> list[Sample]:
    """The samples of a dataset."""
    return list(open_source(f"dataset:{folder}"))


def save_dataset(folder: Path, samples: Iterable[Sample], tasks: Mapping[str, Task]) -> Path:
    """Write samples as a dataset of one shard; its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = list(samples)
    schema = Schema.of(tasks, confidence=any(sample.confidence for sample in samples))
    write_metadata(folder, schema)
    write_shard(shard_path(folder, 0), samples, schema)
    return folder


def changed(old: Path, folder: Path, changes: Mapping[int, Sample]) -> Path:
    """A dataset with some of its samples replaced; everything else is kept."""
    rows = Dataset(str(old))
    samples = [changes.get(n, sample) for n, sample in enumerate(rows)]
    shutil.copytree(old, folder, ignore=shutil.ignore_patterns("data", "report"))
    write_shard(shard_path(folder, 0), samples, rows.stored_schema)
    return folder
