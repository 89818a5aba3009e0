"""Sliding windows: images that are too large for one pass are predicted in overlapping squares."""

from collections.abc import Callable

from torch import Tensor


def predict_in_windows(
    predict: Callable[[Tensor], dict[str, Tensor]], pixels: Tensor, window: int | None
) -> dict[str, Tensor]:
    """Predict maps of images in windows. Overlaps are averaged.

    Args:
        predict: gives maps `[B, R, h, w]` by task for images `[B, 3, h, w]`, in a form that may be
            averaged.
        pixels: images `[B, 3, H, W]`.
        window: side of the square windows. None predicts the whole image at once.

    Returns:
        Task name -> map `[B, R, H, W]`.
    """
    height, width = pixels.shape[-2:]
    if window is None or max(height, width) <= window:
        return predict(pixels)
    total: dict[str, Tensor] = {}
    count = pixels.new_zeros(1, 1, height, width)
    for top in starts(height, window):
        for left in starts(width, window):
            area = (..., slice(top, top + window), slice(left, left + window))
            count[area] += 1
            for name, raw in predict(pixels[area]).items():
                whole = raw.new_zeros(*raw.shape[:2], height, width)
                total.setdefault(name, whole)[area] += raw
    return {name: raw / count for name, raw in total.items()}


def starts(length: int, window: int) -> list[int]:
    """First pixels of windows that cover a side and overlap by about a third.

    Args:
        length: length of the side in pixels.
        window: length of a window in pixels.
    """
    last = max(length - window, 0)
    count = 1 + -(-last * 3 // (2 * window))
    return [round(i * last / max(count - 1, 1)) for i in range(count)]
