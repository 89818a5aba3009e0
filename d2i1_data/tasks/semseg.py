"""Semantic segmentation. A source names its own classes; the default are the 21 of PASCAL."""

from ..diff2in1.families import LabelMap
from .meters import IntersectionOverUnion
from .task import Task

PASCAL = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep"),
    *("sofa", "train", "tv monitor"),
)

SEMSEG = Task(
    name="semseg",
    family=LabelMap(PASCAL),
    meter=IntersectionOverUnion(len(PASCAL)),
    sentence="Semantic class ids, 8-bit PNG, 255 is unknown; their names are listed below.",
    tags=("semantic-segmentation",),
    categories=("image-segmentation",),
)
