"""Rows of a data set of the Hub: downloaded, or read row group by row group from where they lie."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfFileSystem, constants
from numpy.typing import NDArray

from ..checkpoints.files import check_id, not_found
from ..errors import InputError
from ..hub import describe_error, no_answer

READING = Lock()  # a file of Parquet has one reader at a time
KEPT = 2  # row groups, because two threads may be on both sides of a border
SCRIPT = (
    "needs a loading script, and code of strangers is not run. If the Hub has converted it, write"
    " `revision: refs/convert/parquet` and `data_dir: CONFIG`. If not, download its files and"
    " describe them for the source `folder:`"
)


class Place(NamedTuple):
    """Where a data set is: a folder or an id of the Hub, and which part of it.

    config: one of its configurations. revision: a branch, tag or commit. data_dir: one of its
    folders.
    """

    path: str
    config: str | None = None
    revision: str | None = None
    data_dir: str | None = None

    def __str__(self) -> str:
        return f"data set {self.path}"


class Table(Protocol):
    """The rows of one split."""

    names: list[str]

    def __len__(self) -> int: ...

    def row(self, index: int) -> pa.Table:
        """One row, undecoded."""

    def column(self, name: str) -> list[Any]:
        """A column of all rows."""


class Loaded:
    """Rows that the library datasets has downloaded.

    Args:
        rows: the rows.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows, self.names = rows.with_format("arrow"), rows.column_names

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> pa.Table:
        return self.rows[index : index + 1]

    def column(self, name: str) -> list[Any]:
        found: list[Any] = self.rows.select_columns([name])[:].column(name).to_pylist()
        return found


class Streamed:
    """Rows of Parquet files, of which only the row groups are read that are asked for.

    Args:
        files: the files, as paths or `hf://` addresses.
        columns: the columns that `row` gives.
    """

    def __init__(self, files: list[str], columns: list[str]) -> None:
        self.files, self.columns = files, columns
        self._open: dict[str, pq.ParquetFile] = {}
        self._groups: dict[int, pa.Table] = {}
        self.places = [
            (file, group, self._file(file).metadata.row_group(group).num_rows)
            for file in files
            for group in range(self._file(file).metadata.num_row_groups)
        ]
        self.ends = list(accumulate(count for *_, count in self.places))
        self.names = self._file(files[0]).schema_arrow.names

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_open": {}, "_groups": {}}  # another process opens them again

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def _file(self, file: str) -> pq.ParquetFile:
        if file not in self._open:
            remote = file.startswith("hf://")
            self._open[file] = pq.ParquetFile(HfFileSystem().open(file, "rb") if remote else file)
        return self._open[file]

    def row(self, index: int) -> pa.Table:
        number = bisect_right(self.ends, index)
        with READING:
            if number not in self._groups:
                for old in [*self._groups][: 1 - KEPT]:
                    del self._groups[old]
                file, group, _ = self.places[number]
                found = self._file(file).read_row_group(group, columns=self.columns)
                self._groups[number] = found
            start = self.ends[number] - self.places[number][-1]
            return self._groups[number].slice(index - start, 1)

    def column(self, name: str) -> list[Any]:
        parts = (self._file(file).read([name]).column(name).to_pylist() for file in self.files)
        return [value for part in parts for value in part]


class Split(NamedTuple):
    """One split of a data set. fingerprint: hash of its files or its commit."""

    table: Table
    fingerprint: str


def open_split(place: Place, split: str, columns: list[str], streaming: bool) -> Split:
    """Open one split of a data set.

    Args:
        place: where it is.
        split: its name.
        columns: the columns that are needed.
        streaming: download nothing; read rows when they are asked for.

    Raises:
        InputError: if there is no such data set, split or column, or it needs a loading script.
    """
    if not Path(place.path).is_dir():
        check_id(place.path, "data set")
        silent = None if constants.HF_HUB_OFFLINE else no_answer()
        if silent is not None:
            raise InputError(f"{place}: the Hub does not answer: {describe_error(silent)}")
    builder = _builder(place)
    files = {str(name): [str(file) for file in of] for name, of in _files(builder).items()}
    known = [*files] or [*(builder.info.splits or {})]
    if known and split not in known:
        raise InputError(f"{place}: no split {split!r}, only {', '.join(known)}")
    is_parquet = builder.name == "parquet" and split in files
    if streaming and not is_parquet:
        raise InputError(
            f"{place}: streaming: its files are of the kind {builder.name}, and only Parquet can be"
            " streamed; leave `streaming` out, or use its `revision: refs/convert/parquet`"
        )
    with explained(place):
        if is_parquet:
            streamed = Streamed(files[split], columns)
            check_columns(columns, streamed.names, place)
            table: Table = streamed if streaming else _load_parquet(files[split], columns)
        else:
            given = {"data_dir": place.data_dir, "revision": place.revision, "split": split}
            table = Loaded(datasets.load_dataset(place.path, place.config, **given))
            check_columns(columns, table.names, place)
    return Split(table, str(builder.hash))


def _load_parquet(files: list[str], columns: list[str]) -> Loaded:
    """Download the files of one split, and keep these columns only."""
    data = {"train": files}
    return Loaded(datasets.load_dataset("parquet", data_files=data, split="train", columns=columns))


def check_columns(wanted: list[str], names: list[str], place: Place) -> None:
    """Raise InputError if a column is missing."""
    if missing := [name for name in wanted if name not in names]:
        raise InputError(f"{place}: no column {missing[0]!r}, only {', '.join(names)}")


def _files(builder: datasets.DatasetBuilder) -> dict[Any, Any]:
    return dict(builder.config.data_files or {})


def _builder(place: Place) -> datasets.DatasetBuilder:
    with explained(place):
        return datasets.load_dataset_builder(
            place.path, place.config, data_dir=place.data_dir, revision=place.revision
        )


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Turn errors of the library datasets, which are of many kinds, into one line."""
    try:
        yield
    except InputError:
        raise
    except datasets.exceptions.DatasetNotFoundError as error:
        raise not_found("data set", place.path, error) from error
    except Exception as error:
        if "scripts are no longer supported" in str(error):
            raise InputError(f"{place}: {SCRIPT}") from error
        message = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"{place}: cannot be loaded: {message:.300}") from error


def picture_bytes(value: Any, place: str) -> bytes | None:
    """The bytes of a stored picture; None if it is null.

    A row may name a file instead. Only files that were downloaded with the data set are read: a
    stranger's row could name any file of this machine.

    Args:
        value: the stored value: bytes, or a mapping with `bytes` and `path`.
        place: the folder or id of the data set.

    Raises:
        ValueError: if it is no picture, or a file elsewhere.
    """
    if value is None or isinstance(value, bytes):
        return value
    if not isinstance(value, dict) or "bytes" not in value:
        raise ValueError(f"{type(value).__name__}, expected a picture or an array")
    content, path = value["bytes"], value.get("path")
    if content is not None or path is None:
        return content
    file = Path(os.path.realpath(path))
    roots = (constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE, place)
    if not any(file.is_relative_to(os.path.realpath(root)) for root in roots) or not file.is_file():
        raise ValueError("a row that names a file of this machine, which is not read")
    return file.read_bytes()


def to_array(column: pa.ChunkedArray) -> NDArray[np.generic] | None:
    """The numbers of an array in a column of one row; None if it holds no arrays.

    A channel axis is last in the result, and one of a single channel is left out.
    """
    values, shape = pa.concat_arrays(column.chunks), []
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if not _is_list(values.type):
        return None
    while _is_list(values.type):
        inner = values.flatten()
        if len(values) and len(inner) % len(values):
            raise ValueError("lists of several lengths, expected an array")
        shape.append(len(inner) // max(len(values), 1))
        values = inner
    array = values.to_numpy(zero_copy_only=False).reshape(shape)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"an array of {array.dtype}, expected numbers")
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = np.moveaxis(array, 0, -1)
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
