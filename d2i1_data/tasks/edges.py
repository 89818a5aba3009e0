"""Edges of objects. This task is an extension: the paper does not have it."""

from ..diff2in1.families import ProbabilityMap
from .meters import AveragePrecision
from .task import Task

EDGES = Task(
    name="edges",
    family=ProbabilityMap(),
    meter=AveragePrecision(),
    weight=5.0,
    sentence="Probability of an object edge, 8-bit PNG: `p = value / 254`, 255 is unknown.",
    tags=("edge-detection",),
)
