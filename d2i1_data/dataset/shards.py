"""Writing shards: Parquet files that `load_dataset` reads without this package."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .files import atomic_file, require_folder, write_json
from .prefetch import prefetch
from .sample import Sample
from .schema import FORMAT_VERSION, METADATA, Schema
from .typed_json import from_json, to_json

PLAN = "plan.json"
SKIPPED = "skipped.json"
LOGS = "logs"  # holds a line of JSON for every finished shard
ROWS_A_GROUP = 32  # small groups start streaming soon, see the docs of `datasets` on row groups
ENCODERS = 2  # threads
RECORD = "diff2in1"  # key in the metadata of the file of a shard
LIBRARIES = (
    *("diff2in1", "torch", "diffusers", "transformers", "datasets"),
    *("numpy", "pillow", "pyarrow"),
)


def shard_path(folder: Path, index: int) -> Path:
    """The file of a shard."""
    return folder / "data" / f"train-{index:05d}.parquet"


def dataset_shards(folder: Path) -> list[Path]:
    """The finished shards of a dataset's folder, in order."""
    return sorted((folder / "data").glob("train-*.parquet"))


@dataclass(frozen=True)
class ShardRecord:
    """Facts about the making of a shard, stored in the metadata of its file.

    Attributes:
        skipped: id of each sample that is left out -> why.
        notes: how often each change was made to the data of the source.
        base_licence: licence of the base that made the samples, None if unknown.
    """

    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    base_licence: str | None = None


def write_shard(
    path: Path,
    samples: Iterable[Sample],
    schema: Schema,
    record: Callable[[], ShardRecord] | None = None,
) -> int:
    """Write a shard under a temporary name, sync it and move it into place.

    Threads encode pictures while the next samples are made.

    Args:
        path: path of the shard.
        samples: its rows.
        schema: the columns of the dataset.
        record: called after the last sample.

    Returns:
        The number of rows.
    """
    require_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    features, arrow = schema.features, schema.arrow

    def encode(sample: Sample) -> dict[str, Any]:
        return features.encode_example(schema.to_row(sample))

    # pictures are compressed already, and no two are equal
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    rows, count = prefetch(encode, samples, bound=ROWS_A_GROUP, threads=ENCODERS), 0
    with (
        atomic_file(path, unique=True) as temporary,
        pq.ParquetWriter(temporary, arrow, **options) as writer,
    ):
        while group := list(islice(rows, ROWS_A_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, arrow))
            count += len(group)
        if record is not None:
            writer.add_key_value_metadata({RECORD: json.dumps(to_json(record()))})
    return count


def read_shard_record(shard: Path | IO[bytes]) -> ShardRecord:
    """Read the record of a shard. It is empty if the shard has none."""
    stored = (pq.read_metadata(shard).metadata or {}).get(RECORD.encode())
    return from_json(ShardRecord, json.loads(stored)) if stored else ShardRecord()


def library_versions() -> dict[str, str]:
    """The versions of this package and of the libraries that decide the bytes of what it writes."""
    return {name: version(name) for name in LIBRARIES}


def write_metadata(folder: Path, schema: Schema) -> None:
    """Write the metadata file of a dataset: its schema, and the library versions."""
    content = {"format_version": FORMAT_VERSION, **schema.config(), "versions": library_versions()}
    write_json(folder / METADATA, content)
