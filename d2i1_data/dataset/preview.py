"""Preview pictures: images beside their labels in colours."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..tasks import Task
from .sample import Sample

LONGER_SIDE = 192
PREVIEW = "preview.png"  # beside the card of a dataset or checkpoint


def preview(samples: Sequence[Sample], tasks: Mapping[str, Task]) -> Image.Image:
    """A picture with a row for each sample: the image, then its map of each task.

    Args:
        samples: at least one.
        tasks: the columns; a map that a sample lacks is black.
    """
    return grid(
        [[s.image, *(coloured(s, name, task) for name, task in tasks.items())] for s in samples]
    )


def coloured(sample: Sample, name: str, task: Task) -> NDArray[np.uint8]:
    """The map of a sample as a picture `[H, W, 3]`, black if it has none."""
    if name not in sample.targets:
        return np.zeros_like(sample.image)
    return task.family.colorize(sample.targets[name])


def grid(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> Image.Image:
    """Pictures in rows and columns, 2 pixels apart.

    Args:
        rows: pictures `[H, W, 3]`; each is scaled to a longer side of 192 pixels.
    """
    scaled = [[_scaled(picture) for picture in row] for row in rows]
    gap = 2
    widths = [max(p.width for p in column) for column in zip(*scaled, strict=True)]
    heights = [max(p.height for p in row) for row in scaled]
    size = (sum(widths) + gap * (len(widths) - 1), sum(heights) + gap * (len(heights) - 1))
    canvas = Image.new("RGB", size, "white")
    for i, row in enumerate(scaled):
        for j, picture in enumerate(row):
            left, top = sum(widths[:j]) + gap * j, sum(heights[:i]) + gap * i
            canvas.paste(picture, (left, top))
    return canvas


def _scaled(pixels: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(pixels)
    factor = LONGER_SIDE / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.NEAREST)
