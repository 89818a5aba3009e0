"""Read photos of users. An unusable file is refused, with the reason in one line."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checks import MAX_PIXELS
from ..diff2in1.pictures import open_picture, to_rgb
from ..errors import InputError


def read_photo(
    file: str | Path, max_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read an image file; `pictures.open_picture` and `pictures.to_rgb` say how.

    Args:
        file: JPEG, PNG, WEBP, GIF, BMP or TIFF.
        max_side: the image is scaled down to this longer side; None keeps its size.
        max_pixels: larger images are refused.

    Returns:
        The pixels, `[H, W, 3]`, upright.

    Raises:
        InputError: if the file is not such an image. The message contains no text of the file.
    """
    try:
        pixels = to_rgb(open_picture(file, max_pixels, max_side).image)
    except ValueError as error:
        raise InputError(str(error)) from error
    scale = max_side / max(pixels.shape) if max_side else 1
    if scale >= 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
