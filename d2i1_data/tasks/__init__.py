"""The tasks, one file each. A new task is a file here and its name in `TASKS`."""

from .depth import DEPTH
from .edges import EDGES
from .human_parsing import HUMAN_PARSING
from .normals import NORMALS
from .saliency import SALIENCY
from .semseg import SEMSEG
from .task import Task

TASKS = {
    task.name: task
    for task in (
        NORMALS,
        DEPTH,
        SEMSEG,
        HUMAN_PARSING,
        SALIENCY,
        EDGES,
    )
}

__all__ = ["DEPTH", "EDGES", "HUMAN_PARSING", "NORMALS", "SALIENCY", "SEMSEG", "TASKS", "Task"]
