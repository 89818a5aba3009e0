"""Sparsification: how the error falls when the most uncertain pixels are left out.

Ilg et al. 2018, arXiv 1802.07095. Good uncertainty comes near the oracle, which leaves out the
largest errors first. Pixels are pooled and kept as sums in fixed bins, so samples and ranks merge
by addition.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...tasks import Task

BINS = 2**20  # 32 MB a task: within a thousandth of uncertainty there are still a hundred
# Uncertainty is binned by its logit: models are often almost sure, or sure of nothing, and even
# bins would be too wide there. Errors have all sizes and units: theirs are bins of the logarithm.
LOGIT = 16.0  # float32 ends there
DECADES = 6.0
STEPS = 20
KEPT = tuple((STEPS - step) / STEPS for step in range(STEPS))  # 1, 0.95, ... 0.05


class Curve(NamedTuple):
    """Mean error of the kept share of pixels, in the meter's unit; and of those an oracle keeps.

    ause: area between both over the share left out, in that unit; with nothing left both are 0, as
    in Poggi et al. 2020, arXiv 2005.06209.
    """

    kept: list[float]
    error: list[float]
    oracle: list[float]
    ause: float


class Sparsification:
    """Sums of each task, [4, BINS]: pixels and their errors by uncertainty, then both by error."""

    def __init__(self, names: Iterable[str]) -> None:
        self.sums = {name: torch.zeros(4, BINS, dtype=torch.float64) for name in names}

    def add(self, name: str, uncertainty: Tensor, error: Tensor, valid: Tensor) -> None:
        """Count pixels; uncertainty in [0, 1], error at least 0, maps of one shape."""
        weight = error[valid].double()
        unsure = uncertainty[valid].double().clamp(0, 1).logit().clamp(-LOGIT, LOGIT)
        size = weight.log10().clamp(-DECADES, DECADES)
        for row, place in ((0, unsure / LOGIT), (2, size / DECADES)):
            bins = ((place + 1) / 2 * BINS).long().clamp(0, BINS - 1)
            self.sums[name][row].index_add_(0, bins, torch.ones_like(weight))
            self.sums[name][row + 1].index_add_(0, bins, weight)


def curve(sums: Tensor) -> Curve:
    """The curves of one task's total; nan where no pixel was valid."""
    pixels, errors, pixels_by_error, errors_by_error = sums.numpy()
    error, oracle = _kept(pixels, errors), _kept(pixels_by_error, errors_by_error)
    ause = float((error - oracle).sum()) / STEPS  # trapezoids: at both ends the curves meet
    return Curve(list(KEPT), error.tolist(), oracle.tolist(), ause)


def _kept(pixels: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean error of the first pixels of each share; within a bin all count as its mean."""
    count, total = np.cumsum(pixels), np.cumsum(errors)
    if not count[-1]:
        return np.full(STEPS, math.nan)
    wanted = np.asarray(KEPT) * count[-1]
    return np.interp(wanted, np.append(0, count), np.append(0, total)) / wanted


def plot(panels: Mapping[str, Mapping[str, Curve]], tasks: Mapping[str, Task], file: Path) -> None:
    """Draw a panel for each task, in it the curve of each model and its oracle's, as a PNG."""
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure((3.4 * columns + 0.3, 2.7 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for panel in list(axes)[len(panels) :]:
        panel.remove()
    for panel, (name, curves) in zip(figure.axes, panels.items(), strict=True):
        for n, (label, one) in enumerate(curves.items()):
            out, colour = [100 * (1 - share) for share in one.kept], f"C{n}"
            told = f"{label}, AUSE {one.ause:.3g}"
            panel.plot(out, one.error, color=colour, linewidth=2, label=told)
            panel.plot(out, one.oracle, color=colour, linewidth=1, linestyle="--")
            panel.axhline(one.error[0], color=colour, linewidth=0.8, linestyle=":", alpha=0.6)
        panel.set_title(name, fontsize=10)
        panel.set_ylabel(f"mean error, {tasks[name].meter.unit}", fontsize=8)
        panel.set_xlabel("% most uncertain pixels left out", fontsize=8)
        panel.set(xlim=(0, 100), ylim=(0, None))
        panel.legend(frameon=False, fontsize=7)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    caption = "solid: by predicted uncertainty; dashed: by an oracle; dotted: without skill"
    figure.suptitle(caption, fontsize=8, color="0.3")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
