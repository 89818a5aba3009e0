"""Surface normals."""

from ..diff2in1.families import UnitVector
from .meters import AngularError
from .task import Task

NORMALS = Task(
    name="normals",
    family=UnitVector(),
    meter=AngularError(),
    sentence=(
        "Surface normals in the camera frame (+x right, +y up, +z towards the viewer), 8-bit RGB"
        " PNG: `n = rgb / 127.5 - 1`, black is unknown. A mirrored image needs x negated."
    ),
    tags=("surface-normals", "normals-estimation"),
)
