"""Writing shards: Parquet files that `load_dataset` reads without this package."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from ..tasks import Task
from .files import _settle, require_folder, write_text
from .prefetch import prefetch
from .sample import Sample
from .schema import FEATURES, METADATA, describe_tasks, to_row

PLAN = "plan.json"
RUN = "run.json"
SKIPPED = "skipped.json"
LOGS = "logs"  # holds a line of JSON for every finished shard
ROWS_A_GROUP = 32  # small groups stream soon, see docs of `datasets` on row groups
ENCODERS = 2  # threads
SAID = "diff2in1"  # key of a shard's own metadata, which is there if the shard is
LIBRARIES = ("torch", "diffusers", "transformers", "datasets", "numpy", "pillow", "pyarrow")


def shard_path(folder: Path, index: int) -> Path:
    """Where a shard lies."""
    return folder / "data" / f"train-{index:05d}.parquet"


def dataset_shards(folder: Path) -> list[Path]:
    """The shards of a dataset's folder that are there, in order."""
    return sorted((folder / "data").glob("train-*.parquet"))


def write_shard(
    path: Path,
    samples: Iterable[Sample],
    tasks: Mapping[str, Task],
    said: Callable[[], Mapping[str, Any]] | None = None,
) -> int:
    """Write a shard under a temporary name, sync it and move it into place; how many rows it has.

    Threads encode pictures while the next samples are made. said: asked, when the last sample has
    come, for what the file's own metadata is to hold, see `read_said`.
    """
    require_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    schema = FEATURES.arrow_schema

    def encode(sample: Sample) -> dict[str, Any]:
        return FEATURES.encode_example(to_row(sample, tasks))

    # pictures are compressed already, and no two are equal
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    rows, count = prefetch(encode, samples, bound=ROWS_A_GROUP, threads=ENCODERS), 0
    try:
        with pq.ParquetWriter(temporary, schema, **options) as writer:
            while group := list(islice(rows, ROWS_A_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema))
                count += len(group)
            if said is not None:
                writer.add_key_value_metadata({SAID: json.dumps(said())})
        _settle(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk it only takes room
        raise
    return count


def read_said(shard: Path | IO[bytes]) -> dict[str, Any]:
    """What a shard says of its own making: `skipped`, ids of samples that are left out and why;
    `notes`, counts of what was done to the source's data; `base_licence`, if that is known."""
    said = (pq.read_metadata(shard).metadata or {}).get(SAID.encode())
    return {"skipped": {}, "notes": {}} | (json.loads(said) if said else {})


def library_versions() -> dict[str, str]:
    """The versions that what we write depends on."""
    return {name: version(name) for name in LIBRARIES}


def write_metadata(folder: Path, tasks: Mapping[str, Task]) -> None:
    """Classes and library versions, once per dataset."""
    content = {"tasks": describe_tasks(tasks), "versions": library_versions()}
    write_text(folder / METADATA, json.dumps(content, indent=2) + "\n")


def claim_run(folder: Path, settings: Mapping[str, Any], resume: str | None) -> None:
    """Make a training folder ours: new, or a run of ours that is to be resumed."""
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / RUN).is_file():
            raise InputError(f"{folder} is not empty and holds no run: choose another --output_dir")
        if not resume:
            raise InputError(
                f"{folder} holds a run already: continue it with --resume_from_checkpoint latest,"
                " or choose another --output_dir"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RUN, json.dumps(settings, indent=2) + "\n")
