"""NYUv2 in its official layout: what each file means, and what is refused."""

import pickle
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from d2i1_data.dataset.sample import Sample
from d2i1_data.errors import InputError
from d2i1_data.sources import open_source
from d2i1_data.sources.matlab import read_mat
from d2i1_data.sources.nyu_classes import NAMES_13, NAMES_40, ONE_LABEL, from_894
from d2i1_data.sources.nyuv2 import Nyuv2
from tests.d2i1_data.sources.layouts import PLANES, save, save_matlab, stored_planes
from tests.made import run

SIZE = (6, 9)  # not square, so that exchanged axes are seen
ROWS, COLUMNS = np.indices(SIZE)
# what the channels of each packing say of the plane that faces the camera, the floor, the left wall
STORED = {
    "bae": ([0, 0, 1], [0, 1, 0], [-1, 0, 0]),
    "dsine": ([0, 0, 1], [0, 1, 0], [-1, 0, 0]),
    "ladicky": ([-1, 0, 0], [0, -1, 0], [0, 0, 1]),
    "silberman": ([0, -1, 0], [0, 0, 1], [1, 0, 0]),
}
FILES = {  # of the first and the third image, which are in the splits test and train
    "bae": ("nyu/test/norm/000000.png", "nyu/train/norm/000002.png"),
    "dsine": ("test/000000_normal.png", "train/000002_normal.png"),
    "ladicky": ("nyu_normals_gt/test/00001.png", "nyu_normals_gt/train/00003.png"),
    "silberman": ("normals_gt/normals/0000.png", "normals_gt/normals/0002.png"),
}


def names() -> list[str]:
    known = {label: name for name, label in ONE_LABEL.items()}
    return [known.get(label, f"thing {label}") for label in range(1, 895)]


@cache
def labelled_file() -> bytes:
    """Three images. Pixel (row, column) of image k is (row, column, k)."""
    count = range(3)
    images = np.stack([np.stack([ROWS, COLUMNS, ROWS * 0 + k], -1) for k in count], -1)
    labels = np.zeros((*SIZE, 3), np.uint16)
    labels[0, :6, 0] = [21, 11, 894, 300, 8, 12]  # the rest is unlabelled
    depths = np.stack([1 + ROWS + COLUMNS / 100 + k for k in count], -1)
    raw = depths.copy()
    raw[0, 8] = 0  # not measured
    arrays = {"images": images.astype(np.uint8), "labels": labels}
    arrays |= {"depths": depths.astype(np.float32), "rawDepths": raw.astype(np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file.mat"
        save_matlab(file, arrays, {"names": names(), "scenes": ["a"]})
        return file.read_bytes()


def write(folder: Path) -> Path:
    """Images 1 and 2 are in the split test, 3 in train."""
    (folder / "nyu_depth_v2_labeled.mat").write_bytes(labelled_file())
    train, test = np.array([[3]], np.uint16), np.array([[1], [2]], np.uint16)
    savemat(folder / "splits.mat", {"trainNdxs": train, "testNdxs": test})
    return folder


@pytest.fixture(scope="module")
def nyu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("nyu"))


def test_images_depth_and_classes(nyu: Path) -> None:
    source = open_source(f"nyuv2:{nyu}:test")
    assert [sample.id for sample in source] == ["0001", "0002"]
    sample = source[0]
    assert sample.image.shape == (6, 9, 3)
    assert sample.image[4, 7].tolist() == [4, 7, 0]
    assert sample.targets["depth"][4, 7] == np.float32(5.07)
    assert sample.targets["semseg"][0, :7].tolist() == [0, 1, 39, 39, 37, 38, 255]
    assert sample.targets["depth"][0, 8] == np.float32(1.08)
    assert source.tasks["semseg"].family.names == NAMES_40
    assert (sample.caption, sample.provenance.source_dataset) == (None, "nyuv2")
    assert pickle.loads(pickle.dumps(source))[1].image[4, 7].tolist() == [4, 7, 1]


def test_options(nyu: Path) -> None:
    source = Nyuv2(str(nyu), "test,depth=raw,classes=13")
    assert source[0].targets["depth"][0, 8] == 0
    # wall, floor, other things, furniture of other structures
    assert source[0].targets["semseg"][0, :7].tolist() == [11, 4, 6, 6, 6, 5, 255]
    assert source.tasks["semseg"].family.names == NAMES_13
    assert [sample.id for sample in Nyuv2(str(nyu))] == ["0003"]
    assert len(Nyuv2(str(nyu), "all")) == 3
    assert source.fingerprint != Nyuv2(str(nyu), "test").fingerprint


def test_the_894_labels_have_the_classes_of_the_official_mapping() -> None:
    classes = from_894("40")
    assert len(classes) == 895
    counts = Counter(classes[1:].tolist())
    assert [counts[k] for k in range(37)] == [1] * 37
    assert [counts[k] for k in (37, 38, 39)] == [68, 82, 707]
    assert (classes[0], from_894("13")[0]) == (255, 255)
    for name, label in ONE_LABEL.items():
        assert NAMES_40[classes[label]] == name
    assert NAMES_13[from_894("13")[ONE_LABEL["television"]]] == "tv"


def with_normals(folder: Path, packing: str) -> Path:
    write(folder)
    for file in FILES[packing]:
        pixels = stored_planes(SIZE, STORED[packing])
        if packing in ("bae", "dsine"):
            pixels[0] = 0
        save(folder / file, pixels)
    if packing == "silberman":
        mask = np.full(SIZE, 255, np.uint8)
        mask[0] = 0
        for number in (0, 2):
            save(folder / f"normals_gt/masks/{number:04d}.png", mask)
    return folder


@pytest.mark.parametrize("packing", STORED)
def test_normals_of_every_packing(packing: str, tmp_path: Path) -> None:
    folder = with_normals(tmp_path, packing)
    source = Nyuv2(str(folder), "train")
    for normals in (Nyuv2(str(folder), "test")[0].targets["normals"], source[0].targets["normals"]):
        np.testing.assert_allclose(normals[3, [1, 4, 7]], PLANES, atol=0.006)
        np.testing.assert_allclose(np.linalg.norm(normals[3], axis=-1), 1, atol=1e-6)
        unknown = (normals[0] == 0).all()
        assert unknown == (packing != "ladicky")  # it has no unknown pixels
    assert set(source.tasks) == {"normals", "depth", "semseg"}
    family = source.tasks["normals"].family
    mirror = family.to_array(family.flip(family.to_tensor(normals)[None])[0])
    np.testing.assert_allclose(mirror[3, [7, 4, 1]], PLANES * [-1, 1, 1], atol=0.006)


def test_other_axes_and_no_normals(tmp_path: Path) -> None:
    folder = with_normals(tmp_path, "bae")
    normals = Nyuv2(str(folder), "train,axes=+r+g+b")[0].targets["normals"]
    np.testing.assert_allclose(normals[3, 7], (-1, 0, 0), atol=0.006)
    assert "normals" not in Nyuv2(str(folder), "train,normals=none").tasks
    with_normals(tmp_path, "ladicky")
    with pytest.raises(InputError, match="normals=bae or normals=ladicky"):
        Nyuv2(str(folder))
    assert Nyuv2(str(folder), "normals=ladicky").axes == "+b-g-r"


@pytest.mark.parametrize("packing", ["bae", "dsine"])
def test_a_packing_with_images_needs_no_other_file(packing: str, tmp_path: Path) -> None:
    for file in FILES[packing]:
        save(tmp_path / file, stored_planes(SIZE, STORED[packing]))
        image = file.replace("_normal", "_img").replace("norm/", "img/")
        save(tmp_path / image, np.full((*SIZE, 3), 7, np.uint8))
    source = Nyuv2(str(tmp_path), "test")
    assert (len(source), source.ids, set(source.tasks)) == (1, ["000000"], {"normals"})
    assert source[0].image[0, 0].tolist() == [7, 7, 7]
    np.testing.assert_allclose(source[0].targets["normals"][3, [1, 4, 7]], PLANES, atol=0.006)
    assert Nyuv2(str(tmp_path), "all").ids == ["train/000002", "test/000000"]
    with pytest.raises(InputError, match=r"no such file: .*nyu_depth_v2_labeled\.mat"):
        Nyuv2(str(tmp_path), "test,depth=raw")


def without_labels(folder: Path) -> None:
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as stored:
        del stored["labels"]


def other_labels(folder: Path, labels: np.ndarray) -> None:
    without_labels(folder)
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as stored:
        stored["labels"] = labels.T


def other_names(folder: Path) -> None:
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as stored:
        stored["#refs#/names20"][...] = 65


def cut(folder: Path) -> None:
    file = folder / "nyu_depth_v2_labeled.mat"
    file.write_bytes(file.read_bytes()[:2000])


DAMAGE = {
    "truncated": cut,
    "foreign": lambda at: (at / "nyu_depth_v2_labeled.mat").write_text("<html>404</html>"),
    "variable": without_labels,
    "names": other_names,
    "label": lambda at: other_labels(at, np.full((*SIZE, 3), 895, np.uint16)),
    "size": lambda at: other_labels(at, np.zeros((9, 6, 3), np.uint16)),
    "no splits": lambda at: (at / "splits.mat").unlink(),
    "splits": lambda at: (at / "splits.mat").write_bytes(b"junk" * 40),
    "other splits": lambda at: savemat(at / "splits.mat", {"trainNdxs": np.array([[3], [1449]])}),
    "normals": lambda at: save(at / FILES["bae"][0], stored_planes(SIZE, STORED["bae"])),
}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("truncated", "labeled.mat: images not readable as MATLAB 7.3 (HDF5)"),
        ("foreign", "labeled.mat: images not readable as MATLAB 7.3 (HDF5)"),
        ("variable", "labeled.mat: has no variable 'labels'"),
        ("names", "label 21 is 'AAAA', expected 'wall'"),
        ("label", "labels of 0003 go up to 895"),
        ("size", "labels has shape (9, 6, 3), images (6, 9, 3, 3)"),
        ("no splits", "no such file: "),
        ("splits", "splits.mat: not readable as a MATLAB file up to version 7"),
        ("other splits", "trainNdxs goes from 3 to 1449, expected different numbers from 1 to 3"),
        ("normals", "no such file: "),
        ("depth=deep", "got 'depth=deep', allowed are train | test | all, depth=filled | raw"),
        ("axes=-r+g", "axes=-r+g: "),
    ],
)
def test_what_is_wrong_is_named_in_one_line(what: str, expected: str, tmp_path: Path) -> None:
    DAMAGE.get(what, lambda at: at)(write(tmp_path))
    choice = what if "=" in what else "train"
    with pytest.raises(InputError) as raised:
        Nyuv2(str(tmp_path), choice)[0]
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_a_damaged_file_does_not_crash_scipy(tmp_path: Path) -> None:
    file = write(tmp_path) / "splits.mat"
    intact, refused = file.read_bytes(), 0
    for place in range(128, len(intact), 4):
        file.write_bytes(intact[:place] + bytes(16) + intact[place + 16 :])
        try:
            assert np.isin(read_mat(file, "testNdxs"), [0, 1, 2]).all()
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_a_missing_library_is_named_with_its_extra(
    nyu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("h5py", "scipy.io"):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(InputError, match=r"needs \w+: pip install 'diff2in1\[import\]'"):
            Nyuv2(str(nyu))
        monkeypatch.undo()


def test_the_command_imports_it(nyu: Path, tmp_path: Path) -> None:
    run("import", "--source", f"nyuv2:{nyu}:all", "--output_dir", tmp_path / "out")
    imported: list[Sample] = [*open_source(f"dataset:{tmp_path / 'out'}")]
    assert [sample.id for sample in imported] == ["0001", "0002", "0003"]
    assert imported[0].targets["semseg"][0, 2] == 39
    np.testing.assert_array_equal(imported[2].image, Nyuv2(str(nyu))[0].image)
