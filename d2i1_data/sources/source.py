"""Source: a sequence of samples with known tasks. How images are brought to a working size."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..dataset.sample import Sample
from ..errors import InputError
from ..tasks import Task

Size = tuple[int, int]


class Source(Protocol):
    """What every source offers.

    notes: counts of what was done to its data, such as resized maps. has_images: False where there
    are captions alone, and images of one blank pixel until a resolution is given. fingerprint: of
    what it is told to read and how, so that a plan knows it again; not of every image.
    """

    name: str
    notes: dict[str, int]
    has_images: bool
    fingerprint: str

    @property
    def tasks(self) -> Mapping[str, Task]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]: ...

    def identity(self, index: int) -> str:
        """The id of a sample, without reading it."""
        ...

    def picture(self, index: int) -> Sample:
        """A sample without its targets, which are not read."""
        ...


class Rows(NamedTuple):
    """Which rows of a source are used, and why others cannot be."""

    source: Source
    usable: list[int]
    skipped: dict[str, str]

    def samples(self) -> Iterator[Sample]:
        """The usable samples in order."""
        return (self.source[row] for row in self.usable)


def usable_rows(source: Source, limit: int | None = None, on_bad_row: str = "stop") -> Rows:
    """The first rows of a source; `skip` reads each row once and leaves unusable ones out."""
    rows = Rows(source, list(range(len(source)))[:limit], {})
    if on_bad_row == "skip":
        for index in list(rows.usable):
            try:
                source[index]
            except InputError as error:
                rows.skipped[source.identity(index)] = str(error)
                rows.usable.remove(index)
    if not rows.usable:
        raise InputError(f"source {source.name}: no usable sample among {len(source)}")
    return rows


def evenly_spaced(count: int, limit: int) -> list[int]:
    """At most `limit` of the numbers below `count`, evenly_spaced evenly."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()


def agreeing_tasks(tasks: Mapping[str, Task], owner: str, source: Source) -> dict[str, Task]:
    """Those of the owner's tasks that the source has truth for; their classes must be the same."""
    common = {name: task for name, task in tasks.items() if name in source.tasks}
    if not common:
        raise InputError(
            f"source {source.name} has labels of {', '.join(source.tasks) or 'nothing'},"
            f" {owner} has {', '.join(tasks)}"
        )
    for name, task in common.items():
        if task.family.config() != source.tasks[name].family.config():
            raise InputError(f"{name}: the source {source.name} has other classes than {owner}")
    return common


def write_report(file: Path, *parts: Rows) -> None:
    """List the skipped rows of these sources, if there are any."""
    skipped = {key: why for rows in parts for key, why in rows.skipped.items()}
    file.unlink(missing_ok=True)
    if skipped:
        file.write_text(json.dumps(skipped, indent=2) + "\n")


def parse_resolution(text: str | None) -> int | Size | None:
    """`512`: the longer side, aspect kept. `480x640`: height x width, cut to that aspect first."""
    if text is None:
        return None
    parts = text.split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise InputError(f"resolution {text!r}: expected a number such as 512, or 480x640")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


class Resized:
    """A source at another resolution: images filtered (Lanczos), targets nearest."""

    def __init__(self, source: Source, resolution: int | Size) -> None:
        self.source, self.resolution = source, resolution
        self.name, self.tasks, self.notes = source.name, source.tasks, source.notes
        self.has_images, self.fingerprint = source.has_images, source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def identity(self, index: int) -> str:
        return self.source.identity(index)

    def __getitem__(self, index: int) -> Sample:
        return self._resized(self.source[index])

    def picture(self, index: int) -> Sample:
        return self._resized(self.source.picture(index))

    def _resized(self, sample: Sample) -> Sample:
        box, size = _crop(sample.size, self.resolution)
        image = Image.fromarray(sample.image).crop(box).resize(size[::-1], Image.Resampling.LANCZOS)

        def brought(maps: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {name: nearest(_cut(one, box), size) for name, one in maps.items()}

        targets, confidence = brought(sample.targets), brought(sample.confidence)
        return replace(sample, image=np.asarray(image), targets=targets, confidence=confidence)


def fingerprint(*parts: object) -> str:
    """sha256 of what a source is told to read."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def nearest(pixels: NDArray[np.generic], size: Size) -> NDArray[np.generic]:
    """Resize a map without mixing pixels."""
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(size, pixels.shape, strict=False))
    return pixels[rows.astype(int)[:, None], columns.astype(int)]


def _crop(size: Size, resolution: int | Size) -> tuple[tuple[int, int, int, int], Size]:
    """The box to keep (left, top, right, bottom) and the size to bring it to."""
    height, width = size
    if isinstance(resolution, int):
        scale = resolution / max(size)
        return (0, 0, width, height), (max(1, round(height * scale)), max(1, round(width * scale)))
    aspect = resolution[1] / resolution[0]
    h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h), resolution


def _cut(pixels: NDArray[np.generic], box: tuple[int, int, int, int]) -> NDArray[np.generic]:
    left, top, right, bottom = box
    return pixels[top:bottom, left:right]
