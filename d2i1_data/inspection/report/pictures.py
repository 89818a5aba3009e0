"""Pictures of a page: many small pictures on one sheet, so that a page has few files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...dataset.files import write_png
from ...dataset.preview import coloured
from ...dataset.sample import Sample
from ...diff2in1.families import CONFIDENCE
from ...tasks import Task

SIDE = 128  # pixels of a tile
COLUMNS = 8
ZOOM = 1.02  # hides the edge of the next tile, which rounding in browsers could show


class Tile(NamedTuple):
    """A picture on a sheet. style: the CSS that shows it as the background of a square."""

    label: str
    style: str


class Sheet:
    """Equal squares in rows of eight. Each holds a picture, which keeps its aspect ratio.

    Args:
        name: name of the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pictures: list[tuple[str, Image.Image]] = []

    def add(self, label: str, pixels: NDArray[np.uint8]) -> int:
        """Put a picture on the sheet.

        Args:
            label: caption of the picture.
            pixels: the picture, [H, W, 3].

        Returns:
            Its number on the sheet.
        """
        picture = Image.fromarray(pixels)
        factor = SIDE / max(picture.size)
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        # average when shrinking, keep sharp pixels when enlarging
        self.pictures.append((label, picture.resize(size, Image.Resampling.BOX)))
        return len(self.pictures) - 1

    @property
    def rows(self) -> int:
        return -(-len(self.pictures) // COLUMNS)

    def tiles(self, numbers: Sequence[int]) -> list[dict[str, str]]:
        """Labels and styles of pictures for the template. Call it after the last `add`."""
        return [self._tile(number)._asdict() for number in numbers]

    def _tile(self, number: int) -> Tile:
        row, column = divmod(number, COLUMNS)
        x, y = _centred(column, COLUMNS), _centred(row, self.rows)
        size = f"{100 * ZOOM * COLUMNS:.4g}% {100 * ZOOM * self.rows:.4g}%"
        style = f"background:url({self.name}) {x:.4f}% {y:.4f}%/{size}"
        return Tile(self.pictures[number][0], style)

    def save(self, folder: Path) -> None:
        """Write the sheet into a folder."""
        canvas = Image.new("RGB", (COLUMNS * SIDE, self.rows * SIDE), "white")
        for number, (_, picture) in enumerate(self.pictures):
            row, column = divmod(number, COLUMNS)
            left, top = column * SIDE, row * SIDE
            rest = (SIDE - picture.width) // 2, (SIDE - picture.height) // 2
            canvas.paste(picture, (left + rest[0], top + rest[1]))
        write_png(folder / self.name, canvas)


def _centred(place: int, count: int) -> float:
    """The CSS position, in percent, that centres a tile in its square."""
    return 100 * (0.5 - (place + 0.5) * ZOOM) / (1 - count * ZOOM)


def add_sample(
    sheet: Sheet, sample: Sample, source: Sample | None, tasks: Mapping[str, Task]
) -> list[int]:
    """Put a sample on a sheet: its source image, its image, its labels and their confidence.

    Args:
        sheet: the sheet.
        sample: the sample.
        source: the source image, None if unknown.
        tasks: the tasks whose labels are included.

    Returns:
        The numbers of the pictures on the sheet.
    """
    pictures: dict[str, NDArray[Any]] = {} if source is None else {"source": source.image}
    pictures["image"] = sample.image
    pictures |= {n: coloured(sample, n, task) for n, task in tasks.items() if n in sample.targets}
    pictures |= {f"{n}, confidence": CONFIDENCE.colorize(m) for n, m in sample.confidence.items()}
    return [sheet.add(label, pixels) for label, pixels in pictures.items()]
