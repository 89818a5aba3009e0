"""The source `nyuv2:`: NYU Depth V2, the labelled part, and normals that others made for it.

    DIR/nyu_depth_v2_labeled.mat      images, depths, rawDepths, labels, names (MATLAB 7.3)
    DIR/splits.mat                    trainNdxs, testNdxs: numbers from 1
    DIR/nyu/train/norm/000002.png     normals, in one of the packings of `nyu_normals.py`

A folder of normals with images, and without the first file, gives images and normals only.
Source: Silberman et al. 2012. `docs/datasets.md` tells where the files come from.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..tasks import DEPTH, NORMALS, SEMSEG, Task
from .axes import decode, read_axes, to_ours
from .camera import Camera
from .matlab import Hdf5, read_mat, whole_numbers
from .nyu_classes import LABELS, NAMES, ONE_LABEL, from_894
from .nyu_normals import PACKINGS, SPLITS, find_normals
from .official import Choices, Official
from .source import fingerprint

# of the colour images, 480 x 640, as iDisc has it
CAMERA = Camera([518.8579, 519.4696], [325.5824, 253.7362])
FILE, SPLIT_FILE = "nyu_depth_v2_labeled.mat", "splits.mat"
DEPTHS = {"filled": "depths", "raw": "rawDepths"}


class Nyuv2(Official):
    """NYUv2: depth in metres, 40 or 13 classes, and normals if the folder has some.

    Options: `depth=raw` takes the measured depth, where 0 is unknown, instead of the filled one;
    `classes=13`; `normals=` a packing, if there are several, or `none`; `axes=` see `axes.py`.

    Args:
        place: the folder.
        choice: split and options, see `Official`.

    Raises:
        InputError: if a file is missing or another one, or the choice is wrong.
    """

    name = "nyuv2"
    camera = CAMERA
    splits = ("train", "test", "all")
    options: ClassVar[Choices] = {
        "depth": ("filled", "raw"),
        "classes": ("40", "13"),
        "normals": ("auto", *PACKINGS, "none"),
        "axes": (),
    }

    def __init__(self, place: str, choice: str | None = None) -> None:
        super().__init__(place, choice)
        self.normals = find_normals(self.root, self.chosen["normals"])
        self.axes = self._choose_axes()
        self.labelled_file = self.root / FILE
        tasks: list[Task] = [NORMALS] if self.normals else []
        if self.labelled_file.is_file():
            self.mat: Hdf5 | None = Hdf5(self.labelled_file)
            self.depths = DEPTHS[self.chosen["depth"]]
            count = self._check_file(self.mat)
            self.numbers = self._read_split(count)
            self.ids = [f"{number + 1:04d}" for number in self.numbers]
            self.table = from_894(self.chosen["classes"])
            tasks += [DEPTH, SEMSEG.with_classes(NAMES[self.chosen["classes"]])]
        else:
            self.mat = None
            self.pictures = self._list_pictures()
            self.ids = [*self.pictures]
        self.tasks = {task.name: task for task in tasks}
        self.fingerprint = fingerprint(self.name, self.split, self.chosen, self.ids)

    def _choose_axes(self) -> str:
        chosen = self.chosen["axes"]
        if chosen and self.normals is None:
            raise InputError(f"nyuv2: axes={chosen}: {self.root} has no normals that are read")
        axes = chosen or (self.normals.packing.axes if self.normals else "")
        if axes:
            read_axes(axes, self.name)
        return axes

    def _check_file(self, mat: Hdf5) -> int:
        """The number of images in the file, whose variables must agree on it."""
        images = mat.shape("images")
        if len(images) != 4 or images[1] != 3:
            raise InputError(
                f"{mat.file}: images has shape {images[::-1]}, expected height x width x 3 x count"
            )
        for name in (self.depths, "labels"):
            if mat.shape(name) != (images[0], *images[2:]):
                raise InputError(
                    f"{mat.file}: {name} has shape {mat.shape(name)[::-1]}, images {images[::-1]}"
                )
        if mat.shape("names") not in ((1, LABELS), (LABELS, 1)):
            raise InputError(f"{mat.file}: names: expected {LABELS} names of labels")
        names = mat.texts("names", [label - 1 for label in ONE_LABEL.values()])
        for found, (name, label) in zip(names, ONE_LABEL.items(), strict=True):
            if found != name:
                raise InputError(f"{mat.file}: label {label} is {found!r:.40}, expected {name!r}")
        return images[0]

    def _read_split(self, count: int) -> list[int]:
        """The numbers of the images of the split, from 0."""
        if self.split == "all":
            return [*range(count)]
        file = self.root / SPLIT_FILE
        numbers = whole_numbers(read_mat(file, f"{self.split}Ndxs"), file).ravel()
        if numbers.min() < 1 or numbers.max() > count or len(np.unique(numbers)) < len(numbers):
            raise InputError(
                f"{file}: {self.split}Ndxs goes from {numbers.min()} to {numbers.max()}, expected"
                f" different numbers from 1 to {count}, the images in {FILE}"
            )
        return (numbers - 1).tolist()

    def _list_pictures(self) -> dict[str, Path]:
        """The images beside the normals: id -> file."""
        unused = [f"{key}={self.chosen[key]}" for key in ("depth", "classes")]
        defaults = [f"{key}={self.options[key][0]}" for key in ("depth", "classes")]
        if self.normals is None or self.normals.packing.image is None or unused != defaults:
            raise InputError(f"nyuv2: no such file: {self.labelled_file}")
        splits = SPLITS if self.split == "all" else (self.split,)
        found = [(split, file) for split in splits for file in self.normals.images(split)]
        if not found:
            raise InputError(
                f"nyuv2: no images beside the normals in {self.normals.root}/{self.split}, and no"
                f" {self.labelled_file}"
            )
        long = self.split == "all"
        return {(f"{split}/" if long else "") + file.stem[:6]: file for split, file in found}

    def file(self, column: str, index: int) -> Path:
        if column == "image" and self.mat is None:
            return self.pictures[self.ids[index]]
        if column != NORMALS.name or self.normals is None:
            return self.labelled_file
        if self.mat is None:
            image = self.pictures[self.ids[index]]
            pattern = self.normals.packing.normals
            split = image.relative_to(self.normals.root).parts[0]
            return self.normals.root / pattern.format(split=split, number=int(image.stem[:6]))
        return self.normals.file(self.normals.packing.normals, self.numbers[index])

    def image(self, index: int) -> NDArray[np.uint8]:
        if self.mat is None:
            return self.rgb(self.file("image", index), self.ids[index])
        pixels = self.mat.item("images", self.numbers[index])
        if pixels.dtype != np.uint8:
            raise InputError(f"{self.mat.file}: images holds {pixels.dtype}, expected uint8")
        return np.ascontiguousarray(pixels)

    def target(self, task: str, index: int, size: tuple[int, int]) -> NDArray[np.generic]:
        if task == NORMALS.name:
            return self._read_normals(index)
        assert self.mat is not None  # without it there are only normals
        number = self.numbers[index]
        if task == DEPTH.name:
            return np.ascontiguousarray(self.mat.item(self.depths, number), np.float32)
        labels = self.mat.item("labels", number)
        if labels.dtype.kind not in "ui" or labels.max() > LABELS:
            raise InputError(
                f"{self.mat.file}: labels of {self.ids[index]} go up to {labels.max()}, expected"
                f" integers up to {LABELS}"
            )
        return self.table[labels]

    def _read_normals(self, index: int) -> NDArray[np.float32]:
        assert self.normals is not None
        packing = self.normals.packing
        pixels = self.colours(self.file(NORMALS.name, index))
        known = np.asarray(pixels.any(-1), bool)
        if packing.mask:
            mask = self.values(self.normals.file(packing.mask, self.numbers[index]))
            if mask.shape != known.shape:
                raise InputError(
                    f"{self.file(NORMALS.name, index)}: its mask has shape {mask.shape}, expected"
                    f" {known.shape}"
                )
            known = mask.astype(bool)
        if packing.dense:
            known = np.ones_like(known)
        return to_ours(decode(pixels), self.axes, known)
