"""Directions, such as surface normals."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .distribution import DirectionDensity, Distribution
from .family import Encoding, Family, Legend, encode_png, mean_over, pooled_over, precise


class UnitVector(Family):
    """Directions in the camera frame: +x right, +y up, +z towards the viewer; unknown is (0, 0, 0).

    Raw: x, y, z (any length) and the concentration of an angular von Mises-Fisher distribution
    (Bae et al. 2021, arXiv 2109.09881), before its activation. PNG: round((n + 1) * 127.5), black
    unknown.
    """

    name = "unit_vector"
    channels = 3
    unknown = 0.0
    unsure = "the expected angular error as a share of 90°"
    raw_channels = 4
    axes = ("right", "up", "viewer")
    encoding = ("unknown",)

    def to_tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.array(array, np.float32)).permute(2, 0, 1)

    def to_array(self, tensor: Tensor) -> NDArray[np.generic]:
        return tensor.permute(1, 2, 0).float().cpu().numpy()

    def valid(self, target: Tensor) -> Tensor:
        return target.abs().sum(1, keepdim=True) > 0

    def finish(self, raw: Tensor) -> Tensor:
        return F.normalize(precise(raw[:, :3]), dim=1, eps=1e-6)

    @staticmethod
    def kappa(raw: Tensor) -> Tensor:
        """The concentration, more than 0.01, [B, 1, H, W]."""
        return F.elu(precise(raw[:, 3:4])) + 1.01

    def to_linear(self, raw: Tensor) -> Tensor:
        """Unit vector and concentration, [B, 4, H, W]."""
        return torch.cat([self.finish(raw), self.kappa(raw)], 1)

    def from_linear(self, linear: Tensor) -> Tensor:
        excess = linear[:, 3:] - 1.01
        negative = torch.log1p(excess.clamp(-1 + 1e-6, 0))  # the inverse of elu
        return torch.cat([linear[:, :3], torch.where(excess > 0, excess, negative)], 1)

    @staticmethod
    def angle(one: Tensor, other: Tensor) -> Tensor:
        """Angle between unit vectors in radians, with finite gradients everywhere, [B, 1, H, W]."""
        cross = torch.linalg.cross(one, other, dim=1).square().sum(1, keepdim=True)
        return torch.atan2((cross + 1e-12).sqrt(), (one * other).sum(1, keepdim=True))

    def expected_error(self, raw: Tensor) -> Tensor:
        """The expected angle to the truth under the predicted distribution, degrees in (0, 90)."""
        kappa = self.kappa(raw)
        tail = torch.exp(-kappa * math.pi)
        return torch.rad2deg(2 * kappa / (kappa**2 + 1) + math.pi * tail / (1 + tail))

    def uncertainty(self, raw: Tensor) -> Tensor:
        """The expected angular error as a share of 90 degrees."""
        return (self.expected_error(raw) / 90).clamp(0, 1)

    def expected_error_about(self, raw: Tensor, answer: Tensor) -> Tensor:
        """The root of the summed squares of `expected_error` and the angle between both.

        It is exact for small angles, where they are two independent errors.
        """
        apart = torch.rad2deg(self.angle(self.finish(raw), answer))
        return (self.expected_error(raw).square() + apart.square()).sqrt()

    def uncertainty_about(self, raw: Tensor, answer: Tensor) -> Tensor:
        return (self.expected_error_about(raw, answer) / 90).clamp(0, 1)

    def nll(self, raw: Tensor, target: Tensor) -> Tensor:
        """Negative log density of the truth without the constant log 2 pi, [B, 1, H, W].

        Angular von Mises-Fisher: p(n) = (k^2 + 1) exp(-k angle) / (2 pi (1 + exp(-k pi))), Bae et
        al. 2021.
        """
        kappa, angle = self.kappa(raw), self.angle(self.finish(raw), target)
        return kappa * angle - torch.log(kappa**2 + 1) + F.softplus(-kappa * math.pi)

    def nll_loss(self, raw: Tensor, target: Tensor, *, pooled: bool = False) -> Tensor:
        """Mean `nll` of each sample, [B].

        Args:
            raw: [B, 4, H, W].
            target: [B, 3, H, W].
            pooled: take the mean over all pixels of the batch instead. Pixels whose cosine is
                beyond 0.999 are left out, as in the released code of Bae et al. and of iDisc.
        """
        error, valid = self.nll(raw, target), self.valid(target)
        if not pooled:
            return mean_over(error, valid)
        cosine = (self.finish(raw) * target).sum(1, keepdim=True)
        return pooled_over(error, valid & (cosine.abs() < 0.999))

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        error = self.nll(raw, target) / self.kappa(raw).detach()
        return mean_over(error, self.valid(target))

    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        return self.angle(one, other) < math.radians(11.25)

    def average(self, targets: Tensor) -> Tensor:
        """The direction of the mean vector. It is also unknown where the vectors cancel out."""
        total = targets.sum(0, dtype=torch.float64)
        length = total.norm(dim=0)
        return torch.where(length > 1e-6, total / length.clamp(min=1e-6), self.unknown).float()

    def flip(self, tensor: Tensor) -> Tensor:
        sign = torch.ones(tensor.shape[1], dtype=tensor.dtype, device=tensor.device)
        sign[0] = -1
        return tensor.flip(-1) * sign[:, None, None]

    def distribution(self) -> Distribution:
        return DirectionDensity()

    def find_problem(self, array: NDArray[np.generic]) -> str | None:
        if array.ndim != 3 or array.shape[2] != 3:
            return f"has shape {array.shape}, expected height x width x 3"
        if not np.isfinite(array).all():
            return "holds NaN or infinite values"
        length = np.linalg.norm(array, axis=-1)
        wrong = int(((np.abs(length - 1) > 0.02) & (length > 0)).sum())
        return f"holds {wrong} vectors whose length is neither 1 nor 0 (unknown)" if wrong else None

    def to_png(self, array: NDArray[np.generic]) -> bytes:
        return encode_png(self.colorize(array))

    def from_pixels(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        vectors = pixels.astype(np.float32) / 127.5 - 1
        known = pixels.any(-1, keepdims=True)
        return np.where(known, vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), 0)

    def from_file(self, pixels: NDArray[np.generic], encoding: Encoding) -> NDArray[np.generic]:
        if pixels.ndim != 3:
            return pixels
        vectors = _units(pixels) if pixels.dtype.kind == "f" else self.from_pixels(pixels)
        return np.where(encoding.is_unknown(pixels)[..., None], 0, vectors)

    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        pixels = np.round((np.asarray(array, np.float32) + 1) * 127.5).astype(np.uint8)
        return np.where(np.any(array != 0, -1, keepdims=True), pixels, np.uint8(0))

    def legend(self, array: NDArray[np.generic]) -> Legend:
        """The colours of surfaces that face along the axes of the camera."""
        facing = {
            "right": (1, 0, 0),
            "left": (-1, 0, 0),
            "up": (0, 1, 0),
            "down": (0, -1, 0),
            "to the viewer": (0, 0, 1),
        }
        colours = self.colorize(np.array([[*facing.values()]], np.float32))[0].tolist()
        return Legend([(tuple(c), where) for c, where in zip(colours, facing, strict=True)], [])


def _units(stored: NDArray[np.generic]) -> NDArray[np.generic]:
    """Float vectors [H, W, 3] with length 1, or 0. Resizing may have changed their length a little.

    Raises:
        ValueError: if they seem to be colours.
    """
    vectors = stored.astype(np.float32)
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if (vectors >= 0).all() and length.max() > 1.1:
        raise ValueError(f"float values from 0 to {vectors.max():g}, expected -1 to 1")
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length != 0)
