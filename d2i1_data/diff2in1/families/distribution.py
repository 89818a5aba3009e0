"""Distributions: what is counted of many maps of one family, in counts of fixed size.

Families say here what is counted; `inspection.report` draws it. Three kinds serve every family:
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

    name: of the line. values: one number for every column. form: how numbers are written.
    """

    name: str
    values: list[float]
    form: str


class Distribution(ABC):
    """Counts of the known pixels of maps.

    columns: heads of its table. about: one sentence that explains the figure. maps: how many maps
    were counted.
    """

    columns: ClassVar[tuple[str, ...]] = ("",)
    about: str
    maps = 0

    def add(self, array: NDArray[Any]) -> None:
        """Count a map, in the array form of its family."""
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
        names: of the classes; pixel values are their indices, all others are unknown.
    """

    columns = ("pixels", "images")
    about = "Share of the known pixels of each class."

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.pixels = np.zeros(len(names), np.int64)
        self.images = np.zeros(len(names), np.int64)

    def count(self, array: NDArray[Any]) -> None:
        found = np.bincount(array.ravel(), minlength=256)[: len(self.pixels)]
        self.pixels += found
        self.images += found > 0

    def shares(self) -> NDArray[np.float64]:
        """Share of the known pixels of each class, [K]."""
        return self.pixels / max(self.pixels.sum(), 1)

    def lines(self) -> list[TableLine]:
        images = self.images / max(self.maps, 1)
        found = zip(self.names, self.shares(), images, strict=True)
        return [TableLine(name, [float(p), float(n)], "{:.1%}") for name, p, n in found]


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
        unit: None draws the share of each bin; a word such as `metre` the share per unit.
        percentiles: shares whose percentiles are listed; empty lists the mean.
        form: how the listed numbers are written.
        drawn: share of the pixels that a figure shows, the lowest values first.
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
        # a stored value may lie a rounding error below the edge that it stands for
        places = ((known - self.start) / self.step + 1e-3).astype(np.int64)
        self.counts += np.bincount(places.clip(0, self.bins - 1), minlength=self.bins)
        self.total += float(known.sum(dtype=np.float64))

    def percentile(self, share: float) -> float:
        """The value that this share of the pixels is below."""
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
        found = np.histogram2d(y * stretch, x * stretch, (self.cuts, self.cuts))[0]
        self.counts += found.astype(np.int64)
        self.total += known.sum(0)
        self.pixels += len(known)

    def density(self) -> NDArray[np.float64]:
        """Frequency relative to directions that are spread evenly, [bins, bins]."""
        of_the_sphere = (self.cuts[1] - self.cuts[0]) ** 2 / (2 * np.pi)
        return self.counts / (max(self.pixels, 1) * of_the_sphere)

    def lines(self) -> list[TableLine]:
        mean = (self.total / max(self.pixels, 1)).tolist()
        axes = ("right", "up", "towards the viewer")
        found = zip(axes, mean, strict=True)
        return [TableLine(f"mean, {axis}", [one], "{:+.3f}") for axis, one in found]
