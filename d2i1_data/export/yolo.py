"""YOLO: images, and a text file of polygons for each image."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from .entries import Selection, write_new
from .polygons import polygons

logger = logging.getLogger(__name__)


def write_yolo(folder: Path, selection: Selection, *, min_region: int, outline: str) -> None:
    """Write images/SPLIT/, labels/SPLIT/ and data.yaml.

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
        write_new(folder / "images" / entry.split / f"{entry.name}.png", entry.image)
        write_new(folder / "labels" / entry.split / f"{entry.name}.txt", lines.encode())
    layout = {split: f"images/{split}" for split in selection.splits}
    if not {"val", "validation"} & layout.keys():
        logger.warning(
            "data.yaml has no `val`, which Ultralytics needs to train: export again with"
            " --splits train=0.9,val=0.1"
        )
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
