"""The four kinds of dense map: how each is predicted, scored, stored and shown.

A map has two forms. As an array it is [H, W] or [H, W, 3] in physical units; as a tensor it is
[B, C, H, W]. In both, unknown pixels hold the family's unknown value: there is no second mask.
B batch, C channels of the map, R channels of the raw prediction, H W pixels.
"""

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def encode_png(pixels: NDArray[np.generic]) -> bytes:
    """PNG bytes of uint8 or uint16 pixels; level 1 is three times as fast as the default."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def decode_png(data: bytes) -> NDArray[np.generic]:
    """Pixels of an image file as stored, without colour conversion."""
    return np.asarray(Image.open(io.BytesIO(data)))


def mean_over(error: Tensor, valid: Tensor) -> Tensor:
    """Mean of error [B, 1, H, W] over each sample's valid pixels, 0 where there are none, [B]."""
    total = torch.where(valid, error, 0.0).sum((1, 2, 3))
    return total / valid.sum((1, 2, 3)).clamp(min=1)


class Family(ABC):
    """What is common to all maps of one kind. Instances hold no tensors and may be shared."""

    name: ClassVar[str]
    channels: ClassVar[int] = 1
    unknown: ClassVar[float]
    dtype: ClassVar[torch.dtype] = torch.float32

    @property
    @abstractmethod
    def raw_channels(self) -> int:
        """R: how many channels a host predicts for this family."""

    def config(self) -> dict[str, Any]:
        """What `make_family` needs to build this family again."""
        return {"family": self.name}

    def to_tensor(self, array: NDArray[np.generic]) -> Tensor:
        """Array to tensor, [C, H, W]."""
        return torch.from_numpy(np.array(array, np.float32))[None]

    def to_array(self, tensor: Tensor) -> NDArray[np.generic]:
        """Tensor [C, H, W] to array."""
        return tensor[0].float().cpu().numpy()

    def blank(self, size: tuple[int, int]) -> Tensor:
        """A map of which nothing is known, [C, H, W]."""
        return torch.full((self.channels, *size), self.unknown, dtype=self.dtype)

    @abstractmethod
    def valid(self, target: Tensor) -> Tensor:
        """Where the truth is known, [B, 1, H, W] bool."""

    @abstractmethod
    def finish(self, raw: Tensor) -> Tensor:
        """Raw prediction [B, R, H, W] to a map [B, C, H, W] in physical units."""

    @abstractmethod
    def uncertainty(self, raw: Tensor) -> Tensor:
        """How unsure the prediction is, in [0, 1], [B, 1, H, W]."""

    @abstractmethod
    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood of the target, mean over the valid pixels of each sample, [B]."""

    @abstractmethod
    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        """Where two maps count as equal, [B, 1, H, W] bool."""

    def agreement(self, one: Tensor, other: Tensor) -> Tensor:
        """Share of the pixels known in both maps on which they agree, nan without such, [B]."""
        both = self.valid(one) & self.valid(other)
        return (self.agrees(one, other) & both).sum((1, 2, 3)) / both.sum((1, 2, 3))

    def flip(self, tensor: Tensor) -> Tensor:
        """Mirror a map, or a raw prediction, left to right."""
        return tensor.flip(-1)

    def resize(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring a map to another size without mixing pixels (nearest)."""
        return F.interpolate(target.float(), size, mode="nearest-exact").to(target.dtype)

    @abstractmethod
    def complaint(self, array: NDArray[np.generic]) -> str | None:
        """What is wrong with the values of an array, None if nothing is."""

    @abstractmethod
    def to_png(self, array: NDArray[np.generic]) -> bytes:
        """The stored form."""

    @abstractmethod
    def from_png(self, data: bytes) -> NDArray[np.generic]:
        """The array of a stored form."""

    @abstractmethod
    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        """A picture for people, unknown pixels black, [H, W, 3]."""


class UnitVector(Family):
    """Directions in the camera frame: +x right, +y up, +z towards the viewer; unknown is (0, 0, 0).

    Raw: x, y, z (any length) and the concentration of an angular von Mises-Fisher distribution
    (Bae et al. 2021, arXiv 2109.09881), before its activation. PNG: round((n + 1) * 127.5), black
    unknown.
    """

    name = "unit_vector"
    channels = 3
    unknown = 0.0
    raw_channels = 4

    def to_tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.array(array, np.float32)).permute(2, 0, 1)

    def to_array(self, tensor: Tensor) -> NDArray[np.generic]:
        return tensor.permute(1, 2, 0).float().cpu().numpy()

    def valid(self, target: Tensor) -> Tensor:
        return target.abs().sum(1, keepdim=True) > 0

    def finish(self, raw: Tensor) -> Tensor:
        return F.normalize(raw[:, :3].float(), dim=1, eps=1e-6)

    @staticmethod
    def _kappa(raw: Tensor) -> Tensor:
        return F.elu(raw[:, 3:4].float()) + 1.01

    @staticmethod
    def angle(one: Tensor, other: Tensor) -> Tensor:
        """Angle between unit vectors in radians, with finite gradients everywhere, [B, 1, H, W]."""
        cross = torch.linalg.cross(one, other, dim=1).square().sum(1, keepdim=True)
        return torch.atan2((cross + 1e-12).sqrt(), (one * other).sum(1, keepdim=True))

    def uncertainty(self, raw: Tensor) -> Tensor:
        """The expected angular error under the predicted distribution, as a share of 90 degrees."""
        kappa = self._kappa(raw)
        tail = torch.exp(-kappa * math.pi)
        expected = 2 * kappa / (kappa**2 + 1) + math.pi * tail / (1 + tail)
        return (expected / (math.pi / 2)).clamp(0, 1)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        kappa, angle = self._kappa(raw), self.angle(self.finish(raw), target)
        error = kappa * angle - torch.log(kappa**2 + 1) + F.softplus(-kappa * math.pi)
        return mean_over(error, self.valid(target))

    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        return self.angle(one, other) < math.radians(11.25)

    def flip(self, tensor: Tensor) -> Tensor:
        sign = torch.ones(tensor.shape[1], dtype=tensor.dtype, device=tensor.device)
        sign[0] = -1
        return tensor.flip(-1) * sign[:, None, None]

    def complaint(self, array: NDArray[np.generic]) -> str | None:
        if array.ndim != 3 or array.shape[2] != 3:
            return f"has shape {array.shape}, expected height x width x 3"
        if not np.isfinite(array).all():
            return "holds NaN or infinite values"
        length = np.linalg.norm(array, axis=-1)
        wrong = int(((np.abs(length - 1) > 0.02) & (length > 0)).sum())
        return f"holds {wrong} vectors whose length is neither 1 nor 0 (unknown)" if wrong else None

    def to_png(self, array: NDArray[np.generic]) -> bytes:
        return encode_png(self.colorize(array))

    def from_png(self, data: bytes) -> NDArray[np.generic]:
        pixels = decode_png(data)
        vectors = pixels.astype(np.float32) / 127.5 - 1
        known = pixels.any(-1, keepdims=True)
        return np.where(known, vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), 0)

    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        pixels = np.round((np.asarray(array, np.float32) + 1) * 127.5).astype(np.uint8)
        return np.where(np.any(array != 0, -1, keepdims=True), pixels, np.uint8(0))


class MetricMap(Family):
    """Distances in metres, greater than 0; unknown is 0.

    Raw: mean and log-scale of a Laplace distribution over the log of the distance. PNG: 16 bit,
    millimetres; what is beyond 65.535 m becomes unknown.
    """

    name = "metric_map"
    unknown = 0.0
    raw_channels = 2
    farthest: ClassVar[float] = 65.535

    def valid(self, target: Tensor) -> Tensor:
        return target > 0

    def finish(self, raw: Tensor) -> Tensor:
        return raw[:, :1].float().clamp(-7, 7).exp()

    @staticmethod
    def _log_scale(raw: Tensor) -> Tensor:
        return 5 * torch.tanh(raw[:, 1:2].float() / 5)

    def uncertainty(self, raw: Tensor) -> Tensor:
        """Probability that the truth differs from the prediction by more than a factor of 1.25."""
        return torch.exp(-math.log(1.25) / self._log_scale(raw).exp())

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        valid, log_scale = self.valid(target), self._log_scale(raw)
        truth = torch.where(valid, target, 1.0).log()
        error = (raw[:, :1].float() - truth).abs() / log_scale.exp() + log_scale
        return mean_over(error, valid)

    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.maximum(one / other, other / one) < 1.25

    def complaint(self, array: NDArray[np.generic]) -> str | None:
        if array.ndim != 2:
            return f"has shape {array.shape}, expected height x width"
        if not np.isfinite(array).all():
            return "holds NaN or infinite values"
        return "holds negative values; 0 is unknown" if array.min() < 0 else None

    def beyond(self, array: NDArray[np.generic]) -> int:
        """How many pixels are too far for the stored form and become unknown in it."""
        return int((np.asarray(array) >= self.farthest + 0.0005).sum())

    def to_png(self, array: NDArray[np.generic]) -> bytes:
        millimetres = np.round(np.asarray(array, np.float64) * 1000)
        return encode_png(np.where(millimetres > 65535, 0, millimetres).astype(np.uint16))

    def from_png(self, data: bytes) -> NDArray[np.generic]:
        return decode_png(data).astype(np.float32) / 1000

    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Near is bright: inverse depth between its 2nd and 98th percentile."""
        known = np.asarray(array) > 0
        if not known.any():
            return np.zeros((*known.shape, 3), np.uint8)
        inverse = 1 / np.where(known, array, 1)
        low, high = np.percentile(inverse[known], (2, 98))
        shade = np.clip((inverse - low) / max(high - low, 1e-6), 0, 1)
        warm = np.stack([shade**0.5, shade**1.2, 0.35 + 0.4 * shade - 0.6 * shade**3], -1)
        return np.round(np.clip(warm, 0, 1) * known[..., None] * 255).astype(np.uint8)


class LabelMap(Family):
    """Class ids, 0 to K - 1; unknown is 255. Raw: K logits. PNG: 8 bit, mode L, the ids."""

    name = "label_map"
    unknown = 255.0
    dtype = torch.int64

    def __init__(
        self, names: Sequence[str], palette: Sequence[Sequence[int]] | None = None
    ) -> None:
        if not 1 <= len(names) <= 255:
            raise ValueError(f"a label map needs 1 to 255 class names, got {len(names)}")
        if palette is not None and len(palette) != len(names):
            raise ValueError(f"{len(palette)} palette colours for {len(names)} class names")
        self.names = tuple(names)
        self.palette = tuple(
            (int(r), int(g), int(b)) for r, g, b in palette or _palette(len(names))
        )

    @property
    def raw_channels(self) -> int:
        return len(self.names)

    def config(self) -> dict[str, Any]:
        palette = [list(colour) for colour in self.palette]
        return {"family": self.name, "names": list(self.names), "palette": palette}

    def to_tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.array(array, np.int64))[None]

    def to_array(self, tensor: Tensor) -> NDArray[np.generic]:
        return tensor[0].cpu().numpy().astype(np.uint8)

    def valid(self, target: Tensor) -> Tensor:
        return target != 255

    def finish(self, raw: Tensor) -> Tensor:
        return raw.argmax(1, keepdim=True)

    def uncertainty(self, raw: Tensor) -> Tensor:
        """One minus the probability of the predicted class."""
        return 1 - raw.float().softmax(1).amax(1, keepdim=True)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        error = F.cross_entropy(raw.float(), target[:, 0], ignore_index=255, reduction="none")
        return mean_over(error[:, None], self.valid(target))

    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        return one == other

    def complaint(self, array: NDArray[np.generic]) -> str | None:
        if array.ndim != 2:
            return f"has shape {array.shape}, expected height x width"
        ids = np.unique(array)
        wrong = ids[(ids < 0) | ((ids >= len(self.names)) & (ids != 255))]
        allowed = f"0 to {len(self.names) - 1} and 255 (unknown)"
        return f"holds class id {wrong[0]}, allowed are {allowed}" if len(wrong) else None

    def to_png(self, array: NDArray[np.generic]) -> bytes:
        return encode_png(np.asarray(array, np.uint8))

    def from_png(self, data: bytes) -> NDArray[np.generic]:
        return decode_png(data)

    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table[np.asarray(array, np.uint8)]


class ProbabilityMap(Family):
    """Probabilities in [0, 1]; unknown is -1. Raw: one logit. PNG: 8 bit, p * 254, 255 unknown."""

    name = "probability_map"
    unknown = -1.0
    raw_channels = 1

    def valid(self, target: Tensor) -> Tensor:
        return target >= 0

    def finish(self, raw: Tensor) -> Tensor:
        return raw.float().sigmoid()

    def uncertainty(self, raw: Tensor) -> Tensor:
        """Twice the probability of the less likely answer."""
        probability = self.finish(raw)
        return 2 * torch.minimum(probability, 1 - probability)

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        truth = target.clamp(min=0)
        error = F.binary_cross_entropy_with_logits(raw.float(), truth, reduction="none")
        return mean_over(error, self.valid(target))

    def agrees(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs() < 0.1

    def complaint(self, array: NDArray[np.generic]) -> str | None:
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

    def from_png(self, data: bytes) -> NDArray[np.generic]:
        pixels = decode_png(data)
        if pixels.dtype == bool:  # a mask of one bit, as other datasets store it
            return pixels.astype(np.float32)
        return np.where(pixels == 255, np.float32(-1), pixels.astype(np.float32) / 254)

    def colorize(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        grey = np.round(np.clip(np.asarray(array, np.float32), 0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)


def _palette(count: int) -> list[tuple[int, int, int]]:
    """Well separated colours: the bits of the class number spread over the three channels (VOC)."""
    return [
        tuple(sum((i >> (3 * b + c) & 1) << (7 - b) for b in range(3)) for c in range(3))  # type: ignore[misc]
        for i in range(1, count + 1)
    ]


FAMILIES: dict[str, Any] = {
    family.name: family for family in (UnitVector, MetricMap, LabelMap, ProbabilityMap)
}


def make_family(config: dict[str, Any]) -> Family:
    """The family a checkpoint's config names, such as `{"family": "label_map", "names": [...]}`."""
    options = {key: value for key, value in config.items() if key != "family"}
    if config.get("family") not in FAMILIES:
        raise ValueError(f"unknown family {config.get('family')!r}: choose from {sorted(FAMILIES)}")
    return FAMILIES[config["family"]](**options)
