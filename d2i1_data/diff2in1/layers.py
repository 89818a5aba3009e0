"""Layers that adapters and hosts have in common."""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "group"]


class Residual(nn.Module):
    """Two normalised 3x3 convolutions beside the identity, or beside a 1x1 to other channels."""

    def __init__(self, channels: int, outputs: int | None = None) -> None:
        super().__init__()
        outputs = outputs or channels
        groups = [math.gcd(8, c) for c in (channels, outputs)]
        self.body = nn.Sequential(
            *(nn.GroupNorm(groups[0], channels), nn.SiLU()),
            nn.Conv2d(channels, outputs, 3, padding=1),
            *(nn.GroupNorm(groups[1], outputs), nn.SiLU()),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip = nn.Identity() if channels == outputs else nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)  # type: ignore[no-any-return]


def normed_conv(
    inputs: int, outputs: int, kernel: int, norm: Norm, activation: type[nn.Module]
) -> nn.Sequential:
    """A convolution that keeps the size, its norm and its activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, make_norm(norm, outputs), activation())


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Batch norm, as several hosts have it, or group norm in its place."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    raise ValueError(f"norm {norm!r}: expected batch or group")


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, and nothing where the size is right."""
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear")


def stretch(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear with corners on corners, as the released codes of several hosts do."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
