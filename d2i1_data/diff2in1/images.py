"""Convert images: from pictures of many kinds to tensors, and back to 8 bits.

Letters in shape comments: B batch, H W pixels. Tensors are [B, 3, H, W] in [-1, 1].
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .pictures import read_picture, to_rgb, upper_bits


def to_batches(images: Any) -> list[Tensor]:
    """Convert images to tensors `[1, 3, H, W]` in [-1, 1], one for each image.

    Args:
        images: a path or URL; a PIL image; an array `[H, W, 3]`, `[B, H, W, 3]`, or gray `[H, W]`,
            `[H, W, 1]`, `[B, H, W, 1]`; a tensor `[3, H, W]`, `[B, 3, H, W]`, or gray `[H, W]`,
            `[1, H, W]`, `[B, 1, H, W]`; or a list of these. Arrays and tensors hold uint8, uint16
            (65535 is white), or floats in [0, 1].

    Raises:
        TypeError: if the images are of another type.
        ValueError: if a file cannot be read, or a shape or values are wrong.
    """
    if isinstance(images, list | tuple):
        return [batch for image in images for batch in to_batches(image)]
    if isinstance(images, str | Path):
        images = read_picture(images)
    if isinstance(images, Image.Image):
        images = to_rgb(images)
    if isinstance(images, np.ndarray):
        images = _from_array(images)
    if not isinstance(images, Tensor):
        kind = type(images).__name__
        raise TypeError(f"expected paths, URLs, PIL images, arrays or tensors, got {kind}")
    images = images[None] if images.ndim == 2 else images
    if images.ndim not in (3, 4) or images.shape[-3] not in (1, 3):
        raise ValueError(
            f"image tensor of shape {tuple(images.shape)}: expected [..., 3, H, W], or gray [H, W]"
        )
    if images.dtype == torch.uint16:
        images = torch.from_numpy(upper_bits(images.cpu().numpy()))
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    if images.min() < 0 or images.max() > 1:
        raise ValueError("image tensor: expected floats in [0, 1], uint8 or uint16")
    # always use one memory layout, because convolutions round differently in another
    images = images.expand(*images.shape[:-3], 3, -1, -1)
    images = (images.float() * 2 - 1).contiguous()
    return list(images.view(-1, *images.shape[-3:]).split(1))


def _from_array(array: NDArray[np.generic]) -> Tensor:
    """An array with channels last as a tensor with channels first.

    Raises:
        ValueError: if it has no channels of colours or gray.
    """
    if array.ndim != 2 and (array.ndim not in (3, 4) or array.shape[-1] not in (1, 3)):
        raise ValueError(
            f"image array of shape {array.shape}: expected [..., H, W, 3], or gray [H, W]"
        )
    tensor = torch.from_numpy(upper_bits(array) if array.dtype == np.uint16 else np.array(array))
    return tensor if array.ndim == 2 else tensor.movedim(-1, -3)


def pad_to_stride(images: Tensor, stride: int) -> Tensor:
    """Extend `[B, 3, H, W]` to multiples of the stride, by reflection at the right and bottom."""
    height, width = images.shape[-2:]
    right, below = -width % stride, -height % stride
    mode = "reflect" if right < width and below < height else "replicate"
    return F.pad(images, (0, right, 0, below), mode) if right or below else images


def fit_longer_side(images: Tensor, resolution: int | None) -> Tensor:
    """Scale `[B, 3, H, W]` so that the longer side has this many pixels. None changes nothing."""
    height, width = images.shape[-2:]
    if resolution is None or max(height, width) == resolution:
        return images
    scale = resolution / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Convert images `[B, 3, H, W]` in [-1, 1] to arrays `[B, H, W, 3]` uint8."""
    return _to_bytes(images).movedim(1, -1).contiguous().cpu().numpy()


def as_stored(images: Tensor) -> Tensor:
    """Round images `[B, 3, H, W]` in [-1, 1] as if they were stored in 8 bits and read again."""
    return (_to_bytes(images).float() / 255 * 2 - 1).contiguous()


def _to_bytes(images: Tensor) -> Tensor:
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
