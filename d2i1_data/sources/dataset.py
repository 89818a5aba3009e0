"""Any Hugging Face dataset in our schema, in a folder or on the Hub."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from ..errors import InputError
from ..sample import Sample
from ..schema import FEATURES, METADATA, from_row, read_metadata


class Dataset:
    """Samples of a dataset that `d2i1 create` or `d2i1 label` wrote, or anything in its schema."""

    has_images = True

    def __init__(self, path: str, split: str | None = None) -> None:
        self.name = path if not Path(path).is_dir() else Path(path).resolve().name
        self.notes: dict[str, int] = {}
        self.tasks = read_metadata(_metadata(path), f"{path}/{METADATA}")
        try:
            rows = datasets.load_dataset(path, split=split or "train")
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            message = " ".join(str(error).split())
            raise InputError(f"dataset {path}: cannot be loaded: {message}") from error
        missing = [name for name in FEATURES if name not in rows.features]
        if missing:
            raise InputError(f"dataset {path}: columns {', '.join(missing)} are missing")
        self.rows = rows.with_format("arrow")  # undecoded
        self.ids = [str(identity) for identity in rows["id"]]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def identity(self, index: int) -> str:
        return self.ids[index]

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows, undecoded and on disk; dots lead into a struct."""
        first, *inner = name.split(".")
        column = self.rows.select_columns([first])[:][first]
        return pc.struct_field(column, inner) if inner else column

    def __getitem__(self, index: int) -> Sample:
        (row,) = self.rows[index : index + 1].to_pylist()
        try:
            return from_row(row, self.tasks)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"dataset {self.name}: row {row['id']!r}: {error}") from error


def _metadata(path: str) -> str:
    """Text of the metadata file of a local or remote dataset."""
    local = Path(path) / METADATA
    if local.is_file():
        return local.read_text()
    if Path(path).exists() or path.startswith((".", "/")):
        raise InputError(f"dataset {path}: no {METADATA} there; was it written by d2i1 create?")
    try:
        return Path(hf_hub_download(path, METADATA, repo_type="dataset")).read_text()
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        message = str(error).strip().splitlines()[0]
        raise InputError(f"dataset {path}: neither a folder nor on the Hub: {message}") from error
