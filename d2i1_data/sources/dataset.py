"""The source `dataset:`: a Hugging Face dataset in our schema, in a folder or on the Hub."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from ..dataset.columns import take_column
from ..dataset.sample import Sample
from ..dataset.schema import METADATA, SCORES, Schema, read_schema
from ..errors import InputError
from ..hub import describe_error
from .source import Source, fingerprint


class Dataset(Source):
    """Samples of a dataset that `d2i1 create` or `d2i1 label` wrote, or of any in the same schema.

    Args:
        path: a folder or Hub id.
        split: name of the split; None is `train`.
        min_quality: `TASK.SCORE` -> least value. Only rows that reach all these values are kept,
            in their order. A score that is null reaches no value.

    Raises:
        InputError: if there is no such dataset, or it has another schema.
    """

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
        self.tasks = self.stored_schema.tasks
        self.fingerprint = fingerprint(self.name, split, metadata, min_quality)
        try:
            rows = _load(path, split or "train")
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            message = " ".join(str(error).split())
            raise InputError(f"dataset {path}: cannot be loaded: {message}") from error
        missing = [name for name in ("id", "image") if name not in rows.features]
        if missing:
            raise InputError(f"dataset {path}: columns {', '.join(missing)} are missing")
        self.rows = rows.with_format("arrow")  # undecoded
        if min_quality:
            self.rows = self.rows.select(self._reaching(min_quality))
        self.ids = [str(identity) for identity in self.column("id").to_pylist()]

    def __len__(self) -> int:
        return len(self.rows)

    def identity(self, index: int) -> str:
        return self.ids[index]

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
        row = self.stored(index)
        try:
            return self.stored_schema.from_row(row, tasks)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"dataset {self.name}: row {row['id']!r}: {error}") from error

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


def _load(path: str, split: str) -> datasets.Dataset:
    """Load the rows of a split.

    For a folder this names the shards. Otherwise `datasets` could return another folder from its
    cache, because it identifies a folder only by its name, rows and bytes.
    """
    pattern = f"data/{split}-*.parquet"
    local = Path(path).is_dir() and any(Path(path).glob(pattern))
    return datasets.load_dataset(path, split=split, data_files={split: pattern} if local else None)


def _metadata(path: str) -> str:
    """Read the metadata file of a local or remote dataset."""
    local = Path(path) / METADATA
    if local.is_file():
        return local.read_text()
    if Path(path).exists() or path.startswith((".", "/")):
        raise InputError(f"dataset {path}: no {METADATA} there; was it written by d2i1 create?")
    try:
        return Path(hf_hub_download(path, METADATA, repo_type="dataset")).read_text()
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        why = describe_error(error)
        raise InputError(f"dataset {path}: neither a folder nor on the Hub: {why}") from error
