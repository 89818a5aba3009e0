"""Saliency: the probability that a pixel belongs to an object that people look at."""

from ..diff2in1.families import ProbabilityMap
from .meters import FMeasure
from .task import Task

SALIENCY = Task(
    name="saliency",
    family=ProbabilityMap(),
    meter=FMeasure(),
    weight=5.0,  # InvPT and TaskPrompter, PASCAL-Context
    sentence="Probability of being salient, 8-bit PNG: `p = value / 254`, 255 is unknown.",
    tags=("saliency", "salient-object-detection"),
    categories=("image-segmentation",),
)
