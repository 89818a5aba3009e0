"""Class remapping: by name and by id, many to one, to unknown; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.sources import open_source
from d2i1_data.sources.source import Source

STORED = ["sky", "road", "car", "bus", "void"]
IDS = np.array([[0, 1, 2], [3, 4, 300]], np.uint16)  # 300 is ignored
COLOURS = [[0, 0, 9], [9, 0, 0], [1, 1, 1], [2, 2, 2], [0, 0, 0]]


def source_of(folder: Path, pixels: np.ndarray = IDS, **classes: Any) -> Source:
    """A source of one image with one label map."""
    for name, part in (("label", pixels), ("image", np.zeros((2, 3, 3), np.uint8))):
        (folder / name).mkdir()
        Image.fromarray(part).save(folder / name / "0.png")
    content = {"columns": {"image": "image", "semseg": "label"}, "classes": {"semseg": classes}}
    (folder / "x.yaml").write_text(yaml.safe_dump(content))
    return open_source(f"folder:{folder / 'x.yaml'}")


TAKEN = {
    "by name, many to one, to unknown": (
        {"stored": STORED, "remap": {"car": "vehicle", "bus": "vehicle", "void": None}},
        ["sky", "road", "vehicle"],
        [[0, 1, 2], [2, 255, 255]],
    ),
    "names decide the ids": (
        {
            "stored": STORED,
            "names": ["vehicle", "sky"],
            "remap": {"car": "vehicle", "bus": 0, "*": None},
        },
        ["vehicle", "sky"],
        [[1, 255, 0], [0, 255, 255]],
    ),
    "by id": (
        {"names": ["room", "thing"], "remap": {0: "room", 1: 0, 2: 1, 3: "thing", 4: None}},
        ["room", "thing"],
        [[0, 0, 1], [1, 255, 255]],
    ),
    "stored classes by their numbers": (
        {"stored": STORED, "remap": {0: "road", "4": None}},
        ["road", "car", "bus"],
        [[0, 0, 1], [2, 255, 255]],
    ),
    "all others are one class": (
        {"names": ["car", "rest"], "remap": {2: 0, "*": "rest"}},
        ["car", "rest"],
        [[1, 1, 0], [1, 1, 255]],
    ),
}


@pytest.mark.parametrize(("classes", "names", "expected"), TAKEN.values(), ids=TAKEN)
def test_classes_are_remapped(
    tmp_path: Path, classes: dict[str, Any], names: list[str], expected: list[list[int]]
) -> None:
    source = source_of(tmp_path, ignore=[300], **classes)
    assert source.tasks["semseg"].family.names == tuple(names)
    np.testing.assert_array_equal(source[0].targets["semseg"], expected)


def test_colours_are_those_of_the_stored_classes(tmp_path: Path) -> None:
    pixels = np.array(COLOURS, np.uint8)[[[0, 1, 2], [3, 4, 4]]]
    remap = {"car": "vehicle", "bus": "vehicle", "void": None}
    source = source_of(tmp_path, pixels, stored=STORED, palette=COLOURS, remap=remap)
    np.testing.assert_array_equal(source[0].targets["semseg"], [[0, 1, 2], [2, 255, 255]])
    assert source.tasks["semseg"].family.palette == tuple(map(tuple, COLOURS[:3]))


REFUSED = {
    "an unknown stored name": (
        {"stored": STORED, "remap": {"lorry": "car"}},
        "remap: 'lorry' is neither one of `stored` nor its number",
    ),
    "an unknown class": (
        {"names": ["sky"], "remap": {0: "skies"}},
        "remap: got 'skies', expected one of `names`, 0 to 0, or null",
    ),
    "an id out of range": ({"names": ["sky"], "remap": {0: 1}}, "remap: got 1, expected"),
    "a truth value": ({"names": ["sky"], "remap": {0: True}}, "remap: got True, expected"),
    "names without stored": (
        {"names": ["sky"], "remap": {"sky": "sky"}},
        "remap: 'sky': give the names of stored ids under `stored`",
    ),
    "no place": (
        {"stored": STORED, "names": ["sky", "road", "car"]},
        "stored class 'bus' is not one of `names`: name it in `remap`",
    ),
    "ids without names": ({"remap": {0: 0}}, "give `names`, or `stored` and `remap`"),
    "ids of new classes": ({"stored": STORED, "remap": {"sky": 0}}, "got 0, which needs `names`"),
    "no names": ({"ignore": [1]}, "'names' is missing"),
    "colours of another length": (
        {"stored": STORED, "palette": COLOURS[:2]},
        "2 palette colours for 5",
    ),
    "an id without a place": (
        {"names": ["sky"], "remap": {0: 0, 1: 0, 2: 0, 3: 0}},
        "semseg has class id 4, which `remap` does not name",
    ),
}


@pytest.mark.parametrize(("classes", "told"), REFUSED.values(), ids=REFUSED)
def test_a_remap_that_means_nothing_is_refused(
    tmp_path: Path, classes: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError) as caught:
        source_of(tmp_path, **classes)[0]
    assert told in str(caught.value) and "x.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
