"""COCO: images, and panoptic, semantic and mask annotations of every task with classes.

Datasets have no instances: each class of an image is one "stuff" segment. The id of a category is
its class id + 1. Unknown pixels have no category. They are 0 in panoptic and 255 in semantic
pictures.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diff2in1.families import encode_png
from ..tasks import Task
from .entries import Entry, Selection, write_new
from .json_list import JsonList, write_object

PICTURES = ("panoptic", "semantic")


def write_coco(folder: Path, selection: Selection) -> None:
    """Write images/ and annotations/.

    For each task, annotations/ has panoptic_TASK.json with its pictures in panoptic_TASK/,
    stuff_TASK.json with one mask for each class, and pictures of class ids in semantic_TASK/. If
    there are several splits, each has its own: images/SPLIT/, panoptic_TASK_SPLIT.json and so on.

    Args:
        folder: an empty folder.
        selection: the samples. All tasks must have classes.
    """
    (folder / "annotations").mkdir()
    first = 1
    for split, entries in selection.by_split():
        first += _write_split(folder, selection, split, entries, first)


def _write_split(
    folder: Path, selection: Selection, split: str, entries: Iterator[Entry], first: int
) -> int:
    """Write the files of one split.

    Args:
        folder: folder of the export.
        selection: the samples.
        split: name of the split.
        entries: its samples.
        first: id of its first image. No two images of the export have the same id.

    Returns:
        The number of its images.
    """
    tasks, place = selection.tasks, folder / "annotations"
    pictures = folder / "images" / (split if len(selection.splits) > 1 else "")
    licences: dict[str, int] = {}
    with ExitStack() as stack:

        def new_list() -> JsonList:
            return JsonList(stack.enter_context(TemporaryFile("w+", dir=folder)))

        images, of_task = new_list(), {name: (new_list(), new_list()) for name in tasks}
        for number, entry in enumerate(entries, first):
            file, (height, width) = f"{entry.name}.png", entry.size
            write_new(pictures / file, entry.image)
            image = {"id": number, "file_name": file, "height": height, "width": width}
            licence = entry.facts["provenance"]["licence"]
            if licence is not None:
                image["license"] = licences.setdefault(licence, len(licences) + 1)
            images.add(image)
            for name, (panoptic, stuff) in of_task.items():
                ids = entry.classes(tasks[name])
                masks = list(_segments(ids))
                segments = [segment for segment, _ in masks]
                panoptic.add({"image_id": number, "file_name": file, "segments_info": segments})
                for segment, mask in masks:
                    annotation = {**segment, "id": len(stuff) + 1, "image_id": number}
                    stuff.add({**annotation, "segmentation": encode_mask(mask)})
                coded, plain = (selection.of_split(f"{k}_{name}", split) for k in PICTURES)
                write_new(place / coded / file, _panoptic_png(ids))
                write_new(place / plain / file, entry.maps[name])
        for name, lists in of_task.items():
            for kind, annotations in zip(("panoptic", "stuff"), lists, strict=True):
                content = {
                    "info": _info(selection.name, split),
                    "licenses": [{"id": n, "name": one, "url": ""} for one, n in licences.items()],
                    "images": images,
                    "annotations": annotations,
                    "categories": _categories(tasks[name]),
                }
                write_object(place / f"{selection.of_split(f'{kind}_{name}', split)}.json", content)
    return len(images)


def _info(name: str, split: str) -> dict[str, str]:
    made_by = f"diff2in1 {version('diff2in1')}"
    return {"description": f"{name}, split {split}", "version": "1.0", "contributor": made_by}


def _segments(ids: NDArray[np.uint8]) -> Iterator[tuple[dict[str, Any], NDArray[np.bool_]]]:
    """Every class of a map [H, W] as a COCO segment, with its mask."""
    for number in np.unique(ids[ids != 255]).tolist():
        mask = ids == number
        rows, columns = (np.flatnonzero(mask.any(axis)).tolist() for axis in (1, 0))
        left, top = columns[0], rows[0]
        box = [left, top, columns[-1] - left + 1, rows[-1] - top + 1]
        kind = number + 1
        segment = {"id": kind, "category_id": kind, "area": int(mask.sum()), "bbox": box}
        yield {**segment, "iscrowd": 0}, mask


def _panoptic_png(ids: NDArray[np.uint8]) -> bytes:
    """Segment ids, stored as R + 256 G + 256^2 B. Ids are at most 255, so G and B are 0."""
    segments = np.zeros((*ids.shape, 3), np.uint8)
    segments[..., 0] = np.where(ids == 255, 0, ids + 1)
    return encode_png(segments)


def _categories(task: Task) -> list[dict[str, Any]]:
    kinds = zip(task.family.names, task.family.palette, strict=True)
    return [
        {"id": n, "name": name, "supercategory": task.name, "isthing": 0, "color": list(colour)}
        for n, (name, colour) in enumerate(kinds, 1)
    ]


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encode a mask [H, W] as COCO's compressed run lengths. The result equals pycocotools'.

    Runs go down the columns. From the fourth run on, the difference to the run two places before
    is stored. A number is stored in groups of 5 bits, lowest bits first. The character of a group
    is 48 + its 5 bits, + 32 if another group follows.
    """
    line = mask.ravel(order="F")
    ends = [0] if line[0] else []  # the first run is outside the mask
    ends += [*(np.flatnonzero(line[1:] != line[:-1]) + 1).tolist(), line.size]
    runs = np.diff(ends, prepend=0).tolist()
    text = bytearray()
    for place, run in enumerate(runs):
        rest, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text.append(48 + bits + 32 * more)
    return {"size": list(mask.shape), "counts": text.decode()}
