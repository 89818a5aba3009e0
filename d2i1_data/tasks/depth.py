"""Depth along the optical axis."""

from ..diff2in1.families import MetricMap
from .meters import DepthError
from .task import Task

DEPTH = Task(
    name="depth",
    family=MetricMap(),
    meter=DepthError(),
    sentence=(
        "Depth along the optical axis, 16-bit PNG in millimetres, 0 is unknown (as is anything"
        " beyond 65.535 m)."
    ),
    tags=("depth",),
    categories=("depth-estimation",),
)
