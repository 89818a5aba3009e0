"""The source `scannet:`: frames of ScanNet in the layouts in use.

    DIR/[scans/]scene0000_00/color/0.jpg, depth/0.png, label-filt/0.png     exported frames
    DIR/[scannet_frames_25k/]scene0000_00/color/000000.jpg, depth/, label/  the 25k subset
    DIR/[scans/]scene0000_00/scene0000_00.sens                              as it is downloaded
    DIR/[scannet-frames/]scene0000_00/frame-000000-{color,normal,orient-mask}.png    FrameNet
    DIR/scannetv2_train.txt, scannetv2_val.txt, scannetv2_test.txt          scenes of the splits
    DIR/train_test_split.pkl                                                FrameNet's frames
    DIR/scannetv2-labels.combined.tsv                                       classes of label-filt

Source: github.com/ScanNet/ScanNet, github.com/hjwdzh/FrameNet.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..tasks import DEPTH, NORMALS, SEMSEG, Task
from .axes import decode, read_axes, to_ours
from .nyu_classes import NAMES_40
from .official import Choices, Official
from .scannet_lists import FRAMENET, LABELS, read_framenet, read_raw_labels, read_scenes
from .scannet_scenes import (
    LAYOUTS,
    Exported,
    Framenet,
    Scene,
    Sens,
    onto_colour,
    read_zipped,
    zipped,
)
from .source import Source, fingerprint

PLACES = (".", "scans", "scannet_frames_25k", "scannet-frames", "scans_test")
AXES = "+r-g-b"
BENCHMARK = (*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39)  # of the 40 classes, from 1
RAW, CLASSES = "label-filt", "label"  # folders of raw labels, and of the 40 classes


class Scannet(Official):
    """ScanNet: depth and classes of frames, or the normals that FrameNet made of its meshes.

    Options: `layout=` one of `LAYOUTS`, if scenes are there in several; `classes=20` for those of
    the benchmark; `every=N` takes every N-th frame of each scene, or of FrameNet's list; `axes=`
    see `axes.py`. `val` is not a split of FrameNet's list.

    Args:
        place: the folder.
        choice: split and options, see `Official`.

    Raises:
        InputError: if a file is missing or another one, or the choice is wrong.
    """

    name = "scannet"
    splits = ("train", "val", "test", "all")
    options: ClassVar[Choices] = {
        "layout": ("auto", *LAYOUTS),
        "classes": ("40", "20"),
        "every": (),
        "axes": (),
    }

    def __init__(self, place: str, choice: str | None = None) -> None:
        super().__init__(place, choice)
        every = self.chosen["every"] or "1"
        if not every.isdecimal() or not 0 < int(every) < 10**9:
            raise InputError(f"scannet: every={every}: expected a number from 1")
        self.axes = self.chosen["axes"] or AXES
        read_axes(self.axes, self.name)
        folders = self._scene_folders()
        self.layout = self._choose_layout([*folders.values()])
        pickled = self.root / FRAMENET
        if self.layout is Framenet and self.split in ("train", "test") and pickled.is_file():
            rows = self._present(read_framenet(pickled, self.split)[:: int(every)], folders)
        else:
            rows = self._list_frames(folders, int(every))
        self.scenes = {name: self._scene(folders[name]) for name, _ in rows}
        self.rows = [(self.scenes[name], frame) for name, frame in rows]
        self.ids = [f"{name}/{frame:06d}" for name, frame in rows]
        self.tasks = {task.name: task for task in self._find_tasks()}
        self.fingerprint = fingerprint(self.name, self.split, self.chosen, self.ids)

    def _scene_folders(self) -> dict[str, Path]:
        """The scenes that are there: name -> folder."""
        found: dict[str, Path] = {}
        for place in PLACES:
            for folder in sorted((self.root / place).glob("scene[0-9]*_[0-9]*")):
                if folder.is_dir():
                    found.setdefault(folder.name, folder)
        if not found:
            raise InputError(f"scannet: {self.root} has no scenes such as scene0000_00")
        return found

    def _choose_layout(self, folders: list[Path]) -> type[Scene]:
        """The layout of the first scene that has one."""
        wanted = self.chosen["layout"]
        kinds = LAYOUTS if wanted == "auto" else {wanted: LAYOUTS[wanted]}
        for folder in folders:
            found = [kind for kind in kinds.values() if kind.fits(folder)]
            if len(found) > 1:
                ways = " or ".join(f"layout={kind.layout}" for kind in found)
                raise InputError(f"scannet: {folder} has frames in several layouts: choose {ways}")
            if found:
                return found[0]
        raise InputError(
            f"scannet: no frames in {folders[0]}: expected color/*.jpg, {folders[0].name}.sens or"
            " frame-*-color.png"
        )

    def _list_frames(self, folders: dict[str, Path], every: int) -> list[tuple[str, int]]:
        """Scene and number of the frames of the split, by its list of scenes."""
        names = [*folders] if self.split == "all" else read_scenes(self.root, self.split)
        fitting = {name: at for name, at in folders.items() if self.layout.fits(at)}
        present = [name for name, _ in self._present([(name, 0) for name in names], fitting)]
        return [
            (name, frame)
            for name in present
            for frame in self.layout(folders[name]).frames()[::every]
        ]

    def _present(
        self, rows: list[tuple[str, int]], folders: dict[str, Path]
    ) -> list[tuple[str, int]]:
        """The rows whose scenes are there. The other scenes become strays."""
        missing = {name for name, _ in rows} - {*folders}
        self.strays |= {
            name: f"no frames of {name}, which is in the split {self.split}"
            for name in sorted(missing)
        }
        present = [row for row in rows if row[0] not in missing]
        if not present:
            raise InputError(f"scannet: {self.root} has no frames of the split {self.split}")
        return present

    def _scene(self, folder: Path) -> Scene:
        scene = self.layout(folder)
        if isinstance(scene, Exported):
            scene.frames()  # finds how their numbers are written
        return scene

    def _find_tasks(self) -> list[Task]:
        if self.layout is Framenet:
            return [NORMALS]
        folder = next(iter(self.scenes.values())).folder
        raw = (folder / RAW).is_dir() or zipped(folder).is_file()
        if not raw and not (folder / CLASSES).is_dir():
            return [DEPTH]
        chosen = [*range(1, 41)] if self.chosen["classes"] == "40" else [*BENCHMARK]
        table = np.full(41, 255, np.uint8)
        table[chosen] = np.arange(len(chosen))
        self.table = table[read_raw_labels(self.root / LABELS)] if raw else table
        return [DEPTH, SEMSEG.with_classes([NAMES_40[number - 1] for number in chosen])]

    def check_pairs(self) -> None:
        """Raise InputError if scenes of the split are missing. Not every file is looked for."""
        Source.check_pairs(self)

    def file(self, column: str, index: int) -> Path:
        scene, frame = self.rows[index]
        folder = self._label_folder(scene)
        if isinstance(scene, Framenet):
            return scene.picture("color" if column == "image" else "normal", frame)
        if column == SEMSEG.name:
            if not folder.is_dir():
                return zipped(scene.folder)
            written = scene.names[frame] if isinstance(scene, Exported) else str(frame)
            return folder / f"{written}.png"
        if isinstance(scene, Sens):
            return scene.file
        assert isinstance(scene, Exported)
        return scene.colour(frame) if column == "image" else scene.picture("depth", frame)

    def _label_folder(self, scene: Scene) -> Path:
        has_classes = (scene.folder / CLASSES).is_dir() and not (scene.folder / RAW).is_dir()
        return scene.folder / (CLASSES if has_classes else RAW)

    def image(self, index: int) -> NDArray[np.uint8]:
        scene, frame = self.rows[index]
        return self.rgb(self.file("image", index), self.ids[index], scene.colour(frame))

    def target(self, task: str, index: int, size: tuple[int, int]) -> NDArray[np.generic]:
        scene, frame = self.rows[index]
        if isinstance(scene, Framenet):
            return self._read_normals(scene, frame)
        file = self.file(task, index)
        if task == SEMSEG.name:
            content = read_zipped(file, frame) if file.suffix == ".zip" else None
            return self.table[self.class_numbers(file, len(self.table) - 1, content=content)]
        assert isinstance(scene, Exported | Sens)
        if isinstance(scene, Sens):
            return onto_colour(scene.depth(frame), scene.cameras(), size)
        millimetres = self.class_numbers(file, 65535).astype(np.float32)
        return onto_colour(millimetres / np.float32(1000), scene.cameras(), size)

    def _read_normals(self, scene: Framenet, frame: int) -> NDArray[np.float32]:
        file, mask_file = scene.picture("normal", frame), scene.picture("orient-mask", frame)
        colours, mask = self.colours(file), self.values(mask_file)
        if mask.shape[:2] != colours.shape[:2]:
            raise InputError(f"{mask_file}: has shape {mask.shape}, expected {colours.shape[:2]}")
        known = mask.astype(bool).reshape(*mask.shape[:2], -1).any(-1)
        return to_ours(decode(colours), self.axes, np.asarray(known, bool))
