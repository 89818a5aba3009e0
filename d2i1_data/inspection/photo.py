"""Read photos of users. An unusable file is refused, with the reason in one line."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import InputError

# Pillow decodes these formats itself, without other programs
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
LARGEST = 50_000_000  # pixels; a limit is needed because a small file can hold a huge image
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")


def read_photo(file: str | Path, max_side: int | None = None) -> NDArray[np.uint8]:
    """Read an image file.

    Only the first frame of an animation is read. Transparent parts become white. Of 16 bits, the
    upper 8 are kept.

    Args:
        file: JPEG, PNG, WEBP, GIF, BMP or TIFF.
        max_side: the image is scaled down to this longer side; None keeps its size.

    Returns:
        The pixels, `[H, W, 3]`, upright.

    Raises:
        InputError: if the file is not such an image. The message contains no text of the file.
    """
    allowed = f"expected an image: {', '.join(FORMATS)}"
    try:
        with Image.open(file, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > LARGEST:
                raise InputError(
                    f"this image has {width} x {height} pixels, allowed are {LARGEST // 10**6}"
                    " million; make it smaller first"
                )
            if max_side is None:
                return np.asarray(_rgb(_upright(picture)))
            picture.draft("RGB", (max_side, max_side))  # a JPEG is decoded at a smaller size
            return np.asarray(_fitted(_rgb(_upright(picture)), max_side))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"this image has far more than {LARGEST // 10**6} million pixels; make it smaller first"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises these for broken files
        raise InputError(f"this file cannot be read; {allowed}") from error


def _upright(picture: Image.Image) -> Image.Image:
    """Rotate the picture as its camera data say. If these are damaged, leave it unchanged."""
    try:
        return ImageOps.exif_transpose(picture)
    except (struct.error, SyntaxError, ValueError):
        return picture


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in GREY_16:
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise InputError("this image has 32 bits a pixel; expected 8 or 16 bits a channel")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def _fitted(picture: Image.Image, max_side: int) -> Image.Image:
    scale = max_side / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
