"""Pictures: what is decoded, and what becomes of 16 bits, floats, palettes and transparency."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2i1_data.diff2in1.pictures import TURNS, open_picture, read_size, to_rgb, to_values

DEEP = np.linspace(0, 65535, 12 * 8).reshape(12, 8).astype(np.uint16)


def stored(folder: Path, pixels: np.ndarray, name: str) -> Image.Image:
    """An image that was saved and opened."""
    Image.fromarray(pixels).save(folder / name)
    return open_picture(folder / name).image


@pytest.mark.parametrize(
    ("pixels", "name", "white", "expected"),
    [
        (DEEP, "a.png", None, DEEP >> 8),
        (DEEP, "a.tif", None, DEEP >> 8),
        (DEEP // 16, "a.png", 4095, np.round(DEEP // 16 * (255 / 4095))),
        (DEEP.astype(np.int32), "a.tif", None, DEEP >> 8),
        ((DEEP / 65535).astype(np.float32), "a.tif", None, np.round(DEEP / 257)),
        (DEEP.astype(np.float32), "a.tif", 65535, np.round(DEEP / 257)),
        (np.zeros((12, 8), np.uint16), "a.png", None, np.zeros((12, 8))),
    ],
)
def test_deep_images_by_one_rule(
    tmp_path: Path, pixels: np.ndarray, name: str, white: float | None, expected: np.ndarray
) -> None:
    rgb = to_rgb(stored(tmp_path, pixels, name), white)
    assert (rgb.shape, rgb.dtype) == ((12, 8, 3), np.uint8)
    np.testing.assert_array_equal(rgb, np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize(
    ("pixels", "name", "white", "wrong"),
    [
        (DEEP // 16, "a.png", None, "16 bits a pixel, but its largest value is 4095"),
        (DEEP, "a.png", 1000, "values from 0 to 65535; 0 is black and 1000 white"),
        (DEEP.astype(np.int32) - 9, "a.tif", None, "values from -9 to 65526"),
        (DEEP.astype(np.float32), "a.tif", None, "values from 0 to 65535; 0 is black and 1 white"),
        (np.full((4, 4), np.nan, np.float32), "a.tif", None, "values from nan to nan"),
        (np.zeros((4, 4, 3), np.uint8), "a.png", 255, "8 bits a channel"),
    ],
)
def test_images_without_a_known_white_are_refused(
    tmp_path: Path, pixels: np.ndarray, name: str, white: float | None, wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        to_rgb(stored(tmp_path, pixels, name), white)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_every_orientation_is_turned_upright(tmp_path: Path, name: str) -> None:
    ramp = np.linspace(0, 255, 16 * 24).reshape(16, 24).astype(np.uint8)
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # others undo themselves
    for orientation, method in TURNS.items():
        exif = Image.Exif()
        exif[274] = orientation
        lying = Image.fromarray(ramp).transpose(back.get(orientation, method))
        lying.save(tmp_path / name, exif=exif, compression="tiff_lzw")
        picture = open_picture(tmp_path / name)
        assert picture.orientation == orientation
        assert read_size(tmp_path / name) == read_size((tmp_path / name).read_bytes()) == (16, 24)
        difference = np.asarray(picture.image.convert("L")).astype(int) - ramp
        assert np.abs(difference).max() < 12  # JPEG and WEBP change values


def test_the_size_of_a_broken_image_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="not a readable image"):
        read_size(tmp_path / "a.png")


def test_a_turned_tiff_that_pillow_scrambles_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (24, 16)).save(tmp_path / "a.tif", exif=exif)
    with pytest.raises(ValueError, match="a turned TIFF"):
        open_picture(tmp_path / "a.tif")


def test_values_are_as_stored(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (12, 8)).astype(np.uint8)
    coloured = Image.fromarray(ids)
    coloured.putpalette([128, 64, 0, 9, 9, 9, 0, 0, 200])
    coloured.save(tmp_path / "a.png")
    np.testing.assert_array_equal(to_values(open_picture(tmp_path / "a.png").image), ids)
    colours = np.asarray(coloured.convert("RGB"))
    clear = np.dstack([colours, np.full((12, 8), 255, np.uint8)])
    np.testing.assert_array_equal(to_values(stored(tmp_path, clear, "b.png")), colours)
    clear[0, 0, 3] = 0
    assert to_values(stored(tmp_path, clear, "c.png")).shape == (12, 8, 4)


def postscript(folder: Path) -> Path:
    file = folder / "a.png"
    Image.new("RGB", (4, 4)).save(file, "EPS")
    return file


def frames(folder: Path) -> Path:
    (folder / "a.ppm").write_bytes(b"P6 2 2 255\n" + bytes(12))
    return folder / "a.ppm"


@pytest.mark.parametrize("make", [postscript, frames])
def test_other_formats_are_never_opened(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    file = make(tmp_path)
    for given in (file, file.read_bytes()):
        with pytest.raises(ValueError, match="not a readable image; expected JPEG, PNG"):
            open_picture(given)


def test_large_images_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    Image.new("1", (2000, 1000)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"2000 x 1000 pixels, allowed are 1,999,999"):
        open_picture(tmp_path / "a.png", 1_999_999)
    assert open_picture(tmp_path / "a.png", 2_000_000).image.size == (2000, 1000)
