"""The source `dataset:`: a Hugging Face dataset in our schema, in a folder or on the Hub."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from numpy.typing import NDArray
from PIL import Image

from ..checkpoints.files import check_id, not_found
from ..checks import parse_json
from ..dataset.columns import take_column
from ..dataset.sample import Sample
from ..dataset.schema import METADATA, SCORES, Schema, read_schema, stored_bytes
from ..dataset.shards import check_content, read_shard_record
from ..dataset.splits import TRAIN, is_name
from ..diff2in1.pictures import FORMATS, read_size
from ..errors import InputError
from ..hub import download
from .source import Source, fingerprint

# other modes with the same meaning
OTHER_MODES = {"L": ("P", "1"), "P": ("L", "1")}
# types that are read alike
KINDS: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_integer,
    pa.types.is_floating,
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
)


class Dataset(Source):
    """Samples of a dataset that `d2i1 create` or `d2i1 label` wrote, or of any in the same schema.

    Args:
        path: a folder or Hub id.
        split: name of the split; None is `train`.
        min_quality: `TASK.SCORE` -> least value. Only rows that reach all these values are kept,
            in their order. A score that is null reaches no value.

    Attributes:
        splits: the names of all splits of the dataset.

    Raises:
        InputError: if there is no such dataset, or it has another schema.
    """

    is_ours = True

    def __init__(
        self,
        path: str,
        split: str | None = None,
        min_quality: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.name = path if not Path(path).is_dir() else Path(path).resolve().name
        metadata = _metadata(path)
        self.stored_schema = read_schema(metadata, f"{path}/{METADATA}")
        self.splits = _splits(metadata, f"{path}/{METADATA}")
        self.tasks = self.stored_schema.tasks
        if len(self.splits) > 1 and (split or TRAIN) not in self.splits:
            raise InputError(f"dataset {path}: no split {split!r}, it has {', '.join(self.splits)}")
        self.fingerprint = fingerprint(
            self.name, split, metadata.decode(errors="replace"), min_quality
        )
        rows = _load(path, split or TRAIN, self.splits)
        _check_columns(rows.features.arrow_schema, self.stored_schema.arrow, f"dataset {path}")
        self.rows = rows.with_format("arrow")  # undecoded
        if min_quality:
            self.rows = self.rows.select(self._reaching(min_quality))
        self.images = self.rows.select_columns(["image"])
        identities = self.column("id")
        if identities.null_count:
            raise InputError(f"dataset {path}: {identities.null_count} rows have no id")
        try:
            self.ids = [str(identity) for identity in identities.to_pylist()]
        except ValueError as error:
            raise InputError(f"dataset {path}: ids: {error}") from error

    def __len__(self) -> int:
        return len(self.rows)

    def identity(self, index: int) -> str:
        return self.ids[index]

    def origin(self, index: int) -> str:
        return self._origins[index]

    @cached_property
    def _origins(self) -> list[str]:
        made_from = self.column("provenance.source_id").to_pylist()
        return [one or own for one, own in zip(made_from, self.ids, strict=True)]

    @property
    def schema(self) -> Schema:
        """The columns of the stored schema that this version of the package knows."""
        own = self.stored_schema
        return Schema.of(
            own.tasks,
            captions="caption" in own.columns,
            scores={name for task in own.tasks for name in own.inner("quality").get(task, ())},
            confidence="confidence" in own.columns,
            provenance=own.inner("provenance"),
        )

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows, undecoded and on disk.

        Args:
            name: name of the column; a dot leads into a struct, as in `provenance.kind`. A column
                that the dataset lacks is null in every row.
        """
        first = name.partition(".")[0]
        stored = first if first in self.rows.column_names else "id"
        table = self.rows.select_columns([stored])[:]
        return take_column(table, name, Schema.of(self.tasks, confidence=True).arrow)

    def stored(self, index: int) -> dict[str, Any]:
        """A row with all columns. A missing column is None, and pictures are undecoded."""
        (row,) = self.rows[index : index + 1].to_pylist()
        return self.stored_schema.complete(row)

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        try:
            row = self.stored(index)
            sample = self.stored_schema.from_row(row, tasks, self.max_pixels)
            for name, target in sample.targets.items():
                self._check(name, stored_bytes(row[name]), target, sample.size)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"dataset {self.name}: row {self.ids[index]!r}: {error}") from error
        return sample

    def image_size(self, index: int) -> tuple[int, int]:
        (row,) = self.images[index : index + 1].to_pylist()
        try:
            return read_size(stored_bytes(row["image"]))
        except ValueError as error:
            raise InputError(f"dataset {self.name}: row {self.ids[index]!r}: {error}") from error

    def _check(
        self, name: str, png: bytes, target: NDArray[np.generic], size: tuple[int, int]
    ) -> None:
        """Raise InputError for labels that a dataset of ours cannot hold."""
        family = self.tasks[name].family
        ours, mode = _mode(family.to_png(family.to_array(family.blank((1, 1))))), _mode(png)
        problem = family.find_problem(target)
        if mode not in (ours, *OTHER_MODES.get(ours, ())):
            problem = f"is stored with mode {mode}, expected {ours}"
        elif not problem and target.shape[:2] != size:
            problem = (
                f"has {target.shape[1]}x{target.shape[0]} pixels, its image {size[1]}x{size[0]}"
            )
        if problem:
            raise InputError(f"{name} {problem}")

    def _reaching(self, min_quality: Mapping[str, float]) -> list[int]:
        """Indices of the rows that reach every least value."""
        reaching = []
        for name, least in min_quality.items():
            task, score = self._parse(name, least)
            scores = self.column(f"quality.{task}.{score}")
            if scores.null_count == len(scores):
                raise InputError(
                    f"--min_quality: dataset {self.name} has no {name}: its --quality did not"
                    " measure it"
                )
            reaching.append(pc.greater_equal(scores, float(least)).fill_null(False).to_numpy())
        kept = np.flatnonzero(np.logical_and.reduce(reaching)).tolist()
        if not kept:
            least_values = ", ".join(f"{name} {least}" for name, least in min_quality.items())
            raise InputError(
                f"--min_quality: none of {len(self.rows)} rows of dataset {self.name} reaches"
                f" {least_values}"
            )
        return kept

    def _parse(self, name: str, least: float) -> tuple[str, str]:
        """Split `TASK.SCORE` into task and score, and check both and the least value."""
        task, _, score = name.partition(".")
        if task not in self.tasks:
            raise InputError(
                f"--min_quality: {name!r}: dataset {self.name} has no task {task!r}, choose from"
                f" {', '.join(self.tasks)}"
            )
        if score not in SCORES:
            raise InputError(
                f"--min_quality: {name!r}: no score {score!r}, expected TASK.SCORE with a score of"
                f" {', '.join(SCORES)}"
            )
        if not 0 <= least <= 1:
            raise InputError(f"--min_quality: {name} {least}: expected 0 to 1")
        return task, score


def _mode(png: bytes) -> str:
    """The mode of a picture, as Pillow names it."""
    with Image.open(io.BytesIO(png), formats=FORMATS) as picture:
        return picture.mode


def _check_columns(found: pa.Schema, expected: pa.Schema, where: str) -> None:
    """Raise InputError unless the columns can be read as ours. Only id and image must be there."""
    if missing := [name for name in ("id", "image") if name not in found.names]:
        raise InputError(f"{where}: columns {', '.join(missing)} are missing")
    for own in expected:
        if own.name in found.names and not _fits(found.field(own.name).type, own.type):
            kind = found.field(own.name).type
            raise InputError(f"{where}: column {own.name} is {kind}, expected {own.type}")


def _fits(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a column of a stranger can be read as ours. Inner columns may be missing."""
    if pa.types.is_struct(expected):
        if not pa.types.is_struct(found):
            return pa.types.is_null(found)
        inner = {field.name: field.type for field in found}
        return all(_fits(inner[own.name], own.type) for own in expected if own.name in inner)
    return (
        pa.types.is_null(found)
        or any(is_kind(found) and is_kind(expected) for is_kind in KINDS)
        or found == expected
    )


def _load(path: str, split: str, splits: Sequence[str]) -> datasets.Dataset:
    """Load the shards of a split. Other files are not read, whatever the card of a stranger names.

    Args:
        path: folder or Hub id.
        split: the split.
        splits: all splits. Older versions of `datasets` compare them with those of the card.

    Raises:
        InputError: if there is no such shard, or one is not complete.
    """
    pattern = f"data/{split}-*.parquet"
    shards = sorted(Path(path).glob(pattern))
    for shard in shards:
        read_shard_record(shard)  # or else `datasets` logs the error too
    try:
        files = {name: f"data/{name}-*.parquet" for name in dict.fromkeys([*splits, split])}
        return datasets.load_dataset(path, split=split, data_files=files)
    except Exception as error:  # `datasets` raises errors of many kinds for a damaged shard
        for shard in shards:
            check_content(shard)
        message = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"dataset {path}: cannot be loaded: {message}") from error


def _splits(metadata: bytes, where: str) -> list[str]:
    """The names of the splits in a metadata file."""
    names = parse_json(metadata).get("splits", [TRAIN])
    if not (isinstance(names, list) and names and all(map(is_name, names))):
        raise InputError(f"{where}: splits: expected a list of names, got {names!r:.60}")
    return names


def _metadata(path: str) -> bytes:
    """Read the metadata file of a local or remote dataset."""
    local = Path(path) / METADATA
    if local.is_file():
        return local.read_bytes()
    if Path(path).exists():
        raise InputError(f"dataset {path}: no {METADATA} there; was it written by d2i1 create?")
    check_id(path, "dataset")
    try:
        return download(path, METADATA, "dataset").read_bytes()
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise not_found("dataset", path, error) from error
