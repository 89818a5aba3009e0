"""Pictures: the one way in for image files, and the one rule that makes 8-bit RGB of them."""

import http.client
import io
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pillow decodes these formats itself. For others, such as EPS, it starts another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PILLOW_LIMIT = 178_956_970  # pixels; Pillow refuses larger images
DOWNLOAD_BYTES = 500_000_000  # of a file behind an address
DOWNLOAD_SECONDS = 30  # without an answer
SMALLEST_WHITE = 4096  # in 16 bits; images of up to 12 bits must say what white is
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # one channel of 16 or 32 bits
TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange the sides


class Picture(NamedTuple):
    """A decoded picture.

    image: its pixels, upright. orientation: EXIF orientation in the file; 1 is upright or unknown.
    kind: its format, such as `PNG`.
    """

    image: Image.Image
    orientation: int
    kind: str


def open_picture(
    file: str | Path | bytes, max_pixels: int = PILLOW_LIMIT, max_side: int | None = None
) -> Picture:
    """Decode an image file, of an animation the first frame, and turn it upright.

    Args:
        file: a file in one of `FORMATS`, or its content.
        max_pixels: refuse larger images before they are decoded; a small file can hold a huge one.
        max_side: a JPEG may be decoded at a smaller size, with a longer side of at least this.

    Raises:
        ValueError: if it is no such image. The message contains no text of the file.
    """
    try:
        source = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(source, formats=FORMATS) as picture:
            width, height = picture.size
            problem = f"{width} x {height} pixels, allowed are {max_pixels:,} (max_pixels)"
            if width * height <= max_pixels:
                found = _decode(picture, max_side)
                if found:
                    return found
                problem = "a turned TIFF that Pillow cannot read; save it with compression"
    except Image.DecompressionBombError:
        problem = f"far too many pixels, allowed are {min(max_pixels, PILLOW_LIMIT):,} (max_pixels)"
    except Exception as error:  # Pillow's decoders raise errors of many kinds for broken files
        raise ValueError(f"not a readable image; expected {', '.join(FORMATS)}") from error
    raise ValueError(problem)


def read_picture(place: str | Path) -> Image.Image:
    """Read an image file from a path or from an address that begins with http:// or https://.

    Raises:
        ValueError: if there is none, or it is no image; the message begins with the place.
    """
    try:
        if str(place).startswith(("http://", "https://")):
            return open_picture(_download(str(place))).image
        if not (path := Path(place).expanduser()).is_file():
            raise ValueError("no such file; expected a path, http:// or https://")
        return open_picture(path).image
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=DOWNLOAD_SECONDS) as answer:
            content: bytes = answer.read(DOWNLOAD_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:  # no host, 404, no address
        raise ValueError(f"cannot be downloaded: {error}") from error
    if len(content) > DOWNLOAD_BYTES:
        raise ValueError(f"more than {DOWNLOAD_BYTES:,} bytes")
    return content


def read_size(file: str | Path | bytes) -> tuple[int, int]:
    """Height and width of an image as `open_picture` gives it. Most files need no decoding.

    Args:
        file: a file in one of `FORMATS`, or its content.

    Raises:
        ValueError: if it is no such image.
    """
    try:
        source = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(source, formats=FORMATS) as picture:
            width, height = picture.size
            if width == height or width * height > PILLOW_LIMIT:
                return height, width
            # Pillow gives the size of a TIFF upright. For a PNG it looks through the whole file.
            turned = picture.format != "TIFF" and _orientation(picture) in SIDEWAYS
    except Exception as error:  # Pillow raises errors of many kinds for broken files
        raise ValueError(f"not a readable image; expected {', '.join(FORMATS)}") from error
    return (width, height) if turned else (height, width)


def _decode(picture: Any, max_side: int | None) -> Picture | None:
    """The decoded picture; None if Pillow read it with sides exchanged."""
    orientation, kind = _orientation(picture), str(picture.format)
    if max_side is not None:
        picture.draft("RGB", (max_side, max_side))
    size = picture.size
    picture.load()  # it turns a TIFF
    if picture.size != size:
        return None
    return Picture(turn(picture, _orientation(picture)), orientation, kind)


def _orientation(picture: Image.Image) -> int:
    try:
        orientation = picture.getexif().get(274)
    except Exception:  # damaged camera data do not make an image unreadable
        return 1
    return orientation if isinstance(orientation, int) and orientation in TURNS else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image upright that lies in its file with this EXIF orientation."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def to_rgb(image: Image.Image, white: float | None = None) -> NDArray[np.uint8]:
    """8-bit RGB pixels. Transparent parts become white.

    Of 16 bits the upper 8 are kept, because 65535 is white. In a float image 1 is white.

    Args:
        image: an image of any mode.
        white: the stored value of white in an image with one channel of 16 or 32 bits.

    Returns:
        [H, W, 3].

    Raises:
        ValueError: if values are outside of black to white, or white is unknown.
    """
    if image.mode in DEEP_MODES:
        return np.repeat(_eight_bits(image, white)[..., None], 3, -1)
    if white is not None:
        raise ValueError("8 bits a channel; `scale` is for images of 16 or 32 bits")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _eight_bits(image: Image.Image, white: float | None) -> NDArray[np.uint8]:
    values = np.asarray(image)
    low, high, floats = values.min().item(), values.max().item(), image.mode == "F"
    if white is None and not floats:
        _check_white(high)
    most = white or (1 if floats else 65535)
    if not (low >= 0 and high <= most):  # also NaN
        raise ValueError(f"values from {low:g} to {high:g}; 0 is black and {most:g} white")
    if not floats and most == 65535:
        return (values >> 8).astype(np.uint8)
    return np.round(values * (255 / most)).astype(np.uint8)


def upper_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The upper 8 of 16 bits, as Pillow reads colours of 16 bits.

    Raises:
        ValueError: if the values are so small that white can hardly be 65535.
    """
    _check_white(values.max().item())
    return (values >> 8).astype(np.uint8)


def _check_white(high: float) -> None:
    if 0 < high < SMALLEST_WHITE:
        raise ValueError(f"16 bits a pixel, but its largest value is {high}; white is 65535")


def to_values(image: Image.Image) -> NDArray[np.generic]:
    """Pixels as stored, without colour conversion. A channel of full opacity is left out.

    Returns:
        [H, W] or [H, W, channels]; of an image with a palette, the numbers of its colours.
    """
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert(image.mode[:-1])
    return np.asarray(image)
