"""NYUD-MT: three packings of the same data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from d2i1_data.dataset.sample import Sample
from d2i1_data.errors import InputError
from d2i1_data.sources import open_rows, open_source
from d2i1_data.sources.nyud_mt import NyudMt
from tests.d2i1_data.sources.layouts import PLANES, save, stored_planes

SIZE = (24, 36)  # a JPEG keeps large areas of one colour
CLASSES = np.tile((np.arange(36) % 41).astype(np.uint8), (24, 1))
DEPTH = np.linspace(0.5, 9, 24 * 36).reshape(SIZE).round(3)
EDGES = (np.indices(SIZE)[1] == 11).astype(np.uint8)
VECTORS = np.repeat(np.float32([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]), 12, 0)[None].repeat(24, 0)
COLOURS = stored_planes(SIZE, [[0, 0, 1], [0, 1, 0], [-1, 0, 0]])


def save_numbers(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def save_mat(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {path.parent.name: array})


def save_jpeg(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def write(folder: Path, packing: str) -> Path:
    """Samples 0001 (val) and 0003 (train) in one of three packings."""
    root = folder / ("NYUDv2" if packing == "png" else "NYUD_MT")
    depth = DEPTH.copy()
    depth[0, 0] = 0
    zero = VECTORS.copy()
    zero[0] = 0
    for i in ("0001", "0003"):
        image = np.full((*SIZE, 3), int(i), np.uint8)
        save(root / f"images/{i}.{'png' if packing == 'png' else 'jpg'}", image)
        if packing == "mat":
            save_mat(root / f"segmentation/{i}.mat", CLASSES.astype(np.float64))
            save_mat(root / f"depth/{i}.mat", depth)
            save_jpeg(root / f"normals/{i}.jpg", COLOURS)
        else:
            save(root / f"segmentation/{i}.png", CLASSES)
            kind = np.float64 if packing == "npy" else np.float32
            save_numbers(root / f"depth/{i}.npy", depth.astype(kind))
        if packing == "npy":
            save_numbers(root / f"normals/{i}.npy", zero)
            save_numbers(root / f"edge/{i}.npy", EDGES)
        else:
            save(root / f"edge/{i}.png", EDGES * 255)
        if packing == "png":
            colours = COLOURS.copy()
            colours[0] = (127, 128, 127)
            save(root / f"normals/{i}.png", colours)
    for split, i in (("train", "0003"), ("val", "0001")):
        (root / "gt_sets").mkdir(exist_ok=True)
        (root / f"gt_sets/{split}.txt").write_text(f"{i}\n")
    return root


def read(root: Path, choice: str) -> Sample:
    return NyudMt(str(root), choice)[0]


@pytest.mark.parametrize("packing", ["mat", "npy", "png"])
def test_the_packings_give_the_same_sample(packing: str, tmp_path: Path) -> None:
    write(tmp_path, packing)
    source = open_source(f"nyud-mt:{tmp_path}:val")
    assert [sample.id for sample in source] == ["0001"]
    assert NyudMt(str(tmp_path)).ids == ["0003"]
    assert set(source.tasks) == {"normals", "depth", "semseg", "edges"}
    targets = source[0].targets
    assert source[0].image[0, 0].tolist() == [1, 1, 1]
    assert targets["semseg"][5, [0, 1, 35]].tolist() == [255, 0, 34]
    assert targets["depth"][0, 0] == 0
    np.testing.assert_allclose(targets["depth"][3, 4], DEPTH[3, 4], rtol=1e-6)
    np.testing.assert_array_equal(targets["edges"], EDGES)
    np.testing.assert_allclose(targets["normals"][10, [4, 17, 30]], PLANES, atol=0.02)
    assert (targets["normals"][0] == 0).all() == (packing == "npy")
    if packing == "png":  # a byte cannot hold the zero vector: published programs score grey
        np.testing.assert_allclose(np.linalg.norm(targets["normals"][0], axis=-1), 1, atol=1e-5)
        assert (read(tmp_path, "unknown=short").targets["normals"][0] == 0).all()
    other = read(tmp_path, "axes=+r+g+b").targets["normals"]
    np.testing.assert_allclose(other[10, [4, 17, 30]], PLANES * [-1, 1, 1], atol=0.02)


def test_every_folder_has_its_own_packing_and_may_be_missing(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a", "npy"), write(tmp_path / "b", "png")
    for part in ("normals", "edge"):
        for file in (one / part).glob("*"):
            file.unlink()
        (one / part).rmdir()
    (other / "normals").rename(one / "normals")
    source = NyudMt(str(one))
    assert set(source.tasks) == {"normals", "depth", "semseg"}
    np.testing.assert_allclose(source[0].targets["normals"][10, 30], (1, 0, 0), atol=0.02)


def overwrite(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "list": (lambda root: (root / "gt_sets/train.txt").unlink(), "no such file: "),
    "file": (lambda root: (root / "depth/0003.npy").unlink(), "no such file: "),
    "labels": (lambda root: save(root / "segmentation/0003.png", CLASSES + 6), "class number 41"),
    "cut": (overwrite("depth/0003.npy", b"\x93NUMPY\x01"), "not readable as an array of NumPy"),
    "pickle": (
        lambda root: np.save(root / "depth/0003.npy", np.array([{}]), allow_pickle=True),
        "not readable as an array of NumPy",
    ),
    "shape": (lambda root: np.save(root / "depth/0003.npy", np.ones((36, 24))), "aspect ratio"),
    "nan": (lambda root: np.save(root / "depth/0003.npy", DEPTH * np.nan), "holds NaN"),
    "grey": (lambda root: save(root / "normals/0003.png", CLASSES), "expected height x width x 3"),
    "twice": (overwrite("gt_sets/train.txt", b"0003\n0003\n"), "names '0003' twice"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_wrong_is_named_in_one_line(what: str, tmp_path: Path) -> None:
    damage, expected = DAMAGE[what]
    root = write(tmp_path, "png")
    damage(root)
    with pytest.raises(InputError) as raised:
        [*open_rows(f"nyud-mt:{root}").samples()]
    assert expected in str(raised.value) and "\n" not in str(raised.value)
    assert str(root) in str(raised.value)
