"""PASCAL-Context in its official layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from d2i1_data.errors import InputError
from d2i1_data.sources import open_rows, open_source
from d2i1_data.sources.label_edges import label_edges, thin
from d2i1_data.sources.pascal_context import WITH_NORMALS, PascalContext
from tests.d2i1_data.sources.layouts import PLANES, save, stored_planes

BOTH, ONE = "2008_000002", "2008_000003"  # with files of VOC and of PASCAL-Context; with the latter
SIZE = (6, 9)
PARTS = np.dtype([("part_name", object), ("mask", object)])
OBJECT = np.dtype([("class", object), ("class_ind", object), ("mask", object), ("parts", object)])


def struct(kind: np.dtype, rows: list[tuple[Any, ...]]) -> np.ndarray:
    """A struct array of MATLAB, 1 x n."""
    array = np.empty((1, len(rows)), kind)
    for n, row in enumerate(rows):
        array[0, n] = row
    return array


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[rows, columns] = 1
    return mask


def thing(class_id: int, mask: np.ndarray, parts: dict[str, np.ndarray]) -> tuple[Any, ...]:
    inner = struct(PARTS, [*parts.items()]) if parts else np.zeros((0, 0))
    return ("name", class_id, mask, inner)


def save_parts(root: Path, identity: str, things: list[tuple[Any, ...]]) -> None:
    anno = np.empty((1, 1), [("imname", object), ("objects", object)])
    anno[0, 0] = (identity, struct(OBJECT, things))
    (root / "human_parts").mkdir(parents=True, exist_ok=True)
    savemat(root / f"human_parts/{identity}.mat", {"anno": anno}, do_compression=True)


def write(folder: Path) -> Path:
    """Two images of the split val; one of them shows a person."""
    root = folder / "PASCALContext"
    person = {"head": box(slice(0, 2), slice(0, 3)), "hair": box(slice(0, 1), slice(0, 3))}
    person |= {"torso": box(slice(1, 4), slice(0, 3)), "lfoot": box(slice(4, 5), slice(0, 3))}
    car = thing(7, box(slice(0, 6), slice(6, 9)), {"frontside": box(slice(0, 6), slice(6, 9))})
    without = thing(15, box(slice(0, 6), slice(3, 6)), {})
    save_parts(root, BOTH, [car, thing(15, box(slice(0, 6), slice(0, 3)), person), without])
    save_parts(root, ONE, [car, without])
    labels = np.full(SIZE, 440, np.uint16)  # wall
    labels[:, 3:6], labels[:, 6:] = 158, 360  # floor, sky
    for n, i in enumerate((BOTH, ONE)):
        save(root / f"JPEGImages/{i}.jpg", np.full((*SIZE, 3), 100 + n, np.uint8))
        save(root / f"semseg/pascal-context/{i}.png", np.full(SIZE, 12, np.uint8))
        (root / "pascal-context/trainval").mkdir(parents=True, exist_ok=True)
        savemat(root / f"pascal-context/trainval/{i}.mat", {"LabelMap": labels})
        colours = stored_planes(SIZE, [[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
        save(root / f"normals_distill/{i}.png", colours)
        save(root / f"sal_distill/{i}.png", np.full(SIZE, 127 + n, np.uint8))
    ids = np.full(SIZE, 20, np.uint8)
    ids[0] = 255
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette([k * 11 % 256 for k in range(768)])
    (root / "semseg/VOC12").mkdir()
    palette.save(root / f"semseg/VOC12/{BOTH}.png")
    (root / "ImageSets/Context").mkdir(parents=True)
    (root / "ImageSets/Context/val.txt").write_text(f"{BOTH}\n{ONE}\n")
    (root / "ImageSets/Context/train.txt").write_text("2008_000009")
    return root


def test_all_tasks(tmp_path: Path) -> None:
    write(tmp_path)
    source = open_source(f"pascal-context:{tmp_path}:val")
    assert [sample.id for sample in source] == [BOTH, ONE]
    assert set(source.tasks) == {"normals", "semseg", "human_parsing", "saliency", "edges"}
    one, other = (sample.targets for sample in source)
    assert (one["semseg"][0] == 255).all() and (one["semseg"][1:] == 20).all()  # VOC counts
    assert (other["semseg"] == 12).all()
    assert one["human_parsing"][:, 1].tolist() == [1, 2, 2, 2, 6, 0]  # later parts lie above
    assert one["human_parsing"][:, 4:].max() == 0
    assert (other["human_parsing"] == 255).all()  # nobody with parts: unknown, not background
    assert (one["saliency"].max(), other["saliency"].min()) == (0, 1)
    np.testing.assert_allclose(one["normals"][2, [1, 4]], PLANES[:2], atol=0.006)
    assert (one["normals"][:, 6:] == 0).all()  # the sky has no normals
    turned = PascalContext(str(tmp_path), "val,axes=+g-r+b")[0].targets["normals"]
    np.testing.assert_allclose(turned[2, 4], (1, 0, 0), atol=0.006)
    assert PascalContext(str(tmp_path)).ids == ["2008_000009"]
    assert {440, 158, 284, 59, 427} < {*WITH_NORMALS} and len(WITH_NORMALS) == 170
    assert source.tasks["human_parsing"].family.names[6] == "lower leg"


def test_edges_are_lines_between_labels(tmp_path: Path) -> None:
    write(tmp_path)
    edges = PascalContext(str(tmp_path), "val")[0].targets["edges"]
    # a column on each side of a border has a Laplacian; thinning leaves one of them (its end is
    # lost: scikit-image 0.26 gives the same)
    assert edges.sum(1).tolist() == [0, 2, 2, 2, 2, 2]
    assert edges[:, 2:4].sum() == edges[:, 5:7].sum() == 5
    labels, ring = np.zeros((7, 9), np.uint16), np.zeros((7, 9))
    labels[2:5, 2:7] = 9
    ring[[2, 5], 3:6] = ring[3:5, [2]] = ring[3:5, [6]] = 1
    np.testing.assert_array_equal(label_edges(labels), ring)
    assert label_edges(np.tile(np.arange(8), (5, 1)))[:, 1:-1].max() == 0  # an even rise


def test_thinning_leaves_lines_that_hang_together() -> None:
    square = np.zeros((11, 13), bool)
    square[2:7, 2:11] = True
    line = thin(square)
    assert line.sum() == 5 and line[4, 4:9].all()  # as scikit-image 0.26 gives
    np.testing.assert_array_equal(thin(line), line)
    ring = square.copy()
    ring[4, 5:8] = False
    ring = thin(ring)
    assert not ring[4, 5:8].any() and ring.sum() < 20
    assert not thin(np.zeros((3, 3), bool)).any()


def replace(root: Path, what: str) -> None:
    parts, labels = root / f"human_parts/{BOTH}.mat", root / f"pascal-context/trainval/{BOTH}.mat"
    if what == "class":
        save(root / f"semseg/VOC12/{BOTH}.png", np.full(SIZE, 21, np.uint8))
    elif what == "part":
        wing = {"lwing": box(slice(0, 2), slice(0, 2))}
        save_parts(root, BOTH, [thing(15, box(slice(0, 2), slice(0, 2)), wing)])
    elif what == "layout":
        savemat(parts, {"anno": np.zeros((2, 2))})
    elif what == "variable":
        savemat(labels, {"Labels": np.zeros(SIZE)})
    elif what == "cut":
        labels.write_bytes(labels.read_bytes()[:150])
    elif what == "missing":
        parts.unlink()
    elif what == "folder":
        (root / "pascal-context").rename(root / "other")
    elif what == "list":
        (root / "ImageSets/Context/val.txt").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("class", "holds class number 21, allowed are 0 to 20 and 255"),
        ("part", "person with a part 'lwing', expected "),
        ("layout", "anno has not the layout of PASCAL-Part"),
        ("variable", "has no variable 'LabelMap'"),
        ("cut", "not readable as a MATLAB file"),
        ("missing", "no such file: "),
        ("folder", "which says where normals are known"),
        ("list", "not readable as UTF-8"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(what: str, expected: str, tmp_path: Path) -> None:
    root = write(tmp_path)
    replace(root, what)
    with pytest.raises(InputError) as raised:
        [*open_rows(f"pascal-context:{root}:val").samples()]
    assert expected in str(raised.value) and "\n" not in str(raised.value)
    assert str(root) in str(raised.value)
