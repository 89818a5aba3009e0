"""YOLO: images, and a text file of polygons for each image."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from .entries import Selection, write_new
from .polygons import polygons


def write_yolo(folder: Path, selection: Selection, *, min_region: int, outline: str) -> None:
    """Write images/train/, labels/train/ and data.yaml.

    A line is a connected region: its class, then x and y of its corners as shares of the sides.
    Unknown pixels are in no region.

    Args:
        folder: an empty folder.
        selection: the samples, with one task that has classes.
        min_region: regions with fewer pixels are left out.
        outline: `exact`, or `pixels` for polygons through the outer pixels.
    """
    (task,) = selection.tasks.values()
    for entry in selection.entries:
        lines = "".join(_lines(entry.classes(task), min_region, outline))
        write_new(folder / "images/train" / f"{entry.name}.png", entry.image)
        write_new(folder / "labels/train" / f"{entry.name}.txt", lines.encode())
    # readers need both splits; the user may change `val`
    layout = {"train": "images/train", "val": "images/train"}
    names = dict(enumerate(task.family.names))
    text = yaml.safe_dump({**layout, "names": names}, sort_keys=False)
    write_new(folder / "data.yaml", text.encode())


def _lines(ids: NDArray[np.uint8], min_region: int, outline: str) -> Iterator[str]:
    sides = ids.shape[::-1]
    for number in np.unique(ids[ids != 255]):
        for corners, area in polygons(ids == number):
            if area < min_region:
                continue
            if outline == "pixels":
                corners = np.floor(corners) + 0.25  # the same pixel whether rounded or cut
            shares = " ".join(f"{share:.6f}" for share in (corners / sides).ravel())
            yield f"{number} {shares}\n"
