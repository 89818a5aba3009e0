"""Labels of other programs: what is taken as declared, and which line mends what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.sources import open_source
from d2i1_data.sources.source import Source

RNG = np.random.default_rng(5)
MASK = RNG.random((14, 20)) > 0.6
BYTES = MASK.astype(np.uint8) * 255
GREYS = RNG.integers(0, 256, (14, 20)).astype(np.uint8)
IDS = RNG.integers(0, 2, (14, 20)).astype(np.uint8)
COLOURS = np.array([[128, 64, 128], [0, 0, 200], [0, 0, 0]], np.uint8)
PALETTE = COLOURS[:2].tolist()
FLOATS = RNG.random((14, 20)).astype(np.float32)


def source_of(folder: Path, pixels: np.ndarray, task: str, column: Any, **classes: Any) -> Source:
    """A source of one image with one label."""
    ending = "tif" if pixels.dtype == np.float32 else "png"
    for name, part, end in (("x", pixels, ending), ("image", np.zeros((14, 20, 3), "u1"), "png")):
        (folder / name).mkdir()
        Image.fromarray(part).save(folder / name / f"0.{end}")
    content: dict[str, Any] = {"columns": {"image": "image", task: column}}
    if task == "semseg":
        content["classes"] = {task: {"names": ["road", "car"], **classes}}
    (folder / "x.yaml").write_text(yaml.safe_dump(content))
    return open_source(f"folder:{folder / 'x.yaml'}")


REFUSED = {
    "mask 0/255 of probabilities": (BYTES, "saliency", "255: give `scale: 255`"),
    "soft mask": (GREYS, "saliency", "255: give `scale: 255`"),
    "mask 0/1 of probabilities": (IDS, "saliency", "no value above 1: give `scale: 1`"),
    "float probabilities": (FLOATS, "saliency", "float32 values: give `scale: N`"),
    "mask 0/255 of classes": (BYTES, "semseg", "class ids 255 and [0]: give `values: {255: 1}`"),
    "8-bit depth": (GREYS, "depth", "uint8 values: give `scale: N`"),
    "one-bit depth": (MASK, "depth", "bool values: give `scale: N`"),
    "float depth": (FLOATS, "depth", "float32 values: give `scale: N`"),
    "coloured classes": (COLOURS[IDS], "semseg", "give `palette`"),
}


@pytest.mark.parametrize(("pixels", "task", "told"), REFUSED.values(), ids=REFUSED)
def test_two_meanings_are_refused_with_the_line_that_mends_it(
    tmp_path: Path, pixels: np.ndarray, task: str, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        source_of(tmp_path, pixels, task, "x")[0]
    assert told in str(caught.value)
    assert f"the line is `{task}: {{folder: x, ...}}` in {tmp_path}/x.yaml" in str(caught.value)


DECLARED = {
    "mask": (BYTES, "saliency", {"scale": 255}, MASK),
    "mask by values": (BYTES, "saliency", {"values": {255: 1}}, MASK),
    "grey mask in colours": (np.dstack([BYTES] * 3), "saliency", {"scale": 255}, MASK),
    "our own form": (BYTES, "saliency", {"unknown": 255}, np.where(MASK, -1, 0)),
    "0/1": (IDS, "saliency", {"scale": 1}, IDS),
    "float": (FLOATS, "saliency", {"scale": 1}, FLOATS),
    "classes": (BYTES, "semseg", {"values": {255: 1}}, MASK),
    "unknown border": (BYTES, "semseg", {"unknown": 255}, np.where(MASK, 255, 0)),
    "unknown class": (IDS, "semseg", {"unknown": [1]}, np.where(IDS == 1, 255, 0)),
    "depth": (GREYS, "depth", {"scale": 25, "unknown": 255}, GREYS % 255 / 25),
    "metres": (FLOATS, "depth", {"scale": 1}, FLOATS),
}


@pytest.mark.parametrize(("pixels", "task", "column", "expected"), DECLARED.values(), ids=DECLARED)
def test_declared_encodings_are_taken(
    tmp_path: Path, pixels: np.ndarray, task: str, column: dict[str, Any], expected: np.ndarray
) -> None:
    target = source_of(tmp_path, pixels, task, {"folder": "x", **column})[0].targets[task]
    np.testing.assert_allclose(target.astype(float), expected.astype(float), rtol=1e-6)


def test_coloured_classes_by_the_palette(tmp_path: Path) -> None:
    void = IDS.copy()
    void[0, 0] = 2
    column = {"folder": "x", "unknown": [[0, 0, 0]]}
    source = source_of(tmp_path, COLOURS[void], "semseg", column, palette=PALETTE)
    np.testing.assert_array_equal(source[0].targets["semseg"], np.where(void == 2, 255, void))
    text = (
        (tmp_path / "x.yaml")
        .read_text()
        .replace("unknown", "upright")
        .replace("\n    - - 0\n      - 0\n      - 0", " true")
    )
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"colour \[0, 0, 0\].* give `unknown: \[\[0, 0, 0\]\]`"):
        open_source(f"folder:{tmp_path / 'x.yaml'}")[0]


def test_normals_of_an_unknown_colour(tmp_path: Path) -> None:
    pixels = np.full((14, 20, 3), 255, np.uint8)
    pixels[3] = 128
    source = source_of(tmp_path, pixels, "normals", {"folder": "x", "unknown": [[128, 128, 128]]})
    length = np.linalg.norm(source[0].targets["normals"], axis=-1)
    np.testing.assert_allclose(length, np.where(np.arange(14) == 3, 0, 1)[:, None] + 0 * length)


def test_jpeg_class_ids_are_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, IDS, "semseg", "x")
    Image.fromarray(IDS).save(tmp_path / "x" / "0.png", "JPEG")
    with pytest.raises(InputError, match=r"x/0\.png: semseg is a JPEG.* expected PNG"):
        source[0]


def test_classes_that_never_occur_are_named(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(6):
        Image.fromarray(np.full((14, 20), n % 2, np.uint8)).save(photos.parent / f"label/{n}.png")
    source = open_source(f"folder:{photos}", "10")
    for index in (0, 1, 2, 3, 4):
        source[index]
    assert not caplog.messages
    list(source)
    list(source)
    (told,) = caplog.messages
    assert told.endswith("photos.yaml: semseg: no label has these classes: tree")


def test_labels_without_images_and_hidden_files_are_told(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = photos.parent / "image"
    (image / "._0.png").write_bytes(b"Mac OS X")
    (image / ".thumbs").mkdir()
    (image / ".thumbs" / "0.png").write_bytes(b"")
    source = open_source(f"folder:{photos}")
    assert len(source) == 6
    assert caplog.messages == [f"{image}: 2 hidden files are left out: ._0.png"]

    Image.new("L", (20, 14)).save(photos.parent / "label" / "9.png")
    source = open_source(f"folder:{photos}", "10")
    with pytest.raises(InputError, match=r"label/9\.png: a label without an image"):
        source.usable_rows()
    assert list(source.usable_rows(on_bad_row="skip").skipped) == ["9"]


def test_images_without_labels_stop_or_are_skipped(photos: Path) -> None:
    (photos.parent / "label" / "4.png").unlink()
    source = open_source(f"folder:{photos}", "10")
    with pytest.raises(InputError, match=r"1 of 6 images have no semseg, the first is '4' in"):
        source.usable_rows()
    rows = source.usable_rows(on_bad_row="skip")
    assert rows.usable == [0, 1, 2, 3, 5]
    assert list(rows.skipped) == ["4"] and "no semseg of '4'" in rows.skipped["4"]


def turned(photos: Path, orientation: int) -> np.ndarray:
    """Give the first photograph an orientation; its label in the file's own orientation."""
    lying = Image.open(photos.parent / "image" / "0.png")
    exif = Image.Exif()
    exif[274] = orientation
    lying.save(photos.parent / "image" / "0.png", exif=exif)
    label = RNG.integers(0, 3, (14, 20)).astype(np.uint8)
    Image.fromarray(label).save(photos.parent / "label" / "0.png")
    return label


def test_labels_are_turned_with_their_photograph(photos: Path) -> None:
    label = turned(photos, 6)
    source = open_source(f"folder:{photos}")
    sample = source[0]
    assert sample.image.shape == (20, 14, 3)
    np.testing.assert_array_equal(sample.targets["semseg"], np.rot90(label, -1))
    assert source.notes == {"semseg turned with its image": 1}
    Image.fromarray(np.rot90(label, -1)).save(photos.parent / "label" / "0.png")  # drawn upright
    np.testing.assert_array_equal(source[0].targets["semseg"], np.rot90(label, -1))


def test_labels_that_fit_both_ways_need_a_word(photos: Path) -> None:
    label, text = turned(photos, 3), photos.read_text()
    with pytest.raises(InputError, match=r"label/0\.png.*EXIF orientation 3.*`upright: true`"):
        open_source(f"folder:{photos}")[0]
    for word, expected in (("true", label), ("false", label[::-1, ::-1])):
        column = f"semseg: {{folder: label, upright: {word}}}"
        photos.write_text(text.replace("semseg: label", column))
        target = open_source(f"folder:{photos}")[0].targets["semseg"]
        np.testing.assert_array_equal(target, expected)


def test_deep_images_name_their_line(photos: Path) -> None:
    deep = np.linspace(0, 4095, 14 * 20).reshape(14, 20).astype(np.uint16)
    Image.fromarray(deep).save(photos.parent / "image" / "0.png")
    with pytest.raises(InputError, match=r"image/0\.png: 16 bits.*`image: \{folder: image, "):
        open_source(f"folder:{photos}")[0]
    text = photos.read_text()
    photos.write_text(text.replace("image: image", "image: {folder: image, scale: 4095}"))
    image = open_source(f"folder:{photos}")[0].image
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize("act", ["import", "warm-up"])
def test_max_pixels_of_commands(
    act: str, photos: Path, tiny_base: Path, tmp_path: Path, d2i1: Callable[..., str]
) -> None:
    """On photographs of 20 x 14 pixels with labels of 40 x 28."""
    flags = ("--source", f"folder:{photos}", "--output_dir", tmp_path / "out")
    if act == "warm-up":
        flags += ("--base", tiny_base, "--host", "light", "--max_train_steps", 1, "--width", 16)
    told = d2i1(act, *flags, "--max_pixels", 279, code=2)
    assert "20 x 14 pixels, allowed are 279 (max_pixels)" in told


def test_max_pixels_of_a_source(photos: Path) -> None:
    with pytest.raises(InputError, match=r"image/0\.png: 20 x 14 pixels, allowed are 279"):
        open_source(f"folder:{photos}", max_pixels=279)[0]
    assert open_source(f"folder:{photos}", max_pixels=40 * 28)[0].image.shape == (14, 20, 3)
