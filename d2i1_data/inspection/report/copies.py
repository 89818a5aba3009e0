"""Near-copies: whether created images are variations of their sources or the sources themselves.

Images are compared by the mean over all pixels of the deepest level of their pyramid, minus the
mean over the source's images: without that every two images are alike, as what all images of a
source have in common is most of it. On rooms, created images then have cosines of 0.53 to 0.97 with
their own source and up to 0.73 with another (0.82 to 0.98, and 0.92, as they come); a source with
noise nobody sees has 0.999 with itself.
B batch, N created images, M source images, C channels.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...diff2in1.images import fit_longer_side, pad_to_stride, to_batches
from .distributions import WIDTH, finish

if TYPE_CHECKING:
    from ...diff2in1 import Diff2in1Pipeline

Array = NDArray[np.float64]


class Eye:
    """Sees images with a pipeline. side: the longer side that all are brought to."""

    def __init__(self, pipe: "Diff2in1Pipeline", side: int) -> None:
        self.pipe, self.side = pipe, side
        with torch.no_grad():
            self.context = pipe.perception_context()

    @torch.no_grad()
    def see(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """The mean-pooled deepest level of each image, [B, C]."""
        pipe, parts = self.pipe, []
        scaled = (fit_longer_side(one, self.side) for one in to_batches(list(images)))
        for _, same in groupby(scaled, lambda one: one.shape):
            pixels = torch.cat(list(same)).to(pipe.device)
            latents = pipe.encode_image(pad_to_stride(pixels, pipe.stride)).to(pipe.unet.dtype)
            seen = pipe.perception.see(pipe.unet, latents, self.context)
            parts.append(seen.pyramid[-1].float().mean((2, 3)).cpu())
        return torch.cat(parts)


class Pair(NamedTuple):
    """A created image and the source image it is nearest to: rows in what was compared."""

    created: int
    source: int
    cosine: float
    own: bool


class Copies(NamedTuple):
    """What comparing found. own [N]: cosine of each created image with its own source, nan if that
    is unknown; other [N]: with the nearest other one; among [M]: of each source image with the
    nearest other one. pairs: every created image with its nearest, the nearest pair first."""

    own: Array
    other: Array
    among: Array
    pairs: list[Pair]

    def named(self) -> dict[str, Array]:
        """The known cosines by what they are of."""
        found = {
            "created, own source": self.own,
            "created, nearest other source": self.other,
            "source, nearest other source": self.among,
        }
        return {name: values[~np.isnan(values)] for name, values in found.items()}

    def table(self, threshold: float) -> list[dict[str, Any]]:
        """Of each the median, the largest, and the share from a threshold on."""
        return [
            {
                "name": name,
                "median": float(np.median(values)),
                "largest": float(values.max()),
                "share": float((values >= threshold).mean()),
            }
            for name, values in self.named().items()
            if len(values)
        ]


def compare(created: Tensor, sources: Tensor, own: Sequence[int | None]) -> Copies:
    """Compare created images [N, C] with at least two of the source [M, C].

    own: which source image each is made from.
    """
    mean = sources.mean(0)
    one, other = F.normalize(created - mean, dim=1), F.normalize(sources - mean, dim=1)
    cosines, among = (one @ other.T).numpy(), (other @ other.T).numpy()
    np.fill_diagonal(among, -np.inf)
    nearest, pairs = cosines.argmax(1), []
    with_own = np.full(len(own), np.nan)
    for row, (at, mine) in enumerate(zip(nearest.tolist(), own, strict=True)):
        pairs.append(Pair(row, at, float(cosines[row, at]), at == mine))
        if mine is not None:
            with_own[row] = cosines[row, mine]
            cosines[row, mine] = -np.inf
    pairs.sort(key=lambda pair: -pair.cosine)
    return Copies(with_own, cosines.max(1).astype(float), among.max(1).astype(float), pairs)


def draw(copies: Copies, threshold: float) -> Figure:
    """How the cosines are distributed."""
    figure = Figure((WIDTH, 2.6), layout="constrained")
    panel = figure.subplots()
    styles: list[dict[str, Any]] = [
        {"color": "#1f5fa8", "fill": True, "alpha": 0.85},
        {"color": "#d9822b"},
        {"color": "0.5", "linestyle": "--"},
    ]
    found = copies.named()
    for (label, values), style in zip(found.items(), styles, strict=True):
        counts, edges = np.histogram(values, 80, (-1, 1))
        panel.stairs(100 * counts / max(len(values), 1), edges, label=label, **style)
    panel.axvline(threshold, color="#b3261e", linewidth=1)
    least = float(np.concatenate([*found.values()]).min())
    panel.set(xlabel="cosine", ylabel="% of the images", xlim=(least - 0.05, 1.02))
    finish(panel)
    return figure
