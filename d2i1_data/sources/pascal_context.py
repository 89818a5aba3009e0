"""The source `pascal-context:`: PASCAL-Context for several tasks at once.

    DIR/ImageSets/Context/train.txt, val.txt       ids, one on each line
    DIR/JPEGImages/2008_000008.jpg
    DIR/semseg/VOC12/2008_000008.png               0 to 20, 255 unknown; not for all images
    DIR/semseg/pascal-context/2008_000008.png      the same, for the others
    DIR/human_parts/2008_000008.mat                objects and their parts (PASCAL-Part)
    DIR/normals_distill/2008_000008.png            normals that a network predicted
    DIR/sal_distill/2008_000008.png                saliency that a network predicted
    DIR/pascal-context/trainval/2008_000008.mat    459 labels: edges, and where normals are known

DIR may also be the folder above, which holds `PASCALContext` or `PASCAL_MT`. Source: the loaders of
github.com/facebookresearch/astmt and github.com/prismformore/Multi-Task-Transformer.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..tasks import EDGES, HUMAN_PARSING, NORMALS, SALIENCY, SEMSEG
from .axes import decode, read_axes, to_ours
from .label_edges import label_edges
from .matlab import read_mat, whole_numbers
from .official import Choices, Official, read_ids
from .source import fingerprint

ROOTS = ("PASCALContext", "PASCAL_MT")
AXES = "-r+g+b"
VOC = "semseg/VOC12"
FOLDERS = {  # folder and suffix
    SEMSEG.name: ("semseg/pascal-context", ".png"),
    HUMAN_PARSING.name: ("human_parts", ".mat"),
    NORMALS.name: ("normals_distill", ".png"),
    SALIENCY.name: ("sal_distill", ".png"),
    EDGES.name: ("pascal-context/trainval", ".mat"),
}
PERSON = 15
PARTS = {
    **dict.fromkeys(("hair", "head", "lear", "lebrow", "leye", "mouth", "nose"), 1),
    **dict.fromkeys(("rear", "rebrow", "reye"), 1),
    **dict.fromkeys(("neck", "torso"), 2),
    **dict.fromkeys(("luarm", "ruarm"), 3),
    **dict.fromkeys(("llarm", "rlarm", "lhand", "rhand"), 4),
    **dict.fromkeys(("luleg", "ruleg"), 5),
    **dict.fromkeys(("llleg", "rlleg", "lfoot", "rfoot"), 6),
}
# of the 459 labels those with known normals: things whose names NYUv2 has too
WITH_NORMALS = (
    *(3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46),
    *(49, 50, 51, 53, 55, 56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95),
    *(96, 101, 104, 105, 107, 111, 113, 115, 122, 124, 135, 141, 142, 143, 146, 150, 154, 157),
    *(158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215, 216),
    *(219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255),
    *(260, 261, 263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292),
    *(293, 295, 304, 307, 309, 310, 314, 315, 319, 323, 329, 330, 331, 336, 342, 345, 349),
    *(350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383, 384, 397, 401, 403, 405),
    *(407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442),
    *(443, 444, 446, 454, 457),
)


class PascalContext(Official):
    """PASCAL-Context: 21 classes, parts of people, saliency, normals and edges.

    A task is there if its folder is. The option `axes=` is explained in `axes.py`.

    Args:
        place: the folder.
        choice: split and options, see `Official`.

    Raises:
        InputError: if a folder or list is missing, or the choice is wrong.
    """

    name = "pascal-context"
    splits = ("train", "val")
    options: ClassVar[Choices] = {"axes": ()}

    def __init__(self, place: str, choice: str | None = None) -> None:
        super().__init__(place, choice)
        self.enter(*ROOTS)
        self.ids = read_ids(self.root / "ImageSets" / "Context" / f"{self.split}.txt")
        found = [n for n, (folder, _) in FOLDERS.items() if (self.root / folder).is_dir()]
        if NORMALS.name in found and EDGES.name not in found:
            raise InputError(
                f"pascal-context: no such folder: {self.root / FOLDERS[EDGES.name][0]}, which says"
                " where normals are known"
            )
        if not found:
            raise InputError(f"pascal-context: {self.root} has no folder of labels")
        tasks = (NORMALS, SEMSEG, HUMAN_PARSING, SALIENCY, EDGES)
        self.tasks = {task.name: task for task in tasks if task.name in found}
        self.axes = self.chosen["axes"] or AXES
        read_axes(self.axes, self.name)
        self.fingerprint = fingerprint(self.name, self.split, self.chosen, self.ids)

    def file(self, column: str, index: int) -> Path:
        """The file of an image or label. Of two files of classes that of VOC 2012 counts."""
        identity = self.ids[index]
        if column == "image":
            return self.root / "JPEGImages" / f"{identity}.jpg"
        folder, suffix = FOLDERS[column]
        better = self.root / VOC / f"{identity}.png"
        if column == SEMSEG.name and better.is_file():
            return better
        return self.root / folder / f"{identity}{suffix}"

    def image(self, index: int) -> NDArray[np.uint8]:
        return self.rgb(self.file("image", index), self.ids[index])

    def target(self, task: str, index: int, size: tuple[int, int]) -> NDArray[np.generic]:
        file = self.file(task, index)
        if task == SEMSEG.name:
            return self.class_numbers(file, 20, 255)
        if task == HUMAN_PARSING.name:
            return self._parts(index, size)
        if task == SALIENCY.name:
            return (self.class_numbers(file, 255) > 127).astype(np.float32)
        labels = self._labels(index)
        if task == EDGES.name:
            return label_edges(labels)
        colours = self.colours(file)
        if labels.shape != colours.shape[:2]:
            raise InputError(
                f"{file}: is {colours.shape[1]}x{colours.shape[0]}, its labels are"
                f" {labels.shape[1]}x{labels.shape[0]}"
            )
        return to_ours(decode(colours), self.axes, np.isin(labels, WITH_NORMALS))

    def _labels(self, index: int) -> NDArray[np.int64]:
        """The 459 labels of an image."""
        file = self.file(EDGES.name, index)
        labels = read_mat(file, "LabelMap")
        if labels.ndim != 2 or min(labels.shape) < 2:
            raise InputError(f"{file}: LabelMap has shape {labels.shape}, expected height x width")
        return whole_numbers(labels, file)

    def _parts(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Parts of people. An image without any is unknown, as in the published programs."""
        file = self.file(HUMAN_PARSING.name, index)
        stored = read_mat(file, "anno")
        try:
            masks = list(_person_parts(stored))
        except (IndexError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{file}: anno has not the layout of PASCAL-Part") from error
        if wrong := [name for name, _ in masks if name not in PARTS]:
            raise InputError(f"{file}: person with a part {wrong[0]!r:.40}, expected {[*PARTS]}")
        sizes = {mask.shape for _, mask in masks}
        if len(sizes) > 1 or any(len(size) != 2 for size in sizes):
            raise InputError(f"{file}: masks have sizes {sorted(sizes)}, expected one size")
        parts = np.zeros(sizes.pop() if sizes else size, np.uint8)
        for name, mask in masks:
            parts[mask.astype(bool)] = PARTS[name]
        return parts if parts.any() else np.full_like(parts, 255)


def _person_parts(anno: NDArray[Any]) -> list[tuple[str, NDArray[Any]]]:
    """Name and mask of each part of each person, in the order of the file."""
    found = []
    for one in anno[0][0][1][0]:
        is_person = int(one[1][0][0]) == PERSON and np.asarray(one[2]).any()
        parts = one[3][0] if is_person and len(one[3]) else ()
        found += [(str(part[0][0]), np.asarray(part[1])) for part in parts]
    return found
