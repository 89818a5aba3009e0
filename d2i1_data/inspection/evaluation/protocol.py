"""Protocol: which pixels of the truth a benchmark scores."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ...dataset.sample import Sample
from ...diff2in1.families import Family
from ...errors import InputError
from ...tasks import Task

CROP = re.compile(r"(\d+):(\d+),(\d+):(\d+)")


class Maps(NamedTuple):
    """What is compared of one task of one sample, [1, C, H, W] at the truth's size."""

    prediction: Tensor
    target: Tensor
    uncertainty: Tensor  # [1, 1, H, W]


class Crop(NamedTuple):
    """The pixels that are scored; bottom and right are the first that are not."""

    top: int
    bottom: int
    left: int
    right: int


def parse_crop(text: str | None) -> Crop | None:
    """`45:471,41:601`: rows, then columns."""
    if text is None:
        return None
    match = CROP.fullmatch(text)
    crop = Crop(*map(int, match.groups())) if match else Crop(0, 0, 0, 0)
    if crop.top >= crop.bottom or crop.left >= crop.right:
        raise InputError(f"--crop {text}: expected rows, then columns, such as 45:471,41:601")
    return crop


@dataclass(frozen=True)
class Protocol:
    """What is scored of every sample; None is everything.

    farthest: in metres; truth beyond is unknown, and predictions are clipped to it.
    """

    crop: Crop | None = None
    farthest: float | None = None

    def check(self, tasks: Mapping[str, Task]) -> None:
        """Refuse a distance that says nothing."""
        if self.farthest and not any(task.family.in_metres for task in tasks.values()):
            raise InputError(
                f"--farthest {self.farthest:g}: none of the tasks scored is measured in metres:"
                f" {', '.join(tasks)}"
            )

    def apply(self, family: Family, sample: Sample, maps: Maps) -> Maps:
        """What of a sample's maps is scored."""
        if self.farthest:
            near = family.within(maps.prediction, maps.target, self.farthest)
            maps = Maps(*near, maps.uncertainty)
        if self.crop is None:
            return maps
        (height, width), (top, bottom, left, right) = sample.size, self.crop
        if bottom > height or right > width:
            raise InputError(
                f"--crop {top}:{bottom},{left}:{right}: sample {sample.id} has {height} rows and"
                f" {width} columns"
            )
        return Maps(*(one[..., top:bottom, left:right] for one in maps))
