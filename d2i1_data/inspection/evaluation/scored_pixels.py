"""Scored pixels: which pixels of the truth a benchmark counts."""

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


class ScoredMaps(NamedTuple):
    """The maps of one task of one sample that are compared, [1, C, H, W] at the truth's size."""

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
    """Read a `--crop`.

    Args:
        text: rows, then columns, such as `45:471,41:601`; None is no crop.

    Raises:
        InputError: if it is no such text, or an empty crop.
    """
    if text is None:
        return None
    match = CROP.fullmatch(text)
    crop = Crop(*map(int, match.groups())) if match else Crop(0, 0, 0, 0)
    if crop.top >= crop.bottom or crop.left >= crop.right:
        raise InputError(f"--crop {text}: expected rows, then columns, such as 45:471,41:601")
    return crop


@dataclass(frozen=True)
class ScoredPixels:
    """The pixels that are scored; by default all whose truth is known.

    Args:
        crop: the rectangle that is scored, None for all.
        farthest: in metres; truth beyond is unknown, and predictions are clipped to it.
    """

    crop: Crop | None = None
    farthest: float | None = None

    def check(self, tasks: Mapping[str, Task]) -> None:
        """Refuse a distance that has no effect.

        Raises:
            InputError: if none of the tasks is measured in metres.
        """
        if self.farthest and not any(task.family.in_metres for task in tasks.values()):
            raise InputError(
                f"--farthest {self.farthest:g}: none of the tasks scored is measured in metres:"
                f" {', '.join(tasks)}"
            )

    def apply(self, family: Family, sample: Sample, maps: ScoredMaps) -> ScoredMaps:
        """The part of a sample's maps that is scored.

        Args:
            family: of the maps.
            sample: whose maps they are.
            maps: prediction, truth and uncertainty.

        Raises:
            InputError: if the crop is larger than the sample.
        """
        if self.farthest:
            near = family.within(maps.prediction, maps.target, self.farthest)
            maps = ScoredMaps(*near, maps.uncertainty)
        if self.crop is None:
            return maps
        (height, width), (top, bottom, left, right) = sample.size, self.crop
        if bottom > height or right > width:
            raise InputError(
                f"--crop {top}:{bottom},{left}:{right}: sample {sample.id} has {height} rows and"
                f" {width} columns"
            )
        return ScoredMaps(*(one[..., top:bottom, left:right] for one in maps))
