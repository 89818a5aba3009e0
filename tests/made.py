"""Datasets that tests make by commands, and what is in them."""

from pathlib import Path

from d2i1_data.dataset.sample import Sample
from d2i1_data.sources import open_source
from d2i1_train.cli import main

SEVEN = (
    *("--source", "rooms:train", "--max_source_samples", 3, "--resolution", 32),
    *("--num_samples", 7, "--shard_size", 3, "--num_inference_steps", 2),
)


def run(*arguments: object) -> None:
    """A command that must succeed."""
    assert main([str(argument) for argument in arguments]) == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path; but not what the making cost."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    return {name: data for name, data in found.items() if not name.startswith("logs/")}


def shards(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith(".parquet")}


def samples(folder: Path) -> list[Sample]:
    return list(open_source(f"dataset:{folder}"))
