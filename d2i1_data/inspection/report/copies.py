"""Near-copies: find created images that are copies, not variations, of source images.

Images are compared by the cosine of their features. Features are the deepest level of the pyramid,
averaged over the pixels, minus their mean over the source images. Without this subtraction all
images of a source are similar, because they share most of their features.

Cosines on rooms: a created image has 0.53 to 0.97 with its own source image, and up to 0.73 with
others (without the subtraction 0.82 to 0.98, and up to 0.92). A source image with invisible noise
has 0.999 with the image without noise.

Letters in shape comments: B batch, N created images, M source images, C channels.
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
        side: all images are resized to this longer side, in pixels.
    """

    def __init__(self, pipe: "Diff2in1Pipeline", side: int) -> None:
        self.pipe, self.side = pipe, side
        with torch.no_grad():
            self.conditioning = pipe.perception_conditioning()

    @torch.no_grad()
    def extract(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """The deepest level of the pyramid of each image, averaged over the pixels, [B, C].

        Args:
            images: pixels [H, W, 3]; sizes may differ.
        """
        pipe, parts = self.pipe, []
        scaled = (fit_longer_side(image, self.side) for image in to_batches(list(images)))
        for _, same in groupby(scaled, lambda image: image.shape):
            pixels = torch.cat(list(same)).to(pipe.device)
            latents = pipe.encode_image(pad_to_stride(pixels, pipe.stride)).to(pipe.unet.dtype)
            result = pipe.perception.run_unet(pipe.unet, latents, self.conditioning)
            parts.append(result.pyramid[-1].float().mean((2, 3)).cpu())
        return torch.cat(parts)


class Pair(NamedTuple):
    """A created image and its nearest source image.

    created, source: their indices among the compared images. own: whether the created image was
    made from this source image.
    """

    created: int
    source: int
    cosine: float
    own: bool


class Copies(NamedTuple):
    """The result of a comparison.

    own: cosine of each created image and its own source image, nan if that is unknown, [N]. other:
    cosine of each created image and the nearest other source image, [N]. among: cosine of each
    source image and the nearest other source image, [M]. pairs: every created image with its
    nearest source image; the nearest pair comes first.
    """

    own: Array
    other: Array
    among: Array
    pairs: list[Pair]

    def named(self) -> dict[str, Array]:
        """The known cosines, by the name of the comparison."""
        cosines = {
            "created, own source": self.own,
            "created, nearest other source": self.other,
            "source, nearest other source": self.among,
        }
        return {name: values[~np.isnan(values)] for name, values in cosines.items()}

    def table(self, threshold: float) -> list[dict[str, Any]]:
        """Median and largest cosine of each comparison, and the share that reaches a threshold."""
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
    """Compare created images with source images.

    Args:
        created: features of the created images, [N, C].
        sources: features of at least two source images, [M, C].
        own: for each created image the index of its own source image, None if unknown.
    """
    mean = sources.mean(0)
    x, y = F.normalize(created - mean, dim=1), F.normalize(sources - mean, dim=1)
    cosines, among = (x @ y.T).numpy(), (y @ y.T).numpy()
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
    cosines = copies.named()
    for (label, values), style in zip(cosines.items(), styles, strict=True):
        counts, edges = np.histogram(values, 80, (-1, 1))
        panel.stairs(100 * counts / max(len(values), 1), edges, label=label, **style)
    panel.axvline(threshold, color="#b3261e", linewidth=1)
    least = float(np.concatenate([*cosines.values()]).min())
    panel.set(xlabel="cosine", ylabel="% of the images", xlim=(least - 0.05, 1.02))
    finish(panel)
    return figure
