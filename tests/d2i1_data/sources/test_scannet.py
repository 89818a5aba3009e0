"""ScanNet in the layouts in use."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2i1_data.errors import InputError
from d2i1_data.sources import open_rows, open_source
from d2i1_data.sources.scannet import Scannet
from tests.d2i1_data.sources.layouts import PLANES, save, stored_planes

ONE, OTHER = "scene0000_00", "scene0011_01"
COLOUR, DEPTH = (16, 24), (6, 10)  # height and width; as in ScanNet, depth is smaller
# the cameras: two pixels of colour to one of depth, and depth sees less at the sides
FOCAL_COLOUR, FOCAL_DEPTH = (20.0, 20.0, 12.0, 8.0), (10.0, 10.0, 5.0, 3.0)
LABELS = "id\traw_category\tnyu40id\n1\twall\t1\n21\tbag\t37\n1191\tpaper towel\t40\n"


def depth_of(frame: int) -> np.ndarray:
    """Millimetres: row and column in the number; the first row is unknown."""
    depth = 1000 + 100 * np.indices(DEPTH)[0] + np.indices(DEPTH)[1] + 10 * frame
    depth[0] = 0
    return depth.astype(np.uint16)


def matrix(focal: tuple[float, ...]) -> np.ndarray:
    (fx, fy, cx, cy), matrix = focal, np.eye(4, dtype=np.float32)
    matrix[[0, 1, 0, 1], [0, 1, 2, 2]] = fx, fy, cx, cy
    return matrix


def colour_of(frame: int) -> np.ndarray:
    return np.full((*COLOUR, 3), frame, np.uint8)


def label() -> np.ndarray:
    raw = np.ones(COLOUR, np.uint16)
    raw[0, :4] = 0, 21, 1191, 999  # 999 is not in the table
    return raw


def write_exported(folder: Path, zeros: int = 0) -> Path:
    """What SensReader exports, with frames 1, 2 and 10; or the 25k subset, with zeros."""
    for scene in (ONE, OTHER):
        root = folder / scene
        for frame in (1, 2, 10):
            name = f"{frame:0{zeros}d}"
            save(root / f"color/{name}.jpg", colour_of(frame))
            save(root / f"depth/{name}.png", depth_of(frame))
            if zeros:
                save(root / f"label/{name}.png", np.where(label() > 40, 40, label()).astype("u1"))
            else:
                save(root / f"label-filt/{name}.png", label())
            (root / "pose").mkdir(exist_ok=True)
            (root / f"pose/{name}.txt").write_text("-inf -inf -inf -inf\n" * 4)
        (root / "intrinsic").mkdir()
        for kind, focal in (("color", FOCAL_COLOUR), ("depth", FOCAL_DEPTH)):
            part = f"intrinsics_{kind}.txt" if zeros else f"intrinsic/intrinsic_{kind}.txt"
            np.savetxt(root / part, matrix(focal))
    (folder / "scannetv2-labels.combined.tsv").write_text(LABELS)
    (folder / "scannetv2_train.txt").write_text(f"{ONE}\n")
    (folder / "scannetv2_val.txt").write_text(f"{OTHER}\n")
    return folder


def write_sens(folder: Path, frames: int = 3, compression: tuple[int, int] = (2, 1)) -> Path:
    name = b"StructureSensor"
    head = struct.pack("<IQ", 4, len(name)) + name
    extrinsic = np.eye(4, dtype="<f4")
    for focal in (FOCAL_COLOUR, FOCAL_DEPTH):
        head += matrix(focal).astype("<f4").tobytes() + extrinsic.tobytes()
    head += struct.pack("<2i4IfQ", *compression, *COLOUR[::-1], *DEPTH[::-1], 1000.0, frames)
    for frame in range(frames):
        jpeg = io.BytesIO()
        Image.fromarray(colour_of(frame)).save(jpeg, "JPEG")
        depth = zlib.compress(depth_of(frame).tobytes())
        pose = np.full(16, -np.inf, "<f4").tobytes()  # lost
        head += pose + struct.pack("<4Q", 5, 6, len(jpeg.getvalue()), len(depth))
        head += jpeg.getvalue() + depth
    scene = folder / "scans" / ONE
    scene.mkdir(parents=True, exist_ok=True)
    (scene / f"{ONE}.sens").write_bytes(head + struct.pack("<Q", 0))  # then measurements of motion
    return folder


def check_depth(depth: np.ndarray, frame: int) -> None:
    """Pixel (x, y) of colour is (x / 2 - 1, y / 2 - 1) of depth, rounded to even."""
    assert depth.shape == COLOUR
    stored = depth_of(frame).astype(np.float32) / 1000
    assert depth[8, 12] == stored[3, 5] == np.float32(1.305 + frame / 100)
    assert depth[12, 4] == stored[5, 1]
    assert depth[2, 12] == 0  # unknown in the file
    assert (depth[:, 22:] == 0).all() and (depth[14:] == 0).all()  # out of sight
    assert (depth[0] == 0).all()


def test_exported_frames(tmp_path: Path) -> None:
    source = open_source(f"scannet:{write_exported(tmp_path)}:train")
    assert [sample.id for sample in source] == [f"{ONE}/{n:06d}" for n in (1, 2, 10)]
    sample = source[2]
    assert sample.image.shape == (*COLOUR, 3) and sample.image[0, 0].tolist() == [10, 10, 10]
    check_depth(sample.targets["depth"], 10)
    assert sample.targets["semseg"][0, :5].tolist() == [255, 36, 39, 255, 0]
    assert source.tasks["semseg"].family.names[36] == "bag"
    benchmark = Scannet(str(tmp_path), "val,classes=20,every=2")
    assert benchmark.ids == [f"{OTHER}/000001", f"{OTHER}/000010"]
    assert benchmark[0].targets["semseg"][0, :5].tolist() == [255, 255, 255, 255, 0]
    assert len(benchmark.tasks["semseg"].family.names) == 20
    assert benchmark.tasks["semseg"].family.names[12:15] == ("desk", "curtain", "refridgerator")


def test_the_25k_subset_has_classes_already(tmp_path: Path) -> None:
    write_exported(tmp_path / "scannet_frames_25k", 6)
    for file in (tmp_path / "scannet_frames_25k").glob("scannetv2*"):
        file.rename(tmp_path / file.name)
    source = Scannet(str(tmp_path), "val")
    assert source.ids[0] == f"{OTHER}/000001"
    assert source[0].targets["semseg"][0, :5].tolist() == [255, 20, 39, 39, 0]
    check_depth(source[0].targets["depth"], 1)
    assert len(Scannet(str(tmp_path), "all")) == 6


def test_sens_files_are_read_directly(tmp_path: Path) -> None:
    write_sens(tmp_path)
    source = Scannet(str(tmp_path), "all")
    assert source.ids == [f"{ONE}/{n:06d}" for n in range(3)]
    assert set(source.tasks) == {"depth"}
    for frame in (2, 0, 1):
        assert source[frame].image[3, 3].tolist() == [frame] * 3
        check_depth(source[frame].targets["depth"], frame)
    with zipfile.ZipFile(tmp_path / f"scans/{ONE}/{ONE}_2d-label-filt.zip", "w") as archive:
        for frame in range(2):
            png = io.BytesIO()
            Image.fromarray(label()).save(png, "PNG")
            archive.writestr(f"label-filt/{frame}.png", png.getvalue())
    (tmp_path / "scannetv2-labels.combined.tsv").write_text(LABELS)
    source = Scannet(str(tmp_path), "all")
    assert source[1].targets["semseg"][0, :5].tolist() == [255, 36, 39, 255, 0]
    with pytest.raises(InputError, match=r"zip: has no label-filt/2\.png"):
        source[2]


def write_framenet(folder: Path) -> Path:
    for scene in (ONE, OTHER):
        for frame in (0, 10, 20):
            root = folder / "scannet-frames" / scene
            save(root / f"frame-{frame:06d}-color.png", colour_of(frame))
            stored = stored_planes(COLOUR, [[0, 0, -1], [0, -1, 0], [1, 0, 0]])
            save(root / f"frame-{frame:06d}-normal.png", stored)
            mask = np.full(COLOUR, 255, np.uint8)
            mask[0] = 0
            save(root / f"frame-{frame:06d}-orient-mask.png", mask)
    there = "/elsewhere/jingwei/scannet-frames"  # a folder of the authors' machine
    paths = [f"{there}/{ONE}/frame-{n:06d}-color.png" for n in (0, 10, 20)]
    content = {"test": (paths, paths, paths), "train": ([paths[1]],) * 3}
    (folder / "train_test_split.pkl").write_bytes(pickle.dumps(content, 2))
    return folder


def test_normals_of_framenet(tmp_path: Path) -> None:
    source = Scannet(str(write_framenet(tmp_path)), "test,every=2")
    assert source.ids == [f"{ONE}/000000", f"{ONE}/000020"]
    assert set(source.tasks) == {"normals"}
    normals = source[1].targets["normals"]
    np.testing.assert_allclose(normals[5, [3, 12, 20]], PLANES, atol=0.006)
    assert (normals[0] == 0).all() and source[1].image[0, 0].tolist() == [20, 20, 20]
    assert Scannet(str(tmp_path), "train").ids == [f"{ONE}/000010"]
    (tmp_path / "scannetv2_val.txt").write_text(OTHER)
    assert Scannet(str(tmp_path), "val").ids[0] == f"{OTHER}/000000"


class Evil:
    """A pickle that would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return Path.touch, (str(self.file),)


def test_a_pickle_that_asks_for_code_is_not_read(tmp_path: Path) -> None:
    write_framenet(tmp_path)
    made = tmp_path / "made"
    (tmp_path / "train_test_split.pkl").write_bytes(pickle.dumps({"test": [[Evil(made)]]}))
    with pytest.raises(InputError, match=r"split\.pkl: not read: asks for .* could run code"):
        Scannet(str(tmp_path), "test")
    assert not made.exists()


def damage_sens(folder: Path, content: Callable[[bytes], bytes]) -> None:
    file = write_sens(folder) / f"scans/{ONE}/{ONE}.sens"
    file.write_bytes(content(file.read_bytes()))


def without_scene(folder: Path) -> None:
    write_exported(folder)
    (folder / "scannetv2_train.txt").write_text(f"{ONE}\nscene0500_00\n")


def without_table(folder: Path) -> None:
    (write_exported(folder) / "scannetv2-labels.combined.tsv").unlink()


def other_table(folder: Path) -> None:
    (write_exported(folder) / "scannetv2-labels.combined.tsv").write_text("a\tb\n1\t2\n")


def two_layouts(folder: Path) -> None:
    write_exported(folder)
    (folder / ONE / f"{ONE}.sens").touch()


def without_frame(folder: Path) -> None:
    (write_exported(folder) / ONE / "depth/2.png").unlink()


def damaged_zlib(content: bytes) -> bytes:
    return content[:-20] + b"\0" * 20


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "cut": (lambda at: damage_sens(at, lambda c: c[:-60]), "all", "ends in frame 2 of 3"),
    "head": (lambda at: damage_sens(at, lambda c: c[:90]), "all", "ends too early"),
    "foreign": (lambda at: damage_sens(at, lambda c: b"<html>404"), "all", "version 1836345404"),
    "zlib": (lambda at: damage_sens(at, damaged_zlib), "all", "depth of a frame is damaged"),
    "kind": (lambda at: write_sens(at, compression=(1, 0)), "all", "compressed as 1 and 0"),
    "scene": (without_scene, "train", "no frames of scene0500_00"),
    "list": (write_exported, "test", "no such file: "),
    "table": (without_table, "train", "which tells the classes of raw labels"),
    "columns": (other_table, "train", "expected columns id and nyu40id"),
    "layouts": (two_layouts, "train", "choose layout=frames or layout=sens"),
    "frame": (without_frame, "train", "no such file: "),
    "empty": (lambda at: at, "train", "has no scenes such as scene0000_00"),
    "every": (write_exported, "every=0", "every=0: expected a number from 1"),
    "pickle": (
        lambda at: (write_framenet(at) / "train_test_split.pkl").write_bytes(b"x"),
        "test",
        ".pkl",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_wrong_is_named_in_one_line(what: str, tmp_path: Path) -> None:
    damage, choice, expected = DAMAGE[what]
    damage(tmp_path)
    with pytest.raises(InputError) as raised:
        [*open_rows(f"scannet:{tmp_path}:{choice}").samples()]
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_scenes_that_are_not_there_can_be_left_out(tmp_path: Path) -> None:
    without_scene(tmp_path)
    rows = open_rows(f"scannet:{tmp_path}:train", on_bad_row="skip")
    assert (len(rows.usable), [*rows.skipped]) == (3, ["scene0500_00"])
