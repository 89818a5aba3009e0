"""Sparsification: how the error falls when the most uncertain pixels are left out.

Source: Ilg et al. 2018, arXiv 1802.07095. An oracle leaves out the largest errors first. With good
uncertainty, the error falls almost as fast as with the oracle. The pixels of all samples are added
in fixed bins, so samples and processes merge by addition.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...dataset.files import atomic_file
from ...tasks import Task

BINS = 2**20  # 32 MB for a task; an uncertainty interval of 0.001 still has a hundred bins
# Uncertainty is binned by its logit: many predictions are near 0 or 1, where equal bins would be
# too wide. Errors have any size and unit, so they are binned by their logarithm.
LOGIT = 16.0  # the largest logit of a probability in float32
DECADES = 6.0
STEPS = 20
KEPT = tuple((STEPS - step) / STEPS for step in range(STEPS))  # 1, 0.95, ... 0.05


class Curve(NamedTuple):
    """Sparsification curves of one task.

    kept: shares of the pixels that are kept. error: mean error of the pixels with the lowest
    uncertainty, in the unit of the meter. oracle: mean error of the pixels that an oracle keeps.
    ause: area between both curves over the share that is left out. Both curves end at 0 where
    nothing is kept, as in Poggi et al. 2020, arXiv 2005.06209.
    """

    kept: list[float]
    error: list[float]
    oracle: list[float]
    ause: float


class Sparsification:
    """Counts for the curves of each task.

    sums: for each task [4, BINS]: pixels and errors binned by uncertainty, then pixels and errors
    binned by error.

    Args:
        names: names of the tasks.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.sums = {name: torch.zeros(4, BINS, dtype=torch.float64) for name in names}

    def add(self, name: str, uncertainty: Tensor, error: Tensor, valid: Tensor) -> None:
        """Count pixels; all maps have the same shape.

        Args:
            name: name of the task.
            uncertainty: uncertainty of each pixel, in [0, 1].
            error: error of each pixel, at least 0, in the unit of the meter.
            valid: whether each pixel counts, bool.
        """
        weight = error[valid].double()
        unsure = uncertainty[valid].double().clamp(0, 1).logit().clamp(-LOGIT, LOGIT)
        size = weight.log10().clamp(-DECADES, DECADES)
        for row, place in ((0, unsure / LOGIT), (2, size / DECADES)):
            bins = ((place + 1) / 2 * BINS).long().clamp(0, BINS - 1)
            self.sums[name][row].index_add_(0, bins, torch.ones_like(weight))
            self.sums[name][row + 1].index_add_(0, bins, weight)


def curve(sums: Tensor) -> Curve:
    """Compute the curves of one task. They are nan if no pixel was valid.

    Args:
        sums: total of `Sparsification.sums` for the task, [4, BINS].
    """
    pixels, errors, pixels_by_error, errors_by_error = sums.numpy()
    error, oracle = _kept(pixels, errors), _kept(pixels_by_error, errors_by_error)
    ause = float((error - oracle).sum()) / STEPS  # trapezoids; the curves meet at both ends
    return Curve(list(KEPT), error.tolist(), oracle.tolist(), ause)


def _kept(pixels: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean error of the first pixels, for each share of `KEPT`. Bins are interpolated linearly."""
    count, total = np.cumsum(pixels), np.cumsum(errors)
    if not count[-1]:
        return np.full(STEPS, math.nan)
    kept = np.asarray(KEPT) * count[-1]
    return np.interp(kept, np.append(0, count), np.append(0, total)) / kept


def plot(panels: Mapping[str, Mapping[str, Curve]], tasks: Mapping[str, Task], file: Path) -> None:
    """Draw the curves and their oracles as a PNG, a panel for each task.

    Args:
        panels: task -> label of a model -> its curve.
        tasks: the tasks by name.
        file: the PNG.
    """
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
            text = f"{label}, AUSE {one.ause:.3g}"
            panel.plot(out, one.error, color=colour, linewidth=2, label=text)
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
    with atomic_file(file) as temporary:
        figure.savefig(temporary, dpi=120, format=file.suffix[1:] or "png")
