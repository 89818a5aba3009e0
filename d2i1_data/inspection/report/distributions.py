"""Figures of distributions: the labels of a dataset, beside the labels of its source.

`diff2in1.families.distribution` counts the labels. This file has a figure for each kind of count.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...diff2in1.families import ClassShares, DirectionDensity, Distribution, Histogram

WIDTH = 7.2  # inches; text in figures then has the same size as text on the page
MOST_CLASSES = 24  # classes in a figure; the table lists all
DRAWN_BINS = 80


def draw(distributions: Mapping[str, Distribution]) -> Figure:
    """Draw distributions of one kind in one figure.

    Args:
        distributions: label, such as `dataset` or `source` -> distribution.
    """
    kind = type(next(iter(distributions.values())))
    return FIGURES[kind](distributions)


def _draw_classes(distributions: Mapping[str, ClassShares]) -> Figure:
    shares = {label: counts.shares() for label, counts in distributions.items()}
    largest = np.argsort(-sum(shares.values()), kind="stable")[:MOST_CLASSES]
    names = next(iter(distributions.values())).names
    figure, panel = _figure(0.26 * len(largest) + 0.7)
    thickness = 0.8 / len(shares)
    for n, (label, share) in enumerate(shares.items()):
        places = np.arange(len(largest)) + n * thickness
        panel.barh(places, 100 * share[largest], thickness, color=_colour(n), label=label)
    middle = np.arange(len(largest)) + 0.4 - thickness / 2
    # a dollar in a name must not begin a formula
    panel.set_yticks(middle, [_short(names[k]) for k in largest], parse_math=False)
    panel.invert_yaxis()
    panel.set_xlabel("% of the known pixels")
    finish(panel, len(shares) > 1)
    return figure


def _draw_histograms(distributions: Mapping[str, Histogram]) -> Figure:
    figure, panel = _figure(2.4)
    first = next(iter(distributions.values()))
    start, step, bins = first.start, first.step, first.bins
    end = start + bins * step
    if first.drawn < 1:
        end = max(counts.percentile(first.drawn) for counts in distributions.values())
    merged = max(1, round((end - start) / step / DRAWN_BINS))  # counted bins in one drawn bin
    count = round((end - start) / step) // merged
    edges = start + np.arange(count + 1) * merged * step
    scale = 1 / (merged * step) if first.unit else 100
    for n, (label, one) in enumerate(distributions.items()):
        shares = one.counts[: count * merged].reshape(count, merged).sum(1)
        values = shares / max(one.counts.sum(), 1) * scale
        # the first is filled, the others are lines over it
        colour = _colour(n) if n == 0 else "0.35"
        panel.stairs(values, edges, color=colour, fill=n == 0, label=label)
    panel.set(xlabel=first.axis, xlim=(start, end))
    panel.set_ylabel(f"share per {first.unit}" if first.unit else "% of the known pixels")
    if first.logarithmic:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    finish(panel, len(distributions) > 1)
    return figure


def _draw_directions(distributions: Mapping[str, DirectionDensity]) -> Figure:
    from matplotlib.colors import LogNorm

    figure = Figure((WIDTH, 3.3), layout="constrained")
    panels = figure.subplots(1, 2, squeeze=False)[0]
    for panel in panels[len(distributions) :]:
        panel.remove()
    edge, turn = DirectionDensity.cuts[-1], np.linspace(0, 2 * np.pi, 181)
    style: dict[str, Any] = {"norm": LogNorm(0.03, 100, clip=True), "cmap": "Blues"}
    style |= {"origin": "lower", "extent": (-edge, edge, -edge, edge)}
    for panel, (label, one) in zip(panels, distributions.items(), strict=False):
        picture = panel.imshow(np.ma.masked_equal(one.density(), 0), **style)
        for angle in (30, 60, 90, 180):
            radius = np.sqrt(1 - np.cos(np.radians(angle)))
            panel.plot(radius * np.cos(turn), radius * np.sin(turn), color="0.6", linewidth=0.6)
            if angle < 180:
                panel.text(0, -radius, f"{angle}°", fontsize=7, color="0.3", ha="center")
        panel.set_title(label, fontsize=9)
        panel.set_axis_off()
    bar = figure.colorbar(picture, ax=panels[: len(distributions)].tolist(), shrink=0.8)
    bar.set_label("times as often as evenly spread", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


FIGURES: dict[type[Distribution], Callable[[Any], Figure]] = {
    ClassShares: _draw_classes,
    Histogram: _draw_histograms,
    DirectionDensity: _draw_directions,
}


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _colour(n: int) -> str:
    return ("#1f5fa8", "#b9bec5", "#d9822b")[n]


def finish(panel: Axes, named: bool = True) -> None:
    """Set the style that all panels share.

    Args:
        panel: the panel.
        named: whether it needs a legend.
    """
    panel.tick_params(labelsize=8)
    panel.xaxis.label.set_fontsize(9)
    panel.yaxis.label.set_fontsize(9)
    panel.spines[["top", "right"]].set_visible(False)
    if named:
        panel.legend(frameon=False, fontsize=8)


def _short(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"
