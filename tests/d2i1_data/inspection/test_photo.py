"""Photos of users: what is read, and what is refused."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.inspection.photo import read_photo
from tests.d2i1_data.app.images import ROOM, broken, saved


def test_uploads_are_upright_rgb(tmp_path: Path) -> None:
    room, read = Image.fromarray(ROOM[:40]), lambda file: read_photo(file, 64)
    np.testing.assert_array_equal(read(saved(tmp_path, "a.png", room)), ROOM[:40])

    exif = room.getexif()
    exif[274] = 6  # the camera was turned
    turned = read(saved(tmp_path, "b.png", room, exif=exif))
    np.testing.assert_array_equal(turned, np.rot90(ROOM[:40], -1))

    palette = room.convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(
        read(saved(tmp_path, "c.png", palette)), np.asarray(palette.convert("RGB"))
    )
    frames = [room.convert("P"), room.rotate(90).convert("P")]
    moving = saved(tmp_path, "d.gif", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read(moving), np.asarray(frames[0].convert("RGB")))

    clear = room.convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat(np.uint8([[0, 255]]), 32, 1).repeat(40, 0)))
    opaque = read(saved(tmp_path, "e.png", clear))
    assert (opaque[:, :32] == 255).all()
    np.testing.assert_array_equal(opaque[:, 32:], ROOM[:40, 32:])

    deep = np.linspace(0, 65535, 64 * 40).reshape(40, 64).astype(np.uint16)
    grey = read(saved(tmp_path, "f.png", Image.fromarray(deep)))
    np.testing.assert_array_equal(grey, np.repeat((deep >> 8)[..., None], 3, -1))
    assert read(saved(tmp_path, "g.jpg", room.convert("CMYK"))).shape == (40, 64, 3)


def test_large_uploads_are_scaled_down(tmp_path: Path) -> None:
    for name, mode in (("a.png", "RGB"), ("b.jpg", "RGB"), ("c.png", "L")):
        file = saved(tmp_path, name, Image.new(mode, (3000, 1000), "grey"))
        pixels = read_photo(file, 60)
        assert pixels.shape == (20, 60, 3) and np.abs(pixels.astype(int) - 128).max() <= 1
    assert read_photo(saved(tmp_path, "d.png", Image.new("L", (3000, 1))), 60).shape == (1, 60, 3)


def test_damaged_exif_data_is_ignored(tmp_path: Path) -> None:
    exif, picture = Image.Exif(), Image.fromarray(ROOM)
    exif[274], exif[270] = 6, "a description of a room"
    torn = exif.tobytes()[:12]
    for name, own in (("a.jpg", exif), ("b.jpg", torn), ("c.jpg", None)):
        saved(tmp_path, name, picture, **({"exif": own} if own else {}))
    turned, kept, plain = (read_photo(tmp_path / name, 64) for name in ("a.jpg", "b.jpg", "c.jpg"))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))
    np.testing.assert_array_equal(kept, plain)


def huge(folder: Path, width: int) -> Path:
    return saved(folder, f"{width}.png", Image.new("1", (width, 10_000)))


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(ROOM).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda f: broken(f, "a.png", b"<b>no image</b>"), "not a readable image; expected JPEG"),
        (lambda f: broken(f, "a.png", b""), "not a readable image"),
        (lambda f: broken(f, "a.jpg", jpeg()[:400]), "not a readable image"),
        (
            lambda f: broken(f, "a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            "not a readable",
        ),
        (lambda f: broken(f, "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"), "not a readable image"),
        (lambda f: huge(f, 6_000), "6000 x 10000 pixels, allowed are 50,000,000"),
        (lambda f: huge(f, 20_000), "far too many pixels, allowed are 50,000,000"),
        (
            lambda f: saved(f, "a.tiff", Image.new("F", (4, 4), 2)),
            "values from 2 to 2; 0 is black and 1",
        ),
    ],
)
def test_other_files_are_refused(make: Callable[[Path], Path], wrong: str, tmp_path: Path) -> None:
    file = make(tmp_path)
    with pytest.raises(InputError, match=wrong) as raised:
        read_photo(file, 64)
    assert str(tmp_path) not in str(raised.value) and "<b>" not in str(raised.value)
