"""Distances in metres, such as depth."""

import math
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .distribution import Distribution, Histogram
from .family import Colour, Encoding, Family, Legend, encode_png, mean_over, pooled_over, precise


class MetricMap(Family):
    """Distances in metres, greater than 0; unknown is 0.

    Raw: mean and log-scale of a Laplace distribution over the log of the distance. PNG: 16 bit,
    millimetres; distances beyond 65.535 m become unknown.
    """

    name = "metric_map"
    unknown = 0.0
    unsure = "the probability of being off by more than a factor of 1.25"
    raw_channels = 2
    in_metres = True
    encoding = ("scale", "unknown")
    farthest: ClassVar[float] = 65.535

    def valid(self, target: Tensor) -> Tensor:
        return target > 0

    def finish(self, raw: Tensor) -> Tensor:
        return precise(raw[:, :1]).clamp(-7, 7).exp()

    def to_linear(self, raw: Tensor) -> Tensor:
        """Metres and raw log-scale, [B, 2, H, W]."""
        return torch.cat([self.finish(raw), precise(raw[:, 1:2])], 1)

    def from_linear(self, linear: Tensor) -> Tensor:
        return torch.cat([linear[:, :1].log(), linear[:, 1:2]], 1)

    def within(self, prediction: Tensor, target: Tensor, metres: float) -> tuple[Tensor, Tensor]:
        return prediction.clamp(max=metres), torch.where(target > metres, self.unknown, target)

    @staticmethod
    def _log_scale(raw: Tensor) -> Tensor:
        return 5 * torch.tanh(precise(raw[:, 1:2]) / 5)

    def expected_error(self, raw: Tensor) -> Tensor:
        """The expected absolute log of prediction over truth; 0.1 is an error of about 10 %."""
        return self._log_scale(raw).exp()

    def uncertainty(self, raw: Tensor) -> Tensor:
        """Probability that the truth differs from the prediction by more than a factor of 1.25."""
        return torch.exp(-math.log(1.25) / self._log_scale(raw).exp())

    def expected_error_about(self, raw: Tensor, answer: Tensor) -> Tensor:
        scale, apart = self._log_scale(raw).exp(), self.log_ratio(raw, answer).abs()
        return apart + scale * torch.exp(-apart / scale)

    def uncertainty_about(self, raw: Tensor, answer: Tensor) -> Tensor:
        """Probability that the truth differs from the answer by more than a factor of 1.25."""
        scale, apart = self._log_scale(raw).exp(), self.log_ratio(raw, answer).abs()
        beyond = torch.exp(-(math.log(1.25) + apart) / scale) / 2  # on the side away from raw
        gap = math.log(1.25) - apart
        tail = torch.exp(-gap.abs() / scale) / 2
        return beyond + torch.where(gap >= 0, tail, 1 - tail)

    def log_ratio(self, raw: Tensor, target: Tensor) -> Tensor:
        """Log of prediction over truth, [B, 1, H, W]; undefined where the truth is unknown."""
        return precise(raw[:, :1]) - torch.where(self.valid(target), target, 1.0).log()

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        log_scale = self._log_scale(raw)
        error = self.log_ratio(raw, target).abs() / log_scale.exp() + log_scale
        return mean_over(error * log_scale.detach().exp(), self.valid(target))

    def scale_loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood of the error, [B]. Only the scale gets a gradient."""
        log_scale = self._log_scale(raw)
        error = self.log_ratio(raw, target).detach().abs() / log_scale.exp() + log_scale
        return mean_over(error, self.valid(target))

    def silog(self, raw: Tensor, target: Tensor, keep: float, *, pooled: bool = False) -> Tensor:
        """Scale-invariant error sqrt(variance + keep * mean^2) of the log ratio, [B].

        Args:
            raw: [B, 2, H, W].
            target: [B, 1, H, W].
            keep: weight of the squared mean.
            pooled: take variance and mean over all pixels of the batch instead of each sample's.

        Source: Eigen et al. 2014, arXiv 1406.2283.
        """
        over = pooled_over if pooled else mean_over
        ratio, valid = self.log_ratio(raw, target), self.valid(target)
        mean, square = over(ratio, valid), over(ratio**2, valid)
        # a sample without known pixels has loss zero, and avoids the gradient of a root at zero
        return (square - (1 - keep) * mean**2 + 1e-6).sqrt() - 1e-3

    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.maximum(one / other, other / one) < 1.25

    def average(self, targets: Tensor) -> Tensor:
        """The geometric mean."""
        known = self.valid(targets)
        logs = torch.where(known, targets, 1.0).log().sum(0, dtype=torch.float64)
        mean = (logs / known.sum(0).clamp(min=1)).exp().float()
        return torch.where(known.any(0), mean, self.unknown)

    def scaled(self, target: Tensor, factor: float) -> Tensor:
        """Distances divided by the factor."""
        return target / factor

    def distribution(self) -> Distribution:
        return Histogram(
            unknown=self.unknown,
            start=0.0,
            step=0.01,
            bins=round(self.farthest / 0.01) + 1,
            axis="metres",
            about="How often each distance occurs.",
            unit="metre",
            percentiles=(0.05, 0.5, 0.95),
            form="{:.2f} m",
            drawn=0.995,
        )

    def find_problem(self, array: NDArray[np.generic]) -> str | None:
        if array.ndim != 2:
            return f"has shape {array.shape}, expected height x width"
        if not np.isfinite(array).all():
            return "holds NaN or infinite values"
        return "holds negative values; 0 is unknown" if array.min() < 0 else None

    def count_too_large(self, array: NDArray[np.generic]) -> int:
        """Number of pixels beyond 65.535 m."""
        return int((np.asarray(array) >= self.farthest + 0.0005).sum())

    def to_png(self, array: NDArray[np.generic]) -> bytes:
        millimetres = np.round(np.asarray(array, np.float64) * 1000)
        return encode_png(np.where(millimetres > 65535, 0, millimetres).astype(np.uint16))

    def from_pixels(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        return pixels.astype(np.float32) / 1000

    def from_file(self, pixels: NDArray[np.generic], encoding: Encoding) -> NDArray[np.generic]:
        if encoding.scale is None and (pixels.dtype.kind == "f" or pixels.dtype.itemsize == 1):
            raise ValueError(
                f"{pixels.dtype} values: give `scale: N`, the stored value of one metre"
            )
        metres = (pixels.astype(np.float32) / (encoding.scale or 1000)).astype(np.float32)
        known = ~encoding.is_unknown(pixels)
        return np.where(known if pixels.ndim == 2 else known[..., None], metres, np.float32(0))

    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Inverse depth between its 2nd and 98th percentile; near pixels are bright."""
        known = np.asarray(array) > 0
        if not known.any():
            return np.zeros((*known.shape, 3), np.uint8)
        inverse = 1 / np.where(known, array, 1)
        low, high = np.percentile(inverse[known], (2, 98))
        shade = np.clip((inverse - low) / max(high - low, 1e-6), 0, 1)
        warm = np.stack([shade**0.5, shade**1.2, 0.35 + 0.4 * shade - 0.6 * shade**3], -1)
        return np.round(np.clip(warm, 0, 1) * known[..., None] * 255).astype(np.uint8)

    def legend(self, array: NDArray[np.generic]) -> Legend:
        """Metres from the nearest to the farthest pixel.

        Colours depend on the whole map, so the ramp has the colours of its pixels.
        """
        known = np.asarray(array) > 0
        if not known.any():
            return Legend([], [])
        metres, first = np.unique(array[known], return_index=True)
        stops = first[np.searchsorted(metres, np.linspace(metres[0], metres[-1], 16))]
        ramp: list[Colour] = [tuple(c) for c in self.colorize(array)[known][stops].tolist()]
        ends = zip((ramp[0], ramp[-1]), (metres[0], metres[-1]), strict=True)
        return Legend([(colour, f"{end:.2f} m") for colour, end in ends], ramp)
