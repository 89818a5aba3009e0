"""A summary of a dataset: counts and scores of all its shards. Pictures are not read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..dataset.columns import count_values, take_column
from ..dataset.schema import PROVENANCE, SCORES, Schema
from ..dataset.shards import read_shard_record, readable, shard_split

# fields of the provenance that differ in every row
ROW_FIELDS = ("source_id", "source_sha256", "noise_seed", "variant")
Shard = Path | IO[bytes]


@dataclass
class SourceCounts:
    """The rows of one source, and the ids of the images that they were made from."""

    name: str | None
    licence: str | None
    rows: int = 0
    images: set[str] = field(default_factory=set)


@dataclass
class Summary:
    """Counts and scores of all shards together.

    Attributes:
        rows: number of rows.
        splits: rows and bytes of the shards of each split.
        skipped: number of source images that were left out.
        provenance: for each field, how often each value occurs.
        kinds: number of rows that are `real`, `labelled` (real images with predicted labels) and
            `created`.
        sources: rows by source and licence.
        checkpoints: number of rows that each checkpoint made, by its id on the Hub, None if it was
            a folder, and its fingerprint.
        scores: measured scores by task and name.
        notes: how often each change was made to the data of the source.
        base_licences: licences of the bases; None stands for an unknown one.
    """

    rows: int = 0
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    skipped: int = 0
    provenance: dict[str, Counter[Any]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    sources: dict[tuple[Any, Any], SourceCounts] = field(default_factory=dict)
    checkpoints: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    scores: dict[str, dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    base_licences: set[str | None] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(size for _, size in self.splits.values())

    def values(self, name: str) -> list[Any]:
        """The values of a field of the provenance, most frequent first, without null."""
        return [value for value, _ in self.provenance[name].most_common() if value is not None]


def summarize(shards: Sequence[Shard], schema: Schema) -> Summary:
    """Read the columns without pictures.

    Args:
        shards: paths, or open files for shards that lie elsewhere.
        schema: the schema of the dataset.

    Raises:
        InputError: if a file is not a complete shard.
    """
    summary = Summary(provenance={name: Counter() for name in PROVENANCE})
    parts: dict[tuple[str, str], list[pa.ChunkedArray]] = {}
    whole = Schema.of(schema.tasks).arrow
    for shard in shards:
        with readable(shard), pq.ParquetFile(shard) as file:
            table = file.schema_arrow.empty_table()  # pyarrow 18 reads no shard without rows
            if file.metadata.num_rows:
                table = file.read(columns=["quality", "provenance"])
            own = {name: take_column(table, f"provenance.{name}", whole) for name in PROVENANCE}
            _add_provenance(summary, own)
            for task in schema.tasks:
                for score in SCORES:
                    column = take_column(table, f"quality.{task}.{score}", whole).drop_null()
                    parts.setdefault((task, score), []).append(column.to_numpy())
        record = read_shard_record(shard)
        summary.rows += table.num_rows
        rows, size = summary.splits.get(name := shard_split(_path(shard)), (0, 0))
        summary.splits[name] = (rows + table.num_rows, size + _size(shard))
        summary.skipped += len(record.skipped)
        summary.notes.update(record.notes)
        if pc.any(pc.equal(own["kind"], "created")).as_py():
            summary.base_licences.add(record.base_licence)
    for (task, score), values in parts.items():
        if sum(map(len, values)):
            summary.scores.setdefault(task, {})[score] = np.concatenate(values)
    return summary


def _add_provenance(summary: Summary, own: Mapping[str, pa.ChunkedArray]) -> None:
    """Count the provenance of one shard."""
    for name in summary.provenance.keys() - set(ROW_FIELDS):
        summary.provenance[name].update(count_values(own[name]))
    predicted = pc.equal(own["kind"], "created").fill_null(False)
    changed = pc.and_(predicted, pc.greater(own["strength"], 0).fill_null(False))
    count, created = pc.sum(predicted).as_py() or 0, pc.sum(changed).as_py() or 0
    summary.kinds.update(real=len(predicted) - count, labelled=count - created, created=created)
    makers = zip(own["checkpoint"].to_pylist(), own["fingerprint"].to_pylist(), strict=True)
    summary.checkpoints.update(maker for maker in makers if any(maker))
    keys = ("source_dataset", "licence", "source_id")
    groups = pa.table({name: own[name] for name in keys}).group_by(list(keys))
    for row in groups.aggregate([([], "count_all")]).to_pylist():
        name, licence, image = (row[key] for key in keys)
        counts = summary.sources.setdefault((name, licence), SourceCounts(name, licence))
        counts.rows += row["count_all"]
        if image is not None:
            counts.images.add(image)


def _path(shard: Shard) -> Path:
    """The path of a shard. Open files of the Hub have `path`, those of this machine `name`."""
    return shard if isinstance(shard, Path) else Path(getattr(shard, "path", None) or shard.name)


def _size(shard: Shard) -> int:
    if isinstance(shard, Path):
        return shard.stat().st_size
    return shard.seek(0, 2)
