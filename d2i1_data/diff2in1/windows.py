"""Sliding windows: what is too large to be seen at once, seen in overlapping squares."""

from collections.abc import Callable

from torch import Tensor


def predict_in_windows(
    see: Callable[[Tensor], dict[str, Tensor]], pixels: Tensor, window: int | None
) -> dict[str, Tensor]:
    """Maps of pixels [B, 3, H, W], averaged where squares of side `window` overlap; None is all at
    once.

    see: maps [B, R, h, w] by task of pixels [B, 3, h, w], such that may be averaged.
    """
    height, width = pixels.shape[-2:]
    if window is None or max(height, width) <= window:
        return see(pixels)
    total: dict[str, Tensor] = {}
    count = pixels.new_zeros(1, 1, height, width)
    for top in starts(height, window):
        for left in starts(width, window):
            area = (..., slice(top, top + window), slice(left, left + window))
            count[area] += 1
            for name, raw in see(pixels[area]).items():
                whole = raw.new_zeros(*raw.shape[:2], height, width)
                total.setdefault(name, whole)[area] += raw
    return {name: raw / count for name, raw in total.items()}


def starts(length: int, window: int) -> list[int]:
    """Where windows begin so that they cover a side, about a third overlapping."""
    last = max(length - window, 0)
    count = 1 + -(-last * 3 // (2 * window))
    return [round(i * last / max(count - 1, 1)) for i in range(count)]
