"""Resize the samples of a source."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checks import MAX_SIDE
from ..dataset.sample import Sample
from ..errors import InputError
from .source import Source
from .wrapped import WrappedSource

Size = tuple[int, int]  # height, width
Box = tuple[int, int, int, int]  # left, top, right, bottom
SHORT = "short:"  # begins a resolution by the shorter side
MOST_ASPECT = 4  # of the sides of an image that is resized by its shorter side


@dataclass(frozen=True)
class Shorter:
    """A resolution by the shorter side, in pixels. The longer side is at most four times as long.

    Source: mmsegmentation resizes ADE20K to a scale of (2048, 512) in the same way.
    """

    side: int


Resolution = int | Size | Shorter


def parse_resolution(text: str | None) -> Resolution | None:
    """Read the text of a `--resolution`.

    Args:
        text: `512` is the longer side and `short:512` the shorter side; the aspect ratio is kept.
            `480x640` is height x width; images are first cut to this aspect ratio. None keeps the
            sizes of the images.

    Raises:
        InputError: if the text has another form.
    """
    if text is None:
        return None
    shorter = text.startswith(SHORT)
    parts = text.removeprefix(SHORT).split("x")
    sides = [int(part) if part.isdecimal() and len(part) < 9 else 0 for part in parts]
    if not all(0 < side <= MAX_SIDE for side in sides) or len(sides) > (1 if shorter else 2):
        allowed = f"expected a number such as 512, short:512 or 480x640, up to {MAX_SIDE}"
        raise InputError(f"resolution {text!r:.60}: {allowed}")
    if shorter:
        return Shorter(sides[0])
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


class ResizedSource(WrappedSource):
    """A source at another resolution. Images are resized with Lanczos, targets with nearest.

    Args:
        source: the source to resize.
        resolution: longer side, shorter side, or height and width, in pixels.
    """

    def __init__(self, source: Source, resolution: Resolution) -> None:
        super().__init__(source)
        self.resolution = resolution

    def image_size(self, index: int) -> Size:
        if isinstance(self.resolution, tuple):
            return self.resolution
        return _crop(self.source.image_size(index), self.resolution)[1]

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        sample = self.source.read(index, tasks)
        box, size = _crop(sample.size, self.resolution)
        image = Image.fromarray(sample.image).crop(box).resize(size[::-1], Image.Resampling.LANCZOS)

        def resized(maps: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {name: nearest(_cut(pixels, box), size) for name, pixels in maps.items()}

        targets, confidence = resized(sample.targets), resized(sample.confidence)
        return replace(sample, image=np.asarray(image), targets=targets, confidence=confidence)


def nearest(pixels: NDArray[np.generic], size: Size) -> NDArray[np.generic]:
    """Resize a map without mixing pixels.

    Args:
        pixels: [H, W] or [H, W, C].
        size: height and width of the result.
    """
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(size, pixels.shape, strict=False))
    return pixels[rows.astype(int)[:, None], columns.astype(int)]


def _crop(size: Size, resolution: Resolution) -> tuple[Box, Size]:
    """The box that is kept, and the size that it is resized to."""
    height, width = size
    if not isinstance(resolution, tuple):
        if isinstance(resolution, Shorter):
            scale = resolution.side * min(1 / min(size), MOST_ASPECT / max(size))
        else:
            scale = resolution / max(size)
        return (0, 0, width, height), (max(1, round(height * scale)), max(1, round(width * scale)))
    aspect = resolution[1] / resolution[0]
    h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return (left, top, left + w, top + h), resolution


def _cut(pixels: NDArray[np.generic], box: Box) -> NDArray[np.generic]:
    left, top, right, bottom = box
    return pixels[top:bottom, left:right]
