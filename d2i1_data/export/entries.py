"""Entries: the rows of a dataset as files. Pictures are decoded only if necessary."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..dataset.schema import decode_rgb, stored_bytes
from ..dataset.splits import TRAIN
from ..diff2in1.families import CONFIDENCE, encode_png
from ..diff2in1.pictures import FORMATS
from ..errors import InputError
from ..sources.dataset import Dataset
from ..sources.resize import Size
from ..tasks import Task

LONGEST = 128  # characters of a file name; systems allow 255 bytes with the endings


class Entry(NamedTuple):
    """A row as files.

    name: name of its files, without ending; it is unique. split: name of its split. size: height
    and width in pixels. image: PNG bytes. maps: PNG bytes by task, as stored; if the row has no
    label, all pixels are unknown. confidence: PNG bytes by task, if they are stored. facts: id,
    caption, quality and provenance.
    """

    name: str
    split: str
    size: Size
    image: bytes
    maps: dict[str, bytes]
    confidence: dict[str, bytes]
    facts: dict[str, Any]

    def classes(self, task: Task) -> NDArray[np.uint8]:
        """Class ids of a task, 255 unknown, [H, W].

        Raises:
            InputError: if the map holds other values.
        """
        ids = task.family.from_png(self.maps[task.name])
        problem = task.family.find_problem(ids)
        if problem:
            raise InputError(f"row {self.facts['id']!r}: {task.name} {problem}")
        return ids.astype(np.uint8)


class Selection(NamedTuple):
    """The part of a dataset that is exported.

    name: name of the dataset. tasks: the exported tasks, by name. splits: names of the splits.
    entries: one for each row, split after split; they can be read only once.
    """

    name: str
    tasks: Mapping[str, Task]
    splits: Sequence[str]
    entries: Iterable[Entry]

    def by_split(self) -> Iterator[tuple[str, Iterator[Entry]]]:
        """Each split with its entries."""
        return groupby(self.entries, lambda entry: entry.split)

    def of_split(self, name: str, split: str) -> str:
        """The name of a file that each split has: with the split if there are several."""
        return f"{name}_{split}" if len(self.splits) > 1 else name


def file_name(identity: str) -> str:
    """A file name, without ending, for an id.

    Different ids have different names. The id is percent-encoded as in a URL, so the name has no
    dots, slashes or spaces. A name that is too long is cut. It then gets `~` and a hash, as does an
    empty name; other names have no `~`.
    """
    name = quote(identity, safe="").replace(".", "%2E").replace("~", "%7E")
    if 0 < len(name) <= LONGEST:
        return name
    ending = "~" + hashlib.sha256(identity.encode()).hexdigest()
    return name[: LONGEST - len(ending)] + ending


def check_ids(sources: Iterable[Dataset]) -> None:
    """Check that each id of a dataset can name its own files.

    Args:
        sources: the splits of the dataset.

    Raises:
        InputError: if two rows have the same id.
    """
    rows: dict[str, int] = {}
    for source in sources:
        for row, identity in enumerate(source.ids):
            if identity in rows:
                raise InputError(
                    f"dataset {source.name}: rows {rows[identity]} and {row} have the same id"
                    f" {identity!r}, so their files would have the same names"
                )
            rows[identity] = row


def entries(
    source: Dataset,
    tasks: Mapping[str, Task],
    rows: Iterable[int] | None = None,
    split: str = TRAIN,
) -> Iterator[Entry]:
    """Rows of a dataset with the maps of some tasks.

    Args:
        source: the dataset.
        tasks: the tasks.
        rows: indices of the rows; None is all.
        split: name of their split.

    Raises:
        InputError: if a picture cannot be read, or has another size than its image.
    """
    for index in range(len(source)) if rows is None else rows:
        try:
            yield _entry(source.stored(index), source.identity(index), split, tasks)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            identity = source.identity(index)
            raise InputError(f"dataset {source.name}: row {identity!r}: {error}") from error


def _entry(row: Mapping[str, Any], identity: str, split: str, tasks: Mapping[str, Task]) -> Entry:
    image, size = _as_png(row["image"], decode_rgb, encode_png)
    maps: dict[str, bytes] = {}
    confidence: dict[str, bytes] = {}
    for name, task in tasks.items():
        for stored, family, files in (
            (row[name], task.family, maps),
            (row["confidence"][name], CONFIDENCE, confidence),
        ):
            if stored is None:
                continue
            files[name], own_size = _as_png(stored, family.from_png, family.to_png)
            if own_size != size:
                raise ValueError(f"{name} is {_sides(own_size)}, its image {_sides(size)}")
        if name not in maps:
            blank = task.family.to_array(task.family.blank(size))
            maps[name] = task.family.to_png(blank)
    facts = {
        "id": identity,
        "caption": row["caption"],
        "quality": {name: row["quality"][name] for name in tasks},
        "provenance": row["provenance"],
    }
    return Entry(file_name(identity), split, size, image, maps, confidence, facts)


def _as_png(
    stored: Mapping[str, Any],
    decode: Callable[[bytes], NDArray[Any]],
    encode: Callable[[NDArray[Any]], bytes],
) -> tuple[bytes, Size]:
    """PNG bytes of a stored picture, and its size. Only other formats are encoded again."""
    data = stored_bytes(stored)
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        kind, (width, height) = picture.format, picture.size
        picture.verify()  # the file is copied without decoding, so check that it is complete
    return (data if kind == "PNG" else encode(decode(data))), (height, width)


def _sides(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def write_new(file: Path, data: bytes) -> None:
    """Write a new file. Its folder is made if necessary; an existing file is an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as opened:
        opened.write(data)
