"""Writing shards: Parquet files that `load_dataset` reads without this package."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from io import SEEK_END
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..checks import parse_json
from ..errors import InputError
from ..tasks import Task
from .files import atomic_file, require_folder, write_json
from .prefetch import prefetch
from .sample import Sample
from .schema import FORMAT_VERSION, METADATA, Schema
from .splits import TRAIN
from .typed_json import from_json, to_json

PLAN = "plan.json"
SKIPPED = "skipped.json"
ID2LABEL = "id2label*.json"  # names of classes, one file for each task that has them
LOGS = "logs"  # holds a line of JSON for every finished shard
ROWS_A_GROUP = 32  # small groups start streaming soon, see the docs of `datasets` on row groups
ENCODERS = 2  # threads
RECORD = "diff2in1"  # key in the metadata of the file of a shard
UNHASHED = "0" * 64  # stands for the hash of a shard while it is computed
BLOCK = 2**20  # bytes that are hashed at once
LIBRARIES = (
    *("diff2in1", "torch", "diffusers", "transformers", "datasets"),
    *("numpy", "pillow", "pyarrow"),
)


def shard_path(folder: Path, index: int, split: str = TRAIN) -> Path:
    """The file of a shard. No two shards of a dataset have the same number."""
    return folder / "data" / f"{split}-{index:05d}.parquet"


def shard_split(shard: Path) -> str:
    """The name of the split that a shard belongs to."""
    return shard.name.partition("-")[0]


def dataset_shards(folder: Path) -> list[Path]:
    """The finished shards of a dataset's folder, in order; those of the split train come first."""
    shards = (folder / "data").glob("[A-Za-z]*-*.parquet")
    return sorted(shards, key=lambda shard: (shard_split(shard) != TRAIN, shard.name))


@dataclass(frozen=True)
class ShardRecord:
    """Facts about the making of a shard, stored in the metadata of its file.

    Attributes:
        skipped: id of each sample that is left out -> why.
        notes: how often each change was made to the data of the source.
        base_licence: licence of the base that made the samples, None if unknown.
        plan: sha256 of the `plan.json` that it was made from, None without a plan.
        shard: its number in the plan, None without a plan.
        rows: number of its rows. Earlier versions wrote neither this nor the hashes: None.
        sha256: hash of its file, see `hash_shard`.
    """

    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    base_licence: str | None = None
    plan: str | None = None
    shard: int | None = None
    rows: int | None = None
    sha256: str | None = None


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
        record: called after the last sample. Its number of rows and its hash are filled in.

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
    with atomic_file(path, unique=True) as temporary:
        with pq.ParquetWriter(temporary, arrow, **options) as writer:
            while group := list(islice(rows, ROWS_A_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, arrow))
                count += len(group)
            made = replace(record() if record else ShardRecord(), rows=count, sha256=UNHASHED)
            writer.add_key_value_metadata({RECORD: json.dumps(to_json(made))})
        _write_hash(temporary)
    return count


def _write_hash(file: Path) -> None:
    """Replace `UNHASHED` in the footer of a shard by the hash of the file."""
    sha256, place = hash_shard(file, UNHASHED)
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(sha256.encode())


def hash_shard(file: Path, stored: str) -> tuple[str, int]:
    """The sha256 of the file of a shard in which zeros stand for the hash that it stores.

    Args:
        file: the shard.
        stored: the stored hash.

    Returns:
        The hash, and the place of the stored hash in the file.
    """
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        opened.seek(-8, SEEK_END)  # the file ends with the size of the footer and a magic word
        footer = opened.tell() - int.from_bytes(opened.read(4), "little")
        opened.seek(0)
        for start in range(0, footer, BLOCK):
            digest.update(opened.read(min(BLOCK, footer - start)))
        rest = opened.read()
    place = rest.rfind(stored.encode())
    digest.update(rest[:place] + UNHASHED.encode() + rest[place + len(stored) :])
    return digest.hexdigest(), footer + place


@contextmanager
def readable(shard: Path | IO[bytes]) -> Iterator[None]:
    """Raise InputError if the file in the block is not a readable shard."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        name = shard if isinstance(shard, Path) else getattr(shard, "path", "a shard")
        why = " ".join(str(error).split())
        raise InputError(f"{name}: not a complete shard of a dataset of ours: {why}") from error


def read_shard_record(shard: Path | IO[bytes]) -> ShardRecord:
    """Read the record of a shard. It is empty if the shard has none.

    Raises:
        InputError: if the file is no complete shard.
    """
    with readable(shard):
        stored = (pq.read_metadata(shard).metadata or {}).get(RECORD.encode())
        return from_json(ShardRecord, parse_json(stored)) if stored else ShardRecord()


def row_batches(file: pq.ParquetFile, size: int) -> Iterator[pa.RecordBatch]:
    """Read the rows of a shard, some at a time. pyarrow 18 fails for a shard without rows."""
    return file.iter_batches(size) if file.metadata.num_rows else iter(())


def check_content(shard: Path) -> None:
    """Read a whole shard and compare it with its record.

    Raises:
        InputError: if it cannot be read, or holds other rows than were written.
    """
    record = read_shard_record(shard)
    with readable(shard), pq.ParquetFile(shard) as file:
        if record.rows is None and record.sha256 is None:  # written by an earlier version
            for part in row_batches(file, ROWS_A_GROUP):
                part.to_pylist()
            return
        rows = file.metadata.num_rows
    if rows != record.rows:
        raise InputError(f"{shard}: holds {rows} rows, {record.rows} were written")
    if record.sha256 is None or hash_shard(shard, record.sha256)[0] != record.sha256:
        raise InputError(f"{shard}: holds other bytes than were written: its sha256 differs")


def library_versions() -> dict[str, str]:
    """The versions of this package and of the libraries that decide the bytes of what it writes."""
    return {name: version(name) for name in LIBRARIES}


def write_metadata(folder: Path, schema: Schema, splits: Sequence[str] = (TRAIN,)) -> None:
    """Write the metadata file of a dataset: its schema, and the library versions.

    The names of its classes are written too, see `write_id2label`.

    Args:
        folder: folder of the dataset.
        schema: its columns.
        splits: the names of its splits; they are written if there are several.
    """
    content = {"format_version": FORMAT_VERSION, **schema.config(), "versions": library_versions()}
    write_json(folder / METADATA, content | ({"splits": [*splits]} if len(splits) > 1 else {}))
    write_id2label(folder, schema.tasks)


def write_id2label(folder: Path, tasks: Mapping[str, Task]) -> None:
    """Write the names of classes as scripts of transformers read them: `{"0": "wall", ...}`.

    `id2label.json` is of the first task with classes; each further one has `id2label_TASK.json`.
    Such files of other tasks are deleted.
    """
    names = {name: task.family.names for name, task in tasks.items() if task.family.names}
    files = {
        folder / (f"id2label_{name}.json" if place else "id2label.json"): own
        for place, (name, own) in enumerate(names.items())
    }
    for file in {*folder.glob(ID2LABEL)} - files.keys():
        file.unlink()
    for file, own in files.items():
        write_json(file, dict(enumerate(own)))
