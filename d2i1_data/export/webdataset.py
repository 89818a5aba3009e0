"""WebDataset: tar files of samples, which can be read in order over a network."""

import io
import json
import tarfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from ..dataset.schema import Schema
from ..dataset.shards import write_metadata
from .entries import Entry, Selection


def write_webdataset(folder: Path, selection: Selection, *, shard_size: int) -> None:
    """Write data/SPLIT-00000.tar and so on, and the classes in diff2in1.json.

    A sample is KEY.image.png, KEY.TASK.png, KEY.confidence.TASK.png if it is stored, and KEY.json.

    Args:
        folder: an empty folder.
        selection: the samples.
        shard_size: samples in one tar file.
    """
    (folder / "data").mkdir()
    for split, entries in selection.by_split():
        for index, shard in groupby(enumerate(entries), lambda pair: pair[0] // shard_size):
            file = folder / "data" / f"{split}-{index:05d}.tar"
            _write(file, (entry for _, entry in shard))
    write_metadata(folder, Schema.of(selection.tasks, confidence=True), selection.splits)


def _write(file: Path, entries: Iterable[Entry]) -> None:
    """Write samples to a new tar file."""
    with tarfile.open(file, "x") as tar:
        for entry in entries:
            confidence = {f"confidence.{n}": data for n, data in entry.confidence.items()}
            for part, data in {"image": entry.image, **entry.maps, **confidence}.items():
                _add(tar, f"{entry.name}.{part}.png", data)
            _add(tar, f"{entry.name}.json", json.dumps(entry.facts).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # no user and time 0, so that the same samples give the same bytes
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
