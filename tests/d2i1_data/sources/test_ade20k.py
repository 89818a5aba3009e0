"""ADE20K in its official layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.sources import open_rows, open_source
from d2i1_data.sources.ade20k import Ade20k
from tests.d2i1_data.sources.layouts import save

TRAIN, VAL = "ADE_train_00000001", "ADE_val_00000001"


def write(folder: Path) -> Path:
    """An image of each split, 5 x 8; a label that goes from left to right."""
    label = np.tile(np.array([0, 1, 2, 150, 7, 0, 90, 13], np.uint8), (5, 1))
    for place, name in (("training", TRAIN), ("validation", VAL)):
        save(folder / f"images/{place}/{name}.jpg", np.full((5, 8, 3), 200, np.uint8))
        save(folder / f"annotations/{place}/{name}.png", label)
    (folder / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
    return folder


def test_classes_begin_at_zero_and_the_rest_is_unknown(tmp_path: Path) -> None:
    write(tmp_path / "ADEChallengeData2016")
    for place in (tmp_path, tmp_path / "ADEChallengeData2016"):
        source = open_source(f"ade20k:{place}:val")
        assert [sample.id for sample in source] == [VAL]
    sample, family = source[0], source.tasks["semseg"].family
    assert sample.targets["semseg"].shape == (5, 8)
    assert sample.targets["semseg"][4].tolist() == [255, 0, 1, 149, 6, 255, 89, 12]
    assert [family.names[k] for k in (0, 1, 149, 6, 89, 12)] == [
        *("wall", "building", "flag", "road"),
        *("television receiver", "person"),
    ]
    assert (len(family.names), len({*family.names})) == (150, 150)
    assert family.palette[0] == (120, 120, 120) and family.palette[149] == (0x5C, 0, 255)
    assert family.palette[6] == family.palette[48] == (140, 140, 140)  # road, skyscraper
    assert Ade20k(str(tmp_path)).ids == [TRAIN]
    assert sample.provenance.source_dataset == "ade20k"


def test_photographs_are_not_turned(tmp_path: Path) -> None:
    """The official programs do not look at camera data, and labels lie as the file stores it."""
    write(tmp_path)
    pixels = np.zeros((5, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    for orientation in (6, 8, 3):
        exif = Image.Exif()
        exif[274] = orientation
        file = tmp_path / f"images/training/{TRAIN}.jpg"
        Image.fromarray(pixels).save(file, exif=exif, quality=100)
        source = Ade20k(str(tmp_path))
        sample = source[0]
        assert sample.image.shape == (5, 8, 3)
        assert sample.image[2, 0].max() < 60 < 200 < sample.image[2, 7].min()
        assert source.notes == {"images kept as their file stores them, not turned": 1}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("number", "holds class number 151, allowed are 0 to 150"),
        ("colours", "expected class numbers, height x width"),
        ("size", "its image has another aspect ratio, 8x5"),
        ("no label", "no such file: "),
        ("no image", "a label without an image"),
        ("no folder", "expected files such as "),
        ("truncated", "not a readable image"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(what: str, expected: str, tmp_path: Path) -> None:
    label = write(tmp_path) / f"annotations/training/{TRAIN}.png"
    if what == "number":
        save(label, np.full((5, 8), 151, np.uint8))
    elif what == "colours":
        save(label, np.zeros((5, 8, 3), np.uint8))
    elif what == "size":
        save(label, np.zeros((8, 5), np.uint8))
    elif what == "no label":
        label.rename(tmp_path / "annotations/training/ADE_train_00000002.png")
    elif what == "no image":
        save(tmp_path / "annotations/training/ADE_train_00000002.png", np.zeros((5, 8), np.uint8))
    elif what == "truncated":
        label.write_bytes(label.read_bytes()[:50])
    place = tmp_path / "annotations" if what == "no folder" else tmp_path
    with pytest.raises(InputError) as raised:
        [*open_rows(f"ade20k:{place}").samples()]
    assert expected in str(raised.value) and "\n" not in str(raised.value)
