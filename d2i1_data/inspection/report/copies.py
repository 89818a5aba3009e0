"""Near-copies: whether created images are variations of their sources or the sources themselves.

Images are compared by the cosine of their features: the mean over all pixels of the deepest level
of their pyramid, minus the mean over the images of the source. Without that subtraction all images
of a source are similar, because most of their features is common to all. On rooms, created images
then have cosines of 0.53 to 0.97 with their own source and up to 0.73 with another (without it 0.82
to 0.98, and 0.92). A source image with invisible noise has 0.999 with itself.
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


class FeatureExtractor:
    """Features of images, from the U-Net of a pipeline.

    Args:
        pipe: the pipeline.
        side: the longer side, in pixels, that all images are brought to.
    """

    def __init__(self, pipe: "Diff2in1Pipeline", side: int) -> None:
        self.pipe, self.side = pipe, side
        with torch.no_grad():
            self.conditioning = pipe.perception_conditioning()

    @torch.no_grad()
    def extract(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """The mean-pooled deepest level of the pyramid of each image, [B, C].

        Args:
            images: pixels [H, W, 3]; sizes may differ.
        """
        pipe, parts = self.pipe, []
        scaled = (fit_longer_side(one, self.side) for one in to_batches(list(images)))
        for _, same in groupby(scaled, lambda one: one.shape):
            pixels = torch.cat(list(same)).to(pipe.device)
            latents = pipe.encode_image(pad_to_stride(pixels, pipe.stride)).to(pipe.unet.dtype)
            result = pipe.perception.run_unet(pipe.unet, latents, self.conditioning)
            parts.append(result.pyramid[-1].float().mean((2, 3)).cpu())
        return torch.cat(parts)


class Pair(NamedTuple):
    """A created image and its nearest source image.

    created, source: their rows among the images compared. own: whether it is the image that the
    created one was made from.
    """

    created: int
    source: int
    cosine: float
    own: bool


class Copies(NamedTuple):
    """The result of a comparison.

    own: cosine of each created image with its own source, nan if that is unknown, [N]. other: with
    the nearest other source image, [N]. among: of each source image with the nearest other one,
    [M]. pairs: every created image with its nearest source image, the nearest pair first.
    """

    own: Array
    other: Array
    among: Array
    pairs: list[Pair]

    def named(self) -> dict[str, Array]:
        """The known cosines, by what is compared."""
        found = {
            "created, own source": self.own,
            "created, nearest other source": self.other,
            "source, nearest other source": self.among,
        }
        return {name: values[~np.isnan(values)] for name, values in found.items()}

    def table(self, threshold: float) -> list[dict[str, Any]]:
        """Median and largest cosine of each comparison, and the share from a threshold on."""
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
    """Compare created images with those of the source.

    Args:
        created: features, [N, C].
        sources: features of at least two images, [M, C].
        own: the row of the source image that each was made from, None if unknown.
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
    """A figure of the distribution of the cosines."""
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
