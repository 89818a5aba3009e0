"""Probabilities, such as saliency."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .distribution import Distribution, Histogram
from .family import Encoding, Family, Legend, encode_png, mean_over, precise


class ProbabilityMap(Family):
    """Probabilities in [0, 1]; unknown is -1. Raw: one logit. PNG: 8 bit, p * 254, 255 unknown."""

    name = "probability_map"
    unknown = -1.0
    unsure = "twice the probability of the less likely answer"
    raw_channels = 1
    encoding = ("scale", "unknown", "values")
    own_encoding: ClassVar[Mapping[str, Any]] = {"unknown": 255}
    averages_logits = True  # as `slide_inference` of mmsegmentation

    def valid(self, target: Tensor) -> Tensor:
        return target >= 0

    def finish(self, raw: Tensor) -> Tensor:
        return precise(raw).sigmoid()

    def to_linear(self, raw: Tensor) -> Tensor:
        """The probability, [B, 1, H, W]."""
        return self.finish(raw)

    def from_linear(self, linear: Tensor) -> Tensor:
        return linear.logit(1e-6)

    def uncertainty(self, raw: Tensor) -> Tensor:
        """Twice the probability of the less likely answer."""
        probability = self.finish(raw)
        return 2 * torch.minimum(probability, 1 - probability)

    def uncertainty_about(self, raw: Tensor, answer: Tensor) -> Tensor:
        probability = self.finish(raw)
        return 2 * torch.where(answer > 0.5, 1 - probability, probability)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        logits = precise(raw)
        truth = target.clamp(min=0).to(logits)
        error = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return mean_over(error, self.valid(target))

    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs() < 0.1

    def average(self, targets: Tensor) -> Tensor:
        """The mean."""
        known = self.valid(targets)
        total = targets.clamp(min=0).sum(0, dtype=torch.float64)
        return torch.where(known.any(0), (total / known.sum(0).clamp(min=1)).float(), self.unknown)

    def distribution(self) -> Distribution:
        return Histogram(
            unknown=self.unknown,
            start=0.0,
            step=0.04,
            bins=25,
            axis="probability",
            about="How often each probability occurs.",
            logarithmic=True,
        )

    def find_problem(self, array: NDArray[np.generic]) -> str | None:
        if array.ndim != 2:
            return f"has shape {array.shape}, expected height x width"
        if not np.isfinite(array).all():
            return "holds NaN or infinite values"
        values = np.asarray(array, np.float32)
        inside = (values == -1) | ((values >= 0) & (values <= 1))
        return None if inside.all() else "holds values outside of [0, 1]; -1 is unknown"

    def to_png(self, array: NDArray[np.generic]) -> bytes:
        scaled = np.round(np.asarray(array, np.float32) * 254)
        return encode_png(np.where(np.asarray(array) < 0, 255, scaled).astype(np.uint8))

    def from_pixels(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        if pixels.dtype == bool:  # a one-bit mask, which some other datasets store
            return pixels.astype(np.float32)
        return np.where(pixels == 255, np.float32(-1), pixels.astype(np.float32) / 254)

    def from_file(self, pixels: NDArray[np.generic], encoding: Encoding) -> NDArray[np.generic]:
        if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]  # grey, stored in colours
        if pixels.ndim == 3 or pixels.dtype == bool:
            return self.from_pixels(pixels)
        if not encoding.declared:
            _refuse_two_meanings(pixels)
        unit = encoding.scale or (1 if encoding.values else 254)
        found = (encoding.meant(pixels).astype(np.float32) / unit).astype(np.float32)
        return np.where(encoding.is_unknown(pixels), np.float32(-1), found)

    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        grey = np.round(np.clip(np.asarray(array, np.float32), 0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)

    def legend(self, array: NDArray[np.generic]) -> Legend:
        """The colours of probability 0 and 1."""
        black, white = (0, 0, 0), (255, 255, 255)
        return Legend([(black, "0"), (white, "1")], [black, white])


def _refuse_two_meanings(pixels: NDArray[np.generic]) -> None:
    """Raise ValueError if the form of `to_png` is not the only plausible one."""
    if pixels.dtype != np.uint8:
        raise ValueError(f"{pixels.dtype} values: give `scale: N`, the stored value of 1")
    if (pixels == 255).any():
        raise ValueError(
            "255: give `scale: 255` if it means 1, or `unknown: 255` if it means unknown"
        )
    if pixels.max() == 1:
        raise ValueError("no value above 1: give `scale: 1` if 1 means 1, or `scale: 254`")
