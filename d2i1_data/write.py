"""Writing shards: Parquet files that `load_dataset` reads without this package."""

import json
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import InputError
from .sample import Sample
from .schema import FEATURES, METADATA, describe_tasks, to_row
from .tasks import Task

PLAN = "plan.json"
RUN = "run.json"
ROWS_A_GROUP = 32  # small groups stream soon, see docs of `datasets` on row groups
LIBRARIES = ("torch", "diffusers", "transformers", "datasets", "numpy", "pillow", "pyarrow")


def shard_path(folder: Path, index: int) -> Path:
    """Where a shard lies; the name holds no total, so that appending renames nothing."""
    return folder / "data" / f"train-{index:05d}.parquet"


def write_shard(path: Path, samples: Iterable[Sample], tasks: Mapping[str, Task]) -> None:
    """Write a shard under a temporary name, sync it and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    schema = FEATURES.arrow_schema
    # pictures are compressed already, and no two are equal
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(temporary, schema, **options) as writer:
        rows: list[dict[str, Any]] = []
        for sample in samples:
            rows.append(FEATURES.encode_example(to_row(sample, tasks)))
            if len(rows) == ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
    _settle(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    _settle(temporary, path)


def _settle(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def library_versions() -> dict[str, str]:
    """The versions that what we write depends on."""
    return {name: version(name) for name in LIBRARIES}


def write_metadata(folder: Path, tasks: Mapping[str, Task]) -> None:
    """Classes and library versions, once per dataset."""
    content = {"tasks": describe_tasks(tasks), "versions": library_versions()}
    write_text(folder / METADATA, json.dumps(content, indent=2) + "\n")


def claim_folder(folder: Path, plan: Mapping[str, Any], overwrite: bool) -> None:
    """Make the folder ours: new, or holding the same plan; otherwise refuse and touch nothing.

    overwrite: a dataset of ours with another plan is replaced; what is not ours never is.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --output_dir needs a folder")
    if folder.is_dir() and any(folder.iterdir()):
        old = _read_plan(folder / PLAN)
        differing = sorted(key for key in {*old, *plan} if old.get(key) != plan.get(key))
        if differing and not overwrite:
            raise InputError(
                f"{folder} holds another dataset (its plan differs in {', '.join(differing)}):"
                " choose another --output_dir, or replace it with --overwrite"
            )
        if differing:
            shards = [shard_path(folder, index) for index in range(len(old["shards"]))]
            for file in (folder / "README.md", folder / "preview.png", *shards):
                file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / PLAN, json.dumps(plan, indent=2) + "\n")


def _read_plan(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(
            f"{file.parent} is not empty and holds no {PLAN}: choose another --output_dir"
        )
    try:
        plan = json.loads(file.read_text())
    except ValueError:
        plan = None
    if not isinstance(plan, dict) or not isinstance(plan.get("shards"), list):
        raise InputError(f"{file} is no plan of ours: choose another --output_dir")
    return plan


def claim_run(folder: Path, settings: Mapping[str, Any], resume: str | None) -> None:
    """Make a training folder ours: new, or a run of ours that is to be resumed."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --output_dir needs a folder")
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
