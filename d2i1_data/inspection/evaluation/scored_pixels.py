"""Scored pixels: the pixels of the truth that a benchmark counts."""

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
    """The maps that are compared for a task of a sample, [1, C, H, W] at the size of the truth."""

    prediction: Tensor
    target: Tensor
    uncertainty: Tensor  # [1, 1, H, W]


class Crop(NamedTuple):
    """A rectangle of pixels. Bottom and right are the first row and column outside of it."""

    top: int
    bottom: int
    left: int
    right: int


def parse_crop(text: str | None) -> Crop | None:
    """Read the text of a `--crop`.

    Args:
        text: rows, then columns, such as `45:471,41:601`; None is no crop.

    Raises:
        InputError: if the text has another form, or the crop is empty.
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
    """The pixels that are scored. The default are all pixels with known truth.

    Args:
        crop: only this rectangle is scored; None scores all pixels.
        farthest: distance in metres. Truth beyond it is unknown, and predictions are clipped to it.
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
                f"--farthest {self.farthest:g}: none of the scored tasks is measured in metres:"
                f" {', '.join(tasks)}"
            )

    def apply(self, family: Family, sample: Sample, maps: ScoredMaps) -> ScoredMaps:
        """Cut the maps of a sample to the scored part.

        Args:
            family: family of the maps.
            sample: the sample, for its size and for errors.
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
        return ScoredMaps(*(pixels[..., top:bottom, left:right] for pixels in maps))
