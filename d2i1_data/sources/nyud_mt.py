"""The source `nyud-mt:`: NYUv2 for several tasks at once, in all three packings.

    DIR/images/0003.jpg | .png
    DIR/segmentation/0003.png | .mat       0 unlabelled, 1 to 40
    DIR/depth/0003.npy | .mat              metres, 0 unknown
    DIR/normals/0003.png | .npy | .jpg     colours, or vectors where (0, 0, 0) is unknown
    DIR/edge/0003.png | .npy               0 to 255, or 0 to 1
    DIR/gt_sets/train.txt, val.txt         ids, one on each line

The suffixes tell the packing, in each folder on its own. DIR may also be the folder above, which
holds `NYUDv2` or `NYUD_MT`. Source: the loaders of github.com/facebookresearch/astmt,
github.com/SimonVandenhende/Multi-Task-Learning-PyTorch and
github.com/prismformore/Multi-Task-Transformer.
"""

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..tasks import DEPTH, EDGES, NORMALS, SEMSEG, Task
from .axes import decode, read_axes, to_ours
from .camera import Camera
from .matlab import read_mat, whole_numbers
from .nyu_classes import NAMES_40, from_40
from .nyuv2 import CAMERA
from .official import Choices, Official, read_ids
from .source import fingerprint

ROOTS = ("NYUDv2", "NYUD_MT")
AXES = "-r+g+b"  # the sign of x is not verified


class Column(NamedTuple):
    """A folder of one kind of file. suffixes: those in use. variable: name in a MATLAB file."""

    folder: str
    suffixes: tuple[str, ...]
    variable: str = ""


IMAGES = Column("images", (".jpg", ".png"))
COLUMNS = {
    SEMSEG.name: Column("segmentation", (".png", ".mat"), "segmentation"),
    DEPTH.name: Column("depth", (".npy", ".mat"), "depth"),
    NORMALS.name: Column("normals", (".png", ".npy", ".jpg")),
    EDGES.name: Column("edge", (".png", ".npy")),
}


class NyudMt(Official):
    """NYUv2 with 40 classes, depth, normals and edges: the tasks whose folders are there.

    Options: `unknown=short` makes normals unknown that are shorter than 0.5 in the file, such as
    grey; published programs learn and score them. `axes=` see `axes.py`.

    Args:
        place: the folder.
        choice: split and options, see `Official`.

    Raises:
        InputError: if a folder or list is missing, or the choice is wrong.
    """

    name = "nyud-mt"
    camera = Camera(CAMERA.focal)  # the place of its images in those of NYUv2 is not known
    splits = ("train", "val")
    options: ClassVar[Choices] = {"unknown": ("zero", "short"), "axes": ()}

    def __init__(self, place: str, choice: str | None = None) -> None:
        super().__init__(place, choice)
        self.enter(*ROOTS)
        self.ids = read_ids(self.root / "gt_sets" / f"{self.split}.txt")
        self.image_suffix = self._suffix(IMAGES)
        found = {name: self._suffix(column) for name, column in COLUMNS.items()}
        self.suffixes = {name: suffix for name, suffix in found.items() if suffix}
        if not self.image_suffix or not self.suffixes:
            raise InputError(
                f"nyud-mt: {self.root} has no folder images with .jpg or .png files, or no labels"
                f" in {', '.join(column.folder for column in COLUMNS.values())}"
            )
        tasks: tuple[Task, ...] = (NORMALS, DEPTH, SEMSEG.with_classes(NAMES_40), EDGES)
        self.tasks = {task.name: task for task in tasks if task.name in self.suffixes}
        self.axes = self.chosen["axes"] or AXES
        read_axes(self.axes, self.name)
        self.fingerprint = fingerprint(self.name, self.split, self.chosen, self.ids)

    def _suffix(self, column: Column) -> str | None:
        """The suffix of the first file of a folder that has one in use."""
        files = sorted((self.root / column.folder).glob("*"))
        return next((file.suffix for file in files if file.suffix in column.suffixes), None)

    def file(self, column: str, index: int) -> Path:
        suffix = self.suffixes.get(column, self.image_suffix)
        return self.root / COLUMNS.get(column, IMAGES).folder / f"{self.ids[index]}{suffix}"

    def image(self, index: int) -> NDArray[np.uint8]:
        return self.rgb(self.file("image", index), self.ids[index])

    def target(self, task: str, index: int, size: tuple[int, int]) -> NDArray[np.generic]:
        file = self.file(task, index)
        if task == SEMSEG.name:
            return from_40()[self._numbers(file)]
        if task == NORMALS.name:
            return self._normals(file)
        if file.suffix == ".png":
            return self.class_numbers(file, 255).astype(np.float32) / 255
        return self._floats(file, COLUMNS[task].variable)

    def _numbers(self, file: Path) -> NDArray[np.integer]:
        if file.suffix == ".png":
            return self.class_numbers(file, 40)
        numbers = whole_numbers(self._array(file, COLUMNS[SEMSEG.name].variable), file)
        if numbers.min() < 0 or numbers.max() > 40:
            raise InputError(f"{file}: expected class numbers from 0 to 40")
        return numbers

    def _normals(self, file: Path) -> NDArray[np.float32]:
        if file.suffix == ".npy":
            vectors = self._floats(file, "")
            if vectors.ndim != 3 or vectors.shape[2] != 3 or not np.isfinite(vectors).all():
                raise InputError(
                    f"{file}: has shape {vectors.shape} or holds NaN, expected vectors, height x"
                    " width x 3"
                )
        else:
            vectors = decode(self.colours(file))
        if self.chosen["unknown"] == "zero":
            return to_ours(vectors, self.axes)
        return to_ours(vectors, self.axes, np.linalg.norm(vectors, axis=-1) >= 0.5)

    def _floats(self, file: Path, variable: str) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # infinite values are refused later
            return self._array(file, variable).astype(np.float32)

    def _array(self, file: Path, variable: str) -> NDArray[Any]:
        """The numbers in a .npy or .mat file, without dimensions of one element."""
        if file.suffix == ".mat":
            array = read_mat(file, variable)
        else:
            self._require(file)
            try:
                array = np.load(file, allow_pickle=False)
            except Exception as error:  # damaged files raise errors of many kinds
                raise InputError(f"{file}: not readable as an array of NumPy") from error
        if array.dtype.kind not in "uif":
            raise InputError(f"{file}: holds {array.dtype}, expected numbers")
        return np.squeeze(array)
