"""Distributions: what the maps of a dataset hold, beside those of its source.

One tally for every family of maps. It keeps counts of fixed size, whatever it is shown.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...diff2in1.families import Family, LabelMap, MetricMap, ProbabilityMap, UnitVector

WIDTH = 7.2  # inches of a figure, at which its letters have the size of the page's
SHOWN_CLASSES = 24


class Line(NamedTuple):
    """A line of a tally's table: its name, a number for every column, and how these are written."""

    name: str
    values: list[float]
    form: str


class Tally(ABC):
    """What is counted of the maps of one family. columns: of its table."""

    columns: ClassVar[tuple[str, ...]] = ("",)
    about: ClassVar[str]

    def __init__(self, family: Any) -> None:
        self.family = family
        self.maps = 0

    def add(self, array: NDArray[Any]) -> None:
        """Count a map."""
        self.maps += 1
        self.count(array)

    @abstractmethod
    def count(self, array: NDArray[Any]) -> None:
        """Count the known pixels of a map."""

    @abstractmethod
    def lines(self) -> list[Line]:
        """The table of what was counted."""

    @staticmethod
    @abstractmethod
    def draw(tallies: Mapping[str, Any]) -> Figure:
        """A figure of tallies by what they are of, such as dataset and source."""


class Classes(Tally):
    """Share of the known pixels of each class, and the images that hold it."""

    columns = ("pixels", "images")
    about = "Share of the known pixels of each class."

    def __init__(self, family: LabelMap) -> None:
        super().__init__(family)
        self.pixels = np.zeros(len(family.names), np.int64)
        self.images = np.zeros(len(family.names), np.int64)

    def count(self, array: NDArray[Any]) -> None:
        found = np.bincount(array.ravel(), minlength=256)[: len(self.pixels)]
        self.pixels += found
        self.images += found > 0

    def shares(self) -> NDArray[np.float64]:
        return self.pixels / max(self.pixels.sum(), 1)

    def lines(self) -> list[Line]:
        images = self.images / max(self.maps, 1)
        found = zip(self.family.names, self.shares(), images, strict=True)
        return [Line(name, [float(p), float(n)], "{:.1%}") for name, p, n in found]

    @staticmethod
    def draw(tallies: Mapping[str, Any]) -> Figure:
        shares = {label: tally.shares() for label, tally in tallies.items()}
        largest = np.argsort(-sum(shares.values()), kind="stable")[:SHOWN_CLASSES]
        names = next(iter(tallies.values())).family.names
        figure, panel = _figure(0.26 * len(largest) + 0.7)
        thickness = 0.8 / len(shares)
        for n, (label, share) in enumerate(shares.items()):
            places = np.arange(len(largest)) + n * thickness
            panel.barh(places, 100 * share[largest], thickness, color=_colour(n), label=label)
        middle = np.arange(len(largest)) + 0.4 - thickness / 2
        # a name is a name: a dollar in it begins no formula
        panel.set_yticks(middle, [_short(names[k]) for k in largest], parse_math=False)
        panel.invert_yaxis()
        panel.set_xlabel("% of the known pixels")
        finish(panel, len(shares) > 1)
        return figure


class Distances(Tally):
    """How often each distance occurs, to a centimetre."""

    about = "How often each distance occurs."
    step = 0.01

    def __init__(self, family: MetricMap) -> None:
        super().__init__(family)
        self.counts = np.zeros(round(family.farthest / self.step) + 1, np.int64)

    def count(self, array: NDArray[Any]) -> None:
        known = array[array > 0]
        # whole centimetres are stored a rounding error too near or too far
        bins = np.minimum((known / self.step + 1e-3).astype(np.int64), len(self.counts) - 1)
        self.counts += np.bincount(bins, minlength=len(self.counts))

    def percentile(self, share: float) -> float:
        """The distance that this share of the pixels is nearer than, in metres."""
        total = self.counts.cumsum()
        return float(np.searchsorted(total, share * total[-1]) + 0.5) * self.step

    def lines(self) -> list[Line]:
        shares = (0.05, 0.5, 0.95)
        return [Line(f"{s:.0%} nearer than", [self.percentile(s)], "{:.2f} m") for s in shares]

    @staticmethod
    def draw(tallies: Mapping[str, Any]) -> Figure:
        figure, panel = _figure(2.4)
        farthest = max(tally.percentile(0.995) for tally in tallies.values())
        width = max(1, round(farthest / Distances.step / 80))  # bins of the figure in those counted
        for n, (label, tally) in enumerate(tallies.items()):
            shown = tally.counts[: round(farthest / Distances.step) // width * width]
            counts = shown.reshape(-1, width).sum(1) / max(tally.counts.sum(), 1)
            edges = np.arange(len(counts) + 1) * width * Distances.step
            _step(panel, counts / (width * Distances.step), edges, n, label)
        panel.set(xlabel="metres", ylabel="share per metre", xlim=(0, farthest), ylim=(0, None))
        finish(panel, len(tallies) > 1)
        return figure


class Directions(Tally):
    """Density of directions on the sphere."""

    about = (
        "Density of directions, equal areas for equal solid angles: in the middle what faces the"
        " camera, above what faces up, on the rings what is turned away by so much."
    )
    bins = 90
    cuts = np.linspace(-np.sqrt(2), np.sqrt(2), bins + 1)

    def __init__(self, family: UnitVector) -> None:
        super().__init__(family)
        self.counts = np.zeros((self.bins, self.bins), np.int64)
        self.total = np.zeros(3)
        self.pixels = 0

    def count(self, array: NDArray[Any]) -> None:
        known = array[np.any(array != 0, -1)].astype(np.float64)
        x, y, z = known.T
        # Lambert's azimuthal projection: radius 1 at 90 degrees, the root of 2 straight away
        stretch = np.sqrt(np.clip(1 - z, 0, None)) / np.maximum(np.hypot(x, y), 1e-9)
        found = np.histogram2d(y * stretch, x * stretch, (self.cuts, self.cuts))[0]
        self.counts += found.astype(np.int64)
        self.total += known.sum(0)
        self.pixels += len(known)

    def density(self) -> NDArray[np.float64]:
        """Times as often as if all directions were equally frequent, [bins, bins]."""
        of_the_sphere = (self.cuts[1] - self.cuts[0]) ** 2 / (2 * np.pi)
        return self.counts / (max(self.pixels, 1) * of_the_sphere)

    def lines(self) -> list[Line]:
        mean = (self.total / max(self.pixels, 1)).tolist()
        axes = ("right", "up", "towards the viewer")
        return [
            Line(f"mean, {axis}", [one], "{:+.3f}") for axis, one in zip(axes, mean, strict=True)
        ]

    @staticmethod
    def draw(tallies: Mapping[str, Any]) -> Figure:
        from matplotlib.colors import LogNorm

        figure = Figure((WIDTH, 3.3), layout="constrained")
        panels = figure.subplots(1, 2, squeeze=False)[0]
        for panel in panels[len(tallies) :]:
            panel.remove()
        edge, turn = Directions.cuts[-1], np.linspace(0, 2 * np.pi, 181)
        style: dict[str, Any] = {"norm": LogNorm(0.03, 100, clip=True), "cmap": "Blues"}
        style |= {"origin": "lower", "extent": (-edge, edge, -edge, edge)}
        for panel, (label, tally) in zip(panels, tallies.items(), strict=False):
            picture = panel.imshow(np.ma.masked_equal(tally.density(), 0), **style)
            for angle in (30, 60, 90, 180):
                radius = np.sqrt(1 - np.cos(np.radians(angle)))
                panel.plot(radius * np.cos(turn), radius * np.sin(turn), color="0.6", linewidth=0.6)
                if angle < 180:
                    panel.text(0, -radius, f"{angle}°", fontsize=7, color="0.3", ha="center")
            panel.set_title(label, fontsize=9)
            panel.set_axis_off()
        bar = figure.colorbar(picture, ax=panels[: len(tallies)].tolist(), shrink=0.8)
        bar.set_label("times as often as evenly spread", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        return figure


class Probabilities(Tally):
    """How often each probability occurs, and the mean."""

    about = "How often each probability occurs."
    bins = 25

    def __init__(self, family: ProbabilityMap) -> None:
        super().__init__(family)
        self.counts = np.zeros(self.bins, np.int64)
        self.total = 0.0

    def count(self, array: NDArray[Any]) -> None:
        known = array[array >= 0]
        self.counts += np.histogram(known, self.bins, (0, 1))[0]
        self.total += float(known.sum(dtype=np.float64))

    def lines(self) -> list[Line]:
        return [Line("mean", [self.total / max(int(self.counts.sum()), 1)], "{:.4f}")]

    @staticmethod
    def draw(tallies: Mapping[str, Any]) -> Figure:
        figure, panel = _figure(2.4)
        for n, (label, tally) in enumerate(tallies.items()):
            shares = 100 * tally.counts / max(tally.counts.sum(), 1)
            _step(panel, shares, np.linspace(0, 1, Probabilities.bins + 1), n, label)
        panel.set(xlabel="probability", ylabel="% of the known pixels", yscale="log", xlim=(0, 1))
        finish(panel, len(tallies) > 1)
        return figure


TALLIES: dict[str, type[Tally]] = {
    LabelMap.name: Classes,
    MetricMap.name: Distances,
    UnitVector.name: Directions,
    ProbabilityMap.name: Probabilities,
}


def make_tally(family: Family) -> Tally:
    """An empty tally for maps of a family."""
    return TALLIES[family.name](family)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _colour(n: int) -> str:
    return ("#1f5fa8", "#b9bec5", "#d9822b")[n]


def _step(panel: Axes, values: Any, edges: Any, n: int, label: str) -> None:
    """A histogram: the first filled, others as lines over it."""
    panel.stairs(values, edges, color=_colour(n) if n == 0 else "0.35", fill=n == 0, label=label)


def finish(panel: Axes, named: bool = True) -> None:
    """What all panels have in common. named: whether they need a legend."""
    panel.tick_params(labelsize=8)
    panel.xaxis.label.set_fontsize(9)
    panel.yaxis.label.set_fontsize(9)
    panel.spines[["top", "right"]].set_visible(False)
    if named:
        panel.legend(frameon=False, fontsize=8)


def _short(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"
