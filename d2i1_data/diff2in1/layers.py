"""Layers that decoders and hosts share."""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "group"]


def group_norm(channels: int, most: int = 8) -> nn.GroupNorm:
    """Group norm with as many groups as divide the channels, at most `most`, a power of 2.

    No group has only one channel: the bias before it would have no effect and learn from rounding.
    """
    groups = math.gcd(most, channels)
    return nn.GroupNorm(max(groups // 2, 1) if groups == channels else groups, channels)


class Residual(nn.Module):
    """Two normalised 3x3 convolutions beside the identity, or beside a 1x1 to other channels."""

    def __init__(self, channels: int, outputs: int | None = None) -> None:
        super().__init__()
        outputs = outputs or channels
        self.body = nn.Sequential(
            *(group_norm(channels), nn.SiLU()),
            nn.Conv2d(channels, outputs, 3, padding=1),
            *(group_norm(outputs), nn.SiLU()),
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
    """Batch norm, as several hosts were published, or group norm in its place."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return group_norm(channels)
    raise ValueError(f"norm {norm!r}: expected batch or group")


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize bilinearly to (h, w), if the size differs."""
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear")


def stretch(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize bilinearly with aligned corners, as the released codes of several hosts do."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
