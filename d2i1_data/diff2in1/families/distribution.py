"""Distributions: counts of the values in many maps of one family. Their size is fixed.

This file counts; `inspection.report` draws the counts. Three kinds are enough for all families:
`ClassShares`, `Histogram` and `DirectionDensity`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray


class TableLine(NamedTuple):
    """A line of a distribution's table.

    name: name of the line. values: one number for each column. form: format of the numbers.
    """

    name: str
    values: list[float]
    form: str


class Distribution(ABC):
    """Counts of the known pixels of maps.

    columns: headings of its table. about: one sentence that explains the figure. maps: number of
    maps that were counted.
    """

    columns: ClassVar[tuple[str, ...]] = ("",)
    about: str
    maps = 0

    def add(self, array: NDArray[Any]) -> None:
        """Count a map, given as an array of its family."""
        self.maps += 1
        self.count(array)

    @abstractmethod
    def count(self, array: NDArray[Any]) -> None:
        """Count the known pixels of a map."""

    @abstractmethod
    def lines(self) -> list[TableLine]:
        """The table of the counts."""


class ClassShares(Distribution):
    """Share of the known pixels of each class, and share of the images that contain it.

    Args:
        names: names of the classes. Pixel values are their indices; other values are unknown.
    """

    columns = ("pixels", "images")
    about = "Share of the known pixels of each class."

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.pixels = np.zeros(len(names), np.int64)
        self.images = np.zeros(len(names), np.int64)

    def count(self, array: NDArray[Any]) -> None:
        counts = np.bincount(array.ravel(), minlength=256)[: len(self.pixels)]
        self.pixels += counts
        self.images += counts > 0

    def shares(self) -> NDArray[np.float64]:
        """Share of the known pixels of each class, [K]."""
        return self.pixels / max(self.pixels.sum(), 1)

    def lines(self) -> list[TableLine]:
        images = self.images / max(self.maps, 1)
        lines = zip(self.names, self.shares(), images, strict=True)
        return [TableLine(name, [float(p), float(n)], "{:.1%}") for name, p, n in lines]


@dataclass(kw_only=True)
class Histogram(Distribution):
    """How often each value occurs.

    Args:
        unknown: the value of unknown pixels.
        start: lower edge of the first bin.
        step: width of a bin; values beyond the last bin count in it.
        bins: number of bins.
        axis: label of the axis of values in a figure.
        about: one sentence that explains the figure.
        unit: a word such as `metre` draws the share per unit; None draws the share of each bin.
        percentiles: the table lists these percentiles, given as shares; if empty, the mean.
        form: format of the numbers in the table.
        drawn: share of the pixels that a figure shows, beginning with the lowest values.
        logarithmic: whether a figure has a logarithmic axis of shares.
    """

    unknown: float
    start: float
    step: float
    bins: int
    axis: str
    about: str
    unit: str | None = None
    percentiles: tuple[float, ...] = ()
    form: str = "{:.4f}"
    drawn: float = 1.0
    logarithmic: bool = False

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.bins, np.int64)
        self.total = 0.0

    def count(self, array: NDArray[Any]) -> None:
        known = array[array != self.unknown]
        # rounding can put a stored value just below the edge of its bin
        places = ((known - self.start) / self.step + 1e-3).astype(np.int64)
        self.counts += np.bincount(places.clip(0, self.bins - 1), minlength=self.bins)
        self.total += float(known.sum(dtype=np.float64))

    def percentile(self, share: float) -> float:
        """The value below which this share of the pixels lies."""
        total = self.counts.cumsum()
        return self.start + float(np.searchsorted(total, share * total[-1]) + 0.5) * self.step

    def lines(self) -> list[TableLine]:
        if not self.percentiles:
            mean = self.total / max(int(self.counts.sum()), 1)
            return [TableLine("mean", [mean], self.form)]
        return [
            TableLine(f"{share:.0%} below", [self.percentile(share)], self.form)
            for share in self.percentiles
        ]


class DirectionDensity(Distribution):
    """Density of unit vectors on the sphere; unknown is (0, 0, 0)."""

    about = (
        "Density of directions. Equal areas are equal solid angles. Directions towards the camera"
        " are in the middle, upward directions are above it; a ring marks an angle to the camera."
    )
    bins = 90
    cuts = np.linspace(-np.sqrt(2), np.sqrt(2), bins + 1)

    def __init__(self) -> None:
        self.counts = np.zeros((self.bins, self.bins), np.int64)
        self.total = np.zeros(3)
        self.pixels = 0

    def count(self, array: NDArray[Any]) -> None:
        known = array[np.any(array != 0, -1)].astype(np.float64)
        x, y, z = known.T
        # Lambert's azimuthal projection: radius 1 at 90 degrees, sqrt(2) at 180 degrees
        stretch = np.sqrt(np.clip(1 - z, 0, None)) / np.maximum(np.hypot(x, y), 1e-9)
        counts = np.histogram2d(y * stretch, x * stretch, (self.cuts, self.cuts))[0]
        self.counts += counts.astype(np.int64)
        self.total += known.sum(0)
        self.pixels += len(known)

    def density(self) -> NDArray[np.float64]:
        """Frequency compared with evenly distributed directions, [bins, bins]."""
        of_the_sphere = (self.cuts[1] - self.cuts[0]) ** 2 / (2 * np.pi)
        return self.counts / (max(self.pixels, 1) * of_the_sphere)

    def lines(self) -> list[TableLine]:
        mean = (self.total / max(self.pixels, 1)).tolist()
        axes = ("right", "up", "towards the viewer")
        lines = zip(axes, mean, strict=True)
        return [TableLine(f"mean, {axis}", [value], "{:+.3f}") for axis, value in lines]
