"""Scores of single classes for a card, from the results of an evaluation."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from .text import Markdown, table

LEAST = 0.01  # smaller shares of the pixels of a class are left out


class ClassScores(NamedTuple):
    """The scores of the classes of one task.

    names: names of the classes. iou: IoU of each; nan if it does not occur. confusion: number of
    pixels, with a row for each true class and a column for each predicted class.
    """

    names: list[str]
    iou: list[float]
    confusion: list[list[int]]


def read_classes(content: Mapping[str, Any]) -> dict[str, ClassScores]:
    """Read the `classes` of results.

    Args:
        content: task -> its scores, as `d2i1 evaluate` writes them.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: if it has another form.
    """
    found = {}
    for task, own in content.items():
        iou = [math.nan if value is None else float(value) for value in own["iou"]]
        confusion = [[int(count) for count in row] for row in own["confusion"]]
        scores = ClassScores([str(name) for name in own["names"]], iou, confusion)
        sides = {len(iou), len(confusion), *map(len, confusion)}
        if sides != {len(scores.names)}:
            raise ValueError(f"{task}: {len(scores.names)} classes, other lengths {sorted(sides)}")
        found[str(task)] = scores
    return found


def class_table(task: str, scores: ClassScores) -> Markdown:
    """A row for each class: share of the pixels, IoU, and the classes predicted for its pixels."""
    total = sum(map(sum, scores.confusion)) or 1
    rows = []
    for name, iou, counts in zip(scores.names, scores.iou, scores.confusion, strict=True):
        own = sum(counts)
        shares = sorted(zip(counts, scores.names, strict=True), key=lambda pair: -pair[0])
        said = [f"{other} {n / own:.0%}" for n, other in shares if own and n / own >= LEAST]
        cells = [f"{own / total:.1%}", f"{iou:.4g}" if math.isfinite(iou) else ""]
        rows.append([name, *cells, ", ".join(said)])
    return table([task, "share of pixels", "IoU", "predicted as"], rows)
