"""Entries: the rows of a dataset as files, their pictures not decoded where nobody needs that."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..dataset.schema import decode_rgb, stored_bytes
from ..diff2in1.families import CONFIDENCE, encode_png
from ..errors import InputError
from ..sources.dataset import Dataset
from ..sources.resize import Size
from ..tasks import Task

LONGEST = 128  # characters of a file name; systems allow 255 bytes with the endings


class Entry(NamedTuple):
    """A row as files: `image`, `maps` and `confidence` are PNG bytes, as stored if they were PNG.

    name: of its files, without ending; no other row has it. size: height and width in pixels.
    maps: of every exported task, all unknown where the row has none. facts: what is no picture.
    """

    name: str
    size: Size
    image: bytes
    maps: dict[str, bytes]
    confidence: dict[str, bytes]
    facts: dict[str, Any]

    def classes(self, task: Task) -> NDArray[np.uint8]:
        """Class ids of a label map, 255 unknown, [H, W]; InputError for other values."""
        ids = task.family.from_png(self.maps[task.name])
        problem = task.family.find_problem(ids)
        if problem:
            raise InputError(f"row {self.facts['id']!r}: {task.name} {problem}")
        return ids.astype(np.uint8)


class Selection(NamedTuple):
    """What is exported: name of the dataset, its tasks, and an entry a row, to be read once."""

    name: str
    tasks: Mapping[str, Task]
    entries: Iterable[Entry]


def file_name(identity: str) -> str:
    """An id as a file name without ending: no dots, slashes or spaces, and no two ids share one.

    It is percent-encoded, as in an address. One that is empty or long is cut and gets `~` and a
    hash, and there is no `~` in others.
    """
    name = quote(identity, safe="").replace(".", "%2E").replace("~", "%7E")
    if 0 < len(name) <= LONGEST:
        return name
    ending = "~" + hashlib.sha256(identity.encode()).hexdigest()
    return name[: LONGEST - len(ending)] + ending


def check_ids(source: Dataset) -> None:
    """Refuse ids that cannot name files because two rows have the same."""
    seen: dict[str, int] = {}
    for row, identity in enumerate(source.ids):
        other = seen.setdefault(identity, row)
        if other != row:
            raise InputError(
                f"dataset {source.name}: rows {other} and {row} have the same id {identity!r},"
                " which names their files"
            )


def entries(source: Dataset, tasks: Mapping[str, Task]) -> Iterator[Entry]:
    """Every row of a dataset with the maps of these tasks; InputError for unusable pictures."""
    for index in range(len(source)):
        try:
            yield _entry(source.stored(index), source.identity(index), tasks)
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
            identity = source.identity(index)
            raise InputError(f"dataset {source.name}: row {identity!r}: {error}") from error


def _entry(row: Mapping[str, Any], identity: str, tasks: Mapping[str, Task]) -> Entry:
    image, size = _as_png(row["image"], decode_rgb, encode_png)
    maps: dict[str, bytes] = {}
    confidence: dict[str, bytes] = {}
    for name, task in tasks.items():
        for stored, family, held in (
            (row[name], task.family, maps),
            (row["confidence"][name], CONFIDENCE, confidence),
        ):
            if stored is None:
                continue
            held[name], found = _as_png(stored, family.from_png, family.to_png)
            if found != size:
                raise ValueError(f"{name} is {_sides(found)}, its image {_sides(size)}")
        if name not in maps:
            blank = task.family.to_array(task.family.blank(size))
            maps[name] = task.family.to_png(blank)
    facts = {
        "id": identity,
        "caption": row["caption"],
        "quality": {name: row["quality"][name] for name in tasks},
        "provenance": row["provenance"],
    }
    return Entry(file_name(identity), size, image, maps, confidence, facts)


def _as_png(
    stored: Mapping[str, Any],
    decode: Callable[[bytes], NDArray[Any]],
    encode: Callable[[NDArray[Any]], bytes],
) -> tuple[bytes, Size]:
    """PNG bytes of a stored picture, encoded again only if it is no PNG, and its size."""
    data = stored_bytes(stored)
    with Image.open(io.BytesIO(data)) as picture:
        kind, (width, height) = picture.format, picture.size
        picture.verify()  # that it is whole: what is copied is not decoded
    return (data if kind == "PNG" else encode(decode(data))), (height, width)


def _sides(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def write_new(file: Path, data: bytes) -> None:
    """Write a file that is not there yet, and its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as opened:
        opened.write(data)
