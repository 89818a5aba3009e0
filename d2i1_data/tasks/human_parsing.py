"""Human parsing: the parts of the body, as in PASCAL-Context."""

from ..diff2in1.families import LabelMap
from .meters import IntersectionOverUnion
from .task import Task

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")

HUMAN_PARSING = Task(
    name="human_parsing",
    family=LabelMap(PARTS),
    meter=IntersectionOverUnion(len(PARTS)),
    weight=2.0,  # InvPT and TaskPrompter, PASCAL-Context
    sentence=(
        "Ids of body parts (the neck belongs to the torso, hands and feet to the lower limbs),"
        " 8-bit PNG, 255 is unknown; their names are listed below."
    ),
    tags=("human-parsing",),
    categories=("image-segmentation",),
)
