"""Layers that decoders and hosts share."""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "group"]


def group_norm(channels: int, most: int = 8) -> nn.GroupNorm:
    """Group norm with the largest possible number of groups.

    A group has at least two channels. With one channel, a bias before the norm would have no effect
    and would learn from rounding errors.

    Args:
        channels: number of channels.
        most: largest number of groups, a power of 2.
    """
    groups = math.gcd(most, channels)
    return nn.GroupNorm(max(groups // 2, 1) if groups == channels else groups, channels)


class Residual(nn.Module):
    """A residual block of two normalised 3x3 convolutions.

    Args:
        channels: number of input channels.
        outputs: number of output channels; None is the same number. With another number, the
            shortcut is a 1x1 convolution.
    """

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
    """A convolution that keeps the size, followed by a norm and an activation.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: side of the kernel.
        norm: kind of the norm.
        activation: class of the activation.
    """
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, make_norm(norm, outputs), activation())


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Batch norm, which several published hosts use, or group norm instead.

    Raises:
        ValueError: if the kind is unknown.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return group_norm(channels)
    raise ValueError(f"norm {norm!r}: expected batch or group")


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize bilinearly to (h, w) if the size differs."""
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear")


def stretch(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize bilinearly with aligned corners, as the released codes of several hosts do."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
