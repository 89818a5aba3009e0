"""Uploads of visitors: a file read as pixels, and pixels as a source of one sample."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..dataset.sample import Provenance, Sample, image_sha256
from ..errors import InputError
from ..sources.source import fingerprint
from ..tasks import Task

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow decodes them without programs
MAX_PIXELS = 50_000_000  # a small file may claim many pixels
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
UPLOAD = "upload"  # name of the source


class UploadSource:
    """A source of one image. Its id comes from its content; its caption is the prompt."""

    name = UPLOAD
    has_images = True

    def __init__(self, image: NDArray[np.uint8], caption: str | None = None) -> None:
        """Make a sample of an image.

        Args:
            image: RGB, `[H, W, 3]`.
            caption: the prompt, None for labelling.
        """
        sha256 = image_sha256(image)
        self.fingerprint = fingerprint(UPLOAD, sha256)
        self.notes: dict[str, int] = {}
        self.tasks: dict[str, Task] = {}
        identity = f"{UPLOAD}-{sha256[:12]}"
        origin = Provenance(source_dataset=UPLOAD, source_id=identity, source_sha256=sha256)
        self.sample = Sample(identity, image, {}, caption, origin)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Sample]:
        yield self.sample

    def __getitem__(self, index: int) -> Sample:
        return self.sample

    def identity(self, index: int) -> str:
        """The id of the sample."""
        return self.sample.id

    def picture(self, index: int) -> Sample:
        """The sample; it has no targets."""
        return self.sample


def read_upload(file: str | Path, max_side: int) -> NDArray[np.uint8]:
    """The picture in a file as upright RGB pixels.

    An animation gives its first frame. Transparent pixels are laid on white. Of 16 bits the upper 8
    are used.

    Args:
        file: an uploaded file.
        max_side: larger pictures are scaled down to this many pixels on the longer side.

    Returns:
        Pixels, `[H, W, 3]`.

    Raises:
        InputError: if it is no such picture. The message repeats no content of the file.
    """
    allowed = f"expected an image: {', '.join(FORMATS)}"
    try:
        with Image.open(file, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"this image has {width} x {height} pixels, allowed are {MAX_PIXELS // 10**6}"
                    " million; make it smaller first"
                )
            picture.draft("RGB", (max_side, max_side))  # decodes a JPEG at a smaller size
            return np.asarray(_fitted(_rgb(_upright(picture)), max_side))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"this image has far more than {MAX_PIXELS // 10**6} million pixels; make it smaller"
            " first"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises them for broken files
        raise InputError(f"this file cannot be read; {allowed}") from error


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as the camera was held; as it is stored if the EXIF data is damaged."""
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
