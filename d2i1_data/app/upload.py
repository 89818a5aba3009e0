"""What a visitor uploads, as pixels, or told in one line why it cannot be used."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # decoded by Pillow alone, nothing is run
LARGEST = 50_000_000  # pixels, which a small file may claim
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")


def read_upload(file: str | Path, max_side: int) -> NDArray[np.uint8]:
    """The picture in a file, [H, W, 3], upright and at most `max_side` pixels long.

    Of an animation the first frame; what is transparent lies on white; of 16 bits the upper 8.
    Raises InputError for anything that is no such picture, without a word of the file's own.
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
            picture.draft("RGB", (max_side, max_side))  # of a JPEG no more than is used is decoded
            return np.asarray(_fitted(_rgb(_upright(picture)), max_side))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"this image has far more than {LARGEST // 10**6} million pixels; make it smaller first"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        raise InputError(f"this file cannot be read; {allowed}") from error


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its camera was; where what the camera noted is damaged, as it is stored."""
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
